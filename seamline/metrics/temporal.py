"""Metrics of clip forensics: which seconds are forged (spans), and is this clip forged (scores and labels).

Spans are half-open, in seconds. A *proposal* is (score, start, end), a *truth* is (start, end). Published figures
differ by rules that are easily overlooked:

================  ============================  ====  =================================  ===============================
                  who takes which truth         IoU   AP                                 AR at N
================  ============================  ====  =================================  ===============================
default           proposals by score, best IoU  >=    whole curve, equal scores a point  the N best of each clip
``lavdf``         truths in order, first hit    >     first step of recall is lost       the first N; all must have N
``avdeepfake1m``  truths in order, first hit    >     first step of recall is lost       the first N
``activitynet``   proposals by score, best IoU  >=    whole curve                        N on average over the data set
================  ============================  ====  =================================  ===============================

The default loses nothing: clips without proposals count their truths, clips without truths count their false alarms,
one truth is enough, neither the order in the file nor the last bit of an IoU matters, and a perfect answer is exactly
1.0. The three variants reproduce the released evaluators, rounding included; where those crash, ours raise
:class:`DataError`.

A figure that is not defined is nan, never a friendly 0 or 1. Scores of whole clips:
:mod:`seamline.metrics.detection`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..report import Modality, Report
from .detection import roc_auc, roc_curve, scored
from .image import Mask, confusion, pooled
from .rows import Rows

IOUS = (0.5, 0.75, 0.95)  # of AP
NUMBERS = (100, 50, 20, 10)  # proposals, of AR
RECALL_IOUS = tuple(i / 100 for i in range(50, 100, 5))  # that AR is a mean over: 0.50, 0.55, ... 0.95
ROUNDING = 1e-9  # an IoU that is short of its threshold by less than this has reached it
PAIRS_AT_ONCE = 2**15  # proposal x truth; bounds the memory of an overlap table
ACTIVITYNET_MOST = 100  # proposals of a clip that the ActivityNet evaluation reads
ACTIVITYNET_IOUS = tuple(float(iou) for iou in np.linspace(0.5, 0.95, 10))  # its 0.9 is 0.8999999999999999

Found = Report | npt.ArrayLike  # the proposals of a clip, (k, 3) score, start, end
Finds = Sequence[Found] | Rows  # of all clips
Truth = Report | npt.ArrayLike  # its forged spans, (m, 2) start, end

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Single = npt.NDArray[np.float32]


class BoundaryError(NamedTuple):
    """How far the ends of found spans are from the truth; see :func:`boundary_error`."""

    start: float  # mean absolute error of the beginning, milliseconds
    end: float  # of the end, milliseconds
    mean: float  # of both, milliseconds
    found: int  # truths that were found, which these are means over
    truths: int  # all truths


# ------------------------------------------------------------------------------------------------------ spans, packed


@dataclass(frozen=True, eq=False)
class Spans:
    """Proposals and truths of n clips, one after another in flat arrays, in the order given."""

    score: Floats  # (P,)
    start: Floats  # (P,)
    end: Floats  # (P,)
    clip: Ints  # (P,) which clip a proposal is of, ascending
    counts: Ints  # (n,) proposals of each clip
    true_start: Floats  # (L,)
    true_end: Floats  # (L,)
    true_clip: Ints  # (L,)
    labels: Ints  # (n,) truths of each clip


def pack(found: Finds, truths: Sequence[Truth]) -> Spans:
    """Reports or arrays of n clips to flat arrays.

    Args:
        found: of each clip its proposals: (k, 3) score, start, end in any order; or a :class:`Report`, of which
            :func:`proposals_of` is taken; or what :func:`seamline.metrics.rows.read_rows` read from a file.
        truths: of each clip its forged spans: (m, 2) start, end; or a :class:`Report`, of which :func:`spans_of`.

    Raises:
        DataError: the numbers of clips differ, a score or time is nan, a time is infinite, a proposal ends before it
            begins, or a truth has no length.
    """
    if isinstance(found, Rows):
        rows, counts = found.rows, found.counts
    else:
        rows, counts = _stack([proposals_of(f) if isinstance(f, Report) else f for f in found], 3, "proposals")
    if len(counts) != len(truths):
        raise DataError(f"proposals of {len(counts)} clips and truths of {len(truths)}: give one each")
    spans, labels = _stack([spans_of(t) if isinstance(t, Report) else t for t in truths], 2, "truths")
    clip, true_clip = np.repeat(np.arange(len(counts)), counts), np.repeat(np.arange(len(counts)), labels)
    score, start, end = rows.T.copy()
    wrong = np.isnan(score) | ~np.isfinite(start) | ~np.isfinite(end) | (end < start)
    if wrong.any():
        i = int(wrong.argmax())
        raise DataError(f"clip number {clip[i]}: {rows[i].tolist()} is not a proposal (score, start, end)")
    wrong = ~np.isfinite(spans).all(1) | (spans[:, 1] <= spans[:, 0])
    if wrong.any():
        i = int(wrong.argmax())
        raise DataError(f"clip number {true_clip[i]}: {spans[i].tolist()} is not a forged span (start, end)")
    true_start, true_end = spans.T.copy()
    return Spans(score, start, end, clip, counts, true_start, true_end, true_clip, labels)


def proposals_of(report: Report) -> Floats:
    """The ranked proposals of a report, (k, 3) score, start, end; of a report that lists none, its segments."""
    rows = report.proposals or [(s.probability, s.start, s.end) for s in report.segments]
    return np.array(rows, np.float64).reshape(-1, 3)


def spans_of(report: Report, modality: Modality | None = None) -> Floats:
    """The forged spans of a report, (m, 2) start, end, ascending.

    Args:
        report: a truth, or a finding.
        modality: only what is forged in it (``audio_visual`` segments are forged in both); ``None``: the seconds that
            are forged in any, spans of several modalities that touch or overlap being one.
    """
    return union(
        [(s.start, s.end) for s in report.segments if modality is None or s.modality in (modality, "audio_visual")]
    )


def union(spans: npt.ArrayLike) -> Floats:
    """Spans (m, 2) that touch or overlap, joined; (k, 2), ascending."""
    rows = np.asarray(spans, np.float64).reshape(-1, 2)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    reach = np.maximum.accumulate(rows[:, 1])
    first = np.ones(len(rows), bool)
    first[1:] = rows[1:, 0] > reach[:-1]
    begins = np.flatnonzero(first)
    ends = np.append(begins[1:], len(rows)) - 1 if len(rows) else begins
    return np.stack([rows[begins, 0], reach[ends]], 1)


def _stack(items: Sequence[Any], width: int, what: str) -> tuple[Floats, Ints]:
    """Rows of all clips, (P, width) float64, and how many each clip has, (n,)."""
    if {*map(type, items)} <= {list}:
        rows = [row for item in items for row in item]
        if {*map(type, rows)} <= {list} and {*map(len, rows)} <= {width}:  # one array, not one for each clip
            return np.array(rows, np.float64).reshape(-1, width), np.array([*map(len, items)], np.int64)
    arrays = [np.asarray(item, np.float64) for item in items]
    for i, array in enumerate(arrays):
        if array.shape[-1:] != (width,) or array.ndim != 2:
            if array.size:
                raise DataError(f"clip number {i}: {what} of shape {array.shape}, not (n, {width})")
            arrays[i] = np.zeros((0, width))
    counts = np.array([len(array) for array in arrays], np.int64)
    return np.concatenate([*arrays, np.zeros((0, width))]), counts


# ----------------------------------------------------------------------------------------------- the default definition


class Matching:
    """Proposals of a set of clips matched with its truths, once; then AP, AR and boundary error of any resample.

    Proposals of a clip are ranked by score; equal scores by start, then end, so that the order given does not matter.

    Args:
        found: as of :func:`pack`.
        truths: as of :func:`pack`.
        ious: thresholds of AP.
        numbers: how many proposals AR may use of each clip.
        recall_ious: thresholds that AR is a mean over.
        boundary_iou: least overlap of a proposal whose ends are compared with the truth.

    Raises:
        DataError: as :func:`pack`, or a threshold is not in (0, 1].
    """

    def __init__(
        self,
        found: Finds,
        truths: Sequence[Truth],
        ious: Sequence[float] = IOUS,
        numbers: Sequence[int] = NUMBERS,
        recall_ious: Sequence[float] = RECALL_IOUS,
        boundary_iou: float = 0.5,
    ) -> None:
        wrong = [iou for iou in (*ious, *recall_ious, boundary_iou) if not 0 < iou <= 1]
        if wrong:
            raise DataError(f"an IoU threshold lies in (0, 1], not at {wrong[0]}")
        spans = _ranked(pack(found, truths))
        self.ious, self.numbers = tuple(ious), tuple(numbers)
        self.labels = spans.labels
        p, g, iou = _overlaps(spans, min((*ious, *recall_ious, boundary_iou)) - ROUNDING)
        near = np.unique(p)  # the proposals that may hit, and then by falling score
        near = near[np.argsort(-spans.score[near], kind="stable")]
        place = np.zeros(len(spans.score), np.int64)
        place[near] = np.arange(len(near))
        preferred = np.lexsort((g, -iou, place[p]))
        p, g, iou = p[preferred], g[preferred], iou[preferred]

        taken = {
            t: _take(place[p[iou >= t - ROUNDING]], g[iou >= t - ROUNDING], len(near), len(spans.true_clip))
            for t in {*ious, boundary_iou}
        }  # of each truth, the place of the proposal that takes it
        hits = [near[np.sort(taken[t][taken[t] < len(near)])] for t in ious]
        scores = np.unique(-spans.score[np.concatenate([np.zeros(0, np.int64), *hits])])  # of all hits, falling
        self._points = [
            _Points(spans.clip[hit], *np.unique(np.searchsorted(scores, -spans.score[hit]), return_index=True))
            for hit in hits
        ]
        # At a point count all proposals that reach its score: of each clip, those that reach it and no point before.
        inside = np.flatnonzero(-spans.score <= scores[-1]) if len(scores) else np.zeros(0, np.int64)
        self._reached, self._clip = np.searchsorted(scores, -spans.score[inside]), spans.clip[inside]
        self._scores = len(scores)

        self._recalled = np.zeros((len(self.labels), len(self.numbers)))  # (n, N) truths, mean over the thresholds
        rank = np.arange(len(spans.clip)) - (np.cumsum(spans.counts) - spans.counts)[spans.clip]
        best = np.zeros(len(spans.true_clip))
        used = 0
        for i in np.argsort(self.numbers):
            new = (rank[p] >= used) & (rank[p] < self.numbers[i])
            np.maximum.at(best, g[new], iou[new])
            count = (best[:, None] >= np.array(recall_ious) - ROUNDING).sum(1)
            self._recalled[:, i] = np.bincount(spans.true_clip, count, len(self.labels))
            used = self.numbers[i]
        self._thresholds = len(tuple(recall_ious))

        place_of = taken[boundary_iou]
        hit = np.flatnonzero(place_of < len(near))
        match = near[place_of[hit]]
        self._hit_clip = spans.true_clip[hit]
        self._start_error = np.abs(spans.start[match] - spans.true_start[hit])
        self._end_error = np.abs(spans.end[match] - spans.true_end[hit])

    def ap(self, times: npt.NDArray[np.integer[Any]] | None = None) -> dict[float, float]:
        """AP by threshold; ``times``, (n,): how often each clip counts. See :func:`average_precision`."""
        each = None if times is None else np.asarray(times)[self._clip]
        times = np.ones_like(self.labels) if times is None else np.asarray(times)
        labels = int(times @ self.labels)
        tried = np.cumsum(np.bincount(self._reached, each, self._scores))
        found = {}
        for iou, points in zip(self.ious, self._points, strict=True):
            hits = np.add.reduceat(times[points.clip], points.first) if len(points.first) else points.first
            precision = np.cumsum(hits) / np.maximum(tried[points.score], 1)
            best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or more
            found[iou] = float((hits * best).sum()) / labels if labels else math.nan
        return found

    def ar(self, times: npt.NDArray[np.integer[Any]] | None = None) -> dict[int, float]:
        """AR by number of proposals; ``times`` as of :meth:`ap`. See :func:`average_recall`."""
        weight = np.ones(len(self.labels)) if times is None else np.asarray(times, np.float64)
        labels = float(weight @ self.labels) * self._thresholds
        return {
            n: float(count) / labels if labels else math.nan
            for n, count in zip(self.numbers, weight @ self._recalled, strict=True)
        }

    def boundary(self, times: npt.NDArray[np.integer[Any]] | None = None) -> BoundaryError:
        """Boundary error; ``times`` as of :meth:`ap`. See :func:`boundary_error`."""
        weight = np.ones(len(self.labels)) if times is None else np.asarray(times, np.float64)
        of_hit = weight[self._hit_clip]
        found = float(of_hit.sum())
        start, end = (
            1000 * float(of_hit @ error) / found if found else math.nan
            for error in (self._start_error, self._end_error)
        )
        return BoundaryError(start, end, (start + end) / 2, round(found), round(float(weight @ self.labels)))


def average_precision(found: Finds, truths: Sequence[Truth], ious: Sequence[float] = IOUS) -> dict[float, float]:
    """AP at each IoU threshold: area under the curve of precision over recall, of all proposals of all clips.

    Proposals, by falling score, each take of their clip's truths that are still free the one with the largest IoU, if
    that is at least the threshold; else they are false alarms. Proposals of one score enter the curve together, as one
    point. The precision at a recall is the best at this recall or more, and the curve begins at recall 0 (PASCAL VOC
    2010, ActivityNet): AP = sum over points k of (TP_k - TP_{k-1}) / labels * max over j >= k of TP_j / (TP_j + FP_j).

    Args:
        found: as of :func:`pack`.
        truths: as of :func:`pack`.
        ious: thresholds in (0, 1].

    Returns:
        Threshold -> AP in [0, 1]; nan without any truth.

    Raises:
        DataError: as :func:`pack`, or a threshold is out of range.
    """
    return Matching(found, truths, ious=ious, numbers=()).ap()


def average_recall(
    found: Finds,
    truths: Sequence[Truth],
    numbers: Sequence[int] = NUMBERS,
    ious: Sequence[float] = RECALL_IOUS,
) -> dict[int, float]:
    """AR at each N: share of all truths that one of their clip's N best proposals overlaps enough, mean over ``ious``.

    One proposal may recall several truths. A clip with fewer than N proposals uses all it has; the truths of a clip
    without any are missed.

    Args:
        found: as of :func:`pack`.
        truths: as of :func:`pack`.
        numbers: how many proposals of each clip may be used.
        ious: thresholds in (0, 1], reached by an IoU that is equal or larger.

    Returns:
        N -> AR in [0, 1]; nan without any truth.

    Raises:
        DataError: as :func:`average_precision`.
    """
    return Matching(found, truths, ious=(), numbers=numbers, recall_ious=ious).ar()


def boundary_error(found: Finds, truths: Sequence[Truth], iou: float = 0.5) -> BoundaryError:
    """How many milliseconds the ends of found spans are off, in the mean over all truths that were found.

    A truth is found by the proposal that takes it at this IoU, as in :func:`average_precision`. Truths that were not
    found have no error, so read it together with AP.

    Raises:
        DataError: as :func:`average_precision`.
    """
    return Matching(found, truths, ious=(), numbers=(), recall_ious=(), boundary_iou=iou).boundary()


class _Points(NamedTuple):
    """The points of a curve that matter: where proposals hit. Between them recall stands still and precision falls."""

    clip: Ints  # (h,) of each hit, by falling score
    score: Ints  # (k,) which of the scores of all hits, falling
    first: Ints  # (k,) first hit of it


def _ranked(spans: Spans) -> Spans:
    """The proposals of each clip by falling score; equal scores by start, then end."""
    score, start, end = spans.score, spans.start, spans.end
    fine = score[1:] < score[:-1]
    if not (fine | (spans.clip[1:] > spans.clip[:-1])).all():
        order = np.lexsort((end, start, -score, spans.clip))
        score, start, end = score[order], start[order], end[order]
    return dataclasses.replace(spans, score=score, start=start, end=end)


def _pairs(spans: Spans) -> Iterator[tuple[Ints, Ints]]:
    """All proposals with all truths of their clip, as (proposal, truth), some at a time, ascending."""
    first_truth = np.cumsum(spans.labels) - spans.labels
    many = spans.labels[spans.clip]  # pairs of each proposal
    total = np.cumsum(many)
    start = 0
    while start < len(many):
        before = int(total[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + PAIRS_AT_ONCE, side="right")))
        proposal = np.repeat(np.arange(start, stop), many[start:stop])
        nth = np.arange(len(proposal)) + before - (total - many)[proposal]
        yield proposal, first_truth[spans.clip[proposal]] + nth
        start = stop


def _overlaps(spans: Spans, least: float) -> tuple[Ints, Ints, Floats]:
    """Pairs (proposal, truth) of one clip whose IoU is at least ``least``, and that IoU."""
    kept: list[tuple[Ints, Ints, Floats]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for p, g in _pairs(spans):
        start, end, true_start, true_end = spans.start[p], spans.end[p], spans.true_start[g], spans.true_end[g]
        both = np.minimum(end, true_end) - np.maximum(start, true_start)
        iou = both / (np.maximum(end, true_end) - np.minimum(start, true_start))  # negative where they are apart
        good = iou >= least
        kept.append((p[good], g[good], iou[good]))
    p, g, iou = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return p, g, iou


def _take(p: Ints, g: Ints, proposals: int, truths: int) -> Ints:
    """Let proposals, smallest number first, each take the first truth of its list that is still free.

    In rounds, all proposals at once: each asks for the next truth of its list, which keeps the smallest that ever
    asked; who is turned away or displaced asks on. Since all truths prefer alike, the outcome is that of going one by
    one (Gale and Shapley 1962), after as many rounds as the longest chain of refusals has links: mostly two.

    Args:
        p: (k,) proposals, ascending.
        g: (k,) truths, those of one proposal in its order of preference.
        proposals: how many there are.
        truths: how many there are.

    Returns:
        (truths,) the proposal that takes each, or ``proposals`` if none does.
    """
    holder = np.full(truths, proposals)
    asking, at, count = np.unique(p, return_index=True, return_counts=True)
    following = np.zeros(proposals + 1, np.int64)  # next entry of each proposal's list
    stop = np.zeros(proposals + 1, np.int64)
    following[asking], stop[asking] = at, at + count
    while len(asking):
        wanted = g[following[asking]]
        following[asking] += 1
        before = holder[wanted]
        np.minimum.at(holder, wanted, asking)
        displaced = np.unique(before[before != holder[wanted]])
        refused = np.concatenate([asking[holder[wanted] != asking], displaced])
        asking = refused[following[refused] < stop[refused]]
    return holder


# --------------------------------------------------------------------------------------------- as LAV-DF evaluates


def lavdf_ap(
    found: Finds, truths: Sequence[Truth], ious: Sequence[float] = IOUS, fps: float = 1.0
) -> dict[float, float]:
    """AP of the released LAV-DF code, in single precision and with its defect D8; not our own yardstick.

    Truths, in the order given, each take the first free proposal in the order given whose IoU is larger than the
    threshold. The step from recall 0 to the first point is missing: where the best-ranked proposal is right, its share
    is lost, so a perfect answer is (labels - 1) / labels and one label gives 0. Equal scores stay in the order given.

    Args:
        found: as of :func:`pack`, in the order of the result file.
        truths: as of :func:`pack`, always in seconds.
        ious: thresholds.
        fps: what proposal times are divided by: 25 where they are frames, 1 where they are seconds.

    Raises:
        DataError: a clip has no proposal (the original raises ``IndexError: too many indices``); or as :func:`pack`.
    """
    spans = pack(found, truths)
    if (spans.counts == 0).any():
        raise DataError(f"LAV-DF's AP fails on clip number {int(spans.counts.argmin())}: it has no proposal")
    import torch  # whose order of adding is the original's

    terms = _first_hit_terms(spans, ious, fps)
    return {iou: float(torch.from_numpy(parts).sum()) for iou, parts in terms.items()}


def lavdf_ar(
    found: Finds, truths: Sequence[Truth], numbers: Sequence[int] = NUMBERS, fps: float = 1.0
) -> dict[int, float]:
    """AR of the released LAV-DF code, in single precision: the first N proposals *in the order given*, IoU ``>``.

    Args:
        found: as of :func:`lavdf_ap`.
        truths: as of :func:`lavdf_ap`.
        numbers: how many proposals may be used.
        fps: as of :func:`lavdf_ap`.

    Raises:
        DataError: a forged clip has fewer than N proposals (the original raises ``IndexError: index N - 1 is out of
            bounds``); or as :func:`pack`.
    """
    spans = pack(found, truths)
    short = (spans.counts < max(numbers)) & (spans.labels > 0)
    if short.any():
        i = int(short.argmax())
        raise DataError(f"LAV-DF's AR@{max(numbers)} fails on clip number {i}: it has {spans.counts[i]} proposals")
    return {n: float(_four_lanes(recall) / np.float32(10)) for n, recall in _first_recalls(spans, numbers, fps).items()}


# -------------------------------------------------------------------------------- as the avdeepfake1m package evaluates


def avdeepfake1m_ap(
    found: Finds, truths: Sequence[Truth], ious: Sequence[float] = IOUS, fps: float = 1.0
) -> dict[float, float]:
    """AP of the package avdeepfake1m 0.0.4: the rules of :func:`lavdf_ap`, added up in another order.

    Raises:
        DataError: a clip has an empty list of proposals (the original panics when it reads the file: ``PanicException:
            shape should be allocated by now``); or as :func:`pack`.
    """
    spans = _readable(pack(found, truths))
    return {iou: float(_eight_lanes(parts)) for iou, parts in _first_hit_terms(spans, ious, fps).items()}


def avdeepfake1m_ar(
    found: Finds, truths: Sequence[Truth], numbers: Sequence[int] = NUMBERS, fps: float = 1.0
) -> dict[int, float]:
    """AR of the package avdeepfake1m 0.0.4: as :func:`lavdf_ar`, but a clip may have fewer than N proposals.

    Without any truth it is 0.

    Raises:
        DataError: as :func:`avdeepfake1m_ap`.
    """
    spans = _readable(pack(found, truths))
    recalls = _first_recalls(spans, numbers, fps)
    return {n: float(np.add.accumulate(np.nan_to_num(recall))[-1] / np.float32(10)) for n, recall in recalls.items()}


def avdeepfake1m_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """AUC of clips of the package avdeepfake1m 0.0.4, in single precision.

    If any score lies outside [0, 1], all are first given a sigmoid, which saturates above 37: large logits become equal
    there, and the figure another one than :func:`roc_auc` of the logits.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    score, label = scored(scores, labels)
    if score.size and (score.min() < 0 or score.max() > 1):
        score = 1 / (1 + np.exp(-score))
    curve = roc_curve(score, label)
    right, wrong = curve.tp.astype(np.float32), curve.fp.astype(np.float32)
    if right[-1] == 0 or wrong[-1] == 0:
        return math.nan
    import torch  # whose order of adding is the original's

    return float(torch.trapezoid(torch.from_numpy(right / right[-1]), torch.from_numpy(wrong / wrong[-1])))


def _readable(spans: Spans) -> Spans:
    if (spans.counts == 0).any():
        raise DataError(f"avdeepfake1m 0.0.4 cannot read clip number {int(spans.counts.argmin())}: it has no proposal")
    return spans


def _single_overlaps(spans: Spans, fps: float, least: float, rank_below: int) -> tuple[Ints, Ints, Single]:
    """Pairs (proposal, truth) whose IoU in single precision is larger than ``least``; the first proposals only."""
    rank = np.arange(len(spans.clip)) - (np.cumsum(spans.counts) - spans.counts)[spans.clip]
    scale = np.float32(fps)
    kept = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for p, g in _pairs(spans):
        near = rank[p] < rank_below
        p, g = p[near], g[near]
        start, end = spans.start[p].astype(np.float32) / scale, spans.end[p].astype(np.float32) / scale
        true_start, true_end = spans.true_start[g].astype(np.float32), spans.true_end[g].astype(np.float32)
        both = np.minimum(end, true_end) - np.maximum(start, true_start)
        with np.errstate(invalid="ignore"):  # two spans that single precision shrinks to one moment
            iou = both / (np.maximum(end, true_end) - np.minimum(start, true_start))
        good = iou > np.float32(least)
        kept.append((p[good], g[good], iou[good]))
    p, g, iou = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return p, g, iou


def _first_hits(spans: Spans, ious: Sequence[float], fps: float) -> dict[float, Mask]:
    """Of each threshold which proposals are right, (P,): truths in order each take the first one that is still free."""
    p, g, overlap = _single_overlaps(spans, fps, min(ious), len(spans.clip))
    nth = (np.arange(len(spans.true_clip)) - (np.cumsum(spans.labels) - spans.labels)[spans.true_clip])[g]
    hits = {}
    for iou in ious:
        hit = np.zeros(len(spans.clip), bool)
        for n in range(int(spans.labels.max(initial=0))):  # the n-th truth of every clip at once
            free = (nth == n) & (overlap > np.float32(iou)) & ~hit[p]
            _, first = np.unique(g[free], return_index=True)
            hit[p[free][first]] = True
        hits[iou] = hit
    return hits


def _first_hit_terms(spans: Spans, ious: Sequence[float], fps: float) -> dict[float, Single]:
    """Of each threshold the terms of AP, from recall 1 down: step of recall x best precision at this recall or more."""
    order = np.argsort(-spans.score.astype(np.float32), kind="stable")
    tried = np.arange(1, len(order) + 1, dtype=np.float32)
    labels = np.float32(len(spans.true_clip))
    terms = {}
    for iou, hit in _first_hits(spans, ious, fps).items():
        if not labels:
            terms[iou] = np.full(1, np.nan, np.float32)
            continue
        right = np.cumsum(hit[order]).astype(np.float32)
        recall = np.append(right / labels, np.float32(1))
        best = np.maximum.accumulate(np.append(right / tried, np.float32(0))[::-1])[::-1]
        terms[iou] = (np.diff(recall) * best[1:])[::-1].copy()
    return terms


def _first_recalls(spans: Spans, numbers: Sequence[int], fps: float) -> dict[int, Single]:
    """Of each N the recall at the ten thresholds, (10,), by the first N proposals of every clip."""
    ious = np.array(RECALL_IOUS, np.float32)
    recalls = {}
    for number in numbers:
        _, g, overlap = _single_overlaps(spans, fps, min(RECALL_IOUS), number)
        best = np.zeros(len(spans.true_clip), np.float32)
        np.maximum.at(best, g, overlap)
        hits = (best[:, None] > ious).sum(0).astype(np.float32)
        labels = np.float32(len(best))
        recalls[number] = hits / labels if labels else np.full(10, np.nan, np.float32)
    return recalls


def _four_lanes(terms: Single) -> np.float32:
    """The sum as torch forms it of a few numbers: every fourth added up, the rest to the first, then the four."""
    whole = len(terms) // 4 * 4
    lanes = np.add.reduce(terms[:whole].reshape(-1, 4), axis=0)
    lanes[0] = np.add.accumulate(np.append(lanes[0], terms[whole:]))[-1]
    return np.float32(np.add.accumulate(lanes)[-1])


def _eight_lanes(terms: Single) -> np.float32:
    """The sum as ndarray (Rust) forms it: every eighth added up, then opposite ones, then the rest."""
    whole = len(terms) // 8 * 8
    lanes = np.add.reduce(terms[:whole].reshape(-1, 8), axis=0)
    return np.float32(np.add.accumulate(np.concatenate([lanes[:4] + lanes[4:], terms[whole:]]))[-1])


# ------------------------------------------------------------------------- as ActivityNet, and so UMMAFormer, evaluates


def activitynet_ap(
    found: Finds, truths: Sequence[Truth], ious: Sequence[float] = ACTIVITYNET_IOUS
) -> dict[float, float]:
    """AP of the ActivityNet evaluation as UMMAFormer uses it, for times in seconds.

    As :func:`average_precision`, but: only the first 100 proposals of a clip are read, times below 0 are 0, and equal
    scores are separate points, in the order that numpy's unstable sort leaves them in (so the last digits of scores
    with ties differ between processors). ``mAP`` is the mean over ten thresholds.

    Raises:
        DataError: as :func:`pack`.
    """
    spans = _activitynet(found, truths)
    labels = len(spans.true_clip)
    order, hits = _activitynet_hits(spans, ious)
    results = {}
    for threshold, hit in hits.items():
        right = np.cumsum(hit, dtype=np.float64)
        precision = np.concatenate([[0], right / np.arange(1, len(order) + 1), [0]])
        recall = np.concatenate([[0], right / labels, [1]]) if labels else precision
        best = np.maximum.accumulate(precision[::-1])[::-1]
        step = np.flatnonzero(recall[1:] != recall[:-1]) + 1
        results[threshold] = float(((recall[step] - recall[step - 1]) * best[step]).sum()) if labels else math.nan
    return results


def activitynet_ar(found: Finds, truths: Sequence[Truth], numbers: Sequence[int] = NUMBERS) -> dict[int, float]:
    """AR of the ActivityNet evaluation as UMMAFormer uses it, for times in seconds: N proposals *on average*.

    With V forged clips and P proposals in all clips, authentic ones too, a forged clip with n proposals keeps its best
    min(n, floor(n 100 V / P)), K in all; at N it uses the first min(kept, floor(kept N V / K)) of them.

    Raises:
        DataError: a forged clip has no proposal (the original raises ``KeyError``); or as :func:`pack`.
    """
    spans = _activitynet(found, truths)
    forged = np.flatnonzero(spans.labels)
    empty = forged[spans.counts[forged] == 0]
    if len(empty):
        raise DataError(f"ActivityNet's AR fails on clip number {empty[0]}: it is forged and has no proposal")
    if not len(forged):
        return dict.fromkeys(numbers, math.nan)
    count, first = spans.counts, np.cumsum(spans.counts) - spans.counts
    rank = np.empty(len(spans.clip), np.int64)
    for i in forged:
        own = slice(first[i], first[i] + count[i])
        rank[own][np.argsort(spans.score[own])[::-1]] = np.arange(count[i])
    kept = np.zeros_like(count)
    kept[forged] = np.minimum(count[forged], (count[forged] * (100.0 * len(forged) / count.sum())).astype(np.int64))
    p, g, iou = _activitynet_overlaps(spans, min(ACTIVITYNET_IOUS))
    results = {}
    for number in numbers:
        share = number * len(forged) / kept.sum() if kept.any() else 0.0
        used = np.minimum(kept, (kept * share).astype(np.int64))
        near = rank[p] < used[spans.clip[p]]
        best = np.zeros(len(spans.true_clip))
        np.maximum.at(best, g[near], iou[near])
        hits = (best[:, None] >= np.array(ACTIVITYNET_IOUS)).sum(0)
        results[number] = float((hits / len(best)).mean())
    return results


def _activitynet_hits(spans: Spans, ious: Sequence[float]) -> tuple[Ints, dict[float, Mask]]:
    """All proposals by falling score, (P,), and of each threshold which of them are right, in that order, (P,)."""
    order = np.argsort(spans.score)[::-1]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    p, g, iou = _activitynet_overlaps(spans, min(ious))
    preferred = np.lexsort((-g, -iou, place[p]))
    p, g, iou = place[p[preferred]], g[preferred], iou[preferred]
    hits = {}
    for threshold in ious:
        taken = _take(p[iou >= threshold], g[iou >= threshold], len(order), len(spans.true_clip))
        hits[threshold] = np.zeros(len(order), bool)
        hits[threshold][taken[taken < len(order)]] = True
    return order, hits


def _activitynet(found: Finds, truths: Sequence[Truth]) -> Spans:
    """The spans that the ActivityNet evaluation reads: the first 100 of each clip, from 0 on."""
    spans = pack(found, truths)
    first = np.cumsum(spans.counts) - spans.counts
    read = np.arange(len(spans.clip)) - first[spans.clip] < ACTIVITYNET_MOST
    return dataclasses.replace(
        spans,
        score=spans.score[read],
        start=np.maximum(spans.start[read], 0),
        end=np.maximum(spans.end[read], 0),
        clip=spans.clip[read],
        counts=np.minimum(spans.counts, ACTIVITYNET_MOST),
    )


def _activitynet_overlaps(spans: Spans, least: float) -> tuple[Ints, Ints, Floats]:
    """As :func:`_overlaps`, with the union as sum less intersection, whose last bit may differ."""
    p, g, _ = _overlaps(spans, least - ROUNDING)
    both = np.minimum(spans.end[p], spans.true_end[g]) - np.maximum(spans.start[p], spans.true_start[g])
    length, true_length = spans.end[p] - spans.start[p], spans.true_end[g] - spans.true_start[g]
    return p, g, np.maximum(both, 0) / (length + true_length - both)


# -------------------------------------------------------------------------------------------------------- frames


def frame_labels(spans: npt.ArrayLike, ticks: int, fps: float = 25.0) -> Mask:
    """Which frames lie in spans: (ticks,) bool. Frame k lasts [k, k + 1) / fps seconds and is in if its middle is.

    Args:
        spans: (m, 2) start, end in seconds; what lies outside the clip is left out.
        ticks: frames of the clip.
        fps: frames per second.
    """
    rows = np.asarray(spans, np.float64).reshape(-1, 2)
    edges = np.clip(np.ceil(rows * fps - 0.5), 0, ticks).astype(np.int64)
    steps = np.bincount(edges[:, 0], minlength=ticks + 1) - np.bincount(edges[:, 1], minlength=ticks + 1)
    return np.cumsum(steps[:ticks]) > 0


def frame_f1(found: Sequence[Mask], truths: Sequence[Mask]) -> float:
    """F1 of forged frames, counted over all clips together: 2 TP / (2 TP + FP + FN); nan if all are empty.

    Args:
        found: of each clip (ticks,) bool, True = called forged.
        truths: of each clip (ticks,) bool.

    Raises:
        DataError: numbers of clips or frames differ, or an array is not boolean.
    """
    _same(found, truths)
    return pooled(confusion(f, t) for f, t in zip(found, truths, strict=True)).f1


def frame_auc(curves: Sequence[npt.ArrayLike], truths: Sequence[Mask]) -> float:
    """AUC of frames, those of all clips together.

    Args:
        curves: of each clip (ticks,) scores, higher = more likely forged.
        truths: of each clip (ticks,) bool.

    Raises:
        DataError: numbers of clips or frames differ, or a score is nan.
    """
    _same(curves, truths)
    flat = [np.concatenate([np.zeros(0), *(np.asarray(a).ravel() for a in arrays)]) for arrays in (curves, truths)]
    return roc_auc(flat[0], flat[1])


def _same(found: Sequence[npt.ArrayLike], truths: Sequence[npt.ArrayLike]) -> None:
    if len(found) != len(truths):
        raise DataError(f"frames of {len(found)} clips and truths of {len(truths)}: give one each")
    for i, (f, t) in enumerate(zip(found, truths, strict=True)):
        if np.shape(f) != np.shape(t):
            raise DataError(f"clip number {i}: {np.size(f)} frames and truth of {np.size(t)}")
