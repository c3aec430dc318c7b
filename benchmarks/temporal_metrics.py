"""AP at 3 thresholds and AR at 4 numbers of proposals, against a plain loop over the videos, in the same run.

    python benchmarks/temporal_metrics.py [--videos 1000] [--proposals 100] [--rounds 9] [--out FILE.csv]

Baseline: the same definitions as anyone would first write them, one video and one proposal after another in Python
lists. Ours and the baseline take turns; times are medians, in seconds of CPU. ``intervals_s`` is for the confidence
intervals of all seven figures from 1000 resamples; ``peak_mb`` is what matching adds in memory (numpy's, as tracemalloc
sees it).
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
from _record import record

from seamline.metrics.bootstrap import bootstrap
from seamline.metrics.temporal import IOUS, NUMBERS, RECALL_IOUS, Matching

Rows = list[npt.NDArray[np.float64]]


def make(videos: int, proposals: int) -> tuple[Rows, Rows]:
    """Clips of 10 to 20 seconds, three quarters of them with 1 to 3 forged spans, some proposals near the truth."""
    rng = np.random.default_rng(0)
    found, truths = [], []
    for _ in range(videos):
        length = rng.uniform(10, 20)
        labels = int(rng.integers(1, 4)) if rng.random() < 0.75 else 0
        begin = np.sort(rng.uniform(0, length - 2, labels))
        truth = np.stack([begin, begin + rng.uniform(0.2, 1.6, labels)], 1)
        start = rng.uniform(0, length - 1, proposals)
        rows = np.stack([rng.random(proposals) * 0.6, start, start + rng.uniform(0.04, 1.6, proposals)], 1)
        for i, (s, e) in enumerate(truth[:proposals]):
            rows[i] = rng.uniform(0.3, 1), max(0, s + rng.normal(0, 0.05)), e + rng.normal(0, 0.05)
        rows[:, 2] = np.maximum(rows[:, 1], rows[:, 2])
        found.append(rows[np.argsort(-rows[:, 0])])
        truths.append(truth)
    return found, truths


def plain(found: Rows, truths: Rows) -> list[float]:
    """AP and AR of each video in turn, in plain Python."""

    def iou(start: float, end: float, true_start: float, true_end: float) -> float:
        both = min(end, true_end) - max(start, true_start)
        return both / (max(end, true_end) - min(start, true_start)) if both > 0 else 0.0

    labels = sum(len(t) for t in truths)
    figures = []
    lists = [(f.tolist(), t.tolist()) for f, t in zip(found, truths, strict=True)]
    for threshold in IOUS:
        ranked = []
        for proposals, spans in lists:
            free = list(range(len(spans)))
            for score, start, end in sorted(proposals, key=lambda row: -row[0]):
                overlap, best = max(((iou(start, end, *spans[g]), g) for g in free), default=(0.0, -1))
                hit = overlap >= threshold - 1e-9
                if hit:
                    free.remove(best)
                ranked.append((score, hit))
        ranked.sort(key=lambda row: -row[0])
        right, points = 0, []
        for i, (_, hit) in enumerate(ranked, 1):
            right += hit
            points.append((hit, right / i))
        area, best_precision = 0.0, 0.0
        for hit, precision in reversed(points):
            best_precision = max(best_precision, precision)
            area += best_precision if hit else 0.0
        figures.append(area / labels)
    for number in NUMBERS:
        hits = 0
        for proposals, spans in lists:
            first = sorted(proposals, key=lambda row: -row[0])[:number]
            for span in spans:
                best_iou = max((iou(start, end, *span) for _, start, end in first), default=0.0)
                hits += sum(best_iou >= threshold - 1e-9 for threshold in RECALL_IOUS)
        figures.append(hits / labels / len(RECALL_IOUS))
    return figures


def ours(found: Rows, truths: Rows) -> list[float]:
    matching = Matching(found, truths)
    return [*matching.ap().values(), *matching.ar().values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--proposals", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found, truths = make(arguments.videos, arguments.proposals)
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    figures: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, call in (("ours", ours), ("plain", plain)):
            began = time.process_time()
            figures[name] = call(found, truths)
            times[name].append(time.process_time() - began)
    tracemalloc.start()
    matching = Matching(found, truths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    began = time.process_time()
    bootstrap(lambda drawn: matching.ap(drawn) | matching.ar(drawn), len(found))
    intervals = time.process_time() - began
    difference = max(abs(a - b) for a, b in zip(figures["ours"], figures["plain"], strict=True))
    row = {
        "videos": arguments.videos,
        "proposals": arguments.proposals,
        "plain_s": round(statistics.median(times["plain"]), 4),
        "ours_s": round(statistics.median(times["ours"]), 4),
        "speedup": round(statistics.median(p / o for p, o in zip(times["plain"], times["ours"], strict=True)), 1),
        "difference": f"{difference:.1e}",
        "intervals_s": round(intervals, 2),
        "peak_mb": round(peak / 1e6, 1),
    }
    record(row, arguments.out)


if __name__ == "__main__":
    main()
