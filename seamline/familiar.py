"""Is this input like anything the model knows? A few plain numbers about a photo or a sound, and how far they lie out.

A detector gives a probability for whatever it is shown, a page of text too. So `seamline calibrate` describes the files
it fits a model on by cheap features of their content, none of them a trace of forgery, and keeps their mean, their
covariance and a distance (Mahalanobis, 1936) that a stated share of these files exceeds. What lies farther out is
unfamiliar, and gets no verdict. A few rules, used on unfamiliar input only, give the reason a name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

PHOTO = (
    "flat",  # square root of the share of 8 x 8 blocks whose luma has a range of at most 1
    "one colour",  # square root of the share of pixels in the fullest of 512 bins of colour
    "colours",  # entropy of these bins, bits
    "noise",  # log2 of the median standard deviation in 3 x 3 pixels, grey levels
    "smooth",  # log2 of the mean squared difference at a distance of 1 pixel over that at 2
    "coarse",  # the same at 4 over 8
    "tails",  # log2 of the kurtosis of differences at 1 pixel
)
SOUND = (
    "range",  # of the level of 25 ms frames, 10th to 90th percentile, decibels
    "rhythm",  # log2 of the modulation of the level at 2 to 8 Hz, where syllables are, over that at 8 to 20 Hz
    "voiced",  # share of the loud frames with a clear pitch of 70 to 400 Hz
    "pitch",  # interquartile range of that pitch, octaves
    "centre",  # mean of the centre of the spectrum in the loud frames, log2 hertz
    "change",  # standard deviation of that centre over the loud frames, octaves
    "flatness",  # median flatness of the spectrum below 4 kHz in the loud frames, log2
)
SIDE = 8  # of a block, pixels: that of JPEG
MOST_PIXELS = 2_000_000  # of a larger photo, bands of rows spread evenly are looked at
SHRINK = 0.1  # of the covariance, towards its diagonal: few files, many features
FOLDS = 10
VOICED = 0.1  # share of the loud frames that have a pitch, below which a sound holds no voice


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What files of one kind look like: see :func:`fit`. It is stored with the weights as plain numbers."""

    features: tuple[str, ...]  # ``PHOTO`` or ``SOUND``
    mean: Floats  # (d,)
    precision: Floats  # (d, d) inverse of the covariance
    limit: float  # distance above which an input is unfamiliar
    rate: float  # share of the files that this limit was fitted to call unfamiliar
    files: int  # it rests on

    def distance(self, features: Floats) -> float:
        """The Mahalanobis distance of the features (d,) of one input."""
        away = features - self.mean
        return float(np.sqrt(away @ self.precision @ away))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, six digits of each."""
        numbers = {name: _rounded(getattr(self, name)) for name in ("mean", "precision", "limit")}
        return {"features": list(self.features), **numbers, "rate": self.rate, "files": self.files}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Familiarity:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: the features are not those that are computed here, or the numbers are not as many as they.
        """
        features = tuple(data["features"])
        mean, precision = np.array(data["mean"], float), np.array(data["precision"], float)
        if features not in (PHOTO, SOUND):
            raise ValueError(f"familiarity of unknown features {', '.join(map(str, features))[:200]}")
        if mean.shape != (len(features),) or precision.shape != (len(features),) * 2:
            raise ValueError(f"familiarity of {len(features)} features with a mean of shape {mean.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(precision).all()):
            raise ValueError("familiarity with numbers that are not finite")
        return cls(features, mean, precision, float(data["limit"]), float(data["rate"]), int(data["files"]))


def fit(names: tuple[str, ...], features: Sequence[Floats], groups: Sequence[str], rate: float) -> Familiarity:
    """Familiarity with files whose features (d,) are given.

    The limit is the distance that a share of ``rate`` exceeds when each tenth of the groups is measured against the
    others: files of a camera or a speaker that the fit has not seen.

    Raises:
        ValueError: fewer than five files a feature.
    """
    x = np.array(features, float).reshape(len(features), len(names))
    if len(x) < 5 * len(names):
        raise ValueError(f"{len(x)} files are too few to describe by {len(names)} features")
    fold = np.unique(list(groups), return_inverse=True)[1] % FOLDS
    distances = np.empty(len(x))
    for part in np.unique(fold):
        seen = x[fold != part] if (fold != part).any() else x
        mean, precision = _normal(seen)
        away = x[fold == part] - mean
        distances[fold == part] = np.sqrt(np.einsum("ni,ij,nj->n", away, precision, away))
    limit = float(np.quantile(distances, 1 - rate, method="higher"))
    mean, precision = _normal(x)
    return Familiarity(names, mean, precision, limit, rate, len(x))


def _normal(x: Floats) -> tuple[Floats, Floats]:
    """Median (d,) and inverse covariance (d, d) of features (n, d)."""
    covariance = np.atleast_2d(np.cov(x, rowvar=False)) + 1e-6 * np.eye(x.shape[1])
    covariance = (1 - SHRINK) * covariance + SHRINK * np.diag(np.diag(covariance))
    precision: Floats = np.linalg.inv(covariance).astype(np.float64)
    return np.median(x, axis=0), precision


def _rounded(values: Any) -> Any:
    return json.loads(json.dumps(np.asarray(values).tolist()), parse_float=lambda text: float(f"{float(text):.6g}"))


def photo(rgb: npt.NDArray[np.uint8]) -> Floats:
    """The features ``PHOTO`` of a picture (H, W, 3) uint8 of at least 16 pixels a side."""
    rgb = _part(rgb)
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    height, width = (side // SIDE * SIDE for side in luma.shape)
    blocks = luma[:height, :width].reshape(height // SIDE, SIDE, width // SIDE, SIDE)
    flat = np.mean(blocks.max((1, 3)) - blocks.min((1, 3)) <= 1)
    bins = rgb.astype(np.uint16) >> 5
    share = np.bincount((bins[..., 0] << 6 | bins[..., 1] << 3 | bins[..., 2]).ravel(), minlength=512) / luma.size
    grey = luma.astype(np.float32)
    variance = cv2.blur(grey * grey, (3, 3)) - cv2.blur(grey, (3, 3)) ** 2
    noise = np.sqrt(max(0.0, float(np.median(variance[::2, ::2]))))
    step = {lag: _square(grey[:, lag:] - grey[:, :-lag]) + _square(grey[lag:] - grey[:-lag]) for lag in (1, 2, 4, 8)}
    row = grey[:, 1:] - grey[:, :-1]
    kurtosis = float(np.mean(row**4)) / max(_square(row) ** 2, 1e-6)
    return np.array(
        [
            np.sqrt(flat),
            np.sqrt(share.max()),
            -np.sum(share[share > 0] * np.log2(share[share > 0])),
            np.log2(noise + 0.25),
            np.log2((step[1] + 0.1) / (step[2] + 0.1)),
            np.log2((step[4] + 0.1) / (step[8] + 0.1)),
            np.log2(kurtosis + 1),
        ]
    )


def sound(wave: npt.NDArray[np.float32], rate: int) -> Floats | None:
    """The features ``SOUND`` of a sound (n,) in [-1, 1]; ``None`` without half a second of it that holds a voice."""
    hop, size = rate // 100, rate // 40  # 10 ms, 25 ms
    if len(wave) < rate // 2:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop].astype(np.float32)  # (k, size)
    level = 10 * np.log10(np.mean(np.square(frames), 1) + 1e-10)  # (k,) decibels of full scale
    loud = level > max(np.quantile(level, 0.95) - 25, -60)
    if loud.sum() < 50:
        return None
    clear, pitch = _pitch(wave, rate, np.flatnonzero(loud) * hop)
    if clear.mean() < VOICED:
        return None
    span = np.quantile(level[loud | (level > -60)], [0.1, 0.9])
    envelope = np.abs(np.fft.rfft((level.clip(level.max() - 50) - level.mean()) * np.hanning(len(level)))) ** 2
    hertz = np.arange(len(envelope)) * 100 / len(level)
    slow, fast = (envelope[(hertz >= low) & (hertz < high)].sum() + 1 for low, high in ((2, 8), (8, 20)))
    power = np.abs(np.fft.rfft(frames[loud] * np.hanning(size).astype(np.float32), axis=1)) ** 2 + 1e-12  # (l, bins)
    pitches = np.arange(power.shape[1]) * rate / size
    band = (pitches >= 80) & (pitches <= 7600)
    centre = np.log2(power[:, band] @ pitches[band] / power[:, band].sum(1))  # (l,)
    low = power[:, (pitches >= 80) & (pitches <= 4000)]
    flatness = np.log2(np.exp(np.mean(np.log(low), 1)) / np.mean(low, 1))
    spread = np.subtract(*np.quantile(np.log2(pitch[clear]), [0.75, 0.25]))
    return np.array(
        [
            span[1] - span[0],
            np.log2(slow / fast),
            clear.mean(),
            spread,
            centre.mean(),
            centre.std(),
            np.median(flatness),
        ]
    )


def _pitch(
    wave: npt.NDArray[np.float32], rate: int, starts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Of every fourth of the frames that begin at these samples: whether it has a clear pitch, and the pitch, hertz."""
    size = rate // 20  # 50 ms: three periods of the lowest voice
    starts = starts[starts + size <= len(wave)][::4]
    frames = wave[starts[:, None] + np.arange(size)] if len(starts) else np.zeros((1, size), np.float32)
    frames = (frames - frames.mean(1, keepdims=True)) * np.hanning(size).astype(np.float32)
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(size), 2 * size)) ** 2)[:size]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2 * size)) ** 2)[:, :size]
    correlation = correlation / (correlation[:, :1] + 1e-9) / (window / window[0])
    first, last = rate // 400, rate // 70
    best = first + correlation[:, first : last + 1].argmax(1)
    # At the shortest lag it is no period but the slow decay of rumble.
    return (correlation[np.arange(len(best)), best] > 0.6) & (best > first), rate / best.astype(np.float64)


def _part(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Bands of 64 rows spread evenly over a large photo, on the grid of blocks; a smaller one as it is."""
    height, width = rgb.shape[:2]
    keep, bands = max(1, MOST_PIXELS // (64 * width)), height // 64
    if keep >= bands:
        return rgb
    tops = [64 * (band * bands // keep) for band in range(keep)]
    return np.concatenate([rgb[top : top + 64] for top in tops])


def _square(values: npt.NDArray[np.float32]) -> float:
    return float(np.mean(np.square(values)))


def name_photo(features: Floats) -> str:
    """Why an unfamiliar photo with these features is so: ``flat``, ``noise``, ``graphics`` or ``unfamiliar``."""
    at = dict(zip(PHOTO, features, strict=True))
    if at["coarse"] > -0.15 and at["noise"] > 1 and at["flat"] < 0.4:
        return "noise"
    if at["one colour"] > 0.995 or at["flat"] > 0.995:
        return "flat"
    if at["flat"] > 0.6 or at["one colour"] > 0.85 or at["noise"] < -1:
        return "graphics"
    return "unfamiliar"
