"""The check of data sets finds every planted fault, and nothing in a clean one."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import typer.testing
from PIL import Image as PILImage

from seamline.cli import app
from seamline.data import open_data
from seamline.data.check import KINDS, NEAR, SCHEMA, Check, check, find_shortcuts
from seamline.data.header import Header, fingerprint, read_header
from seamline.data.sample import WHOLE, Sample, clip, photo
from seamline.errors import DataError, MediaError
from seamline.report import Media
from seamline.synthesis.clip_file import ClipChain, encode, read_footage
from seamline.synthesis.miniature import miniature


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("clean")
    return {name: miniature(name, root / name, seed=1) for name in ("ddl-i", "lav-df", "faceforensics", "manifest")}


def picture(path: Path) -> np.ndarray:
    rgb = cv2.imread(str(path))
    assert rgb is not None
    return rgb


def save(path: Path, pixels: np.ndarray) -> None:
    assert cv2.imwrite(str(path), pixels)


def again(source: Path, target: Path) -> None:
    """The same picture, smaller and as a JPEG in all but name."""
    pixels = cv2.resize(picture(source), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    target.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())


def sound_alike(root: Path) -> None:
    footage = read_footage(str(root / "train/000001.mp4"), "x")
    (root / "dev/000004.mp4").write_bytes(encode(footage, ClipChain(crf=26, bitrate=48)))


def metadata(root: Path, number: int, **changes: Any) -> None:
    rows = json.loads((root / "metadata.json").read_text())
    rows[number] |= changes
    (root / "metadata.json").write_text(json.dumps(rows))


def masks(root: Path, change: Callable[[np.ndarray], np.ndarray], count: int = 99) -> None:
    for path in sorted(root.glob("*/masks/*.png"))[:count]:
        save(path, change(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)))


def cut_behind_header(root: Path) -> None:
    """A file as the web has them, with all facts at its beginning, of which half was loaded."""
    path, fast = root / "test/000006.mp4", root / "fast.mp4"
    with av.open(str(path)) as source, av.open(str(fast), "w", options={"movflags": "faststart"}) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    fast.replace(path)
    assert read_header(path).duration == pytest.approx(1.28, abs=0.05)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def film_of_masks(root: Path) -> None:
    path = root / "manipulated_sequences/Face2Face/masks/videos/953_974.mp4"
    footage = read_footage(str(path), "x")
    assert footage.frames is not None
    path.write_bytes(encode(type(footage)(footage.frames[:10], None), ClipChain()))


PLANTED: dict[str, tuple[str, str, Callable[[Path], Any], list[str]]] = {
    # name: kind that is to be found, set, fault, files that are to be named
    "a clip is gone": ("missing", "lav-df", lambda r: (r / "dev/000004.mp4").unlink(), ["dev/000004.mp4"]),
    "a mask is gone": (
        "unpaired",
        "ddl-i",
        lambda r: (r / "train/masks/000501.png").unlink(),
        ["train/fake/000501.png"],
    ),
    "a photo is gone": (
        "orphan",
        "ddl-i",
        lambda r: (r / "train/fake/000501.png").unlink(),
        ["train/masks/000501.png"],
    ),
    "a mask that the manifest names is gone": (
        "missing",
        "manifest",
        lambda r: (r / "masks/3.png").unlink(),
        ["masks/3.png"],
    ),
    "a photo is text": (
        "unreadable",
        "ddl-i",
        lambda r: (r / "train/real/000001.png").write_text("404 not found"),
        ["train/real/000001.png"],
    ),
    "a photo is cut off": (
        "unreadable",
        "manifest",
        lambda r: (r / "photos/2.jpg").write_bytes((r / "photos/2.jpg").read_bytes()[:1500]),
        ["photos/2.jpg"],
    ),
    "a clip is cut off": (
        "unreadable",
        "lav-df",
        lambda r: (r / "test/000006.mp4").write_bytes((r / "test/000006.mp4").read_bytes()[:9000]),
        ["test/000006.mp4"],
    ),
    "a clip whose header comes first is cut off": ("unreadable", "lav-df", cut_behind_header, ["test/000006.mp4"]),
    "a mask is empty bytes": (
        "mask_unreadable",
        "ddl-i",
        lambda r: (r / "valid/masks/000600.png").write_bytes(b""),
        ["valid/masks/000600.png"],
    ),
    "a mask has another size": (
        "mask_size",
        "ddl-i",
        lambda r: save(r / "valid/masks/000600.png", np.eye(50, dtype=np.uint8) * 255),
        ["valid/fake/000600.png"],
    ),
    "a film of masks is short": (
        "mask_size",
        "faceforensics",
        film_of_masks,
        ["manipulated_sequences/Face2Face/masks/videos/953_974.mp4"],
    ),
    "a mask is of zeros and ones": (
        "mask_empty",
        "ddl-i",
        lambda r: masks(r, lambda m: m // 255, 1),
        ["train/masks/000501.png"],
    ),
    "masks are inverted": (
        "mask_inverted",
        "ddl-i",
        lambda r: masks(r, lambda m: 255 - m),
        [f"train/masks/000{n}.png" for n in (501, 502, 503)] + [f"valid/masks/000{n}.png" for n in (600, 601, 602)],
    ),
    "one mask is inverted": (
        "mask_large",
        "ddl-i",
        lambda r: masks(r, lambda m: 255 - m, 1),
        ["train/masks/000501.png"],
    ),
    "a photo is there twice": (
        "duplicate",
        "ddl-i",
        lambda r: shutil.copy(r / "train/real/000001.png", r / "train/real/000009.png"),
        ["train/real/000001.png", "train/real/000009.png"],
    ),
    "a photo is there twice, saved anew": (
        "near_duplicate",
        "ddl-i",
        lambda r: again(r / "train/real/000001.png", r / "train/real/000009.png"),
        ["train/real/000001.png", "train/real/000009.png"],
    ),
    "a photo is in two splits": (
        "leak_file",
        "ddl-i",
        lambda r: shutil.copy(r / "train/real/000001.png", r / "valid/real/000109.png"),
        ["train/real/000001.png", "valid/real/000109.png"],
    ),
    "a photo is in two splits, saved anew": (
        "leak_near",
        "ddl-i",
        lambda r: again(r / "train/real/000001.png", r / "valid/real/000109.png"),
        ["train/real/000001.png", "valid/real/000109.png"],
    ),
    "a clip is in two splits, saved anew": ("leak_near", "lav-df", sound_alike, ["dev/000004.mp4", "train/000001.mp4"]),
    "a source is in two splits": (
        "leak_group",
        "lav-df",
        lambda r: metadata(r, 6, original="train/000001.mp4"),
        ["test/000007.mp4", "train/000001.mp4"],
    ),
    "a photo is authentic and forged": (
        "contradiction",
        "ddl-i",
        lambda r: shutil.copy(r / "train/fake/000501.png", r / "train/real/000001.png"),
        ["train/fake/000501.png", "train/real/000001.png"],
    ),
    "a span lies after the end": (
        "span",
        "lav-df",
        lambda r: metadata(r, 1, fake_periods=[[0.5, 9.0]]),
        ["train/000002.mp4"],
    ),
    "a length is wrong": ("length", "lav-df", lambda r: metadata(r, 0, duration=9.0), ["train/000001.mp4"]),
    "the metadata contradicts itself": (
        "metadata",
        "lav-df",
        lambda r: metadata(r, 2, n_fakes=5),
        ["metadata.json, clip number 2"],
    ),
    "the metadata is no JSON": (
        "metadata",
        "lav-df",
        lambda r: (r / "metadata.json").write_text("["),
        [""],
    ),
    "a file is no part of it": (
        "unlisted",
        "lav-df",
        lambda r: shutil.copy(r / "train/000001.mp4", r / "train/copy.mp4"),
        ["train/copy.mp4"],
    ),
    "a split is all authentic": (
        "balance",
        "ddl-i",
        lambda r: [shutil.rmtree(r / "valid" / name) for name in ("fake", "masks")],
        [],
    ),
}


def same(name: str, paths: list[str], found: Check) -> bool:
    kind = PLANTED[name][0]
    return any(f.kind == kind and (f.paths[: len(paths)] == tuple(paths) or paths == [""]) for f in found.findings)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str, clean: dict[str, Path], tmp_path: Path) -> None:
    kind, layout, plant, paths = PLANTED[name]
    root = tmp_path / "set"
    shutil.copytree(clean[layout], root)
    plant(root)
    found = check(root, layout)
    assert same(name, paths, found), found.findings
    assert (found.errors > 0) == KINDS[kind][0]
    others = {f.kind for f in found.findings} - {kind}
    assert others <= {"unlisted", "balance", "leak_group", "length"}, found.findings


@pytest.mark.parametrize("layout", ["ddl-i", "lav-df", "faceforensics", "manifest"])
def test_a_clean_set_has_no_findings(layout: str, clean: dict[str, Path]) -> None:
    steps: list[tuple[int, int]] = []
    found = check(clean[layout], progress=lambda done, total: steps.append((done, total)))
    assert found.findings == ()
    assert found.errors == 0
    total = sum(n for classes in found.counts.values() for n in classes.values())
    assert steps == [(i, total) for i in range(1, total + 1)]
    assert check(clean[layout], quick=True).findings == ()


# ----------------------------------------------------------------------------------------------------- shortcuts


SHORTCUTS: dict[str, Callable[[bool, int], tuple[str, dict[str, Any]]]] = {
    # fact: how the file of a class is saved (its ending, Pillow's options), and the number of the file
    "quantisation table": lambda forged, i: (".jpg", {"quality": 75 if forged else 92}),
    "chroma subsampling": lambda forged, i: (".jpg", {"quality": 90, "subsampling": 0 if forged else 2}),
    "format": lambda forged, i: (".png" if forged else ".jpg", {}),
}


def saved(root: Path, options: Callable[[bool, int], tuple[str, dict[str, Any]]], side: Callable[[bool], int]) -> Path:
    """24 photos in a manifest, both classes of the same textures."""
    rng, lines = np.random.default_rng(0), ["path,label,mask"]
    for i in range(24):
        forged = i % 2 == 1
        ending, how = options(forged, i)
        size = side(forged)
        pixels = cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
        buffer = io.BytesIO()
        PILImage.fromarray(pixels).save(buffer, {".jpg": "JPEG", ".png": "PNG"}[ending], **how)
        (root / f"{i}{ending}").write_bytes(buffer.getvalue())
        mask = np.zeros((size, size), np.uint8)
        mask[2:9, 3:9] = 255
        if forged:
            save(root / f"{i}_mask.png", mask)
        lines.append(f"{i}{ending},{int(forged)},{f'{i}_mask.png' if forged else ''}")
    (root / "manifest.csv").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("fact", [*SHORTCUTS, "resolution"])
def test_a_shortcut_is_found(fact: str, tmp_path: Path) -> None:
    def plain(forged: bool, i: int) -> tuple[str, dict[str, Any]]:
        return ".jpg", {"quality": 85 + i // 2 % 3}

    larger = 16 * (fact == "resolution")
    found = check(saved(tmp_path, SHORTCUTS.get(fact, plain), lambda forged: 64 + larger * forged))
    told = [f.words for f in found.findings if f.kind == "shortcut"]
    assert any(f"the {fact} alone tells the label right for 100% of the files" in words for words in told)
    assert {f.kind for f in found.findings} == {"shortcut"}
    best = next(s for s in found.shortcuts if s.fact == fact)
    assert (best.accuracy, best.values) == (1.0, 2)
    assert best.p <= 0.002
    assert found.errors == 0


def headers(forged: np.ndarray, rng: np.random.Generator, **told: Callable[[bool], Any]) -> list[Header]:
    """Clips whose facts are drawn blind to the label, but for those that are ``told``."""
    made = []
    for label in forged:
        facts: dict[str, Any] = {"bytes": int(rng.integers(10**5, 10**6)), "format": "mov h264 aac", "kind": "video"}
        facts |= {"encoder": str(rng.choice(["Lavf", "isom"])), "duration": float(rng.uniform(2, 9)), "width": 64}
        facts |= {"height": 64, "rate": int(rng.choice([16000, 44100])), "fps": 25.0, "channels": 1}
        made.append(Header(**(facts | {key: value(bool(label)) for key, value in told.items()})))
    return made


def of(forged: np.ndarray) -> list[Sample]:
    return [clip(Media(f"{i}.mp4", kind="video"), WHOLE if f else ()) for i, f in enumerate(forged)]


@pytest.mark.parametrize(
    ("key", "fact", "value", "accuracy"),
    [
        ("rate", "sample rate", lambda forged, rng: 16000 if forged else 48000, (1, 1)),
        ("encoder", "encoder", lambda forged, rng: "Lavf" if forged else "Apple", (1, 1)),
        ("fps", "frame rate", lambda forged, rng: 25.0 if forged or rng.random() < 0.5 else 29.97, (0.7, 0.8)),
        ("duration", "duration", lambda forged, rng: float(rng.uniform(2, 4) + 3 * (not forged)), (0.95, 1)),
        ("bytes", "file size", lambda forged, rng: int(rng.integers(10**5) + (2 * 10**5 if forged else 0)), (0.95, 1)),
    ],
)
def test_facts_of_clips(
    key: str, fact: str, value: Callable[..., Any], accuracy: tuple[float, float], rng: np.random.Generator
) -> None:
    forged = rng.random(300) < 0.3
    found = find_shortcuts(of(forged), headers(forged, rng, **{key: lambda label: value(label, rng)}))
    best = next(s for s in found if s.fact == fact)
    assert accuracy[0] <= best.accuracy <= accuracy[1]
    assert best.p == 0.001
    others = [s for s in found if s.fact not in (fact, "bit rate")]
    assert others
    assert all(s.accuracy < 0.65 for s in others)


def test_nothing_is_found_where_nothing_is(rng: np.random.Generator) -> None:
    """Over many sets without a shortcut, one is called significant about as rarely as promised."""
    alarms = 0
    for _ in range(40):
        forged = rng.random(60) < 0.5
        found = find_shortcuts(of(forged), headers(forged, rng))
        alarms += any(s.accuracy >= 0.65 and s.p * len(found) <= 0.05 for s in found)
    assert alarms <= 6  # of 40 at 5 %, more than that has a probability of 1 %


def test_a_fact_that_only_its_own_group_has_is_no_shortcut(rng: np.random.Generator) -> None:
    """Twelve cameras with a table each, forged or not as a whole: nothing to learn for other cameras."""
    samples = [photo(Path(f"{i}.jpg"), forged=i // 10 % 2 == 1, group=f"camera {i // 10}") for i in range(120)]
    found = find_shortcuts(samples, [Header("image", 1000, "JPEG RGB", tables=f"t{i // 10}") for i in range(120)])
    assert [s.accuracy for s in found if s.fact == "quantisation table"] == [0.5]


# --------------------------------------------------------------------------------------------------- headers, prints


def test_headers_and_prints_are_of_the_content(clean: dict[str, Path], tmp_path: Path) -> None:
    film = read_header(clean["lav-df"] / "train/000001.mp4")
    assert (film.kind, film.format, film.width, film.height, film.rate) == ("video", "mov h264 aac", 96, 96, 16000)
    assert film.duration == pytest.approx(1.28, abs=0.03)
    assert film.fps == 25
    turned = tmp_path / "turned.jpg"
    exif = PILImage.Exif()
    exif[274], exif[305] = 6, "Editor 1.0"
    PILImage.new("RGB", (40, 30)).save(turned, exif=exif)
    shown = read_header(turned)
    assert (shown.width, shown.height, shown.encoder) == (30, 40, "Editor 1.0")
    assert fingerprint(turned) is None  # flat
    for data, words in ((b"#EXTM3U\nhttp://x/y", "no picture, video or sound"), (b"", "no picture")):
        turned.write_bytes(data)
        with pytest.raises(MediaError, match=words):
            read_header(turned)
    with pytest.raises(MediaError, match="no such file"):
        read_header(tmp_path / "x")


def test_prints_stay_when_a_photo_is_saved_again(clean: dict[str, Path], tmp_path: Path) -> None:
    prints: list[bytes] = []
    for path in sorted(clean["ddl-i"].rglob("real/*.png")):
        again(path, tmp_path / "again.jpg")
        one, two = fingerprint(path), fingerprint(tmp_path / "again.jpg")
        assert one is not None
        assert two is not None
        assert apart(one, two) <= NEAR
        assert all(apart(one, other) > 30 for other in prints)
        prints.append(one)


def apart(one: bytes, two: bytes) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(one, two, strict=True))


# ------------------------------------------------------------------------------------------------------- the command


def run(*words: object) -> Any:
    return typer.testing.CliRunner().invoke(app, [str(word) for word in words])


def test_the_command(clean: dict[str, Path], tmp_path: Path) -> None:
    fine = run("data", "check", clean["ddl-i"])
    assert (fine.exit_code, fine.stdout) == (0, "ddl-i: 6 authentic, 6 forged in train, valid: nothing wrong\n")
    made = run("data", "miniature", "ddl-i", tmp_path / "set", "--seed", 1)
    assert made.exit_code == 0
    assert len(open_data(tmp_path / "set")) == 12
    (tmp_path / "set/train/masks/000501.png").unlink()
    again(tmp_path / "set/train/real/000001.png", tmp_path / "set/train/real/000009.png")
    texts = []
    for _ in range(2):
        bad = run("data", "check", tmp_path / "set", "--json", tmp_path / "r.json")
        texts.append((tmp_path / "r.json").read_text())
    assert bad.exit_code == 2
    assert "train/fake/000501.png: no mask in masks/ has the stem" in bad.stdout
    assert bad.stdout.endswith("7 authentic, 5 forged in train, valid: 1 error, 1 warning\n")
    assert texts[0] == texts[1]
    told = json.loads(texts[0])
    assert (told["schema"], told["errors"], told["warnings"], told["layout"]) == (SCHEMA, 1, 1, "ddl-i")
    assert [f["kind"] for f in told["findings"]] == ["unpaired", "near_duplicate"]
    assert told["counts"]["train"] == {"authentic": 4, "forged": 2}
    assert {"fact", "accuracy", "p", "values"} == set(told["shortcuts"][0])
    nothing = run("data", "check", tmp_path / "x")
    assert (nothing.exit_code, nothing.stdout) == (2, "")
    assert "no such folder" in nothing.stderr
    with pytest.raises(DataError, match="no mask"):
        open_data(tmp_path / "set")
