"""`penstock.csv`: records of a CSV file, known by a column or by where they begin."""

import csv
import logging
import threading

import pytest

import penstock
from penstock.sinks.table import SqliteTable

pytestmark = pytest.mark.real_time


@pytest.fixture
def path(tmp_path):
    return tmp_path / "users.csv"


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "out.db", "users")


async def read(path, text, **options):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return await penstock.csv(path, **options).to_list()


def run(path, table, *, on_missing="keep", **options):
    return penstock.csv(path, **options).to(table, run="r", on_missing=on_missing)


async def test_items_are_the_records_by_the_names_of_the_columns(path):
    text = 'id,name\n1,"Ada, ""the first"""\r\n\n2,"two\r\nlines\n"\n3,\n"4",caf\xe9'
    assert await read(path, text) == [
        {"id": "1", "name": 'Ada, "the first"'},
        {"id": "2", "name": "two\r\nlines\n"},
        {"id": "3", "name": ""},
        {"id": "4", "name": "caf\xe9"},
    ]


async def test_what_the_standard_library_writes_comes_back(path):
    rows = [
        {"a": value, "b": "x"} for value in ("", " ", '"', "a\nb", "a\r\nb", ",", "\u2028", "\t", "'", "\\", '"",\n"')
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["a", "b"])
        writer.writeheader()
        writer.writerows(rows)
    assert await penstock.csv(path).to_list() == rows


async def test_a_byte_order_mark_other_delimiters_and_encodings(path):
    assert await read(path, b'\xef\xbb\xbf"id",x\n1,2\n') == [{"id": "1", "x": "2"}]
    assert await read(path, b"\xef\xbb\xbfid\n1\n", encoding="utf-8-sig") == [{"id": "1"}]
    assert await read(path, b"id;x\n1,0;\xe9\n", delimiter=";", encoding="cp1252") == [{"id": "1,0", "x": "\xe9"}]
    assert await read(path, "id\tx\n1\t\u8868\n".encode("shift_jis"), delimiter="\t", encoding="shift_jis") == [
        {"id": "1", "x": "\u8868"}
    ]


async def test_a_file_without_header_without_records_and_without_anything(path):
    assert await read(path, "1,2\n", columns=["a", "b"]) == [{"a": "1", "b": "2"}]
    assert await read(path, "\n\na\n1\n") == [{"a": "1"}]
    assert await read(path, "a,b\n") == []
    assert await read(path, "", key="a") == []


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (b"a,b\n1,2\n3\n", {}, "line 3: 1 field, but there are 2 columns"),
        (b'a,b\n1,"x\ny"\n1,2,3\n', {}, "line 4: 3 fields, but there are 2 columns"),
        (b'a,b\n1,"x\n2,y\n', {}, "line 2: a quote is not closed before the end of the file"),
        (b'a,b\n1,"x"y\n', {}, "line 2: no CSV: ',' expected after '\"'"),
        (b'a,b\n1,"x\n\ny"z\n', {}, "line 2: to line 4, no CSV: ',' expected after '\"'"),
        (b"a,b\n1,caf\xe9\n", {}, "line 2: byte 6: not utf-8"),
        (b'a,b\n1,"\n\xe9"\n', {}, "line 2: to line 3, byte 1: not utf-8"),
        (b"a,b\n1,\0\n", {}, "line 2: a NUL: this is no text"),
        (b"a,b\r1,2\r", {}, "line 1: a carriage return within a line: lines end with LF or CRLF"),
        (b"a,b,a\n", {}, "line 1: columns 1 and 3 both have the name 'a'"),
        (b"a,,\n", {}, "line 1: columns 2 and 3 both have the name ''"),
        (b"a;b\n1;2\n", {"key": "a"}, "key must name a column, got 'a': it has 'a;b'"),
        (b"a\n" + b"x" * 30, {"max_record": 20}, r"line 2: longer than 20 bytes \(max_record\): is a quote not closed"),
        (b'a\n"\n' + b"x\n" * 30, {"max_record": 20}, r"line 2: longer than 20 bytes"),
        ("a,b\n1,2\n".encode("utf-16"), {}, "it is in UTF-16, .*iconv -f UTF-16 -t UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-be"), {}, "line 1: a NUL: this is no text"),
    ],
)
async def test_what_is_no_csv_is_named_with_its_file_and_line(path, text, options, message):
    with pytest.raises(penstock.SourceError, match=message) as raised:
        await read(path, text, **options)
    assert str(raised.value).startswith(str(path))


async def test_a_file_that_is_not_there_is_named(path):
    with pytest.raises(penstock.SourceError, match=r"users\.csv: no such file or directory"):
        await penstock.csv(path).to_list()


@pytest.mark.parametrize("bad", ["1,2,3", '1,"x"y', "1,\0", "1,\xff"])
async def test_behind_a_record_that_cannot_be_read_the_others_are_read(path, bad):
    text = f"a,b\n0,0\n{bad}\n2,2\n".encode("latin-1")
    assert [row["a"] for row in await read(path, text, on_error="skip")] == ["0", "2"]


async def test_a_long_field_is_read_and_the_limit_of_the_standard_library_stays(path):
    before = csv.field_size_limit()
    limits = []
    long = '"' + "x\n" * before + '"'
    rows = await read(path, f"a\n{long}\n1\n", key=lambda row: limits.append(csv.field_size_limit()) or row["a"][:1])
    assert [len(row["a"]) for row in rows] == [2 * before, 1]
    assert csv.field_size_limit() == before


async def test_two_threads_with_long_fields_leave_the_limit_as_it_was(tmp_path):
    """The limit is one for the process: who ends first must not take it from the other."""
    before = csv.field_size_limit()
    paths = [tmp_path / f"{name}.csv" for name in "ab"]
    for path in paths:
        path.write_text("a\n" + ("x" * (before + 1) + "\n") * 20)
    merged = penstock.csv(paths[0]).merge(penstock.csv(paths[1]))
    assert len(await merged.to_list()) == 40
    assert csv.field_size_limit() == before
    assert threading.active_count() == 1


async def test_by_default_records_are_known_by_where_they_begin(path, table):
    path.write_text("a\n1\n2\n")
    assert (await run(path, table)).delivered == 2
    path.write_text("a\n1\n3\n2\n")
    report = await run(path, table)
    assert (report.already_done, report.redone, report.delivered) == (1, 1, 2)
    assert sorted(row["a"] for row in table.rows()) == ["1", "2", "3"]


async def test_with_a_key_records_may_move_and_an_edited_one_is_done_again(path, table):
    path.write_text("id,a\n1,x\n2,y\n3,z\n")
    assert (await run(path, table, key="id")).delivered == 3
    path.write_bytes(b'id,a\r\n3,z\r\n"2",w\r\n4,v')
    report = await run(path, table, key="id", on_missing="delete")
    assert (report.already_done, report.redone, report.delivered, report.removed) == (1, 1, 2, 1)
    assert sorted((row["id"], row["a"]) for row in table.rows()) == [("2", "w"), ("3", "z"), ("4", "v")]


async def test_other_names_of_columns_make_other_records(path, table):
    path.write_text("id,a\n1,x\n")
    await run(path, table, key="id")
    path.write_text("id,b\n1,x\n")
    assert (await run(path, table, key="id")).redone == 1


async def test_a_key_may_be_a_function_and_of_two_records_with_one_key_both_are_named(path, table):
    path.write_text("id\n7\n07\n")
    with pytest.raises(penstock.DuplicateKeyError, match=r"key 7 stands twice in the source: at item 0 and at item 1"):
        await run(path, table, key=lambda row: int(row["id"]))


async def test_a_record_that_cannot_be_read_is_set_aside_until_it_is_mended(path, table):
    path.write_text("id,a\n1,x\n2,y,z\n3,w\n")
    assert (await run(path, table, key="id", on_error="collect")).dead == 1
    path.write_text("id,a\n1,x\n2,y\n3,w\n")
    report = await run(path, table, key="id", on_error="collect", on_missing="delete")
    assert (report.delivered, report.already_done, report.dead_before, report.missing) == (1, 2, 0, 1)


@pytest.mark.parametrize("end", ["3", '3,"x', '3,"x\n', '3,"x\n\n"'])
async def test_the_end_of_a_growing_file_waits_for_the_next_run(path, table, caplog, end):
    path.write_text(f"id,a\n1,x\n2,y\n{end}")
    with caplog.at_level(logging.WARNING, "penstock"):
        report = await run(path, table, key="id", growing=True)
    assert (report.delivered, report.unread) == (2, 1)
    assert f"{path}, line 4: is not complete yet: left for the next run" in caplog.text
    path.write_text("id,a\n1,x\n3,z\n")
    report = await run(path, table, key="id", growing=True)
    assert (report.delivered, report.already_done, report.missing) == (1, 1, 1)


async def test_while_the_end_is_not_complete_nothing_counts_as_missing_that_may_stand_there(path, table):
    path.write_text("id,a\n1,x\n2,y\n3,z\n")
    await run(path, table, key="id")
    path.write_text("id,a\n1,x\n2")
    assert (await run(path, table, key="id", growing=True, on_missing="delete")).missing == 0
    path.write_text("id")
    assert (await run(path, table, key="id", growing=True, on_missing="delete")).missing == 0


async def test_a_run_keeps_to_its_file_and_key(path, table):
    path.write_text("id,a\n1,x\n")
    await run(path, table, key="id")
    with pytest.raises(penstock.PenstockError, match=r"users.csv by 'id', not over csv .*users.csv by 'a'"):
        await run(path, table, key="a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": 1}, "path must be"),
        ({"key": 1}, "key must be"),
        ({"columns": "ab"}, "columns must be the names of columns, got 'ab'"),
        ({"columns": []}, "columns must be the names"),
        ({"columns": ["a", 1]}, "columns must be"),
        ({"columns": ["a", "b", "a"]}, "columns must differ, got 'a' twice"),
        ({"delimiter": ",,"}, "delimiter must be one character, and no quote or newline, got ',,'"),
        ({"delimiter": '"'}, "delimiter must be"),
        ({"encoding": "utf-99"}, "encoding must be the name of an encoding, got 'utf-99'"),
        ({"encoding": "base64"}, "encoding must be the name of an encoding, got 'base64'"),
        ({"encoding": "utf-16"}, "encoding must be one in which a newline is one byte, got 'utf-16'"),
        ({"encoding": "cp037"}, "encoding must be one in which"),
        ({"growing": 1}, "growing must be"),
        ({"max_record": 0}, "max_record must be an int >= 1, got 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(penstock.OptionError, match=message):
        penstock.csv(**{"path": "users.csv", **options})
