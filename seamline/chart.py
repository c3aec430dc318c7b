"""Charts of lines, dots, bars and words that are written as SVG and as PNG from the same list of shapes.

A :class:`Sheet` is the paper, in pixels from its upper left corner; a :class:`Axes` is a frame on it that knows values.
The colours are those of ``draw.py``: safe for colour-blind readers (Okabe and Ito, 2008).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK, FAINT, GRID, PAPER = (28, 28, 30), (104, 104, 108), (226, 226, 229), (255, 255, 255)
FORGED, AUTHENTIC = (186, 73, 0), (0, 92, 150)
SERIES = ((0, 92, 150), (186, 73, 0), (0, 130, 95), (150, 70, 130), (150, 110, 0), (60, 60, 64))
TEXT = 13  # pixels, the size of most words
DENSITY = 2  # pixels of the PNG for each of the sheet
FINE = 2  # and how much finer it is drawn before it is shrunk
FONTS = "Helvetica Neue, Helvetica, Arial, Liberation Sans, sans-serif"


class Line(NamedTuple):
    """A line through points."""

    points: tuple[Point, ...]
    colour: Colour
    width: float
    dash: float  # length of dashes and gaps, 0 = unbroken


class Area(NamedTuple):
    """A filled polygon."""

    points: tuple[Point, ...]
    colour: Colour
    alpha: float


class Dot(NamedTuple):
    """A disc with a rim of paper, so that it stands out on a line; or a ring."""

    x: float
    y: float
    radius: float
    colour: Colour
    hollow: bool


class Words(NamedTuple):
    """One line of text; ``y`` is its baseline."""

    x: float
    y: float
    text: str
    size: float
    colour: Colour
    anchor: str  # start, middle or end


class Sheet:
    """Shapes on paper, in the order they were put there.

    Args:
        width: in pixels.
        height: in pixels.
        title: what it shows, also read out by screen readers.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.shapes: list[Line | Area | Dot | Words] = []

    def line(self, points: Sequence[Point], colour: Colour = INK, width: float = 1.0, dash: float = 0.0) -> None:
        """A line through points."""
        self.shapes.append(Line(tuple(points), colour, width, dash))

    def area(self, points: Sequence[Point], colour: Colour, alpha: float = 1.0) -> None:
        """A filled polygon; ``alpha`` 0 to 1."""
        self.shapes.append(Area(tuple(points), colour, alpha))

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, alpha: float = 1.0) -> None:
        """A filled rectangle."""
        self.area([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, alpha)

    def dot(self, x: float, y: float, colour: Colour, radius: float = 4.0, hollow: bool = False) -> None:
        """A disc, or a ring if ``hollow``."""
        self.shapes.append(Dot(x, y, radius, colour, hollow))

    def text(
        self, x: float, y: float, text: str, colour: Colour = INK, size: float = TEXT, anchor: str = "start"
    ) -> None:
        """A line of text from, around or up to ``x``, standing on ``y``."""
        self.shapes.append(Words(x, y, text, size, colour, anchor))

    def svg(self) -> str:
        """The sheet as an SVG document."""
        body = "\n".join(_drawn(shape) for shape in self.shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}"'
            f' height="{self.height}" role="img" font-family="{FONTS}">\n<title>{escape(self.title)}</title>\n'
            f'<rect width="{self.width}" height="{self.height}" fill="{_hex(PAPER)}"/>\n{body}\n</svg>\n'
        )

    def picture(self) -> Image.Image:
        """The sheet as a picture of ``DENSITY`` times its size."""
        scale = DENSITY * FINE
        picture = Image.new("RGB", (self.width * scale, self.height * scale), PAPER)
        for shape in self.shapes:
            if not isinstance(shape, Words):
                _paint(picture, shape, scale)
        picture = picture.resize((self.width * DENSITY, self.height * DENSITY), Image.Resampling.BOX)
        draw = ImageDraw.Draw(picture)
        for shape in self.shapes:
            if isinstance(shape, Words):
                anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
                at = shape.x * DENSITY, shape.y * DENSITY
                draw.text(at, shape.text, fill=shape.colour, font=_font(shape.size * DENSITY), anchor=anchor)
        return picture

    def write(self, stem: str | os.PathLike[str]) -> list[Path]:
        """Write ``STEM.svg`` and ``STEM.png``, each whole or not at all; their paths."""
        paths = [Path(f"{os.fspath(stem)}.{kind}") for kind in ("svg", "png")]
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        for path in paths:
            part = path.with_name(f".{path.name}.{os.getpid()}.part")
            try:
                if path.suffix == ".svg":
                    part.write_text(self.svg(), encoding="utf-8")
                else:
                    self.picture().save(part, format="PNG", optimize=True)
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
        return paths


@dataclass(frozen=True)
class Axes:
    """A frame on a sheet, from the values at its edges to pixels."""

    sheet: Sheet
    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float] = (0.0, 1.0)  # values at the left and the right edge
    y: tuple[float, float] = (0.0, 1.0)  # at the lower and the upper edge

    def at(self, x: float, y: float) -> Point:
        """Where values are, kept inside the frame."""
        share = [min(max((value - low) / (high - low), 0.0), 1.0) for value, (low, high) in ((x, self.x), (y, self.y))]
        return self.left + share[0] * self.width, self.top + (1 - share[1]) * self.height

    def grid(self, xs: Sequence[float], ys: Sequence[float], x_label: str, y_label: str, percent: str = "") -> None:
        """Ticks with their values, in per cent along the axes that ``percent`` names, and what the axes are."""
        sheet, bottom = self.sheet, self.top + self.height
        for value in ys:
            _, y = self.at(self.x[0], value)
            sheet.line([(self.left, y), (self.left + self.width, y)], GRID)
            sheet.text(self.left - 8, y + 4.5, number(value, "y" in percent), FAINT, anchor="end")
        for value in xs:
            x, _ = self.at(value, self.y[0])
            sheet.line([(x, self.top), (x, bottom)], GRID)
            sheet.text(x, bottom + 19, number(value, "x" in percent), FAINT, anchor="middle")
        sheet.line([(self.left, bottom), (self.left + self.width, bottom)], FAINT)
        sheet.text(self.left + self.width / 2, bottom + 40, x_label, anchor="middle")
        sheet.text(max(12.0, self.left - 34), self.top - 12, y_label)

    def line(
        self, points: Sequence[Sequence[float]], colour: Colour = INK, width: float = 2.0, dash: float = 0
    ) -> None:
        """A line through values."""
        self.sheet.line([self.at(point[0], point[1]) for point in points], colour, width, dash)

    def area(self, points: Sequence[Sequence[float]], colour: Colour, alpha: float) -> None:
        """An area between values."""
        self.sheet.area([self.at(point[0], point[1]) for point in points], colour, alpha)

    def dot(self, x: float, y: float, colour: Colour, radius: float = 4.0, hollow: bool = False) -> None:
        """A disc at values, or a ring."""
        self.sheet.dot(*self.at(x, y), colour, radius, hollow)

    def legend(self, entries: Sequence[tuple[str, Colour, bool]]) -> None:
        """Names with a stroke (dashed if so said) in their colour, below the frame, as many lines as they need.

        The sheet grows by the lines after the first.
        """
        x, y = self.left, self.top + self.height + 66
        for text, colour, dashed in entries:
            wide = 28 + length(text)
            if x > self.left and x + wide > self.left + self.width:
                x, y = self.left, y + 20
            self.sheet.line([(x, y - 4), (x + 20, y - 4)], colour, 2.0, 4.0 if dashed else 0.0)
            self.sheet.text(x + 28, y, text)
            x += wide + 22
        self.sheet.height = max(self.sheet.height, math.ceil(y + 16))


def number(value: float, percent: bool = False) -> str:
    """A value as a tick says it."""
    return f"{100 * value:g} %" if percent else f"{value:.4g}"


def steps(highest: float, most: int = 5) -> list[float]:
    """Round ticks from zero to ``highest`` or just above it, at most ``most`` steps apart."""
    highest = highest if highest > 0 else 1.0
    rough = highest / most
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(m * decade for m in (1, 2, 2.5, 5, 10) if m * decade >= rough * (1 - 1e-9))
    return [round(i * step, 10) for i in range(math.ceil(highest / step - 1e-9) + 1)]


def length(text: str, size: float = TEXT) -> float:
    """How many pixels wide a text is."""
    return float(_font(size * DENSITY).getlength(text)) / DENSITY


def fitted(text: str, room: float, size: float = TEXT) -> str:
    """A text, its end left out if it is wider than ``room`` pixels."""
    shown = text
    while len(text) > 1 and length(shown, size) > room:
        text = text[:-1]
        shown = f"{text.rstrip()}..."
    return shown


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _drawn(shape: Line | Area | Dot | Words) -> str:
    """One shape as an SVG element."""
    colour = _hex(shape.colour)
    if isinstance(shape, Line):
        dash = f' stroke-dasharray="{shape.dash:g}"' if shape.dash else ""
        return (
            f'<polyline points="{_points(shape.points)}" fill="none" stroke="{colour}" stroke-width="{shape.width:g}"'
            f' stroke-linejoin="round"{dash}/>'
        )
    if isinstance(shape, Area):
        opacity = f' fill-opacity="{shape.alpha:g}"' if shape.alpha < 1 else ""
        return f'<polygon points="{_points(shape.points)}" fill="{colour}"{opacity}/>'
    if isinstance(shape, Dot):
        fill, rim = (_hex(PAPER), colour) if shape.hollow else (colour, _hex(PAPER))
        place = f'cx="{shape.x:.2f}" cy="{shape.y:.2f}" r="{shape.radius:g}"'
        return f'<circle {place} fill="{fill}" stroke="{rim}" stroke-width="1.5"/>'
    return (
        f'<text x="{shape.x:.2f}" y="{shape.y:.2f}" font-size="{shape.size:g}" fill="{colour}"'
        f' text-anchor="{shape.anchor}">{escape(shape.text)}</text>'
    )


def _paint(picture: Image.Image, shape: Line | Area | Dot, scale: int) -> None:
    """One shape on a picture that is ``scale`` times as large as the sheet."""
    draw = ImageDraw.Draw(picture)
    if isinstance(shape, Dot):
        rim, inside = (shape.colour, PAPER) if shape.hollow else (PAPER, shape.colour)
        for radius, colour in ((shape.radius + 0.75, rim), (shape.radius - 0.75, inside)):
            r = radius * scale
            draw.ellipse((shape.x * scale - r, shape.y * scale - r, shape.x * scale + r, shape.y * scale + r), colour)
        return
    points = [(x * scale, y * scale) for x, y in shape.points]
    if isinstance(shape, Area):
        if shape.alpha >= 1:
            draw.polygon(points, shape.colour)
            return
        mask = Image.new("L", picture.size, 0)
        ImageDraw.Draw(mask).polygon(points, round(255 * shape.alpha))
        picture.paste(shape.colour, mask=mask)
        return
    width = max(1, round(shape.width * scale))
    for piece in _dashes(points, shape.dash * scale) if shape.dash else [points]:
        draw.line(piece, shape.colour, width, joint="curve")


def _dashes(points: Sequence[Point], dash: float) -> list[list[Point]]:
    """A line through points cut into dashes as long as the gaps between them."""
    pieces: list[list[Point]] = []
    along = 0.0  # how far the line has come
    for (x0, y0), (x1, y1) in pairwise(points):
        span, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while done < span - 1e-9:
            left = dash - along % dash
            stop = min(span, done + (left if left > 1e-6 else dash))
            ends = [(x0 + (x1 - x0) * t / span, y0 + (y1 - y0) * t / span) for t in (done, stop)]
            if math.floor(along / dash + 1e-9) % 2 == 0:
                joined = bool(pieces) and math.dist(pieces[-1][-1], ends[0]) < 1e-6
                if joined:
                    pieces[-1].append(ends[1])
                else:
                    pieces.append(ends)
            along += stop - done
            done = stop
    return pieces
