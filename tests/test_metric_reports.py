"""Reports to arrays, and what files count that got no probability."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from seamline.errors import DataError
from seamline.metrics.detection import roc_auc
from seamline.metrics.image import PixelTable
from seamline.metrics.reports import Pair, maps_of, paired, scores_of, spans_of_pairs
from seamline.metrics.temporal import average_precision
from seamline.report import Artifacts, Media, Report, Segment


def truth(name: str, forged: bool) -> Report:
    return Report(Media(name), "forged" if forged else "authentic", float(forged))


def said(name: str, probability: float | None, **more: object) -> Report:
    verdict = "not_applicable" if probability is None else "forged" if probability >= 0.5 else "authentic"
    return dataclasses.replace(Report(Media(name), verdict, probability), **more)  # type: ignore[arg-type]


TRUTHS = [truth("a/1.png", True), truth("a/2.png", False), truth("a/3.png", True), truth("a/4.png", False)]


def test_predictions_are_found_by_name() -> None:
    pairs = paired(TRUTHS, [said("b/3.png", 0.7), said("b/2.png", 0.2), said("b/1.png", 0.9)])
    assert [p and p.probability for _, p in pairs] == [0.9, 0.2, 0.7, None]
    found = scores_of(pairs[:3])
    assert found.names == ("a/1.png", "a/2.png", "a/3.png")
    assert found.scores.tolist() == [0.9, 0.2, 0.7]
    assert found.labels.tolist() == [True, False, True]
    assert found.troubles == {}
    assert roc_auc(found.scores, found.labels) == 1


def test_pairs_are_checked() -> None:
    with pytest.raises(DataError, match=r"9\.png: a prediction of a file without truth"):
        paired(TRUTHS, [said("9.png", 0.5)])
    with pytest.raises(DataError, match=r"b/1\.png and a/1\.png: two predictions"):
        paired(TRUTHS, [said("a/1.png", 0.5), said("b/1.png", 0.5)])
    with pytest.raises(DataError, match="two truths"):
        paired([*TRUTHS, TRUTHS[0]], [])
    by_path = paired([truth("a/1.png", True), truth("b/1.png", False)], [], key=lambda report: report.media.path)
    assert len(by_path) == 2


FAILED = Report(Media("3.png"), "error", error="truncated")
TROUBLED: list[Pair] = [
    (TRUTHS[0], None),
    (TRUTHS[1], said("2.png", None, warnings=("no face",))),
    (TRUTHS[2], FAILED),
    (TRUTHS[3], said("4.png", 0.25)),
]


def test_trouble_raises_and_names_the_file_unless_told_otherwise() -> None:
    with pytest.raises(DataError, match=r"a/1\.png: has no prediction"):
        scores_of(TROUBLED)
    with pytest.raises(DataError, match=r"a/2\.png: could not be judged \(no face\)"):
        scores_of(TROUBLED, missing="skip")
    with pytest.raises(DataError, match=r"a/3\.png: could not be read \(truncated\)"):
        scores_of(TROUBLED, missing="skip", not_applicable="skip")
    with pytest.raises(DataError, match="no treatment"):
        scores_of([], missing="zero")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"x: its truth is 'inconclusive'"):
        scores_of([(Report(Media("x"), "inconclusive"), said("x", 0.5))])


def test_treatments() -> None:
    found = scores_of(TROUBLED, missing="wrong", not_applicable="wrong", error="authentic")
    assert found.scores.tolist() == [0, 1, 0, 0.25]
    assert found.troubles == {"missing": 1, "not_applicable": 1, "error": 1}
    found = scores_of(TROUBLED, missing="chance", not_applicable="skip", error="skip")
    assert found.scores.tolist() == [0.5, 0.25]
    assert found.names == ("a/1.png", "a/4.png")
    assert scores_of([]).scores.shape == (0,)


def test_maps_from_memory_and_from_files(tmp_path: Path) -> None:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:3] = True
    heat = np.where(mask, 0.8, 0.2).astype(np.float32)
    forged = dataclasses.replace(TRUTHS[0], mask=mask)
    cv2.imwrite(str(tmp_path / "mask.png"), mask.astype(np.uint8) * 255)
    cv2.imwrite(str(tmp_path / "heat.png"), (heat * 255).round().astype(np.uint8))
    files = Artifacts(mask=str(tmp_path / "mask.png"), heatmap=str(tmp_path / "heat.png"))
    on_disk = dataclasses.replace(TRUTHS[0], artifacts=files)
    in_memory, read = said("1.png", 0.9, heatmap=heat, mask=mask), said("1.png", 0.9, artifacts=files)
    for known in (forged, on_disk):
        for found in (in_memory, read):
            table = PixelTable()
            table.add(*maps_of((known, found)))
            table.add(*maps_of((TRUTHS[1], found)))  # authentic: no mask is needed
            assert table.figures()["f1"] == 1
            assert table.figures(empty="score")["f1"] == 0.5
            map_, _ = maps_of((known, found), "mask")
            assert map_.dtype == np.bool_
            assert (map_ == mask).all()
    nothing, _ = maps_of((forged, said("1.png", 0.1)), "mask")  # called authentic: no mask is an empty mask
    assert not nothing.any()


def test_maps_are_checked() -> None:
    mask = np.ones((4, 5), bool)
    known, heat = dataclasses.replace(TRUTHS[0], mask=mask), np.zeros((4, 4), np.float32)
    lost = Artifacts(mask="nowhere.png", heatmap="nowhere.png")
    for pair, match in (
        ((known, None), "has no prediction"),
        ((known, FAILED), "could not be read"),
        ((known, said("1.png", 0.9)), "has no heatmap"),
        ((known, said("1.png", 0.9, artifacts=lost)), "nowhere.png is missing"),
        ((known, said("1.png", 0.9, heatmap=heat)), r"\(4, 4\) and truth mask of \(4, 5\)"),
        ((TRUTHS[0], said("1.png", 0.9, heatmap=heat)), "its truth has no mask"),
    ):
        with pytest.raises(DataError, match=rf"a/1\.png: .*{match}"):
            maps_of(pair)


def test_clips() -> None:
    known = Report(Media("1.mp4"), "forged", 1.0, segments=(Segment(1, 2, 1.0),))
    found = said("1.mp4", 0.9, proposals=((0.9, 1.0, 2.0),))
    assert average_precision(*spans_of_pairs([(known, found)]))[0.5] == 1
    assert average_precision(*spans_of_pairs([(known, found), (known, None)]))[0.5] == 0.5
