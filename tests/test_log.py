"""`logging.getLogger("penstock")`: retries, skipped items, work left behind, summaries; silent until configured."""

import asyncio
import logging
import subprocess
import sys

import pytest

import penstock


@pytest.fixture
def records(caplog):
    caplog.set_level(logging.DEBUG, logger="penstock")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records]


async def test_retries(records):
    tries = []

    async def work(number):
        tries.append(number)
        if len(tries) < 3:
            raise ConnectionError(f"try {len(tries)}")

    retry = penstock.Retry(on=ConnectionError, initial=0.5, jitter=0)
    await penstock.stream(["x"]).map(work, retry=retry, name="fetch").drain()
    assert records()[:2] == [
        ("INFO", "stage 'fetch': attempt 1 failed, the next in 0.5 s: ConnectionError('try 1')"),
        ("INFO", "stage 'fetch': attempt 2 failed, the next in 1 s: ConnectionError('try 2')"),
    ]


async def test_skipped_items(records):
    await penstock.stream([1, 0]).map(lambda number: 1 / number, name="invert", on_error="skip").drain()
    assert records()[0] == ("WARNING", "skipped: stage 'invert', item 1: ZeroDivisionError('division by zero')")


async def test_work_that_is_left_behind(records):
    release = asyncio.Event()

    async def stubborn(_):
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    results = penstock.stream([1]).map(stubborn, name="stubborn").open(grace=2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(results), 1)
    with pytest.warns(penstock.UnstoppedWorkWarning):
        await results.aclose()
    said = "still running 2 s after cancellation, left behind: stage 'stubborn', item 0"
    assert ("WARNING", said) in records()
    release.set()
    await asyncio.sleep(1)


async def test_a_summary_at_the_end(records):
    async with penstock.stream([1, 2]).map(str, name="text").open() as texts:
        assert [text async for text in texts] == ["1", "2"]
    assert records() == [("INFO", f"run over: {texts.stats()}")]


async def test_records_hold_no_items(caplog):
    """A handler that keeps records must not keep what it was told of."""
    caplog.set_level(logging.DEBUG, logger="penstock")

    async def work(_):
        raise ValueError

    retry = penstock.Retry(on=ValueError, attempts=2, initial=1)
    await penstock.stream([object()]).map(work, on_error="skip", retry=retry).drain()
    assert len(caplog.records) == 3
    for record in caplog.records:
        assert all(isinstance(each, str | int | float) or "Stats" in type(each).__name__ for each in record.args)


def test_silent_until_configured():
    program = """
import asyncio, penstock
retry = penstock.Retry(on=ZeroDivisionError, attempts=2, initial=0)
asyncio.run(penstock.stream([0]).map(lambda n: 1 / n, on_error="skip", retry=retry).drain())
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
