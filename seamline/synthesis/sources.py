"""Which files of a folder a recipe works on."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..media import expand


@dataclass(frozen=True)
class Source:
    """An authentic file to forge, or to take from."""

    path: str
    name: str  # path relative to the source folder
    group: str  # camera, person or set: what must stay on one side of a split
    kind: str = ""  # as the folder's manifest names it


def select(
    folder: Path,
    *,
    split: str = "",
    kinds: Iterable[str] = (),
    groups: Iterable[str] = (),
    without: Iterable[str] = (),
    exclude: Iterable[str] = (),
    endings: Iterable[str] = (),
) -> list[Source]:
    """The files of a folder, sorted by name; of one with a ``manifest.csv``, those that all conditions let through.

    Args:
        folder: with or without a ``manifest.csv`` (path, kind, split, group).
        split: of the manifest; empty: any.
        kinds: of the manifest; empty: all.
        groups: use only these; empty: all.
        without: groups to leave out.
        exclude: path prefixes to leave out.
        endings: of file names, to look for where there is no manifest; empty: those of photos.
    """
    table = folder / "manifest.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        asked = {"split": {split} - {""}, "kind": set(kinds), "group": set(groups)}
        found = [
            Source(str(folder / row["path"]), row["path"], row.get("group") or row["path"], row.get("kind") or "")
            for row in rows
            if all(not wanted or row.get(column) in wanted for column, wanted in asked.items())
        ]
    else:
        if endings := tuple(endings):
            paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in endings and p.is_file())
        else:
            paths = sorted(expand([folder]))
        found = [Source(str(p), p.relative_to(folder).as_posix(), p.relative_to(folder).as_posix()) for p in paths]
    avoided, prefixes = set(without), tuple(exclude) or ("\0",)
    return sorted(
        (s for s in found if s.group not in avoided and not s.name.startswith(prefixes)), key=lambda s: s.name
    )
