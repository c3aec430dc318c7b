"""Feature encoders: tensors in, features out; one file per modality or kind of trace."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["Features"]


class Features(NamedTuple):
    """What every image encoder returns, with W its width and h x w its grid."""

    grid: Tensor  # (B, W, h, w) one feature per patch
    pooled: Tensor  # (B, W) one feature per window
