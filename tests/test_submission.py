"""Official submission files: what we write passes our own checks, and every damage is named with its cure."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from seamline.cli import app
from seamline.data import submission_check, submission_files
from seamline.data.submission import FORMATS, read_submission, validate_submission, write_submission
from seamline.errors import DataError
from seamline.metrics.protocols import PROTOCOLS, score
from seamline.report import Artifacts, Media, Report, Segment

SIZE = (40, 50)  # height, width


def photos() -> tuple[list[Report], list[Report]]:
    """Truths and predictions of six photos."""
    truths, found = [], []
    for i in range(6):
        mask = np.zeros(SIZE, bool)
        mask[5 : 15 + i, 10:30] = i % 2 == 1
        media = Media(f"/data/{i:06}.png", kind="image", width=SIZE[1], height=SIZE[0])
        truths.append(Report(media, "forged" if i % 2 else "authentic", float(i % 2), mask=mask if i % 2 else None))
        shifted = np.roll(mask, 2, axis=0)
        found.append(
            Report(media, "forged" if i % 2 else "authentic", round(0.3 + 0.07 * i, 4), threshold=0.5, mask=shifted)
        )
    return truths, found


def clips(kind="video", ending="mp4") -> tuple[list[Report], list[Report]]:
    """Truths and predictions of six clips of ten seconds, with five proposals each."""
    truths, found = [], []
    for i in range(6):
        media = Media(f"/data/test/{i:06}.{ending}", kind=kind, duration=10.0)
        spans = (Segment(1.0 + i, 2.0 + i, 1.0, "audio"),) if i % 2 else ()
        truths.append(Report(media, "forged" if i % 2 else "authentic", float(i % 2), segments=spans))
        rows = [(round(0.95 - 0.1 * n - 0.01 * i, 6), 1.0 + i + 0.05 * n, 2.0 + i - 0.02 * n) for n in range(5)]
        found.append(Report(media, "forged" if i % 2 else "authentic", 0.2 + 0.11 * i, proposals=tuple(rows)))
    return truths, found


def pairs(protocol: str) -> tuple[list[Report], list[Report]]:
    if FORMATS[protocol].masks:
        return photos()
    return clips("audio", "flac") if protocol == "asvspoof5" else clips()


def place(protocol: str, folder: Path, name: str = "predictions") -> Path:
    return folder / f"{name}.{'json' if FORMATS[protocol].single else 'zip'}"


def written(protocol: str, folder: Path, ending: str | None = None) -> Path:
    """A good submission."""
    out = place(protocol, folder) if ending is None else folder / (f"predictions.{ending}" if ending else "out")
    return write_submission(protocol, pairs(protocol)[1], out)


# ------------------------------------------------------------------------------------------------ good submissions


@pytest.mark.parametrize("protocol", FORMATS)
def test_what_is_written_passes_the_check_and_scores_as_the_reports_do(protocol: str, tmp_path: Path) -> None:
    truths, found = pairs(protocol)
    path = write_submission(protocol, iter(found), place(protocol, tmp_path))
    assert validate_submission(path, protocol) == []
    assert validate_submission(path, protocol, truths) == []
    assert validate_submission(path, protocol, [t.media.path for t in truths]) == []
    whole = score(protocol, truths, found)
    assert score(protocol, truths, read_submission(path, protocol)) == pytest.approx(whole, abs=1e-6, nan_ok=True)
    assert PROTOCOLS[protocol].headline in whole


@pytest.mark.parametrize("protocol", FORMATS)
def test_the_same_reports_give_the_same_bytes(protocol: str, tmp_path: Path) -> None:
    first, second = (written(protocol, tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    if not FORMATS[protocol].single:
        folder = written(protocol, tmp_path / "c", "")
        with zipfile.ZipFile(first) as file:
            assert {i.filename for i in file.infolist()} == {
                p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
            }
            assert all(file.read(i) == (folder / i.filename).read_bytes() for i in file.infolist())
            assert {i.date_time for i in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert validate_submission(folder, protocol) == []
    assert not list(tmp_path.rglob(".*"))  # nothing half-made is left


def test_the_files_are_those_that_the_organisers_show(tmp_path: Path) -> None:
    out = written("ddl-track1", tmp_path, "")
    assert (out / "prediction.txt").read_text().splitlines()[1] == "000001.png,0.37"
    mask = cv2.imread(str(out / "mask" / "000001.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == SIZE
    assert set(np.unique(mask)) == {0, 255}
    out = written("1m-deepfakes", tmp_path / "m", "")
    assert (out / "prediction.txt").read_text().splitlines()[1] == "000001.mp4;0.31"
    assert json.loads((out / "prediction.json").read_text())["000001.mp4"][0] == [0.94, 2.0, 3.0]
    lavdf = write_submission("lavdf", clips()[1], tmp_path / "lavdf.json", root="/data")
    assert lavdf.read_bytes() == write_submission("lavdf", clips()[1], tmp_path / "again.json").read_bytes()
    rows = json.loads(lavdf.read_text())["test/000001.mp4"]
    assert rows[0] == [0.94, 50.0, 75.0]  # frames
    assert len(rows) == 100
    anet = json.loads(written("activitynet", tmp_path / "u", "json").read_text())
    assert anet["results"]["000001"][0] == {"score": 0.94, "segment": [2.0, 3.0], "label": "Fake"}
    lines = written("asvspoof5", tmp_path / "s", "tsv").read_text().splitlines()
    assert lines[0] == "filename\tcm-score"
    name, value = lines[6].split("\t")
    assert (name, float(value)) == ("000005", pytest.approx(np.log(0.25 / 0.75)))  # forged at .75: low


def test_one_half_of_a_submission_of_1m_deepfakes_is_one(tmp_path: Path) -> None:
    truths, _ = clips()
    out = written("1m-deepfakes", tmp_path, "")
    (out / "prediction.json").rename(tmp_path / "task2.json")
    assert validate_submission(out, "1m-deepfakes", truths) == []
    values = score("1m-deepfakes", truths, read_submission(out, "1m-deepfakes"))
    assert values["auc"] > 0
    assert np.isnan(values["score"])
    assert validate_submission(tmp_path / "task2.json", "1m-deepfakes", truths) == []
    values = score("1m-deepfakes", truths, read_submission(tmp_path / "task2.json", "1m-deepfakes"))
    assert np.isnan(values["auc"])
    assert values["score"] > 0
    assert validate_submission(out / "prediction.txt", "1m-deepfakes", truths) == []


def test_an_empty_finding_is_filled_where_evaluators_stop_at_it(tmp_path: Path) -> None:
    truths, found = clips()
    found = [dataclasses.replace(f, proposals=()) for f in found]
    for protocol in ("1m-deepfakes", "lavdf", "ddl-track2", "activitynet"):
        path = write_submission(protocol, found, place(protocol, tmp_path, protocol))
        assert validate_submission(path, protocol, truths) == []
        assert score(protocol, truths, read_submission(path, protocol))["ap50"] == 0.0


@pytest.mark.parametrize("protocol", FORMATS)
def test_files_that_were_not_judged_may_be_given_a_score(protocol: str, tmp_path: Path) -> None:
    truths, found = pairs(protocol)
    found[1] = Report(found[1].media, "not_applicable")
    path = write_submission(protocol, found, place(protocol, tmp_path), unjudged=0.5)
    assert validate_submission(path, protocol, truths) == []
    assert len(list(read_submission(path, protocol))) == 6


def test_masks_may_be_cut_from_heat_maps_whatever_the_verdict(tmp_path: Path) -> None:
    truths, found = photos()
    heat = [np.where(t.mask, 0.4, 0.1) if t.forged else np.full(SIZE, 0.1) for t in truths]
    timid = [
        dataclasses.replace(f, verdict="inconclusive", mask=np.zeros(SIZE, bool), heatmap=h.astype(np.float32))
        for f, h in zip(found, heat, strict=True)
    ]
    path = write_submission("ddl-track1", timid, tmp_path / "a.zip")
    assert score("ddl-track1", truths, read_submission(path, "ddl-track1"))["f1"] == 0.0
    path = write_submission("ddl-track1", timid, tmp_path / "b.zip", mask_threshold=0.3)
    assert score("ddl-track1", truths, read_submission(path, "ddl-track1"))["f1"] == 1.0
    with pytest.raises(DataError, match=r"000000\.png: has no heat map, where one is to be cut at 0\.3"):
        write_submission("ddl-track1", found, tmp_path / "c.zip", mask_threshold=0.3)


def test_scores_of_asvspoof_files_are_kept_to_the_digit(tmp_path: Path) -> None:
    path = tmp_path / "scores.tsv"
    path.write_text("filename\tcm-score\nE_1\t812.25\nE_2\t-90.5\nE_3\t-91.5\nE_4\t0.1\n")
    truths = [
        Report(Media(f"flac_E/E_{i}.flac", kind="audio"), v, float(v == "forged"))
        for i, v in enumerate(("authentic", "authentic", "forged", "forged"), 1)
    ]
    values = score("asvspoof5", truths, read_submission(path, "asvspoof5"))
    assert values["eer"] == 0.5  # -90.5 and -91.5 are not one score, though both probabilities are 1.0
    assert [float(r.environment["score"]) for r in read_submission(path, "asvspoof5")] == [812.25, -90.5, -91.5, 0.1]
    again = write_submission("asvspoof5", read_submission(path, "asvspoof5"), tmp_path / "again.tsv")
    assert again.read_text() == path.read_text()


def test_a_report_that_cannot_be_submitted_is_named(tmp_path: Path) -> None:
    _, found = photos()
    for wrong, message in (
        (
            dataclasses.replace(found[0], probability=None, verdict="error", error="no picture"),
            r"000000\.png: was not judged \(no picture\), but every",
        ),
        (dataclasses.replace(found[1], mask=None), r"000001\.png: has no mask; scan with --out"),
        (dataclasses.replace(found[1], media=Media("/other/000000.jpg")), r"a second file of the name 000000"),
        (dataclasses.replace(found[1], media=Media("/data/a,b.png")), r"a,b\.png'?: a name with separators"),
    ):
        with pytest.raises(DataError, match=message):
            write_submission(
                "ddl-track1", [*found[2:], *([found[0]] if wrong.probability else []), wrong], tmp_path / "x.zip"
            )
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"'trufor' has no submission files; those that have: ddl-track1"):
        write_submission("trufor", found, tmp_path / "x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(DataError, match="is there already and not empty"):
        write_submission("ddl-track1", found, tmp_path / "full")


# ------------------------------------------------------------------------------------------------- damaged ones


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def run(out: Path) -> None:
        file = out / name if out.is_dir() else out
        file.write_text(change(file.read_text("utf-8")), "utf-8")

    return run


def line(number: int, new: str, name: str = "prediction.txt") -> Callable[[Path], None]:
    def change(text: str) -> str:
        lines = text.split("\n")
        lines[number - 1] = new
        return "\n".join(lines)

    return edit(name, change)


def data(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def run(text: str) -> str:
        spans = json.loads(text)
        change(spans)
        return json.dumps(spans, indent=1)

    return edit("prediction.json", run)


def mask(change: Callable[[np.ndarray], np.ndarray], ending: str = ".png") -> Callable[[Path], None]:
    def run(out: Path) -> None:
        file = out / "mask" / "000001.png"
        _, encoded = cv2.imencode(ending, change(cv2.imread(str(file), cv2.IMREAD_UNCHANGED)))
        file.write_bytes(encoded.tobytes())

    return run


def renamed(old: str, new: str) -> Callable[[Path], None]:
    return lambda out: (out / old).rename(out / new) and None


def removed(name: str) -> Callable[[Path], None]:
    return lambda out: (out / name).unlink()


def encoded(encoding: str) -> Callable[[Path], None]:
    def run(out: Path) -> None:
        file = out / "prediction.txt"
        text = file.read_text()
        file.write_bytes((text.replace("000000", "Zürich") if encoding == "latin-1" else text).encode(encoding))

    return run


def set_rows(*rows: object, name: str = "000001.mp4") -> Callable[[Path], None]:
    return data(lambda spans: spans.__setitem__(name, list(rows)))


T1, T2, M1 = "ddl-track1", "ddl-track2", "1m-deepfakes"
DAMAGES = {
    "file missing": (T1, removed("prediction.txt"), r"^prediction\.txt: is missing; add it"),
    "predictions.txt": (
        T1,
        renamed("prediction.txt", "predictions.txt"),
        r"^prediction\.txt: is missing, but there is predictions\.txt; name it prediction\.txt",
    ),
    "masks/": (T1, renamed("mask", "masks"), r"^mask/: is missing, but there is masks/; name the folder mask$"),
    "json missing": (T2, removed("prediction.json"), r"^prediction\.json: is missing"),
    "semicolon": (
        T1,
        line(2, "000001.png;0.9"),
        r"^prediction\.txt, line 2: no comma in '000001\.png;0\.9', but a semi",
    ),
    "comma": (
        M1,
        line(2, "000001.mp4,0.9"),
        r"^prediction\.txt, line 2: no semicolon in .* but a comma; put a semicolon",
    ),
    "decimal comma": (T1, line(3, "000002.png,0,9"), r"line 3: more than two fields in .*decimal point"),
    "heading": (
        T1,
        edit("prediction.txt", lambda t: "name,score\n" + t),
        r"line 1: 'score' is not a number, as if .*head",
    ),
    "word": (T1, line(4, "000003.png,fake"), r"line 4: 'fake' is not a number"),
    "nan": (T1, line(4, "000003.png,nan"), r"line 4: the score is nan; give a finite score"),
    "infinite": (M1, line(4, "000003.mp4;inf"), r"line 4: the score is inf"),
    "above one": (T1, line(5, "000004.png,93.1"), r"line 5: the score of 000004\.png is 93\.1; give a probability"),
    "logit": (M1, line(5, "000004.mp4;-2.5"), r"line 5: the score of 000004\.mp4 is -2\.5"),
    "blank line": (T1, edit("prediction.txt", lambda t: t.replace("000003", "\n000003")), r"line 4: a blank line"),
    "space": (T1, line(1, "000000.png ,0.3"), r"line 1: the name is '000000\.png '"),
    "empty": (T1, edit("prediction.txt", lambda t: ""), r"^prediction\.txt: holds no scores"),
    "same name": (T1, line(3, "000001.png,0.4"), r"line 3: 000001\.png again, after line 2"),
    "missing name": (
        T1,
        edit("prediction.txt", lambda t: t.split("\n", 1)[1]),
        r"txt: 000000\.png is missing; every file",
    ),
    "unknown name": (T1, line(1, "999999.png,0.1"), r"line 1: 999999\.png: there is no truth of this name"),
    "folder in name": (T1, line(1, "test/000000.png,0.1"), r"line 1: test/000000\.png stands for 000000\.png"),
    "other ending": (T2, line(1, "000000.avi,0.1"), r"line 1: 000000\.avi: there is no truth"),
    "byte order mark": (T1, encoded("utf-8-sig"), r"line 1: begins with the byte order mark of utf-8"),
    "utf-16": (T1, encoded("utf-16"), r"line 1: begins with the byte order mark of utf-16"),
    "latin-1": (T1, encoded("latin-1"), r"^prediction\.txt, line 1: is not UTF-8; save it as UTF-8"),
    "extra file": (
        T1,
        lambda out: (out / "notes.md").write_text("x") and None,
        r"^notes\.md: is no part of a submission",
    ),
    "decisions": (
        T1,
        edit("prediction.txt", lambda t: re.sub(r",0\.(\d)\d*", lambda m: f",{int(m[1]) // 5}", t)),
        r"all scores are 0 or 1; AUC wants a ranking",
    ),
    "constant": (T1, edit("prediction.txt", lambda t: re.sub(r",.*", ",0.5", t)), r"all scores are the same"),
    "mask missing": (T1, removed("mask/000003.png"), r"^mask/000003\.png: the mask of 000003\.png is missing"),
    "mask size": (T1, mask(lambda m: m[:20]), r"^mask/000001\.png: is 50x20, the photo 50x40; give it the size of"),
    "mask colour": (T1, mask(lambda m: np.dstack([m] * 3)), r"^mask/000001\.png: has the mode RGB; save it as 8-bit"),
    "mask alpha": (T1, mask(lambda m: np.dstack([m] * 4)), r"^mask/000001\.png: has the mode RGBA"),
    "mask of 16 bit": (T1, mask(lambda m: m.astype(np.uint16) * 257), r"^mask/000001\.png: has the mode I;16"),
    "mask of ones": (T1, mask(lambda m: m // 255), r"its largest value is 1, which reads as authentic everywhere"),
    "soft mask": (T1, mask(lambda m: cv2.blur(m, (5, 5))), r"^mask/000001\.png: is not only black and white"),
    "jpeg inside": (T1, mask(lambda m: m, ".jpg"), r"^mask/000001\.png: is JPEG inside; save it as PNG"),
    "jpeg": (T1, renamed("mask/000001.png", "mask/000001.jpg"), r"^mask/000001\.jpg: ends in '\.jpg', not in \.png"),
    "mask cut": (
        T1,
        lambda out: (out / "mask/000001.png").write_bytes((out / "mask/000001.png").read_bytes()[:60]) and None,
        r"^mask/000001\.png: is .*(truncated|damaged)",
    ),
    "not a picture": (
        T1,
        lambda out: (out / "mask/000001.png").write_text("x") and None,
        r"^mask/000001\.png: is not a picture",
    ),
    "lone mask": (
        T1,
        edit("prediction.txt", lambda t: t.split("\n", 1)[1]),
        r"^mask/000000\.png: prediction\.txt has no line",
    ),
    "mask folder": (
        T1,
        lambda out: [(out / "mask/x").mkdir(), (out / "mask/000001.png").rename(out / "mask/x/000001.png")] and None,
        r"^mask/x/000001\.png: is in a folder within mask/",
    ),
    "not json": (T2, edit("prediction.json", lambda t: t[:-4]), r"^prediction\.json, line \d+: not JSON: "),
    "comma at the end": (T2, edit("prediction.json", lambda t: t[:-3] + ",}"), r"^prediction\.json, line 7: not JSON"),
    "more after the end": (T2, edit("prediction.json", lambda t: t + "{}"), r"line 9: not JSON: more after the end"),
    "comment": (
        T2,
        edit("prediction.json", lambda t: t.replace(",\n", ", // next\n", 1)),
        r"^prediction\.json, line 2: not JSON: expected a name in double quotes",
    ),
    "one quote": (
        T2,
        edit("prediction.json", lambda t: t.replace('"', "'")),
        r"line 2: not JSON: expected a name in",
    ),
    "no colon": (T2, edit("prediction.json", lambda t: t.replace(":", "", 1)), r"line 2: not JSON: expected :"),
    "a list": (
        T2,
        edit("prediction.json", lambda t: "[]"),
        r"^prediction\.json: the JSON is not an object \{name: \[...\]\}",
    ),
    "same key": (
        T2,
        edit("prediction.json", lambda t: t.replace("000002", "000001")),
        r"^prediction\.json, line 4: the name '000001\.mp4' twice",
    ),
    "not a list": (T2, data(lambda s: s.__setitem__("000001.mp4", 0.5)), r"line \d+: '000001\.mp4': float, not a list"),
    "two numbers": (
        T2,
        set_rows([1.0, 2.0]),
        r"'000001\.mp4', span 1: \[1\.0, 2\.0\] is not \[confidence, start, end\]",
    ),
    "text": (T2, set_rows(["0.9", 1, 2]), r"'000001\.mp4', span 1: .*is not \[conf"),
    "json nan": (T2, set_rows([float("nan"), 1, 2]), r"'000001\.mp4', span 1: \[NaN, 1, 2\] is not .*finite numbers"),
    "order": (
        T2,
        set_rows([1.5, 2.5, 0.9]),
        r"line \d+: 000001\.mp4: span 1 has the confidence 1\.5; .*the order is conf",
    ),
    "ends first": (T2, set_rows([0.9, 2.5, 1.5]), r"000001\.mp4: span 1 ends at 1\.5, where it starts at 2\.5"),
    "no length": (M1, set_rows([0.9, 2.5, 2.5]), r"000001\.mp4: span 1 ends at 2\.5, where it starts at 2\.5"),
    "negative": (T2, set_rows([0.9, -1.0, 2.0]), r"000001\.mp4: span 1 starts at -1; times count from 0"),
    "unsorted": (
        T2,
        set_rows([0.1, 1, 2], [0.9, 1, 2]),
        r"mp4: span 2 has a higher confidence than span 1; sort by",
    ),
    "too late": (
        T2,
        set_rows([0.9, 8.0, 11.5]),
        r"000001\.mp4: 1 spans end after the clip, at 11\.5 of 10 seconds; clip",
    ),
    "frames": (T2, set_rows([0.9, 50, 75]), r"end after the clip, at 75 of 10 seconds; times are seconds, not frames"),
    "no entry": (
        T2,
        data(lambda s: s.pop("000001.mp4")),
        r"^prediction\.json: 000001\.mp4 has a score, but no entry here",
    ),
    "no line": (
        T2,
        edit("prediction.txt", lambda t: t.split("\n", 1)[1]),
        r"^prediction\.txt: 000000\.mp4 has spans, but no",
    ),
    "empty list": (
        M1,
        set_rows(),
        r"000001\.mp4: has an empty list, at which the evaluator stops; give \[0\.0, 0\.0, 0\.01\]",
    ),
}


@pytest.mark.parametrize(("protocol", "damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_submission_is_refused_with_the_fault_named(protocol, damage, message, tmp_path: Path) -> None:
    truths, _ = pairs(protocol)
    out = written(protocol, tmp_path, "")
    damage(out)
    faults = validate_submission(out, protocol, truths)
    named = [fault for fault in faults if re.search(message, str(fault))]
    assert named, [str(fault) for fault in faults]
    assert len(faults) <= 4, [str(fault) for fault in faults]  # and nothing is cried over that is well
    if named[0].grade == "unreadable":
        with pytest.raises(DataError, match=re.escape(named[0].cause.removeprefix("is "))):
            list(read_submission(out, protocol, strict=False))


SINGLE = {
    "tsv heading": (
        "asvspoof5",
        edit("", lambda t: t.replace("cm-score", "score")),
        r", line 1: the heading is 'filename\\tscore'; begin with filename, a tab, cm-score",
    ),
    "tsv without heading": ("asvspoof5", edit("", lambda t: t.split("\n", 1)[1]), r"line 1: the heading is '000000\\t"),
    "tsv of spaces": ("asvspoof5", line(3, "000001 0.5", ""), r"line 3: no tab in '000001 0\.5'"),
    "ending in the name": ("asvspoof5", line(3, "000001.flac\t0.5", ""), r"line 3: 000001\.flac stands for 000001"),
    "name without split": (
        "lavdf",
        edit("", lambda t: t.replace("test/000002", "000002")),
        r"line 4: 000002\.mp4 stands for test/000002\.mp4; write test/000002\.mp4",
    ),
    "few proposals": (
        "lavdf",
        edit("", lambda t: json.dumps({name: rows[:99] for name, rows in json.loads(t).items()})),
        r"000000\.mp4: 99 proposals; the evaluator stops below 100",
    ),
    "lavdf in seconds twice over": (
        "lavdf",
        edit(
            "",
            lambda t: json.dumps({n: [[c, s * 25, e * 25] for c, s, e in rows] for n, rows in json.loads(t).items()}),
        ),
        r"spans end after the clip, at \d+ of 10 seconds; times are seconds, not frames|clip spans to the end",
    ),
    "results twice over": (
        "activitynet",
        edit("", lambda t: t.replace('"results": {', '"results": {"a": [], "a": [], ')),
        r"line 1: the name 'a' twice",
    ),
    "results are a list": (
        "activitynet",
        edit("", lambda t: '{"results": []}'),
        r"not an object \{\"results\": \{name",
    ),
    "no results": ("activitynet", edit("", lambda t: t.replace("results", "result")), r"not an object \{\"results\""),
    "segment missing": (
        "activitynet",
        edit("", lambda t: t.replace("segment", "span")),
        r"span 1: .* is not \{\"score\", ",
    ),
}


@pytest.mark.parametrize(("protocol", "damage", "message"), SINGLE.values(), ids=SINGLE)
def test_a_damaged_result_file_is_refused_with_the_fault_named(protocol, damage, message, tmp_path: Path) -> None:
    truths, _ = pairs(protocol)
    out = written(protocol, tmp_path, "json")
    damage(out)
    faults = validate_submission(out, protocol, truths)
    assert any(re.search(message, str(fault)) for fault in faults), [str(fault) for fault in faults]


def zipped(path: Path, members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change:
                change(info)
            file.writestr(info, content)
    return path


def members(protocol: str, folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(written(protocol, folder)) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


def test_damaged_zips_are_refused_with_the_fault_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = members(T2, tmp_path)

    def faults(content: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> str:
        path = zipped(tmp_path / "damaged.zip", content, change)
        return "\n".join(map(str, validate_submission(path, T2, clips()[0])))

    assert faults(good) == ""
    nested = {f"submission/{name}": content for name, content in good.items()}
    assert (
        faults(nested)
        == "submission/: all files are in a folder submission; zip the files themselves, not the folder that holds them"
    )
    with pytest.raises(DataError, match="all files are in a folder submission"):
        list(read_submission(tmp_path / "damaged.zip", T2))
    assert len(list(read_submission(tmp_path / "damaged.zip", T2, strict=False))) == 6
    for name in ("../prediction.txt", "/etc/prediction.txt", "mask\\..\\x", "C:/prediction.txt"):
        assert "leads out of the folder" in faults({**good, name: b"x"})
    assert "__MACOSX/._prediction.txt: a file of the operating system; leave it out" in faults(
        {**good, "__MACOSX/._prediction.txt": b"x"}
    )

    def link(info: zipfile.ZipInfo) -> None:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16

    assert "prediction.txt: a link, not a file" in faults(good, link)
    path = tmp_path / "twice.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in good.items():
            file.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("prediction.txt", good["prediction.txt"])
    assert "prediction.txt: is in the zip twice" in str(validate_submission(path, T2)[0])

    flagged = bytearray((zipped(tmp_path / "locked.zip", good)).read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        flagged[flagged.index(mark) + offset] |= 1
    (tmp_path / "locked.zip").write_bytes(flagged)
    assert "encrypted; zip without a password" in str(validate_submission(tmp_path / "locked.zip", T2)[0])

    broken = bytearray(zipped(tmp_path / "broken.zip", good).read_bytes())
    broken[60:70] = b"0123456789"
    (tmp_path / "broken.zip").write_bytes(broken)
    assert re.search(
        r"prediction\.txt: cannot be (read|unpacked)", str(validate_submission(tmp_path / "broken.zip", T2)[0])
    )
    (tmp_path / "text.zip").write_text("no zip")
    assert "the name ends in .zip, but it is not a zip" in str(validate_submission(tmp_path / "text.zip", T2)[0])
    assert "there is no such file" in str(validate_submission(tmp_path / "gone.zip", T2)[0])

    monkeypatch.setattr(submission_files, "FREE", 100)
    assert "prediction.txt: unpacks to 20000 bytes" in faults({**good, "prediction.txt": b"0" * 20000})
    monkeypatch.undo()
    monkeypatch.setattr(submission_files, "MOST_TEXT", 50)
    assert re.search(r"prediction\.json: \d+ bytes; at most 50 are taken; list fewer spans", faults(good))
    monkeypatch.setattr(submission_files, "MOST_MEMBERS", 1)
    assert "2 files in a zip, where at most 1 are allowed" in faults(good)


def test_a_zip_that_lies_about_its_sizes_is_not_unpacked_beyond_the_limit(tmp_path: Path, monkeypatch) -> None:
    content = zipped(tmp_path / "lie.zip", {"prediction.txt": b"0" * 10000, "prediction.json": b"{}"}).read_bytes()
    lie = bytearray(content)
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = lie.index(mark) + offset
        lie[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "lie.zip").write_bytes(lie)
    monkeypatch.setattr(submission_files, "MOST_TEXT", 1000)
    faults = validate_submission(tmp_path / "lie.zip", T2)
    assert faults[0].file == "prediction.txt"
    assert faults[0].grade == "unreadable"


def test_pictures_that_are_too_large_are_refused_by_their_headers(tmp_path: Path, monkeypatch) -> None:
    out = written(T1, tmp_path, "")
    monkeypatch.setattr(submission_check.limits, "MOST_PIXELS", 1000)
    faults = validate_submission(out, T1)
    assert str(faults[0]) == "mask/000000.png: 50x40 pixels are too many; save it anew"


def test_many_faults_of_one_kind_are_counted_and_inverted_scores_are_noticed(tmp_path: Path) -> None:
    names = [f"{i:06}.mp4" for i in range(60)]
    truths = [Report(Media(n), "forged" if i % 2 else "authentic", i % 2) for i, n in enumerate(names)]
    out = tmp_path / "prediction.txt"
    out.write_text("".join(f"{n};{0.9 - 0.5 * (i % 2) + i / 1000}\n" for i, n in enumerate(names)))
    faults = validate_submission(out, M1, truths)
    assert [f.grade for f in faults] == ["doubtful"]
    assert "the AUC is 0.00, as if scores were inverted; a high score means forged" in str(faults[0])
    faults = validate_submission(out, M1, [*truths, *(Report(Media(f"x{i}.mp4"), "forged") for i in range(50))])
    assert len(faults) == 22
    assert str(faults[20]) == "prediction.txt: and 30 more like the 20 above; every file needs an entry"


def test_one_damaged_line_is_one_fault(tmp_path: Path) -> None:
    for protocol, ending, separator in ((T1, "png", ";"), (T2, "mp4", ";"), (M1, "mp4", ",")):
        out = written(protocol, tmp_path / protocol, "")
        line(2, f"000001.{ending}{separator}0.5")(out)
        (fault,) = validate_submission(out, protocol, pairs(protocol)[0])
        assert (fault.file, fault.line, fault.grade) == ("prediction.txt", 2, "unreadable")


def test_hostile_bytes_are_faults_and_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for protocol in FORMATS:
        whole = written(protocol, tmp_path / protocol).read_bytes()
        for _ in range(25):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(damaged), 12):
                damaged[at] = rng.integers(256)
            path = tmp_path / protocol / "x.zip"
            path.write_bytes(damaged[: int(rng.integers(1, len(damaged) + 1))])
            for fault in validate_submission(path, protocol, pairs(protocol)[0]):
                assert fault.cause
                assert fault.remedy
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100000)
    assert "not JSON" in str(validate_submission(deep, "lavdf")[0]) or "nested" in str(
        validate_submission(deep, "lavdf")[0]
    )


# --------------------------------------------------------------------------------------------------------- command


def test_the_command_writes_checks_and_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines, run = [], CliRunner()
    for folder in ("real", "fake", "masks", "scan"):
        (tmp_path / folder).mkdir()
    for i in range(6):
        forged = i % 2 == 1
        path = tmp_path / ("fake" if forged else "real") / f"{i:06}.png"
        cv2.imwrite(str(path), rng.integers(0, 255, (*SIZE, 3), np.uint8))
        area = np.zeros(SIZE, np.uint8)
        area[5:20, 10:30] = 255 if forged else 0
        found = tmp_path / "scan" / path.name
        cv2.imwrite(str(found), area)
        if forged:
            cv2.imwrite(str(tmp_path / "masks" / path.name), area)
        report = Report(
            Media(str(path), kind="image", width=SIZE[1], height=SIZE[0]),
            "forged" if forged else "authentic",
            0.9 if forged else 0.1,
            artifacts=Artifacts(mask=str(found)),
        )
        lines.append(report.to_json())
    (tmp_path / "reports.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out.zip"
    result = run.invoke(app, ["submission", "write", str(tmp_path / "reports.jsonl"), str(out), "--protocol", T1])
    assert (result.exit_code, result.stdout.strip()) == (0, str(out))
    result = run.invoke(app, ["submission", "check", str(out), "--protocol", T1, "--data", str(tmp_path)])
    assert (result.exit_code, result.stdout.strip()) == (0, f"{out}: no fault under ddl-track1")
    result = run.invoke(
        app, ["submission", "score", str(out), "--protocol", T1, "--data", str(tmp_path), "--draws", "20"]
    )
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == "final 1.00000 [1.0000, 1.0000]"
    result = run.invoke(app, ["submission", "check", str(out), "--protocol", T1, "--names", str(tmp_path / "real")])
    assert result.exit_code == 2
    assert "fault: prediction.txt, line 2: 000001.png: there is no truth of this name" in result.stdout
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"{i:06}.png" for i in range(7)))
    result = run.invoke(app, ["submission", "check", str(out), "--protocol", T1, "--names", str(names)])
    assert result.exit_code == 2
    assert result.stdout.splitlines() == [
        "fault: prediction.txt: 000006.png is missing; every file needs an entry",
        f"{out}: a fault under ddl-track1",
    ]
    (tmp_path / "reports.jsonl").write_text(lines[0] + "\n{}\n")
    result = run.invoke(app, ["submission", "write", str(tmp_path / "reports.jsonl"), str(out), "--protocol", T1])
    assert result.exit_code == 2
    assert "reports.jsonl, line 2: not a seamline.report/1 report" in result.stderr
    assert io.BytesIO(out.read_bytes()).read(2) == b"PK"  # the old one is still there, whole
