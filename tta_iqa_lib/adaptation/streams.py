"""A stream of batches: what each leaves to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from .loop import adapt_batch
from .protocols import ScoringModel
from .rules import Carried
from .state import Recipe, Result, State


@dataclass
class Stream:
    """What an `Adapter.online` block carries on; see there.

    Attributes:
        predict: score a batch "after" or "before" adapting to it.
        restart: a function of a batch's result, true where the next batch is to start from the source; None: never.
        state: what the last batch left.
    """

    predict: str = "after"
    restart: Callable[[Result], bool] | None = None
    state: State = field(default_factory=State)

    def score(self, model: ScoringModel, images: Tensor, recipe: Recipe) -> Result:
        """Adapt to the next batch, (B, 3, H, W) in [0, 1], and carry on what it leaves."""
        before = self.state
        (result,), self.state = adapt_batch(model, before, images, recipe)
        if self.restart is not None and self.restart(result):
            self.state = State()
            told = {"stream": "restarted: the next batch starts from the source again"}
            result = replace(result, skipped=result.skipped | told)
        if self.predict == "before":
            carried = replace(recipe.inference, statistics=Carried(), gate=None, ensemble=(), match_source=False)
            (early,), _ = adapt_batch(model, before, images, Recipe(carried))
            scores = early.scores if result.decision != "source" else result.source_scores
            result = replace(result, scores=scores)
        return result
