"""Options that no operator has, or not of that type, are refused by both checkers; never executed."""

from datetime import timedelta

import penstock
from penstock import Retry, Stream, parallel_filter, parallel_map


async def fetch(url: str) -> bytes:
    return url.encode()


async def embed(texts: list[str]) -> list[float]:
    return [len(text) / 2 for text in texts]


def weigh(url: str) -> float:
    return len(url)


def names(urls: Stream[str]) -> None:
    urls.map(fetch, paralel=4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.map(fetch, workers=4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.filter(fetch, worker=4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.tap(fetch, limits=4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.flat_map(str.split, concurency=4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.map_batches(embed, 8, batch_size=8)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.map(fetch, within=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.batch(8, concurrency=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    urls.take(3, ordered=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    urls.distinct(size=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    urls.zip(urls, strictly=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.merge(urls, ordered=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.prefetch(3, buffer=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    penstock.stream(["a"], length=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def types(urls: Stream[str]) -> None:
    urls.map(fetch, concurrency="4")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, concurrency=4.0)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, ordered="no")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, buffer=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, buffer=1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, engine="gpu")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, name=1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, timeout="10s")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, retry=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, retry=True)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, max_failures="3")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, max_failure_rate="10%")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.filter(fetch, concurrency="4")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.tap(fetch, timeout=[1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    urls.flat_map(str.split, buffer="1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    urls.map_batches(embed, "8")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    urls.map_batches(embed, 8.0)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    urls.map_batches(embed, 8, within="1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    urls.map_batches(embed, 8, concurrency="1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def policies(urls: Stream[str], policy: str) -> None:
    urls.map(fetch, on_error="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, on_error=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, on_error=policy)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.filter(fetch, on_error="drop")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.tap(fetch, on_error="log")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.flat_map(str.split, on_error="Return")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map_batches(embed, 8, on_error="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_map(urls, fetch, concurrency=4, on_error="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_filter(urls, fetch, concurrency=4, on_error="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def by_position(urls: Stream[str]) -> None:
    urls.map(fetch, 4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.filter(fetch, 4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.map(fn=fetch)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.map_batches(embed)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    urls.map_batches(8, embed)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    urls.batch()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    urls.batch(8, 0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    urls.take()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    penstock.stream()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    penstock.stream(["a"], 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    parallel_map(urls, fetch, 4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    parallel_filter(urls, fetch, 4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def left_out(urls: Stream[str]) -> None:
    parallel_map(urls, fetch)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    parallel_filter(urls, fetch)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    parallel_map(urls, fetch, concurrency=None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Retry()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def of_others(urls: Stream[str]) -> None:
    urls.take("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.take(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.skip(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.prefetch("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.batch("8")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.batch(8, within="1s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.batch(8, weight=3, max_weight=10)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.batch(8, weight=weigh, max_weight="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.distinct(key=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.distinct(last="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.enumerate("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.zip(urls, strict="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.through(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    penstock.stream(["a"], total="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    penstock.stream(["a"], engine="inline")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    penstock.stream(["a"], engine="process")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def retries() -> None:
    Retry(on="ConnectionError")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=ValueError())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=[ValueError, OSError])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=lambda: True)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
    Retry(ValueError)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Retry(on=ValueError, attempts="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=ValueError, attempts=2.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=ValueError, wait=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=ValueError, wait=lambda error: "3")  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    Retry(on=ValueError, tries=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Retry(on=ValueError, max="1 h")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=ValueError, deadline="1 h")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Retry(on=ValueError).attempts = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def ends(urls: Stream[str]) -> None:
    urls.open(grace="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.open(timing="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.open(progress=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.sync(timing=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.open(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    urls.sync(grace=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await urls.first(None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await urls.first(or_else=None)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    await urls.for_each(fetch, on_error="return")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await urls.for_each(fetch, concurrency="4")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await urls.for_each(fetch, paralel=4)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await urls.to_list(3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await urls.reduce(max)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def immutable(urls: Stream[str]) -> None:
    urls.concurrency = 4  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def right(urls: Stream[str]) -> None:
    """What the lines above are mistakes for."""
    urls.map(fetch, concurrency=4, ordered=False, buffer=3, engine="inline", name="get", timeout=timedelta(seconds=1))
    urls.map(fetch, concurrency=None, engine=None, name=None, timeout=None, retry=None, max_failures=None)
    urls.map(fetch, timeout=10, retry=Retry(on=(ValueError, OSError), wait=lambda _: None, deadline=timedelta(hours=1)))
    urls.batch(8, within=timedelta(seconds=1), weight=weigh, max_weight=10)
    urls.map_batches(embed, 8, within=0.5, concurrency=4, on_error="return")
    parallel_map(urls, fetch, concurrency=4)
    penstock.stream(["a"], total=3, engine="thread")


def is_transient(error: Exception) -> bool:
    return isinstance(error, OSError)


def is_any(error: BaseException) -> bool:
    return bool(error)


def is_of_the_system(error: OSError) -> bool:
    return bool(error.errno)


def predicates_of_retry() -> None:
    """They are asked about any `Exception`, so they must take all of these."""
    Retry(on=is_transient, wait=lambda error: 1.0 if is_transient(error) else None)
    Retry(on=is_any)
    Retry(on=lambda error: isinstance(error, OSError) and error.errno == 3)
    Retry(on=is_of_the_system)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
