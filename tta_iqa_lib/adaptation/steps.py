"""The optimiser's steps over a batch of episodes, and what there is to tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .episodes import EpisodeBatch
from .optimise import guarded_step, make_optimizer, starting_point, uphill
from .state import State
from .stateless import Memory


@dataclass
class Steps:
    """What the steps gave.

    Attributes:
        params: by name. initial: scores before the first step, (E·B,).
        notes: of each step, what `episode_loss` noted of each episode.
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

    def flat_notes(self) -> list[dict]:
        """What was noted, step by step and within a step episode by episode."""
        return [note for step in self.notes for note in step]

    def numbers(self) -> list[Tensor]:
        """All that leaves the device to be told: the losses' values as `flat_notes` has them, then who took each step."""
        losses = [value for note in self.flat_notes() for name, value in note["trace"].items() if name != "scores"]
        return losses + [fine for _, fine in self.took]

    def tell(self, batch: EpisodeBatch, told: Iterator[float]) -> tuple[list[list[dict]], list[dict[str, str]]]:
        """The trace and what was skipped, episode by episode.

        Args:
            told: the values of `numbers()`.
        """
        trace: list[list[dict]] = [[] for _ in range(batch.episodes)]
        skipped: list[dict[str, str]] = [{} for _ in range(batch.episodes)]
        traces = [
            {name: value if name == "scores" else next(told) for name, value in note["trace"].items()}
            for note in self.flat_notes()
        ]
        took = [active for active, _ in self.took]
        fine = [[next(told) > 0 for _ in active] for active in took]
        for e in range(batch.episodes):
            if self.unknown:
                skipped[e]["params"] = f"the model has no parameter '{self.unknown[0]}'"
            trace[e] = traces[e :: batch.episodes]
            for note in (step[e] for step in self.notes):
                skipped[e].update(note["skipped"])
                if not note["depends"] and len(note["skipped"]) < len(batch.recipe.losses):
                    skipped[e]["losses"] = (
                        "no loss depends on the adapted parameters: does the model's forward pass run under no_grad?"
                    )
            undone = [i for i, active in enumerate(took) if active[e] and not fine[i][e]]
            if undone:
                skipped[e]["step"] = f"the loss or its gradient was not finite at step {undone[0] + 1}: undone"
        return trace, skipped


def optimise(batch: EpisodeBatch, state: State) -> Steps:
    """Minimise the losses of all episodes, each over parameters of its own. Asks the device for no value."""
    recipe = batch.recipe.optimisation
    found = Steps(dict(state.params))
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
