"""The clocks: real time for turns of the loop, the loop's own time for everything a user can see."""

from time import perf_counter as now

__all__ = ["TURN", "now"]

TURN = 0.005
"""Seconds that a run may keep the loop for itself before others get a turn: half of what P9 promises."""
