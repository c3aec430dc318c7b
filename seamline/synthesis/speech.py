"""Forged speech: what is laid into a recording, and the seams it leaves.

Sounds are mono float32 in [-1, 1] at :data:`RATE`. Every transform gives a sound of the same length; :func:`lay`
puts a piece into a recording and changes nothing outside it.

Sources: Griffin and Lim, "Signal estimation from modified short-time Fourier transform" (1984); source-filter
vocoders after Atal and Hanauer (linear prediction, 1971) and Morise et al. (WORLD, 2016: pulse and noise through a
smoothed spectrum); the phase vocoder after Flanagan and Golden (1966).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..cues import mel_triangles

Sound = npt.NDArray[np.float32]  # (n,) mono in [-1, 1]
Span = tuple[int, int]  # samples or frames, half-open

RATE = 16_000  # samples a second
SIZE, HOP = 512, 128  # samples: window and step of the spectra here
CARES = ("crude", "plain", "careful")  # how well a seam is hidden
TICK = 160  # samples: step at which voice is sought


# ---------------------------------------------------------------------------------------------------------------
# Spectra
# ---------------------------------------------------------------------------------------------------------------


@cache
def _window(size: int) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size))  # periodic Hann


def _framed(sound: npt.NDArray[Any], size: int, hop: int) -> npt.NDArray[np.float64]:
    """(frames, size) windowed pieces; the sound is padded so that every sample is covered by size / hop of them."""
    count = -(-len(sound) // hop) + size // hop - 1
    padded = np.zeros((count - 1) * hop + size)
    padded[size - hop : size - hop + len(sound)] = sound
    view = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    return np.asarray(view * _window(size))


def stft(sound: npt.NDArray[Any], size: int = SIZE, hop: int = HOP) -> npt.NDArray[np.complex128]:
    """(frames, size / 2 + 1) spectrum under a Hann window; ``hop`` divides ``size``."""
    return np.asarray(np.fft.rfft(_framed(sound, size, hop)))


def istft(spectrum: npt.NDArray[Any], length: int, size: int = SIZE, hop: int = HOP) -> npt.NDArray[np.float64]:
    """The sound of ``length`` samples whose spectrum is nearest in the least squares sense (Griffin and Lim)."""
    pieces = np.fft.irfft(spectrum, n=size) * _window(size)
    count, parts = len(pieces), size // hop
    out, weight = np.zeros((count + parts - 1, hop)), np.zeros((count + parts - 1, hop))
    square = (_window(size) ** 2).reshape(parts, hop)
    for part in range(parts):
        out[part : part + count] += pieces[:, part * hop : (part + 1) * hop]
        weight[part : part + count] += square[part]
    flat = (out / np.maximum(weight, 1e-6)).reshape(-1)
    return np.asarray(flat[size - hop : size - hop + length])


@cache
def _mel(bands: int) -> npt.NDArray[np.float64]:
    """(bands, bins) triangles, equally spaced in mel."""
    return mel_triangles(bands, SIZE)


@cache
def _unmel(bands: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.pinv(_mel(bands)))


def level(sound: npt.NDArray[Any]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) if len(sound) else 0.0


def _as_loud(sound: npt.NDArray[Any], like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(sound * (level(like) / max(level(sound), 1e-7)))


# ---------------------------------------------------------------------------------------------------------------
# The same words, synthesised again or bent
# ---------------------------------------------------------------------------------------------------------------


def griffin_lim(sound: Sound, rng: np.random.Generator) -> Sound:
    """Mel spectrogram and back, the phase invented: what spectrogram-to-wave generators leave."""
    bands = int(rng.choice((40, 64, 80)))
    magnitude = np.maximum(0, (np.abs(stft(sound)) @ _mel(bands).T) @ _unmel(bands).T)
    phase = np.exp(2j * np.pi * rng.random(magnitude.shape))
    out = istft(magnitude * phase, len(sound))
    for _ in range(int(rng.integers(3, 20))):
        again = stft(out)
        out = istft(magnitude * again / np.maximum(np.abs(again), 1e-9), len(sound))
    return _as_loud(out, sound).astype(np.float32)


def pitch_track(sound: Sound) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Pitch in hertz and whether there is one, every 10 ms, by normalised autocorrelation of 40 ms."""
    frames = _framed(sound, 640, 160)
    spectrum = np.abs(np.fft.rfft(frames, n=2048)) ** 2
    correlation = np.fft.irfft(spectrum)[:, :400]
    correlation /= np.maximum(correlation[:, :1], 1e-9)
    short, long = RATE // 400, RATE // 70
    lags = short + np.argmax(correlation[:, short:long], 1)
    voiced = (correlation[np.arange(len(lags)), lags] > 0.4) & (np.abs(frames).max(1) > 1e-3)
    pitch = np.where(voiced, RATE / lags, np.nan)
    known = np.flatnonzero(voiced)
    if not len(known):
        return np.full(len(lags), 120.0), voiced
    filled = np.interp(np.arange(len(lags)), known, pitch[known])
    return filled[1 : 1 + len(sound) // 160 + 1], voiced[1 : 1 + len(sound) // 160 + 1]


def _envelope(magnitude: npt.NDArray[Any], keep: int) -> npt.NDArray[np.float64]:
    """Spectral envelope by cepstral smoothing, (frames, bins): the first ``keep`` coefficients of 257."""
    cepstrum = np.fft.irfft(np.log(magnitude + 1e-5))
    cepstrum[:, keep : cepstrum.shape[1] - keep + 1] = 0
    return np.asarray(np.exp(np.fft.rfft(cepstrum).real))


def _lpc_envelope(sound: Sound, order: int) -> npt.NDArray[np.float64]:
    """Spectral envelope by linear prediction, (frames, bins)."""
    power = np.abs(np.fft.rfft(_framed(sound, SIZE, HOP), n=2 * SIZE)) ** 2
    r = np.fft.irfft(power)[:, : order + 1]
    r[:, 0] = r[:, 0] * 1.0005 + 1e-6
    index = np.abs(np.arange(order)[:, None] - np.arange(order)[None])
    a = np.linalg.solve(r[:, index], r[:, 1:, None])[..., 0]
    error = np.maximum(r[:, 0] - (a * r[:, 1:]).sum(1), 1e-9)
    whitening = np.fft.rfft(np.concatenate([np.ones((len(a), 1)), -a], 1), n=SIZE)
    return np.asarray(np.sqrt(error)[:, None] / np.maximum(np.abs(whitening), 1e-4))


def source_filter(sound: Sound, rng: np.random.Generator) -> Sound:
    """Pulses and noise through a smoothed spectrum: a classical vocoder, sometimes with its own pitch."""
    pitch, voiced = pitch_track(sound)
    roll = rng.random()
    if roll < 0.2:  # monotone
        pitch = np.full_like(pitch, np.median(pitch))
    elif roll < 0.5:
        pitch = pitch * rng.uniform(0.85, 1.2)
    n = len(sound)
    at = np.arange(n) / TICK
    curve = np.interp(at, np.arange(len(pitch)), pitch)
    buzz = np.interp(at, np.arange(len(pitch)), voiced.astype(float))
    cycles = np.floor(np.cumsum(curve / RATE) + rng.random())
    pulses = np.diff(cycles, prepend=cycles[:1]) * np.sqrt(RATE / curve)
    breath = rng.uniform(0.05, 0.35)
    excitation = buzz * pulses + (1 - buzz * (1 - breath)) * rng.standard_normal(n)
    if rng.random() < 0.5:
        shape = _lpc_envelope(sound, int(rng.integers(10, 22)))
    else:
        shape = _envelope(np.abs(stft(sound)), int(rng.integers(18, 48)))
    return _as_loud(istft(stft(excitation) * shape, n), sound).astype(np.float32)


def vocode(sound: Sound, rng: np.random.Generator) -> Sound:
    """The same words from a vocoder."""
    return (griffin_lim if rng.random() < 0.5 else source_filter)(sound, rng)


def stretch(sound: npt.NDArray[Any], factor: float) -> npt.NDArray[np.float64]:
    """Longer by ``factor`` at the same pitch (phase vocoder)."""
    spectrum = stft(sound)
    length = round(len(sound) * factor)
    at = np.minimum(np.arange(-(-length // HOP) + SIZE // HOP - 1) / factor, len(spectrum) - 1.001)
    low = at.astype(int)
    part = (at - low)[:, None]
    magnitude = (1 - part) * np.abs(spectrum[low]) + part * np.abs(spectrum[low + 1])
    expected = 2 * np.pi * HOP * np.arange(SIZE // 2 + 1) / SIZE
    advance = np.angle(spectrum[low + 1]) - np.angle(spectrum[low]) - expected
    advance = expected + advance - 2 * np.pi * np.round(advance / (2 * np.pi))
    phase = np.angle(spectrum[:1]) + np.cumsum(np.concatenate([np.zeros((1, SIZE // 2 + 1)), advance[:-1]]), 0)
    return istft(magnitude * np.exp(1j * phase), length)


def resample(sound: npt.NDArray[Any], length: int) -> npt.NDArray[np.float64]:
    """To ``length`` samples, band-limited, by its Fourier series."""
    spectrum = np.fft.rfft(sound)
    out = np.zeros(length // 2 + 1, complex)
    keep = min(len(spectrum), len(out))
    out[:keep] = spectrum[:keep]
    return np.asarray(np.fft.irfft(out, n=length) * (length / max(len(sound), 1)))


def shift_pitch(sound: Sound, rng: np.random.Generator) -> Sound:
    """Another pitch, other formants, or both."""
    out: npt.NDArray[Any] = sound.astype(np.float64)
    what = rng.choice(("pitch", "formants", "both"))
    if what != "formants":
        factor = 2 ** (rng.choice((-1, 1)) * rng.uniform(1.5, 5) / 12)
        out = resample(stretch(out, factor), len(sound))
    if what != "pitch":
        factor = rng.uniform(1.1, 1.3) ** rng.choice((-1, 1))
        spectrum = stft(out)
        shape = _envelope(np.abs(spectrum), 32)
        bins = np.arange(shape.shape[1])
        moved = np.clip(bins / factor, 0, bins[-1])
        low = np.minimum(moved.astype(int), bins[-1] - 1)
        part = moved - low
        bent = np.exp((1 - part) * np.log(shape[:, low]) + part * np.log(shape[:, low + 1]))
        out = istft(spectrum * np.clip(bent / shape, 0.05, 20), len(sound))
    return _as_loud(out, sound).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------
# Where there is voice
# ---------------------------------------------------------------------------------------------------------------


def voice(sound: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """(n / 160,) whether there is sound well above the floor, every 10 ms; all false for a silent track."""
    count = len(sound) // TICK
    power = np.square(np.asarray(sound[: count * TICK], np.float64).reshape(count, TICK)).mean(1)
    decibels = 10 * np.log10(power + 1e-12)
    if not count or np.percentile(decibels, 95) < -55:
        return np.zeros(count, np.bool_)
    floor = np.percentile(decibels, 10)
    limit = max(min(floor + 9, np.percentile(decibels, 95) - 12), -60)
    loud = np.convolve(decibels > limit, np.ones(9) / 9, "same")
    return np.asarray(loud > 0.4)


def is_speech(sound: npt.NDArray[Any]) -> bool:
    """Whether a sound is likely to be somebody speaking: loud enough, with pauses (music has few) and a pitch.

    Measured: the 95th lies at least 21 dB above the 10th percentile of 10 ms levels in read speech and interviews, at
    most 15 dB in the music under films.
    """
    count = len(sound) // TICK
    if count < 50 or voice(sound).mean() < 0.15:
        return False
    power = np.square(np.asarray(sound[: count * TICK], np.float64).reshape(count, TICK)).mean(1)
    low, high = np.percentile(10 * np.log10(power + 1e-9), (10, 95))
    return bool(high - low >= 19 and pitch_track(np.asarray(sound))[1].mean() > 0.3)


def quiet_point(sound: npt.NDArray[Any], at: int, reach: int = 1280) -> int:
    """The sample near ``at`` where the sound is least, on a zero crossing: where a careful hand cuts."""
    low, high = max(0, at - reach), min(len(sound), at + reach)
    if high - low < 2 * TICK:
        return at
    power = np.convolve(np.square(np.asarray(sound[low:high], np.float64)), np.ones(TICK), "same")
    at = low + TICK // 2 + int(np.argmin(power[TICK // 2 : -(TICK // 2)]))
    low, high = max(1, at - 80), min(len(sound), at + 80)
    sign = np.signbit(sound[low - 1 : high])
    crossings = low + np.flatnonzero(sign[1:] != sign[:-1])
    return int(crossings[np.argmin(np.abs(crossings - at))]) if len(crossings) else at


# ---------------------------------------------------------------------------------------------------------------
# Seams
# ---------------------------------------------------------------------------------------------------------------


def room_tone(sound: npt.NDArray[Any], length: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Noise with the spectrum of the quietest tenth of a recording."""
    magnitude = np.abs(stft(sound))
    power = (magnitude**2).sum(1)
    lowest = magnitude[np.argsort(power)[: max(4, len(power) // 10)]]
    shape = np.sqrt((lowest**2).mean(0))
    noise = stft(rng.standard_normal(length))
    return istft(noise * shape / np.sqrt(SIZE * 3 / 8), length)


def _same_colour(piece: npt.NDArray[Any], host: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The piece with the host's long-term spectrum, smoothed over about a third of an octave, within 12 dB."""
    ours, theirs = (np.sqrt((np.abs(stft(s)) ** 2).mean(0)) + 1e-6 for s in (piece, host))
    gain = np.log(theirs / ours)
    bins = np.arange(len(gain))
    wide = np.maximum(2, bins // 4)
    sums = np.concatenate([[0], np.cumsum(gain)])
    low, high = np.maximum(0, bins - wide), np.minimum(len(gain), bins + wide + 1)
    smooth = np.clip((sums[high] - sums[low]) / (high - low), -1.4, 1.4)
    return istft(stft(piece) * np.exp(smooth), len(piece))


def lay(sound: Sound, start: int, piece: npt.NDArray[Any], rng: np.random.Generator, care: str) -> Sound:
    """The recording with ``piece`` in place of what was there; every sample outside stays what it was.

    Args:
        sound: the recording.
        start: first sample replaced.
        piece: what replaces it; ends inside the recording.
        rng: source of every choice.
        care: of :data:`CARES`: ``crude`` cuts hard and jumps in level, ``plain`` fades a little and is about as loud,
            ``careful`` fades in and out over 8 to 40 ms, matches loudness and colour, and adds the room's own noise.
    """
    stop = start + len(piece)
    was = sound[start:stop].astype(np.float64)
    host = sound[max(0, start - 3 * RATE) : stop + 3 * RATE]
    new = np.asarray(piece, np.float64)
    spoken = _spoken_level(host)
    if care == "careful":
        if rng.random() < 0.7:
            new = _same_colour(new, host)
        new = new * (spoken / max(_spoken_level(new), 1e-6))
        if rng.random() < 0.7:
            new = new + room_tone(sound, len(new), rng)
        fade = round(rng.uniform(0.008, 0.04) * RATE)
    elif care == "plain":
        new = new * (spoken / max(_spoken_level(new), 1e-6)) * 10 ** (rng.uniform(-2, 2) / 20)
        fade = round(rng.uniform(0.001, 0.006) * RATE)
    else:
        jump = rng.uniform(2, 8) * rng.choice((-1, 1))
        new = new * (spoken / max(_spoken_level(new), 1e-6)) * 10 ** (jump / 20)
        fade = 0
    fade = min(fade, len(new) // 3)
    if fade:
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)
        weight = np.ones(len(new))
        if start:
            weight[:fade] = ramp
        if stop < len(sound):
            weight[-fade:] = ramp[::-1]
        new = weight * new + (1 - weight) * was
    out = sound.copy()
    out[start:stop] = np.clip(new, -1, 1)
    return out


def _spoken_level(sound: npt.NDArray[Any]) -> float:
    """Loudness of the louder half of 10 ms ticks."""
    count = max(1, len(sound) // TICK)
    if len(sound) < TICK:
        return level(sound)
    power = np.square(np.asarray(sound[: count * TICK], np.float64).reshape(count, TICK)).mean(1)
    return float(np.sqrt(np.sort(power)[count // 2 :].mean()))
