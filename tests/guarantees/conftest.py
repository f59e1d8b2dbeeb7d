"""Promises are tested at the same order of events everywhere."""

import pytest


@pytest.fixture(autouse=True)
def clock_of_turns(turn_clock):
    """It stands still, unless the test moves it on."""
