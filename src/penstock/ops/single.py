"""Operators whose function takes an item and gives a result: `map`, `filter`, `tap`, `for_each`."""

from typing import Any, Final, override

from penstock.core.plan import DROPPED
from penstock.ops.kind import Forms, Kind


class Sifting(Kind):
    """Hands on the items for which the function is true."""

    __slots__ = ()

    @override
    def form[F](self, forms: Forms[F]) -> F:
        return forms.sifting


def _kept(item: Any, keep: Any) -> Any:
    return item if keep else DROPPED


def _unchanged(item: Any, _result: Any) -> Any:
    return item


def _with_item(item: Any, result: Any) -> Any:
    return item, result


MAP: Final = Kind("map")
MAP_KEEPING: Final = Kind("map", _with_item, pairs=True)
FILTER: Final = Sifting("filter", _kept)
TAP: Final = Kind("tap", _unchanged, for_effect=True)
FOR_EACH: Final = Kind("for_each", _unchanged, for_effect=True)
