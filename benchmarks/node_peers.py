"""The peers of Node, each run in a process that times itself; none where `node` or its packages are not present."""

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

from timing import Timed
from workloads import LATENCIES

PROGRAM = Path(__file__).parent / "node" / "bench.mjs"
MODULES = PROGRAM.parent / "node_modules"

NODE_PEERS = {
    "node p-map": "`pMapIterable`, backpressure = concurrency",
    "node streaming-iterables": "`parallelMap`; unordered `transform`",
}

CALLS = {
    "at once": {"call": "returns"},
    "sleep(0)": {"call": "turn"},
    "1 ms": {"call": "sleeps", "milliseconds": [1]},
    "50 ms": {"call": "sleeps", "milliseconds": [50]},
    "lognormal": {"call": "sleeps", "milliseconds": [1000 * seconds for seconds in LATENCIES]},
}
"""The workloads that Node has too, by name. Its timers count whole milliseconds: one of 1.7 ms takes 1 ms."""


@cache
def missing() -> str | None:
    """Why the peers of Node cannot run, if they cannot."""
    if shutil.which("node") is None:
        return "no `node` on the PATH"
    return None if MODULES.is_dir() else "their packages are not installed, which takes `npm`"


@cache
def node_version() -> str:
    return subprocess.run(["node", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def node_run(peer: str, workload: str, items: int, concurrency: int, *, ordered: bool) -> Callable[[str], Timed]:
    """A function that makes one run, timed inside by the clock of that name."""
    sizes = {"items": items, "concurrency": concurrency, "ordered": ordered}
    wanted = json.dumps({"peer": peer, **sizes, **CALLS[workload]})

    def once(clock: str) -> Timed:
        made = subprocess.run(["node", PROGRAM], check=True, input=wanted, stdout=subprocess.PIPE, text=True)
        timed = json.loads(made.stdout)
        return timed[clock], timed["seen"]

    return once
