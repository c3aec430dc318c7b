"""Data sets: each adapter yields :class:`Sample`, a medium with its truth."""

from __future__ import annotations

from .folder import digest, read_folder, split_by_group
from .lavdf import read_lavdf
from .sample import Sample

__all__ = ["Sample", "digest", "read_folder", "read_lavdf", "split_by_group"]
