"""Temporal context: masked convolutions, attention along time, what cannot be reconstructed, a pyramid of both.

Source: UMMAFormer (Zhang et al., ACM MM 2023, arXiv:2308.14395), built on ActionFormer (Zhang et al., ECCV 2022):
temporal feature abnormal attention (:class:`CrossBlock`, its key the reconstruction), a branch that rebuilds authentic
features (:class:`Reconstruction`), and the parallel cross-attention pyramid (:class:`CrossPyramid`). What differs: any
length works, not only multiples of 192; attention in a window never forms a T x T matrix; masks need not be prefixes,
and a query whose keys are all masked gets zero, not NaN. Parameters have the names of the released checkpoints.

Sequences are (B, C, T). A mask is (B, 1, T), 1 where a tick is real and 0 where it is padding or absent, bool or float.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 16  # queries per block of attention in a window; the fastest for windows of 7 to 31

# ---------------------------------------------------------------------------------------------------- masked parts


def halved(mask: Tensor, stride: int = 2) -> Tensor:
    """The mask of every ``stride``-th tick: (B, 1, T) to (B, 1, ceil(T / stride))."""
    return mask[..., ::stride]


def doubled(x: Tensor, length: int, factor: int = 2) -> Tensor:
    """Every tick ``factor`` times, cut to ``length``: (..., T) to (..., length)."""
    return x.repeat_interleave(factor, -1)[..., :length]


class MaskedConv1d(nn.Module):
    """Convolution along time that keeps masked ticks at zero: (B, I, T) to (B, O, ceil(T / stride)).

    The kernel is odd and the padding keeps the length; a bias starts at zero.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``mask`` is that of ``x``; that of the result is ``halved(mask, stride)``."""
        out: Tensor = self.conv(x) * halved(mask, self.stride)
        return out


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (B, C, T), affine."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(1, channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to the same."""
        return channel_norm(x, self.eps) * self.weight + self.bias


def channel_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Every tick of (B, C, T) to mean 0 and variance 1 over its channels."""
    away = x - x.mean(1, keepdim=True)
    return away / (away.square().mean(1, keepdim=True) + eps).sqrt()


def instance_norm(x: Tensor, mask: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Every channel of (B, C, T) to mean 0 and variance 1 along time.

    With a mask only its ticks count, and the others become zero.
    """
    if mask is None:
        away = x - x.mean(-1, keepdim=True)
        return away / (away.square().mean(-1, keepdim=True) + eps).sqrt()
    mask = mask.to(x.dtype)
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    away = (x - (x * mask).sum(-1, keepdim=True) / count) * mask
    return away / (away.square().sum(-1, keepdim=True) / count + eps).sqrt()


# ------------------------------------------------------------------------------------------------------- attention


def attention(q: Tensor, k: Tensor, v: Tensor, there: Tensor, window: int = 0) -> Tensor:
    """Softmax attention of every tick to the ``window`` ticks around it, or to all.

    In a window, blocks of queries meet the few keys that they can see: cost and memory grow with T x window.

    Args:
        q: (B, H, T, d).
        k: (B, H, T, d); with ``window=0`` its length may differ from that of ``q``.
        v: like ``k``.
        there: (B, 1, T) of 1 where a key is real.
        window: odd number of ticks, the query's own in the middle; 0: all.

    Returns:
        (B, H, T, d); zero for a query that sees no real key.
    """
    hidden = ~(there[:, 0] > 0)  # (B, T)
    v = v.masked_fill(hidden[:, None, :, None], 0)
    lowest = torch.finfo(q.dtype).min
    if not window:
        bias = torch.zeros_like(hidden, dtype=q.dtype).masked_fill(hidden, lowest)[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    b, h, t, d = q.shape
    reach, block = window // 2, max(CHUNK, window // 2)
    seen = block + 2 * reach  # keys that a block of queries can see
    extra = -t % block
    q = F.pad(q / math.sqrt(d), (0, 0, 0, extra)).view(b, h, -1, block, d)
    k, v = (F.pad(x, (0, 0, reach, reach + extra)).unfold(2, seen, block) for x in (k, v))  # (B, H, blocks, d, seen)
    hidden = F.pad(hidden, (reach, reach + extra), value=True).unfold(1, seen, block)[:, None, :, None]
    apart = torch.arange(seen, device=q.device) - reach - torch.arange(block, device=q.device)[:, None]
    scores = (q @ k).masked_fill(hidden, lowest)  # (B, H, blocks, block, seen); finite: a blind query reads zeros
    scores = scores.masked_fill(apart.abs() > reach, -math.inf)
    return (scores.softmax(-1) @ v.transpose(-1, -2)).reshape(b, h, -1, d)[:, :, :t]


class ConvAttention(nn.Module):
    """Attention whose queries, keys and values each first pass a depthwise convolution and a norm.

    Args:
        channels: width C, divisible by ``heads``.
        heads: number H.
        window: ticks that a query sees, odd; 0: all.
        stride: 2 halves the length.
    """

    def __init__(self, channels: int, heads: int, *, window: int = 7, stride: int = 1) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels do not divide into {heads} heads")
        if window < 0 or (window and window % 2 == 0):
            raise ValueError(f"a window of attention is an odd number of ticks, or 0 for all, not {window}")
        self.heads, self.window, self.stride = heads, window, stride
        self.query_conv, self.query_norm, self.query = _path(channels, stride)
        self.key_conv, self.key_norm, self.key = _path(channels, stride)
        self.value_conv, self.value_norm, self.value = _path(channels, stride)
        self.proj = nn.Conv1d(channels, channels, 1)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """Three sequences (B, C, T) to (B, C, ceil(T / stride)).

        ``mask`` is that of the queries, ``key_mask`` that of keys and values if it is another.
        """
        key_mask = mask if key_mask is None else key_mask
        q = self.query(self.query_norm(self.query_conv(query, mask)))
        k = self.key(self.key_norm(self.key_conv(key, key_mask)))
        v = self.value(self.value_norm(self.value_conv(value, key_mask)))
        q, k, v = (x.unflatten(1, (self.heads, -1)).transpose(-1, -2) for x in (q, k, v))  # (B, H, T / stride, d)
        y = attention(q, k, v, halved(key_mask, self.stride), self.window)
        out: Tensor = self.proj(y.transpose(-1, -2).flatten(1, 2))  # channels are head-major
        return out * halved(mask, self.stride)


def _path(channels: int, stride: int) -> tuple[MaskedConv1d, ChannelNorm, nn.Conv1d]:
    conv = MaskedConv1d(channels, channels, 3, stride=stride, groups=channels, bias=False)
    return conv, ChannelNorm(channels), nn.Conv1d(channels, channels, 1)


class ScaledDropPath(nn.Module):
    """A learned scale per channel, then, in training, a whole sample's branch is dropped with probability ``drop``."""

    def __init__(self, channels: int, drop: float, scale: float) -> None:
        super().__init__()
        self.drop = drop
        self.scale = nn.Parameter(torch.full((1, channels, 1), scale))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to the same."""
        x = x * self.scale
        if self.training and self.drop > 0:
            keep = torch.rand(len(x), 1, 1, device=x.device) >= self.drop
            x = x * keep / (1 - self.drop)
        return x


class BlockOptions(TypedDict, total=False):
    """What a transformer block can be told, beside its width."""

    window: int  # ticks that a query sees, odd; 0: all; default 7
    expand: int  # width of the perceptron's hidden layer, in C; default 4
    drop_path: float  # probability that a sample's residual branch is dropped in training; default 0
    scale: (
        float  # initial, of the residual branches; default 1e-4, near the identity, for deep stacks; shallow: 0.1 or 1
    )


class _Block(nn.Module):
    """What transformer blocks share: attention and a perceptron, each on a scaled residual branch."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        window: int = 7,
        stride: int = 1,
        expand: int = 4,
        drop_path: float = 0.0,
        scale: float = 1e-4,
    ) -> None:
        super().__init__()
        self.attn = ConvAttention(channels, heads, window=window, stride=stride)
        self.ln2 = ChannelNorm(channels)
        self.mlp = nn.Sequential(
            nn.Conv1d(channels, expand * channels, 1),
            nn.GELU(),
            nn.Identity(),  # the released code drops out here, with probability 0
            nn.Conv1d(expand * channels, channels, 1),
        )
        self.drop_path_attn = ScaledDropPath(channels, drop_path, scale)
        self.drop_path_mlp = ScaledDropPath(channels, drop_path, scale)

    def _add(self, skip: Tensor, attended: Tensor, mask: Tensor) -> Tensor:
        y = skip * mask + self.drop_path_attn(attended)
        out: Tensor = y + self.drop_path_mlp(self.mlp(self.ln2(y)) * mask)
        return out


class SelfBlock(_Block):
    """Transformer block over one sequence: (B, C, T) to (B, C, ceil(T / stride)).

    Args:
        channels: width C, divisible by ``heads``.
        heads: of the attention.
        stride: 2 halves the length.
        options: see :class:`BlockOptions`.
    """

    def __init__(self, channels: int, heads: int, *, stride: int = 1, **options: Unpack[BlockOptions]) -> None:
        super().__init__(channels, heads, stride=stride, **options)
        self.ln1 = ChannelNorm(channels)
        self.pool = nn.MaxPool1d(3, stride, 1) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``mask`` is that of ``x``; that of the result is ``halved(mask, stride)``."""
        normed = self.ln1(x)
        return self._add(self.pool(x), self.attn(normed, normed, normed, mask), halved(mask, self.attn.stride))


class CrossBlock(_Block):
    """Transformer block in which one sequence asks another: (B, C, T) to the same.

    With query and value the features and key their reconstruction, it is temporal feature abnormal attention (TFAA).

    Args:
        channels: width C, divisible by ``heads``.
        heads: of the attention.
        options: see :class:`BlockOptions`.
    """

    def __init__(self, channels: int, heads: int, **options: Unpack[BlockOptions]) -> None:
        super().__init__(channels, heads, **options)
        self.lnq = ChannelNorm(channels)
        self.lnk = ChannelNorm(channels)
        self.lnv = ChannelNorm(channels)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """Three sequences (B, C, T); ``key_mask`` is that of keys and values if it is another than the query's."""
        return self._add(query, self.attn(self.lnq(query), self.lnk(key), self.lnv(value), mask, key_mask), mask)


# -------------------------------------------------------------------------------------------------- reconstruction


class Reconstructed(NamedTuple):
    """What the reconstruction branch gives."""

    signal: Tensor  # (B, C, T) the features as an authentic clip would have them
    bottleneck: Tensor  # (B, hidden, T / 2^(len(widths) + 1))
    logit: Tensor | None  # (B,) of forgery, whole sequence; None without a judge


class Reconstruction(nn.Module):
    """Autoencoder along time, trained on authentic sequences: what it cannot rebuild is suspicious.

    Every step down halves the length, every step up doubles it. A light form for C channels is
    ``Reconstruction(C, C // 2, widths=(C,), judge=False)``: two steps, a quarter of the length.

    Args:
        channels: C of the features.
        hidden: channels of the bottleneck.
        widths: channels between C and ``hidden``; their number plus one is that of the steps.
        linear: whether the last step up is linear. The released code normalises and bends it like all others (U2), so
            every channel of the reconstruction has a fixed mean and scale, which no features have.
        masked: whether norms and pools see real ticks only and padding stays zero. In the released code padding enters
            the statistics, and they undo the masking (U2).
        judge: whether there is a classifier of the whole sequence on the bottleneck.
        dropout: of that classifier.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        widths: Sequence[int] = (256, 512, 1024, 2048),
        *,
        linear: bool = True,
        masked: bool = True,
        judge: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.linear, self.masked, self.steps = linear, masked, len(widths) + 1
        chain = (channels, *widths, hidden)
        self.contraction = nn.ModuleDict(
            {f"down_{i + 1}": _Down(chain[i], chain[i + 1]) for i in range(self.steps)},
        )
        self.expansion = nn.ModuleDict(
            {f"up_{i + 1}": _Up(chain[-1 - i], chain[-2 - i]) for i in range(self.steps)},
        )
        self.judge = judge
        if judge:
            self.conv0 = nn.Sequential(nn.Conv1d(hidden, hidden, 1, bias=False))
            self.conv1 = nn.Linear(2 * hidden, hidden, bias=False)
            self.bn1 = ChannelNorm(hidden)
            self.dropout = nn.Dropout(dropout)
            self.conv2 = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Reconstructed:
        """(B, C, T), (B, 1, T) to the reconstruction, which keeps the length."""
        masks, lengths = [mask], [x.shape[-1]]
        for down in self.contraction.values():
            x = down(x, masks[-1])
            masks.append(halved(masks[-1]))
            lengths.append(x.shape[-1])
            x = self._normed(x, masks[-1])
        deep, there = x, masks[-1]
        for i, up in enumerate(self.expansion.values()):
            there = masks[-2 - i] if self.masked else doubled(there, lengths[-2 - i])
            x = up(x, there)
            if not (self.linear and i == self.steps - 1):
                x = self._normed(x, there)
        return Reconstructed(x, deep, self._judged(deep, masks[-1]) if self.judge else None)

    def _normed(self, x: Tensor, mask: Tensor) -> Tensor:
        return F.leaky_relu(instance_norm(x, mask if self.masked else None), 0.2)

    def _judged(self, deep: Tensor, mask: Tensor) -> Tensor:
        """(B, hidden, t) to (B,)."""
        y = self._normed(self.conv0(deep), mask)
        if self.masked:
            there = mask > 0
            peak = y.masked_fill(~there, torch.finfo(y.dtype).min).amax(-1)
            peak = peak.masked_fill(~there.any(-1), 0)
            mean = y.sum(-1) / there.sum(-1).clamp(min=1)
        else:
            peak, mean = y.amax(-1), y.mean(-1)
        y = self.conv1(torch.cat([peak, mean], 1))
        y = F.relu(self.bn1(y[..., None])[..., 0])
        logit: Tensor = self.conv2(self.dropout(y))[:, 0]
        return logit


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_block = MaskedConv1d(inputs, outputs, 3, stride=2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.conv_block(x, mask)
        return out


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_transpose = nn.Module()
        self.conv_transpose.conv = conv = nn.ConvTranspose1d(inputs, outputs, 3, 2, 1, output_padding=1)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, I, t) to the length of ``mask``, 2 t or 2 t - 1."""
        out: Tensor = self.conv_transpose.conv(x)[..., : mask.shape[-1]] * mask  # type: ignore[operator]
        return out


# ---------------------------------------------------------------------------------------------------------- pyramid


class CrossPyramid(nn.Module):
    """Parallel cross-attention pyramid: a stream of full length and one that halves, asking each other at every step.

    Args:
        channels: width C.
        heads: of every attention.
        windows: of the blocks that halve, one per step; 0: global.
        dead_block: whether the halving stream asks the other one after the last step too, where nothing reads the
            answer (U4): a block of the released code that is computed, never used and never trained.
        options: see :class:`BlockOptions`; ``window`` is that of the cross blocks.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        windows: Sequence[int] = (7, 7, 7, 7, 0),
        *,
        dead_block: bool = False,
        **options: Unpack[BlockOptions],
    ) -> None:
        super().__init__()
        steps = len(windows)
        self.branch = nn.ModuleList(
            SelfBlock(channels, heads, stride=2, **BlockOptions({**options, "window": w})) for w in windows
        )
        # The long stream asks the short one, and the short one asks back.
        self.lh_branch = nn.ModuleList(CrossBlock(channels, heads, **options) for _ in range(steps))
        asking = steps if dead_block else steps - 1
        self.hh_branch = nn.ModuleList(CrossBlock(channels, heads, **options) for _ in range(asking))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """(B, C, T) to sequences of T, T/2, T/4, ... ticks (rounded up) and their masks, the longest first."""
        long, short = x, x
        levels, masks = [], [mask]
        for i, branch in enumerate(self.branch):
            short = branch(short, masks[-1])
            masks.append(halved(masks[-1]))
            levels.append(short)
            spread = doubled(short, long.shape[-1], 2 ** (i + 1))
            long = self.lh_branch[i](long, spread, spread, mask)
            if i < len(self.hh_branch):
                thin = long[..., :: 2 ** (i + 1)]
                short = self.hh_branch[i](short, thin, thin, masks[-1])
        return [long, *levels], masks


class PyramidNeck(nn.Module):
    """Feature pyramid network along time: coarse levels are added to finer ones.

    Args:
        channels: C of every level.
        width: F of the result.
        levels: how many, each half as long as the one before.
    """

    def __init__(self, channels: int, width: int, levels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(MaskedConv1d(channels, width, 1, bias=False) for _ in range(levels))
        self.fpn_convs = nn.ModuleList(MaskedConv1d(width, width, 3, groups=width, bias=False) for _ in range(levels))
        self.fpn_norms = nn.ModuleList(ChannelNorm(width) for _ in range(levels))

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        """(B, C, T_l) of every level, the longest first, to (B, F, T_l)."""
        sums = [lateral(x, m) for lateral, x, m in zip(self.lateral_convs, levels, masks, strict=True)]
        for i in range(len(sums) - 1, 0, -1):
            sums[i - 1] = sums[i - 1] + doubled(sums[i], sums[i - 1].shape[-1])
        parts = zip(self.fpn_norms, self.fpn_convs, sums, masks, strict=True)
        return [norm(conv(x, m)) for norm, conv, x, m in parts]
