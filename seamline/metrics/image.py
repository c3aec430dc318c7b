"""Metrics of photo forensics: is this photo forged (scores and labels), and where (masks).

Labels and masks are boolean, True meaning forged; a score is the probability of forgery. TP, FP, FN and TN count
pixels of the forged class. Definitions differ between benchmarks, above all in what an authentic photo counts, so
every function names its rule. A figure that is not defined is nan, never a friendly 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError

Mask = npt.NDArray[np.bool_]  # (H, W), True = forged


class Confusion(NamedTuple):
    """Pixel counts of the forged class; counts of several photos add up with :func:`pooled`."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); nan if nothing is forged and nothing was found."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), intersection over union of the forged class; nan as for ``f1``."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def iou_authentic(self) -> float:
        """TN / (TN + FP + FN), the same of the authentic class; nan if all is forged and all was found."""
        return _ratio(self.tn, self.tn + self.fp + self.fn)


class LoupeScores(NamedTuple):
    """What the released Loupe code reports; see :func:`loupe_released`."""

    auc: float
    f1: float
    iou: float
    overall: float


def roc_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a forged photo scores above an authentic one, a tie counting half.

    AUC = (R - P (P + 1) / 2) / (P N), with R the sum of the ranks of the P forged among all P + N, tied scores
    sharing their mean rank (Mann and Whitney 1947; Fawcett 2006, "An introduction to ROC analysis", section 7).

    Args:
        scores: (n,) real numbers, higher = more likely forged.
        labels: (n,) bool or 0/1, 1 = forged.

    Returns:
        0 to 1, or nan if one of the classes is absent.

    Raises:
        DataError: a score is nan, a label is not 0 or 1, or the lengths differ.
    """
    score, label = _scored(scores, labels)
    positives = int(label.sum())
    negatives = label.size - positives
    if not positives or not negatives:
        return math.nan
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # mean rank of each distinct score, from 1
    excess = rank[place][label].sum() - positives * (positives + 1) / 2
    return float(excess / (positives * negatives))


def false_positive_rate(scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float) -> float:
    """Share of authentic photos that are called forged: FP / (FP + TN), forged meaning score >= threshold.

    Args:
        scores: (n,) real numbers.
        labels: (n,) bool or 0/1, 1 = forged.
        threshold: the operating point, on the scale of the scores.

    Returns:
        0 to 1, or nan without authentic photos.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    score, label = _scored(scores, labels)
    return _ratio(int((score[~label] >= threshold).sum()), int((~label).sum()))


def expected_calibration_error(scores: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> float:
    """How far probabilities are from frequencies, in ``bins`` bins of equal width.

    ECE = sum over bins b of n_b / n * | share of forged in b - mean score in b |  (Naeini et al. 2015; Guo et al.
    2017, eq. 3, here for the probability of forgery and not for that of the predicted class). A bin holds its left
    edge; the last one holds 1.0 too. Empty bins count nothing.

    Args:
        scores: (n,) probabilities in [0, 1].
        labels: (n,) bool or 0/1, 1 = forged.
        bins: at least 1.

    Returns:
        0 (calibrated) to 1, or nan for no photos.

    Raises:
        DataError: as :func:`roc_auc`, or a score lies outside [0, 1].
    """
    score, label = _scored(scores, labels)
    if score.size == 0:
        return math.nan
    if score.min() < 0 or score.max() > 1:
        raise DataError(f"scores of {score.min():g} to {score.max():g} are not probabilities; give logits a sigmoid")
    place = np.minimum((score * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, weights=label - score, minlength=bins)  # n_b * (share - mean)
    return float(np.abs(gap).sum() / score.size)


def confusion(prediction: Mask, truth: Mask) -> Confusion:
    """Pixel counts of one photo, or of any two boolean arrays of one shape.

    Raises:
        DataError: the shapes differ, or an array is not boolean (a heat map must be thresholded by the caller).
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise DataError(f"masks must be boolean, not {prediction.dtype} and {truth.dtype}; threshold them first")
    if prediction.shape != truth.shape:
        raise DataError(f"masks of shapes {prediction.shape} and {truth.shape} cannot be compared; resize one of them")
    found, forged = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    both = int(np.count_nonzero(prediction & truth))
    return Confusion(both, found - both, forged - both, truth.size - found - forged + both)


def pooled(counts: Iterable[Confusion]) -> Confusion:
    """The sum of counts: one confusion matrix over all pixels of all photos, so that large photos weigh more."""
    total = np.array([(0, 0, 0, 0), *counts], np.int64).sum(axis=0)
    return Confusion(*total.tolist())


def pixel_f1(prediction: Mask, truth: Mask) -> float:
    """F1 of the forged class in one photo: 2 TP / (2 TP + FP + FN), the Dice coefficient.

    0 if only one of the masks is empty, nan if both are.

    Raises:
        DataError: as :func:`confusion`.
    """
    return confusion(prediction, truth).f1


def pixel_iou(prediction: Mask, truth: Mask) -> float:
    """Intersection over union of the forged class in one photo: TP / (TP + FP + FN) = F1 / (2 - F1).

    0 if only one of the masks is empty, nan if both are.

    Raises:
        DataError: as :func:`confusion`.
    """
    return confusion(prediction, truth).iou


def mean_pixel_f1(counts: Iterable[Confusion], *, empty: Literal["skip", "score"] = "skip") -> float:
    """F1 of every photo, then averaged: each photo weighs the same. See :func:`mean_pixel_iou` for ``empty``."""
    return _mean([_or_one(count.f1) for count in counts if empty == "score" or count.tp + count.fn])


def mean_pixel_iou(counts: Iterable[Confusion], *, empty: Literal["skip", "score"] = "skip") -> float:
    """Forged-class IoU of every photo, then averaged: each photo weighs the same.

    Args:
        counts: one :class:`Confusion` per photo, from :func:`confusion`.
        empty: what a photo counts whose truth mask is empty. ``"skip"``: nothing, only forged photos are averaged
            (DDL, TruFor). ``"score"``: 1 if nothing was found and 0 otherwise, so that false alarms cost. The rule of
            IMDL-BenCo, 0 even for a perfect empty answer, is not offered.

    Returns:
        0 to 1, or nan if no photo is left.
    """
    return _mean([_or_one(count.iou) for count in counts if empty == "score" or count.tp + count.fn])


def loupe_released(
    scores: npt.ArrayLike, labels: npt.ArrayLike, predictions: Sequence[Mask], truths: Sequence[Mask]
) -> LoupeScores:
    """The figures of the released Loupe code, to compare with its tables; not our own yardstick.

    * ``auc``: :func:`roc_auc` over all photos.
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
        DataError: as :func:`roc_auc` and :func:`confusion`, or the numbers of masks and scores differ.
    """
    auc = roc_auc(scores, labels)
    if not len(predictions) == len(truths) == np.size(scores):
        raise DataError(
            f"{np.size(scores)} scores, {len(predictions)} predictions and {len(truths)} truths: not one each"
        )
    total = pooled(confusion(p, t) for p, t in zip(predictions, truths, strict=True) if np.any(t))
    f1 = total.f1
    iou = (total.iou + total.iou_authentic) / 2
    return LoupeScores(auc, f1, iou, (auc + f1 + iou) / 3)


def _scored(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Checked scores (n,) float64 and labels (n,) bool."""
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    if score.ndim != 1 or score.shape != label.shape:
        raise DataError(f"scores of shape {score.shape} and labels of shape {label.shape}: give one label per score")
    if np.isnan(score).any():
        raise DataError(f"score number {int(np.isnan(score).argmax())} is nan; a photo without a score has no rank")
    if not np.isin(label, (0, 1)).all():
        raise DataError("labels must be 0 (authentic) or 1 (forged)")
    return score, label.astype(np.bool_)


def _or_one(value: float) -> float:
    """Nothing forged and nothing found is a perfect answer."""
    return 1.0 if math.isnan(value) else value


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
