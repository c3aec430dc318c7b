"""docs/metrics.md: its examples run and print what they show, and it names every public function."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_examples_print_what_they_show() -> None:
    assert [kind for kind, _ in BLOCKS] == ["python", "text"] * (len(BLOCKS) // 2)
    assert len(BLOCKS) > 8
    for (_, example), (_, shown) in zip(BLOCKS[::2], BLOCKS[1::2], strict=True):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example, "docs/metrics.md", "exec"), {})
        assert printed.getvalue() == shown


@pytest.mark.parametrize("name", ["detection", "image", "temporal", "bootstrap", "reports", "rows"])
def test_every_public_name_is_told(name: str) -> None:
    tree = ast.parse((ROOT / "seamline" / "metrics" / f"{name}.py").read_text(encoding="utf-8"))
    public = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    told = set(re.findall(r"`(\w+)`", PAGE))
    assert {one for one in public if not one.startswith("_")} - told <= {"scored"}  # which only checks
    assert f"`seamline.metrics.{name}`" in PAGE
