"""Many random schedules of one property at one place of the grid."""

import gc
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, seed, settings

from penstock.testing import LOOPS, TASK_FACTORIES

from . import driving, schedules

PROPERTIES = {
    "list-code": (schedules.to_the_end(), driving.equals_list_code),
    "failure": (schedules.with_a_failure(), driving.raises_the_first_failure),
    "leaving": (schedules.left_early(), driving.leaves_nothing),
    "stop": (schedules.told_to_stop(), driving.finishes_what_was_taken),
}


@dataclass(frozen=True)
class Place:
    """A loop, and how tasks start on it."""

    loop: str
    tasks: str

    def __str__(self):
        return f"{self.loop}-{self.tasks}"


PLACES = {str(place): place for place in (Place(loop, tasks) for loop in LOOPS for tasks in TASK_FACTORIES)}

EXAMPLES = 42
"""Schedules of each property at each place in the tests: 1,008 in all, others in every run of them."""


def explore(name, place, number, *, examples=EXAMPLES):
    """Run that many schedules of a property that follow from the seed `number`; how many were run."""
    strategy, judge = PROPERTIES[name]
    driven = 0

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def holds(schedule):
        nonlocal driven
        driven += 1
        gc.collect()  # or what is left of the schedule before is frozen with the rest, for ever
        gc.freeze()  # what is older than a schedule costs its collections nothing
        driving.run(schedule, place, judge)

    try:
        holds()
    except BaseException as error:
        error.add_note(f"again: {command(name, place, number, examples)}")
        raise
    finally:
        gc.unfreeze()
    return driven


def command(name, place, number, examples):
    """What runs the same schedules again."""
    return f".venv/bin/python tools/soak.py --again {name} {place.loop}-{place.tasks} {number} {examples}"
