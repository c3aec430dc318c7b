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


def maps(rng: np.random.Generator, kind: str = "float32") -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
    """A heat map of scores on a grid of 1 / 64 or of 8 bits, and a truth."""
    shape = tuple(rng.integers(3, 30, 2))
    truth = rng.random(shape) < rng.choice([0.1, 0.5])
    truth[0, 0], truth[-1, -1] = True, False
    scores = np.clip(rng.normal(0.4 + 0.2 * truth, 0.3), 0, 1)
    if kind == "uint8":
        return (scores * 255).round().astype(np.uint8), truth
    return (scores * 64).round().astype(kind) / np.dtype(kind).type(64), truth


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_figures_equal_scikit_learn(rng: np.random.Generator, share: float) -> None:
    for _ in range(20):
        prediction, truth = rng.random((2, 13, 17)) < share
        truth[0, 0] = True
        count = confusion(prediction, truth)
        y, x = truth.ravel(), prediction.ravel()
        assert count == tuple(sklearn.metrics.confusion_matrix(y, x)[[1, 0, 1, 0], [1, 1, 0, 0]])
        theirs = {
            "f1": sklearn.metrics.f1_score(y, x),
            "iou": sklearn.metrics.jaccard_score(y, x),
            "iou_authentic": sklearn.metrics.jaccard_score(y, x, pos_label=False),
            "miou": sklearn.metrics.jaccard_score(y, x, average="macro"),
            "mcc": sklearn.metrics.matthews_corrcoef(y, x),
            "precision": sklearn.metrics.precision_score(y, x),
            "recall": sklearn.metrics.recall_score(y, x),
        }
        for name, value in theirs.items():
            assert float(pixel_figure(count, name)) == pytest.approx(value, abs=TOLERANCE), name  # type: ignore[arg-type]
        assert count.iou == pytest.approx(count.f1 / (2 - count.f1), abs=TOLERANCE)


def test_what_is_not_defined_is_nan() -> None:
    none, found, missed, perfect, everything = (0, 0, 0, 4), (0, 4, 0, 0), (0, 0, 2, 2), (2, 0, 0, 2), (4, 0, 0, 0)
    table = np.array([none, found, missed, perfect, everything])
    expected = {
        "f1": [math.nan, 0, 0, 1, 1],
        "iou": [math.nan, 0, 0, 1, 1],
        "iou_authentic": [1, 0, 0.5, 1, math.nan],
        "miou": [math.nan, 0, 0.25, 1, math.nan],
        "mcc": [math.nan, math.nan, 0, 1, math.nan],
        "precision": [math.nan, 0, math.nan, 1, 1],
        "recall": [math.nan, math.nan, 0, 1, 1],
    }
    for name, values in expected.items():
        np.testing.assert_equal(pixel_figure(table, name), values, name)  # type: ignore[arg-type]
    assert Confusion(*none).f1 != Confusion(*none).f1
    assert Confusion(*everything).iou_authentic != 0


def test_empty_masks_count_as_asked() -> None:
    none, found, missed, perfect = (0, 0, 0, 4), (0, 1, 0, 3), (0, 0, 2, 2), (2, 0, 0, 2)
    table = np.array([none, found, missed, perfect])
    np.testing.assert_equal(photo_figures(table, "f1", "skip"), [math.nan, math.nan, 0, 1])
    np.testing.assert_equal(photo_figures(table, "f1", "score"), [1, 0, 0, 1])
    np.testing.assert_equal(photo_figures(table, "f1", "zero"), [0, 0, 0, 1])
    np.testing.assert_equal(photo_figures(table, "precision", "skip"), [math.nan, math.nan, 0, 1])
    np.testing.assert_equal(photo_figures(table, "mcc", "score"), [1, 0, 0, 1])
    truth = [np.zeros(4), np.zeros(4), np.array([1, 1, 0, 0]), np.array([1, 1, 0, 0])]
    answer = [np.zeros(4), np.array([1, 0, 0, 0]), np.zeros(4), np.array([1, 1, 0, 0])]
    for empty, division in (("zero", 0), ("score", 1)):
        theirs = [sklearn.metrics.f1_score(t, a, zero_division=division) for t, a in zip(truth, answer, strict=True)]
        np.testing.assert_equal(photo_figures(table, "f1", empty), theirs)  # type: ignore[arg-type]


def test_mean_over_photos() -> None:
    half = np.array([[True, False]])
    none, both = np.zeros((1, 2), bool), np.ones((1, 2), bool)
    counts = [confusion(half, both), confusion(both, both), confusion(half, none), confusion(none, none)]
    assert mean_figure(counts) == pytest.approx((2 / 3 + 1) / 2)  # forged photos only
    assert mean_figure(counts, empty="score") == pytest.approx((2 / 3 + 1 + 0 + 1) / 4)
    assert mean_figure(counts, "iou") == pytest.approx((1 / 2 + 1) / 2)
    assert mean_figure(counts, "iou", empty="zero") == pytest.approx((1 / 2 + 1) / 4)
    assert mean_figure(counts, times=[3, 1, 0, 5]) == pytest.approx((3 * 2 / 3 + 1) / 4)
    assert math.isnan(mean_figure(counts[2:]))
    assert math.isnan(mean_figure(counts, times=[0, 0, 1, 1]))
    assert math.isnan(mean_figure([], empty="score"))


def test_an_inverted_map_is_the_map_of_the_complement(rng: np.random.Generator) -> None:
    for _ in range(10):
        prediction, truth = rng.random((2, 5, 7)) < 0.4
        count, other = confusion(prediction, truth), confusion(~prediction, truth)
        assert tuple(inverted(count)) == other
        assert mean_figure([count], double=True) == max(count.f1, other.f1)


def test_pooling_weighs_pixels_not_photos() -> None:
    assert pooled([]) == Confusion(0, 0, 0, 0)
    assert pooled([Confusion(1, 2, 3, 4), Confusion(10, 20, 30, 40)]) == Confusion(11, 22, 33, 44)
    assert pooled([Confusion(1, 2, 3, 4), Confusion(10, 20, 30, 40)], [2, 0]) == Confusion(2, 4, 6, 8)
    assert all(type(n) is int for n in pooled([Confusion(1, 2, 3, 4)]))


def test_arguments_are_checked() -> None:
    mask, scores = np.zeros((2, 3), bool), np.zeros((2, 3), np.float32)
    with pytest.raises(DataError, match="threshold them first"):
        confusion(scores, mask)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="threshold them first"):
        pixel_histogram(scores, scores)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"\(2, 3\) and \(3, 2\)"):
        confusion(mask, mask.T)
    with pytest.raises(DataError, match="ignored pixels"):
        pixel_histogram(scores, mask, mask.T)
    for wrong in (-0.1, 1.1, math.nan):
        for bins in (1024, None):
            with pytest.raises(DataError, match=r"in \[0, 1\]"):
                photo_pixels(np.array([[wrong]], np.float32), np.ones((1, 1), bool), bins=bins)
    for bins in (0, 1, 1000, 2**15):
        with pytest.raises(DataError, match="power of two"):
            pixel_histogram(scores, mask, bins=bins)
    with pytest.raises(DataError, match="int64"):
        pixel_histogram(np.zeros((2, 3), np.int64), mask)
    with pytest.raises(DataError, match="no figure"):
        pixel_figure([1, 2, 3, 4], "dice")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no treatment"):
        photo_figures([Confusion(1, 2, 3, 4)], "f1", "one")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="odd"):
        border_ring(mask, 4)
    with pytest.raises(DataError, match="boolean"):
        border_ring(scores)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "uint8", "bool"])
@pytest.mark.parametrize("with_ring", [False, True])
def test_histograms_give_what_pixels_give(rng: np.random.Generator, kind: str, with_ring: bool) -> None:
    """Scores lie on a grid that the bins tell apart, so that nothing may differ."""
    for _ in range(10):
        scores, truth = maps(rng, "float32" if kind == "bool" else kind)
        scores = scores > 0.5 if kind == "bool" else scores  # type: ignore[operator]
        ignore = rng.random(truth.shape) < 0.3 if with_ring else None
        if ignore is not None:
            ignore[0, 0] = ignore[-1, -1] = False
        kept = np.ones(truth.shape, bool) if ignore is None else ~ignore
        y, unit = truth[kept], (scores / 255 if kind == "uint8" else scores)[kept].astype(float)
        fast, exact = photo_pixels(scores, truth, ignore), photo_pixels(scores, truth, ignore, bins=None)
        assert fast.auc == exact.auc == pytest.approx(sklearn.metrics.roc_auc_score(y, unit), abs=TOLERANCE)
        assert fast.ap == pytest.approx(sklearn.metrics.average_precision_score(y, unit), abs=TOLERANCE)
        assert fast.counts == exact.counts == confusion(unit >= 0.5, y)
        precision, recall, _ = sklearn.metrics.precision_recall_curve(y, unit)
        best = max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
        assert fast.best.f1 == exact.best.f1 == pytest.approx(best, abs=TOLERANCE)
        assert confusion(unit >= exact.best_threshold, y) == exact.best
        assert confusion(unit >= fast.best_threshold, y) == fast.best
        precision, recall, _ = sklearn.metrics.precision_recall_curve(y, 1 - unit)
        best = max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
        assert fast.best_inverted.f1 == exact.best_inverted.f1 == pytest.approx(best, abs=TOLERANCE)
        for threshold, strict in ((0.5, True), (0.3, False), (0.3, True), (0.0, False), (1.0, False)):
            counts = photo_pixels(scores, truth, ignore, threshold=threshold, strict=strict).counts
            assert counts == confusion(unit > threshold if strict else unit >= threshold, y)


def test_finer_scores_than_bins_are_off_by_no_more_than_is_said(rng: np.random.Generator) -> None:
    for bins in (16, 256, 1024):
        truth = rng.random((50, 60)) < 0.2
        scores = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1)
        fast, exact = photo_pixels(scores, truth, bins=bins), photo_pixels(scores, truth, bins=None)
        curve = histogram_curve(pixel_histogram(scores, truth, bins=bins))
        assert 0 < abs(fast.auc - exact.auc) <= (np.diff(curve.fpr) * np.diff(curve.tpr)).sum() / 2
        assert fast.best.f1 <= exact.best.f1
        assert fast.counts == exact.counts


def test_photos_of_one_class() -> None:
    scores = np.array([[0.1, 0.9]], np.float32)
    nothing = photo_pixels(scores, np.zeros((1, 2), bool))
    assert math.isnan(nothing.auc)
    assert math.isnan(nothing.ap)
    assert nothing.counts == (0, 1, 0, 1)
    assert nothing.best == (0, 1, 0, 1)  # the best F1 is 0; nan, where nothing is found, is not better
    everything = photo_pixels(scores, np.ones((1, 2), bool))
    assert math.isnan(everything.auc)
    assert everything.best == (2, 0, 0, 0)
    assert photo_pixels(np.zeros((0, 0)), np.zeros((0, 0), bool)).counts == (0, 0, 0, 0)


def test_the_ring_is_that_of_minimum_and_maximum_filters(rng: np.random.Generator) -> None:
    for shape in ((40, 50), (9, 70), (200, 3)):
        truth = np.zeros(shape, bool)
        truth[: shape[0] // 2, shape[1] // 3 :] = True
        truth ^= scipy.ndimage.binary_dilation(rng.random(shape) < 0.003, iterations=4)
        inner, outer = scipy.ndimage.minimum_filter(truth, 15), scipy.ndimage.maximum_filter(truth, 11)
        assert (border_ring(truth) == ~(inner | ~outer)).all()
    assert not border_ring(np.ones((5, 5), bool)).any()
    assert not border_ring(truth, 1, 1).any()


def test_imdl_benco_rounds_away_from_one() -> None:
    perfect, none, half = Confusion(50, 0, 0, 50), Confusion(0, 0, 0, 100), Confusion(50, 50, 0, 0)
    assert imdlbenco_f1([perfect, none, half]).tolist() == pytest.approx([1, 0, 2 / 3], abs=2e-8)
    assert imdlbenco_f1(perfect) < 1
    assert imdlbenco_iou([perfect, none, half]).tolist() == pytest.approx([1, 0, 0.5], abs=1e-9)
    assert mean_figure([perfect]) == 1


def test_a_table_gives_every_figure_of_photos_and_of_all_pixels(rng: np.random.Generator) -> None:
    table, photos = PixelTable(bins=128, keep=True), []
    for i in range(12):
        scores, truth = maps(rng)
        if i % 4 == 0:
            truth[:] = False
        photos.append((scores.astype(float), truth))
        table.add(scores, truth)
    times = rng.integers(0, 3, len(photos))
    for count in (None, times):
        drawn = photos if count is None else [p for p, n in zip(photos, times, strict=True) for _ in range(n)]
        forged = [(s, t) for s, t in drawn if t.any()]
        y, x = np.concatenate([t.ravel() for _, t in drawn]), np.concatenate([s.ravel() for s, _ in drawn])
        ours = table.figures(count)
        theirs = {
            "f1": np.mean([sklearn.metrics.f1_score(t.ravel(), s.ravel() >= 0.5) for s, t in forged]),
            "mcc": np.mean([sklearn.metrics.matthews_corrcoef(t.ravel(), s.ravel() >= 0.5) for s, t in forged]),
            "auc": np.mean([sklearn.metrics.roc_auc_score(t.ravel(), s.ravel()) for s, t in forged]),
            "f1_double": np.mean([max(confusion(s >= 0.5, t).f1, confusion(s < 0.5, t).f1) for s, t in forged]),
            "f1_best": np.mean([max(confusion(s >= c / 64, t).f1 for c in range(65)) for s, t in forged]),
            "f1_pooled": sklearn.metrics.f1_score(y, x >= 0.5),
            "miou_pooled": sklearn.metrics.jaccard_score(y, x >= 0.5, average="macro"),
            "auc_pooled": sklearn.metrics.roc_auc_score(y, x),
            "ap_pooled": sklearn.metrics.average_precision_score(y, x),
        }
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, abs=TOLERANCE), name
        assert ours["f1_best_double"] >= ours["f1_best"] >= ours["f1"]
    forged = [(s, t) for s, t in photos if t.any()]
    mean_f1 = {c / 64: np.mean([confusion(s >= c / 64, t).f1 for s, t in forged]) for c in range(65)}
    threshold, value = table.best_threshold()
    assert value == pytest.approx(max(mean_f1.values()), abs=TOLERANCE)
    assert mean_f1[threshold] == pytest.approx(value, abs=TOLERANCE)
    assert table.figures(empty="score")["f1"] < table.figures()["f1"]


def test_a_table_keeps_little(rng: np.random.Generator) -> None:
    table = PixelTable(bins=256)
    scores, truth = rng.random((1000, 1000), np.float32), rng.random((1000, 1000)) < 0.2
    table.add(scores, truth)
    tracemalloc.start()
    for _ in range(20):
        table.add(scores, truth)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000
    assert peak < 20e6
    assert math.isnan(PixelTable().best_threshold()[0])
    assert "auc_pooled" not in table.figures(np.ones(21, int))
    with pytest.raises(DataError, match="keep=True"):
        table.curve(np.ones(21, int))


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
