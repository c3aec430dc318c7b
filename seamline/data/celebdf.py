"""Sets of clips that are forged as a whole, told by their folders: Celeb-DF v1 and v2, FakeAVCeleb.

Celeb-DF (Li et al., CVPR 2020): ``Celeb-real``, ``YouTube-real``, ``Celeb-synthesis`` (named TARGET_SOURCE_NUMBER) and
``List_of_testing_videos.txt``, whose lines begin with 1 for real. FakeAVCeleb (Khalid et al., NeurIPS 2021): four
folders by what is forged, and the folder of a speaker, ``id00076``, above each clip.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..report import Media
from .sample import FILMS, WHOLLY, Fault, Sample, clip, files

CELEB = {"Celeb-real": "authentic", "YouTube-real": "authentic", "Celeb-synthesis": "video"}
LISTED = "List_of_testing_videos.txt"
FAKEAV = {
    "RealVideo-RealAudio": "authentic",
    "RealVideo-FakeAudio": "audio",
    "FakeVideo-RealAudio": "video",
    "FakeVideo-FakeAudio": "audio_visual",
}


def is_celebdf(root: Path) -> bool:
    """Whether the synthesised clips of Celeb-DF are here."""
    return (root / "Celeb-synthesis").is_dir()


def read_celebdf(root: Path, faults: list[Fault]) -> list[Sample]:
    """All clips; those that the list names are the split ``test``. ``group`` is the person that is seen.

    Without the list, no sample has a split.
    """
    tests: dict[str, str] = {}
    path = root / LISTED
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            label, _, name = line.strip().partition(" ")
            folder = name.strip().partition("/")[0]
            if not name:
                continue
            if label not in ("0", "1") or (label == "1") != (CELEB.get(folder) == "authentic"):
                words = f"calls {name} {label}, but 1 is real and 0 is fake, and it lies in {folder}"
                faults.append(Fault("metadata", f"{path}, line {number}", words))
            tests[name.strip()] = "test"
            if not (root / name.strip()).is_file():
                faults.append(Fault("missing", str(root / name.strip()), f"{LISTED} names it, but it is not there"))
    samples = []
    for folder, kind in CELEB.items():
        for film in files(root / folder, FILMS):
            person = film.stem.partition("_")[0] if "_" in film.stem else f"{folder} {film.stem}"
            split = tests.get(f"{folder}/{film.name}", "train") if tests else ""
            samples.append(_clip(film, kind, person, split))
    return samples


def is_fakeavceleb(root: Path) -> bool:
    """Whether one of the folders of fakes is here."""
    return any((root / name).is_dir() for name in FAKEAV if name != "RealVideo-RealAudio")


def read_fakeavceleb(root: Path, faults: list[Fault]) -> list[Sample]:
    """All clips; ``group`` is the speaker. The set has no official split."""
    samples = []
    for folder, kind in FAKEAV.items():
        for film in files(root / folder, FILMS, deep=True):
            speaker = next((part for part in reversed(film.parts) if re.fullmatch(r"id\d+", part)), film.parent.name)
            samples.append(_clip(film, kind, speaker))
    return samples


def _clip(path: Path, kind: str, group: str, split: str = "") -> Sample:
    return clip(Media(path=str(path), kind="video"), *WHOLLY[kind], group=group, split=split)
