"""P6: any value is a value: as an item, as a result, in a batch, as an output of `flat_map`."""

import asyncio

from penstock import merge, stream
from penstock.testing import Scripted

from .grids import AS_GIVEN, ORDERS, SOURCES, grid
from .operators import OPERATORS, THREADED


class Odd:
    """Has no truth, no length, no hash, is equal to everything, and cannot be shown."""

    __hash__ = None

    def __eq__(self, other):
        return True

    def __bool__(self):
        raise AssertionError("asked for its truth")

    def __len__(self):
        raise AssertionError("asked for its length")

    def __repr__(self):
        return "<odd>"


class Never(Odd):
    """Is equal to nothing, not even to itself."""

    __hash__ = None

    def __eq__(self, other):
        return False


VALUES = (
    None,
    False,
    0,
    "",
    (),
    NotImplemented,
    ...,
    object(),
    float("nan"),
    ValueError("a value"),
    StopIteration(),
    StopAsyncIteration("a value"),
    asyncio.CancelledError(),
    GeneratorExit(),
    ExceptionGroup("a value", [KeyError()]),
    ValueError,
    StopAsyncIteration,
    Odd(),
    Never(),
    [],
    {},
)


def assert_same(got, expected):
    """Identity, as equality says nothing about some of them."""
    assert [id(value) for value in got] == [id(value) for value in expected]


async def call(item):
    await asyncio.sleep(0.25)


async def at_once(item):
    pass


def sorted_by_identity(values):
    return sorted(values, key=id)


@grid(operator=OPERATORS, ordered=ORDERS, read=SOURCES)
async def test_any_value_passes(operator, ordered, read):
    for work, concurrency in ((call, 3), (at_once, 1)):
        source = Scripted(VALUES, delay=None)
        options = {"concurrency": concurrency, "ordered": ordered}
        async with operator.build(stream(read(source)), work, **options).open() as results:
            got = [item async for result in results for item in operator.items(result)]
        assert_same(got, VALUES)


@grid(operator=THREADED, concurrency=[1, 3])
async def test_any_value_passes_through_plain_functions(operator, concurrency):
    def plain(item):
        pass

    got = await operator.build(stream(VALUES), plain, concurrency=concurrency).to_list()
    assert_same(got, VALUES)


@grid(read=SOURCES)
async def test_any_value_passes_without_a_stage_and_through_merge_and_batch(read):
    assert_same(await stream(read(Scripted(VALUES))).to_list(), VALUES)
    assert_same(await stream(read(Scripted(VALUES))).take(10**6).to_list(), VALUES)
    assert_same(await merge(read(Scripted(VALUES))).to_list(), VALUES)
    batches = await stream(read(Scripted(VALUES))).batch(4, within=1).to_list()
    assert_same([value for batch in batches for value in batch], VALUES)
    assert_same(await stream([VALUES, list(VALUES)]).flatten().to_list(), VALUES + VALUES)


@grid(value=VALUES)
async def test_any_value_may_be_first_last_and_alone(value):
    assert await stream([value]).first() is value
    assert await stream([]).first(default=value) is value
    assert_same(await stream([value]).map(lambda item: item).to_list(), [value])
    assert_same([await stream([value]).reduce(lambda _, item: item, None)], [value])


@grid(ordered=AS_GIVEN, concurrency=[1, 3])
async def test_what_fn_returns_is_the_result_whatever_it_is(ordered, concurrency):
    async def constant(value):
        return value

    def inline(value):
        return value

    options = {"concurrency": concurrency, "ordered": ordered}
    for fn in (constant, inline, lambda value: value, lambda value: constant(value)):
        got = await stream(VALUES).map(fn, **options).to_list()
        assert_same(*((got, VALUES) if ordered is not False else map(sorted_by_identity, (got, VALUES))))


async def test_what_a_tap_returns_is_ignored_and_what_a_predicate_returns_is_judged():
    assert await stream([1]).tap(lambda _: ValueError()).to_list() == [1]
    assert await stream([None, 1, "", "a"]).filter(lambda item: item).to_list() == [1, "a"]
    assert await stream([None, 1]).filter(lambda _: ValueError()).to_list() == [None, 1]


@grid(concurrency=[1, 3])
async def test_items_that_can_be_awaited_are_items(concurrency):
    """Only what the function returns is awaited."""
    done = asyncio.get_running_loop().create_future()
    done.set_result("its result")

    def plain(item):
        return True

    async def coroutine(item):
        return True

    for fn in (plain, coroutine, lambda item: coroutine(item), lambda _: True):
        for method in ("tap", "filter"):
            got = await getattr(stream([done]), method)(fn, concurrency=concurrency).to_list()
            assert_same(got, [done])
    assert_same(await stream([[done]]).flatten().to_list(), [done])
    assert_same(await stream([done]).flat_map(lambda item: [item], concurrency=concurrency).to_list(), [done])
    assert await stream([done]).map(lambda item: item, concurrency=concurrency).to_list() == ["its result"]


async def test_failures_keep_the_item_whatever_it_is():
    async def fail(item):
        raise KeyError

    async with stream(VALUES).map(fail, on_error="collect").open() as results:
        assert [item async for item in results] == []
    assert_same([failure.item for failure in results.failures], VALUES)
