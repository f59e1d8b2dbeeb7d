"""How a window calls its work: timeout, timing, limits, retries and gate are put round it here, for all windows."""

from collections.abc import Callable
from functools import partial
from typing import Any

from penstock.core.adaptive import Control
from penstock.core.deadlines import timed
from penstock.core.meter import Meter
from penstock.core.plan import MISSING, AsyncFn, Gate, Plan
from penstock.core.retry import retrying
from penstock.core.stage_limits import Aside, Hold, Limits, limited, limited_items


def _nothing(_: object) -> None:
    """Forget nothing."""


def _seen[J](plan: Plan[Any, Any], given: Callable[[J], Any] | None) -> Callable[[J], Any] | None:
    """Return what turns that with which a window calls into the item that the user knows; None if it is that."""
    seen = plan.seen
    if given is None or seen is None:
        return given or seen
    return lambda job: seen(given(job))


def gated[T, U](work: AsyncFn[T, U], gate: Gate[T]) -> AsyncFn[T, U]:
    """Wrap `work`: call it only on items whose result the gate does not know."""

    async def call(item: T) -> U:
        known = await gate(item)
        return await work(item) if known is MISSING else known

    return call


def attempt_of[T, U](plan: Plan[T, U]) -> AsyncFn[T, U]:
    """Return the work of `plan`, with its timeout for each attempt."""
    return plan.work if plan.timeout is None else timed(plan.work, plan.timeout)


def composed[J, U](
    plan: Plan[Any, Any],
    meter: Meter,
    attempt: AsyncFn[J, U],
    *,
    may_retry: Callable[[J], bool],
    forget: Callable[[J], None] = _nothing,
    given: Callable[[J], Any] | None = None,
    hold: Callable[[Limits, J], Hold] | None = None,
    room: Aside | None = None,
    control: Control | None = None,
    divided: Callable[[AsyncFn[J, U], AsyncFn[J, U]], AsyncFn[J, U]] | None = None,
    knowing: Callable[[AsyncFn[J, U], Gate[Any]], AsyncFn[J, U]] = gated,
) -> AsyncFn[J, U]:
    """Put round `attempt` what `plan` asks for: limits for each attempt, retries, and the gate in front of all.

    Where a limit has keys, calls wait for them in the `room` of the window; `control` learns from each attempt. A
    window calls with an item, a list of items, or an open input. For the last two it gives its own parts: what an
    attempt holds of the limits (`hold`), the item of an open input (`given`), what becomes of the call with retries and
    the one without when a list is divided (`divided`), and how to leave out what the gate knows (`knowing`).
    """
    once = attempt if control is None else control.watched(attempt)
    if (limits := plan.limits) is not None:
        if hold is None:
            once = limited_items(once, limits, plan.name, meter, room)
        else:
            once = limited(once, partial(hold, limits))
    call = once
    if plan.retry is not None:
        call = retrying(once, plan.retry, meter.note_retry, may_retry, forget, stage=plan.name, seen=_seen(plan, given))
    if divided is not None:
        call = divided(call, once)
    if plan.gate is not None:
        call = knowing(call, plan.gate)
    if (one_by_one := plan.one_by_one) is not None:
        call = limited_items(call, one_by_one, plan.name, meter, room)
    return call
