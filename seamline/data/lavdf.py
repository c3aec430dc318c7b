"""LAV-DF, and folders in its words.

LAV-DF (Cai et al. 2022) is a folder with ``metadata.json`` (or the shorter ``metadata.min.json``), one list of objects,
and the clips in ``train/``, ``dev/`` and ``test/``. A truth has a segment for each span and modality it is forged in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ..errors import DataError
from ..report import Media
from .sample import Fault, Sample, clip, read_json, read_rows, refuse

METADATA = ("metadata.json", "metadata.min.json")
SPLITS = ("train", "dev", "test")


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
    if split is not None and split not in SPLITS:
        raise DataError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    faults: list[Fault] = []
    samples = [s for s in list_lavdf(Path(root), faults) if split in (None, s.split)]
    refuse(faults)
    if not samples:
        raise DataError(f"{metadata_of(root)}: lists no clips{f' of the split {split}' if split else ''}")
    return samples


def list_lavdf(root: Path, faults: list[Fault]) -> list[Sample]:
    """The clips that the metadata lists; see :func:`read_lavdf`."""
    path = metadata_of(root)
    if path is None:
        raise DataError(f"{root}: no {' or '.join(METADATA)} here")
    rows = read_json(path)
    if not isinstance(rows, list):
        raise DataError(f"{path}: not a list of clips")
    return read_rows(rows, lambda row: _listed(root, row), f"{path}, clip number", faults)


def list_split(root: Path, faults: list[Fault]) -> list[Sample]:
    """The clips of the split whose folder this is."""
    samples = [sample for sample in list_lavdf(root.parent, faults) if sample.split == root.name]
    if not samples:
        raise DataError(f"{metadata_of(root.parent)}: lists no clips of the split {root.name}")
    return samples


def metadata_of(root: str | Path) -> Path | None:
    """The metadata file of a folder, the whole one before the shorter; ``None`` if it has none."""
    return next((path for path in (Path(root) / name for name in METADATA) if path.is_file()), None)


def is_split(root: Path) -> bool:
    """Whether this is the folder of one split of LAV-DF."""
    return root.is_dir() and root.name in SPLITS and metadata_of(root.parent) is not None


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
    return clip(
        media,
        periods if video else [],
        periods if audio else [],
        source=original,
        group=str(original or name),
        split=str(row["split"]),
    )
