"""Kinds of operators that run a user's function.

A new operator is a kind, a method of `Stream`, and a row of the tests. See `docs/decisions.md`, "Kinds of operators".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.core.byte_budget import BudgetedWindow
from penstock.core.one_place import OnePlace
from penstock.core.plan import AsyncFn, Plan
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.text import call
from penstock.core.window import Window
from penstock.engines.binding import Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms[F]:
    """One value for each form of function: how to track items through it, say.

    Attributes:
        single: the function takes an item and gives its result.
        sifting: it takes an item and says whether the item goes on.
        listed: it takes a list of items and gives a result for each.
        fanned: it takes an item and gives any number of outputs.
        paired: it takes an item and gives its result, and the output is the pair of both.
    """

    single: F
    paired: F
    sifting: F
    listed: F
    fanned: F


@dataclass(frozen=True, slots=True)
class Kind:
    """What an operator does with its function; the methods here are those of `map`.

    Attributes:
        name: of the operator.
        shape: `shape(item, result)` makes the output; None means that the result is the output.
        pairs: whether `shape` makes pairs of an item and its result.
        for_effect: whether the function is called only for its effect, so that no result can be kept.
    """

    name: str
    shape: Callable[[Any, Any], Any] | None = None
    for_effect: bool = False
    pairs: bool = False

    @property
    def size(self) -> int:
        """The most items that a call takes."""
        return 1

    @property
    def arguments(self) -> tuple[str, ...]:
        """The operator's arguments beside the function and options, for its text."""
        return ()

    @property
    def without_tasks(self) -> bool:
        """Whether the window may call a plain function itself, without a task."""
        return True

    @property
    def one_for_one(self) -> bool:
        """Whether a call takes one item and gives one result: what `key`, `buffer_bytes` and `size_of` are about."""
        return True

    @property
    def adapts(self) -> bool:
        """Whether its calls tell of the service that they call, so that `concurrency` may be `Adaptive`."""
        return True

    @property
    def shows_order(self) -> bool:
        """Whether its output shows the order of its items, whatever the options say."""
        return False

    def called(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return what the window calls for the user's `fn`, which runs on the loop."""
        return fn

    def bound(self, binding: Binding, fn: Callable[[Any], Any], timeout: float | None) -> AsyncFn[Any, Any]:
        """Return what the window calls for the user's `fn`, which runs on an engine."""
        return binding.bind(fn, timeout)

    def window(self, scope: Scope, upstream: Stage[Any], plan: Plan[Any, Any]) -> Stage[Any]:
        """Open the stage that works by `plan`."""
        if plan.budget is not None:
            return BudgetedWindow(scope, upstream, plan)
        return (OnePlace if OnePlace.fits(plan) else Window)(scope, upstream, plan)

    def form[F](self, forms: Forms[F]) -> F:
        """Pick the value of `forms` for the form of its function."""
        return forms.paired if self.pairs else forms.single

    def text(self, fn: str, plan: Plan[Any, Any]) -> str:
        """Write the call that made the operator, with its main options."""
        return call(
            self.name,
            fn,
            *self.arguments,
            name=None if plan.name.startswith(f"{self.name}(") else plan.name,
            concurrency=plan.adaptive or (plan.concurrency if plan.concurrency > 1 else None),
            keep=self.pairs or None,
            ordered=None if self.shows_order else plan.ordered,
            buffer=plan.buffer or None,
            timeout=plan.timeout,
            on_error=None if plan.on_error == "raise" else plan.on_error,
        )
