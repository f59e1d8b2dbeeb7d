# ruff: noqa: INP001, S311, T201 -- a program that prints, and for which chance need be no secret
"""Run many small calls in worker processes that are killed at random: is a result lost, or there twice?

Half of the items go through a plain stream, half through a durable run into a table. Exits with 1 if the count of one
item is not one.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic, perf_counter

import penstock
from penstock.engines import processes

AGAIN = penstock.Retry(on=penstock.WorkerLost, attempts=1000, initial=0)
"""Two deaths in one call fail it: here, they are chance."""


def work(number: int) -> dict[str, int]:
    """Keep a worker busy: for 50 us, and now and then for 20 ms."""
    ends = perf_counter() + (0.02 if number % 997 == 0 else 0.00005)
    while perf_counter() < ends:
        pass
    return {"number": number, "worker": os.getpid()}


class Killer:
    """Kills workers that have given a result: those that die as they start say that something is wrong with them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.workers: set[int] = set()
        self.killed = 0

    async def kill(self) -> None:
        """Kill one, over and over."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.0, 0.2))
            if self.workers:
                worker = self.chance.choice(sorted(self.workers))
                self.workers.discard(worker)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                    self.killed += 1


async def soak(items: int, seed: int) -> int:
    """Send the items through, and count what came out wrong."""
    killer = Killer(seed)
    seen: Counter[int] = Counter()
    began = monotonic()

    def note(row: dict[str, int]) -> dict[str, int]:
        killer.workers.add(row["worker"])
        return row

    async with processes(2) as engine:
        killing = asyncio.create_task(killer.kill())
        half = penstock.stream(range(items // 2)).map(work, engine=engine, retry=AGAIN)
        async with half.open() as results:
            async for result in results:
                seen[note(result)["number"]] += 1
        print(
            f"{monotonic() - began:.1f} s: {len(seen):,} results of a stream, {killer.killed} workers killed",
            flush=True,
        )
        with tempfile.TemporaryDirectory() as folder:
            database = Path(folder) / "soak.db"
            source = penstock.keyed(range(items // 2, items), key=lambda number: number)
            rows = source.map(work, engine=engine, retry=AGAIN).map(note)
            report = await rows.to(penstock.SqliteTable(database, "numbers"), run="soak")
            print(
                f"{monotonic() - began:.1f} s: {report.rows:,} rows in a table, {killer.killed} workers killed",
                flush=True,
            )
            async with penstock.rows(database, "SELECT number FROM numbers", key="number").open() as stored:
                async for row in stored:
                    seen[row["number"]] += 1
        killing.cancel()
    lost = sum(number not in seen for number in range(items))
    twice = sum(count > 1 for count in seen.values())
    print(f"{items:,} items, {killer.killed} workers killed: {lost} lost, {twice} twice")
    return lost + twice


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("items", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=random.randrange(1_000_000))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    sys.exit(min(1, asyncio.run(soak(given.items, given.seed))))
