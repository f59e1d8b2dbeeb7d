"""Random pipelines under random schedules, in virtual time, on every loop with every task factory.

Every promise that can be seen is checked after each callback of the loop; see `watching`.
"""

import random

import pytest

from .exploring import EXAMPLES, PLACES, PROPERTIES, explore


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("name", PROPERTIES)
def test_property(name, place):
    """P1, P3, P4, P5, P8: what list code gives, within bounds, and nothing left: see the properties in `driving`."""
    assert explore(name, place, random.getrandbits(32)) >= EXAMPLES


def test_number():
    """Each test above has run so many, or it would have failed."""
    assert len(PROPERTIES) * len(PLACES) * EXAMPLES >= 1_000
