"""The same operations again and again: as they are, or replayed from a recording.

A small batch keeps a GPU busy for less time than Python needs to launch its thousand operations. A CUDA graph launches all of
them at once. What is recorded must do the same operations each time and ask the device for no value on the way: the two heavy
parts of `adapt_batch`, the source pass and the steps with the final pass, are written like that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]
Recorder = Callable[[Function, list[Tensor]], tuple[Any, Callable[[], object]]]


def record_cuda_graph(function: Function, inputs: list[Tensor]) -> tuple[Any, Callable[[], object]]:
    """Outputs of `function(*inputs)`, and what computes them anew from what then stands in `inputs`."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # kernels are chosen and memory is found before anything is recorded
            function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function(*inputs)
    return outputs, graph.replay


class Replays:
    """Recordings, by what they compute and the shapes they compute it on.

    A recording reads the model's tensors where they lie: values that are changed in place are seen, tensors that are replaced
    are not. Each keeps the memory that it works in.

    Args:
        record: makes a recording; on another device than CUDA a test may bring its own.
    """

    def __init__(self, record: Recorder = record_cuda_graph):
        self.record = record
        self._kept: dict[Hashable, tuple[list[Tensor], Any, Callable[[], object]]] = {}

    def __call__(self, name: Hashable, function: Function, *inputs: Tensor) -> Any:
        """What `function(*inputs)` gives. The next call with the same name and shapes writes over it."""
        device = inputs[0].device.type
        half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        key = name, half, tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        if key not in self._kept:
            held = [tensor.clone() for tensor in inputs]
            # Autocast may not keep its copies of the weights: they would be gone at the replay.
            with torch.autocast(device, half or None, enabled=bool(half), cache_enabled=False):
                outputs, replay = self.record(function, held)
            self._kept[key] = held, outputs, replay
        held, outputs, replay = self._kept[key]
        for place, tensor in zip(held, inputs, strict=True):
            place.copy_(tensor)
        replay()
        return outputs


def directly(name: Hashable, function: Function, *inputs: Tensor) -> Any:
    """In place of `Replays`: just `function(*inputs)`."""
    return function(*inputs)
