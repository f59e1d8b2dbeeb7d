"""The runs that are open on each loop, so that all of them can be drained."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet, ref


class OpenRun(Protocol):
    """A run, as far as this module needs it."""

    loop: asyncio.AbstractEventLoop

    def drain(self) -> None:
        """Take nothing more from the sources."""

    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether `task` belongs to this run."""
        ...


INSIDE: ContextVar[tuple[ref[OpenRun], ...]] = ContextVar("penstock_inside", default=())
"""The runs whose work or source this is, the outermost first: runs that it opens are part of them."""

closed_runs: list[Callable[[Any], None]] = []
"""Functions to call with every run that ends: the test kit balances its books so."""

_runs: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[OpenRun]] = WeakKeyDictionary()
_drained: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def opened(run: OpenRun) -> None:
    """Note that `run` is open, unless it is part of another run."""
    if INSIDE.get():
        return
    _runs.setdefault(run.loop, WeakSet()).add(run)
    if run.loop in _drained:
        run.drain()


def is_inside(run: OpenRun) -> bool:
    """Whether the caller is work or a source of `run`, or of a run that these have opened: `run` waits for it."""
    task = asyncio.current_task()
    inside = [each() for each in INSIDE.get()]
    innermost = inside[-1] if inside else None
    return run.runs(task) or (run in inside and innermost is not None and innermost.runs(task))


def closed(run: OpenRun) -> None:
    """Note that `run` is over."""
    if run.loop in _runs:
        _runs[run.loop].discard(run)
    for watch in closed_runs:
        watch(run)


def drain(loop: asyncio.AbstractEventLoop) -> None:
    """Make the runs of `loop` take nothing more, and runs that are opened there later take nothing at all."""
    _drained.add(loop)
    for run in list(_runs.get(loop, ())):
        run.drain()


def is_draining(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether runs that are opened on `loop` take nothing."""
    return loop in _drained


def end_draining(loop: asyncio.AbstractEventLoop) -> None:
    """Let runs on `loop` be opened as before."""
    _drained.discard(loop)
