"""New roots of one commit are settled together: the database is what it is where each is settled by itself."""

import asyncio
import random
import sqlite3
from contextlib import closing
from itertools import batched, count

import pytest

import penstock
from penstock.durable.delivery import Deliverer
from penstock.durable.roots import Bundle
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


@pytest.mark.slow
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


def plain_rows(seed, opening):
    """Rows as a CSV file has them, and some that are not: each kind that has to be looked at by itself."""
    chance = random.Random(f"{seed} {opening}")
    numbers = sorted(chance.sample(range(1_000), 200 + 200 * opening))
    if seed % 2:
        numbers = [number for part in batched(numbers, 40) for number in chance.sample(part, len(part))]
    for number in numbers:
        odd = random.Random(f"{seed} {number}").random() * (12 if seed > 1 else 1_000)
        row = {"id": number, "text": f"text {number}", "value": odd}
        if odd < 0.02:
            row |= {"more": number}
        elif odd < 0.04:
            row |= {"text": "\ud800"}
        elif odd < 0.06:
            row |= {"value": float("nan")}
        elif odd < 0.08:
            row |= {"text": "x" * 5_000}
        elif odd < 0.10:
            row |= {"text": "\xe9", "value": None}
        elif odd < 0.12:
            row |= {"id": None if odd < 0.11 else number // 10}
        elif odd < 0.14:
            row = {"value": 2**64 if odd < 0.13 else [number], "id": number}
        yield str(number), row


async def as_it_is(row):
    if row["value"] < 3:
        await asyncio.sleep(0)
    return row


async def content_of_plain_rows(path, seed, *, mapped=False):
    reports = []
    for opening in range(2):
        source = penstock.keyed(
            [row | {"key": key} for key, row in plain_rows(seed, opening)], key=lambda row: int(row["key"])
        )
        if mapped:
            source = source.map(as_it_is, concurrency=50, on_error="collect")
        table = penstock.SqliteTable(path, "t", key="id")
        reports.append(await source.to(table, run="r", on_error="collect"))
    with closing(sqlite3.connect(path)) as connection:
        roots = "SELECT key, version, state, position, times, rows FROM penstock_roots ORDER BY key"
        rows = "SELECT roots.key, t.id, text, value FROM t JOIN penstock_roots AS roots ON roots.id = penstock_root"
        dead = "SELECT key, stage, error, item FROM penstock_dead JOIN penstock_roots AS roots ON roots.id = root"
        counts = [(each.delivered, each.dead, each.rows, each.already_done) for each in reports]
        stages = [[(stage.name, stage.taken, stage.delivered) for stage in each.stats.stages] for each in reports]
        return counts, stages, *(sorted(connection.execute(query), key=repr) for query in (roots, rows, dead))


@pytest.mark.real_time
@pytest.mark.parametrize("seed", range(6))
async def test_rows_that_are_taken_together_come_to_what_each_comes_to_by_itself(tmp_path, monkeypatch, seed):
    taken = []
    take = Deliverer._take_bundle
    monkeypatch.setattr(Deliverer, "_take_bundle", lambda self, bundle: taken.append(len(bundle)) or take(self, bundle))
    together = await content_of_plain_rows(tmp_path / "together.db", seed)
    assert seed % 2 or sum(taken) > 100
    monkeypatch.delattr(TableStore, "accept_all")
    assert together == await content_of_plain_rows(tmp_path / "alone.db", seed)


@pytest.mark.real_time
@pytest.mark.parametrize("seed", range(4))
async def test_results_that_are_taken_together_come_to_what_each_comes_to_by_itself(tmp_path, monkeypatch, seed):
    taken = []
    of = Bundle.of
    monkeypatch.setattr(Bundle, "of", lambda roots, rows, weight: taken.append(len(roots)) or of(roots, rows, weight))
    together = await content_of_plain_rows(tmp_path / "together.db", seed, mapped=True)
    assert sum(taken) > 100
    monkeypatch.delattr(TableStore, "accept_all")
    assert together == await content_of_plain_rows(tmp_path / "alone.db", seed, mapped=True)


async def later(number):
    await asyncio.sleep(number % 3 / 100)
    return {"n": number}


@pytest.mark.real_time
async def test_results_that_are_taken_together_stand_in_the_order_of_the_source(tmp_path):
    """P3: those of roots of one row, which need no look, and those of roots of several."""
    source = penstock.keyed(range(0, 900, 3), key=lambda number: number)
    rows = source.flat_map(lambda n: range(n, n + (3 if n % 60 == 3 else 1)), ordered=True).map(
        later, concurrency=64, ordered=True
    )
    table = penstock.SqliteTable(tmp_path / "t.db", "t")
    report = await rows.to(table, run="r")
    assert (report.delivered, report.rows) == (300, 330)
    found = [row["n"] for row in table.rows()]
    assert found == sorted(found)
    assert len(set(found)) == 330


@pytest.mark.real_time
async def test_a_root_of_which_something_has_failed_is_dead_though_the_rest_of_it_comes_with_others(tmp_path):
    async def row(part):
        if part[1] == "bad":
            raise ValueError(part)
        await asyncio.sleep(0)
        return {"n": part[0]}

    source = penstock.keyed(range(100), key=lambda number: number).flat_map(
        lambda n: [(n, "good"), (n, "bad")][: 1 + n % 2]
    )
    table = penstock.SqliteTable(tmp_path / "t.db", "t")
    report = await source.map(row, concurrency=50, on_error="collect").to(table, run="r")
    assert (report.delivered, report.dead, report.rows) == (50, 50, 50)
    assert sorted(row["n"] for row in table.rows()) == list(range(0, 100, 2))


@pytest.mark.real_time
async def test_results_behind_one_that_the_table_refuses_are_done_by_the_next_run(tmp_path):
    """They were taken together with it: none is lost, none is there twice."""
    table = penstock.SqliteTable(tmp_path / "t.db", "t")
    refused = {70}

    async def row(number):
        return {"n": 2**64 if number in refused else number}

    source = penstock.keyed(range(200), key=lambda number: number).map(row, concurrency=50)
    with pytest.raises(penstock.PenstockError):
        await source.to(table, run="r")
    assert all(row["n"] < 200 for row in table.rows())
    refused.clear()
    assert (await source.to(table, run="r")).complete
    assert sorted(row["n"] for row in table.rows()) == list(range(200))


@pytest.mark.real_time
async def test_rows_before_one_whose_key_cannot_be_told_are_stored(tmp_path):
    """They were read together with it."""
    table = penstock.SqliteTable(tmp_path / "t.db", "t")
    source = penstock.keyed([{"n": n} for n in range(500)], key=lambda row: row["n"] if row["n"] < 300 else row["m"])
    with pytest.raises(KeyError):
        await source.to(table, run="r")
    assert [row["n"] for row in table.rows()] == list(range(300))


@pytest.mark.real_time
async def test_a_duplicate_among_rows_that_are_taken_together_is_named(tmp_path):
    keys = [*range(40), 35, *range(40, 80)]
    source = penstock.keyed([{"n": n} for n in keys], key=lambda row: row["n"])
    with pytest.raises(penstock.DuplicateKeyError, match="35 stands twice in the source: at item 35 and at item 40"):
        await source.to(penstock.SqliteTable(tmp_path / "t.db", "t"), run="r")


@pytest.mark.real_time
async def test_no_row_is_read_behind_one_of_more_than_a_kilobyte(tmp_path, monkeypatch):
    """P7: what is taken together is 64 kilobytes, and one row of any size."""
    read, sizes = [], []
    take = Deliverer._take_bundle

    def rows():
        for n in range(300):
            read.append(n)
            yield {"n": n, "text": "x" * (10_000 if n % 100 == 50 else 1)}

    def taken(self, bundle):
        sizes.append((len(bundle), bundle.weight, read[-1] - bundle.positions[-1]))
        return take(self, bundle)

    monkeypatch.setattr(Deliverer, "_take_bundle", taken)
    source = penstock.keyed(rows, key=lambda row: row["n"])
    report = await source.to(penstock.SqliteTable(tmp_path / "t.db", "t"), run="r")
    assert report.rows == 300
    assert {weight - number for number, weight, _ in sizes} <= {0, 10}
    assert {ahead for _, _, ahead in sizes} == {0}


@pytest.mark.real_time
async def test_a_trial_run_takes_no_more_than_its_limit_together(tmp_path):
    read = []
    source = penstock.keyed(lambda: (read.append(n) or {"n": n} for n in range(500)), key=lambda row: row["n"])
    report = await source.to(penstock.SqliteTable(tmp_path / "t.db", "t"), run="r", limit=100)
    assert (report.delivered, len(read)) == (100, 100)


@pytest.mark.real_time
@pytest.mark.parametrize("counted", [True, False])
async def test_a_source_that_fills_one_row_anew_for_each_item_is_read_item_by_item(tmp_path, counted):
    """As a reader that saves memory does: what is read together would be the last row so many times."""
    numbers = count()

    def rows():
        row = {}
        for n in range(200):
            row["n"] = n
            yield row

    source = penstock.keyed(rows, key=lambda row: next(numbers) if counted else row["n"])
    table = penstock.SqliteTable(tmp_path / "t.db", "t")
    await source.to(table, run="r")
    assert [row["n"] for row in table.rows()] == list(range(200))


@pytest.mark.real_time
async def test_text_of_all_languages_and_columns_that_hold_a_mixture_are_taken_together(tmp_path, monkeypatch):
    """Else one row of 64 that is in French would have all of them looked at one by one."""
    apart = []
    take = Deliverer._take
    monkeypatch.setattr(Deliverer, "_take", lambda self, item: apart.append(item) or take(self, item))
    values = [1, 2.5, None, "", "\xe9", "\u4e2d\U0001f600", True, -(2**63), 1e18]
    rows = [{"n": f"\xe9{n:04}", "value": values[n % 9], "text": values[3 + n % 3]} for n in range(200)]
    table = penstock.SqliteTable(tmp_path / "t.db", "t")
    report = await penstock.keyed(rows[:-1], key=lambda row: row["n"]).to(table, run="r")
    assert report.rows == 199
    assert [*table.rows()] == rows[:-1]
    assert len(apart) == 1
