"""The clock by which a run gives others their turns stands still, so that a busy machine changes no order of events."""

import sys

import pytest

from penstock.core import clock as clocks


class TurnClock:
    """Stands in for `penstock.core.clock.now`; `step()` gives the seconds that a look at it takes."""

    def __init__(self):
        self.now = 0.0
        self.step = lambda: 0.0

    def __call__(self):
        self.now += self.step()
        return self.now


@pytest.fixture(autouse=True)
def turn_clock(monkeypatch):
    real, fake = clocks.now, TurnClock()
    for name, module in list(sys.modules.items()):
        if name.startswith("penstock.") and getattr(module, "now", None) is real:
            monkeypatch.setattr(module, "now", fake)
    return fake
