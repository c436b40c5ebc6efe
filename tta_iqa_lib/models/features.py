"""Where a network of somebody else's has its features: what goes into its last linear layer."""

from __future__ import annotations

from threading import get_ident
from weakref import WeakKeyDictionary

from torch import Tensor, nn

# The name of that layer, by network, once it has been found: then one hook will do.
_LAST: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def run_with_features(module: nn.Module, layer: str | None, inputs: Tensor) -> tuple[object, Tensor]:
    """The module's output on B inputs, and features (B, D). The module keeps no trace of it.

    Args:
        layer: name of the layer whose output, flattened, is the features. None: what goes into the last linear layer that
            runs; where none does, what goes into the last convolution, averaged over its positions.

    Raises:
        RuntimeError: the layer did not run, or gave no tensor of rows for each input.
    """
    thread, watched = get_ident(), _watched(module, layer)
    caught: dict[
        bool, tuple[str, Tensor | None]
    ] = {}  # the last linear layer, the last other one: no more is kept alive

    def catch(name: str):
        def hook(part, args, *output) -> None:
            values = output[0] if layer is not None else args[0] if args else None
            if get_ident() == thread:  # another thread may use the module at the same time
                caught[isinstance(part, nn.Linear)] = name, values

        return hook

    register = "register_forward_pre_hook" if layer is None else "register_forward_hook"
    handles = [getattr(part, register)(catch(name)) for name, part in watched.items()]  # for the time of one call
    try:
        output = module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    name, values = caught.get(True) or caught.get(False) or (layer, None)
    if not isinstance(values, Tensor):
        raise RuntimeError(
            f"the feature layer '{name}' gave no tensor in this forward pass; pass features= another one"
        )
    if layer is None and name:
        _LAST[module] = name
        values = _vectors(values, convolution=True not in caught)
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
    found: dict[str, nn.Module] = {
        name: part for name, part in module.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))
    }
    if not found:
        raise RuntimeError(f"{type(module).__name__} has neither a linear layer nor a convolution; pass features=")
    return found


def _vectors(values: Tensor, convolution: bool) -> Tensor:
    """(R, D) of the input of a layer: the mean over positions, or over the tokens between rows and channels."""
    if convolution:
        return values.flatten(2).mean(2)
    return values.flatten(1, -2).mean(1) if values.ndim > 2 else values
