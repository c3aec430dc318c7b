"""Forged clips: exact truth of each modality, seams, seeds, and files whose clock is right."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from seamline.errors import DataError, MediaError
from seamline.synthesis import audio_visual as av
from seamline.synthesis import clip_file, clips, speech
from seamline.synthesis.audio_visual import FPS, STEP, Donors, Footage, Lengths, forge_clip, kinds_of
from seamline.synthesis.clip_file import ClipChain, draw_chain, encode, read_footage
from seamline.synthesis.recipe import forge, read_recipe
from seamline.synthesis.speech import CARES, RATE, level
from seamline.synthesis.surroundings import surrounded, under

PAIRS = ("voice_tts+lipsync", "vocoder+reblend", "word_swap+mouth_swap")
KINDS = (*av.SOUND_KINDS, *av.PICTURE_KINDS, *PAIRS)


def spoken(seconds: float, seed: int = 0, pitch: float = 120.0) -> speech.Sound:
    """Something like speech: a voice of changing pitch in syllables with pauses, over a little noise."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    at = np.arange(n) / RATE
    glide = pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * at + seed))
    phase = 2 * np.pi * np.cumsum(glide) / RATE
    voice = sum(np.sin(k * phase) * np.exp(-(((k * pitch - 600) / 900) ** 2)) for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * at + seed) + 0.4, 0, 1) * (np.sin(2 * np.pi * 0.35 * at) > -0.8)
    sound = 0.15 * voice * syllables + 0.0008 * rng.standard_normal(n)
    return np.clip(sound, -1, 1).astype(np.float32)


def talking(seconds: float = 4.0, seed: int = 0) -> Footage:
    """A face of sorts whose mouth, head and light move, with a voice."""
    rng = np.random.default_rng(seed)
    n = round(seconds * FPS)
    yy, xx = np.mgrid[:120, :160].astype(np.float32)
    wall = rng.integers(40, 200, (120, 160, 3)).astype(np.float32)
    frames, boxes = [], []
    for k in range(n):
        x, y = 80 + 6 * np.sin(k / 9 + seed), 55 + 2 * np.sin(k / 5)
        frame = wall.copy()
        frame[((xx - x) / 26) ** 2 + ((yy - y) / 34) ** 2 < 1] = (200, 160, 140)
        for side in (-10, 10):
            frame[((xx - x - side) / 4) ** 2 + ((yy - y + 8) / 2.5) ** 2 < 1] = 30
        frame[((xx - x) / 9) ** 2 + ((yy - y - 18) / (1.5 + 6 * abs(np.sin(k / 3 + seed)))) ** 2 < 1] = (120, 20, 30)
        frames.append(np.clip(frame + rng.normal(0, 2, frame.shape), 0, 255).astype(np.uint8))
        boxes.append((x - 30, y - 30, x + 30, y + 30))
    return Footage(np.stack(frames), spoken(n / FPS, seed), np.array(boxes, np.float32))


CLIP = talking()
DONORS = Donors(voice=spoken(6, 7, 210.0), face=talking(3.0, 5))


def span_mask(spans: av.Spans, rate: int, count: int) -> np.ndarray:
    mask = np.zeros(count, bool)
    for start, stop in spans:
        mask[round(start * rate) : round(stop * rate)] = True
    return mask


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_outside_the_truth(kind: str) -> None:
    sound_kind, picture_kind = kinds_of(kind)
    for seed in range(4):
        made = forge_clip(kind, CLIP, np.random.default_rng(seed), donors=DONORS)
        now = made.footage
        assert now.sound is not None
        assert now.frames is not None
        assert len(now.sound) == STEP * now.ticks == len(CLIP.sound)
        assert bool(made.audio) == (sound_kind is not None)
        assert bool(made.video) == (picture_kind is not None)
        for spans, rate, changed in (
            (made.audio, RATE, now.sound != CLIP.sound),
            (made.video, FPS, (now.frames != CLIP.frames).any((1, 2, 3))),
        ):
            mask = span_mask(spans, rate, len(changed))
            assert not changed[~mask].any(), f"{kind}, seed {seed}: changed outside the truth"
            for start, stop in spans:
                assert 0 <= start < stop <= CLIP.duration + 1e-9
                assert changed[round(start * rate)], f"{kind}, seed {seed}: the truth begins before the change"
                assert changed[round(stop * rate) - 1], f"{kind}, seed {seed}: the truth ends after the change"


@pytest.mark.parametrize("kind", [*KINDS, *av.CUT_KINDS])
def test_the_same_seed_gives_the_same_clip(kind: str) -> None:
    first, second = (forge_clip(kind, CLIP, np.random.default_rng(3), donors=DONORS) for _ in range(2))
    assert (first.video, first.audio, first.care) == (second.video, second.audio, second.care)
    np.testing.assert_array_equal(first.footage.sound, second.footage.sound)
    np.testing.assert_array_equal(first.footage.frames, second.footage.frames)


@pytest.mark.parametrize("care", CARES)
def test_words_put_in_move_the_rest_later(care: str) -> None:
    made = forge_clip("word_insert", CLIP, np.random.default_rng(1), donors=DONORS, care=care)
    ((start, stop),), ((first, last),) = made.audio, made.video
    a, b, c, d = (round(v * r) for v, r in ((start, RATE), (stop, RATE), (first, FPS), (last, FPS)))
    now = made.footage
    assert now.sound is not None
    assert now.frames is not None
    assert len(now.sound) == STEP * now.ticks == len(CLIP.sound) + b - a
    np.testing.assert_array_equal(np.concatenate([now.sound[:a], now.sound[b:]]), CLIP.sound)
    np.testing.assert_array_equal(np.concatenate([now.frames[:c], now.frames[d:]]), CLIP.frames)
    assert abs(a / RATE - c / FPS) <= 0.5 / FPS + 1e-9


@pytest.mark.parametrize("care", CARES)
def test_words_taken_out_leave_a_short_truth_round_the_seam(care: str) -> None:
    made = forge_clip("word_delete", CLIP, np.random.default_rng(2), donors=DONORS, care=care)
    ((start, stop),), ((first, last),) = made.audio, made.video
    now = made.footage
    assert now.sound is not None
    assert now.frames is not None
    gone = CLIP.ticks - now.ticks
    assert gone >= 5
    assert len(now.sound) == STEP * now.ticks
    assert stop - start == pytest.approx(2 * av.SEAM)
    assert last - first == pytest.approx(2 * av.SEAM)
    a, b, c, d = (round(v * r) for v, r in ((start, RATE), (stop, RATE), (first, FPS), (last, FPS)))
    np.testing.assert_array_equal(now.sound[:a], CLIP.sound[:a])
    np.testing.assert_array_equal(now.sound[b:], CLIP.sound[b + gone * STEP :])
    np.testing.assert_array_equal(now.frames[:c], CLIP.frames[:c])
    np.testing.assert_array_equal(now.frames[d:], CLIP.frames[d + gone :])


def test_careful_seams_are_smoother_than_crude_ones() -> None:
    """The step at the first forged sample, against the steps of the recording itself."""

    def step(care: str) -> float:
        jumps = []
        for seed in range(12):
            made = forge_clip("voice_splice", CLIP, np.random.default_rng(seed), donors=DONORS, care=care)
            now = made.footage.sound
            assert now is not None
            at = round(made.audio[0][0] * RATE)
            if at:
                jumps.append(abs(float(now[at] - now[at - 1])) - abs(float(CLIP.sound[at] - CLIP.sound[at - 1])))
        return float(np.mean(jumps))

    assert step("careful") < 0.3 * step("crude")


def test_lengths_of_spans_are_as_asked() -> None:
    rng = np.random.default_rng(0)
    short = [v for _ in range(300) for v in Lengths(0, 0).draw(20, rng)]
    assert min(short) >= 0.2
    assert max(short) <= 1.5
    assert all(2 <= v[0] <= 8 for v in (Lengths(0, 1).draw(20, rng) for _ in range(50)))
    assert Lengths(1, 0).draw(7, rng) == [7]
    whole = forge_clip("vocoder+lipsync", CLIP, rng, donors=DONORS, lengths=Lengths(1, 0))
    assert whole.audio[0] == pytest.approx((0, CLIP.duration), abs=0.01)
    assert whole.video == ((0, CLIP.duration),)


def test_sound_alone_and_pictures_alone() -> None:
    heard = Footage(None, CLIP.sound)
    made = forge_clip("vocoder", heard, np.random.default_rng(0))
    assert made.footage.frames is None
    assert made.audio
    seen = Footage(CLIP.frames, None, CLIP.boxes)
    made = forge_clip("lipsync", seen, np.random.default_rng(0))
    assert made.footage.sound is None
    assert made.video
    for kind, clip in (("lipsync", heard), ("vocoder", seen), ("vocoder+lipsync", heard), ("word_insert", seen)):
        with pytest.raises(DataError, match=kind.replace("+", r"\+")):
            forge_clip(kind, clip, np.random.default_rng(0))


def test_silence_is_never_forged_speech() -> None:
    silent = Footage(CLIP.frames, np.zeros_like(CLIP.sound), CLIP.boxes)
    for kind in av.SOUND_KINDS:
        with pytest.raises(DataError):
            forge_clip(kind, silent, np.random.default_rng(0), donors=DONORS)
    assert not speech.is_speech(silent.sound)
    assert not speech.is_speech(0.2 * np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32))
    assert speech.is_speech(CLIP.sound)


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(DataError, match="unknown kind"):
        forge_clip("ventriloquy", CLIP, np.random.default_rng(0))
    with pytest.raises(DataError, match="unknown kind"):
        kinds_of("lipsync+vocoder")
    still = Footage(np.repeat(CLIP.frames[:1], 50, 0), CLIP.sound[: 50 * STEP], CLIP.boxes[:50])
    with pytest.raises(DataError, match="timewarp"):
        forge_clip("timewarp", still, np.random.default_rng(0))


# ---------------------------------------------------------------------------------------------------------------
# Sound transforms
# ---------------------------------------------------------------------------------------------------------------


def test_spectra_come_back() -> None:
    sound = spoken(1.3)
    np.testing.assert_allclose(speech.istft(speech.stft(sound), len(sound)), sound, atol=1e-9)
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(speech.resample(speech.resample(tone, 12345), RATE), tone, atol=1e-6)


def test_pitch_is_tracked_and_stretching_keeps_it() -> None:
    at = np.arange(2 * RATE) / RATE
    buzz = sum(np.sin(2 * np.pi * 150 * k * at) / k for k in range(1, 15)).astype(np.float32) * np.float32(0.1)
    pitch, voiced = speech.pitch_track(buzz)
    assert voiced[5:-5].all()
    np.testing.assert_allclose(np.median(pitch), 150, rtol=0.02)
    long = speech.stretch(buzz, 1.4)
    assert len(long) == round(1.4 * len(buzz))
    np.testing.assert_allclose(np.median(speech.pitch_track(long.astype(np.float32))[0]), 150, rtol=0.02)


@pytest.mark.parametrize("transform", [speech.griffin_lim, speech.source_filter, speech.shift_pitch])
def test_transforms_keep_length_loudness_and_rhythm(transform: object) -> None:
    sound = spoken(2.0)
    for seed in range(4):
        out = transform(sound, np.random.default_rng(seed))  # type: ignore[operator]
        assert out.shape == sound.shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert speech.level(out) == pytest.approx(speech.level(sound), rel=0.02)
        loud = [np.sqrt((s[: len(s) // 800 * 800].reshape(-1, 800) ** 2).mean(1)) for s in (sound, out)]
        assert np.corrcoef(*loud)[0, 1] > 0.8


# ---------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------


def lag(heard: np.ndarray, meant: np.ndarray) -> int:
    """Samples by which a sound comes late."""
    n = min(len(heard), len(meant))
    match = np.fft.irfft(np.fft.rfft(heard[:n], 2 * n) * np.conj(np.fft.rfft(meant[:n], 2 * n)))
    at = int(np.argmax(match))
    return at - 2 * n if at > n else at


def test_a_film_is_written_the_same_on_every_run() -> None:
    """Whatever lies in memory: x264 looks ahead in these presets, which was not repeatable."""
    rng = np.random.default_rng(0)
    still = cv2.GaussianBlur(rng.normal(128, 120, (260, 380, 3)), (0, 0), 2)
    frames = (
        np.stack([np.roll(still, (2 * k, 3 * k), (0, 1))[:222, :318] for k in range(50)]).clip(0, 255).astype(np.uint8)
    )
    for preset in ("veryfast", "faster"):
        found = set()
        for _ in range(6):
            junk = [rng.integers(0, 256, rng.integers(1000, 300_000), np.uint8) for _ in range(200)]
            found.add(encode(Footage(frames, None), ClipChain(preset=preset, crf=19)))
            del junk
        assert len(found) == 1, preset


@pytest.mark.parametrize(
    ("ending", "codec", "rate"),
    [
        (".mp4", "aac", 44100),
        (".mp4", "libmp3lame", 22050),
        (".mkv", "libopus", 48000),
        (".mkv", "aac", 16000),
        (".mov", "aac", 48000),
    ],
)
def test_a_film_comes_back_in_step(ending: str, codec: str, rate: int) -> None:
    frames = CLIP.frames[:50].copy()
    frames[:, :24, :24] = 5 * np.arange(50)[:, None, None, None]  # every picture says its number
    clip = Footage(frames, CLIP.sound[: 50 * STEP])
    data = encode(clip, ClipChain(ending=ending, audio_codec=codec, rate=rate, crf=12))
    assert data == encode(clip, ClipChain(ending=ending, audio_codec=codec, rate=rate, crf=12))
    back = read_footage(io.BytesIO(data), "film")
    assert back.ticks == 50
    assert abs(lag(back.sound, clip.sound)) <= 8
    np.testing.assert_allclose(back.frames[:, 4:20, 4:20].mean((1, 2, 3)), 5 * np.arange(50), atol=2)


@pytest.mark.parametrize("ending", clip_file.SOUNDS)
def test_a_sound_comes_back_in_step(ending: str) -> None:
    clip = Footage(None, CLIP.sound)
    back = read_footage(
        io.BytesIO(encode(clip, ClipChain(ending=ending, audio_codec=clip_file.SOUNDS[ending][1], rate=48000))), "sound"
    )
    assert back.frames is None
    assert abs(back.ticks - clip.ticks) <= 2
    assert abs(lag(back.sound, clip.sound)) <= 8


def test_chains_keep_the_clock_and_do_not_know_the_label() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        chain = draw_chain(rng, picture=True, sound=True, face=(0.4, 0.3, 0.7, 0.8))
        x0, y0, x1, y1 = chain.window
        assert x0 <= 0.4
        assert y0 <= 0.3
        assert x1 >= 0.7
        assert y1 >= 0.8
        out = chain.apply(CLIP, rng)
        assert out.ticks == CLIP.ticks
        assert len(out.sound) == len(CLIP.sound)
        assert out.frames.shape[1] % 2 == out.frames.shape[2] % 2 == 0
    twice = ClipChain(earlier=28, crf=20).save(Footage(CLIP.frames[:30], CLIP.sound[: 30 * STEP]))
    assert read_footage(io.BytesIO(twice), "twice").ticks == 30


def test_files_that_are_no_clips_are_named() -> None:
    with pytest.raises(MediaError, match="no film"):
        read_footage(io.BytesIO(b"not a film at all"), "no film")
    with pytest.raises(DataError, match="neither"):
        encode(Footage(None, None), ClipChain())


def test_a_face_that_leaps_or_goes_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter([(10, 10, 60, 60), (12, 10, 62, 60), (90, 50, 140, 100), (14, 10, 64, 60)] + [None] * 20)
    monkeypatch.setattr(clips, "find_face", lambda frame: next(seen))
    boxes = clips.track_face(np.zeros((4 * clips.EVERY, 120, 160, 3), np.uint8))
    assert np.nanmax(boxes[:, 0]) < 20
    assert np.isfinite(boxes).all()
    assert np.isnan(clips.track_face(np.zeros((80, 120, 160, 3), np.uint8))).all()


def test_words_of_an_align_file(tmp_path: Path) -> None:
    (tmp_path / "x.align").write_text("0 12500 sil\n12500 25000 bin\n25000 30000 blue\n30000 75000 sil\n")
    assert clips.read_words(tmp_path / "x.align") == [(8000, 16000), (16000, 19200)]


# ---------------------------------------------------------------------------------------------------------------
# The recipe
# ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people on film, one reader, one synthetic voice, and a manifest that says who is on which side."""
    folder = tmp_path_factory.mktemp("sources")
    files = {
        "film/a.mp4": ("video", "train", "a", encode(talking(3, 1), ClipChain())),
        "film/b.mp4": ("video", "train", "b", encode(talking(3, 2), ClipChain())),
        "film/c.mp4": ("video", "val", "c", encode(talking(3, 3), ClipChain())),
        "read/d.wav": ("speech", "train", "d", encode(Footage(None, spoken(4, 4)), SOUND)),
        "fake/e.wav": ("speech_fake", "train", "e", encode(Footage(None, spoken(4, 5, 200)), SOUND)),
    }
    rows = ["path,kind,split,group"]
    for name, (kind, split, group, data) in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        rows.append(f"{name},{kind},{split},{group}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


SOUND = ClipChain(ending=".wav", audio_codec="pcm_s16le")
RECIPE = """
media = "clips"
seed = 5
count = 10
authentic = 0.3
seconds = [2.0, 5.0]
only_sound = 0.3
split = "train"
same_person = ["film/"]
[kinds]
vocoder = 1.0
voice_tts = 1.0
voice_synthetic = 0.5
freeze = 1.0
"voice_splice+freeze" = 1.0
word_delete = 0.5
"""


def test_the_folder_says_what_was_done(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    calls = []
    manifest = forge(sources, tmp_path / "out", tmp_path / "recipe.toml", progress=lambda *n: calls.append(n))
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert calls[-1] == (10, 10)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.jsonl",
        "media",
        "metadata.json",
        "recipe.toml",
    ]
    table = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert {row["kind"] for row in rows} > {"authentic"}
    for row, entry in zip(rows, table, strict=True):
        clip = read_footage(str(tmp_path / "out" / row["path"]), row["path"])
        assert (clip.frames is not None, clip.sound is not None) == (row["picture"], row["sound"])
        assert clip.duration == pytest.approx(row["duration"], abs=0.08)
        assert "c" not in row["group"].split("+"), "the other side of the split was used"
        assert row["label"] == int(bool(row["video"] or row["audio"])) == int(row["kind"] != "authentic")
        assert entry["file"] == row["path"]
        assert (entry["modify_video"], entry["modify_audio"]) == (bool(row["video"]), bool(row["audio"]))
        assert entry["n_fakes"] == len(entry["fake_periods"])
        assert entry["video_frames"] == (round(row["duration"] * FPS) if row["picture"] else 0)
        if row["kind"] == "voice_synthetic":
            assert row["audio"] == [[0.0, row["duration"]]]
    with pytest.raises(DataError, match="already holds"):
        forge(sources, tmp_path / "out", tmp_path / "recipe.toml")


def test_surroundings_stay_in_step_and_below_the_voice() -> None:
    """What is added to speech is bounded, begins with it and is the same for the same seed."""
    voice = spoken(4, 6)
    heard = 0
    for seed in range(24):
        sound, music = surrounded(voice, np.random.default_rng(seed))
        again, _ = surrounded(voice, np.random.default_rng(seed))
        np.testing.assert_array_equal(sound, again)
        assert (sound.dtype, sound.shape) == (np.float32, voice.shape)
        assert np.abs(sound).max() <= 1
        later = [float(np.dot(np.roll(sound, -k)[40:-40], voice[40:-40])) for k in range(-40, 41)]
        assert np.argmax(later) == 40  # the room answers after the voice
        assert level(sound - voice) < 2 * level(voice)
        if music is not None:
            heard += 1
            assert 10 ** (-27 / 20) < level(music) / level(voice) < 10 ** (-3 / 20)
            short = music[: RATE + 1]
            added = under(voice / 4, short) - voice / 4
            np.testing.assert_allclose(added[RATE + 1 : RATE + 101], short[:100], atol=1e-6)
    assert 4 <= heard <= 16


def test_a_recipe_with_surroundings_changes_sounds_and_only_sounds(sources: Path, tmp_path: Path) -> None:
    files = {}
    for share in (0.0, 1.0):
        (tmp_path / "recipe.toml").write_text(RECIPE.replace("[kinds]", f"surroundings = {share}\n[kinds]"))
        manifest = forge(sources, tmp_path / str(share), tmp_path / "recipe.toml")
        files[share] = [json.loads(line) for line in manifest.read_text().splitlines()]
    changed = 0
    for before, after in zip(files[0.0], files[1.0], strict=True):
        assert (before["kind"], before["picture"], before["sound"]) == (after["kind"], after["picture"], after["sound"])
        if before["kind"] == "authentic" and before["sound"]:
            clips_ = [read_footage(str(tmp_path / str(s) / r["path"]), "x") for s, r in ((0.0, before), (1.0, after))]
            one, two = (clip.sound for clip in clips_)
            assert one is not None
            assert two is not None
            changed += level(two[: len(one)] - one[: len(two)]) > 0.02 * level(one)
    assert changed


def test_strangers_change_the_speed_of_sounds_without_pictures(sources: Path, tmp_path: Path) -> None:
    """Voices at another speed: other lengths, truth inside them, films as they were, and the same for the same seed."""
    rows = {}
    for name, share in (("none", 0.0), ("all", 1.0), ("again", 1.0)):
        (tmp_path / "recipe.toml").write_text(RECIPE.replace("[kinds]", f"strangers = {share}\n[kinds]"))
        manifest = forge(sources, tmp_path / name, tmp_path / "recipe.toml")
        rows[name] = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert rows["all"] == rows["again"]
    changed = 0
    for before, after in zip(rows["none"], rows["all"], strict=True):
        assert (before["kind"], before["picture"], before["sound"]) == (after["kind"], after["picture"], after["sound"])
        assert all(0 <= start < end <= after["duration"] + 1e-6 for start, end in after["audio"])
        if before["picture"]:
            assert before["sha256"] == after["sha256"]
        elif before["kind"] == "authentic":
            low, high = clips.SPEEDS
            assert 1 / high - 0.05 < after["duration"] / before["duration"] < 1 / low + 0.05
            changed += before["duration"] != after["duration"]
    assert changed


@pytest.mark.slow
def test_workers_do_not_change_a_byte(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    one, two = (forge(sources, tmp_path / str(n), tmp_path / "recipe.toml", workers=n).read_bytes() for n in (1, 2))
    assert one == two


def test_a_fake_period_of_both_is_one(tmp_path: Path) -> None:
    row = {"path": "x", "duration": 4.0, "video": [[1.0, 2.0], [3.0, 3.5]], "audio": [[1.1, 2.2]]}
    row |= {"picture": True, "sound": True, "post": {}}
    (entry,) = clips.metadata([row], "dev")
    assert entry["fake_periods"] == [[1.0, 2.2], [3.0, 3.5]]
    assert entry["split"] == "dev"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('media = "songs"', "songs"),
        ('media = "clips"\ncolour = 3', "colour"),
        ('media = "clips"\n[kinds]\nmagic = 1.0', "magic"),
    ],
)
def test_recipes_that_cannot_be_followed(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(DataError, match=says):
        read_recipe(tmp_path / "r.toml")


def test_the_recipes_we_ship_keep_calibration_out_of_training() -> None:
    folder = Path(__file__).parents[1] / "recipes"
    named = ("train", "sound", "surroundings", "val", "calibration")
    train, sound, around, val, cal = (read_recipe(folder / f"forge-clips-{name}.toml") for name in named)
    assert isinstance(train, clips.ClipRecipe)
    assert isinstance(sound, clips.ClipRecipe)
    assert isinstance(around, clips.ClipRecipe)
    assert isinstance(val, clips.ClipRecipe)
    assert isinstance(cal, clips.ClipRecipe)
    assert train.split == sound.split == around.split == cal.split == "train"
    assert val.split == "val"
    assert set(cal.groups) == set(train.without) == set(sound.without) == set(around.without)
    assert all("speech/emodb" in recipe.exclude for recipe in (train, sound, around, val, cal))


@pytest.mark.data
def test_the_shared_clips_have_faces_and_voices(shared: Path) -> None:
    grid = sorted((shared / "data" / "video" / "grid_s1").glob("*.mpg"))[:1]
    talker = sorted((shared / "data" / "video" / "talkers").glob("*.mp4"))[:1]
    for path in grid + talker:
        clip = read_footage(str(path), path.name)
        assert len(clip.sound) == STEP * clip.ticks
        assert speech.is_speech(clip.sound)
        assert np.isfinite(clips.track_face(clip.frames[:50])).all()
    silent = read_footage(str(shared / "data" / "video" / "performers" / "driving__d18.mp4"), "silent")
    assert not speech.is_speech(silent.sound)
