"""The project's arena: a recipe as plain data is run on a target, its passes are counted, its ranking is scored (all chapters).

A recipe is data, so that the grader runs its own code, counts honestly, and ranks everybody alike.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...adaptation.adapter import Adapter
from ...adaptation.gates import ShiftGate
from ...adaptation.losses import GroupContrastive, RelativeRank, ScoreOrder
from ...adaptation.rules import Adaptive, Batch, Blend, First, Shrink, Source
from ...datasets.tinyshift import DEVELOPMENT, Target, build
from ...metrics import srcc
from ...models.saving import load_source_model
from ..course.checker import Wrong

RULES = {"source": Source, "batch": Batch, "blend": Blend, "shrink": Shrink, "adaptive": Adaptive}
LOSSES = {"rank": RelativeRank, "contrast": GroupContrastive, "order": ScoreOrder}
BATCH = 32
MOST_STEPS = 10


def adapter_of(recipe: Any) -> Adapter:
    """The adapter that a recipe describes, around the shipped source model.

    Args:
        recipe: a dictionary of any of "statistics": name of a rule in `RULES`, "value": its number, "first": share of the layers
            it holds for, "gate": True or False, "views": 1, 2 or 8, "losses": {name in `LOSSES`: weight}, "steps", "lr".

    Raises:
        Wrong: no such recipe; the message says what does not fit.
    """
    if not isinstance(recipe, dict):
        raise Wrong(f"a recipe is a dictionary; this is a {type(recipe).__name__}")
    known = {"statistics", "value", "first", "gate", "views", "losses", "steps", "lr"}
    for key in recipe:
        if key not in known:
            raise Wrong(f"a recipe has no entry {str(key)[:30]!r}; there are {', '.join(sorted(known))}")
    steps, losses = recipe.get("steps", 3), recipe.get("losses") or {}
    if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise Wrong(f"steps must be a whole number from 1 to {MOST_STEPS}")
    name = recipe.get("statistics", "source")
    if name in ("blend", "shrink") and "value" not in recipe:
        raise Wrong(f"{name} needs a 'value', a number")
    try:
        rule = RULES[name]
        statistics = rule(float(recipe["value"])) if "value" in recipe else rule()
        if "first" in recipe:
            statistics = First(statistics, float(recipe["first"]))
        found = [LOSSES[name](weight=float(weight)) for name, weight in losses.items()]
        learning = {"steps": steps, "lr": float(recipe.get("lr", 1e-3))} if found else {}
        return Adapter(
            load_source_model(),
            losses=found,
            statistics=statistics,
            gate=ShiftGate() if recipe.get("gate") else None,
            views=recipe.get("views", 1),
            **learning,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Wrong(f"this recipe cannot be built: {type(error).__name__}, {str(error)[:120]}") from None


def price(adapter: Adapter, images: Tensor) -> float:
    """What an adapter takes, in forward passes an image, to a tenth; backward passes count as the operations that they are.

    Args:
        images: (N, 3, H, W); the first batch tells.
    """
    batch = images[:BATCH]
    with FlopCounterMode(display=False) as spent:
        adapter(batch)
    with FlopCounterMode(display=False) as once, torch.no_grad():
        load_source_model()(batch)
    return round(spent.get_total_flops() / once.get_total_flops(), 1)


def ranking(adapter: Adapter, target: tuple[Tensor, Tensor]) -> float:
    """SRCC with the quality (N,) of images (N, 3, H, W), over all of them, adapted to batch by batch."""
    images, quality = target
    return srcc(torch.cat([adapter(batch) for batch in images.split(BATCH)]), quality)


@cache
def arena(
    seed: int, shift: tuple[tuple[str, float], ...], scenes: tuple[int, int], size: int = 64
) -> tuple[Tensor, Tensor]:
    """A target that is in no split: images (size, 3, 96, 96) in [0, 1], and their computed quality (size,).

    Args:
        seed: of crops and distortions.
        shift: photometric shifts (kind, severity) that all images share.
        scenes: numbers of the procedural scenes, first and behind the last.
    """
    names = [f"scene-{i}" for i in range(*scenes)]
    pixels, quality, _ = build(DEVELOPMENT, size, seed, Target(shift), names)
    return pixels.float() / 255, quality


@cache
def references(
    seed: int, shift: tuple[tuple[str, float], ...], scenes: tuple[int, int], size: int = 64
) -> tuple[float, float]:
    """SRCC of the source model and of the default recipe on such a target."""
    target = arena(seed, shift, scenes, size)
    source = adapter_of({"statistics": "source"})
    return ranking(source, target), ranking(Adapter(load_source_model()), target)


def try_recipe(recipe: Any, budget: float) -> str:
    """What a student sees of a recipe: its SRCC and its price on a target made like the hidden one, with other scenes."""
    where = (501, (("dark", 0.7), ("cast", 0.7)), (200, 216))
    target = arena(*where)
    try:
        adapter = adapter_of(recipe)
    except Wrong as wrong:
        return f"✗ {wrong}"
    passes = price(adapter, target[0])
    if passes > budget:
        return f"✗ {passes:.1f} passes an image; the budget is {budget:g}"
    source, default = references(*where)
    mine = f"SRCC {ranking(adapter, target):.3f} with {passes:.1f} passes an image"
    return f"{mine}; the source model {source:.3f}, the default recipe {default:.3f}"
