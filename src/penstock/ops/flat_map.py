"""Operators whose function gives any number of outputs for an item: `flat_map` and `flatten`."""

from collections.abc import Callable
from typing import Any, Final, override

from penstock.core.fan_out import FanOut
from penstock.core.plan import AsyncFn, Plan
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.engines.binding import Binding
from penstock.ops.kind import Forms, Kind


class FlatMap(Kind):
    """Hands on each output of the iterable that the function gives.

    An iterable that blocks is read where it was made.
    """

    __slots__ = ()

    @property
    @override
    def one_for_one(self) -> bool:
        return False

    @property
    @override
    def adapts(self) -> bool:
        return False

    @override
    def bound(self, binding: Binding, fn: Callable[[Any], Any], timeout: float | None) -> AsyncFn[Any, Any]:
        return binding.bind_fan(fn, timeout)

    @override
    def window(self, scope: Scope, upstream: Stage[Any], plan: Plan[Any, Any]) -> Stage[Any]:
        return FanOut(scope, upstream, plan)

    @override
    def form[F](self, forms: Forms[F]) -> F:
        return forms.fanned


class _Flatten(FlatMap):
    """A `flat_map` that describes itself as `flatten`."""

    __slots__ = ()

    @override
    def text(self, fn: str, plan: Plan[Any, Any]) -> str:
        return "flatten()"


FLAT_MAP: Final = FlatMap("flat_map")
FLATTEN: Final = _Flatten("flat_map")
