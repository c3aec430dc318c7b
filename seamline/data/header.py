"""What a file says of itself, without being decoded: codec and resolution facts for comparing whole data sets."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import av
import PIL.Image
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from ..errors import MediaError
from ..media.files import regular, sniff


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
    size = regular(name).st_size
    try:
        # By number, so that FFmpeg learns no name that it could take for an address or a format.
        with os.fdopen(os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb") as file:
            container = sniff(file)
            file.seek(0)
            return _clip(file, container, size) if container else _picture(file, size)
    except PIL.UnidentifiedImageError:
        raise MediaError(f"{name}: is no picture, video or sound of a known format") from None
    except (OSError, SyntaxError, ValueError, av.FFmpegError) as cause:  # SyntaxError: how Pillow says "broken PNG"
        raise MediaError(f"{name}: its header cannot be read ({cause}); get the original again") from cause


def _picture(file: Any, size: int) -> Header:
    with PIL.Image.open(file) as picture:
        tables: dict[int, list[int]] = getattr(picture, "quantization", None) or {}
        software = picture.info.get("Software") or picture.getexif().get(305)  # of PNG, of EXIF
        text = repr(sorted((number, list(table)) for number, table in tables.items()))
        layers = getattr(picture, "layer", None) if tables else None
        return Header(
            kind="image",
            bytes=size,
            format=f"{picture.format} {picture.mode}",
            encoder=str(software) if software else None,
            width=picture.width,
            height=picture.height,
            tables=hashlib.sha256(text.encode()).hexdigest()[:12] if tables else None,
            subsampling=" ".join(f"{layer[1]}x{layer[2]}" for layer in layers) if layers else None,
        )


def _clip(file: Any, container: str, size: int) -> Header:
    only = {"protocol_whitelist": "file", "format_whitelist": container}
    with av.open(file, format=container, container_options=only, metadata_errors="replace", io_open=_refuse) as clip:
        videos = [s for s in clip.streams if isinstance(s, VideoStream) and not s.disposition & _COVER]
        sounds = [s for s in clip.streams if isinstance(s, AudioStream)]
        codecs = " ".join(s.codec_context.name for s in (*videos, *sounds))
        tags = {**clip.metadata, **{k: v for s in videos for k, v in s.metadata.items() if k == "encoder"}}
        lengths = [float(s.duration * s.time_base) for s in (*videos, *sounds) if s.duration and s.time_base]
        duration = max(lengths) if lengths else clip.duration / av.time_base if clip.duration else None
        video, sound = videos[0] if videos else None, sounds[0] if sounds else None
        return Header(
            kind="video" if video else "audio",
            bytes=size,
            format=f"{container} {codecs}",
            encoder=tags.get("encoder") or tags.get("major_brand"),
            width=video.codec_context.width if video else None,
            height=video.codec_context.height if video else None,
            duration=duration,
            fps=float(video.average_rate) if video and video.average_rate else None,
            rate=sound.codec_context.sample_rate if sound else None,
            channels=sound.codec_context.channels if sound else None,
        )


_COVER = av.stream.Disposition.attached_pic


def _refuse(url: str, *_: Any) -> Any:
    """Files from strangers open no other files."""
    raise PermissionError(f"refused to open {url}")
