"""The window of a stage with `buffer_bytes=`: it starts nothing while results of so many bytes wait."""

from dataclasses import replace
from typing import Any, override

from penstock.core import validate
from penstock.core.plan import DROPPED, Plan
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage
from penstock.core.stats import StageStats
from penstock.core.window import Window


class BudgetedWindow[T, U](Window[T, U]):
    """A window that also bounds the bytes of what waits (P1).

    A call whose result is not there yet has no size, so the bytes may exceed the budget by what running calls give.
    """

    __slots__ = ("_arrived", "_budget", "_bytes", "_peak_bytes", "_sizes")

    has_ready_items = False
    only_by_pull = True
    only_stores = False

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, U]) -> None:
        super().__init__(scope, upstream, plan)
        assert plan.budget is not None
        self._budget = plan.budget
        self._sizes: dict[int, float] = {}  # by what `head` of the order is when the result is handed on
        self._arrived = 0
        self._bytes = 0.0
        self._peak_bytes = 0.0

    @override
    def pull(self, room: int) -> Pulled[U]:
        value = super().pull(room)
        if value is not PENDING and value is not END:
            self._bytes -= self._sizes.pop(self._order.head - 1)
        return value

    @override
    def _room(self) -> int:
        return 0 if self._bytes >= self._budget.most else super()._room()

    @override
    def _returned(self, index: int, item: T, value: U) -> None:
        if value is not DROPPED and not self._stopping:
            try:
                size = validate.number("size_of(result)", self._budget.size_of(value), least=0)
            except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
                self._raised(index, item, error)
                return
            self._note_size(index, size)
        super()._returned(index, item, value)

    @override
    def _keep(self, index: int, value: Any) -> None:
        self._note_size(index, 0.0)
        super()._keep(index, value)

    def _note_size(self, index: int, size: float) -> None:
        self._sizes[index if self.plan.ordered else self._arrived] = size
        self._arrived += 1
        self._bytes += size
        self._peak_bytes = max(self._peak_bytes, self._bytes)

    @override
    def stats(self) -> StageStats:
        return replace(super().stats(), buffered_bytes=int(self._bytes), peak_buffered_bytes=int(self._peak_bytes))

    @override
    def close(self) -> None:
        super().close()
        self._sizes.clear()
        self._bytes = 0.0
