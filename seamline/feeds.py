"""What training feeds a detector with, and how a moment of training is examined: one feed for each medium.

A feed turns a sample into one example (every draw from the generator it is given), examples into the network's input
and targets, and held-out samples into scores. ``train.py`` knows no medium.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .cues import coloured
from .data import Sample
from .data.augment import Mask, Pixels, crop, turn
from .data.clips import STORE, prepare
from .detectors.base import ClipDetector, ClipTruth, ClipWindow, Detector, ImageDetector
from .errors import DataError
from .metrics.detection import roc_auc
from .metrics.image import Confusion, confusion, mean_figure
from .metrics.temporal import average_precision, average_recall, union
from .pace import Rows, repeated, slower
from .pipeline import move
from .synthesis.image import jpeg
from .synthesis.speech import resample
from .windows import Clock

Faces = npt.NDArray[np.uint8]  # (n, S, S, 3), or one of them


class Feed(ABC):
    """Examples, batches and scores for one detector."""

    scores: ClassVar[tuple[str, ...]]  # of an examination; their mean is reported too
    modalities: ClassVar[tuple[str, ...]] = ()  # of which a stage of training may be given some only

    def ready(  # noqa: B027  most media need nothing
        self, samples: Sequence[Sample], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        """Do once what every example would otherwise wait for; ``progress`` is told how many are done, of how many."""

    @abstractmethod
    def example(self, sample: Sample, rng: np.random.Generator) -> Any:
        """One training example of a sample."""

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> tuple[Any, Any]:
        """Examples to the network's input and its targets."""

    @abstractmethod
    def examine(self, detector: Any, samples: Sequence[Sample], batch: int, seed: int) -> dict[str, float]:
        """The scores of a network on held-out samples, always seen the same way.

        It judges windows, quickly, to compare moments of one run; what a model is worth on whole files is for
        :mod:`seamline.evaluate` to say.
        """


def feed(detector: Detector, crop: int, near: float, root: Path, given: tuple[str, ...] = ()) -> Feed:
    """The feed of a detector.

    Args:
        detector: whose windows and targets they are.
        crop: side of a window of a photo, pixels, or length of one of a clip, ticks.
        near: chance that a window is put on a forgery.
        root: folder of the data.
        given: modalities of a clip; empty: all that are there.
    """
    if isinstance(detector, ImageDetector):
        return Photos(detector, None if detector.windowing.whole else crop, near)
    if isinstance(detector, ClipDetector):
        return Clips(detector, min(crop, detector.clock.ticks), near, root / STORE, given or Clips.modalities)
    raise DataError(f"no feed for a {type(detector).__name__}")


@dataclass(frozen=True)
class Photos(Feed):
    """Windows of photos, turned and cropped on the JPEG grid."""

    scores: ClassVar[tuple[str, ...]] = ("auc", "f1", "iou")
    detector: ImageDetector
    side: int | None  # pixels; None: the photo whole
    near: float

    def example(self, sample: Sample, rng: np.random.Generator) -> tuple[Pixels, Mask | None]:
        """A window and its mask."""
        rgb, mask = sample.load()
        if self.side is not None:
            rgb, mask = crop(rgb, mask, self.side, rng, near=self.near)
        return turn(rgb, mask, rng)

    def collate(self, items: Sequence[tuple[Pixels, Mask | None]]) -> tuple[Tensor, Any]:
        """To pixels (B, 3, h, w) and targets."""
        pixels = torch.stack([self.detector.preprocess(rgb) for rgb, _ in items])
        return pixels, self.detector.targets([mask for _, mask in items])

    @torch.no_grad()
    def examine(self, detector: ImageDetector, samples: Sequence[Sample], batch: int, seed: int) -> dict[str, float]:
        """Image ``auc``; ``f1`` and ``iou`` of forged pixels, mean over forged windows."""
        device = next(detector.parameters()).device
        forged: list[bool] = []
        logits: list[float] = []
        counts: list[Confusion] = []
        for first in range(0, len(samples), batch):
            items = [self._window(s, (seed, 2, first + i)) for i, s in enumerate(samples[first : first + batch])]
            pixels = torch.stack([detector.preprocess(rgb) for rgb, _ in items]).to(device)
            sizes = [(int(rgb.shape[0]), int(rgb.shape[1])) for rgb, _ in items]
            for finding, (_, mask) in zip(detector.postprocess(detector(pixels), sizes), items, strict=True):
                forged.append(mask is not None)
                logits.append(float(finding.logit))
                if mask is not None:
                    counts.append(confusion(finding.heatmap.cpu().numpy() >= 0.5, mask >= 0.5))
        return {"auc": roc_auc(logits, forged), "f1": mean_figure(counts, "f1"), "iou": mean_figure(counts, "iou")}

    def _window(self, sample: Sample, key: tuple[int, ...]) -> tuple[Pixels, Mask | None]:
        rgb, mask = sample.load()
        return (rgb, mask) if self.side is None else crop(rgb, mask, self.side, np.random.default_rng(key), near=1.0)


@dataclass(frozen=True)
class Clips(Feed):
    """Windows of clips: one face, the sound, and the forged spans of each."""

    scores: ClassVar[tuple[str, ...]] = ("auc", "ap", "ar")
    modalities: ClassVar[tuple[str, ...]] = ("video", "pace", "audio")
    detector: ClipDetector
    ticks: int
    near: float
    store: Path  # where decoded clips are kept
    given: tuple[str, ...] = modalities
    blind: float = 0.3  # chance that a window is given without its faces, but with the pace of its pictures
    alone: float = 0.1  # chance that a window is given without its sound, and the same without its faces

    def ready(self, samples: Sequence[Sample], progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Decode every clip and find its faces, on all cores."""
        job = partial(_prepared, clock=self.detector.clock, store=self.store)
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            for done, _ in enumerate(pool.map(job, samples, chunksize=4), 1):
                progress(done, len(samples))

    def example(self, sample: Sample, rng: np.random.Generator) -> tuple[ClipWindow, ClipTruth]:
        """A window of at most ``ticks``, seen and heard as by another camera and microphone, sometimes of one modality.

        Where only sound is given, half of the windows are played up to 12 % faster or slower: other voices. What is
        changed is changed alike over the whole window, so that it can't be taken for a seam.
        """
        clip = prepare(sample, self.detector.clock, self.store)
        told = "cues" in self.detector.uses  # which know no voices, and are not measured again
        other = self.given == ("audio",) and not told and rng.random() < 0.5
        speed = math.exp(rng.uniform(-0.12, 0.12)) if other else 1.0
        start = 0
        length = min(round(self.ticks * speed), clip.ticks)
        spare = clip.ticks - length
        if spare > 0:
            start = int(rng.integers(spare + 1))
            spans = [s for name in self.given for s in getattr(clip.truth, "video" if name == "pace" else name)]
            if spans and rng.random() < self.near:
                s, e = spans[int(rng.integers(len(spans)))]
                low, high = max(0, math.floor(e) - length), min(spare, math.ceil(s))
                start = int(rng.integers(min(low, high), max(low, high) + 1))
        window, truth = clip.window(start, start + length, self.detector.clock)
        faces = window.faces if "video" in self.given else None
        pace = window.pace if {"video", "pace"} & {*self.given} else None
        seen = window.seen if faces is not None or pace is not None else None
        sound = window.sound if "audio" in self.given else None
        if faces is not None and rng.random() < 0.5:
            faces = np.ascontiguousarray(faces[:, :, ::-1])
        if faces is not None and rng.random() < 0.5:
            faces = _exposed(faces, rng.uniform(0.7, 1.3), rng.uniform(0.8, 1.25))
        if faces is not None:
            faces = _filmed(faces, rng)
        ticks, heard = window.ticks, None
        if sound is not None and told and window.cues is not None:  # the sound itself is not listened to
            heard = coloured(window.cues, rng)
        elif sound is not None:
            if speed != 1:
                ticks = max(1, min(round(length / speed), self.ticks))
                sound = resample(sound, ticks * len(sound) // length).astype(np.float32)
                truth = ClipTruth((), tuple((s * ticks / length, e * ticks / length) for s, e in truth.audio))
            if rng.random() < 0.7:
                sound = _coloured(sound, rng.uniform(-9, 9, 8))
            sound = np.clip(sound * np.float32(10 ** rng.uniform(-0.5, 0.3)), -1, 1)
        if pace is not None:
            pace = _paced(pace, rng)
        draw = rng.random()
        if seen is not None and sound is not None:
            if draw < self.alone:
                sound = heard = None
            elif draw > 1 - self.alone:
                faces = seen = pace = None
        if faces is not None and pace is not None:
            draw = rng.random()
            if draw < self.blind and "pace" in self.detector.uses:
                faces = None
            elif draw > 0.9:
                pace = None
        return ClipWindow(faces, seen, sound, ticks, pace, heard), visible(truth, seen is not None, sound is not None)

    def collate(self, items: Sequence[tuple[ClipWindow, ClipTruth]]) -> tuple[Any, Any]:
        """To a padded batch and targets."""
        batch = self.detector.collate([self.detector.preprocess(window) for window, _ in items])
        return batch, self.detector.targets([truth for _, truth in items], [window.ticks for window, _ in items])

    @torch.no_grad()
    def examine(self, detector: ClipDetector, samples: Sequence[Sample], batch: int, seed: int) -> dict[str, float]:
        """``auc`` of clips; ``ap`` at IoU .5 and ``ar`` at 10 proposals, both modalities taken together."""
        device = next(detector.parameters()).device
        forged: list[bool] = []
        logits: list[float] = []
        found: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        truths: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        for first in range(0, len(samples), batch):
            items = []
            for sample in samples[first : first + batch]:
                clip = prepare(sample, detector.clock, self.store)
                window, truth = clip.window(0, min(clip.ticks, detector.clock.ticks), detector.clock)
                items.append((window, visible(truth, window.faces is not None, window.sound is not None)))
            inputs = move(detector.collate([detector.preprocess(window) for window, _ in items]), device)
            findings = detector.postprocess(detector(inputs), [window.ticks for window, _ in items])
            for finding, (_, truth) in zip(findings, items, strict=True):
                if not finding.logits:
                    continue
                key = "audio_visual" if "audio_visual" in finding.logits else next(iter(finding.logits))
                forged.append(bool(truth.video or truth.audio))
                logits.append(finding.logits[key])
                found.append(finding.proposals[key])
                truths.append(union(truth.video + truth.audio))
        ap, ar = average_precision(found, truths, [0.5])[0.5], average_recall(found, truths, [10])[10]
        return {"auc": roc_auc(logits, forged), "ap": ap, "ar": ar}


def _prepared(sample: Sample, clock: Clock, store: Path) -> None:
    """In a process of its own: nothing but the store is wanted of it."""
    prepare(sample, clock, store)


def _exposed(faces: Faces, contrast: float, gamma: float) -> Faces:
    """Faces (n, S, S, 3) uint8 with another contrast about mid grey and another gamma."""
    grey = np.linspace(0, 1, 256)
    curve = np.clip(0.5 + contrast * (grey**gamma - 0.5), 0, 1)
    table: Faces = np.rint(255 * curve).astype(np.uint8)
    return table[faces]


def _filmed(faces: Faces, rng: np.random.Generator) -> Faces:
    """Faces (n, S, S, 3) uint8 as by another camera at another distance: moved, coarser, tinted, grainy, compressed.

    Place and light may drift while the film runs, slowly, as for somebody who moves or drives: that is no seam.
    """
    n, side = faces.shape[:2]
    steps: list[Callable[[Faces, int], Any]] = []  # of one face, and its tick
    if rng.random() < 0.7:
        steps.append(_moved(n, side, rng))
    if rng.random() < 0.4:
        steps.append(_lit(n, side, rng))
    if rng.random() < 0.5:
        small = (int(rng.integers(side // 2 + 4, side)),) * 2
        steps.append(lambda face, _: cv2.resize(face, small, interpolation=cv2.INTER_AREA))
        steps.append(lambda face, _: cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC))
    if rng.random() < 0.5:
        tint = np.clip(np.arange(256)[:, None] * rng.uniform(0.85, 1.15, 3), 0, 255).astype(np.uint8)[None]
        steps.append(lambda face, _: cv2.LUT(face, tint))
    if rng.random() < 0.35:
        grain = rng.normal(0, rng.uniform(1, 6), (8, side, side, 3))

        def grainy(face: Faces, _: int) -> Faces:
            shifted = np.roll(grain[rng.integers(8)], rng.integers(0, side, 2), (0, 1))
            seen: Faces = np.clip(face + shifted, 0, 255).astype(np.uint8)
            return seen

        steps.append(grainy)
    if rng.random() < 0.35:
        quality = int(rng.integers(35, 92))
        steps.append(lambda face, _: jpeg(face, quality))
    changed: list[Faces] = [reduce(lambda face, step: step(face, k), steps, face) for k, face in enumerate(faces)]
    return np.stack(changed)


def _drift(n: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(n,) a curve that turns every 12 to 60 ticks, about zero and of about unit spread, without a step."""
    every = int(rng.integers(12, 61))
    knots = rng.standard_normal(n // every + 3)
    at = np.arange(n) / every + rng.random()
    k, part = at.astype(np.int64), (1 - np.cos(np.pi * (at % 1))) / 2
    return np.asarray((1 - part) * knots[k] + part * knots[k + 1])


def _moved(n: int, side: int, rng: np.random.Generator) -> Callable[[Faces, int], Faces]:
    """A face that is held askew, near and aside, in half of the films more or less so as time goes on, and that turns.

    What turns to the side or nods moves in the middle of the crop and not at its edges.
    """
    usual = np.array([rng.uniform(-7, 7) * np.pi / 180, rng.uniform(-0.13, 0.13), *rng.uniform(-0.12, 0.12, 2), 0, 0])
    most = np.array([0.05, 0.04, 0.04, 0.04, 0.08, 0.05]) * rng.uniform(0, 1, 6) * (rng.random() < 0.5)
    places = usual + most * np.stack([_drift(n, rng) for _ in range(6)], 1)
    at = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    x, y = at[None], at[:, None]

    def moved(face: Faces, tick: int) -> Faces:
        angle, zoom, right, down, turn, nod = places[tick]
        cos, sin = math.cos(angle) * math.exp(-zoom), math.sin(angle) * math.exp(-zoom)
        u = cos * x + sin * y - right
        v = cos * y - sin * x - down
        u = u + turn * np.clip(1 - u * u, 0, 1)
        v = v + nod * np.clip(1 - v * v, 0, 1)
        across, along = (np.asarray(((1 + w) * side - 1) / 2, np.float32) for w in (u, v))
        seen = cv2.remap(face, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(seen, np.uint8)

    return moved


def _lit(n: int, side: int, rng: np.random.Generator) -> Callable[[Faces, int], Faces]:
    """Light that grows and falls, more on one side of a face than on the other: what a step of ``_filmed`` is."""
    angle = rng.uniform(0, 2 * np.pi)
    across = np.linspace(-1, 1, side)
    slope = (np.cos(angle) * across[None] + np.sin(angle) * across[:, None])[..., None]  # (S, S, 1)
    whole = rng.uniform(0, 0.15) * _drift(n, rng)
    aside = rng.uniform(0, 0.15) * _drift(n, rng)

    def lit(face: Faces, tick: int) -> Faces:
        gain = np.exp((whole[tick] + aside[tick] * slope).astype(np.float32))
        seen: Faces = np.clip(face * gain, 0, 255).astype(np.uint8)
        return seen

    return lit


def _paced(rows: Rows, rng: np.random.Generator) -> Rows:
    """Rows (n, LAGS) as of a file of fewer pictures: it says so, or codes pictures again, in step or now and then."""
    draw = rng.random()
    if draw < 0.15:
        return slower(rows, rng.uniform(0.3, 1.0), rng.random())
    if draw > 0.5:
        return rows
    ticks = np.arange(-1, len(rows))
    if draw < 0.4:
        share = rng.choice((24 / 25, 0.8, 0.6, 0.5, rng.uniform(0.4, 1.0)))
        new = np.diff(np.floor(ticks * share + rng.random())) > 0
    else:
        new = rng.random(len(rows)) > rng.uniform(0.01, 0.12)
    rest = 10 ** rng.uniform(-4, -0.5) * rng.exponential(size=rows.shape)
    return repeated(rows, new, rest.astype(np.float32))


def _coloured(sound: np.ndarray[Any, np.dtype[np.float32]], decibels: Any) -> Any:
    """Sound (samples,) as through another microphone: gains at evenly spaced frequencies, smooth between them."""
    spectrum = np.fft.rfft(sound)
    at = np.linspace(0, 1, len(decibels))
    gain = 10 ** (np.interp(np.linspace(0, 1, len(spectrum)), at, decibels) / 20)
    return np.fft.irfft(spectrum * gain, len(sound)).astype(np.float32)


def visible(truth: ClipTruth, faces: bool, sound: bool) -> ClipTruth:
    """The truth about what is given: of an absent modality nothing can be said."""
    return ClipTruth(truth.video if faces else (), truth.audio if sound else ())
