"""Promises are tested at the same order of events everywhere."""

import pytest


@pytest.fixture(autouse=True)
def still(turn_clock):
    """The clock of turns stands still, unless the test moves it on."""
