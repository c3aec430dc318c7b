"""The training loop: recipes, schedule, freezing, averaging, and above all exact resuming."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seamline import zoo
from seamline.data import open_data
from seamline.detectors.base import Finding, ImageDetector, Windowing
from seamline.detectors.loupe import PRESETS
from seamline.errors import DataError
from seamline.evaluate import evaluate
from seamline.feeds import Photos, feed
from seamline.synthesis.clips import KINDS
from seamline.train import Recipe, Stage, Windows, _detector, _fits, _follow, read_recipe, train, wsd

RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class ToySizes:
    width: int = 4


class ToyTargets(NamedTuple):
    label: Tensor  # (B,)
    mask: Tensor  # (B, h, w)


class ToyOutputs(NamedTuple):
    logit: Tensor  # (B,)
    map: Tensor  # (B, h, w)


class Toy(ImageDetector):
    """A detector of three layers, with everything that could disturb resuming: norm, dropout, random losses."""

    parts = {"backbone": "backbone", "segmentor": "segmentor"}  # noqa: RUF012  a ClassVar

    def __init__(self, sizes: ToySizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.windowing = Windowing(side=64)
        self.loss_weights = {"image": 1.0, "mask": 2.0}
        self.backbone = nn.Sequential(nn.Conv2d(3, sizes.width, 3, padding=1), nn.BatchNorm2d(sizes.width), nn.ReLU())
        self.segmentor = nn.Sequential(nn.Dropout(0.2), nn.Conv2d(sizes.width, 1, 1))

    def preprocess(self, rgb: npt.NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(rgb.astype(np.float32) / 255).permute(2, 0, 1)

    def targets(self, masks: Sequence[npt.NDArray[np.floating[Any]] | None]) -> ToyTargets:
        side = next((m.shape for m in masks if m is not None), (64, 64))
        maps = [np.zeros(side, np.float32) if m is None else m.astype(np.float32) for m in masks]
        return ToyTargets(torch.tensor([float(m is not None) for m in masks]), torch.from_numpy(np.stack(maps)))

    def forward(self, pixels: Tensor, targets: Any = None) -> ToyOutputs:
        found = self.segmentor(self.backbone(pixels))[:, 0]
        return ToyOutputs(found.mean((1, 2)), found)

    def criterion(
        self, outputs: ToyOutputs, targets: ToyTargets, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        picked = torch.rand(targets.mask.shape, generator=generator) < 0.5
        bce = nn.functional.binary_cross_entropy_with_logits
        return {
            "image": bce(outputs.logit, targets.label),
            "mask": bce(outputs.map[picked], targets.mask[picked]),
        }

    def postprocess(self, outputs: ToyOutputs, sizes: Sequence[tuple[int, int]]) -> list[Finding]:
        return [Finding(float(z), m.sigmoid(), {}) for z, m in zip(outputs.logit, outputs.map, strict=True)]

    def combine(self, findings: Sequence[Finding]) -> float:
        return max(finding.logit for finding in findings)


RECIPE = Recipe(
    model="toy",
    stage=(
        Stage("first", steps=9, batch=3, accumulation=2, lr=1e-2),
        Stage("second", steps=5, batch=4, lr=1e-2, train=("segmentor",)),
    ),
    crop=64,
    validate_every=4,
    validate_samples=6,
    save_every=3,
    log_every=1,
    holdout=0.25,
    workers=0,
    tensorboard=False,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two threads only get in each other's way on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forge folder of 16 pictures of noise, every second one with a smooth patch in it."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    (root / "media").mkdir()
    (root / "masks").mkdir()
    rows = []
    for i in range(16):
        rgb = rng.integers(0, 256, (96, 104, 3), np.uint8)
        mask = np.zeros((96, 104), np.uint8)
        if i % 2:
            mask[24:60, 16:70] = 255
            rgb[mask > 0] = 128
            cv2.imwrite(str(root / f"masks/{i}.png"), mask)
        cv2.imwrite(str(root / f"media/{i}.png"), rgb)
        rows.append(
            {"path": f"media/{i}.png", "mask": f"masks/{i}.png" if i % 2 else None, "label": i % 2, "seed": i}
            | {"kind": "splice" if i % 2 else "authentic", "source": f"{i}", "group": f"g{i // 4}", "sha256": None}
        )
    (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def losses(out: Path) -> list[dict[str, str]]:
    """The rows of log.csv without their times."""
    with (out / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def run(data: Path, out: Path, recipe: Recipe = RECIPE, **options: Any) -> Path:
    torch.manual_seed(0)
    return train(recipe, data, out, device="cpu", detector=Toy(ToySizes()), progress=False, **options)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    run(data, out)
    return out


def test_run_leaves_everything(whole: Path) -> None:
    names = {"best.safetensors", "last.safetensors", "state.safetensors", "run.json", "log.csv", "validation.csv"}
    assert {path.name for path in whole.iterdir()} == names
    about = json.loads((whole / "run.json").read_text())
    assert about["finished"]
    assert about["data"]["samples"] == 16
    assert about["data"]["held_out"] == 4
    assert len(losses(whole)) == 14
    assert about["recipe"]["stage"][1]["train"] == ["segmentor"]


def test_stopped_and_resumed_equals_undisturbed(data: Path, whole: Path, tmp_path: Path) -> None:
    """Stop after every step, even between the two stages: losses, scores and weights stay the same, bit for bit."""
    for _ in range(16):
        run(data, tmp_path, max_minutes=0.0)
    assert losses(tmp_path) == losses(whole)
    assert (tmp_path / "validation.csv").read_text() == (whole / "validation.csv").read_text()
    for name in ("best", "last"):
        ours, theirs = load_file(tmp_path / f"{name}.safetensors"), load_file(whole / f"{name}.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)


KILLED = """
import sys, torch
from pathlib import Path
from tests.test_train import run
torch.set_num_threads(int(sys.argv[3]))
run(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_killed_and_resumed_equals_undisturbed(data: Path, whole: Path, tmp_path: Path) -> None:
    """A real kill -9 in the midst of a run, then the rest: the log is that of the undisturbed run, bit for bit."""
    log, here = tmp_path / "log.csv", Path(__file__).parents[1]
    command = [sys.executable, "-c", KILLED, str(data), str(tmp_path), str(torch.get_num_threads())]
    process = subprocess.Popen(command, cwd=here)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if log.is_file() and len(log.read_text().splitlines()) > 6:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL
    done = len(losses(tmp_path))
    assert 5 <= done < 14
    run(data, tmp_path)
    assert losses(tmp_path) == losses(whole)


def test_resuming_a_finished_run_changes_nothing(data: Path, whole: Path) -> None:
    before = (whole / "log.csv").read_text(), (whole / "last.safetensors").read_bytes()
    assert run(data, whole) == whole / "best.safetensors"
    assert ((whole / "log.csv").read_text(), (whole / "last.safetensors").read_bytes()) == before


def test_state_of_another_recipe_is_refused(data: Path, whole: Path) -> None:
    with pytest.raises(DataError, match="another seed, crop"):
        run(data, whole, dataclasses.replace(RECIPE, crop=56, seed=1))


def test_starting_over_forgets_the_other_run(data: Path, whole: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(RECIPE, seed=1)
    run(data, tmp_path, other, max_minutes=0.0)
    assert losses(tmp_path) != losses(whole)[:1]
    run(data, tmp_path, max_minutes=0.0, resume=False)
    assert losses(tmp_path) == losses(whole)[:1]
    assert not (tmp_path / "best.safetensors").exists()


def test_workers_change_nothing(data: Path, whole: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, workers=1, stage=RECIPE.stage)
    run(data, tmp_path, recipe, max_minutes=0.0)
    assert losses(tmp_path) == losses(whole)[:1]


def test_signal_stops_and_saves(data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the second step ends the run after that step, with its state saved; resuming is exact."""
    forward, calls = Toy.forward, 0

    def signalled(self: Toy, pixels: Tensor, targets: Any = None) -> ToyOutputs:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, pixels, targets)

    with monkeypatch.context() as patched:
        patched.setattr(Toy, "forward", signalled)
        run(data, tmp_path)
    assert len(losses(tmp_path)) == 2
    assert not json.loads((tmp_path / "run.json").read_text())["finished"]
    run(data, tmp_path)
    assert losses(tmp_path) == losses(whole)


def test_frozen_parts_do_not_move(data: Path, tmp_path: Path) -> None:
    """Not their weights, and not the running statistics of their norms."""
    stage = Stage("only", steps=4, batch=4, lr=1e-1, train=("segmentor",), warmup=0.0)
    run(data, tmp_path, dataclasses.replace(RECIPE, stage=(stage,), ema=0.0))
    torch.manual_seed(0)
    first, last = Toy(ToySizes()).state_dict(), load_file(tmp_path / "last.safetensors")
    for name, value in first.items():
        assert torch.equal(value, last[name]) == name.startswith("backbone."), name


def test_average_follows_the_weights() -> None:
    """a_t = d a_(t-1) + (1 - d) w_t, with d = min(decay, (1 + t) / (10 + t))."""
    network, average = Toy(ToySizes()), Toy(ToySizes())
    expected = average.segmentor[1].weight.detach().clone().double()
    for step in range(30):
        with torch.no_grad():
            network.segmentor[1].weight.copy_(torch.randn(1, 4, 1, 1))
        _follow(average, network, 0.6, step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.segmentor[1].weight.double()
    torch.testing.assert_close(average.segmentor[1].weight.double(), expected, rtol=1e-5, atol=1e-6)
    _follow(average, network, 0.0, 0)
    assert torch.equal(average.segmentor[1].weight, network.segmentor[1].weight)


def test_stage_can_weigh_losses(data: Path, tmp_path: Path) -> None:
    stage = Stage("image", steps=2, batch=4, lr=1e-3, loss_weights={"mask": 0.0})
    run(data, tmp_path, dataclasses.replace(RECIPE, stage=(stage,)))
    assert [float(row["total"]) for row in losses(tmp_path)] == [float(row["image"]) for row in losses(tmp_path)]


def test_stage_can_have_windows_of_its_own(data: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    class Watched(Toy):
        def forward(self, pixels: Tensor, targets: Any = None) -> ToyOutputs:
            seen.append(pixels.shape[-1])
            return super().forward(pixels)

    stages = tuple(Stage(f"of {crop}", steps=1, batch=2, lr=1e-3, crop=crop) for crop in (None, 48))
    recipe = dataclasses.replace(RECIPE, stage=stages, crop=32, near=1.0, forged=1.0, validate_every=0)
    train(recipe, data, tmp_path, detector=Watched(ToySizes()), device="cpu", progress=False)
    assert seen == [32, 48]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"loss_weights": {"box": 1.0}}, "stage 'later': no loss box; known: image, mask"),
        ({"train": ("encoder",)}, "stage 'later': no part encoder; known: backbone, segmentor"),
        ({"still": ("backbone.tail",)}, "stage 'later': Toy has no part 'backbone.tail'; it has backbone, segmentor"),
        ({"monitor": "ap"}, "stage 'later': no score ap; known: auc, f1, iou, mean"),
        ({"kinds": ("dream",)}, "stage 'later': no kind dream; known: "),
    ],
)
def test_a_stage_that_does_not_fit_is_refused_before_training(
    wrong: dict[str, Any], words: str, data: Path, tmp_path: Path
) -> None:
    stages = (*RECIPE.stage[:1], Stage("later", steps=2, batch=4, lr=1e-3, **wrong))
    with pytest.raises(DataError, match=words):
        run(data, tmp_path, dataclasses.replace(RECIPE, stage=stages))
    assert not (tmp_path / "log.csv").exists()


def test_windows_come_at_the_share_asked_for_and_each_once_a_round(data: Path) -> None:
    samples = open_data(data)
    recipe = dataclasses.replace(RECIPE, forged=0.25, near=1.0)
    meal = Photos(Toy(ToySizes()), 64, near=1.0)
    windows = Windows(samples, recipe, meal, 0, 0, 32)
    chosen = [windows._choose(i) for i in range(32)]
    assert sum(samples[i].truth.forged for i in chosen) == 8
    assert len(set(chosen)) == 16  # 8 forged once, 8 authentic three times
    later = Windows(samples, recipe, meal, 0, 20, 32)
    for i in range(3):
        np.testing.assert_array_equal(later[i][0], windows[20 + i][0])
    with pytest.raises(DataError, match="8 forged and 0 authentic"):
        Windows([s for s in samples if s.truth.forged], recipe, meal, 0, 0, 4)


def test_schedule() -> None:
    assert [wsd(i, 10, 0.2, 0.4) for i in (0, 1, 2, 5, 6)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert wsd(8, 10, 0.2, 0.4) == pytest.approx(0.5)
    assert wsd(10, 10, 0.2, 0.4) == wsd(12, 10, 0.2, 0.4) == 0.0
    assert [wsd(i, 4, 0.0, 0.0) for i in range(4)] == [1.0] * 4


# Multipliers before steps 0, 1, 4, 5, 45 .. 50 of 50, from the released code.
RELEASED = (
    0.0,
    0.2,
    0.8,
    1.0,
    1.0,
    0.9045084971874737,
    0.6545084971874737,
    0.34549150281252633,
    0.09549150281252633,
    0.0,
)


def test_schedule_is_that_of_the_released_code() -> None:
    assert [wsd(i, 50) for i in (0, 1, 4, 5, *range(45, 51))] == pytest.approx(RELEASED, abs=1e-12)


@pytest.mark.parity
def test_schedule_parity(shared: Path) -> None:
    table = json.loads((shared / "goldens/image/public/manifest.json").read_text())["wsd_schedule"]
    for total, rows in table["totals"].items():
        ours = [wsd(i, int(total), table["warmup"], table["decay"]) for i in rows["step"]]
        assert ours == pytest.approx(rows["multiplier"], abs=1e-12)


GOOD = 'model = "loupe-tiny"\n[[stage]]\nname = "a"\nsteps = 1\nbatch = 1\nlr = 1\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batsch = 3\n" + GOOD, "unknown key 'batsch'"),
        (GOOD + "batsch = 3\n", r"unknown key 'stage\[0\]\.batsch'"),
        (GOOD.replace("steps = 1\n", ""), r"missing key 'stage\[0\]\.steps'"),
        (GOOD.replace("batch = 1", 'batch = "1"'), r"'stage\[0\]\.batch' must be int"),
        (GOOD.replace("batch = 1", "batch = 1.5"), r"'stage\[0\]\.batch' must be int"),
        (GOOD.replace("batch = 1", "batch = true"), r"'stage\[0\]\.batch' must be int"),
        (GOOD.replace("batch = 1", "batch = 0"), "at least 1"),
        ("crop = 100\n" + GOOD, "'crop' must be a multiple of 8"),
        ('mixed_precision = "fp8"\n' + GOOD, "mixed_precision"),
        ('model = "loupe-tiny"\n', "missing key 'stage'"),
        ("model = \n", "not a readable recipe"),
    ],
    ids=range(11),
)
def test_recipes_are_strict(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(str(path))


def test_recipe_values(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("ema = 0\nsizes = {width = 8, scales = [2, 1]}\n" + GOOD + "loss_weights = {box = 2}\n")
    recipe = read_recipe(path)
    assert recipe.sizes == {"width": 8, "scales": [2, 1]}
    assert type(recipe.ema) is float
    assert recipe.stage[0].loss_weights == {"box": 2.0}
    assert recipe.stage[0].lr == 1.0


@pytest.mark.parametrize(
    "path", sorted([*RECIPES.glob("loupe-*.toml"), *RECIPES.glob("erf-*.toml")]), ids=lambda p: p.stem
)
def test_recipes_of_the_house(path: Path, tmp_path: Path) -> None:
    """Each can be read, fits its preset, and its stages name losses, parts, scores and modalities that exist."""
    recipe = read_recipe(path)
    detector = _detector(dataclasses.replace(recipe, init=None))
    meal = feed(detector, recipe.crop, recipe.near, tmp_path)
    for stage in recipe.stage:
        _fits(detector, stage, meal, [kind for kind, _ in KINDS])
        assert any((detector.loss_weights | stage.loss_weights).values())


def test_unknown_presets_and_sizes_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown model 'loupe-huge'; known: "):
        train(dataclasses.replace(RECIPE, model="loupe-huge"), data, tmp_path)
    with pytest.raises(DataError, match=r"sizes do not fit loupe-tiny: .*'widht'"):
        train(dataclasses.replace(RECIPE, model="loupe-tiny", sizes={"widht": 3}), data, tmp_path)


def test_tiny_loupe_from_recipe_to_weights(data: Path, tmp_path: Path) -> None:
    """The whole way with the real detector: recipe file, training, weights that the zoo loads."""
    path = tmp_path / "recipe.toml"
    text = (RECIPES / "loupe-tiny.toml").read_text()
    path.write_text(text.replace("steps = 20", "steps = 2").replace("validate_samples = 8", "validate_samples = 4"))
    best = train(path, data, tmp_path / "out", device="cpu", progress=False)
    detector, card = zoo.load_detector(best)
    assert card.detector == "loupe"
    assert detector.sizes == PRESETS["loupe-tiny"]
    row = evaluate(best, data, limit=4, progress=False)
    assert row["n"] == {"authentic": 4, "forged": 0, "unjudged": 0}
    assert row["model"]["sha256"] == hashlib.sha256(best.read_bytes()).hexdigest()
    about = json.loads((tmp_path / "out/run.json").read_text())
    assert about["recipe_text"] == path.read_text()
    assert about["versions"]["torch"] == torch.__version__


def test_a_network_with_more_inputs_starts_as_the_one_it_grew_from(tmp_path: Path) -> None:
    encoder = {"width": 32, "depth": 1, "statistics": False, "counts": False}
    sizes = {"encoder_sizes": encoder, "width": 32, "norm_groups": 8}
    small = dataclasses.replace(RECIPE, model="loupe-native", sizes=sizes)
    old = _detector(small).eval()
    zoo.save(old, tmp_path / "old.safetensors")
    more = {"statistics": True, "counts": True}
    begun = dataclasses.replace(small, init=str(tmp_path / "old.safetensors"))
    grown = _detector(dataclasses.replace(begun, sizes=sizes | {"encoder_sizes": encoder | more}))
    assert len(list(grown.parameters())) > len(list(old.parameters()))
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        ours, theirs = grown.eval()(pixels), old(pixels)
    torch.testing.assert_close(ours.logit, theirs.logit)
    torch.testing.assert_close(ours.sets[-1].masks, theirs.sets[-1].masks)
    words = (
        r"does not fit the recipe's model: segmentor.real is \(32,\) in the weights and \(16,\) there, and [0-9]+ more$"
    )
    with pytest.raises(DataError, match=words):
        _detector(dataclasses.replace(begun, sizes=begun.sizes | {"width": 16}))


def test_a_part_may_begin_anew(tmp_path: Path) -> None:
    """Also where it has other inputs: the rest is that of the weights it begins from."""
    plain = dataclasses.replace(RECIPE, model="erf-batfd-plus-tiny", sizes={"cues": False})
    zoo.save(_detector(plain), tmp_path / "old.safetensors")
    old = load_file(tmp_path / "old.safetensors")
    begun = dataclasses.replace(plain, sizes={"cues": True}, init=str(tmp_path / "old.safetensors"))
    new = _detector(dataclasses.replace(begun, fresh=("audio",))).state_dict()
    for name, tensor in new.items():
        assert name.startswith("audio.") or torch.equal(tensor, old[name])
    assert any(name.startswith("audio.") and name in old and not torch.equal(new[name], old[name]) for name in new)
    with pytest.raises(DataError, match="does not fit the recipe's model: audio"):
        _detector(begun)
    with pytest.raises(DataError, match="has no part 'ears'; it has video, audio, fusion, vote, pace"):
        _detector(dataclasses.replace(begun, fresh=("ears",)))


def test_training_in_bfloat16_stays_finite(data: Path, tmp_path: Path) -> None:
    sizes = {
        "encoder_sizes": {"width": 32, "depth": 3, "statistics": True, "counts": True},
        "width": 32,
        "norm_groups": 8,
    }
    stage = dataclasses.replace(RECIPE.stage[0], steps=3, batch=2, train=(), loss_weights={}, monitor="mean")
    recipe = dataclasses.replace(
        RECIPE, model="loupe-native", sizes=sizes, stage=(stage,), crop=64, mixed_precision="bf16", validate_every=0,
        log_every=1, ema=0.9,
    )  # fmt: skip
    train(recipe, data, tmp_path, device="cpu", progress=False)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert all(math.isfinite(float(row[key])) for row in rows for key in ("total", "grad_norm"))
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / "last.safetensors").values())
