"""The ONNX file computes what the library computes: with the source's moments, and with a share of the batch's."""

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from helpers import pictures, seeded, tiny_model

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Stateless
from tta_iqa_lib.models.onnx import export_model
from tta_iqa_lib.models.quality import QualityModel


def run(path, images, alpha: float) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {"images": images.numpy(), "alpha": np.array(alpha, np.float32)}
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
