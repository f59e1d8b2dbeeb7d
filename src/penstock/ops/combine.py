"""Operators that combine streams."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from typing import Any, Final, override

from penstock.core.clock import now
from penstock.core.fair_turns import PASSES
from penstock.core.outcome import Failed
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage


class _Joint[T](Stage[T]):
    """A stage below several other stages."""

    __slots__ = ("_upstreams",)

    def __init__(self, scope: Scope, upstreams: Sequence[Stage[Any]], name: str) -> None:
        super().__init__(scope, name)
        self._upstreams = tuple(upstreams)

    @override
    def stop(self) -> None:
        for upstream in self._upstreams:
            self.scope.stop(upstream)


class _Input:
    """One of the merged stages, with its next item."""

    __slots__ = ("item", "served", "stage", "waiting")

    def __init__(self, stage: Stage[Any], number: int) -> None:
        self.stage = stage
        self.served = number
        self.item: Any = None
        self.waiting = False

    def __lt__(self, other: "_Input") -> bool:
        return self.served < other.served


class Merge[T](_Joint[T]):
    """Hands on the items of several stages as they come.

    If several have one, the stage served longest ago goes first (P3). Holds one item of each. While some stages have
    none, those that are ready give one item each; then the loop gets a few passes, so that a source that is always
    ready does not starve the others. If a stage fails, the others are stopped; what they have finished is handed on,
    then the failure ends the stream. See `docs/decisions.md`, "Fairness takes two passes of the loop".
    """

    __slots__ = ("_asked", "_clock", "_given", "_passes_due", "_ready", "_unasked", "_waiting")

    def __init__(self, scope: Scope, upstreams: Sequence[Stage[T]]) -> None:
        super().__init__(scope, upstreams, "merge")
        self._unasked = deque(_Input(stage, number) for number, stage in enumerate(upstreams))
        self._ready: list[_Input] = []
        self._waiting = 0
        self._clock = len(upstreams)
        self._given = 0
        self._passes_due = 0
        self._asked = False
        for source in self._unasked:
            source.stage.on_ready = partial(self._has_item, source)

    @override
    def pull(self, room: int) -> Pulled[T]:
        while self._unasked and not (self._ready and now() > self.scope.turn_ends):  # what blocks holds up no item
            self._ask()
        if self._ready and (not self._waiting or self._given < len(self._ready)):
            return self._hand_over()  # type: ignore[no-any-return] # a T; the sources are of Any
        if not self._ready and not self._waiting:
            return END
        self._asked = True
        return PENDING

    def _hand_over(self) -> Any:
        source = heappop(self._ready)
        item, source.item = source.item, None
        source.served = self._clock
        self._clock += 1
        self._given += 1
        self._unasked.append(source)
        self._delivered += 1
        if not self._passes_due:
            self._passes_due = PASSES
            self.scope.schedule_later(self)
        return item

    def _ask(self) -> None:
        """Ask for the next item of the stage served longest ago, of those whose item has been handed on."""
        source = self._unasked.popleft()
        item = source.stage.pull(1)
        if item is PENDING:
            source.waiting = True
            self._waiting += 1
        elif item is END:
            if self.scope.failure is not None:
                self.stop()
        else:
            self._taken += 1
            source.item = item
            heappush(self._ready, source)

    @override
    def take_turn(self) -> None:
        """Ask again after a pass of the loop, also if nobody pulls; after the last pass, all may give another item."""
        while self._unasked and now() < self.scope.turn_ends:
            self._ask()
        if not self._unasked:
            self._passes_due -= 1
        if self._passes_due:
            self.scope.schedule_later(self)
        else:
            self._given = 0
        self._tell()

    def _has_item(self, source: _Input) -> None:
        if not source.waiting:  # pragma: no cover -- one call per PENDING; a second would spoil the count
            return
        source.waiting = False
        self._waiting -= 1
        self._unasked.append(source)
        self._tell()

    def _tell(self) -> None:
        if self._asked:
            self._asked = False
            self.on_ready()

    @override
    def close(self) -> None:
        self._discarded += len(self._ready)
        self._ready.clear()
        self._unasked.clear()
        self._passes_due = 0


class Chain[T](_Joint[T]):
    """Hands on the items of one stage, then those of the other (P2, P3)."""

    __slots__ = ("_left",)

    def __init__(self, scope: Scope, upstreams: Sequence[Stage[T]]) -> None:
        super().__init__(scope, upstreams, "chain")
        self._left = deque(upstreams)
        for upstream in upstreams:
            upstream.on_ready = self._pass_on

    @override
    def pull(self, room: int) -> Pulled[T]:
        while self._left:
            item = self._left[0].pull(room)
            if item is PENDING:
                return PENDING
            if item is not END:
                self._taken += 1
                self._delivered += 1
                return item
            self._left.popleft()
            if self.scope.failure is not None:
                self.stop()
                self._left.clear()
        return END

    def _pass_on(self) -> None:
        self.on_ready()


class Zip(_Joint[tuple[Any, ...]]):
    """Hands on tuples of one item from each stage, until the first stage ends; holds one item of each (P1, P3).

    It counts items, not tuples: items of longer stages that were read when the shortest ends are discarded (P5).
    """

    __slots__ = ("_asked", "_given", "_items", "_over", "_strict")

    def __init__(self, scope: Scope, upstreams: Sequence[Stage[Any]], *, strict: bool) -> None:
        super().__init__(scope, upstreams, "zip")
        self._items: list[Any] = [PENDING] * len(upstreams)
        self._strict = strict
        self._given = 0
        self._over = False
        self._asked = False
        for upstream in upstreams:
            upstream.on_ready = self._has_item

    @override
    def pull(self, room: int) -> Pulled[tuple[Any, ...]]:
        if self._over:
            return END
        for place, upstream in enumerate(self._upstreams):
            if self._items[place] is PENDING:
                item = self._items[place] = upstream.pull(1)
                self._taken += item is not PENDING and item is not END
        if any(item is END for item in self._items):
            return self._end()
        if any(item is PENDING for item in self._items):
            self._asked = True
            return PENDING
        items, self._items = tuple(self._items), [PENDING] * len(self._upstreams)
        self._given += 1
        self._delivered += len(items)
        return items

    def _end(self) -> Pulled[tuple[Any, ...]]:
        """End if all stages have ended; fail if they must end together and some have not."""
        if self._strict and self.scope.failure is None:
            if any(item is PENDING for item in self._items):
                self._asked = True
                return PENDING
            longer = [place for place, item in enumerate(self._items) if item is not END]
            if longer:
                ended = next(place for place, item in enumerate(self._items) if item is END)
                self.scope.fail(
                    Failed(
                        ValueError(
                            f"zip(strict=True): stream {ended + 1} ended after {self._given} items, "
                            f"stream {longer[0] + 1} has more"
                        ),
                        self._given,
                        None,
                        self.name,
                    )
                )
        self._over = True
        self.stop()
        return END

    def _has_item(self) -> None:
        if self._asked:
            self._asked = False
            self.on_ready()

    @override
    def close(self) -> None:
        self._discarded += self._taken - self._delivered - self._discarded
        self._items.clear()


@dataclass(frozen=True, slots=True)
class Combination:
    """How one operator combines streams.

    Attributes:
        name: of the operator.
        stage: makes its stage, below the stages of the streams.
        shows_order: whether its output shows the order of their items.
        keeps_keys: whether it can be part of a durable run: it hands on every item unchanged, whichever items are
            missing.
    """

    name: str
    stage: Callable[[Scope, Sequence[Stage[Any]]], Stage[Any]]
    shows_order: bool = False
    keeps_keys: bool = False


MERGE: Final = Combination("merge", Merge, keeps_keys=True)
CHAIN: Final = Combination("chain", Chain)


def zipping(*, strict: bool) -> Combination:
    """Make the combination of a `zip`."""
    return Combination("zip", partial(Zip, strict=strict), shows_order=True)
