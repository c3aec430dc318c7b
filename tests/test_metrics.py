"""Hand cases, and equality with scikit-learn on random ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics

from seamline.errors import DataError
from seamline.metrics.image import (
    Confusion,
    confusion,
    expected_calibration_error,
    false_positive_rate,
    loupe_released,
    mean_pixel_f1,
    mean_pixel_iou,
    pixel_f1,
    pixel_iou,
    pooled,
    roc_auc,
)

TOLERANCE = 1e-12


@pytest.mark.parametrize("decimals", [0, 1, 2, 16])  # few decimals: many ties
@pytest.mark.parametrize("n", [2, 3, 50, 1001])
def test_auc_equals_scikit_learn(rng: np.random.Generator, n: int, decimals: int) -> None:
    for _ in range(20):
        labels = np.append(rng.integers(0, 2, n - 2), [0, 1])
        scores = (rng.normal(size=n) + labels).round(decimals)
        assert roc_auc(scores, labels) == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores), abs=TOLERANCE)


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
def test_auc_of_one_class_is_nan(labels: list[int]) -> None:
    assert math.isnan(roc_auc(np.linspace(0, 1, len(labels)), labels))


@pytest.mark.parametrize(
    ("scores", "labels", "match"),
    [
        ([0.1, np.nan], [0, 1], "number 1 is nan"),
        ([0.1, 0.2], [0, 2], "0 \\(authentic\\) or 1"),
        ([0.1, 0.2], [0], "one label per score"),
        ([[0.1, 0.2]], [[0, 1]], "one label per score"),
    ],
)
def test_scores_are_checked(scores: list[float], labels: list[int], match: str) -> None:
    for metric in (roc_auc, expected_calibration_error, lambda s, y: false_positive_rate(s, y, 0.5)):
        with pytest.raises(DataError, match=match):
            metric(scores, labels)


def test_false_positive_rate() -> None:
    scores, labels = [0.2, 0.5, 0.7, 0.9], [0, 0, 0, 1]
    assert false_positive_rate(scores, labels, 0.5) == 2 / 3  # 0.5 itself is called forged
    assert false_positive_rate(scores, labels, 0.95) == 0
    assert math.isnan(false_positive_rate([0.3], [1], 0.5))


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_equals_the_definition_bin_by_bin(rng: np.random.Generator, bins: int) -> None:
    for _ in range(10):
        scores = rng.uniform(size=200)
        labels = rng.integers(0, 2, 200)
        share, mean = sklearn.calibration.calibration_curve(labels, scores, n_bins=bins)
        counts = np.histogram(scores, bins, (0, 1))[0]
        theirs = np.average(np.abs(share - mean), weights=counts[counts > 0])
        assert expected_calibration_error(scores, labels, bins) == pytest.approx(theirs, abs=TOLERANCE)


def test_calibration_error_by_hand() -> None:
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0
    assert expected_calibration_error([0.0, 1.0], [1, 0]) == 1
    assert expected_calibration_error([0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1]) == 0
    assert expected_calibration_error([0.2, 0.7], [0, 0], bins=2) == pytest.approx(0.45)
    assert math.isnan(expected_calibration_error([], []))
    with pytest.raises(DataError, match="not probabilities"):
        expected_calibration_error([1.2], [1])


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_pixel_figures_equal_scikit_learn(rng: np.random.Generator, share: float) -> None:
    for _ in range(20):
        prediction, truth = rng.random((2, 13, 17)) < share
        truth[0, 0] = True
        count = confusion(prediction, truth)
        y, x = truth.ravel(), prediction.ravel()
        assert count == tuple(sklearn.metrics.confusion_matrix(y, x)[[1, 0, 1, 0], [1, 1, 0, 0]])
        assert pixel_f1(prediction, truth) == pytest.approx(sklearn.metrics.f1_score(y, x), abs=TOLERANCE)
        assert pixel_iou(prediction, truth) == pytest.approx(sklearn.metrics.jaccard_score(y, x), abs=TOLERANCE)
        theirs = sklearn.metrics.jaccard_score(y, x, pos_label=False)
        assert count.iou_authentic == pytest.approx(theirs, abs=TOLERANCE)
        assert count.iou == pytest.approx(count.f1 / (2 - count.f1), abs=TOLERANCE)


def test_empty_masks() -> None:
    nothing, everything = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    for metric in (pixel_f1, pixel_iou):
        assert math.isnan(metric(nothing, nothing))
        assert metric(everything, nothing) == 0
        assert metric(nothing, everything) == 0
        assert metric(everything, everything) == 1
    assert math.isnan(confusion(everything, everything).iou_authentic)


def test_mean_over_photos() -> None:
    half = np.array([[True, False]])
    none, both = np.zeros((1, 2), bool), np.ones((1, 2), bool)
    counts = [confusion(half, both), confusion(both, both), confusion(half, none), confusion(none, none)]
    assert mean_pixel_f1(counts) == pytest.approx((2 / 3 + 1) / 2)  # forged photos only
    assert mean_pixel_f1(counts, empty="score") == pytest.approx((2 / 3 + 1 + 0 + 1) / 4)
    assert mean_pixel_iou(counts) == pytest.approx((1 / 2 + 1) / 2)
    assert mean_pixel_iou(counts, empty="score") == pytest.approx((1 / 2 + 1 + 0 + 1) / 4)
    assert math.isnan(mean_pixel_f1(counts[2:]))
    assert math.isnan(mean_pixel_iou([], empty="score"))


def test_pooling_weighs_pixels_not_photos() -> None:
    assert pooled([]) == Confusion(0, 0, 0, 0)
    assert pooled([Confusion(1, 2, 3, 4), Confusion(10, 20, 30, 40)]) == Confusion(11, 22, 33, 44)
    assert all(type(n) is int for n in pooled([Confusion(1, 2, 3, 4)]))


def test_masks_are_checked() -> None:
    mask = np.zeros((2, 3), bool)
    with pytest.raises(DataError, match="threshold them first"):
        confusion(mask.astype(np.float32), mask)
    with pytest.raises(DataError, match=r"\(2, 3\) and \(3, 2\)"):
        confusion(mask, mask.T)


def test_loupe_released_skips_authentic_photos() -> None:
    truth, found = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    empty = np.zeros((1, 4), bool)
    scores = loupe_released([0.9, 0.1], [1, 0], [found, ~empty], [truth, empty])
    assert scores.auc == 1
    assert scores.f1 == 0.5
    assert scores.iou == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert scores.overall == pytest.approx((1 + 0.5 + 1 / 3) / 3)
    with pytest.raises(DataError, match="not one each"):
        loupe_released([0.9, 0.1], [1, 0], [found], [truth])
