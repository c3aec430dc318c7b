"""A folder for each scanned file: record, pictures, page and manifest, whole or not at all.

``report.json`` is the record and ``run.json`` says when it was made; ``SHA256SUMS`` lists the SHA-256 of every part in
the form of ``sha256sum``, and ``SHA256SUMS.sig`` is, if asked for, its Ed25519 signature (RFC 8032), 64 bytes as
``openssl pkeyutl`` reads them. So a bundle can be checked without Seamline.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .. import batches
from ..errors import DataError, MediaError, SeamlineError
from ..pipeline import Session
from ..report import Artifacts, Report
from . import page, record

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

RECORD, RUN, PAGE, MANIFEST, SIGNATURE = "report.json", "run.json", "report.html", "SHA256SUMS", "SHA256SUMS.sig"
LONGEST_NAME = 80  # characters of a folder's name
# Names that Windows keeps for devices, whatever their ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def folders(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A folder's name for each input: its own as far as it is plain ASCII and short, and a hash where it is not.

    Names hold letters, digits and ``._-`` only and begin with none of these. No two inputs share one, on file systems
    that ignore case too.
    """
    plain = [_plain(os.path.basename(path)) for path in paths]
    claims = Counter(name.casefold() for name in plain)
    names = []
    for path, name in zip(paths, plain, strict=True):
        if name != os.path.basename(path) or claims[name.casefold()] > 1 or name.split(".")[0].lower() in _DEVICES:
            name = f"{name}-{hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:8]}"
        names.append(name)
    return names


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")[:LONGEST_NAME].rstrip(".") or "file"


def scan(
    session: Session,
    paths: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    key: str | os.PathLike[str] | None = None,
) -> Iterator[Report]:
    """Scan files one after another, and write a bundle for each to ``out``; a report for each, whatever happens.

    An archive (zip, tar) stands for the photos, videos and sounds in it. A file that cannot be analysed gives a report
    with the verdict ``error``, and no bundle.

    Raises:
        SeamlineError: the key to sign with cannot be used.
    """
    private = _private(key) if key is not None else None
    items = batches.items(paths, session.isolate)
    names = folders([item.path for item in items])
    entries: Iterator[batches.Entry] = ((item, name, (None, None)) for item, name in zip(items, names, strict=True))
    for item, name, _, opening in batches.ahead(entries, session.isolate):
        try:
            report = _write(session, item.path, Path(out) / name, private, opening)
        except Exception as cause:
            report = session.failed(item.path, cause)
        yield report


def write(
    session: Session,
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    key: str | os.PathLike[str] | None = None,
) -> Report:
    """Scan one file and write its bundle to ``folder``, whole or not at all; a bundle that is there is replaced.

    Args:
        session: weights and device.
        path: of the file.
        folder: to make.
        key: PEM file of an Ed25519 private key to sign with.

    Returns:
        The report, its ``artifacts`` being the pictures of the bundle.

    Raises:
        SeamlineError: as :meth:`Session.__call__`; or the key cannot be used, or ``folder`` holds something else.
    """
    return _write(session, path, Path(folder), _private(key) if key is not None else None)


def _write(
    session: Session,
    path: str | os.PathLike[str],
    folder: Path,
    private: Ed25519PrivateKey | None,
    opening: batches.Opening | None = None,
) -> Report:
    begun, ticking = datetime.now(UTC), time.perf_counter()
    if folder.is_symlink() or (folder.exists() and not _ours(folder)):
        raise SeamlineError(f"{folder}: is there already and is no bundle; choose another folder for bundles")
    report, told, parts = record.examine(session, path, opening)
    run = {
        "utc": begun.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "seconds": round(time.perf_counter() - ticking, 2),
    }
    told["template"] = page.template_sha256()
    player = told.get("player", {"how": "strip"})
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{os.urandom(4).hex()}.part")
    part.mkdir()
    try:
        shown = dict(parts)
        if player["how"] != "strip":
            copy = part / player["name"]
            shutil.copyfile(path, copy)
            if sha256(copy) != report.media.sha256:
                raise MediaError(f"{os.fspath(path)}: changed while it was read; try again when it is complete")
            if player["how"] == "embedded":
                shown[player["name"]] = copy.read_bytes()
                copy.unlink()
        parts[RECORD] = record.canonical(told)
        parts[RUN] = record.canonical(run)
        parts[PAGE] = page.render(json.loads(parts[RECORD]), run, shown)  # what it shows is what was written
        for name, data in parts.items():
            (part / name).write_bytes(data)
        sums = manifest(part)
        (part / MANIFEST).write_bytes(sums)
        if private is not None:
            (part / SIGNATURE).write_bytes(private.sign(sums))
        _into_place(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    named = {f"{kind}": str(folder / f"{kind}.png") for kind in ("mask", "heatmap", "overlay", "timeline")}
    return replace(report, artifacts=Artifacts(**{k: v for k, v in named.items() if f"{k}.png" in parts}))


def manifest(folder: Path) -> bytes:
    """The SHA-256 of every part of a bundle, as ``sha256sum`` writes it, sorted by name."""
    names = sorted(name for name in os.listdir(folder) if name not in (MANIFEST, SIGNATURE))
    return "".join(f"{sha256(folder / name)}  {name}\n" for name in names).encode()


def read_manifest(data: bytes) -> dict[str, str]:
    """Name -> SHA-256 of every part.

    Raises:
        DataError: it is not such a list.
    """
    sums: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        found = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+)", line)
        if found is None or found[2] in sums:
            raise DataError(f"{MANIFEST}: {line[:80]!r} is not the SHA-256 and the name of a part")
        sums[found[2]] = found[1]
    return sums


def keygen(private: str | os.PathLike[str]) -> Path:
    """Write a new Ed25519 key to sign bundles with, and beside it the public key to check them with, both PEM.

    Returns:
        The path of the public key: ``KEY.pub.pem`` for ``KEY.pem``.

    Raises:
        SeamlineError: one of the files is there already, or the extra ``sign`` is not installed.
    """
    _need_cryptography()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = Path(private)
    public = path.with_suffix(".pub.pem")
    for file in (path, public):
        if os.path.lexists(file):
            raise SeamlineError(f"{file}: is there already; a key is never written over")
    key = Ed25519PrivateKey.generate()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return public


def public_key(path: str | os.PathLike[str]) -> Ed25519PublicKey:
    """The Ed25519 public key in a PEM file.

    Raises:
        SeamlineError: it holds none, or the extra ``sign`` is not installed.
    """
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(Path(path).read_bytes())
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise SeamlineError(f"{path}: holds no public key in PEM form: {cause}") from cause
    if not isinstance(key, Ed25519PublicKey):
        raise SeamlineError(f"{path}: is another kind of public key; Ed25519 is needed")
    return key


def _private(path: str | os.PathLike[str]) -> Ed25519PrivateKey:
    _need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(Path(path).read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:  # TypeError: it needs a passphrase
        raise SeamlineError(f"{path}: holds no private key in PEM form without a passphrase: {cause}") from cause
    if not isinstance(key, Ed25519PrivateKey):
        raise SeamlineError(f"{path}: is another kind of private key; make one with seamline keygen")
    return key


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as cause:
        raise SeamlineError("signatures need an extra: pip install 'seamline[sign]'") from cause


def _ours(folder: Path) -> bool:
    """Whether a folder is a bundle and holds nothing else, so that it may be replaced; or is empty."""
    if not folder.is_dir():
        return False
    names = set(os.listdir(folder))
    try:
        listed = read_manifest((folder / MANIFEST).read_bytes()) if MANIFEST in names else {}
    except (DataError, OSError):
        return False
    return not names or (RECORD in listed and names <= {*listed, MANIFEST, SIGNATURE})


def _into_place(part: Path, folder: Path) -> None:
    """A finished folder to its name; what was there is moved out of the way first, and put back if that fails."""
    if not folder.exists():
        os.rename(part, folder)
        return
    old = part.with_suffix(".old")
    os.rename(folder, old)
    try:
        os.rename(part, folder)
    except OSError:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """The SHA-256 of a part, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
