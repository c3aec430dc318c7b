"""Enhanced receptive field: every tick is judged with the whole window in view.

Source: the talk "Constructing Deepfake Detectors with Different Modalities Based on Feature Encoders" (IJCAI 2025
workshop) names ERF and shows its gain; how it is built was not published, so the build is ours. Two parts, because
forgeries need both. Dilated convolutions (Yu & Koltun, ICLR 2016; WaveNet) whose dilation doubles see 2^(n+1) - 1 ticks
through n layers: dense and exact near a seam, logarithmic in cost. One attention over the whole window then
compares far ticks, which is how a replaced sentence is told from the room and the voice of the rest. In front
stands nothing that knows the window's length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .context import ChannelNorm, SelfBlock


class Dilated(nn.Module):
    """Residual unit: norm, dilated depthwise convolution of ``2 * radius + 1`` taps, two 1x1 convolutions."""

    def __init__(self, channels: int, dilation: int, radius: int = 1, expand: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        taps = 2 * radius + 1
        self.depth = nn.Conv1d(channels, channels, taps, padding=radius * dilation, dilation=dilation, groups=channels)
        self.up = nn.Conv1d(channels, expand * channels, 1)
        self.down = nn.Conv1d(expand * channels, channels, 1)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), (B, 1, T) to (B, C, T); what is masked is zero before and after."""
        y = self.depth(self.norm(x) * mask)
        y = self.drop(self.down(F.gelu(self.up(y))))
        out: Tensor = (x + y) * mask
        return out


class ReceptiveField(nn.Module):
    """Dilated units of the given dilations, then one attention over the whole window.

    Args:
        channels: width C.
        dilations: of the units, in order; 1, 2, 4, ..., 64 see 255 ticks, ten seconds at 25 to the second.
        heads: of the attention; 0: none.
        dropout: of every residual branch.
    """

    def __init__(
        self, channels: int, dilations: Sequence[int] = (1, 2, 4, 8, 16, 32, 64), heads: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.units = nn.ModuleList(Dilated(channels, d, dropout=dropout) for d in dilations)
        self.whole = SelfBlock(channels, heads, window=0, expand=2, scale=0.1) if heads else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), (B, 1, T) of 0 and 1 to (B, C, T)."""
        for unit in self.units:
            x = unit(x, mask)
        return x if self.whole is None else self.whole(x, mask)
