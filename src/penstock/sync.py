"""Streams in plain code: a run on a loop of its own, in a thread of its own."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from threading import Lock, Thread, current_thread
from types import TracebackType
from typing import Any, Final, Self, override

from penstock.core.clock import now
from penstock.core.outcome import Failed
from penstock.core.stats import Stats
from penstock.run import Run, last_stage

_END: Final[Any] = object()

_TELL: Final = 0.001
"""Seconds after which the loop is told of what the `for` has taken: this costs 10 us."""


class SyncRun[T](Iterator[T]):
    """A run to be read with `for`: a context manager that leaves no work, loop or thread behind (P4).

    Made by `Stream.sync()`. Work runs on a loop of its own, even if another loop is running; clients that were made on
    another loop do not work there. Ctrl-C interrupts the `for`, and leaving the block then stops the work.

    A change of threads brings the next result and those that wait behind it. They count as waiting (P1) until the `for`
    has taken them: the loop is told when it asks for more, and at least every millisecond.
    """

    def __init__(self, run: Run[T]) -> None:
        self._run = run
        self._there: deque[T] = deque()
        self._untold = 0  # results that were put into `_there` and that the run takes as waiting
        self._tell_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._interrupted: _LoopCall | None = None

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
            self._call(self._leave(kind, error, traceback))
        finally:
            self._there.clear()
            self._close()

    def __next__(self) -> T:
        try:
            item: Any = self._there.popleft()
        except IndexError:
            if not self._call(self._next()):
                raise StopIteration from None
            self._tell_at = now() + _TELL
            item = self._there.popleft()
        else:
            if now() > self._tell_at and self._loop is not None:
                self._loop.call_soon_threadsafe(self._note_taken)
                self._tell_at = now() + _TELL
        return item  # type: ignore[no-any-return] # a T; the end is told apart above

    def stop(self) -> None:
        """Take nothing more from the source; what is in flight finishes and is delivered, then the run ends."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._run.stop)

    def stats(self) -> Stats:
        """Return the counters of every stage, as `Run.stats` does."""
        if self._loop is not None and self._untold:
            if current_thread() is self._thread:
                self._note_taken()
            else:
                self._call(self._noted())
        return self._run.stats()

    @property
    def state(self) -> Mapping[str, Any]:
        """The snapshots of the checkpoints, as `Run.state`."""
        return self._run.state

    @property
    def failures(self) -> tuple[Failed, ...]:
        """The items that failed and did not end the run, as `Run.failures`."""
        return self._run.failures

    async def _next(self) -> bool:
        """Put the next item, and those that wait behind it, where `__next__` finds them; return whether there is one.

        So a read that ends when its thread was interrupted loses nothing.
        """
        self._note_taken()
        if self._there:  # of the read that was interrupted
            return True
        item: Any = await anext(self._run, _END)
        if item is _END:
            return False
        self._there.append(item)
        if (stage := last_stage(self._run)) is not None:
            self._there.extend(waiting := stage.waiting())
            self._untold = len(waiting)
        return True

    async def _noted(self) -> None:
        self._note_taken()

    def _note_taken(self) -> None:
        """Count those as handed on that `__next__` has taken; one step of it takes one, so an interrupt loses none."""
        if taken := self._untold - min(self._untold, len(self._there)):  # the first one is told already
            self._untold -= taken
            if (stage := last_stage(self._run)) is not None:
                stage.hand_on(taken)

    async def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._note_taken()
        await self._run.__aexit__(kind, error, traceback)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` on the loop and wait for it; an interrupt here cancels it there."""
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("a stream is read inside `with stream.sync() as items`")
        call = _LoopCall(self._loop, coroutine, self._interrupted)
        self._interrupted = None
        try:
            value, error = call.outcome()
        except BaseException:
            self._interrupted = call
            call.cancel()
            raise
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


class _LoopCall:
    """A coroutine that runs on a loop for a thread that waits for it.

    It begins in the pass of the loop that hears of it, and wakes the thread where it ends: 16 us of processor time less
    than `asyncio.run_coroutine_threadsafe`, which takes two passes more, and a condition.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], before: "_LoopCall | None"
    ) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._before = before  # was cancelled, and may not be over yet: a run has one reader at a time
        self._task: asyncio.Task[None] | None = None
        self._outcome: list[tuple[Any, BaseException | None]] = []
        self._over = Lock()
        self._over.acquire()
        loop.call_soon_threadsafe(self._begin)

    def outcome(self) -> tuple[Any, BaseException | None]:
        """Wait for the end; give what the coroutine returned, or the error that it raised, and keep neither.

        Raises:
            CancelledError: it was cancelled.
        """
        self._over.acquire()
        if not self._outcome:
            raise CancelledError
        return self._outcome.pop()

    async def over(self) -> None:
        """Wait on the loop until the coroutine has ended."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def cancel(self) -> None:
        """Cancel the coroutine, if it still runs."""
        self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self) -> None:
        self._task = asyncio.eager_task_factory(self._loop, self._run())

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            if self._before is not None:
                await self._before.over()
            self._outcome.append((await self._coroutine, None))
        except asyncio.CancelledError:
            self._coroutine.close()
        except BaseException as error:  # noqa: BLE001 -- it is the caller's
            self._outcome.append((None, error))
        finally:
            self._before = None
            self._over.release()
