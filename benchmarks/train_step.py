"""The training loop against the bare network, on the preset and the windows of ``recipes/loupe-native.toml``.

    python benchmarks/train_step.py [--steps 20] [--batch 8] [--workers 1] [--threads 2] [--out FILE.csv]

Baseline: forward, loss, backward and AdamW over and over on one batch that lies in memory, nothing else, in the same
run. Ours: the whole loop with decoding, cropping, clipping, averaging of the weights and the log. Their ratio is what
the loop costs; ``data_per_s`` is what one process can make, and must be well above ``bare_per_s``.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from _record import record

from seamline.data import open_data
from seamline.feeds import feed
from seamline.train import Recipe, Windows, _detector, read_recipe, train

RECIPE = Path(__file__).parents[1] / "recipes/loupe-native.toml"


def make_photos(root: Path, count: int = 16) -> None:
    """Photos of 832 x 832, half of them with a forged disc: clouds of noise, as JPEG of an ordinary size."""
    rng = np.random.default_rng(0)
    (root / "media").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = []
    for i in range(count):
        clouds = cv2.GaussianBlur(rng.normal(0, 40, (832, 832, 3)), (0, 0), 12) * 10
        rgb = np.clip(128 + clouds + rng.normal(0, 4, clouds.shape), 0, 255).astype(np.uint8)
        mask = np.zeros((832, 832), np.uint8)
        cv2.circle(mask, tuple(int(v) for v in rng.integers(150, 680, 2)), 110, 255, -1)
        rgb[mask > 0] = rgb[::-1, ::-1][mask > 0]
        cv2.imwrite(str(root / f"media/{i}.jpg"), rgb, [cv2.IMWRITE_JPEG_QUALITY, 92])
        cv2.imwrite(str(root / f"masks/{i}.png"), mask)
        row = {"path": f"media/{i}.jpg", "mask": f"masks/{i}.png" if i % 2 else None, "label": i % 2, "group": str(i)}
        rows.append(row | {"kind": "copy-move" if i % 2 else "authentic"})
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def bare(recipe: Recipe, root: Path, steps: int) -> tuple[float, float]:
    """Windows a second of the bare network, and of making windows in this process."""
    stage = recipe.stage[0]
    detector = _detector(recipe).train()
    if recipe.channels_last:
        detector = detector.to(memory_format=torch.channels_last)
    meal = feed(detector, recipe.crop, recipe.near, root)
    windows = Windows(open_data(root), recipe, meal, 0, 0, stage.batch * steps)
    start = time.perf_counter()
    items = [windows[i] for i in range(min(len(windows), 32))]
    data = len(items) / (time.perf_counter() - start)
    batch = items[: stage.batch]
    pixels, targets = windows.feed.collate(batch)
    if recipe.channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(detector.parameter_groups(stage.lr, stage.weight_decay))
    for i in range(steps + 2):
        if i == 2:  # two steps warm up
            start = time.perf_counter()
        losses = detector.criterion(detector(pixels, targets), targets)
        torch.stack([detector.loss_weights[name] * loss for name, loss in losses.items()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return steps * stage.batch / (time.perf_counter() - start), data


def loop(recipe: Recipe, root: Path, out: Path) -> float:
    """Windows a second of the training loop, its first two steps left out."""
    train(recipe, root, out, device="cpu", progress=False)
    with (out / "log.csv").open(newline="") as file:
        rows = [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader(file)]
    (first, began), (last, ended) = rows[1], rows[-2]  # the last step also writes the state
    return (last - first) * recipe.stage[0].batch / (ended - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    recipe = read_recipe(RECIPE)
    # the last stage trains every part, as the bare network does
    stage = dataclasses.replace(recipe.stage[-1], steps=arguments.steps + 3, batch=arguments.batch)
    recipe = dataclasses.replace(
        recipe, stage=(stage,), workers=arguments.workers, validate_every=0, holdout=0.0, log_every=1, tensorboard=False
    )
    with tempfile.TemporaryDirectory() as folder:
        make_photos(Path(folder) / "data")
        bare_per_s, data_per_s = bare(recipe, Path(folder) / "data", arguments.steps)
        loop_per_s = loop(recipe, Path(folder) / "data", Path(folder) / "out")
    row = {
        "model": recipe.model,
        "window": recipe.crop,
        "batch": arguments.batch,
        "bare_per_s": round(bare_per_s, 2),
        "loop_per_s": round(loop_per_s, 2),
        "loop_share": round(loop_per_s / bare_per_s, 3),
        "data_per_s": round(data_per_s, 1),
        "workers": arguments.workers,
        "threads": arguments.threads,
    }
    record(row, arguments.out)


if __name__ == "__main__":
    main()
