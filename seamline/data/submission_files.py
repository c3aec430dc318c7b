"""What submission files say: a zip, a folder or one file, and the text and JSON in it; faults by file and line."""

from __future__ import annotations

import io
import json
import math
import re
import stat
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL.Image

from ..errors import DataError
from .lavdf import SPLITS

Grade = Literal["unreadable", "refused", "doubtful"]
Span = tuple[float, float, float]  # confidence, start, end
Floats = npt.NDArray[np.float64]

TEXT, SPANS, MASKS = "prediction.txt", "prediction.json", "mask"
MOST_TEXT = 4 * 10**9  # bytes of a text or JSON file, unpacked: the limit of 1M-Deepfakes
MOST_MASK = 64 * 2**20  # bytes of one mask
MOST_PIXELS = 2**27  # of one mask
MOST_MEMBERS = 2_000_000  # of a zip
RATIO, FREE = 200, 2**26  # a text or JSON file larger than FREE bytes is not packed better than 1:RATIO
SPOKEN = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
NAMED = 20  # faults of one kind that are listed; the others are counted
NEVER = (0.0, 0.0, 0.01)  # a proposal that is never right, where an evaluator stops at a list that is too short
LAVDF_FPS, LAVDF_LEAST = 25.0, 100


@dataclass(frozen=True)
class Format:
    """What a protocol's submission consists of."""

    separator: str | None = None  # between name and score in prediction.txt
    masks: bool = False
    spans: bool = False
    either: bool = False  # prediction.txt or prediction.json will do
    single: Literal["", "lavdf", "activitynet", "tsv"] = ""  # one file instead of a zip
    kind: Literal["image", "video", "audio"] = "video"


FORMATS = {
    "ddl-track1": Format(",", masks=True, kind="image"),
    "ddl-track2": Format(",", spans=True),
    "1m-deepfakes": Format(";", spans=True, either=True),
    "lavdf": Format(single="lavdf", spans=True),
    "activitynet": Format(single="activitynet", spans=True),
    "asvspoof5": Format("\t", single="tsv", kind="audio"),
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a submission.

    ``grade``: ``unreadable``, so that nothing can be made of it; ``refused``, by the server, or misread by it;
    ``doubtful``: allowed, but hardly meant.
    """

    file: str
    line: int | None
    cause: str
    remedy: str
    grade: Grade = "refused"

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{where}: {self.cause}; {self.remedy}"


class Faults:
    """Faults as they are found, the first of each kind in full."""

    def __init__(self) -> None:
        self._found: dict[str, list[Fault]] = {}
        self._more: Counter[str] = Counter()

    def add(self, kind: str, file: str, line: int | None, cause: str, remedy: str, grade: Grade = "refused") -> None:
        """Add a fault; ``kind`` tells which are alike."""
        own = self._found.setdefault(kind, [])
        if len(own) < NAMED:
            own.append(Fault(file, line, cause, remedy, grade))
        else:
            self._more[kind] += 1

    def listed(self) -> list[Fault]:
        """All of them, those of one kind together, with one more for those that are only counted."""
        faults = []
        for kind, own in self._found.items():
            faults += own
            if self._more[kind]:
                last = own[-1]
                cause = f"and {self._more[kind]} more like the {len(own)} above"
                faults.append(Fault(last.file, None, cause, last.remedy, last.grade))
        return faults


@dataclass
class Parsed:
    """What the files say, by name in the order of the files."""

    scores: dict[str, tuple[float, int]]  # score and line
    spans: dict[str, Floats] | None  # (k, 3) confidence, start, end in seconds
    masks: dict[str, str]  # stem -> member
    lines: dict[str, int] = field(default_factory=dict)  # where the spans of a name begin
    spoiled: set[str] = field(default_factory=set)  # names in lines that could not be read
    scores_in: str = TEXT  # the file that they are from
    spans_in: str = SPANS


def format_of(protocol: str) -> Format:
    """The format of a protocol.

    Raises:
        DataError: it has none; the message lists those that have.
    """
    if protocol not in FORMATS:
        raise DataError(f"{protocol!r} has no submission files; those that have: {', '.join(FORMATS)}")
    return FORMATS[protocol]


def official_name(path: str, form: Format) -> str:
    """What a file is called in a submission: its name, for some without ending, of LAV-DF with its split."""
    own = PurePosixPath(path.replace("\\", "/"))
    if form.single in ("tsv", "activitynet"):
        return own.stem
    split = own.parent.name
    return f"{split}/{own.name}" if form.single == "lavdf" and split in SPLITS else own.name


# ------------------------------------------------------------------------------------------------- zip, folder or file


class Container:
    """The files of a submission by name, whatever holds them. ``faults`` are those of the holder."""

    def __init__(self, path: Path, members: dict[str, int], read: Callable[[str, int], bytes], lone: bool) -> None:
        self.path, self.members, self.lone = path, members, lone
        self._read = read
        self.faults = Faults()

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: it cannot be read, or is larger than ``most``.
        """
        if self.members[name] > most:
            raise DataError(f"{name}: {self.members[name]} bytes, where at most {most} are allowed")
        try:
            data = self._read(name, most)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError) as cause:
            raise DataError(f"{name}: cannot be read: {cause}") from cause
        except Exception as cause:  # zlib.error and lzma.LZMAError have no base of their own
            raise DataError(f"{name}: cannot be unpacked: {cause}") from cause
        if len(data) > most:
            raise DataError(f"{name}: more than {most} bytes unpacked")
        return data


def open_submission(path: Path) -> AbstractContextManager[Container]:
    """The submission at ``path``.

    Raises:
        DataError: there is nothing there, or it is no zip though its name ends so.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file or folder")
    if zipfile.is_zipfile(path):
        return _zip(path)
    if path.suffix.lower() == ".zip":
        raise DataError(f"{path}: the name ends in .zip, but it is not a zip")
    return _file(path)


@contextmanager
def _folder(path: Path) -> Iterator[Container]:
    members = {p.relative_to(path).as_posix(): p.stat().st_size for p in sorted(path.rglob("*")) if p.is_file()}
    yield _nested(Container(path, members, lambda name, most: _bytes(path / name, most), lone=False))


@contextmanager
def _file(path: Path) -> Iterator[Container]:
    yield Container(path, {path.name: path.stat().st_size}, lambda name, most: _bytes(path, most), lone=True)


def _bytes(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most + 1)


@contextmanager
def _zip(path: Path) -> Iterator[Container]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as cause:
        raise DataError(f"{path}: a damaged zip: {cause}") from cause
    with archive:

        def read(name: str, most: int) -> bytes:
            with archive.open(name) as file:
                return file.read(most + 1)

        members: dict[str, int] = {}
        box = Container(path, members, read, lone=False)
        infos = archive.infolist()
        if len(infos) > MOST_MEMBERS:
            raise DataError(f"{path}: {len(infos)} files in a zip, where at most {MOST_MEMBERS} are allowed")
        for info in infos:
            if not _bad_member(info, members, box.faults):
                members[info.filename] = info.file_size
        yield _nested(box)


def _bad_member(info: zipfile.ZipInfo, members: dict[str, int], faults: Faults) -> bool:
    """Whether a member is none that can be used; says why."""
    name = info.filename
    if info.is_dir():
        return True
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0] or "\\" in name:
        faults.add("traversal", name, None, "its path leads out of the folder", "zip with plain relative names")
    elif stat.S_ISLNK(info.external_attr >> 16):
        faults.add("link", name, None, "a link, not a file", "zip the file that it leads to")
    elif info.flag_bits & 1:
        faults.add("encrypted", name, None, "encrypted", "zip without a password", "unreadable")
    elif name in members:
        faults.add("twice", name, None, "is in the zip twice", "keep one of the two", "unreadable")
    elif info.file_size > FREE and info.file_size > RATIO * max(info.compress_size, 1):
        faults.add("bomb", name, None, f"unpacks to {info.file_size} bytes", "write it anew: no list is so uniform")
    else:
        return False
    return True


def _nested(box: Container) -> Container:
    """The box, with the one folder that all is in taken away, and said."""
    kept = {name: size for name, size in box.members.items() if not _litter(name)}
    for name in box.members.keys() - kept.keys():
        box.faults.add("litter", name, None, "a file of the operating system", "leave it out", "doubtful")
    tops = {name.split("/")[0] for name in kept}
    top = next(iter(tops)) if len(tops) == 1 else ""
    if top and top != MASKS and all("/" in name for name in kept):
        advice = "zip the files themselves, not the folder that holds them"
        box.faults.add("nested", f"{top}/", None, f"all files are in a folder {top}", advice)
        inner, read = {name[len(top) + 1 :]: size for name, size in kept.items()}, box._read
        shown = Container(box.path, inner, lambda name, most: read(f"{top}/{name}", most), lone=False)
        shown.faults = box.faults
        return shown
    box.members = kept
    return box


def _litter(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini")


# ------------------------------------------------------------------------------------------------------ what they say


def parse(box: Container, form: Format, faults: Faults) -> Parsed:
    """What the files say; what is wrong goes to ``faults``."""
    parsed = Parsed({}, None, {})
    if form.single or box.lone:
        _parse_single(box, form, parsed, faults)
        return parsed
    expected = {TEXT} | ({SPANS} if form.spans else set())
    for name in sorted(expected - box.members.keys()):
        if not form.either or not (expected & box.members.keys()):
            close = _alike(name, box.members)
            cause = f"is missing{f', but there is {close}' if close else ''}"
            faults.add("no file", name, None, cause, f"name it {name}" if close else "add it", "unreadable")
    if TEXT in box.members:
        _parse_text(box, TEXT, form, parsed, faults)
    if form.spans and SPANS in box.members:
        _parse_json(box, SPANS, form, parsed, faults)
    if form.masks:
        _list_masks(box, parsed, faults)
    for name in sorted({name.split("/")[0] for name in box.members.keys() - expected}):
        if not (form.masks and name.lower().startswith(MASKS)):
            faults.add("extra", name, None, "is no part of a submission", "leave it out", "doubtful")
    return parsed


def _parse_single(box: Container, form: Format, parsed: Parsed, faults: Faults) -> None:
    """One file: the whole submission, or one half of it."""
    if len(box.members) != 1:
        raise DataError(f"{box.path}: holds {len(box.members)} files, where one is expected; name it")
    name = parsed.scores_in = parsed.spans_in = next(iter(box.members))
    if form.masks:
        faults.add("no file", MASKS, None, "is missing: this is one file", "give the zip or the folder", "unreadable")
    if form.single == "tsv" or (form.separator and not name.lower().endswith(".json")):
        _parse_text(box, name, form, parsed, faults)
    elif form.spans:
        _parse_json(box, name, form, parsed, faults)
    if not form.single and not form.either:
        missing = SPANS if parsed.scores else TEXT
        faults.add("no file", missing, None, "is missing: this is one file", "give the zip or the folder", "unreadable")


def _alike(name: str, members: Iterable[str]) -> str | None:
    """A file that was probably meant."""
    stem, suffix = name.split(".")
    wanted = (f"{stem}s.{suffix}", f"{stem}{suffix}", f"{stem}.{suffix}.{suffix}")
    return next((m for m in members if m.lower() == name or m.split("/")[-1].lower() in (name, *wanted)), None)


def decoded(box: Container, name: str, faults: Faults) -> str | None:
    """The text of a file."""
    size = box.members[name]
    if size > MOST_TEXT:
        faults.add("size", name, None, f"{size} bytes; at most {MOST_TEXT} are taken", "list fewer spans", "unreadable")
        return None
    try:
        data = box.read(name, MOST_TEXT)
    except DataError as error:
        faults.add("unreadable", name, None, str(error).removeprefix(f"{name}: "), "make the file again", "unreadable")
        return None
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if data.startswith(mark):
            cause = f"begins with the byte order mark of {encoding}, which becomes part of the first name"
            faults.add("mark", name, 1, cause, "save it as UTF-8 without a byte order mark")
            return data[len(mark) :].decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        faults.add("encoding", name, line, "is not UTF-8", "save it as UTF-8", "unreadable")
        return None


def _parse_text(box: Container, file: str, form: Format, parsed: Parsed, faults: Faults) -> None:
    """Lines of name and score."""
    text = decoded(box, file, faults)
    if text is None or form.separator is None:
        return
    separator = form.separator
    spoken = SPOKEN[separator]
    lines = text.replace("\r\n", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    heading = form.single == "tsv"
    if heading and (not lines or lines[0].split("\t") != ["filename", "cm-score"]):
        found = lines[0] if lines else ""
        faults.add(
            "heading", file, 1, f"the heading is {found!r:.60}", "begin with filename, a tab, cm-score", "unreadable"
        )
        heading = _number_in(found.split(separator)[-1]) is None  # else the first line is data already
    for number, line in enumerate(lines[heading:], 1 + heading):
        if not line.strip():
            faults.add("blank", file, number, "a blank line", "remove it")
            continue
        name, _, value = line.partition(separator)
        score = _number_in(value)
        if separator not in line:
            other = next((what for mark, what in SPOKEN.items() if mark in line), None)
            kind, cause = "separator", f"no {spoken[2:]} in {line!r:.60}" + (f", but {other}" if other else "")
            advice = f"put {spoken} between name and score"
        elif separator in value:
            kind, cause = "fields", f"more than two fields in {line!r:.60}"
            advice = "one name and one score a line, with a decimal point"
        elif name != name.strip() or not name:
            kind, cause, advice = "space", f"the name is {name!r:.60}", "no spaces about a name"
        elif score is None:
            first = number == 1 and not heading
            kind, cause = "number", f"{value!r:.40} is not a number" + (", as if this were a heading" if first else "")
            advice = "remove the heading" if first else "write a number with a decimal point"
        elif not math.isfinite(score):
            kind, cause, advice = "finite", f"the score is {value.strip()}", "give a finite score"
        elif name in parsed.scores:
            kind, cause = "duplicate", f"{name} again, after line {parsed.scores[name][1]}"
            advice = "keep one of the two"
        else:
            parsed.scores[name] = (score, number)
            continue
        parsed.spoiled.add(re.split(r"[,;\t ]", line.strip())[0])
        faults.add(kind, file, number, cause, advice, "unreadable")
    if not parsed.scores:
        faults.add("empty", file, None, "holds no scores", "write one line for every file", "unreadable")


def _number_in(text: str) -> float | None:
    text = text.strip()
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _parse_json(box: Container, file: str, form: Format, parsed: Parsed, faults: Faults) -> None:
    """Spans by name. The text is gone through once, file by file, so that only spans are held."""
    text = decoded(box, file, faults)
    if text is None:
        return
    nested = form.single == "activitynet"
    shape = '{"score", "segment": [start, end]}' if nested else "[confidence, start, end]"
    found: dict[str, Floats] = {}
    try:
        for name, rows, line in _entries(text, "results" if nested else None):
            if name in found:
                faults.add("duplicate", file, line, f"the name {name!r:.60} twice", "keep one of the two", "unreadable")
            elif not isinstance(rows, list):
                cause = f"{name!r:.60}: {type(rows).__name__}, not a list"
                faults.add("rows", file, line, cause, f"give [{shape}, ...]", "unreadable")
            spans = []
            for n, row in enumerate(rows if isinstance(rows, list) else (), 1):
                span = _span(row, nested)
                if span is None:
                    cause = f"{name!r:.60}, span {n}: {json.dumps(row)!s:.60} is not {shape}"
                    faults.add("rows", file, line, cause, "give finite numbers, three a span", "unreadable")
                else:
                    spans.append(span)
            array = np.array(spans, np.float64).reshape(-1, 3)
            found[name] = array / [1, LAVDF_FPS, LAVDF_FPS] if form.single == "lavdf" else array
            parsed.lines[name] = line
        parsed.spans = found
    except RecursionError:
        faults.add("json", file, None, "nested too deeply", "write it anew", "unreadable")
    except json.JSONDecodeError as error:
        advice = "write it with a JSON library: no comments, no comma before a bracket"
        faults.add("json", file, error.lineno, f"not JSON: {error.msg}", advice, "unreadable")
    except ValueError as error:
        faults.add("json", file, None, str(error), "key the spans by file name", "unreadable")


def _entries(text: str, within: str | None) -> Iterator[tuple[str, Any, int]]:
    """Key, value and line of each entry of the object that the JSON is, or that it has under the key ``within``.

    Raises:
        ValueError: it is no such object; :class:`json.JSONDecodeError` if it is not JSON.
    """
    cursor = _Cursor(text)
    found = cursor.next() == "{"
    if not found:
        cursor.value()  # says what is wrong if it is not even JSON
    elif within is None:
        for key, line in cursor.keys():
            yield key, cursor.value(), line
    else:
        found = False
        for key, _ in cursor.keys():
            if key == within and cursor.next() == "{":
                found = True
                for name, line in cursor.keys():
                    yield name, cursor.value(), line
            else:
                cursor.value()
    if not found:
        wanted = "{name: [...]}" if within is None else f'{{"{within}": {{name: [...]}}}}'
        raise ValueError(f"the JSON is not an object {wanted}")
    if cursor.next():
        raise json.JSONDecodeError("more after the end", text, cursor.at)


class _Cursor:
    """A place in JSON text."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self._decoder, self._line, self._counted = json.JSONDecoder(), 1, 0

    def next(self) -> str:
        """The next character that is no space, which stays where it is; nothing at the end."""
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at
        return self.text[self.at : self.at + 1]

    def mark(self, marks: str) -> str:
        """Go past one of these marks."""
        found = self.next()
        if not found or found not in marks:
            raise json.JSONDecodeError(f"expected {' or '.join(marks)}", self.text, self.at)
        self.at += 1
        return found

    def value(self) -> Any:
        """Go past a value."""
        self.next()
        value, self.at = self._decoder.raw_decode(self.text, self.at)
        return value

    def keys(self) -> Iterator[tuple[str, int]]:
        """Each key of an object and its line; who asks for the next one has gone past the value."""
        self.mark("{")
        if self.next() == "}":
            self.at += 1
            return
        while True:
            if self.next() != '"':
                raise json.JSONDecodeError("expected a name in double quotes", self.text, self.at)
            self._line, self._counted = self._line + self.text.count("\n", self._counted, self.at), self.at
            key = self.value()
            self.mark(":")
            yield key, self._line
            if self.mark(",}") == "}":
                return


_SPACE = re.compile(r"[ \t\n\r]*")


def _span(row: Any, nested: bool) -> Span | None:
    if nested:
        segment = row.get("segment") if isinstance(row, dict) else None
        row = [row.get("score"), *segment] if isinstance(row, dict) and isinstance(segment, list) else None
    if not isinstance(row, list) or len(row) != 3 or any(type(value) not in (int, float) for value in row):
        return None
    try:
        values = (float(row[0]), float(row[1]), float(row[2]))
    except OverflowError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _list_masks(box: Container, parsed: Parsed, faults: Faults) -> None:
    """Which mask is whose."""
    inside = [name for name in box.members if name.startswith(f"{MASKS}/")]
    if not inside:
        folders = {name.split("/")[0] for name in box.members if "/" in name}
        close = next((f for f in sorted(folders) if f.lower().startswith(MASKS)), None)
        cause = f"is missing{f', but there is {close}/' if close else ''}"
        advice = f"name the folder {MASKS}" if close else f"add the folder {MASKS} with one PNG for every photo"
        faults.add("no masks", f"{MASKS}/", None, cause, advice, "unreadable")
    for name in inside:
        path = PurePosixPath(name)
        if path.suffix != ".png":
            advice = "save masks as PNG: JPEG changes their values"
            faults.add("mask type", name, None, f"ends in {path.suffix!r}, not in .png", advice, "unreadable")
        elif len(path.parts) != 2:
            faults.add("mask folder", name, None, "is in a folder within mask/", "put it in mask/ itself", "unreadable")
        else:
            parsed.masks[path.stem] = name


def mask_pixels(data: bytes) -> npt.NDArray[np.uint8]:
    """A mask as grey values, (H, W).

    Raises:
        DataError: it is not a picture.
    """
    try:
        with warnings.catch_warnings(), PIL.Image.open(io.BytesIO(data)) as picture:
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            return np.asarray(picture.convert("L"), np.uint8)
    except PIL.UnidentifiedImageError as error:
        raise DataError("not a picture") from error
    except Exception as error:  # Pillow raises nearly anything on damaged files
        raise DataError(f"a damaged picture: {error}") from error
