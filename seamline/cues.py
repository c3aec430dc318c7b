"""Cues of sound: what can be measured in it a hundred times a second, without having learnt any voice.

Ours. A network that is given spectra learns the few voices and rooms of its training by heart. What is measured here
changes where speech was laid in, synthesised or bent, whoever speaks: how bright and how noisy each band is, how peaked
the excitation behind the resonances (linear prediction; vocoders smear it), how steadily it repeats, how low the room
goes between words, how the bands' envelopes beat within a pitch period, and whether the same stretch is heard elsewhere
in the recording: nobody says a word twice alike, so what comes back within a few decibels was copied. ``LightCues``
(``encoders/light.py``) weighs them against the rest of the window.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

RATE = 16_000  # samples a second
HOP = 160  # samples: 10 ms
PER_TICK = 4  # rows of a tick of 40 ms
BANDS = 20  # mel bands whose level is measured
COPIED = (16, 32)  # rows that must agree to be called a copy
APART = 25  # rows that lie between a stretch and its copy, at least
ORDER = 18  # of the linear prediction
COUNT = BANDS + BANDS // 2 + 32  # cues in all

Reals = npt.NDArray[np.float64]
Cues = npt.NDArray[np.float32]  # (n, COUNT)

_QUARTERS = ((2, 32), (32, 96), (96, 160), (160, 256))  # bins of 31.25 Hz
_EDGES = (96, 128, 160, 192, 224, 240, 257)  # bins between which the spectrum's upper end may stop
_ENVELOPES = ((300, 1000), (1000, 2500), (2500, 4500), (4500, 7800))  # Hz


def cues(sound: npt.NDArray[Any]) -> Cues:
    """The cues of a sound (samples,), mono in [-1, 1] at ``RATE``: (samples / ``HOP``, ``COUNT``), finite.

    In order: level of ``BANDS`` mel bands (dB); the least of every second one within a quarter of a second; flatness of
    four bands; ripple of four bands about their smooth spectrum; gain of linear prediction, kurtosis, peak, middle and
    click of its residual, and how much worse the prediction of 20 ms before fits; how periodic, and at which pitch;
    spread and peak of the envelopes of four bands; five slopes of the upper spectrum; log distance (dB squared) of the
    most alike stretch of 160 and of 320 ms elsewhere; level against the median.
    """
    n = len(sound) // HOP
    if not n:
        return np.zeros((0, COUNT), np.float32)
    x = np.asarray(sound[: n * HOP], np.float64)
    power = np.abs(np.fft.rfft(_frames(x, 512, n) * _hann(512), axis=1)) ** 2  # (n, 257)
    level = _decibels(power @ _mel(BANDS, 512).T, 1e-8)
    whole, copied = _copies(x, n)
    parts = [
        level,
        _least(level[:, ::2]),
        *_shape(power),
        *_excitation(x, n),
        *_pitch(x, n),
        *_beat(x, n),
        _slopes(power),
        copied,
        whole - np.median(whole),
    ]
    return np.concatenate([part.reshape(n, -1) for part in parts], 1).astype(np.float32)


def coloured(rows: Cues, rng: np.random.Generator) -> Cues:
    """The cues as through another microphone: its gain drifts by about a decibel from one band to the next."""
    gain = np.cumsum(rng.standard_normal(BANDS)).astype(np.float32)
    rows = rows.copy()
    rows[:, :BANDS] += gain
    rows[:, BANDS : BANDS + BANDS // 2] += gain[::2]
    return rows


@cache
def _hann(size: int) -> Reals:
    return np.hanning(size)


def mel_triangles(bands: int, size: int, low: float = 0.0) -> Reals:
    """(bands, size / 2 + 1) triangles of height 1, equally spaced in mel from ``low`` (Hz) to half of ``RATE``."""
    ends = 2595 * np.log10(1 + np.array([low, RATE / 2]) / 700)
    edges = 700 * (10 ** (np.linspace(ends[0], ends[1], bands + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(size, 1 / RATE)[None]
    left, mid, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.asarray(np.maximum(0, np.minimum((bins - left) / (mid - left), (right - bins) / (right - mid))))


@cache
def _mel(bands: int, size: int) -> Reals:
    """The same from 60 Hz, each summing to one."""
    weight = mel_triangles(bands, size, 60.0)
    return np.asarray(weight / np.maximum(weight.sum(1, keepdims=True), 1e-9))


def _decibels(power: Reals, least: float) -> Reals:
    return np.asarray(10 * np.log10(power + least))


def _frames(x: Reals, size: int, n: int, before: int = 0) -> Reals:
    """(n, before + size): ``size`` samples around each hop, and those just before them; zeros beyond the ends."""
    padded = np.pad(x, (size // 2 - HOP // 2 + before, size))
    return np.lib.stride_tricks.sliding_window_view(padded, size + before)[::HOP][:n]


def _least(level: Reals) -> Reals:
    """The 15th percentile over a quarter of a second to either side."""
    padded = np.pad(level, ((APART, APART), (0, 0)), "edge")
    view = np.lib.stride_tricks.sliding_window_view(padded, 2 * APART + 1, axis=0)
    return np.partition(view, 7, axis=2)[..., 7]  # of 51


def _shape(power: Reals) -> list[Reals]:
    """Flatness (log of geometric over arithmetic mean), and deviation of the log spectrum from its smooth course."""
    log = np.log(power + 1e-10)
    sums = np.cumsum(np.pad(log, ((0, 0), (5, 4))), 1)
    ripple = log - (sums[:, 9:] - sums[:, :-9]) / 9
    flat = [log[:, a:b].mean(1) - np.log(power[:, a:b].mean(1) + 1e-10) for a, b in _QUARTERS]
    rough = [ripple[:, max(a, 4) : min(b, 250)].std(1) for a, b in _QUARTERS]
    return [*flat, *rough]


def _excitation(x: Reals, n: int) -> list[Reals]:
    """What linear prediction (autocorrelation method, 30 ms) leaves."""
    size = 480
    spectrum = np.abs(np.fft.rfft(_frames(x, size, n) * _hann(size), 1024, axis=1)) ** 2
    r = np.fft.irfft(spectrum, axis=1)[:, : ORDER + 1].copy()
    r[:, 0] = r[:, 0] * 1.001 + 1e-7
    index = np.abs(np.arange(ORDER)[:, None] - np.arange(ORDER)[None])
    a = np.asarray(np.linalg.solve(r[:, index], r[:, 1:, None])[..., 0], np.float64)  # (n, ORDER)
    gain = np.log(np.maximum(r[:, 0] - (a * r[:, 1:]).sum(1), 1e-12) / r[:, 0])
    frames = _frames(x, size, n, ORDER)
    left, late = _residual(frames, a), _residual(frames, a[np.maximum(np.arange(n) - 2, 0)])
    square = left**2
    mean = square.mean(1) + 1e-14
    parts = square.reshape(n, 48, 10).mean(2)
    middle = slice(size // 2 - HOP // 2, size // 2 + HOP // 2)
    return [
        gain,
        np.log(((square**2).mean(1) + 1e-26) / mean**2),
        np.log(parts.max(1) / mean + 1e-6),
        np.log(np.median(parts, 1) / mean + 1e-6),
        np.log(np.abs(left[:, middle]).max(1) / np.sqrt(mean) + 1e-6),
        np.log(((late**2).mean(1) + 1e-13) / (mean + 1e-13)),
    ]


def _residual(frames: Reals, a: Reals) -> Reals:
    """Frames (n, ORDER + size) less what ``a`` (n, ORDER) predicts of each sample from those before it: (n, size)."""
    left = frames[:, ORDER:].copy()
    for k in range(ORDER):
        left -= a[:, k : k + 1] * frames[:, ORDER - 1 - k : ORDER - 1 - k + left.shape[1]]
    return left


def _pitch(x: Reals, n: int) -> list[Reals]:
    """The highest autocorrelation between 67 and 400 Hz, and the log of that pitch over 120 Hz."""
    spectrum = np.abs(np.fft.rfft(_frames(x, 640, n) * _hann(640), 2048, axis=1)) ** 2
    r = np.fft.irfft(spectrum, axis=1)[:, :240]
    r /= np.maximum(r[:, :1], 1e-9)
    lag = 40 + r[:, 40:].argmax(1)
    return [r[np.arange(n), lag], np.log(RATE / lag / 120)]


def _beat(x: Reals, n: int) -> list[Reals]:
    """Of the log envelope of each band in steps of 1 ms over 30 ms: its deviation, and its peak over its mean."""
    spectrum, at = np.fft.rfft(x), np.fft.rfftfreq(len(x), 1 / RATE)
    out: list[Reals] = []
    for low, high in _ENVELOPES:
        band = np.fft.irfft(spectrum * ((at >= low) & (at < high)), n=len(x))
        envelope = np.pad(np.log((band**2).reshape(-1, 16).mean(1) + 1e-9), (10, 30), "edge")
        view = np.lib.stride_tricks.sliding_window_view(envelope, 30)[::10][:n]
        out += [view.std(1), view.max(1) - view.mean(1)]
    return out


def _slopes(power: Reals) -> Reals:
    steps = [power[:, a:b].mean(1) + 1e-9 for a, b in pairwise(_EDGES)]
    return np.asarray(np.log(np.stack(steps[1:], 1) / np.stack(steps[:-1], 1)))


def _copies(x: Reals, n: int) -> tuple[Reals, Reals]:
    """The level of each row (dB), and the log of how far its most alike stretch lies, for every length: (n,), (n, 2).

    Stretches are compared by the log spectrum of 64 mel bands, a difference of colour that is the same throughout
    taken out; two products of matrices give all pairs at once. Of the stretches that cover a row, the best one counts.
    """
    power = np.abs(np.fft.rfft(_frames(x, 1024, n) * _hann(1024), axis=1)) ** 2
    whole = _decibels(power.mean(1), 1e-12)
    seen = np.maximum(_decibels(power @ _mel(64, 1024).T, 1e-9), whole.max() - 75)
    seen -= seen.mean(0)
    out = np.full((n, len(COPIED)), np.log(400.1))
    if n <= APART:
        return whole, out
    rows = _diagonals(_squares(seen.astype(np.float32)))  # (n, n - APART), row i against row i + APART + d
    sums = np.cumsum(rows, 0, dtype=np.float64)
    run = np.cumsum(np.pad(seen, ((1, 0), (0, 0))), 0)
    for column, length in enumerate(COPIED):
        count = n - length + 1
        if count <= APART:
            continue
        far = sums[length - 1 :, : count - APART].copy()
        far[1:] -= sums[:-length, : count - APART]
        far /= length
        far -= _diagonals(_squares((run[length:] - run[:-length]) / length).astype(np.float32))
        far[np.arange(count)[:, None] + np.arange(count - APART) >= count - APART] = np.inf
        best = far.min(1)
        other = np.full((count, 2 * count), np.float32(np.inf))  # the same, by the later of the two
        _slanted(other)[:, : count - APART] = far
        best = np.minimum(best, other[:, :count].min(0))
        padded = np.pad(best, length - 1, constant_values=np.inf)
        cover = np.lib.stride_tricks.sliding_window_view(padded, length).min(1)
        out[:, column] = np.log(np.clip(cover, 0, 400) + 0.1)
    return whole, out


def _squares(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mean squared difference of all pairs of rows: (n, C) to (n, n)."""
    power = (rows**2).sum(1)
    return np.asarray((power[:, None] + power[None] - 2 * rows @ rows.T) / rows.shape[1])


def _diagonals(square: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(n, n) to (n, n - APART): entry (i, d) is (i, i + APART + d), or 0 where there is none."""
    n = len(square)
    wide = np.zeros((n, 2 * n), square.dtype)
    wide[:, :n] = square
    return _slanted(wide)[:, : n - APART]


def _slanted(wide: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view of (n, 2 n) whose entry (i, d) is (i, i + APART + d): (n, n - APART)."""
    n = len(wide)
    row, column = wide.strides
    return np.lib.stride_tricks.as_strided(wide[:, APART:], (n, n - APART), (row + column, column))
