"""Finds the batch size at which a function is fastest, by measuring."""

import asyncio
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, override

from penstock.core import validate
from penstock.core.clock import clock_of
from penstock.core.errors import OptionError
from penstock.core.text import table
from penstock.functions import stream

MOST_WAVES: Final = 10
"""Calls of one measurement, per place of the window: more calls with small batches would take time and tell no more."""

HOPELESS: Final = 3
"""A size is given up after a round if it takes more than so many times as long per item as the best one."""


@dataclass(frozen=True, slots=True)
class MeasuredSize:
    """A batch size and its measurement.

    `seconds_per_item` is the median of the rounds; None if the size was never tried, as there are fewer items.
    `given_up` says that it was far slower than the best one in the first round, and was not tried again.
    """

    size: int
    seconds_per_item: float | None
    given_up: bool = False

    @property
    def items_per_second(self) -> float | None:
        """Items per second; infinite if the clock has not moved."""
        if self.seconds_per_item is None:
            return None
        return 1 / self.seconds_per_item if self.seconds_per_item else math.inf


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """The result of `find_batch_size`: the best size, and a row per size, the smallest first; `str` is a table."""

    best: int
    rows: tuple[MeasuredSize, ...]

    @override
    def __str__(self) -> str:
        return table(("size", "ms per item", "items per second", ""), [self._line(row) for row in self.rows])

    def _line(self, row: MeasuredSize) -> tuple[str, str, str, str]:
        if row.seconds_per_item is None or row.items_per_second is None:
            return str(row.size), "", "", "fewer items"
        remark = "best" if row.size == self.best else "given up" if row.given_up else ""
        return str(row.size), f"{1000 * row.seconds_per_item:.4g}", f"{row.items_per_second:,.1f}", remark


async def find_batch_size[T](
    fn: Callable[[list[T]], object],
    items: Iterable[T],
    sizes: Sequence[int] = (10, 50, 100, 200, 500),
    *,
    concurrency: int = 1,
    rounds: int = 3,
) -> BatchSizes:
    """Measure how long `fn` takes per item in batches of each size, and tell which size is best.

    Each size has a warm-up that does not count. Then come rounds in which every size is measured once; each round
    starts with another size, so that a slow moment does not hit the same one every time. The median of seconds per item
    counts; of equally good sizes the smaller one is best. A size that takes more than 3 times as long per item as the
    best one in the first round is given up.

    A measurement is short: only whole batches, `concurrency` at a time, from 1 to 10 times, so that small sizes go
    through about as many items as large ones. The warm-up is one wave. No size is called more often than `concurrency *
    (1 + 10 * rounds)` times: mind what the calls cost, or do. Items are used again and again, each at most once in a
    batch.

    Args:
        fn: sync or async, given a list of items that is its own; what it returns is dropped. As in `Stream.map`, plain
            `def` functions run inline at concurrency 1 and in threads above.
        items: what to try it with; the first `concurrency * max(sizes)` are read. Sizes larger than the number of items
            are not tried; their rows say so.
        sizes: the batch sizes to try, ints >= 1.
        concurrency: calls at once, an int >= 1; measure at the one that you will use.
        rounds: measurements of each size, an int >= 1.

    Example:
        found = await find_batch_size(embed, texts, concurrency=4)
        print(found)
        vectors = penstock.stream(texts).map_batches(embed, found.best, concurrency=4)

    Raises:
        OptionError: an argument breaks its rule, there are no items, or fewer than the smallest size.
        Exception: `fn` failed; its own exception, as a stream raises it (P5).
    """
    validate.function("fn", fn)
    concurrency = validate.whole("concurrency", concurrency, least=1)
    rounds = validate.whole("rounds", rounds, least=1)
    asked = _checked(sizes)
    sample = _sample(items, concurrency * asked[-1])
    tried = [size for size in asked if size <= len(sample)]
    if not tried:
        raise OptionError(f"sizes must hold one that is at most the number of items, {len(sample)}, got {sizes!r}")
    trial = _Trial(fn, sample, concurrency)
    for size in tried:
        await trial.run(size, 1)
    waves = {size: min(tried[-1] // size, MOST_WAVES) for size in tried}
    measured: dict[int, list[float]] = {size: [] for size in tried}
    going = tried
    for number in range(rounds):
        first = number % len(going)
        for size in going[first:] + going[:first]:
            measured[size].append(await trial.run(size, waves[size]))
        if number == 0:
            going = _hopeful(measured)
    medians = {size: median(seconds) for size, seconds in measured.items()}
    return BatchSizes(
        best=min(going, key=lambda size: medians[size]),
        rows=tuple(MeasuredSize(size, medians.get(size), size in medians and size not in going) for size in asked),
    )


def _checked(sizes: Sequence[int]) -> list[int]:
    """Return the sizes in order, each once."""
    validate.instance("sizes", sizes, Iterable, "an iterable of ints")
    checked = sorted({validate.whole("sizes", size, least=1) for size in sizes})
    if not checked:
        raise OptionError(f"sizes must not be empty, got {sizes!r}")
    return checked


def _sample[T](items: Iterable[T], most: int) -> list[T]:
    validate.instance("items", items, Iterable, "an iterable")
    sample = list(itertools.islice(items, most))
    if not sample:
        raise OptionError(f"items must not be empty, got {items!r}")
    return sample


def _hopeful(measured: dict[int, list[float]]) -> list[int]:
    """Return the sizes worth another round; all of them, if one was too fast for the clock."""
    best = min(seconds for (seconds,) in measured.values())
    return [size for size, (seconds,) in measured.items() if not best or seconds <= HOPELESS * best]


class _Trial[T]:
    """Measures sizes; it goes round the items, from one measurement to the next."""

    def __init__(self, fn: Callable[[list[T]], object], sample: list[T], concurrency: int) -> None:
        self._fn = fn
        self._items = itertools.cycle(sample)
        self._concurrency = concurrency
        self._time = clock_of(asyncio.get_running_loop())

    async def run(self, size: int, waves: int) -> float:
        """Return the seconds per item of `waves` times `concurrency` batches."""
        batches = waves * self._concurrency
        calls = stream(self._batches(size, batches)).map(self._fn, concurrency=self._concurrency, ordered=False)
        async with calls.open() as done:
            start = self._time()
            async for _ in done:
                pass
            return (self._time() - start) / (batches * size)

    def _batches(self, size: int, count: int) -> Iterator[list[T]]:
        return (list(itertools.islice(self._items, size)) for _ in range(count))
