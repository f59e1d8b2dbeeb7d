"""Operators that look at items as they pass: they wait for nothing and start no task."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import count
from typing import Any, override

from penstock.core.errors import as_failure
from penstock.core.outcome import Failed
from penstock.core.plan import DROPPED
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage, Through
from penstock.core.validate import plain_result

type PassingFunction = Callable[[Any], Any]
"""Gives an item's output, or DROPPED, or END to end the stream before this item."""


class Passing[T, U](Through[T, U]):
    """Hands on what a plain function makes of each item; the function may keep state of this run (P2, P3, P5)."""

    __slots__ = ("_over", "_step")

    def __init__(self, scope: Scope, upstream: Stage[T], name: str, step: PassingFunction) -> None:
        super().__init__(scope, upstream, name)
        self._step = step
        self._over = False

    @override
    def pull(self, room: int) -> Pulled[U]:
        while not self._over:
            item = self.upstream.pull(room)
            if item is PENDING or item is END:
                return item
            self._taken += 1
            output = self._output(item)
            if output is not DROPPED and output is not END:
                self._delivered += 1
                return output  # type: ignore[no-any-return] # a U; the function is the operator's
        return END

    def _output(self, item: T) -> Any:
        try:
            output = self._step(item)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            self._failed += 1
            self.scope.fail(Failed(as_failure(error), self._taken - 1, item, self.name))
            self._end()
            return END
        if output is END:
            self._end()
        if output is END or output is DROPPED:
            self._dropped += 1
        return output

    def _end(self) -> None:
        self._over = True
        self.scope.stop(self.upstream)


def enumerated(start: int) -> PassingFunction:
    """Number the items."""
    numbers = count(start)
    return lambda item: (next(numbers), item)


def scanned(fn: Callable[[Any, Any], Any], initial: Any) -> PassingFunction:
    """Give the state after each item: `fn(state, item)`."""
    state = initial

    def step(item: Any) -> Any:
        nonlocal state
        state = plain_result("fn", fn(state, item))
        return state

    return step


def skipping(number: int) -> PassingFunction:
    """Drop the first `number` items."""
    seen = count()
    return lambda item: DROPPED if next(seen) < number else item


def distinct(key: Callable[[Any], Hashable] | None, last: int | None) -> PassingFunction:
    """Drop items whose key was seen before; with `last`, among the `last` different keys seen most recently."""
    seen: OrderedDict[Hashable, None] = OrderedDict()

    def step(item: Any) -> Any:
        value = item if key is None else plain_result("key", key(item))
        known = value in seen
        seen[value] = None
        if last is not None:
            seen.move_to_end(value)
            if len(seen) > last:
                seen.popitem(last=False)
        return DROPPED if known else item

    return step


class Take[T](Through[T, T]):
    """Hands on `count` items: asks upstream for exactly that many, and stops it before it hands on the last (P2)."""

    __slots__ = ("_left",)

    def __init__(self, scope: Scope, upstream: Stage[T], count: int) -> None:
        super().__init__(scope, upstream, f"take({count})")
        self._left = count

    @override
    def pull(self, room: int) -> Pulled[T]:
        if self._left == 0:
            self.scope.stop(self.upstream)
            return END
        item = self.upstream.pull(min(room, self._left))
        if item is PENDING or item is END:
            return item
        self._taken += 1
        self._delivered += 1
        self._left -= 1
        if self._left == 0:
            self.scope.stop(self.upstream)
        return item
