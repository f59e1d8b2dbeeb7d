"""The best batch size is found by measuring: in virtual time exactly, with as few calls as are needed."""

import asyncio
import threading
from itertools import count, groupby

import pytest

import penstock
from penstock.tasks.batch_size import BatchSizes, MeasuredSize, find_batch_size
from penstock.testing import Gauge

pytestmark = pytest.mark.grid

ITEMS = range(1000)


class Service:
    """Takes 1 s per call, 1/64 s per item, and 10 s more for each call with over `cliff` items."""

    def __init__(self, cliff=100):
        self.cliff = cliff
        self.batches = []

    async def __call__(self, items):
        self.batches.append(items)
        await asyncio.sleep(self.seconds(len(items)))

    def seconds(self, size):
        return 1 + size / 64 + (10 if size > self.cliff else 0)

    @property
    def sizes(self):
        return [len(batch) for batch in self.batches]

    @property
    def turns(self):
        """The sizes in the order of measurements, without the repeats within one."""
        return [size for size, _ in groupby(self.sizes)]


def approx(value):
    return pytest.approx(value, rel=1e-9)


async def test_it_finds_the_size_before_the_cliff_and_measures_exactly():
    service = Service(cliff=100)
    found = await find_batch_size(service, ITEMS, (20, 50, 100, 200))
    assert found.best == 100
    assert [row.size for row in found.rows] == [20, 50, 100, 200]
    for row in found.rows:
        assert row.seconds_per_item == approx(service.seconds(row.size) / row.size)
        assert row.items_per_second == approx(row.size / service.seconds(row.size))
        assert not row.given_up


async def test_each_size_warms_up_once_and_each_round_starts_with_another():
    service = Service(cliff=10_000)
    await find_batch_size(service, ITEMS, (50, 100, 120), rounds=4)
    assert service.turns == [50, 100, 120, *(50, 100, 120), *(100, 120, 50), *(120, 50, 100), *(50, 100, 120)]


async def test_a_warm_up_does_not_count():
    seen = set()

    async def cold_at_first(items):
        await asyncio.sleep(1 if len(items) in seen else 1000)
        seen.add(len(items))

    found = await find_batch_size(cold_at_first, ITEMS, (10, 20), rounds=1)
    assert [row.seconds_per_item for row in found.rows] == [approx(1 / 10), approx(1 / 20)]


async def test_the_median_forgets_a_slow_moment():
    """One disturbed round of three changes neither the figures nor the choice."""
    calls = count()

    async def disturbed(items):
        await asyncio.sleep(500 if next(calls) == 5 else 1)  # the warm-ups are 0 and 1, the first round 2 to 4

    found = await find_batch_size(disturbed, ITEMS, (10, 20))
    assert found.best == 20
    assert [row.seconds_per_item for row in found.rows] == [approx(1 / 10), approx(1 / 20)]


async def test_a_hopeless_size_is_called_only_as_often_as_it_must():
    """Size 10 takes 3.4 times as long per item as the best: a warm-up and one round of ten, and no more."""
    service = Service(cliff=10_000)
    found = await find_batch_size(service, ITEMS, (10, 50, 100), rounds=5)
    assert service.seconds(10) / 10 > 3 * service.seconds(100) / 100 > service.seconds(50) / 50
    assert [service.sizes.count(size) for size in (10, 50, 100)] == [1 + 10, 1 + 5 * 2, 1 + 5]
    assert [row.given_up for row in found.rows] == [True, False, False]
    assert found.rows[0].seconds_per_item == approx(service.seconds(10) / 10)


async def test_a_size_three_times_as_slow_is_not_hopeless_yet():
    async def flat(items):
        await asyncio.sleep(1)

    found = await find_batch_size(flat, ITEMS, (8, 24), rounds=2)
    assert [row.given_up for row in found.rows] == [False, False]


async def test_of_equal_sizes_the_smaller_is_best():
    async def linear(items):
        await asyncio.sleep(len(items) / 64)

    assert (await find_batch_size(linear, ITEMS, (64, 16, 32))).best == 16


async def test_calls_that_take_no_time_are_all_the_same():
    found = await find_batch_size(lambda _: None, ITEMS, (5, 50))
    assert (found.best, found.rows[0].items_per_second) == (5, float("inf"))


async def test_nothing_is_hopeless_beside_a_size_that_is_too_fast_for_the_clock():
    async def free_in_twenties(items):
        await asyncio.sleep(0 if len(items) == 20 else 1)

    found = await find_batch_size(free_in_twenties, ITEMS, (10, 20))
    assert (found.best, [row.given_up for row in found.rows]) == (20, [False, False])


async def test_a_small_size_is_called_no_more_than_ten_times_a_round():
    service = Service(cliff=10_000)
    await find_batch_size(service, ITEMS, (1, 500), rounds=1)
    assert [service.sizes.count(size) for size in (1, 500)] == [1 + 10, 1 + 1]


async def test_each_call_gets_a_full_batch_of_its_own():
    """The items go round; a list that `fn` empties is nobody else's."""
    seen = []

    async def emptying(items):
        seen.append(list(items))
        items.clear()

    given = list(range(7))
    await find_batch_size(emptying, given, (3, 7), concurrency=2)
    assert {len(batch) for batch in seen} == {3, 7}
    assert all(len(set(batch)) == len(batch) for batch in seen)
    flat = [item for batch in seen for item in batch]
    assert flat == [number % 7 for number in range(len(flat))]
    assert given == list(range(7))


async def test_concurrency_is_what_it_is_measured_at():
    """P1: so many calls at once, also where there are fewer items than such a go takes."""
    gauge = Gauge()
    service = Service(cliff=10_000)
    found = await find_batch_size(gauge.wrap(service), range(150), (50, 100), concurrency=4)
    assert gauge.peak == 4
    assert [row.seconds_per_item for row in found.rows] == [
        approx(service.seconds(size) / (4 * size)) for size in (50, 100)
    ]
    assert [service.sizes.count(size) for size in (50, 100)] == [4 + 3 * 8, 4 + 3 * 4]


async def test_a_plain_function_runs_inline_at_concurrency_1_and_in_threads_above(clock):
    threads = set()

    def note(items):
        threads.add(threading.current_thread())

    await find_batch_size(note, ITEMS, (10,))
    assert threads == {threading.main_thread()}
    threads.clear()

    def sleep(items):
        threads.add(threading.current_thread())
        clock.sleep(1)

    found = await find_batch_size(sleep, ITEMS, (10,), concurrency=2)
    assert threading.main_thread() not in threads
    assert found.rows[0].seconds_per_item == approx(1 / 20)


async def test_sizes_above_the_number_of_items_have_a_row_that_says_so():
    service = Service()
    found = await find_batch_size(service, range(60), (10, 50, 100))
    assert 100 not in service.sizes
    assert found.rows[2] == MeasuredSize(100, None)
    assert found.rows[2].items_per_second is None
    assert str(found).splitlines()[3].split() == ["100", "fewer", "items"]


async def test_of_endless_items_only_what_is_needed_is_read():
    items = count()
    await find_batch_size(Service(), items, (10, 30), concurrency=2)
    assert next(items) == 60


async def test_a_failure_of_the_function_is_raised_as_itself():
    """P5: the very exception, and nothing is called after it."""
    error = ConnectionError("mine")
    calls = []

    async def failing(items):
        calls.append(items)
        raise error

    with pytest.raises(ConnectionError) as caught:
        await find_batch_size(failing, ITEMS, (10, 20))
    assert caught.value is error
    assert len(calls) == 1


async def test_it_prints_a_table():
    found = await find_batch_size(Service(), range(120), (10, 20, 100, 120, 500))
    assert str(found) == (
        "size  ms per item  items per second\n"
        "10          115.6               8.6     given up\n"
        "20          65.62              15.2\n"
        "100         25.62              39.0         best\n"
        "120         107.3               9.3     given up\n"
        "500                                  fewer items"
    )
    assert str(BatchSizes(10, (MeasuredSize(10, 0.5), MeasuredSize(20, 0.75)))) == (
        "size  ms per item  items per second\n"
        "10            500               2.0  best\n"
        "20            750               1.3"
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fn": None}, "fn must be callable, got None"),
        ({"items": []}, "items must not be empty, got []"),
        ({"items": None}, "items must be an iterable, got None"),
        ({"sizes": ()}, "sizes must not be empty, got ()"),
        ({"sizes": 10}, "sizes must be an iterable of ints, got 10"),
        ({"sizes": (10, 0)}, "sizes must be an int >= 1, got 0"),
        ({"sizes": (10, 2.0)}, "sizes must be an int >= 1, got 2.0"),
        ({"sizes": (200,)}, "sizes must hold one that is at most the number of items, 50, got (200,)"),
        ({"rounds": 0}, "rounds must be an int >= 1, got 0"),
        ({"concurrency": True}, "concurrency must be an int >= 1, got True"),
    ],
)
async def test_bad_arguments_are_refused_by_name(changed, message):
    service = Service()
    arguments = {"fn": service, "items": range(50), "sizes": (10, 20), **changed}
    with pytest.raises(penstock.OptionError) as caught:
        await find_batch_size(**arguments)
    assert str(caught.value) == message
    assert service.batches == []
