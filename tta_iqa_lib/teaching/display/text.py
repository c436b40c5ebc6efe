"""Quizzes, tables and computed sentences: HTML that Jupyter and the page show alike."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass


def inline(text: str) -> str:
    """HTML of a sentence in which *words* and `code` are marked as in Markdown."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"(?<![\w*])\*([^\s*][^*]*)\*(?![\w*])", r"<em>\1</em>", text)


@dataclass(frozen=True)
class Quiz:
    """A question whose every option explains itself. `options`: (text, is it right?, feedback), marked as in Markdown."""

    name: str
    question: str
    options: Sequence[tuple[str, bool, str]]

    def __post_init__(self):
        if sum(right for _, right, _ in self.options) != 1:
            raise ValueError("a quiz has exactly one right option")

    def _repr_html_(self) -> str:
        rows = []
        for i, (text, right, feedback) in enumerate(self.options):
            key = f"quiz-{self.name}-{i}"
            verdict = "Right." if right else "Not quite."
            rows.append(
                f'<div class="option"><input type="radio" name="quiz-{self.name}" id="{key}"> '
                f'<label for="{key}">{inline(text)}</label>'
                f'<p class="feedback {"right" if right else "wrong"}"><strong>{verdict}</strong> {inline(feedback)}</p></div>'
            )
        # The rule stands here, too: Jupyter does not load the book's style sheet.
        rule = "<style>.tta-quiz .feedback{display:none}.tta-quiz input:checked~.feedback{display:block}</style>"
        return f'{rule}<form class="tta-quiz"><fieldset><legend>{inline(self.question)}</legend>{"".join(rows)}</fieldset></form>'

    def __repr__(self) -> str:
        return f"Quiz({self.name!r}: {len(self.options)} options)"


@dataclass(frozen=True)
class Table:
    """Rows of text or numbers under a caption; the best number of a row can be set in bold by writing it as <b>…</b>."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self):
        if not all(str(cell).strip() for cell in self.header):
            raise ValueError("every column of a table needs a name: a screen reader reads it before each cell")

    def _repr_html_(self) -> str:
        words = [any(str(row[i])[:1].isalpha() for row in self.rows) for i in range(len(self.header))]  # not numbers
        mark = [' class="words"' if column else "" for column in words]
        head = "".join(f'<th scope="col"{m}>{cell}</th>' for m, cell in zip(mark, self.header, strict=True))
        body = "".join(
            f'<tr><th scope="row">{row[0]}</th>'
            + "".join(f"<td{m}>{cell}</td>" for m, cell in zip(mark[1:], row[1:], strict=True))
            + "</tr>"
            for row in self.rows
        )
        return (
            f'<div class="tta-table" tabindex="0" role="region" aria-label="{html.escape(self.caption)}"><table>'
            f"<caption>{self.caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def __repr__(self) -> str:
        return f"Table({self.caption!r}: {len(self.rows)} rows)"


def say(text: str):
    """Markdown whose numbers come from the run: the prose of the book never types a result. "97%" becomes "97 %"."""
    from IPython.display import Markdown

    return Markdown(re.sub(r"(?<=\d)%", " %", text))
