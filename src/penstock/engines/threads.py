"""The engine of threads."""

import asyncio
import contextvars
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, override

from penstock.core import validate
from penstock.core.errands import Errand, Errands
from penstock.core.errors import MisuseError
from penstock.engines.engine import Answer, Call, Engine, answer
from penstock.engines.pool import DaemonThreads, PooledCall


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

    def errands(self, fn: Callable[..., Any]) -> Callable[[Context, Callable[[Sequence[Errand]], None]], Errands]:
        """Return what opens a window's errands for `fn`."""
        return partial(ThreadErrands, self._pool, fn)

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


class ThreadErrands(Errands):
    """The errands of a window in threads.

    A loop in virtual time has `job_begins` and `job_ends`: time stands still between these.
    """

    def __init__(
        self,
        pool: DaemonThreads,
        fn: Callable[..., Any],
        context: Context,
        came: Callable[[Sequence[Errand]], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._job_begins = getattr(loop, "job_begins", None)
        super().__init__(loop, came if self._job_begins is None else partial(_note_ends, loop, pool, came))
        self.fn: Callable[..., Any] = fn
        self._pool = pool
        self._copy = context.copy

    @override
    def begin(self, index: int, item: Any, began: float | None) -> Errand:
        errand = ThreadErrand(index, item, began, self, self._copy())
        self._pool.put(errand)
        if self._job_begins is not None:
            self._job_begins(self._pool, errand, self.fn)
        return errand


def _note_ends(
    loop: Any, pool: DaemonThreads, came: Callable[[Sequence[Errand]], None], errands: Sequence[Errand]
) -> None:
    for errand in errands:
        loop.job_ends(pool, errand)
    came(errands)


class ThreadErrand(Errand, PooledCall):
    """A call in a thread, which cannot be stopped."""

    __slots__ = ("_back", "_context", "_errands")

    def __init__(self, index: int, item: Any, began: float | None, errands: ThreadErrands, context: Context) -> None:
        super().__init__(index, item, began)
        self._errands = errands
        self._context = context
        self._back = False

    @override
    def make(self) -> None:
        try:
            self.value: Any = self._context.run(self._errands.fn, self.item)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            self.error: BaseException | None = error

    @override
    def drop(self) -> None:
        self.stopped = True

    @override
    def tell(self) -> None:
        self._back = True
        self._errands.bring(self)

    def done(self) -> bool:
        """Whether the thread is back, for a loop that counts jobs."""
        return self._back


def _answers(calls: Sequence[Call]) -> list[Answer]:
    return [answer(call.fn, call.arguments, call.most) for call in calls]


def _tell(future: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the thread comes back after its time, and the loop is closed
        future.get_loop().call_soon_threadsafe(_wake, future)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
