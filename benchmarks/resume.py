"""What it takes to pass over a million roots that are done, with their keys in order and at random."""

import argparse
import asyncio
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time

import apsw
from aims import Aim, print_aims
from timing import aligned, busyness, going_on, machine

import penstock
from penstock.sinks.table import SqliteTable

MILLION = 1_000_000
AIMS = {"in order": 2.0, "at random": 12.0}
"""Seconds of processor time for a million keys."""

MEMORY_MB = 8.0
_STEP = 611_953
"""A prime: so many places further each time, one comes by all of them, in what looks like any order."""


def keys(number: int, order: str) -> list[str]:
    step = 1 if order == "in order" else _STEP
    return [f"k{place * step % number:07}" for place in range(number)]


def itself(key: str) -> str:
    return key


def no_rows(_: object) -> tuple[()]:
    return ()


def source_of(kind: str, place: Path, number: int, order: str) -> "penstock.Stream[object]":
    if kind == "keyed":
        return penstock.keyed(keys(number, order), key=itself)
    if kind == "jsonl":
        return penstock.jsonl(place / "lines.jsonl")
    if kind == "rows":
        return penstock.rows(place / "rows.db", "SELECT id, name FROM rows ORDER BY id", key="id")
    return penstock.files(place / "files")


def make(place: Path, source: str, number: int) -> None:
    if source == "jsonl":
        with (place / "lines.jsonl").open("w") as lines:
            lines.writelines(f'{{"id": {line}, "name": "a few words of text"}}\n' for line in range(number))
    elif source == "rows":
        connection = apsw.Connection(str(place / "rows.db"))
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, name)")
        with connection:
            connection.executemany("INSERT INTO rows VALUES (?, 'a few words of text')", ((n,) for n in range(number)))
        connection.close()
    elif source == "files":
        for file in range(number):
            path = place / "files" / f"{file // 1000:04}" / f"{file:07}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


async def run(place: Path, source: str, number: int, order: str) -> dict[str, float]:
    stream = source_of(source, place, number, order).flat_map(no_rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, began = process_time(), perf_counter()
    report = await stream.to(SqliteTable(place / "journal.db", "rows"), run="bench")
    return {
        "cpu": process_time() - cpu,
        "seconds": perf_counter() - began,
        "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "already": report.already_done,
    }


def in_a_process(place: Path, source: str, number: int, order: str) -> dict[str, float]:
    """In one of its own: so what it needs of memory is seen."""
    asked = [sys.executable, __file__, "--in-here", str(place), source, str(number), order]
    return json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench resume", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the roots, one round: a look, not a result")
    parser.add_argument("--in-here", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args(given)


def report(chosen: argparse.Namespace) -> list[Aim]:
    print(f"# {machine(['penstock', 'apsw'])}, SQLite {apsw.sqlite_lib_version()}")
    print(f"# {busyness()}")
    few = 10 if chosen.quick else 1
    rounds = 1 if chosen.quick else 3
    cases = {
        ("keyed", MILLION // 10 // few): list(AIMS),
        ("keyed", MILLION // few): list(AIMS),
        ("jsonl", MILLION // 10 // few): ["in order"],
        ("rows", MILLION // 10 // few): ["in order"],
        ("files", MILLION // 10 // few): ["in order"],
    }
    print(
        f"# medians of {rounds}; what a source costs that is read counts, the keys of `keyed` are there before\n",
        flush=True,
    )
    found = {}
    for (source, number), orders in cases.items():
        place = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        try:
            going_on(f"{source}, {number:,} roots")
            make(place, source, number)
            in_a_process(place, source, number, "in order")
            for order in orders:
                runs = [in_a_process(place, source, number, order) for _ in range(rounds)]
                assert all(run["already"] == number for run in runs)
                found[source, number, order] = {
                    what: statistics.median(run[what] for run in runs) for what in ("cpu", "seconds", "memory")
                }
        finally:
            shutil.rmtree(place)
    print(
        aligned(
            [
                ("", "roots", "us of processor time a root", "seconds", "MB more"),
                *(
                    (
                        f"{source}, {order}",
                        f"{number:,}",
                        f"{figures['cpu'] / number * 1e6:.2f}",
                        f"{figures['seconds']:.2f}",
                        f"{figures['memory']:.1f}",
                    )
                    for (source, number, order), figures in found.items()
                ),
            ]
        )
    )
    most, tenth = MILLION // few, MILLION // 10 // few
    aims = []
    for order, limit in AIMS.items():
        large, small = found["keyed", most, order], found["keyed", tenth, order]
        more = large["memory"] - small["memory"]
        what = f"{most:,} keys {order}"
        aims.append(Aim(f"{what}: s of processor time", large["cpu"], limit / few, form="{:.2f} s"))
        aims.append(Aim(f"{what}: MB more than with a tenth", more, MEMORY_MB, form="{:.1f} MB"))
    return aims


def main() -> None:
    chosen = arguments()
    if chosen.in_here:
        place, source, number, order = chosen.in_here
        print(json.dumps(asyncio.run(run(Path(place), source, int(number), order))))
    else:
        print_aims(report(chosen))


if __name__ == "__main__":
    main()
