"""Agreement with scikit-learn, torchmetrics and the package avdeepfake1m on a thousand random cases each (the first
hundred in the fast run), and every difference that there is: docs/metrics.md tells which is right, and why."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sklearn
import sklearn.metrics
import torch

from seamline.encoders._torchvision import ensure_importable
from seamline.errors import DataError
from seamline.metrics import detection
from seamline.metrics.image import Confusion, confusion, photo_figures, photo_pixels, pixel_figure, pooled
from seamline.metrics.temporal import avdeepfake1m_ap, avdeepfake1m_ar, average_precision, average_recall

MANY = pytest.mark.parametrize("many", [100, pytest.param(1000, marks=pytest.mark.slow)])
SAME = 1e-6
Case = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def cases(many: int) -> list[Case]:
    """Scores and labels of up to 40 files: some with ties, some all alike, some of one class, some separable."""
    rng = np.random.default_rng(7)
    found = []
    for i in range(many):
        n = int(rng.integers(1, 40))
        labels = (rng.random(n) < rng.choice([0.1, 0.5, 0.9])).astype(np.int64)
        scores = 1 / (1 + np.exp(-rng.normal(size=n) - rng.choice([0, 1, 20]) * (labels - 0.5)))
        found.append((scores.round(int(rng.choice([0, 1, 2]))) if i % 2 else scores, labels))
    return found


def both(labels: npt.NDArray[np.int64]) -> bool:
    return 0 < labels.sum() < len(labels)


@MANY
def test_scores_agree_with_scikit_learn(many: int) -> None:
    theirs: dict[str, Callable[[Any, Any], float]] = {
        "roc_auc": sklearn.metrics.roc_auc_score,
        "average_precision": sklearn.metrics.average_precision_score,
        "brier_score": sklearn.metrics.brier_score_loss,
        "accuracy": lambda y, s: sklearn.metrics.accuracy_score(y, s >= 0.5),
        "balanced_accuracy": lambda y, s: sklearn.metrics.balanced_accuracy_score(y, s >= 0.5),
    }
    compared = 0
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
        for scores, labels in cases(many):
            if both(labels):
                compared += 1
                for name, metric in theirs.items():
                    assert getattr(detection, name)(scores, labels) == pytest.approx(metric(labels, scores), abs=SAME)
    assert compared > 0.7 * many


def test_scores_where_scikit_learn_differs() -> None:
    scores, forged, authentic = [0.3, 0.6], [1, 1], [0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert math.isnan(sklearn.metrics.roc_auc_score(forged, scores))
        assert sklearn.metrics.average_precision_score(authentic, scores) == 0
        assert sklearn.metrics.balanced_accuracy_score(forged, [0, 1]) == 0.5  # the mean over one class
        assert sklearn.metrics.matthews_corrcoef(forged, [1, 1]) == 0  # all right, and the figure of chance
    assert math.isnan(detection.roc_auc(scores, forged))
    assert math.isnan(detection.average_precision(scores, authentic))
    assert math.isnan(detection.balanced_accuracy(scores, forged))
    assert math.isnan(pixel_figure(Confusion(2, 0, 0, 0), "mcc"))
    for metric in (sklearn.metrics.roc_auc_score, sklearn.metrics.average_precision_score):
        with pytest.raises(ValueError, match="NaN"):
            metric([0, 1], [math.nan, 0.5])
        with pytest.raises((ValueError, IndexError)):
            metric([], [])
    for ours in (detection.roc_auc, detection.average_precision):
        with pytest.raises(DataError, match="number 0 is nan"):
            ours([math.nan, 0.5], [0, 1])
        assert math.isnan(ours([], []))


@MANY
def test_pixels_agree_with_scikit_learn(many: int) -> None:
    """Maps as columns, so that one call of scikit-learn takes them all; then AUC and MCC one by one."""
    rng = np.random.default_rng(8)
    truth = rng.random((150, many)) < rng.choice([0, 0.02, 0.3, 1], many)
    scores = np.clip(rng.normal(0.4 + 0.3 * truth, 0.3), 0, 1).astype(np.float32)
    scores = np.where(rng.random(many) < 0.1, 0, scores)  # some find nothing
    counts = [confusion(s >= 0.5, t) for s, t in zip(scores.T, truth.T, strict=True)]
    for figure, metric in (
        ("f1", sklearn.metrics.f1_score),
        ("iou", sklearn.metrics.jaccard_score),
        ("precision", sklearn.metrics.precision_score),
        ("recall", sklearn.metrics.recall_score),
    ):
        theirs = metric(truth, scores >= 0.5, average=None, zero_division=0)
        ours = photo_figures(counts, figure, "zero")  # type: ignore[arg-type]
        np.testing.assert_allclose(ours, theirs, atol=SAME, err_msg=figure)
    everything = pooled(counts)
    theirs = sklearn.metrics.f1_score(truth.ravel(), (scores >= 0.5).ravel())
    assert everything.f1 == pytest.approx(theirs, abs=SAME)
    compared = 0
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
        for s, t, count in zip(scores.T, truth.T, counts, strict=True):
            if not both(t):
                assert math.isnan(pixel_figure(count, "mcc"))  # there, scikit-learn says 0
                assert math.isnan(photo_pixels(s, t, bins=None).auc)
                continue
            compared += 1
            assert float(pixel_figure(count, "mcc")) == pytest.approx(sklearn.metrics.matthews_corrcoef(t, s >= 0.5))
            assert photo_pixels(s, t, bins=None).auc == pytest.approx(sklearn.metrics.roc_auc_score(t, s), abs=SAME)
    assert compared > 0.4 * many


def torchmetrics_functions() -> Any:
    if importlib.util.find_spec("torchmetrics") is None:
        pytest.skip("torchmetrics is not installed: it comes with the extra dev")
    ensure_importable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("torchmetrics.functional.classification")


@MANY
def test_scores_agree_with_torchmetrics(many: int) -> None:
    them = torchmetrics_functions()
    compared = 0
    for scores, labels in cases(many):
        if not both(labels):
            continue
        compared += 1
        s, y = torch.from_numpy(scores), torch.from_numpy(labels)
        curve = detection.roc_curve(scores, labels)
        assert curve.auc() == pytest.approx(them.binary_auroc(s, y, validate_args=False).item(), abs=SAME)
        assert curve.ap() == pytest.approx(them.binary_average_precision(s, y, validate_args=False).item(), abs=SAME)
        # Its EER is the mean of both rates where they are nearest, equal scores one point; single precision decides
        # which point that is, where two are equally near.
        apart, eer = np.abs(curve.fpr - curve.fnr), them.binary_eer(s, y, validate_args=False).item()
        nearest = apart <= apart.min() + SAME
        assert np.abs((curve.fpr + curve.fnr)[nearest] / 2 - eer).min() < SAME
        count, called = confusion(scores >= 0.5, labels == 1), (s >= 0.5).long()  # its own test is score > 0.5
        for figure, name in (("f1", "f1_score"), ("iou", "jaccard_index"), ("mcc", "matthews_corrcoef")):
            if figure == "mcc" and called.min() == called.max():
                continue  # see below
            value = getattr(them, f"binary_{name}")(called, y, validate_args=False).item()
            assert float(pixel_figure(count, figure)) == pytest.approx(value, abs=SAME)  # type: ignore[arg-type]
        if (scores < 1).all():
            value = them.binary_calibration_error(s, y, n_bins=15, validate_args=False).item()
            assert detection.expected_calibration_error(scores, labels) == pytest.approx(value, abs=SAME)
    assert compared > 0.7 * many


def test_scores_where_torchmetrics_differs() -> None:
    them = torchmetrics_functions()

    def of(name: str, scores: list[float], labels: list[int]) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(
                getattr(them, f"binary_{name}")(torch.tensor(scores, dtype=torch.float64), torch.tensor(labels))
            )

    # One class: it says 0, the figure of a detector that is always wrong, where nothing is defined.
    assert of("auroc", [0.3, 0.6], [1, 1]) == of("auroc", [0.3, 0.6], [0, 0]) == 0
    assert of("average_precision", [0.3, 0.6], [0, 0]) == 0
    assert of("eer", [0.3, 0.6], [1, 1]) == 0  # and the figure of a perfect one
    assert math.isnan(detection.roc_auc([0.3, 0.6], [1, 1]))
    assert math.isnan(detection.equal_error_rate([0.3, 0.6], [1, 1]))
    # nan: it ranks it above all.
    assert of("auroc", [math.nan, 0.6, 0.2], [1, 1, 0]) == 1
    with pytest.raises(DataError, match="nan"):
        detection.roc_auc([math.nan, 0.6, 0.2], [1, 1, 0])
    # Logits: it takes a sigmoid, in which large ones become equal.
    assert of("auroc", [-1.0, 2.0, 3.0, 40.0, 41.0], [0, 1, 0, 1, 0]) == pytest.approx(7 / 12)
    assert detection.roc_auc([-1.0, 2.0, 3.0, 40.0, 41.0], [0, 1, 0, 1, 0]) == pytest.approx(1 / 2)
    # ECE: a probability of 1 has a bin of its own, so that errors beside it do not cancel.
    scores, labels = [1.0, 1.0, 0.95], [1, 0, 1]
    assert of("calibration_error", scores, labels) == pytest.approx((1 + 0.05) / 3)
    assert detection.expected_calibration_error(scores, labels) == pytest.approx((1 - 0.05) / 3)
    # MCC: a detector that calls all authentic is nearly perfect, if few are forged.
    assert of("matthews_corrcoef", [0.0] * 100, [1] + [0] * 99) > 0.98
    assert float(pixel_figure(confusion(np.zeros(100, bool), np.arange(100) < 1), "mcc")) == 0
    # No files: it fails, or says 0.
    assert of("jaccard_index", [], []) == 0
    assert math.isnan(Confusion(0, 0, 0, 0).iou)


# -------------------------------------------------------------------------------------------------- avdeepfake1m


def package() -> Any:
    """The compiled module of avdeepfake1m 0.0.4, without the rest of the package, which needs pandas and numpy 1."""
    try:
        files = importlib.metadata.files("avdeepfake1m") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("avdeepfake1m is not installed: pip install --no-deps avdeepfake1m==0.0.4, where it has a wheel")
    path = next(str(file.locate()) for file in files if file.name.startswith("_evaluation"))
    loader = importlib.machinery.ExtensionFileLoader("_evaluation", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("_evaluation", loader))  # type: ignore[arg-type]
    loader.exec_module(module)
    return module


IOUS, NUMBERS, RECALL_IOUS = [0.5, 0.75, 0.95], [1, 3, 10], [i / 100 for i in range(50, 100, 5)]


def ask(module: Any, folder: Path, found: list[Any], truths: list[Any]) -> dict[str, dict[float, float]]:
    names = [f"{i}.mp4" for i in range(len(found))]
    (folder / "found.json").write_text(json.dumps(dict(zip(names, found, strict=True))))
    labels = [{"file": name, "spans": spans} for name, spans in zip(names, truths, strict=True)]
    (folder / "truth.json").write_text(json.dumps(labels))
    paths = str(folder / "found.json"), str(folder / "truth.json")
    result: dict[str, dict[float, float]] = module.ap_ar_1d(*paths, "file", "spans", 1.0, IOUS, NUMBERS, RECALL_IOUS)
    return {kind: {round(key, 6): value for key, value in figures.items()} for kind, figures in result.items()}


@MANY
def test_spans_agree_with_avdeepfake1m(tmp_path: Path, many: int) -> None:
    module, rng = package(), np.random.default_rng(9)
    for i in range(many):
        found, truths = [], []
        for _ in range(int(rng.integers(1, 6))):
            labels, proposals = int(rng.integers(0, 3)), int(rng.integers(1, 9))
            start = rng.random(labels) * 8
            truth = np.stack([start, start + 0.2 + rng.random(labels) * 2], 1)
            start = rng.random(proposals) * 8
            rows = np.stack([rng.random(proposals), start, start + 0.2 + rng.random(proposals) * 2], 1)
            for k in range(min(labels, proposals)):
                rows[k, 1:] = truth[k] + rng.normal(0, 0.05, 2)
            rows = rows.round(1) if i % 2 else rows  # ties of scores, and equal spans
            rows[:, 2] = np.maximum(rows[:, 2], rows[:, 1] + 0.1)
            found.append(rows.tolist())
            truths.append(truth.tolist())
        theirs = ask(module, tmp_path, found, truths)
        ap, ar = avdeepfake1m_ap(found, truths, IOUS), avdeepfake1m_ar(found, truths, NUMBERS)
        assert list(ap.values()) == pytest.approx([*theirs["ap"].values()], abs=SAME, nan_ok=True)
        assert list(ar.values()) == pytest.approx([theirs["ar"][n] for n in NUMBERS], abs=SAME)


def test_spans_where_avdeepfake1m_differs(tmp_path: Path) -> None:
    module = package()
    perfect = [[[0.9, 1.0, 2.0]], [[0.5, 3.0, 4.0]]], [[[1.0, 2.0]], [[3.0, 4.0]]]
    assert ask(module, tmp_path, *perfect)["ap"][0.5] == 0.5  # the slice of the best proposal is lost
    one = [[[0.9, 1.0, 2.0]]], [[[1.0, 2.0]]]
    assert ask(module, tmp_path, *one)["ap"][0.5] == 0
    for found, truths in (perfect, one):
        assert average_precision(found, truths) == dict.fromkeys(IOUS, 1.0)
    exact = [[[0.9, 0.0, 1.0]]], [[[0.0, 2.0]]]  # IoU is exactly 0.5, which is not larger than 0.5
    assert ask(module, tmp_path, *exact)["ar"][1] == 0
    assert average_recall(*exact, (1,))[1] == 0.1
    unsorted = [[[0.1, 5.0, 6.0], [0.9, 1.0, 2.0]]], [[[1.0, 2.0]]]
    assert ask(module, tmp_path, *unsorted)["ar"][1] == 0  # the first of the file, not the best
    assert average_recall(*unsorted, (1,))[1] == 1
    none = [[[0.9, 1.0, 2.0]]], [[]]
    theirs = ask(module, tmp_path, *none)
    assert math.isnan(theirs["ap"][0.5])
    assert theirs["ar"][1] == 0 == avdeepfake1m_ar(*none, (1,))[1]  # type: ignore[arg-type]
    assert math.isnan(average_recall(*none, (1,))[1])  # type: ignore[arg-type]
    for empty, truths in (([[]], [[[1.0, 2.0]]]), ([[[0.9, 1.0, 2.0]], []], [[[1.0, 2.0]], []])):
        with pytest.raises(BaseException, match="shape should be allocated"):  # a panic of Rust, no Exception
            ask(module, tmp_path, empty, truths)
        with pytest.raises(DataError, match="clip number"):
            avdeepfake1m_ap(empty, truths)  # type: ignore[arg-type]
        assert 0 <= average_precision(empty, truths)[0.5] <= 1  # type: ignore[arg-type]
