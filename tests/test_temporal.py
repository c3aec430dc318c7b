"""Hand cases, a plain loop as second opinion, and equality with scikit-learn on random scores."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from seamline.errors import DataError
from seamline.metrics import temporal
from seamline.metrics.bootstrap import bootstrap, resamples
from seamline.metrics.detection import roc_auc
from seamline.metrics.temporal import (
    Matching,
    activitynet_ap,
    activitynet_ar,
    avdeepfake1m_ap,
    avdeepfake1m_ar,
    avdeepfake1m_auc,
    average_precision,
    average_recall,
    boundary_error,
    frame_auc,
    frame_f1,
    frame_labels,
    lavdf_ap,
    lavdf_ar,
    proposals_of,
    spans_of,
    union,
)
from seamline.report import Media, Report, Segment

TOLERANCE = 1e-12
Rows = list[npt.NDArray[np.float64]]


def clips(rng: np.random.Generator, n: int = 30, most: int = 12, decimals: int = 1) -> tuple[Rows, Rows]:
    """Random clips on a coarse grid of times and scores: many ties, overlapping truths, some clips without either."""
    found, truths = [], []
    for _ in range(n):
        labels, proposals = int(rng.integers(0, 4)), int(rng.integers(0, most + 1))
        start = rng.integers(0, 12, labels) * 0.5
        truth = np.stack([start, start + rng.integers(1, 5, labels) * 0.5], 1)
        start = rng.integers(0, 12, proposals) * 0.5
        rows = np.stack([rng.random(proposals).round(decimals), start, start + rng.integers(0, 5, proposals) * 0.5], 1)
        found.append(rows)
        truths.append(truth)
    return found, truths


def overlap(proposal: npt.NDArray[np.float64], truth: npt.NDArray[np.float64]) -> float:
    both = max(0.0, min(proposal[2], truth[1]) - max(proposal[1], truth[0]))
    return float(both / (proposal[2] - proposal[1] + truth[1] - truth[0] - both))


def plain_ap(found: Rows, truths: Rows, threshold: float) -> float:
    """The definition in words, one proposal after another."""
    hits: list[tuple[float, bool]] = []
    for rows, spans in zip(found, truths, strict=True):
        free = sorted(range(len(spans)))
        for row in sorted(rows.tolist(), key=lambda r: (-r[0], r[1], r[2])):
            best = max(free, key=lambda g: (overlap(np.array(row), spans[g]), -g), default=None)
            hit = best is not None and overlap(np.array(row), spans[best]) >= threshold - 1e-9
            if hit:
                free.remove(best)
            hits.append((row[0], hit))
    labels = sum(len(spans) for spans in truths)
    area, before = 0.0, 0
    scores = sorted({score for score, _ in hits}, reverse=True)
    right = [sum(hit for score, hit in hits if score >= s) for s in scores]
    precision = [r / sum(score >= s for score, _ in hits) for r, s in zip(right, scores, strict=True)]
    for k, r in enumerate(right):
        area += (r - before) * max(precision[k:])
        before = r
    return area / labels


def plain_ar(found: Rows, truths: Rows, number: int) -> float:
    hits = labels = 0
    for rows, spans in zip(found, truths, strict=True):
        first = sorted(rows.tolist(), key=lambda r: (-r[0], r[1], r[2]))[:number]
        labels += len(spans)
        for span in spans:
            best = max((overlap(np.array(row), span) for row in first), default=0.0)
            hits += sum(best >= i / 100 - 1e-9 for i in range(50, 100, 5))
    return hits / labels / 10


@pytest.mark.parametrize("decimals", [1, 16])
def test_equal_to_the_definition_in_plain_words(rng: np.random.Generator, decimals: int) -> None:
    for _ in range(10):
        found, truths = clips(rng, decimals=decimals)
        ap, ar = average_precision(found, truths), average_recall(found, truths, (1, 3, 100))
        for threshold, value in ap.items():
            assert value == pytest.approx(plain_ap(found, truths, threshold), abs=TOLERANCE)
        for number, value in ar.items():
            assert value == pytest.approx(plain_ar(found, truths, number), abs=TOLERANCE)


def test_many_truths_in_one_clip_displace_one_another(rng: np.random.Generator) -> None:
    start = np.sort(rng.random(60) * 3)  # long spans, close together: chains of refusals
    truths = [np.stack([start, start + 2], 1)]
    begin = rng.random(90) * 3
    found = [np.stack([rng.random(90), begin, begin + 2], 1)]
    for threshold, value in average_precision(found, truths, (0.3, 0.5, 0.75)).items():
        assert value == pytest.approx(plain_ap(found, truths, threshold), abs=TOLERANCE)


def test_a_perfect_answer_is_exactly_one(rng: np.random.Generator) -> None:
    found, truths = [], []
    for i in range(101):
        start = np.sort(rng.random(i % 4)) * 9
        truths.append(np.stack([start, start + 0.1 + rng.random(len(start))], 1))
        found.append(np.column_stack([rng.random(len(start)), truths[-1]]))
    for scored in (found, [np.column_stack([np.full(len(f), 0.5), f[:, 1:]]) for f in found]):
        assert set(average_precision(scored, truths, (0.5, 0.95, 1.0)).values()) == {1.0}
        assert set(average_recall(scored, truths).values()) == {1.0}
    assert boundary_error(found, truths) == (0.0, 0.0, 0.0, 150, 150)


def test_one_label_is_enough() -> None:
    assert average_precision([[[0.9, 1, 2]]], [[[1, 2]]]) == {0.5: 1.0, 0.75: 1.0, 0.95: 1.0}
    assert lavdf_ap([[[0.9, 1, 2]]], [[[1, 2]]]) == {0.5: 0.0, 0.75: 0.0, 0.95: 0.0}  # its defect D8


def test_empties_count() -> None:
    hit, truth = [[0.9, 1.0, 2.0]], [[1.0, 2.0]]
    assert average_precision([hit, []], [truth, truth], [0.5]) == {0.5: 0.5}  # a missed truth
    assert average_recall([hit, []], [truth, truth], [10]) == {10: 0.5}
    assert average_precision([hit, [[0.95, 0, 1]]], [truth, []], [0.5]) == {0.5: 0.5}  # a false alarm above the hit
    assert average_precision([hit, [[0.85, 0, 1]]], [truth, []], [0.5]) == {0.5: 1.0}  # and one below it
    assert average_recall([hit, [[0.95, 0, 1]]], [truth, []], [1]) == {1: 1.0}
    assert math.isnan(average_precision([hit], [[]], [0.5])[0.5])
    assert math.isnan(average_recall([], [], [10])[10])
    assert average_precision([[], []], [truth, truth], [0.5]) == {0.5: 0.0}
    missed = boundary_error([[]], [truth])
    assert math.isnan(missed.mean)
    assert (missed.found, missed.truths) == (0, 1)


def test_equal_scores_are_one_point() -> None:
    found, truths = [[[0.5, 1, 2], [0.5, 5, 6], [0.5, 7, 8]]], [[[1, 2]]]
    assert average_precision(found, truths, [0.5])[0.5] == pytest.approx(1 / 3)
    assert average_precision([found[0][::-1]], truths, [0.5])[0.5] == pytest.approx(1 / 3)


def test_the_order_given_does_not_matter(rng: np.random.Generator) -> None:
    found, truths = clips(rng)
    ap, ar = average_precision(found, truths), average_recall(found, truths, (2, 5))
    for _ in range(5):
        shuffled = [rows[rng.permutation(len(rows))] for rows in found]
        place = rng.permutation(len(found))
        turned = [shuffled[i] for i in place], [truths[i] for i in place]
        assert average_precision(*turned) == pytest.approx(ap, abs=TOLERANCE)
        assert average_recall(*turned, (2, 5)) == pytest.approx(ar, abs=TOLERANCE)


def test_iou_on_the_threshold_is_reached_whatever_the_rounding() -> None:
    for shift in range(200):
        start = shift / 25
        truth, proposal = [[start, start + 10 / 25]], [[0.5, start, start + 9 / 25]]  # IoU 0.9
        assert average_precision([proposal], [truth], [0.9])[0.9] == 1.0


def test_who_comes_first_takes_the_best() -> None:
    truths = [[[0.0, 4.0], [1.0, 5.0]]]
    first, second = [0.9, 0.5, 4.5], [0.8, 0.0, 4.0]
    assert average_precision([[first, second]], truths, [0.6])[0.6] == 1.0  # 7/9 with both; the tie goes to the first
    assert average_precision([[first, second]], truths, [0.7])[0.7] == 0.5  # whose place the second needs, at 0.7


def test_boundary_error_in_milliseconds() -> None:
    found = [[[0.9, 1.01, 2.03], [0.8, 1.0, 2.0]], [[0.7, 4.98, 6.0]], [[0.9, 0.0, 0.1]]]
    truths = [[[1.0, 2.0]], [[5.0, 6.0], [8.0, 9.0]], []]
    error = boundary_error(found, truths)
    assert error.start == pytest.approx(15.0)
    assert error.end == pytest.approx(15.0)
    assert error.mean == pytest.approx(15.0)
    assert (error.found, error.truths) == (2, 3)


def test_reports_and_arrays_say_the_same() -> None:
    media = Media("x.mp4", kind="video")
    spans = (Segment(3.0, 4.0, 1.0, "audio"), Segment(1.0, 2.0, 1.0, "video"), Segment(1.5, 2.5, 1.0, "audio"))
    truth = Report(media, "forged", 1.0, segments=spans)
    np.testing.assert_array_equal(spans_of(truth), [[1.0, 2.5], [3.0, 4.0]])
    np.testing.assert_array_equal(spans_of(truth, "video"), [[1.0, 2.0]])
    np.testing.assert_array_equal(spans_of(truth, "audio"), [[1.5, 2.5], [3.0, 4.0]])
    assert spans_of(Report(media, "authentic", 0.0)).shape == (0, 2)
    ranked = ((0.9, 1.0, 2.5), (0.3, 3.0, 4.0))
    found = Report(media, "forged", 0.9, proposals=ranked, segments=(Segment(1.0, 2.0, 0.7),))
    arrays = [np.array(ranked)], [[[1.0, 2.5], [3.0, 4.0]]]
    assert average_precision([found], [truth]) == average_precision(*arrays)
    assert average_recall([found], [truth]) == average_recall(*arrays)
    none_listed = Report(media, "forged", 0.9, segments=(Segment(1.0, 2.0, 0.7),))
    np.testing.assert_array_equal(proposals_of(none_listed), [[0.7, 1.0, 2.0]])


def test_union() -> None:
    np.testing.assert_array_equal(union([(3, 4), (1, 2), (2, 2.5), (0, 0.5), (3.1, 3.2)]), [(0, 0.5), (1, 2.5), (3, 4)])
    assert union([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("found", "truths", "words"),
    [
        ([[[0.5, 1, 2]]], [[], []], "1 clips and truths of 2"),
        ([[], [[math.nan, 1, 2]]], [[], []], r"clip number 1: \[nan, 1.0, 2.0\]"),
        ([[[0.5, 1, math.inf]]], [[]], "clip number 0"),
        ([[[0.5, 2, 1]]], [[]], "not a proposal"),
        ([[[0.5, 2]]], [[]], r"proposals of shape \(1, 2\)"),
        ([[]], [[[1, 1]]], "not a forged span"),
        ([[]], [[[1, math.nan]]], "not a forged span"),
        ([[]], [[1, 2]], r"truths of shape \(2,\)"),
    ],
)
def test_what_is_no_span(found: list[list[list[float]]], truths: list[list[list[float]]], words: str) -> None:
    for measure in (average_precision, average_recall, lavdf_ap, avdeepfake1m_ap, activitynet_ap):
        with pytest.raises(DataError, match=words):
            measure(found, truths)  # type: ignore[operator]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, math.nan])
def test_thresholds_out_of_range(threshold: float) -> None:
    with pytest.raises(DataError, match=r"\(0, 1\]"):
        average_precision([], [], [threshold])


def test_where_the_originals_crash() -> None:
    hit, truth = [[0.9, 1.0, 2.0]], [[1.0, 2.0]]
    with pytest.raises(DataError, match=r"LAV-DF's AP fails on clip number 1"):
        lavdf_ap([hit, []], [truth, []])
    with pytest.raises(DataError, match=r"AR@100 fails on clip number 0: it has 1 proposals"):
        lavdf_ar([hit], [truth])
    assert lavdf_ar([hit, []], [truth, []], [1]) == {1: 1.0}
    for measure in (avdeepfake1m_ap, avdeepfake1m_ar):
        with pytest.raises(DataError, match=r"cannot read clip number 1"):
            measure([hit, []], [truth, []])
    with pytest.raises(DataError, match=r"ActivityNet's AR fails on clip number 1"):
        activitynet_ar([hit, []], [truth, truth])
    assert activitynet_ap([hit, []], [truth, truth], [0.5]) == {0.5: 0.5}


def test_variants_without_any_truth_are_nan_but_for_one() -> None:
    found: list[list[list[float]]] = [[[0.9, 1.0, 2.0]]]
    for ap in (lavdf_ap, avdeepfake1m_ap, activitynet_ap):
        assert all(math.isnan(value) for value in ap(found, [[]]).values())
    for ar in (lavdf_ar, activitynet_ar):
        assert all(math.isnan(value) for value in ar(found, [[]], [1]).values())
    assert avdeepfake1m_ar(found, [[]], [1]) == {1: 0.0}


def test_the_default_agrees_with_activitynet_where_nothing_ties(rng: np.random.Generator) -> None:
    for _ in range(10):
        found, truths = clips(rng, decimals=16)
        ours, theirs = average_precision(found, truths, [0.45, 0.72]), activitynet_ap(found, truths, [0.45, 0.72])
        assert ours == pytest.approx(theirs, abs=TOLERANCE)


def test_memory_is_bounded(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    start = rng.random(20_000) * 100
    found = [np.stack([rng.random(20_000), start, start + 0.3], 1)]
    begin = np.arange(300) / 3.0
    truths = [np.stack([begin, begin + 0.3], 1)]  # six million pairs
    tracemalloc.start()
    whole = average_precision(found, truths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # all pairs at once would take 48 MB for one number of each
    monkeypatch.setattr(temporal, "PAIRS_AT_ONCE", 7)  # fewer than one proposal has
    part = [found[0][:200]]
    few = average_precision(part, truths), average_recall(part, truths)
    monkeypatch.undo()
    assert (average_precision(part, truths), average_recall(part, truths)) == few
    assert whole[0.5] > 0.4


@pytest.mark.parametrize("labels", [[1, 1], [0, 0]])
def test_auc_of_one_class_is_nan(labels: list[int]) -> None:
    assert math.isnan(avdeepfake1m_auc([0.1, 0.2], labels))


def test_frames() -> None:
    labels = frame_labels([[0.2, 0.4], [0.38, 0.5], [0.9, 7.0]], 25)
    np.testing.assert_array_equal(np.flatnonzero(labels), [5, 6, 7, 8, 9, 10, 11, 22, 23, 24])  # 12: its middle is 0.5
    assert not frame_labels([], 4).any()
    assert frame_labels([[-1.0, 99.0]], 4).all()
    assert frame_labels([[0, 1]], 0).shape == (0,)
    for k in range(300):  # ends on frames are exact at any time
        assert frame_labels([[k / 25, (k + 3) / 25]], 400).nonzero()[0].tolist() == [k, k + 1, k + 2]
    truth = [frame_labels([[0.0, 0.4]], 25), frame_labels([], 10)]
    found = [frame_labels([[0.2, 0.4]], 25), frame_labels([[0.0, 0.04]], 10)]
    assert frame_f1(found, truth) == pytest.approx(2 * 5 / (2 * 5 + 1 + 5))
    assert frame_f1(truth, truth) == 1.0
    assert math.isnan(frame_f1([truth[1]], [truth[1]]))
    curves = [np.where(t, 0.8, 0.3) for t in truth]
    assert frame_auc(curves, truth) == 1.0
    curves[1][:] = 0.8
    assert frame_auc(curves, truth) == roc_auc(np.concatenate(curves), np.concatenate(truth))
    with pytest.raises(DataError, match="25 frames and truth of 10"):
        frame_auc(curves[:1], truth[1:])
    with pytest.raises(DataError, match="1 clips and truths of 2"):
        frame_f1(found[:1], truth)


def test_resampling_equals_repeating_clips(rng: np.random.Generator) -> None:
    found, truths = clips(rng, 12)
    matching = Matching(found, truths, ious=(0.4, 0.7), numbers=(5, 1))
    assert matching.ap() == average_precision(found, truths, (0.4, 0.7))
    assert matching.ar() == average_recall(found, truths, (5, 1))
    for times in resamples(12, draws=20):
        assert times.sum() == 12
        drawn = np.repeat(np.arange(12), times)
        again = [found[i] for i in drawn], [truths[i] for i in drawn]
        assert matching.ap(times) == pytest.approx(average_precision(*again, (0.4, 0.7)), abs=TOLERANCE)
        assert matching.ar(times) == pytest.approx(average_recall(*again, (5, 1)), abs=TOLERANCE)
        assert matching.boundary(times) == pytest.approx(boundary_error(*again), abs=1e-9, nan_ok=True)


def test_bootstrap_covers_a_known_share(rng: np.random.Generator) -> None:
    truths = [[[1.0, 2.0]]] * 400
    found = [[[0.5, 1.0, 2.0]] if hit else [] for hit in rng.random(400) < 0.7]
    matching = Matching(found, truths, numbers=(1,))
    low, high = bootstrap(matching.ar, 400)[1]
    share = matching.ar()[1]
    assert low < share < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 400), rel=0.1)
    assert bootstrap(matching.ap, 400, draws=50)[0.5] == bootstrap(matching.ap, 400, draws=50)[0.5]
    assert bootstrap(Matching([[]], [[]]).ap, 1, draws=5) == {}  # never defined
