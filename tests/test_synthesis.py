"""Forgeries: exact truth, seeds, post-processing that is blind to the label, and the forge command's folder."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from seamline.errors import DataError
from seamline.synthesis import image as forgers
from seamline.synthesis.recipe import CHAINS, LEAST, Past, Recipe, draw_post, forge


def photo(seed: int, height: int = 200, width: int = 240) -> np.ndarray:
    """A stand-in for a photo: smooth colour, edges and grain."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (6, 7, 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def forged(kind: str, seed: int) -> tuple[np.ndarray, forgers.Forgery]:
    original = photo(seed)
    rng, donor = np.random.default_rng(seed), photo(seed + 100)
    return original, forgers.forge_photo(kind, original, rng, donor=donor, face=(70, 50, 160, 150))


@pytest.mark.parametrize("kind", forgers.FORGERS)
@pytest.mark.parametrize("seed", range(6))
def test_the_truth_is_exact(kind: str, seed: int) -> None:
    original, forgery = forged(kind, seed)
    changed = (forgery.pixels != original).any(-1)
    assert forgery.kind == kind
    assert forgery.weight.dtype == np.float32
    assert forgery.weight.min() >= 0
    assert forgery.weight.max() <= 1
    assert not (changed & (forgery.weight == 0)).any(), "a pixel changed outside the truth"
    inside = forgery.weight > 0
    assert changed[inside].mean() > 0.5, "most of the truth shows no change"
    assert 0.002 < inside.mean() < 0.7


@pytest.mark.parametrize("kind", forgers.FORGERS)
def test_the_same_seed_gives_the_same_forgery(kind: str) -> None:
    first, second = forged(kind, 3)[1], forged(kind, 3)[1]
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.weight, second.weight)
    assert not np.array_equal(first.pixels, forged(kind, 4)[1].pixels)


def test_copy_move_copies_this_photo() -> None:
    """An unturned copy-move shows only colours that stand elsewhere in the photo, shifted by one vector."""
    original = photo(1)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        forgery = forgers.copy_move(original, rng)
        hard = forgery.weight == 1
        if not hard.any():
            continue
        known = {tuple(p) for p in original.reshape(-1, 3)}
        share = np.mean([tuple(p) in known for p in forgery.pixels[hard][:200]])
        if share == 1.0:
            return
    pytest.fail("no unturned copy-move among 40 seeds copies the photo's own pixels")


def test_soft_edges_lie_inside_the_area() -> None:
    mask = np.zeros((80, 80), np.float32)
    mask[20:60, 20:60] = 1
    soft = [forgers.soften(mask, np.random.default_rng(seed)) for seed in range(20)]
    assert all((s[mask == 0] == 0).all() for s in soft)
    assert any(((s > 0) & (s < 1)).any() for s in soft)
    assert any(np.array_equal(s, mask) for s in soft)


@pytest.mark.parametrize(("kind", "missing"), [("splice", "donor"), ("face_blend", "face"), ("morph", "unknown kind")])
def test_what_is_missing_is_named(kind: str, missing: str) -> None:
    with pytest.raises(DataError, match=missing):
        forgers.forge_photo(kind, photo(0), np.random.default_rng(0))


def test_a_flat_photo_is_refused_not_mislabelled() -> None:
    flat = np.full((128, 128, 3), 255, np.uint8)
    with pytest.raises(DataError, match="flat"):
        forgers.forge_photo("copy_move", flat, np.random.default_rng(0))


def test_geometry_moves_photo_and_truth_alike() -> None:
    original, forgery = forged("splice", 2)
    post = forgers.Post(resize=0.75, crop=(3, 5))
    pixels, weight = post.apply(forgery.pixels, forgery.weight, np.random.default_rng(0))
    assert pixels.shape[:2] == weight.shape == (200 * 0.75 - 5, 240 * 0.75 - 3)
    assert abs(weight.mean() - forgery.weight.mean()) < 0.03
    same, _ = forgers.Post().apply(original, forgery.weight, np.random.default_rng(0))
    np.testing.assert_array_equal(same, original)


def test_png_keeps_every_bit_and_own_tables_are_kept() -> None:
    original = photo(5)
    data, extension = forgers.Post().encode(original)
    assert extension == ".png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), original)
    tables = [list(range(1, 65)), list(range(2, 66))]
    data, extension = forgers.Post(format="jpeg", quality=0).encode(original, tables)
    assert extension == ".jpg"
    assert [list(t) for t in Image.open(io.BytesIO(data)).quantization.values()] == tables


def test_every_chain_makes_a_post() -> None:
    for name in CHAINS:
        post = draw_post(Recipe(post=((name, 1.0),)), np.random.default_rng(0))
        pixels, weight = post.apply(photo(0), np.zeros((200, 240), np.float32), np.random.default_rng(0))
        assert pixels.shape[:2] == weight.shape


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        Image.fromarray(photo(seed)).save(folder / f"p{seed}.jpg", quality=92)
    Image.fromarray(photo(9, 40, 40)).save(folder / "small.jpg")
    return folder


KINDS = (("splice", 1.0), ("copy_move", 1.0), ("removal", 1.0), ("retouch", 1.0), ("regenerate", 1.0))


def test_forge_does_not_depend_on_the_number_of_workers(photos: Path, tmp_path: Path) -> None:
    recipe = Recipe(seed=3, count=12, kinds=KINDS, crop=128)
    one = forge(photos, tmp_path / "one", recipe, workers=1).read_text()
    two = forge(photos, tmp_path / "two", recipe, workers=2).read_text()
    assert one == two
    rows = [json.loads(line) for line in one.splitlines()]
    assert {row["label"] for row in rows} == {0, 1}
    for row in rows:
        with Image.open(tmp_path / "one" / row["path"]) as pixels:
            size = pixels.size
        assert (row["mask"] is not None) == (row["label"] == 1) == (row["kind"] != "authentic")
        if row["mask"]:
            with Image.open(tmp_path / "one" / row["mask"]) as mask:
                assert mask.size == size
                assert mask.mode == "L"
                assert np.asarray(mask).max() > 127


def test_the_web_hands_photos_on_reduced_and_saved(photos: Path, tmp_path: Path) -> None:
    """Every source has a past; its own tables are then those of its last save, and truth is of the size it has now."""
    Image.fromarray(photo(7, 600, 800)).save(photos / "large.png")
    recipe = Recipe(seed=4, count=24, kinds=KINDS, handed_on=1.0, post=(("jpeg", 1.0),), own_tables=1.0)
    out = forge(photos, tmp_path / "out", recipe, workers=1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["label"] for row in rows} == {0, 1}
    for row in rows:
        with Image.open(out.parent / row["path"]) as picture, Image.open(photos / row["source"]) as source:
            quality, subsampling = row["past"]["saves"][-1]
            again = Image.open(io.BytesIO(forgers.jpeg_bytes(photo(0), quality, subsampling)))
            assert picture.quantization == again.quantization
            least = min(1.0, LEAST / min(source.size))
            assert picture.width == round(source.width * max(row["past"]["resize"], least))
            if row["mask"]:
                with Image.open(out.parent / row["mask"]) as mask:
                    assert mask.size == picture.size
    assert {len(row["past"]["saves"]) for row in rows} == {1, 2}
    kept = forge(photos, tmp_path / "kept", replace(recipe, handed_on=0.0), workers=1)
    assert "past" not in kept.read_text()


def test_a_past_is_a_smaller_photo_on_the_grid_of_its_last_save() -> None:
    past = Past(0.5, 0.0, ((70, "4:2:0"), (85, "4:4:4")))
    small, tables = past.of(photo(1, 640, 800))
    assert small.shape == (320, 400, 3)
    assert tables is not None
    steps = np.array(tables[0]).reshape(8, 8)
    blocks = (small.astype(np.float64) @ (0.299, 0.587, 0.114) - 128).reshape(40, 8, 50, 8).transpose(0, 2, 1, 3)
    counts = np.stack([cv2.dct(block) for block in blocks.reshape(-1, 8, 8)])[:, 2, 1] / steps[2, 1]
    away = np.abs(counts - np.rint(counts))
    assert np.median(away) < 0.1  # a quarter were it not saved
    assert past.of(photo(1, 300, 400))[0].shape == (LEAST, 384, 3)
    sharp, _ = Past(1.0, 0.8, ()).of(photo(1))
    assert np.diff(sharp.astype(int), axis=1).std() > 1.2 * np.diff(photo(1).astype(int), axis=1).std()


def test_forge_never_overwrites_a_data_set(photos: Path, tmp_path: Path) -> None:
    forge(photos, tmp_path / "out", Recipe(count=2, kinds=KINDS), workers=1)
    with pytest.raises(DataError, match="already holds"):
        forge(photos, tmp_path / "out", Recipe(count=2, kinds=KINDS), workers=1)


def test_a_manifest_selects_split_and_kind(photos: Path, tmp_path: Path) -> None:
    lines = ["path,kind,split,group"] + [f"p{i}.jpg,photo,{'train' if i < 2 else 'val'},g{i}" for i in range(4)]
    (photos / "manifest.csv").write_text("\n".join(lines))
    manifest = forge(photos, tmp_path / "out", Recipe(count=6, kinds=KINDS, split="val"), workers=1)
    assert {json.loads(line)["group"] for line in manifest.read_text().splitlines()} <= {"g2", "g3"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead = 1", "unknown key sead"),
        ("[kinds]\nmorph = 1.0", "unknown kinds morph"),
        ("= 3", "not a TOML"),
        ("[post]\nx = 1.0", "unknown post x"),
    ],
)
def test_a_recipe_is_read_strictly(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        Recipe.read(path)


def test_faces_are_found_in_a_photograph_of_a_person() -> None:
    data = pytest.importorskip("skimage.data")
    x0, y0, x1, y1 = forgers.find_face(data.astronaut()) or pytest.fail("no face found")
    assert x0 < 224 < x1  # the astronaut's nose
    assert y0 < 110 < y1
