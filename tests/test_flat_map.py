"""`flat_map` and `flatten`."""

import asyncio
import itertools
from collections.abc import Collection
from contextlib import suppress
from contextvars import ContextVar

import pytest

import penstock
from penstock.core.fan_out import FanOut
from penstock.core.plan import Plan
from penstock.core.source import SourceSpec
from penstock.run import Run, read_to_end
from penstock.testing import Gauge, Scripted

grid = pytest.mark.grid
both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
concurrencies = pytest.mark.parametrize("concurrency", [1, 3])


def as_list(number):
    return [number] * number


async def as_list_later(number):
    await asyncio.sleep(0)
    return [number] * number


def as_generator(number):
    for _ in range(number):
        yield number


async def as_async_generator(number):
    for _ in range(number):
        await asyncio.sleep(1)
        yield number


async def as_async_generator_at_once(number):
    for _ in range(number):
        yield number


async def as_iterator_later(number):
    return iter([number] * number)


KINDS = [as_list, as_list_later, as_generator, as_async_generator, as_async_generator_at_once, as_iterator_later]


@grid
@both_orders
@concurrencies
@pytest.mark.parametrize("buffer", [0, 2])
@pytest.mark.parametrize("fn", [*KINDS, lambda number: (number,) * number], ids=lambda fn: fn.__name__)
async def test_one_item_becomes_many(fn, concurrency, ordered, buffer):
    stream = penstock.stream([3, 0, 1, 2]).flat_map(fn, concurrency=concurrency, ordered=ordered, buffer=buffer)
    outputs = await stream.to_list()
    assert (outputs if ordered else sorted(outputs, reverse=True)) == (
        [3, 3, 3, 1, 2, 2] if ordered else [3, 3, 3, 2, 2, 1]
    )


@grid
@both_orders
@pytest.mark.parametrize("fn", KINDS)
async def test_a_slow_consumer_loses_nothing(fn, ordered):
    """P5: outputs that wait survive the end of the task that has made them."""
    seen = []
    async with penstock.stream([2, 3, 1]).flat_map(fn, concurrency=3, ordered=ordered, buffer=2).open() as items:
        async for item in items:
            seen.append(item)
            await asyncio.sleep(10)
    assert sorted(seen) == [1, 2, 2, 3, 3, 3]
    stage = items.stats()[-1]
    assert (stage.taken, stage.delivered, stage.in_flight) == (3, 3, 0)


@grid
@both_orders
async def test_many_items_without_outputs(ordered):
    """P2: inputs that come to nothing free their places."""
    for fn in (lambda _: [], lambda _: iter(()), as_list_later, as_async_generator):
        stream = penstock.stream([0] * 100).flat_map(fn, concurrency=3, ordered=ordered)
        async with stream.open() as items:
            assert [item async for item in items] == []
        stage = items.stats()[-1]
        assert (stage.taken, stage.dropped, stage.delivered) == (100, 100, 0)


async def test_outputs_are_handed_on_as_they_come(clock):
    """P2: the first output of an input does not wait for its last."""
    stream = penstock.stream([2, 2]).flat_map(as_async_generator)
    assert [clock.now async for _ in stream] == [1.0, 2.0, 3.0, 4.0]


async def test_outputs_of_a_generator_are_made_as_they_are_pulled():
    made = []

    def endless(_):
        for number in range(1_000_000):
            made.append(number)
            yield number

    assert await penstock.stream([1]).flat_map(endless).take(3).to_list() == [0, 1, 2]
    assert len(made) == 3


@grid
async def test_behind_the_head_the_buffer_is_shared():
    """P1: inputs behind the first open one hold at most `buffer` finished outputs together."""
    made = []

    async def pages(number):
        if number == 0:
            await asyncio.sleep(1000)
        for page in range(100):
            made.append((number, page))
            yield number, page

    async with penstock.stream(range(9)).flat_map(pages, concurrency=3, buffer=4).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 10)
        assert len(made) <= 4
        assert {number for number, _ in made} <= {1, 2}
        seen = [item async for item in items]
    assert seen == [(number, page) for number in range(9) for page in range(100)]


@both_orders
async def test_a_slow_consumer_bounds_what_is_made(ordered):
    """P1: unordered each open input may hold one output, and `buffer` more are shared."""
    made = handed_on = 0

    async def pages(number):
        nonlocal made
        for page in range(100):
            made += 1
            yield number, page

    stream = penstock.stream(range(9)).flat_map(pages, concurrency=3, buffer=4, ordered=ordered)
    async with stream.open() as items:
        async for _ in items:
            handed_on += 1
            await asyncio.sleep(10)
            assert made <= handed_on + 3 + 4
            if handed_on == 50:
                break


@grid
async def test_unordered_inputs_take_turns():
    """P3: an input with many outputs does not hold up the others."""

    async def endless(name):
        while True:
            yield name

    outputs = await penstock.stream("ab").flat_map(endless, concurrency=2, ordered=False).take(100).to_list()
    assert 33 <= outputs.count("a") <= 67


def two_then_failure(number):
    for part in range(3):
        if (number, part) == (1, 2):
            raise ValueError(number)
        yield number, part


async def two_then_failure_async(number):
    for output in two_then_failure(number):
        yield output


def failure(number):
    if number == 1:
        raise ValueError(number)
    return [(number, part) for part in range(3)]


@grid
@both_orders
@pytest.mark.parametrize(("fn", "made"), [(two_then_failure, 2), (two_then_failure_async, 2), (failure, 0)])
async def test_outputs_before_a_failure_are_delivered(fn, made, ordered, read_until_error):
    """P5: then it is raised."""
    items = penstock.stream(range(3)).flat_map(fn, ordered=ordered).open()
    seen, error = await read_until_error(items)
    assert seen == [*((0, part) for part in range(3)), *((1, part) for part in range(made))]
    assert type(error) is ValueError
    assert error.__notes__ == [f"penstock: stage 'flat_map({fn.__name__})', item 1"]
    stage = items.stats()[-1]
    assert (stage.failed, stage.delivered, stage.in_flight) == (1, 1, 0)


@grid
@both_orders
@pytest.mark.parametrize("on_error", ["skip", "collect"])
@pytest.mark.parametrize(("fn", "made"), [(two_then_failure, 2), (two_then_failure_async, 2), (failure, 0)])
async def test_other_inputs_go_on_after_a_failure(fn, made, on_error, ordered):
    """P5: the input has failed, once, and its outputs so far were delivered."""
    async with penstock.stream(range(3)).flat_map(fn, on_error=on_error, ordered=ordered).open() as items:
        seen = [item async for item in items]
    assert seen == [(number, part) for number in range(3) for part in range(made if number == 1 else 3)]
    stage = items.stats()[-1]
    assert (stage.failed, stage.delivered, stage.in_flight) == (1, 2, 0)
    assert [failed.index for failed in items.failures] == ([1] if on_error == "collect" else [])


@grid
async def test_a_failure_behind_the_head_stops_the_siblings(read_until_error):
    """P5: at once; what the head has already made is next in order and is delivered."""
    gauge = Gauge()

    async def pages(number):
        with gauge:
            if number == 2:
                await asyncio.sleep(5)
                raise ValueError(number)
            for page in range(100):
                await asyncio.sleep(2)
                yield number, page

    items = penstock.stream(range(9)).flat_map(pages, concurrency=3, buffer=6).open()
    seen, error = await read_until_error(items)
    assert seen == [(0, 0), (0, 1)]
    assert error.args == (2,)
    assert (gauge.started, gauge.now) == (3, 0)


@grid
@pytest.mark.parametrize("fn", KINDS)
async def test_leaving_closes_what_is_open(fn):
    """P4: also the generators that it reads."""
    closed = []

    async def async_generator(_):
        try:
            while True:
                await asyncio.sleep(1)
                yield 1
        finally:
            await asyncio.sleep(1)
            closed.append("async")

    def generator(_):
        try:
            while True:
                yield 1
        finally:
            closed.append("plain")

    for opened in (async_generator, generator):
        async with penstock.stream(range(9)).flat_map(opened, concurrency=2, buffer=2).open() as items:
            await anext(items)
    assert set(closed) == {"async", "plain"}
    async with penstock.stream([5] * 9).flat_map(fn, concurrency=2).open() as items:
        await anext(items)
    assert items.stats()[-1].in_flight == 0


@grid
async def test_a_generator_that_fails_to_close():
    """P4: raises from leaving."""

    def generator(_):
        try:
            yield from range(9)
        finally:
            raise OSError("while it was closed")

    with pytest.raises(OSError, match="while it was closed"):
        await penstock.stream([1]).flat_map(generator).first()


@grid
async def test_a_timeout_covers_the_making_of_outputs(clock):
    async def pages(number):
        yield number
        await asyncio.sleep(60)

    async with penstock.stream([1]).flat_map(pages, timeout=5, on_error="collect").open() as items:
        assert [item async for item in items] == [1]
    assert isinstance(items.failures[0].error, penstock.AttemptTimeout)
    assert clock.now == 5.0


@grid
async def test_a_timeout_does_not_cover_the_consumer():
    """Time in which an input may not make another output is not its own."""

    async def pages(number):
        for page in range(3):
            await asyncio.sleep(2)
            yield number, page

    seen = []
    async with penstock.stream([1]).flat_map(pages, timeout=7).open() as items:
        async for item in items:
            seen.append(item)
            await asyncio.sleep(100)
    assert seen == [(1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize("value", [None, 3, object()])
@pytest.mark.parametrize("on_error", ["raise", "collect"])
async def test_what_is_no_iterable_fails_the_item(value, on_error):
    stream = penstock.stream([1]).flat_map(lambda _: value, on_error=on_error, name="split")
    message = f"the function of stage 'split' must return an iterable, got {value!r}"
    if on_error == "raise":
        with pytest.raises(penstock.OptionError) as raised:
            await stream.to_list()
        assert str(raised.value) == message
    else:
        async with stream.open() as items:
            assert [item async for item in items] == []
        assert str(items.failures[0].error) == message


@grid
async def test_a_stream_is_an_iterable_of_outputs():
    """A stream within a stream: opened per item, closed with it."""
    sources = []

    def inner(number):
        source = Scripted(range(number), delay=1)
        sources.append(source)
        return penstock.stream(source).map(lambda part: (number, part), concurrency=2)

    outputs = await penstock.stream([2, 3]).flat_map(inner, concurrency=2, buffer=9).to_list()
    assert outputs == [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    assert [source.closed for source in sources] == [1, 1]


@grid
async def test_leaving_stops_the_streams_within():
    """P4: their work is awaited, and says nothing of having been left."""
    gauge, sources = Gauge(), []

    def inner(_):
        source = Scripted([0, 60, 60, 60])
        sources.append(source)
        return penstock.stream(source).map(gauge.wrap(asyncio.sleep), concurrency=2)

    async with penstock.stream(range(9)).flat_map(inner, concurrency=2, buffer=1).open() as items:
        await anext(items)
        await asyncio.sleep(1)
    assert gauge.now == 0
    assert all(source.closed == 1 for source in sources)


async def test_flatten():
    assert await penstock.stream([[1, 2], [], (3,), "ab"]).flatten().to_list() == [1, 2, 3, "a", "b"]
    streams = [Scripted(range(2)), Scripted(range(3), delay=1)]
    assert await penstock.stream(streams).flatten().to_list() == [0, 1, 0, 1, 2]
    assert [source.closed for source in streams] == [1, 1]


async def test_flatten_of_dicts_gives_keys():
    assert await penstock.stream([{"a": 1}, {"b": 2}]).flatten().to_list() == ["a", "b"]


async def test_flatten_refuses_what_is_no_iterable():
    with pytest.raises(penstock.OptionError, match="must return an iterable, got 1"):
        await penstock.stream([1]).flatten().to_list()


async def test_leaving_an_async_generator_with_a_task_group_round_its_yield_is_no_failure():
    """The group wraps the GeneratorExit of the closing; it is not for the consumer."""

    async def pages(number):
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(9))
            for page in range(3):
                yield number, page

    async with penstock.stream([1, 2]).flat_map(pages, concurrency=2).open() as items:
        assert await anext(items) == (1, 0)
    assert list(items.failures) == []


@grid
@both_orders
async def test_what_a_failed_attempt_has_made_is_not_handed_on_while_the_next_is_waited_for(ordered, turn_clock):
    """P5: an attempt that fails takes its outputs along; held until the next one starts, they would come twice."""
    attempts = []

    async def twice(number):
        attempts.append(number)
        for output in range(2):
            yield (number, output)
        if attempts.count(number) == 1:
            raise ConnectionError

    retry = penstock.Retry(on=ConnectionError, initial=1, jitter=0)
    stream = penstock.stream([1, 2]).flat_map(twice, ordered=ordered, concurrency=2, buffer=4, retry=retry)
    assert sorted(await stream.to_list()) == [(1, 0), (1, 1), (2, 0), (2, 1)]


async def test_what_a_failed_attempt_held_in_the_buffer_is_room_for_others(clock):
    """P2: while the next attempt is waited for, other inputs make outputs where the forgotten ones were."""
    made = []

    async def outputs(number):
        for output in range(3 if number else 1):
            made.append((clock.now, number, output))
            yield (number, output)
        if number == 1 and clock.now < 10:
            raise ConnectionError

    async def slowly(output):
        await asyncio.sleep(100)
        return output

    retry = penstock.Retry(on=ConnectionError, initial=10, jitter=0)
    stream = penstock.stream([0, 1, 2]).flat_map(outputs, concurrency=3, buffer=3, retry=retry).map(slowly)
    assert await stream.to_list() == [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert [when for when, number, _ in made if number == 2] == [0, 0, 0]


async def test_what_closing_a_generator_raises_in_a_thread_that_came_back_late_is_an_error_of_cleanup(clock):
    """Its item has failed in time, and keeps its place until the thread is back."""

    def pages(_):
        try:
            clock.sleep(3)
            yield 1
        finally:
            raise KeyError("closing")

    with pytest.raises(KeyError, match="closing"):
        async with penstock.stream([1]).flat_map(pages, concurrency=2, timeout=1, on_error="collect").open() as items:
            assert [item async for item in items] == []
    assert [(str(failed.error), failed.index, failed.stage) for failed in items.failures] == [
        ("timed out after 1 s", 0, "flat_map(pages)"),
        ("'closing'", 0, "flat_map(pages)"),
    ]


async def test_an_error_of_closing_an_iterator_names_the_input_that_it_came_from():
    def pages(number):
        try:
            yield from range(3)
        finally:
            raise KeyError(number)

    with pytest.raises(KeyError):
        async with penstock.stream("abc").flat_map(pages).open() as items:
            await anext(items)
    assert [(failed.item, failed.index) for failed in items.failures] == [("a", 0)]


async def test_an_input_without_outputs_takes_a_place_all_the_same():
    async with penstock.stream(range(3)).flat_map(lambda _: []).open() as items:
        assert [item async for item in items] == []
    books = items.stats()["flat_map(<lambda>)"]
    assert (books.peak_running, books.peak_in_flight, books.dropped) == (1, 1, 3)


@grid
@both_orders
async def test_what_makes_its_items_when_it_is_read_is_not_copied(ordered):
    """P7: a range, a view, a query that knows its length: a collection need not be in memory."""
    made = []

    class Rows:
        def __len__(self):
            return 10**6

        def __contains__(self, row):
            return True

        def __iter__(self):
            for row in range(10**6):
                made.append(row)
                yield row

    assert isinstance(Rows(), Collection)
    assert await penstock.stream([0]).flat_map(lambda _: Rows(), ordered=ordered).take(3).to_list() == [0, 1, 2]
    assert made == [0, 1, 2]


async def test_a_permit_that_a_cancelled_input_will_not_use_is_given_back():
    """P1: an input that is cancelled by others in the moment of its permit takes no more of the buffer than it has."""
    made, tasks = [], {}

    async def pages(name):
        tasks[name] = asyncio.current_task()
        if name == "b":
            await asyncio.sleep(1)
        for page in range(9):
            made.append(f"{name}{page}")
            yield made[-1]

    options = {"concurrency": 2, "buffer": 2, "ordered": False, "on_error": "collect"}
    async with penstock.stream("ab").flat_map(pages, **options).open() as items:
        assert await anext(items) == "a0"
        tasks["a"].cancel()
        await asyncio.sleep(9)
        assert made == ["a0", "a1", "a2", "b0", "b1"]
        assert [type(failed.error) for failed in items.failures] == [penstock.WorkRaised]


@both_orders
async def test_an_error_of_closing_an_iterator_says_of_which_item_it_is(ordered):
    class Pages:
        def __iter__(self):
            return self

        def __next__(self):
            return "page"

        def close(self):
            raise OSError("close")

    async with penstock.stream(["a"]).flat_map(lambda _: Pages(), ordered=ordered).open() as items:
        assert await anext(items) == "page"
        with pytest.raises(OSError, match="close"):
            await items.aclose()
    assert [(failed.index, failed.item) for failed in items.failures] == [(0, "a")]


@grid
@both_orders
async def test_an_input_that_is_done_has_one_outcome_also_where_that_ends_the_run(ordered):
    """P5: it was delivered, and is not discarded as well."""

    async def work(number):
        return [number]

    plan = Plan("work", work, ordered=ordered, on_through=lambda _: run.abort())
    numbers = SourceSpec(range(4))
    run = Run(lambda scope: FanOut(scope, numbers.open(scope), plan), 5.0, timing=False, progress=False)
    async with run:
        assert [item async for item in run] == [0]
    stage = run.stats()[-1]
    assert (stage.taken, stage.delivered, stage.discarded) == (1, 1, 0)


async def test_a_permit_that_was_given_back_is_room_in_the_buffer_when_its_input_is_gone(clock):
    """P1, P2: the next head has one output and the whole buffer again."""
    made, tasks = [], {}

    async def pages(name):
        tasks[name] = asyncio.current_task()
        for page in range(9):
            made.append(f"{name}{page}")
            yield made[-1]

    options = {"concurrency": 2, "buffer": 2, "on_error": "collect"}
    async with penstock.stream("ab").flat_map(pages, **options).open() as items:
        assert await anext(items) == "a0"
        tasks["a"].cancel()
        await asyncio.sleep(1)
        assert [await anext(items) for _ in range(3)] == ["a1", "a2", "b0"]
        await asyncio.sleep(1)
        assert made == ["a0", "a1", "a2", "b0", "b1", "b2", "b3"]


@grid
@both_orders
@pytest.mark.parametrize("value", [None, False, 0, (), NotImplemented, ...], ids=repr)
async def test_any_value_is_an_output(value, ordered):
    """P6."""

    async def pages(number):
        yield value
        yield number

    for fn in (pages, lambda number: [value, number], lambda number: iter([value, number])):
        assert await penstock.stream([7]).flat_map(fn, ordered=ordered).to_list() == [value, 7]

    async def gate(number):
        return [value, number]

    plan, numbers = Plan("known", pages, ordered=ordered, gate=gate), SourceSpec([7])
    run = Run(lambda scope: FanOut(scope, numbers.open(scope), plan), 5.0, timing=False, progress=False)
    async with run:
        assert [item async for item in run] == [value, 7]


async def quick(name):
    while True:
        yield name


async def with_a_pass(name):
    while True:
        await asyncio.sleep(0)
        yield name


READY = {
    "iterator": lambda name: itertools.repeat(name),
    "list": lambda name: [name] * 10_000,
    "async": quick,
    "async with a pass": with_a_pass,
}


@pytest.mark.grid
@pytest.mark.parametrize("buffer", [0, 4])
@pytest.mark.parametrize("kinds", [*itertools.product(READY, READY)])
async def test_unordered_inputs_share_within_two_to_one(kinds, buffer):
    """As those of `merge`: one that has always an output starves no other."""

    def outputs(number):
        return READY[kinds[number]]("ab"[number])

    built = penstock.stream(range(2)).flat_map(outputs, concurrency=2, ordered=False, buffer=buffer, engine="inline")
    async with built.open() as items:
        given = "".join([await anext(items) for _ in range(300)])
    shares = given[60:].count("a"), given[60:].count("b")
    assert max(shares) <= 2 * min(shares)


def counts(books):
    return books.taken, books.delivered, books.dropped, books.failed, books.in_flight, books.buffered


async def test_a_reader_of_all_gets_outputs_as_they_are_made():
    """P1, P3, P5: beside `to_list`, which takes outputs where they are made, a loop, which is woken for each."""

    async def outputs(number):
        for output in range(number % 4):
            if output == number % 3:
                await asyncio.sleep(number % 2)
            yield (number, output)
        if number % 5 == 4:
            raise ValueError(number)

    def several(number):
        return [(number, output) for output in range(number % 3)]

    def lazily(number):
        return iter(several(number))

    for work in (outputs, several, lazily, lambda number: outputs(number) if number % 2 else several(number)):
        for options in ({}, {"concurrency": 3}, {"concurrency": 3, "buffer": 2}, {"concurrency": 4, "timeout": 9}):
            for on_error in ("skip", "return"):
                built = penstock.stream(range(24)).flat_map(work, on_error=on_error, name="it", **options)
                async with built.open() as run:
                    one_by_one = [output async for output in run]
                    books = run.stats()["it"]
                async with built._to_the_end() as run:
                    together = []
                    await read_to_end(run, together.append)
                    assert counts(run.stats()["it"]) == counts(books)
                assert [repr(output) for output in together] == [repr(output) for output in one_by_one]
                assert books.in_flight == 0


async def test_a_failure_ends_a_reader_of_all_where_it_is():
    """P5: outputs before it have come, those behind it have not."""
    given = []

    async def outputs(number):
        yield (number, 0)
        await asyncio.sleep(number)
        if number == 2:
            raise ValueError(number)
        yield (number, 1)

    with pytest.raises(ValueError, match="2"):
        async with penstock.stream(range(9)).flat_map(outputs, concurrency=4, buffer=4)._to_the_end() as run:
            await read_to_end(run, given.append)
    assert given == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


@pytest.mark.parametrize("made", [list, iter])
async def test_a_plain_function_is_called_without_a_task(made):
    """As that of a `map`: a task for each input takes longer than most of them."""
    tasks = set()

    def outputs(number):
        tasks.add(asyncio.current_task())
        return made([number, number])

    assert await penstock.stream(range(3)).flat_map(outputs).to_list() == [0, 0, 1, 1, 2, 2]
    assert tasks == {asyncio.current_task()}


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_generator_that_does_not_wait_makes_each_output_when_it_is_asked_for(concurrency):
    """P1, P2: no pass of the loop is needed, and nothing is made ahead of the reader, who never waits."""
    made, tasks, passes = [], set(), 0

    async def some(number):
        for output in range(number % 4):
            tasks.add((number, asyncio.current_task()))
            made.append((number, output))
            yield number, output

    async def count_passes():
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count_passes())
    async with penstock.stream(range(100)).flat_map(some, concurrency=concurrency).open() as outputs:
        seen = 0
        async for _ in outputs:
            seen += 1
            assert seen <= len(made) <= seen + concurrency - 1
    counting.cancel()
    await asyncio.wait([counting])
    assert made == [(number, output) for number in range(100) for output in range(number % 4)]
    assert seen == len(made)
    assert len(tasks) == len({task for _, task in tasks}) == 75
    assert passes < 10


async def test_a_slow_reader_finds_the_next_output_made():
    """P1: one, while it was away; no more."""
    made = []

    async def many(number):
        for output in range(9):
            made.append(output)
            yield output

    async with penstock.stream(range(2)).flat_map(many).open() as outputs:
        for number in range(8):
            assert await anext(outputs) == number
            for _ in range(5):
                await asyncio.sleep(0)
            assert made == list(range(number + 2))


async def test_a_generator_that_cancels_its_task_fails_alone():
    """P8: it is the task of its input, also where a reader makes it go on."""

    async def cancels(number):
        yield number
        if number == 1:
            asyncio.current_task().cancel()
        yield number

    outputs = await read_all(penstock.stream(range(3)).flat_map(cancels, on_error="skip"))
    assert outputs[:2] == [0, 0]
    assert outputs[-2:] == [2, 2]


async def read_all(stream):
    async with stream.open() as outputs:
        return [output async for output in outputs]


async def test_a_deadline_inside_a_generator_is_its_own(clock):
    async def slow(number):
        yield number
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(60)
        yield -number

    assert await read_all(penstock.stream(range(1, 4)).flat_map(slow)) == [1, -1, 2, -2, 3, -3]
    assert clock.now == 15


@pytest.mark.parametrize("options", [{}, {"concurrency": 3}, {"concurrency": 3, "buffer": 4}])
async def test_turns_that_end_anywhere_lose_no_output(options, turn_clock):
    """P9: the generator pauses for others in the middle, whoever has made it go on."""
    turn_clock.step = lambda: 0.003

    async def many(number):
        for output in range(20):
            if output % 7 == 6:
                await asyncio.sleep(0)
            yield number, output

    outputs = penstock.stream(range(5)).flat_map(many, **options)
    expected = [(number, output) for number in range(5) for output in range(20)]
    assert await outputs.to_list() == expected
    assert await read_all(outputs) == expected
    assert await outputs.count() == 100


async def test_inputs_that_are_over_at_once_share_turns(turn_clock):
    """P9: they are opened one after the other while the turn lasts; a stage above that hands on does not look at it."""
    turn_clock.step = lambda: 0.001

    async def few(number):
        for _ in range(number % 3):
            yield number

    expected = [number for number in range(30) for _ in range(number % 3)]
    outputs = penstock.stream(range(30)).take(30).flat_map(few)
    assert await outputs.to_list() == expected
    assert await read_all(outputs) == expected


@pytest.mark.parametrize("buffer", [0, 1])
async def test_a_generator_behind_the_head_has_no_task_before_it_may_make_an_output(buffer):
    """P1, P4, P5: no part of it has run; leaving settles it as cancelled."""
    begun, idle, seen = [], len(asyncio.all_tasks()), 0

    async def some(number):
        begun.append(number)
        try:
            yield number
            yield number
        finally:
            begun.remove(number)

    async with penstock.stream(range(100)).flat_map(some, concurrency=4, buffer=buffer).open() as outputs:
        async for _ in outputs:
            seen += 1
            await asyncio.sleep(0)
            if seen > 40:  # by then calls are known to be quick
                tasks = len(asyncio.all_tasks()) - idle
                assert len(begun) <= tasks <= 2 + buffer  # one is timed: it stands by in a task
            if seen == 60:
                break
    stage = outputs.stats()[1]
    assert stage.delivered + stage.cancelled + stage.discarded == stage.taken <= 34
    assert (stage.in_flight, begun) == (0, [])
    assert stage.cancelled >= 2


async def test_a_failure_of_the_head_settles_generators_that_have_not_begun():
    """P5: their outcome is that they were cancelled."""

    async def fails(number):
        if number == 30:
            raise ValueError(number)
        yield number

    run = penstock.stream(range(99)).flat_map(fails, concurrency=5).open()
    with pytest.raises(ValueError, match="30"):
        async with run as outputs:
            async for _ in outputs:
                await asyncio.sleep(0)
    stage = run.stats()[1]
    assert (stage.in_flight, stage.delivered, stage.failed, stage.cancelled) == (0, 30, 1, stage.taken - 31)


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_cancelled_anext_loses_no_output_of_a_generator_that_waits(concurrency, clock):
    """P5, trap 20d: whichever step of the generator it hits."""

    async def some(number):
        await asyncio.sleep(1)
        yield number, 0
        await asyncio.sleep(1)
        yield number, 1

    seen = []
    async with penstock.stream(range(20)).flat_map(some, concurrency=concurrency).open() as outputs:
        while True:
            try:
                async with asyncio.timeout(0.7):
                    seen.append(await anext(outputs))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
    assert seen == [(number, output) for number in range(20) for output in range(2)]
    assert clock.now >= 40


async def test_an_async_iterator_need_not_be_iterable():
    class Pages:
        def __init__(self, number):
            self.left = number

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    class Site:
        def __init__(self, number):
            self.number = number

        def __aiter__(self):
            return Pages(self.number)

    assert await penstock.stream([3, 2]).flat_map(Site).to_list() == [2, 1, 0, 1, 0]


@both_orders
async def test_each_generator_has_its_own_context(ordered):
    """P5 of context variables: what one sets, no other sees, whoever makes it go on."""
    name = ContextVar("name", default="nobody")

    async def some(number):
        before = name.get()
        name.set(number)
        yield before
        yield name.get()

    numbers = await read_all(penstock.stream(range(20)).flat_map(some, concurrency=3, ordered=ordered))
    assert sorted(numbers, key=str) == sorted(["nobody"] * 20 + list(range(20)), key=str)
    assert name.get() == "nobody"


async def test_an_attempt_that_fails_where_a_pull_has_asked_for_its_output_is_repeated(clock):
    """P2: the permit that it was given while it waited for its next attempt is for that."""
    failed = set()

    async def some(number):
        if number not in failed:
            failed.add(number)
            raise OSError(number)
        yield number

    retry = penstock.Retry(on=OSError, attempts=2)
    outputs = penstock.stream(range(9)).flat_map(some, concurrency=2, retry=retry)
    assert await read_all(outputs) == list(range(9))
    assert failed == set(range(9))
