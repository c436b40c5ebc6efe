"""The normalisation layers of a model, and the one computation that `Stateless` puts in BatchNorm's place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn, rsqrt
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ..imaging.checks import check_number
from .moments import Moments

NORM_LAYERS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, _InstanceNorm)


def batchnorm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers of a model by name, in the order in which they are registered."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}


def norm_affine(model: nn.Module) -> dict[str, nn.Parameter]:
    """γ and β of every normalisation layer, by their full names: what TENT-like methods adapt [wang2021tent]."""
    return {
        f"{name}.{key}" if name else key: parameter
        for name, layer in model.named_modules()
        if isinstance(layer, NORM_LAYERS)
        for key, parameter in layer.named_parameters(recurse=False)
    }


@dataclass(frozen=True)
class LateNormAffine:
    """γ and β of the last `share` of the normalisation layers, in the order of registration; of one layer at least.

    The layers before them are the same at every step, so `adapt_batch` runs them once, and keeps no graph of them.
    """

    share: float = 0.5

    def __post_init__(self):
        check_number("share", self.share, 0, 1, above=True)

    def __call__(self, model: nn.Module) -> dict[str, nn.Parameter]:
        found = norm_affine(model)
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in found))
        late = set(layers[-max(1, round(self.share * len(layers))) :])
        return {name: parameter for name, parameter in found.items() if name.rpartition(".")[0] in late}


def normalise(x: Tensor, moments: Moments, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """γ (x − μ) / √(v + ε) + β.

    Args:
        x: (E·R, C, …), E episodes of R rows.
        moments: (C,) for all rows, or (E, C): one row an episode.
        weight, bias: γ and β, (C,) or (E, C), or None.
    """
    mean, var = moments
    if weight is not None and weight.dtype != mean.dtype:  # in single precision where one is
        wide = torch.promote_types(mean.dtype, weight.dtype)
        mean, var = mean.to(wide), var.to(wide)
        weight, bias = (None if p is None else p.to(wide) for p in (weight, bias))
    episodes = max(p.shape[0] if p.ndim == 2 else 1 for p in (mean, var, weight, bias) if p is not None)
    if episodes == 1 and not moments.mean.requires_grad:
        # PyTorch's own kernel: with the source's moments bit for bit plain inference.
        weight, bias = (p if p is None or p.ndim == 1 else p.reshape(-1) for p in (weight, bias))
        return batch_norm(x, mean.reshape(-1), var.reshape(-1), weight, bias, False, 0.0, eps)
    if x.is_cuda and not moments.mean.requires_grad:  # the same kernel, episode by episode: it moves the least memory
        every = [
            (None,) * episodes if p is None else p.expand(episodes, -1).unbind() for p in (mean, var, weight, bias)
        ]
        parts = [
            batch_norm(rows, m, v, w, b, False, 0.0, eps)
            for rows, m, v, w, b in zip(x.chunk(episodes), *every, strict=True)
        ]
        return torch.cat(parts)
    scale = rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (episodes if scale.ndim == 2 else 1, 1, -1) + (1,) * (x.ndim - 2)
    rows = x.unflatten(0, (episodes, -1))  # (E, R, C, …)
    return torch.addcmul(shift.view(shape), rows, scale.view(shape)).flatten(0, 1).to(x.dtype)
