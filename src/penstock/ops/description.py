"""What a stream is made of: where its items come from, and the operators that act on them.

A run opens its stages from this. Others may walk it for their own ends, as a durable run does: streams know none of
them.
"""

from collections.abc import Callable
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
        text: how it was called, in a line.
    """

    open: Callable[[Scope, bool], Stage[Any]]
    refuse_opening: Callable[[], None]
    text: str = "stream(...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined(Origin):
    """An origin that joins several streams.

    Attributes:
        kind: how they are joined.
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
        """This, and one operator more."""
        return Description(self.origin, (*self.operators, operator))

    def refuse_opening(self) -> None:
        """Raise if it cannot be opened: its source has been read, or results are to be kept, which needs a sink."""
        if any(operator.code is not None and operator.code.memo for operator in self.operators):
            raise OptionError("memo=True keeps results in the sink of a durable run: end the stream with to()")
        self.origin.refuse_opening()

    def orders(self, *, in_order: bool) -> list[bool]:
        """Whether the order can be seen in which each stage hands on, from the source down, given that of the last."""
        orders = [in_order]
        for operator in reversed(self.operators):
            orders.append(operator.shows_order(orders[-1]))
        return orders[::-1]

    def open(self, scope: Scope, *, in_order: bool) -> Stage[Any]:
        """Open the stages in `scope`; the last one."""
        from_source, *orders = self.orders(in_order=in_order)
        stage = self.origin.open(scope, from_source)
        for operator, shown in zip(self.operators, orders, strict=True):
            stage = operator.open(scope, stage, None, shown)
        return stage


def combined(kind: Combination, parts: tuple[Description, ...], text: str) -> Combined:
    """The origin that joins these streams."""

    def open_parts(scope: Scope, in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        return kind.stage(scope, [each.open(scope, in_order=in_order or kind.shows_order) for each in parts])

    def refuse_opening() -> None:
        for each in parts:
            each.refuse_opening()

    return Combined(open_parts, refuse_opening, text, kind=kind, parts=parts)
