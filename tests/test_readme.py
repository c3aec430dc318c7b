"""What README says is what happens: its commands and examples run, its tree is the tree."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.testing

from seamline import demo
from seamline.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def words(text: str) -> list[str]:
    """The words of some output, with all numbers alike: they may differ a little from machine to machine."""
    return re.sub(r"[<>]?\d+(\.\d+)?", "#", text).split()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo has made its samples."""
    folder = tmp_path_factory.mktemp("readme")
    demo.make_samples(folder / "demo")
    return folder


def test_the_shell_examples_run_and_print_what_is_shown(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(samples)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    ran = []
    for (kind, block), (after, shown) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True):
        if kind != "sh":
            continue
        printed = ""
        for line in block.splitlines():
            program, *rest = shlex.split(line, comments=True)
            ran.append(program)
            if program == "make":
                assert set(rest) <= set(targets), line
            else:
                assert program == "seamline", line
                result = typer.testing.CliRunner().invoke(app, rest)
                assert result.exit_code == 0, f"{line}\n{result.output}"
                printed += result.stdout
        if after == "text" and printed and not shown.startswith("seamline/"):  # that one is the tree
            assert words(shown) == words(printed), f"README shows\n{shown}\nbut it prints\n{printed}"
    assert ran[:2] == ["make", "make"], "the first two commands"
    assert "seamline" in ran


def test_the_python_examples_run(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(samples)
    blocks = [block for kind, block in BLOCKS if kind == "python"]
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_tree_is_the_tree() -> None:
    shown = next(block for kind, block in BLOCKS if kind == "text" and block.startswith("seamline/"))
    folder, listed = "", set()
    for line in shown.splitlines():
        name, indent = line.split()[0].rstrip(","), len(line) - len(line.lstrip())
        if indent == 2:
            folder = name if name.endswith("/") else ""
        if indent and name.endswith(".py"):
            listed.add((folder if indent == 4 else "") + name)
    package = ROOT / "seamline"
    there = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert listed == {name for name in there if name == "__init__.py" or not name.endswith("/__init__.py")}
    for top in re.findall(r"^(\S+)", shown, re.MULTILINE):
        assert (ROOT / top).exists(), top


def test_the_demo_samples_are_made_the_same_every_time(samples: Path, tmp_path: Path) -> None:
    again = demo.make_samples(tmp_path)
    files = sorted(path.name for path in again.iterdir())
    photos = [f"{name}-{kind or 'authentic'}.png" for name, kind, _ in demo.SAMPLES]
    assert files == sorted([*photos, *demo.CLIPS])
    for name in files:
        assert (again / name).read_bytes() == (samples / "demo" / "samples" / name).read_bytes()
    assert len(list((tmp_path / "truth").iterdir())) == sum(kind is not None for _, kind, _ in demo.SAMPLES) + 1
