"""Microseconds per task of `penstock.tasks.gather` beside its peers: all results of some tasks, in their order."""

import argparse
import asyncio
from collections.abc import Sequence
from functools import partial
from statistics import median

import aiometer
import anyio
from aims import Aim, print_aims
from timing import CLOCKS, LOOPS, Case, Cell, busyness, interleave, machine, once, table
from workloads import WORKLOADS

from penstock.tasks import gather

REFERENCE = "penstock.tasks.gather"
CALLS = ("at once", "sleep(0)", "1 ms")
CONCURRENCY = 100


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench gather", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of fewer tasks: a look, not a result")
    parser.add_argument("--clock", choices=CLOCKS, default="elapsed", help="`cpu` counts processor time")
    return parser.parse_args(given)


async def with_penstock(tasks):
    return await gather(tasks, concurrency=CONCURRENCY)


def bounded(tasks):
    semaphore = asyncio.Semaphore(CONCURRENCY)

    async def call(task):
        async with semaphore:
            return await task()

    return map(call, tasks)


async def with_gather(tasks):
    return await asyncio.gather(*bounded(tasks))


async def with_task_group(tasks):
    async with asyncio.TaskGroup() as group:
        started = [group.create_task(call) for call in bounded(tasks)]
    return [task.result() for task in started]


async def with_anyio(tasks):
    limiter = anyio.CapacityLimiter(CONCURRENCY)
    results = [None] * len(tasks)

    async def call(number, task):
        async with limiter:
            results[number] = await task()

    async with anyio.create_task_group() as group:
        for number, task in enumerate(tasks):
            group.start_soon(call, number, task)
    return results


async def with_aiometer(tasks):
    return await aiometer.run_all(tasks, max_at_once=CONCURRENCY)


PEERS = {
    REFERENCE: with_penstock,
    "asyncio.gather+Semaphore": with_gather,
    "TaskGroup+Semaphore": with_task_group,
    "anyio, CapacityLimiter": with_anyio,
    "aiometer.run_all": with_aiometer,
}


async def count(peer, call: str, tasks: int) -> int:
    results = await PEERS[peer]([partial(WORKLOADS[call].fn, number) for number in range(tasks)])
    return sum(result is not None for result in results)


def report(chosen: argparse.Namespace) -> list[Aim]:
    tasks = 2_000 if chosen.quick else 10_000
    print(f"# {machine(['penstock', 'aiometer', 'anyio'])}")
    print(f"# {busyness()}")
    print(f"# microseconds per task ({chosen.clock}), {tasks:,} tasks that are partials, concurrency {CONCURRENCY}")
    for loop in LOOPS:
        once(loop, partial(count, REFERENCE, "at once", 1_000))
    cases = [
        Case(loop, peer, call, tasks, partial(once, loop, partial(count, peer, call, tasks)))
        for loop in LOOPS
        for call in CALLS
        for peer in PEERS
    ]
    cells = interleave(cases, 1 if chosen.quick else 5, chosen.clock)
    for loop in LOOPS:
        print(f"\n{loop}\n\n{table({case: cell for case, cell in cells.items() if case.table == loop}, REFERENCE)}")
    return [aim(cells, loop, call) for loop in LOOPS for call in CALLS]


def aim(cells: dict[Case, Cell], loop: str, call: str) -> Aim:
    medians = {case.row: cell.median for case, cell in cells.items() if (case.table, case.column) == (loop, call)}
    ours = medians.pop(REFERENCE)
    return Aim(f"gather, {loop}, {call}: time over the median peer's", ours / median(medians.values()), 1)


def main() -> None:
    print_aims(report(arguments()))


if __name__ == "__main__":
    main()
