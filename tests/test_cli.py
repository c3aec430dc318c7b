"""The command line, in process: what it prints, what it writes, and how it exits."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.testing
from PIL import Image as PILImage

import seamline
from seamline import verdicts, zoo
from seamline.cli import app, clean
from seamline.detectors.loupe import build
from seamline.report import Report

Result = Any


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The network is tiny: on a busy machine its threads would wait for each other far longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Loupe with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    zoo.save(build("loupe-tiny"), path)
    return path


def tilted(weights: Path, path: Path, bias: float) -> str:
    """The same weights with another calibration: a large bias finds everything forged, a small one nothing."""
    detector, _ = zoo.load_detector(weights)
    zoo.save(detector, path, calibration=[1.0, bias], mask_threshold=1e-6)
    return str(path)


@pytest.fixture
def always(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(verdicts, "WHOLE", 1.1)  # these weights mark all of a photo
    return tilted(weights, tmp_path / "always.safetensors", 100.0)


@pytest.fixture
def never(weights: Path, tmp_path: Path) -> str:
    return tilted(weights, tmp_path / "never.safetensors", -100.0)


def run(*words: object) -> Result:
    return typer.testing.CliRunner().invoke(app, [str(word) for word in words])


def photo(path: Path, size: tuple[int, int] = (120, 90), seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    PILImage.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path)
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises ``width`` x ``height`` pixels and holds none."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 100)
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (ihdr, idat))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def broken(folder: Path) -> dict[str, str]:
    """Ten broken files, and a word of the cause of each."""
    whole = photo(folder / "whole.jpg", (300, 200)).read_bytes()
    png = photo(folder / "whole.png", (300, 200)).read_bytes()
    webp = photo(folder / "whole.webp", (300, 200)).read_bytes()
    for name in ("whole.jpg", "whole.png", "whole.webp"):
        (folder / name).unlink()
    archive = io.BytesIO(b"PK\x03\x04" + bytes(200)).getvalue()
    files = {
        "bad_cut.jpg": (whole[: len(whole) // 2], "cut off"),
        "bad_cut.png": (png[: len(png) // 2], "cut off"),
        "bad_cut.webp": (webp[: len(webp) // 2], "cut off"),
        "bad_empty.jpg": (b"", "empty"),
        "bad_header_only.jpg": (whole[:20], ""),
        "bad_huge.png": (png_header(40000, 40000), "limit of 200000000"),
        "bad_text.jpg": (b"Dear diary, this is no photo at all.\n" * 9, "text"),
        "bad_zip.png": (archive, ""),
        "bad_random.tiff": (np.random.default_rng(0).bytes(5000), ""),
        "bad_zeros.bmp": (bytes(4096), ""),
    }
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    return {name: word for name, (_, word) in files.items()}


def test_a_mixed_folder_finishes_and_names_every_bad_file(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "in"
    suffixes = (".jpg", ".png", ".webp", ".tif", ".bmp")
    good = [photo(folder / f"sub{i % 3}" / f"good{i}{suffixes[i % 5]}", seed=i) for i in range(19)]
    good.append(folder / "really_a_png.jpg")  # a wrong extension is read by its content, with a warning
    good[-1].write_bytes(photo(tmp_path / "x.png").read_bytes())
    causes = broken(folder)
    result = run("scan", folder, "--model", weights, "--json", tmp_path / "r.jsonl", "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    reports = [Report.from_json(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    failed = {Path(r.media.path).name: r.error for r in reports if r.verdict == "error"}
    assert failed.keys() == causes.keys()
    for name, word in causes.items():
        assert name in str(failed[name])
        assert word in str(failed[name]), failed[name]
        assert "Error:" not in str(failed[name]), "foreseen, so told in words"
        assert name in result.stdout
    assert "30 files: " in result.stdout
    assert "10 could not be analysed" in result.stdout
    fine = [r for r in reports if r.verdict != "error"]
    assert {Path(r.media.path) for r in fine} == set(good)
    assert all(r.artifacts.mask and Path(r.artifacts.mask).exists() for r in fine)
    assert len(list((tmp_path / "out").glob("*.png"))) == 3 * len(good)
    assert any("content is PNG" in w for r in fine for w in r.warnings)


def test_exit_codes(tmp_path: Path, always: str, never: str) -> None:
    ok = photo(tmp_path / "ok.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    assert run("scan", ok, "--model", always).exit_code == 0
    assert run("scan", ok, "--model", always, "--fail-on-forged").exit_code == 1
    assert run("scan", ok, "--model", never, "--fail-on-forged").exit_code == 0
    assert run("scan", ok, bad, "--model", always).exit_code == 2
    assert run("scan", ok, bad, "--model", always, "--fail-on-forged").exit_code == 2
    assert run("scan", tmp_path / "absent.jpg", "--model", always).exit_code == 2


def test_pictures_and_regions_are_those_of_the_report(tmp_path: Path, always: str, never: str) -> None:
    path = photo(tmp_path / "holiday.jpg", (333, 250))
    for model, forged in ((always, True), (never, False)):
        result = run("scan", path, "--model", model, "--out", tmp_path / "out", "--json", "-")
        report = Report.from_json(result.stdout)
        assert report.forged is forged
        artifacts = report.artifacts
        assert artifacts.mask == str(tmp_path / "out" / "holiday.mask.png")
        assert artifacts.heatmap is not None
        assert artifacts.overlay is not None
        with PILImage.open(artifacts.mask) as mask, PILImage.open(artifacts.heatmap) as heatmap:
            assert mask.size == heatmap.size == (333, 250)
            assert mask.mode == heatmap.mode == "L"
            assert set(np.unique(np.asarray(mask))) <= {0, 255}
            assert np.asarray(mask).any() == bool(report.regions) == forged


def test_json_on_stdout_stands_alone(tmp_path: Path, weights: Path) -> None:
    files = [photo(tmp_path / f"{i}.png", seed=i) for i in range(3)]
    result = run("scan", *files, "--model", weights, "--json", "-")
    lines = result.stdout.splitlines()
    assert [json.loads(line)["media"]["path"] for line in lines] == [str(file) for file in files]
    assert "probability" in result.stderr


def test_two_inputs_of_one_stem_keep_their_pictures(tmp_path: Path, weights: Path) -> None:
    for name in ("a/x.png", "a/x.jpg", "b/x.png", "b/y.png"):
        photo(tmp_path / "in" / name)
    result = run("scan", tmp_path / "in", "--model", weights, "--out", tmp_path / "out", "--json", "-")
    reports = [Report.from_json(line) for line in result.stdout.splitlines()]
    assert len({r.artifacts.mask for r in reports}) == 4
    assert len(list((tmp_path / "out").glob("*.png"))) == 12


def test_scanning_into_the_folder_of_the_inputs_harms_none(tmp_path: Path, weights: Path) -> None:
    files = [photo(tmp_path / "x.jpg"), photo(tmp_path / "x.mask.png"), photo(tmp_path / "x.jpg.mask.png")]
    before = [file.read_bytes() for file in files]
    result = run("scan", *files, "--model", weights, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert [file.read_bytes() for file in files] == before


def test_globs_are_expanded_and_none_is_told(tmp_path: Path, weights: Path) -> None:
    photo(tmp_path / "a1.png")
    photo(tmp_path / "a2.png")
    result = run("scan", tmp_path / "a*.png", "--model", weights, "--json", "-")
    assert len(result.stdout.splitlines()) == 2
    (tmp_path / "empty").mkdir()
    nothing = run("scan", tmp_path / "empty", "--model", weights)
    assert nothing.exit_code == 2
    assert "no photos, videos or sound found" in nothing.stderr
    missing = run("scan", tmp_path / "b*.png", "--model", weights)
    assert missing.exit_code == 2


def test_names_with_markup_control_and_stray_bytes(tmp_path: Path, weights: Path) -> None:
    files = [photo(tmp_path / "[red]x[/red].png"), photo(tmp_path / "esc\x1b[31m.png")]
    stray = os.fsdecode(os.fsencode(tmp_path) + b"/stray\xff.png")
    os.rename(photo(tmp_path / "s.png"), stray)
    result = run("scan", *files, stray, "--model", weights, "--json", tmp_path / "r.jsonl", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "[red]x[/red].png" in result.stdout
    assert "\x1b" not in result.stdout
    paths = [Report.from_json(line).media.path for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]
    assert paths == [*map(str, files), stray]
    assert clean("a\x1b\n\udcffb") == r"a\x1b\n\udcffb"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "nonsense"], "unknown model 'nonsense'"),
        (["--model", "evil.pth"], "can run code"),
        (["--device", "tpu"], "unknown device"),
        (["--json", "no/such/folder/r.jsonl"], "No such file"),
    ],
)
def test_errors_are_one_clean_line(tmp_path: Path, weights: Path, words: list[str], said: str) -> None:
    extra = [] if "--model" in words else ["--model", str(weights)]
    result = run("scan", photo(tmp_path / "x.png"), *words, *extra)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


def test_a_stop_leaves_whole_lines(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = seamline.Session.scan

    def stopped(self: seamline.Session, *args: Any) -> Iterator[Report]:
        for count, report in enumerate(scan(self, *args)):
            if count == 2:
                raise KeyboardInterrupt
            yield report

    monkeypatch.setattr(seamline.Session, "scan", stopped)
    for i in range(4):
        photo(tmp_path / "in" / f"{i}.png")
    result = run("scan", tmp_path / "in", "--model", weights, "--json", tmp_path / "r.jsonl")
    assert result.exit_code == 130
    assert "stopped" in result.stderr
    assert len([Report.from_json(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()]) == 2


def test_models_lists_the_catalogue() -> None:
    result = run("models")
    assert result.exit_code == 0
    cards = json.loads(run("models", "--json").stdout)
    assert [card["name"] for card in cards] == [card.name for card in zoo.models()]
    for card in cards:
        assert card["name"] in result.stdout


def test_version_and_help() -> None:
    assert run("--version").stdout.strip() == seamline.__version__
    for command in ("scan", "models", "forge", "train", "evaluate"):
        assert run(command, "--help").exit_code == 0
        assert command in run("--help").stdout
    assert run("scan").exit_code == 2
    assert run("no-such-command").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["forge", "absent", "out", "--recipe", "absent.toml"],
        ["train", "absent.toml", "--data", "absent", "--out", "out"],
        ["evaluate", "--model", "nonsense", "--data", "absent"],
    ],
)
def test_what_is_missing_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 2
    assert "absent" in result.stderr
    assert "Traceback" not in result.output


def test_python_can_do_what_the_command_does(tmp_path: Path, weights: Path) -> None:
    path = photo(tmp_path / "x.png")
    report = seamline.detect(path, model=weights)
    session = seamline.load(weights)
    assert session(path).to_json() == report.to_json()
    assert session(path.read_bytes()).probability == report.probability
    assert session(seamline.open_media(path)).probability == report.probability


def test_help_starts_quickly() -> None:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "seamline", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - began < 5  # seconds; about 0.4 on an idle machine, and torch alone takes longer
