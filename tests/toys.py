"""Detectors whose answer is known beforehand: red pixels of a photo, and fixed spans of a clip, are forged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from seamline import zoo
from seamline.detectors.base import (
    ClipDetector,
    ClipFinding,
    ClipTruth,
    ClipWindow,
    Clock,
    Finding,
    ImageDetector,
    Windowing,
)
from seamline.report import OperatingPoint

POINT = OperatingPoint(
    0.7, false_alarms=0.03, low=0.01, high=0.06, detected=0.4, missed=0.35, authentic=200, forged=300
)
CARD = zoo.Card("toy", "toy", threshold=0.7, sha256="5" * 64, segment_threshold=0.5)
SPANS = {"video": [(0.9, 35, 60)], "audio": [(0.8, 87, 104)]}  # score, first tick, tick after the last


@dataclass(frozen=True)
class Sizes:
    side: int = 96


class Red(ImageDetector):
    """The heat of a pixel is its red channel, the probability of a photo that of its reddest pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.loss_weights = Sizes(), {}
        self.windowing = Windowing(side=96, overlap=32)

    def preprocess(self, rgb: npt.NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1) / 255

    def targets(self, masks: Any) -> Any:
        raise NotImplementedError

    def criterion(self, outputs: Any, targets: Any, generator: torch.Generator | None = None) -> dict[str, Any]:
        raise NotImplementedError

    def forward(self, pixels: torch.Tensor, targets: Any = None) -> Any:
        return pixels[:, 0]

    def postprocess(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Finding]:
        return [Finding(float(red.max()) * 10 - 5, red.clone(), {"peak": red.max()}) for red in outputs]

    def combine(self, findings: Sequence[Finding]) -> float:
        return max(float(finding.evidence["peak"]) for finding in findings) * 10 - 5


class Spans(ClipDetector):
    """Every window is forged in ``SPANS``, with a face or without."""

    parts = {}  # noqa: RUF012  a ClassVar

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.loss_weights, self.clock = Sizes(), {}, Clock(512, 128)

    def preprocess(self, window: ClipWindow) -> Any:
        return window

    def collate(self, inputs: Sequence[Any]) -> Any:
        return torch.zeros(len(inputs))

    def targets(self, truths: Sequence[ClipTruth], ticks: Sequence[int]) -> Any:
        raise NotImplementedError

    def criterion(self, outputs: Any, targets: Any, generator: torch.Generator | None = None) -> dict[str, Any]:
        raise NotImplementedError

    def forward(self, batch: Any, targets: Any = None) -> Any:
        return batch

    def postprocess(self, outputs: Any, ticks: Sequence[int]) -> list[ClipFinding]:
        return [self.found(n) for n in ticks]

    def found(self, ticks: int) -> ClipFinding:
        curves, proposals = {}, {}
        for key in ("video", "audio", "audio_visual"):
            spans = [(score, a, min(b, ticks)) for score, a, b in SPANS.get(key, ()) if a < ticks]
            curve = 0.1 + 0.05 * torch.sin(torch.arange(ticks) / 5)
            for score, a, b in spans:
                curve[a:b] = score
            curves[key], proposals[key] = curve, np.array(spans, np.float64).reshape(-1, 3)
        return ClipFinding({"video": 2.0, "audio": 1.5, "audio_visual": 2.2}, curves, proposals)
