"""Reads a journal in a schema."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, LiteralString

from penstock.durable.fingerprint import StageCode
from penstock.durable.letters import DeadLetter
from penstock.durable.note import note_key
from penstock.durable.postgres.postgres_connection import PostgresConnection, quoted
from penstock.durable.postgres.writing_session import HOLDERS, LOCK
from penstock.durable.roots import Key
from penstock.durable.store import DeadRecord, Known, KnownRoots, RootCount, RunRecord
from penstock.durable.store_errors import DamageError

_RUNS: Final[LiteralString] = "SELECT id, name, source, sink, owner, times, clean, began, ended FROM penstock_runs"
_DEAD: Final[LiteralString] = (
    "SELECT root.id, run.name, root.key, root.version, stage, attempts, error, traceback, item, at "
    "FROM penstock_dead AS dead JOIN penstock_roots AS root ON root.id = dead.root "
    "JOIN penstock_runs AS run ON run.id = root.run ORDER BY root.id, dead.id"
)
_LEAST: Final = -(2**63)

_BEHIND_ALL: Final = b"\2"
"""What stands behind all keys."""


def held_key(key: Key) -> bytes:
    """Return a key as bytes whose order is that of keys: numbers before text, text by its code points."""
    return b"\0" + (key - _LEAST).to_bytes(8, "big") if isinstance(key, int) else b"\1" + key.encode()


def key_of(held: bytes) -> Key:
    """Return the key that was held as these bytes."""
    kind, rest = held[:1], held[1:]
    if kind == b"\0" and len(rest) == 8:  # noqa: PLR2004 -- of 64 bits
        return int.from_bytes(rest, "big") + _LEAST
    if kind == b"\1":
        return rest.decode()
    raise DamageError(f"the database is damaged: {held[:20]!r} stands for a key")


class PostgresReader:
    """A journal, read on one connection; see `penstock.durable.store.JournalReader`."""

    def __init__(self, connection: PostgresConnection) -> None:
        self._connection = connection
        self.place: str = connection.place

    def writer(self) -> str:
        """Who holds the lock."""
        held = self._connection.ask(HOLDERS, (LOCK, quoted(self._connection.schema)))
        return str(self._connection.one("SELECT holder FROM penstock_journal")[0]) if held else ""

    def run(self, name: str) -> RunRecord | None:
        """Return the run of that name."""
        return next(self._runs(self._connection.ask(f"{_RUNS} WHERE name = %s", (name,))), None)

    def runs(self) -> list[RunRecord]:
        """Return all runs; the one opened last comes first."""
        return list(self._runs(self._connection.ask(f"{_RUNS} ORDER BY began DESC, id DESC")))

    def _runs(self, found: list[tuple[Any, ...]]) -> Iterator[RunRecord]:
        codes = self._codes(found[0][0] if len(found) == 1 else None) if found else {}
        for number, name, source, sink, owner, times, clean, began, ended in found:
            made_by = tuple(codes.get(number, ()))
            yield RunRecord(number, name, source, sink, owner, times, clean, began, ended, made_by)

    def _codes(self, run: int | None) -> dict[int, list[tuple[int, bytes]]]:
        """Return by which code the roots of a run, or of each run, were made."""
        found = defaultdict[int, list[tuple[int, bytes]]](list)
        statement = (
            "SELECT run, since, code FROM penstock_codes WHERE %(run)s::bigint IS NULL OR run = %(run)s "
            "ORDER BY run, since"
        )
        for each, since, code in self._connection.ask(statement.replace("%(run)s", "%s"), (run, run)):
            found[each].append((since, code))
        return found

    def stages(self, run: int) -> list[StageCode]:
        """Return the stages that a run had when it was opened last."""
        found = self._connection.ask(
            "SELECT name, fingerprint FROM penstock_stages WHERE run = %s ORDER BY number", (run,)
        )
        return [StageCode(*stage) for stage in found]

    def counts(self) -> Iterator[RootCount]:
        """Count the roots of all runs."""
        counts = "SELECT run, state, times, count(*), sum(rows)::bigint FROM penstock_roots GROUP BY 1, 2, 3"
        return (RootCount(*row) for row in self._connection.ask(counts))

    def known(self, run: int, key: Key) -> Known | None:
        """Return what is known of a root."""
        known = "SELECT id, version, state, times, position FROM penstock_roots WHERE run = %s AND key = %s"
        for number, version, *rest in self._connection.ask(known, (run, held_key(key))):
            return (number, version.decode(), *rest)
        return None

    def known_from(self, run: int, key: Key, most: int) -> KnownRoots:
        """Return the roots from that key on."""
        known = (
            "SELECT key, id, version, state, times, position FROM penstock_roots WHERE run = %s AND key >= %s "
            "ORDER BY key LIMIT %s"
        )
        found = self._connection.ask(known, (run, held_key(key), most))
        keys, numbers, versions, *rest = zip(*found, strict=True) if found else ((),) * 6
        return KnownRoots(tuple(map(key_of, keys)), numbers, tuple(map(bytes.decode, versions)), *rest)

    def settled(self, run: int, after: Key | None, most: int) -> list[tuple[Any, ...]]:
        """Return the roots after that key, or from the first on."""
        last = b"" if after is None else held_key(after)
        settled = "SELECT id, key, times FROM penstock_roots WHERE run = %s AND key > %s ORDER BY key LIMIT %s"
        found = self._connection.ask(settled, (run, last, most))
        return [(number, key_of(key), times) for number, key, times in found]

    def count_settled(self, run: int, after: Key | None, most: int, *, but: int) -> tuple[int, Key | None]:
        """Count the roots of the next keys after that one that were settled in other openings."""
        first = b"" if after is None else held_key(after)
        last = self._connection.ask(
            "SELECT key FROM penstock_roots WHERE run = %s AND key > %s ORDER BY key LIMIT 1 OFFSET %s",
            (run, first, most - 1),
        )
        upto: bytes = last[0][0] if last else _BEHIND_ALL
        count = "SELECT count(*) FROM penstock_roots WHERE run = %s AND key > %s AND key <= %s AND times <> %s"
        (number,) = self._connection.one(count, (run, first, upto, but))
        return int(number), key_of(upto) if last else None

    def rows_of(self, root: int) -> int:
        """Return how many rows were stored of a root."""
        return int(self._connection.one("SELECT rows FROM penstock_roots WHERE id = %s", (root,))[0])

    def keys_near(self, run: int, key: Key, most: int) -> list[Key]:
        """Return so many keys from that one on, and so many before it."""
        ways: tuple[LiteralString, ...] = (">= %s ORDER BY key", "< %s ORDER BY key DESC")
        near: LiteralString = "SELECT key FROM penstock_roots WHERE run = %s AND key"
        found = (self._connection.ask(f"{near} {way} LIMIT %s", (run, held_key(key), most)) for way in ways)
        return [key_of(held) for rows in found for (held,) in rows]

    def dead(self) -> Iterator[DeadRecord]:
        """Give the letters of all dead roots."""
        for root, run, key, version, *letter in self._connection.ask(_DEAD):
            yield DeadRecord(root, run, key_of(key), version.decode(), DeadLetter(*letter))

    def recall(self, stage: bytes, item: bytes) -> bytes | None:
        """Return what is kept for a stage of an item."""
        kept = "SELECT value FROM penstock_memo WHERE stage = %s AND item = %s"
        found: Sequence[tuple[bytes, ...]] = self._connection.ask(kept, (stage, item))
        return found[0][0] if found else None

    def unused_memo(self) -> bytes | None:
        """Return the first stage that results are kept for and that is part of no run any more."""
        unused = (
            "WITH RECURSIVE kept AS ((SELECT stage FROM penstock_memo ORDER BY stage LIMIT 1) UNION ALL "
            "SELECT (SELECT stage FROM penstock_memo WHERE stage > kept.stage ORDER BY stage LIMIT 1) FROM kept "
            "WHERE kept.stage IS NOT NULL) SELECT stage FROM kept WHERE stage IS NOT NULL "
            "AND NOT EXISTS (SELECT FROM penstock_stages WHERE fingerprint = kept.stage) AND stage <> ALL(%s) LIMIT 1"
        )
        notes = [note_key(run) for (run,) in self._connection.ask("SELECT id FROM penstock_runs")]
        found: Sequence[tuple[bytes, ...]] = self._connection.ask(unused, (notes,))
        return found[0][0] if found else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
