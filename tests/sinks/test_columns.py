"""Columns of tables: they come with the rows, in any order, or are declared; keys of several; how many there may be."""

import asyncio
import itertools
from contextlib import closing

import apsw
import pytest

import penstock
from penstock import OptionError, SqliteTable, SqliteVectors, durable
from penstock.durable import StoreError, delivery
from penstock.sinks import RowError

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


@pytest.fixture(params=["table", "vectors"])
def sink_of(request, tmp_path):
    """Makes a sink of either kind; its rows without what only one of them has."""
    if request.param == "table":
        return lambda name="t.db", **options: SqliteTable(tmp_path / name, "t", **options)

    def vectors(name="t.db", **options):
        if "columns" in options:
            options["columns"] = ["text", *options["columns"]]
        return SqliteVectors(tmp_path / name, **options)

    return vectors


def full(sink, row):
    return row if isinstance(sink, SqliteTable) else {**row, "text": "x", "vector": [1.0]}


def rows_of(sink):
    return [{name: value for name, value in row.items() if name not in {"text", "vector"}} for row in sink.rows()]


async def put(sink, roots, **options):
    source = penstock.keyed(roots.items(), key=lambda item: item[0], version=lambda item: repr(item[1]))
    rows = source.flat_map(lambda item: [full(sink, row) for row in item[1]])
    return await rows.to(sink, **{"run": "r"} | options)


@pytest.mark.quick
@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
async def test_a_new_column_is_added_whichever_root_ends_first(sink_of, order):
    sink = sink_of()
    rows = [{"x": 0}, {"x": 1, "note": "n"}, {"x": 2, "other": 1, "note": None}]
    ended = [asyncio.Event() for _ in range(4)]
    ended[0].set()

    async def row(number):
        await ended[order.index(number)].wait()
        ended[order.index(number) + 1].set()
        return full(sink, rows[number])

    stream = penstock.keyed(range(3), key=int).map(row, concurrency=3, ordered=False)
    assert (await stream.to(sink, run="r")).delivered == 3
    nothing = {"x": None, "note": None, "other": None}
    assert sorted(rows_of(sink), key=lambda row: row["x"]) == [nothing | row for row in rows]


async def test_old_rows_have_nothing_in_a_column_that_a_later_run_adds(sink_of):
    sink = sink_of()
    await put(sink, {"a": [{"x": 1}]})
    await put(sink, {"a": [{"x": 1}], "b": [{"y": 2}]})
    assert rows_of(sink) == [{"x": 1, "y": None}, {"x": None, "y": 2}]


@pytest.mark.parametrize("held", [10_000, 5])
async def test_columns_come_within_a_root_that_waits_in_the_database_too(sink_of, monkeypatch, held):
    monkeypatch.setattr(delivery, "HELD", held)
    sink = sink_of()
    report = await put(sink, {"a": [{"x": n, f"c{n % 7}": n} for n in range(40)]})
    assert (report.rows, report.delivered) == (40, 1)
    assert [row["x"] for row in rows_of(sink)] == [*range(40)]
    assert all(row[f"c{row['x'] % 7}"] == row["x"] for row in rows_of(sink))


async def test_a_column_of_a_root_that_fails_is_not_added(tmp_path):
    """It is made in the transaction of its row."""
    table = SqliteTable(tmp_path / "t.db", "t", key="id")
    roots = {"a": [{"id": 1}], "b": [{"id": 1, "new": 2}], "c": [{"id": 3}]}
    report = await put(table, roots, on_error="collect")
    assert (report.delivered, report.dead) == (2, 1)
    assert list(table.rows()) == [{"id": 1}, {"id": 3}]


async def test_names_that_differ_only_in_case_are_one_column(sink_of):
    sink = sink_of()
    await put(sink, {"a": [{"Name": 1}], "b": [{"name": 2}], "c": [{"NAME": 3, "É": 1}], "d": [{"é": 2}]})
    assert rows_of(sink) == [
        {"Name": 1, "É": None, "é": None},
        {"Name": 2, "É": None, "é": None},
        {"Name": 3, "É": 1, "é": None},
        {"Name": None, "É": None, "é": 2},
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1, "A": 2},
        {"penstock_root": 1},
        {"Penstock_Root": 1},
        {"a\0": 1},
        {"\ud800": 1},
        {3: 1},
        {None: 1},
        {("a",): 1},
        {"rowid": 1, "oid": 2, "_rowid_": 3},
        {"x": 2, "RowID": 1},
        {"x": 2, "oid": 1},
        {f"c{n}": n for n in range(2_000)},
    ],
    ids=lambda row: ascii(next(iter(row))),
)
async def test_a_row_with_columns_that_cannot_be_fails_with_its_root(sink_of, row):
    sink = sink_of()
    if isinstance(sink, SqliteVectors) and "_rowid_" in row:
        pytest.skip("rows of an index have a number of their own")
    await put(sink, {"a": [{"x": 1}]})
    report = await put(sink, {"a": [{"x": 1}], "b": [row], "c": [{"x": 3}]}, on_error="collect")
    assert (report.delivered, report.dead, report.complete) == (1, 1, True)
    assert rows_of(sink) == [{"x": 1}, {"x": 3}]


@pytest.mark.slow
async def test_more_columns_than_a_table_can_have_are_told(sink_of):
    """Each row has few, together they have too many: whose row is one too many fails, and rows of old columns go on."""
    sink = sink_of()
    roots = {n: [{f"c{n}_{k}": k for k in range(100)}] for n in range(21)} | {99: [{"c0_1": 1}]}
    report = await put(sink, roots, on_error="collect")
    assert report.delivered + report.dead == 22
    assert report.dead in {1, 2}
    for root in durable.dead_roots(sink.path):
        assert "cannot have more than 1,99" in root.letters[0].error
    assert rows_of(sink)[-1]["c0_1"] == 1


# Declared


async def test_declared_columns_are_made_and_others_fail_with_their_root(sink_of):
    sink = sink_of(columns=["x", "y"])
    report = await put(sink, {"a": [{"x": 1}], "b": [{"x": 1, "z": 2}], "c": [{"Y": 2}]}, on_error="collect")
    assert (report.delivered, report.dead) == (2, 1)
    assert rows_of(sink) == [{"x": 1, "y": None}, {"x": None, "y": 2}]
    (root,) = durable.dead_roots(sink.path)
    assert "a row has the column 'z', which is not among the columns that are declared" in root.letters[0].error


async def test_declared_columns_are_there_without_a_row(tmp_path):
    table = SqliteTable(tmp_path / "t.db", "t", columns={"id": "INTEGER", "name": "text not null"}, key="id")
    await put(table, {"a": []})
    with closing(apsw.Connection(table.path)) as connection:
        found = [(name, kind, bool(needed)) for _, name, kind, needed, *_ in connection.execute("PRAGMA table_info(t)")]
    assert found == [("penstock_root", "INTEGER", True), ("id", "INTEGER", True), ("name", "TEXT", True)]


async def test_types_that_are_declared_are_held(tmp_path):
    kinds = {"n": "INTEGER", "r": "REAL", "t": "TEXT NOT NULL", "b": "BLOB", "any": "ANY"}
    table = SqliteTable(tmp_path / "t.db", "t", columns=kinds)
    good = {"n": 1, "r": 2, "t": "x", "b": b"y", "any": "z"}
    bad = [{"n": "x"}, {"n": 1.5}, {"r": "x"}, {"t": None}, {"t": b"x"}, {"b": "x"}]
    roots = {0: [good], **{n: [good | row] for n, row in enumerate(bad, 1)}, 90: [good], 91: [{"n": 1}]}
    report = await put(table, roots, on_error="collect")
    assert (report.delivered, report.dead, report.complete) == (2, len(bad) + 1, True)
    assert list(table.rows()) == [good, good]
    for root in durable.dead_roots(table.path):
        assert root.letters[0].stage == "SqliteTable"
        assert "cannot store" in root.letters[0].error or "NOT NULL constraint failed" in root.letters[0].error
    with pytest.raises(RowError, match="cannot store TEXT value in INTEGER column"):
        await put(table, {"z": [good | {"n": "x"}]})


async def test_a_table_that_is_there_gets_the_columns_that_are_declared(sink_of):
    await put(sink_of(), {"a": [{"x": 1}]})
    sink = sink_of(columns=["y", "x"])
    await put(sink, {"a": [{"x": 1}], "b": [{"y": 2}]})
    assert rows_of(sink) == [{"x": 1, "y": None}, {"x": None, "y": 2}]
    with pytest.raises(RowError, match="a row has the column 'z'"):
        await put(sink, {"c": [{"z": 1}]})
    await put(sink_of(), {"c": [{"z": 1}]})
    assert len(rows_of(sink)) == 3


async def test_a_table_of_other_types_is_refused(tmp_path):
    await put(SqliteTable(tmp_path / "t.db", "t", columns={"x": "TEXT"}), {"a": [{"x": "1"}]})
    with pytest.raises(StoreError, match="the column 'x' of the table t is TEXT, columns says INTEGER"):
        await put(SqliteTable(tmp_path / "t.db", "t", columns={"x": "INTEGER"}), {})
    with pytest.raises(StoreError, match=r"a column cannot be added to t: .*NOT NULL"):
        await put(SqliteTable(tmp_path / "t.db", "t", columns={"x": "TEXT", "y": "TEXT NOT NULL"}), {})
    assert list(SqliteTable(tmp_path / "t.db", "t").rows()) == [{"x": "1"}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("x", "columns must be names, or a mapping of names to INTEGER, .* got 'x'"),
        (3, "columns must be names, .* got 3"),
        ([], "columns must be names, .* got none"),
        ({}, "columns must be names, .* got none"),
        ([1], "the name of a column must be a str, got 1"),
        (["a", "A"], "columns must differ in more than upper and lower case"),
        (["a", "a"], "columns must differ"),
        (["\ud800"], "columns: the name of a column must be text that UTF-8 can hold"),
        ({"a": "VARCHAR(20)"}, r"got 'VARCHAR\(20\)' for 'a'"),
        ({"a": "TEXT REFERENCES other"}, "got 'TEXT REFERENCES other' for 'a'"),
        ({"a": "TEXT)) --"}, "for 'a'"),
        ({"a": int}, "got <class 'int'> for 'a'"),
        ({"a": ""}, "got '' for 'a'"),
        (["penstock_root"], "columns: a column must not be called 'penstock_root', which says"),
    ],
)
def test_bad_declarations_are_refused(tmp_path, columns, message):
    with pytest.raises(OptionError, match=message):
        SqliteTable(tmp_path / "t.db", "t", columns=columns)


def test_declarations_of_an_index_have_a_text_and_nothing_of_its_own(tmp_path):
    for columns, message in (
        (["x"], "columns must have 'text', got 'x'"),
        (["text", "ID"], "columns must not have 'ID', which the index has itself"),
        (["text", "Vector"], "columns must not have 'Vector'"),
    ):
        with pytest.raises(OptionError, match=message):
            SqliteVectors(tmp_path / "t.db", columns=columns)


async def test_more_columns_than_can_be_are_refused(tmp_path):
    table = SqliteTable(tmp_path / "t.db", "t", columns=[f"c{n}" for n in range(2_000)])
    with pytest.raises(OptionError, match="columns must be at most 1,999, got 2,000"):
        await put(table, {})


# Keys of several columns


@pytest.mark.parametrize("declared", [None, {"b": "TEXT", "a": "INTEGER", "x": "ANY"}])
async def test_a_key_of_several_columns(tmp_path, declared):
    table = SqliteTable(tmp_path / "t.db", "t", key=["a", "b"], columns=declared)
    same = {"a": 1, "b": "y"}
    roots = {
        0: [{"a": 1, "b": "x"}, same, {"a": 2, "b": "x"}],
        1: [same | {"x": 1}],
        2: [{"b": "q", "a": 9}, {"a": 9, "b": "q"}],
        3: [{"a": 1}],
        4: [{"a": None, "b": "x"}],
        5: [{"a": 5, "b": "x"}],
    }
    report = await put(table, roots, on_error="collect")
    assert (report.delivered, report.dead, report.complete) == (2, 4, True)
    errors = {root.key: root.letters[0].error for root in durable.dead_roots(table.path)}
    must = "RowError: the key columns 'a', 'b' must differ in every row, got "
    assert errors[1] == f"{must}(1, 'y'), which a row of root 0 has"
    assert errors[2] == f"{must}(9, 'q'), which another row of this root has"
    assert errors[3] == "RowError: a row lacks the key column 'b', it has 'a'"
    assert errors[4].startswith("RowError: the key column 'a' must have a value in every row, got {'a': None")
    again = SqliteTable(tmp_path / "t.db", "t", key=["b", "a"])
    assert (await put(again, {6: [{"a": 6, "b": "x"}]})).delivered == 1


async def test_a_table_that_is_there_gets_a_key_of_several_columns(tmp_path):
    plain = SqliteTable(tmp_path / "t.db", "t")
    await put(plain, {"a": [{"a": 1, "b": 1}, {"a": 1, "b": 2}]})
    with pytest.raises(StoreError, match="the column 'a' cannot be the key of the table t: 2 of its rows have 1 there"):
        await put(SqliteTable(tmp_path / "t.db", "t", key="a"), {})
    table = SqliteTable(tmp_path / "t.db", "t", key=("a", "b"))
    with pytest.raises(RowError, match=r"the key columns 'a', 'b' must differ in every row, got \(1, 2\), which a row"):
        await put(table, {"a": [{"a": 1, "b": 1}, {"a": 1, "b": 2}], "b": [{"a": 1, "b": 2}]})
    await put(plain, {"c": [{"a": 1, "b": 3}, {"a": None, "b": 3}]})
    with pytest.raises(StoreError, match="the table t has no column 'd', which is to be its key"):
        await put(SqliteTable(tmp_path / "t.db", "t", key=["a", "d"]), {})


async def test_rows_move_between_roots_under_a_key_of_several(tmp_path):
    table = SqliteTable(tmp_path / "t.db", "t", key=["a", "b"])
    one, two = {"a": 1, "b": 1}, {"a": 1, "b": 2}
    await put(table, {"x": [one], "y": [two]})
    report = await put(table, {"x": [two], "y": [one]})
    assert (report.redone, report.complete) == (2, True)
    report = await put(table, {"z": [one, two]}, on_missing="delete")
    assert (report.removed, report.complete) == (2, True)
    assert list(table.rows()) == [one, two]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ([], r"key must be the name of a column, or several, got \[\]"),
        (3, "key must be the name of a column, or several, got 3"),
        (["a", 3], "key must be a non-empty str, got 3"),
        (["a", "A"], "key must not have a column twice"),
        ("Penstock_Root", "key: a column must not be called 'Penstock_Root', which says"),
        ({"a"}, "key must be the name of a column, or several"),
        ("", "key must be a non-empty str, got ''"),
    ],
)
def test_bad_keys_are_refused(tmp_path, key, message):
    with pytest.raises(OptionError, match=message):
        SqliteTable(tmp_path / "t.db", "t", key=key)


def test_a_key_that_is_not_declared_is_refused(tmp_path):
    with pytest.raises(OptionError, match="columns must have those of the key, got none for 'id'"):
        SqliteTable(tmp_path / "t.db", "t", key="id", columns=["x"])


# What only the database can say


async def test_a_constraint_of_somebody_else_fails_the_root_and_no_other(tmp_path):
    table = SqliteTable(tmp_path / "t.db", "t")
    await put(table, {0: [{"x": 0, "y": 0}]})
    with closing(apsw.Connection(table.path)) as connection:
        connection.execute("CREATE UNIQUE INDEX own ON t (x)")
    roots = {n: [{"x": n % 6, "y": n}] for n in range(12)}
    report = await put(table, roots, on_error="collect")
    assert (report.delivered, report.dead, report.complete) == (5, 6, True)
    assert sorted(row["x"] for row in table.rows()) == [*range(6)]
    (letter,) = durable.dead_roots(table.path)[0].letters
    assert "UNIQUE constraint failed: t.x" in letter.error
    assert (letter.item, letter.stage) == ("{'x': 0, 'y': 6}", "SqliteTable")
    assert report.failures[0].item == {"x": 0, "y": 6}


@pytest.mark.parametrize("on_dead", ["keep", "remove"])
@pytest.mark.parametrize("bad", [{"v": 2j}, {"id": 1, "v": 0}, {"w": 1}, {"id": None}], ids=str)
async def test_a_changed_root_whose_rows_are_refused_keeps_or_loses_its_old_ones(tmp_path, on_dead, bad):
    table = SqliteTable(tmp_path / "t.db", "t", key="id", columns=["id", "v"])
    old = {1: [{"id": 1, "v": 1}], 2: [{"id": 2, "v": 2}, {"id": 3, "v": 3}]}
    await put(table, old)
    new = old | {2: [{"id": 4, "v": 4}, {"id": 5} | bad]}
    options = {"on_error": "collect", "on_dead": on_dead}
    report = await put(table, new, **options)
    assert (report.dead, report.redone, report.complete) == (1, 1, True)
    assert [row["id"] for row in table.rows()] == ([1, 2, 3] if on_dead == "keep" else [1])
    assert durable.runs(table.path)[0].rows == len(list(table.rows()))
    again = await put(table, new, **options)
    assert (again.dead_before, again.complete) == (1, True)
    report = await put(table, old | {2: [{"id": 6, "v": 6}]}, **options)
    assert (report.delivered, [row["id"] for row in table.rows()]) == (1, [1, 6])


async def test_vectors_of_another_length_fail_with_their_roots(tmp_path):
    index = SqliteVectors(tmp_path / "t.db")
    vectors = {
        "a": [1, 2],
        "b": [1],
        "c": [3, 4],
        "d": [float("nan"), 1],
        "e": [float("inf"), 1],
        "f": "x",
        "g": [1e300, 1],
    }
    source = penstock.keyed(vectors, key=str).map(lambda key: {"text": key, "vector": vectors[key]}, on_error="collect")
    report = await source.to(index, run="r")
    assert (report.delivered, report.dead, report.complete) == (2, 5, True)
    assert sorted(row["text"] for row in index.rows()) == ["a", "c"]
    assert len(index.nearest([1, 2])) == 2


async def test_a_first_root_that_fails_decides_nothing_for_the_others(tmp_path):
    """Neither how long vectors are nor which columns there are."""
    index = SqliteVectors(tmp_path / "t.db")
    rows = {
        "a": [{"vector": [1, 2, 3], "odd": 1, "text": "x"}, {"vector": [1], "text": "y"}],
        "b": [{"vector": [1], "text": "z"}],
    }
    report = await put_rows(index, rows, on_error="collect")
    assert (report.delivered, report.dead) == (1, 1)
    assert index.made().dimensions == 1
    assert [sorted(row) for row in index.rows()] == [["text", "vector"]]


async def put_rows(sink, roots, **options):
    return await penstock.keyed(roots, key=str).flat_map(lambda key: roots[key]).to(sink, run="r", **options)


@pytest.mark.parametrize("columns", [None, ["Id", "v"], {"ID": "INTEGER", "v": "ANY"}])
async def test_the_case_of_letters_is_nothing_in_a_key_either(tmp_path, columns):
    """Names that differ only there are one column: in rows, in `columns=`, in a table that is there."""
    table = SqliteTable(tmp_path / "t.db", "t", key="id", columns=columns)
    report = await put(table, {"a": [{"ID": 1}], "b": [{"id": 2}], "c": [{"iD": 1}]}, on_error="collect")
    assert (report.delivered, report.dead) == (2, 1)
    assert (
        "must differ in every row, got 1, which a row of root 'a' has"
        in durable.dead_roots(table.path)[0].letters[0].error
    )
    again = SqliteTable(table.path, "t", key="ID")
    assert (await put(again, {"a": [{"ID": 1}], "b": [{"id": 2}], "c": [{"iD": 3}]})).delivered == 1
    with closing(apsw.Connection(table.path)) as connection:
        assert len(list(connection.execute("PRAGMA index_list(t)"))) == 2


def test_reserved_names_are_refused_at_once(tmp_path):
    """Not row by row."""
    for options in ({"key": "PENSTOCK_root"}, {"columns": ["rowid", "OID", "_rowid_"]}):
        with pytest.raises(OptionError):
            SqliteTable(tmp_path / "t.db", "t", **options)


async def test_a_key_in_a_row_of_no_run_is_told_as_such(tmp_path):
    """The rows of a run that was forgotten are in the way of the next one; the letter is no chain of tracebacks."""
    table = SqliteTable(tmp_path / "t.db", "t", key="x")
    await put(table, {"a": [{"x": 1}]})
    durable.forget(table, run="r")
    assert (await put(table, {"a": [{"x": 1}]}, on_error="collect")).dead == 1
    (letter,) = durable.dead_roots(table.path)[0].letters
    assert letter.error == "RowError: the key column 'x' must differ in every row, got 1, which a row of no run has"
    assert "During handling" not in letter.traceback
