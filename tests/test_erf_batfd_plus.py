"""ERF-BA-TFD+: shapes, targets, masks, receptive field, decoding, criterion."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seamline import zoo
from seamline.detectors.base import ClipTruth, ClipWindow
from seamline.detectors.erf_batfd_plus import (
    MODALITIES,
    PRESETS,
    ErfBatfdPlus,
    ErfInputs,
    ErfOutputs,
    ErfPart,
    ErfSizes,
    _refined_iou,
    build,
    durations,
)
from seamline.encoders import light
from seamline.pace import LAGS

TINY = PRESETS["erf-batfd-plus-tiny"]


@pytest.fixture
def detector() -> ErfBatfdPlus:
    torch.manual_seed(0)
    return build("erf-batfd-plus-tiny").eval()


def window(ticks: int, *, faces: bool = True, sound: bool = True, seed: int = 0) -> ClipWindow:
    rng = np.random.default_rng(seed)
    return ClipWindow(
        rng.integers(0, 256, (ticks, 32, 32, 3), dtype=np.uint8) if faces else None,
        np.ones(ticks, bool) if faces else None,
        rng.normal(0, 0.1, ticks * 640).astype(np.float32) if sound else None,
        ticks,
        rng.uniform(0, 30, (ticks, LAGS)).astype(np.float32) if faces else None,
    )


def look(detector: ErfBatfdPlus, *windows: ClipWindow) -> ErfOutputs:
    with torch.no_grad():
        outputs: ErfOutputs = detector(detector.collate([detector.preprocess(w) for w in windows]))
    return outputs


def test_rows_reach_the_whole_window_at_logarithmic_cost() -> None:
    rows = durations(512)
    assert rows[:12] == tuple(range(1, 13))
    assert rows[-1] == 512
    assert len(rows) < 40  # BA-TFD+ pays 40 rows for 1.6 s
    assert all(b <= a * 1.2 + 1 for a, b in itertools.pairwise(rows))
    assert durations(3) == (1, 2, 3)


def test_targets_are_the_iou_with_the_nearest_forgery(detector: ErfBatfdPlus) -> None:
    truth = ClipTruth(((3.0, 9.5),), ((20.0, 40.0), (38.0, 44.0)))
    targets = detector.targets([truth, ClipTruth()], [60, 20])
    rows = TINY.rows
    assert targets.video.map.shape == (2, len(rows), 64)
    for d, b in ((5, 3), (6, 3), (10, 0), (2, 30)):
        start, end = b, b + rows[d]
        shared = max(0.0, min(end, 9.5) - max(start, 3.0))
        assert targets.video.map[0, d, b] == pytest.approx(shared / (end - start + 6.5 - shared))
    cell = targets.video.offsets[0, :, 6, 3]  # [3, 10) to [3, 9.5)
    assert cell.tolist() == pytest.approx([0.0, -0.5 / 7])
    assert targets.video.frames[0, 2:11].tolist() == [0, 1, 1, 1, 1, 1, 1, 0.5, 0]
    # Both together: the two spans of sound are one, and the video's joins them.
    assert targets.audio_visual.frames[0, 20:44].min() == 1
    assert targets.audio_visual.map[0, rows.index(20), 20] == pytest.approx(20 / 24)
    assert targets.audio.map[0, rows.index(20), 20] == 1
    assert targets.video.label.tolist() == [1, 0]
    assert not targets.audio_visual.map[1].any()
    assert targets.cells[1, 0].sum() == 20
    assert targets.cells[1, rows.index(20)].sum() == 6  # up to a quarter of it may hang over


def test_padding_and_neighbours_in_the_batch_change_nothing(detector: ErfBatfdPlus) -> None:
    alone = look(detector, window(40))
    among = look(detector, window(40), window(64, seed=1), window(50, faces=False, seed=2))
    for name in MODALITIES:
        one, many = getattr(alone, name), getattr(among, name)
        torch.testing.assert_close(one.logit[0], many.logit[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one.frames[0, :40], many.frames[0, :40], atol=1e-5, rtol=1e-4)
        short = [i for i, row in enumerate(TINY.rows) if row <= 40]
        torch.testing.assert_close(one.map[0, short, :40], many.map[0, short, :40], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("absent", ["video", "audio"])
def test_an_absent_modality_is_masked_and_never_seen(detector: ErfBatfdPlus, absent: str) -> None:
    given = window(40, faces=absent != "video", sound=absent != "audio")
    batch: ErfInputs = detector.collate([detector.preprocess(given)])
    noise = torch.Generator().manual_seed(1)
    other = (
        batch._replace(faces=torch.randint(0, 256, batch.faces.shape, generator=noise).to(torch.uint8))
        if absent == "video"
        else batch._replace(sound=torch.rand(batch.sound.shape, generator=noise))
    )
    present = "audio" if absent == "video" else "video"
    with torch.no_grad():
        a, b = detector(batch), detector(other)
    for name in (present, "audio_visual"):
        torch.testing.assert_close(getattr(a, name).logit, getattr(b, name).logit)
        torch.testing.assert_close(getattr(a, name).map, getattr(b, name).map)
    finding = detector.postprocess(a, [40])[0]
    assert set(finding.logits) == {present}
    assert set(finding.curves) == set(finding.proposals) == {present}


def test_a_window_of_nothing_gives_no_finding_and_no_nan(detector: ErfBatfdPlus) -> None:
    outputs = look(detector, window(40, faces=False, sound=False))
    assert torch.isfinite(outputs.audio_visual.logit).all()
    assert detector.postprocess(outputs, [40])[0].logits == {}


def reach(detector: ErfBatfdPlus) -> Tensor:
    """(T,) how much each tick of the sound moves the judgement of the middle tick."""
    batch = detector.collate([detector.preprocess(window(64, faces=False))])
    sound = batch.sound.clone().requires_grad_()
    outputs = detector(batch._replace(sound=sound))
    outputs.audio.frames[0, 32].backward()
    assert sound.grad is not None
    return sound.grad.view(64, -1).abs().sum(1)


def test_faces_looked_at_piece_by_piece_are_those_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = light.LightVideo(8, side=32, channels=(4, 4, 4, 4)).eval()
    faces = torch.randint(0, 256, (2, 3, 23, 32, 32), dtype=torch.uint8)
    mask = torch.ones(2, 1, 23)
    mask[0, :, 4:9] = mask[1, :, :2] = mask[1, :, 20:] = 0
    whole = encoder(faces, mask)
    monkeypatch.setattr(light, "PIECE", 5)
    torch.testing.assert_close(encoder(faces, mask), whole, atol=1e-6, rtol=1e-6)


def test_the_enhanced_receptive_field_spans_the_window_and_the_plain_one_does_not() -> None:
    torch.manual_seed(0)

    def build_without_whole_window_statistics(erf: bool) -> ErfBatfdPlus:
        # Against() lets every tick know the window's mean: that is no receptive field, so it is put to one side here.
        detector = ErfBatfdPlus(dataclasses.replace(TINY, erf=erf, cues=False)).eval()
        detector.audio.encoder.against = _Pass()  # type: ignore[union-attr,assignment]
        return detector

    class _Pass(torch.nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return x

    before = light.masked_mean
    light.masked_mean = lambda x, mask: torch.zeros_like(before(x, mask))  # type: ignore[assignment]
    try:
        far, near = (
            reach(build_without_whole_window_statistics(True)),
            reach(build_without_whole_window_statistics(False)),
        )
    finally:
        light.masked_mean = before
    assert (far > 0).all()
    assert (near > 0).sum() < 24
    assert near[32] > 0


def perfect(detector: ErfBatfdPlus, truth: ClipTruth, ticks: int) -> ErfOutputs:
    """Outputs that say exactly what the targets say."""
    targets = detector.targets([truth], [ticks])
    parts = [
        ErfPart(
            torch.where(t.label > 0, 8.0, -8.0), torch.logit(t.frames, 1e-4), torch.logit(t.map, 1e-4), t.offsets,
            torch.ones(1, dtype=torch.bool),
        )
        for t in (targets.video, targets.audio, targets.audio_visual)
    ]  # fmt: skip
    return ErfOutputs(*parts, torch.zeros(1, 2, targets.video.frames.shape[-1]), parts[0].frames)


@pytest.mark.parametrize("span", [(3.0, 9.5), (0.0, 60.0), (31.25, 33.0), (10.0, 58.0)])
def test_a_perfect_map_decodes_to_the_truth_to_the_sub_tick(detector: ErfBatfdPlus, span: tuple[float, float]) -> None:
    finding = detector.postprocess(perfect(detector, ClipTruth(video=(span,)), 60), [60])[0]
    score, start, end = finding.proposals["audio_visual"][0]
    assert (start, end) == pytest.approx(span, abs=1e-3)
    assert score > 0.5
    assert finding.proposals["audio"][0][0] < 1e-3
    assert finding.curves["video"].shape == (60,)
    assert (np.diff(finding.proposals["video"][:, 0]) <= 0).all()


def test_the_criterion_is_least_at_the_truth_and_teaches_every_weight(detector: ErfBatfdPlus) -> None:
    truth = ClipTruth(((3.0, 9.5),), ((20.0, 40.0),))
    targets = detector.targets([truth], [60])
    ideal = detector.criterion(perfect(detector, truth, 60), targets)
    windows = [window(60), window(60, seed=1), window(60, sound=False), window(60, faces=False)]
    truths = [truth, ClipTruth(), ClipTruth(video=((1.0, 60.0),)), ClipTruth(audio=((5.0, 8.0),))]
    detector.train()
    batch = detector.collate([detector.preprocess(w) for w in windows])
    losses = detector.criterion(detector(batch), detector.targets(truths, [60] * 4))
    assert set(losses) == set(detector.loss_weights)
    for name in losses:
        assert ideal[name] < losses[name], name
    total = sum(detector.loss_weights[name] * value for name, value in losses.items())
    assert isinstance(total, Tensor)
    total.backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_one_class_alone_gives_no_nan(detector: ErfBatfdPlus) -> None:
    detector.train()
    for truth in (ClipTruth(), ClipTruth(((0.0, 60.0),), ((0.0, 60.0),))):
        batch = detector.collate([detector.preprocess(window(60))])
        losses = detector.criterion(detector(batch), detector.targets([truth], [60]))
        assert all(torch.isfinite(value) for value in losses.values())


def test_what_no_loss_asks_for_is_not_computed_and_the_rest_learns_the_same(detector: ErfBatfdPlus) -> None:
    """With the ticks of sound alone: the same gradients as if everything had been computed, and none elsewhere."""
    detector.train()
    for module in detector.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout1d | torch.nn.Dropout2d):
            module.p = 0.0
    detector.audio.encoder.blur = 0.0  # type: ignore[union-attr,assignment]
    batch = detector.collate([detector.preprocess(window(60)), detector.preprocess(window(33))])
    targets = detector.targets([ClipTruth(((1.0, 5.0),), ((2.0, 30.0),)), ClipTruth()], [60, 33])
    whole = dict(detector.loss_weights)
    found: list[dict[str, Tensor]] = []
    for weights in (whole, dict.fromkeys(whole, 0.0) | {"audio_frames": 1.0}):
        detector.zero_grad()
        detector.loss_weights = weights
        torch.manual_seed(0)  # styles are mixed by chance
        outputs = detector(batch)
        detector.criterion(outputs, targets)["audio_frames"].backward()
        found.append({name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None})
    assert (outputs.audio.map == 0).all()
    assert (outputs.audio_visual.frames == 0).all()
    assert all(name.startswith(("audio.encoder", "audio.field", "audio.frames")) for name in found[1])
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name])
    detector.loss_weights = dict.fromkeys(whole, 0.0) | {"audio_visual_map": 1.0}
    assert (detector(batch).audio.map != 0).any()  # the fusion is made of it
    detector.loss_weights = dict.fromkeys(whole, 0.0)
    detector.eval()
    assert (look(detector, window(40)).audio.map != 0).any()  # a scan is given all of it


def test_losses_of_what_is_not_given_are_silent(detector: ErfBatfdPlus) -> None:
    def heard(*given: str) -> set[str]:
        return {name.rpartition("_")[0] or name for name in detector.loss_weights.keys() - detector.silent(given)}

    assert heard("video", "audio") == {"video", "audio", "audio_visual", "rebuilding", "order"}
    assert heard("audio") == {"audio", "audio_visual", "rebuilding"}  # fusion may learn what to say of one modality
    detector.freeze("fusion")
    assert heard("audio") == {"audio"}
    assert heard("video") == {"video", "order"}
    assert heard("pace", "audio") == {"video", "audio", "audio_visual", "rebuilding", "order"}


def test_a_module_inside_a_part_may_keep_still(detector: ErfBatfdPlus) -> None:
    detector.freeze("audio.encoder")
    detector.train()
    assert not detector.audio.encoder.training  # nor do its running statistics move
    assert detector.audio.proposals.training
    learns = {name for name, p in detector.audio.named_parameters() if p.requires_grad}
    assert learns
    assert not any(name.startswith("encoder.") for name in learns)
    for wrong in ("sound", "audio.ears"):
        with pytest.raises(ValueError, match=f"no part '{wrong}'; it has video, audio"):
            detector.freeze(wrong)


def test_sixteen_bits_train_as_thirty_two_nearly_do(detector: ErfBatfdPlus) -> None:
    """As accelerate runs it: the network under autocast, the criterion on what comes out, in 32 bits."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in detector.parameters():
            weight.add_(0.05 * torch.randn_like(weight))  # or the heads, which start at zero, pass no gradient on
    batch = detector.collate([detector.preprocess(window(60)), detector.preprocess(window(33, sound=False))])
    targets = detector.targets([ClipTruth(((1.0, 5.0),), ((2.0, 30.0),)), ClipTruth()], [60, 33])
    found = []
    for low in (False, True):
        detector.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            outputs = detector(batch)
        wide = [ErfPart(*(t.float() if t.is_floating_point() else t for t in part)) for part in outputs[:3]]
        losses = detector.criterion(ErfOutputs(*wide, outputs.rebuilding.float(), outputs.order.float()), targets)
        total = torch.stack([detector.loss_weights[name] * value for name, value in losses.items()]).sum()
        total.backward()
        gradients = [p.grad for p in detector.parameters() if p.grad is not None]
        assert all(torch.isfinite(g).all() for g in gradients)
        found.append((float(total.detach()), torch.cat([g.flatten() for g in gradients])))
    assert found[1][0] == pytest.approx(found[0][0], rel=0.02)
    assert torch.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.98


def test_offsets_loss_has_the_right_slope() -> None:
    torch.manual_seed(0)
    truth = torch.rand(1, 2, 2, 3, dtype=torch.float64) * 0.4 - 0.2
    offsets = (torch.rand(1, 2, 2, 3, dtype=torch.float64) * 0.4 - 0.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda o: _refined_iou(o, truth), (offsets,))
    torch.testing.assert_close(_refined_iou(truth, truth), torch.ones(1, 2, 3, dtype=torch.float64))


@pytest.mark.parametrize("switch", [{"erf": False}, {"long": False}, {"umma": False}])
def test_every_switch_trains_and_travels(tmp_path: Path, switch: dict[str, Any]) -> None:
    sizes = dataclasses.replace(TINY, **switch)
    assert ErfSizes.from_dict(sizes.to_dict()) == sizes
    torch.manual_seed(0)
    detector = ErfBatfdPlus(sizes)
    batch = detector.collate([detector.preprocess(window(60)), detector.preprocess(window(33, sound=False))])
    losses = detector.criterion(detector(batch), detector.targets([ClipTruth(((1.0, 5.0),)), ClipTruth()], [60, 33]))
    torch.stack([detector.loss_weights[name] * value for name, value in losses.items()]).sum().backward()
    detector.eval()
    zoo.save(detector, tmp_path / "tiny.safetensors")
    loaded, card = zoo.load_detector(tmp_path / "tiny.safetensors")
    assert card.detector == "erf-batfd-plus"
    assert isinstance(loaded, ErfBatfdPlus)
    a, b = look(detector, window(40)), look(loaded, window(40))
    torch.testing.assert_close(a.audio_visual.map, b.audio_visual.map)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="erf-batfd-plus-light"):
        build("nothing")


def test_a_style_is_taken_from_another_window_and_what_changes_within_stays() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 8, 40) * torch.rand(6, 8, 1) + torch.randn(6, 8, 1)
    mask = torch.ones(6, 1, 40)
    mask[2, :, 30:] = 0
    mask[4] = 0
    x = x * mask
    draws = [light.mix_style(x, mask) for _ in range(24)]
    same = [bool(torch.equal(made, x)) for made in draws]
    assert 4 < sum(same) < 20  # every second time
    made = draws[same.index(False)]
    assert made.isfinite().all()
    assert not made[4].any()
    assert not made[2, :, 30:].any()
    for k in (0, 1, 2, 3, 5):
        there = mask[k, 0] > 0
        a, b = x[k][:, there], made[k][:, there]
        one, two = ((v - v.mean(1, keepdim=True)) / v.std(1, keepdim=True) for v in (a, b))
        torch.testing.assert_close(one, two, atol=1e-2, rtol=1e-2)
        style = torch.stack([v[:, v.any(0)].mean(1) for v in x[[0, 1, 2, 3, 5]]])
        assert (b.mean(1) > style.amin(0) - 1e-3).all()
        assert (b.mean(1) < style.amax(0) + 1e-3).all()
    torch.testing.assert_close(light.mix_style(x[:1], mask[:1]), x[:1])  # nobody to take it from
