"""A model and a data set to one row of figures, each with its confidence interval, that names all it rests on.

A row names the weights, the data and the code by their hashes, so that a table made from rows can be checked.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Sample, digest, open_data
from ..errors import DataError
from ..media import Clip, open_media
from ..metrics.bootstrap import bootstrap
from ..metrics.image import confusion
from ..metrics.protocols import Protocol, figures, intervals, measure
from ..metrics.protocols import protocol as find_protocol
from ..metrics.temporal import RECALL_IOUS, Matching, proposals_of, spans_of
from ..pipeline import Session
from ..synthesis.perturb import (
    CLIP_GRID,
    PHOTO_GRID,
    ClipChange,
    change_clip,
    photo_file,
    truth_after,
)
from .journal import Journal, file_digest, key_of
from .outcomes import (
    FRAMES,
    PROPOSALS,
    Clips,
    Columns,
    Ints,
    Outcome,
    Photos,
    Scan,
    compare_frames,
    forged_in,
    holds_clips,
    in_words,
    ticks_of,
)

SCHEMA = "seamline.evaluation/3"
GRID = "grid"  # the name of all usual perturbations together
DRAWS = 1000  # bootstrap resamples
BINS = 20  # of the histogram of scores
POINTS = 200  # at most, of a curve that a row keeps
PART_FIGURES = {  # of a kind of forgery
    "image": ("auc", "f1", "iou", "f1_shown", "detected"),
    "audio_visual": ("auc", "ap50", "ap75", "ap95", "ar100", "ar10", "detected", "boundary_ms"),
}
ROBUST_FIGURES = {  # of a perturbation
    "image": ("auc", "f1", "detected", "false_alarms", "ece", "inconclusive"),
    "audio_visual": ("auc", "ap50", "detected", "false_alarms", "ece", "inconclusive"),
}

Floats = npt.NDArray[np.float64]


def evaluate(
    model: str | Path | Scan,
    data: str | Path,
    *,
    out: str | Path | None = None,
    protocol: str | None = None,
    threshold: float | None = None,
    mask_threshold: float | None = None,
    perturb: str = "none",
    device: str = "cpu",
    limit: int | None = None,
    layout: str = "auto",
    split: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Scan every photo or clip of a data set and compare with the truth.

    A run that was killed and is started again with the same arguments goes on where it was: files that were judged are
    kept in ``OUT.journal`` until the row is written, and found by the hashes of weights, code, settings and file.

    Args:
        model: a name or file that the zoo loads, a :class:`Session`, or anything that turns (H, W, 3) uint8 RGB
            pixels into a :class:`Report` with probability and heat map, or the path of a clip (or, for perturbed ones,
            a :class:`~seamline.media.Clip`) into one with probability, modalities, segments and ranked proposals.
        data: the folder of a data set that :func:`seamline.data.open_data` reads, of photos or of clips.
        out: write the row to this JSON file, and the files one by one to a CSV file of the same name beside it.
        protocol: the name of a benchmark whose figures are wanted besides ours; see
            :data:`seamline.metrics.protocols.PROTOCOLS`.
        threshold: of the file's probability; by default the verdicts of the model's reports count.
        mask_threshold: of the heat map; by default the model's own, else 0.5.
        perturb: what is done to authentic and forged files alike before they are judged, see
            :mod:`seamline.synthesis.perturb`; or ``grid``: the files as they are, and once more after each of the usual
            perturbations, for the row's table ``robustness``.
        device: where a model given by name runs.
        limit: take only so many files, spread evenly over the data set.
        layout: of the data set, if it is not to be found out.
        split: of the data set.
        progress: show a progress bar.

    Returns:
        The row. What it rests on: ``model``, ``data``, ``perturb``, thresholds, ``n``, ``commit``, ``environment``; the
        figures, ``None`` where one is not defined; ``ci95`` for each of them, from resampling whole groups; ``kinds``
        of forgery, each together with all that is authentic; ``curves`` for plots; ``protocol`` with its own figures
        and intervals; and ``robustness``, one entry a perturbation, with the change from none over the same files.

        Of both: ``auc ap eer tpr_at_5_fpr ece brier cllr min_cllr`` of the probabilities; ``detected`` (share of the
        forged that were called forged; one that could not be judged was not), ``false_alarms`` (share of the authentic)
        and ``inconclusive`` (share of all that were called neither, or could not be judged).

        Of photos (``modality`` is ``image``): ``f1`` and ``iou`` (mean over forged photos, heat map at the fixed
        threshold), ``f1_shown`` (of the mask as delivered).

        Of clips (``audio_visual``): ``ap50 ap75 ap95 ar100 ar50 ar20 ar10`` of the proposals, as
        :mod:`seamline.metrics.temporal` defines them, over the seconds forged in either modality; ``auc_video`` and
        ``auc_audio``, of a modality's own probability against whether it is forged; ``boundary_ms``, mean error of the
        ends of found spans; ``frame_f1``, of the segments as delivered. Besides ``kinds`` there is ``forged_in``, by
        the modality that is forged.

    Raises:
        DataError: data, protocol or perturbation are not what they should be, or no file could be judged.
        MediaError: a file cannot be read.
        WeightsError: the model cannot be loaded.
    """
    samples = open_data(data, layout=layout, split=split)
    if limit is not None and limit < len(samples):
        samples = [samples[i * len(samples) // limit] for i in range(limit)]
    clips = holds_clips(samples, data)
    if clips and mask_threshold is not None:
        raise DataError(f"{data}: holds clips; a mask threshold is for photos")
    rules = None if protocol is None else _suited(protocol, clips, data)
    names = ("none", *(CLIP_GRID if clips else PHOTO_GRID)) if perturb == GRID else (perturb,)
    changes: dict[str, Any] = {name: (change_clip if clips else photo_file)(name) for name in names}
    changes |= {"none": None} if "none" in changes else {}
    scan = _session(model, device, clips)
    card = getattr(scan, "card", None)
    cut = mask_threshold if mask_threshold is not None else getattr(card, "mask_threshold", 0.5)
    code = commit()
    speaker = dataclasses.asdict(card) if card is not None else getattr(scan, "__qualname__", type(scan).__qualname__)
    settings = [SCHEMA, speaker, code, threshold, None if clips else cut, protocol]
    digest_of = cache(file_digest)  # of each file once, when its turn comes

    path = None if out is None else Path(out)
    found: dict[str, list[Outcome]] = {}
    with Journal(None if path is None else path.with_name(f"{path.name}.journal")) as journal:
        for name, change in changes.items():
            judge: Callable[[Sample], Outcome | None] = (
                partial(_clip, scan, change, rules) if clips else partial(_photo, scan, change, rules, threshold, cut)
            )
            found[name] = []
            for sample in bar(samples, f"evaluate {name}", progress):
                sample = dataclasses.replace(sample, truth=truth_after(name, sample.truth))
                files = digest_of(sample.truth.media.path), digest_of(sample.truth.artifacts.mask)
                key = key_of(*settings, name, sample.truth.to_dict(), *files)
                if key not in journal.known:
                    outcome = judge(sample)
                    journal.add(key, None if outcome is None else outcome.to_dict())
                else:
                    entry = journal.known[key]
                    outcome = None if entry is None else Outcome.from_dict(sample, entry)
                if outcome is not None:
                    found[name].append(outcome)
        first = found[names[0]]
        row = {
            "schema": SCHEMA,
            "modality": "audio_visual" if clips else "image",
            "model": _speaker(first),
            "data": {
                "name": Path(data).resolve().name,
                "sha256": digest(data),
                "split": split,
                "files": len(samples),
                "left_out": len(samples) - len(first),
            },
            "perturb": names[0],
            **_figures(first, data, clips, threshold, cut),
            "protocol": None if rules is None else _official(rules, first),
            "robustness": _robustness(found, clips, threshold) if perturb == GRID else None,
            "commit": code,
        }
        if path is not None:
            _write(path, row, (_clip_table if clips else _photo_table)(first))
    return row


def commit() -> str | None:
    """The git commit of this code, marked ``+`` if files differ from it; ``None`` outside a checkout."""
    ask = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+")
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def bar(items: Sequence[Any], text: str, on: bool) -> Iterable[Any]:
    """The items, with a progress bar on stderr while they are gone through."""
    if not on:
        return items
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, description=text, console=console, transient=True, disable=not console.is_terminal)


# ----------------------------------------------------------------------------------------------------------- judging


def _session(model: str | Path | Scan, device: str, clips: bool) -> Scan:
    """What turns a photo or a clip into a report; of a clip, one that lists enough proposals."""
    if isinstance(model, (str, Path)):
        return Session(model, device, proposals=PROPOSALS if clips else 0)
    if isinstance(model, Session) and clips:
        model = copy.copy(model)  # the caller's own stays as it was
        model.proposals = max(model.proposals, PROPOSALS)
    return model


def _suited(name: str, clips: bool, data: str | Path) -> Protocol:
    """The protocol of this name, for what the data set holds."""
    found = find_protocol(name)
    if found.medium != "any" and clips == (found.medium == "image"):
        wanted = {"image": "photos", "clip": "clips", "audio": "sound"}[found.medium]
        raise DataError(f"{data}: holds {'clips' if clips else 'photos'}; the protocol {name} is for {wanted}")
    return found


def _photo(
    scan: Scan,
    change: Callable[[Any, Any], tuple[bytes, Any]] | None,
    rules: Protocol | None,
    threshold: float | None,
    mask_threshold: float,
    sample: Sample,
) -> Outcome:
    """Judge one photo. It counts as forged as its sample says, even if cropping took its mask away."""
    medium: Any = open_media(sample.media) if isinstance(sample.media, Path) else sample.media
    rgb, soft = dataclasses.replace(sample, media=medium).load()
    if change is not None:
        data, soft = change(rgb, soft)
        medium = open_media(data)
        rgb = medium.pixels
    began = time.perf_counter()
    report = scan(medium if isinstance(scan, Session) else rgb)  # a file has more to tell than its pixels
    seconds = time.perf_counter() - began
    hot = np.zeros(rgb.shape[:2], bool) if report.heatmap is None else report.heatmap >= mask_threshold
    if hot.shape != rgb.shape[:2]:
        raise DataError(f"{sample.truth.media.path}: heat map {hot.shape} for a picture of {rgb.shape[:2]}")
    truth = np.zeros(hot.shape, bool) if soft is None else soft >= 0.5
    known = dataclasses.replace(sample.truth, mask=None if soft is None else truth)
    outcome = Outcome(
        *(sample.truth.media.path, sample.kind, sample.group, sample.truth),
        report=dataclasses.replace(report, heatmap=None, mask=None, curves={}),
        seconds=seconds,
        size=hot.size / 1e6,
        item=measure(rules, known, report, mask_threshold=mask_threshold, group=sample.group) if rules else None,
    )
    flagged = outcome.flagged(threshold)
    shown = report.mask if report.mask is not None and flagged == report.forged else hot & flagged
    outcome.counts.update(pixels=confusion(hot, truth), shown=confusion(shown, truth))
    return outcome


def _clip(scan: Scan, change: ClipChange | None, rules: Protocol | None, sample: Sample) -> Outcome | None:
    """Judge one clip; ``None`` if it lacks what the perturbation works on."""
    medium: Any = sample.media
    if change is not None:
        opened = open_media(medium) if isinstance(medium, Path) else medium
        if not isinstance(opened, Clip):
            raise DataError(f"{sample.truth.media.path}: a picture, where a clip is needed")
        medium = change(opened)
        if medium is None:
            return None
    began = time.perf_counter()
    report = scan(medium)
    seconds = time.perf_counter() - began
    ticks = ticks_of(sample.truth, report)
    return Outcome(
        *(sample.truth.media.path, sample.kind, sample.group, sample.truth),
        report=dataclasses.replace(report, heatmap=None, mask=None, curves={}),  # these are large
        counts={"frames": compare_frames(spans_of(report), spans_of(sample.truth), ticks)},
        seconds=seconds,
        size=ticks / FRAMES,
        item=measure(rules, sample.truth, report, group=sample.group) if rules else None,
    )


# ----------------------------------------------------------------------------------------------------------- figures


def _figures(
    outcomes: Sequence[Outcome], data: str | Path, clips: bool, threshold: float | None, mask_threshold: float
) -> dict[str, Any]:
    """The part of a row that is computed from outcomes."""
    medium, table = ("audio_visual", Clips) if clips else ("image", Photos)  # type: tuple[str, type[Columns]]
    columns = table(outcomes, threshold)
    about = next((o.report for o in outcomes if o.report.probability is not None), None)
    if about is None:
        raise DataError(f"{data}: none of the {len(outcomes)} {'clips' if clips else 'photos'} could be judged")
    authentic = [o for o in outcomes if not o.forged]

    def parts(name_of: Callable[[Outcome], str], of: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
        """Figures by name of a part: its forged files together with all authentic ones."""
        found: dict[str, dict[str, Any]] = {}
        for name in sorted({name_of(o) for o in of}):
            members = [o for o in of if name_of(o) == name]
            forged = [o for o in members if o.forged]
            shown = PART_FIGURES[medium] if forged else ("false_alarms",)
            figures = table(forged + authentic if forged else members, threshold).figures(only=shown)
            found[name] = {"n": len(members)} | rounded({figure: figures[figure] for figure in shown})
        return found

    seconds, size = sum(o.seconds for o in outcomes), sum(o.size for o in outcomes)
    speed = {"times_realtime": size / seconds} if clips else {"seconds_per_megapixel": seconds / size}
    return {
        "threshold": next(cut for cut in (threshold, about.threshold, 0.5) if cut is not None),
        **({} if clips else {"mask_threshold": mask_threshold}),
        "n": {
            "authentic": len(authentic),
            "forged": len(outcomes) - len(authentic),
            "unjudged": int((~columns.judged).sum()),
        },
        **rounded(columns.figures()),
        "ci95": bounded(bootstrap(columns.figures, columns.groups, draws=DRAWS)),
        **({"forged_in": parts(_forged_in_words, [o for o in outcomes if o.forged])} if clips else {}),
        "kinds": parts(lambda o: o.kind, outcomes),
        "curves": _curves(outcomes, columns),
        "seconds": round(seconds, 3),
        **{name: round(value, 3) for name, value in speed.items()},
        "environment": about.environment,
    }


def _forged_in_words(outcome: Outcome) -> str:
    return in_words(forged_in(outcome.truth))


def _curves(outcomes: Sequence[Outcome], columns: Columns) -> dict[str, Any]:
    """What plots are drawn from, in few numbers.

    ``roc`` (false-alarm rate, detection rate) and ``pr`` (recall, precision), at most ``POINTS`` points each;
    ``scores``, how many of each class lie in ``BINS`` equal bins of probability; ``reliability``, of equal bins
    that hold any: mean probability and share of forged, both as if half of all files were forged, and how many there
    are; of clips ``ap_iou``: IoU, AP, and its 95 % interval.
    """
    curve = columns.curve()
    bins = np.minimum((columns.score * BINS).astype(int), BINS - 1)
    found: dict[str, Any] = {
        "roc": _thinned(curve.fpr, curve.tpr),
        "pr": _thinned(curve.tpr[1:], curve.precision[1:]),
        "scores": {
            name: np.bincount(bins[columns.label == forged], minlength=BINS).tolist()
            for name, forged in (("authentic", False), ("forged", True))
        },
        "reliability": columns.reliability(),
    }
    if isinstance(columns, Clips) and columns.forged.any():
        spans = [spans_of(o.truth) for o in outcomes]
        matching = Matching([proposals_of(o.report) for o in outcomes], spans, ious=RECALL_IOUS, numbers=(1,))
        ends = bootstrap(matching.ap, columns.groups, draws=DRAWS)
        found["ap_iou"] = [[iou, round(ap, 5), *_ends(ends[iou])] for iou, ap in matching.ap().items()]
    return found


def _thinned(x: Floats, y: Floats) -> list[list[float]]:
    """Points of a curve, at most ``POINTS`` of them, first and last among them; none if it is not defined."""
    points = np.stack([x, y], 1)
    if not np.isfinite(points).all():
        return []
    corner = np.ones(len(points), bool)  # not between two that lie on a line with it
    corner[1:-1] = (np.abs(np.diff(points, 2, axis=0)) > 1e-12).any(1)
    points = points[corner]
    if len(points) > POINTS:
        length = np.append(0, np.cumsum(np.abs(np.diff(points, axis=0)).sum(1)))
        points = points[np.unique(np.searchsorted(length, np.linspace(0, length[-1], POINTS)))]
    return [[round(float(value), 5) for value in point] for point in points]


def _official(rules: Protocol, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of a protocol, and their intervals; a file that could not be judged is a wrong answer."""
    items = [o.item for o in outcomes if o.item is not None]
    return {
        "name": rules.name,
        "headline": rules.headline,
        "figures": rounded(figures(rules, items, missing="wrong")),
        "ci95": bounded(intervals(rules, items, missing="wrong", draws=DRAWS)),
    }


def _robustness(found: Mapping[str, Sequence[Outcome]], clips: bool, threshold: float | None) -> list[dict[str, Any]]:
    """For each perturbation its figures, and how much they changed from none over the same files.

    The interval of a change is of the differences: both are measured on each resample of the files.
    """
    table: type[Columns] = Clips if clips else Photos
    names = ROBUST_FIGURES["audio_visual" if clips else "image"]
    as_they_are = {o.path: o for o in found["none"]}
    entries = []
    for name, outcomes in found.items():
        if not outcomes:  # no file has what this works on
            continue
        changed = table(outcomes, threshold)
        before = table([as_they_are[o.path] for o in outcomes], threshold)

        def both(times: Ints | None = None, changed: Columns = changed, before: Columns = before) -> dict[str, float]:
            after, base = changed.figures(times, names), before.figures(times, names)
            return after | {f"change {figure}": after[figure] - base[figure] for figure in names}

        values = rounded(both())
        ends = bounded(bootstrap(both, changed.groups, draws=DRAWS))
        forged = int(changed.forged.sum())
        entry: dict[str, Any] = {"perturb": name, "n": {"authentic": len(outcomes) - forged, "forged": forged}}
        entry |= {figure: values[figure] for figure in names}
        entry["ci95"] = {figure: ends[figure] for figure in names if figure in ends}
        if name != "none":
            entry["change"] = {figure: values[f"change {figure}"] for figure in names}
            entry["change_ci95"] = {figure: ends[f"change {figure}"] for figure in names if f"change {figure}" in ends}
        entries.append(entry)
    return entries


# ----------------------------------------------------------------------------------------------------------- writing


def _speaker(outcomes: Sequence[Outcome]) -> dict[str, str | None]:
    """Which weights spoke."""
    model = next((o.report.model for o in outcomes if o.report.model), None)
    return {
        "name": model.name if model else None,
        "version": model.version if model else None,
        "sha256": model.sha256 if model else None,
    }


def rounded(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as a row holds them: five decimals, ``None`` for one that is no number."""
    return {name: round(float(value), 5) if math.isfinite(value) else None for name, value in figures.items()}


def bounded(ends: Mapping[str, tuple[float, float]]) -> dict[str, list[float]]:
    """Intervals as a row holds them."""
    return {name: _ends(pair) for name, pair in ends.items() if all(map(math.isfinite, pair))}


def _ends(pair: tuple[float, float]) -> list[float]:
    return [round(value, 4) for value in pair]


def _photo_table(outcomes: Iterable[Outcome]) -> Iterator[list[object]]:
    """The photos one by one, after a line of headings."""
    yield ["file", "kind", "group", "forged", "verdict", "probability", "f1", "iou", "f1_shown"]
    for o in outcomes:
        figures = (o.counts["pixels"].f1, o.counts["pixels"].iou, o.counts["shown"].f1)
        row = [Path(o.path).name, o.kind, o.group, int(o.forged), o.report.verdict, _decimal(o.probability, 6)]
        yield [*row, *(_decimal(value, 4) for value in figures)]


def _clip_table(outcomes: Iterable[Outcome]) -> Iterator[list[object]]:
    """The clips one by one, after a line of headings."""
    scores = ("video", "audio", "audio_visual")
    yield [
        *("file", "kind", "group", "seconds", "forged_in", "verdict", "probability"),
        *scores,
        *("ap50", "ar10", "boundary_ms", "frame_f1", "truth", "segments"),
    ]
    for o in outcomes:
        spans = spans_of(o.truth)
        own = Matching([proposals_of(o.report)], [spans], ious=(0.5,), numbers=(10,))
        figures = (own.ap()[0.5], own.ar()[10], own.boundary().mean, o.counts["frames"].f1)
        found = o.report.modalities
        yield [
            *(Path(o.path).name, o.kind, o.group, f"{o.size:.2f}"),
            *(_forged_in_words(o), o.report.verdict, _decimal(o.probability, 6)),
            *(_decimal(found.get(key, math.nan), 6) for key in scores),
            *(_decimal(value, 4) for value in figures),
            "; ".join(f"{start:.2f}-{end:.2f}" for start, end in spans),
            "; ".join(f"{s.start:.2f}-{s.end:.2f} {s.modality}" for s in o.report.segments),
        ]


def _decimal(value: float, places: int) -> str:
    return "" if math.isnan(value) else f"{value:.{places}f}"


def _write(path: Path, row: dict[str, Any], table: Iterable[Sequence[object]]) -> None:
    """The row as JSON, the files as CSV beside it; the row, written last, appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(row, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def read_row(path: str | Path) -> dict[str, Any]:
    """A row that :func:`evaluate` wrote.

    Raises:
        DataError: it is missing, or not a row of this version.
    """
    try:
        row = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError(f"{path}: not a row of seamline evaluate: {cause}") from cause
    found = row.get("schema") if isinstance(row, dict) else None
    if found != SCHEMA:
        raise DataError(f"{path}: not a row of this version, which writes {SCHEMA}, but {found!r}: evaluate again")
    return dict(row)
