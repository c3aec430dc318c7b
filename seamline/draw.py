"""The pictures of a Report: a mask and a heat map to compute with, an overlay to look at.

The colours are safe for colour-blind readers: vermilion against blue for the verdict (Okabe and Ito, 2008), and the
``plasma`` scale for the heat, which also rises in brightness alone.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from .report import Artifacts, Region, Report

Pixels = npt.NDArray[np.uint8]

LONGEST = 2000  # pixels; the overlay of a larger photo is shrunk to this
SHORTEST = 640  # pixels; the overlay of a smaller photo is enlarged to about this, so that its text can be read
LONGEST_NAME = 180  # bytes of a stem, well inside what file systems allow

WORDS = {"forged": "FORGED", "authentic": "No forgery found", "inconclusive": "Inconclusive"}
BARS = {"forged": (186, 73, 0), "authentic": (0, 92, 150), "inconclusive": (84, 84, 84)}
INK, PAPER = (255, 255, 255), (28, 28, 30)


def stems(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> list[str]:
    """A name for the pictures of each input: its stem where that is its own, else its full name, else that and a hash.

    No two inputs share a name, and no picture falls on one of the inputs. The names depend on the list of inputs only.
    """
    files = [Path(path) for path in paths]
    inputs = {os.path.abspath(file) for file in files}
    claims = Counter(name for file in files for name in {file.stem.casefold(), file.name.casefold()})

    def free(name: str) -> bool:
        targets = {os.path.abspath(target) for target in _targets(out, name)}
        return claims[name.casefold()] == 1 and len(os.fsencode(name)) <= LONGEST_NAME and not targets & inputs

    def hashed(file: Path) -> str:
        short = os.fsencode(file.name)[: LONGEST_NAME - 9].decode("utf-8", "ignore")
        return f"{short}.{hashlib.sha256(os.fsencode(os.path.abspath(file))).hexdigest()[:8]}"

    return [next((name for name in (file.stem, file.name) if free(name)), hashed(file)) for file in files]


def write(report: Report, photo: Pixels, out: str | os.PathLike[str], stem: str) -> Artifacts:
    """Write ``STEM.mask.png``, ``STEM.heatmap.png`` and ``STEM.overlay.png``, each whole or not at all.

    Mask (0 or 255) and heat map (probability times 255) are 8-bit grey at the size of the photo, (H, W, 3) uint8
    RGB. The report must hold both in memory.
    """
    if report.mask is None or report.heatmap is None:
        raise ValueError("this report holds no mask and heat map")
    Path(out).mkdir(parents=True, exist_ok=True)
    mask, heatmap, drawn = _targets(out, stem)
    _save(report.mask.view(np.uint8) * np.uint8(255), mask)
    _save(_bytes(report.heatmap), heatmap)
    _save(overlay(report, photo), drawn)
    return Artifacts(str(mask), str(heatmap), str(drawn))


def overlay(report: Report, photo: Pixels) -> Pixels:
    """The photo with its verdict, for a person: (h, w, 3) uint8 RGB, about ``LONGEST`` pixels a side at most.

    A bar above the photo states the verdict. Forged areas keep their colour, tinted by the heat map, outlined and
    boxed with their probability, while the rest turns grey. A photo judged authentic is left as it is.
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


def _tinted(photo: Pixels, mask: npt.NDArray[np.bool_], heatmap: npt.NDArray[np.float32], line: int) -> Pixels:
    """The photo (h, w, 3) with the heat laid over it and the mask outlined."""
    size = photo.shape[1], photo.shape[0]
    heat = cv2.resize(_bytes(heatmap), size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    inside = cv2.resize(mask.view(np.uint8) * np.uint8(255), size, interpolation=cv2.INTER_AREA) >= 128

    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    rest = cv2.addWeighted(photo, 0.15, grey, 0.6, 20)
    base = np.where(inside[..., None], photo, rest).astype(np.float32)
    tint = _scale_colours(heat).astype(np.float32)
    alpha = np.clip(heat.astype(np.float32) / 255 - 0.2, 0, 0.8) * 0.3 + inside * 0.22
    mixed = (base + (tint - base) * alpha[..., None]).astype(np.uint8)

    outlines, _ = cv2.findContours(inside.view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mixed, outlines, -1, (0, 0, 0), 2 * line + 1, cv2.LINE_AA)
    cv2.drawContours(mixed, outlines, -1, (255, 221, 51), line, cv2.LINE_AA)
    return mixed


def _boxes(picture: Image.Image, regions: Sequence[Region], scale: float, unit: int) -> None:
    """A thin box and a label for every region; a label that finds no free place is left out."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(unit)
    line, pad = max(1, unit // 12), max(2, unit // 4)
    taken: list[tuple[int, int, int, int]] = []
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
    draw = ImageDraw.Draw(frame)
    draw.rectangle((0, 0, width, head - 1), fill=BARS.get(report.verdict, BARS["inconclusive"]))

    large, small = ImageFont.load_default(round(1.8 * unit)), ImageFont.load_default(unit)
    share = percent(report.probability)
    middle = pad + unit
    draw.text((pad, middle), WORDS.get(report.verdict, report.verdict), fill=INK, font=large, anchor="lm")
    draw.text((width - pad, middle), share, fill=INK, font=large, anchor="rm")
    count = len(report.regions)
    if report.forged:
        note = {0: "no single area stands out", 1: "1 area marked"}.get(count, f"{count} areas marked")
    else:
        note = f"below the threshold of {percent(report.threshold)}"
    below = head - pad - unit // 2
    draw.text((pad, below), note, fill=INK, font=small, anchor="lm")
    draw.text((width - pad, below), "probability of forgery", fill=INK, font=small, anchor="rm")

    if forged:
        top, middle = head + picture.height + pad, frame.height - (unit + 3 * pad) // 2
        draw.text((pad, middle), "each pixel:  not forged", fill=INK, font=small, anchor="lm")
        x0 = pad + round(draw.textlength("each pixel:  not forged", font=small)) + pad
        x1 = x0 + 7 * unit
        ramp = _scale_colours(np.tile(np.linspace(0, 255, x1 - x0).astype(np.uint8), (unit + pad, 1)))
        frame.paste(Image.fromarray(ramp), (x0, top))
        draw.text((x1 + pad, middle), "forged", fill=INK, font=small, anchor="lm")
    return frame


def percent(probability: float | None) -> str:
    """A probability for people: whole percent, never a rounded 0 or 100."""
    if probability is None:
        return "-"
    if probability < 0.01:
        return "<1 %"
    return ">99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def _scale_colours(values: Pixels) -> Pixels:
    """Values (h, w) uint8 to the colours of the heat scale, (h, w, 3) RGB."""
    return cv2.cvtColor(cv2.applyColorMap(values, cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _bytes(heatmap: npt.NDArray[np.float32]) -> Pixels:
    """Probabilities (H, W) to 0..255, rounded."""
    return cv2.convertScaleAbs(heatmap, alpha=255.0).astype(np.uint8, copy=False)


def _meet(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _targets(out: str | os.PathLike[str], stem: str) -> tuple[Path, Path, Path]:
    folder = Path(out)
    return folder / f"{stem}.mask.png", folder / f"{stem}.heatmap.png", folder / f"{stem}.overlay.png"


def _save(pixels: Pixels, path: Path) -> None:
    """Write a PNG beside its place, then move it there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        Image.fromarray(pixels).save(part, format="PNG", compress_level=3)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
