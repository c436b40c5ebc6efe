"""Players: something to move, alive in Jupyter and on a page without a kernel.

In Jupyter a player is an ipywidget. On a page it is native range inputs over precomputed pictures.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod


class Alive:
    """What all players share: Jupyter gets `widget()`, the page gets `html()`."""

    def widget(self):
        """The player as an ipywidget."""
        raise NotImplementedError

    def html(self) -> str:
        """The player without a kernel."""
        raise NotImplementedError

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        bundle = self.widget()._repr_mimebundle_()
        if isinstance(bundle, tuple):
            bundle = bundle[0]
        return {**bundle, "text/plain": repr(self), "text/html": self.html()}


def embed(png: bytes) -> str:
    """A PNG picture as an address that a page can hold."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


@dataclass(frozen=True, repr=False)
class Player(Alive):
    """Something to move: one picture for each position of a slider, or of several sliders.

    Attributes:
        name: unique on its page; letters, digits and dashes.
        control: what the slider is called; a tuple of names for several sliders.
        frames: PNG pictures of equal size. With several sliders the last one varies fastest, as in nested loops.
        labels: what is shown beside the slider at each position, and read to a screen reader; with several sliders a
            list for each.
        alts: text alternative of each picture.
        caption: one sentence that says what to see.
        start: first position; a tuple with several sliders.

    Raises:
        ValueError: when the numbers of frames, labels and alternatives do not agree, or `start` is no position.
    """

    name: str
    control: str | Sequence[str]
    frames: Sequence[bytes]
    labels: Sequence[str] | Sequence[Sequence[str]]
    alts: Sequence[str]
    caption: str
    start: int | Sequence[int] = 0

    def __post_init__(self):
        if isinstance(self.control, str):
            object.__setattr__(self, "control", (self.control,))
            object.__setattr__(self, "labels", (tuple(self.labels),))
        sizes = [len(labels) for labels in self.labels]
        if not len(self.frames) == prod(sizes) == len(self.alts):
            raise ValueError(
                f"{len(self.frames)} frames, {sizes} labels, {len(self.alts)} alternatives: do not belong together"
            )
        if not len(self._first) == len(sizes) == len(self.control):
            raise ValueError("as many names of sliders, lists of labels and first positions are needed")
        if any(not 0 <= at < size for at, size in zip(self._first, sizes, strict=True)):
            raise ValueError(f"start must lie in 0 … {[size - 1 for size in sizes]}; got {list(self._first)}")

    @property
    def _first(self) -> Sequence[int]:
        """The first position of each slider."""
        if isinstance(self.start, int):
            return (self.start,) * (len(self.control) if self.start == 0 else 1)
        return self.start

    def index(self, positions: Sequence[int]) -> int:
        """The number of the frame at these positions of the sliders."""
        number = 0
        for at, labels in zip(positions, self.labels, strict=True):
            number = number * len(labels) + at
        return number

    def html(self) -> str:
        """The player without a kernel: a figure, range inputs, and a few lines of script in them."""
        frames = [{"src": embed(png), "alt": alt} for png, alt in zip(self.frames, self.alts, strict=True)]
        data = json.dumps({"frames": frames, "labels": self.labels}, ensure_ascii=False).replace("</", "<\\/")
        move = (
            "const f=this.closest('figure'),d=JSON.parse(f.querySelector('script').textContent),i=f.querySelector('img');"
            "let k=0;f.querySelectorAll('input').forEach((r,n)=>{const t=d.labels[n][r.value];"
            "k=k*d.labels[n].length+Number(r.value);r.setAttribute('aria-valuetext',t);"
            "f.querySelectorAll('output')[n].textContent=t});i.src=d.frames[k].src;i.alt=d.frames[k].alt"
        )
        sliders = []
        for n, (control, labels, at) in enumerate(zip(self.control, self.labels, self._first, strict=True)):
            key, label = f"range-{self.name}" + (f"-{n}" if n else ""), html.escape(labels[at])
            sliders.append(
                f'<div class="tta-controls"><label for="{key}">{html.escape(control)}</label> '
                f'<input type="range" id="{key}" min="0" max="{len(labels) - 1}" step="1" value="{at}" '
                f'aria-valuetext="{label}" oninput="{move}"> <output for="{key}">{label}</output></div>'
            )
        first = frames[self.index(self._first)]
        return (
            f'<figure class="tta-player" id="player-{self.name}"><img alt="{html.escape(first["alt"])}" src="{first["src"]}">'
            f"{''.join(sliders)}<figcaption>{self.caption}</figcaption>"
            f'<script type="application/json">{data}</script></figure>'
        )

    def widget(self):
        """The player as an ipywidget."""
        import ipywidgets as widgets

        image = widgets.Image(value=self.frames[self.index(self._first)], format="png", layout={"max_width": "100%"})
        sliders = [
            widgets.SelectionSlider(
                options=[(label, i) for i, label in enumerate(labels)],
                value=at,
                description=control,
                style={"description_width": "initial"},
                layout={"width": "90%"},
            )
            for control, labels, at in zip(self.control, self.labels, self._first, strict=True)
        ]

        def move(change):
            image.value = self.frames[self.index([slider.value for slider in sliders])]

        for slider in sliders:
            slider.observe(move, "value")
        return widgets.VBox([image, *sliders, widgets.HTML(self.caption)])

    def __repr__(self) -> str:
        moved = " × ".join(
            f"{len(labels)} positions of '{control}'" for control, labels in zip(self.control, self.labels, strict=True)
        )
        return f"Player({self.name!r}: {moved})"
