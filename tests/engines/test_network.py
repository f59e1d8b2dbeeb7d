"""P12 where the network to a node is cut in silence: no connection ends, and no packet arrives any more."""

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

import penstock
from penstock.engines import Call, WorkerLost

from .test_durable_kills import MARK, marked
from .work import same, work

pytestmark = [
    pytest.mark.real_time,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="a network namespace needs root and the command `ip`"
    ),
    pytest.mark.filterwarnings("default"),  # those of Ray
]

NOTICED = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""Ray takes a node for dead after 5 s with these; after about a minute without."""


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


class Network:
    """A network of two: this machine, and a namespace on it. Others may be there: of another run of these tests."""

    def __init__(self):
        self.name = f"penstock-{uuid.uuid4().hex[:6]}"
        third, fourth = secrets.randbelow(256), 4 * secrets.randbelow(64)  # a net of four addresses: /30
        self.address_here, self.address_there = f"10.213.{third}.{fourth + 1}", f"10.213.{third}.{fourth + 2}"
        self.here, self.there = f"{self.name[9:]}a", f"{self.name[9:]}b"

    def open(self):
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self.here, "type", "veth", "peer", "name", self.there)
        run("ip", "link", "set", self.there, "netns", self.name)
        run("ip", "addr", "add", f"{self.address_here}/30", "dev", self.here)
        run("ip", "link", "set", self.here, "up")
        self.inside("ip", "addr", "add", f"{self.address_there}/30", "dev", self.there)
        self.inside("ip", "link", "set", self.there, "up")
        self.inside("ip", "link", "set", "lo", "up")

    def inside(self, *command, **options):
        return run("ip", "netns", "exec", self.name, *command, **options)

    def cut(self):
        """Send what goes from one to the other to an address that nobody has: it is lost, and nobody is told."""
        lost = ("lladdr", "02:00:00:00:00:99", "nud", "permanent")
        run("ip", "neigh", "replace", self.address_there, *lost, "dev", self.here)
        self.inside("ip", "neigh", "replace", self.address_here, *lost, "dev", self.there)

    def close(self):
        for command in (("netns", "del", self.name), ("link", "del", self.here)):
            with suppress(subprocess.CalledProcessError):
                run("ip", *command)


def free_port(address):
    with socket.create_server((address, 0)) as server:
        return server.getsockname()[1]


@contextmanager
def cluster(monkeypatch, folder):
    """A head here, which makes no calls, and a node with one processor in a namespace."""
    mark = uuid.uuid4().hex
    for name, value in {**NOTICED, MARK: mark, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats"]
    network = Network()
    try:
        network.open()
        address = f"{network.address_here}:{free_port(network.address_here)}"
        head = ["--head", f"--port={address.split(':')[1]}", f"--node-ip-address={network.address_here}"]
        run(*ray, *head, f"--temp-dir={folder}", "--num-cpus=0", "--include-dashboard=false")

        def add(*, inside):
            own = network.address_there if inside else network.address_here
            node = [f"--address={address}", f"--node-ip-address={own}", "--num-cpus=1"]
            (network.inside if inside else run)(*ray, *node)

        add(inside=True)
        yield address, network, add
    finally:
        network.close()
        for pid in marked(mark).keys() - {os.getpid()}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_a_call_on_a_node_that_is_cut_off_is_lost_and_nothing_waits_for_it(monkeypatch, gates, tmp_path_factory):
    """Its answer is `WorkerLost`; the engine works on with the nodes that are there, and can be closed."""
    folder = Path("/tmp") / f"ray-{uuid.uuid4().hex[:6]}"
    with cluster(monkeypatch, folder) as (address, network, add):
        async with penstock.engines.ray(1, address=address) as engine:
            assert await penstock.stream(range(3)).map(same, engine=engine).to_list() == [0, 1, 2]
            held = engine.prepare(partial(work, str(gates.folder), (0,)))
            answers = engine.submit([Call(held, (0,))])
            await gates.until(0)
            network.cut()
            (answer,) = await asyncio.wait_for(answers, 60)
            assert isinstance(answer.error, WorkerLost)
            await asyncio.to_thread(add, inside=False)
            async with asyncio.timeout(60):
                assert await penstock.stream(range(100)).map(same, engine=engine).to_list() == list(range(100))
    shutil.rmtree(folder, ignore_errors=True)
