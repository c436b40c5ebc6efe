"""A model and a method, ready for batches of pictures: whose scores, and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..adaptation.adapter import Adapter
from ..adaptation.gates import ShiftGate
from ..adaptation.normalisation import batchnorm_layers
from ..adaptation.rules import Source
from ..adaptation.state import Recipe, Result
from ..experiments.baselines import Average, Orders, PerImage, Stream
from ..experiments.methods import METHODS
from ..experiments.published import Published
from ..models import ScoringModel
from .loading import call_by_name, import_by_name

DEFAULT_METHOD = "recipe"


class ScoringError(ValueError):
    """A model or a method that fails on a batch; says which, on what, and why."""


@dataclass(frozen=True)
class Outcome:
    """What came of a batch of P pictures.

    Attributes:
        scores, source_scores: (P,), each the mean over a picture's crops.
        decision: whose scores they are: "adapted", "initial" or "source"; see `Result`.
        reason: why they are the source's, where a method meant to adapt; or what of the method had to be left out.
    """

    scores: list[float]
    source_scores: list[float]
    decision: str
    reason: str = ""


class Scorer:
    """Scores batches of pictures by one method.

    Args:
        model: on its device.
        method: None: the model alone, over the symmetric views that it declares; a name of `methods.METHODS`, such as "recipe",
            the default of `Adapter`; or "package.module:name", a `Recipe`, or a function (model, seed) that makes a `Predictor`.
        crops: so many rows of a batch are crops of one picture.
        seed: of the copies that a loss asks for.

    Attributes:
        mixes: a score depends on the batch that its picture is in.
        carries: and on the batches before it, as a stream goes on. Such batches cannot be cut into parts.
        note: what the method does otherwise than in the table, as the model has no BatchNorm layer; or "".

    Raises:
        ValueError: no such method; one that shows all of its images several times; or one that does not go with the model.
    """

    def __init__(self, model: ScoringModel, method: str | None = None, crops: int = 1, seed: int = 0):
        self.model, self.method, self.crops = model, method, crops
        predictor, self.note = _predictor(model, method, seed) if method else (None, "")
        if isinstance(predictor, Orders) or (isinstance(predictor, Stream) and predictor.passes > 1):
            raise ValueError(
                f"the method '{method}' shows all images several times: it is for experiments, not for files"
            )
        self.carries = isinstance(predictor, Stream) or (isinstance(predictor, Published) and predictor.carries)
        self.mixes = not (predictor is None or isinstance(predictor, Average | PerImage))
        if isinstance(predictor, Stream):
            self._adapter = _changed(predictor.adapter, crops_per_image=crops)
            self._block = self._adapter.online(predictor.when)  # a stream that goes on as long as the scorer
            self._block.__enter__()
        elif isinstance(predictor, Adapter):
            self._adapter = _changed(predictor, crops_per_image=crops)
        else:
            self._adapter = None
            if isinstance(predictor, PerImage):
                predictor = replace(predictor, adapter=_changed(predictor.adapter, crops_per_image=crops))
        self._predictor = predictor
        self._waiting: deque[Tensor] = deque()
        self._stream = predictor.stream(self._feed()) if isinstance(predictor, Published) else None

    def __call__(self, rows: Tensor) -> Outcome:
        """(P · crops, 3, H, W) in [0, 1], the crops of a picture together → the outcome of P pictures.

        Raises:
            ScoringError: the model or the method fails, on these pictures or on all.
        """
        return self._guarded(self._scored, rows)

    def alone(self, rows: Tensor) -> Outcome:
        """The same of the source model, for pictures that take no part in the method."""
        return self._guarded(self._of_source, rows)

    def _guarded(self, scored: Callable[[Tensor], Outcome], rows: Tensor) -> Outcome:
        try:
            return scored(rows)
        except Exception as error:  # whatever somebody's model or method raises
            what = f"the method '{self.method}'" if self.method else "the model"
            kind, height, width = type(error).__name__, *rows.shape[2:]
            raise ScoringError(f"{what} fails on {len(rows)} crops of {width} × {height}: {kind}: {error}") from error

    def _of_source(self, rows: Tensor) -> Outcome:
        scores = Average(self.model, self.model.views).predict(rows)
        return self._outcome(scores, scores, "source")

    def _scored(self, rows: Tensor) -> Outcome:
        if self._adapter is not None:
            result = self._adapter.run(rows)
            decision, reason = _decision(result, self._adapter.recipe, self.carries)
            return self._outcome(result.scores, result.source_scores, decision, reason)
        if self._predictor is None:
            return self._of_source(rows)
        source = Average(self.model, self.model.views).predict(rows)
        if self._stream is not None:
            self._waiting.append(rows)
            scores = next(self._stream)
        else:
            scores = self._predictor.predict(rows, len(rows), shuffle=False)
        return self._outcome(scores, source, "source" if isinstance(self._predictor, Average) else "adapted")

    def _outcome(self, scores: Tensor, source: Tensor, decision: str, reason: str = "") -> Outcome:
        new, old = (s.double().view(-1, self.crops).mean(1).tolist() for s in (scores, source))
        return Outcome(new, old, decision, reason)

    def _feed(self) -> Iterator[Tensor]:
        while True:
            yield self._waiting.popleft()


def _predictor(model: ScoringModel, method: str, seed: int) -> tuple[Any, str]:
    """What predicts by a method, and what is to be said of it."""
    if method in METHODS:
        predictor = METHODS[method].adapter(model, seed)
        return (predictor, "") if batchnorm_layers(model) else _without_batchnorm(predictor, method)
    if ":" not in method:
        raise ValueError(f"no method '{method}'; there are {', '.join(METHODS)}; or package.module:name of your own")
    made = import_by_name(method)
    own = Adapter(model, recipe=made, seed=seed) if isinstance(made, Recipe) else call_by_name(method, model, seed)
    return own, ""


def _without_batchnorm(predictor: Any, method: str) -> tuple[Any, str]:
    """Where there are losses they adapt the γ and β of the other normalisation layers, and no statistics.

    Raises:
        ValueError: the method adapts statistics alone, or compares them.
    """
    adapter = getattr(predictor, "adapter", predictor)
    if not isinstance(adapter, Adapter) or not adapter.recipe.inference.statistics.uses_batch:
        return predictor, ""
    if not adapter.recipe.losses or any(loss.needs_moments for loss in adapter.recipe.losses):
        raise ValueError(f"the method '{method}' needs the statistics of BatchNorm layers, and the model has none")
    adapter = _changed(adapter, statistics=Source(), ensemble=())
    note = f"the model has no BatchNorm layer: '{method}' adapts the γ and β of its other normalisation layers alone"
    return (adapter if isinstance(predictor, Adapter) else replace(predictor, adapter=adapter)), note


def _changed(adapter: Adapter, **inference: Any) -> Adapter:
    """The same adapter with other settings of its `Inference`."""
    recipe = replace(adapter.recipe, inference=replace(adapter.recipe.inference, **inference))
    together = (
        adapter.episodes_per_pass if batchnorm_layers(adapter.model) else 1
    )  # only its γ and β can differ in a pass
    return Adapter(adapter.model, recipe=recipe, seed=adapter.seed, episodes_per_pass=together)


def _decision(result: Result, recipe: Recipe, carries: bool) -> tuple[str, str]:
    """Whose scores a batch has; and why they are the source's, or what of the method had to be left out."""
    losses = {loss.name for loss in recipe.losses}
    statistics = recipe.inference.statistics.uses_batch
    left_out = "; ".join(f"without {name}: {why}" if name in losses else why for name, why in result.skipped.items())
    if result.decision == "source":
        return "source", left_out or _reason(result, recipe)
    if losses <= set(result.skipped) and not carries:  # none of them, and nothing from the batches before
        if not statistics:
            return "source", left_out or "the method adapts nothing in this model"
        return ("initial" if losses else result.decision), left_out
    return result.decision, left_out


def _reason(result: Result, recipe: Recipe) -> str:
    """Why the gate left a batch to the source."""
    gate = getattr(recipe.inference.gate, "function", recipe.inference.gate)
    if not isinstance(gate, ShiftGate) or not result.shift:
        return "the gate decided so"
    if result.pictures < gate.min_images:
        return f"fewer than {gate.min_images} pictures in the batch"
    first = next(iter(result.shift.values()))
    most = max(distance / noise if noise else 0.0 for distance, noise in first)
    return f"no shift that chance does not explain ({most:.1f} times chance; the gate opens at {gate.threshold:g})"
