"""Whole numbers are what `operator.index` accepts, numbers what `float` does; truth values and texts are neither."""

import asyncio
import math
from datetime import timedelta
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import numpy as np
import pytest

import penstock
from penstock.core import validate
from penstock.tasks import TaskExecutor, TaskQueue, find_batch_size, gather, retry_failed


class Index:
    """A whole number of somebody else's."""

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number


class Float(Index):
    """A number of somebody else's."""

    __index__ = None

    def __float__(self):
        return float(self.number)


class Raising:
    def __index__(self):
        raise RuntimeError("no")

    __float__ = __index__


Colour = IntEnum("Colour", ["RED", "GREEN", "BLUE"])

WHOLE = [np.int64, np.int8, np.uint32, Index, Colour, lambda n: np.array(n)]
REAL = [*WHOLE, np.float64, np.float32, np.float16, Decimal, Fraction, Float, float]
TEXTS = ["3", b"3", np.str_("3"), np.bytes_(b"3")]
TRUTHS = [True, np.True_, np.array(True)]
TIMES = [np.timedelta64(3, "s"), np.datetime64(3, "s")]
NOT_FINITE = [math.nan, np.nan, Decimal("NaN"), Decimal("sNaN"), math.inf, np.float64("inf")]
OTHERS = [None, [3], 3j, np.complex128(3), np.array([3, 4]), Raising()]
NO_NUMBERS = [*TEXTS, *TRUTHS, *TIMES, *NOT_FINITE, *OTHERS]


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_numbers(kind):
    for given in (
        validate.whole("n", kind(3), least=3),
        validate.integer("n", kind(3)),
        validate.finite("n", kind(3)),
    ):
        assert (given, type(given)) == (3, int)


@pytest.mark.parametrize("kind", REAL)
def test_numbers(kind):
    for given in (
        validate.positive("n", kind(3)),
        validate.number("n", kind(3), least=3),
        validate.seconds("n", kind(3)),
        validate.share("n", kind(1)),
    ):
        assert type(given) is float
        assert given in {1.0, 3.0}


@pytest.mark.parametrize("value", [*NO_NUMBERS, 3.0, np.float64(3), Decimal(3), Fraction(3)], ids=lambda _: "")
def test_no_whole_numbers(value):
    with pytest.raises(penstock.OptionError, match="n must be an int"):
        validate.whole("n", value, least=0)
    with pytest.raises(penstock.OptionError, match="n must be an int"):
        validate.integer("n", value)


@pytest.mark.parametrize("value", [*NO_NUMBERS, 10**400], ids=lambda _: "")
def test_no_numbers(value):
    for check in (
        validate.positive,
        validate.finite,
        validate.seconds,
        validate.share,
        lambda option, value: validate.number(option, value, least=0),
    ):
        with pytest.raises(penstock.OptionError, match="n must be a"):
            check("n", value)


def itself(item):
    return item


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize(
    ("build", "wanted"),
    [
        (lambda items, n: items.take(n), 3),
        (lambda items, n: items.skip(n), 6),
        (lambda items, n: items.batch(n), 3),
        (lambda items, n: items.batch(9, weight=lambda _: n, max_weight=n), 9),
        (lambda items, n: items.batch(9, within=n), 1),
        (lambda items, n: items.prefetch(n), 9),
        (lambda items, n: items.distinct(last=n), 9),
        (lambda items, n: items.enumerate(n), 9),
        (lambda items, n: items.map_batches(itself, n, within=n), 9),
        (lambda items, n: items.map(itself, concurrency=n, buffer=n, engine="inline"), 9),
        (lambda items, n: items.map(itself, on_error="skip", max_failures=n), 9),
        (lambda items, n: items.map(itself, retry=penstock.Retry(on=ValueError, attempts=n, max=n)), 9),
        (lambda items, n: items.map(itself, limit=penstock.Limiter(n, cost=lambda _: n)), 9),
        (lambda items, n: items.map(itself, limit=penstock.RateLimit(n, n, burst=n, cost=lambda _: n)), 9),
        (lambda items, n: penstock.stream(range(9), total=n), 9),
    ],
)  # fmt: skip
async def test_options_of_streams(build, wanted, kind):
    async with build(penstock.stream(range(9)), kind(3)).open(grace=kind(3)) as items:
        assert len([item async for item in items]) == wanted
        assert all(
            type(each.concurrency) in {int, type(None)} and type(each.total) in {int, type(None)}
            for each in items.stats()
        )


@pytest.mark.parametrize("kind", [each for each in REAL if each is not Colour])
async def test_limits_and_retries(kind, clock):
    tries = []

    async def fail():
        tries.append(clock.now)
        raise ValueError("no")

    async def tried(**options):
        with pytest.raises(ValueError, match="no"):
            await penstock.stream([1]).map(lambda _: fail(), retry=penstock.Retry(on=ValueError, **options)).drain()

    await tried(initial=kind(2), factor=kind(3), max=kind(100), jitter=kind(0), deadline=kind(100))
    assert tries == [0.0, 2.0, 8.0]
    await tried(wait=lambda _: kind(3))
    assert tries[3:] == [8.0, 11.0, 14.0]
    async with penstock.Limiter(3).hold(np.int8(2)):
        pass
    rate = penstock.RateLimit(kind(1), kind(2))
    await rate.acquire(kind(1))
    await rate.acquire(kind(1))
    assert clock.now == 16.0


@pytest.mark.parametrize("kind", WHOLE)
async def test_options_of_tasks(kind):
    assert await gather([lambda: 1], concurrency=kind(1), timeout=kind(3), grace=kind(3)) == [1]
    assert len(await retry_failed([lambda: 1], rounds=kind(1), concurrency=kind(1))) == 1
    assert (
        await find_batch_size(itself, range(9), sizes=[kind(1), kind(2)], concurrency=kind(1), rounds=kind(1))
    ).best in {1, 2}
    executor = TaskExecutor(concurrency=kind(1), timeout=kind(3), grace=kind(3))
    executor.add(lambda: 1, priority=kind(3))
    assert len(await executor.run()) == 1


@pytest.mark.parametrize("kind", REAL)
def test_priorities(kind):
    queue = TaskQueue(ageing=kind(1), clock=lambda: 0.0)
    queue.enqueue("late", priority=kind(1))
    queue.enqueue("soon", priority=kind(2))
    queue.enqueue("first", priority=10**30)
    assert [queue.dequeue() for _ in range(3)] == ["first", "soon", "late"]


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint32, Index, lambda n: np.str_(n), Colour])
def test_keys_are_what_they_are_equal_to(kind, tmp_path):
    """The second run knows them by plain keys, and the other way round."""
    plain = str if isinstance(kind(1), str) else int

    def run(make, name):
        rows = penstock.keyed([1, 2, 3], key=make).map(lambda n: {"v": n})
        return asyncio.run(rows.to(penstock.SqliteTable(tmp_path / f"{name}.db", "t"), run="r"))

    for name, first, second in (("a", kind, plain), ("b", plain, kind)):
        assert run(first, name).delivered == 3
        again = run(second, name)
        assert (again.delivered, again.already_done) == (0, 3)


@pytest.mark.parametrize("key", [True, np.True_, 1.0, np.float64(1), None, [1], b"a"], ids=repr)
def test_no_keys(key, tmp_path):
    rows = penstock.keyed([1], key=lambda _: key).map(lambda n: {"v": n})
    with pytest.raises(penstock.OptionError, match="key must give a str or an int"):
        asyncio.run(rows.to(penstock.SqliteTable(tmp_path / "a.db", "t"), run="r"))


def test_a_truth_value_is_no_key_though_its_number_is_done(tmp_path):
    def run(key):
        rows = penstock.keyed([1], key=lambda _: key).map(lambda n: {"v": n})
        return asyncio.run(rows.to(penstock.SqliteTable(tmp_path / "a.db", "t"), run="r"))

    run(1)
    with pytest.raises(penstock.OptionError, match="key must give a str or an int, got True"):
        run(True)


def test_durations_of_others():
    assert validate.seconds("n", timedelta(minutes=1)) == 60.0
