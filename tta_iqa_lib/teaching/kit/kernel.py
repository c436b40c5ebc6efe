"""Walls that Linux builds around a process, and that it cannot leave again: Landlock, seccomp, no capabilities (all chapters).

None needs a privilege. Landlock (Linux 5.13) hides the files, seccomp forbids new processes and sockets, signals to others,
changes to files by their names, and whatever would outlive the process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
from pathlib import Path

MACHINES = ("x86_64", "aarch64")
# Numbers of system calls on these two machines: what starts programs and processes, reaches other processes or opens sockets;
# what changes a file by its name and Landlock lets pass; what outlives a process and so could carry a word to the next one.
DENIED = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97),
    "setns": (308, 268), "bpf": (321, 280), "io_uring_setup": (425, 425), "socket": (41, 198), "connect": (42, 203),
    "socketpair": (53, 199), "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "ptrace": (101, 117), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "perf_event_open": (298, 241), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274), "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463), "removexattrat": (466, 466),
    "file_setattr": (469, 469), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
}  # fmt: skip
# Allowed for some arguments.
CLONE, PRLIMIT, TGKILL, PRCTL, FCNTL, IOCTL = (56, 220), (302, 261), (234, 131), (157, 167), (72, 25), (16, 29)
ARCHITECTURE = (0xC000003E, 0xC00000B7)
FCNTL_OWNER = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: what a file is ready for would be a signal to any process
IOCTL_OWNER = (0x8901, 0x8902)  # FIOSETOWN, SIOCSPGRP: the same
CLONE3, CLONE_THREAD = 435, 0x10000
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
READ = 1 << 2 | 1 << 3  # files, folders

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def undumpable() -> None:
    """Other processes of this user can neither read this one's memory nor trace it. Without Linux: nothing happens."""
    if _libc:
        _libc.prctl(4, 0, 0, 0, 0)


def end_with_parent() -> None:
    """This process is killed when the one that started it ends. Without Linux: nothing happens."""
    if _libc:
        _libc.prctl(1, signal.SIGKILL, 0, 0, 0)


def wall_in(readable: list[Path]) -> list[str]:
    """Shut this process in, for good. What holds from now on, in words; empty where this system has none of it."""
    machine = platform.machine()
    if not _libc or machine not in MACHINES or _libc.prctl(38, 1, 0, 0, 0):  # no new privileges
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
    number, architecture, first, second = 0, 4, 16, 24  # where they lie in what the filter sees
    here = MACHINES.index(machine)
    program = [(load, 0, 0, architecture), (equal, 1, 0, ARCHITECTURE[here]), (give, 0, 0, refuse)]
    program += [(load, 0, 0, number), (at_least, 0, 1, 0x40000000), (give, 0, 0, refuse)]
    for call in (numbers[here] for numbers in DENIED.values()):
        program += [(equal, 0, 1, call), (give, 0, 0, refuse)] if call else []
    program += [(equal, 0, 1, CLONE3), (give, 0, 0, unknown)]  # its flags lie in memory; libraries then take clone

    def weigh(
        call: tuple[int, int], argument: int, test: int, values: tuple[int, ...], then: int, otherwise: int
    ) -> None:
        body = [(load, 0, 0, argument)]
        body += [step for value in values for step in ((test, 0, 1, value), (give, 0, 0, then))]
        program.extend([(equal, 0, len(body) + 1, call[here]), *body, (give, 0, 0, otherwise)])

    weigh(CLONE, first, bits, (CLONE_THREAD,), allow, refuse)
    weigh(PRLIMIT, first, equal, (0,), allow, refuse)  # this process's own
    weigh(TGKILL, first, equal, (os.getpid(),), allow, refuse)
    weigh(PRCTL, first, equal, (1,), refuse, allow)  # it ends with the grader
    weigh(FCNTL, second, equal, FCNTL_OWNER, refuse, allow)
    weigh(IOCTL, second, equal, IOCTL_OWNER, refuse, allow)
    program.append((give, 0, 0, allow))
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    lines = ctypes.create_string_buffer(code)
    whole = struct.pack("HxxxxxxP", len(program), ctypes.addressof(lines))
    done = _libc.prctl(22, 2, whole, 0, 0) == 0  # type: ignore[union-attr]
    return "processes and sockets (seccomp)" if done else ""
