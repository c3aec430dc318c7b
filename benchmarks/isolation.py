"""A folder of photos scanned with and without isolation, in turns.

    python benchmarks/isolation.py [--photos 200] [--parts 10] [--model loupe-native] [--out benchmarks/isolation.csv]

The photos are made here: JPEG of 640 x 480, small, so that there is little work to hide the cost behind. The folder is
scanned in parts, each both ways in turn, in one process with the same weights; ``overhead`` is the median of the ratios
of the parts less one. The first scan, which starts the children and warms everything up, does not count. ``decode`` is
decoding alone: the same photos opened, and nothing done with them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from _record import record
from PIL import Image

from seamline import Session, isolation
from seamline.media import open_media

LIMIT = 0.15


def photos(folder: Path, count: int) -> list[Path]:
    """Smooth colours with grain, each another."""
    paths = []
    for i in range(count):
        rng = np.random.default_rng(i)
        base = cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
        grain = rng.normal(0, 4, (480, 640, 1))
        paths.append(folder / f"{i:03}.jpg")
        Image.fromarray(np.clip(base + grain, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def scanned(session: Session, paths: list[Path]) -> float:
    """Seconds of a scan."""
    began = time.perf_counter()
    for report in session.scan(paths):
        assert report.verdict != "error", report.error
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--model", default="loupe-native")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        paths = photos(Path(folder), options.photos)
        apart, here = Session(options.model), Session(options.model, isolate=False)
        for session in (apart, here):
            scanned(session, paths[:2])
        with_, without = [], []
        for number in range(options.parts):
            pair = [(apart, with_), (here, without)]
            for session, times in pair if number % 2 else pair[::-1]:
                times.append(scanned(session, paths[number :: options.parts]))
        opened = []
        for path in paths[:50]:
            began = time.perf_counter()
            open_media(path)
            middle = time.perf_counter()
            with isolation.opened(path):
                pass
            opened.append((middle - began, time.perf_counter() - middle))
    overhead = statistics.median(a / b for a, b in zip(with_, without, strict=True)) - 1
    row = {
        "photos": options.photos,
        "model": options.model,
        "threads": options.threads,
        "isolated_s": round(sum(with_), 2),
        "in_process_s": round(sum(without), 2),
        "overhead": round(overhead, 4),
        "decode_in_process_ms": round(1e3 * statistics.median(a for a, _ in opened), 1),
        "decode_isolated_ms": round(1e3 * statistics.median(b for _, b in opened), 1),
        "isolation": isolation.held(),
        "child_peak_mib": isolation.peak() // 2**20,
    }
    record(row, options.out)
    assert overhead <= LIMIT, f"isolation costs {overhead:.0%}, {LIMIT:.0%} is the limit"


if __name__ == "__main__":
    main()
