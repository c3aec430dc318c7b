"""What the header of a JPEG file says of its making: quantisation tables, coding, sampling, application segments.

Read from the bytes, without decoding; ITU-T T.81 annexes B and K. Files come from strangers: what is damaged ends the
reading, nothing is trusted for its length, and the cost is bounded by the header's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Table = tuple[int, ...]  # 64 steps in zigzag order

_ZIGZAG = np.array(sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8 if (i // 8 + i % 8) % 2 else i % 8))))
# Annex K.1, luminance and chrominance, row by row: the tables that libjpeg scales by its quality.
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = (
    "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99 " + "99 " * 32
)
_MOST_SEGMENTS = 4096
_MOST_BLOCKS = 60_000  # that are looked at
_OFTEN = 12  # blocks with a value, below which its number says nothing
# (8, 8) the cosines of the DCT: frequency, place
_COSINES = np.cos(np.outer(np.arange(8), 2 * np.arange(8) + 1) * np.pi / 16) / 2
_COSINES[0] /= np.sqrt(2)


@dataclass(frozen=True)
class JpegHeader:
    """Facts of a JPEG file up to its first scan."""

    tables: tuple[Table, ...]  # by component: that of luma first
    coding: str  # "baseline", "extended", "progressive", "lossless" or "arithmetic"
    sampling: str  # of chroma, such as "4:2:0"; "grey" of one component
    segments: tuple[tuple[int, bytes], ...]  # (marker, first 64 bytes) of APPn and COM, in order


def read_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG file; ``None`` if the bytes are none, or are damaged before the first scan."""
    if data[:2] != b"\xff\xd8":
        return None
    tables: dict[int, Table] = {}
    segments: list[tuple[int, bytes]] = []
    components: list[tuple[int, int]] = []  # (sampling, table)
    coding, at = "", 2
    for _ in range(_MOST_SEGMENTS):
        at = data.find(b"\xff", at)
        while at >= 0 and data[at + 1 : at + 2] == b"\xff":  # fill bytes
            at += 1
        if at < 0 or at + 4 > len(data):
            return None
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        body = data[at + 4 : at + 2 + length]
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 2
            continue
        if length < 2 or len(body) != length - 2 or marker == 0xD9:
            return None
        if marker == 0xDA:
            break
        if marker == 0xDB:
            tables |= _tables(body)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            coding = _CODINGS.get(marker, "arithmetic" if marker > 0xC8 else "differential")
            components = [(body[i + 1], body[i + 2]) for i in range(6, min(len(body) - 2, 6 + 3 * 4), 3)]
        elif 0xE0 <= marker <= 0xEF or marker == 0xFE:
            segments.append((marker, body[:64]))
        at += 2 + length
    else:
        return None
    used = tuple(tables[table] for _, table in components if table in tables)
    if not coding or not used:
        return None
    return JpegHeader(used, coding, _sampling([size for size, _ in components]), tuple(segments))


_CODINGS = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive", 0xC3: "lossless"}


def _tables(body: bytes) -> dict[int, Table]:
    """The tables of one DQT segment, by number; what is cut off is left out."""
    found: dict[int, Table] = {}
    at = 0
    while at < len(body):
        wide, number = body[at] >> 4, body[at] & 15
        size = 128 if wide else 64
        steps = body[at + 1 : at + 1 + size]
        if wide > 1 or len(steps) < size:
            break
        found[number] = tuple(np.frombuffer(steps, ">u2" if wide else "u1").tolist())
        at += 1 + size
    return found


def _sampling(sizes: list[int]) -> str:
    """The usual name of the sampling of chroma."""
    if len(sizes) == 1:
        return "grey"
    first, rest = sizes[0], set(sizes[1:])
    if rest == {0x11} and len(sizes) == 3:
        names = {0x11: "4:4:4", 0x21: "4:2:2", 0x22: "4:2:0", 0x12: "4:4:0", 0x41: "4:1:1"}
        return names.get(first, f"{first >> 4}x{first & 15}")
    return " ".join(f"{size >> 4}x{size & 15}" for size in sizes)


def standard(quality: int, chroma: bool = False) -> npt.NDArray[np.int64]:
    """The table (64,) in zigzag order that libjpeg uses at a quality of 1 to 100."""
    base = np.array((_CHROMA if chroma else _LUMA).split(), int)[_ZIGZAG]
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table: npt.NDArray[np.int64] = np.clip((base * scale + 50) // 100, 1, 255)
    return table


def as_table(quality: int, chroma: bool = False) -> Table:
    """:func:`standard` in the form of :class:`JpegHeader`."""
    return tuple(standard(quality, chroma).tolist())


_STANDARD = np.stack([standard(quality) for quality in range(1, 101)])  # (100, 64)


def quality(table: Table) -> tuple[int, bool]:
    """The quality, 1 to 100, at which libjpeg's table of luma is nearest to this one, and whether it is the very same.

    Nearest is in the mean of the ratios of the steps, which is how much is thrown away.
    """
    steps = np.array(table, float).clip(1)
    away = np.abs(np.log(_STANDARD / steps)).mean(1)
    best = len(away) - 1 - int(away[::-1].argmin())
    return best + 1, bool((_STANDARD[best] == steps).all())


def comb(luma: npt.NDArray[np.uint8], table: Table) -> float | None:
    """How uneven the histograms of DCT coefficients are, which a second save at another quality leaves behind.

    Saved once, the coefficients of a frequency fall off smoothly; quantised with one step and then with another, some
    values are met too often and some too seldom, in a period (Popescu and Farid, 2004).

    Args:
        luma: (H, W) as decoded, not converted, its blocks beginning at the corner.
        table: the steps of luma, in zigzag order.

    Returns:
        The root mean square of log2(count / geometric mean of both neighbours), less its mean and what chance explains,
        over the frequencies and values that occur often enough; ``None`` if too few do.
    """
    height, width = (side // 8 * 8 for side in luma.shape)
    if not height or not width:
        return None
    blocks = luma[:height, :width].astype(np.float32).reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2) - 128
    blocks = blocks.reshape(-1, 8, 8)[:: max(1, height * width // 64 // _MOST_BLOCKS)]
    steps = np.empty(64)
    steps[_ZIGZAG] = table
    squares = count = 0.0
    for place in _ZIGZAG[1:10]:
        step = steps[place]
        if step < 2:  # the rounding of pixels drowns it
            continue
        basis = np.outer(_COSINES[place // 8], _COSINES[place % 8]).astype(np.float32)
        values = np.rint(np.einsum("bij,ij->b", blocks, basis) / step).astype(int)
        histogram = np.bincount(np.abs(values).clip(0, 200), minlength=201)[1:200].astype(float)
        middle, left, right = histogram[1:-1], histogram[:-2], histogram[2:]
        often = np.convolve(histogram, np.full(5, 0.2), "same")[1:-1] >= _OFTEN
        middle, left, right = middle[often], left[often], right[often]
        ratio = np.log2((middle + 0.5) / np.sqrt((left + 0.5) * (right + 0.5)))
        chance = (1 / (middle + 0.5) + 0.25 / (left + 0.5) + 0.25 / (right + 0.5)) / np.log(2) ** 2
        weight = 1 / (chance + 0.01)
        if len(ratio) < 3:
            continue
        ratio = ratio - np.average(ratio, weights=weight)  # a bell curve has the same everywhere, a comb has not
        squares += float(np.sum(weight * (ratio**2 - chance)))
        count += float(weight.sum())
    return float(np.sqrt(max(0.0, squares / count))) if count else None
