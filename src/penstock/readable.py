"""What can be run and read: the ends of a stream."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, Literal, TypeVar, overload

from penstock.core import validate
from penstock.core.errors import EmptyStreamError, OptionError
from penstock.core.policy import ANY_NUMBER
from penstock.core.retry import Seconds
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.durable.fingerprint import OnChange
from penstock.durable.job import IdentifiedSource, Job, OnDead, OnDuplicate, OnMissing
from penstock.durable.report import RunReport
from penstock.durable.sink import Durability, Sink
from penstock.progress import require_rich
from penstock.run import Run, too_many_stages
from penstock.sync import SyncRun

T_co = TypeVar("T_co", covariant=True)

_NO_DEFAULT: Any = object()

GRACE: Final = 5.0
"""Seconds that work which ignores its cancellation gets."""


class Readable(Generic[T_co]):  # noqa: UP046 -- inferred variance would be invariant: `flatten` needs covariance
    """A description of work that can be run, any number of times."""

    __slots__ = ()

    refuse_opening: Callable[[], None]
    """Raise if it cannot be opened: its source is a one-shot iterator that has been read, or it needs a sink."""

    def open_stage(self, scope: Scope, *, in_order: bool) -> Stage[Any]:
        """Open the stages of a run, the order of whose results can be seen or not; the last one."""
        raise NotImplementedError

    @property
    def identified(self) -> IdentifiedSource:
        """This as a source of roots, for a durable run; not for users.

        Raises:
            OptionError: its items have no keys, or an operator would mean something else after a resume.
        """
        raise NotImplementedError

    def open(self, *, grace: Seconds = GRACE, progress: bool = False, timing: bool = False) -> Run[T_co]:
        """A run of this stream, for `async with`; nothing is read before its first item is asked for.

        Args:
            grace: seconds that work which ignores its cancellation gets when the run is left, >= 0; then a warning
                names it and it is left behind.
            progress: show on stderr how it goes: a live table on a terminal, a line every five seconds elsewhere. With
                the `total` of `stream()`, or a source that has a length, it says how long it will take.
            timing: time every call for the statistics, also where calls are so fast that one in 16 would do.

        Raises:
            ModuleNotFoundError: `progress` needs rich, and it is not installed.
            OptionError: a stage has `memo=True`, which needs the sink of `to`.
            SourceConsumedError: the source is a one-shot iterator that has been read.
        """
        if validate.flag("progress", progress):
            require_rich()
        seconds = validate.seconds("grace", grace, zero=True)
        self._refuse_opening()
        opens = partial(self.open_stage, in_order=True)
        run = Run[T_co](opens, seconds, timing=validate.flag("timing", timing), progress=progress)
        run.describe = self.__repr__
        return run

    def sync(self, *, grace: Seconds = GRACE, progress: bool = False, timing: bool = False) -> SyncRun[T_co]:
        """A run for scripts and notebooks: `with stream.sync() as items: for item in items: ...` (P4).

        It has a loop and a thread of its own, so clients made on another loop do not work in it. The options are those
        of `open()`.
        """
        return SyncRun(self.open(grace=grace, progress=progress, timing=timing))

    def __aiter__(self) -> Run[T_co]:
        """Run the stream to its end; to leave early use `async with stream.open()`."""
        return self.open()

    def _refuse_opening(self) -> None:
        try:
            self.refuse_opening()
        except RecursionError as error:
            raise too_many_stages() from error

    def _to_the_end(self, *, in_order: bool = True) -> Run[T_co]:
        """A run for who takes all there is at once: so many items may come from a thread for one hop.

        Without `in_order`, nobody sees the order: stages with `ordered=None` hand results on as they finish (P3).
        """
        self._refuse_opening()
        run: Run[T_co] = Run(partial(self.open_stage, in_order=in_order), GRACE, timing=False, progress=False)
        run.room = 64
        return run

    async def to_list(self) -> list[T_co]:
        """All results in a list; its memory grows with the input (P7)."""
        async with self._to_the_end() as items:
            return [item async for item in items]

    async def reduce[A](self, fn: Callable[[A, T_co], A], initial: A) -> A:
        """Fold the results into one value: `fn(so_far, item)`, a plain function, for each in turn."""
        validate.plain_function("fn", fn)
        result = initial
        async with self._to_the_end() as items:
            async for item in items:
                result = fn(result, item)
        return result

    @overload
    async def first(self) -> T_co: ...
    @overload
    async def first[D](self, *, default: D) -> T_co | D: ...
    async def first(self, *, default: Any = _NO_DEFAULT) -> Any:
        """The first result; work on others is stopped.

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
        """The number of results; stages with `ordered=None` hand them on as they finish."""
        number = 0
        async with self._to_the_end(in_order=False) as items:
            async for _ in items:
                number += 1
        return number

    async def drain(self) -> None:
        """Run to the end for its effects; stages with `ordered=None` hand results on as they finish."""
        async with self._to_the_end(in_order=False) as items:
            async for _ in items:
                pass

    async def to(
        self,
        sink: Sink,
        /,
        *,
        run: str,
        durability: Durability = "process",
        on_missing: OnMissing = "keep",
        on_change: OnChange = "continue",
        on_error: Literal["raise", "collect"] | None = None,
        on_dead: OnDead = "keep",
        find_killers: bool = True,
        on_duplicate: OnDuplicate = "refuse",
        limit: int | None = None,
        grace: Seconds = GRACE,
        progress: bool = False,
    ) -> RunReport:
        """Run to the end into `sink`, durably: killed at any instant and called again, it goes on where it was (P10).

        The unit is the *root*, an item of the source. It is done when everything that it became was accepted by the
        sink, was dropped or was set aside; its rows and the note that it is done are then stored in one transaction.
        Roots that are done, in the version that they have, are passed over; those that have changed replace their rows.
        With `on_error="collect"`, an item that fails is set aside in the sink's database, and its root is dead until it
        changes or is retried. A row that the sink cannot hold is an item that fails, in a stage called as the class of
        the sink.

        Args:
            sink: where the rows go.
            run: the name of the run, by which the journal in the sink knows it.
            durability: what committed rows survive: "process" the end of the process, also `kill -9`; "power" also a
                power failure, at the price of a sync for each commit.
            on_missing: what becomes of the rows of roots that are not in the source any more: "keep" or "delete"; where
                the source gave nothing at all, as a truncated file does, only "delete_all" removes them.
            on_change: what becomes of roots that are done when the code of a stage is not what it was when the run was
                begun last (see `docs/memo.md` for what that is): "continue" leaves them done, and does the others by
                the new code; "restart" does those again that other code has made, at any time, each of which
                keeps its rows until it is; "refuse" raises `StoreError`. The log and the report name the stages that
                have changed, and the report says how much of what is done was made by other code.
            on_error: what becomes of a row that the sink cannot hold (a value that no column has, a column that is not
                declared, the key of another row): "collect" sets it aside, and its root is dead; "raise" ends the run
                with the first one. Default: that of the last stage with "collect" or "skip", which is then "collect"
                with its `max_failures` and `max_failure_rate`, counted for the sink alone; "raise" if there is none.
            on_dead: what becomes of the rows that a root has of a version before, when the new one fails: "keep" or
                "remove".
            find_killers: whether the roots that were under way at both of the last two kills of the run are tried in a
                child process, a fork of this one, before the others; the one that kills it is set aside. False neither
                tries them nor notes what is under way after a kill.
            on_duplicate: what becomes of an item with a key that an item before it has: "refuse" ends the run with a
                `DuplicateKeyError`, "first" drops and counts it.
            limit: roots to do, an int >= 1: then the run ends in order, and the next one goes on. Roots that were
                done before do not count. Default: all.
            grace: as for `open`.
            progress: as for `open`.

        Raises:
            OptionError: an option breaks its rule, the items of the source have no keys, or an operator would mean
                something else after a resume.
            DuplicateKeyError: two items of the source have one key.
            HeldError: another process is writing to the sink.
            ModuleNotFoundError: `progress` needs rich, and it is not installed.
            StoreError: the sink cannot be written, or knows the run as one over another source or into another sink, or
                as one of other code with `on_change="refuse"`.
        """
        from penstock.durable.delivery import deliver  # noqa: PLC0415 -- it needs apsw, which streams do not

        validate.text("run", run)
        if validate.flag("progress", progress):
            require_rich()
        _check_sink(sink)
        if on_missing in {"delete", "delete_all"} and sink.delivery != "exactly once":
            raise OptionError(f"on_missing={on_missing!r} needs a sink that can remove rows, got {sink!r}")
        if on_dead == "remove" and sink.delivery != "exactly once":
            raise OptionError(f"on_dead='remove' needs a sink that can remove rows, got {sink!r}")
        source = self.identified
        validate.one_of("on_error", on_error, ("raise", "collect", None))
        tolerance = source.tolerance if on_error is None else ANY_NUMBER if on_error == "collect" else None
        return await deliver(
            Job(
                open_tracked=source.open,
                source=source.name,
                sink=sink,
                name=run,
                durability=validate.one_of("durability", durability, ("process", "power")),
                on_missing=validate.one_of("on_missing", on_missing, ("keep", "delete", "delete_all")),
                on_change=validate.one_of("on_change", on_change, ("continue", "restart", "refuse")),
                on_dead=validate.one_of("on_dead", on_dead, ("keep", "remove")),
                on_duplicate=validate.one_of("on_duplicate", on_duplicate, ("refuse", "first")),
                limit=None if limit is None else validate.whole("limit", limit, least=1),
                tolerance=tolerance,
                stages=source.stages,
                one_shot=source.one_shot,
                finds_killers=validate.flag("find_killers", find_killers),
                grace=validate.seconds("grace", grace, zero=True),
                progress=progress,
            )
        )


def _check_sink(sink: object) -> None:
    if isinstance(sink, type) or not all(hasattr(sink, name) for name in ("delivery", "path", "open")):
        raise OptionError(f"sink must be a sink, as penstock.SqliteTable('rows.db', 'rows') is, got {sink!r}")
