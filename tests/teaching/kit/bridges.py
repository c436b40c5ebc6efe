"""The same sources under nbgrader and otter-grader, in an environment of their own: `make test-graders`.

Both make their own students' version, run submissions in their own way, and must come to the points of our grader.
"""

import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from handed_in import COURSE, NAMES, assignment, fill_in, secrets, solutions, wrong_answers

from tta_iqa_lib.teaching.kit.grade import Grade, grade_one
from tta_iqa_lib.teaching.kit.otter import otter_version
from tta_iqa_lib.teaching.kit.source import Assignment, read_notebook, write_notebook

BIN = Path(sys.executable).parent
SURROUNDINGS = os.environ | {
    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",  # nbgrader calls alembic by its name
    "PYTHONPATH": str(COURSE.parents[1]),  # the kernels run elsewhere
}


def run(folder: Path, *command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, env=SURROUNDINGS
    )
    assert done.returncode == 0, done.stdout + done.stderr


def submissions(source: Assignment, released: dict) -> dict[str, dict]:
    """Three students': nobody's secrets are in what they were given."""
    text = "\n".join(cell["source"] for cell in released["cells"]) + json.dumps(released["metadata"])
    assert "NotImplementedError" in text and [s for s in secrets(source) if s in text] == []
    right = solutions(source)
    return {
        "right": fill_in(released, right),
        "wrong": fill_in(released, right | wrong_answers(source.name)),
        "untouched": released,
    }


def nbgrader(source: Assignment, course: Path) -> dict[str, float]:
    """Points of each student."""
    name = source.name
    course.mkdir()
    (course / "nbgrader_config.py").write_text(
        "c = get_config()\nc.CourseDirectory.course_id = 'x'\nc.Execute.timeout = c.Execute.iopub_timeout = 900\n"
    )
    write_notebook(source.notebook, course / "source" / name / f"{name}.ipynb")
    run(course, "nbgrader", "generate_assignment", name)
    released = read_notebook(course / "release" / name / f"{name}.ipynb")
    for who, notebook in submissions(source, released).items():
        write_notebook(notebook, course / "submitted" / who / name / f"{name}.ipynb")
    run(course, "nbgrader", "autograde", name)
    run(course, "nbgrader", "export")
    with (course / "grades.csv").open(newline="") as file:
        return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


def otter(source: Assignment, folder: Path) -> dict[str, float]:
    """Points of each student."""
    write_notebook(otter_version(source), folder / f"{source.name}.ipynb")
    run(folder, "otter", "assign", f"{source.name}.ipynb", "out", "--no-pdfs")  # runs the tests on the solutions, too
    (archive,) = (folder / "out" / "autograder").glob("*.zip")
    (student,) = [path for path in (folder / "out" / "student").rglob("*") if path.is_file()]  # and no file of tests
    points = {}
    for who, notebook in submissions(source, read_notebook(student)).items():
        (folder / who).mkdir()
        write_notebook(notebook, folder / who / student.name)
        run(folder / who, "otter", "run", student.name, "-a", str(archive), "--no-logo")
        tests = json.loads((folder / who / "results.json").read_text(encoding="utf-8"))["tests"]
        points[who] = sum(test.get("score", 0) for test in tests)
    return points


def in_quarters(grade: Grade) -> float:
    """What otter makes of a grade: of each item as many quarters as are full."""
    return sum(math.floor(4 * m.points / m.of) / 4 * m.of for m in grade.marks.values() if m)


def main(name: str) -> None:
    source = assignment(name)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        by_nbgrader = nbgrader(source, folder / "nbgrader")
        ours = {
            who: grade_one(source, folder / "nbgrader" / "submitted" / who / name / f"{name}.ipynb")
            for who in by_nbgrader
        }
        by_otter = otter(source, folder / "otter")
    points = {who: grade.points for who, grade in ours.items()}
    assert len(points) == 3 and points["right"] > points["wrong"] >= points["untouched"] == 0
    assert by_nbgrader == points, (by_nbgrader, points)
    assert by_otter == {who: in_quarters(grade) for who, grade in ours.items()}, (by_otter, points)
    print(f"{name}: course kit {points}, nbgrader {by_nbgrader}, otter {by_otter}", flush=True)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NAMES:
        main(chosen)
