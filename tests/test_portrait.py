"""Portraits that move: the mouth, the film, and clips that are forged of it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from skimage import data

from seamline.synthesis.audio_visual import FPS
from seamline.synthesis.clips import track_face
from seamline.synthesis.portrait import Mouth, film
from seamline.synthesis.recipe import forge


@pytest.fixture(scope="module")
def astronaut() -> npt.NDArray[np.uint8]:
    return np.asarray(data.astronaut())[..., :3]  # type: ignore[no-untyped-call]


def test_a_mouth_opens_below_the_lips_and_only_there() -> None:
    yy, xx = np.mgrid[:100, :100].astype(np.float64)
    mouth = Mouth(50, 40, 20, depth=10)
    drop, inside = mouth.opened(xx, yy, 0.0)
    assert not inside.any()
    assert np.abs(drop[:41]).max() == 0
    drop, inside = mouth.opened(xx, yy, 1.0)
    assert inside[45, 50] == 1.0  # in the middle of the opening, ten pixels high
    assert inside[52, 50] == 0.0
    assert np.abs(drop[:41]).max() == 0  # the upper lip stays
    assert 9 < drop[50, 50] <= 10  # the lower lip shows what lay at the line of the lips
    assert drop[99, 50] < 1  # the chin hardly moves


def test_a_portrait_becomes_a_film_that_can_be_forged(astronaut: npt.NDArray[np.uint8]) -> None:
    made = film(astronaut, np.random.default_rng(1), (1.2, 1.6))
    assert made is not None
    assert made.sound is None
    frames = made.frames
    assert frames is not None
    assert 1.2 * FPS <= len(frames) <= 1.6 * FPS
    assert frames.shape[1] == frames.shape[2]
    assert np.isfinite(track_face(frames)).all()
    change = np.abs(np.diff(frames[:, ::4, ::4].astype(int), axis=0)).mean((1, 2, 3))
    assert (change > 0.05).all()  # no two pictures are the same
    assert change.max() < 12  # and none is of another scene
    again = film(astronaut, np.random.default_rng(1), (1.2, 1.6))
    assert again is not None
    np.testing.assert_array_equal(frames, again.frames)


def test_a_face_that_fills_its_photo_is_found_all_the_same(astronaut: npt.NDArray[np.uint8]) -> None:
    assert film(astronaut[40:170, 150:290], np.random.default_rng(2), (0.5, 0.6)) is not None


def test_what_is_no_portrait_is_left_out(astronaut: npt.NDArray[np.uint8]) -> None:
    assert film(np.full((200, 200, 3), 90, np.uint8), np.random.default_rng(0)) is None
    tiny = cv2.resize(astronaut, (200, 200), interpolation=cv2.INTER_AREA)  # its face has 40 pixels
    assert film(np.asarray(tiny, np.uint8), np.random.default_rng(0)) is None


def test_clips_are_forged_of_portraits(tmp_path: Path, astronaut: npt.NDArray[np.uint8]) -> None:
    media = tmp_path / "media"
    media.mkdir()
    cv2.imwrite(str(media / "a.png"), astronaut[..., ::-1])
    cv2.imwrite(str(media / "noise.jpg"), np.random.default_rng(0).integers(0, 255, (200, 200, 3)))
    rows = [f"{name},face,train,{name[0]}" for name in ("a.png", "noise.jpg")]
    (media / "manifest.csv").write_text("\n".join(["path,kind,split,group", *rows]) + "\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'media = "clips"\nseed = 3\ncount = 4\nauthentic = 0.25\nonly_sound = 0.0\nonly_picture = 1.0\n'
        'sources = ["face"]\nseconds = [2.0, 3.0]\n[kinds]\nlipsync = 1.0\nreblend = 1.0\n'
    )
    forge(media, tmp_path / "out", recipe, workers=1)
    made = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert len(made) == 4
    assert {row["group"] for row in made} == {"a"}
    assert all(row["picture"] and not row["sound"] for row in made)
    assert {row["label"] for row in made} == {0, 1}
    assert all(bool(row["video"]) == bool(row["label"]) for row in made)
