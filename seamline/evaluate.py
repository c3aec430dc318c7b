"""What a model is worth: whole photos in, one row of figures out, each over all and per kind of forgery.

A row names the weights, the data and the commit by their hashes, so that a table made from rows can be checked.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from . import zoo
from .data import Sample, digest, read_folder
from .errors import DataError
from .metrics.image import (
    Confusion,
    confusion,
    expected_calibration_error,
    false_positive_rate,
    mean_pixel_f1,
    mean_pixel_iou,
    roc_auc,
)
from .pipeline import Session
from .report import Report

SCHEMA = "seamline.evaluation/1"
DRAWS = 1000  # bootstrap resamples

Pixels = npt.NDArray[np.uint8]
Scan = Callable[[Pixels], Report]


@dataclass(frozen=True)
class Outcome:
    """What one photo counts."""

    path: str
    kind: str
    group: str
    forged: bool
    probability: float
    pixels: Confusion  # of the heat map at the mask threshold, whatever the verdict
    shown: Confusion  # of the mask as delivered, which is empty where the verdict is authentic


def evaluate(
    model: str | Path | Scan,
    data: str | Path,
    *,
    out: str | Path | None = None,
    threshold: float | None = None,
    mask_threshold: float | None = None,
    perturb: str = "none",
    device: str = "cpu",
    limit: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Scan every photo of a data folder and compare with the truth.

    Args:
        model: a name or file that the zoo loads, a :class:`Session`, or anything that turns (H, W, 3) uint8 RGB
            pixels into a :class:`Report` with probability and heat map.
        data: a data folder (see :func:`seamline.data.read_folder`).
        out: write the row to this JSON file, and the photos one by one to a CSV file of the same name beside it.
        threshold: of the photo's probability; by default the one that the model's reports carry.
        mask_threshold: of the heat map; by default the model's own, else 0.5.
        perturb: ``none``, ``jpegQ`` (encode at quality Q, 4:2:0) or ``resizeF`` (by factor F, area averaging),
            done to authentic and forged photos alike.
        device: where a model given by name runs.
        limit: take only so many photos, spread evenly over the folder.
        progress: show a progress bar.

    Returns:
        The row: model, data, thresholds; ``auc``, ``f1`` and ``iou`` (mean over forged photos, heat map at the fixed
        threshold), ``f1_shown`` (of the mask as delivered), ``detected`` (share of the forged), ``false_alarms``
        (share of the authentic), ``ece``; ``ci95`` for each of them, from resampling whole groups; and ``kinds``, where
        the AUC of a kind of forgery is against all authentic photos. A figure that is not defined is ``None``.

    Raises:
        DataError: the data or the perturbation are not what they should be, or no photo could be judged.
        MediaError: a photo cannot be read.
        WeightsError: the model cannot be loaded.
    """
    samples = read_folder(data)
    if limit is not None and limit < len(samples):
        samples = [samples[i * len(samples) // limit] for i in range(limit)]
    change = perturbation(perturb)
    scan = Session(model, device) if isinstance(model, (str, Path)) else model
    card = getattr(scan, "card", None)
    mask_threshold = mask_threshold if mask_threshold is not None else getattr(card, "mask_threshold", 0.5)

    outcomes: list[Outcome] = []
    unjudged, about, seconds, megapixels = 0, None, 0.0, 0.0
    for sample in _bar(samples, f"evaluate {perturb}", progress):
        rgb, soft = sample.load()
        rgb, soft = change(rgb, soft)
        began = time.perf_counter()
        report = scan(rgb)
        seconds += time.perf_counter() - began
        megapixels += rgb.shape[0] * rgb.shape[1] / 1e6
        if report.probability is None or report.heatmap is None:
            unjudged += 1
            continue
        about = about or report
        threshold = threshold if threshold is not None else report.threshold
        outcomes.append(_outcome(sample, report, soft, threshold, mask_threshold))
    if about is None:
        raise DataError(f"{data}: none of the {len(samples)} photos could be judged")

    cut = 0.5 if threshold is None else threshold
    authentic = [o for o in outcomes if not o.forged]
    kinds: dict[str, dict[str, Any]] = {}
    for kind in sorted({o.kind for o in outcomes}):
        of_kind = [o for o in outcomes if o.kind == kind]
        forged = [o for o in of_kind if o.forged]
        names = ("auc", "f1", "iou", "f1_shown", "detected") if forged else ("false_alarms",)
        figures = _figures(forged + authentic if forged else of_kind, cut)
        kinds[kind] = {"n": len(of_kind)} | {name: figures[name] for name in names}
    row: dict[str, Any] = {
        "schema": SCHEMA,
        "model": {
            "name": about.model.name if about.model else None,
            "version": about.model.version if about.model else None,
            "sha256": about.model.sha256 if about.model else None,
        },
        "data": {"name": Path(data).name, "sha256": digest(data)},
        "perturb": perturb,
        "threshold": cut,
        "mask_threshold": mask_threshold,
        "n": {"authentic": len(authentic), "forged": len(outcomes) - len(authentic), "unjudged": unjudged},
        **_figures(outcomes, cut),
        "ci95": _intervals(outcomes, cut),
        "kinds": kinds,
        "seconds_per_megapixel": round(seconds / megapixels, 3),
        "commit": commit(),
        "environment": about.environment,
    }
    if out is not None:
        _write(Path(out), row, outcomes)
    return row


def calibrate(
    weights: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    false_alarms: float = 0.03,
    progress: bool = True,
) -> dict[str, Any]:
    """Fit probability and thresholds on photos that neither trained the weights nor will judge them, and save both.

    The probability is sigmoid(a * logit + b), by logistic regression with both classes weighing one half (Platt, 1999).
    The threshold is the lowest that flags at most ``false_alarms`` of the authentic photos; the mask threshold the one
    with the best mean pixel F1 on the forged.

    Args:
        weights: a ``.safetensors`` file of ours, or a catalogue name.
        data: a data folder with authentic and forged photos.
        out: the same weights with these facts, as ``.safetensors``.
        false_alarms: share of authentic photos that may be flagged, in [0, 1).
        progress: show a progress bar.

    Returns:
        The facts: ``calibration`` (a, b), ``threshold``, ``mask_threshold``, and how many photos they rest on.

    Raises:
        DataError: the folder lacks authentic or forged photos.
        WeightsError: the weights cannot be loaded.
    """
    detector, card = zoo.load_detector(weights)
    session = Session(detector, card=dataclasses.replace(card, calibration=(1.0, 0.0)))
    cuts = np.linspace(0.05, 0.95, 19)
    logits, forged, f1 = [], [], []
    for sample in _bar(read_folder(data), "calibrate", progress):
        rgb, soft = sample.load()
        report = session(rgb)
        if report.probability is None or report.heatmap is None:
            continue
        p = min(max(report.probability, 1e-12), 1 - 1e-12)
        logits.append(np.log(p / (1 - p)))
        forged.append(soft is not None)
        if soft is not None:
            f1.append([confusion(report.heatmap >= cut, soft >= 0.5).f1 for cut in cuts])
    x, y = np.array(logits), np.array(forged)
    if y.all() or not y.any():
        raise DataError(f"{data}: calibration needs authentic and forged photos; {int(y.sum())} of {len(y)} are forged")
    a, b = platt(x, y)
    allowed = np.quantile(x[~y], 1 - false_alarms, method="higher")
    threshold = 1 / (1 + np.exp(-(a * np.nextafter(allowed, np.inf) + b)))
    facts = {
        "calibration": [round(a, 6), round(b, 6)],
        "threshold": float(np.ceil(threshold * 1e4) / 1e4),
        "mask_threshold": round(float(cuts[int(np.argmax(np.mean(f1, 0)))]), 2),
        "calibrated_on": {"sha256": digest(data), "authentic": int((~y).sum()), "forged": int(y.sum())},
    }
    zoo.save(detector, out, **zoo.facts(weights) | facts)
    return facts


def platt(logits: npt.NDArray[np.float64], forged: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """(a, b) of sigmoid(a * logit + b) by weighted logistic regression; both classes weigh one half. a is positive.

    Targets are softened as Platt (1999) does, (n + 1) / (n + 2) and 1 / (n + 2), so that separable scores stay finite.
    """
    positive, negative = int(forged.sum()), int((~forged).sum())
    target = np.where(forged, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weight = np.where(forged, 0.5 / positive, 0.5 / negative)
    features = np.stack([logits, np.ones_like(logits)], 1)
    theta = np.array([1.0 / max(float(logits.std()), 1e-6), 0.0])
    for _ in range(100):
        p = 1 / (1 + np.exp(-features @ theta))
        gradient = features.T @ (weight * (p - target))
        hessian = (features * (weight * p * (1 - p))[:, None]).T @ features + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        theta = theta - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    return max(float(theta[0]), 1e-3), float(theta[1])


def perturbation(name: str) -> Callable[[Pixels, npt.NDArray[np.float32] | None], tuple[Pixels, Any]]:
    """What ``name`` does to picture and mask: ``none``, ``jpegQ`` or ``resizeF``.

    Raises:
        DataError: the name says none of these.
    """
    jpeg, resize = re.fullmatch(r"jpeg(\d{1,3})", name), re.fullmatch(r"resize(\d*\.?\d+)", name)
    if name == "none":
        return lambda rgb, mask: (rgb, mask)
    if jpeg and 1 <= int(jpeg[1]) <= 100:
        options = [cv2.IMWRITE_JPEG_QUALITY, int(jpeg[1])]

        def encoded(rgb: Pixels, mask: npt.NDArray[np.float32] | None) -> tuple[Pixels, Any]:
            _, file = cv2.imencode(".jpg", rgb[..., ::-1], options)
            decoded: Pixels = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
            return np.ascontiguousarray(decoded[..., ::-1]), mask

        return encoded
    if resize and float(resize[1]) > 0:
        factor = float(resize[1])

        def resized(rgb: Pixels, mask: npt.NDArray[np.float32] | None) -> tuple[Pixels, Any]:
            size = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
            how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            small = None if mask is None else cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
            return cv2.resize(rgb, size, interpolation=how).astype(np.uint8), small

        return resized
    raise DataError(f"unknown perturbation {name!r}: none, jpegQ (as jpeg75) or resizeF (as resize0.75)")


def card_table(rows: Sequence[dict[str, Any]]) -> str:
    """The tables of a model card, in Markdown, from rows of :func:`evaluate` that differ in their perturbation."""
    lines = [
        "| photos | authentic | forged | image AUC | pixel F1 | IoU | F1 as shown | detected | false alarms | ECE |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    figures = ("auc", "f1", "iou", "f1_shown", "detected", "false_alarms", "ece")
    for row in rows:
        cells = [_cell(row[name], row["ci95"].get(name)) for name in figures]
        lines.append(_line(_spoken(row["perturb"]), row["n"]["authentic"], row["n"]["forged"], *cells))
    kinds = sorted({kind for row in rows for kind in row["kinds"]})
    forgeries = [kind for kind in kinds if any("f1" in row["kinds"].get(kind, {}) for row in rows)]
    lines += ["", "Per kind of forgery, as AUC / F1 / detected:", ""]
    lines += [_line("kind", *(_spoken(row["perturb"]) for row in rows)), "|---" * (len(rows) + 1) + "|"]
    for kind in forgeries:
        parts = [[_cell(row["kinds"].get(kind, {}).get(name)) for name in ("auc", "f1", "detected")] for row in rows]
        lines.append(_line(kind, *(" / ".join(part) for part in parts)))
    for kind in (kind for kind in kinds if kind not in forgeries):
        alarms = (_cell(row["kinds"].get(kind, {}).get("false_alarms")) for row in rows)
        lines.append(_line(f"false alarms: {kind}", *alarms))
    first = rows[0]
    lines += [
        "",
        f"Threshold {first['threshold']:.3g}, mask threshold {first['mask_threshold']:.3g}. In brackets: 95 % interval,"
        " from resampling whole groups of photos.",
        f"Weights SHA-256 `{first['model']['sha256']}`, data manifest `{first['data']['sha256']}`,"
        f" commit `{first['commit']}`.",
    ]
    return "\n".join(lines) + "\n"


def model_card(
    weights: str | Path, run: str | Path, rows: Sequence[tuple[str, dict[str, Any]]], words: str | Path
) -> str:
    """A model card in Markdown, written from what training and evaluation recorded.

    Args:
        weights: the calibrated ``.safetensors`` file, or a catalogue name.
        run: the folder of the training run, for its ``run.json``.
        rows: a heading and a row of :func:`evaluate` each; rows of one heading share a table.
        words: a Markdown file with what no measurement knows: title, use, method, limits, licence.

    Raises:
        WeightsError: the weights cannot be loaded.
        DataError: the run or the words are not there.
    """
    detector, card = zoo.load_detector(weights)
    facts = zoo.facts(weights)
    try:
        about = json.loads((Path(run) / "run.json").read_text("utf-8"))
        text = Path(words).read_text("utf-8").rstrip()
    except (OSError, ValueError) as cause:
        raise DataError(f"{run} and {words}: a card needs a training run and its words: {cause}") from cause
    recipe, data, fitted = about["recipe"], about["data"], facts.get("calibrated_on", {})
    parameters = sum(p.numel() for p in detector.parameters())
    stages = "; ".join(f"{s['name']}: {s['steps']} steps of {s['batch'] * s['accumulation']}" for s in recipe["stage"])
    a, b = card.calibration
    lines = [
        text,
        "",
        "## Training, as recorded",
        "",
        f"* {parameters / 1e6:.2f} M parameters; recipe `{about['recipe_file']}`, seed {about['seed']}; {stages};"
        f" windows of {recipe['crop']} pixels; {about['seconds'] / 60:.0f} minutes on {about['threads']} CPU threads.",
        f"* Trained on {data['training']} samples; {data['held_out']} of other groups held out (`{data['sha256']}`).",
        f"* Probability: sigmoid({a:g} x logit {b:+g}), for a prior of one half; threshold {card.threshold:g}, mask"
        f" threshold {card.mask_threshold:g}. Fitted on {fitted.get('authentic')} authentic and {fitted.get('forged')}"
        f" forged photos of groups that training never saw (manifest `{fitted.get('sha256')}`).",
        "",
        "## Figures, as measured",
        "",
    ]
    for heading in dict.fromkeys(heading for heading, _ in rows):
        lines += [f"### {heading}", "", card_table([row for name, row in rows if name == heading])]
    return "\n".join(lines)


def commit() -> str | None:
    """The git commit of this code, marked ``+`` if files differ from it; ``None`` outside a checkout."""
    ask = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+")
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _outcome(
    sample: Sample, report: Report, soft: npt.NDArray[np.float32] | None, threshold: float | None, mask_threshold: float
) -> Outcome:
    """Compare one report with its truth. A photo counts as forged as its sample says, even if it has lost its mask."""
    assert report.probability is not None
    assert report.heatmap is not None
    hot = report.heatmap >= mask_threshold
    forged = report.probability >= (0.5 if threshold is None else threshold)
    if soft is not None and soft.shape != hot.shape:
        raise DataError(f"{sample.truth.media.path}: heat map {hot.shape} for a picture of {soft.shape}")
    truth = np.zeros(hot.shape, bool) if soft is None else soft >= 0.5
    shown = report.mask if report.mask is not None and forged == report.forged else hot & forged
    return Outcome(
        sample.truth.media.path,
        sample.kind,
        sample.group,
        sample.truth.forged,
        float(report.probability),
        confusion(hot, truth),
        confusion(shown, truth),
    )


def _figures(outcomes: Sequence[Outcome], threshold: float) -> dict[str, float | None]:
    """Every figure over these photos; ``None`` where it is not defined."""
    scores, labels = [o.probability for o in outcomes], [o.forged for o in outcomes]
    forged = [o for o in outcomes if o.forged]
    found = [o.probability >= threshold for o in forged]
    values = {
        "auc": roc_auc(scores, labels),
        "f1": mean_pixel_f1(o.pixels for o in forged),
        "iou": mean_pixel_iou(o.pixels for o in forged),
        "f1_shown": mean_pixel_f1(o.shown for o in forged),
        "detected": sum(found) / len(found) if found else np.nan,
        "false_alarms": false_positive_rate(scores, labels, threshold),
        "ece": expected_calibration_error(scores, labels),
    }
    return {name: None if np.isnan(value) else round(float(value), 5) for name, value in values.items()}


def _intervals(outcomes: Sequence[Outcome], threshold: float) -> dict[str, list[float]]:
    """95 % bootstrap intervals of every figure: whole groups are drawn, since photos of one group are alike."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.group, []).append(outcome)
    names = sorted(groups)
    rng = np.random.default_rng(0)
    draws: dict[str, list[float]] = {}
    for _ in range(DRAWS):
        picked = [o for i in rng.integers(len(names), size=len(names)) for o in groups[names[i]]]
        for name, value in _figures(picked, threshold).items():
            if value is not None:
                draws.setdefault(name, []).append(value)
    return {name: [round(float(q), 4) for q in np.quantile(values, (0.025, 0.975))] for name, values in draws.items()}


def _write(path: Path, row: dict[str, Any], outcomes: Iterable[Outcome]) -> None:
    """The row as JSON, the photos as CSV beside it; the row, written last, appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "kind", "group", "forged", "probability", "f1", "iou", "f1_shown"])
        for o in outcomes:
            name, figures = Path(o.path).name, (o.pixels.f1, o.pixels.iou, o.shown.f1)
            table.writerow(
                [name, o.kind, o.group, int(o.forged), f"{o.probability:.6f}", *(f"{v:.4f}" for v in figures)]
            )
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(row, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def _bar(samples: Sequence[Sample], text: str, on: bool) -> Iterable[Sample]:
    """The samples, with a progress bar while they are gone through."""
    if not on:
        return samples
    from rich.progress import track

    return track(samples, description=text)


def _spoken(perturb: str) -> str:
    return {"none": "as they are"}.get(perturb, re.sub(r"(?<=[a-z])(?=[\d.])", " ", perturb))


def _cell(value: float | None, interval: Sequence[float] | None = None) -> str:
    text = "–" if value is None else f"{value:.3f}"  # noqa: RUF001
    return text + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval and value is not None else "")


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
