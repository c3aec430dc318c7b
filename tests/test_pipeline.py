"""Windows, merging, verdicts and batches, with a detector whose answer is known for every pixel."""

from __future__ import annotations

import dataclasses
import gc
import json
import weakref
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor, nn

import seamline
from seamline import SeamlineError, Session
from seamline.detectors.base import Finding, ImageDetector, Windowing
from seamline.pipeline import MOST_REGIONS, find_regions, tiles
from seamline.report import Report
from seamline.zoo import Card


class RedIsForged(ImageDetector):
    """The heat of a pixel is its red channel; the logit of a photo is positive iff its reddest window is."""

    def __init__(self, windowing: Windowing, logit: float | None = None) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.windowing, self.logit, self.loss_weights = windowing, logit, {}
        self.shapes: list[tuple[int, ...]] = []

    def preprocess(self, rgb: npt.NDArray[np.uint8]) -> Tensor:
        assert rgb.dtype == np.uint8
        return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1) / 255

    def targets(self, masks: Sequence[Any]) -> Any:
        raise AssertionError("scanning asks for no targets")

    def forward(self, pixels: Tensor, targets: Any = None) -> Any:
        self.shapes.append(tuple(pixels.shape))
        return pixels

    def criterion(self, outputs: Any, targets: Any, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        raise AssertionError("scanning asks for no losses")

    def postprocess(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Finding]:
        assert [tuple(window.shape[1:]) for window in outputs] == list(sizes)
        return [Finding(float(w[0].max()) * 10 - 5, w[0].clone(), {"peak": w[0].max()}) for w in outputs]

    def combine(self, findings: Sequence[Finding]) -> float:
        return self.logit if self.logit is not None else max(float(f.evidence["peak"]) for f in findings) * 10 - 5


TILED = Windowing(side=96, overlap=32, align=8, multiple=32)


def photo(
    height: int, width: int, spots: Sequence[tuple[int, int, int, int]] = (), seed: int = 0
) -> npt.NDArray[np.uint8]:
    """A dull photo (H, W, 3) with red boxes x0, y0, x1, y1."""
    rgb = np.random.default_rng(seed).integers(0, 90, (height, width, 3), np.uint8)
    for x0, y0, x1, y1 in spots:
        rgb[y0:y1, x0:x1, 0] = 250
    return rgb


@pytest.mark.parametrize("length", [64, 95, 96, 97, 100, 128, 160, 161, 223, 1000])
@pytest.mark.parametrize("overlap", [0, 32, 44])
def test_tiles_cover_the_axis_on_the_jpeg_grid(length: int, overlap: int) -> None:
    spans = tiles(length, Windowing(side=96, overlap=overlap, align=8, multiple=32))
    total = np.zeros(length)
    for span in spans:
        assert span.start % 8 == 0
        assert span.padded % 32 == 0
        assert span.stop - span.start <= span.padded < span.stop - span.start + max(8, 32 * (length < 96))
        total[span.start : span.stop] += span.weight
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    assert all(b.start < b.stop and b.start <= a.stop - overlap for a, b in pairwise(spans))
    assert len({span.padded for span in spans}) == 1


@pytest.mark.parametrize("size", [(64, 64), (97, 300), (250, 333), (96, 2000)])
def test_merged_tiles_equal_the_whole_photo(size: tuple[int, int]) -> None:
    rgb = photo(*size, seed=3)
    report = Session(RedIsForged(TILED))(rgb)
    assert report.heatmap is not None
    assert report.heatmap.shape == size
    assert report.heatmap.dtype == np.float32
    np.testing.assert_allclose(report.heatmap, rgb[..., 0] / np.float32(255), atol=1e-6)


@pytest.mark.parametrize("size", [(93, 70), (250, 333)])
def test_windows_lie_as_the_detector_wants_them_and_the_heat_map_as_the_photo(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb, seen = photo(*size, seed=4), []
    monkeypatch.setattr(RedIsForged, "lead", lambda self, whole: (5, 3))
    preprocess = RedIsForged.preprocess
    monkeypatch.setattr(RedIsForged, "preprocess", lambda self, window: seen.append(window) or preprocess(self, window))
    report = Session(RedIsForged(TILED))(rgb)
    assert report.heatmap is not None
    np.testing.assert_allclose(report.heatmap, rgb[..., 0] / np.float32(255), atol=1e-6)
    np.testing.assert_array_equal(seen[0][5:37, 3:35], rgb[:32, :32])
    np.testing.assert_array_equal(seen[0][:5, 3:35], np.broadcast_to(rgb[0, :32], (5, 32, 3)))


def test_a_whole_window_is_the_photo_as_it_is() -> None:
    rgb = photo(150, 333)
    detector = RedIsForged(Windowing(side=96, whole=True))
    report = Session(detector)(rgb)
    assert detector.shapes == [(1, 3, 150, 333)]
    np.testing.assert_array_equal(report.heatmap, rgb[..., 0] / np.float32(255))


def test_batches_are_of_one_shape_and_do_not_change_the_result() -> None:
    rgb = photo(300, 420, [(40, 50, 140, 120)])
    one, many = RedIsForged(TILED), RedIsForged(TILED)
    a, b = Session(one, batch=1)(rgb), Session(many, batch=7)(rgb)
    assert {shape[1:] for shape in one.shapes + many.shapes} == {(3, 96, 96)}
    assert len(many.shapes) < len(one.shapes)
    assert a.to_json() == b.to_json()
    np.testing.assert_array_equal(a.heatmap, b.heatmap)


def test_a_forged_photo_has_its_regions_strongest_first() -> None:
    rgb = photo(300, 400, [(20, 30, 60, 70), (200, 100, 300, 220), (350, 10, 355, 15)])  # the last is a speck
    report = Session(RedIsForged(TILED))(rgb)
    assert report.verdict == "forged"
    assert [r.box for r in report.regions] == [(200, 100, 300, 220), (20, 30, 60, 70)]
    assert [r.area for r in report.regions] == [100 * 120, 40 * 40]
    assert all(r.probability == pytest.approx(250 / 255, abs=1e-4) for r in report.regions)
    assert report.mask is not None
    assert report.mask.dtype == bool
    assert report.mask.sum() == 100 * 120 + 40 * 40


def test_an_authentic_photo_has_no_mask_whatever_its_heat_map_shows() -> None:
    report = Session(RedIsForged(TILED, logit=-3.0))(photo(200, 200, [(20, 20, 90, 90)]))
    assert report.verdict == "authentic"
    assert report.probability == pytest.approx(1 / (1 + np.exp(3)))
    assert report.regions == ()
    assert report.mask is not None
    assert not report.mask.any()
    assert report.heatmap is not None
    assert report.heatmap.max() > 0.9


def test_forged_without_an_area_says_so() -> None:
    report = Session(RedIsForged(TILED, logit=9.0))(photo(200, 200))
    assert report.forged
    assert report.regions == ()
    assert "no single area" in report.warnings[0]


def test_calibration_and_threshold_decide() -> None:
    card = Card("test", "red", calibration={"logit": 0.5, "bias": -1.0}, threshold=0.3)
    detector = RedIsForged(TILED, logit=1.0)
    report = Session(detector, card=card)(photo(100, 100))
    assert report.probability == pytest.approx(1 / (1 + np.exp(0.5)))
    assert report.forged
    assert report.threshold == 0.3
    strict = dataclasses.replace(card, threshold=0.4)
    assert not Session(detector, card=strict)(photo(100, 100)).forged


def test_likelier_than_not_but_below_the_threshold_is_inconclusive() -> None:
    verdicts = {}
    for bias in (-3.0, 0.2, 3.0):
        card = Card("test", "red", calibration={"bias": bias}, threshold=0.7)
        report = Session(RedIsForged(TILED, logit=1.0), card=card)(photo(100, 100, [(20, 20, 40, 40)]))
        assert report.mask is not None
        verdicts[report.verdict] = (report.probability, len(report.regions), bool(report.mask.any()))
    assert list(verdicts) == ["authentic", "inconclusive", "forged"]
    assert verdicts["inconclusive"][0] == pytest.approx(0.55, abs=0.001)
    assert verdicts["inconclusive"][1:] == verdicts["authentic"][1:] == (0, False)
    assert verdicts["forged"][1:] == (1, True)


def test_too_small_is_not_applicable() -> None:
    report = Session(RedIsForged(TILED))(photo(63, 500))
    assert report.verdict == "not_applicable"
    assert report.probability is None
    assert report.heatmap is None
    assert [reason.code for reason in report.reasons] == ["too_small"]


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
def test_a_detector_that_gives_no_number_is_an_error_and_not_authentic(logit: float) -> None:
    with pytest.raises(SeamlineError, match="no number"):
        Session(RedIsForged(TILED, logit=logit))(photo(100, 100))


def test_many_areas_are_capped_in_the_list_and_whole_in_the_mask() -> None:
    heatmap = np.zeros((400, 400), np.float32)
    for i in range(30):
        heatmap[(i // 6) * 60 : (i // 6) * 60 + 12, (i % 6) * 60 : (i % 6) * 60 + 12 + i] = 0.6
    heatmap[399, 399] = 1.0
    mask, regions, count = find_regions(heatmap, 0.5)
    assert count == 30
    assert len(regions) == MOST_REGIONS
    assert mask.sum() == (heatmap == np.float32(0.6)).sum()
    weights = [r.probability * r.area for r in regions]
    assert weights == sorted(weights, reverse=True)


def test_the_report_round_trips_and_names_what_it_rests_on(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    PILImage.fromarray(photo(120, 130, [(10, 10, 60, 60)])).save(path)
    report = Session(RedIsForged(TILED))(path)
    again = Report.from_json(report.to_json())
    assert again.to_dict() == report.to_dict()
    assert json.loads(report.to_json())["schema"] == "seamline.report/1"
    assert (again.media.width, again.media.height, again.media.kind, again.media.format) == (130, 120, "image", "PNG")
    assert again.media.bytes == path.stat().st_size
    assert {"seamline", "torch", "python", "device", "platform"} <= again.environment.keys()


def test_the_same_photo_gives_the_same_report(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    PILImage.fromarray(photo(200, 210, [(10, 10, 60, 60)])).save(path)
    a, b = Session(RedIsForged(TILED))(path), Session(RedIsForged(TILED))(path)
    assert a.to_json() == b.to_json()
    np.testing.assert_array_equal(a.heatmap, b.heatmap)


def test_scan_goes_on_after_a_bad_file_and_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png", "c.png"):
        PILImage.fromarray(photo(100, 100)).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"")
    session = Session(RedIsForged(TILED))
    look = session._look

    def buggy(detector: ImageDetector, rgb: npt.NDArray[np.uint8], lead: tuple[int, int]) -> Any:
        if calls.append(1) or len(calls) == 2:
            raise ZeroDivisionError("oops")
        return look(detector, rgb, lead)

    calls: list[int] = []
    monkeypatch.setattr(session, "_look", buggy)
    reports = list(session.scan([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png", tmp_path / "none.png"]))
    assert [r.verdict for r in reports] == ["authentic", "error", "error", "error"]
    assert "b.png" in str(reports[1].error)
    assert reports[2].error == "ZeroDivisionError: oops"
    assert "none.png" in str(reports[3].error)


def test_scan_keeps_nothing_of_a_photo(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        PILImage.fromarray(photo(100, 100)).save(tmp_path / name)
    reports = Session(RedIsForged(TILED)).scan([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out")
    report = next(reports)
    assert report.heatmap is not None
    arrays = weakref.ref(report.heatmap), weakref.ref(report.mask)
    del report
    gc.collect()
    assert [array() for array in arrays] == [None, None]
    assert next(reports).media.path == str(tmp_path / "b.png")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_told(device: str) -> None:
    with pytest.raises(SeamlineError, match="device"):
        Session(RedIsForged(TILED), device=device)


def test_public_names_resolve() -> None:
    for name in seamline.__all__:
        assert getattr(seamline, name) is not None
    assert set(seamline.__all__) == set(dir(seamline))
    with pytest.raises(AttributeError, match="nothing"):
        seamline.nothing  # noqa: B018
