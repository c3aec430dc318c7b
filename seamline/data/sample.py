"""One medium with its truth: what every data set adapter yields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..media import Clip, Image, open_media
from ..report import Report


@dataclass(frozen=True, eq=False)
class Sample:
    """A medium, its truth, and the facts that splits and tables need.

    ``truth`` is a :class:`Report` with probability 0.0 or 1.0. Where the forged pixels of a photo are is ``truth.mask``
    (in memory) or the picture that ``truth.artifacts.mask`` names; the forged seconds of a clip are
    ``truth.segments``, one for each span and modality. ``kind`` is the kind of forgery, or ``authentic``. ``group``
    names what must stay on one side of a split: a camera, a speaker, a source photo.
    """

    media: Path | Image | Clip
    truth: Report
    kind: str = "authentic"
    source: str | None = None
    group: str = ""

    @property
    def is_clip(self) -> bool:
        """Whether it is a video or a sound, as far as its truth tells."""
        return self.truth.media.kind in ("video", "audio")

    def pixels(self) -> npt.NDArray[np.uint8]:
        """The picture, (H, W, 3) uint8 RGB.

        Raises:
            MediaError: the file cannot be read.
            DataError: it is a clip.
        """
        medium = open_media(self.media) if isinstance(self.media, Path) else self.media
        if not isinstance(medium, Image):
            raise DataError(f"{self.truth.media.path}: a clip, where a photo is needed")
        return medium.pixels

    def mask(self) -> npt.NDArray[np.float32] | None:
        """The forged pixels, (H, W) float32 in [0, 1], 1 = forged, soft at soft edges; ``None`` if authentic.

        Raises:
            DataError: a forged sample has no mask, or its mask cannot be read or has no forged pixel.
        """
        if not self.truth.forged:
            return None
        name = self.truth.artifacts.mask
        if self.truth.mask is not None:
            mask = self.truth.mask.astype(np.float32)
        elif name is None:
            raise DataError(f"{self.truth.media.path}: forged, but its truth has no mask")
        else:
            grey = cv2.imread(name, cv2.IMREAD_GRAYSCALE)
            if grey is None:
                raise DataError(f"{self.truth.media.path}: its mask {name} is missing or not a picture")
            mask = grey.astype(np.float32) / np.float32(255)
        if mask.max(initial=0.0) < 0.5:
            raise DataError(f"{name or self.truth.media.path}: the mask has no forged pixel (forged is 128..255)")
        return mask

    def load(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32] | None]:
        """Picture and mask together, checked to be of one size.

        Raises:
            MediaError: the picture cannot be read.
            DataError: the mask cannot be read, or has another size.
        """
        rgb, mask = self.pixels(), self.mask()
        if mask is not None and mask.shape != rgb.shape[:2]:
            raise DataError(
                f"{self.truth.media.path}: picture is {rgb.shape[1]}x{rgb.shape[0]},"
                f" its mask {mask.shape[1]}x{mask.shape[0]}"
            )
        return rgb, mask
