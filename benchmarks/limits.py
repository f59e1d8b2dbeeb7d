"""`Limiter` beside its peers: what a hold costs that is free, and one that a hundred tasks want."""

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from functools import partial

import anyio
from aims import Aim, print_aims
from timing import CLOCKS, LOOPS, Case, Cell, busyness, interleave, machine, once, table

import penstock

PEERS = {
    "penstock.Limiter": penstock.Limiter,
    "asyncio.Semaphore": asyncio.Semaphore,
    "anyio.Semaphore": anyio.Semaphore,
    "anyio.CapacityLimiter": anyio.CapacityLimiter,
}
REFERENCE = "penstock.Limiter"
MEDIAN_OF = ("asyncio.Semaphore", "anyio.CapacityLimiter")
TASKS = 100
LIMIT = 10


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench limits", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of a tenth of the holds: a look, not a result")
    parser.add_argument("--clock", choices=CLOCKS, default="elapsed", help="`cpu` counts processor time")
    return parser.parse_args(given)


async def uncontended(peer: str, holds: int) -> int:
    limiter = PEERS[peer](LIMIT)
    for _ in range(holds):
        async with limiter:
            pass
    return holds


async def contended(peer: str, holds: int) -> int:
    limiter = PEERS[peer](LIMIT)

    async def work():
        for _ in range(holds // TASKS):
            async with limiter:
                await asyncio.sleep(0)

    await asyncio.gather(*(work() for _ in range(TASKS)))
    return holds


KINDS = {"nobody waits": uncontended, f"{TASKS} tasks, {LIMIT} at once": contended}


def aims(kind: str, loop: str, cells: dict[str, Cell]) -> Aim:
    peers = statistics.median(cells[peer].median for peer in MEDIAN_OF)
    return Aim(f"Limiter, {kind}, {loop}: times the median peer", cells[REFERENCE].median / peers, 1.0)


def report(chosen: argparse.Namespace) -> list[Aim]:
    print(f"# {machine(['penstock', 'anyio', 'uvloop'])}")
    print(f"# {busyness()}")
    print(f"# microseconds per hold ({chosen.clock}): an `async with`, among others with a sleep(0) inside")
    holds, rounds = (5_000, 3) if chosen.quick else (50_000, 9)
    cases = {
        (kind, loop, peer): Case(
            loop, peer, f"{kind}, {loop}", holds, partial(once, loop, partial(KINDS[kind], peer, holds))
        )
        for kind in KINDS
        for loop in LOOPS
        for peer in PEERS
    }
    for case in cases.values():
        case.once(chosen.clock)  # keeps imports and the interpreter's specialising out of the first round
    cells = interleave(list(cases.values()), rounds, chosen.clock)
    print(f"\n{table(cells, REFERENCE)}")
    return [
        aims(kind, loop, {peer: cells[cases[kind, loop, peer]] for peer in PEERS}) for kind in KINDS for loop in LOOPS
    ]


if __name__ == "__main__":
    print_aims(report(arguments()))
