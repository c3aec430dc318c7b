"""UMMAFormer in reference mode against recorded outputs of the released code (../shared/goldens/av)."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seamline.detectors.ummaformer import (
    FeatureItem,
    UMMAFormer,
    UMMAFormerSizes,
    from_released,
    learning_rate,
    offset_loss,
)
from seamline.heads.context import CrossBlock, PyramidNeck, Reconstruction, SelfBlock
from seamline.heads.proposals import gaussian_nms_voting
from seamline.losses import poly1_focal
from tests.parity_table import record

SHARED = Path(__file__).parents[1].parent / "shared"
GOLDENS = SHARED / "goldens" / "av"
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not GOLDENS.is_dir(), reason="the goldens are not here (../shared/goldens/av)"),
]

GRID, LOSS, GRADIENT, EXACT = 5e-5, 5e-6, 1e-5, 1e-12  # GRID: tolerance of the goldens' README
SIZES = UMMAFormerSizes(visual=14, audio=8, grid=192, width=16, neck=12).reference()
CELLS = [192, 96, 48, 24, 12, 6]  # of the levels
FILE = "ummaformer"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDENS / "public" / "ummaformer" / "all.safetensors")


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((GOLDENS / "public" / "ummaformer" / "all.json").read_text())
    return data


@pytest.fixture(scope="module")
def make() -> Callable[..., Tensor]:
    """The goldens' recipe for what is too large to store: (seed, name, shape, kind) to a tensor."""
    spec = importlib.util.spec_from_file_location("av_recipe", GOLDENS / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *args: torch.from_numpy(module.make(*args))


@pytest.fixture(scope="module")
def state(manifest: dict[str, Any], make: Callable[..., Tensor]) -> dict[str, Tensor]:
    return {name: make(3020, name, shape, kind) for name, shape, kind in manifest["model"]["state_recipe"]}


@pytest.fixture
def model(state: dict[str, Tensor]) -> UMMAFormer:
    return from_released(state, SIZES)


def close(what: str, ours: Tensor, theirs: Tensor, tolerance: float = GRID) -> None:
    assert ours.shape == theirs.shape
    record(FILE, what, (ours.detach() - theirs).abs().max().item(), tolerance)


def filled(module: nn.Module, golden: dict[str, Tensor], name: str) -> Any:
    start = f"{name}.state."
    module.load_state_dict({key.removeprefix(start): v for key, v in golden.items() if key.startswith(start)})
    return module.eval()


@pytest.mark.parametrize(
    ("name", "window", "stride"), [("block_local", 7, 1), ("block_local_ds", 7, 2), ("block_global", 0, 2)]
)
def test_self_block(golden: dict[str, Tensor], name: str, window: int, stride: int) -> None:
    block = filled(SelfBlock(16, 4, window=window, stride=stride), golden, name)
    close(name, block(golden["x"], golden["mask"]), golden[f"{name}.y"])
    if stride == 2 and window:
        assert golden["mask"][..., ::2].equal(golden[f"{name}.mask"])


def test_cross_block(golden: dict[str, Tensor]) -> None:
    x, k, v, mask = (golden[name] for name in ("x", "k", "v", "mask"))
    block = filled(CrossBlock(16, 4), golden, "mm_local")
    attended = block.attn(block.lnq(x), block.lnk(k), block.lnv(v), mask)
    close("cross block, its attention", attended, golden["mm_local.attn_out"])
    close("cross block", block(x, k, v, mask), golden["mm_local.y"])
    close("cross block as TFAA", block(x, k, x, mask), golden["mm_local.y_tfaa"])


def test_neck(golden: dict[str, Tensor]) -> None:
    neck = filled(PyramidNeck(16, 12, 3), golden, "neck")
    levels = neck([golden[f"neck.in{i}"] for i in range(3)], [golden[f"neck.mask{i}"] for i in range(3)])
    for i, level in enumerate(levels):
        close(f"neck, level {i}", level, golden[f"neck.out{i}"])


def test_reconstruction(golden: dict[str, Tensor], manifest: dict[str, Any], make: Callable[..., Tensor]) -> None:
    facts, mask = manifest["modules"]["interp"], golden["interp.mask"]
    branch = Reconstruction(22, 16, linear=False, masked=False).eval()
    branch.load_state_dict({name: make(facts["seed"], name, shape, kind) for name, shape, kind in facts["state"]})
    x = make(manifest["seed"], *facts["x"][:3]) * mask
    assert x[:, :4].equal(golden["interp.x_recipe_head"])
    made = branch(x, mask)
    close("reconstruction", made.signal, golden["interp.reco"])
    close("reconstruction, logit of the clip", made.logit[:, None], golden["interp.cls"])


@pytest.mark.parametrize("name", ["full", "short"])
def test_full_model(model: UMMAFormer, golden: dict[str, Tensor], manifest: dict[str, Any], name: str) -> None:
    kept: dict[str, Any] = {}
    model.backbone.register_forward_hook(lambda *args: kept.update(backbone=args[2][0]))
    model.neck.register_forward_hook(lambda *args: kept.update(fpn=args[2]))
    frames = manifest["params"]["frames"]
    item = FeatureItem(golden[f"{name}.feats"], None, frames / 192, 25.0, frames / 25)
    with torch.no_grad():
        outputs = model(model.collate([item]))
    kept["cls"] = [logits[:, None] for logits in outputs.logits.split(CELLS, 1)]
    kept["off"] = [offsets.transpose(1, 2) for offsets in outputs.offsets.split(CELLS, 1)]
    for part, what in (("backbone", "backbone"), ("fpn", "neck"), ("cls", "logits"), ("off", "offsets")):
        for level in range(6):
            close(f"{name} input, {what} {level}", kept[part][level], golden[f"{name}.{part}{level}"])

    spans, scores = model.candidates(outputs)[0]
    theirs = golden[f"{name}.pre_nms_segments"]  # twice the tolerance: 7.4e-5 was seen on one processor
    close(f"{name} input, spans before suppression", torch.from_numpy(spans), theirs, 2 * GRID)
    close(f"{name} input, scores before suppression", torch.from_numpy(scores), golden[f"{name}.pre_nms_scores"])
    ranked = torch.from_numpy(model.detections(outputs, [item])[0]).float()
    close(f"{name} input, final scores", ranked[:, 0], golden[f"{name}.scores"])
    close(f"{name} input, final spans, seconds", ranked[:, 1:], golden[f"{name}.segments"])


def test_points_and_assignment(model: UMMAFormer, golden: dict[str, Tensor], manifest: dict[str, Any]) -> None:
    points = model.points(192)
    close("points", points, golden["points"], EXACT)
    truths = [truth for truth in manifest["train"]["gt"] if truth]
    for i, truth in enumerate(truths):
        answers, offsets = model.assign(points, torch.tensor(truth)[None])
        close(f"assignment {i}, classes", answers[0].float(), golden[f"label{i}.cls"][:, 0], EXACT)
        chosen = answers[0]
        close(f"assignment {i}, offsets", offsets[0][chosen], golden[f"label{i}.reg"][chosen], EXACT)


def test_elementary_losses(golden: dict[str, Tensor]) -> None:
    logits = golden["focal.logit"].requires_grad_()
    loss = poly1_focal(logits, golden["focal.target"], 0.25, epsilon=0.0).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    close("focal loss", loss, golden["focal.sum"], LOSS)
    close("focal loss, gradient", gradient(logits), golden["focal.grad"], LOSS)
    offsets = golden["diou.pred"].requires_grad_()
    each = offset_loss(offsets, golden["diou.target"])
    each.sum().backward()  # type: ignore[no-untyped-call]
    close("offset loss", each, golden["diou.each"], LOSS)
    close("offset loss, sum", each.sum(), golden["diou.sum"], LOSS)
    close("offset loss, gradient", gradient(offsets), golden["diou.grad"], LOSS)


def gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad


def training_items(manifest: dict[str, Any], make: Callable[..., Tensor]) -> list[FeatureItem]:
    items = []
    for i, truth in enumerate(manifest["train"]["gt"]):
        length = manifest["params"]["feat_len"] if i == 0 else 192
        features = make(manifest["seed"], f"tr{i}", (22, length), "normal")
        items.append(FeatureItem(features, torch.tensor(truth) if truth else None, 1.0, 25.0, 8.0))
    return items


NAMES = {"cls": "cls_loss", "reg": "reg_loss", "reco": "reco_loss", "vid": "reco_cls_loss"}


def losses_of(model: UMMAFormer, items: list[FeatureItem]) -> dict[str, Tensor]:
    outputs = model.eval()(model.collate(items))  # the goldens were recorded without drop-path and dropout
    return model.train().criterion(outputs, model.feature_targets(items))


def test_training_losses_and_gradients(
    model: UMMAFormer, manifest: dict[str, Any], make: Callable[..., Tensor]
) -> None:
    expected = manifest["train"]
    losses = losses_of(model, training_items(manifest, make))
    for name, theirs in NAMES.items():
        record(FILE, f"training, loss {name}", abs(losses[name].item() - expected["losses"][theirs]), LOSS)
    total = torch.stack([model.loss_weights[name] * loss for name, loss in losses.items()]).sum()
    record(FILE, "training, total loss", abs(total.item() - expected["losses"]["final_loss"]), LOSS)
    running = abs(model.normaliser.item() - expected["loss_normalizer_after"])
    record(FILE, "training, running number of positives", running, 2e-5)
    total.backward()  # type: ignore[no-untyped-call]
    worst_norm = worst_sum = 0.0
    for name, parameter in model.named_parameters():
        theirs = expected["grad_norm_and_sum"][name]
        if theirs is None:
            assert parameter.grad is None, name
            continue
        ours, scale = gradient(parameter).double(), max(theirs[0], 1e-2)
        worst_norm = max(worst_norm, abs(ours.norm().item() - theirs[0]) / scale)
        worst_sum = max(worst_sum, abs(ours.sum().item() - theirs[1]) / scale / ours.numel() ** 0.5)
    record(FILE, "training, 608 gradient norms, relative", worst_norm, GRADIENT)
    record(FILE, "training, 608 gradient sums, relative to norm", worst_sum, GRADIENT)


def test_training_without_real_or_forged_clips(
    model: UMMAFormer, manifest: dict[str, Any], make: Callable[..., Tensor]
) -> None:
    items = training_items(manifest, make)
    losses = losses_of(model, [item for item in items if item.segments is not None])
    expected = manifest["no_real_video"]
    for name in ("cls", "reg", "vid"):
        record(FILE, f"no real clip, loss {name}", abs(losses[name].item() - expected["losses"][NAMES[name]]), LOSS)
    assert losses["reco"].isnan()
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    wrong = sum(not p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    record(FILE, "no real clip, gradients not finite", abs(wrong - expected["params_with_nonfinite_grad"]), EXACT)
    assert manifest["no_fake_video"].startswith("RuntimeError")
    with pytest.raises(RuntimeError, match="without a forged clip"):
        losses_of(model, [item for item in items if item.segments is None])


@pytest.mark.parametrize("i", [0, 1])
def test_suppression_and_voting(golden: dict[str, Tensor], i: int) -> None:
    spans, scores = golden[f"nms{i}.in_segs"].numpy(), golden[f"nms{i}.in_scores"].numpy()
    for vote in (0.9, 0.0):
        ranked = torch.from_numpy(gaussian_nms_voting(np.column_stack([scores, spans]), vote=vote))
        close(f"suppression {i}, voting {vote}, scores", ranked[:, 0], golden[f"nms{i}.scores_v{vote}"], 1e-6)
        close(f"suppression {i}, voting {vote}, spans", ranked[:, 1:], golden[f"nms{i}.segs_v{vote}"])


def test_learning_rate(manifest: dict[str, Any]) -> None:
    facts = manifest["lr_schedule"]
    ours = [learning_rate(step, facts["warmup_steps"], facts["max_steps"], facts["base"]) for step in range(41)]
    record(FILE, "learning rate, 41 steps", np.abs(np.subtract(ours, facts["values"])).max(), EXACT)


def test_decayed_parameters(model: UMMAFormer, manifest: dict[str, Any]) -> None:
    ours = {name for name, parameter in model.named_parameters() if model.decays(name, parameter)}
    record(FILE, "decay, parameters that differ", len(ours ^ set(manifest["decayed"])), EXACT)
    counts = {0.0: 0, 0.05: 0}
    for group in model.parameter_groups(1e-3, 0.05):
        counts[group["weight_decay"]] += len(group["params"])
    assert counts == {group["weight_decay"]: group["n"] for group in manifest["optimizer_groups"]}


def test_dataset_items(golden: dict[str, Tensor], manifest: dict[str, Any]) -> None:
    model = UMMAFormer(dataclasses.replace(SIZES, visual=11, audio=4, grid=manifest["dataset"]["max_seq_len"]))
    for i, (meta, expected) in enumerate(zip(manifest["dataset"]["meta"], manifest["dataset"]["items"], strict=True)):
        arrays = (golden[f"data{i}.{name}"].numpy() for name in ("rgb", "flow", "byola"))
        item = model.prepare(
            *arrays, duration=meta["duration"], frames=meta["video_frames"], segments=meta["fake_periods"]
        )
        close(f"item {i}, features", item.features, golden[f"data{i}.feats"], 1e-6)
        off = max(abs(item.stride - expected["feat_stride"]), abs(item.fps - expected["fps"]))
        record(FILE, f"item {i}, stride and rate", off, EXACT)
        assert (item.segments is not None) is expected["has_segments"]
        if item.segments is not None:
            close(f"item {i}, segments", item.segments, golden[f"data{i}.segments"])


def test_names_and_shapes_of_the_full_size_model() -> None:
    layout = json.loads((GOLDENS / "keys" / "ummaformer_lavdf_tsn_byola.json").read_text())
    with torch.device("meta"):
        model = UMMAFormer(UMMAFormerSizes().reference())
    ours = {key: list(value.shape) for key, value in model.state_dict().items() if key != "normaliser"}
    theirs = {key: shape for key, shape, _ in layout}
    wrong = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
    record(FILE, "names or shapes that differ, of 608", len(wrong), EXACT)
    count = sum(parameter.numel() for parameter in model.parameters())
    record(FILE, "parameters, of 49 722 634", abs(count - 49_722_634), EXACT)
