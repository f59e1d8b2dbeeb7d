"""`SqliteTable`: what a row may be, and what comes back."""

import array
import math
from contextlib import closing

import apsw
import numpy as np
import pytest

import penstock
from penstock import OptionError, SqliteTable, durable
from penstock.durable.store_errors import StoreError
from penstock.durable.writer import Writer
from penstock.sinks.table import TableStore

pytestmark = pytest.mark.real_time


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.db"


async def put(table, roots, run="rows", **options):
    """Store rows by root."""
    source = penstock.keyed(roots.items(), key=lambda item: item[0], version=lambda item: repr(item[1]))
    return await source.flat_map(lambda item: item[1]).to(table, run=run, **options)


VALUES = {
    "nothing": None,
    "whole": -(2**63),
    "real": 0.5,
    "text": "ä\x00b",
    "raw": b"\x00\xff",
    "json": [1, {"a": None}],
}


async def test_rows_come_back_as_they_were_given(path):
    table = SqliteTable(path, "t")
    await put(table, {"a": [VALUES, dict.fromkeys(VALUES)], "b": [VALUES]})
    given = VALUES | {"json": '[1, {"a": null}]'}
    assert list(table.rows()) == [given, dict.fromkeys(VALUES), given]


async def test_a_bool_is_a_number_and_nan_is_null(path):
    table = SqliteTable(path, "t")
    await put(table, {"a": [{"yes": True, "nan": math.nan}]})
    assert list(table.rows()) == [{"yes": 1, "nan": None}]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.int64(3), 3),
        (np.uint8(255), 255),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.bool_(1), 1),
        (np.str_("ä"), "ä"),
        (np.bytes_(b"x"), b"x"),
        (np.float32(math.nan), None),
    ],
    ids=repr,
)
async def test_a_number_of_numpy_is_one_of_python(path, given, found):
    table = SqliteTable(path, "t")
    await put(table, {"a": [{"x": given}]})
    assert list(table.rows()) == [{"x": found}]


async def test_whatever_holds_bytes_comes_back_as_bytes(path):
    table = SqliteTable(path, "t")
    await put(table, {"a": [{"x": bytearray(b"x")}, {"x": memoryview(b"y")}]})
    assert list(table.rows()) == [{"x": b"x"}, {"x": b"y"}]


async def test_a_row_may_lack_columns_and_have_them_in_another_order(path):
    table = SqliteTable(path, "t")
    await put(table, {"a": [{"x": 1, "y": 2}, {"y": 3}, {"y": 4, "x": 5}]})
    assert list(table.rows()) == [{"x": 1, "y": 2}, {"x": None, "y": 3}, {"x": 5, "y": 4}]


async def test_names_are_quoted(path):
    table = SqliteTable(path, 'from "here"', key='select "1"')
    row = {'select "1"': 1, "drop table": 2, "--": 3}
    await put(table, {"a": [row]})
    await put(table, {"a": [row | {"--": 4}]})
    assert list(table.rows()) == [row | {"--": 4}]


async def test_two_tables_and_runs_share_a_database(path):
    one, two = SqliteTable(path, "one"), SqliteTable(path, "two")
    await put(one, {"a": [{"x": 1}]}, run="first")
    await put(two, {"a": [{"y": 2}]}, run="second")
    await put(one, {"a": [{"x": 3}]}, run="first")
    assert (list(one.rows()), list(two.rows())) == ([{"x": 3}], [{"y": 2}])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (3, "a row must be a mapping of columns to values, got 3"),
        ({}, "a row must have a column, got {}"),
        ({1: 2}, "the name of a column must be a str, got 1"),
        ({"x": 1, "X": 2}, "columns must differ in more than upper and lower case, got x, X"),
        ({"penstock_root": 1}, "a row must have no column 'penstock_root'"),
        ({"PENSTOCK_ROOT": 1}, "a row must have no column 'penstock_root'"),
        ({"a\0b": 1}, r"the name of a column must be text that UTF-8 can hold, without NUL, got 'a\\x00b'"),
        ({"\ud800": 1}, r"the name of a column must be text that UTF-8 can hold, without NUL, got '\\ud800'"),
        ({"x": 2**63}, "the column 'x' must have .* got 9223372036854775808"),
        ({"x": "\ud800"}, r"the column 'x' must have .* got '\\ud800'"),
        ({"x": np.array([1.5])}, r"the column 'x' must have .* got array\(\[1\.5\]\)"),
        ({"x": np.longdouble(1)}, r"the column 'x' must have .* got np\.longdouble"),
        ({"x": np.complex64(1)}, r"the column 'x' must have .* got np\.complex64"),
        ({"x": np.datetime64(1, "ns")}, r"the column 'x' must have .* got np\.datetime64"),
        ({"x": np.uint64(2**63)}, r"the column 'x' must have .* got np\.uint64"),
        ({"x": np.void(b"xy")}, r"the column 'x' must have .* got np\.void"),
        ({"x": array.array("d", [1.5])}, r"the column 'x' must have .* got array\('d', \[1\.5\]\)"),
        ({"x": [object]}, r"the column 'x' must have .* got \[<class 'object'>\]"),
    ],
)
async def test_a_row_that_cannot_be_stored_is_named_with_its_root_and_nothing_of_that_is_there(path, row, message):
    table = SqliteTable(path, "t")
    await put(table, {"good": [{"x": 1}]})
    with pytest.raises(OptionError, match=message) as raised:
        await put(table, {"good": [{"x": 1}], "bad": [{"x": 2}, row]})
    assert "penstock: root 'bad'" in raised.value.__notes__
    assert list(table.rows()) == [{"x": 1}]


async def test_a_first_row_that_cannot_be_stored_makes_no_table(path):
    table = SqliteTable(path, "t")
    with pytest.raises(OptionError, match="the column 'x' must have"):
        await put(table, {"a": [{"x": object()}]})
    assert (await put(table, {"a": [{"z": 1}]})).delivered == 1
    assert list(table.rows()) == [{"z": 1}]


async def test_no_two_rows_of_a_root_have_one_key(path):
    table = SqliteTable(path, "t", key="id")
    with pytest.raises(OptionError, match="'id' must differ in every row, got 1, which another row of this root has"):
        await put(table, {"a": [{"id": 1}, {"id": 1}]})


async def test_the_root_that_has_a_key_already_is_named(path):
    """It is an error of the rows, not of the database: no root is suspected to kill the process."""
    table = SqliteTable(path, "t", key="id")
    await put(table, {"old.md": [{"id": "x"}]})
    with pytest.raises(OptionError, match=r"must differ in every row, got 'x', which a row of root 'old\.md' has") as e:
        await put(table, {"new.md": [{"id": "x"}], "other.md": [{"id": "y"}]})
    assert "penstock: root 'new.md'" in e.value.__notes__
    assert durable.runs(path)[0].state == "stopped"
    assert list(table.rows()) == [{"id": "x"}, {"id": "y"}]


async def test_rows_move_to_a_root_that_takes_the_place_of_another(path):
    table = SqliteTable(path, "t", key="id")
    rows = [{"id": "x"}, {"id": "y"}]
    await put(table, {"old.md": rows})
    report = await put(table, {"new.md": rows}, on_missing="delete")
    assert (report.complete, report.delivered, report.rows, report.removed) == (True, 1, 2, 1)
    assert list(table.rows()) == rows


async def test_roots_may_swap_keys_however_far_they_are_apart(path, monkeypatch):
    monkeypatch.setattr(TableStore, "largest", property(lambda _: 1, lambda _, __: None), raising=False)
    table = SqliteTable(path, "t", key="id")
    await put(table, {"a": [{"id": 1}, {"id": 2}], "b": [{"id": 3}], "c": [{"id": 4}]})
    report = await put(table, {"a": [{"id": 4}, {"id": 2}], "b": [{"id": 1}], "c": [{"id": 3}, {"id": 5}]})
    assert (report.complete, report.redone, report.rows) == (True, 3, 5)
    assert sorted(row["id"] for row in table.rows()) == [1, 2, 3, 4, 5]


async def test_a_row_with_none_for_a_key_is_refused(path):
    with pytest.raises(OptionError, match=r"the key column 'id' must have a value in every row, got {'id': None}"):
        await put(SqliteTable(path, "t", key="id"), {"a": [{"id": None}]})


async def test_a_constraint_that_is_not_of_the_key_is_told_by_sqlite(path):
    table = SqliteTable(path, "t", key="id")
    await put(table, {"a": [{"id": 1, "x": 1}]})
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE UNIQUE INDEX own ON t (x)")
    with pytest.raises(StoreError, match=r"UNIQUE constraint failed: t\.x"):
        await put(table, {"b": [{"id": 2, "x": 1}]})


@pytest.fixture
def two_at_once(monkeypatch):
    """Have two roots committed together."""
    has_work = Writer._has_work

    def both(self):
        return has_work(self) and (len(self._entries) != 1 or self._closed)

    monkeypatch.setattr(Writer, "_has_work", both)


@pytest.mark.usefixtures("two_at_once")
async def test_roots_that_are_stored_together_may_swap_keys(path):
    table = SqliteTable(path, "t", key="id")
    await put(table, {"a": [{"id": 1}, {"id": 2}], "b": [{"id": 3}]})
    report = await put(table, {"a": [{"id": 3}], "b": [{"id": 2}, {"id": 1}]})
    assert (report.complete, report.redone) == (True, 2)
    assert list(table.rows()) == [{"id": 3}, {"id": 2}, {"id": 1}]


@pytest.mark.usefixtures("two_at_once")
async def test_of_roots_that_are_stored_together_those_before_a_bad_one_are_kept(path):
    table = SqliteTable(path, "t", key="id")
    with pytest.raises(OptionError, match="got 1, which a row of root 'a' has"):
        await put(table, {"a": [{"id": 1}], "b": [{"id": 1}]})
    assert list(table.rows()) == [{"id": 1}]


async def test_a_table_that_is_there_gets_its_key(path):
    await put(SqliteTable(path, "t"), {"a": [{"id": 1, "x": 1}]})
    table = SqliteTable(path, "t", key="id")
    for _ in range(2):
        with pytest.raises(OptionError, match="'id' must differ in every row, got 1, which a row of root 'a' has"):
            await put(table, {"b": [{"id": 1}]})
    with pytest.raises(OptionError, match="a row lacks the key column 'id', it has 'x'"):
        await put(table, {"b": [{"x": 2}]})
    await put(SqliteTable(path, "t"), {"b": [{"id": 2}]})
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        await put(SqliteTable(path, "t"), {"c": [{"id": 2}]})


async def test_a_table_that_was_made_with_its_key_gets_no_other_index(path):
    table = SqliteTable(path, "t", key="id")
    await put(table, {"a": [{"id": 1}]})
    await put(table, {"b": [{"id": 2}]})
    with closing(apsw.Connection(str(path))) as connection:
        assert len(list(connection.execute("PRAGMA index_list(t)"))) == 2


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("id", "the column 'id' cannot be the key of the table t: 2 of its rows have 7 there"),
        ("x", "the column 'x' cannot be the key of the table t: 1 of its rows have None there"),
        ("no", "the table t has no column 'no', which is to be its key"),
    ],
)
async def test_a_table_that_cannot_have_the_key_is_left_as_it_is(path, key, message):
    rows = [{"id": 7, "x": 1}, {"id": 7, "x": None}]
    await put(SqliteTable(path, "t"), {"a": rows})
    with pytest.raises(StoreError, match=message):
        await put(SqliteTable(path, "t", key=key), {"b": [{"id": 8}]})
    assert list(SqliteTable(path, "t").rows()) == rows


async def test_a_row_without_the_key_is_refused(path):
    with pytest.raises(OptionError, match="a row lacks the key column 'id', it has 'x'"):
        await put(SqliteTable(path, "t", key="id"), {"a": [{"x": 1}]})


@pytest.mark.parametrize("name", ["penstock_x", "sqlite_x", "PENSTOCK_ROOTS"])
def test_names_that_belong_to_others_are_refused(path, name):
    with pytest.raises(OptionError, match=f"table must not begin with penstock_ or sqlite_, got '{name}'"):
        SqliteTable(path, name)


@pytest.mark.parametrize("option", ["table", "key"])
@pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=ascii)
def test_names_that_sql_cannot_have_are_refused(path, option, name):
    with pytest.raises(OptionError, match=f"^{option}.* must be text that UTF-8 can hold, without NUL, got "):
        SqliteTable(path, **{"table": "t", option: name})


async def test_a_table_may_be_called_like_the_column_of_another(path):
    """Whatever else is made for a table has a name that no table can have."""
    one, two = SqliteTable(path, "t"), SqliteTable(path, "t_penstock_root")
    await put(one, {"a": [{"x": 1}]}, run="one")
    await put(two, {"a": [{"x": 2}]}, run="two")
    assert (list(one.rows()), list(two.rows())) == ([{"x": 1}], [{"x": 2}])


@pytest.mark.parametrize("names", [("rowid",), ("RowID", "_rowid_"), ("oid", "rowid"), ("_rowid_", "OID")])
async def test_rows_come_in_order_whatever_columns_are_called(path, names):
    rows = [dict.fromkeys(names, -number) for number in range(3)]
    table = SqliteTable(path, "t")
    await put(table, {"a": rows})
    assert list(table.rows()) == rows


async def test_all_names_of_the_place_of_a_row_are_too_many(path):
    with pytest.raises(OptionError, match="columns must not be called rowid, _rowid_ and oid at once"):
        await put(SqliteTable(path, "t"), {"a": [{"rowid": 1, "OID": 2, "_rowid_": 3}]})


async def test_after_a_run_without_rows_there_are_none(path):
    table = SqliteTable(path, "t")
    await put(table, {"a": []})
    assert list(table.rows()) == []


def test_a_database_in_which_no_run_has_been_has_no_rows_to_read(path):
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("CREATE TABLE other (x)")
    with pytest.raises(StoreError, match="no such table: t"):
        list(SqliteTable(path, "t").rows())


def test_there_is_nothing_to_read_where_no_run_has_been(path):
    with pytest.raises(StoreError, match=r"t\.db: cannot be opened: there is no such file$"):
        list(SqliteTable(path, "t").rows())
