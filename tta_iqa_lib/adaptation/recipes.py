"""The recipes that a source model can ask for by name. Which one serves depends on the source, not on the images."""

from __future__ import annotations

from .gates import ShiftGate
from .rules import Adaptive, Batch, First, Source
from .state import Inference, Recipe

FIRST_LAYERS = First(Adaptive(caution=1.5), share=0.25)
# `views` is left to the model. The first was chosen on TinyShift: on source/test, shifted and not, and the development target;
# no loss that was tried added to it. The second was chosen on human opinions: on held-out contents of LIVE Challenge as they are
# and in other light, and on ss02 of BIQ2021.
RECIPES: dict[str, Recipe] = {
    "first-layers": Recipe(Inference(FIRST_LAYERS, ShiftGate())),
    "three-normalisations": Recipe(Inference(FIRST_LAYERS, ensemble=(Source(), Batch()))),
}
DEFAULT_RECIPE = RECIPES["first-layers"]


def recipe_of(model: object) -> Recipe:
    """The recipe that a model asks for by its attribute `recipe`, a name out of `RECIPES`; else the default one.

    Raises:
        ValueError: no recipe of that name.
    """
    name = getattr(model, "recipe", None)
    if name is None:
        return DEFAULT_RECIPE
    if name not in RECIPES:
        raise ValueError(f"no recipe '{name}'; there are {', '.join(RECIPES)}")
    return RECIPES[name]
