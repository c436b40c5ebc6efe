"""A notebook that has suffered gets the points of one that has not; an attack costs the attacking function, and nobody else."""

import pytest
from handed_in import assignment, handed_in
from mutilations import MUTILATIONS, expected, mutilate

from tta_iqa_lib.teaching.kit.grade import grade_one
from tta_iqa_lib.teaching.kit.source import write_notebook
from tta_iqa_lib.teaching.kit.walls import Limits

SOURCE = assignment("a2_rank")
ANSWERS = {"rank_loss": "def rank_loss(a, b):\n    return torch.nn.functional.softplus((a - b) / TEMPERATURE).mean()"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A submission of which one function is wrong in part, and its grade."""
    path = tmp_path_factory.mktemp("whole") / "x.ipynb"
    notebook = handed_in(SOURCE, ANSWERS)
    write_notebook(notebook, path)
    return notebook, grade_one(SOURCE, path)


def test_there_are_twenty():
    assert len(MUTILATIONS) == 20


@pytest.mark.parametrize("name", MUTILATIONS)
def test_a_mutilated_notebook_gets_the_right_points(name, whole, tmp_path):
    notebook, baseline = whole
    (tmp_path / "grades").mkdir()
    (tmp_path / "grades" / "grades.csv").write_text("0 points")
    changed = mutilate(notebook, name, "violations", tmp_path / "grades")
    assert changed != notebook
    write_notebook(changed, tmp_path / "x.ipynb")
    grade = grade_one(SOURCE, tmp_path / "x.ipynb", limits=Limits(seconds=2))
    assert {k: m.points for k, m in grade.marks.items() if m} == expected(SOURCE, baseline, name, "violations"), grade
    assert grade.answers == baseline.answers or name == "every cell doubled"
    assert [p.read_text() for p in (tmp_path / "grades").iterdir()] == ["0 points"]
