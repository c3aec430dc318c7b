"""Spoofed speech: ASVspoof 2019 (LA and PA), ASVspoof 5 and PartialSpoof.

A protocol has a line for each utterance, its columns parted by blanks: speaker, name, ..., the attack, ``bonafide`` or
``spoof``. ASVspoof tells of whole utterances. PartialSpoof (Zhang et al., TASLP 2023) adds
``segment_labels/SPLIT_seglab_SECONDS.npy``: for each utterance one label per SECONDS, ``1`` bona fide, ``0`` spoofed.
"""

from __future__ import annotations

import io
import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..report import Media
from .sample import WHOLE, Fault, Sample, clip, files, read_rows

PROTOCOLS = (  # of the two challenges, and of PartialSpoof
    (re.compile(r"ASVspoof2019\.(LA|PA)\.cm\.(train|dev|eval)\.tr[nl]\.txt"), "ASVspoof2019_{0}_{1}/flac"),
    (re.compile(r"(ASVspoof5)\.(train|dev|eval)(?:\.track_1)?\.tsv"), "flac_{2}"),
)
PARTIAL = re.compile(r"(PartialSpoof)\.LA\.cm\.(train|dev|eval)\.trl\.txt")
KEYS = {"bonafide": False, "spoof": True}
LETTERS = {"train": "T", "dev": "D", "eval": "E_eval"}


def protocols(root: Path) -> list[tuple[Path, str, str]]:
    """The protocols of ASVspoof in a folder or one below: path, split, and the folder of its sounds."""
    found = []
    for path in [*sorted(root.glob("*.t[xs][tv]")), *sorted(root.glob("*/*.t[xs][tv]"))]:
        for pattern, folder in PROTOCOLS:
            if match := pattern.fullmatch(path.name):
                found.append((path, match[2], folder.format(match[1], match[2], LETTERS[match[2]])))
    return found


def read_asvspoof(root: Path, faults: list[Fault]) -> list[Sample]:
    """The utterances of all protocols; ``kind`` is the attack, ``group`` the speaker."""
    samples: list[Sample] = []
    for path, split, folder in protocols(root):
        make = partial(_utterance, root / folder, split, ".flac")
        samples += read_rows(_lines(path), make, f"{path}, line", faults, first=1)
    return samples


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise DataError(f"{path}: not readable as text: {cause}") from cause


def _utterance(
    folder: Path, split: str, ending: str, line: str, labels: dict[str, Any] | None = None, step: float = 0.0
) -> Sample | None:
    """The utterance of one line; ``labels`` of every ``step`` seconds by name, or ``None``: forged as a whole."""
    columns = line.split()
    if not columns:
        return None
    place = next((i for i, word in enumerate(columns) if word in KEYS), None)
    if place is None or len(columns) < 3:
        raise DataError(f"neither bonafide nor spoof in {line!r}")
    forged, speaker, name = KEYS[columns[place]], columns[0], columns[1]
    spans: Any = WHOLE if forged else ()
    if labels is not None:
        if name not in labels:
            raise DataError(f"{name}: has no segment labels")
        spans = spoofed(np.asarray(labels[name]), step)
        if bool(spans) != forged:
            raise DataError(f"{name}: the protocol calls it {columns[place]}, but {len(spans)} spans of it are spoofed")
    attack = next((word for word in reversed(columns[2:place]) if word != "-"), "audio")
    media = Media(path=str(folder / f"{name}{ending}"), kind="audio")
    return clip(media, (), spans, kind=attack if forged else "", group=speaker, split=split)


def spoofed(labels: npt.NDArray[Any], step: float) -> list[tuple[float, float]]:
    """Spans in seconds where labels of every ``step`` seconds are ``0``."""
    wrong = np.array([str(label).strip() == "0" for label in labels], bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wrong, [False]]).astype(np.int8)))
    return [(round(a * step, 6), round(b * step, 6)) for a, b in edges.reshape(-1, 2).tolist()]


def partial_protocols(root: Path) -> list[tuple[Path, str]]:
    """The protocols of PartialSpoof in a folder or two below: path and split."""
    found = [path for depth in ("", "*/", "*/*/") for path in sorted(root.glob(f"{depth}PartialSpoof.LA.cm.*.trl.txt"))]
    return [(path, match[2]) for path in found if (match := PARTIAL.fullmatch(path.name))]


def read_partialspoof(root: Path, faults: list[Fault]) -> list[Sample]:
    """The utterances of PartialSpoof with their spoofed spans, at the finest resolution that is there.

    Raises:
        DataError: a split has no segment labels, or they hold anything but arrays by name.
    """
    samples: list[Sample] = []
    for path, split in partial_protocols(root):
        tables = {
            float(match[1]): table
            for table in files(root / "segment_labels", {".npy"})
            if (match := re.fullmatch(rf"{split}_seglab_([\d.]+)", table.stem))
        }
        if not tables:
            raise DataError(f"{root / 'segment_labels'}: no {split}_seglab_SECONDS.npy, which tells what is spoofed")
        step = min(tables)
        make = partial(_utterance, root / split / "con_wav", split, ".wav", labels=load_labels(tables[step]), step=step)
        samples += read_rows(_lines(path), make, f"{path}, line", faults, first=1)
    return samples


class _Arrays(pickle.Unpickler):
    """Rebuilds numpy arrays and plain values, and refuses everything else that a pickle may ask for."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype", "scalar"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_labels(path: Path) -> dict[str, Any]:
    """The dict of arrays that numpy pickled into a ``.npy`` file, without trusting the pickle.

    Raises:
        DataError: it is no such file.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            read(file)
            held = _Arrays(io.BytesIO(file.read())).load()
        labels = held.item() if isinstance(held, np.ndarray) else held
    except (OSError, ValueError, EOFError, AttributeError, pickle.UnpicklingError) as cause:
        raise DataError(f"{path}: not numpy's arrays by name: {cause}") from cause
    if not isinstance(labels, dict):
        raise DataError(f"{path}: holds a {type(labels).__name__}, not arrays by name")
    return labels
