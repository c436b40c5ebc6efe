"""A model and a method, ready for batches of pictures: whose scores, and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from ..adaptation.adapter import Adapter
from ..adaptation.gates import ShiftGate
from ..adaptation.state import Recipe, Result
from ..experiments.baselines import Average, Orders, PerImage, Stream
from ..experiments.methods import METHODS
from ..experiments.published import Published
from ..models import ScoringModel
from .loading import call_by_name, import_by_name

DEFAULT_METHOD = "recipe"


@dataclass(frozen=True)
class Outcome:
    """What came of a batch of P pictures.

    Attributes:
        scores, source_scores: (P,), each the mean over a picture's crops.
        decision: whose scores they are: "adapted", "initial" or "source"; see `Result`.
        reason: why they are the source's, where a method meant to adapt.
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

    Raises:
        ValueError: no such method; one that shows all of its images several times; or one that does not go with the model.
    """

    def __init__(self, model: ScoringModel, method: str | None = None, crops: int = 1, seed: int = 0):
        self.model, self.method, self.crops = model, method, crops
        predictor = _predictor(model, method, seed) if method else None
        if isinstance(predictor, Orders) or (isinstance(predictor, Stream) and predictor.passes > 1):
            raise ValueError(
                f"the method '{method}' shows all images several times: it is for experiments, not for files"
            )
        self.carries = isinstance(predictor, Stream) or (isinstance(predictor, Published) and predictor.carries)
        self.mixes = not (predictor is None or isinstance(predictor, Average | PerImage))
        if isinstance(predictor, Stream):
            self._adapter = _of_pictures(predictor.adapter, crops)
            self._block = self._adapter.online(predictor.when)  # a stream that goes on as long as the scorer
            self._block.__enter__()
        elif isinstance(predictor, Adapter):
            self._adapter = _of_pictures(predictor, crops)
        else:
            self._adapter = None
            if isinstance(predictor, PerImage):
                predictor = replace(predictor, adapter=_of_pictures(predictor.adapter, crops))
        self._predictor = predictor
        self._waiting: deque[Tensor] = deque()
        self._stream = predictor.stream(self._feed()) if isinstance(predictor, Published) else None

    def __call__(self, rows: Tensor) -> Outcome:
        """(P · crops, 3, H, W) in [0, 1], the crops of a picture together → the outcome of P pictures."""
        if self._adapter is not None:
            result = self._adapter.run(rows)
            decision, reason = result.decision, _reason(result, self._adapter.recipe)
            if reason:
                decision = "source"
            return self._outcome(result.scores, result.source_scores, decision, reason)
        source = Average(self.model, self.model.views).predict(rows)
        if self._predictor is None:
            return self._outcome(source, source, "source")
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


def _predictor(model: ScoringModel, method: str, seed: int):
    if method in METHODS:
        return METHODS[method].adapter(model, seed)
    if ":" not in method:
        raise ValueError(f"no method '{method}'; there are {', '.join(METHODS)}; or package.module:name of your own")
    made = import_by_name(method)
    return Adapter(model, recipe=made, seed=seed) if isinstance(made, Recipe) else call_by_name(method, model, seed)


def _of_pictures(adapter: Adapter, crops: int) -> Adapter:
    """The same adapter, told that so many rows are one picture."""
    recipe = adapter.recipe
    recipe = replace(recipe, inference=replace(recipe.inference, crops_per_image=crops))
    return Adapter(adapter.model, recipe=recipe, seed=adapter.seed, episodes_per_pass=adapter.episodes_per_pass)


def _reason(result: Result, recipe: Recipe) -> str:
    """Why a batch has the source's scores."""
    inference = recipe.inference
    gate = getattr(inference.gate, "function", inference.gate)
    if recipe.optimisation is None and not inference.statistics.uses_batch:
        return "the method adapts nothing in this model"
    if result.decision != "source":
        return ""
    if why := result.skipped.get("scores"):
        return why
    if not isinstance(gate, ShiftGate) or not result.shift:
        return "the gate decided so"
    if result.pictures < gate.min_images:
        return f"fewer than {gate.min_images} pictures in the batch"
    first = next(iter(result.shift.values()))
    most = max(distance / noise if noise else 0.0 for distance, noise in first)
    return f"no shift that chance does not explain ({most:.1f} times chance; the gate opens at {gate.threshold:g})"
