"""Classifier and mask heads: shapes, switches, any grid, fast way equal to the plain one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamline.encoders import Features
from seamline.heads.classifier import LinearFusion, PatchAwareClassifier, QuantileFusion
from seamline.heads.mask import (
    Attention,
    ConditionStep,
    DeformableAttention,
    FeaturePyramid,
    MaskLocator,
    Resample,
    sine_code,
)


def small(**changes: object) -> MaskLocator:
    sizes = {"heads": 2, "pixel_layers": 1, "pixel_ffn": 16, "query_layers": 3, "query_ffn": 16, "queries": 3}
    return MaskLocator(12, 16, norm_groups=4, **(sizes | changes)).eval()  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- classifier


def test_linear_fusion_starts_as_the_mean() -> None:
    whole, patches = torch.randn(2), torch.randn(2, 6)
    assert torch.allclose(LinearFusion(6)(whole, patches), torch.cat([whole[:, None], patches], 1).mean(1))


def test_quantile_fusion_takes_any_number_of_patches_in_any_order() -> None:
    fusion = QuantileFusion()
    for n in (1, 2, 97):
        whole, patches = torch.randn(2), torch.randn(2, n)
        assert torch.allclose(fusion(whole, patches), fusion(whole, patches[:, torch.randperm(n)]), atol=1e-6)
    same = fusion(torch.full((1,), 2.0), torch.full((1, 50), 2.0))  # the first weights sum to one
    assert same.item() == pytest.approx(2, abs=1e-5)


def test_quantile_fusion_interpolates_as_torch_does() -> None:
    fusion = QuantileFusion((0.0, 0.3, 0.9, 1.0))
    patches = torch.randn(3, 11)
    with torch.no_grad():
        fusion.weight.copy_(torch.tensor([0.0, 0.0, 1.0, 10.0, 100.0, 1000.0]))
    quantiles = patches.quantile(torch.tensor([0.0, 0.3, 0.9, 1.0]), dim=1)
    expected = torch.tensor([1.0, 10.0, 100.0, 1000.0]) @ quantiles
    assert torch.allclose(fusion(torch.zeros(3), patches), expected, rtol=1e-5)


def test_quantile_fusion_counts_in_full_precision() -> None:
    patches = torch.randn(2, 1024, generator=torch.Generator().manual_seed(0)).bfloat16()
    fusion = QuantileFusion()
    with torch.autocast("cpu", torch.bfloat16):
        half = fusion(patches[:, 0], patches)
    torch.testing.assert_close(half.float(), fusion(patches[:, 0].float(), patches.float()), atol=0.02, rtol=0.01)


def test_quantile_fusion_gradients() -> None:
    fusion = QuantileFusion().double()
    whole = torch.randn(2, dtype=torch.float64, requires_grad=True)
    patches = torch.randn(2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fusion, (whole, patches))
    with pytest.raises(ValueError, match=r"quantiles must lie in \[0, 1\]"):
        QuantileFusion((1.5,))


def test_classifier_switches() -> None:
    features = Features(torch.randn(2, 8, 3, 5), torch.randn(2, 8))
    plain = PatchAwareClassifier(8, 16, patches=False)(features)
    assert plain.patches is None
    assert plain.fused is plain.whole
    unfused = PatchAwareClassifier(8, 16)(features)
    assert unfused.patches is not None
    assert unfused.patches.shape == (2, 3, 5)
    assert unfused.fused.equal(unfused.whole)
    fused = PatchAwareClassifier(8, 16, fusion=QuantileFusion())(features)
    assert fused.fused.shape == (2,)
    assert not fused.fused.equal(fused.whole)


# ---------------------------------------------------------------------------------------------------- feature pyramid


@pytest.mark.parametrize("scales", [(4, 2, 1, 0.5), (2, 1, 0.5, 0.25), (2, 1), (1, 0.5, 0.25)])
def test_scales_are_honoured(scales: tuple[float, ...]) -> None:
    levels = FeaturePyramid(6, scales)(torch.randn(2, 6, 8, 12))
    assert [tuple(level.shape[2:]) for level in levels] == [(int(8 * s), int(12 * s)) for s in scales]


@pytest.mark.parametrize("scales", [(3, 1), (1, 2), (2, 2, 1), (1,)])
def test_scales_that_make_no_pyramid(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="pyramid scales must be"):
        FeaturePyramid(6, scales)


def test_doubling_is_a_transposed_convolution() -> None:
    step = Resample(5, up=True)
    x = torch.randn(2, 5, 3, 4)
    assert step.expand is not None
    with torch.no_grad():
        assert step.bias is not None
        step.bias.normal_()
        kernel = step.expand.view(2, 2, 5, 5).permute(3, 2, 0, 1)  # (in, out, rows, columns)
        plain = F.gelu(F.conv_transpose2d(x, kernel, step.bias, stride=2))
        plain = step.norm(step.smooth(plain).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert torch.allclose(step(x), plain, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- attentions


def test_fast_deformable_attention_equals_the_plain_way() -> None:
    layer = DeformableAttention(16, 3, 4, 2).eval()
    shapes = [(3, 5), (6, 10), (12, 20)]
    x = torch.randn(3, sum(h * w for h, w in shapes), 16)
    nn.init.normal_(layer.offsets.weight, std=2)  # far outside too
    plain = layer(x + 1, x, shapes).detach()
    with torch.no_grad():
        fast = layer(x + 1, x, shapes)
    assert torch.allclose(fast, plain, atol=1e-5)


def test_folded_condition_step_equals_plain_attention() -> None:
    plain = Attention(16, 4)
    folded = ConditionStep(16, 4)
    folded.load_state_dict(plain.state_dict())
    query, tokens = torch.randn(2, 1, 16), torch.randn(2, 30, 16)
    assert torch.allclose(folded(query, tokens), plain(query, tokens, tokens), atol=1e-6)


def test_attention_equals_torch() -> None:
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in (ours.query, ours.key, ours.value)]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in (ours.query, ours.key, ours.value)]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    q, k, v = torch.randn(2, 3, 16), torch.randn(2, 7, 16), torch.randn(2, 7, 16)
    allowed = torch.rand(2, 3, 7) > 0.5
    allowed[..., 0] = True
    expected = theirs(q, k, v, attn_mask=~allowed.repeat_interleave(4, 0))[0]
    assert torch.allclose(ours(q, k, v, allowed), expected, atol=1e-6)


def test_sine_code_tells_all_cells_apart() -> None:
    code = sine_code(5, 9, 16, torch.device("cpu"), torch.float32)
    assert code.shape == (45, 16)
    assert (torch.cdist(code, code) + torch.eye(45)).min() > 1e-2
    assert code.view(5, 9, 16)[2, :, :8].unique(dim=0).shape[0] == 1  # the first half depends on the row alone
    assert code.view(5, 9, 16)[:, 3, 8:].unique(dim=0).shape[0] == 1


# ---------------------------------------------------------------------------------------------------------- locator


@pytest.mark.parametrize("scales", [(4, 2, 1, 0.5), (2, 1, 0.5), (1, 0.5)])
def test_locator_on_a_rectangle(scales: tuple[float, ...]) -> None:
    locator = small(scales=scales, boxes=True)
    sets = locator(torch.randn(2, 12, 4, 6), torch.rand(2), every=True)
    assert len(sets) == 4
    for queries in sets:
        assert queries.classes.shape == (2, 3, 2)
        assert queries.masks.shape == (2, 3, int(4 * scales[0]), int(6 * scales[0]))
        assert queries.boxes is not None
        assert queries.boxes.shape == (2, 3, 4)
        assert ((queries.boxes > 0) & (queries.boxes < 1)).all()


def test_last_set_is_the_same_with_and_without_the_others() -> None:
    locator, x = small(), torch.randn(2, 12, 4, 4)
    every, last = locator(x, every=True), locator(x)
    assert len(last) == 1
    assert every[-1].masks.equal(last[0].masks)
    assert last[0].boxes is None


def test_condition_changes_the_answer_only_if_built_in() -> None:
    x = torch.randn(1, 12, 4, 4)
    for condition in (True, False):
        locator = small(condition=condition)
        real, forged = (locator(x, torch.tensor([y]))[0].masks for y in (0.0, 1.0))
        assert torch.equal(real, forged) != condition


def test_gradients_after_inference_mode() -> None:
    locator, x = small(), torch.randn(1, 12, 7, 3)
    with torch.inference_mode():
        locator(x)  # fills the cached position codes
    locator(x)[0].masks.sum().backward()
    assert locator.pyramid.levels[0][0].expand.grad is not None


def test_gradients_against_finite_differences() -> None:
    locator = small(scales=(2, 1), query_layers=1, boxes=True).double()
    with torch.no_grad():
        for name, parameter in locator.named_parameters():
            if "offsets" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))  # off the corners of cells, where sampling has kinks
    x = torch.randn(1, 12, 2, 3, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([0.3], dtype=torch.float64)

    def masks(x: Tensor) -> Tensor:
        return locator(x, label)[0].masks.sum((2, 3))

    assert torch.autograd.gradcheck(masks, (x,), eps=1e-7, atol=1e-4, fast_mode=True)
