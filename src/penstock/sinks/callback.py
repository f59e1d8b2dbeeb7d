"""A function as a sink: wherever it brings rows, each arrives at least once."""

import asyncio
import contextvars
import hashlib
import inspect
import json
import os
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from itertools import batched
from typing import Any, Final, cast, override

from penstock.core import validate
from penstock.core.closing import close
from penstock.core.errors import OptionError, UnstoppedWorkWarning, as_failure
from penstock.core.log import LOG
from penstock.durable.roots import Key, Root, RootId
from penstock.durable.sink import Delivery, Durability
from penstock.engines.local import kind_of
from penstock.engines.pool import DaemonThreads
from penstock.ops.work import name_of
from penstock.sinks.sqlite_store import SqliteStore, database

LAST: Final = 1.0
"""Seconds that a call gets after its cancellation."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A row that a `Callback` is given.

    Attributes:
        id: the same whenever this row of this version of its root is delivered; no other row has it.
        key: the key of its root.
        version: the version of its root.
        index: its position among the rows of its root, from 0.
        row: the row.
    """

    id: str
    key: Key
    version: str
    index: int
    row: Any


class Callback:
    """Hands rows to a function, at least once: roots are noted as done after it has returned.

    `fn` is called with rows of finished roots: each root's together and in order, roots as they finish, one call at a
    time. Roots that finish during a call come with the next one. If it raises a `RowError` of `penstock.sinks`, a root
    has failed: the roots of that call are handed over once more, each alone, and one that raises it again fails, as
    `on_error` of `to` says. Any other error ends the run. The rows of that call come again when the run goes on, and so
    do those of the last call before a kill (of a root with more rows than `size`: all of its rows); by the `id` of a
    row the other side can tell that it has it. Nothing is taken back: rows of an earlier version stay where they were
    brought. When a run is left by an error or a cancellation, what is finished is delivered within its grace; then a
    call that runs on the loop is cancelled. A call that cannot be cancelled, or has not ended a second later, is left
    behind with an `UnstoppedWorkWarning` that names it.

    Args:
        fn: takes a sequence of `Delivered`. A plain `def` runs in a thread of its own; an async function, and anything
            else, runs on the loop. An awaitable that it returns is awaited, on the loop. It must not `yield`: a call of
            it would do nothing.
        journal: the database that knows which roots are done, made if there is none; one for each place that rows go
            to.
        size: rows of a call, at most.

    Example:
        async def send(rows):
            response = await client.post("/bulk", json=[{"id": row.id, **row.row} for row in rows])
            response.raise_for_status()

        report = await users.map(enrich).to(penstock.Callback(send, journal="sent.db"), run="users")

    Raises:
        OptionError: an argument breaks its rule.
    """

    delivery: Delivery = "at least once"
    keeps_order: bool = True  # the ids of rows tell their places in their root
    identity: str = "callback"

    def __init__(
        self, fn: Callable[[Sequence[Delivered]], object], *, journal: str | os.PathLike[str], size: int = 1_000
    ) -> None:
        validate.function("fn", fn)
        if _yields(fn):
            raise OptionError(f"fn must do its work when it is called, not yield, got {fn!r}")
        self.fn: Callable[[Sequence[Delivered]], object] = fn
        self.path: str = database("journal", journal)
        self.size: int = validate.whole("size", size, least=1)

    def open(self, durability: Durability) -> "CallbackStore":
        """Open its journal for writing; see `penstock.durable.sink`."""
        return CallbackStore(self, durability)


class CallbackStore(SqliteStore):
    """The journal beside a function."""

    def __init__(self, sink: Callback, durability: Durability) -> None:
        super().__init__(sink.path, durability)
        self.largest: int = sink.size
        self._fn = sink.fn
        self._plain = kind_of(sink.fn) == "plain"
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._name = name_of(sink.fn)
        self._sending: asyncio.Task[Any] | None = None
        self._aborted = False
        self._given_up: Future[None] = Future()
        self._timer: asyncio.TimerHandle | None = None
        self._left_behind = False
        self._thread = DaemonThreads(1, "penstock callback")

    @override
    def send(self, run: str, roots: Iterable[tuple[Root, Iterable[Any]]]) -> None:
        """Hand the rows over; raise what the function raises."""
        for rows in batched(_delivered(run, roots), self.largest):
            try:
                self._call(rows)
            except BaseException as error:  # noqa: BLE001 -- whatever it is, it ends the run
                failure = as_failure(asyncio.CancelledError() if isinstance(error, CancelledError) else error)
                try:
                    raise failure from failure.__cause__
                finally:
                    del failure  # the traceback holds this frame, and this frame would hold the error

    @override
    def abort(self) -> None:
        """Cancel the call that runs on the loop, and make no more; leave behind a call that does not end."""
        if not self._aborted:
            self._aborted = True
            self._timer = self._loop.call_later(LAST, self._give_up)
        if self._sending is not None:
            self._sending.cancel()

    def _give_up(self) -> None:
        if not self._given_up.done():
            self._given_up.set_result(None)

    @override
    def close(self) -> None:
        super().close()
        if self._timer is not None:
            self._timer.cancel()
        self._give_up()
        self._thread.shutdown()
        if self._left_behind:
            message = f"still running after the grace of the run, left behind: the callback {self._name!r}"
            LOG.warning("%s", message)
            warnings.warn(message, UnstoppedWorkWarning, stacklevel=2)

    def _call(self, rows: Sequence[Delivered]) -> None:
        self._refuse_once_aborted()
        if not self._plain:
            result = self._on_loop(self._called(rows))
        elif isinstance(
            result := self._outcome(self._thread.submit(self._context.run, self._called_in_thread, rows)), Awaitable
        ):
            result = self._on_loop(self._awaited(cast("Awaitable[object]", result)))
        if isinstance(result, Generator | AsyncGenerator):
            raise OptionError(f"fn must do its work when it is called, but it returned {cast('object', result)!r}")

    def _on_loop(self, work: Coroutine[Any, Any, object]) -> object:
        return self._outcome(self._context.run(asyncio.run_coroutine_threadsafe, work, self._loop))

    def _called_in_thread(self, rows: Sequence[Delivered]) -> object:
        result = self._fn(rows)
        if self._left_behind:
            close(result)
        return result

    def _outcome(self, call: Future[Any]) -> Any:
        """Return the result of a call, unless it is given up."""
        wait((call, self._given_up), return_when=FIRST_COMPLETED)
        if not call.done():
            self._left_behind = True
            raise asyncio.CancelledError("the grace of the run is over")
        return call.result()

    async def _called(self, rows: Sequence[Delivered]) -> object:
        self._refuse_once_aborted()
        result = self._fn(rows)
        return await self._awaited(cast("Awaitable[object]", result)) if isinstance(result, Awaitable) else result

    async def _awaited(self, result: Awaitable[object]) -> object:
        """Await it; `abort` cancels it, also if it was called before."""
        self._sending = asyncio.current_task()
        try:
            if self._aborted:
                self.abort()
            return await result
        finally:
            self._sending = None

    def _refuse_once_aborted(self) -> None:
        if self._aborted:
            raise asyncio.CancelledError("the grace of the run is over")

    @override
    def replace(self, root: RootId, rows: Iterable[Any]) -> None:
        """Do nothing: the rows are where the function brought them."""


def _delivered(run: str, roots: Iterable[tuple[Root, Iterable[Any]]]) -> Iterator[Delivered]:
    for root, rows in roots:
        name = json.dumps([run, root.key, root.version]).encode()
        prefix = hashlib.blake2b(name, digest_size=16).hexdigest()
        for index, row in enumerate(rows):
            yield Delivered(f"{prefix}-{index}", root.key, root.version, index, row)


def _yields(fn: Callable[..., object]) -> bool:
    """Whether a call of it only makes a generator; a wrapper of such a function may read it."""
    called = (fn, None if isinstance(fn, type) else getattr(fn, "__call__", None))  # noqa: B004 -- the bound method itself is wanted
    return any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in called)
