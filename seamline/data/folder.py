"""Folders of photos or clips with their truth: what ``seamline forge`` wrote, LAV-DF, or ``real/ fake/ masks/``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..report import Artifacts, Media, Report
from .lavdf import METADATA, SPLITS, forged_clip, metadata_of, read_lavdf
from .sample import Sample

MANIFEST = "manifest.jsonl"
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif", ".bmp", ".gif", ".heic", ".heif"})


def read_folder(root: str | Path) -> list[Sample]:
    """Read a data folder, in a fixed order.

    A forge folder (it holds ``manifest.jsonl``); LAV-DF (``metadata.json``) or one of its splits, ``LAV-DF/test``; or a
    plain one: ``real/`` and ``fake/`` with pictures and ``masks/`` with one mask per fake of the same file stem.

    Raises:
        DataError: the folder is neither, is empty, its manifest is damaged, or a fake has no mask.
    """
    root = Path(root)
    if (root / MANIFEST).is_file():
        samples = _read_forge(root)
    elif metadata_of(root):
        samples = read_lavdf(root)
    elif _is_split(root):
        samples = read_lavdf(root.parent, root.name)
    elif (root / "real").is_dir() or (root / "fake").is_dir():
        samples = _read_plain(root)
    else:
        raise DataError(
            f"{root}: no data set here; expected {MANIFEST}, {METADATA[0]}, or the folders real/, fake/ and masks/"
        )
    if not samples:
        raise DataError(f"{root}: the data set is empty")
    return samples


def digest(root: str | Path) -> str:
    """SHA-256 that names a data folder: of its manifest or metadata, else of the relative paths and sizes of its files.

    Of a split of LAV-DF: of the metadata and the split's name.
    """
    root = Path(root)
    listed = root / MANIFEST if (root / MANIFEST).is_file() else metadata_of(root)
    if listed is None and _is_split(root):
        listed = metadata_of(root.parent)
        return hashlib.sha256(Path(str(listed)).read_bytes() + root.name.encode()).hexdigest()
    if listed is not None:
        return hashlib.sha256(listed.read_bytes()).hexdigest()
    files = sorted(p for name in ("real", "fake", "masks") for p in (root / name).rglob("*") if p.is_file())
    listing = "".join(f"{p.relative_to(root).as_posix()}\t{p.stat().st_size}\n" for p in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def split_by_group(samples: Sequence[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split into (kept, held out) so that no group is on both sides.

    Groups are drawn in a seeded order until at least ``fraction`` of the samples is held out.

    Raises:
        DataError: there are fewer than two groups, so nothing can be held out.
    """
    if fraction <= 0:
        return list(samples), []
    groups = sorted({s.group for s in samples})
    if len(groups) < 2:
        raise DataError(f"cannot hold out {fraction:.0%}: all samples are of one group, {groups}")
    count = {g: sum(s.group == g for s in samples) for g in groups}
    held: set[str] = set()
    for i in np.random.default_rng(seed).permutation(len(groups))[:-1]:
        held.add(groups[i])
        if sum(count[g] for g in held) >= fraction * len(samples):
            break
    return [s for s in samples if s.group not in held], [s for s in samples if s.group in held]


def _read_forge(root: Path) -> list[Sample]:
    """The samples that ``manifest.jsonl`` lists, one JSON object a line."""
    samples = []
    for number, line in enumerate((root / MANIFEST).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row: dict[str, Any] = json.loads(line)
            if "mask" not in row and ("video" in row or "audio" in row):
                samples.append(forged_clip(root, row))
                continue
            label, path, mask = int(row["label"]), root / row["path"], row["mask"]
            samples.append(
                _sample(
                    path,
                    root / mask if label and mask else None,
                    forged=bool(label),
                    sha256=row.get("sha256"),
                    kind=str(row["kind"]),
                    source=row.get("source"),
                    group=str(row["group"]),
                )
            )
        except (ValueError, KeyError, TypeError, DataError) as cause:
            what = cause if isinstance(cause, DataError) else f"{type(cause).__name__}: {cause}"
            raise DataError(f"{root / MANIFEST}, line {number}: {what}") from cause
    return samples


def _is_split(root: Path) -> bool:
    """Whether this is the folder of one split of LAV-DF."""
    return root.is_dir() and root.name in SPLITS and metadata_of(root.parent) is not None


def _read_plain(root: Path) -> list[Sample]:
    """``real/ fake/ masks/``; each picture is its own group, and a fake's mask is the one of its stem."""
    masks: dict[str, Path] = {}
    for path in _pictures(root / "masks"):
        other = masks.setdefault(path.stem, path)
        if other is not path:
            raise DataError(f"two masks share the stem {path.stem!r}: {other.name} and {path.name}")
    fakes = _pictures(root / "fake")
    unmatched = [path.name for path in fakes if path.stem not in masks]
    if unmatched:
        more = f" and {len(unmatched) - 10} more" if len(unmatched) > 10 else ""
        raise DataError(f"{root}: no mask in masks/ has the stem of {', '.join(unmatched[:10])}{more}")
    real = [_sample(p, None, forged=False, kind="authentic", group=p.stem) for p in _pictures(root / "real")]
    return real + [_sample(p, masks[p.stem], forged=True, kind="forged", group=p.stem) for p in fakes]


def _pictures(folder: Path) -> list[Path]:
    """The picture files of a folder, sorted by name; none if it is absent."""
    return sorted(p for p in folder.glob("*") if p.suffix.lower() in PICTURES) if folder.is_dir() else []


def _sample(
    path: Path,
    mask: Path | None,
    *,
    forged: bool,
    kind: str,
    group: str,
    sha256: str | None = None,
    source: str | None = None,
) -> Sample:
    truth = Report(
        media=Media(path=str(path), sha256=sha256, kind="image"),
        verdict="forged" if forged else "authentic",
        probability=float(forged),
        artifacts=Artifacts(mask=str(mask) if mask else None),
    )
    return Sample(media=path, truth=truth, kind=kind, source=source, group=group)
