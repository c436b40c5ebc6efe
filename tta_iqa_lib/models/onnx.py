"""A quality model as an ONNX file that still adapts, for the page that scores your own photographs.

ONNX writes a network down as a list of plain operations, which runs without PyTorch: in a browser, too. A usual export
freezes what BatchNorm knows about its data. Here every such layer measures the batch inside the graph, and a second input,
a share α for each layer, says how much of that counts:

    scores = graph(images, alpha)  # alpha = [0.4, 0.4, 0, 0, …] as First(Blend(0.4)); zeros: plain inference
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.overrides import TorchFunctionMode

from ..adaptation.moments import Moments, batch_moments, blend
from ..adaptation.normalisation import batchnorm_layers, normalise
from ..store import atomic_write
from .quality import ScoringModel

OPSET = 18  # the oldest vocabulary of operations that PyTorch's exporter writes: of 2022


class _Adapting(nn.Module):
    """A model with a share for each layer as its second input."""

    def __init__(self, model: ScoringModel):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    def forward(self, images: Tensor, alpha: Tensor) -> Tensor:
        with _Shares(alpha):
            return self.model(images)


class _Shares(TorchFunctionMode):
    """Lets each batch normalisation, in the order in which they run, blend its moments by its own share."""

    def __init__(self, alpha: Tensor):
        super().__init__()
        self.alpha, self.layers = alpha, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (self.normalise if func is batch_norm else func)(*args, **(kwargs or {}))

    def normalise(self, x, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5) -> Tensor:
        alpha = self.alpha[self.layers]
        self.layers += 1
        # A branch of the graph: where alpha is 0 nothing is measured, which takes a third of the time.
        mean, var = torch.cond(alpha > 0, _blended, _source, (x, mean, var, alpha))
        return normalise(x, Moments(mean, var), weight, bias, eps)


def _blended(x: Tensor, mean: Tensor, var: Tensor, alpha: Tensor) -> tuple[Tensor, ...]:
    return tuple(part[0] for part in blend(Moments(mean, var), batch_moments(x), alpha))


def _source(x: Tensor, mean: Tensor, var: Tensor, alpha: Tensor) -> tuple[Tensor, ...]:
    source = Moments(mean, var)
    return tuple(blend(source, source, alpha))  # as they are; of a branch that computes nothing the exporter complains


def export_model(model: ScoringModel, path: str | Path, half: bool = False) -> Path:
    """Write a model with BatchNorm layers as ONNX: "images" (count, 3, H, W) in [0, 1] and "alpha" (layers,) → "scores" (count,).

    H and W are the model's crop; without one, any size. The layers are the model's BatchNorm layers, in the order of the pass.

    Args:
        half: keep matrices in half precision, for a file of half the size. All is still computed in single precision.

    Raises:
        ValueError: the model has no BatchNorm layers.
    """
    if not batchnorm_layers(model):
        raise ValueError("the model has no BatchNorm layers: there is nothing for alpha to share")
    path, side = Path(path), model.crop or 96
    sizes = {0: torch.export.Dim("count", max=4096)}
    if model.crop is None:
        sizes |= {2: torch.export.Dim("height", min=16, max=4096), 3: torch.export.Dim("width", min=16, max=4096)}
    images = torch.linspace(0, 1, 4 * 3 * side * side).view(4, 3, side, side)
    layers = len(batchnorm_layers(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its own insides
        program = torch.onnx.export(
            _Adapting(model),
            (images, torch.full((layers,), 0.5)),
            input_names=["images", "alpha"],
            output_names=["scores"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={"images": sizes, "alpha": {}},
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # traces of the export, a fifth of the file
    file = program.model_proto
    if half:
        _halve(file.graph)
    with atomic_write(path) as partial:
        partial.write_bytes(file.SerializeToString())
    return path


def _halve(graph) -> None:
    """Matrices in half precision, each with a node that casts it back."""
    from onnx import TensorProto, helper, numpy_helper

    for kept in graph.initializer:
        if kept.data_type != TensorProto.FLOAT or len(kept.dims) < 2:
            continue
        values = numpy_helper.to_array(kept).astype(np.float16)
        if np.isfinite(values).all():
            name = f"{kept.name}.half"
            graph.node.insert(0, helper.make_node("Cast", [name], [kept.name], to=TensorProto.FLOAT))
            kept.CopyFrom(numpy_helper.from_array(values, name))
