"""Cues of sound: all pairs of stretches at once against one lag after another, and the whole of them.

    OMP_NUM_THREADS=1 python benchmarks/cues.py [--repeats 5] [--seconds 20] [--out benchmarks/cues.csv]

The baseline slides the spectrum along itself lag by lag, in NumPy, with running sums; it gives the same distances. Same
process, one after another, medians, one window of sound.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from _record import record, timed

from seamline import cues


def lag_by_lag(x: cues.Reals, n: int) -> cues.Reals:
    """What ``cues._copies`` gives, by a loop over lags."""
    power = np.abs(np.fft.rfft(cues._frames(x, 1024, n) * np.hanning(1024), axis=1)) ** 2
    level = 10 * np.log10(power.mean(1) + 1e-12)
    seen = np.maximum(10 * np.log10(power @ cues._mel(64, 1024).T + 1e-9), level.max() - 75)
    out = []
    for length in cues.COPIED:
        best = np.full(n, np.inf)
        for lag in range(cues.APART, n - length + 1):
            away = seen[lag:] - seen[:-lag]
            square = np.cumsum(np.pad((away**2).mean(1), (1, 0)))
            whole = np.cumsum(np.pad(away, ((1, 0), (0, 0))), 0)
            colour = (whole[length:] - whole[:-length]) / length
            far = (square[length:] - square[:-length]) / length - (colour**2).mean(1)
            for first in (0, lag):
                best[first : first + len(far)] = np.minimum(best[first : first + len(far)], far)
        padded = np.concatenate([np.full(length - 1, np.inf), best])
        cover = np.lib.stride_tricks.sliding_window_view(padded, length)[:n].min(1)
        out.append(np.log(np.clip(cover, 0, 400) + 0.1))
    return np.stack(out, 1)


def main() -> None:
    """Measure and print; write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.48)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sound = np.random.default_rng(0).normal(0, 0.05, round(options.seconds * cues.RATE))
    n = len(sound) // cues.HOP
    difference = np.abs(lag_by_lag(sound, n) - cues._copies(sound, n)[1]).max()
    times: dict[str, list[float]] = {"lag by lag": [], "copies": [], "cues": []}
    for _ in range(options.repeats):
        times["lag by lag"].append(timed(lambda: lag_by_lag(sound, n)))
        times["copies"].append(timed(lambda: cues._copies(sound, n)))
        times["cues"].append(timed(lambda: cues.cues(sound)))
    row: dict[str, Any] = {f"{name}, s": f"{statistics.median(taken):.3f}" for name, taken in times.items()}
    pairs = zip(times["lag by lag"], times["copies"], strict=True)
    row["ratio"] = f"{statistics.median(slow / fast for slow, fast in pairs):.2f}"
    row["times real time"] = f"{options.seconds / statistics.median(times['cues']):.0f}"
    row["difference"] = f"{difference:.1e}"
    record(row | {"seconds": options.seconds}, options.out)


if __name__ == "__main__":
    main()
