"""The engine of Dask, on a local cluster."""

import asyncio
import importlib.util
import inspect
import os
import signal
import sqlite3
import sys
from contextlib import asynccontextmanager, closing
from functools import partial

import pytest

import penstock

from . import test_promises as promises
from .conftest import Gates
from .work import fail_of, fail_with, kill_once, knows_penstock, process, same

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="distributed is not installed"),
    pytest.mark.filterwarnings("default"),  # those of Dask
]

SCENARIOS = (
    promises.test_the_bound_holds_behind_a_slow_head,
    promises.test_a_slow_call_holds_up_no_other,
    promises.test_every_item_has_one_outcome,
    promises.test_any_value_is_a_value,
    promises.test_a_late_call_fails_alone,
    promises.test_every_operator,
    promises.test_finite_work,
    promises.test_a_call_that_kills_its_worker_is_named,
    promises.test_a_cancellation_is_no_failure,
)


async def equal_calls_are_many(engine, _):
    """Trap 41: Dask would make one task of them."""
    assert await penstock.stream([1] * 40).map(same, engine=engine).count() == 40


async def an_exception_keeps_its_attributes(engine, _):
    """Trap 25."""
    async with penstock.stream([7]).map(fail_with, engine=engine, on_error="collect").open() as items:
        assert [item async for item in items] == []
    (failed,) = items.failures
    assert type(failed.error).__name__ == "Refused"
    assert (failed.error.code, failed.error.args) == (7, ("refused",))


async def a_call_that_leaves_kills_no_worker(engine, _):
    """Dask would end a worker for it, and run the call in the next one."""
    (before,) = set(await penstock.stream([0]).map(process, engine=engine).to_list())
    for kind in (SystemExit, KeyboardInterrupt):
        with pytest.raises(kind):
            await penstock.stream([3]).map(partial(fail_of, kind), engine=engine).to_list()
    assert before in await penstock.stream(range(40)).map(process, engine=engine).to_list()


async def a_worker_that_dies_in_no_call_is_replaced(engine, _):
    """Dask would try for half a minute to connect to it, and the next calls would be blamed."""
    (worker,) = await penstock.stream([0]).map(process, engine=engine).to_list()
    os.kill(worker, signal.SIGKILL)
    async with penstock.stream(range(40)).map(same, engine=engine).open() as items:
        assert [item async for item in items] == list(range(40))
    assert items.stats()[-1].failed == 0


async def another_engine_uses_its_workers(engine, _):
    """`address=`: they go on when it is closed."""
    async with penstock.engines.dask(address=engine._cluster.scheduler_address) as other:
        assert other.slots() == 2
        assert await penstock.stream(range(40)).map(same, engine=other).count() == 40
    assert await penstock.stream(range(40)).map(same, engine=engine).count() == 40


async def a_durable_run_goes_on_after_a_death(engine, folder):
    table = penstock.SqliteTable(folder / "run.db", "rows")
    stream = penstock.keyed(range(60), key=int, version=str, name="numbers")
    report = await stream.map(partial(kill_once, str(folder)), engine=engine).to(table, run="run")
    assert report.delivered == 60
    with closing(sqlite3.connect(table.path)) as database:
        assert database.execute("SELECT count(*), count(DISTINCT value) FROM rows").fetchone() == (60, 60)


async def stages_share_it(engine, _):
    """Two stages, and a run beside theirs."""
    stream = penstock.stream(range(200)).map(same, engine=engine).map(same, engine=engine)
    assert await asyncio.gather(stream.to_list(), stream.count()) == [list(range(200)), 200]


MINE = (
    another_engine_uses_its_workers,
    equal_calls_are_many,
    an_exception_keeps_its_attributes,
    a_call_that_leaves_kills_no_worker,
    stages_share_it,
    a_durable_run_goes_on_after_a_death,
    a_worker_that_dies_in_no_call_is_replaced,
)


async def test_the_promises_hold_on_dask(tmp_path, capfd):
    """P12: one cluster for all, since it takes seconds to start."""
    async with penstock.engines.dask(2) as engine:

        @asynccontextmanager
        async def kept():
            yield engine

        assert await penstock.stream([0]).map(knows_penstock, engine=engine).to_list() == [False]
        for mine in MINE:
            await mine(engine, tmp_path)
        for number, scenario in enumerate(SCENARIOS):
            folder = tmp_path / str(number)
            folder.mkdir()
            given = {"make": kept, "gates": Gates(folder)}
            await scenario(**{name: given[name] for name in inspect.signature(scenario).parameters})
    assert capfd.readouterr() == ("", "")


async def test_without_dask_an_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    wanted = r"penstock\.engines\.dask needs distributed: pip install 'penstock\[dask\]'"
    with pytest.raises(ModuleNotFoundError, match=wanted):
        penstock.engines.dask()


def test_an_engine_that_was_not_entered_says_so():
    engine = penstock.engines.dask()
    with pytest.raises(penstock.MisuseError, match=r"dask\(\) is to be entered first: `async with engine:` connects"):
        asyncio.run(penstock.stream([1]).map(knows_penstock, engine=engine).to_list())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"workers": 0}, "workers must be an int >= 1, got 0"), ({"address": 3}, "address must be")],
)
def test_a_wrong_option_of_dask(options, message):
    with pytest.raises(penstock.OptionError, match=message):
        penstock.engines.dask(**options)
