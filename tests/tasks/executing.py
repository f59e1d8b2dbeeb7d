"""Tasks for executors, and what is asked of their results."""

import asyncio

from penstock import (
    Retry,
)
from penstock.tasks.executor import TaskExecutor

HOUR = 3600.0
EVERY_SECOND = Retry(on=Exception, attempts=3, initial=1, factor=1, jitter=0)


async def after(seconds, value=None):
    await asyncio.sleep(seconds)
    return value


async def failing(seconds, error):
    await asyncio.sleep(seconds)
    raise error


def failing_once(error, value):
    """A task that fails the first time."""
    errors = [error]

    async def task():
        if errors:
            raise errors.pop()
        return value

    return task


def noting(log, name):
    """A task of a second that notes when it is started."""

    async def task():
        log.append(name)
        await asyncio.sleep(1)

    return task


async def stubborn(seconds):
    """Go on for `seconds`, whatever cancellation comes."""
    end = asyncio.get_running_loop().time() + seconds
    while (left := end - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
    return "late"


def fed(*tasks, **options):
    """An executor to which `tasks` were added."""
    executor = TaskExecutor(**options)
    for task in tasks:
        executor.add(task)
    return executor


def was_cancelled(result, attempts, reason="caller cancelled"):
    return (
        not result.success
        and result.result is None
        and type(result.error) is asyncio.CancelledError
        and result.error.args == (reason,)
        and result.attempts == attempts
    )
