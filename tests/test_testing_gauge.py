"""The gauge counts what is in progress, on the loop and in threads."""

import asyncio
import functools
import inspect
import threading

import pytest

from penstock.testing import Gauge

pytestmark = pytest.mark.grid


async def test_it_measures_calls_in_progress_and_their_peak():
    gauge = Gauge()
    sleep = gauge.wrap(asyncio.sleep)
    sleepers = [asyncio.create_task(sleep(seconds)) for seconds in (1, 2, 3)]
    await asyncio.sleep(1.5)
    assert (gauge.now, gauge.peak, gauge.started, gauge.finished) == (2, 3, 3, 1)
    await asyncio.gather(*sleepers)
    assert (gauge.now, gauge.peak, gauge.started, gauge.finished) == (0, 3, 3, 3)


async def test_every_call_ends_in_one_way():
    gauge = Gauge()

    @gauge.wrap
    async def work(how):
        await asyncio.sleep(1)
        if how == "fail":
            raise ValueError(how)
        await asyncio.sleep(1)

    tasks = [asyncio.create_task(work(how)) for how in ("finish", "fail", "cancel")]
    await asyncio.sleep(1.5)
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (gauge.started, gauge.finished, gauge.failed, gauge.cancelled) == (3, 1, 1, 1)
    assert repr(gauge) == "<Gauge now=0, peak=3, started=3, finished=1, failed=1, cancelled=1>"


async def test_it_measures_plain_functions_in_threads(clock):
    gauge = Gauge()
    work = gauge.wrap(clock.sleep)
    await asyncio.gather(*(asyncio.to_thread(work, 1) for _ in range(3)))
    assert (gauge.peak, gauge.finished) == (3, 3)


async def test_it_measures_a_block():
    gauge = Gauge()
    with gauge:
        assert gauge.now == 1
    with pytest.raises(ValueError, match="mine"), gauge:
        raise ValueError("mine")
    assert (gauge.now, gauge.finished, gauge.failed) == (0, 1, 1)


def test_a_wrapped_function_stays_what_it_was():
    async def fetch(url): ...

    def parse(page): ...

    class Fetch:
        async def __call__(self, url): ...

    gauge = Gauge()
    assert inspect.iscoroutinefunction(gauge.wrap(fetch))
    assert inspect.iscoroutinefunction(gauge.wrap(Fetch()))
    assert inspect.iscoroutinefunction(gauge.wrap(functools.partial(fetch, "url")))
    assert not inspect.iscoroutinefunction(gauge.wrap(parse))
    assert gauge.wrap(fetch).__name__ == "fetch"
    assert inspect.signature(gauge.wrap(parse)) == inspect.signature(parse)


def test_threads_do_not_lose_counts():
    gauge = Gauge()
    work = gauge.wrap(int)
    threads = [threading.Thread(target=lambda: [work() for _ in range(1000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (gauge.now, gauge.started, gauge.finished) == (0, 4000, 4000)
    assert 1 <= gauge.peak <= 4
