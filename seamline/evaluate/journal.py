"""What is known of files already judged, kept beside the row until it is written, so that a run can be resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any


class Journal:
    """One JSON object a line, appended as soon as it is known; a line that a kill cut short is dropped.

    Entries are found by a key that names all they depend on, so entries of other weights, files or settings are never
    taken for ours. Left without an exception, the journal is removed: all that it held is in the row.

    Args:
        path: the file; ``None``: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.known = path, {}  # type: Path | None, dict[str, Any]
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
            self._file.seek(0)
            text = self._file.read()
            whole = text.rfind(b"\n") + 1
            for line in text[:whole].splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    entry = json.loads(line)
                    self.known[entry["key"]] = entry["value"]
            self._file.truncate(whole)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is not None and self.path is not None:
            self._file.close()
            if kind is None:
                self.path.unlink(missing_ok=True)

    def add(self, key: str, value: Any) -> None:
        """Keep a value; it is on its way to the disk when this returns."""
        if self._file is not None:
            self._file.write(json.dumps({"key": key, "value": value}).encode() + b"\n")
            self._file.flush()


def key_of(*facts: Any) -> str:
    """A short name for plain values: the beginning of the SHA-256 of their JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def file_digest(path: str | os.PathLike[str] | None) -> str | None:
    """SHA-256 of a file; ``None`` if there is none."""
    if path is None or not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
