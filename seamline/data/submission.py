"""Official submission files of challenges and benchmarks: read, written, and checked before a server sees them.

==============  ========================================================================================================
protocol        files
==============  ========================================================================================================
ddl-track1      zip or folder: ``prediction.txt``, lines ``000001.png,0.9931``; ``mask/000001.png``, 8-bit grey, 255 =
                forged, of the size of the photo
ddl-track2      zip or folder: ``prediction.txt``, lines ``000001.mp4,0.9931``; ``prediction.json``,
                ``{"000001.mp4": [[confidence, start, end], ...]}`` in seconds, by falling confidence
1m-deepfakes    zip or folder: ``prediction.txt``, lines ``000001.mp4;0.9128`` (task 1), ``prediction.json`` as above
                (task 2), or both
lavdf           one JSON file as above, but start and end in frames at 25 a second, and 100 proposals for every clip
activitynet     one JSON file: ``{"results": {"000001": [{"score": 0.9, "segment": [start, end], "label": "Fake"}]}}``
asvspoof5       one TSV file with the heading ``filename``, ``cm-score``; *high = bona fide*
==============  ========================================================================================================

A prediction that is read is a :class:`Report` whose path is the name in the file. ``environment["score"]`` keeps the
score as written where it is not a probability; ``environment["spans"]`` tells ``listed`` spans, none of them even, from
``absent`` ones.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from ..errors import DataError
from ..metrics.image import Mask
from ..metrics.items import ABSENT, LISTED, heatmap_of, mask_of
from ..metrics.temporal import proposals_of
from ..report import Media, Report
from .submission_check import check_scores, check_spans, validate_submission
from .submission_files import (
    FORMATS,
    LAVDF_FPS,
    LAVDF_LEAST,
    MASKS,
    MOST_MASK,
    NEVER,
    SPANS,
    TEXT,
    Container,
    Fault,
    Faults,
    Floats,
    Format,
    Parsed,
    Span,
    format_of,
    mask_pixels,
    official_name,
    open_submission,
    parse,
)

__all__ = ["FORMATS", "Fault", "read_submission", "validate_submission", "write_submission"]

# ------------------------------------------------------------------------------------------------------------ reading


def read_submission(path: str | Path, protocol: str, *, strict: bool = True) -> Iterator[Report]:
    """The predictions of a submission, one report a file, with one mask in memory at a time.

    Args:
        path: a zip, a folder, or one of the files.
        protocol: whose format it has; one of :data:`FORMATS`.
        strict: refuse what a server would; otherwise only what cannot be read.

    Raises:
        DataError: the submission has faults, of which the first are named; or the protocol has no format.
    """
    form = format_of(protocol)
    with open_submission(Path(path)) as box:
        faults = Faults()
        parsed = parse(box, form, faults)
        check_scores(parsed, form, faults)
        check_spans(parsed, protocol, faults)
        grades = ("unreadable", "refused") if strict else ("unreadable",)
        wrong = [str(fault) for fault in [*box.faults.listed(), *faults.listed()] if fault.grade in grades]
        if wrong:
            more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
            raise DataError(f"{path}: {' | '.join(wrong[:3])}{more}")
        names = dict.fromkeys([*parsed.scores, *(parsed.spans or {})])
        scores = [score for score, _ in parsed.scores.values()]
        unit = all(0 <= score <= 1 for score in scores)
        for name in names:
            yield _report(box, form, parsed, name, unit)


def _report(box: Container, form: Format, parsed: Parsed, name: str, unit: bool) -> Report:
    score = parsed.scores.get(name, (None, 0))[0]
    environment, probability = {}, score
    if score is not None and (form.single == "tsv" or not unit):
        environment["score"] = repr(score)
        probability = _sigmoid(-score if form.single == "tsv" else score)
    if form.spans:
        environment["spans"] = ABSENT if parsed.spans is None else LISTED
    member = parsed.masks.get(PurePosixPath(name).stem) if form.masks else None
    found = probability is not None and probability >= 0.5
    return Report(
        media=Media(name, kind=form.kind),
        verdict="not_applicable" if probability is None else "forged" if found else "authentic",
        probability=probability,
        proposals=() if parsed.spans is None or name not in parsed.spans else _rows(parsed.spans[name]),
        environment=environment,
        mask=None if member is None else _mask(box, member),
    )


def _rows(array: Floats) -> tuple[Span, ...]:
    return tuple((c, s, e) for c, s, e in array.tolist())


def _mask(box: Container, member: str) -> Mask:
    try:
        return mask_pixels(box.read(member, MOST_MASK)) >= 128
    except DataError as cause:
        raise DataError(f"{box.path}: {member}: {str(cause).removeprefix(f'{member}: ')}") from cause


def _sigmoid(value: float) -> float:
    small = math.exp(-abs(value))
    return 1 / (1 + small) if value >= 0 else small / (1 + small)


# ------------------------------------------------------------------------------------------------------------ writing


def write_submission(
    protocol: str,
    reports: Iterable[Report],
    out: str | Path,
    *,
    root: str | Path | None = None,
    mask_threshold: float | None = None,
    unjudged: float | None = None,
) -> Path:
    """Write the official files from reports. The same reports give the same bytes.

    A photo's mask is the one delivered, which is black unless the verdict is forged. Proposals are written by falling
    score, else the segments; where an evaluator stops at too few, proposals are added that are never right.

    Args:
        protocol: one of :data:`FORMATS`.
        reports: gone through once, so that a generator may hold one mask at a time.
        out: for challenges a zip if the name ends so, otherwise a folder; for the others the one file.
        root: names are paths relative to this folder; by default file names, which must differ (of LAV-DF with their
            split, as in ``test/000001.mp4``).
        mask_threshold: give a photo the mask where its heat map reaches this, whatever the verdict. Where only forged
            photos are judged by their masks, that costs nothing.
        unjudged: the probability to give a file that was not judged, which then has a black mask and no span.

    Raises:
        DataError: a report has no score or mask where one is needed, two have one name, or ``out`` is no place for it.
    """
    form, out = format_of(protocol), Path(out)
    if form.single and out.suffix.lower() not in (".json", ".tsv", ".txt"):
        raise DataError(f"{out}: {protocol} has one file; give it a name ending in .json or .tsv")
    lines: list[str] = []
    entries: list[str] = []
    names: set[str] = set()
    with _writer(out, bool(form.single)) as put:
        for report in reports:
            name = _name(report, root, form)
            own = PurePosixPath(name).stem if form.masks else name  # masks are told apart by stems
            if own in names:
                raise DataError(f"{report.media.path}: a second file of the name {own}; name them from a root folder")
            names.add(own)
            if form.separator:
                lines.append(f"{name}{form.separator}{_written_score(report, form, unjudged)!r}")
            if form.spans:
                entries.append(_span_json(name, _written_spans(report, protocol), form))
            if form.masks:
                put(f"{MASKS}/{PurePosixPath(name).stem}.png", _png(report, mask_threshold))
        if form.single == "tsv":
            lines.insert(0, "filename\tcm-score")
        if form.separator:
            put(TEXT, "".join(line + "\n" for line in lines).encode())
        if form.spans:
            body = "{\n" + ",\n".join(entries) + "\n}"
            if form.single == "activitynet":
                body = f'{{"version": "1.3", "external_data": {{}}, "results": {body}}}'
            put(SPANS, (body + "\n").encode())
    return out


def _name(report: Report, root: str | Path | None, form: Format) -> str:
    path = report.media.path.replace("\\", "/")
    name = official_name(path, form)
    if root is not None:
        try:
            below = Path(os.path.abspath(path)).relative_to(os.path.abspath(root))
        except ValueError as cause:
            raise DataError(f"{path}: is not in {root}") from cause
        name = below.with_name(PurePosixPath(name).name).as_posix()
    if name != name.strip() or any(c in name for c in ",;\t\r\n") or not name.isprintable():
        raise DataError(f"{path!r}: a name with separators or spaces about it cannot be submitted; rename the file")
    return name


def _written_score(report: Report, form: Format, unjudged: float | None) -> float:
    probability = unjudged if report.probability is None else report.probability
    if probability is None:
        why = f" ({report.error})" if report.error else ""
        raise DataError(
            f"{report.media.path}: was not judged{why}, but every file of a submission needs a score; say which to give"
        )
    raw = report.environment.get("score")
    if form.single != "tsv":
        return float(probability)
    if raw is not None:
        return float(raw)
    p = min(max(probability, 1e-15), 1 - 1e-15)
    return math.log1p(-p) - math.log(p)  # of bona fide speech against forged, for equal priors


def _written_spans(report: Report, protocol: str) -> list[Span]:
    """Proposals by falling score, as many digits as matter: scores of single precision, tenths of milliseconds."""
    longest = report.media.duration or math.inf
    rows = []
    for score, start, end in proposals_of(report).tolist():
        start, end = round(max(start, 0.0), 4), round(min(end, longest), 4)
        if end > start:
            rows.append((float(str(np.float32(score))), start, end))
    rows.sort(key=lambda row: -row[0])
    if protocol == "1m-deepfakes":
        return rows or [NEVER]
    if protocol == "lavdf":
        rows += [NEVER] * (LAVDF_LEAST - len(rows))
        return [(c, round(s * LAVDF_FPS, 4), round(e * LAVDF_FPS, 4)) for c, s, e in rows]
    return rows


def _span_json(name: str, rows: list[Span], form: Format) -> str:
    """One entry, on a line of its own."""
    value: Any = rows
    if form.single == "activitynet":
        value = [{"score": c, "segment": [s, e], "label": "Fake"} for c, s, e in rows]
    return f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(value)}"


def _png(report: Report, threshold: float | None) -> bytes:
    heatmap = None if threshold is None else heatmap_of(report)
    mask = mask_of(report) if threshold is None or heatmap is None else heatmap >= threshold
    empty = report.verdict == "authentic" or report.probability is None
    if mask is None and empty and report.media.width and report.media.height:
        mask = np.zeros((report.media.height, report.media.width), bool)
    if mask is None:
        raise DataError(f"{report.media.path}: has no mask; scan with --out, which keeps masks beside the reports")
    if threshold is not None and heatmap is None and report.probability is not None:
        raise DataError(f"{report.media.path}: has no heat map, where one is to be cut at {threshold:g}")
    _, file = cv2.imencode(".png", mask.astype(np.uint8) * np.uint8(255))
    return file.tobytes()


@contextmanager
def _writer(out: Path, single: bool) -> Iterator[Callable[[str, bytes], None]]:
    """A function that puts a file into the submission, which appears whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        if single:

            def write(name: str, data: bytes) -> None:
                (part / "file").write_bytes(data)

            yield write
            os.replace(part / "file", out)
        elif out.suffix.lower() == ".zip":
            with zipfile.ZipFile(part / "zip", "w", zipfile.ZIP_DEFLATED) as file:

                def put(name: str, data: bytes) -> None:
                    info = zipfile.ZipInfo(name)  # of 1980, whenever it is written
                    info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
                    file.writestr(info, data)

                yield put
            os.replace(part / "zip", out)
        else:
            if out.exists() and any(out.iterdir()):
                raise DataError(f"{out}: is there already and not empty; give a new folder, or a name ending in .zip")

            def keep(name: str, data: bytes) -> None:
                (part / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
                (part / "folder" / name).write_bytes(data)

            yield keep
            (part / "folder").mkdir(exist_ok=True)
            os.replace(part / "folder", out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
