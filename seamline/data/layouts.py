"""The one door to data: which layout a folder has, its samples, and a digest that names it.

A layout is known by its marks, files and folders that no other has; the first whose marks are there is taken.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError
from . import (
    asvspoof,
    avdeepfake1m,
    casia,
    celebdf,
    ddl,
    faceforensics,
    folder,
    forensics,
    lavdf,
    manifest,
    openforensics,
    ummaformer,
)
from .header import read_header
from .sample import Fault, Sample, refuse


class Layout(NamedTuple):
    """How a data set lies on the disk."""

    words: str  # its marks, for people
    marks: Callable[[Path], Any]  # whether they are in this folder
    read: Callable[[Path, list[Fault]], list[Sample]]
    unused: tuple[str, ...] = ()  # patterns of media that belong to the set but are no item of it


LAYOUTS: dict[str, Layout] = {
    "manifest": Layout("manifest.jsonl or manifest.csv with a label", manifest.manifest_of, manifest.read_manifest),
    "lav-df": Layout("metadata.json or metadata.min.json", lavdf.metadata_of, lavdf.list_lavdf),
    "lav-df-split": Layout("train/, dev/ or test/ of LAV-DF", lavdf.is_split, lavdf.list_split),
    "ddl-av": Layout("fake/fake_audio_fake_visual/ or its siblings", ddl.is_ddl_clips, ddl.read_ddl_clips),
    "av-deepfake1m": Layout(
        "train_metadata.json, train_metadata/ or JSON files beside the clips of train/",
        avdeepfake1m.is_avdeepfake1m,
        avdeepfake1m.read_avdeepfake1m,
        ("test/**/*",),
    ),
    "ddl-i": Layout("train/ or valid/ with real/, fake/, masks/", folder.is_ddl_images, folder.read_ddl_images),
    "faceforensics": Layout(
        "manipulated_sequences/ or original_sequences/",
        faceforensics.is_faceforensics,
        faceforensics.read_faceforensics,
    ),
    "celeb-df": Layout("Celeb-synthesis/", celebdf.is_celebdf, celebdf.read_celebdf),
    "fakeavceleb": Layout("FakeVideo-RealAudio/ or its siblings", celebdf.is_fakeavceleb, celebdf.read_fakeavceleb),
    "casia": Layout("Sp/ or Tp/ with groundtruth/", casia.is_casia, casia.read_casia),
    "columbia": Layout("4cam_splc/", forensics.is_columbia, forensics.read_columbia, ("4cam_auth/edgemask/*",)),
    "coverage": Layout(
        "image/ and mask/*forged.tif",
        forensics.is_coverage,
        forensics.read_coverage,
        ("mask/*copy.tif", "mask/*paste.tif", "label/*"),
    ),
    "nist16": Layout(
        "reference/*/*-ref.csv", forensics.is_nist16, forensics.read_nist16, ("world/*", "probe/*", "reference/**/*")
    ),
    "imd2020": Layout("folders with *_orig pictures", forensics.is_imd2020, forensics.read_imd2020),
    "dso-1": Layout("DSO-1-Fake-Images-Masks/", forensics.is_dso1, forensics.read_dso1, ("DSI-1*/*",)),
    "openforensics": Layout("Train_poly.json", openforensics.is_openforensics, openforensics.read_openforensics),
    "asvspoof": Layout(
        "ASVspoof2019.LA.cm.train.trn.txt or ASVspoof5.train.tsv", asvspoof.protocols, asvspoof.read_asvspoof
    ),
    "partialspoof": Layout(
        "PartialSpoof.LA.cm.train.trl.txt", asvspoof.partial_protocols, asvspoof.read_partialspoof
    ),
    "imdl-benco": Layout("Tp/ and Gt/", casia.is_benco_folder, casia.read_benco_folder),
    "imdl-benco-json": Layout("one JSON list of [picture, mask]", casia.benco_list, casia.read_benco_list),
    "ummaformer": Layout("one JSON object of clips by name", ummaformer.table_of, ummaformer.read_ummaformer),
    "plain": Layout("real/, fake/ and masks/", folder.is_plain, folder.read_plain),
}  # fmt: skip


def open_data(root: str | Path, layout: str = "auto", split: str | None = None) -> list[Sample]:
    """The samples of a data set, in a fixed order.

    Media and masks are opened when they are asked for. Only of clips that are forged as a whole the header is read at
    once, for their length.

    Args:
        root: a folder, a manifest (``.jsonl``, ``.csv``), or a JSON list of IMDL-BenCo's.
        layout: a key of :data:`LAYOUTS`, or ``auto``: by its marks.
        split: only this part, as the data set names it.

    Raises:
        DataError: the layout is not known, the metadata is damaged, a forged photo has no mask, nothing is of this
            split, or there is nothing at all.
    """
    root = Path(root)
    faults: list[Fault] = []
    samples = LAYOUTS[layout_of(root, layout)].read(root, faults)
    refuse([fault for fault in faults if fault.kind != "orphan"])
    if not samples:
        raise DataError(f"{root}: the data set is empty")
    if split is not None:
        kept = [sample for sample in samples if sample.split == split]
        if not kept:
            found = ", ".join(sorted({s.split for s in samples} - {""})) or "none"
            raise DataError(f"{root}: nothing is of the split {split!r}; splits found: {found}")
        samples = kept
    return close(samples)


def layout_of(root: str | Path, layout: str = "auto") -> str:
    """The layout of a data set, by its marks; one that is named is only checked to exist.

    Raises:
        DataError: it has none that is known.
    """
    root = Path(root)
    if layout != "auto":
        if layout not in LAYOUTS:
            raise DataError(f"unknown layout {layout!r}; known: {', '.join(LAYOUTS)}")
        return layout
    if not root.exists():
        raise DataError(f"{root}: no such folder or file")
    for name, known in LAYOUTS.items():
        if known.marks(root):
            return name
    inside = sorted(f"{p.name}{'/' * p.is_dir()}" for p in root.iterdir()) if root.is_dir() else [root.name]
    there = ", ".join(inside[:12]) + (f" and {len(inside) - 12} more" if len(inside) > 12 else "")
    marks = "; ".join(f"{name}: {known.words}" for name, known in LAYOUTS.items())
    raise DataError(f"{root}: no data set here that is known. It holds {there or 'nothing'}. Known are {marks}")


def close(samples: Sequence[Sample]) -> list[Sample]:
    """The samples, with the spans of clips that are forged as a whole ending where the clip does.

    Raises:
        DataError: the length of such a clip is not to be read.
    """
    open_ended = [i for i, s in enumerate(samples) if any(math.isinf(segment.end) for segment in s.truth.segments)]
    closed = list(samples)
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
        lengths = pool.map(_length, (samples[i] for i in open_ended))
        for i, length in zip(open_ended, lengths, strict=True):
            truth = samples[i].truth
            segments = tuple(dataclasses.replace(segment, end=min(segment.end, length)) for segment in truth.segments)
            media = dataclasses.replace(truth.media, duration=length)
            closed[i] = dataclasses.replace(
                samples[i], truth=dataclasses.replace(truth, media=media, segments=segments)
            )
    return closed


def _length(sample: Sample) -> float:
    path = sample.truth.media.path
    duration = sample.truth.media.duration or read_header(path).duration
    if not duration:
        raise DataError(f"{path}: its header tells no length, and it is forged as a whole; save it again")
    return duration


def digest(root: str | Path, split: str | None = None) -> str:
    """SHA-256 that names a data set: of its manifest or metadata, else of the relative paths and sizes of its files.

    Of a split, also of the split's name. Where there is neither manifest nor metadata, the text files at the top
    (protocols, tables, lists) count with their content. Hidden files do not count.
    """
    root = Path(root)
    table = root if root.is_file() else manifest.manifest_of(root) or lavdf.metadata_of(root)
    if table is None and lavdf.is_split(root):
        table, split = lavdf.metadata_of(root.parent), root.name
    sha256 = hashlib.sha256()
    if table is not None:
        sha256.update(table.read_bytes())
    else:
        tops = [root / name for name in ("real", "fake", "masks")] if folder.is_plain(root) else [root]
        for path in sorted(path for top in tops for path in top.rglob("*") if path.is_file()):
            name = path.relative_to(root).as_posix()
            if any(part.startswith(".") for part in name.split("/")):
                continue
            sha256.update(f"{name}\t{path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
            if name.count("/") < 2 and path.suffix in (".json", ".txt", ".tsv", ".csv"):
                sha256.update(path.read_bytes())
    sha256.update((split or "").encode())
    return sha256.hexdigest()
