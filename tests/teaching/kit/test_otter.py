"""The notebook for `otter assign`, without otter: its tests run, it loses nothing, and it keeps what is private to itself."""

import ast
import json
import re

import pytest
import yaml
from handed_in import NAMES, assignment, secrets, wrong_answers

from tta_iqa_lib.teaching.kit.otter import otter_version

OTTERS_SOLUTION = re.compile(r"^ *# BEGIN SOLUTION NO PROMPT\n.*?^ *# END SOLUTION$", re.DOTALL | re.MULTILINE)


def questions(notebook):
    """What otter reads of each question: its configuration, and the source of its tests."""
    found, inside = [], None
    for cell in notebook["cells"]:
        if cell["source"].startswith("# BEGIN QUESTION"):
            inside = (yaml.safe_load(cell["source"]), [])
            found.append(inside)
        elif cell["source"].startswith("# HIDDEN"):
            inside[1].append(cell["source"])
    return found


def earned(source, name, functions):
    """Points of one question: its tests, each called with the functions that it asks for."""
    about, tests = next(q for q in questions(otter_version(source)) if q[0]["name"] == name)
    points = 0
    for worth, source in zip(about["points"], tests, strict=True):
        (function,) = ast.parse(source).body
        space = {}
        exec(source, space)
        try:
            space[function.name](*(functions.get(a.arg) for a in function.args.args))
        except AssertionError as error:
            assert str(error)
        else:
            points += worth
    return points


def written(source, answers=None):
    """The instructor's functions, but for `answers`."""
    space = {}
    exec(source.given({}), space)
    for cell in source.notebook["cells"]:
        if "### BEGIN SOLUTION" in cell["source"] and cell["cell_type"] == "code":
            exec(cell["source"], space)
    for code in (answers or {}).values():
        exec(code, space)
    return space


@pytest.mark.parametrize("name", NAMES)
def test_the_tests_pass_the_instructor_and_nobody_who_wrote_nothing(name):
    source = assignment(name)
    assert [q[0]["name"] for q in questions(otter_version(source))] == [item.name for item in source.items]
    for item in source.items:
        if item.test and name != "a5_project":  # it takes a minute; `make test-graders` runs it
            assert earned(source, item.name, written(source)) == item.points
            assert earned(source, item.name, {}) == 0


def test_what_is_half_right_earns_half():
    source = assignment("a2_rank")
    functions = written(source, wrong_answers("a2_rank"))  # a sum where a mean is asked for, twice
    points = [earned(source, name, functions) for name in ("distance_values", "loss_values", "loss_far")]
    assert points == [2, 2, 2]  # of 4, 4 and 2


@pytest.mark.parametrize("name", NAMES)
def test_what_otter_hands_out_holds_no_secret(name):
    """Otter drops what stands between its marks, and cells of tests and solutions."""
    source = assignment(name)
    kept, block = [], ""
    for cell in otter_version(source)["cells"]:
        if cell["cell_type"] == "raw":
            block = cell["source"] if "BEGIN" in cell["source"] else ""
        elif not block.startswith(("# BEGIN TESTS", "# BEGIN SOLUTION")):
            kept.append(OTTERS_SOLUTION.sub("", cell["source"]))
            assert not cell["metadata"].keys() - {"tags"}
    assert len(secrets(source)) > 5
    assert [secret for secret in secrets(source) if secret in "\n".join(kept)] == []
    metadata = json.dumps(otter_version(source)["metadata"])
    assert "variants" not in metadata and "functions" in metadata
