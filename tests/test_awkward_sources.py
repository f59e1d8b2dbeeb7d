"""Sources that do what sources should not while they are stopped and closed; and stages that are asked after an end."""

import asyncio

import pytest

from penstock import stream

pytestmark = pytest.mark.grid


class Boom(Exception):
    pass


class Source:
    """An async iterator that waits for ever after its first item."""

    def __init__(self, *, when_cancelled=None, on_close=None):
        self.when_cancelled, self.on_close = when_cancelled, on_close
        self.given = False
        self.closed = 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.given:
            self.given = True
            return 0
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if self.when_cancelled is not None:
                raise self.when_cancelled from None
            raise

    async def aclose(self):
        self.closed += 1
        if self.on_close is not None:
            await self.on_close()


async def leave(source):
    async with stream(source).prefetch(2).open() as items:
        assert await anext(items) == 0
        await asyncio.sleep(1)


async def test_a_source_that_fails_as_it_is_stopped_fails_the_leaving():
    """P5: it is an error of cleanup, raised from leaving; the source is closed all the same (P4)."""
    error = Boom()
    source = Source(when_cancelled=error)
    with pytest.raises(Boom) as raised:
        await leave(source)
    assert raised.value is error
    assert source.closed == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_an_exit_in_closing_a_source_is_raised_from_leaving(kind):
    """P5: it does not go through the loop, past whoever is leaving."""
    error = kind()

    async def on_close():
        raise error

    with pytest.raises(kind) as raised:
        await leave(Source(on_close=on_close))
    assert raised.value is error


async def test_closing_a_source_that_cancels_its_task_ends_the_closing():
    """P4: control returns, and nothing of the run is left."""

    async def on_close():
        asyncio.current_task().cancel()
        await asyncio.sleep(60)

    source = Source(on_close=on_close)
    await leave(source)
    assert source.closed == 1


async def test_a_zip_that_has_ended_may_be_asked_again():
    """A partial batch goes first, and then asks for what there is no more of."""
    assert await stream("abc").zip(stream(range(9))).batch(2).to_list() == [[("a", 0), ("b", 1)], [("c", 2)]]
