"""Decoding elsewhere gives the same, and whatever happens there stays there."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from seamline import SeamlineError, Session, isolation
from seamline.detectors.base import Windowing
from seamline.errors import MediaError
from seamline.isolation import sandbox, wire
from seamline.media import Clip, Image, Limits, open_media
from tests import bombs
from tests.films import film, picture, tone
from tests.test_pipeline import RedIsForged

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="what the system promises differs from system to system")
TILED = Windowing(side=64, overlap=16, multiple=32)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    photo = PIL.Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8))
    for kind in ("jpg", "png", "webp", "tif", "avif", "bmp", "gif"):
        photo.save(folder / f"photo.{kind}")
    film(folder / "film.mp4", [picture(i) for i in range(40)], tone(1.6))
    film(folder / "sound.wav", sound=tone(1.0), format="wav", acodec="pcm_s16le", sample_format="s16")
    (folder / "mute.jpg").write_bytes((folder / "film.mp4").read_bytes())
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture
def alone() -> Iterator[None]:
    """No process from before, and none left behind."""
    isolation.shut()
    yield
    isolation.shut()


def same(a: Image | Clip, b: Image | Clip) -> None:
    names = [name for name in vars(b) if name not in ("pixels", "source", "notes")]
    assert {name: getattr(a, name) for name in names} == {name: getattr(b, name) for name in names}
    if isinstance(b, Image):
        assert isinstance(a, Image)
        np.testing.assert_array_equal(a.pixels, b.pixels)
    else:
        assert isinstance(a, Clip)
        for of in (
            lambda c: c.frames(10),
            lambda c: c.frames(30.0, 0.5, 1.0),
            lambda c: c.sound(),
            lambda c: c.sound(8000),
        ):
            for x, y in zip(of(a), of(b), strict=True):
                np.testing.assert_array_equal(x, y)
        assert a.notes == b.notes


def test_media_are_the_same_as_in_this_process(media: dict[str, Path]) -> None:
    for path in media.values():
        with isolation.opened(path) as medium:
            same(medium, open_media(path))
    with isolation.opened(media["photo.png"].read_bytes(), label="a.zip!/x.jpg") as medium:
        assert (medium.path, medium.warnings) == ("a.zip!/x.jpg", ("the name ends in .jpg, but the content is PNG",))


def test_damaged_clips_read_the_same(tmp_path: Path, media: dict[str, Path]) -> None:
    path = tmp_path / "cut.mkv"
    film(path, [picture(i) for i in range(60)], tone(2.4), codec="mpeg4", format="matroska")
    path.write_bytes(path.read_bytes()[:-9000])
    with isolation.opened(path) as medium:
        same(medium, open_media(path))
        assert medium.warnings


def test_a_relative_path_leads_from_where_this_process_is(
    tmp_path: Path, media: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = next(path for path in media.values() if path.suffix == ".png")
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        shutil.copy(photo, tmp_path / name / f"{name}.png")
        monkeypatch.chdir(tmp_path / name)
        with isolation.opened(f"{name}.png") as found:
            assert found.path == f"{name}.png"


def test_errors_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.mp4").write_text("#EXTM3U\nhttp://127.0.0.1:9/x.ts\n")
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "gone.jpg", Path("x" * 5000), Path("a\0b")):
        with pytest.raises(MediaError) as here:
            open_media(path)
        with pytest.raises(MediaError) as there, isolation.opened(path):
            pass
        assert str(there.value) == str(here.value)
    with pytest.raises(MediaError, match=r"a\.zip!/b\.png: is empty"), isolation.opened(b"", label="a.zip!/b.png"):
        pass
    with pytest.raises(MediaError, match="limit of 10"), isolation.opened(bombs.png(8, 8), Limits(pixels=10)):
        pass


def test_a_clip_is_read_several_times_at_once_and_not_after_its_context(media: dict[str, Path]) -> None:
    with isolation.opened(media["film.mp4"]) as clip:
        assert isinstance(clip, Clip)
        one, two, sound = clip.frames(), clip.frames(start=0.8), clip.sound()
        alternating = [next(stream).mean() for _ in range(5) for stream in (one, two)]
        assert next(sound).shape == (16000,)
        plain = open_media(media["film.mp4"])
        assert isinstance(plain, Clip)
        assert alternating[::2] == [frame.mean() for frame, _ in zip(plain.frames(), range(5), strict=False)]
        with pytest.raises(ValueError, match="give a rate"):
            next(clip.frames(fps=0))
    with pytest.raises(MediaError, match="was closed"):
        next(one)
    held = isolation.Job("open", media["film.mp4"])
    process = held._worker.process
    held.medium()
    del held
    gc.collect()
    assert process.poll() is not None  # what is forgotten does not run on


def test_a_picture_that_stands_still_is_sent_once(tmp_path: Path) -> None:
    path = tmp_path / "still.mkv"
    film(path, [picture(0), picture(1)], times=[0.0, 10.0], format="matroska", codec="mpeg4")
    with isolation.Job("open", path) as job:
        clip = job.medium()
        assert isinstance(clip, Clip)
        frames = list(clip.frames(25))
    assert frames[3] is frames[2]
    assert len({id(frame) for frame in frames}) <= 3


def grandchild(job: isolation.Job) -> int:
    """The process that has the file."""
    pid = job._worker.process.pid
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            return int(children[0])
    raise AssertionError("no child")


@LINUX
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, r"crashed \(SIGSEGV\)"),
        (signal.SIGKILL, "killed, most likely for want of memory"),
        (signal.SIGXCPU, "took longer"),
    ],
)
def test_the_death_of_a_decoder_is_an_error_of_one_file(
    tmp_path: Path, media: dict[str, Path], number: int, words: str
) -> None:
    job = isolation.Job("open", media["film.mp4"])
    clip = job.medium()
    assert isinstance(clip, Clip)
    frames = clip.frames()
    next(frames)
    os.kill(grandchild(job), number)
    with pytest.raises(MediaError, match=rf"film\.mp4: .*{words}"):
        for _ in frames:
            pass
    job.close()
    with isolation.opened(media["photo.png"]) as medium:
        assert isinstance(medium, Image)


@LINUX
def test_a_decoder_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch, media: dict[str, Path]) -> None:
    monkeypatch.setattr(isolation, "allowance", lambda *_: 0.5)
    job = isolation.Job("open", media["film.mp4"])
    clip = job.medium()
    assert isinstance(clip, Clip)
    frames = clip.frames()
    next(frames)
    os.kill(grandchild(job), signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(MediaError, match=r"film\.mp4: took longer than 0 s to read, so it was given up"):
        for _ in frames:
            pass
    assert time.monotonic() - began < 5
    job.close()
    assert job._worker.process.poll() is not None


def test_a_header_alone_buys_no_time() -> None:
    second = isolation.allowance(1000)
    assert isolation.allowance(1000, duration=8 * 3600) < second + 120
    assert isolation.allowance(1000, duration=8 * 3600, pictures=2) < second + 320
    assert isolation.allowance(10**9, duration=3600, pictures=90_000) > second + 36_000


@LINUX
def test_memory_is_held_to_the_cap(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: dict[str, Path]
) -> None:
    monkeypatch.setattr(isolation, "MEMORY", 500 * 2**20)
    path = tmp_path / "large.png"
    path.write_bytes(bombs.png(12_000, 12_000))
    with (
        pytest.raises(MediaError, match=r"large\.png: not enough memory|large\.png: its decoder"),
        isolation.opened(path),
    ):
        pass
    with isolation.opened(media["photo.jpg"]) as medium:
        assert medium.format == "JPEG"


def test_nonsense_from_a_decoder_is_an_error_of_its_file(
    monkeypatch: pytest.MonkeyPatch, media: dict[str, Path]
) -> None:
    facts = {"path": "x", "sha256": "0", "bytes": 1, "format": "PNG", "warnings": []}
    answers: list[tuple[dict[str, Any], bytes]] = [
        ({"image": facts | {"pixels": [9, 9, 3]}}, b"123"),
        ({"image": facts | {"pixels": [1, 1, 3], "no": 1}}, b"123"),
        ({"image": 5}, b""),
    ]
    for answer in answers:
        job = isolation.Job("open", media["photo.png"])
        monkeypatch.setattr(job._worker, "receive", lambda most, answer=answer: answer)
        with pytest.raises(MediaError, match=r"photo\.png: its decoder gave nonsense"):
            job.medium()
        job.close()


def test_the_wire_bounds_what_it_takes() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as reader, os.fdopen(write, "wb") as writer:
        wire.send(writer, {"a": "\udcff"}, np.arange(6, dtype=np.uint8).reshape(2, 3))
        assert wire.receive(reader, 6) == ({"a": "\udcff"}, bytearray(range(6)))
        wire.send(writer, {}, b"1234567")
        with pytest.raises(wire.BrokenWire, match=r"2 \+ 7 bytes, 6 allowed"):
            wire.receive(reader, 6)
    for data in (
        b"",
        b"\x01",
        wire._LENGTHS.pack(2**31, 0),
        wire._LENGTHS.pack(2, 0) + b"[]",
        wire._LENGTHS.pack(2, 0) + b"\xff",
    ):
        read, write = os.pipe()
        os.write(write, data)
        os.close(write)
        with os.fdopen(read, "rb", buffering=0) as reader, pytest.raises(wire.BrokenWire):
            wire.receive(reader, 100)


# What a decoder that was taken over can do. It runs no Python, so these are the calls of the C library.

ATTEMPTS = """
import ctypes, json, os, resource, signal, sys
from seamline.isolation import sandbox
report = os.dup(1)
libc = ctypes.CDLL(None, use_errno=True)
victim, parent = int(sys.argv[2]), os.getppid()
held = sandbox.enter(2**32)
path = sys.argv[1].encode()
calls = {
    "socket": lambda: libc.socket(2, 1, 0),
    "socketpair": lambda: libc.socketpair(1, 1, 0, (ctypes.c_int * 2)()),
    "fork": lambda: libc.fork(),
    "vfork-exec": lambda: -1 if libc.system(b"true") == 127 << 8 else 0,
    "exec": lambda: libc.execv(b"/bin/true", (ctypes.c_char_p * 2)(b"true", None)),
    "create": lambda: libc.open(path + b"/new", os.O_WRONLY | os.O_CREAT, 0o600),
    "write": lambda: libc.open(path + b"/file", os.O_WRONLY),
    "append": lambda: libc.open(path + b"/file", os.O_RDWR | os.O_APPEND),
    "truncate-open": lambda: libc.open(path + b"/file", os.O_TRUNC),
    "creat": lambda: libc.creat(path + b"/new", 0o600),
    "truncate": lambda: libc.truncate(path + b"/file", 0),
    "unlink": lambda: libc.unlink(path + b"/file"),
    "rename": lambda: libc.rename(path + b"/file", path + b"/other"),
    "link": lambda: libc.link(path + b"/file", path + b"/other"),
    "symlink": lambda: libc.symlink(path + b"/file", path + b"/other"),
    "mkdir": lambda: libc.mkdir(path + b"/other", 0o700),
    "chmod": lambda: libc.chmod(path + b"/file", 0),
    "utime": lambda: libc.utimes(path + b"/file", None),
    "kill": lambda: libc.kill(victim, 9),
    "tgkill": lambda: libc.syscall(234, victim, victim, 9),
    "ptrace": lambda: libc.ptrace(16, victim, None, None),
    "limit": lambda: libc.prlimit(victim, 0, (ctypes.c_long * 2)(0, 0), None),
    "more-memory": lambda: libc.setrlimit(9, (ctypes.c_long * 2)(2**40, 2**40)) if os.getuid() else -1,
    "io_uring": lambda: libc.syscall(425, 4, ctypes.create_string_buffer(256)),
    "unshare": lambda: libc.unshare(0x10000000),
    "x32": lambda: libc.syscall(0x40000000 + 41, 2, 1, 0),
    "memfd": lambda: libc.memfd_create(b"x", 0),
}
done = {name: call() for name, call in calls.items()}
read = libc.open(path + b"/file", os.O_RDONLY)
os.write(report, json.dumps([held, done, read]).encode())
"""


@LINUX
def test_the_kernel_refuses_what_decoding_does_not_need(tmp_path: Path) -> None:
    if sandbox.platform.machine() not in sandbox._MACHINES:
        pytest.skip("no filter for this machine")
    (tmp_path / "file").write_text("kept")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        command = [sys.executable, "-c", ATTEMPTS, str(tmp_path), str(victim.pid)]
        answer = subprocess.run(command, capture_output=True, check=True).stdout
        assert victim.poll() is None
        victim.communicate(b"\n")
        assert victim.returncode == 0
    held, done, read = json.loads(answer)
    assert held == "process, limits, system calls"
    assert {name: result for name, result in done.items() if result >= 0} == {}
    assert read >= 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


PYTHON = """
import json, os, socket, subprocess, sys
from seamline.isolation import sandbox
report = os.dup(1)
sandbox._filtered = lambda: False  # as on a system without
sandbox.enter(2**32)
def tried(call):
    try:
        call()
    except OSError as cause:
        return str(cause)
    return "done"
path = sys.argv[1]
os.write(report, json.dumps([
    tried(lambda: socket.socket()), tried(lambda: socket.create_connection(("127.0.0.1", 9))),
    tried(lambda: subprocess.run(["true"])), tried(lambda: os.system("true")), tried(lambda: os.fork()),
    tried(lambda: open(path + "/new", "w")), tried(lambda: os.open(path + "/new", os.O_CREAT | os.O_WRONLY)),
    tried(lambda: os.remove(path + "/file")), tried(lambda: os.rename(path + "/file", path + "/x")),
    tried(lambda: os.mkdir(path + "/x")), tried(lambda: os.kill(os.getppid(), 0)),
]).encode())
open(path + "/file").read()
"""


def test_python_refuses_it_too_where_the_kernel_does_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    answer = subprocess.run([sys.executable, "-c", PYTHON, str(tmp_path)], capture_output=True, check=True).stdout
    assert all("a decoder may not" in text for text in json.loads(answer)), answer
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_system_calls_have_the_numbers_of_this_machine() -> None:
    headers = {
        0: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        1: Path("/usr/include/asm-generic/unistd.h"),
    }
    seen = 0
    for column, header in headers.items():
        if not header.exists():
            continue
        seen += 1
        known = dict(re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", header.read_text()))
        for name, numbers in sandbox._ALLOWED.items():
            name = "fstatat" if column == 1 and name == "newfstatat" else name
            if numbers[column] >= 0:
                assert known[name] == str(numbers[column]), name
            else:
                assert name not in known
    if not seen:
        pytest.skip("no kernel headers here")


class Listener:
    """A server that counts who comes."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.visits = self.socket.getsockname()[1], 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.socket.accept()[0].close()
                self.visits += 1


def playlists(port: int) -> dict[str, bytes]:
    """Texts and containers that name an address."""
    url = f"http://127.0.0.1:{port}/x"
    texts = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}.ts\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{url}.mp4'\n",
        "list.mpd": f'<?xml version="1.0"?><MPD><Period><BaseURL>{url}.mp4</BaseURL></Period></MPD>',
        "list.sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
        "list.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}.png"/></svg>',
    }
    files = {name: text.encode() for name, text in texts.items()}
    files |= {f"{name}.mp4": data for name, data in files.items()} | {
        f"{name}.jpg": data for name, data in files.items()
    }
    # An HLS playlist in an AVI, as in the attack of 2017, and a QuickTime reference to media elsewhere.
    packet = b"#EXTM3U\n#EXTINF:1,\n" + url.encode() + b"\n"
    junk = b"LIST" + len(packet + b"GAB2").to_bytes(4, "little") + b"GAB2" + packet
    files["hls.avi"] = b"RIFF" + (len(junk) + 4).to_bytes(4, "little") + b"AVI " + junk
    whole = bombs.mp4(1.0)
    files["dref.mov"] = whole.replace(b"\0\0\0\x0curl \0\0\0\1", b"\0\0\0\x0curl \0\0\0\0")
    reference = bombs.box(
        b"rmra",
        bombs.box(
            b"rmda", bombs.box(b"rdrf", bytes(4), b"url ", (len(url) + 1).to_bytes(4, "big"), url.encode(), b"\0")
        ),
    )
    files["rmra.mov"] = bombs.box(b"ftyp", b"qt  ", bytes(4)) + bombs.box(b"moov", reference)
    return files


def test_no_file_makes_a_connection(tmp_path: Path) -> None:
    listener = Listener()
    for name, data in playlists(listener.port).items():
        path = tmp_path / name
        path.write_bytes(data)
        for opened in (isolation.opened, contextlib.nullcontext):
            with contextlib.suppress(MediaError), opened(path) as medium:
                medium = open_media(path) if isinstance(medium, Path) else medium
                assert isinstance(medium, Clip)
                for _ in medium.sound():
                    pass
    assert listener.visits == 0
    socket.create_connection(("127.0.0.1", listener.port)).close()
    time.sleep(0.1)
    assert listener.visits == 1  # it does count


def test_a_session_isolates_unless_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, media: dict[str, Path]
) -> None:
    path = media["photo.png"]
    session = Session(RedIsForged(TILED))
    trusting = Session(RedIsForged(TILED), isolate=False)
    apart, here = session(path), trusting(path)
    assert apart.environment["isolation"].startswith("process")
    assert here.environment["isolation"] == "none"
    np.testing.assert_array_equal(apart.heatmap, here.heatmap)
    assert session(path.read_bytes()).probability == here.probability
    monkeypatch.setattr("seamline.pipeline.open_media", lambda *_: pytest.fail("decoded here"))
    monkeypatch.setattr("seamline.batches.open_media", lambda *_: pytest.fail("decoded here"))
    assert [report.verdict for report in session.scan([path, tmp_path / "gone.png", path])][1] == "error"


def test_a_child_that_does_not_start_is_told(
    alone: None, monkeypatch: pytest.MonkeyPatch, media: dict[str, Path]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SeamlineError, match="did not start"):
        isolation.Job("open", media["photo.png"])


def test_many_threads_share_the_pool(media: dict[str, Path]) -> None:
    paths = [media["photo.png"], media["photo.jpg"], media["film.mp4"]] * 3
    found: dict[int, str | None] = {}

    def work(number: int) -> None:
        with isolation.opened(paths[number]) as medium:
            found[number] = medium.sha256

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: open_media(path).sha256 for i, path in enumerate(paths)}
    assert len(isolation._idle) <= isolation.KEPT
