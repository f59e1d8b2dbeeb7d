"""Are the places of a window busy? In virtual time to the instant, in real time as a share of the time there was."""

import argparse
import asyncio
import itertools
from collections.abc import Sequence

from aims import Aim, print_aims
from peers import BOTH, FLOOR, PEERS, REFERENCE
from timing import LOOPS, aligned, busyness, going_on, machine, once
from workloads import lognormal

import penstock
from penstock.testing import Gauge, run

CALL = 0.05
WAVES = 20
CONCURRENCIES = (100, 1_000)
BUSY = 0.98


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench utilisation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the calls: a look, not a result")
    return parser.parse_args(given)


def busy_share(peer: str, loop: str, concurrency: int, waves: int, *, ordered: bool) -> float:
    """The time between the starts and the ends of calls, of the time that all places had."""
    spent = 0.0

    async def call(item):
        nonlocal spent
        now = asyncio.get_running_loop().time
        started = now()
        await asyncio.sleep(CALL)
        spent += now() - started
        return item

    seconds, _ = once(loop, lambda: PEERS[peer].run(call, range(waves * concurrency), concurrency, ordered))
    return spent / (seconds * concurrency)


async def idle_places(*, concurrency: int, buffer: int, ordered: bool, count: int = 3_000) -> float:
    """Seconds that places stood idle although the bound allowed another call, summed over the places."""
    latencies = lognormal(count, median=1.0, sigma=1.0)
    now = asyncio.get_running_loop().time
    running = taken = delivered = 0
    idle = since = 0.0

    def account() -> None:
        nonlocal idle, since
        if taken < count:
            allowed = min(concurrency - running, concurrency + buffer - (taken - delivered))
            idle += max(allowed, 0) * (now() - since)
        since = now()

    async def call(item):
        nonlocal running, taken
        account()
        running, taken = running + 1, taken + 1
        await asyncio.sleep(latencies[item])
        account()
        running -= 1

    results = penstock.stream(range(count)).map(call, concurrency=concurrency, buffer=buffer, ordered=ordered)
    async with results.open() as items:
        async for _ in items:
            account()
            delivered += 1
    return idle


async def first_result() -> tuple[float, int]:
    """Seconds until the first result of an endless source, with calls of a second, and how many had begun."""
    gauge = Gauge()
    call = gauge.wrap(asyncio.sleep)
    async with penstock.stream(itertools.repeat(1)).map(call, concurrency=100).open() as items:
        async for _ in items:
            return asyncio.get_running_loop().time(), gauge.started
    raise AssertionError("an endless source has ended")


def report(chosen: argparse.Namespace) -> list[Aim]:
    waves = WAVES // 4 if chosen.quick else WAVES
    print(f"# {machine(['penstock', 'uvloop'])}")
    print(f"# {busyness()}")
    idle = max(
        run(idle_places(concurrency=concurrency, buffer=buffer, ordered=ordered))
        for concurrency in (1, 7, 100)
        for buffer in (0, concurrency, 3 * concurrency)
        for ordered in BOTH
    )
    seconds, begun = run(first_result())
    print(f"# in virtual time: {idle:g} s of idle places while the bound allowed a call;")
    print(
        f"# the first result of an endless source after {seconds:g} calls' time, {begun} calls begun (concurrency 100)"
    )
    print(f"# in real time: calls of 50 ms, {waves} times the concurrency, the share of it that places were busy\n")
    found = [
        Aim("virtual time: seconds of idle places while the bound allows", idle, 0.0, form="{:g}"),
        Aim("virtual time: first result of an endless source, calls' time", seconds, 1.0, form="{:g}"),
    ]
    rows = []
    for concurrency in CONCURRENCIES:
        for ordered in BOTH:
            going_on(f"utilisation, concurrency {concurrency:,}, {'ordered' if ordered else 'unordered'}")
            where = f"{'ordered' if ordered else 'unordered'}, concurrency {concurrency:,}"
            shares = {
                (peer, loop): busy_share(peer, loop, concurrency, waves, ordered=ordered)
                for peer in (FLOOR, REFERENCE)
                for loop in LOOPS
            }
            rows.append((where, *(f"{share:.1%}" for share in shares.values())))
            found += [
                Aim(f"{where}, {loop}: busy", shares[REFERENCE, loop], BUSY, at_least=True, form="{:.1%}")
                for loop in LOOPS
            ]
    print(aligned([("", *(f"{peer}, {loop}" for peer in (FLOOR, REFERENCE) for loop in LOOPS)), *rows]))
    return found


def main() -> None:
    print_aims(report(arguments()))


if __name__ == "__main__":
    main()
