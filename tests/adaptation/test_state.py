"""Recipes, states and results are values."""

import pytest
import torch
from helpers import FAST, METHOD, pictures, tiny_model

from tta_iqa_lib.adaptation import DEFAULT_RECIPE, Adapter, Blend, Ema, State, adapt_batch


def test_a_recipe_is_one_value_that_can_be_printed_and_passed():
    model, images = tiny_model(), pictures(6)
    own = Adapter(model, METHOD, Blend(0.5), lr=0.01, seed=3)
    assert torch.equal(Adapter(model, recipe=own.recipe)(images), own(images))
    assert Adapter(model, recipe=DEFAULT_RECIPE).recipe == DEFAULT_RECIPE == Adapter(model).recipe
    assert "Adaptive(caution=1.5" in repr(DEFAULT_RECIPE) and "RelativeRank(" in repr(own.recipe)
    with pytest.raises(ValueError, match="steps= stands in the recipe"):
        Adapter(model, recipe=own.recipe, steps=5)


def test_a_state_is_a_value():
    """Going on from it twice gives the same twice: the optimiser's memory used to be written over."""
    model, recipe = tiny_model(), Adapter(tiny_model(), FAST, Ema(0.3), lr=0.01).recipe
    _, state = adapt_batch(model, State(), pictures(5), recipe)
    twice = [adapt_batch(model, state, pictures(5, seed=1), recipe)[0][0].scores for _ in range(2)]
    assert torch.equal(*twice)


@pytest.mark.parametrize("answer", [True, None, "yes"])
def test_a_bad_answer_of_a_gate_is_an_error(answer):
    with pytest.raises(ValueError, match="a gate must answer"):
        Adapter(tiny_model(), [], gate=lambda result: answer)(pictures(3))
