"""Clips with their truth: forge folders and LAV-DF's layout, made by the tests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamline.data import Sample, digest, open_data, read_lavdf, split_by_group
from seamline.errors import DataError
from seamline.media import open_media
from seamline.metrics.temporal import spans_of

FORGE = {
    "path": "media/000001.mp4",
    "kind": "voice_tts+lipsync",
    "label": 1,
    "video": [[1.0, 2.0]],
    "audio": [[1.2, 2.4], [0.1, 0.5]],
    "duration": 6.0,
    "fps": 25,
    "picture": True,
    "sound": True,
    "group": "s1",
    "source": "video/a.mp4",
    "sha256": "0" * 64,
}
LISTED = {
    "file": "test/000001.mp4",
    "n_fakes": 2,
    "fake_periods": [[3.0, 3.5], [1.0, 1.6]],
    "duration": 7.04,
    "original": "test/000009.mp4",
    "modify_video": True,
    "modify_audio": True,
    "split": "test",
    "video_frames": 176,
    "audio_channels": 1,
    "audio_frames": 112640,
}
REAL = {"file": "train/000002.mp4", "n_fakes": 0, "fake_periods": [], "original": None, "split": "train"} | {
    "modify_video": False,
    "modify_audio": False,
}


def forge(root: Path, *rows: dict[str, Any]) -> Path:
    (root / "manifest.jsonl").write_text("".join(json.dumps(FORGE | row) + "\n" for row in rows))
    return root


def lavdf(root: Path, *rows: dict[str, Any], name: str = "metadata.json") -> Path:
    (root / name).write_text(json.dumps([LISTED | row for row in rows]))
    return root


def test_forge_folder_of_clips(tmp_path: Path) -> None:
    real = {"label": 0, "video": [], "audio": [], "kind": "authentic", "picture": False, "path": "media/2.ogg"}
    forged, authentic = open_data(forge(tmp_path, {}, real))
    assert (forged.kind, forged.group, forged.source) == ("voice_tts+lipsync", "s1", "video/a.mp4")
    assert forged.is_clip
    assert forged.media == tmp_path / "media/000001.mp4"
    truth = forged.truth
    assert (truth.verdict, truth.probability) == ("forged", 1.0)
    assert (truth.media.kind, truth.media.duration, truth.media.fps) == ("video", 6.0, 25.0)
    assert truth.media.sha256 == "0" * 64
    assert [(s.start, s.end, s.modality) for s in truth.segments] == [
        (0.1, 0.5, "audio"),
        (1.0, 2.0, "video"),
        (1.2, 2.4, "audio"),
    ]
    np.testing.assert_array_equal(spans_of(truth), [[0.1, 0.5], [1.0, 2.4]])
    assert (authentic.truth.verdict, authentic.truth.segments) == ("authentic", ())
    assert (authentic.truth.media.kind, authentic.truth.media.fps) == ("audio", None)
    assert digest(tmp_path) == hashlib.sha256((tmp_path / "manifest.jsonl").read_bytes()).hexdigest()


def test_photos_and_clips_in_one_manifest(tmp_path: Path) -> None:
    photo = {"path": "media/1.png", "mask": "masks/1.png", "label": 1, "kind": "splice", "group": "g"}
    lines = [json.dumps(photo), json.dumps(FORGE)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    assert [sample.is_clip for sample in open_data(tmp_path)] == [False, True]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"video": [[2.0, 1.0]]}, r"\[2.0, 1.0\] is not a span"),
        ({"audio": [[1.0, 1.0]]}, "is not a span"),
        ({"audio": [[-1.0, 1.0]]}, "is not a span"),
        ({"audio": [[0.0, float("nan")]]}, "is not a span"),
        ({"audio": [[1.0]]}, "ValueError"),
        ({"label": 0}, "label is 0, but it lists 3"),
        ({"label": 1, "video": [], "audio": []}, "label is 1, but it lists 0"),
        ({"duration": None}, "TypeError"),
    ],
)
def test_damaged_manifest(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=f"manifest.jsonl, line 2: .*{words}"):
        open_data(forge(tmp_path, {}, row))


def test_lavdf(tmp_path: Path) -> None:
    audio = {"file": "dev/3.mp4", "modify_video": False, "split": "dev", "original": None}
    root = lavdf(tmp_path, {}, REAL, audio)
    both, real, sound = read_lavdf(root)
    assert [s.kind for s in (both, real, sound)] == ["audio_visual", "authentic", "audio"]
    assert [s.group for s in (both, real, sound)] == ["test/000009.mp4", "train/000002.mp4", "dev/3.mp4"]
    assert both.media == root / "test/000001.mp4"
    assert [(s.start, s.end, s.modality) for s in both.truth.segments] == [
        (1.0, 1.6, "video"),
        (1.0, 1.6, "audio"),
        (3.0, 3.5, "video"),
        (3.0, 3.5, "audio"),
    ]
    np.testing.assert_array_equal(spans_of(both.truth), [[1.0, 1.6], [3.0, 3.5]])
    facts = both.truth.media
    assert facts.fps is not None
    assert facts.duration is not None
    assert round(facts.fps * facts.duration) == 176  # the metadata's frame count is kept
    assert (facts.kind, facts.channels) == ("video", 1)
    assert not real.truth.forged
    assert real.truth.segments == ()
    assert {s.modality for s in sound.truth.segments} == {"audio"}
    assert [s.kind for s in read_lavdf(root, "dev")] == ["audio"]
    assert [s.kind for s in open_data(root)] == ["audio_visual", "authentic", "audio"]


def test_a_forgery_and_its_original_stay_together(tmp_path: Path) -> None:
    rows = [{"file": f"test/{i}.mp4", "original": None if i < 5 else f"test/{i % 5}.mp4"} for i in range(20)]
    kept, held = split_by_group(read_lavdf(lavdf(tmp_path, *rows)), 0.3, seed=0)
    assert len(held) == 8
    assert not {s.group for s in kept} & {s.group for s in held}


def test_a_split_is_a_folder(tmp_path: Path) -> None:
    root = lavdf(tmp_path, {}, REAL, name="metadata.min.json")
    for split in ("train", "test"):
        (root / split).mkdir()
    (only,) = open_data(root / "test")
    assert only.kind == "audio_visual"
    assert len({digest(root), digest(root / "test"), digest(root / "train")}) == 3
    (root / "dev").mkdir()
    with pytest.raises(DataError, match="no clips of the split dev"):
        open_data(root / "dev")
    lavdf(tmp_path, REAL)  # the whole metadata comes before the shorter
    assert [s.kind for s in open_data(root)] == ["authentic"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"n_fakes": 1}, "n_fakes is 1, but it lists 2"),
        ({"modify_video": False, "modify_audio": False}, "neither video nor audio"),
        ({"fake_periods": [[1.0, 0.5], [1, 2]]}, "is not a span"),
        ({"duration": "long"}, "ValueError"),
        ({"fake_periods": None}, "TypeError"),
    ],
)
def test_damaged_metadata(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=f"metadata.json, clip number 1: .*{words}"):
        read_lavdf(lavdf(tmp_path, {}, row))


def test_what_is_no_lavdf(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no metadata\.json or metadata\.min\.json here"):
        read_lavdf(tmp_path)
    with pytest.raises(DataError, match="unknown split 'val'"):
        read_lavdf(lavdf(tmp_path, {}), "val")
    (tmp_path / "metadata.json").write_text("{}")
    with pytest.raises(DataError, match="not a list"):
        read_lavdf(tmp_path)
    (tmp_path / "metadata.json").write_text("[")
    with pytest.raises(DataError, match="not readable as JSON"):
        read_lavdf(tmp_path)


def test_a_clip_is_no_photo(tmp_path: Path) -> None:
    (sample,) = open_data(forge(tmp_path, {}))
    rate, samples = 16000, np.zeros(16000, "<i2")
    header = b"RIFF" + (36 + 2 * len(samples)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    header += b"".join(v.to_bytes(n, "little") for v, n in ((1, 2), (1, 2), (rate, 4), (2 * rate, 4), (2, 2), (16, 2)))
    (tmp_path / "media").mkdir()
    (tmp_path / "media/000001.mp4").write_bytes(
        header + b"data" + (2 * len(samples)).to_bytes(4, "little") + samples.tobytes()
    )
    with pytest.raises(DataError, match="a clip, where a photo is needed"):
        sample.pixels()
    opened = Sample(open_media(tmp_path / "media/000001.mp4"), sample.truth)
    with pytest.raises(DataError, match="a clip"):
        opened.load()
