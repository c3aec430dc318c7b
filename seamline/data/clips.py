"""From a clip with its truth to what a detector of clips learns from: face crops, sound, spans in ticks.

Decoding a film and finding its faces costs a hundred times more than a training step can wait, so what a clock asks for
is made once and kept beside the data, in plain arrays that are mapped into memory, not read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..cues import COUNT, HOP, PER_TICK, RATE, cues
from ..errors import DataError
from ..faces import FaceTracker
from ..media import Clip, open_media
from ..pace import LAGS, Pace
from ..windows import ClipTruth, ClipWindow, Clock, quiet
from .sample import Sample

STORE = ".prepared"  # folder beside the data
ARRAYS = ("faces", "seen", "sound", "pace", "cues")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A whole clip at a detector's clock: the face seen longest, the sound, the truth in ticks."""

    faces: npt.NDArray[np.uint8] | None  # (n, S, S, 3)
    seen: npt.NDArray[np.bool_] | None  # (n,)
    sound: npt.NDArray[np.float32] | npt.NDArray[np.int16] | None  # (n * rate / fps,)
    ticks: int
    truth: ClipTruth
    pace: npt.NDArray[np.float32] | None = None  # (n, LAGS)
    cues: npt.NDArray[np.float32] | None = None  # (n * PER_TICK, COUNT)

    def window(self, start: int, stop: int, clock: Clock) -> tuple[ClipWindow, ClipTruth]:
        """The ticks [start, stop) as a detector is given them, and the truth inside."""
        per_tick = round(clock.rate / clock.fps)
        faces = seen = sound = pace = told = None
        if self.faces is not None and self.seen is not None and self.seen[start:stop].any():
            faces, seen = np.asarray(self.faces[start:stop]), np.asarray(self.seen[start:stop])
            pace = None if self.pace is None else np.asarray(self.pace[start:stop])
        if self.sound is not None:
            sound = as_float(self.sound[start * per_tick : stop * per_tick])
            if quiet(sound, clock.rate):
                sound = None
            elif self.cues is not None:
                told = np.asarray(self.cues[start * PER_TICK : stop * PER_TICK])
        truth = ClipTruth(_inside(self.truth.video, start, stop), _inside(self.truth.audio, start, stop))
        return ClipWindow(faces, seen, sound, stop - start, pace, told), truth


def as_float(sound: npt.NDArray[np.float32] | npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """Stored 16-bit sound to float32 in [-1, 1); floats pass."""
    if sound.dtype == np.int16:
        return sound.astype(np.float32) / np.float32(32768)
    return np.asarray(sound, np.float32)


def prepare(sample: Sample, clock: Clock, store: Path) -> Prepared:
    """The clip of a sample at a clock; made once, then mapped from ``store``.

    Raises:
        MediaError: the file cannot be read.
        DataError: it is not a clip.
    """
    source = Path(sample.truth.media.path)
    key = f"{source.resolve()} {source.stat().st_size} {clock.fps:g} {clock.rate} {clock.face} {LAGS} {COUNT}"
    folder = store / f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not (folder / "facts.json").is_file():
        _make(source, clock, folder)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    load = {name: np.load(folder / f"{name}.npy", mmap_mode="r") if facts[name] else None for name in ARRAYS}
    spans = {"video": [], "audio": []}  # type: dict[str, list[tuple[float, float]]]
    for segment in sample.truth.segments:
        for modality in spans:
            if segment.modality in (modality, "audio_visual"):
                spans[modality].append((segment.start * clock.fps, segment.end * clock.fps))
    truth = ClipTruth(tuple(spans["video"]), tuple(spans["audio"]))
    return Prepared(load["faces"], load["seen"], load["sound"], facts["ticks"], truth, load["pace"], load["cues"])


def _make(source: Path, clock: Clock, folder: Path) -> None:
    """Decode, find the faces, write the arrays; the folder appears whole or not at all."""
    clip = open_media(source)
    if not isinstance(clip, Clip):
        raise DataError(f"{source}: is a picture, not a clip")
    ticks = max(1, round(clip.duration * clock.fps))
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    if clip.video is not None:
        tracker, pace, shown = FaceTracker(clock.face), Pace(), 0
        rows = np.full((ticks, LAGS), np.nan, np.float32)
        for frame in clip.frames(clock.fps):
            tracker.add(frame)
            if shown < ticks:
                rows[shown] = pace.add(frame)
            shown += 1
        tracks = tracker.window(0, min(shown, ticks)) if shown else []
        if tracks:
            missing = ticks - len(tracks[0].seen)
            arrays["faces"] = np.pad(tracks[0].crops, ((0, missing), (0, 0), (0, 0), (0, 0)))
            arrays["seen"] = np.pad(tracks[0].seen, (0, missing))
            arrays["pace"] = rows
    if clip.audio is not None:
        length = round(ticks * clock.rate / clock.fps)
        sound = np.concatenate([*clip.sound(clock.rate), np.zeros(0, np.float32)])[:length]
        if len(sound) and not quiet(sound, clock.rate):
            whole = np.pad(sound, (0, length - len(sound)))
            arrays["sound"] = np.clip(np.rint(whole * 32768), -32768, 32767).astype(np.int16)
            if (clock.rate, clock.fps) == (RATE, RATE / HOP / PER_TICK):
                arrays["cues"] = cues(whole)
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(part / f"{name}.npy", array)
    facts = {"ticks": ticks} | {name: name in arrays for name in ARRAYS}
    (part / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    try:
        os.replace(part, folder)
    except OSError:  # another process was first
        shutil.rmtree(part)


def _inside(spans: tuple[tuple[float, float], ...], start: int, stop: int) -> tuple[tuple[float, float], ...]:
    """The parts of spans that lie in [start, stop), counted from its beginning; slivers of under half a tick go."""
    cut = [(max(s, start) - start, min(e, stop) - start) for s, e in spans]
    return tuple((s, e) for s, e in cut if e - s >= 0.5)
