"""The report: figures against their definitions, on grades whose answer is known."""

import math

import pytest
from handed_in import assignment, handed_in, solutions

from tta_iqa_lib.teaching.kit.grade import Grade, grades_folder
from tta_iqa_lib.teaching.kit.marking import Mark
from tta_iqa_lib.teaching.kit.report import (
    alike,
    difficulty,
    discrimination,
    leaderboard,
    load_grades,
    reasons,
    report_lines,
)
from tta_iqa_lib.teaching.kit.source import NotebookError, write_notebook

SOURCE = assignment("a2_rank")


def graded(*rows):
    """Grades of students with these points in items a, b, c, of 2, 4 and 1."""
    of = dict(zip("abc", (2, 4, 1), strict=True))
    marks = [{k: Mark(p, of[k], "partly", f"reason {p}") for k, p in zip("abc", row, strict=True)} for row in rows]
    return [Grade(f"s{i}", "x", mark) for i, mark in enumerate(marks)]


def test_difficulty_and_discrimination():
    grades = graded((0, 0, 1), (1, 2, 0), (2, 4, 1), (2, 3, 0))
    assert difficulty(grades, "a") == 5 / 8
    assert discrimination(grades, "b") == pytest.approx(4.25 / (8.75 * 2.75) ** 0.5)  # with 1, 1, 3, 2
    assert discrimination(grades, "c") == pytest.approx(-1 / 21**0.5)  # with 0, 3, 6, 5
    assert math.isnan(discrimination(graded((1, 1, 1), (1, 2, 1)), "a"))
    grades[0].marks["a"] = None  # nobody has read it yet
    assert difficulty(grades, "a") == 5 / 6
    assert reasons(grades, "a")[0] == (2, "reason 2")


def test_the_leaderboard_is_by_what_was_measured():
    grades = graded((0, 0, 0), (1, 1, 1), (2, 2, 1))
    grades[1].marks["a"] = Mark(1, 2, "partly", "", 0.7)
    grades[2].marks["a"] = Mark(2, 2, "passed", "", 0.8)
    assert leaderboard(grades) == [("s2", 0.8), ("s1", 0.7)]


def test_equal_values_share_a_place_and_what_gains_nothing_has_one():
    marks = [Mark(0, 4, "not yet", "why", value) for value in (0.5, 0.8, 0.8, float("nan"), None)]
    grades = [Grade(f"s{i}", "x", {"in_words": mark}) for i, mark in enumerate(marks)]
    lines = report_lines(SOURCE, grades, {})
    board = [line.split() for line in lines[lines.index("Leaderboard") + 1 :]]
    assert board == [["1", "0.800", "s1"], ["1", "0.800", "s2"], ["3", "0.500", "s0"]]


OTHER = {
    "unit_distance": """
def unit_distance(a, b, s):
    total = torch.zeros(len(a), dtype=a.dtype)
    for j in range(a.shape[1]):
        total = total + ((a[:, j] - b[:, j]) / s[j]) ** 2
    return (total / a.shape[1]) ** 0.5""",
    "rank_loss": """
def rank_loss(near, far):
    losses = []
    for n, f in zip(near, far):
        losses.append(torch.logaddexp(torch.zeros(()), (n - f + MARGIN) / TEMPERATURE))
    return sum(losses) / len(losses)""",
    "violations": """
def violations(distances):
    count = torch.zeros(distances.shape[1])
    for i in range(len(distances)):
        for j in range(i):
            count += distances[j] >= distances[i]
    return count""",
}
RENAMED = {
    name: code.replace("total", "acc")
    .replace("losses", "terms")
    .replace("count", "wrong")
    .replace("2\n", "2  # squared\n")
    for name, code in OTHER.items()
}


def test_renamed_and_commented_code_is_still_the_same_and_other_work_is_not(tmp_path):
    places = {}
    for student, answers in {"anna": OTHER, "ben": RENAMED, "carl": solutions(SOURCE)}.items():
        places[student] = tmp_path / f"{student}.ipynb"
        write_notebook(handed_in(SOURCE, answers), places[student])
    assert [pair[:2] for pair in alike(SOURCE, places)] == [("anna", "ben")]


def test_the_report_says_all_of_it_and_asks_for_grades(tmp_path):
    with pytest.raises(NotebookError, match="grade first"):
        load_grades(tmp_path, SOURCE, ["s0"])
    for i, status in enumerate(("passed", "not yet", "not attempted")):
        marks = {item.name: Mark(item.points if i == 0 else 0, item.points, status, "why") for item in SOURCE.items}
        Grade(f"s{i}", "a2_rank", marks, notes=["odd"] if i else []).save(
            grades_folder(tmp_path, SOURCE) / f"s{i}.json"
        )
    text = "\n".join(report_lines(SOURCE, load_grades(tmp_path, SOURCE, ["s0", "s1", "s2"]), {}))
    assert "3 students; of 22 points the mean is 7.3, the median 0" in text
    assert "3 ×  why" in text and "s2: odd" in text and "rank_loss" not in text
    assert text.count("33%") == len(SOURCE.items) and text.count("1.00") == len(SOURCE.items)


def test_what_nobody_has_read_yet_is_no_zero():
    """One answer waits, one student wrote none; a share of 0 % would be that student's alone."""
    rest = {item.name: Mark(1, item.points, "partly") for item in SOURCE.items}
    grades = [
        Grade("anna", "a2_rank", rest | {"in_words": None}),
        Grade("ben", "a2_rank", rest | {"in_words": Mark(0, 4, "not attempted", "no answer")}),
    ]
    lines = report_lines(SOURCE, grades, {})
    at = next(i for i, line in enumerate(lines) if line.startswith("in_words"))
    assert lines[at].split() == ["in_words", "4", "–", "–"] and lines[at + 1] == "    1 wait for a reader"
    assert lines[0].endswith("without the answers that nobody has read yet") and "nan" not in "".join(lines)
    grades[0].marks["in_words"] = Mark(4, 4, "passed")
    lines = report_lines(SOURCE, grades, {})
    assert "50%" in lines[at] and "wait" not in lines[at + 1] and "nobody" not in lines[0]
