"""What goes into the adaptation of a batch, and what comes out: recipe, state, result."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..imaging.checks import as_tuple, check_choice, check_count, check_number
from ..imaging.crops import VIEWS
from .moments import Moments
from .normalisation import norm_affine
from .protocols import Gate, OptimizerMaker, ParamPicker, PlainGate, PlainLoss, as_gate, as_loss
from .rules import Source, Statistics, check_rule


@dataclass(frozen=True)
class State:
    """What adaptation changes: parameters by full name, BatchNorm moments by layer name, the optimiser's memory."""

    params: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)
    optimizer: dict[str, Any] | None = None


@dataclass(frozen=True)
class Result:
    """What came of a batch of B images. All scores in the model's own direction.

    Attributes:
        scores: (B,) after adaptation (or what the gate decided).
        source_scores: (B,) of the source model.
        initial_scores: (B,) under the statistics rule, before any step of the optimiser.
        trace: one dictionary a step: "loss", each loss by its name, and "scores" (B,) before that step (of the images that took
            part, where a screen left some out).
        skipped: what could not be done, and why: losses that could not be formed, steps that were undone.
        shift: by BatchNorm layer, how far the means (`mean_shift`) and variances (`variance_shift`) that the source model
            meets in the batch lie from its own, each as (distance, what it would be by chance); measured only where there
            is a gate.
        pictures: how many pictures the batch shows: B, or fewer where they came in crops.
        decision: "adapted", "initial" or "source": whose scores were returned. An early gate that answers "source" is taken at
            its word: nothing is adapted, and all three scores are the source's.
    """

    scores: Tensor
    source_scores: Tensor
    initial_scores: Tensor
    trace: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    shift: dict[str, tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=dict)
    pictures: int = 0
    decision: str = "adapted"

    @property
    def statistics_scores(self) -> Tensor:
        """The old name of `initial_scores`."""
        warnings.warn("statistics_scores is now called initial_scores", DeprecationWarning, stacklevel=2)
        return self.initial_scores

    def decided(self, decision: str) -> Result:
        """This result with the scores that a gate chose.

        Raises:
            ValueError: no such decision.
        """
        choices = {"adapted": self.scores, "initial": self.initial_scores, "source": self.source_scores}
        if decision not in choices:
            raise ValueError(f"a gate must answer 'adapted', 'initial' or 'source'; got {decision!r}")
        return replace(self, scores=choices[decision], decision=decision)


@dataclass(frozen=True)
class Inference:
    """How a batch is scored.

    Attributes:
        statistics: rule of the BatchNorm statistics.
        gate: decides batch by batch whose scores are returned; None: always the adapted ones. Any function of the result.
        views: scores are averaged over so many symmetric views of each image: 1, 2 or 8.
        crops_per_image: so many consecutive images of a batch are parts of one picture; the measured shift counts pictures.
        ensemble: further rules. The source's parameters score the batch under each of them, too, and the mean of all is
            returned, each first brought to the source's scale.
        match_source: bring each batch's scores to the source's scale: to the mean and the spread of the source's scores of that
            batch. The order within a batch stays; batches, and both answers of a gate, can be compared. An ensemble implies it.

    Raises:
        TypeError, ValueError: an impossible setting.
    """

    statistics: Statistics = field(default_factory=Source)
    gate: Gate | None = None
    views: int = 1
    crops_per_image: int = 1
    ensemble: tuple[Statistics, ...] = ()
    match_source: bool = False

    def __post_init__(self):
        object.__setattr__(self, "ensemble", as_tuple("ensemble", self.ensemble))
        for name, rule in (("statistics", self.statistics), *(("ensemble", rule) for rule in self.ensemble)):
            check_rule(name, rule)
        if not isinstance(self.gate, PlainGate):
            object.__setattr__(self, "gate", as_gate(self.gate))
        check_choice("views", self.views, VIEWS)
        check_count("crops_per_image", self.crops_per_image, 1)


@dataclass(frozen=True)
class Optimisation:
    """What is optimised on a batch, and how.

    Attributes:
        losses: functions of the `Context`, summed with their weights.
        params: picks what is adapted: a function model → {full name: parameter}.
        steps, lr: of the optimiser.
        optimizer: a function [tensors] → optimiser; None: Adam at `lr`. It is given all parameters as one tensor, (E, P) for E
            episodes, and should treat its elements alike.
        seed: of the distorted copies; each batch starts a fresh generator from it.
        grad_through_statistics: let gradients flow through the batch's moments.
        sam_rho: radius of a sharpness-aware step [foret2021sam], in the units of the parameters; 0: a plain step.

    Raises:
        TypeError, ValueError: an impossible setting.
    """

    losses: tuple[PlainLoss, ...]
    params: ParamPicker = field(default_factory=lambda: norm_affine)
    steps: int = 3
    lr: float = 1e-3
    optimizer: OptimizerMaker | None = None
    seed: int = 0
    grad_through_statistics: bool = False
    sam_rho: float = 0.0

    def __post_init__(self):
        losses = tuple(
            loss if isinstance(loss, PlainLoss) else as_loss(loss) for loss in as_tuple("losses", self.losses)
        )
        if not losses:
            raise ValueError("an optimisation needs a loss")
        object.__setattr__(self, "losses", losses)
        if not callable(self.params):
            raise TypeError(f"params must be 'norm-affine' or a function of the model; got {self.params!r}")
        if not (self.optimizer is None or callable(self.optimizer)):
            raise TypeError(f"optimizer must be a function [tensors] → optimiser, or None; got {self.optimizer!r}")
        check_count("steps", self.steps, 0)
        check_count("seed", self.seed, 0)
        check_number("lr", self.lr, 0)
        check_number("sam_rho", self.sam_rho, 0)


@dataclass(frozen=True)
class Recipe:
    """The settings of an `Adapter` in one value that can be printed, compared and passed: how to score, what to optimise."""

    inference: Inference = field(default_factory=Inference)
    optimisation: Optimisation | None = None

    @property
    def losses(self) -> tuple[PlainLoss, ...]:
        """The losses, if any."""
        return self.optimisation.losses if self.optimisation else ()
