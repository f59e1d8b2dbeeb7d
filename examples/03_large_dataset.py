"""A million rows through a parser, a call and a table, in memory that does not grow with them.

    python examples/03_large_dataset.py
    python examples/03_large_dataset.py --rows 20000 --to measured.db

The rows are lines of text that are made as they are read. Those that are broken are counted and left out; the others
go into an SQLite table, a thousand in a transaction. Peak memory (VmHWM of Linux) is shown after each tenth: it stands
still. Takes about half a minute.
"""

import argparse
import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import penstock


def lines(rows: int) -> Iterator[str]:
    """Give measurements as a file would have them; one in a thousand is cut off."""
    for number in range(rows):
        yield f"{number},sensor-{number % 7},{number % 1000 / 10}" if number % 1000 else f"{number},sens"


def parse(line: str) -> tuple[int, str, float]:
    """Read one; a ValueError is what a broken line gives."""
    number, sensor, value = line.split(",")
    return int(number), sensor, float(value)


async def convert(row: tuple[int, str, float]) -> tuple[int, str, float]:
    """Celsius to Fahrenheit; stands for a call of a service."""
    number, sensor, celsius = row
    return number, sensor, celsius * 9 / 5 + 32


def peak_mib() -> float:
    """The most memory that this process has had so far; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
    return int(found[0].split()[1]) / 1024 if found else 0


async def main(rows: int, database: str) -> None:
    """Load them, and say how it went after each tenth."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS measured (number INTEGER PRIMARY KEY, sensor TEXT, fahrenheit REAL)"
        )
        batches = (
            penstock.stream(lines(rows), total=rows)
            .map(parse, on_error="skip")
            .map(convert, concurrency=16)
            .batch(1_000)
        )
        stored = 0
        async with batches.open() as run:
            async for batch in run:
                connection.execute("BEGIN")
                connection.executemany("INSERT OR REPLACE INTO measured VALUES (?, ?, ?)", batch)
                connection.execute("COMMIT")
                before, stored = stored, stored + len(batch)
                if stored * 10 // rows > before * 10 // rows:
                    print(f"{stored:9,} rows, peak memory {peak_mib():.0f} MiB", flush=True)
            failed = run.stats()["map(parse)"].failed
        (count,) = connection.execute("SELECT count(*) FROM measured").fetchone()
        print(f"{count:,} rows stored, {failed:,} broken lines left out, peak memory {peak_mib():.0f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="how many (1000000)")
    parser.add_argument("--to", metavar="FILE", help="where to keep the table (nowhere)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(main(arguments.rows, arguments.to or f"{place}/measured.db"))
