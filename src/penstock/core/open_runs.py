"""The runs that are open on each loop: to drain them all, and to be told when one is over."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet, ref


class OpenRun(Protocol):
    """What a run has to be to be one of these."""

    loop: asyncio.AbstractEventLoop

    def drain(self) -> None:
        """Take nothing more from the sources."""

    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether `task` is of this run."""
        ...


INSIDE: ContextVar[tuple[ref[OpenRun], ...]] = ContextVar("penstock_inside", default=())
"""The runs whose work or source this is, the outermost first: what they open is part of them."""

closed_runs: list[Callable[[Any], None]] = []
"""Who wants to be told of every run that is over: the test kit, which balances its books."""

_runs: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[OpenRun]] = WeakKeyDictionary()
_drained: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def opened(run: OpenRun) -> None:
    """Note that `run` is open, unless it is part of another one."""
    if INSIDE.get():
        return
    _runs.setdefault(run.loop, WeakSet()).add(run)
    if run.loop in _drained:
        run.drain()


def is_inside(run: OpenRun) -> bool:
    """Whether who asks is work or a source of `run`, or of a run that these have opened: `run` waits for it."""
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
    """Have the runs of `loop` take nothing more, and those that are still to be opened there take nothing at all."""
    _drained.add(loop)
    for run in list(_runs.get(loop, ())):
        run.drain()


def is_draining(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether runs that are opened on `loop` take nothing."""
    return loop in _drained


def end_draining(loop: asyncio.AbstractEventLoop) -> None:
    """Let runs be opened on `loop` as before."""
    _drained.discard(loop)
