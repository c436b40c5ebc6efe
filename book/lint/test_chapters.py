"""A chapter follows the template, and says how long it takes."""

import re
from pathlib import Path

import pytest

from workshop import ROOT
from workshop.chapters import CHAPTERS, read


def test_all_chapters_are_there_and_in_the_table_of_contents():
    assert set(CHAPTERS) == set(range(1, 14))
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = re.findall(r"book/(\d\d_\w+)", contents)
    assert listed == [path.stem for path in CHAPTERS.values()]


def code_of(path: Path) -> str:
    return "\n".join(
        cell.source for cell in read(path).cells if cell.cell_type == "code"
    )


@pytest.mark.parametrize("number", CHAPTERS, ids=lambda n: f"chapter {n}")
def test_a_chapter_follows_the_template(number):
    """A short set-up; it asks first, says where it fails, quizzes, and sums up."""
    cells = read(CHAPTERS[number]).cells
    set_up = next(cell for cell in cells if cell.cell_type == "code").source
    assert len([line for line in set_up.splitlines() if line.strip()]) <= 6, set_up
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for heading in ("Predict first", "Where it fails", "Take away", "References"):
        assert re.search(rf"^## {heading}", prose, re.MULTILINE), heading
    assert (
        "**Time**" in prose
        and "**You need**" in prose
        and "After this chapter you can" in prose
    )
    assert "display.Quiz(" in code_of(CHAPTERS[number])
    assert "```{bibliography}" in prose


def words_to_read(path: Path) -> int:
    """The words of a chapter's prose, computed sentences included, without its exercises and lists of references."""
    words, exercise = 0, False
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            exercise = "## Exercise" in cell.source or (
                exercise and "## Take away" not in cell.source
            )
            text = re.sub(
                r"```\{bibliography\}.*?```", "", cell.source, flags=re.DOTALL
            )
            words += 0 if exercise else len(text.split())
        for output in cell.get("outputs", []):
            words += len(
                "".join(output.get("data", {}).get("text/markdown", "")).split()
            )
    return words


@pytest.mark.parametrize("number", CHAPTERS, ids=lambda n: f"chapter {n}")
def test_a_chapter_s_times_are_those_of_its_words_its_exercises_and_its_run(number):
    """Minutes of text from the words, to the nearest five; of exercises, the sum of theirs; seconds as the run took them."""
    opening = read(CHAPTERS[number]).cells[0].source
    text, exercises = map(
        int,
        re.search(
            r"about (\d+) minutes for the text.*?and (\d+) for the exercises", opening
        ).groups(),
    )
    assert abs(text - words_to_read(CHAPTERS[number]) / 200) <= 3.5, words_to_read(
        CHAPTERS[number]
    )
    prose = "\n".join(
        cell.source
        for cell in read(CHAPTERS[number]).cells
        if cell.cell_type == "markdown"
    )
    assert exercises == sum(map(int, re.findall(r"\*\*about (\d+) minutes\*\*", prose)))
    seconds = int(re.search(r"runs in about (\d+) s without a GPU", opening)[1])
    times = (ROOT / "book" / "execution.md").read_text(encoding="utf-8")
    measured = int(re.search(rf"{CHAPTERS[number].stem}\.ipynb` \| (\d+) \|", times)[1])
    assert 0.6 * measured - 5 <= seconds <= 1.6 * measured + 10
