"""What trio's tests of `as_safe_channel` ask, of a stream over an async generator: the reader and it never mix."""

import asyncio

import pytest

import penstock


async def test_a_generator_is_read_to_its_end():
    async def source():
        yield 1

    async with penstock.stream(source).open() as items:
        assert [item async for item in items] == [1]


async def test_reading_after_aclose_is_the_end():
    """Ours ends where a channel raises; leaving the block raises nothing either way."""

    async def source():
        yield 1
        yield 2

    async with penstock.stream(source).open() as items:
        assert await anext(items) == 1
        await items.aclose()
        assert await anext(items, "the end") == "the end"


async def test_a_block_that_is_cancelled_before_it_reads_reads_nothing():
    begun = []

    async def source():
        begun.append(True)
        yield

    async def block():
        async with penstock.stream(source).open():
            asyncio.current_task().cancel()

    task = asyncio.create_task(block())
    await asyncio.wait([task])
    assert not begun


async def test_closing_while_the_generator_waits():
    event = asyncio.Event()

    async def source():
        await event.wait()
        yield 1

    async with penstock.stream(source).open() as items:
        waiting = asyncio.create_task(anext(items, "the end"))
        await asyncio.sleep(1)
        await items.aclose()
        event.set()
        assert await waiting == "the end"


async def test_an_error_after_an_item_is_raised_as_itself():
    async def source():
        yield 1
        raise ValueError("mine")

    seen = []
    with pytest.raises(ValueError, match="mine") as raised:
        async with penstock.stream(source).open() as items:
            async for item in items:
                seen.append(item)  # noqa: PERF401 -- what came before the error counts
    assert seen == [1]
    assert (type(raised.value), str(raised.value)) == (ValueError, "mine")


@pytest.mark.parametrize("pause", [0, 3600])
async def test_the_generator_is_not_asked_for_more_than_is_read(pause):
    """However long the reader takes, and also if it never asks again."""
    asked = []

    async def source():
        yield 1
        asked.append(True)
        yield 2

    async with penstock.stream(source).open() as items:
        assert await anext(items) == 1
        await asyncio.sleep(pause)
        assert not asked


async def test_an_error_of_the_body_and_one_of_the_cleanup():
    """The generator sees the closing; the body's error is raised, and that of the cleanup stands in its notes."""
    events = []

    async def source():
        try:
            yield 1
        except BaseException as error:
            events.append(repr(error))
            raise
        finally:
            events.append("finally")
            raise ValueError("of the generator")

    with pytest.raises(TypeError, match="of the body") as raised:
        async with penstock.stream(source).open() as items:
            async for _ in items:
                raise TypeError("of the body")
    assert events == ["GeneratorExit()", "finally"]
    assert "of the generator" in "\n".join(raised.value.__notes__)


async def test_a_loop_within_a_loop_over_one_stream():
    async def source():
        for number in range(2):
            yield number

    numbers, seen = penstock.stream(source), []
    async with numbers.open() as outer:
        async for one in outer:
            async with numbers.open() as inner:
                seen += [(one, other) async for other in inner]
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1)]


async def test_a_timeout_inside_the_generator_does_not_cancel_the_reader():
    async def source():
        yield 1
        try:
            async with asyncio.timeout(0.5):
                yield 2
                await asyncio.sleep(60)
        except TimeoutError:
            yield 3

    async with penstock.stream(source).open() as items:
        assert [item async for item in items] == [1, 2, 3]
    assert asyncio.current_task().cancelling() == 0


async def test_a_timeout_that_runs_out_while_its_generator_is_suspended_fails_the_run():
    """PEP 789: it cancels whoever reads the generator. That is a task of ours, and the reader gets an error."""

    async def source():
        async with asyncio.timeout(0.5):
            yield 1
            yield 2

    async with penstock.stream(source).open() as items:
        assert await anext(items) == 1
        await asyncio.sleep(1)
        with pytest.raises(penstock.WorkRaised) as raised:
            await anext(items)
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)
    assert asyncio.current_task().cancelling() == 0


async def test_an_exception_group_of_the_body_stays_what_it_is():
    async def source():
        yield 1

    group = ExceptionGroup("mine", [ValueError("one of them")])
    with pytest.raises(ExceptionGroup) as raised:
        async with penstock.stream(source).open():
            raise group
    assert raised.value is group
    assert raised.value.exceptions[0].args == ("one of them",)


async def test_a_cancelled_body_does_not_cancel_the_cleanup_of_the_generator():
    """Trio cancels both; here the cleanup is awaited, and the cancellation goes on after it (P4)."""
    events = []

    async def source():
        try:
            yield 1
        finally:
            await asyncio.sleep(1)
            events.append("cleaned up")

    async def block():
        async with penstock.stream(source).open() as items:
            async for _ in items:
                asyncio.current_task().cancel()
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    events.append("body cancelled")
                    raise

    task = asyncio.create_task(block())
    await asyncio.wait([task])
    assert task.cancelled()
    assert events == ["body cancelled", "cleaned up"]


async def test_a_task_group_round_the_yield_says_nothing_of_being_closed():
    """It wraps the GeneratorExit of the closing in a group, which is no error of the generator."""
    ended = []

    async def waits():
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def source():
        async with asyncio.TaskGroup() as group:
            group.create_task(waits())
            yield 1
            yield 2

    async with penstock.stream(source).open() as items:
        async for _ in items:
            await asyncio.sleep(1)
            break
    assert ended == [True]


async def test_what_else_a_task_group_raises_when_it_is_closed_is_raised():
    """Without the GeneratorExit that only says that it was closed."""

    async def fails_when_cancelled():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ValueError("mine") from None

    async def source():
        async with asyncio.TaskGroup() as group:
            group.create_task(fails_when_cancelled())
            yield 1

    with pytest.raises(ExceptionGroup) as raised:
        async with penstock.stream(source).open() as items:
            async for _ in items:
                await asyncio.sleep(1)
                break
    assert [error.args for error in raised.value.exceptions] == [("mine",)]


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_generator_exit_of_the_body_is_not_suppressed(grouped):
    async def source():
        yield 1

    error = BaseExceptionGroup("mine", [GeneratorExit()]) if grouped else GeneratorExit()
    with pytest.raises(type(error)) as raised:
        async with penstock.stream(source).open() as items:
            await anext(items)
            raise error
    assert raised.value is error


async def test_a_generator_that_closes_the_run_that_reads_it():
    """It is inside of what it would wait for: that is refused at once, and is its failure."""
    run, closed = None, []

    async def source():
        try:
            yield 1
            await run.aclose()
        finally:
            closed.append(True)

    run = penstock.stream(source).open(grace=1)
    async with run as items:
        assert await anext(items) == 1
        with pytest.raises(penstock.ConcurrentReadError, match="would wait for itself"):
            await anext(items)
    assert closed == [True]
