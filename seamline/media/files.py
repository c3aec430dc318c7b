"""Files before they are opened: what they may cost, what their first bytes say they are, and lists of them."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import stat
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import MediaError

# What a name's ending promises: the formats of Pillow. MPO is a JPEG followed by further pictures.
PICTURES = {
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".jpe": ("JPEG", "MPO"),
    ".mpo": ("JPEG", "MPO"),
    ".png": ("PNG",),
    ".apng": ("PNG",),
    ".webp": ("WEBP",),
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".avif": ("AVIF",),
    ".bmp": ("BMP",),
    ".dib": ("BMP", "DIB"),
    ".gif": ("GIF",),
    ".heic": ("HEIF",),
    ".heif": ("HEIF",),
}
# The same for video and sound: the containers of FFmpeg, and the only ones that are ever tried.
CLIPS = {
    ".mp4": ("mov",),
    ".m4v": ("mov",),
    ".mov": ("mov",),
    ".qt": ("mov",),
    ".3gp": ("mov",),
    ".3g2": ("mov",),
    ".m4a": ("mov",),
    ".m4b": ("mov",),
    ".mkv": ("matroska",),
    ".mka": ("matroska",),
    ".webm": ("matroska",),
    ".avi": ("avi",),
    ".mpg": ("mpeg", "mpegts"),
    ".mpeg": ("mpeg", "mpegts"),
    ".vob": ("mpeg",),
    ".ts": ("mpegts",),
    ".mts": ("mpegts",),
    ".m2ts": ("mpegts",),
    ".flv": ("flv",),
    ".wmv": ("asf",),
    ".wma": ("asf",),
    ".asf": ("asf",),
    ".ogg": ("ogg",),
    ".oga": ("ogg",),
    ".ogv": ("ogg",),
    ".opus": ("ogg",),
    ".wav": ("wav",),
    ".flac": ("flac",),
    ".mp3": ("mp3",),
    ".mp2": ("mp3",),
    ".aac": ("aac",),
    ".amr": ("amr",),
    ".aif": ("aiff",),
    ".aiff": ("aiff",),
    ".aifc": ("aiff",),
}
EXTENSIONS = frozenset(PICTURES) | frozenset(CLIPS)
ARCHIVES = frozenset({".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz"})
KNOWN = (
    "pictures: JPEG, PNG, WebP, TIFF, AVIF, BMP, GIF and HEIC; video and sound: MP4, MOV, MKV, WebM, AVI, MPEG, FLV,"
    " WMV, OGG, WAV, FLAC, MP3, AAC, AMR and AIFF"
)
HEAD = 2**16  # bytes that are enough to know a format by
_TAG = 64 * 2**20  # bytes of ID3 tags that are skipped; a cover picture is seldom larger

# Length of the frames of MPEG audio. Kilobits a second by (MPEG-1 or not, layer) and index, kilohertz by version.
_KBIT = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HERTZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True)
class Limits:
    """What a file may cost.

    Of a picture: decoded ``pixels``, and ``bytes`` on disk, which are read at once. Of a clip, which is read piece by
    piece: ``clip_bytes`` on disk, ``duration`` in seconds, ``frame`` in pixels of one frame, ``streams`` in the file,
    ``header`` in bytes that must be read before the first packet: indices, metadata, attachments.
    """

    pixels: int = 200_000_000
    bytes: int = 512 * 2**20
    clip_bytes: int = 256 * 2**30
    duration: float = 8 * 3600.0
    frame: int = 8192 * 8192
    streams: int = 64
    header: int = 48 * 2**20


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what the system says of a path into a :class:`MediaError`."""
    try:
        yield
    except FileNotFoundError as cause:
        hint = "only local files are read, download it first" if "://" in path else "check the name"
        raise MediaError(f"{path}: no such file; {hint}") from cause
    except PermissionError as cause:
        raise MediaError(f"{path}: no permission to read it; check its owner and mode") from cause
    except (OSError, ValueError) as cause:  # ValueError: a null byte in the name
        why = getattr(cause, "strerror", None) or cause
        raise MediaError(f"{path!r}: cannot be read ({why}); check the name and the disk") from cause


def regular(path: str) -> os.stat_result:
    """The status of a file that can be read.

    Raises:
        MediaError: missing, closed to us, a folder, a device, a pipe, or no path at all.
    """
    with explained(path):
        status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise MediaError(f"{path}: is a folder, not a file; name the files in it, or scan the folder")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path}: is a device, pipe or socket, not a file; save it to a file first")
    return status


def digest(path: str, size: int) -> str:
    """SHA-256 of a file of ``size`` bytes, read piece by piece.

    Raises:
        MediaError: not readable, or its size changed meanwhile.
    """
    with explained(path), open(path, "rb", buffering=0) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if file.tell() != size:
            raise MediaError(f"{path}: changed while it was read; try again when it is complete")
    return sha256


def too_many_bytes(path: str, size: int, limit: int, name: str = "bytes") -> MediaError:
    """What to say of a file above a limit of its bytes."""
    return MediaError(
        f"{path}: {size} bytes are more than the limit of {limit}; make it smaller, or raise Limits({name}=...)"
    )


def named_otherwise(path: str, content: str) -> str:
    """A warning if the ending of a name promises another format than the content is, else an empty string."""
    suffix = Path(path).suffix.lower()
    promised = PICTURES.get(suffix) or CLIPS.get(suffix)
    return f"the name ends in {suffix}, but the content is {content}" if promised and content not in promised else ""


def expand(paths: Iterable[str | os.PathLike[str]], *, endings: Container[str] = EXTENSIONS) -> list[Path]:
    """Files, folders and glob patterns to a list of files, each once, in the order given.

    A folder stands for the pictures, videos and sounds below it, known by their ``endings``, sorted, hidden ones left
    out. A file that is named, or that a pattern matches, is kept whatever its ending. What does not exist or cannot be
    listed is kept too, so that opening it says what is wrong and a batch goes on.
    """
    found: list[Path] = []
    for path in paths:
        text = os.fspath(path)
        # A name may hold brackets, so what exists is taken at its word first.
        named = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True)) or [text]
        for name in named:
            found.extend(_walk(name, endings) if os.path.isdir(name) else [Path(name)])
    return list(dict.fromkeys(found))


def _walk(folder: str, endings: Container[str]) -> list[Path]:
    """The media below a folder, sorted; a folder that cannot be listed stands for itself."""
    found: list[Path] = []
    closed: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=lambda error: closed.append(Path(str(error.filename)))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in names if not name.startswith(".") and ending(name) in endings]
    return sorted(found + closed)


def ending(name: str) -> str:
    """The ending of a name in lower case, with its dot; both endings of a packed tar."""
    stem, last = os.path.splitext(name.lower())
    return f".tar{last}" if stem.endswith(".tar") and f".tar{last}" in ARCHIVES else last


def sniff(file: BinaryIO) -> str | None:
    """The container that a file is, by its first bytes: a name of FFmpeg's, or ``None`` for anything but a clip.

    Texts, playlists among them, and pictures are never a clip, whatever their name.
    """
    file.seek(0)
    head = file.read(HEAD)
    start = 0
    while head[:3] == b"ID3" and len(head) >= 10 and start < _TAG:  # tags may follow each other
        high, mid, low, last = head[6:10]
        start += 10 + (high << 21 | mid << 14 | low << 7 | last) + (10 if head[5] & 0x10 else 0)
        file.seek(start)
        head = file.read(HEAD)
    file.seek(0)
    if start:  # such tags lie before these alone
        return "flac" if head[:4] == b"fLaC" else _mpeg_audio(head.lstrip(b"\0"))
    return _by_magic(head) or _mpeg_audio(head)


def _by_magic(head: bytes) -> str | None:
    kind = head[4:8]
    if kind == b"ftyp" and (head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")):
        return None
    if kind == b"ftyp" and head[8:12] in (b"mif1", b"msf1"):
        return None
    if kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp", b"moof", b"sidx"):
        return "mov"
    if head.startswith((b"RIFF", b"RF64")):
        return {b"AVI ": "avi", b"WAVE": "wav"}.get(head[8:12])
    if head.startswith(b"FORM"):
        return "aiff" if head[8:12] in (b"AIFF", b"AIFC") else None
    magics = {
        b"\x1aE\xdf\xa3": "matroska",
        b"OggS": "ogg",
        b"fLaC": "flac",
        b"FLV\x01": "flv",
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
        b"#!AMR": "amr",
        b"\0\0\x01\xba": "mpeg",
    }
    for magic, name in magics.items():
        if head.startswith(magic):
            return name
    for size, sync in ((188, 0), (192, 4), (204, 0)):  # packets of a transport stream; 192 has a time before each
        if len(head) > sync + 2 * size and all(head[sync + i * size] == 0x47 for i in range(min(5, len(head) // size))):
            return "mpegts"
    return None


def _mpeg_audio(head: bytes) -> str | None:
    """``mp3`` or ``aac`` if, after little junk, whole frames follow each other: three, or two, or all there are."""
    for start in range(min(len(head), 4096)):
        if head[start] != 0xFF:
            continue
        at, frames, kinds = start, 0, set()
        while frames < 3 and (found := _frame(head[at : at + 6])):
            kind, length = found
            kinds.add(kind)
            at += length
            frames += 1
        # A file may end within its only frames; then they must begin it.
        if len(kinds) == 1 and (frames == 3 or (frames and at >= len(head) and start == 0)):
            return kinds.pop()
    return None


def _frame(head: bytes) -> tuple[str, int] | None:
    """Kind and length in bytes of a frame of MPEG audio or ADTS that begins here, from its header."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    if head[1] & 0xF6 == 0xF0:  # ADTS
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return ("aac", length) if length > 7 and head[2] >> 2 & 15 < 13 else None
    index, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or index in (0, 15) or rate == 3:
        return None
    bits, hertz, padding = _KBIT[version == 3, layer][index] * 1000, _HERTZ[version][rate], head[2] >> 1 & 1
    if layer == 1:
        return "mp3", (12 * bits // hertz + padding) * 4
    return "mp3", (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding
