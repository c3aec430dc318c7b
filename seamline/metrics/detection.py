"""Is this file forged: figures of scores against labels, for photos and clips alike.

A score is a real number, higher = more likely forged; a label is 1 (forged) or 0 (authentic). At a threshold, a file is
called forged if its score reaches it (``>=``). Figures that look at the order of scores only (AUC, EER, AP, rates at
rates, minimum costs) take any score; figures of calibration say which they need: probabilities in [0, 1] or
log-likelihood ratios.

Equal scores are one point of a curve: no figure depends on the order in which files are given. A figure that is not
defined is nan, never a friendly 0 or 1. ``times``, where a function takes it, says how often each file counts, which is
how confidence intervals are made (:mod:`seamline.metrics.bootstrap`); :class:`Ranking` then spares sorting anew.

Speech anti-spoofing counts the other way round: there a high score means bona fide. Negate such scores, and mind that
its "miss" is our false alarm and its "false acceptance" our miss; :func:`minimum_dcf` says which cost is which.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.bool_]
EerRule = Literal["interpolated", "deepfakebench", "asvspoof"]
Ties = Literal["together", "authentic first"]

ROUNDING = 1e-9  # a rate that is short of its target by less than this has reached it
FORGED_PRIOR, MISS_COST, ALARM_COST = 0.05, 10.0, 1.0  # of ASVspoof 5: pi_spf, C_fa and C_miss in its words


@dataclass(frozen=True, eq=False)
class Curve:
    """How many forged and authentic items reach each threshold: what ROC, PR and DET curves are drawn from.

    With P forged and N authentic items, rates are shares of P and N; where the class is absent they are nan.
    """

    threshold: Floats  # (k + 1,) infinity, then the distinct scores, falling
    tp: Ints  # (k + 1,) forged items that reach it, from 0 to P
    fp: Ints  # (k + 1,) authentic items that reach it, from 0 to N

    @property
    def tpr(self) -> Floats:
        """TP / P, also called recall or detection rate, (k + 1,), rising."""
        return _share(self.tp)

    @property
    def fpr(self) -> Floats:
        """FP / N, also called false-alarm rate, (k + 1,), rising."""
        return _share(self.fp)

    @property
    def fnr(self) -> Floats:
        """FN / P, also called miss rate, (k + 1,), falling."""
        return self.counts[:, 2] / self.tp[-1] if self.tp[-1] else self.tpr

    @property
    def precision(self) -> Floats:
        """TP / (TP + FP), (k + 1,); 1 where nothing is called forged."""
        called = self.tp + self.fp
        return np.where(called > 0, self.tp / np.maximum(called, 1), 1.0)

    @property
    def counts(self) -> Ints:
        """TP, FP, FN, TN at each threshold, (k + 1, 4)."""
        return np.stack([self.tp, self.fp, self.tp[-1] - self.tp, self.fp[-1] - self.fp], -1)

    def det(self) -> tuple[Floats, Floats]:
        """False-alarm rate and miss rate on the scale of normal deviates, (k + 1,) each, infinite at rates 0 and 1.

        Martin et al. 1997, "The DET curve in assessment of detection task performance".
        """
        import torch  # its inverse of the normal distribution; numpy has none

        alarm, miss = (torch.special.ndtri(torch.from_numpy(rate)).numpy() for rate in (self.fpr, self.fnr))
        return alarm, miss

    def auc(self) -> float:
        """See :func:`roc_auc`."""
        forged, authentic = int(self.tp[-1]), int(self.fp[-1])
        if not forged or not authentic:
            return math.nan
        whole = np.int64 if forged * authentic < 2**62 else object  # whole numbers: exact, for any number of pixels
        twice = np.diff(self.fp).astype(whole) @ (self.tp[1:] + self.tp[:-1]).astype(whole)
        return int(twice) / (2 * forged * authentic)

    def eer(self, rule: EerRule = "interpolated") -> float:
        """See :func:`equal_error_rate`; ``asvspoof`` needs the curve of ``Ranking(..., ties="authentic first")``."""
        if not self.tp[-1] or not self.fp[-1]:
            return math.nan
        alarm, miss = self.fpr, self.fnr
        if rule == "deepfakebench":  # of the corners of the curve only, as roc_curve of scikit-learn gives them
            corner = np.ones(len(alarm), bool)
            corner[1:-1] = (np.diff(self.fp, 2) != 0) | (np.diff(self.tp, 2) != 0)
            return float(alarm[corner][np.argmin(np.abs(1 - self.tpr - alarm)[corner])])
        if rule == "asvspoof":
            k = int(np.argmin(np.abs(alarm - miss)))
            return float((alarm[k] + miss[k]) / 2)
        k = int(np.argmax(alarm >= miss))  # the first point from which alarms prevail; never the point of none at all
        gap, gap_before = alarm[k] - miss[k], miss[k - 1] - alarm[k - 1]
        return float(alarm[k - 1] + gap_before / (gap + gap_before) * (alarm[k] - alarm[k - 1]))

    def ap(self) -> float:
        """See :func:`average_precision`."""
        if not self.tp[-1]:
            return math.nan
        return float((np.diff(self.tp) * self.precision[1:]).sum() / self.tp[-1])

    def fpr_at_tpr(self, tpr: float, *, interpolate: bool = False) -> float:
        """See :func:`fpr_at_tpr`."""
        _rate(tpr)
        if not self.tp[-1] or not self.fp[-1]:
            return math.nan
        k = int(np.argmax(self.tpr >= tpr - ROUNDING))
        return self._between(self.tpr, self.fpr, tpr, k) if interpolate else float(self.fpr[k])

    def tpr_at_fpr(self, fpr: float, *, interpolate: bool = False) -> float:
        """See :func:`tpr_at_fpr`."""
        _rate(fpr)
        if not self.tp[-1] or not self.fp[-1]:
            return math.nan
        k = int(np.flatnonzero(self.fpr <= fpr + ROUNDING)[-1])
        if not interpolate or k + 1 == len(self.fpr):
            return float(self.tpr[k])
        return self._between(self.fpr, self.tpr, fpr, k + 1)

    @staticmethod
    def _between(at: Floats, of: Floats, value: float, k: int) -> float:
        """``of`` where ``at`` is ``value``, on the line from point k - 1 to k."""
        if k == 0 or at[k] == at[k - 1]:
            return float(of[k])
        share = min(max((value - at[k - 1]) / (at[k] - at[k - 1]), 0.0), 1.0)
        return float(of[k - 1] + share * (of[k] - of[k - 1]))

    def minimum_dcf(
        self, forged_prior: float = FORGED_PRIOR, miss_cost: float = MISS_COST, alarm_cost: float = ALARM_COST
    ) -> float:
        """See :func:`minimum_dcf`."""
        miss, alarm = _weights(forged_prior, miss_cost, alarm_cost)
        return float((miss * self.fnr + alarm * self.fpr).min() / min(miss, alarm))

    def minimum_cllr(self) -> float:
        """See :func:`minimum_cllr`."""
        forged, authentic = int(self.tp[-1]), int(self.fp[-1])
        if not forged or not authentic:
            return math.nan
        hull = _hull(self.fp.tolist(), self.tp.tolist())
        alarm, right = np.diff(hull[:, 0]) / authentic, np.diff(hull[:, 1]) / forged
        with np.errstate(divide="ignore"):
            llr = np.log(right) - np.log(alarm)  # the slope of the hull is the likelihood ratio
        return float(_bits(right[right > 0], llr[right > 0]) + _bits(alarm[alarm > 0], -llr[alarm > 0])) / 2


class Ranking:
    """Scores of n files sorted once; then the curve of any resample.

    Args:
        scores: (n,) real numbers, infinite ones too.
        labels: (n,) bool or 0/1, 1 = forged.
        ties: what equal scores are: one point of the curve (``"together"``), or a point each, the authentic first, as
            the scripts of ASVspoof have it.

    Raises:
        DataError: a score is nan, a label is not 0 or 1, or the lengths differ.
    """

    def __init__(self, scores: npt.ArrayLike, labels: npt.ArrayLike, ties: Ties = "together") -> None:
        score, label = scored(scores, labels)
        self._order = np.argsort(-score, kind="stable") if ties == "together" else np.lexsort((label, -score))
        score = score[self._order]
        self._label = label[self._order]
        last = (
            np.append(score[1:] != score[:-1], True)[: len(score)] if ties == "together" else np.ones(len(score), bool)
        )
        self._last = np.flatnonzero(last)
        self._threshold = np.append(np.inf, score[last])

    def curve(self, times: npt.ArrayLike | None = None) -> Curve:
        """The curve; ``times``, (n,) whole numbers: how often each file counts."""
        count = np.ones(len(self._order), np.int64) if times is None else _times(times, len(self._order))[self._order]
        tp = np.cumsum(np.where(self._label, count, 0))[self._last]
        both = np.cumsum(count)[self._last]
        return Curve(self._threshold, np.append(0, tp), np.append(0, both - tp))


def roc_curve(scores: npt.ArrayLike, labels: npt.ArrayLike, times: npt.ArrayLike | None = None) -> Curve:
    """The points of the ROC, PR and DET curves: one for each distinct score, none left out.

    Args:
        scores: (n,) real numbers, higher = more likely forged.
        labels: (n,) bool or 0/1, 1 = forged.
        times: (n,) how often each file counts; by default once.

    Raises:
        DataError: a score is nan, a label is not 0 or 1, or the lengths differ.
    """
    return Ranking(scores, labels).curve(times)


# --------------------------------------------------------------------------------------------- the order of the scores


def roc_auc(scores: npt.ArrayLike, labels: npt.ArrayLike, times: npt.ArrayLike | None = None) -> float:
    """Area under the ROC curve: the chance that a forged file scores above an authentic one, a tie counting half.

    AUC = sum over points k of (FPR_k - FPR_{k-1}) (TPR_k + TPR_{k-1}) / 2, which is the statistic of Mann and Whitney
    (1947) over P N (Fawcett 2006, "An introduction to ROC analysis", section 7). Chance is 0.5.

    Args:
        scores: (n,) real numbers, higher = more likely forged.
        labels: (n,) bool or 0/1, 1 = forged.
        times: (n,) how often each file counts; by default once.

    Returns:
        0 to 1, or nan if one of the classes is absent.

    Raises:
        DataError: a score is nan, a label is not 0 or 1, or the lengths differ.
    """
    return roc_curve(scores, labels, times).auc()


def equal_error_rate(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    rule: EerRule = "interpolated",
    times: npt.ArrayLike | None = None,
) -> float:
    """The error rate at the threshold where as many forged are missed as authentic called forged, as shares.

    A threshold where both are exactly equal seldom exists, so that the rule matters with few files:

    * ``"interpolated"``: where the ROC curve, its points joined by straight lines, meets TPR = 1 - FPR. Chance is 0.5.
    * ``"deepfakebench"``: FPR at the corner of the curve where |FNR - FPR| is least, the first of several.
    * ``"asvspoof"``: mean of FNR and FPR at the point where |FNR - FPR| is least, the first of several; equal scores
      are separate points, the authentic ones first.

    Args:
        scores: (n,) real numbers, higher = more likely forged.
        labels: (n,) bool or 0/1, 1 = forged.
        rule: see above.
        times: (n,) how often each file counts; by default once. ``"asvspoof"`` draws a file as one point.

    Returns:
        0 to 1, or nan if one of the classes is absent.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    return Ranking(scores, labels, "authentic first" if rule == "asvspoof" else "together").curve(times).eer(rule)


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike, times: npt.ArrayLike | None = None) -> float:
    """AP of whole files: sum over points k of (recall_k - recall_{k-1}) x precision_k, not interpolated.

    The definition of scikit-learn. Chance is the share of forged files. AP of *spans* is
    :func:`seamline.metrics.temporal.average_precision`.

    Args:
        scores: (n,) real numbers, higher = more likely forged.
        labels: (n,) bool or 0/1, 1 = forged.
        times: (n,) how often each file counts; by default once.

    Returns:
        0 to 1, or nan without forged files.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    return roc_curve(scores, labels, times).ap()


def fpr_at_tpr(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    tpr: float = 0.95,
    *,
    interpolate: bool = False,
    times: npt.ArrayLike | None = None,
) -> float:
    """The least share of false alarms at which at least the share ``tpr`` of the forged is found.

    Args:
        scores: (n,) real numbers, higher = more likely forged.
        labels: (n,) bool or 0/1, 1 = forged.
        tpr: in [0, 1].
        interpolate: ``False``: at a threshold that exists. ``True``: on the straight line between two of them, as if
            one tossed a coin for which to use; chance is then ``tpr``.
        times: (n,) how often each file counts; by default once.

    Returns:
        0 to 1, or nan if one of the classes is absent.

    Raises:
        DataError: as :func:`roc_auc`, or ``tpr`` is not a share.
    """
    return roc_curve(scores, labels, times).fpr_at_tpr(tpr, interpolate=interpolate)


def tpr_at_fpr(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    fpr: float = 0.05,
    *,
    interpolate: bool = False,
    times: npt.ArrayLike | None = None,
) -> float:
    """The largest share of forged files that is found with at most the share ``fpr`` of false alarms.

    Args:
        scores: (n,) real numbers, higher = more likely forged.
        labels: (n,) bool or 0/1, 1 = forged.
        fpr: in [0, 1].
        interpolate: as of :func:`fpr_at_tpr`; chance is then ``fpr``.
        times: (n,) how often each file counts; by default once.

    Returns:
        0 to 1, or nan if one of the classes is absent.

    Raises:
        DataError: as :func:`roc_auc`, or ``fpr`` is not a share.
    """
    return roc_curve(scores, labels, times).tpr_at_fpr(fpr, interpolate=interpolate)


# ------------------------------------------------------------------------------------------------ at a fixed threshold


def accuracy(
    scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float = 0.5, times: npt.ArrayLike | None = None
) -> float:
    """Share of files that are called what they are: (TP + TN) / n. Chance depends on the shares of the classes.

    Scripts that test ``score > 0.5`` are had with ``np.nextafter(0.5, 1)`` as the threshold.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    score, label = scored(scores, labels)
    return _mean((score >= threshold) == label, times)


def balanced_accuracy(
    scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float = 0.5, times: npt.ArrayLike | None = None
) -> float:
    """(TPR + TNR) / 2: the accuracy if both classes were equally frequent. Chance is 0.5; nan if a class is absent.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    found = true_positive_rate(scores, labels, threshold, times)
    return (found + 1 - false_positive_rate(scores, labels, threshold, times)) / 2


def true_positive_rate(
    scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float = 0.5, times: npt.ArrayLike | None = None
) -> float:
    """Share of forged files that are called forged: TP / (TP + FN); nan without forged files.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    score, label = scored(scores, labels)
    return _mean(score >= threshold, times, label)


def false_positive_rate(
    scores: npt.ArrayLike, labels: npt.ArrayLike, threshold: float = 0.5, times: npt.ArrayLike | None = None
) -> float:
    """Share of authentic files that are called forged: FP / (FP + TN); nan without authentic files.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    score, label = scored(scores, labels)
    return _mean(score >= threshold, times, ~label)


# ---------------------------------------------------------------------------------------------- calibration and costs


def expected_calibration_error(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    bins: int = 15,
    *,
    binning: Literal["width", "mass"] = "width",
    times: npt.ArrayLike | None = None,
    forged_prior: float | None = None,
) -> float:
    """How far probabilities are from frequencies.

    ECE = sum over bins b of n_b / n * | share of forged in b - mean score in b |  (Naeini et al. 2015; Guo et al.
    2017, eq. 3, here for the probability of forgery and not for that of the predicted class). Empty bins count nothing.

    Args:
        scores: (n,) probabilities in [0, 1].
        labels: (n,) bool or 0/1, 1 = forged.
        bins: at least 1.
        binning: ``"width"``: bins of equal width; one holds its left edge, the last 1.0 too. ``"mass"``: bins of
            equally many files (Nixon et al. 2019), equal scores in one bin.
        times: (n,) how often each file counts; by default once.
        forged_prior: share of forged files that the probabilities are meant for, in (0, 1): files count so that the
            forged ones make up this share. A probability that is right where half of all files are forged is wrong
            where a tenth are, so without it the figure tells of the test set as much as of the scores. By default files
            count as they come.

    Returns:
        0 (calibrated) to 1, or nan for no files, and with ``forged_prior`` for files of one class only.

    Raises:
        DataError: as :func:`roc_auc`, or a score lies outside [0, 1], or the prior outside (0, 1).
    """
    score, label = _probabilities(scores, labels)
    count = np.ones(len(score), np.int64) if times is None else _times(times, len(score))
    if forged_prior is not None and not 0 < forged_prior < 1:
        raise DataError(f"a prior lies between 0 and 1, not at {forged_prior}")
    total = int(count.sum())
    if not total:
        return math.nan
    if binning == "width":
        place = np.minimum((score * bins).astype(np.int64), bins - 1)
    else:
        distinct, of = np.unique(score, return_inverse=True)
        many = np.bincount(of, count, len(distinct))
        place = np.minimum((np.cumsum(many) - many) * bins / total, bins - 1).astype(np.int64)[of]
    weight = count / total
    if forged_prior is not None:
        forged = float(weight[label == 1].sum())
        if not 0 < forged < 1:
            return math.nan
        weight *= np.where(label == 1, forged_prior / forged, (1 - forged_prior) / (1 - forged))
    gap = np.bincount(place, weight * (label - score), bins)  # n_b / n * (share - mean)
    return float(np.abs(gap).sum())


def brier_score(scores: npt.ArrayLike, labels: npt.ArrayLike, times: npt.ArrayLike | None = None) -> float:
    """Mean of (probability - label)^2 (Brier 1950): 0 is perfect, always saying 0.5 is 0.25; nan for no files.

    Raises:
        DataError: as :func:`roc_auc`, or a score lies outside [0, 1].
    """
    score, label = _probabilities(scores, labels)
    return _mean((score - label) ** 2, times)


def log_likelihood_ratio(probabilities: npt.ArrayLike, forged_prior: float = 0.5) -> Floats:
    """Natural log of p(file | forged) / p(file | authentic), (n,), from probabilities of forgery.

    logit(probability) - logit(prior), the prior being the share of forged files that the probability was calibrated
    for (0.5 for ours). Probabilities 0 and 1 give infinity.

    Raises:
        DataError: a probability lies outside [0, 1], or the prior outside (0, 1).
    """
    p, _ = _probabilities(probabilities, np.zeros(np.shape(probabilities), bool))
    if not 0 < forged_prior < 1:
        raise DataError(f"a prior lies between 0 and 1, not at {forged_prior}")
    with np.errstate(divide="ignore"):
        return np.log(p) - np.log1p(-p) - math.log(forged_prior / (1 - forged_prior))


def cllr(llr: npt.ArrayLike, labels: npt.ArrayLike, times: npt.ArrayLike | None = None) -> float:
    """Cost of log-likelihood ratios, in bits: 0 is perfect, 1 is knowing nothing (all ratios 1), more is misleading.

    Cllr = (mean over forged of log2(1 + 1 / LR) + mean over authentic of log2(1 + LR)) / 2 (Brummer and du Preez 2006,
    "Application-independent evaluation of speaker detection"). Infinite if a file is called impossible and is there.

    Args:
        llr: (n,) natural log-likelihood ratios, positive = forged; see :func:`log_likelihood_ratio`.
        labels: (n,) bool or 0/1, 1 = forged.
        times: (n,) how often each file counts; by default once.

    Returns:
        0 or more, or nan if one of the classes is absent.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    ratio, label = scored(llr, labels)
    loss = np.logaddexp(0, np.where(label, -ratio, ratio)) / math.log(2)
    return (_mean(loss, times, label) + _mean(loss, times, ~label)) / 2


def minimum_cllr(scores: npt.ArrayLike, labels: npt.ArrayLike, times: npt.ArrayLike | None = None) -> float:
    """Cllr of these scores if they were calibrated as well as their order allows; the rest of Cllr is miscalibration.

    The best ratios that rise with the score are the slopes of the convex hull of the ROC curve, which is what pooling
    adjacent violators finds (Brummer and du Preez 2006, section 5.3; Fawcett and Niculescu-Mizil 2007).

    Returns:
        0 to 1, or nan if one of the classes is absent.

    Raises:
        DataError: as :func:`roc_auc`.
    """
    return roc_curve(scores, labels, times).minimum_cllr()


def minimum_dcf(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    forged_prior: float = FORGED_PRIOR,
    miss_cost: float = MISS_COST,
    alarm_cost: float = ALARM_COST,
    *,
    ties: Ties = "together",
    times: npt.ArrayLike | None = None,
) -> float:
    """The least expected cost of decisions at any threshold, over that of the better of never and always saying forged.

    DCF = (forged_prior miss_cost FNR + (1 - forged_prior) alarm_cost FPR) / min(forged_prior miss_cost,
    (1 - forged_prior) alarm_cost). Defaults and normalisation are those of ASVspoof 5, where a missed forgery is a
    "false acceptance" (C_fa = 10) and a false alarm a "miss" (C_miss = 1). Chance is 1.

    Args:
        scores: (n,) real numbers, higher = more likely forged.
        labels: (n,) bool or 0/1, 1 = forged.
        forged_prior: share of forged files where the detector is to be used, in (0, 1).
        miss_cost: of a forged file called authentic.
        alarm_cost: of an authentic file called forged.
        ties: ``"authentic first"`` is the figure of the ASVspoof script, where equal scores are separate thresholds.
        times: (n,) how often each file counts; by default once.

    Returns:
        0 to 1, or nan if one of the classes is absent.

    Raises:
        DataError: as :func:`roc_auc`, or a prior or cost is out of range.
    """
    return Ranking(scores, labels, ties).curve(times).minimum_dcf(forged_prior, miss_cost, alarm_cost)


def actual_dcf(
    llr: npt.ArrayLike,
    labels: npt.ArrayLike,
    forged_prior: float = FORGED_PRIOR,
    miss_cost: float = MISS_COST,
    alarm_cost: float = ALARM_COST,
    times: npt.ArrayLike | None = None,
) -> float:
    """The cost of :func:`minimum_dcf` at the threshold that the ratios themselves imply, so that bad calibration shows.

    A file is called forged if its ratio is larger than log((1 - forged_prior) alarm_cost / (forged_prior miss_cost)).

    Args:
        llr: (n,) natural log-likelihood ratios, positive = forged; see :func:`log_likelihood_ratio`.
        labels: (n,) bool or 0/1, 1 = forged.
        forged_prior: as of :func:`minimum_dcf`.
        miss_cost: as of :func:`minimum_dcf`.
        alarm_cost: as of :func:`minimum_dcf`.
        times: (n,) how often each file counts; by default once.

    Returns:
        0 or more, or nan if one of the classes is absent.

    Raises:
        DataError: as :func:`minimum_dcf`.
    """
    miss, alarm = _weights(forged_prior, miss_cost, alarm_cost)
    ratio, label = scored(llr, labels)
    called = ratio > math.log(alarm / miss)
    return (miss * _mean(~called, times, label) + alarm * _mean(called, times, ~label)) / min(miss, alarm)


# ----------------------------------------------------------------------------------------------------------- checking


def scored(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Labels]:
    """Scores (n,) float64 and labels (n,) bool, checked.

    Raises:
        DataError: a score is nan, a label is not 0 or 1, or the lengths differ.
    """
    score, label = np.asarray(scores, np.float64), np.asarray(labels)
    if score.ndim != 1 or score.shape != label.shape:
        raise DataError(f"scores of shape {score.shape} and labels of shape {label.shape}: give one label per score")
    if np.isnan(score).any():
        raise DataError(f"score number {int(np.isnan(score).argmax())} is nan; a file without a score has no rank")
    if label.dtype != np.bool_:
        if not ((label == 0) | (label == 1)).all():
            raise DataError("labels must be 0 (authentic) or 1 (forged)")
        label = label.astype(np.bool_)
    return score, label


def _probabilities(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Floats, Labels]:
    score, label = scored(scores, labels)
    if score.size and (score.min() < 0 or score.max() > 1):
        raise DataError(f"scores of {score.min():g} to {score.max():g} are not probabilities; give logits a sigmoid")
    return score, label


def _times(times: npt.ArrayLike, n: int) -> Ints:
    count = np.asarray(times)
    if count.shape != (n,):
        raise DataError(f"times of shape {count.shape} for {n} files: give one number each")
    return count.astype(np.int64)


def _rate(value: float) -> None:
    if not 0 <= value <= 1:
        raise DataError(f"a rate is a share from 0 to 1, not {value}")


def _weights(forged_prior: float, miss_cost: float, alarm_cost: float) -> tuple[float, float]:
    """What a miss and an alarm weigh, each at a rate of 1."""
    if not (0 < forged_prior < 1 and 0 < miss_cost < math.inf and 0 < alarm_cost < math.inf):
        raise DataError(
            f"prior {forged_prior} and costs {miss_cost}, {alarm_cost}: a prior is in (0, 1), a cost above 0"
        )
    return forged_prior * miss_cost, (1 - forged_prior) * alarm_cost


def _mean(values: npt.ArrayLike, times: npt.ArrayLike | None, among: Labels | None = None) -> float:
    """The mean of values, each counted so often, of those ``among``; nan if there are none."""
    value = np.asarray(values, np.float64)
    weight = np.ones(len(value), np.int64) if times is None else _times(times, len(value))
    if among is not None:
        value, weight = value[among], weight[among]
    used = weight > 0  # an infinite value that is not drawn counts nothing
    total = int(weight.sum())
    return float((value[used] * weight[used]).sum() / total) if total else math.nan


def _share(count: Ints) -> Floats:
    return count / count[-1] if count[-1] else np.full(len(count), math.nan)


def _bits(share: Floats, llr: Floats) -> float:
    """Sum of share x log2(1 + 1 / LR)."""
    return float((share * np.logaddexp(0, -llr)).sum()) / math.log(2)


def _hull(xs: list[int], ys: list[int]) -> Ints:
    """The corners of the upper convex hull of rising points, (h, 2), from first to last."""
    hull: list[tuple[int, int]] = []
    for x, y in zip(xs, ys, strict=True):
        while hull and hull[-1] == (x, y):
            hull.pop()
        while len(hull) > 1:
            (x1, y1), (x0, y0) = hull[-1], hull[-2]
            if (x1 - x0) * (y - y0) < (y1 - y0) * (x - x0):  # a turn to the right: a corner
                break
            hull.pop()
        hull.append((x, y))
    return np.array(hull, np.int64)
