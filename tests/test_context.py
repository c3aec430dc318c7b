"""Temporal context: attention in windows against the dense formulation, masks, any length."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seamline.heads.context import (
    ChannelNorm,
    ConvAttention,
    CrossBlock,
    CrossPyramid,
    MaskedConv1d,
    PyramidNeck,
    Reconstruction,
    ScaledDropPath,
    SelfBlock,
    attention,
    instance_norm,
)

B, C, H = 2, 8, 2


def dense(q: Tensor, k: Tensor, v: Tensor, there: Tensor, window: int) -> Tensor:
    """The same with a T x T matrix; queries that see no key are nan."""
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    barred = ~there[:, :, None].bool()  # (B, 1, 1, T)
    if window:
        place = torch.arange(q.shape[2])
        barred = barred | ((place - place[:, None]).abs() > window // 2)
    return scores.masked_fill(barred, -math.inf).softmax(-1) @ v


def prefix(length: int, *real: int) -> Tensor:
    return torch.arange(length) < torch.tensor(real)[:, None, None]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("window", [0, 1, 3, 7, 41])
@pytest.mark.parametrize("length", [1, 5, 16, 33, 100])
def test_attention_equals_the_dense_formulation(window: int, length: int) -> None:
    q, k, v = (draw(B, H, length, 4, seed=i) for i in range(3))
    there = draw(B, 1, length, seed=3) > -0.5
    expected = dense(q, k, v, there, window)
    blind = expected.isnan()
    for mask in (there, there.double()):
        ours = attention(q, k, v, mask, window)
        assert ours[blind].eq(0).all()
        torch.testing.assert_close(ours[~blind], expected[~blind])


def test_attention_gradients() -> None:
    parts = [draw(1, 1, 6, 2, seed=i).requires_grad_() for i in range(3)]
    there = torch.tensor([1, 1, 0, 1, 1, 0])[None, None]
    for window in (0, 3):
        assert torch.autograd.gradcheck(lambda q, k, v, w=window: attention(q, k, v, there, w), parts)


@pytest.mark.parametrize("window", [0, 7])
def test_attention_to_nothing_is_zero_and_trains(window: int) -> None:
    parts = [draw(B, H, 12, 4, seed=i).requires_grad_() for i in range(3)]
    out = attention(*parts, torch.zeros(B, 1, 12), window)
    assert out.eq(0).all()
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert all(part.grad is not None and part.grad.isfinite().all() for part in parts)


def test_attention_to_another_length() -> None:
    q, k, v = draw(B, H, 5, 4), draw(B, H, 9, 4, seed=1), draw(B, H, 9, 4, seed=2)
    there = prefix(9, 9, 4)
    torch.testing.assert_close(attention(q, k, v, there), dense(q, k, v, there, 0))


def test_attention_needs_no_square_matrix() -> None:
    q = torch.zeros(1, 1, 200_000, 2)  # its T x T matrix would take 160 GB
    assert attention(q, q, q, torch.ones(1, 1, 200_000), 7).shape == q.shape


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="3 heads"):
        ConvAttention(8, 3)
    for window in (4, -1):
        with pytest.raises(ValueError, match="odd number"):
            ConvAttention(8, 2, window=window)


def test_masked_norm_does_not_see_padding() -> None:
    x = draw(B, C, 10)
    torch.testing.assert_close(instance_norm(x), F.instance_norm(x))
    mask = prefix(10, 10, 6)
    normed = instance_norm(x, mask)
    torch.testing.assert_close(normed[0], instance_norm(x)[0])
    torch.testing.assert_close(normed[1:, :, :6], instance_norm(x[1:, :, :6]))
    assert normed[1, :, 6:].eq(0).all()
    assert instance_norm(x, torch.zeros(B, 1, 10)).eq(0).all()  # nothing there: nothing, and not nan


def test_channel_norm_is_layer_norm() -> None:
    x, norm = draw(B, C, 5), ChannelNorm(C).double()
    torch.testing.assert_close(norm(x), F.layer_norm(x.transpose(1, 2), [C]).transpose(1, 2))


def test_masked_convolution() -> None:
    conv = MaskedConv1d(C, 3, 3, stride=2).double()
    assert conv.conv.bias is not None
    assert conv.conv.bias.eq(0).all()
    out = conv(draw(B, C, 9), prefix(9, 9, 4))
    assert out.shape == (B, 3, 5)
    assert out[1, :, 2:].eq(0).all()


@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_self_block_keeps_padding_zero(window: int, stride: int) -> None:
    block = SelfBlock(C, H, window=window, stride=stride, scale=1.0).double()
    x, mask = draw(B, C, 20), prefix(20, 20, 11)
    out = block(x * mask, mask)
    assert out.shape == (B, C, 20 // stride)
    assert out[1, :, math.ceil(11 / stride) :].eq(0).all()
    longer = block(F.pad(x * mask, (0, 8)), F.pad(mask, (0, 8)))
    if stride == 1:
        torch.testing.assert_close(longer[:, :, :20], out)  # padding says nothing


def test_blocks_start_near_the_identity_or_as_told() -> None:
    x, mask = draw(B, C, 12), prefix(12, 12, 12)
    moved = {s: (SelfBlock(C, H, scale=s).double()(x, mask) - x).abs().max() for s in (1e-4, 1.0)}
    assert 0 < moved[1e-4] < 1e-2 < moved[1.0]


def test_cross_block_takes_keys_with_a_mask_of_their_own() -> None:
    block = CrossBlock(C, H, window=0, scale=1.0).double()
    x, y, mask = draw(B, C, 12), draw(B, C, 12, seed=1), prefix(12, 12, 12)
    absent = prefix(12, 12, 0)  # the other modality of the second clip is not there
    out = block(x, y, y, mask, absent)
    assert out.isfinite().all()
    torch.testing.assert_close(out[1], block(x, 9 * y, -y, mask, absent)[1])  # so what is in its place says nothing
    assert not torch.allclose(out[0], block(x, 9 * y, -y, mask, absent)[0])


def test_cross_block_sees_what_the_reconstruction_missed() -> None:
    torch.manual_seed(0)
    block = CrossBlock(C, H, scale=1.0).double()
    x, mask = draw(1, C, 40), prefix(40, 40)
    rebuilt = x.clone()
    rebuilt[..., 20] *= -1
    moved = (block(x, rebuilt, x, mask) - block(x, x, x, mask)).abs().amax((0, 1)) > 1e-9
    assert moved[20]
    assert not moved[:16].any()  # window 7 and a convolution of 3: 4 to each side
    assert not moved[25:].any()


def test_drop_path_drops_whole_samples() -> None:
    torch.manual_seed(0)
    drop = ScaledDropPath(C, 0.25, 2.0)
    x = torch.ones(4000, C, 1)
    kept = drop(x)[:, :, 0]
    assert kept.unique().tolist() == pytest.approx([0, 2 / 0.75])
    assert kept.eq(kept[:, :1]).all()
    assert 0.72 < kept[:, 0].ne(0).float().mean() < 0.78
    assert drop.eval()(x).eq(2).all()


# -------------------------------------------------------------------------------------------------- reconstruction


@pytest.mark.parametrize("length", [1, 7, 16, 25])
def test_light_reconstruction_keeps_any_length(length: int) -> None:
    branch = Reconstruction(C, 4, widths=(6,), judge=False).double()
    made = branch(draw(B, C, length), prefix(length, length, max(1, length - 3)))
    assert made.signal.shape == (B, C, length)
    assert made.bottleneck.shape == (B, 4, math.ceil(length / 4))
    assert made.logit is None
    assert made.signal[1, :, max(1, length - 3) :].eq(0).all()


def test_masked_reconstruction_does_not_see_padding() -> None:
    mask = prefix(21, 21, 13)
    x = draw(B, C, 21) * mask
    for masked in (True, False):
        branch = Reconstruction(C, 4, widths=(6, 5), masked=masked).double().eval()
        short, long = branch(x, mask), branch(F.pad(x, (0, 24)), F.pad(mask, (0, 24)))
        same = torch.allclose(short.signal, long.signal[..., :21])
        assert short.logit is not None
        assert long.logit is not None
        assert same is masked
        assert torch.allclose(short.logit, long.logit) is masked


def test_linear_reconstruction_has_the_mean_of_its_features() -> None:
    """U2: a norm at the end fixes mean and scale of every channel; the best it can do is far from the features."""
    x, mask = 5 + 0.1 * draw(B, C, 32).abs(), torch.ones(B, 1, 32)
    best = {}
    for linear in (False, True):
        torch.manual_seed(0)
        branch = Reconstruction(C, 4, widths=(6,), linear=linear, judge=False).double()
        optimiser = torch.optim.Adam(branch.parameters(), 0.1)
        for _ in range(40):
            loss = (branch(x, mask).signal - x).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        best[linear] = loss.item()
    assert best[True] < 0.5
    assert best[False] > 4


def test_an_absent_sequence_is_reconstructed_without_nan() -> None:
    branch = Reconstruction(C, 4, widths=(6,)).double().eval()
    made = branch(torch.zeros(1, C, 8, dtype=torch.float64), torch.zeros(1, 1, 8))
    assert made.signal.eq(0).all()
    assert made.logit is not None
    assert made.logit.isfinite().all()


# ---------------------------------------------------------------------------------------------------------- pyramid


@pytest.mark.parametrize("length", [1, 6, 13, 32])
def test_pyramid_and_neck_take_any_length(length: int) -> None:
    mask = prefix(length, length, max(1, length - 2))
    pyramid = CrossPyramid(C, H, (3, 0), window=3, scale=1.0).double()
    levels, masks = pyramid(draw(B, C, length) * mask, mask)
    assert [level.shape[-1] for level in levels] == [math.ceil(length / 2**i) for i in range(3)]
    assert [m.shape[-1] for m in masks] == [level.shape[-1] for level in levels]
    assert all(level[~m.expand_as(level)].eq(0).all() for level, m in zip(levels, masks, strict=True))
    for level in PyramidNeck(C, 6, 3).double()(levels, masks):
        assert level.isfinite().all()


def test_the_dead_block_is_only_built_when_asked_for() -> None:
    x, mask = draw(1, C, 8), prefix(8, 8)
    for dead in (False, True):
        pyramid = CrossPyramid(C, H, (3, 0), window=3, dead_block=dead).double()
        assert len(pyramid.hh_branch) == 1 + dead
        torch.stack([level.sum() for level in pyramid(x, mask)[0]]).sum().backward()  # type: ignore[no-untyped-call]
        idle = {name.split(".")[1] for name, p in pyramid.named_parameters() if p.grad is None}
        assert idle == ({"1"} if dead else set())


def test_one_cell_of_the_pyramid_sees_the_whole_sequence() -> None:
    x = draw(1, C, 64).requires_grad_()
    pyramid = CrossPyramid(C, H, (7, 7, 0), scale=1.0).double()
    pyramid(x, prefix(64, 64))[0][0][0, :, 32].sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.abs().amax((0, 1)).gt(0).all()
