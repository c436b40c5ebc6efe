"""The recipes that a source model can ask for by name, and the one that single settings describe.

Which named recipe serves depends on the source, not on the images.
"""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

from torch import nn

from ..imaging.checks import as_tuple
from .gates import ShiftGate
from .normalisation import batchnorm_layers, norm_affine
from .rules import Adaptive, Batch, First, Source
from .state import Inference, Optimisation, Recipe

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


def recipe_from(model: nn.Module, settings: dict[str, Any], seed: int) -> Recipe:
    """The recipe that an `Adapter`'s single settings describe: the model's own, unless losses or statistics say otherwise.

    Args:
        settings: attributes of `Inference` and `Optimisation` by name; what is left out has its usual value.
        seed: of the distorted copies.

    Raises:
        TypeError, ValueError: impossible settings; settings of the optimiser without a loss.

    Warns:
        UserWarning: the default recipe adapts BatchNorm's statistics, and the model has no such layer.
    """
    learning = {field.name: settings[field.name] for field in fields(Optimisation) if field.name in settings}
    scoring = {name: value for name, value in settings.items() if name not in learning}
    losses = as_tuple("losses", learning.pop("losses", ()))
    if isinstance(learning.get("params"), str):
        if learning["params"] != "norm-affine":
            raise ValueError(f"params must be 'norm-affine' or a function of the model; got {learning['params']!r}")
        learning["params"] = norm_affine
    if learning and not losses:
        raise ValueError(f"{next(iter(learning))}= is for losses, and there are none: pass losses=[…], or leave it out")
    default, normalised = recipe_of(model).inference, bool(batchnorm_layers(model))
    if not losses and "statistics" not in scoring:
        if not normalised:
            _warn_of_no_batchnorm(model)
        ensemble = default.ensemble if normalised else ()
        whole = {"gate": default.gate, "ensemble": ensemble, "match_source": default.match_source}
        scoring = whole | {"views": getattr(model, "views", 1)} | scoring
    if "statistics" not in scoring:
        scoring["statistics"] = default.statistics if normalised else Source()
    return Recipe(Inference(**scoring), Optimisation(losses, seed=seed, **learning) if losses else None)


def _warn_of_no_batchnorm(model: nn.Module) -> None:
    layers = {name.rpartition(".")[0] for name in norm_affine(model)}
    cure = f"pass losses=[…], and they adapt γ and β of its {len(layers)} normalisation layers"
    warnings.warn(
        "the model has no BatchNorm layer, whose statistics the default recipe adapts: it scores as the source does; "
        + (cure if layers else "it has no other normalisation layer; pass losses=[…] and params="),
        stacklevel=4,
    )
