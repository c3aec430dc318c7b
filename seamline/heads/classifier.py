"""Patch-aware image classifier: one logit for the window, one per patch, and their fusion.

Source: Loupe (Jiang et al., 2025, arXiv:2506.16819), equations 1 and 2. What differs: :class:`QuantileFusion`, which
reads order statistics of the patch logits, not one learned weight per patch position, and so is not tied to a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..encoders import Features


class Scores(NamedTuple):
    """Logits of forgery."""

    fused: Tensor  # (B,) of the window
    whole: Tensor  # (B,) from the pooled feature alone
    patches: Tensor | None  # (B, h, w), None without a patch head


class LinearFusion(nn.Module):
    """One weight for the window's own logit and one for every patch position; no bias.

    Starts as the plain mean of all 1 + N logits. Tied to its number of patches.
    """

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1 + patches,), 1 / (1 + patches)))

    def forward(self, whole: Tensor, patches: Tensor) -> Tensor:
        """(B,) and (B, N) to (B,)."""
        return torch.cat([whole[:, None], patches], 1) @ self.weight


class QuantileFusion(nn.Module):
    """``w_0 g + w_1 mean(q) + sum_k w_k Q_k(q) + b`` with Q_k the quantiles of all patch logits.

    Takes any number of patches, of one window or of a whole photo. Starts with half its weight on the window's own
    logit and half on the patches, most of that on the upper quantiles: a forgery is usually a small part.
    """

    def __init__(self, quantiles: Sequence[float] = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 1.0)) -> None:
        super().__init__()
        if not all(0 <= q <= 1 for q in quantiles):
            raise ValueError(f"quantiles must lie in [0, 1], got {tuple(quantiles)}")
        self.quantiles = tuple(quantiles)
        start = torch.tensor([0.5, 0.1] + [q**20 for q in quantiles])
        start[2:] *= 0.4 / start[2:].sum()
        self.weight = nn.Parameter(start)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, whole: Tensor, patches: Tensor) -> Tensor:
        """(B,) and (B, N), any N >= 1, to (B,); in single precision at least: half of it can't count 1 024."""
        kind = torch.promote_types(patches.dtype, torch.float32)
        whole, patches = whole.to(kind), patches.to(kind)
        ordered = patches.sort(1).values
        at = torch.tensor(self.quantiles, device=patches.device, dtype=patches.dtype) * (patches.shape[1] - 1)
        low = at.floor()
        step = at - low
        below, above = ordered[:, low.long()], ordered[:, at.ceil().long()]  # (B, K)
        parts = torch.cat([whole[:, None], patches.mean(1, keepdim=True), below + step * (above - below)], 1)
        return (parts * self.weight).sum(1) + self.bias


class PatchAwareClassifier(nn.Module):
    """Two equal MLPs, one over the pooled feature and one shared by all patches, and a fusion of their logits.

    Args:
        width: channels of the features.
        hidden: width of the hidden layer of both MLPs.
        patches: whether there is a patch head at all; without one the window's own logit is the score.
        fusion: :class:`LinearFusion`, :class:`QuantileFusion`, or ``None`` to score by the window's own logit and use
            the patch head for its loss only.
    """

    def __init__(self, width: int, hidden: int, *, patches: bool = True, fusion: nn.Module | None = None) -> None:
        super().__init__()
        self.whole = self._mlp(width, hidden)
        self.patches = self._mlp(width, hidden) if patches else None
        self.fusion = fusion if patches else None

    @staticmethod
    def _mlp(width: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, features: Features) -> Scores:
        """Features with grid (B, W, h, w) and pooled (B, W) to logits."""
        whole = self.whole(features.pooled)[:, 0]
        if self.patches is None:
            return Scores(whole, whole, None)
        patches = self.patches(features.grid.permute(0, 2, 3, 1))[..., 0]
        return Scores(self.fuse(whole, patches.flatten(1)), whole, patches)

    def fuse(self, whole: Tensor, patches: Tensor) -> Tensor:
        """(B,) and (B, N) logits to the score's logit (B,)."""
        if self.fusion is None:
            return whole
        fused: Tensor = self.fusion(whole, patches)
        return fused
