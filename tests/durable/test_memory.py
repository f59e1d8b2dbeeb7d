"""P7: the memory of a durable run does not grow with its input."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

import penstock
from penstock.durable.ledger import Ledger
from penstock.durable.writer import WAITING, Writer
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed
from penstock.testing import run_in_real_time

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent.parent


def peak(kind, megabytes):
    command = [sys.executable, "-m", "tests.durable.flood", kind, str(megabytes)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize(
    ("kind", "little", "much"),
    [("big", 5, 200), ("one", 2, 20), ("small", 1, 5), ("nested", 10, 100), ("function", 10, 100)],
)
def test_the_peak_stays_where_it_was_when_the_input_is_many_times_larger(kind, little, much):
    """Generated items, of which nothing is kept: megabytes each; one root with all the rows; a hundred bytes each.

    What rows hold within what they hold counts, too: ten thousand rows of 50 kB were held.
    """
    assert peak(kind, much) < peak(kind, little) + 25


@pytest.mark.parametrize("dropped", [True, False], ids=["dropped", "delivered"])
def test_a_slow_disk_holds_up_roots_with_rows_and_roots_without(tmp_path, monkeypatch, dropped):
    """Roots that came to nothing wait to be committed, too: the source is not read ahead of the disk without bound."""
    moved, held = threading.Event(), []
    commit, taken = Writer._commit, []

    def slow_commit(self, batch, notes):
        moved.wait()
        commit(self, batch, notes)

    monkeypatch.setattr(Writer, "_commit", slow_commit)
    committed = Ledger.committed

    def note(self, root):
        committed(self, root)
        held.append(root.key)

    monkeypatch.setattr(Ledger, "committed", note)

    def source():
        for number in range(4 * WAITING):
            taken.append(number)
            if len(taken) - len(held) > 3 * WAITING:
                moved.set()
            yield number

    async def watch():
        """Let the disk go on when nothing more is read."""
        before = -1
        while len(taken) != before or not taken:
            before = len(taken)
            for _ in range(100):
                await asyncio.sleep(0)
        moved.set()

    async def main():
        watching = asyncio.ensure_future(watch())
        stream = keyed(source, key=lambda number: number).filter(lambda _: not dropped)
        report = await stream.map(lambda number: {"n": number}).to(SqliteTable(tmp_path / "run.db", "rows"), run="run")
        await watching
        return report, len(taken)

    at_the_stop = []
    set_ = moved.set
    monkeypatch.setattr(moved, "set", lambda: (at_the_stop.append(len(taken)), set_()))
    report, read = run_in_real_time(main())
    assert report.complete
    assert read == 4 * WAITING
    assert at_the_stop[0] <= WAITING + 100


@pytest.mark.real_time
async def test_what_is_kept_of_done_roots_is_sized_by_the_run(tmp_path):
    """Not by the greatest id of all runs: a bit for each id there might be would be 125 GB here."""
    table = penstock.SqliteTable(tmp_path / "out.db", "rows")
    stream = penstock.keyed(range(3), key=int).map(lambda n: {"n": n})
    await stream.to(table, run="one")
    connection = apsw.Connection(table.path)
    connection.execute(
        "UPDATE penstock_roots SET id = id + 1000000000000;"
        "UPDATE rows SET penstock_root = penstock_root + 1000000000000"
    )
    connection.close()
    other = penstock.SqliteTable(table.path, "others")
    assert (await stream.to(other, run="two")).delivered == 3
    assert (await stream.to(other, run="two")).already_done == 3
    few = penstock.keyed([1], key=int).map(lambda n: {"n": n})
    report = await few.to(table, run="one", on_missing="delete")
    assert (report.already_done, report.missing, report.removed) == (1, 2, 2)
    assert [row["n"] for row in table.rows()] == [1]
