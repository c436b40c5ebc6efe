"""The table of written answers: whatever a spreadsheet makes of it, no point of the instructor's is lost."""

import csv

import pytest

from tta_iqa_lib.teaching.kit.grade import Grade
from tta_iqa_lib.teaching.kit.written import take_up, unclaimed

POSSIBLE = {"in_words": 4.0, "why": 2.0}


def grades(**answers):
    return [Grade(name, "x", {"in_words": None}, {"in_words": answer}) for name, answer in answers.items()]


def points(found):
    return {g.student: mark.points for g in found if (mark := g.marks["in_words"])}


@pytest.fixture
def table(tmp_path):
    """Made for two students, filled in with 1.5 and 4 points by hand."""
    path = tmp_path / "x-written.csv"
    take_up(grades(anna="Große\nZahlen, “so” gesagt; \u2028 ja", **{"-ben": "=1+1"}), POSSIBLE, path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["student"] for row in rows] == ["'-ben", "anna"] and rows[0]["answer"] == "'=1+1"
    rows[0]["points"], rows[1]["points"], rows[1]["comment"] = "4", " 1.5", "gut"
    return path, rows


def save(path, rows, encoding, delimiter=",", decimal="."):
    with path.open("w", newline="", encoding=encoding, errors="replace") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows([row | {"points": row["points"].replace(".", decimal)} for row in rows])


@pytest.mark.parametrize(
    "how",
    [("utf-8",), ("utf-8-sig",), ("cp1252", ";", ","), ("utf-8", "\t", ",")],
    ids=["plain", "mark", "German", "tabs"],
)
def test_points_are_taken_up_from_what_any_spreadsheet_saves(table, how):
    path, rows = table
    save(path, rows[::-1], *how)
    found = grades(anna="Große\r\nZahlen, “so” gesagt; \u2028 ja", **{"-ben": "=1+1"})
    take_up(found, POSSIBLE, path)
    assert points(found) == {"anna": 1.5, "-ben": 4} and found[0].marks["in_words"].message == "gut"
    assert [g.notes for g in found] == [[], []]
    again = grades(anna="Große Zahlen, “so” gesagt; ja", **{"-ben": "=1+1"})
    take_up(again, POSSIBLE, path)
    assert points(again) == points(found)


def test_points_of_students_who_are_not_graded_now_stay(table):
    path, rows = table
    save(path, rows, "utf-8")
    take_up(grades(carl="a third"), POSSIBLE, path)
    found = grades(anna="Große Zahlen, “so” gesagt; ja", carl="a third", **{"-ben": "=1+1"})
    take_up(found, POSSIBLE, path)
    assert points(found) == {"anna": 1.5, "-ben": 4}


def test_points_of_a_name_that_a_spreadsheet_has_spoilt_are_told(tmp_path):
    """Windows has no letter ć, and writes a question mark."""
    path, class_ = tmp_path / "x-written.csv", {"Šimić": "yes", "Ümit": "no", "Tuğba": "so"}
    take_up(grades(**class_), POSSIBLE, path)
    assert unclaimed(grades(**class_), path) == []
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    save(path, [row | {"points": "" if row["student"] == "Tuğba" else "3"} for row in rows], "cp1252")
    found = grades(**class_)
    take_up(found, POSSIBLE, path)
    assert points(found) == {"Ümit": 3} and unclaimed(found, path) == ["Šimi?"]


def test_another_answer_keeps_the_points_with_a_note(table):
    path, rows = table
    save(path, rows, "utf-8")
    found = grades(anna="Quite another answer", **{"-ben": ""})
    take_up(found, POSSIBLE, path)
    assert points(found) == {"anna": 1.5}
    assert "another one than that which got 1.5 points" in found[0].notes[0] and "got 4 points" in found[1].notes[0]
    back = grades(anna="Quite another answer", **{"-ben": "=1+1"})
    take_up(back, POSSIBLE, path)
    assert points(back) == {"anna": 1.5, "-ben": 4}


@pytest.mark.parametrize("wrong", ["5", "-1", "nan", "viel"])
def test_impossible_points_and_another_table_are_refused_and_left_alone(table, wrong):
    path, rows = table
    rows[1]["points"] = wrong
    save(path, rows, "utf-8")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"anna, in_words: points must be a number from 0 to 4; got '{wrong}'"):
        take_up(grades(anna="x"), POSSIBLE, path)
    assert path.read_bytes() == before
    path.write_text("name,grade\nanna,3\n")
    with pytest.raises(ValueError, match="no columns student, item, points"):
        take_up(grades(anna="x"), POSSIBLE, path)
    assert path.read_text() == "name,grade\nanna,3\n"
