"""The released temporal evaluators on whole data sets and on resamples of them: what protocols and intervals need.

Of the data itself the figures are those of :mod:`seamline.metrics.temporal`, to the digit. A resample is matched once
and then counted: who hits which truth does not depend on how often a clip is drawn. Copies of a clip stand one after
another, so that resampled figures differ from those of repeated files by rounding, and by the order of equal scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .temporal import (
    ACTIVITYNET_IOUS,
    NUMBERS,
    RECALL_IOUS,
    Spans,
    _activitynet,
    _activitynet_hits,
    _activitynet_overlaps,
    _first_hits,
    _single_overlaps,
    activitynet_ap,
    activitynet_ar,
    avdeepfake1m_ap,
    avdeepfake1m_ar,
    lavdf_ap,
    lavdf_ar,
    pack,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Figures = Callable[[Ints | None], dict[str, float]]  # how often each clip counts, (n,), to named figures

LAVDF_FPS = 25.0  # its files count frames


def named(kind: Literal["ap", "ar"], values: Mapping[Any, float]) -> dict[str, float]:
    """``{0.5: x}`` as ``{"ap50": x}``, ``{10: x}`` as ``{"ar10": x}``."""
    return {f"{kind}{round(100 * key) if kind == 'ap' else key}": value for key, value in values.items()}


def first_hits(
    rows: Sequence[Floats],
    truths: Sequence[Floats],
    evaluator: Literal["lavdf", "avdeepfake1m"],
    ious: Sequence[float],
    numbers: Sequence[int],
) -> Figures:
    """AP and AR of LAV-DF's evaluator, or of the package avdeepfake1m, of any resample.

    Args:
        rows: of each clip (k, 3) score, start, end in seconds, in the order of the file. Where the original stops at
            too few, the list is filled with proposals that are never right.
        truths: of each clip (m, 2) start, end in seconds.
        evaluator: whose.
        ious: thresholds of AP.
        numbers: of AR.

    Raises:
        DataError: as :func:`seamline.metrics.temporal.pack`.
    """
    lavdf = evaluator == "lavdf"
    fps = LAVDF_FPS if lavdf else 1.0
    most = max(numbers)
    filled = [
        _filled(own, most if lavdf and np.size(truth) else 1) * np.array([1.0, fps, fps])
        for own, truth in zip(rows, truths, strict=True)
    ]
    ap_of, ar_of = (lavdf_ap, lavdf_ar) if lavdf else (avdeepfake1m_ap, avdeepfake1m_ar)
    exact = {**named("ap", ap_of(filled, truths, ious, fps)), **named("ar", ar_of(filled, truths, numbers, fps))}
    spans = pack(filled, truths)
    order = np.argsort(-spans.score.astype(np.float32), kind="stable")
    hits = {iou: np.flatnonzero(hit[order]) for iou, hit in _first_hits(spans, ious, fps).items()}
    clip = spans.clip[order]
    recalled = {}  # by number, of each clip its truths, mean over the thresholds
    for number in numbers:
        _, g, overlap = _single_overlaps(spans, fps, min(RECALL_IOUS), number)
        best = np.zeros(len(spans.true_clip), np.float32)
        np.maximum.at(best, g, overlap)
        share = (best[:, None] > np.array(RECALL_IOUS, np.float32)).mean(1)
        recalled[number] = np.bincount(spans.true_clip, share, len(filled))

    def figures(times: Ints | None) -> dict[str, float]:
        if times is None:
            return dict(exact)
        labels = float(times @ spans.labels)
        if not labels:
            return dict.fromkeys(exact, math.nan)
        drawn = times[clip]
        tried = np.cumsum(drawn)
        ap = {iou: _resampled_ap(drawn, tried, at, labels, first_is_lost=True) for iou, at in hits.items()}
        return {**named("ap", ap), **named("ar", {n: float(times @ own) / labels for n, own in recalled.items()})}

    return figures


def activitynet(rows: Sequence[Floats], truths: Sequence[Floats]) -> Figures:
    """AP, mean AP and AR of the ActivityNet evaluation as UMMAFormer uses it, of any resample.

    Args:
        rows: as of :func:`first_hits`. A forged clip without any gets one that is never right.
        truths: as of :func:`first_hits`.

    Raises:
        DataError: as :func:`seamline.metrics.temporal.pack`.
    """
    filled = [_filled(own, 1 if np.size(truth) else 0) for own, truth in zip(rows, truths, strict=True)]
    exact = _with_mean(named("ap", activitynet_ap(filled, truths)), named("ar", activitynet_ar(filled, truths)))
    spans = _activitynet(filled, truths)
    order, right = _activitynet_hits(spans, ACTIVITYNET_IOUS)
    hits = {iou: np.flatnonzero(hit) for iou, hit in right.items()}
    clip, recall = spans.clip[order], _BudgetedRecall(spans)

    def figures(times: Ints | None) -> dict[str, float]:
        if times is None:
            return dict(exact)
        labels = float(times @ spans.labels)
        if not labels:
            return dict.fromkeys(exact, math.nan)
        drawn = times[clip]
        tried = np.cumsum(drawn)
        ap = {iou: _resampled_ap(drawn, tried, at, labels) for iou, at in hits.items()}
        return _with_mean(named("ap", ap), named("ar", recall(times)))

    return figures


def _with_mean(ap: dict[str, float], ar: dict[str, float]) -> dict[str, float]:
    return {"map": math.fsum(ap.values()) / len(ap), **ap, **ar}


def _filled(rows: Floats, least: int) -> Floats:
    """Proposals with such at the end as are never right, until there are ``least``.

    These have the lowest score and no length, so that they change neither AP nor AR.
    """
    return np.concatenate([rows, np.zeros((max(least - len(rows), 0), 3))])


def _resampled_ap(drawn: Ints, tried: Ints, hits: Ints, labels: float, *, first_is_lost: bool = False) -> float:
    """AP of proposals by falling score that are drawn so often.

    Args:
        drawn: (P,) how often.
        tried: (P,) proposals up to and with each.
        hits: (h,) places of those that are right, ascending; between them precision only falls.
        labels: truths, drawn ones.
        first_is_lost: leave the first step of recall out, as LAV-DF's evaluator does.
    """
    hits = hits[drawn[hits] > 0]
    if not len(hits):
        return 0.0
    right = drawn[hits]
    best = np.maximum.accumulate((np.cumsum(right) / tried[hits])[::-1])[::-1]
    lost = float(best[0]) if first_is_lost and tried[hits[0]] == right[0] else 0.0
    return (float(right @ best) - lost) / labels


class _BudgetedRecall:
    """AR of :func:`seamline.metrics.temporal.activitynet_ar`, of any resample."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        first = np.cumsum(spans.counts) - spans.counts
        order = np.lexsort((-np.arange(len(spans.score)), -spans.score, spans.clip))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - first[spans.clip[order]]
        p, self.truth, self.iou = _activitynet_overlaps(spans, min(ACTIVITYNET_IOUS))
        self.rank, self.clip = rank[p], spans.clip[p]

    def __call__(self, times: Ints) -> dict[int, float]:
        spans, forged = self.spans, self.spans.labels > 0
        videos, weight = float(times @ forged), times[self.spans.true_clip]
        share = 100.0 * videos / max(float(times @ spans.counts), 1.0)
        kept = np.where(forged, np.minimum(spans.counts, (spans.counts * share).astype(np.int64)), 0)
        found = {}
        for number in NUMBERS:
            part = number * videos / max(float(times @ kept), 1.0)
            near = self.rank < np.minimum(kept, (kept * part).astype(np.int64))[self.clip]
            best = np.zeros(len(weight))
            np.maximum.at(best, self.truth[near], self.iou[near])
            found[number] = float(weight @ (best[:, None] >= np.array(ACTIVITYNET_IOUS)).mean(1) / weight.sum())
        return found
