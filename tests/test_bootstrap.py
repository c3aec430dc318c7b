"""Confidence intervals: what is drawn, how intervals are formed, and that they cover."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats

from seamline.errors import DataError
from seamline.metrics.bootstrap import bootstrap, resamples, share_interval, worth
from seamline.metrics.detection import Ranking, roc_auc

Ints = npt.NDArray[np.int64]


def test_groups_are_drawn_whole() -> None:
    for times in resamples(["a", "b", "a", "c"], 50):
        assert times.sum() >= 3
        assert times[0] == times[2]
        assert times[0] + times[1] + times[3] == 3  # three groups are drawn


def test_strata_keep_their_sizes() -> None:
    strata, groups = [0, 0, 0, 1, 1, 1, 1], ["a", "b", "b", "c", "d", "e", "e"]
    drawn = np.array([*resamples(groups, 200, strata=strata)])
    assert (drawn[:, 0] + drawn[:, 1] == 2).all()  # two groups are authentic
    assert (drawn[:, 3] + drawn[:, 4] + drawn[:, 5] == 3).all()
    assert len({tuple(row) for row in drawn.tolist()}) > 20
    plain = np.array([*resamples(7, 200, strata=strata)])
    assert (plain[:, :3].sum(1) == 3).all()
    assert (plain.sum(1) == 7).all()


def test_a_seed_gives_the_same_resamples() -> None:
    one, same, other = (np.array([*resamples(9, 5, seed)]) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_arguments_are_checked() -> None:
    with pytest.raises(DataError, match="no files"):
        next(resamples(0))
    with pytest.raises(DataError, match="two strata"):
        next(resamples(["a", "a", "b"], strata=[0, 1, 0]))
    with pytest.raises(DataError, match="give one each"):
        next(resamples(3, strata=[0, 1]))
    with pytest.raises(DataError, match="level"):
        bootstrap(lambda times: {"n": float(times.sum())}, 3, level=1.0)


def test_undefined_figures_are_left_out() -> None:
    def figures(times: Ints) -> dict[str, float]:
        return {"sometimes": 1.0 if times[0] else math.nan, "never": math.nan}

    assert bootstrap(figures, 3) == {"sometimes": (1.0, 1.0)}
    assert bootstrap(figures, 3, method="bca") == {"sometimes": (1.0, 1.0)}


@pytest.mark.parametrize(("method", "theirs"), [("percentile", "percentile"), ("bca", "BCa")])
def test_intervals_are_those_of_scipy(rng: np.random.Generator, method: str, theirs: str) -> None:
    data = rng.exponential(size=60)  # skewed

    def mean(times: Ints) -> dict[str, float]:
        return {"mean": float(times @ data / times.sum())}

    ours = bootstrap(mean, len(data), draws=6000, method=method)["mean"]  # type: ignore[arg-type]
    result = scipy.stats.bootstrap((data,), np.mean, n_resamples=6000, method=theirs, rng=np.random.default_rng(1))
    assert ours == pytest.approx([*result.confidence_interval], abs=0.02)
    plain = bootstrap(mean, len(data), draws=6000)["mean"]
    assert (method == "percentile") == (ours == plain)


def test_intervals_of_auc_cover_the_truth(rng: np.random.Generator) -> None:
    inside, true_auc = 0, scipy.stats.norm.cdf(1 / math.sqrt(2))
    labels = np.arange(80) % 2
    for _ in range(60):
        ranking = Ranking(rng.normal(size=80) + labels, labels)
        low, high = bootstrap(lambda t, r=ranking: {"auc": r.curve(t).auc()}, 80, draws=200, strata=labels)["auc"]
        inside += low <= true_auc <= high
    assert 50 <= inside <= 60  # 95 % of 60 is 57


def test_groups_widen_intervals(rng: np.random.Generator) -> None:
    names = np.repeat(np.arange(20), 10)
    labels = np.repeat(np.arange(20) % 2, 10)
    scores = np.repeat(rng.normal(size=20), 10) + labels  # files of a group are all alike

    def auc(times: Ints) -> dict[str, float]:
        return {"auc": roc_auc(scores, labels, times)}

    apart, together = (bootstrap(auc, groups, draws=300)["auc"] for groups in (len(names), names))
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


def test_a_share_of_single_files_has_wilsons_interval() -> None:
    hits = np.arange(80) < 3
    theirs = scipy.stats.binomtest(3, 80).proportion_ci(method="wilson")
    assert share_interval(hits, 80, hits) == pytest.approx((theirs.low, theirs.high))
    assert share_interval(np.zeros(50), 50, np.zeros(50))[0] == 0.0


def test_groups_are_worth_fewer_files() -> None:
    groups = np.repeat(np.arange(20), 5)
    apart = np.tile([0.0, 1.0, 2.0, 3.0, 4.0], 20)
    assert worth(groups, apart) == 100  # the groups do not differ
    assert worth(groups, groups) == pytest.approx(20)  # nothing else does
    assert worth(groups, np.ones(100)) == 20  # nothing is known of how they differ
    assert worth(["one"] * 9, np.arange(9)) == 1
    with pytest.raises(DataError, match="no files"):
        share_interval([], 0, [])
    with pytest.raises(DataError, match="level"):
        share_interval([True], 1, [0.0], level=0)


@pytest.mark.parametrize("rate", [0.01, 0.03, 0.1])
def test_intervals_of_a_rare_share_cover_it(rng: np.random.Generator, rate: float) -> None:
    """Groups whose scores differ: resamples of the groups cover too seldom, ``share_interval`` does not."""
    cut = float(scipy.stats.norm.isf(rate))
    groups = np.repeat(np.arange(30), 20)
    inside, resampled = 0, 0
    for _ in range(200):
        scores = math.sqrt(0.45) * rng.standard_normal(30)[groups] + math.sqrt(0.55) * rng.standard_normal(600)
        hits = scores > cut
        low, high = share_interval(hits, groups, scores)
        inside += low <= rate <= high
        few = bootstrap(lambda times, hits=hits: {"rate": float(times[hits].sum() / times.sum())}, groups, draws=100)
        resampled += few["rate"][0] <= rate <= few["rate"][1]
    assert inside >= 0.94 * 200
    assert resampled < inside
