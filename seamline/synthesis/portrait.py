"""A photograph of a face as a film of it, so that a few hundred portraits can stand in for people nobody filmed.

Detectors of clips that learn from a handful of filmed people learn the people. What an edit leaves in a face, be it the
edge of a blend or a mouth of another sharpness, looks the same on a photograph that sways. As made, such a film is what
our forgers call authentic.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .audio_visual import FPS, Footage, Frames, Pixels
from .clip_file import ClipChain, encode, read_footage
from .image import Box, find_face

Grid = npt.NDArray[np.floating[Any]]  # (h, w), of coordinates in the photograph
FACE = 100.0  # side of a face, as find_face draws it, for which the sizes below are given in pixels
WIDEST = 200  # pixels of the side of a face; of larger ones the photograph is made smaller first
LEAST = 70  # pixels; a smaller face has too little to film
MARGIN = 0.3  # share of the longer side by which a photograph is continued where no face is found in it as it is


class Mouth(NamedTuple):
    """A mouth that opens: sizes in pixels of the photograph, of a face of ``FACE`` times ``scale`` pixels."""

    x: float  # where the lips part
    y: float
    width: float  # half of it
    depth: float = 9.5  # how far it opens
    scale: float = 1.0

    def opened(self, x: Grid, y: Grid, share: float) -> tuple[Grid, Grid]:
        """What opening it by a share in [0, 1] does to points of the photograph, given by their coordinates (h, w).

        Returns:
            How far above each point lies what it shows then, pixels; how much of that is the mouth's inside, 0 to 1.
        """
        s, wide = self.scale, self.depth * share
        gap = wide * np.sqrt(np.clip(1 - ((x - self.x) / self.width) ** 2, 0, 1))
        below = y - self.y
        drop = np.where(below > gap, gap + (wide - gap) * np.exp(-(((x - self.x) / (30 * s)) ** 2)), below)
        drop = np.where(below > 0, drop * np.exp(-((np.maximum(below - gap, 0) / (30 * s)) ** 2)), 0)
        inside = np.clip(np.minimum(below, gap - below) / (1.5 * s) + 0.4, 0, 1)
        return drop, inside * (gap > 0.7 * s) * np.clip(gap / (3 * s), 0, 1)


def lids(x: Grid, y: Grid, eyes: Sequence[tuple[float, float]], scale: float = 1.0) -> Grid:
    """How much of each point (h, w) is eye, 0 to about 1."""
    total = sum(np.exp(-(((x - ex) / (13 * scale)) ** 4) - ((y - ey) / (8 * scale)) ** 2) for ex, ey in eyes)
    return np.asarray(total)


def film(photo: Pixels, rng: np.random.Generator, seconds: tuple[float, float] = (4.8, 7.6)) -> Footage | None:
    """A silent film, as long as ``seconds`` allow, of a photo (H, W, 3); ``None`` without a face of ``LEAST`` pixels.

    The head sways and nods, the camera nears, eyes blink, the mouth talks and smiles, the sensor has its grain, and a
    camera's H.264 is behind it all: how much of each is drawn.
    """
    box = find_face(photo)
    if box is None:
        margin = round(MARGIN * max(photo.shape[:2]))
        photo = np.pad(photo, ((margin, margin), (margin, margin), (0, 0)), "edge")
        box = find_face(photo)
    if box is None or box[2] - box[0] < LEAST:
        return None
    if box[2] - box[0] > WIDEST:
        smaller = rng.uniform(120, WIDEST) / (box[2] - box[0])
        photo = np.asarray(cv2.resize(photo, None, fx=smaller, fy=smaller, interpolation=cv2.INTER_AREA), np.uint8)
        x0, y0, x1, y1 = (round(v * smaller) for v in box)
        box = (x0, y0, x1, y1)
    ticks, side = round(rng.uniform(*seconds) * FPS), 2 * int(rng.integers(128, 176))
    frames = _animated(photo, box, ticks, side, rng)
    camera = ClipChain(ending=".mkv", crf=int(rng.integers(10, 20)))
    return read_footage(io.BytesIO(encode(Footage(frames, None), camera)), "<portrait>")


def _animated(photo: Pixels, box: Box, ticks: int, side: int, rng: np.random.Generator) -> Frames:
    """(ticks, side, side, 3). Where each pixel comes from is found for every other one, and interpolated."""
    x0, y0, x1, y1 = box
    s, cx, high = (x1 - x0) / FACE, (x0 + x1) / 2, y1 - y0
    span = min(max(photo.shape[:2]), (x1 - x0) * rng.uniform(1.9, 2.9))
    left, top = cx - span / 2 + rng.uniform(-0.08, 0.08) * span, (y0 + y1) / 2 - span * rng.uniform(0.42, 0.52)
    yy, xx = (np.mgrid[: side // 2, : side // 2].astype(np.float32) * 2 + 0.5) * np.float32(span / side)
    xx, yy = xx + np.float32(left), yy + np.float32(top)
    depth, width = rng.uniform(6, 10) * s, rng.uniform(16, 21) * s
    mouth = Mouth(cx + rng.uniform(-2, 2) * s, y0 + high * rng.uniform(0.79, 0.83), width, depth, s)
    eyes = lids(xx, yy, [(cx + 20 * way * s, y0 + 0.39 * high) for way in (-1, 1)], s)
    smiles = np.tanh((xx - mouth.x) / (12 * s)) * np.exp(
        -(((xx - mouth.x) / (28 * s)) ** 2) - ((yy - mouth.y) / (16 * s)) ** 2
    )
    head = np.clip(1.6 - np.hypot((xx - mouth.x) / (80 * s), (yy - mouth.y + 30 * s) / (95 * s)), 0, 1)
    head = head * head * (3 - 2 * head) if rng.random() < 0.6 else np.ones_like(head)  # or the camera sways
    jaw = _talk(ticks, rng) * rng.uniform(0.5, 1.1)
    blinks = np.cumsum(rng.uniform(1.2, 4, 40)) * FPS
    phase, sway, smile, grain = (
        rng.uniform(0, 6.28, 10),
        rng.uniform(0.4, 2.2),
        rng.uniform(-2, 2) * s,
        rng.uniform(0.3, 3),
    )
    dark = np.array([rng.uniform(35, 80), rng.uniform(15, 35), rng.uniform(15, 35)], np.float32)
    kind = cv2.INTER_CUBIC if span / side < 1.3 else cv2.INTER_AREA

    def whole(part: Grid) -> npt.NDArray[np.float32]:
        return np.asarray(cv2.resize(part.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR))

    out = np.empty((ticks, side, side, 3), np.uint8)
    for k in range(ticks):
        t = k / FPS
        waves = np.sin(np.array([1.1, 2.9, 1.7, 0.9, 2.3, 0.8, 7.0, 4.1, 0.6, 0.7]) * t + phase)
        dx = sway * s * (2.6 * waves[0] + 1.2 * waves[1] + 0.3 * waves[6])
        dy = sway * s * (1.6 * waves[2] + 0.5 * waves[7]) + 0.8 * jaw[k] * s
        turn, near = sway * (0.025 * waves[3] + 0.01 * waves[4]), 0.012 * sway * waves[8]
        x = xx + head * ((xx - mouth.x) * near - dx + turn * (yy - mouth.y - 60 * s))
        y = yy + head * ((yy - mouth.y) * near - dy - turn * (xx - mouth.x))
        drop, inside = mouth.opened(x, y, jaw[k])
        shut = max(0.0, 1 - float(np.abs(blinks - k).min()) / 3)
        moved = whole(x + smile * waves[9] * smiles), whole(y - drop - 8.5 * s * shut * eyes)
        picture = cv2.remap(photo, *moved, kind, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
        picture += whole(inside)[..., None] * (dark - picture)
        picture *= np.float32(1 + 0.008 * waves[5])
        picture += np.float32(grain) * rng.standard_normal((side, side, 1), np.float32)
        out[k] = np.clip(np.rint(picture), 0, 255)
    return out


def _talk(ticks: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(ticks,) how far a mouth is open, 0 to 1: syllables of 3 to 8 ticks in phrases, and pauses between these."""
    out = np.zeros(ticks + 8)
    at = int(rng.integers(15))
    while at < ticks:
        for _ in range(int(rng.integers(3, 14))):
            length = int(rng.integers(3, 9))
            syllable = rng.uniform(0.15, 1) * np.hanning(length + 2)[1:-1]
            here = out[at : at + length]
            np.maximum(here, syllable[: len(here)], out=here)
            at += length - int(rng.integers(2))
        at += int(rng.integers(5, 30))
    smooth = np.convolve(out, [0.15, 0.7, 0.15], "same")[:ticks]
    return np.clip(1.1 * smooth, 0, 1)
