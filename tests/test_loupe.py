"""Loupe in corrected mode, every mended defect, every switch. Equality with the released code: test_loupe_parity."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from seamline.detectors.base import Finding, Windowing
from seamline.detectors.loupe import (
    PRESETS,
    Loupe,
    LoupeOutputs,
    LoupeSizes,
    build,
    merge_checkpoints,
    to_reference,
)
from seamline.errors import WeightsError
from seamline.heads.mask import QuerySet

NATIVE = dataclasses.replace(
    PRESETS["loupe-native"],
    windowing=Windowing(side=64, overlap=16, multiple=32),
    encoder_sizes={"width": 16, "depth": 1},
    width=16,
    heads=2,
    scales=(2, 1, 0.5, 0.25),
    pixel_layers=1,
    query_layers=2,
    norm_groups=4,
    pixel_ffn=16,
    query_ffn=16,
    queries=3,
    train_points=64,
)


def native(**changes: object) -> Loupe:
    torch.manual_seed(0)
    return Loupe(dataclasses.replace(NATIVE, **changes))  # type: ignore[arg-type]


def square(h: int, w: int, y: int, x: int, side: int) -> np.ndarray:
    mask = np.zeros((h, w), np.float32)
    mask[y : y + side, x : x + side] = 1
    return mask


def total(model: Loupe, losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([model.loss_weights[name] * loss for name, loss in losses.items()]).sum()


def batch(seed: int = 0, n: int = 2) -> Tensor:
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def tiny() -> Loupe:
    torch.manual_seed(0)
    return build("loupe-tiny").eval()


# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_travel_as_json(name: str) -> None:
    sizes = PRESETS[name]
    assert LoupeSizes.from_dict(json.loads(json.dumps(sizes.to_dict()))) == sizes


def test_sizes_refuse_what_nothing_understands() -> None:
    data = NATIVE.to_dict()
    changes: list[dict[str, object]] = [
        {"mode": "best"},
        {"fusion": "sum"},
        {"encoder": "eyes"},
        {"loss_weights": {"x": 1}},
    ]
    for change in changes:
        with pytest.raises(ValueError, match=rf"LoupeSizes\.{next(iter(change))} .*known: "):
            LoupeSizes.from_dict(data | change)
    with pytest.raises(ValueError, match=r"not the sizes of a Loupe: .*widht"):
        LoupeSizes.from_dict(data | {"widht": 3})
    with pytest.raises(ValueError, match="'windowing'"):
        LoupeSizes.from_dict({})
    with pytest.raises(ValueError, match="no Loupe preset 'loupe-huge'; there are loupe-pe-l14-336"):
        build("loupe-huge")


# ------------------------------------------------------------------------------------------------------------- input


def test_preprocess(tiny: Loupe) -> None:
    photo = np.full((30, 50, 3), 255, np.uint8)
    photo[..., 2] = 0
    squashed = tiny.preprocess(photo)
    assert squashed.shape == (3, 56, 56)
    assert native().preprocess(photo).shape == (3, 30, 50)
    assert squashed[0].unique().tolist() == [1]
    assert squashed[2].unique().tolist() == [-1]


def test_truth_is_deterministic() -> None:
    grey = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    model = native()
    first, second = model.targets([grey]), model.targets([grey])
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))
    released = Loupe(PRESETS["loupe-tiny"].reference())
    assert not released.targets([grey]).masks.equal(released.targets([grey]).masks)  # what was mended


def test_a_wholly_forged_window_is_a_full_target(tiny: Loupe) -> None:
    for model, white in ((native(), np.ones((64, 64), np.float32)), (tiny, np.ones((90, 70), np.float32))):
        truth = model.targets([white])
        assert truth.found.all()
        assert (truth.masks == 1).all()
        assert (truth.patches == 1).all()
        assert truth.boxes.tolist() == [[0.5, 0.5, 1, 1]]
    released = Loupe(PRESETS["loupe-tiny"].reference()).targets([white])
    assert not released.found.any()
    assert released.labels.tolist() == [1]


def test_no_region_vanishes(tiny: Loupe) -> None:
    rng = np.random.default_rng(0)
    released = Loupe(PRESETS["loupe-tiny"].reference())
    lost = 0
    for _ in range(10):
        mask = square(1000, 800, int(rng.integers(998)), int(rng.integers(798)), 2)
        truth = tiny.targets([mask])
        assert truth.found.all()
        assert truth.masks.max() == pytest.approx(1)
        assert truth.patches.sum().item() * (1000 / 4) * (800 / 4) == pytest.approx(4, rel=1e-3)  # forged pixels
        lost += not released.targets([mask]).found.item()
    assert lost > 0


def test_patch_labels_are_areas_and_masks_are_at_logit_resolution() -> None:
    model = native()
    truth = model.targets([square(64, 96, 8, 16, 12), None])
    assert truth.patches.shape == (2, 8, 12)
    assert truth.masks.shape == (2, 16, 24)
    assert truth.labels.tolist() == [1, 0]
    assert truth.patches[0, 1, 2] == 1
    assert truth.patches[0, 2, 3] == 0.25
    assert truth.patches[1].sum() == 0
    assert truth.boxes[0].tolist() == pytest.approx([22 / 96, 14 / 64, 12 / 96, 12 / 64])
    outputs = model(torch.randn(2, 3, 64, 96), truth)
    assert outputs.patches is not None
    assert outputs.patches.shape == truth.patches.shape
    assert outputs.sets[-1].masks.shape[2:] == truth.masks.shape[1:]


def test_windows_without_a_forged_pixel_are_authentic() -> None:
    model = native()
    truth = model.targets([None, np.full((64, 64), 0.4, np.float32)])
    assert truth.labels.tolist() == [0, 0]
    assert not truth.found.any()
    losses = model.criterion(model(batch(), truth), model.targets([None, None]))  # sizes unknown: still fine
    assert all(loss.isfinite() for loss in losses.values())


def test_native_masks_must_fit() -> None:
    with pytest.raises(ValueError, match="does not divide into patches of 8"):
        native().targets([np.ones((60, 64), np.float32)])
    with pytest.raises(ValueError, match="differ in size"):
        native().targets([np.ones((64, 64), np.float32), np.ones((64, 32), np.float32)])


# ---------------------------------------------------------------------------------------------------------- training


def test_no_forgery_no_mask_loss_and_no_nan() -> None:
    model = native().train()
    truth = model.targets([None, None])
    losses = model.criterion(model(batch(), truth), truth)
    assert losses["seg_mask"] == losses["seg_tversky"] == losses["seg_box"] == 0
    total(model, losses).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("train_points", [64, 0])
def test_it_learns_one_batch(train_points: int) -> None:
    model = native(train_points=train_points).train()
    pixels, truth = batch(n=4), model.targets([square(64, 64, 16, 24, 24), None, square(64, 64, 0, 0, 20), None])
    pixels[0, :, 16:40, 24:48] *= 0.1
    pixels[2, :, :20, :20] *= 0.1
    optimiser = torch.optim.AdamW(model.parameter_groups(1e-2, 1e-2))
    history = []
    for _ in range(12):
        loss = total(model, model.criterion(model(pixels, truth), truth, torch.Generator().manual_seed(0)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < 0.75 * history[0]


def test_every_loss_has_a_weight_and_every_switch_its_effect() -> None:
    pixels, masks = batch(), [square(64, 64, 16, 24, 24), None]
    for changes, gone in (({}, set()), ({"boxes": False}, {"seg_box"}), ({"patches": False}, {"cls_patch"})):
        model = native(**changes).train()
        truth = model.targets(masks)
        losses = model.criterion(model(pixels, truth), truth)
        assert losses.keys() == model.loss_weights.keys() == NATIVE.loss_weights.keys() - gone
    plain = native(condition=False)
    assert plain(pixels).told is None
    assert native(fusion="none")(pixels).logit.equal(native(fusion="none")(pixels).whole)


def test_points_come_from_the_generator() -> None:
    model = native().train()
    truth = model.targets([square(64, 64, 16, 24, 24), None])
    outputs = model(batch(), truth)
    a, b, c = (model.criterion(outputs, truth, torch.Generator().manual_seed(seed))["seg_mask"] for seed in (1, 1, 2))
    assert a == b != c


def test_box_term_prefers_the_true_box() -> None:
    model = native()
    truth = model.targets([square(64, 64, 16, 24, 24), None])
    queries = QuerySet(torch.zeros(2, 3, 2), torch.zeros(2, 3, 16, 16), truth.boxes[0].expand(2, 3, 4).clone())
    queries.boxes[:, :2] = torch.tensor([0.1, 0.1, 0.1, 0.1])  # type: ignore[index]
    assert model.match(queries, truth, torch.rand)[0] == 2
    assert model.set_losses(queries, truth, torch.rand)["seg_box"] == pytest.approx(0, abs=1e-5)


def test_evaluation_is_never_told_the_truth(tiny: Loupe) -> None:
    pixels = torch.rand(2, 3, 56, 56) * 2 - 1
    truth = tiny.targets([np.ones((8, 8), np.float32), None])
    with torch.no_grad():
        blind, shown = tiny(pixels), tiny(pixels, truth)
        assert shown.sets[-1].masks.equal(blind.sets[-1].masks)
        assert shown.told is not None
        assert shown.told.equal(blind.logit.sigmoid())
        released = Loupe(PRESETS["loupe-tiny"].reference()).eval()
        assert released(pixels, truth._replace(found=torch.tensor([True, False]))).told.tolist() == [1, 0]


def test_training_is_told_a_share_of_the_truth() -> None:
    pixels, masks = batch(n=64)[:, :, :32, :32], [np.ones((32, 32), np.float32)] * 64
    for share in (0.0, 0.5, 1.0):
        model = native(condition_truth=share).train()
        told = model(pixels, model.targets(masks)).told
        assert told is not None
        assert (told == 1).float().mean().item() == pytest.approx(share, abs=0.25 if share == 0.5 else 0)


# ---------------------------------------------------------------------------------------------------------- freezing


@pytest.mark.parametrize("part", Loupe.parts)
def test_freezing_holds(part: str) -> None:
    model = native()
    model.freeze(part)
    model.initialise()  # what thawed parameters in the released code
    model.train()
    frozen = getattr(model, Loupe.parts[part])
    assert not frozen.training
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    truth = model.targets([square(64, 64, 16, 24, 24), None])
    total(model, model.criterion(model(batch(), truth), truth)).backward()
    optimiser.step()
    after = model.state_dict()
    changed = {name.split(".")[0] for name in before if not after[name].equal(before[name])}
    assert changed == set(Loupe.parts.values()) - {Loupe.parts[part]}
    grouped = {id(p) for group in model.parameter_groups(1e-3, 1e-2) for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}
    assert grouped.isdisjoint(id(p) for p in frozen.parameters())


def test_a_frozen_segmentor_is_not_run_in_training() -> None:
    model = native()
    model.freeze("segmentor")
    truth = model.targets([square(64, 64, 16, 24, 24), None])
    outputs = model.train()(batch(), truth)
    assert outputs.sets == ()
    assert model.criterion(outputs, truth)["seg_mask"] == 0
    assert len(model.eval()(batch()).sets) == 1
    with pytest.raises(ValueError, match="Loupe has no part 'eyes'; it has backbone, classifier, segmentor"):
        model.freeze("eyes")


def test_parameter_groups(tiny: Loupe) -> None:
    names = {id(p): name for name, p in tiny.named_parameters()}
    groups = tiny.parameter_groups(1e-3, 1e-2, backbone_lr=1e-5)
    assert sum(len(group["params"]) for group in groups) == len(names)
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert "segmentor.query_decoder.classes.weight" in decayed
    for name in ("encoder.model.cls_token", "encoder.model.pos_embed", "segmentor.real", "encoder.model.norm.weight"):
        assert name not in decayed
    assert {group["lr"] for group in groups if names[id(group["params"][0])].startswith("encoder")} == {1e-5}
    released = Loupe(PRESETS["loupe-tiny"].reference())
    plain = [group for group in released.parameter_groups(1e-3, 1e-2) if not group["weight_decay"]]
    names = {id(p): name for name, p in released.named_parameters()}
    assert all("bias" in names[id(p)] for group in plain for p in group["params"])


def test_offsets_start_as_a_rosette() -> None:
    layer = native().segmentor.pixel_decoder.layers[0].attend
    assert layer.offsets.weight.abs().max() == 0
    assert layer.weights.weight.abs().max() == 0
    reach = layer.offsets.bias.view(2, 3, 4, 2)  # heads, levels, points, x and y
    assert reach[0, :, :, 0].tolist() == [[1, 2, 3, 4]] * 3
    assert reach[1, 0, 3].tolist() == pytest.approx([-4, 0], abs=1e-5)
    assert native(mode="reference", fusion="none").segmentor.pixel_decoder.layers[0].attend.offsets.weight.std() > 0


# --------------------------------------------------------------------------------------------------- post-processing


def answer(probability: list[float], logits: Tensor) -> LoupeOutputs:
    """Outputs of one window, with queries of the given class probabilities and mask logits (Q, H, W)."""
    p = torch.tensor(probability)
    classes = torch.stack([p.logit(), torch.zeros(len(p))], 1)[None]
    return LoupeOutputs(torch.zeros(1), torch.zeros(1), None, None, (QuerySet(classes, logits[None], None),))


def test_heat_map_is_a_probability() -> None:
    model = native()
    sure = torch.full((2, 4, 4), 50.0)
    sure[1, :, 2:] = -50.0
    (finding,) = model.postprocess(answer([0.8, 0.7], sure), [(8, 8)])
    assert finding.heatmap.shape == (8, 8)
    assert finding.heatmap[0, 0].item() == pytest.approx(1 - 0.2 * 0.3, abs=1e-6)  # one is right, or the other
    assert finding.heatmap[0, 7].item() == pytest.approx(0.8, abs=1e-6)  # one query alone: as the released sum
    released = native(mode="reference", fusion="none").soft_maps(answer([0.8, 0.7], sure), [(8, 8)])[0]
    assert released[0, 0].item() == pytest.approx(1.5, abs=1e-5)


def test_combine() -> None:
    model = native().eval()
    with torch.no_grad():
        findings = model.postprocess(model(batch(n=3)), [(64, 64), (64, 64), (64, 32)])
    assert model.combine(findings[:1]) == findings[0].logit
    fused = model.combine(findings)
    assert model.combine(findings[::-1]) == pytest.approx(fused, abs=1e-5)
    whole = sum(a * f.evidence["global"] for a, f in zip((0.4, 0.4, 0.2), findings, strict=True))
    patches = torch.cat([f.evidence["patches"] for f in findings])
    assert patches.shape == (3 * 64,)
    assert fused == pytest.approx(model.classifier.fuse(whole, patches[None]).item(), abs=1e-5)
    same = model.combine([findings[0], findings[0]])
    assert same == pytest.approx(findings[0].logit, abs=1e-2)
    tied = native(fusion="linear").eval()
    area = [Finding(1.0, torch.zeros(2, 2), {}), Finding(4.0, torch.zeros(2, 4), {})]
    assert tied.combine(area) == pytest.approx(3.0)


# -------------------------------------------------------------------------------------------------------- adaptation


def photos(n: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(n)]


def believing(bias: float) -> Loupe:
    """A detector whose classifier calls everything forged, or nothing."""
    model = native().eval()
    with torch.no_grad():
        model.classifier.fusion.bias.fill_(bias)  # type: ignore[union-attr]
    return model


def test_adaptation_changes_a_copy_of_the_segmentor_only() -> None:
    model = believing(9.0)
    model.freeze("segmentor")  # as after training the classifier alone
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted, log = model.adapt(photos(), lr=1e-3, epochs=2, batch_size=2, seed=5)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    changed = {name.split(".")[0] for name, value in adapted.state_dict().items() if not value.equal(before[name])}
    assert changed == {"segmentor"}
    assert (log.steps, log.skipped) == (4, 0)
    assert log.after < log.before
    assert not adapted.training
    again, log_again = model.adapt(photos(), lr=1e-3, epochs=2, batch_size=2, seed=5)
    assert log_again == log
    assert all(value.equal(adapted.state_dict()[name]) for name, value in again.state_dict().items())


def test_adaptation_skips_what_looks_authentic() -> None:
    model = believing(-9.0)
    adapted, log = model.adapt(photos(3), batch_size=2)
    assert log == (0.0, 0.0, 0, 2)
    assert all(value.equal(model.state_dict()[name]) for name, value in adapted.state_dict().items())


def test_adaptation_needs_a_patch_head_and_images() -> None:
    with pytest.raises(ValueError, match="needs a patch head"):
        native(patches=False).adapt(photos(1))
    with pytest.raises(ValueError, match="no images"):
        native().adapt([])


# ----------------------------------------------------------------------------------------------- reference checkpoints


@pytest.fixture
def released(tiny: Loupe) -> dict[str, Tensor]:
    """A whole state dict in the names of the released code."""
    torch.manual_seed(3)
    source = Loupe(PRESETS["loupe-tiny"].reference())
    return to_reference(source.state_dict()) | {"segmentor.criterion.empty_weight": torch.tensor([1, 0.1])}


def part(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {f"loupe.{key}": value for key, value in state.items() if key.startswith(names)}


def test_stage_checkpoints_are_merged(released: dict[str, Tensor], tmp_path: Path) -> None:
    model = Loupe(PRESETS["loupe-tiny"].reference())
    cls, seg = part(released, "classifier"), part(released, "segmentor")
    torch.save({"state_dict": cls}, tmp_path / "cls.ckpt")
    backbone = {f"visual.{k.removeprefix('backbone.')}": v for k, v in released.items() if k.startswith("backbone")}
    backbone |= {"visual.proj": torch.zeros(64, 8), "text_projection": torch.zeros(2)}
    assert model.load_reference(backbone, tmp_path / "cls.ckpt", seg) == ()
    back = to_reference(model.state_dict())
    assert all(value.equal(released[key]) for key, value in back.items())

    with pytest.raises(WeightsError, match=r"missing classifier\.whole\.0\.weight"):
        model.load_reference(backbone, seg)
    missing = model.load_reference(backbone, seg, allow_missing=["classifier"])
    assert missing == tuple(name for name in model.state_dict() if name.startswith("classifier."))
    with pytest.raises(WeightsError, match="missing encoder"):
        model.load_reference(cls, seg, allow_missing=["classifier"])
    with pytest.raises(WeightsError, match=r"unexpected classifier\.old"):
        model.load_reference(released, {"classifier.old": torch.zeros(1)})
    wrong = {"classifier.fuser.fuse.weight": torch.zeros(1, 577)}
    with pytest.raises(WeightsError, match=r"classifier\.fusion\.weight is \(1, 577\), not \(17,\)"):
        model.load_reference({k: v for k, v in released.items() if k not in wrong}, wrong)


def test_conflicting_or_unreadable_checkpoints(released: dict[str, Tensor], tmp_path: Path) -> None:
    merge_checkpoints(released, released)
    key = "classifier.fuser.fuse.weight"
    with pytest.raises(WeightsError, match=f"different values for {key}"):
        merge_checkpoints(released, {key: released[key] + 1})
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no")
    with pytest.raises(WeightsError, match=r"bad\.safetensors cannot be read as weights"):
        merge_checkpoints(bad)
    torch.save([torch.zeros(2)], tmp_path / "list.ckpt")
    with pytest.raises(WeightsError, match=r"list\.ckpt cannot be read as weights: it holds no named tensors"):
        merge_checkpoints(tmp_path / "list.ckpt")
    torch.save({"x": Path("x")}, tmp_path / "code.ckpt")  # not plain data: would run code of a stranger
    with pytest.raises(WeightsError, match=r"code\.ckpt cannot be read as weights"):
        merge_checkpoints(tmp_path / "code.ckpt")


def test_a_cropped_photo_gets_back_what_its_first_blocks_lack() -> None:
    rough = cv2.GaussianBlur(np.random.default_rng(0).normal(128, 90, (460, 500, 3)), (0, 0), 0.8)
    coded = cv2.imencode(".jpg", np.clip(rough, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    rgb = np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])
    assert native().lead(rgb) == (0, 0)
    assert native().lead(rgb[5:, 3:]) == (5, 3)
    assert native().lead(rgb[8:, 15:]) == (0, 7)
    assert build("loupe-tiny").lead(rgb[5:, 3:]) == (0, 0)  # sees photos whole
