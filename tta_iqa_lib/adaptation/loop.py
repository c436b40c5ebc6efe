"""One batch through test-time adaptation (chapter 8).

State in, scores and state out: `adapt_batch` is the whole method. The user's model is never written to: parameters are
replaced for the time of a forward pass, so there is nothing to reset and nothing that an interruption could leave behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..imaging.files import symmetries
from .control import Control, batchnorm_layers, controlled
from .copies import view_makers
from .losses import Context
from .moments import Moments, displacement, stretch
from .rules import Batch, Source
from .state import Gate, Recipe, Result, State


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

    def average(
        self, params: dict[str, Tensor], rows: Tensor, episodes: int, views: int, record: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Scores averaged over the symmetric views of the rows; features, and the record, of the rows as they are."""
        plain, *turned = symmetries(rows, views)
        self.control.record = False
        scores = [self(params, view, episodes, None)[0] for view in turned[::-1]]
        self.control.record = record
        last, features = self(params, plain, episodes, None)
        return torch.stack([*scores, last]).mean(0) if scores else last, features


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

    Raises:
        ValueError: nothing to adapt, or parameters that cannot differ between episodes of one pass.
    """
    size = len(images) // episodes
    sign = 1.0 if model.higher_is_better else -1.0
    learns = bool(recipe.losses) and recipe.steps > 0
    source_scores, source_features, shifts = _source_pass(model, images, recipe, episodes)
    results = [
        Result(part, part, part, shift=shift, pictures=size // recipe.crops)
        for part, shift in zip(source_scores.split(size), shifts, strict=True)
    ]
    if getattr(recipe.gate, "early", False) and all(recipe.gate(result) == "source" for result in results):
        for result in results:
            result.decision = "source"
        return results, state
    views = _views(model, images, recipe, size, sign)
    params = _starting_params(model, state, recipe, episodes) if learns else {}
    optimizer = None
    if params:
        make = recipe.optimizer or (lambda tensors: torch.optim.Adam(tensors, recipe.lr))
        optimizer = make(list(params.values()))
        if state.optimizer:
            optimizer.load_state_dict(state.optimizer)

    # One block of rows an episode: its clean images first, then its copies.
    rows = torch.cat([view.unflatten(0, (episodes, size)) for view in views.values()], 1).flatten(0, 1)
    with controlled(model, recipe.statistics, recipe.through) as control:
        control.crops = recipe.crops
        control.previous = state.moments
        forward = _Forward(model, control)

        def loss_gradients(at: dict[str, Tensor], note: bool = True) -> tuple[Tensor, tuple]:
            """Sum of the episodes' losses, and its gradients; empty if every loss was skipped."""
            with torch.enable_grad():
                scores, features = forward(at, rows, episodes, size)
                contexts = _contexts(model, views, scores, features, source_scores, source_features, sign, episodes)
                total = scores.new_zeros(())
                for e, (result, context) in enumerate(zip(results, contexts, strict=True)):
                    context.moments = {
                        layer: (source, Moments(batch.mean[e], batch.var[e]))
                        for layer, (source, batch) in control.measured.items()
                    }
                    total = total + _episode_loss(recipe.losses, context, result, sign, note)
                if not total.requires_grad:
                    return total, ()
                return total.detach(), torch.autograd.grad(total, list(at.values()), allow_unused=True)

        if params and recipe.views > 1:
            with torch.no_grad():
                for result, part in zip(
                    results, forward.average(params, images, episodes, recipe.views)[0].split(size), strict=True
                ):
                    result.statistics_scores = part
        control.record = any(getattr(loss, "needs_moments", False) for loss in recipe.losses)
        for step in range(recipe.steps if params else 0):
            total, gradients = loss_gradients(params)
            if recipe.sharpness and gradients:
                total, gradients = loss_gradients(_uphill(params, gradients, recipe.sharpness, episodes), note=False)
            if not gradients:
                break
            if not torch.isfinite(total):
                for result in results:
                    result.skipped["step"] = f"the loss was not finite at step {step + 1}: stopped there"
                break
            for parameter, gradient in zip(params.values(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        params = {name: p.detach() for name, p in params.items()}
        with torch.no_grad():
            scores, _ = forward.average(params, images, episodes, recipe.views)
    for result, part in zip(results, scores.split(size), strict=True):
        if not params:
            result.statistics_scores = part
        elif recipe.views == 1 and result.trace:
            result.statistics_scores = result.trace[0]["scores"]
        result.scores = part
        if recipe.gate is not None:
            _decide(recipe.gate, result)
    return results, State(params, dict(control.used), optimizer.state_dict() if optimizer else None)


def _uphill(params: dict[str, Tensor], gradients: tuple, radius: float, episodes: int) -> dict[str, Tensor]:
    """Where the loss is worst within a small ball around each episode's parameters, to first order [foret2021sam]."""
    known = [torch.zeros_like(p) if g is None else g for p, g in zip(params.values(), gradients, strict=True)]
    rows = [g.reshape(episodes, -1) if episodes > 1 else g.reshape(1, -1) for g in known]
    norm = torch.cat(rows, 1).norm(dim=1).clamp_min(1e-12)  # (E,)
    steps = ((radius * row / norm[:, None]).reshape_as(g) for row, g in zip(rows, known, strict=True))
    moved = zip(params.items(), steps, strict=True)
    return {name: (p + step).detach().requires_grad_() for (name, p), step in moved}


def _source_pass(model, images: Tensor, recipe: Recipe, episodes: int) -> tuple[Tensor, Tensor, list[dict]]:
    """The source model's scores and features of the images; and, for a gate, each episode's `Result.shift`."""
    with torch.no_grad(), _as_source(model) as control:
        control.crops = recipe.crops
        forward = _Forward(model, control)
        scores, features = forward.average({}, images, episodes, recipe.views, record=recipe.gate is not None)
    measured = {layer: (displacement(*moments), stretch(*moments)) for layer, moments in control.measured.items()}
    shifts = [
        {layer: tuple((float(d[e]), float(n[e])) for d, n in parts) for layer, parts in measured.items()}
        for e in range(episodes)
    ]
    return scores, features, shifts


def _views(model, images: Tensor, recipe: Recipe, size: int, sign: float) -> dict[str, Tensor]:
    """The images, and the copies that the losses ask for, drawn episode by episode."""
    makers = view_makers(recipe.losses) if recipe.steps else []
    with torch.no_grad(), _as_source(model) as control:
        forward = _Forward(model, control)
        scorer = lambda x: sign * forward({}, x, 1, None)[0]  # noqa: E731
        drawn = [_draw(makers, part, scorer, recipe.seed) for part in images.split(size)]
    return {"clean": images} | {name: torch.cat([copies[name] for copies in drawn]) for name in drawn[0]}


def _as_source(model):
    """Plain inference: with the source's moments, or, where no layer keeps any, with the batch's own."""
    memoryless = any(layer.running_mean is None for layer in batchnorm_layers(model).values())
    return controlled(model, Batch() if memoryless else Source())


def _starting_params(model, state: State, recipe: Recipe, episodes: int) -> dict[str, Tensor]:
    """The tensors to adapt, ready for an optimiser: (C,), or (E, C) where episodes share a pass."""
    picked = recipe.params(model)
    if not picked:
        raise ValueError(
            "nothing to adapt: no normalisation layer has γ and β; pass params=a function that picks parameters"
        )
    start = {name: state.params.get(name, p) for name, p in picked.items()}
    if episodes > 1:
        own = {f"{layer}.{key}".lstrip(".") for layer in batchnorm_layers(model) for key in ("weight", "bias")}
        if not own.issuperset(start):
            raise ValueError("only γ and β of BatchNorm can differ between episodes of one pass: use fold=1")
        start = {name: p.expand(episodes, -1) for name, p in start.items()}
    return {name: p.detach().clone().requires_grad_() for name, p in start.items()}


def _decide(gate: Gate, result: Result) -> None:
    """Let the gate choose whose scores are returned."""
    choices = {
        "adapted": result.scores,
        "statistics": result.statistics_scores,
        "source": result.source_scores,
    }
    result.decision = gate(result)
    if result.decision not in choices:
        raise ValueError(f"a gate must answer 'adapted', 'statistics' or 'source'; got {result.decision!r}")
    result.scores = choices[result.decision]


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
            model=model,
        )


def _episode_loss(losses: Sequence, context: Context, result: Result, sign: float, note: bool = True) -> Tensor:
    """Weighted sum of one episode's losses; if told, notes them, and the scores they were taken at, in the trace."""
    values = {}
    for loss in losses:
        name = _loss_name(loss)
        if name in values or name in ("loss", "scores"):  # two lambdas, or a name that the trace needs itself
            name = f"{name}-{len(values) + 1}"
        values[name] = getattr(loss, "weight", 1.0) * loss(context)
    total = sum(values.values())
    if not note:
        return total
    entry = {name: float(value.detach()) for name, value in values.items()}
    result.trace.append({"loss": float(total.detach()), **entry, "scores": sign * context.scores["clean"].detach()})
    result.skipped.update(context.skipped)
    return total
