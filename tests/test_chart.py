"""A chart is the same list of shapes as SVG and as PNG; plots of rows show what the rows say."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from seamline import chart
from seamline.chart import AUTHENTIC, DENSITY, FORGED, INK, PAPER, Axes, Sheet
from seamline.evaluate import evaluate, rows, write_plots
from seamline.evaluate.plots import ap_iou, plots, reliability, roc, scores, wilson
from tests.test_evaluate import data, scan
from tests.test_evaluate_clips import data as clips
from tests.test_evaluate_clips import scan as scan_clip

__all__ = ["clips", "data"]  # fixtures
SVG = "{http://www.w3.org/2000/svg}"


def pixels(sheet: Sheet) -> npt.NDArray[np.uint8]:
    return np.asarray(sheet.picture())


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_shapes_are_where_they_were_put() -> None:
    sheet = Sheet(100, 80, "A <title>")
    sheet.box(10, 10, 30, 20, FORGED)
    sheet.box(40, 10, 60, 20, FORGED, 0.5)
    sheet.line([(10, 40), (90, 40)], AUTHENTIC, 2.0)
    sheet.line([(10, 60), (90, 60)], INK, 2.0, 4.0)
    sheet.dot(50, 40, INK, 6)
    sheet.text(10, 76, "a < b & c")
    drawn = pixels(sheet)
    assert drawn.shape == (80 * DENSITY, 100 * DENSITY, 3)
    assert tuple(drawn[15 * DENSITY, 20 * DENSITY]) == FORGED
    half = np.rint((np.array(FORGED) + 255) / 2)
    assert np.abs(drawn[15 * DENSITY, 50 * DENSITY] - half).max() <= 1
    assert tuple(drawn[40 * DENSITY, 20 * DENSITY]) == AUTHENTIC
    assert tuple(drawn[40 * DENSITY, 50 * DENSITY]) == INK
    dashes = (drawn[60 * DENSITY, 10 * DENSITY : 90 * DENSITY] == INK).all(1)
    starts = np.flatnonzero(np.diff(dashes.astype(int), prepend=0) == 1)
    assert len(starts) == 10
    assert set(np.diff(starts)) <= {8 * DENSITY - 1, 8 * DENSITY, 8 * DENSITY + 1}
    assert (drawn[66 * DENSITY :] != 255).any()
    root = ET.fromstring(sheet.svg())
    assert root.get("viewBox") == "0 0 100 80"
    assert [child.tag.removeprefix(SVG) for child in root][2:] == [
        *("polygon", "polygon", "polyline", "polyline", "circle", "text"),
    ]
    assert root[0].text == "A <title>"
    assert root[-1].text == "a < b & c"
    assert root[5].get("stroke-dasharray") == "4"


def test_a_dashed_line_goes_around_corners() -> None:
    pieces = chart._dashes([(0, 0), (10, 0), (10, 10)], 4.0)
    assert pieces == [[(0, 0), (4, 0)], [(8, 0), (10, 0), (10, 2)], [(10, 6), (10, 10)]]


def test_axes_know_values_and_keep_them_inside() -> None:
    axes = Axes(Sheet(200, 200, ""), 20, 10, 100, 50, (0.5, 1.0), (0.0, 2.0))
    assert axes.at(0.5, 0.0) == (20, 60)
    assert axes.at(1.0, 2.0) == (120, 10)
    assert axes.at(0.75, 5.0) == (70, 10)


def test_ticks_are_round() -> None:
    assert chart.steps(1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert chart.steps(0.13, 3) == [0.0, 0.05, 0.1, 0.15]
    assert chart.steps(0.0) == chart.steps(1.0)
    assert chart.number(0.2, percent=True) == "20 %"
    assert chart.number(0.25) == "0.25"
    assert chart.length(chart.fitted("a name that is much too long", 80)) <= 80
    assert chart.fitted("short", 80) == "short"


def test_both_files_are_written_whole(tmp_path: Path) -> None:
    sheet = Sheet(60, 40, "x")
    sheet.line([(0, 0), (60, 40)])
    paths = sheet.write(tmp_path / "deep" / "v1.5")
    assert [path.name for path in paths] == ["v1.5.svg", "v1.5.png"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["v1.5.png", "v1.5.svg"]
    assert size_of(paths[1]) == (60 * DENSITY, 40 * DENSITY)
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in sheet.write(tmp_path / "deep" / "v1.5")] == first


# ------------------------------------------------------------------------------------------------------ plots of rows


@pytest.fixture
def row(clips: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(rows, "DRAWS", 40)
    return evaluate(scan_clip, clips, progress=False)


def words(sheet: Sheet) -> str:
    return " | ".join(shape.text for shape in sheet.shapes if isinstance(shape, chart.Words))


def test_plots_say_what_the_row_says(row: dict[str, Any]) -> None:
    text = words(roc([row]))
    assert f"AUC {row['auc']:.3f} [" in text
    assert "toy, clips, n = 3 authentic + 9 forged" in text
    assert "89 % of forged and 33 % of authentic files called forged" in text
    assert "AP@.5 0.790" in words(ap_iou([row]))
    assert f"ECE {row['ece']:.3f}" in words(reliability(row))
    text = words(scores(row))
    assert "threshold 0.50" in text
    assert "authentic, 3" in text
    sheet = roc([row])  # the curve goes from corner to corner of the frame
    line = max(
        (s for s in sheet.shapes if isinstance(s, chart.Line) and s.colour == AUTHENTIC), key=lambda s: len(s.points)
    )
    assert line.points[0] == (66, 112 + 340)
    assert line.points[-1] == (560 - 34, 112)


def test_plots_of_several_rows_name_them(row: dict[str, Any]) -> None:
    other = copy.deepcopy(row)
    other["model"]["name"] = "a name so long that nobody could ever read it to its end"
    sheet = roc([row, other])
    assert "toy: AUC" in words(sheet)
    assert "...: AUC" in words(sheet)
    assert len({shape.colour for shape in sheet.shapes if isinstance(shape, chart.Line) and shape.width == 2.5}) == 2
    assert sheet.height > 534  # the legend needs lines of its own
    assert (
        max(
            s.x + chart.length(s.text, s.size)
            for s in sheet.shapes
            if isinstance(s, chart.Words) and s.anchor == "start"
        )
        < 560
    )


def test_every_plot_of_a_row_with_robustness(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "DRAWS", 40)
    monkeypatch.setattr(rows, "PHOTO_GRID", ("jpeg75", "jpeg60", "crop5"))
    row = evaluate(scan, data, perturb="grid", progress=False)
    paths = write_plots(row, tmp_path)
    names = ["roc", "precision_recall", "reliability", "scores", "robustness"]
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in names for kind in ("svg", "png")]
    for path in paths:
        if path.suffix == ".svg":
            root = ET.fromstring(path.read_text())
            size = int(root.get("width", "0")), int(root.get("height", "0"))
        else:
            assert size_of(path) == (size[0] * DENSITY, size[1] * DENSITY)
    text = words(plots(row)["robustness"])
    for part in ("as they are", "JPEG 75", "5 px cut off", "AUC", "pixel F1", "false alarms", "inconclusive"):
        assert part in text


def test_what_is_not_defined_is_not_drawn(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "DRAWS", 40)
    lines = [line for line in (clips / "manifest.jsonl").read_text().splitlines() if '"label": 0' in line]
    (clips / "manifest.jsonl").write_text("\n".join(lines))
    row = evaluate(scan_clip, clips, progress=False)
    assert list(plots(row)) == ["reliability", "scores"]
    for sheet in plots(row).values():
        assert (pixels(sheet) != PAPER).any()


def test_wilson() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)
    assert wilson(10, 10)[1] == 1.0
