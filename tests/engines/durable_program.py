"""A durable run on an engine, for tests that kill it: `python -m tests.engines.durable_program ENGINE FOLDER`."""

import asyncio
import os
import sys
import time
from functools import partial
from pathlib import Path

import penstock
from penstock.engines import Threads, dask, processes, ray

ITEMS = 60
HELD = 30
"""The item whose call waits until there is the file `go`."""

ENGINES = {
    "thread": lambda _: Threads(2),
    "process": lambda _: processes(2),
    "ray": lambda address: ray(2, address=address or "local"),
    "dask": lambda address: dask(2, address=address or None),
}


def row(folder, item):
    """Say which process has begun it, wait if it is held, and give its row."""
    began = Path(folder) / f"began-{item}"
    began.with_name(f"{item}.{os.getpid()}").write_text(str(os.getpid()))
    began.with_name(f"{item}.{os.getpid()}").replace(began)
    while item == HELD and not (Path(folder) / "go").exists():
        time.sleep(0.005)  # in a worker, whose only sign from outside is a file
    return {"value": item}


async def main(name, folder):
    kind, _, address = name.partition("=")
    table = penstock.SqliteTable(Path(folder) / "out.db", "rows")
    items = penstock.keyed(range(ITEMS), key=int, name="numbers")
    async with ENGINES[kind](address) as engine:
        report = await items.map(partial(row, folder), engine=engine, concurrency=40, ordered=False).to(
            table, run="run"
        )
    sys.stdout.write(f"{report.delivered + report.already_done}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
