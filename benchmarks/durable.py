"""What it costs that a run survives its death: the same stream with and without `.to()`, interleaved."""

import argparse
import asyncio
import gc
import itertools
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import apsw
from aims import Aim, print_aims
from timing import aligned, busyness, going_on, machine

import penstock
from penstock.sinks import sqlite_store
from penstock.sinks.table import SqliteTable

COST = 25.0
LOSSES = {50: 5.0, 200: 1.0}
"""Percent of the throughput that may be lost, at calls of so many milliseconds."""

IN_FLIGHT = 128
SECONDS = 6
"""How long a run takes at least, or 50,000 items: what opens and closes the database is not to count for much."""

PLAIN, KEYED, DURABLE = "stream", "keyed, without .to()", "keyed .to(SqliteTable)"


@dataclass(frozen=True)
class Once:
    """One run of so many items."""

    items: int
    seconds: float
    cpu: float
    commits: int = 0

    @property
    def microseconds(self) -> float:
        return self.cpu / self.items * 1e6

    @property
    def rate(self) -> float:
        return self.items / self.seconds


async def row(number: int) -> dict[str, object]:
    return {"id": number, "name": "a few words of text", "score": number / 2}


def waiting(milliseconds: int) -> Callable[[int], object]:
    async def call(number: int) -> dict[str, object]:
        await asyncio.sleep(milliseconds / 1000)
        return await row(number)

    return row if not milliseconds else call


def measured(kind: str, items: int, milliseconds: int, durability: str = "process") -> Once:
    """One run; its database is made and removed outside of what is measured."""
    work = waiting(milliseconds)
    source = penstock.stream(range(items)) if kind == PLAIN else penstock.keyed(range(items), key=int)
    rows = source.map(work, concurrency=IN_FLIGHT, ordered=False)

    async def once(place: Path) -> Once:
        commits = 0
        cpu, began = process_time(), perf_counter()
        if kind == DURABLE:
            report = await rows.to(SqliteTable(place / "rows.db", "rows"), run="bench", durability=durability)
            commits = report.commits
        else:
            await rows.drain()
        return Once(items, perf_counter() - began, process_time() - cpu, commits)

    place = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        gc.collect()
        return asyncio.run(once(place))
    finally:
        shutil.rmtree(place)


def one_by_one(items: int, durability: str) -> Once:
    """The same with a commit for each item, as it is written by hand."""
    before = sqlite_store.LARGEST
    sqlite_store.LARGEST = 1
    try:
        return measured(DURABLE, items, 0, durability)
    finally:
        sqlite_store.LARGEST = before


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench durable", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the items, one round: a look, not a result")
    return parser.parse_args(given)


def interleaved(cases: dict[str, Callable[[], Once]], rounds: int) -> dict[str, list[Once]]:
    runs = {name: [] for name in cases}
    for number in range(rounds):
        going_on(f"round {number + 1} of {rounds}: {', '.join(cases)}")
        names = list(cases)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            runs[name].append(cases[name]())
    return runs


def median(runs: Sequence[Once], of: Callable[[Once], float]) -> float:
    return statistics.median(map(of, runs))


def cost(items: int, rounds: int) -> list[Aim]:
    runs = interleaved({kind: partial(measured, kind, items, 0) for kind in (PLAIN, KEYED, DURABLE)}, rounds)
    found = {kind: median(runs[kind], lambda once: once.microseconds) for kind in runs}
    extra = statistics.median(
        durable.microseconds - plain.microseconds for durable, plain in zip(runs[DURABLE], runs[PLAIN], strict=True)
    )
    nothing = statistics.median(
        keyed.microseconds / plain.microseconds for keyed, plain in zip(runs[KEYED], runs[PLAIN], strict=True)
    )
    print(f"\nus of processor time an item, calls that return at once: 1 row of 3 columns a root, {items:,} items\n")
    print(aligned([("", "us"), *((kind, f"{us:.1f}") for kind, us in found.items()), ("durability", f"{extra:.1f}")]))
    return [
        Aim("durability: us of processor time an item", extra, COST, form="{:.1f}"),
        Aim("keyed without .to(): times a plain stream", nothing, 1.05),
    ]


def losses(few: int, rounds: int) -> list[Aim]:
    table, aims = [("", "items/s", "with .to()", "lost", "us of processor time more")], []
    for milliseconds in (0, 5, *LOSSES):
        items = min(50_000, SECONDS * 1000 // milliseconds * IN_FLIGHT if milliseconds else 50_000) // few
        cases = {kind: partial(measured, kind, items, milliseconds) for kind in (PLAIN, DURABLE)}
        runs = interleaved(cases, rounds)
        plain, durable = (median(runs[kind], lambda once: once.rate) for kind in (PLAIN, DURABLE))
        more = median(runs[DURABLE], lambda once: once.microseconds) - median(
            runs[PLAIN], lambda once: once.microseconds
        )
        lost = 100 * (1 - durable / plain)
        table.append((f"{milliseconds} ms", f"{plain:,.0f}", f"{durable:,.0f}", f"{lost:.1f} %", f"{more:.1f}"))
        if milliseconds in LOSSES:
            what = f"throughput lost at {milliseconds} ms, {IN_FLIGHT} in flight"
            aims.append(Aim(what, lost, LOSSES[milliseconds], form="{:.1f} %"))
    print(f"\nthroughput with {IN_FLIGHT} calls in flight\n")
    print(aligned(table))
    return aims


def commits(items: int, rounds: int) -> None:
    cases = {
        f"{how}, durability={durability!r}": partial(run, items if durability == "process" else items // 10, durability)
        for durability, (how, run) in itertools.product(
            ("process", "power"), (("what has come", grouped), ("one for each item", one_by_one))
        )
    }
    runs = interleaved(cases, rounds)
    print("\na commit for\n")
    print(
        aligned(
            [
                ("", "items/s", "us of processor time", "items a commit"),
                *(
                    (
                        name,
                        f"{median(found, lambda once: once.rate):,.0f}",
                        f"{median(found, lambda once: once.microseconds):.1f}",
                        f"{found[0].items / found[0].commits:,.0f}",
                    )
                    for name, found in runs.items()
                ),
            ]
        )
    )


def grouped(items: int, durability: str) -> Once:
    return measured(DURABLE, items, 0, durability)


def report(chosen: argparse.Namespace) -> list[Aim]:
    print(f"# {machine(['penstock', 'apsw'])}, SQLite {apsw.sqlite_lib_version()}")
    print(f"# {busyness()}; databases in {tempfile.gettempdir()}")
    rounds = 1 if chosen.quick else 5
    few = 5 if chosen.quick else 1
    print(f"# medians of {rounds}, interleaved", flush=True)
    measured(DURABLE, 100, 0)  # imports what it needs
    found = cost(50_000 // few, rounds)
    found += losses(few, 1 if chosen.quick else 3)
    commits(10_000 // few, rounds)
    return found


if __name__ == "__main__":
    print_aims(report(arguments()))
