"""What a file says of where it came from: facts beside a report, never part of its probability.

Content Credentials are validated offline; metadata, JPEG tables, text chunks and the structure of MP4 files are read
with caps and without trust. A fact is what is written in the file. Nobody vouches for it, but for valid credentials of
a signer that the user trusts; and that a fact is absent proves nothing, as most services strip all of them.

``fact.py`` says what a fact is, ``credentials.py`` reads Content Credentials, ``photo.py`` photos, ``clip.py`` videos
and sounds.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from ..media.files import Limits, explained, regular, sniff, too_many_bytes
from .clip import clip_facts
from .credentials import credentials
from .fact import Fact as Fact
from .photo import photo_facts

SCHEMA = "seamline.facts/1"
MOST_FACTS = 200


@dataclass(frozen=True)
class Provenance:
    """All that was found in one file."""

    path: str
    sha256: str
    bytes: int
    facts: tuple[Fact, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, ``schema`` first."""
        return {"schema": SCHEMA} | asdict(self) | {"facts": [asdict(fact) for fact in self.facts]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Provenance:
        """Read the JSON form back."""
        return cls(data["path"], data["sha256"], data["bytes"], tuple(Fact(**fact) for fact in data["facts"]))

    def to_json(self, *, indent: int | None = None) -> str:
        """The JSON form as text that can always be written as UTF-8."""
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=indent, allow_nan=False)
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def read(
    source: str | os.PathLike[str] | bytes,
    *,
    coordinates: bool = False,
    trust: str | None = None,
    limits: Limits | None = None,
) -> Provenance:
    """The facts of one photo, video or sound.

    Args:
        source: a path, or the bytes of a file.
        coordinates: tell where it was taken, not only that this is known.
        trust: certificates in PEM form whose signers are trusted with Content Credentials; none are built in.
        limits: the largest file to accept; ``None`` for ``Limits()``.

    Raises:
        MediaError: missing, not readable, too large, or not media; what is damaged inside is told as a fact.
    """
    limits = limits or Limits()
    with _file(source, limits) as (path, file, size):
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # every binary file will do
        kind = sniff(file)
        facts: list[Fact] = []
        if kind:
            facts += credentials(file, _MIME.get(kind, ""), trust)
            facts += clip_facts(source, file, size, kind, limits, coordinates)
        else:
            if size > limits.bytes:
                raise too_many_bytes(path, size, limits.bytes)
            file.seek(0)
            data = file.read(size)
            facts += photo_facts(path, data, coordinates, trust, limits)
    shown = [fact.printable() for fact in facts[:MOST_FACTS]]
    return Provenance(path, digest, size, tuple(shown))


_MIME = {"mov": "video/mp4", "avi": "video/avi", "wav": "audio/wav", "mp3": "audio/mpeg"}


@contextlib.contextmanager
def _file(source: str | os.PathLike[str] | bytes, limits: Limits) -> Iterator[tuple[str, BinaryIO, int]]:
    """Name, open file and size of a source."""
    if isinstance(source, bytes):
        yield "<bytes>", io.BytesIO(source), len(source)
        return
    path = os.fspath(source)
    size = regular(path).st_size
    if size > limits.clip_bytes:
        raise too_many_bytes(path, size, limits.clip_bytes, "clip_bytes")
    with contextlib.ExitStack() as stack:
        with explained(path):
            file = stack.enter_context(open(path, "rb"))
        yield path, file, size
