"""Checkpoints: snapshots in memory of what passes, read as the state of the run."""

import asyncio
import inspect

import pytest

import penstock
from penstock import OptionError, SqliteTable, stream


async def test_the_state_is_what_has_passed():
    items = stream(range(5)).checkpoint("last").checkpoint("two", keep=2).checkpoint("all", keep="all")
    async with items.checkpoint("sum", fold=lambda a, b: a + b, initial=10).open() as run:
        assert dict(run.state) == {"two": [], "all": [], "sum": 10}
        for expected in range(5):
            assert await anext(run) == expected
            assert dict(run.state) == {
                "last": expected,
                "two": list(range(max(expected - 1, 0), expected + 1)),
                "all": list(range(expected + 1)),
                "sum": 10 + sum(range(expected + 1)),
            }
    assert run.state["two"] == [3, 4]
    assert run.stats()["checkpoint(sum)"].delivered == 5
    assert len(run.state) == 4
    assert "last" in run.state
    assert "nothing" not in run.state


async def test_what_is_not_there_is_a_key_error_that_lists_the_names():
    async with stream([1]).checkpoint("a").checkpoint("b").open() as run:
        with pytest.raises(KeyError, match="nothing has passed checkpoint 'a' yet: there are 'a', 'b'"):
            run.state["a"]
        with pytest.raises(KeyError, match="no checkpoint 'z': there are 'a', 'b'"):
            run.state["z"]
    with pytest.raises(KeyError, match="there are none"):
        stream([1]).open().state["a"]


async def test_lists_are_fresh_and_items_are_not_copied():
    item = [1]
    async with stream([item]).checkpoint("a", keep="all").open() as run:
        await anext(run)
        run.state["a"].clear()
        assert run.state["a"][0] is item


async def test_each_run_has_a_state_of_its_own():
    items = stream([1, 2]).checkpoint("a", fold=lambda a, b: a + b, initial=0)
    async with items.open() as one, items.open() as other:
        await anext(one)
        assert [one.state["a"], other.state["a"]] == [1, 0]


async def test_work_of_the_run_can_read_it():
    async with stream(range(3)).checkpoint("a").map(lambda x: (x, run.state["a"])).open() as run:
        assert [x async for x in run] == [(0, 0), (1, 1), (2, 2)]


def test_a_run_without_async_has_it_too():
    with stream([1, 2]).checkpoint("a", keep=1).sync() as run:
        assert list(run) == [1, 2]
        assert run.state["a"] == [2]
    assert run.state["a"] == [2]


async def test_a_fold_that_raises_ends_the_run():
    with pytest.raises(ZeroDivisionError) as caught:
        await stream([1, 0]).checkpoint("a", fold=lambda a, b: a / b, initial=1).to_list()
    assert caught.value.__notes__ == ["penstock: stage 'checkpoint(a)', item 1"]


async def test_a_snapshot_shows_the_order():
    """P3: so items come to it in order, also where the end does not ask for one."""

    async def slow(x):
        await asyncio.sleep(3 - x)
        return x

    async with stream([0, 1, 2]).map(slow, concurrency=3).checkpoint("a", keep="all").open() as run:
        assert [x async for x in run] == [0, 1, 2]
    assert run.state["a"] == [0, 1, 2]
    seen = []
    await stream([0, 1, 2]).map(slow, concurrency=3).checkpoint("a").for_each(seen.append)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: s.checkpoint(""), "name must be a non-empty str, got ''"),
        (lambda s: s.checkpoint("a", keep=0), "keep must be 'last', 'all' or an int >= 1, got 0"),
        (lambda s: s.checkpoint("a", keep=True), "keep must be .* got True"),
        (lambda s: s.checkpoint("a", keep="first"), "keep must be .* got 'first'"),
        (lambda s: s.checkpoint("a", fold=max), "initial must be given with fold"),
        (lambda s: s.checkpoint("a", initial=1), "fold must be given with initial, got initial=1"),
        (lambda s: s.checkpoint("a", fold=3, initial=1), "fold must be callable, got 3"),
        (lambda s: s.checkpoint("a", fold=slow_fold, initial=1), "fold must be a plain function"),
        (lambda s: s.checkpoint("a", fold=max, initial=1, keep="all"), "keep must not be given with fold, got 'all'"),
        (lambda s: s.checkpoint("a").map(str).checkpoint("a"), "unique in a stream, got 'a' twice"),
        (lambda s: s.checkpoint("a").merge(s.checkpoint("a")), "unique in a stream, got 'a' twice"),
        (lambda s: s.checkpoint("a").merge(s).checkpoint("a"), "unique in a stream, got 'a' twice"),
        (lambda s: s.checkpoint("a").tee(lambda b: b.checkpoint("a")), "unique in a stream, got 'a' twice"),
        (
            lambda s: s.tee(lambda b: b.checkpoint("a"), lambda b: b.checkpoint("a")),
            "unique in a stream, got 'a' twice",
        ),
        (lambda s: s.tee(lambda b: b.checkpoint("a")).checkpoint("a"), "unique in a stream, got 'a' twice"),
    ],
)
def test_what_breaks_its_rule_raises_when_it_is_built(build, message):
    with pytest.raises(OptionError, match=message):
        build(stream([1]))


async def slow_fold(a, b):
    return a


def test_a_durable_run_refuses_it_by_name():
    items = penstock.keyed([1], key=str).checkpoint("mine")
    with pytest.raises(OptionError, match=r"checkpoint\(mine\) cannot be part of a durable run"):
        items.deliver(SqliteTable("x", "t"), run="r")


def test_it_says_what_it_is():
    assert repr(stream([1]).checkpoint("a").checkpoint("b", keep=2)) == (
        "stream(list of 1).checkpoint('a').checkpoint('b', keep=2)"
    )
    assert inspect.getdoc(penstock.Stream.checkpoint)
