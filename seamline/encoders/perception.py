"""Image features by any timm model, first of all the Perception Encoder.

Source: Perception Encoder (Bolya et al., 2025, arXiv:2504.13181), as timm implements it. What differs from timm's
defaults: the rotary positions are the plain integers 1..n of the grid in use, as in the official code, and the table of
learned positions is resampled bilinearly, without antialias, when weights of another image size are loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError
from . import Features
from ._torchvision import ensure_importable

# Our name: timm's model and the options that make it. "pe-tiny" has random weights only: it is for tests.
PERCEPTION: dict[str, tuple[str, dict[str, Any]]] = {
    "pe-l14-336": ("vit_pe_core_large_patch14_336", {}),
    "pe-b16-224": ("vit_pe_core_base_patch16_224", {}),
    "pe-s16-384": ("vit_pe_core_small_patch16_384", {}),
    "pe-t16-384": ("vit_pe_core_tiny_patch16_384", {}),
    "pe-tiny": ("vit_pe_core_tiny_patch16_384", {"patch_size": 14, "embed_dim": 64, "depth": 2, "num_heads": 4}),
}


class TimmEncoder(nn.Module):
    """A timm feature encoder with random weights.

    Args:
        name: a key of ``PERCEPTION`` or any timm model name.
        image_size: side of the square input in pixels. Convolutional models take any other size as well.

    Raises:
        ValueError: timm does not know the name.

    Attributes:
        width: channels of the features.
        stride: pixels per grid cell, along a side.
    """

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        ensure_importable()
        import timm

        self.name = name
        self.image_size = image_size
        timm_name, options = PERCEPTION.get(name, (name, {}))
        if not timm.is_model(timm_name):
            raise ValueError(f"timm has no model {name!r}; Perception Encoders here are {', '.join(PERCEPTION)}")
        if "vit_pe_core" in timm_name:
            patch = options.get("patch_size") or int(timm_name.split("patch")[1].split("_")[0])
            options = options | {"img_size": image_size, "ref_feat_shape": (image_size // patch,) * 2}
        elif "img_size" in _accepted(timm_name):
            options = options | {"img_size": image_size}
        model: Any = timm.create_model(timm_name, pretrained=False, num_classes=0, **options)
        self.model = model
        self.width: int = model.num_features
        self.stride: int = model.feature_info[-1]["reduction"]
        self._prefix: int = getattr(model, "num_prefix_tokens", 0)
        self._own_pool = getattr(model, "head_hidden_size", None) == self.width

    def forward(self, pixels: Tensor) -> Features:
        """(B, 3, H, W) to features of the last layer."""
        x = self.model.forward_features(pixels)
        if x.ndim == 3:  # tokens, row-major after the class token and registers
            grid = x[:, self._prefix :].transpose(1, 2).unflatten(2, (pixels.shape[2] // self.stride, -1))
        elif getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            grid = x.permute(0, 3, 1, 2)
        else:
            grid = x
        pooled = self.model.forward_head(x, pre_logits=True) if self._own_pool else grid.mean((2, 3))
        return Features(grid, pooled)

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Load published weights: the official Perception Encoder layout, with or without ``visual.``, or timm's own.

        The text tower, the projection to the text space and classifier heads are left out; everything else must fit
        exactly. Positions learned at another image size are resampled.

        Raises:
            WeightsError: a tensor is missing, unexpected or of another shape; all of them are named.
        """
        if "visual.conv1.weight" in state:
            state = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
        ours = self.model.state_dict()
        if "conv1.weight" in state:
            tower = {key: value for key, value in state.items() if key != "proj"}
            given = from_places({key: official_place(key) for key in ours}, ours, tower)
        else:
            given = {key: value for key, value in state.items() if not key.startswith("head.")}
        if "pos_embed" in given and given["pos_embed"].shape != ours["pos_embed"].shape:
            given["pos_embed"] = resample_positions(given["pos_embed"], self._prefix, self.image_size // self.stride)
        check_fit(ours, given, f"encoder {self.name}")
        self.model.load_state_dict(given)


def resample_positions(table: Tensor, prefix: int, side: int) -> Tensor:
    """A table of learned positions for another square grid: (1, prefix + n n, W) to (1, prefix + side side, W)."""
    head, patches = table[:, :prefix], table[:, prefix:]
    n = round(patches.shape[1] ** 0.5)
    grid = patches.transpose(1, 2).unflatten(2, (n, n))
    grid = F.interpolate(grid, (side, side), mode="bilinear", align_corners=False)
    return torch.cat([head, grid.flatten(2).transpose(1, 2)], 1)


# --------------------------------------------------------------------------------------- other names for the tensors


class Place(NamedTuple):
    """Where a tensor of ours lies in another layout: equal parts ``start`` to ``stop``, of ``parts``, of ``key``."""

    key: str
    start: int = 0
    stop: int = 1
    parts: int = 1


_OFFICIAL = (
    (r"^cls_token$", "class_embedding"),
    (r"^pos_embed$", "positional_embedding"),
    (r"^patch_embed\.proj\.", "conv1."),
    (r"^norm_pre\.", "ln_pre."),
    (r"^norm\.", "ln_post."),
    (r"^blocks\.", "transformer.resblocks."),
    (r"(\d)\.norm(\d)\.", r"\1.ln_\2."),
    (r"\.gamma_(\d)$", r".ls_\1.gamma"),
    (r"attn\.qkv\.", "attn.in_proj_"),
    (r"attn\.proj\.", "attn.out_proj."),
    (r"^attn_pool\.latent$", "attn_pool.probe"),
    (r"^attn_pool\.(q|kv)\.", "attn_pool.attn.in_proj_"),
    (r"^attn_pool\.proj\.", "attn_pool.attn.out_proj."),
    (r"^attn_pool\.norm\.", "attn_pool.layernorm."),
    (r"mlp\.fc1\.", "mlp.c_fc."),
    (r"mlp\.fc2\.", "mlp.c_proj."),
)


def official_place(key: str) -> Place:
    """Where a tensor of timm's Perception Encoder lies in the official checkpoint, without ``visual.``."""
    name = key
    for pattern, replacement in _OFFICIAL:
        name = re.sub(pattern, replacement, name)
    if key.startswith("attn_pool.q."):
        return Place(name, 0, 1, 3)
    if key.startswith("attn_pool.kv."):
        return Place(name, 1, 3, 3)
    return Place(name)


def from_places(
    places: Mapping[str, Place], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of another layout under our names, in our shapes where their counts agree.

    Tensors of ours that are not among theirs are left out; those of theirs that nothing of ours reads keep their names,
    so that :func:`check_fit` names both.
    """
    given = {}
    for name, place in places.items():
        if place.key in theirs:
            whole = theirs[place.key]
            step = whole.shape[0] // place.parts if place.parts > 1 else 0
            part = whole[place.start * step : place.stop * step] if place.parts > 1 else whole
            if part.numel() == ours[name].numel():
                part = part.reshape(ours[name].shape)
            elif part.ndim == ours[name].ndim - 1:
                part = part[None]
            given[name] = part
    read = {place.key for place in places.values()}
    return given | {key: value for key, value in theirs.items() if key not in read}


def check_fit(ours: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str) -> None:
    """Raise WeightsError, naming every tensor, unless the given tensors are ours, all of them and in shape."""
    faults = [f"missing {key}" for key in ours if key not in given]
    faults += [f"unexpected {key}" for key in given if key not in ours]
    faults += [
        f"{key} is {tuple(given[key].shape)}, not {tuple(ours[key].shape)}"
        for key in ours
        if key in given and given[key].shape != ours[key].shape
    ]
    if faults:
        shown = "; ".join(faults[:20]) + (f"; and {len(faults) - 20} more" if len(faults) > 20 else "")
        raise WeightsError(f"weights do not fit {what}: {shown}")


def _accepted(timm_name: str) -> set[str]:
    """Whether a model family takes an image size: those with patches or windows do, plain convolutions do not."""
    return {"img_size"} if re.search(r"vit|deit|beit|eva|swin|mixer|cait|xcit|dinov", timm_name) else set()
