"""Both ends of every scale: a perfect detector has exactly the best value, one that always says the same has chance."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from seamline.metrics import detection
from seamline.metrics.image import PixelTable, border_ring, confusion, mean_figure, photo_pixels, pooled
from seamline.metrics.temporal import average_precision, average_recall, boundary_error, frame_auc, frame_f1

Arrays = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
HALF = 0.5

# Of scores and labels: the best value, and what a constant 0.5 gets where the share p of files is forged.
SCORES: dict[str, tuple[Callable[..., float], float, Callable[[float], float]]] = {
    "roc_auc": (detection.roc_auc, 1, lambda p: HALF),
    "equal_error_rate": (detection.equal_error_rate, 0, lambda p: HALF),
    "average_precision": (detection.average_precision, 1, lambda p: p),
    "accuracy": (detection.accuracy, 1, lambda p: p),  # all are called forged
    "balanced_accuracy": (detection.balanced_accuracy, 1, lambda p: HALF),
    "true_positive_rate": (detection.true_positive_rate, 1, lambda p: 1),
    "false_positive_rate": (detection.false_positive_rate, 0, lambda p: 1),
    "fpr_at_tpr": (lambda s, y: detection.fpr_at_tpr(s, y, 0.95, interpolate=True), 0, lambda p: 0.95),
    "tpr_at_fpr": (lambda s, y: detection.tpr_at_fpr(s, y, 0.05, interpolate=True), 1, lambda p: 0.05),
    "expected_calibration_error": (detection.expected_calibration_error, 0, lambda p: abs(p - HALF)),
    "expected_calibration_error, mass": (
        lambda s, y: detection.expected_calibration_error(s, y, binning="mass"),
        0,
        lambda p: abs(p - HALF),
    ),
    "brier_score": (detection.brier_score, 0, lambda p: 0.25),
    "cllr": (lambda s, y: detection.cllr(detection.log_likelihood_ratio(s), y), 0, lambda p: 1),
    "minimum_cllr": (detection.minimum_cllr, 0, lambda p: 1),
    "minimum_dcf": (detection.minimum_dcf, 0, lambda p: 1),
    "actual_dcf": (lambda s, y: detection.actual_dcf(detection.log_likelihood_ratio(s), y), 0, lambda p: 1),
}


@pytest.mark.parametrize("name", SCORES)
def test_scores(name: str) -> None:
    metric, best, chance = SCORES[name]
    for forged, authentic in ((1, 1), (1, 9), (7, 3), (333, 667)):
        labels = np.arange(forged + authentic) < forged
        assert metric(labels.astype(float), labels) == best
        share = forged / len(labels)
        assert metric(np.full(len(labels), 0.5), labels) == pytest.approx(chance(share), abs=1e-12)


@pytest.mark.parametrize("name", SCORES)
def test_scores_of_one_class_are_the_best_or_not_defined(name: str) -> None:
    metric, best, _ = SCORES[name]
    for labels in (np.array([True]), np.array([False]), np.ones(5, bool), np.zeros(5, bool)):
        value = metric(labels.astype(float), labels)
        assert math.isnan(value) or value == best


def photos() -> list[npt.NDArray[np.bool_]]:
    """Truths: one pixel, an area, all, and nothing."""
    truths = [np.zeros((40, 50), bool) for _ in range(4)]
    truths[0][3, 4] = True
    truths[1][10:30, 10:40] = True
    truths[2][:] = True
    return truths


FIGURES = ("f1", "iou", "miou", "mcc", "precision", "recall")


@pytest.mark.parametrize("empty", ["skip", "score"])
@pytest.mark.parametrize("figure", FIGURES)
def test_perfect_masks_are_exactly_one(figure: str, empty: str) -> None:
    for truths in (photos(), photos()[:1], photos()[2:3]):
        counts = [confusion(truth, truth) for truth in truths]
        assert mean_figure(counts, figure, empty=empty) == 1  # type: ignore[arg-type]
    ringed = [confusion(truth, truth, border_ring(truth)) for truth in photos()[1:]]
    assert mean_figure(ringed, figure, empty=empty) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint8, np.bool_])
def test_a_perfect_heat_map_is_exactly_one_in_every_way(kind: type) -> None:
    table = PixelTable(keep=True)
    for truth in photos():
        scores = truth.astype(kind) * kind(255 if kind is np.uint8 else 1)
        table.add(scores, truth)
        exact = photo_pixels(scores, truth, bins=None)
        assert math.isnan(exact.auc) or exact.auc == 1
    for times in (None, np.array([1, 1, 1, 1]), np.array([2, 0, 0, 0]), np.array([0, 3, 1, 5])):
        for empty in ("skip", "score"):
            for name, value in table.figures(times, empty=empty).items():  # type: ignore[arg-type]
                assert value == 1, name
    assert table.best_threshold()[1] == 1


def test_constant_heat_maps_are_chance() -> None:
    truth = photos()[1]
    share = truth.mean()
    for constant in (0.0, 0.3, 1.0):
        photo = photo_pixels(np.full(truth.shape, constant), truth)
        assert photo.auc == 0.5
        assert photo.ap == pytest.approx(share)
        assert photo.best.f1 == photo.best_inverted.f1 == pytest.approx(2 * share / (1 + share))  # all is called forged
        assert mean_figure([photo.counts], "mcc") == 0
        assert mean_figure([photo.counts], "precision") == pytest.approx(share if constant >= 0.5 else 0)
        assert mean_figure([photo.counts], "recall") == (constant >= 0.5)
    nothing, everything = np.zeros_like(truth), np.ones_like(truth)
    assert mean_figure([confusion(nothing, truth)]) == 0
    assert pooled([confusion(everything, truth)]).iou == pytest.approx(share)


SPANS = [[[1.0, 2.0]], [[0.5, 0.75], [3.0, 4.5]], [], [[0.1, 0.2], [0.3, 0.7], [5.0, 9.0]]]


@pytest.mark.parametrize("truths", [SPANS, SPANS[:1], SPANS[2:], [*SPANS, []]])
def test_perfect_spans_are_exactly_one(truths: list[list[list[float]]]) -> None:
    found = [[[0.9, start, end] for start, end in spans] for spans in truths]
    alarms = [[*rows, [0.1, 6.0, 7.0]] for rows in found]  # below all others: they cost nothing
    for rows in (found, alarms):
        assert set(average_precision(rows, truths).values()) == {1.0}
        assert set(average_recall(rows, truths).values()) == {1.0}
        assert boundary_error(rows, truths)[:3] == (0, 0, 0)


def test_spans_at_random_are_chance(rng: np.random.Generator) -> None:
    """The same proposal everywhere, scored alike: AP is recall x precision; nothing found is 0."""
    truths = [[[1.0, 2.0]] if i % 4 == 0 else [] for i in range(200)]
    same = [[[0.5, 1.0, 2.0]]] * 200
    assert average_precision(same, truths)[0.5] == pytest.approx(1 / 4)
    assert set(average_recall([[]] * 200, truths).values()) == {0.0}
    assert set(average_precision([[]] * 200, truths).values()) == {0.0}
    assert math.isnan(boundary_error([[]] * 200, truths).mean)


def test_frames() -> None:
    truth = [np.arange(50) < 10, np.zeros(30, bool), np.ones(4, bool)]
    assert frame_f1(truth, truth) == 1
    assert frame_auc([t.astype(float) for t in truth], truth) == 1
    assert frame_auc([np.full(len(t), 0.3) for t in truth], truth) == 0.5
    share = 14 / 84
    assert frame_f1([np.ones_like(t) for t in truth], truth) == pytest.approx(2 * share / (1 + share))
    assert math.isnan(frame_f1([truth[1]], [truth[1]]))
