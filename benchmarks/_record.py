"""What every benchmark row ends with: on which machine, with which torch, at which commit. And how a call is timed."""

from __future__ import annotations

import csv
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from seamline.evaluate import commit


def record(row: dict[str, Any], out: Path | None) -> None:
    """Print the row and, with ``out``, write it to a CSV file of its own."""
    row = row | {
        "torch": torch.__version__,
        "machine": f"{platform.machine()} {processor()}",
        "commit": commit() or "none",
    }
    for key, value in row.items():
        print(f"{key:<20} {value}")
    if out:
        with out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerow(row)


def processor() -> str:
    """The name of the processor, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())


def timed(work: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
