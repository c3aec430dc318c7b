"""Evaluation of clips with findings made by hand, so that every figure is known; and once through the real pipeline."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamline import zoo
from seamline.data import Sample
from seamline.errors import DataError
from seamline.evaluate import calibrate, calibration, card_table, evaluate, model_card
from seamline.evaluate import rows as rows_of
from seamline.pipeline import Session, _probabilities
from seamline.report import Media, Model, Report, Segment
from tests.test_pipeline_clips import CARD, Loud, wave

KINDS = {  # kind -> spans forged in video, in audio
    "authentic": ([], []),
    "lipsync": ([[1.0, 2.0]], []),
    "voice_tts": ([], [[3.0, 4.0]]),
    "voice_tts+lipsync": ([[1.0, 2.0]], [[1.0, 2.5]]),
}


def rows(n: int = 12) -> list[dict[str, Any]]:
    lines = []
    for i in range(n):
        kind = list(KINDS)[i % 4]
        video, audio = KINDS[kind]
        row = {"path": f"media/{i:02d}.mp4", "kind": kind, "label": int(bool(video or audio)), "video": video}
        row |= {"audio": audio, "duration": 5.0, "fps": 25, "group": f"g{i // 2}", "source": None}
        lines.append(row)
    return lines


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of, "DRAWS", 200)  # resamples: a fifth of the time


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve clips that are only listed: the toy scanner looks at their names."""
    root = tmp_path / "clips"
    root.mkdir()
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return root


def scan(path: Path) -> Report:
    """Finds the seconds of every kind, but: clip 0 is a false alarm, clip 1 is missed, the ends are 40 ms late."""
    number = int(path.stem)
    kind = list(KINDS)[number % 4]
    video, audio = KINDS[kind]
    forged = bool(video or audio) ^ (number in (0, 1))
    # the union of what is forged in either, except for the miss and the false alarm
    start, end = (min(s for s, _ in video + audio), max(e for _, e in video + audio)) if video or audio else (0.0, 1.0)
    probability = 0.9 if forged else 0.1
    if number == 0:
        probability = 0.6
    spans = [(0.8, start, end + 0.04)] if forged else []
    noise = [(0.1 - i / 1000, 0.1 * i, 0.1 * i + 0.05) for i in range(20)]
    modality = "video" if video and not audio else "audio" if audio and not video else "audio_visual"
    return Report(
        Media(str(path), kind="video", duration=5.0),
        "forged" if forged else "authentic",
        probability,
        threshold=0.5,
        segments=tuple(Segment(s, e, p, modality) for p, s, e in spans),
        proposals=(*spans, *noise),
        modalities={"video": 0.7 if video else 0.2, "audio": 0.4, "audio_visual": probability},
        model=Model("toy", "1", "ab" * 32),
        environment={"python": "3"},
        curves={"video": np.zeros(125, np.float32)},
    )


def test_figures(data: Path, tmp_path: Path) -> None:
    row = evaluate(scan, data, out=tmp_path / "row.json", progress=False)
    assert row["modality"] == "audio_visual"
    assert row["n"] == {"authentic": 3, "forged": 9, "unjudged": 0}
    # eight of nine are found; of the nine proposals that score .8, one is the false alarm
    assert row["ap50"] == pytest.approx(8 / 9 * 8 / 9, abs=1e-5)
    assert row["ap95"] == pytest.approx(8 / 9 * 8 / 9, abs=1e-5)  # a second or more, 40 ms too long: IoU above .96
    assert row["ar100"] == row["ar10"] == pytest.approx(8 / 9, abs=1e-5)
    assert row["boundary_ms"] == pytest.approx(20.0)
    assert row["auc"] == pytest.approx((8 * 3 + 1 * (0 + 0.5 * 2)) / 27, abs=1e-5)
    assert row["auc_video"] == 1.0
    assert row["auc_audio"] == 0.5
    assert row["detected"] == pytest.approx(8 / 9, abs=1e-5)
    assert row["false_alarms"] == pytest.approx(1 / 3, abs=1e-5)
    true = 2 * 25 + 3 * 25 + 3 * 37  # frames: two lipsyncs found, three voices, three of both (1.0 to 2.5)
    assert row["frame_f1"] == pytest.approx(2 * true / (2 * true + 8 + 26 + 25), abs=1e-5)  # late ends, alarm, miss
    assert row["forged_in"]["video"]["n"] == 3
    assert row["forged_in"]["video"]["detected"] == pytest.approx(2 / 3, abs=1e-5)
    assert row["forged_in"]["audio"]["ap50"] == pytest.approx(3 / 4, abs=1e-5)  # three hits, and the one false alarm
    assert set(row["forged_in"]) == {"video", "audio", "audio_visual"}
    assert set(row["kinds"]) == set(KINDS)
    assert row["kinds"]["authentic"] == {"n": 3, "false_alarms": pytest.approx(1 / 3, abs=1e-5)}
    assert row["kinds"]["voice_tts"]["auc"] == 1.0
    low, high = row["ci95"]["ap50"]
    assert low < row["ap50"] < high
    assert set(row["ci95"]) <= set(row)
    assert row["model"] == {"name": "toy", "version": "1", "sha256": "ab" * 32}
    assert row["data"]["name"] == "clips"
    assert row["times_realtime"] > 0
    assert json.loads((tmp_path / "row.json").read_text()) == row
    with (tmp_path / "row.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 12
    assert table[3]["forged_in"] == "audio_visual"
    assert table[3]["truth"] == "1.00-2.50"
    assert table[3]["segments"] == "1.00-2.54 audio_visual"
    assert (table[3]["ap50"], table[3]["ar10"], table[3]["boundary_ms"]) == ("1.0000", "1.0000", "20.0000")
    assert (table[4]["ap50"], table[4]["forged_in"], table[4]["probability"]) == ("", "", "0.100000")
    assert table[1]["ar10"] == "0.0000"


def test_rows_repeat(data: Path) -> None:
    first, second = (evaluate(scan, data, progress=False) for _ in range(2))
    for row in (first, second):
        for name in ("times_realtime", "seconds"):
            row.pop(name)
    assert first == second


def test_threshold_and_limit(data: Path) -> None:
    row = evaluate(scan, data, threshold=0.7, limit=4, progress=False)
    assert row["n"] == {"authentic": 1, "forged": 3, "unjudged": 0}
    assert row["false_alarms"] == 0.0
    assert row["threshold"] == 0.7


def test_what_could_not_be_judged_is_missed(data: Path) -> None:
    def shy(path: Path) -> Report:
        report = scan(path)
        if int(path.stem) in (2, 4):  # a forged and an authentic clip
            return Report(report.media, "not_applicable", threshold=0.5)
        return report

    row = evaluate(shy, data, protocol="ddl-track2", progress=False)
    assert row["n"] == {"authentic": 3, "forged": 9, "unjudged": 2}
    assert row["protocol"]["figures"]["ar30"] == pytest.approx(7 / 9, abs=1e-5)
    assert row["protocol"]["figures"]["auc"] < row["auc"]  # there they are wrong, here without a score
    assert row["detected"] == pytest.approx(7 / 9, abs=1e-5)
    assert row["ar10"] == pytest.approx(7 / 9, abs=1e-5)
    assert row["false_alarms"] == 0.5  # of the two that were judged
    with pytest.raises(DataError, match="none of the 12 clips could be judged"):
        evaluate(lambda path: Report(Media(str(path)), "not_applicable"), data, progress=False)


def test_only_authentic_clips(data: Path) -> None:
    (data / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows() if not row["label"]))
    row = evaluate(scan, data, progress=False)
    assert row["false_alarms"] == pytest.approx(1 / 3, abs=1e-5)
    assert row["ap50"] is None
    assert row["auc"] is None
    assert row["forged_in"] == {}
    assert "| clips | 3 | 0 | – |" in card_table([row])  # noqa: RUF001


def test_photos_and_clips_are_kept_apart(data: Path) -> None:
    photo = {"path": "media/1.png", "mask": None, "label": 0, "kind": "authentic", "group": "g"}
    text = (data / "manifest.jsonl").read_text()
    (data / "manifest.jsonl").write_text(text + json.dumps(photo))
    with pytest.raises(DataError, match="1 photos and 12 clips"):
        evaluate(scan, data, progress=False)
    (data / "manifest.jsonl").write_text(text)
    with pytest.raises(DataError, match="'jpeg75' of clips"):
        evaluate(scan, data, perturb="jpeg75", progress=False)
    with pytest.raises(DataError, match="for photos"):
        evaluate(scan, data, mask_threshold=0.5, progress=False)


def test_card_table(data: Path) -> None:
    row = evaluate(scan, data, progress=False)
    text = card_table([row, row])
    assert text.count("| clips | 3 | 9 | 0.926 [") == 2
    assert "| lipsync | 0.778 / 0.444 / 0.667 | 0.778 / 0.444 / 0.667 |" in text
    assert "| false alarms: authentic | 0.333 | 0.333 |" in text
    assert "20 ms [20, 20]" in text
    assert "mask threshold" not in text
    assert "ab" * 32 in text
    assert text.count(row["data"]["sha256"]) == 1


class Toy:
    """Stands for a session with raw logits: threshold and calibration off, every segment listed."""

    proposals = 0

    def __init__(self, detector: Any, card: zoo.Card) -> None:
        assert (card.calibration, card.calibrations, card.threshold, card.segment_threshold) == (
            {"logit": 1.0, "bias": 0.0},
            {},
            0.0,
            0.0,
        )

    def __call__(self, path: Path) -> Report:
        number = int(path.stem)
        forged = number % 4 != 0
        logit = (2.0 if forged else -4.0) + 0.1 * number
        p = 1 / (1 + math.exp(-logit))
        modalities = {"video": p, "audio": p, "audio_visual": p} if number % 3 else {"audio": p}
        video, audio = KINDS[list(KINDS)[number % 4]]
        spans = [Segment(s, e, 0.62, "audio") for s, e in (video or audio)] + [Segment(0.0, 0.9, 0.41, "video")]
        return Report(Media(str(path), duration=5.0), "forged", p, 0.0, segments=tuple(spans), modalities=modalities)


def test_calibrate(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: dict[str, Any] = {}
    card = zoo.Card("toy", "toy", modality="audio_visual", calibrations={"audio": {"logit": 3.0, "bias": 3.0}})
    monkeypatch.setattr(zoo, "load_detector", lambda weights: (Loud(), card))
    monkeypatch.setattr(zoo, "facts", lambda weights: {"licence": "test"})
    monkeypatch.setattr(zoo, "save", lambda detector, out, **facts: saved.update(facts))
    monkeypatch.setattr(calibration, "Session", Toy)
    monkeypatch.setattr(calibration, "_fit_familiarity", lambda *_: {})  # there are no files to open
    facts = calibrate("toy", data, tmp_path / "out.safetensors", false_alarms=0.0, progress=False)
    assert saved == {"licence": "test"} | facts
    assert facts["calibrated_on"]["authentic"] == 3
    assert facts["calibrated_on"]["forged"] == 9
    assert set(facts["calibrations"]) == {"audio", "video"}
    assert facts["segment_threshold"] == 0.45  # the lowest that leaves the false span out
    assert 0.0 < facts["threshold"] <= 1.0
    fitted = zoo.Card("x", "x", calibration=facts["calibration"], calibrations=facts["calibrations"])
    for number in range(12):  # as the pipeline applies it: no authentic clip is flagged, every forged one is
        report = Toy(None, zoo.Card("x", "x", threshold=0.0, segment_threshold=0.0))(Path(f"{number}.mp4"))
        told = _probabilities({key: math.log(p / (1 - p)) for key, p in report.modalities.items()}, fitted)
        assert (max(told.values()) >= facts["threshold"]) == (number % 4 != 0)
        assert told.get("audio_visual", told["audio"]) == max(told.values())
    text = "".join(json.dumps(row) + "\n" for row in rows() if row["label"])
    (data / "manifest.jsonl").write_text(text)
    with pytest.raises(DataError, match="authentic and forged clips; 9 of 9"):
        calibrate("toy", data, tmp_path / "out.safetensors", progress=False)


def test_the_verdict_on_a_clip_is_that_of_its_more_suspect_modality_once_each_is_weighed_by_itself() -> None:
    """A network that shouts of sound and whispers of pictures is heard alike."""
    logits: dict[Any, float] = {"video": 0.5, "audio": 4.0, "audio_visual": 4.1}
    own = {"video": {"logit": 4.0, "bias": 0.0}, "audio": {"logit": 0.1, "bias": 0.0}}
    told = _probabilities(logits, zoo.Card("x", "x", calibrations=own))
    assert told["audio_visual"] == told["video"] == pytest.approx(1 / (1 + math.exp(-2)))
    assert told["audio"] == pytest.approx(1 / (1 + math.exp(-0.4)))
    both = _probabilities(logits, zoo.Card("x", "x", calibrations=own | {"audio_visual": {"logit": 1.0, "bias": 0.0}}))
    assert both["audio_visual"] == pytest.approx(1 / (1 + math.exp(-4.1)))  # as older weights were calibrated
    raw = _probabilities({"audio": 1.0}, zoo.Card("x", "x", calibrations=own))
    assert raw == {"audio": pytest.approx(1 / (1 + math.exp(-0.1)))}


def test_modalities_are_weighed_by_what_they_tell() -> None:
    """Sound tells everything, pictures nothing but shout: calibration turns them down, and the verdict is right."""
    rng = np.random.default_rng(0)
    samples, reports = [], {}
    for k in range(200):
        forged = k % 2 == 0
        sound, picture = (1.0 if forged else -1.0) + rng.normal(0, 0.3), 9 * rng.normal()
        p = {"video": 1 / (1 + math.exp(-picture)), "audio": 1 / (1 + math.exp(-sound)), "audio_visual": 0.5}
        path = Path(f"{k}.mp4")
        spans = [Segment(0.0, 1.0, 1.0, "audio")] if forged else []
        spans += [Segment(0.0, 1.0, 1.0, "video")] if k % 20 == 0 else []
        media = Media(str(path), kind="video", duration=2.0)
        truth = Report(media, "forged" if forged else "authentic", float(forged), 0.5, segments=tuple(spans))
        samples.append(Sample(path, truth, group=str(k)))
        reports[path] = Report(Media(str(path), duration=2.0), "forged", 0.5, 0.0, modalities=p)
    facts = calibration._fit_clips(lambda media: reports[media], samples, "x", 0.0)  # type: ignore[index]
    weights = {key: fit["logit"] for key, fit in facts["calibrations"].items()}
    assert weights["audio"] > 1 > 0.2 > weights["video"]
    assert facts["operating_points"][0]["detected"] > 0.95


def test_calibrate_with_the_wrong_medium(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Picture:
        modality = "image"

    monkeypatch.setattr(zoo, "load_detector", lambda weights: (Picture(), zoo.Card("toy", "toy")))
    with pytest.raises(DataError, match="holds clips, which toy does not judge"):
        calibrate("toy", data, tmp_path / "out.safetensors", progress=False)


def test_model_card(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = zoo.Card(
        "toy", "toy", modality="audio_visual", threshold=0.6, calibrations={"video": {"logit": 2.0, "bias": -1.0}}
    )
    monkeypatch.setattr(zoo, "load_detector", lambda weights: (Loud(), card))
    monkeypatch.setattr(zoo, "facts", lambda weights: {"calibrated_on": {"authentic": 3, "forged": 9, "sha256": "cd"}})
    about = {
        "recipe": {"stage": [{"name": "joint", "steps": 7, "batch": 2, "accumulation": 1}], "crop": 256},
        "data": {"training": 11, "held_out": 3, "sha256": "ab" * 32},
    }
    (tmp_path / "run.json").write_text(
        json.dumps(about | {"recipe_file": "r.toml", "seed": 5, "threads": 2, "seconds": 60})
    )
    (tmp_path / "words.md").write_text("# A title\n")
    rows = [("Val", evaluate(scan, data, progress=False))]
    text = model_card("toy", [tmp_path], rows, tmp_path / "words.md")
    for fact in ("windows of 256 ticks", "sigmoid(2 x logit of video -1)", "segment threshold 0.5", "9 forged clips"):
        assert fact in text
    assert card_table([rows[0][1]]) in text
    (tmp_path / "run.json").write_text(json.dumps(about | {"recipe_file": "r.toml", "seed": 5, "threads": 2}))
    with pytest.raises(DataError, match=f"{tmp_path}: a run that has not come to its end yet"):
        model_card("toy", [tmp_path], rows, tmp_path / "words.md")


def test_through_the_pipeline(tmp_path: Path) -> None:
    lines = []
    for i in range(4):
        loud = [(1.0, 2.0)] if i % 2 else []
        wave(tmp_path / f"{i}.wav", 3.0, loud)
        row = {"path": f"{i}.wav", "kind": "tts" if loud else "authentic", "label": i % 2, "video": [], "audio": loud}
        lines.append(json.dumps(row | {"duration": 3.0, "fps": 25, "picture": False, "group": str(i)}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    session = Session(Loud(), card=CARD)
    row = evaluate(session, tmp_path, progress=False)
    assert session.proposals == 0  # the caller's own session is left alone
    assert row["ap95"] == row["ar10"] == row["auc"] == row["auc_audio"] == 1.0
    assert row["auc_video"] is None
    assert row["false_alarms"] == 0.0
    assert row["frame_f1"] == 1.0
    assert row["threshold"] == 0.7
