"""The engine of threads."""

import asyncio
import contextvars
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, override

from penstock.core import validate
from penstock.core.errors import MisuseError
from penstock.engines.engine import Answer, Call, Engine, answer
from penstock.engines.pool import DaemonThreads


class Threads(Engine):
    """Runs plain functions in up to `workers` daemon threads of this process; context variables go along.

    A thread cannot be stopped: after a timeout or a cancellation a call is over only when its thread is back.

    Args:
        workers: how many calls can run at once, an int >= 1.
        name: what the threads are called.

    Raises:
        OptionError: an argument breaks its rule.

    Example:
        async with penstock.engines.Threads(8) as engine:
            pages = penstock.stream(paths).map(read, engine=engine).map(parse, engine=engine)
    """

    in_process = True

    def __init__(self, workers: int, *, name: str = "threads") -> None:
        self._workers = validate.whole("workers", workers, least=1)
        self._name = f"penstock {validate.text('name', name)}"
        self._pool = DaemonThreads(self._workers, self._name)
        self._pid = os.getpid()
        self._closed = False

    @override
    def __reduce__(self) -> tuple[object, ...]:
        """Stand for an engine like this one, with threads of its own, in another process."""
        return Threads, (self._workers,)

    @override
    def prepare(self, fn: Callable[..., Any], /) -> Any:
        if self._pid != os.getpid():  # a child that was forked has none of the threads
            self._pool = DaemonThreads(self._workers, self._name)
            self._pid = os.getpid()
        return fn

    @override
    def submit(self, calls: Sequence[Call], /) -> asyncio.Future[list[Answer]]:
        if self._closed:
            raise MisuseError(f"{self.describe()} was closed: it runs no calls any more")
        context = contextvars.copy_context()
        return asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(_answers, calls))

    @override
    def slots(self) -> int:
        return self._workers

    @override
    def describe(self) -> str:
        return f"Threads({self._workers})"

    @override
    async def aclose(self, grace: float = 5.0) -> None:
        """End it: threads in no call are gone; a call that runs has `grace` seconds, then its thread is left behind."""
        self.abandon()
        if grace and not self._pool.idle:
            back = asyncio.get_running_loop().create_future()
            self._pool.when_idle(partial(_tell, back))
            await asyncio.wait([back], timeout=grace)
            self._pool.shutdown()

    @override
    def abandon(self) -> None:
        self._closed = True
        self._pool.shutdown()


def _answers(calls: Sequence[Call]) -> list[Answer]:
    return [answer(call.fn, call.arguments, call.most) for call in calls]


def _tell(future: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the thread comes back after its time, and the loop is closed
        future.get_loop().call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
