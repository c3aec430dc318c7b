"""The pictures: exact where computed with, readable where looked at, and never on top of each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PILImage

from seamline import draw
from seamline.report import Media, Region, Report

SPOT = (np.s_[30:90], np.s_[40:140])


def report(height: int, width: int, forged: bool = True) -> Report:
    heatmap = np.full((height, width), 0.04, np.float32)
    heatmap[SPOT] = 0.9
    mask = (heatmap > 0.5) & forged
    regions = (Region((40, 30, 140, 90), 0.9, 6000),) if forged else ()
    verdict, probability = ("forged", 0.97) if forged else ("authentic", 0.03)
    return Report(Media("x"), verdict, probability, 0.5, regions=regions, mask=mask, heatmap=heatmap)


def photo(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(60, 180, (height, width, 3), np.uint8)


def read(path: str | None) -> npt.NDArray[np.uint8]:
    assert path is not None
    with PILImage.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == ("RGB" if "overlay" in path else "L")
        return np.asarray(picture)


def test_mask_and_heat_map_are_lossless_at_the_size_of_the_photo(tmp_path: Path) -> None:
    truth = report(211, 317)
    made = draw.write(truth, photo(211, 317), tmp_path / "new", "photo")
    assert truth.mask is not None
    assert truth.heatmap is not None
    np.testing.assert_array_equal(read(made.mask), truth.mask * np.uint8(255))
    np.testing.assert_array_equal(read(made.heatmap), np.rint(truth.heatmap * 255).astype(np.uint8))
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "photo.heatmap.png",
        "photo.mask.png",
        "photo.overlay.png",
    ]


def test_the_mask_of_an_authentic_photo_is_all_zero(tmp_path: Path) -> None:
    made = draw.write(report(100, 150, forged=False), photo(100, 150), tmp_path, "photo")
    assert not read(made.mask).any()


@pytest.mark.parametrize(
    ("size", "longest"), [((100, 150), 640), ((900, 1500), 1500), ((3000, 2500), 2000), ((160, 4000), 2000)]
)
def test_the_overlay_is_of_a_size_to_look_at(size: tuple[int, int], longest: int) -> None:
    picture = draw.overlay(report(*size), photo(*size))
    assert longest <= max(picture.shape[:2]) <= longest * 1.35
    assert picture.dtype == np.uint8


def test_the_overlay_marks_the_forged_area_and_greys_the_rest() -> None:
    picture = draw.overlay(report(640, 640), photo(640, 640))
    top = 63  # height of the bar at this size
    body = picture[top : top + 640].astype(int)
    colour = np.abs(body[..., 0] - body[..., 2])
    assert colour[SPOT].mean() > 3 * colour[300:600, 300:600].mean()
    plain = draw.overlay(report(640, 640, forged=False), photo(640, 640))
    np.testing.assert_array_equal(plain[top:], photo(640, 640))
    assert tuple(picture[2, 2]) == draw.BARS["forged"]
    assert tuple(plain[2, 2]) == draw.BARS["authentic"]


def test_areas_on_the_border_and_of_one_pixel_are_drawn() -> None:
    corner = (Region((0, 0, 1, 1), 0.6, 1), Region((139, 99, 140, 100), 0.7, 1), Region((0, 0, 140, 100), 1.0, 14000))
    draw.overlay(dataclasses.replace(report(100, 140), regions=corner), photo(100, 140))


@pytest.mark.parametrize(
    ("probability", "text"),
    [(None, "-"), (0.0, "<1 %"), (0.034, "3 %"), (0.5, "50 %"), (0.986, "99 %"), (1.0, ">99 %")],
)
def test_percent_never_claims_certainty(probability: float | None, text: str) -> None:
    assert draw.percent(probability) == text


def test_no_two_inputs_share_a_name() -> None:
    paths = [
        "a/x.jpg",
        "a/x.png",
        "b/y.jpg",
        "b/z.png",
        "c/z.png",
        "c/X.JPG",
        "d/w",
        "d/w.jpg",
        "e/q.tar.png",
        "e/q.tar",
    ]
    names = draw.stems(paths, "out")
    assert len({name.casefold() for name in names}) == len(paths)
    assert names[1:3] == ["x.png", "y"]
    assert names[3] != names[4]
    assert names[3].startswith("z.png.")
    assert names == draw.stems(paths, "out")


def test_a_picture_never_falls_on_an_input() -> None:
    names = draw.stems(["in/photo.jpg", "in/photo.mask.png"], "in")
    assert names[0] == "photo.jpg"
    assert draw.stems(["in/photo.jpg", "in/photo.mask.png"], "out")[0] == "photo"


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    (name,) = draw.stems([f"in/{'ä' * 120}.jpg"], tmp_path)
    draw.write(report(100, 150), photo(100, 150), tmp_path, name)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "photo.heatmap.png").mkdir()
    with pytest.raises(OSError, match="heatmap"):
        draw.write(report(100, 150), photo(100, 150), tmp_path, "photo")
    assert not list(tmp_path.glob(".*"))
