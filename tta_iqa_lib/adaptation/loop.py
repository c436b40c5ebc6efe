"""One batch through test-time adaptation (chapter 8): source pass → gate → copies → optimise → final pass → results.

State in, scores and state out: `adapt_batch` is the whole method. Each pass is a value (see `Stateless`), so there is nothing to
reset, and nothing that an interruption could leave behind.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..imaging.crops import symmetries
from .copies import copy_makers
from .losses import Context
from .moments import Moments, mean_shift, variance_shift
from .optimise import Flat, guarded_step, make_optimizer, starting_point, uphill
from .protocols import PlainLoss, ScoringModel, is_scoring_model
from .replays import Replays, directly
from .rules import Carried
from .state import Inference, Recipe, Result, State
from .stateless import Layout, Memory, Pass, Stateless


@torch.inference_mode(False)  # a caller's inference mode would switch adaptation off without a word
def adapt_batch(
    model: ScoringModel,
    state: State,
    images: Tensor,
    recipe: Recipe,
    episodes: int = 1,
    run: Replays | None = None,
) -> tuple[list[Result], State]:
    """Adapt to E episodes of B images at once and score them: the pure core of the library.

    Episodes are independent: each has its own γ, β, statistics and copies. They share only the convolutions, which see
    one long batch. (The sum of the losses is minimised; an element-wise optimiser such as Adam keeps them apart.)

    Args:
        model: it is not changed.
        state: where to start; `State()` is the source. Carried states need E = 1.
        images: (E·B, 3, H, W) in [0, 1], episode after episode.
        recipe: how to score, and what to optimise.
        episodes: E.
        run: recordings to replay the passes from, on a GPU; None: compute them as they come.

    Returns:
        E results, and the state after the batch.

    Raises:
        ValueError: bad images; they cannot be cut into E episodes; or parameters that cannot differ between episodes.
    """
    images = checked(images, model)
    if episodes < 1 or len(images) % episodes:
        raise ValueError(f"{len(images)} images cannot be cut into {episodes} episodes of equal length")
    if episodes > 1 and state != State():
        raise ValueError(f"a state that is carried on goes into one episode; got episodes={episodes}")
    assert isinstance(model, nn.Module)
    network, inference, size = Stateless(model), recipe.inference, len(images) // episodes
    if size % inference.crops_per_image:
        raise ValueError(f"{size} rows are no whole number of pictures of {inference.crops_per_image} crops each")
    run = run if state == State() else None  # a stream's state would have to be recorded, too
    source = (run or directly)(
        ("source", inference, episodes), lambda rows: _source_pass(network, rows, inference, episodes), images
    )
    sources = _source_results(source, inference, episodes)
    closed = [_leaves_to_source(inference, result) for result in sources]
    if all(closed):
        return [replace(result, decision="source") for result in sources], state
    if recipe.optimisation is None and not inference.statistics.uses_batch and state == State():
        return [_finished(inference, result) for result in sources], state
    if episodes > 1 and (
        any(closed) or not source.rowwise
    ):  # those that are open; each alone where rows cannot be told
        return _separately(model, images, recipe, sources, closed, together=source.rowwise, run=run)

    # From here on all episodes are adapted. B = size; V = the images and their copies; rows (E·V·B, 3, H, W).
    copies = _make_copies(network, images, recipe, size) if recipe.optimisation else {}

    def adapt(images: Tensor, scores: Tensor, features: Tensor, *rows: Tensor) -> tuple[_Batch, _Steps, Pass]:
        of_source = replace(source, scores=scores, features=features)
        named = dict(zip(copies, rows, strict=True))
        batch = _Batch(network, recipe, images, named, of_source, episodes, state.moments)
        steps = _optimise(batch, state)
        return batch, steps, batch.score(steps.params, steps.memory)

    batch, steps, final = (run or directly)(
        ("steps", recipe, episodes), adapt, images, source.scores, source.features, *copies.values()
    )
    results, (trace, skips) = [], batch.tell(steps)
    for e, (result, scores) in enumerate(zip(sources, final.scores.split(size), strict=True)):
        initial = steps.initial[e * size : (e + 1) * size] if steps.initial is not None else scores
        skipped = skips[e] | batch.notes(final)
        if run:  # the next replay writes over what it gave
            scores, initial = scores.clone(), initial.clone()
            trace[e] = [entry | {"scores": entry["scores"].clone()} for entry in trace[e]]
            result = replace(result, source_scores=result.source_scores.clone())
        draft = replace(result, scores=scores, initial_scores=initial, trace=trace[e], skipped=skipped)
        if not bool(scores.isfinite().all()):  # nothing that follows may rest on it
            why = skipped | {"scores": "the adapted scores were not finite: the source's are returned"}
            results.append(replace(draft, scores=result.source_scores, skipped=why, decision="source"))
            return (results, state) if episodes == 1 else _separately(model, images, recipe, sources, closed, False)
        results.append(_finished(inference, draft))
    moments = {name: Moments(*(part.detach() for part in used)) for name, used in final.used.items()}
    return results, State(steps.params, moments, steps.optimizer.state_dict() if steps.optimizer else None)


def checked(images: Tensor, model) -> Tensor:
    """The images in the model's floating-point type.

    Raises:
        ValueError: not (B, 3, H, W) floating-point values in [0, 1], or on another device than the model.
    """
    if images.ndim != 4 or not len(images) or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"expected floating-point images (B, 3, H, W) with B ≥ 1; got {images.dtype} {tuple(images.shape)}"
        )
    low, high = (float(edge) for edge in images.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("the images hold values that are not finite (NaN or infinity)")
    if low < -0.01 or high > 1.01:  # a resized picture may overshoot by a little
        raise ValueError(
            f"expected RGB in [0, 1]; got values from {low:.3g} to {high:.3g}. "
            "Divide 8-bit values by 255, and leave normalising to the model (wrap_model(…, normalise=…))"
        )
    own = next((p for p in model.parameters() if p.is_floating_point()), images)
    if own.device != images.device:
        raise ValueError(
            f"the images are on {images.device}, the model on {own.device}: move one to the other with .to(…)"
        )
    return images if torch.is_autocast_enabled(own.device.type) else images.to(own.dtype)


def _source_pass(network: Stateless, images: Tensor, inference: Inference, episodes: int) -> Pass:
    """Plain inference; with the moments that the model meets if there is a gate."""
    layout = Layout(episodes, None, inference.crops_per_image)
    with torch.no_grad():
        return _averaged(network, images, inference.views, layout=layout, record=inference.gate is not None)


def _source_results(found: Pass, inference: Inference, episodes: int) -> list[Result]:
    """Each episode's result so far, with the measured shift if there is a gate."""
    size = found.scores.shape[0] // episodes
    return [
        Result(part, part, part, shift=shift, pictures=size // inference.crops_per_image)
        for part, shift in zip(found.scores.split(size), _shifts(found, episodes), strict=True)
    ]


def _shifts(found: Pass, episodes: int) -> list[dict]:
    """`Result.shift` of each episode; one transfer from the device."""
    if not found.measured:
        return [{} for _ in range(episodes)]
    parts = [torch.stack([*mean_shift(*m), *variance_shift(*m)]) for m in found.measured.values()]  # (4, E) each
    numbers = torch.stack(parts).tolist()  # layers × 4 × E
    return [
        {layer: ((d[e], n[e]), (s[e], t[e])) for layer, (d, n, s, t) in zip(found.measured, numbers, strict=True)}
        for e in range(episodes)
    ]


def _leaves_to_source(inference: Inference, result: Result) -> bool:
    return inference.gate is not None and inference.gate.early and inference.gate(result) == "source"


def _finished(inference: Inference, result: Result) -> Result:
    """With the scores that the gate chooses."""
    return result if inference.gate is None else result.decided(inference.gate(result))


def _separately(
    model, images: Tensor, recipe: Recipe, sources: list[Result], closed: list[bool], together: bool, run=None
) -> tuple[list[Result], State]:
    """The open episodes, in one pass or one by one; the others keep the source's scores."""
    parts = images.chunk(len(sources))
    open_parts = [part for part, shut in zip(parts, closed, strict=True) if not shut]
    if together:
        adapted, _ = adapt_batch(model, State(), torch.cat(open_parts), recipe, len(open_parts), run)
    else:
        adapted = [adapt_batch(model, State(), part, recipe)[0][0] for part in open_parts]
    rest = iter(adapted)
    results = [
        replace(result, decision="source") if shut else next(rest) for result, shut in zip(sources, closed, strict=True)
    ]
    return results, State()


def _averaged(
    network: Stateless, images: Tensor, views: int, *arguments, record: bool = False, memory=None, **options
) -> Pass:
    """A pass whose scores are averaged over the symmetric views of the images; all else is of the images as they are."""
    plain, *turned = symmetries(images, views)
    others = [network(view, *arguments, **options).scores for view in turned]
    found = network(plain, *arguments, record=record, memory=memory, **options)
    return replace(found, scores=torch.stack([found.scores, *others]).mean(0)) if others else found


def _make_copies(network: Stateless, images: Tensor, recipe: Recipe, size: int) -> dict[str, Tensor]:
    """The copies that the losses ask for, (E·B, 3, H, W) each, drawn episode by episode from a fresh generator.

    So the same images get the same copies wherever they stand.
    """
    optimisation = recipe.optimisation
    makers = copy_makers(optimisation.losses) if optimisation and optimisation.steps else []
    sign = 1.0 if network.model.higher_is_better else -1.0
    drawn: list[dict[str, Tensor]] = []
    with torch.no_grad():
        for part in images.split(size):
            generator = torch.Generator(images.device).manual_seed(optimisation.seed if optimisation else 0)
            copies: dict[str, Tensor] = {}
            for maker in makers:
                for name, copy in maker(part, lambda rows: sign * network(rows).scores, generator).items():
                    if name in copies or name == "clean":
                        raise ValueError(
                            f"two losses make different copies under the name '{name}': "
                            "give both the same copies=, or rename one"
                        )
                    copies[name] = copy
            drawn.append(copies)
    return {name: torch.cat([copies[name] for copies in drawn]) for name in drawn[0]}


@dataclass
class _Steps:
    """What the steps gave.

    Attributes:
        params: by name. initial: scores before the first step, (E·B,).
        notes: of each step, what `_episode_loss` noted of each episode.
        took: of each step, which episodes have a gradient, and (E,) which took the step.
        unknown: names of parameters that the model does not have.
    """

    params: dict[str, Tensor]
    initial: Tensor | None = None
    notes: list[list[dict]] = field(default_factory=list)
    took: list[tuple[list[bool], Tensor]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    memory: Memory | None = None
    optimizer: torch.optim.Optimizer | None = None


def _optimise(batch: _Batch, state: State) -> _Steps:
    """Minimise the losses of all episodes, each over parameters of its own. Asks the device for no value."""
    recipe = batch.recipe.optimisation
    found = _Steps(dict(state.params))
    if recipe is None or not recipe.steps:
        return found
    picked, found.unknown = batch.picked()
    if not picked:
        if not found.unknown:
            raise ValueError(
                "nothing to adapt: no normalisation layer has γ and β; pass params=a function that picks parameters"
            )
        return found
    layout, flat = starting_point(batch.network.model, state, picked, batch.episodes)
    found.optimizer = make_optimizer(recipe, flat, state)
    if batch.recipe.inference.views > 1:
        found.initial = batch.score(layout.views(flat.detach())).scores
    memory = Memory()
    for _ in range(recipe.steps):
        losses, gradient, note = batch.gradient(layout, flat, memory)
        found.notes.append(note)
        if gradient is None:
            break
        if recipe.sam_rho:
            _, climbed, _ = batch.gradient(layout, uphill(flat.detach(), gradient, recipe.sam_rho), memory)
            gradient = climbed if climbed is not None else gradient
        active = [loss.requires_grad for loss in losses]
        values = [loss.detach() if has else loss.detach() * torch.nan for loss, has in zip(losses, active, strict=True)]
        found.took.append((active, guarded_step(found.optimizer, flat, gradient, torch.stack(values).isfinite())))
    found.params = {name: part.detach() for name, part in layout.views(flat).items()}
    found.memory = memory if memory.kept else None
    if found.initial is None:
        found.initial = torch.cat([note["trace"]["scores"] for note in found.notes[0]])
    return found


@dataclass
class _Batch:
    """The episodes that are adapted together: what their passes share.

    Attributes:
        images: (E·B, 3, H, W). copies: by name, likewise. source: the source's pass over the images.
        carried: moments of a stream.
    """

    network: Stateless
    recipe: Recipe
    images: Tensor
    copies: dict[str, Tensor]
    source: Pass
    episodes: int
    carried: dict[str, Moments]
    views: dict[str, Tensor] = field(init=False)
    rows: Tensor = field(init=False)
    layout: Layout = field(init=False)

    def __post_init__(self):
        size, crops = len(self.images) // self.episodes, self.recipe.inference.crops_per_image
        self.views = {"clean": self.images} | self.copies
        blocks = [rows.unflatten(0, (self.episodes, size)) for rows in self.views.values()]  # (E, B, 3, H, W) each
        self.rows = torch.cat(blocks, 1).flatten(0, 1) if len(blocks) > 1 else self.images  # (E·V·B, 3, H, W)
        self.layout = Layout(self.episodes, size, crops)

    @property
    def sign(self) -> float:
        return 1.0 if self.network.model.higher_is_better else -1.0

    def picked(self) -> tuple[dict[str, Tensor], list[str]]:
        """The parameters to adapt, and names that the model does not know."""
        assert self.recipe.optimisation is not None
        found = dict(self.recipe.optimisation.params(self.network.model))
        known = dict(self.network.model.named_parameters(remove_duplicate=False))
        unique = {id(known[name]): name for name in reversed(found) if name in known}  # tied: under their first name
        return (
            {name: known[name] for name in found if name in known and unique[id(known[name])] == name},
            [name for name in found if name not in known],
        )

    def score(self, params: dict[str, Tensor], memory: Memory | None = None) -> Pass:
        """The images' scores under the recipe's statistics, averaged over the symmetric views."""
        inference = self.recipe.inference
        kept = memory.of_images(self.layout) if memory and self.source.rowwise else None
        layout = replace(self.layout, images=None)
        with torch.no_grad():
            return _averaged(
                self.network,
                self.images,
                inference.views,
                inference.statistics,
                params,
                memory=kept,
                layout=layout,
                carried=self.carried,
            )

    def gradient(self, layout: Flat, flat: Tensor, memory: Memory) -> tuple[list[Tensor], Tensor | None, list[dict]]:
        """The loss of each episode, the gradient (E, P) of their sum, or None where nothing depends on the parameters."""
        with torch.enable_grad():
            found = self._forward(layout.views(flat), memory)
            losses, notes = [], []
            for context in self._contexts(found):
                loss, note = _episode_loss(self.recipe.losses, context, self.sign)
                losses.append(loss)
                notes.append(note)
            if not any(loss.requires_grad for loss in losses):
                return losses, None, notes
            (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), [flat], allow_unused=True)
        return losses, gradient, notes

    def _forward(self, params: dict[str, Tensor], memory: Memory) -> Pass:
        """One pass over the images and their copies, which are normalised with the images' moments."""
        assert self.recipe.optimisation is not None
        options = {
            "carried": self.carried,
            "record": any(loss.needs_moments for loss in self.recipe.losses),
            "through": self.recipe.optimisation.grad_through_statistics,
        }
        rule = self.recipe.inference.statistics
        if self.source.rowwise:
            return self.network(self.rows, rule, params, layout=self.layout, memory=memory, **options)
        # Some layer cannot tell the rows apart: the images first, then their copies under the same moments.
        images = self.network(self.images, rule, params, **options)
        options |= {"carried": images.used, "record": False}
        copies = [self.network(copy, Carried(), params, **options) for copy in self.copies.values()]
        passes = [images, *copies]
        return replace(
            images,
            scores=torch.cat([one.scores for one in passes]),
            features=torch.cat([one.features for one in passes if one.features is not None]),
        )

    def _contexts(self, found: Pass) -> Iterator[Context]:
        """Cut the rows of one pass into what each episode's losses see."""
        model, size = self.network.model, self.layout.images or 0
        assert is_scoring_model(model) and found.features is not None and self.source.features is not None
        mean, cov, score_std = model.feature_mean, model.feature_cov, model.score_std
        for e, rows in enumerate(
            zip(found.scores.chunk(self.episodes), found.features.chunk(self.episodes), strict=True)
        ):
            own = slice(e * size, (e + 1) * size)
            scores, features = (dict(zip(self.views, part.split(size), strict=True)) for part in rows)
            f0, s0 = self.source.features[own], self.source.scores[own]
            yield Context(
                features=features,
                scores={name: self.sign * part for name, part in scores.items()},
                images={name: part[own] for name, part in self.views.items()},
                pseudo_scores=self.sign * s0,
                feature_mean=f0.mean(0) if mean is None else mean,
                feature_std=(f0.std(0, correction=0) if cov is None else cov.diagonal().sqrt()).clamp_min(1e-6),
                score_std=(s0.std(correction=0) if score_std is None else score_std).clamp_min(1e-6),
                model=model,
                moments={
                    layer: (of_source, Moments(batch.mean[e], batch.var[e]))
                    for layer, (of_source, batch) in found.measured.items()
                },
            )

    def notes(self, final: Pass) -> dict[str, str]:
        """What of the recipe could not reach the model."""
        if self.recipe.inference.statistics.uses_batch and not final.used:
            return {"statistics": "no BatchNorm layer ran in the model's pass: it may normalise by hand"}
        return {}

    def tell(self, steps: _Steps) -> tuple[list[list[dict]], list[dict[str, str]]]:
        """The trace and what was skipped, episode by episode: the numbers leave the device here, together."""
        trace: list[list[dict]] = [[] for _ in range(self.episodes)]
        skipped: list[dict[str, str]] = [{} for _ in range(self.episodes)]
        took = [(active, fine.tolist()) for active, fine in steps.took]
        for e in range(self.episodes):
            if steps.unknown:
                skipped[e]["params"] = f"the model has no parameter '{steps.unknown[0]}'"
            for note in (step[e] for step in steps.notes):
                numbers = {key: float(value) for key, value in note["trace"].items() if key != "scores"}
                trace[e].append(numbers | {"scores": note["trace"]["scores"]})
                skipped[e].update(note["skipped"])
                if not note["depends"] and len(note["skipped"]) < len(self.recipe.losses):
                    skipped[e]["losses"] = (
                        "no loss depends on the adapted parameters: does the model's forward pass run under no_grad?"
                    )
            undone = [i for i, (active, fine) in enumerate(took) if active[e] and not fine[e]]
            if undone:
                skipped[e]["step"] = f"the loss or its gradient was not finite at step {undone[0] + 1}: undone"
        return trace, skipped


def _episode_loss(losses: tuple[PlainLoss, ...], context: Context, sign: float) -> tuple[Tensor, dict]:
    """Weighted sum of one episode's losses; and what the trace shall tell of it."""
    values: dict[str, Tensor] = {}
    for loss in losses:
        name = loss.name
        if name in values or name in ("loss", "scores"):  # two lambdas, or a name that the trace needs itself
            name = f"{name}-{len(values) + 1}"
        values[name] = loss.weight * loss(context)
    total = torch.stack([value.reshape(()) for value in values.values()]).sum()
    trace = {"loss": total.detach(), **{name: value.detach() for name, value in values.items()}}
    trace["scores"] = sign * context.scores["clean"].detach()
    return total, {"trace": trace, "skipped": context.skipped, "depends": total.requires_grad}
