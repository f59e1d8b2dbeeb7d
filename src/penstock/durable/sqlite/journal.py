"""The journal in tables beside the rows of a store: which roots are done, in which version."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import Final

from penstock.durable.fingerprint import StageCode
from penstock.durable.made_by import MadeBy
from penstock.durable.roots import DEAD, DONE, Key, Root, RootId
from penstock.durable.sqlite import tables
from penstock.durable.sqlite.connection import Connection, TooLargeError, transaction
from penstock.durable.sqlite.death_tables import SqliteDeaths
from penstock.durable.sqlite.lock import reached
from penstock.durable.sqlite.reader import SqliteReader
from penstock.durable.store import Opened
from penstock.durable.store_errors import DamageError, RefusedRowError, StoreError

_ENTRIES: Final = 10_000
"""Kept results of a stage that are dropped together."""

_LOOK: Final = 1.0
"""Seconds between two looks at whether the database is still where it was opened."""

_LAST_ID: Final = "SELECT max(last_id, coalesce((SELECT max(id) FROM penstock_roots), 0)) FROM penstock_journal"
"""The highest id. None is given twice, even if its root is forgotten: there may be rows that have it."""

_OPENED: Final = """
UPDATE penstock_runs SET sink = ?, times = times + 1, clean = 0, owner = ?, began = ?, ended = NULL
WHERE name = ? RETURNING id
"""
_NEW_RUN: Final = """
INSERT INTO penstock_runs (sink, owner, began, name, source, times, clean) VALUES (?, ?, ?, ?, ?, 1, 0) RETURNING id
"""
_ROOT: Final = "SELECT id FROM penstock_roots WHERE run = ? AND key = ?"
_NEW: Final = "INSERT INTO penstock_roots (id, key, version, position, rows, state, run, times)"


class SqliteJournal(SqliteReader):
    """The tables of runs and roots, on the one connection that writes; see `penstock.durable.store.Journal`.

    Attributes:
        deaths: what was under way when a process died.
    """

    def __init__(self, path: str, connection: Connection) -> None:
        super().__init__(path, connection)
        self.deaths: SqliteDeaths = SqliteDeaths(connection)
        self._where = str(Path(path).absolute())  # wherever the process goes meanwhile
        self._file: tuple[int, int] | None = None
        self._looked = monotonic()
        self._last_id: int = 0

    def prepare(self) -> None:
        """Make the tables if there are none, or bring them to this format, in one transaction.

        Rows that a run left in staging are dropped: only one process opens the journal for writing.

        Raises:
            StoreError: a newer penstock made them, or they are not what one makes; then nothing is changed.
        """
        with transaction(self._connection):
            tables.make(self._path, self._connection)
            self._connection.execute("DELETE FROM penstock_staged")
            (self._last_id,) = self._connection.one(_LAST_ID, (), int)
        self._file = _file_at(self.place)
        self._refuse_other_file()

    def begin(  # noqa: PLR0917 -- a record
        self, name: str, source: str, sink: str, owner: str, stages: Sequence[StageCode], codes: MadeBy
    ) -> int:
        """Note that a run is opened, and how far the last holder of the lock has come."""
        values = (sink, owner, time(), name)
        found = self._connection.execute(_OPENED, values).fetchall()
        if not found:
            found = self._connection.execute(_NEW_RUN, (*values, source)).fetchall()
        run: int
        ((run,),) = found
        if stages != self.stages(run):
            self._connection.execute("DELETE FROM penstock_stages WHERE run = ?", (run,))
            self._connection.executemany(
                "INSERT INTO penstock_stages (run, number, name, fingerprint) VALUES (?, ?, ?, ?)",
                [(run, number, stage.name, stage.fingerprint) for number, stage in enumerate(stages)],
            )
        self.put_codes(run, codes)
        self.deaths.learn(reached(self._path))
        return run

    def put_codes(self, run: int, codes: MadeBy) -> None:
        """Note by which code the roots of a run were made."""
        if codes != tuple(self._codes(run).get(run, ())):
            self._connection.execute("DELETE FROM penstock_codes WHERE run = ?", (run,))
            self._connection.executemany(
                "INSERT INTO penstock_codes VALUES (?, ?, ?)", [(run, *each) for each in codes]
            )

    def leave_run(self, run: int) -> None:
        """Note that nothing of the run is under way."""
        self._connection.execute("UPDATE penstock_runs SET clean = 1 WHERE id = ?", (run,))
        self.deaths.leave(run)

    def close_run(self, run: int) -> None:
        """Note that the run came to its end; raise `StoreError` if the database is not where it was opened any more."""
        self._refuse_other_file()
        self.leave_run(run)
        self.deaths.forget(run)
        self._connection.execute("UPDATE penstock_runs SET ended = ? WHERE id = ?", (time(), run))

    def is_there(self) -> bool:
        """Whether the database is where it was opened; if that cannot be looked at, it is taken to be there."""
        with suppress(OSError):
            return _file_at(self._where) == self._file
        return True

    def _refuse_other_file(self) -> None:
        """Raise `StoreError` if the rows go to a file that nobody will find by this path: SQLite does not notice."""
        self._looked = monotonic()
        if not self.is_there():
            raise StoreError(f"{self._path}: was removed or replaced while the run wrote to it")

    def settle(self, opened: Opened, root: Root) -> int:
        """Note that a root is done, or dead.

        Raises:
            StoreError: the database is not where it was opened any more, as seen at most once in a second.
        """
        if monotonic() - self._looked > _LOOK:
            self._refuse_other_file()
        state = DEAD if root.letters else DONE
        rows = 0 if root.letters else len(root.rows) + root.staged
        values = (root.version, state, root.position, opened.times)
        kept = root.letters is not None and opened.keeps_rows_of_dead
        if root.dispatched:
            self.deaths.acquit(opened.id, root.key)
        known = list(self._connection.select(_ROOT, (opened.id, root.key), int))
        if known:
            number: int = known[0][0]
            self._connection.execute(
                "UPDATE penstock_roots SET version = ?, state = ?, position = ?, times = ?, rows = coalesce(?, rows) "
                "WHERE id = ?",
                (*values, None if kept else rows, number),
            )
            self._connection.execute("DELETE FROM penstock_dead WHERE root = ?", (number,))
        else:
            self._last_id = number = self._last_id + 1
            self._connection.execute(
                f"{_NEW} VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (number, root.key, root.version, root.position, rows, state, opened.id, opened.times),
            )
        for letter in root.letters or ():
            self._connection.execute(
                "INSERT INTO penstock_dead (root, stage, attempts, error, traceback, item, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, *letter),
            )
        return number

    def settle_new(
        self,
        opened: Opened,
        number: int,
        *,
        keys: Iterable[Key],
        versions: Iterable[str],
        positions: Iterable[int],
        rows: Iterable[int],
    ) -> range:
        """Note many roots as done of which nothing was known; return their numbers.

        It is `settle` for a tenth of the price.
        """
        if monotonic() - self._looked > _LOOK:
            self._refuse_other_file()
        numbers = range(self._last_id + 1, self._last_id + 1 + number)
        self._last_id += number
        values = f"(?, ?, ?, ?, ?, {DONE}, {opened.id}, {opened.times})"
        self._connection.insert(f"{_NEW} VALUES {values}", zip(numbers, keys, versions, positions, rows, strict=True))
        return numbers

    def redo(self, run: int, *, dead: bool = False, openings: tuple[int, int | None] | None = None) -> tuple[int, int]:
        """Have the next opening do roots again; return their number, and that of their rows."""
        which = "run = ?"
        values: tuple[int | None, ...] = (run,)
        if dead:
            which, values = "run = ? AND state = ?", (run, DEAD)
        elif openings is not None:
            which = "run = ?1 AND times > 0 AND times >= ?2 AND (?3 IS NULL OR times < ?3)"
            values = run, *openings
        query = f"SELECT count(*), coalesce(sum(rows), 0) FROM penstock_roots WHERE {which}"  # noqa: S608 -- a constant
        roots, rows = self._connection.one(query, values, int, int)
        if roots:
            letters = f"DELETE FROM penstock_dead WHERE root IN (SELECT id FROM penstock_roots WHERE {which})"  # noqa: S608 -- a constant
            self._connection.execute(letters, values)
            self._connection.execute(f"UPDATE penstock_roots SET times = 0 WHERE {which}", values)  # noqa: S608 -- a constant
        return roots, rows

    def retry(self, root: int, rows: int | None = None) -> None:
        """Have the next opening do a root again: it counts as done before the first opening."""
        self._connection.execute(
            "UPDATE penstock_roots SET times = 0, rows = coalesce(?, rows) WHERE id = ?", (rows, root)
        )
        self._connection.execute("DELETE FROM penstock_dead WHERE root = ?", (root,))

    def discard(self, root: int) -> None:
        """Count a dead root as done in its version, with the rows that it has."""
        self._connection.execute("UPDATE penstock_roots SET state = ? WHERE id = ?", (DONE, root))
        self._connection.execute("DELETE FROM penstock_dead WHERE root = ?", (root,))

    def forget(self, root: int) -> int:
        """Forget a root; return how many rows were stored of it."""
        self._connection.execute("DELETE FROM penstock_dead WHERE root = ?", (root,))
        rows: int
        (rows,) = self._connection.one("DELETE FROM penstock_roots WHERE id = ? RETURNING rows", (root,), int)
        return rows

    def some_roots(self, run: int, most: int) -> list[RootId]:
        """Return at most so many roots of a run."""
        roots = "SELECT id, key FROM penstock_roots WHERE run = ? LIMIT ?"
        return [RootId(*row) for row in self._connection.select(roots, (run, most), int, str | int)]

    def roots_with_rows(self, run: int) -> int:
        """Return how many roots of a run are done and have rows."""
        roots = "SELECT count(*) FROM penstock_roots WHERE run = ? AND times > 0 AND rows > 0"
        number: int
        (number,) = self._connection.one(roots, (run,), int)
        return number

    def forget_run(self, run: int) -> tuple[int, int]:
        """Forget a run and its roots; return the numbers of both roots and rows."""
        roots, rows = self._connection.one(
            "SELECT count(*), coalesce(sum(rows), 0) FROM penstock_roots WHERE run = ?", (run,), int, int
        )
        self._connection.execute("UPDATE penstock_journal SET last_id = ?", (self._last_id,))
        self._connection.execute(
            "DELETE FROM penstock_dead WHERE root IN (SELECT id FROM penstock_roots WHERE run = ?)", (run,)
        )
        self.deaths.forget(run)
        for table in ("roots", "stages", "codes"):
            self._connection.execute(f"DELETE FROM penstock_{table} WHERE run = ?", (run,))  # noqa: S608 -- constants
        self._connection.execute("DELETE FROM penstock_runs WHERE id = ?", (run,))
        return roots, rows

    def remember(self, stage: bytes, item: bytes, value: bytes) -> None:
        """Keep what a stage made of an item."""
        self._connection.execute(
            "INSERT OR REPLACE INTO penstock_memo (stage, item, value) VALUES (?, ?, ?)", (stage, item, value)
        )

    def drop_memo(self, stage: bytes) -> None:
        """Drop kept results of a stage, no more than takes a moment."""
        entries = "SELECT id FROM penstock_memo WHERE stage = ? LIMIT ?"
        self._connection.execute(f"DELETE FROM penstock_memo WHERE id IN ({entries})", (stage, _ENTRIES))  # noqa: S608 -- constants
        if not self._connection.changes():  # of an index that has what its table has not: it would be tried for ever
            raise DamageError(f"{self._path}: the database is damaged: what penstock_memo has cannot be removed")

    def stage(self, number: int, part: bytes) -> None:
        """Let rows wait; raise `RowError` if they are too large."""
        try:
            self._connection.execute("INSERT INTO penstock_staged (staging, rows) VALUES (?, ?)", (number, part))
        except TooLargeError as error:
            raise RefusedRowError(f"{error}: a row has to wait there") from error

    def staged(self, number: int) -> Iterator[bytes]:
        """Give the parts that wait under a number, as they came."""
        parts = "SELECT rows FROM penstock_staged WHERE staging = ? ORDER BY id"
        return (part for (part,) in self._connection.select(parts, (number,), bytes))

    def unstage(self, number: int) -> None:
        """Drop the parts that wait under a number."""
        self._connection.execute("DELETE FROM penstock_staged WHERE staging = ?", (number,))


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
