"""What a durable run refuses when it is asked for, and rows that a store refuses."""

import apsw
import pytest

from penstock.core.errors import OptionError
from penstock.durable.sqlite import StoreError
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

pytestmark = pytest.mark.real_time


async def test_failures_in_band_are_refused_and_nothing_is_made(tmp_path):
    """A row is a result; an `Ok` round it, or a `Failed`, would not know its root."""
    stream = keyed([1], key=lambda number: number).map(lambda number: {"n": number}, on_error="return", name="wrap")
    with pytest.raises(OptionError, match="on_error of wrap must be 'raise', 'skip' or 'collect' in a durable run"):
        await stream.to(SqliteTable(tmp_path / "run.db", "rows"), run="run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"other": 1}, OptionError),
        ({"n": 2**70}, OptionError),
        ({"n": "\udcff"}, OptionError),
        ({"n": object()}, OptionError),
        ({"n": 1}, StoreError),
        (5, OptionError),
    ],
    ids=["unknown column", "too large", "no text", "no value", "key that is there", "no mapping"],
)
async def test_a_row_that_the_store_refuses_costs_no_root_that_came_before(tmp_path, row, error):
    """P10: the error names the root; what is committed with it by chance is not done again by every run that fails."""
    begun = []

    def to_rows(number):
        begun.append(number)
        return row if number == 50 else {"n": number}

    async def run():
        stream = keyed(range(100), key=lambda number: number).map(to_rows)
        return await stream.to(SqliteTable(tmp_path / "run.db", "rows", key="n"), run="run")

    with pytest.raises(error) as raised:
        await run()
    assert "penstock: root 50" in raised.value.__notes__
    begun.clear()
    with pytest.raises(error):
        await run()
    assert begun[0] == 50
    connection = apsw.Connection(str(tmp_path / "run.db"))
    try:
        assert [n for (n,) in connection.execute("SELECT n FROM rows ORDER BY rowid")] == list(range(50))
    finally:
        connection.close()
