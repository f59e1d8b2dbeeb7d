"""Sources: what can be one, how it is read, and how it is closed."""

import asyncio
import collections
import io
import itertools

import pytest

import penstock
from penstock.testing import Gauge, Scripted

grid = pytest.mark.grid


async def async_numbers():
    for number in range(3):
        await asyncio.sleep(0)
        yield number


def numbers():
    yield from range(3)


class AsyncIterable:
    def __aiter__(self):
        return async_numbers()


class Iterator:
    """A bare iterator, without `close`."""

    def __init__(self):
        self._numbers = iter(range(3))

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._numbers)


class AsyncIterator:
    """A bare async iterator, without `aclose`."""

    def __init__(self):
        self._numbers = iter(range(3))

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return next(self._numbers)
        except StopIteration:
            raise StopAsyncIteration from None


@grid
@pytest.mark.parametrize(
    "make",
    [
        lambda: [0, 1, 2],
        lambda: (0, 1, 2),
        lambda: range(3),
        lambda: {0: "a", 1: "b", 2: "c"},
        {0: "a", 1: "b", 2: "c"}.keys,
        {"a": 0, "b": 1, "c": 2}.values,
        lambda: collections.deque([0, 1, 2]),
        lambda: iter([0, 1, 2]),
        lambda: map(int, "012"),
        lambda: (number for number in range(3)),
        Iterator,
        AsyncIterator,
        AsyncIterable,
        async_numbers,
        lambda: numbers,
        lambda: async_numbers,
        lambda: AsyncIterable,
        lambda: lambda: [0, 1, 2],
        lambda: itertools.islice(itertools.count(), 3),
        lambda: Scripted(range(3)),
        lambda: Scripted(range(3)).sync(),
        lambda: penstock.stream(range(3)),
    ],
)
async def test_a_source_is_anything_to_iterate_over(make):
    assert await penstock.stream(make()).to_list() == [0, 1, 2]
    assert await penstock.stream(make()).map(lambda number: number, concurrency=2).to_list() == [0, 1, 2]


@grid
async def test_each_item_of_a_list_is_an_item():
    assert await penstock.stream(["ab", ["c"]]).to_list() == ["ab", ["c"]]
    assert await penstock.stream("ab").to_list() == ["a", "b"]
    assert await penstock.stream(b"ab").to_list() == [97, 98]
    assert await penstock.stream({"a": 1}.items()).to_list() == [("a", 1)]


@grid
@pytest.mark.parametrize("make", [list, tuple, iter, lambda items: lambda: items, Scripted])
async def test_an_empty_source(make):
    stream = penstock.stream(make([])).map(str, concurrency=2).batch(3)
    async with stream.open() as items:
        assert [item async for item in items] == []
    assert [stage.taken for stage in items.stats()] == [0, 0, 0]


@grid
async def test_a_file_is_read_and_closed():
    file = io.StringIO("one\ntwo\n")
    assert await penstock.stream(file).map(str.strip, concurrency=2).to_list() == ["one", "two"]
    assert file.closed
    file = io.StringIO("one\ntwo\n")
    assert await penstock.stream(file).first() == "one\n"
    assert file.closed


@grid
@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_iterator_passed_in_is_closed(asynchronous, leave):
    """P4: once, in the task that has read it."""
    closed = []

    def plain():
        try:
            yield from range(5)
        finally:
            closed.append("plain")

    async def coroutine():
        try:
            for number in range(5):
                yield number
        finally:
            await asyncio.sleep(0)
            closed.append("async")

    source = coroutine() if asynchronous else plain()
    async with penstock.stream(source).open() as items:
        async for _ in items:
            if leave:
                break
    assert closed == ["async" if asynchronous else "plain"]


@grid
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_iterator_passed_in_is_closed_unread(asynchronous):
    """P4: a run that was entered closes what it was given, though nobody asked for an item."""
    closed = []

    class Plain(Iterator):
        def close(self):
            closed.append(True)

    class Async(AsyncIterator):
        async def aclose(self):
            closed.append(True)

    async with penstock.stream(Async() if asynchronous else Plain()).open():
        pass
    assert closed == [True]


@grid
async def test_an_iterator_that_is_falsy_is_closed():
    """P6: its truth value says nothing."""
    closed = []

    class Falsy(Iterator):
        def __len__(self):
            return 0

        def close(self):
            closed.append(True)

    class Gives:
        def __iter__(self):
            return Falsy()

    assert await penstock.stream(Falsy()).to_list() == [0, 1, 2]
    assert await penstock.stream(Gives()).to_list() == [0, 1, 2]
    assert closed == [True, True]


@grid
async def test_a_list_is_not_closed():
    class Closable(list):
        def close(self):
            raise AssertionError("a list is no iterator")

    assert await penstock.stream(Closable([1])).to_list() == [1]


@grid
@pytest.mark.parametrize("make", [lambda: iter([1]), numbers, async_numbers, Iterator, AsyncIterator])
async def test_an_iterator_is_read_once(make):
    """A second run raises instead of finding nothing."""
    source = make()
    stream = penstock.stream(source).map(str)
    await stream.to_list()
    with pytest.raises(penstock.SourceConsumedError, match="is an iterator and has been read already"):
        await stream.to_list()
    with pytest.raises(penstock.SourceConsumedError):
        stream.open()
    with pytest.raises(penstock.SourceConsumedError):
        aiter(stream)


@grid
async def test_two_runs_over_one_iterator_are_refused():
    """Also when both were opened before either was read."""
    stream = penstock.stream(iter([1, 2]))
    first, second = stream.open(), stream.open()
    async with first:
        with pytest.raises(penstock.SourceConsumedError):
            await second.__aenter__()
        assert [item async for item in first] == [1, 2]


@grid
@pytest.mark.parametrize("make", [numbers, async_numbers])
async def test_a_generator_that_was_closed_is_refused(make):
    source = make()
    close = getattr(source, "aclose", None)
    if close is None:
        source.close()
    else:
        await close()
    with pytest.raises(penstock.SourceConsumedError):
        penstock.stream(source).open()


@grid
@pytest.mark.parametrize(
    "source", [[1, 2], lambda: iter([1, 2]), Scripted([1, 2])], ids=["list", "function", "iterable"]
)
async def test_a_repeatable_source_is_read_anew(source):
    stream = penstock.stream(source).map(lambda number: number * 10)
    assert [await stream.to_list() for _ in range(3)] == [[10, 20]] * 3


@grid
async def test_a_function_is_called_once_per_run():
    calls = []

    def source():
        calls.append(True)
        return [1]

    stream = penstock.stream(source)
    run = stream.open()
    assert calls == []
    await run.aclose()
    assert calls == []
    await stream.to_list()
    await stream.to_list()
    assert len(calls) == 2


@grid
@pytest.mark.parametrize("value", [None, 3, object()])
async def test_a_function_that_returns_no_iterable(value):
    with pytest.raises(penstock.OptionError) as raised:
        await penstock.stream(lambda: value).to_list()
    assert str(raised.value) == f"the source function must return an iterable or an async iterable, got {value!r}"


@grid
async def test_a_function_that_raises():
    def source():
        raise ConnectionError("no source")

    with pytest.raises(ConnectionError, match="no source"):
        await penstock.stream(source).map(str, concurrency=2).to_list()


def test_an_async_function_is_no_source():
    async def source():
        return [1]

    with pytest.raises(penstock.OptionError, match="source must be an iterable"):
        penstock.stream(source)


@grid
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", ["iter raises", "next raises", "iter gives nonsense"])
async def test_an_error_of_the_source_is_its_failure(kind, asynchronous):
    """P5: raised as itself, with the number of items that came before."""

    class Source:
        def __iter__(self):
            if kind == "iter raises":
                raise ConnectionError(kind)
            return 3 if kind == "iter gives nonsense" else self

        def __next__(self):
            raise ConnectionError(kind)

    class AsyncSource:
        def __aiter__(self):
            return Source.__iter__(self)

        async def __anext__(self):
            raise ConnectionError(kind)

    with pytest.raises(TypeError if kind == "iter gives nonsense" else ConnectionError) as raised:
        await penstock.stream(AsyncSource() if asynchronous else Source()).map(str).to_list()
    assert raised.value.__notes__ == ["penstock: stage 'source', item 0"]


@grid
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_source_that_fails_is_closed(asynchronous):
    script = Scripted(range(9), fail_at=3)
    with pytest.raises(RuntimeError, match="the script fails at item 3"):
        await penstock.stream(script if asynchronous else script.sync()).to_list()
    assert (script.taken, script.closed) == (3, 1)


@grid
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_error_of_closing(asynchronous):
    """P4: raises from leaving, or becomes a note of the error that is on its way."""

    def source(**script):
        scripted = Scripted(range(3), close_error=OSError("closing"), **script)
        return scripted if asynchronous else scripted.sync()

    with pytest.raises(OSError, match="closing"):
        await penstock.stream(source()).to_list()
    with pytest.raises(OSError, match="closing"):
        await penstock.stream(source()).first()
    with pytest.raises(RuntimeError, match="the script fails at item 2") as raised:
        await penstock.stream(source(fail_at=2)).to_list()
    assert "closing" in "\n".join(raised.value.__notes__)


@grid
async def test_the_source_is_never_read_ahead_of_a_free_place():
    """P2: without work on top of it, only what is asked for is read."""
    source = Scripted(range(9))
    async with penstock.stream(source).open() as items:
        for count in (1, 2, 3):
            await anext(items)
            await asyncio.sleep(60)
            assert source.taken == count


@grid
async def test_sources_that_raise_exits():
    """The run ends as the program would."""

    def source():
        yield 1
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await penstock.stream(source).to_list()


@grid
async def test_a_cancellation_from_outside_leaves_no_source_open():
    """P4: somebody cancels all tasks, as `asyncio.run` does at its end: the source is closed all the same."""
    source = Scripted(range(9), delay=lambda index: None if index < 2 else 60.0)
    mine = asyncio.all_tasks()
    items = penstock.stream(source).map(asyncio.sleep).open()
    await anext(items)
    for task in asyncio.all_tasks() - mine:
        task.cancel()
    with pytest.raises(penstock.WorkRaised):
        async for _ in items:
            pass
    assert source.closed == 1


@grid
async def test_a_source_reads_another_stream():
    """P4: leaving the outer run closes the inner one, in the task that has opened it."""
    inner, gauge = Scripted(range(9)), Gauge()

    async def slow(number):
        await asyncio.sleep(1)
        return number

    async def source():
        async with penstock.stream(inner).map(gauge.wrap(slow), concurrency=3).open() as items:
            async for item in items:
                yield item

    async with penstock.stream(source).map(slow, concurrency=2).open() as items:
        assert [await anext(items), await anext(items)] == [0, 1]
    assert gauge.now == 0
    assert inner.closed == 1
    assert inner.pulled_by == {inner.closed_by}


async def test_a_cancellation_that_a_source_raises_is_blamed_on_it():
    """A timeout round a `yield` goes off while the consumer has the item: it cancels the source, where it can."""

    async def ticks():
        for tick in range(3):
            async with asyncio.timeout(1):
                yield tick

    async with penstock.stream(ticks).open() as items:
        assert await anext(items) == 0
        await asyncio.sleep(2)
        with pytest.raises(penstock.WorkRaised, match=r"the source raised CancelledError"):
            while True:
                await anext(items)
