"""Facts of a video or a sound: programs, times, how its streams lie, and the boxes of MP4 files."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from ..media import Clip, open_media
from ..media.files import Limits
from .fact import Fact, software

MOST_BOXES = 20_000  # of an MP4 file


def clip_facts(
    source: str | os.PathLike[str] | bytes, file: BinaryIO, size: int, kind: str, limits: Limits, coordinates: bool
) -> list[Fact]:
    """Facts of a video or a sound: programs, times, how its streams lie, and the boxes of MP4 files."""
    clip = open_media(source, limits=limits)
    assert isinstance(clip, Clip)
    facts = [Fact("container", "format", kind)]
    facts += _tag_facts(clip.tags(), coordinates)
    if library := _x264(file):
        facts.append(
            Fact("container", "encoder_library", library, "a program wrote it, not the chip of a camera", True)
        )
    streams = {"video": clip.video, "audio": clip.audio}
    for name, stream in streams.items():
        if stream is not None:
            late = stream.start > 0.1
            note = "later than the clip: cut, or muxed anew" if late else ""
            facts.append(Fact("container", f"{name}_start", round(stream.start, 3), note, odd=late))
            facts.append(Fact("container", f"{name}_duration", round(stream.duration, 3)))
    if clip.video and clip.audio:
        ends = [stream.start + stream.duration for stream in (clip.video, clip.audio)]
        if abs(ends[0] - ends[1]) > 0.5:
            note = "picture and sound do not end together"
            facts.append(Fact("container", "ends_differ_by", round(abs(ends[0] - ends[1]), 3), note, odd=True))
    if kind == "mov":
        facts += _mp4_facts(file, size)
    return facts


def _tag_facts(tags: dict[str, dict[str, str]], coordinates: bool) -> list[Fact]:
    """Programs, devices, times and place from the tags of a container and its streams."""
    facts: list[Fact] = []
    names = {
        "encoder": "encoder",
        "encoded_by": "encoder",
        "com.apple.quicktime.software": "software",
        "com.apple.quicktime.make": "make",
        "com.apple.quicktime.model": "model",
        "com.android.version": "android_version",
        "creation_time": "created_at",
        "com.apple.quicktime.creationdate": "created_at",
        "handler_name": "handler",
        "comment": "comment",
    }
    places = {"location", "com.apple.quicktime.location.iso6709", "location-eng"}
    seen: set[tuple[str, str]] = set()
    for group in tags.values():
        for tag, value in group.items():
            name, value = names.get(tag.lower()), value.strip()
            if tag.lower() in places and ("place", "") not in seen:
                seen.add(("place", ""))
                facts.append(Fact("metadata", "place", True, "the place is stored"))
                facts += [Fact("metadata", "coordinates", value)] if coordinates else []
            if not name or not value or (name, value) in seen:
                continue
            seen.add((name, value))
            program = name in ("encoder", "software")
            found = software(value) if program else Fact("metadata", name, value)
            facts.append(Fact("container", name, found.value, found.note, found.odd))
    if not any(fact.name == "place" for fact in facts):
        facts.append(Fact("metadata", "place", False))
    times = sorted({fact.value for fact in facts if fact.name == "created_at"}, key=str)
    if len(times) > 1:
        facts.append(Fact("container", "creation_times_differ", len(times), "streams of several makings", odd=True))
    return facts


def _x264(file: BinaryIO) -> str:
    """The name of the encoder that x264 and x265 write into the stream, if it is near the beginning."""
    file.seek(0)
    found = re.search(rb"x26[45] (?:- core|\(build) \d{1,4}[ -~]{0,12}", file.read(4 * 2**20))
    return found[0].decode("ascii").split(" - H")[0].strip() if found else ""


_CONTAINERS = {b"moov", b"trak", b"mdia", b"edts", b"udta", b"mvex"}
_EPOCH = datetime(1904, 1, 1, tzinfo=UTC)


@dataclass
class _Track:
    kind: str = ""
    timescale: int = 0  # of the medium
    edits: tuple[
        tuple[int, int], ...
    ] = ()  # (length by the clock of the movie, start by that of the medium; -1: empty)
    created: int = 0  # seconds since 1904


def _boxes(file: BinaryIO, start: int, end: int, left: list[int]) -> Iterator[tuple[bytes, int, int]]:
    """(type, first byte of the body, end) of the boxes in [start, end), ISO/IEC 14496-12; ends at what is damaged."""
    at = start
    while at + 8 <= end and left[0] > 0:
        left[0] -= 1
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind = struct.unpack_from(">I4s", head)
        body = at + 8
        if length == 1 and len(head) == 16:
            length, body = struct.unpack_from(">Q", head, 8)[0], at + 16
        elif length == 0:
            length = end - at
        if length < body - at or at + length > end:
            return
        yield kind, body, at + length
        at += length


def _mp4_facts(file: BinaryIO, size: int) -> list[Fact]:
    """Brand, order, times and edit lists of an MP4 or MOV file."""
    facts: list[Fact] = []
    order: list[bytes] = []
    tracks: list[_Track] = []
    movie: tuple[int, int, int] = (0, 0, 0)  # created, changed, timescale
    left = [MOST_BOXES]

    def walk(start: int, end: int, depth: int) -> None:
        nonlocal movie
        for kind, body, stop in _boxes(file, start, end, left):
            if depth == 0:
                order.append(kind)
            if kind == b"trak":
                tracks.append(_Track())
            if kind in _CONTAINERS and depth < 6:
                walk(body, stop, depth + 1)
                continue
            if kind not in (b"ftyp", b"mvhd", b"mdhd", b"hdlr", b"elst"):
                continue
            file.seek(body)
            data = file.read(min(stop - body, 4096))
            with contextlib.suppress(struct.error):
                if kind == b"ftyp":
                    brands = [data[i : i + 4].decode("latin-1") for i in (0, *range(8, min(len(data), 72) - 3, 4))]
                    facts.append(Fact("container", "brand", brands[0], f"compatible: {' '.join(brands[1:])}"))
                elif kind in (b"mvhd", b"mdhd"):
                    times = struct.unpack_from(">QQI" if data[:1] == b"\1" else ">III", data, 4)
                    if kind == b"mvhd":
                        movie = times
                    elif tracks:
                        tracks[-1].created, _, tracks[-1].timescale = times
                elif kind == b"hdlr" and tracks and not tracks[-1].kind:
                    tracks[-1].kind = data[8:12].decode("latin-1")
                elif kind == b"elst" and tracks:
                    wide = data[:1] == b"\1"
                    count, form = struct.unpack_from(">I", data, 4)[0], ">Qq" if wide else ">Ii"
                    stride = 20 if wide else 12
                    places = range(8, min(len(data), 8 + stride * count) - stride + 1, stride)
                    tracks[-1].edits = tuple(struct.unpack_from(form, data, place) for place in places)

    walk(0, size, 0)
    if b"moov" in order and b"mdat" in order:
        first = order.index(b"moov") < order.index(b"mdat")
        note = "services and many editors put it there" if first else "cameras and phones mostly leave it there"
        facts.append(Fact("container", "index", "at the beginning" if first else "at the end", note))
    if b"moof" in order:
        facts.append(Fact("container", "fragmented", True, "written for streaming"))
    created, changed, timescale = movie
    if timescale:
        shown = _date(created)
        facts.append(
            Fact("container", "movie_created_at", shown or "not set", "" if shown else "converters leave it out")
        )
        if created and changed > created + 1:
            facts.append(
                Fact("container", "movie_changed_at", _date(changed) or "not set", "later: saved again", odd=True)
            )
    for number, track in enumerate(tracks):
        if track.created and created and abs(track.created - created) > 5:
            note = "this stream was made at another time than the file"
            facts.append(
                Fact("container", f"track_{number}_created_at", _date(track.created) or "not set", note, odd=True)
            )
        if track.edits:
            cut = any(at > 0.15 * (track.timescale or 1) for _, at in track.edits)  # more than the delay of an encoder
            late = any(at == -1 and length > 0.1 * (timescale or 1) for length, at in track.edits)
            said = f"{len(track.edits)} ({track.kind or 'unknown'})"
            odd = cut or late or len(track.edits) > 2
            note = (
                "an edit list that cuts or delays the stream: trimmed without coding it again"
                if odd
                else "as encoders write it"
            )
            facts.append(Fact("container", f"track_{number}_edits", said, note, odd))
    return facts


def _date(seconds: int) -> str:
    """Seconds since 1904 as UTC; empty if not set or out of all bounds."""
    try:
        return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else ""
    except OverflowError:
        return ""
