"""Streams whose functions run in worker processes: the promises of every engine, where calls can die (P12)."""

import asyncio
import os

import pytest

import penstock
from penstock import AttemptTimeout, Failed, Ok, Retry, WorkerLost
from penstock.engines import processes

from .work import (
    alive,
    alone_by_name,
    double,
    exit_at_three,
    fail_at_three,
    fail_first,
    hang_at_three,
    is_odd,
    kill_at_three_once,
    pid,
    row,
    twice,
    twice_each,
    until,
)

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

NUMBERS = list(range(7))


async def test_every_operator_gives_what_it_gives_on_the_loop():
    """P3, P12."""
    async with processes(2) as engine:
        for ordered in (True, False):
            for build in (
                lambda items, **options: items.map(double, **options),
                lambda items, **options: items.filter(is_odd, **options),
                lambda items, **options: items.tap(double, **options),
                lambda items, **options: items.flat_map(twice, **options),
                lambda items, **options: items.map_batches(twice_each, 3, **options),
            ):
                here = await build(penstock.stream(NUMBERS)).to_list()
                options = {"engine": engine, "concurrency": 3, "ordered": ordered, "buffer": 2}
                there = await build(penstock.stream(NUMBERS), **options).to_list()
                assert (there if ordered else sorted(there)) == here


@pytest.mark.parametrize("on_error", ["skip", "collect", "return"])
async def test_one_bad_item_does_not_fail_its_group(on_error):
    """P5."""
    async with penstock.stream(NUMBERS).map(fail_at_three, engine="process", on_error=on_error).open() as items:
        found = [item async for item in items]
        failed = [item for item in found if isinstance(item, Failed)]
        assert [item.value if isinstance(item, Ok) else item for item in found if item not in failed] == [
            0,
            1,
            2,
            4,
            5,
            6,
        ]
        assert [item.index for item in failed] == ([3] if on_error == "return" else [])
        assert len(items.failures) == (on_error == "collect")


@pytest.mark.quick
async def test_the_first_failure_is_raised_with_its_item(read_until_error):
    """P5: what was before it is handed on."""
    stream = penstock.stream(NUMBERS).map(fail_at_three, engine="process", concurrency=1)
    found, error = await read_until_error(stream.open())
    assert found == [0, 1, 2]
    assert repr(error) == "ValueError('three')"
    assert any("item 3" in note for note in error.__notes__)


async def test_a_timeout_ends_the_call_and_not_its_neighbours():
    results = (
        await penstock.stream(NUMBERS).map(hang_at_three, engine="process", timeout=0.5, on_error="return").to_list()
    )
    assert [item.value for item in results if isinstance(item, Ok)] == [0, 1, 2, 4, 5, 6]
    (failed,) = [item for item in results if isinstance(item, Failed)]
    assert isinstance(failed.error, AttemptTimeout)
    assert failed.item == 3


async def test_what_kills_its_worker_twice_fails_by_name_and_the_others_go_on():
    stream = penstock.stream(range(200)).map(exit_at_three, engine="process", on_error="return")
    results = await stream.to_list()
    assert [item.value for item in results if isinstance(item, Ok)] == [number for number in range(200) if number != 3]
    (failed,) = [item for item in results if isinstance(item, Failed)]
    assert isinstance(failed.error, WorkerLost)
    assert "exit_at_three(3)" in str(failed.error)
    assert failed.item == 3


async def test_what_kills_its_worker_once_is_called_again(tmp_path):
    paths = [(number, str(tmp_path / "died")) for number in range(20)]
    stream = penstock.stream(paths).map(kill_at_three_once, engine="process")
    assert await stream.to_list() == list(range(20))


async def test_retries_are_those_of_the_run(tmp_path):
    stream = penstock.stream([str(tmp_path / str(number)) for number in range(5)])
    tried = stream.map(fail_first, engine="process", retry=Retry(on=ConnectionError, initial=0.001))
    async with tried.open() as items:
        assert [item async for item in items] == [2] * 5
        (stage,) = [stage for stage in items.stats() if stage.name == "map(fail_first)"]
        assert stage.retried == 5


async def test_small_calls_travel_in_groups():
    """One message a call costs more than the call."""
    async with processes(1) as engine:
        assert await penstock.stream(range(4_000)).map(double, engine=engine).count() == 4_000
        (worker,) = engine._children
        assert worker._sent < 1_000


async def test_leaving_early_stops_what_runs_and_the_engine_stays():
    """P4: with the calls of this run alone."""
    async with processes(2) as engine:
        async with penstock.stream(range(1_000)).map(hang_at_three, engine=engine, ordered=False).open() as items:
            async for item in items:
                if item > 3:
                    break
        assert await penstock.stream(range(9)).map(double, engine=engine).to_list() == [2 * n for n in range(9)]


async def test_a_cancelled_run_leaves_no_worker():
    async def use():
        async with penstock.stream([0, 3]).map(hang_at_three, engine="process", concurrency=1).open() as items:
            await anext(items)
            reached.set()
            await anext(items)

    reached = asyncio.Event()
    task = asyncio.ensure_future(use())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_workers_of_a_run_end_with_it():
    numbers = {*await penstock.stream(range(10)).map(pid, engine="process").to_list()}
    assert os.getpid() not in numbers
    await until(lambda: not any(map(alive, numbers)))


async def test_a_durable_run_writes_off_the_root_that_kills_its_worker(tmp_path):
    """P11: and delivers the others once."""
    source = penstock.keyed([{"n": number} for number in range(100)], key=lambda item: item["n"])
    table = penstock.SqliteTable(tmp_path / "out.db", "numbers")
    report = await source.map(row, engine="process", on_error="collect").to(table, run="numbers")
    assert (report.delivered, report.dead, report.rows) == (99, 1, 99)


async def test_items_of_one_key_are_never_in_two_workers(tmp_path):
    """The second item of `a` fails if the first is still under way; that one ends when `b` has been."""
    items = [(tmp_path, name) for name in ("a", "a", "b")]
    stream = penstock.stream(items).map(alone_by_name, key=str, engine="process", concurrency=3)
    assert await stream.to_list() == ["a", "a", "b"]
