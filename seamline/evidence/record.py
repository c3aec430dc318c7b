"""What is written down about one file: the report, and all that somebody needs to judge it or to do it again.

The record is plain JSON values in one canonical form: keys sorted, floats rounded, names without folders. Two scans of
the same file, with the same weights and versions, give the same bytes; when it was done, and how long it took, stand
elsewhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from .. import draw, isolation, pipeline, provenance, zoo
from ..batches import Opening
from ..detectors.base import ClipDetector, Detector, ImageDetector
from ..errors import SeamlineError
from ..faces import FaceWindow
from ..media import Clip, Image
from ..pipeline import Session
from ..report import Report
from ..windows import Clock

Pixels = npt.NDArray[np.uint8]

SCHEMA = "seamline.evidence/1"
DIGITS = 6  # decimals of a float
PREVIEW = 1600  # pixels; the longer side of a picture for the page
STRIP = 24  # pictures kept from a clip, evenly spread
STRIP_HEIGHT = 270  # pixels
KEYS = 8  # segments of which a picture is shown
WAVEFORM = 1000  # columns
BOXES = 3000  # places of a face that are listed, at most, for the whole length of a clip
EMBEDDED = 8 * 2**20  # bytes; a clip up to this size is put into the page
BESIDE = 2 * 2**30  # bytes; one up to this size is copied into the bundle

# What a re-run may differ by. Weights, versions and processors being the same, nothing differs at all.
TOLERANCE = {
    "probability": 0.01,  # of anything that is one
    "evidence": 0.25,  # log odds, of what a probability is computed from
    "seconds": 0.04,  # of the ends of a segment: a tick
    "pixels": 8,  # of the sides of a box
    "area": 0.05,  # of a region, as a share of it
    "picture_mean": 2.0,  # levels of 255 that a picture may differ by on average ...
    "picture_share": 0.001,  # ... and the share of its pixels that may differ by more than 32 levels
}

# What browsers play: containers, and codecs of pictures and sound in them. FFmpeg's names.
_PLAYS: dict[str, tuple[str, set[str], set[str]]] = {
    "mov": ("mp4", {"h264", "av1", "vp9"}, {"aac", "mp3", "flac", "opus"}),
    "matroska": ("webm", {"vp8", "vp9", "av1"}, {"opus", "vorbis"}),
    "ogg": ("ogg", set(), {"opus", "vorbis", "flac"}),
    "wav": ("wav", set(), {"pcm_s16le", "pcm_u8", "pcm_s24le", "pcm_f32le"}),
    "flac": ("flac", set(), {"flac"}),
    "mp3": ("mpeg", set(), {"mp3", "mp2"}),
    "aac": ("aac", set(), {"aac"}),
}
# What a card says in words or measured, rather than decides.
_TOLD = ("name", "version", "sha256", "licence", "training_data", "source", "input", "scores", "operating_points")


class Watched(draw.Looks):
    """What a clip looked and sounded like while it was judged, and which parts of it were."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks = 0
        self.frames: list[tuple[float, bytes]] = []  # seconds, JPEG
        self.windows: list[dict[str, Any]] = []
        self.clock = Clock(1)
        self._wanted_here: list[int] = []
        self._pixels, self._sound = hashlib.sha256(), hashlib.sha256()
        self._step = 1  # ticks from one listed place of a face to the next
        self._boxes: dict[int, dict[int, tuple[float, ...]]] = {}  # by face, by tick
        self._seen: dict[int, set[int]] = {}

    def begin(self, duration: float, clock: Clock, pictures: int, columns: int) -> None:
        """A clip of ``duration`` seconds."""
        super().begin(duration, clock, pictures, columns)
        self.clock = clock
        self._step = max(1, math.ceil(clock.fps / 5), math.ceil(duration * clock.fps / BOXES))
        ticks = {math.floor((i + 0.5) * duration * clock.fps / STRIP) for i in range(STRIP)}
        self._wanted_here = sorted(ticks, reverse=True)

    def picture(self, rgb: Pixels, tick: int) -> None:
        """The picture (H, W, 3) uint8 RGB of the next tick."""
        super().picture(rgb, tick)
        self._pixels.update(np.ascontiguousarray(rgb).data)
        self.ticks = max(self.ticks, tick + 1)
        while self._wanted_here and self._wanted_here[-1] < tick:
            self._wanted_here.pop()
        if self._wanted_here and self._wanted_here[-1] == tick:
            self.frames.append((tick / self.clock.fps, still(rgb)))

    def sound(self, samples: npt.NDArray[np.float32]) -> None:
        """The next samples (n,) of the sound, in [-1, 1]."""
        super().sound(samples)
        self._sound.update(np.ascontiguousarray(samples).data)

    def window(self, start: int, ticks: int, faces: Sequence[FaceWindow], heard: bool) -> None:
        """Ticks [start, start + ticks) are judged: these faces, and the sound if there is any."""
        fps = self.clock.fps
        self.ticks = max(self.ticks, start + ticks)
        judged = [face.identity for face in faces]
        self.windows.append({"start": start / fps, "end": (start + ticks) / fps, "faces": judged, "sound": heard})
        for face in faces:
            boxes = self._boxes.setdefault(face.identity, {})
            seen = self._seen.setdefault(face.identity, set())
            for at in np.flatnonzero(face.seen):
                seen.add(start + int(at))
                if (start + at) % self._step == 0:
                    boxes[start + int(at)] = tuple(round(float(v), 1) for v in face.boxes[at])

    def decoded(self) -> dict[str, str]:
        """SHA-256 of the pictures of all ticks (RGB) one after another, and of all samples heard (float32, mono)."""
        return {"pictures_sha256": self._pixels.hexdigest(), "sound_sha256": self._sound.hexdigest()}

    def faces(self) -> list[dict[str, Any]]:
        """The faces that were judged: the spans in which they were seen, and where (seconds, x0, y0, x1, y1)."""
        fps = self.clock.fps
        return [
            {
                "identity": identity,
                "spans": [[start / fps, stop / fps] for start, stop in _runs(sorted(seen))],
                "boxes": [[tick / fps, *box] for tick, box in sorted(self._boxes[identity].items())],
            }
            for identity, seen in sorted(self._seen.items())
        ]


def examine(
    session: Session, path: str | os.PathLike[str], opening: Opening | None = None
) -> tuple[Report, dict[str, Any], dict[str, bytes]]:
    """Scan one file, which ``opening`` opens, or the session.

    Returns:
        The report with its arrays; the record, plain JSON values in which floats are rounded; and the pictures by the
        names that the record gives them.

    Raises:
        SeamlineError: as :meth:`Session.__call__`.
    """
    with opening() if opening else session.opened(path) as medium:
        if isinstance(medium, Image):
            report = session.examine(medium)
            own, pictures = _photo(medium, report, session)
        else:
            looks = Watched()
            report = session.examine(medium, looks)
            own, pictures = _clip(medium, report, looks, session)
    detector, card = session.model("image" if isinstance(medium, Image) else "clip")
    named = {name.partition(".")[0]: name for name in pictures}
    artifacts = {field.name: named.get(field.name) for field in dataclasses.fields(report.artifacts)}
    told = report.to_dict() | {"artifacts": artifacts}
    told["media"] = told["media"] | {"path": os.path.basename(report.media.path)}
    told["warnings"] = [text.replace(report.media.path, told["media"]["path"]) for text in told["warnings"]]
    record = {
        "schema": SCHEMA,
        "report": told,
        "weights": {name: value for name, value in dataclasses.asdict(card).items() if name in _TOLD},
        "limits": limits(card),
        "settings": _settings(session, detector, card),
        "tolerance": TOLERANCE,
        "provenance": _provenance(path, session.isolate),
        "pictures": sorted(pictures),
        **own,
    }
    return report, _rounded(record), pictures


def canonical(value: Any) -> bytes:
    """The one way to write a record, or anything in it: sorted keys, UTF-8, no spaces, a line feed at the end."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # bytes of a file name that are not UTF-8 are escaped


def limits(card: zoo.Card) -> list[str]:
    """What the model card of catalogued weights lists under ``Limits``; empty for others."""
    path = zoo.WEIGHTS / f"{card.name}.md"
    known = {known.name: known.sha256 for known in zoo.models()}
    if card.sha256 is None or known.get(card.name) != card.sha256 or not path.exists():
        return []
    section = re.search(r"^## Limits\n(.*?)(?=^## |\Z)", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    points = re.split(r"^\* ", section.group(1), flags=re.MULTILINE)[1:] if section else []
    return [" ".join(point.replace("`", "").split()) for point in points]


def _provenance(path: str | os.PathLike[str], isolate: bool) -> dict[str, Any]:
    """What ``seamline facts`` tells of the file, or why it cannot be told, which ends no scan."""
    name = os.path.basename(path)
    try:
        if not os.path.isfile(path):
            raise SeamlineError(f"{name} lies in an archive")
        read = isolation.facts(path) if isolate else provenance.read(path).to_dict()
    except SeamlineError as cause:
        return {"schema": provenance.SCHEMA, "facts": [], "error": str(cause).replace(os.fspath(path), name)}
    return {"schema": provenance.SCHEMA, "facts": read["facts"]}


def _photo(image: Image, report: Report, session: Session) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What is known about a photo alone, and its pictures."""
    detector, _ = session.model("image")
    assert isinstance(detector, ImageDetector)
    pixels, windowing = image.pixels, detector.windowing
    pictures = {"original.jpg": _jpeg(_preview(pixels))}
    looked: list[list[int]] = []
    if report.heatmap is not None and report.mask is not None:
        pictures["heatmap.png"] = _png(draw.levels(report.heatmap))
        pictures["mask.png"] = _png(report.mask.view(np.uint8) * np.uint8(255))
        pictures["overlay.png"] = _png(draw.overlay(report, pixels))
        pictures["heat.jpg"] = _jpeg(draw.heat(_preview(pixels), report.heatmap))
        if report.mask.any():
            pictures["marked.jpg"] = _jpeg(draw.marked(_preview(pixels), report.mask))
        whole = [[0, 0, image.width, image.height]]
        looked = (
            whole
            if windowing.whole
            else [
                [column.start, row.start, column.stop, row.stop]
                for row, column in itertools.product(
                    pipeline.tiles(image.height, windowing), pipeline.tiles(image.width, windowing)
                )
            ]
        )
    own = {
        "decoded": {"pixels_sha256": hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()},
        "examined": {"tiles": looked},
    }
    return own, pictures


def _clip(clip: Clip, report: Report, looks: Watched, session: Session) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What is known about a clip alone, and its pictures."""
    detector, _ = session.model("clip")
    assert isinstance(detector, ClipDetector)
    clock = detector.clock
    drawn = draw.timeline(report, looks.strip, looks.times, looks.waveform, looks.rate, looks.fps)
    pictures = {"timeline.png": _png(drawn)}
    frames = dict(looks.frames) | dict(_at_segments(clip, report, clock))
    listed = []
    for number, (time, jpeg) in enumerate(sorted(frames.items()), 1):
        name = f"frame-{number:02d}.jpg"
        pictures[name] = jpeg
        listed.append({"name": name, "time": time})
    own = {
        "decoded": looks.decoded(),
        "streams": {
            name: dataclasses.asdict(stream)
            for name, stream in (("video", clip.video), ("audio", clip.audio))
            if stream is not None
        },
        "examined": {
            "fps": clock.fps,
            "ticks": looks.ticks,
            "sample_rate": clock.rate,
            "windows": looks.windows,
        },
        "faces": looks.faces(),
        "frames": listed,
        "curves": {
            key: [None if math.isnan(v) else round(v, 4) for v in curve.tolist()]
            for key, curve in report.curves.items()
        },
        "waveform": _waveform(looks),
        "player": _player(clip),
    }
    return own, pictures


def _at_segments(clip: Clip, report: Report, clock: Clock) -> list[tuple[float, bytes]]:
    """A picture from the middle of the strongest segments, at its tick."""
    if clip.video is None:
        return []
    found = []
    for segment in sorted(report.segments, key=lambda s: (-s.probability, s.start))[:KEYS]:
        time = math.floor((segment.start + segment.end) / 2 * clock.fps) / clock.fps
        rgb = next(clip.frames(clock.fps, start=time), None)
        if rgb is not None:
            found.append((time, still(rgb)))
    return found


def _waveform(looks: Watched) -> dict[str, Any]:
    """The envelope in at most ``WAVEFORM`` columns, and how many there are in a second."""
    envelope = looks.waveform
    per = max(1, math.ceil(len(envelope) / WAVEFORM))
    starts = np.arange(0, len(envelope), per)
    low = np.minimum.reduceat(envelope[:, 0], starts) if len(starts) else np.zeros(0)
    high = np.maximum.reduceat(envelope[:, 1], starts) if len(starts) else np.zeros(0)
    return {
        "rate": looks.rate / per,
        "low": [round(float(v), 3) for v in low],
        "high": [round(float(v), 3) for v in high],
    }


def _player(clip: Clip) -> dict[str, Any]:
    """How the page plays a clip: ``embedded``, ``beside`` or ``strip``; why; and of which MIME type it is."""
    if not os.path.isfile(clip.path):
        return {"how": "strip", "why": "The clip lies in an archive, so pictures of it are shown."}
    container, pictures, sounds = _PLAYS.get(clip.format or "", ("", set(), set()))
    video, audio = clip.video and clip.video.codec, clip.audio and clip.audio.codec
    codecs = " and ".join(codec for codec in (video, audio) if codec)
    if not container or (video and video not in pictures) or (audio and audio not in sounds):
        return {
            "how": "strip",
            "why": f"Browsers do not play {codecs} in {clip.format}, so pictures of it are shown.",
        }
    size = clip.bytes or 0
    kind = {"type": f"{'video' if video else 'audio'}/{container}", "name": f"media.{container}"}
    if size <= EMBEDDED:
        return {"how": "embedded", "why": "The file itself is inside this page.", **kind}
    if size <= BESIDE:
        return {"how": "beside", "why": f"The file itself lies beside this page as media.{container}.", **kind}
    return {"how": "strip", "why": "The file is too large to be copied, so pictures of it are shown."}


def _settings(session: Session, detector: Detector, card: zoo.Card) -> dict[str, Any]:
    """All numbers that a result depends on besides file, weights and versions, and their hash."""
    decided = {
        name: value for name, value in dataclasses.asdict(card).items() if name not in (*_TOLD, "file", "windowing")
    }
    settings: dict[str, Any] = {**decided}
    settings["sizes"] = dataclasses.asdict(detector.sizes)
    settings["seed"] = None  # a scan draws no random numbers
    if isinstance(detector, ImageDetector):
        settings["windowing"] = dataclasses.asdict(detector.windowing)
    else:
        assert isinstance(detector, ClipDetector)
        settings["clock"] = dataclasses.asdict(detector.clock)
        settings["proposals"] = session.proposals
    settings["pipeline"] = {
        name.lower(): value
        for name, value in vars(pipeline).items()
        if name.isupper() and isinstance(value, (int, float))
    }
    plain = _rounded(settings)
    return {**plain, "sha256": hashlib.sha256(canonical(plain)).hexdigest()}


def still(rgb: Pixels) -> bytes:
    """A picture of a clip as a small JPEG."""
    height, width = rgb.shape[:2]
    scale = min(1.0, STRIP_HEIGHT / height, 4 * STRIP_HEIGHT / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return _jpeg(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False), 82)


def _preview(pixels: Pixels) -> Pixels:
    """A photo at the size of the page, (h, w, 3), never enlarged."""
    height, width = pixels.shape[:2]
    scale = PREVIEW / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format="PNG", compress_level=3)
    return file.getvalue()


def _jpeg(pixels: Pixels, quality: int = 90) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
    return file.getvalue()


def _rounded(value: Any) -> Any:
    """Plain JSON values, floats with at most ``DIGITS`` decimals."""
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_rounded(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0 if math.isfinite(value) else None  # + 0.0: no negative zero
    return value


def _runs(ticks: Sequence[int]) -> list[tuple[int, int]]:
    """Rising numbers to half-open runs of neighbours."""
    runs: list[tuple[int, int]] = []
    for tick in ticks:
        if runs and runs[-1][1] == tick:
            runs[-1] = runs[-1][0], tick + 1
        else:
            runs.append((tick, tick + 1))
    return runs
