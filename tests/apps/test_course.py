"""The course on the command line: an instructor's path and a student's."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.teaching.kit import grade as grading
from tta_iqa_lib.teaching.kit.source import write_notebook

sys.path.insert(0, str(Path(__file__).parents[1] / "teaching" / "kit"))
from handed_in import assignment, handed_in

SOURCE = assignment("a2_rank")


def run(*arguments):
    return CliRunner().invoke(app, ["course", *map(str, arguments)])


@pytest.fixture
def submissions(tmp_path):
    (tmp_path / "roster.csv").write_text("Student,Group\nanna,1\nben,1\n", encoding="utf-8")
    result = run("release", SOURCE.path, "--students", tmp_path / "roster.csv", "--key", "k", "--out", tmp_path / "in")
    assert result.exit_code == 0 and result.stdout.count("\n") == 3
    return tmp_path / "in"


def table(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_roster_is_read_as_any_spreadsheet_saves_it(mark, tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "cp1252"):
        path, out = tmp_path / "roster.csv", tmp_path / encoding
        path.write_text(f"Name{mark}Mail\nJörg{mark}j@x.org\n", encoding=encoding)
        result = run("release", SOURCE.path, "--students", path, "--out", out)
        assert result.exit_code == 0 and [entry.name for entry in out.iterdir() if entry.is_dir()] == ["Jörg"]


def test_each_student_gets_a_notebook_with_numbers_of_their_own(submissions):
    with zipfile.ZipFile(submissions / "a2_rank.zip") as archive:
        assert sorted(archive.namelist()) == ["anna/a2_rank.ipynb", "ben/a2_rank.ipynb"]
    text = (submissions / "anna" / "a2_rank.ipynb").read_text(encoding="utf-8")
    for name, value in SOURCE.constants("anna", "k").items():
        assert f"{name} = {value}" in text


def test_a_student_hears_what_is_missing_and_a_copy_is_kept(submissions):
    path = submissions / "anna" / "a2_rank.ipynb"
    result = run("validate", path)
    assert result.exit_code == 1 and "○ rank_loss: fill in the function" in result.stdout
    write_notebook(handed_in(SOURCE, {"pull": "def pull(a, b):\n    return a"}, "anna", "k"), path)
    result = run("validate", path)
    assert result.exit_code == 1 and "✗ pull: not yet" in result.stdout and "✓ rank_loss: passed" in result.stdout
    write_notebook(handed_in(SOURCE, student="anna", key="k"), path)
    result = run("validate", path)
    assert result.exit_code == 0 and "Ready to hand in." in result.stdout, result.stdout
    result = run("validate", path)
    assert result.exit_code == 0 and "the last copy is the same: '" in result.stderr
    assert len(list((path.parent / "backups").glob("*.ipynb"))) in (2, 3)  # two in one second are one


def test_grading_goes_on_where_it_stopped_and_takes_up_the_written_points(submissions, monkeypatch):
    write_notebook(handed_in(SOURCE, student="anna", key="k"), submissions / "anna" / "a2_rank.ipynb")
    out = submissions.parent / "grades"
    command = ("grade", SOURCE.path, submissions, "--key", "k", "--out", out, "--processes", 1)
    result = run(*command)
    assert result.exit_code == 0 and result.stdout == "18\tanna\n0\tben\n", result.output
    assert (
        table(out / "a2_rank.csv")["anna"].items()
        >= {"points": "18", "out_of": "22", "pull_values": "3", "in_words": ""}.items()
    )
    calls = []
    monkeypatch.setattr(grading, "grade_one", lambda *a, **k: calls.append(a))
    table_of_answers = out / "a2_rank-written.csv"
    written = table_of_answers.read_text(encoding="utf-8")
    table_of_answers.write_text(written.replace("anna,in_words,,", "anna,in_words,3,well seen"), encoding="utf-8")
    result = run(*command)
    assert calls == [] and result.stdout == "21\tanna\n0\tben\n", result.output
    assert "well seen" in (out / "anna" / "a2_rank.html").read_text(encoding="utf-8")
    table_of_answers.write_text(written.replace("anna,in_words,,", "anna,in_words,9,"), encoding="utf-8")
    result = run(*command)
    assert result.exit_code == 2 and "anna, in_words: points must be a number from 0 to 4; got '9'" in result.stderr
    assert "anna,in_words,9," in table_of_answers.read_text(encoding="utf-8")


def test_one_folder_does_for_all_assignments_of_a_course(tmp_path):
    """The same student, the same name of a part: what one assignment has is not the other's."""
    out, other = tmp_path / "grades", assignment("a4_loop")
    for source in (SOURCE, other):
        write_notebook(handed_in(source, student="anna"), tmp_path / source.name / "anna" / "x.ipynb")
    command = ("grade", SOURCE.path, tmp_path / "a2_rank", "--out", out, "--processes", 1)
    assert run(*command).exit_code == 0
    written = out / "a2_rank-written.csv"
    written.write_text(written.read_text("utf-8").replace("anna,in_words,,", "anna,in_words,4,"), "utf-8")
    assert "18\tanna" in run("grade", other.path, tmp_path / "a4_loop", "--out", out, "--processes", 1).stdout
    assert "22\tanna" in run(*command).stdout
    assert {p.name for p in (out / "anna").iterdir()} == {"a2_rank.html", "a4_loop.html"}
    report = run("report", SOURCE.path, tmp_path / "a2_rank", "--out", out)
    assert "1 students; of 22 points the mean is 22.0" in report.stdout
    before = written.read_bytes()
    (tmp_path / "a2_rank" / "anna").rename(tmp_path / "a2_rank" / "Anna")  # whoever was anna is gone, or has a new name
    write_notebook(handed_in(SOURCE, student="ben"), tmp_path / "a2_rank" / "ben" / "x.ipynb")
    again = run(*command)
    assert "18\tAnna" in again.stdout and "written.csv' holds points of 'anna', not graded now" in again.stderr
    write_notebook(handed_in(SOURCE, student="carl"), tmp_path / "a2_rank" / "carl" / "x.ipynb")
    report = run("report", SOURCE.path, tmp_path / "a2_rank", "--out", out)
    assert "2 students; of 22 points the mean is 18.0" in report.stdout and "1 of 3 are not graded" in report.stderr
    assert b"anna,in_words,4," in before and "anna,in_words,4," in written.read_text("utf-8")


def test_notebooks_of_another_assignment_are_one_line(tmp_path):
    """A folder a student, with all that they handed in."""
    from tta_iqa_lib.teaching.kit.submissions import collect

    for student in ("anna", "ben"):
        for source in (SOURCE, assignment("a1_scoring"), assignment("a4_loop")):
            write_notebook(handed_in(source, student=student), tmp_path / student / f"{source.name}.ipynb")
    found, odd = collect(tmp_path, SOURCE)
    assert set(found) == {"anna", "ben"}
    assert odd == [f"2 notebooks were released as {name}" for name in ("a1_scoring", "a4_loop")]


def test_one_failure_stops_one_grade_and_not_the_batch(submissions, monkeypatch):
    real = grading.grade_one

    def fails(source, path, student, *rest):
        if student == "anna":
            raise RuntimeError("a fault of the grader's")
        return real(source, path, student, *rest)

    monkeypatch.setattr(grading, "grade_one", fails)
    (submissions / "carl.ipynb").write_bytes(b"\xff\xfe no notebook")
    out = submissions.parent / "grades"
    result = run("grade", SOURCE.path, submissions, "--key", "k", "--out", out, "--processes", 1)
    assert result.exit_code == 0 and set(table(out / "a2_rank.csv")) == {"anna", "ben", "carl"}
    assert (
        "anna: could not be graded, RuntimeError" in result.stderr and "carl: the file is no notebook" in result.stderr
    )


def test_whose_a_notebook_is(tmp_path):
    """As a learning platform packs it: a folder each, or all in one, renamed as it likes."""
    from tta_iqa_lib.teaching.kit.submissions import find_submissions

    mine = handed_in(SOURCE, student="anna", key="k")
    stripped = json.loads(json.dumps(mine)) | {"metadata": {}}
    other = json.loads(json.dumps(mine))
    other["metadata"]["tta_iqa_course"]["name"] = "a1_scoring"
    evil = json.loads(json.dumps(mine))
    evil["metadata"]["tta_iqa_course"]["student"] = "../../evil"
    for place, notebook in {
        "ben/deep/Untitled (3).ipynb": stripped,
        "ben/.ipynb_checkpoints/x.ipynb": mine,
        "ben/backups/x.ipynb": mine,
        "Assignment_1234.ipynb": mine,
        "cleo_a2_rank.ipynb": stripped,
        "fred-a2_rank-final.ipynb": stripped,
        "dora/other.ipynb": other,
        "evil.ipynb": evil,
    }.items():
        write_notebook(notebook, tmp_path / place)
    assert set(find_submissions(tmp_path, SOURCE)) == {"anna", "ben", "cleo", "_.._evil", "fred-final"}
    write_notebook(mine, tmp_path / "emil_a2_rank.ipynb")  # two say they were anna's
    assert set(find_submissions(tmp_path, SOURCE)) == {
        "Assignment_1234",
        "emil",
        "ben",
        "cleo",
        "_.._evil",
        "fred-final",
    }


@pytest.mark.parametrize("name", ["Max Li", "Ben O'Neill", "Ana, née Šimić (2)"])
def test_a_notebook_that_lies_by_itself_goes_to_its_owner_whatever_the_name_on_the_roster(name, tmp_path):
    """Under another name it would be graded with that one's numbers."""
    from tta_iqa_lib.teaching.kit.submissions import find_submissions

    (tmp_path / "roster.csv").write_text(f'"{name}"\n', encoding="utf-8")
    result = run("release", SOURCE.path, "--students", tmp_path / "roster.csv", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    (tmp_path / "in").mkdir()
    (tmp_path / "out" / name / "a2_rank.ipynb").rename(tmp_path / "in" / "a2_rank_4711.ipynb")
    assert list(find_submissions(tmp_path / "in", SOURCE)) == [name]


def test_a_name_whose_accents_a_system_takes_apart_is_the_same_student(tmp_path):
    """In the roster, in the name of a folder, and in a file that lies by itself."""
    from tta_iqa_lib.teaching.kit.grade import grade_one
    from tta_iqa_lib.teaching.kit.submissions import collect

    whole, apart = ["J\u00f6rg", "Zo\u00eb"], ["Jo\u0308rg", "Zoe\u0308"]
    (tmp_path / "roster.csv").write_text("\n".join(apart), encoding="utf-8")
    assert run("release", SOURCE.path, "--students", tmp_path / "roster.csv", "--out", tmp_path / "out").exit_code == 0
    (tmp_path / "in" / apart[0]).mkdir(parents=True)
    (tmp_path / "out" / whole[0] / "a2_rank.ipynb").rename(tmp_path / "in" / apart[0] / "x.ipynb")
    (tmp_path / "out" / whole[1] / "a2_rank.ipynb").rename(tmp_path / "in" / "x.ipynb")
    found, odd = collect(tmp_path / "in", SOURCE)
    assert list(found) == whole and odd == []
    assert [grade_one(SOURCE, path, student).notes for student, path in found.items()] == [[], []]


def test_what_is_not_graded_is_said(tmp_path):
    from tta_iqa_lib.teaching.kit.submissions import collect

    mine = handed_in(SOURCE, student="anna", key="k")
    other = json.loads(json.dumps(mine))
    other["metadata"]["tta_iqa_course"]["name"] = "a1_scoring"
    folder = tmp_path / "in"
    for place, notebook in {
        "anna/first.ipynb": mine,
        "anna/second.ipynb": mine,
        "ben/a1.ipynb": other,
        "Ümit Ö_4711_assignsubmission_file_/x.ipynb": mine,
    }.items():
        write_notebook(notebook, folder / place)
    os.utime(folder / "anna" / "second.ipynb", (1, 1))
    (folder / "carl.pdf").write_text("%PDF")
    (folder / "dora").mkdir()
    (folder / "emil").mkdir()
    (folder / "emil" / "link.ipynb").symlink_to(SOURCE.path)  # the instructor's own answers
    (folder / "frida.ipynb").symlink_to(folder / "anna" / "first.ipynb")
    (folder / "gerd.ipynb").mkdir()
    found, odd = collect(folder, SOURCE)
    assert set(found) == {"anna", "Ümit Ö"} and found["anna"].name == "first.ipynb"
    said = "\n".join(odd)
    for line in (
        "'ben/a1.ipynb' was released as a1_scoring",
        "'carl.pdf' holds no notebook of a2_rank",
        "'dora' holds no notebook",
        "'emil/link.ipynb' is a link",
        "'frida.ipynb' is a link",
        "anna has 2 notebooks; 'anna/first.ipynb' was written last",
    ):
        assert line in said


def test_a_worker_that_dies_takes_one_grade_with_it(submissions):
    """As when no memory is left, and the system kills. In a fresh interpreter, whose workers import the fault."""
    write_notebook(handed_in(SOURCE, student="ben", key="k"), submissions / "ben" / "a2_rank.ipynb")
    for name in ("carl", "dora"):
        (submissions / name).mkdir()
        (submissions / name / "a2_rank.ipynb").write_text("{}")
    program = """
import os, signal, sys
from pathlib import Path
from tta_iqa_lib.teaching.kit import grade
from tta_iqa_lib.teaching.kit.source import Assignment
from tta_iqa_lib.teaching.kit.submissions import find_submissions
real = grade.grade_one
def killed(source, path, student, *rest):
    if student == "anna":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(source, path, student, *rest)
grade.grade_one = killed
if __name__ == "__main__":
    source, folder = Assignment.read(Path(sys.argv[1])), Path(sys.argv[2])
    for one in grade.grade_all(source, find_submissions(folder, source), folder / "out", "k", 2):
        print(one.student, one.points, one.notes)
"""
    (submissions.parent / "program.py").write_text(program)
    arguments = [sys.executable, submissions.parent / "program.py", SOURCE.path, submissions]
    here = os.environ | {"PYTHONPATH": str(Path(grading.__file__).parents[3])}
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=here)
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert [line.split()[:2] for line in lines] == [["anna", "0"], ["ben", "18"], ["carl", "0"], ["dora", "0"]]
    assert "ended from outside" in lines[0] and "no notebook" in lines[2]


@pytest.mark.skipif(os.name == "nt", reason="a terminal of Unix")
def test_an_interruption_ends_at_once_and_keeps_what_is_done(submissions):
    """anna is graded, ben takes minutes, and others wait. A terminal interrupts all processes in it."""
    for name in "abcdef":
        write_notebook(handed_in(SOURCE), submissions / name / "a2_rank.ipynb")
    program = submissions.parent / "program.py"
    program.write_text("""
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from tta_iqa_lib.apps.cli import app
from tta_iqa_lib.teaching.kit import grade
def slow(source, path, student, key, limits):
    if student != "anna":
        time.sleep(200)
    return grade.Grade(student, source.name, digest=grade.digest_of(source, path, student, key))
grade.grade_one = slow
if __name__ == "__main__":
    app()
""")
    out = submissions.parent / "grades"
    command = [sys.executable, program, "course", "grade", SOURCE.path, submissions, "--key", "k", "--out", out]
    here = os.environ | {"PYTHONPATH": str(Path(grading.__file__).parents[3])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=here, start_new_session=True) as process:
        kept, deadline = out / ".grades" / "a2_rank" / "anna.json", time.monotonic() + 120
        while not kept.is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        try:
            _, said = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130 and "stopped; 1 of 8 are kept: start it again" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("release", "nothing.ipynb"), "cannot be read: No such file"),
        (("release", "roster.csv"), "is not a Jupyter notebook"),
        (("validate", "roster.csv"), "is not a Jupyter notebook"),
        (("release", SOURCE.path, "--students", "bad.csv"), "must do as the name of a folder; got 'a/b'"),
        (("release", SOURCE.path, "--students", "empty.csv"), "no students in"),
        (("release", SOURCE.path, "--students", "twice.csv"), "more than one student is called 'Muster'"),
        (("grade", SOURCE.path, "nowhere"), "no folder of submissions"),
        (("grade", SOURCE.path, "."), "no notebook of a2_rank in"),
    ],
)
def test_bad_usage_is_one_clear_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("roster.csv").write_text("x\n")
    Path("bad.csv").write_text("a/b\n")
    Path("empty.csv").write_text("student\n")
    Path("twice.csv").write_text("Muster, Anna\nMuster, Ben\n")
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_the_form_for_otter_is_written_elsewhere_and_never_over_the_source(tmp_path):
    result = run("export", SOURCE.path, "--out", tmp_path)
    assert result.exit_code == 0 and result.stdout.strip() == str(tmp_path / "a2_rank.ipynb")
    assert "# ASSIGNMENT CONFIG" in (tmp_path / "a2_rank.ipynb").read_text(encoding="utf-8")
    copy = tmp_path / "mine" / "a2_rank.ipynb"
    write_notebook(SOURCE.notebook, copy)
    before = copy.read_bytes()
    for command in ("export", "release"):
        result = run(command, copy, "--out", copy.parent)
        assert result.exit_code == 2 and "the assignment itself" in result.stderr
        assert copy.read_bytes() == before
