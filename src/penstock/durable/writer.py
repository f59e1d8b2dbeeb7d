"""One thread that writes: whatever arrived during one commit is the next one (natural group commit)."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count
from typing import TYPE_CHECKING, Any, Final

from penstock.core.scope import outlast
from penstock.durable.roots import Root
from penstock.durable.sink import Store

if TYPE_CHECKING:
    from penstock.durable.journal import Journal, Opened

WAITING: Final = 20_000
"""Rows, and roots, that may wait to be written before the stream has to wait, too."""

type Entry = tuple[Root, list[Any] | None]
"""A root and rows of it that are to be staged, or None: it is finished."""

type Note = tuple[Callable[["Journal"], object], Callable[[], object] | None]
"""What is to be written in the journal, and whom to tell, on the loop, when it is committed."""


class Writer:
    """Commits finished roots, in the order in which they came, stages rows of those that are not finished, takes notes.

    Attributes:
        loop: the loop of the stream.
        commits: transactions so far.
        failure: why nothing is committed any more, or None.
    """

    def __init__(
        self,
        store: Store,
        opened: "Opened",
        loop: asyncio.AbstractEventLoop,
        told: Callable[[], None],
        *,
        keeps_rows_of_dead: bool = False,
    ) -> None:
        self._keeps_rows_of_dead = keeps_rows_of_dead
        self._store = store
        self._opened = opened
        self.loop: asyncio.AbstractEventLoop = loop
        self._told = told
        self._changed = threading.Condition()
        self._entries: deque[Entry] = deque()
        self._notes: deque[Note] = deque()
        self._committed: deque[Root] = deque()
        self._closed = False
        self._rows = 0
        self._numbers = count(1)
        self.commits: int = 0
        self.failure: BaseException | None = None
        self._over: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._write, name="penstock writer", daemon=True)
        self._thread.start()

    def add(self, root: Root) -> None:
        """Have a finished root committed."""
        self._enter((root, None))

    def stage(self, root: Root) -> None:
        """Have the rows that a root has until now wait in the store, so that they need no memory."""
        rows, root.rows = root.rows, []
        root.staging = root.staging or next(self._numbers)
        root.staged += len(rows)
        self._enter((root, rows))

    def _enter(self, entry: Entry) -> None:
        with self._changed:
            self._entries.append(entry)
            self._rows += _weight(entry)
            self._changed.notify()

    def note(self, write: Callable[["Journal"], object], committed: Callable[[], object] | None = None) -> None:
        """Have something written in the journal, in the next transaction; `committed()` is called then, on the loop."""
        with self._changed:
            self._notes.append((write, committed))
            self._rows += 1
            self._changed.notify()

    @property
    def is_full(self) -> bool:
        """Whether the stream has to wait."""
        return self._rows > WAITING and self.failure is None

    @property
    def is_idle(self) -> bool:
        """Whether everything that was added is committed, or never will be."""
        return not self._rows or self.failure is not None

    def take_committed(self) -> Iterator[Root]:
        """The roots that were committed since this was last asked."""
        while self._committed:
            yield self._committed.popleft()

    async def close(self) -> None:
        """Have what is there committed, and wait for the end of the thread, whatever cancellation comes."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        try:
            await outlast(self._over)
        finally:
            self._thread.join()

    def _write(self) -> None:
        while self.failure is None and any(work := self._next()):
            batch, notes = work
            rows = sum(map(_weight, batch)) + len(notes)
            try:
                self._commit_notes(notes)
                self._commit(batch)
            except BaseException as error:  # noqa: BLE001 -- raised to whoever runs the stream
                self.failure = error
            with self._changed:
                self._rows -= rows
            self.loop.call_soon_threadsafe(self._told)
        self.loop.call_soon_threadsafe(self._over.set_result, None)

    def _next(self) -> tuple[list[Entry], list[Note]]:
        """What is there; nothing once all is committed and nothing more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._notes or self._closed)
            notes = [self._notes.popleft() for _ in range(min(len(self._notes), self._store.largest))]
            batch: list[Entry] = []
            rows = 0
            while self._entries and rows < self._store.largest:
                entry = self._entries.popleft()
                batch.append(entry)
                rows += _weight(entry) + (entry[0].staged if entry[1] is None else 0)
            return batch, notes

    def _commit_notes(self, notes: list[Note]) -> None:
        """Commit notes before anything else: there are those who wait for them."""
        if not notes:
            return
        with self._store.transaction():
            for write, _ in notes:
                write(self._store.journal)
        self.commits += 1
        for _, committed in notes:
            if committed is not None:
                self.loop.call_soon_threadsafe(committed)

    def _commit(self, batch: list[Entry]) -> None:
        """Stage what is to be staged; then settle what is finished, each root together with its rows."""
        store, journal = self._store, self._store.journal
        parts = [(root.staging, rows) for root, rows in batch if rows is not None]
        if parts:
            with store.transaction():
                for staging, rows in parts:
                    journal.stage(staging, rows)
            self.commits += 1
        roots = [root for root, rows in batch if rows is None]
        if not roots:
            return
        store.send(self._opened.name, ((root, self._rows_of(root)) for root in roots if not root.letters))
        with store.transaction():
            for root in roots:
                number = journal.settle(self._opened, root)
                if not (root.letters and self._keeps_rows_of_dead):
                    store.replace(number, () if root.letters else self._rows_of(root))
                if root.staging:
                    journal.unstage(root.staging)
        self.commits += 1
        self._committed.extend(roots)

    def _rows_of(self, root: Root) -> Iterable[Any]:
        return chain(self._store.journal.staged(root.staging), root.rows) if root.staging else root.rows


def _weight(entry: Entry) -> int:
    """How much memory it takes, in rows."""
    root, rows = entry
    return 1 + len(root.rows) if rows is None else len(rows)
