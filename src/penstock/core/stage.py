"""Stages of an opened stream: what each of them can do.

Stages are asked, they do not push: a stage hands on an item when the one below pulls, and returns PENDING when it has
none yet. Then, and only then, it owes the one below a single call of `on_ready`. Nothing here awaits: tasks exist only
where work runs (`window`) and where an async source is read (`source`). See `docs/decisions.md`, "Stages are asked, and
answer at once".
"""

import enum
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, Literal, override

from penstock.core.scope import Member, Scope
from penstock.core.stats import StageStats


class Signal(enum.Enum):
    """What a pull returns instead of an item."""

    PENDING = "pending"
    END = "end"


PENDING: Final = Signal.PENDING
END: Final = Signal.END
AT_ONCE: Final = 1024
"""Items for which a stage is asked at once, where `ready_items_last`: to begin anew after 64 costs 0.05 us an item."""

type Pulled[T] = T | Literal[Signal.PENDING, Signal.END]


def name_work(stage: str, items: Collection[int]) -> str:
    """Name what still runs: the stage and the first five items."""
    some = ", ".join(map(str, sorted(items)[:5])) + (", ..." if len(items) > 5 else "")  # noqa: PLR2004 -- as said
    return f"stage {stage!r}, item{'s' if len(items) > 1 else ''} {some}"


class Stage[T](Member):
    """One operator of an opened stream. It counts the outcome of every item that it takes (P5)."""

    __slots__ = ("_cancelled", "_delivered", "_discarded", "_dropped", "_failed", "_taken")

    looks_at_the_clock = False
    """Whether a pull returns PENDING once the turn is over; then the asker need not look at the clock for each item."""

    has_ready_items = False
    """Whether it is quicker to ask for `ready_items` first, once a pull has given an item."""

    ready_items_last = False
    """Whether `ready_items` may be kept, and go on after pulls and turns: it looks anew for each item."""

    def __init__(self, scope: Scope, name: str) -> None:
        super().__init__(scope, name)
        self._taken: int = 0
        self._delivered: int = 0
        self._dropped: int = 0
        self._failed: int = 0
        self._cancelled: int = 0
        self._discarded: int = 0

    def pull(self, room: int) -> Pulled[T]:
        """Return the next item, PENDING or END; `room` is how many items the asker could hold."""
        raise NotImplementedError

    def ready_items(self, room: int) -> Iterable[T]:  # noqa: ARG002 -- for those that have some
        """Give up to `room` items that are there, as `pull` would, where this is quicker; giving none means nothing."""
        return ()

    def ready_list(self, room: int) -> list[T]:
        """Give what `ready_items` gives, to a reader that takes all of it."""
        return list(self.ready_items(room))

    def give_to(self, keep: Callable[[Any], object]) -> None:
        """Give what comes to `keep`, a function of penstock's own, instead of to a pull, wherever that is quicker.

        For a reader that takes all: it keeps what a pull returns at once, and pulls again.
        """

    def waiting(self) -> Sequence[T]:
        """Return results that wait and are next, where a stage knows them; they go on to wait until `hand_on`."""
        return ()

    def hand_on(self, count: int) -> None:
        """Count so many of the results that `waiting` gave as handed on."""

    @override
    def stats(self) -> StageStats:
        return StageStats(
            name=self.name,
            delivered=self._delivered,
            dropped=self._dropped,
            failed=self._failed,
            cancelled=self._cancelled,
            discarded=self._discarded,
            taken=self._taken,  # last: a thread that asks meanwhile sees no outcome of an item that was not taken
        )


class Through[T, U](Stage[U]):
    """A stage that runs no work: it asks upstream whenever it is asked."""

    __slots__ = ("upstream",)

    def __init__(self, scope: Scope, upstream: Stage[T], name: str) -> None:
        super().__init__(scope, name)
        self.upstream: Stage[T] = upstream
        upstream.on_ready = self._pass_on

    def _pass_on(self) -> None:
        self.on_ready()

    @override
    def stop(self) -> None:
        self.scope.stop(self.upstream)
