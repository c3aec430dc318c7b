"""The one exception family. Every message says what was wrong, with which file, and what to do."""

from __future__ import annotations


class SeamlineError(Exception):
    """Base of every error that Seamline raises on purpose."""


class MediaError(SeamlineError):
    """A file could not be read as media: missing, empty, truncated, too large, or of another type."""


class WeightsError(SeamlineError):
    """Weights are missing, do not match their hash, or do not fit the detector."""


class DataError(SeamlineError):
    """A data set folder, manifest, recipe or mask is not what it says it is."""


def printable(text: str) -> str:
    """Text from outside made safe to show: what cannot be printed, or turns the text around it, becomes an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
