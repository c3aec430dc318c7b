"""Faces that move, leave, meet and are cut: one public-domain portrait on made-up backgrounds, and real talkers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

import seamline.faces
from seamline.faces import FaceTracker, FaceWindow
from seamline.media import Clip, open_media

HEIGHT, WIDTH = 360, 640
EYES = np.array([125.0, 100.0])  # between them and the mouth of the portrait below, x and y: the middle of the face


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """Eileen Collins, NASA, public domain: (240, 240, 3)."""
    data = pytest.importorskip("skimage.data", reason="the demo extra is not installed")
    rgb: np.ndarray = data.astronaut()[10:250, 100:340]
    return rgb


@pytest.fixture(scope="module")
def ground() -> np.ndarray:
    """A wall of soft blobs, without anything like a face."""
    rng = np.random.default_rng(3)
    small = rng.integers(60, 150, (6, 10, 3), np.uint8)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def pasted(ground: np.ndarray, portrait: np.ndarray, x: int, y: int) -> np.ndarray:
    """The portrait with its top left corner at (x, y), cut off at the border; its edge is blended."""
    rgb = ground.copy()
    height, width = portrait.shape[:2]
    weight = np.zeros((height, width, 1), np.float32)
    weight[12:-12, 12:-12] = 1
    weight = cv2.blur(weight, (23, 23))[..., None]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, ground.shape[1]), min(y + height, ground.shape[0])
    if x0 < x1 and y0 < y1:
        part = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
        mixed = weight[part] * portrait[part] + (1 - weight[part]) * rgb[y0:y1, x0:x1]
        rgb[y0:y1, x0:x1] = np.rint(mixed).astype(np.uint8)
    return rgb


def tracked(pictures: Sequence[np.ndarray], **options: int) -> tuple[FaceTracker, list[FaceWindow]]:
    tracker = FaceTracker(**options)
    for rgb in pictures:
        tracker.add(rgb)
    return tracker, tracker.window(0, len(pictures))


def centres(face: FaceWindow) -> np.ndarray:
    return (face.boxes[:, :2] + face.boxes[:, 2:]) / 2


def test_a_face_that_moves_is_followed_smoothly(portrait: np.ndarray, ground: np.ndarray) -> None:
    places = [(40 + 3 * i, 40 + round(20 * np.sin(i / 12))) for i in range(100)]
    _, faces = tracked([pasted(ground, portrait, *place) for place in places])
    assert len(faces) == 1
    (face,) = faces
    assert face.identity == 0
    assert face.crops.shape == (100, 96, 96, 3)
    assert face.crops.dtype == np.uint8
    assert face.boxes.dtype == np.float32
    assert face.seen.all()
    truth = np.array(places) + EYES
    assert np.abs(centres(face) - truth).mean() < 8
    steps = np.diff(centres(face), axis=0)
    assert np.abs(np.diff(steps, axis=0)).max() < 4  # no jerks: it moves by 3 pixels a tick
    sides = face.boxes[:, 2] - face.boxes[:, 0]
    np.testing.assert_allclose(sides, face.boxes[:, 3] - face.boxes[:, 1], atol=1e-3)
    assert np.std(sides) / np.mean(sides) < 0.04
    # Seen from the crop, the face stands still.
    assert np.abs(np.diff(face.crops.astype(int), axis=0)).mean() < 8


def test_the_crop_holds_the_whole_face(portrait: np.ndarray, ground: np.ndarray) -> None:
    _, (face,) = tracked([pasted(ground, portrait, 200, 60)] * 6)
    x0, y0, x1, y1 = face.boxes[0] - [200, 60, 200, 60]
    assert x0 < 70 < 180 < x1  # from ear to ear
    assert y0 < 50  # forehead
    assert 165 < y1 < 215  # chin, but not much more
    assert x1 - x0 < 165  # about seven tenths of the crop are face
    expected = cv2.resize(
        pasted(ground, portrait, 200, 60)[round(y0 + 60) : round(y1 + 60), round(x0 + 200) : round(x1 + 200)],
        (96, 96),
        interpolation=cv2.INTER_AREA,
    )
    assert np.abs(face.crops[0].astype(int) - expected).mean() < 4


def test_two_faces_are_kept_apart(portrait: np.ndarray, ground: np.ndarray) -> None:
    other = np.ascontiguousarray(portrait[:, ::-1, ::-1])
    pictures = []
    for i in range(60):
        rgb = pasted(ground, portrait, 20 + i, 60)
        pictures.append(pasted(rgb, other, 380 - i, 70) if i < 50 else rgb)
    _, faces = tracked(pictures)
    assert len(faces) == 2
    long, short = faces
    assert long.identity != short.identity
    assert long.seen.all()
    assert 44 <= short.seen.sum() <= 55
    assert short.seen[:44].all()
    assert (centres(long)[:44, 0] < centres(short)[:44, 0]).all()
    np.testing.assert_array_equal(short.crops[~short.seen], 0)
    assert np.isnan(short.boxes[~short.seen]).all()


def test_a_face_that_leaves_and_returns(portrait: np.ndarray, ground: np.ndarray) -> None:
    there = pasted(ground, portrait, 200, 60)
    _, faces = tracked([there] * 40 + [ground] * 25 + [there] * 40)
    assert len(faces) == 1
    (face,) = faces
    assert face.seen[:40].all()
    assert not face.seen[45:65].any()
    assert face.seen[70:].all()
    _, faces = tracked([there] * 40 + [ground] * 100 + [there] * 40)
    assert [int(face.seen[:40].all()) for face in sorted(faces, key=lambda face: face.identity)] == [1, 0]
    assert not any(face.seen[45:140].any() for face in faces)


def test_a_face_that_walks_out_of_the_picture(portrait: np.ndarray, ground: np.ndarray) -> None:
    pictures = [pasted(ground, portrait, 380 + 8 * i, 60) for i in range(60)]
    _, faces = tracked(pictures)
    assert faces
    assert faces[0].seen[:10].all()
    assert not any(face.seen[45:].any() for face in faces)
    seen = faces[0].boxes[faces[0].seen]
    assert (seen[:, 0] >= 0).all()
    assert (seen[:, 2] <= WIDTH + 1e-3).all()


def test_a_scene_cut_ends_a_face(portrait: np.ndarray, ground: np.ndarray) -> None:
    other = np.ascontiguousarray(portrait[:, ::-1, ::-1])  # mirrored, in other colours
    first = pasted(ground, portrait, 60, 60)
    second = pasted(np.ascontiguousarray(255 - ground[::-1]), other, 330, 60)
    _, faces = tracked([first] * 33 + [second] * 42)
    assert len(faces) == 2
    late, early = faces
    assert early.seen.tolist() == [True] * 33 + [False] * 42  # to the very tick
    assert late.seen.tolist() == [False] * 33 + [True] * 42
    assert np.ptp(centres(late)[33:, 0]) < 3  # the box does not glide over from the other face


def test_a_splice_within_a_shot_keeps_the_face(portrait: np.ndarray, ground: np.ndarray) -> None:
    first, second = pasted(ground, portrait, 180, 50), pasted(ground, portrait, 240, 80)
    _, faces = tracked([first] * 33 + [second] * 42)
    assert len(faces) == 1
    (face,) = faces
    assert face.seen.mean() > 0.95
    assert np.abs(centres(face)[40] - centres(face)[30] - [60, 30]).max() < 6


def test_a_face_without_a_detection_is_followed(
    portrait: np.ndarray, ground: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [pasted(ground, portrait, 150 + 2 * i, 60) for i in range(60)]
    tracker = FaceTracker()
    original = seamline.faces._detect
    for i, rgb in enumerate(pictures):
        blind = 20 <= i < 45
        monkeypatch.setattr(seamline.faces, "_detect", (lambda *_: []) if blind else original)
        tracker.add(rgb)
    (face,) = tracker.window(0, 60)
    assert face.seen.all()
    assert np.abs(centres(face) - np.array([(150 + 2 * i, 60) for i in range(60)]) - EYES).mean() < 10


def test_no_face(ground: np.ndarray, rng: np.random.Generator) -> None:
    noise = rng.integers(0, 256, (20, HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    for pictures in ([ground] * 20, list(noise), [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 20):
        assert tracked(pictures)[1] == []
    assert FaceTracker().window(0, 10) == []


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_pictures(portrait: np.ndarray, ground: np.ndarray, count: int) -> None:
    _, faces = tracked([pasted(ground, portrait, 200, 60)] * count)
    assert len(faces) == 1
    assert faces[0].seen.all()
    assert faces[0].crops.any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("size", [(96, 96), (240, 240), (1, 1), (3, 500), (17, 17)])
def test_pictures_of_any_size(portrait: np.ndarray, size: tuple[int, int]) -> None:
    _, faces = tracked([cv2.resize(portrait, size[::-1], interpolation=cv2.INTER_AREA)] * 7, size=48)
    if min(size) >= 96:  # already cut to the face: nothing special
        assert len(faces) == 1
        assert faces[0].crops.shape == (7, 48, 48, 3)


def test_the_size_of_pictures_may_change(portrait: np.ndarray, ground: np.ndarray) -> None:
    rgb = pasted(ground, portrait, 200, 60)
    small = cv2.resize(rgb, (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    _, faces = tracked([rgb] * 12 + [small] * 12)
    assert sum(face.seen for face in faces).tolist() == [1] * 24


def test_windows_at_any_time(portrait: np.ndarray, ground: np.ndarray) -> None:
    pictures = [pasted(ground, portrait, 100 + 2 * i, 60) for i in range(80)]
    _, (whole,) = tracked(pictures)
    tracker = FaceTracker()
    for i, rgb in enumerate(pictures):
        tracker.add(rgb)
        if i in (0, 12, 13, 40, 63):  # asking changes nothing
            (face,) = tracker.window(max(0, i - 20), i + 4)
            assert face.seen.tolist() == [True] * min(i + 1, 21) + [False] * 3
            (again,) = tracker.window(max(0, i - 20), i + 4)
            np.testing.assert_array_equal(face.crops, again.crops)
    (same,) = tracker.window(0, 80)
    for a, b in zip(whole, same, strict=True):
        np.testing.assert_array_equal(a, b)
    (part,) = tracker.window(30, 50)
    np.testing.assert_array_equal(part.crops, whole.crops[30:50])
    (early,) = tracker.window(-5, 5)
    assert early.seen.tolist() == [False] * 5 + [True] * 5
    assert tracker.window(80, 90) == tracker.window(5, 5) == []


def test_the_same_pictures_give_the_same_crops(portrait: np.ndarray, ground: np.ndarray) -> None:
    pictures = [pasted(ground, portrait, 100 + 2 * i, 60) for i in range(30)]
    before = cv2.getNumThreads()
    try:
        results = []
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            results.append(tracked(pictures)[1])
    finally:
        cv2.setNumThreads(before)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a.crops, b.crops)
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_memory_does_not_grow_with_length(portrait: np.ndarray, ground: np.ndarray) -> None:
    there = pasted(ground, portrait, 200, 60)
    tracker = FaceTracker()
    for i in range(400):
        tracker.add(there if i % 80 < 40 else ground)
        tracker.forget(i - 25)
        assert len(tracker._held) <= 3 * tracker.every + 1
        assert len(tracker._tracks) <= 3
        for track in tracker._tracks:
            assert len(track.crops) <= 25
            assert sum(len(stretch.points) for stretch in track.stretches) <= 24
    assert not any(face.seen[: 400 - 26].any() for face in tracker.window(0, 400))


def test_arguments_that_make_no_sense() -> None:
    for options in ({"size": 0}, {"every": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            FaceTracker(**options)
    for rgb in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32), np.zeros((0, 9, 3), np.uint8)):
        with pytest.raises(ValueError, match="not a picture"):
            FaceTracker().add(rgb)


@pytest.mark.data
@pytest.mark.parametrize(("folder", "step"), [("grid_s1", 8), ("talkers", 1)])
def test_real_talkers_are_seen(shared: Path, folder: str, step: int) -> None:
    seen = ticks = 0
    for path in sorted((shared / "data" / "video" / folder).glob("*.m*"))[::step]:
        clip = open_media(path)
        assert isinstance(clip, Clip)
        tracker, count = FaceTracker(), 0
        for rgb in clip.frames(25.0, stop=4.0):
            tracker.add(rgb)
            count += 1
        faces = tracker.window(0, count)
        assert len(faces) == 1, path.name
        assert faces[0].seen.mean() >= 0.95, path.name
        seen, ticks = seen + int(faces[0].seen.sum()), ticks + count
    assert seen >= 0.95 * ticks
    assert ticks > 300
