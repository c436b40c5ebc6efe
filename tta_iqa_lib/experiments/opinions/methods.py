"""The methods of the table of opinions, each with its matched control.

The losses stand on three grounds: the source's frozen statistics, those of the first layers, and the recipe. Where a scale is
"reduced" they come in the thrifty form of chapter 8: one step, as long as three, on γ and β of the later half of the layers.
"""

from __future__ import annotations

from ...adaptation import Adaptive, Batch, Source
from ...adaptation.adapter import Adapter
from ...adaptation.copies import Pair
from ...adaptation.losses import GroupContrastive, RelativeRank, ScoreOrder
from ...adaptation.normalisation import LateNormAffine
from ...adaptation.recipes import FIRST_LAYERS, RECIPES
from ..baselines import ActMad, Average, Lean, PerImage, QuantileMatching, SubspaceAlignment
from ..methods import BLEND, GC, ORDER, RANK, Method, adapting
from ..methods import METHODS as OTHERS

ENSEMBLE = RECIPES["three-normalisations"].inference.ensemble
THRIFTY = {"params": LateNormAffine(0.5), "steps": 1, "lr": 3e-3}
_ON_A_QUARTER = Pair(choose_on=0.5), Pair(choose="signed", choose_on=0.5)
LOSSES = {"rank": (RANK,), "gc": (GC,), "rank+gc": (RANK, GC), "order": (ORDER,)}
THRIFTY_LOSSES = {
    "rank": (RelativeRank(copies=_ON_A_QUARTER[0]),),
    "gc": (GroupContrastive(),),
    "rank+gc": (RelativeRank(copies=_ON_A_QUARTER[0]), GroupContrastive()),
    "order": (ScoreOrder(copies=_ON_A_QUARTER[1]),),
}
LABELS = {"rank": "rank", "gc": "GC", "rank+gc": "rank + GC", "order": "score order"}
GROUNDS = {  # settings and name of the control
    "frozen": ({"statistics": Source()}, "source"),
    "first layers": ({"statistics": FIRST_LAYERS}, "bn-first"),
    "recipe": ({"statistics": FIRST_LAYERS, "ensemble": ENSEMBLE}, "normalisations"),
}

METHODS = {
    "source": adapting("source model", None, losses=(), statistics=Source()),
    "views": Method("2 views", lambda model, seed: Average(model, 2), "source"),
    "bn-batch": adapting("BN, batch", "source", losses=(), statistics=Batch()),
    "bn-blend": adapting("BN, blend", "source", losses=(), statistics=BLEND),
    "bn-adaptive": adapting("BN, adaptive α", "source", losses=(), statistics=Adaptive(1.5)),
    "bn-first": adapting("BN, first layers", "source", losses=(), statistics=FIRST_LAYERS),
    "lean": Method(
        "LeanTTA-like", lambda model, seed: PerImage(Adapter(model, losses=(), statistics=Lean(), seed=seed)), "source"
    ),
    "aqr": Method("AQR-like", lambda model, seed: QuantileMatching(model), "bn-batch"),
    "first-layers": Method(
        "TinyShift's recipe", lambda model, seed: Adapter(model, seed=seed, recipe=RECIPES["first-layers"]), "source"
    ),
    "source+batch": adapting("source + batch", "source", losses=(), statistics=Source(), ensemble=(Batch(),)),
    "normalisations": adapting("three normalisations", "source", losses=(), statistics=FIRST_LAYERS, ensemble=ENSEMBLE),
    "recipe": adapting("our recipe (2 views)", "views", losses=(), statistics=FIRST_LAYERS, ensemble=ENSEMBLE, views=2),
}
ONLINE = ("bn-batch", "bn-first", "normalisations")
METHODS |= {
    f"{name}, {ground}{suffix}": adapting(
        f"{LABELS[name]}, {ground}{suffix}", control, losses=losses, **settings, **how
    )
    for suffix, table, how in (("", LOSSES, {}), (" (thrifty)", THRIFTY_LOSSES, THRIFTY))
    for name, losses in table.items()
    for ground, (settings, control) in GROUNDS.items()
    if ground != "recipe" or name == "rank+gc"
}
ALIGNMENTS = {
    "ssa": ("SSA", SubspaceAlignment()),
    "psc": ("PSC-like", SubspaceAlignment(complement=True)),
    "actmad": ("ActMAD", ActMad()),
}
METHODS |= {
    f"{name}{suffix}": adapting(f"{label}{suffix}", "source", losses=(loss,), statistics=Source(), **how)
    for suffix, how in (("", {}), (" (thrifty)", THRIFTY))
    for name, (label, loss) in ALIGNMENTS.items()
}
METHODS |= {
    f"actmad, recipe{suffix}": adapting(
        f"ActMAD, recipe{suffix}", "normalisations", losses=(ActMad(),), **GROUNDS["recipe"][0], **how
    )
    for suffix, how in (("", {}), (" (thrifty)", THRIFTY))
}
RULES = ("source", "views", "bn-batch", "bn-blend", "bn-first", "normalisations", "recipe")
PAIR_OF_LOSSES = tuple(f"rank+gc, {ground} (thrifty)" for ground in GROUNDS)
FULL_LOSSES = tuple(name.removesuffix(" (thrifty)") for name in PAIR_OF_LOSSES)
SINGLE_LOSSES = tuple(f"{name}, frozen" for name in ("rank", "gc", "order"))
OTHER_LOSSES = tuple(f"{name} (thrifty)" for name in ("order, frozen", *ALIGNMENTS, "actmad, recipe"))
EACH_LOSS = tuple(
    f"{name}, {ground} (thrifty)" for ground in ("frozen", "first layers") for name in ("rank", "gc", "order")
)
PUBLISHED = ("published-control", "published", "reference-control", "reference")
METHODS |= {name: OTHERS[name] for name in PUBLISHED}
# By batch size: what is run on all targets, and what on the test targets alone.
GRIDS: dict[str, dict[int, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "full": dict.fromkeys((32, 8), (tuple(name for name in METHODS if "thrifty" not in name), ())),
    "medium": {
        32: (RULES, ("first-layers", *FULL_LOSSES, *SINGLE_LOSSES, "actmad", "actmad, recipe")),
        8: ((), ("source", "views", "bn-batch", "bn-first", "normalisations", "recipe", *FULL_LOSSES)),
    },
    "reduced": {
        32: (RULES, ("bn-adaptive", "first-layers", *PAIR_OF_LOSSES)),
        8: ((), ("source", "bn-batch", "bn-first", "normalisations", "recipe")),
    },
    "others": {32: ((), ("source", "lean", "bn-batch", "aqr", "normalisations", *OTHER_LOSSES))},
    "singles": {32: ((), ("source", "bn-first", *EACH_LOSS))},
    "published": {32: ((), ("source", *PUBLISHED))},
    "small-batches": {8: ((), ("source", "bn-first", "normalisations", *PAIR_OF_LOSSES))},
}
