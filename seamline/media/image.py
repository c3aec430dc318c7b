"""A photo becomes an :class:`Image`: upright 8-bit RGB pixels and the facts of the file.

Files come from strangers. Size and byte limits are checked from the header before any pixel is decoded, only listed
formats are tried, and whatever goes wrong comes out as one :class:`~seamline.errors.MediaError` with file and cause.

Pixel values are kept as the file stores them, because they are the evidence: colour profiles are not applied, and
nothing is resampled. Where 8-bit RGB cannot hold the file's values, ``Image.warnings`` says what was done.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ExifTags

from ..errors import MediaError
from . import jpeg
from .files import KNOWN, Limits, explained, named_otherwise, regular, sniff, too_many_bytes

# Only these formats are ever tried.
_TRIED = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP", "GIF")
_STRIP = 2**20  # pixels that leave Pillow at a time, so that a photo is never held more than twice
# Pillow's pixel limit and Python's warning filters belong to the whole process: one file is decoded at a time.
_PILLOW = threading.Lock()

# What a file says of itself, as bytes that only such metadata hold: IPTC's digital source types (in XMP and in Content
# Credentials), the parameters that generators write into PNG, and what phones call a screenshot in EXIF.
_CLAIMS = {
    "synthetic": (
        b"/digitalsourcetype/trainedAlgorithmicMedia",
        b"tEXtparameters\0",
        b"iTXtparameters\0",
        b"tEXtsd-metadata\0",
        b"tEXtinvokeai_metadata\0",
    ),
    "screenshot": (b"ASCII\0\0\0Screenshot", b"gnome-screenshot", b"/digitalsourcetype/screenCapture"),
}


@dataclass(frozen=True, eq=False)
class Image:
    """One picture as shown to a person.

    ``path`` is ``"<array>"`` or ``"<bytes>"`` for a picture that came from memory. ``sha256`` and ``bytes`` describe
    the very bytes that were decoded, ``format`` is what the content is (``"JPEG"``, ``"PNG"``, ...), whatever the
    name says; all three are ``None`` for an array. ``quality`` is that of the last JPEG save, 1 to 100, estimated from
    the quantisation tables; ``None`` for what is no JPEG. ``says`` are claims in the file's metadata, which nobody has
    verified: ``"synthetic"``, that a model generated the whole picture, and ``"screenshot"``.
    """

    pixels: npt.NDArray[np.uint8]  # (H, W, 3) RGB, EXIF orientation applied
    path: str
    sha256: str | None = None
    bytes: int | None = None
    format: str | None = None
    warnings: tuple[str, ...] = ()
    quality: int | None = None
    says: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Columns of ``pixels``."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows of ``pixels``."""
        return int(self.pixels.shape[0])


def open_image(source: str | os.PathLike[str] | bytes | npt.NDArray[Any], *, limits: Limits | None = None) -> Image:
    """Read one picture: JPEG, PNG, WebP, TIFF, AVIF, BMP, GIF, and HEIC with the ``heif`` extra.

    The content decides the format, not the name. The first frame or page of several is taken. Grey, palette, CMYK and
    1-bit pictures become RGB. Of 16-bit samples the high byte is kept; 32-bit grey is scaled to its white level.
    Transparent pixels are laid over white; opaque ones keep their stored RGB. An array is used as it is, not copied.

    Args:
        source: a path, the bytes of a file, or an array: uint8, (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA.
        limits: the largest file and picture to accept; ``None`` for ``Limits()``.

    Returns:
        The picture, with ``warnings`` for everything that its reader should know.

    Raises:
        MediaError: missing, not readable, empty, too large, truncated, or not a picture.
    """
    limits = limits or Limits()
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    if isinstance(source, bytes):
        path, data = "<bytes>", source
        if len(data) > limits.bytes:
            raise too_many_bytes(path, len(data), limits.bytes)
    else:
        path = os.fspath(source)
        data = _read(path, limits)
    notes: list[str] = []
    try:
        with _PILLOW, _our_limits(notes, limits.pixels if data[8:12] == b"WEBP" else None):
            pixels, kind = _decode(path, data, limits, notes)
    except MediaError:
        raise
    except MemoryError as cause:
        raise MediaError(f"{path}: not enough memory to decode it; make it smaller or free some memory") from cause
    except Exception as cause:  # decoders raise nearly anything on hostile bytes, and none of it may end a batch
        why = str(cause) or type(cause).__name__
        raise MediaError(f"{path}: damaged or cut off, it cannot be decoded ({why}); get the original again") from cause
    if odd := named_otherwise(path, kind):
        notes.insert(0, odd)
    return Image(
        pixels=pixels,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        format=kind,
        warnings=tuple(dict.fromkeys(notes)),
        quality=jpeg.quality(header.tables[0])[0] if (header := jpeg.read_header(data)) else None,
        says=tuple(code for code, marks in _CLAIMS.items() if any(mark in data for mark in marks)),
    )


def _from_array(array: npt.NDArray[Any], limits: Limits) -> Image:
    grey = array.ndim == 2
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise MediaError(
            f"<array>: {array.dtype} of shape {array.shape} is not a picture;"
            " give uint8 of shape (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA"
        )
    if array.size == 0:
        raise MediaError(f"<array>: shape {array.shape} holds no pixels")
    if array.shape[0] * array.shape[1] > limits.pixels:
        raise _too_many_pixels("<array>", array.shape[1], array.shape[0], limits)
    notes: list[str] = []
    if grey or array.shape[2] == 1:
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    elif array.shape[2] == 4:
        array = _over_white(array, notes)
    return Image(np.ascontiguousarray(array), "<array>", warnings=tuple(notes))


def _read(path: str, limits: Limits) -> bytes:
    """The bytes of a regular file, once, never more than the limit."""
    size = regular(path).st_size
    if size > limits.bytes:
        raise too_many_bytes(path, size, limits.bytes)
    with explained(path), open(path, "rb") as file:
        data = file.read(size + 1)
    if len(data) != size:
        raise MediaError(f"{path}: changed while it was read; try again when it is complete")
    return data


@contextlib.contextmanager
def _our_limits(notes: list[str], pixels: int | None) -> Iterator[None]:
    """Pillow's pixel limit off, since ours is checked on the header; its warnings into ``notes``; then as before.

    But for WebP, whose canvas Pillow makes before it tells the size, ``pixels`` is told to Pillow, which allows twice
    its limit.
    """
    before = PIL.Image.MAX_IMAGE_PIXELS
    PIL.Image.MAX_IMAGE_PIXELS = None if pixels is None else (pixels + 1) // 2
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = before
    notes += [f"the decoder says: {' '.join(str(warning.message).split())}" for warning in caught]


def _decode(path: str, data: bytes, limits: Limits, notes: list[str]) -> tuple[npt.NDArray[np.uint8], str]:
    """Bytes to upright (H, W, 3) uint8 RGB and the name of the format."""
    formats = list(_TRIED)
    if _is_heif(data):
        _register_heif(path)
        formats = ["HEIF"]
    try:
        picture = PIL.Image.open(io.BytesIO(data), formats=formats)  # reads the header only
    except PIL.UnidentifiedImageError as cause:
        raise MediaError(f"{path}: {_unknown(data)}") from cause
    except PIL.Image.DecompressionBombError as cause:
        raise MediaError(f"{path}: too many pixels ({cause}); make it smaller, or raise Limits(pixels=...)") from cause
    with picture:
        width, height = picture.size
        if width * height > limits.pixels:
            raise _too_many_pixels(path, width, height, limits)
        if width < 1 or height < 1:
            raise MediaError(f"{path}: its header says {width}x{height} pixels; get the original again")
        kind = picture.format or "unknown"
        if getattr(picture, "is_animated", False):  # how many, Pillow would find out by walking through all of them
            notes.append("holds several pictures or frames; only the first is examined")
        if ";16" in str([tile.args for tile in picture.tile]):
            notes.append("16-bit samples were reduced to 8 bit")
        picture.load()
        # After loading, because TIFF and HEIC turn the picture themselves and then say "upright".
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        return _upright(picture, orientation, notes), kind


def _upright(picture: PIL.Image.Image, orientation: Any, notes: list[str]) -> npt.NDArray[np.uint8]:
    """A loaded picture to (H, W, 3) uint8 RGB as shown, strip by strip, straight into its place."""
    width, height = picture.size
    shown = np.empty((width, height, 3) if orientation in (5, 6, 7, 8) else (height, width, 3), np.uint8)
    stored = _as_stored(shown, orientation)  # a view: (height, width, 3)
    deep = picture.mode[0] in "IF"  # I;16 and its kin, I, F: one channel
    levels = _levels(picture, notes) if deep else (0.0, 255.0)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(height, top + rows)))
        if deep:
            part = _grey(np.asarray(strip), levels)[..., None]
        elif strip.has_transparency_data:
            part = _over_white(np.asarray(strip.convert("RGBA")), notes)
        else:
            part = np.asarray(strip.convert("RGB"))
        stored[top : top + rows] = part
    return shown


def _as_stored(shown: npt.NDArray[np.uint8], orientation: Any) -> npt.NDArray[np.uint8]:
    """The upright picture seen the way the file stores it: a view, no copy. Orientation is EXIF tag 0x0112."""
    match orientation:
        case 2:
            return shown[:, ::-1]
        case 3:
            return shown[::-1, ::-1]
        case 4:
            return shown[::-1]
        case 5:
            return shown.swapaxes(0, 1)
        case 6:
            return np.rot90(shown, 1)
        case 7:
            return shown[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return np.rot90(shown, -1)
    return shown


def _levels(picture: PIL.Image.Image, notes: list[str]) -> tuple[float, float]:
    """Black and white level of a 16-bit or 32-bit grey picture, white being the largest value its kind can hold."""
    if picture.mode.startswith("I;"):
        bits = int(getattr(picture, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))[0])  # 12 in some TIFF files
        return 0.0, float(2**bits - 1)
    low, high = (float(value) for value in picture.getextrema())  # type: ignore[arg-type]  # one channel: two numbers
    if low < 0 or high > 65535:
        notes.append(f"32-bit samples of {low:g} to {high:g} were stretched to 0 to 255")
        return low, high
    white = 1.0 if picture.mode == "F" and high <= 1 else 255.0 if high <= 255 else 65535.0
    if white != 255:
        notes.append(f"32-bit samples were reduced to 8 bit, taking {white:g} for white")
    return 0.0, white


def _grey(values: npt.NDArray[Any], levels: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """16-bit or 32-bit samples (h, w) to 8 bit; the high byte of 16, as Pillow gives for RGB."""
    low, high = levels
    if values.dtype.itemsize == 2:
        return (values >> (int(high).bit_length() - 8)).astype(np.uint8)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not numbers")
    grey: npt.NDArray[np.uint8] = np.rint((values - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    return grey


def _over_white(rgba: npt.NDArray[np.uint8], notes: list[str]) -> npt.NDArray[np.uint8]:
    """(h, w, 4) over white to (h, w, 3); RGB is exactly as stored where alpha is 255."""
    rgb, alpha = rgba[..., :3], rgba[..., 3:].astype(np.uint16)
    if (alpha == 255).all():
        return rgb
    notes.append("transparent pixels were laid over white")
    blend: npt.NDArray[np.uint8] = ((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return blend


def _is_heif(data: bytes) -> bool:
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    return brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx") or (
        brand in (b"mif1", b"msf1") and b"avif" not in data[12:64]
    )


def _register_heif(path: str) -> None:
    try:
        import pillow_heif
    except ImportError as cause:
        raise MediaError(f"{path}: is HEIC, which needs an extra: pip install 'seamline[heif]'") from cause
    pillow_heif.register_heif_opener()


def _unknown(data: bytes) -> str:
    """Why bytes are no picture, and what to do."""
    if not data:
        return "is empty (0 bytes); get the original again"
    head = data[:4096]
    signatures = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
    if head.startswith(signatures) or head[8:12] in (b"WEBP", b"avif", b"avis"):
        return "starts like a picture, but its header is damaged, cut off or of a rare kind; get the original again"
    if sniff(io.BytesIO(data)):
        return "is video or sound, not a picture; give it where clips are read"
    if not head.strip(b"\0"):
        return "holds only zeros; get the original again"
    if not set(head) & set(range(9)):  # text in any of the common encodings has no low control characters
        return f"holds text, not media; known are {KNOWN}"
    return f"is not media of a known format; known are {KNOWN}"


def _too_many_pixels(path: str, width: int, height: int, limits: Limits) -> MediaError:
    return MediaError(
        f"{path}: {width}x{height} pixels are more than the limit of {limits.pixels};"
        " make it smaller, or raise Limits(pixels=...)"
    )
