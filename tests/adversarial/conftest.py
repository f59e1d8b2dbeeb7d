"""What the tests of traps share."""

import asyncio

import pytest


@pytest.fixture
def raising():
    """Make a function that raises `base` for item 2, of one of the kinds that run in different places."""

    def make(base, kind):
        def plain(number):
            if number == 2:
                raise base("mine")
            return number

        async def coroutine(number):
            await asyncio.sleep(0)
            return plain(number)

        async def at_once(number):
            return plain(number)

        return {"plain": plain, "async": coroutine, "async, at once": at_once, "lambda": lambda item: plain(item)}[kind]

    return make
