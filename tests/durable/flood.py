# ruff: noqa: T201 -- a program that prints
"""A durable run over an input that is generated as it is read: how much memory does it take at its peak?

    python -m tests.durable.flood KIND MEGABYTES      prints the peak of this process, in MB, and the seconds

Kinds: "big" (items of a megabyte, a row each), "small" (items of 100 bytes, ten rows for one in ten of them, the others
are dropped), "dropped" (items of 100 bytes, all dropped), "one" (a single root with all rows, of 100 bytes each),
"nested" (a single root with rows of 50 kB, deep in them), "function" (the same, handed to a function).
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from penstock.sinks.callback import Callback
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

MEGABYTE = 1_000_000
SMALL = "x" * 100


def items(kind, megabytes):
    if kind in {"one", "nested", "function"}:
        yield 0, megabytes
    elif kind == "big":
        for number in range(megabytes):
            yield number, bytes(MEGABYTE)
    else:
        for number in range(megabytes * MEGABYTE // len(SMALL)):
            yield number, SMALL


def rows(kind, item):
    number, content = item
    if kind == "one":
        return ({"n": n, "text": SMALL} for n in range(content * MEGABYTE // len(SMALL)))
    if kind in {"nested", "function"}:
        return ({"n": n, "meta": {"pages": [{"text": f"{n:020}" * 2_500}]}} for n in range(content * 20))
    if kind == "big":
        return [{"n": number, "size": len(content)}]
    return [{"n": number, "text": content}] * (10 if number % 10 == 0 and kind == "small" else 0)


async def flood(kind, megabytes, folder):
    return await (
        keyed(lambda: items(kind, megabytes), key=lambda item: item[0])
        .flat_map(lambda item: rows(kind, item), concurrency=4)
        .to(
            Callback(lambda rows: None, journal=folder / "flood.db", size=10)
            if kind == "function"
            else SqliteTable(folder / "flood.db", "rows"),
            run="flood",
        )
    )


def peak():
    """The most memory that this process had resident, in MB; not that of the one that forked it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def main():
    kind, megabytes = sys.argv[1], int(sys.argv[2])
    began = perf_counter()
    with tempfile.TemporaryDirectory(prefix="penstock-flood-") as folder:
        report = asyncio.run(flood(kind, megabytes, Path(folder)))
    print(f"{peak():.0f} {perf_counter() - began:.1f}")
    print(report, file=sys.stderr)


if __name__ == "__main__":
    main()
