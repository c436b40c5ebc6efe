"""Players: something to move, alive in Jupyter and on a page without a kernel (all chapters).

In Jupyter a player is an ipywidget. On a page it is native range inputs over precomputed pictures.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from PIL import Image


class _Alive:
    """What both players share: Jupyter gets `widget()`, the page gets `html()`."""

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        bundle = self.widget()._repr_mimebundle_()
        if isinstance(bundle, tuple):
            bundle = bundle[0]
        return {**bundle, "text/plain": repr(self), "text/html": self.html()}


def _embed(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


@dataclass(frozen=True, repr=False)
class Player(_Alive):
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
        if self.start == 0:
            object.__setattr__(self, "start", (0,) * len(self.control))
        elif isinstance(self.start, int):
            object.__setattr__(self, "start", (self.start,))
        sizes = [len(labels) for labels in self.labels]
        if not len(self.frames) == prod(sizes) == len(self.alts):
            raise ValueError(
                f"{len(self.frames)} frames, {sizes} labels, {len(self.alts)} alternatives: do not belong together"
            )
        if not len(self.start) == len(sizes) == len(self.control):
            raise ValueError("as many names of sliders, lists of labels and first positions are needed")
        if any(not 0 <= at < size for at, size in zip(self.start, sizes, strict=True)):
            raise ValueError(f"start must lie in 0 … {[size - 1 for size in sizes]}; got {list(self.start)}")

    def index(self, positions: Sequence[int]) -> int:
        """The number of the frame at these positions of the sliders."""
        number = 0
        for at, labels in zip(positions, self.labels, strict=True):
            number = number * len(labels) + at
        return number

    def html(self) -> str:
        """The player without a kernel: a figure, range inputs, and a few lines of script in them."""
        frames = [{"src": _embed(png), "alt": alt} for png, alt in zip(self.frames, self.alts, strict=True)]
        data = json.dumps({"frames": frames, "labels": self.labels}, ensure_ascii=False).replace("</", "<\\/")
        move = (
            "const f=this.closest('figure'),d=JSON.parse(f.querySelector('script').textContent),i=f.querySelector('img');"
            "let k=0;f.querySelectorAll('input').forEach((r,n)=>{const t=d.labels[n][r.value];"
            "k=k*d.labels[n].length+Number(r.value);r.setAttribute('aria-valuetext',t);"
            "f.querySelectorAll('output')[n].textContent=t});i.src=d.frames[k].src;i.alt=d.frames[k].alt"
        )
        sliders = []
        for n, (control, labels, at) in enumerate(zip(self.control, self.labels, self.start, strict=True)):
            key, label = f"range-{self.name}" + (f"-{n}" if n else ""), html.escape(labels[at])
            sliders.append(
                f'<div class="tta-controls"><label for="{key}">{html.escape(control)}</label> '
                f'<input type="range" id="{key}" min="0" max="{len(labels) - 1}" step="1" value="{at}" '
                f'aria-valuetext="{label}" oninput="{move}"> <output for="{key}">{label}</output></div>'
            )
        first = frames[self.index(self.start)]
        return (
            f'<figure class="tta-player" id="player-{self.name}"><img alt="{html.escape(first["alt"])}" src="{first["src"]}">'
            f"{''.join(sliders)}<figcaption>{self.caption}</figcaption>"
            f'<script type="application/json">{data}</script></figure>'
        )

    def widget(self):
        """The player as an ipywidget."""
        import ipywidgets as widgets

        image = widgets.Image(value=self.frames[self.index(self.start)], format="png", layout={"max_width": "100%"})
        sliders = [
            widgets.SelectionSlider(
                options=[(label, i) for i, label in enumerate(labels)],
                value=at,
                description=control,
                style={"description_width": "initial"},
                layout={"width": "90%"},
            )
            for control, labels, at in zip(self.control, self.labels, self.start, strict=True)
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


@dataclass(frozen=True, repr=False)
class Compare(_Alive):
    """Two pictures or more, one over the other: drag the line to uncover the next.

    Attributes:
        name: unique on its page; letters, digits and dashes.
        pictures: PNG pictures of equal size, the first one at the bottom.
        labels: what each shows.
        alts: text alternative of each.
        caption: one sentence that says what to see.

    Raises:
        ValueError: fewer than two pictures, pictures that differ in size, or other numbers of labels and alternatives.
    """

    name: str
    pictures: Sequence[bytes]
    labels: Sequence[str]
    alts: Sequence[str]
    caption: str

    def __post_init__(self):
        sizes = [Image.open(io.BytesIO(png)).size for png in self.pictures]
        if len(sizes) < 2 or not len(sizes) == len(self.labels) == len(self.alts):
            raise ValueError("two pictures or more are needed, each with a label and a text alternative")
        if len(set(sizes)) > 1:
            raise ValueError(f"the pictures must be of one size; they are {' and '.join(map(str, sizes))}")

    @property
    def end(self) -> int:
        """The line's last position. From 0, where the last picture is seen, it crosses the pictures once for each pair."""
        return 100 * (len(self.pictures) - 1)

    def covered(self, at: int) -> list[int]:
        """How much of each picture but the first is clipped away on the left, in per cent, when the line stands at `at`."""
        return [min(max(at - self.end + 100 * k, 0), 100) for k in range(1, len(self.pictures))]

    def spoken(self, at: int) -> str:
        """What a screen reader says of a position."""
        pair = min((self.end - at) // 100, len(self.pictures) - 2)
        return f"{at - self.end + 100 * (pair + 1)} % {self.labels[pair]}, then {self.labels[pair + 1]}"

    def html(self) -> str:
        """The player without a kernel: each picture lies over the one before and is clipped at the slider."""
        start, positions = self.end - 50, range(0, self.end + 1, 5)
        move = (
            "const f=this.closest('figure'),v=+this.value,o=f.querySelectorAll('.over');"
            "o.forEach((p,i)=>p.style.clipPath='inset(0 0 0 '+Math.min(Math.max(v-this.max+100*(i+1),0),100)+'%)');"
            "this.setAttribute('aria-valuetext',JSON.parse(this.dataset.spoken)[v/5])"
        )
        over = "".join(
            f'<img class="over" style="position:absolute;top:0;left:0;right:0;clip-path:inset(0 0 0 {cut}%)" '
            f'alt="{html.escape(alt)}" src="{_embed(png)}">'
            for png, alt, cut in zip(self.pictures[1:], self.alts[1:], self.covered(start), strict=True)
        )
        return (
            f'<figure class="tta-player tta-compare" id="player-{self.name}"><div class="pair" style="position:relative">'
            f'<img alt="{html.escape(self.alts[0])}" src="{_embed(self.pictures[0])}">{over}</div>'
            f'<div class="tta-controls"><label for="range-{self.name}">{html.escape(" ↔ ".join(self.labels))}</label> '
            f'<input type="range" id="range-{self.name}" min="0" max="{self.end}" step="5" value="{start}" '
            f'data-spoken="{html.escape(json.dumps([self.spoken(at) for at in positions], ensure_ascii=False))}" '
            f'aria-valuetext="{html.escape(self.spoken(start))}" oninput="{move}"></div>'
            f"<figcaption>{self.caption}</figcaption></figure>"
        )

    def mixed(self, at: int) -> bytes:
        """The picture when the line stands at `at`."""
        first, *others = (Image.open(io.BytesIO(png)).convert("RGB") for png in self.pictures)
        for picture, cut in zip(others, self.covered(at), strict=True):
            edge = round(picture.width * cut / 100)
            first.paste(picture.crop((edge, 0, picture.width, picture.height)), (edge, 0))
        buffer = io.BytesIO()
        first.save(buffer, "PNG")
        return buffer.getvalue()

    def widget(self):
        """The player as an ipywidget."""
        import ipywidgets as widgets

        image = widgets.Image(value=self.mixed(self.end - 50), format="png", layout={"max_width": "100%"})
        slider = widgets.IntSlider(
            value=self.end - 50, max=self.end, step=5, description=" ↔ ".join(self.labels), readout=False,
            style={"description_width": "initial"}, layout={"width": "90%"},
        )  # fmt: skip
        slider.observe(lambda change: setattr(image, "value", self.mixed(change["new"])), "value")
        return widgets.VBox([image, slider, widgets.HTML(self.caption)])

    def __repr__(self) -> str:
        return f"Compare({self.name!r}: {' and '.join(map(repr, self.labels))})"
