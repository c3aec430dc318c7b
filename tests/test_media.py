"""Every format really written and read back, and files that mean harm."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from PIL import ImageOps

import seamline.media.image
from seamline.errors import MediaError
from seamline.media import Image, Limits, expand, open_media

HEIGHT, WIDTH = 40, 56


@pytest.fixture
def rgb() -> np.ndarray:
    """A smooth picture, so that lossy formats stay near it, with no symmetry."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 4, y * 6, 255 - x - y * 2], axis=2).astype(np.uint8)


def encoded(picture: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(rgb: np.ndarray) -> bytes:
    return encoded(PIL.Image.fromarray(rgb), "PNG")


@pytest.mark.parametrize(
    ("kind", "suffix", "options", "tolerance"),
    [
        ("JPEG", "jpg", {"quality": 95}, 6),
        ("JPEG", "jpeg", {"quality": 95, "progressive": True, "subsampling": 0}, 6),
        ("PNG", "png", {}, 0),
        ("WEBP", "webp", {"lossless": True}, 0),
        ("WEBP", "webp", {"quality": 95}, 12),
        ("TIFF", "tif", {}, 0),
        ("TIFF", "tiff", {"compression": "tiff_lzw"}, 0),
        ("TIFF", "tiff", {"compression": "jpeg", "quality": 95}, 6),
        ("TIFF", "tiff", {"big_tiff": True}, 0),
        ("AVIF", "avif", {"quality": 95}, 12),
        ("BMP", "bmp", {}, 0),
        ("GIF", "gif", {}, 60),
    ],
)
def test_every_format(
    tmp_path: Path, rgb: np.ndarray, kind: str, suffix: str, options: dict[str, Any], tolerance: int
) -> None:
    path = tmp_path / f"picture.{suffix.upper()}"
    data = encoded(PIL.Image.fromarray(rgb), kind, **options)
    path.write_bytes(data)
    image = open_media(path)
    assert image.pixels.dtype == np.uint8
    assert image.pixels.flags.c_contiguous
    assert image.pixels.shape == (HEIGHT, WIDTH, 3)
    assert (image.width, image.height) == (WIDTH, HEIGHT)
    assert np.abs(image.pixels.astype(int) - rgb).max() <= tolerance
    assert (image.path, image.format, image.warnings) == (str(path), kind, ())
    assert (image.sha256, image.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    same = open_media(data)
    np.testing.assert_array_equal(same.pixels, image.pixels)
    assert (same.path, same.sha256) == ("<bytes>", image.sha256)


def test_heic(tmp_path: Path, rgb: np.ndarray) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the heif extra is not installed")
    path = tmp_path / "picture.heic"
    heif.from_pillow(PIL.Image.fromarray(rgb)).save(path, quality=95)
    image = open_media(path)
    assert (image.format, image.warnings) == ("HEIF", ())
    assert np.abs(image.pixels.astype(int) - rgb).max() <= 12


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MediaError, match=r"pip install 'seamline\[heif\]'"):
        open_media(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(rgb: np.ndarray, kind: str, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PIL.Image.fromarray(rgb), kind, exif=exif)
    shown = ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))).convert("RGB")
    image = open_media(data)
    assert image.pixels.shape == ((WIDTH, HEIGHT, 3) if orientation > 4 else (HEIGHT, WIDTH, 3))
    assert image.pixels.flags.c_contiguous
    np.testing.assert_array_equal(image.pixels, np.asarray(shown))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientation_is_upright(rgb: np.ndarray, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(open_media(encoded(PIL.Image.fromarray(rgb), "PNG", exif=exif)).pixels, rgb)


def test_strips_join_without_a_seam(monkeypatch: pytest.MonkeyPatch, rgb: np.ndarray) -> None:
    monkeypatch.setattr(seamline.media.image, "_STRIP", 7 * WIDTH)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    data = encoded(PIL.Image.fromarray(rgb), "PNG", exif=exif)
    np.testing.assert_array_equal(open_media(data).pixels, np.rot90(rgb, -1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_colour_modes(rgb: np.ndarray, mode: str) -> None:
    picture = PIL.Image.fromarray(rgb).convert(mode)
    image = open_media(encoded(picture, "TIFF"))
    np.testing.assert_array_equal(image.pixels, np.asarray(picture.convert("RGB")))
    assert image.warnings == ()


def test_cmyk_jpeg_is_not_inverted(rgb: np.ndarray) -> None:
    image = open_media(encoded(PIL.Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=98))
    assert np.abs(image.pixels.astype(int) - rgb).max() < 20


def test_alpha_is_laid_over_white_and_opaque_pixels_stay(rgb: np.ndarray) -> None:
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    opaque = open_media(encoded(PIL.Image.fromarray(np.dstack([rgb, alpha])), "PNG"))
    np.testing.assert_array_equal(opaque.pixels, rgb)
    assert opaque.warnings == ()
    alpha[:10], alpha[10:20] = 0, 128
    for kind in ("PNG", "TIFF"):
        image = open_media(encoded(PIL.Image.fromarray(np.dstack([rgb, alpha])), kind))
        assert (image.pixels[:10] == 255).all()
        blend = np.rint(rgb[10:20] * (128 / 255) + 255 * (127 / 255))
        np.testing.assert_array_equal(image.pixels[10:20], blend)
        np.testing.assert_array_equal(image.pixels[20:], rgb[20:])
        assert image.warnings == ("transparent pixels were laid over white",)


@pytest.mark.parametrize("mode", ["LA", "P", "RGB", "L"])
def test_other_transparencies(mode: str) -> None:
    picture = PIL.Image.new(mode, (4, 4), 0 if mode != "LA" else (0, 0))
    options = {} if mode == "LA" else {"transparency": (0, 0, 0) if mode == "RGB" else 0}
    image = open_media(encoded(picture, "PNG", **options))
    assert (image.pixels == 255).all()
    assert image.warnings == ("transparent pixels were laid over white",)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_is_scaled_not_clipped(rgb: np.ndarray, suffix: str, channels: int) -> None:
    deep = np.dstack([rgb[..., ::-1].astype(np.uint16) * 257, np.full((HEIGHT, WIDTH), 65535, np.uint16)])
    _, buffer = cv2.imencode(suffix, deep[..., :channels])  # BGR
    image = open_media(buffer.tobytes())
    np.testing.assert_array_equal(image.pixels, rgb if channels > 1 else np.repeat(rgb[..., 2:], 3, axis=2))
    assert image.warnings == ("16-bit samples were reduced to 8 bit",)


@pytest.mark.parametrize(
    ("values", "expected", "warning"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255], "taking 1 for white"),
        (np.array([[0, 7, 255]], np.float32), [0, 7, 255], ""),
        (np.array([[0, 7, 255]], np.int32), [0, 7, 255], ""),
        (np.array([[0, 257 * 9, 65535]], np.int32), [0, 9, 255], "taking 65535 for white"),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255], "stretched"),
        (np.array([[0, 10**6]], np.int32), [0, 255], "stretched"),
        (np.array([[-5, -5]], np.int32), [0, 0], "stretched"),
    ],
)
def test_thirty_two_bit_grey(values: np.ndarray, expected: list[int], warning: str) -> None:
    image = open_media(encoded(PIL.Image.fromarray(values), "TIFF"))
    assert image.pixels[0, :, 1].tolist() == expected
    assert warning in " ".join(image.warnings)
    assert bool(warning) == bool(image.warnings)


def test_values_that_are_not_numbers() -> None:
    with pytest.raises(MediaError, match="not numbers"):
        open_media(encoded(PIL.Image.fromarray(np.array([[0.5, np.nan]], np.float32)), "TIFF"))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("MPO", {"quality": 95})],
)
def test_first_of_several(kind: str, options: dict[str, Any]) -> None:
    first, second = PIL.Image.new("RGB", (16, 16), (255, 0, 0)), PIL.Image.new("RGB", (16, 16), (0, 0, 255))
    image = open_media(encoded(first, kind, save_all=True, append_images=[second], **options))
    assert np.abs(image.pixels.astype(int) - [255, 0, 0]).max() <= 2
    assert image.warnings == ("holds several pictures or frames; only the first is examined",)
    assert image.format == kind


def test_wrong_extension_is_read_with_a_warning(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(png(rgb))
    image = open_media(str(path))
    np.testing.assert_array_equal(image.pixels, rgb)
    assert image.warnings == ("the name ends in .jpg, but the content is PNG",)
    bare = tmp_path / "picture"
    bare.write_bytes(png(rgb))
    assert open_media(bare).warnings == ()


def header_only_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def header_only_bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (bytes(5000), "only zeros"),
        (b"\x07" * 5000, "not media of a known format"),
        ("Dear Sir or Madam,\nwo ist das schöne Geld?\n".encode() * 40, "holds text"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\x00\x01\x02", "not media of a known format"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2", "damaged or cut off, it cannot be opened"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "damaged"),
        (b"\x89PNG\r\n\x1a\n\0\0", "damaged"),
        (header_only_png(40_000, 40_000), "40000x40000 pixels"),
        (header_only_bmp(40_000, 40_000), "40000x40000 pixels"),
        (header_only_png(14_500, 14_500), "14500x14500 pixels"),
        (header_only_png(300, 300), "damaged or cut off"),
        (header_only_png(0, 5), "damaged"),
    ],
    ids=[
        "empty",
        "zeros",
        "noise",
        "text",
        "pdf",
        "video",
        "jpeg-stub",
        "png-stub",
        "png-bomb",
        "bmp-bomb",
        "png-just-over",
        "png-short",
        "png-no-width",
    ],
)
def test_hostile_files_are_named_with_their_cause(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "hostile.jpg"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(MediaError, match=cause) as caught:
        open_media(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert peak < 10 * 2**20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP", "GIF", "HEIF"])
def test_cut_off_anywhere(rng: np.random.Generator, kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="the heif extra is not installed").register_heif_opener()
    data = encoded(PIL.Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)), kind)
    for keep in (1, 3, 11, 25, 60, len(data) // 3, len(data) // 2):
        with pytest.raises(MediaError):
            open_media(data[:keep])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP", "GIF"])
def test_flipped_bytes_never_escape(rng: np.random.Generator, rgb: np.ndarray, kind: str) -> None:
    data = np.frombuffer(encoded(PIL.Image.fromarray(rgb), kind), np.uint8)
    for _ in range(60):
        damaged = data.copy()
        places = rng.integers(0, min(len(data), 400), 4)
        damaged[places] = rng.integers(0, 256, 4)
        with contextlib.suppress(MediaError):  # and nothing else
            assert open_media(damaged.tobytes(), limits=Limits(pixels=10**6)).pixels.shape[2] == 3


def test_paths_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    long = "x" * 5000
    for source, cause in [
        (tmp_path, "is a folder"),
        (tmp_path / "gone.jpg", "no such file"),
        ("https://example.org/a.jpg", "only local files"),
        (pipe, "pipe"),
        (f"{tmp_path}/a\0.jpg", "cannot be read"),
        (tmp_path / long, "cannot be read"),
    ]:
        with pytest.raises(MediaError, match=cause):
            open_media(source)

    def denied(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    closed = tmp_path / "closed.png"
    closed.write_bytes(b"x")
    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(MediaError, match=r"closed\.png: no permission"):
        open_media(closed)


def test_limits(tmp_path: Path, rgb: np.ndarray) -> None:
    data = png(rgb)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    exact = Limits(pixels=WIDTH * HEIGHT, bytes=len(data))
    for source in (path, data, rgb):
        np.testing.assert_array_equal(open_media(source, limits=exact).pixels, rgb)
        with pytest.raises(MediaError, match=r"pixels.*limit of 2239.*Limits\(pixels"):
            open_media(source, limits=Limits(pixels=WIDTH * HEIGHT - 1))
    for source in (path, data):
        with pytest.raises(MediaError, match=r"bytes are more than the limit.*Limits\(bytes"):
            open_media(source, limits=Limits(bytes=len(data) - 1))


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG"])
def test_our_limit_replaces_that_of_pillow(monkeypatch: pytest.MonkeyPatch, rgb: np.ndarray, kind: str) -> None:
    data = encoded(PIL.Image.fromarray(rgb), kind)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    assert open_media(data).width == WIDTH
    with pytest.raises(MediaError):
        open_media(data, limits=Limits(pixels=100))
    assert PIL.Image.MAX_IMAGE_PIXELS == 100


def test_what_the_decoder_says_becomes_a_warning_of_the_image(rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    def talkative(*args: Any, **options: Any) -> Any:
        warnings.warn("odd\n  tag", UserWarning, stacklevel=1)
        return original(*args, **options)

    original: Callable[..., Any] = PIL.Image.open
    monkeypatch.setattr(PIL.Image, "open", talkative)
    assert open_media(png(rgb)).warnings == ("the decoder says: odd tag",)


def test_arrays(rgb: np.ndarray) -> None:
    image = open_media(rgb)
    assert image.pixels is rgb
    assert (image.path, image.sha256, image.bytes, image.format) == ("<array>", None, None, None)
    for grey in (rgb[..., 0], rgb[..., :1]):
        np.testing.assert_array_equal(open_media(grey).pixels, np.repeat(rgb[..., :1], 3, axis=2))
    clear = np.dstack([rgb, np.zeros((HEIGHT, WIDTH), np.uint8)])
    assert (open_media(clear).pixels == 255).all()
    assert open_media(rgb[::-1]).pixels.flags.c_contiguous


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.float32), np.zeros((3, 4, 4, 3), np.uint8), np.zeros((4, 4, 2), np.uint8)]
)
def test_arrays_that_are_no_pictures(array: np.ndarray) -> None:
    with pytest.raises(MediaError, match="is not a picture; give uint8"):
        open_media(array)
    with pytest.raises(MediaError, match="no pixels"):
        open_media(np.zeros((0, 4, 3), np.uint8))


def test_images_compare_by_identity(rgb: np.ndarray) -> None:
    assert Image(rgb, "a") != Image(rgb, "a")


def test_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "b.JPG",
        "a.png",
        "notes.txt",
        "sub/c.webp",
        "sub/deep/d.heic",
        ".hidden/e.png",
        "._a.png",
        "f[1].png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    def names(*paths: str | Path) -> list[str]:
        return [path.as_posix() for path in expand(paths)]

    assert names(".") == ["a.png", "b.JPG", "f[1].png", "sub/c.webp", "sub/deep/d.heic"]
    assert names("sub", "a.png", "sub/c.webp") == ["sub/c.webp", "sub/deep/d.heic", "a.png"]
    assert names("notes.txt") == ["notes.txt"]
    assert names("f[1].png") == ["f[1].png"]
    assert names("*.png") == ["a.png", "f[1].png"]
    assert names("**/*.webp") == ["sub/c.webp"]
    assert names("s*") == ["sub/c.webp", "sub/deep/d.heic"]
    assert names("gone.png", "gone*.png") == ["gone.png", "gone*.png"]
    assert names() == []
    assert expand([tmp_path / "sub"])[0] == tmp_path / "sub" / "c.webp"


def test_expand_keeps_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(top: str, onerror: Callable[[OSError], None]) -> list[Any]:
        onerror(PermissionError(13, "Permission denied", top))
        return []

    monkeypatch.setattr(os, "walk", closed)
    assert expand([tmp_path]) == [tmp_path]
