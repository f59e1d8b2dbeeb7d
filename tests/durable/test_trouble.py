"""Where the machine says no: full disks, missing permissions, other processes, damaged files, clocks that jump."""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from penstock import PenstockError
from penstock.durable.roots import Root
from penstock.durable.sqlite import journal
from penstock.durable.store_errors import HeldError, StoreError, StoreFullError
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed
from penstock.testing import run_in_real_time

pytestmark = pytest.mark.slow


REPOSITORY = Path(__file__).parent.parent.parent
SIZE = 10_000
"""Characters of a row."""


def deliver(database, roots, *, told=lambda _: None, durability="process"):
    """Run over so many roots, of a row each, to the end."""

    async def work(number):
        told(number)
        return {"n": number, "text": f"{number}" * (SIZE // len(str(number)))}

    async def main():
        stream = keyed(range(roots), key=lambda number: number).map(work, concurrency=8)
        return await stream.to(SqliteTable(database, "rows"), run="run", durability=durability)

    return run_in_real_time(main())


def numbers(database):
    """The numbers of the rows; every one of them is settled."""
    connection = apsw.Connection(str(database))
    try:
        assert connection.pragma("integrity_check") == "ok"
        found = [n for (n,) in connection.execute("SELECT n FROM rows ORDER BY n")]
        assert found == [key for (key,) in connection.execute("SELECT key FROM penstock_roots ORDER BY key")]
        return found
    finally:
        connection.close()


CHILD = """
import asyncio, os, sys
from tests.durable.test_trouble import deliver
{before}
deliver({database!r}, {roots}, told=lambda number: {told})
"""


def child(database, roots, *, before="", told="None", prefix=(), **options):
    """Run in a process of its own, which may be given less than this one has."""
    code = CHILD.format(before=before, database=str(database), roots=roots, told=told)
    return subprocess.Popen([*prefix, sys.executable, "-c", code], cwd=REPOSITORY, text=True, **options)


def failure(process):
    """The error on which a process ended."""
    with process:
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1, errors
    return next(line for line in errors.splitlines() if line.startswith("penstock.durable"))


UNPRIVILEGED = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    if os.geteuid() == 0
    else ()
)
"""What lets permissions count for root, too."""

needs_permissions = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root ignores permissions, and there is no setpriv"
)


# A full disk


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes, and how to make it larger."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    yield place, lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_full_disk_is_told_and_what_was_committed_stays(small_disk, durability):
    """P10: the error says what is the matter; with more room the next run goes on."""
    place, resize = small_disk
    deliver(place / "run.db", 20, durability=durability)
    with pytest.raises(StoreFullError, match=r"run\.db: the disk is full"):
        deliver(place / "run.db", 400, durability=durability)
    for end in ("", "-wal"):  # looked at elsewhere: here is no room for the index of the log
        if (file := place / f"run.db{end}").exists():
            shutil.copyfile(file, place.parent / file.name)
    before = numbers(place.parent / "run.db")
    assert 20 <= len(before) < 400
    resize("20m")
    report = deliver(place / "run.db", 400, durability=durability)
    assert (report.already_done, report.delivered, report.complete) == (len(before), 400 - len(before), True)
    assert numbers(place / "run.db") == list(range(400))


def test_a_disk_that_is_full_at_the_start_is_told(small_disk):
    place, _ = small_disk
    (place / "rest").write_bytes(bytes(2**21 - 8192))
    with pytest.raises(StoreFullError, match="the disk is full"):
        deliver(place / "run.db", 1)
    (place / "rest").unlink()
    assert deliver(place / "run.db", 3).complete


def test_a_limit_on_the_size_of_files_is_told_as_a_full_disk(tmp_path):
    """`ulimit -f`, and quotas: the system says EFBIG or EDQUOT instead of ENOSPC."""
    deliver(tmp_path / "run.db", 5)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    said = failure(child(tmp_path / "run.db", 200, before=limit, stderr=subprocess.PIPE))
    assert said.endswith("run.db: the disk is full")
    before = numbers(tmp_path / "run.db")
    assert 5 <= len(before) < 200
    assert deliver(tmp_path / "run.db", 200).already_done == len(before)


def test_a_failing_disk_ends_a_run_that_has_nothing_to_hand_on(small_disk):
    """A run whose items are all dropped, or that waits for its source, learns of it, too."""
    place, _ = small_disk
    taken = []

    async def main():
        def source():
            for number in range(10**6):
                taken.append(number)
                yield number

        stream = keyed(source, key=lambda number: f"{number:0500}").filter(lambda _: False)
        return await stream.to(SqliteTable(place / "run.db", "rows"), run="run")

    with pytest.raises(StoreFullError):
        run_in_real_time(main())
    assert len(taken) < 10**5


# Permissions


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".lock")}


@needs_permissions
@pytest.mark.parametrize("protected", ["database", "directory", "both"])
def test_what_cannot_be_written_is_refused_and_not_changed(tmp_path, protected):
    (folder := tmp_path / "folder").mkdir()
    deliver(folder / "run.db", 3)
    before = (folder / "run.db").read_bytes()
    if protected != "directory":
        (folder / "run.db").chmod(0o444)
    if protected != "database":
        (folder / "run.db.lock").unlink()
        folder.chmod(0o555)
    said = failure(child(folder / "run.db", 5, prefix=UNPRIVILEGED, stderr=subprocess.PIPE))
    folder.chmod(0o755)
    assert "penstock.durable.store_errors.StoreError" in said
    assert "run.db: cannot be" in said
    assert (folder / "run.db").read_bytes() == before


@needs_permissions
def test_permissions_that_are_lost_midway_lose_no_row(tmp_path):
    """What is open stays open; whether or not the run comes to its end, the next one does."""
    (folder := tmp_path / "folder").mkdir()
    lose = f"os.chmod({str(folder)!r}, 0o555) or os.chmod({str(folder / 'run.db')!r}, 0o444) if number == 20 else None"
    with child(folder / "run.db", 60, told=lose, prefix=UNPRIVILEGED, stderr=subprocess.DEVNULL) as process:
        process.wait(timeout=60)
    folder.chmod(0o755)
    (folder / "run.db").chmod(0o644)
    report = deliver(folder / "run.db", 60)
    assert report.complete
    assert report.already_done + report.delivered == 60
    assert numbers(folder / "run.db") == list(range(60))


# Other processes


def until(process):
    """Wait for the line that a child writes when it has come to its place."""
    assert select.select([process.stdout], [], [], 60)[0], "the child says nothing"
    return process.stdout.readline()


@pytest.fixture
def holder(tmp_path):
    """A process in the middle of a run, that waits until it is killed; it has committed root 0."""
    told = "(print('here', flush=True), sys.stdin.read()) if number == 8 else None"
    with child(
        tmp_path / "run.db", 20, told=told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert until(process) == "here\n"
        yield process
        process.kill()


@pytest.mark.quick
def test_a_second_process_is_told_who_writes(tmp_path, holder):
    """One run at a time; the lock goes with its holder, however that ends (trap 49)."""
    with pytest.raises(HeldError, match=rf"run\.db: process {holder.pid} (on .* )?is writing to it"):
        deliver(tmp_path / "run.db", 20)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert deliver(tmp_path / "run.db", 20).complete
    assert numbers(tmp_path / "run.db") == list(range(20))


def test_a_link_to_the_database_leads_to_the_same_lock(tmp_path, holder):
    """Two names of one file are one place: two writers would each believe that they are alone (trap 47)."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.db").symlink_to(tmp_path / "run.db")
    with pytest.raises(HeldError, match=rf"link\.db: process {holder.pid} (on .* )?is writing to it"):
        deliver(tmp_path / "elsewhere" / "link.db", 20)


def test_readers_do_not_keep_a_run_from_starting_after_a_kill(tmp_path, holder):
    """Whoever opens a database first after a kill reads its log anew; a run that comes meanwhile waits for that."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    code = f"""
import apsw
while True:
    connection = apsw.Connection("{tmp_path / "run.db"}", flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(1000)
    connection.execute("SELECT count(*) FROM penstock_roots").get
    connection.close()
    print("read", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as reader:
        try:
            assert until(reader) == "read\n"
            for roots in range(20, 40):
                assert deliver(tmp_path / "run.db", roots).complete
        finally:
            reader.kill()


# Files


def test_a_newer_journal_is_refused_and_not_changed(tmp_path):
    deliver(tmp_path / "run.db", 3)
    connection = apsw.Connection(str(tmp_path / "run.db"))
    connection.execute("UPDATE penstock_journal SET format = format + 1")
    connection.close()
    before = snapshot(tmp_path)
    with pytest.raises(StoreError, match=r"run\.db: a journal of format"):
        deliver(tmp_path / "run.db", 5)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("content", [b"not a database at all " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_what_is_no_database_is_refused_and_not_changed(tmp_path, content):
    (tmp_path / "run.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"run\.db: (not an SQLite database|the database is damaged)"):
        deliver(tmp_path / "run.db", 3)
    assert (tmp_path / "run.db").read_bytes() == content


@pytest.mark.quick
def test_a_damaged_database_is_told(tmp_path):
    deliver(tmp_path / "run.db", 200)
    with (tmp_path / "run.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(30 * 4096))
    with pytest.raises(StoreError, match=r"run\.db: the database is damaged"):
        deliver(tmp_path / "run.db", 300)


def test_a_place_that_cannot_be_a_database_is_refused(tmp_path):
    with pytest.raises(StoreError, match="a directory, not a database"):
        deliver(tmp_path, 3)
    with pytest.raises(StoreError, match="its directory does not exist"):
        deliver(tmp_path / "none" / "run.db", 3)
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_was_removed_takes_no_half_root_along(tmp_path, holder):
    """Who removes the log beside the database removes committed roots, whole ones; they are done again."""
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    for end in ("-wal", "-shm"):
        Path(f"{tmp_path / 'run.db'}{end}").unlink(missing_ok=True)
    assert deliver(tmp_path / "run.db", 20).complete
    assert numbers(tmp_path / "run.db") == list(range(20))


# Clocks


@pytest.mark.parametrize("look", [0, 3600])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_is_removed_or_replaced_is_told(tmp_path, monkeypatch, look, replaced):
    """Rows go on to a file that nobody will find: the run must not pass for complete."""
    monkeypatch.setattr(journal, "_LOOK", look)
    database = tmp_path / "run.db"

    def remove(number):
        if number == 20:
            database.unlink()
            if replaced:
                database.write_bytes(b"")

    with pytest.raises(StoreError, match=r"run\.db: was removed or replaced while the run wrote to it"):
        deliver(database, 40, told=remove)
    assert database.exists() == replaced


@needs_permissions
def test_a_database_that_cannot_be_looked_at_any_more_is_not_taken_for_one_that_is_gone(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "run.db").touch()
    closed = f"number == 20 and os.chmod({str(place)!r}, 0)"
    process = child(
        place / "run.db",
        40,
        before="import penstock.durable.sqlite.journal as j; j._LOOK = 0",
        told=closed,
        prefix=UNPRIVILEGED,
    )
    with process:
        assert process.wait(timeout=60) == 0
    place.chmod(0o755)
    assert numbers(place / "run.db") == list(range(40))


def test_a_database_may_be_where_a_link_leads_and_its_path_relative(tmp_path, monkeypatch):
    (tmp_path / "link.db").symlink_to("run.db")
    monkeypatch.chdir(tmp_path)
    assert deliver("link.db", 40, told=lambda _: os.chdir("/")).complete


def test_nothing_depends_on_the_wall_clock(tmp_path, monkeypatch):
    """Times are written for readers, and are never compared."""
    now = iter(range(10**9, 0, -86_400))
    monkeypatch.setattr(journal, "time", lambda: float(next(now)))
    assert deliver(tmp_path / "run.db", 10).delivered == 10
    report = deliver(tmp_path / "run.db", 12)
    assert (report.already_done, report.delivered) == (10, 2)


def test_a_kill_outside_wal_mode_keeps_neither_readers_nor_the_next_run_out(tmp_path):
    """A database that was not in WAL mode when its writer was killed is rolled back by whoever opens it first."""
    code = f"""
import os, signal
import apsw
connection = apsw.Connection({str(tmp_path / "run.db")!r})
connection.pragma("journal_mode", "delete")
connection.pragma("cache_size", 1)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE rows SET text = 'half'")
os.kill(os.getpid(), signal.SIGKILL)
"""
    for reader in (True, False):
        deliver(tmp_path / "run.db", 30)
        subprocess.run([sys.executable, "-c", code], check=False)
        assert (tmp_path / "run.db-journal").stat().st_size > 0
        if reader:
            assert [
                row["n"] for row in SqliteTable(tmp_path / "run.db", "rows").rows() if row["text"] != "half"
            ] == list(range(30))
    assert deliver(tmp_path / "run.db", 31).delivered == 1
    assert numbers(tmp_path / "run.db") == list(range(31))


def test_a_root_that_was_lost_sight_of_does_not_pass_for_done(tmp_path, monkeypatch):
    """P11: a defect, here of an operator that forgets what it drops, is told, and the next run does the root."""
    settled, forgets = Root.settled, [3, 5]

    def forgetful(root):
        if root.key not in forgets:
            settled(root)

    monkeypatch.setattr(Root, "settled", forgetful)
    database = tmp_path / "rows.db"
    with pytest.raises(PenstockError, match="but 2 of its roots have not, the first of them 3: a defect of penstock"):
        deliver(database, 9)
    assert numbers(database) == [0, 1, 2, 4, 6, 7, 8]
    forgets.clear()
    report = deliver(database, 9)
    assert (report.delivered, report.already_done, report.complete) == (2, 7, True)
    assert numbers(database) == [*range(9)]
