"""What a student's function may use, and what keeps it from the rest (all chapters).

Everywhere: time (the grader kills the process), and Python's own calls that reach files, processes and sockets. Linux and macOS:
processor time, size of files. Linux: memory, and the kernel's walls (`kernel`), which hold for compiled code, too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from .kernel import wall_in

GIGABYTE = 2**30


@dataclass(frozen=True)
class Limits:
    """What one function may use.

    Attributes:
        seconds: of a call by the clock, and of loading the code.
        processor_seconds: of all calls together.
        memory: bytes beyond what Python and PyTorch have taken.
        answer: bytes of one answer.
    """

    seconds: float = 20.0
    processor_seconds: int = 60
    memory: int = 2 * GIGABYTE
    answer: int = 2**26


def readable_places() -> list[Path]:
    """What Python needs to import from: its own folders and this library; not the folder of the grades or of the notebooks."""
    library = Path(__file__).resolve().parents[2]
    packages = [Path(p).resolve() for p in sys.path if p and Path(p).name in ("site-packages", "dist-packages")]
    places = [Path(sys.prefix), Path(sys.base_prefix), *packages, library, library.parent / "data"]
    system = [
        "/usr/lib",
        "/usr/local/lib",
        "/usr/share",
        "/lib",
        "/lib64",
        "/etc/localtime",
        "/dev/urandom",
        "/dev/null",
    ]
    return [p.resolve() for p in [*places, *map(Path, system)] if p.exists()]


def shut(limits: Limits) -> list[str]:
    """Limit this process and shut it in, for good. What the kernel holds from now on, in words."""
    places = readable_places()
    holds = wall_in(places)
    _ration(limits)
    _refuse(places, REFUSED if holds else (*REFUSED, "ctypes."))
    return holds


def _ration(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    taken = 0
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        taken = pages * resource.getpagesize()
    wanted = {
        "RLIMIT_CPU": limits.processor_seconds,
        "RLIMIT_FSIZE": 0,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": 0 if sys.platform == "darwin" else None,  # on Linux it would count threads; see seccomp
        "RLIMIT_AS": taken + limits.memory if taken else None,
    }
    for name, value in wanted.items():
        if value is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                resource.setrlimit(getattr(resource, name), (value, value))


# Python announces these calls to an audit hook, and a hook cannot be taken off again.
REFUSED = (
    "socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile", "os.kill", "pty.",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime",
    "shutil.", "winreg.", "signal.pthread_kill", "sqlite3.", "ftplib.", "urllib.", "webbrowser.",
)  # fmt: skip
LOOKS = ("open", "os.listdir", "os.scandir")


def _refuse(places: list[Path], calls: tuple[str, ...]) -> None:
    inside = tuple(str(place) for place in places)
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def hook(event: str, arguments: tuple) -> None:
        if event in LOOKS:
            path, flags = arguments[0], arguments[2] if event == "open" else 0
            if isinstance(path, int):
                return
            place = os.path.realpath(os.fsdecode(path if path is not None else "."))
            mine = any(place == p or place.startswith(p + os.sep) for p in inside)
            if not mine or (isinstance(flags, int) and flags & writes and place != os.devnull):
                raise PermissionError("files are out of reach here")
        elif event.startswith(calls):
            raise PermissionError("processes, sockets and changes to files are out of reach here")

    sys.addaudithook(hook)
