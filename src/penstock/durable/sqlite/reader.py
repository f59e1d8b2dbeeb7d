"""Reads a journal in tables, and checks the answers: others may have written them."""

from collections import defaultdict
from collections.abc import Iterator
from math import inf
from typing import Any, Final

from penstock.durable.fingerprint import StageCode
from penstock.durable.letters import DeadLetter
from penstock.durable.note import note_key
from penstock.durable.roots import Key
from penstock.durable.sqlite import lock
from penstock.durable.sqlite.connection import Connection, shown
from penstock.durable.store import DeadRecord, Known, KnownRoots, RootCount, RunRecord
from penstock.durable.store_errors import DamageError

_RUNS: Final = "SELECT id, name, source, sink, owner, times, clean, began, ended FROM penstock_runs"
_CODES: Final = "SELECT run, since, code FROM penstock_codes"
_STAGES: Final = "SELECT name, fingerprint FROM penstock_stages WHERE run = ? ORDER BY number"
_COUNTS: Final = "SELECT run, state, times, count(*), sum(rows) FROM penstock_roots GROUP BY 1, 2, 3"

_KNOWN: Final = "SELECT id, version, state, times, position FROM penstock_roots WHERE run = ? AND key = ?"
_KNOWN_FROM: Final = (
    "SELECT key, id, version, state, times, position FROM penstock_roots "
    "WHERE run = ? AND key >= ? ORDER BY key LIMIT ?"
)
_SETTLED: Final = "SELECT id, key, times FROM penstock_roots WHERE run = ? AND key > ? ORDER BY key LIMIT ?"
_LAST: Final = "SELECT key FROM penstock_roots WHERE run = ? AND key > ? ORDER BY key LIMIT 1 OFFSET ?"
_COUNT: Final = "SELECT count(*) FROM penstock_roots WHERE run = ? AND key > ? AND key <= ? AND times <> ?"
_BEHIND_ALL: Final = b""
"""What stands behind all numbers and texts."""

_DEAD: Final = (
    "SELECT root.id, run.name, root.key, root.version, dead.id, stage, attempts, error, traceback, item, at "
    "FROM penstock_dead AS dead JOIN penstock_roots AS root ON root.id = dead.root "
    "JOIN penstock_runs AS run ON run.id = root.run ORDER BY root.id, dead.id"
)
_MEMO: Final = "SELECT value FROM penstock_memo WHERE stage = ? AND item = ?"


class SqliteReader:
    """A journal, read on one connection; see `penstock.durable.store.JournalReader`."""

    def __init__(self, path: str, connection: Connection) -> None:
        self._path = path
        self._connection = connection
        self.place: str = connection.filename

    def writer(self) -> str:
        """Who holds the lock."""
        held_by, _, _ = (lock.holder(self._path) or "").rpartition(", since ")
        return held_by

    def run(self, name: str) -> RunRecord | None:
        """Return the run of that name."""
        return next(self._runs(f"{_RUNS} WHERE name = ?", (name,)), None)

    def runs(self) -> list[RunRecord]:
        """Return all runs; the one opened last comes first."""
        found: dict[str, RunRecord] = {}
        for run in self._runs(f"{_RUNS} ORDER BY began DESC, id DESC", ()):
            if run.name in found:
                raise DamageError(f"{self._path}: the database is damaged: it has the run {shown(run.name)} twice")
            found[run.name] = run
        return list(found.values())

    def _runs(self, statement: str, values: tuple[str, ...]) -> Iterator[RunRecord]:
        kinds = (int, str, str, str, str, int, int, int | float, int | float | None)
        found = list(self._connection.select(statement, values, *kinds))
        codes = self._codes(found[0][0] if len(found) == 1 else None) if found else {}
        for number, name, source, sink, owner, times, clean, began, ended in found:
            made_by = tuple(codes.get(number, ()))
            yield RunRecord(number, name, source, sink, owner, times, bool(clean), began, ended, made_by)

    def _codes(self, run: int | None) -> dict[int, list[tuple[int, bytes]]]:
        """Return by which code the roots of a run, or of each run, were made."""
        found = defaultdict[int, list[tuple[int, bytes]]](list)
        statement = f"{_CODES} WHERE ?1 IS NULL OR run = ?1 ORDER BY run, since"
        for each, since, code in self._connection.select(statement, (run,), int, int, bytes):
            found[each].append((since, code))
        return found

    def stages(self, run: int) -> list[StageCode]:
        """Return the stages that a run had when it was opened last."""
        return [StageCode(*stage) for stage in self._connection.select(_STAGES, (run,), str, bytes)]

    def counts(self) -> Iterator[RootCount]:
        """Count the roots of all runs."""
        return (RootCount(*row) for row in self._connection.select(_COUNTS, (), int, int, int, int, int))

    def known(self, run: int, key: Key) -> Known | None:
        """Return what is known of a root."""
        row: list[Any] = self._connection.page(_KNOWN, (run, key), int, str, int, int, int)
        return row[0] if row else None

    def known_from(self, run: int, key: Key, most: int) -> KnownRoots:
        """Return the roots from that key on."""
        return KnownRoots(*self._connection.columns(_KNOWN_FROM, (run, key, most), str | int, int, str, int, int, int))

    def settled(self, run: int, after: Key | None, most: int) -> list[tuple[Any, ...]]:
        """Return the roots after that key, or from the first on."""
        last = -inf if after is None else after
        return self._connection.page(_SETTLED, (run, last, most), int, str | int, int)

    def count_settled(self, run: int, after: Key | None, most: int, *, but: int) -> tuple[int, Key | None]:
        """Count the roots of the next keys after that one that were settled in other openings."""
        first = -inf if after is None else after
        last: Key | None = next(
            (key for (key,) in self._connection.page(_LAST, (run, first, most - 1), str | int)), None
        )
        upto = _BEHIND_ALL if last is None else last
        number: int
        (number,) = self._connection.one(_COUNT, (run, first, upto, but), int)
        return number, last

    def rows_of(self, root: int) -> int:
        """Return how many rows were stored of a root."""
        rows: int
        (rows,) = self._connection.one("SELECT rows FROM penstock_roots WHERE id = ?", (root,), int)
        return rows

    def keys_near(self, run: int, key: Key, most: int) -> list[Key]:
        """Return so many keys from that one on, and so many before it."""
        found: list[Key] = []
        for way, order in ((">=", "ASC"), ("<", "DESC")):
            near = f"SELECT key FROM penstock_roots WHERE run = ? AND key {way} ? ORDER BY key {order} LIMIT ?"  # noqa: S608 -- constants
            found += [each for (each,) in self._connection.select(near, (run, key, most), int | str)]
        return found

    def dead(self) -> Iterator[DeadRecord]:
        """Give the letters of all dead roots, each once: the pages of a damaged table may lead to each other."""
        last: tuple[int, int] | None = None
        kinds = (int, str, str | int, str, int, str, int, str, str, str, int | float)
        for root, run, key, version, number, *letter in self._connection.select(_DEAD, (), *kinds):
            place = root, number
            if last is not None and place <= last:
                raise DamageError(f"{self._path}: the database is damaged: it has a dead letter twice")
            last = place
            yield DeadRecord(root, run, key, version, DeadLetter(*letter))

    def recall(self, stage: bytes, item: bytes) -> bytes | None:
        """Return what is kept for a stage of an item."""
        found = list(self._connection.execute(_MEMO, (stage, item)))
        return found[0][0] if found else None

    def unused_memo(self) -> bytes | None:
        """Return the first stage that results are kept for and that is part of no run any more."""
        connection = self._connection
        used = {stage for (stage,) in connection.select("SELECT DISTINCT fingerprint FROM penstock_stages", (), bytes)}
        used |= {note_key(run) for (run,) in connection.select("SELECT id FROM penstock_runs", (), int)}
        before = b""
        stage: bytes | None = None
        while stage is None or stage > before:
            before = stage or before
            (stage,) = connection.one("SELECT min(stage) FROM penstock_memo WHERE stage > ?", (before,), bytes | None)
            if stage is None or stage not in used:
                return stage
        raise DamageError(f"{self._path}: the database is damaged: stages of penstock_memo are not in their order")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
