"""Adapts operators to tracked items: the user's functions see values, the roots learn what became of them."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, cast

from penstock.core.at_hand import AT_HAND
from penstock.core.closing import aclose, close
from penstock.core.outcome import Failed
from penstock.core.plan import ANY_NUMBER, DROPPED, MISSING, AsyncFn, Gate, Plan
from penstock.durable.fingerprint import StageCode
from penstock.durable.ledger import Dispatch, Ledger
from penstock.durable.memo import StageMemo
from penstock.durable.roots import Tracked
from penstock.durable.values import pack_list
from penstock.ops.carrying import became, carried_plan, seen
from penstock.ops.kind import Forms, Kind
from penstock.ops.operator import Adapt, Operator


def tracking(operator: Operator, code: StageCode | None, ledger: Ledger) -> Adapt:
    """Return what adapts the plan of an operator to tracked items."""
    memo = None
    if operator.code is not None and operator.code.memo:
        assert code is not None
        memo = StageMemo(ledger.memo, code, operator.code.memo_of)
    if ledger.only is None:
        return lambda kind, plan: tracked_plan(kind, plan, memo, ledger.dispatch)
    return lambda kind, plan: tracked_plan(kind, _outlasting_failures(plan), memo, ledger.dispatch)


def _outlasting_failures(plan: Plan[Any, Any]) -> Plan[Any, Any]:
    """Adapt `plan` to roots that are tried in a child: a failure does not end the others, and is not settled there."""
    return plan.replaced(on_error="collect", tolerance=ANY_NUMBER)


def tracked_plan(
    kind: Kind, plan: Plan[Any, Any], memo: StageMemo | None = None, dispatch: Dispatch | None = None
) -> Plan[Any, Any]:
    """Adapt `plan` to tracked items; a stream without a durable end has none of this."""
    form = kind.form(_FORMS)
    gate = _gate(form, memo, dispatch)
    return carried_plan(
        plan,
        form.wrap(plan.work, memo),
        inline=gate is None and kind.one_for_one,
        on_failed=_shown,
        on_passed_over=partial(_passed_over, plan.on_error),
        on_through=_through,
        gate=gate,
    )


def _gate(form: "_Form", memo: StageMemo | None, dispatch: Dispatch | None) -> Gate[Any] | None:
    """Return what notes that a root is under way before any work on it, and what recalls the result of an item."""
    if memo is None and dispatch is None:
        return None

    def known(item: Tracked) -> Any:
        found = MISSING if memo is None else memo.recall(item)
        return found if found is MISSING else form.recalled(item, found)

    async def gate(item: Tracked) -> Any:
        await _dispatched(dispatch, (item,))
        return known(item)

    async def gate_of_lists(items: list[Tracked]) -> Any:
        await _dispatched(dispatch, items)
        return MISSING if memo is None else [known(item) for item in items]

    return gate_of_lists if form.takes_lists else gate


async def _dispatched(dispatch: Dispatch | None, items: Iterable[Tracked]) -> None:
    if dispatch is not None:
        for committed in [dispatch(item.root) for item in items if not item.root.dispatched]:
            await committed


def _single(call: AsyncFn[Any, Any], memo: StageMemo | None) -> AsyncFn[Any, Any]:
    async def single(item: Tracked) -> Any:
        value = await call(item.value)
        if memo is not None:
            memo.keep(item, memo.packed(value))
        return value if value is DROPPED else Tracked(item.root, value)

    return single


def _paired(call: AsyncFn[Any, Any], memo: StageMemo | None) -> AsyncFn[Any, Any]:
    async def paired(item: Tracked) -> Any:
        pair = await call(item.value)
        if memo is not None:
            memo.keep(item, memo.packed(pair[1]))
        return became(item, pair)

    return paired


def _sifting(call: AsyncFn[Any, Any], memo: StageMemo | None) -> AsyncFn[Any, Any]:
    async def sifting(item: Tracked) -> Any:
        value = await call(item.value)
        if memo is not None:
            memo.keep(item, memo.packed(value is not DROPPED))
        return became(item, value)

    return sifting


def _with_item(item: Tracked, result: Any) -> Any:
    return became(item, (item.value, result))


def _listed(call: AsyncFn[list[Any], list[Any]], memo: StageMemo | None) -> AsyncFn[list[Tracked], list[Tracked]]:
    async def listed(items: list[Tracked]) -> list[Tracked]:
        values = await call(seen(items))
        if memo is not None:
            for item, value in zip(items, values, strict=True):
                memo.keep(item, memo.packed(value))
        return [item.now(value) for item, value in zip(items, values, strict=True)]

    return listed


def _fanned(call: AsyncFn[Any, Any], memo: StageMemo | None) -> AsyncFn[Any, Any]:
    async def fanned(item: Tracked) -> Any:
        item.root.under_way -= item.made  # of an attempt whose outputs nobody took
        item.made = 0
        fan = await call(item.value)
        if isinstance(fan, AsyncIterable):
            return _async_outputs(item, cast("AsyncIterable[Any]", fan), memo)
        if isinstance(fan, AT_HAND):
            values = list(cast("Iterable[Any]", fan))
            if memo is not None:
                memo.keep(item, memo.packed(values))
            return item.outputs(values)
        return _outputs(item, cast("Iterable[Any]", fan), memo) if isinstance(fan, Iterable) else fan

    return fanned


def _outputs(item: Tracked, fan: Iterable[Any], memo: StageMemo | None) -> Iterator[Tracked]:
    iterator = iter(fan)
    parts: list[bytes] = []
    try:
        for value in iterator:
            if memo is not None:
                parts.append(memo.packed(value))  # now: stages below may change it
            yield item.output(value)
    finally:
        close(iterator)
    if memo is not None:
        memo.keep(item, pack_list(parts))


async def _async_outputs(item: Tracked, fan: AsyncIterable[Any], memo: StageMemo | None) -> AsyncIterator[Tracked]:
    iterator = aiter(fan)
    parts: list[bytes] = []
    try:
        async for value in iterator:
            if memo is not None:
                parts.append(memo.packed(value))
            yield item.output(value)
    finally:
        await aclose(iterator)
    if memo is not None:
        memo.keep(item, pack_list(parts))


def _shown(failure: Failed) -> Failed:
    """Name the root, and show the item as the user knows it."""
    item: Tracked = failure.item
    item.root.failed = True
    return replace(failure, item=seen(item), root=item.root.key)


def _passed_over(on_error: str, failure: Failed) -> None:
    """Count the item as settled: the run goes on without it."""
    item: Tracked = failure.item
    if on_error == "collect":
        item.root.set_aside(failure.stage, failure.attempts, failure.error, item.value)
    item.root.settled()


def _through(item: Tracked) -> None:
    item.root.settled()


def _sifted(item: Tracked, keep: Any) -> Any:
    return became(item, item.value if keep else DROPPED)


@dataclass(frozen=True, slots=True)
class _Form:
    """Calls functions of one form with tracked items; `recalled` turns an item into its kept result."""

    wrap: Callable[[AsyncFn[Any, Any], StageMemo | None], AsyncFn[Any, Any]]
    recalled: Callable[[Tracked, Any], Any]
    takes_lists: bool = False


_FORMS: Final = Forms(
    single=_Form(_single, became),
    paired=_Form(_paired, _with_item),
    sifting=_Form(_sifting, _sifted),
    listed=_Form(_listed, became, takes_lists=True),
    fanned=_Form(_fanned, Tracked.outputs),
)
