"""What every kind of callable gives, in and out of `on_error="return"`; never executed."""

import functools
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Self, assert_type, overload

from penstock import Failed, Ok, OnError, Stream


async def fetch(url: str) -> bytes:
    return url.encode()


def size(url: str) -> int:
    return len(url)


async def maybe(url: str) -> int | None:
    return len(url) or None


def lookup(key: str) -> int | Awaitable[int]:
    return len(key)


def started(url: str) -> Coroutine[Any, Any, bytes]:
    return fetch(url)


def scaled(factor: float, number: int) -> float:
    return factor * number


async def scaled_later(factor: float, number: int, *, offset: float) -> float:
    return factor * number + offset


def itself[T](item: T) -> T:
    return item


async def itself_later[T](item: T) -> T:
    return item


def head[T](items: Sequence[T]) -> T:
    return items[0]


async def pair[T](item: T) -> tuple[T, T]:
    return item, item


@overload
def other(value: str) -> int: ...
@overload
def other(value: int) -> str: ...
def other(value: str | int) -> int | str:
    return int(value) if isinstance(value, str) else str(value)


@overload
async def other_later(value: str) -> int: ...
@overload
async def other_later(value: int) -> str: ...
async def other_later(value: str | int) -> int | str:
    return int(value) if isinstance(value, str) else str(value)


class Page:
    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def of(cls, url: str) -> Self:
        return cls(url)

    @staticmethod
    async def age(url: str) -> float:
        return len(url)

    async def fetched(self) -> bytes:
        return self.url.encode()


class Client:
    async def get(self, url: str) -> bytes:
        return url.encode()

    def parse(self, url: str) -> Page:
        return Page(url)


class Plain:
    def __call__(self, url: str) -> int:
        return len(url)


class Later:
    async def __call__(self, url: str) -> bytes:
        return url.encode()


class Box[T]:
    def __init__(self, item: T) -> None:
        self.item = item


def functions(urls: Stream[str]) -> None:
    assert_type(urls.map(fetch), Stream[bytes])
    assert_type(urls.map(size), Stream[int])
    assert_type(urls.map(maybe), Stream[int | None])
    assert_type(urls.map(lookup), Stream[int])
    assert_type(urls.map(started), Stream[bytes])


def lambdas(urls: Stream[str]) -> None:
    assert_type(urls.map(lambda url: fetch(url)), Stream[bytes])
    assert_type(urls.map(lambda url: len(url)), Stream[int])
    assert_type(urls.map(lambda url: (url, [len(url)])), Stream[tuple[str, list[int]]])


def methods(urls: Stream[str], pages: Stream[Page]) -> None:
    assert_type(urls.map(Client().get, concurrency=4), Stream[bytes])
    assert_type(urls.map(Client().parse), Stream[Page])
    assert_type(urls.map(Page.of), Stream[Page])
    assert_type(urls.map(Page.age), Stream[float])
    assert_type(pages.map(Page.fetched), Stream[bytes])


def callables(urls: Stream[str]) -> None:
    assert_type(urls.map(Plain()), Stream[int])
    assert_type(urls.map(Later()), Stream[bytes])


def classes(urls: Stream[str], sizes: Stream[int]) -> None:
    assert_type(urls.map(Page), Stream[Page])
    assert_type(urls.map(int), Stream[int])
    assert_type(sizes.map(str), Stream[str])
    assert_type(urls.map(Box), Stream[Box[str]])


def builtins(urls: Stream[str], lists: Stream[list[str]]) -> None:
    assert_type(urls.map(len), Stream[int])
    assert_type(urls.map(str.upper), Stream[str])
    assert_type(urls.map(str.split), Stream[list[str]])
    assert_type(lists.map(max), Stream[str])
    assert_type(lists.map(sorted), Stream[list[str]])
    assert_type(lists.map(tuple), Stream[tuple[str, ...]])


def partials(sizes: Stream[int]) -> None:
    assert_type(sizes.map(functools.partial(scaled, 2.0)), Stream[float])
    assert_type(sizes.map(functools.partial(scaled_later, 2.0, offset=1.0)), Stream[float])


def generics(urls: Stream[str], lists: Stream[list[int]]) -> None:
    assert_type(urls.map(itself), Stream[str])
    assert_type(urls.map(itself_later), Stream[str])
    assert_type(urls.map(pair), Stream[tuple[str, str]])
    assert_type(lists.map(head), Stream[int])


def overloaded(urls: Stream[str], sizes: Stream[int]) -> None:
    assert_type(urls.map(other), Stream[int])
    assert_type(sizes.map(other), Stream[str])
    assert_type(urls.map(other_later), Stream[int])
    assert_type(sizes.map(other_later), Stream[str])


def in_band(urls: Stream[str], sizes: Stream[int], lists: Stream[list[int]]) -> None:
    assert_type(urls.map(fetch, on_error="return"), Stream[Ok[bytes] | Failed])
    assert_type(urls.map(size, on_error="return"), Stream[Ok[int] | Failed])
    assert_type(urls.map(lookup, on_error="return"), Stream[Ok[int] | Failed])
    assert_type(urls.map(lambda url: fetch(url), on_error="return"), Stream[Ok[bytes] | Failed])
    assert_type(urls.map(lambda url: len(url), on_error="return"), Stream[Ok[int] | Failed])
    assert_type(urls.map(Client().get, on_error="return"), Stream[Ok[bytes] | Failed])
    assert_type(urls.map(Later(), on_error="return"), Stream[Ok[bytes] | Failed])
    assert_type(urls.map(Page, on_error="return"), Stream[Ok[Page] | Failed])
    assert_type(sizes.map(functools.partial(scaled, 2.0), on_error="return"), Stream[Ok[float] | Failed])
    assert_type(lists.map(head, on_error="return"), Stream[Ok[int] | Failed])
    assert_type(sizes.map(other_later, on_error="return"), Stream[Ok[str] | Failed])


def out_of_band(urls: Stream[str], policy: OnError) -> None:
    assert_type(urls.map(fetch, on_error="raise"), Stream[bytes])
    assert_type(urls.map(fetch, on_error="skip", max_failures=3), Stream[bytes])
    assert_type(urls.map(fetch, on_error="collect", max_failure_rate=0.5), Stream[bytes])
    assert_type(urls.map(fetch, on_error=policy), Stream[bytes] | Stream[Ok[bytes] | Failed])
