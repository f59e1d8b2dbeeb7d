"""Schedules that once failed, each with what was wrong."""

import pytest

from . import driving
from .exploring import PLACES
from .schedules import ALWAYS, Act, Consumer, Schedule, Script, Step

NOW = Act()
FAILS = Act(failures=ALWAYS)
FAILS_LATER = Act(delay=1, failures=ALWAYS)
FAILS_LAST = Act(delay=2, failures=ALWAYS)
FAILS_SOON = Act(delay=0.5, failures=ALWAYS)
SWALLOWS_LONG = Act(delay=0.5, stubborn=20, swallows=True)
SWALLOWS = Act(delay=2, stubborn=2, swallows=True)

LEFT = {
    "an async generator that swallowed its cancellation waited for a permit until the grace was over": Schedule(
        Script(count=2, kind="plain"),
        (Step("flat_async", acts=(Act(delay=0.5, stubborn=2, swallows=True),)),),
        Consumer(leave=("timeout", 0)),
    ),
    "an iterator that may be tried again waited for a permit likewise": Schedule(
        Script(count=8),
        (Step("flat_iterator", acts=(SWALLOWS,), concurrency=3, attempts=2),),
        Consumer(leave=("timeout", 1)),
    ),
    "an input was discarded once more when work that swallowed its cancellation came back after the grace": Schedule(
        Script(count=1, kind="plain"),
        (Step("flat_iterator", acts=(Act(delay=0.5, stubborn=20, swallows=True),), on_error="skip"),),
        Consumer(leave=("cancel twice", 0, 0, None)),
    ),
}

FAILED = {
    "flat_map handed on a list from behind the failure that had cancelled it": Schedule(
        Script(count=8),
        (Step("flat_list", acts=(NOW, NOW, NOW, NOW, FAILS_LATER, SWALLOWS), concurrency=8, buffer=4),),
        Consumer(pauses=(9,)),
    ),
    "half a list was called after the end, when the call of the other half had swallowed its cancellation": Schedule(
        Script(count=7, kind="async"),
        (Step("batches", acts=(NOW, SWALLOWS_LONG, FAILS_SOON), concurrency=2, size=2),),
    ),
    "lazily begun work overtook that of the item before it where a look at the clock takes a millisecond": Schedule(
        Script(count=7, kind="plain"),
        (
            Step("map", acts=(NOW, Act(delay=0)), concurrency=2, on_error="skip"),
            Step("map", acts=(NOW, NOW, FAILS), concurrency=2, ordered=False),
        ),
        turn=0.001,
    ),
}

ENDED = {
    "failures in threads, which `take` could not stop, were raised though they were to be skipped": Schedule(
        Script(count=4),
        (
            Step("thread", acts=(Act(delay=1), Act(delay=1), FAILS_LAST, FAILS_LAST), concurrency=4, on_error="skip"),
            Step("take", size=2),
        ),
    ),
    "two windows over nothing put off the end for ever where a look at the clock takes a millisecond": Schedule(
        Script(count=0), (Step("map"), Step("map")), turn=0.001
    ),
    "an iterator that the work had returned was not read there": Schedule(
        Script(count=1), (Step("flat_iterator"), Step("map")), turn=0.001
    ),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("schedule", LEFT.values(), ids=LEFT)
def test_left(schedule, place):
    """P4, P5: work that swallows its cancellation is over when it comes back, and is counted once."""
    driving.run(schedule, place, driving.leaves_nothing)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("schedule", FAILED.values(), ids=FAILED)
def test_failed(schedule, place):
    """P3, P5: in order, nothing from behind a failure is handed on."""
    driving.run(schedule, place, driving.raises_the_first_failure)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("schedule", ENDED.values(), ids=ENDED)
def test_ended(schedule, place):
    """P5: a run that has enough ends without an error."""
    driving.run(schedule, place, driving.equals_list_code)
