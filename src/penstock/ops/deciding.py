"""Operators whose predicate decides where a stream begins or ends; its answer may have to be awaited."""

from collections.abc import Callable
from typing import Any, Final, override

from penstock.core.plan import DROPPED, Plan
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage
from penstock.core.window import Window
from penstock.engines.local import on_loop
from penstock.ops.operator import Operator, passing
from penstock.ops.work import shaped, shaped_inline

_STOP: Final[Any] = object()
"""The output for the item before which the stream ends."""

type Decision = tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]
"""Two functions: one asks about an item, the other turns the item and the answer into an output.

Both may keep state.
"""


def take_while(predicate: Callable[[Any], object]) -> Decision:
    """Hand on items up to the first that fails `predicate`."""
    return predicate, lambda item, answer: item if answer else _STOP


def skip_while(predicate: Callable[[Any], object]) -> Decision:
    """Hand on items from the first that fails `predicate`, which is not asked again after that."""
    skipping = True

    def decide(item: Any, answer: Any) -> Any:
        nonlocal skipping
        skipping = bool(answer)
        return DROPPED if skipping else item

    return lambda item: skipping and predicate(item), decide


def deciding(
    name: str, predicate: Callable[[Any], object], make: Callable[[Callable[[Any], object]], Decision]
) -> Operator:
    """Make an operator from a predicate; `make` gives a fresh decision for each run."""

    def open_stage(scope: Scope, upstream: Stage[Any]) -> Stage[Any]:
        ask, decide = make(predicate)
        return Deciding(scope, upstream, Plan(name, shaped(on_loop(ask), decide), inline=shaped_inline(ask, decide)))

    return passing(name, open_stage, predicate)


class Deciding[T](Window[T, T]):
    """Asks about one item after the other, each when the stage below wants it: it reads nothing ahead (P1, P2)."""

    __slots__ = ("_wanted",)

    has_ready_items = False
    only_by_pull = True

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, T]) -> None:
        super().__init__(scope, upstream, plan)
        self._wanted = False

    @override
    def _room(self) -> int:
        return super()._room() if self._wanted else 0

    @override
    def pull(self, room: int) -> Pulled[T]:
        self._wanted = True
        value: Any = super().pull(room)
        self._wanted = value is PENDING
        if value is not _STOP:
            return value  # type: ignore[no-any-return] # a T; the end is told apart
        self._delivered -= 1
        self._dropped += 1
        self.stop()
        return END
