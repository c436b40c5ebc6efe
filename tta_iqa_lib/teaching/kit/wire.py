"""Values that go between the grader and a student's function: JSON for the structure, safetensors for the numbers (all chapters).

Never pickle: what comes from a student's process is data, and reading it runs none of the student's code.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

PLAIN = (bool, int, float, str, type(None))
DEEPEST = 8  # levels of lists in lists
TOO_DEEP = f"lists more than {DEEPEST} levels deep"
NO_NUMBERS = "an array that holds no numbers"


def encode(value: Any) -> tuple[bytes, bytes, list[Tensor]]:
    """A value as two messages, structure and numbers; and its tensors that carry a gradient, in their order.

    Args:
        value: numbers, strings, None, ..., tensors, arrays; lists, tuples and dictionaries of such.

    Raises:
        TypeError: something else; the message names its type.
    """
    tensors: dict[str, Tensor] = {}
    leaves: list[Tensor] = []
    structure = _pack(value, tensors, leaves, 0)
    return json.dumps(structure).encode(), save(tensors), leaves


def decode(structure: bytes, numbers: bytes) -> tuple[Any, list[Tensor]]:
    """The value that `encode` was given, and its tensors that carried a gradient, as fresh leaves.

    Raises:
        ValueError: these are no such messages.
    """
    try:
        leaves: list[Tensor] = []
        return _unpack(json.loads(structure), load(numbers), leaves), leaves
    except Exception as error:  # whatever a hostile message makes of the readers
        raise ValueError("the answer cannot be read") from error


def _pack(value: Any, tensors: dict[str, Tensor], leaves: list[Tensor], depth: int) -> Any:
    if depth > DEEPEST:
        raise TypeError(TOO_DEEP)
    if type(value) in PLAIN:
        return value
    if isinstance(value, np.generic):
        return value.item()
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        name = str(len(tensors))
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            raise TypeError(NO_NUMBERS)
        plain = value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
        tensors[name] = plain.contiguous().clone()
        if isinstance(value, Tensor) and value.requires_grad:
            leaves.append(value)
            return {kind: name, "grad": True}
        return {kind: name}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, tensors, leaves, depth + 1) for item in value]}
    if isinstance(value, dict) and all(type(key) in PLAIN for key in value):
        return {"dict": [[key, _pack(item, tensors, leaves, depth + 1)] for key, item in value.items()]}
    raise TypeError(type(value).__name__)


def _unpack(value: Any, tensors: dict[str, Tensor], leaves: list[Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "ellipsis" in value:
        return ...
    if "tensor" in value:
        tensor = tensors[value["tensor"]]
        if value.get("grad"):
            leaves.append(tensor.requires_grad_())
        return tensor
    if "array" in value:
        return tensors[value["array"]].numpy()
    if "dict" in value:
        return {key: _unpack(item, tensors, leaves) for key, item in value["dict"]}
    items = [_unpack(item, tensors, leaves) for item in value["list" if "list" in value else "tuple"]]
    return items if "list" in value else tuple(items)
