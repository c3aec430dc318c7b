"""Proposals of many clips from one JSON file, ``{"name": [[score, start, end], ...], ...}``.

A million proposals as Python lists take 200 MB, and making them most of the time of an evaluation. Here simdjson reads
the numbers of many clips at once into one array. A file that is not written plainly (names with escapes) is left to
:func:`json.loads`, as are all complaints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import simdjson

from ..errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BYTES_AT_ONCE = 2**19  # of text; bounds the memory, and stays in the cache
NUMERIC = b"0123456789+-.eE \t\r\n"  # of which numbers consist, and what may stand between them
ROW = b"[,,],"  # what is left of a row without that


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
    """The text is not written as :func:`_plain` reads it."""


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
    """:func:`parse_rows` of what is usual: names without escapes, lists of lists of three numbers."""
    if b"\\" in text:
        raise _NotPlain
    before, *parts = text.split(b'"')  # then name, what is between, name, what is between, ...
    names, lists = parts[0::2], parts[1::2]
    if before.strip() != b"{" or not lists or len(names) != len(lists):
        raise _NotPlain
    ends = [b","] * (len(lists) - 1) + [b"}"]
    counts = [_rows_of(part, end) for part, end in zip(lists, ends, strict=True)]
    try:
        words = tuple(name.decode() for name in names)
    except UnicodeDecodeError as cause:
        raise _NotPlain from cause
    if len({*words}) < len(words) or not all(word.isprintable() for word in words):
        raise _NotPlain

    numbers, first, size, parser = [np.zeros(0)], 0, 0, simdjson.Parser()
    for i, part in enumerate(lists, 1):
        size += len(part)
        if size >= BYTES_AT_ONCE or i == len(lists):
            bodies = b",".join([_body(body) for body in lists[first:i]])
            numbers.append(_numbers(parser, b"[" + bodies + b"]"))
            first, size = i, 0
    return Rows(words, np.array(counts, np.int64), np.concatenate(numbers).reshape(-1, 3))


def _rows_of(part: bytes, end: bytes) -> int:
    """How many rows are between a name and the next: ``: [[score, start, end], ...]``, and then ``end``."""
    marks = part.translate(None, NUMERIC)
    count = (len(marks) - 3) // len(ROW)
    if marks != b":[" + (ROW * count)[:-1] + b"]" + end:
        raise _NotPlain
    return count


def _body(part: bytes) -> bytes:
    """The list in it."""
    begin, end = part.index(b"["), part.rindex(b"]") + 1
    if part[:begin].strip() != b":" or len(part[end:].strip()) != 1:
        raise _NotPlain
    return part[begin:end]


def _numbers(parser: simdjson.Parser, text: bytes) -> Floats:
    """All numbers of a list of lists, flat."""
    try:
        parsed = parser.parse(text)
        assert isinstance(parsed, simdjson.Array)
        return np.frombuffer(parsed.as_buffer(of_type="d"))
    except (ValueError, RuntimeError) as cause:  # no JSON, or a whole number beyond 64 bits
        raise _NotPlain from cause
