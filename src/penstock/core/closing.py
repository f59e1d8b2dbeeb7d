"""Closes iterators, and coroutines that nobody will await."""

import asyncio
from collections.abc import AsyncIterator

from penstock.core.errors import as_failure


def close(what: object) -> None:
    """Close `what`, if it can be closed."""
    closing = getattr(what, "close", None)
    if closing is not None:
        closing()


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
