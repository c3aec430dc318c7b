"""A path, bytes or an array becomes an :class:`Image` or a :class:`Clip`; the content decides which, not the name.

``files.py`` says what a file may cost and what its first bytes are, ``image.py`` decodes pictures, ``clip.py`` video
and sound.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from .clip import Audio as Audio
from .clip import Clip as Clip
from .clip import Video as Video
from .clip import open_clip as open_clip
from .files import ARCHIVES as ARCHIVES
from .files import EXTENSIONS as EXTENSIONS
from .files import Limits as Limits
from .files import expand as expand
from .files import explained, regular, sniff
from .image import Image as Image
from .image import open_image as open_image


def open_media(
    source: str | os.PathLike[str] | bytes | npt.NDArray[Any], *, limits: Limits | None = None
) -> Image | Clip:
    """Open a picture, a video or a sound, whichever the content is.

    Args:
        source: a path, the bytes of a file, or an array, which is a picture; see :func:`open_image`.
        limits: the largest file to accept; ``None`` for ``Limits()``.

    Returns:
        An :class:`Image` with its pixels, or a :class:`Clip` that is decoded as it is asked for.

    Raises:
        MediaError: missing, not readable, empty, too large, damaged throughout, or not media.
    """
    if isinstance(source, np.ndarray):
        return open_image(source, limits=limits)
    if isinstance(source, bytes):
        kind = sniff(io.BytesIO(source))
    else:
        path = os.fspath(source)
        regular(path)
        with explained(path), open(path, "rb") as file:
            kind = sniff(file)
    return open_clip(source, limits=limits) if kind else open_image(source, limits=limits)
