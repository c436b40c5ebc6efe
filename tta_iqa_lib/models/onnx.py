"""A quality model as an ONNX file that still adapts, for the page that scores your own photographs.

ONNX writes a network down as a list of plain operations, which runs without PyTorch: in a browser, too. A usual export
freezes what BatchNorm knows about its data. Here every such layer measures the batch inside the graph, and a second input,
a share α for each layer, says how much of that counts:

    scores = graph(images, alpha)  # alpha = [0.4, 0.4, 0, 0, …] as First(Blend(0.4)); zeros: plain inference
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..adaptation.moments import blend
from ..adaptation.normalisation import batchnorm_layers
from ..adaptation.rules import Statistics
from ..adaptation.stateless import Stateless
from ..store import atomic_write
from .quality import ScoringModel

OPSET = 18  # the oldest vocabulary of operations that PyTorch's exporter writes: of 2022


@dataclass(frozen=True)
class _Shares(Statistics):
    """`Blend` with a share for each layer, which are an input of the graph."""

    alpha: Tensor
    layer: int = 0

    def __call__(self, source, batch, previous, count):
        return blend(source, batch, self.alpha[self.layer])

    def at(self, depth: float) -> _Shares:
        return _Shares(self.alpha, round(depth * len(self.alpha)))


class _Adapting(nn.Module):
    def __init__(self, model: ScoringModel, example: Tensor):
        super().__init__()
        self.network = Stateless(copy.deepcopy(model).requires_grad_(False))
        self.module = self.network.module  # the exporter wants to know all modules
        self.network(example)  # now it knows in which order the layers run

    def forward(self, images: Tensor, alpha: Tensor) -> Tensor:
        return self.network(images, _Shares(alpha)).scores


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
    adapting = _Adapting(model, images).eval()
    layers = len(adapting.network.order or ())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter speaks of its own insides
        program = torch.onnx.export(
            adapting,
            (images, torch.full((layers,), 0.5)),
            input_names=["images", "alpha"],
            output_names=["scores"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={"images": sizes, "alpha": {}},
            verbose=False,
        )
    assert program is not None
    file = program.model_proto
    for node in file.graph.node:
        node.ClearField("metadata_props")  # traces of the export, a fifth of the file
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
