"""A light encoder for the traces of a forgery, at native resolution.

Semantics survive when a photo is shrunk; the traces of an editor do not. This encoder therefore reads pixels as they
are and looks at what a camera and its JPEG encoder leave everywhere alike, and an editor does not:

* **residuals**: what learnable zero-mean 5 x 5 filters (high-pass at the start, after the rich models of Fridrich and
  Kodovsky, 2012, and the constrained layer of Bayar and Stamm, 2016) leave of the picture: noise, demosaicing and
  re-sampling;
* **the JPEG lattice**: coefficients of the 8 x 8 DCT of the luma that went through quantisation with step s lie on
  multiples of s, so the mean of cos(2 pi c / s) over a neighbourhood tells which steps its history holds. This is the
  evidence of double-JPEG methods (after Bianchi and Piva, 2012), given to the network as plain maps. It needs the
  window's origin on the 8 x 8 grid, which is where the pipeline cuts;
* **counts**, if asked for: the same coefficients counted in the steps that this photo was last saved with, which are
  read from its pixels (:class:`Counts`): the histograms in which a second compression leaves its gaps, as CAT-Net (Kwon
  et al., 2022) reads them from a JPEG's own tables;
* **statistics**, if asked for: how often small third differences of the luma occur together
  (:class:`Statistics`), which tells one grain, blur or re-sampling from another without having to be learnt.

They are then averaged locally and set against the whole window (:class:`Contrast`): a splice is no kind of texture, it
is what does not belong to *this* photo. The trunk is a short stack of ConvNeXt-like blocks (Liu et al., 2022) at stride
8 with growing dilation.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import Features

BLOCK = 8  # pixels: side of a JPEG block, and the stride of the feature grid
STEPS = (2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0)  # quantisation steps looked for, unless told
ROUGHNESS = (1.0, 3.0)  # grey levels: steps that third differences are divided by
WORDS = 25  # classes of four neighbouring third differences
LOW = 21  # lowest zig-zag coefficients whose lattice is looked at
LARGEST = 32  # largest quantisation step that is recognised
BINS = 6  # of a histogram of coefficients: 0 to 4 steps, and more
SOUGHT = 5  # lowest coefficients by which the grid of a cropped photo is found
STEPS_SOUGHT = (2, 3, 4, 5, 6, 8, 10, 12)  # and steps that they are tried with
ALIGNED, CLEARLY = 0.3, 0.15  # least fit of a grid, and least advantage over none
ROUNDING = 0.04  # variance of a DCT coefficient of the luma after pixels were rounded to whole RGB values
GREY_SCALE = 127.5  # grey levels per unit of the normalised input
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as JPEG uses


def dct_basis() -> Tensor:
    """The 64 orthonormal 8 x 8 DCT-II kernels in zig-zag order, (64, 1, 8, 8)."""
    n = torch.arange(BLOCK, dtype=torch.float64)
    rows = torch.cos(math.pi * (2 * n[None, :] + 1) * n[:, None] / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    kernels = torch.einsum("iy,jx->ijyx", rows, rows)
    order = sorted(
        ((i, j) for i in range(BLOCK) for j in range(BLOCK)),
        key=lambda ij: (ij[0] + ij[1], ij[0] if (ij[0] + ij[1]) % 2 else ij[1]),
    )
    return torch.stack([kernels[i, j] for i, j in order]).unsqueeze(1).float()


class Lattice(nn.Module):
    """DCT coefficients of the luma on the 8 x 8 grid, and how well they fit each quantisation lattice."""

    basis: Tensor
    steps: Tensor

    def __init__(self, steps: Sequence[float] = STEPS) -> None:
        """``steps`` looked for, in grey levels. Nothing is learned here."""
        super().__init__()
        self.channels = 64 + (LOW - 1) * len(steps)
        self.register_buffer("basis", dct_basis(), persistent=False)
        self.register_buffer("steps", torch.tensor(tuple(steps)).view(-1, 1, 1), persistent=False)

    def forward(self, luma: Tensor) -> Tensor:
        """(B, 1, H, W) luma in grey levels to (B, channels, H/8, W/8)."""
        coefficients = F.conv2d(luma, self.basis, stride=BLOCK)
        low = coefficients[:, 1:LOW]
        fit = torch.cos(low.unsqueeze(2) * (2 * math.pi / self.steps)).flatten(1, 2)
        return torch.cat([coefficients.abs().log1p(), fit], 1)


class Counts(nn.Module):
    """How many steps of the last quantisation each low DCT coefficient of the luma has, and how well that fits.

    Coefficients of a photo that was saved as JPEG are multiples of the steps of its table. Those are recognised, window
    by window: of all steps that fit the coefficients of a frequency nearly as well as the best one, the largest; 1
    where none fits. An earlier save with other steps leaves gaps and peaks in the histogram of the multiples; what was
    put in after it has none. Nothing needs to be known of the file, so a JPEG that was saved as PNG is read like any.
    """

    basis: Tensor
    channels = (LOW - 1) * (BINS + 1)

    def __init__(self) -> None:
        """Nothing is learned here."""
        super().__init__()
        self.register_buffer("basis", dct_basis()[1:LOW], persistent=False)

    @torch.no_grad()
    def forward(self, luma: Tensor) -> Tensor:
        """(B, 1, H, W) luma in grey levels to (B, channels, H/8, W/8): shares of the bins, then the fit in [-1, 1]."""
        coefficients = F.conv2d(luma, self.basis, stride=BLOCK)
        multiples = coefficients / self.steps(coefficients)
        size = multiples.abs()
        bins = [(1 - (size - n).abs()).clamp_(min=0) for n in range(BINS - 1)]
        bins.append((size - (BINS - 2)).clamp_(0, 1))
        return torch.cat([*bins, (multiples * (2 * math.pi)).cos_()], 1)

    @staticmethod
    def steps(coefficients: Tensor) -> Tensor:
        """The step of each frequency of (B, C, h, w) coefficients, (B, C, 1, 1), from 1 to ``LARGEST``."""
        fit = fits(coefficients, range(1, LARGEST + 1))
        good = (fit > 0.5) & (fit >= fit.amax(0) - 0.04)
        numbers = torch.arange(1.0, LARGEST + 1, device=fit.device).view(-1, 1, 1)
        return (good * numbers).amax(0).clamp_(min=1)[:, :, None, None]


def fits(coefficients: Tensor, steps: Sequence[int]) -> Tensor:
    """How well coefficients (B, C, h, w) lie on multiples of each step, (S, B, C), about -1 to 1; 0 is chance.

    It is the mean of cos(2 pi c / step) over coefficients that would not round to zero, over what rounding to whole
    pixels would leave of a perfect one, drawn to zero where they are few.
    """
    size, found = coefficients.abs(), []
    for step in steps:
        counted = size > step / 2
        wave = (coefficients * (2 * math.pi / step)).cos_().mul_(counted).sum((2, 3))
        perfect = math.exp(-2 * ROUNDING * (math.pi / step) ** 2)
        found.append(wave / (perfect * (counted.sum((2, 3)) + 4)))
    return torch.stack(found)


class Statistics(nn.Module):
    """How often small third differences of the luma occur together, block by block.

    Third differences along rows and along columns are divided by a step, rounded and cut to -1, 0 and 1. Four
    neighbours of them, in the direction of the difference or across it, make a word; words that are each other's mirror
    image or negative count as one, which leaves 25. Source: Splicebuster (Cozzolino, Poggi and Verdoliva, 2015).
    """

    kinds: Tensor
    channels = 2 * WORDS * len(ROUGHNESS)

    def __init__(self) -> None:
        """Nothing is learned here."""
        super().__init__()
        found: dict[tuple[int, ...], int] = {}
        kinds = []
        for word in itertools.product((-1, 0, 1), repeat=4):
            negative = tuple(-n for n in word)
            kinds.append(found.setdefault(min(word, word[::-1], negative, negative[::-1]), len(found)))
        self.register_buffer("kinds", torch.tensor(kinds), persistent=False)

    @torch.no_grad()
    def forward(self, luma: Tensor) -> Tensor:
        """(B, 1, H, W) luma in grey levels to (B, channels, H/8, W/8): per step, shares of words along and across."""
        grown = F.pad(luma, (3, 3, 3, 3), mode="reflect")[:, 0]
        shares = []
        for step in ROUGHNESS:
            symbols = [grown.diff(3, dim).div(step).round().clamp(-1, 1).long() + 1 for dim in (1, 2)]
            for dims in ((1, 2), (2, 1)):  # words in the direction of the difference, then across it
                counts = [self._count(s, dim, luma.shape[2:]) for s, dim in zip(symbols, dims, strict=True)]
                shares.append((counts[0] + counts[1]) / (2 * BLOCK**2))
        return torch.cat(shares, 1)

    def _count(self, symbols: Tensor, dim: int, size: Sequence[int]) -> Tensor:
        """Words along ``dim`` in each block of the middle (H, W) of the symbols (B, h, w), (B, 25, H/8, W/8)."""
        n = symbols.shape[dim] - 3
        word = sum(symbols.narrow(dim, i, n) * 3 ** (3 - i) for i in range(4))
        assert isinstance(word, Tensor)
        (height, width), batch = size, len(word)
        top, left = (word.shape[1] - height) // 2, (word.shape[2] - width) // 2
        kind = self.kinds[word[:, top : top + height, left : left + width]]
        grid = batch, height // BLOCK, width // BLOCK
        block = torch.arange(math.prod(grid), device=kind.device).view(batch, grid[1], 1, grid[2], 1)
        index = kind.view(batch, grid[1], BLOCK, grid[2], BLOCK) + WORDS * block
        counts = torch.bincount(index.flatten(), minlength=WORDS * math.prod(grid))
        return counts.view(*grid, WORDS).permute(0, 3, 1, 2)


class Contrast(nn.Module):
    """Local means of traces, each as it is and against the whole window, mixed to ``outputs`` channels.

    A trace means little by itself; that it differs from the rest of the photo is the evidence. Single blocks are
    too noisy to compare, so means over 3 x 3 and 7 x 7 blocks are.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """Channels in and out."""
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs, affine=False)
        self.mix = nn.Sequential(nn.Conv2d(3 * inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w)."""
        x = self.norm(x)
        near = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        wide = F.avg_pool2d(x, 7, 1, 3, count_include_pad=False)
        mixed: Tensor = self.mix(torch.cat([near, relative(near), relative(wide)], 1))
        return mixed


def relative(x: Tensor) -> Tensor:
    """Each channel of (B, C, h, w) against its own mean and deviation over the window, in single precision at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # the gradient of a small deviation is beyond half of it
    deviation, mean = torch.std_mean(x, (2, 3), keepdim=True)
    return (x - mean) / (deviation + 0.05)


class Block(nn.Module):
    """Depthwise 5 x 5 (dilated), batch norm, pointwise expansion by 2, residual with a learned scale."""

    def __init__(self, width: int, dilation: int) -> None:
        """``dilation`` of the depthwise convolution, in grid cells."""
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2 * dilation, dilation=dilation, groups=width)
        self.norm = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.project = nn.Conv2d(2 * width, width, 1)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, h, w) to the same shape."""
        with torch.autocast("cpu", enabled=False):  # its bfloat16 gradient of dilated kernels is sometimes not finite
            spread = self.depthwise(x.to(self.depthwise.weight.dtype))
        change: Tensor = self.project(F.gelu(self.expand(self.norm(spread))))
        return x + self.scale * change


class TraceEncoder(nn.Module):
    """Pixels to trace features at stride 8.

    Args:
        width: channels of the result.
        depth: blocks of the trunk; dilations repeat 1, 2, 4.
        residuals: zero-mean filters of the first layer.
        steps: quantisation steps that the lattice is tried with, grey levels.
        statistics: whether :class:`Statistics` are read too.
        counts: whether :class:`Counts` are read too.
    """

    stride = BLOCK

    def __init__(
        self,
        width: int = 128,
        depth: int = 6,
        residuals: int = 12,
        steps: Sequence[float] = STEPS,
        statistics: bool = False,
        counts: bool = False,
    ) -> None:
        """Random weights; the first layer starts as random high-pass filters."""
        super().__init__()
        self.width = width
        self.highpass = nn.Parameter(torch.randn(residuals, 3, 5, 5) * 0.1)
        self.stem = nn.Sequential(
            _down(residuals + 3, 32),
            _down(32, 64),
            _down(64, width),
        )
        self.lattice = Lattice(steps)
        self.statistics = Statistics() if statistics else None
        self.counts = Counts() if counts else None
        channels = [width, self.lattice.channels] + [Statistics.channels] * statistics + [Counts.channels] * counts
        self.contrast = nn.ModuleList([Contrast(n, width) for n in channels])
        self.join = nn.Conv2d(len(channels) * width, width, 1)
        self.trunk = nn.Sequential(*(Block(width, (1, 2, 4)[i % 3]) for i in range(depth)))
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.Linear(2 * width, width)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1) * GREY_SCALE, persistent=False)
        nn.init.trunc_normal_(self.join.weight, std=0.05)

    luma: Tensor

    def forward(self, pixels: Tensor) -> Features:
        """(B, 3, H, W) in [-1, 1], sides multiples of 8, to features on the (H/8, W/8) grid."""
        kernel = self.highpass - self.highpass.mean((2, 3), keepdim=True)
        residual = F.conv2d(F.pad(pixels, (2, 2, 2, 2), mode="reflect"), kernel)
        residual = torch.tanh(residual * (GREY_SCALE / 8))  # linear for noise, saturated at edges
        x = self.stem(torch.cat([residual, pixels], 1))
        parts = [x, *self._traces(pixels)]
        traces = [contrast(part) for contrast, part in zip(self.contrast, parts, strict=True)]
        grid = self.norm(self.trunk(self.join(torch.cat(traces, 1))))
        deviation, mean = torch.std_mean(grid.to(torch.promote_types(grid.dtype, torch.float32)), (2, 3))
        pooled = self.pool(torch.cat([mean, deviation], 1))
        return Features(grid, pooled)

    @torch.no_grad()
    def origin(self, pixels: Tensor) -> tuple[int, int] | None:
        """Row and column, 0 to 7, at which the blocks of the last JPEG save begin in (1, 3, H, W); ``None`` if unsure.

        It is where the lowest coefficients fit some step best, if clearly better than at (0, 0). Nowhere do they in a
        picture that was resized after that save.
        """
        luma = (pixels.float() * self.luma).sum(1, keepdim=True)
        height, width = (n // BLOCK * BLOCK - BLOCK for n in luma.shape[2:])
        if min(height, width) < 8 * BLOCK:
            return None
        kernels = self.lattice.basis[1 : SOUGHT + 1]

        def fit(row: int, columns: Sequence[int]) -> Tensor:
            parts = torch.cat([luma[..., row : row + height, x : x + width] for x in columns])
            return fits(F.conv2d(parts, kernels, stride=BLOCK), STEPS_SOUGHT).amax(0).mean(1)

        here = float(fit(0, [0]))
        if here >= ALIGNED:
            return 0, 0
        found = torch.stack([fit(row, range(BLOCK)) for row in range(BLOCK)])
        best = int(found.argmax())
        clear = float(found.max()) > max(ALIGNED, here + CLEARLY)
        return (best // BLOCK, best % BLOCK) if clear else None

    def _traces(self, pixels: Tensor) -> list[Tensor]:
        """What is not learned; in full precision always, as half of it can't tell 40 from 40.2 grey levels."""
        with torch.autocast(pixels.device.type, enabled=False):
            luma = (pixels.float() * self.luma).sum(1, keepdim=True)
            readers = (self.lattice, self.statistics, self.counts)
            return [reader(luma) for reader in readers if reader is not None]


def _down(inputs: int, outputs: int) -> nn.Sequential:
    """Halve the resolution: strided 3 x 3 convolution, batch norm, GELU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.GELU()
    )
