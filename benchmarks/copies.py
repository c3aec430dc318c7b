"""Copies within a photo: our pairs of keypoints against OpenCV's brute-force matcher, and the whole search.

    python benchmarks/copies.py [--repeats 7] [--out benchmarks/copies.csv]

One photo of 1280 x 960 pixels with 8 000 keypoints, of which a tenth is a copy turned by 25 degrees. Both matchers give
the three nearest descriptors of every keypoint; ours leaves out those that show the same place, the other can't. Same
process, one after another, medians. ``find`` is all of it: keypoints, pairs, movements and the dense check.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from _record import timed

from seamline import copies


def scene(height: int = 960, width: int = 1280) -> np.ndarray[Any, Any]:
    """A photo (H, W, 3) of clouds of every size and grain, with a copy."""
    rng = np.random.default_rng(0)
    light = np.full((height, width), 128.0)
    for sigma, power in ((30, 30), (8, 25), (2.5, 20), (1, 8)):
        cloud = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), sigma)
        light += power * cloud / cloud.std()
    rgb = np.clip(light[..., None] + rng.normal(0, 2, (height, width, 3)), 0, 255).astype(np.uint8)
    turn = cv2.getRotationMatrix2D((300, 300), 25, 1.0)
    turn[:, 2] += (600, 300)
    moved = cv2.warpAffine(rgb, turn, (width, height), flags=cv2.INTER_CUBIC)
    inside = np.zeros((height, width), np.uint8)
    cv2.circle(inside, (900, 600), 200, 1, -1)
    return np.where(inside[..., None] > 0, moved, rgb).astype(np.uint8)


def main() -> None:
    """Measure and print; write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    photo = scene()
    points, descriptors = copies._keypoints(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY))
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    cases: dict[str, Callable[[], Any]] = {
        "OpenCV BFMatcher, 4 nearest": lambda: matcher.knnMatch(descriptors, descriptors, 4),
        "pairs": lambda: copies._pairs(points, descriptors),
        "find, all of it": lambda: copies.find(photo),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for work in cases.values():
        work()
    for _ in range(arguments.repeats):
        for name, work in cases.items():
            times[name].append(timed(work))
    base = statistics.median(times["OpenCV BFMatcher, 4 nearest"])
    rows = [
        {"what": name, "keypoints": len(points), "seconds": round(statistics.median(seen), 4)}
        | {"times_faster": round(base / statistics.median(seen), 2) if name == "pairs" else ""}
        for name, seen in times.items()
    ]
    out = arguments.out.open("w", newline="") if arguments.out else sys.stdout
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    print(f"odds {copies.find(photo).odds:.2f}, {torch.get_num_threads()} threads", file=sys.stderr)


if __name__ == "__main__":
    main()
