"""What the sources are tested on: other databases, other light, and held-out contents of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...imaging.distortions import distort
from ...metrics import evenly_spaced
from ...models.training import as_float
from .pack import Pack
from .sources import SOURCES, Scale, centre, parts_of

HELD_OUT = "held out"  # contents of the source's own databases that had no part in its training
# Changes of light that leave the order of the opinions nearly untouched: all photographs alike.
CONDITIONS: dict[str, tuple[str, float] | None] = {
    "as it is": None,
    "haze": ("haze", 0.6),
    "dark": ("dark", 0.6),
    "contrast": ("contrast", 0.6),
    "cast": ("cast", 0.6),
}


@dataclass(frozen=True)
class Target:
    """A part of the pack, as one kind of source meets it.

    Attributes:
        source: name out of `SOURCES`.
        part: of the pack, or `HELD_OUT`.
        condition: name out of `CONDITIONS`.
        role: "development" targets chose the recipe, "test" targets were run once, afterwards.
    """

    source: str
    part: str
    condition: str = "as it is"
    role: str = "test"

    def __str__(self) -> str:
        return f"{self.source} → {self.part}, {self.condition}"

    @property
    def kind(self) -> str:
        """ "light" where the light was changed, "database" where only the database is another, "none" without a shift."""
        if self.condition != "as it is":
            return "light"
        return "none" if self.part == HELD_OUT else "database"


def targets(scale: Scale) -> list[Target]:
    """The directions of a scale; the full one has other databases in other light, too."""
    found = [Target("live", HELD_OUT, condition, "development") for condition in CONDITIONS]
    found += [Target("live", "ss02", role="development")]
    found += [Target("live", part) for part in ("ss01", "ss03", "agiqa")]
    for source in list(SOURCES)[1:]:
        found += [Target(source, source.removeprefix("no-")), Target(source, "agiqa"), Target(source, HELD_OUT)]
        found += [Target(source, "live", condition) for condition in CONDITIONS]
    if scale.name == "full":
        shifted = [target for target in found if target.kind == "database"]
        more = [Target(t.source, t.part, condition, t.role) for t in shifted for condition in CONDITIONS]
        found += [target for target in more if target not in found]
    return found


def load_target(pack: Pack, target: Target, scale: Scale) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Images (N, 3, S, S) in [0, 1], opinions (N,), contents (N,); no content on which the source was trained."""
    own = target.part == HELD_OUT
    rows = parts_of(pack, target.source)[2] if own else pack.rows(target.part)  # no content of which was trained on
    rows = rows[evenly_spaced(len(rows), scale.images)]
    images = as_float(centre(pack.images(rows), scale.crop))
    if change := CONDITIONS[target.condition]:
        images = torch.cat([distort(part, *change) for part in images.split(32)])
    return images, pack.scores[rows], pack.content[rows]
