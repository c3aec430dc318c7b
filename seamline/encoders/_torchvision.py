"""Make ``import timm`` work beside a torchvision whose compiled operators do not load.

timm imports torchvision for helpers that no encoder here uses. A torchvision wheel built for another torch
fails at import, because it attaches shape functions to operators (``nms``, ``qnms``) that its extension did
not define. Declaring the two schemas is enough; nothing ever calls them.
"""

from __future__ import annotations

import importlib

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None  # held for the life of the process: its end would undo the schemas


def ensure_importable() -> None:
    """Import torchvision; if its operators are absent, declare their schemas and import it again.

    Raises:
        ImportError: torchvision is not installed (timm needs it too).
    """
    global _library
    try:
        importlib.import_module("torchvision")
    except RuntimeError as cause:
        if "does not exist" not in str(cause) or _library is not None:
            raise
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            if not hasattr(torch.ops.torchvision, schema.split("(")[0]):
                _library.define(schema)
        importlib.import_module("torchvision")
