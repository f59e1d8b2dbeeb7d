"""How a stage calls an engine: attempts with a timeout, cancellation, and iterables that are read there."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import Context
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol, cast

from penstock.core.at_hand import AT_HAND
from penstock.core.closing import close_awaitable
from penstock.core.errands import Errand, Errands
from penstock.core.errors import as_failure
from penstock.core.meter import WAITED
from penstock.core.retry import StillRunning, in_time
from penstock.core.scope import outlast
from penstock.engines.engine import ALL, Answer, Call, Engine
from penstock.engines.groups import AwaitedRequest, Cost, GroupErrands, Groups
from penstock.engines.threads import Threads

_A_DICT: Final[dict[str, str]] = {}
_VIEWS: Final = (type(_A_DICT.keys()), type(_A_DICT.values()), type(_A_DICT.items()))
_NEVER_BLOCKS: Final = (*AT_HAND, *_VIEWS, str, bytes, bytearray, range, AsyncIterable)
"""Iterables that the loop reads: they are in memory, or they wait as the loop does."""


class Binding:
    """Binds functions of one run to an engine: attempts, timeouts and cancellation are the same for all of these.

    When `over` is done, the run has left those calls behind that are not back. `groups` are those of an engine where
    calls travel together; `places` is how many calls of the run there may be at once.
    """

    def __init__(
        self, engine: Engine, over: asyncio.Future[None], groups: Groups | None = None, places: int = 1
    ) -> None:
        self._engine = engine
        self._over = over
        self._groups = groups
        self._places = places
        self._cost = self._unknown_cost()

    def _unknown_cost(self) -> Cost | None:
        return None if self._groups is None else self._groups.cost(self._places)

    def bind(self, fn: Callable[..., Any], timeout: float | None) -> "Bound":
        """Make `fn` an async function that fails after `timeout` seconds; see `Call` for `most`."""
        prepared = self._engine.prepare(fn)
        cost = self._unknown_cost()

        async def call(item: Any, most: int | None = None) -> Any:
            limit = Budget(timeout)
            with limit:
                return await self._awaited(limit, Call(prepared, (item,), most), fn, cost)

        return call

    def errands(
        self, fn: Callable[..., Any]
    ) -> Callable[[Context, Callable[[Sequence[Errand]], None]], Errands] | None:
        """Return what opens a window's errands for `fn`; None where each call needs a task."""
        if self._groups is not None:
            return partial(GroupErrands, self._groups, fn, self._engine.prepare(fn), self._groups.cost(self._places))
        return self._engine.errands(fn) if isinstance(self._engine, Threads) else None

    def bind_fan(self, fn: Callable[..., Any], timeout: float | None) -> "Bound":
        """Make `fn`, which gives iterables, an async function: iterables that may block are read on the engine too."""
        prepared = self._engine.prepare(fn)
        cost = self._unknown_cost()
        most = None if self._engine.in_process else ALL

        async def read(item: Any, _: int | None = None) -> Any:
            limit = Budget(timeout)
            with limit:
                fan = await self._awaited(limit, Call(prepared, (item,), most), fn, cost)
                if isinstance(fan, _NEVER_BLOCKS) or not isinstance(fan, Iterable) or not self._engine.in_process:
                    return cast("Any", fan)
            return EngineIterator(cast("Iterable[Any]", fan), self, limit)

        return read

    async def call(self, fn: Callable[..., Any], arguments: tuple[Any, ...], seconds: float | None) -> Any:
        """Return the result of `fn(*arguments)`, within so many seconds."""
        limit = Budget(seconds)
        with limit:
            return await self._awaited(limit, Call(self._engine.prepare(fn), arguments), fn, self._cost)

    async def _awaited(self, limit: "Budget", call: Call, fn: object, cost: Cost | None) -> Any:
        value = await self._answered(limit, call, fn, cost)
        if isinstance(value, Awaitable):
            return await in_time(cast("Awaitable[Any]", value), asyncio.timeout_at(limit.when), limit.seconds)
        return value

    async def run(self, limit: "Budget", fn: Callable[..., Any], *args: Any) -> Any:
        """Return what `fn(*args)`, a function of penstock, returns on an engine of this process."""
        return await self._answered(limit, Call(fn, args), fn, self._cost)

    def _answered(self, limit: "Budget", call: Call, fn: object, cost: Cost | None) -> Awaitable[Any]:
        return self._alone(limit, call) if cost is None else self._in_group(limit, call, fn, cost)

    async def _in_group(self, limit: "Budget", call: Call, fn: object, cost: Cost) -> Any:
        """Do what `_alone` does with a call that may go with others, when there is a worker for it."""
        assert self._groups is not None
        loop = asyncio.get_running_loop()
        began = loop.time()
        request = AwaitedRequest(fn, call, cost, limit.left)
        self._groups.put(request)
        try:
            outcome = await request.answer
        except asyncio.CancelledError:
            if (end := self._groups.leave(request)) is not None:
                await outlast(end, self._over)
            outcome = request.outcome
            if outcome is None or outcome.error is None or isinstance(outcome.error, asyncio.CancelledError):
                raise
        if outcome is None:
            assert limit.seconds is not None
            assert request.over is not None
            raise StillRunning(limit.seconds, partial(outlast, request.over, self._over))
        waited = loop.time() - began - request.took
        WAITED.set(WAITED.get() + waited)
        limit.extend(waited)
        value, error = outcome.value, outcome.error
        outcome.value = outcome.error = None
        if error is not None:
            try:
                raise error
            finally:
                del error  # the traceback holds this frame, and this frame would hold the error
        return value

    async def _alone(self, limit: "Budget", call: Call) -> Any:
        """Return the result of the call; raise its error, that of `limit`, or a cancellation."""
        answers = self._engine.submit([call])
        late = False
        try:
            if limit.when is None:
                await asyncio.shield(answers)
            else:
                async with asyncio.timeout_at(limit.when):
                    await asyncio.shield(answers)
        except TimeoutError:
            late = True
        except asyncio.CancelledError:
            self._stop(answers)
            try:
                await outlast(answers, self._over)
            except asyncio.CancelledError:
                answers.add_done_callback(_forget)
                raise
            if answers.result()[0].error is None:
                _forget(answers)
                raise
        if late:  # raised here, without a context: that would lead to the task, whose own end may lead here
            assert limit.seconds is not None
            self._stop(answers)
            answers.add_done_callback(_forget)
            raise StillRunning(limit.seconds, partial(outlast, answers, self._over))
        value, error = answers.result()[0].value, answers.result()[0].error
        _empty(answers)
        if error is not None:
            try:
                raise error
            finally:
                del error, answers  # the traceback holds this frame, and this frame would hold the error
        return value

    def _stop(self, answers: asyncio.Future[list[Answer]]) -> None:
        if not answers.done():
            self._engine.stop(answers)

    @property
    def gone(self) -> bool:
        """Whether the run is over and has left running calls behind."""
        return self._over.done()


class Bound(Protocol):
    """A user's function, bound to an engine."""

    def __call__(self, item: Any, most: int | None = None, /) -> Awaitable[Any]:
        """Call it for the item."""
        ...


class Budget:
    """The seconds that an attempt may take; they pass only inside its `with` blocks."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = self.left = seconds
        self.when: float | None = None

    def __enter__(self) -> None:
        self.when = None if self.left is None else asyncio.get_running_loop().time() + self.left

    def __exit__(self, *_: object) -> None:
        if self.when is not None:
            self.left = self.when - asyncio.get_running_loop().time()

    def extend(self, seconds: float) -> None:
        """Leave these seconds out of account: nothing ran."""
        if self.when is not None:
            self.when += seconds


class EngineIterator[T](AsyncIterator[T]):
    """Reads a plain iterable whose reading may block, on an engine of this process, and closes it there.

    If a call cannot be stopped, a cancelled read waits for its item.
    """

    def __init__(self, iterable: Iterable[T], binding: Binding, limit: Budget) -> None:
        self._iterable = iterable
        self._iterator: Iterator[T] | None = None
        self._binding = binding
        self._limit = limit
        self._read: list[T] = []
        self._left_running = False

    async def __anext__(self) -> T:
        try:
            with self._limit:
                await self._binding.run(self._limit, self._next)
        except StopAsyncIteration as error:  # of a plain iterator, it is no end
            raise as_failure(error) from error
        except StillRunning as error:
            self._left_running = True
            raise StillRunning(error.seconds, partial(self._close_behind, error.back)) from None
        if not self._read:
            raise StopAsyncIteration
        return self._read.pop()

    async def aclose(self) -> None:
        """Close the iterator, if it can be closed, no call is inside it, and the run is not over."""
        if self._left_running or self._binding.gone:
            return
        if self._iterator is not None or isinstance(self._iterable, Iterator):
            await self._binding.run(NO_LIMIT, self._close)

    async def _close_behind(self, back: Callable[[], Awaitable[None]]) -> None:
        """Close the iterator when the call that is inside it is back."""
        try:
            await back()
        finally:
            self._left_running = False
            await self.aclose()

    def _next(self) -> None:
        if self._iterator is None:
            self._iterator = iter(self._iterable)
        self._read.extend(islice(self._iterator, 1))

    def _close(self) -> None:
        close = getattr(self._iterable if self._iterator is None else self._iterator, "close", None)
        if close is not None:
            close()


NO_LIMIT: Final = Budget(None)


def _forget(answers: asyncio.Future[list[Answer]]) -> None:
    """Do what `_empty` does with answers that nobody wants: a coroutine among them is never awaited."""
    if not answers.cancelled():
        for each in answers.result():
            close_awaitable(each.value)
    _empty(answers)


def _empty(answers: asyncio.Future[list[Answer]]) -> None:
    """Forget the answers: the future of a thread holds itself, and the frames of an error hold it too."""
    if not answers.cancelled():
        answers.result().clear()
