"""The books of a source: what was taken from it, by whom, and how much of it is settled."""

import asyncio
import itertools
import threading
import weakref
from collections.abc import AsyncIterable, AsyncIterator


class Books:
    """Records how a source is read.

    A source knows what was taken from it, not what became of it. The consuming side says so: with `settle()`, or by
    reading through `settling()`. Until then everything that was taken counts as unsettled.

    Attributes:
        taken: items handed out.
        settled: items settled.
        peak_unsettled: the most items that were taken and not settled at once.
        opened: how many iterators were made.
        closed: how often one was closed, by `aclose` or `close`.
        closed_by: the task or thread that closed last, by a name that is unique in these books.
        pulled_by: the tasks and threads that asked for items, named likewise.
    """

    def __init__(self) -> None:
        self.taken: int = 0
        self.settled: int = 0
        self.peak_unsettled: int = 0
        self.opened: int = 0
        self.closed: int = 0
        self.closed_by: str | None = None
        self.pulled_by: set[str] = set()
        self._names: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)

    @property
    def unsettled(self) -> int:
        """Items taken and not yet settled."""
        return self.taken - self.settled

    def settle(self, count: int = 1) -> None:
        """Count `count` more items as delivered, dropped or failed.

        Raises:
            ValueError: that makes more than were taken.
        """
        if count > self.unsettled:
            raise ValueError(f"settle: count must be at most the {self.unsettled} unsettled items, got {count}")
        self.settled += count

    def settling[U](self, results: AsyncIterable[U]) -> AsyncIterator[U]:
        """Iterate over `results` and settle an item with each: for stages that give one result per item."""
        return _Settling(self, results)

    def record_open(self) -> None:
        """Note that an iterator was made."""
        self.opened += 1

    def record_pull(self) -> None:
        """Note who asks for an item."""
        self.pulled_by.add(self._caller())

    def record_take(self) -> None:
        """Note that an item is handed out."""
        self.taken += 1
        self.peak_unsettled = max(self.peak_unsettled, self.unsettled)

    def record_close(self) -> None:
        """Note who closes."""
        self.closed += 1
        self.closed_by = self._caller()

    def _caller(self) -> str:
        """Return the name of the caller: a task that is kept alive would keep its exceptions and frames alive too."""
        task = _current_task()
        who = threading.current_thread() if task is None else task
        kind, name = ("thread", who.name) if isinstance(who, threading.Thread) else ("task", who.get_name())
        return self._names.setdefault(who, f"{kind} {name!r} #{next(self._numbers)}")


class _Settling[U](AsyncIterator[U]):
    def __init__(self, books: Books, results: AsyncIterable[U]) -> None:
        self._books = books
        self._results = aiter(results)

    async def __anext__(self) -> U:
        result = await anext(self._results)
        self._books.settle()
        return result


def _current_task() -> "asyncio.Task[object] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
