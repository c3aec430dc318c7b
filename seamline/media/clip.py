"""A video or a sound becomes a :class:`Clip`: facts now; pictures and samples later, piece by piece, as asked for.

Files come from strangers, so FFmpeg (by way of PyAV) is told which container it reads, gets an open file and no name,
and may open nothing else: no playlist, link or second file is ever followed. What the header promises is held against
the limits first, then against the packets themselves, so that lengths and counts are true for damaged files too.

Times are seconds on the clip's clock. Its zero is zero of the container's edited timeline (MP4, MOV, MKV, WebM), or
where the pictures, or a sound much earlier, begin (containers whose clock starts anywhere: MPEG, AVI, OGG, ...). What
lies before zero (the priming of an encoder, what an edit list cut away) is not shown and not heard; a stream that
starts later starts later.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import io
import math
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc, VideoReformatter
from av.video.stream import VideoStream

from ..errors import MediaError
from .files import Limits, digest, explained, named_otherwise, regular, sniff, too_many_bytes

_BUFFER = 2**18  # bytes that are read at a time
_THREADS = 4  # of a video decoder, at most: each holds a picture
_PATIENCE = 300  # packets in which a first picture or sample must come
_RETRIES = 32  # damaged places in a row after which a file is at its end
_GAP = 0.1  # seconds: a shorter gap in the sound is the jitter of its time stamps
_EARLY = 0.25  # seconds: a first picture that starts no later is shown from zero on, as delays of B-frames are no delay
_LATE = 10.0  # seconds: an edited timeline that starts later was cut out of a longer one, and begins where it starts
_JUMP = 0.1  # seconds back: a clock that was set anew
_RUN_UP = 1.0  # seconds that decoding begins early: an open group of pictures begins with some that lack others
_EDITED = ("mov", "matroska")  # containers whose timeline has a zero of its own
_COUNTED = ("mov", "matroska", "avi", "wav", "flac", "aiff", "asf")  # those whose header knows the length
_PADDING = 0.1  # seconds that the last packet of a sound may be longer than the sound
_REORDER = 16  # pictures, the most that any codec shows in another order than it stores
_STREAMS = 1000  # of a container, more than which FFmpeg does not open
_BOAST = 1000  # times what it holds: a file that promises more is a bomb or no longer itself
_TRIES = 4  # streams of a kind that are tried
_COVERS = Disposition.attached_pic | Disposition.timed_thumbnails


@dataclass(frozen=True)
class Video:
    """Facts of the pictures of a clip. Sizes are as shown, times in seconds on the clip's clock."""

    codec: str
    width: int
    height: int
    fps: float  # on average
    frames: int | None  # that are stored; None: not known
    rotation: int  # degrees clockwise that stored pictures are turned by to be shown: 0, 90, 180 or 270
    variable: bool  # the frame rate
    start: float
    duration: float  # from start


@dataclass(frozen=True)
class Audio:
    """Facts of the sound of a clip. Times are seconds on the clip's clock."""

    codec: str
    rate: int  # hertz
    channels: int
    start: float
    duration: float  # from start


class _Source(NamedTuple):
    """How to open a file again, and which streams of it are meant."""

    path: str
    data: bytes | None  # of a clip that came from memory
    kind: str  # its container
    limits: Limits
    version: tuple[int, ...] = ()  # inode, size and time of change of a file
    zero: Fraction = Fraction(0)  # clock zero in the container's time, seconds
    video: int | None = None  # index of the stream
    audio: int | None = None
    turn: int = 0  # quarter turns clockwise from stored to shown pictures
    mirror: bool = False  # whether they are then mirrored left to right
    keyed: bool = False  # whether pictures begin with one that stands for itself; what comes before it is left out


@dataclass(frozen=True, eq=False)
class Clip:
    """A video or a sound. It holds facts only; :meth:`frames` and :meth:`sound` read the file as they go.

    ``path`` is ``"<bytes>"`` for a clip that came from memory. ``format`` is what the content is (FFmpeg's name:
    ``"mov"``, ``"matroska"``, ``"mpeg"``, ``"ogg"``, ...), whatever the name says. ``streams`` tells of ``"video"``
    and ``"audio"`` whether each is ``"present"``, ``"absent"`` or ``"unusable: why"``. ``warnings`` are known from the
    start; ``notes`` grow while damaged parts are met in reading.
    """

    path: str
    sha256: str | None
    bytes: int | None
    format: str | None
    duration: float  # seconds, from clock zero to the end of the longer stream
    video: Video | None
    audio: Audio | None
    streams: dict[str, str]
    warnings: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    source: _Source | None = field(default=None, repr=False)

    @property
    def kind(self) -> Literal["video", "audio"]:
        """``"video"`` with pictures that can be decoded, else ``"audio"``."""
        return "video" if self.video else "audio"

    def frames(
        self, fps: float = 25.0, start: float = 0.0, stop: float | None = None
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """The picture shown at each tick ``start + k / fps``, k = 0, 1, ..., upright, (H, W, 3) uint8 RGB.

        It is the last one whose time has come; a picture that is shown for several ticks is the same array each time,
        so do not change it. Ticks before a late first picture are black. Pictures that no tick shows are not converted,
        and a few are held at a time. Pixels are taken for square; pictures of another size than the first are resized.

        Args:
            fps: ticks a second.
            start: seconds of the first tick.
            stop: seconds before which the last tick lies; ``None``: the end of the pictures.

        Returns:
            One array a tick, none if the clip has no pictures. Damage may end them early, and leaves a note.

        Raises:
            MediaError: the file is gone or was changed since it was opened.
        """
        if not fps > 0 or start < 0:
            raise ValueError(f"fps={fps} and start={start}: give a rate above 0 and a start of 0 or later")
        if self.video is None or self.source is None:
            return
        painter = _Painter(self.source, self.video.width, self.video.height)
        tick = 0
        with contextlib.closing(self._spans(self.source, self.video, start)) as spans:
            for frame, end in spans:
                shown: npt.NDArray[np.uint8] | None = None
                while (at := start + tick / fps) < end:
                    if stop is not None and at >= stop - 1e-9:
                        return
                    shown = painter.rgb(frame) if shown is None else shown
                    yield shown
                    tick += 1

    def sound(self, rate: int = 16000, block: float = 1.0) -> Iterator[npt.NDArray[np.float32]]:
        """The sound from clock zero on, mono (the mean of the channels), float32 in [-1, 1], without a gap.

        A late start and gaps of more than 0.1 s are filled with zeros; sound that overlaps what was heard is dropped.

        Args:
            rate: of the samples, hertz; any other is converted by FFmpeg's resampler, whose delay is made up for.
            block: seconds of sound an array.

        Returns:
            Arrays (n,) of ``rate * block`` samples, the last one shorter; none if the clip has no sound.

        Raises:
            MediaError: the file is gone or was changed since it was opened.
        """
        if rate < 1 or not block > 0:
            raise ValueError(f"rate={rate} and block={block}: give a rate of 1 or more and a block above 0")
        if self.audio is None or self.source is None:
            return
        size = max(1, round(rate * block))
        rest = np.zeros(0, np.float32)
        parts: list[npt.NDArray[np.float32]] = []
        with contextlib.closing(self._samples(self.source, rate)) as pieces:
            for piece in pieces:
                parts.append(piece)
                if sum(map(len, parts)) < size:
                    continue
                rest = np.concatenate(parts)
                while len(rest) >= size:
                    yield np.clip(rest[:size], -1, 1)
                    rest = rest[size:]
                parts = [rest]
        if sum(map(len, parts)):
            yield np.clip(np.concatenate(parts), -1, 1)

    def tags(self) -> dict[str, dict[str, str]]:
        """What the container and its streams say of themselves: ``"file"`` or ``"stream 0"`` -> key -> text.

        Raises:
            MediaError: the file is gone or was changed since it was opened.
        """
        if self.source is None:
            return {}
        with _opened(self.source) as container:
            streams = {f"stream {stream.index}": dict(stream.metadata) for stream in container.streams}
            return {"file": dict(container.metadata)} | streams

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _spans(self, source: _Source, video: Video, start: float) -> Generator[tuple[VideoFrame | None, float]]:
        """Pictures in order of time and how long each is shown, from some time before ``start``; ``None`` is black."""
        before: VideoFrame | None = None
        end = 0.0
        if video.start > _EARLY:
            yield None, video.start
        with contextlib.closing(self._pictures(source, video, start)) as pictures:
            for frame, begin, until in pictures:
                if before is not None:
                    yield before, begin
                before, end = frame, until
        if before is not None:
            yield before, end
        if end < video.start + video.duration - max(0.5, 3 / video.fps):
            self._note(f"the pictures end at {end:.2f} s, as nothing later can be decoded")

    def _pictures(self, source: _Source, video: Video, start: float) -> Generator[tuple[VideoFrame, float, float]]:
        """Decoded pictures with begin and end, from some time before ``start``."""
        clock = _Clock(source.zero)
        damage = _Damage()
        with _opened(source) as container:
            (stream,) = _only(container, source, source.video)
            assert stream.time_base is not None
            # Containers round to their time base, Matroska to milliseconds: a picture is due when its stamp is near.
            slack = min(0.5 * float(stream.time_base), 1e-3) + 1e-6
            sought = start > 2 * _RUN_UP and source.kind in _EDITED
            if sought:
                with contextlib.suppress(av.FFmpegError):
                    container.seek(int((Fraction(start - _RUN_UP) + source.zero) / stream.time_base), stream=stream)
            begun = not source.keyed
            slots: deque[int | None] = deque()
            for frame in _decoded(container, stream, damage, slots=slots):
                assert isinstance(frame, VideoFrame)
                slot = slots.popleft() if slots else None
                # AVI stores no times of presentation: pictures take the places of decoding, in order.
                stamp = slot if source.kind == "avi" else frame.pts
                base = frame.time_base or stream.time_base
                length = float(frame.duration * base) if frame.duration else 1 / video.fps
                begin = clock.place(stamp, base, length)
                if sought and begin > start:
                    break  # the index leads astray: begin at the beginning
                begun = begun or frame.key_frame
                if not begun:
                    continue
                sought = False
                damage.pictures += frame.is_corrupt
                yield frame, begin - slack, begin + length - slack
        if sought:
            yield from self._pictures(source, video, 0.0)
        if told := damage.told("pictures"):
            self._note(told)

    def _samples(self, source: _Source, rate: int) -> Generator[npt.NDArray[np.float32]]:
        """Mono samples at ``rate`` in pieces of any length, contiguous from clock zero on."""
        clock = _Clock(source.zero)
        damage = _Damage()
        line: _Line | None = None
        heard = gaps = 0
        with _opened(source) as container:
            (stream,) = _only(container, source, source.audio)
            for frame in _decoded(container, stream, damage):
                assert isinstance(frame, AudioFrame)
                mono = _mono(frame)
                begin = clock.place(frame.pts, frame.time_base, frame.samples / frame.sample_rate)
                if line is None or line.source != frame.sample_rate:
                    for piece in line.flush() if line else ():
                        heard += len(piece)
                        yield piece
                    line = _Line(frame.sample_rate, rate, heard / rate)
                if begin > source.limits.duration:
                    self._note(f"sound with time stamps beyond {source.limits.duration:g} s is left out")
                    continue
                gap = round((begin - line.time) * line.source)
                if not line.taken or abs(gap) > _GAP * line.source:
                    gaps += heard > 0
                    for at in range(0, gap, line.source):
                        for piece in line.feed(np.zeros(min(line.source, gap - at), np.float32)):
                            heard += len(piece)
                            yield piece
                    mono = mono[max(0, -gap) :]
                for piece in line.feed(mono):
                    heard += len(piece)
                    yield piece
            yield from line.flush() if line else ()
        if gaps:
            self._note(
                f"the sound has {gaps} gap{'s' * (gaps > 1)} or overlap{'s' * (gaps > 1)} in time; gaps are silent"
            )
        if told := damage.told("sound"):
            self._note(told)


class _Painter:
    """Decoded pictures to upright RGB of one size."""

    def __init__(self, source: _Source, width: int, height: int) -> None:
        self.source, self.width, self.height = source, width, height
        self.reformatter = VideoReformatter()  # kept, because it prepares itself for a kind of picture

    def rgb(self, frame: VideoFrame | None) -> npt.NDArray[np.uint8]:
        """(H, W, 3) as shown; black for ``None``."""
        if frame is None:
            return np.zeros((self.height, self.width, 3), np.uint8)
        turn = self.source.turn
        size = (self.height, self.width) if turn % 2 else (self.width, self.height)
        stored = self.reformatter.reformat(frame, *size, "rgb24", threads=1).to_ndarray()
        shown = np.rot90(stored, -turn)
        return np.ascontiguousarray(shown[:, ::-1] if self.source.mirror else shown, np.uint8)


class _Clock:
    """Time stamps of one stream to seconds from clock zero, going on where a stamp is missing or jumps back."""

    def __init__(self, zero: Fraction) -> None:
        self.zero = zero
        self.shift = 0.0
        self.last = -math.inf
        self.due = 0.0  # when what comes next begins, if it does not say

    def place(self, stamp: int | None, base: Fraction | None, length: float) -> float:
        """When something of ``length`` seconds begins."""
        at = self.due
        if stamp is not None and base is not None:
            at = float(stamp * base - self.zero)
            if self.shift and abs(at - self.due) > _JUMP:  # else a wrong stamp was all that there was
                at += self.shift
            elif self.shift:
                self.shift = 0.0
            if at < self.last - _JUMP:
                self.shift += self.due - at
                at = self.due
        self.last, self.due = at, at + length
        return at


@dataclass
class _Damage:
    """What could not be decoded."""

    places: int = 0
    pictures: int = 0

    def told(self, what: str) -> str:
        """A note, empty if there was no damage."""
        skipped = f"{self.places} damaged part{'s' * (self.places > 1)} of the {what} could not be decoded"
        shown = f"{self.pictures} picture{'s are' if self.pictures > 1 else ' is'} damaged"
        return "; ".join(text for text, count in ((skipped, self.places), (shown, self.pictures)) if count)


class _Line:
    """A resampler from one rate to another, which counts what it was given."""

    def __init__(self, source: int, target: int, origin: float) -> None:
        self.source = source
        self.origin = origin  # seconds, of the first sample
        self.taken = 0
        self.resampler = None if source == target else AudioResampler("fltp", "mono", target)

    @property
    def time(self) -> float:
        """Seconds at which the next sample belongs."""
        return self.origin + self.taken / self.source

    def feed(self, mono: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.float32]]:
        """What comes out for samples (n,)."""
        if not len(mono):
            return
        if self.resampler is None:
            self.taken += len(mono)
            yield mono
            return
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(mono[None]), "fltp", "mono")
        frame.sample_rate, frame.time_base, frame.pts = self.source, Fraction(1, self.source), self.taken
        self.taken += len(mono)
        for out in self.resampler.resample(frame):
            yield _mono(out)

    def flush(self) -> Iterator[npt.NDArray[np.float32]]:
        """What was held back."""
        for out in self.resampler.resample(None) if self.resampler and self.taken else ():
            yield _mono(out)


def _mono(frame: AudioFrame) -> npt.NDArray[np.float32]:
    """The mean of the channels (n,) as float32, full scale 1."""
    samples: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mono: npt.NDArray[np.float32] = samples.mean(axis=0, dtype=np.float32)
    if samples.dtype.kind == "u":
        return (mono - 128) / np.float32(128)
    if samples.dtype.kind == "i":
        return mono / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
    return np.nan_to_num(mono, nan=0.0, posinf=1.0, neginf=-1.0)


def open_clip(source: str | os.PathLike[str] | bytes, *, limits: Limits | None = None) -> Clip:
    """Open a video or a sound: MP4, MOV, MKV, WebM, AVI, MPEG, FLV, WMV, OGG, WAV, FLAC, MP3, AAC, AMR, AIFF.

    The content decides the container, not the name. The first picture and sound are decoded, and every packet is read
    (not decoded), so that what the clip says of itself is what the file holds. A cover picture is not video. Of several
    streams FFmpeg's best one is taken, the next one if it cannot be decoded.

    Args:
        source: a path or the bytes of a file.
        limits: the largest clip to accept; ``None`` for ``Limits()``.

    Returns:
        The clip, with ``warnings`` for everything that its reader should know.

    Raises:
        MediaError: missing, not readable, too large or long, not a clip, or without anything that can be decoded.
    """
    limits = limits or Limits()
    if isinstance(source, bytes):
        path, size, kind, data = "<bytes>", len(source), sniff(io.BytesIO(source)), source
        version: tuple[int, ...] = ()
    else:
        path, data = os.fspath(source), None
        status = regular(path)
        size, version = status.st_size, _version(status)
        with explained(path), open(path, "rb") as file:
            kind = sniff(file)
    if kind is None:
        raise MediaError(f"{path}: is neither video nor sound of a known format")
    if size > limits.clip_bytes:
        raise too_many_bytes(path, size, limits.clip_bytes, "clip_bytes")
    try:
        return _examine(_Source(path, data, kind, limits, version), size)
    except MemoryError as cause:
        raise MediaError(f"{path}: not enough memory to decode it; make it smaller or free some memory") from cause


def _examine(source: _Source, size: int) -> Clip:
    """Facts of a clip from its header, its first picture and sound, and all its packets."""
    path, limits = source.path, source.limits
    notes = [odd for odd in (named_otherwise(path, source.kind),) if odd]
    with _opened(source) as container:
        seconds = (container.duration or 0) / 1e6
        if len(container.streams) > limits.streams:
            raise MediaError(
                f"{path}: {len(container.streams)} streams are more than the limit of {limits.streams};"
                " raise Limits(streams=...) if you trust it"
            )
        if seconds > limits.duration:
            raise _too_long(path, seconds, limits)
        candidates = {name: _candidates(container, name, source, notes) for name in ("video", "audio")}
    parts = {name: _first(source, streams, notes) for name, streams in candidates.items()}
    video, audio = parts["video"], parts["audio"]
    if video.frame is None and audio.frame is None:
        why = ", ".join(f"{name} {part.state}" for name, part in parts.items())
        raise MediaError(f"{path}: holds no picture and no sound that can be decoded ({why}); get the original again")
    used = [part for part in parts.values() if part.frame is not None]
    zero = _zero(source.kind, video, audio)
    turn, mirror = 0, False
    if isinstance(video.frame, VideoFrame):
        turn, mirror = _turn(video.frame, notes)
        _look(video.frame, video.ratio, notes)
    indices = [part.index if part.frame is not None else None for part in (video, audio)]
    source = source._replace(zero=zero, video=indices[0], audio=indices[1], turn=turn, mirror=mirror, keyed=video.keyed)
    _scan(source, used)
    for part in used:
        if part.end > limits.duration:
            raise _too_long(path, part.end, limits)
        if source.kind in _COUNTED and part.declared - part.end > max(1.0, 0.02 * part.declared):
            notes.append(f"cut off: its header says {part.declared:.2f} s, but it ends after {part.end:.2f} s")
    if _promised(source) > max(_BOAST * size, 2**30):
        raise MediaError(
            f"{path}: its header promises {_promised(source)} bytes, but it holds {size}; get the original again"
        )
    if 0 < size < _promised(source):
        notes.append(f"cut off: its header says {_promised(source)} bytes, but it ends after {size}")
    return Clip(
        path=path,
        sha256=digest(path, size) if source.data is None else hashlib.sha256(source.data).hexdigest(),
        bytes=size,
        format=source.kind,
        duration=max(part.end for part in used),
        video=_video(video, turn),
        audio=_audio(audio),
        streams={name: part.state for name, part in parts.items()},
        warnings=tuple(dict.fromkeys(notes)),
        source=source,
    )


def _promised(source: _Source) -> int:
    """Bytes that a RIFF or IFF file says it has, 0 for others and for those that were never finished."""
    if source.data is not None:
        head = source.data[:8]
    else:
        with explained(source.path), open(source.path, "rb") as file:
            head = file.read(8)
    order: Literal["little", "big"] = "big" if head[:4] == b"FORM" else "little"
    size = int.from_bytes(head[4:], order) if head[:4] in (b"RIFF", b"FORM") else 0
    return size + 8 if 0 < size < 0xFFFFFF00 else 0


def _zero(kind: str, video: _Part, audio: _Part) -> Fraction:
    """Clock zero in the container's time, seconds."""
    starts = [part.start for part in (video, audio) if part.frame is not None and part.start is not None]
    zero = max(Fraction(0), min(starts, default=Fraction(0)))
    if kind in _EDITED and zero <= _LATE:
        return Fraction(0)
    # Without an edit list, sound begins earlier than the pictures by the priming of its encoder.
    early = video.frame is not None and video.start is not None and zero < video.start <= zero + Fraction(_EARLY)
    return video.start if early and video.start is not None else zero


@dataclass
class _Part:
    """What opening finds of one stream: of its header, its first picture or sound, and its packets."""

    state: str = "absent"
    index: int = -1
    codec: str = ""
    fps: float = 0.0  # as the header says
    start: Fraction | None = None  # seconds in the container's time
    length: float = 0.0  # seconds, as the header says
    ratio: Fraction | None = None  # width of a pixel by its height
    frame: VideoFrame | AudioFrame | None = None  # the first
    begin: float = math.inf  # seconds on the clip's clock
    end: float = 0.0
    declared: float = 0.0  # the end, as the header says
    count: int = 0  # of packets
    steps: tuple[float, float] = (math.inf, 0.0)  # least and greatest time from one to the next
    keyed: bool = False  # whether some picture can be decoded without those before it

    window: list[float] = field(default_factory=list)  # times still to be put in order
    before: float = math.inf  # the last time in order

    def see(self, begin: float, length: float) -> None:
        """Count a packet."""
        self.count += 1
        self.begin, self.end = min(self.begin, begin), max(self.end, begin + length)
        heapq.heappush(self.window, begin)
        if len(self.window) > _REORDER:
            self.settle(_REORDER)

    def settle(self, left: int = 0) -> None:
        """Measure the steps between times, but for the ``left`` latest ones."""
        while len(self.window) > left:
            at = heapq.heappop(self.window)
            if at > self.before:
                self.steps = min(self.steps[0], at - self.before), max(self.steps[1], at - self.before)
            self.before = at

    def take(self, frames: Iterable[VideoFrame | AudioFrame]) -> None:
        """The first of these from which on all can be decoded; simply the first if no picture stands for itself."""
        for frame in frames:
            self.frame = self.frame or frame
            if isinstance(frame, AudioFrame):
                return
            if frame.key_frame:
                self.frame, self.keyed = frame, True
                break
        if self.frame is not None and self.frame.pts is not None and self.frame.time_base is not None:
            self.start = self.frame.pts * self.frame.time_base  # later than the header says, if much came before


def _candidates(container: InputContainer, name: str, source: _Source, notes: list[str]) -> list[_Part]:
    """The streams of video or audio, best first, as the header describes them."""
    streams = [stream for stream in container.streams if stream.type == name]
    covers = [stream for stream in streams if stream.disposition & _COVERS]
    streams = [stream for stream in streams if stream not in covers]
    if covers:
        notes.append("its cover picture is not examined")
    best = container.streams.best("video" if name == "video" else "audio")
    streams.sort(key=lambda stream: (best is None or stream.index != best.index, stream.index))
    found = []
    for stream in streams:
        base = stream.time_base or Fraction(0)
        part = _Part(index=stream.index, state="unusable: it holds nothing")
        if stream.start_time is not None:
            part.start = stream.start_time * base
        part.length = float(stream.duration * base) if stream.duration else (container.duration or 0) / 1e6
        codec: Any = stream.codec_context  # None for want of a decoder, whatever the stub says
        if codec is None:
            part.state = "unusable: no decoder for its codec"
        else:
            part.codec = codec.codec.canonical_name
        if isinstance(stream, VideoStream):
            part.fps, part.ratio = float(stream.average_rate or 0), stream.sample_aspect_ratio
            if part.codec and stream.width * stream.height > source.limits.frame:
                raise _too_many_pixels(source, stream.width, stream.height)
        found.append(part)
    return found


def _first(source: _Source, candidates: list[_Part], notes: list[str]) -> _Part:
    """The best stream that can be decoded, with its first picture or sound; else the best and why it cannot."""
    for part in candidates[:_TRIES]:
        if not part.codec:
            continue
        damage = _Damage()
        with _opened(source) as container:
            (stream,) = _only(container, source, part.index)
            frames = _decoded(container, stream, damage, patience=_PATIENCE)
            part.take(frame for frame in frames if _whole(frame))
            if source.kind == "avi":  # begins at zero; what its pictures seem to say is the reader's guess
                part.start = Fraction(0)
        if part.frame is not None:
            part.state = "present"
            if len(candidates) > 1:
                kind = "pictures" if isinstance(part.frame, VideoFrame) else "sound"
                notes.append(f"holds {len(candidates)} streams of {kind}; only stream {part.index} is examined")
            return part
        if damage.places:
            part.state = f"unusable: its {part.codec} data is damaged or protected"
    return candidates[0] if candidates else _Part()


def _whole(frame: VideoFrame | AudioFrame) -> bool:
    return frame.width * frame.height > 0 if isinstance(frame, VideoFrame) else frame.samples * frame.sample_rate > 0


def _scan(source: _Source, parts: list[_Part]) -> None:
    """Read all packets: begin, end and number of each stream, and how even their times are."""
    clocks = {part.index: _Clock(source.zero) for part in parts}
    of = {part.index: part for part in parts}
    with _opened(source) as container:
        streams = _only(container, source, *of)
        for packet in _packets(container, streams, _Damage()):
            if packet.is_discard or not packet.size:
                continue
            part, clock = of[packet.stream_index], clocks[packet.stream_index]
            base = packet.time_base
            length = float(packet.duration * base) if packet.duration else 1 / part.fps if part.fps else 0.0
            if packet.dts is None and packet.pts is not None:  # as of the first B-frames in Matroska
                at = float(packet.pts * base - source.zero) + clock.shift
            else:
                at = clock.place(packet.dts, base, length)
                if packet.dts is not None and packet.pts is not None and source.kind != "avi":
                    at += float((packet.pts - packet.dts) * base)
            part.see(at, length)
    for part in parts:
        part.settle()
        start = float(part.start - source.zero) if part.start is not None else 0.0
        part.begin = max(start, 0.0, part.begin if part.count else 0.0)
        part.declared = start + part.length
        # What pads the last packet of a sound, the header leaves out.
        padded = isinstance(part.frame, AudioFrame) and source.kind in (*_COUNTED, "mp3", "ogg")
        if padded and part.length and 0 < part.end - part.declared < _PADDING and part.declared > part.begin:
            part.end = part.declared
        part.end = max(part.end, part.begin)


def _video(part: _Part, turn: int) -> Video | None:
    if not isinstance(part.frame, VideoFrame):
        return None
    size = (part.frame.width, part.frame.height)
    width, height = size[::-1] if turn % 2 else size
    length = part.end - part.begin
    fps = part.count / length if length else part.fps or 25.0
    if abs(fps - part.fps) < 0.01 * part.fps:  # the header's fraction is the better number
        fps = part.fps
    least, most = part.steps
    variable = most - least > max(0.1 / fps, 2.1e-3)  # Matroska rounds to milliseconds
    return Video(part.codec, width, height, fps, part.count, turn * 90, variable, part.begin, length)


def _audio(part: _Part) -> Audio | None:
    if not isinstance(part.frame, AudioFrame):
        return None
    channels = part.frame.layout.nb_channels
    return Audio(part.codec, part.frame.sample_rate, channels, part.begin, part.end - part.begin)


def _turn(frame: VideoFrame, notes: list[str]) -> tuple[int, bool]:
    """Quarter turns clockwise, and whether to mirror after them, that the display matrix asks for.

    The matrix (9 numbers, 16.16 fixed point) takes stored (x, y) to shown (a x + c y, b x + d y), y pointing down.
    """
    entries: Any = frame.side_data  # the stub knows one kind only
    side = next((entry for entry in entries if entry.type.name == "DISPLAYMATRIX"), None)
    if side is None:
        return 0, False
    a, b, _, c, d = (float(value) for value in np.frombuffer(bytes(side), np.int32)[:5])
    upright = abs(a) + abs(d) >= abs(b) + abs(c)
    if min(abs(a) + abs(d), abs(b) + abs(c)) > 0.1 * max(abs(a) + abs(d), abs(b) + abs(c)):
        notes.append("is shown at an angle that is not a quarter turn; the nearest one was taken")
    if upright:
        return (2 if d < 0 else 0), (a < 0) != (d < 0)
    return (1 if b > 0 else 3), (b < 0) == (c < 0)


def _look(frame: VideoFrame, ratio: Fraction | None, notes: list[str]) -> None:
    """What 8-bit RGB with square pixels does not show, to notes."""
    if ratio and ratio != 1:
        notes.append(f"its pixels are {float(ratio):.3g} times as wide as high, but are taken for square")
    if any(component.bits > 8 for component in frame.format.components):
        notes.append("samples of more than 8 bit were reduced to 8 bit")
    if frame.color_trc in (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67):
        notes.append("its HDR pictures are shown as they are stored, without tone mapping")
    if frame.interlaced_frame:
        notes.append("its pictures are interlaced, and are examined as they are stored")


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _opened(source: _Source) -> Iterator[InputContainer]:
    """The container, which can read this one file and nothing else.

    Raises:
        MediaError: it cannot be opened, or was changed since the clip was.
    """
    with contextlib.ExitStack() as stack:
        if source.data is not None:
            file: Any = io.BytesIO(source.data)
        else:
            if _version(regular(source.path)) != source.version:
                raise MediaError(f"{source.path}: changed since it was opened; open it again when it is complete")
            with explained(source.path):
                # By number, so that FFmpeg learns no name that it could take for an address or a format.
                file = os.fdopen(os.open(source.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb", buffering=0)
            stack.enter_context(file)
        header = _Header(file, source.limits.header)
        try:
            container = av.open(
                header,
                "r",
                format=source.kind,
                options={"max_pixels": str(source.limits.frame)},
                container_options={"protocol_whitelist": "file", "format_whitelist": source.kind},
                metadata_errors="replace",
                buffer_size=_BUFFER,
                io_open=_refuse,
            )
        except (av.FFmpegError, OSError, ValueError) as cause:
            if header.over:
                raise _too_much_header(source) from cause
            if isinstance(cause, MemoryError):
                raise MediaError(
                    f"{source.path}: holds more than {_STREAMS} streams, or asks for more memory than there is;"
                    " get the original again"
                ) from cause
            why = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
            raise MediaError(
                f"{source.path}: damaged or cut off, it cannot be opened ({why}); get the original again"
            ) from cause
        stack.enter_context(container)
        if header.over:
            raise _too_much_header(source)
        header.most = None
        yield container


class _Header:
    """A file that FFmpeg reads, which until it is opened may be read only so far in all."""

    def __init__(self, file: Any, most: int) -> None:
        self.file = file
        self.most: int | None = most  # bytes that may still be read; any number once it is open
        self.over = False
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """The next bytes."""
        if self.most is not None:
            self.most -= size
            if self.most < 0:  # the end, for all that FFmpeg is told: what an exception here says is lost
                self.over = True
                return b""
        data: bytes = self.file.read(size)
        return data


def _refuse(url: str, *_: Any) -> Any:
    """Files from strangers open no other files."""
    raise PermissionError(f"refused to open {url}")


def _only(container: InputContainer, source: _Source, *indices: int | None) -> list[VideoStream | AudioStream]:
    """These streams, ready to be decoded; the others are skipped by the reader."""
    chosen: list[VideoStream | AudioStream] = []
    for stream in container.streams:
        if stream.index not in indices:
            stream.discard = Discard.all
            continue
        assert isinstance(stream, (VideoStream, AudioStream))
        if isinstance(stream, VideoStream):
            stream.codec_context.options = {"max_pixels": str(source.limits.frame)}
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.thread_count = min(_THREADS, os.cpu_count() or 1)
        chosen.append(stream)
    return chosen


def _packets(
    container: InputContainer, streams: list[VideoStream | AudioStream], damage: _Damage
) -> Iterator[Packet[Any]]:
    """All packets of these streams, over damaged places."""
    failures = 0
    while failures <= _RETRIES:
        try:
            for packet in container.demux(tuple(streams)):
                failures = 0
                yield packet
            return
        except av.FFmpegError:
            damage.places += 1
            failures += 1


def _decoded(
    container: InputContainer,
    stream: VideoStream | AudioStream,
    damage: _Damage,
    patience: int | None = None,
    slots: deque[int | None] | None = None,
) -> Iterator[VideoFrame | AudioFrame]:
    """All pictures or sounds of a stream, over damaged places; at most ``patience`` packets are tried.

    ``slots`` collects the times of decoding; the reader takes one off for each picture.
    """
    tried = 0
    for packet in _packets(container, [stream], damage):
        if slots is not None and packet.size:
            slots.append(packet.dts)
        try:
            yield from packet.decode()
        except EOFError:
            return
        except av.FFmpegError:
            damage.places += 1
            if slots:
                slots.popleft()
        tried += 1
        if tried == patience:
            return
    with contextlib.suppress(av.FFmpegError, EOFError):  # what a decoder holds back, if damage was all there was left
        yield from stream.decode(None)


def _too_much_header(source: _Source) -> MediaError:
    return MediaError(
        f"{source.path}: its header is larger than the limit of {source.limits.header} bytes;"
        " raise Limits(header=...) if you trust it"
    )


def _too_long(path: str, seconds: float, limits: Limits) -> MediaError:
    return MediaError(
        f"{path}: {seconds:.0f} s are more than the limit of {limits.duration:.0f} s;"
        " cut it, or raise Limits(duration=...)"
    )


def _too_many_pixels(source: _Source, width: int, height: int) -> MediaError:
    return MediaError(
        f"{source.path}: pictures of {width}x{height} pixels are more than the limit of {source.limits.frame};"
        " make them smaller, or raise Limits(frame=...)"
    )
