"""What the parity tests measured; ``pytest -m parity`` prints it at its end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One comparison with a recorded value."""

    file: str
    what: str
    diff: float
    tolerance: float


rows: list[Row] = []


def record(file: str, what: str, diff: float, tolerance: float) -> None:
    """Keep a measured difference and fail if it is above its tolerance, or not a number."""
    diff = float(diff)
    rows.append(Row(file, what, diff, tolerance))
    assert np.isfinite(diff), f"{file}: {what}: difference is {diff}"
    assert diff <= tolerance, f"{file}: {what}: differs by {diff:.3g}, tolerance {tolerance:.3g}"
