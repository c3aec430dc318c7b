"""Archives, member by member: zip and tar (plain, gzip, bzip2, xz), and such archives within them.

Nothing is unpacked to disk: a member is bytes in memory, so that its name, whatever it says, is a name only. What an
archive may cost is checked against its directory first and again while it is read, since a directory can lie.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

from ..errors import MediaError
from .clip import Clip, open_clip
from .files import ARCHIVES, EXTENSIONS, Limits, ending, explained, named_otherwise, regular, sniff
from .image import Image, open_image

INSIDE = "!/"  # between the path of an archive and the name of a member
_HEAD = 512  # bytes that tell an archive
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b\x08": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_NAME = 4096  # bytes of a member's name, at most


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may cost. Sizes are bytes unpacked, members of nested archives included."""

    members: int = 10_000
    member: int = 512 * 2**20
    total: int = 64 * 2**30
    ratio: int = 200  # unpacked to packed, of what is larger than ``free``
    free: int = 64 * 2**20
    depth: int = 3  # archives in archives


@dataclass(frozen=True)
class Member:
    """One file in an archive: its path ``archive.zip!/name``, and either how to read it or why it cannot be."""

    path: str
    read: Callable[[], bytes] | None
    error: str | None = None


def kind(head: bytes) -> str | None:
    """``"zip"`` or ``"tar"`` for the first bytes of an archive, else ``None``."""
    if head[:4] in (b"PK\3\4", b"PK\5\6"):
        return "zip"
    return "tar" if head.startswith(tuple(_PACKED)) or head[257:262] == b"ustar" else None


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an archive by its first bytes; what cannot be read is none."""
    try:
        regular(os.fspath(path))
        with open(path, "rb") as file:
            return kind(file.read(_HEAD)) is not None
    except (MediaError, OSError, ValueError):
        return False


def members(path: str | os.PathLike[str], limits: ArchiveLimits | None = None) -> Iterator[Member]:
    """The pictures, videos and sounds of an archive in the order that it stores them, known by their endings.

    ``read`` gives the bytes of a member, and may be called only before the next one is asked for.

    Raises:
        MediaError: the archive is missing, damaged, or over a limit; members given before that are good.
    """
    path = os.fspath(path)
    size = regular(path).st_size
    with explained(path), open(path, "rb") as file:
        yield from _Walk(path, size, limits or ArchiveLimits()).members(file, path, 1)


def open_member(data: bytes, path: str, limits: Limits | None = None) -> Image | Clip:
    """Open the bytes of a member as :func:`seamline.media.open_media` does, with ``path`` for its name.

    Raises:
        MediaError: as there.
    """
    try:
        medium = open_clip(data, limits=limits) if sniff(io.BytesIO(data)) else open_image(data, limits=limits)
    except MediaError as cause:
        raise MediaError(str(cause).replace("<bytes>", path)) from cause
    odd = named_otherwise(path, str(medium.format))
    return replace(medium, path=path, warnings=(*([odd] if odd else ()), *medium.warnings))


class _Walk:
    """What one archive has cost so far."""

    def __init__(self, path: str, size: int, limits: ArchiveLimits) -> None:
        self.path, self.size, self.limits = path, size, limits
        self.count = self.bytes = 0
        self.names: Counter[str] = Counter()

    def members(self, file: BinaryIO, path: str, depth: int) -> Iterator[Member]:
        head = file.read(_HEAD)
        file.seek(0)
        try:
            yield from self._zip(file, path, depth) if kind(head) == "zip" else self._tar(file, path, depth)
        except MediaError:
            raise
        except MemoryError as cause:
            raise MediaError(f"{path}: not enough memory to unpack it") from cause
        except Exception as cause:  # zipfile and tarfile raise nearly anything on hostile bytes
            why = str(cause) or type(cause).__name__
            raise MediaError(f"{path}: a damaged archive ({why}); get the original again") from cause

    def _zip(self, file: BinaryIO, path: str, depth: int) -> Iterator[Member]:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            self.counted(len(infos))
            for info in infos:
                self.grown(info.file_size)
            for info in infos:
                if info.is_dir():
                    continue

                def read(info: zipfile.ZipInfo = info) -> bytes:
                    with archive.open(info) as member:
                        return member.read(info.file_size)

                where, error = f"{path}{INSIDE}{info.filename}", None
                if info.flag_bits & 1:
                    error = f"{where}: is encrypted; unpack it with its password and scan the files"
                elif info.compress_type not in _METHODS:
                    error = f"{where}: is packed by method {info.compress_type}, which is not known; unpack it first"
                yield from self._member(where, info.filename, info.file_size, error, read, depth)

    def _tar(self, file: BinaryIO, path: str, depth: int) -> Iterator[Member]:
        # As a stream: read once, from front to back, so that nothing is unpacked before it is counted.
        with tarfile.open(fileobj=_Counted(_unpacker(file), self), mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                self.counted(1)
                where = f"{path}{INSIDE}{info.name}"
                if info.isdir():
                    continue
                error = None
                if not info.isreg() or info.issparse():
                    error = f"{where}: is a link, device or sparse file in an archive, which is never followed"

                def read(info: tarfile.TarInfo = info) -> bytes:
                    member = archive.extractfile(info)
                    return member.read() if member else b""

                yield from self._member(where, info.name, info.size, error, read, depth)

    def _member(
        self, where: str, name: str, size: int, error: str | None, read: Callable[[], bytes], depth: int
    ) -> Iterator[Member]:
        """A medium, the members of an archive, or nothing for what is neither."""
        nested = ending(name) in ARCHIVES
        parts = name.split("/")
        hidden = any(part == "__MACOSX" or (part[:1] == "." and part[1:2] not in ("", ".")) for part in parts)
        if hidden or not (nested or ending(name) in EXTENSIONS):
            return
        self.names[where] += 1
        if self.names[where] > 1:  # the last one is what most programs unpack; all are scanned
            where += f"#{self.names[where]}"
        if error is None and len(name.encode("utf-8", "surrogateescape")) > _NAME:
            error = f"{where[:200]}...: its name is longer than {_NAME} bytes"
        if error is None and size > self.limits.member:
            error = f"{where}: {size} bytes are more than the limit of {self.limits.member} for a file in an archive"
        if error is None and nested and depth >= self.limits.depth:
            error = f"{where}: archives in archives are opened to a depth of {self.limits.depth}; unpack it first"
        if error is not None:
            yield Member(where, None, error)
        elif nested:
            try:
                yield from self.members(io.BytesIO(_unpacked(where, read)), where, depth + 1)
            except MediaError as cause:
                if isinstance(cause, _TooMuch):
                    raise
                yield Member(where, None, str(cause))
        else:
            yield Member(where, partial(_unpacked, where, read))

    def counted(self, more: int) -> None:
        self.count += more
        if self.count > self.limits.members:
            raise _TooMuch(f"{self.path}: holds more than {self.limits.members} files; unpack it and scan the folder")

    def grown(self, more: int) -> None:
        self.bytes += more
        limits = self.limits
        if self.bytes > limits.total or self.bytes > max(limits.free, limits.ratio * self.size):
            raise _TooMuch(
                f"{self.path}: {self.size} bytes unpack to more than {self.bytes - 1}, as a bomb does;"
                " unpack it and scan the folder if you trust it"
            )


class _TooMuch(MediaError):
    """The whole archive is over a limit, however deep it was noticed."""


class _Counted:
    """What an unpacker gives, counted."""

    def __init__(self, file: Any, walk: _Walk) -> None:
        self.file, self.walk = file, walk

    def read(self, size: int) -> bytes:
        data: bytes = self.file.read(size)
        self.walk.grown(len(data))
        return data


def _unpacker(file: BinaryIO) -> Any:
    head = file.read(_HEAD)
    file.seek(0)
    return next((opener(file) for magic, opener in _PACKED.items() if head.startswith(magic)), file)


def _unpacked(where: str, read: Callable[[], bytes]) -> bytes:
    """The bytes of a member.

    Raises:
        MediaError: damaged, or there is not enough memory.
    """
    try:
        return read()
    except MediaError:
        raise
    except MemoryError as cause:
        raise MediaError(f"{where}: not enough memory to unpack it") from cause
    except Exception as cause:  # as in _Walk.members
        why = str(cause) or type(cause).__name__
        raise MediaError(f"{where}: damaged in its archive ({why}); get the original again") from cause
