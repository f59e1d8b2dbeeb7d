"""`tee`: each item to each branch, read once, at the pace of the slowest."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock import OptionError, stream
from penstock.testing import Scripted

pytestmark = pytest.mark.grid


def itself(branch):
    return branch


def named(name, seconds=0):
    async def call(item):
        await asyncio.sleep(seconds)
        return name, item

    return lambda branch: branch.map(call, concurrency=2)


async def test_every_branch_gets_every_item_and_the_source_is_read_once(clock):
    source = Scripted(range(20), delay=1)
    results = await stream(source).tee(named("a"), named("b", 3), lambda each: each.batch(6)).to_list()
    by_branch = Counter(result[0] if isinstance(result, tuple) else "batch" for result in results)
    assert by_branch == {"a": 20, "b": 20, "batch": 4}
    assert [item for name, item in (each for each in results if isinstance(each, tuple)) if name == "a"] == [*range(20)]


async def test_the_slowest_branch_sets_the_pace(clock):
    """P1: no branch is more than `ahead` items, and what its stages hold, before another."""
    given = []
    source = (given.append(number) or number for number in range(1000))
    begun = []

    async def slow(item):
        begun.append(item)
        await asyncio.sleep(1)

    async with stream(source).tee(itself, lambda each: each.map(slow), ahead=3).open() as run:
        async for _ in run:
            assert len(given) - len(begun) <= 3 + 2
            if clock.now > 20:
                break
    assert len(given) < 30


async def test_a_branch_that_ends_early_holds_up_nobody(clock):
    async with stream(range(50)).tee(lambda each: each.take(2), named("b")).open() as run:
        results = [item async for item in run]
    assert [item for item in results if not isinstance(item, tuple)] == [0, 1]
    assert len(results) == 52
    for stage in run.stats():
        assert stage.in_flight == 0


async def test_when_every_branch_has_ended_the_source_is_not_read_on(clock):
    source = Scripted(range(10**6), delay=None)
    assert sorted(await stream(source).tee(lambda s: s.take(2), lambda s: s.take(3)).to_list()) == [0, 0, 1, 1, 2]
    assert source.taken <= 4


async def test_a_failure_in_a_branch_ends_the_run(clock):
    async def fails(item):
        if item == 3:
            raise ValueError(item)

    with pytest.raises(ValueError, match="3"):
        await stream(range(10)).tee(itself, lambda each: each.map(fails)).to_list()


async def test_a_failing_source_is_raised_after_all_that_it_gave(clock):
    def source():
        yield from range(3)
        raise KeyError

    results = []
    with pytest.raises(KeyError):
        async with stream(source).tee(itself, named("b", 1)).open() as run:
            async for item in run:
                results.append(item)  # noqa: PERF401 -- those before the error
    assert [item for item in results if not isinstance(item, tuple)] == [0, 1, 2]


async def test_each_run_has_branches_of_its_own(clock):
    both = stream(range(5)).tee(itself, named("b", 1))
    first, second = await asyncio.gather(both.to_list(), both.to_list())
    assert sorted(map(str, first)) == sorted(map(str, second))
    assert len(first) == 10


async def test_a_tee_within_a_tee_and_a_merge_in_a_branch(clock):
    nested = stream(range(4)).tee(lambda each: each.tee(itself, itself), lambda each: each.merge(stream("ab")))
    assert sorted(map(str, await nested.to_list())) == sorted([*"0123" * 3, "a", "b"])


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(0, 12),
    ahead=st.integers(1, 4),
    branches=st.lists(
        st.tuples(st.sampled_from(["map", "batch", "filter", "take", "itself"]), st.integers(1, 4)),
        min_size=1,
        max_size=4,
    ),
    delay=st.sampled_from([None, 0, 1]),
)
async def test_any_branches_give_what_each_would_alone(count, ahead, branches, delay):
    """Whatever their paces: nothing is lost, doubled or stuck."""

    def branch(kind, size):
        async def work(item):
            await asyncio.sleep(size * (item % 2))
            return item

        return {
            "map": lambda s: s.map(work, concurrency=size),
            "batch": lambda s: s.batch(size),
            "filter": lambda s: s.filter(lambda item: item % size == 0),
            "take": lambda s: s.take(size),
            "itself": itself,
        }[kind]

    made = [branch(*each) for each in branches]
    got = await stream(Scripted(range(count), delay=delay)).tee(*made, ahead=ahead).to_list()
    alone = [await each(stream(range(count))).to_list() for each in made]
    assert Counter(map(str, got)) == Counter(str(item) for items in alone for item in items)


def test_branches_that_make_no_sense_are_refused():
    ones = stream(range(3))
    with pytest.raises(OptionError, match="one branch at least"):
        ones.tee()
    with pytest.raises(OptionError, match=r"branch <lambda> of tee must use the stream that it is given, once"):
        ones.tee(lambda _: stream("ab"))
    with pytest.raises(OptionError, match="once"):
        ones.tee(lambda each: each.merge(each))
    with pytest.raises(OptionError, match=r"branch\(stream\) must be a Stream, got 3"):
        ones.tee(lambda _: 3)
    with pytest.raises(OptionError, match="ahead must be an int >= 1, got 0"):
        ones.tee(itself, ahead=0)
    with pytest.raises(OptionError, match="branch must be callable, got 3"):
        ones.tee(3)
