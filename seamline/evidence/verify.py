"""Does a result repeat? A bundle, or a report alone, held against its own manifest and against a new scan of the file.

Everything that may differ has one of these names: ``file``, ``weights``, ``version`` (of Seamline, of a library, of the
decoder), ``settings``, ``report``, ``page``, ``picture``, ``media`` and ``manifest`` (parts of the bundle that were
changed since), ``signature``, and ``result`` (what the record says is not what a new scan says, beyond the tolerance).
"""

from __future__ import annotations

import copy
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from .. import report as reports
from .. import zoo
from ..errors import DataError, SeamlineError
from ..media import files
from ..pipeline import Session, environment
from . import bundle, page, record

LISTED = 8  # differences of one kind that are told one by one
LARGEST = 512 * 2**20  # bytes of a part that is read into memory
_MACHINE = ("device", "threads", "platform")  # what differs between machines, and is no version


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was: its kind, the part or the place in the record, and words."""

    kind: str
    where: str
    words: str
    then: Any = None
    now: Any = None


@dataclass(frozen=True)
class Verification:
    """What a check found.

    ``repeats`` is whether a new scan gave the result of the record within the tolerance, ``None`` where no scan was
    made. ``notes`` tell what is worth knowing and no difference.
    """

    differences: tuple[Difference, ...]
    repeats: bool | None
    signed: bool | None  # whether a signature was checked and holds; None: not checked
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Nothing differs, and the result repeats."""
        return not self.differences and self.repeats is True

    @property
    def headline(self) -> str:
        """What was found, in one line."""
        kinds = ", ".join(dict.fromkeys(difference.kind for difference in self.differences))
        result = {
            True: "a new scan gives the same result, within the tolerance",
            False: "a new scan gives another result",
            None: "nothing was scanned again",
        }[self.repeats]
        signed = "; the signature holds" if self.signed else ""
        return f"{'same' if self.same else 'differs'}{f' ({kinds})' if kinds else ''}: {result}{signed}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema": "seamline.verification/1",
            "same": self.same,
            "repeats": self.repeats,
            "signed": self.signed,
            "differences": [asdict(difference) for difference in self.differences],
            "notes": list(self.notes),
            "tolerance": record.TOLERANCE,
        }


def verify(
    what: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    device: str = "cpu",
    key: str | os.PathLike[str] | None = None,
    session: Session | None = None,
) -> Verification:
    """Hold a bundle, or a report, against the file that it is about.

    Its parts are held against its manifest, the file against its SHA-256; if file and weights are those of the record,
    the file is scanned again, and record, pictures and page are compared with what comes out.

    Args:
        what: folder of a bundle, its ``report.json``, or a file with one report of ``seamline scan --json``.
        file: the file that was scanned.
        model: the weights, if the catalogue lacks those of the report.
        device: to scan on.
        key: PEM file of the Ed25519 public key that must have signed the bundle.
        session: weights in memory, instead of ``model`` and ``device``.

    Raises:
        SeamlineError: the check could not be made: no such bundle, report, file, key or weights.
    """
    path = Path(what).resolve()
    files.regular(os.fspath(file))
    folder = path if path.is_dir() else path.parent if path.name == bundle.RECORD and _sums(path.parent) else None
    found: list[Difference] = []
    notes: list[str] = []
    signed: bool | None = None
    if folder is not None:
        if not _sums(folder):
            raise DataError(f"{folder}: is no bundle: it has no {bundle.MANIFEST}")
        path = folder / bundle.RECORD
        if key is not None:
            signed = _signed(folder, key)
            if not signed:
                found.append(Difference("signature", bundle.SIGNATURE, "is not by this key, or of another manifest"))
        elif (folder / bundle.SIGNATURE).exists():
            notes.append("the bundle is signed; give the public key to check by whom")
        found += _parts(folder)
    elif key is not None:
        raise SeamlineError(f"{path}: only a bundle is signed; give its folder")
    else:
        notes.append("only the report was given, so its pictures and page were not checked")
    try:
        more, repeats = _again(path, folder, file, session, model, device, notes)
    except SeamlineError as cause:
        if not found:
            raise
        more, repeats = [], None
        notes.append(f"the rest could not be checked: {cause}")
    return Verification((*found, *_shortened(more, found)), repeats, signed, tuple(notes))


def _again(
    path: Path,
    folder: Path | None,
    file: str | os.PathLike[str],
    session: Session | None,
    model: str | os.PathLike[str] | None,
    device: str,
    notes: list[str],
) -> tuple[list[Difference], bool | None]:
    """What differs between a record and a new scan, and whether the result repeats."""
    told = _read(path)
    original = copy.deepcopy(told)
    then = told["report"] = reports.Report.from_dict(told["report"]).to_dict()  # raises where it is not one
    found = list(_file(then["media"], file))
    if not then.get("model"):
        raise DataError(f"{path}: does not say which weights spoke, so nothing can be repeated")
    if session is None:
        session = Session(_weights(then["model"], model), device, proposals=_proposals(told))
    found += _model(then, session)
    found += _environment(then["environment"], session, notes)
    if any(difference.kind in ("file", "weights") for difference in found):
        notes.append("nothing was scanned again, since another file or other weights give another result")
        return found, None

    _, again, pictures = record.examine(session, file)
    if folder is not None:
        found += _page(folder, original, file, notes)
        found += _pictures(folder, pictures)
    told.pop("template", None)
    again = json.loads(record.canonical(again if folder or len(told) > 1 else {"report": again["report"]}))
    _set_aside(told, again)
    found += _compared(told, again)
    return found, not any(difference.kind == "result" for difference in found)


def _sums(folder: Path) -> bool:
    return (folder / bundle.MANIFEST).is_file()


def _parts(folder: Path) -> Iterator[Difference]:
    """Parts of a bundle that are not as its manifest says."""
    listed = bundle.read_manifest(_bytes(folder / bundle.MANIFEST))
    there = {name for name in os.listdir(folder) if name not in (bundle.MANIFEST, bundle.SIGNATURE)}
    for name in sorted(there - listed.keys()):
        yield Difference("manifest", name, "is not a part of the bundle: the manifest does not list it")
    for name, digest in listed.items():
        if name not in there:
            yield Difference(_kind(name), name, "is missing from the bundle")
        elif (now := bundle.sha256(folder / name) if _plain(folder / name) else None) != digest:
            yield Difference(_kind(name), name, "was changed after the bundle was written", digest, now)


def _kind(name: str) -> str:
    if name in (bundle.RECORD, bundle.RUN):
        return "report"
    if name == bundle.PAGE:
        return "page"
    return "picture" if name.endswith((".png", ".jpg")) else "media"


def _signed(folder: Path, key: str | os.PathLike[str]) -> bool:
    """Whether the holder of a key signed the manifest."""
    public = bundle.public_key(key)
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(_bytes(folder / bundle.SIGNATURE), _bytes(folder / bundle.MANIFEST))
    except (InvalidSignature, FileNotFoundError):
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    """The record in a file, or what there is of one: a report alone is a record of one key."""
    try:
        data = json.loads(_bytes(path), parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError) as cause:
        raise DataError(f"{path}: is not a report: {cause or 'nested too deeply'}") from cause
    schema = data.get("schema") if isinstance(data, dict) else None
    told = data if schema == record.SCHEMA else {"report": data} if schema == reports.SCHEMA else None
    if told is None or not isinstance(told.get("report"), dict):
        raise DataError(f"{path}: is neither a bundle's report ({record.SCHEMA}) nor one line of seamline scan --json")
    return told


def _bytes(path: Path) -> bytes:
    """The bytes of a part: a bundle may come from anybody, so no link is followed, and nothing endless read."""
    if not _plain(path) or path.stat().st_size > LARGEST:
        raise DataError(f"{path}: is no plain file, or too large to be a part of a bundle")
    return path.read_bytes()


def _plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _integer(digits: str) -> int:
    if len(digits) > 18:
        raise ValueError(f"{digits[:20]}... is too large a number")
    return int(digits)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def _file(media: Mapping[str, Any], file: str | os.PathLike[str]) -> Iterator[Difference]:
    path = os.fspath(file)
    size = files.regular(path).st_size
    now = files.digest(path, size)
    if media["sha256"] is None:
        raise DataError(f"{media['path']}: the report holds no SHA-256 of the file, so it can be of any")
    if now != media["sha256"]:
        words = "is not the file that was scanned: " + (
            f"it has {size} bytes, that one had {media['bytes']}"
            if size != media["bytes"]
            else "as many bytes, but not the same"
        )
        yield Difference("file", os.path.basename(path), words, media["sha256"], now)


def _weights(told: Mapping[str, Any], model: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    """Which weights to load."""
    if model is not None:
        return model
    if told["name"] not in {card.name for card in zoo.models()}:
        raise SeamlineError(
            f"the report was made with weights that the catalogue lacks, {told['name']!r}; give them: --model FILE"
        )
    return str(told["name"])


def _proposals(told: Mapping[str, Any]) -> int:
    listed = len(told["report"].get("proposals", ()))
    settings = told.get("settings")
    asked = settings.get("proposals") if isinstance(settings, dict) else None
    return asked if type(asked) is int and asked >= 0 else listed


def _model(then: Mapping[str, Any], session: Session) -> Iterator[Difference]:
    """Whether the weights are those that spoke."""
    _, card = session.model("image" if then["media"]["kind"] == "image" else "clip")
    told = then["model"]
    if card.sha256 != told["sha256"]:
        words = f"{card.name} {card.version or ''}".strip() + " are not the weights that spoke, " + told["name"]
        yield Difference("weights", card.name, words, told["sha256"], card.sha256)


def _environment(then: Mapping[str, str], session: Session, notes: list[str]) -> Iterator[Difference]:
    """Versions that differ; another machine is worth a note."""
    now = environment(session.device)
    for name in sorted({*then, *now} - {"isolation"}):  # known only after a scan
        before, here = then.get(name), now.get(name)
        if before == here:
            continue
        if name in _MACHINE:
            notes.append(f"{name}: {before or 'not stated'} then, {here or 'none'} now")
        else:
            words = f"{name} {before or 'not stated'} then, {here or 'none'} now"
            yield Difference("version", name, words, before, here)


def _set_aside(told: dict[str, Any], again: dict[str, Any]) -> None:
    """The name of the file, and what was said about its ending, may differ; versions were compared before."""
    provenance = told.get("provenance")
    unread = isinstance(provenance, dict) and "error" in provenance
    for either in (told, again):
        either.pop("player", None)  # which depends on where the file lay
        if unread:
            either.pop("provenance", None)
    for report in (told["report"], again["report"]):
        report["warnings"] = [text for text in report["warnings"] if not text.startswith("the name ends in ")]
        report["media"] = report["media"] | {"path": ""}
        report["environment"] = {}
    if again.keys() == {"report"}:  # of a report alone; its pictures were written elsewhere
        again["report"]["artifacts"] = told["report"]["artifacts"]


def _compared(then: Any, now: Any, where: str = "") -> Iterator[Difference]:
    """Everything in one record that is not the same in another, within the tolerance."""
    kind, last = _named(where), where.rpartition(".")[2]
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            place = f"{where}.{key}" if where else key
            if key not in then or key not in now:
                words = f"{place} is {'new' if key in now else 'gone'}"
                yield Difference(_named(place), place, words, then.get(key), now.get(key))
            else:
                yield from _compared(then[key], now[key], place)
    elif isinstance(then, list) and isinstance(now, list):
        if len(then) != len(now):
            yield Difference(kind, where, f"{where}: {len(then)} in the report, {len(now)} now", len(then), len(now))
        elif len(then) > LISTED and _numbers(then) and _numbers(now):
            a, b = (np.array([np.nan if v is None else v for v in values], np.float64) for values in (then, now))
            gap = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
            if not (worst := float(np.nan_to_num(gap, nan=np.inf).max())) <= record.TOLERANCE["probability"]:
                yield Difference(kind, where, f"{where}: differs by up to {worst:g}")
        else:
            for number, (a, b) in enumerate(zip(then, now, strict=True)):
                yield from _compared(a, b, f"{where}[{number}]")
    elif _number(then) and _number(now):
        if abs(then - now) > _allowed(where, last, then):
            yield Difference(kind, where, f"{where}: {then:g} in the report, {now:g} now", then, now)
    elif then != now or type(then) is not type(now):
        yield Difference(kind, where, f"{where}: {_short(then)} in the report, {_short(now)} now", then, now)


def _named(where: str) -> str:
    """The kind of a difference at a place in the record."""
    kinds = {
        "report.media": "file",
        "report.model": "weights",
        "weights": "weights",
        "limits": "weights",
        "settings": "settings",
        "tolerance": "settings",
        "decoded": "version",
        "streams": "version",
        "player": "version",
        "schema": "version",
        "provenance": "version",
    }
    return next((kind for start, kind in kinds.items() if where == start or where.startswith(f"{start}.")), "result")


def _allowed(where: str, last: str, then: float) -> float:
    """What a number may differ by."""
    tolerance = record.TOLERANCE
    if where.startswith("report.segments") and last in ("start", "end"):
        return tolerance["seconds"] + 1e-9
    if where.startswith("report.proposals"):  # [score, start, end]
        return tolerance["probability" if where.endswith("[0]") else "seconds"] + 1e-9
    if ".box[" in where or ".twin[" in where:
        return tolerance["pixels"]
    if where.startswith("report.evidence"):
        return tolerance["evidence"]
    if last == "area":
        return tolerance["area"] * abs(then)
    if where.startswith("faces"):
        return tolerance["pixels"] if ".boxes[" in where else tolerance["seconds"] + 1e-9
    if last == "probability" or where.startswith(("report.modalities", "curves", "waveform.")):
        return tolerance["probability"]
    return 1e-6


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(values: list[Any]) -> bool:
    return all(value is None or _number(value) for value in values)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _shortened(differing: list[Difference], found: list[Difference]) -> list[Difference]:
    """At most ``LISTED`` differences of a kind, and how many more there are; each part is told of once."""
    kept: list[Difference] = []
    parts = {difference.where for difference in found}
    for kind in dict.fromkeys(difference.kind for difference in differing):
        these = [difference for difference in differing if difference.kind == kind and difference.where not in parts]
        kept += these[:LISTED]
        if len(these) > LISTED:
            kept.append(Difference(kind, "", f"and {len(these) - LISTED} more of this kind"))
    return kept


def _pictures(folder: Path, pictures: Mapping[str, bytes]) -> Iterator[Difference]:
    """Pictures of a bundle that do not show what a new scan shows."""
    for name, data in pictures.items():
        if (folder / name).is_file() and (words := _unlike(_bytes(folder / name), data)):
            yield Difference("picture", name, f"does not show what a new scan shows: {words}")


def _unlike(then: bytes, now: bytes) -> str:
    """In which way one picture is not another, empty if it is, within the tolerance."""
    if then == now:
        return ""
    try:
        with PIL.Image.open(io.BytesIO(now)) as fresh, PIL.Image.open(io.BytesIO(then), formats=("PNG", "JPEG")) as old:
            if old.size != fresh.size:  # before a pixel is decoded
                return f"it has {old.width} x {old.height} pixels, not {fresh.width} x {fresh.height}"
            a, b = (np.asarray(picture.convert("RGB"), np.int16) for picture in (old, fresh))
    except Exception as cause:  # decoders raise nearly anything on hostile bytes
        return f"it cannot be decoded ({cause})"
    gap = np.abs(a - b)
    mean, share = float(gap.mean()), float((gap.max(-1) > 32).mean())
    if mean > record.TOLERANCE["picture_mean"] or share > record.TOLERANCE["picture_share"]:
        return f"{mean:.2f} of 255 levels off on average, {100 * share:.2f} % of its pixels by more than 32"
    return ""


def _page(folder: Path, told: Mapping[str, Any], file: str | os.PathLike[str], notes: list[str]) -> list[Difference]:
    """Whether the page shows the record that lies beside it."""
    if told.get("template") != page.template_sha256():
        notes.append("the page was made by another version of its template, and was not compared with the record")
        return []
    try:
        run = json.loads(_bytes(folder / bundle.RUN))
        parts = {name: _bytes(folder / name) for name in os.listdir(folder) if name in told["pictures"]}
        if told.get("player", {}).get("how") == "embedded":
            parts[told["player"]["name"]] = Path(file).read_bytes()
        fresh, shown = page.render(told, run, parts), _bytes(folder / bundle.PAGE)
    except Exception as cause:  # a record that was edited can break the page in any way
        return [Difference("page", bundle.PAGE, f"cannot be compared with the record: {cause!r:.200}")]
    if fresh != shown:
        return [Difference("page", bundle.PAGE, "does not show the record that lies beside it")]
    return []
