"""P10, P11 and P12: a durable run whose worker and then whose driver is killed, on each engine."""

import importlib
import importlib.util
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from .durable_program import HELD, ITEMS
from .work import wait_for_profiles

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="orphans are found in /proc"),
    pytest.mark.filterwarnings("default"),  # those of Ray and Dask
]

ROOT = Path(__file__).parent.parent.parent
MARK = "PENSTOCK_TEST_MARK"
QUICK = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_gcs_rpc_server_reconnect_timeout_s": "2"}
"""Helpers of a Ray that is gone look for it for so long, a minute without: they are nothing of ours."""


def until(holds):
    ends = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)  # for other processes


def marked(mark):
    """The processes that have this mark in their environment, with their commands."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120]
    return found


class Lives:
    """The lives of one durable run, and all processes that they start."""

    def __init__(self, engine, folder):
        self.engine = engine
        self.folder = folder
        self.mark = uuid.uuid4().hex

    def begin(self, engine=""):
        return subprocess.Popen(
            [sys.executable, "-m", "tests.engines.durable_program", engine or self.engine, str(self.folder)],
            cwd=ROOT,
            env={**os.environ, MARK: self.mark, **QUICK},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def worker(self):
        """The process in which the held call is, or was."""
        with suppress(FileNotFoundError):
            return int((self.folder / f"began-{HELD}").read_text())
        return None

    def is_clean(self):
        return not marked(self.mark)

    def rows(self):
        with closing(sqlite3.connect(self.folder / "out.db")) as database:
            return [value for (value,) in database.execute("SELECT value FROM rows ORDER BY value")]

    def end(self):
        for pid in marked(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def lives(tmp_path):
    made = []

    def begin(engine):
        made.append(Lives(engine, tmp_path))
        return made[-1]

    yield begin
    for each in made:
        each.end()


def kill_and_go_on(lives, *, is_free=lambda: True, has_workers=True, goes_on_with=""):
    """Kill a worker in its call, then the driver; the next life does the rest, once, also on another engine."""
    first = lives.begin()
    try:
        until(lambda: lives.worker() or first.poll() is not None)
        assert first.poll() is None, first.communicate()
        if has_workers:
            killed = lives.worker()
            os.kill(killed, signal.SIGKILL)
            until(lambda: lives.worker() != killed)
        else:
            assert lives.worker() == first.pid
        first.kill()
    finally:
        first.kill()
        first.communicate()
    until(lives.is_clean)
    until(is_free)
    until(lambda: not Path(f"/proc/{lives.worker()}").exists())  # no call runs on
    before = len(lives.rows())
    assert HELD not in lives.rows()
    (lives.folder / "go").touch()
    second = lives.begin(goes_on_with)
    out, err = second.communicate(timeout=120)
    assert (second.returncode, out.split()[-1:]) == (0, [str(ITEMS)]), err
    assert before < ITEMS
    assert lives.rows() == list(range(ITEMS))
    until(lives.is_clean)
    until(is_free)


def needs(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


def test_threads(lives):
    kill_and_go_on(lives("thread"), has_workers=False)


def test_processes(lives):
    kill_and_go_on(lives("process"))


@pytest.mark.parametrize("where", ["ray", "dask"])
def test_a_local_cluster(lives, where):
    """It ends with its driver, though nobody has told it to; to start another one would take long."""
    needs({"ray": "ray", "dask": "distributed"}[where])
    kill_and_go_on(lives(where), goes_on_with="process")


@contextmanager
def ray_cluster():
    """A cluster of one node; gives its address, and what says that nobody uses it."""
    library = importlib.import_module("ray")
    cluster = importlib.import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    handler = signal.getsignal(signal.SIGTERM)
    try:
        library.init(cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster.address, lambda: library.available_resources().get("CPU") == 2
    finally:
        library.shutdown()
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def dask_cluster():
    """A cluster of two workers; gives its address, and what says that nothing of an engine is in them."""
    library = importlib.import_module("distributed")

    def ours(dask_worker):
        kept = len(getattr(dask_worker, "penstock_runners", {}))
        return kept + sum(thread.name == "penstock calls" for thread in threading.enumerate())

    def is_free():
        with suppress(OSError):  # a worker is about to be replaced
            there = client.run(ours)
            return len(there) == 2 and not any(there.values())
        return False

    with (
        library.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
        ) as cluster,
        library.Client(cluster, set_as_default=False) as client,
    ):
        yield cluster.scheduler_address, is_free
    wait_for_profiles()


def test_a_ray_cluster_that_goes_on(lives):
    """Its actors end with their driver: all processors are free again, and no call of ours runs on."""
    needs("ray")
    with ray_cluster() as (address, is_free):
        kill_and_go_on(lives(f"ray={address}"), is_free=is_free)


def test_a_dask_cluster_that_goes_on(lives):
    """Its scheduler tells the workers that the driver is gone: nothing of ours stays there, and no call runs on."""
    needs("distributed")
    with dask_cluster() as (address, is_free):
        kill_and_go_on(lives(f"dask={address}"), is_free=is_free)
