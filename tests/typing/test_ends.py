"""What a stream gives in the end; never executed."""

import signal
from datetime import timedelta
from typing import assert_type

import penstock
from penstock import Failed, Ok, Run, Stream
from penstock.core.stats import StageStats, Stats
from penstock.sync import SyncRun


async def store(number: int) -> None:
    raise NotImplementedError


async def values(sizes: Stream[int]) -> None:
    assert_type(await sizes.to_list(), list[int])
    assert_type(await sizes.count(), int)
    await sizes.drain()
    await sizes.for_each(store, concurrency=4, on_error="skip")
    await sizes.for_each(print)


async def first(sizes: Stream[int]) -> None:
    assert_type(await sizes.first(), int)
    assert_type(await sizes.first(default=None), int | None)
    assert_type(await sizes.first(default="none"), int | str)
    assert_type(await sizes.first(default=0), int)


async def reduced(sizes: Stream[int]) -> None:
    assert_type(await sizes.reduce(lambda total, size: total + size, 0), int)
    assert_type(await sizes.reduce(lambda seen, size: [*seen, str(size)], list[str]()), list[str])
    assert_type(await sizes.reduce(max, 0), int)


async def runs(sizes: Stream[int]) -> None:
    async for item in sizes:
        assert_type(item, int)
    async with sizes.open(grace=timedelta(seconds=1), progress=True, timing=True) as items:
        assert_type(items, Run[int])
        async for item in items:
            assert_type(item, int)
        assert_type(await anext(items), int)
        assert_type(items.failures, tuple[Failed, ...])
        assert_type(items.stats(), Stats)
        assert_type(items.stats()["map(fetch)"], StageStats)
        assert_type(items.stats()[0].in_flight, int)
        items.stop()


async def signals(sizes: Stream[int]) -> None:
    with penstock.drain_on_signals() as drained:
        async for item in sizes:
            assert_type(item, int)
    assert_type(drained.received, signal.Signals | None)


def in_plain_code(sizes: Stream[int]) -> None:
    with sizes.sync(grace=1) as items:
        assert_type(items, SyncRun[int])
        for item in items:
            assert_type(item, int)
        assert_type(next(items), int)
        assert_type(list(items), list[int])
        assert_type(items.failures, tuple[Failed, ...])
        assert_type(items.stats(), Stats)


async def results(sizes: Stream[int]) -> None:
    async for result in sizes.map(str, on_error="return"):
        assert_type(result, Ok[str] | Failed)
        assert_type(result.unwrap(), str)
        match result:
            case Ok(value, index):
                assert_type((value, index), tuple[str, int])
            case Failed(error=error, index=index, attempts=attempts):
                assert_type((error, index, attempts), tuple[BaseException, int, int])
        if isinstance(result, Failed):
            assert_type(result.error, BaseException)
        else:
            assert_type(result.value, str)
