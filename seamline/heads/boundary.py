"""Boundary maps: every segment of a window scored by sampling the features in and around it.

Sources: BA-TFD (Cai et al., DICTA 2022, arXiv:2204.06228) and BA-TFD+ (Cai et al., CVIU 2023, arXiv:2305.01979), whose
boundary module is that of BMN (Lin et al., ICCV 2019) and BSN++ (Su et al., AAAI 2021). Parameter names are those of
the released checkpoints. D-numbers are those of the project's list of findings about the released code; every
correction is a switch of its own, on by default.

The released code multiplies the features with a sampling tensor (T, N, D, T) of which 0.3 % is not zero, and contracts
the result, N times as large as a map, by a convolution. Both are linear, so here the convolution's weight comes first,
on features that are D times smaller, and what it gives is gathered (:class:`ProposalConv`).

Shapes: B batch, F features, T ticks, D rows, N samples of a segment, K and O channels. Cell (d, t) of a map stands for
the segment [t, t + rows[d]) in ticks; ``rows`` given as a number D means durations 1, 2, ..., D.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Rows = int | Sequence[int]
Spans = Sequence[tuple[float, float]]  # start and end in ticks, half-open

BLOCK = 2048  # cells that a processor gathers at a time: more only costs memory

# ------------------------------------------------------------------------------------------------------------ samples


def durations(rows: Rows) -> tuple[int, ...]:
    """The durations of the rows in ticks.

    Raises:
        ValueError: they do not increase from at least 1.
    """
    known = tuple(range(1, rows + 1)) if isinstance(rows, int) else tuple(int(row) for row in rows)
    if not known or known[0] < 1 or any(b <= a for a, b in pairwise(known)):
        raise ValueError(f"durations of rows must increase from at least 1, got {known[:9]}")
    return known


@dataclass(frozen=True, eq=False)
class SampleTable:
    """A sparse matrix from sources to cells: which sources each cell sums, with which weights, and the transpose.

    Source ``t * points + n`` is tick t with the weight of sample n. Behind them, for samples that are means over more
    than a tick, source ``t * edges + k`` is the sum of ticks 0..t with a difference of the weights of two samples: the
    one that ends at edge k less the one that begins there. Cell ``d * T + t`` is that of the map.
    """

    ticks: int  # T
    rows: int  # D
    points: int  # N, or 0 if no row needs them
    steps: Tensor  # (edges, N) of 1, 0 and -1, see above; no edges if no row needs them
    sources: Tensor  # (nnz,) int32 of each term of the cells, cell by cell
    weights: Tensor  # (nnz,) float
    offsets: Tensor  # (D T + 1,) int32, where the terms of each cell begin
    blocks: tuple[tuple[slice, Tensor, Tensor, Tensor], ...]  # some cells and the three above for them
    cells: Tensor  # as sources, weights and offsets, but source by source
    back_weights: Tensor
    back_offsets: Tensor

    def gather(self, sources: Tensor, bias: Tensor, out: Tensor) -> None:
        """The matrix times the sources (T * (points + edges), O), plus a bias (O,), into (D T, O)."""
        for cells, index, weights, offsets in self.blocks:
            torch.add(_bags(sources, index, weights, offsets), bias, out=out[cells])

    def scatter(self, cells: Tensor) -> Tensor:
        """(D T, O) to (T * (points + edges), O): the transposed matrix times the cells."""
        return _bags(cells, self.cells, self.back_weights, self.back_offsets)

    def dense(self) -> Tensor:
        """(T, N, D, T) weight of tick, of sample, of row, at start. As large as it sounds: for tests and benchmarks."""
        cells = self.rows * self.ticks
        count = (self.offsets[1:] - self.offsets[:-1]).long()
        full = self.weights.new_zeros(cells, self.ticks * (self.points + len(self.steps)))
        full[torch.arange(cells, device=count.device).repeat_interleave(count), self.sources.long()] = self.weights
        split = self.ticks * self.points
        sums = full[:, split:].view(cells, self.ticks, -1) @ self.steps  # (D T, T, N)
        ticks = sums.flip(1).cumsum(1).flip(1)
        if self.points:
            ticks += full[:, :split].view_as(ticks)
        return ticks.permute(1, 2, 0).reshape(self.ticks, -1, self.rows, self.ticks)


def _bags(values: Tensor, index: Tensor, weights: Tensor, offsets: Tensor) -> Tensor:
    """Weighed sums of rows of ``values``, one for each pair of neighbouring offsets."""
    sums: Tensor = torch.embedding_bag(values, index, offsets, False, 0, False, weights, True)[0]
    return sums


def sampling(
    ticks: int,
    rows: Rows,
    samples: int,
    *,
    points: bool = True,
    segment: bool = True,
    weight: bool = True,
    reach: float = 0.0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SampleTable:
    """Where the samples of every segment lie: N of them, over the segment and half its length before and behind.

    Points are spread evenly from the first to the last and read by linear interpolation, ticks being points too. What
    falls outside the window is dropped, and segments that stick out of it have no samples.

    Otherwise samples are means over N parts, a quarter of them before and a quarter behind, ticks being intervals and
    zero outside the window. A part shorter than a tick is widened to one, which is linear interpolation at its middle.
    A longer one is the difference of the running sum at its two ends, so that it costs the same however long it is.

    The table is built in NumPy and kept: the same call gives the same object.

    Args:
        ticks: T.
        rows: durations.
        samples: N.
        points: see above.
        segment: D1, for points: the segment of cell (d, t) is [t, t + rows[d]]. Released: it runs from t to rows[d],
            backwards where t is the larger.
        weight: D2, for points: a point that falls on a tick counts once. Released: twice.
        reach: for parts: what lies before and behind is at least so many ticks long.
        device: where the table is used.
        dtype: of the weights. They are rounded to float32 first, as the released ones.
    """
    options = (points, segment, weight, reach)
    return _sampling(ticks, durations(rows), samples, options, str(device), dtype)


@lru_cache(maxsize=32)
def _sampling(
    ticks: int,
    rows: tuple[int, ...],
    samples: int,
    options: tuple[bool, bool, bool, float],
    device: str,
    dtype: torch.dtype,
) -> SampleTable:
    points, segment, weight, reach = options
    if points:
        terms = _points(ticks, rows, samples, segment, weight)
    else:
        terms = _parts(ticks, rows, samples, reach)
    source, value = (array.reshape(len(rows) * ticks, -1) for array in terms[2:])
    value = value.astype(np.float32)
    cell, term = np.nonzero(value)
    source, value = source[cell, term].astype(np.int32), value[cell, term]
    order = np.argsort(source, kind="stable")

    def starts(ordered: npt.NDArray[Any], count: int) -> Tensor:
        return numbers(np.searchsorted(ordered, np.arange(count + 1)).astype(np.int32))

    def numbers(values: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    with torch.inference_mode(False):  # it is kept, and may be trained with later
        sources, weights = numbers(source), numbers(value).to(dtype)
        offsets = starts(cell, len(rows) * ticks)
        size = BLOCK if torch.device(device).type == "cpu" else len(rows) * ticks
        blocks = []
        for low in range(0, len(rows) * ticks, size):
            part = offsets[low : low + size + 1]
            terms_of = slice(int(part[0]), int(part[-1]))
            blocks.append((slice(low, low + size), sources[terms_of], weights[terms_of], part - part[0]))
        return SampleTable(
            ticks=ticks,
            rows=len(rows),
            points=terms[0],
            steps=numbers(terms[1].astype(np.float32)).to(dtype),
            sources=sources,
            weights=weights,
            offsets=offsets,
            blocks=tuple(blocks),
            cells=numbers(cell[order].astype(np.int32)),
            back_weights=numbers(value[order]).to(dtype),
            back_offsets=starts(source[order], ticks * (terms[0] + len(terms[1]))),
        )


Array = npt.NDArray[Any]
_Terms = tuple[int, Array, Array, Array]  # points and steps of a SampleTable; sources and weights (D, T, terms)


def _points(ticks: int, rows: tuple[int, ...], samples: int, segment: bool, weight: bool) -> _Terms:
    """The terms of samples that are points; those that are not needed have no weight."""
    start = np.arange(ticks, dtype=np.float64)[:, None]
    duration = np.array(rows, np.float64)[:, None, None]
    stop = start + duration if segment else np.broadcast_to(duration, (len(rows), ticks, 1))
    length = stop - start  # released: negative where start > duration
    low, high = start - length / 2, stop + length / 2
    n = np.arange(samples)
    x = low + n * ((high - low) / max(samples - 1, 1))  # (D, T, N)
    kept = (x >= 0) & (x <= ticks - 1) & (start + duration <= ticks - 1)
    x = np.where(kept, x, 0)
    left, right = np.floor(x), np.ceil(x)
    before, behind = 1 - (x - left), 1 - (right - x)
    before = np.where((left == right) & (not weight), 2.0, before)
    behind = np.where(left == right, 0.0, behind)
    source = np.stack([left, right], -1).astype(np.int64) * samples + n[:, None]
    value = np.stack([before, behind], -1) * kept[..., None]
    return samples, np.zeros((0, samples)), source, value


def _parts(ticks: int, rows: tuple[int, ...], samples: int, reach: float) -> _Terms:
    """The terms of samples that are means over parts; those that are not needed have no weight."""
    start = np.arange(ticks, dtype=np.float64)[:, None]
    duration = np.array(rows, np.float64)[:, None, None]
    side = np.maximum(duration / 2, reach)
    around = samples // 4
    inside = samples - 2 * around
    groups = [(inside, start, duration / inside)]  # parts of equal length: how many, from where, how long each is
    if around:
        groups = [(around, start - side, side / around), *groups, (around, start + duration, side / around)]
    points = 0 if all((part > 1).all() for *_, part in groups) else samples
    steps = np.zeros((samples + len(groups), samples))
    if not any((part > 1).any() for *_, part in groups):
        steps = steps[:0]

    sources, weights = [], []
    n = 0  # of the group's first sample; its first edge has that number and one more for each group before it
    for g, (count, first, part) in enumerate(groups):
        slots = np.arange(count + 1)  # an edge more than there are parts
        k = n + g
        x = first + (slots + 0.5) * part - 0.5  # (D, T, slots) in ticks, whose middles are whole numbers
        source, share = _between(x, ticks)
        source = source * points + np.minimum(n + slots, n + count - 1)[:, None]
        share[:, :, count] = 0
        x = np.clip(first + slots * part, 0, ticks) - 1  # where the running sums are read
        over, sums = _between(x, ticks)
        over = ticks * points + over * len(steps) + (k + slots)[:, None]
        long = part[..., None] > 1
        sources.append(np.where(long, over, source))
        weights.append(np.where(long, sums / part[..., None], share))
        if len(steps):
            parts = slots[:-1]
            steps[k + parts, n + parts] = -1
            steps[k + parts + 1, n + parts] = 1
        n += count
    return points, steps, np.concatenate(sources, 2), np.concatenate(weights, 2)


def _between(x: Array, ticks: int) -> tuple[Array, Array]:
    """The ticks on both sides of each x, and their weights: (..., 2) each. There is nothing outside the window."""
    left = np.floor(x)
    at = np.stack([left, left + 1], -1)
    share = np.stack([left + 1 - x, x - left], -1)
    return np.clip(at, 0, ticks - 1).astype(np.int64), share * ((at >= 0) & (at < ticks))


class _WeightThenGather(torch.autograd.Function):
    """Weight the ticks, then gather the cells: what is as large as a map is made once, and nothing larger ever.

    One window at a time, so that what is gathered from stays in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, table: SampleTable) -> Tensor:
        """(B, T, F), (F, N, O), (B or 1, O) to (B, D T, O)."""
        ctx.save_for_backward(x, weight)
        ctx.table, ctx.shared = table, len(bias) == 1
        point, edge = _kernels(weight, table)
        split = table.ticks * table.points
        sources = x.new_empty(table.ticks * (table.points + len(table.steps)), weight.shape[-1])
        out = x.new_empty(len(x), table.rows * table.ticks, weight.shape[-1])
        for window, plus, cells in zip(x, bias.expand(len(x), -1), out, strict=True):
            if table.points:
                torch.mm(window, point, out=sources[:split].view(table.ticks, -1))
            if len(table.steps):
                torch.mm(window.cumsum(0), edge, out=sources[split:].view(table.ticks, -1))
            table.gather(sources, plus, cells)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of the sum of ``grads[0] * out``."""
        grad = grads[0].contiguous()  # (B, D T, O)
        x, weight = ctx.saved_tensors
        table: SampleTable = ctx.table
        point, edge = _kernels(weight, table)
        split = table.ticks * table.points
        grad_x, grad_point, grad_edge = torch.zeros_like(x), torch.zeros_like(point), torch.zeros_like(edge)
        for window, cells, grad_window in zip(x, grad, grad_x, strict=True):
            sources = table.scatter(cells)
            if table.points:
                part = sources[:split].view(table.ticks, -1)  # (T, N O)
                grad_point.addmm_(window.T, part)
                grad_window.addmm_(part, point.T)
            if len(table.steps):
                part = sources[split:].view(table.ticks, -1)  # (T, edges O)
                grad_edge.addmm_(window.cumsum(0).T, part)
                grad_window.add_((part @ edge.T).flip(0).cumsum(0).flip(0))
        grad_weight = torch.zeros_like(weight)
        if table.points:
            grad_weight += grad_point.view_as(weight)
        if len(table.steps):
            grad_weight += table.steps.T @ grad_edge.view(len(weight), len(table.steps), -1)
        grad_bias = grad.sum(1)  # (B, O)
        return grad_x, grad_weight, grad_bias.sum(0, keepdim=True) if ctx.shared else grad_bias, None


def _kernels(weight: Tensor, table: SampleTable) -> tuple[Tensor, Tensor]:
    """(F, N, O) to what multiplies the ticks (F, N O), and what multiplies their running sums (F, edges O)."""
    return weight.flatten(1), (table.steps @ weight).flatten(1)


class ProposalConv(nn.Module):
    """Samples of every segment, contracted by one weight per sample: (B, F, T) to (B, O, D, T).

    Args:
        channels: F.
        out: O.
        samples: N.
        rows: durations in ticks, any increasing ones. T is that of the input.
        points: samples are points as in the papers. Else means over parts, so that nothing between two samples is
            missed however long the segment is, and cells that stick out of the window have a value too. See
            :func:`sampling`.
        segment: D1, for points.
        weight: D2, for points.
        reach: for parts: they reach at least so many ticks before and behind the segment.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        samples: int,
        rows: Rows,
        *,
        points: bool = False,
        segment: bool = True,
        weight: bool = True,
        reach: float = 0.0,
    ) -> None:
        super().__init__()
        self.rows, self.samples, self.points = durations(rows), samples, points
        self.segment, self.weight, self.reach = segment, weight, reach
        self.conv = nn.Conv3d(channels, out, (samples, 1, 1))  # holds the parameters, under their released names

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, F, T), any T, to (B, O, D, T); channels lie last in memory, where a 2-D convolution likes them.

        Args:
            x: the sequence.
            mask: (B, 1, T) of 0 and 1, for parts: ticks that are not there, and what lies outside the window, count as
                the mean of those that are there. By default all ticks are there.
        """
        weight, bias = self.conv.weight[..., 0, 0].permute(1, 2, 0), self.conv.bias  # (F, N, O), (O,)
        assert bias is not None
        table = sampling(
            x.shape[-1],
            self.rows,
            self.samples,
            points=self.points,
            segment=self.segment,
            weight=self.weight,
            reach=self.reach,
            device=x.device,
            dtype=weight.dtype,
        )
        with torch.autocast(x.device.type, enabled=False):  # running sums need all the digits that there are
            x = x.to(weight.dtype)
            bias = bias[None]
            if not self.points:
                if mask is None:
                    mean = x.mean(-1, keepdim=True)  # (B, F, 1)
                    x = x - mean
                else:
                    mask = mask.to(x.dtype)
                    mean = (x * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)
                    x = (x - mean) * mask
                bias = bias + mean[..., 0] @ weight.sum(1)  # (B, O)
            x, weight = x.transpose(1, 2).contiguous(), weight.contiguous()
            cells: Tensor = _WeightThenGather.apply(x, weight, bias, table)  # type: ignore[no-untyped-call]
        return cells.view(len(x), len(self.rows), -1, len(self.conv.weight)).permute(0, 3, 1, 2)


# ---------------------------------------------------------------------------------------------------------- relations


class _ConvNorm(nn.Sequential):
    """Convolution, batch norm, and a ReLU or nothing. For inference the norm is part of the convolution's weights."""

    def __init__(self, channels: int, out: int, side: int, *, relu: bool = True) -> None:
        super().__init__(nn.Conv2d(channels, out, side, padding=side // 2), nn.BatchNorm2d(out))
        if relu:
            self.append(nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, D, T) to (B, O, D, T)."""
        if self.training or torch.is_grad_enabled():
            out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return out
        conv, norm, *relu = self
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        out = F.conv2d(x, weight, bias, padding=conv.padding)
        return out.relu_() if relu else out


def _map(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 1, 3, padding=1), nn.Sigmoid())


class PositionAttention(nn.Module):
    """Every cell looks at all cells of the map at half resolution. The D T x D T / 4 weights are never in memory.

    Args:
        channels: K.
        inner: width of queries, keys and values.
        scale: D10: logits are divided by the root of ``inner``, the number of their terms. Released: they are not.
    """

    def __init__(self, channels: int, inner: int, *, scale: bool = True) -> None:
        super().__init__()
        self.scale = inner**-0.5 if scale else 1.0
        self.g = nn.Sequential(_ConvNorm(channels, inner, 1), nn.MaxPool2d(2))
        self.theta = _ConvNorm(channels, inner, 1)
        self.phi = nn.Sequential(_ConvNorm(channels, inner, 1), nn.MaxPool2d(2))
        self.W = _ConvNorm(inner, channels, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, D, T), D and T at least 2, to the same."""
        queries, keys, values = (net(x).flatten(2).transpose(1, 2)[:, None] for net in (self.theta, self.phi, self.g))
        seen = F.scaled_dot_product_attention(queries, keys, values, scale=self.scale)  # (B, 1, D T, inner)
        out: Tensor = self.W(seen[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))
        return out + x


class ChannelAttention(nn.Module):
    """Every channel looks at all channels.

    Args:
        channels: K.
        inner: width of queries, keys and values.
        layout: D3: what was seen is channels x cells. Released: its buffer, cells x channels, is read as if it were.
        scale: D10: logits are divided by the root of D T, the number of their terms. Released: they are not, and reach
            thousands.
    """

    def __init__(self, channels: int, inner: int, *, layout: bool = True, scale: bool = True) -> None:
        super().__init__()
        self.layout, self.scale = layout, scale
        self.g, self.theta, self.phi = (_ConvNorm(channels, inner, 1) for _ in range(3))
        self.W = _ConvNorm(inner, channels, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, D, T) to the same."""
        queries, keys, values = (net(x).flatten(2).transpose(1, 2) for net in (self.theta, self.phi, self.g))
        logits = queries.transpose(1, 2) @ keys  # (B, inner, inner)
        weights = (logits * values.shape[1] ** -0.5 if self.scale else logits).softmax(-1)
        weights = F.threshold(weights, 1e-30, 0)  # denormal numbers would make the product 20 times as slow
        seen = values @ weights.transpose(1, 2)  # (B, D T, inner)
        seen = seen.transpose(1, 2) if self.layout else seen.reshape(len(x), -1, values.shape[1])
        out: Tensor = self.W(seen.unflatten(2, x.shape[2:]).contiguous(memory_format=torch.channels_last))
        return out + x


class ProposalRelation(nn.Module):
    """Proposal relation block: three maps, from segments compared by position, by channel, and from both.

    Args:
        channels: K.
        layout: D3, see :class:`ChannelAttention`.
        scale: D10, see both attentions.
    """

    def __init__(self, channels: int, *, layout: bool = True, scale: bool = True) -> None:
        super().__init__()
        self.p_net = PositionAttention(channels, channels, scale=scale)
        self.c_net = ChannelAttention(channels, channels, layout=layout, scale=scale)
        self.conv0_0, self.conv0_1 = _ConvNorm(channels, channels, 3), _ConvNorm(channels, channels, 3)
        self.conv1, self.conv4 = _ConvNorm(channels, channels, 3), _ConvNorm(channels, channels, 3)
        self.conv2, self.conv3, self.conv5 = _map(channels), _map(channels), _map(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, K, D, T) to (B, 3, D, T) in (0, 1): position, channel, joint."""
        position = self.conv1(self.p_net(self.conv0_0(x)))
        channel = self.conv4(self.c_net(self.conv0_1(x)))
        return torch.cat([self.conv2(position), self.conv5(channel), self.conv3(position + channel)], 1)


class _Conv(nn.Module):
    """A convolution and what follows it, under the released name."""

    def __init__(self, channels: int, out: int, side: int, after: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, side, padding=side // 2)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(self.conv(x))
        return y


class BoundaryModule(nn.Module):
    """Features to maps: samples, two convolutions, then one more (BA-TFD) or the proposal relation block (BA-TFD+).

    Args:
        channels: F.
        widths: of the samples and of the convolutions, as published.
        samples: N.
        rows: durations in ticks; a number D: 1..D.
        relations: BA-TFD+.
        segment: D1, see :func:`sampling`.
        weight: D2, see :func:`sampling`.
        layout: D3, see :class:`ChannelAttention`.
        scale: D10, see both attentions.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, int] = (512, 128),
        samples: int = 10,
        rows: Rows = 40,
        *,
        relations: bool = True,
        segment: bool = True,
        weight: bool = True,
        layout: bool = True,
        scale: bool = True,
    ) -> None:
        super().__init__()
        wide, width = widths
        sample = ProposalConv(channels, wide, samples, rows, points=True, segment=segment, weight=weight)
        self.block0 = nn.Sequential(sample, nn.LeakyReLU(0.01, inplace=True))
        self.block1 = nn.Sequential(
            _Conv(wide, width, 1, nn.LeakyReLU(0.01, inplace=True)),
            _Conv(width, width, 3, nn.LeakyReLU(0.01, inplace=True)),
        )
        self.proposal_block: ProposalRelation | None = None
        if relations:
            self.proposal_block = ProposalRelation(width, layout=layout, scale=scale)
        else:
            self.block1.append(_Conv(width, 1, 1, nn.Sigmoid()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, T) to maps (B, M, D, T) in (0, 1); M = 3 (position, channel, joint) with relations, else 1."""
        cells: Tensor = self.block1(self.block0(x))
        return cells if self.proposal_block is None else self.proposal_block(cells)


# ---------------------------------------------------------------------------------------------------------- generator


class _Unit(nn.Module):
    """Convolution of three ticks, batch norm, ReLU, under the released names."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(channels, out, 3, padding=1), nn.BatchNorm1d(out), nn.ReLU(inplace=True))

    def forward(self, *parts: Tensor) -> Tensor:
        y: Tensor = self.conv(torch.cat(parts, 1) if len(parts) > 1 else parts[0])
        return y


class NestedUNet(nn.Module):
    """Complementary boundary generator: where segments start and end, from a nested U-Net over time.

    Args:
        channels: F.
        width: of every unit; 512 as published.
    """

    def __init__(self, channels: int, width: int = 512) -> None:
        super().__init__()
        self.conv0_0, self.conv1_0, self.conv2_0 = _Unit(channels, width), _Unit(width, width), _Unit(width, width)
        self.conv0_1, self.conv1_1 = _Unit(2 * width, width), _Unit(2 * width, width)
        self.conv0_2 = _Unit(3 * width, width)
        self.final = nn.Conv1d(3 * width, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, T), T a multiple of 4, to features (B, 3 width, T) and curves (B, 2, T) in (0, 1).

        Channel 0 of the curves is the end, 1 the start (D20: the released order, kept).
        """

        def up(y: Tensor) -> Tensor:
            return y.repeat_interleave(2, -1)

        def down(y: Tensor) -> Tensor:
            return F.max_pool1d(y, 2)

        x00 = self.conv0_0(x)
        x10 = self.conv1_0(down(x00))
        x01 = self.conv0_1(x00, up(x10))
        x20 = self.conv2_0(down(x10))
        x11 = self.conv1_1(x10, up(x20))
        x02 = self.conv0_2(x00, x01, up(x11))
        feature = torch.cat([x00, x01, x02], 1)
        return feature, self.final(feature).sigmoid()


# ------------------------------------------------------------------------------------------------------------ targets


def iou_map(spans: Spans, ticks: int, length: int, rows: Rows) -> Tensor:
    """Target of a boundary map: IoU of each cell's segment with the true span that it meets best.

    Segments that end more than one tick behind the last are zero, and so is what pads the window.

    Args:
        spans: true ones in ticks; clipped to the window.
        ticks: how many there are; may exceed ``length``.
        length: T, columns of the map.
        rows: durations in ticks.

    Returns:
        (D, T) float32.
    """
    duration = np.array(durations(rows), np.float64)[:, None]
    longest, columns = float(duration[-1, 0]), min(ticks, length)
    best = np.zeros((len(duration), length), np.float32)
    for start, stop in _clipped(spans, ticks):
        first, last = max(0, math.floor(start - longest)), min(columns, math.ceil(stop))  # none but these can meet it
        if first >= last:
            continue
        begin = np.arange(first, last, dtype=np.float64)
        shared = np.minimum(begin + duration, stop)  # (D, n)
        shared -= np.maximum(begin, start)
        np.maximum(shared, 0, out=shared)
        shared /= duration + (stop - start) - shared
        np.maximum(best[:, first:last], shared, out=best[:, first:last], casting="same_kind")
    late = max(0, math.floor(ticks + 1 - longest))
    best[:, late:] *= np.arange(late, length) + duration <= ticks + 1
    return torch.from_numpy(best)


def boundary_curves(
    spans: Spans, ticks: int, length: int, rows: int, *, corrected: bool = True
) -> tuple[Tensor, Tensor]:
    """Targets of the boundary generator: how much of each tick lies within 1.5 ticks of a start, and of an end.

    Args:
        spans: true ones in ticks; clipped to the window.
        ticks: n, how many there are.
        length: T.
        rows: D; only the released form looks at it.
        corrected: D7: tick i is [i - 1/2, i + 1/2] of n. Released: of D, so that all lies in the first D + 1 ticks.

    Returns:
        Two of (T,) float32 in [0, 1], of starts and of ends.
    """
    width = 1.0 if corrected else ticks / rows  # of an anchor, in ticks
    anchor = np.arange(length) * width
    curves = []
    edges = np.array(_clipped(spans, ticks), np.float64).reshape(-1, 2).T[..., None]
    for edge in edges:  # (spans, 1) starts, then ends
        shared = np.minimum(anchor + width / 2, edge + 1.5) - np.maximum(anchor - width / 2, edge - 1.5)
        curve = (shared / width).clip(min=0).max(0, initial=0.0)
        if corrected:
            curve[ticks:] = 0
        curves.append(torch.from_numpy(curve.astype(np.float32)))
    start, end = curves
    return start, end


def frame_labels(spans: Spans, length: int) -> Tensor:
    """(T,) float32: 1 from the tick in which a span starts to the one before that in which it ends.

    D14: the released code has 512 for T whatever T is.
    """
    labels = torch.zeros(length)
    for start, stop in spans:
        labels[max(0, int(start)) : max(0, int(stop))] = 1
    return labels


def _clipped(spans: Spans, ticks: int) -> list[tuple[float, float]]:
    return [(min(max(start, 0), ticks), min(max(stop, 0), ticks)) for start, stop in spans]
