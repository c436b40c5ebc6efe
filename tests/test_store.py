"""Finished work is kept whole or not at all, and is found again only where nothing that decides it has changed."""

import functools
import json
import operator
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_mixed, tiny_model
from torch import nn

import tta_iqa_lib as tta
from tta_iqa_lib.store import (
    Store,
    Unidentified,
    atomic_write,
    check_folder,
    code,
    code_hash,
    identity,
    partial_name,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TTA_IQA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start(program: str, **environment) -> subprocess.Popen:
    """A Python process of its own that runs `program`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Files


def test_a_file_appears_when_it_is_written_to_the_end(tmp_path):
    file = tmp_path / "new" / "a.json"
    with atomic_write(file) as partial:
        partial.write_text("half")
        assert not file.exists() and partial.suffix == ".json"
        partial.write_text("whole")
    assert file.read_text() == "whole" and list(file.parent.iterdir()) == [file]


def test_an_interruption_leaves_what_was_there_before(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(file) as partial:
        partial.write_text("ha")
        raise KeyboardInterrupt
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_two_writers_in_one_process_do_not_write_into_one_another(tmp_path):
    file = tmp_path / "a.txt"
    with atomic_write(file) as first:
        first.write_text("the first")
        with atomic_write(file) as second:
            second.write_text("2")
        assert file.read_text() == "2" and first.read_text() == "the first"
    assert file.read_text() == "the first" and list(tmp_path.iterdir()) == [file]


def test_what_a_killed_writer_left_goes_after_an_hour_and_nothing_else_does(tmp_path):
    old, new = partial_name(tmp_path / "a.json"), partial_name(tmp_path / "a.json")
    own = [tmp_path / "20240101-a.json", tmp_path / ".hidden"]
    for file in (old, new, *own):
        file.write_text("x")
    for file in (old, *own):
        os.utime(file, (time.time() - 4000,) * 2)
    check_folder(tmp_path)
    assert {*tmp_path.iterdir()} == {new, *own}


# Entries


def test_what_is_kept_is_computed_once_and_comes_back_the_same():
    calls = []

    def compute(*arguments):
        calls.append(arguments)
        return {"scores": (0.1, float("inf")), 1: None}

    def arrays():
        calls.append("arrays")
        return {"a": torch.arange(6.0).view(2, 3), "names": np.array(["x", "yé"])}

    for _ in range(2):
        store = Store("tests", ["metrics"], setting=1)
        assert store.get("plain.json", compute, 1, 2) == {"scores": [0.1, float("inf")], "1": None}
        found = store.get("some/arrays.npz", arrays)
        assert found.keys() == {"a", "names"} and found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found["names"].tolist() == ["x", "yé"]
    assert calls == [(1, 2), "arrays"]
    assert store.find("other.json") is None


def test_names_that_differ_are_entries_that_differ():
    store = Store("tests", ["metrics"])
    names = ["a/b.json", "a-b.json", "a b.json", "a%2Fb.json", "α.json"]
    for i, name in enumerate(names):
        store.put(name, i)
    assert [store.find(name) for name in names] == list(range(5))


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    """One bit, in the middle of the content."""
    place = data.find(b"123456")
    assert place > 0
    place += 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("entry", ["e.json", "e.npz"])
@pytest.mark.parametrize(
    "damage", [cut, flip, lambda data: b"", lambda data: b"{}", lambda data: b"[1]", lambda data: bytes(len(data))]
)
def test_a_damaged_entry_is_named_in_one_line_and_computed_again(entry, damage, caplog):
    value = {"e.json": [1, 123456], "e.npz": {"a": np.frombuffer(b"..123456", np.uint8)}}[entry]
    store = Store("tests", ["metrics"])
    store.put(entry, value)
    path = store.path(entry)
    path.write_bytes(damage(path.read_bytes()))
    calls = []
    for _ in range(2):
        found = store.get(entry, lambda: calls.append(1) or value)
        assert found == value if entry == "e.json" else found["a"].tobytes() == b"..123456"
    assert len(calls) == 1
    (line,) = caplog.messages
    assert str(path) in line and "damaged" in line and "\n" not in line


def test_the_complaint_is_one_line_on_stderr():
    Store("tests", ["metrics"]).put("e.json", 1)
    Store("tests", ["metrics"]).path("e.json").write_text("[1, 2")
    process = start('from tta_iqa_lib.store import Store; print(Store("tests", ["metrics"]).get("e.json", lambda: 1))')
    out, err = process.communicate(timeout=120)
    assert out == "1\n" and err.startswith("tta-iqa: '") and err.count("\n") == 1 and "Traceback" not in err


def test_a_process_that_is_killed_in_the_middle_of_a_write_leaves_nothing_that_passes_for_the_whole(caplog):
    """SIGKILL: no handler runs, no block is left in order. What was complete before is still there."""
    program = """
        import time
        from tta_iqa_lib.store import Store, entries
        store = Store("tests", ["metrics"])
        store.put("done.json", "done")

        def slow(path, value):
            with path.open("w") as file:
                file.write('{"checksum": "')
                file.flush()
                print("half", flush=True)
                time.sleep(300)

        read, write, convert = entries.FORMATS[".json"]
        entries.FORMATS[".json"] = read, slow, convert
        store.get("half.json", lambda: "half")
    """
    process = start(program)
    assert process.stdout.readline() == "half\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    store = Store("tests", ["metrics"])
    assert len(list(store.folder.iterdir())) == 2  # the half is there, under another name
    assert store.find("done.json") == "done" and store.find("half.json") is None and not caplog.messages
    assert store.get("half.json", lambda: "whole") == store.find("half.json") == "whole"


def test_processes_that_use_one_store_at_once_lose_nothing_and_damage_nothing():
    """Four start together on the same thirty entries, large enough for writes to overlap."""
    program = """
        import numpy as np
        from tta_iqa_lib.store import Store
        store = Store("tests", ["metrics"], shared=True)
        print("ready", flush=True)
        input()
        for i in range(30):
            assert store.get(f"{i}.json", lambda: [i] * 20_000) == [i] * 20_000
            assert (store.get(f"{i}.npz", lambda: {"a": np.full(100_000, i)})["a"] == i).all()
    """
    workers = [start(program) for _ in range(4)]
    assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 4
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    answers = [(worker.communicate(timeout=300)[1], worker.returncode) for worker in workers]
    assert answers == [("", 0)] * 4
    store = Store("tests", ["metrics"], shared=True)
    assert len(list(store.folder.iterdir())) == 60  # nothing half-written is left
    assert [store.find(f"{i}.json")[0] for i in range(30)] == list(range(30))


def test_a_store_is_of_its_name_code_and_settings(monkeypatch):
    def key(code="metrics", **decides):
        return Store("tests", [code], **decides).key

    keys = [key(a=1), key(a=2), key(b=1), key(a=1.0), key(a="1"), key(a=[1]), key(a=(1,)), key(code="imaging", a=1)]
    assert len(set(keys)) == len(keys)
    assert key(a=1, b=2) == key(b=2, a=1) and key(a={"x": 1, "y": 2}) == key(a={"y": 2, "x": 1})
    monkeypatch.setattr(torch, "__version__", "0.1")
    assert key(a=1) != keys[0]


def test_what_cannot_be_identified_is_computed_each_time_and_said_once(cache, caplog):
    store, calls = Store("tests", ["metrics"], score=(x for x in "ab")), []
    for _ in range(2):
        assert store.get("a.json", lambda: calls.append(1) or (1, 2)) == [1, 2]
    assert len(calls) == 2 and store.key is None and store.find("a.json") is None and not cache.exists()
    (line,) = caplog.messages
    assert "'tests' are not kept" in line and "generator" in line


# Code


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library of a few rooms; `write(name, text)` changes one of its modules."""
    root = tmp_path / "tta_small"

    def write(name: str, text: str) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(textwrap.dedent(text))

    monkeypatch.setattr(code, "LIBRARY", root)
    write("__init__.py", "from .upper.other import z\n")
    write("ground.py", '"""Doc."""\nx = 1\ndef f(a):\n    """Doc."""\n    a.clip(3)\n')
    write("middle/__init__.py", "from .one import p\n")
    write("middle/one.py", "from ..ground import x\np = x\n")
    write("middle/two.py", "q = 2\n")
    write("upper/late.py", "def g():\n    from ..middle import two\n    import numpy\n    return two.q\n")
    write("upper/whole.py", "from ..middle import p\nfrom .. import __version__\n")
    write("upper/plain.py", "import tta_small.ground\nfrom ..store import Store\n")
    write("upper/other.py", "z = 1\n")
    write("store/files.py", "w = 1\n")
    return write


def test_comments_docstrings_and_formatting_do_not_count(library):
    before = code_hash("ground")
    library("ground.py", '"""Other."""\n# why\nx  =  1\ndef f(a):\n    """Another."""\n    a.clip( 3 )\n')
    assert code_hash("ground") == before
    for text in ("x = 2\ndef f(a):\n    a.clip(3)\n", "x = 1\ndef f(a):\n    a.clip(4)\n"):
        library("ground.py", text)
        assert code_hash("ground") != before


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ground", {"ground.py"}),
        ("middle", {"middle/__init__.py", "middle/one.py", "middle/two.py", "ground.py"}),  # a room: all of it
        ("middle.two", {"middle/two.py"}),
        ("middle.one", {"middle/one.py", "ground.py"}),
        ("upper.late", {"upper/late.py", "middle/two.py"}),  # an import inside a function
        ("upper.whole", {"upper/whole.py", "middle/__init__.py", "middle/one.py", "middle/two.py", "ground.py"}),
        ("upper.plain", {"upper/plain.py", "ground.py"}),  # the store keeps results, it decides none
    ],
)
def test_what_a_module_imports_counts_with_it_and_nothing_else_does(library, tmp_path, name, counts):
    for file in sorted((tmp_path / "tta_small").rglob("*.py")):
        text, before = file.read_text(), code_hash(name)
        file.write_text(text + "more = 1\n")
        own = file.relative_to(tmp_path / "tta_small").as_posix()
        assert (code_hash(name) != before) == (own in counts), own
        file.write_text(text)


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="no room or module 'modles'"):
        Store("tests", ["modles"])


def test_the_library_s_own_runs_depend_on_all_that_decides_them(monkeypatch):
    """What was once left out of hand-kept lists: training, models, data."""
    read, deciding = code._read, []
    monkeypatch.setattr(code, "_read", lambda text, package: deciding.append(text) or read(text, package))
    code_hash("experiments.runs")
    for module in (
        "models/quality.py",
        "models/small.py",
        "datasets/tinyshift.py",
        "imaging/distortions.py",
        "adaptation/loop.py",
    ):
        assert (ROOT / "tta_iqa_lib" / module).read_text(encoding="utf-8") in deciding


# Identity

SCALE = 100


def scaled(output):
    return output * SCALE


class Threshold(nn.Module):
    """A part of one's own, as a script would hold it."""

    limit = 0.5

    def __init__(self, slope: float = 1.0):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return x * self.slope + self.limit


def other_forward(self, x):
    return x * self.slope - self.limit


def hooked(hook):
    net = tiny_mixed()
    net[2].register_forward_hook(hook)
    return wrap(net)


def wrap(net=None, **settings):
    return tta.wrap_model(net or tiny_mixed(), **{"features": "6", **settings})


def factor(by):
    return lambda output: output * by


def changed(name: str, value) -> nn.Module:
    model = wrap()
    setattr(model, name, value)
    return model


def moved(name: str) -> nn.Module:
    """One number of one tensor is another."""
    model = wrap()
    with torch.no_grad():
        dict([*model.named_parameters(), *model.named_buffers()])[name].view(-1)[-1] += 1e-6
    return model


def tied() -> nn.Module:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    net[1].weight = net[0].weight
    return net


MODELS = {
    "plain": wrap,
    "normalised": lambda: wrap(normalise=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
    "other normalisation": lambda: wrap(normalise=((0.485, 0.456, 0.406), (0.229, 0.224, 0.226))),
    "features": lambda: wrap(features="7"),
    "direction": lambda: wrap(higher_is_better=False),
    "crop": lambda: changed("crop", 96),
    "views": lambda: changed("views", 8),
    "weight": lambda: moved("module.8.weight"),
    "running mean": lambda: moved("module.1.running_mean"),
    "remembered moments": lambda: changed("score_std", torch.tensor(1.0)),
    "score ×100": lambda: wrap(score=lambda o: o * 100),
    "score ×10": lambda: wrap(score=lambda o: o * 10),
    "score by a global": lambda: wrap(score=scaled),
    "score ×2, enclosed": lambda: wrap(score=factor(2)),
    "score ×3, enclosed": lambda: wrap(score=factor(3)),
    "first part": lambda: wrap(score=operator.itemgetter(0)),
    "second part": lambda: wrap(score=operator.itemgetter(1)),
    "partial": lambda: wrap(score=functools.partial(torch.mul, other=2)),
    "other partial": lambda: wrap(score=functools.partial(torch.mul, other=3)),
    "sigmoid": lambda: wrap(score=torch.sigmoid),
    "tanh": lambda: wrap(score=torch.tanh),
    "method": lambda: wrap(score={"a": 1}.get),
    "method of another": lambda: wrap(score={"a": 2}.get),
    "half precision": lambda: wrap(tiny_mixed().half()),
    "another activation": lambda: wrap(nn.Sequential(*tiny_mixed()[:2], nn.GELU(), *tiny_mixed()[3:])),
    "another epsilon": lambda: wrap(nn.Sequential(nn.BatchNorm2d(3, eps=1e-3), *tiny_mixed())),
    "a usual epsilon": lambda: wrap(nn.Sequential(nn.BatchNorm2d(3), *tiny_mixed())),
    "hook": lambda: hooked(lambda module, inputs, output: output * 2),
    "other hook": lambda: hooked(lambda module, inputs, output: output * 3),
    "own part": lambda: wrap(nn.Sequential(Threshold(), *tiny_mixed())),
    "own part, other slope": lambda: wrap(nn.Sequential(Threshold(2.0), *tiny_mixed())),
    "of two tied layers": tied,
    "of two layers": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3)),
}


def test_every_weight_and_every_setting_of_a_model_tells_it_from_others():
    known = {name: identity(build()) for name, build in MODELS.items()}
    assert known == {name: identity(build()) for name, build in MODELS.items()}  # and nothing else does
    same = [(a, b) for a in known for b in known if a < b and known[a] == known[b]]
    assert same == []


def test_code_of_one_s_own_counts_by_what_it_does(monkeypatch):
    """A script's class, and a number that its function refers to, change under the same name."""
    model, scorer = wrap(nn.Sequential(Threshold(), *tiny_mixed())), wrap(score=scaled)
    before = identity(model), identity(scorer)
    with monkeypatch.context() as patch:
        patch.setattr(Threshold, "limit", 0.6)
        assert identity(model) != before[0] and identity(scorer) == before[1]
    with monkeypatch.context() as patch:
        patch.setattr(Threshold, "forward", other_forward)
        assert identity(model) != before[0]
    assert identity(model) == before[0]
    monkeypatch.setitem(globals(), "SCALE", 10)
    assert identity(scorer) != before[1]


def test_using_a_model_leaves_it_the_same():
    model = tiny_model()
    before = identity(model)
    tta.Adapter(model)(torch.rand(4, 3, 32, 32))
    assert identity(model) == before


def test_a_model_has_the_same_identity_in_every_process(tmp_path):
    """Also where Python hashes text in another way, and a set has another order."""
    script = """
        import torch
        from torch import nn
        import tta_iqa_lib as tta
        from tta_iqa_lib.store import identity

        UNITS = {"mos", "dmos", "jod", "z"}

        class Own(nn.Module):
            def __init__(self):
                super().__init__()
                self.units, self.calls = UNITS, {}

            def forward(self, x):
                return x if "mos" in UNITS else -x

        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Own(), nn.Flatten())
        print(identity(tta.wrap_model(net, "2", score=lambda o: o[:, 0] + len(UNITS))))
    """
    first, second = (start(script, PYTHONHASHSEED=seed).communicate(timeout=120) for seed in ("1", "2"))
    assert first == second and len(first[0]) == 65, first


def test_a_file_is_known_by_its_place_and_its_last_change_however_it_is_spelt(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    file.write_bytes(b"123")
    before = identity(file)
    monkeypatch.chdir(tmp_path)
    assert identity(Path("a.png")) == before == identity(tmp_path / ".." / tmp_path.name / "a.png")
    (tmp_path / "link").symlink_to(tmp_path)
    assert identity(tmp_path / "link" / "a.png") == before
    about = file.stat()
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    later = identity(file)
    file.write_bytes(b"1234")
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    longer = identity(file)
    file.unlink()
    assert len({before, later, longer, identity(file)}) == 4
    with pytest.raises(Unidentified, match="a folder"):
        identity(tmp_path)


def test_arrays_and_tensors_count_with_their_shape_and_type():
    values = [
        torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(2, 3).half(), torch.zeros(2, 3).bfloat16(), torch.zeros(0),
        torch.zeros(()), np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), np.float32), np.zeros((2, 3), int),
        np.array(["a", "bc"]), np.array([{"a"}], dtype=object), torch.arange(6).view(2, 3).T, 0, 0.0, False, None, "", b"",
    ]  # fmt: skip
    assert len({identity(value) for value in values}) == len(values)
    assert identity(torch.arange(6).view(2, 3).T) == identity(torch.tensor([[0, 3], [1, 4], [2, 5]]))
    assert identity(np.float64(0.5)) == identity(0.5)


def test_values_that_hold_themselves_have_an_identity_too():
    one = {"a": 1}
    one["self"] = one
    other = {"a": 2}
    other["self"] = other
    assert identity(one) != identity(other)


@pytest.mark.parametrize(
    "value", [(x for x in "ab"), torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), sys.stdout]
)
def test_what_nothing_tells_from_another_is_said(value):
    with pytest.raises(Unidentified):
        identity({"setting": [value]})


def test_json_of_an_entry_can_be_read_by_anyone():
    store = Store("tests", ["metrics"])
    store.put("e.json", [1, "α"])
    assert json.loads(store.path("e.json").read_text())["value"] == [1, "α"]
