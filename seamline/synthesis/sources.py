"""Which files of a folder a recipe works on."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..media import expand


@dataclass(frozen=True)
class Source:
    """An authentic file to forge, or to take from."""

    path: str
    name: str  # path relative to the source folder
    group: str  # camera, person or set: what must stay on one side of a split
    kind: str = ""  # as the folder's manifest names it


class Choice(Protocol):
    """What a recipe says of the files that it draws from; empty: no condition."""

    @property
    def split(self) -> str:
        """Of the manifest."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Kinds, as the manifest names them."""

    @property
    def groups(self) -> tuple[str, ...]:
        """To use, and no others."""

    @property
    def without(self) -> tuple[str, ...]:
        """Groups to leave out."""

    @property
    def exclude(self) -> tuple[str, ...]:
        """Path prefixes to leave out."""


def select(folder: Path, choice: Choice, endings: tuple[str, ...] = ()) -> list[Source]:
    """The files of a folder, sorted by name; of one with a ``manifest.csv``, those that all conditions let through.

    Args:
        folder: with or without a ``manifest.csv`` (path, kind, split, group).
        choice: the conditions.
        endings: of file names, to look for where there is no manifest; empty: those of photos.
    """
    table = folder / "manifest.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        asked = {"split": {choice.split} - {""}, "kind": set(choice.sources), "group": set(choice.groups)}
        found = [
            Source(str(folder / row["path"]), row["path"], row.get("group") or row["path"], row.get("kind") or "")
            for row in rows
            if all(not wanted or row.get(column) in wanted for column, wanted in asked.items())
        ]
    else:
        if endings:
            paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in endings and p.is_file())
        else:
            paths = sorted(expand([folder]))
        found = [Source(str(p), p.relative_to(folder).as_posix(), p.relative_to(folder).as_posix()) for p in paths]
    avoided, prefixes = set(choice.without), choice.exclude or ("\0",)
    return sorted(
        (s for s in found if s.group not in avoided and not s.name.startswith(prefixes)), key=lambda s: s.name
    )
