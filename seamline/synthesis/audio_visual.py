"""Forged clips of people talking, with the exact truth of each modality.

A :class:`Footage` is a clip on a fixed clock: :data:`FPS` pictures and :data:`RATE` samples a second, so that one
picture goes with :data:`STEP` samples. A forger changes the pictures, the sound or both inside some spans and nothing
outside them; :class:`ClipForgery` says which. What happens to a clip afterwards (``clip_file.py``: framing, resizing,
the codecs) is drawn without knowing whether it was forged.

* sound: another voice laid in (``voice_splice``), synthetic speech laid in (``voice_tts``), the same words through a
  vocoder (``vocoder``), with another pitch or other formants (``voice_shift``), the same voice from another time
  (``word_swap``);
* pictures: held (``freeze``), played at another speed or backwards (``timewarp``), shifted against the sound
  (``desync``), mouth or face from another time (``mouth_swap``) or another person (``face_swap``), blended with a
  changed copy of itself (``reblend``, after self-blended images, Shiohara and Yamasaki, CVPR 2022), or a mouth of low
  resolution as lip-sync generators leave it (``lipsync``, as Wav2Lip pastes a 96-pixel face back);
* synthetic speech as it is, from end to end (``voice_synthetic``);
* both, one of each over the same span: ``voice_tts+lipsync`` and so on;
* the cut: a span inserted (``word_insert``) or taken out (``word_delete``), of both streams where both are there. What
  was taken out is not there to be marked: its truth is :data:`SEAM` seconds on either side of the seam.

Seams go from crude to careful, see :data:`~seamline.synthesis.speech.CARES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .speech import CARES, RATE, TICK, Sound, Span, lay, level, quiet_point, room_tone, shift_pitch, vocode, voice

Frames = npt.NDArray[np.uint8]  # (n, H, W, 3) RGB
Boxes = npt.NDArray[np.float32]  # (n, 4) x0, y0, x1, y1 of the face, pixels; nan where there is none
Pixels = npt.NDArray[np.uint8]  # (H, W, 3)
Order = npt.NDArray[np.int64]  # (n,) which picture is shown
Spans = tuple[tuple[float, float], ...]  # seconds, half-open, in order

FPS = 25
STEP = RATE // FPS  # samples that go with one picture
SEAM = 0.12  # seconds of truth on either side of a place where something was taken out
MIN_FRAMES = 3  # pictures: a forged span of video is never shorter
MIN_CHANGE = 2.0  # grey levels on average in the changed area
LOUD = 0.003  # root mean square below which a span of sound is not worth forging

SOUND_KINDS = ("voice_splice", "voice_tts", "vocoder", "voice_shift", "word_swap")
PICTURE_KINDS = ("freeze", "timewarp", "desync", "mouth_swap", "face_swap", "reblend", "lipsync")
CUT_KINDS = ("word_insert", "word_delete")
SYNTHETIC_KIND = "voice_synthetic"  # the clip is itself synthetic speech from end to end
DONATED = ("voice_splice", "voice_tts")  # kinds that need another voice


@dataclass(frozen=True, eq=False)
class Footage:
    """A clip on the common clock; an absent stream is ``None``, and so are the boxes of a clip without a face."""

    frames: Frames | None
    sound: Sound | None  # as many samples as STEP times the pictures
    boxes: Boxes | None = None
    words: tuple[Span, ...] = ()  # samples, where they are known

    @property
    def ticks(self) -> int:
        """Length in pictures, 1 / FPS seconds each."""
        if self.frames is not None:
            return len(self.frames)
        return 0 if self.sound is None else len(self.sound) // STEP

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.ticks / FPS


@dataclass(frozen=True, eq=False)
class Donors:
    """What a forger may take from elsewhere."""

    voice: Sound | None = None  # of another person, or synthetic
    own: Sound | None = None  # more of the same person's voice
    face: Footage | None = None  # another person


@dataclass(frozen=True, eq=False)
class ClipForgery:
    """A forged clip and its exact truth by modality."""

    footage: Footage
    video: Spans
    audio: Spans
    kind: str
    care: str


@dataclass(frozen=True)
class Lengths:
    """How long forged spans are: shares of whole-clip and of long (2 to 8 s) ones; the others last 0.2 to 1.5 s."""

    whole: float = 0.06
    long: float = 0.2

    def draw(self, total: float, rng: np.random.Generator) -> list[float]:
        """Lengths in seconds of one to three spans in a clip of ``total`` seconds."""
        roll = rng.random()
        if roll < self.whole:
            return [total]
        if roll < self.whole + self.long and total >= 2.6:
            return [float(rng.uniform(2, min(8, 0.85 * total)))]
        count = 1 if total < 3.5 else int(rng.choice((1, 2, 3), p=(0.6, 0.25, 0.15)))
        return [float(min(np.exp(rng.uniform(np.log(0.2), np.log(1.5))), 0.7 * total)) for _ in range(count)]


def kinds_of(kind: str) -> tuple[str | None, str | None]:
    """The sound part and the picture part of a kind; a cut is both.

    Raises:
        DataError: there is no such kind.
    """
    if kind in CUT_KINDS:
        return kind, kind
    if kind == SYNTHETIC_KIND:
        return kind, None
    sound, _, picture = kind.partition("+") if "+" in kind else (kind, "", kind)
    if "+" in kind:
        if sound in SOUND_KINDS and picture in PICTURE_KINDS:
            return sound, picture
    elif kind in SOUND_KINDS:
        return kind, None
    elif kind in PICTURE_KINDS:
        return None, kind
    known = ", ".join((*SOUND_KINDS, *PICTURE_KINDS, *CUT_KINDS, SYNTHETIC_KIND))
    raise DataError(f"unknown kind of forged clip {kind!r}; known: {known}, and a sound kind + a picture kind")


# ---------------------------------------------------------------------------------------------------------------
# Sound
# ---------------------------------------------------------------------------------------------------------------


def voiced_span(
    active: npt.NDArray[np.bool_], length: int, rng: np.random.Generator, share: float = 0.6, taken: Any = ()
) -> Span | None:
    """A span of ``length`` samples with voice for at least ``share`` of it, clear of the spans in ``taken``."""
    ticks = max(1, length // TICK)
    if ticks > len(active):
        return None
    voiced = np.concatenate([[0], np.cumsum(active)])
    enough = (voiced[ticks:] - voiced[:-ticks]) >= share * ticks
    for start, stop in taken:
        enough[max(0, (start - length) // TICK - 5) : stop // TICK + 5] = False
    places = np.flatnonzero(enough)
    if not len(places):
        return None
    start = int(rng.choice(places)) * TICK
    return start, start + length


def _piece(sound: Sound, length: int, rng: np.random.Generator) -> Sound | None:
    """A stretch of speech of ``length`` samples."""
    span = voiced_span(voice(sound), length, rng, 0.5)
    return None if span is None else np.array(sound[span[0] : span[1]], np.float32)


def _new_sound(
    kind: str, sound: Sound, span: Span, rng: np.random.Generator, donors: Donors, taken: list[Span]
) -> npt.NDArray[Any] | None:
    """What replaces a span of sound; ``None`` if the donor does not have it."""
    start, stop = span
    if kind in DONATED:
        donor = donors.voice
        if donor is None:
            return None
        new = _piece(donor, stop - start, rng)
        if new is None and stop - start > len(donor) >= RATE:  # shorter than a whole clip: said again
            new = np.tile(donor, -(-(stop - start) // len(donor)))[: stop - start]
        return new
    if kind == "word_swap":
        if donors.own is not None:
            return _piece(donors.own, stop - start, rng)
        away = (max(0, start - (stop - start)), stop)
        other = voiced_span(voice(sound), stop - start, rng, 0.5, [(max(0, away[0]), stop), *taken])
        return None if other is None else sound[other[0] : other[1]]
    pad = 2048  # so that the transform has its surroundings
    low, high = max(0, start - pad), min(len(sound), stop + pad)
    return (vocode if kind == "vocoder" else shift_pitch)(np.asarray(sound[low:high]), rng)[start - low : stop - low]


def forge_sound(
    kind: str, sound: Sound, spans: list[Span], rng: np.random.Generator, donors: Donors, care: str
) -> Sound | None:
    """The sound with every span replaced; ``None`` if one could not be, or hardly changed."""
    out = np.array(sound, np.float32)
    for start, stop in spans:
        if level(sound[start:stop]) < LOUD:
            return None
        new = _new_sound(kind, sound, (start, stop), rng, donors, spans)
        if new is None:
            return None
        out = lay(out, start, new, rng, care)
        if level(out[start:stop] - sound[start:stop]) < 0.2 * level(sound[start:stop]):
            return None
    return out


# ---------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------

AREAS = {  # centre and half axes in units of the Haar box of a frontal face
    "mouth": ((0.5, 0.80), (0.27, 0.18)),
    "lower": ((0.5, 0.75), (0.42, 0.33)),
    "face": ((0.5, 0.55), (0.42, 0.54)),
}


def area_weight(size: tuple[int, int], care: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(h, w) weight of an area: an ellipse or a rounded rectangle, hard or feathered inwards, 0 at the border."""
    h, w = size
    yy, xx = np.mgrid[:h, :w].astype(np.float32)
    x, y = np.abs((xx + 0.5) / w * 2 - 1), np.abs((yy + 0.5) / h * 2 - 1)
    power = 2.0 if rng.random() < 0.6 else rng.uniform(3, 6)
    radius = (x**power + y**power) ** (1 / power)  # 1 at the border
    edge = {"crude": 0.0, "plain": rng.uniform(0.04, 0.12), "careful": rng.uniform(0.15, 0.4)}[care]
    if not edge:
        return np.asarray(radius < 1, np.float32)
    ramp = np.clip((1 - radius) / edge, 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), np.float32)


@dataclass(frozen=True)
class _Face:
    """Where a face is in one picture: centre and side of its box, pixels."""

    x: float
    y: float
    side: float


def _faces(boxes: Boxes, start: int, stop: int) -> list[_Face]:
    """Faces of the pictures [start, stop), all of one size, so that areas do not flicker."""
    part = boxes[start:stop]
    side = float(np.median(part[:, 2] - part[:, 0]))
    return [_Face(float((b[0] + b[2]) / 2), float((b[1] + b[3]) / 2), side) for b in part]


def _cut_out(picture: Pixels, matrix: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    return np.asarray(
        cv2.warpAffine(
            picture, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
        ),
        np.float32,
    )


def _settle(here: Pixels, face: _Face, there: Pixels, other: _Face) -> tuple[float, float]:
    """How far (pixels of ``there``) the other face must move to lie on this one: eyes and nose are compared."""
    n = 48
    patches = []
    for picture, place in ((here, face), (there, other)):
        scale = 0.8 * place.side / n
        matrix = np.array([[scale, 0, place.x - 0.4 * place.side], [0, scale, place.y - 0.4 * place.side]])
        grey = cv2.cvtColor(_cut_out(picture, matrix, (n, n)).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        patches.append(grey[: n * 2 // 3].astype(np.float64))
    (dx, dy), response = cv2.phaseCorrelate(
        patches[0], patches[1], cv2.createHanningWindow((n, n * 2 // 3), cv2.CV_64F)
    )
    if response < 0.1 or max(abs(dx), abs(dy)) > 0.15 * n:
        return 0.0, 0.0
    return dx * 0.8 * other.side / n, dy * 0.8 * other.side / n


@dataclass(frozen=True, eq=False)
class _Patch:
    """An area of the face, and what is laid over it in each picture."""

    weight: npt.NDArray[np.float32]  # (h, w)
    centre: tuple[float, float]  # of the area, in units of the face box
    treat: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
    zoom: float
    turn: float  # radians
    match: bool  # whether colours are matched


def _overlay(
    picture: Pixels, face: _Face, source: Pixels, other: _Face, patch: _Patch, strength: float, settle: bool
) -> Pixels:
    """One picture with the patch laid over its face."""
    h, w = patch.weight.shape
    cx, cy = (face.x + (patch.centre[0] - 0.5) * face.side, face.y + (patch.centre[1] - 0.5) * face.side)
    x0, y0 = round(cx - w / 2), round(cy - h / 2)
    scale = other.side / face.side / patch.zoom
    dx, dy = _settle(picture, face, source, other) if settle else (0.0, 0.0)
    ox = other.x + (patch.centre[0] - 0.5) * other.side + dx
    oy = other.y + (patch.centre[1] - 0.5) * other.side + dy
    cos, sin = scale * np.cos(patch.turn), scale * np.sin(patch.turn)
    a, b = x0 - cx, y0 - cy
    matrix = np.array([[cos, -sin, ox + cos * a - sin * b], [sin, cos, oy + sin * a + cos * b]])
    new = patch.treat(_cut_out(source, matrix, (w, h)))
    height, width = picture.shape[:2]
    left, top, right, bottom = max(0, x0), max(0, y0), min(width, x0 + w), min(height, y0 + h)
    if right <= left or bottom <= top:
        return picture
    inside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
    weight = patch.weight[inside][..., None] * np.float32(strength)
    new = new[inside]
    was = picture[top:bottom, left:right].astype(np.float32)
    if patch.match:
        area = max(float(weight.sum()), 1e-6)
        ours, theirs = (new * weight).sum((0, 1)) / area, (was * weight).sum((0, 1)) / area
        spread = np.sqrt((((new - ours) ** 2) * weight).sum() / (((was - theirs) ** 2) * weight).sum().clip(1e-3))
        new = (new - ours) / np.clip(spread, 0.7, 1.4) + theirs
    out = picture.copy()
    out[top:bottom, left:right] = np.clip(np.rint(was + weight * (new - was)), 0, 255).astype(np.uint8)
    return out


def _blur_again(
    side: int, rng: np.random.Generator, sharpen: bool
) -> Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
    """Through ``side`` pixels and back, as a generator of fixed size leaves a face."""
    how = int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)))

    def treat(patch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        h, w = patch.shape[:2]
        scale = min(0.9, side / max(h, w))
        small = cv2.resize(patch, (max(4, round(w * scale)), max(4, round(h * scale))), interpolation=cv2.INTER_AREA)
        out = cv2.resize(small, (w, h), interpolation=how)
        if sharpen:
            out = cv2.addWeighted(out, 1.8, cv2.GaussianBlur(out, (0, 0), 1.2), -0.8, 0)
        return np.asarray(out, np.float32)

    return treat


def _patch(kind: str, side: float, care: str, rng: np.random.Generator) -> _Patch:
    """Draw the area and the treatment of one forged span for a face of ``side`` pixels."""
    odds = {"reblend": (0.4, 0.25, 0.35), "lipsync": (0.45, 0.5, 0.05), "mouth_swap": (0.5, 0.3, 0.2)}
    area = str(rng.choice(list(AREAS), p=odds.get(kind, (0.4, 0.3, 0.3))))
    centre, axes = AREAS[area]
    grow = rng.uniform(0.9, 1.15, 2)
    size = max(8, round(2 * axes[1] * side * grow[1])), max(8, round(2 * axes[0] * side * grow[0]))
    gain, offset = np.ones(3, np.float32), np.zeros(3, np.float32)
    zoom, turn = 1.0, 0.0
    careful = care == "careful"
    if kind == "reblend":
        gain = rng.uniform(0.93, 1.07, 3).astype(np.float32)
        offset = rng.uniform(-7, 7, 3).astype(np.float32)
        zoom, turn = float(rng.uniform(0.95, 1.06)), float(np.deg2rad(rng.uniform(-2.5, 2.5)))
    elif care == "crude":
        offset = (rng.choice((-1, 1)) * rng.uniform(4, 16) + rng.uniform(-4, 4, 3)).astype(np.float32)
    soft = (
        kind == "lipsync" or (kind == "reblend" and rng.random() < 0.4) or (kind == "face_swap" and rng.random() < 0.5)
    )
    again = _blur_again(round(rng.uniform(0.25, 0.6) * max(size)), rng, rng.random() < 0.3) if soft else None
    sigma = rng.uniform(0.6, 1.2) if not soft and rng.random() < 0.25 else 0.0

    def treat(patch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        out = again(patch) if again else patch
        if sigma:
            out = np.asarray(cv2.GaussianBlur(out, (0, 0), sigma), np.float32)
        return np.asarray(out * gain + offset, np.float32)

    match = careful and kind != "reblend"
    return _Patch(area_weight(size, care, rng), centre, treat, zoom, turn, match)


def _other_times(start: int, stop: int, count: int, rng: np.random.Generator) -> Order | None:
    """Pictures of another time for [start, stop): the same length where there is room, else back and forth."""
    length = stop - start
    places = np.array([p for p in range(count - length + 1) if abs(p - start) >= min(6, count // 4)])
    if len(places):
        first = int(rng.choice(places))
        order = np.arange(first, first + length)
        return order[::-1] if rng.random() < 0.2 else order
    if count < 12:
        return None
    away = int(rng.integers(count // 4, count // 2 + 1))
    saw = (np.arange(start, stop) + away) % (2 * count - 2)
    return np.where(saw < count, saw, 2 * count - 2 - saw)


def _whole_frames(kind: str, count: int, start: int, stop: int, rng: np.random.Generator) -> Order | None:
    """Which picture is shown instead at each of [start, stop), for kinds that move whole pictures."""
    length = stop - start
    steps = np.arange(length)
    if kind == "freeze":
        return np.full(length, max(0, start - 1))
    if kind == "desync":
        limit = min(15, count // 4)
        shift = int(rng.integers(min(4, limit), limit + 1)) * int(rng.choice((-1, 1)))
        return np.clip(steps + start + shift, 0, count - 1)
    if length < 8:
        return None
    roll = rng.random()
    if roll < 0.25:
        return start + length - 1 - steps
    if roll < 0.45:  # stutter: every picture shown several times
        hold = int(rng.integers(2, 5))
        return start + steps // hold * hold
    bend = rng.uniform(1.5, 2.4) ** rng.choice((-1, 1))
    return np.asarray(start + np.rint((steps / (length - 1)) ** bend * (length - 1)), np.int64)


def forge_frames(
    kind: str, clip: Footage, spans: list[Span], rng: np.random.Generator, donors: Donors, care: str
) -> Frames | None:
    """The pictures with every span (in pictures) forged; ``None`` if one could not be, or hardly changed."""
    frames, boxes = clip.frames, clip.boxes
    if frames is None:
        return None
    out = np.array(frames)
    count = len(frames)
    whole = kind in ("timewarp", "desync") or (kind == "freeze" and (boxes is None or rng.random() < 0.6))
    for start, stop in spans:
        if whole:
            order = _whole_frames(kind, count, start, stop, rng)
            if order is None:
                return None
            out[start:stop] = frames[order]
            if _change(frames[start:stop], out[start:stop]) < MIN_CHANGE / 2:
                return None
            continue
        if boxes is None or not np.isfinite(boxes[start:stop]).all():
            return None
        faces = _faces(boxes, start, stop)
        patch = _patch(kind, faces[0].side, care, rng)
        sources = _sources(kind, clip, start, stop, rng, donors)
        if sources is None:
            return None
        settle = kind not in ("reblend", "face_swap") and care != "crude"
        ease = 2 if care == "careful" and stop - start >= 8 else 0
        for k, (face, (source, other)) in enumerate(zip(faces, sources, strict=True)):
            near = min(k, stop - start - 1 - k)
            strength = (near + 1) / (ease + 1) if near < ease else 1.0
            out[start + k] = _overlay(frames[start + k], face, source, other, patch, strength, settle)
        area = max(float(patch.weight.mean()) * patch.weight.size, 1.0) / frames[0, ..., 0].size
        if _change(frames[start:stop], out[start:stop]) / area < MIN_CHANGE:
            return None
    return out


def _sources(
    kind: str, clip: Footage, start: int, stop: int, rng: np.random.Generator, donors: Donors
) -> list[tuple[Pixels, _Face]] | None:
    """For each picture of [start, stop), the picture and the face that the patch is taken from."""
    stock = donors.face if kind == "face_swap" else clip
    if stock is None or stock.frames is None or stock.boxes is None:
        return None
    same_time = kind == "reblend" or (kind == "lipsync" and rng.random() < 0.3)
    if kind == "face_swap":
        count = len(stock.frames)
        first = int(rng.integers(max(1, count - (stop - start))))
        saw = (first + np.arange(stop - start)) % max(1, 2 * count - 2)
        order: Order | None = np.where(saw < count, saw, 2 * count - 2 - saw)
    elif same_time:
        order = np.arange(start, stop)
    elif kind == "freeze":
        order = np.full(stop - start, max(0, start - 1))
    else:
        order = _other_times(start, stop, len(stock.frames), rng)
    if order is None or not np.isfinite(stock.boxes[order]).all():
        return None
    picked = stock.boxes[order]
    side = float(np.median(picked[:, 2] - picked[:, 0]))
    return [
        (stock.frames[k], _Face(float((b[0] + b[2]) / 2), float((b[1] + b[3]) / 2), side))
        for k, b in zip(order, picked, strict=True)
    ]


def _change(was: Frames, now: Frames) -> float:
    """Mean absolute change in grey levels, from at most 12 pictures."""
    step = max(1, len(was) // 12)
    return float(np.mean([cv2.norm(a, b, cv2.NORM_L1) / a.size for a, b in zip(was[::step], now[::step], strict=True)]))


# ---------------------------------------------------------------------------------------------------------------
# Cuts
# ---------------------------------------------------------------------------------------------------------------


def _insert(clip: Footage, rng: np.random.Generator, donors: Donors, care: str) -> ClipForgery | None:
    """Words put in: the sound's are new, the pictures go back and forth or stand still meanwhile."""
    sound = clip.sound
    if sound is None:
        return None
    ticks = int(rng.integers(6, 38))
    new = _piece(donors.voice if donors.voice is not None and rng.random() < 0.6 else sound, ticks * STEP, rng)
    if new is None or clip.ticks < 15:
        return None
    at = int(rng.integers(8, clip.ticks - 6)) * STEP
    if care != "crude":
        at = quiet_point(sound, at, 3200)
    cut = min(max(1, round(at / STEP)), clip.ticks - 1)
    tone = room_tone(sound, len(new), rng)
    longer = np.concatenate([sound[:at], tone.astype(np.float32), sound[at:]])
    longer = lay(longer, at, new, rng, care)
    frames, boxes = clip.frames, clip.boxes
    video: Spans = ()
    if frames is not None:
        steps = np.arange(ticks)
        back = np.minimum(np.minimum(steps, ticks - 1 - steps), cut - 1) if care != "crude" else np.zeros(ticks, int)
        order = np.concatenate([np.arange(cut), cut - 1 - back, np.arange(cut, clip.ticks)])
        frames, boxes = frames[order], None if boxes is None else boxes[order]
        video = ((cut / FPS, (cut + ticks) / FPS),)
    audio = ((at / RATE, (at + len(new)) / RATE),)
    return ClipForgery(Footage(frames, longer, boxes), video, audio, "word_insert", care)


def _delete(clip: Footage, rng: np.random.Generator, care: str) -> ClipForgery | None:
    """Words taken out; the rest closes up."""
    edge = round(SEAM * FPS)
    ticks = int(rng.integers(5, 30))
    if clip.ticks < ticks + 25:
        return None
    sound, frames, boxes = clip.sound, clip.frames, clip.boxes
    if sound is not None:
        span = voiced_span(voice(sound), ticks * STEP, rng, 0.5)
        if span is None:
            return None
        at = span[0] if care == "crude" else quiet_point(sound, span[0], 1600)
    else:
        at = int(rng.integers(edge, clip.ticks - ticks - edge + 1)) * STEP
    cut = round(at / STEP)
    if not edge <= cut <= clip.ticks - ticks - edge:
        return None
    at = cut * STEP if sound is None else at
    audio: Spans = ()
    video: Spans = ()
    if sound is not None:
        end = at + ticks * STEP
        left = sound[:at].copy()
        fade = {"crude": 0, "plain": 64, "careful": 480}[care]
        if fade and at > fade:
            ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).astype(np.float32)
            left[-fade:] = (1 - ramp) * left[-fade:] + ramp * sound[end - fade : end]
        sound = np.concatenate([left, sound[end:]])
        audio = ((max(0.0, at / RATE - SEAM), min(len(sound) / RATE, at / RATE + SEAM)),)
    if frames is not None:
        order = np.concatenate([np.arange(cut), np.arange(cut + ticks, clip.ticks)])
        kept = frames[order]
        if care != "crude":  # the pictures before the seam dissolve into those that were taken out
            for k in range(edge):
                weight = (k + 1) / (edge + 1)
                there = cut - edge + k
                kept[there] = cv2.addWeighted(frames[there], 1 - weight, frames[there + ticks], weight, 0)
        frames, boxes = kept, None if boxes is None else boxes[order]
        video = (((cut - edge) / FPS, (cut + edge) / FPS),)
    return ClipForgery(Footage(frames, sound, boxes), video, audio, "word_delete", care)


# ---------------------------------------------------------------------------------------------------------------
# The whole
# ---------------------------------------------------------------------------------------------------------------


def _sound_spans(
    clip: Footage, sound: Sound, lengths: list[float], rng: np.random.Generator, care: str
) -> list[Span] | None:
    """Spans of sound to forge, in samples, in order and apart."""
    if len(lengths) == 1 and lengths[0] >= clip.duration:
        return [(0, len(sound))]
    active = voice(sound)
    spans: list[Span] = []
    for seconds in lengths:
        length = round(seconds * RATE)
        span = voiced_span(active, length, rng, 0.6 if seconds < 1 else 0.45, spans)
        if span is None:
            continue
        start, stop = span
        if clip.words and rng.random() < 0.6:  # whole words
            inside = [word for word in clip.words if word[0] < stop and word[1] > start]
            if inside:
                start, stop = inside[0][0], inside[-1][1]
        elif care == "careful":
            start, stop = quiet_point(sound, start, 960), quiet_point(sound, stop, 960)
        start, stop = max(0, start), min(stop, len(sound))
        if stop - start >= 0.12 * RATE and all(stop + STEP <= s or start >= e + STEP for s, e in spans):
            spans.append((start, stop))
    return sorted(spans) or None


def _picture_spans(clip: Footage, lengths: list[float], rng: np.random.Generator, face: bool) -> list[Span] | None:
    """Spans of pictures to forge, in order and apart; with a face in all of them if ``face``."""
    good: npt.NDArray[Any] = np.ones(clip.ticks, np.bool_)
    if face:
        if clip.boxes is None:
            return None
        good = np.asarray(np.isfinite(clip.boxes).all(1))
    if len(lengths) == 1 and lengths[0] >= clip.duration:
        return [(0, clip.ticks)] if good.all() else None
    spans: list[Span] = []
    for seconds in lengths:
        length = max(MIN_FRAMES, round(seconds * FPS))
        if length > clip.ticks:
            continue
        sums = np.concatenate([[0], np.cumsum(good)])
        enough = np.asarray(sums[length:] - sums[:-length] == length)
        for start, stop in spans:
            enough[max(0, start - length - 1) : stop + 2] = False
        if enough.any():
            start = int(rng.choice(np.flatnonzero(enough)))
            spans.append((start, start + length))
    return sorted(spans) or None


def _to_frames(spans: list[Span], count: int) -> list[Span]:
    """Spans of samples to the pictures they touch, at least MIN_FRAMES; spans that meet become one."""
    out: list[Span] = []
    for start, stop in spans:
        first, last = start // STEP, min(count, -(-stop // STEP))
        first = max(0, min(first, last - MIN_FRAMES))
        if out and first <= out[-1][1]:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return out


def _trimmed(changed: npt.NDArray[np.bool_], spans: list[Span], rate: int) -> Spans:
    """Spans without what did not change at their ends, in seconds."""
    out = []
    for start, stop in spans:
        at = np.flatnonzero(changed[start:stop])
        if len(at):
            out.append(((start + int(at[0])) / rate, (start + int(at[-1]) + 1) / rate))
    return tuple(out)


def forge_clip(
    kind: str,
    clip: Footage,
    rng: np.random.Generator,
    *,
    donors: Donors | None = None,
    lengths: Lengths | None = None,
    care: str | None = None,
) -> ClipForgery:
    """One forged clip, drawn again until it changes what its truth marks.

    Args:
        kind: of SOUND_KINDS, PICTURE_KINDS or CUT_KINDS, or a sound kind + a picture kind.
        clip: the authentic clip, at least a second.
        rng: source of every choice; the same state gives the same forgery.
        donors: voices and a face from elsewhere, for the kinds that need them.
        lengths: how long forged spans are.
        care: of :data:`CARES`; drawn if ``None``.

    Raises:
        DataError: the kind is unknown, or cannot be done to this clip with these donors.
    """
    sound_kind, picture_kind = kinds_of(kind)
    donors, lengths = donors or Donors(), lengths or Lengths()
    if kind == SYNTHETIC_KIND:
        return ClipForgery(clip, (), ((0.0, clip.duration),), kind, "careful")
    for _ in range(6):
        how = care or str(rng.choice(CARES, p=(0.25, 0.3, 0.45)))
        made: ClipForgery | None
        if kind == "word_insert":
            made = _insert(clip, rng, donors, how)
        elif kind == "word_delete":
            made = _delete(clip, rng, how)
        else:
            made = _forged(kind, sound_kind, picture_kind, clip, rng, donors, lengths, how)
        if made is not None:
            return made
    raise DataError(f"no {kind} drawn in 6 tries changed this clip")


def _forged(
    kind: str,
    sound_kind: str | None,
    picture_kind: str | None,
    clip: Footage,
    rng: np.random.Generator,
    donors: Donors,
    lengths: Lengths,
    care: str,
) -> ClipForgery | None:
    drawn = lengths.draw(clip.duration, rng)
    if picture_kind == "desync" and sound_kind is None:  # less than a second out of step shows nothing
        drawn = [max(drawn[0], min(float(rng.uniform(1, 4)), clip.duration))]
    audio: Spans = ()
    video: Spans = ()
    footage = clip
    sound_spans: list[Span] | None = None
    if sound_kind:
        if clip.sound is None or (sound_spans := _sound_spans(clip, clip.sound, drawn, rng, care)) is None:
            return None
        sound = forge_sound(sound_kind, clip.sound, sound_spans, rng, donors, care)
        if sound is None:
            return None
        audio = _trimmed(sound != clip.sound, sound_spans, RATE)
        footage = replace(footage, sound=sound)
    if picture_kind and clip.frames is not None:
        if sound_spans is not None:
            spans: list[Span] | None = _to_frames(sound_spans, clip.ticks)
        else:
            spans = _picture_spans(clip, drawn, rng, picture_kind not in ("freeze", "timewarp", "desync"))
        if not spans:
            return None
        frames = forge_frames(picture_kind, clip, spans, rng, donors, care)
        if frames is None:
            return None
        changed = np.array([not np.array_equal(a, b) for a, b in zip(clip.frames, frames, strict=True)])
        video = _trimmed(changed, spans, FPS)
        footage = replace(footage, frames=frames)
    elif picture_kind:
        return None
    return ClipForgery(footage, video, audio, kind, care) if audio or video else None
