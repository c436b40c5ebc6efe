"""What goes into the adaptation of a batch, and what comes out: settings, state, result (chapter 8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .moments import Moments
from .rules import Statistics

ParamPicker = Callable[[nn.Module], dict[str, nn.Parameter]]
OptimizerMaker = Callable[[list[Tensor]], torch.optim.Optimizer]


@dataclass
class State:
    """What adaptation changes: parameters by full name, BatchNorm moments by layer name, the optimiser's memory."""

    params: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Moments] = field(default_factory=dict)
    optimizer: dict | None = None


@dataclass
class Result:
    """What came of a batch of B images. All scores in the model's own direction.

    Attributes:
        scores: (B,) after adaptation (or what the gate decided).
        source_scores: (B,) of the source model.
        statistics_scores: (B,) under the statistics rule before any step of the optimiser.
        trace: one dictionary a step: "loss", each loss by its name, and "scores" (B,) before that step.
        skipped: losses that could not be formed, and why.
        shift: by BatchNorm layer, how far the means (`batchnorm.displacement`) and variances (`batchnorm.stretch`) that the
            source model meets in the batch lie from its own, each as (distance, what it would be by chance); measured only
            where there is a gate.
        pictures: how many pictures the batch shows: B, or fewer where they came in crops.
        decision: "adapted", "statistics" or "source": whose scores were returned. An early gate that answers "source" is
            taken at its word: nothing is adapted, and all three scores are the source's.
    """

    scores: Tensor
    source_scores: Tensor
    statistics_scores: Tensor
    trace: list[dict] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    shift: dict[str, tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=dict)
    pictures: int = 0
    decision: str = "adapted"


# A gate with a true attribute `early` decides from the source model's scores and the measured shift alone.
Gate = Callable[[Result], str]


@dataclass(frozen=True)
class Recipe:
    """The settings of `Adapter`, in one value; see there."""

    losses: tuple
    statistics: Statistics
    params: ParamPicker
    steps: int
    lr: float
    optimizer: OptimizerMaker | None
    seed: int
    gate: Gate | None
    through: bool
    views: int = 1
    sharpness: float = 0.0
    crops: int = 1
