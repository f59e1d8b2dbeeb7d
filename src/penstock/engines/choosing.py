"""The option `engine`: finds the engine that a function runs on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from penstock.core.errors import OptionError
from penstock.core.plan import Plan
from penstock.core.scope import Scope
from penstock.core.stage_limits import Limits
from penstock.core.text import shown
from penstock.engines.binding import Binding
from penstock.engines.engine import Engine, Slots
from penstock.engines.groups import WINDOW, Groups
from penstock.engines.local import FunctionKind
from penstock.engines.threads import Threads

type EngineOption = Literal["inline", "thread", "process"] | Engine
"""The option `engine`: a name, or an engine that stages and runs share."""

type Make = Callable[[int | None, str], Engine]
"""Makes an engine for one stage of one run, given its places, if it says how many, and its name."""


def _processes(places: int | None, _: str) -> Engine:
    from penstock.engines.process.processes_engine import processes, processors  # noqa: PLC0415 -- slow to import, and often unused

    return processes(None if places is None else min(places, processors()))


OWN: Final[Mapping[object, Make]] = {
    "thread": lambda places, name: Threads(places or 1, name=name),
    "process": _processes,
}
"""The engines that have a name: each stage of a run has one of its own."""


def chosen(option: object, kind: FunctionKind, places: int | None) -> Engine | Make | None:
    """Find the engine for a function of that kind: one that is given, how to make one, or None for the loop.

    Raises:
        OptionError: the option breaks its rule.
    """
    if option is None:
        return OWN["thread"] if kind == "plain" and (places or 1) > 1 else None
    if isinstance(option, str) and option == "inline":
        return None
    engine = option if isinstance(option, Engine) else OWN.get(option) if isinstance(option, str) else None
    if engine is None:
        names = ", ".join(map(repr, ("inline", *OWN)))
        raise OptionError(f"engine must be None, {names} or an engine of penstock.engines, got {shown(option)}")
    if kind == "async":
        raise OptionError(f"engine must be None or 'inline' for an async function, got {option!r}: it runs on the loop")
    return engine


def leaves_process(engine: Engine | Make | None) -> bool:
    """Whether functions run in other processes on that engine: one that kills its process is found there."""
    return not engine.in_process if isinstance(engine, Engine) else engine is _processes


def bound_to(
    engine: Engine | Make, scope: Scope, plan: Plan[Any, Any], *, counted: bool
) -> tuple[Binding, Plan[Any, Any]]:
    """Bind a stage of a run to the engine; return the binding, and the plan of the stage there.

    A shared engine gives its slots in turn to all who use it. A stage that is not `counted` has as many places as the
    engine has slots, or, where calls travel in groups, `WINDOW` for each slot.
    """
    own = not isinstance(engine, Engine)
    if not isinstance(engine, Engine):
        engine = engine(plan.concurrency if counted else None, plan.name)
        scope.resources.append(engine)
    if engine.group_seconds is not None:
        groups = engine.line(Groups)
        groups.bind(scope.loop)
        concurrency = plan.concurrency if counted else WINDOW * groups.slots
        return Binding(engine, scope.closed, groups, concurrency), plan.replaced(concurrency=concurrency)
    if own:
        return Binding(engine, scope.closed), plan
    places = engine.line(Slots)
    given = Limits((), ()) if plan.limits is None else plan.limits
    limits = replace(given, limiters=tuple(sorted((*given.limiters, places), key=lambda each: each.number)))
    concurrency = plan.concurrency if counted else places.limit
    return Binding(engine, scope.closed), plan.replaced(limits=limits, concurrency=concurrency)
