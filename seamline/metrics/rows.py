"""Proposals of many clips from one JSON file, ``{"name": [[score, start, end], ...], ...}``.

A million proposals as Python lists take 200 MB, and making them most of the time of an evaluation. Here the digits of
all numbers are found and added up together, to the very floats that :func:`json.loads` gives. A file that is not
written plainly (names with escapes, line breaks between numbers) is left to :func:`json.loads`, as are its complaints.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

BYTES_AT_ONCE = 2**20  # of text; bounds the memory, and
AT_ONCE = 2**16  # numbers; smaller pieces keep threads waiting for each other, larger ones leave the cache
THREADS = 4
DIGITS = 18  # that fit 64 bits
DECIMALS = 22  # 10^22 is the largest power of ten that is a float
PAD = b" " * 24  # before the text: digits are read backwards, eight at a time
AROUND = re.compile(rb"\s*:\s*\[\[\]\]\s*[,}]\s*")  # what is about the numbers of a clip, without its name
EMPTY = re.compile(rb"\s*:\s*\[\s*\]\s*[,}]\s*")
USUAL = (b": [[]], ", b":[[]],", b": [[]],\n")
POWERS = 10.0 ** np.arange(DECIMALS + 1)
WHOLE_POWERS = 10 ** np.arange(DIGITS + 1)
DIGIT = 0x0F0F0F0F0F0F0F0F  # the value of each of eight digits
LONGEST = 24  # digits on either side of the dot that are looked at
LAST = np.array(  # of the last n of the eight, n from -24 (none) to 24 (all)
    [DIGIT >> 8 * (8 - n) << 8 * (8 - n) for n in np.clip(range(-LONGEST, LONGEST + 1), 0, 8).tolist()], np.uint64
)
PAIRS = [  # of digits, of pairs and of fours: ten, a hundred, ten thousand times the first and the second, put together
    tuple(np.uint64(number) for number in (10 * 2**8 + 1, 8, 0x00FF00FF00FF00FF)),
    tuple(np.uint64(number) for number in (100 * 2**16 + 1, 16, 0x0000FFFF0000FFFF)),
    tuple(np.uint64(number) for number in (10000 * 2**32 + 1, 32, 0x00000000FFFFFFFF)),
]
MINUS, DOT, ZERO, COMMA, CLOSE, OPEN, BLANK, QUOTE = b'-.0,][ "'


class Rows(NamedTuple):
    """Proposals of n clips, one after another."""

    names: tuple[str, ...]  # (n,)
    counts: Ints  # (n,) proposals of each clip
    rows: Floats  # (P, 3) score, start, end, in the order of the file

    def of(self, names: Sequence[str]) -> Rows:
        """The same of these clips, in this order.

        Raises:
            DataError: a clip has no entry (a clip without proposals has an empty one).
        """
        if tuple(names) == self.names:
            return self
        place = {name: i for i, name in enumerate(self.names)}
        if missing := [name for name in names if name not in place]:
            raise DataError(f"{missing[0]}: has no entry among the proposals ({len(missing)} such)")
        parts = np.split(self.rows, np.cumsum(self.counts)[:-1]) if self.names else []
        picked = [place[name] for name in names]
        rows = np.concatenate([np.zeros((0, 3)), *(parts[i] for i in picked)])
        return Rows(tuple(names), self.counts[picked], rows)


class _NotPlain(Exception):
    """The text is not written as this module reads it."""


def read_rows(path: str | Path) -> Rows:
    """The proposals of a JSON file: an object of lists of [score, start, end].

    Raises:
        DataError: the file cannot be read, or is not of that form.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as cause:
        raise DataError(f"{path}: cannot be read: {cause.strerror}") from cause
    return parse_rows(text, str(path))


def parse_rows(text: bytes, where: str = "proposals") -> Rows:
    """The proposals in a JSON text; ``where`` names it in errors.

    Raises:
        DataError: the text is not of that form.
    """
    try:
        return _plain(text)
    except _NotPlain:
        pass
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise DataError(f"{where}: not JSON: {cause}") from cause
    if not isinstance(data, dict):
        raise DataError(f"{where}: a JSON {type(data).__name__}, not an object of clip names and proposals")
    for name, rows in data.items():
        if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
            raise DataError(f"{where}: {name!r} is not a list of [score, start, end]")
    counts = np.array([len(rows) for rows in data.values()], np.int64)
    try:
        flat = np.array([row for rows in data.values() for row in rows], np.float64)
    except OverflowError as cause:
        raise DataError(f"{where}: holds a whole number of more than 308 digits") from cause
    return Rows(tuple(data), counts, flat.reshape(-1, 3))


def _is_row(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 3 and all(type(value) in (int, float) for value in row)


def _plain(text: bytes) -> Rows:
    """:func:`parse_rows` of what is usual: one space or none after a comma, no other white space in a list."""
    quotes, at = [], -1
    while (at := text.find(QUOTE, at + 1)) >= 0:
        quotes.append(at)
    if len(quotes) % 2 or not len(quotes) or b"\\" in text or text[: quotes[0]].strip() != b"{":
        raise _NotPlain
    begins, ends = np.array(quotes[0::2]), np.array(quotes[1::2]) + 1  # of the names
    try:
        names = [text[begin + 1 : end].decode() for begin, end in zip(quotes[0::2], quotes[1::2], strict=True)]
    except UnicodeDecodeError as cause:
        raise _NotPlain from cause
    if len({*names}) < len(names) or not all(name.isprintable() for name in names):
        raise _NotPlain
    cuts = [0]  # a few clips at once
    while cuts[-1] < len(names):
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(begins, begins[cuts[-1]] + BYTES_AT_ONCE))))

    def some(i: int, j: int) -> tuple[Ints, Floats]:
        last, at = j == len(names), begins[i] - len(PAD)
        piece = bytearray(PAD)
        piece += memoryview(text)[begins[i] : None if last else begins[j]]
        return _clips(piece, begins[i:j] - at, ends[i:j] - at, last=last)

    with ThreadPoolExecutor(min(len(cuts) - 1, os.cpu_count() or 1, THREADS)) as pool:  # numpy lets threads run
        parts = [*pool.map(some, cuts[:-1], cuts[1:])]
    return Rows(tuple(names), np.concatenate([c for c, _ in parts]), np.concatenate([v for _, v in parts]))


def _clips(buffer: bytearray, begins: Ints, ends: Ints, *, last: bool) -> tuple[Ints, Floats]:
    """How many rows each clip has, and the rows, (P, 3); names are between ``begins`` and ``ends``, and go."""
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        buffer[begin:end] = b" " * (end - begin)  # no digits and no dots but those of numbers are left
    codes = np.frombuffer(buffer, np.uint8)
    exponents = [codes == letter for letter in b"eE+" if letter in buffer]
    number = codes - np.uint8(MINUS) < 13  # - . / and digits
    for there in exponents:
        number |= there
    edges = np.flatnonzero(number[1:] != number[:-1]) + 1
    start, end = edges[0::2].copy(), edges[1::2].copy()
    if b"/" in buffer or len(start) != len(end):
        raise _NotPlain
    bounds = np.append(np.searchsorted(start, ends), len(start))  # the numbers of each clip
    firsts, untils = bounds.tolist(), [*begins[1:].tolist(), len(buffer)]
    for a, b, at, until in zip(firsts[:-1], firsts[1:], ends.tolist(), untils, strict=True):
        around = bytes(buffer[at : start[a]] + buffer[end[b - 1] : until] if b > a else buffer[at:until])
        if around not in USUAL and not (EMPTY if a == b else AROUND).fullmatch(around):
            raise _NotPlain
        if (b"}" in around) != (last and until == len(buffer)):
            raise _NotPlain
    counts, rest = np.divmod(np.diff(bounds), 3)
    if rest.any():
        raise _NotPlain
    if not len(start):
        return counts, np.zeros((0, 3))
    _check_between(codes, start.reshape(-1, 3), end.reshape(-1, 3), counts)
    return counts, _numbers(buffer, codes, start, end, exponents).reshape(-1, 3)


def _numbers(buffer: bytearray, codes: Bytes, start: Ints, end: Ints, exponents: list[npt.NDArray[np.bool_]]) -> Floats:
    """The numbers that begin and end there; ``exponents``: where letters and signs of exponents are, if anywhere."""
    negative = codes[start] == MINUS
    first = start + negative
    dot = first + 1  # the end of what is before the dot
    unsure = np.flatnonzero(codes[dot] != DOT)
    for _ in range(8):
        unsure = unsure[dot[unsure] < end[unsure]]
        dot[unsure] += 1
        unsure = unsure[codes[dot[unsure]] != DOT]
    np.minimum(dot, end, out=dot)
    odd = [unsure]  # numbers to be read one by one: nine digits before the dot,
    if exponents or np.count_nonzero(codes == MINUS) != np.count_nonzero(negative):  # a sign that is not in front,
        marks = np.concatenate([np.flatnonzero(there) for there in (codes == MINUS, *exponents)])
        of = np.searchsorted(start, marks, "right") - 1
        odd.append(of[marks != first[of] - 1])
    if np.count_nonzero(codes == DOT) != np.count_nonzero(dot < end):  # another dot
        marks = np.flatnonzero(codes == DOT)
        of = np.searchsorted(start, marks, "right") - 1
        odd.append(of[marks != dot[of]])

    words = np.ndarray((len(buffer) - 7,), "<u8", buffer, 0, (1,))  # the eight bytes from each place on
    values = np.empty(len(start))
    for i in range(0, len(start), AT_ONCE):
        part = slice(i, i + AT_ONCE)
        values[part], slow = _decimals(words, codes, first[part], dot[part], end[part])
        odd.append(slow + i)
    if negative.any():
        np.negative(values, out=values, where=negative)
    try:
        for j in np.unique(np.concatenate(odd)):
            values[j] = json.loads(buffer[start[j] : end[j]])
    except (ValueError, OverflowError) as cause:
        raise _NotPlain from cause
    return values


def _check_between(codes: Bytes, start: Ints, end: Ints, counts: Ints) -> None:
    """Raise unless what lies between the numbers of rows, (P, 3) start and end, is commas and brackets of rows."""
    gap = start[:, 1:] - end[:, :2]
    good = (codes[end[:, :2]] == COMMA) & ((gap == 1) | ((gap == 2) & (codes[start[:, 1:] - 1] == BLANK)))
    last = np.zeros(len(start), bool)  # row of its clip
    last[np.cumsum(counts)[counts > 0] - 1] = True
    after = end[:, 2]
    closed = (codes[after] == CLOSE) & (codes[after + 1] == np.where(last, CLOSE, COMMA))
    gap = start[1:, 0] - after[:-1]  # ],[ and ], [ within a clip
    apart = last[:-1] | (gap == 3) | ((gap == 4) & (codes[after[:-1] + 2] == BLANK))
    if not (good.all() and closed.all() and apart.all() and (codes[start[:, 0] - 1] == OPEN).all()):
        raise _NotPlain


def _decimals(words: npt.NDArray[np.uint64], codes: Bytes, first: Ints, dot: Ints, end: Ints) -> tuple[Floats, Ints]:
    """Digits, a dot at ``dot`` and more digits, or digits only (``dot`` is ``end``), and which are not done here.

    The number is its digits as a whole number over a power of ten. The division is carried out in twice the precision
    of a float (Dekker 1971) where the whole number has more digits than one, so that it is rounded once.
    """
    before, after = np.minimum(dot - first, LONGEST), end - dot - 1
    np.clip(after, 0, LONGEST, out=after)
    whole = (codes[first] & 15).astype(np.int64)
    more = np.flatnonzero(before > 1)
    whole[more] = _eight(words, dot[more] - 8, before[more])
    digits = _eight(words, end - 8, after)
    longest = int(after.max())
    if longest > 8:
        digits += 10**8 * _eight(words, end - 16, after - 8)
    odd = (before < 1) | (before > 8) | (dot == end - 1)
    odd[more] |= codes[first[more]] == ZERO  # 007
    if longest > 16:
        head = _eight(words, end - 24, after - 16)
        odd |= (after > DECIMALS) | (head > 900) | ((whole > 0) & (before + after > DIGITS))
        digits += 10**16 * np.minimum(head, 900)
    elif len(more):
        odd |= before + after > DIGITS
    digits += whole * WHOLE_POWERS[np.minimum(after, DIGITS)]
    above, below = digits.astype(np.float64), POWERS[np.minimum(after, DECIMALS)]
    value = above / below
    if above.max() >= 2.0**53:
        rest = (digits - above.astype(np.int64)).astype(np.float64)
        value += (_remainder(above, value, below) + rest) / below
    return value, np.flatnonzero(odd)


def _eight(words: npt.NDArray[np.uint64], at: Ints, count: Ints) -> Ints:
    """The last ``count`` of the eight digits at each place as a number: pairs, then fours, then all put together."""
    w = words[at]
    w &= LAST[count + LONGEST]
    for factor, bits, kept in PAIRS:
        w *= factor
        w >>= bits
        w &= kept
    return w.view(np.int64)


def _remainder(above: Floats, value: Floats, below: Floats) -> Floats:
    """What is left of above - value x below, exactly, value being the rounded quotient."""
    high, other = (2.0**27 + 1) * value, (2.0**27 + 1) * below
    high, other = high - (high - value), other - (other - below)
    low, small = value - high, below - other
    product = value * below
    error = ((high * other - product) + high * small + low * other) + low * small
    return (above - product) - error
