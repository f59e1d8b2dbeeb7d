"""Operators that group items."""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, override

from penstock.core import validate
from penstock.core.errors import as_failure
from penstock.core.outcome import Failed
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage, Through
from penstock.core.validate import plain_result


@dataclass(frozen=True, slots=True)
class WeightLimit:
    """How heavy a batch may be: `weight(item)` gives a number >= 0, `most` is the largest sum."""

    weight: Callable[[Any], float]
    most: float


class Batch[T](Through[T, list[T]]):
    """Hands on lists of `size` items, the last one shorter; after `within` seconds, a list of what is there.

    The time counts from the first item of each batch, so there are no empty batches. Before an end or an error the
    partial batch is handed on. With `limit`, an item that would make a batch too heavy begins the next one.
    """

    __slots__ = ("_asked", "_due", "_items", "_limit", "_over", "_size", "_timer", "_weight", "_within")

    def __init__(
        self, scope: Scope, upstream: Stage[T], size: int, within: float | None, limit: WeightLimit | None = None
    ) -> None:
        super().__init__(scope, upstream, f"batch({size})")
        self._size = size
        self._within = within
        self._limit = limit
        self._weight = 0.0
        self._over = False
        self._items: list[T] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self._asked = False

    @override
    def pull(self, room: int) -> Pulled[list[T]]:
        while not self._is_full() and not self._is_due():
            if self._takes_ready_items():
                continue
            item = END if self._over else self.upstream.pull(room * self._size - len(self._items))
            if item is PENDING:
                self._asked = True
                return PENDING
            if item is END:
                return self._hand_over() if self._items else END
            self._taken += 1
            weight = 0.0 if self._limit is None else self._weigh(item, self._limit)
            if self._over:
                continue
            if self._limit is not None and self._items and self._weight + weight > self._limit.most:
                batch = self._hand_over()
                self._add(item, weight)
                return batch
            self._add(item, weight)
        return self._hand_over()

    def _takes_ready_items(self) -> bool:
        """Take what is there at once, if anything: a twentieth of the time of a pull for each."""
        missing = self._size - len(self._items)
        if missing <= 1 or self._limit is not None or not (ready := self.upstream.ready_list(missing)):
            return False
        if not self._items:
            self._begin_waiting()
        self._taken += len(ready)
        self._items += ready
        return True

    def _is_full(self) -> bool:
        return len(self._items) >= self._size or (self._limit is not None and self._weight >= self._limit.most)

    def _weigh(self, item: T, limit: WeightLimit) -> float:
        try:
            return validate.number("weight(item)", limit.weight(item), least=0)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            self._failed += 1
            self.scope.fail(Failed(as_failure(error), self._taken - 1, item, self.name))
            self._over = True
            self.scope.stop(self.upstream)
            return 0.0

    def _add(self, item: T, weight: float) -> None:
        self._items.append(item)
        self._weight += weight
        if len(self._items) == 1:
            self._begin_waiting()

    def _begin_waiting(self) -> None:
        if self._within is not None:
            self._timer = self.scope.loop.call_later(self._within, self._time_is_up)

    def _hand_over(self) -> list[T]:
        items, self._items = self._items, []
        self._weight = 0.0
        self._cancel_timer()
        self._delivered += len(items)
        return items

    def _is_due(self) -> bool:
        """Whether the batch's time is up. It looks at the clock: a source that is always ready lets no timer run."""
        return self._due or (self._timer is not None and self.scope.loop.time() >= self._timer.when())

    def _time_is_up(self) -> None:
        self._due = True
        self._pass_on()

    @override
    def _pass_on(self) -> None:
        """Tell the stage below once, whether an item or the time comes first."""
        if self._asked:
            self._asked = False
            self.on_ready()

    def _cancel_timer(self) -> None:
        self._due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @override
    def close(self) -> None:
        self._cancel_timer()
        self._discarded += len(self._items)
        self._items.clear()


class GroupBy[T, K: Hashable](Through[T, tuple[K, list[T]]]):
    """Hands on pairs of a key and the list of items that came one after the other with it, `size` items at most (P5).

    A group is complete when an item with another key comes, or at the end. As with a batch, what is there is handed on
    before an error.
    """

    __slots__ = ("_items", "_key", "_key_of", "_over", "_size")

    def __init__(
        self, scope: Scope, upstream: Stage[T], name: str, key_of: Callable[[Any], Any], size: int | None
    ) -> None:
        super().__init__(scope, upstream, name)
        self._key_of = key_of
        self._size = size
        self._key: Any = None
        self._items: list[T] = []
        self._over = False

    @override
    def pull(self, room: int) -> Pulled[tuple[K, list[T]]]:
        while not self._is_full():
            item = END if self._over else self.upstream.pull(room)
            if item is PENDING:
                return PENDING
            if item is END:
                return self._hand_over() if self._items else END
            self._taken += 1
            try:
                key = plain_result("key", self._key_of(item))
                is_next = bool(self._items) and bool(key != self._key)
            except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
                self._fail(item, error)
                continue
            group = self._hand_over() if is_next else None
            self._key = key
            self._items.append(item)
            if group is not None:
                return group
        return self._hand_over()

    def _is_full(self) -> bool:
        return self._size is not None and len(self._items) >= self._size

    def _hand_over(self) -> tuple[K, list[T]]:
        items, self._items = self._items, []
        self._delivered += len(items)
        return self._key, items

    def _fail(self, item: T, error: BaseException) -> None:
        self._failed += 1
        self.scope.fail(Failed(as_failure(error), self._taken - 1, item, self.name))
        self._over = True
        self.scope.stop(self.upstream)

    @override
    def close(self) -> None:
        self._discarded += len(self._items)
        self._items.clear()
