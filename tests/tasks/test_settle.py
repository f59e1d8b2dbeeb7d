"""`settle`, `partition` and `retry_failed`: what became of each task."""

import asyncio
from functools import partial

import pytest

from penstock import AttemptTimeout, Cancelled, Failed, NoResultError, NotStarted, Ok, OptionError, Retry
from penstock.tasks import CancelToken, partition, retry_failed, settle
from penstock.testing import Gauge

from .executing import after, failing

pytestmark = pytest.mark.grid


async def test_an_outcome_for_each_task_in_their_order():
    """P5: a failure stops nothing."""
    error = ValueError("bad")
    tasks = [partial(after, 3, "a"), partial(failing, 1, error), lambda: None]
    assert await settle(tasks, concurrency=3) == [
        Ok("a", 0),
        Failed(error, 1, tasks[1], "settle"),
        Ok(None, 2),
    ]


class Unsized(list):
    """Has a `__len__` and no length."""

    def __len__(self):
        raise TypeError


async def test_tasks_whose_length_raises_are_run_as_those_without():
    """Those that were never pulled are not known of."""
    assert await settle(Unsized([lambda: 1, lambda: 2]), concurrency=1) == [Ok(1, 0), Ok(2, 1)]
    token = CancelToken()
    assert await settle(Unsized([token.cancel, lambda: 2]), concurrency=1, cancel=token) == [Ok(None, 0)]


async def test_at_most_so_many_at_once():
    """P1."""
    gauge = Gauge()
    outcomes = await settle([partial(gauge.wrap(after), 1, each) for each in range(7)], concurrency=3)
    assert [outcome.unwrap() for outcome in outcomes] == list(range(7))
    assert gauge.peak == 3


async def test_no_tasks():
    assert await settle([], concurrency=1) == []


async def test_retry_and_timeout_are_per_attempt(clock):
    retry = Retry(on=AttemptTimeout, attempts=3, initial=1, factor=1, jitter=0)
    [outcome] = await settle([partial(after, 9, 1)], concurrency=1, timeout=2, retry=retry)
    assert isinstance(outcome.error, AttemptTimeout)
    assert outcome.attempts == 3
    assert clock.now == 3 * 2 + 2 * 1


async def test_a_token_stops_the_rest():
    token = CancelToken()
    asyncio.get_running_loop().call_later(2.5, token.cancel)
    tasks = [
        partial(after, 1, "a"),
        partial(after, 9, "b"),
        partial(after, 1, "c"),
        partial(after, 9, "d"),
        after(0, 0),
    ]
    assert await settle(tasks, concurrency=2, cancel=token) == [
        Ok("a", 0),
        Cancelled(1, "caller cancelled"),
        Ok("c", 2),
        Cancelled(3, "caller cancelled"),
        NotStarted(4),
    ]


async def test_a_result_that_is_there_when_the_token_is_signalled_counts():
    """P5: it is not lost between its task and the one who reads."""
    token = CancelToken()

    async def signals():
        await asyncio.sleep(1)
        token.cancel()
        return "last"

    assert await settle([signals, partial(after, 5, 1)], concurrency=2, cancel=token) == [
        Ok("last", 0),
        Cancelled(1, "caller cancelled"),
    ]


async def test_a_token_that_was_signalled_before():
    token = CancelToken()
    token.cancel()
    assert await settle([after(1, 1), partial(after, 1, 1)], concurrency=2, cancel=token) == [
        NotStarted(0),
        NotStarted(1),
    ]


async def test_of_an_iterable_without_length_only_what_was_pulled_is_told():
    token = CancelToken()
    asyncio.get_running_loop().call_later(1, token.cancel)
    outcomes = await settle((partial(after, 9, each) for each in range(99)), concurrency=2, cancel=token)
    assert outcomes == [Cancelled(0, "caller cancelled"), Cancelled(1, "caller cancelled")]


async def test_a_failure_of_what_is_being_stopped_is_its_outcome():
    """P5: an error of cleanup is neither lost nor raised."""
    token = CancelToken()
    asyncio.get_running_loop().call_later(1, token.cancel)

    async def fails_when_stopped():
        try:
            await asyncio.sleep(9)
        finally:
            raise KeyError("cleanup")

    [outcome] = await settle([fails_when_stopped], concurrency=1, cancel=token)
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, KeyError)


async def test_cancelling_it_cancels_all():
    """P4, P8."""
    gauge = Gauge()
    token = CancelToken()
    caller = asyncio.create_task(settle([partial(gauge.wrap(after), 9, 1)] * 5, concurrency=2, cancel=token))
    await asyncio.sleep(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (gauge.started, gauge.cancelled) == (2, 2)
    assert not token._callbacks


async def test_a_token_must_be_one():
    with pytest.raises(OptionError, match="cancel must be a CancelToken, got 'now'"):
        await settle([after(0, 1)], concurrency=1, cancel="now")


async def test_outcomes_are_sorted_by_kind():
    error = ValueError("bad")
    failed = Failed(error, 1, None, "settle")
    parted = partition([Ok("a", 0), failed, Ok(None, 2), Cancelled(3, "deadline"), NotStarted(4)])
    assert parted == ([Ok("a", 0), Ok(None, 2)], [failed], [Cancelled(3, "deadline")], [NotStarted(4)])
    assert parted.values == ["a", None]


async def test_unwrap_gives_the_value_or_says_why_there_is_none():
    assert Ok(None, 0).unwrap() is None
    error = ValueError("bad")
    with pytest.raises(ValueError, match="bad") as raised:
        Failed(error, 0, None, "settle").unwrap()
    assert raised.value is error
    with pytest.raises(NoResultError, match="task 3 was cancelled: sibling failed"):
        Cancelled(3, "sibling failed").unwrap()
    with pytest.raises(NoResultError, match="task 4 was not started"):
        NotStarted(4).unwrap()


def test_outcomes_are_frozen():
    for outcome in (Ok(1, 0), Failed(ValueError(), 0, None, "settle"), Cancelled(0, "deadline"), NotStarted(0)):
        with pytest.raises(AttributeError):
            outcome.index = 7


def flaky(failures, log, name):
    left = iter(range(failures))

    async def task():
        log.append(name)
        await asyncio.sleep(1)
        if next(left, None) is not None:
            raise ConnectionError(name)
        return name

    return task


async def test_only_what_failed_is_called_again():
    """Results take the places of their tasks; a result is never called again."""
    log = []
    results = await retry_failed([flaky(0, log, "a"), flaky(2, log, "b"), flaky(1, log, "c")], rounds=3, concurrency=3)
    assert results == [Ok("a", 0), Ok("b", 1), Ok("c", 2)]
    assert log == ["a", "b", "c", "b", "c", "b"]


async def test_what_still_fails_after_the_last_round_has_failed():
    log = []
    [ok, failed] = await retry_failed([flaky(0, log, "a"), flaky(9, log, "b")], rounds=2, concurrency=1)
    assert ok == Ok("a", 0)
    assert (failed.index, failed.attempts, failed.stage) == (1, 3, "retry_failed")
    assert log == ["a", "b", "b", "b"]


async def test_no_rounds_is_one_call():
    log = []
    [failed] = await retry_failed([flaky(1, log, "a")], rounds=0, concurrency=1)
    assert (failed.attempts, log) == (1, ["a"])
    assert await retry_failed([], rounds=3, concurrency=1) == []


async def test_retry_failed_refuses_what_cannot_be_called_again():
    with pytest.raises(OptionError, match="retry_failed needs functions that can be called again"):
        await retry_failed([lambda: 1, after(0, 1)], rounds=1, concurrency=1)
    with pytest.raises(OptionError, match="rounds must be an int >= 0, got -1"):
        await retry_failed([lambda: 1], rounds=-1, concurrency=1)
