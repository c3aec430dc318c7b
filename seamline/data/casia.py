"""CASIA v1 and v2 (Dong et al., ChinaSIP 2013), and IMDL-BenCo's two layouts, which many sets are repacked in.

CASIA v1: ``Sp/`` (spliced, or copied within: ``Sp_S_``), ``groundtruth/NAME_gt.png``, and ``Au/`` if it was kept. v2:
the same with ``Tp/``. Use the corrected masks of v2: some of the first ones have other sizes than their pictures.

IMDL-BenCo (Ma et al., NeurIPS 2024): folders ``Tp/`` and ``Gt/`` paired by sorted order (here by stem where all stems
agree) and ``Au/``; or a JSON list of [picture, mask or "Negative"].
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import DataError
from .sample import Fault, Sample, by_stem, files, pair, photo, read_json, read_rows

KINDS = {"D": "splice", "S": "copy_move"}  # pieces of a different picture, or of the same


def is_casia(root: Path) -> bool:
    """Whether forged pictures and their ground truth are here."""
    return (root / "groundtruth").is_dir() and any((root / name).is_dir() for name in ("Sp", "Tp"))


def read_casia(root: Path, faults: list[Fault]) -> list[Sample]:
    """The pictures; ``group`` is the picture that was forged, as far as the name tells: ``ani00001`` and the like."""
    masks = by_stem(files(root / "groundtruth", deep=True), faults, without="_gt")
    real = [photo(path, forged=False, group=_source(path)) for path in files(root / "Au", deep=True)]
    forged = [path for name in ("Sp", "Tp") for path in files(root / name, deep=True)]
    return real + [
        photo(path, mask, forged=True, kind=KINDS.get(path.stem[3:4], ""), group=_source(path))
        for path, mask in pair(forged, masks, root / "groundtruth", faults)
    ]


def _source(path: Path) -> str:
    """``Au_ani_00001`` and ``Tp_D_NRN_S_N_ani00001_sec00008_00113`` are of the picture ani00001."""
    found = re.search(r"([a-z]{3})_?(\d{4,5})(?=_|$)", path.stem)
    return f"{found[1]}{int(found[2])}" if found else path.stem


def is_benco_folder(root: Path) -> bool:
    """Whether the folders of forged pictures and masks are here."""
    return (root / "Tp").is_dir() and (root / "Gt").is_dir()


def read_benco_folder(root: Path, faults: list[Fault]) -> list[Sample]:
    """``Tp/`` with ``Gt/``, and ``Au/``."""
    forged, masks = files(root / "Tp"), files(root / "Gt")
    if len(forged) != len(masks):
        words = f"{len(forged)} pictures in Tp/ but {len(masks)} masks in Gt/, which are paired by order"
        odd = sorted({p.stem for p in forged} ^ {p.stem for p in masks})
        faults.append(
            Fault("unpaired", str(root), f"{words}; without a partner of the same name: {', '.join(odd[:5])}")
        )
    own = {mask.stem: mask for mask in masks}
    named = all(path.stem in own for path in forged)
    return [photo(path, forged=False) for path in files(root / "Au")] + [
        photo(path, own[path.stem] if named else mask, forged=True) for path, mask in zip(forged, masks, strict=False)
    ]


def benco_list(root: Path) -> Path | None:
    """The JSON list that a path is, or the only JSON file of a folder, if it is such a list."""
    found = [root] if root.suffix == ".json" else sorted(root.glob("*.json"))
    if len(found) != 1 or not found[0].is_file():
        return None
    with found[0].open(encoding="utf-8", errors="replace") as file:
        return found[0] if re.match(r"\s*\[\s*\[", file.read(4096)) else None


def read_benco_list(root: Path, faults: list[Fault]) -> list[Sample]:
    """The pictures that a JSON list names; paths are relative to it."""
    path = benco_list(root)
    if path is None:
        raise DataError(f"{root}: no JSON list of [picture, mask] here")

    def listed(row: Any) -> Sample:
        name, mask = row
        negative = mask == "Negative"
        return photo(path.parent / name, None if negative else path.parent / mask, forged=not negative)

    return read_rows(read_json(path), listed, f"{path}, item number", faults)
