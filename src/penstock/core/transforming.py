"""The stage of a `transform`: an async generator reads the items itself.

One task runs the generator and closes it. The generator goes on when the stage below asks and has room (P2); each item
that it reads is pulled from the stage above at that moment. An item has its outcome when the generator asks for the
next one, as nobody can say which outputs it became (P5). As long as the task lives the stage is busy, so sources are
closed after the generator (P4).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from types import TracebackType
from typing import Any, cast, override

from penstock.core.clock import now
from penstock.core.closing import aclose
from penstock.core.errors import ConcurrentReadError, OptionError, as_failure
from penstock.core.outcome import Failed
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage


class Items[T](AsyncIterator[T]):
    """The items of a stage, as a generator reads them; the failure of a stage above is raised here, too."""

    __slots__ = ("_stage",)

    def __init__(self, stage: "Transforming[T, Any]") -> None:
        self._stage = stage

    async def __anext__(self) -> T:
        return await self._stage.next_item()


class Transforming[T, U](Stage[U]):
    """Hands on what `make(items)`, an async iterable, gives (P2, P4, P5).

    `signal` is called before the generator is cancelled.
    """

    __slots__ = (
        "_asked",
        "_came_with",
        "_ended",
        "_failure",
        "_held",
        "_inbox",
        "_interrupted",
        "_is_gone",
        "_item",
        "_make",
        "_pulling",
        "_reading",
        "_room",
        "_signal",
        "_stopping",
        "_task",
        "_upstream_over",
        "_wakeup",
        "upstream",
    )

    def __init__(
        self,
        scope: Scope,
        upstream: Stage[T],
        name: str,
        make: Callable[[AsyncIterator[T]], AsyncIterable[U]],
        signal: Callable[[], None],
    ) -> None:
        super().__init__(scope, name)
        self.upstream: Stage[T] = upstream
        self._make = make
        self._signal = signal
        self._inbox: deque[U] = deque()
        self._room = 0
        self._asked = self._ended = self._stopping = self._interrupted = self._pulling = False
        self._held = self._upstream_over = self._is_gone = False
        self._reading = False
        self._item: T | None = None
        self._failure: BaseException | None = None
        self._came_with: TracebackType | None = None
        self._task: asyncio.Task[None] | None = None
        self._wakeup: asyncio.Future[None] | None = None
        upstream.on_ready = self._wake

    # For the stage below

    @override
    def pull(self, room: int) -> Pulled[U]:
        if not self._inbox and not self._ended:
            self._room = room
            if self._task is None:
                self._start()
            elif not self._pulling:
                self._wake()
        if self._inbox:
            self._room -= 1
            return self._inbox.popleft()
        if self._ended:
            return END
        self._asked = True
        return PENDING

    def _start(self) -> None:
        task = self._task = self.scope.spawn(self._run())
        if task.done():
            self._gone(task)
        else:
            task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        """Note that the task has ended, also if it was cancelled before its first step (gh-116048)."""
        self._ended = self._is_gone = True
        if self._held:
            self._settle_held(cancelled=self._interrupted)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.scope.cleanup_failed(Failed(as_failure(error), self._taken, None, self.name))
        self._tell()
        self.scope.work_stopped()

    def _tell(self) -> None:
        if self._asked:
            self._asked = False
            self.on_ready()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    # The task

    async def _run(self) -> None:
        iterator: AsyncIterator[U] | None = None
        try:
            iterator = self._opened()
            await self._read(iterator)
        except StopAsyncIteration:
            pass
        except asyncio.CancelledError as error:
            if not self._stopping:
                self._failed_with(error)
        except BaseException as error:  # noqa: BLE001 -- raised to the consumer, whatever it is
            self._failed_with(error)
        if self._failure is not None:  # its frames would tie it to this stage
            self._failure.__traceback__ = self._came_with
            self._failure = self._came_with = None
        self._ended = True
        if self._held and not self._stopping:
            self._settle_held()
        self.scope.stop(self.upstream)
        self._tell()
        try:
            await aclose(iterator)
        except (SystemExit, KeyboardInterrupt) as error:  # from a task they would go through the loop
            self.scope.cleanup_failed(Failed(error, self._taken, None, self.name))

    def _opened(self) -> AsyncIterator[U]:
        made: Any = self._make(Items(self))
        if not isinstance(made, AsyncIterable):
            closing = getattr(made, "close", None)
            if closing is not None:
                closing()
            raise OptionError(
                f"the function of transform {self.name!r} must give an async iterable, got {type(made).__name__}"
            )
        return aiter(cast("AsyncIterable[U]", made))

    async def _read(self, iterator: AsyncIterator[U]) -> None:
        while not self._stopping:
            if len(self._inbox) >= self._room:
                await self._sleep()
                continue
            if now() > self.scope.turn_ends:
                await self.scope.pause()
                continue
            self._pulling = True
            try:
                output = await anext(iterator)
            finally:
                self._pulling = False
            if self._stopping:
                return
            self._inbox.append(output)
            self._tell()

    async def _sleep(self) -> None:
        """Wait until woken."""
        self._wakeup = self.scope.loop.create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None

    async def next_item(self) -> T:
        """Give the next item to the generator; its last one is through then.

        Raises:
            StopAsyncIteration: there is none.
            BaseException: a stage above has failed with it.
        """
        if self._reading:
            raise ConcurrentReadError(f"two anext() calls at once on the items of {self.name}")
        self._reading = True
        try:
            return await self._next_item()
        finally:
            self._reading = False

    async def _next_item(self) -> T:
        if self._held:
            self._settle_held()
        while not self._ended and not self._upstream_over:
            if now() > self.scope.turn_ends:
                await self.scope.pause()
                continue
            item = self.upstream.pull(1)
            if item is PENDING:
                await self._sleep()
            elif item is END:
                self._upstream_over = True
                self._raise_failure()
            else:
                self._taken += 1
                self._held = True
                self._item = item
                return item
        raise StopAsyncIteration

    def _raise_failure(self) -> None:
        """Raise what ended the stages above; whatever the generator makes of it, the run raises it in the end."""
        failure = self.scope.failure
        if failure is not None and isinstance(failure.error, Exception):
            self._failure, self._came_with = failure.error, failure.error.__traceback__
            raise failure.error

    def _settle_held(self, *, cancelled: bool = False) -> None:
        self._held = False
        self._item = None
        if cancelled:
            self._cancelled += 1
        else:
            self._delivered += 1

    def _failed_with(self, error: BaseException) -> None:
        if error is self._failure:  # it comes back from where it was raised
            return
        failed = Failed(as_failure(error, f"transform {self.name!r}"), max(self._taken - 1, 0), self._item, self.name)
        if self._held:
            self._held = False
            self._item = None
            self._failed += 1
        if self._stopping:
            self.scope.cleanup_failed(failed)
        else:
            self.scope.fail(failed)

    # For the scope

    @override
    def stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        if self._task is None:
            self._ended = True
        elif not self._ended:
            self._signal()
            if self._pulling and not self._interrupted:
                self._interrupted = True  # once: a second cancellation would hit its cleanup
                self._task.cancel(self.scope.reason)
            else:
                self._wake()
        self._ended = True
        self.scope.stop(self.upstream)
        self._tell()

    @override
    def busy(self) -> str | None:
        return f"stage {self.name!r}" if self._task is not None and not self._is_gone else None

    @override
    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        return task is not None and task is self._task

    @override
    def close(self) -> None:
        self._inbox.clear()
        if self._held:
            self._settle_held(cancelled=True)
