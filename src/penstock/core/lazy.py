"""Tasks that a task factory starts lazily: they begin in a later pass of the loop, or, cancelled before, never."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from penstock.core.clock import now
from penstock.core.plan import Call, Later
from penstock.core.scope import Scope


class LazyTasks[T, U]:
    """The tasks that have not begun; `never_began(index, item)` is called for each that never will (gh-116048)."""

    def __init__(self, scope: Scope, never_began: Callable[[int, T], None]) -> None:
        self._scope = scope
        self._never_began = never_began
        self._items: dict[asyncio.Task[None], tuple[int, T, Call[T, U]]] = {}
        self._waiting: dict[asyncio.Task[None] | None, None] = {}  # those that have begun too late in a turn, in order

    def __len__(self) -> int:
        return len(self._items)

    def note(
        self, task: asyncio.Task[None], call: Coroutine[Any, Any, None], index: int, item: T, work: Call[T, U]
    ) -> None:
        """Remember what `task` is to do, if it has not begun with its `call`."""
        if inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
            self._items[task] = index, item, work
            self._scope.unbegun += 1
            task.add_done_callback(self._done)

    async def begin(self) -> None:
        """Begin the current task, after those before it; when the turn is over, in a later pass of the loop (P9)."""
        task = asyncio.current_task()
        noted = task is not None and self._items.pop(task, None) is not None
        if task is not None and noted:
            task.remove_done_callback(self._done)
        self._waiting[task] = None
        try:
            while next(iter(self._waiting)) is not task or now() > self._scope.turn_ends:
                self._scope.request_turn()
                await asyncio.sleep(0)
        finally:
            del self._waiting[task]
            self._scope.unbegun -= noted

    def _done(self, task: asyncio.Task[None]) -> None:
        index, item, work = self._items.pop(task)
        self._scope.unbegun -= 1
        if isinstance(work, Later):
            work.close()
        self._never_began(index, item)
