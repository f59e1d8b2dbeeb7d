"""The type at every link of long chains, inferred without an annotation from the user; never executed."""

import functools
from collections.abc import AsyncIterator
from typing import assert_type

import penstock
from penstock import Retry, Stream


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


async def embed(numbers: list[int]) -> list[complex]:
    return [complex(number) for number in numbers]


def scaled(factor: float, number: complex) -> complex:
    return factor * number


def largest[T: (int, float)](numbers: list[T]) -> T:
    return max(numbers)


class Client:
    async def get(self, number: complex) -> str:
        return str(number)

    def __call__(self, text: str) -> float:
        return len(text)


def each_link(urls: list[str]) -> None:
    """Fifteen stages: async and plain functions, lambdas, methods, partials, callables, generics."""
    s0 = assert_type(penstock.stream(urls), Stream[str])
    s1 = assert_type(s0.map(fetch, concurrency=32, retry=Retry(on=OSError), timeout=10), Stream[bytes])
    s2 = assert_type(s1.tap(print), Stream[bytes])
    s3 = assert_type(s2.map(parse, on_error="skip"), Stream[int])
    s4 = assert_type(s3.filter(is_big, concurrency=4), Stream[int])
    s5 = assert_type(s4.map(lambda size: f"{size:x}"), Stream[str])
    s6 = assert_type(s5.flat_map(words), Stream[str])
    s7 = assert_type(s6.flat_map(letters, concurrency=2, ordered=False), Stream[str])
    s8 = assert_type(s7.flat_map(later), Stream[int])
    s9 = assert_type(s8.map_batches(embed, 64, within=0.5, concurrency=2), Stream[complex])
    s10 = assert_type(s9.map(functools.partial(scaled, 2.0)), Stream[complex])
    s11 = assert_type(s10.map(Client().get, concurrency=4, on_error="collect"), Stream[str])
    s12 = assert_type(s11.map(Client()), Stream[float])
    s13 = assert_type(s12.batch(10, within=0.5), Stream[list[float]])
    s14 = assert_type(s13.map(largest), Stream[float])
    assert_type(s14.enumerate().take(3), Stream[tuple[int, float]])


def at_once(urls: list[str]) -> None:
    """The same in one expression."""
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
        .map_batches(embed, 64, within=0.5, concurrency=2)
        .map(functools.partial(scaled, 2.0))
        .map(Client().get, concurrency=4, on_error="collect")
        .map(Client())
        .batch(10, within=0.5)
        .map(largest)
        .enumerate()
        .take(3)
    )
    assert_type(result, Stream[tuple[int, float]])


def lambdas_only(urls: list[str]) -> None:
    """Nothing but lambdas: each gets its argument's type from the link before."""
    result = (
        penstock.stream(urls)
        .map(lambda url: fetch(url), concurrency=8)
        .map(lambda page: len(page))
        .filter(lambda size: size > 3)
        .map(lambda size: (size, str(size)))
        .flat_map(lambda pair: [pair[1], pair[1].upper()])
        .distinct(key=lambda text: text.casefold())
        .map_batches(lambda texts: [len(text) for text in texts], 8)
        .take_while(lambda size: size < 100)
        .batch(2, weight=lambda size: size / 2, max_weight=10)
        .map(lambda sizes: sum(sizes) / len(sizes))
        .through(lambda means: means.map(lambda mean: {mean: f"{mean:.1f}"}))
        .map(lambda table: list(table.items()))
        .flatten()
    )
    assert_type(result, Stream[tuple[float, str]])


def covariant(sizes: Stream[bool]) -> Stream[int]:
    return sizes
