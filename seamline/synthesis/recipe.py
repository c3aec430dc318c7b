"""A seeded recipe turns a folder of authentic photos or clips into a data set of forgeries with exact truth.

``forge`` writes ``media/``, ``manifest.jsonl`` (one line an item) and the recipe itself; of photos also ``masks/``
(8 bit, 255 = forged, grey at soft edges), of clips ``metadata.json`` in the words of LAV-DF. A recipe that says
``media = "clips"`` is one of clips (``clips.py``). Item ``i`` depends on the recipe's seed, on ``i`` and on the sorted
list of sources alone, so any number of worker processes gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image as PILImage

from ..errors import DataError, MediaError
from ..media import Image, open_media
from .audio_visual import kinds_of
from .clips import ClipRecipe, clip_sources, make_clip, metadata, prepare
from .image import FORGERS, Box, Pixels, Post, find_face, forge_photo, jpeg_bytes
from .sources import Source, select

T = TypeVar("T")
Item = dict[str, Any] | None  # a manifest line; None if no source served
Tables = tuple[tuple[int, ...], ...] | None  # of quantisation, in Pillow's order; None: not a JPEG
SMALLEST = 96  # pixels: sources with a shorter side are passed over
LEAST = 288  # pixels: no shorter side is reduced below that


@dataclass(frozen=True)
class Recipe:
    """How many of what; every field is a key of the TOML file."""

    media: str = "photos"
    seed: int = 0
    count: int = 100  # items in all
    authentic: float = 0.4  # share of items left authentic
    crop: int = 0  # side of native crops cut from the sources, pixels; 0 = whole photos
    largest: int = 2048  # long side above which a whole photo is centre-cropped, never resized
    split: str = ""  # of manifest.csv in the source folder, if it has one
    sources: tuple[str, ...] = ()  # kinds of source to use, as that manifest names them
    exclude: tuple[str, ...] = ()  # path prefixes to leave out
    groups: tuple[str, ...] = ()  # use only sources of these groups of that manifest; empty: of all
    without: tuple[str, ...] = ()  # groups to leave out
    kinds: tuple[tuple[str, float], ...] = tuple((kind, 1.0) for kind in FORGERS)  # weights
    post: tuple[tuple[str, float], ...] = (("png", 1.0), ("jpeg", 1.0))  # weights of the chains of draw_post
    quality: tuple[int, int] = (80, 100)  # of the final JPEG
    own_tables: float = 0.25  # share of JPEGs saved with the source's own quantisation tables
    handed_on: float = 0.0  # share of items whose sources first pass through the web: see draw_past

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe file.

        Raises:
            DataError: the file is missing, is not TOML, or has a key or a kind that does not exist.
        """
        data = _read_toml(path)
        _check_keys(path, data, cls)
        for name, allowed in (("kinds", FORGERS), ("post", CHAINS)):
            if name in data:
                if wrong := sorted(set(data[name]) - set(allowed)):
                    raise DataError(f"{path}: unknown {name} {', '.join(wrong)}; known: {', '.join(allowed)}")
                data[name] = tuple(data[name].items())
        return cls(**_tuples(data))


def _read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such recipe") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise DataError(f"{path}: not a TOML recipe: {cause}") from cause


def _check_keys(path: str | os.PathLike[str], data: dict[str, Any], recipe: type[Recipe | ClipRecipe]) -> None:
    known = {f.name for f in fields(recipe)}
    if unknown := sorted(set(data) - known):
        raise DataError(f"{path}: unknown key {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def read_recipe(path: str | os.PathLike[str]) -> Recipe | ClipRecipe:
    """Read a recipe of photos, or of clips if it says ``media = "clips"``.

    Raises:
        DataError: the file is missing, is not TOML, or has a key or a kind that does not exist.
    """
    data = _read_toml(path)
    if data.get("media", "photos") == "photos":
        return Recipe.read(path)
    if data["media"] != "clips":
        raise DataError(f"{path}: media is {data['media']!r}; known: photos, clips")
    _check_keys(path, data, ClipRecipe)
    if "kinds" in data:
        try:
            for kind in data["kinds"]:
                kinds_of(kind)
        except DataError as cause:
            raise DataError(f"{path}: {cause}") from None
        data["kinds"] = tuple(data["kinds"].items())
    return ClipRecipe(**_tuples(data))


def _final(recipe: Recipe, rng: np.random.Generator) -> dict[str, Any]:
    """How the file is saved: PNG for a fifth, else JPEG."""
    if rng.random() < 0.2:
        return {"format": "png"}
    return _saved(recipe, rng)


def _saved(recipe: Recipe, rng: np.random.Generator) -> dict[str, Any]:
    own = rng.random() < recipe.own_tables
    quality = 0 if own else int(rng.integers(recipe.quality[0], recipe.quality[1] + 1))
    return {
        "format": "jpeg",
        "quality": quality,
        "subsampling": str(rng.choice(("4:4:4", "4:2:2", "4:2:0"), p=(0.35, 0.15, 0.5))),
    }


CHAINS: dict[str, Callable[[Recipe, np.random.Generator], dict[str, Any]]] = {
    "png": lambda recipe, rng: {"format": "png"},
    "jpeg": _saved,
    "jpeg_twice": lambda recipe, rng: {"first_jpeg": int(rng.integers(60, 96))} | _saved(recipe, rng),
    "jpeg_twice_shifted": lambda recipe, rng: (
        {"first_jpeg": int(rng.integers(60, 96)), "crop": (int(rng.integers(8)), int(rng.integers(8)))}
        | _saved(recipe, rng)
    ),
    "crop": lambda recipe, rng: {"crop": (int(rng.integers(8)), int(rng.integers(8)))} | _final(recipe, rng),
    "resize": lambda recipe, rng: {"resize": float(rng.uniform(0.6, 1.4))} | _final(recipe, rng),
    "blur": lambda recipe, rng: {"blur": float(rng.uniform(0.4, 1.0))} | _final(recipe, rng),
    "noise": lambda recipe, rng: {"noise": float(rng.uniform(1.0, 5.0))} | _final(recipe, rng),
}


def draw_post(recipe: Recipe, rng: np.random.Generator) -> Post:
    """One post-processing chain, drawn by the recipe's weights, blind to whether the photo is forged."""
    names, weights = zip(*recipe.post, strict=True)
    name = str(rng.choice(names, p=np.array(weights) / sum(weights)))
    return Post(**CHAINS[name](recipe, rng))


@dataclass(frozen=True)
class Past:
    """How the web hands a photo on: reduced, sharpened as resizers do, and saved once or twice."""

    resize: float
    sharpen: float  # of what a blur of one pixel takes away; 0 = not
    saves: tuple[tuple[int, str], ...]  # quality and subsampling of each JPEG

    def of(self, photo: Pixels) -> tuple[Pixels, Tables]:
        """The photo as it is found, (H, W, 3) uint8, and the quantisation tables of its last save."""
        height, width = photo.shape[:2]
        scale = max(self.resize, min(1.0, LEAST / min(height, width)))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA) if scale < 1 else photo
        if self.sharpen:
            small = cv2.addWeighted(small, 1 + self.sharpen, cv2.GaussianBlur(small, (0, 0), 1), -self.sharpen, 0)
        tables: Tables = None
        for quality, subsampling in self.saves:
            data = jpeg_bytes(small.astype(np.uint8), quality, subsampling)
            with PILImage.open(io.BytesIO(data)) as picture:
                tables = _tables(picture)
                small = np.asarray(picture.convert("RGB"))
        return np.ascontiguousarray(small), tables


def draw_past(rng: np.random.Generator) -> Past:
    """Reduced to between a third and all of its size, and saved at a quality of 60 to 97, every third time twice."""
    saves = tuple(
        (int(rng.integers(60, 98)), str(rng.choice(("4:4:4", "4:2:0"), p=(0.3, 0.7))))
        for _ in range(2 if rng.random() < 0.33 else 1)
    )
    sharpen = float(rng.uniform(0.1, 0.8)) if rng.random() < 0.3 else 0.0
    return Past(float(np.exp(rng.uniform(np.log(0.33), 0.0))), sharpen, saves)


def list_sources(folder: Path, recipe: Recipe) -> list[Source]:
    """The photos of a folder; of one with a ``manifest.csv`` (path, kind, split, group), those the recipe selects.

    Raises:
        DataError: nothing is left to forge.
    """
    found = select(folder, recipe)
    if not found:
        raise DataError(f"{folder}: no photos to forge here that the recipe selects")
    return found


def _tables(picture: PILImage.Image) -> Tables:
    tables = getattr(picture, "quantization", None)
    return tuple(tuple(table) for _, table in sorted(tables.items())) if tables else None


@lru_cache(maxsize=64)
def _load(path: str) -> tuple[Pixels, Tables]:
    """Pixels of a source and, for a JPEG, its quantisation tables in Pillow's order."""
    photo = open_media(path)
    if not isinstance(photo, Image):
        raise MediaError(f"{path}: a clip, not a photo")
    pixels = photo.pixels
    with PILImage.open(path) as picture:
        return pixels, _tables(picture)


@lru_cache(maxsize=4096)
def _face(path: str) -> Box | None:
    return find_face(_load(path)[0])


def _scaled(box: Box, by: float) -> Box:
    x0, y0, x1, y1 = (round(x * by) for x in box)
    return x0, y0, x1, y1


def _window(pixels: Pixels, recipe: Recipe, rng: np.random.Generator, face: Box | None) -> tuple[Pixels, Box | None]:
    """A native crop with its origin on the 8 x 8 grid, around the face if there is one."""
    height, width = pixels.shape[:2]
    side = recipe.crop or recipe.largest
    w, h = min(side, width), min(side, height)
    if face is not None:
        x = (face[0] + face[2]) / 2 - w / 2 + rng.uniform(-0.15, 0.15) * w
        y = (face[1] + face[3]) / 2 - h / 2 + rng.uniform(-0.15, 0.15) * h
    elif recipe.crop:
        x, y = rng.uniform(0, width - w + 1), rng.uniform(0, height - h + 1)
    else:
        x, y = (width - w) / 2, (height - h) / 2
    left, top = int(np.clip(x, 0, width - w)) // 8 * 8, int(np.clip(y, 0, height - h)) // 8 * 8
    window = np.ascontiguousarray(pixels[top : top + h, left : left + w])
    moved = None if face is None else (face[0] - left, face[1] - top, face[2] - left, face[3] - top)
    return window, moved


def make_item(index: int, sources: list[Source], recipe: Recipe, out: Path) -> Item:
    """Make and write item ``index``; its manifest line, or ``None`` if no source served."""
    rng = np.random.default_rng([recipe.seed, index])
    forged = rng.random() >= recipe.authentic
    names, weights = zip(*recipe.kinds, strict=True)
    kind = str(rng.choice(names, p=np.array(weights) / sum(weights))) if forged else "authentic"
    web = np.random.default_rng([recipe.seed, index, 1])
    for _ in range(40):
        source = sources[int(rng.integers(len(sources)))]
        donor = None
        try:
            pixels, tables = _load(source.path)
            if min(pixels.shape[:2]) < SMALLEST:
                continue
            face = _face(source.path) if kind == "face_blend" else None
            if kind == "face_blend" and face is None:
                continue
            if past := draw_past(web) if web.random() < recipe.handed_on else None:
                reduced, tables = past.of(pixels)
                face = face and _scaled(face, reduced.shape[1] / pixels.shape[1])
                pixels = reduced
            photo, face = _window(pixels, recipe, rng, face)
            weight = np.zeros(photo.shape[:2], np.float32)
            if forged:
                donor = sources[int(rng.integers(len(sources)))] if kind == "splice" else None
                other = _load(donor.path)[0] if donor else None
                if other is not None and web.random() < recipe.handed_on:
                    other = draw_past(web).of(other)[0]
                photo, weight, kind = forge_photo(kind, photo, rng, donor=other, face=face)
        except (DataError, MediaError):
            continue
        post = draw_post(recipe, rng)
        photo, weight = post.apply(photo, weight, rng)
        if forged and weight.max() < 0.5:  # so thin and soft that no pixel is mostly forged
            continue
        data, extension = post.encode(photo, tables)
        name = f"{index:06d}"
        (out / "media" / f"{name}{extension}").write_bytes(data)
        if forged:
            mask = io.BytesIO()
            PILImage.fromarray(np.rint(weight * 255).astype(np.uint8)).save(mask, "PNG")
            (out / "masks" / f"{name}.png").write_bytes(mask.getvalue())
        return {
            "path": f"media/{name}{extension}",
            "mask": f"masks/{name}.png" if forged else None,
            "label": int(forged),
            "kind": kind,
            "source": source.name,
            "donor": donor.name if donor else None,
            "group": source.group,
            **({"past": asdict(past)} if past else {}),
            "post": post.facts(),
            "seed": recipe.seed,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    return None


def forge(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: str | os.PathLike[str] | Recipe | ClipRecipe,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Forge a data set; the path of its ``manifest.jsonl``.

    Args:
        source: folder of authentic photos or clips, with or without a ``manifest.csv``.
        out: folder to write; made if missing, refused if it already holds a manifest.
        recipe: a recipe or the path of one.
        workers: processes; the result does not depend on it.
        progress: called with (items done, items in all).

    Raises:
        DataError: the recipe or the source folder is unusable, or ``out`` already holds a data set.
    """
    folder, target = Path(source), Path(out)
    plan = recipe if isinstance(recipe, Recipe | ClipRecipe) else read_recipe(recipe)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if (target / "manifest.jsonl").exists():
        raise DataError(f"{target}: already holds a data set; choose another folder")
    (target / "media").mkdir(parents=True, exist_ok=True)
    made = _photos(folder, target, plan, workers) if isinstance(plan, Recipe) else _clips(folder, target, plan, workers)
    rows: list[dict[str, Any]] = []
    for done, row in enumerate(made, 1):
        if row is not None:
            rows.append(row)
        if progress:
            progress(done, plan.count)
    if not rows:
        raise DataError(f"{folder}: not one of {plan.count} items could be made from what is here")
    if not isinstance(recipe, Recipe | ClipRecipe):
        (target / "recipe.toml").write_bytes(Path(recipe).read_bytes())
    if isinstance(plan, ClipRecipe):
        text = json.dumps(metadata(rows, plan.name), ensure_ascii=False, indent=1)
        (target / "metadata.json").write_text(text, "utf-8")
    manifest = target / "manifest.jsonl"
    partial_file = manifest.with_suffix(".part")
    partial_file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    partial_file.replace(manifest)
    return manifest


def _photos(folder: Path, target: Path, plan: Recipe, workers: int) -> Iterator[Item]:
    sources = list_sources(folder, plan)
    (target / "masks").mkdir(exist_ok=True)
    yield from _mapped(partial(make_item, sources=sources, recipe=plan, out=target), range(plan.count), workers)


def _clips(folder: Path, target: Path, plan: ClipRecipe, workers: int) -> Iterator[Item]:
    sources = clip_sources(folder, plan)
    with tempfile.TemporaryDirectory(prefix=".sources-", dir=target) as name:  # gigabytes, gone at the end
        ready = _mapped(partial(prepare, recipe=plan, store=Path(name)), list(enumerate(sources)), workers, 1)
        takes = [take for take in ready if take is not None]
        if not takes:
            raise DataError(f"{folder}: none of {len(sources)} sources can be decoded")
        yield from _mapped(partial(make_clip, takes=takes, recipe=plan, out=target), range(plan.count), workers)


def _mapped(make: Callable[[Any], T], these: Sequence[Any], workers: int, chunk: int = 8) -> Iterator[T]:
    """Items in order, made here or by a pool. Workers are spawned: a fork would copy OpenCV's threads half-way."""
    if workers <= 1:
        yield from map(make, these)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(make, these, chunksize=chunk)
