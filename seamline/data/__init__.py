"""Data sets: each adapter yields :class:`Sample`, a medium with its truth; :func:`open_data` is the door to all."""

from __future__ import annotations

from .folder import split_by_group
from .lavdf import read_lavdf
from .layouts import LAYOUTS, digest, layout_of, open_data
from .sample import Sample

__all__ = ["LAYOUTS", "Sample", "digest", "layout_of", "open_data", "read_lavdf", "split_by_group"]
