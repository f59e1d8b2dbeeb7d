"""A CSV file into a table, a row an item: CPU beside the standard `sqlite3` with `executemany`."""

import argparse
import asyncio
import csv
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

import penstock


def written(path, number):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "name", "value"])
        writer.writerows([index, f"name {index}", index * 1.5] for index in range(number))
    return path


def rows_of(path):
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


def plain(path, place):
    with closing(sqlite3.connect(place / "plain.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, name, value)")
        connection.executemany("INSERT INTO rows VALUES (:id, :name, :value)", rows_of(path))
        connection.commit()


def durable(engine, name):
    def run(path, place):
        rows = penstock.keyed(lambda: rows_of(path), key=lambda row: int(row["id"]), engine=engine)
        asyncio.run(rows.to(penstock.SqliteTable(place / f"{name}.db", "rows", key="id"), run="rows"))

    return run


def cpu(run, path, place):
    began = time.process_time()
    run(path, place)
    return time.process_time() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    number = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        path = written(place / "rows.csv", number)
        base = cpu(plain, path, place)
        print(f"{number:,} rows; CPU a row")
        print(f"sqlite3, executemany         {base / number * 1e6:6.1f} us")
        for name, engine in (("keyed", None), ('keyed, engine="thread"', "thread")):
            seconds = cpu(durable(engine, engine or "loop"), path, place)
            print(f"{name:28} {seconds / number * 1e6:6.1f} us  {seconds / base:5.1f} times")


if __name__ == "__main__":
    main()
