"""The methods of the fair table by name, each with its matched control.

What a method is compared with decides what is claimed. Every method with losses names as its control the same statistics with
the losses' gradients switched off; methods of statistics alone are compared with the source model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..adaptation import Adaptive, Batch, Blend, Ema, First, Shrink, Source
from ..adaptation.adapter import Adapter
from ..adaptation.copies import Ladder, Pair
from ..adaptation.gates import Drifted
from ..adaptation.losses import Anchor, GroupContrastive, RelativeRank, ScoreOrder
from ..adaptation.normalisation import LateNormAffine
from ..adaptation.recipes import FIRST_LAYERS
from ..datasets.tinyshift import fingerprint, tinyshift
from ..models.quality import ScoringModel
from ..store import Store
from .baselines import (
    ActMad,
    Average,
    Orders,
    PerImage,
    Rotation,
    ScoreEntropy,
    ScoreVariance,
    Stream,
    SubspaceAlignment,
    Turns,
    rotation_head,
)
from .published import FAULTS, Published

SOURCES = 3  # independently trained source models


class Predictor(Protocol):
    """What a method makes of a model: an `Adapter`, or anything else that scores a whole data set."""

    def predict(self, images: Tensor, batch_size: int = ..., shuffle: bool = ...) -> Tensor:
        """(N, 3, H, W) in [0, 1] → (N,)."""
        ...


@dataclass(frozen=True)
class Method:
    """How a method makes its scorer, and the control it is compared with.

    Attributes:
        label: for tables and figures.
        adapter: (model, seed of the copies) → `Predictor`.
        control: name of its matched control: the same statistics and forwards, the losses' gradients switched off.
    """

    label: str
    adapter: Callable[[ScoringModel, int], Predictor]
    control: str | None = None


def adapting(label: str, control: str | None, **settings) -> Method:
    """A method that is an `Adapter` with these settings."""
    return Method(label, lambda model, seed: Adapter(model, seed=seed, **settings), control)


def streaming(label: str, control: str | None, passes: int = 1, restart: Drifted | None = None, **settings) -> Method:
    """The same, online."""

    def stream(model: ScoringModel, seed: int) -> Stream:
        return Stream(Adapter(model, seed=seed, **settings), passes=passes, restart=restart)

    return Method(label, stream, control)


def _rotation(model: ScoringModel, seed: int) -> Adapter:
    return Adapter(model, losses=(Rotation(source_head(model)),), statistics=BLEND, seed=seed)


def _memo(model: ScoringModel, seed: int) -> PerImage:
    loss = ScoreVariance(copies=Turns(3))
    return PerImage(Adapter(model, losses=(loss,), statistics=BLEND, seed=seed, episodes_per_pass=16))


def _gmsd(distorted: Tensor, reference: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation [xue2014gmsd], negative: a metric that has no part in TinyShift's labels.

    A tenth of its scale counts as one deviation of the source's scores; declared, not fitted.
    """
    import piq  # here, as it brings torchvision: more than a second

    return -piq.gmsd(distorted, reference, reduction="none") / 0.1


def source_head(model: ScoringModel) -> nn.Linear:
    """The rotation head of a source model (see `baselines.rotation_head`), fitted at its first use on 800 source crops.

    Raises:
        ValueError: the source is not TinyShift, the only one whose images are at hand.
    """
    if "TinyShift" not in model.predicts:
        raise ValueError(
            f"TTT needs a head that was trained on the source's images; those of TinyShift are at hand, and the model "
            f"predicts {model.predicts}: it goes with source-0, source-1 and source-2"
        )
    store = Store("rotation", depends_on=["experiments.baselines"], model=model, benchmark=fingerprint())
    kept = {name: torch.from_numpy(array) for name, array in store.get("head.npz", _fit_head, model).items()}
    outputs, inputs = kept["weight"].shape
    head = nn.Linear(inputs, outputs)
    head.load_state_dict(kept)
    own = next(model.parameters())
    return head.to(own.device, own.dtype).requires_grad_(False)


def _fit_head(model: ScoringModel) -> dict[str, Tensor]:
    plain = copy.deepcopy(model).float().cpu()
    return rotation_head(plain, tinyshift("source/train")[0][:800]).state_dict()


RANK, GC, ORDER = RelativeRank(), GroupContrastive(), ScoreOrder(copies=Pair(choose="signed"))
BLEND = Shrink(16)
STATISTICS = FIRST_LAYERS
RECIPE = {"statistics": STATISTICS, "gate": None, "views": 8}
METHODS = {
    "source": adapting("source model", None, losses=(), statistics=Source()),
    "bn-batch": adapting("BN, batch", "source", losses=(), statistics=Batch()),
    "bn-blend": adapting("BN, blend", "source", losses=(), statistics=BLEND),
    "rank": adapting("rank", "bn-blend", losses=(RANK,), statistics=BLEND),
    "gc": adapting("GC", "bn-blend", losses=(GC,), statistics=BLEND),
    "rank+gc": adapting("rank + GC", "bn-blend", losses=(RANK, GC), statistics=BLEND),
    "rank+gc-frozen": adapting("rank + GC, frozen BN", "source", losses=(RANK, GC), statistics=Source()),
    "order": adapting("score order", "bn-blend", losses=(ORDER,), statistics=BLEND),
}
MAIN = tuple(METHODS)
METHODS |= {
    "views": Method("8 views", lambda model, seed: Average(model, 8), "source"),
    "views+crops": Method("8 views × 5 crops", lambda model, seed: Average(model, 8, 5), "source"),
    "bn-adaptive": adapting("BN, adaptive α", "source", losses=(), statistics=Adaptive(1.5)),
    "bn-first": adapting("BN, first layers", "source", losses=(), statistics=STATISTICS),
    "recipe-open": adapting("our recipe, no gate", "source", losses=(), **RECIPE),
    "recipe": adapting("our recipe", "source"),  # the defaults of `Adapter`
    # the recipe of models of people's opinions, on this book's small ones
    "normalisations": adapting(
        "three normalisations", "source", losses=(), statistics=STATISTICS, ensemble=(Source(), Batch()), views=8
    ),
}
CHEAP = ("source", "views", "bn-batch", "bn-blend", "bn-adaptive", "bn-first", "recipe-open", "recipe")
METHODS |= {
    "recipe+order": adapting("recipe + score order", "recipe-open", losses=(ORDER,), **RECIPE),
    "ema": streaming("BN, EMA (online)", "source", losses=(), statistics=Ema(0.1, exact=False)),
    "entropy": adapting("TENT, entropy", "bn-blend", losses=(ScoreEntropy(),), statistics=BLEND),
    "variance": adapting("TENT, variance", "bn-blend", losses=(ScoreVariance(),), statistics=BLEND),
    "ttt": Method("TTT, rotation", _rotation, "bn-blend"),
    "memo-control": Method(
        "MEMO, no gradients",
        lambda model, seed: PerImage(Adapter(model, losses=(), statistics=BLEND, seed=seed, episodes_per_pass=16)),
        "source",
    ),
    "memo": Method("MEMO", _memo, "memo-control"),
    "actmad": adapting("ActMAD", "bn-blend", losses=(ActMad(),), statistics=BLEND),
    "ssa": adapting("SSA", "bn-blend", losses=(SubspaceAlignment(),), statistics=BLEND),
    "sar": streaming(
        "SAR (online)", "bn-batch", losses=(ScoreVariance(reliable=0.3),), statistics=Batch(), sam_rho=0.05
    ),
    "published-control": Method(
        "published, no gradients", lambda model, seed: Published(model, gradients=False, seed=seed), "source"
    ),
    "published": Method("published, no faults", lambda model, seed: Published(model, seed=seed), "published-control"),
    "reference-control": Method(
        "reference mode, no gradients",
        lambda model, seed: Published(model, tuple(FAULTS), gradients=False, seed=seed),
        "source",
    ),
    "reference": Method(
        "reference mode", lambda model, seed: Published(model, tuple(FAULTS), seed=seed), "reference-control"
    ),
}
FAIR = (
    "source", "views", "views+crops", "bn-batch", "bn-blend", "bn-adaptive", "recipe", "recipe-open", "recipe+order",
    "rank+gc", "ema", "entropy", "variance", "ttt", "memo-control", "memo", "actmad", "ssa", "sar",
    "published-control", "published", "reference-control", "reference",
)  # fmt: skip
METHODS |= {
    f"fault-{name}": Method(name, lambda model, seed, name=name: Published(model, (name,), seed=seed), "published")
    for name in FAULTS
}
# No batch of a target is as small as the fault gc-off needs; here the data set before the target ends in one.
METHODS |= {
    "fault-gc-off-after-three": Method(
        "gc-off, after three", lambda model, seed: Published(model, ("gc-off",), seed=seed, before=3), "published"
    ),
    "control-gc-off-after-three": Method(
        "gc-off, after three, no gradients",
        lambda model, seed: Published(model, ("gc-off",), gradients=False, seed=seed, before=3),
        "published-control",
    ),
}
# The levers of the recipe, one at a time: each method is the recipe without its gate and with one thing changed.
LEVERS = {
    "one view": {"views": 1},
    "all layers": {"statistics": Adaptive(1.5)},
    "half of the layers": {"statistics": First(Adaptive(1.5), 0.5)},
    "α by batch size": {"statistics": First(BLEND)},
    "α = 1": {"statistics": First(Batch())},
    "no caution": {"statistics": First(Adaptive(1.0))},
    "linear blend": {"statistics": First(Adaptive(1.5, exact=False))},
}
LOSS_LEVERS = {
    "rank + GC": {"losses": (RANK, GC)},
    "GC, features as they are": {"losses": (GroupContrastive(standardise=False),)},
    "score order": {"losses": (ORDER,)},
    "score order, milder pair": {"losses": (ScoreOrder(copies=Pair(mild=0.1, severe=0.4, choose="signed")),)},
    "score order + anchor": {"losses": (ORDER, Anchor())},
    "score order, four severities": {"losses": (ScoreOrder(copies=Ladder()),)},
    "score order, full-reference margins": {"losses": (ScoreOrder(copies=Pair(choose="signed"), metric=_gmsd),)},
    "score order, sharpness-aware": {"losses": (ORDER,), "sam_rho": 0.05},
    "score order, through the moments": {"losses": (ORDER,), "grad_through_statistics": True},
    "score variance": {"losses": (ScoreVariance(),)},
    "score variance, surest images": {"losses": (ScoreVariance(reliable=0.3),)},
}
METHODS |= {
    f"lever-{name}": adapting(name, "recipe-open", **{"losses": (), **RECIPE, **changed})
    for name, changed in (LEVERS | LOSS_LEVERS).items()
}
METHODS["lever-four orders"] = Method(
    "four orders",
    lambda model, seed: Orders(Adapter(model, losses=(), seed=seed, **RECIPE)),
    "recipe-open",
)
ALPHAS = tuple(i / 10 for i in range(11))
METHODS |= {f"alpha-{a}": adapting(f"α = {a}", "source", losses=(), statistics=Blend(a)) for a in ALPHAS}
STEPS = (0, 1, 2, 3, 5, 10, 20)
METHODS |= {f"steps-{n}": adapting(f"{n} steps", "bn-blend", losses=(ORDER,), statistics=BLEND, steps=n) for n in STEPS}
MOMENTA = (0.02, 0.1, 0.5)  # of a running average, linear as in PyTorch, or of the exact mixture
METHODS |= {
    f"ema{'-exact' * exact}-{m}": streaming(
        f"EMA, {m}{', exact' * exact}", "source", losses=(), statistics=Ema(m, exact)
    )
    for m in MOMENTA
    for exact in (False, True)
}
# A long stream (chapter 10): the same images again and again, the state carried on. Does it last?
PASSES = (1, 2, 4, 8)
STREAMS = {
    "order": {"losses": (ORDER,)},
    "order+anchor": {"losses": (ORDER, Anchor())},
    "order+restart": {"losses": (ORDER,), "restart": Drifted(0.7)},
}
METHODS |= {
    f"stream-{name}-{n}": streaming(f"{name}, {n} passes", "bn-blend", passes=n, statistics=BLEND, **settings)
    for name, settings in STREAMS.items()
    for n in PASSES
}
# Cheaper forms of rank + GC, each with what it saves (chapter 8): copies compared on a quarter of the pixels; γ and β of the
# later half of the layers, so that the earlier half runs once; one step as long as three; all of that.
_EARLY = RelativeRank(copies=Pair(choose_on=0.5))
SAVINGS: dict[str, dict] = {
    "rank + gc": {"losses": (RANK, GC)},
    "quarter choice": {"losses": (_EARLY, GC)},
    "late half": {"losses": (RANK, GC), "params": LateNormAffine(0.5)},
    "one step": {"losses": (RANK, GC), "steps": 1, "lr": 3e-3},
    "thrifty": {"losses": (_EARLY, GC), "params": LateNormAffine(0.5), "steps": 1, "lr": 3e-3},
}
METHODS |= {f"saving-{name}": adapting(name, "bn-blend", statistics=BLEND, **how) for name, how in SAVINGS.items()}
METHODS |= {
    f"saving-{name}-frozen": adapting(name, "source", statistics=Source(), **how) for name, how in SAVINGS.items()
}
