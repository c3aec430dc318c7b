"""Verdicts know their limits: what decides them, and strangers of every codec that must not get one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

import seamline
from seamline import verdicts, zoo
from seamline.familiar import PHOTO, SOUND, Familiarity, fit, name_photo, photo, sound
from seamline.media import Image, jpeg, open_image, open_media

from .films import film
from .strangers import PICTURES, RATE, SOUNDS

CODECS = {
    "png": ("PNG", {}),
    "jpeg95": ("JPEG", {"quality": 95}),
    "jpeg75": ("JPEG", {"quality": 75}),
    "jpeg50": ("JPEG", {"quality": 50}),
    "webp": ("WEBP", {"quality": 80}),
    "gif": ("GIF", {}),
}


@pytest.fixture(scope="module")
def session() -> seamline.Session:
    return seamline.load()


@pytest.fixture(scope="module")
def listener() -> seamline.Session:
    return seamline.load(zoo.default("clip"))


def encoded(rgb: np.ndarray, codec: str) -> bytes:
    form, options = CODECS[codec]
    file = io.BytesIO()
    PILImage.fromarray(rgb).save(file, form, **options)
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------------- deciding


@pytest.mark.parametrize(
    ("probability", "verdict", "codes"),
    [
        (0.49, "authentic", []),
        (0.5, "inconclusive", ["uncertain"]),
        (0.69, "inconclusive", ["uncertain"]),
        (0.7, "forged", []),
    ],
)
def test_probability_and_threshold_decide(probability: float, verdict: str, codes: list[str]) -> None:
    said, reasons = verdicts.decide(probability, 0.7)
    assert (said, [reason.code for reason in reasons]) == (verdict, codes)
    limit = verdicts.reason("unfamiliar")
    assert verdicts.decide(probability, 0.7, [limit]) == ("inconclusive", (limit,)), "a limit outweighs any probability"


def test_every_reason_has_words_and_none_is_lost_between_versions() -> None:
    values = {"width": 9, "height": 9, "smallest": 64, "seconds": 0.1, "needed": 0.2, "model": "m"}
    values |= {"threshold": "62 %", "quality": 40, "lowest": 75, "share": "90 %"}
    for code in verdicts.CODES:
        said = verdicts.reason(code, **values)
        assert said.code == code
        assert "{" not in said.words
    assert set(verdicts.CODES) == {
        *("too_small", "flat", "graphics", "noise", "too_short", "no_face", "silent", "no_speech", "not_judged"),
        *("uncertain", "too_compressed", "unfamiliar", "whole", "synthetic", "screenshot"),
    }, "codes are for programs and archives: add, never rename"


def test_what_a_file_says_and_how_it_was_saved_limit_a_verdict() -> None:
    grey = np.full((80, 80, 3), 128, np.uint8)
    image = Image(grey, "a", quality=70, says=("synthetic",))
    assert [r.code for r in verdicts.limits_of_photo(image, None, 75)] == ["synthetic", "too_compressed"]
    assert verdicts.limits_of_photo(Image(grey, "a", quality=75), None, 75) == ()
    assert verdicts.limits_of_photo(Image(grey, "a"), None, 75) == (), "what is no JPEG has no quality"
    small = verdicts.limits_of_photo(Image(grey[:63], "a", quality=10, says=("screenshot",)), None, 75)
    assert [r.code for r in small] == ["too_small"]
    assert not verdicts.judged(small)


@pytest.mark.parametrize(
    ("mark", "says"),
    [
        (b"tEXtparameters\0a cat", ("synthetic",)),
        (b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia", ("synthetic",)),
        (b"http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia", ()),
        (b"ASCII\0\0\0Screenshot", ("screenshot",)),
        (b"a Screenshot of parameters", ()),
    ],
)
def test_claims_of_a_file_are_read(mark: bytes, says: tuple[str, ...], rng: np.random.Generator) -> None:
    data = encoded(rng.integers(0, 255, (70, 70, 3), np.uint8), "png")
    assert open_image(data + mark).says == says


@pytest.mark.parametrize("quality", [1, 35, 50, 75, 90, 100])
def test_the_quality_of_a_jpeg_is_known(quality: int, rng: np.random.Generator) -> None:
    file = io.BytesIO()
    PILImage.fromarray(rng.integers(0, 255, (70, 70, 3), np.uint8)).save(file, "JPEG", quality=quality)
    assert open_image(file.getvalue()).quality == quality
    header = jpeg.read_header(file.getvalue())
    assert header is not None
    assert jpeg.quality(header.tables[0]) == (quality, True)
    odd = tuple(min(255, step + 1) for step in header.tables[0])
    assert jpeg.quality(odd)[1] is False or quality == 1


def test_what_the_last_save_left_is_read_from_the_file_and_its_pixels(session: seamline.Session) -> None:
    """A PNG holds all traces only if the blocks of the save before it are still in its pixels."""
    photo = PILImage.fromarray(pytest.importorskip("skimage.data").coffee())

    def left(picture: PILImage.Image, form: str, **options: int) -> str:
        file = io.BytesIO()
        picture.save(file, form, **options)
        image = open_image(file.getvalue())
        return verdicts.last_save(image, 80, traced=session.detector.lead(image.pixels) is not None)

    file = io.BytesIO()
    photo.save(file, "JPEG", quality=90)
    saved = PILImage.open(io.BytesIO(file.getvalue()))
    assert left(saved, "PNG") == left(saved, "BMP") == left(saved, "TIFF") == "lossless"
    assert left(saved.crop((3, 5, 400, 380)), "PNG") == "lossless"
    assert left(saved.resize((450, 300), PILImage.Resampling.LANCZOS), "PNG") == ""
    assert left(saved, "WEBP", quality=80) == ""
    assert [left(saved, "JPEG", quality=q) for q in (79, 80, 98, 99)] == ["compressed", "", "", "lossless"]
    pixels = np.asarray(saved.convert("RGB"))
    assert verdicts.last_save(Image(pixels, "<array>"), 80, traced=True) == ""


# ---------------------------------------------------------------------------------------------------------- familiarity


def test_the_limit_is_exceeded_by_the_stated_share_of_new_files(rng: np.random.Generator) -> None:
    spread = rng.normal(0, 1, (len(PHOTO), len(PHOTO)))
    files = rng.normal(0, 1, (4000, len(PHOTO))) @ spread + 5
    known = fit(PHOTO, list(files[:2000]), [str(i // 4) for i in range(2000)], 0.02)
    share = np.mean([known.distance(x) > known.limit for x in files[2000:]])
    assert 0.01 < share < 0.03
    again = Familiarity.from_dict(known.to_dict())
    assert again.distance(files[0]) == pytest.approx(known.distance(files[0]), rel=1e-3)
    assert again.limit == pytest.approx(known.limit, rel=1e-5)


@pytest.mark.parametrize(
    "change",
    [{"features": ["a"]}, {"mean": [1.0]}, {"precision": [[1.0]]}, {"mean": [float("nan")] * len(SOUND)}],
)
def test_damaged_familiarity_is_refused(change: dict[str, object], rng: np.random.Generator) -> None:
    known = fit(SOUND, list(rng.normal(0, 1, (50, len(SOUND)))), [""] * 50, 0.1).to_dict()
    with pytest.raises(ValueError, match="familiarity"):
        Familiarity.from_dict(known | change)
    with pytest.raises(ValueError, match="too few"):
        fit(SOUND, [np.zeros(len(SOUND))] * 34, [""] * 34, 0.1)


@pytest.mark.parametrize("size", [(64, 64), (65, 4000), (3000, 2000)])
def test_features_are_numbers_for_any_picture(size: tuple[int, int]) -> None:
    for rgb in (np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)):
        assert np.isfinite(photo(rgb)).all()
        assert name_photo(photo(rgb)) == "flat"


def test_features_of_sound_are_numbers_or_none(rng: np.random.Generator) -> None:
    for wave in (np.zeros(0), np.zeros(RATE), np.ones(RATE), rng.normal(0, 1e-9, RATE), rng.normal(0, 9, 3 * RATE)):
        found = sound(wave.astype(np.float32), RATE)
        assert found is None or np.isfinite(found).all()


# ------------------------------------------------------------------------------------------------------------ strangers


@pytest.mark.parametrize("kind", PICTURES)
def test_strangers_get_no_verdict(kind: str, session: seamline.Session) -> None:
    rgb = PICTURES[kind](np.random.default_rng(0))
    reports = [session(encoded(rgb, codec)) for codec in CODECS]
    for report in reports:
        assert report.verdict in ("inconclusive", "not_applicable"), (kind, report.media.format, report.probability)
        assert report.reasons
        if report.verdict == "not_applicable":
            assert report.probability is None
            assert report.heatmap is None
    codes = [report.reasons[0].code for report in reports]
    wanted = {"black": "flat", "snow": "noise", "grain": "noise"}.get(kind, "graphics")
    assert codes.count(wanted) >= len(codes) - 2, (kind, codes)


def test_ordinary_photos_are_familiar(session: seamline.Session) -> None:
    data = pytest.importorskip("skimage.data")
    known = Familiarity.from_dict(session.card.familiarity)
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        assert verdicts.limits_of_photo(open_image(getattr(data, name)()), known, 0) == (), name


@pytest.mark.parametrize("kind", SOUNDS)
@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [("a.wav", "pcm_s16le", "s16"), ("a.mp3", "libmp3lame", "fltp"), ("a.m4a", "aac", "fltp")],
)
def test_sounds_without_speech_get_no_verdict(
    kind: str, name: str, codec: str, form: str, listener: seamline.Session, tmp_path: Path
) -> None:
    wave = SOUNDS[kind](np.random.default_rng(7))
    film(tmp_path / name, sound=wave[None], acodec=codec, sample_format=form, rate=RATE)
    report = listener(tmp_path / name)
    assert report.verdict == "not_applicable"
    assert [reason.code for reason in report.reasons] == ["silent" if kind == "silence" else "no_speech"]
    assert report.streams["audio"].startswith("not applicable: ")
    assert report.probability is None


def test_a_dark_film_with_a_tone_gets_no_verdict(listener: seamline.Session, tmp_path: Path) -> None:
    film(
        tmp_path / "a.mp4",
        [np.zeros((96, 128, 3), np.uint8)] * 30,
        SOUNDS["tone"](np.random.default_rng(1))[None, :RATE],
    )
    report = listener(tmp_path / "a.mp4")
    assert report.verdict == "not_applicable"
    assert {reason.code for reason in report.reasons} == {"no_face", "no_speech"}


def test_speech_is_heard_as_speech(listener: seamline.Session) -> None:
    known = Familiarity.from_dict(listener.card.familiarity)
    clip = open_media(Path(seamline.__file__).with_name("samples") / "talker-synthetic.mp4")
    wave = np.concatenate(list(clip.sound(RATE)))  # type: ignore[union-attr]
    assert verdicts.is_speech(wave, RATE, known)
    assert not verdicts.is_speech(wave[:: 2 * RATE], RATE, known)


def test_pictures_marked_all_over_are_not_called_edited(
    session: seamline.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = pytest.importorskip("skimage.data").astronaut()
    for share, verdict in ((0.5, "forged"), (0.9, "inconclusive")):
        heat = np.zeros(rgb.shape[:2], np.float32)
        heat[: round(share * len(heat))] = 1
        monkeypatch.setattr(session, "_look", lambda *_, heat=heat: (9.0, heat))
        report = session(rgb)
        assert report.verdict == verdict
        assert [reason.code for reason in report.reasons] == (["whole"] if verdict == "inconclusive" else [])
        assert bool(report.regions) == (verdict == "forged")


def test_reports_tell_their_operating_point(session: seamline.Session) -> None:
    point = session(np.zeros((16, 16, 3), np.uint8)).operating_point
    assert point is not None
    assert point.threshold == session.card.threshold
    assert 0 <= point.low <= point.false_alarms <= point.high < 0.2
