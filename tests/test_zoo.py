"""Weights: saved with their sizes, loaded strictly, checked against their hash, never unpickled."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from seamline import SeamlineError, zoo
from seamline.cli import app
from seamline.detectors.loupe import Loupe, build
from seamline.errors import WeightsError


@pytest.fixture(scope="module")
def tiny() -> Loupe:
    torch.manual_seed(0)
    return build("loupe-tiny")


@pytest.fixture
def saved(tiny: Loupe, tmp_path: Path) -> Path:
    path = tmp_path / "sub" / "tiny.safetensors"
    zoo.save(tiny, path, threshold=0.7, calibration=[2.0, -1.0], licence="Apache-2.0", epoch=3)
    return path


def about(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["seamline"])


def rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> None:
    save_file(tensors or load_file(path), path, {"seamline": json.dumps(about(path) | changes)})


def test_saved_weights_come_back_as_they_were(tiny: Loupe, saved: Path) -> None:
    detector, card = zoo.load_detector(saved)
    assert detector.sizes == tiny.sizes
    assert not detector.training
    for (name, a), (_, b) in zip(tiny.state_dict().items(), detector.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert (card.name, card.detector, card.file) == ("tiny", "loupe", "tiny.safetensors")
    assert (card.threshold, card.calibration, card.mask_threshold) == (0.7, {"logit": 2.0, "bias": -1.0}, 0.5)
    assert card.licence == "Apache-2.0"
    assert card.sha256 == zoo._sha256(saved)
    assert about(saved)["facts"]["epoch"] == 3
    assert [p.name for p in saved.parent.iterdir()] == ["tiny.safetensors"]
    (saved.parent / "plain").touch()
    assert saved.stat().st_mode == (saved.parent / "plain").stat().st_mode


def test_saving_twice_gives_the_same_file(tiny: Loupe, saved: Path, tmp_path: Path) -> None:
    zoo.save(tiny, tmp_path / "b.safetensors", epoch=3, licence="Apache-2.0", calibration=[2.0, -1.0], threshold=0.7)
    assert (tmp_path / "b.safetensors").read_bytes() == saved.read_bytes()


def test_loading_leaves_the_random_generator_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    zoo.load_detector(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_built_to_be_read_is_not_drawn_and_the_next_is() -> None:
    fresh = torch.nn.Linear(4, 4)
    fresh.weight.data.fill_(7)
    with zoo.undrawn():
        fresh.reset_parameters()
    assert bool((fresh.weight == 7).all())
    fresh.reset_parameters()
    assert not bool((fresh.weight == 7).any())


def test_the_mean_of_weights(saved: Path, tmp_path: Path) -> None:
    files = [saved]
    for seed in (1, 2):
        torch.manual_seed(seed)
        other = build("loupe-tiny")
        for name, tensor in other.named_buffers():
            if name.endswith("num_batches_tracked"):
                tensor += seed
        files.append(tmp_path / f"{seed}.safetensors")
        zoo.save(other, files[-1])
    mean = zoo.average(files).state_dict()
    all_of_them = [load_file(file) for file in files]
    assert mean.keys() == all_of_them[0].keys()
    for name, tensor in mean.items():
        parts = torch.stack([state[name] for state in all_of_them])
        torch.testing.assert_close(tensor, parts.mean(0) if tensor.is_floating_point() else parts[0])

    out = tmp_path / "mean.safetensors"
    done = CliRunner().invoke(app, ["average", *map(str, files), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert all(tensor.equal(mean[name]) for name, tensor in load_file(out).items())
    assert zoo.facts(out) == zoo.facts(saved)

    with pytest.raises(WeightsError, match="erf-batfd-plus-light: of another network"):
        zoo.average([saved, "erf-batfd-plus-light"])
    with pytest.raises(WeightsError, match="no weights"):
        zoo.average([])


def test_half_precision_weights_load_into_full_precision(saved: Path) -> None:
    rewrite(saved, {k: v.half() if v.is_floating_point() else v for k, v in load_file(saved).items()})
    detector, _ = zoo.load_detector(saved)
    assert {p.dtype for p in detector.parameters()} == {torch.float32}


def test_every_misfit_is_refused(saved: Path) -> None:
    tensors = load_file(saved)
    key = next(iter(tensors))
    less = {k: v for k, v in tensors.items() if k != key}
    for wrong, said in [
        (less, f"1 missing ['{key}']"),
        (tensors | {"extra": torch.zeros(1)}, "1 not known ['extra']"),
        (less | {key: torch.zeros(3, 1, 4, 1, 5)}, "1 of another shape"),
    ]:
        rewrite(saved, wrong)
        with pytest.raises(WeightsError) as error:
            zoo.load_detector(saved)
        assert said in str(error.value)
        assert str(saved) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"detector": "crystal_ball"}, "crystal_ball"),
        ({"sizes": {"no_such_size": 1}}, "sizes do not fit"),
        ({"facts": {"calibration": "x"}}, "facts"),
        ({"facts": None}, "damaged metadata"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(saved: Path, changes: dict[str, Any], said: str) -> None:
    rewrite(saved, **changes)
    with pytest.raises(WeightsError, match=said):
        zoo.load_detector(saved)


def test_files_that_are_not_ours_are_refused(saved: Path, tmp_path: Path) -> None:
    foreign, cut, text = tmp_path / "foreign.safetensors", tmp_path / "cut.safetensors", tmp_path / "t.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    cut.write_bytes(saved.read_bytes()[:-10])
    text.write_text("hello")
    for path, said in [(foreign, "not written by seamline"), (cut, "not a whole"), (text, "not a whole")]:
        with pytest.raises(WeightsError, match=said):
            zoo.load_detector(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        zoo.load_detector(tmp_path / "absent.safetensors")
    with pytest.raises(WeightsError, match="unknown model 'nonsense'; known: loupe-native"):
        zoo.load_detector("nonsense")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
def test_pickles_are_never_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(WeightsError, match="can run code"):
        zoo.load_detector(path)
    shutil.copy(path, renamed := tmp_path / "evil.safetensors")
    with pytest.raises(WeightsError, match="not a whole"):
        zoo.load_detector(renamed)


class _Bomb:
    def __reduce__(self) -> Any:
        return (pytest.exit, ("a pickle was opened",))


def test_a_catalogue_name_is_verified_before_it_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = zoo.Card("one", "loupe", file=saved.name, sha256=zoo._sha256(saved), threshold=0.25)
    monkeypatch.setattr(zoo, "WEIGHTS", saved.parent)
    monkeypatch.setattr(zoo, "_catalogue", lambda: ({"one": card}, "one"))
    for name in ("one", "default"):
        _, found = zoo.load_detector(name)
        assert found == card  # the catalogue speaks, not the file
    saved.write_bytes(saved.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsError, match="SHA-256"):
        zoo.load_detector("one")


def test_facts_must_be_plain(tiny: Loupe, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="plain"):
        zoo.save(tiny, tmp_path / "a.safetensors", where=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_catalogue_is_whole() -> None:
    cards = zoo.models()
    assert cards[0].name == zoo._catalogue()[1]
    for card in cards:
        assert card.detector in zoo.detectors()
        assert 0 < card.threshold < 1
        assert 0 < card.mask_threshold < 1
        for fact in ("version", "licence", "training_data", "source", "input", "windowing"):
            assert getattr(card, fact) not in (None, "", "not stated"), (card.name, fact)


@pytest.mark.parametrize("card", zoo.models(), ids=lambda card: card.name)
def test_the_shipped_weights_match_the_catalogue(card: zoo.Card) -> None:
    detector, _ = zoo.load_detector(card.name)
    assert (zoo.WEIGHTS / str(card.file)).stat().st_size <= 16 * 2**20
    assert dataclasses.is_dataclass(detector.sizes)


def test_the_catalogue_needs_no_torch() -> None:
    code = "import sys, seamline.cli; seamline.models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_weights_errors_are_of_the_family() -> None:
    assert issubclass(WeightsError, SeamlineError)
