"""Small films that tests make with PyAV: every picture says its number, and sound begins where it is told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

WIDTH, HEIGHT = 128, 96


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Eight bars above, white where the number has a one; below, dark red to the left and dark green to the right."""
    rgb = np.zeros((height, width, 3), np.uint8)
    for bit in range(8):
        rgb[: height // 2, bit * width // 8 : (bit + 1) * width // 8] = 235 if number >> bit & 1 else 20
    rgb[height // 2 :, : width // 2, 0] = 150
    rgb[height // 2 :, width // 2 :, 1] = 150
    return rgb


def number(rgb: np.ndarray) -> int:
    """Which of the pictures this is; -1 for a black one."""
    height, width = rgb.shape[:2]
    if rgb.max() == 0:
        return -1
    return sum((rgb[height // 4, int((bit + 0.5) * width / 8)].mean() > 128) << bit for bit in range(8))


def tone(seconds: float, rate: int = 16000, channels: int = 1, hertz: float = 500.0, begin: float = 0.0) -> np.ndarray:
    """A sine (channels, n) of amplitude 0.5 from ``begin`` on, silence before."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * (time - begin)) * (time >= begin)
    return np.repeat(wave[None], channels, axis=0)


def onset(sound: np.ndarray, rate: int = 16000) -> float:
    """Seconds at which a sound begins."""
    return float(np.argmax(np.abs(sound) > 0.1)) / rate


def film(
    target: str | Path | io.BytesIO,
    pictures: Sequence[np.ndarray] = (),
    sound: np.ndarray | None = None,
    *,
    fps: float = 25.0,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    setup: Any = None,
    rate: int = 16000,
    acodec: str = "aac",
    layout: str = "",
    sample_format: str = "fltp",
    delay: float = 0.0,
    format: str | None = None,
    muxer: dict[str, str] | None = None,
) -> None:
    """Write a file.

    ``times`` are the seconds of the pictures, else they are even; ``sound`` is (channels, n) in [-1, 1] and begins
    ``delay`` seconds late; ``setup`` is called with the video stream before anything is encoded.
    """
    layout = layout or {None: "", 1: "mono", 2: "stereo", 6: "5.1"}[None if sound is None else len(sound)]
    with av.open(target, "w", format=format, options=muxer or {}) as container:
        video = audio = None
        if len(pictures):
            height, width = pictures[0].shape[:2]
            video = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})
            video.width, video.height, video.pix_fmt = width, height, pix_fmt
            if times is not None:
                video.codec_context.time_base = Fraction(1, 1000)
            if setup:
                setup(video)
        if sound is not None:
            audio = container.add_stream(acodec, rate=rate, layout=layout)
            audio.codec_context.format = sample_format
        packets = []
        if video is not None:
            for i, rgb in enumerate(pictures):
                frame = VideoFrame.from_ndarray(rgb, "rgb24" if rgb.dtype == np.uint8 else "rgb48le")
                if times is not None:
                    frame.pts, frame.time_base = round(times[i] * 1000), Fraction(1, 1000)
                packets += video.encode(frame)
            packets += video.encode(None)
        if audio is not None:
            for at in range(0, sound.shape[1], 1024):
                part = np.ascontiguousarray(sound[:, at : at + 1024], np.float32)
                frame = AudioFrame.from_ndarray(part, "fltp", layout)
                frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(delay * rate) + at
                packets += audio.encode(frame)
            packets += audio.encode(None)
        packets.sort(key=lambda packet: float(packet.dts * packet.time_base))
        for packet in packets:
            container.mux(packet)
