"""From a photo or a clip to a Report: windows, batches, merging, calibration, verdict, regions and segments.

A detector sees one window, of pixels or of time; here is the only place that knows how large the photo or how long the
clip was. A photo larger than the detector's window is cut into native tiles whose origins lie on the JPEG grid, and
their heat maps are merged with weights that ramp linearly across the overlap and sum to one in every pixel. A clip is
read once, from its beginning, and never held: its windows overlap, their curves are merged in the same way, their
proposals compete where they overlap, and the file is as suspect as its most suspect window.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from . import batches, copies, draw, familiar, isolation, verdicts, zoo
from .cues import cues
from .detectors.base import ClipDetector, ClipFinding, ClipWindow, Clock, Detector, Finding, ImageDetector, Windowing
from .errors import SeamlineError
from .faces import FaceTracker, FaceWindow
from .heads.proposals import merge_windows
from .journal import Journal
from .media import Clip, Image, open_media
from .pace import LAGS, Pace, Rows
from .report import Media, Modality, Model, OperatingPoint, Region, Report, Segment
from .verdicts import EVEN as EVEN
from .windows import quiet

Source = str | os.PathLike[str] | bytes | npt.NDArray[Any] | Image | Clip

SPECK_PIXELS = 64  # a smaller connected area is no region ...
SPECK_SHARE = 1e-4  # ... nor is one that covers less than this share of the photo
MOST_REGIONS = 20  # listed in a report; the mask holds all
CELL, CELLS = 8, 3  # pixels a side of a cell, and cells a side of the place where a heat map is hottest
SURE = 1e-3  # of how hot that is, nearest to 0 and 1
SHORTEST_TICKS = 5  # a shorter clip, or a face seen for less in a window, is too little to judge
MOST_FACES = 3  # judged in one window, the longest seen first
MOST_SEGMENTS = 50  # listed in a report of each modality; the curves hold all
CUT = 0.99  # times its score is what a proposal is worth that the window's edge cut: beside the whole it gives way
STRIP = 12  # pictures of the clip kept for its timeline
ENVELOPE = 4000  # columns of the sound's envelope kept for its timeline
JUDGED: tuple[Modality, ...] = ("audio_visual", "video", "audio")  # the first that was judged gives the verdict
BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**24}  # in windows of one pass; more costs memory and gains no time on a CPU


class Session:
    """Weights in memory, ready to scan any number of files.

    Args:
        model: a catalogue name, the path of a ``.safetensors`` file, or a detector (scanned with an uncalibrated
            threshold of 0.5 unless ``card`` says otherwise). ``default`` takes the catalogue's default for each medium,
            loaded when the first file of that medium is met.
        device: ``cpu``, ``cuda`` or ``auto`` (CUDA where there is one).
        batch: windows per pass; by default as many as gain time on the device.
        card: what is known about a detector that is given as an object.
        proposals: how many ranked proposals the report on a clip lists.
        isolate: decode files in processes of their own that can do nothing else (:mod:`seamline.isolation`); without it
            they are decoded in this one, which is for files that are trusted.

    Raises:
        WeightsError: the weights are unknown, damaged or of another kind.
        SeamlineError: the device does not exist here.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Detector = "default",
        device: str = "cpu",
        batch: int | None = None,
        card: zoo.Card | None = None,
        proposals: int = 0,
        isolate: bool = True,
    ) -> None:
        self.device = _device(device)
        self.batch, self.proposals, self.isolate = batch, proposals, isolate
        self._loaded: dict[str, tuple[Detector, zoo.Card]] = {}  # by medium: image, clip
        self._only: str | None = None  # the medium that a model named by the caller is for
        if isinstance(model, Detector):
            kind = type(model).__name__.lower()
            self._keep(model.to(self.device).eval(), card or zoo.Card(name=kind, detector=kind))
        elif str(model) != "default":
            self._keep(*zoo.load_detector(model, str(self.device)))

    def _keep(self, detector: Detector, card: zoo.Card) -> None:
        self._only = "image" if isinstance(detector, ImageDetector) else "clip"
        self._loaded[self._only] = detector, card

    def model(self, medium: str) -> tuple[Detector, zoo.Card]:
        """The detector and the card for a medium."""
        if medium not in self._loaded:
            if self._only is not None:
                name = self._loaded[self._only][1].name
                raise SeamlineError(f"the model {name!r} judges {_PLURAL[self._only]}, not {_PLURAL[medium]}")
            self._loaded[medium] = zoo.load_detector(zoo.default(medium), str(self.device))
        return self._loaded[medium]

    @property
    def detector(self) -> Detector:
        """The network; of the default for photos where no model was named."""
        return self.model(self._only or "image")[0]

    @property
    def card(self) -> zoo.Card:
        """What is known about it."""
        return self.model(self._only or "image")[1]

    def __call__(self, source: Source) -> Report:
        """Scan one photo or clip: a path, the bytes of a file, an (H, W, 3) uint8 RGB array, or an opened medium.

        How a verdict comes about is told in :mod:`seamline.verdicts`. The heat map of a photo, (H, W) float32 in
        [0, 1], and the curves of a clip are there whenever a probability is. Mask, regions and segments are what a
        verdict of forged rests on: without it there are none, and the mask is all zero.

        Raises:
            MediaError: the source cannot be read.
            SeamlineError: the detector gave no number, or the model is for another medium.
        """
        if isinstance(source, (Image, Clip)):
            return self.examine(source)
        if isinstance(source, np.ndarray):
            return self.examine(open_media(source))
        with self.opened(source) as medium:
            return self.examine(medium)

    def examine(self, medium: Image | Clip, looks: draw.Looks | None = None) -> Report:
        """The report on an opened medium; ``looks`` gathers what is seen and heard while a clip is read."""
        return self._photo(medium) if isinstance(medium, Image) else self._clip(medium, looks or draw.Looks())

    def opened(self, source: str | os.PathLike[str] | bytes) -> AbstractContextManager[Image | Clip]:
        """A file, or its bytes, as a medium that can be read while the context lasts; decoded where ``isolate`` says.

        Raises:
            MediaError: the source cannot be read.
        """
        return isolation.opened(source) if self.isolate else contextlib.nullcontext(open_media(source))

    def scan(
        self,
        paths: Sequence[str | os.PathLike[str]],
        out: str | os.PathLike[str] | None = None,
        journal: Journal | None = None,
    ) -> Iterator[Report]:
        """Scan files one after another; a report for each, whatever happens.

        An archive (zip, tar) stands for the photos, videos and sounds in it; the report on one has the path
        ``archive.zip!/name``. A file that cannot be analysed gives a report with the verdict ``error`` and its cause in
        ``error``; the others are scanned all the same. With ``out``, the pictures of every file are written to that
        folder and named in ``artifacts``; two files with the same stem get different names, and no input is ever
        overwritten. With ``journal``, what it holds is not scanned again, if file, weights and settings are the same;
        such reports come without arrays.
        """
        items = batches.items(paths, self.isolate)
        stems = draw.stems([item.path for item in items], out) if out is not None else [""] * len(items)
        entries = zip(items, stems, batches.done(items, journal, self._settings(out)), strict=True)
        for item, stem, (key, earlier), opening in batches.ahead(entries, self.isolate):
            if earlier is not None:
                yield earlier
            elif journal is None or key is None:
                yield self._scanned(item.path, opening, out, stem)  # nothing of one file is kept for the next
            else:
                yield journal.put(key, self._scanned(item.path, opening, out, stem))

    def _scanned(self, path: str, opening: batches.Opening, out: str | os.PathLike[str] | None, stem: str) -> Report:
        """The report on one file, with its pictures written if ``out`` is given."""
        try:
            with opening() as medium:
                if isinstance(medium, Image):
                    report = self._photo(medium)
                    if out is None or report.heatmap is None:
                        return report
                    return dataclasses.replace(report, artifacts=draw.write(report, medium.pixels, out, stem))
                report = self._clip(medium, looks := draw.Looks())
                if out is None:
                    return report
                return dataclasses.replace(report, artifacts=draw.write_timeline(report, looks, out, stem))
        except Exception as cause:
            return self.failed(path, cause)

    def _settings(self, out: str | os.PathLike[str] | None) -> dict[str, Any]:
        """What a result depends on besides the file, as plain values."""
        if self._only is not None:
            cards = [self._loaded[self._only][1]]
        else:
            names = {zoo.default(medium) for medium in ("image", "clip")}
            cards = [card for card in zoo.models() if card.name in names]
        return {
            "weights": [dataclasses.asdict(card) for card in cards],
            "versions": _versions(),
            "device": str(self.device),
            "proposals": self.proposals,
            "out": None if out is None else os.fspath(out),
        }

    def _environment(self) -> dict[str, str]:
        return environment(self.device) | {"isolation": isolation.held() if self.isolate else "none"}

    def failed(self, path: str | os.PathLike[str], cause: Exception) -> Report:
        """The report on a file that could not be analysed. What we did not foresee is told with its type."""
        text = str(cause) if isinstance(cause, SeamlineError) else f"{type(cause).__name__}: {cause}"
        card = self._loaded[self._only][1] if self._only else None
        return Report(
            media=Media(os.fspath(path)),
            verdict="error",
            threshold=card.threshold if card else None,
            model=Model(card.name, card.version, card.sha256) if card else None,
            environment=self._environment(),
            error=text,
        )

    # ------------------------------------------------------------------------------------------------------- a photo

    def _photo(self, image: Image) -> Report:
        """The report on a photo."""
        detector, card = self.model("image")
        assert isinstance(detector, ImageDetector)
        height, width = image.pixels.shape[:2]
        report = Report(
            media=Media(image.path, image.sha256, image.bytes, "image", image.format, width, height),
            verdict="not_applicable",
            threshold=card.threshold,
            operating_point=_operating_point(card),
            model=Model(card.name, card.version, card.sha256),
            environment=self._environment(),
            warnings=image.warnings,
        )
        limits = verdicts.limits_of_photo(image, _familiar(card), card.lowest_quality)
        if not verdicts.judged(limits):
            return dataclasses.replace(report, reasons=limits)

        lead = detector.lead(image.pixels)
        logit, heatmap = self._look(detector, image.pixels, lead or (0, 0))
        if not math.isfinite(logit) or np.isnan(heatmap.sum()):
            raise _no_number(image.path)
        evidence = {"logit": logit, "peak": _peak(heatmap), "size": math.log(height * width / 1e6)}
        marked: list[tuple[copies.Mask, copies.Mask]] = []
        if any("copies" in fit for fit in (card.calibration, *card.calibrations.values())):
            repeats = copies.find(image.pixels)
            evidence["copies"] = repeats.odds
            heatmap, marked = repeats.onto(heatmap)
        saved = verdicts.last_save(image, card.lowest_quality, traced=lead is not None)
        probability = _sigmoid(weigh(evidence, card.calibrations.get(saved, card.calibration)))
        warnings = report.warnings
        regions: tuple[Region, ...] = ()
        mask = np.zeros((height, width), bool)
        if probability >= card.threshold and (share := float(np.mean(heatmap >= card.mask_threshold))) > verdicts.WHOLE:
            limits = (*limits, verdicts.reason("whole", share=f"{100 * share:.0f} %"))
        verdict, reasons = verdicts.decide(probability, card.threshold, limits, copied=evidence.get("copies", 0) > 0)
        if verdict == "forged":
            mask, regions, count = find_regions(heatmap, card.mask_threshold)
            regions = _with_twins(regions, marked, (height, width))
            if count > len(regions):
                warnings = (*warnings, f"{count} areas stand out; the {len(regions)} strongest are listed")
            if not count:
                warnings = (*warnings, "the photo as a whole scores as forged, but no single area stands out")
        return dataclasses.replace(
            report,
            verdict=verdict,
            reasons=reasons,
            probability=probability,
            regions=regions,
            evidence=evidence,
            warnings=warnings,
            mask=mask,
            heatmap=heatmap,
        )

    @torch.inference_mode()
    def _look(
        self, detector: ImageDetector, rgb: npt.NDArray[np.uint8], lead: tuple[int, int]
    ) -> tuple[float, npt.NDArray[np.float32]]:
        """The raw logit of a photo (H, W, 3) and its heat map (H, W), merged from all its windows.

        Native windows begin ``lead`` rows and columns before it.
        """
        windowing = detector.windowing
        height, width = rgb.shape[:2]
        if windowing.whole:
            finding = self._findings(detector, [rgb])[0]
            return detector.combine([finding]), _array(finding.heatmap)

        top, left = lead
        if top or left:
            rgb = np.pad(rgb, ((top, 0), (left, 0), (0, 0)), "edge")
            height, width = rgb.shape[:2]
        rows, columns = tiles(height, windowing), tiles(width, windowing)
        windows = [(row, column) for row in rows for column in columns]
        size = (rows[0].padded, columns[0].padded)
        batch = self.batch or max(1, BATCH_PIXELS[self.device.type] // (size[0] * size[1]))
        heatmap = np.zeros((height, width), np.float32)
        findings: list[Finding] = []
        for start in range(0, len(windows), batch):
            part = windows[start : start + batch]
            found = self._findings(detector, [_cut(rgb, r, c) for r, c in part])
            for (row, column), finding in zip(part, found, strict=True):
                h, w = row.stop - row.start, column.stop - column.start
                tile = _array(finding.heatmap)[:h, :w]
                heatmap[row.start : row.stop, column.start : column.stop] += tile * row.weight[:, None] * column.weight
                # combine() lives on the evidence; to keep every tile's heat map would double the memory, so only its
                # size stays: one zero, seen (H, W) times.
                findings.append(finding._replace(heatmap=finding.heatmap.new_zeros(()).expand_as(finding.heatmap)))
        heatmap = np.ascontiguousarray(heatmap[top:, left:])
        return detector.combine(findings), np.clip(heatmap, 0.0, 1.0, out=heatmap)

    def _findings(self, detector: ImageDetector, windows: list[npt.NDArray[np.uint8]]) -> list[Finding]:
        """One pass through the network; the windows are of one size."""
        pixels = torch.stack([detector.preprocess(window) for window in windows]).to(self.device)  # (B, 3, h, w)
        return detector.postprocess(detector(pixels), [(w.shape[0], w.shape[1]) for w in windows])

    # -------------------------------------------------------------------------------------------------------- a clip

    def _clip(self, clip: Clip, looks: draw.Looks) -> Report:
        """The report on a clip; what its timeline shows goes to ``looks``."""
        detector, card = self.model("clip")
        assert isinstance(detector, ClipDetector)
        clock = detector.clock
        merged = Merged(clock)
        known = _familiar(card)
        faces = heard = spoken = False
        for start, tracks, sound, ticks, pace in windows(clip, clock, looks, "pace" in detector.uses):
            heard |= sound is not None
            if sound is not None and known is not None and not verdicts.is_speech(sound, clock.rate, known):
                sound = None  # to be judged no more than silence is
            spoken |= sound is not None
            faces |= bool(tracks)
            looks.window(start, ticks, tracks, sound is not None)
            told = cues(sound) if sound is not None and "cues" in detector.uses else None  # once for all faces
            given = [ClipWindow(track.crops, track.seen, sound, ticks, pace, told) for track in tracks]
            if not given and sound is not None:
                given = [ClipWindow(None, None, sound, ticks, cues=told)]
            merged.add(start, ticks, self._watch(detector, given))
        streams, limits = dict(clip.streams), []
        for name, there, why in (("video", faces, "no_face"), ("audio", spoken, "no_speech" if heard else "silent")):
            if streams.get(name) == "present":
                used = name in detector.uses
                limit = verdicts.reason(why if used else "not_judged", model=card.name)
                streams[name] = "scored" if there and used else f"not applicable: {limit.words}"
                limits += [limit] if used and not there else []
        video, audio = clip.video, clip.audio
        media = Media(
            path=clip.path,
            sha256=clip.sha256,
            bytes=clip.bytes,
            kind=clip.kind,
            format=clip.format,
            width=video.width if video else None,
            height=video.height if video else None,
            duration=clip.duration,
            fps=video.fps if video else None,
            sample_rate=audio.rate if audio else None,
            channels=audio.channels if audio else None,
        )
        report = Report(
            media=media,
            verdict="not_applicable",
            threshold=card.threshold,
            operating_point=_operating_point(card),
            streams=streams,
            model=Model(card.name, card.version, card.sha256),
            environment=self._environment(),
            warnings=(*clip.warnings, *dict.fromkeys(clip.notes)),
        )
        if merged.ticks < SHORTEST_TICKS or not merged.logits:
            if merged.ticks < SHORTEST_TICKS:
                limits = [verdicts.reason("too_short", seconds=clip.duration, needed=SHORTEST_TICKS / clock.fps)]
            return dataclasses.replace(
                report, reasons=tuple(limits or [verdicts.reason("not_judged", model=card.name)])
            )
        if not all(math.isfinite(logit) for logit in merged.logits.values()):
            raise _no_number(clip.path)
        modalities = _probabilities(merged.logits, card)
        judge = next(key for key in JUDGED if key in modalities)
        probability = modalities[judge]
        ranked = {key: merged.ranked(key) for key in merged.logits}
        segments: list[Segment] = []
        warnings = report.warnings
        verdict, reasons = verdicts.decide(probability, card.threshold)
        if verdict == "forged":
            apart: list[Modality] = [key for key in JUDGED[1:] if key in ranked]
            for keys in (apart, [judge]):  # what both together show is listed where neither shows it alone
                for key in keys:
                    segments += _segments(ranked[key], card.segment_threshold, clock.fps, clip.duration, key)
                if segments:
                    break
            else:
                warnings = (*warnings, "the clip as a whole scores as forged, but no single span stands out")
        best = ranked[judge][: self.proposals]
        return dataclasses.replace(
            report,
            verdict=verdict,
            reasons=reasons,
            probability=probability,
            segments=tuple(sorted(segments, key=lambda s: (s.start, s.end, s.modality))),
            proposals=tuple((float(p), float(s) / clock.fps, float(e) / clock.fps) for p, s, e in best),
            modalities=modalities,
            warnings=warnings,
            curves={key: merged.curve(key) for key in merged.logits},
        )

    @torch.inference_mode()
    def _watch(self, detector: ClipDetector, given: list[ClipWindow]) -> list[ClipFinding]:
        """One pass through the network for each face of a window; the windows are of one length."""
        findings: list[ClipFinding] = []
        for window in given:
            batch = move(detector.collate([detector.preprocess(window)]), self.device)
            findings += detector.postprocess(detector(batch), [window.ticks])
        return findings


def _probabilities(logits: Mapping[Modality, float], card: zoo.Card) -> dict[str, float]:
    """The probability of each modality; where each is weighed by itself, both together are the more suspect one."""
    found = {
        str(key): _sigmoid(weigh({"logit": logit}, card.calibrations.get(key, card.calibration)))
        for key, logit in logits.items()
    }
    if "audio_visual" in found and card.calibrations.keys() == {*JUDGED[1:]}:
        found["audio_visual"] = max(found[key] for key in JUDGED[1:])
    return found


class Merged:
    """Findings of windows, put together as they come."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.ticks = clock, 0
        self.logits: dict[Modality, float] = {}
        self._curves: dict[str, list[tuple[int, npt.NDArray[np.float32]]]] = {}
        self._proposals: dict[str, list[tuple[int, int, npt.NDArray[np.float64]]]] = {}

    def add(self, start: int, ticks: int, findings: Sequence[ClipFinding]) -> None:
        """The findings about the faces of one window [start, start + ticks); of several the most suspect counts."""
        self.ticks = max(self.ticks, start + ticks)
        for key in JUDGED:
            here = [finding for finding in findings if key in finding.logits]
            if not here:
                continue
            self.logits[key] = max([self.logits.get(key, -math.inf), *(finding.logits[key] for finding in here)])
            curve = np.max([_array(finding.curves[key]) for finding in here], 0)
            self._curves.setdefault(key, []).append((start, curve))
            for finding in here:
                self._proposals.setdefault(key, []).append((start, ticks, finding.proposals[key]))

    def curve(self, key: str) -> npt.NDArray[np.float32]:
        """(ticks,) the mean of all windows, each weighing less towards its ends; nan where none was judged."""
        total, weight = np.zeros(self.ticks), np.zeros(self.ticks)
        for start, curve in self._curves[key]:
            steps = np.arange(len(curve)) + 0.5
            ramp = np.minimum(np.minimum(steps, steps[::-1]) / max(self.clock.overlap, 1), 1.0)
            total[start : start + len(curve)] += ramp * curve
            weight[start : start + len(curve)] += ramp
        with np.errstate(invalid="ignore"):
            return (total / np.where(weight > 0, weight, np.nan)).astype(np.float32)

    def ranked(self, key: str) -> npt.NDArray[np.float64]:
        """(k, 3) score, start and end in ticks of the clip, ranked; overlapping windows do not count twice."""
        found = []
        for start, ticks, rows in self._proposals[key]:
            cut = (rows[:, 1] < 1) & (start > 0) | (rows[:, 2] > ticks - 1) & (start + ticks < self.ticks)
            score = np.where(cut, CUT * rows[:, 0], rows[:, 0])
            found.append((start, np.column_stack([score, rows[:, 1:]])))
        return merge_windows(found)


def windows(
    clip: Clip, clock: Clock, looks: draw.Looks, paced: bool = True
) -> Iterator[tuple[int, list[FaceWindow], npt.NDArray[np.float32] | None, int, Rows]]:
    """Read a clip once: (first tick, faces, sound or ``None`` where silent, ticks, pace) of each window, in order.

    The last window is shifted back, so that it is as long as the others. At most two windows are held. Where it
    need not be ``paced``, the pace is not known.
    """
    per_tick = round(clock.rate / clock.fps)
    frames = clip.frames(clock.fps) if clip.video else iter(())
    blocks = clip.sound(clock.rate) if clip.audio else iter(())
    looks.begin(clip.duration, clock, STRIP, ENVELOPE)
    tracker = FaceTracker(clock.face)
    shown = 0  # ticks whose picture has been read
    pace, rows = Pace(), np.zeros((0, LAGS), np.float32)  # the rows from tick ``first`` on
    sound, first = np.zeros(0, np.float32), 0  # the sound from tick ``first`` on
    start = covered = 0
    while True:
        stop = start + clock.ticks
        paces = [rows]
        while shown < stop and (frame := next(frames, None)) is not None:
            tracker.add(frame)
            if paced:
                paces.append(pace.add(frame)[None])
            looks.picture(frame, shown)
            shown += 1
        parts, heard = [sound], first * per_tick + len(sound)
        while heard < stop * per_tick and (block := next(blocks, None)) is not None:
            looks.sound(block)
            parts.append(block)
            heard += len(block)
        sound, rows = np.concatenate(parts), np.concatenate(paces)
        end = max(shown, math.ceil(heard / per_tick))
        last = end < stop
        if last:
            start, stop = max(first, min(start, end - clock.ticks)), end
        if stop > covered:
            covered, ticks = stop, stop - start
            wave = sound[(start - first) * per_tick : (stop - first) * per_tick]
            given = None if quiet(wave, clock.rate) else np.pad(wave, (0, ticks * per_tick - len(wave)))
            tracks = [t for t in tracker.window(start, stop) if t.seen.sum() >= SHORTEST_TICKS][:MOST_FACES]
            order = rows[start - first : stop - first]
            order = np.pad(order, ((0, ticks - len(order)), (0, 0)), constant_values=np.nan)
            yield start, tracks, given, ticks, order
        if last:
            return
        tracker.forget(start)
        sound, rows, first = sound[(start - first) * per_tick :], rows[start - first :], start
        start += clock.ticks - clock.overlap


def move(batch: Any, device: torch.device) -> Any:
    """A tensor, or a NamedTuple of tensors, to a device."""
    if batch is None or isinstance(batch, torch.Tensor):
        return batch if batch is None else batch.to(device)
    return type(batch)(*(move(item, device) for item in batch))


def _segments(
    ranked: npt.NDArray[np.float64], threshold: float, fps: float, duration: float, modality: Modality
) -> list[Segment]:
    """The proposals (k, 3) in ticks at or above a threshold as segments; what overlaps a stronger one is dropped."""
    kept: list[Segment] = []
    for score, begin, end in ranked:
        if score < threshold or len(kept) == MOST_SEGMENTS:
            break
        start, stop = max(0.0, begin / fps), min(duration, end / fps)
        if stop > start and all(stop <= other.start or other.end <= start for other in kept):
            kept.append(Segment(float(start), float(stop), float(score), modality))
    return kept


_PLURAL = {"image": "photos", "clip": "video and sound"}


def load(name: str | os.PathLike[str] = "default", device: str = "cpu") -> Session:
    """A session with the weights of a catalogue name or of a ``.safetensors`` file."""
    return Session(name, device)


def detect(source: Source, model: str | os.PathLike[str] = "default", device: str = "cpu") -> Report:
    """Scan one photo or clip. For more than one, keep a session: ``session = seamline.load(); session(path)``.

    Raises:
        MediaError: the source cannot be read.
        WeightsError: the weights are unknown, damaged or of another kind.
    """
    return load(model, device)(source)


@dataclass(frozen=True, eq=False)
class Span:
    """One tile along one axis: pixels [start, stop) of the photo, seen by the network as ``padded`` pixels."""

    start: int
    stop: int
    padded: int
    weight: npt.NDArray[np.float32]  # (stop - start,) share of this tile in each of its pixels


def tiles(length: int, windowing: Windowing) -> list[Span]:
    """Cut an axis of ``length`` pixels into tiles of one size whose origins lie on the ``align`` grid.

    The last tile is shifted back to end within ``align`` pixels of the border. The weights ramp linearly across the
    overlaps and sum to one in every pixel.
    """
    side = math.ceil(windowing.side / windowing.multiple) * windowing.multiple
    if length <= side:
        padded = math.ceil(length / windowing.multiple) * windowing.multiple
        return [Span(0, length, padded, np.ones(length, np.float32))]
    stride = max(1, (side - windowing.overlap) // windowing.align) * windowing.align
    last = math.ceil((length - side) / windowing.align) * windowing.align
    starts = [*range(0, last, stride), last]
    steps = np.arange(side) + 0.5
    ramp = np.minimum(np.minimum(steps, steps[::-1]) / max(windowing.overlap, 1), 1.0)  # (side,)
    total = np.zeros(last + side)
    for start in starts:
        total[start : start + side] += ramp
    spans = []
    for start in starts:
        stop = min(start + side, length)
        weight = (ramp / total[start : start + side])[: stop - start]
        spans.append(Span(start, stop, side, weight.astype(np.float32)))
    return spans


def find_regions(
    heatmap: npt.NDArray[np.float32], threshold: float
) -> tuple[npt.NDArray[np.bool_], tuple[Region, ...], int]:
    """Connected areas of a heat map (H, W) at or above ``threshold``, specks left out.

    Returns:
        The mask (H, W) of all areas; the strongest of them by probability times area, at most ``MOST_REGIONS``; and
        how many there are.
    """
    hot = heatmap >= threshold
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hot.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    smallest = max(SPECK_PIXELS, SPECK_SHARE * heatmap.size)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False  # label 0 is the background
    regions = []
    for label in np.flatnonzero(keep):
        x, y, w, h, area = (int(value) for value in stats[label])
        inside = labels[y : y + h, x : x + w] == label
        probability = float(heatmap[y : y + h, x : x + w][inside].mean(dtype=np.float64))
        regions.append(Region((x, y, x + w, y + h), probability, area))
    regions.sort(key=lambda region: (-region.probability * region.area, region.box))
    return keep[labels] if count > 1 else hot, tuple(regions[:MOST_REGIONS]), len(regions)


def _peak(heatmap: npt.NDArray[np.float32]) -> float:
    """Log odds of the mean heat where it is hottest: in the hottest square of ``CELLS`` cells a side."""
    height, width = (max(1, n // CELL) for n in heatmap.shape)
    cells = cv2.resize(heatmap[: height * CELL, : width * CELL], (width, height), interpolation=cv2.INTER_AREA)
    hottest = float(cv2.blur(cells, (CELLS, CELLS), borderType=cv2.BORDER_CONSTANT).max())
    hottest = min(max(hottest, SURE), 1 - SURE)
    return math.log(hottest / (1 - hottest))


def _with_twins(
    regions: Sequence[Region], marked: Sequence[tuple[copies.Mask, copies.Mask]], size: tuple[int, int]
) -> tuple[Region, ...]:
    """The regions of a photo of that height and width, with a twin where one holds most of a marked copy."""

    def box(mask: copies.Mask) -> tuple[int, int, int, int]:
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        down, right = size[0] / mask.shape[0], size[1] / mask.shape[1]
        return int(xs[0] * right), int(ys[0] * down), math.ceil((xs[-1] + 1) * right), math.ceil((ys[-1] + 1) * down)

    pairs = [(box(one), box(other)) for one, other in marked if one.any() and other.any()]
    found = []
    for region in regions:
        x0, y0, x1, y1 = region.box
        for (left, top, right, bottom), other in pairs:
            shared = max(0, min(x1, right) - max(x0, left)) * max(0, min(y1, bottom) - max(y0, top))
            if 2 * shared >= (right - left) * (bottom - top):
                region = dataclasses.replace(region, twin=other)
                break
        found.append(region)
    return tuple(found)


def environment(device: torch.device) -> dict[str, str]:
    """What a result may depend on besides the file and the weights. Nothing that names a person or a machine."""
    return _versions() | {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": str(torch.get_num_threads()),
    }


@cache
def _versions() -> dict[str, str]:
    return {
        "seamline": _version("seamline"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": _version("pillow"),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a source tree that was never installed
        return "unknown"


def _device(name: str) -> torch.device:
    """``cpu``, ``cuda``, ``cuda:N`` or ``auto`` to a device that exists here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in BATCH_PIXELS:
        raise SeamlineError(f"unknown device {name!r}; use cpu, cuda or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SeamlineError(f"device {name!r} is not available here; use cpu or auto")
    return device


def _cut(rgb: npt.NDArray[np.uint8], row: Span, column: Span) -> npt.NDArray[np.uint8]:
    """One tile, padded by reflection at the bottom and right to its full size."""
    tile = rgb[row.start : row.stop, column.start : column.stop]
    below, right = row.padded - tile.shape[0], column.padded - tile.shape[1]
    return np.pad(tile, ((0, below), (0, right), (0, 0)), mode="reflect") if below or right else tile


def _array(heatmap: torch.Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = heatmap.detach().to("cpu", torch.float32).numpy()
    return array


def _familiar(card: zoo.Card) -> familiar.Familiarity | None:
    """What is familiar to weights, if it was fitted."""
    return familiar.Familiarity.from_dict(card.familiarity) if card.familiarity else None


def _operating_point(card: zoo.Card) -> OperatingPoint | None:
    """The operating point of the threshold in use, if it was measured."""
    return next((point for point in card.operating_points if point.threshold == card.threshold), None)


def weigh(evidence: Mapping[str, float], calibration: Mapping[str, float]) -> float:
    """The log odds that a calibration of a :class:`zoo.Card` makes of the evidence."""
    return sum(weight * (1.0 if name == "bias" else evidence[name]) for name, weight in calibration.items())


def _no_number(path: str) -> SeamlineError:
    return SeamlineError(f"{path}: the detector gave no number; its weights are damaged or do not suit it")


def _sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), which neither overflows nor needs a tensor."""
    return 0.5 * (1.0 + math.tanh(0.5 * value))
