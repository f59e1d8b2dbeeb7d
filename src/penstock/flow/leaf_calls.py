"""Where a leaf of a run is called, within its timeout, and what limits it holds."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from penstock.core.plan import Plan
from penstock.core.retry import within
from penstock.core.scope import Scope
from penstock.core.stage_limits import Limits, limits_of
from penstock.engines.binding import Binding
from penstock.engines.choosing import OWN, Make, bound_to, chosen
from penstock.engines.engine import Engine
from penstock.flow.context import StepContext
from penstock.flow.function import MANY, FunctionStep
from penstock.flow.leaf import Leaf


class LeafCalls:
    """The engines of the steps of a run; `concurrency` is that of the run."""

    def __init__(self, scope: Scope, concurrency: int) -> None:
        self._scope = scope
        self._concurrency = concurrency
        self._threads: Binding | None = None
        self._engines: dict[int, tuple[Binding, Limits | None]] = {}

    def caller(self, step: Leaf[Any, Any]) -> Callable[[Any, StepContext], Awaitable[Any]]:
        """Return how the leaf is called, within its timeout."""
        timeout = step.options.timeout
        if isinstance(step, FunctionStep) and (where := self._where(step)) is not None:
            return lambda value, ctx: where.call(step.fn, step.arguments(value, ctx), timeout)
        if timeout is None:
            return step.call
        return lambda value, ctx: within(timeout, step.call(value, ctx))

    def _where(self, step: FunctionStep) -> Binding | None:
        """Where its function runs; None: on the loop."""
        engine = chosen(step.options.engine, step.runs_as, MANY)
        if engine is None:
            return None
        if engine is OWN["thread"]:
            if self._threads is None:
                threads = OWN["thread"](self._concurrency, "steps")
                self._scope.resources.append(threads)
                self._threads = Binding(threads, self._scope.closed)
            return self._threads
        return self._bound(step, engine)[0]

    def _bound(self, step: FunctionStep, engine: Engine | Make) -> tuple[Binding, Limits | None]:
        """Return a step on an engine that is shared with others, or its own."""
        found = self._engines.get(id(step))
        if found is None:
            plan: Plan[Any, Any] = Plan(
                step.name, cast("Any", step.call), concurrency=self._concurrency, limits=limits_of(step.options.limit)
            )
            binding, plan = bound_to(engine, self._scope, plan, counted=True)
            found = self._engines[id(step)] = binding, plan.limits
        return found

    def limits(self, step: Leaf[Any, Any]) -> Limits | None:
        """Return the limits of the leaf, those of its engine with it, bound to the loop; None: it has none."""
        limits = limits_of(step.options.limit)
        if isinstance(step, FunctionStep):
            engine = chosen(step.options.engine, step.runs_as, MANY)
            if engine is not None and engine is not OWN["thread"]:
                limits = self._bound(step, engine)[1]
        if limits is not None:
            limits.bind(self._scope.loop)
        return limits
