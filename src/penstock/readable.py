"""The ends of a stream: how it is run and read."""

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Generic, TypedDict, TypeVar, Unpack, overload

from penstock.core import validate
from penstock.core.errors import EmptyStreamError
from penstock.core.retry import Seconds
from penstock.durable.options import DeliverOptions, run_options
from penstock.durable.report import RunReport
from penstock.durable.root_source import source_of
from penstock.durable.sink import Sink, check_sink
from penstock.ops.description import Description
from penstock.progress import require_rich
from penstock.run import Run, read_to_end, too_many_stages
from penstock.sync import SyncRun

if TYPE_CHECKING:
    from penstock.durable.handle import DurableRun

T_co = TypeVar("T_co", covariant=True)

_NO_DEFAULT: Any = object()

GRACE: Final = 5.0
"""Seconds that work gets which ignores its cancellation."""


class OpenOptions(TypedDict, total=False):
    """Options of `open` and `sync`: see there."""

    grace: Seconds
    progress: bool
    timing: bool


class Readable(Generic[T_co]):  # noqa: UP046 -- inferred variance would be invariant: `flatten` needs covariance
    """A description of work that can be run any number of times."""

    __slots__ = ()

    @property
    def description(self) -> Description:
        """What it is made of: the origin of its items, and its operators."""
        raise NotImplementedError

    def open(self, *, grace: Seconds = GRACE, progress: bool = False, timing: bool = False) -> Run[T_co]:
        """Make a run of this stream, for `async with`; it reads nothing before its first item is asked for.

        Args:
            grace: seconds that work which ignores its cancellation gets when the run is left, >= 0; then a warning
                names it and it is left behind.
            progress: show on stderr how it goes: a live table on a terminal, a line every five seconds elsewhere. With
                the `total` of `stream()`, or a source that has a length, it says how long it will take.
            timing: time every call for the statistics, also calls so fast that one in 16 would do.

        Raises:
            ModuleNotFoundError: `progress` needs rich, and it is not installed.
            OptionError: a stage has `memo=True`, which needs the sink of `to`.
            SourceConsumedError: the source is a one-shot iterator that has been read.
        """
        if validate.flag("progress", progress):
            require_rich()
        seconds = validate.seconds("grace", grace, zero=True)
        self._refuse_opening()
        return Run(
            partial(self.description.open, in_order=True),
            seconds,
            timing=validate.flag("timing", timing),
            progress=progress,
            describe=self.__repr__,
        )

    def sync(self, *, grace: Seconds = GRACE, progress: bool = False, timing: bool = False) -> SyncRun[T_co]:
        """Make a run for scripts and notebooks: `with stream.sync() as items: for item in items: ...` (P4).

        It has a loop and a thread of its own, so clients made on another loop do not work in it. The options are those
        of `open()`.
        """
        return SyncRun(self.open(grace=grace, progress=progress, timing=timing))

    def __aiter__(self) -> Run[T_co]:
        """Run the stream to its end; to leave early use `async with stream.open()`."""
        return self.open()

    def _refuse_opening(self) -> None:
        try:
            self.description.refuse_opening()
        except RecursionError as error:
            raise too_many_stages() from error

    def _to_the_end(self, *, in_order: bool = True) -> Run[T_co]:
        """Make a run for a reader who takes all items at once: a hop from a thread may bring as many.

        Without `in_order`, nobody sees the order: stages with `ordered=None` hand results on as they finish (P3).
        """
        self._refuse_opening()
        opens = partial(self.description.open, in_order=in_order)
        return Run(opens, GRACE, timing=False, progress=False, room=64)

    async def to_list(self) -> list[T_co]:
        """Return all results in a list; its memory grows with the input (P7)."""
        results: list[T_co] = []
        async with self._to_the_end() as items:
            await read_to_end(items, results.append)
        return results

    async def reduce[A](self, fn: Callable[[A, T_co], A], initial: A) -> A:
        """Fold the results into one value: `fn(so_far, item)`, a plain function, is called for each in turn.

        Raises:
            OptionError: `fn` is no plain function.
        """
        validate.plain_function("fn", fn)
        result = initial
        async with self._to_the_end() as items:
            async for item in items:
                result = validate.plain_result("fn", fn(result, item))
        return result

    @overload
    async def first(self) -> T_co: ...
    @overload
    async def first[D](self, *, default: D) -> T_co | D: ...
    async def first(self, *, default: Any = _NO_DEFAULT) -> Any:
        """Return the first result, and stop the work on others.

        Raises:
            EmptyStreamError: there is none and no `default` was given.
        """
        async with self.open() as items:
            async for item in items:
                return item
        if default is _NO_DEFAULT:
            raise EmptyStreamError("first() of a stream that gave no item; give default= for that case")
        return default

    async def count(self) -> int:
        """Return the number of results; stages with `ordered=None` hand them on as they finish."""
        numbers = count()
        async with self._to_the_end(in_order=False) as items:
            await read_to_end(items, lambda _: next(numbers))
        return next(numbers)

    async def drain(self) -> None:
        """Run to the end for its effects; stages with `ordered=None` hand results on as they finish."""
        async with self._to_the_end(in_order=False) as items:
            await read_to_end(items, lambda _: None)

    def deliver(self, sink: Sink, /, *, run: str, **options: Unpack[DeliverOptions]) -> "DurableRun":
        """Make a durable run into `sink`, for `async with`: what `to` does, but to be watched and ended.

        Nothing is read before `await run.finish()`. Meanwhile, and afterwards, `report()`, `stats()`, `failures` and
        the counts say how it stands; `stop()` and `abort()` end it. Leaving the block early stops and awaits what is in
        flight, and commits what is finished (P4).

        Example:
            async with stream.deliver(sink, run="docs") as run:
                loop.call_later(3600, run.stop)
                await run.finish()
            print(run.report())

        Raises:
            ModuleNotFoundError: `progress` needs rich, or the sink a library, and it is not installed.
            OptionError: as for `to`, which also says what entering the block and `finish` raise.
        """
        from penstock.durable.handle import DurableRun  # noqa: PLC0415 -- only durable runs need it
        from penstock.durable.job import Job  # noqa: PLC0415 -- as above

        checked = run_options(run, options)
        check_sink(sink)
        return DurableRun(Job(source_of(self.description), sink, checked))

    async def to(self, sink: Sink, /, *, run: str, **options: Unpack[DeliverOptions]) -> RunReport:
        """Run to the end into `sink`, durably: killed at any instant and called again, it goes on where it was (P10).

        The unit is the *root*, an item of the source. A root is done when the sink has accepted everything that it
        became, but for what was dropped or set aside; its rows and the note that it is done are stored in one
        transaction. Roots that are done in their present version are passed over; a root that has changed replaces its
        rows. With `on_error="collect"`, an item that fails is set aside in the sink's database, and its root is dead
        until it changes or is retried. A row that the sink cannot hold is an item that fails, in a stage named after
        the class of the sink.

        Args:
            sink: where the rows go.
            run: the name of the run, by which the journal in the sink knows it.
            options: see `penstock.durable.options.DeliverOptions`.

        Raises:
            OptionError: an option breaks its rule, the items of the source have no keys, or an operator would mean
                something else after a resume.
            DuplicateKeyError: two items of the source have one key.
            HeldError: another process is writing to the sink.
            ModuleNotFoundError: `progress` needs rich, and it is not installed.
            StoreError: the sink cannot be written; or it knows the run as one over another source, into another sink,
                or, with `on_change="refuse"`, of other code.
        """
        async with self.deliver(sink, run=run, **options) as durable:
            await durable.finish()
        return durable.report()
