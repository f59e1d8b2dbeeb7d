"""What an index holds, as a reader of another connection sees it."""

import os
from typing import NamedTuple

import apsw


class Row(NamedTuple):
    """A chunk of a file that is stored; of a file without chunks, one with None for what it has not."""

    directory: str
    name: str
    position: int | None
    first_line: int | None
    last_line: int | None
    heading: str | None
    text: str | None
    vector: bytes | None


CHUNKS = """
SELECT key, entries.position, first_line, last_line, heading, text, vector
FROM penstock_roots LEFT JOIN entries ON penstock_root = penstock_roots.id LEFT JOIN vectors ON vectors.id = entries.id
WHERE state = 0 OR entries.id IS NOT NULL ORDER BY key, entries.position
"""
NOTHING = "SELECT key, NULL, NULL, NULL, NULL, NULL, NULL FROM penstock_roots WHERE state = 0 ORDER BY key"


def rows_of(path):
    """Every chunk of an index, without its ids."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    entries = connection.execute("PRAGMA table_info(entries)").fetchall()
    found = connection.execute(CHUNKS if entries else NOTHING).fetchall()
    connection.close()
    return sorted(
        (Row(*os.path.split(key), *values) for key, *values in found),
        key=lambda row: (row.directory, row.name, row.position or 0),
    )
