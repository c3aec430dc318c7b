"""Figures of masks and heat maps: by hand, and against scikit-learn on random ones."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage
import sklearn.metrics

from seamline.errors import DataError
from seamline.metrics.image import (
    Confusion,
    PixelTable,
    border_ring,
    confusion,
    histogram_curve,
    imdlbenco_f1,
    imdlbenco_iou,
    inverted,
    loupe_released,
    mean_figure,
    photo_figures,
    photo_pixels,
    pixel_figure,
    pixel_histogram,
    pooled,
)

TOLERANCE = 1e-12


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
