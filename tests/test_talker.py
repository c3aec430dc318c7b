"""The demonstration clip: a voice with pitch and words, a face that moves with it, and the files we ship."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import seamline
from seamline.synthesis import clips, speech, talker
from seamline.synthesis.audio_visual import FPS, STEP
from seamline.synthesis.clip_file import read_footage

SAMPLES = Path(seamline.__file__).parent / "samples"


def test_the_voice_has_pitch_pauses_and_a_jaw() -> None:
    sound, jaw = talker.say(talker.SENTENCE, np.random.default_rng(0), pitch=180)
    assert sound.dtype == np.float32
    assert 3 < len(sound) / speech.RATE < 9
    assert len(jaw) * speech.HOP == len(sound)
    assert speech.is_speech(sound)
    pitch, voiced = speech.pitch_track(sound)
    assert 150 < np.median(pitch[voiced]) < 210
    assert jaw.min() >= 0
    assert jaw.max() <= 1
    loud = np.array([speech.level(part) for part in sound.reshape(-1, speech.HOP)])
    assert np.corrcoef(loud, jaw)[0, 1] > 0.4
    again, _ = talker.say(talker.SENTENCE, np.random.default_rng(0), pitch=180)
    np.testing.assert_array_equal(sound, again)


def test_the_mouth_opens_and_the_rest_stays() -> None:
    photo = np.random.default_rng(0).integers(60, 200, (300, 380, 3)).astype(np.uint8)
    shut, wide = (
        talker.animate(photo, np.full(40, jaw), 3, np.random.default_rng(1), talker.Landmarks(), side=130)
        for jaw in (0.0, 1.0)
    )
    change = np.abs(shut.astype(int) - wide).mean((0, 3))
    assert change[75:85, 58:68].mean() > 10  # chin
    assert change[:10, :10].mean() == 0


def test_the_shipped_clips_are_what_their_truth_says() -> None:
    truth = json.loads((SAMPLES / "talker-truth.json").read_text())
    assert truth["talker-synthetic.mp4"] == {key: [[0.0, 5.84]] for key in ("video", "audio")}
    for name, spans in truth.items():
        path = SAMPLES / name
        assert path.stat().st_size < 400_000
        clip = read_footage(str(path), name)
        assert len(clip.sound) == STEP * clip.ticks
        assert speech.is_speech(clip.sound)
        assert np.isfinite(clips.track_face(clip.frames)).all()
        assert all(0 <= a < b <= clip.duration for a, b in [*spans["video"], *spans["audio"]])
    made, forged = (read_footage(str(SAMPLES / name), name) for name in truth)
    ((start, stop),) = truth["talker-forged.mp4"]["audio"]
    a, b = round(start * speech.RATE), round(stop * speech.RATE)
    inside = speech.level(made.sound[a:b] - forged.sound[a:b])
    assert inside > 5 * speech.level(made.sound[: a - 2000] - forged.sound[: a - 2000])
    ((start, stop),) = truth["talker-forged.mp4"]["video"]
    change = np.abs(made.frames.astype(int) - forged.frames).mean((1, 2, 3))
    k = slice(round(start * FPS), round(stop * FPS))
    assert change[k].min() > 1.5 * np.delete(change, np.r_[k]).max() or change[k].mean() > 2 * change[: k.start].mean()


def test_they_can_be_made_again(tmp_path: Path) -> None:
    data = pytest.importorskip("skimage.data")
    paths = talker.make_clips(np.asarray(data.astronaut())[..., :3], tmp_path)
    assert [p.name for p in paths] == ["talker-synthetic.mp4", "talker-forged.mp4"]
    assert (tmp_path / "talker-truth.json").read_text() == (SAMPLES / "talker-truth.json").read_text()
