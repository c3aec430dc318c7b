"""Videos and sounds of every kind, made here: what they are, what they show at each tick, and what damage does."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import os
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

import seamline.media.clip
from seamline.errors import MediaError
from seamline.media import Clip, Image, Limits, expand, open_clip, open_image, open_media

from .films import HEIGHT, WIDTH, film, number, onset, picture, tone

FORTY = [picture(i) for i in range(40)]  # 1.6 s at 25 a second


def made(*args: Any, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    film(buffer, *args, **kwargs)
    return buffer.getvalue()


def opened(source: Any, **limits: Any) -> Clip:
    clip = open_media(source, limits=Limits(**limits))
    assert isinstance(clip, Clip)
    return clip


def numbers(clip: Clip, *args: Any, **kwargs: Any) -> list[int]:
    return [number(rgb) for rgb in clip.frames(*args, **kwargs)]


def heard(clip: Clip, rate: int = 16000, **kwargs: Any) -> np.ndarray:
    return np.concatenate([*clip.sound(rate, **kwargs), np.zeros(0, np.float32)])


PCM = {"acodec": "pcm_s16le", "sample_format": "s16"}
OPUS = {"acodec": "libopus", "sample_format": "flt", "rate": 48000}
BOTH = [
    ("mp4", "mov", {}),
    ("mov", "mov", {"codec": "mpeg4"}),
    ("mov", "mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le", **PCM}),
    ("3gp", "mov", {"codec": "mpeg4"}),
    ("mp4", "mov", {"muxer": {"movflags": "frag_keyframe+delay_moov"}}),
    ("matroska", "matroska", {}),
    ("matroska", "matroska", {"codec": "ffv1", "acodec": "flac", "sample_format": "s16"}),
    ("webm", "matroska", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}, **OPUS}),
    ("webm", "matroska", {"codec": "libvpx", **OPUS}),
    ("avi", "avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", **PCM}),
    ("avi", "avi", {**PCM}),
    ("mpeg", "mpeg", {"codec": "mpeg1video", "acodec": "mp2", "sample_format": "s16", "rate": 44100}),
    ("vob", "mpeg", {"codec": "mpeg2video", "acodec": "ac3", "rate": 48000}),
    ("mpegts", "mpegts", {"rate": 44100}),
    ("flv", "flv", {"codec": "flv", "acodec": "libmp3lame", "rate": 44100}),
    ("asf", "asf", {"codec": "wmv2", "acodec": "libmp3lame", "rate": 44100}),
]


@pytest.mark.parametrize(("muxer", "name", "options"), BOTH, ids=lambda value: value if isinstance(value, str) else "")
def test_video_with_sound_in_every_container(tmp_path: Path, muxer: str, name: str, options: dict[str, Any]) -> None:
    rate = options.get("rate", 16000)
    data = made(FORTY, tone(1.6, rate, begin=0.5), format=muxer, **options)
    path = tmp_path / "film"
    path.write_bytes(data)
    clip = opened(path)
    assert (clip.kind, clip.format, clip.path) == ("video", name, str(path))
    assert (clip.sha256, clip.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert clip.streams == {"video": "present", "audio": "present"}
    assert clip.duration == pytest.approx(1.6, abs=0.06)
    assert clip.video is not None
    assert clip.audio is not None
    assert (clip.video.width, clip.video.height, clip.video.frames) == (WIDTH, HEIGHT, 40)
    assert clip.video.fps == pytest.approx(25, rel=1e-6)
    assert (clip.video.rotation, clip.video.variable, clip.video.start) == (0, False, 0.0)
    assert clip.video.duration == pytest.approx(1.6, abs=1e-3)
    assert (clip.audio.rate, clip.audio.channels) == (rate, 1)
    assert clip.audio.start == pytest.approx(0, abs=0.03)
    assert numbers(clip) == list(range(40))
    sound = heard(clip)
    assert sound.dtype == np.float32
    assert len(sound) / 16000 == pytest.approx(1.6, abs=0.06)
    assert onset(sound) == pytest.approx(0.5, abs=0.02)
    assert np.abs(sound).max() == pytest.approx(0.5, abs=0.08)
    assert clip.notes == []
    assert clip.warnings == (("samples of more than 8 bit were reduced to 8 bit",) if "10le" in str(options) else ())
    same = opened(data)
    assert (same.path, same.sha256, same.video, same.audio) == ("<bytes>", clip.sha256, clip.video, clip.audio)
    np.testing.assert_array_equal(heard(same), sound)


SOUNDS = [
    ("wav", "wav", {"acodec": "pcm_u8", "sample_format": "u8"}),
    ("wav", "wav", {**PCM}),
    ("wav", "wav", {"acodec": "pcm_s24le", "sample_format": "s32"}),
    ("wav", "wav", {"acodec": "pcm_f32le", "sample_format": "flt"}),
    ("wav", "wav", {"acodec": "pcm_f64le", "sample_format": "dbl"}),
    ("flac", "flac", {"acodec": "flac", "sample_format": "s16"}),
    ("aiff", "aiff", {"acodec": "pcm_s16be", "sample_format": "s16"}),
    ("mp3", "mp3", {"acodec": "libmp3lame"}),
    ("mp2", "mp3", {"acodec": "mp2", "sample_format": "s16"}),
    ("mp4", "mov", {"acodec": "aac"}),
    ("ipod", "mov", {"acodec": "alac", "sample_format": "s16p"}),
    ("adts", "aac", {"acodec": "aac"}),
    ("ogg", "ogg", {**OPUS}),
    ("ogg", "ogg", {"acodec": "flac", "sample_format": "s16"}),
    ("matroska", "matroska", {"acodec": "flac", "sample_format": "s16"}),
    ("amr", "amr", {"acodec": "libopencore_amrnb", "sample_format": "s16", "rate": 8000}),
]


@pytest.mark.parametrize(
    ("muxer", "name", "options"), SOUNDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_sound_in_every_container(muxer: str, name: str, options: dict[str, Any]) -> None:
    clip = opened(made(sound=tone(1.2, options.get("rate", 16000), begin=0.3), format=muxer, **options))
    assert (clip.kind, clip.format, clip.video) == ("audio", name, None)
    assert clip.streams == {"video": "absent", "audio": "present"}
    assert clip.warnings == ()
    assert clip.duration == pytest.approx(1.2, abs=0.14)  # MPEG audio without a header is longer by its priming
    sound = heard(clip)
    exact = options["acodec"] in ("flac", "alac") or options["acodec"].startswith("pcm")
    assert len(sound) == 19200 if exact else len(sound) / 16000 == pytest.approx(1.2, abs=0.14)
    late = 0.07 if name in ("aac", "mp3", "amr") and options["acodec"] != "libmp3lame" else 0.012
    assert onset(sound) == pytest.approx(0.3, abs=1e-3 if exact else late)
    if exact:
        steps = {"pcm_u8": 1 / 128}.get(options["acodec"], 1 / 32768)
        np.testing.assert_allclose(sound, tone(1.2, 16000, begin=0.3)[0], atol=steps)
    assert list(clip.frames()) == []
    assert clip.notes == []


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_rates_and_channels(rate: int, channels: int) -> None:
    sound = tone(1.0, rate, channels, hertz=440) * np.linspace(1, 0.1, channels)[:, None]
    clip = opened(made(sound=sound, rate=rate, format="wav", acodec="pcm_s16le", sample_format="s16"))
    assert clip.audio is not None
    assert (clip.audio.rate, clip.audio.channels, clip.duration) == (rate, channels, 1.0)
    mono = heard(clip)
    assert abs(len(mono) - 16000) <= 1
    expected = tone(1.0, 16000, hertz=440)[0] * np.linspace(1, 0.1, channels).mean()
    middle = slice(800, 15200)  # a sine that is cut off rings at its ends
    np.testing.assert_allclose(mono[middle], expected[middle], atol=0.01)


def test_a_tone_above_the_new_rate_is_gone() -> None:
    clip = opened(made(sound=tone(1.0, 48000, hertz=11000), rate=48000, format="wav", **PCM))
    assert np.abs(heard(clip)[800:-800]).max() < 0.005


@pytest.mark.parametrize("block", [0.01, 0.3, 1.0, 60.0])
def test_blocks_of_sound_join(block: float) -> None:
    clip = opened(made(sound=tone(1.3, 44100), rate=44100, format="flac", acodec="flac", sample_format="s16"))
    parts = list(clip.sound(16000, block))
    assert all(len(part) == round(16000 * block) for part in parts[:-1])
    np.testing.assert_array_equal(np.concatenate(parts), heard(clip))


def test_loud_sound_is_clipped_and_no_number_is_silence() -> None:
    sound = 4 * tone(0.5)
    sound[0, 4000:4100] = np.nan
    clip = opened(made(sound=sound, format="wav", acodec="pcm_f32le", sample_format="flt"))
    mono = heard(clip)
    assert np.abs(mono).max() == 1
    assert not mono[4000:4100].any()


@pytest.mark.parametrize("fps", [10, 12.5, 24000 / 1001, 25, 30000 / 1001, 50, 60, 120])
@pytest.mark.parametrize("muxer", ["mp4", "matroska"])
def test_frame_rates_come_to_the_clock(fps: float, muxer: str) -> None:
    clip = opened(made([picture(i) for i in range(24)], fps=fps, format=muxer))
    assert clip.video is not None
    assert clip.video.fps == pytest.approx(fps, rel=2e-3)
    assert clip.video.variable is False
    shown = numbers(clip)
    times = [round(i / fps, 3 if muxer == "matroska" else 6) for i in range(24)]
    near = 5.1e-4 if muxer == "matroska" else 1e-4
    assert shown == [max(i for i, time in enumerate(times) if time <= k / 25 + near) for k in range(len(shown))]
    assert len(shown) == pytest.approx(24 / fps * 25, abs=1.01)
    assert numbers(clip, fps=fps) == list(range(24))


def test_variable_frame_rate() -> None:
    times = [0.0, 0.05, 0.2, 0.21, 0.5, 0.8, 0.81, 0.82]
    for muxer in ("mp4", "matroska"):
        clip = opened(made([picture(i) for i in range(8)], times=times, format=muxer))
        assert clip.video is not None
        assert clip.video.variable
        assert clip.video.frames == 8
        expected = [max(i for i, time in enumerate(times) if time <= k * 0.04 + 1e-9) for k in range(21)]
        assert numbers(clip)[:21] == expected


@pytest.mark.parametrize(("muxer", "suffix"), [("mp4", "a"), ("matroska", "b"), ("mpegts", "c"), ("avi", "d")])
def test_a_part_is_the_same_as_that_part_of_the_whole(muxer: str, suffix: str) -> None:
    many = [picture(i) for i in range(250)]
    clip = opened(made(many, format=muxer, options={"g": "30"}))
    assert numbers(clip) == list(range(250))
    for start, stop in ((0.0, 1.0), (0.52, 0.6), (3.2, 5.0), (7.0, None), (9.96, None), (20.0, None), (3.0, 2.0)):
        last = 250 if stop is None else round(stop * 25)
        assert numbers(clip, start=start, stop=stop) == list(range(round(start * 25), last))


def turned(degrees: float, **flips: bool) -> Any:
    return lambda stream: stream.set_display_rotation(degrees, **flips)


@pytest.mark.parametrize(
    ("degrees", "flips", "shown", "rotation"),
    [
        (0, {}, lambda a: a, 0),
        (90, {}, lambda a: np.rot90(a), 270),
        (-90, {}, lambda a: np.rot90(a, -1), 90),
        (180, {}, lambda a: a[::-1, ::-1], 180),
        (0, {"hflip": True}, lambda a: a[:, ::-1], 0),
        (0, {"vflip": True}, lambda a: a[::-1], 180),
        (90, {"hflip": True}, None, None),
        (-90, {"hflip": True}, None, None),
    ],
)
def test_rotated(degrees: int, flips: dict[str, bool], shown: Any, rotation: int | None) -> None:
    clip = opened(made([picture(0b00010110)] * 3, setup=turned(degrees, **flips), format="mp4"))
    assert clip.video is not None
    (first, *_) = clip.frames()
    stored = picture(0b00010110)
    if shown is None:  # one of the two ways to turn and mirror; which one is FFmpeg's to say
        with av.open(io.BytesIO(made([picture(1)], setup=turned(degrees, **flips), format="mp4"))) as container:
            frame = next(container.decode(video=0))
            a, b, _, c, d = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32)[:5] / 65536
        x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
        across, down = np.rint(a * x + c * y).astype(int), np.rint(b * x + d * y).astype(int)
        expected = np.zeros((WIDTH, HEIGHT, 3), np.uint8)
        expected[down - down.min(), across - across.min()] = stored
    else:
        expected = shown(stored)
        assert clip.video.rotation == rotation
    assert first.flags.c_contiguous
    assert first.shape == expected.shape == (clip.video.height, clip.video.width, 3)
    assert np.abs(first.astype(int) - expected).mean() < 8
    assert clip.warnings == ()


def test_an_odd_angle_is_said() -> None:
    clip = opened(made([picture(3)] * 3, setup=turned(30), format="mp4"))
    assert any("angle" in warning for warning in clip.warnings)


def test_odd_pixels_are_said() -> None:
    def wide(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    clip = opened(made([picture(3)] * 3, setup=wide, format="mp4"))
    assert clip.warnings == ("its pixels are 1.33 times as wide as high, but are taken for square",)
    assert clip.video is not None
    assert clip.video.width == WIDTH


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("ffv1", "yuv420p10le"),
        ("ffv1", "rgb48le"),
        ("ffv1", "gray16le"),
        ("ffv1", "yuv444p16le"),
        ("ffv1", "yuva420p"),
        ("ffv1", "gray"),
        ("mjpeg", "yuvj444p"),
        ("libx264", "yuv422p"),
    ],
)
def test_pixel_formats(codec: str, pix_fmt: str) -> None:
    clip = opened(made([picture(0b10010110)] * 2, codec=codec, pix_fmt=pix_fmt, format="matroska"))
    (first, *_) = clip.frames()
    expected = picture(0b10010110).astype(int)
    if "gray" in pix_fmt:
        expected = np.repeat(expected @ [[0.299], [0.587], [0.114]], 3, axis=2)
    assert first.dtype == np.uint8
    assert np.abs(first - expected).mean() < 5
    assert bool(clip.warnings) == ("10" in pix_fmt or "16" in pix_fmt or "48" in pix_fmt)


@pytest.mark.parametrize("matrix", [1, 5, 9], ids=["bt709", "bt601", "bt2020"])
def test_colours_are_decoded_by_the_matrix_that_the_file_names(matrix: int) -> None:
    weights = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    rgb = np.array([180.0, 60.0, 90.0])
    y = weights[0] * rgb[0] + (1 - sum(weights)) * rgb[1] + weights[1] * rgb[2]
    planes = [16 + y * 219 / 255]
    planes += [128 + (rgb[i] - y) / (2 * (1 - w)) * 224 / 255 for i, w in ((2, weights[1]), (0, weights[0]))]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv444p"
        stream.codec_context.colorspace = matrix
        for _ in range(2):
            frame = VideoFrame.from_ndarray(
                np.stack([np.full((32, 32), round(p), np.uint8) for p in planes]), "yuv444p"
            )
            frame.colorspace = matrix
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (first, *_) = opened(buffer.getvalue()).frames()
    np.testing.assert_allclose(first[5, 5], rgb, atol=3)


@pytest.mark.parametrize("muxer", ["mp4", "matroska", "mpegts"])
def test_sound_that_starts_late(muxer: str) -> None:
    clip = opened(made(FORTY, tone(1.0, 48000), rate=48000, delay=0.5, format=muxer))
    assert clip.audio is not None
    assert clip.audio.start == pytest.approx(0.5, abs=0.03)
    sound = heard(clip)
    assert not sound[: round(0.45 * 16000)].any()
    assert onset(sound) == pytest.approx(0.5, abs=0.01)
    assert clip.notes == []
    assert numbers(clip) == list(range(40))


def test_pictures_that_start_late_are_black_before() -> None:
    times = [0.4 + 0.04 * i for i in range(10)]
    for muxer in ("mp4", "matroska"):
        clip = opened(made(FORTY[:10], tone(1.0), times=times, format=muxer))
        assert clip.video is not None
        assert clip.video.start == pytest.approx(0.4)
        assert numbers(clip) == [-1] * 10 + list(range(10))
    clip = opened(made(FORTY[:10], tone(1.0), times=[0.08 + 0.04 * i for i in range(10)], format="matroska"))
    assert numbers(clip) == [0, 0, *range(10)]  # as the delay of B-frames is no delay


def test_a_clip_that_was_cut_from_a_longer_one_begins_at_its_beginning() -> None:
    clip = opened(made(FORTY, times=[3600 + 0.04 * i for i in range(40)], format="matroska"))
    assert clip.duration == pytest.approx(1.6, abs=0.05)
    assert numbers(clip) == list(range(40))


def test_priming_is_not_heard() -> None:
    for muxer, options in (
        ("mp4", {"acodec": "aac"}),
        ("mp3", {"acodec": "libmp3lame"}),
        ("ogg", {"acodec": "libopus", "sample_format": "flt"}),
    ):
        clip = opened(made(sound=tone(1.0, 48000, hertz=100), rate=48000, format=muxer, **options))
        assert clip.audio is not None
        assert clip.audio.start == 0
        assert clip.duration == pytest.approx(1.0, abs=0.03)
        sound, expected = heard(clip, 48000), tone(1.0, 48000, hertz=100)[0]
        assert np.corrcoef(sound[4800:43200], expected[4800:43200])[0, 1] > 0.99


def test_an_edit_list_is_honoured(tmp_path: Path) -> None:
    # Packets are copied with times that begin before zero: the muxer writes an edit list that cuts half a second away.
    path = tmp_path / "cut.mp4"
    with av.open(io.BytesIO(made(FORTY, tone(1.6, 48000, begin=1.0), rate=48000, format="mp4"))) as source:
        with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target:
            copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is None:
                    continue
                shift = round(Fraction(1, 2) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    clip = opened(path)
    shown = numbers(clip)
    assert shown[0] in (12, 13)
    assert shown == list(range(shown[0], 40))
    assert onset(heard(clip)) == pytest.approx(0.5, abs=0.02)
    assert clip.duration == pytest.approx(1.1, abs=0.05)


def test_gaps_in_the_sound_are_silent() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for begin in (0, 16000 * 3):
            frame = AudioFrame.from_ndarray((tone(1.0) * 32767).astype(np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, begin, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = opened(buffer.getvalue())
    sound = heard(clip)
    assert len(sound) == 64000
    assert not sound[16100:47900].any()
    assert np.abs(sound[48100:]).max() > 0.4
    assert clip.notes == ["the sound has 1 gap or overlap in time; gaps are silent"]


def test_two_pictures_and_one_sample() -> None:
    for muxer in ("mp4", "matroska", "avi", "mpegts"):
        clip = opened(made(FORTY[:2], format=muxer))
        assert clip.video is not None
        assert clip.video.frames == 2
        assert clip.streams == {"video": "present", "audio": "absent"}
        assert clip.audio is None
        assert numbers(clip) == [0, 1]
        assert list(clip.sound()) == []
    clip = opened(made(FORTY[:1], format="mp4"))
    assert numbers(clip) == [0]
    for muxer, options in (("wav", PCM), ("flac", {"acodec": "flac", "sample_format": "s16"})):
        clip = opened(made(sound=np.full((1, 1), 0.25), format=muxer, **options))
        assert clip.duration == pytest.approx(1 / 16000)
        np.testing.assert_allclose(heard(clip), [0.25], atol=1e-4)


def cover() -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture(77)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(("muxer", "codec"), [("mp3", "libmp3lame"), ("mp4", "aac"), ("flac", "flac")])
def test_a_cover_picture_is_not_video(muxer: str, codec: str) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as container:
        audio = container.add_stream(codec, rate=44100, layout="mono")
        video = container.add_stream("mjpeg", rate=1)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        video.disposition = av.stream.Disposition.attached_pic
        container.start_encoding()
        packet = av.Packet(cover())
        packet.stream, packet.pts, packet.dts, packet.time_base = video, 0, 0, Fraction(1, 1)
        container.mux(packet)
        frame = AudioFrame.from_ndarray((tone(1.0, 44100) * 32767).astype(np.int16), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 44100, 0, Fraction(1, 44100)
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    clip = opened(buffer.getvalue())
    assert (clip.kind, clip.video) == ("audio", None)
    assert clip.streams == {"video": "absent", "audio": "present"}
    assert clip.warnings == ("its cover picture is not examined",)


def test_of_several_streams_one_is_examined_and_said() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        streams = []
        for size in (32, 128):
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
            streams.append(stream)
        streams[1].disposition = av.stream.Disposition.default
        for i in range(5):
            for stream in streams:
                frame = VideoFrame.from_ndarray(picture(i, stream.width, stream.height), "rgb24")
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    clip = opened(buffer.getvalue())
    assert clip.warnings == ("holds 2 streams of pictures; only stream 1 is examined",)
    assert clip.video is not None
    assert (clip.video.width, numbers(clip)) == (128, [0, 1, 2, 3, 4])


def test_pictures_of_another_size_are_resized() -> None:
    buffer = io.BytesIO(made(FORTY[:10], format="mpegts"))
    other = made([picture(i, 2 * WIDTH, 2 * HEIGHT) for i in range(10)], format="mpegts")
    clip = opened(buffer.getvalue() + other)
    frames = list(clip.frames())
    assert {frame.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert [number(frame) for frame in frames] == [*range(10), *range(10)]  # the clock that began anew goes on


# Damage


@pytest.mark.parametrize(
    ("muxer", "options"),
    [
        ("mp4", {"muxer": {"movflags": "faststart"}, "codec": "mpeg4", "rate": 44100}),
        ("matroska", {"codec": "mpeg4"}),
        ("webm", {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}, **OPUS}),
        ("avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", **PCM}),
        ("mpeg", {"codec": "mpeg1video", "acodec": "mp2", "sample_format": "s16", "rate": 44100}),
        ("mpegts", {"codec": "mpeg2video", "rate": 44100}),
        ("flv", {"codec": "flv", "acodec": "libmp3lame", "rate": 44100}),
    ],
)
def test_cut_off(tmp_path: Path, muxer: str, options: dict[str, Any]) -> None:
    options = dict(options)
    many = [picture(i) for i in range(200)]
    path = tmp_path / "film"
    film(path, many, tone(8.0, options.get("rate", 16000)), format=muxer, **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    clip = opened(path)
    shown = numbers(clip)
    assert 20 < len(shown) < 190
    assert shown[:-3] == list(range(len(shown) - 3))
    sound = heard(clip)
    assert 1 < len(sound) / 16000 < 7.5
    assert clip.video is not None
    assert clip.duration < 7.6
    if muxer in ("mp4", "matroska", "webm", "avi"):
        assert any("cut off" in warning for warning in clip.warnings)


def test_cut_off_before_the_index(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    film(path, FORTY)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(MediaError, match=r"film\.mp4: damaged or cut off"):
        open_media(path)


@pytest.mark.parametrize("muxer", ["wav", "flac", "mp3", "ogg", "ipod", "adts", "aiff"])
def test_cut_off_sound(tmp_path: Path, muxer: str) -> None:
    codec = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame", "ogg": "libopus", "aiff": "pcm_s16be"}
    muxing = {"movflags": "faststart"} if muxer == "ipod" else {}
    sample_format = {"libmp3lame": "fltp", "libopus": "flt", "aac": "fltp"}.get(codec.get(muxer, "aac"), "s16")
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.4, 0.4, (1, 48000 * 4))
    path = tmp_path / "sound"
    film(
        path,
        sound=sound,
        rate=48000,
        format=muxer,
        acodec=codec.get(muxer, "aac"),
        sample_format=sample_format,
        muxer=muxing,
    )
    data = path.read_bytes()
    clip = opened(data[: len(data) // 2])
    low = 0.9 if muxer == "ogg" else 1.7  # its pages hold a second
    assert low < len(heard(clip)) / 16000 < 2.3
    assert low < clip.duration < 2.3
    if muxer in ("wav", "flac", "ipod", "aiff"):
        assert any("cut off" in warning for warning in clip.warnings)


def test_damage_in_the_middle_leaves_a_note(rng: np.random.Generator) -> None:
    many = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(60)]
    data = bytearray(made(many, tone(2.4), codec="ffv1", options={"g": "1"}, format="matroska"))
    middle = len(data) // 2
    data[middle : middle + len(data) // 10] = rng.integers(0, 256, len(data) // 10, np.uint8).tobytes()
    clip = opened(bytes(data))
    assert 30 < len(list(clip.frames())) <= 60
    assert clip.notes
    assert any("damaged" in note for note in clip.notes)


@pytest.mark.parametrize(("muxer", "options"), [(muxer, options) for muxer, _, options in BOTH[:1] + BOTH[5:12]])
def test_flipped_bytes_never_escape(rng: np.random.Generator, muxer: str, options: dict[str, Any]) -> None:
    rate = options.get("rate", 16000)
    data = np.frombuffer(made(FORTY[:10], tone(0.4, rate), format=muxer, **options), np.uint8)
    for _ in range(12):
        damaged = data.copy()
        places = rng.integers(8, len(data), 30)
        damaged[places] = rng.integers(0, 256, 30)
        with contextlib.suppress(MediaError):  # and nothing else
            clip = open_media(damaged.tobytes(), limits=Limits(frame=10**6, duration=60.0))
            if isinstance(clip, Clip):
                assert all(rgb.shape == (clip.video.height, clip.video.width, 3) for rgb in clip.frames())
                assert np.isfinite(heard(clip)).all()


def test_a_stream_that_cannot_be_decoded_is_unusable() -> None:
    data = made(FORTY, tone(1.6), codec="mjpeg", pix_fmt="yuvj420p", format="avi", **PCM)
    broken = bytearray(made(FORTY, tone(1.6), codec="mpeg4", format="avi", **PCM))
    at = broken.find(b"movi")
    while (at := broken.find(b"00dc", at + 4)) > 0 and broken.find(b"idx1") > at:
        size = int.from_bytes(broken[at + 4 : at + 8], "little")
        broken[at + 8 : at + 8 + size] = bytes(size)
    clip = opened(bytes(broken))
    assert (clip.kind, clip.video) == ("audio", None)
    assert clip.streams["video"].startswith("unusable: ")
    assert clip.streams["audio"] == "present"
    unknown = data.replace(b"MJPG", b"ZZZZ")
    clip = opened(unknown)
    assert clip.streams == {"video": "unusable: no decoder for its codec", "audio": "present"}
    with pytest.raises(MediaError, match="no picture and no sound"):
        open_media(made(FORTY, codec="mjpeg", pix_fmt="yuvj420p", format="avi").replace(b"MJPG", b"ZZZZ"))


def test_pictures_before_the_first_that_stands_for_itself_are_left_out(tmp_path: Path) -> None:
    buffer = io.BytesIO(made(FORTY, codec="mpeg2video", options={"g": "15", "bf": "0"}, format="mpegts"))
    path = tmp_path / "cut.ts"
    with av.open(buffer) as source, av.open(str(path), "w", format="mpegts") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(source.demux()):
            if packet.dts is not None and i >= 5:  # the first group of pictures has lost its beginning
                packet.stream = copy
                target.mux(packet)
    clip = opened(path)
    assert numbers(clip) == list(range(15, 40))


# Files that mean harm


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ts", "list.mp3"])
@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        ";FFMETADATA1\ntitle={}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 1 RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD><BaseURL>{}</BaseURL></MPD>',
    ],
    ids=["hls", "concat", "metadata", "sdp", "dash"],
)
def test_texts_are_never_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    secret = tmp_path / "secret.wav"
    film(secret, sound=tone(1.0), format="wav", **PCM)
    path = tmp_path / name
    path.write_text(text.format(secret))
    read: list[str] = []
    monkeypatch.setattr(os, "open", lambda file, *rest: read.append(str(file)) or pytest.fail("a file was opened"))
    with pytest.raises(MediaError, match="holds text"):
        open_media(path)
    with pytest.raises(MediaError, match="neither video nor sound"):
        open_clip(path)
    assert read == []


def test_a_container_opens_no_second_file() -> None:
    # Whatever the content, FFmpeg's way to other files ends in our refusal.
    with pytest.raises(PermissionError, match="refused"):
        seamline.media.clip._refuse("/etc/passwd", 1, {})
    forced = seamline.media.clip._Source("<bytes>", b"ffconcat version 1.0\nfile /etc/passwd\n", "concat", Limits())
    with pytest.raises(MediaError, match="cannot be opened"), seamline.media.clip._opened(forced):
        pass


def test_pictures_named_as_clips_and_clips_named_as_pictures(tmp_path: Path) -> None:
    path = tmp_path / "photo.mp4"
    path.write_bytes(cover())
    image = open_media(path)
    assert isinstance(image, Image)
    assert image.warnings == ("the name ends in .mp4, but the content is JPEG",)
    path = tmp_path / "film.jpg"
    film(path, FORTY[:3], format="mp4")
    assert opened(path).warnings == ("the name ends in .jpg, but the content is mov",)
    with pytest.raises(MediaError, match="not a picture"):
        open_image(path)
    path = tmp_path / "film.mkv"
    film(path, FORTY[:3], format="avi", codec="mjpeg", pix_fmt="yuvj420p")
    assert opened(path).warnings == ("the name ends in .mkv, but the content is avi",)
    path = tmp_path / "film.mov"
    film(path, FORTY[:3], format="mp4")
    assert opened(path).warnings == ()


def test_limits(tmp_path: Path) -> None:
    data = made(FORTY, tone(1.6), format="mp4")
    path = tmp_path / "film.mp4"
    path.write_bytes(data)
    for source in (data, path):
        assert opened(source, clip_bytes=len(data), duration=2.0, frame=WIDTH * HEIGHT, streams=2, bytes=10, pixels=10)
        for name, value in (
            ("clip_bytes", len(data) - 1),
            ("duration", 1.5),
            ("frame", WIDTH * HEIGHT - 1),
            ("streams", 1),
        ):
            with pytest.raises(MediaError, match=rf"limit of .*Limits\({name}="):
                open_media(source, limits=Limits(**{name: value}))


def test_the_limits_come_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(FORTY, tone(1.6), format="mp4")
    monkeypatch.setattr(seamline.media.clip, "_decoded", lambda *_: pytest.fail("something was decoded"))
    for name in ("clip_bytes", "duration", "frame", "streams"):
        with pytest.raises(MediaError, match="limit"):
            open_media(data, limits=Limits(**{name: 1}))


def test_a_file_that_changed_is_not_read_on(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    film(path, FORTY)
    clip = opened(path)
    film(path, FORTY[:20])
    with pytest.raises(MediaError, match=r"film\.mp4: changed since it was opened"):
        next(clip.frames())
    path.unlink()
    with pytest.raises(MediaError, match="no such file"):
        next(clip.frames())


def test_arguments_that_make_no_sense() -> None:
    clip = opened(made(FORTY[:3], tone(0.2), format="mp4"))
    for call in (
        lambda: clip.frames(fps=0),
        lambda: clip.frames(start=-1),
        lambda: clip.sound(0),
        lambda: clip.sound(block=0),
    ):
        with pytest.raises(ValueError, match="give a rate"):
            next(call())


# Cost


def test_pictures_that_no_tick_shows_are_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    converted = []
    original = seamline.media.clip._Painter.rgb

    def counted(self: Any, frame: Any) -> np.ndarray:
        converted.append(frame)
        return original(self, frame)

    monkeypatch.setattr(seamline.media.clip._Painter, "rgb", counted)
    clip = opened(made([picture(i) for i in range(120)], fps=120, format="mp4"))
    assert len(list(clip.frames(fps=10))) == len(converted) == 10
    clip = opened(made(FORTY[:10], fps=10, format="mp4"))
    converted.clear()
    frames = list(clip.frames(fps=30))
    assert (len(frames), len(converted)) == (30, 10)
    assert frames[0] is frames[1] is frames[2]


def test_decoding_is_lazy_and_memory_does_not_grow_with_length(monkeypatch: pytest.MonkeyPatch) -> None:
    data = made([picture(i % 256) for i in range(500)], tone(20.0), format="mp4")
    decoded = 0
    original = seamline.media.clip._decoded

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal decoded
        for frame in original(*args, **kwargs):
            decoded += 1
            yield frame

    monkeypatch.setattr(seamline.media.clip, "_decoded", counted)
    clip = opened(data)
    assert decoded <= 4  # the first picture and sound
    frames = clip.frames()
    for k in range(1, 200):
        next(frames)
        assert decoded - 4 <= k + 3
    frames.close()
    gc.collect()
    tracemalloc.start()
    for _ in clip.frames():
        pass
    for _ in clip.sound():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * WIDTH * HEIGHT * 3  # of 500 pictures


def test_expand_knows_videos_and_sounds(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.MKV", "c.wav", "d.jpg", "e.txt", "f.m3u8"):
        (tmp_path / name).touch()
    assert [path.name for path in expand([tmp_path])] == ["a.mp4", "b.MKV", "c.wav", "d.jpg"]
    assert [path.name for path in expand([tmp_path], endings={".wav"})] == ["c.wav"]
