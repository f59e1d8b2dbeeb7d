"""Tasks that go on within the call that tells them to."""

import asyncio

import pytest

from penstock.core.standby import Standby


async def test_a_task_goes_on_within_the_call_and_is_the_current_one():
    standby, caller, seen = Standby(asyncio.get_running_loop()), asyncio.current_task(), []

    async def work():
        for number in range(3):
            await standby
            seen.append((number, asyncio.current_task()))
        return "done"

    task = asyncio.ensure_future(work())
    standby.resume()  # it has not begun, so nobody waits yet
    await asyncio.sleep(0)
    for number in range(3):
        standby.resume()
        assert seen[number:] == [(number, task)]
        assert asyncio.current_task() is caller
    assert task.done()
    assert await task == "done"


async def test_from_outside_of_tasks_it_goes_on_too():
    standby = Standby(asyncio.get_running_loop())

    async def work():
        await standby
        assert asyncio.current_task() is task

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(standby.resume)
    await task


@pytest.mark.parametrize("message", [(), ("why",)])
async def test_a_task_that_is_cancelled_there_goes_on_with_that(message):
    """P8: in the next pass, as from a future; to tell it to go on changes nothing then."""
    standby = Standby(asyncio.get_running_loop())

    async def work():
        await standby

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    assert task.cancel(*message)
    standby.resume()
    assert not task.done()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    assert raised.value.args == message


async def test_a_task_that_cancels_itself_is_cancelled_where_it_waits_next():
    standby, seen = Standby(asyncio.get_running_loop()), []

    async def work():
        await standby
        asyncio.current_task().cancel()
        seen.append("goes on")
        await standby
        seen.append("never")

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    standby.resume()
    await asyncio.wait([task])
    assert task.cancelled()
    assert seen == ["goes on"]


async def test_what_a_task_raises_is_its_own():
    standby = Standby(asyncio.get_running_loop())

    async def work():
        await standby
        raise KeyError

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    standby.resume()
    assert asyncio.current_task() is not task
    with pytest.raises(KeyError):
        await task
