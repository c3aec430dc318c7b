"""A talking clip from one photograph and no voice: for demonstrations that belong to nobody.

The voice is a formant synthesiser (pulses and noise through resonances, after Klatt, "Software for a cascade/parallel
formant synthesizer", 1980). The face is a photograph whose head sways, whose eyes blink and whose jaw follows the
vowels, by warping. Such a clip is synthetic from end to end, however little of it is changed afterwards.

``python -m seamline.synthesis.talker PHOTO OUT`` writes one clip as made and one with a forged span, and the truth;
PHOTO is the astronaut of scikit-image (``skimage/data/astronaut.png``; NASA, public domain).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..media import Image, open_media
from .audio_visual import FPS, STEP, Donors, Footage, Frames, Lengths, Pixels, forge_clip
from .clip_file import ClipChain
from .clips import track_face
from .speech import HOP, RATE, SIZE, Sound, istft, level, stft


class Phone(NamedTuple):
    """How a speech sound is made: resonances in hertz, voice and noise in [0, 1], where the noise is, its length."""

    f1: float
    f2: float
    f3: float
    voice: float = 1.0
    noise: float = 0.0
    centre: float = 4000.0  # hertz
    seconds: float = 0.09


PHONES = {
    "iy": Phone(270, 2290, 3010, seconds=0.11),
    "ih": Phone(390, 1990, 2550, seconds=0.08),
    "eh": Phone(530, 1840, 2480),
    "ae": Phone(660, 1720, 2410, seconds=0.12),
    "ah": Phone(640, 1190, 2390, seconds=0.08),
    "aa": Phone(730, 1090, 2440, seconds=0.11),
    "ao": Phone(570, 840, 2410, seconds=0.13),
    "uh": Phone(440, 1020, 2240),
    "uw": Phone(300, 870, 2240, seconds=0.12),
    "er": Phone(490, 1350, 1690, seconds=0.13),
    "m": Phone(250, 1000, 2200, 0.35, seconds=0.07),
    "n": Phone(250, 1500, 2500, 0.35, seconds=0.07),
    "ng": Phone(250, 2000, 2700, 0.35, seconds=0.08),
    "l": Phone(360, 1100, 2600, 0.6, seconds=0.06),
    "r": Phone(350, 1100, 1500, 0.6, seconds=0.06),
    "w": Phone(300, 650, 2200, 0.5, seconds=0.06),
    "h": Phone(500, 1500, 2500, 0.0, 0.25, 1800, 0.06),
    "s": Phone(300, 1600, 2600, 0.0, 0.55, 6000, 0.1),
    "z": Phone(300, 1600, 2600, 0.35, 0.3, 5800, 0.08),
    "sh": Phone(300, 1700, 2500, 0.0, 0.55, 3200, 0.11),
    "v": Phone(300, 1100, 2300, 0.4, 0.1, 4500, 0.06),
    "dh": Phone(300, 1300, 2500, 0.4, 0.1, 5000, 0.05),
    "b": Phone(250, 900, 2200, 0.12, 0.0, 1000, 0.06),
    "d": Phone(250, 1700, 2600, 0.12, 0.0, 4000, 0.05),
    "t*": Phone(300, 1700, 2600, 0.0, 0.5, 4500, 0.025),
    "d*": Phone(300, 1700, 2600, 0.3, 0.3, 4200, 0.015),
    "k*": Phone(300, 1900, 2500, 0.0, 0.45, 2200, 0.03),
    "-": Phone(400, 1500, 2500, 0.0, 0.0, 4000, 0.05),
    "_": Phone(450, 1500, 2500, 0.0, 0.0, 4000, 0.32),
}
SENTENCE = (  # hello, I am a drawing that moves; every word I say is made by a machine
    "_ h eh l ao uw _ aa iy ae m ah d d* r ao ih ng dh ae - t* m uw v z _ "
    "eh v r iy w er d d* aa iy s eh iy ih z m eh iy d d* b aa iy ah m ah sh iy n _"
)
OTHER = "_ m ae - k* s w eh l ao uw r ih ng s t* ih l d d* aa iy _ w eh r ah v iy l z ao - k* _"  # words to lay in


def say(
    phones: str | Sequence[str], rng: np.random.Generator, *, pitch: float = 185.0, tract: float = 1.12
) -> tuple[Sound, npt.NDArray[np.float64]]:
    """Speak.

    Args:
        phones: names of :data:`PHONES`; ``-`` is a stop's closure, ``_`` a pause.
        rng: of breath and unevenness.
        pitch: hertz on average.
        tract: factor on all resonances: above 1 for a shorter throat.

    Returns:
        The sound, and how far the jaw is open in [0, 1] at every step of HOP samples.
    """
    made = [PHONES[name] for name in (phones.split() if isinstance(phones, str) else phones)]
    steps = [max(2, round(p.seconds * rng.uniform(0.9, 1.15) * RATE / HOP)) for p in made]
    track = np.repeat(np.array([p[:6] for p in made]), steps, 0)  # (frames, 6)
    jaw = np.clip((track[:, 0] - 260) / 420, 0, 1) * (track[:, 3] > 0.5)
    formants = np.stack([_smooth(track[:, k], 3.0) for k in range(3)], 1) * tract
    voice, noise = _smooth(track[:, 3], 1.2), _smooth(track[:, 4], 0.8)
    n = len(track) * HOP
    at = np.arange(n) / HOP
    seconds = np.arange(n) / RATE
    fall = 1.12 - 0.22 * (seconds % 2.6) / 2.6  # every phrase falls
    sway = 1 + 0.05 * np.sin(2 * np.pi * 1.3 * seconds) + 0.012 * np.sin(2 * np.pi * 5.3 * seconds)
    wander = np.interp(at, np.arange(len(track)), _smooth(rng.normal(0, 0.05, len(track)), 2.0))
    cycles = np.cumsum(pitch * fall * sway * (1 + wander) / RATE)
    pulses = np.diff(np.floor(cycles), prepend=0) * (1 + 0.08 * rng.standard_normal(n)) * np.sqrt(RATE / pitch)
    breath = rng.standard_normal(n)
    hertz = np.fft.rfftfreq(SIZE, 1 / RATE)[None]
    tube = np.ones((len(track), SIZE // 2 + 1))
    places = [*formants.T, np.full(len(track), 3500 * tract), np.full(len(track), 4500 * tract)]
    for place, width in zip(places, (70, 100, 140, 220, 300), strict=True):
        f = place[:, None]
        tube *= f**2 / np.sqrt((f**2 - hertz**2) ** 2 + (width * hertz) ** 2 + 1)
    tube = tube / (1 + (hertz / 350) ** 1.3) * voice[:, None]
    hiss = noise[:, None] * np.exp(-(((hertz - track[:, 5:6]) / (0.35 * track[:, 5:6])) ** 2)) * 0.25
    spectra = (stft(pulses + 0.08 * breath), stft(rng.standard_normal(n)))
    frames = np.minimum(np.maximum(np.arange(len(spectra[0])) - 1, 0), len(track) - 1)
    sound = istft(spectra[0] * tube[frames], n) + istft(spectra[1] * hiss[frames], n)
    sound = _room(sound / max(level(sound), 1e-6) * 0.08, rng)
    return np.clip(sound, -1, 1).astype(np.float32), _smooth(jaw, 3.5)


def _smooth(values: npt.NDArray[Any], width: float) -> npt.NDArray[np.float64]:
    reach = int(4 * width) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return np.convolve(np.pad(values, reach, "edge"), kernel / kernel.sum(), "valid")


def _room(sound: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A little reverberation and the hum of a room."""
    tail = rng.standard_normal(RATE // 8) * np.exp(-np.arange(RATE // 8) / (0.025 * RATE)) * 0.035
    tail[0] += 1
    size = len(sound) + len(tail)
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)[: len(sound)]
    floor = np.cumsum(rng.standard_normal(len(sound)))
    floor -= _smooth(floor[::16], 40).repeat(16)[: len(floor)] if len(floor) % 16 == 0 else floor.mean()
    return np.asarray(wet + 0.0004 * rng.standard_normal(len(sound)) + 0.0002 * floor / max(level(floor), 1e-6))


@dataclass(frozen=True)
class Landmarks:
    """Where the parts of a face are in a photograph, pixels."""

    mouth: tuple[float, float] = (220.5, 148.5)  # where the lips part
    width: float = 17.0  # half of the mouth's
    eyes: tuple[tuple[float, float], ...] = ((203.0, 101.0), (249.0, 102.0))
    view: tuple[float, float, float] = (94.0, 14.0, 260.0)  # left, top and side of the part that is filmed


def animate(
    photo: Pixels, jaw: npt.NDArray[Any], ticks: int, rng: np.random.Generator, marks: Landmarks, side: int = 352
) -> Frames:
    """The photograph as a film of ``ticks`` pictures: it sways, blinks and opens its mouth as ``jaw`` says."""
    left, top, span = marks.view
    scale = span / side
    yy, xx = np.mgrid[:side, :side].astype(np.float32)
    xx, yy = xx * scale + left, yy * scale + top
    mx, my = marks.mouth
    reach = np.hypot((xx - mx) / 75, (yy - my + 30) / 85)
    head = np.clip(1.6 - reach, 0, 1)
    head = head * head * (3 - 2 * head)
    blinks = np.cumsum(rng.uniform(1.2, 2.6, 40)) * FPS
    phase = rng.uniform(0, 6.28, 6)
    out = np.empty((ticks, side, side, 3), np.uint8)
    for k in range(ticks):
        t = k / FPS
        open_ = float(np.interp((k + 0.5) * STEP / HOP, np.arange(len(jaw)), jaw))
        dx = 2.6 * np.sin(1.1 * t + phase[0]) + 1.2 * np.sin(2.9 * t + phase[1])
        dy = 1.6 * np.sin(1.7 * t + phase[2]) + 0.8 * open_
        turn = 0.025 * np.sin(0.9 * t + phase[3]) + 0.01 * np.sin(2.3 * t + phase[4])
        x = xx - head * (dx - turn * (yy - my - 60))
        y = yy - head * (dy + turn * (xx - mx))
        gap = 9.5 * open_ * np.sqrt(np.clip(1 - ((x - mx) / marks.width) ** 2, 0, 1))
        below = y - my
        drop = np.where(below > gap, gap + (9.5 * open_ - gap) * np.exp(-(((x - mx) / 30) ** 2)), below)
        drop = np.where(below > 0, drop * np.exp(-((np.maximum(below - gap, 0) / 30) ** 2)), 0)
        closed = max(0.0, 1 - float(np.abs(blinks - k).min()) / 3)
        lids = sum(np.exp(-(((x - ex) / 13) ** 4) - ((y - ey) / 8) ** 2) for ex, ey in marks.eyes)
        source_y = (y - drop - 8.5 * closed * lids).astype(np.float32)
        shown = cv2.remap(photo, x.astype(np.float32), source_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        inside = np.clip(np.minimum(below, gap - below) / 1.5 + 0.4, 0, 1) * (gap > 0.7) * np.clip(gap / 3, 0, 1)
        picture = shown + inside[..., None] * (np.array([62.0, 22, 24]) - shown)
        picture = picture * (1 + 0.008 * np.sin(0.8 * t + phase[5])) + rng.normal(0, 1.6, (side, side, 1))
        out[k] = np.clip(np.rint(picture), 0, 255)
    return out


def talk(photo: Pixels, rng: np.random.Generator, marks: Landmarks | None = None) -> Footage:
    """A photograph that says :data:`SENTENCE`."""
    sound, jaw = say(SENTENCE, rng)
    ticks = len(sound) // STEP
    frames = animate(photo, jaw, ticks, rng, marks or Landmarks())
    return Footage(frames, sound[: ticks * STEP], track_face(frames))


def make_clips(photo: Pixels, out: Path, seed: int = 4) -> list[Path]:
    """Write ``talker-synthetic.mp4``, ``talker-forged.mp4`` (mouth and words replaced) and ``talker-truth.json``.

    Raises:
        DataError: no face is found in the photograph, so nothing can be forged.
    """
    rng = np.random.default_rng(seed)
    clip = talk(photo, rng)
    stranger, _ = say(OTHER, rng, pitch=118, tract=0.95)
    donors = Donors(voice=stranger)
    forgery = forge_clip("voice_splice+lipsync", clip, rng, donors=donors, lengths=Lengths(0, 0), care="plain")
    chain = ClipChain(crf=23, preset="veryfast", gop=50, bitrate=64, rate=RATE)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "talker-synthetic.mp4", out / "talker-forged.mp4"]
    for path, footage in zip(paths, (clip, forgery.footage), strict=True):
        path.write_bytes(chain.save(footage))
    whole = [[0.0, clip.duration]]
    truth = {"talker-synthetic.mp4": {"video": whole, "audio": whole}}
    truth["talker-forged.mp4"] = {"video": [list(s) for s in forgery.video], "audio": [list(s) for s in forgery.audio]}
    (out / "talker-truth.json").write_text(json.dumps(truth, indent=1) + "\n", "utf-8")
    return paths


def main() -> int:
    """Make the demonstration clips of the command line's photograph."""
    words = argparse.ArgumentParser(prog="python -m seamline.synthesis.talker", description="Make two talking clips.")
    words.add_argument("photo", help="astronaut.png of scikit-image")
    words.add_argument("out", type=Path, help="folder to write")
    words.add_argument("--seed", type=int, default=4)
    asked = words.parse_args()
    photo = open_media(asked.photo)
    if not isinstance(photo, Image):
        raise DataError(f"{asked.photo}: not a photo")
    for path in make_clips(photo.pixels, asked.out, asked.seed):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
