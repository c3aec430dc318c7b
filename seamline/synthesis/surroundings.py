"""Where speech is recorded: a room, noise, and music under it.

A voice read to a microphone stands alone; in a film it never does. What lies under it is the same before, in and after
a forged span only where the forger took care that it is, and it changes often enough where nothing was forged. So the
surroundings are made before speech is forged, or after it, and for authentic speech alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .speech import RATE, Sound, level

Music = npt.NDArray[np.float64]  # (samples,)
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9))  # semitones: major, minor, pentatonic


def surrounded(sound: Sound, rng: np.random.Generator) -> tuple[Sound, Music | None]:
    """Speech as it is recorded in a room, with noise and hum, and music to lay under it (:func:`under`), if any.

    A half gets a room, seven tenths noise of -38 to -12 dB, a seventh hum, four tenths music of -26 to -4 dB. All
    levels are relative to the speech (samples,) in [-1, 1].
    """
    loud = max(level(sound), 1e-3)
    out = np.asarray(sound, np.float64)
    if rng.random() < 0.5:
        room = _room(rng)
        size = len(out) + len(room)
        out = np.fft.irfft(np.fft.rfft(out, size) * np.fft.rfft(room, size), size)[: len(out)]
    if rng.random() < 0.7:
        out = out + _noise(len(out), rng) * loud * 10 ** (rng.uniform(-38, -12) / 20)
    if rng.random() < 0.15:
        out = out + _hum(len(out), rng) * loud * 10 ** (rng.uniform(-40, -18) / 20)
    music = _music(len(out), rng) * loud * 10 ** (rng.uniform(-26, -4) / 20) if rng.random() < 0.4 else None
    return np.clip(out, -1, 1).astype(np.float32), music


def under(sound: Sound, music: Music) -> Sound:
    """The sound with the music, which begins again where it is too short, under it."""
    return np.clip(sound + np.resize(music, len(sound)), -1, 1).astype(np.float32)


def _unit(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(x / max(float(np.sqrt(np.mean(np.square(x)))), 1e-9), np.float64)


def _room(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """An impulse response: the direct sound, and dull noise that dies away by 60 dB in 0.1 to 0.8 s."""
    lasts = rng.uniform(0.1, 0.8)
    t = np.arange(round(lasts * RATE)) / RATE
    tail = rng.standard_normal(len(t)) * 10 ** (-3 * t / lasts)
    dull = rng.uniform(0.0, 0.8)
    for i in range(1, 3):
        tail[i:] = (1 - dull) * tail[i:] + dull * tail[:-i]
    tail[: round(rng.uniform(0.001, 0.012) * RATE)] = 0
    tail *= 10 ** (rng.uniform(-14, 3) / 20) / max(float(np.linalg.norm(tail)), 1e-9)
    tail[0] += 1
    return tail / max(1.0, float(np.linalg.norm(tail)))


def _noise(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Coloured noise that swells and falls: air, traffic, wind, a crowd far off."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    at = np.geomspace(30, RATE / 2, 10)
    tilt = rng.uniform(-6, 1) * np.arange(10)  # dB
    gain = np.interp(np.log(np.maximum(np.fft.rfftfreq(n, 1 / RATE), 30)), np.log(at), tilt + rng.normal(0, 4, 10))
    noise = _unit(np.fft.irfft(spectrum * 10 ** (gain / 20), n))
    points = max(2, n // (RATE // 2))
    swell = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, points), rng.normal(0, rng.uniform(0, 4), points))
    return _unit(noise * 10 ** (swell / 20))


def _hum(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    base = rng.choice((50.0, 60.0)) * (1 + rng.normal(0, 5e-4))
    t = np.arange(n) / RATE
    parts = [np.sin(2 * np.pi * (k * base * t + rng.random())) * rng.random() / k for k in range(1, 13)]
    return _unit(np.sum(parts, 0))


def _music(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Chords, a melody and a beat of notes with harmonics that die away; nothing anybody wrote."""
    out = np.zeros(n + 4 * RATE)
    beat = rng.uniform(0.25, 0.7)
    root = rng.uniform(80, 200)
    scale = SCALES[int(rng.integers(len(SCALES)))]
    harmonics = int(rng.integers(2, 9))
    bright = rng.uniform(0.8, 2.2)
    lasts = rng.uniform(0.2, 2.0)
    attack = rng.uniform(0.002, 0.15)

    def note(at: float, semitones: float, loud: float) -> None:
        length = round(min(3.5, 3 * lasts) * RATE)
        start = round(at * RATE)
        if start >= n:
            return
        t = np.arange(length) / RATE
        pitch = root * 2 ** (semitones / 12)
        tone = np.zeros(length)
        for k in range(1, harmonics + 1):
            if k * pitch < RATE / 2:
                tone += np.sin(2 * np.pi * (k * pitch * t + rng.random())) * k**-bright * np.exp(-t * k / (2 * lasts))
        tone *= np.minimum(t / attack, 1) * np.exp(-t / lasts)
        stop = min(start + length, len(out))
        out[start:stop] += loud * tone[: stop - start]

    drums, melody = rng.random() < 0.5, rng.random() < 0.7
    for count, at in enumerate(np.arange(-rng.uniform(0, 4) * beat, n / RATE, beat)):
        if at < 0:
            continue
        if count % 4 == 0:
            degree = int(rng.integers(len(scale)))
            for step in (0, 2, 4):
                place = degree + step
                note(at, scale[place % len(scale)] + 12 * (place // len(scale)), 1.0)
        if melody and rng.random() < 0.6:
            note(at, 12 + scale[int(rng.integers(len(scale)))] + 12 * int(rng.integers(2)), rng.uniform(0.4, 1.2))
        if drums:
            start, length = round(at * RATE), round(0.12 * RATE)
            hit = rng.standard_normal(length) * np.exp(-np.arange(length) / (0.02 * RATE)) * rng.uniform(0.2, 1.0)
            out[start : start + length] += hit[: max(0, len(out) - start)]
    return _unit(out[:n])
