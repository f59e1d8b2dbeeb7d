"""`map` and `filter` as functions, for those who come from code that passes iterables about."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from penstock.core.outcome import Result
from penstock.core.policy import OnError, OutOfBand
from penstock.core.source import Source
from penstock.ops.work import MoreOptions
from penstock.streams import Stream, as_stream

if TYPE_CHECKING:
    from typing_extensions import TypeIs


@overload
def parallel_map[T, U](
    source: Stream[T] | Source[T],
    fn: Callable[[T], Awaitable[U]],
    *,
    concurrency: int,
    on_error: Literal["return"],
    **options: Unpack[MoreOptions],
) -> Stream[Result[U]]: ...
@overload
def parallel_map[T, U](
    source: Stream[T] | Source[T],
    fn: Callable[[T], U | Awaitable[U]],
    *,
    concurrency: int,
    on_error: Literal["return"],
    **options: Unpack[MoreOptions],
) -> Stream[Result[U]]: ...
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
    on_error: OnError = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[Any]:
    """`stream(source).map(fn, ...)`: `fn` on every item, at most `concurrency` at once (P1-P9)."""
    return as_stream(source).map(fn, concurrency=concurrency, on_error=on_error, **options)


@overload
def parallel_filter[T, S](
    source: Stream[T] | Source[T],
    predicate: "Callable[[T], TypeIs[S]]",
    *,
    concurrency: int,
    on_error: Literal["return"],
    **options: Unpack[MoreOptions],
) -> Stream[Result[S]]: ...
@overload
def parallel_filter[T, S](
    source: Stream[T] | Source[T],
    predicate: "Callable[[T], TypeIs[S]]",
    *,
    concurrency: int,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[S]: ...
@overload
def parallel_filter[T](
    source: Stream[T] | Source[T],
    predicate: Callable[[T], object],
    *,
    concurrency: int,
    on_error: Literal["return"],
    **options: Unpack[MoreOptions],
) -> Stream[Result[T]]: ...
@overload
def parallel_filter[T](
    source: Stream[T] | Source[T],
    predicate: Callable[[T], object],
    *,
    concurrency: int,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[T]: ...
def parallel_filter(
    source: Stream[Any] | Source[Any],
    predicate: Callable[[Any], object],
    *,
    concurrency: int,
    on_error: OnError = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[Any]:
    """`stream(source).filter(predicate, ...)`: at most `concurrency` predicates at once (P1-P9)."""
    return as_stream(source).filter(predicate, concurrency=concurrency, on_error=on_error, **options)
