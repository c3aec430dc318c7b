"""Small files that ask for too much are refused at once and at no cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from seamline import isolation
from seamline.errors import MediaError
from seamline.media import archives
from tests import bombs

SECONDS, MEMORY = 2.0, 200 * 2**20
READ = {"tiff-pages", "gif-frames"}  # only their first picture is decoded, so that there is nothing to refuse

# Each bomb in a process of its own, so that its memory can be told.
SCRIPT = """
import json, os, resource, sys, time
from seamline.errors import MediaError
from seamline.media import archives, open_media
for name, path in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        said, before, began = "", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            list(archives.members(path)) if archives.is_archive(path) else open_media(path)
        except MediaError as cause:
            said = str(cause)
        took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(json.dumps([name, said, time.process_time() - began, took * 1024]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return bombs.write(tmp_path_factory.mktemp("bombs"))


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_bombs_cost_little(paths: dict[str, Path]) -> None:
    names = json.dumps({name: str(path) for name, path in paths.items()})
    result = subprocess.run([sys.executable, "-c", SCRIPT, names], capture_output=True, check=True, text=True)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(paths)
    for name, said, seconds, memory in rows:
        print(f"{name:16} {seconds:5.2f} s  {memory / 2**20:6.1f} MiB  {said}")
        assert seconds < SECONDS, name  # of processor time: how busy the machine is does not count
        assert memory < MEMORY, name
        assert bool(said) == (name not in READ | {"zip"}), name
        assert not said or str(paths[name]) in said


def test_a_scan_of_bombs_says_why(paths: dict[str, Path]) -> None:
    words = {
        "png": "20000x20000",
        "wav": "promises 4000000044 bytes",
        "mp4-hours": "36000 s",
        "mp4-streams": "1000 streams",
    }
    for name, word in words.items():
        with pytest.raises(MediaError, match=word), isolation.opened(paths[name]):
            pass
    with pytest.raises(MediaError, match="as a bomb does"):
        isolation.members(paths["zip-deep"])


def test_zips_in_zips_end_somewhere(paths: dict[str, Path]) -> None:
    found = isolation.members(paths["zip"])
    assert len(found) == 1000
    assert all("to a depth of 3" in str(member.error) for member in found)
    with pytest.raises(MediaError, match="more than 100 files"):
        list(archives.members(paths["zip"], archives.ArchiveLimits(members=100)))
