"""What the tests of workflows share."""

import apsw
import numpy as np
import pytest


class Fake:
    """An embedder with vectors of three numbers: the counts of a, b and c."""

    name = "fake"
    dimensions = 3

    def embed(self, texts):
        return np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32).reshape(-1, 3)


@pytest.fixture
def fake():
    return Fake()


@pytest.fixture
def rows():
    """A function that gives every row of an index as a reader of another connection sees it, without its ids."""

    def rows(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        found = connection.execute(
            "SELECT directory, name, size, mtime_ns, position, first_line, last_line, heading, text, vector "
            "FROM files LEFT JOIN chunks ON chunks.file = files.id LEFT JOIN vectors ON vectors.chunk = chunks.id "
            "ORDER BY directory, name, position"
        ).fetchall()
        connection.close()
        return found

    return rows
