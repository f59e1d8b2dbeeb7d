"""Plans for items that are carried: each of them in an object that knows more of it than its value.

A durable run tracks items, and `with_metadata` follows them. Only here is what users see taken out of that: the
arguments of their functions and costs.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, Self, cast

from penstock.core.plan import DROPPED, AsyncFn, ByteBudget, Later, Plan


class Carrier(Protocol):
    """Holds an item on its way."""

    value: Any

    def now(self, value: Any) -> Self:
        """Return what holds what the item has become, one for one."""
        ...


def carried_plan(plan: Plan[Any, Any], work: AsyncFn[Any, Any], *, inline: bool, **changes: Any) -> Plan[Any, Any]:
    """Adapt `plan` to items that are carried; `work` is its work on those, and `inline` whether it may run inline."""
    return plan.replaced(
        work=work,
        inline=None if plan.inline is None or not inline else _inline(plan.inline),
        elsewhere=None,
        seen=seen,
        limits=None if plan.limits is None else replace(plan.limits, seen=seen),
        one_by_one=None if plan.one_by_one is None else replace(plan.one_by_one, seen=seen),
        budget=None if plan.budget is None else _budget(plan.budget),
        **changes,
    )


def seen(item: Any) -> Any:
    """Return an item, or a list of items, as the user knows it."""
    return [each.value for each in cast("list[Carrier]", item)] if isinstance(item, list) else item.value


def became(item: Carrier, value: Any) -> Any:
    """Return what holds the value, unless that says that the item is dropped."""
    return value if value is DROPPED else item.now(value)


def _inline(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def inline(item: Carrier) -> Any:
        value = call(item.value)
        if isinstance(value, Later):
            return cast("Later[Any]", value).shaped(became, item)
        return became(item, value)

    return inline


def _budget(budget: ByteBudget) -> ByteBudget:
    def size_of(result: Carrier) -> float:
        return budget.size_of(result.value)

    return replace(budget, size_of=size_of)
