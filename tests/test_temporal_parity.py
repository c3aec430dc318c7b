"""The released evaluators' recorded answers (../shared/goldens/av/public/metrics), exceptions included."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamline.errors import DataError
from seamline.metrics.detection import roc_auc
from seamline.metrics.temporal import (
    activitynet_ap,
    activitynet_ar,
    avdeepfake1m_ap,
    avdeepfake1m_ar,
    avdeepfake1m_auc,
    average_precision,
    lavdf_ap,
    lavdf_ar,
)
from tests.parity_table import record

pytestmark = pytest.mark.parity

SETS = ["main", "ties", "ties_unsorted", "few", "few_nonempty", "single", "edge"]
FPS = 25.0
SAME = 1e-15  # to the digit
TORCH = 2.5e-7  # to a digit of single precision: torch adds in the order that the processor's vectors suggest


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "goldens" / "av" / "public" / "metrics"


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    return data


def check(name: str, what: str, ours: Callable[[], dict[Any, float]], theirs: Any, tolerance: float) -> None:
    """Every recorded figure, or an error where an exception is recorded."""
    if isinstance(theirs, str):
        with pytest.raises(DataError, match="clip number"):
            ours()
        return
    figures = {round(float(key), 6): value for key, value in ours().items()}
    worst = max(abs(figures[float(key)] - value) for key, value in theirs.items())
    assert len(figures) == len(theirs)
    record(f"metrics/{name}.json", what, worst, tolerance)


@pytest.mark.parametrize("name", SETS)
def test_set(folder: Path, expected: dict[str, Any], name: str) -> None:
    assert sorted(expected["results"]) == sorted(SETS)
    data, theirs = json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), expected["results"][name]
    frames = [np.array(data["proposals"][row["file"]], np.float64).reshape(-1, 3) for row in data["metadata"]]
    seconds = [rows / [1.0, FPS, FPS] for rows in frames]
    truths = [row["fake_periods"] for row in data["metadata"]]

    check(name, "LAV-DF AP", lambda: lavdf_ap(frames, truths, fps=FPS), theirs["lavdf"]["ap"], TORCH)
    check(name, "LAV-DF AR", lambda: lavdf_ar(frames, truths, fps=FPS), theirs["lavdf"]["ar"], SAME)
    package = theirs["avdeepfake1m"]
    for what, measure, key in (("AP", avdeepfake1m_ap, "ap"), ("AR", avdeepfake1m_ar, "ar")):
        recorded = package.get(key, package.get("error"))
        check(name, f"avdeepfake1m {what}", lambda m=measure: m(frames, truths, fps=FPS), recorded, SAME)
    check(name, "ActivityNet AP", lambda: activitynet_ap(seconds, truths), theirs["anet"]["ap"], SAME)
    check(name, "ActivityNet AR", lambda: activitynet_ar(seconds, truths), theirs["anet"]["ar"], SAME)
    mean = np.mean([*activitynet_ap(seconds, truths).values()])
    record(f"metrics/{name}.json", "ActivityNet mAP", abs(mean - theirs["anet"]["average_map"]), SAME)

    if "ties" not in name:  # the default differs by ties, by the 101st proposal and by rounding on a threshold
        ours = average_precision([rows[:100] for rows in seconds], truths)[0.5]
        record(f"metrics/{name}.json", "default AP@.5 = ActivityNet's", abs(ours - theirs["anet"]["ap"]["0.50"]), 1e-12)


def test_auc(expected: dict[str, Any]) -> None:
    for name, case in expected["auc"].items():
        theirs = avdeepfake1m_auc(case["scores"], case["labels"]) - case["auc_avdeepfake1m"]
        record("metrics/expected.json", f"avdeepfake1m AUC, {name}", abs(theirs), TORCH)
        exact = roc_auc(case["scores"], case["labels"]) - case["auc_exact"]
        record("metrics/expected.json", f"exact AUC, {name}", abs(exact), SAME)
