"""BA-TFD and BA-TFD+ at tiny sizes: encoders, input, targets, losses, decoding, corrections, released checkpoints."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seamline.detectors.base import ClipTruth, ClipWindow
from seamline.detectors.batfd import (
    BATFD,
    LOSSES,
    PRESETS,
    BATFDInput,
    BATFDOutputs,
    BATFDSizes,
    Boundaries,
    Corrections,
    Curves,
    Ends,
    build,
    curve_loss,
    from_released,
    masked_mean,
    sizes_of,
    union,
)
from seamline.encoders.audio import AudioCNN, AudioViT, LogMel
from seamline.encoders.video import C3D, FeatureInput, MViT, pad_time, resize_frames
from seamline.errors import WeightsError

PLUS = PRESETS["ba-tfd-plus-tiny"]
TICKS = PLUS.ticks
STORED = dataclasses.replace(PLUS, video="features", video_channels=(5,), audio="features", audio_channels=(7,))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """A second thread is of no use to networks as small as these, and costly where others use the processor too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def clip(rng: np.random.Generator, ticks: int = TICKS, side: int = 96) -> ClipWindow:
    faces = rng.integers(0, 256, (ticks, side, side, 3), np.uint8)
    return ClipWindow(faces, np.ones(ticks, bool), rng.normal(0, 0.1, ticks * 640).astype(np.float32), ticks)


def stored(count: int, present: tuple[bool, bool] = (True, True), ticks: int = TICKS) -> BATFDInput:
    """A batch of stored features: what costs next to nothing to encode."""
    both = torch.tensor([present] * count)
    return BATFDInput(torch.randn(count, ticks, 5), torch.randn(count, ticks, 7), both)


def batch_of(model: BATFD, *windows: ClipWindow) -> BATFDInput:
    return model.collate([model.preprocess(window) for window in windows])


# --------------------------------------------------------------------------------------------------------- encoders


@pytest.fixture(scope="module")
def transformer() -> MViT:
    return MViT("t", 16, 3).eval()


@torch.no_grad()
def test_every_encoder_gives_one_vector_per_tick(transformer: MViT) -> None:
    video, mel = torch.rand(2, 3, 3, 96, 96), torch.randn(2, 64, 12)
    assert C3D(20, (2, 3, 4, 5))(video).shape == (2, 20, 3)
    assert transformer(video).shape == (2, 16, 3)
    assert AudioCNN((2, 3, 4))(mel).shape == (2, 16, 3)
    assert AudioViT("t", 16, 3, layers=1)(mel).shape == (2, 16, 3)
    assert FeatureInput(7, 16)(torch.randn(2, 3, 7)).shape == (2, 16, 3)


@torch.no_grad()
def test_the_video_transformer_takes_other_lengths(transformer: MViT) -> None:
    assert transformer(torch.rand(1, 3, 2, 96, 96)).shape == (1, 16, 2)
    assert transformer(torch.rand(1, 3, 5, 96, 96)).shape == (1, 16, 5)


def test_encoders_start_alive_and_repeatably() -> None:
    for make in (lambda: MViT("t", 16, 4), lambda: AudioViT("t", 16, 4)):
        torch.manual_seed(3)
        one = make().state_dict()
        torch.manual_seed(3)
        two = make().state_dict()
        for name, value in one.items():
            assert value.isfinite().all()
            assert value.equal(two[name])
            assert value.ndim < 2 or value.std() > 0, name
        norms = [value for name, value in one.items() if "norm" in name or ".ln" in name]
        assert {float(v) for value in norms for v in value.unique()} == {0.0, 1.0}


def test_unknown_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="t, s, b"):
        MViT("xl", 16, 4)
    with pytest.raises(ValueError, match="multiple of 8"):
        MViT("t", 20, 4)
    with pytest.raises(ValueError, match="t, s, b"):
        AudioViT("xl", 16, 4)


def test_spectrogram_has_four_frames_a_tick_and_knows_silence(rng: np.random.Generator) -> None:
    mel = LogMel()
    assert mel(torch.zeros(3, 6400)).shape == (3, 64, 40)
    assert mel(torch.zeros(6400)).allclose(torch.tensor(math.log(0.01)))
    assert not mel.state_dict()
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
    peak = mel(tone).mean(1).argmax()
    heard = 700 * (10 ** ((peak + 1) * 2595 * math.log10(1 + 8000 / 700) / 65 / 2595) - 1)  # centre of that filter
    assert heard == pytest.approx(1000, rel=0.05)
    with pytest.raises(ValueError, match="more than 160"):
        mel(torch.zeros(160))


def test_frames_are_squashed_and_padded() -> None:
    assert resize_frames(torch.rand(2, 3, 40, 60)).shape == (2, 3, 96, 96)
    assert resize_frames(torch.zeros(0, 3, 40, 60)).shape == (0, 3, 96, 96)
    same = torch.rand(1, 3, 96, 96)
    assert resize_frames(same) is same
    x = torch.ones(3, 4, 2)
    assert pad_time(x, 6).sum() == 24
    assert pad_time(x, 3).shape == (3, 3, 2)


# ------------------------------------------------------------------------------------------------------------- input


def test_preprocess_pads_and_cuts(rng: np.random.Generator) -> None:
    model = BATFD(PLUS)
    short = model.preprocess(clip(rng, 10, side=50))
    assert short.video.shape == (3, TICKS, 96, 96)
    assert short.audio.shape == (64, 4 * TICKS)
    assert short.video[:, :10].std() > 0
    assert not short.video[:, 10:].any()
    assert short.audio[:, 44:].allclose(torch.tensor(math.log(0.01)))
    assert short.present.tolist() == [True, True]
    long = model.preprocess(clip(rng, TICKS + 5))
    assert long.video.shape == (3, TICKS, 96, 96)
    assert long.audio.shape == (64, 4 * TICKS)


def test_preprocess_of_one_modality(rng: np.random.Generator) -> None:
    model, window = BATFD(PLUS), clip(rng)
    deaf = model.preprocess(window._replace(sound=None))
    blind = model.preprocess(window._replace(faces=None, seen=None))
    assert deaf.present.tolist() == [True, False]
    assert deaf.audio.allclose(torch.tensor(math.log(0.01)))
    assert blind.present.tolist() == [False, True]
    assert not blind.video.any()


def test_stored_features_have_no_window(rng: np.random.Generator) -> None:
    model = BATFD(dataclasses.replace(STORED, generator=True)).eval()
    with pytest.raises(ValueError, match="stored features"):
        model.preprocess(clip(rng))
    batch = stored(2)
    outputs = model(batch)
    assert outputs.fusion.maps.shape == (2, 3, 8, TICKS)
    assert outputs.fusion.back is not None
    turned = model(batch._replace(video=batch.video.flip(1), audio=batch.audio.flip(1)))
    assert turned.fusion.ends is not None
    torch.testing.assert_close(turned.fusion.ends.start, outputs.fusion.back.start)


# ----------------------------------------------------------------------------------------------------------- targets


def test_targets_of_each_modality_and_of_both() -> None:
    truth = ClipTruth(video=((4.0, 8.0),), audio=((6.0, 10.0), (20.0, 24.0)))
    made = BATFD(PLUS).targets([truth, ClipTruth()], [30, 12])
    assert made.fusion_map.shape == (2, 8, TICKS)
    assert made.video_map[0, 3, 4] == 1  # [4, 8)
    assert made.audio_map[0, 3, 20] == 1  # [20, 24)
    assert made.fusion_map[0, 5, 4] == 1  # [4, 10), both together
    assert made.fusion_map[0, 3, 4] == pytest.approx(4 / 6)
    assert made.video_frames[0].nonzero()[:, 0].tolist() == [4, 5, 6, 7]
    assert made.audio_frames[0].sum() == 8
    assert made.authentic.tolist() == [False, True]
    assert not made.fusion_map[1].any()
    assert made.ticks.tolist() == [30, 12]
    assert made.fusion_curves is None
    released = BATFD(PLUS.reference()).targets([truth], [30])
    assert released.fusion_map[0, 3, 4] == 1  # spans stay apart
    assert released.fusion_map[0, 5, 4] < 1


def test_union_joins_what_touches() -> None:
    assert union([(5, 6), (1, 3), (3, 4), (2, 2.5)]) == [(1, 4), (5, 6)]
    assert union([]) == []


# ------------------------------------------------------------------------------------------------- network and losses


@pytest.mark.parametrize("name", ["ba-tfd-tiny", "ba-tfd-plus-tiny"])
@pytest.mark.parametrize("mode", ["corrected", "reference"])
@pytest.mark.parametrize("generator", [False, True])
def test_a_training_step_reaches_every_parameter(
    name: str, mode: str, generator: bool, rng: np.random.Generator
) -> None:
    sizes = dataclasses.replace(PRESETS[name], ticks=8, durations=4)
    sizes = sizes if mode == "corrected" else sizes.reference()
    if generator:
        if not sizes.relations:
            with pytest.raises(ValueError, match="boundary generator"):
                dataclasses.replace(sizes, generator=True)
            return
        stored_sizes = {name: getattr(STORED, name) for name in ("video", "video_channels", "audio", "audio_channels")}
        sizes = dataclasses.replace(sizes, generator=True, **stored_sizes)
    model = BATFD(sizes).train()
    batch = stored(2, ticks=8) if generator else batch_of(model, clip(rng, 8), clip(rng, 5))
    outputs = model(batch)
    branches = 3 if sizes.relations else 1
    for said in (outputs.fusion, outputs.video, outputs.audio):
        assert said.maps.shape == (2, branches, 4, 8)
        assert 0 < said.maps.min()
        assert said.maps.max() < 1
    assert outputs.video_frames.shape == outputs.audio_frames.shape == (2, 8)
    assert outputs.video_features.shape == outputs.audio_features.shape == (2, 16, 8)
    truths = [ClipTruth(((4.0, 6.0),), ()), ClipTruth()]
    losses = model.criterion(outputs, model.targets(truths, [8, 5]))
    assert losses.keys() == model.loss_weights.keys() <= set(LOSSES)
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    torch.stack([model.loss_weights[key] * loss for key, loss in losses.items()]).sum().backward()
    unmoved = [key for key, p in model.named_parameters() if p.grad is None]
    assert not unmoved


def test_masked_mean_weighs_windows_alike() -> None:
    x = torch.tensor([[1.0, 3.0, 100.0], [5.0, 100.0, 100.0], [7.0, 7.0, 7.0]])
    n = torch.tensor([2, 1, 9])
    assert masked_mean(x, n, torch.tensor([True, True, True])) == pytest.approx((2 + 5 + 7) / 3)
    assert masked_mean(x[:, None, None].expand(-1, 2, 3, -1), n, torch.tensor([True, True, False])) == pytest.approx(
        3.5
    )
    assert masked_mean(x, n, torch.zeros(3, dtype=torch.bool)) == 0


def test_losses_pass_their_gradient_check() -> None:
    model = BATFD(dataclasses.replace(STORED, ticks=3, durations=2))
    generator = torch.Generator().manual_seed(1)
    truth = model.targets([ClipTruth(((1.0, 3.0),), ((0.0, 2.0),)), ClipTruth()], [3, 2])
    present = torch.ones(2, 2, dtype=torch.bool)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()

    def total(fused: Tensor, video: Tensor, audio: Tensor, frames: Tensor, xv: Tensor, xa: Tensor) -> Tensor:
        maps = Boundaries(fused), Boundaries(video), Boundaries(audio)
        losses = model.criterion(BATFDOutputs(*maps, frames, frames + 1, xv, xa, present), truth)
        return torch.stack(list(losses.values())).sum()

    maps = [draw(2, 1, 2, 3) for _ in range(3)]
    assert torch.autograd.gradcheck(total, (*maps, draw(2, 3), draw(2, 2, 3), draw(2, 2, 3)))

    curves = Curves(torch.rand(2, 4, dtype=torch.float64), torch.rand(2, 4, dtype=torch.float64))
    n, those = torch.tensor([4, 3]), torch.tensor([True, True])
    assert torch.autograd.gradcheck(
        lambda a, b, c, d: curve_loss(Ends(a, b), Ends(c, d), curves, n, those), [draw(2, 4) for _ in range(4)]
    )


def test_contrast_in_both_forms() -> None:
    sizes = dataclasses.replace(STORED, ticks=4)
    video, audio = torch.zeros(2, 16, 4), torch.full((2, 16, 4), 0.5)
    n, those = torch.tensor([4, 2]), torch.tensor([True, True])
    real, fake = torch.tensor([True, True]), torch.tensor([False, False])
    corrected = BATFD(sizes)
    assert corrected.contrast_loss(video, audio, real, n, those) == pytest.approx(0.25)  # whatever the length
    assert corrected.contrast_loss(video, audio, fake, n, those) == pytest.approx((0.99 - 0.5) ** 2)
    released = BATFD(sizes.reference())
    assert released.contrast_loss(video, audio, real, n, those) == pytest.approx((16 + 8) / 2 / 64)
    assert released.contrast_loss(video, audio, fake, n, those) == 0
    assert released.loss_weights["contrast"] == pytest.approx(0.1 / 64)
    assert corrected.loss_weights["contrast"] == pytest.approx(0.1)


def test_an_absent_modality_has_no_say() -> None:
    model = BATFD(STORED).eval()
    batch = stored(3)._replace(present=torch.tensor([[True, False], [False, True], [True, True]]))
    with torch.no_grad():
        outputs = model(batch)
    assert outputs.fusion.maps[0].equal(outputs.video.maps[0])
    assert outputs.fusion.maps[1].equal(outputs.audio.maps[1])
    assert not outputs.fusion.maps[2].equal(outputs.audio.maps[2])
    findings = model.postprocess(outputs, [TICKS] * 3)
    assert [set(f.logits) for f in findings] == [{"video"}, {"audio"}, {"video", "audio", "audio_visual"}]

    truths = [ClipTruth(((2.0, 5.0),), ()), ClipTruth((), ((2.0, 5.0),)), ClipTruth()]
    targets = model.targets(truths, [TICKS] * 3)
    losses = model.criterion(outputs, targets)
    kept = BATFDOutputs(*(_picked(part, [0, 2]) for part in outputs))
    both = model.criterion(kept, model.targets([truths[0], truths[2]], [TICKS] * 2))
    torch.testing.assert_close(losses["video_map"], both["video_map"])
    torch.testing.assert_close(losses["video_frame"], both["video_frame"])

    released = BATFD(STORED.reference()).eval()
    with torch.no_grad():
        outputs = released(batch)
    assert not outputs.fusion.maps.equal(outputs.video.maps)


def _picked(part: Any, rows: list[int]) -> Any:
    return Boundaries(part.maps[rows]) if isinstance(part, Boundaries) else part[rows]


# ---------------------------------------------------------------------------------------------------------- decoding


def said(model: BATFD, maps: Tensor, frames: Tensor | None = None) -> BATFDOutputs:
    """Outputs that say the same (D, T) map of everything."""
    repeated = Boundaries(maps[None, None].expand(1, 3, -1, -1))
    frames = torch.full((1, TICKS), -3.0) if frames is None else frames
    features = torch.zeros(1, 16, TICKS)
    present = torch.ones(1, 2, dtype=torch.bool)
    return BATFDOutputs(repeated, repeated, repeated, frames, frames - 1, features, features, present)


def test_perfect_maps_decode_to_the_truth() -> None:
    model = BATFD(PLUS)
    truth = ClipTruth(((4.0, 9.0),), ((20.0, 22.0),))
    targets = model.targets([truth], [30])
    outputs = said(model, targets.fusion_map[0])
    (finding,) = model.postprocess(outputs, [30])
    assert set(finding.proposals) == {"video", "audio", "audio_visual"}
    for proposals in finding.proposals.values():
        assert proposals.shape[1] == 3
        assert proposals.dtype == np.float64
        assert len(proposals) <= PLUS.proposals
        assert (np.diff(proposals[:, 0]) <= 0).all()
        assert (proposals[:, 0] >= 0).all()
        assert (proposals[:, 0] <= 1).all()
        assert (proposals[:, 2] <= 30).all()
        assert sorted(proposals[:2, 1:].tolist()) == [[4, 9], [20, 22]]
    assert finding.logits["video"] > 5
    released = BATFD(PLUS.reference())
    (finding,) = released.postprocess(said(released, targets.fusion_map[0]), [30])
    assert [4, 8] in finding.proposals["video"][:2, 1:].tolist()  # D5: one tick short


def test_curves_are_the_frame_classifiers() -> None:
    model = BATFD(PLUS)
    frames = torch.linspace(-3, 3, TICKS)[None]
    (finding,) = model.postprocess(said(model, torch.full((8, TICKS), 0.3), frames), [20])
    assert {key: curve.shape for key, curve in finding.curves.items()} == {
        "video": (20,), "audio": (20,), "audio_visual": (20,)
    }  # fmt: skip
    torch.testing.assert_close(finding.curves["audio_visual"], frames[0, :20].sigmoid())
    assert finding.curves["audio"].dtype == torch.float32


@pytest.mark.parametrize("mode", ["corrected", "reference"])
@pytest.mark.parametrize("ticks", [1, 2, 3, 13, TICKS])
def test_windows_of_every_length_are_judged(ticks: int, mode: str) -> None:
    model = BATFD(PLUS if mode == "corrected" else PLUS.reference())
    (finding,) = model.postprocess(said(model, torch.rand(8, TICKS)), [ticks])
    for key in ("video", "audio", "audio_visual"):
        assert math.isfinite(finding.logits[key])
        assert finding.curves[key].shape == (ticks,)
        assert finding.proposals[key].shape[1:] == (3,)


def test_generator_sharpens_the_scores() -> None:
    sizes = dataclasses.replace(STORED, generator=True)
    model = BATFD(sizes).eval()
    with torch.no_grad():
        outputs = model(stored(1))
    decoded = model.decode(outputs)["audio_visual"]
    assert decoded.start is not None
    assert outputs.fusion.ends is not None
    assert outputs.fusion.back is not None
    expected = (outputs.fusion.ends.start * outputs.fusion.back.end.flip(-1)).sqrt()
    assert decoded.start.equal(expected)
    (finding,) = model.postprocess(outputs, [TICKS])  # D6: the released code fails here
    assert len(finding.proposals["video"])
    released = BATFD(sizes.reference())
    with pytest.raises(IndexError):
        released.postprocess(outputs, [TICKS])


# ------------------------------------------------------------------------------------------------- sizes and weights


def test_sizes_travel_as_json() -> None:
    for sizes in (*PRESETS.values(), PLUS.reference()):
        back = BATFDSizes.from_dict(json.loads(json.dumps(sizes.to_dict())))
        assert back == sizes
        assert isinstance(back.corrections, Corrections)
    with pytest.raises(ValueError, match="not the sizes"):
        BATFDSizes.from_dict({"tick": 3})
    for wrong in ({"video": "resnet"}, {"audio": "vit"}, {"loss_weights": {"fun": 1.0}}, {"width": 24}):
        with pytest.raises(ValueError, match=r"BATFDSizes|channels"):
            dataclasses.replace(PLUS, **wrong)  # type: ignore[arg-type]


def test_presets_build() -> None:
    assert build("ba-tfd-tiny").sizes is PRESETS["ba-tfd-tiny"]
    with pytest.raises(ValueError, match="ba-tfd-plus"):
        build("ba-tfd-minus")
    for name in ("ba-tfd", "ba-tfd-plus"):
        with torch.device("meta"):
            model = BATFD(PRESETS[name])
        assert sum(p.numel() for p in model.parameters()) > 2e6
        assert model.clock.ticks == 512
        assert model.clock.overlap >= PRESETS[name].durations


def test_each_correction_changes_what_it_says() -> None:
    """Every switch alone, from the released behaviour: the network's, or that of targets, losses or decoding."""
    released = STORED.reference()
    state = BATFD(released).state_dict()
    batch = stored(1, (True, False))
    truth, maps = ClipTruth(((4.0, 9.0),), ((7.0, 12.5),)), torch.rand(8, TICKS).round(decimals=1)

    def everything(corrections: Corrections) -> list[Tensor]:
        model = BATFD(dataclasses.replace(released, corrections=corrections)).eval()
        model.load_state_dict(state)
        with torch.no_grad():
            outputs = model(batch)
        targets = model.targets([truth], [TICKS])
        losses = model.criterion(outputs, targets)
        finding = model.postprocess(said(model, maps), [13])[0]
        proposals = torch.from_numpy(finding.proposals["video"])
        return [outputs.fusion.maps, outputs.video.maps, targets.fusion_map, losses["contrast"], proposals]

    base = everything(Corrections.none())
    for field in dataclasses.fields(Corrections):
        if field.name in ("last", "curves"):  # of the boundary generator, tested apart
            continue
        made = everything(dataclasses.replace(Corrections.none(), **{field.name: True}))
        same = [ours.shape == theirs.shape and ours.equal(theirs) for ours, theirs in zip(made, base, strict=True)]
        assert not all(same), field.name


def test_curves_lie_at_the_boundaries() -> None:
    sizes = dataclasses.replace(STORED, generator=True)
    with torch.device("meta"):
        corrected, released = BATFD(sizes), BATFD(sizes.reference())
    truth = ClipTruth(((14.0, 22.0),), ())
    right, wrong = (model.targets([truth], [TICKS]).video_curves for model in (corrected, released))
    assert right is not None
    assert wrong is not None
    assert right.start[0].nonzero()[:, 0].tolist() == [13, 14, 15]
    assert right.end[0].nonzero()[:, 0].tolist() == [21, 22, 23]
    assert wrong.start[0].nonzero().max() <= sizes.durations  # D7


def released_checkpoint(sizes: BATFDSizes) -> dict[str, Any]:
    """What a file of the released code holds: with the parameters of a boundary generator that never ran."""
    state = BATFD(dataclasses.replace(sizes, generator=True)).state_dict()
    state = {key: value for key, value in state.items() if not key.startswith("cbg_fusion_")}
    told = {"temporal_dim": sizes.ticks, "contrast_loss_margin": 0.5, "weight_frame_loss": 4.0, "distributed": False}
    return {"state_dict": state, "hyper_parameters": told, "epoch": 3, "callbacks": {}}


def test_released_checkpoints_load_strictly(tmp_path: Path) -> None:
    sizes = PLUS.reference()
    checkpoint = released_checkpoint(sizes)
    path = tmp_path / "batfd.ckpt"
    torch.save(checkpoint, path)
    model = from_released(path)
    assert not model.training
    assert model.sizes.margin == 0.5
    assert model.sizes.loss_weights["video_frame"] == 2.0
    assert dataclasses.replace(model.sizes, margin=0.99, loss_weights=sizes.loss_weights, overlap=8) == sizes
    for key, value in model.state_dict().items():
        assert value.equal(checkpoint["state_dict"][key])

    without = {k: v for k, v in checkpoint["state_dict"].items() if "_comp_boundary_generator." not in k}
    assert from_released(without, checkpoint["hyper_parameters"]).sizes == model.sizes
    better = from_released(path, corrections=dataclasses.replace(Corrections.none(), span=True))
    assert better.sizes.corrections.span

    for change, complaint in (
        (lambda s: s.pop("video_encoder.block1.0.conv.weight"), "block1"),
        (lambda s: s.pop("audio_frame_classifier.lr_layer.conv.bias"), "missing audio_frame"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda s: s.update({"prb_fusion_c.v_attn_block.attn_from_bm.conv.bias": torch.zeros(3)}), r"is \(3,\)"),
        (lambda s: s.pop("video_comp_boundary_generator.final.bias"), "boundary generator"),
    ):
        state = dict(checkpoint["state_dict"])
        change(state)
        with pytest.raises(WeightsError, match=complaint):
            from_released({"state_dict": state, "hyper_parameters": checkpoint["hyper_parameters"]})


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"a\.ckpt cannot be read"):
        from_released(tmp_path / "a.ckpt")
    with pytest.raises(WeightsError, match="not the weights of a BA-TFD"):
        from_released({"layer.weight": torch.zeros(3)})
    with pytest.raises(WeightsError, match="named tensors"):
        from_released({"layer.weight": "text"})


def test_old_names_of_the_transformer_are_read() -> None:
    sizes = dataclasses.replace(PLUS.reference(), audio="vit_t", audio_channels=(), ticks=8, durations=4, overlap=4)
    model = BATFD(sizes)
    old = {
        key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for key, value in model.state_dict().items()
    }
    assert any("linear_2" in key for key in old)
    back = from_released(old)
    assert back.sizes.audio == "vit_t"
    assert back.sizes.ticks == 8  # read off the positions
    for key, value in back.state_dict().items():
        assert value.equal(model.state_dict()[key])


@pytest.mark.parametrize("size", ["t", "s", "b"])
def test_sizes_are_read_off_the_tensors(size: str) -> None:
    sizes = dataclasses.replace(
        BATFDSizes().reference(), video=f"mvit_{size}", audio=f"vit_{size}", video_channels=(), audio_channels=()
    )
    with torch.device("meta"):
        state = BATFD(sizes).state_dict()
    assert sizes_of(state, {}, Corrections.none()) == sizes


def test_weight_decay_spares_what_it_should() -> None:
    corrected, released = BATFD(PLUS), BATFD(PLUS.reference())
    assert all(released.decays(name, p) for name, p in released.named_parameters())
    spared = {name for name, p in corrected.named_parameters() if not corrected.decays(name, p)}
    assert "video_frame_classifier.lr_layer.conv.bias" in spared
    assert "video_frame_classifier.lr_layer.conv.weight" not in spared
    assert len(released.parameter_groups(1e-5, 1e-4)) == 1


def test_parts_freeze() -> None:
    model = BATFD(PLUS)
    model.freeze("video", "audio")
    assert not any(p.requires_grad for p in model.video_encoder.parameters())
    assert any(p.requires_grad for p in model.video_boundary_module.parameters())
    model.train()
    assert not model.audio_encoder.training


@pytest.mark.parametrize("name", ["ba-tfd-tiny", "ba-tfd-plus-tiny"])
def test_it_learns_where_features_change(name: str) -> None:
    torch.manual_seed(1)
    model = BATFD(dataclasses.replace(STORED, relations=PRESETS[name].relations)).train()
    spans = [((4.0, 9.0),), ((12.0, 18.0),), ((20.0, 24.0),), ((25.0, 31.0),)]
    batch = stored(4)
    for i, ((start, end),) in enumerate(spans):
        batch.video[i, int(start) : int(end)] += 3
        batch.audio[i, int(start) : int(end)] -= 3
    targets = model.targets([ClipTruth(span, span) for span in spans], [TICKS] * 4)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        losses = model.criterion(model(batch), targets)
        total = torch.stack([model.loss_weights[key] * loss for key, loss in losses.items()]).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    with torch.no_grad():
        findings = model.eval().postprocess(model(batch), [TICKS] * 4)
    for finding, (span,) in zip(findings, spans, strict=True):
        start, end = finding.proposals["audio_visual"][0, 1:]
        assert min(end, span[1]) - max(start, span[0]) > 0.6 * (max(end, span[1]) - min(start, span[0]))
