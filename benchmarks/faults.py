"""What a peer does when things do not go to the end: left early, failing, endless; and what it loses or lets run.

Every figure comes from a fresh process, which is ended by force if it hangs.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence

from peers import FLOOR, PEERS, PYTHON_PEERS, REFERENCE, Peer
from timing import aligned, busyness, machine
from workloads import at_once, fifty_ms

from penstock.testing import Gauge

CONCURRENCY = 100
ITEMS = 1_000
AHEAD = 100_000
MANY = 50_000
FAST, SLOW = 0.02, 0.3
"""Seconds of the calls that something happens to, and of those that are under way then."""
PATIENCE = 60


class Source:
    """Numbers, which are counted as they are taken, and whether their generator was closed or has ended."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0
        self.is_closed = False

    def items(self):
        try:
            for number in range(self.count):
                self.taken += 1
                yield number
        finally:
            self.is_closed = True


async def until_quiet(gauge: Gauge) -> None:
    """Wait until no calls are made, and let the collector find what nobody holds."""
    begun = -1
    while begun != gauge.started or gauge.now:
        begun = gauge.started
        await asyncio.sleep(1.5 * SLOW)
    gc.collect()
    await asyncio.sleep(0.01)


async def leave_early(peer: Peer, *, ordered: bool) -> dict[str, str]:
    """The loop over the results of 1,000 items is left by `break` after the first, while other calls are under way."""
    if not peer.streams(ordered):
        return {"calls left running": "no stream"}
    gauge, source = Gauge(), Source(ITEMS)

    async def call(item):
        await asyncio.sleep(SLOW if item else FAST)
        return item

    async with peer.stream(gauge.wrap(call), source.items(), CONCURRENCY, ordered) as results:
        async for _ in results:
            break
        del results
        begun, finished = gauge.started, gauge.finished
    running, is_closed = gauge.now, source.is_closed
    await until_quiet(gauge)
    later = "closed later" if source.is_closed else "not closed"
    return {
        "calls left running": f"{running}" if running else "none",
        "of others, ran to their end": f"{gauge.finished - finished}",
        "begun after the `break`": f"{gauge.started - begun}",
        "source": "closed" if is_closed else later,
    }


async def fail(peer: Peer, *, ordered: bool) -> dict[str, str]:
    """One of 1,000 calls fails while 99 are under way; another of these fails as it is stopped, or else at its end."""
    gauge = Gauge()

    async def call(item):
        try:
            await asyncio.sleep(SLOW if item else FAST)
        finally:
            if item < 2:
                raise KeyError(f"failure of {item}")
        return item

    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    told = ""
    try:
        seen = await peer.run(gauge.wrap(call), range(ITEMS), CONCURRENCY, ordered)
    except Exception as error:  # noqa: BLE001 whatever it is, it is the finding
        raised, told = type(error).__name__, "".join(traceback.format_exception(error))
    else:
        raised = f"nothing; {seen} results"
    running, begun = gauge.now, gauge.started
    await until_quiet(gauge)
    both = "failure of 0" in told and "failure of 1" in told
    unseen = "told by the loop's exception handler" if complaints else "lost"
    return {
        "raised": raised,
        "the second failure": "told with the first" if both else unseen,
        "calls left running": f"{running}" if running else "none",
        "begun after it": f"{gauge.started - begun}",
    }


async def read_ahead(peer: Peer, *, ordered: bool) -> dict[str, str]:
    """What is taken of a source of 100,000 items before the first result is there, with calls of 50 ms."""
    source = Source(AHEAD)
    if peer.streams(ordered):
        async with peer.stream(fifty_ms, source.items(), CONCURRENCY, ordered) as results:
            async for _ in results:
                return {"taken": f"{source.taken:,}"}
    await peer.run(at_once, source.items(), CONCURRENCY, ordered)
    return {"taken": f"{source.taken:,}"}


async def lose(peer: Peer, *, ordered: bool) -> dict[str, str]:
    """Results that are missing, of 50,000 calls that return at once."""
    seen = await peer.run(at_once, range(MANY), CONCURRENCY, ordered)
    return {"lost": f"{MANY - seen:,}" if seen != MANY else "none"}


async def bound(peer: Peer, *, ordered: bool) -> dict[str, str]:
    """The most calls of 50 ms that run at once, where 100 may."""
    gauge = Gauge()
    await peer.run(gauge.wrap(fifty_ms), range(10 * CONCURRENCY), CONCURRENCY, ordered)
    return {"calls": f"{gauge.peak}"}


CHECKS = {check.__name__: check for check in (leave_early, fail, read_ahead, lose, bound)}


def measure(name: str, check: str, ordered: str) -> None:
    """In a process of its own: print what was found, and leave whatever is still running."""
    found = asyncio.Runner().run(CHECKS[check](PEERS[name], ordered=bool(ordered)))
    print(json.dumps(found), flush=True)
    os._exit(0)


def measured(name: str, check: str, *, ordered: bool) -> dict[str, str]:
    command = [sys.executable, __file__, "--child", name, check, "ordered" * ordered]
    try:
        made = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"hangs": f"for {PATIENCE} s"}
    if made.returncode:
        sys.exit(f"{name}, {check}: {made.stderr}")
    return json.loads(made.stdout)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench faults", description=__doc__)
    parser.add_argument("--child", nargs=3, metavar=("PEER", "CHECK", "ORDER"), help=argparse.SUPPRESS)
    return parser.parse_args(given)


def report() -> None:
    print(f"# {machine(['penstock', 'streamable', 'aiostream', 'aiometer', 'anyio', 'pypeln'])}")
    print(f"# {busyness()}")
    print(f"# concurrency {CONCURRENCY}; ordered where the peer streams in order, else unordered")
    for check, what in CHECKS.items():
        found = {}
        for name in (REFERENCE, FLOOR, *PYTHON_PEERS):
            peer = PEERS[name]
            ordered = peer.streams(ordered=True) or peer.orders == (True,)
            found[name] = measured(name, check, ordered=ordered)
        columns = list(dict.fromkeys(column for row in found.values() for column in row))
        print(f"\n{what.__doc__}\n")
        rows = [(name, *(row.get(column, "") for column in columns)) for name, row in found.items()]
        print(aligned([("", *columns), *rows]))


def main() -> None:
    chosen = arguments()
    if chosen.child:
        measure(*chosen.child)
    else:
        report()


if __name__ == "__main__":
    main()
