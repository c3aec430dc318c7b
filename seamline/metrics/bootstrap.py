"""Confidence intervals: how much a figure moves if other files of the same kind had been drawn.

Nothing is computed anew from pixels or proposals: a resample is how often each file counts, (n,), and every figure of
this package can be taken of that (``times``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from statistics import NormalDist
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import DataError

Ints = npt.NDArray[np.int64]
Key = TypeVar("Key", bound=Hashable)
Groups = int | Sequence[Hashable] | npt.NDArray[np.generic]
NORMAL = NormalDist()


def resamples(
    groups: Groups, draws: int = 1000, seed: int = 0, strata: Sequence[Hashable] | npt.NDArray[np.generic] | None = None
) -> Iterator[Ints]:
    """Bootstrap resamples: how often each file is drawn, (n,), ``draws`` times.

    Args:
        groups: how many files there are; or the group of each, to draw whole groups where files of one are alike
            (one source photo, one speaker). Intervals that ignore groups are too narrow.
        draws: how many resamples.
        seed: the same seed gives the same resamples.
        strata: (n,) what each file belongs to, such as its label; every resample then has as many groups of each
            stratum as the data. Without, these numbers vary too.

    Raises:
        DataError: there is no file, the lengths differ, or a group is in two strata.
    """
    members, parts = _drawn(groups, strata)
    rng = np.random.default_rng(seed)
    times = np.zeros(int(members.max()) + 1, np.int64)  # of each group
    for _ in range(draws):
        for part in parts:
            times[part] = np.bincount(rng.integers(len(part), size=len(part)), minlength=len(part))
        yield times[members]


def bootstrap(
    figures: Callable[[Ints], dict[Key, float]],
    groups: Groups,
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
    strata: Sequence[Hashable] | npt.NDArray[np.generic] | None = None,
    method: Literal["percentile", "bca"] = "percentile",
) -> dict[Key, tuple[float, float]]:
    """Confidence intervals of figures, from resampling files with replacement.

    * ``"percentile"``: the quantiles of the resampled figures (Efron 1979).
    * ``"bca"``: quantiles moved by the bias of the resamples and by how the figure's spread changes with its value
      (Efron 1987, "Better bootstrap confidence intervals"); better for skewed figures such as those near 1, and takes
      one more figure for each group, which is left out in turn.

    Args:
        figures: how often each file counts, (n,), to named figures: ``Matching(found, truths).ap``, for one.
        groups: as of :func:`resamples`.
        level: how much of the resamples lies inside, in (0, 1).
        draws: how many resamples.
        seed: as of :func:`resamples`.
        strata: as of :func:`resamples`.
        method: see above.

    Returns:
        Name -> (low, high), of the resamples where the figure is defined; one that never is has no entry.

    Raises:
        DataError: as :func:`resamples`, or the level is out of range.
    """
    if not 0 < level < 1:
        raise DataError(f"a level lies between 0 and 1, not at {level}")
    drawn = _collected(figures(times) for times in resamples(groups, draws, seed, strata))
    ends = ((1 - level) / 2, (1 + level) / 2)
    if method == "percentile":
        return {name: _quantiles(values, ends) for name, values in drawn.items()}
    members, _ = _drawn(groups, strata)
    whole = figures(np.ones(len(members), np.int64))
    without = _collected(figures((members != i).astype(np.int64)) for i in range(int(members.max()) + 1))
    return {
        name: _quantiles(values, _bca(values, whole[name], without.get(name, []), ends))
        for name, values in drawn.items()
    }


def _drawn(
    groups: Groups, strata: Sequence[Hashable] | npt.NDArray[np.generic] | None
) -> tuple[Ints, list[npt.NDArray[np.int64]]]:
    """The group number of each file, (n,), and the group numbers of each stratum."""
    members = np.arange(groups) if isinstance(groups, int) else np.unique(np.asarray(groups), return_inverse=True)[1]
    if not len(members):
        raise DataError("no files: there is nothing to draw resamples from")
    if strata is None:
        return members, [np.arange(int(members.max()) + 1)]
    kinds = np.unique(np.asarray(strata), return_inverse=True)[1]
    if len(kinds) != len(members):
        raise DataError(f"strata of {len(kinds)} files and groups of {len(members)}: give one each")
    pairs = np.unique(np.stack([kinds, members]), axis=1)
    if len(pairs[1]) > members.max() + 1:
        twice = int(np.argmax(np.bincount(pairs[1]) > 1))
        raise DataError(f"group number {twice} is in two strata; draw by groups or by strata, or split the group")
    return members, [pairs[1][pairs[0] == kind] for kind in np.unique(kinds)]


def _collected(many: Iterator[dict[Key, float]]) -> dict[Key, list[float]]:
    """Name -> the values that are defined."""
    values: dict[Key, list[float]] = {}
    for figures in many:
        for name, value in figures.items():
            if not math.isnan(value):
                values.setdefault(name, []).append(value)
    return values


def _quantiles(values: Sequence[float], at: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, at).tolist()
    return low, high


def _bca(values: Sequence[float], whole: float, without: Sequence[float], ends: tuple[float, float]) -> list[float]:
    """The quantiles that stand for ``ends``, from the figure of the whole data and of all groups but one."""
    drawn = np.array(values)
    below = (np.count_nonzero(drawn < whole) + np.count_nonzero(drawn == whole) / 2) / len(drawn)
    if math.isnan(whole) or not without or not 0 < below < 1:
        return [*ends]  # all resamples on one side: there is no bias to measure
    bias = NORMAL.inv_cdf(below)
    off = np.mean(without) - np.array(without)
    spread = float((off**2).sum()) ** 1.5
    skew = float((off**3).sum()) / (6 * spread) if spread else 0.0
    moved = [bias + (bias + NORMAL.inv_cdf(end)) / (1 - skew * (bias + NORMAL.inv_cdf(end))) for end in ends]
    return [NORMAL.cdf(z) for z in moved]
