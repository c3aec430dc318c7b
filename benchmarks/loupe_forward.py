"""Full-size Loupe against a plain timm forward of the same backbone, and the memory of one scan.

    python benchmarks/loupe_forward.py [--repeats 9] [--threads 2] [--out benchmarks/loupe_forward.csv]

Speed: Perception Encoder L14-336, random weights, batch 1. Both forwards run in turn in one process; the figure is the
median of the paired ratios. The baseline is ``timm``'s own model, tokens and attention pooling, without any head. The
released code takes 1.49. Memory: the peak resident size of a fresh process that builds the model and scans one photo.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from _record import record

from seamline.detectors.loupe import PRESETS, Loupe

NAME = "loupe-pe-l14-336"
LIMIT_RATIO, RELEASED_RATIO, LIMIT_MB = 1.45, 1.49, 2200


def build(mode: str) -> Loupe:
    torch.manual_seed(0)
    sizes = PRESETS[NAME] if mode == "corrected" else PRESETS[NAME].reference()
    return Loupe(sizes).eval()


def scan_memory(mode: str) -> None:
    """Scan one 12-megapixel photo and print the peak resident size of this process in megabytes."""
    model = build(mode)
    photo = np.random.default_rng(0).integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    with torch.inference_mode():
        outputs = model(model.preprocess(photo)[None])
        model.postprocess(outputs, [photo.shape[:2]])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(peak / 1024 if sys.platform != "darwin" else peak / 2**20)


def ratios(mode: str, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of the whole Loupe and of the plain backbone, in turn."""
    model = build(mode)
    pixels = torch.randn(1, 3, 336, 336)
    backbone = model.encoder.model
    ours, plain = [], []
    with torch.inference_mode():
        for i in range(repeats + 1):
            start = time.perf_counter()
            model(pixels)
            middle = time.perf_counter()
            backbone.forward_head(backbone.forward_features(pixels), pre_logits=True)
            end = time.perf_counter()
            if i:  # the first round warms up
                ours.append(middle - start)
                plain.append(end - middle)
    return ours, plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mode", choices=("reference", "corrected"), default="reference")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--memory", action="store_true", help="only scan one photo and print the peak memory")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory:
        scan_memory(arguments.mode)
        return
    again = [sys.executable, __file__, "--memory", "--mode", arguments.mode, "--threads", str(arguments.threads)]
    peak = float(subprocess.run(again, check=True, capture_output=True, text=True).stdout)
    ours, plain = ratios(arguments.mode, arguments.repeats)
    ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
    row = {
        "model": NAME,
        "mode": arguments.mode,
        "loupe_s": round(statistics.median(ours), 3),
        "timm_backbone_s": round(statistics.median(plain), 3),
        "ratio": round(ratio, 3),
        "ratio_limit": LIMIT_RATIO,
        "ratio_released_code": RELEASED_RATIO,
        "peak_mb": round(peak),
        "peak_limit_mb": LIMIT_MB,
        "threads": arguments.threads,
        "repeats": arguments.repeats,
    }
    record(row, arguments.out)


if __name__ == "__main__":
    main()
