"""What D5 costs: perfect maps, decoded as released and as they were trained, judged by the same AP and AR.

    python benchmarks/ablations/decoding.py [--clips 150] [--seeds 3] [--out FILE.csv]

Clips of 3 to 20 seconds; most have one forged span, of a gamma-distributed length that is cut to 0.12 to 1.5 s, as in
LAV-DF. Their maps are the training targets of BA-TFD+ (40 rows at 25 ticks a second), so whatever is lost is lost in
decoding. Spans do not end on ticks, which is why the corrected decode is not perfect either.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import mean

import numpy as np

from seamline.heads.boundary import iou_map
from seamline.heads.proposals import dense_table, soft_nms
from seamline.metrics.temporal import average_precision, average_recall

FPS, ROWS = 25.0, 40
LENGTHS = (0.4, 0.65, 1.0)  # seconds, on average
NAMES = ("AP@.5", "AP@.75", "AP@.95", "AR@10")


def figures(clips: int, length: float, seed: int, *, span: bool) -> list[float]:
    """The figures of one seed; ``span`` is the correction."""
    rng = np.random.default_rng(seed)
    found, truths = [], []
    for _ in range(clips):
        ticks = int(rng.integers(75, 500))
        spans = np.zeros((0, 2))
        if rng.random() < 0.94:
            seconds = float(np.clip(rng.gamma(4, length / 4), 0.12, 1.5))
            start = rng.uniform(0, ticks / FPS - seconds)
            spans = np.array([[start, start + seconds]])
        map_ = iou_map([(a, b) for a, b in (spans * FPS).tolist()], ticks, ticks, ROWS).numpy()
        rows = soft_nms(dense_table(map_, ticks, span=span), corrected=span)
        found.append(np.column_stack([rows[:, 0], rows[:, 1:] / FPS]))
        truths.append(spans)
    ap = average_precision(found, truths, (0.5, 0.75, 0.95))
    return [*ap.values(), average_recall(found, truths, (10,))[10]]


def main() -> None:
    """Print the table; write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    print("| mean length | decoded | " + " | ".join(NAMES) + " |\n" + "|---" * 6 + "|")
    for length in LENGTHS:
        for word, span in (("as released", False), ("as trained", True)):
            runs = [figures(options.clips, length, seed, span=span) for seed in range(options.seeds)]
            values = [mean(column) for column in zip(*runs, strict=True)]
            print(f"| {length} s | {word} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
            named = {name: round(value, 4) for name, value in zip(NAMES, values, strict=True)}
            rows.append(
                {"mean_length_s": length, "decoded": word, "clips": options.clips, "seeds": options.seeds} | named
            )
    if options.out is not None:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
