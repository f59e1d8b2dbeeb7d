"""What goes into an executor and a queue, and what comes out; never executed."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any, assert_type

from penstock import Retry
from penstock.core.stats import Stats
from penstock.tasks.executor import TaskExecutor
from penstock.tasks.feed import AddedTask, TaskResult
from penstock.tasks.queue import TaskQueue


async def fetch(url: str) -> bytes:
    return url.encode()


def plain() -> int:
    return 1


async def executed() -> None:
    executor = TaskExecutor(2, timeout=timedelta(seconds=3), retry=Retry(on=OSError), ageing=60, grace=1, name="mill")
    assert_type(executor.add(plain), AddedTask[int])
    assert_type(await executor.add(plain), int)
    assert_type(await executor.add(partial(fetch, "url"), id="first", priority=2.5), bytes)
    assert_type(await executor.add(lambda: fetch("url"), priority=-1), bytes)
    assert_type(await executor.add(fetch("url")), bytes)
    name: str = executor.add(plain)
    executor.results[name].unwrap()
    executor.add(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    executor.add(plain, priority="high")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    executor.add(plain, id=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert_type(await executor.run(), list[TaskResult[Any]])
    async with executor as same:
        assert_type(same, TaskExecutor)
    assert_type(executor.results, Mapping[str, TaskResult[Any]])
    assert_type(executor.stats(), Stats)
    executor.close()
    await executor.abort()
    TaskExecutor(concurrency=2, timeout=None, retry=None)
    TaskExecutor(workers=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def result(done: TaskResult[bytes]) -> None:
    assert_type(done.unwrap(), bytes)
    assert_type(done.result, bytes | None)
    assert_type(done.error, BaseException | None)
    done.success = False  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def queued() -> None:
    queue = TaskQueue[str](ageing=timedelta(minutes=1), clock=lambda: 0.0)
    queue.enqueue("a", priority=1)
    assert_type(queue.dequeue(), str)
    assert_type(queue.peek(), str)
    assert_type(queue.size(), int)
    assert_type(len(queue), int)
    queue.enqueue(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
