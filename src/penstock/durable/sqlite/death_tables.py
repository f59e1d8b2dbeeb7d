"""The roots that were under way when a process died, in tables."""

from collections.abc import Sequence
from typing import Final

from penstock.durable.roots import Key, Root
from penstock.durable.sqlite.connection import Connection
from penstock.durable.store import Death, Suspect

TABLES: Final = """
CREATE TABLE penstock_deaths (
    run INTEGER NOT NULL REFERENCES penstock_runs, opening INTEGER NOT NULL, noted INTEGER NOT NULL,
    reached TEXT NOT NULL DEFAULT '', PRIMARY KEY (run, opening)) WITHOUT ROWID;
CREATE TABLE penstock_dispatched (
    run INTEGER NOT NULL REFERENCES penstock_runs, key NOT NULL, opening INTEGER NOT NULL, version TEXT NOT NULL,
    source INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (run, key, opening)) WITHOUT ROWID;
"""

_BEGUN: Final = """
SELECT key, version, position, (SELECT count(*) FROM penstock_dispatched WHERE run = ?1 AND key = of.key), source
FROM penstock_dispatched AS of WHERE run = ?1 AND opening = ?2 ORDER BY position
"""
_LAST: Final = "SELECT opening, noted, reached FROM penstock_deaths WHERE run = ? ORDER BY opening DESC LIMIT 2"


class SqliteDeaths:
    """The deaths of runs, in the journal; see `penstock.durable.store.Deaths`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def enter(self, run: int, opening: int) -> bool:
        """Count an opening as dead until its run is left; return whether others are."""
        last = [death.opening for death in self.last(run)]
        noted = bool(last)
        self._connection.execute(
            "INSERT OR REPLACE INTO penstock_deaths (run, opening, noted) VALUES (?, ?, ?)", (run, opening, noted)
        )
        kept = (run, *[*last, 0, 0][:2], opening)
        for table in ("penstock_deaths", "penstock_dispatched"):
            self._connection.execute(f"DELETE FROM {table} WHERE run = ? AND opening NOT IN (?, ?, ?)", kept)  # noqa: S608 -- constants
        return noted

    def leave(self, run: int) -> None:
        """Note that the present opening of the run has ended in order."""
        for table in ("penstock_deaths", "penstock_dispatched"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE run = ?1 AND opening = (SELECT times FROM penstock_runs WHERE id = ?1)",  # noqa: S608 -- constants
                (run,),
            )

    def forget(self, run: int) -> None:
        """Forget all deaths of a run."""
        for table in ("penstock_deaths", "penstock_dispatched"):
            self._connection.execute(f"DELETE FROM {table} WHERE run = ?", (run,))  # noqa: S608 -- constants

    def dispatch(self, run: int, opening: int, root: Root) -> None:
        """Note that a root is begun."""
        self._connection.execute(
            "INSERT OR REPLACE INTO penstock_dispatched (run, key, opening, version, source, position) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (run, root.key, opening, root.version, root.source, root.position),
        )

    def acquit(self, run: int, key: Key) -> None:
        """Note that a root is no suspect any more."""
        self._connection.execute("DELETE FROM penstock_dispatched WHERE run = ? AND key = ?", (run, key))

    def begun(self, run: int, opening: int) -> list[Suspect]:
        """Return the roots that an opening has begun and that are not settled."""
        return [Suspect(*row) for row in self._connection.select(_BEGUN, (run, opening), str | int, str, int, int, int)]

    def begin_anew(self, run: int, opening: int) -> None:
        """Forget what an opening has begun."""
        self._connection.execute("DELETE FROM penstock_dispatched WHERE run = ? AND opening = ?", (run, opening))

    def learn(self, reached: Sequence[int]) -> None:
        """Note how far an opening had come that noted nothing: run, opening, and how many items of each source."""
        if len(reached) > 2:  # noqa: PLR2004 -- as said
            self._connection.execute(
                "UPDATE penstock_deaths SET reached = ? WHERE run = ? AND opening = ? AND NOT noted",
                (" ".join(map(str, reached[2:])), *reached[:2]),
            )

    def last(self, run: int) -> list[Death]:
        """Return the last two openings that died, the later one first."""
        return [
            Death(opening, bool(noted), [int(number) for number in reached.split() if number.isdecimal()])
            for opening, noted, reached in self._connection.select(_LAST, (run,), int, int, str)
        ]
