"""What finite work gives; never executed."""

from collections.abc import Coroutine
from functools import partial
from typing import Any, assert_type

from penstock import Outcome, Result
from penstock.tasks import (
    CancelToken,
    TaskRun,
    first_success,
    gather,
    partition,
    race,
    retry_failed,
    run_tasks,
    settle,
)


async def fetch(url: str) -> bytes:
    return url.encode()


async def answer() -> int:
    return 42


def plain() -> str:
    return ""


async def crawl(token: CancelToken) -> float:
    return 0.5


def crawl_plain(token: CancelToken) -> float:
    return 0.5


def coroutines() -> list[Coroutine[Any, Any, bytes]]:
    return [fetch("a")]


async def gathered() -> None:
    assert_type(await gather([answer, answer], concurrency=2), list[int])
    assert_type(await gather([plain], concurrency=2), list[str])
    assert_type(await gather((partial(fetch, url) for url in "ab"), concurrency=2), list[bytes])
    assert_type(await gather(coroutines(), concurrency=2), list[bytes])
    assert_type(await gather([lambda: fetch("a")], concurrency=2), list[bytes])
    assert_type(await gather([lambda: len("abc")], concurrency=2), list[int])


async def settled() -> None:
    outcomes = await settle([answer], concurrency=2)
    assert_type(outcomes, list[Outcome[int]])
    assert_type(outcomes[0].unwrap(), int)
    assert_type(partition(outcomes).values, list[int])
    assert_type(await retry_failed([answer], rounds=2, concurrency=2), list[Result[int]])


async def contests() -> None:
    assert_type(await race([answer]), int)
    assert_type(await first_success([plain]), str)


async def with_tokens() -> None:
    run = await run_tasks([crawl, crawl], is_failed=lambda result: result > 1)
    assert_type(run, TaskRun[float])
    assert_type(run.results, list[float])
    assert_type(await run_tasks([crawl_plain]), TaskRun[float])


async def wrong() -> None:
    await gather([answer])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await run_tasks([answer])  # type: ignore[list-item]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await gather([fetch], concurrency=2)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await gather([answer], concurrency="2")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
