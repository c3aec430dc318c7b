"""What a decoding process may do, enforced by the system as far as the system can. Entered once, never left.

* Everywhere: Python itself refuses sockets, processes and writing (an audit hook). It stops a mistake, not a decoder
  that was taken over, which no longer runs Python.
* Unix (``resource``): limits of memory, processor time and open files; no byte can be written to any file. Linux holds
  a process to its memory; macOS accepts the limit and does not.
* Linux on x86-64 and 64-bit ARM (seccomp): the kernel refuses every system call but those of reading files, memory,
  threads of the same process, and time. So there is no network, no program or process started, no file created,
  written, renamed or deleted, no other process signalled, traced or limited, whoever asks.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

OPEN_FILES = 64  # of a decoding process: the file, the pipe, and what imports hold open

# System calls by name: their numbers on x86-64 and on 64-bit ARM (-1: there is none).
_ALLOWED = {
    # reading what is open, and opening to read (see _program)
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "preadv": (295, 69), "lseek": (8, 62), "close": (3, 57),
    "stat": (4, -1), "lstat": (6, -1), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, -1), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, -1),
    "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17), "fadvise64": (221, 223), "dup": (32, 23),
    # writing to what is open, which is the pipe
    "write": (1, 64), "writev": (20, 66), "poll": (7, -1), "ppoll": (271, 73),
    # memory
    "brk": (12, 214), "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226),
    "madvise": (28, 233), "mincore": (27, 232), "membarrier": (324, 283),
    # threads and signals of this process
    "futex": (202, 98), "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120),
    # time, chance, and who and where we are
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "times": (100, 153), "getrandom": (318, 278), "getrusage": (98, 165),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "uname": (63, 160), "sysinfo": (99, 179), "getcpu": (309, 168),
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH

# struct seccomp_data: the number, the architecture, and from byte 16 on six arguments of eight bytes.
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16
_LOAD, _EQUAL, _ANY, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF: ld [k]; jeq #k; jset #k; ret #k
_PASS, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NO_SUCH_CALL, _NOT_PERMITTED = 38, 1  # errno; for what is not listed, the C library then tries an older way
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CLONE_THREAD = 0x10000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_SET_PDEATHSIG, _FILTER = 38, 22, 1, 2

# Events of Python's own that a decoder has no use for.
_REFUSED = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile",
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "os.utime", "os.setxattr", "os.kill", "shutil.", "ftplib.", "urllib.", "http.", "smtplib.", "webbrowser.",
    "winreg.", "tempfile.",
)  # fmt: skip


def enter(memory: int) -> str:
    """Give up everything that decoding does not need. ``memory`` is the address space in bytes.

    Returns:
        What holds now, in words: ``"process"``, then what of ``"limits"`` and ``"system calls"`` there is here.
    """
    held = ["process"]
    if resource is not None:
        # Root is not counted, and Linux counts threads as processes: there the filter forbids new processes.
        limits = {"RLIMIT_AS": memory, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": OPEN_FILES}
        if sys.platform != "linux":
            limits["RLIMIT_NPROC"] = 0
        for name, value in limits.items():
            number = getattr(resource, name)
            most = resource.getrlimit(number)[1]
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(number, (value, value))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write then fails instead
        held.append("limits")
    sys.addaudithook(_audit)
    if sys.platform == "linux" and _filtered():
        held.append("system calls")
    return ", ".join(held)


def allow_cpu(seconds: float) -> None:
    """Let this process use so much processor time from now on; then the system ends it."""
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = resource.getrlimit(resource.RLIMIT_CPU)[1]
        wanted = int(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def die_with_parent() -> None:
    """On Linux, be killed as soon as the process that started this one ends, however it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & _TO_WRITE):
            raise PermissionError("a decoder may not write to files")
    elif event.startswith(_REFUSED):
        raise PermissionError(f"a decoder may not use {event}")


def _filtered() -> bool:
    """Hand the kernel the list of system calls; whether it took it."""
    if platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        return False
    program = _program(*_MACHINES[platform.machine()])
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in program))
    pointer = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(library.prctl(_PR_SET_SECCOMP, _FILTER, pointer, 0, 0) == 0)


def _program(column: int, arch: int) -> list[tuple[int, int, int, int]]:
    """The filter as lines of BPF: (operation, lines to skip if true, if false, constant)."""
    refuse = (_RETURN, 0, 0, _ERRNO | _NOT_PERMITTED)
    allow = (_RETURN, 0, 0, _PASS)
    low = _ARGUMENT  # the low half of the first argument; the machines are little-endian
    program = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]

    def checked(numbers: tuple[int, int], argument: int, *test: tuple[int, int, int, int]) -> None:
        """Allow a call only if the test of one of its arguments skips the refusal."""
        body = [(_LOAD, 0, 0, low + 8 * argument), *test, refuse, allow]
        if numbers[column] >= 0:
            program.extend([(_EQUAL, 0, len(body), numbers[column]), *body])

    checked((257, 56), 2, (_ANY, 0, 1, _TO_WRITE))  # openat, to read only
    checked((2, -1), 1, (_ANY, 0, 1, _TO_WRITE))  # open, likewise
    checked((56, 220), 0, (_ANY, 1, 0, _CLONE_THREAD))  # clone: threads, no processes
    checked((302, 261), 0, (_EQUAL, 1, 0, 0))  # prlimit64: of this process
    checked((234, 131), 0, (_EQUAL, 1, 0, os.getpid()))  # tgkill: to this process, as abort() does
    known = [0, 1, 2, 3, 1030]  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC
    checked((72, 25), 1, *((_EQUAL, len(known) - i, 0, command) for i, command in enumerate(known)))  # fcntl
    for numbers in _ALLOWED.values():
        if numbers[column] >= 0:
            program += [(_EQUAL, 0, 1, numbers[column]), allow]
    return [*program, (_RETURN, 0, 0, _ERRNO | _NO_SUCH_CALL)]
