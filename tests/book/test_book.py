"""What every chapter owes its reader: exercises with their solutions, a quiz, a player, and numbers that come from the run."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import nbformat
import pytest
from workshop.places import places

import tta_iqa_lib
from tta_iqa_lib.teaching.course import check

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = {int(path.name[:2]): path for path in sorted((ROOT / "book").glob("[0-9][0-9]_*.ipynb"))}
PAGES = [ROOT / "index.ipynb", *CHAPTERS.values()]


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(path: Path) -> str:
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")


def players_of(path: Path) -> list[str]:
    """The HTML of each player, as stored."""
    outputs = [output for cell in read(path).cells for output in cell.get("outputs", [])]
    pages = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    return [html for html in pages if 'class="tta-player' in html]


def test_all_chapters_are_there_and_in_the_table_of_contents():
    assert set(CHAPTERS) == set(range(1, 13))
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = re.findall(r"book/(\d\d_\w+)", contents)
    assert listed == [path.stem for path in CHAPTERS.values()]


@pytest.mark.parametrize("number", CHAPTERS, ids=lambda n: f"chapter {n}")
def test_every_exercise_has_a_stub_hints_and_a_solution_that_is_checked(number):
    """At least three a chapter; the stub is not attempted, and the solution is run against its checker."""
    exercises = sorted(name for name in vars(check) if name.startswith(f"ex{number:02d}_"))
    assert len(exercises) >= 3
    cells = read(CHAPTERS[number]).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for name in exercises:
        title = f"## Exercise {number}.{name[-1]}"
        assert prose.count(title) == 1, title
        stubs = [cell for cell in cells if re.search(rf"^check\.{name}\(", cell.source, re.MULTILINE)]
        assert len(stubs) == 1 and "# your code here" in stubs[0].source
        assert "not attempted" in str(stubs[0].outputs)
        solved = [c for c in cells if re.search(rf'assert check\.{name}\(.*\)\.status == "passed"', c.source)]
        assert len(solved) == 1 and "hide-input" in solved[0].metadata.tags
    assert prose.count("<summary>Hint 1</summary>") == prose.count("<summary>Hint 2</summary>") == len(exercises)
    assert len(re.findall(r"\*\*Difficulty\*\* [●○]{3} · \*\*about \d+ minutes\*\*", prose)) == len(exercises)


@pytest.mark.parametrize("number", CHAPTERS, ids=lambda n: f"chapter {n}")
def test_a_chapter_follows_the_template(number):
    """A short set-up; it asks first, says where it fails, quizzes, and sums up."""
    cells = read(CHAPTERS[number]).cells
    set_up = next(cell for cell in cells if cell.cell_type == "code").source
    assert len([line for line in set_up.splitlines() if line.strip()]) <= 6, set_up
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for heading in ("Predict first", "Where it fails", "Take away", "References"):
        assert re.search(rf"^## {heading}", prose, re.MULTILINE), heading
    assert "**Time**" in prose and "**You need**" in prose and "After this chapter you can" in prose
    assert "display.Quiz(" in code_of(CHAPTERS[number])
    assert "```{bibliography}" in prose


def words_to_read(path: Path) -> int:
    """The words of a chapter's prose, computed sentences included, without its exercises and lists of references."""
    words, exercise = 0, False
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            exercise = "## Exercise" in cell.source or (exercise and "## Take away" not in cell.source)
            text = re.sub(r"```\{bibliography\}.*?```", "", cell.source, flags=re.DOTALL)
            words += 0 if exercise else len(text.split())
        for output in cell.get("outputs", []):
            words += len("".join(output.get("data", {}).get("text/markdown", "")).split())
    return words


@pytest.mark.parametrize("number", CHAPTERS, ids=lambda n: f"chapter {n}")
def test_a_chapter_s_times_are_those_of_its_words_its_exercises_and_its_run(number):
    """Minutes of text from the words, to the nearest five; of exercises, the sum of theirs; seconds as the run took them."""
    opening = read(CHAPTERS[number]).cells[0].source
    text, exercises = map(
        int, re.search(r"about (\d+) minutes for the text.*?and (\d+) for the exercises", opening).groups()
    )
    assert abs(text - words_to_read(CHAPTERS[number]) / 200) <= 3.5, words_to_read(CHAPTERS[number])
    prose = "\n".join(cell.source for cell in read(CHAPTERS[number]).cells if cell.cell_type == "markdown")
    assert exercises == sum(map(int, re.findall(r"\*\*about (\d+) minutes\*\*", prose)))
    seconds = int(re.search(r"runs in about (\d+) s without a GPU", opening)[1])
    times = (ROOT / "book" / "execution.md").read_text(encoding="utf-8")
    measured = int(re.search(rf"{CHAPTERS[number].stem}\.ipynb` \| (\d+) \|", times)[1])
    assert 0.6 * measured - 5 <= seconds <= 1.6 * measured + 10


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_players_have_eight_states_and_stay_small(path):
    """States that the model computed: pictures that differ, not positions of a line that is dragged over them."""
    for html in players_of(path):
        states = set(re.findall(r"base64,([A-Za-z0-9+/=]+)", html))
        assert len(states) >= 8, html[:200]
        assert len(html.encode()) <= 300_000, html[:200]


def test_there_are_players_for_everyone():
    """At least ten in the book, one at least in every chapter; no two have the same name."""
    players = {path.stem: players_of(path) for path in PAGES}
    assert [name for name, found in players.items() if not found] == []
    names = [re.search(r'id="player-([^"]+)"', html)[1] for found in players.values() for html in found]
    assert len(names) >= 10 and len(set(names)) == len(names)


# A decimal like .47 or 0.935, or a percentage, that stands in a sentence. Settings are whole numbers, short decimals or code;
# the levels of intervals and tests are a convention, no result.
TYPED = re.compile(
    r"(?<![\w.])[-−+]?0?\.\d{2,}(?![\w%])|(?<![\w.])(?!(?:95|5|2\.5|97\.5)\s?%)\d+(?:\.\d+)?\s?(?:%|per cent)"
)


def sentences(source: str) -> str:
    """Markdown without code, formulas, links and HTML."""
    for pattern in (r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\]\([^)]*\)", r"<[^>]+>"):
        source = re.sub(pattern, " ", source, flags=re.DOTALL)
    return source


def captions(source: str) -> list[str]:
    """What a code cell says below its players: the fixed parts of the caption."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    players = [call for call in calls if getattr(call.func, "attr", "") in ("Player", "Compare")]
    parts = [node for call in players for node in ast.walk(call.args[-1])]
    return [node.value for node in parts if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def said(path: Path) -> list[tuple[str, str]]:
    """Everything that a page says in fixed words, with its place: prose, captions, text alternatives."""
    if path.suffix == ".md":
        return [(path.name, path.read_text(encoding="utf-8"))]
    texts = []
    for cell in read(path).cells:
        figure = cell.metadata.get("mystnb", {})
        found = [figure.get("figure", {}).get("caption", ""), figure.get("image", {}).get("alt", "")]
        found += [cell.source] if cell.cell_type == "markdown" else captions(cell.source)
        texts += [(cell.id, text) for text in found]
    return texts


MEASURED = {"execution.md"}  # written by the run
WRITTEN = [p for p in [*sorted((ROOT / "book").glob("*.md")), ROOT / "README.md"] if p.name not in MEASURED]


@pytest.mark.parametrize("path", [*PAGES, *WRITTEN], ids=lambda path: path.stem)
def test_no_result_is_typed_into_the_text(path):
    """Results in the text come from cells that run; a hypothetical number is marked by 'say' or 'suppose' in its line."""
    typed = []
    for place, text in said(path):
        for line in sentences(text).splitlines():
            if not re.search(r"\b([Ss]ay|[Ss]uppose|[Ii]magine)\b", line):
                typed += [f"{place}: {line.strip()}" for _ in TYPED.finditer(line)]
    assert typed == []


def test_each_public_name_is_explained_in_a_chapter():
    """The map on the API page is complete both ways: each name has its chapter, the chapter has name and equation."""
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| \[(\d+)\]\((\w+)\) \| (?:\{eq\}`([\w-]+)`|–) \|$", page, re.MULTILINE)
    names = [name for name, *_ in rows]
    rooms = {p.name.removesuffix(".py") for p in Path(tta_iqa_lib.__file__).parent.iterdir()}
    assert sorted(names) == sorted(set(tta_iqa_lib.__all__) - rooms)
    for name, number, stem, equation in rows:
        source = "\n".join(cell.source for cell in read(CHAPTERS[int(number)]).cells)
        assert CHAPTERS[int(number)].stem == stem
        assert re.search(rf"\b{name}\b", source), f"chapter {number} does not mention {name}"
        assert not equation or f":label: {equation}\n" in source, f"chapter {number} has no equation {equation}"


# A {term} role, by its target and its text; any other role and all code say nothing to a reader who looks for a word.
TERM = re.compile(r"\{term\}`(?:[^`<]*<([^>`]+)>|([^`]+))`")
CODE = re.compile(r"(\{[\w:]+\})?`[^`]*`")


def glossary() -> list[list[str]]:
    """The names of each entry; most have one, some an acronym, too."""
    page = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    body = page[page.index("```{glossary}\n") :]
    return [block.splitlines() for block in re.findall(r"\n\n?((?:\w.*\n)+) ", body)]


def visible(source: str) -> str:
    """The prose of a Markdown cell with its {term} roles, without what is folded away or cannot hold such a role: headings, code,
    formulas, and links (a link cannot lie in a link)."""
    fenced = r"^```(?:\w|\{math\}|\{bibliography\}).*?^```"
    for pattern in (
        r"<details>.*?</details>",
        fenced,
        r"^#+ [^\n]*$",
        r"\$\$.*?\$\$",
        r"\$[^$]*\$",
        r"\[[^\]]*\]\([^)]*\)",
    ):
        source = re.sub(pattern, " ", source, flags=re.DOTALL | re.MULTILINE)
    source = re.sub(r"^```.*$|^:\w+:.*$", " ", source, flags=re.MULTILINE)  # an admonition's text stays
    return CODE.sub(lambda match: match[0] if match[1] == "{term}" else " ", source)


def first_mentions() -> dict[str, tuple[bool, str]]:
    """For each entry: is its first mention in the prose of the book a link to the glossary, and where does it stand?"""
    entry = {name.lower(): names[0] for names in glossary() for name in names}
    names = sorted((name for names in glossary() for name in names), key=len, reverse=True)  # the longest match wins
    words = [re.escape(name).replace(r"\ ", r"\s+") for name in names]
    words = [word if name.isupper() else f"(?i:{word})" for name, word in zip(names, words, strict=True)]
    mention = re.compile(rf"{TERM.pattern}|(?<![\w-])({'|'.join(words)})s?(?![\w-])")
    first = {}
    for path in PAGES:
        for cell in read(path).cells:
            if cell.cell_type == "markdown":
                for match in mention.finditer(visible(cell.source)):
                    name = " ".join((match[1] or match[2] or match[3]).split()).lower()
                    assert name in entry, f"{path.stem}, {cell.id}: {match[0]} is not in the glossary"
                    first.setdefault(entry[name], (match[3] is None, f"{path.stem}, {cell.id}: {match[0]}"))
    return first


def test_each_glossary_term_is_linked_where_it_first_appears():
    """Who meets a term for the first time, reading from the welcome page on, can look it up. Each entry is used in the book."""
    first = first_mentions()
    assert len(glossary()) > 40
    assert [names[0] for names in glossary() if names[0] not in first] == []
    assert [where for linked, where in first.values() if not linked] == []


# Equations that the library has no name for: what is taught with them, the chapter or the reader computes.
WITHOUT_A_NAME = {
    "eq-mos": "opinions are averaged by those who collect them",
    "eq-standard-error": "likewise",
    "eq-observer": "a simulation of the chapter's own",
    "eq-ceiling": "what it says of a panel, nobody can compute without one",
    "eq-psnr": "shown as the metric not to use",
    "eq-three-parts": "exercise 4.2",
    "eq-weight": "a derivative, which autograd takes",
    "eq-negatives": "likewise",
    "eq-merge": "exercise 11.1",
}


def documented() -> list:
    """Every public class and function on the library's page that has a docstring."""
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    modules = [importlib.import_module(name) for name in re.findall(r"automodule:: (tta_iqa_lib[\w.]*)", page)]
    things = [thing for module in modules for name, thing in vars(module).items() if not name.startswith("_")]
    ours = [t for t in things if inspect.isclass(t) or inspect.isfunction(t)]
    return [t for t in dict.fromkeys(ours) if t.__module__.startswith("tta_iqa_lib") and t.__doc__]


def equations() -> dict[str, int]:
    """The chapter of each equation that has a label."""
    found = {
        n: re.findall(r":label: (eq-[\w-]+)", "\n".join(c.source for c in read(path).cells))
        for n, path in CHAPTERS.items()
    }
    return {label: number for number, labels in found.items() for label in labels}


def test_every_symbol_names_its_chapter_and_every_equation_its_symbol():
    """From symbol to chapter and equation, and back; what the page's table says is what the docstrings say."""
    things, where = documented(), equations()
    assert len(things) > 150 and len(where) > 30
    named = {}
    for thing in things:
        chapters, labels = places(thing)
        assert chapters and set(chapters) <= set(CHAPTERS), f"{thing.__qualname__} names no chapter"
        assert all(where.get(label) in chapters for label in labels), (
            f"{thing.__qualname__}: {labels} are not in {chapters}"
        )
        named |= {label: thing.__qualname__ for label in labels}
    assert sorted({*named, *WITHOUT_A_NAME}) == sorted(where) and not {*named} & {*WITHOUT_A_NAME}
    page = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    for name, number, label in re.findall(r"^\| `(\w+)` \| \[(\d+)\]\(\w+\) \| (?:\{eq\}`([\w-]+)`|–) \|$", page, re.M):
        chapters, labels = places(getattr(tta_iqa_lib, name))
        assert int(number) in chapters and (label in labels if label else not labels), f"{name}: {chapters}, {labels}"
