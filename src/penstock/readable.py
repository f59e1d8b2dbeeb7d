"""What can be run and read: the ends of a stream."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from penstock.core import validate
from penstock.core.errors import EmptyStreamError
from penstock.core.retry import Seconds
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.progress import require_rich
from penstock.run import Run
from penstock.sync import SyncRun

T_co = TypeVar("T_co", covariant=True)

_NO_DEFAULT: Any = object()


class Readable(Generic[T_co]):  # noqa: UP046 -- inferred variance would be invariant: `flatten` needs covariance
    """A description of work that can be run, any number of times."""

    __slots__ = ()

    refuse_consumed: Callable[[], None]
    """Raise if its source is a one-shot iterator that has been read."""

    def open_stage(self, scope: Scope) -> Stage[Any]:
        """Open the stages of a run; the last one."""
        raise NotImplementedError

    def open(self, *, grace: Seconds = 5.0, progress: bool = False, timing: bool = False) -> Run[T_co]:
        """A run of this stream, for `async with`; nothing is read before its first item is asked for.

        Args:
            grace: seconds that work which ignores its cancellation gets when the run is left, >= 0; then a warning
                names it and it is left behind.
            progress: show on stderr how it goes: a live table on a terminal, a line every five seconds elsewhere. With
                the `total` of `stream()`, or a source that has a length, it says how long it will take.
            timing: time every call for the statistics, also where calls are so fast that one in 16 would do.

        Raises:
            ModuleNotFoundError: `progress` needs rich, and it is not installed.
            SourceConsumedError: the source is a one-shot iterator that has been read.
        """
        if validate.flag("progress", progress):
            require_rich()
        seconds = validate.seconds("grace", grace, zero=True)
        self.refuse_consumed()
        return Run(self.open_stage, seconds, timing=validate.flag("timing", timing), progress=progress)

    def sync(self, *, grace: Seconds = 5.0, progress: bool = False, timing: bool = False) -> SyncRun[T_co]:
        """A run for scripts and notebooks: `with stream.sync() as items: for item in items: ...` (P4).

        It has a loop and a thread of its own, so clients made on another loop do not work in it. The options are those
        of `open()`.
        """
        return SyncRun(self.open(grace=grace, progress=progress, timing=timing))

    def __aiter__(self) -> Run[T_co]:
        """Run the stream to its end; to leave early use `async with stream.open()`."""
        return self.open()

    async def to_list(self) -> list[T_co]:
        """All results in a list; its memory grows with the input (P7)."""
        async with self.open() as items:
            return [item async for item in items]

    async def reduce[A](self, fn: Callable[[A, T_co], A], initial: A) -> A:
        """Fold the results into one value: `fn(so_far, item)`, a plain function, for each in turn."""
        validate.plain_function("fn", fn)
        result = initial
        async with self.open() as items:
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
        """The number of results."""
        number = 0
        async with self.open() as items:
            async for _ in items:
                number += 1
        return number

    async def drain(self) -> None:
        """Run to the end for its effects."""
        async with self.open() as items:
            async for _ in items:
                pass
