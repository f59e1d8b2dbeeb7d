"""`with_metadata`: what is known of an item beside its value."""

import asyncio

import pytest

import penstock
from penstock import Failed, Ok, OptionError, Record, Retry, SqliteTable, merge, stream
from penstock.flow import Pipeline, step, transform


async def records(items):
    return [(each.value, each.index, each.attempts) for each in await items.with_metadata().to_list()]


def flaky(times, result=lambda x: x):
    """Fails so often for each item."""
    left = {}

    async def work(x):
        key = str(x)
        left[key] = left.get(key, times) - 1
        if left[key] >= 0:
            raise OSError(x)
        return result(x)

    return work


AGAIN = Retry(on=OSError, attempts=9, initial=0)


async def test_a_record_says_where_an_item_came_from():
    items = stream("abc").flat_map(lambda x: [x, x + x]).filter(lambda x: x != "bb").map(str.upper, concurrency=2)
    assert await records(items.tap(lambda x: None).prefetch(2)) == [
        ("A", 0, 1),
        ("AA", 0, 1),
        ("B", 1, 1),
        ("C", 2, 1),
        ("CC", 2, 1),
    ]


async def test_attempts_are_those_of_all_calls():
    items = stream(range(2)).map(flaky(1), retry=AGAIN).map_batches(flaky(2), 2, retry=AGAIN)
    items = items.flat_map(flaky(1, lambda x: [x]), retry=AGAIN).filter(flaky(1, lambda _: True), retry=AGAIN)
    assert await records(items) == [(0, 0, 6), (1, 1, 6)]


@pytest.mark.parametrize("fan", [list, iter, lambda x: later(x)])
async def test_outputs_of_all_forms_are_followed(fan):
    assert await records(stream([1, 2]).flat_map(lambda x: fan([x, x]))) == [(1, 0, 1), (1, 0, 1), (2, 1, 1), (2, 1, 1)]


async def later(items):
    for x in items:
        yield x


async def test_attempts_of_steps_and_of_pipelines_count():
    async def with_context(x, ctx):
        if ctx.attempt < 3:
            raise OSError
        return x

    one = step("one", with_context, retry=AGAIN)
    both = Pipeline("p", [step("a", flaky(1), retry=AGAIN), one])
    assert await records(stream([5]).add(one)) == [(5, 0, 3)]
    assert await records(stream([5]).add(both, concurrency=2)) == [(5, 0, 4)]


async def test_seconds_are_since_the_item_was_taken():
    async def slow(x):
        await asyncio.sleep(x)
        return x

    found = await stream([2, 1]).map(slow, concurrency=2).with_metadata().to_list()
    assert [each.seconds for each in found] == [2, 2]  # the second waited for the first
    found = await stream([2, 1]).map(slow, concurrency=2, ordered=False).with_metadata().to_list()
    assert [each.seconds for each in found] == [1, 2]


async def test_of_a_sample_only_some_are_followed():
    found = await stream(range(1000)).map(lambda x: x).with_metadata(sample=0.1).to_list()
    followed = [each for each in found if each.index is not None]
    assert len(followed) == 100
    assert [each.value for each in found] == list(range(1000))
    assert all(each.index == each.value and each.attempts == 1 and each.seconds is not None for each in followed)
    assert found[1] == Record(1, None, None, None)


async def test_results_are_in_the_record():
    items = stream([1, 0]).map(lambda x: 1 / x, on_error="return")
    one, other = await items.with_metadata().to_list()
    assert (one.value, one.index) == (Ok(1.0, 0), 0)
    assert (type(other.value), other.value.item, other.index) == (Failed, 0, 1)
    again = items.map(lambda result: isinstance(result, Ok)).with_metadata()
    assert [(each.value, each.index) for each in await again.to_list()] == [(True, 0), (False, 1)]


@pytest.mark.parametrize("on_error", ["skip", "collect"])
async def test_failures_show_plain_items(on_error):
    async with stream([1, 0, 2]).map(lambda x: 1 / x, on_error=on_error).with_metadata().open() as run:
        assert [(each.value, each.index) async for each in run] == [(1.0, 0), (0.5, 2)]
    assert [each.item for each in run.failures] == ([0] if on_error == "collect" else [])


async def test_keys_bytes_and_pairs_are_those_of_plain_items():
    items = stream(["a", "bb"]).map(flaky(0), key=len, concurrency=2, buffer_bytes=9, size_of=len, keep=True)
    assert await records(items) == [(("a", "a"), 0, 1), (("bb", "bb"), 1, 1)]


def squared(number):
    return number * number


@pytest.mark.real_time
@pytest.mark.parametrize("options", [{"engine": "thread"}, {"concurrency": 2}, {"engine": "process"}], ids=str)
async def test_functions_in_threads_and_processes_see_plain_items(options):
    """Trap: calls that are made without tasks were given the envelopes."""
    records = await stream(range(3)).map(squared, **options).filter(squared, **options).with_metadata().to_list()
    assert [(each.value, each.index, each.attempts) for each in records] == [(1, 1, 1), (4, 2, 1)]


async def test_limits_and_checkpoints_see_plain_items():
    costs = []
    limiter = penstock.Limiter(9, cost=lambda x: costs.append(x) or 1)
    items = stream([1, 2]).map(flaky(0), limit=limiter, concurrency=2).checkpoint("a", keep="all").with_metadata()
    async with items.open() as run:
        assert [each.value async for each in run] == [1, 2]
    assert (costs, run.state["a"]) == ([1, 2], [1, 2])


async def test_below_it_records_are_items_like_others():
    found = await stream([3, 4]).with_metadata().map(lambda record: record.index).batch(2).to_list()
    assert found == [[0, 1]]


async def test_the_tries_of_a_pipeline_that_fails_count_too():
    """Those of all its steps, as where it succeeds."""

    def fails(x):
        raise ValueError(x)

    p = Pipeline("p", takes=int).step("s", fails, retry=Retry(on=ValueError, attempts=3, initial=0))
    [record] = await stream([1]).add(p, on_error="return").with_metadata().to_list()
    assert (record.value.attempts, record.attempts) == (3, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: s.with_metadata(sample=0), "sample must be a number above 0 and at most 1, got 0"),
        (lambda s: s.with_metadata(sample=1.5), "sample must be a number above 0 and at most 1, got 1.5"),
        (lambda s: s.with_metadata(sample=True), "sample must be"),
        (lambda s: s.take(1).with_metadata(), "with_metadata cannot stand behind take"),
        (lambda s: s.batch(2).with_metadata(), "with_metadata cannot stand behind batch"),
        (lambda s: s.with_metadata().with_metadata(), "with_metadata cannot stand behind with_metadata"),
        (lambda s: s.zip(s).map(str).with_metadata(), "with_metadata cannot stand behind zip"),
        (lambda s: merge(s, s).with_metadata(), "with_metadata cannot stand behind merge"),
        (lambda s: s.add(transform("t", later)).with_metadata(), "with_metadata cannot stand behind transform"),
    ],
)
def test_what_breaks_its_rule_raises_when_it_is_built(build, message):
    with pytest.raises(OptionError, match=message):
        build(stream([1]))


def test_a_durable_run_refuses_it_by_name():
    with pytest.raises(OptionError, match="with_metadata cannot be part of a durable run"):
        penstock.keyed([1], key=str).with_metadata().deliver(SqliteTable("x", "t"), run="r")


def test_it_says_what_it_is():
    assert repr(stream([1]).with_metadata()) == "stream(list of 1).with_metadata()"
    assert repr(stream([1]).with_metadata(sample=0.25)) == "stream(list of 1).with_metadata(sample=0.25)"
