"""The leaderboard: groups that may be compared, hashes and intervals; nothing from outside, nothing injected."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from seamline.cli import app
from seamline.errors import DataError
from seamline.evaluate import evaluate, leaderboard, rows
from tests.test_evaluate import data, scan
from tests.test_evaluate_clips import data as clips
from tests.test_evaluate_clips import scan as scan_clip

__all__ = ["clips", "data"]  # fixtures
VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Checks that every element is closed, and gathers the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if "table" in self.open and self.tables[-1]:
            self.tables[-1][-1][-1] += text


@pytest.fixture
def three(data: Path, clips: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Two rows of the same photos, one of clips with a protocol."""
    monkeypatch.setattr(rows, "DRAWS", 40)
    monkeypatch.setattr(rows, "PHOTO_GRID", ("jpeg75",))
    photos = evaluate(scan, data, perturb="grid", progress=False)
    worse = copy.deepcopy(photos) | {"auc": 0.6, "f1": 0.9, "robustness": None}
    worse["model"] = {"name": '<script>alert(1)</script> & "worse"', "version": None, "sha256": "cd" * 32}
    return [worse, photos, evaluate(scan_clip, clips, protocol="ddl-track2", progress=False)]


def test_the_page(three: list[dict[str, Any]], tmp_path: Path) -> None:
    page, markdown = leaderboard(three, tmp_path / "board")
    text = page.read_text("utf-8")
    read = Page(text)
    outside = [
        value for name, value in read.attributes if name in ("src", "href") and not (value or "").startswith("#")
    ]
    assert not outside
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "<script>alert" not in text
    clip_table, official, photo_table = read.tables  # data sets by name, our figures first
    assert [row[0][:3] for row in photo_table[1:]] == ["toy", "<sc"]  # the better AUC first
    assert photo_table[0][1].startswith("AUC")
    assert photo_table[1][1] == "1.000[1.00, 1.00]"
    assert photo_table[1][0] == "toy 1abababababab"
    assert official[0][1].startswith("final")
    assert clip_table[0][4].startswith("AP@.5")
    assert text.count('class="best"') == 2  # of AUC and of F1; what is equal everywhere has no best
    assert "Robustness of toy" in text
    assert three[0]["data"]["sha256"] in text
    assert ("title", "cd" * 32) in read.attributes
    lines = markdown.read_text("utf-8").splitlines()
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert widths == [*[15] * 3, *[widths[3]] * 3, *[12] * 4]
    assert any(line.startswith("| toy 1 | **1.000 [1.00, 1.00]** |") for line in lines)
    again = leaderboard(three[::-1], tmp_path / "again")
    assert [path.read_bytes() for path in again] == [page.read_bytes(), markdown.read_bytes()]


def test_rows_of_other_files_are_not_compared(three: list[dict[str, Any]], tmp_path: Path) -> None:
    fewer, changed = copy.deepcopy(three[1]), copy.deepcopy(three[1])
    fewer["data"]["files"] = 6
    changed["perturb"] = "jpeg75"
    page, _ = leaderboard([three[1], fewer, changed], tmp_path)
    assert [len(table) for table in Page(page.read_text()).tables] == [2, 2, 2]
    assert "set0, JPEG 75" in page.read_text() or ", JPEG 75" in page.read_text()
    with pytest.raises(DataError, match="needs rows"):
        leaderboard([], tmp_path)


def test_what_is_not_defined_is_a_dash(three: list[dict[str, Any]], tmp_path: Path) -> None:
    row = copy.deepcopy(three[2])
    row["auc_video"], row["ci95"] = None, {}
    page, _ = leaderboard([row], tmp_path)
    cells = Page(page.read_text()).tables[0][1]
    assert cells[2] == "-"
    assert re.fullmatch(r"\d\.\d{3}", cells[1])


def test_the_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "DRAWS", 40)
    evaluate(scan, data, out=tmp_path / "row.json", progress=False)
    run = typer.testing.CliRunner()
    result = run.invoke(app, ["leaderboard", str(tmp_path / "row.json"), "--out", str(tmp_path / "board")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "board" / "index.html").is_file()
    result = run.invoke(app, ["leaderboard", str(tmp_path / "row.csv"), "--out", str(tmp_path / "board")])
    assert result.exit_code == 2
    assert "row.csv: not a row of seamline evaluate" in result.output
