"""Pixel locator: feature pyramid, conditional pixel decoder, mask queries.

Sources: Mask2Former (Cheng et al., CVPR 2022) with the deformable attention of Deformable DETR (Zhu et al., ICLR 2021);
the feature pyramid and the condition step of Loupe (Jiang et al., 2025, arXiv:2506.16819). What differs from all of
them: the scales of the pyramid are free, grids may be rectangular, and there may be a box per query.

Tokens are (B, T, D); maps are (B, C, h, w) and kept channels-last in memory, so that tokens and maps are views of each
other. Levels are named coarsest first wherever they are concatenated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shapes = Sequence[tuple[int, int]]  # (h, w) of every level


class QuerySet(NamedTuple):
    """What the queries say after one decoder layer."""

    classes: Tensor  # (B, Q, 2) logits: forgery, nothing
    masks: Tensor  # (B, Q, H, W) logits
    boxes: Tensor | None  # (B, Q, 4) centre x, centre y, width, height in [0, 1]; None without a box head


class MaskLocator(nn.Module):
    """Feature map in, one :class:`QuerySet` per decoder layer out.

    Args:
        in_width: channels of the feature map.
        width: channels of both decoders; divisible by ``heads``, ``norm_groups`` and 4.
        scales: powers of two, finest first: the first is the scale of the masks, the others those of the transformer.
        condition: whether two learned vectors, "real" and "forged", may condition the pixel decoder.
        boxes: whether every query also predicts a box.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        heads: int = 8,
        points: int = 4,
        pixel_layers: int = 6,
        pixel_ffn: int = 1024,
        query_layers: int = 9,
        query_ffn: int = 2048,
        queries: int = 20,
        norm_groups: int = 32,
        condition: bool = True,
        boxes: bool = False,
    ) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(in_width, scales)
        self.real = nn.Parameter(torch.randn(width) * 0.02) if condition else None
        self.forged = nn.Parameter(torch.randn(width) * 0.02) if condition else None
        self.pixel_decoder = PixelDecoder(
            in_width, width, len(scales) - 1, heads, points, pixel_layers, pixel_ffn, norm_groups, condition=condition
        )
        self.query_decoder = QueryDecoder(width, len(scales) - 1, heads, query_layers, query_ffn, queries, boxes=boxes)

    def forward(self, grid: Tensor, label: Tensor | None = None, *, every: bool = False) -> tuple[QuerySet, ...]:
        """Locate.

        Args:
            grid: (B, in_width, h, w).
            label: (B,) in [0, 1], how far the decoder is told that the window is forged; ``None`` skips the step.
            every: whether to return the sets of all layers, the initial one first; otherwise only the last.
        """
        told = None
        if self.real is not None and self.forged is not None and label is not None:
            y = label[:, None].to(self.real.dtype)
            told = (y * self.forged + (1 - y) * self.real)[:, None]  # (B, 1, D)
        levels, mask_features = self.pixel_decoder(self.pyramid(grid), told)
        sets: tuple[QuerySet, ...] = self.query_decoder(levels, mask_features, every=every)
        return sets


# ---------------------------------------------------------------------------------------------- feature pyramid


class FeaturePyramid(nn.Module):
    """One map to several, each a chain of doublings or halvings with weights of its own.

    Args:
        width: channels, kept.
        scales: powers of two, strictly falling.

    Raises:
        ValueError: the scales are not that.
    """

    def __init__(self, width: int, scales: Sequence[float]) -> None:
        super().__init__()
        steps = [round(math.log2(scale)) for scale in scales]
        if any(2.0**step != scale for step, scale in zip(steps, scales, strict=True)):
            raise ValueError(f"pyramid scales must be powers of two, got {tuple(scales)}")
        if len(steps) < 2 or sorted(set(steps), reverse=True) != steps:
            raise ValueError(f"pyramid scales must be at least two and fall strictly, got {tuple(scales)}")
        self.levels = nn.ModuleList(
            nn.Sequential(*(Resample(width, up=step > 0) for _ in range(abs(step)))) for step in steps
        )

    def forward(self, grid: Tensor) -> list[Tensor]:
        """(B, W, h, w) to one (B, W, h s, w s) per scale s, finest first."""
        return [level(grid) for level in self.levels]


class Resample(nn.Module):
    """Double (transposed 2 x 2 convolution) or halve (2 x 2 max pooling), GELU, depthwise 3 x 3, norm over channels."""

    def __init__(self, width: int, *, up: bool) -> None:
        super().__init__()
        # The transposed convolution has stride 2, so nothing overlaps: it is one product, rows (row, column, channel).
        self.expand = nn.Parameter(torch.empty(4 * width, width)) if up else None
        self.bias = nn.Parameter(torch.zeros(width)) if up else None
        self.smooth = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        if self.expand is not None:
            nn.init.normal_(self.expand, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, h, w) to (B, W, 2h, 2w) or (B, W, h/2, w/2)."""
        if self.expand is not None and self.bias is not None:
            b, c, h, w = x.shape
            x = F.gelu(F.linear(x.permute(0, 2, 3, 1), self.expand, self.bias.repeat(4)))  # (B, h, w, 4W)
            x = x.view(b, h, w, 2, 2, c).transpose(2, 3).reshape(b, 2 * h, 2 * w, c).permute(0, 3, 1, 2)
        else:
            x = F.gelu(F.max_pool2d(x, 2))
        x = self.smooth(x)
        normed: Tensor = self.norm(x.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


# ---------------------------------------------------------------------------------------- conditional pixel decoder


class PixelDecoder(nn.Module):
    """Deformable attention over all but the finest level, which joins at the end as mask features."""

    def __init__(
        self,
        in_width: int,
        width: int,
        levels: int,
        heads: int,
        points: int,
        layers: int,
        ffn: int,
        norm_groups: int,
        *,
        condition: bool,
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_width, width, 1), nn.GroupNorm(norm_groups, width)) for _ in range(levels)
        )
        self.level = nn.Parameter(torch.zeros(levels, width))
        self.layers = nn.ModuleList(
            PixelDecoderLayer(width, levels, heads, points, ffn, condition=condition) for _ in range(layers)
        )
        self.lateral = nn.Sequential(nn.Conv2d(in_width, width, 1, bias=False), nn.GroupNorm(norm_groups, width))
        self.join = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(norm_groups, width), nn.ReLU()
        )
        self.mask_features = nn.Conv2d(width, width, 1)

    def forward(self, pyramid: Sequence[Tensor], told: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Decode.

        Args:
            pyramid: finest first, each (B, in_width, h_l, w_l).
            told: (B, 1, D) condition, or ``None``.

        Returns:
            The transformer's maps, coarsest first, each (B, D, h_l, w_l), and the mask features (B, D, H, W).
        """
        maps = [project(x) for project, x in zip(self.project, reversed(pyramid[1:]), strict=True)]
        shapes = [(x.shape[2], x.shape[3]) for x in maps]
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)  # (B, T, D)
        position = torch.cat(
            [sine_code(*shape, x.shape[2], x.device, x.dtype) + e for shape, e in zip(shapes, self.level, strict=True)]
        )
        for layer in self.layers:
            x = layer(x, position, shapes, told)
        levels = [
            part.transpose(1, 2).unflatten(2, shape)
            for part, shape in zip(x.split([h * w for h, w in shapes], 1), shapes, strict=True)
        ]
        fine = self.lateral(pyramid[0])
        fine = self.join(fine + resize(levels[-1], (fine.shape[2], fine.shape[3])))
        return levels, self.mask_features(fine)


class PixelDecoderLayer(nn.Module):
    """Deformable attention, condition step, feed-forward; each added and then normed."""

    def __init__(self, width: int, levels: int, heads: int, points: int, ffn: int, *, condition: bool) -> None:
        super().__init__()
        self.attend = DeformableAttention(width, levels, heads, points)
        self.attend_norm = nn.LayerNorm(width)
        self.condition = ConditionStep(width, heads) if condition else None
        self.condition_norm = nn.LayerNorm(width) if condition else None
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(), nn.Linear(ffn, width))
        self.ffn_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor, shapes: Shapes, told: Tensor | None) -> Tensor:
        """(B, T, D) tokens to (B, T, D); ``position`` is (T, D), ``told`` (B, 1, D) or ``None``."""
        x = self.attend_norm(x + self.attend(x + position, x, shapes))
        if self.condition is not None and self.condition_norm is not None and told is not None:
            x = self.condition_norm(x + self.condition(told, x))
        normed: Tensor = self.ffn_norm(x + self.ffn(x))
        return normed


class DeformableAttention(nn.Module):
    """Every token samples a few points around itself, on every level, and sums them with its own weights."""

    def __init__(self, width: int, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, x: Tensor, shapes: Shapes) -> Tensor:
        """``query`` (B, T, D) with positions and ``x`` (B, T, D) without, to (B, T, D)."""
        b, t, _ = x.shape
        offsets = self.offsets(query).view(b, t, self.heads, self.levels, self.points, 2)
        weights = self.weights(query).view(b, t, self.heads, -1).softmax(-1)
        values = self.value(x)
        fast = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
        look = self._gather if fast else self._sample
        result: Tensor = self.out(look(values, offsets, weights, shapes))
        return result

    def _sample(self, values: Tensor, offsets: Tensor, weights: Tensor, shapes: Shapes) -> Tensor:
        """Offsets (B, T, heads, levels, points, 2) in cells, weights (B, T, heads, -1), values and result (B, T, D)."""
        b, t, d = values.shape
        sizes, centres = sampling_grid(tuple(shapes), values.device, values.dtype)
        where = centres[:, None, None, None] + offsets / sizes[:, None]  # x, y in [0, 1]
        where = (2 * where - 1).transpose(1, 2).flatten(0, 1)  # (B heads, T, levels, points, 2)
        planes = values.view(b, t, self.heads, -1).split([h * w for h, w in shapes], 1)
        sampled = [
            F.grid_sample(
                plane.permute(0, 2, 3, 1).reshape(b * self.heads, -1, h, w), where[:, :, level], align_corners=False
            )
            for level, ((h, w), plane) in enumerate(zip(shapes, planes, strict=True))
        ]  # each (B heads, d, T, points)
        weights = weights.transpose(1, 2).reshape(b * self.heads, 1, t, -1)
        return (torch.cat(sampled, 3) * weights).sum(3).view(b, d, t).transpose(1, 2)

    def _gather(self, values: Tensor, offsets: Tensor, weights: Tensor, shapes: Shapes) -> Tensor:
        """The same five times faster on a CPU: each sample is four rows of a table, each output a weighted sum of rows.

        The table holds the values of all levels, every level with a border of zeros, one row per cell and head.
        Positions are clamped to the border, where all is zero, so that no sample needs a test for being outside.
        """
        b, t, d = values.shape
        sizes, centres = sampling_grid(tuple(shapes), values.device, values.dtype)
        pitch = sizes[:, 0] + 3  # cells per padded row
        at = offsets + (centres[:, None] * sizes - 0.5)[:, None, :, None]  # in cells of the level
        at = torch.minimum(at.clamp_(min=-1), sizes[:, None])
        corner = at.floor()
        ax, ay = (at - corner).unbind(-1)
        first = torch.addcmul(corner[..., 0], corner[..., 1], pitch[:, None]).mul_(self.heads).int()
        rows = first[..., None] + table_rows(tuple(shapes), self.heads, values.device)  # (B, T, heads, level, point, 4)
        padded = [
            F.pad(plane.unflatten(1, shape), (0, 0, 1, 2, 1, 2)).flatten(1, 2)
            for shape, plane in zip(shapes, values.split([h * w for h, w in shapes], 1), strict=True)
        ]
        table = torch.cat(padded, 1)
        if b > 1:
            image = torch.arange(b, dtype=torch.int32, device=values.device) * (table.shape[1] * self.heads)
            rows += image.view(b, 1, 1, 1, 1, 1)
        lower = weights.view(ax.shape) * ay
        upper = weights.view(ax.shape) - lower
        upper_right, lower_right = upper * ax, lower * ax
        shares = torch.stack([upper - upper_right, upper_right, lower - lower_right, lower_right], -1)
        n = b * t * self.heads
        mixed = F.embedding_bag(
            rows.view(n, -1), table.view(-1, d // self.heads), per_sample_weights=shares.view(n, -1), mode="sum"
        )
        return mixed.view(b, t, d)


class Attention(nn.Module):
    """Multi-head attention with four separate projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, Q, D), (B, T, D), (B, T, D) and an optional (B, Q, T) bool, true where a query may look, to (B, Q, D)."""
        q, k, v = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = None if allowed is None else allowed[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class ConditionStep(Attention):
    """One query, the condition, attends over all tokens; its answer is added to every token by the caller.

    With a single query the projections fold: ``q . (K x) = (K^T q) . x`` and ``sum a (V x) = V (sum a x)``, so tokens
    are read twice and never projected. The bias of the keys adds one constant to all scores of a head and cancels.
    """

    def forward(self, query: Tensor, key: Tensor, value: Tensor | None = None, allowed: Tensor | None = None) -> Tensor:
        """``query`` (B, 1, D) and tokens ``key`` (B, T, D) to (B, 1, D)."""
        b, _, d = query.shape
        depth = d // self.heads
        q = self.query(query).view(b, self.heads, 1, depth)
        probe = (q @ self.key.weight.view(self.heads, depth, d))[:, :, 0]  # (B, heads, D)
        attention = (probe @ key.transpose(1, 2) * depth**-0.5).softmax(-1)  # (B, heads, T)
        seen = (attention @ key)[..., None]  # (B, heads, D, 1)
        mixed = (self.value.weight.view(self.heads, depth, d) @ seen).view(b, 1, d) + self.value.bias
        result: Tensor = self.out(mixed)
        return result


# --------------------------------------------------------------------------------------------------- query decoder


class QueryDecoder(nn.Module):
    """Queries with masked attention over one level after the other, a prediction before and after every layer."""

    def __init__(
        self, width: int, levels: int, heads: int, layers: int, ffn: int, queries: int, *, boxes: bool
    ) -> None:
        super().__init__()
        self.feature = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.position = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.level = nn.Parameter(torch.randn(levels, width) * 0.02)
        self.layers = nn.ModuleList(QueryDecoderLayer(width, heads, ffn) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, 2)
        self.mask = _mlp3(width, width)
        self.box = _mlp3(width, 4) if boxes else None

    def forward(self, levels: Sequence[Tensor], mask_features: Tensor, *, every: bool) -> tuple[QuerySet, ...]:
        """Maps coarsest first, each (B, D, h_l, w_l), and (B, D, H, W) to the sets of all layers, or the last one."""
        b, d = mask_features.shape[:2]
        memory, keys, small = [], [], []
        for x, e in zip(levels, self.level, strict=True):
            h, w = x.shape[2:]
            memory.append(x.flatten(2).transpose(1, 2) + e)
            keys.append(memory[-1] + sine_code(h, w, d, x.device, x.dtype))
            # Where a query may look is its mask shrunk to the level. Shrinking is linear and so commutes with the
            # product of query and features: the features are shrunk once per level, not every mask of every layer.
            small.append(resize(mask_features.detach(), (h, w)).flatten(2))
        x = self.feature.expand(b, -1, -1)
        position = self.position
        sets = []
        for i in range(len(self.layers) + 1):
            y = self.norm(x)
            embedding = self.mask(y)  # (B, Q, D)
            if every or i == len(self.layers):
                masks = (embedding @ mask_features.flatten(2)).unflatten(2, mask_features.shape[2:])
                sets.append(QuerySet(self.classes(y), masks, None if self.box is None else self.box(y).sigmoid()))
            if i < len(self.layers):
                at = i % len(levels)
                allowed = embedding.detach() @ small[at] >= 0
                allowed |= ~allowed.any(2, keepdim=True)  # a query whose mask is empty looks everywhere
                x = self.layers[i](x, position, memory[at], keys[at], allowed)
        return tuple(sets)


class QueryDecoderLayer(nn.Module):
    """Masked attention to one level, attention among the queries, feed-forward; each added and then normed."""

    def __init__(self, width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.look = Attention(width, heads)
        self.look_norm = nn.LayerNorm(width)
        self.talk = Attention(width, heads)
        self.talk_norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, ffn), nn.ReLU(), nn.Linear(ffn, width))
        self.ffn_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor, memory: Tensor, keys: Tensor, allowed: Tensor) -> Tensor:
        """(B, Q, D) queries, (B, T, D) memory and keys, (B, Q, T) bool, to (B, Q, D)."""
        x = self.look_norm(x + self.look(x + position, keys, memory, allowed))
        placed = x + position
        x = self.talk_norm(x + self.talk(placed, placed, x))
        normed: Tensor = self.ffn_norm(x + self.ffn(x))
        return normed


def _mlp3(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))


# ------------------------------------------------------------------------------------------ positions, same for all


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, half-pixel centres, no antialias: (B, C, h, w) to (B, C, *size)."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


@lru_cache(maxsize=64)
def sine_code(h: int, w: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sine position code of an h x w grid, row-major: (h w, width); first half the row, second half the column."""
    half = width // 2
    with torch.inference_mode(False):  # kept for later calls, which may need gradients around it
        k = torch.arange(half, dtype=torch.float32)
        period = 10000 ** (2 * (k / 2).floor() / half)

        def code(n: int) -> Tensor:  # (n, half)
            angle = 2 * math.pi * torch.arange(1, n + 1)[:, None] / (n + 1e-6) / period
            return torch.where(k % 2 == 0, angle.sin(), angle.cos())

        rows, columns = code(h)[:, None].expand(-1, w, -1), code(w)[None].expand(h, -1, -1)
        return torch.cat([rows, columns], 2).flatten(0, 1).to(device, dtype)


@lru_cache(maxsize=64)
def sampling_grid(
    shapes: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Side lengths (levels, 2) of the levels as w, h, and the centres (T, 2) of all their cells as x, y in [0, 1]."""
    with torch.inference_mode(False):
        centres = []
        for h, w in shapes:
            x, y = (torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h
            centres.append(torch.stack([x.expand(h, w), y[:, None].expand(h, w)], 2))
        sizes = torch.tensor([[w, h] for h, w in shapes], dtype=torch.float32)
        return sizes.to(device, dtype), torch.cat([c.flatten(0, 1) for c in centres]).to(device, dtype)


@lru_cache(maxsize=64)
def table_rows(shapes: tuple[tuple[int, int], ...], heads: int, device: torch.device) -> Tensor:
    """Rows of the four corners of cell (0, 0) of every level in the padded table: (heads, levels, 1, 4) int32."""
    with torch.inference_mode(False):
        rows, start = [], 0
        for h, w in shapes:
            pitch = w + 3
            rows.append([start + pitch + 1 + step for step in (0, 1, pitch, pitch + 1)])
            start += (h + 3) * pitch
        cells = torch.tensor(rows)[:, None] * heads  # (levels, 1, 4)
        return (cells + torch.arange(heads)[:, None, None, None]).to(device, torch.int32)
