"""What a store knows of runs: which roots are done, in which version; kept in the store's own database."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from time import monotonic, time
from typing import Final

from penstock.core import validate
from penstock.core.text import named
from penstock.durable.errors import DamageError, StoreError
from penstock.durable.fingerprint import OnChange, StageCode, changes, code_of
from penstock.durable.roots import DEAD, DONE, Key, Root
from penstock.durable.sqlite import deaths
from penstock.durable.sqlite.connection import Connection, transaction
from penstock.durable.sqlite.deaths import Deaths
from penstock.durable.sqlite.schema import refuse_other_tables
from penstock.durable.sqlite.staging import Staging

FORMAT: Final = 3

_CODES: Final = """
CREATE TABLE penstock_codes (
    run INTEGER NOT NULL REFERENCES penstock_runs, since INTEGER NOT NULL, code BLOB NOT NULL,
    PRIMARY KEY (run, since)) WITHOUT ROWID;
"""
"""By which code roots were made: by that of the opening that settled them, the last of these up to it."""

_MIGRATIONS: Final[Mapping[int, str]] = {
    1: "ALTER TABLE penstock_runs ADD COLUMN sink TEXT NOT NULL DEFAULT ''",
    2: f"""
UPDATE penstock_roots SET times = 0 WHERE times < (SELECT since FROM penstock_runs AS of WHERE of.id = run);
ALTER TABLE penstock_runs DROP COLUMN since;
ALTER TABLE penstock_journal ADD COLUMN last_id INTEGER NOT NULL DEFAULT 0;
{_CODES}
DROP TABLE IF EXISTS penstock_dispatched;
DROP TABLE IF EXISTS penstock_deaths;
{deaths.TABLES}
""",  # noqa: S608 -- constants
}
"""What makes a journal of format n one of format n + 1."""

_ENTRIES: Final = 10_000
"""Entries of what is kept for a stage that are dropped together."""

_TABLES = f"""
CREATE TABLE penstock_journal (format INTEGER NOT NULL, last_id INTEGER NOT NULL DEFAULT 0);
CREATE TABLE penstock_runs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, source TEXT NOT NULL,
    times INTEGER NOT NULL, clean INTEGER NOT NULL, owner TEXT NOT NULL,
    began REAL NOT NULL, ended REAL, sink TEXT NOT NULL DEFAULT '');
CREATE TABLE penstock_stages (
    run INTEGER NOT NULL REFERENCES penstock_runs, number INTEGER NOT NULL, name TEXT NOT NULL,
    fingerprint BLOB NOT NULL, PRIMARY KEY (run, number)) WITHOUT ROWID;
{_CODES}
CREATE TABLE penstock_roots (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES penstock_runs, key NOT NULL, version TEXT NOT NULL,
    state INTEGER NOT NULL, position INTEGER NOT NULL, times INTEGER NOT NULL, rows INTEGER NOT NULL,
    UNIQUE (run, key));
CREATE TABLE penstock_dead (
    id INTEGER PRIMARY KEY, root INTEGER NOT NULL REFERENCES penstock_roots, stage TEXT NOT NULL,
    attempts INTEGER NOT NULL, error TEXT NOT NULL, traceback TEXT NOT NULL, item TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX penstock_dead_root ON penstock_dead (root);
CREATE TABLE penstock_staged (id INTEGER PRIMARY KEY, staging INTEGER NOT NULL, rows BLOB NOT NULL);
CREATE INDEX penstock_staged_staging ON penstock_staged (staging);
CREATE TABLE penstock_memo (
    id INTEGER PRIMARY KEY, stage BLOB NOT NULL, item BLOB NOT NULL, value BLOB NOT NULL, UNIQUE (stage, item));
{deaths.TABLES}
"""

_LOOK: Final = 1.0
"""Seconds between two looks whether the database is still where it was opened."""

_NAMED: Final = 20
"""Runs that are named in an error."""

_LAST_ID: Final = "SELECT max(last_id, coalesce((SELECT max(id) FROM penstock_roots), 0)) FROM penstock_journal"
"""No id is given twice, also when its root is forgotten: there may be rows that have it."""

_OTHERS: Final = """
run = ?1 AND times > 0 AND ?2 IS NOT (
    SELECT code FROM penstock_codes AS made WHERE made.run = ?1 AND since <= times ORDER BY since DESC LIMIT 1)
"""
"""Roots of a run that were made by other code than that."""

_EVERY: Final = "run = ?1"
_DEAD: Final = f"run = ?1 AND state = {DEAD}"

_ROOT: Final = "SELECT id FROM penstock_roots WHERE run = ? AND key = ?"
_NEW: Final = "INSERT INTO penstock_roots (id, key, version, position, rows, state, run, times)"


@dataclass(frozen=True, slots=True)
class Opened:
    """One opening of a run.

    Attributes:
        times: counts the openings, from 1.
        clean: whether the one before was left in order, not killed.
        changed: the stages whose code is not what it was in the opening before.
        codes: from which opening on roots were made by which code, in order; the last is that of this one.
        keeps_rows_of_dead: whether a root that fails keeps the rows of the version before.
        notes: whether it is noted which roots are begun, as a process has died.
        lost: roots that are done and of which rows are not there any more.
    """

    id: int
    name: str
    times: int
    clean: bool
    changed: tuple[str, ...] = ()
    codes: tuple[tuple[int, bytes], ...] = ()
    keeps_rows_of_dead: bool = False
    notes: bool = False
    lost: int = 0

    def is_by_other_code(self, times: int) -> bool:
        """Whether the code of that opening was another one."""
        return is_by_other_code(self.codes, times)


def is_by_other_code(codes: Sequence[tuple[int, bytes]], times: int) -> bool:
    """Whether the code of that opening was another one than the last of `codes`, as `Opened` has them."""
    before = bisect_right(codes, times, key=itemgetter(0))
    return bool(codes) and codes[max(before - 1, 0)][1] != codes[-1][1]


class Journal:
    """The tables of runs and roots, on the one connection that writes to them.

    Every method but `prepare` is to be called inside a transaction, that which changes the rows of the root.

    Attributes:
        staging: the rows of roots that are not finished.
        deaths: what was under way when a process died.
    """

    def __init__(self, path: str, connection: Connection) -> None:
        self._path = path
        self._place = str(Path(path).absolute())  # wherever the process goes meanwhile
        self._connection = connection
        self.deaths: Deaths = Deaths(connection)
        self._file: tuple[int, int] | None = None
        self._looked = monotonic()
        self._last_id: int = 0
        self.staging: Staging = Staging(connection)

    def prepare(self) -> None:
        """Make the tables where there are none, or bring them to this format, in one transaction.

        Rows that a run left in staging are dropped: whoever opens the journal for writing is alone.

        Raises:
            StoreError: a newer penstock made them, or they are not what one makes; then nothing is changed.
        """
        connection = self._connection
        with transaction(connection):
            if not self._exists():
                connection.execute(_TABLES)
                connection.execute("INSERT INTO penstock_journal (format) VALUES (?)", (FORMAT,))
            for format_before in range(check_newer(self._path, connection), FORMAT):
                connection.execute(_MIGRATIONS[format_before])
            connection.execute("UPDATE penstock_journal SET format = ? WHERE format < ?", (FORMAT, FORMAT))
            refuse_other_tables(connection, _TABLES)
            connection.execute("DELETE FROM penstock_staged")
            (self._last_id,) = connection.one(_LAST_ID, (), int)
        self._file = _file_at(connection.filename)
        self._refuse_other_file()

    def check(self) -> None:
        """`StoreError` if another journal is there than this penstock makes or brings to its format."""
        if self._exists() and check_newer(self._path, self._connection) == FORMAT:
            refuse_other_tables(self._connection, _TABLES)

    def _exists(self) -> bool:
        return has_journal(self._connection)

    def open_run(
        self,
        name: str,
        source: str,
        sink: str,
        owner: str,
        *,
        stages: Sequence[StageCode] = (),
        on_change: OnChange = "continue",
    ) -> Opened:
        """Begin the run of that name, or begin it once more, with the code that its stages have now.

        Raises:
            StoreError: it is over another source or into another sink, or its code has changed and that is to be
                refused.
        """
        found = list(
            self._connection.select(
                "SELECT id, times, clean, source, sink FROM penstock_runs WHERE name = ?",
                (name,),
                *(int, int, int, str, str),
            )
        )
        if not found:
            self._connection.execute(
                "INSERT INTO penstock_runs (name, source, sink, times, clean, owner, began) "
                "VALUES (?, ?, ?, 1, 0, ?, ?)",
                (name, source, sink, owner, time()),
            )
            run = self._connection.last_insert_rowid()
            self._put_stages(run, stages)
            return Opened(run, name, times=1, clean=True, codes=self._made_by(run, 1, code_of(stages)))
        ((run, times, clean, source_before, sink_before),) = found
        if source_before != source:
            raise StoreError(
                f"{self._path}: the run {name!r} is over {source_before}, not over {source}; give this one another name"
            )
        if sink_before not in {sink, ""}:  # a journal of format 1 does not say
            raise StoreError(
                f"{self._path}: the run {name!r} is into {sink_before}, not into {sink}; give this one another name"
            )
        before = self._stages(run)
        changed = changes(before, stages)
        if changed and on_change == "refuse":
            raise StoreError(
                f"{self._path}: the code of the run {name!r} has changed: {', '.join(changed)}; "
                'on_change="continue" leaves what is done, "restart" does all of it again'
            )
        self._connection.execute(
            "UPDATE penstock_runs SET sink = ?, times = times + 1, clean = 0, owner = ?, began = ?, ended = NULL "
            "WHERE id = ?",
            (sink, owner, time(), run),
        )
        self._made_by(run, 1, code_of(before), only_first=True)
        if on_change == "restart":
            self.redo_by_other_code(run, code_of(stages))
        if changed:
            self._put_stages(run, stages)
        codes = self._made_by(run, times + 1, code_of(stages))
        return Opened(run, name, times + 1, bool(clean), changed, codes)

    def _made_by(self, run: int, times: int, code: bytes, *, only_first: bool = False) -> tuple[tuple[int, bytes], ...]:
        """Note by which code roots are made from that opening on; what is known then."""
        codes = self._codes(run)
        if not codes or (codes[-1][1] != code and not only_first):
            self._connection.execute("INSERT INTO penstock_codes VALUES (?, ?, ?)", (run, times, code))
            codes = (*codes, (times, code))
        return codes

    def _codes(self, run: int) -> tuple[tuple[int, bytes], ...]:
        codes = "SELECT since, code FROM penstock_codes WHERE run = ? ORDER BY since"
        return tuple((since, code) for since, code in self._connection.select(codes, (run,), int, bytes))

    def _stages(self, run: int) -> list[StageCode]:
        stages = "SELECT name, fingerprint FROM penstock_stages WHERE run = ? ORDER BY number"
        return [StageCode(*stage) for stage in self._connection.select(stages, (run,), str, bytes)]

    def _put_stages(self, run: int, stages: Sequence[StageCode]) -> None:
        self._connection.execute("DELETE FROM penstock_stages WHERE run = ?", (run,))
        self._connection.executemany(
            "INSERT INTO penstock_stages (run, number, name, fingerprint) VALUES (?, ?, ?, ?)",
            [(run, number, stage.name, stage.fingerprint) for number, stage in enumerate(stages)],
        )

    def close_run(self, run: int) -> None:
        """Note that the run came to its end.

        Raises:
            StoreError: the database is not where it was opened any more.
        """
        self._refuse_other_file()
        self.leave_run(run)
        self.deaths.forget(run)
        self._connection.execute("UPDATE penstock_runs SET ended = ? WHERE id = ?", (time(), run))

    def _refuse_other_file(self) -> None:
        """`StoreError` if the rows go to a file that nobody will find by this path: SQLite does not notice."""
        self._looked = monotonic()
        with suppress(OSError):  # what cannot be looked at is not known to be gone
            if _file_at(self._place) == self._file:
                return
            raise StoreError(f"{self._path}: was removed or replaced while the run wrote to it")

    def drop_memo(self, stage: bytes) -> None:
        """Drop entries of what is kept for a stage, no more than take a moment."""
        entries = "SELECT id FROM penstock_memo WHERE stage = ? LIMIT ?"
        self._connection.execute(f"DELETE FROM penstock_memo WHERE id IN ({entries})", (stage, _ENTRIES))  # noqa: S608 -- constants
        if not self._connection.changes():  # of an index that has what its table has not: it would be tried for ever
            raise DamageError(f"{self._path}: the database is damaged: what penstock_memo has cannot be removed")

    def leave_run(self, run: int) -> None:
        """Note that nothing of the run is under way."""
        self._connection.execute("UPDATE penstock_runs SET clean = 1 WHERE id = ?", (run,))
        self.deaths.leave(run)

    def remember(self, stage: bytes, item: bytes, value: bytes) -> None:
        """Keep what a stage made of an item."""
        self._connection.execute(
            "INSERT OR REPLACE INTO penstock_memo (stage, item, value) VALUES (?, ?, ?)", (stage, item, value)
        )

    def settle(self, opened: Opened, root: Root) -> int:
        """Note that a root is done, or dead; its id, which stays the same from version to version.

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
            number = self._new_id()
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
        """Note that so many roots are done of which nothing was known; their ids.

        It is `settle` for a tenth of the cost; the roots come in columns, so that none of them needs a step of Python.

        Raises:
            StoreError: as for `settle`, or something was known of one of them.
        """
        if monotonic() - self._looked > _LOOK:
            self._refuse_other_file()
        numbers = range(self._last_id + 1, self._last_id + 1 + number)
        self._last_id += number
        values = f"(?, ?, ?, ?, ?, {DONE}, {opened.id}, {opened.times})"
        self._connection.insert(f"{_NEW} VALUES {values}", zip(numbers, keys, versions, positions, rows, strict=True))
        return numbers

    def _new_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def done_now(self, opened: Opened, keys: Sequence[Key]) -> dict[str, int]:
        """How many of those roots this opening has delivered, and how many rows, by the names of the report."""
        done = "SELECT rows FROM penstock_roots WHERE run = ? AND key = ? AND times = ? AND state = ?"
        found = [list(self._connection.select(done, (opened.id, key, opened.times, DONE), int)) for key in keys]
        rows = [row for ((row,),) in filter(None, found)]
        return {"delivered": len(rows), "rows": sum(rows)}

    def find_run(self, name: str) -> tuple[int, str]:
        """The id of a run, and the identity of its sink; `StoreError` if there is none of that name."""
        for run, sink in self._connection.select(
            "SELECT id, sink FROM penstock_runs WHERE name = ?", (name,), int, str
        ):
            return run, sink
        names = "SELECT name FROM penstock_runs ORDER BY began DESC, id DESC"
        raise no_run(self._path, name, [each for (each,) in self._connection.select(names, (), str)])

    def find_root(self, run: int, key: Key) -> tuple[int, int] | None:
        """The id of a root, and how many rows there are of it; None if it is not known."""
        if not can_be_key(key):
            return None
        found = "SELECT id, rows FROM penstock_roots WHERE run = ? AND key = ?"
        for root, rows in self._connection.select(found, (run, key), int, int):
            return root, rows
        return None

    def keys_near(self, run: int, key: Key, number: int) -> list[Key]:
        """So many keys of a run behind that one, in their order, and as many before it."""
        found: list[Key] = []
        for way, order in ((">=", "ASC"), ("<", "DESC")):
            near = f"SELECT key FROM penstock_roots WHERE run = ? AND key {way} ? ORDER BY key {order} LIMIT ?"  # noqa: S608 -- constants
            there = self._connection.select(near, (run, key if can_be_key(key) else "", number), int | str)
            found += [each for (each,) in there]
        return found

    def roots_with_rows(self, run: int) -> int:
        """How many roots of a run are done and have rows."""
        roots = "SELECT count(*) FROM penstock_roots WHERE run = ? AND times > 0 AND rows > 0"
        number: int
        (number,) = self._connection.one(roots, (run,), int)
        return number

    def redo(self, run: int, *, dead: bool = False) -> tuple[int, int]:
        """Have all roots of a run, or all that are dead, done again by the next one; how many, and their rows."""
        return self._redo(_DEAD if dead else _EVERY, (run,))

    def redo_lost(self, root: int, rows: int) -> None:
        """Have a root done again, of which there are only so many rows any more."""
        self.retry(root)
        self._connection.execute("UPDATE penstock_roots SET rows = ? WHERE id = ?", (rows, root))

    def _redo(self, which: str, values: tuple[int | bytes, ...]) -> tuple[int, int]:
        query = f"SELECT count(*), coalesce(sum(rows), 0) FROM penstock_roots WHERE {which}"  # noqa: S608 -- a constant
        roots, rows = self._connection.one(query, values, int, int)
        if roots:
            letters = f"DELETE FROM penstock_dead WHERE root IN (SELECT id FROM penstock_roots WHERE {which})"  # noqa: S608 -- a constant
            self._connection.execute(letters, values)
            self._connection.execute(f"UPDATE penstock_roots SET times = 0 WHERE {which}", values)  # noqa: S608 -- a constant
        return roots, rows

    def redo_by_other_code(self, run: int, code: bytes | None = None) -> tuple[int, int]:
        """The same for roots that were made by other code than that, by default than that of the last opening."""
        codes = self._codes(run)
        code = codes[-1][1] if code is None and codes else code
        if code is None or all(each == code for _, each in codes):
            return 0, 0
        redone = self._redo(_OTHERS, (run, code))
        self._connection.execute("DELETE FROM penstock_codes WHERE run = ?", (run,))
        self._made_by(run, 1, code)
        return redone

    def retry(self, root: int) -> None:
        """Have a root done again by the next run, as one that was done before the first; its rows stay until then."""
        self._connection.execute("UPDATE penstock_roots SET times = 0 WHERE id = ?", (root,))
        self._connection.execute("DELETE FROM penstock_dead WHERE root = ?", (root,))

    def discard(self, root: int) -> None:
        """Count a dead root as done in its version, with what rows there are of it."""
        self._connection.execute("UPDATE penstock_roots SET state = ? WHERE id = ?", (DONE, root))
        self._connection.execute("DELETE FROM penstock_dead WHERE root = ?", (root,))

    def forget(self, root: int) -> int:
        """Forget a root: the next run does it again, if it is still there; how many rows were stored of it."""
        self._connection.execute("DELETE FROM penstock_dead WHERE root = ?", (root,))
        rows: int
        (rows,) = self._connection.one("DELETE FROM penstock_roots WHERE id = ? RETURNING rows", (root,), int)
        return rows

    def some_roots(self, run: int, number: int) -> list[int]:
        """The ids of some roots of a run, no more than that."""
        roots = "SELECT id FROM penstock_roots WHERE run = ? LIMIT ?"
        return [root for (root,) in self._connection.select(roots, (run, number), int)]

    def forget_run(self, run: int) -> tuple[int, int]:
        """Forget a run and what roots there are of it; how many, and how many rows were stored of them."""
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

    def drop_unused_memo(self) -> bool:
        """Drop some of what is kept for stages that are part of no run any more; whether there may be more."""
        stage = unused_memo(self._connection)
        if stage is not None:
            self.drop_memo(stage)
        return stage is not None


def can_be_key(key: Key) -> bool:
    """Whether a journal can hold it."""
    return validate.is_utf8(key) if isinstance(key, str) else -(2**63) <= key < 2**63


def no_run(path: str, name: str, there: Sequence[str]) -> StoreError:
    """The error for a run that is not there."""
    more = f" and {len(there) - _NAMED:,} more" if len(there) > _NAMED else ""
    return StoreError(
        f"{path}: no run {named(name)}, there are {', '.join(map(named, there[:_NAMED])) or 'none'}{more}"
    )


def unused_memo(connection: Connection) -> bytes | None:
    """The first of the stages that something is kept for and that are part of no run any more, if there is any."""
    used = {stage for (stage,) in connection.select("SELECT DISTINCT fingerprint FROM penstock_stages", (), bytes)}
    before = b""
    stage: bytes | None = None
    while stage is None or stage > before:
        before = stage or before
        (stage,) = connection.one("SELECT min(stage) FROM penstock_memo WHERE stage > ?", (before,), bytes | None)
        if stage is None or stage not in used:
            return stage
    raise DamageError(f"{connection.path}: the database is damaged: stages of penstock_memo are not in their order")


def _file_at(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def has_journal(connection: Connection) -> bool:
    """Whether the database has a journal, of whatever format."""
    return bool(list(connection.execute("PRAGMA table_info(penstock_journal)")))


def check_format(path: str, connection: Connection) -> None:
    """`StoreError` if the journal is of another format than this one, or its tables are not as a run makes them."""
    found = check_newer(path, connection)
    if found < FORMAT:
        raise StoreError(f"{path}: a journal of format {found}; the next run into it makes it one of format {FORMAT}")
    refuse_other_tables(connection, _TABLES)


def check_newer(path: str, connection: Connection) -> int:
    """The format of the journal; `StoreError` if a newer penstock made it."""
    found = _format(path, connection)
    if found > FORMAT:
        raise StoreError(f"{path}: a journal of format {found}; this penstock knows formats up to {FORMAT}")
    return found


def _format(path: str, connection: Connection) -> int:
    """The format of the journal; `StoreError` if the table that is called like one is none."""
    if any(name == "format" for _, name, *_ in connection.execute("PRAGMA table_info(penstock_journal)")):
        found = list(connection.execute("SELECT format FROM penstock_journal LIMIT 2"))
        if len(found) == 1 and isinstance(found[0][0], int) and found[0][0] > 0:
            return found[0][0]
    raise StoreError(f"{path}: its table penstock_journal was not made by a durable run")
