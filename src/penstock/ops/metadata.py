"""What is known of an item beside its value: `with_metadata`.

The items of the source go through the stages above in envelopes; a stage without `with_metadata` below knows none of
this. Functions of the user see plain values. An envelope is handed on as a `Record`.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from itertools import count
from math import sqrt
from typing import Any, Final, cast

from penstock.core.at_hand import AT_HAND
from penstock.core.closing import aclose, close
from penstock.core.errors import OptionError
from penstock.core.outcome import Failed, Ok
from penstock.core.plan import AsyncFn, Plan
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.ops.carrying import became, carried_plan, seen
from penstock.ops.kind import Forms, Kind
from penstock.ops.operator import Following, Operator
from penstock.ops.passing import Passing

RETRIES: Final[ContextVar[list[int] | None]] = ContextVar("retries that a call has made within itself", default=None)
"""Where a call that tries parts of itself again counts that, if somebody wants to know."""

_GOLDEN: Final = (sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Record[T]:
    """An item with what is known of it; of an item that is not followed, only `value` is.

    Attributes:
        value: the item.
        index: of the item of the source that it came from, from 0.
        attempts: 1 + the retries of all calls that it came through.
        seconds: since that item was taken.
    """

    value: T
    index: int | None
    attempts: int | None
    seconds: float | None


class Envelope:
    """An item on its way: which item of the source it came from, when that was taken, and what calls it came through.

    `index` is None if it is not followed.
    """

    __slots__ = ("began", "index", "retries", "tries", "value")

    def __init__(self, value: Any, index: int | None, began: float, retries: int) -> None:
        self.value: Any = value
        self.index: int | None = index
        self.began: float = began
        self.retries: int = retries
        self.tries: int = 0  # of the call that it is in

    def now(self, value: Any) -> "Envelope":
        """Return what it has become, after the tries of a call."""
        return Envelope(value, self.index, self.began, self.retries + max(self.tries - 1, 0))

    def record(self, time: float) -> Record[Any]:
        """Return what is known of it."""
        if self.index is None:
            return Record(self.value, None, None, None)
        return Record(self.value, self.index, 1 + self.retries, time - self.began)


@dataclass(frozen=True, slots=True)
class _Followed(Following):
    """Opens the stages above a `with_metadata`: a `share` of the source's items is followed."""

    share: float

    def begin(self, scope: Scope, source: Stage[Any]) -> Stage[Any]:
        """Put the items of the source into envelopes."""
        numbers, clock, share = count(), scope.clock, self.share

        def follow(item: Any) -> Envelope:
            number = next(numbers)
            is_followed = share == 1 or number * _GOLDEN % 1 < share  # spread evenly, and with no period
            return Envelope(item, number if is_followed else None, clock() if is_followed else 0.0, 0)

        return Passing(scope, source, "follow", follow)

    def open(self, operator: Operator, scope: Scope, upstream: Stage[Any], in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        """Open an operator on envelopes."""
        failed: dict[int, Envelope] = {}
        stage = operator.open(scope, upstream, lambda kind, plan: _adapted(kind, plan, failed), in_order)
        if operator.code is None or not operator.code.in_band:
            return stage

        def inside_out(result: Any) -> Envelope:
            """Put the result into the envelope, not the envelope into the result."""
            if isinstance(result, Ok):
                envelope = cast("Ok[Envelope]", result).value
                return envelope.now(Ok(envelope.value, cast("Ok[Any]", result).index))
            return failed.pop(result.index).now(result)

        return Passing(scope, stage, f"results of {operator.code.title}", inside_out)


def with_metadata(share: float, above: Iterable[Operator], *, is_combined: str) -> Operator:
    """Make the operator that hands on a `Record` for each item; `above` are the operators before it.

    Raises:
        OptionError: one of them does not act item by item, or the stream `is_combined` of others.
    """
    if is_combined:
        raise OptionError(f"with_metadata cannot stand behind {is_combined}: its items have no one source")
    for each in above:
        if not each.item_by_item:
            raise OptionError(f"with_metadata cannot stand behind {each.name}: it stands behind what acts item by item")

    def open_stage(scope: Scope, upstream: Stage[Any], _adapt: object, _in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        clock = scope.clock
        return Passing(scope, upstream, "with_metadata", lambda envelope: envelope.record(clock()))

    text = "with_metadata()" if share == 1 else f"with_metadata(sample={share:g})"
    return Operator("with_metadata", open_stage, ordered=None, text=text, follows=_Followed(share))


def _adapted(kind: Kind, plan: Plan[Any, Any], failed: dict[int, Envelope]) -> Plan[Any, Any]:
    """Adapt the plan of an operator to envelopes; those of failures that are results go to `failed`."""

    def shown(failure: Failed) -> Failed:
        item: Any = failure.item
        if plan.on_error == "return":
            failed[failure.index] = item
        return replace(failure, item=seen(item))

    return carried_plan(plan, kind.form(_FORMS)(plan.work), inline=kind.one_for_one, on_failed=shown)


def _single(call: AsyncFn[Any, Any]) -> AsyncFn[Any, Any]:
    async def single(item: Envelope) -> Any:
        item.tries += 1
        inner = [0]
        RETRIES.set(inner)
        try:
            value = await call(item.value)
        finally:
            item.tries += inner[0]
        return became(item, value)

    return single


def _listed(call: AsyncFn[list[Any], list[Any]]) -> AsyncFn[list[Envelope], list[Envelope]]:
    async def listed(items: list[Envelope]) -> list[Envelope]:
        for item in items:
            item.tries += 1
        values = await call(seen(items))
        return [item.now(value) for item, value in zip(items, values, strict=True)]

    return listed


def _fanned(call: AsyncFn[Any, Any]) -> AsyncFn[Any, Any]:
    async def fanned(item: Envelope) -> Any:
        item.tries += 1
        fan = await call(item.value)
        if isinstance(fan, AsyncIterable):
            return _async_outputs(item, cast("AsyncIterable[Any]", fan))
        if isinstance(fan, AT_HAND):
            return [item.now(value) for value in cast("Iterable[Any]", fan)]
        return _outputs(item, cast("Iterable[Any]", fan)) if isinstance(fan, Iterable) else fan

    return fanned


def _outputs(item: Envelope, fan: Iterable[Any]) -> Iterator[Envelope]:
    iterator = iter(fan)
    try:
        for value in iterator:
            yield item.now(value)
    finally:
        close(iterator)


async def _async_outputs(item: Envelope, fan: AsyncIterable[Any]) -> AsyncIterator[Envelope]:
    iterator = aiter(fan)
    try:
        async for value in iterator:
            yield item.now(value)
    finally:
        await aclose(iterator)


_FORMS: Final[Forms[Callable[[AsyncFn[Any, Any]], AsyncFn[Any, Any]]]] = Forms(
    single=_single, paired=_single, sifting=_single, listed=_listed, fanned=_fanned
)
