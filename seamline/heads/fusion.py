"""Fusion of what two modalities say: each cell of two maps weighs as its map and both feature sequences tell.

Source: BA-TFD (Cai et al., DICTA 2022, arXiv:2204.06228). Parameter names are those of the released checkpoints.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class _Conv(nn.Module):
    """A 1x1 convolution over time, under the released name."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class MapWeight(nn.Module):
    """The logit of one modality's say in every cell."""

    def __init__(self, channels: int, rows: int, other_channels: int | None = None) -> None:
        super().__init__()
        self.attn_from_self_features = _Conv(channels, rows)
        self.attn_from_another_features = _Conv(channels if other_channels is None else other_channels, rows)
        self.attn_from_bm = _Conv(rows, rows)

    def forward(self, own: Tensor, other: Tensor, map_: Tensor) -> Tensor:
        """Features of both modalities (B, F, T) and the own map (B, D, T) to logits (B, D, T)."""
        asked = self.attn_from_self_features(own) + self.attn_from_another_features(other)
        logits: Tensor = (self.attn_from_bm(map_) + asked) / 3
        return logits


class MapFusion(nn.Module):
    """Two maps to one: ``(M_v w_v + M_a w_a) / (w_v + w_a)`` with ``w`` the sigmoid of :class:`MapWeight`.

    Args:
        channels: F of both feature sequences.
        rows: D of the maps; 1 for curves.
        stable: D10: shares come from the difference of log-sigmoids, which never fails. Released: from sigmoids divided
            by their sum, which in half precision is 0 / 0 where both logits are about -20.
        audio_channels: F of the audio sequence where it differs.
    """

    def __init__(self, channels: int, rows: int, *, stable: bool = True, audio_channels: int | None = None) -> None:
        super().__init__()
        audio = channels if audio_channels is None else audio_channels
        self.stable = stable
        self.a_attn_block = MapWeight(audio, rows, channels)
        self.v_attn_block = MapWeight(channels, rows, audio)

    def forward(self, video: Tensor, audio: Tensor, video_map: Tensor, audio_map: Tensor) -> Tensor:
        """Features (B, F, T) and maps (B, D, T), video first, to the fused map (B, D, T)."""
        v, a = self.v_attn_block(video, audio, video_map), self.a_attn_block(audio, video, audio_map)
        if self.stable:
            share = (F.logsigmoid(v) - F.logsigmoid(a)).sigmoid()
            fused: Tensor = audio_map + share * (video_map - audio_map)
            return fused
        v, a = v.sigmoid(), a.sigmoid()
        fused = video_map * (v / (v + a)) + audio_map * (a / (v + a))
        return fused
