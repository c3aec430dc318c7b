"""Named protocols: what each benchmark scores, on which files, by which variant of a metric, and how it is combined.

The same predictions get different numbers under different protocols, so a number is nothing without its protocol's
name. Where the organisers' rule is not published, both readings are computed, under names of their own, and
``Protocol.words`` says so.

>>> sorted(score("asvspoof5", truths, predictions))  # doctest: +SKIP
['act_dcf', 'cllr', 'eer', 'min_dcf']

A truth and a prediction are a :class:`Report` each. :func:`measure` turns one pair into an :class:`Item`, numbers only,
so that masks are read one at a time and a stopped run can go on from the items it wrote down; :func:`figures` and
:func:`intervals` work on items; :func:`score` is all of it in one call. A figure that is not defined is nan.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..report import Report
from . import items as _items
from .bootstrap import bootstrap
from .detection import (
    Ranking,
    accuracy,
    actual_dcf,
    average_precision,
    balanced_accuracy,
    brier_score,
    cllr,
    equal_error_rate,
    expected_calibration_error,
    minimum_dcf,
    roc_auc,
)
from .image import Confusion, imdlbenco_f1, imdlbenco_iou, pixel_figure, pooled
from .items import Item, finder
from .released import activitynet, first_hits, named
from .temporal import IOUS, NUMBERS, RECALL_IOUS, Matching, avdeepfake1m_auc

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.bool_]
Missing = Literal["refuse", "wrong"]
Medium = Literal["image", "clip", "audio", "any"]
Figures = Callable[[Ints | None], dict[str, float]]  # how often each item counts, (n,), to named figures

DDL_IOUS, DDL_NUMBERS = (0.5, 0.75, 0.9, 0.95), (30, 20, 10, 5)
DDL_WEIGHTS = {"ap50": 1, "ap75": 2, "ap90": 2, "ap95": 3, "ar30": 1, "ar20": 2, "ar10": 2, "ar5": 3}
ONEM_IOUS, ONEM_NUMBERS = (0.5, 0.75, 0.9, 0.95), (50, 30, 20, 10, 5)
ABOVE_HALF = float(np.nextafter(0.5, 1))  # of scripts that ask for more than 0.5
LEAST_LIKELY = 1e-15  # a probability this close to 0 or 1 is taken for this one, where its logit is asked for


@dataclass(frozen=True)
class Protocol:
    """One benchmark's rules, in words and as functions."""

    name: str
    medium: Medium
    source: str  # where the rule is written
    scored: str  # what is scored
    items: str  # on which files
    combined: str  # how the figures are combined
    headline: str  # the figure that the benchmark ranks by
    words: str  # known problems, and what is not known
    missing: Missing  # what happens where a prediction is missing; see :func:`figures`
    missing_words: str  # what the original does then
    prepare: Callable[[Sequence[Item]], Figures] = field(repr=False)  # items to figures of any resample
    pixels: bool = False  # whether it looks at masks


# --------------------------------------------------------------------------------------------------------- in one call


def protocol(name: str) -> Protocol:
    """The protocol of this name.

    Raises:
        DataError: there is none; the message lists the known ones.
    """
    if name not in PROTOCOLS:
        raise DataError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def score(
    protocol: str | Protocol,
    truths: Sequence[Report],
    predictions: Iterable[Report],
    *,
    missing: Missing | None = None,
    mask_threshold: float = 0.5,
) -> dict[str, float]:
    """All figures of a protocol.

    Args:
        protocol: its name.
        truths: what is known of each file.
        predictions: what was found, in any order: gone through once, so that a generator may hold one mask at a time.
            Which is whose, :func:`seamline.metrics.items.finder` says.
        missing: as of :func:`figures`.
        mask_threshold: as of :func:`measure`.

    Raises:
        DataError: a prediction has no truth or comes twice; or as :func:`measure` and :func:`figures`.
    """
    return figures(protocol, measured(protocol, truths, predictions, mask_threshold=mask_threshold), missing=missing)


def measured(
    protocol: str | Protocol,
    truths: Sequence[Report],
    predictions: Iterable[Report],
    *,
    mask_threshold: float = 0.5,
) -> list[Item]:
    """The item of every truth, in their order. Arguments and errors as of :func:`score`."""
    find = finder([truth.media.path for truth in truths])
    items: dict[int, Item] = {}
    for prediction in predictions:
        i = find(prediction.media.path)
        if i in items:
            raise DataError(f"{prediction.media.path}: predicted twice; keep one of the two")
        items[i] = measure(protocol, truths[i], prediction, mask_threshold=mask_threshold)
    return [items[i] if i in items else measure(protocol, truth, None) for i, truth in enumerate(truths)]


def measure(
    protocol: str | Protocol,
    truth: Report,
    prediction: Report | None,
    *,
    mask_threshold: float = 0.5,
    group: str = "",
) -> Item:
    """What one file counts: :func:`seamline.metrics.items.measure`, with no more work than the protocol needs.

    Raises:
        DataError: as there, or there is no such protocol.
    """
    rules = _of(protocol)
    return _items.measure(
        truth,
        prediction,
        pixels=rules.pixels,
        trufor=rules.name == "trufor",
        mask_threshold=mask_threshold,
        group=group,
    )


def _of(rules: str | Protocol) -> Protocol:
    return protocol(rules) if isinstance(rules, str) else rules


# --------------------------------------------------------------------------------------------------------- all files


def figures(protocol: str | Protocol, items: Sequence[Item], *, missing: Missing | None = None) -> dict[str, float]:
    """All figures of a protocol, by name; nan where one is not defined.

    What no file has (scores where only spans were asked for, say) leaves its figures undefined. What some have and
    others lack is treated as ``missing`` says.

    Args:
        protocol: its name.
        items: one for each file, from :func:`measure` under the same protocol.
        missing: ``"refuse"``: an error that names the files. ``"wrong"``: the worst answer in its place: the score of
            the surest authentic one for a forged file and the other way round, an empty mask, no proposal. By default
            what the protocol says.

    Raises:
        DataError: predictions are missing and the protocol refuses that; or the figures' own errors.
    """
    return _prepared(protocol, items, missing)(None)


def intervals(
    protocol: str | Protocol,
    items: Sequence[Item],
    *,
    missing: Missing | None = None,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Confidence interval of each figure, from resampling files, or whole groups where the items name theirs.

    Percentile bootstrap. In a resample, proposals of equal scores keep their order, and copies of a clip stand one
    after another, so that the intervals of the released temporal evaluators are exact up to ties.

    Args:
        protocol: its name.
        items: as of :func:`figures`.
        missing: as of :func:`figures`.
        level: how much of the resamples lies inside.
        draws: how many resamples.
        seed: the same seed gives the same intervals.

    Returns:
        Name -> (low, high); a figure that is never defined has no entry.

    Raises:
        DataError: as :func:`figures`.
    """
    named = bool(items) and all(item.group for item in items)
    groups = [item.group for item in items] if named else len(items)
    return bootstrap(_prepared(protocol, items, missing), groups, level=level, draws=draws, seed=seed)


def _prepared(rules: str | Protocol, items: Sequence[Item], missing: Missing | None) -> Figures:
    rules = _of(rules)
    return rules.prepare(_completed(rules, items, missing or rules.missing))


def _completed(rules: Protocol, items: Sequence[Item], missing: Missing) -> list[Item]:
    """The items, each with what any of them has."""
    scored = any(item.score is not None for item in items)
    placed = any(item.proposals is not None for item in items)
    masks = {name: len(values) for item in items for name, values in item.pixels.items()}
    lacking = [
        item.name
        for item in items
        if not item.found
        or (scored and item.score is None)
        or (placed and item.proposals is None)
        or (masks and item.forged and item.area is not None and not item.pixels)
    ]
    if lacking and missing == "refuse":
        names = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        raise DataError(
            f"{len(lacking)} of {len(items)} files have no prediction, or only part of one: {names}."
            f" {rules.missing_words} Predict them, or ask for missing ones to count as wrong"
        )
    complete = []
    for item in items:
        if placed and item.proposals is None:
            item = dataclasses.replace(item, proposals=())
        if masks and not item.pixels and (item.area is not None or not item.forged):
            counts = (0.0, 0.0, *item.area) if item.area and item.forged else (0.0, 1.0, 0.0, 0.0)
            item = dataclasses.replace(
                item, pixels={name: counts if width == 4 else (0.0,) * width for name, width in masks.items()}
            )
        complete.append(item)
    return complete


def _probability(item: Item) -> float | None:
    return item.score


class _Columns:
    """Items in columns, as figures need them. Where some have a score, the others get the worst of these."""

    def __init__(self, items: Sequence[Item], scale: Callable[[Item], float | None] = _probability) -> None:
        self.items = items
        self.forged = np.array([item.forged for item in items], bool)
        scores = np.array([math.nan if (value := scale(item)) is None else value for item in items], np.float64)
        given = ~np.isnan(scores)
        self.scored = bool(given.any())
        if self.scored:
            low, high = float(scores[given].min()), float(scores[given].max())
            scores = np.where(given, scores, np.where(self.forged, low, high))
        self.scores = scores

    def detection(self, figure: Callable[..., float], times: Ints | None, *more: Any, **options: Any) -> float:
        """A figure of scores against labels; nan where nothing was scored."""
        return figure(self.scores, self.forged, *more, times=times, **options) if self.scored else math.nan

    def ranking(self) -> Callable[[Ints | None], float]:
        """The AUC, with the sorting done once."""
        if not self.scored:
            return lambda times: math.nan
        ranking = Ranking(self.scores, self.forged)
        return lambda times: ranking.curve(times).auc()

    def values(self, name: str, width: int = 4) -> Floats:
        """A figure of the masks, (n, width), nan where there is none."""
        return np.array([item.pixels.get(name, (math.nan,) * width) for item in self.items], np.float64).reshape(
            -1, width
        )


def _weights(times: Ints | None, n: int) -> Floats:
    return np.ones(n) if times is None else np.asarray(times, np.float64)


def _average(values: Floats, times: Ints | None, among: Labels | None = None) -> float:
    """Weighted mean of what is defined, in (n,)."""
    there = ~np.isnan(values) if among is None else ~np.isnan(values) & among
    weight = _weights(times, len(values)) * there
    total = weight.sum()
    return float(weight @ np.where(there, values, 0.0) / total) if total else math.nan


def _of_each(items: Sequence[Item], figure: Callable[[Ints], Floats], rows: Floats) -> Floats:
    """A figure of counts, (n,), nan where a photo has none."""
    given = ~np.isnan(rows[:, 0])
    values = np.full(len(items), math.nan)
    values[given] = figure(rows[given].astype(np.int64))
    return values


def _pool(counts: Floats, times: Ints | None, among: Labels) -> Confusion:
    """One confusion matrix over the pixels of those photos that have counts."""
    there = among & ~np.isnan(counts[:, 0])
    return pooled(counts[there], None if times is None else times[there])


# ------------------------------------------------------------------------------------------------------ photos


def ddl_final(auc: float, iou: float, f1: float) -> float:
    """The final figure of DDL track 1: (AUC + IoU + F1) / 3."""
    return (auc + iou + f1) / 3


def _ddl_track1(items: Sequence[Item]) -> Figures:
    table = _Columns(items)
    counts, rank = table.values("mask"), table.ranking()
    f1, iou = pixel_figure(counts, "f1"), pixel_figure(counts, "iou")

    def figures(times: Ints | None) -> dict[str, float]:
        auc, pooled = rank(times), _pool(counts, times, table.forged)
        mean_f1, mean_iou = (_average(values, times, table.forged) for values in (f1, iou))
        return {
            "final": ddl_final(auc, mean_iou, mean_f1),
            "auc": auc,
            "f1": mean_f1,
            "iou": mean_iou,
            "final_pooled": ddl_final(auc, pooled.iou, pooled.f1),
            "f1_pooled": pooled.f1,
            "iou_pooled": pooled.iou,
        }

    return figures


def _imdl_benco(items: Sequence[Item]) -> Figures:
    table = _Columns(items)
    counts = table.values("half")
    origin, overlap, reverse, overlap_reverse = (
        _of_each(items, figure, rows)
        for rows in (counts, counts[:, [2, 3, 0, 1]])
        for figure in (imdlbenco_f1, imdlbenco_iou)
    )
    called = (table.scores > 0.5) if table.scored else np.zeros(len(items), bool)

    def figures(times: Ints | None) -> dict[str, float]:
        weight = _weights(times, len(items))
        tp, fp, fn = (float(weight[which].sum()) for which in _outcomes(called, table.forged))
        return {
            "f1": _average(origin, times),
            "f1_reverse": _average(reverse, times),
            "f1_double": _average(np.fmax(origin, reverse), times),
            "iou": _average(overlap, times),
            "iou_reverse": _average(overlap_reverse, times),
            "iou_double": _average(np.fmax(overlap, overlap_reverse), times),
            "f1_forged": _average(origin, times, table.forged),
            "iou_forged": _average(overlap, times, table.forged),
            "image_auc": table.detection(roc_auc, times),
            "image_acc": table.detection(accuracy, times, ABOVE_HALF),
            "image_f1": 2 * tp / (2 * tp + fp + fn) if table.scored and tp + fn else math.nan,
        }

    return figures


def _outcomes(called: Labels, forged: Labels) -> tuple[Labels, Labels, Labels]:
    return called & forged, called & ~forged, ~called & forged


def _trufor(items: Sequence[Item]) -> Figures:
    table = _Columns(items)
    best, fixed = table.values("trufor", 2).T
    return lambda times: {
        "f1_best": _average(best, times, table.forged),
        "f1_fixed": _average(fixed, times, table.forged),
        "image_auc": table.detection(roc_auc, times),
        "balanced_accuracy": table.detection(balanced_accuracy, times, ABOVE_HALF),
    }


def _loupe_released(items: Sequence[Item]) -> Figures:
    table = _Columns(items)
    counts, rank = table.values("half"), table.ranking()
    known = np.array([item.area is not None and item.area[0] > 0 for item in items], bool)

    def figures(times: Ints | None) -> dict[str, float]:
        total, auc = _pool(counts, times, known), rank(times)
        iou = (total.iou + total.iou_authentic) / 2
        return {"overall": (auc + total.f1 + iou) / 3, "auc": auc, "f1": total.f1, "iou": iou}

    return figures


def _deepfakebench(items: Sequence[Item]) -> Figures:
    """Frames are the unit of all figures but ``video_auc``; of a resample, files are drawn with all their frames."""
    table = _Columns(items)
    frames = [
        item.frames or ((value,) if table.scored else ()) for item, value in zip(items, table.scores, strict=True)
    ]
    many = np.array([len(own) for own in frames], np.int64)
    score = np.array([value for own in frames for value in own], np.float64)
    label = np.repeat(table.forged, many)
    parents = [Path(item.name.replace("\\", "/")).parent for item in items]
    photos = [len(own) == 1 for own in frames]
    own = [str(parent) if photo else item.name for item, parent, photo in zip(items, parents, photos, strict=True)]
    shared = [parent.name if photo else name for name, parent, photo in zip(own, parents, photos, strict=True)]

    def video_auc(names: Sequence[str], weight: Ints) -> float:
        videos, place = np.unique(np.repeat(np.array(names, str), many), return_inverse=True)
        count = np.bincount(place, weight, len(videos))
        drawn = count > 0
        mean = np.bincount(place, weight * score, len(videos))[drawn] / count[drawn]
        return roc_auc(mean, np.bincount(place, weight * label, len(videos))[drawn] >= count[drawn])

    def figures(times: Ints | None) -> dict[str, float]:
        weight = np.repeat(np.ones(len(items), np.int64) if times is None else times, many)
        if not len(score):
            return dict.fromkeys(("auc", "video_auc", "video_auc_apart", "eer", "ap", "acc"), math.nan)
        return {
            "auc": roc_auc(score, label, weight),
            "video_auc": video_auc(shared, weight),
            "video_auc_apart": video_auc(own, weight),
            "eer": equal_error_rate(score, label, "deepfakebench", weight),
            "ap": average_precision(score, label, weight),
            "acc": accuracy(score, label, ABOVE_HALF, weight),
        }

    return figures


# ------------------------------------------------------------------------------------------------------- sounds


def _log_likelihood_ratio(item: Item) -> float | None:
    """Positive = forged; the score files have it the other way round. Ours is of a prior of one half."""
    if item.raw is not None or item.score is None:
        return None if item.raw is None else -item.raw
    p = min(max(item.score, LEAST_LIKELY), 1 - LEAST_LIKELY)
    return math.log(p) - math.log1p(-p)


def _asvspoof5(items: Sequence[Item]) -> Figures:
    table = _Columns(items, _log_likelihood_ratio)
    return lambda times: {
        "min_dcf": table.detection(minimum_dcf, times, ties="authentic first"),
        "act_dcf": table.detection(actual_dcf, times),
        "eer": table.detection(equal_error_rate, times, "asvspoof"),
        "cllr": table.detection(cllr, times),
    }


# -------------------------------------------------------------------------------------------------------- clips


def ddl_s(figures: Mapping[str, float], *, plain: bool = False) -> float:
    """S of DDL track 2, from its eight figures ``ap50`` ... ``ar5``: with the page's weights over 16, or as a mean."""
    weights = dict.fromkeys(DDL_WEIGHTS, 1) if plain else DDL_WEIGHTS
    return sum(weight * figures[name] for name, weight in weights.items()) / sum(weights.values())


def onem_score(figures: Mapping[str, float]) -> float:
    """Score of task 2 of 1M-Deepfakes: 1/8 of the sum of four AP and 1/10 of the sum of five AR."""
    ap = sum(figures[f"ap{round(100 * iou)}"] for iou in ONEM_IOUS)
    return ap / 8 + sum(figures[f"ar{number}"] for number in ONEM_NUMBERS) / 10


def _placed(items: Sequence[Item]) -> bool:
    """Whether spans were asked for, and some truth has one."""
    return any(item.proposals is not None for item in items) and any(item.spans for item in items)


def _rows(item: Item) -> Floats:
    return np.array(item.proposals or (), np.float64).reshape(-1, 3)


def _matched(
    items: Sequence[Item], ious: Sequence[float], numbers: Sequence[int], recall_ious: Sequence[float] = RECALL_IOUS
) -> Figures:
    """AP and AR as we define them."""
    if not _placed(items):
        empty = {**named("ap", dict.fromkeys(ious, math.nan)), **named("ar", dict.fromkeys(numbers, math.nan))}
        return lambda times: dict(empty)
    matching = Matching(
        [_rows(i) for i in items], [np.array(i.spans) for i in items], ious, numbers, recall_ious=recall_ious
    )
    return lambda times: {**named("ap", matching.ap(times)), **named("ar", matching.ar(times))}


def _ddl_track2(items: Sequence[Item]) -> Figures:
    table = _Columns(items)
    fakes = [item for item in items if item.forged]
    located = _matched(fakes, DDL_IOUS, DDL_NUMBERS)
    coarse = _matched(fakes, DDL_IOUS, DDL_NUMBERS, DDL_IOUS)
    rank = table.ranking()

    def figures(times: Ints | None) -> dict[str, float]:
        of_fakes = None if times is None else times[table.forged]
        parts, on_grid, auc = located(of_fakes), coarse(of_fakes), rank(times)
        s, s_plain, s_grid = ddl_s(parts), ddl_s(parts, plain=True), ddl_s(on_grid)
        return {
            "final": (auc + s) / 2,
            "auc": auc,
            "s": s,
            **parts,
            "final_plain": (auc + s_plain) / 2,
            "s_plain": s_plain,
            "final_ap_grid": (auc + s_grid) / 2,
            "s_ap_grid": s_grid,
        }

    return figures


def _onem(items: Sequence[Item]) -> Figures:
    table = _Columns(items, lambda item: item.score if item.raw is None else item.raw)
    segments = np.array([bool(item.spans) for item in items], bool)
    released = _released(items, "avdeepfake1m", ONEM_IOUS, ONEM_NUMBERS)
    correct = _matched(items, ONEM_IOUS, ONEM_NUMBERS)
    single = (table.scores.min(initial=0.0) >= 0) and (table.scores.max(initial=0.0) <= 1)

    def auc(times: Ints | None, labels: Labels) -> float:
        if not table.scored:
            return math.nan
        if times is None:
            return avdeepfake1m_auc(table.scores, labels)
        return roc_auc(table.scores if single else 1 / (1 + np.exp(-table.scores)), labels, times)

    def figures(times: Ints | None) -> dict[str, float]:
        parts = released(times)
        return {
            "auc": auc(times, segments),
            "auc_modified": auc(times, table.forged),
            "score": onem_score(parts),
            **parts,
            "score_corrected": onem_score(correct(times)),
        }

    return figures


def _lavdf(items: Sequence[Item]) -> Figures:
    return _subsets(items, lambda part: _released(part, "lavdf", IOUS, NUMBERS), ("visual", "audio"))


def _activitynet_figures(items: Sequence[Item]) -> Figures:
    return _subsets(items, _released_activitynet, ("visual",))


def _released(
    items: Sequence[Item], evaluator: Literal["lavdf", "avdeepfake1m"], ious: Sequence[float], numbers: Sequence[int]
) -> Figures:
    if not _placed(items):
        return _matched((), ious, numbers)
    return first_hits([_rows(i) for i in items], [np.array(i.listed) for i in items], evaluator, ious, numbers)


def _released_activitynet(items: Sequence[Item]) -> Figures:
    if not _placed(items):
        empty = {"map": math.nan, **_matched((), RECALL_IOUS, NUMBERS)(None)}
        return lambda times: dict(empty)
    return activitynet([_rows(i) for i in items], [np.array(i.listed) for i in items])


def _subsets(items: Sequence[Item], figures: Callable[[Sequence[Item]], Figures], names: Sequence[str]) -> Figures:
    """Figures over all clips, and over those left when fakes of the other modality alone are dropped."""
    dropped = {"visual": ("audio",), "audio": ("video",)}
    parts = {"": np.ones(len(items), bool)}
    for name in names:
        parts[f"_{name}"] = np.array([item.forged_in != dropped[name] for item in items], bool)
    of_part = {
        name: figures([item for item, kept in zip(items, keep, strict=True) if kept]) for name, keep in parts.items()
    }
    return lambda times: {
        f"{key}{name}": value
        for name, keep in parts.items()
        for key, value in of_part[name](None if times is None else times[keep]).items()
    }


# ------------------------------------------------------------------------------------------------------ our own


def _seamline(items: Sequence[Item]) -> Figures:
    """Our own: photos where masks were measured, clips where proposals were, each only if there are any."""
    table = _Columns(items)
    rank = table.ranking()
    flagged = np.array([item.flagged for item in items], np.float64)
    probable = table.scored and table.scores.min(initial=0.0) >= 0 and table.scores.max(initial=0.0) <= 1
    parts = [_seamline_photos(table)] if any(item.pixels for item in items) else []
    if any(item.frame_counts or item.spans for item in items):
        parts.append(_seamline_clips(table))

    def figures(times: Ints | None) -> dict[str, float]:
        return {
            "auc": rank(times),
            "eer": table.detection(equal_error_rate, times),
            "detected": _average(flagged, times, table.forged),
            "false_alarms": _average(flagged, times, ~table.forged),
            "ece": table.detection(expected_calibration_error, times, forged_prior=0.5) if probable else math.nan,
            "brier": table.detection(brier_score, times) if probable else math.nan,
            **{name: value for part in parts for name, value in part(times).items()},
        }

    return figures


def _seamline_photos(table: _Columns) -> Figures:
    hot, shown = table.values("hot"), table.values("mask")
    of_photo = {"f1": pixel_figure(hot, "f1"), "iou": pixel_figure(hot, "iou"), "f1_shown": pixel_figure(shown, "f1")}
    return lambda times: {name: _average(values, times, table.forged) for name, values in of_photo.items()}


def _seamline_clips(table: _Columns) -> Figures:
    items = table.items
    counts = np.array([item.frame_counts or (0, 0, 0, 0) for item in items], np.float64)
    apart = {}
    for key in ("video", "audio"):
        score = np.array([item.scores_in.get(key, math.nan) for item in items], np.float64)
        label = np.array([key in item.forged_in for item in items], bool)
        judged = ~np.isnan(score)
        apart[f"auc_{key}"] = (Ranking(score[judged], label[judged]), judged)
    matching = None
    if _placed(items):
        matching = Matching([_rows(i) for i in items], [np.array(i.spans) for i in items])

    def figures(times: Ints | None) -> dict[str, float]:
        found = {
            name: rank.curve(None if times is None else times[there]).auc() for name, (rank, there) in apart.items()
        }
        if matching is None:
            empty = _matched((), IOUS, NUMBERS)(None)
            return {**found, **empty, "boundary_ms": math.nan, "frame_f1": math.nan}
        frames = _pool(counts, times, np.ones(len(items), bool))
        return {
            **found,
            **named("ap", matching.ap(times)),
            **named("ar", matching.ar(times)),
            "boundary_ms": matching.boundary(times).mean,
            "frame_f1": frames.f1,
        }

    return figures


# ---------------------------------------------------------------------------------------------------- the protocols

_NOT_PUBLISHED = "What the server does with a missing file is not published."
PROTOCOLS: dict[str, Protocol] = {
    rules.name: rules
    for rules in (
        Protocol(
            name="ddl-track1",
            medium="image",
            source="Deepfake Detection and Localization challenge, IJCAI 2025, track 1 (DDL-I): the challenge's page",
            scored="AUC of the score; F1 and IoU of the forged pixels of the submitted mask",
            items="AUC on all photos; F1 and IoU on forged ones only",
            combined="final = (AUC + IoU + F1) / 3",
            headline="final",
            words="How pixels are pooled is not published: f1, iou and final average over photos, f1_pooled, iou_pooled"
            " and final_pooled count the pixels of all photos together. Published pairs of F1 and IoU cannot come from"
            " pooled counts, so the server probably averages. False alarms on authentic photos cost only AUC.",
            missing="refuse",
            missing_words=_NOT_PUBLISHED,
            prepare=_ddl_track1,
            pixels=True,
        ),
        Protocol(
            name="ddl-track2",
            medium="clip",
            source="Deepfake Detection and Localization challenge, IJCAI 2025, track 2 (DDL-AV): the challenge's page",
            scored="AUC of the score; AP at IoU .5 .75 .9 .95 and AR at 30 20 10 5 proposals of the forged seconds",
            items="AUC on all clips; AP and AR on forged ones only",
            combined="S = (AP50 + 2 AP75 + 2 AP90 + 3 AP95 + AR30 + 2 AR20 + 2 AR10 + 3 AR5) / 16;"
            " final = (AUC + S) / 2",
            headline="final",
            words="Matching is ours: IoU >= threshold, best scores first, whole curve. Not published: the IoUs"
            " that AR is a mean over (s: 0.50, 0.55 ... 0.95 as 1M-Deepfakes has them; s_ap_grid: those of AP), and"
            " whether the server kept the page's weights (s) or took the plain mean of the eight (s_plain). Seconds"
            " that are forged in sound or picture are one truth where they touch.",
            missing="refuse",
            missing_words=_NOT_PUBLISHED,
            prepare=_ddl_track2,
        ),
        Protocol(
            name="1m-deepfakes",
            medium="clip",
            source="1M-Deepfakes Detection Challenge 2024 and 2025: its site, and the package avdeepfake1m 0.0.4",
            scored="task 1: AUC; task 2: AP at IoU .5 .75 .9 .95 and AR at 50 30 20 10 5 proposals",
            items="all clips; proposals on authentic ones are false alarms of AP",
            combined="score = (sum of the four AP) / 8 + (sum of the five AR) / 10",
            headline="score",
            words="AP and AR as the package computes them: IoU > threshold, proposals in the order of the file, AP"
            " without its first step of recall; score_corrected is the same by our definitions. auc takes a clip for"
            " forged if it has forged segments, as the package does; auc_modified if it was modified, as the site says."
            " Scores outside 0 to 1 all get a sigmoid first, which makes large logits equal. The package stops at an"
            " empty list, which counts here as a list with one proposal that is never right.",
            missing="refuse",
            missing_words="At a missing file the package stops with an error.",
            prepare=_onem,
        ),
        Protocol(
            name="lavdf",
            medium="clip",
            source="LAV-DF, Cai et al. 2022, and BA-TFD+, Cai et al. 2023: the released evaluator",
            scored="AP at IoU .5 .75 .95 and AR at 100 50 20 10 proposals",
            items="all clips; *_visual without those where sound alone is forged, *_audio without picture alone",
            combined="not combined",
            headline="ap50",
            words="IoU > threshold, proposals in the order of the file, AP without its first step of recall, single"
            " precision. AR stops where a forged clip has fewer than 100 proposals; here such lists are filled with"
            " proposals that are never right. AR is not the quantity of the same name under activitynet.",
            missing="refuse",
            missing_words="At a missing file the evaluator stops with an error.",
            prepare=_lavdf,
        ),
        Protocol(
            name="activitynet",
            medium="clip",
            source="UMMAFormer, Zhang et al. 2023: the ActivityNet evaluation as it uses it (LAV-DF, TVIL, Psynd)",
            scored="AP at ten IoUs .50 to .95, their mean, and AR at 100 50 20 10 proposals on average",
            items="truths of forged clips; proposals on authentic ones are false alarms of AP; *_visual as of lavdf",
            combined="map = mean of the ten AP",
            headline="map",
            words="AR shares one budget of proposals over all clips, so that a clip with many uses more than N and"
            " proposals on authentic clips lower it. A forged clip without proposals, at which AR stops, gets one that"
            " is never right.",
            missing="wrong",
            missing_words="AP takes a missing clip for one without proposals; AR stops with an error.",
            prepare=_activitynet_figures,
        ),
        Protocol(
            name="deepfakebench",
            medium="any",
            source="DeepfakeBench, Yan et al. 2023: its released metrics",
            scored="AUC, EER, AP and accuracy at 0.5 of single frames; AUC of videos, a video's score being their mean",
            items="all frames; a clip with a curve gives 32 of them, spread evenly",
            combined="not combined",
            headline="auc",
            words="EER is FPR where |FNR - FPR| is least. Frames make a video if their folders have the same name,"
            " whatever lies above, so that 000_003 of several manipulations is one video in video_auc; video_auc_apart"
            " keeps them apart. How many frames a video has (32 in the tables) changes every figure.",
            missing="refuse",
            missing_words="The benchmark runs the model itself, so that none is ever missing.",
            prepare=_deepfakebench,
        ),
        Protocol(
            name="imdl-benco",
            medium="image",
            source="IMDL-BenCo, Ma et al. 2024: its released evaluators",
            scored="F1 and IoU of pixels above 0.5, averaged over photos; F1, accuracy and AUC of photos",
            items="all photos, authentic ones too",
            combined="not combined",
            headline="f1",
            words="An authentic photo counts 0 even for a perfect empty answer, so that the share of authentic photos"
            " changes f1 and iou; f1_forged and iou_forged are over forged photos only. reverse: of the inverted map;"
            " double: of the better of the two, per photo, which is told by the truth. Sizes are those of the photos:"
            " the benchmark pads or resizes both sides first.",
            missing="refuse",
            missing_words="The benchmark runs the model itself, so that none is ever missing.",
            prepare=_imdl_benco,
            pixels=True,
        ),
        Protocol(
            name="trufor",
            medium="image",
            source="TruFor, Guillaro et al. 2023: its released metrics",
            scored="F1 of pixels at the best threshold of each photo and at 0.5; AUC and balanced accuracy of photos",
            items="F1 on forged photos only; the others on all",
            combined="not combined",
            headline="f1_best",
            words="A ring along the borders of the true mask is ignored. Each F1 is the better of map and inverted map,"
            " and f1_best takes the threshold from the truth: neither is what a user would get.",
            missing="refuse",
            missing_words="The script runs over the files of the model, so that none is ever missing.",
            prepare=_trufor,
            pixels=True,
        ),
        Protocol(
            name="asvspoof5",
            medium="audio",
            source="ASVspoof 5 evaluation plan and evaluation package, track 1",
            scored="minimum and actual DCF (prior of spoofing .05, C_miss 1, C_fa 10), EER and Cllr of countermeasures",
            items="all utterances",
            combined="not combined",
            headline="min_dcf",
            words="Scores in its files are high for bona fide speech, the opposite of a probability of forgery; ours"
            " are turned into log-likelihood ratios for equal priors. act_dcf and cllr mean something for such ratios"
            " only. The key file must list the same names.",
            missing="refuse",
            missing_words="At a missing file the package stops with an error.",
            prepare=_asvspoof5,
        ),
        Protocol(
            name="loupe-released",
            medium="image",
            source="Loupe, winner of DDL track 1: its released code",
            scored="AUC; F1 of pixels pooled over photos; mean of the forged and the authentic IoU of the same pixels",
            items="AUC on all photos; pixels of photos whose true mask is not empty",
            combined="overall = (AUC + F1 + IoU) / 3",
            headline="overall",
            words="Its IoU is the mean over two classes, which is why it exceeds F1, and an empty answer still gets"
            " half of the authentic IoU. Not comparable with the challenge's leaderboard. Its published validation"
            " figures were measured with the true label as an input of the network.",
            missing="refuse",
            missing_words="The code runs the model itself, so that none is ever missing.",
            prepare=_loupe_released,
            pixels=True,
        ),
        Protocol(
            name="seamline",
            medium="any",
            source="Seamline: the definitions of seamline.metrics",
            scored="AUC, EER, detected, false alarms, ECE and Brier score of files; of photos F1 and IoU of pixels,"
            " of clips AP, AR, boundary error and F1 of frames, and the AUC of each modality",
            items="detection on all files; F1 and IoU averaged over forged photos; AP and AR on all clips",
            combined="not combined",
            headline="auc",
            words="A file counts as flagged if the verdict is forged, so that inconclusive is a miss for a forged file"
            " and no alarm for an authentic one. f1 and iou are of the heat map at the mask threshold, f1_shown of the"
            " mask as delivered.",
            missing="wrong",
            missing_words="A file without a prediction counts as answered wrongly, so that leaving it out never pays.",
            prepare=_seamline,
            pixels=True,
        ),
    )
}
