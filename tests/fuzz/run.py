"""Hostile files of every format through what reads them: ``python -m tests.fuzz.run --files 10000 --folder DIR``.

Media and archives go through a whole scan (with a detector that costs nothing), reports, recipes and weights through
their readers. Every file must end in a report or in an error of ours, in time, without a crash of this process, a
connection, or a file where none belongs. What does not is kept in ``--keep``, for ``tests/fuzz/regressions``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from seamline import Session, isolation, zoo
from seamline.detectors.base import Windowing
from seamline.draw import Looks
from seamline.errors import SeamlineError
from seamline.media import Clip
from seamline.report import Media, Report
from seamline.synthesis.recipe import read_recipe
from seamline.train import read_recipe as read_training
from tests.test_isolation import Listener, playlists
from tests.test_pipeline import RedIsForged

from .corpus import FORMATS
from .mutate import hostile

TEXTS = {"report", "recipe", "safetensors"}
LONGEST = 60.0  # seconds for one file, of which none should come near


class Reader(Session):
    """A session that reads all of a clip and judges nothing of it."""

    def _clip(self, clip: Clip, looks: Looks) -> Report:
        pictures = sum(1 for _, _ in zip(clip.frames(10), range(200), strict=False))
        samples = sum(len(block) for block, _ in zip(clip.sound(), range(100), strict=False))
        note = f"{pictures} pictures, {samples} samples"
        return Report(Media(clip.path, clip.sha256), "not_applicable", warnings=(*clip.warnings, *clip.notes, note))


@dataclass
class Tally:
    """What became of the files."""

    ends: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")

    def kinds(self) -> Counter[str]:
        """How files of all formats ended."""
        kinds: Counter[str] = Counter()
        for end, count in self.ends.items():
            kinds[end.split(" ", 1)[1]] += count
        return kinds

    def end(self, name: str, end: str, seconds: float) -> None:
        """Count a file."""
        self.ends[f"{name} {end}"] += 1
        self.slowest = max(self.slowest, (seconds, name))
        if seconds > LONGEST:
            self.failures.append(f"{name}: took {seconds:.0f} s")


def run(files: int, folder: Path, first: int = 0, keep: Path | None = None) -> Tally:
    """So many hostile files, spread over all formats, written to ``folder`` one at a time."""
    tally, listener = Tally(), Listener()
    sys.addaudithook(lambda event, _: tally.failures.append(event) if event == "socket.connect" else None)
    session = Reader(RedIsForged(Windowing(side=64, overlap=16, multiple=32)))
    inside, out = folder / "in", folder / "out"
    inside.mkdir(parents=True)
    names = list(FORMATS)
    for count in range(files):
        name, number = names[count % len(names)], first + count // len(names)
        suffix, data = hostile(name, number)
        data = data.replace(b"http://127.0.0.1:9/", b"http://127.0.0.1:%d/" % listener.port)
        path = inside / f"{name}-{number}{suffix}"
        path.write_bytes(data)
        before = len(tally.failures)
        for end, seconds in _ends(session, name, path, out if count % 20 == 0 else None, tally):
            tally.end(name, end, seconds)
        if len(tally.failures) > before and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / path.name).write_bytes(data)
        path.unlink()
        if (count + 1) % 100 == 0:
            print(f"{count + 1} files, {len(tally.failures)} failures, {dict(tally.kinds())}", flush=True)
    for name, data in playlists(listener.port).items():
        (inside / name).write_bytes(data)
        for end, seconds in _ends(session, name, inside / name, None, tally):
            tally.end("playlists", end, seconds)
        (inside / name).unlink()
    if listener.visits:
        tally.failures.append(f"{listener.visits} connections")
    strange = {path.name for path in folder.iterdir()} - {"in", "out"} | {path.name for path in inside.iterdir()}
    tally.failures += [f"a file where none belongs: {name}" for name in strange]
    return tally


def _ends(session: Session, name: str, path: Path, out: Path | None, tally: Tally) -> Iterator[tuple[str, float]]:
    """How reading a file ended, and after how many seconds; several for an archive."""
    began = time.monotonic()
    try:
        if name not in TEXTS:
            for report in session.scan([path], out):
                report.to_json()
                said = report.error or ""
                if report.verdict == "error" and not said.startswith(report.media.path):
                    tally.failures.append(f"{path.name}: an error that does not name its file: {said}")
                crashed = "its decoder" in said
                yield ("crashed decoder" if crashed else "error" if said else "report"), time.monotonic() - began
                began = time.monotonic()
            return
        if name == "report":
            Report.from_json(path.read_bytes().decode("utf-8", "replace")).to_json()
        elif name == "recipe":
            for read in (read_training, read_recipe):
                try:
                    read(path)
                except SeamlineError as cause:
                    last: Any = cause
            raise last
        else:
            zoo.load_detector(path)
        yield "report", time.monotonic() - began
    except SeamlineError:
        yield "error", time.monotonic() - began
    except Exception as cause:
        tally.failures.append(f"{path.name}: {type(cause).__name__}: {cause}")
        yield "FAILED", time.monotonic() - began


def main() -> int:
    """Run, print the figures, and say whether all went well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation of each format")
    parser.add_argument("--folder", type=Path, required=True, help="an empty or new folder to work in")
    parser.add_argument("--keep", type=Path, default=None, help="where to keep the files that failed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    import resource

    began = time.monotonic()
    run(len(FORMATS), options.folder / "warm")
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally = run(options.files, options.folder / "run", options.first, options.keep)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {
        "files": options.files,
        "formats": len(FORMATS),
        "seconds": round(time.monotonic() - began),
        "slowest": [round(tally.slowest[0], 2), tally.slowest[1]],
        "parent_mib": [start // 1024, own // 1024],
        "largest_child_mib": isolation.peak() // 2**20,
        "child_cap_mib": isolation.MEMORY // 2**20,
        "failures": len(tally.failures),
    }
    for failure in tally.failures[:50]:
        print("FAILED", failure)
    print(json.dumps(dict(sorted(tally.ends.items())), indent=1))
    print(json.dumps(figures))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
