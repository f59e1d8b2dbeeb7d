"""`penstock fetch`, against a real server on a loopback socket."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter

import apsw
import pytest

from ..http_server import HANG, Reply, Server, page  # noqa: TID252 -- tests are no package to name
from .conftest import make_room

pytestmark = pytest.mark.slow

SECRET = "s3cr3t-0123456789"


@pytest.fixture
def server():
    with Server(otherwise=page) as server:
        yield server


@pytest.fixture
def write(tmp_path, server):
    """A function that writes a file of so many keys."""

    def file(count):
        rows = (f"{number},{server.url}/{number}/a,{server.url}/{number}/b\n" for number in range(count))
        (tmp_path / "urls.csv").write_text("id,a,b\n" + "".join(rows))

    return file


@pytest.fixture
def records(tmp_path):
    """A function that gives the records by their keys, each once."""

    def read():
        connection = apsw.Connection(str(tmp_path / "out.db"), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            found = list(connection.execute("SELECT id, a_body, b_body FROM records"))
        finally:
            connection.close()
        keyed = {key: bodies for key, *bodies in found}
        assert len(keyed) == len(found)
        assert all(bodies == [f'{{"path": "/{key}/{name}"}}' for name in "ab"] for key, bodies in keyed.items())
        return keyed

    return read


COMMAND = ("fetch", "urls.csv", "--to", "out.db", "--allow-private")


def paths(server):
    return Counter(request["path"] for request in server.requests)


@pytest.mark.quick
def test_a_run_and_the_next_one(server, write, penstock, records):
    write(3)
    done = penstock(*COMMAND)
    assert (done.code, done.err.count("first record stored after")) == (0, 1)
    assert done.out.startswith("out.db: 3 records stored with 6 requests in ")
    again = penstock(*COMMAND, "--json")
    assert (again.code, again.json["unchanged"], again.json["not_modified"]) == (0, 3, 6)
    assert set(paths(server).values()) == {2}
    assert len(records()) == 3


def test_what_fails_is_told_without_its_url(server, write, penstock, tmp_path):
    write(2)
    server._otherwise = lambda request: Reply(404) if request["path"] == "/0/a" else page(request)
    text = (tmp_path / "urls.csv").read_text() + f"x,http://127.0.0.1:1/{SECRET},\n"
    (tmp_path / "urls.csv").write_text(text)
    (tmp_path / "secrets").write_text(f"X-Key: {SECRET}\n\nX-Other: {SECRET}\n")
    done = penstock(*COMMAND, "--retry", "1", "--header", "@secrets", "--header", "Accept: text/x")
    assert done.code == 1
    assert "  1 record incomplete: what failed keeps its former body\n" in done.out
    assert "  1 key set aside; what they had before stays\n" in done.out
    assert "    0: a: 404 Not Found\n" in done.out
    assert "    x: a: no connection: " in done.out
    assert {request["x-key"] for request in server.requests} == {SECRET}
    assert {request["accept"] for request in server.requests} == {"text/x"}
    dead = penstock("dead", "out.db", "show")
    assert "FetchError: a: no connection" in dead.out
    assert SECRET not in done.out + done.err + dead.out


def test_rows_may_come_from_stdin(server, penstock, tmp_path):
    rows = "".join(f"{json.dumps({'id': number, 'a': f'{server.url}/{number}'})}\n" for number in range(3))
    done = penstock("fetch", "-", "--key", "id", "--to", "out.db", "--allow-private", "--json", input=rows)
    assert (done.code, done.json["records"], len(server.requests)) == (0, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.csv"], 2, "URLS must be a file, or - for stdin, got 'none.csv'"),
        (["-"], 2, "--key must name the column of the keys, as - can be read only once, got None"),
        (["urls.csv", "--per-host", "0"], 2, "--per-host must be an int >= 1, got 0"),
        (["urls.csv", "--timeout", "0"], 2, "--timeout must be"),
        (["urls.csv", "--header", SECRET], 2, "--header must be written as 'Name: value'"),
        (["urls.csv", "--header", "@none"], 2, "--header must come from a file that can be read, got 'none'"),
        (["urls.csv", "--header", f"Host: {SECRET}"], 2, "--header must not have 'Host'"),
        (["urls.csv", "--key", "no"], 3, "urls.csv, line 1: no column 'no' (key), there are id, a, b"),
        (["urls.csv"], 1, "there are no rows in urls.csv"),
    ],
)
def test_bad_usage_is_one_line(write, penstock, arguments, code, said):
    write(0)
    done = penstock("fetch", *arguments, "--to", "out.db")
    assert (done.code, f"penstock: {said}" in done.err) == (code, True)
    assert SECRET not in done.err
    assert len(done.err.splitlines()) <= 2


def test_a_signal_finishes_what_is_in_flight(*, server, write, started_penstock, penstock, records):
    write(300)  # 16 are asked for at once, and 256 answers may wait
    stopping = threading.Event()
    server._otherwise = lambda request: page(request) if key_of(request) < 20 or stopping.wait(60) else None
    running = started_penstock(*COMMAND)
    running.wait_for("first record stored")
    running.process.send_signal(signal.SIGINT)
    running.wait_for("stopping:")
    stopping.set()
    done = running.finish()
    assert done.code == 130
    assert "ended early; what was stored is in out.db, and the same command goes on from there\n" in done.err
    assert_goes_on(server, penstock, records, 300)


def key_of(request):
    return int(request["path"].split("/")[1])


def assert_goes_on(server, penstock, records, count):
    """The next run does the rest, asks for nothing that is stored, and for the rest once."""
    stored, asked = set(records()), paths(server)
    assert 0 < len(stored) < count
    done = penstock(*COMMAND, "--json")
    assert (done.code, done.json["already_done"], done.json["records"]) == (0, len(stored), count - len(stored))
    assert len(records()) == count
    later = paths(server) - asked
    assert {path.split("/")[1] for path in later} == set(map(str, range(count))) - stored
    assert set(later.values()) == {1}


def test_a_second_signal_aborts_and_loses_nothing(server, write, started_penstock, penstock, records):
    write(40)
    server._otherwise = lambda request: HANG if request["path"].startswith("/2") else page(request)
    running = started_penstock(*COMMAND)
    running.wait_for("first record stored")
    running.process.send_signal(signal.SIGINT)
    running.wait_for("stopping:")
    running.process.send_signal(signal.SIGTERM)
    done = running.finish()
    assert done.code == 143
    assert done.err.endswith("penstock: aborted; what was stored stays, and the same command goes on from there\n")
    some = len(records())
    server._otherwise = page
    again = penstock(*COMMAND, "--json")
    assert (again.code, again.json["already_done"], len(records())) == (0, some, 40)


def test_a_signal_ends_the_wait_for_more_rows(server, tmp_path):
    command = [sys.executable, "-m", "penstock", "fetch", "-", "--key", "id", "--to", "out.db", "--allow-private"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as running:
        running.stdin.write(f"id,a\n1,{server.url}/1\n")
        running.stdin.flush()
        server.wait_for()
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
        told = running.stderr.read()
    assert "ended early; what was stored is in out.db, and the same command goes on from there\n" in told
    assert "Traceback" not in told


def test_a_full_disk_is_told_and_what_was_stored_is_not_fetched_again(penstock, small_disk, tmp_path):
    long = Server(otherwise=lambda request: Reply(body=[request["path"]] * 10_000))
    with long as server:
        (tmp_path / "urls.csv").write_text("id,a\n" + "".join(f"{n},{server.url}/{n}\n" for n in range(20)))
        command = ("fetch", "urls.csv", "--to", "disk/out.db", "--allow-private", "--concurrency", "2")
        done = penstock(*command, "--json")
        assert (done.code, done.json["interrupted"]) == (3, False)
        assert "penstock: disk/out.db: the disk is full\n" in done.err
        some = done.json["records"]
        assert 0 < some < 20
        make_room(small_disk)
        again = penstock(*command, "--no-refresh", "--json")
    assert (again.code, again.json["already_done"], again.json["records"]) == (0, some, 20 - some)


def test_a_run_that_is_killed_goes_on_and_asks_for_nothing_that_is_stored(
    *, server, write, started_penstock, penstock, records
):
    write(400)
    for _ in range(2):
        running = started_penstock(*COMMAND)
        running.wait_for("first record stored")
        running.process.kill()
        running.process.wait()
    assert_goes_on(server, penstock, records, 400)
