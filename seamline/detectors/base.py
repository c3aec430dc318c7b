"""The contract between a detector and the rest of the house.

A detector sees one window of pixels and never knows where its weights came from, how large the photo was, or
whether it is being trained. ``pipeline.py`` cuts windows and merges findings; ``train.py`` sums losses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Windowing:
    """How a photo becomes windows.

    ``whole``: one window, the photo squashed to ``side`` x ``side`` by the detector's ``preprocess``.
    Otherwise native tiles of at most ``side`` pixels, origins on the ``align`` grid (8 = the JPEG grid),
    neighbours sharing ``overlap`` pixels, padded by reflection to a multiple of ``multiple``.
    """

    side: int
    whole: bool = False
    overlap: int = 0
    align: int = 8
    multiple: int = 32


class Finding(NamedTuple):
    """What a detector says about one window."""

    logit: float  # of forgery, whole window
    heatmap: Tensor  # (H, W) float32 in [0, 1], probability of forgery of each pixel of the window
    evidence: dict[str, Tensor]  # whatever combine() needs to score a photo from all its windows


class ImageDetector(nn.Module, ABC):
    """Network, targets, criterion and post-processing of one image detector."""

    modality: ClassVar[str] = "image"
    sizes: Any  # a frozen dataclass of plain values, saved beside the tensors
    windowing: Windowing
    loss_weights: dict[str, float]  # weight of every name that criterion() returns

    @abstractmethod
    def preprocess(self, rgb: npt.NDArray[np.uint8]) -> Tensor:
        """One window (H, W, 3) uint8 RGB to the network's input (3, h, w) float32."""

    @abstractmethod
    def targets(self, masks: Sequence[npt.NDArray[np.floating[Any]] | None]) -> Any:
        """Truth of a batch to training targets (a NamedTuple of tensors).

        Each item is ``None`` for an authentic window, else (H, W) float in [0, 1], 1 = forged.
        """

    @abstractmethod
    def forward(self, pixels: Tensor, targets: Any = None) -> Any:
        """(B, 3, h, w) to the detector's typed outputs; ``targets`` only where training conditions on them."""

    @abstractmethod
    def criterion(self, outputs: Any, targets: Any, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Raw, named, unweighted scalar losses."""

    @abstractmethod
    def postprocess(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Finding]:
        """Outputs of a batch to one finding per window, heat maps at the given (H, W)."""

    @abstractmethod
    def combine(self, findings: Sequence[Finding]) -> float:
        """The logit of a whole photo from the findings of all its windows."""

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """AdamW groups: matrices decay; biases, norms and embeddings do not. Frozen parameters are left out."""
        kept = [(n, p) for n, p in self.named_parameters() if p.requires_grad]
        decayed = [p for n, p in kept if p.ndim >= 2]
        plain = [p for n, p in kept if p.ndim < 2]
        groups = [
            {"params": decayed, "lr": lr, "weight_decay": weight_decay},
            {"params": plain, "lr": lr, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]
