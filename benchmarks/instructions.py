"""Instructions of the processor an item, as valgrind's callgrind counts them: on a busy machine the same ones.

    tools/bench instructions [--cases "sleep(0)"] [--reader list]

Two processes differ in the number of items alone; the table has the difference, by the item. Under callgrind all takes
fifty times as long, so a turn of the loop, which lasts 2.5 ms, would be over after a few items, and any call would
count as slow: both are made long here.
"""

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterable, Callable
from concurrent.futures import ThreadPoolExecutor

import streamable
from aims import Aim, print_aims
from timing import aligned, machine

from penstock import Limiter, Retry, stream
from penstock.core import meter, scope

FEW, MANY = 500, 2_500


def same(number):
    return number


async def at_once(number):
    return number


async def passes(number):
    await asyncio.sleep(0)
    return number


async def one(number):
    yield number


type Made = Callable[[range], AsyncIterable[int]]

CASES: dict[str, tuple[Made, float | None]] = {
    "map(def), one place": (lambda items: stream(items).map(same), 8_000),
    "filter(lambda), one place": (lambda items: stream(items).filter(lambda _: True), 8_000),
    "async, at once, one place": (lambda items: stream(items).map(at_once), 12_000),
    "async, sleep(0), one place": (lambda items: stream(items).map(passes), 60_000),
    "flat_map of an async generator of 1": (lambda items: stream(items).flat_map(one), None),
    "sleep(0), 100 places": (lambda items: stream(items).map(passes, concurrency=100), None),
    "with timeout": (lambda items: stream(items).map(passes, concurrency=100, timeout=60), 42_800),
    "with timeout, retry": (
        lambda items: stream(items).map(passes, concurrency=100, timeout=60, retry=Retry(on=OSError)),
        44_400,
    ),
    "with limit, a Limiter": (lambda items: stream(items).map(passes, concurrency=100, limit=Limiter(100)), 51_800),
    "streamable, map(def)": (lambda items: streamable.stream(items).map(same), None),
    "streamable, async, at once": (lambda items: streamable.stream(items).map(at_once), None),
    "streamable, async, sleep(0)": (lambda items: streamable.stream(items).map(passes), None),
}
"""What is counted, and the most that penstock is meant to take."""


READERS = {case: "async for" for case in CASES if case.startswith("streamable")}


async def read(made: AsyncIterable[int]) -> int:
    return sum([1 async for _ in made])


def run(case: str, reader: str, items: int) -> None:
    """Read one stream to its end: what callgrind watches."""
    scope.TURN = meter.SLOW = 1e6
    made = CASES[case][0](range(items))
    seen = len(asyncio.run(made.to_list())) if reader == "list" else asyncio.run(read(made))
    assert seen == items


def instructions(case: str, reader: str, items: int) -> int:
    watched = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
    arguments = ["--run", str(items), "--cases", case, "--reader", reader]
    same_hashes = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run([*watched, *arguments], capture_output=True, text=True, check=True, env=same_hashes)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def an_item(case: str, reader: str) -> float:
    return (instructions(case, reader, MANY) - instructions(case, reader, FEW)) / (MANY - FEW)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="those that have this in their names; default all")
    parser.add_argument("--reader", choices=("list", "async for"), default="list", help="how penstock is read")
    parser.add_argument("--run", type=int, metavar="ITEMS", help="run one case, and count nothing")
    options = parser.parse_args()
    if options.run:
        run(options.cases, options.reader, options.run)
        return
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed")
    wanted = [(case, READERS.get(case, options.reader)) for case in CASES if options.cases in case]
    print(f"# {machine(('penstock', 'streamable'))}\n# instructions an item, of {MANY:,} items less {FEW:,}\n")
    with ThreadPoolExecutor(2) as pool:
        counts = {}
        for each, count in zip(wanted, pool.map(lambda each: an_item(*each), wanted), strict=True):
            print(f"# {each[0]}: {count:,.0f}", flush=True)
            counts[each] = count
    print(
        "\n" + aligned([("", "reader", "instructions"), *((*each, f"{count:,.0f}") for each, count in counts.items())])
    )
    print_aims(
        [
            Aim(f"{case}: instructions", counts[case, "list"], most, form="{:,.0f}")
            for case, (_, most) in CASES.items()
            if most is not None and (case, "list") in counts
        ]
    )


if __name__ == "__main__":
    main()
