"""A copy of a tree of modules that shares its tensors: what runs in it can differ without touching the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d, _BatchNorm
from torch.overrides import TorchFunctionMode

# Layers whose whole computation is ours; a subclass may do more (timm's adds an activation), so only its core is replaced.
_PLAIN = {layer.forward for layer in (BatchNorm1d, BatchNorm2d, BatchNorm3d)}
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
# Wrappers that decide how a module is run; adapting runs what is inside. (By name: importing the compiler takes a second.)
_INSIDE = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


class Shadow:
    """The tree of a model's modules once more, in evaluation mode, with the same tensors; the model is never written to.

    Args:
        model: any module.
        normalise: (name, layer, copy, x) → what takes the place of a BatchNorm layer's computation.
        call: ``(copy, forward, *args, **kwargs)`` → what a module gives; ``forward(*args, **kwargs)`` computes it.

    Attributes:
        module: the copy of the model.
    """

    def __init__(self, model: nn.Module, normalise: Callable[..., Tensor], call: Callable):
        self._model, self._normalise, self._call = model, normalise, call
        self._copies: dict[int, nn.Module] = {}
        self._places: dict[int, list[tuple[dict, str]]] = {}  # where the copy holds a parameter, by the parameter's id
        self.module = self._copied(model, "")

    @cached_property
    def _parameters(
        self,
    ) -> dict[str, nn.Parameter]:  # a walk through the whole tree, which statistics alone do not need
        return dict(self._model.named_parameters(remove_duplicate=False))

    def close(self) -> None:
        """Take it apart: its parts point at one another, and would stay until the garbage collector comes round."""
        for copy in self._copies.values():
            copy.__dict__.clear()

    @contextmanager
    def holding(self, params: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """The copy, for a while with other tensors in the place of its parameters, by full name.

        Raises:
            ValueError: the model has no parameter of that name.
        """
        unknown = [name for name in params if name not in self._parameters]
        if unknown:
            raise ValueError(f"the model has no parameter '{unknown[0]}'")
        places = [
            (place, key, new) for name, new in params.items() for place, key in self._places[id(self._parameters[name])]
        ]
        held = [(place, key, place[key]) for place, key, _ in places]
        try:
            for place, key, tensor in places:
                place[key] = tensor
            yield self.module
        finally:
            for place, key, tensor in held:
                place[key] = tensor

    def _copied(self, module: nn.Module, name: str) -> nn.Module:
        """A module like this one, with the same tensors, in evaluation mode, whose BatchNorm layers ask `normalise`."""
        if id(module) in self._copies:
            return self._copies[id(module)]
        if isinstance(module, torch.jit.ScriptModule):
            if module.training:
                raise ValueError(
                    "a part of the model is compiled by TorchScript in training mode, and would change as it runs: "
                    "call .eval() on the model first"
                )
            return module
        inside = _INSIDE.get(type(module).__name__)
        copy = _Through(inside) if inside else object.__new__(type(module))
        self._copies[id(module)] = copy
        own: dict[str, Any] = dict(module.__dict__)
        if inside:
            own = copy.__dict__ | {"_modules": {inside: module._modules[inside]}}
        for held in ("_parameters", "_buffers"):  # dictionaries of its own: a forward may assign a buffer
            own[held] = {key: None if tensor is None else _cut_off(tensor) for key, tensor in own[held].items()}
        for key, parameter in module._parameters.items():
            if parameter is not None and not inside:
                self._places.setdefault(id(parameter), []).append((own["_parameters"], key))
        own |= {key: own[key].copy() for key in _HOOKS}  # a wrapper may add one for the time of a call
        own["training"], own["_compiled_call_impl"] = False, None
        forward = own.pop("forward", None) or partial(type(copy).forward, copy)
        copy.__dict__.update(own)
        copy.__dict__["_modules"] = {
            key: None if child is None else self._copied(child, f"{name}.{key}" if name else key)
            for key, child in own["_modules"].items()
        }
        if isinstance(module, _BatchNorm):
            forward = self._batchnorm(name, module, copy, forward)
        copy.__dict__["forward"] = partial(self._call, copy, forward)
        return copy

    def _batchnorm(self, name: str, layer: _BatchNorm, copy: nn.Module, forward):
        ours = partial(self._normalise, name, layer, copy)
        if type(layer).forward in _PLAIN and "forward" not in layer.__dict__:
            return ours

        def within(*args, **kwargs):
            with _Interception(ours, layer.num_batches_tracked):
                return forward(*args, **kwargs)

        return within


def _cut_off(tensor: Tensor) -> Tensor:
    """The same values, cut off from autograd: gradients are for what is adapted only."""
    if tensor.is_inference():  # born in inference mode, and so of no use to a graph
        return tensor.clone()
    return tensor.detach() if tensor.requires_grad else tensor


class _Through(nn.Module):
    """Stands for a wrapper (compiled, parallel) and calls what is inside."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, *args, **kwargs):
        return getattr(self, self.name)(*args, **kwargs)


class _Interception(TorchFunctionMode):
    """Puts a computation in the place of batch normalisation, in this thread alone."""

    def __init__(self, normalise, counter: Tensor | None):
        super().__init__()
        self.normalise, self.counter = normalise, counter

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.nn.functional.batch_norm, torch.batch_norm):
            return self.normalise(args[0] if args else kwargs["input"])
        # A forward that somebody bound to the module while it is in training mode would count this pass.
        if func is Tensor.add_ and args[0] is self.counter:
            return self.counter
        return func(*args, **kwargs)
