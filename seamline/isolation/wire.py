"""What passes between the two processes: a line of JSON and raw bytes, never a pickle.

A message is eight bytes (the lengths of both parts, little-endian), a JSON object and its payload. The decoder may have
been taken over by the file that it reads, so the reader bounds both lengths before it takes anything.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

_LENGTHS = struct.Struct("<IQ")
HEADER = 2**20  # bytes of JSON, at most: facts of a file and notes on it


class BrokenWire(Exception):
    """The other side is gone, or does not keep to the form."""


def send(file: BinaryIO, header: dict[str, Any], payload: Any = b"") -> None:
    """Write a message; ``payload`` is any buffer of bytes."""
    text = json.dumps(header).encode()
    view = memoryview(payload).cast("B")
    file.write(_LENGTHS.pack(len(text), len(view)) + text)
    file.write(view)
    file.flush()


def receive(file: BinaryIO, most: int) -> tuple[dict[str, Any], bytearray]:
    """Read a message whose payload has at most so many bytes.

    Raises:
        BrokenWire: the stream ended, or is no such message.
    """
    length, size = _LENGTHS.unpack(_exactly(file, _LENGTHS.size))
    if length > HEADER or size > most:
        raise BrokenWire(f"a message of {length} + {size} bytes, {most} allowed")
    try:
        header = json.loads(_exactly(file, length))
    except (ValueError, RecursionError) as cause:
        raise BrokenWire(f"not JSON: {cause}") from cause
    if not isinstance(header, dict):
        raise BrokenWire("not a JSON object")
    return header, _exactly(file, size)


def _exactly(file: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        try:
            got = file.readinto(view[at:])  # type: ignore[attr-defined]  # every binary stream of io has it
        except (OSError, ValueError) as cause:
            raise BrokenWire(str(cause)) from cause
        if not got:
            raise BrokenWire("the stream ended")
        at += got
    return data
