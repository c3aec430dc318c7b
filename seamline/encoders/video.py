"""Face crops of a clip to one feature vector per tick.

Sources: C3D (Tran et al., ICCV 2015) as BA-TFD uses it (Cai et al., DICTA 2022, arXiv:2204.06228), and MViT-v2 (Li et
al., CVPR 2022) by torchvision as BA-TFD+ uses it (Cai et al., CVIU 2023, arXiv:2305.01979). Parameters have the names
of the released checkpoints. Every encoder maps ``(B, 3, T, S, S)`` to ``(B, C, T)``; time is never pooled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._torchvision import ensure_importable

SIDE = 96  # pixels: side of the crops that the released encoders were built for
STAGES = {"t": (1, 2, 5, 2), "s": (1, 2, 11, 2), "b": (2, 3, 16, 3)}  # blocks of each stage of MViT-v2
STAGE_HEADS = (1, 2, 4, 8)
STAGE_WIDTHS = (96, 192, 384, 768)
STAGE_POOLING = (8, 4, 2, 1)  # spatial stride of keys and values


class ConvUnit(nn.Module):
    """A convolution with bias, then a leaky ReLU of slope 0.01."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the convolution takes."""
        return F.leaky_relu(self.conv(x))


class C3D(nn.Module):
    """3-D convolutions, the encoder of BA-TFD.

    Args:
        width: channels C of the result.
        channels: widths of the four blocks.
    """

    def __init__(self, width: int, channels: Sequence[int] = (64, 96, 128, 128)) -> None:
        super().__init__()
        a, b, c, d = channels
        self.block0 = nn.Sequential(_conv3d(3, a), _conv3d(a, a), nn.MaxPool3d((1, 3, 3)))
        self.block1 = nn.Sequential(_conv3d(a, b), _conv3d(b, b), nn.MaxPool3d((1, 2, 2)))
        self.block2 = nn.Sequential(_conv3d(b, c), _conv3d(c, c), nn.MaxPool3d((1, 2, 2)))
        self.block3 = nn.Sequential(
            _conv3d(c, d),
            nn.MaxPool3d((1, 2, 2)),
            _conv3d(d, d),
            nn.MaxPool3d((1, 2, 2)),  # (B, d, T, 2, 2)
            _Columns(),
            ConvUnit(nn.Conv1d(4 * d, width, 1)),
        )

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, 96, 96), about 0 to 1, to (B, C, T)."""
        out: Tensor = self.block3(self.block2(self.block1(self.block0(video))))
        return out


class MViT(nn.Module):
    """Multiscale vision transformer, version 2: the encoder of BA-TFD+, on torchvision's blocks.

    Residual pooling without the class token, decomposed relative positions, projection at the attention, no head, and a
    patch of 15 x 15 pixels every 12. Cost and memory grow with the square of T.

    Args:
        size: "t", "s" or "b".
        width: channels C of the result, a multiple of 8.
        ticks: T that the tables of relative positions are built for; at another length they are interpolated.
        drop_path: stochastic depth of the last block; it grows linearly from 0 at the first.

    Raises:
        ValueError: there is no such size, or the width is not a multiple of 8.
    """

    def __init__(self, size: str, width: int, ticks: int, drop_path: float = 0.2) -> None:
        super().__init__()
        ensure_importable()
        from torchvision.models.video import mvit  # type: ignore[import-untyped]

        if size not in STAGES:
            raise ValueError(f"MViT-v2 comes in sizes {', '.join(STAGES)}, not {size!r}")
        if width % STAGE_HEADS[-1]:
            raise ValueError(f"the width of MViT-v2 is a multiple of {STAGE_HEADS[-1]}, not {width}")
        blocks = []
        before = STAGE_WIDTHS[0]
        for stage, depth in enumerate(STAGES[size]):
            for i in range(depth):
                after = width if stage == 3 and i == depth - 1 else STAGE_WIDTHS[stage]
                step, pool = 2 if stage and not i else 1, STAGE_POOLING[stage]
                blocks.append(
                    mvit.MSBlockConfig(
                        num_heads=STAGE_HEADS[stage],
                        input_channels=before,
                        output_channels=after,
                        kernel_q=[3, 3, 3],
                        kernel_kv=[3, 3, 3],
                        stride_q=[1, step, step],
                        stride_kv=[1, pool, pool],
                    )
                )
                before = after
        self.mvit: Any = unfilled(
            lambda: mvit.MViT(
                spatial_size=(SIDE, SIDE),
                temporal_size=ticks,
                block_setting=blocks,
                residual_pool=True,
                residual_with_cls_embed=False,
                rel_pos_embed=True,
                proj_after_attn=True,
                stochastic_depth_prob=drop_path,
                num_classes=1,
                patch_embed_kernel=(3, 15, 15),
                patch_embed_stride=(1, 12, 12),
                patch_embed_padding=(1, 3, 3),
            )
        )
        del self.mvit.head
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw the parameters anew, as torchvision does: normal with deviation 0.02, convolutions by their own rule."""
        for module in self.mvit.modules():
            if isinstance(module, (nn.Conv3d, nn.LayerNorm)):
                module.reset_parameters()
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for name, parameter in self.mvit.named_parameters():
            if name.endswith(("class_token", "rel_pos_h", "rel_pos_w", "rel_pos_t")):
                nn.init.normal_(parameter, std=0.02)

    def forward(self, video: Tensor) -> Tensor:
        """(B, 3, T, 96, 96), about 0 to 1, to (B, C, T)."""
        grid = self.mvit.conv_proj(video)  # (B, 96, T, 8, 8)
        shape = tuple(grid.shape[2:])
        x = self.mvit.pos_encoding(grid.flatten(2).transpose(1, 2))  # (B, 1 + 64 T, 96)
        for block in self.mvit.blocks:
            x, shape = block(x, shape)
        out: Tensor = self.mvit.norm(x)[:, 1:].transpose(1, 2)  # the grid has shrunk to 1 x 1
        return out


class FeatureInput(nn.Module):
    """Features that another network extracted, one vector per tick, projected to the width in use."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, inputs) to (B, C, T)."""
        out: Tensor = self.proj(features).transpose(1, 2)
        return out


def resize_frames(frames: Tensor, side: int = SIDE) -> Tensor:
    """Frames of any shape squashed to a square as the released encoders were fed.

    Bicubic (a = -0.75), no antialias, border repeated, not clamped: values overshoot [0, 1] by up to about 0.2.

    Args:
        frames: (n, 3, H, W) in [0, 1].
        side: of the result, pixels.

    Returns:
        (n, 3, side, side).
    """
    if frames.shape[-2:] == (side, side) or not len(frames):
        return frames if len(frames) else frames.new_zeros(0, 3, side, side)
    return F.interpolate(frames, (side, side), mode="bicubic", align_corners=False)


def unfilled(build: Callable[[], nn.Module]) -> nn.Module:
    """A module without buffers whose parameters have a place but no values yet, on the default device.

    torchvision draws most parameters twice, which is most of the time that building a large encoder takes.
    """
    device = torch.get_default_device()
    with torch.device("meta"):
        module = build()
    return module.to_empty(device=device)


class _Columns(nn.Module):
    """(B, C, T, h, w) to (B, C h w, T)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 1, 3, 4, 2).flatten(1, 3)


def _conv3d(inputs: int, outputs: int) -> ConvUnit:
    return ConvUnit(nn.Conv3d(inputs, outputs, 3, padding=1))


def pad_time(x: Tensor, ticks: int) -> Tensor:
    """Zeros after the end of axis 1, or a cut there: (C, n, ...) to (C, ticks, ...)."""
    missing = ticks - x.shape[1]
    if missing <= 0:
        return x[:, :ticks]
    return torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], 1)
