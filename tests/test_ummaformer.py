"""UMMAFormer in corrected mode: every mended defect, every switch. Equality with the released code: parity test."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from seamline.detectors.base import ClipTruth, ClipWindow, Clock
from seamline.detectors.ummaformer import (
    PRESETS,
    Corrections,
    FeatureItem,
    UMMAFormer,
    UMMAFormerOutputs,
    UMMAFormerSizes,
    build,
    from_released,
    learning_rate,
    offset_loss,
)
from seamline.errors import WeightsError

TINY = dataclasses.replace(
    PRESETS["ummaformer-tiny"],
    visual=5,
    audio=3,
    grid=48,
    width=8,
    neck=8,
    heads=2,
    stem=1,
    reconstruction=(8, 8),
    ranges=((0, 4), (4, 8), (8, 10000)),
    scale=0.1,
)
CLIPS = PRESETS["ummaformer-clips-tiny"]


def right(**changes: bool) -> Corrections:
    return dataclasses.replace(Corrections(), **changes)


def tiny(corrections: Corrections = Corrections(), **changes: Any) -> UMMAFormer:  # noqa: B008  it is frozen
    torch.manual_seed(0)
    return UMMAFormer(dataclasses.replace(TINY, corrections=corrections, **changes)).eval()


def item(length: int = 48, spans: list[list[float]] | None = None, seed: int = 0) -> FeatureItem:
    features = torch.randn(8, length, generator=torch.Generator().manual_seed(seed))
    return FeatureItem(features, torch.tensor(spans) if spans else None, 1.0, 25.0, length / 25)


def run(model: UMMAFormer, *items: FeatureItem) -> UMMAFormerOutputs:
    outputs: UMMAFormerOutputs = model(model.collate(items))
    return outputs


def total(model: UMMAFormer, losses: dict[str, Tensor]) -> Tensor:
    assert losses.keys() == model.loss_weights.keys()
    return torch.stack([model.loss_weights[name] * loss for name, loss in losses.items()]).sum()


FORGED, REAL = item(spans=[[10.0, 20.0]]), item(seed=1)

# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_travel_as_json(name: str) -> None:
    sizes = PRESETS[name]
    assert UMMAFormerSizes.from_dict(json.loads(json.dumps(sizes.to_dict()))) == sizes


def test_sizes_refuse_what_cannot_be_built() -> None:
    for changes, message in (
        ({"encoders": {"video": {}}}, "either video and audio"),
        ({"encoders": {"video": {}, "audio": {}}}, "needs a clock"),
        ({"visual": 0, "audio": 0}, "visual or audio"),
        ({"grid": 100, "corrections": Corrections.none()}, "not a multiple of 12"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TINY, **changes)
    with pytest.raises(ValueError, match="not the sizes"):
        UMMAFormerSizes.from_dict({"depth": 3})
    with pytest.raises(ValueError, match="gives 16 channels"):
        UMMAFormer(dataclasses.replace(CLIPS, audio=20))
    with pytest.raises(ValueError, match="ummaformer-tiny"):
        build("ummaformer-huge")


def test_reference_turns_every_switch_off() -> None:
    assert TINY.corrections == Corrections()
    assert not any(dataclasses.astuple(TINY.reference().corrections))
    assert all(dataclasses.astuple(TINY.corrections))


# ------------------------------------------------------------------------------------------------------------- input


def rows(count: int, channels: int, start: float = 0.0) -> np.ndarray:
    return np.linspace(start, start + 1, count, dtype=np.float32)[:, None].repeat(channels, 1)


def test_flow_of_another_length_is_stretched_and_not_wrapped() -> None:
    """U1."""
    for mended in (True, False):
        made = tiny(right(flow=mended)).prepare(rows(50, 3), rows(40, 2), rows(20, 3), duration=2.0)
        flow = made.features[3]
        assert (flow.diff() >= 0).all() == mended
        assert flow[-1] == pytest.approx(1.0 if mended else 9 / 39, abs=1e-3)
    equal = [tiny(right(flow=s)).prepare(rows(50, 3), rows(50, 2), rows(20, 3), duration=2.0) for s in (True, False)]
    assert equal[0].features.equal(equal[1].features)


def test_segments_go_to_the_grid_and_back() -> None:
    model = tiny()
    made = model.prepare(rows(96, 3), rows(96, 2), rows(11, 3), duration=4.0, frames=100, segments=[(0.4, 1.2)])
    assert made.stride == 2
    assert made.fps == 25
    assert made.segments is not None
    assert made.segments.tolist() == [pytest.approx([4.5, 14.5])]
    back = (made.segments.numpy() + 0.5) * made.stride / made.fps
    assert back.tolist() == [pytest.approx([0.4, 1.2])]
    assert model.prepare(rows(96, 3), rows(96, 2), rows(11, 3), duration=4.0, segments=[]).segments is None


def test_one_kind_of_features_is_enough() -> None:
    sound = UMMAFormer(dataclasses.replace(TINY, visual=0)).eval()
    made = sound.prepare(audio=rows(30, 3), duration=3.0)
    assert made.fps == 10
    assert run(sound, made).given.tolist() == [[False, True]]


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="8 channels; this detector expects 5 visual and 2"):
        tiny(audio=2).prepare(rows(9, 3), rows(9, 2), rows(9, 3), duration=1.0)
    with pytest.raises(ValueError, match="at least one row"):
        tiny().prepare(rows(9, 3), rows(0, 2), rows(9, 3), duration=1.0)
    with pytest.raises(ValueError, match="at least one row"):
        tiny().prepare(duration=1.0)
    with pytest.raises(ValueError, match="no encoders"):
        tiny().preprocess(ClipWindow(None, None, None, 4))


def test_crop_keeps_a_forged_span_and_shifts_it(rng: np.random.Generator) -> None:
    model = tiny()
    marked = FORGED._replace(features=torch.arange(48.0).expand(8, -1))
    lengths = set()
    for _ in range(200):
        made = model.crop(marked, rng)
        lengths.add(made.features.shape[1])
        assert made.segments is not None
        start = made.features[0, 0]
        assert torch.allclose(made.segments + start, torch.tensor([[10.0, 20.0]]))
        assert made.features[0].diff().eq(1).all()
    assert lengths == set(range(43, 49))


def test_crop_cuts_and_drops_spans_at_the_border(rng: np.random.Generator) -> None:
    model = tiny()
    kept = model.crop(item(spans=[[40.0, 60.0], [45.0, 49.0], [5.0, 9.0]]), rng).segments
    assert kept is not None
    assert len(kept) == 2  # the first has less than half of itself inside
    long = model.crop(item(spans=[[40.0, 300.0]]), rng)
    assert long.segments is not None
    assert len(long.segments) == 0


def test_real_clips_are_cropped_like_forged_ones(rng: np.random.Generator) -> None:
    """Else padding tells the label in training."""
    models = {mended: tiny(right(crop=mended)) for mended in (True, False)}
    lengths = {mended: {m.crop(REAL, rng).features.shape[1] for _ in range(50)} for mended, m in models.items()}
    assert len(lengths[True]) > 3
    assert lengths[False] == {48}


def test_padding() -> None:
    """U7: any length works; as released, longer clips go to a multiple and may still not fit."""
    model, released = tiny(), tiny(right(length=False))
    assert model.collate([item(5)]).mask.shape[-1] == 48
    assert model.collate([item(53), item(20)]).mask.sum(-1).tolist() == [[53], [20]]
    assert released.collate([item(53)]).mask.shape[-1] == 60
    assert run(model, item(53)).logits.shape == (1, 53 + 27 + 14)
    assert run(released, item(48), item(48)).logits.shape == (2, 48 + 24 + 12)
    with pytest.raises(ValueError, match="not all multiples of 6"):
        run(released, item(53))  # 60, 30, 15 cells


# ----------------------------------------------------------------------------------------------------------- network


def test_the_reconstruction_is_seen_by_the_detector() -> None:
    model = tiny()
    batch = model.collate([FORGED])
    with torch.no_grad():
        before = model(batch).logits
        model.interpolator.expansion["up_3"].conv_transpose.conv.weight.mul_(-1)
        assert not torch.allclose(model(batch).logits, before)


def test_the_unused_pass_is_skipped() -> None:
    """U3."""
    for skipped, passes in ((True, 2), (False, 3)):
        model, counted = tiny(right(passes=skipped)), []
        model.backbone.embd[0].register_forward_hook(lambda *_, c=counted: c.append(1))
        run(model, FORGED)
        assert len(counted) == passes


def test_all_parameters_learn() -> None:
    """U4: but for the dead block, if it is built."""
    for mended in (True, False):
        model = tiny(right(dead_block=mended))
        losses = model.criterion(run(model, FORGED, REAL), model.feature_targets([FORGED, REAL]))
        total(model, losses).backward()  # type: ignore[no-untyped-call]
        idle = {".".join(name.split(".")[:3]) for name, p in model.named_parameters() if p.grad is None}
        assert idle == (set() if mended else {"backbone.hh_branch.1"})


def test_outputs_do_not_depend_on_the_company() -> None:
    model = tiny()
    with torch.no_grad():
        alone, both = run(model, item(30)), run(model, item(30), REAL)
    for name, one in alone._asdict().items():
        torch.testing.assert_close(getattr(both, name)[:1], one)


def test_precision_of_half_the_bits() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        model = tiny()
        losses = model.criterion(run(model, FORGED, REAL), model.feature_targets([FORGED, REAL]))
        assert total(model, losses).isfinite()


# --------------------------------------------------------------------------------------------- targets and criterion


def test_assignment_by_hand() -> None:
    model = tiny()
    points = model.points(48)
    assert points.shape == (48 + 24 + 12, 4)
    assert points[[0, 1, 48, 49, 72, 73]].tolist() == [
        [0, 0, 4, 1], [1, 0, 4, 1], [0, 4, 8, 2], [2, 4, 8, 2], [0, 8, 10000, 4], [4, 8, 10000, 4],
    ]  # fmt: skip
    spans = torch.tensor([[[10.0, 16.0], [0.0, 0.0]], [[9.0, 17.0], [11.0, 15.0]]])
    answers, offsets = model.assign(points, spans)
    cells = points[:, 0]
    assert cells[answers[0]].tolist() == [12, 13, 14, 12, 14]  # 1.5 strides round 13; a reach of 4 is of both levels
    assert offsets[0][:48][answers[0][:48]].tolist() == [[2, 4], [3, 3], [4, 2]]
    fine, coarse = answers[1][:48], answers[1][48:72]
    assert cells[:48][fine].tolist() == [12, 13, 14]
    assert offsets[1][13].tolist() == [2, 2]  # the shorter one
    assert cells[48:72][coarse].tolist() == [12, 14]
    assert offsets[1][48 + 6].tolist() == [1.5, 2.5]  # of the longer one, in strides of 2
    empty = model.assign(points, torch.zeros(1, 1, 2))[0]
    assert not empty.any()


def test_windows_of_clips_become_targets() -> None:
    truths = [ClipTruth(((3.0, 7.0),), ((6.0, 9.0), (20.0, 22.0))), ClipTruth()]
    made = UMMAFormer(CLIPS).targets(truths, [48, 48])
    assert made.forged.tolist() == [True, False]
    assert made.segments.tolist() == [[[2.5, 8.5], [19.5, 21.5]], [[0, 0], [0, 0]]]


def test_real_clips_are_negatives() -> None:
    """U5."""
    for mended in (True, False):
        model = tiny(right(negatives=mended))
        outputs = run(model, FORGED, REAL)
        logits = outputs.logits.detach().requires_grad_()
        losses = model.criterion(outputs._replace(logits=logits), model.feature_targets([FORGED, REAL]))
        losses["cls"].backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert logits.grad[0].ne(0).all()
        assert logits.grad[1].ne(0).all() == mended
        if mended:
            assert (logits.grad[1] > 0)[logits[1] > -2].all()  # down with them


def test_batches_of_one_kind() -> None:
    """U6."""
    for items in ([FORGED], [REAL]):
        model = tiny()
        losses = model.criterion(run(model, *items), model.feature_targets(items))
        total(model, losses).backward()  # type: ignore[no-untyped-call]
        assert all(loss.isfinite() for loss in losses.values())
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        forged = items[0].segments is not None
        assert losses["reco"].eq(0) == forged
        assert losses["reg"].ne(0) == forged
        assert losses["cls"] > 0
    released = tiny(right(batches=False))
    assert released.criterion(run(released, FORGED), released.feature_targets([FORGED]))["reco"].isnan()
    with pytest.raises(RuntimeError, match="forged"):
        released.criterion(run(released, REAL), released.feature_targets([REAL]))


def test_padding_has_no_part_in_the_losses() -> None:
    model = tiny()
    real = item(30, seed=2)
    outputs = run(model, real)
    losses = model.criterion(outputs, model.feature_targets([real]))
    spoilt = outputs._replace(
        features=outputs.features + 9 * ~outputs.mask,
        logits=outputs.logits + 9 * ~outputs.there,
    )
    after = model.criterion(spoilt, model.feature_targets([real]))
    for name, loss in losses.items():
        torch.testing.assert_close(after[name], loss)


def test_the_running_number_of_positives_is_kept_and_only_changed_by_training() -> None:
    model = tiny()
    outputs, targets = run(model, FORGED), model.feature_targets([FORGED])
    model.criterion(outputs, targets)
    assert model.normaliser == 200
    model.train().criterion(outputs, targets)
    positives = model.assign(model.points(48), targets.segments)[0].sum()
    assert model.normaliser.item() == pytest.approx(180 + 0.1 * positives.item())
    assert "normaliser" in model.state_dict()


def test_offset_loss() -> None:
    offsets = torch.tensor([[2.0, 2.0], [1.0, 3.0], [0.0, 0.0]])
    same = torch.tensor([[2.0, 2.0]]).expand(3, -1)
    assert offset_loss(offsets, same).tolist() == pytest.approx([0, 1 - 3 / 5 + (1 / 5) ** 2, 1])
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(6, 2, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    assert torch.autograd.gradcheck(offset_loss, (one.requires_grad_(), other))


def test_learning_rate_of_the_first_steps() -> None:
    assert [learning_rate(step, 5, 20) for step in (0, 4, 5)] == [0, 1e-3, 1e-3]
    assert learning_rate(20, 5, 20) == pytest.approx(1e-8)
    assert learning_rate(0, 1, 20) == 0


# --------------------------------------------------------------------------------------------------- post-processing


def answering(model: UMMAFormer, spans: list[list[float]], length: int = 48) -> UMMAFormerOutputs:
    """Outputs that say exactly these spans."""
    outputs = run(model, item(length))
    answers, offsets = model.assign(model.points(outputs.mask.shape[-1]), torch.tensor([spans]))
    logits = torch.where(answers, 3.0, -9.0)
    return outputs._replace(logits=logits, offsets=offsets.clamp(min=0))


def test_perfect_answers_are_decoded_exactly() -> None:
    model = tiny()
    with torch.no_grad():
        outputs = answering(model, [[3.25, 8.5], [20.0, 41.75]])
    (ranked,) = model.proposals(outputs)
    assert ranked.dtype == np.float64
    assert (np.diff(ranked[:, 0]) <= 0).all()
    best = ranked[:2, 1:]
    assert best[best[:, 0].argsort()].tolist() == [pytest.approx([3.25, 8.5]), pytest.approx([20.0, 41.75])]
    (seconds,) = model.detections(outputs, [FeatureItem(torch.zeros(8, 48), None, 2.0, 25.0, 3.2)])
    assert sorted(seconds[:2, 1:].tolist()) == [pytest.approx([0.3, 0.72]), pytest.approx([1.64, 3.2])]  # clipped


def test_a_small_overlap_leaves_scores_alone() -> None:
    """U9."""
    for mended in (True, False):
        model = tiny(right(overlap=mended), nms_iou=0.3)
        with torch.no_grad():
            outputs = answering(model, [[3.0, 8.0], [7.0, 12.0], [11.0, 16.0]])
        (ranked,) = model.proposals(outputs)
        assert np.isclose(ranked[2, 0], ranked[0, 0]) == mended


def test_padding_is_never_proposed() -> None:
    model = tiny()
    with torch.no_grad():
        outputs = run(model, item(20))
    assert outputs.there.sum() == 20 + 10 + 5
    loud = outputs._replace(logits=torch.full_like(outputs.logits, 5.0), offsets=torch.ones_like(outputs.offsets))
    spans, scores = model.candidates(loud)[0]
    assert len(scores) == 35
    assert spans[:, 0].max() < 20


def test_nothing_found_is_an_empty_list() -> None:
    model = tiny()
    with torch.no_grad():
        outputs = run(model, item())
    silent = outputs._replace(logits=torch.full_like(outputs.logits, -20.0))
    assert model.proposals(silent)[0].shape == (0, 3)
    assert model.detections(silent, [item()])[0].shape == (0, 3)


# ------------------------------------------------------------------------------------------------- own encoders


def window(n: int, *, faces: bool = True, sound: bool = True, seed: int = 0) -> ClipWindow:
    rng = np.random.default_rng(seed)
    return ClipWindow(
        rng.integers(0, 256, (n, 96, 96, 3), np.uint8) if faces else None,
        np.ones(n, bool) if faces else None,
        rng.uniform(-1, 1, 640 * n).astype(np.float32) if sound else None,
        n,
    )


@pytest.fixture(scope="module")
def clips() -> UMMAFormer:
    torch.manual_seed(0)
    model = UMMAFormer(dataclasses.replace(CLIPS, prior=0.2)).eval()
    torch.nn.init.ones_(model.reg_head.offset_head.conv.bias)  # so that it proposes something untrained
    return model


def test_windows_of_clips_to_findings(clips: UMMAFormer) -> None:
    windows = [window(20), window(7), window(1)]
    inputs = [clips.preprocess(w) for w in windows]
    assert inputs[0].video.shape == (3, 20, 96, 96)
    assert inputs[0].mel.shape == (64, 80)
    with torch.inference_mode():
        together = clips.postprocess(clips(clips.collate(inputs)), [20, 7, 1])
        alone = [clips.postprocess(clips(clips.collate([one])), [one.there.shape[1]])[0] for one in inputs]
    for finding, single, n in zip(together, alone, (20, 7, 1), strict=True):
        assert finding.logits.keys() == finding.curves.keys() == finding.proposals.keys() == {"audio_visual"}
        curve, ranked = finding.curves["audio_visual"], finding.proposals["audio_visual"]
        assert curve.shape == (n,)
        assert curve.dtype == torch.float32
        assert 0 < curve.max() <= 1
        assert curve.max().item() <= ranked[0, 0] + 1e-6
        assert (np.diff(ranked[:, 0]) <= 0).all()
        assert ranked[:, 1].min() >= 0
        assert ranked[:, 2].max() <= n
        assert single.logits["audio_visual"] == pytest.approx(finding.logits["audio_visual"], abs=1e-5)
        torch.testing.assert_close(single.curves["audio_visual"], curve, atol=1e-5, rtol=1e-4)


def test_only_what_was_there_is_judged(clips: UMMAFormer) -> None:
    windows = [window(9, sound=False), window(9, faces=False), window(9, faces=False, sound=False)]
    with torch.inference_mode():
        findings = clips.postprocess(clips(clips.collate([clips.preprocess(w) for w in windows])), [9] * 3)
        heard = clips.postprocess(clips(clips.collate([clips.preprocess(windows[1])])), [9])  # the film is not encoded
    assert [set(finding.logits) for finding in findings] == [{"video"}, {"audio"}, set()]
    assert heard[0].logits["audio"] == pytest.approx(findings[1].logits["audio"], abs=1e-5)


def test_ticks_without_a_face_say_nothing(clips: UMMAFormer) -> None:
    one = window(12)
    assert one.faces is not None
    assert one.seen is not None
    one.seen[4:] = False
    blank = one.faces.copy()
    blank[6:] = 0
    one.faces[6:] = 0
    with torch.inference_mode():
        features = clips.encode(clips.collate([clips.preprocess(one)])).features
    assert features[0, :12, 4:12].eq(0).all()
    assert features[0, 12:, 4:12].ne(0).any()


def test_the_whole_detector_trains_from_faces_and_sound() -> None:
    torch.manual_seed(0)
    model = UMMAFormer(dataclasses.replace(CLIPS, scale=0.1)).train()
    batch = model.collate([model.preprocess(window(20)), model.preprocess(window(20, seed=1))])
    targets = model.targets([ClipTruth(((5.0, 10.0),), ()), ClipTruth()], [20, 20])
    losses = model.criterion(model(batch, targets), targets)
    total(model, losses).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.freeze("encoders")
    assert not any(p.requires_grad for p in model.encoders.parameters())


def test_clock_is_that_of_the_sizes(clips: UMMAFormer) -> None:
    assert clips.clock == Clock(48, overlap=16)
    assert tiny().clock.ticks == 48


# ----------------------------------------------------------------------------------------------------------- weights


def checkpoint(model: UMMAFormer) -> dict[str, Any]:
    state = {f"module.{name}": value for name, value in model.state_dict().items() if name != "normaliser"}
    average = {name: value + 1 for name, value in state.items()}
    return {"state_dict": state, "state_dict_ema": average, "epoch": 14, "optimizer": {}, "scheduler": {}}


def test_released_checkpoints_load(tmp_path: Path) -> None:
    source = UMMAFormer(TINY.reference())
    torch.save(checkpoint(source), tmp_path / "released.pth.tar")
    for average in (True, False):
        for sizes in (TINY, TINY.reference()):
            model = from_released(tmp_path / "released.pth.tar", sizes, average=average)
            assert not model.training
            expected = source.state_dict()
            for name, value in model.state_dict().items():
                assert value.equal(expected[name] + (average and name != "normaliser")), name
    plain = {name: value for name, value in source.state_dict().items() if name != "normaliser"}
    save_file(plain, tmp_path / "plain.safetensors")
    assert (
        from_released(plain, TINY).state_dict().keys()
        == from_released(tmp_path / "plain.safetensors", TINY).state_dict().keys()
    )


def test_released_checkpoints_say_which_configuration_they_are() -> None:
    with torch.device("meta"):
        state = UMMAFormer(PRESETS["ummaformer-psynd"].reference()).state_dict()
        del state["normaliser"]
        model = from_released(state)
        corrected = UMMAFormer(PRESETS["ummaformer-psynd"])
    assert model.sizes == PRESETS["ummaformer-psynd"].reference()
    assert len(list(model.parameters())) == 608
    assert len(list(corrected.parameters())) == 608 - 31  # the dead block
    with pytest.raises(WeightsError, match="give the sizes"):
        from_released(checkpoint(UMMAFormer(TINY.reference())))


def test_released_checkpoints_are_loaded_strictly(tmp_path: Path) -> None:
    whole = checkpoint(UMMAFormer(TINY.reference()))
    with pytest.raises(WeightsError, match="has no averaged weights"):
        from_released({"state_dict": whole["state_dict"]}, TINY)
    key, dead = "module.neck.fpn_norms.0.bias", "module.backbone.hh_branch.1.ln2.bias"
    for spoilt, message in (
        ({k: v for k, v in whole["state_dict"].items() if k != key}, r"missing neck\.fpn_norms\.0\.bias"),
        ({k: v for k, v in whole["state_dict"].items() if k != dead}, r"missing backbone\.hh_branch\.1\.ln2\.bias"),
        (whole["state_dict"] | {"module.more": torch.zeros(1)}, "unexpected more"),
        (whole["state_dict"] | {key: torch.zeros(8)}, r"is \(8,\), not"),
    ):
        with pytest.raises(WeightsError, match=message):
            from_released(spoilt, TINY)
    (tmp_path / "bad.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match=r"bad\.pth cannot be read"):
        from_released(tmp_path / "bad.pth", TINY)
    with pytest.raises(WeightsError, match="more than named tensors"):
        from_released({"weights": 3}, TINY)


def test_decay_is_for_kernels() -> None:
    model = UMMAFormer(CLIPS)
    decayed = {name for name, p in model.named_parameters() if model.decays(name, p)}
    assert "encoders.video.block0.0.conv.weight" in decayed
    assert "interpolator.conv1.weight" in decayed
    assert not any(name.endswith(("bias", "scale", "norm.weight", "ln1.weight", "bn1.weight")) for name in decayed)
    assert sum(len(group["params"]) for group in model.parameter_groups(1e-3, 0.05)) == len(list(model.parameters()))


# ---------------------------------------------------------------------------------------------------------- learning


@pytest.mark.slow
def test_it_learns_to_find_what_does_not_fit() -> None:
    """Forged spans break the relation between two halves of the features; nothing else tells them."""
    generator = torch.Generator().manual_seed(0)

    def clip(forged: bool) -> FeatureItem:
        base = torch.randn(4, 48, generator=generator)
        features = torch.cat([base, base])
        if not forged:
            return FeatureItem(features, None, 1.0, 25.0, 1.92)
        start = int(torch.randint(2, 30, (), generator=generator))
        end = start + int(torch.randint(6, 14, (), generator=generator))
        features[4:, start:end] *= -1
        return FeatureItem(features, torch.tensor([[start - 0.5, end - 0.5]]), 1.0, 25.0, 1.92)

    model = tiny(normaliser=20.0, drop_path=0.0, width=16, neck=16).train()
    optimiser = torch.optim.AdamW(model.parameter_groups(4e-3, 0.01))
    for _ in range(60):
        items = [clip(forged=i % 2 == 0) for i in range(8)]
        losses = model.criterion(run(model, *items), model.feature_targets(items))
        optimiser.zero_grad()
        total(model, losses).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    model.eval()
    items = [clip(forged=i % 2 == 0) for i in range(16)]
    with torch.no_grad():
        ranked = model.proposals(run(model, *items))
    hits = 0
    for found, one in zip(ranked[::2], items[::2], strict=True):
        assert one.segments is not None
        start, end = one.segments[0].tolist()
        shared = min(found[0, 2], end) - max(found[0, 1], start)
        hits += shared / (max(found[0, 2], end) - min(found[0, 1], start)) > 0.5
    assert hits >= 6
    assert np.median([r[0, 0] for r in ranked[::2]]) > 2 * max(r[0, 0] if len(r) else 0 for r in ranked[1::2])
