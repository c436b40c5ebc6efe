"""The ONNX file computes what the library computes: with the source's moments, and with a share of the batch's."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import pictures, tiny_mixed, tiny_model

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import controlled
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
    with controlled(source, tta.Blend(alpha)), torch.no_grad():
        expected = source(images)
    scores = run(exported, images, alpha)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    assert (scores - run(exported, images, 0.0)).abs().max() > 0.05  # the share matters


def test_a_model_without_a_crop_takes_any_size(tmp_path):
    model = tiny_model(higher_is_better=True)
    path = export_model(model, tmp_path / "tiny.onnx")
    for size in (32, 45):
        images = pictures(3, size)
        with controlled(model, tta.Blend(0.3)), torch.no_grad():
            expected = model(images)
        torch.testing.assert_close(run(path, images, 0.3), expected, atol=1e-4, rtol=0)


def test_old_runtimes_can_read_the_file(exported):
    file = onnx.load(exported)
    assert file.opset_import[0].version <= 17 and file.ir_version <= 8


def test_a_layer_that_is_not_known_is_named(tmp_path):
    model = QualityModel(tiny_mixed()[:6], torch.nn.Linear(6, 1))  # its convolution has a bias
    with pytest.raises(TypeError, match="Conv2d"):
        export_model(model, tmp_path / "mixed.onnx")
