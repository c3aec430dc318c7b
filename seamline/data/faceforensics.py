"""FaceForensics++ (Rössler et al., ICCV 2019): swapped and reenacted faces in silent films, with films of masks.

``original_sequences/{youtube,actors}/COMPRESSION/videos`` and ``manipulated_sequences/METHOD/COMPRESSION/videos``, with
``METHOD/masks/videos`` beside; compressions are raw, c23 and c40. A fake is named TARGET_SOURCE. The official splits
are lists of pairs, ``splits/{train,val,test}.json`` (or beside the sequences). Films of actors have no official split.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
from ..report import Media
from .sample import FILMS, WHOLE, Fault, Sample, clip, files, read_json

COMPRESSIONS = ("raw", "c23", "c40")
SPLITS = ("train", "val", "test")


def is_faceforensics(root: Path) -> bool:
    """Whether originals or manipulations are here."""
    return (root / "manipulated_sequences").is_dir() or (root / "original_sequences").is_dir()


def read_faceforensics(root: Path, faults: list[Fault]) -> list[Sample]:
    """All films of all compressions; ``kind`` is the method, ``group`` the pair of films that were swapped.

    Such a film is forged in its pictures from beginning to end. ``truth.artifacts.mask`` names its film of masks (see
    ``Sample.masks``), for the methods that come with masks; some of DeepFakeDetection end long before the film does.
    """
    part, partner = _splits(root)
    fakes: list[tuple[str, Path, Path | None]] = []
    for folder in _folders(root / "manipulated_sequences"):
        masks = {path.stem: path for path in files(folder / "masks" / "videos", FILMS)}
        for path in _films(folder):
            if masks and path.stem not in masks:
                faults.append(Fault("unpaired", str(path), f"no film in {folder.name}/masks/videos has its name"))
            fakes.append((folder.name, path, masks.get(path.stem)))
    for _, path, _ in fakes:
        target, _, source = path.stem.partition("_")
        if len(path.stem) == 7 and path.stem.replace("_", "").isdigit():
            partner.setdefault(target, source)

    films: list[tuple[str, Path, Path | None]]
    films = [("authentic", path, None) for kind in _folders(root / "original_sequences") for path in _films(kind)]
    samples = []
    for method, path, mask in [*films, *fakes]:
        target = path.stem.partition("_")[0]
        pair = "_".join(sorted({target, partner.get(target, target)}))
        group = pair if len(target) == 3 else f"actor {target}"
        spans = () if method == "authentic" else WHOLE
        media = Media(path=str(path), kind="video")
        samples.append(clip(media, spans, kind=method, mask=mask, group=group, split=part.get(target, "")))
    return samples


def _splits(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Of every film of YouTube its split, and the film it is swapped with."""
    part: dict[str, str] = {}
    partner: dict[str, str] = {}
    for split in SPLITS:
        path = next((p for p in (root / "splits" / f"{split}.json", root / f"{split}.json") if p.is_file()), None)
        for pair in read_json(path) if path else []:
            if not (isinstance(pair, list) and len(pair) == 2):
                raise DataError(f"{path}: {pair} is not a pair of films")
            for one, other in (pair, pair[::-1]):
                part[str(one)], partner[str(one)] = split, str(other)
    return part, partner


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.is_dir())


def _films(folder: Path) -> list[Path]:
    return [path for level in COMPRESSIONS for path in files(folder / level / "videos", FILMS)]
