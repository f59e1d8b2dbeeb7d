"""What every operator gives; never executed."""

from collections.abc import AsyncIterator, Awaitable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, assert_type

import numpy as np
from numpy.typing import NDArray

from penstock import Failed, Ok, Stream

if TYPE_CHECKING:
    from typing_extensions import TypeIs


async def is_long(url: str) -> bool:
    return len(url) > 9


def is_text(value: str | None) -> "TypeIs[str]":
    return value is not None


def to_list(text: str) -> list[int]:
    return [len(text)]


async def to_list_later(text: str) -> list[int]:
    return [len(text)]


def to_tuple(text: str) -> tuple[int, ...]:
    return (len(text),)


def to_dict(text: str) -> dict[int, str]:
    return {len(text): text}


def to_text(text: str) -> str:
    return text


def lengths(urls: Stream[str]) -> Stream[int]:
    return urls.map(len)


def pairs(urls: Stream[str]) -> Stream[list[str]]:
    return urls.batch(2)


def generate(text: str) -> Iterator[int]:
    yield len(text)


async def generate_later(text: str) -> AsyncIterator[int]:
    yield len(text)


async def iterator_later(text: str) -> Iterator[int]:
    return iter([len(text)])


def batch_list(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


async def batch_list_later(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def batch_tuple(texts: list[str]) -> tuple[int, ...]:
    return tuple(len(text) for text in texts)


def batch_generator(texts: list[str]) -> Generator[int, None, None]:
    yield from (len(text) for text in texts)


def batch_sequence(texts: Sequence[str]) -> Iterable[int]:
    return map(len, texts)


def batch_either(texts: list[str]) -> list[int] | Awaitable[list[int]]:
    return [len(text) for text in texts]


def batch_array(texts: list[str]) -> NDArray[np.float32]:
    return np.zeros((len(texts), 8), np.float32)


async def batch_array_later(texts: list[str]) -> NDArray[np.float32]:
    return np.zeros((len(texts), 8), np.float32)


def double(numbers: Stream[int]) -> Stream[float]:
    return numbers.map(lambda number: number * 2.0)


def filters(urls: Stream[str], gaps: Stream[str | None]) -> None:
    assert_type(urls.filter(is_long, concurrency=4), Stream[str])
    assert_type(urls.filter(len), Stream[str])
    assert_type(urls.filter(lambda url: url[0] == "a"), Stream[str])
    assert_type(urls.filter(is_long, on_error="return"), Stream[Ok[str] | Failed])
    assert_type(gaps.filter(bool), Stream[str | None])
    assert_type(gaps.filter(is_text), Stream[str])
    assert_type(gaps.filter(is_text, on_error="skip"), Stream[str])
    assert_type(gaps.filter(is_text, on_error="return"), Stream[Ok[str] | Failed])


def taps(urls: Stream[str]) -> None:
    assert_type(urls.tap(print), Stream[str])
    assert_type(urls.tap(is_long, concurrency=2, on_error="collect"), Stream[str])
    assert_type(urls.tap(is_long, on_error="return"), Stream[Ok[str] | Failed])


def flat_maps(urls: Stream[str]) -> None:
    assert_type(urls.flat_map(to_list), Stream[int])
    assert_type(urls.flat_map(to_list_later), Stream[int])
    assert_type(urls.flat_map(to_tuple), Stream[int])
    assert_type(urls.flat_map(to_dict), Stream[int])
    assert_type(urls.flat_map(to_text), Stream[str])
    assert_type(urls.flat_map(generate), Stream[int])
    assert_type(urls.flat_map(generate_later, concurrency=3, buffer=9), Stream[int])
    assert_type(urls.flat_map(iterator_later), Stream[int])
    assert_type(urls.flat_map(lambda url: [len(url)]), Stream[int])
    assert_type(urls.flat_map(lambda url: (len(part) for part in url.split())), Stream[int])
    assert_type(urls.flat_map(lambda url: generate_later(url)), Stream[int])
    assert_type(urls.flat_map(str.split), Stream[str])
    assert_type(urls.flat_map(to_list, on_error="return"), Stream[Ok[int] | Failed])
    assert_type(urls.flat_map(generate_later, on_error="return"), Stream[Ok[int] | Failed])


def flattened(lists: Stream[list[int]], feeds: Stream[AsyncIterator[int]], words: Stream[str]) -> None:
    assert_type(lists.flatten(), Stream[int])
    assert_type(feeds.flatten(), Stream[int])
    assert_type(words.flatten(), Stream[str])


def batched_calls(urls: Stream[str]) -> None:
    assert_type(urls.map(len, keep=True), Stream[tuple[str, int]])
    assert_type(urls.map(to_list_later, keep=True, key=len, concurrency=2), Stream[tuple[str, list[int]]])
    assert_type(urls.map(lambda url: to_list_later(url), keep=True), Stream[tuple[str, list[int]]])
    assert_type(urls.map(len, keep=True, on_error="return"), Stream[Ok[tuple[str, int]] | Failed])
    assert_type(urls.map(to_list_later, keep=True, on_error="return"), Stream[Ok[tuple[str, list[int]]] | Failed])
    assert_type(urls.map(len, keep=False, buffer_bytes=9, size_of=lambda _: 1), Stream[int])
    assert_type(urls.scan(lambda total, url: total + len(url), 0), Stream[int])
    assert_type(urls.group_by(len), Stream[tuple[int, list[str]]])
    assert_type(urls.group_by(lambda url: url[0], size=2), Stream[tuple[str, list[str]]])
    assert_type(urls.tee(lengths, pairs), Stream[int | list[str]])
    assert_type(urls.tee(lengths, lengths), Stream[int])
    assert_type(
        urls.tee(lambda each: each.map(len), lambda each: each.map(len), lambda each: each.map(len)), Stream[int]
    )
    assert_type(urls.map_batches(batch_list, 8), Stream[int])
    assert_type(urls.map_batches(batch_list_later, 8, within=0.5, concurrency=4), Stream[int])
    assert_type(urls.map_batches(batch_tuple, 8), Stream[int])
    assert_type(urls.map_batches(batch_generator, 8), Stream[int])
    assert_type(urls.map_batches(batch_sequence, 8), Stream[int])
    assert_type(urls.map_batches(batch_either, 8), Stream[int])
    assert_type(urls.map_batches(lambda texts: [len(text) for text in texts], 8), Stream[int])
    assert_type(urls.map_batches(lambda texts: batch_list_later(texts), 8), Stream[int])
    assert_type(urls.map_batches(batch_list, 8, on_error="return"), Stream[Ok[int] | Failed])
    assert_type(urls.map_batches(batch_list_later, 8, on_error="return"), Stream[Ok[int] | Failed])


def batched_arrays(urls: Stream[str]) -> None:
    """What an array gives when it is iterated is `Any`: numpy says so."""
    assert_type(urls.map_batches(batch_array, 8), Stream[Any])
    assert_type(urls.map_batches(batch_array_later, 8), Stream[Any])


async def is_wanted(url: str) -> bool:
    return bool(url)


def selected(urls: Stream[str]) -> None:
    assert_type(urls.take(3), Stream[str])
    assert_type(urls.skip(1), Stream[str])
    assert_type(urls.take_while(len), Stream[str])
    assert_type(urls.take_while(is_wanted), Stream[str])
    assert_type(urls.skip_while(lambda url: is_wanted(url)), Stream[str])
    assert_type(urls.skip_while(lambda url: url.islower()), Stream[str])
    assert_type(urls.distinct(), Stream[str])
    assert_type(urls.distinct(key=len, last=9), Stream[str])
    assert_type(urls.prefetch(3), Stream[str])
    assert_type(urls.enumerate(), Stream[tuple[int, str]])
    assert_type(urls.enumerate(1).map(lambda pair: pair[1]), Stream[str])
    assert_type(urls.batch(3), Stream[list[str]])
    assert_type(urls.batch(3, within=0.5, weight=len, max_weight=10), Stream[list[str]])
    assert_type(urls.through(lambda stream: stream.map(len)), Stream[int])
    assert_type(urls.map(len).through(double), Stream[float])


def in_band_goes_on(urls: Stream[str]) -> None:
    """Results may be told apart in the next link."""
    results = urls.map(to_list, on_error="return")
    assert_type(results.map(lambda result: result.unwrap()), Stream[list[int]])
    assert_type(results.map(lambda result: result.index if isinstance(result, Ok) else None), Stream[int | None])
