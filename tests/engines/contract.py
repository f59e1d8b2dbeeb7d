"""What holds on every cluster (P12): scenarios for an engine that is entered, as a cluster takes seconds to start."""

import asyncio
import inspect
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager, closing
from functools import partial

import pytest

import penstock

from . import test_promises as promises
from .conftest import Gates
from .work import fail_of, fail_with, fork_and_return, kill_once, knows_penstock, process, same


async def workers_know_nothing_of_penstock(engine):
    assert await penstock.stream([0]).map(knows_penstock, engine=engine).to_list() == [False]


async def what_says_main_may_go_by_value(engine):
    """What is of this name goes by value, and so may what only says it."""
    assert await penstock.stream(["__MAIN__"]).map(str.lower, engine=engine).to_list() == ["__main__"]


async def equal_calls_are_many(engine):
    """Trap 41: Dask would make one task of them."""
    assert await penstock.stream([1] * 40).map(same, engine=engine).count() == 40


async def an_exception_keeps_its_attributes(engine):
    """Trap 25."""
    async with penstock.stream([7]).map(fail_with, engine=engine, on_error="collect").open() as items:
        assert [item async for item in items] == []
    (failed,) = items.failures
    assert type(failed.error).__name__ == "Refused"
    assert (failed.error.code, failed.error.args) == (7, ("refused",))


async def a_call_that_leaves_kills_no_worker(engine):
    """Dask would end a worker for it, and run the call in the next one; Ray would take it for a cancellation."""
    before = set(await penstock.stream(range(40)).map(process, engine=engine).to_list())
    for kind in (SystemExit, KeyboardInterrupt):
        with pytest.raises(kind):
            await penstock.stream([3]).map(partial(fail_of, kind), engine=engine).to_list()
    assert before & set(await penstock.stream(range(40)).map(process, engine=engine).to_list())


async def a_child_that_a_call_has_forked_is_no_worker(engine):
    """It ends where it returns; its parent, which waits for that, goes on."""
    assert await penstock.stream(range(4)).map(fork_and_return, engine=engine).to_list() == [0] * 4


async def a_worker_that_dies_in_no_call_is_replaced(engine):
    """Dask would try for half a minute to connect to it, and the next calls would be blamed."""
    (worker,) = await penstock.stream([0]).map(process, engine=engine).to_list()
    os.kill(worker, signal.SIGKILL)
    async with penstock.stream(range(40)).map(same, engine=engine).open() as items:
        assert [item async for item in items] == list(range(40))
    assert items.stats()[-1].failed == 0


async def a_durable_run_goes_on_after_a_death(engine, gates):
    table = penstock.SqliteTable(gates.folder / "run.db", "rows")
    stream = penstock.keyed(range(60), key=int, version=str, name="numbers")
    report = await stream.map(partial(kill_once, str(gates.folder)), engine=engine).to(table, run="run")
    assert report.delivered == 60
    with closing(sqlite3.connect(table.path)) as database:
        assert database.execute("SELECT count(*), count(DISTINCT value) FROM rows").fetchone() == (60, 60)


async def stages_share_it(engine):
    """Two stages, and a run beside theirs."""
    stream = penstock.stream(range(200)).map(same, engine=engine).map(same, engine=engine)
    assert await asyncio.gather(stream.to_list(), stream.count()) == [list(range(200)), 200]


SCENARIOS = (
    workers_know_nothing_of_penstock,
    what_says_main_may_go_by_value,
    equal_calls_are_many,
    an_exception_keeps_its_attributes,
    a_call_that_leaves_kills_no_worker,
    stages_share_it,
    a_durable_run_goes_on_after_a_death,
    a_child_that_a_call_has_forked_is_no_worker,
    a_worker_that_dies_in_no_call_is_replaced,
    promises.test_the_bound_holds_behind_a_slow_head,
    promises.test_a_slow_call_holds_up_no_other,
    promises.test_every_item_has_one_outcome,
    partial(promises.test_every_item_is_accounted_for_at_every_moment, on_error="collect"),
    promises.test_attempts_are_counted_and_timed,
    promises.test_any_value_is_a_value,
    promises.test_a_late_call_fails_alone,
    promises.test_every_operator,
    promises.test_finite_work,
    promises.test_a_call_that_kills_its_worker_is_named,
    promises.test_a_cancellation_is_no_failure,
    promises.test_runs_leave_nothing_on_an_engine_that_outlives_them,
    partial(promises.test_others_get_their_turns, busy="source"),
)


async def keep(engine, folder, *more: Callable):
    """Run those of its own, and all others."""

    @asynccontextmanager
    async def kept():
        yield engine

    for number, scenario in enumerate((*more, *SCENARIOS)):
        own = folder / str(number)
        own.mkdir()
        with pytest.MonkeyPatch.context() as monkeypatch:
            given = {"engine": engine, "make": kept, "gates": Gates(own), "monkeypatch": monkeypatch}
            wanted = inspect.signature(scenario).parameters
            await scenario(**{name: given[name] for name in wanted if name in given})


def is_missing_without_its_library(monkeypatch, name, library):
    """An error says what to install."""
    monkeypatch.setitem(sys.modules, library, None)
    wanted = rf"penstock\.engines\.{name} needs {library}: pip install 'penstock\[{name}\]'"
    with pytest.raises(ModuleNotFoundError, match=wanted):
        getattr(penstock.engines, name)()


def says_that_it_is_to_be_entered(name):
    engine = getattr(penstock.engines, name)()
    with pytest.raises(
        penstock.MisuseError, match=rf"{name}\(\) is to be entered first: `async with engine:` connects"
    ):
        asyncio.run(penstock.stream([1]).map(same, engine=engine).to_list())
