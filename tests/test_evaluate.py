"""Evaluation on a miniature set with findings made by hand, so that every figure is known."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from seamline import zoo
from seamline.data import open_data
from seamline.detectors.loupe import build
from seamline.errors import DataError
from seamline.evaluate import calibrate, calibration, card_table, evaluate, model_card
from seamline.evaluate import rows as rows_of
from seamline.evaluate.calibration import logistic
from seamline.media import Image
from seamline.pipeline import Session
from seamline.report import Media, Model, Report


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of, "DRAWS", 200)  # resamples: a fifth of the time


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve grey pictures whose first pixel row tells the toy scanner what to say (see :func:`scan`)."""
    root = tmp_path_factory.mktemp("set")
    for name in ("media", "masks"):
        (root / name).mkdir()
    rows = []
    for i in range(12):
        rgb = np.full((64, 80, 3), 40, np.uint8)
        kind = ("authentic", "splice", "copy-move")[i % 3]
        mask = np.zeros((64, 80), np.uint8)
        if kind != "authentic":
            mask[16:48, 16:48] = 255
            rgb[16:48, 16:48] = 220  # bright: the scanner finds it, all of it
        if kind == "copy-move":
            rgb[16:32, 16:48] = 40  # and half of these only
            cv2.imwrite(str(root / f"masks/{i}.png"), mask)
        if kind == "splice":
            cv2.imwrite(str(root / f"masks/{i}.png"), mask)
        if i == 0:
            rgb[56:, 72:] = 220  # a false alarm
        cv2.imwrite(str(root / f"media/{i}.png"), rgb)
        row = {"path": f"media/{i}.png", "mask": None if kind == "authentic" else f"masks/{i}.png", "kind": kind}
        rows.append(row | {"label": int(kind != "authentic"), "group": f"g{i // 2}", "source": None, "sha256": None})
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def scan(rgb: npt.NDArray[np.uint8]) -> Report:
    """Bright pixels are forged; the more of them, the more probable."""
    height, width = rgb.shape[:2]
    heatmap = (rgb[..., 1] > 128).astype(np.float32) * np.float32(0.9)
    share = float((heatmap > 0).mean())
    probability = 0.1 if share == 0 else min(1.0, 0.6 + share)
    return Report(
        Media("<array>", kind="image", width=width, height=height),
        "forged" if probability >= 0.5 else "authentic",
        probability,
        threshold=0.5,
        model=Model("toy", "1", "ab" * 32),
        heatmap=heatmap,
        mask=heatmap >= 0.5,
    )


def test_figures(data: Path, tmp_path: Path) -> None:
    row = evaluate(scan, data, out=tmp_path / "row.json", progress=False)
    assert row["n"] == {"authentic": 4, "forged": 8, "unjudged": 0}
    assert row["auc"] == 1.0  # the false alarm scores below every forgery
    assert row["false_alarms"] == 0.25
    assert row["detected"] == 1.0
    assert row["f1"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-4)
    assert row["iou"] == pytest.approx((1 + 1 / 2) / 2, abs=1e-4)
    assert row["f1_shown"] == row["f1"]
    assert row["kinds"]["splice"] == {"n": 4, "auc": 1.0, "f1": 1.0, "iou": 1.0, "f1_shown": 1.0, "detected": 1.0}
    assert row["kinds"]["copy-move"]["f1"] == pytest.approx(2 / 3, abs=1e-4)
    assert row["kinds"]["authentic"] == {"n": 4, "false_alarms": 0.25}
    low, high = row["ci95"]["f1"]
    assert low < row["f1"] < high
    assert row["model"]["sha256"] == "ab" * 32
    assert json.loads((tmp_path / "row.json").read_text()) == row
    assert len((tmp_path / "row.csv").read_text().splitlines()) == 13


def test_thresholds_can_be_set(data: Path) -> None:
    row = evaluate(scan, data, threshold=0.7, mask_threshold=0.95, progress=False)
    assert row["false_alarms"] == 0.0
    assert row["detected"] == 1.0
    assert row["f1"] == 0.0


@pytest.mark.parametrize("name", ["jpeg75", "resize0.75", "resize1.5"])
def test_perturbed_alike(data: Path, name: str) -> None:
    row = evaluate(scan, data, perturb=name, progress=False)
    assert row["perturb"] == name
    assert row["auc"] == 1.0
    assert row["f1"] == pytest.approx((1 + 2 / 3) / 2, abs=0.05)


def test_card_table(data: Path) -> None:
    rows = [evaluate(scan, data, perturb=name, progress=False) for name in ("none", "jpeg75")]
    text = card_table(rows)
    assert "| as they are | 4 | 8 | 1.000" in text
    assert "| JPEG 75 |" in text
    assert "| copy-move | 1.000 / 0.667 / 1.000 |" in text
    assert "| false alarms: authentic | 0.250 |" in text
    assert "ab" * 32 in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {12, 4}


def test_logistic_recovers_a_known_calibration() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, 40_000)
    forged = rng.random(x.size) < 1 / (1 + np.exp(-(0.7 * x - 0.4)))
    fit = logistic([{"logit": value} for value in x], forged)
    a, b = fit["logit"], fit["bias"]
    weight = np.log((~forged).sum() / forged.sum())  # both classes weigh one half: the prior moves into b
    assert abs(a - 0.7) < 0.03
    assert abs(b - (-0.4 + weight)) < 0.05


def test_logistic_stays_finite_on_separable_scores() -> None:
    fit = logistic([{"logit": x} for x in (-2.0, -1.0, 1.0, 2.0)], np.array([False, False, True, True]))
    assert 0 < fit["logit"] < 10
    assert abs(fit["bias"]) < 1


def test_logistic_weighs_each_evidence_and_leaves_out_what_would_speak_for_authentic() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(0, 1, (40_000, 3)) * (1, 3, 1)
    forged = rng.random(len(table)) < 1 / (1 + np.exp(-(0.9 * table[:, 0] + 0.3 * table[:, 1] - 0.5 * table[:, 2])))
    names = ("logit", "peak", "size")
    fit = logistic([dict(zip(names, row, strict=True)) for row in table.tolist()], forged)
    assert fit == pytest.approx({"logit": 0.9, "peak": 0.3, "size": -0.5, "bias": 0.0}, abs=0.04)
    names = ("logit", "peak", "copies")
    fit = logistic([dict(zip(names, row, strict=True)) for row in table.tolist()], forged)
    assert list(fit) == ["logit", "peak", "copies", "bias"]
    assert fit["copies"] == 1.0
    names = ("logit", "size", "peak")
    fit = logistic([dict(zip(names, row, strict=True)) for row in table.tolist()], forged)
    assert list(fit) == ["logit", "size", "bias"]


def test_calibrate_keeps_the_promised_share_of_false_alarms(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    raw, fitted = tmp_path / "raw.safetensors", tmp_path / "fitted.safetensors"
    zoo.save(build("loupe-tiny"), raw, licence="test")
    facts = calibrate(raw, data, fitted, false_alarms=0.0, progress=False)
    assert facts["calibrated_on"] | {"sha256": ""} == {"sha256": "", "authentic": 4, "forged": 8}
    _, card = zoo.load_detector(fitted)
    assert card.licence == "test"
    assert card.calibration == facts["calibration"]
    assert set(card.calibration) <= set(zoo.EVIDENCE)
    row = evaluate(fitted, data, progress=False)
    assert row["false_alarms"] == 0.0
    assert row["mask_threshold"] == facts["mask_threshold"]


def test_photos_are_calibrated_apart_by_their_last_save(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of twelve photos three were saved below the lowest quality and three as PNG: compressed ones set no threshold."""
    kinds = {s.media: ("compressed", "", "", "lossless")[i // 3] for i, s in enumerate(open_data(data))}
    monkeypatch.setattr(calibration, "_last_save", lambda sample, *_: kinds[sample.media])
    monkeypatch.setattr(calibration, "_lowest_quality", lambda *_: 75)
    monkeypatch.setattr(calibration, "ENOUGH", 1)
    fitted: list[int] = []

    def logistic(evidence: Any, forged: Any) -> dict[str, float]:
        fitted.append(len(evidence))
        return {"logit": len(evidence) + len(fitted) / 10, "bias": -0.5}

    monkeypatch.setattr(calibration, "logistic", logistic)
    torch.manual_seed(0)
    zoo.save(build("loupe-tiny"), tmp_path / "raw.safetensors")
    facts = calibrate(tmp_path / "raw.safetensors", data, tmp_path / "fitted.safetensors", progress=False)
    assert fitted == [12, 6, 3, 3]  # all of them tell which quality is too low
    assert facts["calibration"] == {"logit": 6.2, "bias": -0.5}
    apart = {"lossless": {"logit": 3.3, "bias": -0.5}, "compressed": {"logit": 3.4, "bias": -0.5}}
    assert facts["calibrations"] == apart
    assert all(point["authentic"] + point["forged"] == 9 for point in facts["operating_points"])
    detector, card = zoo.load_detector(tmp_path / "fitted.safetensors")
    rough = cv2.GaussianBlur(np.random.default_rng(0).normal(128, 300, (96, 96, 3)), (0, 0), 3)
    pixels = np.clip(rough, 0, 255).astype(np.uint8)
    session = Session(detector, card=dataclasses.replace(card, familiarity={}))
    slopes = []
    for file, quality in ((None, None), ("JPEG", 60), ("JPEG", 80), ("JPEG", 99), ("PNG", None), ("WEBP", None)):
        probability = session(Image(pixels, "<array>", format=file, quality=quality)).probability
        assert probability is not None
        slopes.append(math.log(probability / (1 - probability)) + 0.5)
    assert np.array(slopes) / slopes[0] == pytest.approx(np.array([6.2, 3.4, 6.2, 3.3, 3.3, 6.2]) / 6.2)


@pytest.mark.parametrize(("few", "fits"), [("lossless", [12, 12]), ("", [12, 12])])
def test_one_kind_of_save_is_one_calibration(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: str, fits: list[int]
) -> None:
    """All photos of one kind, whichever it is, with nothing to compare: a single fit of them all."""
    kind = {"lossless": "", "": "lossless"}[few]
    monkeypatch.setattr(calibration, "_last_save", lambda *_: kind)
    monkeypatch.setattr(calibration, "_lowest_quality", lambda *_: 75)
    monkeypatch.setattr(calibration, "ENOUGH", 1)
    fitted: list[int] = []
    monkeypatch.setattr(calibration, "logistic", lambda x, y: fitted.append(len(x)) or {"logit": 1.0, "bias": 0.0})
    zoo.save(build("loupe-tiny"), tmp_path / "raw.safetensors")
    facts = calibrate(tmp_path / "raw.safetensors", data, tmp_path / "fitted.safetensors", progress=False)
    assert fitted == fits
    assert facts["calibrations"] == {}


def test_calibrate_needs_both_classes(data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
    for name in ("media", "masks"):
        (tmp_path / name).symlink_to(data / name)
    forged = [json.dumps(row) + "\n" for row in rows if row["label"]]
    (tmp_path / "manifest.jsonl").write_text("".join(forged))
    zoo.save(build("loupe-tiny"), tmp_path / "raw.safetensors")
    with pytest.raises(DataError, match="8 of 8 are forged"):
        calibrate(tmp_path / "raw.safetensors", tmp_path, tmp_path / "fitted.safetensors", progress=False)


def test_model_card_tells_what_was_recorded(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, fitted = tmp_path / "raw.safetensors", tmp_path / "fitted.safetensors"
    zoo.save(build("loupe-tiny"), raw)
    facts = calibrate(raw, data, fitted, progress=False)
    recipe = {"stage": [{"name": "joint", "steps": 7, "batch": 2, "accumulation": 3}], "crop": 64}
    about = {"recipe": recipe, "recipe_file": "r.toml", "seed": 5, "threads": 2, "seconds": 120.0}
    (tmp_path / "run.json").write_text(
        json.dumps(about | {"data": {"training": 11, "held_out": 3, "sha256": "ab" * 32}})
    )
    (tmp_path / "words.md").write_text("# A title\n\nMade for tests.\n")
    rows = [("As they are", evaluate(fitted, data, progress=False))]
    later = tmp_path / "later"
    later.mkdir()
    (later / "run.json").write_text(
        json.dumps(about | {"threads": 1, "data": {"training": 90, "held_out": 0, "sha256": "cd" * 32}})
    )
    text = model_card(fitted, [tmp_path, later], rows, tmp_path / "words.md")
    assert text.startswith("# A title")
    for fact in (
        "joint: 7 steps of 6",
        "2 minutes on 2 CPU threads",
        "11 samples",
        "2 minutes on 1 CPU thread. Trained on 90 samples",
        f"threshold {facts['threshold']:g}",
    ):
        assert fact in text
    assert "### As they are" in text
    _, card = zoo.load_detector(fitted)
    assert card.operating_points
    for point in card.operating_points:
        assert f"| {point.threshold:g} | {point.false_alarms:.3f} [" in text
    assert "Robustness" not in text
    monkeypatch.setattr("seamline.evaluate.rows.PHOTO_GRID", ("crop5",))
    robust = evaluate(fitted, data, perturb="grid", limit=4, progress=False)
    text = model_card(fitted, [tmp_path], [*rows, ("Grid", robust)], tmp_path / "words.md")
    assert "| 5 px cut off |" in text.split("### Grid")[1]
    assert card_table([rows[0][1]]) in text
    with pytest.raises(DataError, match=r"words\.md|run\.json"):
        model_card(fitted, [tmp_path / "nowhere"], rows, tmp_path / "words.md")
