"""Training windows at native resolution: where to cut, and turns that keep the 8x8 JPEG grid.

Nothing here resamples: the traces of a forgery live in single pixels. Every draw comes from the generator given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]

GRID = 8  # pixels: the side of a JPEG block
LEAST, MOST = 0.005, 0.9  # share of forged pixels in a window that shows both classes


def crop(
    rgb: Pixels, mask: Mask | None, side: int, rng: np.random.Generator, *, near: float = 0.75
) -> tuple[Pixels, Mask | None]:
    """Cut a window with its origin on the JPEG grid.

    Args:
        rgb: (H, W, 3); continued by reflection at the right and bottom where it is smaller than the window.
        mask: (H, W) in [0, 1], or ``None`` for an authentic picture.
        side: of the window, in pixels; a multiple of 8.
        rng: where every draw comes from.
        near: probability that the window of a forged picture is put on the forgery, with forged and untouched
            pixels both in it where possible; else it is put anywhere.

    Returns:
        (side, side, 3) and (side, side), or ``None`` for the mask when the window has no forged pixel.

    Raises:
        ValueError: ``side`` is not a multiple of 8.
    """
    if side % GRID or side <= 0:
        raise ValueError(f"the side of a window must be a multiple of {GRID}, not {side}")
    short = [(0, max(0, side - n)) for n in rgb.shape[:2]]
    if any(after for _, after in short):
        rgb = np.pad(rgb, [*short, (0, 0)], mode="reflect")
        mask = None if mask is None else np.pad(mask, short, mode="reflect")
    rows, columns = ((n - side) // GRID + 1 for n in rgb.shape[:2])  # origins along each axis
    if mask is not None and rng.random() < near:
        share = _window_sums(mask >= 0.5, side, rows, columns) / side**2
        for good in ((share >= LEAST) & (share <= MOST), share > 0):
            origins = np.flatnonzero(good)
            if len(origins):
                y, x = divmod(int(rng.choice(origins)), columns)
                break
        else:  # the forgery lies wholly in the few last pixels that no window on the grid reaches
            y, x = int(rng.integers(rows)), int(rng.integers(columns))
    else:
        y, x = int(rng.integers(rows)), int(rng.integers(columns))
    window = slice(y * GRID, y * GRID + side), slice(x * GRID, x * GRID + side)
    cut = None if mask is None else mask[window]
    return rgb[window], cut if cut is not None and bool((cut >= 0.5).any()) else None


def turn(rgb: Pixels, mask: Mask | None, rng: np.random.Generator) -> tuple[Pixels, Mask | None]:
    """One of the eight flips and quarter turns of a window; its side being a multiple of 8, the grid is kept."""
    way = int(rng.integers(8))

    def turned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        array = np.rot90(array, way % 4)
        return np.ascontiguousarray(array[:, ::-1] if way >= 4 else array)

    return turned(rgb), None if mask is None else turned(mask)


def _window_sums(forged: npt.NDArray[np.bool_], side: int, rows: int, columns: int) -> npt.NDArray[np.int64]:
    """Forged pixels in every window on the grid: (rows, columns), from an integral image over 8x8 blocks."""
    per = side // GRID
    height, width = (rows + per - 1) * GRID, (columns + per - 1) * GRID
    blocks = forged[:height, :width].reshape(height // GRID, GRID, width // GRID, GRID).sum((1, 3), dtype=np.int64)
    total = np.zeros((blocks.shape[0] + 1, blocks.shape[1] + 1), np.int64)
    total[1:, 1:] = blocks.cumsum(0).cumsum(1)
    return total[per:, per:] - total[:-per, per:] - total[per:, :-per] + total[:-per, :-per]
