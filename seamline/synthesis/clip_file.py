"""What happens to a clip before it is a file, forged or not: framing, light, loudness, band, codecs, container.

A :class:`ClipChain` is drawn without knowing whether the clip was forged, and every clip passes through one, so that
neither codec nor size nor band tells forged from authentic.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError, MediaError
from .audio_visual import FPS, STEP, Boxes, Footage, Frames
from .speech import RATE, Sound

av.logging.set_level(None)  # what FFmpeg has to say about a stranger's file comes out as an exception or not at all

FILM = {  # container by file name ending: format, sound codecs
    ".mp4": ("mp4", ("aac", "aac", "libmp3lame")),
    ".mkv": ("matroska", ("aac", "libopus", "libmp3lame")),
    ".mov": ("mov", ("aac",)),
}
SOUNDS = {  # the same for files of sound alone
    ".wav": ("wav", "pcm_s16le"),
    ".flac": ("flac", "flac"),
    ".m4a": ("ipod", "aac"),
    ".mp3": ("mp3", "libmp3lame"),
    ".ogg": ("ogg", "libopus"),
}
SAMPLES = {"aac": "fltp", "libmp3lame": "fltp", "libopus": "flt", "pcm_s16le": "s16", "flac": "s16"}
PRESETS = ("ultrafast", "superfast", "veryfast", "faster")
STEADY = "mbtree=0"  # with it the assembly of x264 gives other bytes from run to run, on one thread too


@dataclass(frozen=True)
class ClipChain:
    """Applied in this order: framing, flip, resize, light, grain; band, gain, hiss; an earlier save; the file."""

    window: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # part of the picture kept: x0, y0, x1, y1
    flip: bool = False
    side: int = 0  # longest side in pixels, 0 = as it is; never enlarged
    gain: float = 1.0  # of light
    gamma: float = 1.0
    grain: float = 0.0  # standard deviation, grey levels
    cutoff: float = 0.0  # hertz, above which sound is gone; 0 = none
    volume: float = 1.0
    hiss: float = 0.0  # root mean square of added white noise
    earlier: int = 0  # CRF (and 8 times that, less 300, kbit/s) of an earlier save; 0 = none
    ending: str = ".mp4"
    video_codec: str = "libx264"
    preset: str = "veryfast"
    crf: int = 20
    gop: int = 50  # pictures between key frames
    audio_codec: str = "aac"
    bitrate: int = 96  # kbit/s
    rate: int = RATE  # hertz, of the file
    channels: int = 1

    def apply(self, clip: Footage, rng: np.random.Generator) -> Footage:
        """Everything but the codecs; the clock does not change."""
        frames, sound = clip.frames, clip.sound
        if frames is not None:
            frames = self._pictures(frames, rng)
        if sound is not None:
            sound = self._sound(sound, rng)
        return Footage(frames, sound)

    def _pictures(self, frames: Frames, rng: np.random.Generator) -> Frames:
        height, width = frames.shape[1:3]
        x0, y0, x1, y1 = (round(part * full) for part, full in zip(self.window, (width, height) * 2, strict=True))
        scale = min(1.0, self.side / max(x1 - x0, y1 - y0)) if self.side else 1.0
        w, h = (max(16, round((high - low) * scale / 2) * 2) for low, high in ((x0, x1), (y0, y1)))
        table = np.clip(255 * (np.arange(256) / 255) ** self.gamma * self.gain, 0, 255)
        light = np.rint(table).astype(np.uint8)
        out = np.empty((len(frames), h, w, 3), np.uint8)
        noise = rng.normal(0, self.grain, (h + 32, w + 32)).astype(np.float32) if self.grain else None
        for k, frame in enumerate(frames):
            part: npt.NDArray[Any] = frame[y0:y1, x0:x1]
            if self.flip:
                part = part[:, ::-1]
            if part.shape[:2] != (h, w):
                small = h < 0.6 * part.shape[0]  # averaging areas takes ten times as long
                part = cv2.resize(part, (w, h), interpolation=cv2.INTER_AREA if small else cv2.INTER_LINEAR)
            if self.gain != 1 or self.gamma != 1:
                part = light[part]
            if noise is not None:  # the same field, moved: as good as new, and cheap
                dy, dx = rng.integers(0, 33, 2)
                part = np.clip(part + noise[dy : dy + h, dx : dx + w, None], 0, 255)
            out[k] = part
        return out

    def _sound(self, sound: Sound, rng: np.random.Generator) -> Sound:
        out: npt.NDArray[Any] = sound.astype(np.float64) * self.volume
        if self.cutoff:
            spectrum = np.fft.rfft(out)
            hertz = np.fft.rfftfreq(len(out), 1 / RATE)
            out = np.fft.irfft(spectrum / (1 + (hertz / self.cutoff) ** 24), n=len(out))
        if self.hiss:
            out = out + rng.normal(0, self.hiss, len(out))
        return np.asarray(np.clip(out, -1, 1), np.float32)

    def save(self, clip: Footage) -> bytes:
        """The file."""
        if self.earlier:
            first = encode(clip, ClipChain(crf=self.earlier, bitrate=max(24, 300 - 8 * self.earlier), gop=self.gop))
            again = read_footage(io.BytesIO(first), "<earlier save>")
            frames, sound = again.frames, again.sound
            if clip.frames is not None and frames is not None:
                frames = frames[: clip.ticks]
            if clip.sound is not None and sound is not None:
                sound = np.pad(sound, (0, max(0, len(clip.sound) - len(sound))))[: len(clip.sound)]
            if clip.frames is None or (frames is not None and len(frames) == clip.ticks):
                clip = Footage(frames, sound)
        return encode(clip, self)

    def facts(self) -> dict[str, Any]:
        """The steps that did something, as plain values."""
        plain = asdict(ClipChain())
        always = {"crf", "preset", "audio_codec", "bitrate", "rate"}
        return {key: value for key, value in asdict(self).items() if value != plain[key] or key in always}


def draw_chain(
    rng: np.random.Generator,
    *,
    picture: bool,
    sound: bool,
    sides: tuple[int, int] = (192, 360),
    quality: tuple[int, int] = (18, 32),
    face: tuple[float, float, float, float] | None = None,
) -> ClipChain:
    """One chain, blind to whether the clip is forged.

    Args:
        rng: source of every choice.
        picture: whether there are pictures.
        sound: whether there is sound.
        sides: shortest and longest longest side, pixels.
        quality: best and worst CRF of H.264.
        face: box that the framing keeps, in fractions of the picture.
    """
    values: dict[str, Any] = {}
    if picture:
        x0, y0, x1, y1 = face or (0.3, 0.3, 0.7, 0.7)
        keep = rng.uniform(0, 1, 4) ** 2 if rng.random() < 0.6 else np.zeros(4)
        pad = 0.25 * max(x1 - x0, y1 - y0)
        values["window"] = tuple(
            float(round(v, 4))
            for v in (
                max(0.0, x0 - pad) * keep[0],
                max(0.0, y0 - 1.5 * pad) * keep[1],
                1 - max(0.0, 1 - x1 - pad) * keep[2],
                1 - max(0.0, 1 - y1 - 1.5 * pad) * keep[3],
            )
        )
        values["flip"] = bool(rng.random() < 0.5)
        values["side"] = int(rng.integers(sides[0], sides[1] + 1))
        if rng.random() < 0.4:
            values["gain"], values["gamma"] = float(rng.uniform(0.85, 1.12)), float(rng.uniform(0.85, 1.18))
        if rng.random() < 0.25:
            values["grain"] = float(rng.uniform(0.6, 4))
        values["video_codec"] = "libx264" if rng.random() < 0.9 else "mpeg4"
        values["preset"] = str(rng.choice(PRESETS))
        values["crf"] = int(rng.integers(quality[0], quality[1] + 1))
        values["gop"] = int(rng.choice((12, 25, 50, 250)))
        values["ending"] = str(rng.choice(list(FILM), p=(0.7, 0.22, 0.08)))
        values["audio_codec"] = str(rng.choice(FILM[values["ending"]][1]))
    else:
        values["ending"] = str(rng.choice(list(SOUNDS)))
        values["audio_codec"] = SOUNDS[values["ending"]][1]
    if sound:
        if rng.random() < 0.35:
            values["cutoff"] = float(rng.uniform(3400, 7600))
        values["volume"] = float(10 ** (rng.uniform(-12, 3) / 20))
        if rng.random() < 0.3:
            values["hiss"] = float(10 ** (rng.uniform(-66, -42) / 20))
        opus = values["audio_codec"] == "libopus"
        values["rate"] = int(rng.choice((16000, 24000, 48000) if opus else (16000, 16000, 22050, 44100, 48000)))
        values["bitrate"] = int(rng.choice((24, 32, 48) if opus else (32, 48, 64, 96, 128)))
        values["channels"] = int(rng.choice((1, 2)))
    if rng.random() < 0.12:
        values["earlier"] = int(rng.integers(18, 30))
    return ClipChain(**values)


def encode(clip: Footage, chain: ClipChain) -> bytes:
    """A file of the clip, as the chain says; the same clip and chain give the same bytes.

    Raises:
        DataError: the clip has neither pictures nor sound, or the codecs refuse it.
    """
    frames, sound = clip.frames, clip.sound
    if frames is None and sound is None:
        raise DataError("a clip with neither pictures nor sound cannot be a file")
    kind = FILM[chain.ending][0] if chain.ending in FILM else SOUNDS[chain.ending][0]
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format=kind, container_options={"fflags": "+bitexact"}) as file:
            _write(file, frames, sound, chain)
    except av.FFmpegError as cause:
        raise DataError(f"this clip cannot be written with {chain}: {cause}") from cause
    return buffer.getvalue()


def _write(file: Any, frames: Frames | None, sound: Sound | None, chain: ClipChain) -> None:
    video = track = None
    if frames is not None:
        video = file.add_stream(chain.video_codec, rate=FPS)
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.gop_size = chain.gop
        video.codec_context.time_base = Fraction(1, FPS)
        if chain.video_codec == "libx264":
            video.options = {"crf": str(chain.crf), "preset": chain.preset, "x264-params": STEADY}
        else:  # constant quantiser from the same scale
            quantiser = str(max(2, round((chain.crf - 14) / 2)))
            video.options = {"flags": "+qscale", "global_quality": str(int(quantiser) * 118)}
    if sound is not None:
        track = file.add_stream(chain.audio_codec, rate=chain.rate)
        track.codec_context.layout = "mono" if chain.channels == 1 else "stereo"
        track.codec_context.format = SAMPLES[chain.audio_codec]
        if chain.audio_codec not in ("pcm_s16le", "flac"):
            track.codec_context.bit_rate = chain.bitrate * 1000
        if chain.audio_codec == "aac":
            track.codec_context.options = {"aac_coder": "fast"}
        resampler = av.AudioResampler(SAMPLES[chain.audio_codec], track.codec_context.layout, chain.rate)
    ticks = len(frames) if frames is not None else -(-len(sound) // STEP) if sound is not None else 0
    for k in range(ticks):
        if video is not None and frames is not None:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[k]), format="rgb24")
            picture.pts, picture.time_base = k, Fraction(1, FPS)
            file.mux(video.encode(picture))
        if track is not None and sound is not None and len(part := sound[k * STEP : (k + 1) * STEP]):
            piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(part[None]), format="flt", layout="mono")
            piece.rate, piece.pts, piece.time_base = RATE, k * STEP, Fraction(1, RATE)
            for resampled in resampler.resample(piece):
                file.mux(track.encode(resampled))
    if track is not None:
        for resampled in resampler.resample(None):
            file.mux(track.encode(resampled))
        file.mux(track.encode(None))
    if video is not None:
        file.mux(video.encode(None))


def read_footage(source: str | io.BytesIO, name: str, longest: float = 60.0) -> Footage:
    """Decode a clip onto the common clock: FPS pictures and RATE samples a second from time zero.

    Args:
        source: a path or a file in memory.
        name: what to call it in an error.
        longest: seconds after which the rest is left out.

    Raises:
        MediaError: it cannot be decoded.
    """
    try:
        frames, sound = _decoded(source, longest)
    except (av.FFmpegError, OSError, ValueError) as cause:
        raise MediaError(f"{name}: cannot be decoded ({cause})") from cause
    if frames is None and sound is None:
        raise MediaError(f"{name}: holds neither pictures nor sound")
    if frames is not None and sound is not None:
        count = min(len(frames), -(-len(sound) // STEP))
        if count < 0.8 * len(frames):  # the sound stops early: the rest is silence
            count = len(frames)
        frames = frames[:count]
        sound = np.pad(sound, (0, max(0, count * STEP - len(sound))))[: count * STEP]
    elif sound is not None:
        sound = sound[: len(sound) // STEP * STEP]
    return Footage(frames, sound)


def _decoded(source: Any, longest: float) -> tuple[Frames | None, Sound | None]:
    frames: list[npt.NDArray[np.uint8]] = []
    sound: npt.NDArray[np.float32] | None = None
    with av.open(source) as file:
        videos, sounds = file.streams.video, file.streams.audio
        if videos:
            videos[0].thread_type = "NONE"
        resampler = av.AudioResampler("flt", "mono", RATE)
        shown: Any = None
        pieces: list[tuple[int, npt.NDArray[np.float32]]] = []
        for frame in file.decode(*videos[:1], *sounds[:1]):
            if isinstance(frame, av.VideoFrame):
                if frame.time is None or frame.time > longest:
                    continue
                while shown is not None and len(frames) / FPS < frame.time - 1e-6:
                    frames.append(shown)
                shown = frame.to_ndarray(format="rgb24")
            elif isinstance(frame, av.AudioFrame):
                if frame.time is None or frame.time > longest:
                    continue
                if not pieces:
                    pieces.append((round(frame.time * RATE), np.zeros(0, np.float32)))
                pieces += [(0, f.to_ndarray()[0]) for f in resampler.resample(frame)]
        if sounds and pieces:
            pieces += [(0, f.to_ndarray()[0]) for f in resampler.resample(None)]
            sound = np.concatenate([piece for _, piece in pieces]).astype(np.float32)
            first = pieces[0][0]
            if videos and first > 0:  # of sound alone, a late start is the decoder's delay, already taken off
                sound = np.pad(sound, (first, 0))
        if shown is not None:
            frames.append(shown)
    return (np.stack(frames) if frames else None), sound


def spread(boxes: Boxes, shape: tuple[int, ...]) -> tuple[float, float, float, float] | None:
    """The box around all faces of a clip, in fractions of its picture."""
    if not np.isfinite(boxes).any():
        return None
    x0, y0 = np.nanmin(boxes[:, :2], 0)
    x1, y1 = np.nanmax(boxes[:, 2:], 0)
    height, width = shape[:2]
    part = np.clip([x0 / width, y0 / height, x1 / width, y1 / height], 0, 1)
    return float(part[0]), float(part[1]), float(part[2]), float(part[3])
