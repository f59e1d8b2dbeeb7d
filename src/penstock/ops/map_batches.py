"""The operator whose function takes a list of items and gives a result for each: `map_batches`."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast, override

from penstock.core import validate
from penstock.core.at_hand import length_of
from penstock.core.batches import BatchWindow
from penstock.core.errors import OptionError, ResultCountError
from penstock.core.plan import AsyncFn, Plan
from penstock.core.retry import Seconds
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.engines.binding import Binding
from penstock.ops.group import Batch
from penstock.ops.kind import Forms, Kind


@dataclass(frozen=True, slots=True)
class MapBatches(Kind):
    """Calls the function with lists of up to `most` items, and hands on the results item by item.

    Attributes:
        most: the items of a list.
        within: seconds that a list waits after its first item came; None means until it is full.
    """

    most: int = 1
    within: float | None = None

    @property
    @override
    def size(self) -> int:
        return self.most

    @property
    @override
    def arguments(self) -> tuple[str, ...]:
        return (str(self.most),)

    @property
    @override
    def without_tasks(self) -> bool:
        return False

    @property
    @override
    def one_for_one(self) -> bool:
        return False

    @property
    @override
    def shows_order(self) -> bool:
        """True: the items of a list show their order."""
        return True

    @override
    def called(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return _one_each(fn)

    @override
    def bound(self, binding: Binding, fn: Callable[[Any], Any], timeout: float | None) -> AsyncFn[Any, Any]:
        call = binding.bind(fn, timeout)

        async def one_each(items: list[Any]) -> list[Any]:
            return _checked(items, await call(items.copy(), len(items) + 1))

        return one_each

    @override
    def window(self, scope: Scope, upstream: Stage[Any], plan: Plan[Any, Any]) -> Stage[Any]:
        batches = Batch(scope, upstream, self.most, self.within)
        return BatchWindow(scope, batches, plan)

    @override
    def form[F](self, forms: Forms[F]) -> F:
        return forms.listed


def map_batches(size: int, within: Seconds | None) -> MapBatches:
    """Make the kind of a `map_batches` of that size.

    Raises:
        OptionError: an argument breaks its rule.
    """
    return MapBatches(
        "map_batches",
        most=validate.whole("size", size, least=1),
        within=None if within is None else validate.seconds("within", within),
    )


def _one_each(fn: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """Wrap `fn`: give it a list of its own, and check that it returns one result per item."""

    def call(items: list[Any]) -> Any:
        results = fn(items.copy())
        if isinstance(results, Awaitable):
            return _awaited(items, cast("Awaitable[Any]", results))
        return _checked(items, results)

    async def _awaited(items: list[Any], results: Awaitable[Any]) -> list[Any]:
        return _checked(items, await results)

    return call


def _checked(items: list[Any], results: Any) -> list[Any]:
    if not isinstance(results, Iterable) or isinstance(results, str | bytes | Mapping | AbstractSet):
        raise OptionError(f"the function of map_batches must return an ordered iterable of results, got {results!r}")
    wanted = len(items)
    outputs = list(islice(cast("Iterable[Any]", results), wanted + 1))
    if len(outputs) != wanted:
        length = length_of(cast("object", results))
        given = length if length is not None else "more" if len(outputs) > wanted else len(outputs)
        raise ResultCountError(f"the function of map_batches must return one result per item, got {given} for {wanted}")
    return outputs
