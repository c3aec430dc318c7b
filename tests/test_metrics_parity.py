"""The recorded metric cases of the Loupe reference, and the counts derived from them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from seamline.metrics.image import confusion, loupe_released, mean_figure, pooled
from tests.parity_table import record

pytestmark = pytest.mark.parity

CASES = ["mixed", "all_forged", "all_real", "empty_pred", "perfect"]
TOLERANCE = 1e-12


def difference(ours: float, theirs: float | str) -> float:
    """Absolute difference; the goldens write nan as text, and where the reference raises we say nan."""
    if isinstance(theirs, str):
        return 0.0 if math.isnan(ours) else math.inf
    return abs(ours - theirs)


def masks(packed: np.ndarray, shapes: list[list[int]]) -> list[np.ndarray]:
    ends = np.cumsum([height * width for height, width in shapes])
    flat = np.unpackbits(packed, count=ends[-1]).astype(bool)
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]


@pytest.fixture(scope="module")
def goldens(shared: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    folder = shared / "goldens" / "image" / "public"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return manifest["files"]["metrics.safetensors"]["info"], load_file(folder / "metrics.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_case(goldens: tuple[dict[str, Any], dict[str, np.ndarray]], case: str) -> None:
    info, tensors = goldens
    assert sorted(info) == sorted(CASES)
    facts = info[case]
    predictions = masks(tensors[f"{case}_pred"], facts["shapes"])
    truths = masks(tensors[f"{case}_gt"], facts["shapes"])

    ours = loupe_released(facts["scores"], facts["labels"], predictions, truths)
    named = {"auc": ours.auc, "f1": ours.f1, "iou (mean of background and forged)": ours.iou, "overall": ours.overall}
    # record() also asserts
    worst = max(difference(named[name], theirs) for name, theirs in facts["reference"].items())
    record("metrics.safetensors", f"{case}: released figures", worst, TOLERANCE)

    for subset, theirs in facts["derived (not from the reference)"].items():
        pairs = zip(predictions, truths, strict=True)
        counts = [confusion(p, t) for p, t in pairs if subset == "all_images" or t.any()]
        if theirs is None:
            assert not counts
            continue
        total = pooled(counts)
        assert len(counts) == theirs["n_images"]
        assert total == tuple(theirs[name] for name in ("tp", "fp", "fn", "tn"))
        figures = {
            "pooled_f1": total.f1,
            "pooled_iou_forged": total.iou,
            "pooled_iou_background": total.iou_authentic,
            "mean_per_image_f1 (empty/empty counts 1)": mean_figure(counts, "f1", empty="score"),
            "mean_per_image_iou (empty/empty counts 1)": mean_figure(counts, "iou", empty="score"),
        }
        worst = max(difference(value, theirs[name]) for name, value in figures.items())
        record("metrics.safetensors", f"{case}: counts, {subset}", worst, TOLERANCE)
