"""Facts of a photo: EXIF, IPTC, XMP, JPEG tables, PNG text."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
from PIL import ExifTags, IptcImagePlugin

from ..errors import MediaError
from ..media import Clip, Image, jpeg, open_media
from ..media.files import Limits
from .credentials import credentials
from .fact import GENERATORS, LONGEST, MOST_TEXT, SOURCE_TYPES, Fact, software

COMB = 0.31  # of jpeg.comb, above which a photo seems to have been saved twice; docs/verdicts.md has its errors
MOST_CHUNKS = 20_000  # of a PNG file
_PICTURE_MIME = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heif",
    "GIF": "image/gif",
}


def photo_facts(path: str, data: bytes, coordinates: bool, trust: str | None, limits: Limits) -> list[Fact]:
    """Facts of a photo from its bytes."""
    image = open_media(data, limits=limits) if path == "<bytes>" else _named(path, data, limits)
    assert isinstance(image, Image)
    kind = image.format or ""
    facts = credentials(io.BytesIO(data), _PICTURE_MIME.get(kind, ""), trust)
    with contextlib.suppress(Exception), PIL.Image.open(io.BytesIO(data)) as picture:  # header only; damage ends it
        exif = picture.getexif()
        facts += _exif_facts(exif, (image.width, image.height), coordinates)
        facts += _iptc_facts(picture)
    facts += _xmp_facts(data)
    if kind in ("JPEG", "MPO"):
        facts += _jpeg_facts(data)
    if kind == "PNG":
        facts += _png_facts(data)
    for says in image.says:
        words = {"synthetic": "that a model generated the picture", "screenshot": "that it is a screenshot"}[says]
        facts.append(Fact("metadata", "says", says, f"the file's own metadata say {words}", odd=True))
    return facts


def _named(path: str, data: bytes, limits: Limits) -> Image | Clip:
    """The photo, with its path in what goes wrong."""
    try:
        return open_media(data, limits=limits)
    except MediaError as cause:
        raise MediaError(str(cause).replace("<bytes>", path, 1)) from cause


def _exif_facts(exif: PIL.Image.Exif, size: tuple[int, int], coordinates: bool) -> list[Fact]:
    """Camera, software, times, place and size, as EXIF has them."""
    facts: list[Fact] = []
    if not len(exif):
        return [Fact("metadata", "exif", False, "most services strip it")]
    facts.append(Fact("metadata", "exif", True))
    detail = dict(exif.get_ifd(ExifTags.IFD.Exif))
    tags = dict(exif) | detail

    def text(tag: int) -> str:
        value = tags.get(tag, "")
        value = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        return value.strip("\0 ")

    base = ExifTags.Base
    camera = " ".join(dict.fromkeys(filter(None, (text(base.Make), text(base.Model)))))
    for name, value in (("camera", camera), ("lens", text(base.LensModel))):
        if value:
            facts.append(Fact("metadata", name, value))
    if program := text(base.Software):
        facts.append(software(program))
    times = {"taken_at": base.DateTimeOriginal, "digitized_at": base.DateTimeDigitized, "changed_at": base.DateTime}
    found = {name: text(tag) for name, tag in times.items() if text(tag)}
    for name, value in found.items():
        later = name == "changed_at" and "taken_at" in found and value > found["taken_at"]
        note = (
            "by the clock of the camera"
            if name == "taken_at"
            else "later than it was taken: saved again"
            if later
            else ""
        )
        facts.append(Fact("metadata", name, value, note, odd=later))
    if camera:
        note = "cameras write them, many editors drop them"
        facts.append(Fact("metadata", "maker_notes", base.MakerNote in detail, note))
    stored = tuple(
        int(tags[tag]) for tag in (base.ExifImageWidth, base.ExifImageHeight) if str(tags.get(tag, "")).isdigit()
    )
    if len(stored) == 2 and min(stored) > 0 and sorted(stored) != sorted(size):
        note = f"the picture has {size[0]}x{size[1]}: it was cropped or resized since"
        facts.append(Fact("metadata", "size_in_exif", f"{stored[0]}x{stored[1]}", note, odd=True))
    gps = dict(exif.get_ifd(ExifTags.IFD.GPSInfo))
    place = _place(gps)
    facts.append(Fact("metadata", "place", place is not None, "the place is stored" if place else ""))
    if place and coordinates:
        facts.append(Fact("metadata", "coordinates", f"{place[0]:.6f}, {place[1]:.6f}"))
    return facts


def _place(gps: dict[int, Any]) -> tuple[float, float] | None:
    """Latitude and longitude in degrees of an EXIF GPS directory; ``None`` if it has none."""
    try:
        (a, b, c), (d, e, f) = ([float(part) for part in gps[tag]] for tag in (2, 4))
        north, east = str(gps.get(1, "N"))[:1], str(gps.get(3, "E"))[:1]
        place = (
            (a + b / 60 + c / 3600) * (-1 if north == "S" else 1),
            (d + e / 60 + f / 3600) * (-1 if east == "W" else 1),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return place if all(np.isfinite(place)) else None


def _iptc_facts(picture: PIL.Image.Image) -> list[Fact]:
    """What an agency wrote into the photo (IPTC-IIM)."""
    with contextlib.suppress(Exception):  # of a rare format, whose reader raises nearly anything
        info = IptcImagePlugin.getiptcinfo(picture) or {}  # type: ignore[arg-type]  # it is what open gives
        names = {(2, 80): "byline", (2, 110): "credit", (2, 115): "agency", (2, 116): "copyright", (2, 65): "program"}
        return [
            Fact("metadata", name, value.decode("utf-8", "replace"))
            for key, name in names.items()
            if isinstance(value := info.get(key), bytes)
        ]
    return []


_XMP = {  # name of the fact: property
    "creator_tool": "xmp:CreatorTool",
    "created_at": "xmp:CreateDate",
    "modified_at": "xmp:ModifyDate",
    "source_type": "Iptc4xmpExt:DigitalSourceType",
    "credit_line": "photoshop:Credit",
}


def _xmp_facts(data: bytes) -> list[Fact]:
    """Tools, times and history in XMP. It is searched, not parsed, so that hostile XML does nothing."""
    start = data.find(b"<x:xmpmeta")
    if start < 0:
        return []
    text = data[start : start + MOST_TEXT].split(b"</x:xmpmeta", 1)[0].decode("utf-8", "replace")
    facts = []
    for name, key in _XMP.items():
        found = re.search(rf"""{key}\s*(?:=\s*["']([^"'<>]{{1,400}})["']|>\s*([^<>]{{1,400}}?)\s*<)""", text)
        if not found:
            continue
        value = (found[1] or found[2]).strip()
        if name == "creator_tool":
            fact = software(value)
            facts.append(Fact("metadata", name, fact.value, fact.note, fact.odd))
        elif name == "source_type":
            value = value.rsplit("/", 1)[-1]
            odd = "rainedAlgorithmicMedia" in value
            facts.append(Fact("metadata", name, value, SOURCE_TYPES.get(value, ""), odd))
        else:
            facts.append(Fact("metadata", name, value))
    if steps := re.findall(r"""(?<!/)stEvt:action\s*(?:=\s*["']|>\s*)(\w{1,40})""", text[:MOST_TEXT]):
        value = ", ".join(dict.fromkeys(steps))
        facts.append(Fact("metadata", "history", value, f"{len(steps)} steps that an editor wrote down", odd=True))
    return facts


_SEGMENTS = {  # what application segments begin with: name
    (0xE0, b"JFIF"): "JFIF",
    (0xE1, b"Exif"): "EXIF",
    (0xE1, b"http://ns.adobe.com/xap"): "XMP",
    (0xE2, b"ICC_PROFILE"): "ICC",
    (0xE2, b"MPF"): "several pictures",
    (0xEB, b"JP"): "Content Credentials",
    (0xEC, b"Ducky"): "Photoshop, Save for Web",
    (0xED, b"Photoshop"): "Photoshop or IPTC",
    (0xEE, b"Adobe"): "Adobe",
}


def _jpeg_facts(data: bytes) -> list[Fact]:
    """Tables, coding, segments, what follows the picture, and a hint at a second save."""
    header = jpeg.read_header(data)
    if header is None:
        return [Fact("jpeg", "header", "unusual", "its tables cannot be read", odd=True)]
    quality, exact = jpeg.quality(header.tables[0])
    chroma = exact and all(
        table in (jpeg.as_table(quality), jpeg.as_table(quality, True)) for table in header.tables[1:]
    )
    family = "standard" if exact and chroma else "own"
    note = {
        "standard": "the tables of libjpeg, which most programs, services and some phones use",
        "own": "tables of its own, as most cameras, Photoshop and some phones write; the nearest quality is given",
    }[family]
    facts = [
        Fact("jpeg", "quality", quality, "of the last save, estimated from its table for luma"),
        Fact("jpeg", "tables", family, note),
        Fact("jpeg", "coding", header.coding, "" if header.coding == "baseline" else "cameras write baseline"),
        Fact("jpeg", "sampling", header.sampling),
    ]
    names = []
    for marker, head in header.segments:
        known = next((name for (m, magic), name in _SEGMENTS.items() if m == marker and head.startswith(magic)), None)
        names.append(known or ("comment" if marker == 0xFE else f"APP{marker - 0xE0}"))
    facts.append(Fact("jpeg", "segments", ", ".join(dict.fromkeys(names)) or "none"))
    facts += [software(head.decode("latin-1"), "jpeg") for marker, head in header.segments if marker == 0xFE][:3]
    if "Photoshop, Save for Web" in names:
        facts.append(Fact("jpeg", "software", "Photoshop", "it alone writes the segment Ducky", odd=True))
    end = data.rfind(b"\xff\xd9")
    if 0 <= end < len(data) - 2 and "several pictures" not in names and data[end + 2 :].strip(b"\0"):
        facts.append(Fact("jpeg", "bytes_after_the_end", len(data) - end - 2, "after the end of the picture", odd=True))
    with contextlib.suppress(Exception), PIL.Image.open(io.BytesIO(data)) as picture:
        picture.draft("YCbCr", picture.size)  # without the rounding of a conversion
        if picture.mode in ("YCbCr", "L"):
            comb = jpeg.comb(np.asarray(picture.getchannel(0)), header.tables[0])
            if comb is None:
                facts.append(Fact("jpeg", "saved_twice", "unknown", "too few or too fine coefficients to tell"))
            else:
                note = "the coefficients look saved once at another quality before" if comb > COMB else "no trace of it"
                said = "likely" if comb > COMB else "no sign"
                facts.append(Fact("jpeg", "saved_twice", said, f"{note} ({comb:.2f}, limit {COMB})", comb > COMB))
    return facts


def _png_facts(data: bytes) -> list[Fact]:
    """The text chunks of a PNG file, where generators leave their parameters."""
    facts = []
    for kind, body in _png_chunks(data):
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        key, _, rest = body.partition(b"\0")
        if kind == b"iTXt" and len(rest) >= 2:
            packed, rest = rest[0] == 1, rest[2:].split(b"\0", 2)[-1]
        else:
            packed, rest = kind == b"zTXt", rest[1:] if kind == b"zTXt" else rest
        if packed:
            with contextlib.suppress(zlib.error):
                rest = zlib.decompressobj().decompress(rest, MOST_TEXT)
        name = key[:79].decode("latin-1", "replace")
        value = rest[:MOST_TEXT].decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")
        if name == "XML:com.adobe.xmp":
            continue
        generated = name.lower() in ("parameters", "prompt", "workflow", "sd-metadata", "invokeai_metadata", "dream")
        generated = generated or bool(GENERATORS.search(value[:2000]))
        note = "a generator of pictures writes this" if generated else ""
        facts.append(Fact("text", _snake(name), value[: LONGEST + 1], note, odd=generated))
    return facts


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    for _ in range(MOST_CHUNKS):
        if at + 12 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            return
        yield kind, data[at + 8 : at + 8 + min(length, MOST_TEXT)]
        at += 12 + length


def _snake(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lower())[:60] or "text"
