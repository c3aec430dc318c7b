"""Imports point down only (the ladder below is the architecture). No file is excepted."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "seamline"
FILES = sorted(PACKAGE.rglob("*.py"))

# Rooms of one line do not import each other. A room is a file or a folder of the package; "public" is seamline itself.
LADDER = (
    {"__main__"},
    {"cli", "demo", "server", "ui"},
    {"public"},
    {"train"},
    {"evaluate", "feeds", "evidence"},
    {"pipeline"},
    {"batches", "convert"},
    {"zoo", "synthesis", "draw", "chart", "isolation", "journal"},
    {"detectors", "data"},
    {"heads"},
    {"encoders", "losses", "metrics", "verdicts", "provenance"},
    {"media", "report", "faces", "windows", "familiar", "copies", "pace", "cues"},
    {"errors", "output"},
)
RUNG = {room: rung for rung, rooms in enumerate(LADDER) for room in rooms}
TENSORS_ONLY = {"encoders", "heads", "losses"}


def room_of(module: str) -> str:
    """``seamline.heads.mask`` is of the room ``heads``; a name that ``seamline/__init__.py`` defines is ``public``."""
    first = module.split(".")[1] if "." in module else ""
    return first if first and ((PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").exists()) else "public"


def imports(file: Path, root: Path = PACKAGE) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything of ours that a file imports, inside functions and TYPE_CHECKING too."""
    package = ["seamline", *file.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [] if not node.level else package[: len(package) - node.level + 1]
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "seamline")


def home(file: Path) -> str:
    """The room that a file is in."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return "public" if parts == ("__init__",) else parts[0]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_point_down(file: Path) -> None:
    here = home(file)
    assert here in RUNG, f"{file.name} is a new room: give {here!r} its place in LADDER"
    for line, name in imports(file):
        there = room_of(name)
        if there == here:
            continue
        where = f"{file.relative_to(PACKAGE.parent)}:{line} imports {name}"
        assert RUNG[here] < RUNG[there], f"{where}: {here} must not know {there}, the ladder points down"
        assert here not in TENSORS_ONLY or there in TENSORS_ONLY | {"errors"}, f"{where}: {here} know tensors only"
        assert here not in {"server", "ui"} or there == "public", f"{where}: {here} uses public names only"


def test_the_reader_of_imports_sees_every_form(tmp_path: Path) -> None:
    (tmp_path / "heads").mkdir()
    file = tmp_path / "heads" / "x.py"
    file.write_text(
        "import seamline.media\nimport numpy\nfrom .. import zoo, detect\nfrom ..report import Report\n"
        "from .mask import Mask\nfrom seamline import load\n\ndef f():\n    from ..data.sample import Sample\n"
    )
    assert [name for _, name in imports(file, tmp_path)] == [
        "seamline.media",
        "seamline.zoo",
        "seamline.detect",
        "seamline.report.Report",
        "seamline.heads.mask.Mask",
        "seamline.load",
        "seamline.data.sample.Sample",
    ]
