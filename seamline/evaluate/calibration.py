"""The probability and the thresholds of weights, fitted on files that neither trained them nor will judge them."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import zoo
from ..data import Sample, digest, open_data
from ..detectors.base import ClipDetector, Detector, ImageDetector
from ..errors import DataError
from ..familiar import PHOTO, SOUND, fit, photo, sound
from ..media import Clip, Image, open_media
from ..metrics.bootstrap import share_interval
from ..metrics.image import confusion
from ..metrics.temporal import frame_labels, spans_of
from ..pipeline import JUDGED, Session, weigh
from ..report import OperatingPoint, Report, Segment
from ..synthesis.perturb import change_photo
from ..verdicts import EVEN, last_save
from .outcomes import FRAMES, Scan, compare_frames, forged_in, holds_clips, ticks_of
from .rows import bar

RAW = {"logit": 1.0, "bias": 0.0}
TRACES = ("logit", "peak", "size")  # evidence that a JPEG save wears away
RIDGE = 1e-3  # what a weight costs, of evidence of unit spread
CUTS = np.linspace(0.05, 0.95, 19)  # thresholds of pixels that calibration tries
RATES = (0.01, 0.03, 0.1)  # of false alarms, at which verdicts are measured besides that asked for
FOLDS = 10
UNFAMILIAR = 0.02  # share of familiar files that may be called unfamiliar
QUALITIES = (30, 40, 50, 60, 70, 75, 80, 85, 90, 95)  # of JPEG, that are tried
RESAVED = 100  # forged photos, at most, that are saved again at those
MISSED = 0.5  # share of them that may be called authentic at the lowest
ENOUGH = 20  # photos of each class, at least, that a calibration of their own takes
SEGMENT_CUTS = np.append([0.01, 0.02, 0.03], CUTS)  # and of segments, whose scores are products and so often small


def calibrate(
    weights: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    familiar: str | Path | None = None,
    false_alarms: float = 0.01,
    progress: bool = True,
) -> dict[str, Any]:
    """Fit probability, thresholds and limits on files that neither trained the weights nor will judge them; save all.

    The probability is the sigmoid of the weighed evidence, by logistic regression with both classes weighing one half
    (after Platt, 1999): of a photo all of ``zoo.EVIDENCE``, see :func:`logistic`; of a clip a * logit + b, where the
    logit of each modality is weighed by whether that modality is forged, and what the more suspect one says is weighed
    once more, by whether the clip is. The threshold is the lowest that flags at most ``false_alarms`` of the authentic
    files; the mask threshold the one with the best mean pixel F1 on the forged photos, the segment threshold of clips
    the one with the best mean F1 of forged frames.

    How often verdicts are wrong at the threshold, and at others, is measured on each tenth of the groups with a
    threshold from the other nine. What is familiar is described by the content of the files, authentic and forged, so
    that ``UNFAMILIAR`` of them would be called unfamiliar; with fewer than 35 files that is left out.

    The lowest JPEG quality is the lowest of ``QUALITIES`` at which, of forged photos saved again, ``RESAVED`` at most,
    not more than ``MISSED`` are called authentic by their ``TRACES``. Photos saved below it get no verdict unless a
    copy is found in them, so the threshold and what it costs are those of the others. Evidence means the more the more
    traces the last save left, so there is a calibration for each kind of it (``verdicts.last_save``) of which there are
    enough photos, and one threshold for the probabilities.

    Args:
        weights: a ``.safetensors`` file of ours, or a catalogue name.
        data: a data folder with authentic and forged photos, or clips.
        out: the same weights with these facts, as ``.safetensors``.
        familiar: a data folder whose content tells what is familiar, instead of ``data``; it may be what the weights
            were trained on, as no label is used. The more cameras or speakers, the better.
        false_alarms: share of authentic files that may be flagged, in [0, 1).
        progress: show a progress bar.

    Returns:
        The facts: ``calibration`` (weights by name), ``calibrations``, ``threshold``, ``mask_threshold``,
        ``operating_points``, ``familiarity``, ``lowest_quality``, and how many photos they rest on; of clips
        ``segment_threshold`` instead of ``mask_threshold``, and no quality. ``calibrations`` are those of ``lossless``
        and ``compressed`` photos, or of modalities.

    Raises:
        DataError: the folder lacks authentic or forged files, or what it holds is not what the weights judge.
        WeightsError: the weights cannot be loaded.
    """
    detector, card = zoo.load_detector(weights)
    samples = open_data(data)
    clips = holds_clips(samples, data)
    if clips == (detector.modality == "image"):
        raise DataError(f"{data}: holds {'clips' if clips else 'photos'}, which {card.name} does not judge")
    known = open_data(familiar) if familiar is not None else samples
    if holds_clips(known, familiar or data) != clips:
        raise DataError(f"{familiar}: holds {'photos' if clips else 'clips'}, which {card.name} does not judge")
    raw = dataclasses.replace(
        card, calibration=RAW, calibrations={}, familiarity={}, operating_points=(), lowest_quality=0
    )
    if clips:
        raw = dataclasses.replace(raw, threshold=0.0, segment_threshold=0.0)
    shown = bar(samples, "calibrate", progress)
    if isinstance(detector, ImageDetector):
        fitted = _fit_photos(detector, raw, shown, data, false_alarms)
    else:
        fitted = _fit_clips(Session(detector, card=raw), shown, data, false_alarms)
    facts = fitted | {"calibrated_on": {"sha256": digest(data)} | fitted["calibrated_on"]}
    facts |= {"familiarity": _fit_familiarity(detector, bar(known, "familiar", progress))}
    zoo.save(detector, out, **zoo.facts(weights) | facts)
    return facts


def _fit_photos(
    detector: ImageDetector, card: zoo.Card, samples: Iterable[Sample], data: str | Path, false_alarms: float
) -> dict[str, Any]:
    """The facts of :func:`calibrate` from photos."""
    scan = Session(detector, card=dataclasses.replace(card, calibration=RAW | {"copies": 0.0}))
    evidence, forged, groups, f1 = [], [], [], []
    judged: list[Sample] = []
    for sample in samples:
        rgb, soft = sample.load()
        report = scan(rgb)
        if report.probability is None or report.heatmap is None:
            continue
        judged.append(sample)
        groups.append(sample.group)
        evidence.append(report.evidence)
        forged.append(soft is not None)
        if soft is not None:
            f1.append([confusion(report.heatmap >= cut, soft >= 0.5).f1 for cut in CUTS])
    y, of = np.array(forged, bool), np.array(groups)
    _both_classes(y, data, "photos")
    traces = logistic([{name: found[name] for name in TRACES} for found in evidence], y)
    bare = Session(detector, card=dataclasses.replace(card, calibration=traces))
    lowest = _lowest_quality(bare, list(compress(judged, y))[:RESAVED])
    saved = np.array([_last_save(sample, lowest, detector) for sample in judged])
    clear = saved != "compressed"
    clear |= not _enough(y[clear])  # verdicts rest on too few photos to tell: then on all
    usual = clear & (saved != "lossless")
    usual = usual if _enough(y[usual]) else clear
    apart = [(name, here) for name in ("lossless", "compressed") if _enough(y[(here := (saved == name) & ~usual)])]
    fits = {name: logistic(list(compress(evidence, here)), y[here]) for name, here in (("", usual), *apart)}
    z = np.array([weigh(found, fits.get(name, fits[""])) for found, name in zip(evidence, saved, strict=True)])
    told = clear | np.array([found["copies"] > 0 for found in evidence])  # get a verdict
    return {
        "calibration": _rounded(fits[""]),
        "calibrations": {name: _rounded(fits[name]) for name, _ in apart},
        "threshold": _threshold(z[told], y[told], false_alarms),
        "mask_threshold": round(float(CUTS[int(np.argmax(np.mean(f1, 0)))]), 2),
        "operating_points": _operating_points(z[told], y[told], of[told].tolist(), false_alarms),
        "lowest_quality": lowest,
        "calibrated_on": {"authentic": int((~y).sum()), "forged": int(y.sum())},
    }


def _rounded(weights: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in weights.items()}


def _last_save(sample: Sample, lowest_quality: int, detector: ImageDetector) -> str:
    medium = open_media(sample.media) if isinstance(sample.media, Path) else sample.media
    if not isinstance(medium, Image):
        return ""
    return last_save(medium, lowest_quality, traced=detector.lead(medium.pixels) is not None)


def _enough(forged: npt.NDArray[np.bool_]) -> bool:
    """Whether there are photos of both classes to fit a probability to."""
    return min(int(forged.sum()), int((~forged).sum())) >= ENOUGH


def _fit_clips(scan: Scan, samples: Iterable[Sample], data: str | Path, false_alarms: float) -> dict[str, Any]:
    """The facts of :func:`calibrate` from clips; ``scan`` gives sigmoid(logit) and all segments of any probability."""
    groups: list[str] = []
    judged: list[float] = []  # of each clip the logit that the network itself gives the verdict
    heard: list[dict[str, tuple[float, bool]]] = []  # of each clip the logits of its modalities, and if each is forged
    forged: list[bool] = []
    f1: list[list[float]] = []
    for sample in samples:
        report = scan(sample.media)
        if report.probability is None:
            continue
        groups.append(sample.group)
        judge = next(key for key in JUDGED if key in report.modalities)
        judged.append(_logit(report.modalities[judge]))
        forged.append(sample.truth.forged)
        wrong = forged_in(sample.truth)
        told = {key: _logit(report.modalities[key]) for key in JUDGED[1:] if key in report.modalities}
        heard.append({key: (logit, key in wrong) for key, logit in told.items()})
        truth, ticks = spans_of(sample.truth), ticks_of(sample.truth, report)
        if frame_labels(truth, ticks, FRAMES).any():
            kept = [spans_of(dataclasses.replace(report, segments=_above(report, cut))) for cut in SEGMENT_CUTS]
            f1.append([compare_frames(spans, truth, ticks).f1 for spans in kept])
    y = np.array(forged, bool)
    _both_classes(y, data, "clips")
    overall = logistic([{"logit": logit} for logit in judged], y)
    fits = _fit_modalities(heard, y)
    z = np.array(_most_suspect(heard, fits) if fits else [weigh({"logit": logit}, overall) for logit in judged])
    return {
        "calibration": _rounded(overall),
        "calibrations": {key: _rounded(fit) for key, fit in fits.items()},
        "threshold": _threshold(z, y, false_alarms),
        "segment_threshold": round(float(SEGMENT_CUTS[int(np.argmax(np.mean(f1, 0)))]), 2),
        "operating_points": _operating_points(z, y, groups, false_alarms),
        "calibrated_on": {"authentic": int((~y).sum()), "forged": int(y.sum())},
    }


def _fit_modalities(
    heard: Sequence[Mapping[str, tuple[float, bool]]], forged: npt.NDArray[np.bool_]
) -> dict[str, dict[str, float]]:
    """Weights of each modality: by whether it is forged, then of the more suspect one by whether the clip is.

    None if a clip has no modality, or one of them is always or never forged.
    """
    fits: dict[str, dict[str, float]] = {}
    for key in sorted({key for told in heard for key in told}):
        logits, wrong = zip(*(told[key] for told in heard if key in told), strict=True)
        if all(wrong) or not any(wrong):
            return {}
        fits[key] = logistic([{"logit": logit} for logit in logits], np.array(wrong, bool))
    if not all(heard):
        return {}
    again = logistic([{"logit": most} for most in _most_suspect(heard, fits)], forged)
    scale, bias = again["logit"], again["bias"]
    return {key: {"logit": scale * fit["logit"], "bias": scale * fit["bias"] + bias} for key, fit in fits.items()}


def _most_suspect(
    heard: Sequence[Mapping[str, tuple[float, bool]]], fits: Mapping[str, Mapping[str, float]]
) -> list[float]:
    """The largest weighed logit of each clip."""
    return [max(weigh({"logit": logit}, fits[key]) for key, (logit, _) in told.items()) for told in heard]


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits))


def _logit(probability: float) -> float:
    p = min(max(probability, 1e-12), 1 - 1e-12)
    return float(np.log(p / (1 - p)))


def _both_classes(forged: npt.NDArray[np.bool_], data: str | Path, what: str) -> None:
    if forged.all() or not forged.any():
        count = f"{int(forged.sum())} of {len(forged)} are forged"
        raise DataError(f"{data}: calibration needs authentic and forged {what}; {count}")


def _threshold(logits: npt.NDArray[np.float64], forged: npt.NDArray[np.bool_], false_alarms: float) -> float:
    """The lowest threshold of sigmoid(logit) that at most this share of the authentic reach, to four decimals."""
    allowed = np.quantile(logits[~forged], 1 - false_alarms, method="higher")
    return float(np.ceil(1e4 / (1 + np.exp(-np.nextafter(allowed, np.inf)))) / 1e4)


def _operating_points(
    logits: npt.NDArray[np.float64], forged: npt.NDArray[np.bool_], groups: Sequence[str], false_alarms: float
) -> list[dict[str, Any]]:
    """How often verdicts at ``false_alarms`` and at ``RATES`` are wrong, each as plain values of an OperatingPoint.

    A threshold would flatter the files that set it, so each file is called by one that the other nine tenths of the
    groups set. The interval counts the files of one group as little more than one if they score alike.
    """
    fold = np.unique(list(groups), return_inverse=True)[1] % FOLDS
    points = []
    for rate in sorted({false_alarms, *RATES}):
        called = np.zeros(len(logits), bool)
        for part in np.unique(fold):
            rest = fold != part if (~forged[fold != part]).any() else np.ones(len(fold), bool)
            called[fold == part] = _sigmoid(logits[fold == part]) >= _threshold(logits[rest], forged[rest], rate)
        wrong = called[~forged]
        low, high = share_interval(wrong, list(compress(groups, ~forged)), logits[~forged])
        point = OperatingPoint(
            threshold=_threshold(logits, forged, rate),
            false_alarms=round(float(wrong.mean()), 4),
            low=round(low, 4),
            high=round(high, 4),
            detected=round(float(called[forged].mean()), 4),
            missed=round(float((_sigmoid(logits[forged]) < EVEN).mean()), 4),
            authentic=len(wrong),
            forged=int(forged.sum()),
        )
        points.append(dataclasses.asdict(point))
    return points


def _lowest_quality(scan: Scan, forged: Sequence[Sample]) -> int:
    """The lowest of ``QUALITIES`` at which at most ``MISSED`` of forged photos, saved once more, pass for authentic.

    It is sought by halving, as the less a save keeps the more pass; 100 if too many do at the highest.
    """

    def told(quality: int) -> bool:
        change = change_photo(f"jpeg{quality}")
        probabilities = [scan(change(sample.pixels(), None)[0]).probability or 0.0 for sample in forged]
        return float(np.mean(np.less(probabilities, EVEN))) <= MISSED

    first = bisect.bisect_left(QUALITIES, True, key=told)
    return QUALITIES[first] if first < len(QUALITIES) else 100


def _fit_familiarity(detector: Detector, samples: Iterable[Sample]) -> dict[str, Any]:
    """What the content of files is like, as plain values; empty if they are too few to say."""
    names = PHOTO if detector.modality == "image" else SOUND
    features: list[npt.NDArray[np.float64]] = []
    groups: list[str] = []
    for sample in samples:
        if isinstance(detector, ClipDetector):
            clock = detector.clock
            medium = open_media(sample.media) if isinstance(sample.media, Path) else sample.media
            assert isinstance(medium, Clip)
            waves = medium.sound(clock.rate, clock.ticks / clock.fps)
            found = [known for wave in waves if (known := sound(wave, clock.rate)) is not None]
        else:
            found = [photo(sample.pixels())]
        features += found
        groups += [sample.group] * len(found)
    return fit(names, features, groups, UNFAMILIAR).to_dict() if len(features) >= 5 * len(names) else {}


def _above(report: Report, cut: float) -> tuple[Segment, ...]:
    """The segments that a segment threshold of ``cut`` would have left."""
    return tuple(segment for segment in report.segments if segment.probability >= cut)


def logistic(evidence: Sequence[Mapping[str, float]], forged: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Weights by name, and ``bias``, of the probability sigmoid(bias + sum of weight * evidence).

    Both classes weigh one half. Targets are softened as Platt (1999) does, (n + 1) / (n + 2) and 1 / (n + 2), and
    several weights are held back a little, so that what separates the classes keeps finite ones. No evidence but the
    size may speak for authentic the more there is of it: what would is left out; one alone weighs at least 1e-3.
    Copies, which are log odds by themselves, weigh at least 1, also where other traces already tell of all of them.
    """
    names = list(evidence[0])
    table = np.array([[found[name] for name in names] for found in evidence])
    given = np.array([found.get("copies", 0.0) for found in evidence])
    while True:
        weights, bias = _newton(table, forged, given, RIDGE if len(names) > 1 else 1e-9)
        wrong = [i for i, name in enumerate(names) if weights[i] < 0 and name != "size"]
        if not wrong or len(names) == 1:
            break
        worst = min(wrong, key=lambda i: weights[i] * table[:, i].std())
        table = np.delete(table, worst, 1)
        del names[worst]
    if len(names) == 1:
        weights = np.maximum(weights, 1e-3)
    fit = dict(zip(names, weights.tolist(), strict=True))
    least = {"copies": 1.0 + fit.get("copies", 0.0)} if "copies" in evidence[0] else {}
    return fit | least | {"bias": bias}


def _newton(
    table: npt.NDArray[np.float64], forged: npt.NDArray[np.bool_], given: npt.NDArray[np.float64], ridge: float
) -> tuple[npt.NDArray[np.float64], float]:
    """Weights (k,) and bias of a logistic regression on (n, k), by Newton's method on columns of unit spread.

    ``given`` (n,) are log odds that the weighed columns are added to.
    """
    middle, spread = table.mean(0), np.maximum(table.std(0), 1e-6)
    features = np.column_stack([(table - middle) / spread, np.ones(len(table))])
    positive, negative = int(forged.sum()), int((~forged).sum())
    target = np.where(forged, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weight = np.where(forged, 0.5 / positive, 0.5 / negative)
    held = ridge * np.eye(features.shape[1])
    held[-1, -1] = 1e-9
    theta = np.append(np.full(table.shape[1], 1.0 / table.shape[1]), 0.0)
    for _ in range(100):
        p = 1 / (1 + np.exp(-(features @ theta + given)))
        gradient = features.T @ (weight * (p - target)) + held @ theta
        hessian = (features * (weight * p * (1 - p))[:, None]).T @ features + held
        step = np.linalg.solve(hessian, gradient)
        theta = theta - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-10:
            break
    weights = theta[:-1] / spread
    return weights, float(theta[-1] - weights @ middle)
