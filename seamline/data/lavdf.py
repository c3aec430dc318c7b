"""Clips with their truth: LAV-DF and folders in its words, and the clips that ``seamline forge`` wrote.

LAV-DF (Cai et al. 2022) is a folder with ``metadata.json`` (or the shorter ``metadata.min.json``), one list of objects,
and the clips in ``train/``, ``dev/`` and ``test/``. A truth has a segment for each span and modality it is forged in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError
from ..report import Media, Modality, Report, Segment
from .sample import Sample

METADATA = ("metadata.json", "metadata.min.json")
SPLITS = ("train", "dev", "test")
FORGED_IN = {(True, False): "video", (False, True): "audio", (True, True): "audio_visual"}  # kind, by what was modified


def read_lavdf(root: str | Path, split: str | None = None) -> list[Sample]:
    """The clips of LAV-DF in the order of its metadata.

    ``kind`` is ``authentic``, ``video``, ``audio`` or ``audio_visual``, by what was modified; ``group`` and ``source``
    the clip that a forgery was made from, so that both stay on one side of a split. Frame counts come from the
    metadata, as all who use LAV-DF have them: a clip's ``fps`` is its frames over its duration. Whether the files are
    there is seen when they are opened.

    Args:
        root: the folder that holds the metadata.
        split: only ``train``, ``dev`` or ``test``.

    Raises:
        DataError: there is no metadata, it is damaged, or nothing is of this split.
    """
    path = metadata_of(root)
    if path is None:
        raise DataError(f"{root}: no {' or '.join(METADATA)} here")
    if split is not None and split not in SPLITS:
        raise DataError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError(f"{path}: not readable as JSON: {cause}") from cause
    if not isinstance(rows, list):
        raise DataError(f"{path}: not a list of clips")
    samples = []
    for number, row in enumerate(rows):
        try:
            if split is None or row["split"] == split:
                samples.append(_listed(Path(root), row))
        except (KeyError, TypeError, ValueError, DataError) as cause:
            what = cause if isinstance(cause, DataError) else f"{type(cause).__name__}: {cause}"
            raise DataError(f"{path}, clip number {number}: {what}") from cause
    if not samples:
        raise DataError(f"{path}: lists no clips{f' of the split {split}' if split else ''}")
    return samples


def metadata_of(root: str | Path) -> Path | None:
    """The metadata file of a folder, the whole one before the shorter; ``None`` if it has none."""
    return next((path for path in (Path(root) / name for name in METADATA) if path.is_file()), None)


def forged_clip(root: Path, row: dict[str, Any]) -> Sample:
    """The clip of one line of a ``manifest.jsonl``.

    Raises:
        DataError: a span is none, or the label contradicts the spans.
        KeyError, TypeError, ValueError: a field is missing or of the wrong type.
    """
    media = Media(
        path=str(root / row["path"]),
        sha256=row.get("sha256"),
        kind="video" if row.get("picture", True) else "audio",
        duration=float(row["duration"]),
        fps=float(row["fps"]) if row.get("picture", True) else None,
    )
    sample = _sample(media, row["video"], row["audio"], str(row["kind"]), row.get("source"), str(row["group"]))
    if bool(int(row["label"])) != sample.truth.forged:
        raise DataError(f"its label is {row['label']}, but it lists {len(sample.truth.segments)} forged spans")
    return sample


def _listed(root: Path, row: dict[str, Any]) -> Sample:
    """The clip of one object of LAV-DF's metadata."""
    name, periods, duration = str(row["file"]), row["fake_periods"], float(row["duration"])
    video, audio = bool(row["modify_video"]), bool(row["modify_audio"])
    if int(row["n_fakes"]) != len(periods):
        raise DataError(f"{name}: n_fakes is {row['n_fakes']}, but it lists {len(periods)} fake periods")
    if periods and not (video or audio):
        raise DataError(f"{name}: has fake periods, but neither video nor audio is modified")
    frames, channels = int(row["video_frames"]), row.get("audio_channels")
    kind: Literal["video", "audio"] = "video" if frames else "audio"
    fps = frames / duration if frames and duration > 0 else None
    media = Media(path=str(root / name), kind=kind, duration=duration, fps=fps, channels=channels or None)
    original = row.get("original")
    return _sample(
        media,
        periods if video else [],
        periods if audio else [],
        FORGED_IN[video, audio] if periods else "authentic",
        original,
        str(original or name),
    )


def _sample(
    media: Media, video: Sequence[Any], audio: Sequence[Any], kind: str, source: str | None, group: str
) -> Sample:
    """A clip and its truth, the segments by time."""
    segments = [*_segments(media, video, "video"), *_segments(media, audio, "audio")]
    truth = Report(
        media=media,
        verdict="forged" if segments else "authentic",
        probability=float(bool(segments)),
        segments=tuple(sorted(segments, key=lambda s: (s.start, s.end))),
    )
    return Sample(media=Path(media.path), truth=truth, kind=kind, source=source, group=group)


def _segments(media: Media, spans: Sequence[Any], modality: Modality) -> list[Segment]:
    segments = []
    for span in spans:
        start, end = (float(value) for value in span)
        if not 0 <= start < end < math.inf:
            raise DataError(f"{media.path}: {span} is not a span of seconds")
        segments.append(Segment(start, end, 1.0, modality))
    return segments
