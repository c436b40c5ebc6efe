"""Any function will do as a loss or a gate."""

import pytest
from helpers import mean_score, pictures, tiny_model

from tta_iqa_lib.adaptation import Adapter, Pair, Source
from tta_iqa_lib.adaptation.protocols import as_gate, as_loss


def test_any_callable_is_a_loss():
    model, images = tiny_model(), pictures(5)
    result = Adapter(model, [lambda context: -context.scores["clean"].mean()], Source()).run(images)
    assert (result.scores > result.source_scores).all()
    assert result.trace[0]["<lambda>"] == pytest.approx(-result.source_scores.mean().item(), abs=1e-6)


def said(loss) -> tuple:
    return loss.name, loss.weight, loss.copies, loss.needs_moments


class Full:
    """A loss that says everything of itself."""

    name, weight, copies, needs_moments = "own", 0.25, Pair(("dark",)), True

    def __call__(self, context):
        return context


def test_a_loss_keeps_what_it_says_of_itself_and_gets_the_usual_values_for_the_rest():
    def partial(context):
        return context

    partial.weight = 0
    assert said(as_loss(Full())) == ("own", 0.25, Pair(("dark",)), True)
    assert said(as_loss(partial)) == ("partial", 0, None, False)
    assert said(as_loss(mean_score)) == ("mean_score", 1.0, None, False)
    assert as_loss(Full())("context") == as_loss(partial)("context") == "context"


def test_a_weight_that_is_no_number_is_named():
    def heavy(context):
        return context

    heavy.weight = "much"
    with pytest.raises(ValueError, match=r"^weight must be a finite number; got 'much'$"):
        as_loss(heavy)


def test_a_callable_without_a_name_is_called_by_its_class():
    class Nameless:
        def __call__(self, context):
            return context

    assert as_loss(Nameless()).name == "Nameless"


@pytest.mark.parametrize("early", [None, False, True])
def test_a_gate_keeps_when_it_decides_and_decides_late_if_it_does_not_say(early):
    def gate(result):
        return result

    if early is not None:
        gate.early = early
    found = as_gate(gate)
    assert found.early is bool(early) and found("result") == "result"


def test_no_gate_stays_none():
    assert as_gate(None) is None


@pytest.mark.parametrize("thing", [5, "source", [mean_score]], ids=["number", "name", "list"])
def test_what_cannot_be_called_is_neither_a_loss_nor_a_gate(thing):
    with pytest.raises(TypeError, match="losses must be functions of the context; got"):
        as_loss(thing)
    with pytest.raises(TypeError, match="a gate is a function of the result, or None; got"):
        as_gate(thing)
