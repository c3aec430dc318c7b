"""What files go through on their way to whoever judges them, done to authentic and forged alike, always the same way.

A perturbation is named by a word and a number, ``jpeg75``; several in a row by ``+``, ``jpeg95+jpeg75+jpeg60``. The
truth follows: a mask is resized and cropped with its picture, the spans of a clip stay where they are in seconds, and
sound that is gone is forged no more.

====================  =================================================================================================
``jpegQ``             saved as JPEG of quality Q, 4:2:0
``resizeF``           resized by the factor F: areas averaged if smaller, bicubic if larger
``cropN``             N pixels cut off every side; off the 8 x 8 grid of JPEG unless 8 divides N
``blurS``             Gaussian blur of S pixels standard deviation
``noiseS``            Gaussian noise of S grey levels standard deviation
``screenshot``        fitted to a screen of 1920 x 1080 pixels, upright or not, bilinearly as screens do
``crfN``              pictures coded again, H.264 at constant rate factor N
``fpsN``              shown at N pictures a second
``aacK`` ``opusK``    sound coded again at K kbit/s, mono
``snrD``              white noise added, D decibels below the sound's mean power
``bandH``             sound above H hertz taken away (24th order, as steep as a telephone's)
``mute``              no sound
``none``              nothing
====================  =================================================================================================

Noise is drawn from a generator seeded by the content, so that a file always gets the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError, MediaError
from ..media import Clip, open_media
from ..report import Report
from .audio_visual import Footage
from .clip_file import STEADY, ClipChain, encode
from .speech import RATE

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Mask = npt.NDArray[np.float32]  # (H, W) in [0, 1]
Sound = npt.NDArray[np.float32]  # (n,) in [-1, 1]
PhotoChange = Callable[[Pixels, Mask | None], tuple[Pixels, Mask | None]]
ClipChange = Callable[[Clip], Clip | None]

PHOTO_GRID = (
    *("jpeg95", "jpeg75", "jpeg60", "jpeg95+jpeg75+jpeg60"),
    *("resize0.5", "resize0.75", "resize1.5"),
    *("crop5", "blur1", "noise5", "screenshot"),
)
CLIP_GRID = ("crf23", "crf32", "crf40", "fps15", "aac24", "opus12", "snr20", "snr10", "band3400", "mute")
LARGEST_FACTOR = 8  # of resizing, either way
SCREEN = (1920, 1080)  # pixels, longer side first
CODED_RATE = 48000  # hertz, of sound that is coded again


def change_photo(name: str) -> PhotoChange:
    """What a perturbation does to a picture (H, W, 3) uint8 RGB and its mask (H, W) in [0, 1], ``None`` if authentic.

    Raises:
        DataError: no perturbation of photos has this name.
    """
    steps = [_photo_step(name, *_parsed(step)) for step in name.split("+")]

    def change(rgb: Pixels, mask: Mask | None) -> tuple[Pixels, Mask | None]:
        for step in steps:
            rgb, mask = step(rgb, mask)
        return rgb, mask

    return change


def photo_file(name: str) -> Callable[[Pixels, Mask | None], tuple[bytes, Mask | None]]:
    """As :func:`change_photo`, but to the file that the photo ends as: JPEG after ``jpegQ``, else PNG.

    Raises:
        DataError: no perturbation of photos has this name.
    """
    whole = change_photo(name)
    *before, last = name.split("+")
    word, quality = _parsed(last)
    if word != "jpeg" or quality is None:
        return lambda rgb, mask: _saved(".png", [cv2.IMWRITE_PNG_COMPRESSION, 1], *whole(rgb, mask))
    first, options = change_photo("+".join(before) or "none"), [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    return lambda rgb, mask: _saved(".jpg", options, *first(rgb, mask))


def change_clip(name: str) -> ClipChange:
    """What a perturbation does to a clip; ``None`` for a clip that lacks what it works on, or of which nothing is left.

    The stream that a perturbation does not touch stays as the file has it, to the last bit.

    Raises:
        DataError: no perturbation of clips has this name.
    """
    steps = [_clip_step(name, *_parsed(step)) for step in name.split("+")]

    def change(clip: Clip) -> Clip | None:
        changed: Clip | None = clip
        for step in steps:
            changed = None if changed is None else step(changed)
        return changed

    return change


def truth_after(name: str, truth: Report) -> Report:
    """The truth of a clip after a perturbation: without sound only what is forged in the pictures is left."""
    if "mute" not in name.split("+"):
        return truth
    left = tuple(dataclasses.replace(s, modality="video") for s in truth.segments if s.modality != "audio")
    forged = bool(left)
    return dataclasses.replace(
        truth, verdict="forged" if forged else "authentic", probability=float(forged), segments=left
    )


def _parsed(step: str) -> tuple[str, float | None]:
    """``jpeg75`` to its word and number."""
    match = re.fullmatch(r"([a-z]+?)(\d+\.?\d*|\.\d+)?", step)
    return (match[1], None if match[2] is None else float(match[2])) if match else (step, None)


# ------------------------------------------------------------------------------------------------------------ photos


def _photo_step(name: str, word: str, number: float | None) -> PhotoChange:
    if word == "none" and number is None:
        return lambda rgb, mask: (rgb, mask)
    if word == "screenshot" and number is None:
        return _shown
    if number is not None and number > 0:
        whole = number == int(number)
        if word == "jpeg" and whole and number <= 100:
            return lambda rgb, mask: (_jpeg(rgb, int(number)), mask)
        if word == "resize" and 1 / LARGEST_FACTOR <= number <= LARGEST_FACTOR:
            how = cv2.INTER_AREA if number < 1 else cv2.INTER_CUBIC
            return lambda rgb, mask: _resized(rgb, mask, number, how)
        if word == "crop" and whole:
            return lambda rgb, mask: _cropped(rgb, mask, int(number))
        if word == "blur":
            return lambda rgb, mask: (cv2.GaussianBlur(rgb, (0, 0), number).astype(np.uint8), mask)
        if word == "noise":
            return lambda rgb, mask: (_grainy(rgb, number), mask)
    raise DataError(
        f"unknown perturbation {name!r} of photos: none, jpegQ (as jpeg75), resizeF (as resize0.75, at most"
        f" {LARGEST_FACTOR}), cropN, blurS, noiseS, screenshot, several joined by +, or grid for all of the usual ones"
    )


def _saved(ending: str, options: list[int], rgb: Pixels, mask: Mask | None) -> tuple[bytes, Mask | None]:
    return cv2.imencode(ending, rgb[..., ::-1], options)[1].tobytes(), mask


def _jpeg(rgb: Pixels, quality: int) -> Pixels:
    file, _ = _saved(".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality], rgb, None)
    decoded: Pixels = np.asarray(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])


def _resized(rgb: Pixels, mask: Mask | None, factor: float, how: int) -> tuple[Pixels, Mask | None]:
    size = max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor))
    truth = None if mask is None else cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    return cv2.resize(rgb, size, interpolation=how).astype(np.uint8), truth


def _shown(rgb: Pixels, mask: Mask | None) -> tuple[Pixels, Mask | None]:
    factor = min(SCREEN[0] / max(rgb.shape[:2]), SCREEN[1] / min(rgb.shape[:2]))
    return _resized(rgb, mask, factor, cv2.INTER_LINEAR)


def _cropped(rgb: Pixels, mask: Mask | None, cut: int) -> tuple[Pixels, Mask | None]:
    inner = tuple(slice(n, side - n) for side in rgb.shape[:2] for n in (min(cut, (side - 1) // 2),))
    return np.ascontiguousarray(rgb[inner]), None if mask is None else np.ascontiguousarray(mask[inner])


def _grainy(rgb: Pixels, sigma: float) -> Pixels:
    noise = _generator(rgb).standard_normal(rgb.shape, np.float32)
    return np.clip(np.rint(rgb + np.float32(sigma) * noise), 0, 255).astype(np.uint8)


def _generator(content: npt.NDArray[Any]) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(content.tobytes()).digest()))


# ------------------------------------------------------------------------------------------------------------- clips


@dataclass(frozen=True, eq=False)
class ChangedClip(Clip):
    """A clip with the facts of its file, whose pictures and sound come from elsewhere."""

    shown: Callable[[float, float, float | None], Iterator[Pixels]] = lambda fps, start, stop: iter(())
    heard: Callable[[int], Iterator[Sound]] = lambda rate: iter(())

    def frames(self, fps: float = 25.0, start: float = 0.0, stop: float | None = None) -> Iterator[Pixels]:
        """As of :class:`Clip`."""
        return self.shown(fps, start, stop)

    def sound(self, rate: int = 16000, block: float = 1.0) -> Iterator[Sound]:
        """As of :class:`Clip`."""
        whole, size = _whole(self.heard(rate)), max(1, round(rate * block))
        yield from (whole[i : i + size] for i in range(0, len(whole), size))


def _clip_step(name: str, word: str, number: float | None) -> ClipChange:
    if word == "none" and number is None:
        return lambda clip: clip
    if word == "mute" and number is None:
        return _muted
    if number is not None:
        whole = number == int(number)
        if word == "crf" and whole and number <= 51:
            return lambda clip: _coded_pictures(clip, int(number)) if clip.video else None
        if word == "fps" and number > 0:
            return lambda clip: _slowed(clip, number) if clip.video else None
        if word == "snr":
            return lambda clip: _filtered(clip, lambda sound, rate: _hissing(sound, number))
        if word == "band" and number > 0:
            return lambda clip: _filtered(clip, lambda sound, rate: _limited(sound, rate, number))
        if word in ("aac", "opus") and whole and number > 0:
            return lambda clip: _coded_sound(clip, word, int(number)) if clip.audio else None
    raise DataError(
        f"unknown perturbation {name!r} of clips: none, crfN (as crf32), fpsN, aacK, opusK, snrD, bandH, mute,"
        " several joined by +, or grid for all of the usual ones"
    )


def _changed(clip: Clip, **changes: Any) -> ChangedClip:
    """The clip, with some of its facts and ways to read it replaced."""
    facts = {field.name: getattr(clip, field.name) for field in dataclasses.fields(Clip)}
    return ChangedClip(**{**facts, "shown": clip.frames, "heard": clip.sound} | changes)


def _muted(clip: Clip) -> Clip | None:
    if clip.audio is None or clip.video is None:
        return None
    return _changed(clip, audio=None, streams={**clip.streams, "audio": "absent"}, heard=lambda rate: iter(()))


def _slowed(clip: Clip, rate: float) -> Clip:
    assert clip.video is not None
    end = clip.video.start + clip.video.duration

    def shown(fps: float = 25.0, start: float = 0.0, stop: float | None = None) -> Iterator[Pixels]:
        pictures, last, tick = clip.frames(rate), -1, 0
        picture: Pixels | None = None
        while (at := start + tick / fps) < min(end, math.inf if stop is None else stop) - 1e-9:
            while last < math.floor(at * rate + 1e-6):
                picture, last = next(pictures, None), last + 1
            if picture is None:
                return
            yield picture
            tick += 1

    return _changed(clip, video=dataclasses.replace(clip.video, fps=rate), shown=shown)


def _coded_pictures(clip: Clip, crf: int) -> Clip:
    """Coded at the file's own mean frame rate, an odd last row or column left out."""
    assert clip.video is not None
    rate = Fraction(clip.video.fps).limit_denominator(1001)
    options = {"crf": str(crf), "preset": "veryfast", "x264-params": STEADY}
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="mp4", container_options={"fflags": "+bitexact"}) as file:
            stream = file.add_stream("libx264", rate=rate, options=options)
            stream.height, stream.width = clip.video.height // 2 * 2, clip.video.width // 2 * 2
            stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
            for number, rgb in enumerate(clip.frames(float(rate))):
                picture = np.ascontiguousarray(rgb[: stream.height, : stream.width])
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, 1 / rate
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    except av.FFmpegError as cause:
        raise MediaError(f"{clip.path}: its pictures cannot be coded again ({cause})") from cause
    return _changed(clip, shown=_reopened(clip, buffer.getvalue()).frames)


def _coded_sound(clip: Clip, codec: str, bitrate: int) -> Clip:
    sound = _whole(clip.sound(RATE))
    names = {"aac": (".m4a", "aac"), "opus": (".ogg", "libopus")}[codec]
    chain = ClipChain(ending=names[0], audio_codec=names[1], bitrate=bitrate, rate=CODED_RATE)
    coded = _reopened(clip, encode(Footage(None, sound), chain))

    def heard(rate: int) -> Iterator[Sound]:
        again, length = _whole(coded.sound(rate)), round(len(sound) * rate / RATE)
        yield np.pad(again[:length], (0, max(0, length - len(again))))

    return _changed(clip, heard=heard)


def _reopened(clip: Clip, data: bytes) -> Clip:
    coded = open_media(data)
    if not isinstance(coded, Clip):
        raise MediaError(f"{clip.path}: what was coded again cannot be read")
    return coded


def _filtered(clip: Clip, change: Callable[[Sound, int], Sound]) -> Clip | None:
    if clip.audio is None:
        return None
    return _changed(clip, heard=lambda rate: iter([change(_whole(clip.sound(rate)), rate)]))


def _hissing(sound: Sound, decibels: float) -> Sound:
    power = float(np.mean(np.square(sound, dtype=np.float64))) if len(sound) else 0.0
    noise = _generator(sound).standard_normal(len(sound)) * math.sqrt(power / 10 ** (decibels / 10))
    return np.clip(sound + noise, -1, 1).astype(np.float32)


def _limited(sound: Sound, rate: int, cutoff: float) -> Sound:
    if not len(sound):
        return sound
    padded = len(sound) + rate // 10  # so that the end does not ring into the beginning
    spectrum = np.fft.rfft(sound.astype(np.float64), padded)
    kept = spectrum / (1 + (np.fft.rfftfreq(padded, 1 / rate) / cutoff) ** 24)
    return np.clip(np.fft.irfft(kept, padded)[: len(sound)], -1, 1).astype(np.float32)


def _whole(blocks: Iterator[Sound]) -> Sound:
    return np.concatenate([np.zeros(0, np.float32), *blocks])
