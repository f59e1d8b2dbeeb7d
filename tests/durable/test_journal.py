"""The journal: its format, who may write to it, and where it may lie."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

import penstock
from penstock.durable.sqlite import disks, lock, tables
from penstock.durable.sqlite.lock import exclusive, holder
from penstock.durable.sqlite.tables import FORMAT
from penstock.durable.status import runs
from penstock.durable.store_errors import HeldError, StoreError
from penstock.sinks.callback import Callback
from penstock.sinks.table import SqliteTable

pytestmark = pytest.mark.real_time


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "t.db", "rows")


def deliver(sink, roots=range(3), **options):
    stream = penstock.keyed(roots, key=int, name="numbers").map(lambda number: {"number": number})
    return stream.to(sink, run="r", **options)


def ask(path, question):
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def columns(path, table):
    return [row[1] for row in ask(path, f"PRAGMA table_info({table})")]


STEPS = {
    1: "ALTER TABLE penstock_runs ADD COLUMN colour TEXT NOT NULL DEFAULT 'red';",
    2: "UPDATE penstock_runs SET colour = 'blue'; CREATE TABLE penstock_more (number INTEGER);",
}


async def test_a_journal_of_an_older_format_becomes_one_of_this(table, monkeypatch):
    await deliver(table)
    assert ask(table.path, "SELECT format FROM penstock_journal") == [(FORMAT,)]
    monkeypatch.setattr(tables, "_MIGRATIONS", {FORMAT - 1 + step: change for step, change in STEPS.items()})
    monkeypatch.setattr(tables, "_TABLES", ";".join((tables._TABLES, *STEPS.values())))
    monkeypatch.setattr(tables, "FORMAT", FORMAT + 2)
    with pytest.raises(StoreError, match=f"a journal of format {FORMAT}; the next run into it makes it one of format"):
        runs(table.path)
    report = await deliver(table, range(4))
    assert (report.already_done, report.delivered) == (3, 1)
    assert ask(table.path, "SELECT format FROM penstock_journal") == [(FORMAT + 2,)]
    assert ask(table.path, "SELECT colour FROM penstock_runs") == [("blue",)]
    assert columns(table.path, "penstock_more") == ["number"]
    assert [row["number"] for row in table.rows()] == [0, 1, 2, 3]


async def test_a_migration_that_fails_changes_nothing(table, monkeypatch):
    await deliver(table)
    before = ask(table.path, "SELECT sql FROM sqlite_schema ORDER BY name")
    steps = {FORMAT: STEPS[1], FORMAT + 1: "CREATE TABLE penstock_more (number INTEGER); SELECT number FROM nowhere;"}
    monkeypatch.setattr(tables, "_MIGRATIONS", steps)
    monkeypatch.setattr(tables, "FORMAT", FORMAT + 2)
    with pytest.raises(StoreError, match="no such table: nowhere"):
        await deliver(table, range(4))
    assert ask(table.path, "SELECT sql FROM sqlite_schema ORDER BY name") == before
    assert ask(table.path, "SELECT format FROM penstock_journal") == [(FORMAT,)]
    monkeypatch.undo()
    assert (await deliver(table, range(4))).already_done == 3


KILLED = """
import asyncio, os, signal
import penstock
from penstock.durable.sqlite import tables

tables._MIGRATIONS = {tables.FORMAT: "CREATE TABLE penstock_more (number INTEGER)"}
tables.FORMAT += 1
tables._check_newer = lambda path, connection: connection.in_transaction and os.kill(os.getpid(), signal.SIGKILL)
stream = penstock.keyed(range(4), key=int, name="numbers").map(lambda number: {"number": number})
asyncio.run(stream.to(penstock.SqliteTable("t.db", "rows"), run="r"))
"""


def test_killed_in_a_migration_it_was_none(table, tmp_path, run):
    run(deliver(table))
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert ask(table.path, "SELECT format FROM penstock_journal") == [(FORMAT,)]
    assert columns(table.path, "penstock_more") == []
    assert run(deliver(table, range(4))).already_done == 3


@pytest.mark.parametrize("kind", ["table", "callback"])
async def test_a_journal_of_a_newer_format_is_refused_and_left_as_it_is(tmp_path, kind):
    path = tmp_path / "t.db"
    sink = SqliteTable(path, "rows") if kind == "table" else Callback(lambda rows: None, journal=path)
    await deliver(sink)
    connection = apsw.Connection(str(path))
    connection.execute(f"UPDATE penstock_journal SET format = {FORMAT + 1}")
    connection.pragma("journal_mode", "delete")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"a journal of format {FORMAT + 1}; this penstock knows formats up to"):
        await deliver(sink, range(4))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
def test_durability_is_how_sqlite_syncs(table, durability, synchronous):
    store = table.open(durability)
    assert (store.connection.pragma("journal_mode"), store.connection.pragma("synchronous")) == ("wal", synchronous)
    store.close()


async def test_a_second_writer_is_told_who_and_since_when(table, tmp_path):
    told = []

    def meddle(row):
        program = f"import fcntl; fcntl.flock(open({str(table.path + '.lock')!r}), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        told.append(done.returncode)
        with pytest.raises(HeldError) as caught:
            table.open("process")
        told.append(str(caught.value))
        told.append(holder(table.path))
        return {"number": row}

    assert holder(table.path) is None
    await penstock.keyed([1], key=int).map(meddle).to(table, run="r")
    owner = f"process {os.getpid()} on {os.uname().nodename}"
    assert told[0] == 1  # the kernel's lock, in another process
    assert told[1].startswith(f"{table.path}: {owner} is writing to it, since 20")
    assert told[2].startswith(f"{owner}, since 20")
    assert ask(table.path, "SELECT owner FROM penstock_runs") == [(owner,)]
    assert holder(table.path) is None


def test_a_link_leads_to_the_lock_of_what_it_links_to(table, tmp_path):
    link = tmp_path / "deep"
    link.mkdir()
    (link / "l.db").symlink_to(table.path)
    with exclusive(table.path):
        with pytest.raises(HeldError, match=r"l\.db: process"):
            SqliteTable(link / "l.db", "rows").open("process")
        assert holder(str(link / "l.db")) == holder(table.path)
    assert [path.name for path in link.iterdir()] == ["l.db"]


def test_who_only_looks_keeps_nobody_out(table, monkeypatch):
    """Looking takes the lock for a moment; whoever wants it meanwhile asks again."""
    with exclusive(table.path):
        pass
    with Path(f"{table.path}.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(lock, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        with exclusive(table.path):
            assert holder(table.path).startswith(f"process {os.getpid()} on ")


FORKING = """
import asyncio, os, sys
import penstock

async def work(number):
    if number == 1:
        child = os.fork()
        if not child:
            os.read(int(sys.argv[1]), 1)  # stays until it is told to go
            os._exit(0)
        print(child, flush=True)
        await asyncio.Event().wait()
    return {"number": number}

stream = penstock.keyed(range(3), key=int, name="numbers").map(work)
asyncio.run(stream.to(penstock.SqliteTable("t.db", "rows"), run="r"))
"""


def test_a_forked_child_that_outlives_its_parent_holds_nothing(table, tmp_path, run):
    """`flock` belongs to the open file, which a child shares: the lock would stay as long as the child."""
    stay, leave = os.pipe()
    command = [sys.executable, "-W", "ignore", "-c", FORKING, str(stay)]
    parent = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, pass_fds=[stay])
    try:
        child = int(parent.stdout.readline())
        with pytest.raises(HeldError, match=f"process {parent.pid} on"):
            table.open("process")
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        os.kill(child, 0)  # it lives
        report = run(deliver(table))
        assert (report.delivered + report.already_done, report.complete) == (3, True)
        os.kill(child, 0)
    finally:
        parent.kill()
        os.close(leave)
        parent.stdout.close()
        os.close(stay)
        parent.wait()


def test_a_forked_child_that_ends_leaves_its_parent_the_lock(table):
    with exclusive(table.path):
        subprocess.run([sys.executable, "-c", ""], check=True)
        assert holder(table.path) is not None
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        assert holder(table.path) is not None
    assert holder(table.path) is None


async def test_a_run_keeps_to_its_source(table):
    await deliver(table)
    with pytest.raises(StoreError, match=r"the run 'r' is over numbers, not over letters; give this one another name"):
        await penstock.keyed("ab", key=str, name="letters").to(table, run="r")


async def test_a_run_that_has_read_nothing_may_have_another_source(table):
    """A wrong name of a file would else need another name of the run."""

    def broken():
        raise OSError("no such file")
        yield

    with pytest.raises(OSError, match="no such file"):
        await penstock.keyed(broken, key=str, name="letters").to(table, run="r")
    assert (await deliver(table)).delivered == 3
    with pytest.raises(StoreError, match="over numbers, not over letters"):
        await penstock.keyed("ab", key=str, name="letters").to(table, run="r")


class Other(SqliteTable):
    """A table that says what it is."""

    identity = "the other rows"


@pytest.mark.parametrize("kind", [Other, lambda path, _: Callback(lambda rows: None, journal=path)])
async def test_a_run_keeps_to_its_sink(table, kind):
    """Else what is done would count as done where nothing of it is."""
    await deliver(table)
    other = kind(table.path, "more")
    with pytest.raises(StoreError, match=r"the run 'r' is into .*, not into .*; give this one another name"):
        await deliver(other)
    assert (await deliver(table)).already_done == 3


OF_FORMAT_2 = """
UPDATE penstock_journal SET format = 2;
DROP TABLE penstock_codes;
ALTER TABLE penstock_journal DROP COLUMN last_id;
ALTER TABLE penstock_runs ADD COLUMN since INTEGER NOT NULL DEFAULT 1;
"""


async def test_a_restart_that_was_begun_in_the_second_format_goes_on(table):
    """There, the first opening whose code counts was noted; what was done before it is to be done again."""
    await deliver(table)
    await deliver(table, range(5))
    connection = apsw.Connection(table.path)
    connection.execute(f"{OF_FORMAT_2} UPDATE penstock_runs SET since = 2")
    connection.close()
    report = await deliver(table, range(5))
    assert (report.redone, report.delivered, report.already_done, report.by_other_code) == (3, 3, 2, 0)


async def test_a_run_of_the_second_format_was_done_by_the_code_that_it_had_last(table):
    """No more is known of it: an upgrade alone has nothing done again."""
    await deliver(table)
    await deliver(table, range(5))
    connection = apsw.Connection(table.path)
    connection.execute(OF_FORMAT_2)
    connection.close()
    assert (await deliver(table, range(5), on_change="restart")).already_done == 5
    other = penstock.keyed(range(5), key=int, name="numbers").map(lambda number: {"number": -number})
    report = await other.to(table, run="r")
    assert (report.already_done, report.by_other_code) == (5, 5)
    assert (await other.to(table, run="r", on_change="restart")).delivered == 5


async def test_a_run_of_the_first_format_is_bound_to_the_sink_that_comes_next(table):
    await deliver(table)
    connection = apsw.Connection(table.path)
    connection.execute(
        f"{OF_FORMAT_2} UPDATE penstock_journal SET format = 1; ALTER TABLE penstock_runs DROP COLUMN sink"
    )
    connection.close()
    assert (await deliver(table)).already_done == 3
    with pytest.raises(StoreError, match=r"not into the other rows; give this one another name"):
        await deliver(Other(table.path, "more"))


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:50 / /home rw - nfs4 server:/home rw,vers=4.2
41 40 0:51 / /home/me/local rw master:3 - xfs /dev/vdb rw
42 27 0:52 / /mnt/the\\040share rw - cifs //server/share rw
43 27 0:53 / /mnt/tab\\011 rw - fuse.sshfs me@server: rw
44 27 0:54 / /data rw - ext4 /dev/vdc rw
45 44 0:55 / /data rw - fuse.s3fs bucket rw
46 27 0:56 / /pool rw - fuse.mergerfs disks rw
a line that is none
47 27 0:57 / /short
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/t.db", "ext4"),
        ("/home/me/t.db", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/t.db", "ext4"),
        ("/home/me/local/deep/t.db", "xfs"),
        ("/mnt/the share/t.db", "cifs"),
        ("/mnt/tab\t/t.db", "fuse.sshfs"),
        ("/data/t.db", "fuse.s3fs"),
        ("/pool/t.db", "fuse.mergerfs"),
        ("/short/t.db", "ext4"),
    ],
)
def test_the_file_system_is_that_of_the_longest_mount_and_of_the_last_of_one_place(path, kind):
    assert disks.file_system(path, MOUNTS) == kind


def test_without_mounts_nothing_is_known():
    assert disks.file_system("/srv/t.db", "") == ""


def test_this_disk_is_known_and_local(tmp_path):
    kind = disks.file_system(str(tmp_path), Path("/proc/self/mountinfo").read_text())
    assert kind
    assert kind not in disks.NETWORK
    disks.refuse_network_disk(str(tmp_path / "t.db"))


def test_a_network_disk_is_refused_and_nothing_is_made_there(table, tmp_path, monkeypatch, run):
    """Of what the tests' own disk is: as if that were one."""
    kind = disks.file_system(str(tmp_path), Path("/proc/self/mountinfo").read_text())
    monkeypatch.setattr(disks, "NETWORK", {kind})
    with pytest.raises(StoreError, match=rf"t\.db: on a network disk \({kind}\)"):
        run(deliver(table))
    assert list(tmp_path.iterdir()) == []
