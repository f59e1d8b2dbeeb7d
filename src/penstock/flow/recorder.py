"""One thread that writes what a run does: whatever arrived during one commit is the next one.

Between two commits it looks whether another connection has committed (`PRAGMA data_version`, a number in shared
memory): so answers and cancels of other processes are known within a tenth of a second, and no task waits for them.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from penstock.core.scope import outlast
from penstock.durable.store_errors import StoreError

if TYPE_CHECKING:
    from penstock.durable.sqlite.connection import Connection

LOOKS: Final = 0.05
"""Seconds between two looks whether others have written."""

type Statement = tuple[str, tuple[Any, ...]]
"""SQL, and what stands for its question marks."""


@dataclass(slots=True)
class Write:
    """What is committed together; a file is there before that names it.

    Attributes:
        statements: what is written to the database.
        committed: done when it is.
        file: where a file is to be, and its content.
    """

    statements: Sequence[Statement]
    committed: asyncio.Future[None]
    file: tuple[Path, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Noticed:
    """What others have written: whether the run is to be cancelled, and which steps were answered."""

    cancel: bool
    answered: tuple[str, ...]


class Recorder:
    """Writes for one run, in the order in which it is told.

    Attributes:
        number: of the run.
        failure: why nothing is written any more, or None.

    A cancel counts if it is meant for `holding`: see `Workspace.holding`.
    """

    def __init__(
        self,
        connection: "Connection",
        number: int,
        *,
        holding: int | None,
        loop: asyncio.AbstractEventLoop,
        noticed: Callable[[Noticed], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._connection = connection
        self.number: int = number
        self._holding = holding
        self._loop = loop
        self._noticed = noticed
        self._failed = failed
        self._changed = threading.Condition()
        self._writes: list[Write] = []
        self._is_closed = False
        self._is_called = False
        self._seen = 0
        self._looked = 0.0
        self.failure: BaseException | None = None
        self._over: asyncio.Future[None] = loop.create_future()
        self._last: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name="penstock flow writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def write(self, *statements: Statement, file: tuple[Path, bytes] | None = None) -> asyncio.Future[None]:
        """Have it committed, all or nothing; the future is done then, and never cancelled."""
        committed = self._last = self._loop.create_future()
        if self.failure is not None:
            committed.set_exception(self.failure)
            committed.exception()
            return committed
        with self._changed:
            self._writes.append(Write(statements, committed, file))
        if not self._is_called:  # what one turn of the loop writes is one commit, and wakes the thread once
            self._is_called = True
            self._loop.call_soon(self._call)
        return committed

    def _call(self) -> None:
        """Have the thread commit what is there."""
        self._is_called = False
        with self._changed:
            self._changed.notify()

    async def flush(self) -> None:
        """Wait until all that was written is committed, whatever cancellation comes; raises why it cannot be."""
        if self._last is not None:
            await settled(self._last)

    async def close(self) -> None:
        """Have all committed, and wait for the end of the thread, whatever cancellation comes."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread.ident is None:
            self._connection.close()
            return
        try:
            await outlast(self._over)
        finally:
            if self._over.done():
                self._thread.join()

    def _run(self) -> None:
        try:
            while self._take_and_commit():
                self._look()
        except BaseException as error:  # noqa: BLE001 -- told to whoever runs the run
            self._end_with(error)
        finally:
            with suppress(StoreError):
                self._connection.close()
            self._tell(self._over.set_result, None)

    def _take_and_commit(self) -> bool:
        """Commit what is there, or wait a little for something; False once nothing more will come."""
        with self._changed:
            if not self._writes and not self._is_closed:
                self._changed.wait(LOOKS)
            writes, self._writes = self._writes, []
            if not writes and self._is_closed:
                return False
        if writes:
            try:
                self._commit(writes)
            except BaseException as error:
                self._tell(_fail, writes, error)
                raise
            self._tell(_settle, writes)
        return True

    def _commit(self, writes: list[Write]) -> None:
        from penstock.durable.sqlite.connection import transaction  # noqa: PLC0415 -- needs an extra

        for write in writes:
            if write.file is not None:
                put_file(*write.file)
        with transaction(self._connection):
            for write in writes:
                self._apply(write)

    def _apply(self, write: Write) -> None:
        for sql, values in write.statements:
            if values and type(values[0]) is tuple:
                self._connection.executemany(sql, values)
            else:
                self._connection.execute(sql, values)

    def _look(self) -> None:
        """Tell what others have written since the last look."""
        if (moment := monotonic()) - self._looked < LOOKS:
            return
        self._looked = moment
        seen = self._connection.pragma("data_version")
        if seen == self._seen:
            return
        self._seen = seen
        cancel = any(
            wanted == self._holding
            for (wanted,) in self._connection.execute("SELECT cancel FROM flow_runs WHERE number = ?", (self.number,))
        )
        answered = tuple(
            path
            for (path,) in self._connection.execute(
                "SELECT path FROM flow_steps WHERE run = ? AND status = 'waiting' AND answer IS NOT NULL",
                (self.number,),
            )
        )
        if cancel or answered:
            self._tell(self._noticed, Noticed(cancel, answered))

    def _end_with(self, error: BaseException) -> None:
        with self._changed:
            self.failure = error
            writes, self._writes = self._writes, []
        self._tell(_fail, writes, error)
        self._tell(self._failed, error)

    def _tell(self, told: Callable[..., object], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(told, *arguments)


async def settled(committed: asyncio.Future[None]) -> None:
    """Wait for a commit, whatever cancellation comes, which is raised after; raises why it has failed."""
    await outlast(committed)
    committed.result()


def put_file(place: Path, content: bytes) -> None:
    """Have a file there, whole or not at all, whatever happens meanwhile."""
    part = place.with_name(f"{place.name}.part")
    place.parent.mkdir(parents=True, exist_ok=True)
    _write_part(part, content)
    _replace(part, place)


def _write_part(part: Path, content: bytes) -> None:
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace(part: Path, place: Path) -> None:
    part.replace(place)
    descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settle(writes: list[Write]) -> None:
    for write in writes:
        write.committed.set_result(None)


def _fail(writes: list[Write], error: BaseException) -> None:
    for write in writes:
        if not write.committed.done():
            write.committed.set_exception(error)
            write.committed.exception()  # told once, by `failed`
