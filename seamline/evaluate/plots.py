"""Plots of rows: ROC, precision and recall, reliability, scores, AP against IoU, robustness; as SVG and as PNG.

Everything is drawn from the rows alone, so that a plot can be made again wherever a row is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..chart import (
    AUTHENTIC,
    FAINT,
    FORGED,
    GRID,
    INK,
    SERIES,
    Axes,
    Colour,
    Sheet,
    fitted,
    length,
    number,
    steps,
)
from .card import ROBUST, spoken

WIDTH, HEIGHT = 560, 534
LEFT, TOP, SIDE = 66, 112, 340  # of the frame; its side is its height
TENTHS = [i / 5 for i in range(6)]
ROW, PANEL, GAP = 26, 148, 34  # of the robustness plot: height of a row, width of a panel and between panels
BETTER = {  # the figures of the robustness plot, and which way is good
    "auc": "more is better",
    "f1": "more is better",
    "ap50": "more is better",
    "false_alarms": "less is better",
    "ece": "less is better",
    "inconclusive": "no verdict given",
}
Row = dict[str, Any]


def write_plots(row: Row, folder: str | Path) -> list[Path]:
    """Write every plot of a row that is defined, each as SVG and PNG; their paths."""
    return [path for name, sheet in plots(row).items() for path in sheet.write(Path(folder) / name)]


def plots(row: Row) -> dict[str, Sheet]:
    """Every plot of a row that is defined, by name."""
    made: dict[str, Callable[[], Sheet]] = {
        "roc": lambda: roc([row]),
        "precision_recall": lambda: precision_recall([row]),
        "reliability": lambda: reliability(row),
        "scores": lambda: scores(row),
        "ap_iou": lambda: ap_iou([row]),
        "robustness": lambda: robustness(row),
    }
    curves = row["curves"]
    there = {
        "roc": bool(curves["roc"]),
        "precision_recall": bool(curves["pr"]),
        "ap_iou": bool(curves.get("ap_iou")),
        "robustness": bool(row["robustness"]),
    }
    return {name: draw() for name, draw in made.items() if there.get(name, True)}


def roc(rows: Sequence[Row]) -> Sheet:
    """Detection rate against false-alarm rate, with the operating point of each row."""
    sheet, axes = _framed("ROC", rows)
    axes.grid(TENTHS, TENTHS, "authentic called forged (false alarms)", "forged called forged (detected)", "xy")
    axes.line([(0, 0), (1, 1)], FAINT, 1.0, 4.0)
    entries = []
    for row, colour in zip(rows, SERIES, strict=False):
        axes.line(row["curves"]["roc"], colour, 2.5)
        if row["detected"] is not None and row["false_alarms"] is not None:
            axes.dot(row["false_alarms"], row["detected"], colour, 5.5)
        entries.append((_entry(rows, row, "AUC", "auc"), colour, False))
    axes.legend([*entries, ("chance", FAINT, True)])
    if len(rows) == 1 and rows[0]["detected"] is not None and rows[0]["false_alarms"] is not None:
        found, alarms = (_percent(rows[0][name]) for name in ("detected", "false_alarms"))
        _note(axes, f"dot: verdicts as given, {found} of forged and {alarms} of authentic files called forged")
    return sheet


def precision_recall(rows: Sequence[Row]) -> Sheet:
    """Precision against recall; the dashed line is the share of forged files, which guessing gives."""
    sheet, axes = _framed("Precision and recall", rows)
    axes.grid(TENTHS, TENTHS, "forged called forged (recall)", "of those called forged, forged (precision)", "xy")
    entries = []
    for row, colour in zip(rows, SERIES, strict=False):
        share = row["n"]["forged"] / max(row["n"]["forged"] + row["n"]["authentic"], 1)
        axes.line([(0, share), (1, share)], FAINT, 1.0, 4.0)
        axes.line(row["curves"]["pr"], colour, 2.5)
        entries.append((_entry(rows, row, "AP", "ap"), colour, False))
    axes.legend([*entries, ("chance", FAINT, True)])
    return sheet


def reliability(row: Row) -> Sheet:
    """How often files of a probability are forged, if half of all are, with 95 % intervals (after Wilson 1927)."""
    sheet, axes = _framed("Reliability", [row])
    axes.grid(TENTHS, TENTHS, "probability of forgery that was given", "share that is forged", "xy")
    axes.line([(0, 0), (1, 1)], FAINT, 1.0, 4.0)
    bins = row["curves"]["reliability"]
    points = [(mean, share) for mean, share, _ in bins]
    axes.line(points, AUTHENTIC, 1.5)
    for mean, share, n in bins:
        low, high = wilson(share * n, n)
        axes.line([(mean, low), (mean, high)], AUTHENTIC, 1.5)
        axes.dot(mean, share, AUTHENTIC, 4.5)
        x, y = axes.at(mean, high if share <= 0.5 else low)
        sheet.text(x, y - 5 if share <= 0.5 else y + 13, str(n), FAINT, 11, "middle")
    axes.legend([(f"ECE {_figure(row, 'ece')}", AUTHENTIC, False), ("perfect", FAINT, True)])
    _note(axes, "as if half of all files were forged; bars: 95 % intervals; small numbers: files of that probability")
    return sheet


def scores(row: Row) -> Sheet:
    """How the probabilities of each class are spread, and where the threshold is."""
    sheet, axes = _framed("Probabilities", [row])
    counts = row["curves"]["scores"]
    shares = {name: [n / max(sum(bins), 1) for n in bins] for name, bins in counts.items()}
    ticks = steps(max(map(max, shares.values())), 4)
    axes = Axes(sheet, axes.left, axes.top, axes.width, axes.height, y=(0.0, ticks[-1]))
    if 0.5 < row["threshold"] < 1:
        axes.area([(0.5, 0), (row["threshold"], 0), (row["threshold"], ticks[-1]), (0.5, ticks[-1])], GRID, 0.6)
    axes.grid(TENTHS, ticks, "probability of forgery", "share of the class", "xy")
    for name, colour in (("authentic", AUTHENTIC), ("forged", FORGED)):
        bins = shares[name]
        outline = [(0.0, 0.0)]
        for k, share in enumerate(bins):
            outline += [(k / len(bins), share), ((k + 1) / len(bins), share)]
        outline.append((1.0, 0.0))
        axes.area(outline, colour, 0.25)
        axes.line(outline, colour, 2.0)
    axes.line([(row["threshold"], 0), (row["threshold"], ticks[-1])], INK, 1.5, 4.0)
    entries = [
        (f"{name}, {row['n'][name]}", colour, False) for name, colour in (("authentic", AUTHENTIC), ("forged", FORGED))
    ]
    entries.append((f"threshold {row['threshold']:.2f}", INK, True))
    axes.legend(entries)
    if 0.5 < row["threshold"] < 1:
        _note(axes, "grey: likelier forged than not, yet below the threshold (inconclusive)")
    return sheet


def ap_iou(rows: Sequence[Row]) -> Sheet:
    """AP of forged spans against how well they must overlap; the band is the 95 % interval."""
    sheet, axes = _framed("AP of spans against overlap", rows)
    found = [row["curves"]["ap_iou"] for row in rows]
    ticks = steps(max(point[3] for points in found for point in points), 5)
    axes = Axes(sheet, axes.left, axes.top, axes.width, axes.height, (0.5, 0.95), (0.0, min(ticks[-1], 1.0)))
    axes.grid(
        [0.5, 0.6, 0.7, 0.8, 0.9], [tick for tick in ticks if tick <= 1], "least overlap with the truth (IoU)", "AP"
    )
    entries = []
    for row, points, colour in zip(rows, found, SERIES, strict=False):
        if len(rows) <= 3:
            band = [(iou, low) for iou, _, low, _ in points] + [(iou, high) for iou, _, _, high in reversed(points)]
            axes.area(band, colour, 0.15)
        axes.line(points, colour, 2.5)
        for iou, ap, _, _ in points:
            axes.dot(iou, ap, colour, 3.5)
        entries.append((_entry(rows, row, "AP@.5", "ap50"), colour, False))
    axes.legend(entries)
    return sheet


def robustness(row: Row) -> Sheet:
    """What each perturbation does to the main figures, beside those of the files as they are."""
    entries = row["robustness"]
    names = [name for name in BETTER if name in entries[0]]
    labels = [spoken(entry["perturb"]) for entry in entries]
    left = 24 + max(length(label) for label in labels) + 16
    top, bottom = 112, 112 + ROW * len(entries)
    sheet = Sheet(round(left + len(names) * (PANEL + GAP) + 6), bottom + 88, f"Robustness, {_about([row])}")
    _head(sheet, "Robustness", [row])
    for k, label in enumerate(labels):
        y = top + ROW * (k + 0.5)
        if k % 2:
            sheet.box(14, y - ROW / 2, sheet.width - 14, y + ROW / 2, GRID, 0.3)
        sheet.text(24, y + 4.5, label)
    for column, name in enumerate(names):
        span = 1.0 if name == "auc" else max([entry["ci95"].get(name, [0, entry[name] or 0])[1] for entry in entries])
        ticks = [0.0, 0.5, 1.0] if name == "auc" else steps(span, 3)
        axes = Axes(sheet, left + column * (PANEL + GAP), top, PANEL, bottom - top, x=(0.0, ticks[-1]))
        _panel(axes, entries, name, FORGED if name in ("false_alarms", "inconclusive") else AUTHENTIC)
        for tick in ticks:
            x, _ = axes.at(tick, 0)
            sheet.text(x, bottom + 19, number(tick), FAINT, 12, "middle")
        sheet.text(axes.left, top - 24, ROBUST[name])
        sheet.text(axes.left, top - 9, BETTER[name], FAINT, 11)
    for k, note in enumerate(
        (
            "Dots: figure and 95 % interval; dashes and band: the files as they are. Strengths of one kind are joined.",
            "Ring: the change may be chance, by the interval of the change over the same files.",
        )
    ):
        sheet.text(24, bottom + 52 + 18 * k, note, FAINT, 12)
    return sheet


def _panel(axes: Axes, entries: Sequence[dict[str, Any]], name: str, colour: Colour) -> None:
    """One figure of every perturbation, a row each."""
    base = entries[0]
    low, high = base["ci95"].get(name, [base[name]] * 2)
    if base[name] is not None:
        axes.area([(low, 0), (high, 0), (high, 1), (low, 1)], FAINT, 0.14)
        axes.line([(base[name], 0), (base[name], 1)], FAINT, 1.0, 4.0)
    for edge in axes.x:
        axes.line([(edge, 0), (edge, 1)], GRID, 1.0)
    places = [1 - (k + 0.5) / len(entries) for k in range(len(entries))]
    for (before, y0), (after, y1) in pairwise(zip(entries, places, strict=True)):
        if _word(before) == _word(after) and before[name] is not None and after[name] is not None:
            axes.line([(before[name], y0), (after[name], y1)], colour, 1.5)
    for entry, y in zip(entries, places, strict=True):
        if entry[name] is None:
            axes.sheet.text(axes.left + 4, axes.at(0, y)[1] + 4.5, "not defined", FAINT, 11)
            continue
        if name in entry["ci95"]:
            axes.line([(end, y) for end in entry["ci95"][name]], colour, 1.5)
        low, high = entry.get("change_ci95", {}).get(name, [1.0, 1.0])
        axes.dot(entry[name], y, colour, 4.5, hollow=low <= 0 <= high)


def _word(entry: dict[str, Any]) -> str:
    """``jpeg`` of ``jpeg75``; nothing two perturbations in a row share has another word."""
    name: str = entry["perturb"]
    return name if "+" in name else name.rstrip("0123456789.")


def wilson(found: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, found / n (Wilson 1927)."""
    z = 1.96
    middle, half = (found + z * z / 2) / (n + z * z), z * math.sqrt(found * (n - found) / n + z * z / 4) / (n + z * z)
    return max(0.0, middle - half), min(1.0, middle + half)


def _framed(title: str, rows: Sequence[Row]) -> tuple[Sheet, Axes]:
    """A sheet with its headings, and the frame to draw in."""
    sheet = Sheet(WIDTH, HEIGHT, f"{title}, {_about(rows)}")
    _head(sheet, title, rows)
    return sheet, Axes(sheet, LEFT, TOP, WIDTH - LEFT - 34, SIDE)


def _head(sheet: Sheet, title: str, rows: Sequence[Row]) -> None:
    sheet.text(24, 34, title, size=19)
    sheet.text(24, 56, fitted(_about(rows), sheet.width - 40), FAINT)


def _about(rows: Sequence[Row]) -> str:
    """Model, data and how many files."""
    row = rows[0]
    model = [f"{row['model']['name']}"] if len(rows) == 1 else []
    perturb = [] if row["perturb"] == "none" else [spoken(row["perturb"])]
    n = f"n = {row['n']['authentic']} authentic + {row['n']['forged']} forged"
    return ", ".join([*model, row["data"]["name"], *perturb, n])


def _entry(rows: Sequence[Row], row: Row, name: str, figure: str) -> str:
    """A row's line in a legend."""
    value = f"{name} {_figure(row, figure)}"
    return value if len(rows) == 1 else f"{fitted(str(row['model']['name']), 150)}: {value}"


def _figure(row: Row, name: str) -> str:
    """A figure with its interval."""
    if row[name] is None:
        return "not defined"
    ends = row["ci95"].get(name)
    return f"{row[name]:.3f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _note(axes: Axes, text: str) -> None:
    """A remark between the headings and the frame's foot."""
    axes.sheet.text(24, 76, text, FAINT, 12)
