"""The functions that make streams: of one source, of several, and with their first operator at once."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from penstock.core import validate
from penstock.core.adaptive import Adaptive
from penstock.core.outcome import Result
from penstock.core.plan import OnError, OutOfBand
from penstock.core.source import Source, SourceSpec
from penstock.core.text import call, content_of
from penstock.engines.local import SOURCE_ENGINES, SourceEngine
from penstock.engines.thread_source import ThreadStage
from penstock.ops.combine import MERGE
from penstock.ops.description import Description, Origin
from penstock.ops.work import MoreOptions
from penstock.streams import Stream, joined

if TYPE_CHECKING:
    from typing_extensions import TypeIs


def stream[T](source: Source[T], *, total: int | None = None, engine: SourceEngine | None = None) -> Stream[T]:
    """Make a stream over `source`: an iterable, an async iterable, or a function without arguments that returns one.

    Each item of a list is an item. A one-shot iterator can be run once; the run closes it, even if it was passed in.
    One task reads an async source and closes it.

    Args:
        source: where the items come from.
        total: how many items to expect, an int >= 0, for progress; default `len(source)`, if it has a length.
        engine: "thread" reads a plain iterable that blocks (a cursor, a queue, standard input) in one thread of its
            own, as many items at once as there are free places. The thread cannot be interrupted: a run that is left
            waits for it as it waits for all work (P4). None, the default, reads it on the loop.

    Example:
        squares = await penstock.stream(range(10)).map(square, concurrency=4).to_list()

    Raises:
        OptionError: `source` is none of these, or an option breaks its rule.
    """
    spec = source_spec(source, total, engine)
    text = call("stream", content_of(source), engine=engine)
    return Stream(Description(Origin(lambda scope, _: spec.open(scope), spec.refuse_consumed, text)))


def source_spec(source: object, total: int | None, engine: SourceEngine | None) -> SourceSpec:
    """Check the arguments of `stream`."""
    if total is not None:
        total = validate.whole("total", total, least=0)
    in_thread = validate.one_of("engine", engine, SOURCE_ENGINES) == "thread"
    return SourceSpec(source, total, ThreadStage if in_thread else None)


@overload
def merge[A, B](one: Stream[A] | Source[A], other: Stream[B] | Source[B], /) -> Stream[A | B]: ...
@overload
def merge[A, B, C](
    one: Stream[A] | Source[A], other: Stream[B] | Source[B], third: Stream[C] | Source[C], /
) -> Stream[A | B | C]: ...
@overload
def merge[T](*sources: Stream[T] | Source[T]) -> Stream[T]: ...
def merge(*sources: Stream[Any] | Source[Any]) -> Stream[Any]:
    """Hand on the items of all sources as they come: unordered and fair (P3).

    It reads one item ahead per source, and ends when all have ended.
    """
    return joined(MERGE, *map(as_stream, sources))


def as_stream(source: Stream[Any] | Source[Any]) -> Stream[Any]:
    """Return `source` if it is a stream, else a stream over it."""
    if isinstance(source, Stream):
        return source  # pyright: ignore[reportUnknownVariableType] # isinstance forgets what a Stream is of
    return stream(source)


@overload
def parallel_map[T, U](
    source: Stream[T] | Source[T],
    fn: Callable[[T], Awaitable[U]],
    *,
    concurrency: int | Adaptive,
    on_error: Literal["return"],
    **options: Unpack[MoreOptions],
) -> Stream[Result[U]]: ...
@overload
def parallel_map[T, U](
    source: Stream[T] | Source[T],
    fn: Callable[[T], U | Awaitable[U]],
    *,
    concurrency: int | Adaptive,
    on_error: Literal["return"],
    **options: Unpack[MoreOptions],
) -> Stream[Result[U]]: ...
@overload
def parallel_map[T, U](
    source: Stream[T] | Source[T],
    fn: Callable[[T], Awaitable[U]],
    *,
    concurrency: int | Adaptive,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[U]: ...
@overload
def parallel_map[T, U](
    source: Stream[T] | Source[T],
    fn: Callable[[T], U | Awaitable[U]],
    *,
    concurrency: int | Adaptive,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[U]: ...
def parallel_map(
    source: Stream[Any] | Source[Any],
    fn: Callable[[Any], Any],
    *,
    concurrency: int | Adaptive,
    on_error: OnError = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[Any]:
    """Make `stream(source).map(fn, ...)`: `fn` on every item, at most `concurrency` at once (P1-P9)."""
    return as_stream(source).map(fn, concurrency=concurrency, on_error=on_error, **options)


@overload
def parallel_filter[T, S](
    source: Stream[T] | Source[T],
    predicate: "Callable[[T], TypeIs[S]]",
    *,
    concurrency: int | Adaptive,
    on_error: Literal["return"],
    **options: Unpack[MoreOptions],
) -> Stream[Result[S]]: ...
@overload
def parallel_filter[T, S](
    source: Stream[T] | Source[T],
    predicate: "Callable[[T], TypeIs[S]]",
    *,
    concurrency: int | Adaptive,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[S]: ...
@overload
def parallel_filter[T](
    source: Stream[T] | Source[T],
    predicate: Callable[[T], object],
    *,
    concurrency: int | Adaptive,
    on_error: Literal["return"],
    **options: Unpack[MoreOptions],
) -> Stream[Result[T]]: ...
@overload
def parallel_filter[T](
    source: Stream[T] | Source[T],
    predicate: Callable[[T], object],
    *,
    concurrency: int | Adaptive,
    on_error: OutOfBand = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[T]: ...
def parallel_filter(
    source: Stream[Any] | Source[Any],
    predicate: Callable[[Any], object],
    *,
    concurrency: int | Adaptive,
    on_error: OnError = "raise",
    **options: Unpack[MoreOptions],
) -> Stream[Any]:
    """Make `stream(source).filter(predicate, ...)`: at most `concurrency` predicates at once (P1-P9)."""
    return as_stream(source).filter(predicate, concurrency=concurrency, on_error=on_error, **options)
