"""Seamline finds forged photos and shows where they were forged.

``seamline.detect(path)`` is a whole scan in one call; ``seamline.load(name)`` keeps the weights in memory for
many. Everything heavy is imported on first use, so that importing the package takes a moment only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import SeamlineError
    from .media import open_media
    from .pipeline import Session, detect, load
    from .report import Region, Report, Segment
    from .zoo import models

__version__: str

__all__ = [
    "Region",
    "Report",
    "SeamlineError",
    "Segment",
    "Session",
    "__version__",
    "detect",
    "load",
    "models",
    "open_media",
]

_HOME = {
    "Region": "report",
    "Report": "report",
    "SeamlineError": "errors",
    "Segment": "report",
    "Session": "pipeline",
    "detect": "pipeline",
    "load": "pipeline",
    "models": "zoo",
    "open_media": "media",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("seamline")
        except metadata.PackageNotFoundError:  # a source tree that was never installed
            return "unknown"
    if name not in _HOME:
        raise AttributeError(f"module 'seamline' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
