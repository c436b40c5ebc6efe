"""What the loop asks of a model, a loss, a maker of copies and a gate: one typed protocol each.

Any function will do as a loss or a gate; `as_loss` and `as_gate` give it the attributes that it lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ..imaging.checks import check_number

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from .context import Context
    from .state import Result

Scorer = Callable[[Tensor], Tensor]  # (B, 3, H, W) → (B,), the source model's scores, higher is better
ParamPicker = Callable[[nn.Module], Mapping[str, Tensor]]  # model → {full name: parameter}
OptimizerMaker = Callable[[list[Tensor]], torch.optim.Optimizer]


class ScoringModel(Protocol):
    """A model that can be adapted. `models.QualityModel` is one, and so is what `models.wrap_model` returns.

    Attributes:
        higher_is_better: the direction of the scores.
        feature_mean, feature_cov: (D,), (D, D), over the source data, or None.
        score_mean, score_std: (), likewise.
    """

    higher_is_better: bool
    feature_mean: Tensor | None
    feature_cov: Tensor | None
    score_mean: Tensor | None
    score_std: Tensor | None

    def __call__(self, images: Tensor, with_features: bool = False): ...


def is_scoring_model(model: object) -> TypeIs[ScoringModel]:
    """Whether a model has all of a `ScoringModel`. (Since Python 3.12 `isinstance` asks a protocol, and sees no buffers.)"""
    return callable(model) and all(hasattr(model, name) for name in ScoringModel.__annotations__)


# How metrics of other packages are wrapped: package of the class → module and function. By name, as it stands above the method.
WRAPPERS = {
    "pyiqa": ("tta_iqa_lib.models.foreign", "from_pyiqa"),
    "torchmetrics": ("tta_iqa_lib.models.foreign", "from_torchmetrics"),
}


def wrapped_metric(model: object) -> Any:
    """The `ScoringModel` of a metric of a package in `WRAPPERS`.

    Raises:
        TypeError: it is of no such package.
        ValueError: a metric that cannot be adapted; says why.
    """
    package = type(model).__module__.partition(".")[0]
    if package in WRAPPERS:
        module, function = WRAPPERS[package]
        return getattr(import_module(module), function)(model)
    raise TypeError(
        f"{type(model).__name__} is not a quality model of this library: wrap it first, tta.wrap_model(module, …)"
    )


class CopyMaker(Protocol):
    """Makes worse copies of the images. Equal makers (they must be hashable) run once a batch.

    Attributes:
        names: of the copies, from the best to the worst.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, images: Tensor, scorer: Scorer, generator: torch.Generator) -> dict[str, Tensor]:
        """(B, 3, H, W) → {name: (B, 3, H, W)}; random numbers come from the generator alone."""
        ...


class Loss(Protocol):
    """A loss of one episode.

    Attributes:
        name: in the trace.
        weight: in the sum of losses.
        copies: what it compares the images with, or None.
        needs_moments: is `Context.moments` to be filled?
    """

    name: str
    weight: float
    copies: CopyMaker | None
    needs_moments: bool

    def __call__(self, context: Context) -> Tensor: ...


class Gate(Protocol):
    """Decides whose scores of a batch are returned: "adapted", "initial" or "source".

    Attributes:
        early: it decides from the source model's scores and the measured shift alone, so that nothing is adapted where it
            answers "source".
    """

    @property
    def early(self) -> bool: ...

    def __call__(self, result: Result) -> str: ...


@dataclass(frozen=True)
class PlainLoss:
    """A function, or anything callable, as a `Loss`; what it does not say of itself has the usual value."""

    function: Callable[[Context], Tensor]
    name: str
    weight: float = 1.0
    copies: CopyMaker | None = None
    needs_moments: bool = False

    def __post_init__(self):
        check_number("weight", self.weight)

    def __call__(self, context: Context) -> Tensor:
        return self.function(context)

    def __repr__(self) -> str:
        return repr(self.function)


@dataclass(frozen=True)
class PlainGate:
    """A function as a `Gate` that looks at the finished result."""

    function: Callable[[Result], str]
    early: bool = False

    def __call__(self, result: Result) -> str:
        return self.function(result)

    def __repr__(self) -> str:
        return repr(self.function)


def as_loss(loss: Callable[[Context], Tensor]) -> PlainLoss:
    """Any callable with the attributes of a `Loss`.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(loss):
        raise TypeError(f"losses must be functions of the context; got {loss!r}")
    name = getattr(loss, "name", None) or getattr(loss, "__name__", type(loss).__name__)
    known = {key: getattr(loss, key) for key in ("weight", "copies", "needs_moments") if hasattr(loss, key)}
    return PlainLoss(loss, name, **known)


def as_gate(gate: Callable[[Result], str] | None) -> PlainGate | None:
    """Any callable with the attribute of a `Gate`; None stays None.

    Raises:
        TypeError: it cannot be called.
    """
    if gate is None:
        return None
    if not callable(gate):
        raise TypeError(f"a gate is a function of the result, or None; got {gate!r}")
    return PlainGate(gate, getattr(gate, "early", False))
