"""The clients of a model: one for each request at a time, kept while requests overlap, and none after."""

import asyncio

import pytest

from penstock.flow.services import _Clients


class Client:
    def __init__(self, made):
        made.append(self)
        self.closed = 0

    async def close(self):
        self.closed += 1
        await asyncio.sleep(0)


class Lender:
    def __init__(self):
        self.made = []
        self._clients = _Clients()

    async def use(self, seconds, key="key"):
        async with self._clients.lend(key, lambda: Client(self.made)) as client:
            await asyncio.sleep(seconds)
        return client


async def test_the_client_that_was_used_last_is_used_again():
    """So those that a burst has left over are found idle, and their connections are closed."""
    lender = Lender()
    first = asyncio.create_task(lender.use(100))
    two, one = await asyncio.gather(lender.use(2), lender.use(1))
    assert await lender.use(1) is two
    assert len(lender.made) == 3
    assert not any(each.closed for each in lender.made)
    for _ in range(5):
        assert await lender.use(1) is two
    assert (one.closed, two.closed) == (1, 0)
    await first
    assert [each.closed for each in lender.made] == [1, 1, 1]


async def test_each_key_has_its_clients():
    """A key that was changed meanwhile is not that of a client that was made before."""
    lender = Lender()
    one, other = await asyncio.gather(lender.use(1, "a"), lender.use(2, "b"))
    assert one is not other
    assert one.closed == other.closed == 1


async def test_a_cancellation_while_they_are_closed_leaves_none():
    lender = Lender()
    users = asyncio.gather(*(lender.use(1) for _ in range(3)))
    await asyncio.sleep(1)
    while not any(each.closed for each in lender.made):  # noqa: ASYNC110 -- a pass at a time
        await asyncio.sleep(0)
    users.cancel()
    with pytest.raises(asyncio.CancelledError):
        await users
    assert [each.closed for each in lender.made] == [1, 1, 1]


async def test_one_that_cannot_be_made_leaves_nothing():
    clients = _Clients()
    with pytest.raises(ZeroDivisionError):
        async with clients.lend("key", lambda: 1 / 0):
            pass
    assert not clients._open


async def test_a_connection_that_breaks_while_it_is_closed_fails_no_request():
    class Broken(Client):
        async def close(self):
            raise OSError("it is gone")

    made, clients = [], _Clients()
    async with clients.lend("key", lambda: Broken(made)) as client:
        pass
    assert made == [client]
