"""Results that are kept, and what becomes of changed code; never executed."""

from typing import assert_type

import penstock
from penstock import RunReport, SqliteTable, Stream


async def embed(texts: list[str]) -> list[list[float]]:
    return [[len(text) / 2] for text in texts]


async def fetch(url: str) -> bytes:
    return url.encode()


def is_page(url: str) -> bool:
    return "." in url


async def kept(urls: Stream[str], table: SqliteTable) -> None:
    assert_type(urls.map(fetch, memo=True), Stream[bytes])
    assert_type(urls.map(fetch, memo=True, deps={"model": "small", "sizes": [1, 2]}), Stream[bytes])
    assert_type(urls.filter(is_page, memo=True, deps=3), Stream[str])
    assert_type(urls.flat_map(str.split, memo=True), Stream[str])
    assert_type(urls.map_batches(embed, 8, memo=True, deps=("small", "v2")), Stream[list[float]])
    assert_type(penstock.parallel_map(urls, fetch, concurrency=3, memo=True, deps=None), Stream[bytes])
    report = await urls.to(table, run="urls", on_change="restart")
    assert_type(report, RunReport)
    assert_type(report.recalled, int)
    assert_type(report.changed, tuple[str, ...])


async def refused(urls: Stream[str], table: SqliteTable) -> None:
    urls.map(fetch, memo="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, dependencies=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.batch(8, memo=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await urls.to(table, run="urls", on_change="redo")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
