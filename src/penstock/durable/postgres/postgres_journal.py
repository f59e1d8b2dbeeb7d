"""The journal in tables beside the rows: which roots are done, in which version."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from time import time
from typing import Final, LiteralString

from penstock.durable.fingerprint import StageCode
from penstock.durable.made_by import MadeBy
from penstock.durable.postgres.postgres_connection import RefusalError
from penstock.durable.postgres.postgres_reader import PostgresReader, held_key, key_of
from penstock.durable.postgres.postgres_tables import NUMBERS
from penstock.durable.postgres.writing_session import WritingSession
from penstock.durable.roots import DEAD, DONE, Key, Root, RootId
from penstock.durable.store import Death, Opened, Suspect
from penstock.durable.store_errors import RefusedRowError

_ENTRIES: Final = 10_000
"""Kept results of a stage that are dropped together."""

_SETTLE: Final[LiteralString] = """
INSERT INTO penstock_roots (id, run, key, version, state, position, times, rows) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (run, key) DO UPDATE SET version = excluded.version, state = excluded.state, position = excluded.position,
times = excluded.times, rows = CASE WHEN %s THEN penstock_roots.rows ELSE excluded.rows END RETURNING id
"""
_COPY: Final[LiteralString] = (
    "COPY penstock_roots (id, run, key, version, state, position, times, rows) FROM STDIN (FORMAT binary)"
)
_KINDS: Final = ("int8", "int8", "bytea", "bytea", "int4", "int8", "int8", "int8")

LARGEST_PART: Final = 1_000_000_000
"""Bytes of rows that wait together: a message of more ends the connection."""


class PostgresJournal(PostgresReader):
    """The tables of runs and roots, on the one connection that writes; see `penstock.durable.store.Journal`.

    Attributes:
        deaths: what was under way when a process died.
    """

    def __init__(self, session: WritingSession) -> None:
        super().__init__(session)
        self._session = session
        self._free: list[int] = []
        self._taken_on = session.connected
        self.deaths: PostgresDeaths = PostgresDeaths(session)

    def _numbers(self, number: int) -> list[int]:
        """Take numbers for new roots, in their order; those of a transaction that fails are given to nobody.

        A server that crashed may have forgotten that they are taken, if their transaction was not committed.
        """
        if self._taken_on != self._session.connected:
            self._taken_on, self._free = self._session.connected, []
        while len(self._free) < number:
            (first,) = self._session.one("SELECT nextval('penstock_numbers')")
            self._free += range(first, first + NUMBERS)
        taken, self._free = self._free[:number], self._free[number:]
        return taken

    def begin(  # noqa: PLR0917 -- a record
        self, name: str, source: str, sink: str, owner: str, stages: Sequence[StageCode], codes: MadeBy
    ) -> int:
        """Note that a run is opened."""
        run: int
        (run,) = self._session.one(
            "INSERT INTO penstock_runs (name, source, sink, owner, times, clean, began) "
            "VALUES (%s, %s, %s, %s, 1, false, %s) ON CONFLICT (name) DO UPDATE SET sink = excluded.sink, "
            "owner = excluded.owner, times = penstock_runs.times + 1, clean = false, began = excluded.began, "
            "ended = NULL RETURNING id",
            (name, source, sink, owner, time()),
        )
        if stages != self.stages(run):
            self._session.execute("DELETE FROM penstock_stages WHERE run = %s", (run,))
            self._session.execute_many(
                "INSERT INTO penstock_stages (run, number, name, fingerprint) VALUES (%s, %s, %s, %s)",
                [(run, number, without_nul(stage.name), stage.fingerprint) for number, stage in enumerate(stages)],
            )
        self.put_codes(run, codes)
        return run

    def put_codes(self, run: int, codes: MadeBy) -> None:
        """Note by which code the roots of a run were made."""
        if codes != tuple(self._codes(run).get(run, ())):
            self._session.execute("DELETE FROM penstock_codes WHERE run = %s", (run,))
            self._session.execute_many(
                "INSERT INTO penstock_codes VALUES (%s, %s, %s)", [(run, *each) for each in codes]
            )

    def leave_run(self, run: int) -> None:
        """Note that nothing of the run is under way."""
        self._session.execute("UPDATE penstock_runs SET clean = true WHERE id = %s", (run,))
        self.deaths.leave(run)

    def close_run(self, run: int) -> None:
        """Note that the run came to its end."""
        self.leave_run(run)
        self.deaths.forget(run)
        self._session.execute("UPDATE penstock_runs SET ended = %s WHERE id = %s", (time(), run))

    def settle(self, opened: Opened, root: Root) -> int:
        """Note that a root is done, or dead."""
        state = DEAD if root.letters else DONE
        rows = 0 if root.letters else len(root.rows) + root.staged
        keeps = root.letters is not None and opened.keeps_rows_of_dead
        if root.dispatched:
            self.deaths.acquit(opened.id, root.key)
        (new,) = self._numbers(1)
        held = held_key(root.key), root.version.encode()
        values = (new, opened.id, *held, state, root.position, opened.times, rows, keeps)
        number: int
        (number,) = self._session.one(_SETTLE, values)
        if number != new:
            self._free.insert(0, new)
            self._session.execute("DELETE FROM penstock_dead WHERE root = %s", (number,))
        if root.letters:
            self._session.execute_many(
                "INSERT INTO penstock_dead (root, stage, attempts, error, traceback, item, at) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [
                    (number, *(without_nul(part) if isinstance(part, str) else part for part in letter))
                    for letter in root.letters
                ],
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
    ) -> list[int]:
        """Note many roots as done of which nothing was known; return their numbers."""
        numbers = self._numbers(number)
        self._session.copy(
            _COPY,
            zip(
                numbers,
                repeat(opened.id, number),
                map(held_key, keys),
                map(str.encode, versions),
                repeat(DONE, number),
                positions,
                repeat(opened.times, number),
                rows,
                strict=True,
            ),
            _KINDS,
        )
        return numbers

    def redo(self, run: int, *, dead: bool = False, openings: tuple[int, int | None] | None = None) -> tuple[int, int]:
        """Have the next opening do roots again; return their number, and that of their rows."""
        which: LiteralString = "run = %s"
        values: tuple[int | None, ...] = (run,)
        if dead:
            which, values = "run = %s AND state = %s", (run, DEAD)
        elif openings is not None:
            which = "run = %s AND times > 0 AND times >= %s AND (%s::bigint IS NULL OR times < %s)"
            values = run, *openings, openings[1]
        roots: int
        rows: int
        roots, rows = self._session.one(
            f"SELECT count(*), coalesce(sum(rows), 0)::bigint FROM penstock_roots WHERE {which}",  # noqa: S608 -- a constant
            values,
        )
        if roots:
            letters: LiteralString = (
                f"DELETE FROM penstock_dead WHERE root IN (SELECT id FROM penstock_roots WHERE {which})"  # noqa: S608 -- a constant
            )
            self._session.execute(letters, values)
            self._session.execute(f"UPDATE penstock_roots SET times = 0 WHERE {which}", values)  # noqa: S608 -- a constant
        return roots, rows

    def retry(self, root: int, rows: int | None = None) -> None:
        """Have the next opening do a root again: it counts as done before the first opening."""
        self._session.execute(
            "UPDATE penstock_roots SET times = 0, rows = coalesce(%s, rows) WHERE id = %s", (rows, root)
        )
        self._session.execute("DELETE FROM penstock_dead WHERE root = %s", (root,))

    def discard(self, root: int) -> None:
        """Count a dead root as done in its version, with the rows that it has."""
        self._session.execute("UPDATE penstock_roots SET state = %s WHERE id = %s", (DONE, root))
        self._session.execute("DELETE FROM penstock_dead WHERE root = %s", (root,))

    def forget(self, root: int) -> int:
        """Forget a root; return how many rows were stored of it."""
        self._session.execute("DELETE FROM penstock_dead WHERE root = %s", (root,))
        return int(self._session.one("DELETE FROM penstock_roots WHERE id = %s RETURNING rows", (root,))[0])

    def some_roots(self, run: int, most: int) -> list[RootId]:
        """Return at most so many roots of a run."""
        found = self._session.ask("SELECT id, key FROM penstock_roots WHERE run = %s LIMIT %s", (run, most))
        return [RootId(number, key_of(key)) for number, key in found]

    def roots_with_rows(self, run: int) -> int:
        """Return how many roots of a run are done and have rows."""
        counted = "SELECT count(*) FROM penstock_roots WHERE run = %s AND times > 0 AND rows > 0"
        return int(self._session.one(counted, (run,))[0])

    def forget_run(self, run: int) -> tuple[int, int]:
        """Forget a run and its roots; return the numbers of both roots and rows."""
        roots: int
        rows: int
        roots, rows = self._session.one(
            "SELECT count(*), coalesce(sum(rows), 0)::bigint FROM penstock_roots WHERE run = %s", (run,)
        )
        self._session.execute(
            "DELETE FROM penstock_dead WHERE root IN (SELECT id FROM penstock_roots WHERE run = %s)", (run,)
        )
        self.deaths.forget(run)
        self._session.execute("DELETE FROM penstock_roots WHERE run = %s", (run,))
        self._session.execute("DELETE FROM penstock_stages WHERE run = %s", (run,))
        self._session.execute("DELETE FROM penstock_codes WHERE run = %s", (run,))
        self._session.execute("DELETE FROM penstock_runs WHERE id = %s", (run,))
        return roots, rows

    def remember(self, stage: bytes, item: bytes, value: bytes) -> None:
        """Keep what a stage made of an item."""
        self._session.execute(
            "INSERT INTO penstock_memo (stage, item, value) VALUES (%s, %s, %s) "
            "ON CONFLICT (stage, item) DO UPDATE SET value = excluded.value",
            (stage, item, value),
        )

    def drop_memo(self, stage: bytes) -> None:
        """Drop kept results of a stage, no more than takes a moment."""
        some = "DELETE FROM penstock_memo WHERE ctid IN (SELECT ctid FROM penstock_memo WHERE stage = %s LIMIT %s)"
        self._session.execute(some, (stage, _ENTRIES))

    def stage(self, number: int, part: bytes) -> None:
        """Let rows wait; raise `RowError` if they are too large."""
        if len(part) > LARGEST_PART:
            raise RefusedRowError(
                f"a row has to wait in the database, which takes 1 GB at a time, got {len(part):,} bytes"
            )
        try:
            self._session.execute("INSERT INTO penstock_staged (staging, rows) VALUES (%s, %s)", (number, part))
        except RefusalError as error:
            raise RefusedRowError(f"{error}: a row has to wait there") from error

    def staged(self, number: int) -> Iterator[bytes]:
        """Give the parts that wait under a number, as they came, one at a time: others ask in between."""
        last = 0
        following = "SELECT id, rows FROM penstock_staged WHERE staging = %s AND id > %s ORDER BY id LIMIT 1"
        while found := self._session.ask(following, (number, last)):
            ((last, part),) = found
            yield part

    def unstage(self, number: int) -> None:
        """Drop the parts that wait under a number."""
        self._session.execute("DELETE FROM penstock_staged WHERE staging = %s", (number,))


class PostgresDeaths:
    """The deaths of runs; see `penstock.durable.store.Deaths`.

    How far an opening had read is not known here: it would cost a commit for each root.
    """

    def __init__(self, session: WritingSession) -> None:
        self._session = session

    def enter(self, run: int, opening: int) -> bool:
        """Count an opening as dead until its run is left; return whether others are."""
        last = [death.opening for death in self.last(run)]
        noted = bool(last)
        self._session.execute(
            "INSERT INTO penstock_deaths (run, opening, noted) VALUES (%s, %s, %s) "
            "ON CONFLICT (run, opening) DO UPDATE SET noted = excluded.noted",
            (run, opening, noted),
        )
        kept = (run, [*last, opening])
        self._session.execute("DELETE FROM penstock_deaths WHERE run = %s AND opening <> ALL(%s)", kept)
        self._session.execute("DELETE FROM penstock_dispatched WHERE run = %s AND opening <> ALL(%s)", kept)
        return noted

    def leave(self, run: int) -> None:
        """Note that the present opening of the run has ended in order."""
        present: LiteralString = "run = %s AND opening = (SELECT times FROM penstock_runs WHERE id = %s)"
        self._session.execute(f"DELETE FROM penstock_deaths WHERE {present}", (run, run))  # noqa: S608 -- a constant
        self._session.execute(f"DELETE FROM penstock_dispatched WHERE {present}", (run, run))  # noqa: S608 -- a constant

    def forget(self, run: int) -> None:
        """Forget all deaths of a run."""
        self._session.execute("DELETE FROM penstock_deaths WHERE run = %s", (run,))
        self._session.execute("DELETE FROM penstock_dispatched WHERE run = %s", (run,))

    def last(self, run: int) -> list[Death]:
        """Return the last two openings that died, the later one first."""
        found = self._session.ask(
            "SELECT opening, noted FROM penstock_deaths WHERE run = %s ORDER BY opening DESC LIMIT 2", (run,)
        )
        return [Death(opening, noted, ()) for opening, noted in found]

    def dispatch(self, run: int, opening: int, root: Root) -> None:
        """Note that a root is begun."""
        self._session.execute(
            "INSERT INTO penstock_dispatched (run, key, opening, version, source, position) "
            "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (run, key, opening) DO UPDATE SET "
            "version = excluded.version, source = excluded.source, position = excluded.position",
            (run, held_key(root.key), opening, root.version.encode(), root.source, root.position),
        )

    def begun(self, run: int, opening: int) -> list[Suspect]:
        """Return the roots that an opening has begun and that are not settled."""
        found = self._session.ask(
            "SELECT key, version, position, "
            "(SELECT count(*) FROM penstock_dispatched AS all_of WHERE all_of.run = one.run AND all_of.key = one.key), "
            "source FROM penstock_dispatched AS one WHERE run = %s AND opening = %s ORDER BY position",
            (run, opening),
        )
        return [Suspect(key_of(key), version.decode(), *rest) for key, version, *rest in found]

    def begin_anew(self, run: int, opening: int) -> None:
        """Forget what an opening has begun."""
        self._session.execute("DELETE FROM penstock_dispatched WHERE run = %s AND opening = %s", (run, opening))

    def acquit(self, run: int, key: Key) -> None:
        """Note that a root is no suspect any more."""
        self._session.execute("DELETE FROM penstock_dispatched WHERE run = %s AND key = %s", (run, held_key(key)))


def without_nul(text: str) -> str:
    """Return a text for people as PostgreSQL can hold it, which has no NUL."""
    return text.replace("\0", "\u2400")
