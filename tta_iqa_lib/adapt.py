"""The test-time adaptation loop (chapter 8).

State in, scores and state out: `adapt_batch` is the whole method. `Adapter` wraps it: episodic by default (every batch
starts from the source), or online (the state is carried on). The user's model is never written to: parameters are
replaced for the time of a forward pass, so there is nothing to reset and nothing that an interruption could leave behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise, takewhile

import torch
from torch import Tensor, nn
from torch.func import functional_call
from tqdm.auto import tqdm

from .batchnorm import Control, Moments, Shrink, Source, Statistics, batchnorm_layers, controlled, norm_affine
from .losses import Context, Pair, ScoreOrder, view_makers

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
        decision: "adapted", "statistics" or "source": whose scores were returned.
    """

    scores: Tensor
    source_scores: Tensor
    statistics_scores: Tensor
    trace: list[dict] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    decision: str = "adapted"


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


def _loss_name(loss) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


class _Forward:
    """Forward passes of a model with some of its parameters replaced, and all others cut off from autograd."""

    def __init__(self, model: nn.Module, control: Control):
        self.model, self.control = model, control
        self.fixed = {name: p.detach() for name, p in model.named_parameters()}

    def __call__(
        self, params: dict[str, Tensor], rows: Tensor, episodes: int, clean: int | None
    ) -> tuple[Tensor, Tensor]:
        self.control.episodes, self.control.clean = episodes, clean
        return functional_call(self.model, {**self.fixed, **params}, (rows,), {"with_features": True})


@torch.inference_mode(False)  # a caller's inference mode would switch adaptation off without a word
def adapt_batch(
    model: nn.Module, state: State, images: Tensor, recipe: Recipe, episodes: int = 1
) -> tuple[list[Result], State]:
    """Adapt to E episodes of B images at once and score them: the pure core of the library.

    Episodes are independent: each has its own γ, β, statistics and copies. They share only the convolutions, which see
    one long batch. (The sum of the losses is minimised; an element-wise optimiser such as Adam keeps them apart.)

    Args:
        model: a `ScoringModel`.
        state: where to start; `State()` is the source. Carried states need E = 1.
        images: (E·B, 3, H, W) in [0, 1], episode after episode.

    Returns:
        E results, and the state after the batch.
    """
    images = images.clone() if images.is_inference() else images
    size = len(images) // episodes
    sign = 1.0 if model.higher_is_better else -1.0
    with torch.no_grad(), controlled(model, Source()) as plain:
        source_forward = _Forward(model, plain)
        source_scores, source_features = source_forward({}, images, 1, None)
        views = {"clean": images}
        makers = view_makers(recipe.losses) if recipe.steps else []
        if makers:
            drawn = [
                _draw(makers, part, lambda x: sign * source_forward({}, x, 1, None)[0], recipe.seed)
                for part in images.split(size)
            ]
            views |= {name: torch.cat([copies[name] for copies in drawn]) for name in drawn[0]}

    source_state = recipe.params(model) if recipe.losses and recipe.steps else {}
    if recipe.losses and recipe.steps and not source_state:
        raise ValueError(
            "nothing to adapt: no normalisation layer has γ and β; pass params=a function that picks parameters"
        )
    start = {name: state.params.get(name, p) for name, p in source_state.items()}
    if episodes > 1:
        foreign = set(start) - {f"{name}.{key}" for name in batchnorm_layers(model) for key in ("weight", "bias")}
        if foreign or any(p.ndim != 1 for p in start.values()):
            raise ValueError("only γ and β of BatchNorm can differ between episodes of one pass: use fold=1")
        start = {name: p.expand(episodes, -1) for name, p in start.items()}
    params = {name: p.detach().clone().requires_grad_() for name, p in start.items()}
    optimizer = (
        (recipe.optimizer or (lambda ps: torch.optim.Adam(ps, recipe.lr)))(list(params.values())) if params else None
    )
    if optimizer and state.optimizer:
        optimizer.load_state_dict(state.optimizer)

    # One row block an episode: its clean images first, then its copies.
    rows = torch.cat([v.unflatten(0, (episodes, size)) for v in views.values()], 1).flatten(0, 1)
    results: list[Result] = [Result(part, part, part) for part in source_scores.split(size)]
    with controlled(model, recipe.statistics, recipe.through) as control:
        control.previous = state.moments
        forward = _Forward(model, control)
        for step in range(recipe.steps if params else 0):
            with torch.enable_grad():
                scores, features = forward(params, rows, episodes, size)
                contexts = _contexts(model, views, scores, features, source_scores, source_features, sign, episodes)
                total = scores.new_zeros(())
                for result, context in zip(results, contexts, strict=True):
                    total = total + _episode_loss(recipe.losses, context, result, sign)
                if step == 0:
                    for result in results:
                        result.statistics_scores = result.trace[0]["scores"]
                if not total.requires_grad:  # every loss was skipped
                    break
                gradients = torch.autograd.grad(total, list(params.values()), allow_unused=True)
            if not torch.isfinite(total.detach()):
                for result in results:
                    result.skipped["step"] = f"the loss was not finite at step {step + 1}: stopped there"
                break
            for parameter, gradient in zip(params.values(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        with torch.no_grad():
            scores, _ = forward({name: p.detach() for name, p in params.items()}, images, episodes, None)
            for result, part in zip(results, scores.split(size), strict=True):
                if not result.trace:
                    result.statistics_scores = part
        after = State(
            {n: p.detach() for n, p in params.items()},
            dict(control.used),
            optimizer.state_dict() if optimizer else None,
        )
    for result, part in zip(results, scores.split(size), strict=True):
        result.scores = part
        if recipe.gate is not None:
            result.decision = recipe.gate(result)
            if result.decision not in ("adapted", "statistics", "source"):
                raise ValueError(f"a gate must answer 'adapted', 'statistics' or 'source'; got {result.decision!r}")
            result.scores = {
                "adapted": part,
                "statistics": result.statistics_scores,
                "source": result.source_scores,
            }[result.decision]
    return results, after


def _draw(makers, images: Tensor, scorer, seed: int) -> dict[str, Tensor]:
    """The copies of one episode, from a fresh generator: the same images get the same copies wherever they stand."""
    generator = torch.Generator(images.device).manual_seed(seed)
    copies: dict[str, Tensor] = {}
    for maker in makers:
        for name, view in maker(images, scorer, generator).items():
            if name in copies or name == "clean":
                raise ValueError(
                    f"two losses make different copies under the name '{name}': give both the same views, or rename one"
                )
            copies[name] = view
    return copies


def _contexts(model, views, scores, features, source_scores, source_features, sign, episodes) -> Iterator[Context]:
    """Cut the rows of one forward pass into what each episode's losses see."""
    size = len(source_scores) // episodes
    for e, rows in enumerate(zip(scores.chunk(episodes), features.chunk(episodes), strict=True)):
        own = slice(e * size, (e + 1) * size)
        by_view = [dict(zip(views, part.split(size), strict=True)) for part in rows]
        f0, s0 = source_features[own], source_scores[own]
        known = model.feature_mean is not None
        yield Context(
            features=by_view[1],
            scores={name: sign * s for name, s in by_view[0].items()},
            images={name: v[own] for name, v in views.items()},
            pseudo=sign * s0,
            source_features=f0,
            feature_mean=model.feature_mean if known else f0.mean(0),
            feature_std=(model.feature_cov.diagonal().sqrt() if known else f0.std(0, correction=0)).clamp_min(1e-6),
            score_std=(model.score_std if known else s0.std(correction=0)).clamp_min(1e-6),
        )


def _episode_loss(losses: Sequence, context: Context, result: Result, sign: float) -> Tensor:
    """Weighted sum of one episode's losses; notes them, and the scores they were taken at, in the trace."""
    values = {}
    for loss in losses:
        name = _loss_name(loss)
        if name in values or name in ("loss", "scores"):  # two lambdas, or a name that the trace needs itself
            name = f"{name}-{len(values) + 1}"
        values[name] = getattr(loss, "weight", 1.0) * loss(context)
    total = sum(values.values())
    entry = {name: float(value.detach()) for name, value in values.items()}
    result.trace.append({"loss": float(total.detach()), **entry, "scores": sign * context.scores["clean"].detach()})
    result.skipped.update(context.skipped)
    return total


# The default recipe. It was chosen on source/test and on the development target alone (chapter 9).
DEFAULT_STATISTICS = Shrink(16)
DEFAULT_LOSSES = (ScoreOrder(views=Pair(choose="signed")),)


class Adapter:
    """Scores images with a model that adapts to them.

    Example::

        adapter = Adapter(load_source_model())
        scores = adapter(images)  # (B, 3, H, W) in [0, 1] → (B,)

    Args:
        model: a `QualityModel`, or what `wrap_model` returns. It is not copied and not changed.
        losses: callables `loss(context) -> scalar`, each with an optional `weight` and `views`; None: `DEFAULT_LOSSES`;
            empty: statistics only.
        statistics: rule of the BatchNorm statistics: `Source()`, `Batch()`, `Blend(alpha)`, `Shrink(prior)`, `Ema(momentum)`.
            None: `DEFAULT_STATISTICS` if the model has BatchNorm layers, else `Source()`.
        params: "norm-affine" (γ and β), or a function model → {full name: parameter}.
        steps, lr: of the optimiser. optimizer: a function [tensors] → optimiser; None: Adam at `lr`.
        seed: of the distorted copies; each batch starts a fresh generator from it.
        gate: a function of the `Result` that answers "adapted", "statistics" or "source", batch by batch.
        through: let gradients flow through the batch's moments.
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
        gate: Gate | None = None,
        through: bool = False,
        fold: int = 1,
    ):
        if not hasattr(model, "higher_is_better"):
            raise TypeError(
                f"{type(model).__name__} is not a quality model of this library: wrap it first, tta.wrap_model(module, …)"
            )
        if isinstance(params, str) and params != "norm-affine":
            raise ValueError(f"params must be 'norm-affine' or a function of the model; got {params!r}")
        if steps < 0 or fold < 1:
            raise ValueError(f"need steps ≥ 0 and fold ≥ 1; got {steps} and {fold}")
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
        self.recipe = Recipe(chosen, statistics, picker, steps, lr, optimizer, seed, gate, through)
        self._state: State | None = None
        self._predict = "after"

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
    def online(self, predict: str = "after") -> Iterator[Adapter]:
        """Within this block the state is carried from batch to batch: parameters, statistics, the optimiser's memory.

        Args:
            predict: score each batch "after" or "before" adapting to it.
        """
        if predict not in ("after", "before"):
            raise ValueError(f"predict must be 'after' or 'before'; got {predict!r}")
        self._state, self._predict = State(), predict
        try:
            yield self
        finally:
            self._state, self._predict = None, "after"

    def _one(self, images: Tensor) -> Result:
        if self._state is None:
            return adapt_batch(self.model, State(), images, self.recipe)[0][0]
        (result,), self._state = adapt_batch(self.model, self._state, images, self.recipe)
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
