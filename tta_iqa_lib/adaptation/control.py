"""Put a rule in charge of a model's BatchNorm layers, for the time of a block (chapter 5).

The user's layers are never written to: inside `controlled(model, rule)` each layer's computation is replaced, and comes
back as it was when the block ends, whatever happens in it. `.train()` and `.eval()` make no difference inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn, rsqrt
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from .moments import Measured, Moments, batch_moments, measure
from .rules import Batch, Statistics

NORM_LAYERS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def batchnorm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers of a model by name, in order."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}


def norm_affine(model: nn.Module) -> dict[str, nn.Parameter]:
    """γ and β of every normalisation layer, by their full names: what TENT-like methods adapt [wang2021tent]."""
    return {
        f"{name}.{key}" if name else key: parameter
        for name, layer in model.named_modules()
        if isinstance(layer, NORM_LAYERS)
        for key, parameter in layer.named_parameters(recurse=False)
    }


@dataclass
class Control:
    """What `controlled` hands out: how the rows of the next forward pass are laid out, and what was used in the last.

    Attributes:
        statistics: the rule; `rules`: what it says for each layer, by name.
        through: do gradients flow through the batch's moments?
        episodes, clean: the rows are E episodes, one after the other; in each, the first `clean` rows are the test images
            that moments come from (None: all rows), the rest copies of them that are normalised alike.
        crops: so many consecutive rows show parts of one picture (see `measure`).
        previous: moments that a stream carries on, by layer name.
        used: moments of the last forward pass, by layer name, (E, C) each.
        record: keep what is measured of the clean images, too, gradients included (some losses and gates ask for it).
        measured: (source moments, `Measured`) of the last forward pass with `record`, by layer name.
    """

    statistics: Statistics
    through: bool = False
    rules: dict[str, Statistics] = field(default_factory=dict)
    episodes: int = 1
    clean: int | None = None
    crops: int = 1
    previous: dict[str, Moments] = field(default_factory=dict)
    used: dict[str, Moments] = field(default_factory=dict)
    record: bool = False
    measured: dict[str, tuple[Moments, Measured]] = field(default_factory=dict)

    def normalise(self, name: str, layer: _BatchNorm, x: Tensor) -> Tensor:
        """The replaced computation of one layer. γ and β may be (C,), or (E, C): one row an episode."""
        source, rule = Moments(layer.running_mean, layer.running_var), self.rules[name]
        moments, count = source, 0
        record = self.record and source.mean is not None  # without running statistics there is no displacement
        if rule.uses_batch or record:
            clean = x
            if self.clean is not None:
                clean = x.unflatten(0, (self.episodes, -1))[:, : self.clean].flatten(0, 1)
            count = len(clean) // self.episodes
            clean = clean if self.through or record else clean.detach()
            needs_error = rule.uses_error or record
            batch = measure(clean, self.episodes, self.crops) if needs_error else batch_moments(clean, self.episodes)
            if record:
                self.measured[name] = source, batch
            if not self.through:
                batch = type(batch)(*(part.detach() for part in batch))
            moments = Moments(*rule(source, batch, self.previous.get(name, source), count)[:2])
        mean, var = (m.expand(self.episodes, -1) for m in moments)
        self.used[name] = Moments(mean.detach(), var.detach())
        weight, bias = layer.weight, layer.bias
        shared = self.episodes == 1 or (moments.mean.ndim == 1 and (weight is None or weight.ndim == 1))
        if shared and not mean.requires_grad:  # PyTorch's own kernel: bit for bit plain inference at the source
            weight, bias = (None if p is None else p.reshape(-1) for p in (weight, bias))
            return batch_norm(x, mean[0], var[0], weight, bias, False, 0.0, layer.eps)
        scale = rsqrt(var + layer.eps)
        scale = scale if weight is None else scale * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        shape = (self.episodes, 1, -1) + (1,) * (x.ndim - 2)
        rows = x.unflatten(0, (self.episodes, -1))
        return (rows * scale.to(x.dtype).view(shape) + shift.to(x.dtype).view(shape)).flatten(0, 1)


@contextmanager
def controlled(model: nn.Module, statistics: Statistics, through: bool = False) -> Iterator[Control]:
    """Run `model` under a statistics rule, in evaluation mode; afterwards it is exactly as before.

    Example::

        with controlled(model, Blend(0.7)):
            scores = model(images)  # moments: 0.7 of this batch, 0.3 of the source

    Raises:
        ValueError: the rule needs BatchNorm layers, or running statistics, that the model does not have.
    """
    layers = batchnorm_layers(model)
    if statistics.uses_batch and not layers:
        raise ValueError(f"{statistics} needs BatchNorm layers, and this model has none: use statistics=Source()")
    without = [name for name, layer in layers.items() if layer.running_mean is None]
    if without and not isinstance(statistics, Batch):
        raise ValueError(
            f"layer '{without[0]}' keeps no running statistics (track_running_stats=False): use statistics=Batch()"
        )
    rules = {name: statistics.at(i / len(layers)) for i, name in enumerate(layers)}
    control = Control(statistics, through, rules)
    modes = [(module, module.training) for module in model.modules()]
    replaced: list[tuple[nn.Module, object]] = []
    try:
        for module, _ in modes:
            module.training = False
        for name, layer in layers.items():
            replaced.append((layer, layer.__dict__.get("forward")))
            layer.forward = partial(control.normalise, name, layer)
        yield control
    finally:
        for layer, before in replaced:
            layer.__dict__.pop("forward", None)
            if before is not None:
                layer.forward = before
        for module, training in modes:
            module.training = training
