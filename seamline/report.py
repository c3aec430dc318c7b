"""The one result type, which is also the truth type.

A :class:`Report` is what detectors give, data sets carry, the synthesiser emits, metrics compare and every
interface shows. Units are fixed at this border: time is seconds, an interval is half-open, pixels are RGB,
a mask's 1 means forged, a score is the probability of forgery.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import MISSING, dataclass, field
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from .errors import DataError

SCHEMA = "seamline.report/1"

Verdict = Literal["forged", "authentic", "inconclusive", "not_applicable", "error"]
Modality = Literal["image", "video", "audio", "audio_visual"]
VERDICTS: tuple[Verdict, ...] = ("forged", "authentic", "inconclusive", "not_applicable", "error")


@dataclass(frozen=True)
class Media:
    """What the file was: facts read from it, none of them guessed.

    ``sha256`` and ``bytes`` describe the file as read from disk; ``width`` and ``height`` the picture as
    shown, after EXIF orientation. A fact that does not apply is ``None``.
    """

    path: str
    sha256: str | None = None
    bytes: int | None = None
    kind: Literal["image", "video", "audio"] | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None  # seconds
    fps: float | None = None  # frames per second, on average
    sample_rate: int | None = None  # of the sound, hertz
    channels: int | None = None  # of the sound


@dataclass(frozen=True)
class Region:
    """A forged area of a picture: half-open pixel box, mean probability inside, area in pixels.

    ``twin`` is the box of another area of the picture that shows the same, turned or rescaled perhaps: one of the two
    was copied from the other.
    """

    box: tuple[int, int, int, int]  # x0, y0, x1, y1
    probability: float
    area: int
    twin: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Segment:
    """A forged span of time, half-open, in seconds."""

    start: float
    end: float
    probability: float
    modality: Modality = "audio_visual"


@dataclass(frozen=True)
class Artifacts:
    """Paths of the pictures written beside the report, or ``None``."""

    mask: str | None = None
    heatmap: str | None = None
    overlay: str | None = None
    timeline: str | None = None


@dataclass(frozen=True)
class Model:
    """Which weights spoke."""

    name: str
    version: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Reason:
    """Why there is no verdict: a code that stays the same between versions, and words for a reader."""

    code: str
    words: str


@dataclass(frozen=True)
class OperatingPoint:
    """How often weights err at a threshold, on files that neither trained them nor set it. Shares are in [0, 1]."""

    threshold: float
    false_alarms: float  # of the authentic files, called forged
    low: float  # ends of the 95 % interval of false_alarms
    high: float
    detected: float  # of the forged files, called forged
    missed: float  # of the forged files, called authentic
    authentic: int  # files that this rests on
    forged: int


@dataclass(frozen=True, eq=False)
class Report:
    """A result, or a truth, about one media file.

    ``mask`` (H, W) bool and ``heatmap`` (H, W) float32 in [0, 1] live in memory only; in JSON they are the
    files that ``artifacts`` names. A truth has ``probability`` 1.0 or 0.0 and no ``model``.

    Of a photo: ``evidence`` is what the probability was computed from, by name (``zoo.EVIDENCE``).

    Of a video or a sound: ``segments`` are what the verdict rests on; ``proposals`` all candidates that were asked for,
    ranked, each (score, start, end) with the score in [0, 1] and times in seconds; ``modalities`` the probability of
    forgery of each modality that was judged; ``streams`` what became of ``video`` and ``audio``: ``"scored"``,
    ``"absent"``, or why a stream that is there could not be judged. ``curves`` (in memory only) holds per modality the
    probability of forgery of every tick of the detector's clock.
    """

    media: Media
    verdict: Verdict
    probability: float | None = None
    threshold: float | None = None
    reasons: tuple[Reason, ...] = ()
    operating_point: OperatingPoint | None = None
    regions: tuple[Region, ...] = ()
    segments: tuple[Segment, ...] = ()
    proposals: tuple[tuple[float, float, float], ...] = ()
    evidence: dict[str, float] = field(default_factory=dict)
    modalities: dict[str, float] = field(default_factory=dict)
    streams: dict[str, str] = field(default_factory=dict)
    artifacts: Artifacts = field(default_factory=Artifacts)
    model: Model | None = None
    environment: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: str | None = None
    mask: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    heatmap: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    curves: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict, repr=False)

    @property
    def forged(self) -> bool:
        """Whether the verdict is ``forged``."""
        return self.verdict == "forged"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form as a dict: ``schema`` first, arrays left out, key order fixed."""
        body = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if (Report, f.name) not in _IN_MEMORY}
        return {"schema": SCHEMA} | {key: _plain(value) for key, value in body.items()}

    def to_json(self, *, indent: int | None = None) -> str:
        """The JSON form as text, one line unless ``indent`` is given.

        The text can always be written as UTF-8: bytes of a file name that are not, are escaped.

        Raises:
            ValueError: a figure is nan or infinite, which JSON cannot say.
        """
        text = json.dumps(self.to_dict(), ensure_ascii=False, indent=indent, allow_nan=False)
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """Read the JSON form back.

        Raises:
            DataError: the schema is another one, or a field is missing, unknown or of the wrong type.
        """
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise DataError(f"not a {SCHEMA} report: schema is {found!r}")
        return cast("Report", _read(cls, {key: value for key, value in data.items() if key != "schema"}, "report"))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read the text that :meth:`to_json` wrote.

        Raises:
            DataError: the text is not JSON, or not a report.
        """
        try:
            data = json.loads(text, parse_constant=_refuse)
        except ValueError as cause:
            raise DataError(f"not JSON: {cause}") from cause
        except RecursionError as cause:
            raise DataError("not a report: nested too deeply") from cause
        return cls.from_dict(cast("dict[str, Any]", data))


_IN_MEMORY = {(Report, "mask"), (Report, "heatmap"), (Report, "curves")}  # fields that JSON leaves out


def _plain(value: Any) -> Any:
    """Dataclasses to dicts, tuples to lists and numpy numbers to Python's; plain values pass."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _read(kind: Any, value: Any, where: str) -> Any:
    """A plain value to what the annotation ``kind`` asks for; the inverse of :func:`_plain`, checked."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # X | None, the only union here
        return None if value is None else _read(args[0], value, where)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = {name: hint for name, hint in get_type_hints(kind).items() if (kind, name) not in _IN_MEMORY}
        if unknown := value.keys() - hints.keys():
            raise DataError(f"damaged {SCHEMA} report: {where} has unknown fields {sorted(map(str, unknown))}")
        needed = [f.name for f in dataclasses.fields(kind) if f.default is MISSING and f.default_factory is MISSING]
        if missing := [name for name in needed if name not in value]:
            raise DataError(f"damaged {SCHEMA} report: {where} lacks {missing}")
        return cast("type", kind)(**{name: _read(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    if origin is tuple and isinstance(value, list):
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            return tuple(_read(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict and isinstance(value, dict):
        return {_read(args[0], k, where): _read(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if (origin is Literal and value in args) or (kind in (int, str) and type(value) is kind):
        return value
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:  # not nan, inf or 1e999
        return float(value)
    expected = " | ".join(map(repr, args)) if origin is Literal else getattr(kind, "__name__", str(kind))
    raise DataError(f"damaged {SCHEMA} report: {where} is {value!r:.80}, not {expected}")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")
