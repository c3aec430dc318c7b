"""What a batch has already done, so that one which was stopped, however it was, goes on where it stood.

A journal is JSON Lines, only ever added to: ``{"key": ..., "report": ...}``, each line on the disk before the next file
is begun. The key is a digest of all that the result depends on: path and content of the file, weights and settings. A
line that was cut off by a crash is passed over, and its file scanned again; so is a file that could not be analysed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from .errors import DataError, SeamlineError
from .report import Report

NAME = "scan.journal.jsonl"  # in a folder of pictures


class Journal:
    """The journal at ``path``, made if it is not there.

    Raises:
        SeamlineError: it cannot be read or added to, or is a link.
    """

    def __init__(self, path: str | os.PathLike[str], fresh: bool = False) -> None:
        """Open it; ``fresh`` passes over all that it holds."""
        self.path = os.fspath(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        try:
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            self._file = os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0)
            self._file.seek(0)
            held = self._file.read()
            if held and not held.endswith(b"\n"):
                self._file.write(b"\n")  # what was cut off becomes a line of its own
        except OSError as cause:
            why = "is a link, which is not followed" if os.path.islink(self.path) else cause.strerror or cause
            raise SeamlineError(f"{self.path}: no journal can be kept there: {why}; name another file") from cause
        self._lines: dict[str, bytes] = {}
        for line in [] if fresh else held.splitlines():
            try:
                entry = json.loads(line)
                self._lines[str(entry["key"])] = line
            except (ValueError, KeyError, TypeError, RecursionError):
                continue

    def get(self, key: str) -> Report | None:
        """The report of an earlier run, if there is one and its pictures are still there."""
        line = self._lines.get(key)
        if line is None:
            return None
        try:
            report = Report.from_dict(json.loads(line)["report"])
        except (ValueError, KeyError, TypeError, DataError):
            return None
        pictures = [path for path in vars(report.artifacts).values() if path]
        return report if all(os.path.isfile(path) for path in pictures) else None

    def put(self, key: str, report: Report) -> Report:
        """Add a report, unless it is that of a failure, and give it back; it is on the disk when this returns."""
        if report.verdict == "error":
            return report
        line = json.dumps({"key": key, "report": report.to_dict()}, allow_nan=False).encode() + b"\n"
        while line:
            line = line[self._file.write(line) :]
        os.fsync(self._file.fileno())
        return report

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def key(path: str, sha256: str, settings: Mapping[str, Any]) -> str:
    """The digest of what a result depends on; ``settings`` are plain JSON values."""
    text = json.dumps([path, sha256, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
