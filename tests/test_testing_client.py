"""The fake client takes its time, replies or fails as it is told, and counts."""

import asyncio
from functools import partial

import pytest

import penstock
from penstock.testing import FakeClient, FakeFailure

pytestmark = pytest.mark.grid


async def test_it_counts_the_calls_in_progress_and_keeps_their_requests(clock):
    client = FakeClient(delay=2)
    calls = [asyncio.create_task(client(request)) for request in "abc"]
    await asyncio.sleep(1)
    assert (client.now, client.peak, client.calls) == (3, 3, ["a", "b", "c"])
    assert await asyncio.gather(*calls) == ["a", "b", "c"]
    assert (client.now, client.peak, clock.now) == (0, 3, 2)
    await client("d")
    assert (client.peak, client.calls) == (3, ["a", "b", "c", "d"])
    assert repr(client) == "<FakeClient 4 calls, 0 now, 3 at most>"


async def test_it_proves_a_bound():
    """P1: what it is for."""
    client = FakeClient(reply=str.upper)
    assert await penstock.stream("abcdefgh").map(client, concurrency=3).to_list() == list("ABCDEFGH")
    assert (client.peak, len(client.calls)) == (3, 8)


async def test_the_delay_may_depend_on_the_request(clock):
    client = FakeClient(delay=lambda seconds: seconds)
    await client(3)
    assert clock.now == 3
    await client(4)
    assert clock.now == 7


async def test_it_takes_a_twentieth_of_a_second_by_default(clock):
    await FakeClient()("x")
    assert clock.now == 0.05


async def test_the_call_of_that_number_fails_when_it_has_taken_its_time(clock):
    client = FakeClient(delay=1, fail_at=2)
    assert await client("a") == "a"
    with pytest.raises(FakeFailure, match=r"^call 2 fails$"):
        await client("b")
    assert clock.now == 2
    assert await client("c") == "c"
    assert (client.gauge.finished, client.gauge.failed, client.now) == (2, 1, 0)


@pytest.mark.parametrize("error", [ConnectionError("mine"), ConnectionError], ids=["exception", "class"])
async def test_several_calls_may_fail_and_the_error_may_be_chosen(error):
    client = FakeClient(delay=0, fail_at={1, 3}, error=error)
    results = await asyncio.gather(*map(client, "abc"), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError, str, ConnectionError]
    assert isinstance(error, type) or results[0] is error


async def test_calls_count_in_the_order_in_which_they_start():
    """Whichever ends first: the second to start fails."""
    client = FakeClient(delay=lambda request: 9 - request, fail_at=2)
    results = await asyncio.gather(*map(client, [1, 2, 3]), return_exceptions=True)
    assert [type(result) for result in results] == [int, FakeFailure, int]


async def test_a_cancelled_call_is_no_longer_in_progress():
    client = FakeClient(delay=60)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await client("a")
    assert (client.now, client.peak, client.gauge.cancelled) == (0, 1, 1)


async def test_a_task_is_a_partial_of_it(clock):
    client = FakeClient(reply=len)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(partial(client, word)()) for word in ("one", "three")]
    assert [task.result() for task in tasks] == [3, 5]
