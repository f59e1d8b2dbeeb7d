"""Databases of durable runs that somebody has changed, for tests of what becomes of those who open them."""

import apsw

import penstock
from penstock.testing import run_in_real_time

TABLE, RUN = "things", "run"


def job(path, count=40):
    """A run with rows, some dead roots and something that is kept."""

    def work(number):
        if number % 10 == 7:
            raise ValueError(f"no {number}")
        return {"number": number, "text": "word " * (number % 5)}

    async def kept(row):
        return row

    stream = penstock.keyed(range(count), key=lambda number: f"k{number:03}")
    return (
        stream.map(work, on_error="collect").map(kept, memo=True, deps=1).to(penstock.SqliteTable(path, TABLE), run=RUN)
    )


def index_job(path, count=40):
    def rows(number):
        yield {"text": f"word{number} common", "title": f"title {number}", "vector": [float(number + 1), 1.0, 0.5]}

    return penstock.keyed(range(count), key=int).flat_map(rows).to(penstock.SqliteVectors(path), run=RUN)


def made(path, of=job):
    """A database of a run that has come to its end, as one file."""
    run_in_real_time(of(path))
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "delete")
    connection.close()
    return path


def change(path, *statements):
    """Execute these on the database, whatever the schema is to be protected from."""
    connection = apsw.Connection(str(path))
    try:
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        connection.config(apsw.SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)
        for statement in statements:
            connection.execute(statement)
    finally:
        connection.close()
