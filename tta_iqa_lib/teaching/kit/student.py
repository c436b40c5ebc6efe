"""The student's side of the wall: a process that holds one function, and answers calls (all chapters).

It is started clean, and never holds a test, another student's work or a grade.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import torch

from .kernel import end_with_parent
from .walls import Limits, shut
from .wire import decode, encode

FILE = "<student>"
UNREADABLE = "unreadable"


def serve(connection: Connection, code: str, name: str, limits: Limits) -> None:
    """Load `code`, then answer calls of its function `name` until the grader hangs up."""
    _settle_in(connection)
    _reply(connection, {"walls": shut(limits)}, None)  # from here on the clock of the limits runs
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(code, FILE, "exec"), namespace)
        function = namespace[name]
    except BaseException as error:
        _reply(connection, _report(error), None)
        return
    _reply(connection, {"ok": True}, None)
    answers: list[tuple[list, list]] = []  # for each call, what the gradient goes back to, and from
    while True:
        try:
            request = connection.recv_bytes(), connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            kind, payload = decode(*request)[0]
            if kind == "backward":
                call, slopes = payload
                inputs, outputs = answers[call]
                # As one sum: given slopes would make PyTorch import a computer algebra, which takes seconds.
                first, *rest = ((o * s).sum() for o, s in zip(outputs, slopes, strict=True))
                back = torch.autograd.grad(sum(rest, first), inputs, retain_graph=True, allow_unused=True)
                _reply(connection, {"ok": True}, list(back))
                continue
            (_, (arguments, keywords)), inputs = decode(*request)
            before = [_fingerprint(a) for a in arguments]
            with torch.set_grad_enabled(True):
                value = function(*arguments, **keywords)
            changed = {str(i): a for i, a in enumerate(arguments) if _fingerprint(a) != before[i]}
            try:
                outputs = encode(value)[2]
            except TypeError as error:
                _reply(connection, {"error": UNREADABLE, "word": str(error)}, None)
                continue
            answers.append((inputs, outputs))
            _reply(connection, {"ok": True}, [value, changed])
        except BaseException as error:
            _reply(connection, _report(error), None)


def _settle_in(connection: Connection) -> None:
    """A session of its own, that can be killed as one; no output, no open file but the line to the grader."""
    if hasattr(os, "setsid"):
        os.setsid()
    end_with_parent()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    if hasattr(os, "closerange") and os.name == "posix":
        os.closerange(3, connection.fileno())
        os.closerange(connection.fileno() + 1, 4096)
    sys.stdin, sys.stdout, sys.stderr = (open(os.devnull, mode) for mode in ("r", "w", "w"))  # noqa: SIM115 (for good)
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # an optimiser would import it, and behind the walls it cannot


def _fingerprint(value: Any) -> tuple[bytes, bytes] | None:
    try:
        return encode(value)[:2]
    except TypeError:
        return None


def _reply(connection: Connection, head: dict, value: Any) -> None:
    structure, numbers, _ = encode([head, value])
    connection.send_bytes(structure)
    connection.send_bytes(numbers)


def _report(error: BaseException) -> dict:
    """Its type, and the line of the student's code; never its message, which could carry the test's own numbers."""
    at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    memory = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate" in str(error))
    return {"error": "MemoryError" if memory else type(error).__name__, "line": at[-1] if at else 0}
