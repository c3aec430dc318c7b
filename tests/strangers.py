"""Files that no verdict should be given on: text, drawings, noise, screens, dark pictures, tones. Each from a seed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.float32]
RATE = 16000


def page(rng: np.random.Generator) -> Pixels:
    """A printed page: a title and columns of text."""
    height, width = int(rng.integers(700, 1100)), int(rng.integers(600, 900))
    paper, ink = ((255, 255, 255), (20, 20, 20)) if rng.random() < 0.7 else ((252, 248, 236), (60, 40, 30))
    sheet = np.full((height, width, 3), paper, np.uint8)
    cv2.putText(sheet, "Annual report", (50, 80), cv2.FONT_HERSHEY_COMPLEX, 1.4, ink, 2, cv2.LINE_AA)
    for left in (50, width // 2 + 20):
        for y in range(130, height - 50, 24):
            words = "".join(rng.choice(list("aeinorstlmdu ")) for _ in range(width // 28))
            cv2.putText(sheet, words, (left, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, ink, 1, cv2.LINE_AA)
    return sheet


def comic(rng: np.random.Generator) -> Pixels:
    """A panel: flat areas with two tones each, thick outlines, a balloon."""
    panel = np.full((600, 800, 3), rng.integers(120, 255, 3), np.uint8)
    cv2.rectangle(panel, (0, 420), (800, 600), tuple(int(v) for v in rng.integers(60, 200, 3)), -1)
    for _ in range(7):
        middle, radius = rng.integers((100, 150), (700, 500)), int(rng.integers(40, 110))
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        shape = (middle + radius * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.int32)
        colour = rng.integers(40, 255, 3)
        cv2.fillPoly(panel, [shape], colour.tolist(), cv2.LINE_AA)
        cv2.fillPoly(panel, [(shape * 0.6 + middle * 0.4).astype(np.int32)], (colour * 0.8).tolist(), cv2.LINE_AA)
        cv2.polylines(panel, [shape], True, (10, 10, 10), 4, cv2.LINE_AA)
    cv2.ellipse(panel, (400, 80), (180, 50), 0, 0, 360, (255, 255, 255), -1, cv2.LINE_AA)
    cv2.putText(panel, "Oh no!", (320, 95), cv2.FONT_HERSHEY_TRIPLEX, 1.3, (0, 0, 0), 2, cv2.LINE_AA)
    return panel


def snow(rng: np.random.Generator) -> Pixels:
    """The picture of a television without a station."""
    grey = np.where(rng.random((420, 560)) < rng.uniform(0.3, 0.7), 230, 25) + rng.normal(0, 12, (420, 560))
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, 2)


def grain(rng: np.random.Generator) -> Pixels:
    """A dark frame of a sensor at its highest gain: shot noise of each colour."""
    return np.clip(rng.poisson(rng.uniform(20, 60), (480, 640, 3)) * 2.0, 0, 255).astype(np.uint8)


def desktop(rng: np.random.Generator) -> Pixels:
    """A screen: a bar, windows with lists and a table, icons."""
    screen = np.full((768, 1024, 3), rng.choice([(242, 242, 242), (32, 34, 40)]), np.uint8)
    dark = int(screen[0, 0, 0]) < 128
    ink, pane = ((225, 225, 225), (45, 48, 55)) if dark else ((40, 40, 40), (255, 255, 255))
    screen[:36] = (70, 70, 75)
    for left, top, right, bottom in ((20, 60, 330, 740), (350, 60, 1000, 400), (350, 420, 1000, 740)):
        cv2.rectangle(screen, (left, top), (right, bottom), pane, -1)
        cv2.rectangle(screen, (left, top), (right, top + 26), (190, 120, 50), -1)
        for y in range(top + 50, bottom - 8, 26):
            text = f"{rng.integers(1000, 9999)}  item  {rng.integers(10, 99)}.{rng.integers(10, 99)}"
            cv2.putText(screen, text, (left + 12, y), cv2.FONT_HERSHEY_PLAIN, 1.1, ink, 1, cv2.LINE_AA)
            cv2.line(screen, (left + 8, y + 7), (right - 8, y + 7), (128, 128, 128), 1)
    return screen


def pie(rng: np.random.Generator) -> Pixels:
    """A diagram: a pie chart with a legend."""
    sheet = np.full((540, 720, 3), 255, np.uint8)
    cuts = [0, *np.sort(rng.integers(20, 340, 4)).tolist(), 360]
    for start, stop in pairwise(cuts):
        colour = rng.integers(50, 230, 3).tolist()
        cv2.ellipse(sheet, (260, 280), (190, 190), 0, start, stop, colour, -1, cv2.LINE_AA)
        cv2.putText(sheet, f"part {stop}", (520, 120 + stop // 2), cv2.FONT_HERSHEY_DUPLEX, 0.7, colour, 1, cv2.LINE_AA)
    return sheet


def black(rng: np.random.Generator) -> Pixels:
    """A black frame, with at most the noise of a lens cap."""
    return np.clip(rng.normal(3, rng.choice([0.0, 0.6]), (360, 640, 3)), 0, 255).astype(np.uint8)


PICTURES: dict[str, Callable[[np.random.Generator], Pixels]] = {
    f.__name__: f for f in (page, comic, snow, grain, desktop, pie, black)
}


def _time(seconds: float = 5.0) -> npt.NDArray[np.float64]:
    return np.arange(round(seconds * RATE)) / RATE


def silence(rng: np.random.Generator) -> Sound:
    """Digital silence."""
    return np.zeros(5 * RATE, np.float32)


def tone(rng: np.random.Generator) -> Sound:
    """A square-ish tone, such as a test signal."""
    hertz = rng.uniform(120, 1500)
    return (0.3 * np.tanh(3 * np.sin(2 * np.pi * hertz * _time()))).astype(np.float32)


def hiss(rng: np.random.Generator) -> Sound:
    """Noise of one colour between brown and violet."""
    spectrum = np.fft.rfft(rng.normal(0, 1, 5 * RATE))
    wave = np.fft.irfft(spectrum * (np.arange(len(spectrum)) + 1.0) ** rng.uniform(-1, 0.5))
    return (0.2 * wave / np.abs(wave).max()).astype(np.float32)


def organ(rng: np.random.Generator) -> Sound:
    """Held chords, one a second."""
    wave = np.zeros(5 * RATE)
    for start in range(5):
        time = _time(1.0)
        for step in rng.choice([0, 3, 4, 7, 9, 12], 3, replace=False):
            hertz = 196 * 2 ** (step / 12)
            wave[start * RATE : (start + 1) * RATE] += sum(
                np.sin(2 * np.pi * hertz * k * time) / k**2 for k in range(1, 6)
            )
    return (0.4 * wave / np.abs(wave).max()).astype(np.float32)


def alarm(rng: np.random.Generator) -> Sound:
    """Beeps of 0.25 s at two pitches."""
    time = _time()
    hertz = np.where((time * 2).astype(int) % 2, 880.0, 660.0)
    return (0.3 * np.sin(2 * np.pi * hertz * time) * ((time * 4).astype(int) % 2)).astype(np.float32)


def engine(rng: np.random.Generator) -> Sound:
    """A motor that revs up: a rising comb of harmonics in noise."""
    time = _time()
    phase = 2 * np.pi * np.cumsum(25 + 8 * time) / RATE
    wave = sum(np.sin(k * phase) / k for k in range(1, 30)) + 0.2 * rng.normal(0, 1, len(time))
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


SOUNDS: dict[str, Callable[[np.random.Generator], Sound]] = {
    f.__name__: f for f in (silence, tone, hiss, organ, alarm, engine)
}
