"""The wall: what a student's function can do through it, and what it cannot."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tta_iqa_lib.teaching.kit import kernel, sandbox, wire
from tta_iqa_lib.teaching.kit.sandbox import Remote, Stopped, StudentError
from tta_iqa_lib.teaching.kit.walls import Limits

SHORT = Limits(seconds=1.5)
FORGED = """
import os
def f(x):
    for line in range(3, 64):  # one of them leads to the grader
        try:
            os.write(line, 2 * b'\\0\\0\\0\\2{}')
        except OSError:
            pass
"""


def answer(code, *arguments, limits=None, **keywords):
    with Remote(code, "f", limits) as function:
        return function(*arguments, **keywords)


def test_values_come_over_as_they_are():
    value = [1, 2.5, "ü", None, True, (torch.arange(3), {"a": np.arange(4.0), 2: [torch.tensor(1.5)]}), ...]
    back = wire.decode(*wire.encode(value)[:2])[0]
    assert back[:5] == value[:5] and back[6] is ...
    assert torch.equal(back[5][0], value[5][0]) and back[5][0].dtype == torch.int64
    assert isinstance(back[5][1]["a"], np.ndarray) and back[5][1][2][0] == 1.5
    for impossible in (object(), [[[[[[[[[[[1]]]]]]]]]]], np.array(["a"])):
        with pytest.raises(TypeError):
            wire.encode(impossible)
    with pytest.raises(ValueError, match="cannot be read"):
        wire.decode(b'{"tensor": "7"}', wire.encode(1)[1])


def test_the_function_is_called_as_if_it_were_here():
    code = "def f(x, scale=1):\n    return {'a': [x * scale, x.sum()], 'n': scale}"
    with Remote(code, "f") as function:
        found = function(torch.arange(3.0), scale=2)
        assert found["a"][0].tolist() == [0, 2, 4] and found["a"][1] == 3 and found["n"] == 2
        assert function(np.array([1.0]))["a"][0].dtype == np.float64


def test_what_it_does_to_its_arguments_is_done_to_the_callers():
    x, state = torch.zeros(3), {"shift": torch.zeros(2), "steps": 0}
    answer("def f(x, state):\n    x += 1\n    state['shift'] += 5\n    state['steps'] = 2\n    return 0", x, state)
    assert x.tolist() == [1, 1, 1] and state["shift"].tolist() == [5, 5] and state["steps"] == 2


def test_gradients_pass_through_the_wall():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with Remote("def f(x, k):\n    return [k * (x**3).sum(), x * 2, 7]", "f") as function:
        first, second, rest = function(x, 4)
        (slope,) = torch.autograd.grad(first + second[0], x)
        assert slope.tolist() == [14, 48] and rest == 7
        with torch.no_grad():
            assert not function(x, 4)[0].requires_grad
    assert not answer("def f(x): return x.detach()", x).requires_grad


def test_an_optimiser_works_behind_the_wall():
    """PyTorch's import more of it when they are first used."""
    code = """
import torch
def f(x):
    p = torch.zeros(1, requires_grad=True)
    for optimiser in (torch.optim.SGD([p], lr=0.5), torch.optim.Adam([p], lr=0.5)):
        ((p - x) ** 2).mean().backward()
        optimiser.step()
    return p.detach()
"""
    assert abs(float(answer(code, torch.ones(3))) - 1.5) < 1e-3


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("def f(x): exit()", "SystemExit"),
        ("import sys\ndef f(x): sys.exit(0)", "SystemExit"),
        ("def f(x): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(x): return f(x)", "RecursionError"),
        ("import torch\ndef f(x): return torch.ones(50 * 2**28).sum()", "MemoryError"),
        ("def f(x): return bytearray(50 * 2**30)", "MemoryError"),
        ("class Mine(Exception): pass\ndef f(x): raise Mine('a secret')", "an error of its own"),
        ("def f(x): return object()", "unreadable"),
        (FORGED, "unreadable"),
        ("raise ValueError('at the top')", "ValueError"),
        ("g = 1", "KeyError"),
    ],
)
def test_whatever_it_raises_comes_back_as_one_error(code, kind):
    with pytest.raises(StudentError) as caught:
        answer(code, 1)
    assert caught.value.kind == kind and "secret" not in caught.value.line.replace(code.splitlines()[-1], "")


@pytest.mark.parametrize(
    "code",
    [
        "def f(x):\n    while True: pass",
        "import time\ndef f(x): time.sleep(100)",
        "while True: pass",
        "def f(x):\n    try:\n        while True: pass\n    finally:\n        while True: pass",
    ],
)
def test_it_ends_in_time(code):
    with Remote("def f(x): return x", "f") as warm:
        warm(1)
    start = time.perf_counter()
    with Remote(code, "f", SHORT) as function:
        for _ in range(3):  # a test that goes on after a failure must not wait again
            with pytest.raises(Stopped):
                function(1) if code != "while True: pass" else answer(
                    code, 1, limits=Limits(seconds=1, processor_seconds=1)
                )
    assert time.perf_counter() - start < 20


def test_an_exit_without_a_word_and_a_flood_of_output():
    with pytest.raises(Stopped, match="gone"):
        answer("import os\ndef f(x): os._exit(0)", 1)
    with pytest.raises(Stopped, match="gone"):
        answer("def f(x): return 'a' * (100 * 2**20)", 1)
    flood = "import sys\ndef f(x):\n    for _ in range(100): sys.stdout.write('a' * 2**20)\n    print(x)\n    return x"
    assert answer(flood, 3) == 3


REACHES = {
    "reads": "def f(place): return open(place + '/grade.txt').read()",
    "writes": "def f(place): open(place + '/new.txt', 'w').write('A')",
    "overwrites": "def f(place): open(place + '/grade.txt', 'r+').write('A')",
    "lists": "import os\ndef f(place): return os.listdir(place)",
    "removes": "import os\ndef f(place): os.remove(place + '/grade.txt')",
    "forks": "import os\ndef f(place): return os.fork()",
    "starts a program": "import subprocess\ndef f(place): return subprocess.run(['ls'])",
    "opens a socket": "import socket\ndef f(place): return socket.socket()",
    "kills": "import os\ndef f(place): os.kill(os.getppid(), 9)",
}


@pytest.mark.parametrize("code", REACHES.values(), ids=REACHES)
def test_files_processes_and_the_network_are_out_of_reach(code, tmp_path):
    (tmp_path / "grade.txt").write_text("B")
    with pytest.raises(StudentError):
        answer(code, str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["grade.txt"] and (tmp_path / "grade.txt").read_text() == "B"


def test_compiled_code_does_not_reach_them_either(tmp_path):
    """Python's own walls do not see what a C library does; the kernel's do."""
    (tmp_path / "grade.txt").write_text("B")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        code = """
import ctypes, os, struct
def f(place, port):
    c = ctypes.CDLL(None)
    files = [c.open(place.encode(), flags, 0o666) for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC)]
    return [*files, c.unlink(place.encode()), c.fork(), c.socket(2, 1, 0), c.kill(os.getppid(), 0)]
"""
        with Remote(code, "f") as function:
            found = function(str(tmp_path / "grade.txt"), server.getsockname()[1])
            if function.walls != ["files (Landlock)", "processes and sockets (seccomp)"]:
                pytest.skip(f"of the kernel's walls this system has only {function.walls}")
        assert found[:7] == [-1] * 7
    assert (tmp_path / "grade.txt").read_text() == "B"


def test_compiled_code_leaves_nothing_behind_and_changes_no_file_by_its_name(tmp_path):
    """No mode, owner, date or attribute of a file that it cannot open; no memory, message or key for the next process to read."""
    place = tmp_path / "grade.txt"
    place.write_text("B")
    os.utime(place, (1e9, 1e9))
    before = place.stat()
    code = """
import ctypes
def f(place):
    c, file = ctypes.CDLL(None), place.encode()
    calls = [c.chmod(file, 0), c.fchmodat(-100, file, 0, 0), c.chown(file, -1, -1), c.lchown(file, -1, -1), c.utimes(file, None),
             c.setxattr(file, b"user.note", b"A", 1, 0), c.truncate(file, 0)]
    left = [c.shmget(4711, 4096, 0o1666), c.msgget(4711, 0o1666), c.semget(4711, 1, 0o1666), c.mq_open(b"/note", 66, 0o666, None)]
    return calls + left
"""
    with Remote(code, "f") as function:
        found = function(str(place))
        if "processes and sockets (seccomp)" not in function.walls:
            pytest.skip(f"of the kernel's walls this system has only {function.walls}")
    assert found == [-1] * 11 and place.stat() == before and place.read_text() == "B"


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in kernel.MACHINES, reason="the filter is Linux's"
)
def test_the_filter_alone_refuses_what_reaches_other_processes():
    """On an older kernel Landlock does not hold back signals. Each call would do nothing, or fail with another error."""
    program = """
import ctypes, fcntl, os
from tta_iqa_lib.teaching.kit import kernel
c, here, other = ctypes.CDLL(None, use_errno=True), kernel.MACHINES.index(os.uname().machine), os.getppid()
pipe = os.pipe()[0]
c.prctl(38, 1, 0, 0, 0)
assert kernel._seccomp(os.uname().machine)
def refused(number, *arguments):
    return c.syscall(number, *arguments) == -1 and ctypes.get_errno() == 1
denied = {name: numbers[here] for name, numbers in kernel.DENIED.items() if numbers[here]}
assert len(denied) > 40 and [name for name, number in denied.items() if not refused(number, -1, -1, -1, -1, -1)] == []
assert refused(kernel.TGKILL[here], other, other, 0) and not refused(kernel.TGKILL[here], os.getpid(), os.getpid(), 0)
assert refused(kernel.PRLIMIT[here], other, 7, None, None) and not refused(kernel.PRLIMIT[here], 0, 7, None, None)
assert refused(kernel.FCNTL[here], pipe, fcntl.F_SETOWN, other) and fcntl.fcntl(pipe, fcntl.F_GETFD) == 1
assert refused(kernel.IOCTL[here], pipe, 0x8901, b"1234") and refused(kernel.CLONE[here], 17, 0, 0, 0, 0)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


TELLS = {
    "a forged report": """
import gc
from multiprocessing.connection import Connection
from tta_iqa_lib.teaching.kit.wire import encode
def f(x):
    line = next(o for o in gc.get_objects() if isinstance(o, Connection))
    for message in encode([{"error": x, "line": x, "word": x, "detail": x}, None])[:2]:
        line.send_bytes(message)
""",
    "a forged word": """
import gc
from multiprocessing.connection import Connection
from tta_iqa_lib.teaching.kit.wire import encode
def f(x):
    line = next(o for o in gc.get_objects() if isinstance(o, Connection))
    for message in encode([{"error": "unreadable", "line": 10**9, "word": x}, None])[:2]:
        line.send_bytes(message)
""",
    "a type": "def f(x): return type(x, (), {})()",
    "a type of numbers": "import numpy as np\ndef f(x): return np.zeros(1, [(x, float)])",
    "an error": "def f(x): raise type(x, (Exception,), {})(x)",
    "a file's name": "def f(x): open(x)",
}


@pytest.mark.parametrize("code", TELLS.values(), ids=TELLS)
def test_no_word_about_a_failure_holds_what_the_function_has_seen(code):
    seen = "the_test_s_input"
    with pytest.raises(StudentError) as caught:
        answer(code, seen)
    assert seen not in caught.value.kind + caught.value.line


def test_what_a_failure_says_is_a_kind_and_a_line_or_a_type():
    for code, kind, line in (
        ("def f(x):\n    y = 1\n    return y / 0", "ZeroDivisionError", "return y / 0"),
        ("class Answer: pass\ndef f(x): return Answer()", "unreadable", "Answer"),
        ("def f(x): return (i for i in x)", "unreadable", "generator"),
        ("def f(x): return {1, 2}", "unreadable", "set"),
    ):
        with pytest.raises(StudentError) as caught:
            answer(code, [1])
        assert (caught.value.kind, caught.value.line) == (kind, line)


def test_the_grader_s_arguments_and_environment_are_not_handed_on(monkeypatch):
    """There the course's key stands. In a new interpreter: a server that runs has the environment it began with."""
    program = """
import os, sys
from tta_iqa_lib.teaching.kit.sandbox import Remote
code = \"\"\"
import ctypes, os, sys
def f():
    variables, found = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ"), []
    while variables[len(found)]:
        found.append(variables[len(found)].decode())
    return str([sys.argv, dict(os.environ), found])
\"\"\"
if __name__ == "__main__":
    with Remote(code, "f") as function:
        seen = function()
    assert "PATH" in seen and "4711" not in seen, seen
    assert os.environ["TTA_COURSE_KEY"] == "key-4711" and sys.argv[1:] == ["--key", "key-4711"]
"""
    monkeypatch.setenv("TTA_COURSE_KEY", "key-4711")
    found = subprocess.run([sys.executable, "-c", program, "--key", "key-4711"], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_the_student_s_process_holds_no_test_and_no_other_student(tmp_path):
    """Everything that can be reached from it: its frames, its modules, all objects."""
    secret = "hidden-" + "test-4711"
    code = """
import gc, sys
def f(word):
    frame, seen = sys._getframe(), []
    while frame:
        seen += [str(v)[:10000] for v in frame.f_locals.values() if v is not word]
        frame = frame.f_back
    seen += [o for d in gc.get_objects() if isinstance(d, dict) for o in list(d.values()) if isinstance(o, str)]
    return [s[:80] for s in seen if ('hidden' + '-test-4711') in s and s != word][:3]
"""
    holder = {"the grader has it": secret}
    assert answer(code, "x") == [] and holder


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such mask")
def test_ctrl_c_while_a_process_starts_is_heard_by_the_grader_alone(monkeypatch):
    """What is started then has no terminal's signals, prints nothing of them, and needs no ending if it has not started."""
    masks = []

    class Interrupted:
        def __init__(self, *_, **__):
            self.pid = None

        def start(self):
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            raise KeyboardInterrupt

        def join(self, *_):
            raise AssertionError("can only join a started process")

    monkeypatch.setattr(sandbox, "_context", lambda: SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Interrupted))
    with pytest.raises(KeyboardInterrupt), Remote("def f():\n    return 1", "f") as function:
        function()
    assert signal.SIGINT in masks[0] and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
