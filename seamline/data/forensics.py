"""Small sets of image forensics, each with a habit of its own for masks.

* Columbia (Hsu and Chang, ICME 2006): ``4cam_auth/``, ``4cam_splc/`` and ``edgemask/NAME_edgemask.jpg``, which is green
  where the second camera's picture was spliced in, red elsewhere, and brighter along the seam.
* COVERAGE (Wen et al., ICIP 2016): ``image/N.tif`` and its forgery ``image/Nt.tif``, ``mask/Nforged.tif``.
* NIST16 (NC2016): ``probe/``, ``world/`` and ``reference/OPERATION/NC2016-OPERATION-ref.csv``, whose columns are parted
  by ``|``; masks are dark where the picture was forged.
* IMD2020 (Novozamsky et al., WACVW 2020): a folder for each case with ``NAME_orig.jpg``, ``NAME.EXT`` and
  ``NAME_mask.png``.
* DSO-1 (Carvalho et al., TIFS 2013): ``DSO-1/normal-*.png`` and ``splicing-*.png``, ``DSO-1-Fake-Images-Masks/``; masks
  are dark where the picture was forged.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ..errors import DataError
from .sample import Fault, Mask, Sample, by_stem, files, pair, photo, read_rows


def is_columbia(root: Path) -> bool:
    """Whether spliced pictures of Columbia are here."""
    return (root / "4cam_splc").is_dir()


def read_columbia(root: Path, faults: list[Fault]) -> list[Sample]:
    """The pictures; ``group`` is the camera, or the two of a splice."""
    folder = next((f for f in (root / "4cam_splc" / "edgemask", root / "edgemask") if f.is_dir()), root / "edgemask")
    masks = by_stem(files(folder), faults, without="_edgemask")
    real = [photo(path, forged=False, group=path.stem.partition("_")[0]) for path in files(root / "4cam_auth")]
    return real + [
        photo(path, mask, forged=True, kind="splice", group=path.stem.partition("_sub")[0], draw=partial(_green, mask))
        for path, mask in pair(files(root / "4cam_splc"), masks, folder, faults)
    ]


def _green(path: Path) -> Mask:
    """The spliced part of an edge mask: more green than red. It is a JPEG, so nothing is exact."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if bgr is None:
        raise DataError(f"{path}: this mask is missing or not a picture")
    return (bgr[..., 1] > bgr[..., 2]).astype(np.float32)


def is_coverage(root: Path) -> bool:
    """Whether pictures and masks of COVERAGE are here."""
    return (root / "image").is_dir() and any((root / "mask").glob("*forged.tif"))


def read_coverage(root: Path, faults: list[Fault]) -> list[Sample]:
    """The pictures; ``group`` is the number of a pair."""
    masks = by_stem((p for p in files(root / "mask") if p.stem.endswith("forged")), faults, without="forged")
    masks = {f"{number}t": path for number, path in masks.items()}
    pictures = files(root / "image")
    forged = [path for path in pictures if path.stem.endswith("t")]
    return [photo(path, forged=False) for path in pictures if path not in forged] + [
        photo(path, mask, forged=True, kind="copy_move", group=path.stem.removesuffix("t"))
        for path, mask in pair(forged, masks, root / "mask", faults)
    ]


def is_nist16(root: Path) -> bool:
    """Whether the reference tables of NIST16 are here."""
    return any(root.glob("reference/*/*-ref.csv"))


def read_nist16(root: Path, faults: list[Fault]) -> list[Sample]:
    """The probes of all operations, each once; ``group`` is the picture of the world that it was made from.

    The authentic half are the pictures of ``world/`` that probes were made from.
    """
    seen: set[str] = set()
    samples: list[Sample] = []
    for table in sorted(root.glob("reference/*/*-ref.csv")):
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter="|"))
        make = partial(_probe, root, table.parent.name, seen)
        samples += read_rows(rows, make, f"{table}, line", faults, first=2)
    bases = sorted({s.source for s in samples if s.source})
    return [photo(root / base, forged=False, group=Path(base).stem) for base in bases] + samples


def _probe(root: Path, operation: str, seen: set[str], row: dict[str, str]) -> Sample | None:
    name, mask = row["ProbeFileName"], row["ProbeMaskFileName"]
    if row["IsTarget"] != "Y" or name in seen:
        return None
    if not mask:
        raise DataError(f"{name} is a target, but the table names no mask")
    seen.add(name)
    base = row.get("BaseFileName") or ""
    group = Path(base).stem or Path(name).stem
    return photo(root / name, root / mask, forged=True, kind=operation, group=group, source=base, inverted=True)


def is_imd2020(root: Path) -> bool:
    """Whether a case of IMD2020 is here."""
    return any(root.glob("*/*_orig.*"))


def read_imd2020(root: Path, faults: list[Fault]) -> list[Sample]:
    """The pictures; ``group`` is the case."""
    samples: list[Sample] = []
    for case in sorted(path for path in root.iterdir() if path.is_dir()):
        pictures = files(case)
        masks = by_stem((p for p in pictures if p.stem.endswith("_mask")), faults, without="_mask")
        originals = [path for path in pictures if path.stem.endswith("_orig")]
        forged = [path for path in pictures if path not in originals and not path.stem.endswith("_mask")]
        samples += [photo(path, forged=False, group=case.name) for path in originals]
        samples += [photo(p, mask, forged=True, group=case.name) for p, mask in pair(forged, masks, case, faults)]
    return samples


def is_dso1(root: Path) -> bool:
    """Whether the masks of DSO-1 are here."""
    return (root / "DSO-1-Fake-Images-Masks").is_dir()


def read_dso1(root: Path, faults: list[Fault]) -> list[Sample]:
    """The pictures; which splice was made from which is not told, so each is its own group."""
    folder = root / "DSO-1-Fake-Images-Masks"
    pictures = files(root / "DSO-1")
    forged = [path for path in pictures if path.stem.startswith("splicing")]
    masks = by_stem(files(folder), faults)
    return [photo(path, forged=False) for path in pictures if path not in forged] + [
        photo(path, mask, forged=True, kind="splice", inverted=True)
        for path, mask in pair(forged, masks, folder, faults)
    ]
