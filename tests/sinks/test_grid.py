"""Pairs of what sinks and ends of durable runs can be told: together they come to the rows of plain code."""

import itertools

import apsw
import pytest

import penstock
from penstock import SqliteTable, durable
from penstock.durable import delivery

pytestmark = pytest.mark.real_time

KEYS = {"no key": None, "key": "id", "keys": ("id", "kind")}
COLUMNS = {
    "any": None,
    "named": ["id", "kind", "a", "b"],
    "typed": {"id": "INTEGER", "kind": "TEXT", "a": "ANY", "b": "REAL"},
}
BAD = {"value": {"a": 1j}, "key": {"id": None}, "column": {"penstock_root": 1}, "twice": {"id": 0}}


def rows_of(name, version, size):
    """Rows of a root: of every other one a column more in the second version."""
    for number in range(size):
        row = {"id": 1_000 * (ord(name) - 96) + number, "kind": name}
        yield row | ({"a": version} if number % 2 else {}) | ({"b": 0.5} if version == 2 and number % 3 == 0 else {})


@pytest.mark.slow
@pytest.mark.parametrize(("held", "size"), [(10_000, 4), (7, 40)], ids=["held", "staged"])
@pytest.mark.parametrize("on_dead", ["keep", "remove"])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("columns", COLUMNS)
async def test_changed_roots_new_columns_keys_and_failures_in_every_pair(
    tmp_path, monkeypatch, held, size, on_dead, key, columns
):
    """Three roots change; one becomes bad, in each way; the rows are those of the versions that stand."""
    monkeypatch.setattr(delivery, "HELD", held)
    for way, bad in BAD.items():
        if key == "no key" and way in {"key", "twice"}:
            continue
        table = SqliteTable(tmp_path / f"{way}.db", "t", key=KEYS[key], columns=COLUMNS[columns])

        def run(version, bad, table=table, **options):
            def rows(name, version=version, bad=bad):
                yield from rows_of(name, version, size)
                if bad and name == "b":
                    yield {"id": -1, "kind": "b"} | bad
                    yield {"id": 0, "kind": "b"}

            source = penstock.keyed("abc", key=str, version=lambda _: f"{version} {bad}")
            stream = source.flat_map(rows, concurrency=2, ordered=False, name="rows", on_error="collect")
            return stream.to(table, run="r", on_dead=on_dead, **options)

        assert (await run(1, None)).delivered == 3
        report = await run(2, bad, limit=2)
        assert (report.limited, report.delivered + report.dead) == (True, 2)
        report = await run(2, bad)
        assert (report.complete, report.delivered + report.dead + report.already_done + report.dead_before) == (True, 3)
        assert [root.key for root in durable.dead_roots(table.path)] == ["b"]
        versions = {"a": 2, "c": 2} | ({"b": 1} if on_dead == "keep" else {})
        wanted = [row for each, version in versions.items() for row in rows_of(each, version, size)]
        assert sorted(map(plain, table.rows())) == sorted(map(plain, wanted))
        assert durable.runs(table.path)[0].rows == len(wanted)
        assert (await run(3, None)).delivered == 3
        wanted = [row for each in "abc" for row in rows_of(each, 3, size)]
        assert sorted(map(plain, table.rows())) == sorted(map(plain, wanted))


def plain(row):
    return sorted((name, str(value)) for name, value in row.items() if value is not None)


@pytest.mark.parametrize(("limit", "twice"), [*itertools.product([None, 2, 5], [False, True])])
async def test_limits_and_doubled_keys_of_merged_sources_with_memo_and_new_columns(tmp_path, limit, twice):
    table, calls = SqliteTable(tmp_path / "t.db", "t"), []

    def row(number):
        calls.append(number)
        return {"n": number, f"c{number}": number}

    def source(name):
        return penstock.keyed([*range(4), *([1, 3] if twice else [])], key=int, name=name)

    stream = source("a").merge(source("b")).map(row, memo=True, deps=0)
    for _ in range(6):
        report = await stream.to(table, run="r", on_duplicate="first", limit=limit)
        if report.complete:
            break
        assert (report.limited, report.delivered) == (True, limit)
    assert report.complete
    assert report.duplicates == (4 if twice else 0)
    assert sorted(row["n"] for row in table.rows()) == sorted([*range(4)] * 2)
    assert all(row[f"c{row['n']}"] == row["n"] for row in table.rows())
    assert len(calls) <= 8


@pytest.mark.parametrize("kind", ["table", "vectors"])
async def test_a_row_of_more_bytes_than_sqlite_can_store_fails_with_its_root(tmp_path, monkeypatch, kind):
    sink = SqliteTable(tmp_path / "t.db", "t") if kind == "table" else penstock.SqliteVectors(tmp_path / "t.db")
    opened = sink.open("process")
    store = type(opened)
    opened.close()
    prepare = store.prepare

    def with_a_limit(self):
        prepare(self)
        self.connection.limit(apsw.SQLITE_LIMIT_LENGTH, 200_000)

    monkeypatch.setattr(store, "prepare", with_a_limit)
    source = penstock.keyed(range(4), key=int)
    rows = source.map(
        lambda n: {"n": n, "text": "x" * (300_000 if n == 2 else 9), "vector": [1.0, n]}, on_error="collect"
    )
    if kind == "table":
        rows = rows.map(lambda row: {"n": row["n"], "text": row["text"]})
    report = await rows.to(sink, run="r")
    assert (report.delivered, report.dead, report.complete) == (3, 1, True)
    assert sorted(row["n"] for row in sink.rows()) == [0, 1, 3]
    (letter,) = durable.dead_roots(sink.path)[0].letters
    assert "bytes" in letter.error
