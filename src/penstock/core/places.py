"""The places of a window: what takes them, how many are free, and what keeps a free one from being used (P1)."""

import asyncio
from dataclasses import replace
from typing import Any, Protocol, override

from penstock.core.meter import Meter, Wait
from penstock.core.scope import Scope
from penstock.core.stage import Stage, name_work
from penstock.core.stats import StageStats


class Results(Protocol):
    """Where results wait, by the index of their item."""

    def __len__(self) -> int: ...

    def __setitem__(self, index: int, value: Any, /) -> None: ...


class Places[U](Stage[U]):
    """A stage with places for calls that run, by index, and for results that wait."""

    def __init__(self, scope: Scope, name: str, concurrency: int, bound: int, finished: Results) -> None:
        super().__init__(scope, name)
        self.concurrency: int = concurrency
        self.bound: int = bound
        self.meter: Meter = Meter(scope.clock, scope.opened, every_call=scope.timing)
        self.running: dict[int, asyncio.Task[None]] = {}
        self._kept_places: int = 0
        self.finished: Any = finished  # of the kind that a window needs

    def _room(self) -> int:
        """Count the free places."""
        running = len(self.running)
        free = self.concurrency - running
        places = self.bound - running - len(self.finished)
        return places if places < free else free  # noqa: FURB136 -- min() takes twice as long, for every result

    def _has_next(self) -> bool:
        """Whether a result is there that order allows to be handed on."""
        raise NotImplementedError

    # What is noted

    def _note_peaks(self, last: int) -> None:
        """Note how much there is after work was started, at the end on the item at `last`, which may be settled."""
        running, waiting = len(self.running), len(self.finished)
        held = running + waiting + (self.meter.last_settled == last)
        self.meter.note_peaks(running + (last not in self.running), held, waiting)

    def _note_results(self) -> None:
        """Note how many results wait when one has come by itself."""
        waiting = len(self.finished)
        if waiting > self.meter.peak_buffered:
            self.meter.note_buffered(waiting)

    def _note_wait(self) -> None:
        """Note what keeps a place free, if one is."""
        if len(self.running) >= self.concurrency:
            wait = Wait.NOTHING
        elif self._room() > 0:
            wait = Wait.UPSTREAM
        else:
            wait = Wait.CONSUMER if self._has_next() else Wait.HEAD
        if wait is not self.meter.waits_for:
            self.meter.wait_for(wait)

    @override
    def stats(self) -> StageStats:
        books = super().stats()
        returned, results = self._count_finished()
        running = books.in_flight - returned
        books = replace(
            books,
            running=running + self._kept_places,
            buffered=results,
            concurrency=self.concurrency,
            blocked_loop_s=self.scope.blocked.seconds.get(self.name, 0.0),
        )
        return self.meter.measured(books, running)

    def _count_finished(self) -> tuple[int, int]:
        """Count the items whose work has returned and that have no outcome yet, and the results that wait."""
        return len(self.finished), len(self.finished)

    @override
    def settle_lost(self) -> None:
        books = super().stats()
        if books.in_flight and not self.running:
            self._failed += books.in_flight

    @override
    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        return task in self.running.values()

    @override
    def busy(self) -> str | None:
        return name_work(self.name, [i if i >= 0 else ~i for i in self.running]) if self.running else None
