"""What a student hears before handing in: what is missing, and what stopped."""

from handed_in import assignment, handed_in

from tta_iqa_lib.teaching.kit.release import ANSWER, student_version
from tta_iqa_lib.teaching.kit.source import write_notebook
from tta_iqa_lib.teaching.kit.validate import validate

SOURCE = assignment("a2_rank")


def said(notebook, folder):
    write_notebook(notebook, folder / "x.ipynb")
    return validate(folder / "x.ipynb")


def test_a_written_question_without_an_answer_is_not_ready(tmp_path):
    notebook = handed_in(SOURCE)
    at = next(i for i, c in enumerate(notebook["cells"]) if c["metadata"]["nbgrader"]["grade_id"] == "in_words")
    assert said(notebook, tmp_path)[1]
    for empty in (ANSWER, " \n"):
        notebook["cells"][at]["source"] = empty
        lines, complete = said(notebook, tmp_path)
        assert "○ in_words: no answer" in lines and not complete
    for place in (at, at + 1):  # where the grader finds it, too
        cells = list(notebook["cells"])
        cells.insert(place, {"cell_type": "markdown", "metadata": {}, "source": "In a cell of my own."})
        assert said(notebook | {"cells": cells}, tmp_path)[1]


def test_a_written_question_is_not_ready_either_where_its_cell_is_gone(tmp_path):
    notebook = student_version(SOURCE)
    own = {"cell_type": "markdown", "metadata": {}, "source": "In a cell of my own."}
    at = next(i for i, c in enumerate(notebook["cells"]) if c["source"] == ANSWER)
    cells = notebook["cells"]
    for answer, missing in (([], True), ([own], False)):
        changed = cells[:at] + answer + cells[at + 1 :]
        assert ("○ in_words: no answer" in said(notebook | {"cells": changed}, tmp_path)[0]) == missing
        changed = [
            {"cell_type": c["cell_type"], "source": c["source"]} for c in changed
        ]  # and all that is known of cells
        assert ("○ in_words: no answer" in said(notebook | {"cells": changed}, tmp_path)[0]) == missing


def test_what_stopped_is_told_with_its_kind_and_its_line(tmp_path):
    lines, _ = said(handed_in(SOURCE, {"pull": "def pull(a, b):\n    return a / (1 // 0)"}), tmp_path)
    assert "✗ pull: not yet: it stopped with ZeroDivisionError in the line `return a / (1 // 0)`" in lines
    project = handed_in(assignment("a5_project"), {"recipe": "def recipe():\n    return {}['views']"})
    lines, complete = said(project, tmp_path)  # its examples have no checker
    assert lines == ["✗ the examples stopped: it stopped with KeyError in the line `return {}['views']`"]
    assert not complete
