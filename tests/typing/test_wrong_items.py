"""Work on the wrong kind of item is refused by both checkers; never executed.

An ignore that nothing needs is an error of both, so that a line which a checker lets pass fails the check.
"""

import functools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import penstock
from penstock import Failed, Stream, merge, parallel_filter, parallel_map

if TYPE_CHECKING:
    from typing_extensions import TypeIs


async def fetch(url: str) -> bytes:
    return url.encode()


def size(url: str) -> int:
    return len(url)


def total(sizes: list[int]) -> int:
    return sum(sizes)


def two(url: str, times: int) -> str:
    return url * times


async def embed(texts: list[str]) -> list[float]:
    return [len(text) / 2 for text in texts]


async def embed_tuple(texts: tuple[str, ...]) -> list[float]:
    return [len(text) / 2 for text in texts]


async def feed(url: str) -> AsyncIterator[str]:
    yield url


def is_text(value: str | None) -> "TypeIs[str]":
    return value is not None


class Client:
    async def get(self, url: str) -> bytes:
        return url.encode()

    def __call__(self, url: str) -> bytes:
        return url.encode()


def into_map(urls: Stream[str], sizes: Stream[int]) -> None:
    sizes.map(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.map(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.map(Client().get)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.map(Client())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.map(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.map(len)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.map(lambda number: number.upper())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType]
    urls.map(functools.partial(two, times=2)).map(total)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.map(fetch, on_error="return")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(two)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(lambda: 1)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(lambda url, times: url * times)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownLambdaType]
    urls.map(fetch("a"))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map("upper")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def into_others(urls: Stream[str], sizes: Stream[int]) -> None:
    sizes.filter(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.filter(size, on_error="return")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.filter(is_text)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.filter(None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.tap(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sizes.flat_map(str.split)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sizes.flat_map(feed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sizes.take_while(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sizes.skip_while(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sizes.distinct(key=size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.distinct(key=lambda url: url.real)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType]
    sizes.batch(3, weight=size, max_weight=10)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.batch(3, weight=str.upper, max_weight=10)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def not_many(urls: Stream[str], sizes: Stream[int]) -> None:
    urls.flat_map(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.flat_map(lambda url: len(url))  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    sizes.flatten()  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    urls.map_batches(size, 8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.map_batches(total, 8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.map_batches(lambda texts: len(texts), 8)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]


def lists(urls: Stream[str], sizes: Stream[int]) -> None:
    """Calls on lists get lists, of the items that there are."""
    sizes.map_batches(embed, 8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.map_batches(embed_tuple, 8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    urls.map_batches(fetch, 8)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sizes.map_batches(embed, 8, on_error="return")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.batch(8).map(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.batch(8).map(embed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(embed)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    sizes.map(total)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


def order(urls: Stream[str]) -> None:
    """Links that would do in another order."""
    urls.map(fetch).map(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(size).map(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.flat_map(str.split).flat_map(feed).map(total)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.enumerate().map(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(fetch, on_error="return").map(bytes.decode)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.map(size, on_error="return").batch(3).map(total)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.zip(urls.map(size)).map(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.through(lambda stream: stream.map(size)).map(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.flatten().batch(3).map(str.upper)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


def results(urls: Stream[str]) -> None:
    urls.map(size, on_error="return").map(lambda result: result.value)  # type: ignore[arg-type, return-value, union-attr]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType]
    urls.map(size, on_error="return").map(lambda result: result + 1)  # type: ignore[arg-type, operator, return-value]  # pyright: ignore[reportOperatorIssue, reportUnknownLambdaType]
    urls.map(size, on_error="skip").map(lambda number: number.unwrap())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType]
    str(Failed(ValueError(), 0, None, "map").value)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]


def sources(urls: Stream[str], number: int) -> None:
    penstock.stream(number)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    penstock.stream(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    penstock.stream(lambda: 1)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    penstock.stream(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    penstock.stream([1]).map(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    penstock.stream(lambda: range(3)).map(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    penstock.stream(feed("a")).map(total)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.merge([1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    urls.chain("ab", "cd")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.zip([1])  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.merge(urls.map(size)).map(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    urls.chain(urls.map(size)).map(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    merge(urls, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    merge(urls, [1]).map(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


def narrower(sizes: Stream[int]) -> Stream[bool]:
    return sizes  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def functions(urls: Stream[str], sizes: Stream[int]) -> None:
    parallel_map([1], fetch, concurrency=4)  # type: ignore[misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_map(sizes, size, concurrency=4)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_map(sizes, size, concurrency=4, on_error="return")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_map(1, size, concurrency=4)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_map(urls, 1, concurrency=4)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_map(urls, size, concurrency=4).map(size)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_filter([1], fetch, concurrency=4)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_filter(sizes, size, concurrency=4, on_error="return")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    parallel_filter(urls, fetch, concurrency=4).map(total)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def ends(urls: Stream[str], sizes: Stream[int]) -> None:
    await sizes.for_each(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await sizes.reduce(lambda so_far, number: so_far + number, "")  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnknownLambdaType]
    await sizes.reduce(lambda number: number, 0)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
    (await urls.first(default=None)).upper()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    (await urls.first()).bit_length()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    (await urls.to_list()).upper()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    for _ in urls:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass
    async with urls as _:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass
    with urls.open() as _:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass
    async with urls.sync() as _:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass
    async for page in urls.map(fetch):
        page.encode()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    str(urls.open().failures[0].value)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownArgumentType, reportUnknownMemberType]
