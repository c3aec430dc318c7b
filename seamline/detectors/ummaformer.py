"""UMMAFormer: forged spans as what the features of an authentic clip cannot explain.

Source: UMMAFormer (Zhang et al., ACM MM 2023, arXiv:2308.14395), configuration LAV-DF with TSN and BYOL-A features;
built on ActionFormer (Zhang et al., ECCV 2022). Read top to bottom with the paper in hand: sizes, what is exchanged,
backbone, heads, detector (input, network, criterion, post-processing, weights), builder.

It reads features that other networks stored, through :meth:`UMMAFormer.prepare`; with ``UMMAFormerSizes.encoders`` it
reads face crops and sound itself, through encoders that are trained with it. The latter is ours: one tick of the clock
is one cell of the grid, every modality's features are normalised over channels (an encoder must not please the
reconstruction by shrinking them), and an absent modality is zero after that. The two modalities are one signal from the
first layer on, so there is one answer for both.

``sizes.reference()`` reproduces the released code to the digit. The default corrects its defects, each by a switch of
its own: see :class:`Corrections`.

Recipe of the released weights: AdamW (0.9, 0.999), :func:`learning_rate` from 1e-3 per device, decay 0.05 by
:meth:`UMMAFormer.decays`, gradients clipped to norm 1, batches of 32 without the incomplete last one, float32; 15
epochs, of which 5 warm up. The moving average of all weights (0.999 a step) is what is evaluated.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..encoders.audio import BANDS, FRAMES, AudioCNN, LogMel
from ..encoders.perception import check_fit
from ..encoders.video import C3D, SIDE, resize_frames
from ..errors import WeightsError
from ..heads.context import (
    BlockOptions,
    ChannelNorm,
    CrossBlock,
    CrossPyramid,
    MaskedConv1d,
    PyramidNeck,
    Reconstruction,
    SelfBlock,
    channel_norm,
)
from ..heads.proposals import gaussian_nms_voting
from ..losses import poly1_focal
from .base import ClipDetector, ClipFinding, ClipTruth, ClipWindow, Clock

Spans = Sequence[Sequence[float]]  # (start, end) pairs

# ----------------------------------------------------------------------------------------------------------- sizes


@dataclass(frozen=True)
class Corrections:
    """Which defects of the released code are put right; the numbers are those of the project's list of findings.

    What is no switch: the slow evaluation (U8); see ``metrics/temporal.py``.
    """

    flow: bool = True  # U1: flow rows that are not as many as RGB rows are stretched, not cut or wrapped to the start
    linear: bool = True  # U2: the reconstruction's last layer is linear; its mean and scale are not fixed by a norm
    masked: bool = True  # U2: norms and pools of the reconstruction branch see no padding and leave it zero
    passes: bool = True  # U3: the features are not embedded a third time for nothing
    dead_block: bool = True  # U4: the last block of the short stream, computed and never used or trained, is not there
    negatives: bool = True  # U5: all cells of real clips are negatives; released: nothing punishes a false alarm
    batches: bool = True  # U6: a batch without a real clip has no nan loss, one without a forged clip no error
    length: bool = (
        True  # U7: grids of any length; released: all levels are multiples of 6, of which only some is checked
    )
    overlap: bool = True  # U9: soft-NMS leaves proposals alone that overlap less than ``nms_iou``, as it is told to
    crop: bool = True  # no number: real clips are cropped in training too; released: padding there says "forged"

    @classmethod
    def none(cls) -> Self:
        """Everything as released."""
        return cls(**dict.fromkeys((f.name for f in dataclasses.fields(cls)), False))


@dataclass(frozen=True)
class UMMAFormerSizes:
    """Everything that decides the network, its targets and its losses: plain values, saved beside the tensors."""

    visual: int = 4096  # channels of the visual features, rgb then flow; 0: none
    audio: int = 2048  # channels of the sound's features; 0: none
    grid: int = 768  # cells T that clips are stretched to; with encoders, ticks of the longest window
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)  # "video": of C3D, "audio": of AudioCNN; or empty
    clock: Clock | None = None  # with encoders
    corrections: Corrections = Corrections()

    width: int = 256  # of the backbone, C
    neck: int = 256  # of pyramid and heads
    heads: int = 4
    window: int = 7  # cells of an attention, at every level but the coarsest step, which is global
    stem: int = 2  # blocks before the pyramid
    reconstruction: tuple[int, ...] = (256, 512, 1024, 2048)  # widths between features and bottleneck
    scale: float = 1e-4  # initial, of residual branches
    drop_path: float = 0.1
    dropout: float = 0.5  # of the classifier of the whole clip

    ranges: tuple[tuple[float, float], ...] = ((0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10000))  # cells
    radius: float = 1.5  # of centre sampling, in cells of the level
    smoothing: float = 0.1
    prior: float = 0.01  # initial probability of a positive
    normaliser: float = 200.0  # initial running number of positives per batch
    loss_weights: dict[str, float] = field(
        default_factory=lambda: {"cls": 1.0, "reg": 2.0, "reco": 1.0, "vid": 0.1},
    )

    min_score: float = 0.001  # of a proposal, before and during suppression
    per_level: int = 2000  # proposals that enter suppression
    shortest: float = 0.001  # proposal, in cells
    nms_sigma: float = 0.75
    nms_iou: float = 0.1  # proposals that overlap less leave each other's score alone (only with corrections.overlap)
    vote_iou: float = 0.9
    keep: int = 100  # proposals of a clip

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        object.__setattr__(self, "reconstruction", tuple(self.reconstruction))
        object.__setattr__(self, "ranges", tuple((low, high) for low, high in self.ranges))
        if set(self.encoders) not in (set(), {"video", "audio"}):
            raise ValueError(
                f"UMMAFormerSizes.encoders has {sorted(self.encoders)}; either video and audio, or neither"
            )
        if self.encoders and (self.clock is None or self.clock.ticks > self.grid):
            raise ValueError(
                "UMMAFormerSizes with encoders needs a clock of at most as many ticks as its grid has cells"
            )
        if self.visual + self.audio <= 0:
            raise ValueError("UMMAFormerSizes needs visual or audio features")
        if not self.corrections.length and self.grid % self.padding:
            raise ValueError(f"UMMAFormerSizes.grid is {self.grid}, not a multiple of {self.padding}")

    @property
    def levels(self) -> int:
        """Levels of the pyramid; level l has a stride of 2^l cells."""
        return len(self.ranges)

    @property
    def padding(self) -> int:
        """What the released code pads longer clips to a multiple of."""
        return self.window // 2 << self.levels - 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ranges = [list(pair) for pair in self.ranges]
        return dataclasses.asdict(self) | {"reconstruction": list(self.reconstruction), "ranges": ranges}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read :meth:`to_dict` back.

        Raises:
            ValueError: a key is unknown.
        """
        try:
            clock, corrections = data.get("clock"), Corrections(**data.get("corrections", {}))
            return cls(**data | {"clock": None if clock is None else Clock(**clock), "corrections": corrections})
        except TypeError as cause:
            raise ValueError(f"not the sizes of a UMMAFormer: {cause}") from cause

    def reference(self) -> Self:
        """The same sizes with everything as the released code has it."""
        return dataclasses.replace(self, corrections=Corrections.none())


# ------------------------------------------------------------------------------- what network and criterion exchange


class FeatureItem(NamedTuple):
    """Stored features of one clip on the grid, and its truth."""

    features: Tensor  # (visual + audio, T)
    segments: Tensor | None  # (n, 2) forged spans in cells, of which cell k spans [k - 0.5, k + 0.5); None: real
    stride: float  # frames per cell
    fps: float
    duration: float  # seconds


class FeatureBatch(NamedTuple):
    """Features of a batch, zero where they are padding."""

    features: Tensor  # (B, visual + audio, T)
    mask: Tensor  # (B, 1, T) bool


class ClipInput(NamedTuple):
    """One window of n ticks; a modality that is absent is zero."""

    video: Tensor  # (3, n, S, S) in [0, 1]
    mel: Tensor  # (64, 4 n) log-mel spectrogram
    there: Tensor  # (2, n) bool: a face was seen; there is sound


class ClipBatch(NamedTuple):
    """Windows padded to the longest."""

    video: Tensor  # (B, 3, N, S, S)
    mel: Tensor  # (B, 64, 4 N)
    there: Tensor  # (B, 2, N) bool
    mask: Tensor  # (B, 1, N) bool, false in padding


class UMMAFormerOutputs(NamedTuple):
    """Everything the network says. P cells are those of all levels, the finest level first."""

    logits: Tensor  # (B, P) that the cell is the middle of a forged span
    offsets: Tensor  # (B, P, 2) distances to its start and end, in strides of the level, >= 0
    there: Tensor  # (B, P) bool, false in padding
    video: Tensor  # (B,) logit that anything is forged
    features: Tensor  # (B, C, T) what was to be reconstructed
    reconstruction: Tensor  # (B, C, T)
    mask: Tensor  # (B, 1, T) bool
    given: Tensor  # (B, 2) bool: there was video, audio


class UMMAFormerTargets(NamedTuple):
    """Truth of a batch."""

    forged: Tensor  # (B,) bool
    segments: Tensor  # (B, G, 2) in cells; after those of the clip, zeros, which no point is inside of


# -------------------------------------------------------------------------------------------------------- backbone


class Backbone(CrossPyramid):
    """Embedding, temporal feature abnormal attention, stem, parallel cross-attention pyramid."""

    positions: Tensor

    def __init__(self, inputs: int, sizes: UMMAFormerSizes) -> None:
        width, steps = sizes.width, sizes.levels - 1
        options: BlockOptions = {"window": sizes.window, "drop_path": sizes.drop_path, "scale": sizes.scale}
        windows = [sizes.window] * (steps - 1) + [0]
        super().__init__(width, sizes.heads, windows, dead_block=not sizes.corrections.dead_block, **options)
        self.unused_pass = not sizes.corrections.passes
        self.embd = nn.ModuleList(MaskedConv1d(n, width, 3, bias=False) for n in (inputs, width))
        self.embd_norm = nn.ModuleList(ChannelNorm(width) for _ in range(2))
        self.resselfattention = CrossBlock(width, sizes.heads, **options)  # TFAA
        self.stem = nn.ModuleList(SelfBlock(width, sizes.heads, **options) for _ in range(sizes.stem))
        self.register_buffer("positions", sinusoids(sizes.grid, width) / math.sqrt(width), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Conv1d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def embed(self, x: Tensor, mask: Tensor) -> Tensor:
        """Features (B, visual + audio, T) to (B, C, T) with positions."""
        for conv, norm in zip(self.embd, self.embd_norm, strict=True):
            x = F.relu(norm(conv(x, mask)))
        length = x.shape[-1]
        table = self.positions[..., :length]
        if length > table.shape[-1]:
            table = F.interpolate(table, length, mode="linear", align_corners=False)
        return x + table.to(x.dtype) * mask

    def forward(  # type: ignore[override]
        self, x: Tensor, reconstruction: Tensor, mask: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Features and their reconstruction (B, visual + audio, T) to levels (B, C, T / 2^l) and their masks."""
        if self.unused_pass:
            self.embed(x, mask)
        seen = self.embed(x, mask)
        y = self.resselfattention(seen, self.embed(reconstruction, mask), seen, mask)
        for block in self.stem:
            y = block(y, mask)
        return super().forward(y, mask)


def sinusoids(length: int, width: int) -> Tensor:
    """Positions (1, C, T): sine in even channels, cosine in odd ones, wavelengths from 2 pi to 20 000 pi."""
    pair = torch.arange(width, dtype=torch.float64) // 2
    angle = torch.arange(length, dtype=torch.float64) / 10000 ** (2 * pair / width)[:, None]
    even = torch.arange(width)[:, None] % 2 == 0
    return torch.where(even, angle.sin(), angle.cos()).float()[None]


# ----------------------------------------------------------------------------------------------------------- heads


class _Head(nn.Module):
    """Two convolutions that all levels share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.ModuleList(MaskedConv1d(width, width, 3, bias=False) for _ in range(2))
        self.norm = nn.ModuleList(ChannelNorm(width) for _ in range(2))

    def trunk(self, x: Tensor, mask: Tensor) -> Tensor:
        for conv, norm in zip(self.head, self.norm, strict=True):
            x = F.relu(norm(conv(x, mask)))
        return x


class MiddleHead(_Head):
    """The logit that a cell is the middle of a forged span; starts at the probability ``prior``."""

    def __init__(self, width: int, prior: float) -> None:
        super().__init__(width)
        self.cls_head = MaskedConv1d(width, 1, 3)
        nn.init.constant_(self.cls_head.conv.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        """(B, F, T_l) to (B, T_l) per level."""
        return [self.cls_head(self.trunk(x, m), m)[:, 0] for x, m in zip(levels, masks, strict=True)]


class _Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))


class OffsetHead(_Head):
    """Distances to start and end of the span, in strides of the level, with a learned scale per level."""

    def __init__(self, width: int, levels: int) -> None:
        super().__init__(width)
        self.scale = nn.ModuleList(_Scale() for _ in range(levels))
        self.offset_head = MaskedConv1d(width, 2, 3)

    def forward(self, levels: Sequence[Tensor], masks: Sequence[Tensor]) -> list[Tensor]:
        """(B, F, T_l) to (B, T_l, 2) per level."""
        parts = zip(self.scale, levels, masks, strict=True)
        return [F.relu(s.scale * self.offset_head(self.trunk(x, m), m)).transpose(1, 2) for s, x, m in parts]


# -------------------------------------------------------------------------------------------------------- detector


class UMMAFormer(ClipDetector):
    """Reconstruction branch, backbone, neck, heads; and encoders, if the sizes have any."""

    parts = {  # noqa: RUF012  a ClassVar
        "encoders": "encoders",
        "interpolator": "interpolator",
        "backbone": "backbone",
        "neck": "neck",
        "classifier": "cls_head",
        "regressor": "reg_head",
    }

    sizes: UMMAFormerSizes
    normaliser: Tensor

    def __init__(self, sizes: UMMAFormerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.clock = sizes.clock or Clock(sizes.grid)
        self.loss_weights = dict(sizes.loss_weights)
        inputs = sizes.visual + sizes.audio
        self.encoders = nn.ModuleDict()
        if sizes.encoders:
            audio = AudioCNN(**sizes.encoders["audio"])
            if audio.width != sizes.audio:
                raise ValueError(
                    f"UMMAFormerSizes.audio is {sizes.audio}, but the encoder gives {audio.width} channels"
                )
            self.encoders.update({"video": C3D(sizes.visual, **sizes.encoders["video"]), "audio": audio})
        self.interpolator = Reconstruction(
            inputs,
            sizes.width,
            sizes.reconstruction,
            linear=sizes.corrections.linear,
            masked=sizes.corrections.masked,
            dropout=sizes.dropout,
        )
        self.backbone = Backbone(inputs, sizes)
        self.neck = PyramidNeck(sizes.width, sizes.neck, sizes.levels)
        self.cls_head = MiddleHead(sizes.neck, sizes.prior)
        self.reg_head = OffsetHead(sizes.neck, sizes.levels)
        self.register_buffer("normaliser", torch.tensor(sizes.normaliser))  # the released code forgets it on resuming

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Weights of convolutions and linear layers; neither biases, nor norms, nor scales."""
        module, _, leaf = name.rpartition(".")
        kernels = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d)
        return leaf == "weight" and isinstance(self.get_submodule(module), kernels)

    # ------------------------------------------------------------------------------------------------------ input

    def prepare(
        self,
        rgb: npt.NDArray[np.floating[Any]] | None = None,
        flow: npt.NDArray[np.floating[Any]] | None = None,
        audio: npt.NDArray[np.floating[Any]] | None = None,
        *,
        duration: float,
        frames: int | None = None,
        segments: Spans | None = None,
    ) -> FeatureItem:
        """Stored features of one clip, stretched to the grid.

        Args:
            rgb: (L, .) one row per frame.
            flow: (L', .) one row per frame.
            audio: (n, .) rows evenly spread over the clip.
            duration: of the clip, seconds.
            frames: of the clip; ``None``: as many as the first array has rows.
            segments: forged spans in seconds; ``None`` or empty: a real clip.

        Raises:
            ValueError: nothing was given, an array is empty, or the channels are not those of the sizes.
        """
        given = [np.asarray(rows, np.float32) for rows in (rgb, flow, audio) if rows is not None]
        if not given or any(rows.ndim != 2 or not len(rows) for rows in given) or duration <= 0:
            raise ValueError("features are arrays of at least one row each, of a clip that lasts more than 0 s")
        if rgb is not None and flow is not None and not self.sizes.corrections.flow:
            given[1] = np.resize(given[1], (len(given[0]), given[1].shape[1]))
        made = [F.interpolate(torch.from_numpy(rows).T[None], self.sizes.grid, mode="linear")[0] for rows in given]
        features = torch.cat(made)
        if len(features) != self.sizes.visual + self.sizes.audio:
            expected = f"{self.sizes.visual} visual and {self.sizes.audio} of sound"
            raise ValueError(f"features have {len(features)} channels; this detector expects {expected}")
        rows, fps = len(given[0]), (frames or len(given[0])) / duration
        stride = rows / self.sizes.grid
        spans = None
        if segments is not None and len(segments):
            spans = torch.tensor(np.asarray(segments), dtype=torch.float32) * fps / stride - 0.5
        return FeatureItem(features, spans, stride, fps, duration)

    def crop(self, item: FeatureItem, rng: np.random.Generator) -> FeatureItem:
        """Augmentation: 90 to 100 % of a clip, from anywhere, that still holds half of some forged span.

        Spans are cut to what is seen, and dropped if that is less than half of them. If 200 draws fail, or a real clip
        is given and ``corrections.crop`` is off, the clip stays whole.
        """
        whole = item.features.shape[1]
        spans = None if item.segments is None else _inside(item.segments, -math.inf, whole + 0.5)
        item = item._replace(segments=spans)
        length = int(rng.integers(round(0.9 * whole), whole, endpoint=True))
        if length == whole or (spans is None and not self.sizes.corrections.crop):
            return item
        for _ in range(200):
            start = int(rng.integers(0, whole - length, endpoint=True))
            kept = None if spans is None else _inside(spans, start - 0.5, start + length + 0.5)
            if kept is None or len(kept):
                shifted = None if kept is None else kept - start
                return item._replace(features=item.features[:, start : start + length], segments=shifted)
        return item

    def preprocess(self, window: ClipWindow) -> ClipInput:
        """A window of a clip to face crops in [0, 1] and a log-mel spectrogram.

        Raises:
            ValueError: this detector has no encoders: it reads stored features, see :meth:`prepare`.
        """
        if not self.encoders:
            raise ValueError("this UMMAFormer reads stored features (prepare); it has no encoders for clips")
        n, clock = window.ticks, self.clock
        video, mel = torch.zeros(3, n, SIDE, SIDE), torch.zeros(BANDS, FRAMES * n)
        there = torch.zeros(2, n, dtype=torch.bool)
        if window.faces is not None:
            frames = torch.tensor(window.faces).permute(0, 3, 1, 2).float() / 255
            video = resize_frames(frames).transpose(0, 1)
            there[0] = True if window.seen is None else torch.tensor(window.seen)
        if window.sound is not None:
            sound = torch.tensor(window.sound, dtype=torch.float32)
            mel = log_mel(clock.rate)(F.pad(sound, (0, round(n * clock.rate / clock.fps) - len(sound))))
            there[1] = True
        return ClipInput(video, mel, there)

    def collate(self, inputs: Sequence[FeatureItem] | Sequence[ClipInput]) -> FeatureBatch | ClipBatch:
        """Items of :meth:`prepare`, or of :meth:`preprocess`, to a batch.

        Features are padded to the grid; of longer ones to the longest (in reference mode to the next multiple of
        ``UMMAFormerSizes.padding``).
        """
        if isinstance(inputs[0], FeatureItem):
            items = cast("Sequence[FeatureItem]", inputs)
            lengths = [item.features.shape[1] for item in items]
            total = self._length(max(lengths))
            features = torch.stack(
                [F.pad(item.features, (0, total - n)) for item, n in zip(items, lengths, strict=True)]
            )
            return FeatureBatch(features, _prefixes(lengths, total))
        clips = cast("Sequence[ClipInput]", inputs)
        lengths = [clip.there.shape[1] for clip in clips]
        total = max(lengths)
        gaps = [(clip, total - n) for clip, n in zip(clips, lengths, strict=True)]
        return ClipBatch(
            torch.stack([F.pad(clip.video, (0, 0, 0, 0, 0, gap)) for clip, gap in gaps]),
            torch.stack([F.pad(clip.mel, (0, FRAMES * gap)) for clip, gap in gaps]),
            torch.stack([F.pad(clip.there, (0, gap)) for clip, gap in gaps]),
            _prefixes(lengths, total),
        )

    def _length(self, longest: int) -> int:
        """Cells that a batch is padded to."""
        if longest <= self.sizes.grid:
            return self.sizes.grid
        return longest if self.sizes.corrections.length else -(-longest // self.sizes.padding) * self.sizes.padding

    def targets(self, truths: Sequence[ClipTruth], ticks: Sequence[int]) -> UMMAFormerTargets:
        """Truth of windows; the spans of both modalities count alike, those that touch as one."""
        spans = [_joined([*truth.video, *truth.audio]) for truth in truths]
        return _targets([torch.tensor(one) - 0.5 if one else None for one in spans])

    def feature_targets(self, items: Sequence[FeatureItem]) -> UMMAFormerTargets:
        """Truth of stored features."""
        return _targets([item.segments for item in items])

    # ---------------------------------------------------------------------------------------------------- network

    def forward(self, batch: FeatureBatch | ClipBatch, targets: Any = None) -> UMMAFormerOutputs:
        """A batch to outputs; targets are not looked at."""
        if isinstance(batch, ClipBatch):
            given = batch.there.any(-1)
            batch = self.encode(batch)
        else:
            given = torch.tensor([[self.sizes.visual > 0, self.sizes.audio > 0]]).expand(len(batch.features), -1)
        x, mask = batch
        self._check(x.shape[-1])
        rebuilt = self.interpolator(x, mask)
        levels, masks = self.backbone(x, rebuilt.signal, mask)
        levels = self.neck(levels, masks)
        return UMMAFormerOutputs(
            logits=torch.cat(self.cls_head(levels, masks), 1),
            offsets=torch.cat(self.reg_head(levels, masks), 1),
            there=torch.cat(masks, -1)[:, 0],
            video=rebuilt.logit,
            features=x,
            reconstruction=rebuilt.signal,
            mask=mask,
            given=given.to(x.device),
        )

    def encode(self, clips: ClipBatch) -> FeatureBatch:
        """Windows to features on the grid. Every window is encoded at its own length: padding cannot leak into it."""
        lengths = [int(n) for n in clips.mask.sum((1, 2))]
        whole = len(set(lengths)) == 1
        features = []
        for i, (name, raw, rate) in enumerate((("video", clips.video, 1), ("audio", clips.mel, FRAMES))):
            there = clips.there[:, i : i + 1]  # (B, 1, N)
            width = self.sizes.audio if i else self.sizes.visual
            if not there.any():
                features.append(clips.mel.new_zeros(len(lengths), width, there.shape[-1]))
                continue
            encoder = self.encoders[name]
            if whole:
                x = encoder(raw)
            else:
                parts = [encoder(raw[j : j + 1, :, : rate * n]) for j, n in enumerate(lengths)]
                x = torch.cat([F.pad(part, (0, there.shape[-1] - part.shape[-1])) for part in parts])
            features.append(channel_norm(x) * there)
        missing = self._length(max(lengths)) - clips.mask.shape[-1]
        return FeatureBatch(F.pad(torch.cat(features, 1), (0, missing)), F.pad(clips.mask, (0, missing)))

    def _check(self, length: int) -> None:
        """As released, an attention in a window takes only multiples of 6 cells."""
        if self.sizes.corrections.length:
            return
        lengths = [length // 2**level for level in range(self.sizes.levels)]
        if any(n % (self.sizes.window - 1) for n in lengths) or length % 2 ** (self.sizes.levels - 1):
            raise ValueError(f"levels of {lengths} cells are not all multiples of {self.sizes.window - 1}")

    # -------------------------------------------------------------------------------------------------- criterion

    def points(self, length: int) -> Tensor:
        """Of all cells of all levels, the finest level first: (P, 4) place, shortest and longest reach, stride."""
        rows = []
        for level, (low, high) in enumerate(self.sizes.ranges):
            place = torch.arange(0, length, 2**level, dtype=torch.float32)
            rest = torch.tensor([low, high, 2**level], dtype=torch.float32).expand(len(place), -1)
            rows.append(torch.cat([place[:, None], rest], 1))
        return torch.cat(rows)

    def assign(self, points: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
        """Which cells are to answer, and what.

        A cell answers for a span if it lies strictly inside it and its middle (``radius`` strides round its centre) and
        its farther end is within the level's reach; for the shortest such span, if there are several.

        Args:
            points: (P, 4) of :meth:`points`.
            segments: (B, G, 2) in cells.

        Returns:
            (B, P) bool, and (B, P, 2) distances to start and end in strides; arbitrary where there is no answer.
        """
        place, low, high, stride = (column[:, None] for column in points.unbind(1))  # (P, 1) each
        start, end = (ends[:, None] for ends in segments.unbind(2))  # (B, 1, G) each
        left, right = place - start, end - place  # (B, P, G)
        centre, reach = (start + end) / 2, self.sizes.radius * stride
        middle = (place > torch.maximum(centre - reach, start)) & (place < torch.minimum(centre + reach, end))
        far = torch.maximum(left, right)
        length = (end - start).expand_as(left).masked_fill(~(middle & (far >= low) & (far <= high)), math.inf)
        shortest, which = length.min(-1, keepdim=True)
        offsets = torch.stack([left.gather(-1, which)[..., 0], right.gather(-1, which)[..., 0]], -1)
        return shortest[..., 0].isfinite(), offsets / stride

    def criterion(
        self, outputs: UMMAFormerOutputs, targets: UMMAFormerTargets, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Raw, named losses: ``cls`` and ``reg`` of the cells, ``reco`` of real clips, ``vid`` of whole clips.

        In training it also updates the running number of positives, by which ``cls`` and ``reg`` are divided.

        Raises:
            RuntimeError: as released, a batch without a forged clip (``corrections.batches`` off).
        """
        sizes, right, forged = self.sizes, self.sizes.corrections, targets.forged
        if not (right.batches or forged.any()):
            raise RuntimeError("as released: a batch without a forged clip cannot be learned from")
        points = self.points(outputs.features.shape[-1]).to(outputs.logits.device)
        answers, offsets = self.assign(points, targets.segments)
        counted = outputs.there if right.negatives else outputs.there & forged[:, None]
        answers = answers & outputs.there & forged[:, None]
        if self.training:
            self.normaliser.lerp_(answers.sum().clamp(min=1).to(self.normaliser), 0.1)
        smooth = answers * (1 - sizes.smoothing) + sizes.smoothing / 2
        cells = poly1_focal(outputs.logits, smooth.to(outputs.logits), 0.25, epsilon=0.0)
        spans = offset_loss(outputs.offsets[answers], offsets[answers])
        whole = poly1_focal(outputs.video, forged.to(outputs.video), 0.25, epsilon=0.0)
        return {
            "cls": (cells * counted).sum() / self.normaliser,
            "reg": spans.sum() / self.normaliser,
            "reco": self._reconstruction_loss(outputs, forged),
            "vid": whole.sum(),
        }

    def _reconstruction_loss(self, outputs: UMMAFormerOutputs, forged: Tensor) -> Tensor:
        """Mean absolute error over all channels and cells of real clips; nan, as released, or 0 without any."""
        apart = (outputs.reconstruction - outputs.features.detach()).abs()[~forged]
        if self.sizes.corrections.masked:
            apart = apart.mean(1, keepdim=True)[outputs.mask[~forged]]
        return apart.sum() / max(apart.numel(), 1) if self.sizes.corrections.batches else apart.mean()

    # -------------------------------------------------------------------------------------------- post-processing

    @torch.no_grad()
    def candidates(self, outputs: UMMAFormerOutputs) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Of every clip, before suppression: (k, 2) spans in cells, and their (k,) scores, level by level."""
        sizes, length = self.sizes, outputs.features.shape[-1]
        points = self.points(length).to(outputs.logits.device)
        place, stride = points[:, :1], points[:, 3:]
        scores = (outputs.logits.float().sigmoid() * outputs.there).cpu()
        ends = outputs.offsets.float() * stride
        spans = torch.stack([place - ends[..., :1], place + ends[..., 1:]], -1)[..., 0, :].cpu()  # (B, P, 2)
        parts = [-(-length // 2**level) for level in range(sizes.levels)]
        found = []
        for row, score in zip(spans, scores, strict=True):
            chosen: list[tuple[Tensor, Tensor]] = []
            for s, p in zip(row.split(parts), score.split(parts), strict=True):
                best = p.sort(descending=True, stable=True).indices[: sizes.per_level]
                best = best[(p[best] > sizes.min_score) & (s[best, 1] - s[best, 0] > sizes.shortest)]
                chosen.append((s[best], p[best]))
            found.append((torch.cat([s for s, _ in chosen]).numpy(), torch.cat([p for _, p in chosen]).numpy()))
        return found

    def proposals(self, outputs: UMMAFormerOutputs) -> list[npt.NDArray[np.float64]]:
        """Of every clip, after soft-NMS and voting: (k, 3) score, start, end in cells, ranked."""
        sizes, ranked = self.sizes, []
        for spans, scores in self.candidates(outputs):
            rows = np.concatenate([scores[:, None], spans], 1)
            overlap = sizes.nms_iou if sizes.corrections.overlap else 0.0
            ranked.append(
                gaussian_nms_voting(rows, sizes.nms_sigma, sizes.min_score, sizes.keep, sizes.vote_iou, overlap)
            )
        return [rows.astype(np.float64) for rows in ranked]

    def detections(self, outputs: UMMAFormerOutputs, items: Sequence[FeatureItem]) -> list[npt.NDArray[np.float64]]:
        """Of every clip of stored features: (k, 3) score, start, end in seconds, ranked."""
        made = []
        for ranked, item in zip(self.proposals(outputs), items, strict=True):
            times = (ranked[:, 1:] + 0.5) * item.stride / item.fps
            made.append(np.concatenate([ranked[:, :1], times.clip(0, item.duration)], 1))
        return made

    def postprocess(self, outputs: UMMAFormerOutputs, ticks: Sequence[int]) -> list[ClipFinding]:
        """One finding per window: what was given is judged as one, so it has one entry.

        That is ``audio_visual``, or ``video`` or ``audio`` if only this was there. A tick's probability is that of the
        best proposal over it.
        """
        findings = []
        for i, (ranked, n) in enumerate(zip(self.proposals(outputs), ticks, strict=True)):
            video, audio = outputs.given[i].tolist()
            if not (video or audio):
                findings.append(ClipFinding({}, {}, {}))
                continue
            name = "audio_visual" if video and audio else "video" if video else "audio"
            ranked[:, 1:] = (ranked[:, 1:] + 0.5).clip(0, n)
            ranked = ranked[ranked[:, 2] > ranked[:, 1]]
            middle = np.arange(n) + 0.5
            over = (ranked[:, 1:2] <= middle) & (middle < ranked[:, 2:])
            curve = np.where(over, ranked[:, :1], 0).max(0, initial=0.0)
            findings.append(
                ClipFinding({name: outputs.video[i].item()}, {name: torch.from_numpy(curve).float()}, {name: ranked})
            )
        return findings


@functools.cache
def log_mel(rate: int) -> LogMel:
    """The spectrogram, on the CPU, where windows are prepared whatever device the network is on."""
    return LogMel(rate)


def offset_loss(offsets: Tensor, targets: Tensor) -> Tensor:
    """One minus IoU plus the squared distance of centres by the hull, of spans that share a point: (N, 2) each to (N,).

    Both are distances from the point to start and end, >= 0. Source: DIoU (Zheng et al., AAAI 2020) in one dimension.
    """
    (left, right), (true_left, true_right) = offsets.unbind(-1), targets.unbind(-1)
    shared = torch.minimum(left, true_left) + torch.minimum(right, true_right)
    union = left + right + true_left + true_right - shared
    hull = torch.maximum(left, true_left) + torch.maximum(right, true_right)
    apart = (right - left - true_right + true_left) / 2
    return 1 - shared / union.clamp(min=1e-8) + (apart / hull.clamp(min=1e-8)).square()


def learning_rate(step: int, warmup: int, total: int, base: float = 1e-3, floor: float = 1e-8) -> float:
    """Of optimiser step ``step``, from 0: linear from 0 over ``warmup`` steps, then half a cosine to ``floor``.

    As released, the first step is at 0 and both step ``warmup - 1`` and step ``warmup`` are at ``base``.
    """
    if step < warmup:
        return base * step / (warmup - 1) if warmup > 1 else 0.0
    return floor + (base - floor) * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def _inside(segments: Tensor, low: float, high: float) -> Tensor:
    """Spans (n, 2) cut to [low, high]; those that keep less than half of themselves are dropped."""
    cut = segments.clamp(low, high)
    return cut[(cut[:, 1] - cut[:, 0]) >= 0.5 * (segments[:, 1] - segments[:, 0])]


def _joined(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of half-open spans, in order."""
    union: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


def _targets(segments: Sequence[Tensor | None]) -> UMMAFormerTargets:
    """Spans of every clip in cells, ``None`` if it is real."""
    most = max(1, *(0 if one is None else len(one) for one in segments))
    padded = torch.zeros(len(segments), most, 2)
    for row, one in zip(padded, segments, strict=True):
        if one is not None:
            row[: len(one)] = one
    return UMMAFormerTargets(torch.tensor([one is not None for one in segments]), padded)


def _prefixes(lengths: Sequence[int], total: int) -> Tensor:
    """(B, 1, total) bool, true before each length."""
    return torch.arange(total) < torch.tensor(lengths)[:, None, None]


# -------------------------------------------------------------------------------------------------- released weights


def from_released(
    source: str | os.PathLike[str] | Mapping[str, Any],
    sizes: UMMAFormerSizes | None = None,
    *,
    average: bool = True,
) -> UMMAFormer:
    """The detector that a released checkpoint holds, in evaluation mode, every tensor in its place.

    Args:
        source: a checkpoint file, read as tensors and plain values only; or what it holds; or a plain state dict.
        sizes: by default those of the published configuration with as many channels, nothing corrected, as the weights
            have learned to live with the defects. What changes no number of the network may be corrected: ``flow``,
            ``passes``, ``dead_block`` (its tensors are checked and left behind), ``length``, ``overlap``.
        average: whether to take the moving average of the weights, which the published figures are of, and not the
            weights themselves. A plain state dict has one set only.

    Raises:
        WeightsError: the file cannot be read, or a tensor is missing, unexpected or of another shape.
    """
    where, held = ("the state dict", source) if isinstance(source, Mapping) else (os.fspath(source), _read(source))
    if "state_dict" in held or "state_dict_ema" in held:
        held = held.get("state_dict_ema" if average else "state_dict")
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        kind = "averaged weights" if average else "weights"
        raise WeightsError(f"{where} cannot be read as weights: it has no {kind}, or holds more than named tensors")
    state = {str(name).removeprefix("module."): value for name, value in held.items()}
    detector = UMMAFormer(sizes or _published(state))
    expected = detector.state_dict()
    state["normaliser"] = expected["normaliser"]
    if detector.sizes.corrections.dead_block:
        last = detector.sizes.levels - 2
        block = detector.backbone.lh_branch[last].state_dict()  # the dead block has the same layout
        expected |= {f"backbone.hh_branch.{last}.{name}": value for name, value in block.items()}
    check_fit(expected, state, "UMMAFormer")
    detector.load_state_dict({name: state[name] for name in detector.state_dict()})
    return detector.eval()


def _published(state: Mapping[str, Tensor]) -> UMMAFormerSizes:
    """The published configuration that a released state dict belongs to."""
    first = state.get("backbone.embd.0.conv.weight")
    channels = first.shape[1] if first is not None and first.ndim == 3 else 0
    for name in ("ummaformer-lavdf", "ummaformer-lavdf-visual", "ummaformer-psynd"):
        if PRESETS[name].visual + PRESETS[name].audio == channels:
            return PRESETS[name].reference()
    raise WeightsError("these are not the weights of a published UMMAFormer; give the sizes that they belong to")


def _read(path: str | os.PathLike[str]) -> Any:
    try:
        if os.fspath(path).endswith(".safetensors"):
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:
        raise WeightsError(f"{os.fspath(path)} cannot be read as weights: {cause}") from cause


# ---------------------------------------------------------------------------------------------------------- builder


PRESETS: dict[str, UMMAFormerSizes] = {
    "ummaformer-lavdf": UMMAFormerSizes(),
    "ummaformer-lavdf-visual": UMMAFormerSizes(audio=0),
    "ummaformer-psynd": UMMAFormerSizes(visual=0),
    "ummaformer-clips": UMMAFormerSizes(
        visual=256,
        audio=256,
        grid=512,
        encoders={"video": {}, "audio": {}},
        clock=Clock(512, overlap=128),
        reconstruction=(256, 256, 256, 256),
    ),
    "ummaformer-tiny": UMMAFormerSizes(
        visual=14, audio=8, grid=192, width=16, neck=12, reconstruction=(16, 16, 24, 24)
    ),
    "ummaformer-clips-tiny": UMMAFormerSizes(
        visual=12,
        audio=16,
        grid=48,
        encoders={"video": {"channels": [2, 3, 4, 4]}, "audio": {"channels": [2, 3, 4]}},
        clock=Clock(48, overlap=16),
        width=16,
        neck=12,
        reconstruction=(16, 16),
        ranges=((0, 4), (4, 8), (8, 10000)),
    ),
}


def build(name: str) -> UMMAFormer:
    """A detector of the named sizes, with random weights from the global generator.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in PRESETS:
        raise ValueError(f"no UMMAFormer preset {name!r}; there are {', '.join(PRESETS)}")
    return UMMAFormer(PRESETS[name])
