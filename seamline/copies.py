"""Areas of a photo that repeat another area of it: a copy-move, or a healing brush that took its texture from beside.

No network: keypoints that look alike (SIFT, Lowe 2004; RootSIFT, Arandjelovic and Zisserman 2012) vote for movements
of a plane (after Amerini et al., 2011), and each movement is then checked densely: the fine detail of the photo, moved,
has to correlate with the detail that is there. Two windows of a facade look alike and correlate at .85; a copy does at
.95 and more, also after it was turned, rescaled, and saved as JPEG, which end other traces.

Which of the two areas is the copy that check can't tell; a heat map often can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

Plane = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float64]

SIDE = 1280  # pixels: a photo whose long side is longer is looked at this size
MOST_KEYPOINTS = 8000  # the strongest
MOST_PAIRS = 3000  # the least ambiguous
APART = 24.0  # pixels: nearer keypoints show the same thing
RATIO = 0.75  # of the distances to the nearest and the next descriptor, above which a pair is ambiguous
NEAREST = 0.75  # distance of two RootSIFT descriptors, above which they are not alike
FEWEST = 3  # pairs that agree on a movement
MOST_MOVEMENTS = 6
TRIED = 600  # pairs, at most, whose own movement is tried
SCALES = (0.4, 2.5)  # of a movement
WINDOW = 15  # pixels, of the dense check
AGREE = 0.7  # correlation from which detail is the same
FLAT = 4.0  # variance of detail, grey levels squared, below which there is nothing to compare
SMALLEST = 200  # pixels, of an area
LIKELIEST = 8.0  # log odds, above which more evidence adds nothing
HOTTER = 0.05  # of two areas, by mean heat: then the hotter one is the copy, in 93 of 100 (else both are marked)
# Log odds of a copy, by logistic regression on what was found in 420 whole photos, half of them forged (docs/LOG.md).
ODDS = {
    "pairs": 0.856,  # log of their number
    "share": 4.274,  # of what lies between the points, where detail correlates above 0.75
    "coarse": 7.737,  # median correlation of detail finer than 3 pixels,
    "fine": 4.294,  # than 1 pixel,
    "finest": 3.766,  # and than 0.6
    "contrast": -0.965,  # log of its variance
    "fine_contrast": -0.025,
}
BIAS = -14.243


@dataclass(frozen=True, eq=False)
class Repeat:
    """Two areas of a photo that show the same, at the size at which it was looked at.

    ``odds`` are the log odds that one is a copy of the other. ``areas`` are two masks (h, w); ``movement`` (2, 3) takes
    a pixel (x, y, 1) of the first to its place in the second. ``pairs`` (n, 4) are x, y, x, y of points that match.
    """

    odds: float
    areas: tuple[Mask, Mask]
    movement: Matrix
    pairs: Plane


@dataclass(frozen=True, eq=False)
class Repeats:
    """All of them, the likeliest first. A pixel of the photo is ``scale`` pixels here."""

    scale: float
    shape: tuple[int, int]
    found: tuple[Repeat, ...] = field(default=())

    @property
    def odds(self) -> float:
        """Evidence of a copy, in [0, ``LIKELIEST``]: the log odds of the likeliest, where it is likelier than not."""
        return min(max([0.0, *(repeat.odds for repeat in self.found)]), LIKELIEST)

    def onto(self, heatmap: Plane) -> tuple[Plane, list[tuple[Mask, Mask]]]:
        """A heat map (H, W) of the photo with the likely copies marked on it, each as hot as it is likely.

        The hotter of two areas is the copy; where neither is, both are marked.

        Returns:
            The heat map, and for each area marked its mask (h, w) and that of the area that shows the same.
        """
        height, width = heatmap.shape
        marked: list[tuple[Mask, Mask]] = []
        if not self.odds:
            return heatmap, marked
        hot = cv2.resize(heatmap, self.shape[::-1], interpolation=cv2.INTER_AREA)
        heatmap = heatmap.copy()
        for repeat in self.found:
            if repeat.odds <= 0:
                break
            first, second = repeat.areas
            apart = float(hot[first].mean() - hot[second].mean()) if first.any() else -1.0
            sides = [(first, second), (second, first)]
            sides = sides if abs(apart) < HOTTER else sides[:1] if apart > 0 else sides[1:]
            marked += sides
            area = np.any([side[0] for side in sides], axis=0) * np.uint8(255)
            inside = cv2.resize(area, (width, height), interpolation=cv2.INTER_LINEAR) >= 128
            heatmap[inside] = np.maximum(heatmap[inside], np.float32(1 / (1 + np.exp(-repeat.odds))))
        return heatmap, marked


def find(rgb: npt.NDArray[np.uint8]) -> Repeats:
    """What repeats in a photo (H, W, 3)."""
    height, width = rgb.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    shape = (grey.shape[0], grey.shape[1])
    keypoints, descriptors = _keypoints(np.asarray(grey, np.uint8))
    light = grey.astype(np.float32)
    found = [
        repeat
        for movement, pairs in _movements(keypoints, _pairs(keypoints, descriptors))
        if (repeat := _checked(light, movement, pairs)) is not None
    ]
    return Repeats(scale, shape, tuple(sorted(found, key=lambda repeat: -repeat.odds)))


def _keypoints(grey: npt.NDArray[np.uint8]) -> tuple[Plane, Plane]:
    """(n, 4) x, y, size, angle in radians, and (n, 128) descriptors of unit length, the strongest keypoints first."""
    sift: Any = cv2.SIFT.create(contrastThreshold=0.012, edgeThreshold=15)
    points, descriptors = sift.detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 4), np.float32), np.zeros((0, 128), np.float32)
    order = np.argsort([-point.response for point in points], kind="stable")[:MOST_KEYPOINTS]
    table = [(*points[i].pt, points[i].size, np.deg2rad(points[i].angle)) for i in order]
    kept = descriptors[order]
    return np.array(table, np.float32), np.sqrt(kept / (kept.sum(1, keepdims=True) + 1e-9))


def _pairs(keypoints: Plane, descriptors: Plane) -> npt.NDArray[np.int64]:
    """(m, 2) keypoints that look alike and like no third, the least ambiguous first."""
    table, place = torch.from_numpy(descriptors), torch.from_numpy(keypoints[:, :2].copy())
    if len(table) < 2 * FEWEST:
        return np.zeros((0, 2), np.int64)
    pairs, ratios = [], []
    for start in range(0, len(table), 1024):
        alike = table[start : start + 1024] @ table.T
        alike[torch.cdist(place[start : start + 1024], place) < APART] = -1.0
        best, which = alike.topk(3, 1)
        distance = (2 - 2 * best).clamp_min(0).sqrt()
        same = (place[which[:, 1]] - place[which[:, 0]]).norm(dim=1) < APART / 2  # the third place is the next one then
        ratio = distance[:, 0] / torch.where(same, distance[:, 2], distance[:, 1]).clamp_min(1e-6)
        rows = torch.nonzero((ratio < RATIO) & (distance[:, 0] < NEAREST))[:, 0]
        pairs.append(torch.stack([rows + start, which[rows, 0]], 1))
        ratios.append(ratio[rows])
    order = torch.cat(ratios).argsort(stable=True)[:MOST_PAIRS]
    return torch.cat(pairs)[order].numpy()


def _movements(keypoints: Plane, pairs: npt.NDArray[np.int64]) -> list[tuple[Matrix, Plane]]:
    """Movements of the plane, each a similarity (2, 3), that several pairs agree on, with those pairs (k, 4)."""
    if len(pairs) < FEWEST:
        return []
    one, other = keypoints[pairs[:, 0]], keypoints[pairs[:, 1]]
    back = other[:, 0] + 1e-3 * other[:, 1] < one[:, 0] + 1e-3 * one[:, 1]  # every pair is read from left to right
    one, other = np.where(back[:, None], other, one), np.where(back[:, None], one, other)
    points = np.hstack([one[:, :2], other[:, :2]])
    first = np.unique(np.round(points), axis=0, return_index=True)[1]
    points, one, other = points[first], one[first], other[first]
    turn, growth = _turn(other[:, 3] - one[:, 3]), np.log(other[:, 2] / one[:, 2])
    left, found = np.ones(len(points), bool), []
    for _ in range(MOST_MOVEMENTS):
        rest = np.flatnonzero(left)
        if len(rest) < FEWEST + 1:
            break
        agree = _agreement(points[rest], turn[rest], growth[rest])
        group = rest[agree]
        if len(group) < FEWEST:
            break
        movement = _fit(points, rest, group)
        left[group] = False
        if movement is None:
            continue
        near = rest[_errors(points[rest], movement) < 3]
        left[near] = False
        if len(near) >= FEWEST and SCALES[0] < np.hypot(movement[0, 0], movement[1, 0]) < SCALES[1]:
            found.append((movement, points[near]))
    return found


def _agreement(points: Plane, turn: Plane, growth: Plane) -> npt.NDArray[np.bool_]:
    """(n,) which pairs follow the movement that most follow, of those that one pair says by its own turn and growth."""
    tried = np.arange(len(points))
    if len(tried) > TRIED:
        tried = np.random.default_rng(0).choice(len(points), TRIED, replace=False)
    cos, sin = np.exp(growth[tried]) * np.cos(turn[tried]), np.exp(growth[tried]) * np.sin(turn[tried])
    best, most = np.zeros(len(points), bool), -1
    for i, c, s in zip(tried, cos, sin, strict=True):
        away = points[:, :2] - points[i, :2]
        x, y = points[i, 2] + c * away[:, 0] - s * away[:, 1], points[i, 3] + s * away[:, 0] + c * away[:, 1]
        miss = np.hypot(x - points[:, 2], y - points[:, 3])
        near = miss < 4 + 0.12 * np.hypot(away[:, 0], away[:, 1])
        near &= (np.abs(_turn(turn - turn[i])) < 0.26) & (np.abs(growth - growth[i]) < 0.35)
        if (count := int(near.sum())) > most:
            best, most = near, count
    return best


def _fit(points: Plane, rest: npt.NDArray[np.int64], group: npt.NDArray[np.int64]) -> Matrix | None:
    """The similarity that a group of pairs agrees on, fitted again to all of the rest that follow it."""
    robust: Any = cv2.estimateAffinePartial2D
    options = {"method": cv2.RANSAC, "ransacReprojThreshold": 2.5, "maxIters": 2000}
    movement, inside = robust(points[group, :2], points[group, 2:], **options)
    if movement is None or inside.sum() < FEWEST:
        return None
    for _ in range(3):
        near = rest[_errors(points[rest], movement) < 3]
        if len(near) < FEWEST:
            break
        again, _ = robust(points[near, :2], points[near, 2:], method=cv2.LMEDS)
        if again is None:
            break
        movement = again
    return np.asarray(movement, np.float64)


def _errors(points: Plane, movement: Matrix) -> npt.NDArray[np.float64]:
    """(n,) pixels between where a movement takes the first point of a pair and the second."""
    miss = points[:, :2] @ movement[:, :2].T + movement[:, 2] - points[:, 2:]
    return np.hypot(miss[:, 0], miss[:, 1])


def _turn(angle: Any) -> Any:
    """An angle in radians, in (-pi, pi]."""
    return np.angle(np.exp(1j * angle)).astype(np.float32)


# ----------------------------------------------------------------------------------------------------- dense check


def _checked(light: Plane, movement: Matrix, pairs: Plane) -> Repeat | None:
    """Where the photo, moved, has the detail of what is there; ``None`` if that is nowhere around the pairs."""
    agreed = _agreed(*_correlation(light, movement, 3.0, WINDOW), pairs)
    if not agreed.any():
        return None
    movement = _refined(light, movement, agreed)
    correlation, contrast = _correlation(light, movement, 3.0, WINDOW)
    agreed = _agreed(correlation, contrast, pairs)
    textured = agreed & (contrast > FLAT)
    if not textured.any():
        return None
    fine, fine_contrast = _correlation(light, movement, 1.0, WINDOW)
    finest, _ = _correlation(light, movement, 0.6, 9)
    hull = np.zeros(light.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.rint(pairs[:, 2:]).astype(np.int32)), 1)
    between = (hull > 0) & (contrast > FLAT)
    facts = {
        "pairs": np.log(len(pairs)),
        "share": float((correlation[between] > 0.75).mean()) if between.any() else 0.0,
        "coarse": float(np.median(correlation[textured])),
        "fine": float(np.median(fine[textured])),
        "finest": float(np.median(finest[textured])),
        "contrast": np.log(float(np.median(contrast[textured])) + 1),
        "fine_contrast": np.log(float(np.median(fine_contrast[textured])) + 0.1),
    }
    odds = BIAS + sum(ODDS[name] * value for name, value in facts.items())
    second = _whole(agreed)
    first = cv2.warpAffine(
        second.view(np.uint8), movement, light.shape[::-1], flags=cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST
    )
    return Repeat(float(odds), (first > 0, second), movement, pairs)


def _correlation(light: Plane, movement: Matrix, sigma: float, window: int) -> tuple[Plane, Plane]:
    """(h, w) of the detail finer than ``sigma``: its correlation in windows with what the movement brings, in [-1, 1].

    And the smaller of both variances. Both are zero where the movement brings what lies outside of the photo.
    """
    size = light.shape[::-1]
    moved = cv2.warpAffine(light, movement, size, flags=cv2.INTER_CUBIC)
    inside = cv2.warpAffine(np.ones(light.shape, np.float32), movement, size, flags=cv2.INTER_NEAREST)
    a, b = (plane - cv2.GaussianBlur(plane, (0, 0), sigma) for plane in (moved, light))

    def mean(plane: npt.NDArray[Any]) -> Plane:
        return np.asarray(cv2.blur(plane, (window, window)), np.float32)

    mean_a, mean_b = mean(a), mean(b)
    aa, bb, ab = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    there = mean(inside) > 0.999
    return np.where(there, ab / np.sqrt(np.maximum(aa * bb, 1e-6)), 0), np.where(there, np.minimum(aa, bb), 0)


def _agreed(correlation: Plane, contrast: Plane, pairs: Plane) -> Mask:
    """(h, w) connected areas of the same detail that hold a point of a pair."""
    same: npt.NDArray[Any] = ((correlation > AGREE) & (contrast > FLAT)).astype(np.uint8)
    same = cv2.morphologyEx(same, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    same = cv2.morphologyEx(same, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(same)
    x, y = (np.clip(np.rint(pairs[:, 2 + i]).astype(int), 0, labels.shape[1 - i] - 1) for i in (0, 1))
    held = np.bincount(labels[y, x], minlength=count) > 0
    held &= stats[:, cv2.CC_STAT_AREA] >= SMALLEST
    held[0] = False  # label 0 is the background
    return np.asarray(held[labels], np.bool_)


def _refined(light: Plane, movement: Matrix, agreed: Mask) -> Matrix:
    """The movement, now any affine one, that brings the agreed area onto itself best (ECC, Evangelidis 2008)."""
    ys, xs = np.flatnonzero(agreed.any(1)), np.flatnonzero(agreed.any(0))
    top, bottom = max(0, int(ys[0]) - 8), int(ys[-1]) + 9
    left, right = max(0, int(xs[0]) - 8), int(xs[-1]) + 9
    corner = np.array([left, top], np.float64)
    back = np.asarray(cv2.invertAffineTransform(movement), np.float64)
    start = back.astype(np.float32)
    start[:, 2] += back[:, :2] @ corner
    box = np.s_[top:bottom, left:right]
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-4)
    try:
        _, found = cv2.findTransformECC(
            light[box], light, start, cv2.MOTION_AFFINE, criteria, agreed[box].astype(np.uint8), 5
        )
    except cv2.error:  # it did not converge
        return movement
    refined: Matrix = np.asarray(found, np.float64).copy()
    refined[:, 2] -= refined[:, :2] @ corner
    corners = np.array([corner, [right, bottom]])
    moved = np.abs(corners @ (refined[:, :2] - back[:, :2]).T + refined[:, 2] - back[:, 2]).max()
    return np.asarray(cv2.invertAffineTransform(refined), np.float64) if moved < 6 else movement


def _whole(agreed: Mask) -> Mask:
    """The area that the windows saw the inside of: its holes closed, and half a window wider."""
    plane: npt.NDArray[Any] = np.pad(agreed.astype(np.uint8), WINDOW)
    near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (WINDOW, WINDOW))
    plane = cv2.dilate(cv2.morphologyEx(plane, cv2.MORPH_CLOSE, near), near)
    return np.asarray(plane[WINDOW:-WINDOW, WINDOW:-WINDOW] > 0)
