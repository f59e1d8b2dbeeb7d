"""`map` with `key=`, `keep=` and `buffer_bytes=`."""

import asyncio
from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock import Failed, Ok, OptionError, Retry, stream
from penstock.sinks import SqliteTable
from penstock.testing import Gauge

pytestmark = pytest.mark.grid


CALLS = []


async def size_of(item):
    CALLS.append(item)
    return len(item["text"])


def first(item):
    return item[0]


# key


async def test_other_keys_go_on_while_an_item_waits_for_its_next_try(clock):
    began = {}

    async def work(item):
        began.setdefault(item, []).append(clock.now)
        if item == "a0" and len(began[item]) == 1:
            raise ConnectionError
        return item

    retry = Retry(on=ConnectionError, initial=9, jitter=0)
    items = stream(["a0", "a1", "b0"]).map(work, key=first, concurrency=2, buffer=3, retry=retry, ordered=False)
    assert await items.to_list() == ["b0", "a0", "a1"]
    assert began == {"a0": [0, 9], "a1": [9], "b0": [0]}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    items=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0, 0.5, 1, 2])), max_size=12),
    concurrency=st.integers(1, 4),
    buffer=st.integers(0, 8),
    ordered=st.booleans(),
    failing=st.sets(st.integers(0, 11), max_size=3),
)
async def test_items_of_one_key_are_worked_on_one_after_the_other(items, concurrency, buffer, ordered, failing):
    """Also with retries and as they finish; items of other keys go on meanwhile."""
    numbered = [(key, number, seconds) for number, (key, seconds) in enumerate(items)]
    running, tried, began = Counter(), set(), defaultdict(list)

    async def work(item):
        key, number, seconds = item
        running[key] += 1
        began[key].append(number)
        assert running[key] == 1
        assert running.total() <= concurrency
        await asyncio.sleep(seconds)
        running[key] -= 1
        if number in failing and number not in tried:
            tried.add(number)
            raise ConnectionError
        return item

    retry = Retry(on=ConnectionError, initial=1)
    results = stream(numbered).map(
        work, key=first, concurrency=concurrency, buffer=buffer, ordered=ordered, retry=retry
    )
    out = await results.to_list()
    assert sorted(out, key=lambda item: item[1]) == numbered
    for key in "abc":
        of_key = [item for item in numbered if item[0] == key]
        assert [item for item in out if item[0] == key] == of_key
        assert began[key] == sorted(began[key])


async def test_a_thread_that_is_late_keeps_the_key(clock):
    """A thread cannot be stopped: until it is back, no item of its key may begin."""
    gauge = Gauge()

    def work(item):
        with gauge:
            clock.sleep(3 if item == "a0" else 0)
        return item

    options = {"timeout": 1, "engine": "thread", "on_error": "skip"}
    assert await stream(["a0", "a1"]).map(work, key=first, concurrency=2, **options).to_list() == ["a1"]
    assert (gauge.peak, clock.now) == (1, 3.0)


@pytest.mark.parametrize("operator", ["map", "filter", "tap", "for_each"])
@pytest.mark.parametrize("engine", [None, "thread"])
async def test_plain_functions_in_threads_are_called_one_after_the_other_by_key(clock, engine, operator):
    """With no other option, calls in threads have no task of their own: they wait for their key all the same."""
    by_key, began = defaultdict(Gauge), []

    def work(item):
        began.append(item)
        with by_key[item[0]]:
            clock.sleep(1)
        return item

    end = getattr(stream(["a0", "a1", "b0", "a2", "b1"]), operator)(
        work, key=first, engine=engine, concurrency=4, buffer=4
    )
    await (end if operator == "for_each" else end.drain())
    assert {key: gauge.peak for key, gauge in by_key.items()} == {"a": 1, "b": 1}
    assert [item for item in began if item[0] == "a"] == ["a0", "a1", "a2"]
    assert clock.now == 3.0


async def test_plain_functions_have_keys_too():
    assert await stream("abab").map(str.upper, key=str, engine="inline", concurrency=2).to_list() == [*"ABAB"]
    assert await stream("abab").filter(lambda item: item == "a", key=str).to_list() == ["a", "a"]
    assert await penstock.parallel_map("ab", str.upper, key=str, concurrency=2).to_list() == ["A", "B"]


async def test_a_key_that_raises_is_the_failure_of_its_item():
    results = await stream([1, 0]).map(str, key=lambda item: 1 // item, on_error="return").to_list()
    assert [type(result) for result in results] == [Ok, Failed]


# keep


async def test_results_are_kept_with_their_items():
    assert await stream("ab").map(str.upper, keep=True).to_list() == [("a", "A"), ("b", "B")]
    assert await stream("ab").map(str.upper, keep=True, concurrency=2).to_list() == [("a", "A"), ("b", "B")]
    results = await stream([1, 0]).map(lambda item: 1 // item, keep=True, on_error="return").to_list()
    assert results[0] == Ok((1, 1), 0)
    assert results[1].item == 0
    assert repr(stream("ab").map(str.upper, keep=True)).endswith("map(upper, keep=True)")


@pytest.mark.real_time
async def test_memo_keeps_the_result_of_a_pair(tmp_path):
    """The item of a pair is the one at hand, not a copy of what it was."""
    items = [{"id": "a", "text": "abc"}]
    CALLS.clear()

    async def run(version):
        source = penstock.keyed(items, key=lambda item: item["id"], version=lambda _: version)
        pairs = source.map(size_of, keep=True, memo=True, deps="1").tap(lambda pair: seen.append(pair[0]))
        rows = pairs.map(lambda pair: {"id": pair[0]["id"], "size": pair[1]})
        return await rows.to(SqliteTable(tmp_path / "out.db", "rows", key="id"), run="test")

    seen = []
    assert ((await run("1")).delivered, (await run("2")).delivered, len(CALLS)) == (1, 1, 1)
    assert seen[1] is items[0]


# buffer_bytes


async def test_nothing_starts_while_so_many_bytes_wait(clock):
    """P1: what waits is at most the budget and the results of the calls that ran."""
    began = []

    async def work(item):
        began.append(item)
        await asyncio.sleep(1)
        return b"x" * 10

    async with stream(range(100)).map(work, concurrency=2, buffer=50, buffer_bytes=40).open() as run:
        await anext(run)
        await asyncio.sleep(60)
        stats = run.stats()[1]
        assert (len(began), stats.buffered, stats.buffered_bytes, stats.peak_buffered_bytes) == (6, 5, 50, 50)
        await anext(run)
        await anext(run)
        await asyncio.sleep(60)
        assert (len(began), run.stats()[1].buffered_bytes) == (8, 50)
    assert run.stats()[1].buffered_bytes == 0


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_budget_bounds_what_waits_behind_a_slow_head(clock, ordered):
    async def work(item):
        await asyncio.sleep(99 if item == 0 else 1)
        return item

    options = {"concurrency": 2, "buffer": 50, "buffer_bytes": 5, "size_of": lambda _: 1, "ordered": ordered}
    async with stream(range(30)).map(work, **options).open() as run:
        results = []
        async for item in run:
            results.append(item)
            assert run.stats()[1].peak_buffered_bytes <= 6
    assert sorted(results) == [*range(30)]


async def test_a_result_above_the_budget_passes_alone():
    sizes = stream([9, 1, 9]).map(lambda size: b"x" * size, buffer=9, buffer_bytes=1, concurrency=3, engine="inline")
    assert [len(result) for result in await sizes.to_list()] == [9, 1, 9]


async def test_failures_and_dropped_items_have_no_size():
    async def work(item):
        return 1 // item

    options = {"buffer_bytes": 1, "size_of": lambda _: 1, "concurrency": 3, "buffer": 3}
    results = await stream([0, 1, 0, 1]).map(work, on_error="return", **options).to_list()
    assert [type(result) for result in results] == [Failed, Ok, Failed, Ok]
    assert await stream([0, 1, 0, 1]).filter(bool, **options).to_list() == [1, 1]


async def test_a_size_that_cannot_be_told_is_the_failure_of_its_item():
    results = await stream([b"a", 1]).map(lambda item: item, buffer_bytes=9, on_error="return").to_list()
    assert [type(result) for result in results] == [Ok, Failed]
    assert "len()" in str(results[1].error)
    with pytest.raises(OptionError, match=r"size_of\(result\) must be a finite number >= 0, got -1"):
        await stream([1]).map(str, buffer_bytes=9, size_of=lambda _: -1).to_list()


@pytest.mark.real_time
async def test_in_a_durable_run_sizes_are_asked_of_results(tmp_path):
    sizes = []
    rows = penstock.keyed(range(4), key=str).map(
        lambda item: {"id": item}, buffer_bytes=9, size_of=lambda row: sizes.append(row["id"]) or 1, key=lambda n: n % 2
    )
    report = await rows.to(SqliteTable(tmp_path / "out.db", "rows", key="id"), run="test")
    assert (report.delivered, sorted(sizes)) == (4, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: s.map(str, key=3), "key must be callable, got 3"),
        (lambda s: s.map(str, keep=1), "keep must be True or False, got 1"),
        (lambda s: s.map(str, buffer_bytes=0), "buffer_bytes must be an int >= 1, got 0"),
        (lambda s: s.map(str, size_of=len), "size_of must be given with buffer_bytes, got size_of alone"),
        (lambda s: s.map(str, buffer_bytes=1, size_of=asyncio.sleep), "size_of must be a plain function"),
        (lambda s: s.flat_map(str, key=len), "key must be None for flat_map, got"),
        (lambda s: s.map_batches(str, 2, buffer_bytes=9), "buffer_bytes must be None for map_batches, got 9"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(OptionError, match=message.replace("(", r"\(")):
        make(stream([]))


async def test_readers_that_take_many_at_once_give_back_the_bytes():
    """P1: a stage below, a batch and a list take what is there together."""

    async def work(item):
        await asyncio.sleep(0)
        return item

    built = stream(range(60)).map(work, concurrency=8, buffer=8, buffer_bytes=20, size_of=lambda _: 1)
    for below in (built, built.map(work, concurrency=8), built.batch(7).flatten(), built.map(lambda item: item)):
        async with below.open() as run:
            assert [item async for item in run] == list(range(60))
            assert run.stats()[1].buffered_bytes == 0
        assert await below.to_list() == list(range(60))
