"""The examples of docs/verdicts.md run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.testing

from seamline import demo, verdicts
from seamline.cli import app

TEXT = (Path(__file__).parents[1] / "docs" / "verdicts.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["sh", "python"])
def test_the_examples_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.make_samples(tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        if kind == "python":
            exec(compile(block, "verdicts.md", "exec"), {})
            continue
        for line in block.splitlines():
            result = typer.testing.CliRunner().invoke(app, shlex.split(line)[1:])
            assert result.exit_code == 0, f"{line}\n{result.output}"


def test_every_reason_is_told_with_its_verdict() -> None:
    table = {
        code: verdict
        for codes, verdict in re.findall(r"^\| (`[^|]*) \| (not applicable|inconclusive) \|", TEXT, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    told = dict.fromkeys(verdicts.NOT_APPLICABLE, "not applicable") | dict.fromkeys(
        verdicts.INCONCLUSIVE, "inconclusive"
    )
    assert table == told
