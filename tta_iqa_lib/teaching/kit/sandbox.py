"""The grader's side of the wall: a student's function that runs elsewhere, and is called as if it were here (all chapters).

Arguments go over as data and come back as data. What the function does to its arguments is done to the caller's, too, and
gradients pass.
"""

from __future__ import annotations

import builtins
import contextlib
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker
from threading import Timer
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import student
from .walls import Limits
from .wire import NO_NUMBERS, TOO_DEEP, decode, encode

KNOWN = ("function", "method", "module", "generator", "dict_keys", "dict_values", TOO_DEEP, NO_NUMBERS)
ENVIRONMENT = (
    "PATH", "PYTHON", "VIRTUAL_ENV", "LD_", "DYLD_", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "ATEN_", "ONEDNN_", "DNNL_", "TORCH",
    "HOME", "USERPROFILE", "LANG", "LC_", "TEMP", "TMP", "SYSTEM", "WINDIR",
)  # fmt: skip
PRELOADED = ["tta_iqa_lib.teaching.kit.student", "tta_iqa_lib.metrics", "scipy.stats", "torch._dynamo"]


class StudentError(Exception):
    """The student's function stopped with an error. `kind`: its type; `line`: of the student's code, or ""."""

    def __init__(self, kind: str, line: str):
        super().__init__(kind)
        self.kind, self.line = kind, line

    @classmethod
    def told(cls, head: dict, code: str) -> StudentError:
        """From what a student's process says, of which only a choice among Python's words and those of its own code is believed:
        words that it makes up could carry the test's numbers out.
        """
        kind, lines = head["error"], code.splitlines()
        if kind == student.UNREADABLE:
            word = str(head.get("word"))
            known = word in KNOWN or hasattr(builtins, word) or word in re.findall(r"\w+", code)
            return cls(kind, word if known else "of a type of its own")
        known = isinstance(kind, str) and isinstance(getattr(builtins, kind, None), type)
        at = line if isinstance(line := head.get("line"), int) else 0
        return cls(
            kind if known else "an error of its own", lines[at - 1].strip()[:120] if 1 <= at <= len(lines) else ""
        )


class Stopped(Exception):
    """The student's process is gone: out of time, or it ended itself. The message says which."""


def _context():
    """A clean process for each function: forked from a server that has imported PyTorch and nothing else, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    """What multiprocessing would hand on to a new process is none of a student's: the grader's own program, its arguments and its
    environment, in which keys and passwords stand.
    """
    program, arguments, variables = sys.modules["__main__"], sys.argv, dict(os.environ)
    sys.modules["__main__"], sys.argv = ModuleType("__main__"), [""]
    for name in variables:
        if not name.upper().startswith(ENVIRONMENT):
            del os.environ[name]
    try:
        yield
    finally:
        sys.modules["__main__"], sys.argv = program, arguments
        os.environ.update(variables)


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """Ctrl-C waits for the end of this block, and processes that start in it never hear it. Not on Windows."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would let it through again, if it began in here
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Remote:
    """A function of a student's, in a process of its own that starts with the first call.

    Args:
        code: Python that defines it, and what it needs.
        name: of the function.
        limits: what it may use.
    """

    def __init__(self, code: str, name: str, limits: Limits | None = None):
        self.code, self.limits = code, limits or Limits()
        self.__name__ = name
        self.walls: list[str] = []
        self.calls = 0
        self._process = None
        self._late = False

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Raises: StudentError: the function raised. Stopped: it is gone, now or since an earlier call."""
        if self._process is None:
            self._start()
        (value, changed), answered = self._ask("call", [list(arguments), keywords])
        call, self.calls = self.calls, self.calls + 1
        for place, new in changed.items():
            _restore(arguments[int(place)], new)
        leaves = encode([list(arguments), keywords])[2]
        if answered and leaves and torch.is_grad_enabled():
            outputs = iter(_Gradients.apply(self, call, [a.detach() for a in answered], *leaves))  # type: ignore[arg-type]
            return _replace(value, {id(a): next(outputs) for a in answered})
        return _replace(value, {id(a): a.detach() for a in answered})

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process:
            self._kill()
            self._process.join(5)
            self._connection.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _start(self) -> None:
        context = _context()
        self._connection, theirs = context.Pipe()
        process = context.Process(  # type: ignore[attr-defined]
            target=student.serve, args=(theirs, self.code, self.__name__, self.limits), daemon=True
        )
        with interrupts_later(), _as_nobody():
            process.start()
            self._process = process  # from here on there is something to end
        theirs.close()
        (head, _), _ = self._receive(seconds=120)  # a slow machine may need a while to start Python
        self.walls = head["walls"]
        self._receive(seconds=self.limits.seconds)

    def _kill(self) -> None:
        process = self._process
        if process and process.pid:
            with contextlib.suppress(OSError, AttributeError):
                if os.getpgid(process.pid) == process.pid:  # it may not have got so far
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()

    def _run_out(self) -> None:
        self._late = True
        self._kill()

    def _ask(self, kind: str, payload: Any) -> tuple[Any, list[Tensor]]:
        structure, numbers, _ = encode([kind, payload])
        (_, value), leaves = self._receive(structure, numbers, seconds=self.limits.seconds)
        return value, leaves

    def _receive(self, *request: bytes, seconds: float) -> tuple[list, list[Tensor]]:
        """One exchange within the time that is allowed: ([head, value], leaves)."""
        if self._late:
            raise Stopped("it did not stop before")
        timer = Timer(seconds, self._run_out)
        timer.start()
        try:
            for part in request:
                self._connection.send_bytes(part)
            messages = [self._connection.recv_bytes(self.limits.answer) for _ in range(2)]
        except (EOFError, OSError):
            self._kill()
            if self._late:
                raise Stopped(f"it took longer than {self.limits.seconds:g} s, and was ended") from None
            raise Stopped(
                "its process is gone: a crash, an exit, too much processor time or too large an answer"
            ) from None
        finally:
            timer.cancel()
        try:
            (head, value), leaves = decode(*messages)
            if not isinstance(head, dict):
                raise ValueError
        except (ValueError, TypeError):  # the student's code has written on the line itself
            raise StudentError(student.UNREADABLE, "not an answer") from None
        if "error" in head:
            raise StudentError.told(head, self.code)
        return [head, value], leaves


class _Gradients(torch.autograd.Function):
    """Backward passes of the other process."""

    @staticmethod
    def forward(context, remote: Remote, call: int, answered: list[Tensor], *leaves: Tensor):
        context.remote, context.call = remote, call
        return tuple(answered)

    @staticmethod
    def backward(context, *slopes: Tensor):  # type: ignore[override]
        back, _ = context.remote._ask("backward", [context.call, [s.contiguous() for s in slopes]])
        return None, None, None, *back


def _restore(mine: Any, new: Any) -> None:
    """Write into the caller's argument what the function has written into its own."""
    with torch.no_grad(), contextlib.suppress(TypeError, ValueError, RuntimeError, AttributeError):
        if isinstance(mine, dict) and isinstance(new, dict):
            for key, value in new.items():
                if isinstance(mine.get(key), Tensor):
                    _restore(mine[key], value)
                else:
                    mine[key] = value
        elif isinstance(mine, list):
            mine[:] = new
        else:
            mine[...] = new


def _replace(value: Any, by_id: dict[int, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return by_id.get(id(value), value)
    if isinstance(value, list | tuple):
        return type(value)(_replace(item, by_id) for item in value)
    if isinstance(value, dict):
        return {key: _replace(item, by_id) for key, item in value.items()}
    return value
