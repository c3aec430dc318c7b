"""One medium with its truth: what every data set adapter yields, and what adapters share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..media import Clip, Image, open_media
from ..report import Artifacts, Media, Modality, Report, Segment

T = TypeVar("T")
Mask = npt.NDArray[np.float32]

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif", ".bmp", ".gif", ".heic", ".heif"})
FILMS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
SOUNDS = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac"})
NAMED = 10  # faults that an error names


@dataclass(frozen=True, eq=False)
class Sample:
    """A medium, its truth, and the facts that splits and tables need.

    ``truth`` is a :class:`Report` with probability 0.0 or 1.0. Where the forged pixels of a photo are is ``truth.mask``
    (in memory), what ``draw`` returns, or the picture that ``truth.artifacts.mask`` names; of a clip the latter may
    name a film of masks, see :meth:`masks`. The forged seconds of a clip are ``truth.segments``, one for each span and
    modality. ``kind`` is the kind of forgery, or ``authentic``. ``group`` names what must stay on one side of a split:
    a camera, a speaker, a source photo. ``split`` is the data set's own name for the part that this is in, or empty.
    """

    media: Path | Image | Clip
    truth: Report
    kind: str = "authentic"
    source: str | None = None
    group: str = ""
    split: str = ""
    inverted: bool = False  # the mask's file is dark where the photo is forged
    fit: bool = False  # the mask may be of another size, and is then resized to the photo, nearest neighbour
    draw: Callable[[], Mask] | None = None  # the mask of a set that stores it in another form than a grey picture

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

    def mask(self) -> Mask | None:
        """The forged pixels, (H, W) float32 in [0, 1], 1 = forged, soft at soft edges; ``None`` if authentic.

        Raises:
            DataError: a forged sample has no mask, or its mask cannot be read or has no forged pixel.
        """
        if not self.truth.forged:
            return None
        name = self.truth.artifacts.mask
        if self.truth.mask is not None:
            mask = self.truth.mask.astype(np.float32)
        elif self.draw is not None:
            mask = self.draw()
        elif name is None:
            raise DataError(f"{self.truth.media.path}: forged, but its truth has no mask")
        else:
            grey = cv2.imread(name, cv2.IMREAD_GRAYSCALE) if Path(name).is_file() else None
            if grey is None:
                raise DataError(f"{self.truth.media.path}: its mask {name} is missing or not a picture")
            mask = grey.astype(np.float32) / np.float32(255)
            mask = 1 - mask if self.inverted else mask
        if mask.max(initial=0.0) < 0.5:
            forged = "0..127" if self.inverted else "128..255"
            raise DataError(f"{name or self.truth.media.path}: the mask has no forged pixel (forged is {forged})")
        return mask

    def masks(self, fps: float = 25.0) -> Iterator[Mask]:
        """The forged pixels of a clip's pictures, on the clock of ``Clip.frames(fps)``; ends where the masks end.

        Raises:
            DataError: the truth has no film of masks.
            MediaError: that film cannot be read.
        """
        name = self.truth.artifacts.mask
        film = open_media(name) if name and self.is_clip else None
        if not isinstance(film, Clip):
            raise DataError(f"{self.truth.media.path}: its truth has no film of masks")
        for frame in film.frames(fps):
            mask = frame.max(-1).astype(np.float32) / np.float32(255)
            yield 1 - mask if self.inverted else mask

    def load(self) -> tuple[npt.NDArray[np.uint8], Mask | None]:
        """Picture and mask together, checked to be of one size.

        Raises:
            MediaError: the picture cannot be read.
            DataError: the mask cannot be read, or has another size.
        """
        rgb, mask = self.pixels(), self.mask()
        if mask is not None and mask.shape != rgb.shape[:2]:
            if not self.fit:
                raise DataError(
                    f"{self.truth.media.path}: picture is {rgb.shape[1]}x{rgb.shape[0]},"
                    f" its mask {mask.shape[1]}x{mask.shape[0]}"
                )
            mask = cv2.resize(mask, rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(np.float32)
        return rgb, mask


# ----------------------------------------------------------------------------------------- what adapters are made of


class Fault(NamedTuple):
    """Something wrong with a data set, found while its files are listed."""

    kind: str  # "metadata": unreadable or contradicts itself; "unpaired": a photo without a mask, or the reverse
    path: str
    words: str

    def __str__(self) -> str:
        return f"{self.path}: {self.words}"


def refuse(faults: Sequence[Fault]) -> None:
    """Raise what an adapter found wrong.

    Raises:
        DataError: there are faults; the first of them are named.
    """
    if faults:
        more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise DataError("; ".join(str(fault) for fault in faults[:NAMED]) + more)


def photo(
    path: Path,
    mask: Path | None = None,
    *,
    forged: bool,
    kind: str = "",
    group: str = "",
    sha256: str | None = None,
    **facts: Any,
) -> Sample:
    """A photo and its truth; ``facts`` are further fields of :class:`Sample`."""
    truth = Report(
        media=Media(path=str(path), sha256=sha256, kind="image"),
        verdict="forged" if forged else "authentic",
        probability=float(forged),
        artifacts=Artifacts(mask=str(mask) if mask else None),
    )
    kind = kind or ("forged" if forged else "authentic")
    return Sample(media=path, truth=truth, kind=kind, group=group or path.stem, **facts)


def clip(
    media: Media,
    video: Sequence[Any] = (),
    audio: Sequence[Any] = (),
    *,
    kind: str = "",
    group: str = "",
    mask: Path | None = None,
    **facts: Any,
) -> Sample:
    """A clip and its truth, from the forged spans of each modality; ``facts`` are further fields of :class:`Sample`.

    Raises:
        DataError: a span is none.
    """
    segments = [*_segments(media, video, "video"), *_segments(media, audio, "audio")]
    truth = Report(
        media=media,
        verdict="forged" if segments else "authentic",
        probability=float(bool(segments)),
        segments=tuple(sorted(segments, key=lambda s: (s.start, s.end))),
        artifacts=Artifacts(mask=str(mask) if mask else None),
    )
    kind = kind or (FORGED_IN[bool(video), bool(audio)] if segments else "authentic")
    return Sample(media=Path(media.path), truth=truth, kind=kind, group=group or Path(media.path).stem, **facts)


FORGED_IN = {(True, False): "video", (False, True): "audio", (True, True): "audio_visual"}  # kind, by what was modified
WHOLE = ((0.0, math.inf),)  # the spans of a clip that is forged from its beginning to its end, whenever that is
WHOLLY: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {  # spans of video and audio of such a clip, by kind
    "authentic": ((), ()),
    "video": (WHOLE, ()),
    "audio": ((), WHOLE),
    "audio_visual": (WHOLE, WHOLE),
}


def _segments(media: Media, spans: Sequence[Any], modality: Modality) -> list[Segment]:
    segments = []
    for span in spans:
        start, end = (float(value) for value in span)
        if not 0 <= start < end or (math.isinf(end) and spans is not WHOLE):
            raise DataError(f"{media.path}: {span} is not a span of seconds")
        segments.append(Segment(start, end, 1.0, modality))
    return segments


def media_kind(path: str | Path) -> Literal["image", "video", "audio"] | None:
    """What a name's ending promises."""
    ending = Path(path).suffix.lower()
    return "image" if ending in PICTURES else "video" if ending in FILMS else "audio" if ending in SOUNDS else None


def files(folder: Path, endings: Iterable[str] = PICTURES, *, deep: bool = False) -> list[Path]:
    """The files of a folder (``deep``: and below) with one of these endings, sorted; none if it is absent."""
    wanted = frozenset(endings)
    found = (folder.rglob if deep else folder.glob)("*") if folder.is_dir() else ()
    return sorted(p for p in found if p.suffix.lower() in wanted and not p.name.startswith("."))


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: it is missing, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError(f"{path}: not readable as JSON: {cause}") from cause


def read_rows(
    rows: Iterable[T], make: Callable[[T], Sample | None], where: str, faults: list[Fault], *, first: int = 0
) -> list[Sample]:
    """One sample from each row of a table; a damaged one becomes a fault, at ``where`` and its number."""
    samples = []
    for number, row in enumerate(rows, first):
        try:
            sample = make(row)
        except DataError as cause:
            faults.append(Fault("metadata", f"{where} {number}", str(cause)))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as cause:
            faults.append(Fault("metadata", f"{where} {number}", f"{type(cause).__name__}: {cause}"))
        else:
            samples += [sample] if sample else []
    return samples


def pair(
    photos: Sequence[Path], masks: dict[str, Path], where: Path, faults: list[Fault]
) -> Iterator[tuple[Path, Path]]:
    """Each forged photo with the mask of its stem; those without become faults, and so do masks without a photo."""
    stems = {path.stem for path in photos}
    for path in photos:
        if path.stem in masks:
            yield path, masks[path.stem]
        else:
            faults.append(Fault("unpaired", str(path), f"no mask in {where.name}/ has the stem of {path.name}"))
    for stem, mask in masks.items():
        if stem not in stems:
            faults.append(Fault("orphan", str(mask), f"no forged photo has the stem {stem!r} of this mask"))


def by_stem(masks: Iterable[Path], faults: list[Fault], *, without: str = "") -> dict[str, Path]:
    """Masks by the stem of their photo: their own, less the ending ``without``; two of one stem are a fault."""
    found: dict[str, Path] = {}
    for path in masks:
        stem = path.stem.removesuffix(without)
        other = found.setdefault(stem, path)
        if other is not path:
            words = f"two masks share the stem {stem!r}: {other.name} and {path.name}"
            faults.append(Fault("unpaired", str(path.parent), words))
    return found
