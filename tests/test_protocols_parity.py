"""The released evaluators' recorded answers, had under the protocol's name from a result file as those read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seamline.data.submission import read_submission
from seamline.metrics.protocols import score
from seamline.report import Media, Report, Segment
from tests.parity_table import record

pytestmark = pytest.mark.parity

TORCH = 2.5e-7  # a digit of single precision


@pytest.mark.parametrize("name", ["main", "ties", "ties_unsorted", "few_nonempty", "single"])
def test_a_result_file_has_the_recorded_figures(shared: Path, tmp_path: Path, name: str) -> None:
    folder = shared / "goldens" / "av" / "public" / "metrics"
    theirs = json.loads((folder / "expected.json").read_text())["results"][name]
    data = json.loads((folder / f"{name}.json").read_text())
    truths = [
        Report(
            Media(row["file"], kind="video", duration=row["duration"]),
            "forged" if row["fake_periods"] else "authentic",
            segments=tuple(Segment(start, end, 1.0, "video") for start, end in row["fake_periods"]),
        )
        for row in data["metadata"]
    ]
    (tmp_path / "lavdf.json").write_text(json.dumps(data["proposals"]))
    seconds = {file: [[c, s / 25, e / 25] for c, s, e in rows] for file, rows in data["proposals"].items()}
    (tmp_path / "prediction.json").write_text(json.dumps(seconds))
    results = {
        file: [{"score": c, "segment": [s, e], "label": "Fake"} for c, s, e in rows] for file, rows in seconds.items()
    }
    (tmp_path / "activitynet.json").write_text(json.dumps({"results": results}))

    ours = score("lavdf", truths, read_submission(tmp_path / "lavdf.json", "lavdf", strict=False))
    if not isinstance(theirs["lavdf"]["ap"], str):
        worst = max(abs(ours[f"ap{round(100 * float(k))}"] - v) for k, v in theirs["lavdf"]["ap"].items())
        record(f"metrics/{name}.json", "protocol lavdf, AP", worst, TORCH)
    if not isinstance(theirs["lavdf"]["ar"], str):  # where it stops at fewer than 100, ours goes on
        worst = max(abs(ours[f"ar{k}"] - v) for k, v in theirs["lavdf"]["ar"].items())
        record(f"metrics/{name}.json", "protocol lavdf, AR", worst, 1e-15)
    ours = score("1m-deepfakes", truths, read_submission(tmp_path / "prediction.json", "1m-deepfakes", strict=False))
    worst = max(
        abs(ours[f"ap{round(100 * float(k))}"] - v) for k, v in theirs["avdeepfake1m"]["ap"].items() if float(k) != 0.5
    )
    worst = max(worst, abs(ours["ap50"] - theirs["avdeepfake1m"]["ap"]["0.50"]))
    record(f"metrics/{name}.json", "protocol 1m-deepfakes, AP", worst, TORCH)
    ours = score("activitynet", truths, read_submission(tmp_path / "activitynet.json", "activitynet", strict=False))
    worst = max(abs(ours[f"ap{round(100 * float(k))}"] - v) for k, v in theirs["anet"]["ap"].items())
    record(f"metrics/{name}.json", "protocol activitynet, AP", worst, 1e-12)
    record(f"metrics/{name}.json", "protocol activitynet, mAP", abs(ours["map"] - theirs["anet"]["average_map"]), 1e-12)
    if not isinstance(theirs["anet"]["ar"], str):
        worst = max(abs(ours[f"ar{k}"] - v) for k, v in theirs["anet"]["ar"].items())
        record(f"metrics/{name}.json", "protocol activitynet, AR", worst, 1e-12)
