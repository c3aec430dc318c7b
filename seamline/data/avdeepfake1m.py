"""AV-Deepfake1M (Cai et al., ACM MM 2024) and AV-Deepfake1M++ (2025).

Clips are in ``train/`` and ``val/``. What is forged is in ``SPLIT_metadata.json`` (a list), or in one JSON file a clip,
in ``SPLIT_metadata/`` or beside the clip. ``test/`` has no truth and is left out. The README of the set writes
``both_modified``, its code ``both-modified``: hyphens and underscores are the same here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..report import Media
from .sample import FILMS, Fault, Sample, clip, files, read_json, read_rows

SPLITS = ("train", "val")
FPS, RATE = 25.0, 16000.0  # of every clip; the metadata counts frames and samples
MODIFIED = {"real": (), "visual_modified": ("visual",), "audio_modified": ("audio",)}
MODIFIED |= {"both_modified": ("visual", "audio")}


def is_avdeepfake1m(root: Path) -> bool:
    """Whether a split has metadata in one of the three forms."""
    return any(
        (root / f"{split}_metadata.json").is_file() or (root / f"{split}_metadata").is_dir() or _beside(root, split)
        for split in SPLITS
    )


def _beside(root: Path, split: str) -> bool:
    first = next((root / split).rglob("*.mp4"), None) if (root / split).is_dir() else None
    return first is not None and first.with_suffix(".json").is_file()


def read_avdeepfake1m(root: Path, faults: list[Fault]) -> list[Sample]:
    """The clips of both splits; ``group`` is the speaker, whose folder comes first in a clip's path."""
    samples = []
    for split in SPLITS:
        table, folder, clips = root / f"{split}_metadata.json", root / f"{split}_metadata", root / split
        make = partial(_sample, clips, split)
        if table.is_file():
            rows = read_json(table)
            if not isinstance(rows, list):
                raise DataError(f"{table}: not a list of clips")
            samples += read_rows(rows, make, f"{table}, clip number", faults)
            continue
        paths = files(folder, {".json"}, deep=True)
        if not paths:
            paths = [path.with_suffix(".json") for path in files(clips, FILMS, deep=True)]
        samples += read_rows(paths, partial(_of_file, clips, split), f"{clips}, file number", faults)
    return samples


def _of_file(clips: Path, split: str, path: Path) -> Sample:
    try:
        return _sample(clips, split, read_json(path))
    except (KeyError, TypeError, ValueError) as cause:
        raise DataError(f"{path}: {type(cause).__name__}: {cause}") from cause


def _sample(clips: Path, split: str, row: dict[str, Any]) -> Sample:
    name, modified = str(row["file"]), str(row["modify_type"]).replace("-", "_")
    if modified not in MODIFIED:
        raise DataError(f"{name}: modify_type is {row['modify_type']!r}; known: {', '.join(MODIFIED)}")
    spans = {modality: list(row[f"{modality}_fake_segments"]) for modality in ("visual", "audio")}
    for modality, listed in spans.items():
        if bool(listed) != (modality in MODIFIED[modified]):
            raise DataError(
                f"{name}: modify_type is {row['modify_type']}, but {len(listed)} {modality} segments are fake"
            )
    frames, heard = int(row["video_frames"]), int(row.get("audio_frames") or 0)
    duration = frames / FPS if frames else heard / RATE
    media = Media(path=str(clips / name), kind="video", duration=duration, fps=FPS)
    parts = Path(name).parts
    group = parts[0] if len(parts) > 1 else str(row.get("original") or name)
    return clip(media, spans["visual"], spans["audio"], source=row.get("original"), group=group, split=split)
