"""Evidence bundles: what is in them, that they repeat, and that whatever was changed is named."""

from __future__ import annotations

import dataclasses
import hashlib
import html.parser
import json
import re
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.testing
from PIL import Image, PngImagePlugin

from seamline import SeamlineError, Session, demo, evidence, pipeline, provenance, zoo
from seamline.cli import app
from seamline.detectors.loupe import build
from seamline.errors import MediaError
from seamline.evidence import bundle, page, record
from seamline.evidence.page import _of_hundred
from seamline.evidence.verify import _compared
from tests.copied import WEIGHED, shown_twice
from tests.films import film, picture, tone
from tests.toys import CARD, POINT, Red, Spans

TALKER = Path(zoo.__file__).parent / "samples" / "talker-forged.mp4"
RUN_PARTS = {"run.json", "report.html", "SHA256SUMS"}  # what holds the time of a scan


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """The networks are tiny: on a busy machine their threads would wait for each other far longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reds(path: Path, **save: Any) -> Path:
    """A dull photo with one red box."""
    rgb = np.random.default_rng(0).integers(0, 90, (150, 200, 3), np.uint8)
    rgb[40:100, 120:180, 0] = 250
    Image.fromarray(rgb).save(path, **save)
    return path


def photos() -> Session:
    card = dataclasses.replace(CARD, operating_points=(POINT,))
    return Session(Red(), card=card, isolate=False)


def clips() -> Session:
    return Session(Spans(), card=CARD, isolate=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Loupe with random weights, which calls every photo forged, in a tenth of its pixels."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    detector = build("loupe-tiny")
    heatmap = Session(detector, isolate=False)(np.array(Image.open(reds(folder / "photo.png")))).heatmap
    assert heatmap is not None
    zoo.save(
        detector, folder / "tiny.safetensors", calibration=[1.0, 100.0], mask_threshold=float(np.quantile(heatmap, 0.9))
    )
    return folder / "tiny.safetensors"


@pytest.fixture(scope="module")
def made(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A photo and its bundle. Do not change them."""
    folder = tmp_path_factory.mktemp("made")
    file = reds(folder / "photo.png")
    result = run("scan", file, "--model", weights, "--bundle", folder / "bundles")
    assert result.exit_code == 0, result.output
    return file, folder / "bundles" / "photo.png"


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of two seconds without a face."""
    path = tmp_path_factory.mktemp("short") / "short.mp4"
    film(path, [picture(i) for i in range(50)], tone(2.0))
    return path


@pytest.fixture
def copied(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same, to be changed."""
    return shutil.copy(made[0], tmp_path / "photo.png"), shutil.copytree(made[1], tmp_path / "bundle")


def run(*words: object) -> Any:
    return typer.testing.CliRunner().invoke(app, [str(word) for word in words])


def resealed(folder: Path) -> None:
    """Make the manifest fit what is there, as a forger would."""
    (folder / "SHA256SUMS").write_bytes(bundle.manifest(folder))


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    told = json.loads((folder / "report.json").read_bytes())
    change(told)
    (folder / "report.json").write_bytes(record.canonical(told))


# -------------------------------------------------------------------------------------------------- what is in a bundle


def test_a_photo_s_bundle_holds_everything(made: tuple[Path, Path]) -> None:
    file, folder = made
    names = {path.name for path in folder.iterdir()}
    pictures = {"original.jpg", "heat.jpg", "heatmap.png", "mask.png", "marked.jpg", "overlay.png"}
    assert names == pictures | {"report.json", "report.html", "run.json", "SHA256SUMS"}
    told = json.loads((folder / "report.json").read_bytes())
    assert told["report"]["media"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["report"]["media"]["path"] == "photo.png"  # no folder, which may name a person
    assert str(folder.parent) not in (folder / "report.json").read_text()
    assert told["examined"]["tiles"] == [[0, 0, 200, 150]]
    assert told["report"]["artifacts"]["mask"] == "mask.png"
    with Image.open(folder / "mask.png") as mask:
        assert (mask.size, mask.mode) == ((200, 150), "L")
    settings = told["settings"]
    plain = {key: value for key, value in settings.items() if key != "sha256"}
    assert settings["sha256"] == hashlib.sha256(record.canonical(plain)).hexdigest()
    assert set(json.loads((folder / "run.json").read_bytes())) == {"utc", "seconds"}


def test_the_record_is_canonical(made: tuple[Path, Path]) -> None:
    data = (made[1] / "report.json").read_bytes()
    assert record.canonical(json.loads(data)) == data
    assert hashlib.sha256(data).hexdigest() in (made[1] / "report.html").read_text()


def test_the_manifest_is_what_sha256sum_reads(made: tuple[Path, Path]) -> None:
    sums = bundle.read_manifest((made[1] / "SHA256SUMS").read_bytes())
    assert sums == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in made[1].iterdir() if p.name != "SHA256SUMS"
    }
    if tool := shutil.which("sha256sum"):
        subprocess.run([tool, "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=made[1], check=True)


def test_two_runs_on_a_clip_give_the_same_bytes(short: Path, tmp_path: Path) -> None:
    for name in "ab":
        evidence.write(clips(), short, tmp_path / name)
    for part in (tmp_path / "a").iterdir():
        if part.name not in RUN_PARTS:
            assert (tmp_path / "b" / part.name).read_bytes() == part.read_bytes(), part.name


def test_two_runs_give_the_same_bytes_but_for_the_time(made: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    run("scan", made[0], "--model", weights, "--bundle", tmp_path)
    for part in made[1].iterdir():
        if part.name not in RUN_PARTS:
            assert (tmp_path / "photo.png" / part.name).read_bytes() == part.read_bytes(), part.name
    shown = [(folder / "report.html").read_text() for folder in (made[1], tmp_path / "photo.png")]
    assert len({re.sub(r"[\dT:-]{19}Z|[\d.]+ s\b", "", text) for text in shown}) == 1


def test_a_clip_s_bundle_says_what_was_seen_and_heard(tmp_path: Path) -> None:
    first = evidence.write(clips(), TALKER, tmp_path / "a")
    assert first.artifacts.timeline == str(tmp_path / "a" / "timeline.png")
    told = json.loads((tmp_path / "a" / "report.json").read_bytes())
    assert [(s["start"], s["end"], s["modality"]) for s in told["report"]["segments"]] == [
        (1.4, 2.4, "video"),
        (3.48, 4.16, "audio"),
    ]
    ticks = told["examined"]["ticks"]
    assert 5.84 <= ticks / 25 < 6
    assert told["examined"]["windows"] == [{"start": 0, "end": ticks / 25, "faces": [0], "sound": True}]
    assert told["faces"][0]["spans"] == [[0, 5.84]]
    assert len(told["curves"]["video"]) == ticks
    assert {"codec": "h264", "width": 352}.items() <= told["streams"]["video"].items()
    assert told["player"]["how"] == "embedded"
    assert 1.88 in [frame["time"] for frame in told["frames"]]  # the middle of the first segment
    assert all((tmp_path / "a" / frame["name"]).is_file() for frame in told["frames"])
    assert evidence.verify(tmp_path / "a", TALKER, session=clips()).same


def test_isolated_decoding_gives_the_same_record(short: Path) -> None:
    told = [record.examine(Session(Spans(), card=CARD, isolate=isolate), short)[1] for isolate in (True, False)]
    for one in told:
        del one["report"]["environment"]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("size", "codec", "how"), [(2**23, "libx264", "embedded"), (10, "libx264", "beside"), (2**23, "mpeg4", "strip")]
)
def test_how_a_clip_is_played_depends_on_its_size_and_codec(
    size: int, codec: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "EMBEDDED", size)
    file = tmp_path / "short.mp4"
    film(file, [picture(i) for i in range(10)], tone(0.4), codec=codec)
    evidence.write(clips(), file, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "report.json").read_bytes())
    assert told["player"]["how"] == how
    text = (tmp_path / "out" / "report.html").read_text()
    assert told["player"]["why"] in text
    assert ('src="data:video/mp4;base64,' in text, 'src="media.mp4"' in text) == (how == "embedded", how == "beside")
    assert (tmp_path / "out" / "media.mp4").exists() == (how == "beside")
    assert evidence.verify(tmp_path / "out", file, session=clips()).same


def test_a_file_in_an_archive_has_a_bundle(tmp_path: Path) -> None:
    file = reds(tmp_path / "in.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(file, "folder/in.png")
    (report,) = evidence.scan(photos(), [tmp_path / "a.zip"], tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    assert report.verdict == "forged", report.error
    assert evidence.verify(folder, file, session=photos()).same


def test_what_could_not_be_scanned_has_no_bundle_and_the_batch_goes_on(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG and no more")
    good = reds(tmp_path / "good.png")
    bad, fine = evidence.scan(photos(), [tmp_path / "bad.png", good], tmp_path / "out")
    assert (bad.verdict, fine.verdict) == ("error", "forged")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


# ---------------------------------------------------------------------------------------------- folders, safe and whole

NAMES = [
    "a.png",
    "b/a.png",
    "A.PNG",
    "../..",
    "con.jpg",
    "-rf.png",
    ".hidden.png",
    "a\nb.png",
    "x" * 5000 + ".png",
    "\u202egnp.exe",
]


def test_names_of_folders_are_plain_and_their_own() -> None:
    names = evidence.folders([*NAMES, "é.png", "plain-1_2.jpg", b"\xff.png".decode("utf-8", "surrogateescape")])
    assert len({name.casefold() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,90}", name) for name in names), names
    assert names[-2] == "plain-1_2.jpg"
    assert names[4].startswith("con.jpg-")  # a device on Windows


def test_a_folder_that_is_no_bundle_is_left_alone(tmp_path: Path) -> None:
    file, out = reds(tmp_path / "a.png"), tmp_path / "out"
    out.mkdir()
    (out / "novel.txt").write_text("chapter one")
    with pytest.raises(SeamlineError, match="is no bundle"):
        evidence.write(photos(), file, out)
    assert [path.name for path in out.iterdir()] == ["novel.txt"]
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(SeamlineError, match="is no bundle"):
        evidence.write(photos(), file, tmp_path / "link")
    evidence.write(photos(), file, tmp_path / "mine")
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(SeamlineError, match="is no bundle"):
        evidence.write(photos(), file, tmp_path / "mine")


def test_a_bundle_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = reds(tmp_path / "a.png"), tmp_path / "out"
    evidence.write(photos(), file, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    evidence.write(photos(), file, out)
    assert {path.name for path in out.iterdir()} == before.keys()
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fails(*_: Any) -> bytes:
        raise OSError("the disk is full")

    monkeypatch.setattr(page, "render", fails)
    with pytest.raises(OSError, match="full"):
        evidence.write(photos(), file, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out"]


# ------------------------------------------------------------------------------------------------------------ verifying


def test_an_honest_bundle_is_the_same(made: tuple[Path, Path], weights: Path) -> None:
    result = run("verify", made[1], made[0], "--model", weights, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["same"], found["repeats"], found["differences"]) == (True, True, [])
    said = run("verify", made[1] / "report.json", made[0], "--model", weights)
    assert said.exit_code == 0
    assert said.stdout.startswith("same: ")


def test_a_renamed_file_is_the_same_file(copied: tuple[Path, Path], weights: Path) -> None:
    file = copied[0].rename(copied[0].with_name("renamed.jpg"))
    assert run("verify", copied[1], file, "--model", weights).exit_code == 0


def file_byte(file: Path, folder: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def json_edited(file: Path, folder: Path) -> None:
    edited(folder, lambda told: told["report"].update(verdict="authentic", probability=0.02))


def json_and_sums(file: Path, folder: Path) -> None:
    json_edited(file, folder)
    resealed(folder)


def paint(path: Path) -> None:
    with Image.open(path) as picture:
        pixels = np.array(picture)
    pixels[:20, :20] = 255 - pixels[:20, :20]
    Image.fromarray(pixels).save(path)


def picture_edited(file: Path, folder: Path) -> None:
    paint(folder / "heatmap.png")


def picture_and_sums(file: Path, folder: Path) -> None:
    paint(folder / "heatmap.png")
    resealed(folder)


def page_edited(file: Path, folder: Path) -> None:
    path = folder / "report.html"
    path.write_text(path.read_text().replace("Signs of forgery", "No forgery found"))
    resealed(folder)


def other_version(file: Path, folder: Path) -> None:
    edited(folder, lambda told: told["report"]["environment"].update(torch="2.6.0"))


def setting(file: Path, folder: Path) -> None:
    edited(folder, lambda told: told["settings"].update(mask_threshold=0.5))
    resealed(folder)


def part_gone(file: Path, folder: Path) -> None:
    (folder / "mask.png").unlink()


def part_more(file: Path, folder: Path) -> None:
    (folder / "other.png").write_bytes(b"")


def time_edited(file: Path, folder: Path) -> None:
    (folder / "run.json").write_bytes(record.canonical({"utc": "1999-12-31T00:00:00Z", "seconds": 1.0}))
    resealed(folder)


@pytest.mark.parametrize(
    ("change", "kinds", "repeats"),
    [
        (file_byte, {"file"}, None),
        (json_edited, {"report", "result", "page"}, False),
        (json_and_sums, {"result", "page"}, False),
        (picture_edited, {"picture"}, True),
        (picture_and_sums, {"picture"}, True),
        (page_edited, {"page"}, True),
        (other_version, {"report", "version", "page"}, True),
        (setting, {"settings", "page"}, True),
        (part_gone, {"picture"}, True),
        (part_more, {"manifest"}, True),
        (time_edited, {"page"}, True),
    ],
)
def test_what_was_changed_is_named(
    change: Callable[[Path, Path], None],
    kinds: set[str],
    repeats: bool | None,
    copied: tuple[Path, Path],
    weights: Path,
) -> None:
    change(*copied)
    result = run("verify", copied[1], copied[0], "--model", weights, "--json")
    found = json.loads(result.stdout)
    assert {difference["kind"] for difference in found["differences"]} == kinds, found
    assert (result.exit_code, found["same"], found["repeats"]) == (1, False, repeats)
    said = run("verify", copied[1], copied[0], "--model", weights)
    assert all(f"  {kind}: " in said.stdout for kind in kinds), said.stdout


def test_other_weights_are_named(made: tuple[Path, Path], tmp_path: Path) -> None:
    zoo.save(build("loupe-tiny"), tmp_path / "tiny.safetensors", calibration=[1.0, 99.0])
    result = run("verify", made[1], made[0], "--model", tmp_path / "tiny.safetensors")
    assert result.exit_code == 1
    assert "  weights: " in result.stdout


def test_a_bundle_of_another_version_repeats_and_says_so(
    made: tuple[Path, Path], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = pipeline._versions()
    monkeypatch.setattr(pipeline, "_versions", lambda: versions | {"pillow": "99.0", "platform": "Plan 9"})
    found = evidence.verify(made[1], made[0], model=weights)
    assert [(d.kind, d.where, d.now) for d in found.differences] == [("version", "pillow", "99.0")]
    assert found.repeats
    assert any("Plan 9" in note for note in found.notes)


def test_a_report_alone_can_be_verified(made: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    line = tmp_path / "line.jsonl"
    run("scan", made[0], "--model", weights, "--json", line)
    assert run("verify", line, made[0], "--model", weights).exit_code == 0
    line.write_text(line.read_text().replace('"verdict": "forged"', '"verdict": "authentic"'))
    result = run("verify", line, made[0], "--model", weights)
    assert result.exit_code == 1
    assert "result: report.verdict: authentic in the report, forged now" in result.stdout


def test_what_cannot_be_checked_is_an_error(made: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "novel.json").write_text('{"schema": "novel/1"}')
    cases = [
        ((made[1], made[0]), "--model FILE"),  # the catalogue lacks these weights
        ((made[1], tmp_path / "gone.png"), "no such file"),
        ((tmp_path / "empty", made[0]), "no bundle"),
        ((tmp_path / "novel.json", made[0]), "neither a bundle's report"),
        ((tmp_path / "gone.json", made[0]), "gone.json"),
        ((made[1], made[0], "--key", made[0]), "no public key"),
    ]
    for words, text in cases:
        result = run("verify", *words)
        assert result.exit_code == 2, result.output
        assert text in result.stderr


def test_a_damaged_record_is_named_where_the_manifest_knows_it(copied: tuple[Path, Path], weights: Path) -> None:
    for damage in (b"", b"[" * 100_000, b'{"schema":"seamline.evidence/1","report":{}}', b'{"x":NaN}'):
        (copied[1] / "report.json").write_bytes(damage)
        result = run("verify", copied[1], copied[0], "--model", weights)
        assert result.exit_code == 1, result.output
        assert "report: report.json was changed" in result.stdout


def test_a_bundle_of_a_stranger_is_compared_or_refused_whatever_it_holds(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    file, folder = reds(tmp_path / "a.png"), tmp_path / "out"
    evidence.write(photos(), file, folder)
    whole = (folder / "report.json").read_bytes()
    junk = [None, True, -1, 10**17, 1e300, "", EVIL, "../../etc/passwd", [], [[]], {}, {"a": {"b": []}}]

    def damaged(value: Any) -> Any:
        """The value with something in it replaced."""
        if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
            keys = list(value) if isinstance(value, dict) else list(range(len(value)))
            key = keys[rng.integers(len(keys))]
            value[key] = damaged(value[key])
            return value
        return junk[rng.integers(len(junk))]

    session, named, refused = photos(), 0, 0
    for _ in range(30):
        (folder / "report.json").write_bytes(record.canonical(damaged(json.loads(whole))))
        resealed(folder)
        try:
            found = evidence.verify(folder, file, session=session)
        except SeamlineError:
            refused += 1
            continue
        json.dumps(found.to_dict(), allow_nan=False)
        named += bool(found.differences)
    assert named > 10
    assert refused > 2
    (folder / "run.json").unlink()
    (folder / "run.json").symlink_to("/dev/zero")
    (folder / "heatmap.png").unlink()
    (folder / "heatmap.png").symlink_to(file)
    found = evidence.verify(folder, file, session=session)
    assert {"run.json", "heatmap.png"} <= {difference.where for difference in found.differences}


def test_numbers_are_compared_within_the_tolerance() -> None:
    then = {
        "report": {"probability": 0.5, "segments": [{"start": 1.0, "probability": 0.8}], "regions": [{"area": 100}]}
    }
    near = {
        "report": {"probability": 0.509, "segments": [{"start": 1.04, "probability": 0.8}], "regions": [{"area": 104}]}
    }
    far = {
        "report": {"probability": 0.52, "segments": [{"start": 1.08, "probability": 0.8}], "regions": [{"area": 106}]}
    }
    assert list(_compared(then, near)) == []
    assert [d.where for d in _compared(then, far)] == [
        "report.probability",
        "report.regions[0].area",
        "report.segments[0].start",
    ]
    then = {"report": {"evidence": {"peak": 2.0}, "regions": [{"twin": [0, 0, 9, 9]}]}}
    assert list(_compared(then, {"report": {"evidence": {"peak": 2.2}, "regions": [{"twin": [0, 0, 9, 12]}]}})) == []
    found = _compared(then, {"report": {"evidence": {"peak": 2.3}, "regions": [{"twin": [0, 0, 9, 18]}]}})
    assert [d.where for d in found] == ["report.evidence.peak", "report.regions[0].twin[3]"]
    curve = {"curves": {"video": [None, *[0.5] * 20]}}
    assert list(_compared(curve, {"curves": {"video": [None, *[0.505] * 20]}})) == []
    assert list(_compared(curve, {"curves": {"video": [0.5, *[0.5] * 20]}}))
    assert [d.kind for d in _compared({"settings": {"threshold": 0.5}}, {"settings": {"threshold": 0.5001}})] == [
        "settings"
    ]


# ----------------------------------------------------------------------------------------------------------- signatures


def test_a_signed_bundle_is_checked_against_its_key(made: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra 'sign'")
    assert run("keygen", tmp_path / "key.pem").exit_code == 0
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0
    assert run("keygen", tmp_path / "key.pem").exit_code == 2  # never written over
    run("keygen", tmp_path / "other.pem")
    scanned = run("scan", made[0], "--model", weights, "--bundle", tmp_path / "out", "--sign", tmp_path / "key.pem")
    assert scanned.exit_code == 0, scanned.output
    folder = tmp_path / "out" / "photo.png"
    words = ("verify", folder, made[0], "--model", weights, "--key")
    fine = run(*words, tmp_path / "key.pub.pem")
    assert fine.exit_code == 0, fine.output
    assert "the signature holds" in fine.stdout
    assert "give the public key" in run("verify", folder, made[0], "--model", weights).stdout
    other = run(*words, tmp_path / "other.pub.pem")
    assert (other.exit_code, "signature" in other.stdout) == (1, True)
    if tool := shutil.which("openssl"):
        command = "pkeyutl -verify -pubin -inkey key.pub.pem -rawin -in {0}/SHA256SUMS -sigfile {0}/SHA256SUMS.sig"
        subprocess.run([tool, *command.format(folder).split()], cwd=tmp_path, check=True, capture_output=True)
    paint(folder / "heatmap.png")
    resealed(folder)
    forged = run(*words, tmp_path / "key.pub.pem")
    assert (forged.exit_code, "  signature: " in forged.stdout) == (1, True)


def test_a_key_of_another_kind_is_refused_before_anything_is_scanned(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra 'sign'")
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(SeamlineError, match="no private key"):
        list(evidence.scan(photos(), [reds(tmp_path / "a.png")], tmp_path / "out", tmp_path / "key.pem"))
    assert not (tmp_path / "out").exists()


def test_options_that_make_no_sense_together(made: tuple[Path, Path], tmp_path: Path) -> None:
    assert run("scan", made[0], "--bundle", tmp_path, "--out", tmp_path).exit_code == 2
    assert run("scan", made[0], "--sign", tmp_path / "key.pem").exit_code == 2


# ------------------------------------------------------------------------------------------- the page, and hostile text

EVIL = '"><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)>&\u202e\x00{{ 7*7 }}</script>'


class Seen(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def assert_harmless(text: str) -> None:
    """No script but the page's two, no handler, no style attribute, nothing to fetch."""
    seen = Seen()
    seen.feed(text)
    assert [attrs.get("type") for tag, attrs in seen.tags if tag == "script"] == ["application/json", None]
    for tag, attrs in seen.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form", "a") or attrs == {
            "class": "skip",
            "href": "#main",
        }
        assert not any(name.startswith("on") or name == "style" for name in attrs), (tag, attrs)
        for name in ("src", "href", "poster", "srcset", "data"):
            assert (attrs.get(name) or "data:").startswith(("data:", "#main", "media.")), (tag, attrs)
    policy = next(attrs["content"] for tag, attrs in seen.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "\u202e" not in text
    assert "\x00" not in text


def test_hostile_names_and_metadata_stay_text(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Description", EVIL)
    info.add_itxt("XML:com.adobe.xmp", EVIL)
    exif = Image.Exif()
    exif[0x010E] = EVIL
    name = EVIL.replace("/", "\u2215").replace("\x00", "")[:90] + ".png"
    file = reds(tmp_path / name, pnginfo=info, exif=exif)
    (report,) = evidence.scan(photos(), [file], tmp_path / "out")
    assert report.verdict == "forged", report.error
    (folder,) = (tmp_path / "out").iterdir()
    assert_harmless((folder / "report.html").read_text("utf-8"))
    assert evidence.verify(folder, file, session=photos()).same


def test_every_text_of_a_record_is_escaped(short: Path) -> None:
    _, told, pictures = record.examine(clips(), short)

    def poisoned(value: Any, where: str = "") -> Any:
        if isinstance(value, dict):
            return {key: poisoned(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [poisoned(item, where) for item in value]
        keys = ("verdict", "kind", "modality", "how", "name", "type", "schema")  # are ours, and looked up
        return EVIL if isinstance(value, str) and where not in keys else value

    told["provenance"] = {"facts": [{"topic": EVIL, "name": EVIL, "value": EVIL, "note": EVIL, "odd": True}]}
    told["report"]["warnings"] = [EVIL]
    told["report"]["reasons"] = [{"code": EVIL, "words": EVIL}]
    told["streams"]["audio"]["codec"] = EVIL
    evil = poisoned(told)
    evil["player"] = {"how": "strip", "why": EVIL}
    assert_harmless(page.render(evil, {"utc": EVIL, "seconds": EVIL}, pictures).decode())


def test_facts_that_cannot_be_read_end_no_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = reds(tmp_path / "a.png")

    def fails(path: Path) -> None:
        raise MediaError(f"{path}: its decoder crashed {EVIL}")

    monkeypatch.setattr(provenance, "read", fails)
    evidence.write(photos(), file, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "They could not be read: <bdi>a.png: its decoder crashed" in text
    assert_harmless(text)


def test_the_page_says_what_the_threshold_costs_in_numbers_of_files(tmp_path: Path) -> None:
    evidence.write(photos(), reds(tmp_path / "a.png"), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "about 3 of 100 authentic photos are flagged by mistake (95 % interval 1 to 6)" in text
    assert "about 40 of 100 forged ones are found" in text
    assert "Measured on 200 authentic and 300 forged photos" in text
    assert "not a proof" in text
    assert [_of_hundred(share) for share in (0.0, 0.001, 0.034)] == [
        "none of 100",
        "fewer than 1 of 100",
        "about 3 of 100",
    ]


def test_of_shipped_weights_the_page_says_how_often_they_are_wrong(tmp_path: Path) -> None:
    card = next(card for card in zoo.models() if card.modality == "image")
    told = dataclasses.replace(CARD, scores=card.scores)
    evidence.write(Session(Red(), card=told, isolate=False), reds(tmp_path / "a.png"), tmp_path / "out")
    share = _of_hundred(card.scores["val_false_alarms"])
    assert f"{share} authentic photos were flagged by mistake" in (tmp_path / "out" / "report.html").read_text()


def test_the_page_says_which_areas_show_the_same(tmp_path: Path) -> None:

    Image.fromarray(shown_twice(25.0)).save(tmp_path / "a.png")
    session = Session(Red(), card=WEIGHED, isolate=False)
    report = evidence.write(session, tmp_path / "a.png", tmp_path / "out")
    twin = next(region.twin for region in report.regions if region.twin)
    text = (tmp_path / "out" / "report.html").read_text()
    pixels = f"pixels {twin[0]}&ndash;{twin[2]} by {twin[1]}&ndash;{twin[3]}"
    assert f"shows the same as {pixels}: one was copied from the other" in text
    assert evidence.verify(tmp_path / "out", tmp_path / "a.png", session=session).same


@pytest.mark.parametrize("bright", [10, 100, 160, 250])
def test_every_verdict_has_a_page(bright: int, tmp_path: Path) -> None:
    pixels = np.full((80, 90, 3), 40, np.uint8)
    pixels[..., 0] = np.random.default_rng(0).integers(bright - 10, bright, (80, 90))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    report = evidence.write(photos(), tmp_path / "a.png", tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert page._TITLES[report.verdict][1] in text
    assert_harmless(text)


def test_a_file_that_was_not_judged_has_a_page_that_says_why(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "tiny.png")
    report = evidence.write(photos(), tmp_path / "tiny.png", tmp_path / "out")
    assert report.verdict == "not_applicable"
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Not judged" in text
    assert report.reasons[0].words in text
    assert evidence.verify(tmp_path / "out", tmp_path / "tiny.png", session=photos()).same


def test_the_limits_of_shipped_weights_are_those_of_their_card() -> None:
    for card in zoo.models():
        assert len(record.limits(card)) >= 4
        assert all(len(text) > 40 and "`" not in text for text in record.limits(card))
    assert record.limits(CARD) == []


def test_a_scan_draws_no_random_numbers(short: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002  the global one is meant
    record.examine(clips(), short)
    record.examine(photos(), reds(tmp_path / "a.png"))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography", reason="signatures need the extra 'sign'")
    text = (Path(__file__).parents[1] / "docs" / "evidence.md").read_text("utf-8")
    blocks: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    demo.make_samples(tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    printed = ""
    for kind, block in blocks:
        if kind == "sh":
            for line in block.splitlines():
                program, *rest = shlex.split(line)
                result = run(*rest)
                assert (program, result.exit_code) == ("seamline", 0), f"{line}\n{result.output}"
                printed = result.stdout
        elif kind == "text":
            assert block == printed
        elif kind == "python":
            exec(compile(block, "docs/evidence.md", "exec"), {})
    named = {
        name for row in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE) for name in re.findall(r"`([\w.-]+)`", row)
    }
    parts = {path.name for path in (tmp_path / "signed" / "astronaut-splice.png").iterdir()}
    assert parts <= named, "every part of a bundle is told of"
    pictures = "2 of 255 levels on average, and 0.1 % of the pixels by more than 32"
    for value in ("0.01", "0.25", "0.04 s", "8 pixels", "5 %", pictures):
        assert f"| {value}" in text
    assert list(record.TOLERANCE.values()) == [0.01, 0.25, 0.04, 8, 0.05, 2.0, 0.001]
