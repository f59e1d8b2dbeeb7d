"""Operators that look at items as they pass, and those that combine streams in order."""

import asyncio

import pytest

from penstock import OptionError, stream
from penstock.testing import Gauge, Scripted

pytestmark = pytest.mark.grid


def below(limit):
    return lambda item: item < limit


ONES = {
    "skip": (lambda s: s.skip(3), [3, 4, 5]),
    "skip more than there are": (lambda s: s.skip(9), []),
    "take_while": (lambda s: s.take_while(below(2)), [0, 1]),
    "skip_while": (lambda s: s.skip_while(below(2)), [2, 3, 4, 5]),
    "skip_while, once true": (lambda s: s.map(lambda n: n % 3).skip_while(below(2)), [2, 0, 1, 2]),
    "distinct": (lambda s: s.map(lambda n: n % 3).distinct(), [0, 1, 2]),
    "distinct by key": (lambda s: s.distinct(key=lambda n: n // 4), [0, 4]),
    "distinct, the last": (lambda s: s.map(lambda n: n % 3).distinct(last=2), [0, 1, 2, 0, 1, 2]),
    "enumerate": (lambda s: s.skip(4).enumerate(), [(0, 4), (1, 5)]),
    "enumerate from": (lambda s: s.skip(4).enumerate(7), [(7, 4), (8, 5)]),
    "prefetch": (lambda s: s.prefetch(2), [0, 1, 2, 3, 4, 5]),
    "through": (lambda s: s.through(lambda t: t.take(1)), [0]),
    "chain": (lambda s: s.take(1).chain(stream("ab"), stream([])), [0, "a", "b"]),
    "zip": (lambda s: s.zip(stream("ab")), [(0, "a"), (1, "b")]),
    "zip of three": (lambda s: s.zip(s, s.skip(4)), [(0, 0, 4), (1, 1, 5)]),
    "zip, strict": (lambda s: s.take(2).zip(stream("ab"), strict=True), [(0, "a"), (1, "b")]),
    "scan": (lambda s: s.scan(lambda total, n: total + n, 10), [10, 11, 13, 16, 20, 25]),
    "group_by": (lambda s: s.group_by(lambda n: n // 4), [(0, [0, 1, 2, 3]), (1, [4, 5])]),
    "group_by, in parts": (lambda s: s.group_by(lambda n: n // 4, size=3), [(0, [0, 1, 2]), (0, [3]), (1, [4, 5])]),
    "group_by, of nothing": (lambda s: s.take(0).group_by(str), []),
    "tee of one": (lambda s: s.tee(lambda t: t.skip(4)), [4, 5]),
    "tee that nobody reads": (lambda s: s.tee(lambda t: t.take(0), lambda t: t.take(0)), []),
    "batch by weight": (
        lambda s: s.batch(9, weight=lambda n: n, max_weight=5),
        [[0, 1, 2], [3], [4], [5]],
    ),
    "batch by weight and size": (lambda s: s.batch(2, weight=lambda n: n, max_weight=5), [[0, 1], [2, 3], [4], [5]]),
    "batch with an item that is too heavy": (
        lambda s: s.batch(9, weight=lambda n: 100 if n == 2 else 1, max_weight=10),
        [[0, 1], [2], [3, 4, 5]],
    ),
}


def balanced(run):
    for stage in run.stats():
        settled = stage.delivered + stage.dropped + stage.failed + stage.cancelled + stage.discarded
        assert (stage.taken, stage.in_flight) == (settled, 0), stage


@pytest.mark.parametrize("name", ONES)
@pytest.mark.parametrize("delay", [None, 1])
async def test_results(name, delay):
    """P3, P5: what comes out, from sources that are ready and slow ones, with balanced books."""
    build, expected = ONES[name]
    async with build(stream(lambda: Scripted(range(6), delay=delay))).open() as items:
        assert [item async for item in items] == expected
    balanced(items)
    assert await build(stream(range(6))).to_list() == expected


async def test_a_description_keeps_no_state():
    numbers = stream([1, 1, 2]).distinct().enumerate()
    assert await numbers.to_list() == await numbers.to_list() == [(0, 1), (1, 2)]


async def test_count():
    assert await stream(range(7)).filter(lambda n: n % 2).count() == 3


@pytest.mark.parametrize("stop", ["take_while", "zip"])
async def test_upstream_is_stopped_where_the_stream_ends(stop):
    """P4: calls that run are cancelled as soon as their results cannot be wanted."""
    gauge = Gauge()

    @gauge.wrap
    async def work(number):
        await asyncio.sleep(number)
        return number

    numbers = stream(range(100)).map(work, concurrency=5)
    ended = numbers.take_while(below(2)) if stop == "take_while" else numbers.zip(stream("ab"))
    async with ended.open() as items:
        assert len([item async for item in items]) == 2
        assert gauge.now == 0
    assert gauge.started <= 8
    balanced(items)


@pytest.mark.parametrize(
    "build",
    [
        lambda s: s.take_while(lambda n: 1 // (2 - n) or True),
        lambda s: s.skip_while(lambda n: 1 // (2 - n) or True),
        lambda s: s.distinct(key=lambda n: 1 // (2 - n)),
        lambda s: s.batch(1, weight=lambda n: 1 // (2 - n), max_weight=3),
    ],
    ids=["take_while", "skip_while", "distinct", "batch"],
)
async def test_a_function_that_raises_fails_its_item(build):
    """Trap 24: a raising predicate or key neither hangs nor disappears; the source is closed."""
    source = Scripted(range(6), delay=1)
    with pytest.raises(ZeroDivisionError) as raised:
        await build(stream(source)).to_list()
    assert "item 2" in raised.value.__notes__[0]
    assert (source.taken, source.closed) == (3, 1)


async def test_a_zip_that_must_be_even_names_who_ended():
    with pytest.raises(ValueError, match="stream 2 ended after 2 items, stream 1 has more"):
        await stream(Scripted(range(3), delay=1)).zip(stream("ab"), strict=True).to_list()


async def test_a_zip_holds_one_item_of_each():
    """P1."""
    fast, slow = Scripted(range(5)), Scripted(range(5), delay=1)
    async with stream(fast).zip(stream(slow)).open() as items:
        async for number, _ in items:
            assert fast.taken <= number + 2


async def test_a_chain_reads_a_stream_only_in_its_turn():
    """P2."""
    first, second = Scripted("ab", delay=1), Scripted("cd")
    async with stream(first).chain(stream(second)).open() as items:
        assert (await anext(items), second.opened) == ("a", 0)
        assert [item async for item in items] == ["b", "c", "d"]
    assert (first.closed, second.closed) == (1, 1)


async def test_a_prefetch_reads_ahead_as_far_as_it_says():
    """P1, P2: while the consumer is away."""
    source = Scripted(range(50))
    async with stream(source).prefetch(4).open() as items:
        await anext(items)
        await asyncio.sleep(1)
        assert source.taken == 5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: s.skip(-1), "count must be an int >= 0, got -1"),
        (lambda s: s.prefetch(0), "count must be an int >= 1, got 0"),
        (lambda s: s.distinct(last=0), "last must be an int >= 1, got 0"),
        (lambda s: s.distinct(key=3), "key must be callable, got 3"),
        (lambda s: s.take_while(None), "predicate must be callable, got None"),
        (lambda s: s.enumerate(1.0), r"start must be an int, got 1\.0"),
        (lambda s: s.enumerate(True), "start must be an int, got True"),
        (lambda s: s.zip(s, strict=1), "strict must be True or False, got 1"),
        (lambda s: s.batch(3, weight=len), "weight and max_weight must be given together, got weight alone"),
        (lambda s: s.batch(3, weight=len, max_weight=0), "max_weight must be a finite number > 0, got 0"),
    ],
)
def test_bad_options_raise_when_the_stream_is_built(build, message):
    with pytest.raises(OptionError, match=f"^{message}$"):
        build(stream([]))
