"""The user's handle on an opened stream.

The tasks of a run hold its scope and stages, never this handle. So an abandoned handle is collected, and can warn.
"""

import asyncio
import inspect
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from traceback import walk_stack
from types import TracebackType
from typing import Any, Final, Literal, Self, override

from penstock.core import open_runs
from penstock.core.errors import ConcurrentReadError, OptionError, Place, UnclosedStreamWarning, caller
from penstock.core.outcome import Failed, Reason
from penstock.core.pump import Pump
from penstock.core.scope import DEEP, Outlet, Scope, outlast
from penstock.core.snapshots import Snapshots
from penstock.core.stage import AT_ONCE, END, PENDING, Pulled, Signal, Stage
from penstock.core.stats import Stats
from penstock.core.traces import TRACER
from penstock.progress import show_progress

FEW: Final = 50
"""Stages that fit on any stack."""

FRAMES: Final = 300
"""Stack frames that a run needs, beside two for each stage that starts no task."""

_NO_SNAPSHOTS: Final = Snapshots()

type OpenStage = Callable[[Scope], Stage[Any]]


def _refuse_too_many(scope: Scope) -> None:
    """Raise if there are too many stages that ask the one above within one call: they would not fit on the stack."""
    if len(scope.stages) < FEW:
        return
    between = [0]  # windows: those of one pump after another are on the stack together
    for stage in scope.stages:
        if isinstance(stage, Pump):
            between.append(0)
        else:
            between[-1] += 1
    asking = max(sum(between[first : first + DEEP + 2]) for first in range(len(between)))
    if 2 * asking > sys.getrecursionlimit() - _depth() - FRAMES:
        raise too_many_stages()


def too_many_stages() -> OptionError:
    """Make the error for a stream with more stages in one call than the stack can hold."""
    limit = sys.getrecursionlimit()
    return OptionError(
        f"a stream of so many stages does not fit on a stack of {limit} frames: see sys.setrecursionlimit"
    )


def _depth() -> int:
    return sum(1 for _ in walk_stack(inspect.currentframe()))


def _at_the_end(_room: int) -> Literal[Signal.END]:
    return END


def _give(stage: Stage[Any], room: int, keep: Callable[[Any], object]) -> None:
    for item in stage.ready_items(room):
        keep(item)


class Run[T](AsyncIterator[T]):
    """One run of a stream: an async iterator over its results, and a context manager that leaves nothing running (P4).

    Made by `Stream.open()`. Nothing is read and nothing starts before the first `anext`. A cancelled `anext` loses
    nothing (P5); two at once raise `ConcurrentReadError`.
    """

    def __init__(
        self,
        open_stage: OpenStage,
        grace: float,
        *,
        timing: bool,
        progress: bool,
        room: int = 1,
        describe: Callable[[], str] = str,
        title: str = "stream",
    ) -> None:
        self._room = room
        self._describe = describe
        self._title = title
        self._opened_at: Place = caller()
        self._open_stage = open_stage
        self._grace = grace
        self._timing = timing
        self._progress = progress
        self._outlet = Outlet()
        self._scope: Scope | None = None
        self._stage: Stage[T] | None = None
        self._pull: Callable[[int], Pulled[T]] | None = None  # how to take an item, while there is nothing against it
        self._ready_room = 0  # how many items are taken at once, if its stage may have some ready
        self._reading = False
        self._over = False

    @override
    def __repr__(self) -> str:
        return f"<Run {self._state()}, of {self._describe() or 'work'}>"

    def _state(self) -> str:
        if self._scope is None:
            return "over" if self._over else "not begun"
        stages = self.stats().stages
        handed_on = f"{stages[-1].delivered:,} handed on" if stages else "nothing handed on"
        return f"{'over' if self._over else 'going on'}, {handed_on}"

    async def __aenter__(self) -> Self:
        try:
            if not self._over:
                self._start()
        except BaseException as error:
            await self._leave(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave(error)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            item: Any = (self._pull or self._begin_reading())(self._room)
        except Exception as error:
            if self._pull is None:
                raise
            self._crashed(error)
            item = END
        if item is PENDING:
            item = await self._wait()
        if item is END:
            await self._end()
            raise StopAsyncIteration
        return item  # type: ignore[no-any-return] # a T; Any spares a cast per item

    async def _read_to_end(self, keep: Callable[[Any], object]) -> None:
        """Do what `__anext__` does, to the end: an item that is there at once costs no coroutine, and most no pull."""
        pull, room, outlet, stage = self._pull or self._begin_reading(), self._room, self._outlet, self._stage
        if stage is None:  # it was stopped before it began
            return
        stage.give_to(keep)
        self._reading = True
        self._pull = None
        item: Any = PENDING
        waited = False
        try:
            while item is not END:
                try:
                    item = END if self._over or outlet.crashed else pull(room)
                    if item is not PENDING and item is not END:
                        keep(item)
                        if self._ready_room and not waited:
                            self._take_ready(keep)
                        waited = False
                        continue
                except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
                    self._crashed(error)
                if item is PENDING and not outlet.crashed:
                    waited = True
                    await outlet.wait(stage.scope.loop)
                    stage.scope.begin_turn()
        finally:
            self._reading = False
            self._pull = None if self._over else stage.pull
        await self._end()

    def _take_ready(self, keep: Callable[[Any], object]) -> None:
        stage = self._stage
        assert stage is not None
        stage.scope.enter(partial(_give, stage, self._ready_room, keep))

    def _begin_reading(self) -> Callable[[int], Pulled[T]]:
        """Return how to pull the first item; a run that is over has none."""
        if self._reading:
            raise ConcurrentReadError("two anext() calls at once on one run: an item would have two takers")
        return _at_the_end if self._over else self._start().pull

    async def _wait(self) -> Any:
        """Wait for the next item or the end."""
        stage = self._stage
        assert stage is not None
        scope = stage.scope
        self._reading = True
        self._pull = None
        try:
            item: Any = PENDING
            while item is PENDING:
                if self._outlet.crashed:
                    return END
                await self._outlet.wait(scope.loop)
                try:
                    scope.begin_turn()
                    item = END if self._over or self._outlet.crashed else stage.pull(self._room)
                except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
                    self._crashed(error)
                    item = END
            return item
        finally:
            self._reading = False
            self._pull = None if self._over else stage.pull

    def _crashed(self, error: Exception) -> None:
        """End the run with an error of penstock's own: there is no stack, or no memory."""
        assert self._stage is not None
        self._stage.scope.crash(self._stage.name, error)

    async def _end(self) -> None:
        """Close the run at its end; raise its failure, if it has one that was not raised yet."""
        scope = self._scope
        if scope is None:
            return
        scope.begin_close()
        self._reading = self._over = True
        self._pull = None
        try:
            await asyncio.shield(scope.closed)
        finally:
            self._reading = False
        scope.report_unstopped(self._opened_at)
        error = scope.take_failure()
        scope.raise_cleanup_errors(error)
        if error is not None:
            try:
                raise error
            finally:
                del error, self, scope  # the traceback holds this frame, and this frame would hold the error

    def _start(self) -> Stage[T]:
        if self._stage is None:
            scope = self._scope = Scope(self._grace, timing=self._timing)
            scope.blocked.opened_at = self._opened_at
            tracer = TRACER.get()
            try:
                if tracer is not None:
                    scope.trace = tracer.begin(self._title, self._describe(), scope.context)
                self._stage = self._open_stage(scope)
                _refuse_too_many(scope)
                if scope.trace is not None:
                    scope.trace.opened([each.name for each in scope.stages])
            except BaseException as error:
                self._over = True
                scope.begin_close()
                if isinstance(error, RecursionError):
                    raise too_many_stages() from error
                raise
            scope.outlet = self._outlet
            self._stage.on_ready = self._outlet.wake
            open_runs.opened(scope)
            if self._progress:
                show_progress(scope)
            self._pull = self._stage.pull
            if self._stage.has_ready_items:
                self._ready_room = AT_ONCE if self._stage.ready_items_last else self._room
        return self._stage

    async def _leave(self, error: BaseException | None) -> None:
        scope = self._scope
        if scope is not None and open_runs.is_inside(scope):
            raise ConcurrentReadError(
                "work that leaves the run that it is part of would wait for itself: to end that run, call its abort()"
            )
        self._over = True
        self._pull = None
        if scope is None:
            return
        scope.begin_close(error)
        try:
            await outlast(scope.closed)
        except asyncio.CancelledError as cancelled:
            error = cancelled if error is None else error
            raise
        finally:
            self._outlet.wake()
            scope.report_unstopped(self._opened_at)
            scope.raise_cleanup_errors(error)

    async def aclose(self) -> None:
        """Stop and await all work in flight, then close the source; nothing of this run is left (P4).

        Work of this run cannot call it, as it would wait for itself; it can `abort` or `stop` the run.

        Raises:
            ConcurrentReadError: work of this run asks.
            Exception: the first error of cleanup or of closing the source, with the others in its notes.
        """
        await self._leave(None)

    def stop(self) -> None:
        """Take nothing more from the source; what is in flight finishes and is delivered, then the run ends."""
        if self._scope is not None:
            self._scope.drain()
        else:
            self._over = True

    @property
    def was_stopped(self) -> bool:
        """Whether it was told to take nothing more from its source."""
        return self._over if self._scope is None else self._scope.drained

    def abort(self, reason: Reason = "caller cancelled") -> None:
        """Cancel what is in flight and take nothing more; what has finished is still delivered, then the run ends (P4).

        Work of this run may call it: it is in flight like the rest, and is cancelled where it waits next.
        """
        if self._stage is None:
            self._over = True
        elif not self._over:
            self._stage.scope.reason = reason
            self._stage.stop()

    def stats(self) -> Stats:
        """Return what every stage counts and measures until now, from the source down (P5).

        `str()` of it is a table.
        """
        return Stats() if self._scope is None else self._scope.stats()

    @property
    def state(self) -> Mapping[str, Any]:
        """The snapshots of the checkpoints, by name, as they are at each reading: while the run goes on, and after.

        An unknown name, and the last item before the first has passed, is a `KeyError` that lists the names there are.
        """
        return _NO_SNAPSHOTS if self._scope is None else self._scope.snapshots

    @property
    def failures(self) -> tuple[Failed, ...]:
        """The items that failed and did not end the run, and those that failed after the one that did.

        The newest 1,000 are kept; `stats()` counts them all.
        """
        return () if self._scope is None else tuple(self._scope.failures)

    def __del__(self, warn: Callable[..., None] = warnings.warn_explicit) -> None:
        scope = self._scope
        if scope is None or self._over or (scope.closing and not scope.ended_with_loop):
            return
        if scope.loop.is_closed():
            scope.abandon()
        else:
            scope.loop.call_soon_threadsafe(scope.begin_close)
        warn(
            "a stream was left before its end and its work stopped only now: "
            "to leave early, use `async with stream.open() as items`",
            UnclosedStreamWarning,
            *self._opened_at,
            source=self,
        )


async def read_to_end(run: Run[Any], keep: Callable[[Any], object]) -> None:
    """Give all items of a run to `keep`, a function of penstock's own: what is there at once is taken together."""
    await run._read_to_end(keep)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- of this file


def last_stage[T](run: Run[T]) -> Stage[T] | None:
    """Give the stage that hands on the items of a run, for a reader who takes many at once; None while it is read."""
    stage = run._stage  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- of this file
    can_pull = run._pull is not None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- as above
    return stage if can_pull else None
