"""Runs with points of interruption, at every place of the grid."""

import functools
import itertools
import random

import pytest

from penstock import testing

PLACES = list(itertools.product(testing.LOOPS, testing.TASK_FACTORIES))


@pytest.fixture
def interrupted(run, place):
    """`run_interrupted` at the test's place on the grid."""
    return functools.partial(testing.run_interrupted, loop=place.loop, tasks=place.tasks)


@pytest.fixture
def shuffled(run, place):
    """`run_shuffled` at the test's place on the grid."""
    return functools.partial(testing.run_shuffled, loop=place.loop, tasks=place.tasks)


@pytest.fixture
def share(place):
    """A sixth of the combinations of some axes, drawn by chance: together the places of the grid take them all."""

    def take(*axes):
        cases = list(itertools.product(*axes))
        random.Random(0).shuffle(cases)
        return cases[PLACES.index((place.loop, place.tasks)) :: len(PLACES)]

    return take
