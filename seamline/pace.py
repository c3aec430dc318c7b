"""The pace of pictures: how far each lies from those just before it.

Ours. What is held, repeated, played backwards, left out or put out of step is as sharp and as well blended as the rest:
it shows in the order of the pictures alone. A picture that was there a moment ago comes back nearer than any that a
camera takes, and where a stretch was moved the way from one picture to the next is longer than its neighbours. So every
tick is compared with the ``LAGS`` ticks before it, of the picture as a whole, small, and grey.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
import numpy.typing as npt

LAGS = 16  # ticks back
SIDE = 48  # of the small picture, pixels
LEAST = 4 * SIDE  # the short side of what is averaged into it; more only costs time

Rows = npt.NDArray[np.float32]  # (n, LAGS)


class Pace:
    """Give it the picture of every tick; it gives the row of each."""

    def __init__(self) -> None:
        """Nothing has been seen."""
        self._before: deque[npt.NDArray[np.float32] | None] = deque(maxlen=LAGS)
        self._last: npt.NDArray[np.uint8] | None = None

    def add(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Take the picture of the next tick, (H, W, 3) uint8 RGB.

        Returns:
            (LAGS,) mean squared difference from the picture 1, 2, ... ticks before, in squared grey levels. Not a
            number before the first picture, and at ticks at which the file shows no new one (the same array given
            again): there only the clock repeats itself.
        """
        row = np.full(LAGS, np.nan, np.float32)
        if rgb is self._last:
            self._before.appendleft(None)
            return row
        self._last = rgb
        height, width = rgb.shape[:2]
        if (step := min(height, width) // LEAST) > 1:
            rgb = np.asarray(
                cv2.resize(rgb, (width // step, height // step), interpolation=cv2.INTER_NEAREST), np.uint8
            )
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        small = np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float32)
        for lag, other in enumerate(self._before):
            if other is not None:
                row[lag] = cv2.norm(small, other, cv2.NORM_L2SQR) / small.size
        self._before.appendleft(small)
        return row


def slower(rows: Rows, share: float, phase: float = 0.0) -> Rows:
    """The rows (n, LAGS) as of a file that shows only ``share`` (0 to 1] of the pictures.

    ``phase`` (0 to 1) is how near the next one is at the first tick.
    """
    new = np.diff(np.floor(np.arange(-1, len(rows)) * share + phase)) > 0
    known = [np.concatenate([np.zeros(lag, bool), new])[: len(new)] & new for lag in range(1, LAGS + 1)]
    return np.where(np.stack(known, 1), rows, np.float32(np.nan))


def repeated(rows: Rows, new: npt.NDArray[np.bool_], rest: Rows) -> Rows:
    """The rows (n, LAGS) as of a file in which some pictures were dropped and those before them coded again.

    Args:
        rows: of the file as it was.
        new: (n,) ticks at which a picture is shown that was not there a tick before.
        rest: (n, LAGS) what coding leaves between a picture and itself, in squared grey levels.
    """
    at = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))  # which picture each tick shows
    before = np.arange(len(rows))[:, None] - 1 - np.arange(LAGS)
    lag = at[:, None] - at[np.maximum(before, 0)]
    far = np.where(lag > 0, rows[at[:, None], np.clip(lag, 1, LAGS) - 1], rest)
    return np.where(before >= 0, far, np.nan).astype(np.float32)
