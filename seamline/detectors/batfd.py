"""BA-TFD and BA-TFD+: which seconds of a talking clip are forged, in its picture, its sound, or either.

Sources: BA-TFD (Cai et al., "Do You Really Mean That?", DICTA 2022, arXiv:2204.06228) and BA-TFD+ (Cai et al.,
"Glitch in the Matrix", CVIU 2023, arXiv:2305.01979). Read top to bottom with the paper in hand: corrections, sizes,
network, targets, criterion, decoding, released weights. One network covers both: BA-TFD+ adds the proposal relation
block, which answers with three maps for one, and has transformers as encoders.

A clip of T ticks is given twice: face crops and a log-mel spectrogram. Each is encoded to (B, C, T) and classified tick
by tick; the boundary module scores every segment of up to D ticks by sampling the features inside it; a fusion weighs
the maps of both modalities. Cell (d, t) of a map stands for the segment [t, t + d + 1) in ticks.

The released code has defects that its weights have learned to live with, so ``sizes.reference()`` keeps every one of
them, to the digit. The default corrects them, each by a switch of its own: see :class:`Corrections`. The released
recipe is Adam (betas 0.5 and 0.9, weight decay 1e-4 on everything), rate 1e-5 for a batch of 4, in float32.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..encoders.audio import VIT_WIDTHS, AudioCNN, AudioViT, LogMel
from ..encoders.perception import check_fit
from ..encoders.video import C3D, SIDE, STAGES, FeatureInput, MViT, pad_time, resize_frames
from ..errors import WeightsError
from ..heads.boundary import BoundaryModule, NestedUNet, boundary_curves, frame_labels, iou_map
from ..heads.fusion import MapFusion
from ..heads.proposals import dense_table, soft_nms
from .base import ClipDetector, ClipFinding, ClipTruth, ClipWindow, Clock

# ----------------------------------------------------------------------------------------------------------- sizes


@dataclass(frozen=True)
class Corrections:
    """Which defects of the released code are put right; the numbers are those of the project's list of findings.

    What is no switch: labels have T entries, not always 512 (D14); nothing is cached by file name (D13); there is no
    dense sampling tensor to build or to move (D11, D12). The names of start and end channels stay swapped (D20), which
    hurts nobody.
    """

    segment: bool = True  # D1: samples lie on the segment [t, t + d + 1), not between t and d + 1
    weight: bool = True  # D2: a sample that falls on a tick counts once, not twice
    layout: bool = True  # D3: channel attention gives back channels x cells, not the buffer read the wrong way round
    contrast: bool = True  # D4: distance is the root mean square, so that the margin means something; normalised once
    span: bool = True  # D5: cell (d, t) decodes to [t, t + d + 1), as it was trained, and row 0 is used
    last: bool = True  # D6: a segment may end with the window although the curve of ends does not reach there
    curves: bool = True  # D7: targets of the boundary generator lie at the boundaries
    scale: bool = True  # D10: attention logits divided by the root of the number of their terms; fusion without 0 / 0
    ranking: bool = True  # D16, D19: soft-NMS loses no proposal, ties keep their order, thresholds and nan have bounds
    absent: bool = True  # no number: an absent modality has no say in fusion and losses; released: it is zeros

    @classmethod
    def none(cls) -> Self:
        """Everything as released."""
        return cls(**dict.fromkeys((f.name for f in dataclasses.fields(cls)), False))


@dataclass(frozen=True)
class BATFDSizes:
    """Everything that decides the network, its targets and its losses: plain values, saved beside the tensors."""

    ticks: int = 512  # T: longest window; a shorter one is padded
    overlap: int = 128  # ticks shared by neighbouring windows; at least the longest segment
    durations: int = 40  # D: longest segment, ticks
    samples: int = 10  # N: points that a segment is sampled at
    width: int = 256  # C: of both encoders' features
    video: str = "mvit_b"  # encoder: "c3d", "mvit_t", "mvit_s", "mvit_b", or "features" for stored ones
    video_channels: tuple[int, ...] = (64, 96, 128, 128)  # of "c3d"; of "features" how many there are
    audio: str = "vit_b"  # encoder: "cnn", "vit_t", "vit_s", "vit_b", or "features"
    audio_channels: tuple[int, ...] = (32, 64, 64)  # of "cnn"; of "features" how many there are
    boundary: tuple[int, int] = (512, 128)  # widths of the boundary module
    relations: bool = True  # the proposal relation block: BA-TFD+ has it, BA-TFD has not
    generator: bool = False  # the complementary boundary generator of BA-TFD+; T must then be a multiple of 4
    corrections: Corrections = Corrections()

    margin: float = 0.99  # of the contrastive loss
    loss_weights: dict[str, float] = field(
        default_factory=lambda: {
            "fusion_map": 1.0,
            "video_map": 0.5,
            "audio_map": 0.5,
            "video_frame": 1.0,
            "audio_frame": 1.0,
            "contrast": 0.1,
            "fusion_generator": 1.0,
            "video_generator": 0.5,
            "audio_generator": 0.5,
            "video_generator_feature": 0.005,
            "audio_generator_feature": 0.005,
        }
    )

    # Soft-NMS. Two segments overlap if their IoU is above low + (high - low) * duration of the better one in seconds.
    nms_alpha: float = 0.7234
    nms_low: float = 0.1968
    nms_high: float = 0.4123
    proposals: int = 101  # kept per modality and window

    def __post_init__(self) -> None:
        """Refuse words and numbers that nothing understands."""
        for name, known in (("video", VIDEO_ENCODERS), ("audio", AUDIO_ENCODERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"BATFDSizes.{name} is {getattr(self, name)!r}; known: {', '.join(known)}")
        if unknown := set(self.loss_weights) - set(LOSSES):
            raise ValueError(f"BATFDSizes.loss_weights has {sorted(unknown)}; known: {', '.join(LOSSES)}")
        if self.audio == "cnn" and 4 * self.audio_channels[-1] != self.width:
            raise ValueError(f"the audio CNN gives {4 * self.audio_channels[-1]} channels, not {self.width}")
        if self.generator and (self.ticks % 4 or not self.relations):
            raise ValueError("the boundary generator is part of BA-TFD+ and needs a number of ticks divisible by 4")
        for name in ("video_channels", "audio_channels", "boundary"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("video_channels", "audio_channels", "boundary")}
        return dataclasses.asdict(self) | lists

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read :meth:`to_dict` back.

        Raises:
            ValueError: a key is unknown or a value is not understood.
        """
        try:
            return cls(**data | {"corrections": Corrections(**data.get("corrections", {}))})
        except TypeError as cause:
            raise ValueError(f"not the sizes of a BA-TFD: {cause}") from cause

    def reference(self) -> Self:
        """The same sizes with everything as the released code has it."""
        return dataclasses.replace(self, corrections=Corrections.none())


VIDEO_ENCODERS = ("c3d", *(f"mvit_{size}" for size in STAGES), "features")
AUDIO_ENCODERS = ("cnn", *(f"vit_{size}" for size in VIT_WIDTHS), "features")
LOSSES = (
    "fusion_map",
    "video_map",
    "audio_map",
    "video_frame",
    "audio_frame",
    "contrast",
    "fusion_generator",
    "video_generator",
    "audio_generator",
    "video_generator_feature",
    "audio_generator_feature",
)

# ------------------------------------------------------------------------------- what network and criterion exchange


class BATFDInput(NamedTuple):
    """One window as the network takes it; a batch has one more axis in front."""

    video: Tensor  # (3, T, 96, 96) about 0 to 1; with stored features (T, d)
    audio: Tensor  # (64, 4 T) log-mel; with stored features (T, d)
    present: Tensor  # (2,) bool, whether there is a video and an audio


class Ends(NamedTuple):
    """What the boundary generator says of one modality, or of both fused."""

    start: Tensor  # (B, T) in (0, 1)
    end: Tensor
    feature: Tensor | None = None  # (B, 1536, T), of one modality


class Boundaries(NamedTuple):
    """What is said of the segments of one modality, or of both fused."""

    maps: Tensor  # (B, M, D, T) in (0, 1); M = 3 branches (position, channel, joint) in BA-TFD+, 1 in BA-TFD
    ends: Ends | None = None  # with the boundary generator
    back: Ends | None = None  # the same of the clip played backwards, on its own time axis


class Decoded(NamedTuple):
    """What proposals of one modality, or of both fused, are read from."""

    map: Tensor  # (B, D, T), the mean of the branches
    start: Tensor | None = None  # (B, T), with the boundary generator
    end: Tensor | None = None


class BATFDOutputs(NamedTuple):
    """Everything the network says about a batch of windows."""

    fusion: Boundaries
    video: Boundaries
    audio: Boundaries
    video_frames: Tensor  # (B, T) logits of forgery of each tick
    audio_frames: Tensor
    video_features: Tensor  # (B, C, T)
    audio_features: Tensor
    present: Tensor  # (B, 2) bool, as it was given


class Curves(NamedTuple):
    """Targets of the boundary generator."""

    start: Tensor  # (B, T) in [0, 1]
    end: Tensor


class BATFDTargets(NamedTuple):
    """Truth of a batch."""

    fusion_map: Tensor  # (B, D, T) IoU of each segment with the best true one
    video_map: Tensor
    audio_map: Tensor
    video_frames: Tensor  # (B, T) 1 forged, 0 authentic
    audio_frames: Tensor
    authentic: Tensor  # (B,) bool, nothing is forged in either modality
    ticks: Tensor  # (B,) how many there are; may exceed T
    fusion_curves: Curves | None = None  # with the boundary generator
    video_curves: Curves | None = None
    audio_curves: Curves | None = None


# --------------------------------------------------------------------------------------------------------- detector


class FrameClassifier(nn.Module):
    """A linear classifier of every tick."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lr_layer = nn.Sequential(OrderedDict(conv=nn.Conv1d(width, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to logits (B, 1, T)."""
        out: Tensor = self.lr_layer(x)
        return out


class BATFD(ClipDetector):
    """BA-TFD or BA-TFD+, as the sizes say. Parameters have the names of the released checkpoints."""

    parts: Mapping[str, str] = {"video": "video_encoder", "audio": "audio_encoder"}

    sizes: BATFDSizes

    def __init__(self, sizes: BATFDSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.clock = Clock(ticks=sizes.ticks, overlap=min(sizes.overlap, sizes.ticks // 2), face=SIDE)
        self.loss_weights = {name: weight for name, weight in sizes.loss_weights.items() if self._uses(name)}
        if not sizes.corrections.contrast:  # D4: divided by C T here, and once more in the loss
            self.loss_weights["contrast"] /= sizes.width * sizes.ticks
        self.video_encoder = video_encoder(sizes)
        self.audio_encoder = audio_encoder(sizes)
        self.video_frame_classifier = FrameClassifier(sizes.width)
        self.audio_frame_classifier = FrameClassifier(sizes.width)
        if sizes.generator:
            self.video_comp_boundary_generator = NestedUNet(sizes.width + 1)
            self.audio_comp_boundary_generator = NestedUNet(sizes.width + 1)
            self.cbg_fusion_start = map_fusion(sizes, 1)
            self.cbg_fusion_end = map_fusion(sizes, 1)
        self.video_boundary_module = boundary_module(sizes)
        self.audio_boundary_module = boundary_module(sizes)
        names = ("prb_fusion_p", "prb_fusion_c", "prb_fusion_p_c") if sizes.relations else ("fusion",)
        self._fusions = names
        for name in names:
            self.add_module(name, map_fusion(sizes, sizes.durations))

    def _uses(self, loss: str) -> bool:
        return self.sizes.generator or "generator" not in loss

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """All parameters, as released, if nothing is corrected; else only matrices and kernels, positions left out."""
        if self.sizes.corrections == Corrections.none():
            return True
        return parameter.ndim >= 2 and not name.rpartition(".")[2].startswith(("rel_pos", "pos_embedding"))

    # ------------------------------------------------------------------------------------------------------ input

    def preprocess(self, window: ClipWindow) -> BATFDInput:
        """One window to the network's input, exactly as the released code prepares a clip.

        Faces are scaled to [0, 1], squashed to 96 x 96 and followed by zeros up to T ticks; the sound is followed by
        silence, then becomes a log-mel spectrogram. What is longer is cut at its end. Sound is expected at the clock's
        rate, mono (the released code takes the first channel of whatever comes).

        An absent modality becomes zeros: black frames, a silent spectrogram. With ``corrections.absent`` it is also
        masked where the network allows it: the fused map is then that of the other modality alone, the losses pass the
        window over, and nothing is said about it. The network has no mask inside a modality, so ticks without a face
        are black frames to it, in both modes.

        Raises:
            ValueError: an encoder takes stored features, which no window holds.
        """
        sizes = self.sizes
        if "features" in (sizes.video, sizes.audio):
            raise ValueError("this network takes stored features: give them to collate() as a BATFDInput")
        frames = torch.zeros(0, 3, SIDE, SIDE)
        if window.faces is not None:
            frames = torch.tensor(window.faces[: sizes.ticks]).permute(0, 3, 1, 2).float() / 255
        video = pad_time(resize_frames(frames).transpose(0, 1), sizes.ticks)  # (3, T, 96, 96)
        sound = torch.zeros(1, 0) if window.sound is None else torch.tensor(window.sound).float()[None]
        sound = pad_time(sound, int(sizes.ticks / self.clock.fps * self.clock.rate))
        audio = log_mel(self.clock.rate)(sound[0])  # (64, 4 T)
        present = torch.tensor([window.faces is not None, window.sound is not None])
        return BATFDInput(video, audio, present)

    def collate(self, inputs: Sequence[BATFDInput]) -> BATFDInput:
        """Windows to one batch; every window has T ticks already."""
        return BATFDInput(*(torch.stack(list(column)) for column in zip(*inputs, strict=True)))

    def targets(self, truths: Sequence[ClipTruth], ticks: Sequence[int]) -> BATFDTargets:
        """Truth of a batch; see :class:`BATFDTargets`.

        What is forged in either modality is the truth of both fused. Spans of the two that overlap are one there; in
        the released code they stay apart (with ``corrections.absent`` off, as it belongs to the same question).
        """
        sizes = self.sizes
        merge = union if sizes.corrections.absent else distinct
        fused = [merge(truth.video + truth.audio) for truth in truths]
        video, audio = [list(truth.video) for truth in truths], [list(truth.audio) for truth in truths]

        def maps(spans: list[list[tuple[float, float]]]) -> Tensor:
            cells = [iou_map(s, n, sizes.ticks, sizes.durations) for s, n in zip(spans, ticks, strict=True)]
            return torch.stack(cells)

        def frames(spans: list[list[tuple[float, float]]]) -> Tensor:
            return torch.stack([frame_labels(s, sizes.ticks) for s in spans])

        def curves(spans: list[list[tuple[float, float]]]) -> Curves | None:
            if not sizes.generator:
                return None
            pairs = [
                boundary_curves(s, n, sizes.ticks, sizes.durations, corrected=sizes.corrections.curves)
                for s, n in zip(spans, ticks, strict=True)
            ]
            return Curves(torch.stack([start for start, _ in pairs]), torch.stack([end for _, end in pairs]))

        return BATFDTargets(
            fusion_map=maps(fused),
            video_map=maps(video),
            audio_map=maps(audio),
            video_frames=frames(video),
            audio_frames=frames(audio),
            authentic=torch.tensor([not spans for spans in fused]),
            ticks=torch.tensor(list(ticks)),
            fusion_curves=curves(fused),
            video_curves=curves(video),
            audio_curves=curves(audio),
        )

    # ---------------------------------------------------------------------------------------------------- network

    def forward(self, batch: BATFDInput, targets: BATFDTargets | None = None) -> BATFDOutputs:
        """A batch to outputs; targets are not looked at. The boundary generator reads the clip backwards too."""
        xv, lv, gv = self._encode(self.video_encoder, self.video_frame_classifier, batch.video)
        xa, la, ga = self._encode(self.audio_encoder, self.audio_frame_classifier, batch.audio)
        video = Boundaries(self.video_boundary_module(gv))
        audio = Boundaries(self.audio_boundary_module(ga))
        fused = torch.stack(
            [
                self.get_submodule(name)(gv, ga, video.maps[:, i], audio.maps[:, i])
                for i, name in enumerate(self._fusions)
            ],
            1,
        )
        fusion = Boundaries(self._alone(fused, video.maps, audio.maps, batch.present))
        if self.sizes.generator:
            straight = self._generate(gv, ga, batch.present)
            video_back, audio_back = backwards(batch.video, self.sizes.video), backwards(batch.audio, self.sizes.audio)
            _, _, gv = self._encode(self.video_encoder, self.video_frame_classifier, video_back)
            _, _, ga = self._encode(self.audio_encoder, self.audio_frame_classifier, audio_back)
            reversed_ = self._generate(gv, ga, batch.present)
            fusion, video, audio = (
                said._replace(ends=ends, back=back)
                for said, ends, back in zip((fusion, video, audio), straight, reversed_, strict=True)
            )
        return BATFDOutputs(fusion, video, audio, lv[:, 0], la[:, 0], xv, xa, batch.present)

    def _encode(self, encoder: nn.Module, classifier: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, C, T), frame logits (B, 1, T), and both together (B, C + 1, T), the logit last."""
        features = encoder(x)
        logits = classifier(features)
        return features, logits, torch.cat([features, logits], 1)

    def _generate(self, gv: Tensor, ga: Tensor, present: Tensor) -> tuple[Ends, Ends, Ends]:
        """What the boundary generator says of both fused, of video and of audio."""
        feature_v, v = self.video_comp_boundary_generator(gv)  # (B, 1536, T), (B, 2, T); 0 is the end, 1 the start
        feature_a, a = self.audio_comp_boundary_generator(ga)
        fused = [
            self._alone(fusion(gv, ga, v[:, i : i + 1], a[:, i : i + 1]), v[:, i : i + 1], a[:, i : i + 1], present)
            for i, fusion in ((1, self.cbg_fusion_start), (0, self.cbg_fusion_end))
        ]  # (B, 1, T) each
        return (
            Ends(fused[0][:, 0], fused[1][:, 0]),
            Ends(v[:, 1], v[:, 0], feature_v),
            Ends(a[:, 1], a[:, 0], feature_a),
        )

    def _alone(self, fused: Tensor, video: Tensor, audio: Tensor, present: Tensor) -> Tensor:
        """The fused maps, but those of the only modality present where the other is absent."""
        if not self.sizes.corrections.absent:
            return fused
        shape = (-1, *(1,) * (fused.ndim - 1))
        has_video, has_audio = (present[:, i].view(shape) for i in (0, 1))
        only_video, only_audio = has_video & ~has_audio, has_audio & ~has_video
        return torch.where(only_video, video, torch.where(only_audio, audio, fused))

    # -------------------------------------------------------------------------------------------------- criterion

    def criterion(
        self, outputs: BATFDOutputs, targets: BATFDTargets, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Raw, named losses, one for every name in ``loss_weights``; nothing is random.

        Every loss is a mean over the ticks that are there, then over windows, so short ones weigh as much as long ones.
        """
        n = targets.ticks
        everything = torch.ones_like(outputs.present)
        has = outputs.present if self.sizes.corrections.absent else everything
        video, audio, both, either = has[:, 0], has[:, 1], has.all(1), has.any(1)
        losses = {
            "fusion_map": map_loss(outputs.fusion.maps, targets.fusion_map, n, either),
            "video_map": map_loss(outputs.video.maps, targets.video_map, n, video),
            "audio_map": map_loss(outputs.audio.maps, targets.audio_map, n, audio),
            "video_frame": frame_loss(outputs.video_frames, targets.video_frames, n, video),
            "audio_frame": frame_loss(outputs.audio_frames, targets.audio_frames, n, audio),
            "contrast": self.contrast_loss(outputs.video_features, outputs.audio_features, targets.authentic, n, both),
        }
        if self.sizes.generator:
            for name, said, true, those in (
                ("fusion", outputs.fusion, targets.fusion_curves, either),
                ("video", outputs.video, targets.video_curves, video),
                ("audio", outputs.audio, targets.audio_curves, audio),
            ):
                if said.ends is None or said.back is None or true is None:
                    raise ValueError("the boundary generator needs targets for its curves")
                losses[f"{name}_generator"] = curve_loss(said.ends, said.back, true, n, those)
                if said.ends.feature is not None and said.back.feature is not None:
                    apart = said.ends.feature - said.back.feature.flip(-1)
                    losses[f"{name}_generator_feature"] = masked_mean(apart.square(), n, those)
        return losses

    def contrast_loss(self, video: Tensor, audio: Tensor, authentic: Tensor, ticks: Tensor, those: Tensor) -> Tensor:
        """Features of picture and sound pulled together where both are authentic, else pushed ``margin`` apart.

        As released the distance is the length of the difference over all C n values of a window, the loss is divided
        by C T, and so is its weight (D4): in effect it is off. Corrected, it is the root mean square.
        """
        width, length = video.shape[1:]
        inside = _inside(ticks, length)[:, None]  # (B, 1, T)
        apart = (video - audio) * inside
        if self.sizes.corrections.contrast:
            scale = inside.sum((1, 2)).clamp(min=1) * width
            distance = torch.linalg.vector_norm(apart, dim=(1, 2)) / scale.sqrt()
        else:
            distance = torch.linalg.vector_norm(apart, dim=(1, 2))
        far = (self.sizes.margin - distance).clamp(min=0).square()
        loss = _mean_of(torch.where(authentic.bool(), distance.square(), far), those)
        return loss if self.sizes.corrections.contrast else (loss / (width * length)).clamp(max=1)

    # --------------------------------------------------------------------------------------------------- decoding

    def decode(self, outputs: BATFDOutputs) -> dict[str, Decoded]:
        """What proposals are read from, by modality.

        The curves of the boundary generator, read forwards and backwards, are joined by their geometric mean.
        """
        decoded = {}
        for key, said in (("audio_visual", outputs.fusion), ("video", outputs.video), ("audio", outputs.audio)):
            decoded[key] = Decoded(said.maps.mean(1))
            if said.ends is not None and said.back is not None:
                start = (said.ends.start * said.back.end.flip(-1)).sqrt()
                end = (said.ends.end * said.back.start.flip(-1)).sqrt()
                decoded[key] = decoded[key]._replace(start=start, end=end)
        return decoded

    def postprocess(self, outputs: BATFDOutputs, ticks: Sequence[int]) -> list[ClipFinding]:
        """One finding per window.

        Proposals are the segments of the map after soft-NMS. The curve of a modality is what its frame classifier says,
        that of both the higher of the two. The papers have no score for a whole clip: ours is that of the best segment
        (if the window is too short for any, of the most suspect tick). ``audio_visual`` is there if both are.
        """
        decoded = self.decode(outputs)
        frames = {"video": outputs.video_frames.sigmoid(), "audio": outputs.audio_frames.sigmoid()}
        frames["audio_visual"] = torch.maximum(frames["video"], frames["audio"])
        findings = []
        for i, n in enumerate(ticks):
            here = min(n, self.sizes.ticks)
            has_video, has_audio = outputs.present[i].tolist()
            given = {"video": has_video, "audio": has_audio, "audio_visual": has_video and has_audio}
            finding = ClipFinding({}, {}, {})
            for key, there in given.items():
                if not there:
                    continue
                curve = frames[key][i, :here].detach().float().cpu()
                proposals = self._proposals(decoded[key], i, n)
                best = float(proposals[0, 0]) if len(proposals) else float(curve.max())
                finding.logits[key] = _logit(best)
                finding.curves[key] = curve
                finding.proposals[key] = proposals
            findings.append(finding)
        return findings

    def _proposals(self, said: Decoded, i: int, ticks: int) -> npt.NDArray[np.float64]:
        """Ranked segments (k, 3) of one window: the cells of its map after soft-NMS."""
        sizes, right = self.sizes, self.sizes.corrections

        def array(x: Tensor) -> npt.NDArray[np.float32]:
            values: npt.NDArray[np.float32] = x[i].detach().float().cpu().numpy()
            return values

        table = dense_table(
            array(said.map),
            ticks,
            start=None if said.start is None else array(said.start),
            end=None if said.end is None else array(said.end),
            span=right.span,
            last=right.last,
            decimals=not right.ranking,
        )
        return soft_nms(
            table,
            sizes.nms_alpha,
            sizes.nms_low,
            sizes.nms_high,
            self.clock.fps,
            sizes.proposals,
            corrected=right.ranking,
        )


# ------------------------------------------------------------------------------------------------------- its parts


def video_encoder(sizes: BATFDSizes) -> nn.Module:
    """The encoder that the sizes name, (B, 3, T, 96, 96) or stored features (B, T, d) to (B, C, T)."""
    if sizes.video == "c3d":
        return C3D(sizes.width, sizes.video_channels)
    if sizes.video == "features":
        return FeatureInput(sizes.video_channels[0], sizes.width)
    return MViT(sizes.video.removeprefix("mvit_"), sizes.width, sizes.ticks)


def audio_encoder(sizes: BATFDSizes) -> nn.Module:
    """The encoder that the sizes name, (B, 64, 4 T) or stored features (B, T, d) to (B, C, T)."""
    if sizes.audio == "cnn":
        return AudioCNN(sizes.audio_channels)
    if sizes.audio == "features":
        return FeatureInput(sizes.audio_channels[0], sizes.width)
    return AudioViT(sizes.audio.removeprefix("vit_"), sizes.width, sizes.ticks)


@functools.cache
def log_mel(rate: int) -> LogMel:
    """The spectrogram, on the CPU, where windows are prepared whatever device the network is on."""
    return LogMel(rate)


def boundary_module(sizes: BATFDSizes) -> BoundaryModule:
    """The boundary module of one modality, (B, C + 1, T) to (B, M, D, T)."""
    right = sizes.corrections
    return BoundaryModule(
        sizes.width + 1,
        sizes.boundary,
        sizes.samples,
        sizes.durations,
        relations=sizes.relations,
        segment=right.segment,
        weight=right.weight,
        layout=right.layout,
        scale=right.scale,
    )


def map_fusion(sizes: BATFDSizes, rows: int) -> MapFusion:
    """The fusion of two maps of so many rows."""
    return MapFusion(sizes.width + 1, rows, stable=sizes.corrections.scale)


def backwards(x: Tensor, encoder: str) -> Tensor:
    """The input of an encoder from its end: (B, 3, T, S, S), (B, 64, 4 T), or stored features (B, T, d)."""
    return x.flip(1 if encoder == "features" else 2)


def union(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Spans that touch or overlap, joined."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def distinct(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every span once."""
    return sorted(set(spans))


# ---------------------------------------------------------------------------------------------------------- losses


def masked_mean(x: Tensor, ticks: Tensor, those: Tensor) -> Tensor:
    """The mean of each window over its first ``ticks`` columns, then the mean over ``those`` windows, 0 if none.

    Args:
        x: (B, ..., T).
        ticks: (B,) columns that count; more than T count as T.
        those: (B,) bool.
    """
    rows = x.flatten(1, -2) if x.ndim > 2 else x[:, None]  # (B, R, T)
    inside = _inside(ticks, x.shape[-1])[:, None]  # (B, 1, T)
    means = (rows * inside).sum((1, 2)) / (inside.sum((1, 2)).clamp(min=1) * rows.shape[1])
    return _mean_of(means, those)


def map_loss(maps: Tensor, target: Tensor, ticks: Tensor, those: Tensor) -> Tensor:
    """Squared error of (B, M, D, T) against (B, D, T), summed over the M branches."""
    return maps.shape[1] * masked_mean((maps - target[:, None]).square(), ticks, those)


def frame_loss(logits: Tensor, labels: Tensor, ticks: Tensor, those: Tensor) -> Tensor:
    """Binary cross entropy of (B, T)."""
    entropy = F.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")
    return masked_mean(entropy, ticks, those)


def curve_loss(ends: Ends, back: Ends, true: Curves, ticks: Tensor, those: Tensor) -> Tensor:
    """Squared errors of start and end, read forwards and backwards; backwards an end is a start."""
    pairs = (
        (ends.start, true.start),
        (ends.end, true.end),
        (back.end.flip(-1), true.start),
        (back.start.flip(-1), true.end),
    )
    return torch.stack([masked_mean((ours - theirs).square(), ticks, those) for ours, theirs in pairs]).sum()


def _inside(ticks: Tensor, length: int) -> Tensor:
    """(B,) to (B, length), 1 where a column counts."""
    return (torch.arange(length, device=ticks.device) < ticks[:, None]).float()


def _mean_of(values: Tensor, those: Tensor) -> Tensor:
    """The mean of the (B,) values that ``those`` (B,) selects; 0 if it selects none."""
    return (values * those).sum() / those.sum().clamp(min=1)


def _logit(p: float) -> float:
    """Of a probability, kept off 0 and 1 by 1e-6."""
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


# -------------------------------------------------------------------------------------------------- released weights


def from_released(
    source: str | os.PathLike[str] | Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    corrections: Corrections | None = None,
) -> BATFD:
    """The detector that a released checkpoint holds, in evaluation mode, every tensor in its place.

    What the tensors tell (encoders, widths, D, N and mostly T) is read off them. Published checkpoints hold the
    parameters of the boundary generator although it was never run or trained; those are checked, and left behind.

    Args:
        source: a checkpoint file of the released code, read as tensors and plain values only; or its state dict, or
            what the file holds (``state_dict`` and ``hyper_parameters``).
        options: constructor arguments of the released code; by default the file's ``hyper_parameters``. Read are
            ``temporal_dim`` (T, 512 where neither it nor a tensor tells), the weights of losses and the margin.
        corrections: none by default, as the weights have learned to live with the defects. Those of decoding (D5, D6,
            ranking) change no number that the network gives and may be switched on.

    Raises:
        WeightsError: the file cannot be read, or a tensor is missing, unexpected or of another shape.
    """
    state, told = _opened(source)
    options = told if options is None else options
    state = {_LEGACY_MLP.sub(_modern, key): value for key, value in state.items()}
    try:
        sizes = sizes_of(state, options, Corrections.none() if corrections is None else corrections)
    except (KeyError, IndexError, TypeError, ValueError) as cause:
        raise WeightsError(f"these are not the weights of a BA-TFD or BA-TFD+: {cause!r}") from cause
    idle = {key: value for key, value in state.items() if "_comp_boundary_generator." in key}
    if idle and not sizes.generator:
        with torch.device("meta"):
            layout = NestedUNet(sizes.width + 1).state_dict()
        names = {
            f"{m}_comp_boundary_generator.{key}": value for m in ("video", "audio") for key, value in layout.items()
        }
        check_fit(names, idle, "the boundary generator of BA-TFD+")
        state = {key: value for key, value in state.items() if key not in idle}
    detector = BATFD(sizes)
    check_fit(detector.state_dict(), state, "BA-TFD+" if sizes.relations else "BA-TFD")
    detector.load_state_dict(state)
    return detector.eval()


def sizes_of(state: Mapping[str, Tensor], options: Mapping[str, Any], corrections: Corrections) -> BATFDSizes:
    """The sizes of the network that a released state dict belongs to; see :func:`from_released`.

    Raises:
        KeyError, IndexError, ValueError: it belongs to none.
    """

    def shape(key: str) -> tuple[int, ...]:
        return tuple(state[key].shape)

    def depth(prefix: str) -> int:
        return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})

    ticks = None
    video_channels: tuple[int, ...] = ()
    if "video_encoder.mvit.norm.weight" in state:
        blocks = depth("video_encoder.mvit.blocks.")
        video = "mvit_" + next(size for size, stages in STAGES.items() if sum(stages) == blocks)
        ticks = (shape("video_encoder.mvit.blocks.0.attn.rel_pos_t")[0] + 1) // 2
    elif "video_encoder.block0.0.conv.weight" in state:
        video = "c3d"
        video_channels = tuple(shape(f"video_encoder.block{i}.0.conv.weight")[0] for i in range(4))
    else:
        video, video_channels = "features", (shape("video_encoder.proj.weight")[1],)

    audio_channels: tuple[int, ...] = ()
    if "audio_encoder.block.pos_embedding" in state:
        _, ticks, hidden = shape("audio_encoder.block.pos_embedding")
        audio = "vit_" + next(size for size, width in VIT_WIDTHS.items() if width == hidden)
    elif "audio_encoder.block0.1.conv.weight" in state:
        audio = "cnn"
        places = ("block0.1", "block1.0", "block2.0")
        audio_channels = tuple(shape(f"audio_encoder.{place}.conv.weight")[0] for place in places)
    else:
        audio, audio_channels = "features", (shape("audio_encoder.proj.weight")[1],)

    relations = "prb_fusion_p.a_attn_block.attn_from_bm.conv.weight" in state
    fusion = "prb_fusion_p" if relations else "fusion"
    default = BATFDSizes()
    frame, modal = float(options.get("weight_frame_loss", 2.0)), float(options.get("weight_modal_bm_loss", 1.0))
    feature = float(options.get("cbg_feature_weight", 0.01)) or 0.01
    ticks = ticks or int(options.get("temporal_dim", default.ticks))
    durations = shape(f"{fusion}.a_attn_block.attn_from_bm.conv.weight")[0]
    return BATFDSizes(
        ticks=ticks,
        overlap=min(max(default.overlap, durations), ticks // 2),
        durations=durations,
        samples=shape("video_boundary_module.block0.0.conv.weight")[2],
        width=shape("video_frame_classifier.lr_layer.conv.weight")[1],
        video=video,
        video_channels=video_channels,
        audio=audio,
        audio_channels=audio_channels,
        boundary=tuple(shape(f"video_boundary_module.block{i}.0.conv.weight")[0] for i in (0, 1)),  # type: ignore[arg-type]
        relations=relations,
        generator="cbg_fusion_start.a_attn_block.attn_from_bm.conv.weight" in state,
        corrections=corrections,
        margin=float(options.get("contrast_loss_margin", default.margin)),
        loss_weights=default.loss_weights
        | dict.fromkeys(("video_frame", "audio_frame"), frame / 2)
        | dict.fromkeys(("video_map", "audio_map", "video_generator", "audio_generator"), modal / 2)
        | dict.fromkeys(("video_generator_feature", "audio_generator_feature"), feature * modal / 2)
        | {"contrast": float(options.get("weight_contrastive_loss", default.loss_weights["contrast"]))},
    )


_LEGACY_MLP = re.compile(r"\.mlp\.linear_([12])\.")  # torchvision before 0.14


def _modern(match: re.Match[str]) -> str:
    return {"1": ".mlp.0.", "2": ".mlp.3."}[match[1]]


def _opened(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """State dict and constructor arguments of a checkpoint, or of what it holds."""
    where = "the state dict"
    if not isinstance(source, Mapping):
        where = os.fspath(source)
        try:
            if where.endswith(".safetensors"):
                source = load_file(where)
            else:
                source = torch.load(where, map_location="cpu", weights_only=True)
        except Exception as cause:
            raise WeightsError(f"{where} cannot be read as weights: {cause}") from cause
    told: Any = {}
    if isinstance(source, Mapping) and isinstance(source.get("state_dict"), Mapping):
        told, source = source.get("hyper_parameters") or {}, source["state_dict"]
    if not isinstance(source, Mapping) or not all(isinstance(value, Tensor) for value in source.values()):
        raise WeightsError(f"{where} cannot be read as weights: it holds more or other things than named tensors")
    return dict(source), told if isinstance(told, Mapping) else {}


# ---------------------------------------------------------------------------------------------------------- builder

_TINY = BATFDSizes(
    ticks=32,
    overlap=8,
    durations=8,
    width=16,
    video="c3d",
    video_channels=(4, 6, 6, 8),
    audio="cnn",
    audio_channels=(4, 6, 4),
    boundary=(16, 8),
)

PRESETS: dict[str, BATFDSizes] = {
    "ba-tfd": BATFDSizes(video="c3d", audio="cnn", relations=False),
    "ba-tfd-plus": BATFDSizes(),
    "ba-tfd-tiny": dataclasses.replace(_TINY, relations=False),
    "ba-tfd-plus-tiny": _TINY,
}


def build(name: str) -> BATFD:
    """A detector of the named sizes, with random weights from the global generator.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in PRESETS:
        raise ValueError(f"no BA-TFD preset {name!r}; there are {', '.join(PRESETS)}")
    return BATFD(PRESETS[name])
