"""The contract between a detector and the rest of the house.

A detector sees one window, of pixels or of time, and never knows where its weights came from, how large the photo or
how long the clip was, or whether it is being trained. ``pipeline.py`` cuts windows and merges findings; ``train.py``
sums losses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..windows import ClipTruth as ClipTruth
from ..windows import ClipWindow as ClipWindow
from ..windows import Clock as Clock


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


class ClipFinding(NamedTuple):
    """What a detector says about one window, by modality: ``video``, ``audio`` and ``audio_visual`` (both together).

    A modality that was not given has no entry.
    """

    logits: dict[str, float]  # of forgery, whole window
    curves: dict[str, Tensor]  # (n,) float32 in [0, 1], probability of forgery of each tick
    proposals: dict[str, npt.NDArray[np.float64]]  # (k, 3) score in [0, 1], start, end in ticks; ranked, suppressed


class Detector(nn.Module, ABC):
    """What detectors of every medium share: sizes that travel with the weights, and parts that can be frozen."""

    modality: ClassVar[str]
    sizes: Any  # a frozen dataclass of plain values, saved beside the tensors
    loss_weights: dict[str, float]  # weight of every name that criterion() returns
    parts: Mapping[str, str]  # parts that can be frozen: the field's name -> the child module

    def __init__(self) -> None:
        """Nothing is frozen."""
        super().__init__()
        self.frozen: set[str] = set()

    @abstractmethod
    def criterion(self, outputs: Any, targets: Any, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Raw, named, unweighted scalar losses."""

    def part(self, name: str) -> nn.Module:
        """A part, or a module inside one: ``video``, ``video.encoder``.

        Raises:
            ValueError: the detector has none of that name.
        """
        outer, _, inner = name.partition(".")
        try:
            return self.get_submodule(f"{self.parts[outer]}.{inner}".rstrip("."))
        except (KeyError, AttributeError):
            known = ", ".join(self.parts)
            raise ValueError(f"{type(self).__name__} has no part {name!r}; it has {known}") from None

    def freeze(self, *parts: str) -> None:
        """Stop the training of these parts: no gradients, no running statistics, until :meth:`thaw`.

        Raises:
            ValueError: the detector has no such part.
        """
        for name in parts:
            self.part(name).requires_grad_(False).eval()
            self.frozen.add(name)

    def thaw(self) -> None:
        """Let everything learn again."""
        self.frozen.clear()
        self.requires_grad_(True).train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.part(name).eval()
        return self

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay acts on a parameter: on matrices and kernels, not on biases and norms."""
        return parameter.ndim >= 2

    def parameter_groups(
        self, lr: float, weight_decay: float, *, backbone_lr: float | None = None
    ) -> list[dict[str, Any]]:
        """AdamW groups by :meth:`decays`, the backbone at its own rate if one is given; frozen parameters left out."""
        backbone = self.parts.get("backbone", "") + "."
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                key = name.startswith(backbone), self.decays(name, parameter)
                groups.setdefault(key, []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": backbone_lr if within and backbone_lr is not None else lr,
                "weight_decay": weight_decay if decays else 0.0,
            }
            for (within, decays), parameters in groups.items()
        ]


class ImageDetector(Detector):
    """Network, targets, criterion and post-processing of one image detector."""

    modality: ClassVar[str] = "image"
    windowing: Windowing

    @abstractmethod
    def preprocess(self, rgb: npt.NDArray[np.uint8]) -> Tensor:
        """One window (H, W, 3) uint8 RGB to the network's input (3, h, w) float32."""

    def lead(self, rgb: npt.NDArray[np.uint8]) -> tuple[int, int] | None:
        """Rows and columns to put before a photo (H, W, 3), that its native windows lie as the detector wants them.

        ``None``: it wants none, and the photo lacks the traces that would say, as one does that was made smaller.
        """
        return 0, 0

    @abstractmethod
    def targets(self, masks: Sequence[npt.NDArray[np.floating[Any]] | None]) -> Any:
        """Truth of a batch to training targets (a NamedTuple of tensors).

        Each item is ``None`` for an authentic window, else (H, W) float in [0, 1], 1 = forged.
        """

    @abstractmethod
    def forward(self, pixels: Tensor, targets: Any = None) -> Any:
        """(B, 3, h, w) to the detector's typed outputs; ``targets`` only where training conditions on them."""

    @abstractmethod
    def postprocess(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Finding]:
        """Outputs of a batch to one finding per window, heat maps at the given (H, W)."""

    @abstractmethod
    def combine(self, findings: Sequence[Finding]) -> float:
        """The logit of a whole photo from the findings of all its windows.

        Of their heat maps only the sizes may be read: the pipeline has merged and emptied them by then.
        """


class ClipDetector(Detector):
    """Network, targets, criterion and post-processing of one audio-visual detector."""

    modality: ClassVar[str] = "audio_visual"
    clock: Clock
    uses: frozenset[str] = frozenset({"video", "audio"})  # the modalities it can judge; "pace" where it looks at that

    def silent(self, given: Collection[str]) -> set[str]:
        """Losses that say nothing where only the ``given`` modalities are, with the parts that are frozen now."""
        return set()

    @abstractmethod
    def preprocess(self, window: ClipWindow) -> Any:
        """One window to the network's input (a NamedTuple of tensors without a batch axis)."""

    @abstractmethod
    def collate(self, inputs: Sequence[Any]) -> Any:
        """Inputs of several windows to one batch, padded to a common length; what is padding or absent is masked."""

    @abstractmethod
    def targets(self, truths: Sequence[ClipTruth], ticks: Sequence[int]) -> Any:
        """Truth of a batch of windows of ``ticks`` ticks to training targets (a NamedTuple of tensors)."""

    @abstractmethod
    def forward(self, batch: Any, targets: Any = None) -> Any:
        """A collated batch to the detector's typed outputs; ``targets`` only where training conditions on them."""

    @abstractmethod
    def postprocess(self, outputs: Any, ticks: Sequence[int]) -> list[ClipFinding]:
        """Outputs of a batch to one finding per window, of its ``ticks`` ticks."""
