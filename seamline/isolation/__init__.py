"""Media decoded in other processes, which may do nothing but decode.

``with opened(path) as medium`` gives the same :class:`Image` or :class:`Clip` as :func:`seamline.media.open_media`, but
the bytes of strangers are parsed by a child process inside a sandbox (``sandbox.py``), and only pixels, samples and
facts come back, over a pipe (``wire.py``). A child that crashes, hangs, or wants too much is an error of that one file;
the pool starts another. The processes are warm and used again: ``child.py`` says how files are kept apart all the same.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ..errors import MediaError, SeamlineError
from ..media import Audio, Clip, Image, Limits, Video
from ..media.archives import ArchiveLimits, Member
from . import wire

MEMORY = 4 * 2**30  # bytes of address space; the largest picture within Limits() needs about 3 GiB
KEPT = 2  # idle processes: one decodes while what the other gave is judged
_BASE = 60.0  # seconds that any file may take ...
_READ = 10e6  # ... and one more for so many of its bytes,
_CLIP = 10.0  # so many for each second of a clip that is really there,
_HELD = 10.0  # where a picture stands for so many seconds at most,
_RATE = 100.0  # and so many bytes for a second of sound at least
_THREADS = 4  # of a decoder, each of which uses processor time
_PIPE = 2**20  # bytes that wait between the processes, where the system grants it
_SOON, _START = 30.0, 120.0  # seconds until a child has put its last file away, and until a new one has started


def allowance(size: int, duration: float = 0.0, pictures: int = 0) -> float:
    """Seconds that a file may take, from its bytes and what its header says; a header alone buys no time."""
    return _BASE + size / _READ + _CLIP * min(duration, _HELD * pictures + size / _RATE)


@contextlib.contextmanager
def opened(
    source: str | os.PathLike[str] | bytes, limits: Limits | None = None, label: str = "<bytes>"
) -> Iterator[Image | Clip]:
    """Open a file, or bytes that are called ``label``, as :func:`seamline.media.open_media` does, but elsewhere.

    A clip is read through the other process, and can be for as long as this context lasts.

    Raises:
        MediaError: as there; or its decoder crashed, took too long, or wanted too much.
    """
    path, data = (label, source) if isinstance(source, bytes) else (source, None)
    with Job("open", path, data, limits) as job:
        yield job.medium()


def held() -> str:
    """What the sandbox of the last child held, in words; see :func:`seamline.isolation.sandbox.enter`."""
    return _held or "none"


def peak() -> int:
    """The most memory that any file took so far in a child, bytes; 0 where files are not kept apart."""
    return _peak


def members(path: str | os.PathLike[str], limits: ArchiveLimits | None = None) -> list[Member]:
    """The media in an archive without their bytes: each has ``error`` or none.

    Raises:
        MediaError: the archive is missing, damaged or over a limit.
    """
    with Job("members", path, archive=asdict(limits or ArchiveLimits()), read=False) as job:
        return [Member(str(header["path"]), None, header["error"]) for header, _ in job.answers(0)]


def unpacked(path: str | os.PathLike[str], limits: ArchiveLimits | None = None) -> Iterator[tuple[Member, bytes]]:
    """The same media with their bytes, one after another, as they are asked for.

    Raises:
        MediaError: as of :func:`members`.
    """
    limits = limits or ArchiveLimits()
    with Job("members", path, archive=asdict(limits), read=True) as job:
        for header, payload in job.answers(limits.member):
            yield Member(str(header["path"]), None, header["error"]), bytes(payload)


def facts(path: str | os.PathLike[str], coordinates: bool = False, trust: str | None = None) -> dict[str, Any]:
    """What :func:`seamline.provenance.read` tells of a file, as a dict, read elsewhere.

    Raises:
        MediaError: as there; or its reader crashed, took too long, or wanted too much.
    """
    with Job("facts", path, coordinates=coordinates, trust=trust) as job:
        ((header, _),) = job.answers(0)
        return dict(header["facts"])


class Job:
    """One file given to a child process that no other file is given to meanwhile. Close it when done."""

    def __init__(
        self,
        task: str,
        path: str | os.PathLike[str],
        data: bytes | None = None,
        limits: Limits | None = None,
        memory: int | None = None,
        **wanted: Any,
    ) -> None:
        """Begin ``task`` (see ``child.py``). With ``data``, ``path`` is only what these bytes are called.

        ``memory`` is more address space than usual, for a process that is used for this only.
        """
        self.path, self.limits = os.fspath(path), limits or Limits()
        self.size = len(data) if data is not None else _size(self.path)
        self.streams = 0  # of pictures and samples that were asked for
        self._done = False  # whether the child has nothing more to say
        self._worker = _take() if memory is None else _begun(memory)
        self._end = weakref.finalize(self, self._worker.kill)
        header = {
            "task": task,
            "path": self.path,
            "label": self.path if data is not None else None,
            "limits": asdict(self.limits),
            "cpu": _THREADS * allowance(self.size),
            **wanted,
        }
        with self._answering(), self._worker.hurried(allowance(self.size)):
            self._worker.send(header, data or b"")

    def answers(self, most: int) -> Iterator[tuple[dict[str, Any], bytearray]]:
        """What the child sends until it says that this is all; no payload has more than ``most`` bytes.

        Raises:
            MediaError: the child reports one, was stopped, or did not keep to the form.
        """
        while True:
            with self._answering(), self._worker.hurried(allowance(self.size)):
                header, payload = self._worker.receive(most)
                if "end" in header:
                    self._done = True
                    return
                if "failed" in header:
                    self._done = True
                    raise MediaError(str(header["failed"]))
            yield header, payload

    def medium(self) -> Image | Clip:
        """The photo, or the clip, which reads through the child until the job is closed.

        Raises:
            MediaError: as of :func:`seamline.media.open_media`, or as of :meth:`answers`.
        """
        with self._answering(), self._worker.hurried(allowance(self.size)):
            header, payload = self._worker.receive(3 * self.limits.pixels)
            self._done = "clip" not in header
            if "failed" in header:
                raise MediaError(str(header["failed"]))
            if "image" in header:
                facts = _facts(header["image"], self.path)
                height, width, _ = facts.pop("pixels")
                return Image(**facts, pixels=np.frombuffer(payload, np.uint8).reshape(int(height), int(width), 3))
            facts = _facts(header["clip"], self.path)
            for key, of in (("video", Video), ("audio", Audio)):
                facts[key] = facts[key] and of(**facts[key])
            clip = RemoteClip(**facts, job=self)
            self._worker.hurry(allowance(self.size, clip.duration, clip.video.frames or 0 if clip.video else 0))
        return clip

    def ask(self, request: dict[str, Any], most: int) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
        """Of a clip, the next picture or samples as bytes."""
        with self._answering():
            if self._done:
                raise MediaError(f"{self.path}: was closed; open it again to read on")
            self._worker.send(request)
            header, payload = self._worker.receive(most)
            if "failed" in header:
                raise MediaError(str(header["failed"]))
            return header, np.frombuffer(payload, np.uint8)

    def close(self) -> None:
        """Let the process take another file, or end it if it is in the middle of something."""
        if self._end.detach() is None:
            return
        try:
            if not self._done:
                self._done = True
                self._worker.send({})
            self._worker.hurry(None)
            _give_back(self._worker)
        except wire.BrokenWire:
            self._worker.kill()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """What goes wrong with the child becomes an error of this file."""
        try:
            yield
        except wire.BrokenWire as cause:
            self._done = True
            raise MediaError(f"{self.path}: {self._worker.epitaph()}") from cause
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as cause:
            self._done = True
            self._worker.kill()
            raise MediaError(f"{self.path}: its decoder gave nonsense ({cause}); do not trust this file") from cause


@dataclass(frozen=True, eq=False)
class RemoteClip(Clip):
    """A clip whose pictures and samples another process decodes."""

    job: Job | None = None

    def frames(
        self, fps: float = 25.0, start: float = 0.0, stop: float | None = None
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """As :meth:`seamline.media.Clip.frames`."""
        if not fps > 0 or start < 0:
            raise ValueError(f"fps={fps} and start={start}: give a rate above 0 and a start of 0 or later")
        if self.video is None:
            return
        shape = (self.video.height, self.video.width, 3)
        shown = np.zeros(shape, np.uint8)
        for data in self._stream({"kind": "frames", "fps": fps, "start": start, "stop": stop}, math.prod(shape)):
            shown = data.reshape(shape) if len(data) else shown  # nothing: the same as before
            yield shown

    def sound(self, rate: int = 16000, block: float = 1.0) -> Iterator[npt.NDArray[np.float32]]:
        """As :meth:`seamline.media.Clip.sound`."""
        if rate < 1 or not block > 0:
            raise ValueError(f"rate={rate} and block={block}: give a rate of 1 or more and a block above 0")
        if self.audio is None:
            return
        most = 4 * max(1, round(rate * block))
        for data in self._stream({"kind": "sound", "rate": rate, "block": block}, most):
            yield np.nan_to_num(data.view(np.float32))

    def _stream(self, of: dict[str, Any], most: int) -> Iterator[npt.NDArray[np.uint8]]:
        assert self.job is not None
        number, self.job.streams = self.job.streams, self.job.streams + 1
        while True:
            header, data = self.job.ask({"next": number, "of": of}, most)
            self.notes[:] = [str(note) for note in header["notes"]]
            if "end" in header:
                return
            with self.job._answering():
                if len(data) not in (0, most) if of["kind"] == "frames" else len(data) % 4:
                    raise ValueError(f"{len(data)} bytes")
            yield data


def _facts(given: dict[str, Any], path: str) -> dict[str, Any]:
    """Fields of an Image or a Clip from JSON."""
    facts = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return facts | {"path": path} | ({"notes": list(facts["notes"])} if "notes" in facts else {})


def _size(path: str) -> int:
    """Bytes of a file, 0 if it cannot be told: the child will say why."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


def _folder() -> str:
    """Where this process is, from which paths that are not absolute lead; empty where that was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return ""


class _Worker:
    """A child process, and the watch over it."""

    def __init__(self, memory: int) -> None:
        self.memory, self.owner, self.folder = memory, os.getpid(), _folder()
        paths = [os.path.abspath(path) for path in sys.path]
        quiet = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "seamline.isolation.child", str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # a group of its own, which can be ended whole, and which no Ctrl-C reaches
        )
        with contextlib.suppress(ImportError, AttributeError, OSError):  # fewer changes from process to process
            import fcntl

            fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, _PIPE)  # type: ignore[arg-type]
        self.late: float | None = None  # the seconds after which it was stopped
        self._timer: threading.Timer | None = None

    def ready(self, seconds: float) -> bool:
        """Whether it takes a file, or will within so many seconds; else it is ended."""
        global _held, _peak
        try:
            with self.hurried(seconds):
                told = self.receive(0)[0]
            _held, _peak = str(told["held"]), max(_peak, 1024 * int(told["peak"]))
        except (wire.BrokenWire, KeyError, TypeError, ValueError):
            self.kill()
            return False
        return True

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        try:
            wire.send(cast("BinaryIO", self.process.stdin), header, payload)
        except (OSError, ValueError) as cause:
            raise wire.BrokenWire(str(cause)) from cause

    def receive(self, most: int) -> tuple[dict[str, Any], bytearray]:
        return wire.receive(cast("BinaryIO", self.process.stdout), most)

    def hurry(self, seconds: float | None) -> None:
        """End it after so many seconds, unless told otherwise before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if seconds is not None:
            self._timer = threading.Timer(seconds, self._too_late, [seconds])
            self._timer.daemon = True
            self._timer.start()

    @contextlib.contextmanager
    def hurried(self, seconds: float) -> Iterator[None]:
        """The same for what happens in this context."""
        self.hurry(seconds)
        timer = self._timer
        try:
            yield
        finally:
            if self._timer is timer:
                self.hurry(None)

    def _too_late(self, seconds: float) -> None:
        self.late = seconds
        self._signal()

    def _signal(self) -> None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()

    def kill(self) -> None:
        """End it and what it started; a fork of the process that started it leaves it alone."""
        if os.getpid() != self.owner:
            return
        self.hurry(None)
        if self.process.poll() is None:
            self._signal()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def epitaph(self) -> str:
        """What became of it, and what to do; it is ended if it was not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        code = self.process.poll()
        self.kill()
        if self.late is not None or code == -getattr(signal, "SIGXCPU", 0):
            return f"took longer than {self.late or 0:.0f} s to read, so it was given up; cut it or make it smaller"
        if code == -signal.SIGTERM or code == -getattr(signal, "SIGKILL", 0):
            return "its decoder was killed, most likely for want of memory; make it smaller"
        name = signal.Signals(-code).name if code is not None and code < 0 else f"code {code}"
        return f"its decoder crashed ({name}); the file is damaged or means harm"


_idle: list[_Worker] = []
_held = ""
_peak = 0
_lock = threading.Lock()


def _take() -> _Worker:
    """A child that waits for a file."""
    while True:
        with _lock:
            worker = _idle.pop() if _idle else None
        if worker is None:
            break
        if worker.folder == _folder() and worker.ready(_SOON):
            return worker
        worker.kill()  # it is gone, or it is where this process no longer is
    return _begun(MEMORY)


def _begun(memory: int) -> _Worker:
    worker = _Worker(memory)
    if not worker.ready(_START):
        raise SeamlineError(
            f"the process that decodes media did not start ({sys.executable} -m seamline.isolation.child);"
            " mend the installation, or scan files that you trust without isolation"
        )
    return worker


def _give_back(worker: _Worker) -> None:
    with _lock:
        if len(_idle) < KEPT and worker.memory == MEMORY:
            _idle.append(worker)
            return
    worker.kill()


def shut() -> None:
    """End the idle processes."""
    with _lock:
        workers, _idle[:] = list(_idle), []
    for worker in workers:
        worker.kill()


atexit.register(shut)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # they are the parent's
