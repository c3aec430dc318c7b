"""From reports to arrays: pairs of truth and prediction become what the figures of this package take.

A file that got no report, could not be read (verdict ``error``) or could not be judged (``not_applicable``, no
probability) is where figures are quietly made better or worse. So nothing is left out or made up unless it is asked
for: the default is an error that names the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..report import Report
from .image import Map, Mask
from .temporal import proposals_of, spans_of

Floats = npt.NDArray[np.float64]
Treatment = Literal["raise", "skip", "authentic", "chance", "wrong"]
Trouble = Literal["missing", "error", "not_applicable"]
Pair = tuple[Report, Report | None]  # truth, prediction


class Scores(NamedTuple):
    """Files as detection figures take them; see :func:`scores_of`."""

    names: tuple[str, ...]  # (n,) paths as the truth has them
    scores: Floats  # (n,) probabilities of forgery
    labels: npt.NDArray[np.bool_]  # (n,) True = forged
    troubles: dict[Trouble, int]  # how many files had no probability of their own, and why


def paired(
    truths: Iterable[Report],
    predictions: Iterable[Report],
    key: Callable[[Report], str] = lambda report: Path(report.media.path).name,
) -> list[Pair]:
    """Every truth with the prediction of the same name, in the order of the truths; ``None`` where there is none.

    Args:
        truths: one for each file.
        predictions: in any order.
        key: what a truth and its prediction have in common; by default the name of the file without its folders.

    Raises:
        DataError: two truths or two predictions have one name, or a prediction is of a file that has no truth.
    """
    known, found = _by_name(truths, key, "truths"), _by_name(predictions, key, "predictions")
    if strange := found.keys() - known.keys():
        first = found[min(strange)].media.path
        raise DataError(f"{first}: a prediction of a file without truth ({len(strange)} such); are these other data?")
    return [(truth, found.get(name)) for name, truth in known.items()]


def scores_of(
    pairs: Iterable[Pair],
    *,
    missing: Treatment = "raise",
    error: Treatment = "raise",
    not_applicable: Treatment = "raise",
) -> Scores:
    """Probabilities and labels of files.

    Args:
        pairs: truth and prediction of each file.
        missing: what a file counts that has no prediction: ``"raise"``: a :class:`DataError`; ``"skip"``: nothing;
            ``"authentic"``: probability 0, as if nothing had been found; ``"chance"``: 0.5; ``"wrong"``: the worst
            answer, 0 if it is forged and 1 if it is authentic.
        error: the same for one whose verdict is ``error``.
        not_applicable: the same for one that could not be judged: its prediction has no probability.

    Raises:
        DataError: a truth is neither forged nor authentic, or a file has no probability and its treatment is to raise.
    """
    treatments: dict[Trouble, Treatment] = {"missing": missing, "error": error, "not_applicable": not_applicable}
    for treatment in treatments.values():
        if treatment not in get_args(Treatment):
            raise DataError(f"no treatment is named {treatment!r}; there are {', '.join(get_args(Treatment))}")
    names, scores, labels = [], [], []
    troubles: Counter[Trouble] = Counter()
    for truth, prediction in pairs:
        score = None if prediction is None else prediction.probability
        forged = label_of(truth)
        trouble = trouble_of(prediction)
        if trouble is not None:
            troubles[trouble] += 1
            treatment = treatments[trouble]
            if treatment == "raise":
                raise DataError(f"{truth.media.path}: {_words(trouble, prediction)}; say what such a file is to count")
            if treatment == "skip":
                continue
            score = {"authentic": 0.0, "chance": 0.5, "wrong": float(not forged)}[treatment]
        assert score is not None
        names.append(truth.media.path)
        scores.append(score)
        labels.append(forged)
    return Scores(tuple(names), np.array(scores, np.float64), np.array(labels, np.bool_), dict(troubles))


def label_of(truth: Report) -> bool:
    """Whether a truth says forged.

    Raises:
        DataError: it says neither forged nor authentic.
    """
    if truth.verdict not in ("forged", "authentic"):
        raise DataError(f"{truth.media.path}: its truth is {truth.verdict!r}; a truth is 'forged' or 'authentic'")
    return truth.forged


def trouble_of(prediction: Report | None) -> Trouble | None:
    """Why a prediction has no probability of its own, or ``None`` if it has one."""
    if prediction is None:
        return "missing"
    if prediction.verdict == "error":
        return "error"
    return "not_applicable" if prediction.probability is None else None


def maps_of(pair: Pair, which: Literal["heatmap", "mask"] = "heatmap") -> tuple[Map, Mask]:
    """Heat map (or mask) of the prediction and mask of the truth of one photo, both (H, W).

    They are taken from memory, or else from the pictures that the reports name, of which 128..255 is forged. An
    authentic photo needs no truth mask. A prediction ``authentic`` that has no mask is an empty one.

    Raises:
        DataError: there is no prediction, or it has no such map; a picture cannot be read; a forged photo has no truth
            mask; or the sizes differ.
    """
    truth, prediction = pair
    path = truth.media.path
    if prediction is None or prediction.verdict == "error":
        raise DataError(f"{path}: {_words('missing' if prediction is None else 'error', prediction)}")
    found: Map | None = prediction.heatmap if which == "heatmap" else prediction.mask
    if found is None:
        name = prediction.artifacts.heatmap if which == "heatmap" else prediction.artifacts.mask
        found = None if name is None else _picture(name, path)
        if found is not None and which == "mask":
            found = found >= 128
    mask = truth.mask
    if mask is None and truth.artifacts.mask is not None:
        mask = _picture(truth.artifacts.mask, path) >= 128
    if mask is None and label_of(truth):
        raise DataError(f"{path}: forged, but its truth has no mask")
    if found is None and which == "mask" and prediction.verdict == "authentic" and mask is not None:
        found = np.zeros(mask.shape, np.bool_)
    if found is None:
        raise DataError(f"{path}: its prediction has no {which}; scan with --out, or keep reports in memory")
    if mask is None:
        mask = np.zeros(found.shape, np.bool_)
    if mask.shape != found.shape:
        raise DataError(f"{path}: {which} of {found.shape} and truth mask of {mask.shape}; resize the prediction")
    return found, mask


def spans_of_pairs(pairs: Sequence[Pair]) -> tuple[list[Floats], list[Floats]]:
    """Proposals (k, 3) and forged spans (m, 2) of each clip, as :mod:`seamline.metrics.temporal` takes them.

    A clip without a prediction, or one that could not be judged, has no proposals: its forged spans are missed.
    """
    nothing = np.zeros((0, 3))
    found = [nothing if prediction is None else proposals_of(prediction) for _, prediction in pairs]
    return found, [spans_of(truth) for truth, _ in pairs]


def _by_name(reports: Iterable[Report], key: Callable[[Report], str], what: str) -> dict[str, Report]:
    found: dict[str, Report] = {}
    for report in reports:
        name = key(report)
        if name in found:
            raise DataError(f"{report.media.path} and {found[name].media.path}: two {what} are named {name!r}")
        found[name] = report
    return found


def _words(trouble: Trouble, prediction: Report | None) -> str:
    """What is the matter, in words."""
    if prediction is None:
        return "has no prediction"
    said = prediction.error or "; ".join(prediction.warnings)
    return ("could not be read" if trouble == "error" else "could not be judged") + (f" ({said})" if said else "")


def _picture(name: str, path: str) -> npt.NDArray[np.uint8]:
    grey = cv2.imread(name, cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise DataError(f"{path}: its picture {name} is missing or not a picture")
    return np.asarray(grey, np.uint8)
