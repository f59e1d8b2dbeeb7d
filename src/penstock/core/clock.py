"""The clocks: real time for turns of the loop, the loop's own time for everything a user can see."""

from time import perf_counter as now

__all__ = ["TURN", "now"]

TURN = 0.0025
"""Seconds that a run may keep the loop before others get a turn.

A quarter of what P9 promises: in one pass of the loop the consumer, the windows and a source may each use one up.
"""
