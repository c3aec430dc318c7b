"""docs/evaluate.md: its examples run, its names are those of the code; so does the script that makes all figures."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer.main
import typer.testing

from seamline import demo
from seamline.cli import app
from seamline.evaluate import read_row, rows
from seamline.synthesis.perturb import CLIP_GRID, PHOTO_GRID

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four crops of photographs, two of them with a pasted square."""
    for name in ("real", "fake", "masks"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    for i, (name, pixels) in enumerate(demo.photos().items()):
        rgb, mask = pixels[100:228, 100:260].copy(), np.zeros((128, 160), np.uint8)
        if i % 2:
            rgb[32:96, 40:120] = np.clip(rgb[20:84, 10:90].astype(int) + 30, 0, 255)
            mask[32:96, 40:120] = 255
            cv2.imwrite(str(tmp_path / f"photos/masks/{name}.png"), mask)
        cv2.imwrite(str(tmp_path / f"photos/{'fake' if i % 2 else 'real'}/{name}.png"), rgb[..., ::-1])
    return tmp_path


def test_the_examples_run(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(photos)
    monkeypatch.setattr(rows, "DRAWS", 40)
    monkeypatch.setattr(rows, "PHOTO_GRID", ("jpeg75", "crop5"))
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, "docs/evaluate.md", "exec"), {})
            continue
        for line in block.splitlines():
            program, *words = shlex.split(line)
            assert program == "seamline"
            result = typer.testing.CliRunner().invoke(app, words)
            assert result.exit_code == 0, f"{line}\n{result.output}"
    row = read_row("rows/loupe-native.json")
    assert capsys.readouterr().out.split()[0] == str(row["auc"])
    for name in ("roc", "precision_recall", "reliability", "scores"):
        assert Path(f"plots/{name}.svg").is_file()
        assert Path(f"plots/again/{name}.png").is_file()
    assert Path("plots/robust/robustness.png").is_file()
    assert sorted(path.name for path in Path("rows").iterdir()) == [
        f"{name}.{kind}" for name in ("loupe-native", "robust", "shared") for kind in ("csv", "json")
    ]
    assert Path("board/index.html").is_file()


def test_the_names_are_those_of_the_code() -> None:
    table = PAGE.split("| photos | clips |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w[\w.]*)`", table))
    assert named == {name for name in (*PHOTO_GRID, *CLIP_GRID) if "+" not in name}


def test_the_script_of_the_shipped_figures(tmp_path: Path) -> None:
    """Its commands, with the program replaced by echo, are commands that there are."""
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.json").touch()
    ran = subprocess.run(
        ["sh", str(ROOT / "recipes" / "evaluate.sh"), str(tmp_path), str(tmp_path), "--limit", "40"],
        env={"SEAMLINE": "echo", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [shlex.split(line) for line in ran.stdout.splitlines()]
    assert [line[0] for line in lines] == ["forge", "evaluate", "forge", "evaluate", "leaderboard"]
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, *words in lines:
        context = commands[name].make_context(name, list(words))
        for option in ("recipe", "data"):
            value = context.params.get(option)
            assert value is None or option == "data" or value.is_file(), value
    assert lines[1][lines[1].index("--model") + 1] == "loupe-native"
    assert "40" in lines[3]
