"""What checkers infer of sinks and reports, and what they refuse; checked, never run."""

from collections.abc import Iterable, Sequence
from typing import assert_type, override

from penstock import Callback, Delivered, RunReport, SqliteTable, Stream
from penstock.core.outcome import Failed
from penstock.core.stats import Stats
from penstock.durable import Cause, DeadRoot, Letter, RunStatus, dead_roots, retry, runs
from penstock.sinks import Delivery, Durability, RootId, Sink, SqliteStore


async def send(rows: Sequence[Delivered]) -> None:
    for row in rows:
        assert_type(row.id, str)
        assert_type(row.key, str | int)
        assert_type(row.index, int)


def write(rows: Sequence[Delivered]) -> int:
    return len(rows)


class OwnStore(SqliteStore):
    @override
    def replace(self, root: RootId, rows: Iterable[str]) -> None:
        assert_type(root.key, str | int)
        self.connection.executemany("INSERT INTO names VALUES (?, ?)", ((root.number, row) for row in rows))


class Own:
    """A sink of one's own."""

    delivery: Delivery = "exactly once"

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self, durability: Durability) -> OwnStore:
        return OwnStore(self.path, durability)


class NoSink:
    """Lacks `open`."""

    delivery: Delivery = "exactly once"
    path = "t.db"


async def delivered(names: Stream[str]) -> None:
    sinks: list[Sink] = [SqliteTable("t.db", "names", key="name"), Callback(send, journal="sent.db"), Own("own.db")]
    for sink in sinks:
        assert_type(await names.to(sink, run="names", progress=True), RunReport)
    SqliteTable("t.db", "names", key=["year", "name"], columns={"year": "INTEGER", "name": "TEXT NOT NULL"})
    SqliteTable("t.db", "names", key=("year", "name"), columns=("year", "name"))
    again = await names.to(
        sinks[0],
        run="names",
        on_error="collect",
        on_dead="remove",
        on_duplicate="first",
        limit=10,
        on_missing="delete_all",
    )
    assert_type(again.causes, tuple[Cause, ...])
    assert_type((again.duplicates, again.limited), tuple[int, bool])
    Callback(write, journal="sent.db", size=10)
    Callback(lambda rows: write(rows), journal="sent.db")
    report = await names.to(sinks[0], run="names")
    assert_type(report.stats, Stats)
    assert_type(report.failures, tuple[Failed, ...])


def looked_at() -> None:
    assert_type(runs("t.db"), list[RunStatus])
    assert_type(dead_roots("t.db", run="names", keys=["a", 1]), list[DeadRoot])
    assert_type(retry("t.db")[0].letters, tuple[Letter, ...])
    assert_type(SqliteStore("t.db", "power").path, str)


async def refused(names: Stream[str]) -> None:
    Callback(send)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Callback(send, journal=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await names.to(Own("own.db"), run="names", on_error="skip")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SqliteTable("t.db", "names", columns=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await names.to(NoSink(), run="names")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
