"""One file measured against its truth, as numbers: what every protocol computes its figures from.

Masks are read here, one file at a time, and none is kept. An :class:`Item` is small and can be written down, so that a
million of them fit in memory and a run that was stopped goes on from those it has.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..report import Report
from .image import Mask, border_ring, confusion, inverted, photo_pixels, pixel_figure
from .temporal import frame_labels, proposals_of, spans_of

Floats = npt.NDArray[np.float64]

FRAMES_OF_A_VIDEO = 32  # that DeepfakeBench looks at
FRAME_RATE = 25.0  # in which forged frames of a clip are counted, per second
ABSENT, LISTED = "absent", "listed"  # environment["spans"] of a prediction from a file: whether spans were asked for
COVERS = {"video": ("video",), "audio": ("audio",), "audio_visual": ("audio", "video")}


@dataclass(frozen=True)
class Item:
    """What one file counts.

    ``pixels`` are by name: ``mask``, as delivered; ``hot``, where the heat map reaches the mask threshold; ``half``,
    where it is larger than 0.5: four counts each, TP, FP, FN, TN; ``trufor``: TruFor's two F1, at the best threshold
    and at 0.5. What is missing was not given, or not asked for.
    """

    name: str
    forged: bool
    group: str = ""
    found: bool = True  # whether there is a prediction at all
    flagged: bool = False  # whether its verdict is forged
    score: float | None = None  # probability of forgery
    raw: float | None = None  # the score as a submission file has it, where a probability cannot hold it
    forged_in: tuple[str, ...] = ()  # audio, video, or both
    scores_in: dict[str, float] = field(default_factory=dict)  # probability of each modality
    spans: tuple[tuple[float, float], ...] = ()  # forged seconds, those that touch joined
    listed: tuple[tuple[float, float], ...] = ()  # the same as the data set lists them, see :func:`listed_spans`
    proposals: tuple[tuple[float, float, float], ...] | None = None  # score, start, end; None: not asked for
    frames: tuple[float, ...] = ()  # scores of frames
    frame_counts: tuple[int, ...] = ()  # TP, FP, FN, TN of the frames of a clip that are called forged
    area: tuple[int, int] | None = None  # forged and other pixels of the truth
    pixels: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The item as a dict that JSON can write."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Item:
        """Read back what :meth:`to_dict` gave, after JSON too.

        Raises:
            DataError: a field is missing or unknown.
        """
        try:
            item = cls(**data)
            return dataclasses.replace(
                item,
                forged_in=tuple(item.forged_in),
                spans=tuple((s, e) for s, e in item.spans),
                listed=tuple((s, e) for s, e in item.listed),
                proposals=None if item.proposals is None else tuple((c, s, e) for c, s, e in item.proposals),
                frames=tuple(item.frames),
                frame_counts=tuple(item.frame_counts),
                area=None if item.area is None else (item.area[0], item.area[1]),
                pixels={name: tuple(values) for name, values in item.pixels.items()},
            )
        except (TypeError, ValueError, AttributeError) as cause:
            raise DataError(f"not the item of a file: {cause}") from cause


def measure(
    truth: Report,
    prediction: Report | None,
    *,
    pixels: bool = True,
    trufor: bool = False,
    mask_threshold: float = 0.5,
    group: str = "",
) -> Item:
    """What one file counts.

    Args:
        truth: what is known: verdict, forged spans, and the mask in memory or as the file ``artifacts.mask``, light
            where forged. A forged photo without either is not judged for where it is forged.
        prediction: what was found. Its mask and heat map likewise; where one is missing, the other stands in: the mask
            as a map of 0 and 1, the map where it reaches the threshold. ``None``: nothing was.
        pixels: whether to read masks.
        trufor: whether to take TruFor's figures too, for which pixels are sorted.
        mask_threshold: of heat maps.
        group: what is resampled together in confidence intervals.

    Raises:
        DataError: a mask cannot be read, or has not the size of the truth's.
    """
    clip = truth.media.kind in ("video", "audio")
    known = mask_of(truth) if pixels and truth.forged and not clip else None
    forged_in = tuple(sorted({key for s in truth.segments for key in COVERS.get(s.modality, ())}))
    truth = _ended(truth, prediction)
    item = Item(
        name=truth.media.path,
        forged=truth.forged,
        group=group,
        found=False,
        forged_in=forged_in,
        spans=tuple((float(start), float(end)) for start, end in spans_of(truth)),
        listed=listed_spans(truth),
        area=None if known is None else _area(known),
    )
    if prediction is None or _says_nothing(prediction):
        return item
    item = dataclasses.replace(
        item,
        found=True,
        flagged=prediction.forged,
        score=prediction.probability,
        raw=float(prediction.environment["score"]) if "score" in prediction.environment else None,
        scores_in=dict(prediction.modalities),
        proposals=_proposals(prediction),
        frames=_frames(prediction),
        frame_counts=_frame_counts(truth, prediction) if clip else (),
    )
    if not pixels or clip or (truth.forged and known is None):
        return item
    mask, heatmap = mask_of(prediction), heatmap_of(prediction)
    if known is None:  # an authentic photo
        size = next((array.shape for array in (mask, heatmap) if array is not None), None)
        if size is None:
            return item
        known = np.zeros(size, bool)
    for name, array in (("mask", mask), ("heat map", heatmap)):
        if array is not None and array.shape != known.shape:
            raise DataError(
                f"{prediction.media.path}: its {name} is {array.shape[1]}x{array.shape[0]}, that of the truth"
                f" {known.shape[1]}x{known.shape[0]}; give it the size of the photo"
            )
    found = _pixels(mask, heatmap, known, mask_threshold, trufor)
    return dataclasses.replace(item, area=_area(known), pixels=found)


def listed_spans(truth: Report) -> tuple[tuple[float, float], ...]:
    """Forged spans as released evaluators have them: each one as listed, also where two overlap.

    Where sound and picture have lists that differ, spans that touch are joined, as data sets do that list both at once.
    """
    lists: dict[str, dict[tuple[float, float], None]] = {}
    for s in truth.segments:
        for modality in COVERS.get(s.modality, ()):
            lists.setdefault(modality, {})[float(s.start), float(s.end)] = None
    if len(lists) == 2 and lists["video"].keys() != lists["audio"].keys():
        return tuple((float(start), float(end)) for start, end in spans_of(truth))
    return tuple(next(iter(lists.values()), {}))


def _ended(truth: Report, prediction: Report | None) -> Report:
    """A truth whose spans end: one that lasts to the end of its clip is left out if nobody knows when that is."""
    if all(math.isfinite(s.end) for s in truth.segments):
        return truth
    durations = [report.media.duration for report in (truth, prediction) if report is not None]
    end = next((duration for duration in durations if duration), math.inf)
    ended = (dataclasses.replace(s, end=min(s.end, end)) for s in truth.segments)
    return dataclasses.replace(truth, segments=tuple(s for s in ended if s.start < s.end < math.inf))


def finder(paths: Sequence[str]) -> Callable[[str], int]:
    """A function from the name of a prediction to the place of its truth.

    Names agree by their longest common end, whole folders at a time: ``test/000001.mp4`` and ``/data/test/000001.mp4``;
    the file name alone will do where only one truth has it, and so will a name without its ending.

    Args:
        paths: of the truths.

    Raises:
        DataError: two truths have one path; and from the function: no truth, or several, have this name.
    """
    ends: dict[str, list[int]] = {}
    bare: dict[str, list[int]] = {}  # without their endings
    whole: set[str] = set()
    for i, path in enumerate(paths):
        names = _ends(path)
        if names and names[0] in whole:
            raise DataError(f"{path}: is among the truths twice")
        whole.update(names[:1])
        for name in names:
            ends.setdefault(name, []).append(i)
            bare.setdefault(name.removesuffix(PurePosixPath(name).suffix), []).append(i)

    def find(path: str) -> int:
        names = _ends(path)
        at = next((ends[name] for name in names if name in ends), [])
        at = at or next((bare[name] for name in names if name in bare), [])
        if not at:
            raise DataError(f"{path}: there is no truth of this name; predictions are for files of the data set only")
        if len(at) > 1:
            exact = [i for i in at if _ends(paths[i])[0] == names[0]]
            if len(exact) == 1:
                return exact[0]
            raise DataError(f"{path}: could be {paths[at[0]]} or {paths[at[1]]}; name its folder too")
        return at[0]

    return find


def _ends(path: str) -> list[str]:
    """The path and every shorter end of it, the longest first."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    return ["/".join(parts[i:]) for i in range(len(parts))]


def _says_nothing(prediction: Report) -> bool:
    spans = prediction.proposals or prediction.segments or prediction.environment.get("spans") == LISTED
    return prediction.probability is None and not spans


def _proposals(prediction: Report) -> tuple[tuple[float, float, float], ...] | None:
    if prediction.environment.get("spans") == ABSENT:
        return None
    return tuple((float(c), float(s), float(e)) for c, s, e in proposals_of(prediction))


def _frames(prediction: Report) -> tuple[float, ...]:
    """Scores of at most 32 frames, spread evenly over a clip's curve; of a photo, or without a curve, its own score."""
    curve = prediction.curves.get("video")
    ticks = np.zeros(0) if curve is None else np.asarray(curve, np.float64)[np.isfinite(curve)]
    if not len(ticks):
        return () if prediction.probability is None else (float(prediction.probability),)
    at = np.linspace(0, len(ticks) - 1, min(FRAMES_OF_A_VIDEO, len(ticks))).round().astype(int)
    return tuple(float(value) for value in ticks[at])


def _frame_counts(truth: Report, prediction: Report) -> tuple[int, ...]:
    ends = [s.end for s in (*truth.segments, *prediction.segments)]
    duration = prediction.media.duration or truth.media.duration or max(ends, default=0.0)
    ticks = math.ceil(duration * FRAME_RATE - 1e-6)
    found, known = (frame_labels(spans_of(report), ticks, FRAME_RATE) for report in (prediction, truth))
    return tuple(confusion(found, known))


def _pixels(
    mask: Mask | None, heatmap: Floats | None, known: Mask, threshold: float, trufor: bool
) -> dict[str, tuple[float, ...]]:
    hot, half = (mask, mask) if heatmap is None else (heatmap >= threshold, heatmap > 0.5)
    arrays = {"mask": hot if mask is None else mask, "hot": hot, "half": half}
    found: dict[str, tuple[float, ...]] = {
        name: tuple(confusion(array, known)) for name, array in arrays.items() if array is not None
    }
    if trufor and found and known.any():
        soft = mask.astype(np.float64) if heatmap is None and mask is not None else heatmap
        assert soft is not None
        photo = photo_pixels(soft, known, border_ring(known), strict=True, bins=None)
        both = pixel_figure(np.array([photo.counts, inverted(photo.counts)]), "f1")
        found["trufor"] = (max(photo.best.f1, photo.best_inverted.f1), float(both.max()))
    return found


def mask_of(report: Report) -> Mask | None:
    """The forged pixels of a report, (H, W) bool, from memory or from its file; ``None`` if it has neither."""
    if report.mask is not None:
        return np.asarray(report.mask, np.bool_)
    return None if report.artifacts.mask is None else _grey(report, report.artifacts.mask, "mask") >= 128


def heatmap_of(report: Report) -> Floats | None:
    """The heat map of a report, (H, W) in [0, 1], from memory or from its 8-bit file."""
    if report.heatmap is not None:
        return np.asarray(report.heatmap, np.float64)
    if report.artifacts.heatmap is None:
        return None
    return _grey(report, report.artifacts.heatmap, "heat map").astype(np.float64) / 255


def _grey(report: Report, name: str, what: str) -> npt.NDArray[np.uint8]:
    grey = cv2.imread(name, cv2.IMREAD_GRAYSCALE) if Path(name).is_file() else None
    if grey is None:
        raise DataError(f"{report.media.path}: its {what} {name} is missing or not a picture")
    return np.asarray(grey, np.uint8)


def _area(mask: Mask) -> tuple[int, int]:
    forged = int(np.count_nonzero(mask))
    return forged, mask.size - forged
