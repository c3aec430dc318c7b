"""What every test gets: fixed seeds, few threads, and the shared goldens and photos where they are present."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import parity_table

SHARED = Path(__file__).parents[2] / "shared"

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every global generator starts the same in every test, whatever ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # for libraries that still use the global one
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _parity(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test compares with a golden goes along with its result, to whichever process prints the table."""
    parity_table.rows.clear()
    yield
    if parity_table.rows:
        request.node.user_properties.append(("parity", [*map(tuple, parity_table.rows)]))


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of this test's own."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of goldens and photos beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("the goldens and photos are not here: no folder ../shared beside the repository")
    return SHARED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how close each recorded golden was met, worst ratio to its tolerance last."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    told = [dict(report.user_properties).get("parity", []) for report in reports if report.when == "teardown"]
    rows = [row for part in told for row in part]
    if not rows:
        return
    terminalreporter.section("parity with the reference")
    wide = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    head = f"{'file':{wide[0]}}  {'what':{wide[1]}}  {'max abs diff':>12}  {'tolerance':>9}  ok"
    terminalreporter.line(head)
    for file, what, difference, tolerance in sorted(rows, key=lambda row: row[2] / row[3]):
        ok = "yes" if difference <= tolerance else "NO"  # a nan is a NO
        terminalreporter.line(f"{file:{wide[0]}}  {what:{wide[1]}}  {difference:12.2e}  {tolerance:9.1e}  {ok}")
