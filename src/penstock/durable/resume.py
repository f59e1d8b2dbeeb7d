"""Where a durable run passes over what is done: the stage between a source and its first operator."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final, override

from penstock.core.clock import now
from penstock.core.errors import as_failure
from penstock.core.outcome import Failed
from penstock.core.plan import DROPPED
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage, Through
from penstock.durable.ledger import Admitting, Ledger
from penstock.durable.passing_over import NONE
from penstock.durable.roots import Bundle, Tracked
from penstock.durable.weights import weight

_ALL: Final = 1 << 30

_NONE_BEHIND: Final = (0, NONE)

WIDE: Final = 256
"""Items that may be read at once while none of them is larger than a kilobyte."""

MANY: Final = 8
"""Items from which looking at all of them at once costs less than looking at each."""


class Resume(Through[Any, Tracked]):
    """Hands on the items that `admit` makes roots of, one for each pull; passes over the others while the turn lasts.

    Nothing is read behind an item that is handed on (P2), and others get the loop between items that are passed over
    (P9). While too much waits to be committed it takes nothing: roots that give no rows must wait for the disk, too
    (P7).
    """

    __slots__ = (
        "_admit",
        "_are_light",
        "_bundled",
        "_last",
        "_ledger",
        "_over",
        "_pass_over",
        "_reuses_items",
        "_turn_asked",
    )

    def __init__(self, scope: Scope, upstream: Stage[Any], ledger: Ledger, admitting: Admitting) -> None:
        super().__init__(scope, upstream, "resume")
        self._ledger = ledger
        self._admit, self._pass_over, self._bundled = admitting
        self._are_light = False
        self._last: Any = None  # the item that was handed on last
        self._reuses_items = False
        self._over = False
        self._turn_asked = False

    @override
    def pull(self, room: int) -> Pulled[Tracked]:
        if self._ledger.has_enough and not self._over:
            self._over = True
            self.upstream.stop()
        elif self._ledger.is_full():
            self._wait_for_a_commit()
            return PENDING
        upstream = self.upstream
        try:
            while not self._over:
                for tracked in self._admitted(upstream.ready_items(_ALL)):
                    self._last = tracked.value
                    return tracked
                if self._over:
                    break
                item = upstream.pull(
                    self._ledger.room(WIDE if self._are_light else room)
                )  # an item at least: a slow machine must not spin
                if item is PENDING or item is END:
                    return item
                for tracked in self._admitted((item,)):
                    self._last = item
                    return tracked
                if now() > self.scope.turn_ends:
                    self._ask_for_a_turn()
                    return PENDING
        except BaseException as error:  # noqa: BLE001 -- an interrupt, as it came; as below
            self._refused(error, None)
        return END

    @override
    def ready_items(self, room: int) -> Iterator[Tracked]:
        """Hand on what the source has at hand, so that an item that is handed on costs no pull."""
        ledger = self._ledger
        if self._over or self._turn_asked or ledger.is_full():
            return
        for tracked in self._admitted(self.upstream.ready_items(ledger.room(room))):
            yield tracked
            if ledger.is_full():
                return

    def _admitted(self, items: Iterable[Any]) -> Iterator[Tracked]:
        """Give the items that are not done, up to one for which that cannot be told."""
        admit, pass_over = self._admit, self._pass_over
        left = iter(items)
        item = next(left, NONE)
        while item is not NONE:
            self._taken += 1
            try:
                tracked: Any = admit(item)
                passed, behind = pass_over(left) if tracked is DROPPED else _NONE_BEHIND  # they may be done, too
            except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
                self._refused(error, item)
                return
            if tracked is DROPPED:
                self._taken += passed
                self._dropped += 1 + passed
                item = behind
                continue
            self._delivered += 1
            yield tracked
            item = next(left, NONE)

    def together(self, room: int) -> Bundle | list[Tracked]:
        """Hand on up to `room` items that the source has at hand, each of up to a kilobyte but for the last one.

        They are for a caller that takes all at once: all may be read before one of them is on its way. While all items
        are small, it takes up to `WIDE`: a thread that reads costs one hop for so many.
        """
        ledger = self._ledger
        if self._over or self._turn_asked or ledger.is_full():
            return []
        items: list[Any] = []
        total = 0
        for item in self.upstream.ready_items(ledger.room(WIDE if self._are_light else room)):
            items.append(item)
            total += (size := weight(item))
            if size > 1 or item is self._last or self._reuses_items:
                self._reuses_items |= item is self._last  # one object, filled anew for each row
                break
        if items:
            self._are_light = total == len(items)
            self._last = items[-1]
        bundle = self._bundled(items) if len(items) >= MANY else None
        if bundle is None:
            return list(self._admitted(items))
        self._taken += len(items)
        self._delivered += len(items)
        bundle.weight = total
        return bundle

    def _refused(self, error: BaseException, item: Any) -> None:
        self._failed += 1
        self.scope.fail(Failed(as_failure(error), self._taken - 1, item, self.name))
        self._over = True
        self.upstream.stop()

    def _ask_for_a_turn(self) -> None:
        if not self._turn_asked:
            self._turn_asked = True
            self.scope.call_soon(self._turn_over)

    def _wait_for_a_commit(self) -> None:
        if not self._turn_asked:
            self._turn_asked = True
            self._ledger.waiting.append(partial(self.scope.call_soon, self._turn_over))

    def _turn_over(self) -> None:
        self._turn_asked = False
        if not self._over:
            self.scope.begin_turn()
            self.on_ready()
