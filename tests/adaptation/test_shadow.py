"""The copy of a tree of modules: its tensors are the model's, and what runs in it is the caller's."""

import pytest
import torch
from helpers import pictures, snapshot, tiny_mixed
from torch import nn

from tta_iqa_lib.adaptation import Moments, batchnorm_layers
from tta_iqa_lib.adaptation.normalisation import normalise
from tta_iqa_lib.adaptation.shadow import Shadow


def as_kept(name, layer, copy, x):
    return normalise(x, Moments(layer.running_mean, layer.running_var), copy.weight, copy.bias, layer.eps)


def plainly(copy, forward, *args, **kwargs):
    return forward(*args, **kwargs)


def test_the_copy_computes_what_the_model_does_and_shares_its_tensors():
    model, images = tiny_mixed(), pictures(3)
    before, shadow = snapshot(model), Shadow(model, as_kept, plainly)
    assert torch.equal(shadow.module(images), model(images)) and shadow.module is not model
    own, copied = (dict(m.named_parameters()) | dict(m.named_buffers()) for m in (model, shadow.module))
    assert own.keys() == copied.keys() and all(copied[n].data_ptr() == own[n].data_ptr() for n in own)
    assert snapshot(model) == before


def test_each_batchnorm_layer_asks_and_each_module_is_called():
    model, asked, called = tiny_mixed(), [], []
    shadow = Shadow(
        model,
        lambda name, *rest: asked.append(name) or as_kept(name, *rest),
        lambda copy, forward, *args: called.append(type(copy)) or forward(*args),
    )
    shadow.module(pictures(2))
    assert asked == list(batchnorm_layers(model)) and called == [type(part) for part in model.modules()]


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_other_tensors_stand_in_for_a_while(error):
    """Under each name that a parameter has; whatever happens, the model's own are back afterwards."""
    model, images = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.rand(2, 4)
    model[1].weight = model[0].weight
    shadow, other = Shadow(model, as_kept, plainly), torch.zeros(4, 4)
    try:
        with shadow.holding({"0.weight": other}) as copy:
            assert torch.equal(copy(images), model[1].bias.expand(2, 4))
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt) as caught:
        assert type(caught) is error
    assert torch.equal(shadow.module(images), model(images))


@pytest.mark.parametrize("place", [0, 1], ids=["convolution", "BatchNorm"])
def test_a_forward_that_somebody_gave_to_one_module_is_kept(place):
    """A BatchNorm layer still asks for its normalisation within it."""
    model, images, asked = tiny_mixed(), pictures(3), []
    own = model[place].forward
    model[place].forward = lambda x: own(x).add_(1)  # of all in-place additions only that to the counter is left out
    shadow = Shadow(model, lambda name, *rest: asked.append(name) or as_kept(name, *rest), plainly)
    assert torch.allclose(shadow.module(images), model(images), rtol=0, atol=1e-6)
    assert not torch.allclose(model(images), tiny_mixed()(images), rtol=0, atol=1e-3)
    assert asked == list(batchnorm_layers(model))


def test_an_unknown_name_is_an_error_before_anything_stands_in():
    shadow = Shadow(nn.Linear(3, 3), as_kept, plainly)
    with (
        pytest.raises(ValueError, match="the model has no parameter 'wieght'"),
        shadow.holding({"wieght": torch.ones(3)}),
    ):
        pass
