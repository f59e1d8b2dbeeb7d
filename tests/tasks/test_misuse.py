"""A task that can never run is a mistake of the caller's, not an outcome: it is raised, by all that run tasks."""

from functools import partial

import pytest

from penstock import OptionError, Retry
from penstock.tasks import TaskExecutor, first_success, gather, race, retry_failed, run_tasks, settle
from penstock.testing import Gauge

from .executing import after

CALLERS = [
    pytest.param(partial(gather, concurrency=3), id="gather"),
    pytest.param(partial(settle, concurrency=3), id="settle"),
    pytest.param(partial(settle, concurrency=1), id="settle-1"),
    pytest.param(race, id="race"),
    pytest.param(first_success, id="first_success"),
]


@pytest.mark.parametrize(
    "call", [*CALLERS, pytest.param(partial(retry_failed, rounds=1, concurrency=3), id="retry_failed")]
)
@pytest.mark.parametrize("value", [3, None, "task", [after]])
async def test_what_cannot_be_called(call, value, clock):
    gauge = Gauge()
    with pytest.raises(OptionError, match="a task must be callable or a coroutine object, got") as raised:
        await call([partial(gauge.wrap(after), 9), value, partial(after, 9)])
    assert "item 1" in raised.value.__notes__[0]
    assert gauge.now == 0


@pytest.mark.parametrize("call", CALLERS)
async def test_a_coroutine_twice(call):
    """Its first turn may have come to its end; the others are closed."""
    coroutine, other = after(1), after(9)
    with pytest.raises(OptionError, match="cannot reuse already awaited coroutine"):
        await call([coroutine, coroutine, other])


@pytest.mark.parametrize("call", CALLERS)
async def test_a_coroutine_that_was_awaited_before(call):
    coroutine = after(0)
    await coroutine
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await call([coroutine, partial(after, 9)])


async def test_retries_of_a_coroutine():
    for call in (gather, settle):
        with pytest.raises(OptionError, match="retry needs functions that can be called again"):
            await call([after(0), partial(after, 0)], concurrency=2, retry=Retry(on=OSError))


async def test_tasks_with_a_token():
    with pytest.raises(OptionError, match="a task must be callable"):
        await run_tasks([lambda token: after(1), 3], concurrency=2)


async def test_a_wrong_option_inside_of_a_task_is_that_tasks_failure():
    async def wrong():
        raise OptionError("own")

    one, other = await settle([wrong, partial(after, 1, "x")], concurrency=2)
    assert (str(one.error), other.value) == ("own", "x")


async def test_an_executor_refuses_it_when_it_is_added():
    executor, coroutine = TaskExecutor(retry=None), after(0)
    await coroutine
    with pytest.raises(OptionError, match="cannot reuse already awaited coroutine"):
        executor.add(coroutine)
    with pytest.raises(OptionError, match="fn must be callable"):
        executor.add(3)


async def test_a_coroutine_that_is_awaited_after_it_was_added_fails_alone():
    executor, coroutine = TaskExecutor(retry=None), after(0)
    executor.add(coroutine)
    executor.add(partial(after, 1, "there"))
    await coroutine
    one, other = await executor.run()
    assert isinstance(one.error, OptionError)
    assert other.result == "there"
