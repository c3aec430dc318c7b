"""Rows: a run that was killed goes on to the same row; protocols, robustness and curves rest on the same outcomes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from seamline.data import open_data
from seamline.errors import DataError
from seamline.evaluate import evaluate, read_row, rows, tables
from seamline.metrics.protocols import score
from seamline.pipeline import Session
from seamline.report import Report
from seamline.synthesis.perturb import PHOTO_GRID
from tests.test_evaluate import data, scan
from tests.test_evaluate_clips import data as clips
from tests.test_evaluate_clips import scan as scan_clip
from tests.test_pipeline_clips import CARD, Loud, wave

__all__ = ["clips", "data"]  # fixtures
TIMES = ("seconds", "seconds_per_megapixel", "times_realtime")
DYING = """
import os, signal, sys
from seamline.evaluate import evaluate, rows
from tests import test_evaluate
calls = 0
rows.commit, rows.PHOTO_GRID = lambda: "c0ffee", ("jpeg75", "resize0.5", "crop5")

def scan(rgb):
    global calls
    calls += 1
    if calls == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return test_evaluate.scan(rgb)

evaluate(scan, sys.argv[1], out=sys.argv[2], protocol="ddl-track1", perturb="grid", progress=False)
"""


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "DRAWS", 40)
    monkeypatch.setattr(rows, "commit", lambda: "c0ffee")  # a checkout may be changed while this runs


def timeless(path: Path) -> str:
    """The text of a row without what a clock said."""
    row = json.loads(path.read_text())
    return json.dumps({name: value for name, value in row.items() if name not in TIMES})


def test_killed_and_resumed_it_gives_the_same_row(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PHOTO_GRID", ("jpeg75", "resize0.5", "crop5"))
    whole, killed = tmp_path / "whole.json", tmp_path / "killed.json"
    evaluate(scan, data, out=whole, protocol="ddl-track1", perturb="grid", progress=False)
    ended = subprocess.run(
        [sys.executable, "-c", DYING, str(data), str(killed)], cwd=Path(__file__).parents[1], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    journal = killed.with_name("killed.json.journal")
    assert not killed.exists()
    assert len(journal.read_text().splitlines()) == 29  # every file that was judged before the kill
    with journal.open("a") as file:
        file.write('{"key": "half a li')  # as a kill in the middle of a write leaves it

    calls = 0

    def counted(rgb: npt.NDArray[np.uint8]) -> Report:
        nonlocal calls
        calls += 1
        return scan(rgb)

    counted.__qualname__ = "scan"
    evaluate(counted, data, out=killed, protocol="ddl-track1", perturb="grid", progress=False)
    assert calls == 12 * 4 - 29
    assert timeless(killed) == timeless(whole)
    assert killed.with_suffix(".csv").read_bytes() == whole.with_suffix(".csv").read_bytes()
    assert not journal.exists()


def test_a_stopped_run_on_clips_is_resumed_only_with_the_same_settings(clips: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def stopping(path: Path) -> Report:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(path.name)
        return scan_clip(path)

    def counted(path: Path) -> Report:
        seen.append(path.name)
        return scan_clip(path)

    counted.__qualname__ = stopping.__qualname__ = "scan"
    with pytest.raises(KeyboardInterrupt):
        evaluate(stopping, clips, out=tmp_path / "row.json", protocol="lavdf", progress=False)
    evaluate(counted, clips, out=tmp_path / "row.json", protocol="lavdf", progress=False)
    assert seen == [f"{i:02d}.mp4" for i in range(12)]
    evaluate(scan_clip, clips, out=tmp_path / "whole.json", protocol="lavdf", progress=False)
    assert timeless(tmp_path / "row.json") == timeless(tmp_path / "whole.json")

    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        evaluate(stopping, clips, out=tmp_path / "row.json", progress=False)
    evaluate(counted, clips, out=tmp_path / "row.json", threshold=0.7, progress=False)
    assert len(seen) == 5 + 12


def test_the_figures_of_a_protocol_are_those_of_the_protocol(data: Path, clips: Path) -> None:
    row = evaluate(scan_clip, clips, protocol="ddl-track2", progress=False)
    truths = [sample.truth for sample in open_data(clips)]
    expected = score("ddl-track2", truths, [scan_clip(Path(truth.media.path)) for truth in truths])
    official = row["protocol"]
    assert official["figures"].keys() == expected.keys()
    for name, value in expected.items():
        assert official["figures"][name] == pytest.approx(value, abs=1e-5), name
    low, high = official["ci95"][official["headline"]]
    assert low <= official["figures"][official["headline"]] <= high
    assert "Protocol ddl-track2" in tables(row)
    assert evaluate(scan_clip, clips, progress=False)["protocol"] is None
    with pytest.raises(DataError, match="ddl-track1 is for photos"):
        evaluate(scan_clip, clips, protocol="ddl-track1", progress=False)
    with pytest.raises(DataError, match="ddl-track2 is for clips"):
        evaluate(scan, data, protocol="ddl-track2", progress=False)
    with pytest.raises(DataError, match="unknown protocol"):
        evaluate(scan, data, protocol="nonsense", progress=False)


def test_robustness_of_photos(data: Path) -> None:
    row = evaluate(scan, data, perturb="grid", progress=False)
    table = row["robustness"]
    assert [entry["perturb"] for entry in table] == ["none", *PHOTO_GRID]
    names = ("auc", "f1", "detected", "false_alarms", "ece", "inconclusive")
    base = table[0]
    assert {name: base[name] for name in names} == {name: row[name] for name in names}
    assert "change" not in base
    for entry in table[1:]:
        assert entry["n"] == {"authentic": 4, "forged": 8}
        for name in names:
            assert entry["change"][name] == pytest.approx(entry[name] - base[name], abs=2e-5)
        low, high = entry["change_ci95"]["f1"]
        assert low - 1e-4 <= entry["change"]["f1"] <= high + 1e-4
        assert entry["f1"] == pytest.approx(base["f1"], abs=0.05)  # the mask went with the photo
    alone = evaluate(scan, data, perturb="jpeg60", progress=False)
    entry = next(entry for entry in table if entry["perturb"] == "jpeg60")
    assert {name: alone[name] for name in names} == {name: entry[name] for name in names}
    text = tables(row)
    assert "| JPEG 95, JPEG 75, JPEG 60 | 4 | 8 | 1.000 (+0.000) |" in text
    assert len({line.count("|") for line in text.split("Robustness")[1].splitlines() if line.startswith("|")}) == 1


def test_robustness_of_clips_is_of_those_that_have_what_is_changed(tmp_path: Path) -> None:
    lines = []
    for i in range(2):
        loud = [(1.0, 2.0)] if i % 2 else []
        wave(tmp_path / f"{i}.wav", 2.5, loud)
        row = {"path": f"{i}.wav", "kind": "tts" if loud else "authentic", "label": i % 2, "video": [], "audio": loud}
        lines.append(json.dumps(row | {"duration": 2.5, "fps": 25, "picture": False, "group": str(i)}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    session = Session(Loud(), card=CARD)
    row = evaluate(session, tmp_path, perturb="grid", progress=False)
    found = [entry["perturb"] for entry in row["robustness"]]
    assert found == [
        "none",
        "aac24",
        "opus12",
        "snr20",
        "snr10",
        "band3400",
    ]  # sounds have no pictures, nor can be muted
    assert all(entry["change"]["auc"] == 0.0 for entry in row["robustness"][1:])
    with pytest.raises(DataError, match="none of the 0 clips"):
        evaluate(session, tmp_path, perturb="crf32", progress=False)


def test_curves_of_a_row(clips: Path) -> None:
    row = evaluate(scan_clip, clips, progress=False)
    curves = row["curves"]
    assert curves["roc"][0] == [0.0, 0.0]
    assert curves["roc"][-1] == [1.0, 1.0]
    points = np.array(curves["roc"])
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(row["auc"], abs=1e-5)
    assert sum(curves["scores"]["authentic"]) == 3
    assert sum(curves["scores"]["forged"]) == 9
    assert sum(n for _, _, n in curves["reliability"]) == 12
    # As if half of all were forged: one of nine forged and two of three authentic files are 1/9 against 2/3.
    assert [share for _, share, _ in curves["reliability"]] == [pytest.approx(1 / 7, abs=1e-5), 0.0, 1.0]
    assert [point[0] for point in curves["ap_iou"]] == [i / 100 for i in range(50, 100, 5)]
    assert curves["ap_iou"][0][1] == row["ap50"]
    assert curves["ap_iou"][-1][1] == row["ap95"]


def test_thinned_curves_keep_their_area(rng: np.random.Generator) -> None:
    steps = np.append(0, np.cumsum(rng.random(20000) < 0.5))
    x, y = np.linspace(0, 1, len(steps)), steps / steps[-1]
    points = np.array(rows._thinned(x, y))
    assert len(points) <= rows.POINTS
    assert (points[0] == [0, 0]).all()
    assert (points[-1] == [1, 1]).all()
    assert np.trapezoid(points[:, 1], points[:, 0]) == pytest.approx(np.trapezoid(y, x), abs=2e-3)
    line = rows._thinned(np.linspace(0, 1, 50), np.linspace(0, 1, 50))
    assert line == [[0.0, 0.0], [1.0, 1.0]]
    assert rows._thinned(np.array([np.nan, np.nan]), np.array([0.0, 1.0])) == []


def test_every_figure_has_an_interval(data: Path, clips: Path) -> None:
    for row in (evaluate(scan, data, progress=False), evaluate(scan_clip, clips, progress=False)):
        others = (*TIMES, "threshold", "mask_threshold")
        figures = {name for name, value in row.items() if isinstance(value, float) and name not in others}
        assert figures == set(row["ci95"])
        assert len(figures) >= 14
        assert row["seconds"] >= 0


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"schema": "seamline.evaluation/1"}'])
def test_what_is_no_row_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text(text)
    with pytest.raises(DataError, match=r"row\.json: not a row"):
        read_row(tmp_path / "row.json")
    with pytest.raises(DataError, match="not a row"):
        read_row(tmp_path / "absent.json")


def test_a_row_is_read_back(data: Path, tmp_path: Path) -> None:
    row = evaluate(scan, data, out=tmp_path / "row.json", progress=False)
    assert read_row(tmp_path / "row.json") == row
