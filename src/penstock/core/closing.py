"""Closes iterators, and coroutines that nobody will await."""

import asyncio
from collections.abc import AsyncIterator, Awaitable

from penstock.core.errors import as_failure


def close(what: object) -> None:
    """Close `what`, if it can be closed."""
    closing = getattr(what, "close", None)
    if closing is not None:
        closing()


def close_awaitable(value: object) -> None:
    """Close or cancel `value` if it is an awaitable, which nobody will await; any other value is the user's."""
    if asyncio.isfuture(value):
        value.cancel()
        value.add_done_callback(_retrieve)
    elif isinstance(value, Awaitable):
        close(value)  # pyright: ignore[reportUnknownArgumentType] -- of what, does not matter


def _retrieve(future: asyncio.Future[object]) -> None:
    """Have the loop know that nobody wants its exception."""
    if not future.cancelled():
        future.exception()


async def aclose(iterator: AsyncIterator[object] | None) -> None:
    """Close an async iterator, if it can be closed, in the task that has read it.

    A cancellation that closing raises of its own accord is an error like any other. A GeneratorExit that a TaskGroup
    round a `yield` puts into a group is none.
    """
    closing = getattr(iterator, "aclose", None)
    if closing is None or getattr(iterator, "ag_frame", iterator) is None:  # an async generator that has ended
        return
    task = asyncio.current_task()
    asked = task.cancelling() if task is not None else 0
    try:
        await closing()
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > asked:
            raise
        raise as_failure(error, "closing an async iterator") from error
    except BaseExceptionGroup as group:
        _, others = group.split(GeneratorExit)
        if others is not None:
            raise others from None
