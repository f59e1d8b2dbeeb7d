"""What type checkers infer from a stream with no annotation from its user; never executed."""

import functools
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import assert_type

import penstock
from penstock import Failed, Ok, Retry, Run, Stream


async def fetch(url: str) -> bytes:
    return url.encode()


def parse(page: bytes) -> int:
    return len(page)


async def is_big(size: int) -> bool:
    return size > 10


def words(text: str) -> list[str]:
    return text.split()


async def letters(word: str) -> AsyncIterator[str]:
    for letter in word:
        yield letter


async def later(word: str) -> list[int]:
    return [len(word)]


def scaled(factor: float, size: int) -> float:
    return factor * size


def lookup(key: str) -> int | Awaitable[int]:
    return len(key)


class Client:
    async def get(self, url: str) -> bytes:
        return url.encode()

    def __call__(self, url: str) -> int:
        return len(url)


async def numbers() -> AsyncIterator[int]:
    yield 1


def sources(texts: list[str], lines: Iterable[bytes]) -> None:
    assert_type(penstock.stream(texts), Stream[str])
    assert_type(penstock.stream(lines), Stream[bytes])
    assert_type(penstock.stream(numbers()), Stream[int])
    assert_type(penstock.stream(numbers), Stream[int])
    assert_type(penstock.stream(lambda: range(3)), Stream[int])


def functions(urls: Stream[str]) -> None:
    assert_type(urls.map(fetch), Stream[bytes])
    assert_type(urls.map(len), Stream[int])
    assert_type(urls.map(lambda url: fetch(url)), Stream[bytes])
    assert_type(urls.map(lambda url: len(url)), Stream[int])
    assert_type(urls.map(Client().get, concurrency=4), Stream[bytes])
    assert_type(urls.map(Client()), Stream[int])
    assert_type(urls.map(lookup), Stream[int])
    assert_type(urls.map(len).map(functools.partial(scaled, 2.0)), Stream[float])


def chain(urls: list[str]) -> None:
    result = (
        penstock.stream(urls)
        .map(fetch, concurrency=32, retry=Retry(on=OSError), timeout=10)
        .tap(print)
        .map(parse, on_error="skip")
        .filter(is_big, concurrency=4)
        .map(lambda size: f"{size:x}")
        .flat_map(words)
        .flat_map(letters, concurrency=2, ordered=False)
        .flat_map(later)
        .batch(10, within=0.5)
        .take(3)
        .flatten()
    )
    assert_type(result, Stream[int])


async def ends(sizes: Stream[int]) -> None:
    assert_type(await sizes.to_list(), list[int])
    assert_type(await sizes.first(), int)
    assert_type(await sizes.first(default=None), int | None)
    assert_type(await sizes.reduce(lambda total, size: total + size, 0), int)
    assert_type(await sizes.reduce(lambda seen, size: [*seen, str(size)], list[str]()), list[str])
    async with sizes.open() as items:
        assert_type(items, Run[int])
        async for item in items:
            assert_type(item, int)
        assert_type(items.failures, tuple[Failed, ...])


def combined(sizes: Stream[int], names: Stream[str]) -> None:
    assert_type(sizes.merge(names), Stream[int | str])
    assert_type(penstock.merge(sizes, sizes), Stream[int])
    assert_type(penstock.parallel_map(["a"], fetch, concurrency=4), Stream[bytes])
    assert_type(penstock.parallel_map(names, len, concurrency=4, ordered=False), Stream[int])
    assert_type(penstock.parallel_filter([1], is_big, concurrency=4), Stream[int])


def covariant(sizes: Stream[bool]) -> Stream[int]:
    return sizes


def in_band(urls: Stream[str]) -> None:
    assert_type(urls.map(fetch, on_error="return"), Stream[Ok[bytes] | Failed])
    assert_type(urls.map(len, on_error="return"), Stream[Ok[int] | Failed])
    assert_type(urls.map(lambda url: fetch(url), on_error="return"), Stream[Ok[bytes] | Failed])
    assert_type(urls.filter(len, on_error="return"), Stream[Ok[str] | Failed])
    assert_type(urls.flat_map(words, on_error="return"), Stream[Ok[str] | Failed])
    assert_type(urls.map(fetch, on_error="skip", max_failures=3), Stream[bytes])


def selected(urls: Stream[str], sizes: Stream[int]) -> None:
    assert_type(urls.skip(1).take_while(len).skip_while(len).distinct(key=len).prefetch(3), Stream[str])
    assert_type(urls.enumerate(), Stream[tuple[int, str]])
    assert_type(urls.zip(sizes), Stream[tuple[str, int]])
    assert_type(urls.zip(sizes, urls), Stream[tuple[str, int, str]])
    assert_type(urls.chain(sizes), Stream[str | int])
    assert_type(urls.through(lambda stream: stream.map(len)), Stream[int])
    assert_type(urls.batch(3, weight=len, max_weight=10), Stream[list[str]])


def wrong(urls: Stream[str], sizes: Stream[int]) -> None:
    sizes.map(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.map(fetch).map(is_big)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.map(fetch, concurrency="4")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, on_error="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, paralel=4)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
