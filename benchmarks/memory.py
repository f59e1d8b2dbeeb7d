"""Peak memory above the baseline: a streaming `map` beside gathering everything, in a fresh process per figure."""

import argparse
import asyncio
import ctypes
import gc
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from aims import Aim, print_aims
from peers import PEERS
from timing import aligned, busyness, going_on, machine
from workloads import one_turn

CONCURRENCY = 100
RESULT = 10_000
WARM_UP = 1_000
COUNTS = (10_000, 100_000, 1_000_000)
STREAMING = ("penstock", "penstock buffered", "streamable")
GATHER = "gather+Semaphore"
CLOSE = 1.05
SAVED = 0.9


def forget_peak() -> None:
    """Give free memory back and let the peak be what is resident now: imports need more than what they leave."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Peak resident memory of this process; `getrusage` would start at its parent's."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**10


async def big_result(item):
    """One in a hundred takes some turns longer, so that a window fills with results that wait for it."""
    for _ in range(5 if item % CONCURRENCY == 0 else 1):
        await asyncio.sleep(0)
    return b"x" * RESULT


def measure(peer: str, count: int) -> None:
    """In a process of its own: what `count` big results add to what small ones have needed."""
    run = PEERS[peer].run
    asyncio.run(run(one_turn, range(WARM_UP), CONCURRENCY, ordered=True))
    forget_peak()
    baseline = peak_mib()
    seen = asyncio.run(run(big_result, range(count), CONCURRENCY, ordered=True))
    assert seen == count, f"{peer} lost {count - seen} of {count} items"
    print(peak_mib() - baseline)


def measured(peer: str, count: int, runs: int) -> float:
    going_on(f"memory of {peer}, {count:,} items")
    command = [sys.executable, __file__, "--child", peer, str(count)]
    made = (subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout for _ in range(runs))
    return statistics.median(map(float, made))


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"no more than {COUNTS[1]:,} items")
    parser.add_argument("--child", nargs=2, metavar=("PEER", "ITEMS"), help=argparse.SUPPRESS)
    return parser.parse_args(given)


def report(chosen: argparse.Namespace) -> list[Aim]:
    counts = COUNTS[:2] if chosen.quick else COUNTS
    print(f"# {machine(['penstock', 'streamable'])}")
    print(f"# {busyness()}")
    print(
        f"# concurrency {CONCURRENCY}, ordered, results of {RESULT:,} bytes: MiB of peak resident memory above that of"
    )
    print(f"# {WARM_UP:,} small ones, medians of 3 processes; with {COUNTS[-1]:,} items, one\n", flush=True)
    peaks = {
        (peer, count): measured(peer, count, 1 if count == COUNTS[-1] else 3) for peer in STREAMING for count in counts
    }
    peaks[GATHER, counts[0]] = measured(GATHER, counts[0], 1)
    rows = [
        (peer, *(f"{peaks[peer, count]:.1f}" if (peer, count) in peaks else "" for count in counts))
        for peer in (*STREAMING, GATHER)
    ]
    print(aligned([("", *(f"{count:,} items" for count in counts)), *rows]))
    found = []
    for peer in STREAMING[:2]:
        few, many = peaks[peer, counts[0]], peaks[peer, counts[-1]]
        found.append(Aim(f"{peer}: {counts[-1]:,} items over {counts[0]:,}", many / few, CLOSE, form="{:.3f}x"))
        saved = 1 - few / peaks[GATHER, counts[0]]
        found.append(Aim(f"{peer}: below gather at {counts[0]:,} items", saved, SAVED, at_least=True, form="{:.1%}"))
    return found


def main() -> None:
    chosen = arguments()
    if chosen.child:
        measure(chosen.child[0], int(chosen.child[1]))
    else:
        print_aims(report(chosen))


if __name__ == "__main__":
    main()
