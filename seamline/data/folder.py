"""Plain folders ``real/ fake/ masks/``, as they are or in splits (DDL-I), and the split by group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from .sample import Fault, Sample, by_stem, files, pair, photo

PARTS = ("train", "valid", "val", "test")  # the folders of DDL-I


def read_plain(root: Path, faults: list[Fault], split: str = "") -> list[Sample]:
    """``real/ fake/ masks/``; each picture is its own group, and a fake's mask is the one of its stem."""
    masks = by_stem(files(root / "masks"), faults)
    within = f"{split}/" if split else ""  # numbers begin anew in every split
    real = [photo(path, forged=False, split=split, group=within + path.stem) for path in files(root / "real")]
    fakes = pair(files(root / "fake"), masks, root / "masks", faults)
    return real + [photo(p, mask, forged=True, split=split, group=within + p.stem) for p, mask in fakes]


def is_plain(root: Path) -> bool:
    """Whether this is a plain folder."""
    return (root / "real").is_dir() or (root / "fake").is_dir()


def read_ddl_images(root: Path, faults: list[Fault]) -> list[Sample]:
    """DDL-I: a plain folder for each of ``train/`` and ``valid/``; a mask has the name of its picture."""
    return [sample for part in PARTS for sample in read_plain(root / part, faults, part)]


def is_ddl_images(root: Path) -> bool:
    """Whether plain folders lie in the splits of this one."""
    return any(is_plain(root / part) and (root / part / "masks").is_dir() for part in PARTS)


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
