"""What a model is worth: whole photos or clips in, one row of figures out, each over all and per kind of forgery.

A row names the weights, the data and the commit by their hashes, so that a table made from rows can be checked.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from .metrics.temporal import (
    NUMBERS,
    Matching,
    bootstrap,
    equal_error_rate,
    frame_labels,
    proposals_of,
    spans_of,
)
from .pipeline import JUDGED, Session
from .report import Modality, Report, Segment

SCHEMA = "seamline.evaluation/1"
DRAWS = 1000  # bootstrap resamples
PROPOSALS = max(NUMBERS)  # asked for of a clip
FRAMES = 25.0  # per second, in which forged frames of a clip are counted
COVERS: dict[str, tuple[Modality, ...]] = {
    "video": ("video",),
    "audio": ("audio",),
    "audio_visual": ("video", "audio"),
}  # which forgeries a modality's score is about
PART_FIGURES = ("auc", "ap50", "ap75", "ap95", "ar100", "ar10", "detected", "boundary_ms")  # of a kind of clips
SPOKEN = {"auc": "AUC", "f1": "F1", "ap50": "AP@.5"}
CUTS = np.linspace(0.05, 0.95, 19)  # thresholds of pixels that calibration tries
SEGMENT_CUTS = np.append([0.01, 0.02, 0.03], CUTS)  # and of segments, whose scores are products and so often small

Pixels = npt.NDArray[np.uint8]
Scan = Callable[[Any], Report]


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


@dataclass(frozen=True, eq=False)
class ClipOutcome:
    """What one clip counts."""

    path: str
    kind: str
    group: str
    forged_in: frozenset[Modality]  # of video and audio; empty: authentic
    truth: npt.NDArray[np.float64]  # (m, 2) forged seconds of either
    report: Report
    frames: Confusion  # of the segments as delivered

    @property
    def probability(self) -> float:
        """Of forgery; nan if the clip could not be judged."""
        return math.nan if self.report.probability is None else self.report.probability


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
    """Scan every photo or clip of a data folder and compare with the truth.

    Args:
        model: a name or file that the zoo loads, a :class:`Session`, or anything that turns (H, W, 3) uint8 RGB
            pixels into a :class:`Report` with probability and heat map, or the path of a clip into one with
            probability, modalities, segments and ranked proposals.
        data: a data folder (see :func:`seamline.data.read_folder`), of photos or of clips.
        out: write the row to this JSON file, and the files one by one to a CSV file of the same name beside it.
        threshold: of the file's probability; by default the one that the model's reports carry.
        mask_threshold: of the heat map; by default the model's own, else 0.5.
        perturb: ``none``, ``jpegQ`` (encode at quality Q, 4:2:0) or ``resizeF`` (by factor F, area averaging),
            done to authentic and forged photos alike.
        device: where a model given by name runs.
        limit: take only so many files, spread evenly over the folder.
        progress: show a progress bar.

    Returns:
        The row. Model, data, thresholds; the figures, ``None`` where one is not defined; ``ci95`` for each of them,
        from resampling whole groups; and ``kinds`` of forgery, each together with all that is authentic.

        Of both: ``auc``, ``detected`` (share of the forged), ``false_alarms`` (share of the authentic) and ``ece``.

        Of photos: ``f1`` and ``iou`` (mean over forged photos, heat map at the fixed threshold), ``f1_shown`` (of the
        mask as delivered).

        Of clips (``modality`` is ``audio_visual``): ``ap50 ap75 ap95 ar100 ar50 ar20 ar10`` of the proposals, as
        :mod:`seamline.metrics.temporal` defines them, over the seconds forged in either modality; ``auc_video`` and
        ``auc_audio``, of a modality's own probability against whether it is forged; ``eer``; ``boundary_ms``, mean
        error of the ends of found spans; ``frame_f1``, of the segments as delivered. Besides ``kinds`` there is
        ``forged_in``, by the modality that is forged. A forged clip that could not be judged is a missed one.

    Raises:
        DataError: the data or the perturbation are not what they should be, or no file could be judged.
        MediaError: a file cannot be read.
        WeightsError: the model cannot be loaded.
    """
    samples = read_folder(data)
    if limit is not None and limit < len(samples):
        samples = [samples[i * len(samples) // limit] for i in range(limit)]
    if _of_clips(samples, data):
        if perturb != "none" or mask_threshold is not None:
            raise DataError(f"{data}: holds clips; perturbations and mask thresholds are for photos")
        return _evaluate_clips(_clip_scan(model, device), data, samples, out, threshold, progress)
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
        "model": _speaker(about),
        "data": {"name": Path(data).name, "sha256": digest(data)},
        "perturb": perturb,
        "threshold": cut,
        "mask_threshold": mask_threshold,
        "n": {"authentic": len(authentic), "forged": len(outcomes) - len(authentic), "unjudged": unjudged},
        **_figures(outcomes, cut),
        "ci95": _photo_intervals(outcomes, cut),
        "kinds": kinds,
        "seconds_per_megapixel": round(seconds / megapixels, 3),
        "commit": commit(),
        "environment": about.environment,
    }
    if out is not None:
        _write(Path(out), row, _photo_table(outcomes))
    return row


def calibrate(
    weights: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    false_alarms: float = 0.03,
    progress: bool = True,
) -> dict[str, Any]:
    """Fit probability and thresholds on files that neither trained the weights nor will judge them, and save both.

    The probability is sigmoid(a * logit + b), by logistic regression with both classes weighing one half (Platt, 1999).
    The threshold is the lowest that flags at most ``false_alarms`` of the authentic files; the mask threshold the one
    with the best mean pixel F1 on the forged photos. Of clips, each modality has a calibration of its own, for whether
    this modality is forged, and the segment threshold is the one with the best mean F1 of forged frames.

    Args:
        weights: a ``.safetensors`` file of ours, or a catalogue name.
        data: a data folder with authentic and forged photos, or clips.
        out: the same weights with these facts, as ``.safetensors``.
        false_alarms: share of authentic files that may be flagged, in [0, 1).
        progress: show a progress bar.

    Returns:
        The facts: ``calibration`` (a, b), ``threshold``, ``mask_threshold``, and how many photos they rest on; of clips
        also ``calibrations`` by modality, and ``segment_threshold`` instead of ``mask_threshold``.

    Raises:
        DataError: the folder lacks authentic or forged files, or what it holds is not what the weights judge.
        WeightsError: the weights cannot be loaded.
    """
    detector, card = zoo.load_detector(weights)
    samples = read_folder(data)
    clips = _of_clips(samples, data)
    if clips == (detector.modality == "image"):
        raise DataError(f"{data}: holds {'clips' if clips else 'photos'}, which {card.name} does not judge")
    raw = dataclasses.replace(card, calibration=(1.0, 0.0))
    if clips:
        raw = dataclasses.replace(raw, calibrations={}, threshold=0.0, segment_threshold=0.0)
    session = Session(detector, card=raw)
    fitted = (_fit_clips if clips else _fit_photos)(session, _bar(samples, "calibrate", progress), data, false_alarms)
    facts = fitted | {"calibrated_on": {"sha256": digest(data)} | fitted["calibrated_on"]}
    zoo.save(detector, out, **zoo.facts(weights) | facts)
    return facts


def _fit_photos(scan: Scan, samples: Iterable[Sample], data: str | Path, false_alarms: float) -> dict[str, Any]:
    """The facts of :func:`calibrate` from photos; ``scan`` gives sigmoid(logit) as probability."""
    logits, forged, f1 = [], [], []
    for sample in samples:
        rgb, soft = sample.load()
        report = scan(rgb)
        if report.probability is None or report.heatmap is None:
            continue
        logits.append(_logit(report.probability))
        forged.append(soft is not None)
        if soft is not None:
            f1.append([confusion(report.heatmap >= cut, soft >= 0.5).f1 for cut in CUTS])
    x, y = np.array(logits), np.array(forged, bool)
    _both_classes(y, data, "photos")
    a, b = platt(x, y)
    return {
        "calibration": [round(a, 6), round(b, 6)],
        "threshold": _operating_point(a * x + b, y, false_alarms),
        "mask_threshold": round(float(CUTS[int(np.argmax(np.mean(f1, 0)))]), 2),
        "calibrated_on": {"authentic": int((~y).sum()), "forged": int(y.sum())},
    }


def _fit_clips(scan: Scan, samples: Iterable[Sample], data: str | Path, false_alarms: float) -> dict[str, Any]:
    """The facts of :func:`calibrate` from clips; ``scan`` gives sigmoid(logit) and all segments of any probability."""
    judged: list[tuple[Modality, float]] = []  # of each clip what its verdict comes from, and the logit
    forged: list[bool] = []
    apart: dict[str, list[tuple[float, bool]]] = {}  # of each modality logits, and whether it is forged
    f1: list[list[float]] = []
    for sample in samples:
        report = scan(sample.media)
        if report.probability is None:
            continue
        judge = next(key for key in JUDGED if key in report.modalities)
        judged.append((judge, _logit(report.modalities[judge])))
        forged.append(sample.truth.forged)
        for key, probability in report.modalities.items():
            wrong = bool(_forged_in(sample.truth) & set(COVERS[key]))
            apart.setdefault(key, []).append((_logit(probability), wrong))
        truth, ticks = spans_of(sample.truth), _ticks(sample, report)
        if frame_labels(truth, ticks, FRAMES).any():
            kept = [spans_of(dataclasses.replace(report, segments=_above(report, cut))) for cut in SEGMENT_CUTS]
            f1.append([_frames(spans, truth, ticks).f1 for spans in kept])
    x, y = np.array([logit for _, logit in judged]), np.array(forged, bool)
    _both_classes(y, data, "clips")
    overall = platt(x, y)
    fits: dict[str, tuple[float, float]] = {}
    for key, pairs in apart.items():
        logits, labels = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], bool)
        if labels.any() and not labels.all():
            fits[key] = platt(logits, labels)
    lines = np.array([fits.get(judge, overall) for judge, _ in judged])  # (n, 2)
    return {
        "calibration": [round(value, 6) for value in overall],
        "calibrations": {key: [round(value, 6) for value in fits[key]] for key in sorted(fits)},
        "threshold": _operating_point(lines[:, 0] * x + lines[:, 1], y, false_alarms),
        "segment_threshold": round(float(SEGMENT_CUTS[int(np.argmax(np.mean(f1, 0)))]), 2),
        "calibrated_on": {"authentic": int((~y).sum()), "forged": int(y.sum())},
    }


def _logit(probability: float) -> float:
    p = min(max(probability, 1e-12), 1 - 1e-12)
    return float(np.log(p / (1 - p)))


def _both_classes(forged: npt.NDArray[np.bool_], data: str | Path, what: str) -> None:
    if forged.all() or not forged.any():
        count = f"{int(forged.sum())} of {len(forged)} are forged"
        raise DataError(f"{data}: calibration needs authentic and forged {what}; {count}")


def _operating_point(logits: npt.NDArray[np.float64], forged: npt.NDArray[np.bool_], false_alarms: float) -> float:
    """The lowest threshold of sigmoid(logit) that at most this share of the authentic reach, to four decimals."""
    allowed = np.quantile(logits[~forged], 1 - false_alarms, method="higher")
    return float(np.ceil(1e4 / (1 + np.exp(-np.nextafter(allowed, np.inf)))) / 1e4)


def _above(report: Report, cut: float) -> tuple[Segment, ...]:
    """The segments that a segment threshold of ``cut`` would have left."""
    return tuple(segment for segment in report.segments if segment.probability >= cut)


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
    """The tables of a model card, in Markdown, from rows of :func:`evaluate`: all of photos, or all of clips.

    Rows of photos differ in their perturbation, rows of clips in their data.
    """
    clips = rows[0].get("modality") == "audio_visual"
    lines = _clip_lines(rows) if clips else _photo_lines(rows)
    first = rows[0]
    cuts = f"Threshold {first['threshold']:.3g}"
    cuts += "." if clips else f", mask threshold {first['mask_threshold']:.3g}."
    digests = ", ".join(dict.fromkeys(f"`{row['data']['sha256']}`" for row in (rows if clips else rows[:1])))
    lines += [
        "",
        f"{cuts} In brackets: 95 % interval, from resampling whole groups of {'clips' if clips else 'photos'}.",
        f"Weights SHA-256 `{first['model']['sha256']}`, data manifest {digests}, commit `{first['commit']}`.",
    ]
    return "\n".join(lines) + "\n"


def _photo_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| photos | authentic | forged | image AUC | pixel F1 | IoU | F1 as shown | detected | false alarms | ECE |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    figures = ("auc", "f1", "iou", "f1_shown", "detected", "false_alarms", "ece")
    for row in rows:
        cells = [_cell(row[name], row["ci95"].get(name)) for name in figures]
        lines.append(_line(_spoken(row["perturb"]), row["n"]["authentic"], row["n"]["forged"], *cells))
    return lines + _kind_lines(rows, [_spoken(row["perturb"]) for row in rows], ("auc", "f1", "detected"))


def _clip_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    names = [row["data"]["name"] for row in rows]
    lines = ["| clips | authentic | forged | clip AUC | of video | of audio | detected | false alarms | ECE |"]
    lines.append("|---" * 9 + "|")
    for name, row in zip(names, rows, strict=True):
        figures = ("auc", "auc_video", "auc_audio", "detected", "false_alarms", "ece")
        cells = [_cell(row[figure], row["ci95"].get(figure)) for figure in figures]
        lines.append(_line(name, row["n"]["authentic"], row["n"]["forged"], *cells))
    lines += ["", "| clips | AP@.5 | AP@.75 | AP@.95 | AR@100 | AR@50 | AR@20 | AR@10 | frame F1 | ends off by |"]
    lines.append("|---" * 10 + "|")
    for name, row in zip(names, rows, strict=True):
        spans = ("ap50", "ap75", "ap95", "ar100", "ar50", "ar20", "ar10", "frame_f1")
        cells = [_cell(row[figure], row["ci95"].get(figure)) for figure in spans]
        lines.append(_line(name, *cells, _milliseconds(row["boundary_ms"], row["ci95"].get("boundary_ms"))))
    lines += _kind_lines(rows, names, ("auc", "ap50", "detected"), "forged_in")
    return lines + _kind_lines(rows, names, ("auc", "ap50", "detected"))


def _kind_lines(
    rows: Sequence[dict[str, Any]], names: Sequence[str], figures: Sequence[str], where: str = "kinds"
) -> list[str]:
    """A table of parts of the data by kind of forgery, or by modality that is forged; a column for every row."""
    spoken = " / ".join(SPOKEN.get(figure, figure) for figure in figures)
    lines = ["", f"Per {'kind of forgery' if where == 'kinds' else 'modality that is forged'}, as {spoken}:", ""]
    lines += [_line("kind" if where == "kinds" else "forged in", *names), "|---" * (len(rows) + 1) + "|"]
    kinds = sorted({kind for row in rows for kind in row[where]})
    forgeries = [kind for kind in kinds if any("detected" in row[where].get(kind, {}) for row in rows)]
    for kind in forgeries:
        parts = [[_cell(row[where].get(kind, {}).get(name)) for name in figures] for row in rows]
        lines.append(_line(kind, *(" / ".join(part) for part in parts)))
    for kind in (kind for kind in kinds if kind not in forgeries):
        alarms = (_cell(row[where].get(kind, {}).get("false_alarms")) for row in rows)
        lines.append(_line(f"false alarms: {kind}", *alarms))
    return lines


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
    clips = detector.modality != "image"
    lines = [
        text,
        "",
        "## Training, as recorded",
        "",
        f"* {parameters / 1e6:.2f} M parameters; recipe `{about['recipe_file']}`, seed {about['seed']}; {stages};"
        f" windows of {recipe['crop']} {'ticks' if clips else 'pixels'};"
        f" {about['seconds'] / 60:.0f} minutes on {about['threads']} CPU threads.",
        f"* Trained on {data['training']} samples; {data['held_out']} of other groups held out (`{data['sha256']}`).",
        f"* Probability: {_fitted(card)}, for a prior of one half; threshold {card.threshold:g},"
        + (f" segment threshold {card.segment_threshold:g}" if clips else f" mask threshold {card.mask_threshold:g}")
        + f". Fitted on {fitted.get('authentic')} authentic and {fitted.get('forged')} forged"
        f" {'clips' if clips else 'photos'} of groups that training never saw (manifest `{fitted.get('sha256')}`).",
        "",
        "## Figures, as measured",
        "",
    ]
    for heading in dict.fromkeys(heading for heading, _ in rows):
        lines += [f"### {heading}", "", card_table([row for name, row in rows if name == heading])]
    return "\n".join(lines)


def _fitted(card: zoo.Card) -> str:
    """How a logit becomes a probability, in words."""
    apart = {f" of {name}": fit for name, fit in card.calibrations.items()} or {"": card.calibration}
    return ", ".join(f"sigmoid({a:g} x logit{name} {b:+g})" for name, (a, b) in apart.items())


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
    return _rounded(values)


def _photo_intervals(outcomes: Sequence[Outcome], threshold: float) -> dict[str, list[float]]:
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


def _photo_table(outcomes: Iterable[Outcome]) -> Iterator[list[object]]:
    """The photos one by one, after a line of headings."""
    yield ["file", "kind", "group", "forged", "probability", "f1", "iou", "f1_shown"]
    for o in outcomes:
        figures = (o.pixels.f1, o.pixels.iou, o.shown.f1)
        row = [Path(o.path).name, o.kind, o.group, int(o.forged), f"{o.probability:.6f}"]
        yield [*row, *(f"{value:.4f}" for value in figures)]


# ----------------------------------------------------------------------------------------------------------- clips


def _of_clips(samples: Sequence[Sample], data: str | Path) -> bool:
    """Whether these are clips; photos and clips together are neither."""
    clips = sum(sample.is_clip for sample in samples)
    if 0 < clips < len(samples):
        raise DataError(f"{data}: holds {len(samples) - clips} photos and {clips} clips; keep them in folders apart")
    return clips > 0


def _clip_scan(model: str | Path | Scan, device: str) -> Scan:
    """What turns a clip into a report that lists enough proposals."""
    if isinstance(model, (str, Path)):
        return Session(model, device, proposals=PROPOSALS)
    if isinstance(model, Session):
        model = copy.copy(model)  # the caller's own stays as it was
        model.proposals = max(model.proposals, PROPOSALS)
    return model


def _evaluate_clips(
    scan: Scan,
    data: str | Path,
    samples: Sequence[Sample],
    out: str | Path | None,
    threshold: float | None,
    progress: bool,
) -> dict[str, Any]:
    """:func:`evaluate` for clips."""
    outcomes: list[ClipOutcome] = []
    began = time.perf_counter()
    for sample in _bar(samples, "evaluate", progress):
        report = dataclasses.replace(scan(sample.media), curves={}, heatmap=None, mask=None)  # these are large
        truth = spans_of(sample.truth)
        frames = _frames(spans_of(report), truth, _ticks(sample, report))
        outcomes.append(
            ClipOutcome(
                sample.truth.media.path, sample.kind, sample.group, _forged_in(sample.truth), truth, report, frames
            )
        )
    seconds = time.perf_counter() - began
    about = next((o.report for o in outcomes if o.report.probability is not None), None)
    if about is None:
        raise DataError(f"{data}: none of the {len(samples)} clips could be judged")
    if threshold is None:
        threshold = 0.5 if about.threshold is None else about.threshold

    authentic = [o for o in outcomes if not o.forged_in]
    table = _Clips(outcomes, threshold)
    length = sum(_ticks(sample, o.report) for sample, o in zip(samples, outcomes, strict=True)) / FRAMES
    row: dict[str, Any] = {
        "schema": SCHEMA,
        "modality": "audio_visual",
        "model": _speaker(about),
        "data": {"name": Path(data).name, "sha256": digest(data)},
        "perturb": "none",
        "threshold": threshold,
        "n": {
            "authentic": len(authentic),
            "forged": len(outcomes) - len(authentic),
            "unjudged": sum(math.isnan(o.probability) for o in outcomes),
        },
        **_rounded(table.figures()),
        "ci95": {
            name: [round(value, 4) for value in ends]
            for name, ends in bootstrap(table.figures, [o.group for o in outcomes], draws=DRAWS).items()
        },
        "forged_in": _parts({o: _words(o.forged_in) for o in outcomes if o.forged_in}, authentic, threshold),
        "kinds": _parts({o: o.kind for o in outcomes}, authentic, threshold),
        "times_realtime": round(length / seconds, 2),
        "commit": commit(),
        "environment": about.environment,
    }
    if out is not None:
        _write(Path(out), row, _clip_table(outcomes))
    return row


class _Clips:
    """Outcomes of clips in columns, so that any resample of them is judged at once."""

    def __init__(self, outcomes: Sequence[ClipOutcome], threshold: float) -> None:
        self.matching = Matching([proposals_of(o.report) for o in outcomes], [o.truth for o in outcomes])
        self.threshold = threshold
        self.forged = np.array([bool(o.forged_in) for o in outcomes])
        self.score = np.array([o.probability for o in outcomes])  # nan: not judged
        self.apart = {
            key: (
                np.array([o.report.modalities.get(key, math.nan) for o in outcomes]),
                np.array([key in o.forged_in for o in outcomes]),
            )
            for key in COVERS["audio_visual"]
        }
        self.frames = np.array([o.frames for o in outcomes])  # (n, 4)

    def figures(self, times: npt.NDArray[np.int64] | None = None) -> dict[str, float]:
        """Every figure, nan where it is not defined; ``times``, (n,): how often each clip counts."""
        drawn = np.arange(len(self.forged)) if times is None else np.repeat(np.arange(len(times)), times)
        judged = drawn[~np.isnan(self.score[drawn])]
        score, label = self.score[judged], self.forged[judged]
        forged = drawn[self.forged[drawn]]
        return {
            **{f"ap{round(100 * iou)}": value for iou, value in self.matching.ap(times).items()},
            **{f"ar{number}": value for number, value in self.matching.ar(times).items()},
            "auc": roc_auc(score, label),
            **{f"auc_{key}": _auc_of_judged(*(a[drawn] for a in columns)) for key, columns in self.apart.items()},
            "eer": equal_error_rate(score, label),
            "detected": float((self.score[forged] >= self.threshold).mean()) if len(forged) else math.nan,
            "false_alarms": false_positive_rate(score, label, self.threshold),
            "ece": expected_calibration_error(score, label),
            "boundary_ms": self.matching.boundary(times).mean,
            "frame_f1": Confusion(*self.frames[drawn].sum(0).tolist()).f1,
        }


def _auc_of_judged(score: npt.NDArray[np.float64], label: npt.NDArray[np.bool_]) -> float:
    """AUC of the clips that have a score."""
    there = ~np.isnan(score)
    return roc_auc(score[there], label[there])


def _parts(
    names: Mapping[ClipOutcome, str], authentic: Sequence[ClipOutcome], threshold: float
) -> dict[str, dict[str, Any]]:
    """Figures by name of a part: forged clips of that name together with all authentic ones."""
    parts: dict[str, dict[str, Any]] = {}
    for name in sorted(set(names.values())):
        members = [o for o, own in names.items() if own == name]
        forged = [o for o in members if o.forged_in]
        shown = ("false_alarms",) if not forged else PART_FIGURES
        figures = _rounded(_Clips(forged + list(authentic) if forged else members, threshold).figures())
        parts[name] = {"n": len(members)} | {figure: figures[figure] for figure in shown}
    return parts


def _clip_table(outcomes: Iterable[ClipOutcome]) -> Iterator[list[object]]:
    """The clips one by one, after a line of headings."""
    scores = ("video", "audio", "audio_visual")
    yield [
        *("file", "kind", "group", "seconds", "forged_in", "verdict", "probability"),
        *scores,
        *("ap50", "ar10", "boundary_ms", "frame_f1", "truth", "segments"),
    ]
    for o in outcomes:
        own = Matching([proposals_of(o.report)], [o.truth], ious=(0.5,), numbers=(10,))
        figures = (own.ap()[0.5], own.ar()[10], own.boundary().mean, o.frames.f1)
        found = o.report.modalities
        duration = o.report.media.duration
        yield [
            *(Path(o.path).name, o.kind, o.group, "" if duration is None else f"{duration:.2f}"),
            *(_words(o.forged_in), o.report.verdict, _decimal(o.probability, 6)),
            *(_decimal(found.get(key, math.nan), 6) for key in scores),
            *(_decimal(value, 4) for value in figures),
            "; ".join(f"{start:.2f}-{end:.2f}" for start, end in o.truth),
            "; ".join(f"{s.start:.2f}-{s.end:.2f} {s.modality}" for s in o.report.segments),
        ]


def _forged_in(truth: Report) -> frozenset[Modality]:
    """Which of video and audio are forged."""
    return frozenset(key for segment in truth.segments for key in COVERS.get(segment.modality, ()))


def _words(modalities: frozenset[Modality]) -> str:
    """``video``, ``audio``, ``audio_visual``, or nothing."""
    return next((name for name, covered in COVERS.items() if modalities == set(covered)), "")


def _ticks(sample: Sample, report: Report) -> int:
    """How many frames of ``1 / FRAMES`` seconds a clip lasts."""
    ends = [s.end for s in (*sample.truth.segments, *report.segments)]
    duration = report.media.duration or sample.truth.media.duration or max(ends, default=0.0)
    return math.ceil(duration * FRAMES - 1e-6)


def _frames(found: npt.NDArray[np.float64], truth: npt.NDArray[np.float64], ticks: int) -> Confusion:
    """Counts of the frames that are called forged, and are."""
    return confusion(frame_labels(found, ticks, FRAMES), frame_labels(truth, ticks, FRAMES))


# ---------------------------------------------------------------------------------------------------------- writing


def _speaker(report: Report) -> dict[str, str | None]:
    """Which weights spoke."""
    model = report.model
    return {
        "name": model.name if model else None,
        "version": model.version if model else None,
        "sha256": model.sha256 if model else None,
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as a row holds them: five decimals, ``None`` for nan."""
    return {name: None if np.isnan(value) else round(float(value), 5) for name, value in figures.items()}


def _decimal(value: float, places: int) -> str:
    return "" if math.isnan(value) else f"{value:.{places}f}"


def _write(path: Path, row: dict[str, Any], table: Iterable[Sequence[object]]) -> None:
    """The row as JSON, the files as CSV beside it; the row, written last, appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
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


def _milliseconds(value: float | None, interval: Sequence[float] | None = None) -> str:
    text = "–" if value is None else f"{value:.0f} ms"  # noqa: RUF001
    return text + (f" [{interval[0]:.0f}, {interval[1]:.0f}]" if interval and value is not None else "")


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
