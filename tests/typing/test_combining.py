"""What streams of several sources, and the functions beside `Stream`, give; never executed."""

from collections.abc import AsyncIterator, Iterable
from typing import IO, TYPE_CHECKING, Any, assert_type

import penstock
from penstock import Failed, Ok, Stream, merge, parallel_filter, parallel_map

if TYPE_CHECKING:
    from typing_extensions import TypeIs


async def fetch(url: str) -> bytes:
    return url.encode()


async def numbers() -> AsyncIterator[int]:
    yield 1


def is_text(value: str | None) -> "TypeIs[str]":
    return value is not None


def sources(texts: list[str], lines: Iterable[bytes], table: dict[str, int], file: IO[str]) -> None:
    assert_type(penstock.stream(texts), Stream[str])
    assert_type(penstock.stream(lines), Stream[bytes])
    assert_type(penstock.stream("text"), Stream[str])
    assert_type(penstock.stream(table), Stream[str])
    assert_type(penstock.stream(table.items()), Stream[tuple[str, int]])
    assert_type(penstock.stream(file), Stream[str])
    assert_type(penstock.stream(range(3)), Stream[int])
    assert_type(penstock.stream(numbers()), Stream[int])
    assert_type(penstock.stream(numbers), Stream[int])
    assert_type(penstock.stream(lambda: range(3)), Stream[int])
    assert_type(penstock.stream(file, total=9, engine="thread"), Stream[str])
    assert_type(penstock.stream(texts, total=None, engine=None), Stream[str])


def merged(sizes: Stream[int], names: Stream[str], blobs: Stream[bytes], several: list[Stream[int]]) -> None:
    assert_type(sizes.merge(), Stream[int])
    assert_type(sizes.merge(names), Stream[int | str])
    assert_type(sizes.merge(names, blobs), Stream[int | str | bytes])
    assert_type(sizes.merge(sizes, sizes, sizes), Stream[int])
    assert_type(sizes.merge(*several), Stream[int])
    assert_type(merge(sizes), Stream[int])
    assert_type(merge(sizes, sizes), Stream[int])
    assert_type(merge(sizes, names), Stream[int | str])
    assert_type(merge(sizes, ["a"], numbers), Stream[int | str])
    assert_type(merge([1], ["a"], [b""]), Stream[int | str | bytes])
    assert_type(merge(sizes, sizes, sizes, numbers()), Stream[int])
    assert_type(merge(*several), Stream[int])


def chained(sizes: Stream[int], names: Stream[str], blobs: Stream[bytes], several: list[Stream[int]]) -> None:
    assert_type(names.chain(sizes), Stream[str | int])
    assert_type(names.chain(sizes, blobs), Stream[str | int | bytes])
    assert_type(names.chain(*several), Stream[str | int])


def zipped(sizes: Stream[int], names: Stream[str], blobs: Stream[bytes]) -> None:
    assert_type(names.zip(sizes), Stream[tuple[str, int]])
    assert_type(names.zip(sizes, strict=True), Stream[tuple[str, int]])
    assert_type(names.zip(sizes, blobs), Stream[tuple[str, int, bytes]])
    assert_type(names.zip(sizes, blobs, names), Stream[tuple[str, int, bytes, str]])
    assert_type(names.zip(sizes, blobs, names, sizes), Stream[tuple[Any, ...]])


def mapped(names: Stream[str]) -> None:
    assert_type(parallel_map(["a"], fetch, concurrency=4), Stream[bytes])
    assert_type(parallel_map(names, fetch, concurrency=4), Stream[bytes])
    assert_type(parallel_map(names, len, concurrency=4, ordered=False, on_error="skip"), Stream[int])
    assert_type(parallel_map(names, lambda name: fetch(name), concurrency=4), Stream[bytes])
    assert_type(parallel_map(numbers, lambda number: number + 0.5, concurrency=4), Stream[float])
    assert_type(parallel_map(names, fetch, concurrency=4, on_error="return"), Stream[Ok[bytes] | Failed])
    assert_type(parallel_map(["a"], len, concurrency=4, on_error="return"), Stream[Ok[int] | Failed])


def filtered(names: Stream[str], gaps: list[str | None]) -> None:
    assert_type(parallel_filter(names, fetch, concurrency=4), Stream[str])
    assert_type(parallel_filter(["a"], len, concurrency=4, on_error="collect"), Stream[str])
    assert_type(parallel_filter(names, fetch, concurrency=4, on_error="return"), Stream[Ok[str] | Failed])
    assert_type(parallel_filter(gaps, is_text, concurrency=4), Stream[str])
    assert_type(parallel_filter(gaps, is_text, concurrency=4, on_error="return"), Stream[Ok[str] | Failed])
