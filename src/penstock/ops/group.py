"""Operators that group items."""

import asyncio
from typing import override

from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage, Through


class Batch[T](Through[T, list[T]]):
    """Hands on lists of `size` items, the last one shorter; `within` seconds after its first item, what is there.

    The time counts from the first item of each batch, so there are no empty batches. Before an end or an error the
    partial batch goes first.
    """

    def __init__(self, scope: Scope, upstream: Stage[T], size: int, within: float | None) -> None:
        super().__init__(scope, upstream, f"batch({size})")
        self._size = size
        self._within = within
        self._items: list[T] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due = False

    @override
    def pull(self, room: int) -> Pulled[list[T]]:
        items = self._items
        while len(items) < self._size and not self._is_due():
            item = self.upstream.pull(room * self._size - len(items))
            if item is PENDING:
                return PENDING
            if item is END:
                return self._hand_over() if items else END
            self.taken += 1
            items.append(item)
            if len(items) == 1 and self._within is not None:
                self._timer = self.scope.loop.call_later(self._within, self._time_is_up)
        return self._hand_over()

    def _hand_over(self) -> list[T]:
        items, self._items = self._items, []
        self._cancel_timer()
        self.delivered += len(items)
        return items

    def _is_due(self) -> bool:
        """Whether the batch's time is up; looks at the clock, for a source that never lets the timer run."""
        return self._due or (self._timer is not None and self.scope.loop.time() >= self._timer.when())

    def _time_is_up(self) -> None:
        self._due = True
        self.on_ready()

    def _cancel_timer(self) -> None:
        self._due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @override
    def close(self) -> None:
        self._cancel_timer()
        self.discarded += len(self._items)
        self._items.clear()
