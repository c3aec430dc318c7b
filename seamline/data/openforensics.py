"""OpenForensics (Le et al., ICCV 2021): photos of many faces, some of them fake, in COCO's words.

``SPLIT_poly.json`` (beside ``SPLIT/``, or in it) lists images, categories ``Real`` and ``Fake``, and a polygon for each
face. A photo is forged where its fake faces are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import DataError
from .sample import Fault, Mask, Sample, photo, read_json, read_rows

SPLITS = ("Train", "Val", "Test-Dev", "Test-Challenge")


def is_openforensics(root: Path) -> bool:
    """Whether one of the tables of polygons is here."""
    return any(_tables(root))


def read_openforensics(root: Path, faults: list[Fault]) -> list[Sample]:
    """The photos of all splits; each is its own group."""
    samples: list[Sample] = []
    for table in _tables(root):
        split = table.name.removesuffix("_poly.json")
        coco = read_json(table)
        try:
            fake = {row["id"] for row in coco["categories"] if str(row["name"]).lower() == "fake"}
            polygons: dict[Any, list[Sequence[float]]] = {}
            for row in coco["annotations"]:
                if row["category_id"] in fake:
                    polygons.setdefault(row["image_id"], []).extend(_polygons(row))
            images = coco["images"]
        except (KeyError, TypeError) as cause:
            raise DataError(f"{table}: not in COCO's words: {type(cause).__name__}: {cause}") from cause
        if not fake:
            raise DataError(f"{table}: none of its categories is named Fake: {coco['categories']}")
        make = partial(_photo, root, split, polygons)
        samples += read_rows(images, make, f"{table}, image number", faults)
    return samples


def _tables(root: Path) -> list[Path]:
    found = (p for split in SPLITS for p in (root / f"{split}_poly.json", root / split / f"{split}_poly.json"))
    return [path for path in found if path.is_file()]


def _polygons(row: dict[str, Any]) -> list[Sequence[float]]:
    shape = row["segmentation"]
    if not isinstance(shape, list):
        raise DataError(f"annotation {row.get('id')}: its segmentation is no list of polygons")
    return shape


def _photo(root: Path, split: str, polygons: dict[Any, list[Sequence[float]]], row: dict[str, Any]) -> Sample:
    name = str(row["file_name"])
    places = (root / name, root / split / Path(name).name, root / split / split / Path(name).name)
    path = next((place for place in places if place.is_file()), root / split / Path(name).name)
    shapes = polygons.get(row["id"])
    draw = partial(fill, shapes, int(row["height"]), int(row["width"])) if shapes else None
    return photo(path, forged=bool(shapes), kind="face_swap" if shapes else "", group=name, split=split, draw=draw)


def fill(polygons: Sequence[Sequence[float]], height: int, width: int) -> Mask:
    """(H, W) float32, 1 inside the polygons; each is a list x0, y0, x1, y1, ... in pixels."""
    mask = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        points = np.rint(np.array(polygon, np.float64).reshape(-1, 2)).astype(np.int32)
        cv2.fillPoly(mask, [points], 1)
    return mask.astype(np.float32)
