"""What patch prediction, conditional queries and the box term are each worth: same data, budget and judges.

    seamline forge PHOTOS DATA --recipe recipes/forge-ablation.toml --workers 2
    python benchmarks/ablations/loupe.py DATA RUNS

Trains recipes/loupe-ablation.toml with each part switched off in turn, three seeds each, and scores the averaged
weights of the last step on windows of held-out groups. The pixel decoder is told the predicted score, never the
truth. Prints and writes RUNS/ablation.csv; finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path
from statistics import mean, stdev

import torch

from seamline.train import read_recipe, train

VARIANTS: dict[str, dict[str, bool]] = {
    "whole": {},
    "no patch prediction": {"patches": False},
    "no conditional queries": {"condition": False},
    "no box term": {"boxes": False},
}
SCORES = ("auc", "f1", "iou")


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = read_recipe(Path(__file__).parents[2] / "recipes" / "loupe-ablation.toml")
    rows = []
    for seed in range(options.seeds):
        for name, off in VARIANTS.items():
            out = options.runs / f"{name.replace(' ', '-')}-{seed}"
            # the seed moves weights and windows; which groups are held out follows it too, alike for all variants
            recipe = dataclasses.replace(base, seed=seed, sizes=base.sizes | off)
            if not (out / "done").exists():
                train(recipe, options.data, out, progress=False)
                (out / "done").touch()
            with (out / "validation.csv").open() as file:
                last = list(csv.DictReader(file))[-1]
            rows.append({"variant": name, "seed": seed} | {score: float(last[score]) for score in SCORES})
            print(rows[-1], flush=True)
    with (options.runs / "ablation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["variant", "seed", *SCORES])
        writer.writeheader()
        writer.writerows(rows)
    print("| variant | " + " | ".join(f"{s} (mean ± sd of {options.seeds})" for s in SCORES) + " |")
    print("|---" * (len(SCORES) + 1) + "|")
    for name in VARIANTS:
        columns = [[row[score] for row in rows if row["variant"] == name] for score in SCORES]
        cells = [f"{mean(c):.3f} ± {stdev(c) if len(c) > 1 else 0:.3f}" for c in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
