"""New roots of one commit are settled together: the database is what it is where each is settled by itself."""

import random
import sqlite3
from contextlib import closing

import pytest

import penstock
from penstock.durable.sqlite.connection import Connection
from penstock.durable.writer import Writer
from penstock.sinks.table import TableStore


def rows_of(item):
    """No rows, one, or several, some with other columns, some that no column can hold, some with keys of others."""
    key, version, seed = item
    chance = random.Random(f"{key} {version} {seed}")
    if chance.random() < 0.05:
        raise ValueError(f"of {key}")
    for number in range(chance.choice((0, 1, 1, 1, 1, 3))):
        row = {"id": f"{key}.{number}", "value": chance.randrange(1000)}
        if chance.random() < 0.1:
            row["other"] = chance.random()
        if chance.random() < 0.02:
            row["value"] = "\ud800"
        if chance.random() < 0.02:
            row["id"] = f"{chance.randrange(60)}.0"
        yield row


def stream(seed, opening):
    chance = random.Random(f"{seed} {opening}")
    keys = sorted(chance.sample(range(400), 60 + 60 * opening))
    items = [(key, str(chance.randrange(2)), seed) for key in keys]
    return penstock.keyed(items, key=lambda item: item[0], version=lambda item: item[1]).flat_map(
        rows_of, ordered=True, on_error="collect"
    )


async def content(path, seed):
    """What stands in the database after three runs; which commit a root was in, and so its id, is of the moment."""
    table = penstock.SqliteTable(path, "t", key="id")
    reports = []
    for opening in range(3):
        report = await stream(seed, opening).to(table, run="r", on_missing="delete" if opening == 1 else "keep")
        reports.append((report.delivered, report.dead, report.rows, report.already_done, report.redone, report.removed))
    with closing(sqlite3.connect(path)) as connection:
        roots = "SELECT key, version, state, position, times, rows FROM penstock_roots ORDER BY key"
        rows = "SELECT key, t.* FROM t JOIN penstock_roots AS roots ON roots.id = penstock_root ORDER BY t.rowid"
        dead = "SELECT key, stage, error, item FROM penstock_dead JOIN penstock_roots AS roots ON roots.id = root"
        cursor = connection.execute(rows)
        names = [name for name, *_ in cursor.description]
        found = [{name: row[name] for name in row if name != "penstock_root"} for row in named(names, cursor)]
        return reports, list(connection.execute(roots)), found, sorted(connection.execute(dead))


def named(names, rows):
    return [dict(zip(names, row, strict=True)) for row in rows]


@pytest.mark.real_time
@pytest.mark.parametrize("seed", range(8))
async def test_the_database_is_what_it_is_where_each_root_is_settled_by_itself(tmp_path, monkeypatch, seed):
    together = await content(tmp_path / "together.db", seed)
    monkeypatch.delattr(TableStore, "add")
    assert together == await content(tmp_path / "alone.db", seed)


@pytest.mark.real_time
async def test_new_roots_of_a_commit_are_two_statements(tmp_path, monkeypatch):
    """Four for each root cost more than all the rest of what a row costs."""
    statements = []
    for name in ("execute", "executemany"):
        of = getattr(Connection, name)
        monkeypatch.setattr(
            Connection, name, lambda self, *arguments, of=of: statements.append(arguments[0]) or of(self, *arguments)
        )
    source = penstock.keyed(range(5_000), key=lambda number: number).map(lambda number: {"n": number})
    report = await source.to(penstock.SqliteTable(tmp_path / "t.db", "t"), run="r")
    assert (report.delivered, report.rows) == (5_000, 5_000)
    assert len(statements) < 1_000


@pytest.mark.real_time
async def test_a_row_that_the_table_refuses_is_the_failure_of_its_root_among_new_ones(tmp_path):
    """The statement for all of them fails, and each is settled by itself."""
    columns = {"n": "INTEGER NOT NULL"}
    source = penstock.keyed(range(500), key=lambda number: number).map(lambda n: {"n": n if n % 100 != 7 else None})
    table = penstock.SqliteTable(tmp_path / "t.db", "t", columns=columns)
    report = await source.to(table, run="r", on_error="collect")
    assert (report.delivered, report.dead, report.rows) == (495, 5, 495)
    assert sorted(row["n"] for row in table.rows()) == [n for n in range(500) if n % 100 != 7]


@pytest.mark.real_time
async def test_who_is_woken_for_nothing_can_be_woken_again(tmp_path, monkeypatch):
    """A wake-up that came late, for what was committed meanwhile, left the thread asleep for ever."""
    has_work = Writer._has_work
    woken = []

    def for_nothing(self):
        there = has_work(self)
        if not there and len(woken) < 3:
            woken.append(self.loop.call_soon_threadsafe(self._wake))
        return there

    monkeypatch.setattr(Writer, "_has_work", for_nothing)
    source = penstock.keyed(range(3), key=lambda number: number).map(lambda number: {"n": number})
    assert (await source.to(penstock.SqliteTable(tmp_path / "t.db", "t"), run="r")).complete
    assert woken
