"""Peak memory above the baseline: a streaming `map` beside gathering everything, in a fresh process per figure."""

import argparse
import asyncio
import resource
import subprocess
import sys

from peers import PEERS
from timing import aligned, machine
from workloads import at_once

CONCURRENCY = 100
BASELINE_ITEMS = 1_000
COUNTS = (10_000, 100_000, 1_000_000)
PER_MIB = 2**20 if sys.platform == "darwin" else 2**10


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / PER_MIB


def measure(peer: str, count: int) -> None:
    """In a process of its own: what `count` items add to what a thousand have needed."""
    run = PEERS[peer].run
    asyncio.run(run(at_once, range(BASELINE_ITEMS), CONCURRENCY, True))
    baseline = peak_mib()
    seen = asyncio.run(run(at_once, range(count), CONCURRENCY, True))
    assert seen == count, f"{peer} lost {count - seen} of {count} items"
    print(peak_mib() - baseline)


def measured(peer: str, count: int) -> float:
    command = [sys.executable, __file__, "--child", peer, str(count)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"no more than {COUNTS[1]:,} items")
    parser.add_argument("--child", nargs=2, metavar=("PEER", "ITEMS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        measure(chosen.child[0], int(chosen.child[1]))
        return
    counts = COUNTS[:2] if chosen.quick else COUNTS
    print(f"# {machine(['penstock'])}")
    print(
        f"# concurrency {CONCURRENCY}, MiB of peak resident memory above that of a run of {BASELINE_ITEMS:,} items\n",
        flush=True,
    )
    peers = ("penstock", "penstock buffered", "streamable", "gather+Semaphore")
    rows = [(peer, *(f"{measured(peer, count):.1f}" for count in counts)) for peer in peers]
    print(aligned([("", *(f"{count:,} items" for count in counts)), *rows]))


if __name__ == "__main__":
    main()
