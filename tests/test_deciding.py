"""`take_while` and `skip_while`: what their predicates return may have to be awaited."""

import asyncio
import contextvars
import functools
from functools import partial

import pytest

import penstock
from penstock import stream
from penstock.testing import Gauge, Scripted

pytestmark = pytest.mark.grid


async def below(limit, item):
    await asyncio.sleep(1)
    return item < limit


class Below:
    async def __call__(self, item):
        return item < 3


def decorated(item):
    return below(3, item)


KINDS = {
    "async": partial(below, 3),
    "lambda": lambda item: below(3, item),
    "def": decorated,
    "object": Below(),
    "future": lambda item: asyncio.ensure_future(below(3, item)),
    "sometimes": lambda item: below(3, item) if item % 2 else item < 3,
    "plain": lambda item: item < 3,
    "builtin": (3).__gt__,
}
each_kind = pytest.mark.parametrize("predicate", KINDS.values(), ids=KINDS)


@each_kind
async def test_they_are_those_of_itertools(predicate):
    items = stream([0, 1, 5, 2, 9])
    assert await items.take_while(predicate).to_list() == [0, 1]
    assert await items.skip_while(predicate).to_list() == [5, 2, 9]
    assert await items.take_while(lambda _: True).to_list() == [0, 1, 5, 2, 9]
    assert await items.skip_while(lambda _: True).to_list() == []
    twice = items.skip_while(predicate)
    assert await twice.to_list() == await twice.to_list()


@each_kind
@pytest.mark.parametrize("operator", ["take_while", "skip_while"])
async def test_nothing_is_read_before_it_is_wanted(predicate, operator):
    """P1, P2: one item is asked about at a time."""
    source = Scripted([0, 1, 2, 7, 8, 9])
    async with getattr(stream(source), operator)(predicate).open() as items:
        for expected, taken in {"take_while": [(0, 1), (1, 2)], "skip_while": [(7, 4), (8, 5)]}[operator]:
            assert await anext(items) == expected
            await asyncio.sleep(9)
            assert source.taken == taken
    books = items.stats()[-1]
    assert books.taken == books.delivered + books.dropped


async def test_upstream_is_stopped_where_it_ends(clock):
    gauge = Gauge()
    work = gauge.wrap(asyncio.sleep)

    async def slow(item):
        await work(item)
        return item

    items = stream([0, 1, 9, 99, 99]).map(slow, concurrency=5).take_while(partial(below, 3))
    assert await items.to_list() == [0, 1]
    assert (gauge.now, gauge.cancelled) == (0, 2)
    assert clock.now == 10.0


async def test_the_predicate_is_asked_no_more_once_it_was_false():
    asked = []

    async def is_small(item):
        asked.append(item)
        return item < 2

    assert await stream([0, 5, 0, 7]).skip_while(is_small).to_list() == [5, 0, 7]
    assert asked == [0, 5]


@pytest.mark.parametrize("operator", ["take_while", "skip_while"])
async def test_an_error_of_the_predicate_is_raised_behind_what_came_before(operator):
    async def fails(item):
        if item == 2:
            raise LookupError("no")
        return operator == "take_while"

    async with getattr(stream([0, 1, 2]), operator)(fails).open() as items:
        if operator == "take_while":
            assert [await anext(items), await anext(items)] == [0, 1]
            with pytest.raises(LookupError, match="no") as raised:
                await anext(items)
            assert raised.value.__notes__ == ["penstock: stage 'take_while', item 2"]
        else:
            assert [item async for item in items] == [0, 1, 2]


async def test_a_truth_that_cannot_be_told_is_an_error():
    class Both:
        def __bool__(self):
            raise ValueError("ambiguous")

    async def answer(_):
        return Both()

    for predicate in (answer, lambda _: Both()):
        with pytest.raises(ValueError, match="ambiguous"):
            await stream([1]).take_while(predicate).to_list()
        with pytest.raises(ValueError, match="ambiguous"):
            await stream([1]).skip_while(predicate).to_list()


async def test_a_cancelled_anext_loses_nothing(clock):
    """P5."""
    got = []
    async with stream([0, 1, 2, 5]).take_while(partial(below, 3)).open() as items:
        while len(got) < 3:
            try:
                got.append(await asyncio.wait_for(anext(items), 0.4))
            except TimeoutError:
                continue
    assert got == [0, 1, 2]


async def test_leaving_stops_a_predicate_that_waits(clock):
    """P4, P8."""
    gauge = Gauge()
    wait = gauge.wrap(asyncio.sleep)
    async with stream([1]).take_while(lambda _: wait(99)).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 1)
    assert (gauge.now, gauge.cancelled, clock.now) == (0, 1, 1.0)
    assert items.stats()[-1].cancelled == 1


async def test_an_item_that_is_awaitable_is_a_value():
    """P6: what is awaited is the answer."""
    waiting = asyncio.get_running_loop().create_future()
    assert await stream([waiting]).take_while(lambda _: True).to_list() == [waiting]
    assert await stream([waiting]).skip_while(lambda _: False).to_list() == [waiting]
    waiting.cancel()


async def test_each_question_has_a_context_of_its_own():
    user = contextvars.ContextVar("user", default="nobody")

    async def changes(_):
        was = user.get()
        user.set("somebody")
        return was == "nobody"

    assert await stream(range(3)).take_while(changes).to_list() == [0, 1, 2]


def test_a_predicate_must_be_callable():
    with pytest.raises(penstock.OptionError, match="predicate must be callable, got 3"):
        stream([1]).take_while(3)


def test_functools_wraps_is_no_matter():
    @functools.wraps(below)
    def wrapper(item):
        return below(3, item)

    async def main():
        return await stream([0, 5]).take_while(wrapper).to_list()

    assert asyncio.run(main()) == [0]


async def test_who_takes_many_items_at_once_sees_no_marker_of_the_end():
    """P6: a stage with many places, a batch, a list and a plain loop take what is there together."""

    async def waits(item):
        await asyncio.sleep(0)
        return item

    def below(number):
        return number < 8

    for built in (stream(range(20)).take_while(below), stream(range(20)).map(waits, concurrency=3).take_while(below)):
        assert await built.to_list() == list(range(8))
        assert await built.map(waits, concurrency=5).to_list() == list(range(8))
        assert await built.batch(3).flatten().to_list() == list(range(8))


def test_a_plain_loop_sees_no_marker_of_the_end():
    with stream(range(20)).take_while(lambda number: number < 8).sync() as items:
        assert list(items) == list(range(8))
