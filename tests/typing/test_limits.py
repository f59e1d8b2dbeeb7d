"""What limits take and give; never executed."""

from collections.abc import Sequence
from datetime import timedelta
from typing import assert_type

import penstock
from penstock import Adaptive, Breaker, Limiter, RateLimit, Retry, RetryBudget, Stream
from penstock.flow import AnthropicMessages, OpenAIChat


async def fetch(url: str) -> bytes:
    return url.encode()


async def add(one: int, other: float) -> float:
    return one + other


def tokens_of(text: str) -> int:
    return len(text)


def cost_of(texts: list[str]) -> float:
    return len(texts) / 2


async def embed(texts: list[str]) -> list[float]:
    return [len(text) / 2 for text in texts]


async def limiters() -> None:
    limiter = Limiter(3, name="sockets", cost=tokens_of)
    async with limiter, limiter.hold(2):
        pass
    assert_type(await limiter.run(fetch, "a"), bytes)
    assert_type(await limiter.run(add, 1, 2.0), float)
    assert_type(await limiter.run(len, "abc"), int)
    assert_type(await limiter.run(lambda: fetch("a")), bytes)
    assert_type(limiter.limit, int)
    assert_type(limiter.in_use, int)
    assert_type(limiter.waiting, int)
    limiter.limit = 5


async def rates() -> None:
    rate = RateLimit(0.5, timedelta(minutes=1), burst=2.5, name="requests", cost=cost_of)
    async with rate:
        pass
    await rate.acquire()
    await rate.acquire(cost=2.5)


async def keys_and_pauses(limiter: Limiter, rate: RateLimit) -> None:
    hosts = Limiter(3, key=lambda url: str(url).partition("/")[0])
    rates = RateLimit(3, 1, key=tokens_of)
    async with hosts.hold(1, "a"), hosts.hold(item="a"):
        pass
    await rates.acquire(item="a")
    limiter.pause(3)
    hosts.pause(timedelta(seconds=3), "a")
    rates.settle(10, 12.5, "a")
    rate.follow(limit=500, remaining=20, reset=timedelta(minutes=1))
    assert_type(rate.n, float)
    Retry(on=OSError, pauses=limiter)
    Retry(on=OSError, pauses=[limiter, rate])


def adaptive(urls: Stream[str]) -> None:
    assert_type(urls.map(fetch, concurrency=Adaptive(most=9, refused=OSError)), Stream[bytes])
    assert_type(urls.map_batches(embed, 8, concurrency=Adaptive()), Stream[float])
    assert_type(penstock.parallel_map(urls, fetch, concurrency=Adaptive()), Stream[bytes])


def options(urls: Stream[str], several: Sequence[Limiter | RateLimit], rates: list[RateLimit]) -> None:
    limiter, rate = Limiter(3), RateLimit(500, 60)
    both = [limiter, rate]
    assert_type(urls.map(fetch, limit=both), Stream[bytes])
    assert_type(urls.map(fetch, limit=limiter), Stream[bytes])
    assert_type(urls.map(fetch, limit=[limiter, rate]), Stream[bytes])
    assert_type(urls.map(fetch, limit=(rate, rate)), Stream[bytes])
    assert_type(urls.map(fetch, limit=several), Stream[bytes])
    assert_type(urls.map(fetch, limit=rates), Stream[bytes])
    assert_type(urls.map(fetch, limit=None), Stream[bytes])
    assert_type(urls.filter(tokens_of, limit=rate), Stream[str])
    assert_type(urls.tap(fetch, limit=rate), Stream[str])
    assert_type(urls.flat_map(str.split, limit=rate), Stream[str])
    assert_type(urls.map_batches(embed, 8, limit=limiter), Stream[float])
    assert_type(penstock.parallel_map(urls, fetch, concurrency=4, limit=rate), Stream[bytes])


async def when_a_service_is_down(urls: Stream[str], rate: RateLimit) -> None:
    breaker = Breaker(5, pause=30, most=timedelta(minutes=5), on=(OSError, KeyError), key=len)
    assert_type(await breaker.run(tokens_of, "a"), int)
    retry = Retry(on=OSError, budget=RetryBudget(0.2, least=3, per=timedelta(minutes=1)), pauses=breaker)
    assert_type(urls.map(tokens_of, limit=[rate, breaker], retry=retry), Stream[int])
    OpenAIChat("m", limits={"requests": rate, "tokens": rate})
    AnthropicMessages("m", limits={"input_tokens": rate})
    rate.follow(limit=3, per=timedelta(minutes=1))
    OpenAIChat("m", limits={"queries": rate})  # type: ignore[typeddict-unknown-key]  # pyright: ignore[reportArgumentType]


async def wrong(urls: Stream[str], limiter: Limiter, rate: RateLimit) -> None:
    Limiter("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Limiter(3, 60)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    RateLimit(500)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RateLimit(500, "60s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RateLimit(500, 60, 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    limiter.limit = "3"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    limiter.in_use = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    limiter.hold(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await limiter.run(fetch, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await rate.acquire("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.map(fetch, limit=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, limit=[3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.tap(fetch, limit="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
