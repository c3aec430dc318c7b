"""From a map over proposals to a short ranked list: tables, soft-NMS, voting, and the merging of windows.

Sources: soft-NMS (Bodla et al., ICCV 2017) as BA-TFD+ (Cai et al., CVIU 2023) and UMMAFormer (Zhang et al., ACM MM
2023) use it; segment voting (Gidaris & Komodakis, ICCV 2015). Everything here is NumPy. A list of proposals is (n, 3):
score, start, end, in ticks unless said otherwise. D-numbers are those of the project's list of findings about the
released code of BA-TFD+.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Proposals = npt.NDArray[np.float64]  # (n, 3) score, start, end

SAME = 0.5  # IoU above which proposals of two windows are the same
CUT = 1.0  # ticks: what begins or ends so close to the window's is cut off by it
_TINY = 1e-12


def dense_table(
    scores: npt.NDArray[np.float32],
    ticks: int,
    *,
    rows: Sequence[int] | None = None,
    start: npt.NDArray[np.float32] | None = None,
    end: npt.NDArray[np.float32] | None = None,
    span: bool = True,
    last: bool = True,
    decimals: bool = False,
) -> Proposals:
    """Every cell of a map that is a segment of the window, as a proposal; ordered by start, then end.

    Args:
        scores: (D, T) map; cell (d, t) stands for [t, t + rows[d]).
        ticks: how many there are; may exceed T.
        rows: duration of each row in ticks, increasing; by default 1, 2, ..., D.
        start: (T,) curve of the boundary generator; multiplies the score of every segment that starts there.
        end: (T,) the same for ends: index t for a segment that ends with tick t - 1.
        span: D5: a cell decodes to the segment it was trained for. Released: to one that is a tick shorter, and row 0
            is not used.
        last: D6: the end of a segment at T, for which ``end`` has no value, has that of T - 1. Released: it fails.
        decimals: scores as the released code has them, which writes the shortest decimals of a float32 to a file and
            reads them back as a float64.

    Returns:
        (n, 3) score, start, end in ticks.

    Raises:
        IndexError: without ``last``, see there.
    """
    scores = np.asarray(scores, np.float32)
    duration = np.arange(1, len(scores) + 1) if rows is None else np.asarray(rows)
    if not span:
        duration, scores = duration[1:] - 1, scores[1:]
    columns = scores[:, :ticks].T  # (n, D)
    begin = np.arange(len(columns))[:, None]
    stop = begin + duration
    inside = stop <= ticks
    first = np.nonzero(inside)[0]
    stop = stop[inside]
    score = columns[inside]
    if start is not None:
        score = score * np.asarray(start, np.float32)[first]
    if end is not None:
        score = score * np.asarray(end, np.float32)[np.minimum(stop, len(end) - 1) if last else stop]
    if decimals:
        score = score.astype("U16").astype(np.float64)
    return np.stack([score, first, stop], 1, dtype=np.float64)


def soft_nms(
    proposals: Proposals,
    alpha: float = 0.7234,
    low: float = 0.1968,
    high: float = 0.4123,
    fps: float = 25.0,
    keep: int = 101,
    *,
    corrected: bool = True,
) -> Proposals:
    """Soft-NMS: the best is taken, and all that overlap it lose score, ``exp(-IoU^2 / alpha)``; and so on.

    To overlap is to have an IoU above low + (high - low) * w with w the duration of the best in seconds.

    Args:
        proposals: (n, 3) score, start, end in ticks, in any order.
        alpha: softness; a smaller one suppresses more.
        low: threshold for the shortest.
        high: threshold for those of a second.
        fps: ticks in a second.
        keep: rows returned at most.
        corrected: D16, D19: ties keep their order, none is lost, w is at most 1 so that the threshold never passes
            ``high`` and long ones are suppressed too, and rows whose score is not a number are dropped. Released: the
            last that remains is lost unless there is only one, times go through seconds and back, w has no limit.

    Returns:
        (k, 3), k <= keep, best first.
    """
    found = np.asarray(proposals, np.float64).reshape(-1, 3)
    if corrected:
        found = found[~np.isnan(found[:, 0])]
    if len(found) <= 1:
        return found.copy()
    found = found[np.argsort(-found[:, 0], kind="stable")]
    score, times = found[:, 0].copy(), found[:, 1:] / fps
    early = np.argsort(times[:, 0], kind="stable")  # by start: those that can overlap one lie together
    begin, end = times[early].T.copy()
    length = end - begin
    longest = length.max()
    taken: list[tuple[float, int]] = []
    for _ in range(min(keep, len(found) - (not corrected))):
        best = int(score.argmax())
        taken.append((score[best], best))
        score[best] = -np.inf
        start, stop = times[best]
        width = stop - start
        threshold = low + (high - low) * (min(width, 1.0) if corrected else width)
        a, b = np.searchsorted(begin, (start - longest, stop))
        shared = np.minimum(end[a:b], stop)
        shared -= np.maximum(begin[a:b], start)
        iou = shared / np.maximum(length[a:b] + width - shared, _TINY)
        near = np.flatnonzero(iou > threshold)
        near, iou = early[a:b][near], iou[near]
        left = score[near] > -np.inf
        near, iou = near[left], iou[left]
        score[near] *= np.exp(-(iou**2) / alpha)
    scores, index = np.array([s for s, _ in taken]), np.array([i for _, i in taken], np.int64)
    ranked = np.argsort(-scores, kind="stable")
    ends = found[index, 1:] if corrected else times[index] * fps
    return np.column_stack([scores, ends])[ranked]


def gaussian_nms_voting(
    proposals: npt.NDArray[np.floating],
    sigma: float = 0.75,
    floor: float = 0.001,
    keep: int = 100,
    vote: float = 0.9,
    overlap: float = 0.0,
) -> npt.NDArray[np.float32]:
    """Soft-NMS of UMMAFormer, then voting on the ends. In float32, as there.

    Args:
        proposals: (n, 3) score, start, end.
        sigma: those that overlap a better one lose ``exp(-IoU^2 / sigma)``.
        floor: what scores less is dropped.
        keep: rows returned at most.
        vote: each becomes the mean of all those given whose IoU with it is at least this, weighed by their given score
            and that IoU. 0: no voting.
        overlap: U9: what has a smaller IoU with the better one keeps its score. Released: 0, whatever it is told.

    Returns:
        (k, 3) float32, k <= keep, best first.
    """
    found = np.asarray(proposals, np.float32).reshape(-1, 3)
    found = found[found[:, 0] >= floor]
    score, begin, end = found.T.copy()
    length = end - begin + np.float32(1e-6)
    taken = np.zeros((min(keep, len(found)), 3), np.float32)
    count = 0
    while count < len(taken) and len(score):
        best = int(score.argmax())
        taken[count] = score[best], begin[best], end[best]
        count += 1
        shared = np.minimum(end, end[best]) - np.maximum(begin, begin[best])
        np.maximum(shared, 0, out=shared)
        iou = shared / (length + length[best] - shared)
        score *= np.where(iou >= overlap, np.exp(iou * iou / np.float32(-sigma)), np.float32(1))
        left = score >= floor
        left[best] = False
        score, begin, end, length = score[left], begin[left], end[left], length[left]
    taken = taken[:count]
    if vote > 0 and count:
        weights, begin, end = found.T
        shared = np.minimum(taken[:, 2, None], end) - np.maximum(taken[:, 1, None], begin)  # (k, n)
        np.maximum(shared, 0, out=shared)
        length = end - begin
        iou = shared / np.maximum((taken[:, 2] - taken[:, 1])[:, None] + length - shared, np.float32(_TINY))
        votes = weights * iou * (iou >= vote)
        total = votes.sum(1, keepdims=True)
        means = votes @ found[:, 1:] / np.maximum(total, np.float32(_TINY))
        taken[:, 1:] = np.where(total > 0, means, taken[:, 1:])
    return taken[np.argsort(-taken[:, 0], kind="stable")]


def merge_windows(found: Sequence[tuple[int, Proposals]], keep: int = 500) -> Proposals:
    """Proposals of overlapping windows as one ranked list for the whole clip.

    A window's own proposals have been through soft-NMS and are left alone. Two things happen between windows. A span
    that goes on where a window begins was found in two pieces: the best that lies across that place and the best that
    begins there become one, if neither scores less than half of the other; it scores as the lower. Then what was found
    twice is dropped: any proposal that has an IoU above ``SAME`` with a better one of another window, and any piece
    that a window's beginning or end cut off a better one.

    Args:
        found: of each window, or face in a window, its first tick and its proposals (k, 3), times in ticks from there;
            in order of time. Windows are taken to be as long as the latest end that was found in any of them.
        keep: rows returned at most.

    Returns:
        (k, 3) score, start, end in ticks of the clip, best first.
    """
    parts = [(start, np.asarray(rows, np.float64).reshape(-1, 3)) for start, rows in found]
    if len(parts) <= 1:
        rows = parts[0][1] + np.array([0, parts[0][0], parts[0][0]]) if parts else np.zeros((0, 3))
        return rows[np.argsort(-rows[:, 0], kind="stable")][:keep]
    window = max((rows[:, 2].max() for _, rows in parts if len(rows)), default=0.0)
    first, last = parts[0][0], parts[-1][0]
    tables = []  # of each window: score, start, end, window, where it begins and ends if there is more beyond, or nan
    for i, (start, rows) in enumerate(parts):
        table = np.full((len(rows), 6), np.nan)
        table[:, :3] = rows + np.array([0, start, start])
        table[:, 3] = i
        if start > first:
            table[:, 4] = start
        if start < last:
            table[:, 5] = start + window
        tables.append(table)
        if start > first:
            _join(tables)
    table = np.concatenate(tables)
    table = table[np.argsort(-table[:, 0], kind="stable")]
    return _distinct(table[: 20 * keep], keep)


def _join(tables: list[npt.NDArray[np.float64]]) -> None:
    """Two pieces of one span, in the last table and in one of those before it, become one; see merge_windows."""
    later = tables[-1]
    heads = np.flatnonzero(later[:, 1] <= later[:, 4] + CUT)
    if not len(heads):
        return
    cut = later[0, 4]
    head = heads[later[heads, 0].argmax()]
    best: tuple[float, npt.NDArray[np.float64], int] | None = None
    for t in range(len(tables) - 2, -1, -1):
        earlier = tables[t]
        if len(earlier) and earlier[0, 5] < cut:
            break  # that window ended before this one begins
        across = np.flatnonzero((earlier[:, 1] < cut - CUT) & (earlier[:, 2] >= cut))
        if len(across):
            row = across[earlier[across, 0].argmax()]
            if best is None or earlier[row, 0] > best[0]:
                best = earlier[row, 0], earlier, int(row)
    if best is None:
        return
    score, earlier, row = best
    mine = later[head, 0]
    if min(score, mine) < 0.5 * max(score, mine) or earlier[row, 2] >= later[head, 2]:
        return
    later[head] = min(score, mine), earlier[row, 1], later[head, 2], later[head, 3], np.nan, later[head, 5]
    earlier[row, 0] = -np.inf  # has become part of the other


def _distinct(table: npt.NDArray[np.float64], keep: int) -> Proposals:
    """The best of rows ordered by score, without those that repeat a better one of another window."""
    early = np.argsort(table[:, 1], kind="stable")
    score, begin, end, source, opens, closes = table[early].T
    place = np.empty(len(table), np.int64)
    place[early] = np.arange(len(table))
    longest = (end - begin).max(initial=0)
    dropped = score == -np.inf
    cut = (begin <= opens + CUT) | (end >= closes - CUT)  # nan: nothing is cut off
    kept: list[int] = []
    for i in place.tolist():
        if dropped[i]:
            continue
        kept.append(i)
        if len(kept) == keep:
            break
        a, b = np.searchsorted(begin, (begin[i] - longest, end[i]))
        shared = np.minimum(end[a:b], end[i]) - np.maximum(begin[a:b], begin[i])
        length = end[a:b] - begin[a:b]
        iou = shared / np.maximum(length + end[i] - begin[i] - shared, _TINY)
        piece = cut[a:b] & (shared >= 0.9 * length)
        dropped[a:b] |= ((iou > SAME) | piece) & (source[a:b] != source[i])
    return np.stack([score, begin, end], 1)[kept]
