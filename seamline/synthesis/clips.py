"""A seeded recipe for forged clips of people talking: which kinds, how many, how long, from whom.

:func:`prepare` decodes every source once onto the common clock, around the face, and leaves plain arrays that the
workers map into memory. :func:`make_clip` makes one clip, which depends on the recipe's seed, the clip's number and
the sorted list of sources alone. ``recipe.forge`` calls both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError, MediaError
from .audio_visual import (
    CUT_KINDS,
    FPS,
    STEP,
    SYNTHETIC_KIND,
    Boxes,
    Donors,
    Footage,
    Frames,
    Lengths,
    forge_clip,
    kinds_of,
)
from .clip_file import FILM, SOUNDS, ClipChain, draw_chain, read_footage, spread
from .image import find_face
from .sources import Source, select
from .speech import RATE, Sound, Span, is_speech, resample
from .surroundings import Music, surrounded, under

SYNTHETIC = "speech_fake"  # kind of source that is forged speech from end to end
SPEEDS = (0.87, 1.25)  # of a voice, least and greatest, within which it sounds like somebody
EVERY = 8  # pictures between two looks for a face
ENDINGS = (*FILM, *SOUNDS, ".mpg", ".avi", ".webm")

KINDS = (
    ("voice_splice", 1.0),
    ("voice_tts", 1.2),
    (SYNTHETIC_KIND, 0.3),
    ("vocoder", 1.0),
    ("voice_shift", 0.6),
    ("word_swap", 0.6),
    ("freeze", 0.5),
    ("timewarp", 0.5),
    ("desync", 0.3),
    ("mouth_swap", 1.0),
    ("face_swap", 0.7),
    ("reblend", 1.0),
    ("lipsync", 1.5),
    ("voice_tts+lipsync", 1.0),
    ("vocoder+lipsync", 0.7),
    ("word_swap+mouth_swap", 0.5),
    ("voice_splice+lipsync", 0.5),
    ("voice_shift+reblend", 0.3),
    ("word_insert", 0.4),
    ("word_delete", 0.4),
)


@dataclass(frozen=True)
class ClipRecipe:
    """How many of what; every field is a key of the TOML file, which says ``media = "clips"``."""

    media: str = "clips"
    seed: int = 0
    count: int = 100  # clips in all
    authentic: float = 0.3  # share of clips left authentic
    seconds: tuple[float, float] = (2.0, 10.0)  # shortest and longest clip
    join: float = 0.4  # share of clips that may be joined from several takes of one person
    only_sound: float = 0.3  # share without pictures, of the clips whose kind can do without
    only_picture: float = 0.15  # share without a sound track, of the clips whose kind can do without
    whole: float = 0.06  # share of forged clips that are forged from end to end
    long: float = 0.2  # share with one span of 2 to 8 s; the rest have spans of 0.2 to 1.5 s
    largest: int = 360  # longest side of a picture, pixels
    sides: tuple[int, int] = (192, 360)  # longest side of the files
    quality: tuple[int, int] = (18, 32)  # CRF of H.264
    split: str = ""  # of manifest.csv in the source folder, if it has one
    name: str = "train"  # split that metadata.json calls the clips: train, dev or test
    sources: tuple[str, ...] = ("video", "speech", SYNTHETIC)  # kinds of source, as that manifest names them
    exclude: tuple[str, ...] = ()  # path prefixes to leave out
    groups: tuple[str, ...] = ()  # use only these groups; empty: all
    without: tuple[str, ...] = ()  # groups to leave out
    same_person: tuple[str, ...] = ()  # path prefixes under which all files show one person
    surroundings: float = 0.0  # share of sounds that get a room, noise or music which their recording does not have
    strangers: float = 0.0  # share of clips of sound alone whose voices are played at another speed: nobody's voices
    kinds: tuple[tuple[str, float], ...] = KINDS  # weights

    @property
    def lengths(self) -> Lengths:
        """How long forged spans are."""
        return Lengths(self.whole, self.long)


@dataclass(frozen=True)
class Take:
    """A source on the common clock, as arrays in a folder."""

    source: Source
    person: str
    stem: str  # of the array files
    ticks: int
    picture: bool
    sound: bool
    voiced: bool  # whether the sound is likely to be speech
    face: bool  # whether a face is seen throughout

    @property
    def synthetic(self) -> bool:
        """Whether it is forged speech from end to end."""
        return self.source.kind == SYNTHETIC


def clip_sources(folder: Path, recipe: ClipRecipe) -> list[Source]:
    """The sources that a recipe selects.

    Raises:
        DataError: there are none.
    """
    found = select(folder, recipe, ENDINGS)
    if not found:
        raise DataError(f"{folder}: no clips to forge here that the recipe selects")
    return found


# ---------------------------------------------------------------------------------------------------------------
# Once for every source
# ---------------------------------------------------------------------------------------------------------------


def track_face(frames: Frames) -> Boxes:
    """(n, 4) box of the largest face in every picture, smoothed over time; nan for more than a second without."""
    ticks = list(range(0, len(frames), EVERY))
    seen: list[int] = []
    boxes: list[npt.NDArray[Any]] = []
    last: npt.NDArray[Any] | None = None
    for tick in ticks:
        found = find_face(frames[tick])
        if found is None:
            continue
        box = np.array(found, np.float64)
        if last is not None and np.abs(box - last).max() > 0.6 * (last[2] - last[0]) and tick - seen[-1] <= FPS:
            continue  # a leap within a second is a false find
        last = box
        seen.append(tick)
        boxes.append(box)
    out = np.full((len(frames), 4), np.nan, np.float32)
    if len(seen) < max(2, 0.4 * len(ticks)):
        return out
    stack = np.stack(boxes)
    padded = np.pad(stack, ((2, 2), (0, 0)), "edge")
    smooth = np.stack([padded[k : k + len(stack)] for k in range(5)]).mean(0)
    at = np.arange(len(frames))
    for side in range(4):
        out[:, side] = np.interp(at, seen, smooth[:, side])
    gap = np.abs(at[:, None] - np.array(seen)[None]).min(1)
    out[gap > FPS] = np.nan
    return out


def _around(frames: Frames, boxes: Boxes, largest: int) -> tuple[Frames, Boxes]:
    """Pictures cut around the face, if they are far larger than it, and no side longer than ``largest``."""
    height, width = frames.shape[1:3]
    x0, y0, x1, y1 = 0, 0, width, height
    if np.isfinite(boxes).any():
        low, high = np.nanmin(boxes[:, :2], 0), np.nanmax(boxes[:, 2:], 0)
        pad = 1.1 * float(np.nanmedian(boxes[:, 2] - boxes[:, 0]))
        x0, y0 = max(0, int(low[0] - pad)), max(0, int(low[1] - pad))
        x1, y1 = min(width, int(high[0] + pad)), min(height, int(high[1] + pad))
    scale = min(1.0, largest / max(x1 - x0, y1 - y0))
    size = (max(16, int((x1 - x0) * scale) // 2 * 2), max(16, int((y1 - y0) * scale) // 2 * 2))
    out = np.empty((len(frames), size[1], size[0], 3), np.uint8)
    for k, frame in enumerate(frames):
        part = frame[y0:y1, x0:x1]
        out[k] = part if part.shape[1::-1] == size else cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    factor = np.array([size[0] / (x1 - x0), size[1] / (y1 - y0)] * 2, np.float32)
    return out, ((boxes - np.array([x0, y0, x0, y0], np.float32)) * factor).astype(np.float32)


def read_words(path: Path) -> list[Span]:
    """Words of a GRID ``.align`` file (start, end in 1/25000 s, word), in samples, silence left out."""
    spans = []
    for line in path.read_text("utf-8").splitlines():
        parts = line.split()
        if len(parts) == 3 and parts[2] not in ("sil", "sp"):
            spans.append((round(int(parts[0]) * RATE / 25000), round(int(parts[1]) * RATE / 25000)))
    return spans


def prepare(numbered: tuple[int, Source], recipe: ClipRecipe, store: Path) -> Take | None:
    """Decode a source into ``store``; ``None`` if it cannot be used."""
    number, source = numbered
    try:
        clip = read_footage(source.path, source.name)
    except MediaError:
        return None
    if clip.ticks < FPS:
        return None
    stem = f"{number:05d}"
    face = False
    if clip.frames is not None:
        frames, boxes = _around(clip.frames, track_face(clip.frames), recipe.largest)
        face = bool(np.isfinite(boxes).any())
        np.save(store / f"{stem}.frames.npy", frames)
        np.save(store / f"{stem}.boxes.npy", boxes)
    voiced = False
    if clip.sound is not None:
        voiced = is_speech(clip.sound)
        np.save(store / f"{stem}.sound.npy", clip.sound)
    align = Path(source.path).with_suffix(".align")
    if clip.sound is not None and align.is_file():
        np.save(store / f"{stem}.words.npy", np.array(read_words(align), np.int64).reshape(-1, 2))
    prefix = next((p for p in recipe.same_person if source.name.startswith(p)), None)
    return Take(
        source,
        prefix or source.group,
        str(store / stem),
        clip.ticks,
        clip.frames is not None,
        clip.sound is not None,
        voiced,
        face,
    )


def _open(take: Take, start: int = 0, stop: int | None = None) -> Footage:
    """A take's ticks [start, stop), mapped from its arrays."""
    stop = take.ticks if stop is None else stop
    frames = boxes = sound = None
    words: tuple[Span, ...] = ()
    if take.picture:
        frames = np.load(f"{take.stem}.frames.npy", mmap_mode="r")[start:stop]
        if take.face:
            boxes = np.load(f"{take.stem}.boxes.npy")[start:stop]
    if take.sound:
        sound = np.load(f"{take.stem}.sound.npy", mmap_mode="r")[start * STEP : stop * STEP]
        if (file := Path(f"{take.stem}.words.npy")).is_file():
            known = np.load(file) - start * STEP
            words = tuple((int(a), int(b)) for a, b in known if a >= 0 and b <= (stop - start) * STEP)
    return Footage(frames, sound, boxes, words)


# ---------------------------------------------------------------------------------------------------------------
# One clip
# ---------------------------------------------------------------------------------------------------------------


def _joined(parts: list[Footage]) -> Footage:
    """Takes of one person one after another; pictures take the size of the first."""
    if len(parts) == 1:
        return parts[0]
    frames = sound = boxes = None
    words: list[Span] = []
    if all(p.frames is not None for p in parts):
        height, width = parts[0].frames.shape[1:3]  # type: ignore[union-attr]
        stacks, places = [], []
        for part in parts:
            assert part.frames is not None
            h, w = part.frames.shape[1:3]
            stack = part.frames
            if (h, w) != (height, width):
                stack = np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in stack])
            stacks.append(stack)
            scale = np.array([width / w, height / h] * 2, np.float32)
            places.append(np.full((len(stack), 4), np.nan, np.float32) if part.boxes is None else part.boxes * scale)
        frames, boxes = np.concatenate(stacks), np.concatenate(places)
    if all(p.sound is not None for p in parts):
        sound = np.concatenate([p.sound for p in parts if p.sound is not None])
        offset = 0
        for part in parts:
            words += [(a + offset, b + offset) for a, b in part.words]
            offset += part.ticks * STEP
    return Footage(frames, sound, boxes, tuple(words))


def _draw_take(takes: list[Take], rng: np.random.Generator) -> Take:
    """A take, so that a person with many takes is drawn more often, but only as the square root of their number."""
    people = sorted({take.person for take in takes})
    counts = np.array([sum(take.person == person for take in takes) for person in people])
    weights = np.sqrt(counts)
    person = people[int(rng.choice(len(people), p=weights / weights.sum()))]
    own = [take for take in takes if take.person == person]
    return own[int(rng.integers(len(own)))]


def _draw_clip(
    takes: list[Take], recipe: ClipRecipe, rng: np.random.Generator, suits: Callable[[Take], bool]
) -> tuple[list[Take], Footage] | None:
    """Some takes of one person and the clip made of them."""
    fit = [take for take in takes if suits(take)]
    if not fit:
        return None
    first = _draw_take(fit, rng)
    shortest, longest = recipe.seconds
    wanted = round(float(np.exp(rng.uniform(np.log(shortest), np.log(longest)))) * FPS)
    chosen = [first]
    if wanted > first.ticks and rng.random() < recipe.join:
        others = [t for t in fit if t.person == first.person and t is not first and t.picture == first.picture]
        for k in rng.permutation(len(others)):
            if sum(t.ticks for t in chosen) >= wanted:
                break
            chosen.append(others[int(k)])
    if len(chosen) == 1:
        length = min(first.ticks, max(FPS, wanted))
        start = int(rng.integers(first.ticks - length + 1))
        return chosen, _open(first, start, start + length)
    return chosen, _joined([_open(take) for take in chosen])


def _voice_of(take: Take) -> Sound:
    return np.asarray(np.load(f"{take.stem}.sound.npy", mmap_mode="r"))


def _donors(kind: str, takes: list[Take], chosen: list[Take], rng: np.random.Generator) -> Donors:
    sound_kind, picture_kind = kinds_of(kind)
    person = chosen[0].person
    voice_from = own = face = None
    if sound_kind in ("voice_splice", "word_insert"):
        others = [t for t in takes if t.voiced and not t.synthetic and t.person != person]
        voice_from = _voice_of(_draw_take(others, rng)) if others else None
    elif sound_kind == "voice_tts":
        fake = [t for t in takes if t.synthetic]
        voice_from = _voice_of(_draw_take(fake, rng)) if fake else None
    elif sound_kind == "word_swap":
        same = [t for t in takes if t.voiced and not t.synthetic and t.person == person and t not in chosen]
        own = _voice_of(same[int(rng.integers(len(same)))]) if same and rng.random() < 0.7 else None
    if picture_kind == "face_swap":
        others = [t for t in takes if t.face and t.person != person]
        face = _open(_draw_take(others, rng)) if others else None
    return Donors(voice_from, own, face)


def _carrier(kind: str, recipe: ClipRecipe, rng: np.random.Generator) -> tuple[bool, bool]:
    """Whether the clip has pictures, and whether it has sound, as its kind allows."""
    if kind == SYNTHETIC_KIND:
        return False, True
    roll = rng.random()
    picture, sound = (False, True) if roll < recipe.only_sound else (True, True)
    if recipe.only_sound <= roll < recipe.only_sound + recipe.only_picture:
        picture, sound = True, False
    in_sound, in_picture = kinds_of(kind)
    if not picture and in_picture and kind not in CUT_KINDS:
        picture = True
    if not sound and (in_sound or in_picture == "desync") and kind != "word_delete":
        sound = True
    return picture, sound


def _surrounded(clip: Footage, recipe: ClipRecipe, index: int) -> tuple[Footage, Music | None]:
    """The clip as it was recorded, and music that is laid under it once it is forged, if any is."""
    rng = np.random.default_rng([recipe.seed, index, 2])
    if clip.sound is None or rng.random() >= recipe.surroundings:
        return clip, None
    sound, music = surrounded(clip.sound, rng)
    if music is None or rng.random() < 0.5:
        return replace(clip, sound=sound), music
    return replace(clip, sound=under(sound, music)), None


def _sped(sound: Sound, speed: float) -> Sound:
    """The sound played ``speed`` times as fast, pitch and formants with it, in whole ticks."""
    length = max(1, round(len(sound) / speed / STEP)) * STEP
    return resample(np.asarray(sound), length).astype(np.float32)


def _strange(clip: Footage, donors: Donors, rng: np.random.Generator) -> tuple[Footage, Donors]:
    """Clip and donors of sound with the voices of people who are not there: each person at a speed of their own."""
    own, other = (float(np.exp(rng.uniform(*np.log(SPEEDS)))) for _ in range(2))
    assert clip.sound is not None
    words = tuple((round(a / own), round(b / own)) for a, b in clip.words)
    donors = Donors(
        None if donors.voice is None else _sped(donors.voice, other),
        None if donors.own is None else _sped(donors.own, own),
    )
    return Footage(None, _sped(clip.sound, own), None, words), donors


def make_clip(index: int, takes: list[Take], recipe: ClipRecipe, out: Path) -> dict[str, Any] | None:
    """Make and write clip ``index``; its manifest line, or ``None`` if no source served."""
    rng = np.random.default_rng([recipe.seed, index])
    forged = rng.random() >= recipe.authentic
    names, weights = zip(*recipe.kinds, strict=True)
    kind = str(rng.choice(names, p=np.array(weights) / sum(weights)))
    # An authentic clip is drawn as if it were to be forged, and then is not: its source must not tell.
    picture, sound = _carrier(kind, recipe, rng)
    in_sound, in_picture = kinds_of(kind)
    spoken = sound and (in_sound is not None or in_picture == "desync" or not picture)
    seen = picture and in_picture is not None and in_picture not in (*CUT_KINDS, "freeze", "timewarp")
    if not forged:
        kind = "authentic"

    def suits(take: Take) -> bool:
        if take.picture < picture or take.sound < sound or take.voiced < spoken or take.face < seen:
            return False
        return take.synthetic == (kind == SYNTHETIC_KIND)

    for _ in range(40):
        drawn = _draw_clip(takes, recipe, rng, suits)
        if drawn is None:
            return None
        chosen, clip = drawn
        clip = replace(clip, frames=clip.frames if picture else None, sound=clip.sound if sound else None)
        boxes = clip.boxes
        video: tuple[tuple[float, float], ...] = ()
        audio = video
        care = None
        donors = _donors(kind, takes, chosen, rng) if forged else Donors()
        strange = np.random.default_rng([recipe.seed, index, 3])
        if clip.frames is None and clip.sound is not None and strange.random() < recipe.strangers:
            clip, donors = _strange(clip, donors, strange)
        clip, music = _surrounded(clip, recipe, index)
        try:
            if forged:
                forgery = forge_clip(kind, clip, rng, donors=donors, lengths=recipe.lengths)
                clip, video, audio, care = forgery.footage, forgery.video, forgery.audio, forgery.care
            if music is not None and clip.sound is not None:
                clip = replace(clip, sound=under(clip.sound, music))
            face = spread(boxes, clip.frames.shape[1:3]) if clip.frames is not None and boxes is not None else None
            blind = np.random.default_rng([recipe.seed, index, 1])
            chain = draw_chain(
                blind, picture=picture, sound=sound, sides=recipe.sides, quality=recipe.quality, face=face
            )
            data = chain.save(chain.apply(clip, blind))
        except DataError:
            continue
        return _row(index, recipe, out, chosen, clip, kind, care, video, audio, chain, data)
    return None


def _row(
    index: int,
    recipe: ClipRecipe,
    out: Path,
    chosen: list[Take],
    clip: Footage,
    kind: str,
    care: str | None,
    video: tuple[tuple[float, float], ...],
    audio: tuple[tuple[float, float], ...],
    chain: ClipChain,
    data: bytes,
) -> dict[str, Any]:
    """Write the file; its manifest line."""
    path = f"media/{index:06d}{chain.ending}"
    (out / path).write_bytes(data)
    return {
        "path": path,
        "kind": kind,
        "label": int(bool(video or audio)),
        "video": [[round(a, 6), round(b, 6)] for a, b in video],
        "audio": [[round(a, 6), round(b, 6)] for a, b in audio],
        "duration": round(clip.duration, 6),
        "fps": FPS,
        "picture": clip.frames is not None,
        "sound": clip.sound is not None,
        "group": "+".join(sorted({take.source.group for take in chosen})),
        "person": chosen[0].person,
        "source": "+".join(take.source.name for take in chosen),
        "care": care,
        "post": chain.facts(),
        "seed": recipe.seed,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def metadata(rows: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    """The manifest in the words of LAV-DF's ``metadata.json``; a fake period is one of either modality, merged."""
    table = []
    for row in rows:
        periods: list[list[float]] = []
        for start, stop in sorted([*row["video"], *row["audio"]]):
            if periods and start <= periods[-1][1]:
                periods[-1][1] = max(periods[-1][1], stop)
            else:
                periods.append([start, stop])
        table.append(
            {
                "file": row["path"],
                "n_fakes": len(periods),
                "fake_periods": periods,
                "duration": row["duration"],
                "original": None,
                "modify_video": bool(row["video"]),
                "modify_audio": bool(row["audio"]),
                "split": split,
                "video_frames": round(row["duration"] * FPS) if row["picture"] else 0,
                "audio_channels": row["post"].get("channels", 1) if row["sound"] else 0,
                "audio_frames": round(row["duration"] * RATE) if row["sound"] else 0,
            }
        )
    return table
