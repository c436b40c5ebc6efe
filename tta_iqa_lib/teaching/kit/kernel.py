"""Walls that Linux builds around a process, and that it cannot leave again: Landlock, seccomp, no capabilities (all chapters).

None needs a privilege. Landlock (Linux 5.13) hides the files, seccomp forbids new processes and sockets.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from pathlib import Path

# Numbers of system calls, by machine: those that start programs or processes, reach other processes, or open sockets.
DENIED = {
    "x86_64": [57, 58, 59, 322, 41, 42, 53, 62, 101, 272, 308, 310, 311, 321, 424, 425, 434, 438],
    "aarch64": [221, 281, 198, 199, 203, 129, 117, 97, 268, 270, 271, 280, 424, 425, 434, 438],
}
CLONE = {"x86_64": 56, "aarch64": 220}
PRLIMIT = {"x86_64": 302, "aarch64": 261}
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE3, CLONE_THREAD = 435, 0x10000
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ = 1 << 2 | 1 << 3  # files, folders

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def undumpable() -> None:
    """Other processes of this user can neither read this one's memory nor trace it. Without Linux: nothing happens."""
    if _libc:
        _libc.prctl(4, 0, 0, 0, 0)


def wall_in(readable: list[Path]) -> list[str]:
    """Shut this process in, for good. What holds from now on, in words; empty where this system has none of it."""
    machine = platform.machine()
    if not _libc or machine not in DENIED or _libc.prctl(38, 1, 0, 0, 0):  # no new privileges
        return []
    _drop_capabilities()
    holds = [_landlock(readable), _seccomp(machine)]
    return [wall for wall in holds if wall]


def _drop_capabilities() -> None:
    """A grader that root runs must not lend root's powers."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    _libc.capset(header, ctypes.create_string_buffer(24))  # type: ignore[union-attr]


def _landlock(readable: list[Path]) -> str:
    call = _libc.syscall  # type: ignore[union-attr]
    version = call(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return ""
    files = (1 << {1: 13, 2: 14}.get(version, 15)) - 1
    ports = 3 if version >= 4 else 0
    scope = 3 if version >= 6 else 0  # no signal leaves, nor a word to an abstract socket
    rules = struct.pack("QQQ", files, ports, scope)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = call(LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0:
        return ""
    for path in readable:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        allowed = READ if path.is_dir() else 1 << 2
        call(LANDLOCK_ADD, ruleset, 1, struct.pack("<Qi", allowed, place), 0)
        os.close(place)
    done = call(LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return "files (Landlock)" if done else ""


def _seccomp(machine: str) -> str:
    """A filter of classic BPF: load a word, jump if it equals, return."""
    load, equal, at_least, bits, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38  # EPERM; ENOSYS
    number, architecture, first = 0, 4, 16  # where they lie in what the filter sees
    program = [(load, 0, 0, architecture), (equal, 1, 0, ARCHITECTURE[machine]), (give, 0, 0, refuse)]
    program += [(load, 0, 0, number), (at_least, 0, 1, 0x40000000), (give, 0, 0, refuse)]
    for denied in DENIED[machine]:
        program += [(equal, 0, 1, denied), (give, 0, 0, refuse)]
    program += [(equal, 0, 1, CLONE3), (give, 0, 0, unknown)]  # its flags lie in memory; libraries then take clone
    program += [(equal, 0, 3, CLONE[machine]), (load, 0, 0, first), (bits, 1, 0, CLONE_THREAD), (give, 0, 0, refuse)]
    program += [(load, 0, 0, number), (equal, 0, 3, PRLIMIT[machine])]
    program += [(load, 0, 0, first), (equal, 1, 0, 0), (give, 0, 0, refuse), (give, 0, 0, allow)]
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    lines = ctypes.create_string_buffer(code)
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(lines))
    done = _libc.prctl(22, 2, whole, 0, 0) == 0  # type: ignore[union-attr]
    return "processes and sockets (seccomp)" if done else ""
