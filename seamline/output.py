"""Files that are written whole or not at all, and only where they were meant to be."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of ``path`` when this context ends well, and else leaves no trace.

    It is made beside its place under a name that nobody can guess and that must be free, so that no link lying in wait
    is followed; a link at ``path`` itself is replaced, not followed. It is on the disk before it has its name.
    """
    target = Path(path)
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as cause:
        if cause.filename == str(part):
            cause.filename = str(target)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
