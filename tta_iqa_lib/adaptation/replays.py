"""The same operations again and again: as they are, or replayed from a recording.

A small batch keeps a GPU busy for less time than Python needs to launch its thousand operations. A CUDA graph launches all of
them at once. What is recorded must do the same operations each time, ask the device for no value on the way and send it none:
the three heavy parts of `adapt_batch`, the source pass, the copies, and the steps with the final pass, are written like that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]
Recorder = Callable[[Function, list[Tensor], list[torch.Generator]], tuple[Any, Callable[[], object]]]


def record_cuda_graph(
    function: Function, inputs: list[Tensor], generators: list[torch.Generator]
) -> tuple[Any, Callable[[], object]]:
    """Outputs of `function(*inputs, *generators)`, and what computes them anew from what then stands in `inputs`.

    A replay draws from the generators as they then are.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # kernels are chosen and memory is found before anything is recorded
            function(*inputs, *generators)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        outputs = function(*inputs, *generators)
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
        self._kept: dict[Hashable, tuple[list[Tensor], list[torch.Generator], Any, Callable[[], object]]] = {}

    def __call__(self, name: Hashable, function: Function, *inputs: Tensor, seeds: Sequence[int] = ()) -> Any:
        """What `function(*inputs)` gives. The next call with the same name and shapes writes over it.

        Args:
            seeds: the function gets, after its inputs, a fresh generator for each of them.
        """
        device = inputs[0].device.type
        half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        key = name, half, tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs)
        if key not in self._kept:
            held, generators = [tensor.clone() for tensor in inputs], _generators(seeds, inputs)
            # Autocast may not keep its copies of the weights: they would be gone at the replay.
            with torch.autocast(device, half or None, enabled=bool(half), cache_enabled=False):
                try:
                    outputs, replay = self.record(function, held, generators)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    raise RuntimeError(
                        "these passes cannot be recorded; a loss, its copies or the model may ask the device for a value: "
                        f"use capture=False ({str(error).splitlines()[0]})"
                    ) from error
            self._kept[key] = held, generators, outputs, replay
        held, generators, outputs, replay = self._kept[key]
        for place, tensor in zip(held, inputs, strict=True):
            place.copy_(tensor)
        for generator, seed in zip(generators, seeds, strict=True):
            generator.manual_seed(seed)
        replay()
        return outputs


def directly(name: Hashable, function: Function, *inputs: Tensor, seeds: Sequence[int] = ()) -> Any:
    """In place of `Replays`: just `function(*inputs)`."""
    return function(*inputs, *_generators(seeds, inputs))


def _generators(seeds: Sequence[int], inputs: Sequence[Tensor]) -> list[torch.Generator]:
    return [torch.Generator(inputs[0].device).manual_seed(seed) for seed in seeds]
