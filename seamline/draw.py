"""The pictures of a Report: a photo's mask and heat map to compute with, its overlay or a clip's timeline to look at.

The colours are safe for colour-blind readers: vermilion against blue for the verdict and three more for the modalities
(Okabe and Ito, 2008), and the ``plasma`` scale for the heat, which also rises in brightness alone.
"""

from __future__ import annotations

import hashlib
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from . import output
from .faces import FaceWindow
from .report import Artifacts, Media, Region, Report, Segment
from .windows import Clock

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Colour = tuple[int, int, int]

LONGEST = 2000  # pixels; the overlay of a larger photo is shrunk to this
SHORTEST = 640  # pixels; the overlay of a smaller photo is enlarged to about this, so that its text can be read
LONGEST_NAME = 180  # bytes of a stem, well inside what file systems allow

WORDS = {
    "forged": "FORGED",
    "authentic": "No forgery found",
    "inconclusive": "Inconclusive",
    "not_applicable": "Not judged",
    "error": "Not analysed",
}
BARS = {"forged": (186, 73, 0), "authentic": (0, 92, 150), "inconclusive": (84, 84, 84)}
INK, PAPER = (255, 255, 255), (28, 28, 30)
TWIN = (86, 180, 233)  # of the line to an area that shows the same

# A timeline, in pixels. Its plot holds time from zero to the end; lanes are named to the left of it.
PLOT, GUTTER, MARGIN = 1190, 140, 70
UNIT = 18  # height of its small text, which all else follows
THUMB = 72  # height of a picture in the strip
BAR = 6  # height of the solid band under a lane, which marks segments to the pixel
SCORES = 96  # height of a lane of scores, that band included
ROW = 22  # height of a row of labels
NARROWEST = 3  # a shorter segment is still this wide
MODALITIES = {"video": "video", "audio": "audio", "audio_visual": "audio + video"}  # with their names for people
COLOURS = {"video": (230, 159, 0), "audio": (86, 180, 233), "audio_visual": (240, 228, 66)}
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)  # seconds from tick to tick
TRACK, GRID, GREY, FAINT = (44, 44, 47), (66, 66, 70), (150, 150, 152), (190, 190, 192)


class Looks:
    """How a clip looks and sounds, gathered while it is read, for its timeline. It does not grow with the clip."""

    def __init__(self) -> None:
        self.strip: list[Pixels] = []  # each (h, w, 3) uint8 RGB
        self.times: list[float] = []  # of each picture, seconds, rising
        self.rate, self.fps = 1.0, 25.0  # columns of the envelope and ticks per second
        self._wanted: list[int] = []  # ticks whose picture is still to come, the last first
        self._envelope, self._heard, self._samples = np.zeros((0, 2), np.float32), 0, 1

    def begin(self, duration: float, clock: Clock, pictures: int, columns: int) -> None:
        """A clip of ``duration`` seconds, to be shown in so many pictures and columns of its envelope at most."""
        self.fps = clock.fps
        ticks = {math.floor((i + 0.5) * duration * clock.fps / pictures) for i in range(pictures)}
        self._wanted = sorted(ticks, reverse=True)
        self._samples = max(1, math.ceil(duration * clock.rate))
        self._envelope = np.zeros((min(columns, self._samples), 2), np.float32)
        self.rate = len(self._envelope) * clock.rate / self._samples

    def picture(self, rgb: Pixels, tick: int) -> None:
        """The picture (H, W, 3) uint8 RGB of the next tick."""
        while self._wanted and self._wanted[-1] < tick:
            self._wanted.pop()
        if self._wanted and self._wanted[-1] == tick:
            self.strip.append(_thumbnail(rgb))
            self.times.append((tick + 0.5) / self.fps)

    def sound(self, samples: Floats) -> None:
        """The next samples (n,) of the sound, in [-1, 1]."""
        at = np.arange(self._heard, min(self._heard + len(samples), self._samples))
        self._heard += len(samples)
        if len(at):
            columns = at * len(self._envelope) // self._samples
            starts = np.flatnonzero(np.diff(columns, prepend=-1))
            here, samples = columns[starts], samples[: len(at)]
            low, high = self._envelope[here].T
            self._envelope[here, 0] = np.minimum(low, np.minimum.reduceat(samples, starts))
            self._envelope[here, 1] = np.maximum(high, np.maximum.reduceat(samples, starts))

    def window(self, start: int, ticks: int, faces: Sequence[FaceWindow], heard: bool) -> None:
        """Ticks [start, start + ticks) are judged: these faces, and the sound if there is any. Not kept here."""

    @property
    def waveform(self) -> Floats:
        """(n, 2) lowest and highest sample, and zero, in each column up to the end of what was heard."""
        heard = min(self._heard, self._samples)
        return self._envelope[: math.ceil(heard * len(self._envelope) / self._samples)]


def stems(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> list[str]:
    """A name for the pictures of each input: its stem where that is its own, else its full name, else that and a hash.

    No two inputs share a name, whatever a file system does with case and accents, and no picture falls on one of the
    inputs. The names depend on the list of inputs only. Characters that cannot be printed, or that some system has a
    use for, are never part of a name.
    """
    files = [Path(path) for path in paths]
    inputs = {os.path.abspath(file) for file in files}
    claims = Counter(name for file in files for name in {_folded(file.stem), _folded(file.name)})

    def free(name: str) -> bool:
        targets = {os.path.abspath(target) for target in _targets(out, name)}
        fits = len(os.fsencode(name)) <= LONGEST_NAME and name == _harmless(name)
        return fits and claims[_folded(name)] == 1 and not targets & inputs

    def hashed(file: Path) -> str:
        short = os.fsencode(_harmless(file.name))[: LONGEST_NAME - 17].decode("utf-8", "ignore")
        return f"{short}.{hashlib.sha256(os.fsencode(os.path.abspath(file))).hexdigest()[:16]}"

    return [next((name for name in (file.stem, file.name) if free(name)), hashed(file)) for file in files]


def _folded(name: str) -> str:
    """What two names that some file system takes for one have in common."""
    return unicodedata.normalize("NFKC", name).casefold()


def _harmless(name: str) -> str:
    """A name without what a terminal, a shell or a file system could take for a command."""
    return "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in name).strip(". ") or "_"


def write(report: Report, photo: Pixels, out: str | os.PathLike[str], stem: str) -> Artifacts:
    """Write ``STEM.mask.png``, ``STEM.heatmap.png`` and ``STEM.overlay.png``, each whole or not at all.

    Mask (0 or 255) and heat map (probability times 255) are 8-bit grey at the size of the photo, (H, W, 3) uint8
    RGB. The report must hold both in memory.
    """
    if report.mask is None or report.heatmap is None:
        raise ValueError("this report holds no mask and heat map")
    Path(out).mkdir(parents=True, exist_ok=True)
    mask, heatmap, drawn, _ = _targets(out, stem)
    _save(report.mask.view(np.uint8) * np.uint8(255), mask)
    _save(_bytes(report.heatmap), heatmap)
    _save(overlay(report, photo), drawn)
    return Artifacts(str(mask), str(heatmap), str(drawn))


def write_timeline(report: Report, looks: Looks, out: str | os.PathLike[str], stem: str) -> Artifacts:
    """Write ``STEM.timeline.png`` of a clip, whole or not at all. The report should hold its curves in memory."""
    Path(out).mkdir(parents=True, exist_ok=True)
    drawn = _targets(out, stem)[-1]
    _save(timeline(report, looks.strip, looks.times, looks.waveform, looks.rate, looks.fps), drawn)
    return Artifacts(timeline=str(drawn))


def overlay(report: Report, photo: Pixels) -> Pixels:
    """The photo with its verdict, for a person: (h, w, 3) uint8 RGB, about ``LONGEST`` pixels a side at most.

    A bar above the photo states the verdict. Forged areas keep their colour, tinted by the heat map, outlined and
    boxed with their probability, while the rest turns grey; a line leads to an area that shows the same. A photo judged
    authentic is left as it is.
    """
    height, width = photo.shape[:2]
    scale = min(LONGEST / max(height, width), max(1.0, SHORTEST / max(height, width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = cv2.resize(photo, size, interpolation=how).astype(np.uint8, copy=False)
    unit = max(12, round(0.022 * max(size)))  # pixels; the height of small text, which all else follows
    if report.forged and report.regions and report.mask is not None and report.heatmap is not None:
        canvas = _tinted(canvas, report.mask, report.heatmap, max(2, unit // 7))
    picture = Image.fromarray(canvas)
    if report.forged:
        _boxes(picture, report.regions, scale, unit)
    return np.asarray(_framed(picture, report, unit))


def levels(heatmap: Floats) -> Pixels:
    """Probabilities (H, W) to 0..255, rounded."""
    return cv2.convertScaleAbs(heatmap, alpha=255.0).astype(np.uint8, copy=False)


def heat(photo: Pixels, heatmap: Floats) -> Pixels:
    """The photo (h, w, 3) uint8 RGB in grey, under the colours of its heat map (H, W): denser where likelier forged."""
    size = photo.shape[1], photo.shape[0]
    values = cv2.resize(levels(heatmap), size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.uint8, copy=False)
    alpha = 0.25 + 0.5 * values.astype(np.float32) / 255
    return _mixed(grey, _scale_colours(values), alpha[..., None])


def marked(photo: Pixels, mask: npt.NDArray[np.bool_]) -> Pixels:
    """The photo (h, w, 3) uint8 RGB with the areas of a mask (H, W) as they are, outlined; all else dark and grey."""
    size = photo.shape[1], photo.shape[0]
    inside = cv2.resize(mask.view(np.uint8) * np.uint8(255), size, interpolation=cv2.INTER_AREA) >= 128
    dark = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) // 3, cv2.COLOR_GRAY2RGB)
    shown = np.where(inside[..., None], photo, dark).astype(np.uint8)
    _outlined(shown, inside, max(2, max(size) // 320))
    return shown


def _tinted(photo: Pixels, mask: npt.NDArray[np.bool_], heatmap: npt.NDArray[np.float32], line: int) -> Pixels:
    """The photo (h, w, 3) with the heat laid over it and the mask outlined."""
    size = photo.shape[1], photo.shape[0]
    heat = cv2.resize(levels(heatmap), size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    inside = cv2.resize(mask.view(np.uint8) * np.uint8(255), size, interpolation=cv2.INTER_AREA) >= 128

    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    rest = cv2.addWeighted(photo, 0.15, grey, 0.6, 20)
    base = np.where(inside[..., None], photo, rest).astype(np.float32)
    tint = _scale_colours(heat).astype(np.float32)
    alpha = np.clip(heat.astype(np.float32) / 255 - 0.2, 0, 0.8) * 0.3 + inside * 0.22
    mixed = (base + (tint - base) * alpha[..., None]).astype(np.uint8)

    _outlined(mixed, inside, line)
    return mixed


def _outlined(photo: Pixels, inside: npt.NDArray[np.bool_], line: int) -> None:
    """Draw the outline of an area (h, w) into a photo (h, w, 3), yellow on black, which shows on any ground."""
    outlines, _ = cv2.findContours(inside.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(photo, outlines, -1, (0, 0, 0), 2 * line + 1, cv2.LINE_AA)
    cv2.drawContours(photo, outlines, -1, (255, 221, 51), line, cv2.LINE_AA)


def _boxes(picture: Image.Image, regions: Sequence[Region], scale: float, unit: int) -> None:
    """A thin box and a label for every region; a label that finds no free place is left out.

    A line joins a region with its twin, which is boxed too.
    """
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(unit)
    line, pad = max(1, unit // 12), max(2, unit // 4)
    taken: list[tuple[int, int, int, int]] = []
    for region in regions:
        if region.twin is not None:
            one, other = ([round(value * scale) for value in box] for box in (region.box, region.twin))
            ends = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in (one, other)]
            other[2:] = max(other[0], other[2] - 1), max(other[1], other[3] - 1)
            for colour, width in (((0, 0, 0), 3 * line + 2), (TWIN, 3 * line)):
                draw.line(ends, fill=colour, width=width)
                draw.rectangle(other, outline=colour, width=width)
            for x, y in ends:
                draw.circle((x, y), 5 * line, fill=TWIN, outline=(0, 0, 0))
    for region in regions:
        x0, y0, x1, y1 = (round(value * scale) for value in region.box)
        x1, y1 = max(x0 + 1, x1) - 1, max(y0 + 1, y1) - 1
        draw.rectangle((x0, y0, x1, y1), outline=(0, 0, 0), width=line + 2)
        draw.rectangle((x0 + 1, y0 + 1, max(x0 + 1, x1 - 1), max(y0 + 1, y1 - 1)), outline=INK, width=line)
        text = percent(region.probability)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        w, h = round(right - left) + 2 * pad, round(bottom - top) + 2 * pad
        x = max(0, min(x0, picture.width - w))
        for y in (y0 - h, y1 + 1, y0, y1 - h):
            plate = (x, y, x + w, y + h)
            if 0 <= y <= picture.height - h and not any(_meet(plate, other) for other in taken):
                draw.rectangle(plate, fill=BARS["forged"])
                draw.text((x + pad - left, y + pad - top), text, fill=INK, font=font)
                taken.append(plate)
                break


def _framed(picture: Image.Image, report: Report, unit: int) -> Image.Image:
    """The photo between a bar that states the verdict and, where areas are marked, a bar that explains the colours."""
    forged = report.forged and bool(report.regions)
    width = max(picture.width, 24 * unit)
    pad = unit // 2
    head, foot = 3 * unit + 3 * pad, (unit + 3 * pad if forged else 0)
    frame = Image.new("RGB", (width, head + picture.height + foot), PAPER)
    frame.paste(picture, ((width - picture.width) // 2, head))
    count = len(report.regions)
    if report.forged:
        note = {0: "no single area stands out", 1: "1 area marked"}.get(count, f"{count} areas marked")
        if any(region.twin for region in report.regions):
            note += ": a line joins what shows the same"
    else:
        note = _why(report, ImageFont.load_default(unit), width - 12 * unit)
    _headline(frame, report, unit, note, "probability of forgery")

    if forged:
        draw, small = ImageDraw.Draw(frame), ImageFont.load_default(unit)
        top, middle = head + picture.height + pad, frame.height - (unit + 3 * pad) // 2
        draw.text((pad, middle), "each pixel:  not forged", fill=INK, font=small, anchor="lm")
        x0 = pad + round(draw.textlength("each pixel:  not forged", font=small)) + pad
        x1 = x0 + 7 * unit
        ramp = _scale_colours(np.tile(np.linspace(0, 255, x1 - x0).astype(np.uint8), (unit + pad, 1)))
        frame.paste(Image.fromarray(ramp), (x0, top))
        draw.text((x1 + pad, middle), "forged", fill=INK, font=small, anchor="lm")
    return frame


def _headline(frame: Image.Image, report: Report, unit: int, note: str, share: str) -> None:
    """The bar across the top of a picture: verdict and probability, and below each a word on it."""
    draw, pad, width = ImageDraw.Draw(frame), unit // 2, frame.width
    head = 3 * unit + 3 * pad
    draw.rectangle((0, 0, width, head - 1), fill=BARS.get(report.verdict, BARS["inconclusive"]))
    large, small = ImageFont.load_default(round(1.8 * unit)), ImageFont.load_default(unit)
    middle, below = pad + unit, head - pad - unit // 2
    draw.text((pad, middle), WORDS[report.verdict], fill=INK, font=large, anchor="lm")
    draw.text((pad, below), note, fill=INK, font=small, anchor="lm")
    if report.probability is not None:
        draw.text((width - pad, middle), percent(report.probability), fill=INK, font=large, anchor="rm")
        draw.text((width - pad, below), share, fill=INK, font=small, anchor="rm")


def percent(probability: float | None) -> str:
    """A probability for people: whole percent, never a rounded 0 or 100."""
    if probability is None:
        return "-"
    if probability < 0.01:
        return "<1 %"
    return ">99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def timeline(
    report: Report,
    strip: Sequence[Pixels],
    strip_times: Sequence[float],
    waveform: Floats,
    rate: float,
    fps: float = 25.0,
) -> Pixels:
    """A clip at a glance: (H, W, 3) uint8 RGB, W = GUTTER + PLOT + MARGIN.

    A bar states the verdict. Below it, over one time axis: pictures, the scores of the video, the waveform, the scores
    of the audio, and those of both together. Segments are bands in the colour of their modality, all else is grey; a
    stream that is absent or could not be judged has a lane that says so.

    Args:
        report: on the clip; its curves are drawn as far as they are in memory, gaps where they are nan.
        strip: pictures or face crops, each (h, w, 3) uint8 RGB; those that do not fit are left out.
        strip_times: of each of them, in seconds, rising.
        waveform: (n, 2) lowest and highest sample in [-1, 1] of each column; n = 0 for a clip without sound.
        rate: its columns per second.
        fps: ticks per second of the report's curves.
    """
    media = report.media
    ends = (len(waveform) / rate if len(waveform) else 0.0, *(len(curve) / fps for curve in report.curves.values()))
    duration = media.duration or max(*ends, *(segment.end for segment in report.segments), 0.0) or 1.0
    axis = _Axis(duration)
    lanes: list[_Lane] = []
    for modality, seen in (("video", len(strip) > 0), ("audio", len(waveform) > 0), ("audio_visual", False)):
        if seen and modality == "video":
            lanes.append(_Lane("pictures", "", _pictures(axis, strip, strip_times, report.segments)))
        elif seen:
            lanes.append(_Lane("waveform", "", _waveform(axis, waveform, rate, report.segments)))
        curve, spans = report.curves.get(modality), _of(report.segments, modality)
        if curve is not None or spans or report.streams.get(modality) == "scored":
            labels = _labels(axis, spans, COLOURS[modality])
            body = np.concatenate([labels, _scores(axis, curve, fps, spans, COLOURS[modality])])
            note = percent(report.modalities[modality]) if modality in report.modalities else ""
            lanes.append(_Lane(MODALITIES[modality], note, body, COLOURS[modality], percents=True))
        elif state := report.streams.get(modality):
            why = state.removeprefix("not applicable: ").removeprefix("unusable: ")
            words = f"this file has no {MODALITIES[modality]}" if state == "absent" else f"not judged: {why}"
            lanes.append(_Lane(MODALITIES[modality], "", _words(axis, words)))
    return _assembled(report, axis, lanes)


class _Lane(NamedTuple):
    name: str
    note: str  # below the name
    body: Pixels  # (h, PLOT, 3)
    colour: Colour | None = None  # of its segments
    percents: bool = False  # whether its lowest SCORES pixels, less the bar, are a scale of 0 to 100 %


class _Axis(NamedTuple):
    """The columns of the plot, 0 to PLOT, over the time of a clip."""

    duration: float  # seconds

    def band(self, start: float, end: float) -> tuple[int, int]:
        """The columns [first, last) that a span of seconds touches, at least NARROWEST of them."""
        first, last = (min(max(time / self.duration, 0.0), 1.0) * PLOT for time in (start, end))
        x0, x1 = math.floor(first + 1e-6), math.ceil(last - 1e-6)
        if x1 - x0 < NARROWEST:
            x0 = min(max(0, round((first + last - NARROWEST) / 2)), PLOT - NARROWEST)
            x1 = x0 + NARROWEST
        return x0, x1

    def marked(self, segments: Sequence[Segment]) -> npt.NDArray[np.bool_]:
        """The columns (PLOT,) that any of the segments touches."""
        columns = np.zeros(PLOT, bool)
        for segment in segments:
            columns[slice(*self.band(segment.start, segment.end))] = True
        return columns

    def columns(self, low: Floats, high: Floats, rate: float) -> tuple[Floats, Floats]:
        """Lowest and highest of the values (n,), ``rate`` per second, in each column; none after the values end."""
        starts = np.floor(np.arange(PLOT) * (self.duration / PLOT) * rate + 1e-6).astype(np.int64)
        stop = min(len(low), math.ceil(self.duration * rate - 1e-6))
        starts = starts[starts < stop]
        return np.fmin.reduceat(low[:stop], starts), np.fmax.reduceat(high[:stop], starts)

    def ticks(self) -> tuple[list[float], list[str]]:
        """Round times at least 100 pixels apart, and how to write them."""
        least = 100 * self.duration / PLOT
        if least <= 1:
            decade = 10.0 ** math.floor(math.log10(least))
            step = next((m * decade for m in (1, 2, 5) if m * decade >= least), 10 * decade)
        else:
            step = next((s for s in STEPS if s >= least), math.ceil(least / 86400) * 86400)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        times = [i * step for i in range(math.floor(self.duration / step + 1e-6) + 1)]
        unit = " s" if self.duration < 60 else ""
        return times, [moment(time, self.duration, decimals) + unit for time in times]


def moment(seconds: float, longest: float, decimals: int = 0) -> str:
    """A time as ``12.50``, ``1:02.5`` or ``1:00:02``: with the minutes and hours that a file of ``longest`` needs."""
    whole, rest = divmod(round(seconds * 10**decimals), 10**decimals)
    tail = f".{rest:0{decimals}d}" if decimals else ""
    if longest < 60:
        return f"{whole}{tail}"
    minutes, whole = divmod(whole, 60)
    if longest < 3600:
        return f"{minutes}:{whole:02d}{tail}"
    return f"{minutes // 60}:{minutes % 60:02d}:{whole:02d}{tail}"


def between(start: float, end: float, longest: float, dash: str = "-", decimals: int | None = None) -> str:
    """A span of time as ``1.20-2.04 s``, or ``1:02.5-1:04.0`` in a file of a minute or more."""
    fine, unit = (2, " s") if longest < 60 else (1, "")
    fine = fine if decimals is None else decimals
    return f"{moment(start, longest, fine)}{dash}{moment(end, longest, fine)}{unit}"


def length(seconds: float) -> str:
    """A length of time as ``4.25 s``, ``42.5 s``, ``1:02`` or ``1:00:02``."""
    if seconds < 0.005:
        return "under 0.01 s"
    if seconds < 59.95:
        return f"{moment(seconds, seconds, 2 if seconds < 9.995 else 1)} s"
    return moment(seconds, max(seconds, 60))


def _of(segments: Sequence[Segment], *modalities: str) -> list[Segment]:
    """The segments of these modalities, by time; one that has no lane of its own is of audio and video."""
    found = [s for s in segments if (s.modality if s.modality in MODALITIES else "audio_visual") in modalities]
    return sorted(found, key=lambda segment: (segment.start, segment.end))


def _ground(axis: _Axis, height: int) -> Pixels:
    """An empty lane (height, PLOT, 3) with a line at every tick."""
    body = np.full((height, PLOT, 3), TRACK, np.uint8)
    for time in axis.ticks()[0]:
        body[:, min(round(time / axis.duration * PLOT), PLOT - 1)] = GRID
    return body


def _words(axis: _Axis, text: str) -> Pixels:
    """A lane that says something instead of showing it."""
    picture = Image.fromarray(_ground(axis, 2 * UNIT))
    font = ImageFont.load_default(UNIT)
    draw, text = ImageDraw.Draw(picture), _elided(_ascii(text), font, PLOT - 2 * UNIT)
    draw.rectangle((0, 0, draw.textlength(text, font=font) + 2 * UNIT, 2 * UNIT), fill=TRACK)
    draw.text((UNIT, UNIT), text, fill=FAINT, font=font, anchor="lm")
    return np.asarray(picture)


def _pictures(axis: _Axis, strip: Sequence[Pixels], times: Sequence[float], segments: Sequence[Segment]) -> Pixels:
    """Pictures centred on their times as far as they fit, framed where their time is forged; bands below."""
    body = _ground(axis, THUMB + 4 + BAR)
    colours = _painted(axis, segments, "video", PAPER)
    marked = axis.marked(_of(segments, "video", "audio_visual"))
    room, free = max(THUMB, PLOT // len(strip) - 2), 0
    for picture, time in zip(strip, times, strict=True):
        small = _thumbnail(picture)
        width = min(small.shape[1], room)  # a wide picture shows its middle
        middle = min(max(0, round(time / axis.duration * PLOT)), PLOT - 1)
        x, cut = min(max(0, middle - width // 2), PLOT - width), (small.shape[1] - width) // 2
        if x < free:
            continue
        free = x + width + 1
        body[:THUMB, x : x + width] = small[:, cut : cut + width]
        if marked[middle]:
            inner = body[3 : THUMB - 3, x + 3 : x + width - 3].copy()
            body[:THUMB, x : x + width] = colours[middle]
            body[3 : THUMB - 3, x + 3 : x + width - 3] = inner
    body[-BAR:, marked] = colours[marked]
    return body


def _thumbnail(picture: Pixels) -> Pixels:
    """A picture (h, w, 3) at the height of the strip, at most as wide as five of that."""
    height, width = picture.shape[:2]
    size = min(max(12, round(width * THUMB / height)), 5 * THUMB), THUMB
    if size == (width, height):
        return picture
    how = cv2.INTER_AREA if height > THUMB else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=how).astype(np.uint8, copy=False)


def _waveform(axis: _Axis, waveform: Floats, rate: float, segments: Sequence[Segment]) -> Pixels:
    """The envelope, its loudest sample as high as the lane, in colour where forged."""
    height = 64
    body = _ground(axis, height + BAR)
    low, high = axis.columns(waveform[:, 0], waveform[:, 1], rate)
    middle = (height - 1) / 2
    scale = (middle - 2) / max(float(np.abs(waveform).max()), 1e-3)
    rows = np.arange(height)[:, None]  # (height, 1)
    loud = (rows >= np.floor(middle - high * scale)) & (rows <= np.ceil(middle - low * scale))  # (height, k)
    colours = _painted(axis, segments, "audio", GREY)
    body[:height, : len(low)][loud] = np.broadcast_to(colours[: len(low)], (height, len(low), 3))[loud]
    marked = axis.marked(_of(segments, "audio", "audio_visual"))
    body[-BAR:, marked] = colours[marked]
    return body


def _scores(axis: _Axis, curve: Floats | None, fps: float, spans: Sequence[Segment], colour: Colour) -> Pixels:
    """A curve with 0 % at the bottom and 100 % at the top; where ticks share a column, their whole range."""
    body = _ground(axis, SCORES)
    height = SCORES - BAR
    body[height // 2, ::4] = GREY
    marked = axis.marked(spans)
    body[:height, marked] = _mixed(body[:height, marked], np.array(colour), 0.25)
    body[height:] = PAPER
    body[height:, marked] = colour
    if curve is None or not len(curve):
        return body
    low, high = axis.columns(curve, curve, fps)
    k = len(low)
    inks = np.where(marked[:k, None], colour, FAINT).astype(np.uint8)  # (k, 3)
    known = np.isfinite(high)
    top, bottom = ((height - 2) * (1 - np.clip(np.nan_to_num(v), 0, 1)) + 1 for v in (high, low))  # (k,) rows
    rows = np.arange(height)[:, None]  # (height, 1)
    alpha = ((rows >= top) * 0.25 + ((rows >= top) & (rows <= bottom)) * 0.35) * known  # (height, k)
    line = np.zeros((height, k), np.uint8)
    edges = np.flatnonzero(np.diff(known, prepend=False, append=False))
    for start, stop in edges.reshape(-1, 2):
        x = np.arange(start, stop)
        points = np.stack([x, top[start:stop]], 1)  # (n, 2)
        cv2.polylines(line, [np.rint(points * 16).astype(np.int32)], False, 255, 2, cv2.LINE_AA, shift=4)
    alpha = np.maximum(alpha, line.astype(np.float32) / 255)
    body[:height, :k] = _mixed(body[:height, :k], inks, alpha[..., None])
    return body


class _Label(NamedTuple):
    text: str
    x: int  # left
    width: int
    row: int  # 0 is the lowest
    first: int  # columns of the band or group that it names
    last: int


def _labels(axis: _Axis, spans: Sequence[Segment], colour: Colour) -> Pixels:
    """Start and end of every segment above its band: (h, PLOT, 3), as many rows as needed."""
    font = ImageFont.load_default(15)
    labels = _placed(axis, spans, font)
    rows = 1 + max((label.row for label in labels), default=-1)
    picture = Image.new("RGB", (PLOT, rows * ROW + (4 if rows else 0)), PAPER)
    draw, floor = ImageDraw.Draw(picture), picture.height - 1
    for label in labels:
        draw.line((label.first, floor - 1, label.last - 1, floor - 1), fill=colour, width=2)
        x = min(max((label.first + label.last) // 2, label.x + 2), label.x + label.width - 3)
        draw.line((x, floor - 3 - (label.row + 1) * ROW + ROW // 2, x, floor), fill=colour)
    for label in labels:
        top = picture.height - 4 - (label.row + 1) * ROW
        draw.rectangle((label.x, top + 1, label.x + label.width - 1, top + ROW - 3), fill=PAPER)
        draw.text((label.x + 4, top + ROW // 2 - 1), label.text, fill=colour, font=font, anchor="lm")
    return np.asarray(picture)


def _placed(axis: _Axis, spans: Sequence[Segment], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[_Label]:
    """Labels in at most two rows that do not overlap: one each if they fit, else neighbours share one.

    Neighbours are joined across the smallest gaps first.
    """
    if not spans:
        return []
    ends = np.maximum.accumulate([span.end for span in spans])
    gaps = np.array([after.start for after in spans[1:]]) - ends[:-1]
    widest = np.argsort(-gaps, kind="stable")
    bands = [axis.band(span.start, span.end) for span in spans]
    most = min(len(spans), 2 * PLOT // 60)
    for count, sure in [(len(spans), True)] * (most == len(spans)) + [(count, False) for count in range(most, 0, -1)]:
        cuts = [0, *sorted(int(i) + 1 for i in widest[: count - 1]), len(spans)]
        labels: list[_Label] = []
        free = [0, 0]  # first free column of each row
        for i, j in pairwise(cuts):
            start, end = spans[i].start, float(ends[j - 1])
            text = between(start, end, axis.duration)
            if j - i > 1:
                text = f"{j - i} in {between(start, end, axis.duration, decimals=0 if axis.duration >= 60 else 2)}"
            elif sure:
                text += f"  {percent(spans[i].probability)}"
            width = math.ceil(font.getlength(text)) + 8
            first, last = bands[i][0], max(band[1] for band in bands[i:j])
            wish = min(max(0, (first + last - width) // 2), PLOT - width)
            row = next((row for row in (0, 1) if free[row] <= wish), 0 if free[0] <= free[1] else 1)
            x = max(wish, free[row])
            if x > wish + width // 2 or x + width > PLOT:
                break
            labels.append(_Label(text, x, width, row, first, last))
            free[row] = x + width + 4
        else:
            return labels
    raise AssertionError("one label always fits")


def _painted(axis: _Axis, segments: Sequence[Segment], modality: str, rest: Colour) -> Pixels:
    """The colour of every column (PLOT, 3): of both together, over it of the modality, elsewhere ``rest``."""
    colours = np.full((PLOT, 3), rest, np.uint8)
    for name in ("audio_visual", modality):
        colours[axis.marked(_of(segments, name))] = COLOURS[name]
    return colours


def _assembled(report: Report, axis: _Axis, lanes: Sequence[_Lane]) -> Pixels:
    """Verdict, file, lanes, time axis and warnings on one sheet."""
    pad, width = UNIT // 2, GUTTER + PLOT + MARGIN
    head = 3 * UNIT + 3 * pad
    top = head + 2 * UNIT + pad
    height = top + sum(lane.body.shape[0] + UNIT for lane in lanes) + UNIT + pad
    frame = Image.new("RGB", (width, height + len(report.warnings[:3]) * (UNIT + pad)), PAPER)
    threshold = f", threshold {percent(report.threshold)}" if report.forged and report.threshold is not None else ""
    _headline(frame, report, UNIT, _note(report), f"probability of forgery{threshold}")
    draw, small, tiny = ImageDraw.Draw(frame), ImageFont.load_default(UNIT), ImageFont.load_default(13)

    facts = _facts(report.media)
    draw.text((width - pad, head + UNIT + 2), facts, fill=FAINT, font=small, anchor="rm")
    room = width - 4 * pad - draw.textlength(facts, font=small)
    name = _elided(_ascii(os.path.basename(report.media.path) or report.media.path), small, room, middle=True)
    draw.text((pad, head + UNIT + 2), name, fill=INK, font=small, anchor="lm")

    for lane in lanes:
        bottom = top + lane.body.shape[0]
        frame.paste(Image.fromarray(lane.body), (GUTTER, top))
        middle = bottom - SCORES // 2 if lane.percents else (top + bottom) // 2
        above = UNIT * 5 // 8 if lane.note else 0
        if lane.colour is not None:
            draw.rectangle((pad, middle - above - 6, pad + 3, middle + above + 6), fill=lane.colour)
        draw.text((pad + 10, middle - above), lane.name, fill=INK, font=small, anchor="lm")
        draw.text((pad + 10, middle + above), lane.note, fill=FAINT, font=small, anchor="lm")
        if lane.percents:
            for share, at in ((100, 7), (50, (SCORES - BAR) // 2), (0, SCORES - BAR - 7)):
                draw.text((GUTTER + PLOT + 8, bottom - SCORES + at), f"{share} %", fill=GREY, font=tiny, anchor="lm")
        top = bottom + UNIT

    top -= UNIT // 2
    for time, text in zip(*axis.ticks(), strict=True):
        x = GUTTER + min(round(time / axis.duration * PLOT), PLOT - 1)
        draw.line((x, top - 4, x, top + 1), fill=GREY)
        draw.text((x, top + UNIT // 2 + 4), text, fill=FAINT, font=ImageFont.load_default(15), anchor="mm")
    for row, warning in enumerate(report.warnings[:3]):
        more = f" (and {len(report.warnings) - 3} more)" if row == 2 and len(report.warnings) > 3 else ""
        text = _elided(_ascii(f"note: {warning}"), small, width - 2 * pad - draw.textlength(more, font=small)) + more
        draw.text((pad, height + row * (UNIT + pad) + UNIT // 2), text, fill=FAINT, font=small, anchor="lm")
    return np.asarray(frame)


def _note(report: Report) -> str:
    """What stands below the verdict on a clip."""
    segments = _of(report.segments, *MODALITIES)
    if report.verdict == "not_applicable" and not report.reasons:
        return "nothing in this file could be judged"
    if report.verdict == "error":
        return _elided(_ascii(report.error or ""), ImageFont.load_default(UNIT), GUTTER + PLOT)
    if not report.forged:
        return _why(report, ImageFont.load_default(UNIT), PLOT)
    if not segments:
        return "no single segment stands out"
    longest = report.media.duration or max(segment.end for segment in segments)
    if len(segments) <= 3:
        names = [MODALITIES.get(segment.modality, MODALITIES["audio_visual"]) for segment in segments]
        spans = [between(segment.start, segment.end, longest) for segment in segments]
        return ", ".join(f"{span} ({name})" for span, name in zip(spans, names, strict=True))
    covered, reached = 0.0, 0.0
    for segment in segments:
        covered += max(0.0, segment.end - max(segment.start, reached))
        reached = max(reached, segment.end)
    return f"{len(segments)} segments cover {length(covered)} of {length(longest)}"


def _why(report: Report, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    """Why a file is not called forged, cut to ``room`` pixels."""
    if not report.reasons:
        even = "likelier forged than not, but " if report.verdict == "inconclusive" else ""
        return f"{even}below the threshold of {percent(report.threshold)}"
    return _elided(_ascii("; ".join(reason.words for reason in report.reasons)), font, room)


def _facts(media: Media) -> str:
    """Length, size and rates of a clip, as far as known."""
    facts = []
    if media.duration is not None:
        facts.append(length(media.duration))
    if media.width and media.height:
        facts.append(f"{media.width} x {media.height}")
    if media.fps:
        facts.append(f"{media.fps:.4g} fps")
    if media.sample_rate:
        facts.append(f"{media.sample_rate / 1000:g} kHz")
    if media.channels:
        facts.append({1: "mono", 2: "stereo"}.get(media.channels, f"{media.channels} channels"))
    return "  ·  ".join(facts)


def _ascii(text: str) -> str:
    """Text as far as Pillow's own font can write it: accents are dropped, what it lacks becomes a question mark."""
    for dash in "\u2013\u2014\u2212":
        text = text.replace(dash, "-")
    plain = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in plain)


def _elided(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float, *, middle: bool = False) -> str:
    """Text cut to ``room`` pixels, at its end or in its middle."""
    keep = len(text)
    shown = text
    while font.getlength(shown) > room and keep > 1:
        keep -= 1
        shown = f"{text[: keep - keep // 2]}...{text[len(text) - keep // 2 :]}" if middle else f"{text[:keep]}..."
    return shown


def _mixed(base: Pixels, colour: npt.NDArray[np.number], alpha: float | npt.NDArray[np.floating]) -> Pixels:
    """``base`` with ``colour`` laid over it, alpha 0 to 1."""
    mixed: Pixels = np.rint(base + (colour.astype(np.float32) - base) * alpha).astype(np.uint8)
    return mixed


def _scale_colours(values: Pixels) -> Pixels:
    """Values (h, w) uint8 to the colours of the heat scale, (h, w, 3) RGB."""
    return cv2.cvtColor(cv2.applyColorMap(values, cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _bytes(heatmap: npt.NDArray[np.float32]) -> Pixels:
    """Probabilities (H, W) to 0..255, rounded."""
    return cv2.convertScaleAbs(heatmap, alpha=255.0).astype(np.uint8, copy=False)


def _meet(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _targets(out: str | os.PathLike[str], stem: str) -> tuple[Path, Path, Path, Path]:
    """Where mask, heat map, overlay and timeline go."""
    mask, heatmap, drawn, times = (
        Path(out) / f"{stem}.{picture}.png" for picture in ("mask", "heatmap", "overlay", "timeline")
    )
    return mask, heatmap, drawn, times


def _save(pixels: Pixels, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with output.whole(path) as file:
        Image.fromarray(pixels).save(file, format="PNG", compress_level=3)
