"""One small whole file of every format, made here, and how to take it apart and put it together again.

``split`` gives the parts that a format is made of (chunks, boxes, segments, lines), ``join`` makes a file of such parts
again with lengths and checksums put right, so that a mutated part gets past the first check of a reader.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from seamline import zoo
from seamline.detectors.loupe import build
from seamline.report import Media, Region, Report, Segment
from tests import bombs
from tests.films import film, picture, tone

Parts = list[bytes]


@dataclass(frozen=True)
class Format:
    """A format: how a file of it is named, made, taken apart and put together."""

    suffix: str
    make: Callable[[], bytes]
    split: Callable[[bytes], Parts]
    join: Callable[[Parts], bytes]


def _photo(kind: str, **options: object) -> bytes:
    y, x = np.mgrid[0:48, 0:64]
    pixels = np.stack([x * 4, y * 5, (x * y) % 256], 2).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _film(container: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    film(buffer, [picture(i, 64, 48) for i in range(12)], tone(0.5), format=container, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _sound(container: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    film(buffer, sound=tone(0.5), format=container, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", _photo("PNG"))
        archive.writestr("folder/b.jpg", _photo("JPEG"))
        archive.writestr("notes.txt", "no picture")
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (("a.png", _photo("PNG")), ("f/b.gif", _photo("GIF"))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _report() -> bytes:
    report = Report(
        Media("a.mp4", "00" * 32, 10, "video", "mov", 64, 48, 1.0, 25.0, 16000, 1),
        "forged",
        0.9,
        0.5,
        regions=(Region((0, 0, 9, 9), 0.8, 81),),
        segments=(Segment(0.1, 0.5, 0.7, "video"),),
        proposals=((0.9, 0.1, 0.5),),
        modalities={"video": 0.9},
        streams={"video": "scored"},
    )
    return report.to_json().encode()


def _recipe() -> bytes:
    return (Path(__file__).parents[2] / "recipes" / "loupe-tiny.toml").read_bytes()


def _weights() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        zoo.save(build("loupe-tiny"), path, threshold=0.5)
        return path.read_bytes()


def _whole(data: bytes) -> Parts:
    return [data]


def _lines(data: bytes) -> Parts:
    return data.splitlines(keepends=True)


def _blocks(data: bytes) -> Parts:
    return [data[at : at + 64] for at in range(0, len(data), 64)]


def _split_png(data: bytes) -> Parts:
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        parts.append(data[at + 4 : at + 8 + size])
        at += 12 + size
    return parts


def _join_png(parts: Parts) -> bytes:
    chunks = (struct.pack(">I", max(0, len(p) - 4)) + p + struct.pack(">I", zlib.crc32(p)) for p in parts[1:])
    return parts[0] + b"".join(chunks)


def _split_jpeg(data: bytes) -> Parts:
    parts, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4])
        parts.append(data[at : at + 2] + data[at + 4 : at + 2 + size])
        at += 2 + size
    return [*parts, data[at:]]


def _join_jpeg(parts: Parts) -> bytes:
    middle = (p[:2] + struct.pack(">H", min(65535, len(p))) + p[2:] for p in parts[1:-1])
    return parts[0] + b"".join(middle) + (parts[-1] if len(parts) > 1 else b"")


def _split_riff(data: bytes) -> Parts:
    parts, at = [data[8:12]], 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append(data[at : at + 4] + data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return parts


def _join_riff(parts: Parts) -> bytes:
    chunks = (p[:4] + struct.pack("<I", max(0, len(p) - 4)) + p[4:] + b"\0" * (len(p) % 2) for p in parts[1:])
    body = parts[0] + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


_NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts")


def _split_boxes(data: bytes) -> Parts:
    """Boxes in order, each with its depth in its first byte; those that hold boxes are empty and followed by these."""
    parts: Parts = []

    def walk(data: bytes, depth: int) -> None:
        at = 0
        while at + 8 <= len(data):
            size = int.from_bytes(data[at : at + 4]) or len(data) - at
            kind, body = data[at + 4 : at + 8], data[at + 8 : at + max(8, size)]
            nested = kind in _NESTED
            parts.append(bytes([depth]) + kind + (b"" if nested else body))
            if nested:
                walk(body, depth + 1)
            at += max(8, size)

    walk(data, 0)
    return parts


def _join_boxes(parts: Parts) -> bytes:
    def build(at: int, depth: int) -> tuple[bytes, int]:
        out = b""
        while at < len(parts) and (parts[at] or b"\0")[0] >= depth:
            part = parts[at] or b"\0"
            inner, after = build(at + 1, depth + 1) if part[1:5] in _NESTED else (b"", at + 1)
            body = part[1:5].ljust(4, b"\0") + part[5:] + inner
            out, at = out + struct.pack(">I", 4 + len(body)) + body, after
        return out, at

    out, at = b"", 0
    while at < len(parts):
        more, after = build(at, min((parts[at] or b"\0")[0], 8))
        out, at = out + more, max(after, at + 1)
    return out


def _split_tar(data: bytes) -> Parts:
    return [data[at : at + 512] for at in range(0, len(data), 512)]


def _join_tar(parts: Parts) -> bytes:
    blocks = []
    for part in parts:
        block = part.ljust(512, b"\0")
        if block[257:262] == b"ustar":
            clear = block[:148] + b" " * 8 + block[156:512]
            block = clear[:148] + b"%06o\0 " % (sum(clear) & 0o777777) + clear[156:] + block[512:]
        blocks.append(block)
    return b"".join(blocks)


def _split_tiff(data: bytes) -> Parts:
    """Byte order, what all offsets point into, and the entries of the directory."""
    at = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[at : at + 2], "little")
    last = at + 2 + 12 * count + 4 == len(data)
    body = data[8:at] if last else data[8:]
    return [data[:4], body, *(data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count))]


def _join_tiff(parts: Parts) -> bytes:
    """The directory goes to the end, so that the offsets still hold."""
    if len(parts) < 2:
        return b"".join(parts)
    entries = b"".join(parts[2:])
    count = struct.pack("<H", min(65535, len(entries) // 12))
    return parts[0] + struct.pack("<I", 8 + len(parts[1])) + parts[1] + count + entries + bytes(4)


def _split_ogg(data: bytes) -> Parts:
    parts, at = [], 0
    while data[at : at + 4] == b"OggS":
        end = at + 27 + data[at + 26] + sum(data[at + 27 : at + 27 + data[at + 26]])
        parts.append(data[at:end])
        at = end
    return parts


def _join_ogg(parts: Parts) -> bytes:
    out = b""
    for part in parts:
        page = part.ljust(27, b"\0")
        page = page[:22] + bytes(4) + page[26:]
        crc = 0
        for byte in page:
            crc = ((crc << 8) & 0xFFFFFFFF) ^ _OGG[(crc >> 24) ^ byte]
        out += page[:22] + struct.pack("<I", crc) + page[26:]
    return out


def _ogg_table() -> list[int]:
    table = []
    for number in range(256):
        crc = number << 24
        for _ in range(8):
            crc = ((crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
        table.append(crc)
    return table


_OGG = _ogg_table()
_SEGMENT = b"\x18\x53\x80\x67"


def _split_ebml(data: bytes) -> Parts:
    """The head, then the elements of the segment, each its number and body."""

    def element(at: int) -> tuple[bytes, int, int]:
        wide = 9 - data[at].bit_length()
        size_at = at + wide
        long = 9 - data[size_at].bit_length()
        size = int.from_bytes(data[size_at : size_at + long]) & ((1 << 7 * long) - 1)
        body = size_at + long
        return data[at:size_at], body, len(data) if size == (1 << 7 * long) - 1 else body + size

    _, _, end = element(0)
    parts, at = [data[:end]], element(end)[1]
    while at < len(data):
        number, body, end = element(at)
        parts.append(bytes([len(number)]) + number + data[body:end])
        at = end
    return parts


def _join_ebml(parts: Parts) -> bytes:
    body = b""
    for part in parts[1:]:
        wide = min(max(part[:1], b"\1")[0], 8)
        content = part[1 + wide :]
        body += part[1 : 1 + wide] + struct.pack(">Q", 0x0100000000000000 | len(content)) + content
    return parts[0] + _SEGMENT + struct.pack(">Q", 0x0100000000000000 | len(body)) + body


def _split_weights(data: bytes) -> Parts:
    size = int.from_bytes(data[:8], "little")
    return [*data[8 : 8 + size].replace(b",", b",\n").splitlines(keepends=True), data[8 + size :]]


def _join_weights(parts: Parts) -> bytes:
    text = b"".join(parts[:-1]).replace(b",\n", b",")
    return struct.pack("<Q", len(text)) + text + parts[-1]


_PCM = {"acodec": "pcm_s16le", "sample_format": "s16"}
_REAL = {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}, "acodec": "libopus"}
_OPUS = {"acodec": "libopus", "sample_format": "flt", "muxer": {"page_duration": "100000"}}

FORMATS: dict[str, Format] = {
    "jpeg": Format(".jpg", lambda: _photo("JPEG", quality=90, exif=PIL.Image.Exif()), _split_jpeg, _join_jpeg),
    "jpeg-progressive": Format(".jpg", lambda: _photo("JPEG", progressive=True), _split_jpeg, _join_jpeg),
    "png": Format(".png", lambda: _photo("PNG"), _split_png, _join_png),
    "webp": Format(".webp", lambda: _photo("WEBP", quality=80), _split_riff, _join_riff),
    "tiff": Format(".tif", lambda: _photo("TIFF", compression="tiff_lzw"), _split_tiff, _join_tiff),
    "gif": Format(".gif", lambda: _photo("GIF"), _blocks, b"".join),
    "bmp": Format(".bmp", lambda: _photo("BMP"), _blocks, b"".join),
    "avif": Format(".avif", lambda: _photo("AVIF", quality=60), _split_boxes, _join_boxes),
    "mp4": Format(".mp4", lambda: _film("mp4"), _split_boxes, _join_boxes),
    "mov": Format(".mov", lambda: bombs.mp4(0.5, 2, bytes(8000)), _split_boxes, _join_boxes),
    "mkv": Format(".mkv", lambda: _film("matroska", codec="mpeg4"), _split_ebml, _join_ebml),
    "webm": Format(".webm", lambda: _film("webm", **_REAL), _split_ebml, _join_ebml),
    "avi": Format(".avi", lambda: _film("avi", codec="mjpeg", pix_fmt="yuvj420p", **_PCM), _split_riff, _join_riff),
    "wav": Format(".wav", lambda: _sound("wav", **_PCM), _split_riff, _join_riff),
    "mp3": Format(".mp3", lambda: _sound("mp3", acodec="libmp3lame"), _blocks, b"".join),
    "ogg": Format(".ogg", lambda: _sound("ogg", **_OPUS), _split_ogg, _join_ogg),
    "flac": Format(".flac", lambda: _sound("flac", acodec="flac", sample_format="s16"), _blocks, b"".join),
    "mpegts": Format(".ts", lambda: _film("mpegts", codec="mpeg2video"), _blocks, b"".join),
    "zip": Format(".zip", _zip, _blocks, b"".join),
    "tar": Format(".tar", _tar, _split_tar, _join_tar),
    "tar.gz": Format(
        ".tar.gz",
        lambda: gzip.compress(_tar()),
        lambda d: _split_tar(gzip.decompress(d)),
        lambda p: gzip.compress(_join_tar(p), 1),
    ),
    "report": Format(".json", _report, lambda data: re.split(rb"(?<=,)", data), b"".join),
    "recipe": Format(".toml", _recipe, _lines, b"".join),
    "safetensors": Format(".safetensors", _weights, _split_weights, _join_weights),
}
