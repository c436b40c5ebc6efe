"""Pictures to compare: drag a line over them, in Jupyter and on a page without a kernel."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from .players import Alive, embed


@dataclass(frozen=True, repr=False)
class Compare(Alive):
    """Two pictures or more, one over the other: drag the line to uncover the next.

    Attributes:
        name: unique on its page; letters, digits and dashes.
        pictures: PNG pictures of equal size, the first one at the bottom. With `scenes`, a list of them for each scene.
        labels: what each shows.
        alts: text alternative of each; with `scenes`, a list for each scene.
        caption: one sentence that says what to see.
        scenes: names of scenes that a second slider chooses from.
        control: what that slider is called.

    Raises:
        ValueError: fewer than two pictures, pictures that differ in size, or other numbers of labels and alternatives.
    """

    name: str
    pictures: Sequence[bytes] | Sequence[Sequence[bytes]]
    labels: Sequence[str]
    alts: Sequence[str] | Sequence[Sequence[str]]
    caption: str
    scenes: Sequence[str] = ()
    control: str = "Scene"
    _pictures: Sequence[Sequence[bytes]] = field(init=False)  # by scene, as what follows
    _alts: Sequence[Sequence[str]] = field(init=False)

    def __post_init__(self):
        for name in ("pictures", "alts"):
            given = getattr(self, name)
            object.__setattr__(self, f"_{name}", given if self.scenes else (given,))
        if not len(self._pictures) == len(self._alts) == max(1, len(self.scenes)):
            raise ValueError(f"{len(self.scenes)} scenes need as many lists of pictures and of text alternatives")
        for pictures, alts in zip(self._pictures, self._alts, strict=True):
            if len(pictures) < 2 or not len(pictures) == len(self.labels) == len(alts):
                raise ValueError("two pictures or more are needed, each with a label and a text alternative")
        sizes = {Image.open(io.BytesIO(png)).size for pictures in self._pictures for png in pictures}
        if len(sizes) > 1:
            raise ValueError(f"the pictures must be of one size; they are {' and '.join(map(str, sorted(sizes)))}")

    @property
    def end(self) -> int:
        """The line's last position. From 0, where the last picture is seen, it crosses the pictures once for each pair."""
        return 100 * (len(self.labels) - 1)

    def covered(self, at: int) -> list[int]:
        """How much of each picture but the first is clipped away on the left, in per cent, when the line stands at `at`."""
        return [min(max(at - self.end + 100 * k, 0), 100) for k in range(1, len(self.labels))]

    def spoken(self, at: int) -> str:
        """What a screen reader says of a position."""
        pair = min((self.end - at) // 100, len(self.labels) - 2)
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
            f'alt="{html.escape(alt)}" src="{embed(png)}">'
            for png, alt, cut in zip(self._pictures[0][1:], self._alts[0][1:], self.covered(start), strict=True)
        )
        return (
            f'<figure class="tta-player tta-compare" id="player-{self.name}"><div class="pair" style="position:relative">'
            f'<img alt="{html.escape(self._alts[0][0])}" src="{embed(self._pictures[0][0])}">{over}</div>'
            f'<div class="tta-controls"><label for="range-{self.name}">{html.escape(" ↔ ".join(self.labels))}</label> '
            f'<input type="range" id="range-{self.name}" min="0" max="{self.end}" step="5" value="{start}" '
            f'data-spoken="{html.escape(json.dumps([self.spoken(at) for at in positions], ensure_ascii=False))}" '
            f'aria-valuetext="{html.escape(self.spoken(start))}" oninput="{move}"></div>'
            f"{self._scene_slider()}<figcaption>{self.caption}</figcaption></figure>"
        )

    def _scene_slider(self) -> str:
        """The second slider, and the pictures of all scenes but the first, which stand in the page."""
        if not self.scenes:
            return ""
        scenes = [
            [{"src": embed(png), "alt": alt} for png, alt in zip(pictures, alts, strict=True)]
            for pictures, alts in zip(self._pictures[1:], self._alts[1:], strict=True)
        ]
        data = json.dumps({"scenes": scenes, "labels": list(self.scenes)}, ensure_ascii=False).replace("</", "<\\/")
        move = (
            "const f=this.closest('figure'),d=JSON.parse(f.querySelector('script').textContent),v=+this.value,t=d.labels[v];"
            "const o=[...f.querySelectorAll('img')];f.first??=o.map(({src,alt})=>({src,alt}));"
            "o.forEach((p,i)=>Object.assign(p,(v?d.scenes[v-1]:f.first)[i]));"
            "this.setAttribute('aria-valuetext',t);f.querySelector('output').textContent=t"
        )
        key, first = f"range-{self.name}-scene", html.escape(self.scenes[0])
        return (
            f'<div class="tta-controls"><label for="{key}">{html.escape(self.control)}</label> '
            f'<input type="range" id="{key}" min="0" max="{len(self.scenes) - 1}" step="1" value="0" '
            f'aria-valuetext="{first}" oninput="{move}"> <output for="{key}">{first}</output></div>'
            f'<script type="application/json">{data}</script>'
        )

    def mixed(self, at: int, scene: int = 0) -> bytes:
        """The picture when the line stands at `at`."""
        first, *others = (Image.open(io.BytesIO(png)).convert("RGB") for png in self._pictures[scene])
        for picture, cut in zip(others, self.covered(at), strict=True):
            edge = round(picture.width * cut / 100)
            first.paste(picture.crop((edge, 0, picture.width, picture.height)), (edge, 0))
        buffer = io.BytesIO()
        first.save(buffer, "PNG")
        return buffer.getvalue()

    def widget(self):
        """The player as an ipywidget."""
        import ipywidgets as widgets

        wide = {"style": {"description_width": "initial"}, "layout": {"width": "90%"}}
        image = widgets.Image(value=self.mixed(self.end - 50), format="png", layout={"max_width": "100%"})
        line = widgets.IntSlider(
            value=self.end - 50, max=self.end, step=5, description=" ↔ ".join(self.labels), readout=False, **wide
        )
        choices = [(label, i) for i, label in enumerate(self.scenes)] or [("", 0)]
        scene = widgets.SelectionSlider(options=choices, description=self.control, **wide)
        for slider in (line, scene):
            slider.observe(lambda change: setattr(image, "value", self.mixed(line.value, scene.value)), "value")
        shown = [line, scene] if self.scenes else [line]
        return widgets.VBox([image, *shown, widgets.HTML(self.caption)])

    def __repr__(self) -> str:
        scenes = f" in {len(self.scenes)} scenes" if self.scenes else ""
        return f"Compare({self.name!r}: {' and '.join(map(repr, self.labels))}{scenes})"
