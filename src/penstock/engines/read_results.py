"""Reading an iterable where the call runs that gave it: a worker needs no more of penstock for that."""

from collections.abc import Awaitable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any, Final, cast

from penstock.core.at_hand import AT_HAND, length_of

_AS_IT_IS: Final = (*AT_HAND, str, bytes, bytearray, range, Mapping, AbstractSet, Awaitable)


def read(value: Any, most: int) -> Any:
    """Read up to `most` results of an iterable; return as it is what is in memory, is awaited, or has too many."""
    if isinstance(value, _AS_IT_IS) or not isinstance(value, Iterable):
        return cast("Any", value)
    length = length_of(cast("object", value))
    if length is not None and length >= most:
        return cast("Any", value)
    return list(islice(cast("Iterable[Any]", value), most))
