"""The ONNX file computes what the library computes: with the source's moments, and with a share of the batch's."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from helpers import pictures, seeded, tiny_model

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Stateless
from tta_iqa_lib.adaptation.normalisation import batchnorm_layers
from tta_iqa_lib.models.onnx import export_model
from tta_iqa_lib.models.quality import QualityModel


def run(path, images, alpha: float | list[float]) -> torch.Tensor:
    """With one share for all layers, or one for each."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    layers = session.get_inputs()[1].shape
    feeds = {"images": images.numpy(), "alpha": np.broadcast_to(np.float32(alpha), layers)}
    return torch.from_numpy(session.run(["scores"], feeds)[0])


@pytest.fixture(scope="module")
def source():
    return tta.load_source_model()


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    return export_model(source, tmp_path_factory.mktemp("onnx") / "new" / "model.onnx")


@pytest.mark.parametrize("count", [1, 7])
def test_at_zero_it_is_plain_inference(source, exported, count):
    images = pictures(count, 96)
    with torch.no_grad():
        expected = source(images)
    torch.testing.assert_close(run(exported, images, 0.0), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_share_of_the_batch_is_the_exact_blend(source, exported, alpha):
    images = 0.3 * pictures(5, 96, seed=1)  # dark: far from the source
    with torch.no_grad():
        expected = Stateless(source)(images, tta.Blend(alpha)).scores
    scores = run(exported, images, alpha)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    assert (scores - run(exported, images, 0.0)).abs().max() > 0.05  # the share matters


def test_the_first_layers_may_adapt_alone(source, exported):
    images, layers = 0.3 * pictures(5, 96, seed=1), len(batchnorm_layers(source))
    with torch.no_grad():
        expected = Stateless(source)(images, tta.First(tta.Blend(0.5), 0.4)).scores
    scores = run(exported, images, [0.5 * (i / layers < 0.4) for i in range(layers)])
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    assert (scores - run(exported, images, 0.5)).abs().max() > 0.01


def test_in_half_precision_the_file_is_half_as_large_and_computes_the_same(source, exported, tmp_path):
    """The weights are rounded, nothing else: as PyTorch with the same rounded weights."""
    path, images = export_model(source, tmp_path / "half.onnx", half=True), pictures(3, 96)
    assert path.stat().st_size < 0.6 * exported.stat().st_size
    rounded = copy.deepcopy(source)
    for parameter in rounded.parameters():
        if parameter.ndim > 1:
            parameter.copy_(parameter.half().float())
    with torch.no_grad():
        expected = Stateless(rounded)(images, tta.Blend(0.5)).scores
    torch.testing.assert_close(run(path, images, 0.5), expected, atol=1e-5, rtol=0)


def test_a_model_without_a_crop_takes_any_size(tmp_path):
    model = tiny_model(higher_is_better=True)
    path = export_model(model, tmp_path / "tiny.onnx")
    for size in (32, 45):
        images = pictures(3, size)
        with torch.no_grad():
            expected = Stateless(model)(images, tta.Blend(0.3)).scores
        torch.testing.assert_close(run(path, images, 0.3), expected, atol=1e-4, rtol=0)


def test_runtimes_of_the_last_years_can_read_the_file(exported):
    file = onnx.load(exported)
    assert file.opset_import[0].version <= 18 and file.ir_version <= 10


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "regnetx_002"])
def test_any_backbone_goes_into_the_page(name, tmp_path):
    """Layers that carry an activation of their own among them."""
    body = seeded(lambda: timm.create_model(name, num_classes=0)).eval()
    model = QualityModel(body, seeded(lambda: torch.nn.Linear(body.num_features, 1)), crop=64).eval()
    path, images = export_model(model, tmp_path / "model.onnx"), 0.3 * pictures(3, 64)
    for alpha in (0.0, 0.6):
        with torch.no_grad():
            expected = Stateless(model)(images, tta.Blend(alpha)).scores
        torch.testing.assert_close(run(path, images, alpha), expected, atol=1e-3, rtol=1e-3)


def test_a_model_without_batchnorm_is_an_error_that_says_so(tmp_path):
    model = QualityModel(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1)), torch.nn.Linear(4, 1)
    )
    with pytest.raises(ValueError, match="no BatchNorm layers"):
        export_model(model, tmp_path / "none.onnx")
