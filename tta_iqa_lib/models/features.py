"""Where a network of somebody else's has its features: what goes into its last linear layer (chapter 11)."""

from __future__ import annotations

from threading import get_ident
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# The name of the last linear layer that ran, by network, once it has been found: then one hook will do.
_LAST: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def run_with_features(module: nn.Module, layer: str | None, inputs: Tensor) -> tuple[object, Tensor]:
    """The module's output on B inputs, and features (B, D). The module keeps no trace of it. Chapter 11.

    Args:
        layer: name of the layer whose output, flattened, is the features. None: what goes into the last linear layer that
            runs; in a network without one, what goes into the last convolution, averaged over its positions.

    Raises:
        RuntimeError: the layer did not run, or gave no tensor of rows for each input.
    """
    thread, caught, watched = get_ident(), [], _watched(module, layer)

    def catch(name: str):
        def hook(_module, args, *output) -> None:
            values = output[0] if layer is not None else args[0] if args else None
            if get_ident() == thread:  # another thread may use the module at the same time
                caught.append((name, values))

        return hook

    register = "register_forward_pre_hook" if layer is None else "register_forward_hook"
    handles = [getattr(part, register)(catch(name)) for name, part in watched.items()]  # for the time of one call
    try:
        output = module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    name, values = caught[-1] if caught else (layer, None)
    if not isinstance(values, Tensor):
        raise RuntimeError(
            f"the feature layer '{name}' gave no tensor in this forward pass; pass features= another one"
        )
    if layer is None:
        _LAST[module] = name
        values = _vectors(values, isinstance(watched[name], nn.Conv2d))
    if len(values) % len(inputs):
        raise RuntimeError(
            f"the layer '{name}' sees {len(values)} rows for {len(inputs)} images: no features; pass features= another layer"
        )
    if len(values) != len(inputs):  # crops or patches, image by image: their mean
        return output, values.flatten(1).unflatten(0, (len(inputs), -1)).mean(1)
    return output, values.flatten(1)


def _watched(module: nn.Module, layer: str | None) -> dict[str, nn.Module]:
    """The layers to listen to, by name."""
    name = layer if layer is not None else _LAST.get(module)
    if name is not None:
        return {name: module.get_submodule(name)}
    parts = dict(module.named_modules())
    # What is compiled may be a regressor as well; there is no looking into it.
    found = {
        name: part for name, part in parts.items() if isinstance(part, (nn.Linear, torch.jit.ScriptModule)) and name
    }
    found = {name: part for name, part in found.items() if not _inside_script(parts, name)}
    found = found or {name: part for name, part in parts.items() if isinstance(part, nn.Conv2d)}
    if not found:
        raise RuntimeError(f"{type(module).__name__} has neither a linear layer nor a convolution; pass features=")
    return found


def _inside_script(parts: dict[str, nn.Module], name: str) -> bool:
    return isinstance(parts[name.rpartition(".")[0]], torch.jit.ScriptModule)


def _vectors(values: Tensor, convolution: bool) -> Tensor:
    """(R, D) of the input of a layer: the mean over positions, or over the tokens between rows and channels."""
    if convolution:
        return values.flatten(2).mean(2)
    return values.flatten(1, -2).mean(1) if values.ndim > 2 else values
