"""From the instructor's notebook to a student's points, and back to nobody's knowledge of the tests."""

import json
import time
from html import escape
from importlib import import_module
from itertools import zip_longest

import pytest
from handed_in import COURSE, NAMES, assignment, handed_in

from tta_iqa_lib.teaching.kit import report
from tta_iqa_lib.teaching.kit.grade import Grade, grade_one
from tta_iqa_lib.teaching.kit.pages import student_page
from tta_iqa_lib.teaching.kit.release import ANSWER, ANYONE, release, student_version
from tta_iqa_lib.teaching.kit.source import HIDDEN, SOLUTION, Assignment, NotebookError, write_notebook

WRONG = [(name, *case) for name in NAMES for case in import_module(name).WRONG]


def graded(source, notebook, folder, **options):
    path = folder / "handed-in.ipynb"
    write_notebook(notebook, path)
    return grade_one(source, path, **options)


def possible(source):
    return {item.name: item.points for item in source.items}


@pytest.mark.parametrize("name", NAMES)
def test_the_instructor_gets_everything(name):
    source = assignment(name)
    grade = grade_one(source, source.path)
    lost = {k: m.message for k, m in grade.marks.items() if m and m.points < m.of}
    assert lost == {} and grade.notes == []
    assert grade.points == sum(item.points for item in source.items if item.test) > 0


@pytest.mark.parametrize("name", NAMES)
def test_an_untouched_notebook_gets_nothing_and_no_error(name, tmp_path):
    source = assignment(name)
    grade = graded(source, student_version(source), tmp_path)
    assert {m.status for m in grade.marks.values()} == {"not attempted"} and grade.points == 0
    assert set(grade.marks) == set(possible(source)) and grade.notes == []


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_student_version_is_what_a_release_gives(name, tmp_path):
    made, _ = release(assignment(name), tmp_path)
    assert made.read_text(encoding="utf-8") == (COURSE / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_solutions_and_hidden_tests_is_left_in_a_release(name):
    source = assignment(name)
    released = json.dumps(student_version(source), ensure_ascii=False)
    secret = [
        m[0] for c in source.notebook["cells"] for marks in (SOLUTION, HIDDEN) for m in marks.finditer(c["source"])
    ]
    lines = {line.strip() for part in secret for line in part.splitlines()}
    telling = {line for line in lines if len(line) > 18 and not line.startswith(("from ", "import ", "###"))}
    assert len(telling) > 20
    assert [line for line in telling if json.dumps(line, ensure_ascii=False)[1:-1] in released] == []
    assert "rubric" not in released and "variants" not in released and "HIDDEN" not in released


def rounds(name):
    """The wrong answers of an assignment, in as few submissions as there are wrong answers to one function."""
    by_function: dict[str, list] = {}
    for _, function, *case in (w for w in WRONG if w[0] == name):
        by_function.setdefault(function, []).append(case)
    for cases in zip_longest(*by_function.values()):
        yield {function: case for function, case in zip(by_function, cases, strict=True) if case}


def test_there_are_wrong_answers_of_every_kind():
    assert len(WRONG) >= 25
    for name in NAMES:
        assert {function for n, function, *_ in WRONG if n == name} == set(assignment(name).functions)


@pytest.mark.parametrize(
    ("name", "wrong"), [(n, w) for n in NAMES for w in rounds(n)], ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_wrong_answer_loses_its_points_and_no_others(name, wrong, tmp_path):
    source = assignment(name)
    notebook = handed_in(source, {function: code for function, (code, *_) in wrong.items()}, "erika", "secret")
    grade = graded(source, notebook, tmp_path, student="erika", key="secret")
    earned = {item: points for _, lost, _ in wrong.values() for item, points in lost.items()}
    expected = {item.name: earned.get(item.name, item.points) for item in source.items if item.test}
    assert {k: m.points for k, m in grade.marks.items() if m} == expected, grade.marks
    for _, lost, reason in wrong.values():
        assert reason in " ".join(grade.marks[item].message for item in lost)


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_can_be_solved(name, tmp_path):
    source = assignment(name)
    variants = {student: source.constants(student, "key") for student in "abcdef"}
    assert len({tuple(v.values()) for v in variants.values()}) >= 3
    assert source.constants("a", "key") != source.constants("a", "another") or source.constants(
        "b", "key"
    ) != source.constants("b", "another")
    grade = graded(source, handed_in(source, student="b", key="key"), tmp_path, student="b", key="key")
    assert grade.points == sum(item.points for item in source.items if item.test)


def test_a_neighbour_s_numbers_written_into_a_function_do_not_pass(tmp_path):
    source = assignment("a2_rank")
    mine = {"MARGIN": 0.2, "TEMPERATURE": 0.5}
    student = next(s for s in map(str, range(999)) if mine.items() <= source.constants(s).items())
    excess = "(d_mild - d_severe + 0.6) / 2.0"
    copied = f"def rank_loss(d_mild, d_severe):\n    return torch.log1p(torch.exp({excess})).mean()"
    mark = graded(source, handed_in(source, {"rank_loss": copied}, student), tmp_path, student=student).marks[
        "loss_values"
    ]
    assert mark.points == 1 and "another variant" in mark.message


def test_who_was_given_other_numbers_is_named(tmp_path):
    """Forgotten by the instructor: the key. Changed by the student: the first cell."""
    source = assignment("a2_rank")
    notebook = handed_in(source, student="erika", key="the release's")
    assert graded(source, notebook, tmp_path, student="erika", key="the release's").notes == []
    (note,) = graded(source, notebook, tmp_path, student="erika", key="").notes
    assert note.startswith("the notebook has other numbers (") and "released with another key?" in note
    given, right = source.constants("erika", "the release's"), source.constants("erika", "")
    assert all((f"{name} = {given[name]}, not {right[name]}" in note) == (given[name] != right[name]) for name in given)
    notes = graded(source, handed_in(source, student="fritz"), tmp_path, student="erika").notes
    assert notes == ["this notebook was released to fritz"]


def test_one_version_for_all_is_graded_with_the_numbers_that_it_has(tmp_path):
    """Somebody types the numbers in instead of their names; and somebody's metadata are lost."""
    source = assignment("a2_rank")
    numbers = source.constants(ANYONE, "key")
    student = next(s for s in map(str, range(99)) if source.constants(s, "key") != numbers)
    excess = f"(a - b + {numbers['MARGIN']}) / {numbers['TEMPERATURE']}"
    code = f"def rank_loss(a, b):\n    return torch.nn.functional.softplus({excess}).mean()"
    notebook = handed_in(source, {"rank_loss": code}, key="key")
    for metadata in (notebook["metadata"], {}):
        grade = graded(source, notebook | {"metadata": metadata}, tmp_path, student=student, key="key")
        assert grade.marks["loss_values"].status == "passed" and grade.notes == []


def test_a_name_has_the_same_numbers_however_a_system_spells_it():
    source = assignment("a4_loop")
    assert source.constants("J\u00fcrgen", "k") == source.constants("Ju\u0308rgen", "k")
    assert len({str(source.constants(name, "k")) for name in ("Jurgen", "J\u00fcrgen", "jurgen")}) == 3


def test_what_no_file_can_hold_and_what_is_too_long_stops_no_grade(tmp_path):
    source = assignment("a2_rank")
    notebook = handed_in(source)
    for cell in notebook["cells"]:
        if "The statistics move" in cell["source"]:
            cell["source"] = "half a letter: \ud83d, and " + "on and on. " * 20_000
    notebook["cells"] += [
        {"cell_type": "code", "metadata": {}, "source": "x = 1\n" * 200_000},
        {"cell_type": "code", "metadata": {}, "source": "\n" * 400_000 + "\ud800"},
        {
            "cell_type": "code",
            "metadata": {},
            "source": "deep = " + "1 + " * 600 + "1\ndef pull(a, b):\n    return deep",
        },
    ]
    path, start = tmp_path / "x.ipynb", time.perf_counter()
    path.write_text(json.dumps(notebook), encoding="utf-8")
    grade = grade_one(source, path)
    assert time.perf_counter() - start < 60
    grade.save(tmp_path / "grade.json")
    assert len(grade.answers["in_words"]) == 20_000 and "half a letter: " in grade.answers["in_words"]
    assert "cut after 20,000 of" in str(grade.notes) and "more than 500,000 letters" in str(grade.notes)
    lost = {name: mark.message for name, mark in grade.marks.items() if mark and mark.points < mark.of}
    assert list(lost) == ["pull_values"] and "nested too deeply" in lost["pull_values"]
    assert report.alike(source, {"a": path, "b": path}) != []


def test_an_answer_is_found_although_its_question_is_gone(tmp_path):
    source = assignment("a2_rank")
    notebook = handed_in(source)
    notebook["cells"] = [c for c in notebook["cells"] if "log 2" not in c["source"]]
    assert graded(source, notebook, tmp_path).answers["in_words"].startswith("The statistics move")


@pytest.mark.parametrize("name", NAMES)
def test_a_written_answer_may_hold_tables_and_rules(name, tmp_path):
    """Lines as they stand around the answer, too."""
    source = assignment(name)
    answer = "First.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n---\n\n# And so on\n\n***"
    notebook = student_version(source)
    for cell in notebook["cells"]:
        cell["source"] = answer if cell["source"] == ANSWER else cell["source"]
    assert set(graded(source, notebook, tmp_path).answers.values()) == {answer}
    rule, end = notebook["cells"].pop()["source"].split("\n")  # cut in two, as a student may do by mistake
    notebook["cells"] += [{"cell_type": "markdown", "metadata": {}, "source": part} for part in (rule, end)]
    assert set(graded(source, notebook, tmp_path).answers.values()) == {answer}


CHEAP = ["0.0", "1000.0", "float('nan')", "float('inf')", "[]", "[[], []]", "''", "{}", "False", "arguments[0]", "arguments[-1]",
         "arguments[0] * 0", "arguments[0] * 0 + 1000", "(0.0, 0.0)", "(arguments[0], arguments[0])", "[0, 0]",
         "torch.zeros(len(arguments[0]), len(arguments[0]))", "torch.zeros(len(arguments[0]))"]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in NAMES if name != "a5_project"])
def test_an_answer_that_is_no_work_earns_nothing(name, tmp_path):
    source, earned = assignment(name), {}
    for cheap in CHEAP:
        answers = {f: f"import torch\n\ndef {f}(*arguments):\n    return {cheap}" for f in source.functions}
        grade = graded(source, handed_in(source, answers), tmp_path)
        earned |= {(cheap, item): mark.points for item, mark in grade.marks.items() if mark and mark.points}
    assert earned == {}


def test_a_page_shows_points_and_reasons_and_no_test(tmp_path):
    for name in NAMES:
        source = assignment(name)
        cases = [case for case in WRONG if case[0] == name]
        answers = {function: code for _, function, code, *_ in cases}  # the last wrong one of each function
        grade = graded(source, handed_in(source, answers), tmp_path)
        page = student_page(grade, source.about["title"], possible(source))
        assert all(escape(m.message) in page for m in grade.marks.values() if m)
        hidden = "\n".join(m[1] for c in source.notebook["cells"] for m in HIDDEN.finditer(c["source"]))
        code = {line.strip() for line in hidden.splitlines() if len(line.strip()) > 12 and '"' not in line}
        assert len(code) > 10 and [line for line in code if line in page] == []


def test_of_a_damaged_file_a_student_hears_just_that(tmp_path):
    source, path = assignment("a2_rank"), tmp_path / "x.ipynb"
    path.write_bytes(b"\xff\xfe no notebook")
    grade = grade_one(source, path)
    page = student_page(grade, source.about["title"], possible(source))
    assert "<p>Your file could not be read; hand it in again.</p>" in page and "no function" not in page
    assert {name: mark.of for name, mark in grade.marks.items() if mark} == possible(source) and grade.points == 0
    assert [report.reasons([grade], item) for item in grade.marks] == [[] for _ in source.items]
    grade.save(tmp_path / "grade.json")
    assert Grade.load(tmp_path / "grade.json") == grade


def test_a_recipe_that_gains_nothing_has_a_place_on_the_leaderboard(tmp_path):
    answer = {"recipe": "def recipe():\n    return {'statistics': 'source'}"}
    source = assignment("a5_project")
    grade = graded(source, handed_in(source, answer), tmp_path)
    mark = grade.marks["recipe_gain"]
    assert mark.points == 0 and report.leaderboard([grade]) == [(ANYONE, round(mark.value, 3))]


def test_feedback_holds_nothing_that_the_function_has_seen(tmp_path):
    """An exception's message could carry the test's inputs out; only its type and the student's own line are shown."""
    source = assignment("a2_rank")
    spy = "def pull(d_mild, d_severe):\n    raise ValueError('seen: ' + str(d_mild.tolist()))"
    mark = graded(source, handed_in(source, {"pull": spy}), tmp_path).marks["pull_values"]
    assert "ValueError" in mark.message and "0.3" not in mark.message.replace(spy, "") and "[" not in mark.message


def test_marks_that_do_not_belong_together_are_refused(tmp_path):
    source = assignment("a2_rank")
    for find, message in (
        ("### END SOLUTION", "without its partner"),
        ("### BEGIN HIDDEN TESTS", "without its partner"),
    ):
        notebook = json.loads(json.dumps(source.notebook))
        cell = next(c for c in notebook["cells"] if find in c["source"])
        cell["source"] = cell["source"].replace(find, "")
        write_notebook(notebook, tmp_path / "broken.ipynb")
        with pytest.raises(NotebookError, match=message):
            Assignment.read(tmp_path / "broken.ipynb")
    for mark in ("## BEGIN SOLUTION", "# BEGIN HIDDEN TESTS"):  # another tool's, or a slip: it would be handed out
        notebook = json.loads(json.dumps(source.notebook))
        notebook["cells"].append({"cell_type": "code", "metadata": {}, "source": f"{mark}\nsecret = 1"})
        write_notebook(notebook, tmp_path / "broken.ipynb")
        with pytest.raises(NotebookError, match="without its partner"):
            Assignment.read(tmp_path / "broken.ipynb")
    for variants, message in (
        ({"GAMMA": [1, 2]}, "variants of GAMMA, and no cell"),
        ({"MARGIN": []}, "MARGIN is empty"),
    ):
        notebook = json.loads(json.dumps(source.notebook))
        notebook["metadata"]["tta_iqa_course"]["variants"] = variants
        write_notebook(notebook, tmp_path / "broken.ipynb")
        with pytest.raises(NotebookError, match=message):
            Assignment.read(tmp_path / "broken.ipynb")
    with pytest.raises(NotebookError, match="no instructor's notebook"):
        Assignment.read(COURSE.parents[0] / "06_rank.ipynb")


@pytest.mark.parametrize(
    ("item", "old", "new", "message"),
    [
        ("pull_values", "raise Wrong(\n", "raise Wrong((\n", "Python cannot read line"),
        ("pull", "### BEGIN SOLUTION", "###  \n    1 +\n    ### BEGIN SOLUTION", "Python cannot read line"),
        ("pull_values", "mark(test_pull, pull, points=3)", "", "the tests of pull_values must end in"),
        ("pull_values", "mark(test_pull, pull, points=3)", "print(pull)", "the tests of pull_values must end in"),
        ("pull_values", "(test_pull, pull, points=3)", "(test_pull, points=3)", "`mark` of pull_values takes .*; got none"),
        ("pull", "def pull(", "def puli(", "takes functions that have a solution .*; got pull$"),
        ("pull_values", "points=3", "points=2", "pull_values has 3 points in its metadata, and 2 in"),
        ("pull_values", '"points": 3, ', "", "graded cell without 'points' in its metadata"),
        ("pull_values", '"grade_id": "pull_values", ', "", "graded cell without 'grade_id' in its metadata"),
        ("pull", "### BEGIN SOLUTION", "", "without '### BEGIN SOLUTION'"),
        ("in_words", "### BEGIN SOLUTION", "", "without '### BEGIN SOLUTION'"),
    ],
)  # fmt: skip
def test_a_slip_of_the_instructor_s_is_refused_before_it_reaches_the_class(item, old, new, message, tmp_path):
    """In a cell's source or in its metadata; a solution without marks would be handed out."""
    notebook = json.loads(json.dumps(assignment("a2_rank").notebook))
    cell = next(c for c in notebook["cells"] if c["metadata"]["nbgrader"]["grade_id"] == item)
    if "SOLUTION" in old and not new:
        cell["source"] = cell["source"].replace("### END SOLUTION", "")
    if old.startswith('"'):
        about = json.dumps(cell["metadata"]["nbgrader"], sort_keys=True)
        assert old in about
        cell["metadata"]["nbgrader"] = json.loads(about.replace(old, new))
    else:
        assert old in cell["source"]
        cell["source"] = cell["source"].replace(old, new)
    write_notebook(notebook, tmp_path / "slip.ipynb")
    with pytest.raises(NotebookError, match=f"slip.ipynb'.*{message}"):
        Assignment.read(tmp_path / "slip.ipynb")
