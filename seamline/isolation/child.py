"""The program that decodes one file after another for another process: ``python -m seamline.isolation.child``.

It is started once, imports its decoders, and then waits for files. Where processes can be forked cheaply (Linux), each
file is decoded by a fork of its own, made in advance: no file sees what another left behind, and its memory is gone
when it is done. Elsewhere one process takes file after file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, BinaryIO

from .. import provenance
from ..errors import MediaError
from ..media import Clip, Image, Limits, archives, open_media
from . import sandbox, wire


def main(memory: int) -> None:
    """Serve files until the input ends."""
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):  # whatever a library prints is no message
        os.dup2(nowhere, number)
    os.close(nowhere)
    if sys.platform != "linux":
        held = sandbox.enter(memory)
        while serve(requests, answers, held):
            pass
        return
    peak = 0
    while True:
        child = os.fork()
        if child == 0:
            sandbox.die_with_parent()
            held = sandbox.enter(memory)
            os._exit(0 if serve(requests, answers, held, peak) else 1)
        _, status, usage = os.wait4(child, 0)
        peak = max(peak, usage.ru_maxrss)
        if os.WIFSIGNALED(status):  # end as the decoder did, so that the other side sees how
            with contextlib.suppress(OSError):  # as of SIGKILL, which nobody can catch
                signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
            os.kill(os.getpid(), os.WTERMSIG(status))
        if status:
            os._exit(os.WEXITSTATUS(status))


def serve(requests: BinaryIO, answers: BinaryIO, held: str, peak: int = 0) -> bool:
    """Answer all questions about one file; whether another may come. ``peak`` is what those before took, KiB."""
    try:
        wire.send(answers, {"held": held, "peak": peak})
        job, data = wire.receive(requests, sys.maxsize)
    except (wire.BrokenWire, OSError):
        return False
    try:
        sandbox.allow_cpu(job["cpu"])
        tasks = {"open": _open, "members": _members, "facts": _facts, "tensors": _tensors}
        for header, payload in tasks[job["task"]](job, bytes(data) if job["label"] is not None else None, requests):
            wire.send(answers, header, payload)
        return True
    except (wire.BrokenWire, BrokenPipeError):
        return False
    except Exception as cause:  # not foreseen, and of this file only
        with contextlib.suppress(OSError):
            wire.send(answers, {"failed": f"{job.get('path')}: cannot be decoded ({type(cause).__name__}: {cause})"})
        return True


Answers = Iterator[tuple[dict[str, Any], Any]]


def _open(job: dict[str, Any], data: bytes | None, requests: BinaryIO) -> Answers:
    """A photo at once; of a clip its facts, then pictures and sound as they are asked for."""
    try:
        limits = Limits(**job["limits"])
        if data is None:
            medium = open_media(job["path"], limits=limits)
        else:
            medium = archives.open_member(data, job["label"], limits)
    except MediaError as cause:
        yield {"failed": str(cause)}, b""
        return
    about = {f.name: getattr(medium, f.name) for f in fields(medium)}
    if isinstance(medium, Image):
        about |= {"pixels": list(medium.pixels.shape)}
        yield {"image": about}, medium.pixels
        return
    for key in ("video", "audio"):
        about[key] = about[key] and asdict(about[key])
    del about["source"]
    yield {"clip": about}, b""
    streams: list[Iterator[Any]] = []
    ready: dict[int, Any] = {}
    while "next" in (wanted := wire.receive(requests, 0)[0]):
        number = wanted["next"]
        if number == len(streams):
            sandbox.allow_cpu(job["cpu"])
            streams.append(_stream(medium, **wanted["of"]))
            ready[number] = _step(streams[number], job)
        header, payload = ready.pop(number)
        yield header | {"notes": medium.notes}, payload
        if "failed" not in header and "end" not in header:
            ready[number] = _step(streams[number], job)  # while the other side works on what it got


def _members(job: dict[str, Any], data: bytes | None, requests: BinaryIO) -> Answers:
    """The media of an archive, with their bytes if these are wanted."""
    try:
        for member in archives.members(job["path"], archives.ArchiveLimits(**job["archive"])):
            error, payload = member.error, b""
            if job["read"] and member.read is not None:
                try:
                    payload = member.read()
                except MediaError as cause:
                    error = str(cause)
            yield {"path": member.path, "error": error}, payload
    except MediaError as cause:
        yield {"failed": str(cause)}, b""
        return
    yield {"end": True}, b""


def _facts(job: dict[str, Any], data: bytes | None, requests: BinaryIO) -> Answers:
    """What the file says of where it came from."""
    try:
        found = provenance.read(job["path"], coordinates=job["coordinates"], trust=job["trust"])
    except MediaError as cause:
        yield {"failed": str(cause)}, b""
        return
    yield {"facts": found.to_dict()}, b""
    yield {"end": True}, b""


def _tensors(job: dict[str, Any], data: bytes | None, requests: BinaryIO) -> Answers:
    """What a checkpoint holds: a tree of plain values in which ``{"": number}`` stands for a tensor, then these."""
    import torch

    tensors: list[torch.Tensor] = []

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            tensors.append(value.detach().contiguous())
            return {"": len(tensors) - 1}
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items() if key != ""}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value if isinstance(value, (str, int, float, bool, type(None))) else None

    try:
        if job["path"].endswith(".safetensors"):
            from safetensors.torch import load_file

            held: Any = load_file(job["path"])
        else:
            held = torch.load(job["path"], map_location="cpu", weights_only=True)
        if not isinstance(held, dict):
            raise ValueError("it holds no named tensors")
        tree = plain(held)
    except Exception as cause:  # unpicklers raise nearly anything
        yield {"failed": f"{str(cause).splitlines()[0] if str(cause) else type(cause).__name__}"}, b""
        return
    yield {"tree": tree}, b""
    for tensor in tensors:
        about = {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        yield about, tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
    yield {"end": True}, b""


def _stream(clip: Clip, kind: str, **wanted: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    before = None
    for item in clip.frames(**wanted) if kind == "frames" else clip.sound(**wanted):
        yield {"shape": list(item.shape)}, b"" if item is before else item  # a picture that is still shown
        before = item
    yield {"end": True}, b""


def _step(stream: Iterator[tuple[dict[str, Any], Any]], job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    try:
        return next(stream)
    except MediaError as cause:
        return {"failed": str(cause)}, b""


if __name__ == "__main__":
    main(int(sys.argv[1]))
