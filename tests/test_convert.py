"""Checkpoints go through a door behind which they can do nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from seamline import zoo
from seamline.convert import convert, read
from seamline.detectors import batfd, loupe
from seamline.errors import WeightsError
from tests.test_cli import run


class Bomb:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda held, path: path.write_bytes(pickle.dumps(held))])
def test_code_in_a_checkpoint_is_refused(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "bomb.pth"
    save({"state_dict": {"x": Bomb(tmp_path / "harm")}}, path)
    with pytest.raises(WeightsError, match=r"bomb\.pth: cannot be read as weights"):
        read(path)
    assert [p.name for p in tmp_path.iterdir()] == ["bomb.pth"]


def test_a_released_checkpoint_becomes_ours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = batfd.PRESETS["ba-tfd-plus-tiny"].reference()
    original = batfd.BATFD(sizes)
    path, out = tmp_path / "released.ckpt", tmp_path / "ours.safetensors"
    torch.save(
        {"state_dict": original.state_dict(), "hyper_parameters": {"temporal_dim": sizes.ticks}, "epoch": 3}, path
    )
    result = run("convert", path, out, "--model", "ba-tfd-plus-tiny")
    assert result.exit_code == 0, result.output
    detector, card = zoo.load_detector(out)
    assert card.source == "converted from released.ckpt"
    for (name, a), b in zip(original.state_dict().items(), detector.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(WeightsError, match="try ba-tfd or ba-tfd-plus"):
        convert([path], out, "ba-tfd-tiny")


@pytest.mark.slow
def test_the_two_stages_of_loupe_become_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = loupe.Loupe(loupe.PRESETS["loupe-tiny"].reference())
    state = loupe.to_reference(original.state_dict())
    parts = [
        {k: v for k, v in state.items() if ("segmentor" in k or "seg" in k.split(".")[0]) is which}
        for which in (True, False)
    ]
    for number, part in enumerate(parts):
        torch.save({"module": part}, tmp_path / f"{number}.pt")
    out = convert([tmp_path / "0.pt", tmp_path / "1.pt"], tmp_path / "ours.safetensors", "loupe-tiny", licence="MIT")
    detector, card = zoo.load_detector(out)
    assert card.licence == "MIT"
    for (name, a), b in zip(original.state_dict().items(), detector.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_what_cannot_be_converted_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save([1, 2], path)
    for source, out, model, words in (
        (tmp_path / "gone.pt", "o.safetensors", "ba-tfd-plus", "cannot be read"),
        (path, "o.safetensors", "nonsense", "unknown model"),
        (path, "o.pt", "ba-tfd-plus", "written as .safetensors"),
    ):
        with pytest.raises(WeightsError, match=words):
            convert([source], tmp_path / out, model)
    with pytest.raises(WeightsError, match="holds no named tensors"):
        read(path)
    result = run("convert", path, tmp_path / "o.pt", "--model", "ba-tfd-plus")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)


def test_every_kind_of_tensor_comes_through(tmp_path: Path) -> None:
    held = {
        "half": torch.ones(2, 3, dtype=torch.bfloat16),
        "long": torch.tensor(7),
        "none": torch.empty(0, 4),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "plain": {"a": [1, None, "x", True, 2.5]},
    }
    torch.save(held, tmp_path / "x.pt")
    found = read(tmp_path / "x.pt")
    assert found.pop("plain") == held.pop("plain")
    for name, tensor in held.items():
        assert isinstance(tensor, torch.Tensor)
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
