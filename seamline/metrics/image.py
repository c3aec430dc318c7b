"""Where is this photo forged: figures of masks and heat maps against truth masks.

Masks are boolean, True meaning forged; a heat map holds the probability of forgery of every pixel. TP, FP, FN and TN
count pixels of the forged class. Published figures of one and the same heat map differ by

* the threshold: fixed, or the best for each photo, which needs the truth (:class:`PhotoPixels`);
* whether an inverted map counts as right too (:func:`inverted`);
* what is averaged: the figures of photos, or the pixels of all photos together (:func:`mean_figure`, :func:`pooled`);
* what a photo counts that is not forged (``empty``), and whether pixels near an edge count (:func:`border_ring`).

So every function names its rule. A figure that is not defined is nan, never a friendly 0 or 1. Scores of whole photos:
:mod:`seamline.metrics.detection`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .detection import Curve, roc_auc, roc_curve

Mask = npt.NDArray[np.bool_]  # (H, W), True = forged
Map = npt.NDArray[Any]  # (H, W) heat map: float in [0, 1], uint8 (of 255) or bool
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Counts = npt.ArrayLike  # (..., 4) TP, FP, FN, TN; a Confusion is one such row
Figure = Literal["f1", "iou", "iou_authentic", "miou", "mcc", "precision", "recall"]
Empty = Literal["skip", "score", "zero"]

BINS = 1024  # of histograms of scores: every 8-bit value has its own
ERODE, DILATE = 15, 11  # pixels: the windows of TruFor's ring


class Confusion(NamedTuple):
    """Pixel counts of the forged class; counts of several photos add up with :func:`pooled`."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); nan if nothing is forged and nothing was found."""
        return float(pixel_figure(self, "f1"))

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), intersection over union of the forged class; nan as for ``f1``."""
        return float(pixel_figure(self, "iou"))

    @property
    def iou_authentic(self) -> float:
        """TN / (TN + FP + FN), the same of the authentic class; nan if all is forged and all was found."""
        return float(pixel_figure(self, "iou_authentic"))


class PhotoPixels(NamedTuple):
    """What one heat map is worth against its truth; see :func:`photo_pixels`."""

    counts: Confusion  # at the fixed threshold
    auc: float  # of pixels, nan if one of the classes is absent
    ap: float  # of pixels, nan if none is forged
    best: Confusion  # at the threshold with the best F1, which only the truth tells; of an authentic photo, any
    best_threshold: float  # that threshold; infinity: nothing is called forged
    best_inverted: Confusion  # the same of the inverted map


class LoupeScores(NamedTuple):
    """What the released Loupe code reports; see :func:`loupe_released`."""

    auc: float
    f1: float
    iou: float
    overall: float


# ------------------------------------------------------------------------------------------------------------- counts


def confusion(prediction: Mask, truth: Mask, ignore: Mask | None = None) -> Confusion:
    """Pixel counts of one photo, or of any two boolean arrays of one shape.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        ignore: (H, W) bool, pixels that count nothing, such as a :func:`border_ring`.

    Raises:
        DataError: the shapes differ, or an array is not boolean (a heat map must be thresholded by the caller).
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.dtype != np.bool_:
        raise DataError(f"masks must be boolean, not {prediction.dtype} and {truth.dtype}; threshold them first")
    _same(prediction, truth, ignore)
    size = truth.size
    if ignore is not None:
        prediction, truth = prediction & ~ignore, truth & ~ignore
        size -= int(np.count_nonzero(ignore))
    found, forged = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    both = int(np.count_nonzero(prediction & truth))
    return Confusion(both, found - both, forged - both, size - found - forged + both)


def pooled(counts: Iterable[Counts], times: npt.ArrayLike | None = None) -> Confusion:
    """The sum of counts: one confusion matrix over all pixels of all photos, so that large photos weigh more.

    Args:
        counts: of n photos, (n, 4) or as many :class:`Confusion`.
        times: (n,) how often each photo counts; by default once.
    """
    table = _table(counts)
    total = table.sum(axis=0) if times is None else np.asarray(times, np.int64) @ table
    return Confusion(*total.tolist())


def inverted(counts: Counts) -> Ints:
    """Counts of the inverted maps, (..., 4): what was called forged is called authentic, and the other way round.

    Scripts that report the better of a map and its inverse (TruFor; ``double`` of IMDL-BenCo) take for each photo the
    larger figure of the two, which flatters maps that are wrong throughout.
    """
    return np.asarray(counts, np.int64)[..., [2, 3, 0, 1]]


def border_ring(truth: Mask, erode: int = ERODE, dilate: int = DILATE) -> Mask:
    """The pixels about the edge of a forged area, where truth masks are unsure, (H, W): TruFor leaves them out.

    A pixel is in the ring unless all pixels in a square window about it are forged (``erode`` wide) or none is
    (``dilate`` wide). Pixels outside the photo do not count.

    Args:
        truth: (H, W) bool.
        erode: width of the window in pixels, odd; 1 leaves nothing out inside the area.
        dilate: width of the window in pixels, odd; 1 leaves nothing out outside.

    Raises:
        DataError: the mask is not boolean, or a width is not odd and positive.
    """
    if np.asarray(truth).dtype != np.bool_:
        raise DataError(f"masks must be boolean, not {np.asarray(truth).dtype}; threshold them first")
    if erode < 1 or dilate < 1 or not erode % 2 or not dilate % 2:
        raise DataError(f"windows of {erode} and {dilate} pixels have no middle: give odd widths")
    grey = np.ascontiguousarray(truth).view(np.uint8)
    inner = cv2.erode(grey, np.ones((erode, erode), np.uint8))
    outer = cv2.dilate(grey, np.ones((dilate, dilate), np.uint8))
    ring: Mask = outer > inner
    return ring


def pixel_figure(counts: Counts, figure: Figure = "f1") -> Floats:
    """A figure of the forged class from counts, (...), each from its own TP, FP, FN, TN.

    * ``f1``: 2 TP / (2 TP + FP + FN), the Dice coefficient; nan if nothing is forged and nothing was found.
    * ``iou``: TP / (TP + FP + FN) = F1 / (2 - F1); nan as F1. ``iou_authentic``: TN / (TN + FP + FN); nan if all is
      forged and all was found. ``miou``: the mean of the two; nan if either is.
    * ``mcc``: (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)), the correlation of Matthews (1975), -1
      to 1; 0 if all is called alike; nan if all or nothing is forged.
    * ``precision``: TP / (TP + FP); nan if nothing was found. ``recall``: TP / (TP + FN); nan if nothing is forged.

    Args:
        counts: (..., 4) TP, FP, FN, TN.
        figure: see above.

    Raises:
        DataError: no such figure.
    """
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    if figure == "f1":
        return _ratio(2 * tp, 2 * tp + fp + fn)
    if figure == "iou":
        return _ratio(tp, tp + fp + fn)
    if figure == "iou_authentic":
        return _ratio(tn, tn + fp + fn)
    if figure == "miou":
        return (_ratio(tp, tp + fp + fn) + _ratio(tn, tn + fp + fn)) / 2
    if figure == "precision":
        return _ratio(tp, tp + fp)
    if figure == "recall":
        return _ratio(tp, tp + fn)
    if figure == "mcc":
        scale = np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn))
        both = ((tp + fn) > 0) & ((tn + fp) > 0)
        return np.where(both, (tp * tn - fp * fn) / np.where(scale > 0, scale, 1), math.nan)
    raise DataError(
        f"no figure of pixels is named {figure!r}; there are f1, iou, iou_authentic, miou, mcc, precision, recall"
    )


def photo_figures(counts: Iterable[Counts], figure: Figure = "f1", empty: Empty = "skip") -> Floats:
    """A figure of every photo, (n,), nan for photos that are left out.

    Of a photo that is forged somewhere, a figure without value is 1 if nothing is wrong, else 0 (precision where
    nothing was found).

    Args:
        counts: of n photos, (n, 4) or as many :class:`Confusion`.
        figure: as of :func:`pixel_figure`.
        empty: what a photo counts that is forged nowhere:

            * ``"skip"``: nothing; only forged photos are averaged, and false alarms cost nothing (DDL, TruFor, Loupe).
            * ``"score"``: 1 if nothing was found, otherwise 0, so that false alarms cost (``zero_division=1`` of
              scikit-learn).
            * ``"zero"``: 0, even for the perfect empty answer (IMDL-BenCo; ``zero_division=0`` of scikit-learn).
    """
    table = _table(counts)
    tp, fp, fn, _ = table.T
    forged, right = tp + fn > 0, fp + fn == 0
    values = pixel_figure(table, figure)
    values = np.where(np.isnan(values), right, values)
    if empty == "skip":
        return np.where(forged, values, math.nan)
    if empty in ("score", "zero"):
        return np.where(forged, values, right if empty == "score" else 0.0)
    raise DataError(f"no treatment of empty masks is named {empty!r}; there are {', '.join(get_args(Empty))}")


def mean_figure(
    counts: Iterable[Counts],
    figure: Figure = "f1",
    *,
    empty: Empty = "skip",
    double: bool = False,
    times: npt.ArrayLike | None = None,
) -> float:
    """A figure of every photo, then averaged: each photo weighs the same.

    Args:
        counts: of n photos, (n, 4) or as many :class:`Confusion`.
        figure: as of :func:`pixel_figure`.
        empty: as of :func:`photo_figures`.
        double: of each photo the better of the map and its inverse; see :func:`inverted`.
        times: (n,) how often each photo counts; by default once.

    Returns:
        The mean, or nan if no photo is left.
    """
    table = _table(counts)
    values = photo_figures(table, figure, empty)
    if double:
        values = np.maximum(values, photo_figures(inverted(table), figure, empty))
    return _mean(values, times)


def imdlbenco_f1(counts: Counts) -> Floats:
    """F1 of each photo as IMDL-BenCo has it, (...): precision and recall with 1e-8 below each fraction line.

    A perfect answer is a little less than 1, an empty truth 0 whatever was found. Its map is ``score > 0.5``; its
    ``reverse`` is of :func:`inverted` counts, its ``double`` the larger of both.
    """
    tp, fp, fn, _ = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    precision, recall = tp / (tp + fp + 1e-8), tp / (tp + fn + 1e-8)
    return np.asarray(2 * precision * recall / (precision + recall + 1e-8))


def imdlbenco_iou(counts: Counts) -> Floats:
    """IoU of each photo as IMDL-BenCo has it, (...): TP / (TP + FP + FN + 1e-8); an empty truth is 0."""
    tp, fp, fn, _ = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    return np.asarray(tp / (tp + fp + fn + 1e-8))


# ---------------------------------------------------------------------------------------------------------- heat maps


def pixel_histogram(scores: Map, truth: Mask, ignore: Mask | None = None, bins: int = BINS) -> Ints:
    """How many authentic and forged pixels have which score, (2, bins): all that figures of pixels need of a photo.

    Bin k holds scores in [k, k + 1) / bins, the last one 1.0 too. Sums of histograms are histograms of all pixels.

    Args:
        scores: (H, W) float in [0, 1], uint8 (of 255) or bool.
        truth: (H, W) bool.
        ignore: (H, W) bool, pixels that count nothing.
        bins: a power of two, so that dividing into bins rounds nothing; from 256 on, every 8-bit score is apart.

    Raises:
        DataError: shapes differ, the truth is not boolean, scores are nan or outside [0, 1], or ``bins`` is no power
            of two up to 16384.
    """
    scores, truth = np.asarray(scores), np.asarray(truth)
    _same(scores, truth, ignore)
    if bins < 2 or bins > 2**14 or bins & (bins - 1):
        raise DataError(f"{bins} bins: give a power of two from 2 to 16384")
    if scores.dtype == np.uint8:
        place = np.minimum(np.arange(256) * bins // 255, bins - 1).astype(np.uint16)[scores]
    elif scores.dtype == np.bool_:
        place = scores * np.uint16(bins - 1)
    else:
        _check_unit(scores)
        place = np.minimum((scores * scores.dtype.type(bins)).astype(np.uint16), np.uint16(bins - 1))
    row = truth.view(np.uint8) if truth.flags.c_contiguous else truth.astype(np.uint8)
    if ignore is not None:
        row = np.where(ignore, np.uint8(2), row)
    place += row * np.uint16(bins)
    return np.bincount(place.ravel(), minlength=3 * bins)[: 2 * bins].reshape(2, bins)


def histogram_curve(histogram: Ints) -> Curve:
    """The curve of a histogram (2, bins): a point for each bin, the threshold being its lower edge.

    Scores of one bin are equal to it. For 8-bit scores that is exact; for others, AUC is off by at most half the sum
    over bins of FPR step x TPR step.
    """
    bins = histogram.shape[1]
    fp, tp = np.concatenate([np.zeros((2, 1), np.int64), np.cumsum(histogram[:, ::-1], axis=1)], axis=1)
    return Curve(np.append(np.inf, np.arange(bins - 1, -1, -1) / bins), tp, fp)


def photo_pixels(
    scores: Map,
    truth: Mask,
    ignore: Mask | None = None,
    *,
    threshold: float = 0.5,
    strict: bool = False,
    bins: int | None = BINS,
) -> PhotoPixels:
    """Everything about one heat map: counts at a fixed and at the best threshold, of the inverse too, AUC and AP.

    Args:
        scores: (H, W) float in [0, 1], uint8 (of 255) or bool.
        truth: (H, W) bool.
        ignore: (H, W) bool, pixels that count nothing.
        threshold: in [0, 1]: what reaches it is called forged. It is kept to exactly, whatever the bins.
        strict: only what is larger is called forged (``score > threshold``, as IMDL-BenCo and TruFor have it).
        bins: how finely AUC, AP and the best threshold are resolved, as of :func:`pixel_histogram`; ``None``: exactly,
            by sorting, some sixty times slower.

    Raises:
        DataError: as :func:`pixel_histogram`.
    """
    histogram = None if bins is None else pixel_histogram(scores, truth, ignore, bins)
    return _photo(np.asarray(scores), np.asarray(truth), ignore, threshold, strict, histogram)


def _photo(
    scores: Map,
    truth: Mask,
    ignore: Mask | None,
    threshold: float,
    strict: bool,
    histogram: Ints | None,
) -> PhotoPixels:
    if histogram is None:
        _same(scores, truth, ignore)
        unit = _unit(scores)
        _check_unit(unit)
        curve = roc_curve(*((unit.ravel(), truth.ravel()) if ignore is None else (unit[~ignore], truth[~ignore])))
    else:
        curve = histogram_curve(histogram)
    bins = len(curve.tp) - 1
    edge = threshold * bins
    if histogram is not None and not strict and edge == int(edge) and 0 <= edge < bins:  # on an edge of the bins
        counts = Confusion(*curve.counts[bins - int(edge)].tolist())
    else:
        unit = _unit(scores)
        counts = confusion(unit > threshold if strict else unit >= threshold, truth, ignore)
    best, k = _best(curve.counts)
    best_inverted, _ = _best(inverted(curve.counts))
    return PhotoPixels(counts, curve.auc(), curve.ap(), best, float(curve.threshold[k]), best_inverted)


def _best(counts: Ints) -> tuple[Confusion, int]:
    """The counts with the best F1, the first of several, and which they are."""
    k = int(np.argmax(np.nan_to_num(pixel_figure(counts, "f1"), nan=-1.0)))
    return Confusion(*counts[k].tolist()), k


class PixelTable:
    """Heat maps added one by one, then every figure over them; what is kept of each is a few numbers.

    Args:
        threshold: as of :func:`photo_pixels`.
        strict: as of :func:`photo_pixels`.
        bins: as of :func:`pixel_histogram`.
        keep: also keep the histogram of every photo (8 KB at 1024 bins), for resamples of figures over pooled scores.
    """

    def __init__(self, *, threshold: float = 0.5, strict: bool = False, bins: int = BINS, keep: bool = False) -> None:
        self._how = (threshold, strict)
        self._photos: list[PhotoPixels] = []
        self._histogram = np.zeros((2, bins), np.int64)
        self._f1 = np.zeros(bins + 1)  # F1 at every threshold, summed over forged photos
        self._kept: list[npt.NDArray[np.uint32]] | None = [] if keep else None

    def add(self, scores: Map, truth: Mask, ignore: Mask | None = None) -> PhotoPixels:
        """Take in one photo, and what it counts alone.

        Raises:
            DataError: as :func:`pixel_histogram`.
        """
        histogram = pixel_histogram(scores, truth, ignore, self._histogram.shape[1])
        photo = _photo(np.asarray(scores), np.asarray(truth), ignore, *self._how, histogram)
        self._photos.append(photo)
        self._histogram += histogram
        if photo.counts.tp + photo.counts.fn:
            self._f1 += pixel_figure(histogram_curve(histogram).counts, "f1")
        if self._kept is not None:
            self._kept.append(histogram.astype(np.uint32))
        return photo

    @property
    def counts(self) -> Ints:
        """TP, FP, FN, TN of every photo at the fixed threshold, (n, 4)."""
        return _table(photo.counts for photo in self._photos)

    def curve(self, times: npt.ArrayLike | None = None) -> Curve:
        """The curve of the pixels of all photos together; ``times``, (n,): how often each photo counts.

        Raises:
            DataError: ``times`` of a table that does not ``keep``.
        """
        if times is None:
            return histogram_curve(self._histogram)
        if self._kept is None:
            raise DataError("resamples of pooled scores need PixelTable(keep=True)")
        total = np.zeros_like(self._histogram)
        for many, histogram in zip(np.asarray(times).tolist(), self._kept, strict=True):
            if many:
                total += many * histogram.astype(np.int64)
        return histogram_curve(total)

    def best_threshold(self) -> tuple[float, float]:
        """The one threshold with the best mean F1 over all forged photos, and that F1; only the truth tells it."""
        forged = int((self.counts[:, [0, 2]].sum(1) > 0).sum()) if self._photos else 0
        if not forged:
            return math.nan, math.nan
        k = int(np.argmax(self._f1))
        return float(histogram_curve(self._histogram).threshold[k]), float(self._f1[k] / forged)

    def figures(self, times: npt.ArrayLike | None = None, *, empty: Empty = "skip") -> dict[str, float]:
        """Every figure by name; ``times``, (n,): how often each photo counts, ``empty`` as of :func:`photo_figures`.

        ``f1 iou miou mcc precision recall``: of every photo at the fixed threshold, then averaged; ``auc ap``: the
        same, over photos where they are defined. ``f1_double``: the better of map and inverse. ``f1_best``: at the best
        threshold of every forged photo, whatever ``empty`` (of an authentic one, a threshold that finds nothing is
        always best); ``f1_best_double``: also the better of map and inverse. With ``_pooled``: of the
        pixels of all photos, forged or not, together; ``auc_pooled ap_pooled`` with ``times`` only if the table keeps
        histograms.
        """
        table = self.counts
        kinds: tuple[Figure, ...] = ("f1", "iou", "miou", "mcc", "precision", "recall")
        found: dict[str, float] = {kind: mean_figure(table, kind, empty=empty, times=times) for kind in kinds}
        found["auc"], found["ap"] = (_mean([getattr(p, key) for p in self._photos], times) for key in ("auc", "ap"))
        found["f1_double"] = mean_figure(table, "f1", empty=empty, double=True, times=times)
        best = photo_figures((p.best for p in self._photos), "f1")
        inverse = photo_figures((p.best_inverted for p in self._photos), "f1")
        found["f1_best"], found["f1_best_double"] = _mean(best, times), _mean(np.maximum(best, inverse), times)
        total = pooled(table, times)
        found |= {f"{kind}_pooled": float(pixel_figure(total, kind)) for kind in kinds}
        if times is None or self._kept is not None:
            curve = self.curve(times)
            found |= {"auc_pooled": curve.auc(), "ap_pooled": curve.ap()}
        return found


# ------------------------------------------------------------------------------------- as the released Loupe evaluates


def loupe_released(
    scores: npt.ArrayLike, labels: npt.ArrayLike, predictions: Sequence[Mask], truths: Sequence[Mask]
) -> LoupeScores:
    """The figures of the released Loupe code, to compare with its tables; not our own yardstick.

    * ``auc``: :func:`seamline.metrics.detection.roc_auc` over all photos.
    * ``f1``: pixels of all photos whose truth is not empty, pooled; false alarms on authentic photos cost nothing.
    * ``iou``: the same pixels, *mean of forged and authentic IoU*, which is why it exceeds ``f1``.
    * ``overall``: (auc + f1 + iou) / 3.

    Without any truth, f1 and iou are nan (the released code raises for f1); with one class only, auc is nan.

    Args:
        scores: (n,) probabilities of forgery.
        labels: (n,) bool or 0/1, 1 = forged.
        predictions: n masks (H, W) at original size, already at threshold 0.5.
        truths: n masks (H, W).

    Raises:
        DataError: as :func:`seamline.metrics.detection.roc_auc` and :func:`confusion`, or the numbers of masks and
            scores differ.
    """
    auc = roc_auc(scores, labels)
    if not len(predictions) == len(truths) == np.size(scores):
        raise DataError(
            f"{np.size(scores)} scores, {len(predictions)} predictions and {len(truths)} truths: not one each"
        )
    total = pooled(confusion(p, t) for p, t in zip(predictions, truths, strict=True) if np.any(t))
    f1, iou = total.f1, float(pixel_figure(total, "miou"))
    return LoupeScores(auc, f1, iou, (auc + f1 + iou) / 3)


# ----------------------------------------------------------------------------------------------------------- checking


def _same(scores: Map, truth: npt.NDArray[np.generic], ignore: Mask | None) -> None:
    if truth.dtype != np.bool_:
        raise DataError(f"masks must be boolean, not {scores.dtype} and {truth.dtype}; threshold them first")
    if scores.shape != truth.shape:
        raise DataError(f"masks of shapes {scores.shape} and {truth.shape} cannot be compared; resize one of them")
    if ignore is not None and (ignore.shape != truth.shape or ignore.dtype != np.bool_):
        raise DataError(
            f"ignored pixels {ignore.dtype} {ignore.shape} for masks of {truth.shape}: give bool, that shape"
        )


def _unit(scores: Map) -> Map:
    """Scores as numbers in [0, 1]."""
    return scores / np.float64(255) if scores.dtype == np.uint8 else scores


def _check_unit(scores: Map) -> None:
    if scores.dtype.kind not in "fb":
        raise DataError(f"scores of type {scores.dtype}: give floats in [0, 1], uint8 of 255, or bool")
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        raise DataError(f"scores of {scores.min():g} to {scores.max():g}: a heat map holds probabilities in [0, 1]")


def _table(counts: Iterable[Counts]) -> Ints:
    """Counts of n photos, (n, 4)."""
    if isinstance(counts, np.ndarray):
        return counts.reshape(-1, 4)
    return np.array([*counts], np.int64).reshape(-1, 4)


def _ratio(part: Floats, whole: Floats) -> Floats:
    share: Floats = np.divide(part, whole, out=np.full(np.shape(part), math.nan), where=whole > 0)
    return share


def _mean(values: npt.ArrayLike, times: npt.ArrayLike | None) -> float:
    """The mean of the values that are not nan, each counted so often; nan if there are none."""
    value = np.asarray(values, np.float64)
    weight = np.ones(len(value)) if times is None else np.asarray(times, np.float64)
    used = ~np.isnan(value) & (weight > 0)
    if not used.any():
        return math.nan
    return math.fsum(value[used] * weight[used]) / float(weight[used].sum())
