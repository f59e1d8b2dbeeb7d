"""What was under way when a process died: of each opening of a run that was killed, the roots that it had begun.

An opening is entered before it begins its work, and leaves in order; those that are still there have died. Only after
a death it is noted which roots are begun: of the one before, it is known how far it had come in its sources. A
root that was under way at the last two deaths is a suspect, whatever else there was between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.durable.roots import Key, Root
from penstock.durable.sqlite.connection import Connection

TABLES: Final = """
CREATE TABLE penstock_deaths (
    run INTEGER NOT NULL REFERENCES penstock_runs, opening INTEGER NOT NULL, noted INTEGER NOT NULL,
    reached TEXT NOT NULL DEFAULT '', PRIMARY KEY (run, opening)) WITHOUT ROWID;
CREATE TABLE penstock_dispatched (
    run INTEGER NOT NULL REFERENCES penstock_runs, key NOT NULL, opening INTEGER NOT NULL, version TEXT NOT NULL,
    source INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (run, key, opening)) WITHOUT ROWID;
"""

_BEGUN: Final = """
SELECT key, version, position, (SELECT count(*) FROM penstock_dispatched WHERE run = ?1 AND key = of.key)
FROM penstock_dispatched AS of WHERE run = ?1 AND opening = ?2 ORDER BY position
"""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A root that was under way when a process died, and how many times it was."""

    key: Key
    version: str
    position: int
    attempts: int


class Deaths:
    """The deaths of runs, in the journal; each method is to be called inside a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def enter(self, run: int, opening: int) -> bool:
        """Count an opening as dead until it leaves; whether it is to note what it begins."""
        last = [death for death, _ in self._last_two(run)]
        noted = bool(last)
        self._connection.execute(
            "INSERT OR REPLACE INTO penstock_deaths (run, opening, noted) VALUES (?, ?, ?)", (run, opening, noted)
        )
        kept = (run, *[*last, 0, 0][:2], opening)
        for table in ("penstock_deaths", "penstock_dispatched"):
            self._connection.execute(f"DELETE FROM {table} WHERE run = ? AND opening NOT IN (?, ?, ?)", kept)  # noqa: S608 -- constants
        return noted

    def leave(self, run: int) -> None:
        """Note that the opening that the run is in has left in order."""
        for table in ("penstock_deaths", "penstock_dispatched"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE run = ?1 AND opening = (SELECT times FROM penstock_runs WHERE id = ?1)",  # noqa: S608 -- constants
                (run,),
            )

    def forget(self, run: int) -> None:
        """Forget all deaths of the run: it came to its end."""
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
        """Note that a root is no suspect any more: it is settled, or has outlived its own process."""
        self._connection.execute("DELETE FROM penstock_dispatched WHERE run = ? AND key = ?", (run, key))

    def begun(self, run: int, opening: int) -> list[Suspect]:
        """The roots that the opening has begun, and that are not settled."""
        return [Suspect(*row) for row in self._connection.select(_BEGUN, (run, opening), str | int, str, int, int)]

    def begin_anew(self, run: int, opening: int) -> None:
        """Forget what the opening has begun."""
        self._connection.execute("DELETE FROM penstock_dispatched WHERE run = ? AND opening = ?", (run, opening))

    def learn(self, reached: Sequence[int]) -> None:
        """Note how far an opening had come that noted nothing: run, opening, and how many items of each source."""
        if len(reached) > 2:  # noqa: PLR2004 -- as said
            self._connection.execute(
                "UPDATE penstock_deaths SET reached = ? WHERE run = ? AND opening = ? AND NOT noted",
                (" ".join(map(str, reached[2:])), *reached[:2]),
            )

    def suspects(self, run: int) -> list[Suspect]:
        """The roots that were under way at the last two deaths, and are not settled.

        At a death before which nothing was noted, these are the roots of which the source was read by then.
        """
        deaths: Sequence[tuple[int, int]] = self._last_two(run)
        if len(deaths) < 2 or not deaths[0][1]:  # noqa: PLR2004 -- the last two
            return []
        (last, _), (before, noted) = deaths
        if noted:
            keys = {each.key for each in self.begun(run, before)}
            return [each for each in self.begun(run, last) if each.key in keys]
        places = "SELECT key, source, position FROM penstock_dispatched WHERE run = ? AND opening = ?"
        numbers = self._reached(run, before)
        keys = {
            key
            for key, source, position in self._connection.select(places, (run, last), str | int, int, int)
            if not 0 <= source < len(numbers) or position < numbers[source]
        }
        return [each for each in self.begun(run, last) if each.key in keys]

    def _reached(self, run: int, opening: int) -> list[int]:
        reached = "SELECT reached FROM penstock_deaths WHERE run = ? AND opening = ?"
        return [
            int(number)
            for (text,) in self._connection.select(reached, (run, opening), str)
            for number in text.split()
            if number.isdecimal()
        ]

    def _last_two(self, run: int) -> list[tuple[int, int]]:
        deaths = "SELECT opening, noted FROM penstock_deaths WHERE run = ? ORDER BY opening DESC LIMIT 2"
        return [(opening, noted) for opening, noted in self._connection.select(deaths, (run,), int, int)]
