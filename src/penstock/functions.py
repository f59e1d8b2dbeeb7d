"""`map` and `filter` as functions, for those who come from code that passes iterables about."""

from collections.abc import Awaitable, Callable
from typing import Any, Unpack, overload

from penstock.core.policy import OutOfBand
from penstock.core.source import Source
from penstock.ops.work import MoreOptions
from penstock.streams import Stream, as_stream


@overload
def parallel_map[T, U](
    source: Stream[T] | Source[T],
    fn: Callable[[T], Awaitable[U]],
    *,
    concurrency: int,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[U]: ...
@overload
def parallel_map[T, U](
    source: Stream[T] | Source[T],
    fn: Callable[[T], U | Awaitable[U]],
    *,
    concurrency: int,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[U]: ...
def parallel_map(
    source: Stream[Any] | Source[Any],
    fn: Callable[[Any], Any],
    *,
    concurrency: int,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[Any]:
    """`stream(source).map(fn, ...)`: `fn` on every item, at most `concurrency` at once (P1-P9)."""
    return as_stream(source).map(fn, concurrency=concurrency, on_error=on_error, **options)


def parallel_filter[T](
    source: Stream[T] | Source[T],
    predicate: Callable[[T], object],
    *,
    concurrency: int,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[T]:
    """`stream(source).filter(predicate, ...)`: at most `concurrency` predicates at once (P1-P9)."""
    return as_stream(source).filter(predicate, concurrency=concurrency, on_error=on_error, **options)
