"""Finds what a piece of code leaves behind when it is done."""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Self

from penstock.core.open_runs import closed_runs
from penstock.core.scope import Scope
from penstock.testing.describe import describe_generator, describe_task
from penstock.testing.processes import children, describe_process
from penstock.testing.virtual import VirtualLoop


class Leftovers:
    """A `with` block that raises AssertionError if it leaves anything behind.

    Inside a running loop it looks for tasks, timers (of virtual loops and of asyncio's), jobs in executors (of virtual
    loops), async generators that were begun and not closed, errors that only the loop's exception handler was told, and
    runs of streams that have ended without accounting for every item. It collects garbage first: only then is it known
    that nobody will retrieve an exception. (`gc.freeze()` before a test makes that cheap.) Outside of a loop it looks
    for threads and child processes. What was there before the block does not count.

    An exception that leaves the block is not replaced: it gets the findings as a note.
    """

    def __init__(self) -> None:
        loop = _running_loop()
        self._in_loop = loop is not None
        self._watches = _watches_outside() if loop is None else _watches_inside(loop)

    def __enter__(self) -> Self:
        for watch in self._watches:
            watch.begin()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        found = self.found()
        for watch in self._watches:
            watch.end()
        if not found:
            return
        message = f"left behind: {'; '.join(found)}"
        if error is None:
            raise AssertionError(message)
        error.add_note(message)

    def found(self) -> list[str]:
        """Return a line on each thing that the block would leave behind if it ended now."""
        if self._in_loop:
            gc.collect()
        return [line for watch in self._watches for line in watch.left()]


class _Watch:
    """Looks for one kind of thing."""

    def begin(self) -> None:
        """Begin to look."""

    def end(self) -> None:
        """Undo what `begin` has changed."""

    def left(self) -> Iterable[str]:
        """Return a line on each thing that is left."""
        raise NotImplementedError


class _Newcomers(_Watch):
    """Compares what lives now with what lived before."""

    def __init__(self, living: Callable[[], Mapping[Any, Any]], describe: Callable[[Any], str]) -> None:
        self._living = living
        self._describe = describe
        self._before: set[Any] = set()

    def begin(self) -> None:
        self._before = set(self._living())

    def left(self) -> Iterable[str]:
        return [self._describe(one) for key, one in self._living().items() if key not in self._before]


class _Generators(_Watch):
    """Follows async generators from their first step, by the hooks that event loops use."""

    def __init__(self) -> None:
        self._begun: weakref.WeakSet[AsyncGenerator[Any, Any]] = weakref.WeakSet()
        self._abandoned: list[str] = []
        self._hooks = sys.get_asyncgen_hooks()

    def begin(self) -> None:
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._on_begun, self._on_abandoned)

    def end(self) -> None:
        sys.set_asyncgen_hooks(*self._hooks)

    def left(self) -> Iterable[str]:
        unclosed = [generator for generator in self._begun if getattr(generator, "ag_frame", None)]
        return [*(describe_generator(generator) for generator in unclosed), *self._abandoned]

    def _on_begun(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._begun.add(generator)
        if self._hooks.firstiter is not None:
            self._hooks.firstiter(generator)

    def _on_abandoned(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._abandoned.append(f"{describe_generator(generator)}, collected unclosed")
        if self._hooks.finalizer is not None:
            self._hooks.finalizer(generator)


class _Complaints(_Watch):
    """Collects what the loop tells its exception handler: exceptions that nobody retrieved, callbacks that raised."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handler = loop.get_exception_handler()
        self._heard: list[str] = []

    def begin(self) -> None:
        self._handler = self._loop.get_exception_handler()
        self._loop.set_exception_handler(self._hear)

    def end(self) -> None:
        self._loop.set_exception_handler(self._handler)

    def left(self) -> Iterable[str]:
        return self._heard

    def _hear(self, _: asyncio.AbstractEventLoop, complaint: dict[str, Any]) -> None:
        self._heard.append(f"{complaint['message']}: {complaint.get('exception')!r}")


class _Accounts(_Watch):
    """Balances the books of every run that ends: each item that was taken must have exactly one outcome."""

    def __init__(self) -> None:
        self._wrong: list[str] = []

    def begin(self) -> None:
        closed_runs.append(self._balance)

    def end(self) -> None:
        closed_runs.remove(self._balance)

    def left(self) -> Iterable[str]:
        return self._wrong

    def _balance(self, run: Scope) -> None:
        if run.left_work_behind:
            return
        for stage in run.stats():
            outcomes = (stage.delivered, stage.dropped, stage.failed, stage.cancelled, stage.discarded)
            if stage.in_flight or min(outcomes) < 0:
                self._wrong.append(f"books of stage {stage.name!r} that do not balance: {stage}")


def _watches_inside(loop: asyncio.AbstractEventLoop) -> list[_Watch]:
    return [
        _Newcomers(lambda: {task: task for task in asyncio.all_tasks(loop)}, describe_task),
        _Newcomers(lambda: _timers(loop), lambda timer: f"timer {timer!r}"),
        _Newcomers(lambda: _jobs(loop), lambda fn: f"executor job {fn!r}"),
        _Generators(),
        _Complaints(loop),
        _Accounts(),
    ]


def _watches_outside() -> list[_Watch]:
    return [
        _Newcomers(
            lambda: {thread: thread for thread in threading.enumerate()}, lambda thread: f"thread {thread.name!r}"
        ),
        _Newcomers(lambda: {pid: pid for pid in children()}, describe_process),
    ]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


def _timers(loop: asyncio.AbstractEventLoop) -> Mapping[Any, asyncio.TimerHandle]:
    waiting = loop.timers if isinstance(loop, VirtualLoop) else getattr(loop, "_scheduled", ())
    return {(id(timer), timer.when()): timer for timer in waiting if not timer.cancelled()}


def _jobs(loop: asyncio.AbstractEventLoop) -> Mapping[Any, Any]:
    return loop.jobs.at_work if isinstance(loop, VirtualLoop) else {}
