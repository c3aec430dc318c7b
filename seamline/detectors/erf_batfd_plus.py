"""ERF-BA-TFD+: when the forgery is, in which modality, and how sure we are.

Source: the talk "Constructing Deepfake Detectors with Different Modalities Based on Feature Encoders" (IJCAI 2025
workshop). Its paper was withdrawn and no code was published, so this file says of every part whose it is:

* from the talk: BA-TFD+ (Cai et al., 2023) with an enhanced receptive field (ERF), and UMMA multimodal adaptation on
  the fusion modality; the three outputs video, audio and fusion.
* from BA-TFD+ (``batfd.py``): an encoder and a frame classifier per modality, boundary maps over proposals, map fusion
  by learned weights, soft-NMS.
* from UMMAFormer (Zhang et al., ACM MM 2023; ``ummaformer.py``): temporal feature abnormal attention (a sequence asks
  its own reconstruction, learnt from authentic ticks only) and cross-attention between the modalities.
* ours: what ERF is (``heads/receptive.py``); rows of geometrically growing duration, so that a proposal may be as long
  as the window at a cost that grows with its logarithm, each seen as a whole (``heads/grid.py``); two offsets in every
  cell, which give back the precision that coarse rows and ticks of 40 ms take; gates on the crossing; a modality that
  is absent, or not applicable, is masked everywhere and never zero-filled; a score of the whole window per modality,
  learnt together with the maps; small encoders (``encoders/light.py``), that of sound on cues which are measured, not
  learnt (``cues.py``), and which judges by itself, before the receptive field (:class:`EarlyBranch`); and the order of
  the pictures, which is looked at by itself (``pace.py``): of a tick, forged is what its face or its place in the order
  says.

Not taken over from BA-TFD+: the contrastive loss, whose weight in the released code is 7.6e-7 (D4), and the
defects D1 (wrong segment sampled), D2, D3, D5 (a frame short), D6, D7, D10.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cues import COUNT, HOP, PER_TICK, RATE, cues
from ..encoders.light import NOTHING, LightAudio, LightCues, LightPace, LightVideo, masked_mean
from ..heads.context import ChannelNorm, CrossBlock, Reconstruction
from ..heads.grid import ProposalGrid
from ..heads.proposals import soft_nms
from ..heads.receptive import ReceptiveField
from ..pace import LAGS
from .base import ClipDetector, ClipFinding, ClipTruth, ClipWindow, Clock

MODALITIES = ("video", "audio", "audio_visual")
STEP = 32  # windows are padded to a multiple of so many ticks
OVERHANG = 0.25  # share of its duration by which a proposal may stick out of the window before it is refined
POSITIVE = 0.5  # IoU from which a cell learns where its forgery begins and ends
OVERLAP = 0.2  # IoU with a better proposal from which a proposal loses score, whatever its duration
FIRST = 300  # proposals of a window that reach the suppression ...
KEPT = 100  # ... and that leave it


def durations(ticks: int, dense: int = 12, ratio: float = 1.2) -> tuple[int, ...]:
    """Rows of the proposal map, in ticks: every duration up to ``dense``, then geometric up to the whole window."""
    rows = list(range(1, min(dense, ticks) + 1))
    while rows[-1] < ticks:
        rows.append(min(ticks, max(rows[-1] + 1, round(rows[-1] * ratio))))
    return tuple(rows)


@dataclass(frozen=True)
class ErfSizes:
    """Everything that decides the network's shapes. ``erf``, ``long`` and ``umma`` switch what the ablation judges."""

    clock: Clock = field(default_factory=lambda: Clock(512, 128))
    width: int = 96  # C of all sequences
    erf: bool = True  # the enhanced receptive field; else two plain convolutions of three ticks
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    heads: int = 4
    long: bool = True  # rows up to the whole window; else 1..40 ticks as in BA-TFD+
    samples: int = 16  # channels of a sequence that are averaged over the parts of a proposal
    hidden: int = 48  # channels of the proposal map
    umma: bool = True  # anomaly and cross-modal attention on the fusion path; else map fusion alone
    video_channels: tuple[int, int, int, int] = (32, 48, 64, 80)
    audio_channels: tuple[int, int, int, int, int] = (16, 32, 48, 64, 64)
    pace: bool = False  # whether the order of the pictures is looked at too (``pace.py``)
    cues: bool = False  # whether sound is known by its cues (``cues.py``); else by its spectrum, as floor says
    early: bool = False  # whether cues are judged before the receptive field, see EarlyBranch
    floor: float = 1e-4  # of the power of sound, see LightAudio; that of weights which do not say
    dropout: float = 0.1

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ErfSizes:
        """The inverse of :meth:`to_dict`.

        Raises:
            TypeError: a field is unknown.
        """
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        if "clock" in values and isinstance(values["clock"], dict):
            values["clock"] = Clock(**values["clock"])
        return cls(**values)

    @property
    def rows(self) -> tuple[int, ...]:
        """Durations of the rows of the proposal map, in ticks."""
        return durations(self.clock.ticks) if self.long else tuple(range(1, 41))


class ErfInputs(NamedTuple):
    """A batch, or one window without the first axis. What is padding or absent is zero in the masks."""

    faces: Tensor  # (B, T, S, S, 3) uint8
    shown: Tensor  # (B, 1, T) float32, 1 where there is a face in ``faces`` to look at
    pace: Tensor  # (B, LAGS, T) float32, not a number where unknown
    sound: Tensor  # float32, samples (B, T * those of a tick), or cues (B, COUNT, T * PER_TICK)
    faces_mask: Tensor  # (B, 1, T) float32
    sound_mask: Tensor  # (B, 1, T) float32
    inside: Tensor  # (B, 1, T) float32, 1 within the window


class ErfPart(NamedTuple):
    """What is said about one modality."""

    logit: Tensor  # (B,) of forgery, whole window
    frames: Tensor  # (B, T) logit of forgery of each tick
    map: Tensor  # (B, D, T) logit of the IoU of the proposal [t, t + rows[d]) with a forgery
    offsets: Tensor  # (B, 2, D, T) of its two ends, in units of its duration
    there: Tensor  # (B,) bool, whether the modality was given


class ErfOutputs(NamedTuple):
    """Of the modalities apart, and of both together."""

    video: ErfPart
    audio: ErfPart
    audio_visual: ErfPart
    rebuilding: Tensor  # (B, 2, T) mean absolute error of the reconstruction of video and audio; zeros without UMMA
    order: Tensor  # (B, T) logit that the order of the pictures is forged; zeros where it is not looked at


class ErfTarget(NamedTuple):
    """Truth about one modality."""

    label: Tensor  # (B,) 1 forged
    frames: Tensor  # (B, T) share of each tick that is forged
    map: Tensor  # (B, D, T) IoU with the nearest forgery
    offsets: Tensor  # (B, 2, D, T) from the ends of the proposal to those of that forgery, in durations


class ErfTargets(NamedTuple):
    """Truth about the modalities apart, and both together; and which cells are proposals at all."""

    video: ErfTarget
    audio: ErfTarget
    audio_visual: ErfTarget
    cells: Tensor  # (B, D, T) 1 where [t, t + rows[d]) lies in the window, but for OVERHANG


class ProposalHead(nn.Module):
    """One sequence to a map over proposals: IoU logit and two offsets of every cell."""

    def __init__(self, channels: int, sizes: ErfSizes) -> None:
        super().__init__()
        hidden = sizes.hidden
        self.sample = ProposalGrid(channels, hidden, sizes.rows, sizes.samples)
        self.body = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Dropout2d(sizes.dropout),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
        )
        self.out = nn.Conv2d(hidden, 3, 1)
        nn.init.zeros_(self.out.weight)
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([-3.0, 0.0, 0.0]))  # type: ignore[union-attr]  # few proposals are forgeries

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, T) and its mask (B, 1, T) to logits (B, D, T) and offsets (B, 2, D, T)."""
        y = self.out(self.body(F.relu(self.sample(x, mask))))
        return y[:, 0], y[:, 1:]


class ScoreHead(nn.Module):
    """The logit of a whole window: what its ticks and its best proposals say, and what the mean of it looks like."""

    SHARES = (0.02, 0.1, 0.3)  # of the ticks, the most suspect ones

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.whole = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, 1))
        self.mix = nn.Linear(len(self.SHARES) + 3, 1)
        with torch.no_grad():
            self.mix.weight.fill_(1 / (len(self.SHARES) + 3))
            self.mix.bias.zero_()

    def forward(self, x: Tensor, frames: Tensor, cells: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), (B, T), (B, D, T) logits, masked ones very low, and (B, 1, T) to (B,)."""
        x, frames, cells = x.float(), frames.float(), cells.float()  # sums over a window want more than sixteen bits
        there = mask[:, 0] > 0
        low = torch.finfo(x.dtype).min
        peak = x.masked_fill(~there[:, None], low).amax(-1)
        pooled = torch.cat([masked_mean(x, mask)[..., 0], peak.masked_fill(~there.any(-1, keepdim=True), 0)], 1)
        ordered = frames.masked_fill(~there, low).sort(-1, descending=True).values
        count = there.sum(-1)
        sums = ordered.masked_fill(torch.arange(ordered.shape[-1], device=x.device) >= count[:, None], 0).cumsum(-1)
        facts = [self.whole(pooled)[:, 0]]
        for share in self.SHARES:
            k = (share * count).ceil().long().clamp(min=1)
            facts.append(sums.gather(1, (k - 1)[:, None])[:, 0] / k)
        best = cells.flatten(1).topk(10, 1).values.clamp(min=-20)
        facts += [best[:, 0], best.mean(1)]
        logit: Tensor = self.mix(torch.stack(facts, 1))[:, 0]
        return logit


class Fusion(nn.Module):
    """UMMA: the fusion path. Anomaly attention within each modality, then gated attention across them."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.ModuleList(ChannelNorm(channels) for _ in range(2))
        self.rebuild = nn.ModuleList(
            Reconstruction(channels, channels // 2, widths=(channels,), judge=False) for _ in range(2)
        )
        self.anomaly = nn.ModuleList(CrossBlock(channels, heads, window=7, expand=2, scale=0.1) for _ in range(2))
        self.cross = nn.ModuleList(CrossBlock(channels, heads, window=15, expand=2, scale=0.1) for _ in range(2))
        self.gate = nn.ModuleList(nn.Conv1d(2 * channels, channels, 1) for _ in range(2))
        self.mix = nn.Conv1d(2 * channels, channels, 1)
        self.field = ReceptiveField(channels, (1, 2, 4), heads)

    def forward(self, sequences: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Video and audio (B, C, T) with their masks (B, 1, T) to one sequence (B, C, T) and the errors (B, 2, T)."""
        looked, errors = [], []
        for i, (x, mask) in enumerate(zip(sequences, masks, strict=True)):
            steady = self.norm[i](x.detach()) * mask
            rebuilt = self.rebuild[i](steady, mask).signal
            errors.append((rebuilt - steady).abs().mean(1))
            looked.append(self.anomaly[i](self.norm[i](x) * mask, rebuilt.detach(), self.norm[i](x) * mask, mask))
        joined = []
        for i in range(2):
            own, other = looked[i], looked[1 - i]
            both = masks[i] * masks[1 - i]
            asked = self.cross[i](own, other, other, masks[i], masks[1 - i])
            gate = self.gate[i](torch.cat([own, other], 1)).sigmoid() * both  # an absent modality is not asked
            joined.append(own + gate * (asked - own))
        either = torch.maximum(masks[0], masks[1])
        return self.field(self.mix(torch.cat(joined, 1)) * either, either), torch.stack(errors, 1)


class MaskedMapFusion(nn.Module):
    """BA-TFD+'s map fusion over the maps that are there: each weighs as its map and both sequences say."""

    def __init__(self, rows: int, channels: int) -> None:
        super().__init__()
        self.map = nn.ModuleList(nn.Conv1d(rows, rows, 1) for _ in range(2))
        self.own = nn.ModuleList(nn.Conv1d(channels, rows, 1) for _ in range(2))
        self.other = nn.ModuleList(nn.Conv1d(channels, rows, 1) for _ in range(2))

    def forward(self, maps: Sequence[Tensor], sequences: Sequence[Tensor], there: Sequence[Tensor]) -> Tensor:
        """Two maps of logits (B, D, T), two sequences (B, F, T), two (B,) bool to shares (B, 2, D, T) that sum to 1."""
        weights = []
        for i in range(2):
            seen = self.map[i](maps[i].sigmoid()) + self.own[i](sequences[i]) + self.other[i](sequences[1 - i])
            weights.append(F.logsigmoid(seen / 3).masked_fill(~there[i][:, None, None], -1e4))
        return torch.stack(weights, 1).softmax(1)


class ErfBatfdPlus(ClipDetector):
    """The network, its criterion and its decoding.

    Args:
        sizes: see :class:`ErfSizes`.
    """

    parts: Mapping[str, str] = {name: name for name in ("video", "audio", "fusion", "vote")}

    def __init__(self, sizes: ErfSizes) -> None:
        super().__init__()
        self.sizes, self.clock = sizes, sizes.clock
        self.per_tick = round(sizes.clock.rate / sizes.clock.fps)
        c, rows = sizes.width, sizes.rows
        self.rows: Tensor
        self.register_buffer("rows", torch.tensor(rows), persistent=False)
        self.video = Branch(LightVideo(c, sizes.clock.face, sizes.video_channels), sizes)
        if sizes.pace:
            self.uses, self.parts = self.uses | {"pace"}, {**self.parts, "pace": "pace"}
            self.pace = LightPace(LAGS, dropout=sizes.dropout)
        if sizes.cues:
            if (sizes.clock.rate, self.per_tick) != (RATE, HOP * PER_TICK):
                raise ValueError(f"cues are measured at {RATE} Hz and {RATE // (HOP * PER_TICK)} ticks a second only")
            self.uses = self.uses | {"cues"}
            self.audio = (EarlyBranch if sizes.early else Branch)(LightCues(c, COUNT, PER_TICK), sizes)
        else:
            self.audio = Branch(LightAudio(c, self.per_tick, sizes.audio_channels, sizes.floor), sizes)
        self.fusion = nn.ModuleDict({"maps": MaskedMapFusion(len(rows), c + 1)})
        if sizes.umma:
            self.fusion["umma"] = Fusion(c, sizes.heads)
            self.fusion["frames"] = nn.Conv1d(c, 1, 1)
            self.fusion["proposals"] = ProposalHead(c + 1, sizes)
            self.fusion["score"] = ScoreHead(c)
        self.vote = nn.Linear(2 if sizes.umma else 1, 1)
        nn.init.constant_(self.vote.weight, 0.5)  # each argument speaks for a forgery, and never against
        nn.init.zeros_(self.vote.bias)
        self.loss_weights = dict(LOSS_WEIGHTS)
        if not sizes.umma:
            del self.loss_weights["rebuilding"]
        if not sizes.pace:
            del self.loss_weights["order"]

    # ------------------------------------------------------------------------------------------------------- in

    def preprocess(self, window: ClipWindow) -> ErfInputs:
        """Nothing is resampled: the pipeline cut the window at our clock."""
        n, side = window.ticks, self.clock.face
        faces, mask, shown = torch.zeros(n, side, side, 3, dtype=torch.uint8), torch.zeros(1, n), torch.zeros(1, n)
        pace = torch.full((LAGS, n), torch.nan)
        if window.seen is not None:
            mask = torch.from_numpy(window.seen.astype(np.float32))[None]
            if window.faces is not None:
                faces, shown = torch.from_numpy(np.array(window.faces)), mask
            if window.pace is not None:
                pace = torch.from_numpy(np.array(window.pace.T))
        sound, heard = torch.zeros((COUNT, n * PER_TICK) if self.sizes.cues else n * self.per_tick), torch.zeros(1, n)
        if window.sound is not None:
            told = window.sound
            if self.sizes.cues:
                told = (cues(window.sound) if window.cues is None else window.cues).T
            sound, heard = torch.from_numpy(np.array(told, np.float32)), torch.ones(1, n)
        return ErfInputs(faces, shown, pace, sound, mask, heard, torch.ones(1, n))

    def collate(self, inputs: Sequence[ErfInputs]) -> ErfInputs:
        """Padded at the end to the longest, and that to a multiple of ``STEP`` ticks."""
        length = math.ceil(max(item.inside.shape[-1] for item in inputs) / STEP) * STEP
        heard = length * (PER_TICK if self.sizes.cues else self.per_tick)

        def grown(tensor: Tensor, axis: int, size: int, value: float = 0) -> Tensor:
            shape = list(tensor.shape)
            shape[axis] = size - shape[axis]
            return torch.cat([tensor, tensor.new_full(shape, value)], axis)

        return ErfInputs(
            self._faces([grown(item.faces, 0, length) if item.shown.any() else None for item in inputs], length),
            torch.stack([grown(item.shown, 1, length) for item in inputs]),
            torch.stack([grown(item.pace, 1, length, torch.nan) for item in inputs]),
            torch.stack([grown(item.sound, -1, heard) for item in inputs]),
            *(torch.stack([grown(item[i], 1, length) for item in inputs]) for i in (4, 5, 6)),
        )

    def _faces(self, faces: Sequence[Tensor | None], length: int) -> Tensor:
        """(B, T, S, S, 3); where no window has any, zeros that take no memory."""
        nothing = torch.zeros((), dtype=torch.uint8).expand(length, self.clock.face, self.clock.face, 3)
        if all(one is None for one in faces):
            return nothing.expand(len(faces), *nothing.shape)
        return torch.stack([nothing if one is None else one for one in faces])

    def targets(self, truths: Sequence[ClipTruth], ticks: Sequence[int]) -> ErfTargets:
        """Spans to maps. Both together are forged wherever either is."""
        length = math.ceil(max(ticks) / STEP) * STEP
        start = torch.arange(length)
        stop = start + self.rows.cpu()[:, None]  # (D, T)
        limit = torch.tensor(ticks)[:, None, None] + OVERHANG * self.rows.cpu()[:, None]
        cells = (stop <= limit) & (start < torch.tensor(ticks)[:, None, None])
        spans = [(t.video, t.audio, _union(t.video + t.audio)) for t in truths]
        video, audio, both = (self._target([item[i] for item in spans], length) for i in range(3))
        return ErfTargets(video, audio, both, cells.float())

    def _target(self, spans: Sequence[Sequence[tuple[float, float]]], length: int) -> ErfTarget:
        rows = self.rows.cpu()[:, None].float()
        begin = torch.arange(length).float().expand(len(rows), -1)
        end = begin + rows
        label = torch.tensor([float(bool(s)) for s in spans])
        frames = torch.zeros(len(spans), length)
        best = torch.zeros(len(spans), len(rows), length)
        offsets = torch.zeros(len(spans), 2, len(rows), length)
        for b, forgeries in enumerate(spans):
            for s, e in forgeries:
                shared = (torch.minimum(end, torch.tensor(e)) - torch.maximum(begin, torch.tensor(s))).clamp(min=0)
                iou = shared / (rows + (e - s) - shared)
                better = iou > best[b]
                best[b] = torch.where(better, iou, best[b])
                offsets[b, 0] = torch.where(better, (s - begin) / rows, offsets[b, 0])
                offsets[b, 1] = torch.where(better, (e - end) / rows, offsets[b, 1])
                ticks = torch.arange(length).float()
                frames[b] += ((ticks + 1).clamp(max=e) - ticks.clamp(min=s)).clamp(min=0)
        return ErfTarget(label, frames.clamp(max=1), best, offsets)

    def silent(self, given: Collection[str]) -> set[str]:
        """See :meth:`ClipDetector.silent`. Of one modality both together say nothing new, unless fusion learns."""
        seen, heard = bool({"video", "pace"} & {*given}), "audio" in given
        both = (seen and heard) or "fusion" not in self.frozen
        told = {"video": seen, "audio": heard, "audio_visual": both, "rebuilding": both, "order": seen}
        return {loss for loss in self.loss_weights if not told[loss if loss in told else loss.rpartition("_")[0]]}

    # -------------------------------------------------------------------------------------------------- network

    def forward(self, batch: ErfInputs, targets: Any = None) -> ErfOutputs:
        """See :class:`ErfInputs` and :class:`ErfOutputs`."""
        masks = (batch.faces_mask, batch.sound_mask)
        faces = batch.faces.permute(0, 4, 1, 2, 3)
        features = (self.video.encoder(faces, batch.shown), self.audio.encoder(batch.sound, masks[1]))
        return self.judge(features, masks, batch.inside, self.pace(batch.pace) if self.sizes.pace else None)

    def judge(
        self, features: Sequence[Tensor], masks: Sequence[Tensor], inside: Tensor, order: Tensor | None = None
    ) -> ErfOutputs:
        """What follows the encoders.

        Features of video and audio (B, C, T), their masks and the window's (B, 1, T), and the logits (B, T) that the
        order of the pictures is forged.
        """
        there = [mask.flatten(1).any(1) for mask in masks]
        cells = self._cells(inside)
        fused = self._asked("audio_visual", *LOSSES) or self._asked("rebuilding")
        sequences, tagged, parts = [], [], []
        for name, x, mask, present in zip(MODALITIES[:2], features, masks, there, strict=True):
            branch = getattr(self, name)
            if fused or self._asked(name, *LOSSES):
                whole = fused or self._asked(name, *branch.LATE)
                x, part = branch(x, mask, cells, present, whole, order if name == "video" else None)
            else:
                part = _nothing(cells, present)
            sequences.append(x)
            tagged.append(torch.cat([x, part.frames[:, None] * mask], 1))
            parts.append(part)
        if fused:
            both, errors = self._fused(sequences, tagged, parts, masks, there, cells)
        else:
            both = _nothing(cells, there[0] | there[1])
            errors = cells.new_zeros(len(cells), 2, cells.shape[-1])
        return ErfOutputs(
            parts[0], parts[1], both, errors, cells.new_zeros(parts[0].frames.shape) if order is None else order
        )

    def _asked(self, name: str, *losses: str) -> bool:
        """Whether something is to be computed: always, but while training only if one of its losses weighs anything."""
        names = [f"{name}_{loss}" for loss in losses] or [name]
        return not self.training or any(self.loss_weights.get(one, 0.0) for one in names)

    def _fused(
        self, sequences: Sequence[Tensor], tagged: Sequence[Tensor], parts: Sequence[ErfPart],
        masks: Sequence[Tensor], there: Sequence[Tensor], cells: Tensor,
    ) -> tuple[ErfPart, Tensor]:  # fmt: skip
        """What both modalities say together."""
        share = self.fusion["maps"]([part.map.detach() for part in parts], tagged, there)  # (B, 2, D, T)
        both = sum(share[:, i] * part.map.sigmoid() for i, part in enumerate(parts))
        assert isinstance(both, Tensor)
        map_ = torch.logit(both, 1e-6)
        offsets = sum(share[:, i, None] * part.offsets for i, part in enumerate(parts))
        assert isinstance(offsets, Tensor)
        frames = torch.where(
            there[0][:, None] & there[1][:, None],
            torch.maximum(parts[0].frames, parts[1].frames),
            torch.where(there[0][:, None], parts[0].frames, parts[1].frames),
        )
        low = -20.0
        votes = [part.logit.masked_fill(~part.there, low) for part in parts]
        errors = map_.new_zeros(len(map_), 2, map_.shape[-1])
        either = torch.maximum(masks[0], masks[1])
        if self.sizes.umma:
            x, errors = self.fusion["umma"](sequences, masks)
            own = self.fusion["frames"](x)[:, 0]
            frames = frames + own
            more, moved = self.fusion["proposals"](torch.cat([x, own[:, None] * either], 1), either)
            map_, offsets = map_ + more + 3.0, offsets + moved  # its logits start at -3
            votes.append(self.fusion["score"](x, frames, map_.masked_fill(cells == 0, low), either))
        highest = torch.logsumexp(torch.stack(votes[:2], 1), 1)
        logit = self.vote(torch.stack([highest, *votes[2:]], 1))[:, 0]
        return ErfPart(logit, frames, map_, offsets, there[0] | there[1]), errors

    def _cells(self, inside: Tensor) -> Tensor:
        """(B, 1, T) to (B, D, T): 1 where a proposal lies in the window, but for ``OVERHANG``."""
        length = inside.sum(-1, keepdim=True)  # (B, 1, 1)
        start = torch.arange(inside.shape[-1], device=inside.device)
        stop = start + (1 - OVERHANG) * self.rows[:, None]
        return ((stop <= length) & (start < length)).to(inside.dtype)

    # ----------------------------------------------------------------------------------------------------- loss

    def criterion(
        self, outputs: ErfOutputs, targets: ErfTargets, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Four losses of each modality, over the windows that have it, and that of the reconstruction.

        ``score``: cross entropy of the window. ``frames``: of each tick. ``map``: quality focal loss (Li et al., 2020)
        of the cells, over the number of positive ones. ``offsets``: 1 - IoU of the refined proposals, over the same.
        """
        losses: dict[str, Tensor] = {}
        inside = targets.cells.any(1).float()  # (B, T)
        for name in MODALITIES:
            part, truth = getattr(outputs, name), getattr(targets, name)
            there = part.there.float()
            count = there.sum().clamp(min=1)
            entropy = F.binary_cross_entropy_with_logits(part.logit, truth.label, reduction="none")
            losses[f"{name}_score"] = (entropy * there).sum() / count
            weight = inside * there[:, None] * (1 + truth.frames)
            entropy = F.binary_cross_entropy_with_logits(part.frames, truth.frames, reduction="none")
            losses[f"{name}_frames"] = (entropy * weight).sum() / weight.sum().clamp(min=1)
            cells = targets.cells * there[:, None, None]
            positive = (truth.map >= POSITIVE).float() * cells
            most = positive.sum().clamp(min=8)
            entropy = F.binary_cross_entropy_with_logits(part.map, truth.map, reduction="none")
            focus = (truth.map - part.map.sigmoid()).square()
            losses[f"{name}_map"] = (entropy * focus * cells).sum() / most
            losses[f"{name}_offsets"] = ((1 - _refined_iou(part.offsets, truth.offsets)) * positive).sum() / most
        if self.sizes.umma:
            clean = torch.stack([1 - targets.video.frames, 1 - targets.audio.frames], 1) * inside[:, None]
            clean = clean * torch.stack([outputs.video.there, outputs.audio.there], 1)[..., None]
            losses["rebuilding"] = (outputs.rebuilding * clean).sum() / clean.sum().clamp(min=1)
        if self.sizes.pace:
            weight = inside * (outputs.order > NOTHING) * (1 + targets.video.frames)
            entropy = F.binary_cross_entropy_with_logits(outputs.order, targets.video.frames, reduction="none")
            losses["order"] = (entropy * weight).sum() / weight.sum().clamp(min=1)
        return losses

    # ------------------------------------------------------------------------------------------------------ out

    @torch.no_grad()
    def postprocess(self, outputs: ErfOutputs, ticks: Sequence[int]) -> list[ClipFinding]:
        """Refine the best cells, and suppress what repeats a better one.

        The window's own score does not weigh them: the map has seen the window too, and ranks proposals of many files
        better alone (docs/LOG.md, 2026-11-30).
        """
        findings = []
        for b, n in enumerate(ticks):
            logits: dict[str, float] = {}
            curves: dict[str, Tensor] = {}
            proposals: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
            both = bool(outputs.video.there[b]) and bool(outputs.audio.there[b])
            for name in MODALITIES:
                part: ErfPart = getattr(outputs, name)
                if not (both if name == "audio_visual" else bool(part.there[b])):
                    continue
                logits[name] = float(part.logit[b])
                curves[name] = part.frames[b, :n].sigmoid().float().cpu()
                proposals[name] = self._decode(part.map[b, :, :n], part.offsets[b, :, :, :n], n)
            findings.append(ClipFinding(logits, curves, proposals))
        return findings

    def _decode(self, map_: Tensor, offsets: Tensor, ticks: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(D, n) logits and (2, D, n) offsets to at most ``KEPT`` rows of score, start, end."""
        start = torch.arange(ticks, device=map_.device)
        rows = self.rows[:, None]
        scores = map_.sigmoid().masked_fill(start + (1 - OVERHANG) * rows > ticks, 0)
        best, index = scores.flatten().topk(min(FIRST, scores.numel()))
        row, begin = index // ticks, index % ticks
        length = self.rows[row]
        first = (begin + offsets[0].flatten()[index] * length).clamp(0, ticks)
        last = (begin + length + offsets[1].flatten()[index] * length).clamp(0, ticks)
        keep = last - first >= 0.5
        found = torch.stack([best, first, last], 1)[keep]
        return soft_nms(found.double().cpu().numpy(), low=OVERLAP, high=OVERLAP, keep=KEPT)


class Branch(nn.Module):
    """One modality: encoder, receptive field, frame classifier, proposals, score."""

    LATE: tuple[str, ...] = ("score", "map", "offsets")  # losses that need more than what is said of ticks

    def __init__(self, encoder: nn.Module, sizes: ErfSizes) -> None:
        super().__init__()
        c = sizes.width
        self.encoder = encoder
        if sizes.erf:
            self.field = ReceptiveField(c, sizes.dilations, sizes.heads, sizes.dropout)
        else:
            self.field = ReceptiveField(c, (1, 1), 0, sizes.dropout)
        self.frames = nn.Conv1d(c, 1, 1)
        self.proposals = ProposalHead(c + 1, sizes)
        self.score = ScoreHead(c)

    def forward(
        self, x: Tensor, mask: Tensor, cells: Tensor, there: Tensor, whole: bool = True, order: Tensor | None = None
    ) -> tuple[Tensor, ErfPart]:
        """Features (B, C, T), their mask (B, 1, T), cells (B, D, T) to a sequence (B, C, T) and what is said of it.

        Unless the ``whole`` is asked for, only of its ticks: of proposals and the window zeros are said.
        """
        x = self.field(x, mask)
        frames = self.frames(x)[:, 0]
        if order is not None:  # forged is what either says
            frames = torch.logaddexp(frames, order)
        if not whole:
            return x, _nothing(cells, there)._replace(frames=frames)
        map_, offsets = self.proposals(torch.cat([x, frames[:, None] * mask], 1), mask)
        logit = self.score(x, frames, map_.masked_fill(cells == 0, -20.0), mask)
        return x, ErfPart(logit, frames, map_, offsets, there)


class EarlyBranch(Branch):
    """A modality whose encoder says by itself what is forged; the receptive field only finds the spans of it.

    Ours. Of voices that training did not hear, the features of cues tell more than the field makes of them, which knows
    its voices by heart (docs/LOG.md, 2026-11-29). So ticks and window are judged by the encoder's own features, the
    window by votes of its ticks: the log of the sum of their odds over the root of their number, as one forged tick is
    enough and more are surer. Field and proposals learn of features that they do not change.
    """

    LATE = ("map", "offsets")

    def __init__(self, encoder: nn.Module, sizes: ErfSizes) -> None:
        super().__init__(encoder, sizes)
        self.frames = nn.Conv1d(sizes.width, 2, 1)  # of the tick, and for the window
        nn.init.constant_(self.frames.bias, -2.0)  # type: ignore[arg-type]  # few are forged
        del self.score  # the votes of the ticks take its place

    def forward(
        self, x: Tensor, mask: Tensor, cells: Tensor, there: Tensor, whole: bool = True, order: Tensor | None = None
    ) -> tuple[Tensor, ErfPart]:
        """As :meth:`Branch.forward`."""
        frames, votes = self.frames(F.gelu(x)).float().unbind(1)
        if order is not None:
            frames = torch.logaddexp(frames, order)
        count = mask.sum((1, 2)).clamp(min=1)
        logit = votes.masked_fill(mask[:, 0] == 0, -1e4).logsumexp(-1) - count.log() / 2
        part = _nothing(cells, there)._replace(logit=logit, frames=frames)
        if not whole:
            return x, part
        x = self.field(x.detach(), mask)
        map_, offsets = self.proposals(torch.cat([x, frames.detach()[:, None] * mask], 1), mask)
        return x, part._replace(map=map_, offsets=offsets)


def _nothing(cells: Tensor, there: Tensor) -> ErfPart:
    """Zeros, for cells (B, D, T) and (B,) whether the modality was given."""
    b, d, t = cells.shape
    return ErfPart(
        cells.new_zeros(b), cells.new_zeros(b, t), cells.new_zeros(b, d, t), cells.new_zeros(b, 2, d, t), there
    )


def _refined_iou(offsets: Tensor, truth: Tensor) -> Tensor:
    """IoU of proposals [0, 1) moved by ``offsets`` (B, 2, D, T) with [0, 1) moved by ``truth``: (B, D, T)."""
    s, e = offsets[:, 0], 1 + offsets[:, 1]
    s0, e0 = truth[:, 0], 1 + truth[:, 1]
    shared = (torch.minimum(e, e0) - torch.maximum(s, s0)).clamp(min=0)
    hull = (torch.maximum(e, e0) - torch.minimum(s, s0)).clamp(min=1e-6)
    away = ((s - s0).abs() + (e - e0).abs()) / hull  # keeps a slope where nothing is shared
    iou = shared / ((e - s).clamp(min=1e-3) + (e0 - s0) - shared).clamp(min=1e-3)
    return iou - 0.5 * away


def _union(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans that touch or overlap, joined."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


LOSSES = {"score": 0.5, "frames": 1.0, "map": 1.0, "offsets": 0.5}  # of each modality, and their weights
LOSS_WEIGHTS: dict[str, float] = {
    f"{name}_{loss}": (1.0 if name == "audio_visual" else 0.5) * weight
    for name in MODALITIES
    for loss, weight in LOSSES.items()
} | {"rebuilding": 0.2, "order": 0.5}

PRESETS: dict[str, ErfSizes] = {
    "erf-batfd-plus-light": ErfSizes(pace=True, cues=True, early=True),
    "erf-batfd-plus-tiny": ErfSizes(
        clock=Clock(64, 16, face=32),
        width=16,
        dilations=(1, 2, 4),
        heads=2,
        samples=4,
        hidden=8,
        video_channels=(4, 6, 8, 8),
        audio_channels=(4, 6, 8, 8, 8),
        pace=True,
        cues=True,
        early=True,
    ),
}


def build(name: str) -> ErfBatfdPlus:
    """A detector of the named sizes, with random weights from the global generator.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in PRESETS:
        raise ValueError(f"no ERF-BA-TFD+ preset {name!r}; there are {', '.join(PRESETS)}")
    return ErfBatfdPlus(PRESETS[name])
