"""Figures of scores against labels: by hand, and against the definitions in plain words."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.calibration
import sklearn.isotonic
import sklearn.metrics

from seamline.errors import DataError
from seamline.metrics.detection import (
    Ranking,
    accuracy,
    actual_dcf,
    average_precision,
    balanced_accuracy,
    brier_score,
    cllr,
    equal_error_rate,
    expected_calibration_error,
    false_positive_rate,
    fpr_at_tpr,
    log_likelihood_ratio,
    minimum_cllr,
    minimum_dcf,
    roc_auc,
    roc_curve,
    tpr_at_fpr,
    true_positive_rate,
)

TOLERANCE = 1e-12
Floats = npt.NDArray[np.float64]
FIGURES: dict[str, Callable[..., float]] = {
    "auc": roc_auc,
    "eer": equal_error_rate,
    "eer, deepfakebench": lambda s, y, **k: equal_error_rate(s, y, "deepfakebench", **k),
    "ap": average_precision,
    "fpr at tpr": lambda s, y, **k: fpr_at_tpr(s, y, 0.8, **k),
    "tpr at fpr": lambda s, y, **k: tpr_at_fpr(s, y, 0.2, **k),
    "fpr at tpr, interpolated": lambda s, y, **k: fpr_at_tpr(s, y, 0.8, interpolate=True, **k),
    "tpr at fpr, interpolated": lambda s, y, **k: tpr_at_fpr(s, y, 0.2, interpolate=True, **k),
    "accuracy": accuracy,
    "balanced accuracy": balanced_accuracy,
    "tpr": true_positive_rate,
    "fpr": false_positive_rate,
    "ece": expected_calibration_error,
    "ece, mass": lambda s, y, **k: expected_calibration_error(s, y, binning="mass", **k),
    "brier": brier_score,
    "cllr": cllr,
    "min cllr": minimum_cllr,
    "min dcf": minimum_dcf,
    "act dcf": actual_dcf,
}


def cases(rng: np.random.Generator, many: int = 20) -> list[tuple[Floats, npt.NDArray[np.bool_]]]:
    """Scores in [0, 1] with and without ties, both classes there."""
    found = []
    for i in range(many):
        n = int(rng.integers(2, 60))
        labels = np.append(rng.random(n - 2) < 0.4, [False, True])
        scores = 1 / (1 + np.exp(-rng.normal(size=n) - labels))
        found.append((scores.round(i % 3 + 1) if i % 4 else scores, labels))
    return found


@pytest.mark.parametrize(
    ("scores", "labels", "auc"),
    [
        ([0.1, 0.9], [0, 1], 1.0),
        ([0.9, 0.1], [0, 1], 0.0),
        ([0.5, 0.5], [0, 1], 0.5),
        ([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1], 0.875),
        ([-np.inf, 0.0, np.inf], [0, 0, 1], 1.0),
    ],
)
def test_auc_by_hand(scores: list[float], labels: list[int], auc: float) -> None:
    assert roc_auc(scores, labels) == auc
    assert roc_auc(scores, np.array(labels, bool)) == auc


@pytest.mark.parametrize("labels", [[], [0], [1], [0, 0], [1, 1, 1]])
def test_what_needs_two_classes_is_nan_with_one(labels: list[int]) -> None:
    scores = np.linspace(0.1, 0.9, len(labels))
    one_is_enough = {"ap", "accuracy", "tpr", "fpr", "ece", "ece, mass", "brier"}
    for name in FIGURES.keys() - one_is_enough:
        assert math.isnan(FIGURES[name](scores, labels)), name
    assert math.isnan(average_precision(scores, labels)) == (1 not in labels)
    assert math.isnan(true_positive_rate(scores, labels)) == (1 not in labels)
    assert math.isnan(false_positive_rate(scores, labels)) == (0 not in labels)
    for name in ("accuracy", "ece", "ece, mass", "brier"):
        assert math.isnan(FIGURES[name](scores, labels)) == (not labels), name


def test_ece_at_a_prior_of_its_own_does_not_depend_on_how_many_files_are_forged(rng: np.random.Generator) -> None:
    scores = rng.random(40_000)
    labels = rng.random(40_000) < scores  # calibrated, half of them forged
    rare = ~labels | (rng.random(40_000) < 0.1)
    assert expected_calibration_error(scores[rare], labels[rare]) > 0.2
    assert expected_calibration_error(scores[rare], labels[rare], forged_prior=0.5) < 0.03
    four, truth = [0.1, 0.1, 0.1, 0.6], [1, 1, 1, 0]
    assert expected_calibration_error(four, truth, forged_prior=0.5) == pytest.approx(0.5 * 0.9 + 0.5 * 0.6)
    assert expected_calibration_error(four, truth, forged_prior=0.75) == expected_calibration_error(four, truth)
    assert math.isnan(expected_calibration_error([0.1], [1], forged_prior=0.5))
    with pytest.raises(DataError, match="prior"):
        expected_calibration_error(four, truth, forged_prior=1.0)


@pytest.mark.parametrize(
    ("scores", "labels", "match"),
    [
        ([0.1, np.nan], [0, 1], "number 1 is nan"),
        ([0.1, 0.2], [0, 2], "0 \\(authentic\\) or 1"),
        ([0.1, 0.2], [0, np.nan], "0 \\(authentic\\) or 1"),
        ([0.1, 0.2], [0], "one label per score"),
        ([[0.1, 0.2]], [[0, 1]], "one label per score"),
    ],
)
def test_scores_are_checked(scores: list[float], labels: list[int], match: str) -> None:
    for metric in FIGURES.values():
        with pytest.raises(DataError, match=match):
            metric(scores, labels)


def test_arguments_are_checked() -> None:
    both = [0.2, 0.8], [0, 1]
    for bad in (
        lambda: fpr_at_tpr(*both, 1.5),
        lambda: tpr_at_fpr(*both, -0.1),
        lambda: minimum_dcf(*both, forged_prior=0),
        lambda: actual_dcf(*both, miss_cost=-1),
        lambda: log_likelihood_ratio([0.5], 1.0),
        lambda: log_likelihood_ratio([1.5]),
        lambda: brier_score([2.0], [1]),
        lambda: roc_auc(*both, times=[1]),
    ):
        with pytest.raises(DataError):
            bad()


@pytest.mark.parametrize("name", FIGURES)
def test_times_are_repetitions_and_order_does_not_matter(rng: np.random.Generator, name: str) -> None:
    figure = FIGURES[name]
    for scores, labels in cases(rng, 10):
        times = rng.integers(0, 4, len(scores))
        repeated = figure(np.repeat(scores, times), np.repeat(labels, times))
        assert figure(scores, labels, times=times) == pytest.approx(repeated, abs=TOLERANCE, nan_ok=True)
        mixed = rng.permutation(len(scores))
        assert figure(scores[mixed], labels[mixed]) == pytest.approx(figure(scores, labels), abs=TOLERANCE)


def test_a_ranking_gives_the_curve_of_any_resample(rng: np.random.Generator) -> None:
    for scores, labels in cases(rng, 5):
        ranking, times = Ranking(scores, labels), rng.integers(0, 3, len(scores))
        assert ranking.curve(times).auc() == pytest.approx(roc_auc(scores, labels, times), nan_ok=True)
        assert ranking.curve().auc() == roc_auc(scores, labels)


def test_auc_is_exact_for_more_pixels_than_floats_can_count() -> None:
    many = np.array([3, 5], np.int64) * 10**10
    assert roc_auc([0.1, 0.9], [0, 1], many) == 1.0
    assert roc_auc([0.9, 0.1], [0, 1], many) == 0.0
    assert roc_auc([0.5, 0.5], [0, 1], many) == 0.5


@pytest.mark.parametrize(
    ("scores", "labels", "eer"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 1.0),
        ([0.5, 0.5, 0.5, 0.5], [0, 0, 1, 1], 0.5),  # a tie is a straight line
        ([0.1, 0.6, 0.4, 0.9], [0, 0, 1, 1], 0.5),
        ([0.1, 0.2, 0.5, 0.5, 0.9, 0.8], [0, 0, 0, 1, 1, 1], 1 / 6),  # from (0, 1/3) to (1/3, 0)
        ([0.1, 0.2, 0.3, 0.6, 0.5], [0, 0, 0, 0, 1], 0.25),
    ],
)
def test_equal_error_rate(scores: list[float], labels: list[int], eer: float) -> None:
    assert equal_error_rate(scores, labels) == pytest.approx(eer, abs=TOLERANCE)


@pytest.mark.parametrize("decimals", [0, 1, 16])
def test_the_equal_error_rate_is_on_the_curve_of_scikit_learn(rng: np.random.Generator, decimals: int) -> None:
    for n in (2, 3, 50, 501):
        labels = np.append(rng.integers(0, 2, n - 2), [0, 1])
        scores = (rng.normal(size=n) + labels).round(decimals)
        alarm, hit, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
        grid = np.linspace(0, 1, 200_001)
        miss = 1 - np.interp(grid, alarm, hit)
        near = np.abs(grid - miss)
        eer = equal_error_rate(scores, labels)
        # the ROC curve rises in steps where nothing ties, so alarms found by walking along it hit the corner or nothing
        assert near.min() > 1e-3 or eer == pytest.approx(grid[near.argmin()], abs=2e-5)
        assert 0 <= eer <= 1


def test_equal_error_rate_by_each_rule() -> None:
    scores, labels = [0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 1]  # FPR 0 0 .5 .5 1 1, FNR 1 2/3 2/3 1/3 1/3 0
    assert equal_error_rate(scores, labels) == pytest.approx(0.5)  # on the upright between FNR 2/3 and 1/3
    assert equal_error_rate(scores, labels, "deepfakebench") == 0.5
    assert equal_error_rate(scores, labels, "asvspoof") == pytest.approx((0.5 + 2 / 3) / 2)
    ties = [0.5] * 4
    assert equal_error_rate(ties, [0, 0, 1, 1]) == 0.5
    assert equal_error_rate(ties, [0, 0, 1, 1], "deepfakebench") == 0  # the point of no alarms, |1 - 0|, is first
    assert equal_error_rate(ties, [1, 1, 0, 0], "asvspoof") == 1  # authentic first: all of them before any forged one


def plain_deepfakebench_eer(scores: Floats, labels: npt.NDArray[np.bool_]) -> float:
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores)
    return float(fpr[np.nanargmin(np.abs(1 - tpr - fpr))])


def plain_asvspoof(scores: Floats, labels: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """EER and minDCF, one item after another, bona fide scores being negated ones."""
    items = sorted(zip(-scores, labels, strict=True), key=lambda item: (item[0], item[1]))
    reject = [(0.0, 1.0)]
    for k in range(1, len(items) + 1):
        low = items[:k]
        frr = sum(not forged for _, forged in low) / int((~labels).sum())
        far = sum(forged for _, forged in items[k:]) / int(labels.sum())
        reject.append((frr, far))
    nearest = min(reject, key=lambda point: abs(point[0] - point[1]))
    cost = min(1 * 0.95 * frr + 10 * 0.05 * far for frr, far in reject) / min(0.95, 0.5)
    return (nearest[0] + nearest[1]) / 2, cost


def test_the_rules_of_the_official_scripts(rng: np.random.Generator) -> None:
    for scores, labels in cases(rng, 60):
        theirs = plain_deepfakebench_eer(scores, labels)
        assert equal_error_rate(scores, labels, "deepfakebench") == pytest.approx(theirs, abs=TOLERANCE)
        eer, dcf = plain_asvspoof(scores, labels)
        assert equal_error_rate(scores, labels, "asvspoof") == pytest.approx(eer, abs=TOLERANCE)
        assert minimum_dcf(scores, labels, ties="authentic first") == pytest.approx(dcf, abs=TOLERANCE)


def test_rates_at_rates_by_hand() -> None:
    scores, labels = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0, 1, 0, 1, 0]
    assert fpr_at_tpr(scores, labels, 1 / 3) == 0
    assert fpr_at_tpr(scores, labels, 0.5) == pytest.approx(1 / 3)
    assert fpr_at_tpr(scores, labels, 1.0) == pytest.approx(2 / 3)
    assert fpr_at_tpr(scores, labels, 0.0) == 0
    assert tpr_at_fpr(scores, labels, 0.0) == pytest.approx(1 / 3)
    assert tpr_at_fpr(scores, labels, 0.5) == pytest.approx(2 / 3)
    assert tpr_at_fpr(scores, labels, 1.0) == 1
    assert tpr_at_fpr([0.5, 0.5], [0, 1], 0.05) == 0  # no threshold has so few alarms and finds anything
    assert tpr_at_fpr([0.5, 0.5], [0, 1], 0.05, interpolate=True) == pytest.approx(0.05)
    assert fpr_at_tpr([0.5, 0.5], [0, 1], 0.95, interpolate=True) == pytest.approx(0.95)
    tenths = np.arange(10), np.append(np.zeros(5), np.ones(5))
    assert fpr_at_tpr(*tenths, 0.6) == 0  # 3 / 5 reaches 0.6 although floats may differ


def test_rates_at_rates_lie_on_the_curve(rng: np.random.Generator) -> None:
    for scores, labels in cases(rng):
        fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
        for share in (0.05, 0.3, 0.95):
            assert tpr_at_fpr(scores, labels, share) == max(tpr[fpr <= share])
            assert fpr_at_tpr(scores, labels, share) == min(fpr[tpr >= share])
            theirs = np.interp(share, fpr, tpr)
            assert tpr_at_fpr(scores, labels, share, interpolate=True) == pytest.approx(theirs, abs=TOLERANCE)


def test_curves_are_those_of_scikit_learn(rng: np.random.Generator) -> None:
    for scores, labels in cases(rng):
        curve = roc_curve(scores, labels)
        fpr, tpr, thresholds = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
        np.testing.assert_allclose([curve.fpr, curve.tpr], [fpr, tpr], atol=TOLERANCE)
        assert (curve.threshold == thresholds).all()
        precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
        np.testing.assert_allclose([curve.precision, curve.tpr], [precision[::-1], recall[::-1]], atol=TOLERANCE)
        assert (curve.counts.sum(1) == len(labels)).all()
        alarm, miss = curve.det()
        assert alarm[0] == -np.inf
        assert miss[0] == np.inf
        assert (alarm[1:] >= alarm[:-1]).all()
        assert (miss[1:] <= miss[:-1]).all()


def test_det_is_on_the_scale_of_normal_deviates() -> None:
    alarm, miss = roc_curve([0.9, 0.5, 0.1], [1, 1, 0]).det()
    assert miss.tolist() == [np.inf, 0, -np.inf, -np.inf]  # half of the forged are missed: the median
    assert alarm.tolist() == [-np.inf, -np.inf, -np.inf, np.inf]


def test_accuracy_by_hand() -> None:
    scores, labels = [0.2, 0.5, 0.7, 0.9], [0, 0, 0, 1]
    assert accuracy(scores, labels) == 0.5  # 0.5 itself is called forged
    assert accuracy(scores, labels, np.nextafter(0.5, 1)) == 0.75
    assert false_positive_rate(scores, labels) == 2 / 3
    assert false_positive_rate(scores, labels, 0.95) == 0
    assert true_positive_rate(scores, labels) == 1
    assert balanced_accuracy(scores, labels) == pytest.approx((1 + 1 / 3) / 2)


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize(("binning", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_calibration_error_is_the_gap_of_the_calibration_curve(
    rng: np.random.Generator, bins: int, binning: str, strategy: str
) -> None:
    for _ in range(10):
        scores, labels = rng.uniform(size=30 * bins), rng.integers(0, 2, 30 * bins)
        share, mean = sklearn.calibration.calibration_curve(labels, scores, n_bins=bins, strategy=strategy)
        counts = np.histogram(scores, bins, (0, 1))[0] if binning == "width" else np.full(bins, 30)
        theirs = np.average(np.abs(share - mean), weights=counts[counts > 0])
        ours = expected_calibration_error(scores, labels, bins, binning=binning)  # type: ignore[arg-type]
        assert ours == pytest.approx(theirs, abs=TOLERANCE)


def test_calibration_error_by_hand() -> None:
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    assert expected_calibration_error([0.0, 1.0], [1, 0]) == 1
    assert expected_calibration_error([0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1]) == 0
    assert expected_calibration_error([0.2, 0.7], [0, 0], bins=2) == pytest.approx(0.45)
    assert expected_calibration_error([0.3, 0.3, 0.3, 0.9], [0, 1, 0, 1], 2, binning="mass") == pytest.approx(0.05)
    with pytest.raises(DataError, match="not probabilities"):
        expected_calibration_error([1.2], [1])


def test_costs_of_ratios_by_hand() -> None:
    assert cllr([0.0, 0.0], [0, 1]) == 1
    assert cllr([-np.inf, np.inf], [0, 1]) == 0
    assert cllr([np.inf, -np.inf], [0, 1]) == np.inf
    assert cllr([math.log(3), -math.log(3)], [1, 0]) == pytest.approx(math.log2(4 / 3))
    assert actual_dcf([0.0, 0.0], [0, 1]) == 1
    assert actual_dcf([-9.0, 9.0], [0, 1]) == 0
    assert actual_dcf([9.0, -9.0], [0, 1]) == pytest.approx((0.95 + 0.5) / 0.5)  # worse than not listening
    assert actual_dcf([0.0, math.log(1.9) + 1e-9], [0, 1]) == 0
    assert log_likelihood_ratio([0.5, 0.75, 0.0, 1.0]).tolist() == [0, pytest.approx(math.log(3)), -np.inf, np.inf]
    assert log_likelihood_ratio([0.2], 0.2)[0] == pytest.approx(0)


def test_minimum_cllr_is_that_of_pooled_adjacent_violators(rng: np.random.Generator) -> None:
    for scores, labels in cases(rng):
        fitted = sklearn.isotonic.IsotonicRegression(y_min=0, y_max=1).fit_transform(scores, labels)
        ratios = log_likelihood_ratio(fitted, float(labels.mean()))
        assert minimum_cllr(scores, labels) == pytest.approx(cllr(ratios, labels), abs=1e-9)
        assert minimum_cllr(scores, labels) <= cllr(log_likelihood_ratio(scores), labels) + TOLERANCE
        assert minimum_dcf(scores, labels) <= actual_dcf(log_likelihood_ratio(scores), labels) + TOLERANCE
