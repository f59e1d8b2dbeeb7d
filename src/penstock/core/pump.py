"""The pump, on which every window stands: it pulls an item when a place is free, and starts work on it.

It runs in a turn of the loop or inside a pull. It never runs inside a completion and never re-enters itself: calls that
return at once are a loop here, not a recursion. A window defines the methods under "What a window says".

Places (P1): `running` holds calls that have not come back, `finished` what waits for the stage below: results, or the
open inputs of `flat_map`. See `docs/decisions.md`, "Stages are asked, and answer at once", and "Turns go from the
consumer upwards".
"""

import asyncio
from collections.abc import Callable, Sized
from dataclasses import replace
from typing import Any, Final, Protocol, override

from penstock.core.adaptive import Control
from penstock.core.clock import now
from penstock.core.meter import Meter, Wait
from penstock.core.outcome import Failed
from penstock.core.plan import MISSING, AsyncFn, Plan
from penstock.core.scope import DEEP, Scope
from penstock.core.stage import END, PENDING, Pulled, Stage, name_work
from penstock.core.stats import StageStats
from penstock.core.waiting_room import WaitingRoom

LOOK: Final = 7
"""Results that are handed on between two looks at the clock, as a bit mask: a look takes 40 ns."""


class UnderWay(Protocol):
    """Work that is under way: a task, an errand, or what will be a task."""

    def cancel(self, reason: Any, /) -> object:
        """Stop it: it settles its item, now or in a later pass of the loop."""


class Pump[T, U](Stage[U]):
    """Keeps at most `concurrency` calls running (P1, P2, P7, P9)."""

    __slots__ = (
        "_asked",
        "_burst",
        "_exhausted",
        "_kept_places",
        "_last_turn",
        "_pumping",
        "_scheduled",
        "_stopping",
        "bound",
        "concurrency",
        "control",
        "finished",
        "in_band",
        "meter",
        "places",
        "plan",
        "running",
        "upstream",
        "waiting_room",
    )

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, U]) -> None:
        super().__init__(scope, plan.name)
        self.upstream: Stage[T] = upstream
        self.plan: Plan[T, U] = plan
        self.control: Control | None = None
        if (adaptive := plan.adaptive) is not None:
            plan = plan.replaced(concurrency=adaptive.least)
            self.control = Control(adaptive, self, scope.clock)
        self.concurrency: int = plan.concurrency
        self.places: int = plan.concurrency  # and one more for each call that is aside
        self.bound: int = (plan.concurrency + plan.buffer) * plan.size
        self.in_band: bool = plan.on_error == "return"
        self.meter: Meter = Meter(scope.clock, scope.opened, every_call=scope.timing, concurrency=self.plan.concurrency)
        self.running: dict[int, UnderWay] = {}
        self.finished: Sized
        self._kept_places: int = 0
        self.waiting_room: WaitingRoom | None = None
        self._stopping = self._exhausted = self._asked = self._scheduled = self._pumping = False
        self._last_turn = 0.0
        self._burst = 1
        upstream.on_ready = self._schedule

    # Calls that wait for their key: see `waiting_room`

    def _open_waiting_room(self) -> None:
        self.waiting_room = WaitingRoom(self)

    def free(self) -> int:
        """Count the places in which nothing runs, whether or not the bound leaves room for another item."""
        return self.places - len(self.running)

    def place_given_back(self) -> None:
        """Use a place that has become free before a call ended."""
        if not self._pumping and not self._exhausted and self._room() > 0:
            self._schedule()

    def place_taken(self) -> None:
        """Note that a call that was aside has taken a place."""
        running = len(self.running) - self._aside
        self.meter.peak_running = max(running, self.meter.peak_running)

    @property
    def _aside(self) -> int:
        return 0 if self.waiting_room is None else self.waiting_room.count

    def resize(self, concurrency: int) -> None:
        """Let so many calls run at once: more may start now; if there are too many, none starts until enough return."""
        self.places += concurrency - self.concurrency
        self.concurrency = concurrency
        self.bound = (concurrency + self.plan.buffer) * self.plan.size
        if self.waiting_room is not None:
            self.waiting_room.admit()
        self.place_given_back()

    # What a window says

    def _room(self) -> int:
        """Count the free places."""
        raise NotImplementedError

    def _starting(
        self,
    ) -> "tuple[Callable[[T, AsyncFn[Any, Any]], None], AsyncFn[Any, Any], AsyncFn[Any, Any]]":
        """Return how to start work on an item, what to call for the next item, and what to call for those after it."""
        raise NotImplementedError

    def _has_next(self) -> bool:
        """Whether the next result in order is there."""
        raise NotImplementedError

    def _hand_over(self) -> Any:
        """Remove, count and return the next result in order; return MISSING if this turn has none."""
        raise NotImplementedError

    def _discard_behind(self, index: int) -> None:
        """Discard the results that order holds back for good, as the item at `index` gives none."""
        raise NotImplementedError

    def _note_peaks(self, last: int) -> None:
        """Note peaks after work was started; the item at `last` was started last, and may be settled already."""
        raise NotImplementedError

    def _count_finished(self) -> tuple[int, int]:
        """Count the items whose work has returned and that have no outcome yet, and the results that wait."""
        return len(self.finished), len(self.finished)

    # Pulling

    @override
    def pull(self, room: int) -> Pulled[U]:
        value = self._hand_over()
        if value is MISSING:
            value = self._pump_for_next()
            if value is PENDING or value is END:
                return value
        if not self._scheduled and not self._exhausted:
            self._schedule()
        if self.in_band and type(value) is Failed:
            self._delivered -= 1
            self._failed += 1
        return value  # type: ignore[no-any-return]  # pyright: ignore[reportReturnType] # a U; Any spares a cast per item

    def _pump_for_next(self) -> Any:
        """Start work for the stage below, and return the result that is there then, PENDING or END."""
        self._pump(wanted=True)
        turn_is_over = now() > self.scope.turn_ends  # then what the pump has made can wait: others have calls too
        value = MISSING if turn_is_over else self._hand_over()
        if value is not MISSING:
            return value
        has_next = self._has_next()
        if self._is_over() and not has_next:
            return END
        self._asked = True
        self._burst = 1
        if turn_is_over or has_next:
            self._schedule()
        return PENDING

    def _turn_is_over(self) -> bool:
        """Whether the next result must wait for another turn (P9); each turn hands on one at least."""
        turn = self.scope.turn_ends
        if now() > turn and self._last_turn == turn:
            return True
        self._last_turn = turn
        return False

    def _is_over(self) -> bool:
        return self._stopping or (self._exhausted and not self.running and not self.finished)

    # Turns

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            if self.meter.waits_for:
                self.meter.wait_for(Wait.NOTHING)
            self.scope.schedule(self)

    @override
    def take_turn(self) -> None:
        """Tell the stage below that its result is there; start more work only after that (P2)."""
        self._scheduled = False
        if not self._asked:
            self._pump(wanted=False)
            return
        if not self._has_next():
            self._pump(wanted=True)
        self._tell()
        if not self._asked and not self._exhausted:
            self._schedule()

    def _tell(self) -> None:
        if self._asked and (self._has_next() or self._is_over()):
            self._asked = False
            self.on_ready()

    def _pump(self, *, wanted: bool) -> None:
        """Start work while there is a free place, an item for it, and time left in this turn (P9).

        With `wanted`, stop at the first result: the stage below waits for one.
        """
        if self._pumping or self._exhausted:
            return
        if self.scope.depth > DEEP:
            self._schedule()
            return
        self._pumping = True
        taken = self._taken
        try:
            self.scope.enter(self._fill_until_next if wanted and self.bound > 1 else self._fill_places)
        finally:
            self._pumping = False
        if self._taken > taken:
            self._note_peaks(self._taken - 1)
        if not self._scheduled and not self._exhausted:
            self._note_wait()

    def _fill_places(self) -> None:
        while not self._exhausted and (room := self._room()) > 0:
            if not self._fill(room, room):
                break

    def _fill_until_next(self) -> None:
        """Start work until there is a result for the stage below, which waits: a call may return at once (P2).

        It starts one call, then eight times as many each time the stage below asks again within the turn.
        """
        while not self._exhausted and (room := self._room()) > 0:
            burst = self._burst
            if burst < self.bound:
                self._burst = 8 * burst
            if not self._fill(room, burst if burst < room else room) or self._has_next():  # noqa: FURB136 -- min() takes twice as long
                break

    def _fill(self, room: int, count: int) -> bool:
        """Start work on up to `count` items, which have room; return whether there may be more to start."""
        start, call, following = self._starting()
        scope, pull = self.scope, self.upstream.pull
        if count > 1 and (started := self._start_ready(count, start, call, following)):
            if self._exhausted:
                return False
            call = following
            room -= started
            count -= started
        must_look = not self.upstream.looks_at_the_clock
        for _ in range(count):
            if must_look and now() > scope.turn_ends:
                self._schedule()
                return False
            pulled = pull(room)
            if pulled is PENDING:
                return False
            if pulled is END:
                self._exhausted = True
                return False
            start(pulled, call)
            if self._exhausted:
                return False
            call = following
            room -= 1
        return True

    def _start_ready(
        self,
        count: int,
        start: Callable[[T, AsyncFn[Any, Any]], None],
        call: AsyncFn[Any, Any],
        following: AsyncFn[Any, Any],
    ) -> int:
        """Start work on up to `count` items that are there; return how many: 0.1 us less an item than by pulls."""
        started = 0
        for item in self.upstream.ready_items(count):
            start(item, call)
            started += 1
            if self._exhausted:
                break
            call = following
        return started

    def _settled(self) -> None:
        """Tell the stage below if its result is there; if a place is free, pump in the next turn."""
        if self.waiting_room is not None:
            self.waiting_room.admit()
        asked = self._asked
        if asked:
            self._tell()
        if self._stopping:
            if not self.running:
                self.scope.work_stopped()
        elif not self._scheduled and not self._pumping and not self._exhausted:
            if self._room() > 0:
                self._schedule()
            elif not self.meter.waits_for and self._asked is asked:  # else the stage below is on its way
                self._note_wait()

    # Stopping

    @override
    def stop(self) -> None:
        if not self._stopping:
            self._halt(self._taken)

    def _halt(self, index: int) -> None:
        """Cancel what runs; of the finished results, keep those in order before `index`."""
        self._stopping = self._exhausted = True
        self._discard_behind(min([index, *(i for i in self.running if i >= 0)]))
        for call in list(self.running.values()):
            call.cancel(self.scope.reason)
        self.scope.stop(self.upstream)
        self._tell()

    @override
    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        return task in self.running.values()

    @override
    def busy(self) -> str | None:
        return name_work(self.name, [i if i >= 0 else ~i for i in self.running]) if self.running else None

    # Statistics

    def _note_wait(self) -> None:
        """Note why a place stays free, if one does."""
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
            running=running + self._kept_places - self._aside,
            aside=self._aside,
            peak_aside=0 if self.waiting_room is None else self.waiting_room.peak,
            buffered=results,
            concurrency=self.concurrency,
            blocked_loop_s=self.scope.blocked.seconds.get(self.name, 0.0),
        )
        return self.meter.measured(books, running)

    @override
    def settle_lost(self) -> None:
        books = super().stats()
        if books.in_flight and not self.running:
            self._failed += books.in_flight
