"""docs/protocols.md says what the code says, and its examples run and print what they show."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from seamline.cli import app
from seamline.data.submission import FORMATS
from seamline.metrics.protocols import PROTOCOLS
from seamline.report import Artifacts, Media, Report

PAGE = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_page_says_of_a_protocol_what_the_code_says(name: str) -> None:
    rules = PROTOCOLS[name]
    section = flat(PAGE.split(f"### {name}\n")[1].split("\n### ")[0])
    for words in (rules.source, rules.scored, rules.items, rules.words, rules.missing_words):
        assert flat(words) in section
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| [`{name}`]"))
    assert [cell.strip() for cell in row.split("|")][3:7] == [
        f"`{rules.headline}`",
        rules.combined,
        "is refused" if rules.missing == "refuse" else "counts as wrong",
        "yes" if name in FORMATS else "-",
    ]


def test_the_page_has_no_other_protocols() -> None:
    assert re.findall(r"^### (.*)$", PAGE, re.MULTILINE) == list(PROTOCOLS)


def test_the_python_example_prints_what_its_comments_show() -> None:
    (example,) = [block for kind, block in BLOCKS if kind == "python"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "docs/protocols.md", "exec"), {})
    shown = re.findall(r"^print\(.*  # ([^:\n]*)", example, re.MULTILINE)
    for line, expected in zip(printed.getvalue().splitlines(), shown, strict=True):
        assert re.sub(r"\d+\.\d+", lambda n: str(round(float(n[0]), 6)), line) == expected


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines, rng = [], np.random.default_rng(0)
    for folder in ("photos", "pictures", "data/real", "data/fake", "data/masks"):
        Path(folder).mkdir(parents=True)
    for i in range(4):
        rgb, mask = rng.integers(0, 255, (40, 50, 3), np.uint8), np.zeros((40, 50), np.uint8)
        mask[10:20, 10:30] = 255 * (i % 2)
        kind = "fake" if i % 2 else "real"
        for path, picture in (
            (f"photos/{i}.png", rgb),
            (f"data/{kind}/{i}.png", rgb),
            (f"pictures/{i}.mask.png", mask),
        ):
            cv2.imwrite(path, picture)
        if i % 2:
            cv2.imwrite(f"data/masks/{i}.png", mask)
        report = Report(
            Media(f"photos/{i}.png", kind="image", width=50, height=40),
            "forged" if i % 2 else "authentic",
            0.9 - 0.8 * (i % 2 == 0),
            artifacts=Artifacts(mask=f"pictures/{i}.mask.png"),
        )
        lines.append(report.to_json())
    Path("reports.jsonl").write_text("\n".join(lines), "utf-8")
    (block,) = [block for kind, block in BLOCKS if kind == "sh"]
    for line in block.splitlines():
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"
    assert "final 1.00000 [1.0000, 1.0000]" in result.stdout
