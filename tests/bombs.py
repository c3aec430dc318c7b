"""Small files that ask for far more than they are worth. Each is made here, byte by byte where no library would."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import PIL.Image


def png(width: int, height: int, body: bytes | None = None) -> bytes:
    """A PNG of 1-bit zeros, or with a body of any kind."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    if body is None:
        packer, row = zlib.compressobj(9), bytes((width + 7) // 8 + 1)
        body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff(width: int, height: int, strips: int = 1, pages: int = 1) -> bytes:
    """A deflated grey TIFF whose strips are all the same few bytes, with ``pages`` directories."""
    rows = -(-height // strips)
    packed = zlib.compress(bytes(min(width * rows, 2**20)), 9)
    data = bytearray(b"II*\0" + struct.pack("<I", 8 + len(packed) + len(packed) % 2))
    data += packed + b"\0" * (len(packed) % 2)
    for page in range(pages):
        at = len(data) + 2 + 9 * 12 + 4
        arrays = struct.pack(f"<{strips}I", *[8] * strips) + struct.pack(f"<{strips}I", *[len(packed)] * strips)
        inline = strips == 1
        tags = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
            (273, 4, strips, 8 if inline else at), (277, 3, 1, 1), (278, 4, 1, rows),
            (279, 4, strips, len(packed) if inline else at + 4 * strips),
        ]  # fmt: skip
        following = 0 if page == pages - 1 else at + (0 if inline else len(arrays))
        data += (
            struct.pack("<H", 9) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", following)
        )
        data += b"" if inline else arrays
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    """An animated WebP of one small frame on a canvas of the given size."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (16, 16)).save(buffer, "WEBP")
    frame = buffer.getvalue()[12:]
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    place = bytes(6) + b"\x0f\0\0\x0f\0\0" + b"\x64\0\0\0"
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, 2) + size + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(place) + len(frame)) + place + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(width: int, height: int, frames: int = 1) -> bytes:
    """A GIF with a large screen and many tiny frames."""
    frame = b"\x21\xf9\x04\0\0\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * frames + b"\x3b"


def zips(depth: int, width: int = 10, size: int = 2**20) -> bytes:
    """A zip of ``width`` zips of ... of zeros that call themselves a picture."""
    data, name = bytes(size), "zeros.bmp"
    for level in range(depth):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for i in range(width):
                archive.writestr(f"{i}-{name}", data)
        data, name = buffer.getvalue(), f"{level}.zip"
    return data


def wav(samples: int, rate: int = 48000, data: bytes = bytes(1600)) -> bytes:
    """An 8-bit WAV whose header promises so many samples."""
    form = struct.pack("<HHIIHH", 1, 1, rate, rate, 1, 8)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", samples) + data
    return b"RIFF" + struct.pack("<I", min(samples + 36, 2**32 - 1)) + body


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of an MP4."""
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def mp4(seconds: float, streams: int = 1, data: bytes = bytes(64)) -> bytes:
    """An MP4 of silence (8 kHz, 8 bit) whose tables promise so many seconds in so many streams, and hold nothing."""
    count = int(seconds * 8000)
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)

    def track(number: int) -> bytes:
        tkhd = box(
            b"tkhd", struct.pack(">IIIIII", 7, 0, 0, number, 0, int(seconds * 1000)), bytes(16), matrix, bytes(8)
        )
        mdhd = box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 8000, count, 0x55C4, 0))
        hdlr = box(b"hdlr", bytes(8), b"soun", bytes(13))
        entry = box(b"raw ", bytes(6), struct.pack(">H", 1), bytes(8), struct.pack(">HHHHI", 1, 8, 0, 0, 8000 << 16))
        stbl = box(
            b"stbl",
            box(b"stsd", struct.pack(">II", 0, 1), entry),
            box(b"stts", struct.pack(">IIII", 0, 1, count, 1)),
            box(b"stsc", struct.pack(">IIIII", 0, 1, 1, count, 1)),
            box(b"stsz", struct.pack(">III", 0, 1, count)),
            box(b"stco", struct.pack(">III", 0, 1, 40)),
        )
        dinf = box(b"dinf", box(b"dref", struct.pack(">II", 0, 1), box(b"url ", struct.pack(">I", 1))))
        minf = box(b"minf", box(b"smhd", bytes(8)), dinf, stbl)
        return box(b"trak", tkhd, box(b"mdia", mdhd, hdlr, minf))

    mvhd = box(
        b"mvhd",
        struct.pack(">IIIIIIH", 0, 0, 0, 1000, int(seconds * 1000), 0x10000, 0x100),
        bytes(10),
        matrix,
        bytes(28),
    )
    tracks = [track(number + 1) for number in range(streams)]
    head = box(b"ftyp", b"isom", bytes(4), b"isommp41")
    return head + box(b"mdat", data) + box(b"moov", mvhd, *tracks)


def mkv_attachment(size: int) -> bytes:
    """The head of a Matroska file with an attachment of zeros and nothing else."""

    def element(number: bytes, body: bytes) -> bytes:
        return number + struct.pack(">Q", 0x0100000000000000 | len(body)) + body

    head = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"matroska"))
    file = (
        element(b"\x46\x6e", b"a.bin")
        + element(b"\x46\x60", b"a/b")
        + element(b"\x46\x5c", bytes(size))
        + element(b"\x46\xae", b"\1")
    )
    return head + element(b"\x18\x53\x80\x67", element(b"\x19\x41\xa4\x69", element(b"\x61\xa7", file)))


def write(folder: Path) -> dict[str, Path]:
    """All of them, by name, each well over a limit of a kind."""
    bombs = {
        "png": png(20_000, 20_000),
        "tiff": tiff(60_000, 60_000, 60),
        "tiff-pages": tiff(100, 100, pages=50_000),
        "webp": webp(16_383, 16_383),
        "gif": gif(65_535, 65_535),
        "gif-frames": gif(64, 64, 100_000),
        "zip": zips(4),
        "zip-wide": zips(1, 40, 4 * 2**20),
        "zip-deep": zips(2, 80, 2**20),
        "mp4-hours": mp4(36_000.0),
        "mp4-streams": mp4(1.0, 100_000),
        "wav": wav(4_000_000_000),
        "mkv-attachment": mkv_attachment(60 * 2**20),
    }
    paths = {}
    for name, data in bombs.items():
        paths[name] = folder / f"{name}.{'zip' if name.startswith('zip') else 'bin'}"
        paths[name].write_bytes(data)
    return paths
