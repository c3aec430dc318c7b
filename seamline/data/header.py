"""What a file says of itself without being decoded, and a print by which near duplicates are found."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO

import av
import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import MediaError
from ..media.files import regular, sniff

_SOFTWARE, _ORIENTATION = 305, 274  # tags of EXIF
_FLAT = 2.0  # grey levels of standard deviation, below which a picture shows nothing
_RATE, _HEARD = 8000, 6  # hertz and seconds of a sound that its print is made of
_SILENT = 1e-3  # amplitude


@dataclass(frozen=True)
class Header:
    """Facts of a file's header. What does not apply or is not told is ``None``."""

    kind: str  # image, video or audio
    bytes: int
    format: str  # container, and the codecs of its streams: "JPEG", "mov h264 aac"
    encoder: str | None = None  # the software that the file names
    width: int | None = None
    height: int | None = None
    tables: str | None = None  # of a JPEG: a digest of its quantisation tables
    subsampling: str | None = None  # of a JPEG
    duration: float | None = None  # seconds
    fps: float | None = None
    rate: int | None = None  # of the sound, hertz
    channels: int | None = None


def read_header(path: str | os.PathLike[str]) -> Header:
    """The facts of a file's header.

    Raises:
        MediaError: it is missing, or neither a picture nor a clip of a known format.
    """
    name = os.fspath(path)
    with _opened(name) as (file, container):
        size = os.fstat(file.fileno()).st_size
        if container is None:
            return _picture(file, size)
        if (promised := _promised(file, container)) > size:
            raise ValueError(f"it promises {promised} bytes and holds {size}")
        file.seek(0)
        return _clip(file, container, size)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[tuple[BinaryIO, str | None]]:
    """A file, by number so that FFmpeg learns no name that it could take for an address, and its container if a clip.

    Raises:
        MediaError: it cannot be opened, or what is done with it fails.
    """
    regular(name)
    try:
        with os.fdopen(os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb") as file:
            container = sniff(file)
            file.seek(0)
            yield file, container
    except PIL.UnidentifiedImageError:
        raise MediaError(f"{name}: is no picture, video or sound of a known format") from None
    except MediaError:
        raise
    except Exception as cause:  # decoders raise nearly anything on hostile bytes, and none of it may end a batch
        raise MediaError(f"{name}: damaged or cut off ({cause}); get the original again") from cause


def _picture(file: BinaryIO, size: int) -> Header:
    with PIL.Image.open(file) as picture:
        tables: dict[int, list[int]] = getattr(picture, "quantization", None) or {}
        exif = picture.getexif()
        software = picture.info.get("Software") or exif.get(_SOFTWARE)
        text = repr(sorted((number, list(table)) for number, table in tables.items()))
        layers = getattr(picture, "layer", None) if tables else None
        shown = picture.size[:: -1 if exif.get(_ORIENTATION, 1) in (5, 6, 7, 8) else 1]
        return Header(
            kind="image",
            bytes=size,
            format=f"{picture.format} {picture.mode}",
            encoder=str(software) if software else None,
            width=shown[0],
            height=shown[1],
            tables=hashlib.sha256(text.encode()).hexdigest()[:12] if tables else None,
            subsampling=" ".join(f"{layer[1]}x{layer[2]}" for layer in layers) if layers else None,
        )


def _clip(file: BinaryIO, container: str, size: int) -> Header:
    with _container(file, container) as clip:
        videos, sounds = _streams(clip)
        if not videos and not sounds:
            raise ValueError("it holds neither pictures nor sound")
        codecs = " ".join(s.codec_context.name for s in (*videos, *sounds))
        own = [s.metadata.get("encoder") for s in videos]
        lengths = [float(s.duration * s.time_base) for s in (*videos, *sounds) if s.duration and s.time_base]
        duration = max(lengths) if lengths else clip.duration / av.time_base if clip.duration else None
        video, sound = videos[0] if videos else None, sounds[0] if sounds else None
        return Header(
            kind="video" if video else "audio",
            bytes=size,
            format=f"{container} {codecs}",
            encoder=clip.metadata.get("encoder") or next(filter(None, own), None) or clip.metadata.get("major_brand"),
            width=video.codec_context.width if video else None,
            height=video.codec_context.height if video else None,
            duration=duration,
            fps=float(video.average_rate) if video and video.average_rate else None,
            rate=sound.codec_context.sample_rate if sound else None,
            channels=sound.codec_context.channels if sound else None,
        )


def _promised(file: BinaryIO, container: str) -> int:
    """Bytes that the boxes of an MP4 or the header of a WAV or AVI say there are; 0 where nothing says it."""
    end = 0
    if container in ("wav", "avi"):
        size = int.from_bytes(file.read(8)[4:], "little")
        return size + 8 if 0 < size < 0xFFFFFF00 else 0  # what was streamed does not know its size
    while container == "mov" and len(head := file.read(16)) >= 8:
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # it follows in 64 bits
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # the last box, up to the end of the file
            break
        end += size
        file.seek(end)
    return end


def _container(file: BinaryIO, container: str) -> InputContainer:
    only = {"protocol_whitelist": "file", "format_whitelist": container}
    return av.open(file, "r", format=container, container_options=only, metadata_errors="replace", io_open=_refuse)


def _refuse(url: str, *_: Any) -> Any:
    """Files from strangers open no other files."""
    raise PermissionError(f"refused to open {url}")


def _streams(clip: InputContainer) -> tuple[list[VideoStream], list[AudioStream]]:
    """Pictures and sounds; a cover is no picture."""
    videos = [s for s in clip.streams if isinstance(s, VideoStream) and not s.disposition & Disposition.attached_pic]
    return videos, [s for s in clip.streams if isinstance(s, AudioStream)]


# -------------------------------------------------------------------------------------------------- fingerprints


def fingerprint(path: str | os.PathLike[str]) -> bytes | None:
    """128 bits that stay nearly the same when a file is saved again, resized or recompressed.

    Of a picture: whether each of 8x8 places is brighter than its neighbour to the right, and below. Of a sound: whether
    each of 16 bands is louder than a moment before, eight times in its first seconds. Of a film: half of the bits from
    a picture and half from the sound, or all from the picture if it is silent. Unlike files differ in about 64 bits.

    Returns:
        16 bytes, or ``None`` if nothing is to be seen or heard.

    Raises:
        MediaError: it cannot be decoded.
    """
    with _opened(os.fspath(path)) as (file, container):
        if container is None:
            with PIL.Image.open(file) as picture:
                picture.draft("L", (64, 64))  # of a JPEG only an eighth is decoded
                return _pack(*_gradients(np.asarray(picture.convert("L").resize((64, 64), PIL.Image.Resampling.BOX))))
        with _container(file, container) as clip:
            videos, sounds = _streams(clip)
            heard = _loudness(clip, sounds[0]) if sounds else None
            if not videos:
                return _pack(heard[:64], heard[64:]) if heard is not None else None
            if clip.duration and videos[0].time_base:
                clip.seek(clip.duration // 2)
            frame = next(iter(clip.decode(videos[0])), None)
            if frame is None:
                raise ValueError("it has no picture that can be decoded")
            seen = _gradients(frame.to_ndarray(format="gray", width=64, height=64))
            return _pack(seen[0], heard[::2] if heard is not None else seen[1])


def _gradients(grey: npt.NDArray[Any]) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.bool_] | None]:
    """The two halves of a print, from (64, 64) grey levels; ``None`` for a flat picture."""
    levels = grey.astype(np.float32)
    if levels.std() < _FLAT:
        return None, None
    wide: npt.NDArray[Any] = cv2.resize(levels, (9, 8), interpolation=cv2.INTER_AREA)
    tall: npt.NDArray[Any] = cv2.resize(levels, (8, 9), interpolation=cv2.INTER_AREA)
    return (wide[:, 1:] < wide[:, :-1]).ravel(), (tall[1:] < tall[:-1]).ravel()


def _loudness(clip: InputContainer, sound: AudioStream) -> npt.NDArray[np.bool_] | None:
    """(128,) whether each of 16 bands is louder than the moment before, eight times; ``None`` for silence."""
    resampler = av.AudioResampler("flt", "mono", _RATE)
    parts: list[npt.NDArray[Any]] = []
    length = 0
    for frame in clip.decode(sound):
        parts += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        length = sum(map(len, parts))
        if length >= _HEARD * _RATE:
            break
    clip.seek(0)
    wave = np.concatenate([*parts, np.zeros(0, np.float32)])[: _HEARD * _RATE]
    if len(wave) < 9 * 64 or np.abs(wave).max() < _SILENT:
        return None
    slices = wave[: len(wave) // 9 * 9].reshape(9, -1)
    power = np.abs(np.fft.rfft(slices, axis=1)) ** 2
    edges = np.unique(np.geomspace(2, power.shape[1], 17).astype(int))
    edges = np.concatenate([edges, np.full(17 - len(edges), power.shape[1])])
    bands = np.stack([power[:, a : max(b, a + 1)].sum(1) for a, b in pairwise(edges)], 1)  # (9, 16)
    return np.asarray((bands[1:] > bands[:-1]).ravel())


def _pack(*halves: npt.NDArray[np.bool_] | None) -> bytes | None:
    if any(half is None for half in halves):
        return None
    return np.packbits(np.concatenate([half for half in halves if half is not None])).tobytes()
