"""`penstock embed --engine`."""

import os
import select
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.fixture
def pages(tmp_path):
    """Documents of several chunks, more than are stored while a signal is on its way."""
    root = tmp_path / "pages"
    root.mkdir()
    for number in range(400):
        (root / f"{number:03}.md").write_text(
            "\n\n".join(f"# {number} part {part}\n\n" + f"{number} " * 250 for part in range(4))
        )
    return root


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_gone(pids):
    """Wait until none of them runs."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], 30)[0], f"{pid} goes on"
        finally:
            os.close(descriptor)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [("--engine", "process"), ()], ids=["process", "default"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_in_processes_that_is_ended_goes_on_where_it_was(
    *, pages, penstock, started_penstock, indexed, stored, tmp_path, number, engine
):
    """Killed at any instant, every document is there whole or not at all; workers end, and the rest comes again."""
    running = started_penstock("embed", "pages", "--to", "index.db", *engine)
    running.wait_for("first document stored")
    workers = children(running.process.pid)
    assert workers or not engine
    running.process.send_signal(number)
    running.process.wait()
    wait_until_gone(workers)
    some = {row.name for row in stored()}
    assert 0 < len(some) < 400
    again = penstock("embed", "pages", "--to", "index.db", *engine, "--json")
    assert (again.code, again.json["unchanged"], again.json["files"]) == (0, len(some), 400 - len(some))
    killed = stored()
    (tmp_path / "index.db").unlink()
    indexed(pages)
    assert killed == stored()


def test_an_engine_that_has_no_such_name_is_refused(penstock, docs, tmp_path):
    done = penstock("embed", "docs", "--to", "i.db", "--engine", "spark")
    assert done.code == 2
    assert done.err == "penstock: --engine must be one of 'inline', 'thread', 'process', 'ray', 'dask', got 'spark'\n"
    assert not (tmp_path / "i.db").exists()


def test_files_may_be_read_on_the_loop(penstock, docs):
    done = penstock("embed", "docs", "--to", "index.db", "--engine", "inline", "--json")
    assert (done.code, done.json["files"]) == (0, 3)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed")
def test_a_cluster_reads_the_files(penstock, docs, tmp_path):
    """A local one here: the environment names another."""
    done = penstock("embed", "docs", "--to", "i.db", "--engine", "dask", "--json", timeout=120)
    assert (done.code, done.json["failed"]) == (0, 0)
    again = penstock("embed", "docs", "--to", "i.db", "--json")
    assert again.json["unchanged"] == done.json["files"] > 0
