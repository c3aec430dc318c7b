"""The layouts of data sets: every miniature is recognised, read, checked, evaluated and trained on."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer.testing

from seamline import zoo
from seamline.cli import app
from seamline.data import LAYOUTS, digest, layout_of, open_data
from seamline.data.asvspoof import load_labels, spoofed
from seamline.data.check import KINDS, check
from seamline.data.manifest import FIELDS
from seamline.detectors import erf_batfd_plus, loupe
from seamline.errors import DataError
from seamline.evaluate import evaluate
from seamline.feeds import Clips
from seamline.pipeline import Session
from seamline.synthesis.miniature import MINIATURES, miniature
from seamline.train import Recipe, Stage, train

LAYOUT = {  # of the miniatures that are not named like their layout
    "casia-v1": "casia",
    "casia-v2": "casia",
    "av-deepfake1m++": "av-deepfake1m",
    "tvil": "ummaformer",
    "psynd": "ummaformer",
    "asvspoof2019": "asvspoof",
    "asvspoof5": "asvspoof",
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Miniatures, made when they are first asked for."""
    root = tmp_path_factory.mktemp("sets")

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = miniature(name, root / name, seed=3)
            return self[name]

    return Made()


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Session]:
    """A tiny detector of photos and one of clips, with random weights."""
    torch.manual_seed(0)
    root, ready = tmp_path_factory.mktemp("weights"), {}
    for name, build in (("loupe-tiny", loupe.build), ("erf-batfd-plus-tiny", erf_batfd_plus.build)):
        zoo.save(build(name), root / f"{name}.safetensors")
        ready[name] = Session(root / f"{name}.safetensors")
    return ready


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, few resamples, and no pool of processes: what a step needs is prepared when it asks."""
    monkeypatch.setattr(Clips, "ready", lambda self, samples, progress=None: None)
    monkeypatch.setattr("seamline.evaluate.rows.DRAWS", 20)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_is_made_checked_evaluated_and_trained_on(
    name: str, sets: dict[str, Path], sessions: dict[str, Session], tmp_path: Path
) -> None:
    root = sets[name]
    assert layout_of(root) == LAYOUT.get(name, name)
    found = check(root)
    assert found.findings == ()
    samples = open_data(root)
    assert len(samples) == sum(sum(classes.values()) for classes in found.counts.values())
    assert {s.truth.forged for s in samples} == {False, True}
    for sample in samples:
        assert Path(sample.truth.media.path).is_file()
        assert all(0 <= segment.start < segment.end <= 1.3 for segment in sample.truth.segments)
        if not sample.is_clip:
            _, mask = sample.load()
            assert (mask is None) != sample.truth.forged
            assert mask is None or 0.01 < mask.mean() < 0.6

    clips = samples[0].is_clip
    model = "erf-batfd-plus-tiny" if clips else "loupe-tiny"
    row = evaluate(sessions[model], root, limit=4, progress=False)
    assert row["n"]["authentic"] + row["n"]["forged"] == 4
    assert row["data"]["sha256"] == digest(root)

    stage = Stage("whole", steps=1, batch=2, lr=1e-3)
    recipe = Recipe(
        model=model, stage=(stage,), crop=32, holdout=0.0, validate_every=0, workers=0, tensorboard=False
    )  # fmt: skip
    train(recipe, root, tmp_path, device="cpu", progress=False)
    log = (tmp_path / "log.csv").read_text().splitlines()
    assert len(log) == 2
    assert np.isfinite(float(log[1].split(",")[3]))


def test_every_layout_has_a_miniature() -> None:
    assert {LAYOUT.get(name, name) for name in MINIATURES} == LAYOUTS.keys() - {"lav-df-split"}


def test_a_miniature_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("manifest", "psynd"):
        assert len({digest(miniature(name, tmp_path / f"{name}{i}", seed=5)) for i in range(2)}) == 1
    files = [sorted(p for p in (tmp_path / f"psynd{i}").rglob("*.wav")) for i in range(2)]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    with pytest.raises(DataError, match="not empty"):
        miniature("plain", tmp_path / "manifest0")
    with pytest.raises(DataError, match=r"unknown miniature 'x'; known: plain"):
        miniature("x", tmp_path / "x")


# ------------------------------------------------------------------------------------------------- what sets tell us


def kinds(root: Path, **how: Any) -> Counter[str]:
    return Counter(sample.kind for sample in open_data(root, **how))


def test_splits_are_those_of_the_set(sets: dict[str, Path]) -> None:
    for name, split, count in (
        ("ddl-i", "valid", 6),
        ("lav-df", "dev", 2),
        ("celeb-df", "test", 5),
        ("faceforensics", "test", 4),
        ("openforensics", "Val", 4),
        ("psynd", "test_landline", 4),
        ("asvspoof5", "eval", 4),
        ("manifest", "test", 4),
    ):
        assert len(open_data(sets[name], split=split)) == count
        with pytest.raises(DataError, match=rf"nothing is of the split 'x'; splits found: .*{split}"):
            open_data(sets[name], split="x")
    assert len({digest(sets["ddl-i"], split) for split in (None, "train", "valid")}) == 3
    assert len(open_data(sets["ddl-i"] / "valid")) == 6  # a plain folder
    assert len(open_data(sets["lav-df"] / "test")) == 2


def test_what_is_no_data_set_is_told_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"It holds notes\.txt\. Known are manifest: .*columbia: 4cam_splc/"):
        open_data(tmp_path)
    with pytest.raises(DataError, match="unknown layout 'casia3'; known: manifest, lav-df"):
        open_data(tmp_path, "casia3")
    with pytest.raises(DataError, match="no such folder"):
        open_data(tmp_path / "x")


def test_kinds_and_groups(sets: dict[str, Path]) -> None:
    assert kinds(sets["casia-v2"]) == {"authentic": 3, "splice": 2, "copy_move": 1}
    assert {s.group for s in open_data(sets["casia-v2"])} == {"ani1", "ani2", "ani3", "ani101", "ani102", "ani103"}
    assert kinds(sets["nist16"]) == {"authentic": 4, "manipulation": 2, "removal": 1, "splice": 1}
    assert {s.group for s in open_data(sets["coverage"])} == {"1", "2", "3", "4"}
    assert kinds(sets["asvspoof2019"]) == {"authentic": 6, "A01": 6}
    assert kinds(sets["asvspoof5"]) == {"authentic": 6, "A05": 6}
    assert {s.group for s in open_data(sets["faceforensics"])} == {"000_003", "953_974"}
    assert kinds(sets["fakeavceleb"]) == {"authentic": 3, "audio": 1, "video": 1, "audio_visual": 1}


def test_clips_forged_as_a_whole_end_where_they_end(sets: dict[str, Path]) -> None:
    for name in ("faceforensics", "celeb-df", "fakeavceleb", "asvspoof2019"):
        for sample in open_data(sets[name]):
            for segment in sample.truth.segments:
                assert (segment.start, segment.end) == (0.0, pytest.approx(1.28, abs=0.05))
            if sample.truth.forged:
                assert sample.truth.media.duration == sample.truth.segments[0].end
    both = next(s for s in open_data(sets["fakeavceleb"]) if s.kind == "audio_visual")
    assert {segment.modality for segment in both.truth.segments} == {"video", "audio"}


# -------------------------------------------------------------------------------------------------------------- masks


def test_masks_that_are_dark_where_forged(sets: dict[str, Path]) -> None:
    for name in ("dso-1", "nist16"):
        for sample in open_data(sets[name]):
            if sample.truth.forged:
                stored = cv2.imread(str(sample.truth.artifacts.mask), cv2.IMREAD_GRAYSCALE)
                mask = sample.mask()
                assert sample.inverted
                assert stored is not None
                assert mask is not None
                np.testing.assert_array_equal(mask >= 0.5, stored < 128)
                assert mask.mean() < 0.5


def test_columbias_masks_are_green(sets: dict[str, Path]) -> None:
    sample = open_data(sets["columbia"])[-1]
    bgr, mask = cv2.imread(str(sample.truth.artifacts.mask)), sample.mask()
    assert bgr is not None
    assert mask is not None
    inside = mask > 0.5
    assert bgr[inside][:, 1].mean() > 150 > 60 > bgr[inside][:, 2].mean()
    assert bgr[~inside][:, 2].mean() > 150
    Path(str(sample.truth.artifacts.mask)).rename(sets["columbia"] / "x.jpg")
    with pytest.raises(DataError, match=r"_edgemask\.jpg: this mask is missing"):
        sample.mask()
    (sets["columbia"] / "x.jpg").rename(str(sample.truth.artifacts.mask))


def test_polygons(tmp_path: Path) -> None:
    (tmp_path / "Val").mkdir()
    cv2.imwrite(str(tmp_path / "Val/a.jpg"), np.zeros((40, 60, 3), np.uint8))
    coco: dict[str, Any] = {
        "categories": [{"id": 0, "name": "Real"}, {"id": 1, "name": "Fake"}],
        "images": [{"id": 7, "file_name": "Images/Val/a.jpg", "height": 40, "width": 60}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [[10, 5, 29, 5, 29, 14, 10, 14]]},
            {"id": 2, "image_id": 7, "category_id": 0, "segmentation": [[40, 5, 50, 5, 50, 30]]},
        ],
    }
    (tmp_path / "Val_poly.json").write_text(json.dumps(coco))
    (sample,) = open_data(tmp_path)
    expected = np.zeros((40, 60), np.float32)
    expected[5:15, 10:30] = 1
    np.testing.assert_array_equal(sample.load()[1], expected)
    coco["categories"][1]["name"] = "Forged"
    (tmp_path / "Val_poly.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match="none of its categories is named Fake"):
        open_data(tmp_path)
    (tmp_path / "Val_poly.json").write_text("{}")
    with pytest.raises(DataError, match="not in COCO's words: KeyError: 'categories'"):
        open_data(tmp_path)


def test_films_of_masks(sets: dict[str, Path]) -> None:
    fake = next(s for s in open_data(sets["faceforensics"]) if s.truth.forged)
    masks = list(fake.masks())
    assert len(masks) == 32
    assert 0.02 < np.mean(masks) < 0.6
    real = next(s for s in open_data(sets["faceforensics"]) if not s.truth.forged)
    with pytest.raises(DataError, match="no film of masks"):
        next(real.masks())


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("coverage", "mask/2forged.tif"),
        ("imd2020", "1a2b3c/c8x1a2b3c_0_mask.png"),
        ("dso-1", "DSO-1-Fake-Images-Masks/splicing-02.png"),
        ("casia-v1", "groundtruth/Sp_D_CRN_A_ani0061_ani0066_0061_gt.png"),
        ("faceforensics", "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4"),
    ],
)
def test_a_missing_mask_is_named(name: str, mask: str, sets: dict[str, Path], tmp_path: Path) -> None:
    away = tmp_path / "away"
    os.rename(sets[name] / mask, away)
    try:
        stem = Path(mask).stem.removesuffix("_gt").removesuffix("_mask").replace("forged", "t")
        with pytest.raises(DataError, match=rf"{stem}\.\w+: no (mask|film) in"):
            open_data(sets[name])
    finally:
        os.rename(away, sets[name] / mask)


def test_a_mask_of_another_size_is_resized_only_where_this_is_said(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    small = np.zeros((20, 30), np.uint8)
    small[5:10] = 255
    cv2.imwrite(str(tmp_path / "m.png"), small)
    for fit in ("0", "1"):
        (tmp_path / "manifest.csv").write_text(f"path,label,mask,fit\na.png,1,m.png,{fit}\n")
        (sample,) = open_data(tmp_path)
        if fit == "0":
            with pytest.raises(DataError, match="60x40, its mask 30x20"):
                sample.load()
        else:
            mask = sample.load()[1]
            assert mask is not None
            assert np.flatnonzero(mask[:, 0]).tolist() == list(range(10, 20))


# ----------------------------------------------------------------------------------------------------- metadata


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"fake_segments": [[1, 2]]}, {"video": [(1, 2)], "audio": [(1, 2)]}),
        ({"visual_fake_segments": [[1, 2]], "audio_fake_segments": [[3, 4]]}, {"video": [(1, 2)], "audio": [(3, 4)]}),
        ([{"fake_periods": [[1, 2]], "audio_fake_segments": [[3, 4]]}], {"video": [(1, 2)], "audio": [(3, 4)]}),
        ({"begin": 1, "finish": 2}, r"forged spans of its video; known: visual_fake_segments.*; found: begin, finish"),
        ({"fake_segments": []}, "lies in fake_audio_fake_visual, but lists 0 forged spans of video"),
        ([1, 2], "not an object but a list"),
    ],
)
def test_ddl_av_takes_the_fields_it_finds(tmp_path: Path, facts: Any, expected: Any) -> None:
    folder = tmp_path / "fake" / "fake_audio_fake_visual"
    write_json(folder / "a.json", facts)
    (folder / "a.mp4").touch()
    if isinstance(expected, str):
        with pytest.raises(DataError, match=rf"a\.json: .*{expected}"):
            open_data(tmp_path)
        return
    (sample,) = open_data(tmp_path)
    assert sample.kind == "audio_visual"
    for modality, spans in expected.items():
        assert [(s.start, s.end) for s in sample.truth.segments if s.modality == modality] == spans


def test_numbers_that_begin_anew_in_every_split_are_no_groups(tmp_path: Path) -> None:
    miniature("plain", tmp_path / "train")
    miniature("plain", tmp_path / "valid", seed=1)
    assert [s.group for s in open_data(tmp_path)][:2] == ["train/000001", "train/000002"]
    assert check(tmp_path).findings == ()


def test_av_deepfake1m(tmp_path: Path, sets: dict[str, Path]) -> None:
    for name in ("av-deepfake1m", "av-deepfake1m++"):
        assert kinds(sets[name]) == {"authentic": 2, "video": 2, "audio": 2, "audio_visual": 2}
    sample = open_data(sets["av-deepfake1m"])[1]
    unlabelled = sets["av-deepfake1m"] / "test" / "000001.mp4"
    unlabelled.parent.mkdir()
    unlabelled.touch()
    assert check(sets["av-deepfake1m"]).findings == ()
    assert (sample.group, sample.truth.media.fps, sample.truth.media.duration) == ("id00013", 25.0, 1.28)
    row = {"file": "id1/a.mp4", "modify_type": "both-modified", "fake_segments": [[0, 1]], "video_frames": 50}
    row |= {"visual_fake_segments": [[0, 1]], "audio_fake_segments": [[0, 1]], "audio_frames": 32000, "original": None}
    for modified, words in (("both-modified", ""), ("both_modified", ""), ("audio_modified", "1 visual segments")):
        write_json(tmp_path / "val_metadata/id1/a.json", row | {"modify_type": modified})
        if words:
            with pytest.raises(DataError, match=words):
                open_data(tmp_path)
        else:
            assert open_data(tmp_path)[0].kind == "audio_visual"
    write_json(tmp_path / "val_metadata.json", [row | {"modify_type": "forged"}])
    with pytest.raises(DataError, match=r"clip number 0: .*modify_type is 'forged'; known: real, visual_modified"):
        open_data(tmp_path)


def test_celeb_dfs_list_says_one_for_real(tmp_path: Path) -> None:
    miniature("celeb-df", tmp_path)
    listed = tmp_path / "List_of_testing_videos.txt"
    listed.write_text(listed.read_text().replace("1 Celeb-real", "0 Celeb-real", 1))
    with pytest.raises(DataError, match=r"line 1: calls Celeb-real/id2_0000\.mp4 0, but 1 is real"):
        open_data(tmp_path)


def test_benco_pairs_by_order_where_names_differ(tmp_path: Path) -> None:
    for folder, names in (("Tp", "ab"), ("Gt", "xy")):
        (tmp_path / folder).mkdir()
        for i, name in enumerate(names):
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), np.full((9, 9 + i), 255, np.uint8))
    assert [Path(str(s.truth.artifacts.mask)).name for s in open_data(tmp_path)] == ["x.png", "y.png"]
    (tmp_path / "Gt/y.png").unlink()
    with pytest.raises(DataError, match="2 pictures in Tp/ but 1 masks in Gt/"):
        open_data(tmp_path)


def test_partialspoofs_labels_are_spans() -> None:
    assert spoofed(np.array(list("1100011101")), 0.16) == [(0.32, 0.8), (1.28, 1.44)]
    assert spoofed(np.array([1, 1]), 0.16) == []
    assert spoofed(np.array([0, 0]), 0.5) == [(0.0, 1.0)]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo evil",)


def test_labels_are_read_without_trusting_the_pickle(tmp_path: Path, sets: dict[str, Path]) -> None:
    held = load_labels(next((sets["partialspoof"] / "segment_labels").glob("train*")))
    assert held["CON_T_0000001"].tolist() == list("11000011")
    bad = tmp_path / "a.npy"
    np.save(bad, np.array({"a": Evil()}, dtype=object))
    with pytest.raises(DataError, match=r"asks for (posix|nt)\.system"):
        load_labels(bad)
    for data in (b"", b"nothing", pickle.dumps(1)):
        bad.write_bytes(data)
        with pytest.raises(DataError, match=r"a\.npy: not numpy's arrays"):
            load_labels(bad)
    np.save(bad, np.zeros(3))
    with pytest.raises(DataError, match=r"a\.npy"):
        load_labels(bad)


def test_protocols_and_labels_must_agree(tmp_path: Path) -> None:
    miniature("partialspoof", tmp_path)
    protocol = next(tmp_path.rglob("*train.trl.txt"))
    text = protocol.read_text()
    protocol.write_text(text.replace("CON spoof", "- bonafide", 1))
    with pytest.raises(DataError, match="the protocol calls it bonafide, but 1 spans of it are spoofed"):
        open_data(tmp_path)
    protocol.write_text(text.replace("CON spoof", "CON fake", 1))
    with pytest.raises(DataError, match=r"line 2: neither bonafide nor spoof in 'LA_0079"):
        open_data(tmp_path)


# ------------------------------------------------------------------------------------------------------ the manifest


def test_a_manifest_of_ones_own(tmp_path: Path, sets: dict[str, Path]) -> None:
    film, sound = sorted(sets["lav-df"].rglob("*.mp4"))[0], sorted(sets["psynd"].rglob("*.wav"))[0]
    rows = [
        "path,label,mask,video,audio,modality,split,group,kind",
        "a.png,real,,,,,train,,",
        "b.png,fake,b_mask.png,,,,test,cam,splice",
        f"{film},1,,0.2-0.5;0.6-1,,,train,,",
        f"{film},1,,,,audio_visual,train,,",
        f"{sound},spoof,,,,,train,,",
        f"{sound},bonafide,,,,,train,,",
    ]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    real, fake, spans, whole, spoof, bona = open_data(tmp_path / "mine.csv")
    assert (real.group, real.kind, real.split, fake.group, fake.kind) == (
        "a.png",
        "authentic",
        "train",
        "cam",
        "splice",
    )
    assert [(s.start, s.end, s.modality) for s in spans.truth.segments] == [(0.2, 0.5, "video"), (0.6, 1.0, "video")]
    assert {s.modality for s in whole.truth.segments} == {"video", "audio"}
    assert [(s.start, s.modality) for s in spoof.truth.segments] == [(0.0, "audio")]
    assert not bona.truth.forged
    lines = [{"path": "a.png", "label": 0}, {"path": "b.png", "label": 1, "mask": "m.png", "inverted": True}]
    (tmp_path / "manifest.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    assert [s.inverted for s in open_data(tmp_path)] == [False, True]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.png,maybe,,", "label is 'maybe'; known: 1, 0, true"),
        ("a.mp4,1,,", r"a\.mp4: a forged clip needs spans in video or audio, or modality"),
        ("a.mp4,1,2-1,", r"\['2', '1'\] is not a span"),
        ("a.mp4,0,1-2,", "label is 0, but it lists 1 forged spans"),
        ("a.mp4,1,soon,", "ValueError"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, row: str, words: str) -> None:
    (tmp_path / "manifest.csv").write_text(f"path,label,video,audio\nb.png,0,,\n{row}\n")
    with pytest.raises(DataError, match=rf"manifest\.csv, line 3: .*{words}"):
        open_data(tmp_path)


def test_a_csv_without_labels_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,kind\n")
    with pytest.raises(DataError, match="no data set here"):
        open_data(tmp_path)


# -------------------------------------------------------------------------------------------------------- the page

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    printed = ""
    for kind, block in blocks:
        if kind == "sh":
            for line in block.splitlines():
                result = typer.testing.CliRunner().invoke(app, shlex.split(line)[1:])
                assert result.exit_code == 0, result.output
                printed = result.stdout
        elif kind == "text":
            assert block == printed
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, "data.md", "exec"), {})
    assert json.loads(Path("findings.json").read_text())["errors"] == 0


def test_the_manifest_of_the_page_is_read(tmp_path: Path, sets: dict[str, Path]) -> None:
    (text,) = re.findall(r"^```csv\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "manifest.csv").write_text(text)
    sound = tmp_path / "clips/2.wav"
    sound.parent.mkdir()
    sound.write_bytes(sorted(sets["psynd"].rglob("*.wav"))[0].read_bytes())
    samples = open_data(tmp_path)
    assert [s.truth.forged for s in samples] == [False, True, True, True]
    assert [s.kind for s in samples] == ["authentic", "splice", "lipsync", "tts"]
    assert [len(s.truth.segments) for s in samples] == [0, 0, 3, 1]
    names = re.findall(r"^\| (`\w+`.*?) \|", PAGE.split("## A manifest")[1], re.MULTILINE)
    fields = set(re.findall(r"`(\w+)`", " ".join(names)))
    assert fields - KINDS.keys() == FIELDS


def test_the_tables_of_the_page_are_complete() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| .* \| (\S.*?) \|$", PAGE, re.MULTILINE)
    layouts = {name: set(re.findall(r"`(\S+?)`", last)) for name, last in rows if name in LAYOUTS}
    assert layouts.keys() == LAYOUTS.keys()
    assert set().union(*layouts.values()) == MINIATURES.keys()
    for kind, (error, words) in KINDS.items():
        assert f"| `{kind}` | {'error' if error else 'warning'} | {words} |" in PAGE
