"""Copies within a photo: found after turning, scaling and saving; not in photos that merely repeat themselves."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from seamline import Session, copies, draw
from seamline.copies import Repeat, Repeats
from seamline.media import Image
from seamline.report import Region
from seamline.synthesis.image import jpeg
from seamline.zoo import Card
from tests.copied import WEIGHED, field, shown_twice
from tests.test_pipeline import TILED, RedIsForged


def overlap(area: npt.NDArray[np.bool_], x: int, y: int, radius: float) -> float:
    ys, xs = np.mgrid[: area.shape[0], : area.shape[1]]
    disc = (xs - x) ** 2 + (ys - y) ** 2 <= radius**2
    return float((area & disc).sum() / (area | disc).sum())


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (25.0, 1.0), (-35.0, 0.8), (10.0, 1.3)])
@pytest.mark.parametrize("quality", [None, 75])
def test_a_copy_is_found_with_where_it_was_taken_from(angle: float, scale: float, quality: int | None) -> None:
    rgb = shown_twice(angle, scale)
    rgb = rgb if quality is None else jpeg(rgb, quality)
    found = copies.find(rgb)
    assert found.odds > 2
    repeat = found.found[0]
    areas = sorted(repeat.areas, key=lambda area: float(np.nonzero(area)[1].mean()))
    assert overlap(areas[0], 120, 130, 70 / scale) > 0.7
    assert overlap(areas[1], 400, 220, 70) > 0.7
    shown = repeat.movement @ (120, 130, 1) if repeat.areas[0][130, 120] else repeat.movement @ (400, 220, 1)
    assert min(np.hypot(*(shown - place)) for place in ((400, 220), (120, 130))) < 2


def test_a_copy_in_a_large_photo() -> None:
    rgb = cv2.resize(shown_twice(20.0), (2400, 1600), interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    found = copies.find(rgb)
    assert found.scale == pytest.approx(1280 / 2400)
    assert found.shape == (853, 1280)
    assert found.odds > 2
    marked, _ = found.onto(np.zeros((1600, 2400), np.float32))
    assert marked.shape == (1600, 2400)
    assert marked[880, 1600] > 0.8  # the copy, four times as far from the corner
    assert marked[520, 480] > 0.8  # and where it was taken from, as neither is hotter
    assert marked[100, 2300] == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_does_not_repeat_has_no_copies(seed: int) -> None:
    assert copies.find(field(seed)).odds == 0
    assert copies.find(jpeg(field(seed), 60)).odds == 0


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "camera", "coins", "brick", "grass", "gravel"])
def test_photos_and_textures_that_somebody_made_seamless(name: str) -> None:
    """Grass and gravel of scikit-image hold areas that were cloned, to the pixel; bricks only look alike."""
    data = pytest.importorskip("skimage.data", reason="the demo extra is not installed")
    try:
        picture = getattr(data, name)()
    except Exception as cause:  # not shipped with the package, and there is no network
        pytest.skip(f"{name} is not here: {cause}")
    rgb = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) if picture.ndim == 2 else picture
    found = copies.find(np.ascontiguousarray(rgb, np.uint8))
    seamless = name in ("grass", "gravel")
    assert (found.odds > 0) == seamless
    if seamless:
        np.testing.assert_allclose(found.found[0].movement[:, :2], np.eye(2), atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (8, 200), (64, 64), (3, 2000)])
@pytest.mark.parametrize("kind", ["flat", "noise", "checks"])
def test_pictures_with_nothing_to_find(size: tuple[int, int], kind: str) -> None:
    ys, xs = np.mgrid[: size[0], : size[1]]
    grey = {
        "flat": np.full(size, 7),
        "noise": np.random.default_rng(0).integers(0, 256, size),
        "checks": (ys // 4 + xs // 4) % 2 * 255,
    }[kind]
    found = copies.find(np.repeat(grey[..., None], 3, 2).astype(np.uint8))
    heat = np.full(size, 0.25, np.float32)
    marked, pairs = found.onto(heat)
    assert found.odds >= 0
    if not found.odds:
        np.testing.assert_array_equal(marked, heat)
        assert pairs == []


def test_the_same_photo_gives_the_same_copies() -> None:
    one, other = copies.find(shown_twice(25.0)), copies.find(shown_twice(25.0))
    assert [repeat.odds for repeat in one.found] == [repeat.odds for repeat in other.found]
    np.testing.assert_array_equal(one.found[0].areas, other.found[0].areas)


def areas() -> tuple[copies.Mask, copies.Mask]:
    first, second = np.zeros((40, 60), bool), np.zeros((40, 60), bool)
    first[5:15, 5:15], second[20:30, 40:50] = True, True
    return first, second


def repeats(*odds: float) -> Repeats:
    found = tuple(Repeat(value, areas(), np.eye(2, 3), np.zeros((0, 4), np.float32)) for value in odds)
    return Repeats(0.5, (40, 60), found)


@pytest.mark.parametrize(("heat", "marked"), [((0.6, 0.1), [0]), ((0.1, 0.6), [1]), ((0.32, 0.3), [0, 1])])
def test_the_hotter_area_is_the_copy(heat: tuple[float, float], marked: list[int]) -> None:
    heatmap = np.zeros((80, 120), np.float32)
    heatmap[10:30, 10:30], heatmap[40:60, 80:100] = heat
    shown, pairs = repeats(2.0).onto(heatmap)
    sure = 1 / (1 + np.exp(-2.0))
    assert shown[20, 20] == pytest.approx(sure if 0 in marked else heat[0])
    assert shown[50, 90] == pytest.approx(sure if 1 in marked else heat[1])
    assert shown[70, 20] == 0
    assert [[bool(mask[10, 10]) for mask in pair] for pair in pairs] == [[i == 0, i == 1] for i in marked]
    assert heatmap.max() == np.float32(max(heat))  # what was given is left as it was


def test_odds_are_bounded_and_unlikely_ones_mark_nothing() -> None:
    assert repeats(30.0, 1.0).odds == copies.LIKELIEST
    assert repeats(-1.0).odds == 0
    heat = np.zeros((80, 120), np.float32)
    assert repeats(-1.0).onto(heat)[0].max() == 0


# ------------------------------------------------------------------------------------------- in a report


def test_a_report_names_the_twin_and_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Session(RedIsForged(TILED, logit=-3.0), card=WEIGHED)(shown_twice(25.0))
    assert report.verdict == "forged"
    assert set(report.evidence) == {"logit", "peak", "size", "copies"}
    assert report.evidence["size"] == pytest.approx(np.log(0.24))
    boxes = [(region.box, region.twin) for region in report.regions if region.twin]
    assert boxes
    for box, twin in boxes:
        assert twin is not None
        centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (box, twin)]
        assert sorted(centres)[0] == pytest.approx((120, 130), abs=8)
        assert sorted(centres)[1] == pytest.approx((400, 220), abs=8)
    monkeypatch.setattr(copies, "find", lambda rgb: pytest.fail("asked for copies that nothing weighs"))
    card = dataclasses.replace(WEIGHED, calibration={"logit": 1.0, "bias": 0.0})
    assert "copies" not in Session(RedIsForged(TILED, logit=-3.0), card=card)(shown_twice(25.0)).evidence


def test_the_hottest_place_counts() -> None:
    """Mean heat of 24 x 24 pixels; one hot pixel is none."""
    card = Card("test", "red", calibration={"peak": 1.0})
    rgb = np.zeros((96, 96, 3), np.uint8)
    rgb[24:48, 24:48, 0] = 204
    report = Session(RedIsForged(TILED), card=card)(rgb)
    assert report.probability == pytest.approx(0.8, abs=1e-3)
    rgb[:] = 0
    rgb[30, 30, 0] = 255
    assert Session(RedIsForged(TILED), card=card)(rgb).evidence["peak"] == pytest.approx(np.log(1 / 575), abs=0.02)


def test_a_copy_is_a_verdict_where_other_traces_are_too_compressed() -> None:
    card = dataclasses.replace(WEIGHED, lowest_quality=80)
    session = Session(RedIsForged(TILED, logit=-3.0), card=card)
    for rgb, verdict in ((jpeg(shown_twice(25.0), 60), "forged"), (jpeg(field(1), 60), "inconclusive")):
        report = session(Image(rgb, "<array>", format="JPEG", quality=60))
        assert report.verdict == verdict
        assert [reason.code for reason in report.reasons] == ([] if verdict == "forged" else ["too_compressed"])


def test_a_line_leads_to_the_twin() -> None:
    report = Session(RedIsForged(TILED, logit=-3.0), card=WEIGHED)(shown_twice(25.0))
    bare = dataclasses.replace(report, regions=tuple(dataclasses.replace(r, twin=None) for r in report.regions))

    def blue(shown: Any) -> int:
        return int((np.abs(draw.overlay(shown, shown_twice(25.0)).astype(int) - draw.TWIN).max(-1) < 8).sum())

    assert blue(report) > 500 > 10 > blue(bare)
    edge = Region((0, 0, 1, 1), 0.9, 1, twin=(599, 399, 600, 400))
    draw.overlay(dataclasses.replace(report, regions=(edge,)), shown_twice())


def test_threads_change_nothing() -> None:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        one = copies.find(shown_twice(25.0))
        torch.set_num_threads(2)
        cv2.setNumThreads(2)
        assert copies.find(shown_twice(25.0)).odds == pytest.approx(one.odds, abs=1e-6)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
