"""Load sales from CSV files, with columns shop and cents, into a table, each line exactly once, and then total them.

    python examples/load_sales.py FOLDER
    python examples/load_sales.py FOLDER --database sales.db --workspace .sales

An ETL job: its first step is a durable stream, which writes each file into the table once and passes over those that
are there, also when it was killed; then two queries run beside each other. A change in a file replaces its lines. Ends
with 0 if all went well.
"""

import argparse
import asyncio
import csv
import sqlite3
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import penstock
from penstock.flow import Pipeline, PipelineEngine, parallel, step

TABLE = "sales"


def parse(file: penstock.File) -> list[dict[str, object]]:
    """Give the lines of a file, as rows."""
    lines = csv.DictReader(file.read_text().splitlines())
    if missing := {"shop", "cents"} - {*(lines.fieldnames or ())}:
        raise ValueError(f"{file.key} must have a column {min(missing)!r}, got {lines.fieldnames}")
    return [{"shop": line["shop"], "cents": int(line["cents"])} for line in lines]


async def load(database: Path, folder: str) -> int:
    """Bring the table up to date; how many files are new or have changed."""
    files = penstock.files(folder, "*.csv", version="hash")
    report = await files.flat_map(parse, concurrency=4).to(
        penstock.SqliteTable(database, TABLE), run="load", on_missing="delete"
    )
    return report.delivered


def query(database: Path, sql: str, _: int) -> list[list[object]]:
    """Give the rows of a query."""
    with closing(sqlite3.connect(database)) as connection:
        return [list(row) for row in connection.execute(sql)]


def build(database: Path) -> Pipeline[str, list[list[list[object]]]]:
    """Make the pipeline of a database."""
    totals = partial(query, database, f"SELECT shop, sum(cents) FROM {TABLE} GROUP BY shop ORDER BY shop")  # noqa: S608 -- a name of ours
    largest = partial(query, database, f"SELECT shop, cents FROM {TABLE} ORDER BY cents DESC LIMIT 1")  # noqa: S608 -- as above
    return (
        Pipeline("sales", takes=str)
        .step("load", partial(load, database))
        .add(parallel("figures", [step("totals", totals), step("largest", largest)]))
    )


async def run(folder: str, database: Path, workspace: Path) -> int:
    """Run it, and say what came of it."""
    result = await PipelineEngine(workspace).run(build(database), folder)
    if result.error is not None:
        print(result.error, file=sys.stderr)
        return 1
    totals, largest = result.output
    print(f"{result.outputs['load']} files are new or have changed")
    for shop, cents in totals:
        print(f"{shop}: {cents} cents")
    print("largest:", *(f"{shop}, {cents} cents" for shop, cents in largest))
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Load sales into a table and total them.")
    parser.add_argument("folder", help="a folder with *.csv files that have columns shop and cents")
    parser.add_argument("--database", type=Path, default=Path("sales.db"), help="the database; default: sales.db")
    parser.add_argument("--workspace", type=Path, default=Path(".sales"), help="the record of runs; default: .sales")
    options = parser.parse_args()
    if not Path(options.folder).is_dir():
        parser.error(f"{options.folder} is not a folder")
    try:
        return asyncio.run(run(options.folder, options.database, options.workspace))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
