"""A few hostile files of every format, always other ones than the long run's; and those that once did harm."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from seamline import isolation
from seamline.errors import SeamlineError
from seamline.media import Clip, archives

from .corpus import FORMATS
from .mutate import hostile
from .run import run

REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*"))


def test_hostile_files_end_in_a_report_or_an_error(tmp_path: Path) -> None:
    tally = run(2 * len(FORMATS), tmp_path / "run", first=1_000_000)
    assert tally.failures == []
    assert len({end.split()[0] for end in tally.ends}) == len(FORMATS) + 1
    assert tally.slowest[0] < 30


@pytest.mark.slow
def test_many_hostile_files(tmp_path: Path) -> None:
    assert run(40 * len(FORMATS), tmp_path / "run", first=2_000_000).failures == []


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "tar.gz"])
def test_taking_apart_and_putting_together_changes_little(name: str) -> None:
    form = FORMATS[name]
    data = form.make()
    parts = form.split(data)
    assert len(parts) > 1
    whole = form.join(parts)
    assert form.split(whole) == parts
    assert hostile(name, 3) == hostile(name, 3) != hostile(name, 4)


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.name)
def test_what_once_did_harm(path: Path) -> None:
    with contextlib.suppress(SeamlineError):
        if archives.is_archive(path):
            isolation.members(path)
            return
        with isolation.opened(path) as medium:
            if isinstance(medium, Clip):
                for _ in medium.frames(5):
                    pass
