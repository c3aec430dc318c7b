"""Windows of time: what a detector of clips is given, and the clock they are cut by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SILENT = 1e-3  # a second of sound whose root mean square (full scale 1) is below this is silence


@dataclass(frozen=True)
class Clock:
    """How a clip becomes windows: ticks of ``1 / fps`` seconds, ``ticks`` to a window, neighbours sharing ``overlap``.

    Tick k is the picture shown at k / fps seconds and the sound of [k / fps, (k + 1) / fps).
    """

    ticks: int  # longest window
    overlap: int = 0
    fps: float = 25.0
    rate: int = 16000  # of the sound, hertz
    face: int = 96  # side of a face crop, pixels


class ClipWindow(NamedTuple):
    """One window of a clip, as a detector is given it: n ticks of one face and of the sound."""

    faces: npt.NDArray[np.uint8] | None  # (n, S, S, 3) RGB crops of one face, zeros where absent; None: not applicable
    seen: npt.NDArray[np.bool_] | None  # (n,) ticks at which the face was there
    sound: npt.NDArray[np.float32] | None  # (n * rate / fps,) mono in [-1, 1]; None: absent or silent throughout
    ticks: int  # n
    pace: npt.NDArray[np.float32] | None = None  # (n, LAGS) see pace.py; None: no pictures
    cues: npt.NDArray[np.float32] | None = None  # (n * PER_TICK, COUNT) see cues.py; None: if asked, measured


class ClipTruth(NamedTuple):
    """The truth of one window: forged spans (start, end) in ticks from its beginning, half-open, by modality."""

    video: tuple[tuple[float, float], ...] = ()
    audio: tuple[tuple[float, float], ...] = ()


def quiet(sound: npt.NDArray[np.float32], rate: int) -> bool:
    """Whether a sound (n,) in [-1, 1] is silence: no second of it reaches ``SILENT``."""
    whole = len(sound) // rate * rate
    parts = [*sound[:whole].reshape(-1, rate), sound[whole:]]
    return all(len(part) == 0 or float(np.sqrt(np.mean(np.square(part)))) < SILENT for part in parts)
