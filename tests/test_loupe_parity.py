"""Loupe in reference mode against recorded outputs of the released code (../shared/goldens/image/public)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from seamline.detectors.loupe import PRESETS, Loupe, LoupeOutputs, LoupeTargets, from_reference, to_reference
from seamline.encoders import Features
from seamline.encoders.perception import TimmEncoder, resample_positions
from seamline.heads.mask import QuerySet
from seamline.losses import bce_cost, dice_cost, poly1_focal, sample_points, tversky, uncertain_points
from tests.parity_table import record

SHARED = Path(__file__).parents[1].parent / "shared"
GOLDENS = SHARED / "goldens" / "image" / "public"
pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not GOLDENS.is_dir(), reason="the goldens are not here (../shared/goldens/image/public)"),
]

FEATURE, CLASS, MASK, LOSS, GRADIENT = 1e-5, 1e-5, 1e-4, 1e-5, 1e-4  # tolerances of the goldens' README
EXACT = 1e-12


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDENS / f"{name}.safetensors")


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((GOLDENS / "manifest.json").read_text())["files"]
    return {key.removesuffix(".safetensors"): value.get("info", {}) for key, value in data.items()}


@pytest.fixture
def model() -> Loupe:
    loupe = Loupe(PRESETS["loupe-tiny"].reference())
    assert loupe.load_reference(golden("model_state")) == ()
    return loupe.eval()


def close(file: str, what: str, ours: Tensor, theirs: Tensor, tolerance: float, *, relative: bool = False) -> None:
    assert ours.shape == theirs.shape
    scale = theirs.abs().max().clamp(min=1e-12).item() if relative else 1.0
    record(file, what, (ours - theirs).abs().max().item() / scale, tolerance)


def grid_of(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))


class Draws:
    """The recorded uniform draws, in call order."""

    def __init__(self, file: dict[str, Tensor]) -> None:
        self.left: Iterator[Tensor] = (file[key] for key in sorted(file) if key.startswith("draw_"))

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        draw = next(self.left)
        assert tuple(draw.shape) == shape
        return draw

    def done(self) -> bool:
        return next(self.left, None) is None


def truth_of(file: dict[str, Tensor], prefix: str = "target", count: int = 3) -> LoupeTargets:
    masks = [file[f"{prefix}_mask_{i}"] for i in range(count)]
    found = torch.tensor([len(m) == 1 for m in masks])
    maps = torch.cat([m if len(m) else m.new_zeros(1, *m.shape[1:]) for m in masks])
    return LoupeTargets(
        labels=file.get("labels", found).float(),
        patches=file.get("patch_labels", torch.zeros(count, 4, 4)),
        masks=maps,
        found=found,
        boxes=torch.zeros(count, 4),
    )


def check_matching(file: dict[str, Tensor], name: str, model: Loupe, sets: list[QuerySet], truth: LoupeTargets) -> None:
    """Costs and assignment of every set from the recorded matcher draws; every set has B + 2 draws."""
    b = len(truth.found)
    worst = 0.0
    for s, queries in enumerate(sets):
        draws = iter([file[f"draw_{s * (b + 2) + i:03d}"] for i in range(b)])
        cost = model.match_costs(queries, truth, lambda _, draws=draws: next(draws))
        best = cost.argmin(1)
        for i in range(b):
            if truth.found[i]:
                worst = max(worst, (cost[i] - file[f"match_cost_{s * b + i:03d}"][:, 0]).abs().max().item())
                assert best[i] == file[f"match_pred_{s * b + i:03d}"]
            else:
                assert file[f"match_pred_{s * b + i:03d}"].numel() == 0
    record(name, "matching cost (assignment equal)", worst, 1e-4)


def in_reference_order(sets: tuple[QuerySet, ...]) -> list[QuerySet]:
    return [sets[-1], *sets[:-1]]


def check_gradients(file: dict[str, Tensor], name: str, model: Loupe, norm: float) -> None:
    gradients = {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in model.named_parameters()}
    ours_norm = torch.cat([g.flatten() for g in gradients.values()]).norm().item()
    record(name, "gradient norm, relative", abs(ours_norm / norm - 1), GRADIENT)
    ours = to_reference(gradients)
    for key, theirs in file.items():
        if key.startswith("grad:"):
            short = key.removeprefix("grad:")
            short = short if len(short) <= 34 else f"...{short[-31:]}"
            close(name, f"gradient {short}", ours[key.removeprefix("grad:")], theirs, GRADIENT, relative=True)


def test_backbone(model: Loupe) -> None:
    g = golden("backbone")
    features = model.encoder(g["pixel_values"])
    close("backbone", "patch tokens", features.grid, grid_of(g["tokens"]), FEATURE)
    tokens = model.encoder.model.forward_features(g["pixel_values"])
    close("backbone", "class token", tokens[:, 0], g["tokens"][:, 0], FEATURE)
    close("backbone", "pooled", features.pooled, g["pooled"], FEATURE)


def test_classifier(model: Loupe) -> None:
    g = golden("classifier")
    scores = model.classifier(Features(grid_of(g["tokens"]), g["pooled"]))
    close("classifier", "global logits", scores.whole, g["global_logits"][:, 0], CLASS)
    close("classifier", "patch logits", scores.patches.flatten(1), g["patch_logits"][..., 0], CLASS)
    close("classifier", "fused logits", scores.fused, g["fused_logits"][:, 0], CLASS)


def test_pyramid(model: Loupe) -> None:
    g = golden("fpn")
    for i, level in enumerate(model.segmentor.pyramid(g["features"])):
        close("fpn", f"level {i}", level, g[f"level_{i}"], FEATURE)


@pytest.mark.parametrize("gradients", [True, False])
def test_pixel_decoder(model: Loupe, gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):  # without gradients, deformable attention takes its fast way
        check_pixel_decoder(model, "" if gradients else ", fast")


def check_pixel_decoder(model: Loupe, way: str) -> None:
    g, levels = golden("pixel_decoder"), golden("fpn")
    pyramid = [levels[f"level_{i}"] for i in range(4)]
    segmentor = model.segmentor
    y = g["labels"][:, None]
    told = (y * segmentor.forged + (1 - y) * segmentor.real)[:, None]
    close("pixel_decoder", "condition", told, g["conditional_queries"], FEATURE)
    first: list[Tensor] = []
    segmentor.pixel_decoder.layers[0].register_forward_hook(lambda *args: first.append(args[2]))
    for kind, condition in (("cond", told), ("uncond", None)):
        maps, mask_features = segmentor.pixel_decoder(pyramid, condition)
        close("pixel_decoder", f"{kind} first layer{way}", first[-1], g[f"{kind}_encoder_layer_0"], FEATURE)
        close("pixel_decoder", f"{kind} mask features{way}", mask_features, g[f"{kind}_mask_features"], FEATURE)
        for i, m in enumerate(maps if kind == "cond" else []):
            close("pixel_decoder", f"{kind} map {i}{way}", m, g[f"{kind}_multi_scale_{i}"], FEATURE)


def test_segmentor(model: Loupe) -> None:
    g = golden("segmentor")
    for kind, label in (("cond", g["pseudo_labels"]), ("uncond", None)):
        sets = model.segmentor(g["features"], label, every=True)
        assert len(sets) == 4
        for name, queries in zip(("", "aux0_", "aux1_", "aux2_"), in_reference_order(sets), strict=True):
            close("segmentor", f"{kind} {name}class logits", queries.classes, g[f"{kind}_{name}class_logits"], CLASS)
            close("segmentor", f"{kind} {name}mask logits", queries.masks, g[f"{kind}_{name}mask_logits"], MASK)


def test_full_test(model: Loupe) -> None:
    g = golden("full_test")
    with torch.inference_mode():
        outputs = model(golden("backbone")["pixel_values"])
    assert len(outputs.sets) == 1  # evaluation keeps the answer only
    close("full_test", "image logits", outputs.logit, g["cls_logits"][:, 0], CLASS)
    close("full_test", "image probability", outputs.logit.sigmoid(), g["image_prob"], CLASS)
    close("full_test", "patch probability", outputs.patches.sigmoid().flatten(1), g["patch_prob"], CLASS)
    close("full_test", "class logits", outputs.sets[-1].classes, g["class_queries_logits"], CLASS)
    close("full_test", "mask logits", outputs.sets[-1].masks, g["masks_queries_logits"], MASK)


def test_full_train(model: Loupe, manifest: dict[str, Any]) -> None:
    g, info = golden("full_train"), manifest["full_train"]
    truth = truth_of(g)
    model.train()
    outputs = model(golden("backbone")["pixel_values"], truth)
    close("full_train", "image logits", outputs.logit, g["cls_logits"][:, 0], CLASS)
    close("full_train", "class logits", outputs.sets[-1].classes, g["class_queries_logits"], CLASS)
    close("full_train", "mask logits", outputs.sets[-1].masks, g["masks_queries_logits"], MASK)
    with torch.no_grad():
        check_matching(g, "full_train", model, in_reference_order(outputs.sets), truth)

    draws = Draws(g)
    losses = model.classifier_losses(outputs, truth) | model.segmentor_losses(outputs, truth, draws)
    assert draws.done()
    ours = sum(losses[name] for name in ("cls_image", "cls_patch")).item()
    record("full_train", "classification loss, relative", abs(ours / info["cls_loss"] - 1), LOSS)
    check_losses("full_train", losses, info["seg_losses_unweighted"])
    total = sum(model.loss_weights[name] * loss for name, loss in losses.items())
    record("full_train", "total, relative", abs(total.item() / info["total"] - 1), LOSS)
    record("full_train", "total as recorded, relative", abs(total.item() / g["loss"].item() - 1), LOSS)
    total.backward()
    check_gradients(g, "full_train", model, info["grad_norm_all"])


def check_losses(name: str, losses: dict[str, Tensor], recorded: dict[str, float]) -> None:
    for ours, theirs in (("seg_mask", "loss_mask"), ("seg_tversky", "loss_dice"), ("seg_class", "loss_cross_entropy")):
        total = sum(value for key, value in recorded.items() if key.startswith(theirs))
        record(name, f"{ours}, relative", abs(losses[ours].item() / total - 1), LOSS)


def test_tta_step(model: Loupe, manifest: dict[str, Any]) -> None:
    g, info = golden("tta_step"), manifest["tta_step"]
    model.freeze("backbone", "classifier")
    model.train()
    outputs = model(golden("backbone")["pixel_values"])
    truth = model.pseudo_targets(outputs)
    close("tta_step", "image probability", outputs.logit.sigmoid(), g["image_prob"], CLASS)
    expected = truth_of(g, "pseudo_target")
    assert truth.found.equal(expected.found)
    for i in expected.found.nonzero()[:, 0]:
        close("tta_step", f"pseudo mask {i}", truth.masks[i], expected.masks[i], CLASS)
    with torch.no_grad():
        check_matching(g, "tta_step", model, in_reference_order(outputs.sets), truth)
    draws = Draws(g)
    losses = model.segmentor_losses(outputs, truth, draws)
    assert draws.done()
    check_losses("tta_step", losses, info["seg_losses_unweighted"])
    total = sum(model.loss_weights[name] * loss for name, loss in losses.items())
    record("tta_step", "total, relative", abs(total.item() / g["loss"].item() - 1), LOSS)
    total.backward()
    check_gradients(g, "tta_step", model, info["grad_norm_all"])
    assert all(p.grad is None for n, p in model.named_parameters() if not n.startswith("segmentor."))


def test_losses_basic(model: Loupe) -> None:
    g = golden("losses_basic")
    for key, theirs in g.items():
        if key.startswith("poly_a"):
            alpha, epsilon, gamma = (float(part[1:]) for part in key.split("_")[1:4])
            ours = poly1_focal(g["poly_logits"], g[f"poly_{key.split('_')[4]}"], alpha, gamma, epsilon)
            close("losses_basic", key, ours, theirs, LOSS, relative=True)
        if key.startswith("tversky_a"):
            alpha, beta = (float(part[1:]) for part in key.split("_")[1:3])
            ours = tversky(g["tversky_logits"], g[f"tversky_{key.split('_')[3]}"], alpha, beta)
            close("losses_basic", key, ours, theirs, LOSS)
    outputs = LoupeOutputs(g["cls_logits"][:, 0], g["cls_logits"][:, 0], g["patch_logits"].view(-1, 4, 4), None, ())
    empty = torch.zeros(5)
    truth = LoupeTargets(g["cls_labels"].float(), g["patch_labels"], empty, empty.bool(), empty)
    losses = model.classifier_losses(outputs, truth)
    close("losses_basic", "image loss", losses["cls_image"], g["cls_global_only"], LOSS, relative=True)
    close("losses_basic", "patch loss", losses["cls_patch"], g["cls_patch_only"], LOSS, relative=True)
    close("losses_basic", "classification loss", sum(losses.values()), g["cls_total"], LOSS, relative=True)


def test_losses_seg(model: Loupe, manifest: dict[str, Any]) -> None:
    g, info = golden("losses_seg"), manifest["losses_seg"]
    truth = truth_of(g, count=4)
    final = QuerySet(g["class_logits"], g["mask_logits"], None)
    auxiliary = QuerySet(g["aux0_class_logits"], g["aux0_mask_logits"], None)
    outputs = LoupeOutputs(torch.zeros(4), torch.zeros(4), None, None, (auxiliary, final))
    check_matching(g, "losses_seg", model, [final, auxiliary], truth)
    draws = Draws(g)
    chosen: list[Tensor] = []
    losses = model.segmentor_losses(outputs, truth, draws)
    assert draws.done()
    check_losses("losses_seg", losses, info["unweighted"])
    total = sum(model.loss_weights[name] * loss for name, loss in losses.items())
    record("losses_seg", "weighted total, relative", abs(total.item() / info["weighted_total"] - 1), LOSS)

    # The mask losses at the recorded points, which proves the choice of points too, and at every pixel.
    found = truth.found.nonzero()[:, 0]
    for s, queries in enumerate((final, auxiliary)):
        best = torch.cat([g[f"match_pred_{s * 4 + int(i):03d}"] for i in found])
        masks = queries.masks[found, best]
        pair = iter([g[f"draw_{s * 6 + 4:03d}"], g[f"draw_{s * 6 + 5:03d}"]])
        chosen.append(uncertain_points(masks, 128, lambda _, pair=pair: next(pair), 3.0, 0.75))
        theirs = g[f"points_{s:03d}"]
        close("losses_seg", f"points of set {s}", chosen[-1].sort(1).values, theirs.sort(1).values, 1e-6)
    best = torch.cat([g[f"match_pred_{int(i):03d}"] for i in found])
    centres = (torch.arange(16) + 0.5) / 16
    points = torch.stack([centres.repeat(16), centres.repeat_interleave(16)], 1).expand(3, -1, -1)
    at_pixels = sample_points(truth.masks[found][:, None], points)[:, 0]
    logits = final.masks[found, best].flatten(1)
    dense = info["dense_unweighted"]
    focal = poly1_focal(logits, at_pixels, 0.8).mean().item()
    record("losses_seg", "dense mask loss, relative", abs(focal / dense["loss_mask"] - 1), LOSS)
    overlap = tversky(logits, at_pixels, 0.3, 0.7).mean().item()
    record("losses_seg", "dense Tversky loss, relative", abs(overlap / dense["loss_dice"] - 1), LOSS)

    # Without forgeries the released code gives NaN; zero is what it should have given.
    two = QuerySet(final.classes[:2], final.masks[:2], None)
    real = LoupeTargets(*(value[:2] for value in truth))._replace(found=torch.zeros(2, dtype=torch.bool))
    none = model.segmentor_losses(outputs._replace(sets=(two,)), real, torch.rand)
    assert none["seg_mask"] == 0
    assert none["seg_tversky"] == 0
    theirs = info["all_real_batch_reference"]["loss_cross_entropy"]
    record("losses_seg", "class loss of an all-real batch", abs(none["seg_class"].item() / theirs - 1), LOSS)


def test_costs_are_the_sum_of_their_parts(model: Loupe) -> None:
    g = golden("losses_seg")
    truth = truth_of(g, count=4)
    logits = sample_points(g["mask_logits"][:1], g["draw_000"])
    target = sample_points(truth.masks[:1, None], g["draw_000"])[:, 0]
    cost = 5 * bce_cost(logits, target) + 5 * dice_cost(logits, target) - g["class_logits"][:1].softmax(2)[..., 0]
    close("losses_seg", "cost of image 0 by hand", cost[0], g["match_cost_000"][:, 0], LOSS)


def test_postprocess(model: Loupe, manifest: dict[str, Any]) -> None:
    g = golden("postprocess")
    outputs = LoupeOutputs(
        torch.zeros(3), torch.zeros(3), None, None, (QuerySet(g["class_logits"], g["mask_logits"], None),)
    )
    sizes = [(61, 90), (128, 47), (56, 56)]
    soft = model.soft_maps(outputs, sizes)
    native = model.soft_maps(outputs, [(384, 384)] * 3)
    for i, finding in enumerate(model.postprocess(outputs, sizes)):
        close("postprocess", f"score {i}", soft[i], g[f"score_{i}"], FEATURE)
        sure = (g[f"score_{i}"] - 0.5).abs() > 1e-4
        wrong = ((finding.heatmap > 0.5) != g[f"forged_{i}"].bool()) & sure
        record("postprocess", f"forged pixels {i} that differ", wrong.sum().item(), EXACT)
        packed = np.unpackbits(g[f"forged_native_packed_{i}"].numpy()).reshape(384, 384).astype(bool)
        sure = (native[i] - 0.5).abs() > 1e-4
        wrong = ((native[i] > 0.5) != torch.from_numpy(packed)) & sure
        record("postprocess", f"forged pixels {i} at 384 that differ", wrong.sum().item(), EXACT)


def test_preprocess(model: Loupe, manifest: dict[str, Any]) -> None:
    g = golden("preprocess")
    pixels = torch.stack([model.preprocess(g[f"image_{i}"].numpy()) for i in range(5)])
    close("preprocess", "pixels", pixels, g["pixel_values"], FEATURE)

    def half(shape: tuple[int, ...]) -> Tensor:
        return torch.full(shape, 0.5)

    masks = [g[f"mask_{i}"].numpy() / 255 if f"mask_{i}" in g else None for i in range(5)]
    truth = model.targets(masks, half)
    assert truth.labels.tolist() == [1, 0, 1, 1, 1]
    assert truth.found.tolist() == [len(g[f"target_class_{i}"]) == 1 for i in range(5)]
    close("preprocess", "patch labels", truth.patches, g["patch_labels"], FEATURE)
    for i in truth.found.nonzero()[:, 0]:
        close("preprocess", f"target mask {i}", truth.masks[i], g[f"target_mask_{i}"][0], EXACT)
    soft = model.targets([g["soft_mask"].numpy() / 255], half)
    close("preprocess", "patch labels of a soft mask", soft.patches, g["soft_patch_labels"], FEATURE)


# ------------------------------------------------------------------------------------------------- weights and names


def official_state(model: Any, seed: int = 0) -> dict[str, Tensor]:
    """Random weights for a timm Perception Encoder in the official layout."""
    generator = torch.Generator().manual_seed(seed)
    shaped = to_reference({f"encoder.model.{key}": value for key, value in model.state_dict().items()})
    return {
        key.removeprefix("backbone."): torch.randn(value.shape, generator=generator) * 0.05
        for key, value in shaped.items()
    }


@pytest.mark.parametrize("prefix", ["visual.", ""])
def test_official_weights_equal_timm_conversion(prefix: str) -> None:
    encoder = TimmEncoder("pe-tiny", 56)
    import timm
    from timm.models.eva import checkpoint_filter_fn

    state = {prefix + key: value for key, value in official_state(encoder.model).items()}
    state[f"{prefix}proj"] = torch.randn(64, 32)
    if prefix:
        state |= {"transformer.resblocks.0.ln_1.weight": torch.ones(3), "logit_scale": torch.ones(())}  # text tower
    encoder.load_weights(state)
    theirs = timm.create_model(
        "vit_pe_core_tiny_patch16_384",
        num_classes=0,
        img_size=56,
        patch_size=14,
        embed_dim=64,
        depth=2,
        num_heads=4,
        ref_feat_shape=(4, 4),
    )
    filtered = {k: v for k, v in checkpoint_filter_fn(state, theirs).items() if not k.startswith("head.")}
    theirs.load_state_dict(filtered)
    encoder.eval()
    theirs.eval()
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, tokens = encoder(x), theirs.forward_features(x)
        pooled = theirs.forward_head(tokens)
    what = "with visual." if prefix else "without visual."
    close("PE conversion", f"tokens, {what}", ours.grid, tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4)), 1e-6)
    close("PE conversion", f"pooled, {what}", ours.pooled, pooled, 1e-6)


def test_official_weights_at_another_size() -> None:
    small = TimmEncoder("pe-tiny", 56)
    state = official_state(small.model)
    large = TimmEncoder("pe-tiny", 84)
    large.load_weights(state)
    table = resample_positions(state["positional_embedding"][None], 1, 6)
    close("PE conversion", "positions, 4 x 4 to 6 x 6", large.model.pos_embed.detach(), table, EXACT)


def test_timm_layout_of_the_tiny_model() -> None:
    source, target = TimmEncoder("pe-tiny", 56), TimmEncoder("pe-tiny", 56)
    state = source.model.state_dict()
    target.load_weights(state | {"head.weight": torch.zeros(3, 64), "head.bias": torch.zeros(3)})
    for key, value in target.model.state_dict().items():
        assert value.equal(state[key])


def test_names_and_shapes_of_the_full_size_model() -> None:
    layout_file = SHARED / "specs" / "loupe_state_dict_layout.json"
    layout = {key: tuple(shape) for key, shape in json.loads(layout_file.read_text()).items()}
    del layout["segmentor.criterion.empty_weight"]
    with torch.device("meta"):
        loupe = Loupe(PRESETS["loupe-pe-l14-336"].reference())
    ours = loupe.state_dict()
    named = {key: tuple(value.shape) for key, value in to_reference(ours).items()}
    wrong = [key for key in named.keys() | layout.keys() if named.get(key) != layout.get(key)]
    record("layout", f"names or shapes that differ, of {len(layout)}", len(wrong), EXACT)
    back = from_reference(ours, to_reference(ours))
    assert {key: value.shape for key, value in back.items()} == {key: value.shape for key, value in ours.items()}
    millions = sum(value.numel() for value in ours.values()) / 1e6
    record("layout", "parameters, 355.04 million", abs(millions - 355.04), 5e-3)


def test_reference_names_round_trip(model: Loupe) -> None:
    state = golden("model_state")
    back = to_reference(model.state_dict())
    del state["segmentor.criterion.empty_weight"]
    assert set(back) == set(state)
    for key, value in state.items():
        assert back[key].equal(value)
