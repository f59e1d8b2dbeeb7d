"""What is done, done again because it is asked for, or forgotten: in every kind of sink."""

import asyncio
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import apsw
import pytest

import penstock
from penstock import OptionError, durable
from penstock.durable import StoreError
from penstock.durable.again import keys_written
from penstock.durable.sqlite.connection import Connection
from penstock.sinks.callback import Callback
from penstock.sinks.table import SqliteTable
from penstock.sinks.vectors import SqliteVectors

from .dying import ask, kill_this

pytestmark = pytest.mark.real_time

KINDS = "table", "vectors", "callback"


BEGUN = []
"""The roots that were begun in the last run: no part of what the function that begins them holds."""


class Place:
    """A sink of some kind, what it has been given, and which roots were begun."""

    def __init__(self, path, kind):
        self.path, self.kind = str(path), kind
        self.sent = []

    @property
    def begun(self):
        return BEGUN

    def sink(self):
        if self.kind == "table":
            return SqliteTable(self.path, "rows")
        if self.kind == "vectors":
            return SqliteVectors(self.path)
        return Callback(self._send, journal=self.path)

    async def _send(self, rows):
        self.sent += [(row.key, row.row["text"]) for row in rows]

    async def run(self, roots, by="old", *, name="run", bad=(), version="1", to=None, **options):
        """Two rows of each root."""
        BEGUN.clear()

        async def make(root):
            BEGUN.append(root)
            if root in bad:
                raise ValueError(root)
            return [{"text": f"{root} {by} {number}", "vector": [1.0, number]} for number in range(2)]

        source = penstock.keyed(roots, key=lambda root: root, version=lambda _: version, name=f"source of {name}")
        stream = source.map(make, on_error="collect", name="make", deps=by, **options).flatten()
        if self.kind == "table":
            stream = stream.map(lambda row: {"text": row["text"]}, name="row")
        return await stream.to(self.sink(), run=name, **(to or {}))

    def texts(self):
        if self.kind == "callback":
            return sorted(text for _, text in self.sent)
        return sorted(row["text"] for row in self.sink().rows())

    def by(self):
        return Counter(text.split()[1] for text in self.texts())


@pytest.fixture(params=KINDS)
def target(tmp_path, request):
    return Place(tmp_path / "t.db", request.param)


@pytest.fixture
def table(tmp_path):
    return Place(tmp_path / "t.db", "table")


def standing(target, name="run"):
    (found,) = [run for run in durable.runs(target.path) if run.name == name]
    return found


def write(path, statements):
    connection = apsw.Connection(str(path))
    try:
        connection.execute(statements)
    finally:
        connection.close()


async def test_roots_that_are_named_are_done_again(target):
    await target.run([1, 2, 3])
    asked = durable.redo(target.path, run="run", keys=[1, 3])
    assert (asked.run, asked.roots, asked.rows) == ("run", 2, 4)
    assert (standing(target).done, standing(target).retried) == (1, 2)
    report = await target.run([1, 2, 3], by="new")
    assert target.begun == [1, 3]
    assert (report.delivered, report.redone, report.already_done) == (2, 2, 1)
    assert target.by() == ({"old": 6, "new": 4} if target.kind == "callback" else {"old": 2, "new": 4})
    await target.run([1, 2, 3], by="new")
    assert target.begun == []


async def test_rows_stay_until_they_are_replaced(target):
    """Readers see the old root or the new one, never a mixture."""
    await target.run([1, 2])
    before = target.texts()
    durable.redo(target.path, run="run", which="all")
    assert target.texts() == before
    assert standing(target).rows == 4
    await target.run([1])
    if target.kind != "callback":
        assert target.texts() == before


async def test_every_root_is_done_again(target):
    await target.run([1, 2, 3], bad=[2])
    asked = durable.redo(target.sink(), run="run", which="all")
    assert (asked.roots, asked.rows) == (3, 4)
    assert durable.dead_roots(target.path) == []
    assert durable.redo(target.sink(), run="run", which="all") == asked  # the same again
    report = await target.run([1, 2, 3])
    assert (report.delivered, report.redone) == (3, 3)
    assert standing(target).rows == 6


async def test_dead_roots_are_done_again(target):
    await target.run([1, 2, 3], bad=[2])
    await target.run([8, 9], bad=[9], name="another")
    assert durable.redo(target.path, run="run", which="dead").roots == 1
    assert [root.run for root in durable.dead_roots(target.path)] == ["another"]
    await target.run([1, 2, 3])
    assert target.begun == [2]
    assert durable.redo(target.path, run="run", which="dead").roots == 0


async def test_what_other_code_made_is_done_again(target):
    """Other code than that of the last opening: that is what the next run has."""
    await target.run([1, 2], by="old")
    assert durable.redo(target.path, run="run", which="other code").roots == 0
    await target.run([1, 2, 3], by="new")
    assert standing(target).by_other_code == 2
    asked = durable.redo(target.path, run="run", which="other code")
    assert (asked.roots, asked.rows) == (2, 4)
    await target.run([1, 2, 3], by="new")
    assert target.begun == [1, 2]
    assert standing(target).by_other_code == 0
    assert durable.redo(target.path, run="run", which="other code").roots == 0


async def test_a_root_is_known_by_its_key_and_type(target):
    """The number 5 and the text "5" are two roots."""
    await target.run([5, "5", "05"])
    durable.redo(target.path, run="run", keys=["5"])
    await target.run([5, "5", "05"])
    assert target.begun == ["5"]
    durable.redo(target.path, run="run", keys=[5])
    await target.run([5, "5", "05"])
    assert target.begun == [5]


async def test_keys_that_are_not_there_are_named_and_nothing_is_changed(target):
    await target.run([1, 2, "docs/a.md"])
    for keys, said in (
        ([1, 7], r"no root 7 in run 'run', there are 'docs/a\.md'|no root 7 in run 'run', there are "),
        (["a.md"], r"no root 'a\.md' in run 'run', there are 'docs/a\.md'"),
        ([1, "2"], r"no root '2' in run 'run', there are 2"),
        ([2**70], "no root 1180591620717411303424 in run 'run', there are "),
        (["\ud83d"], r"no root '\\ud83d' in run 'run', there are "),
        (list(range(10, 30)), "no root 10, 11, 12, 13, 14 and 15 more in run 'run', there are "),
    ):
        with pytest.raises(StoreError, match=said):
            durable.redo(target.path, run="run", keys=keys)
    with pytest.raises(StoreError, match="no run 'runs', there are 'run'"):
        durable.redo(target.path, run="runs", keys=[1])
    await target.run([1, 2, "docs/a.md"])
    assert target.begun == []


async def test_no_keys_are_no_roots(table):
    """A list that a program has made may be empty."""
    await table.run([1])
    assert durable.redo(table.path, run="run", keys=[]).roots == 0


def test_bad_arguments_are_named(tmp_path):
    for arguments, said in (
        ({}, "redo needs either keys or which, got keys=None and which=None"),
        ({"keys": [1], "which": "all"}, "redo needs either keys or which"),
        ({"which": "every"}, "which must be one of 'all', 'dead', 'other code', 'missing rows', got 'every'"),
        ({"keys": "a.md"}, "keys must be several keys, as a list, got 'a.md'"),
        ({"keys": [True]}, "keys must be str or int, got True"),
        ({"keys": [1.0]}, "keys must be str or int, got 1.0"),
    ):
        with pytest.raises(OptionError, match=said):
            durable.redo(tmp_path / "t.db", run="run", **arguments)
    with pytest.raises(OptionError, match="sink must be a sink or the path of its database, got 5"):
        durable.redo(5, run="run", which="all")
    with pytest.raises(OptionError, match="rows must be one of 'keep', 'remove', got 'drop'"):
        durable.forget(tmp_path / "t.db", run="run", rows="drop")


@pytest.mark.parametrize("ask_for", [durable.redo, durable.forget], ids=["redo", "forget"])
def test_a_place_without_a_journal_is_named_and_nothing_is_made(tmp_path, ask_for):
    options = {"which": "all"} if ask_for is durable.redo else {}
    text, empty, other = tmp_path / "text.db", tmp_path / "empty.db", tmp_path / "other.db"
    text.write_text("no database\n" * 100)
    empty.touch()
    write(other, "CREATE TABLE mine (x)")
    before = sorted(tmp_path.iterdir())
    for path, said in (
        (tmp_path / "none.db", "none.db: no such database"),
        (tmp_path, "a directory, not a database"),
        (text, "text.db: not an SQLite database"),
        (empty, "empty.db: no durable run has written to it"),
        (other, "other.db: no durable run has written to it"),
    ):
        for target in (path, SqliteTable(path, "rows"), SqliteVectors(path), Callback(print, journal=path)):
            with pytest.raises(StoreError, match=said):
                ask_for(target, run="run", **options)
    assert sorted(tmp_path.iterdir()) == before


async def test_prefixes_of_merged_sources_are_a_part_of_keys(table):
    def stream():
        a = penstock.keyed([1, 2], key=int, name="a")
        b = penstock.keyed([1, 2], key=int, name="b")
        return a.merge(b).map(lambda number: {"number": number})

    await stream().to(table.sink(), run="run")
    keys = [key for (key,) in ask(table.path, "SELECT key FROM penstock_roots ORDER BY key")]
    assert len(keys) == 4
    durable.redo(table.path, run="run", keys=keys[:1])
    assert (await stream().to(table.sink(), run="run")).delivered == 1
    with pytest.raises(StoreError, match="no root 1 in run 'run', there are "):
        durable.redo(table.path, run="run", keys=[1])


ODD = [
    "",
    " ",
    "a\nb",
    "\x1b[31mred",
    "'; DROP TABLE rows; --",
    "ø",
    "\u202e",
    "a" * 5_000,
    '"5"',
    "-1",
    "--all",
    "\\n",
    "%",
]


async def test_any_key_can_be_named(target):
    await target.run(ODD)
    assert durable.redo(target.path, run="run", keys=ODD).roots == len(ODD)
    await target.run(ODD)
    assert sorted(target.begun) == sorted(ODD)


async def test_keys_are_found_as_a_command_line_has_them(table):
    """As they are, as numbers, as JSON, and as they are shown."""
    await table.run([5, "5", -7, "05", *ODD, "line\nbreak", 2**63 - 1])
    for text, key in (
        ("5", 5),
        ('"5"', '"5"'),  # it is a key itself
        ("-7", -7),
        ("05", "05"),
        ("line\\nbreak", "line\nbreak"),
        ('"line\\nbreak"', "line\nbreak"),
        ("\\x1b[31mred", "\x1b[31mred"),
        ("\\n", "\\n"),
        (str(2**63 - 1), 2**63 - 1),
        *((key, key) for key in ODD if key != "-1"),
        ("-1", "-1"),
    ):
        assert keys_written(table.path, "run", [text]) == [key]
    durable.redo(table.path, run="run", keys=['"5"'])
    await table.run([5, "5"], name="another")
    assert keys_written(table.path, "another", ["5", '"5"']) == [5, "5"]
    for text in ("6", "9" * 30, "caf\udce9", '"\\ud800"', "\\ud800", "\\N{no", "²"):
        with pytest.raises(StoreError, match=r"no root .* in run 'run'"):
            keys_written(table.path, "run", [text])


async def test_who_writes_to_it_is_named(table):
    """While a run is under way nothing is changed."""
    held = asyncio.Event()
    release = asyncio.Event()

    async def wait(number):
        held.set()
        await release.wait()
        return {"number": number}

    running = asyncio.ensure_future(penstock.keyed([1], key=int).map(wait).to(table.sink(), run="run"))
    await held.wait()
    for change in (
        lambda: durable.redo(table.path, run="run", which="all"),
        lambda: durable.redo(table.sink(), run="run", which="missing rows"),
        lambda: durable.forget(table.path, run="run"),
        lambda: durable.forget(table.sink(), run="run", rows="remove"),
    ):
        with pytest.raises(durable.HeldError, match=r"t\.db: process \d+ on .* is writing to it, since "):
            change()
    release.set()
    assert (await running).delivered == 1


async def test_a_run_that_is_forgotten_keeps_its_rows(table):
    """A new one of its name adds its own: the rows belong to no run any more."""
    await table.run([1, 2], bad=[2])
    await table.run([1], name="another")
    gone = durable.forget(table.path, run="run")
    assert (gone.run, gone.roots, gone.rows, gone.removed) == ("run", 2, 2, False)
    assert [run.name for run in durable.runs(table.path)] == ["another"]
    assert durable.dead_roots(table.path) == []
    assert len(table.texts()) == 4
    report = await table.run([1, 2])
    assert (report.delivered, report.already_done, report.lost) == (2, 0, 0)
    assert len(table.texts()) == 8
    await table.run([2], version="2", to={"on_missing": "delete"})
    assert len(table.texts()) == 6, "an id of a forgotten root was given again, or rows of others were removed"
    with pytest.raises(StoreError, match="no run 'gone', there are 'run', 'another'"):
        durable.forget(table.path, run="gone")


async def test_a_run_that_is_forgotten_with_its_rows_leaves_nothing(target):
    await target.run([1, 2, 3], bad=[2])
    await target.run([1], name="another")
    if target.kind == "callback":
        with pytest.raises(OptionError, match="the rows of a Callback are where it brought them"):
            durable.forget(target.sink(), run="run", rows="remove")
        assert durable.forget(target.sink(), run="run").roots == 3
        return
    with pytest.raises(OptionError, match="rows=\"remove\" for run 'run' needs the sink"):
        durable.forget(target.path, run="run", rows="remove")
    gone = durable.forget(target.sink(), run="run", rows="remove")
    assert (gone.roots, gone.rows, gone.removed) == (3, 4, True)
    assert target.texts() == ["1 old 0", "1 old 1"]
    for name in ("roots", "stages", "codes", "dispatched"):
        assert ask(target.path, f"SELECT count(*) FROM penstock_{name} WHERE run != 2") == [(0,)]
    assert (await target.run([1, 2, 3])).delivered == 3


async def test_rows_of_an_index_are_not_kept_without_their_run(tmp_path):
    """It finds them by their roots."""
    target = Place(tmp_path / "t.db", "vectors")
    await target.run([1, 2])
    with pytest.raises(StoreError, match=r'the 4 rows of run .* cannot be kept: .* rows="remove" removes them'):
        durable.forget(target.path, run="run")
    assert standing(target).done == 2


async def test_another_sink_is_refused(table):
    await table.run([1])
    other = SqliteTable(table.path, "more")
    for change in (
        lambda: durable.redo(other, run="run", which="all"),
        lambda: durable.redo(other, run="run", which="missing rows"),
        lambda: durable.forget(other, run="run", rows="remove"),
    ):
        with pytest.raises(StoreError, match="the run 'run' is into table rows, not into table more"):
            change()
    assert standing(table).done == 1


async def test_kept_results_are_recalled_and_forgotten_with_the_last_run_that_has_them(table):
    await table.run([1, 2], memo=True)
    durable.redo(table.path, run="run", which="all")
    report = await table.run([1, 2], memo=True)
    assert (report.delivered, report.recalled, table.begun) == (2, 2, [])
    await table.run([1, 2], memo=True, name="another")
    durable.forget(table.path, run="run")
    assert ask(table.path, "SELECT count(*) > 0 FROM penstock_memo") == [(1,)]
    durable.forget(table.path, run="another")
    assert ask(table.path, "SELECT count(*) FROM penstock_memo") == [(0,)]


async def test_a_root_that_is_to_be_redone_and_is_gone_is_missing(table):
    await table.run([1, 2])
    durable.redo(table.path, run="run", keys=[2])
    report = await table.run([1], to={"on_missing": "delete"})
    assert (report.missing, report.removed) == (1, 1)
    assert table.texts() == ["1 old 0", "1 old 1"]


async def test_a_redone_root_that_fails_is_dead_as_any_other(table):
    await table.run([1, 2])
    durable.redo(table.path, run="run", keys=[2])
    report = await table.run([1, 2], bad=[2])
    assert (report.dead, report.redone) == (1, 1)


async def lacking(target, caplog, roots, rows):
    """Rows of some roots are gone: it is said, nothing is done again by itself, and `redo` has them done again."""
    caplog.clear()
    report = await target.run([1, 2, 3])
    assert (report.lost, report.delivered) == (len(roots), 0)
    said = (
        f"run 'run': somebody has removed rows of {len(roots)} root{'s' if len(roots) > 1 else ''}; "
        f"`penstock redo {target.path} --run "
    )
    assert next(line for line in caplog.messages if "somebody" in line).startswith(said)
    assert f"; rows of {len(roots)} root{'s' if len(roots) > 1 else ''} removed by others; " in str(report)
    with pytest.raises(OptionError, match="which=\"missing rows\" of run 'run' needs the sink that has them"):
        durable.redo(target.path, run="run", which="missing rows")
    asked = durable.redo(target.sink(), run="run", which="missing rows")
    assert (asked.roots, asked.rows) == (len(roots), rows)
    assert durable.redo(target.sink(), run="run", which="missing rows").roots == 0
    report = await target.run([1, 2, 3])
    assert target.begun == roots
    assert (report.lost, report.delivered) == (0, len(roots))
    assert len(target.texts()) == 6


RUN = "(SELECT id FROM penstock_runs WHERE name = 'run')"
ROOT_2 = f"(SELECT id FROM penstock_roots WHERE key = 2 AND run = {RUN})"


@pytest.mark.parametrize(
    ("kind", "removal", "roots", "rows"),
    [
        ("table", f"DELETE FROM rows WHERE penstock_root = {ROOT_2}", [2], 0),
        ("table", f"DELETE FROM rows WHERE penstock_root = {ROOT_2} AND text LIKE '%1'", [2], 1),
        ("table", "DELETE FROM rows WHERE text LIKE '% 0'", [1, 2, 3], 3),
        ("vectors", f"DELETE FROM entries WHERE penstock_root = {ROOT_2}", [2], 0),
        ("vectors", f"DELETE FROM entries WHERE penstock_root = {ROOT_2} AND text LIKE '%1'", [2], 1),
        ("vectors", "DELETE FROM vectors WHERE id = (SELECT max(id) FROM vectors)", [3], 1),
    ],
)
@pytest.mark.parametrize("another", [False, True], ids=["one run", "two runs"])
async def test_rows_that_others_have_removed_are_noticed(tmp_path, caplog, kind, removal, roots, rows, another):
    caplog.set_level("WARNING")
    target = Place(tmp_path / "t.db", kind)
    if another:
        await target.run([1, 2], name="another")
    await target.run([1, 2, 3])
    if another:
        write(target.path, removal)
        assert (await target.run([1, 2, 3])).lost == len(roots)
        durable.redo(target.sink(), run="run", which="missing rows")
        await target.run([1, 2, 3])
        assert target.begun == roots
        assert standing(target).rows == 6
        return
    write(target.path, removal)
    await lacking(target, caplog, roots, rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "removal"),
    [
        ("table", "DROP TABLE rows"),
        ("table", "DELETE FROM rows"),
        ("vectors", "DROP TABLE entries"),
        ("vectors", "DELETE FROM entries"),
        ("vectors", "DELETE FROM vectors"),
    ],
)
@pytest.mark.parametrize("how", ["missing rows", "all", "restart", "forget"])
async def test_a_run_of_which_no_row_is_left_is_refused(tmp_path, kind, removal, how):
    """A table that was dropped or emptied is no place to go on in: it would hold the new roots alone."""
    target = Place(tmp_path / "t.db", kind)
    await target.run([1, 2, 3, 4], bad=[4])
    write(target.path, removal)
    said = r"t\.db: somebody has removed all rows of run 'run' \(3 roots\); `penstock redo "
    with pytest.raises(StoreError, match=said):
        await target.run([1, 2, 3, 4])
    assert standing(target).times == 1
    if how == "forget":
        durable.forget(target.sink(), run="run", rows="remove")
    elif how != "restart":
        asked = durable.redo(target.sink(), run="run", which=how)
        assert asked.roots == (4 if how == "all" else 3)
    options = {"to": {"on_change": "restart"}, "by": "new"} if how == "restart" else {}
    report = await target.run([1, 2, 3, 4], bad=[4], **options)
    assert (report.delivered, report.lost) == (3, 0)
    assert len(target.texts()) == 6
    if kind == "vectors":
        found = target.sink().nearest([1.0, 0.0], k=100)
        assert len(found) == 6
        assert len(target.sink().matching("1 2 3", k=100)) == 6
        for table in ("vectors", "words", "entries"):
            assert ask(target.path, f"SELECT count(*) FROM {table}") == [(6,)]


async def test_no_row_is_missed_that_was_never_there(table, caplog):
    """Dead roots, roots of no rows, rows of others in the table, rows that waited in the store."""
    caplog.set_level("WARNING")

    async def make(number):
        if number == 1:
            raise ValueError(number)
        return [{"number": number}] * (0 if number == 2 else 12_000 if number == 3 else 1)

    stream = penstock.keyed(range(6), key=int).map(make, on_error="collect").flatten()
    assert (await stream.to(table.sink(), run="run")).rows == 12_003
    for addition in ("", "INSERT INTO rows VALUES (0, 5)"):
        write(table.path, addition or "SELECT 1")
        assert (await stream.to(table.sink(), run="run")).lost == 0
        assert not [line for line in caplog.messages if "lack" in line]
    write(table.path, "DELETE FROM rows WHERE number = 4")
    assert (await stream.to(table.sink(), run="run")).lost == 1, "rows of others hide those that are gone"


async def test_rows_that_moved_between_roots_are_not_missed(tmp_path):
    """With a key, rows that are in each other's way wait, and are counted once."""
    sink = SqliteTable(tmp_path / "t.db", "rows", key="name")

    def run(names, version):
        source = penstock.keyed(names.items(), key=lambda pair: pair[0], version=lambda _: version)
        return source.map(lambda pair: {"name": pair[1]}).to(sink, run="run")

    await run({1: "a", 2: "b", 3: "c"}, "1")
    await run({1: "b", 2: "c", 3: "a"}, "2")
    assert (await run({1: "b", 2: "c", 3: "a"}, "2")).lost == 0


def dies_at(number, change):
    """Have a child ask for a change, which is killed before its statement of that number; whether it came so far."""
    child = os.fork()
    if not child:
        left = [number]
        execute = Connection.execute

        def counted(self, *args, **options):
            left[0] -= 1
            if not left[0]:
                kill_this()
            return execute(self, *args, **options)

        Connection.execute = counted
        try:
            change()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


CHANGES = {
    "redo keys": lambda target: durable.redo(target.path, run="run", keys=[1, 2, 3]),
    "redo all": lambda target: durable.redo(target.path, run="run", which="all"),
    "redo dead": lambda target: durable.redo(target.path, run="run", which="dead"),
    "redo other code": lambda target: durable.redo(target.path, run="run", which="other code"),
    "redo missing rows": lambda target: durable.redo(target.sink(), run="run", which="missing rows"),
    "forget": lambda target: durable.forget(target.path, run="run"),
    "forget rows": lambda target: durable.forget(target.sink(), run="run", rows="remove"),
}


WANTED = {"redo all": 5, "redo dead": 1, "redo missing rows": 1, "redo other code": 4, "redo keys": 3}
"""How many roots each of them has done again."""


def check_one_or_other(target, what):
    """After a kill, a transaction is there or not."""
    there = {run.name: run for run in durable.runs(target.path)}
    assert there["another"].done == 2
    if what == "forget":
        assert "run" not in there or there["run"].done == 4
    elif what == "forget rows":
        rows = ask(target.path, "SELECT coalesce(sum(rows), 0) FROM penstock_roots")
        assert rows == [(len(target.texts()),)]
    else:
        assert there["run"].retried in {0, WANTED[what]}
    return "run" in there


def check_next_run(target, what):
    target.sent.clear()
    report = asyncio.run(target.run([1, 2, 3, 4, 5], by="new"))
    assert report.delivered == WANTED.get(what, 5)
    if target.kind != "callback" and what != "forget":
        assert len(target.texts()) == 14 - 2 * (what in {"redo keys", "redo missing rows"})


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_killed_anywhere_it_is_done_or_not_and_goes_on(tmp_path, target, what, monkeypatch):
    """Each transaction is there or not, the same again finishes it, and the next run brings what is right."""
    if (target.kind, what) in {("callback", "redo missing rows"), ("callback", "forget rows"), ("vectors", "forget")}:
        pytest.skip("it is refused there")
    monkeypatch.setattr("penstock.durable.again._MANY", 2)
    asyncio.run(target.run([1, 2, 3, 4], bad=[4], by="old"))
    asyncio.run(target.run([1, 2, 3, 4, 5], bad=[4], by="new"))
    asyncio.run(target.run([1, 2], name="another"))
    if what == "redo missing rows":
        rows = "rows" if target.kind == "table" else "entries"
        write(target.path, f"DELETE FROM {rows} WHERE text LIKE '3 old%'")
    kept = {name: Path(name).read_bytes() for name in map(str, tmp_path.iterdir()) if not name.endswith(".lock")}
    number = 1
    while dies_at(number, partial(CHANGES[what], target)):
        if check_one_or_other(target, what):
            CHANGES[what](target)
        if what.startswith("redo"):
            assert standing(target).retried == WANTED[what]
        if number % 4 == 0:
            check_next_run(target, what)
        for each in tmp_path.iterdir():
            each.unlink()
        for name, content in kept.items():
            Path(name).write_bytes(content)
        number += 3
    assert number > 10
