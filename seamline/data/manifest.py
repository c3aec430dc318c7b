"""A manifest: one line for each photo or clip, written by ``seamline forge`` or by hand, as JSON Lines or CSV.

``manifest.jsonl`` or ``manifest.csv`` lies beside the media, or is itself what is opened. Only ``path`` and ``label``
are needed; ``docs/data.md`` has the table of fields.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..report import Media
from .sample import WHOLLY, Fault, Sample, clip, media_kind, photo, read_rows

NAMES = ("manifest.jsonl", "manifest.csv")
LABELS = {"1": True, "0": False, "true": True, "false": False, "forged": True, "authentic": False}
LABELS |= {"fake": True, "real": False, "spoof": True, "bonafide": False}
FIELDS = frozenset(
    "path label mask inverted fit video audio modality kind group source split duration fps picture sha256".split()
)


def manifest_of(root: Path) -> Path | None:
    """The manifest that a path is, or that a folder holds; a CSV needs a column ``label`` to be one."""
    found = [root] if root.suffix in (".jsonl", ".csv") else [root / name for name in NAMES]
    return next((path for path in found if path.is_file() and (path.suffix == ".jsonl" or _labelled(path))), None)


def _labelled(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return {"path", "label"} <= set(next(csv.reader(file), ()))


def read_manifest(root: Path, faults: list[Fault]) -> list[Sample]:
    """The photos and clips that a manifest lists, in its order; paths are relative to it.

    Raises:
        DataError: there is none, or it is not text.
    """
    path = manifest_of(root)
    if path is None:
        raise DataError(f"{root}: no {' or '.join(NAMES)} here")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise DataError(f"{path}: not readable as text: {cause}") from cause
    if path.suffix == ".csv":
        return read_rows(_table(lines), partial(_sample, path.parent), f"{path}, line", faults, first=2)
    return read_rows(lines, partial(_of_line, path.parent), f"{path}, line", faults, first=1)


def _table(lines: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of a CSV; empty cells count as absent, and spans are written ``0.5-1.2; 3-3.5``."""
    for row in csv.DictReader(lines):
        values: dict[str, Any] = {key: value.strip() for key, value in row.items() if key and value and value.strip()}
        for modality in ("video", "audio"):
            if modality in values:
                values[modality] = [part.split("-") for part in values[modality].split(";") if part.strip()]
        yield values


def _of_line(root: Path, line: str) -> Sample | None:
    return _sample(root, json.loads(line)) if line.strip() else None


def _sample(root: Path, row: dict[str, Any]) -> Sample:
    """The sample of one line.

    Raises:
        DataError: a value makes no sense, or the label contradicts the spans.
        KeyError, TypeError, ValueError: a field is missing or of the wrong type.
    """
    path, forged = root / row["path"], _yes(row["label"], "label")
    facts: dict[str, Any] = {
        "kind": str(row.get("kind") or ""),
        "group": str(row.get("group") or row["path"]),
        "source": row.get("source"),
        "split": str(row.get("split") or ""),
    }
    kind = media_kind(path)
    if "mask" in row or (kind == "image" and not {"video", "audio"} & row.keys()):
        mask = row.get("mask")
        facts |= {name: _yes(row[name], name) for name in ("inverted", "fit") if name in row}
        mask = root / mask if forged and mask else None
        return photo(path, mask, forged=forged, sha256=row.get("sha256"), **facts)
    spoken = {"video", "audio"} & row.keys()
    pictures = _yes(row["picture"], "picture") if "picture" in row else kind != "audio"
    media = Media(
        path=str(path),
        sha256=row.get("sha256"),
        kind="video" if pictures else "audio",
        duration=float(row["duration"]) if "duration" in row else None,
        fps=float(row["fps"]) if pictures and "fps" in row else None,
    )
    video, audio = row.get("video", ()), row.get("audio", ())
    if forged and not spoken:
        modality = row.get("modality", "" if pictures else "audio")
        if modality == "authentic" or modality not in WHOLLY:
            raise DataError(
                f"{path}: a forged clip needs spans in video or audio, or modality = video, audio or audio_visual"
                " if it is forged from beginning to end"
            )
        video, audio = WHOLLY[modality]
    sample = clip(media, video, audio, **facts)
    if forged != sample.truth.forged:
        raise DataError(f"its label is {row['label']}, but it lists {len(sample.truth.segments)} forged spans")
    return sample


def _yes(value: Any, field: str) -> bool:
    """A label or flag as it may be written."""
    try:
        return LABELS[str(value).strip().lower()]
    except KeyError:
        raise ValueError(f"{field} is {value!r}; known: {', '.join(LABELS)}") from None
