"""The laws of the loop once more where other kernels compute: on a CUDA device."""

import copy

import pytest
import torch
from helpers import METHOD, pictures, tiny_model

import tta_iqa_lib as tta
from tta_iqa_lib.adaptation import Batch, Blend, Source, batchnorm_layers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
RECIPES = {
    "default": {},
    "batch": {"statistics": Batch()},
    "frozen": {"losses": METHOD, "statistics": Source()},
    "blend": {"losses": METHOD, "statistics": Blend(0.5)},
    "through": {"losses": METHOD, "statistics": Batch(), "grad_through_statistics": True},
}


@pytest.fixture
def model():
    return tiny_model().cuda()


def test_source_scores_are_the_models_own(model):
    images = pictures(8).cuda()
    with torch.no_grad():
        assert torch.equal(tta.Adapter(model, statistics=Source())(images), model(images))


def test_full_re_measuring_is_batchnorm_in_training_mode(model):
    images, training = pictures(8).cuda(), copy.deepcopy(model)
    for layer in batchnorm_layers(training).values():
        layer.train()
    with torch.no_grad():
        assert torch.allclose(tta.Adapter(model, statistics=Batch())(images), training(images), atol=1e-4)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("capture", [False, True])
def test_what_is_adapted_together_is_adapted_as_if_alone(model, recipe, capture):
    images = pictures(24).cuda()
    alone = tta.Adapter(model, **RECIPES[recipe])
    together = tta.Adapter(model, **RECIPES[recipe], capture=capture, episodes_per_pass=3)
    expected = torch.cat([alone(batch) for batch in images.split(8)])
    for _ in range(2):
        found = together.predict(images, 8, shuffle=False)
        assert torch.allclose(found, expected, atol=2e-3), (found - expected).abs().max()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_cuda_graph_gives_what_the_loop_gives(model, recipe):
    images = pictures(16).cuda()
    eager, captured = (tta.Adapter(model, **RECIPES[recipe], capture=capture) for capture in (False, True))
    for batch in images.split(8):
        one, other = captured.run(batch), eager.run(batch)
        assert torch.allclose(one.scores, other.scores, atol=1e-3)
        assert (one.decision, one.skipped) == (other.decision, other.skipped)


def test_a_loss_that_asks_the_device_for_a_value_is_refused_with_a_way_out(model):
    def asking(context):
        return context.scores["clean"].mean() * (1.0 if float(context.scores["clean"].mean().detach()) > 0 else 2.0)

    with pytest.raises(RuntimeError, match="capture=False"):
        tta.Adapter(model, [asking], Source(), capture=True)(pictures(8).cuda())
