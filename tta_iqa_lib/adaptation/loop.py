"""One batch through test-time adaptation: source pass → gate → copies → optimise → final pass → results.

State in, scores and state out: `adapt_batch` is the whole method. Each pass is a value (see `Stateless`), so there is nothing to
reset, and nothing that an interruption could leave behind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..imaging.checks import check_count, check_images, check_range
from .copies import copy_makers
from .episodes import EpisodeBatch, averaged
from .moments import Moments, layer_shifts
from .protocols import ScoringModel
from .replays import Replays, directly
from .state import Inference, Recipe, Result, State
from .stateless import Layout, Pass, Stateless
from .steps import Steps, optimise


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
        episodes: so many, E.
        run: recordings to replay the passes from, on a GPU; None: compute them as they come.

    Returns:
        E results, and the state after the batch (the one before it where recordings are replayed).

    Raises:
        ValueError: bad images; they cannot be cut into E episodes; or parameters that cannot differ between episodes.
    """
    images = checked(images, model)
    check_count("episodes", episodes, 1)
    if len(images) % episodes:
        raise ValueError(f"{len(images)} images cannot be cut into {episodes} episodes of equal length")
    if episodes > 1 and state != State():
        raise ValueError(f"a state that is carried on goes into one episode; got episodes={episodes}")
    assert isinstance(model, nn.Module)
    inference, size = recipe.inference, len(images) // episodes
    if size % inference.crops_per_image:
        raise ValueError(f"{size} rows are no whole number of pictures of {inference.crops_per_image} crops each")
    run = run if state == State() else None  # a stream's state would have to be recorded, too
    with closing(Stateless(model)) as network:  # taken apart at the end: the garbage collector would cost as much again

        def of_source(images: Tensor) -> tuple[Pass, Tensor | None]:
            found = _source_pass(network, images, inference, episodes)
            return found, layer_shifts([*found.measured.values()]) if found.measured else None

        source, shifts = (run or directly)(("source", inference, episodes), of_source, images)
        results = _source_results(source, shifts, inference, episodes)
        chosen = [e for e, result in enumerate(results) if not _leaves_to_source(inference, result)]
        drafts, after = [results[e] for e in chosen], state
        rules = (inference.statistics, *inference.ensemble)
        if chosen and (recipe.optimisation or any(rule.uses_batch for rule in rules) or state != State()):
            drafts, after = _adapted(
                network, recipe, state, _rows_of(images, chosen, size), source, chosen, drafts, run
            )
        finished = {e: _finished(inference, draft) for e, draft in zip(chosen, drafts, strict=True)}
        return [finished[e] if e in finished else replace(r, decision="source") for e, r in enumerate(results)], after


def _adapted(
    network: Stateless,
    recipe: Recipe,
    state: State,
    images: Tensor,
    source: Pass,
    chosen: list[int],
    results: list[Result],
    run: Replays | None,
) -> tuple[list[Result], State]:
    """What is left to do for the E chosen episodes of B images, (E·B, 3, H, W): copies, steps, final pass."""
    episodes, size = len(results), len(images) // len(results)
    assert source.features is not None
    scores, features = (_rows_of(part, chosen, size) for part in (source.scores, source.features))
    # V = the images and their copies; the rows of a step are (E·V·B, 3, H, W).
    copies = _copies(network, images, recipe, episodes, run or directly)

    def adapt(
        images: Tensor, scores: Tensor, features: Tensor, *rows: Tensor
    ) -> tuple[EpisodeBatch, Steps, Pass, Tensor]:
        of_source = replace(source, scores=scores, features=features)
        named = dict(zip(copies, rows, strict=True))
        batch = EpisodeBatch(network, recipe, images, named, of_source, episodes, state.moments)
        steps, others = optimise(batch, state), batch.others()
        final = batch.score(steps.params, steps.memory)
        if steps.initial is not None:
            steps.initial = batch.combined(steps.initial, others)
        final = replace(final, scores=batch.combined(final.scores, others))
        numbers = [_sound(final, scores, episodes), *steps.numbers()]
        return batch, steps, final, torch.cat([part.reshape(-1) for part in numbers])

    batch, steps, final, numbers = (run or directly)(
        ("steps", recipe, episodes), adapt, images, scores, features, *copies.values()
    )
    told = iter(numbers.tolist())  # the one transfer from the device
    sound = [[next(told) > 0 for _ in FAULTS] for _ in range(episodes)]
    faults = [next((text for text, fine in zip(FAULTS, row, strict=True) if not fine), "") for row in sound]
    drafts, (trace, skips) = [], steps.tell(batch, told)
    for e, (result, scores) in enumerate(zip(results, final.scores.split(size), strict=True)):
        initial = steps.initial[e * size : (e + 1) * size] if steps.initial is not None else scores
        skipped = skips[e] | batch.notes(final)
        if run:  # the next replay writes over what it gave
            scores, initial = scores.clone(), initial.clone()
            trace[e] = [entry | {"scores": entry["scores"].clone()} for entry in trace[e]]
        draft = replace(result, scores=scores, initial_scores=initial, trace=trace[e], skipped=skipped)
        if faults[e]:
            why = skipped | {"scores": f"{faults[e]}: the source's are returned"}
            draft = replace(draft, scores=result.source_scores, skipped=why, decision="source")
        drafts.append(draft)
    if run or (drafts[0].decision == "source" and episodes == 1):  # nothing that follows may rest on it
        return drafts, state
    moments = {name: Moments(*(part.detach() for part in used)) for name, used in final.used.items()}
    return drafts, State(steps.params, moments, steps.optimizer.state_dict() if steps.optimizer else None)


FAULTS = "the adapted scores were not finite", "the statistics were not finite", "the adapted scores were all alike"


def _sound(final: Pass, source: Tensor, episodes: int) -> Tensor:
    """(E, 3): is each episode free of each of the `FAULTS`? `source` are its source scores, (E·B,)."""
    scores, plain = (part.unflatten(0, (episodes, -1)) for part in (final.scores, source))
    wide = [part for moments in final.used.values() for part in moments]
    flat = [part.detach().expand(episodes, -1) for part in wide]
    moments = torch.cat(flat, 1).isfinite().all(1) if flat else plain.new_ones(episodes, dtype=torch.bool)
    spread, wanted = (part.float().std(1, correction=0) for part in (scores, plain))
    told_apart = wanted > 1e-5 * plain.float().abs().amax(1)  # by the source; what is less is rounding
    alike = told_apart & (spread <= 1e-6 * wanted)
    return torch.stack([scores.isfinite().all(1), moments, ~alike], 1)


def _rows_of(rows: Tensor, episodes: list[int], size: int) -> Tensor:
    """The rows of some of the episodes, `size` each."""
    return rows if len(rows) == len(episodes) * size else rows.unflatten(0, (-1, size))[episodes].flatten(0, 1)


def checked(images: Tensor, model) -> Tensor:
    """The images in the model's floating-point type.

    Raises:
        ValueError: not (B, 3, H, W) floating-point values in [0, 1], or on another device than the model.
    """
    check_images(images)
    check_range(images)
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
        return averaged(network, images, inference.views, layout=layout, record=inference.gate is not None)


def _source_results(found: Pass, shifts: Tensor | None, inference: Inference, episodes: int) -> list[Result]:
    """Each episode's result so far, with the measured shift if there is a gate."""
    size = found.scores.shape[0] // episodes
    numbers = [] if shifts is None else shifts.tolist()  # layers × 4 × E; one transfer from the device
    return [
        Result(
            part,
            part,
            part,
            shift={
                layer: ((d[e], n[e]), (s[e], t[e])) for layer, (d, n, s, t) in zip(found.measured, numbers, strict=True)
            },
            pictures=size // inference.crops_per_image,
        )
        for e, part in enumerate(found.scores.clone().split(size))
    ]


def _leaves_to_source(inference: Inference, result: Result) -> bool:
    return inference.gate is not None and inference.gate.early and inference.gate(result) == "source"


def _finished(inference: Inference, result: Result) -> Result:
    """With the scores that the gate chooses, unless the source's have been returned already."""
    if inference.gate is None or result.decision == "source":
        return result
    return result.decided(inference.gate(result))


def _copies(
    network: Stateless, images: Tensor, recipe: Recipe, episodes: int, run: Callable[..., dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The copies that the losses ask for, (E·B, 3, H, W) each, drawn episode by episode from a fresh generator.

    So the same images get the same copies wherever they stand.

    Raises:
        ValueError: two losses make different copies under one name.
    """
    optimisation = recipe.optimisation
    makers = copy_makers(optimisation.losses) if optimisation and optimisation.steps else []
    if not makers or optimisation is None:
        return {}
    sign = 1.0 if network.model.higher_is_better else -1.0

    def of_episode(images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        copies: dict[str, Tensor] = {}
        for maker in makers:
            for name, copy in maker(images, lambda rows: sign * network(rows).scores, generator).items():
                if name in copies or name == "clean":
                    raise ValueError(
                        f"two losses make different copies under the name '{name}': "
                        "give both the same copies=, or rename one"
                    )
                copies[name] = copy
        return copies

    def of_all(images: Tensor, *generators: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            drawn = [of_episode(*some) for some in zip(images.chunk(episodes), generators, strict=True)]
        return {name: torch.cat([copies[name] for copies in drawn]) for name in drawn[0]}

    return run(("copies", recipe, episodes), of_all, images, seeds=[optimisation.seed] * episodes)
