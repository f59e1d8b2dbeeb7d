"""The two orders in which results are handed on (P3): a window holds one of them, and results wait in it."""

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Protocol, override

from penstock.core.plan import MISSING


class WaitingResults(Protocol):
    """Results that wait to be handed on."""

    def __len__(self) -> int: ...

    def __setitem__(self, index: int, value: Any, /) -> None:
        """Keep the result of the item at `index`."""

    def pop(self, index: int, default: Any, /) -> Any:
        """Remove and return the result of the item at `index`; return `default` if it is not there."""

    def clear(self) -> None:
        """Forget all results."""


class Arrivals(deque[Any]):
    """Results in the order in which they came; indexes do not matter."""

    __slots__ = ()

    @override
    def __setitem__(self, index: Any, value: Any) -> None:
        self.append(value)

    @override
    def pop(self, _index: int = 0, default: Any = MISSING) -> Any:
        return self.popleft() if self else default


class AsFinished:
    """Hands results on as they finish.

    Attributes:
        waiting: the results.
        head: the index to pop the next result by; add 1 for the one after it.
    """

    __slots__ = ("_arrivals", "head", "waiting")

    def __init__(self) -> None:
        self._arrivals: Arrivals = Arrivals()
        self.waiting: WaitingResults = self._arrivals
        self.head: int = 0

    def keep_all(self, first: int, results: Iterable[Any]) -> None:  # noqa: ARG002 -- of those in order
        """Keep the results of items that follow each other, from the item at `first` on."""
        self._arrivals.extend(results)

    def has_next(self) -> bool:
        """Whether the next result can be popped."""
        return len(self.waiting) > 0

    def next_ones(self) -> list[Any]:
        """Return results that can be popped one after the other, those that wait already."""
        return list(self._arrivals)

    def discard_behind(self, _index: int) -> int:
        """Discard results that may never be handed on, as the item at `index` gives none; return how many."""
        return 0


class InOrder(AsFinished):
    """Hands results on in the order of their items.

    An index from `head` on that is neither in `waiting` nor in `running` was settled without a result, or was not taken
    yet. So nothing is kept of it behind a slow head (P7). See `docs/decisions.md`, "The order is kept by index".

    Attributes:
        waiting: the results.
        head: the index whose result is next.
    """

    __slots__ = ("_by_index", "_running", "_steps")

    def __init__(self, running: Mapping[int, object], bound: int) -> None:
        super().__init__()
        self._by_index: dict[int, Any] = {}
        self.waiting: WaitingResults = self._by_index
        self._running = running
        self._steps = 2 * bound

    @override
    def keep_all(self, first: int, results: Iterable[Any]) -> None:
        self._by_index.update(zip(count(first), results))

    @override
    def has_next(self) -> bool:
        waiting, running = self._by_index, self._running
        if self.head in waiting:
            return True
        if not waiting or self.head in running:
            return False
        for head in range(self.head + 1, self.head + self._steps):
            if head in waiting or head in running:
                break
        else:  # most have settled without a result: one look spares many steps
            head = min((*waiting, *(i for i in running if i >= 0)))
        self.head = head
        return head in waiting

    @override
    def next_ones(self) -> list[Any]:
        results = list[Any]()
        if not self.has_next():
            return results
        waiting, index = self._by_index, self.head
        while (value := waiting.get(index, MISSING)) is not MISSING:
            results.append(value)
            index += 1
        return results

    @override
    def discard_behind(self, index: int) -> int:
        unreachable = [i for i in self._by_index if i > index]
        for i in unreachable:
            del self._by_index[i]
        return len(unreachable)
