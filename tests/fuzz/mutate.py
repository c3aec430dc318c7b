"""What is done to whole files: to their parts, so that a file stays one of its kind, and to their bytes."""

from __future__ import annotations

import random
from collections.abc import Callable

from .corpus import FORMATS, Format

NUMBERS = [
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
]
TOKENS = [
    b"null", b"-1", b"1e400", b"NaN", b"[]", b"{}", b'""', b"true", b"9" * 400, b"[" * 3000, b'"\\ud800"', b"\0",
    b"../../../../x.jpg", b"/etc/passwd", b"http://127.0.0.1:9/x", b"\xff\xfe", b"a" * 5000, b"%s%n", b"\x1b[31m",
    b"C:\\x.jpg", b"nan", b"inf", b"0x7fffffffffffffff", b"'''", b"width = 1000000000",
]  # fmt: skip


def hostile(name: str, number: int) -> tuple[str, bytes]:
    """The ``number``-th hostile file of a format, always the same: its suffix, sometimes a wrong one, and its bytes."""
    chance = random.Random(f"{name} {number}")
    form = FORMATS[name]
    data = form.make() if name not in _made else _made[name]
    _made[name] = data
    for _ in range(chance.choice([1, 1, 1, 2, 3, 5])):
        data = chance.choice([_of_parts, _of_parts, _of_bytes])(data, form, chance)
    suffix = form.suffix
    if chance.random() < 0.05 and name not in ("report", "recipe", "safetensors"):
        suffix = chance.choice([".jpg", ".mp4", ".wav", ".zip", ".m3u8", ""])
    return suffix, data


_made: dict[str, bytes] = {}


def _of_parts(data: bytes, form: Format, chance: random.Random) -> bytes:
    try:
        parts = form.split(data)
    except Exception:  # an earlier mutation made it no file of its kind
        parts = []
    if not parts:
        return _of_bytes(data, form, chance)
    at, other = chance.randrange(len(parts)), chance.randrange(len(parts))
    match chance.randrange(7):
        case 0:
            del parts[at]
        case 1:
            parts[at:at] = [parts[at]] * chance.choice([1, 2, 10, 200])
        case 2:
            parts[at], parts[other] = parts[other], parts[at]
        case 3:
            parts[at] = parts[at][: chance.randrange(len(parts[at]) + 1)]
        case 4:
            parts[at] += bytes(chance.choice([1, 4, 100, 70_000]))
        case _:
            parts[at] = _of_bytes(parts[at], form, chance)
    return form.join(parts or [b""])


def _of_bytes(data: bytes, form: Format, chance: random.Random) -> bytes:
    if not data:
        return chance.choice(TOKENS)
    at = chance.randrange(len(data))
    length = chance.choice([1, 2, 4, 8, 16, 100])
    match chance.randrange(8):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + chance.randbytes(length) + data[at + length :]
        case 2:
            return data[:at] + bytes(length) + data[at + length :]
        case 3:
            return data[:at] + data[at + length :]
        case 4:
            return data[:at] + data[at : at + length] * chance.choice([2, 3, 50]) + data[at:]
        case 5:
            return data[:at] + chance.choice(TOKENS) + data[at + length * chance.choice([0, 1]) :]
        case 6:
            size = chance.choice([1, 2, 4, 8])
            number = chance.choice(NUMBERS) & (256**size - 1)
            order: Callable[[], str] = lambda: chance.choice(["big", "little"])  # noqa: E731
            return data[:at] + number.to_bytes(size, order()) + data[at + size :]  # type: ignore[arg-type]
        case _:
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
