"""Recipes, states and results are values."""

import re
from dataclasses import replace

import pytest
import torch
from helpers import FAST, METHOD, pictures, tiny_model

from tta_iqa_lib.adaptation import (
    DEFAULT_RECIPE,
    Adapter,
    Batch,
    Blend,
    Ema,
    Inference,
    Optimisation,
    Pair,
    Recipe,
    RelativeRank,
    ScoreOrder,
    State,
    adapt_batch,
)


def test_a_recipe_is_one_value_that_can_be_printed_and_passed():
    model, images = tiny_model(), pictures(6)
    own = Adapter(model, METHOD, Blend(0.5), lr=0.01, seed=3)
    assert torch.equal(Adapter(model, recipe=own.recipe)(images), own(images))
    assert Adapter(model, recipe=DEFAULT_RECIPE).recipe == DEFAULT_RECIPE == Adapter(model).recipe
    assert "Adaptive(caution=1.5" in repr(DEFAULT_RECIPE) and "RelativeRank(" in repr(own.recipe)


@pytest.mark.parametrize(("part", "name", "value"), [("optimisation", "steps", 5), ("inference", "views", 2)])
def test_a_setting_beside_a_recipe_says_how_to_change_it_there(part, name, value):
    """And the way that it says works."""
    recipe = Adapter(tiny_model(), METHOD).recipe
    told = f"replace(recipe, {part}=replace(recipe.{part}, {name}=…))"
    with pytest.raises(ValueError, match=re.escape(f"{name}= stands in the recipe: with dataclasses.replace, {told} ")):
        Adapter(tiny_model(), recipe=recipe, **{name: value})
    changed = eval(told.replace("…", repr(value)), {"replace": replace, "recipe": recipe})
    assert getattr(getattr(changed, part), name) == value != getattr(getattr(recipe, part), name)
    Adapter(tiny_model(), recipe=changed)


def test_a_state_is_a_value():
    """Going on from it twice gives the same twice: the optimiser's memory used to be written over."""
    model, recipe = tiny_model(), Adapter(tiny_model(), FAST, Ema(0.3), lr=0.01).recipe
    _, state = adapt_batch(model, State(), pictures(5), recipe)
    twice = [adapt_batch(model, state, pictures(5, seed=1), recipe)[0][0].scores for _ in range(2)]
    assert torch.equal(*twice)


@pytest.mark.parametrize("answer", ["adapted", "initial", "source"])
def test_a_gate_chooses_whose_scores_are_returned(answer):
    model, images = tiny_model(), pictures(6)
    whole = Adapter(model, FAST, Batch(), lr=0.01).run(images)
    found = Adapter(model, FAST, Batch(), lr=0.01, gate=lambda result: answer).run(images)
    of = {"adapted": whole.scores, "initial": whole.initial_scores, "source": whole.source_scores}
    assert found.decision == answer and torch.equal(found.scores, of[answer])
    assert sum(torch.equal(found.scores, scores) for scores in of.values()) == 1


@pytest.mark.parametrize("answer", [True, None, "yes"])
def test_a_bad_answer_of_a_gate_is_an_error(answer):
    with pytest.raises(ValueError, match="a gate must answer"):
        Adapter(tiny_model(), [], gate=lambda result: answer)(pictures(3))


def test_old_names_still_work_and_say_the_new_ones():
    pair = Pair(mild=0.1, severe=0.2)
    for loss in (RelativeRank, ScoreOrder):
        with pytest.warns(DeprecationWarning, match="views= is now called copies="):
            assert loss(views=pair).copies == pair
    result = Adapter(tiny_model(), statistics=Batch()).run(pictures(3))
    with pytest.warns(DeprecationWarning, match="statistics_scores is now called initial_scores"):
        assert result.statistics_scores is result.initial_scores


def test_steps_without_a_loss_or_a_parameter_are_an_error():
    with pytest.raises(ValueError, match="an optimisation needs a loss"):
        Optimisation(())
    recipe = Recipe(Inference(Batch()), Optimisation(FAST, params=lambda model: {}))
    told = "nothing to adapt: no normalisation layer has γ and β; pass params=a function that picks parameters"
    with pytest.raises(ValueError, match=f"^{told}$"):
        adapt_batch(tiny_model(), State(), pictures(4), recipe)
