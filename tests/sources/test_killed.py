"""A run over each source, killed in the middle and started again: every root is there, and once."""

import subprocess
import sys

import apsw
import pytest

from penstock.sinks.table import SqliteTable

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, sys
import penstock
from penstock.sinks.table import SqliteTable

kind, place, stop_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
source = {
    "files": lambda: penstock.files(place + "/docs").map(lambda file: {"id": int(file.read_text())}),
    "jsonl": lambda: penstock.jsonl(place + "/lines.jsonl").map(lambda value: {"id": value["id"]}),
    "rows": lambda: penstock.rows(place + "/app.db", "SELECT id FROM users ORDER BY id", key="id"),
    "rows of the sink": lambda: penstock.rows(place + "/out.db", "SELECT id FROM users ORDER BY id", key="id"),
}[kind]()
done = 0

async def work(row):
    global done
    done += 1
    if done == stop_at:
        while True:
            await asyncio.sleep(0.001)
            if done > stop_at + 3:
                print("now", flush=True)
                await asyncio.sleep(3600)
    return row

report = asyncio.run(
    source.map(work, concurrency=8, ordered=False).to(SqliteTable(place + "/out.db", "copies"), run="copy")
)
print(report.already_done)
"""

ITEMS = 700


@pytest.fixture
def place(tmp_path):
    (tmp_path / "docs").mkdir()
    for number in range(ITEMS):
        (tmp_path / "docs" / f"{number % 7}-{number}.txt").write_text(str(number))
    (tmp_path / "lines.jsonl").write_text("".join(f'{{"id": {number}}}\n' for number in range(ITEMS)))
    for name in ("app.db", "out.db"):
        connection = apsw.Connection(str(tmp_path / name))
        connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")
        with connection:
            connection.executemany("INSERT INTO users VALUES (?)", ((number,) for number in range(ITEMS)))
        connection.close()
    return tmp_path


def started(kind, place, stop_at):
    command = [sys.executable, "-c", PROGRAM, kind, str(place), str(stop_at)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["files", "jsonl", "rows", "rows of the sink"])
def test_a_run_that_is_killed_goes_on_where_it_was(place, kind):
    for stop_at in (100, 250):
        with started(kind, place, stop_at) as run:
            assert run.stdout.readline() == "now\n"
            run.kill()
    with started(kind, place, 0) as run:
        already, _ = run.communicate()
    assert run.returncode == 0
    assert int(already) > 0
    assert sorted(row["id"] for row in SqliteTable(place / "out.db", "copies").rows()) == list(range(ITEMS))
