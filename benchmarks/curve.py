"""What keeping the order costs under lognormal latency, by sigma and buffer, and how far `map` is from an ideal window.

The ideal window is simulated on the same latencies. In virtual time both are exact. In real time the ideal gets the
latencies that the calls had, as they measured them.
"""

import argparse
import asyncio
from collections.abc import Sequence

from aims import Aim, print_aims
from ideal import finish
from timing import LOOPS, aligned, busyness, machine, once
from workloads import lognormal

import penstock
from penstock.testing import run

CONCURRENCY = 32
SIGMAS = (0.5, 1.0, 1.5)
BUFFERS = {"0": 0, "c": CONCURRENCY, "3c": 3 * CONCURRENCY, "8c": 8 * CONCURRENCY}
IN_REAL_TIME = ((1.0, "0"), (1.0, "3c"))
CLOSE = 0.03
MEDIAN = 0.02


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench curve", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the items: a look, not a result")
    return parser.parse_args(given)


def window(fn, count, buffer, *, ordered=True):
    return penstock.stream(range(count)).map(fn, concurrency=CONCURRENCY, buffer=buffer, ordered=ordered)


async def virtual_seconds(latencies: Sequence[float], buffer: int, *, ordered: bool = True) -> float:
    async def call(item):
        await asyncio.sleep(latencies[item])

    async for _ in window(call, len(latencies), buffer, ordered=ordered):
        pass
    return asyncio.get_running_loop().time()


def real_distance(latencies: Sequence[float], buffer: int, loop: str) -> float:
    """The share of time that a real run takes above the ideal one of the latencies that its calls had."""
    measured = [0.0] * len(latencies)

    async def call(item):
        now = asyncio.get_running_loop().time
        started = now()
        await asyncio.sleep(latencies[item])
        measured[item] = now() - started

    async def consume():
        return len(await window(call, len(latencies), buffer).to_list())

    seconds, _ = once(loop, consume)
    return seconds / finish(measured, CONCURRENCY, buffer) - 1


def report(chosen: argparse.Namespace) -> list[Aim]:
    count = 3_000 if chosen.quick else 30_000
    print(f"# {machine(['penstock', 'uvloop'])}")
    print(f"# {busyness()}")
    print(f"# concurrency c = {CONCURRENCY}, {count:,} calls of lognormal latency")
    efficiency, distance = [], []
    for sigma in SIGMAS:
        latencies = lognormal(count, median=MEDIAN, sigma=sigma)
        unordered = run(virtual_seconds(latencies, 0, ordered=False))
        spent = {name: run(virtual_seconds(latencies, buffer)) for name, buffer in BUFFERS.items()}
        ideal = {name: finish(latencies, CONCURRENCY, buffer) for name, buffer in BUFFERS.items()}
        efficiency.append((f"sigma {sigma:g}", *(f"{unordered / spent[name]:.0%}" for name in BUFFERS)))
        off = [unordered / finish(latencies, CONCURRENCY, ordered=False) - 1]
        off += [spent[name] / ideal[name] - 1 for name in BUFFERS]
        distance.append((sigma, off))
    columns = [f"buffer {name}" for name in BUFFERS]
    print("\nthroughput in order, of that out of order, in virtual time\n")
    print(aligned([("", *columns), *efficiency]))
    print("\ntime above that of an ideal window, in virtual time\n")
    rows = [(f"sigma {sigma:g}", *(f"{share:.2%}" for share in off)) for sigma, off in distance]
    print(aligned([("", "unordered", *columns), *rows]))
    worst = max(share for _, off in distance for share in off)
    return [
        Aim("ordered, in virtual time: time above an ideal window, worst", worst, CLOSE, form="{:.2%}"),
        *in_real_time(count // 50),
    ]


def in_real_time(count: int) -> list[Aim]:
    found = []
    for sigma, name in IN_REAL_TIME:
        latencies = lognormal(count, median=MEDIAN, sigma=sigma)
        for loop in LOOPS:
            share = real_distance(latencies, BUFFERS[name], loop)
            what = f"ordered, sigma {sigma:g}, buffer {name}, {loop}: time above an ideal window"
            found.append(Aim(what, share, CLOSE, form="{:.2%}"))
    return found


def main() -> None:
    print_aims(report(arguments()))


if __name__ == "__main__":
    main()
