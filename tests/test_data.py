"""Data folders, splits and training windows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from seamline.data import Sample, digest, open_data, split_by_group
from seamline.data.augment import GRID, crop, turn
from seamline.errors import DataError, MediaError
from seamline.media import open_media
from seamline.report import Media, Report


def write(path: Path, array: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two real and three fake pictures; each fake is of one grey value, and its mask has as many forged rows."""
    for name in ("b", "a"):
        write(tmp_path / f"real/{name}.png", np.full((20, 30, 3), 7, np.uint8))
    for i, name in enumerate(("z", "m", "c"), 3):
        write(tmp_path / f"fake/{name}.jpg", np.full((20, 30, 3), 10 * i, np.uint8))
        mask = np.zeros((20, 30), np.uint8)
        mask[:i] = 255
        write(tmp_path / f"masks/{name}.png", mask)
    return tmp_path


def test_masks_are_matched_by_stem(plain: Path) -> None:
    write(plain / "masks/aa.png", np.zeros((20, 30), np.uint8))  # of no fake, and first in the listing
    samples = open_data(plain)
    assert [Path(s.truth.media.path).name for s in samples] == ["a.png", "b.png", "c.jpg", "m.jpg", "z.jpg"]
    for sample in samples[:2]:
        assert sample.mask() is None
        assert sample.truth.probability == 0.0
    for sample in samples[2:]:
        rgb, mask = sample.load()
        assert mask is not None
        assert mask.dtype == np.float32
        assert mask[:, 0].sum() == round(float(rgb.mean()) / 10)
        assert sample.truth.forged


def test_fakes_without_a_mask_are_named(plain: Path) -> None:
    (plain / "masks/m.png").unlink()
    with pytest.raises(DataError, match=r"stem of m\.jpg$"):
        open_data(plain)


def test_two_masks_of_one_stem_are_refused(plain: Path) -> None:
    write(plain / "masks/m.bmp", np.zeros((20, 30), np.uint8))
    with pytest.raises(DataError, match=r"stem 'm': m\.bmp and m\.png"):
        open_data(plain)


def test_damaged_truth_is_named(plain: Path) -> None:
    write(plain / "masks/c.png", np.ones((20, 30), np.uint8))
    write(plain / "masks/m.png", np.full((20, 31), 255, np.uint8))
    (plain / "masks/z.png").write_bytes(b"no picture")
    (plain / "real/a.png").write_bytes(b"no picture")
    real, _, low, other, broken = open_data(plain)
    for sample, words in (
        (low, r"c\.png: the mask has no forged pixel"),
        (other, r"30x20.*31x20"),
        (broken, r"z\.png"),
    ):
        with pytest.raises(DataError, match=words):
            sample.load()
    with pytest.raises(MediaError):
        real.load()


def test_forge_folder(tmp_path: Path) -> None:
    rgb = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 3:20] = 255
    mask[9, 3:20] = 64  # a soft edge
    write(tmp_path / "media/1.png", rgb)
    write(tmp_path / "masks/1.png", mask)
    row = {"path": "media/1.png", "mask": "masks/1.png", "label": 1, "kind": "splice", "group": "camera 1"}
    rows = [row | {"source": "a.jpg", "sha256": "0" * 64}, row | {"label": 0, "mask": None, "kind": "authentic"}]
    (tmp_path / "manifest.jsonl").write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    forged, authentic = open_data(tmp_path)
    assert (forged.kind, forged.group, forged.source) == ("splice", "camera 1", "a.jpg")
    assert forged.truth.media.sha256 == "0" * 64
    soft = forged.mask()
    assert soft is not None
    np.testing.assert_array_equal(soft, mask.astype(np.float32) / 255)
    np.testing.assert_array_equal(forged.pixels(), rgb[..., ::-1])
    assert authentic.mask() is None
    before = digest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row | {"label": "x"}))
    assert digest(tmp_path) != before
    with pytest.raises(DataError, match="line 1: ValueError"):
        open_data(tmp_path)


def test_what_is_no_data_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set here"):
        open_data(tmp_path)
    (tmp_path / "real").mkdir()
    with pytest.raises(DataError, match="empty"):
        open_data(tmp_path)


def test_sample_in_memory() -> None:
    pixels, mask = np.zeros((8, 9, 3), np.uint8), np.eye(8, 9, dtype=bool)
    truth = Report(Media("<array>"), "forged", 1.0, mask=mask)
    sample = Sample(open_media(pixels), truth)
    rgb, loaded = sample.load()
    assert rgb.shape == (8, 9, 3)
    assert loaded is not None
    np.testing.assert_array_equal(loaded, mask.astype(np.float32))
    with pytest.raises(DataError, match="no mask"):
        dataclasses.replace(sample, truth=dataclasses.replace(truth, mask=None)).mask()


def test_split_keeps_groups_together() -> None:
    truth = Report(Media("x"), "authentic", 0.0)
    samples = [Sample(Path(f"{i}"), truth, group=f"g{i % 7}") for i in range(50)]
    kept, held = split_by_group(samples, 0.2, seed=3)
    assert not {s.group for s in kept} & {s.group for s in held}
    assert sorted(str(s.media) for s in kept + held) == sorted(str(s.media) for s in samples)
    assert 10 <= len(held) <= 17  # at least the share asked for, at most one group more
    assert [s.media for s in split_by_group(samples[::-1], 0.2, seed=3)[1]][::-1] == [s.media for s in held]
    assert split_by_group(samples, 0.0, seed=3) == (samples, [])
    assert len({frozenset(s.group for s in split_by_group(samples, 0.2, seed)[1]) for seed in range(9)}) > 1
    with pytest.raises(DataError, match="one group"):
        split_by_group(samples[::7], 0.2, seed=3)


def coordinates(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture whose pixels say where they are: row and column divided by 8, and place in their 8x8 block."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y // 8, x // 8, (y % 8) * 8 + x % 8], 2).astype(np.uint8)


def test_crop_lies_on_the_grid_and_repeats() -> None:
    rgb = coordinates(203, 310)
    for seed in range(20):
        cut, mask = crop(rgb, None, 64, np.random.default_rng(seed))
        again, _ = crop(rgb, None, 64, np.random.default_rng(seed))
        assert mask is None
        np.testing.assert_array_equal(cut, again)
        np.testing.assert_array_equal(cut[..., 2], coordinates(64, 64)[..., 2])
        y, x = int(cut[0, 0, 0]) * GRID, int(cut[0, 0, 1]) * GRID
        np.testing.assert_array_equal(cut, rgb[y : y + 64, x : x + 64])


def test_crop_is_put_on_the_forgery() -> None:
    rgb = coordinates(400, 600)
    mask = np.zeros((400, 600), np.float32)
    mask[300:330, 500:540] = 1
    for seed in range(30):
        cut, forged = crop(rgb, mask, 64, np.random.default_rng(seed), near=1.0)
        assert forged is not None
        assert 0.005 <= forged.mean() <= 0.9
        y, x = int(cut[0, 0, 0]) * GRID, int(cut[0, 0, 1]) * GRID
        np.testing.assert_array_equal(forged, mask[y : y + 64, x : x + 64])
    away = [crop(rgb, mask, 64, np.random.default_rng(seed), near=0.0)[1] for seed in range(30)]
    assert sum(one is None for one in away) > 20  # a window without forged pixels is authentic
    assert all(one is None or (one >= 0.5).any() for one in away)


def test_crop_of_a_wholly_forged_picture() -> None:
    _, mask = crop(coordinates(100, 100), np.ones((100, 100), np.float32), 64, np.random.default_rng(0), near=1.0)
    assert mask is not None
    assert mask.min() == 1


def test_crop_continues_small_pictures_by_reflection() -> None:
    rgb, mask = coordinates(40, 100), np.zeros((40, 100), np.float32)
    mask[:, 90:] = 1
    cut, forged = crop(rgb, mask, 64, np.random.default_rng(0), near=1.0)
    assert cut.shape == (64, 64, 3)
    assert forged is not None
    np.testing.assert_array_equal(cut[40:], cut[39 - 24 : 39][::-1])
    np.testing.assert_array_equal(forged[40:], forged[39 - 24 : 39][::-1])
    tiny, _ = crop(coordinates(3, 1), None, 64, np.random.default_rng(0))
    assert tiny.shape == (64, 64, 3)


def test_crop_wants_a_side_on_the_grid() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        crop(coordinates(80, 80), None, 60, np.random.default_rng(0))


def test_turns_keep_the_grid_and_the_pairing() -> None:
    """All eight ways occur; a block stays a block, and the mask goes where its pixels go."""
    rgb = coordinates(32, 32)
    mask = (rgb[..., 0] == 1).astype(np.float32)
    seen = set()
    for seed in range(60):
        turned, moved = turn(rgb, mask, np.random.default_rng(seed))
        assert moved is not None
        np.testing.assert_array_equal(moved, (turned[..., 0] == 1).astype(np.float32))
        blocks = turned[..., :2].reshape(4, 8, 4, 8, 2)
        assert (blocks == blocks[:, :1, :, :1]).all()
        seen.add(turned.tobytes())
    assert len(seen) == 8
