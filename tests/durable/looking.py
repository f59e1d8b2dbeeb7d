"""What stands in the database of a durable run, compared with what plain list code says."""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from penstock.durable.sqlite.connection import connect_writer
from penstock.durable.store_errors import StoreError

DONE, DEAD = 0, 1


@dataclass
class Look:
    """What was found.

    Attributes:
        settled: the version and the state of every root that the journal knows.
        clean: whether the journal says that the run came to its end.
        lost: rows that should be there and are not.
        duplicated: rows that should not be there, or not so often.
        problems: what else is wrong.
    """

    settled: dict[str, tuple[str, int]] = field(default_factory=dict)
    clean: bool = False
    lost: int = 0
    duplicated: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_whole(self):
        return not (self.lost or self.duplicated or self.problems)


def copied(database, folder):
    """A copy of a database as a crash has left it: without the index of the log, which is made anew."""
    folder.mkdir(exist_ok=True)
    copy = folder / "copy.db"
    for end in ("", "-wal", "-shm", "-journal"):
        Path(f"{copy}{end}").unlink(missing_ok=True)
    for end in ("", "-wal", "-journal"):
        if Path(f"{database}{end}").exists():
            shutil.copyfile(f"{database}{end}", f"{copy}{end}")
    return copy


def look(database, expected, sent=None, *, keeps=False):
    """Open a database that nobody else has open and look: the rows of a root are there if and only if it is settled.

    Args:
        database: its path; it may not exist.
        expected: `expected(key, version)` gives the texts of the rows of a root, sorted, or None if it is dead.
        sent: rows that were handed over to a function, by key and version of the root and their names; None where
            they are in the database.
        keeps: whether a dead root may have the rows of a version before, all of them.
    """
    found = Look()
    if not Path(database).exists():
        return found
    connection = None
    try:
        connection = connect_writer(str(database))
        _look(connection, expected, sent, found, keeps)
    except (apsw.Error, StoreError) as error:
        found.problems.append(f"the database cannot be read: {error!r}")
    finally:
        if connection is not None:
            connection.close()
    return found


def _look(connection, expected, sent, found, keeps):
    if (health := connection.pragma("integrity_check")) != "ok":
        found.problems.append(f"integrity: {health}")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    rows = _rows(connection, tables, found)
    if "penstock_roots" not in tables:
        if rows:
            found.problems.append("rows without a journal")
        return
    found.clean = any(clean for (clean,) in connection.execute("SELECT clean FROM penstock_runs"))
    letters = Counter(root for (root,) in connection.execute("SELECT root FROM penstock_dead"))
    for number, *root in connection.execute("SELECT id, key, version, state, rows FROM penstock_roots"):
        there = rows.pop(number, []) if sent is None else sent.get((str(root[0]), root[1]), {}).values()
        _look_at(*root, sorted(there), letters.pop(number, 0), expected, found, keeps)
    if rows:
        found.problems.append(f"rows of roots that the journal does not know: {rows}")
        found.duplicated += sum(map(len, rows.values()))
    if letters:
        found.problems.append(f"letters of roots that the journal does not know: {letters}")
    if found.clean and (parts := connection.execute("SELECT count(*) FROM penstock_staged").get):
        found.problems.append(f"{parts} parts of roots are staged after the end")


def _rows(connection, tables, found):
    """The texts in the table, or in the index, by root."""
    rows = {}
    for table in tables & {"rows", "entries"}:
        for root, text in connection.execute(f'SELECT penstock_root, text FROM "{table}"'):
            rows.setdefault(root, []).append(text)
    if "entries" in tables:
        entries = sum(map(len, rows.values()))
        for table in ("vectors", "words"):
            if (there := connection.execute(f"SELECT count(*) FROM {table}").get) != entries:
                found.problems.append(f"{there} rows in {table}, {entries} in entries")
    return rows


def _look_at(key, version, state, count, there, letters, expected, found, keeps):
    """Look at a root that is settled: its rows, and how many letters it has."""
    found.settled[str(key)] = (version, state)
    wanted = expected(str(key), version)
    if (wanted is None) != (state == DEAD):
        found.problems.append(f"{key} is {'dead' if state == DEAD else 'done'} and should not be")
    if bool(letters) != (state == DEAD):
        found.problems.append(f"{key} has letters and is not dead, or is dead and has none")
    if keeps and wanted is None and there in (expected(str(key), str(before)) for before in range(int(version))):
        wanted = there
    found.lost += sum((Counter(wanted or []) - Counter(there)).values())
    found.duplicated += sum((Counter(there) - Counter(wanted or [])).values())
    if count != len(there):
        found.problems.append(f"the journal says that {key} has {count} rows, there are {len(there)}")
