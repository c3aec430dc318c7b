"""A batch that is killed goes on, and writes nothing by halves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from seamline import SeamlineError, Session, output, zoo
from seamline.detectors.loupe import build
from seamline.journal import NAME, Journal
from seamline.report import Report
from tests.test_cli import run
from tests.test_isolation import TILED
from tests.test_pipeline import RedIsForged


def photos(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{i:03}.png" for i in range(count)]
    for path in paths:
        PIL.Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    return paths


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    paths = photos(tmp_path / "in", 4)
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    paths.append(tmp_path / "in" / "bad.png")
    session = Session(RedIsForged(TILED))
    scanned: list[str] = []
    original = session._scanned
    session._scanned = lambda path, *rest: (scanned.append(Path(path).name), original(path, *rest))[1]  # type: ignore[assignment,func-returns-value,method-assign]

    def again(out: Path = tmp_path / "out", fresh: bool = False) -> list[str]:
        scanned.clear()
        with Journal(tmp_path / "journal", fresh) as journal:
            reports = list(session.scan(paths, out, journal))
        assert [report.media.path for report in reports] == [str(path) for path in paths]
        assert [report.verdict == "error" for report in reports] == [False] * 4 + [True]
        return list(scanned)

    everything = [path.name for path in paths]
    assert again() == everything
    assert again() == ["bad.png"]  # what failed is tried again
    assert again(fresh=True) == everything
    assert again(tmp_path / "elsewhere") == everything
    photos(tmp_path / "other", 5)[4].replace(paths[2])  # another content
    assert again() == ["002.png", "bad.png"]
    (tmp_path / "out" / "001.mask.png").unlink()
    assert again() == ["001.png", "bad.png"]
    session.proposals = 5  # another setting
    assert again() == everything


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    paths = photos(tmp_path / "in", 3)
    session = Session(RedIsForged(TILED))
    with Journal(path) as journal:
        list(session.scan(paths, None, journal))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (whole[:-1], whole[:-40], lines[0] + b"\0\xff{]\n" + b"[1]\n" + b"{}\n" + lines[1][:10]):
        path.write_bytes(cut)
        with Journal(path) as journal:
            reports = list(session.scan(paths, None, journal))
        assert [report.media.path for report in reports] == [str(p) for p in paths]
        assert path.read_bytes().startswith(cut)  # only ever added to
        with Journal(path) as journal:
            assert len([key for key in journal._lines if journal.get(key)]) == 3


def test_places_where_no_journal_can_be(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(SeamlineError, match="is a link"):
        Journal(tmp_path / "link")
    with pytest.raises(SeamlineError, match="no journal can be kept"):
        Journal(tmp_path)
    assert (tmp_path / "target").read_bytes() == b""


def test_the_command_keeps_a_journal_beside_the_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "tiny.safetensors"
    zoo.save(build("loupe-tiny"), weights)
    photos(tmp_path / "in", 2)
    words = ("scan", tmp_path / "in", "--model", weights, "--out", tmp_path / "out", "--json", "-")
    first, second = run(*words), run(*words)
    assert first.exit_code == second.exit_code == 0
    assert first.stdout == second.stdout
    assert len((tmp_path / "out" / NAME).read_bytes().splitlines()) == 2
    assert len((tmp_path / "out" / NAME).read_bytes().splitlines()) == 2
    assert run(*words, "--fresh").exit_code == 0
    assert len((tmp_path / "out" / NAME).read_bytes().splitlines()) == 4
    assert run(*words, "--no-isolation", "--journal", tmp_path / "j").exit_code == 0
    assert (tmp_path / "j").exists()


# One process imports everything once; each run of the scan is a fork of it, which is killed in the middle of some file.
KILLED = """
import os, random, signal, sys, time
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
import torch
torch.set_num_threads(1)
from pathlib import Path
from seamline import pipeline
from seamline.cli import run_scan
from seamline.journal import NAME
folder, weights, out, target, kills, files = *sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6])
journal, chance = Path(out, NAME), random.Random(0)
done = lambda: journal.read_bytes().count(b"\\n") if journal.exists() else 0
for kill in range(kills + 1):
    goal = done() + chance.randint(0, files // (kills + 1))
    child = os.fork()
    if child == 0:
        sys.stdout = open(os.devnull, "w")
        os._exit(run_scan([folder], weights, out=Path(out), json_to=target))
    if kill < kills:
        while done() < goal and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
print(os.waitstatus_to_exitcode(status))
"""


def killed(tmp_path: Path, files: int, kills: int) -> None:
    torch.manual_seed(0)
    weights, out, target = tmp_path / "tiny.safetensors", tmp_path / "out", tmp_path / "reports.jsonl"
    zoo.save(build("loupe-tiny"), weights)
    paths = photos(tmp_path / "in", files)
    command = [sys.executable, "-c", KILLED, tmp_path / "in", weights, out, target, kills, files]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0", result.stderr
    reports = [Report.from_json(line) for line in target.read_text("utf-8").splitlines()]
    assert [report.media.path for report in reports] == [str(path) for path in paths]
    lines = (out / NAME).read_bytes().split(b"\n")
    whole: list[Any] = []
    for line in lines:
        try:
            whole.append(json.loads(line))
        except ValueError:
            continue
    noted = [Report.from_dict(entry["report"]).media.path for entry in whole]
    assert sorted(noted) == sorted(str(path) for path in paths)
    print(f"{kills} kills, {len(lines) - 1 - len(whole)} torn lines")
    for report in reports:
        for picture in filter(None, vars(report.artifacts).values()):
            with PIL.Image.open(picture) as shown:
                shown.load()


def test_killed_three_times(tmp_path: Path) -> None:
    killed(tmp_path, 24, 3)


@pytest.mark.slow
def test_killed_fifty_times(tmp_path: Path) -> None:
    killed(tmp_path, 500, 50)


# Files that are written


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    with output.whole(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    with pytest.raises(TypeError), output.whole(path) as file:
        file.write("no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]
    with pytest.raises(FileNotFoundError, match="gone"), output.whole(tmp_path / "gone" / "y") as file:
        pass


def test_links_are_replaced_and_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    out = tmp_path / "out"
    out.mkdir()
    paths = photos(tmp_path / "in", 1)
    for kind in ("mask", "heatmap", "overlay"):
        (out / f"000.{kind}.png").symlink_to(victim)
    report = next(Session(RedIsForged(TILED)).scan(paths, out))
    assert report.error is None
    assert victim.read_text() == "kept"
    assert not any(path.is_symlink() for path in out.iterdir())
    monkeypatch.setattr(output.secrets, "token_hex", lambda _: "guessed")
    (out / ".guessed.part").symlink_to(victim)
    with pytest.raises(FileExistsError), output.whole(out / "x"):
        pass
    assert victim.read_text() == "kept"


def test_links_among_the_inputs_are_read_or_refused(tmp_path: Path) -> None:
    (path,) = photos(tmp_path / "real", 1)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "ok.png").symlink_to(path)
    (folder / "text.png").symlink_to("/etc/passwd")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "dangling.png").symlink_to("nowhere")
    reports = list(Session(RedIsForged(TILED)).scan(sorted(folder.iterdir()), tmp_path / "out"))
    said = {Path(report.media.path).name: report.error for report in reports}
    assert said.pop("ok.png") is None
    assert all(error and "root:" not in error for error in said.values()), said
    assert os.listdir(tmp_path / "real") == ["000.png"]
