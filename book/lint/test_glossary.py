"""A term is linked to the glossary where it first appears."""

import re

from workshop import ROOT
from workshop.chapters import PAGES, read

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
    source = re.sub(
        r"^```.*$|^:\w+:.*$", " ", source, flags=re.MULTILINE
    )  # an admonition's text stays
    return CODE.sub(lambda match: match[0] if match[1] == "{term}" else " ", source)


def first_mentions() -> dict[str, tuple[bool, str]]:
    """For each entry: is its first mention in the prose of the book a link to the glossary, and where does it stand?"""
    entry = {name.lower(): names[0] for names in glossary() for name in names}
    names = sorted(
        (name for names in glossary() for name in names), key=len, reverse=True
    )  # the longest match wins
    words = [re.escape(name).replace(r"\ ", r"\s+") for name in names]
    words = [
        word if name.isupper() else f"(?i:{word})"
        for name, word in zip(names, words, strict=True)
    ]
    mention = re.compile(rf"{TERM.pattern}|(?<![\w-])({'|'.join(words)})s?(?![\w-])")
    first = {}
    for path in PAGES:
        for cell in read(path).cells:
            if cell.cell_type == "markdown":
                for match in mention.finditer(visible(cell.source)):
                    name = " ".join((match[1] or match[2] or match[3]).split()).lower()
                    assert name in entry, (
                        f"{path.stem}, {cell.id}: {match[0]} is not in the glossary"
                    )
                    first.setdefault(
                        entry[name],
                        (match[3] is None, f"{path.stem}, {cell.id}: {match[0]}"),
                    )
    return first


def test_each_glossary_term_is_linked_where_it_first_appears():
    """Who meets a term for the first time, reading from the welcome page on, can look it up. Each entry is used in the book."""
    first = first_mentions()
    assert len(glossary()) > 40
    assert [names[0] for names in glossary() if names[0] not in first] == []
    assert [where for linked, where in first.values() if not linked] == []
