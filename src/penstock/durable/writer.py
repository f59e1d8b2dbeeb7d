"""The thread that writes. Whatever arrives during one commit is in the next; a small commit waits 5 ms for company."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count, groupby, repeat
from math import inf
from operator import itemgetter
from time import sleep
from typing import Any, Final

from penstock.core.errors import PenstockError, note, said
from penstock.core.scope import outlast
from penstock.durable.roots import Bundle, Key, Root, RootId
from penstock.durable.staging import Staging
from penstock.durable.store import Journal, Opened, Store
from penstock.durable.store_errors import KeyTakenError, RowError
from penstock.durable.transact import transact

WAITING: Final = 20_000
"""Rows, by weight, and roots that may wait to be written before the stream has to wait, too."""

_ENOUGH: Final = 4_000
"""How many of them keep the thread busy: if commits are small, as rows are large, at most twice one commit waits."""

GATHER: Final = 0.005
"""Seconds for which the first of few roots waits for others: a commit costs as much as several roots."""

_FEW: Final = 100

type Refuse = Callable[[Root, RowError], None]
"""Makes a root dead for a row that the store refuses; raises the error if that ends the run."""

type Queued = tuple[Root | Bundle, list[Any] | None, int]
"""A root and rows of it that are to be staged, or None: it is finished; and how much memory it takes, in rows.

A bundle is finished.
"""

type Note = tuple[Callable[[Journal], object], Callable[[], object] | None, int]
"""What to write in the journal, whom to tell when it is committed, and its weight in rows."""

type Add = Callable[[Iterable[tuple[int, Any]]], None]
"""Adds rows of roots that have none, each with the number of its root, to the store."""


class Writer:
    """Commits finished roots in the order in which they came, stages rows of unfinished ones, and writes notes.

    Attributes:
        loop: the loop of the stream.
        commits: transactions so far.
        failure: why nothing is committed any more, or None.
    """

    def __init__(
        self,
        store: Store,
        opened: Opened,
        loop: asyncio.AbstractEventLoop,
        told: Callable[[], None],
        *,
        refuse: Refuse,
        keeps_rows_of_dead: bool = False,
    ) -> None:
        self._keeps_rows_of_dead = keeps_rows_of_dead
        self._refuse = refuse
        self._store = store
        self._staging = Staging(store.journal)
        self._add: Add | None = getattr(store, "add", None)
        self._most = min(WAITING, max(_ENOUGH, 2 * store.largest))
        self._opened = opened
        self.loop: asyncio.AbstractEventLoop = loop
        self._told = told
        self._changed = threading.Condition()
        self._entries: deque[Queued] = deque()
        self._notes: deque[Note] = deque()
        self._committed: deque[Root | Bundle] = deque()
        self._put_off: list[Root] = []
        self._is_last = False
        self._hurry = threading.Event()
        self._closed = False
        self._added = self._written = 0  # each changed by one thread alone
        self._sleeps = False
        self._numbers = count(1)
        self.commits: int = 0
        self.failure: BaseException | None = None
        self._over: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._write, name="penstock writer", daemon=True)

    def start(self) -> None:
        """Start the thread; raise `PenstockError` if the system has none left."""
        try:
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            self._over.set_result(None)
            raise PenstockError(f"the thread that writes the results cannot start: {said(error)}") from error

    def add(self, root: Root | Bundle) -> None:
        """Have a finished root committed, or several."""
        if isinstance(root, Bundle):
            texts = sum(map(len, root.versions)) + sum(len(key) for key in root.keys if isinstance(key, str))
            self._enter((root, None, len(root) + root.weight + texts // 1_000))
            return
        key = root.key
        texts = len(root.version) + (len(key) if isinstance(key, str) else 0)
        letters = 0 if root.letters is None else root.letters.weight
        self._enter((root, None, 1 + root.weight + texts // 1_000 + letters))

    def stage(self, root: Root) -> None:
        """Move the present rows of a root to the store, where they need no memory."""
        rows, root.rows = root.rows, []
        root.staging = root.staging or next(self._numbers)
        root.staged += len(rows)
        self._enter((root, rows, root.weight))

    def _enter(self, entry: Queued) -> None:
        self._entries.append(entry)
        self._added += entry[2]
        if self._sleeps:  # looked at after the append: the thread says so before it looks for entries
            self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._sleeps = False
            self._changed.notify()

    def note(
        self, write: Callable[[Journal], object], committed: Callable[[], object] | None = None, *, weight: int = 1
    ) -> None:
        """Have something written in the journal, in the next transaction; then `committed()` is called, on the loop.

        With `committed` somebody waits, so the transaction does not wait for company. Without, it may be that of roots,
        and is tried again if they are refused: so `write` only writes.
        """
        self._notes.append((write, committed, weight))
        self._added += weight
        if committed is not None:
            self._hurry.set()
        if self._sleeps:  # as in `_enter`
            self._wake()

    def settle_put_off(self, *, is_last: bool = True) -> None:
        """Have the roots committed that wait for others, all at once; if nothing else comes, none may wait any more."""
        with self._changed:
            self._is_last = is_last
            waiting, self._put_off = self._put_off, []
            self._entries.extend((root, None, 1) for root in waiting)
            self._added += len(waiting)
            self._changed.notify()

    @property
    def put_off(self) -> list[Root]:
        """Return the roots that wait for others, which have their keys."""
        return list(self._put_off)

    @property
    def is_full(self) -> bool:
        """Whether the stream has to wait."""
        return self._added - self._written > self._most and self.failure is None

    @property
    def is_idle(self) -> bool:
        """Whether everything that was added is committed, or never will be."""
        return self._added == self._written or self.failure is not None

    def take_committed(self) -> list[Root | Bundle]:
        """Return the roots that were committed since the last call."""
        return [self._committed.popleft() for _ in range(len(self._committed))]

    async def close(self) -> None:
        """Commit what is there, and wait for the end of the thread, whatever cancellation comes."""
        with self._changed:
            self._closed = True
            self._hurry.set()
            self._changed.notify()
        try:
            await outlast(self._over)
        finally:
            if self._over.done() and self._thread.ident is not None:  # else the loop was interrupted, and the thread
                self._thread.join()  # waits for what runs there; or it has never run

    def _write(self) -> None:
        """Commit until all is committed and nothing more comes, or something fails; any failure ends the run."""
        try:
            while any(work := self._next()):
                batch, notes = work
                rows = sum(map(_WEIGHT, batch)) + sum(map(_WEIGHT, notes))
                if not batch or any(committed for _, committed, _ in notes):
                    self._commit_notes(notes)
                    notes = []
                self._commit(batch, notes)
                self._written += rows
                self._tell(self._told)
        except BaseException as error:  # noqa: BLE001 -- raised to whoever runs the stream
            self.failure = error
        self._tell(self._end)

    def _end(self) -> None:
        self._over.set_result(None)
        self._told()

    def _tell(self, told: Callable[[], object]) -> None:
        """Have it called on the loop, however little memory there is: somebody waits for it."""
        while True:
            try:
                self.loop.call_soon_threadsafe(told)
            except MemoryError:
                sleep(GATHER)
            except RuntimeError:  # the loop is closed: nobody waits
                return
            else:
                return

    def _next(self) -> tuple[list[Queued], list[Note]]:
        """Return what is there; nothing once all is committed and nothing more will come."""
        with self._changed:
            self._changed.wait_for(self._has_work)
            self._sleeps = False
            gathers = len(self._entries) < _FEW
        if gathers:
            self._hurry.wait(GATHER)
        with self._changed:
            if not self._closed:
                self._hurry.clear()
            notes = [self._notes.popleft() for _ in range(min(len(self._notes), self._store.largest))]
            entries, most = self._entries, inf if self._is_last else self._store.largest
            batch: list[Queued] = []
            rows = 0
            for _ in range(len(entries)):
                rows += _length(entries[0])
                if rows > most and batch:
                    break
                batch.append(entries.popleft())
            return batch, notes

    def _has_work(self) -> bool:
        self._sleeps = True  # before the look, and again before each one: who adds something looks at this after that
        return bool(self._entries or self._notes or self._closed)

    def _commit_notes(self, notes: list[Note]) -> None:
        """Commit notes before anything else: somebody waits for them."""
        if not notes:
            return

        def write_all() -> None:
            for write, _, _ in notes:
                write(self._store.journal)

        transact(self._store, write_all)
        self.commits += 1
        for _, committed, _ in notes:
            if committed is not None:
                self._tell(committed)

    def _commit(self, batch: list[Queued], notes: list[Note]) -> None:
        """Stage what is to be staged; then settle finished roots, each together with its rows, and write the notes."""
        parts = [(root, rows) for root, rows, _ in batch if rows is not None and isinstance(root, Root)]
        if parts:
            try:
                self._stage(parts)
            except RowError:  # of one of them
                for part in parts:
                    self._stage_alone(part)
        roots = [root for root, rows, _ in batch if rows is None]
        if not roots:
            self._commit_notes(notes)
            return
        self._send(roots)
        with suppress(Exception):  # it comes again below, from the root that the store refuses
            self._settle(roots, notes)
            return
        self._commit_notes(notes)
        self._settle_again([each for root in roots for each in (root.roots() if isinstance(root, Bundle) else (root,))])

    def _send(self, roots: Sequence[Root | Bundle]) -> None:
        """Bring rows to where no transaction reaches; root by root if one of them is refused."""
        going = [root for root in roots if isinstance(root, Root) and not root.letters]
        try:
            self._store.send(self._opened.name, ((root, self._rows_of(root)) for root in going))
        except RowError as error:
            if len(going) == 1:
                self._refuse(going[0], error)
                return
            for root in going:
                self._send([root])

    def _stage(self, parts: Sequence[tuple[Root, list[Any]]]) -> None:
        staging = self._staging
        before = {root.staging: staging.parts(root.staging) for root, _ in parts}

        def stage() -> None:
            staging.back_to(before)
            for root, rows in parts:
                staging.put(root.staging, rows)

        try:
            transact(self._store, stage)
        except BaseException:
            staging.back_to(before)
            raise
        self.commits += 1

    def _stage_alone(self, part: tuple[Root, list[Any]]) -> None:
        try:
            self._stage([part])
        except RowError as error:
            self._refuse(part[0], error)

    def _settle_again(self, roots: list[Root]) -> None:
        """Settle them after the store refused one: all once more, or one by one, up to that one.

        If keys must differ, a row that moves from one root to another can be in its own way: so the rows of all these
        roots are removed first.
        """
        with suppress(Exception):  # it comes again below
            self._settle_emptied(roots)
            return
        for root in roots:  # those before it need not be done again
            self._settle_alone(root)

    def _settle_alone(self, root: Root) -> None:
        try:
            self._settle_or_put_off(root)
        except RowError as error:
            self._refuse(root, error)
            self._settle([root])
        except Exception as error:
            note(error, f"root {root.key!r}")
            raise

    def _settle_or_put_off(self, root: Root) -> None:
        try:
            self._settle([root])
        except KeyTakenError:
            if self._is_last:
                raise
            self._have_wait(root)

    def _have_wait(self, root: Root) -> None:
        """Let the rows of a root wait in the store for roots that are in its way."""
        rows, root.rows, root.weight = root.rows, [], 0
        if rows:
            root.staging = root.staging or next(self._numbers)
            root.staged += len(rows)
            self._stage([(root, rows)])
        self._put_off.append(root)

    def _settle(self, roots: Sequence[Root | Bundle], notes: Sequence[Note] = ()) -> None:
        def settle_all() -> None:
            for write, _, _ in notes:
                write(self._store.journal)
            for settle, alike in groupby(roots, key=self._way_of):
                settle(list(alike))

        transact(self._store, settle_all)
        self._settled(roots)

    def _settle_emptied(self, roots: list[Root]) -> None:
        store, journal = self._store, self._store.journal

        def settle_all() -> None:
            for root in roots:
                number = journal.settle(self._opened, root)
                if not self._keeps_rows_of(root):
                    store.replace(RootId(number, root.key), ())
            self._settle_each(roots)

        transact(self._store, settle_all)
        self._settled(roots)

    def _settled(self, roots: Sequence[Root | Bundle]) -> None:
        self.commits += 1
        for root in roots:
            if root.staging:
                self._staging.forget(root.staging)
        self._committed.extend(roots)

    def _way_of(self, root: Root | Bundle) -> Callable[[list[Any]], None]:
        """Return how to settle it, together with those like it."""
        is_simple = isinstance(root, Bundle) or (
            self._add is not None and root.is_new and not (root.letters or root.staging or root.dispatched)
        )
        return self._settle_new if is_simple else self._settle_each

    def _settle_new(self, roots: list[Root | Bundle]) -> None:
        """Settle roots of which there is nothing but what they have in memory."""
        assert self._add is not None
        if len(roots) == 1 and isinstance(roots[0], Root):  # a root alone has its error told
            self._settle_each([roots[0]])
            return
        keys: list[Key] = []
        versions: list[str] = []
        positions: list[int] = []
        counts: list[int] = []
        rows: list[Any] = []
        for each in roots:
            if isinstance(each, Bundle):
                keys += each.keys
                versions += each.versions
                positions += each.positions
                counts += repeat(1, len(each))
                rows += each.items
            else:
                keys.append(each.key)
                versions.append(each.version)
                positions.append(each.position)
                counts.append(len(each.rows))
                rows += each.rows
        numbers = self._store.journal.settle_new(
            self._opened, len(keys), keys=keys, versions=versions, positions=positions, rows=counts
        )
        self._add(zip(chain.from_iterable(map(repeat, numbers, counts)), rows, strict=True))

    def _settle_each(self, roots: Iterable[Root]) -> None:
        store, journal = self._store, self._store.journal
        for root in roots:
            number = journal.settle(self._opened, root)
            if not self._keeps_rows_of(root):
                with self._refusals():
                    store.replace(RootId(number, root.key), () if root.letters else self._rows_of(root))
            if root.staging:
                self._staging.drop(root.staging)

    @contextmanager
    def _refusals(self) -> Generator[None]:
        """Turn what the database raises for a row that it cannot hold into a `RowError`."""
        try:
            yield
        except Exception as error:
            refusal = None if isinstance(error, RowError) else self._store.refusal(error)
            if refusal is None:
                raise
            raise refusal from error

    def _keeps_rows_of(self, root: Root) -> bool:
        return self._keeps_rows_of_dead and bool(root.letters)

    def _rows_of(self, root: Root) -> Iterable[Any]:
        return chain(self._staging.take(root.staging), root.rows) if root.staging else root.rows


_WEIGHT: Final = itemgetter(2)


def _length(entry: Queued) -> int:
    """Return how many rows it brings into the store."""
    root, rows, _ = entry
    if isinstance(root, Bundle):
        return len(root)
    return root.staged + len(root.rows) if rows is None else len(rows)
