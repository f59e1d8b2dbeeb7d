"""`Limiter`: never more than the limit, first come first served, nothing lost to a cancellation."""

import asyncio
import functools
import re
from contextlib import AsyncExitStack, suppress

import pytest

import penstock
from penstock import Limiter, NestedLimitError, OptionError, WrongLoopError
from penstock.testing import Gauge

pytestmark = pytest.mark.grid


async def settled():
    """Let everything happen that does not need time."""
    for _ in range(5):
        await asyncio.sleep(0)


async def held(limiter, seconds, weight=1, log=None, name=None):
    async with limiter.hold(weight):
        if log is not None:
            log.append(name)
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("limit", [1, 3])
async def test_at_most_so_many_at_once(clock, limit):
    limiter, gauge = Limiter(limit), Gauge()

    async def work():
        async with limiter:
            await gauge.wrap(asyncio.sleep)(1)

    await asyncio.gather(*(work() for _ in range(12)))
    assert (gauge.peak, gauge.finished, clock.now) == (limit, 12, 12 / limit)
    assert (limiter.in_use, limiter.waiting, limiter.limit) == (0, 0, limit)


async def test_what_is_in_use_and_who_waits():
    limiter = Limiter(3)
    tasks = [asyncio.ensure_future(held(limiter, seconds, weight)) for seconds, weight in [(1, 2), (2, 2), (2, 1)]]
    await settled()
    assert (limiter.in_use, limiter.waiting) == (2, 2)
    await asyncio.sleep(1)
    await settled()
    assert (limiter.in_use, limiter.waiting) == (3, 0)
    await asyncio.gather(*tasks)
    assert (limiter.in_use, limiter.waiting) == (0, 0)


async def test_room_is_taken_without_giving_up_the_turn():
    """Nobody else runs in between where there is room."""
    limiter, ran = Limiter(1), []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    async with limiter:
        pass
    assert await limiter.run(len, "four") == 4
    assert ran == []


async def test_a_heavy_one_is_not_overtaken(clock):
    """Strict order: whoever fits behind a head that does not fit waits for it."""
    limiter, log = Limiter(3), []
    holds = [("first", 2), ("heavy", 3), ("light", 1), ("lighter", 1)]
    async with asyncio.TaskGroup() as group:
        for name, weight in holds:
            group.create_task(held(limiter, 1, weight, log, name))
    assert log == ["first", "heavy", "light", "lighter"]
    assert clock.now == 3.0


async def test_newcomers_do_not_starve_a_heavy_one(clock):
    """Ones that always overlap would never leave room for three at once."""
    limiter, log = Limiter(3), []

    async def light():
        for _ in range(20):
            await held(limiter, 1)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(light())
            await asyncio.sleep(0.3)
        async with limiter.hold(3):
            log.append(clock.now)
    assert log == [pytest.approx(1.6)]  # as soon as those that were there before it are through


async def test_who_gives_back_and_asks_again_goes_behind_those_that_wait():
    limiter, log = Limiter(1), []

    async def work(name):
        for _ in range(3):
            async with limiter:
                log.append(name)
                await asyncio.sleep(1)

    await asyncio.gather(work("a"), work("b"))
    assert log == ["a", "b"] * 3


# Cancellation


async def test_cancelled_while_waiting_it_holds_nothing(clock):
    limiter = Limiter(1)
    async with limiter:
        waiting = asyncio.ensure_future(held(limiter, 1))
        await settled()
        waiting.cancel()
        await settled()
        assert (limiter.in_use, limiter.waiting, waiting.cancelled()) == (1, 0, True)
    assert limiter.in_use == 0


async def test_cancelled_when_it_was_just_granted_it_hands_on():
    """A semaphore that forgets this loses a place for good, and whoever waits behind waits for ever."""
    limiter, log = Limiter(1), []
    await limiter.__aenter__()
    first, second = (asyncio.ensure_future(held(limiter, 0, 1, log, name)) for name in "ab")
    await settled()
    await limiter.__aexit__(None, None, None)
    first.cancel()
    await asyncio.wait([first, second])
    assert log == ["b"]
    assert (limiter.in_use, limiter.waiting) == (0, 0)


async def test_cancelled_before_it_is_granted_in_one_pass_it_is_passed_over():
    limiter, log = Limiter(1), []
    await limiter.__aenter__()
    first, second = (asyncio.ensure_future(held(limiter, 0, 1, log, name)) for name in "ab")
    await settled()
    first.cancel()
    await limiter.__aexit__(None, None, None)
    await asyncio.wait([first, second])
    assert log == ["b"]
    assert (limiter.in_use, limiter.waiting) == (0, 0)


async def test_when_a_heavy_head_is_cancelled_the_light_ones_behind_it_go():
    limiter, log = Limiter(2), []
    async with limiter:
        heavy = asyncio.ensure_future(held(limiter, 0, 2))
        light = asyncio.ensure_future(held(limiter, 0, 1, log, "light"))
        await settled()
        assert log == []
        heavy.cancel()
        await settled()
        assert log == ["light"]
        assert light.done()


async def test_nothing_piles_up_behind_one_that_holds_it_for_ever():
    """P7: a million waits that time out leave nothing in the line."""
    limiter = Limiter(1)
    async with limiter:
        for _ in range(300):
            waiting = asyncio.ensure_future(held(limiter, 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                await waiting
        assert limiter.waiting == 0


async def test_what_fails_inside_gives_back():
    limiter = Limiter(1)
    with pytest.raises(ZeroDivisionError):
        async with limiter:
            1 / 0  # noqa: B018 -- it raises
    with pytest.raises(ZeroDivisionError):
        await limiter.run(lambda: 1 / 0)
    assert limiter.in_use == 0


# Weights and sizes


async def test_a_weight_above_the_limit_is_refused_at_once():
    limiter = Limiter(3, name="memory")
    message = "weight must be at most the limit of Limiter(3, name='memory'), 3, got 4"
    with pytest.raises(OptionError, match=re.escape(message)):
        async with limiter.hold(4):
            pass
    assert limiter.in_use == 0


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "1", None])
async def test_numbers_are_whole(value):
    limiter = Limiter(3)
    with pytest.raises(OptionError, match=f"^n must be an int >= 1, got {value!r}$"):
        Limiter(value)
    with pytest.raises(OptionError, match=f"^limit must be an int >= 1, got {value!r}$"):
        limiter.limit = value
    with pytest.raises(OptionError, match=f"^weight must be an int >= 1, got {value!r}$"):
        limiter.hold(value)
    assert limiter.limit == 3


async def test_a_raised_limit_lets_in_at_once(clock):
    limiter, gauge = Limiter(1), Gauge()

    async def work():
        async with limiter:
            await gauge.wrap(asyncio.sleep)(10)

    tasks = [asyncio.ensure_future(work()) for _ in range(5)]
    await asyncio.sleep(1)
    assert gauge.now == 1
    limiter.limit = 4
    await settled()
    assert (gauge.now, limiter.waiting, clock.now) == (4, 1, 1.0)
    await asyncio.gather(*tasks)


async def test_a_lowered_limit_takes_nothing_away(clock):
    limiter, gauge = Limiter(4), Gauge()

    async def work(seconds):
        async with limiter:
            await gauge.wrap(asyncio.sleep)(seconds)

    tasks = [asyncio.ensure_future(work(seconds)) for seconds in (1, 2, 3, 4, 5, 5)]
    await settled()
    limiter.limit = 2
    seen = []
    for _ in range(5):
        await asyncio.sleep(1)
        await settled()
        seen.append(limiter.in_use)
    assert seen == [3, 2, 2, 2, 2]
    await asyncio.gather(*tasks)
    assert (gauge.finished, limiter.in_use, clock.now) == (6, 0, 9.0)


async def test_a_weight_that_no_longer_fits_goes_alone(clock):
    """Nothing hangs: it is granted when nothing else is in use, and those behind it wait."""
    limiter, log = Limiter(4), []
    async with asyncio.TaskGroup() as group:
        for name, weight in [("first", 2), ("second", 2), ("heavy", 3), ("last", 1)]:
            group.create_task(held(limiter, 1, weight, log, name))
        await settled()
        limiter.limit = 1
        await asyncio.sleep(1.5)
        assert log == ["first", "second", "heavy"]
        assert limiter.in_use == 3
    assert log[-1] == "last"
    assert (clock.now, limiter.in_use) == (3.0, 0)


# run


async def times(number, factor):
    await asyncio.sleep(0)
    return number * factor


@pytest.mark.parametrize(
    "fn",
    [times, lambda a, b: times(a, b), lambda a, b: a * b, functools.partial(times)],
    ids=["async", "lambda", "plain", "partial"],
)
async def test_run_awaits_what_comes_back(fn):
    limiter = Limiter(1)
    assert await asyncio.gather(*(limiter.run(fn, 2, number) for number in (3, 4))) == [6, 8]
    assert limiter.in_use == 0


async def test_run_holds_it_as_long_as_the_awaitable_takes():
    limiter, gauge = Limiter(2), Gauge()
    await asyncio.gather(*(limiter.run(gauge.wrap(asyncio.sleep), 1) for _ in range(6)))
    assert gauge.peak == 2


# Nested use


async def test_nested_use_by_one_task_raises_and_its_traceback_shows_both_places():
    limiter = Limiter(5, name="connections")

    async def inner():
        async with limiter:
            pass

    async with limiter:
        with pytest.raises(NestedLimitError) as raised:
            await inner()
    assert str(raised.value) == (
        "Limiter(5, name='connections') is held by this task already: taken further up in this traceback, asked for "
        f"again at {__file__}:{inner.__code__.co_firstlineno + 1}; it would wait for itself"
    )
    frames = [frame.name for frame in raised.traceback]
    assert frames[:2] == ["test_nested_use_by_one_task_raises_and_its_traceback_shows_both_places", "inner"]
    assert isinstance(raised.value, penstock.PenstockError)
    assert isinstance(raised.value, RuntimeError)
    assert limiter.in_use == 0


@pytest.mark.parametrize("outer", ["with", "hold", "run"])
@pytest.mark.parametrize("inner", ["with", "hold", "run"])
async def test_every_way_in_counts(outer, inner):
    limiter = Limiter(9)

    async def enter(way, fn):
        if way == "run":
            return await limiter.run(fn)
        async with limiter if way == "with" else limiter.hold(2):
            return await fn()

    with pytest.raises(NestedLimitError, match=rf"taken further up .*, asked for again at {re.escape(__file__)}:\d+;"):
        await enter(outer, lambda: enter(inner, settled))
    assert limiter.in_use == 0
    await enter(outer, settled)


async def test_another_task_may_hold_it_as_well():
    limiter = Limiter(2)
    async with limiter:
        await asyncio.create_task(held(limiter, 1))
    assert limiter.in_use == 0


async def test_one_after_the_other_is_not_nested():
    limiter, other = Limiter(1), Limiter(1)
    for _ in range(3):
        async with limiter, other:
            pass


async def test_a_wait_that_was_cancelled_does_not_count_as_held():
    limiter, go_on = Limiter(1), asyncio.Event()

    async def impatient():
        with suppress(TimeoutError):
            async with asyncio.timeout(1), limiter:
                pass
        go_on.set()
        async with limiter:
            return "held"

    async with limiter:
        task = asyncio.ensure_future(impatient())
        await go_on.wait()
    assert await task == "held"


async def test_another_task_may_close_what_holds_it():
    """An async generator is closed by whoever comes last; the limiter is given back all the same."""
    limiter = Limiter(1)

    async def numbers():
        async with limiter:
            yield 1
            yield 2

    generator = numbers()
    await anext(generator)
    assert limiter.in_use == 1
    await asyncio.create_task(generator.aclose())
    assert limiter.in_use == 0
    async with limiter:
        assert limiter.in_use == 1


async def test_a_hold_of_an_exit_stack():
    limiter = Limiter(3)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(limiter.hold(3))
        assert limiter.in_use == 3
    assert limiter.in_use == 0


# Loops


def test_another_loop_is_refused_by_name(run):
    limiter = Limiter(2, name="sockets")
    run(held(limiter, 1))
    for use in (limiter.run(len, ""), held(limiter, 1)):
        with pytest.raises(
            WrongLoopError, match=r"Limiter\(2, name='sockets'\) belongs to the event loop of its first"
        ):
            run(use)
    assert limiter.in_use == 0


def test_it_can_be_made_and_set_without_a_loop(run):
    limiter = Limiter(2)
    limiter.limit = 5
    run(held(limiter, 1, 5))


@pytest.mark.parametrize("name", ["", 3])
def test_its_name_is_a_text(name):
    with pytest.raises(OptionError, match=r"^name must be a non-empty str, got"):
        Limiter(1, name=name)


async def cost_later(item):
    return 1


@pytest.mark.parametrize(("cost", "rule"), [(3, "be callable"), (cost_later, "be a plain function")])
def test_a_cost_is_a_plain_function(cost, rule):
    with pytest.raises(OptionError, match=f"^cost must {rule}, got"):
        Limiter(1, cost=cost)
