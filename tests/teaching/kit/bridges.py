"""The same sources under nbgrader, in an environment of its own: `make test-bridges`.

nbgrader makes its own release, runs submissions in its own way, and must come to the points of our grader.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from handed_in import COURSE, assignment, handed_in

from tta_iqa_lib.teaching.kit.grade import grade_one
from tta_iqa_lib.teaching.kit.release import ANYONE
from tta_iqa_lib.teaching.kit.source import write_notebook

WRONG = {"rank_loss": "def rank_loss(a, b):\n    return torch.nn.functional.softplus((a - b) / TEMPERATURE).sum()"}


def nbgrader(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "nbgrader", *arguments, "--log-level=ERROR"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic by its name
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr


def main(name: str) -> None:
    source = assignment(name)
    with tempfile.TemporaryDirectory() as place:
        course = Path(place)
        (course / "nbgrader_config.py").write_text(
            "c = get_config()\nc.CourseDirectory.course_id = 'x'\nc.Execute.timeout = c.Execute.iopub_timeout = 900\n"
        )
        shutil.copytree(COURSE / "source" / name, course / "source" / name)
        nbgrader(course, "generate_assignment", name)
        released = json.loads((course / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8"))
        text = json.dumps(released)
        assert "BEGIN" not in text and "Partly" not in text and "NotImplementedError" in text, (
            "hidden tests in the release"
        )
        answers = {"right": {}, "wrong": WRONG}
        submitted = {who: handed_in(source, a) for who, a in answers.items()} | {"untouched": None}
        ours = {}
        for who, notebook in submitted.items():
            path = course / "submitted" / who / name / f"{name}.ipynb"
            if notebook is None:
                path.parent.mkdir(parents=True)
                shutil.copy(course / "release" / name / f"{name}.ipynb", path)
            else:  # their release with our student's cells in it, as their metadata have sums of their own
                merged = json.loads(text)
                for theirs, mine in zip(merged["cells"], notebook["cells"], strict=True):
                    theirs["source"] = mine["source"]
                write_notebook(merged, path)
            ours[who] = grade_one(source, path, ANYONE).points
        nbgrader(course, "autograde", name)
        nbgrader(course, "export")
        with (course / "grades.csv").open(newline="") as file:
            theirs = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert theirs == ours and len(set(ours.values())) == 3, (theirs, ours)
    print(f"{name}: nbgrader gives {theirs}, as the course kit does")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or ["a2_rank"]:
        main(chosen)
