"""TVIL and Psynd as UMMAFormer (Zhang et al., ACM MM 2023) stores them: one JSON object of clips by name.

Each clip has ``file``, ``split``, ``duration``, ``fake_periods``; a film has ``video_frames``, a sound
``audio_frames`` or ``feature_frames``. Features lie in ``feats/tsn/{rgb,flow}/SPLIT/*.npy`` and
``feats/byola/SPLIT/*.npy``. TVIL holds films whose pictures were inpainted, Psynd calls with synthetic speech (splits
``test_cellular`` and ``test_landline`` among others).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..report import Media
from .sample import Fault, Sample, clip, read_json, read_rows

FIELDS = ("file", "split", "fake_periods")


def table_of(root: Path) -> Path | None:
    """The only JSON file of a folder that begins as such a table does; ``None`` if there is none, or several."""
    found = [path for path in sorted(root.glob("*.json")) if _begins(path)]
    return found[0] if len(found) == 1 else None


def _begins(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.read(4096)
    return re.match(r'\s*\{\s*"[^"]*"\s*:\s*\{', head) is not None and all(f'"{field}"' in head for field in FIELDS[1:])


def read_ummaformer(root: Path, faults: list[Fault]) -> list[Sample]:
    """The clips of the table; each is its own group, unless it names an ``original``.

    The media are looked for as ``file`` says, and in the folder of the split.
    """
    table = table_of(root)
    if table is None:
        raise DataError(f"{root}: no JSON table of clips by name here")
    items = list(read_json(table).items())
    return read_rows(items, partial(_sample, root), f"{table}, clip number", faults)


def _sample(root: Path, item: tuple[str, dict[str, Any]]) -> Sample:
    name, row = item
    split, duration, periods = str(row["split"]), float(row["duration"]), row["fake_periods"]
    file = str(row.get("file") or name)
    path = next((p for p in (root / file, root / split / file) if p.is_file()), root / file)
    film = "video_frames" in row
    if not film and not {"audio_frames", "feature_frames"} & row.keys():
        raise DataError(f"{file}: neither video_frames nor audio_frames nor feature_frames; found: {', '.join(row)}")
    fps = int(row["video_frames"]) / duration if film and duration > 0 else None
    media = Media(path=str(path), kind="video" if film else "audio", duration=duration, fps=fps)
    original = row.get("original")
    video, audio = (periods, []) if film else ([], periods)
    return clip(media, video, audio, source=original, group=str(original or name), split=split)
