"""One seed, one thing."""

import pytest

from tta_iqa_lib.experiments.seeds import Seeds


def test_the_seeds_of_a_run_are_those_of_the_stored_results():
    assert Seeds.of_run(0) == Seeds(source=0, order=1000, copies=0)
    assert Seeds.of_run(4) == Seeds(source=4, order=1004, copies=4)


@pytest.mark.parametrize("name", ["source", "order", "copies"])
def test_one_seed_can_follow_the_number_of_the_run_alone(name):
    first, other = Seeds.of_run(0, vary=(name,)), Seeds.of_run(3, vary=(name,))
    assert {key for key in vars(first) if vars(first)[key] != vars(other)[key]} == {name}
    assert getattr(other, name) == getattr(Seeds.of_run(3), name)


def test_a_seed_that_there_is_not_is_an_error():
    with pytest.raises(ValueError, match="no seed 'sources'; there are source, order, copies"):
        Seeds.of_run(0, vary=("sources", "order"))
