"""What a durable run refuses when it is asked for, and rows that a store refuses."""

import apsw
import pytest

import penstock
from penstock.core.errors import OptionError
from penstock.sinks import RowError, SqliteStore
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

pytestmark = pytest.mark.real_time


OPERATORS = {
    "take": lambda stream: stream.take(3),
    "skip": lambda stream: stream.skip(1),
    "take_while": lambda stream: stream.take_while(bool),
    "skip_while": lambda stream: stream.skip_while(bool),
    "distinct": lambda stream: stream.distinct(),
    "enumerate": lambda stream: stream.enumerate(),
    "batch": lambda stream: stream.batch(2),
}


@pytest.mark.parametrize("name", OPERATORS)
async def test_operators_that_would_mean_something_else_after_a_resume_are_refused_by_name(name, tmp_path):
    stream = OPERATORS[name](keyed(range(9), key=int))
    with pytest.raises(
        OptionError, match=rf"{name}(\(1\))? cannot be part of a durable run: after a resume it would mean"
    ):
        await stream.to(SqliteTable(tmp_path / "run.db", "rows"), run="run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sink", [None, "rows.db", SqliteTable, 3.5], ids=repr)
async def test_what_is_no_sink_is_refused(sink):
    with pytest.raises(
        OptionError, match=r"sink must be a sink, as penstock\.SqliteTable\('rows\.db', 'rows'\) is, got"
    ):
        await keyed([1], key=int).to(sink, run="run")


@pytest.mark.parametrize(
    "stream",
    [
        penstock.stream([1]),
        keyed([1], key=int).zip(keyed([2], key=int)),
        keyed([1], key=int).chain(keyed([2], key=int)),
        keyed([1], key=int).merge(penstock.stream([2])),
    ],
    ids=["stream", "zip", "chain", "merge of both kinds"],
)
async def test_items_without_keys_are_refused(stream, tmp_path):
    with pytest.raises(OptionError, match=r"a durable run needs a source whose items have keys: see penstock\.keyed"):
        await stream.to(SqliteTable(tmp_path / "run.db", "rows"), run="run")


@pytest.mark.parametrize(("run", "name"), [("r\udce9", "keyed"), ("run", "numbers \udce9")])
async def test_names_that_cannot_be_written_are_refused_and_nothing_is_made(tmp_path, run, name):
    stream = keyed([1], key=int, name=name).map(lambda number: {"n": number})
    with pytest.raises(OptionError, match=r"must be a str that can be written as UTF-8, got '.*\\udce9'"):
        await stream.to(SqliteTable(tmp_path / "run.db", "rows"), run=run)
    assert list(tmp_path.iterdir()) == []


async def test_failures_in_band_are_refused_and_nothing_is_made(tmp_path):
    """A row is a result; an `Ok` round it, or a `Failed`, would not know its root."""
    stream = keyed([1], key=lambda number: number).map(lambda number: {"n": number}, on_error="return", name="wrap")
    with pytest.raises(OptionError, match="on_error of wrap must be 'raise', 'skip' or 'collect' in a durable run"):
        await stream.to(SqliteTable(tmp_path / "run.db", "rows"), run="run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "row",
    [{"other": 1}, {"n": 2**70}, {"n": "\udcff"}, {"n": object()}, {"n": 1}, 5],
    ids=["unknown column", "too large", "no text", "no value", "key that is there", "no mapping"],
)
async def test_a_row_that_the_store_refuses_costs_no_root_that_came_before(tmp_path, row):
    """P10: the error names the root; what is committed with it by chance is not done again by every run that fails."""
    begun = []

    def to_rows(number):
        begun.append(number)
        return row if number == 50 else {"n": number}

    async def run():
        stream = keyed(range(100), key=lambda number: number).map(to_rows)
        return await stream.to(SqliteTable(tmp_path / "run.db", "rows", key="n"), run="run")

    with pytest.raises(OptionError) as raised:
        await run()
    assert "penstock: root 50" in raised.value.__notes__
    begun.clear()
    with pytest.raises(OptionError):
        await run()
    assert begun[0] == 50
    connection = apsw.Connection(str(tmp_path / "run.db"))
    try:
        stored = [n for (n,) in connection.execute("SELECT n FROM rows ORDER BY rowid")]
        after = range(51, 100) if row == {"n": 1} else ()  # it waits whether the root that has its key gives it up
        assert stored == [*range(50), *after]
    finally:
        connection.close()


class Plain:
    """A sink of one's own: it binds what it is given, as it is."""

    delivery = "exactly once"

    def __init__(self, path):
        self.path = str(path)

    def open(self, durability):
        return PlainStore(self.path, durability)


class PlainStore(SqliteStore):
    def prepare(self):
        self.connection.execute("CREATE TABLE IF NOT EXISTS mine (root, value NOT NULL)")

    def replace(self, root, rows):
        self.connection.execute("DELETE FROM mine WHERE root = ?", (root.number,))
        self.connection.executemany("INSERT INTO mine VALUES (?, ?)", ((root.number, row) for row in rows))


@pytest.mark.parametrize("bad", [None, "\ud800", 2**64, object()], ids=["constraint", "surrogate", "long", "object"])
@pytest.mark.parametrize("alone", [True, False])
async def test_what_sqlite_cannot_hold_is_the_failure_of_its_root_in_any_sink(tmp_path, bad, alone):
    """Else the run would end at the same place for ever, whatever `on_error` says."""
    sink = Plain(tmp_path / "t.db")
    roots = {"b": [1, bad]} if alone else {"a": [1], "b": [1, bad], "c": [1]}
    rows = keyed(roots, key=str).flat_map(roots.__getitem__)
    report = await rows.to(sink, run="r", on_error="collect")
    assert (report.delivered, report.dead, report.complete) == (len(roots) - 1, 1, True)
    assert (await rows.to(sink, run="r")).dead_before == 1
    with pytest.raises(RowError):
        await rows.to(sink, run="another")


@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("size", [1, 1_000])
async def test_a_row_that_a_callback_refuses_is_the_failure_of_its_root(tmp_path, kind, size):
    """The roots of the call are handed over one by one; what the function raises otherwise ends the run."""
    brought = set()

    def plain(rows):
        for row in rows:
            if row.row == "bad":
                raise RowError("no")
            brought.add((row.key, row.index))

    async def on_loop(rows):
        plain(rows)

    sink = penstock.Callback(plain if kind == "plain" else on_loop, journal=tmp_path / "t.db", size=size)
    roots = {"a": ["ok"], "b": ["ok", "bad"], "c": ["ok", "ok"]}
    rows = keyed(roots, key=str).flat_map(roots.__getitem__)
    report = await rows.to(sink, run="r", on_error="collect")
    assert (report.delivered, report.dead, report.complete) == (2, 1, True)
    assert brought - {("b", 0)} == {("a", 0), ("c", 0), ("c", 1)}
    with pytest.raises(RowError):
        await rows.to(sink, run="another")
