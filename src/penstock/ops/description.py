"""What a stream is made of: the origin of its items, and its operators.

A run opens its stages from this. Others may walk it too, as a durable run does: streams need not know of them. See
`docs/decisions.md`, "Streams do not know durable runs".
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, override

from penstock.core.errors import OptionError
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.ops.combine import Combination
from penstock.ops.operator import Operator


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the items of a stream come from.

    Attributes:
        open: opens its stage; the last argument says whether the order of its items can be seen below.
        refuse_opening: raises if it cannot be opened: it is a one-shot iterator that has been read.
        text: the call that made it, in a line.
    """

    open: Callable[[Scope, bool], Stage[Any]]
    refuse_opening: Callable[[], None]
    text: str = "stream(...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined(Origin):
    """An origin that combines several streams.

    Attributes:
        kind: how they are combined.
        parts: the streams.
    """

    kind: Combination
    parts: "tuple[Description, ...]"


@dataclass(frozen=True, slots=True)
class Description:
    """What a stream is made of.

    Attributes:
        origin: where its items come from.
        operators: what acts on them, in order.
    """

    origin: Origin
    operators: tuple[Operator, ...] = ()

    @override
    def __str__(self) -> str:
        return ".".join([self.origin.text, *(operator.text for operator in self.operators)])

    def followed_by(self, operator: Operator) -> "Description":
        """Add an operator.

        Raises:
            OptionError: it is a checkpoint, or has one, and one of its name is there.
        """
        refuse_twice((*self.checkpoints(), *operator.checkpoints) if operator.checkpoints else ())
        return Description(self.origin, (*self.operators, operator))

    def checkpoints(self) -> Iterator[str]:
        """Give the names of its checkpoints, also of those above what it combines, and in branches."""
        waiting: list[Description] = [self]  # no recursion: it may have been combined a thousand times
        while waiting:
            each = waiting.pop()
            if isinstance(each.origin, Combined):
                waiting += each.origin.parts
            for operator in each.operators:
                yield from operator.checkpoints

    def refuse_opening(self) -> None:
        """Raise if it cannot be opened: its source has been read, or a stage has `memo=True`, which needs a sink."""
        if any(operator.code is not None and operator.code.memo for operator in self.operators):
            raise OptionError("memo=True keeps results in the sink of a durable run: end the stream with to()")
        self.origin.refuse_opening()

    def orders(self, *, in_order: bool) -> list[bool]:
        """Tell for each stage, from the source down, whether the order of its output can be seen, given the last."""
        orders = [in_order]
        for operator in reversed(self.operators):
            orders.append(operator.shows_order(orders[-1]))
        return orders[::-1]

    def open(self, scope: Scope, *, in_order: bool) -> Stage[Any]:
        """Open all stages in `scope`; return the last one."""
        from_source, *orders = self.orders(in_order=in_order)
        stage = self.origin.open(scope, from_source)
        following = next((each.follows for each in self.operators if each.follows is not None), None)
        if following is not None:
            stage = following.begin(scope, stage)
        for operator, shown in zip(self.operators, orders, strict=True):
            following = None if operator.follows is not None else following
            stage = (
                operator.open(scope, stage, None, shown)
                if following is None
                else following.open(operator, scope, stage, shown)
            )
        return stage


def refuse_twice(checkpoints: Iterable[str]) -> None:
    """Raise `OptionError` if two checkpoints of a stream have one name."""
    for name, times in Counter(checkpoints).items():
        if times > 1:
            raise OptionError(f"names of checkpoints must be unique in a stream, got {name!r} twice")


def combined(kind: Combination, parts: tuple[Description, ...], text: str) -> Combined:
    """Make the origin that combines these streams.

    Raises:
        OptionError: two of them have checkpoints of one name.
    """
    refuse_twice(name for each in parts for name in each.checkpoints())

    def open_parts(scope: Scope, in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        return kind.stage(scope, [each.open(scope, in_order=in_order or kind.shows_order) for each in parts])

    def refuse_opening() -> None:
        for each in parts:
            each.refuse_opening()

    return Combined(open_parts, refuse_opening, text, kind=kind, parts=parts)
