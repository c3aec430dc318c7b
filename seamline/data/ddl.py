"""DDL-AV: the audio-visual track of the IJCAI 2025 deepfake localisation challenge (DDL-I is a plain folder in splits).

``real/`` holds clips, ``fake/`` three folders named by what is forged, with a JSON file beside each clip. The field
names of that file were never published; those of the related sets are tried, and anything else is refused by name.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..report import Media
from .folder import PARTS
from .sample import FILMS, Fault, Sample, clip, files, read_json, read_rows

FAKES = {  # folder: what is forged in it
    "fake_audio_fake_visual": "audio_visual",
    "fake_audio_real_visual": "audio",
    "real_audio_fake_visual": "video",
}
FIELDS = {  # names of fields with forged spans, in seconds; the first that is there counts
    "video": ("visual_fake_segments", "video_fake_segments", "fake_visual_segments", "fake_video_segments"),
    "audio": ("audio_fake_segments", "fake_audio_segments"),
    "both": ("fake_segments", "fake_periods", "segments", "timestamps"),
}


def is_ddl_clips(root: Path) -> bool:
    """Whether the three folders of fakes are here, or in the splits."""
    return any((part / "fake" / name).is_dir() for part in _parts(root) for name in FAKES)


def read_ddl_clips(root: Path, faults: list[Fault]) -> list[Sample]:
    """The clips of DDL-AV; of one that is forged in both modalities, each may have spans of its own."""
    samples = []
    for part in _parts(root):
        split = "" if part == root else part.name
        reals = files(part / "real", FILMS, deep=True)
        samples += [clip(_media(path), split=split, group=f"{split}/{path.stem}") for path in reals]
        for name, kind in FAKES.items():
            clips = files(part / "fake" / name, FILMS, deep=True)
            samples += read_rows(
                clips, partial(_fake, kind=kind, split=split), f"{part / 'fake' / name}, clip number", faults
            )
    return samples


def _parts(root: Path) -> list[Path]:
    return [part for part in [root, *(root / name for name in PARTS)] if (part / "fake").is_dir()]


def _media(path: Path) -> Media:
    return Media(path=str(path), kind="video", fps=25.0)


def _fake(path: Path, kind: str, split: str) -> Sample:
    """A forged clip with the JSON file of its stem.

    Raises:
        DataError: the file is missing, or has none of the fields that are known.
    """
    beside = path.with_suffix(".json")
    facts = read_json(beside)
    if isinstance(facts, list) and len(facts) == 1:
        facts = facts[0]
    if not isinstance(facts, dict):
        raise DataError(f"{beside}: not an object but a {type(facts).__name__}")
    both = _spans(facts, "both")
    spans = {}
    for modality in ("video", "audio"):
        own = _spans(facts, modality)
        forged = modality in kind or kind == "audio_visual"
        spans[modality] = (both if own is None else own) if forged else own or []
        if spans[modality] is None:
            known = ", ".join(name for names in FIELDS.values() for name in names)
            raise DataError(f"{beside}: no field with the forged spans of its {modality}; known: {known}; found: "
                            f"{', '.join(map(str, facts)) or 'none'}")  # fmt: skip
        if forged != bool(spans[modality]):
            raise DataError(f"{beside}: lies in {path.parent.name}, but lists {len(spans[modality] or [])} forged spans"
                            f" of {modality}")  # fmt: skip
    original = facts.get("original")
    group = f"{split}/{Path(str(original)).stem}" if original else f"{split}/fake/{path.stem}"
    return clip(_media(path), spans["video"] or [], spans["audio"] or [], source=original, group=group, split=split)


def _spans(facts: dict[str, Any], what: str) -> list[Any] | None:
    return next((list(facts[name]) for name in FIELDS[what] if name in facts), None)
