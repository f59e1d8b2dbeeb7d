"""What a prompt and a log show of streams and runs: a line, whatever they hold."""

import asyncio
import functools
import gc
import inspect
import warnings
from collections.abc import Sized

import pytest

import penstock
from penstock.tasks import gather


async def fetch(item):
    return item


def is_html(item):
    return True


class Hostile:
    """Whatever is asked of it raises."""

    def __repr__(self):
        raise RuntimeError("repr")

    __str__ = __len__ = __bool__ = __repr__

    def __iter__(self):
        return iter(())

    def __call__(self, item=None):
        return item


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (penstock.stream([1] * 9), "stream(list of 9)"),
        (penstock.stream(range(9)), "stream(range(0, 9))"),
        (penstock.stream("abc"), "stream(str of 3)"),
        (penstock.stream(fetch for _ in "ab"), "stream(<genexpr>)"),
        (penstock.stream(list), "stream(list)"),
        (penstock.stream([], engine="thread"), "stream(list of 0, engine='thread')"),
        (penstock.keyed([1], key=int), "keyed(list of 1, key=int)"),
        (
            penstock.stream([1]).map(fetch, concurrency=8, buffer=2, timeout=3, ordered=False, on_error="skip"),
            "stream(list of 1).map(fetch, concurrency=8, ordered=False, buffer=2, timeout=3.0, on_error='skip')",
        ),
        (penstock.stream([1]).map(functools.partial(fetch), name="get"), "stream(list of 1).map(fetch, name='get')"),
        (
            penstock.stream([1]).map(fetch, concurrency=8).filter(is_html).take(3),
            "stream(list of 1).map(fetch, concurrency=8).filter(is_html).take(3)",
        ),
        (penstock.stream([1]).map_batches(list, 64).flatten(), "stream(list of 1).map_batches(list, 64).flatten()"),
        (penstock.stream([1]).skip(2).distinct(key=str), "stream(list of 1).skip(2).distinct(str)"),
        (penstock.stream([1]).take_while(is_html), "stream(list of 1).take_while(is_html)"),
        (penstock.stream([1]).batch(2).enumerate().prefetch(3), "stream(list of 1).batch(2).enumerate().prefetch(3)"),
        (penstock.stream([1]).merge(penstock.stream("a")), "merge(stream(list of 1), stream(str of 1))"),
        (penstock.stream([1]).zip(penstock.stream("a")), "zip(stream(list of 1), stream(str of 1))"),
        (penstock.stream([1]).chain(penstock.stream("a")), "chain(stream(list of 1), stream(str of 1))"),
        (penstock.stream(Hostile()).map(Hostile()), "stream(Hostile).map(Hostile)"),
    ],
)  # fmt: skip
def test_a_stream_says_what_it_is(stream, text):
    assert repr(stream) == text


def lines_of(*shown):
    for each in shown:
        text = repr(each)
        assert "\n" not in text
        assert text.isprintable()
        assert len(text) <= 500
        yield text


def test_it_is_one_line_however_long_the_stream_is():
    stream = penstock.stream([b"x" * 10**6] * 10**6)
    for _ in range(100):
        stream = stream.map(fetch, name="a\nname\x1b[31m" * 50).merge(penstock.stream(Hostile()))

    async def main():
        async with stream.open() as run:
            return list(lines_of(stream, run, run.stats(), run.stats()[0] if run.stats() else run))

    assert list(asyncio.run(main()))


async def test_a_run_says_how_far_it_is():
    run = penstock.stream("abc").map(fetch).open()
    assert repr(run) == "<Run not begun, of stream(str of 3).map(fetch)>"
    async with run as items:
        await anext(items)
        assert repr(run) == "<Run going on, 1 handed on, of stream(str of 3).map(fetch)>"
    assert repr(run) == "<Run over, 1 handed on, of stream(str of 3).map(fetch)>"
    stats = run.stats()
    assert repr(stats).startswith("<Stats 0.0 s; source: ")
    assert "map(fetch): " in repr(stats)
    assert repr(stats["source"]).startswith("<StageStats source: ")


def test_a_sync_run():
    with penstock.stream("abc").sync() as items:
        next(items)
        assert repr(items) == "<SyncRun going on, 1 handed on, of stream(str of 3)>"


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (penstock.Retry(on=OSError), "Retry(on=OSError)"),
        (penstock.Retry(on=(OSError, ValueError), attempts=5), "Retry(on=OSError | ValueError, attempts=5)"),
        (penstock.Retry(on=is_html, wait=lambda _: 1), "Retry(on=is_html, wait=<lambda>)"),
        (penstock.Retry(on=Hostile()), "Retry(on=Hostile)"),
        (penstock.Limiter(3), "Limiter(3)"),
        (penstock.RateLimit(3, 1, name="tokens"), "RateLimit(3, 1, name='tokens')"),
    ],
)  # fmt: skip
def test_retries_and_limits(made, text):
    assert repr(made) == text
    assert list(lines_of(made))


def here():
    return inspect.currentframe().f_back.f_lineno


@pytest.mark.parametrize("way", ["open", "iter"])
async def test_an_abandoned_stream_is_warned_of_at_the_line_that_opened_it(way):
    async def leave():
        if way == "open":
            items = penstock.stream(range(9)).map(fetch).open()
            line = here() - 1
            await anext(items)
            return line
        async for _ in penstock.stream(range(9)).map(fetch):
            line = here() - 1
            break
        return line

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = await leave()
        gc.collect()
        await asyncio.sleep(1)
    (warning,) = [each for each in caught if each.category is penstock.UnclosedStreamWarning]
    assert (warning.filename, warning.lineno) == (__file__, line)


async def test_each_abandoned_stream_is_warned_of():
    """By default Python shows a warning of a line once; here each run is a leak of its own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            items = penstock.stream(range(9)).open()
            await anext(items)
            del items
            gc.collect()
        await asyncio.sleep(1)
    assert len(caught) == 3


async def test_work_that_was_left_behind_is_warned_of_where_its_run_was_opened():
    async def stubborn(_):
        try:
            await asyncio.sleep(99)
        except asyncio.CancelledError:
            await asyncio.sleep(9)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        items = penstock.stream([1]).map(stubborn).open(grace=1)
        line = here() - 1
        async with items:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(items), 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                at = here() + 1
                await gather([lambda: stubborn(1)], concurrency=1, grace=1)
        await asyncio.sleep(99)
    assert [(each.filename, each.lineno) for each in caught] == [(__file__, line), (__file__, at)]


def test_nothing_of_a_source_is_asked_for_its_text():
    assert isinstance(Hostile(), Sized)
    assert repr(penstock.stream(Hostile())) == "stream(Hostile)"
