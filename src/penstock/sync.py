"""Streams in plain code: a run on a loop of its own, in a thread of its own."""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import Future
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self, override

from penstock.core.outcome import Failed
from penstock.core.stats import Stats
from penstock.run import Run

_END: Final[Any] = object()


class SyncRun[T](Iterator[T]):
    """A run to be read with `for`: a context manager that leaves no work, loop or thread behind (P4).

    Made by `Stream.sync()`. Work runs on a loop of its own, even if another loop is running; clients that were made on
    another loop do not work there. Ctrl-C interrupts the `for`, and leaving the block then stops the work. Each item
    costs a change of threads.
    """

    def __init__(self, run: Run[T]) -> None:
        self._run = run
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def __del__(self) -> None:
        """End the loop of a run that was entered and never left; the run itself says so."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)

    @override
    def __repr__(self) -> str:
        return f"<SyncRun{repr(self._run).removeprefix('<Run')}"

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("this run is being read already: a second `with` block needs a stream.sync() of its own")
        started: Future[asyncio.AbstractEventLoop] = Future()
        thread = Thread(target=_serve, args=(started,), name="penstock sync", daemon=True)
        try:
            thread.start()
            self._loop, self._thread = started.result(), thread
        except BaseException:  # Ctrl-C, or no memory: the thread, which may have started, is to end
            if not started.cancel():
                self._loop = started.result()
            self._thread = thread
            self._close()
            raise
        try:
            self._call(self._run.__aenter__())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._call(self._run.__aexit__(kind, error, traceback))
        finally:
            self._close()

    def __next__(self) -> T:
        item = self._call(self._next())
        if item is _END:
            raise StopIteration
        return item  # type: ignore[no-any-return] # a T; the end is told apart above

    def stop(self) -> None:
        """Take nothing more from the source; what is in flight finishes and is delivered, then the run ends."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._run.stop)

    def stats(self) -> Stats:
        """Return the counters of every stage, as `Run.stats` does."""
        return self._run.stats()

    @property
    def state(self) -> Mapping[str, Any]:
        """The snapshots of the checkpoints, as `Run.state`."""
        return self._run.state

    @property
    def failures(self) -> tuple[Failed, ...]:
        """The items that failed and did not end the run, as `Run.failures`."""
        return self._run.failures

    async def _next(self) -> Any:
        return await anext(self._run, _END)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` on the loop and wait for it; an interrupt here cancels it there."""
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("a stream is read inside `with stream.sync() as items`")
        outcome: list[Any] = []
        future = asyncio.run_coroutine_threadsafe(_note(outcome, coroutine), self._loop)
        try:
            future.result()
        except BaseException:
            future.cancel()
            raise
        error, value = outcome.pop(), outcome.pop()
        if error is not None:
            try:
                raise error
            finally:
                del error, self  # the traceback holds this frame, and this frame would hold the error
        return value

    def _close(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
        if thread is not None and thread.ident is not None:
            thread.join()


def _serve(started: Future[asyncio.AbstractEventLoop]) -> None:
    """Run a loop until it is stopped; do nothing if nobody waits for it any more."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        if started.set_running_or_notify_cancel():
            started.set_result(loop)
            loop.run_forever()


async def _note(outcome: list[Any], coroutine: Coroutine[Any, Any, Any]) -> None:
    """Put what `coroutine` returns or raises into `outcome`: a future between threads holds itself and its result."""
    value = error = None
    try:
        value = await coroutine
    except Exception as raised:  # noqa: BLE001 -- it is the caller's
        error = raised
    outcome += value, error
    del value, error
