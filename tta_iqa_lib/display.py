"""Figures, tables, quizzes and players for the book: one call, alive in Jupyter and on the static page.

In Jupyter a player is an ipywidget. On a page without a kernel it is a native range input over precomputed frames.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

# One colour per method in every figure of the book, from the Okabe-Ito palette (told apart by colour-blind readers).
COLOURS = {
    "source": "#444444",
    "views": "#888888",
    "bn-batch": "#56B4E9",
    "bn-blend": "#0072B2",
    "bn-adaptive": "#F0E442",
    "rank": "#E69F00",
    "gc": "#CC79A7",
    "rank+gc": "#D55E00",
    "rank+gc-frozen": "#999999",
    "order": "#A6761D",
    "recipe-open": "#66C2A5",
    "recipe": "#009E73",
}
MARKERS = {
    "source": "o",
    "bn-batch": "v",
    "bn-blend": "s",
    "bn-adaptive": "X",
    "rank": "^",
    "gc": "D",
    "rank+gc": "P",
    "recipe": "*",
}


def style() -> None:
    """Matplotlib settings of the book: call once at the top of a notebook."""
    import matplotlib as mpl

    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.size": 10.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e3e3e3",
            "axes.axisbelow": True,
            "legend.frameon": False,
        }
    )


def picture(image: torch.Tensor, scale: int = 1) -> bytes:
    """(3, H, W) in [0, 1] → PNG, enlarged by whole pixels."""
    pixels = (image.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return _png(Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1)))


def frame(figure, colours: int = 64) -> bytes:
    """A matplotlib figure → PNG with a small palette; the figure is closed."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, metadata={"Software": None})
    plt.close(figure)
    return _png(Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class Player:
    """Something to move: one picture for each position of a slider.

    Attributes:
        name: unique on its page; letters, digits and dashes.
        control: what the slider is called.
        frames: PNG pictures of equal size.
        labels: what is shown beside the slider at each position, and read to a screen reader.
        alts: text alternative of each picture.
        caption: one sentence that says what to see.
        start: first position.
    """

    name: str
    control: str
    frames: Sequence[bytes]
    labels: Sequence[str]
    alts: Sequence[str]
    caption: str
    start: int = 0

    def __post_init__(self):
        if not len(self.frames) == len(self.labels) == len(self.alts):
            raise ValueError(
                f"{len(self.frames)} frames, {len(self.labels)} labels, {len(self.alts)} alternatives: must be equal"
            )
        if not 0 <= self.start < len(self.frames):
            raise ValueError(f"start must lie in 0 … {len(self.frames) - 1}; got {self.start}")

    def html(self) -> str:
        """The player without a kernel: a figure, a range input, and a few lines of script in it."""
        states = [
            {"src": "data:image/png;base64," + base64.b64encode(png).decode(), "label": label, "alt": alt}
            for png, label, alt in zip(self.frames, self.labels, self.alts, strict=True)
        ]
        data = json.dumps(states, ensure_ascii=False).replace("</", "<\\/")
        first = states[self.start]
        move = (
            "const f=this.closest('figure'),s=JSON.parse(f.querySelector('script').textContent)[this.value],"
            "i=f.querySelector('img');i.src=s.src;i.alt=s.alt;f.querySelector('output').textContent=s.label;"
            "this.setAttribute('aria-valuetext',s.label)"
        )
        text = {key: html.escape(value) for key, value in first.items()}
        control = html.escape(self.control)
        return (
            f'<figure class="tta-player" id="player-{self.name}"><img alt="{text["alt"]}" src="{first["src"]}">'
            f'<div class="tta-controls"><label for="range-{self.name}">{control}</label> '
            f'<input type="range" id="range-{self.name}" min="0" max="{len(states) - 1}" step="1" value="{self.start}" '
            f'aria-valuetext="{text["label"]}" oninput="{move}"> '
            f'<output for="range-{self.name}">{text["label"]}</output></div>'
            f'<figcaption>{self.caption}</figcaption><script type="application/json">{data}</script></figure>'
        )

    def widget(self):
        """The player as an ipywidget."""
        import ipywidgets as widgets

        image = widgets.Image(value=self.frames[self.start], format="png", layout={"max_width": "100%"})
        slider = widgets.SelectionSlider(
            options=[(label, i) for i, label in enumerate(self.labels)],
            value=self.start,
            description=self.control,
            style={"description_width": "initial"},
            layout={"width": "90%"},
        )
        slider.observe(lambda change: setattr(image, "value", self.frames[change["new"]]), "value")
        return widgets.VBox([image, slider, widgets.HTML(self.caption)])

    def __repr__(self) -> str:
        return f"Player({self.name!r}: {len(self.frames)} positions of '{self.control}')"

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        bundle = self.widget()._repr_mimebundle_()
        if isinstance(bundle, tuple):
            bundle = bundle[0]
        return {**bundle, "text/plain": repr(self), "text/html": self.html()}


@dataclass(frozen=True)
class Quiz:
    """A question whose every option explains itself. `options`: (text, is it right?, feedback)."""

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
                f'<div class="option"><input type="radio" name="quiz-{self.name}" id="{key}"> <label for="{key}">{text}</label>'
                f'<p class="feedback {"right" if right else "wrong"}"><strong>{verdict}</strong> {feedback}</p></div>'
            )
        # The rule stands here, too: Jupyter does not load the book's style sheet.
        rule = "<style>.tta-quiz .feedback{display:none}.tta-quiz input:checked~.feedback{display:block}</style>"
        return (
            f'{rule}<form class="tta-quiz"><fieldset><legend>{self.question}</legend>{"".join(rows)}</fieldset></form>'
        )

    def __repr__(self) -> str:
        return f"Quiz({self.name!r}: {len(self.options)} options)"


@dataclass(frozen=True)
class Table:
    """Rows of text or numbers under a caption; the best number of a row can be set in bold by writing it as <b>…</b>."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{cell}</th>' for cell in self.header)
        body = "".join(
            f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
            for row in self.rows
        )
        return (
            f'<div class="tta-table" tabindex="0" role="region" aria-label="{html.escape(self.caption)}"><table>'
            f"<caption>{self.caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def __repr__(self) -> str:
        return f"Table({self.caption!r}: {len(self.rows)} rows)"


def say(text: str):
    """Markdown whose numbers come from the run: the prose of the book never types a result."""
    from IPython.display import Markdown

    return Markdown(text)


def show(images: torch.Tensor, titles: Sequence[str] | None = None, columns: int = 6, width: float = 8.0):
    """Pictures (B, 3, H, W) in a grid; returns the matplotlib figure."""
    import matplotlib.pyplot as plt

    rows = int(np.ceil(len(images) / columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, width / columns * rows * (1.18 if titles else 1)), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for i, axis in zip(range(len(images)), axes.flat, strict=False):
        axis.imshow(images[i].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
        if titles:
            axis.set_title(titles[i], fontsize=9)
    return figure


def strip_chart(axis, rows: Sequence[str], values: dict[str, Sequence[float]], labels: dict[str, str]) -> None:
    """One line a target, one marker a method: where does each land? `values`: method → one number a row."""
    offsets = np.linspace(-0.18, 0.18, len(values))
    for offset, (method, numbers) in zip(offsets, values.items(), strict=True):
        axis.plot(
            numbers,
            np.arange(len(rows)) + offset,
            MARKERS.get(method, "o"),
            color=COLOURS.get(method),
            markersize=10 if MARKERS.get(method) == "*" else 6.5,
            label=labels[method],
            linestyle="none",
        )
    for i in range(len(rows)):
        ends = [numbers[i] for numbers in values.values()]
        axis.plot([min(ends), max(ends)], [i, i], color="#cccccc", zorder=0)
    axis.set_yticks(range(len(rows)), rows)
    axis.invert_yaxis()
