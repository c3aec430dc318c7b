from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seamline.errors import DataError
from seamline.report import SCHEMA, VERDICTS, Artifacts, Media, Model, OperatingPoint, Reason, Region, Report, Segment

FULL = Report(
    media=Media("фото/a.jpg", "0f" * 32, 1234, "image", "JPEG", 640, 480),
    verdict="forged",
    probability=0.875,
    threshold=0.5,
    regions=(Region((0, 8, 64, 72), 0.75, 4000), Region((100, 100, 101, 101), 0.5, 1, twin=(7, 7, 9, 9))),
    segments=(Segment(0.0, 1.5, 0.9, "audio"), Segment(2.0, 2.25, 0.6)),
    artifacts=Artifacts(mask="a.mask.png", overlay="a.overlay.png"),
    model=Model("loupe-compact", "1", "ab" * 32),
    environment={"torch": "2.13.0", "device": "cpu"},
    operating_point=OperatingPoint(0.5, 0.03, 0.01, 0.08, 0.4, 0.2, 115, 135),
    warnings=("16-bit samples were reduced to 8 bit",),
    mask=np.ones((480, 640), bool),
    heatmap=np.ones((480, 640), np.float32),
)
SMALL = Report(media=Media("<array>"), verdict="authentic")
UNSURE = Report(Media("c.jpg"), "inconclusive", 0.9, reasons=(Reason("unfamiliar", "unlike photos"),))
BROKEN = Report(media=Media("b.jpg"), verdict="error", error="b.jpg: is empty (0 bytes)")


@pytest.mark.parametrize("report", [FULL, SMALL, UNSURE, BROKEN])
def test_json_round_trip(report: Report) -> None:
    back = Report.from_json(report.to_json())
    assert back.mask is None
    assert back.heatmap is None
    assert back.to_dict() == report.to_dict()
    for name in (
        "media",
        "regions",
        "segments",
        "artifacts",
        "model",
        "environment",
        "warnings",
        "error",
        "reasons",
        "operating_point",
    ):
        assert getattr(back, name) == getattr(report, name)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_round_trips(verdict: Any) -> None:
    report = Report.from_json(replace(SMALL, verdict=verdict).to_json())
    assert report.verdict == verdict
    assert report.forged == (verdict == "forged")


def test_json_form_is_the_documented_one() -> None:
    text = FULL.to_json()
    assert "\n" not in text
    assert "фото" in text
    data = json.loads(text)
    assert list(data) == [
        "schema",
        "media",
        "verdict",
        "probability",
        "threshold",
        "reasons",
        "operating_point",
        "regions",
        "segments",
        "proposals",
        "evidence",
        "modalities",
        "streams",
        "artifacts",
        "model",
        "environment",
        "warnings",
        "error",
    ]
    assert data["schema"] == "seamline.report/1"
    assert data["regions"][0] == {"box": [0, 8, 64, 72], "probability": 0.75, "area": 4000, "twin": None}
    assert data["regions"][1]["twin"] == [7, 7, 9, 9]
    assert data["segments"][0] == {"start": 0.0, "end": 1.5, "probability": 0.9, "modality": "audio"}
    files = {"mask": "a.mask.png", "heatmap": None, "overlay": "a.overlay.png", "timeline": None}
    assert data["artifacts"] == files
    assert set(data["media"]) >= {"path", "sha256", "bytes", "kind", "width", "height"}


def test_numpy_numbers_become_json_numbers() -> None:
    region = Region((np.int64(1), 2, 3, 4), np.float32(0.5), np.int64(7))  # type: ignore[arg-type]
    back = Report.from_json(replace(SMALL, probability=np.float32(0.25), regions=(region,)).to_json())  # type: ignore[arg-type]
    assert back.probability == 0.25
    assert back.regions == (Region((1, 2, 3, 4), 0.5, 7),)


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        replace(SMALL, probability=float("nan")).to_json()


def test_a_name_that_is_not_utf8_is_written_and_read_back() -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    text = replace(SMALL, media=Media(name)).to_json()
    text.encode("utf-8")
    assert Report.from_json(text).media.path == name


def test_a_report_from_before_twins_and_evidence_is_read() -> None:
    data = FULL.to_dict()
    del data["evidence"]
    for region in data["regions"]:
        del region["twin"]
    back = Report.from_dict(data)
    assert back.evidence == {}
    assert [region.twin for region in back.regions] == [None, None]


def test_whole_numbers_are_read_as_floats() -> None:
    data = FULL.to_dict() | {"probability": 1}
    assert isinstance(Report.from_dict(data).probability, float)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": "seamline.report/2"}, "seamline.report/2"),
        ({"schema": None}, "None"),
        ({"verdict": "maybe"}, "report.verdict is 'maybe'"),
        ({"verdict": ["forged"]}, "report.verdict"),
        ({"probability": "0.5"}, "report.probability"),
        ({"probability": True}, "report.probability"),
        ({"probability": float("nan")}, "report.probability"),
        ({"threshold": 10**400}, "report.threshold"),
        ({"media": None}, "report.media"),
        ({"media": {}}, "report.media lacks ['path']"),
        ({"media": {"path": 3}}, "report.media.path is 3, not str"),
        ({"media": {"path": "a", "colour": 1}}, "report.media has unknown fields ['colour']"),
        ({"regions": {}}, "report.regions"),
        ({"regions": [{"box": [1, 2, 3], "probability": 0.5, "area": 1}]}, "report.regions[0].box"),
        ({"regions": [{"box": [1, 2, 3, 4.5], "probability": 0.5, "area": 1}]}, "report.regions[0].box[3]"),
        ({"segments": [{"start": 0.0, "end": 1.0}]}, "report.segments[0] lacks ['probability']"),
        ({"warnings": "one"}, "report.warnings"),
        ({"environment": {"a": 1}}, "report.environment.a"),
        ({"model": "loupe"}, "report.model"),
        ({"mask": [[1]]}, "unknown fields ['mask']"),
    ],
)
def test_damaged_reports_are_refused_by_field(change: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError) as caught:
        Report.from_dict(FULL.to_dict() | change)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"a"', "{}", "[" * 100_000, '{"schema": "' + SCHEMA + '", "probability": NaN}']
)
def test_text_that_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        Report.from_json(text)


@pytest.mark.parametrize("lost", ["media", "verdict"])
def test_missing_fields_are_named(lost: str) -> None:
    data = FULL.to_dict()
    del data[lost]
    with pytest.raises(DataError, match=lost):
        Report.from_dict(data)
