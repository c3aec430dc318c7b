"""Metrics against what others use, in the same run: spans against avdeepfake1m (Rust), pixels against scikit-learn.

    python benchmarks/metrics.py [--videos 1000] [--proposals 100] [--rounds 9] [--masks 50] [--slow-masks 3]

``spans``: AP at 3 thresholds and AR at 4 numbers of proposals, from two JSON files to seven figures on both sides.
``masks``: every figure of :class:`PixelTable` of heat maps of a megapixel, float32, against a call of scikit-learn for
each figure of each map; per map, since the slow side gets only ``--slow-masks`` of them. ``million``: a million
proposals in one file; what reading and matching add in memory (as tracemalloc sees it), against :func:`json.loads`.

The two sides take turns. Seconds are medians of wall clock and of processor time of all threads; a ratio is the median
of the ratios of turns, above 1 where ours is faster.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
import sklearn.metrics
from _record import record
from temporal_metrics import make

from seamline.metrics.image import PixelTable
from seamline.metrics.rows import read_rows
from seamline.metrics.temporal import IOUS, NUMBERS, RECALL_IOUS, Matching

Map = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def package() -> Any:
    """The compiled module of avdeepfake1m, without the rest of the package; ``None`` where it is not installed."""
    try:
        files = importlib.metadata.files("avdeepfake1m") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    path = next(str(file.locate()) for file in files if file.name.startswith("_evaluation"))
    loader = importlib.machinery.ExtensionFileLoader("_evaluation", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_evaluation", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


def take_turns(sides: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """What each side answers, and ``SIDE_s``, ``SIDE_cpu_s`` and the ratios of the first side over the others."""
    answers: dict[str, Any] = {}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            answers[name] = call()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - began_cpu)
    figures = {}
    for kind, times in (("", wall), ("_cpu", cpu)):
        for name in sides:
            figures[f"{name}{kind}_s"] = round(statistics.median(times[name]), 5)
        first, *others = sides
        for name in others:
            ratios = [theirs / ours for ours, theirs in zip(times[first], times[name], strict=True)]
            figures[f"{name}{kind}_ratio"] = round(statistics.median(ratios), 2)
    return answers, figures


def spans(folder: Path, videos: int, proposals: int, rounds: int) -> dict[str, Any]:
    found, truths = make(videos, proposals)
    names = [f"{i:06d}.mp4" for i in range(videos)]
    paths = folder / "found.json", folder / "truth.json"
    paths[0].write_text(json.dumps({name: rows.tolist() for name, rows in zip(names, found, strict=True)}))
    labels = [{"file": name, "spans": rows.tolist()} for name, rows in zip(names, truths, strict=True)]
    paths[1].write_text(json.dumps(labels))

    def ours() -> list[float]:
        truth = json.loads(paths[1].read_bytes())
        matching = Matching(read_rows(paths[0]).of([row["file"] for row in truth]), [row["spans"] for row in truth])
        return [*matching.ap().values(), *matching.ar().values()]

    sides: dict[str, Callable[[], Any]] = {"ours": ours}
    if (module := package()) is not None:
        limits = list(IOUS), list(NUMBERS), list(RECALL_IOUS)
        sides["avdeepfake1m"] = lambda: module.ap_ar_1d(*map(str, paths), "file", "spans", 1.0, *limits)
    answers, times = take_turns(sides, rounds)
    if module is not None:  # by another definition, so not the same, but near
        theirs = [*answers["avdeepfake1m"]["ap"].values(), *(answers["avdeepfake1m"]["ar"][n] for n in NUMBERS)]
        times["difference"] = round(max(abs(a - b) for a, b in zip(answers["ours"], theirs, strict=True)), 5)
    return {f"spans_{key}": value for key, value in times.items()}


def heat_maps(many: int, side: int = 1000) -> list[Map]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(many):
        truth = np.zeros((side, side), bool)
        y, x = rng.integers(0, side * 3 // 4, 2)
        truth[y : y + side // 4, x : x + side // 4] = True
        scores = np.clip(rng.normal(0.3 + 0.4 * truth, 0.2), 0, 1).astype(np.float32)
        found.append((scores, truth))
    return found


def with_scikit_learn(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> dict[str, float]:
    """The same figures of one map, as they are usually had."""
    y, s = truth.ravel(), scores.ravel()
    x = s >= 0.5
    precision, recall, _ = sklearn.metrics.precision_recall_curve(y, s)
    reverse, other, _ = sklearn.metrics.precision_recall_curve(y, 1 - s)
    return {
        "f1": sklearn.metrics.f1_score(y, x),
        "iou": sklearn.metrics.jaccard_score(y, x),
        "mcc": sklearn.metrics.matthews_corrcoef(y, x),
        "precision": sklearn.metrics.precision_score(y, x),
        "recall": sklearn.metrics.recall_score(y, x),
        "auc": sklearn.metrics.roc_auc_score(y, s),
        "ap": sklearn.metrics.average_precision_score(y, s),
        "f1_double": max(sklearn.metrics.f1_score(y, x), sklearn.metrics.f1_score(y, ~x)),
        "f1_best": float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))),
        "f1_inverted": float(np.max(2 * reverse * other / np.maximum(reverse + other, 1e-12))),
    }


def masks(many: int, slow: int) -> dict[str, Any]:
    made = heat_maps(min(many, 10))
    table = PixelTable()
    wall, cpu = [], []
    for i in range(many):
        began, began_cpu = time.perf_counter(), time.process_time()
        table.add(*made[i % len(made)])
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    began = time.perf_counter()
    table.figures()
    last = time.perf_counter() - began

    def ours(maps: Sequence[Map]) -> dict[str, float]:
        own = PixelTable()
        for scores, truth in maps:
            own.add(scores, truth)
        return own.figures()

    slow = min(slow, len(made))
    ratios, cpu_ratios, theirs_s, differences = [], [], [], []
    for scores, truth in made[:slow]:
        answers, times = take_turns(
            {
                "ours": lambda s=scores, t=truth: ours([(s, t)]),
                "sklearn": lambda s=scores, t=truth: with_scikit_learn(s, t),
            },
            1,
        )
        ratios.append(times["sklearn_ratio"])
        cpu_ratios.append(times["sklearn_cpu_ratio"])
        theirs_s.append(times["sklearn_s"])
        known = answers["sklearn"].keys() - {"f1_inverted"}
        differences.append(max(abs(answers["ours"][key] - answers["sklearn"][key]) for key in known))
    return {
        "masks": many,
        "masks_ours_s": round(statistics.median(wall), 5),
        "masks_ours_cpu_s": round(statistics.median(cpu), 5),
        "masks_all_s": round(sum(wall) + last, 1),
        "masks_slow": slow,
        "masks_sklearn_s": round(statistics.median(theirs_s), 3),
        "masks_ratio": round(statistics.median(ratios), 1),
        "masks_cpu_ratio": round(statistics.median(cpu_ratios), 1),
        "masks_difference": f"{max(differences):.1e}",
    }


def million(folder: Path, clips: int = 10_000, proposals: int = 100) -> dict[str, Any]:
    path = folder / "million.json"
    rng = np.random.default_rng(1)
    truths = [[[float(start), float(start) + 1.0]] for start in rng.random(clips) * 10]
    with path.open("w") as file:
        for i, truth in enumerate(truths):
            start = np.append(rng.random(proposals - 1) * 10, truth[0][0])
            rows = np.stack([rng.random(proposals), start, start + 1], 1).round(6).tolist()
            file.write(("{" if i == 0 else ", ") + f'"{i}": {json.dumps(rows)}')
        file.write("}")

    def peak(call: Callable[[], Any]) -> float:
        tracemalloc.start()
        call()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return round(most / 1e6)

    began = time.process_time()
    Matching(read_rows(path), truths).ap()
    return {
        "million_file_mb": round(path.stat().st_size / 1e6),
        "million_cpu_s": round(time.process_time() - began, 2),
        "million_peak_mb": peak(lambda: Matching(read_rows(path), truths)),
        "million_json_peak_mb": peak(lambda: json.loads(path.read_bytes())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--proposals", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--masks", type=int, default=50)
    parser.add_argument("--slow-masks", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row = {"videos": arguments.videos, "proposals": arguments.proposals, "scikit-learn": sklearn.__version__}
        row |= spans(folder, arguments.videos, arguments.proposals, arguments.rounds)
        row |= masks(arguments.masks, arguments.slow_masks)
        row |= million(folder)
    record(row, arguments.out)


if __name__ == "__main__":
    main()
