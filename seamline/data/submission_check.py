"""Everything that is wrong with a submission, as far as it can be known before a server sees it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import PIL.Image

from ..errors import DataError
from ..metrics.detection import roc_auc
from ..metrics.items import finder
from ..report import Media, Report
from . import submission_files as limits
from .submission_files import (
    LAVDF_LEAST,
    MASKS,
    NEVER,
    TEXT,
    Container,
    Fault,
    Faults,
    Format,
    Parsed,
    format_of,
    mask_pixels,
    official_name,
    open_submission,
    parse,
)

LATE = 0.1  # seconds that a span may end after its clip, for durations are rounded


def validate_submission(
    path: str | Path, protocol: str, truth: Sequence[Report] | Sequence[str] | None = None
) -> list[Fault]:
    """Everything that is wrong with a submission, as far as it can be known before the server sees it.

    Args:
        path: as of :func:`read_submission`.
        protocol: whose format it should have.
        truth: the files of the data set: reports, which may know sizes and durations too, or names.

    Returns:
        The faults, none for a good submission. Of one kind, the first twenty are listed and the others counted.

    Raises:
        DataError: the protocol has no format.
    """
    form = format_of(protocol)
    try:
        opened = open_submission(Path(path))
        with opened as box:
            faults = Faults()
            parsed = parse(box, form, faults)
            known = [item if isinstance(item, Report) else Report(Media(item), "inconclusive") for item in truth or ()]
            check_scores(parsed, form, faults)
            check_spans(parsed, protocol, faults)
            _check_names(parsed, form, known, faults)
            if form.masks:
                _check_masks(box, parsed, known, faults)
            if known:
                _check_polarity(parsed, form, known, faults)
            return [*box.faults.listed(), *faults.listed()]
    except DataError as cause:
        return [Fault(str(path), None, str(cause).removeprefix(f"{path}: "), "make the file again", "unreadable")]


# ---------------------------------------------------------------------------------------------------------- the checks


def check_scores(parsed: Parsed, form: Format, faults: Faults) -> None:
    """Whether scores are probabilities, and rank anything."""
    if not parsed.scores:
        return
    if form.single != "tsv":
        for name, (score, line) in parsed.scores.items():
            if not 0 <= score <= 1:
                cause = f"the score of {name} is {score:g}"
                faults.add("range", parsed.scores_in, line, cause, "give a probability of forgery, 0 to 1")
    values = {score for score, _ in parsed.scores.values()}
    if len(parsed.scores) > 2 and len(values) == 1:
        faults.add("constant", parsed.scores_in, None, "all scores are the same", "an AUC of 0.5 follows", "doubtful")
    elif len(parsed.scores) > 2 and values == {0.0, 1.0}:
        cause, advice = "all scores are 0 or 1", "AUC wants a ranking: give probabilities, not decisions"
        faults.add("decisions", parsed.scores_in, None, cause, advice, "doubtful")


def check_spans(parsed: Parsed, protocol: str, faults: Faults) -> None:
    """Whether spans are spans, sorted as evaluators expect them, and enough."""
    for name, rows in (parsed.spans or {}).items():

        def add(kind: str, cause: str, remedy: str, name: str = name) -> None:
            faults.add(kind, parsed.spans_in, parsed.lines[name], f"{name}: {cause}", remedy)

        confidence, start, end = rows.T
        order = "the order is confidence, start, end"
        if n := _first((confidence < 0) | (confidence > 1)):
            add("confidence", f"span {n} has the confidence {confidence[n - 1]:g}", f"give one of 0 to 1; {order}")
        if n := _first(end <= start):
            add("reversed", f"span {n} ends at {end[n - 1]:g}, where it starts at {start[n - 1]:g}", order)
        if n := _first(start < 0):
            add("negative", f"span {n} starts at {start[n - 1]:g}", "times count from 0")
        if n := _first(np.diff(confidence) > 0):
            advice = "sort by falling confidence: the first N are taken, whatever theirs"
            add("unsorted", f"span {n + 1} has a higher confidence than span {n}", advice)
        if protocol == "1m-deepfakes" and not len(rows):
            add("no spans", "has an empty list, at which the evaluator stops", f"give {list(NEVER)} instead")
        if protocol == "lavdf" and len(rows) < LAVDF_LEAST:
            advice = "fill up with proposals that are never right, such as [0, 0, 0.25]"
            add("few", f"{len(rows)} proposals; the evaluator stops below {LAVDF_LEAST}", advice)


def _first(wrong: npt.NDArray[np.bool_]) -> int:
    """Which is the first that is wrong, from 1; 0: none."""
    return int(wrong.argmax()) + 1 if wrong.any() else 0


def _check_names(parsed: Parsed, form: Format, known: Sequence[Report], faults: Faults) -> None:
    """Whether every file of the data set is named once, and no other."""
    scored, placed = parsed.scores, parsed.spans
    if scored and placed is not None:
        for name in sorted(scored.keys() - placed.keys()):
            faults.add("half", parsed.spans_in, None, f"{name} has a score, but no entry here", "give it an entry")
        for name in sorted(placed.keys() - scored.keys() - parsed.spoiled):
            faults.add("half", parsed.scores_in, None, f"{name} has spans, but no line here", "give it a line")
    if not known:
        return
    paths = [report.media.path for report in known]
    find = finder(paths)
    official = [official_name(path, form) for path in paths]
    exact = len(set(official)) == len(paths) and form.single != "activitynet"  # whose names are not published
    sources = [(parsed.scores_in, {name: line for name, (_, line) in scored.items()})] if scored else []
    sources += [(parsed.spans_in, parsed.lines)] if placed is not None else []
    for file, names in sources:
        found = set()
        for name, line in names.items():
            try:
                i = find(name)
            except DataError as error:
                faults.add("unknown", file, line, str(error), "use the names of the data set")
                continue
            if i in found:
                faults.add("same", file, line, f"{name}: {paths[i]} a second time", "keep one of the two")
            elif exact and name != official[i]:
                faults.add("renamed", file, line, f"{name} stands for {official[i]}", f"write {official[i]}")
            found.add(i)
        if form.single == "activitynet":
            continue  # who is absent has no proposals
        spoiled = {_place(find, name) for name in parsed.spoiled if file == parsed.scores_in}
        for i in sorted(set(range(len(paths))) - found - spoiled):
            own = official[i] if exact else paths[i]
            faults.add(f"missing in {file}", file, None, f"{own} is missing", "every file needs an entry")
    _check_durations(parsed, known, find, faults)


def _place(find: Callable[[str], int], name: str) -> int | None:
    try:
        return find(name)
    except DataError:
        return None


def _check_durations(parsed: Parsed, known: Sequence[Report], find: Callable[[str], int], faults: Faults) -> None:
    for name, rows in (parsed.spans or {}).items():
        i = _place(find, name)
        duration = None if i is None else known[i].media.duration
        late = rows[:, 2][rows[:, 2] > (duration or np.inf) + LATE]
        if len(late) and duration:
            frames = late.max() > 5 * duration
            advice = "times are seconds, not frames" if frames else "clip spans to the end of the file"
            cause = f"{name}: {len(late)} spans end after the clip, at {late.max():g} of {duration:g} seconds"
            faults.add("late", parsed.spans_in, parsed.lines[name], cause, advice)


def _check_masks(box: Container, parsed: Parsed, known: Sequence[Report], faults: Faults) -> None:
    sizes = {PurePosixPath(report.media.path.replace("\\", "/")).stem: report for report in known}
    stems = {PurePosixPath(name).stem: name for name in parsed.scores}
    spoiled = {PurePosixPath(name).stem for name in parsed.spoiled}
    for stem, name in stems.items():
        if parsed.masks and stem not in parsed.masks:
            faults.add("no mask", f"{MASKS}/{stem}.png", None, f"the mask of {name} is missing", "add it")
    for stem, member in parsed.masks.items():
        if stems and stem not in stems and stem not in spoiled:
            faults.add("lone mask", member, None, f"{TEXT} has no line for it", "add the line, or remove the mask")
        try:
            data = box.read(member, limits.MOST_MASK)
        except DataError as error:
            faults.add("mask file", member, None, str(error).removeprefix(f"{member}: "), "save it again", "unreadable")
            continue
        _check_mask(member, data, sizes.get(stem), faults)


def _check_mask(member: str, data: bytes, truth: Report | None, faults: Faults) -> None:
    try:
        with warnings.catch_warnings(), PIL.Image.open(io.BytesIO(data)) as picture:
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # there is a limit below
            kind, mode, size = picture.format, picture.mode, picture.size
    except PIL.UnidentifiedImageError:
        faults.add("mask file", member, None, "is not a picture", "save it as PNG", "unreadable")
        return
    except Exception as error:  # Pillow raises nearly anything on damaged files
        faults.add("mask file", member, None, f"is a damaged picture: {error}", "save it again", "unreadable")
        return
    if kind != "PNG":
        faults.add("mask type", member, None, f"is {kind} inside", "save it as PNG: JPEG changes its values")
    if mode not in ("L", "1"):
        faults.add("mask mode", member, None, f"has the mode {mode}", "save it as 8-bit grey, without alpha or palette")
    wanted = None if truth is None else _size(truth)
    if wanted is not None and size != wanted:
        cause = f"is {size[0]}x{size[1]}, the photo {wanted[0]}x{wanted[1]}"
        faults.add("mask size", member, None, cause, "give it the size of the original photo")
    if size[0] * size[1] > limits.MOST_PIXELS:
        faults.add("mask size", member, None, f"{size[0]}x{size[1]} pixels are too many", "save it anew", "unreadable")
        return
    try:
        grey = mask_pixels(data)
    except DataError as error:
        faults.add("mask file", member, None, f"is {error}", "save it again", "unreadable")
        return
    values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256)).tolist()
    if 0 < max(values) < 128 and mode == "L":
        cause = f"its largest value is {max(values)}, which reads as authentic everywhere"
        faults.add("mask values", member, None, cause, "write 255 where forged")
    elif not set(values) <= {0, 255}:
        cause, advice = "is not only black and white", "the server's threshold is not published: write 0 and 255"
        faults.add("mask greys", member, None, cause, advice, "doubtful")


def _size(report: Report) -> tuple[int, int] | None:
    """Width and height of a photo, from the truth or from the header of the file."""
    if report.media.width and report.media.height:
        return report.media.width, report.media.height
    if report.mask is not None:
        return report.mask.shape[1], report.mask.shape[0]
    for name in (report.media.path, report.artifacts.mask):
        if name is not None and Path(name).is_file():
            try:
                with PIL.Image.open(name) as picture:
                    return picture.size
            except Exception:  # Pillow raises nearly anything; the data set has its own check
                continue
    return None


def _check_polarity(parsed: Parsed, form: Format, known: Sequence[Report], faults: Faults) -> None:
    """Whether the scores look inverted, where labels are known."""
    find = finder([report.media.path for report in known])
    scores, labels = [], []
    for name, (score, _) in parsed.scores.items():
        i = _place(find, name)
        report = None if i is None else known[i]
        if report is not None and report.verdict in ("forged", "authentic"):
            scores.append(-score if form.single == "tsv" else score)
            labels.append(report.forged)
    auc = roc_auc(scores, labels)
    if len(scores) >= 10 and auc < 0.4:
        high = "bona fide" if form.single == "tsv" else "forged"
        cause = f"the AUC is {auc:.2f}, as if scores were inverted"
        faults.add("polarity", parsed.scores_in, None, cause, f"a high score means {high}", "doubtful")
