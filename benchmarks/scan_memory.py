"""Peak memory and time of scanning one large photo, each step in a process of its own.

    python benchmarks/scan_memory.py [--model NAME] [--megapixels 24] [--csv FILE]

Baselines of the same run: a process that only imports torch, and one that also decodes the photo. Peak memory is the
largest resident set the kernel saw (ru_maxrss), of the whole process.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

CHILD = """
import json, resource, sys, time
began = time.perf_counter()
step, photo, model, out = sys.argv[1:]
verdict = ""
if step == "import torch":
    import torch
elif step == "open the photo":
    import torch
    import seamline
    seamline.open_media(photo)
elif step == "scan":
    import seamline
    report = seamline.detect(photo, model)
    verdict = report.verdict
else:
    import seamline
    (report,) = seamline.load(model).scan([photo], out)
    assert report.artifacts.overlay, report.error
    verdict = report.verdict
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([peak, time.perf_counter() - began, time.process_time(), verdict]))
"""
STEPS = ("import torch", "open the photo", "scan", "scan and write pictures")


def photo(path: Path, megapixels: float) -> tuple[int, int]:
    """A 3:2 JPEG with smooth shapes and sensor-like noise; its size (width, height)."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(height * 1.5)
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 255, (40, 60, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for row in range(0, height, 256):
        part = pixels[row : row + 256]
        noise = rng.normal(0, 4, part.shape).astype(np.float32)
        pixels[row : row + 256] = np.clip(part + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=92)
    return width, height


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--model", default="default")
    words.add_argument("--megapixels", type=float, default=24.0)
    words.add_argument("--csv", type=Path, help="append the rows to this file")
    asked = words.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        width, height = photo(path, asked.megapixels)
        print(f"{width} x {height} JPEG, {path.stat().st_size / 2**20:.1f} MiB, model {asked.model}")
        for step in STEPS:
            command = [sys.executable, "-c", CHILD, step, str(path), asked.model, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            peak, seconds, busy, verdict = json.loads(done.stdout)
            rows.append(
                {
                    "step": step,
                    "peak_mb": round(peak / 1e6),
                    "seconds": round(seconds, 2),
                    "cpu_seconds": round(busy, 2),
                }
            )
            print(f"{step:26} {peak / 1e6:7.0f} MB {seconds:7.2f} s {busy:7.2f} s of CPU  {verdict}")
    if asked.csv:
        facts = {
            "width": width,
            "height": height,
            "model": Path(asked.model).name,
            "cpu": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "commit": commit.stdout.strip() or "none",
        }
        fresh = not asked.csv.exists()
        with asked.csv.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*rows[0], *facts])
            if fresh:
                writer.writeheader()
            writer.writerows(row | facts for row in rows)


if __name__ == "__main__":
    main()
