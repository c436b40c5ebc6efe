"""A function is found by its name, with what it needs, wherever it stands."""

import pytest

from tta_iqa_lib.teaching.kit.functions import Notebook


def run(cells, name="f", given="", *arguments):
    found = Notebook([(c if isinstance(c, tuple) else ("code", c)) for c in cells], given).find(name)
    namespace = {}
    exec(found.code, namespace)
    return namespace[name](*arguments)


@pytest.mark.parametrize(
    "cells",
    [
        ["K = 3", "def g(x): return x * K", "def f(): return g(2)"],
        ["def f(): return g(2)", "def g(x): return x * K", "K = 3"],  # reordered
        ["K = 3\ndef g(x): return x * K\ndef f(): return g(2)"],  # merged
        ["K = 3", "def g(x): return x * K", "def f(): return g(2)", "def f(): return g(2)"],  # doubled
        ["def f():\n    'a stub'\n    ...", "K = 3\ndef f(): return K * 2", "def f(): raise NotImplementedError"],
        ["%matplotlib inline\n!pip install x\nK = 3", "%%time\nf = lambda: K * 2"],
        ["while True: pass", "exit()", "K, L = 3, 2", "def f(): return K * L", "1/0"],
        ["import math as m", "try:\n    import nothing\nexcept ImportError:\n    K = 6", "def f(): return m.floor(K)"],
        [("markdown", "## Text"), ("raw", "def f(): return 6")],  # retyped
        [("raw", "from math import floor"), ("markdown", "K = 6.5"), ("raw", "def f(): return floor(K)")],
        [("markdown", "```python\ndef f(): return 6\n```")],
        ["def f(): return sum([3, 3])", "sum = 4"],  # a slip in another cell
        ["K = 3\ndef f(): return 2 * K", "K = 'used again for something else'"],
        ["def f(: return", "def f(): return 6", "\x00"],
        ["from math import *\ndef f(): return floor(6.5)"],
        ["import os.path\nimport os\ndef f(): return 6 if os.path else 0"],
        ["def even(n): return n == 0 or f(n - 1)", "def f(n=6): return 6 if n == 0 else even(n - 1) and 6"],
        ["def f(): return g()", "def g(): return 6", "def g(): return 7"],  # nothing above: the first below
        ["def g(): return 5", "def g(): return 6", "def f(): return g()", "def g(): return 7"],  # the last above
        ["class A:\n    n = 6\n\ndef f(): return A.n"],
        ["def twice(g):\n    return lambda: 2 * g()\n\n@twice\ndef f(): return 3"],
    ],
)
def test_a_function_and_all_it_needs_are_found(cells):
    assert run(cells) == 6


def test_what_the_assignment_gives_cannot_be_overridden():
    assert run(["K = 100", "def f(): return K", "K = 200"], "f", "K = 6") == 6


def test_what_is_missing_is_named():
    def problem(*cells):
        return Notebook([("code", c) for c in cells]).find("rank_loss")

    assert "was it renamed" in problem("def rank_los(): return 1").problem
    assert "cannot read cell 2: line 1" in problem("x = 1", "def rank_loss(:").problem
    assert problem("def rank_loss():\n    '''text'''\n    raise NotImplementedError  # your code here").stub
    assert problem("x = 1").problem == "there is no function `rank_loss` in the notebook"
    assert not problem("def rank_loss(): return None or 1").stub
