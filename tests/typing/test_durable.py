"""Sources with identity and durable runs; never executed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import penstock
from penstock import File, Stream
from penstock.durable.report import RunReport
from penstock.sinks.table import SqliteTable


async def length(file: File) -> int:
    raise NotImplementedError


def lines() -> Iterator[str]:
    raise NotImplementedError


async def found() -> None:
    assert_type(penstock.files("docs"), Stream[File])
    assert_type(penstock.files(Path("docs"), ["*.md"], exclude="old", version="hash", on_error="skip"), Stream[File])
    assert_type(penstock.files("docs").map(length), Stream[int])
    assert_type(await penstock.files("docs").map(lambda file: file.read_text()).to_list(), list[str])
    penstock.files("docs", version="mtime")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    penstock.files("docs", on_error="collect")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    penstock.files(b"docs")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def a_file(file: File) -> None:
    assert_type(file.path, str)
    assert_type(file.key, str)
    assert_type(file.version, str)
    assert_type(file.read_bytes(), bytes)
    assert_type(file.read_text(encoding="latin-1"), str)
    file.key = "other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


async def read() -> None:
    assert_type(penstock.jsonl("events.jsonl"), Stream[Any])
    assert_type(penstock.jsonl(Path("events.jsonl"), growing=False, on_error="skip", max_line=10), Stream[Any])
    assert_type(penstock.csv("users.csv"), Stream[dict[str, str]])
    assert_type(penstock.csv(Path("users.csv"), key="id", columns=["id", "name"]), Stream[dict[str, str]])
    assert_type(penstock.csv("users.csv", key=lambda row: int(row["id"])), Stream[dict[str, str]])
    assert_type(penstock.rows("app.db", "SELECT 1 AS id", key="id"), Stream[dict[str, Any]])
    assert_type(
        penstock.rows(Path("app.db"), "SELECT ? AS id", key="id", version="id", parameters=(1,)), Stream[dict[str, Any]]
    )
    penstock.rows("app.db", "SELECT 1 AS id", key="id", parameters={"id": 1})
    penstock.rows("app.db", "SELECT 1 AS id")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    penstock.jsonl("events.jsonl", on_error="return")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def keyed() -> None:
    assert_type(penstock.keyed([1, 2], key=lambda number: number), Stream[int])
    assert_type(penstock.keyed(lines, key=str.strip, version=str.upper, name="lines", total=3), Stream[str])
    assert_type(penstock.keyed(lines, key=str.strip, engine="thread").map(len), Stream[int])
    penstock.keyed([1.5], key=lambda number: number)  # type: ignore[misc] # pyright: ignore[reportArgumentType]
    penstock.keyed([1], key=str, version=int)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def run() -> None:
    table = SqliteTable("out.db", "names")
    names = penstock.files("docs").map(lambda file: {"key": file.key})
    assert_type(await names.to(table, run="names"), RunReport)
    assert_type(await penstock.merge(names, names).to(table, run="both", on_missing="delete"), RunReport)
