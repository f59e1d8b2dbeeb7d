"""P7, trap 20: with the garbage collector off, nothing of a run outlives it, for every operator and every ending."""

import asyncio
import gc

import pytest

from ..guarantees.grids import ORDERS, grid  # noqa: TID252 -- tests are no package to name
from .endings import (
    ALL_OPERATORS,
    ENDINGS,
    THREAD_ENDINGS,
    THREAD_OPERATORS,
    Site,
    Watched,
    closing_the_source_failed,
    stopping_the_work_failed,
)

pytestmark = pytest.mark.grid

ACYCLIC = [ending for ending in ENDINGS if ending not in {closing_the_source_failed, stopping_the_work_failed}]
"""Errors of cleanup are raised to whoever has the run in a variable, and stay in its `failures`: a cycle of theirs."""


FREED_BY_THE_COLLECTOR = {
    "collected",
    "too_many_failures",
    "given_up_and_collected",
    "timed_out_at_every_try",
    "timed_out_and_converted",
}
"""Endings whose failures stay with the run. In a pipeline that is one stage, the frame of the function, which hangs on
the traceback, has the frames of the calls round it behind it (`f_back`): a cycle, which the collector frees."""


@pytest.fixture
def watched(monkeypatch, caplog):
    caplog.set_level("CRITICAL", "penstock")  # or pytest keeps what is logged
    watched = Watched()
    watched.watch_runs(monkeypatch)
    gc.collect()
    gc.disable()
    yield watched
    gc.enable()


async def nothing_stays(ending, site):
    site.watched.forget()
    await ending(site)
    await asyncio.sleep(1)  # the loop lets go of the callbacks of tasks that are over
    assert site.watched.seen > 2
    assert site.watched.alive() == []


def named(ending):
    return ending.__name__


@pytest.mark.slow
@pytest.mark.parametrize("ending", ACYCLIC, ids=named)
@grid(operator=ALL_OPERATORS, ordered=ORDERS)
async def test_reference_counts_free_a_run(watched, ending, operator, ordered, clock):
    """Items, errors, stages, scope and handle die with the run: no cycle ties them."""
    if operator.name == "add-pipeline" and named(ending) in FREED_BY_THE_COLLECTOR:
        return
    await nothing_stays(ending, Site(operator, watched, clock, ordered=ordered))


@pytest.mark.parametrize("ending", THREAD_ENDINGS, ids=named)
@grid(operator=THREAD_OPERATORS, ordered=ORDERS)
async def test_reference_counts_free_a_run_in_threads(watched, ending, operator, ordered, clock):
    """So they do where a thread ran the work or read the source: it holds nothing of the last call."""
    await nothing_stays(ending, Site(operator, watched, clock, ordered=ordered))
