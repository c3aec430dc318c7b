"""Perturbations do what their names say, to the strength they say, and the truth follows them."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from seamline.errors import DataError
from seamline.media import Clip, Image, open_media
from seamline.report import Media, Report, Segment
from seamline.synthesis.perturb import CLIP_GRID, PHOTO_GRID, change_clip, change_photo, photo_file, truth_after
from tests.films import film, number, onset, picture, tone

SECONDS = 2.0
PICTURES = ("crf23", "crf32", "crf40", "fps15")


@pytest.fixture(scope="module")
def photo() -> npt.NDArray[np.uint8]:
    """A textured grey photo (96, 128, 3) with a bright forged square."""
    rgb = np.random.default_rng(3).integers(40, 90, (96, 128, 3), np.uint8)
    rgb[32:64, 48:96] = 220
    return rgb


@pytest.fixture(scope="module")
def mask() -> npt.NDArray[np.float32]:
    truth = np.zeros((96, 128), np.float32)
    truth[32:64, 48:96] = 1
    return truth


@pytest.mark.parametrize("name", PHOTO_GRID)
def test_the_mask_follows_the_photo(name: str, photo: npt.NDArray[np.uint8], mask: npt.NDArray[np.float32]) -> None:
    rgb, truth = change_photo(name)(photo, mask)
    assert truth is not None
    assert rgb.dtype == np.uint8
    assert truth.dtype == np.float32
    assert truth.shape == rgb.shape[:2]
    seen, meant = rgb[..., 1] > 150, truth >= 0.5
    assert (seen & meant).sum() / (seen | meant).sum() > 0.95
    assert not np.array_equal(rgb, photo)
    again, none = change_photo(name)(photo, None)  # an authentic photo of the same pixels gets the same
    assert none is None
    np.testing.assert_array_equal(rgb, again)


def test_strengths_of_photos(photo: npt.NDArray[np.uint8]) -> None:
    def changed(name: str) -> npt.NDArray[np.float64]:
        return change_photo(name)(photo, None)[0].astype(np.float64)

    assert changed("resize0.75").shape == (72, 96, 3)
    assert changed("resize1.5").shape == (144, 192, 3)
    assert changed("screenshot").shape == (1080, 1440, 3)
    np.testing.assert_array_equal(changed("crop5"), photo[5:-5, 5:-5])
    noise = changed("noise5") - photo
    assert noise.std() == pytest.approx(5, abs=0.1)
    assert abs(noise.mean()) < 0.1
    assert not np.array_equal(noise[:48], noise[48:])
    assert changed("blur2").std() < changed("blur1").std() < photo.std()
    errors = [np.abs(changed(name) - photo).mean() for name in ("jpeg95", "jpeg75", "jpeg60")]
    assert errors == sorted(errors)
    np.testing.assert_array_equal(changed("none"), photo)
    chained = change_photo("jpeg75")(change_photo("resize0.5")(photo, None)[0], None)[0]
    np.testing.assert_array_equal(changed("resize0.5+jpeg75"), chained)
    assert change_photo("crop500")(photo, None)[0].shape == (2, 2, 3)


def test_photos_end_as_the_files_that_they_would_be(photo: npt.NDArray[np.uint8]) -> None:
    for name in ("jpeg60", "resize0.5+jpeg75", "jpeg75+resize0.5", "crop5", "none"):
        file, mask = photo_file(name)(photo, None)
        medium = open_media(file)
        assert isinstance(medium, Image)
        assert mask is None
        assert medium.format == ("JPEG" if name[-2:] in ("60", "75") else "PNG")
        expected = change_photo(name)(photo, None)[0]
        assert np.abs(medium.pixels.astype(int) - expected).max() <= 1, name  # two decoders of JPEG
    with pytest.raises(DataError, match="fog"):
        photo_file("fog+jpeg75")


@pytest.mark.parametrize(
    "name",
    ["jpeg", "jpeg0", "jpeg101", "jpeg7.5", "resize0", "resize75", "resize0.1", "crop1.5", "blur", "fog", "crf32", ""],
)
def test_unknown_perturbations_of_photos(name: str) -> None:
    with pytest.raises(DataError, match="of photos: none, jpegQ"):
        change_photo(name)
    with pytest.raises(DataError, match="of photos"):
        change_photo(f"jpeg75+{name}")


# ------------------------------------------------------------------------------------------------------------- clips


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """Two seconds of numbered pictures and a tone that begins after one."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    film(path, [picture(k) for k in range(50)], tone(SECONDS, begin=1.0))
    opened = open_media(path)
    assert isinstance(opened, Clip)
    return opened


def sound(clip: Clip, rate: int = 16000) -> npt.NDArray[np.float32]:
    return np.concatenate([*clip.sound(rate), np.zeros(0, np.float32)])


@pytest.mark.parametrize("name", CLIP_GRID)
def test_one_stream_changes_and_the_clock_stays(name: str, clip: Clip) -> None:
    changed = change_clip(name)(clip)
    assert changed is not None
    assert changed.duration == clip.duration
    assert changed.sha256 == clip.sha256
    before, after = list(clip.frames()), list(changed.frames())
    heard, hears = sound(clip), sound(changed)
    assert len(before) == len(after)
    if name in PICTURES:
        assert any((a != b).any() for a, b in zip(before, after, strict=True))
        np.testing.assert_array_equal(heard, hears)
        for k in (10, 30, 49):  # the picture of this moment, or the one shown until then
            assert 0 <= k - number(after[k]) <= (1 if name == "fps15" else 0)
    else:
        assert all((a == b).all() for a, b in zip(before, after, strict=True))
        assert not np.array_equal(heard, hears)
    if name == "mute":
        assert (len(hears), changed.audio, changed.streams["audio"]) == (0, None, "absent")
    elif name not in PICTURES:
        assert len(hears) == len(heard)
        assert changed.audio == clip.audio
    if name in ("aac24", "opus12"):
        assert onset(hears) == pytest.approx(onset(heard), abs=0.01)
    again = change_clip(name)(clip)
    assert again is not None
    np.testing.assert_array_equal(sound(again), hears)
    assert all((a == b).all() for a, b in zip(again.frames(), after, strict=True))


def test_strengths_of_clips(clip: Clip) -> None:
    def changed(name: str) -> Clip:
        found = change_clip(name)(clip)
        assert found is not None
        return found

    heard = sound(clip).astype(np.float64)
    for decibels in (20, 10):
        noise = sound(changed(f"snr{decibels}")) - heard
        assert 10 * np.log10((heard**2).mean() / (noise**2).mean()) == pytest.approx(decibels, abs=0.2)
    steady = slice(20000, 28000)  # of a tone of 500 Hz
    assert np.abs(sound(changed("band3400")) - heard)[steady].max() < 0.01
    assert np.abs(sound(changed("band300")))[steady].max() < 0.01
    assert len({number(frame) for frame in changed("fps15").frames()}) == 30
    assert [len(list(changed("fps15").frames(5.0, start=0.4, stop=1.2)))] == [4]
    assert changed("fps15").video is not None
    assert changed("fps15").video.fps == 15  # type: ignore[union-attr]
    errors = [
        np.mean([np.abs(a.astype(int) - b) for a, b in zip(clip.frames(), changed(name).frames(), strict=True)])
        for name in ("crf23", "crf32", "crf40")
    ]
    assert errors == sorted(errors)
    both = changed("crf40+snr10")
    np.testing.assert_array_equal(sound(both), sound(changed("snr10")))
    assert len(sound(changed("opus12"), 8000)) == len(sound(clip, 8000))


def test_codecs_do_not_delay_speech_like_sound() -> None:
    rng = np.random.default_rng(0)
    noise = (
        np.convolve(rng.normal(0, 1, 32000), np.hanning(64) / 32, "same") * (1 + np.sin(np.arange(32000) / 900)) * 0.1
    )
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((noise * 32767).astype("<i2").tobytes())
    clip = open_media(buffer.getvalue())
    assert isinstance(clip, Clip)
    for name in ("aac24", "opus12"):
        changed = change_clip(name)(clip)
        assert changed is not None
        lags = np.correlate(sound(changed)[4000:28000], sound(clip)[4400:27600], "valid")  # 0 to 800 samples
        assert abs(int(np.argmax(lags)) - 400) <= 8, name  # half a millisecond


def test_clips_that_lack_what_is_changed(clip: Clip, tmp_path: Path) -> None:
    film(tmp_path / "sound.mp4", [], tone(1.0))
    film(tmp_path / "silent.mp4", [picture(k) for k in range(10)])
    only_sound, silent = (open_media(tmp_path / name) for name in ("sound.mp4", "silent.mp4"))
    assert isinstance(only_sound, Clip)
    assert isinstance(silent, Clip)
    for name in (*PICTURES, "mute", "snr10+mute"):
        assert change_clip(name)(only_sound) is None
    for name in ("aac24", "opus12", "snr20", "band3400", "crf32+snr10"):
        assert change_clip(name)(silent) is None
    assert change_clip("none")(clip) is clip


@pytest.mark.parametrize("name", ["crf", "crf52", "fps0", "aac", "opus1.5", "band0", "mute3", "jpeg75"])
def test_unknown_perturbations_of_clips(name: str) -> None:
    with pytest.raises(DataError, match="of clips: none, crfN"):
        change_clip(name)


def test_muting_takes_forged_sound_out_of_the_truth() -> None:
    segments = (Segment(0, 1, 1.0, "audio"), Segment(2, 3, 1.0, "audio_visual"), Segment(3, 4, 1.0, "video"))
    truth = Report(Media("a.mp4", kind="video"), "forged", 1.0, segments=segments)
    assert truth_after("snr10", truth) is truth
    left = truth_after("crf32+mute", truth)
    assert [(s.start, s.modality) for s in left.segments] == [(2, "video"), (3, "video")]
    assert left.forged
    gone = truth_after("mute", Report(Media("a.mp4", kind="video"), "forged", 1.0, segments=segments[:1]))
    assert (gone.verdict, gone.probability, gone.segments) == ("authentic", 0.0, ())
