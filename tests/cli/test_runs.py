"""`penstock runs`, `status` and `dead`: real databases of real runs, some of them killed."""

import asyncio
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import apsw
import pytest

import penstock as library
from penstock import durable
from penstock.durable.sqlite import tables
from penstock.durable.store_errors import StoreError

pytestmark = pytest.mark.slow


OWN = f"process {os.getpid()} on {os.uname().nodename}"


async def work(name):
    if name.startswith("bad"):
        raise ValueError(f"cannot read\nthe {name}")
    return {"name": name}


def deliver(sink, run, names, on_error="collect"):
    stream = library.keyed(names, key=str, version=lambda _: "v1", name=f"the {run}").map(work, on_error=on_error)
    return asyncio.run(stream.to(sink, run=run))


def table(tmp_path):
    return library.SqliteTable(tmp_path / "results.db", "rows")


@pytest.fixture
def database(tmp_path):
    """Two runs: of three roots, two of them dead, and of one that failed."""
    deliver(table(tmp_path), "docs", ["a", "bad one", "bad two"])
    with pytest.raises(ValueError, match="bad three"):
        deliver(table(tmp_path), "others", ["b", "bad three"], on_error="raise")
    return tmp_path / "results.db"


@pytest.fixture
def sent(tmp_path):
    """The journal beside a Callback."""
    deliver(library.Callback(lambda rows: None, journal=tmp_path / "sent.db"), "mails", ["a", "bad"])
    return tmp_path / "sent.db"


@contextmanager
def running(tmp_path, run="docs"):
    """A process that runs, has delivered one root and waits in the next."""
    program = f"""
import asyncio, penstock

async def work(name):
    if name == "last":
        print("working", flush=True)
        await asyncio.Event().wait()
    return {{"name": name}}

stream = penstock.keyed(["first", "last"], key=str, name="the {run}").map(work)
asyncio.run(stream.to(penstock.SqliteTable("results.db", "rows"), run="{run}"))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "working\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.quick
def test_runs_lists_them_the_last_first(penstock, database):
    done = penstock("runs", "results.db")
    assert done.code == 0
    head, first, second = (line.split() for line in done.out.splitlines())
    assert head == ["run", "state", "done", "dead", "rows", "begun", "source"]
    assert (first[:5], first[-2:]) == (["others", "stopped", "1", "0", "1"], ["the", "others"])
    assert (second[:5], second[-2:]) == (["docs", "complete", "1", "2", "1"], ["the", "docs"])


def test_runs_as_json(penstock, database):
    others, docs = penstock("runs", "results.db", "--json").json
    assert (docs["name"], docs["state"], docs["dead"], docs["times"]) == ("docs", "complete", 2, 1)
    assert docs["owner"] == OWN
    assert docs["began"] <= docs["ended"] <= others["began"]
    assert (others["state"], others["ended"]) == ("stopped", None)


@pytest.mark.quick
def test_status_of_one_run_and_of_all(penstock, database):
    done = penstock("status", "results.db", "docs")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[:2] == ["run docs: complete", "  source  the docs"]
    assert lines[2].startswith("  begun   20")
    assert lines[2].endswith(f" by {OWN}; once in all")
    assert lines[3].startswith("  ended   20")
    assert lines[4:] == ["  done    1 root, 1 row", "  dead    2: penstock dead results.db list --run docs"]
    everything = penstock("status", "results.db").out
    assert done.out in everything
    assert "run others: stopped\n" in everything
    assert penstock("status", "results.db", "docs", "--json").json["name"] == "docs"


def test_a_run_is_running_until_it_is_killed(penstock, tmp_path):
    with running(tmp_path) as process:
        while penstock("runs", "results.db", "--json").json[0]["done"] == 0:
            pass  # the first root is committed beside the second one's work
        (run,) = penstock("runs", "results.db", "--json").json
        assert (run["state"], run["done"]) == ("running", 1)
        assert run["owner"].startswith(f"process {process.pid} on ")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert penstock("status", "results.db").out.startswith("run docs: killed\n")
    with running(tmp_path, "others"):
        states = {run["name"]: run["state"] for run in penstock("runs", "results.db", "--json").json}
    assert states == {"others": "running", "docs": "killed"}


def test_dead_lists_the_kinds_of_errors(penstock, database, tmp_path):
    """Errors that differ only in numbers, quoted text and addresses are of one kind."""
    for arguments in ([], ["list"], ["list", "--run", "docs"]):
        done = penstock("dead", "results.db", *arguments)
        head, line = done.out.splitlines()
        assert head.split() == ["roots", "run", "stage", "as", "in", "key", "error"]
        assert line.split() == ["2", "docs", "map(work)", "bad", "one", "ValueError:", "cannot", "read"]

    async def fail(number):
        raise ConnectionError(f"http://{number}.example: 500") if number else KeyError("x")

    numbers = library.keyed(range(5), key=int, name="n").map(fail, on_error="collect", name="fetch")
    asyncio.run(numbers.to(table(tmp_path), run="more"))
    lines = [line.split()[:5] for line in penstock("dead", "results.db").out.splitlines()[1:]]
    assert lines[1:] == [["4", "more", "fetch", "1", "ConnectionError:"], ["1", "more", "fetch", "0", "KeyError:"]]


def test_dead_lists_each_thing_that_failed(penstock, database):
    one_of_them = penstock("dead", "results.db", "list", "--key", "bad two").out.splitlines()
    assert len(one_of_them) == 2
    for arguments in (["--each"], ["list", "--each"]):
        done = penstock("dead", "results.db", *arguments)
        assert done.code == 0
        head, one, two = done.out.splitlines()
        assert head.split() == ["run", "key", "stage", "attempts", "set", "aside", "error"]
        assert one.startswith("docs  bad one  map(work)         1  20")
        assert one.endswith("  ValueError: cannot read")
        assert two.startswith("docs  bad two  map(work) ")


def test_dead_shows_everything_there_is(penstock, database):
    done = penstock("dead", "results.db", "show", "--key", "bad two")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "root bad two of run docs, version v1"
    assert lines[1].startswith("  stage map(work), one attempt, 20")
    assert lines[2] == "  item  'bad two'"
    assert lines[3] == "    Traceback (most recent call last):"
    assert lines[-2:] == ["    ValueError: cannot read", "    the bad two"]
    assert "bad one" not in done.out


def test_export_is_a_document_a_line(penstock, database, sent):
    documents = [json.loads(line) for line in penstock("dead", "results.db", "export").out.splitlines()]
    assert [document["key"] for document in documents] == ["bad one", "bad two"]
    assert set(documents[0]) == {"run", "key", "version", "letters"}
    (letter,) = documents[0]["letters"]
    assert (letter["stage"], letter["attempts"], letter["item"]) == ("map(work)", 1, "'bad one'")
    assert letter["error"] == "ValueError: cannot read\nthe bad one"
    assert penstock("dead", "sent.db", "export").out.count("\n") == 1
    assert penstock("dead", "results.db", "--json").json == documents


def test_what_is_retried_is_done_again_by_the_next_run(penstock, database, tmp_path):
    done = penstock("dead", "results.db", "retry", "--run", "docs", "--key", "bad one")
    assert (done.code, done.out, done.err) == (0, "the next run does 1 dead root again\n", "")
    status = penstock("status", "results.db", "docs")
    assert "  dead    1: " in status.out
    assert "  retried 1, by the next run\n" in status.out
    report = deliver(table(tmp_path), "docs", ["a", "bad one", "bad two"])
    assert (report.delivered, report.already_done, report.dead, report.dead_before) == (0, 1, 1, 1)
    penstock("dead", "results.db", "retry")
    stream = library.keyed(["a", "bad one", "bad two"], key=str, version=lambda _: "v1", name="the docs")
    report = asyncio.run(stream.map(lambda name: {"name": name}).to(table(tmp_path), run="docs"))
    assert (report.delivered, report.already_done, report.rows) == (2, 1, 2)
    assert sorted(row["name"] for row in table(tmp_path).rows()) == ["a", "b", "bad one", "bad two"]


def test_one_that_is_discarded_is_one(penstock, database):
    assert (
        penstock("dead", "results.db", "discard", "--key", "bad one").out == "gave up 1 dead root, until it changes\n"
    )


def test_what_is_discarded_is_done_until_it_changes(penstock, database, tmp_path):
    done = penstock("dead", "results.db", "discard", "--key", "bad one", "--key", "bad two")
    assert (done.code, done.out) == (0, "gave up 2 dead roots, until they change\n")
    assert penstock("dead", "results.db").err == "penstock: no dead roots\n"
    report = deliver(table(tmp_path), "docs", ["a", "bad one", "bad two"])
    assert (report.already_done, report.dead, report.dead_before) == (3, 0, 0)


def test_the_journal_beside_a_callback_is_a_database_like_others(penstock, sent):
    assert penstock("status", "sent.db", "mails").out.startswith("run mails: complete\n")
    assert penstock("dead", "sent.db", "retry").out == "the next run does 1 dead root again\n"


FOREIGN = {
    "empty.db": "CREATE TABLE penstock_journal (format)",
    "foreign.db": "CREATE TABLE penstock_journal (name); INSERT INTO penstock_journal VALUES ('a')",
    "odd.db": "CREATE TABLE penstock_journal (format); INSERT INTO penstock_journal VALUES ('a')",
}
"""Databases that have a table of the name by other hands."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs", "none.db"], "none.db: no such database"),
        (["status", "."], ".: a directory, not a database"),
        (["dead", "text"], "text: not an SQLite database"),
        (["dead", "text", "retry"], "text: not an SQLite database"),
        (["runs", "other.db"], "other.db: no durable run has written to it"),
        (["dead", "other.db", "discard"], "other.db: no durable run has written to it"),
        (["status", "results.db", "x"], "results.db: no run 'x', there are 'others', 'docs'"),
        (["dead", "results.db", "--run", "x"], "results.db: no run 'x', there are 'others', 'docs'"),
        (["dead", "results.db", "retry", "--run", "x"], "results.db: no run 'x', there are 'others', 'docs'"),
        (["dead", "results.db", "show", "--key", "a"], "results.db: no dead root 'a', there are 'bad one', 'bad two'"),
        (
            ["dead", "results.db", "list", "--run", "others", "--key", "a"],
            "no dead root 'a' in run 'others', there are none",
        ),
        (["dead", "results.db", "--key", "two"], "results.db: no dead root 'two', there are 'bad two'"),
        (
            ["dead", "results.db", "discard", "--key", "bed two"],
            "no dead root 'bed two', there are 'bad two'",
        ),
        (["dead", ""], "'': no such database"),
        (["runs", "fifo"], "fifo: not a regular file"),
        (["dead", "fifo", "retry"], "fifo: not a regular file"),
        (["runs", "empty.db"], "empty.db: its table penstock_journal was not made by a durable run"),
        (["dead", "foreign.db", "retry"], "foreign.db: its table penstock_journal was not made by a durable run"),
        (["dead", "odd.db"], "odd.db: its table penstock_journal was not made by a durable run"),
        (["dead", "results.db", "eat"], "the action must be one of list, show, retry, discard, export, got 'eat'"),
    ],
)
def test_bad_usage_is_one_clear_line_and_2_and_makes_nothing(penstock, database, tmp_path, arguments, message):
    (tmp_path / "text").write_text("some text that is no database at all" * 100)
    apsw.Connection(str(tmp_path / "other.db")).execute("CREATE TABLE rows (number)")
    for name, made in FOREIGN.items():
        apsw.Connection(str(tmp_path / name)).execute(made)
    os.mkfifo(tmp_path / "fifo")
    passing = {tmp_path / f"results.db{end}" for end in ("-shm", "-wal", ".lock")}  # how SQLite reads; who had the lock
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and path not in passing}
    done = penstock(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("penstock: ")
    assert done.err.endswith(f"{message}\n")
    after = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and path not in passing}
    assert after == before


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["runs"], ["status"], ["dead"], ["dead", "show"], ["dead", "export"]])
def test_a_reader_that_leaves_early_is_no_error(database, tmp_path, arguments):
    command, *rest = arguments
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [sys.executable, "-m", "penstock", command, "results.db", *rest],
        cwd=tmp_path,
        stdout=theirs,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_the_command_that_status_gives_can_be_copied(penstock, tmp_path):
    odd = "it's a run.db"
    deliver(library.SqliteTable(tmp_path / odd, "rows"), "the docs", ["bad"])
    line = next(line for line in penstock("status", odd).out.splitlines() if line.startswith("  dead "))
    _, *command = shlex.split(line.partition(": ")[2])
    assert penstock(*command).out.splitlines()[1].split()[:3] == ["1", "the", "docs"]


def test_a_newer_journal_is_refused(penstock, database):
    connection = apsw.Connection(str(database))
    connection.execute("UPDATE penstock_journal SET format = 7")
    connection.close()
    for arguments in (["runs"], ["status"], ["dead"]):
        done = penstock(arguments[0], "results.db")
        known = f"this penstock knows formats up to {tables.FORMAT}"
        assert (done.code, done.err) == (2, f"penstock: results.db: a journal of format 7; {known}\n")


def test_retry_and_discard_are_refused_while_a_run_writes(penstock, database, tmp_path):
    with running(tmp_path, "third") as process:
        for action in ("retry", "discard"):
            done = penstock("dead", "results.db", action)
            assert (done.code, done.out) == (3, "")
            assert f"results.db: process {process.pid} on " in done.err
            assert " is writing to it, since 20" in done.err
        assert penstock("dead", "results.db", "list").code == 0


def test_a_lock_that_cannot_be_taken_is_told(penstock, database, tmp_path):
    shutil.copy(database, tmp_path / "unlocked.db")
    apsw.Connection(str(tmp_path / "unlocked.db")).pragma("journal_mode", "delete")
    (tmp_path / "unlocked.db.lock").mkdir()
    done = penstock("dead", "unlocked.db", "retry")
    assert (done.code, done.out) == (2, "")
    lock = os.path.realpath(tmp_path / "unlocked.db.lock")
    assert (
        done.err == f"penstock: unlocked.db: {lock} would be its lock, but is not a regular file: choose another name\n"
    )


@pytest.mark.slow
def test_what_only_reads_writes_nothing(bound_penstock, database, tmp_path):
    """The database, and the directory that it is in, may be such that nobody can write there."""
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    tmp_path.chmod(0o555)
    try:
        for arguments in (["runs"], ["status"], ["dead"], ["dead", "export"], ["dead", "show"]):
            command, *rest = arguments
            assert bound_penstock(command, "results.db", *rest).code == 0
    finally:
        tmp_path.chmod(0o755)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_on_a_terminal_it_is_a_table_without_control_characters_of_others(tmp_path):
    deliver(table(tmp_path), "docs", ["bad \x1b[31m red"])
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "penstock", "dead", "results.db"]
    environment = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=theirs, env=environment)
    os.close(theirs)
    text = b""
    while True:
        try:
            text += os.read(ours, 10_000)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait() == 0
    assert b"\x1b[1m" in text  # the headings
    assert b"\\x1b[31m red" in text
    assert b"\x1b[31m" not in text


def test_the_same_without_the_command_line(database):
    assert [run.name for run in durable.runs(str(database))] == ["others", "docs"]
    one, two = durable.dead_roots(str(database), run="docs")
    assert (one.key, two.key, one.letters[0].stage) == ("bad one", "bad two", "map(work)")
    assert durable.retry(str(database), keys=["bad two"]) == [two]
    assert durable.discard(str(database)) == [one]
    with pytest.raises(StoreError, match="no dead root 'bad one'"):
        durable.discard(str(database), keys=["bad one"])


def test_keys_that_are_numbers_are_found_by_their_digits(tmp_path, penstock):
    stream = library.keyed([1, 2], key=int).map(lambda number: 1 // 0, on_error="collect")
    asyncio.run(stream.to(table(tmp_path), run="r"))
    assert penstock("dead", "results.db", "show", "--key", "2").out.startswith("root 2 of run r\n")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["runs", "status", "dead"])
def test_help_shows_examples_and_needs_nothing_heavy(tmp_path, command):
    code = (
        "import sys\nfrom penstock.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(sorted({'rich', 'apsw', 'asyncio'} & set(sys.modules)))"
    )
    arguments = [sys.executable, "-c", code, command, "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.endswith("\n[]\n")
    assert f"\n    penstock {command} results.db" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("library", ["apsw"])
@pytest.mark.parametrize("command", ["runs", "status", "dead"])
def test_a_missing_library_says_what_to_install(tmp_path, library, command):
    code = f"import sys; sys.modules[{library!r}] = None; from penstock.cli import main; main()"
    arguments = [sys.executable, "-c", code, command, "results.db"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"needs {library}: pip install 'penstock[durable]'" in done.stderr


@pytest.mark.parametrize("use", ["penstock.SqliteTable", "penstock.sinks.Callback", "penstock.sinks.SqliteStore"])
def test_so_does_the_library(use):
    code = f"import sys; sys.modules['apsw'] = None; import penstock.sinks, penstock.durable; {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith(f"ModuleNotFoundError: {use} needs apsw: pip install 'penstock[durable]'\n")


def test_a_module_of_others_that_is_missing_is_no_extra():
    code = "import sys; sys.modules['penstock.durable.roots'] = None; import penstock.sinks; penstock.sinks.Callback"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install" not in done.stderr
    assert "ModuleNotFoundError: import of penstock.durable.roots halted" in done.stderr
