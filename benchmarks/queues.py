"""What it costs to put an item into a long queue and to take the first one out, beside the queues of Python."""

import argparse
import asyncio
import gc
import itertools
import queue
import random
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter, process_time

from aims import Aim, print_aims
from timing import aligned, busyness, machine

from penstock.tasks.queue import TaskQueue

LENGTHS = (1_000, 100_000, 1_000_000)
OPERATIONS = 100_000
AIM = 3.0
CLOCKS = {"elapsed": perf_counter, "cpu": process_time}

type Put = Callable[[object, int], None]
type Take = Callable[[], object]


def ours(ageing: float | None = None) -> tuple[Put, Take]:
    made = TaskQueue[object](ageing=ageing)
    return lambda item, priority: made.enqueue(item, priority=priority), made.dequeue


def peer(made: "queue.PriorityQueue[object] | asyncio.PriorityQueue[object]") -> tuple[Put, Take]:
    """High first and stable, as users do it: a tuple of priority, number and item."""
    number = itertools.count()
    put, take = made.put_nowait, made.get_nowait
    return lambda item, priority: put((-priority, next(number), item)), lambda: take()[2]


QUEUES: dict[str, Callable[[], tuple[Put, Take]]] = {
    "TaskQueue": ours,
    "TaskQueue(ageing=)": lambda: ours(60.0),
    "queue.PriorityQueue": lambda: peer(queue.PriorityQueue()),
    "asyncio.PriorityQueue": lambda: peer(asyncio.PriorityQueue()),
}


def measured(name: str, length: int, clock: str) -> tuple[float, float]:
    """Microseconds to put an item in and to take one out, while there are about `length` of them."""
    put, take = QUEUES[name]()
    dice = random.Random(1)
    priorities = [dice.randrange(100) for _ in range(length + OPERATIONS)]
    item = object()
    for priority in priorities[:length]:
        put(item, priority)
    now = CLOCKS[clock]
    gc.collect()
    began = now()
    for priority in priorities[length:]:
        put(item, priority)
    filled = now()
    for _ in range(OPERATIONS):
        take()
    emptied = now()
    return (filled - began) / OPERATIONS * 1e6, (emptied - filled) / OPERATIONS * 1e6


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench queue", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    parser.add_argument("--clock", choices=CLOCKS, default="elapsed", help="what to measure by; default elapsed")
    return parser.parse_args(given)


def report(chosen: argparse.Namespace) -> list[Aim]:
    print(f"# {machine(['penstock'])}")
    print(f"# {busyness()}")
    print(
        f"# us to put an item in / to take the first out, {OPERATIONS:,} times in a queue of so many; by {chosen.clock}"
    )
    rounds = range(1 if chosen.quick else 5)
    print(f"# time, medians of {len(rounds)}, 100 priorities at random\n", flush=True)
    runs = {(name, length): [] for length in LENGTHS for name in QUEUES}
    for _ in rounds:
        for (name, length), measurements in runs.items():
            measurements.append(measured(name, length, chosen.clock))
    medians = {case: [statistics.median(each) for each in zip(*runs[case], strict=True)] for case in runs}
    rows = [(name, *("{:.2f} / {:.2f}".format(*medians[name, length]) for length in LENGTHS)) for name in QUEUES]
    print(aligned([("", *(f"{length:,} queued" for length in LENGTHS)), *rows]))
    most = LENGTHS[-1]
    return [
        Aim(f"{name}: {what} at {most:,} queued", figure, AIM, form="{:.2f} us")
        for name in list(QUEUES)[:2]
        for what, figure in zip(("enqueue", "dequeue"), medians[name, most], strict=True)
    ]


if __name__ == "__main__":
    print_aims(report(arguments()))
