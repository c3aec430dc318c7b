"""From a photo to a Report: windows, batches, merging, calibration, verdict, regions.

A detector sees one window of pixels; here is the only place that knows how large the photo was. A photo larger
than the detector's window is cut into native tiles whose origins lie on the JPEG grid, and their heat maps are
merged with weights that ramp linearly across the overlap and sum to one in every pixel.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from . import draw, zoo
from .detectors.base import Finding, ImageDetector, Windowing
from .errors import SeamlineError
from .media import Image, open_media
from .report import Media, Model, Region, Report

Source = str | os.PathLike[str] | bytes | npt.NDArray[Any] | Image

SMALLEST_SIDE = 64  # pixels; a smaller picture holds too few traces to judge
EVEN = 0.5  # probability from which forged is likelier than not
SPECK_PIXELS = 64  # a smaller connected area is no region ...
SPECK_SHARE = 1e-4  # ... nor is one that covers less than this share of the photo
MOST_REGIONS = 20  # listed in a report; the mask holds all
BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**24}  # in windows of one pass; more costs memory and gains no time on a CPU


class Session:
    """Weights in memory, ready to scan any number of photos.

    Args:
        model: a catalogue name, the path of a ``.safetensors`` file, or a detector (scanned with an uncalibrated
            threshold of 0.5 unless ``card`` says otherwise).
        device: ``cpu``, ``cuda`` or ``auto`` (CUDA where there is one).
        batch: windows per pass; by default as many as gain time on the device.
        card: what is known about a detector that is given as an object.

    Raises:
        WeightsError: the weights are unknown, damaged or of another kind.
        SeamlineError: the device does not exist here.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | ImageDetector = "default",
        device: str = "cpu",
        batch: int | None = None,
        card: zoo.Card | None = None,
    ) -> None:
        self.device = _device(device)
        self.detector: ImageDetector
        self.card: zoo.Card
        if isinstance(model, ImageDetector):
            self.detector = model.to(self.device).eval()
            self.card = card or zoo.Card(name=type(model).__name__.lower(), detector=type(model).__name__.lower())
        else:
            self.detector, self.card = zoo.load_detector(model, str(self.device))
        self.batch = batch

    def __call__(self, source: Source) -> Report:
        """Scan one photo: a path, the bytes of a file, an (H, W, 3) uint8 RGB array or an opened ``Image``.

        Forged is what reaches the threshold. What is more likely forged than not, yet below it, is inconclusive: to
        call it either would promise too much. The heat map, (H, W) float32 in [0, 1], is always there. The mask and
        the regions are what a verdict of forged rests on: without it there are no regions and the mask is all zero.

        Raises:
            MediaError: the source cannot be read as a photo.
            SeamlineError: the detector gave no number.
        """
        image = source if isinstance(source, Image) else open_media(source)
        height, width = image.pixels.shape[:2]
        report = Report(
            media=Media(image.path, image.sha256, image.bytes, "image", image.format, width, height),
            verdict="not_applicable",
            threshold=self.card.threshold,
            model=Model(self.card.name, self.card.version, self.card.sha256),
            environment=environment(self.device),
            warnings=image.warnings,
        )
        if min(height, width) < SMALLEST_SIDE:
            note = f"too small to judge: {width} x {height}, at least {SMALLEST_SIDE} pixels a side are needed"
            return dataclasses.replace(report, warnings=(*report.warnings, note))

        logit, heatmap = self._look(image.pixels)
        if not math.isfinite(logit) or np.isnan(heatmap.sum()):
            raise SeamlineError(f"{image.path}: the detector gave no number; its weights are damaged or do not suit it")
        a, b = self.card.calibration
        probability = _sigmoid(a * logit + b)
        forged = probability >= self.card.threshold
        warnings = report.warnings
        regions: tuple[Region, ...] = ()
        mask = np.zeros((height, width), bool)
        if forged:
            mask, regions, count = find_regions(heatmap, self.card.mask_threshold)
            if count > len(regions):
                warnings = (*warnings, f"{count} areas stand out; the {len(regions)} strongest are listed")
            if not count:
                warnings = (*warnings, "the photo as a whole scores as forged, but no single area stands out")
        return dataclasses.replace(
            report,
            verdict="forged" if forged else "inconclusive" if probability >= EVEN else "authentic",
            probability=probability,
            regions=regions,
            warnings=warnings,
            mask=mask,
            heatmap=heatmap,
        )

    def scan(
        self, paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str] | None = None
    ) -> Iterator[Report]:
        """Scan files one after another; a report for each, whatever happens.

        A file that cannot be analysed gives a report with the verdict ``error`` and its cause in ``error``; the
        others are scanned all the same. With ``out``, the pictures of every photo are written to that folder and
        named in ``artifacts``; two photos with the same stem get different names, and no input is ever overwritten.
        """
        stems = draw.stems(paths, out) if out is not None else [""] * len(paths)
        for path, stem in zip(paths, stems, strict=True):
            yield self._scanned(path, out, stem)  # nothing of one photo is kept while the next is opened

    def _scanned(self, path: str | os.PathLike[str], out: str | os.PathLike[str] | None, stem: str) -> Report:
        """The report on one file, with its pictures written if ``out`` is given."""
        try:
            image = open_media(path)
            report = self(image)
            if out is None or report.heatmap is None:
                return report
            return dataclasses.replace(report, artifacts=draw.write(report, image.pixels, out, stem))
        except Exception as cause:
            return self._failed(path, cause)

    def _failed(self, path: str | os.PathLike[str], cause: Exception) -> Report:
        """The report on a file that could not be analysed. What we did not foresee is told with its type."""
        text = str(cause) if isinstance(cause, SeamlineError) else f"{type(cause).__name__}: {cause}"
        return Report(
            media=Media(os.fspath(path)),
            verdict="error",
            threshold=self.card.threshold,
            model=Model(self.card.name, self.card.version, self.card.sha256),
            environment=environment(self.device),
            error=text,
        )

    @torch.inference_mode()
    def _look(self, rgb: npt.NDArray[np.uint8]) -> tuple[float, npt.NDArray[np.float32]]:
        """The raw logit of a photo (H, W, 3) and its heat map (H, W), merged from all its windows."""
        windowing = self.detector.windowing
        height, width = rgb.shape[:2]
        if windowing.whole:
            finding = self._findings([rgb])[0]
            return self.detector.combine([finding]), _array(finding.heatmap)

        rows, columns = tiles(height, windowing), tiles(width, windowing)
        windows = [(row, column) for row in rows for column in columns]
        size = (rows[0].padded, columns[0].padded)
        batch = self.batch or max(1, BATCH_PIXELS[self.device.type] // (size[0] * size[1]))
        heatmap = np.zeros((height, width), np.float32)
        findings: list[Finding] = []
        for start in range(0, len(windows), batch):
            part = windows[start : start + batch]
            for (row, column), finding in zip(part, self._findings([_cut(rgb, r, c) for r, c in part]), strict=True):
                h, w = row.stop - row.start, column.stop - column.start
                tile = _array(finding.heatmap)[:h, :w]
                heatmap[row.start : row.stop, column.start : column.stop] += tile * row.weight[:, None] * column.weight
                # combine() lives on the evidence; to keep every tile's heat map would double the memory, so only its
                # size stays: one zero, seen (H, W) times.
                findings.append(finding._replace(heatmap=finding.heatmap.new_zeros(()).expand_as(finding.heatmap)))
        return self.detector.combine(findings), np.clip(heatmap, 0.0, 1.0, out=heatmap)

    def _findings(self, windows: list[npt.NDArray[np.uint8]]) -> list[Finding]:
        """One pass through the network; the windows are of one size."""
        pixels = torch.stack([self.detector.preprocess(window) for window in windows]).to(self.device)  # (B, 3, h, w)
        return self.detector.postprocess(self.detector(pixels), [(w.shape[0], w.shape[1]) for w in windows])


def load(name: str | os.PathLike[str] = "default", device: str = "cpu") -> Session:
    """A session with the weights of a catalogue name or of a ``.safetensors`` file."""
    return Session(name, device)


def detect(source: Source, model: str | os.PathLike[str] = "default", device: str = "cpu") -> Report:
    """Scan one photo. For more than one, keep a session: ``session = seamline.load(); session(path)``.

    Raises:
        MediaError: the source cannot be read as a photo.
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


def _sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), which neither overflows nor needs a tensor."""
    return 0.5 * (1.0 + math.tanh(0.5 * value))
