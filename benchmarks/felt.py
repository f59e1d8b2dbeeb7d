"""What users feel, a line each: processor time of penstock beside the peer that is best at it, and the aim.

    tools/bench felt [--rounds 7] [--quick] [--lines threads,demo]

Processor time is that of all threads and, for the demo, of all processes. A new line is a function that gives its
cases, and a row of `LINES`.
"""

import argparse
import asyncio
import os
import random
import string
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import batched
from pathlib import Path

import apsw
import per_item
import streamable
from aims import Aim, print_aims
from peers import PEERS
from timing import Case, aligned, busyness, interleave, machine
from workloads import WORKLOADS

from penstock import Limiter, Retry, SqliteTable, Stream, keyed, stream

OURS = "penstock"
LEFT_OUT = ("test", "tests", "idle_test", "site-packages", "dist-packages")


@dataclass(frozen=True)
class Line:
    """A line of the table: who takes part, how many items a run has, and what penstock is meant to keep.

    `most` is in units of the line; `times`, in times the row `of`. Its `clock`, if it has one, is that of no option.
    """

    name: str
    items: int
    runs: dict[str, Callable[[int], int]]
    most: float | None = None
    times: float | None = None
    of: str = ""
    unit: str = "us"
    clock: str = ""


def counted(run: Callable[[int], int], items: int, clock: str) -> tuple[float, int]:
    """Time one run by processor time, or elapsed."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    began = now()
    seen = run(items)
    return now() - began, seen


# Threads


def with_peer(name: str, concurrency: int, *, ordered: bool, items: int) -> int:
    work = WORKLOADS["threads"].fn
    return asyncio.run(PEERS[name].run_plain(work, range(items), concurrency, ordered))


def with_executor(concurrency: int, items: int) -> int:
    with ThreadPoolExecutor(concurrency) as pool:
        return sum(1 for _ in pool.map(WORKLOADS["threads"].fn, range(items)))


def threads(share: int) -> Iterator[Line]:
    for concurrency in (16, 100):
        runs = {
            OURS: lambda n, c=concurrency: with_peer("penstock", c, ordered=True, items=n),
            "penstock unordered": lambda n, c=concurrency: with_peer("penstock", c, ordered=False, items=n),
            "ThreadPoolExecutor.map": partial(with_executor, concurrency),
            "streamable": lambda n, c=concurrency: with_peer("streamable", c, ordered=True, items=n),
        }
        name = f"a hash of 1 kB in {concurrency} threads"
        yield Line(name, 10_000 // share, runs, times=1.2, of="ThreadPoolExecutor.map")


# One place, scripts, outputs of generators

ONE_PLACE = {"map": 1.6, "filter": 1.6, "at once": 2.7, "sleep(0)": 2.4}
"""Times streamable, which takes 5.0, 5.1, 4.5 and 24.5 thousand instructions an item; penstock: 8, 8, 12 and 60."""


async def at_once(number):
    return number


async def passes(number):
    await asyncio.sleep(0)
    return number


async def waits(number):
    await asyncio.sleep(0.001)
    return number


def same(number):
    return number


async def one(number):
    yield number


async def ten(number):
    for output in range(10):
        yield number + output


async def two(number):
    yield number
    yield number


def reading(make: Callable[[int], AsyncIterable[int]]) -> Callable[[int], int]:
    """Count what an `async for` gets."""

    async def read(items: int) -> int:
        seen = 0
        async for _ in make(items):
            seen += 1
        return seen

    return lambda items: asyncio.run(read(items))


def listing(make: Callable[[int], Stream[int]]) -> Callable[[int], int]:
    return lambda items: len(asyncio.run(make(items).to_list()))


async def one_by_one(call: Callable[[int], Awaitable[int]], items: int):
    """Do what a loop without a library does."""
    for number in range(items):
        yield await call(number)


def one_place(share: int) -> Iterator[Line]:
    plain = {
        OURS: listing(lambda n: stream(range(n)).map(same)),
        "penstock, async for": reading(lambda n: stream(range(n)).map(same)),
        "streamable": reading(lambda n: streamable.stream(range(n)).map(same)),
        "a loop": lambda n: len([same(number) for number in range(n)]),
    }
    yield Line("map(def), one place", 20_000 // share, plain, times=ONE_PLACE["map"], of="streamable")
    sifted = {
        OURS: listing(lambda n: stream(range(n)).filter(lambda _: True)),
        "penstock, async for": reading(lambda n: stream(range(n)).filter(lambda _: True)),
        "streamable": reading(lambda n: streamable.stream(range(n)).filter(lambda _: True)),
    }
    yield Line("filter(lambda), one place", 20_000 // share, sifted, times=ONE_PLACE["filter"], of="streamable")
    for name, call in (("at once", at_once), ("sleep(0)", passes)):
        runs = {
            OURS: listing(lambda n, c=call: stream(range(n)).map(c)),
            "penstock, async for": reading(lambda n, c=call: stream(range(n)).map(c)),
            "streamable": reading(lambda n, c=call: streamable.stream(range(n)).map(c)),
            "a loop": reading(partial(one_by_one, call)),
        }
        yield Line(f"async, {name}, one place", 20_000 // share, runs, times=ONE_PLACE[name], of="streamable")


def in_plain_code(made: Stream[int]) -> int:
    with made.sync() as results:
        return sum(1 for _ in results)


def in_script(call: Callable[[int], Awaitable[int]], items: int) -> int:
    return in_plain_code(stream(range(items)).map(call, concurrency=100))


def script_of_streamable(call: Callable[[int], Awaitable[int]], items: int) -> int:
    return sum(1 for _ in streamable.stream(range(items)).map(call, concurrency=100))


def scripts(share: int) -> Iterator[Line]:
    for name, call, most in (("at once", at_once, 5), ("1 ms", waits, 20)):
        runs = {OURS: partial(in_script, call), "streamable": partial(script_of_streamable, call)}
        yield Line(f"sync(), {name}, 100 places", 20_000 // share, runs, most=most)


def outputs(share: int) -> Iterator[Line]:
    for many, each in ((10, ten), (2, two), (1, one)):
        runs = {
            OURS: listing(lambda n, m=many, e=each: stream(range(n // m)).flat_map(e)),
            "penstock, async for": reading(lambda n, m=many, e=each: stream(range(n // m)).flat_map(e)),
            "streamable": reading(lambda n, m=many, e=each: streamable.stream(range(n // m)).map(e).flatten()),
        }
        yield Line(f"flat_map of an async generator of {many}", 20_000 // share, runs, most=5)
    lists = {OURS: lambda n: in_plain_code(stream(range(n // 10)).flat_map(lambda number: [number] * 10))}
    yield Line("sync(), flat_map to lists of 10", 20_000 // share, lists)


# The demo


def embedded(engine: str | None, _: int) -> int:
    """Index the standard library in a process of its own, as the demo does; None: on the engine that is the default."""
    excluded = [word for name in LEFT_OUT for word in ("--exclude", name)]
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "penstock", "embed", sysconfig.get_path("stdlib"), *excluded]
        to = ["--to", str(Path(place) / "index.db"), *(() if engine is None else ("--engine", engine))]
        subprocess.run([*command, *to], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return 1


def demo(_: int) -> Iterator[Line]:
    name, inline = "embed of the standard library", "--engine inline"
    others = {f"--engine {engine}": partial(embedded, engine) for engine in ("inline", "thread", "process")}
    runs = {OURS: partial(embedded, None), **others}
    yield Line(name, 1, runs, most=4.2, unit="s")
    both = {OURS: runs[OURS], inline: runs[inline]}
    yield Line(f"{name}, elapsed", 1, both, times=0.6, of=inline, unit="s", clock="elapsed")


# Search

CHUNKS = 100_000
OF_A_FILE = 100


def written(place: Path, chunks: int) -> Path:
    """An index of so many chunks of random words, made in a process of its own."""
    pick = random.Random(1)
    words = ["".join(pick.choices(string.ascii_lowercase, k=pick.randint(3, 9))) for _ in range(5_000)]
    (place / "files").mkdir()
    for number in range(chunks // OF_A_FILE):
        parts = (f"# Part {part}\n\n{' '.join(pick.choices(words, k=130))}" for part in range(OF_A_FILE))
        (place / "files" / f"{number}.md").write_text("\n\n".join(parts))
    penstock("embed", str(place / "files"), "--to", str(place / "index.db"))
    return place / "index.db"


def penstock(*arguments: str) -> int:
    command = [sys.executable, "-m", "penstock", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return 1


def search(share: int) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as place:
        index = written(Path(place), CHUNKS // share)
        runs = {
            OURS: lambda _: penstock("search", str(index), "how do I compress bytes?"),
            "penstock --version": lambda _: penstock("--version"),
        }
        yield Line(f"search in {CHUNKS // share:,} chunks", 1, runs, most=0.5, unit="s")


# Options: what each adds to a call that waits once


async def waits_once(item: int) -> int:
    await asyncio.sleep(0)
    return item


def with_options(make: Callable[[], dict[str, object]], items: int) -> int:
    mapped = stream(range(items)).map(waits_once, concurrency=100, **make())
    return asyncio.run(mapped.count())


def options(share: int) -> Iterator[Line]:
    given: dict[str, Callable[[], dict[str, object]]] = {
        "timeout": lambda: {"timeout": 10},
        "timeout, retry": lambda: {"timeout": 10, "retry": Retry(on=OSError)},
        "limit, a Limiter": lambda: {"limit": Limiter(100)},
    }
    for name, make in given.items():
        runs = {OURS: partial(with_options, make), "without": partial(with_options, dict)}
        yield Line(f"sleep(0) with {name}", 20_000 // share, runs, times=1.3, of="without")


# A durable table


def made(number: int) -> dict[str, object]:
    return {"id": number, "name": "a few words of text", "score": number / 2}


async def row(number: int) -> dict[str, object]:
    return made(number)


def into_a_table(items: int) -> int:
    with tempfile.TemporaryDirectory() as place:
        rows = keyed(range(items), key=int).map(row, concurrency=100)
        return asyncio.run(rows.to(SqliteTable(Path(place) / "rows.db", "rows"), run="felt")).delivered


def by_hand(items: int) -> int:
    """Into the same two tables, a thousand rows a commit: no resume, no dead letters, no look at what is known."""
    with tempfile.TemporaryDirectory() as place:
        database = apsw.Connection(str(Path(place) / "rows.db"))
        database.pragma("journal_mode", "wal")
        database.pragma("synchronous", "normal")
        database.execute(
            "CREATE TABLE roots (id INTEGER PRIMARY KEY, key, version, position, rows, state, run, times);"
            "CREATE UNIQUE INDEX keys ON roots (run, key); CREATE TABLE rows (root INTEGER NOT NULL, id, name, score);"
            "CREATE INDEX of_root ON rows (root)"
        )
        for some in batched(range(items), 1_000):
            with database:
                rows = [made(number) for number in some]
                roots = [(each["id"], each["id"], "", each["id"], 1, 0, 1, 1) for each in rows]
                database.executemany("INSERT INTO roots VALUES (?, ?, ?, ?, ?, ?, ?, ?)", roots)
                database.executemany(
                    "INSERT INTO rows VALUES (?, ?, ?, ?)", [(each["id"], *each.values()) for each in rows]
                )
        database.close()
    return items


def durable(share: int) -> Iterator[Line]:
    runs = {OURS: into_a_table, "by hand": by_hand}
    yield Line("a row an item into a durable table", 50_000 // share, runs, most=12.0)


LINES = {
    "threads": threads,
    "one": one_place,
    "sync": scripts,
    "flat_map": outputs,
    "demo": demo,
    "search": search,
    "options": options,
    "durable": durable,
}
PEERS_OF_ASYNC = "async"
"""The line that has a program of its own, on both loops: `tools/bench`."""


def of_children(run: Callable[[int], int], items: int, clock: str) -> tuple[float, int]:
    """Do what `counted` does, for work in other processes."""
    began, before = time.perf_counter(), os.times()
    seen = run(items)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return (cpu if clock == "cpu" else time.perf_counter() - began), seen


def cases(line: Line) -> list[Case]:
    count = of_children if line.unit == "s" else counted
    return [
        Case(line.name, who, line.unit, line.items, partial(count, run, line.items)) for who, run in line.runs.items()
    ]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench felt", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="3 rounds of a tenth of the items: a look, not a result")
    names = (*LINES, PEERS_OF_ASYNC)
    parser.add_argument("--lines", default=",".join(names), help=", ".join(names))
    parser.add_argument("--clock", choices=("cpu", "elapsed"), default="cpu")
    return parser.parse_args(given)


def main() -> None:
    chosen = arguments()
    print(machine(["penstock", "streamable"]))
    print(busyness(), end="\n\n", flush=True)
    rounds = 3 if chosen.quick else chosen.rounds
    rows, found = [("", "who", "an item", "times penstock")], []
    names = chosen.lines.split(",")
    for name in names:
        for line in () if name == PEERS_OF_ASYNC else LINES[name](10 if chosen.quick else 1):
            measured = interleave(cases(line), rounds, line.clock or chosen.clock)
            scale = 1e6 if line.unit == "s" else 1.0
            cells = {case.row: cell.median / scale for case, cell in measured.items()}
            ours = cells[OURS]
            for number, (who, each) in enumerate(cells.items()):
                rows.append((line.name if not number else "", who, f"{each:.2f} {line.unit}", f"{each / ours:.2f}x"))
            if line.times is not None:
                found.append(Aim(f"{line.name}: penstock, times {line.of}", ours / cells[line.of], line.times))
            if line.most is not None:
                found.append(Aim(f"{line.name}: penstock, {line.unit}", ours, line.most, form="{:.2f}"))
    print(aligned(rows), flush=True)
    if PEERS_OF_ASYNC in names:
        of_async = ["--workloads", "at once,sleep(0),1 ms", "--rounds", str(rounds), "--clock", chosen.clock]
        print()
        found += per_item.report(per_item.arguments([*of_async, *(["--quick"] if chosen.quick else [])]))
    print_aims(found)


if __name__ == "__main__":
    main()
