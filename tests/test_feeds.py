"""Feeds: what one example of a clip is, and that training on clips runs, resumes and is examined."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import av
import numpy as np
import pytest

from seamline.cues import BANDS, COUNT, PER_TICK, cues
from seamline.data import Sample, open_data
from seamline.data.clips import STORE, Prepared, as_float, prepare
from seamline.detectors.base import ClipTruth
from seamline.detectors.erf_batfd_plus import PRESETS, ErfBatfdPlus, build
from seamline.feeds import Clips, _filmed, feed, visible
from seamline.pace import LAGS
from seamline.train import Recipe, Stage, train

RATE = 16000


def sound(path: Path, seconds: float, loud: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(len(path.name))
    t = np.arange(round(seconds * RATE)) / RATE
    wave = 0.1 * rng.normal(size=len(t))
    if loud:
        inside = (t >= loud[0]) & (t < loud[1])
        wave[inside] = 0.4 * np.sin(2 * np.pi * 700 * t[inside])
    samples = (np.clip(wave, -1, 1) * 32767).astype(np.int16)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve sounds, half of them with a tone laid over 0.6 s of noise."""
    root = tmp_path_factory.mktemp("clips")
    (root / "media").mkdir()
    rows = []
    for i in range(12):
        loud = (0.4 + 0.1 * i, 1.0 + 0.1 * i) if i % 2 else None
        sound(root / "media" / f"{i:02}.wav", 2.4, loud)
        row = {
            "path": f"media/{i:02}.wav",
            "kind": "tone" if loud else "authentic",
            "label": int(bool(loud)),
            "video": [],
        }
        rows.append(
            row | {"audio": [loud] if loud else [], "duration": 2.4, "fps": 25, "group": f"g{i // 2}", "source": None}
        )
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def samples(data: Path) -> list[Sample]:
    return open_data(data)


def test_a_prepared_clip_has_its_truth_in_ticks_and_is_made_once(data: Path) -> None:
    detector = build("erf-batfd-plus-tiny")
    sample = samples(data)[3]
    first = prepare(sample, detector.clock, data / STORE)
    assert (first.ticks, first.faces) == (60, None)
    assert first.truth == ClipTruth((), (pytest.approx((0.7 * 25, 1.3 * 25)),))
    stamps = {path: path.stat().st_mtime_ns for path in (data / STORE).rglob("*")}
    window, truth = prepare(sample, detector.clock, data / STORE).window(20, 50, detector.clock)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert window.sound is not None
    assert len(window.sound) == 30 * 640
    assert truth.audio == (pytest.approx((0, 12.5)),)


def test_an_example_depends_on_its_generator_alone_and_shows_the_forgery(data: Path) -> None:
    meal = feed(build("erf-batfd-plus-tiny"), 24, 1.0, data)
    assert isinstance(meal, Clips)
    for sample in samples(data):
        (one, truth), (again, same) = (meal.example(sample, np.random.default_rng(5)) for _ in range(2))
        assert one.sound is not None
        assert again.sound is not None
        np.testing.assert_array_equal(one.sound, again.sound)
        assert (one.ticks, truth) == (24, same)
        assert bool(truth.audio) == sample.truth.forged


def test_a_stage_may_be_given_one_modality(data: Path) -> None:
    detector = build("erf-batfd-plus-tiny")
    forged = next(sample for sample in samples(data) if sample.truth.forged)
    for given, heard in (("audio", True), ("video", False)):
        meal = feed(detector, 24, 1.0, data, (given,))
        window, truth = meal.example(forged, np.random.default_rng(5))
        assert (window.faces is None, window.sound is not None, bool(truth.audio)) == (True, heard, heard)
        outputs = detector(*meal.collate([(window, truth)]))
        assert bool(outputs.audio.there[0]) == heard


def test_the_pace_of_pictures_may_be_given_without_faces(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    detector = build("erf-batfd-plus-tiny")
    rng = np.random.default_rng(0)
    film = Prepared(
        rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8), np.ones(60, bool), None, 60,
        ClipTruth(((20.0, 31.0),)), rng.uniform(1, 9, (60, LAGS)).astype(np.float32),
    )  # fmt: skip
    monkeypatch.setattr("seamline.feeds.prepare", lambda *_: film)
    sample = samples(data)[0]
    alone = feed(detector, 40, 1.0, data, ("pace",))
    window, truth = alone.example(sample, np.random.default_rng(1))
    assert window.faces is None
    assert window.pace is not None
    assert truth.video
    batch, targets = alone.collate([(window, truth)])
    assert batch.faces.untyped_storage().nbytes() == 1  # none was made
    outputs = detector(batch)
    assert outputs.video.there.all()
    detector.criterion(outputs, targets)["order"].backward()
    assert detector.pace.frames.weight.grad is not None
    with_faces = feed(detector, 40, 1.0, data)
    drawn = [with_faces.example(sample, np.random.default_rng(seed))[0] for seed in range(60)]
    seen = [(w.faces is not None, w.pace is not None) for w in drawn]
    assert {*seen} == {(True, True), (True, False), (False, True)}
    assert seen.count((True, True)) > 25
    plain = ErfBatfdPlus(dataclasses.replace(PRESETS["erf-batfd-plus-tiny"], pace=False))
    blind = feed(plain, 40, 1.0, data)
    assert all(blind.example(sample, np.random.default_rng(seed))[0].faces is not None for seed in range(30))


def test_cues_go_along_with_the_sound_they_were_measured_in(data: Path) -> None:
    """At its own pace and of its own part, but through another microphone each time."""
    detector = build("erf-batfd-plus-tiny")
    meal = feed(detector, 40, 1.0, data, ("audio",))
    sample = next(sample for sample in samples(data) if sample.truth.forged)
    heard = prepare(sample, detector.clock, data / STORE)
    assert heard.sound is not None
    assert heard.cues is not None
    np.testing.assert_array_equal(heard.cues, cues(as_float(heard.sound)))
    levels = set()
    for seed in range(6):
        window, truth = meal.example(sample, np.random.default_rng(seed))
        assert truth.audio
        assert window.cues is not None
        assert len(window.cues) == window.ticks * PER_TICK
        others = window.cues[:, BANDS + BANDS // 2 :]
        places = [k for k in range(len(heard.cues)) if (heard.cues[k, BANDS + BANDS // 2 :] == others[0]).all()]
        assert any(
            (heard.cues[k : k + len(others), BANDS + BANDS // 2 :] == others).all() for k in places if k % PER_TICK == 0
        )
        levels.add(float(window.cues[0, 0] - heard.cues[places[0], 0]))
    assert len(levels) == 6
    batch, targets = meal.collate([meal.example(sample, np.random.default_rng(0))])
    assert batch.sound.shape[1] == COUNT
    detector.criterion(detector(batch), targets)["audio_frames"].backward()
    assert detector.audio.encoder.enter.weight.grad is not None
    plain = ErfBatfdPlus(dataclasses.replace(PRESETS["erf-batfd-plus-tiny"], cues=False))
    assert feed(plain, 40, 1.0, data).example(sample, np.random.default_rng(0))[0].cues is None


def test_a_stage_may_be_shown_some_kinds(data: Path, tmp_path: Path) -> None:
    stage = Stage("tones", steps=1, batch=2, lr=1e-3, kinds=("tone",))
    recipe = Recipe(
        "erf-batfd-plus-tiny", (stage,), crop=32, holdout=0.0, workers=0, tensorboard=False, validate_every=0
    )
    assert train(recipe, data, tmp_path, device="cpu", progress=False).is_file()


def test_sound_alone_is_played_at_other_paces_and_its_truth_goes_along(data: Path) -> None:
    """The tone keeps to its span and only there is the sound loud; the pitch of 700 Hz moves."""
    plain = ErfBatfdPlus(dataclasses.replace(PRESETS["erf-batfd-plus-tiny"], cues=False))
    meal = feed(plain, 40, 1.0, data, ("audio",))
    forged = next(sample for sample in samples(data) if sample.truth.forged)
    pitches = []
    for seed in range(12):
        window, truth = meal.example(forged, np.random.default_rng(seed))
        assert window.sound is not None
        assert len(window.sound) == window.ticks * 640 <= 40 * 640
        ((start, end),) = truth.audio
        inside = np.zeros(len(window.sound), bool)
        inside[round(start * 640) : round(end * 640)] = True
        spectrum = np.abs(np.fft.rfft(window.sound[inside] * np.hanning(inside.sum())))
        pitches.append(np.argmax(spectrum) * RATE / inside.sum())
        power = np.square(window.sound).reshape(-1, 160).mean(1)
        loud = power > np.sqrt(power.max() * np.median(power[~inside[::160]]))
        assert (loud == inside[80::160]).mean() > 0.96
    assert min(pitches) < 670 < 695 < sorted(pitches)[6] < 705 < 730 < max(pitches)


def test_faces_are_filmed_by_another_camera_without_a_seam() -> None:
    """What is changed is the same in every frame, save grain, or drifts: it can't be taken for a seam."""
    ramp = np.linspace(0, 255, 96)
    face = np.stack([np.add.outer(ramp, ramp) / 2, np.tile(ramp, (96, 1)), np.tile(ramp[:, None], (1, 96))], -1)
    face[40:60, 30:50] = (250, 20, 90)
    faces = np.repeat(np.rint(face).astype(np.uint8)[None], 40, 0)
    changed, steps, spread = [], [], []
    for seed in range(60):
        seen = _filmed(faces, np.random.default_rng(seed))
        assert (seen.shape, seen.dtype) == (faces.shape, np.uint8)
        np.testing.assert_array_equal(seen, _filmed(faces, np.random.default_rng(seed)))
        smooth = seen.reshape(40, 12, 8, 12, 8, 3).mean((2, 4))  # little is left of the grain
        changed.append(np.abs(seen.astype(int) - faces).mean())
        steps.append(np.abs(np.diff(smooth, axis=0)).mean((1, 2, 3)).max())
        spread.append(np.abs(smooth - smooth[0]).mean((1, 2, 3)).max())
    assert np.quantile(changed, 0.9) > 8 > np.quantile(changed, 0.1)
    assert np.mean(np.array(spread) < 2) > 0.25
    assert max(spread) > 12
    assert max(steps) < 6


def test_of_an_absent_modality_nothing_is_said() -> None:
    truth = ClipTruth(((1.0, 2.0),), ((3.0, 4.0),))
    assert visible(truth, True, False) == ClipTruth(((1.0, 2.0),), ())
    assert visible(truth, False, False) == ClipTruth()


def test_training_on_clips_runs_resumes_and_is_examined(data: Path, tmp_path: Path) -> None:
    stage = Stage("whole", steps=4, batch=3, lr=2e-3)
    recipe = Recipe(
        model="erf-batfd-plus-tiny", stage=(stage,), crop=32, holdout=0.2, validate_every=2, save_every=2, log_every=1,
        workers=0, tensorboard=False,
    )  # fmt: skip
    best = train(recipe, data, tmp_path / "a", device="cpu", progress=False)
    assert best.name == "best.safetensors"
    train(recipe, data, tmp_path / "b", device="cpu", progress=False, max_minutes=0)
    train(recipe, data, tmp_path / "b", device="cpu", progress=False)
    rows = [list(csv.DictReader((tmp_path / run / "log.csv").read_text().splitlines())) for run in "ab"]
    assert len(rows[0]) == 4
    for name in ("total", "audio_map", "audio_visual_score", "rebuilding"):
        assert [row[name] for row in rows[0]] == [row[name] for row in rows[1]]
    examined = list(csv.DictReader((tmp_path / "a" / "validation.csv").read_text().splitlines()))
    assert [row["step"] for row in examined] == ["2", "4"]
    assert set(examined[0]) == {"step", "stage", "auc", "ap", "ar", "mean", "best"}
