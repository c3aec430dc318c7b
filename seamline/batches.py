"""The files of a batch: archives opened, what is already done looked up, and the next file opened ahead of its turn."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from . import isolation
from .errors import MediaError, SeamlineError
from .journal import Journal
from .journal import key as journal_key
from .media import Clip, Image, archives, open_media
from .media.files import digest, regular
from .report import Report

Opening = Callable[[], AbstractContextManager[Image | Clip]]  # raises MediaError; called once


@dataclass(frozen=True)
class Item:
    """A file to scan, or one in an archive, or what could not even be listed."""

    path: str
    archive: str | None = None  # the path of the archive that holds it
    error: str | None = None


def items(paths: Sequence[str | os.PathLike[str]], isolate: bool = True) -> list[Item]:
    """The files of a batch; an archive stands for the media in it, or for one item that says what is wrong with it."""
    found: list[Item] = []
    for named in paths:
        path = os.fspath(named)
        if not archives.is_archive(path):
            found.append(Item(path))
            continue
        try:
            held = isolation.members(path) if isolate else list(archives.members(path))
            found += [Item(member.path, path, member.error) for member in held]
            if not held:
                found.append(Item(path, error=f"{path}: this archive holds no pictures, videos or sounds"))
        except MediaError as cause:
            found.append(Item(path, error=str(cause)))
    return found


def done(
    batch: Iterable[Item], journal: Journal | None, settings: Mapping[str, Any]
) -> Iterator[tuple[str | None, Report | None]]:
    """For each item its key in the journal, and its report if that is there already."""
    known: dict[str, str | None] = {}  # the digest of the last file: the members of an archive follow each other
    for item in batch:
        file = item.archive or item.path
        if journal is None or item.error is not None:
            yield None, None
            continue
        if file not in known:
            known = {file: None}
            with contextlib.suppress(MediaError):
                known[file] = digest(file, regular(file).st_size)
        sha256 = known[file]
        key = journal_key(item.path, sha256, settings) if sha256 else None
        yield key, journal.get(key) if key else None


Entry = tuple[Item, str, tuple[str | None, Report | None]]


def ahead(entries: Iterable[Entry], isolate: bool = True) -> Iterator[tuple[*Entry, Opening]]:
    """Each entry with the opening of its file, which in isolation was begun while the one before was judged."""
    waiting: tuple[*Entry, Opening] | None = None
    stream: _Unpacked | None = None
    for item, stem, (key, report) in entries:
        opening: Opening = _refusal(item.error) if item.error is not None else _nothing
        if report is None and item.error is None:
            if item.archive and (stream is None or stream.path != item.archive):
                stream = _Unpacked(item.archive, isolate)
            opening = _begun(item, stream if item.archive else None, isolate)
        if waiting is not None:
            yield waiting
        waiting = item, stem, (key, report), opening
    if waiting is not None:
        yield waiting


class _Unpacked:
    """The members of one archive with their bytes, in order."""

    def __init__(self, path: str, isolate: bool) -> None:
        self.path = path
        self._members = isolation.unpacked(path) if isolate else _read(path)

    def bytes_of(self, path: str) -> bytes:
        """Go on to this member and read it; those before it are passed over."""
        for member, data in self._members:
            if member.path == path:
                if member.error is not None:
                    raise MediaError(member.error)
                return data
        raise MediaError(f"{path}: could not be reached in its archive, which is damaged or was changed")


def _read(path: str) -> Iterator[tuple[archives.Member, bytes]]:
    for member in archives.members(path):
        yield member, member.read() if member.read else b""


def _begun(item: Item, stream: _Unpacked | None, isolate: bool) -> Opening:
    try:
        data = stream.bytes_of(item.path) if stream else None
        if not isolate:
            if data is None:
                return lambda: contextlib.nullcontext(open_media(item.path))
            return lambda: contextlib.nullcontext(archives.open_member(data, item.path))
        job = isolation.Job("open", item.path, data)
    except (SeamlineError, OSError) as cause:
        return _refusal(str(cause))

    @contextlib.contextmanager
    def opening() -> Iterator[Image | Clip]:
        with job:
            yield job.medium()

    return opening


def _refusal(error: str) -> Opening:
    def opening() -> AbstractContextManager[Image | Clip]:
        raise MediaError(error)

    return opening


def _nothing() -> AbstractContextManager[Image | Clip]:
    raise AssertionError("a report that is there already needs no file")
