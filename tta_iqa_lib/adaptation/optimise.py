"""The steps of the optimiser on one pass of episodes.

All that is adapted lies in one flat tensor, (E, P): a row an episode. The passes see views of it, the optimiser sees one
parameter, and a step that is not finite is undone for its episode alone, without asking the device.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from .normalisation import batchnorm_layers
from .state import Optimisation, State


@dataclass(frozen=True)
class Flat:
    """Parameters of E episodes in one tensor (E, P).

    Attributes:
        shapes: of the parameters, by full name.
        types: what each is turned into for a pass.
    """

    shapes: dict[str, torch.Size]
    types: dict[str, torch.dtype]

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """(E, P) → {name: (E, …), or as the model has it where E = 1}."""
        sizes = [prod(shape) for shape in self.shapes.values()]
        parts = flat.split(sizes, 1)  # one node of the graph, whose gradient is one concatenation
        lead = (len(flat),) if len(flat) > 1 else ()
        return {
            name: part.reshape((*lead, *shape)).to(self.types[name])
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }


def starting_point(model: nn.Module, state: State, picked: Mapping[str, Tensor], episodes: int) -> tuple[Flat, Tensor]:
    """Where the steps start: the state's parameters, or the model's, for each episode; in single precision at least.

    Raises:
        ValueError: parameters that cannot differ between episodes of one pass.
    """
    of_batchnorm = {f"{layer}.{key}".lstrip(".") for layer in batchnorm_layers(model) for key in ("weight", "bias")}
    if episodes > 1 and not of_batchnorm.issuperset(picked):
        raise ValueError("only γ and β of BatchNorm can differ between episodes of one pass: use episodes_per_pass=1")
    start = {name: state.params.get(name, parameter).detach() for name, parameter in picked.items()}
    wide = torch.promote_types(torch.float32, next(iter(start.values())).dtype)
    shapes = {name: parameter.shape for name, parameter in picked.items()}
    # γ and β of BatchNorm meet their layer in full precision; other layers want their own type.
    types = {name: wide if name in of_batchnorm else parameter.dtype for name, parameter in picked.items()}
    flat = torch.cat([tensor.reshape(-1).to(wide) for tensor in start.values()])
    return Flat(shapes, types), flat.expand(episodes, -1).clone().requires_grad_()


def make_optimizer(recipe: Optimisation, flat: Tensor, state: State) -> torch.optim.Optimizer:
    """The recipe's optimiser, with the memory that a stream carries on."""
    # On a GPU the count of steps lies there, too, so that a recording can hold it.
    make = recipe.optimizer or (lambda tensors: torch.optim.Adam(tensors, recipe.lr, capturable=tensors[0].is_cuda))
    optimizer = make([flat])
    if state.optimizer:
        optimizer.load_state_dict(copy.deepcopy(state.optimizer))  # its steps write into what they are given
    return optimizer


def guarded_step(optimizer: torch.optim.Optimizer, flat: Tensor, gradient: Tensor, fine: Tensor) -> Tensor:
    """One step; where it cannot be taken, or leads to what is not finite, parameters and memory stay as they were.

    Args:
        flat, gradient: (E, P). fine: (E,), may the episode take a step?

    Returns:
        (E,), which episodes took it.
    """
    fine = fine & gradient.isfinite().all(1)
    memory = [tensor for slot in optimizer.state.values() for tensor in slot.values() if isinstance(tensor, Tensor)]
    before = flat.detach().clone()
    remembered = {id(tensor): tensor.clone() for tensor in memory}
    flat.grad = torch.where(fine[:, None], gradient, 0)
    optimizer.step()
    with torch.no_grad():
        fine = fine & flat.isfinite().all(1)
        flat.copy_(torch.where(fine[:, None], flat, before))
        for tensor in (t for slot in optimizer.state.values() for t in slot.values() if isinstance(t, Tensor)):
            old = remembered.get(id(tensor), tensor.new_zeros(()))  # a memory that this step began was empty before
            shared = tensor.shape != flat.shape  # a count of steps
            tensor.copy_(torch.where(fine.any() if shared else fine[:, None], tensor, old))
    return fine


def uphill(flat: Tensor, gradient: Tensor, radius: float) -> Tensor:
    """Where the loss is worst within a small ball around each episode's parameters, to first order [foret2021sam]."""
    length = torch.linalg.vector_norm(gradient, dim=1, keepdim=True).clamp_min(1e-12)  # (E, 1)
    return (flat + radius * gradient / length).detach().requires_grad_()
