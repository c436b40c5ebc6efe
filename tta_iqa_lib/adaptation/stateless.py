"""A forward pass as a value: parameters and rows in, scores, features and moments out.

PyTorch gives two ways to compute with other parameters or other statistics than a module holds: change it and change it back, or
intercept what it computes. The first leaves traces when two threads share a module, when it is interrupted, or when a
layer is reachable under two names. Here the tree of modules is copied, which takes microseconds a module, while all tensors are
shared; in the copy BatchNorm asks a rule for its moments. The user's module is never written to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .moments import Moments, batch_moments, image_moments, measured, measured_together, pooled
from .normalisation import batchnorm_layers, normalise
from .passes import Layout, Memory, Pass
from .rules import Source, Statistics
from .shadow import Shadow


@dataclass
class _Now:
    """The pass that is being computed."""

    rules: Mapping[str, Statistics]
    layout: Layout
    carried: Mapping[str, Moments]
    record: bool
    through: bool
    rows: int
    memory: Memory | None
    used: dict[str, Moments] = field(default_factory=dict)
    seen: dict[str, tuple[Moments, tuple[Tensor, Tensor, int]]] = field(default_factory=dict)
    rowwise: bool = True
    place: tuple = ()
    calls: dict[tuple, int] = field(default_factory=dict)


class Stateless:
    """A model whose parameters and statistics are arguments.

    Example::

        network = Stateless(model)
        scores = network(images, Blend(0.7)).scores  # moments: 0.7 of this batch, 0.3 of the source
        again = network(images, Blend(0.7), {"features.1.weight": gamma}).scores

    It always computes as in evaluation mode, whatever the modes of the model's parts, and keeps nothing of a pass. Use one
    from one thread at a time; several may stand on one model.

    Args:
        model: a scoring model, or any module (its `Pass` then has no features). Never changed.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.order: tuple[str, ...] | None = None  # BatchNorm layers in the order in which they run, after a first pass
        self._now: _Now | None = None

    @cached_property
    def layers(self) -> dict[str, _BatchNorm]:
        """The BatchNorm layers, in the order of registration."""
        return batchnorm_layers(self.model)

    @cached_property
    def _shadow(self) -> Shadow:  # made at the first pass: where recordings are replayed there is none
        return Shadow(self.model, self._normalise, self._remember)

    def close(self) -> None:
        """Free the copy now; a next pass makes a new one."""
        if shadow := self.__dict__.pop("_shadow", None):
            shadow.close()

    @property
    def module(self) -> nn.Module:
        """The copy that computes, which belongs to this object."""
        return self._shadow.module

    def __call__(
        self,
        rows: Tensor,
        statistics: Statistics | None = None,
        params: Mapping[str, Tensor] | None = None,
        *,
        layout: Layout | None = None,
        carried: Mapping[str, Moments] | None = None,
        record: bool = False,
        through: bool = False,
        memory: Memory | None = None,
    ) -> Pass:
        """One pass over rows (E·R, 3, H, W).

        Args:
            statistics: the rule of the BatchNorm layers; None: plain inference.
            params: tensors in place of the model's, by full name; γ and β of BatchNorm may be (E, C), a row an episode.
            layout: how the rows are laid out; None: one episode of images.
            carried: moments of the batch before, by layer; those of a stream.
            record: measure the images' moments, whatever the rule, gradients included.
            through: let gradients flow through the batch's moments.
            memory: fills it, or saves what it holds.

        Raises:
            ValueError: the rule needs BatchNorm layers, or running statistics, that the model does not have; unknown names;
                or a layer sees other rows than the layout says.
        """
        statistics = Source() if statistics is None else statistics
        self._check(statistics)
        layout = layout or Layout()
        now = _Now(self._rules(statistics, rows), layout, carried or {}, record, through, rows.shape[0], memory)
        self._now, scoring = now, hasattr(self.model, "higher_is_better")
        try:
            with self._shadow.holding(params or {}) as module:
                # A copy of the rows: a model may change its input in place.
                output = module(rows.clone(), with_features=True) if scoring else module(rows.clone())
        finally:
            self._now = None
        used, seen = now.used, measured_together([seen for _, seen in now.seen.values()])
        found = {name: (source, batch) for (name, (source, _)), batch in zip(now.seen.items(), seen, strict=True)}
        if memory is not None:
            if memory.open:
                memory.close(used, found)
            else:
                used, found = memory.used | used, memory.measured | found
        scores, features = output if scoring else (output, None)
        if self.order is None:
            self.order = tuple(used)
        return Pass(scores, features, used, found, now.rowwise)

    def _check(self, statistics: Statistics) -> None:
        scripted = _scripted_batchnorm(self.model) if statistics.uses_batch else None
        if scripted is not None:
            raise ValueError(
                f"layer '{scripted}' is compiled by TorchScript, where {statistics} cannot reach it: "
                "take the Python module that was compiled, or statistics=Source()"
            )
        if statistics.uses_batch and not self.layers:
            raise ValueError(f"{statistics} needs BatchNorm layers, and this model has none: use statistics=Source()")
        without = [name for name, layer in self.layers.items() if layer.running_mean is None]
        if without and not statistics.without_source:
            raise ValueError(
                f"layer '{without[0]}' keeps no running statistics (track_running_stats=False): use statistics=Batch()"
            )

    def _rules(self, statistics: Statistics, rows: Tensor) -> dict[str, Statistics]:
        """What the rule says for each layer; "first" means first in the pass, which may have to be found out."""
        if type(statistics).at is Statistics.at:
            return dict.fromkeys(self.layers, statistics)
        if self.order is None:
            with torch.no_grad():
                self(rows[:1])
        order = self.order or ()
        return {name: statistics.at(i / len(order)) for i, name in enumerate(order)}

    def _remember(self, module: nn.Module, forward, *args, **kwargs):
        """Run a module, or take its output from the memory."""
        now = self._now
        if now is None or now.memory is None:
            return forward(*args, **kwargs)
        above, key = now.place, (now.place, id(module))
        now.calls[key] = count = now.calls.get(key, 0) + 1
        place = (*above, (id(module), count))
        if place in now.memory.kept:
            return now.memory.kept[place][0]
        now.place = place
        try:
            output = forward(*args, **kwargs)
        finally:
            now.place = above
        constant = isinstance(output, Tensor) and not output.requires_grad and output.shape[:1] == (now.rows,)
        known = now.memory.open and torch.is_grad_enabled() and constant and output.ndim > 1
        if known and not _hooked_inside(module):
            inner = [other for other in now.memory.kept if other[: len(place)] == place]
            for other in inner:
                del now.memory.kept[other]
            now.memory.kept[place] = output, output._version
        return output

    def _normalise(self, name: str, layer: _BatchNorm, copy: _BatchNorm, x: Tensor) -> Tensor:
        """In place of the layer's own computation."""
        now = self._now
        assert now is not None
        source, rule, layout = _kept_moments(copy), now.rules.get(name, Source()), now.layout
        if x.shape[0] != now.rows:
            now.rowwise = False
            if layout.episodes > 1 or layout.images is not None:
                raise ValueError(
                    f"layer '{name}' sees {x.shape[0]} rows for {now.rows} images: episodes and copies cannot share a pass"
                )
        kept = source if now.record else None  # without running statistics there is no shift to measure
        seen, images, crops = None, x, layout.crops if x.shape[0] == now.rows else 1
        if rule.uses_batch or kept or source is None:
            if layout.images is not None:
                images = x.unflatten(0, (layout.episodes, -1))[:, : layout.images].flatten(0, 1)  # (E·B, C, …)
            images = images if now.through or kept else images.detach()
            if kept or rule.uses_error:
                seen = image_moments(images, layout.episodes)
        if kept and seen:
            now.seen[name] = kept, (*seen, crops)
        if rule.uses_batch or source is None:
            if seen is None:
                batch = batch_moments(images, layout.episodes)
            else:
                batch = measured(*seen, crops) if rule.uses_error else pooled(*seen)
            if not now.through:
                batch = type(batch)(*(part.detach() for part in batch))
            count = layout.images or now.rows // layout.episodes
            own = Moments(*batch[:2])
            if not rule.uses_batch:
                moments = own
            else:
                known = source or own
                moments = Moments(*rule(known, batch, now.carried.get(name, known), count)[:2])
        else:
            moments = Moments(*rule(source, source, now.carried[name], 0)[:2]) if name in now.carried else source
        now.used[name] = moments
        weight, bias = copy.weight, copy.bias
        return normalise(x, moments, weight, bias, layer.eps)  # pyright: ignore[reportArgumentType] (undeclared in torch)


def _kept_moments(layer: _BatchNorm) -> Moments | None:
    """The source's moments; None of a layer without running statistics."""
    mean, var = layer.running_mean, layer.running_var
    return None if mean is None or var is None else Moments(mean, var)


def _scripted_batchnorm(model: nn.Module) -> str | None:
    """The name of a BatchNorm layer that is compiled by TorchScript."""
    for name, part in model.named_modules():
        if isinstance(part, torch.jit.ScriptModule) and "BatchNorm" in getattr(part, "original_name", ""):
            return name
    return None


def _hooked_inside(module: nn.Module) -> bool:
    """Does somebody want to see what a part of it puts out, such as a wrapped model its features?"""
    parts = iter(module.modules())
    next(parts)
    return any(part._forward_hooks or part._forward_pre_hooks for part in parts)
