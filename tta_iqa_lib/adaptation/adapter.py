"""The adapter: a model that adjusts itself to the images it scores (chapter 8).

`Adapter` wraps the loop of `adapt_batch`: episodic by default (every batch starts from the source), or online (the state is
carried from batch to batch).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, takewhile

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .control import batchnorm_layers, norm_affine
from .gates import ShiftGate
from .loop import adapt_batch
from .rules import Adaptive, First, Source, Statistics
from .state import Gate, OptimizerMaker, ParamPicker, Recipe, Result, State

# The default recipe. It was chosen on source/test, shifted and not, and on the development target alone (chapter 9). No loss
# that was tried added to these statistics.
DEFAULT_LOSSES: tuple = ()
DEFAULT_STATISTICS = First(Adaptive(caution=1.5), share=0.25)
DEFAULT_GATE = ShiftGate()


class Adapter:
    """Scores images with a model that adapts to them.

    `Adapter(model)` is the default recipe: BatchNorm's statistics in the first layers, as much of the batch as the measured
    shift warrants, behind a gate that leaves unshifted batches to the source model; scores averaged over the symmetric
    views that the model declares. Who passes losses or statistics of their own gets neither gate nor views unasked.

    Example::

        adapter = Adapter(load_source_model())
        scores = adapter(images)  # (B, 3, H, W) in [0, 1] → (B,)

    Args:
        model: a `QualityModel`, or what `wrap_model` returns. It is not copied and not changed.
        losses: callables `loss(context) -> scalar`, each with an optional `weight` and `views`; None: `DEFAULT_LOSSES`;
            empty: statistics only.
        statistics: rule of the BatchNorm statistics: `Source()`, `Batch()`, `Blend(alpha)`, `Shrink(prior)`, `Ema(momentum)`.
            `First(rule)`, `Adaptive()`. None: `DEFAULT_STATISTICS` if the model has BatchNorm layers, else `Source()`.
        params: "norm-affine" (γ and β), or a function model → {full name: parameter}.
        steps, lr: of the optimiser. optimizer: a function [tensors] → optimiser; None: Adam at `lr`.
        seed: of the distorted copies; each batch starts a fresh generator from it.
        gate: a function of the `Result` that answers "adapted", "statistics" or "source", batch by batch; None: always
            adapt; "default": `DEFAULT_GATE` in the default recipe, else none.
        through: let gradients flow through the batch's moments.
        views: average the scores over 1, 2 or 8 symmetric views of each image; None: as many as the model declares in the
            default recipe, else 1.
        sharpness: radius of a sharpness-aware step [foret2021sam], in the units of the parameters; 0: a plain step.
        crops: so many consecutive images of a batch are parts of one picture; the measured shift then counts pictures.
        fold: number of episodes that `predict` and `run(groups=…)` adapt in one pass. Same result to rounding.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Sequence | None = None,
        statistics: Statistics | None = None,
        params: str | ParamPicker = "norm-affine",
        steps: int = 3,
        lr: float = 1e-3,
        optimizer: OptimizerMaker | None = None,
        seed: int = 0,
        gate: Gate | str | None = "default",
        through: bool = False,
        views: int | None = None,
        sharpness: float = 0.0,
        crops: int = 1,
        fold: int = 1,
    ):
        if not hasattr(model, "higher_is_better"):
            raise TypeError(
                f"{type(model).__name__} is not a quality model of this library: wrap it first, tta.wrap_model(module, …)"
            )
        if isinstance(params, str) and params != "norm-affine":
            raise ValueError(f"params must be 'norm-affine' or a function of the model; got {params!r}")
        if steps < 0 or fold < 1 or crops < 1:
            raise ValueError(f"need steps ≥ 0, fold ≥ 1 and crops ≥ 1; got {steps}, {fold} and {crops}")
        if isinstance(gate, str) and gate != "default":
            raise ValueError(f"gate must be a function, None or 'default'; got {gate!r}")
        default = losses is None and statistics is None
        if isinstance(gate, str):
            gate = DEFAULT_GATE if default else None
        if views is None:
            views = getattr(model, "views", 1) if default else 1
        if statistics is None:
            statistics = DEFAULT_STATISTICS if batchnorm_layers(model) else Source()
        picker = norm_affine if isinstance(params, str) else params
        chosen = DEFAULT_LOSSES if losses is None else tuple(losses)
        if chosen and steps and not picker(model):
            raise ValueError(
                "nothing to adapt: the model has no normalisation layer with γ and β; "
                "pass params=a function that picks parameters"
            )
        self.model, self.fold = model, fold
        self.recipe = Recipe(
            chosen, statistics, picker, steps, lr, optimizer, seed, gate, through, views, sharpness, crops
        )
        self._state: State | None = None
        self._predict = "after"
        self._restart: Callable[[Result], bool] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → scores (B,), in the model's own direction."""
        return self.run(images).scores

    def run(self, images: Tensor, groups: Sequence[int] | None = None) -> Result:
        """Adapt and score, and tell what happened.

        Args:
            images: (B, 3, H, W), RGB in [0, 1].
            groups: (B,) labels; images of one label form an episode of their own. None: one episode.

        Raises:
            ValueError: wrong shape, an empty batch, or values that are not finite.
        """
        _check(images)
        if groups is None:
            return self._one(images)
        labels = torch.as_tensor(groups).tolist()
        if len(labels) != len(images):
            raise ValueError(f"{len(labels)} group labels for {len(images)} images")
        members: dict = {}
        for i, label in enumerate(labels):
            members.setdefault(label, []).append(i)
        results = self._many(images, list(members.values()))
        order = torch.tensor([i for rows in members.values() for i in rows]).argsort()
        merged = Result(
            *(
                torch.cat([getattr(r, f) for r in results])[order]
                for f in ("scores", "source_scores", "statistics_scores")
            )
        )
        merged.trace = [{"group": label, "steps": r.trace} for label, r in zip(members, results, strict=True)]
        merged.skipped = {
            f"{label}: {name}": why
            for label, r in zip(members, results, strict=True)
            for name, why in r.skipped.items()
        }
        merged.shift = {
            f"{label}: {name}": value
            for label, r in zip(members, results, strict=True)
            for name, value in r.shift.items()
        }
        merged.pictures = sum(r.pictures for r in results)
        decisions = {r.decision for r in results}
        merged.decision = decisions.pop() if len(decisions) == 1 else "mixed"
        return merged

    def predict(
        self, images: Tensor | Iterable, batch_size: int = 32, shuffle: bool = True, progress: bool = False
    ) -> Tensor:
        """Score a whole data set in episodes of about `batch_size` images.

        Args:
            images: a tensor (N, 3, H, W); or a loader of batches (B, 3, H, W), or of tuples that begin with one.
            batch_size: for a tensor. The rest is spread over the batches (33 images make 17 + 16, not 32 + 1).
            shuffle: for a tensor: draw the episodes in an order seeded by `seed`, as neighbours in a folder are alike.
            progress: show a progress bar.

        Returns:
            (N,) in the order of `images`.
        """
        if not isinstance(images, Tensor):
            batches = (batch[0] if isinstance(batch, (tuple, list)) else batch for batch in images)
            total = len(images) if hasattr(images, "__len__") else None
            return torch.cat(
                [self(batch) for batch in tqdm(batches, total=total, disable=not progress, desc="batches")]
            )
        _check(images)
        episodes = balanced_batches(len(images), batch_size, self.recipe.seed if shuffle else None)
        scores = torch.empty(len(images), dtype=images.dtype, device=images.device)
        results = self._many(images, episodes, progress)
        for rows, result in zip(episodes, results, strict=True):
            scores[rows] = result.scores.to(scores.dtype)
        return scores

    @contextmanager
    def online(self, predict: str = "after", restart: Callable[[Result], bool] | None = None) -> Iterator[Adapter]:
        """Within this block the state is carried from batch to batch: parameters, statistics, the optimiser's memory.

        Args:
            predict: score each batch "after" or "before" adapting to it.
            restart: where it is true of a batch's result, such as `Drifted()`, the next batch starts from the source again.
        """
        if predict not in ("after", "before"):
            raise ValueError(f"predict must be 'after' or 'before'; got {predict!r}")
        self._state, self._predict, self._restart = State(), predict, restart
        try:
            yield self
        finally:
            self._state, self._predict, self._restart = None, "after", None

    def _one(self, images: Tensor) -> Result:
        if self._state is None:
            return adapt_batch(self.model, State(), images, self.recipe)[0][0]
        (result,), self._state = adapt_batch(self.model, self._state, images, self.recipe)
        if self._restart is not None and self._restart(result):
            self._state = State()
        if self._predict == "before" and result.decision == "adapted":
            result.scores = result.statistics_scores
        return result

    def _many(self, images: Tensor, episodes: list[list[int]], progress: bool = False) -> list[Result]:
        """Run episodes given by their rows; equal neighbours in size are folded, `fold` at a time."""
        results: list[Result] = []
        with tqdm(total=len(episodes), disable=not progress, desc="batches") as bar:
            while len(results) < len(episodes):
                ahead = episodes[len(results) : len(results) + self.fold]
                if self._state is not None:
                    ahead = ahead[:1]
                same = list(takewhile(lambda rows, first=ahead[0]: len(rows) == len(first), ahead))
                if len(same) == 1:
                    results.append(self._one(images[same[0]]))
                else:
                    rows = torch.cat([images[r] for r in same])
                    results += adapt_batch(self.model, State(), rows, self.recipe, len(same))[0]
                bar.update(len(same))
        return results


def balanced_batches(count: int, batch_size: int, seed: int | None = None) -> list[list[int]]:
    """Cut 0 … count − 1 into ⌈count / batch_size⌉ lists that differ by at most one in length; shuffled if a seed is given."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}")
    order = list(range(count))
    if seed is not None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    parts = math.ceil(count / batch_size)
    edges = [round(i * count / parts) for i in range(parts + 1)]
    return [order[a:b] for a, b in pairwise(edges)]


def _check(images: Tensor) -> None:
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise ValueError(
            f"expected floating-point images (B, 3, H, W) with B ≥ 1; got {images.dtype} {tuple(images.shape)}"
        )
    if not torch.isfinite(images).all():
        raise ValueError("the images hold values that are not finite (NaN or infinity)")
