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


def share_interval(
    hits: Sequence[bool] | npt.NDArray[np.bool_], groups: Groups, values: npt.ArrayLike, level: float = 0.95
) -> tuple[float, float]:
    """The confidence interval of a small share of files that come in groups, such as that of false alarms.

    Where the share is small, few groups have a hit, resamples of them say little of the groups that were not seen,
    and :func:`bootstrap` is too narrow. So this is Wilson's interval (1927) for as many files as the groups are worth:
    n / (1 + (m - 1) r), where m is the size of the group of a file, on average, and r how alike files of one group are
    (Kish 1965, "Survey Sampling"): the intraclass correlation of ``values``, by analysis of variance. It errs to the
    wide side, as rare hits are less alike than the values that make them.

    Args:
        hits: (n,) whether each file is counted.
        groups: as of :func:`resamples`.
        values: (n,) what decides about a hit, such as the score that is compared with a threshold.
        level: how sure, in (0, 1).

    Returns:
        (low, high), in [0, 1].

    Raises:
        DataError: there is no file, or the level is out of range.
    """
    if not 0 < level < 1:
        raise DataError(f"a level lies between 0 and 1, not at {level}")
    n, z = worth(groups, values), NORMAL.inv_cdf((1 + level) / 2)
    share = float(np.mean(hits))
    middle, off = share + z**2 / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return max(0.0, (middle - off) / (1 + z**2 / n)), min(1.0, (middle + off) / (1 + z**2 / n))


def worth(groups: Groups, values: npt.ArrayLike) -> float:
    """How many files, each of a group of its own, grouped files with these values (n,) are worth, from 1 to n."""
    members, _ = _drawn(groups, None)
    x, sizes = np.asarray(values, np.float64), np.bincount(members)
    n, k = len(members), len(sizes)
    if k == 1 or k == n:
        return float(k)
    means = np.bincount(members, x) / sizes
    within = float(((x - means[members]) ** 2).sum()) / (n - k)
    between = float((sizes * (means - x.mean()) ** 2).sum()) / (k - 1)
    usual, mine = (n - (sizes**2).sum() / n) / (k - 1), (sizes**2).sum() / n
    spread = between + (usual - 1) * within
    alike = (between - within) / spread if spread > 0 else 1.0
    return float(n / (1 + (mine - 1) * min(max(alike, 0.0), 1.0)))


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
