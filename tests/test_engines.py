"""Engines: what stands behind `engine=`, one contract for all; those of a third party, shared ones, their end."""

import asyncio
import contextvars
import os
import signal
import threading
import warnings
from functools import partial

import pytest

import penstock
from penstock import tasks
from penstock.engines import Answer, Call, Engine, Threads, answer, choosing
from penstock.engines.engine import Slots

from .grouping import Grouping

grid = pytest.mark.grid


class Elsewhere(Engine):
    """Of a third party: a call takes `takes` seconds before anything comes, and is killed in `dies` seconds."""

    def __init__(self, slots=2, *, takes=1.0, dies=0.0, closes=0.0):
        self.takes, self.dies, self.closes = takes, dies, closes
        self.count = slots
        self.under_way = {}
        self.peak = 0
        self.killed = 0
        self.prepared = []
        self.graces = []
        self.closed = self.abandoned = False

    def prepare(self, fn, /):
        self.prepared.append(fn)
        return len(self.prepared) - 1

    def submit(self, calls, /):
        assert not self.closed
        loop = asyncio.get_running_loop()
        answers = loop.create_future()
        self.under_way[answers] = loop.call_later(self.takes, self._run, answers, calls)
        self.peak = max(self.peak, len(self.under_way))
        return answers

    def _run(self, answers, calls):
        self._over(answers, [answer(self.prepared[call.fn], call.arguments, call.most) for call in calls])

    def _over(self, answers, result):
        del self.under_way[answers]
        answers.set_result(result)

    def stop(self, answers, /):
        self.killed += 1
        self.under_way[answers].cancel()
        dead = [Answer(error=asyncio.CancelledError())]
        if not self.dies:
            self._over(answers, dead)
        else:
            self.under_way[answers] = asyncio.get_running_loop().call_later(self.dies, self._over, answers, dead)

    def slots(self):
        return self.count

    def describe(self):
        return f"Elsewhere({self.count})"

    async def aclose(self, grace=5.0):
        self.graces.append(grace)
        assert not (grace and self.under_way)
        await asyncio.sleep(self.closes)
        self.closed = True

    def abandon(self):
        self.abandoned = True


ENGINES = {
    "own threads": lambda: "thread",
    "threads": lambda: Threads(2),
    "elsewhere": Elsewhere,
    "in groups": lambda: Grouping(2, depth=2),
}
engines = pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)


class Used:
    """An engine for a test, closed at its end."""

    def __init__(self, make):
        self.engine = make()

    async def __aenter__(self):
        return self.engine

    async def __aexit__(self, *_):
        if isinstance(self.engine, Engine):
            await self.engine.aclose()
            with pytest.raises(AssertionError if isinstance(self.engine, Elsewhere) else penstock.OptionError):
                self.engine.submit([Call(0, ())])


def double(number):
    return 2 * number


def is_odd(number):
    return number % 2


def twice(number):
    yield number
    yield number


def doubled(numbers):
    for number in numbers:
        yield 2 * number


NUMBERS = list(range(7))
OPERATORS = {
    "map": (lambda items, **options: items.map(double, **options), [0, 2, 4, 6, 8, 10, 12]),
    "filter": (lambda items, **options: items.filter(is_odd, **options), [1, 3, 5]),
    "tap": (lambda items, **options: items.tap(double, **options), NUMBERS),
    "flat_map": (lambda items, **options: items.flat_map(twice, **options), [n for n in NUMBERS for _ in range(2)]),
    "map_batches": (lambda items, **options: items.map_batches(doubled, 3, **options), [0, 2, 4, 6, 8, 10, 12]),
}
operators = pytest.mark.parametrize(("build", "expected"), OPERATORS.values(), ids=OPERATORS)


@grid
@engines
@operators
@pytest.mark.parametrize("ordered", [True, False])
async def test_every_operator_on_every_engine(make, build, expected, ordered, clock):
    """P3, P12."""
    async with Used(make) as engine:
        stream = build(penstock.stream(NUMBERS), engine=engine, concurrency=3, ordered=ordered, buffer=2)
        results = await stream.to_list()
        assert (results if ordered else sorted(results)) == expected


@grid
@engines
async def test_errors_are_those_of_the_function(make, clock):
    """P5: the object itself; other items are not touched."""
    error = KeyError("mine")

    def fails(number):
        if number == 3:
            raise error
        return number

    async with Used(make) as engine:
        stream = penstock.stream(NUMBERS).map(fails, engine=engine, concurrency=2, on_error="collect")
        async with stream.open() as items:
            assert [item async for item in items] == [0, 1, 2, 4, 5, 6]
        assert [failed.error for failed in items.failures] == [error]
        assert items.stats()[-1].in_flight == 0
        with pytest.raises(KeyError) as raised:
            await penstock.stream(NUMBERS).map(fails, engine=engine, concurrency=2).to_list()
        assert raised.value is error


@grid
@engines
@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError])
async def test_control_flow_raised_by_work_is_a_failure(make, kind, clock):
    """P5."""

    def fails(_):
        raise kind("mine")

    async with Used(make) as engine:
        with pytest.raises(penstock.WorkRaised) as raised:
            await penstock.stream([1]).map(fails, engine=engine).to_list()
        assert isinstance(raised.value.__cause__, kind)


@grid
@engines
async def test_what_fails_is_tried_again(make, clock):
    tried = []

    def fails_once(number):
        tried.append(number)
        if tried.count(number) == 1:
            raise OSError("once")
        return number

    retry = penstock.Retry(on=OSError, jitter=0)
    async with Used(make) as engine:
        stream = penstock.stream(NUMBERS).map(fails_once, engine=engine, concurrency=2, retry=retry)
        assert await stream.to_list() == NUMBERS
    assert sorted(tried) == sorted(2 * NUMBERS)


@grid
@engines
async def test_an_awaitable_that_comes_back_is_awaited(make, clock):
    async def later(number):
        await asyncio.sleep(1)
        return number

    async with Used(make) as engine:
        stream = penstock.stream(NUMBERS).map(lambda number: later(number), engine=engine, concurrency=2)
        assert await stream.to_list() == NUMBERS


@grid
@engines
async def test_leaving_leaves_nothing_under_way(make, clock):
    """P4."""
    async with Used(make) as engine:
        stream = penstock.stream(NUMBERS).map(double, engine=engine, concurrency=3)
        async with stream.open() as items:
            assert await anext(items) == 0
        assert items.stats()[-1].in_flight == 0
        if isinstance(engine, Elsewhere):
            assert not engine.under_way
            assert not engine.closed


@grid
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_timeout_of_a_call_that_can_be_killed(ordered, clock):
    """The item fails at its deadline; its place is taken until the engine says that it is over."""
    engine = Elsewhere(1, takes=10, dies=2)
    stream = penstock.stream(range(2)).map(double, engine=engine, timeout=3, on_error="collect", ordered=ordered)
    async with stream.open() as items:
        assert [item async for item in items] == []
    assert [str(failed.error) for failed in items.failures] == ["timed out after 3 s"] * 2
    assert all(isinstance(failed.error, penstock.AttemptTimeout) for failed in items.failures)
    assert clock.now == 2 * (3 + 2)
    assert engine.killed == 2
    assert engine.peak == 1


@grid
async def test_a_retry_waits_for_the_call_before_it(clock):
    engine = Elsewhere(1, takes=10, dies=2)
    retry = penstock.Retry(on=penstock.AttemptTimeout, attempts=2, initial=1, jitter=0)
    with pytest.raises(penstock.AttemptTimeout):
        await penstock.stream([1]).map(double, engine=engine, timeout=3, retry=retry, concurrency=2).to_list()
    assert engine.peak == 1
    assert clock.now == 3 + 2 + 1 + 3 + 2


@grid
async def test_waiting_for_a_slot_is_no_part_of_the_timeout(clock):
    engine = Elsewhere(1, takes=3)
    stream = penstock.stream(range(4)).map(double, engine=engine, concurrency=4, timeout=4)
    assert await stream.to_list() == [0, 2, 4, 6]
    assert clock.now == 12


@grid
async def test_leaving_waits_for_a_call_that_is_being_killed(clock):
    """P4."""
    engine = Elsewhere(3, takes=1, dies=2)
    async with penstock.stream(range(9)).map(double, engine=engine).open() as items:
        assert await anext(items) == 0
        await asyncio.sleep(0.5)
    assert not engine.under_way
    assert clock.now == 3.5


@grid
async def test_without_a_number_there_are_as_many_places_as_slots(clock):
    """Asked when the run is opened, not before."""
    engine = Elsewhere(2)
    stream = penstock.stream(range(12)).map(double, engine=engine)
    engine.count = 4
    async with stream.open() as items:
        assert [item async for item in items] == [2 * number for number in range(12)]
    assert items.stats()[-1].concurrency == 4
    assert engine.peak == 4
    assert clock.now == 3


@grid
@pytest.mark.parametrize("make", [lambda: Threads(2), Elsewhere], ids=["threads", "elsewhere"])
async def test_stages_and_runs_share_the_slots(make, clock):
    """Two runs of two stages each, and no more calls at once than there are slots; the engine outlives them."""
    running, peak, lock = 0, 0, threading.Lock()

    def work(number):
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        try:
            clock.sleep(1) if isinstance(engine, Threads) else None
        finally:
            with lock:
                running -= 1
        return number

    async with Used(make) as engine:
        stream = (
            penstock.stream(NUMBERS).map(work, engine=engine, concurrency=4).map(work, engine=engine, concurrency=4)
        )
        for _ in range(2):
            assert await asyncio.gather(stream.to_list(), stream.to_list()) == [NUMBERS, NUMBERS]
        assert peak <= 2
        assert clock.now == 2 * 2 * 2 * len(NUMBERS) / 2
        if isinstance(engine, Elsewhere):
            assert engine.peak == 2
            assert not engine.closed


@grid
async def test_stages_with_limits_of_their_own_share_an_engine(clock):
    """All limits have one order, the slots of an engine among them: nobody waits in a circle."""
    before = penstock.Limiter(1)
    engine = Elsewhere(1)
    after = penstock.Limiter(1)
    stream = penstock.stream(NUMBERS)
    for limit in (before, after, [after, before]):
        stream = stream.map(lambda number: number, engine=engine, concurrency=3, limit=limit)
    assert await stream.to_list() == NUMBERS
    assert before.in_use == after.in_use == engine.line(Slots).in_use == 0


@grid
async def test_one_slot_for_flat_map_and_what_comes_of_it(clock):
    """An input that waits for room holds no slot."""
    async with Threads(1) as engine:
        stream = penstock.stream(range(4)).flat_map(twice, engine=engine).map(double, engine=engine)
        assert await stream.to_list() == [0, 0, 2, 2, 4, 4, 6, 6]


@grid
@operators
async def test_the_function_crosses_as_it_is(build, expected, clock):
    """What is checked, copied and shaped is so here: the function of the user may have to be pickled."""
    engine = Elsewhere()
    await build(penstock.stream(NUMBERS), engine=engine).drain()
    assert [fn in {double, is_odd, twice, doubled} for fn in engine.prepared] == [True]


@grid
async def test_tasks_cross_as_they_are(clock, monkeypatch):
    engine = Elsewhere(3)
    monkeypatch.setitem(choosing.OWN, "thread", lambda *_: engine)

    def one():
        return 1

    assert await tasks.gather([one, one], concurrency=2) == [1, 1]
    assert engine.prepared == [one, one]
    assert engine.closed


def test_a_closed_engine_says_so():
    async def main():
        engine = Threads(2)
        await engine.aclose()
        await penstock.stream(NUMBERS).map(double, engine=engine).to_list()

    with pytest.raises(penstock.OptionError, match=r"Threads\(2\) was closed: it runs no calls any more"):
        asyncio.run(main())


def test_an_engine_belongs_to_its_loop():
    engine = Threads(2)
    stream = penstock.stream(NUMBERS).map(double, engine=engine)
    assert asyncio.run(stream.to_list()) == [2 * number for number in NUMBERS]
    with pytest.raises(penstock.WrongLoopError, match=r"Threads\(2\) belongs to the event loop of its first use"):
        asyncio.run(stream.to_list())
    asyncio.run(engine.aclose())


def test_a_child_that_was_forked_has_threads_of_its_own():
    """As the trial of suspects has: it has neither the threads nor the loop that the engine was used with."""
    engine = Threads(2)
    stream = penstock.stream(NUMBERS).map(double, engine=engine)
    asyncio.run(stream.to_list())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads: that is the point
        pid = os.fork()
    if not pid:  # pragma: no cover -- in the child
        signal.alarm(20)
        os._exit(int(asyncio.run(stream.to_list()) != [2 * number for number in NUMBERS]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    asyncio.run(engine.aclose())


@pytest.mark.parametrize("value", [Threads, "gpu", 3, True, ["thread"]])
def test_what_is_no_engine(value):
    with pytest.raises(penstock.OptionError) as raised:
        penstock.stream([]).map(double, engine=value)
    names = "'inline', 'thread', 'process'"
    assert str(raised.value) == f"engine must be None, {names} or an engine of penstock.engines, got {value!r}"


def test_an_async_function_runs_on_the_loop():
    async def work(number):
        return number

    engine = Elsewhere()
    with pytest.raises(
        penstock.OptionError, match=r"None or 'inline' for an async function, got Elsewhere\(2\): it runs"
    ):
        penstock.stream([]).map(work, engine=engine)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "3"])
def test_a_bad_number_of_workers(value):
    with pytest.raises(penstock.OptionError, match="workers must be an int >= 1, got"):
        Threads(value)


@grid
async def test_a_function_that_cannot_cross_is_refused_when_the_run_is_opened(clock):
    class Picky(Elsewhere):
        def prepare(self, fn, /):
            raise penstock.OptionError(f"{fn.__module__}.{fn.__name__} cannot be pickled")

    stream = penstock.stream(NUMBERS).map(double, engine=Picky())
    with pytest.raises(penstock.OptionError, match=r"test_engines\.double cannot be pickled"):
        await stream.to_list()


@grid
async def test_context_variables_go_along_to_threads_that_are_shared(clock):
    user = contextvars.ContextVar("user", default="nobody")
    user.set("opener")
    async with Threads(2) as engine:
        assert await penstock.stream([1, 2]).map(lambda _: user.get(), engine=engine).to_list() == ["opener"] * 2


@grid
async def test_closing_threads_waits_for_what_runs(clock):
    engine = Threads(2)
    reading = asyncio.create_task(penstock.stream([7]).map(clock.sleep, engine=engine).to_list())
    await asyncio.sleep(1)
    await engine.aclose(grace=10)
    assert clock.now == 7
    assert await reading == [None]


def test_a_thread_that_comes_back_after_the_loop_was_closed_is_in_peace():
    gate, begun = threading.Event(), threading.Event()

    def stuck(_):
        begun.set()
        gate.wait(20)

    async def main():
        engine = Threads(1)
        async with penstock.stream([1]).map(stuck, engine=engine).open(grace=0) as items:
            reading = asyncio.create_task(anext(items))
            await asyncio.to_thread(begun.wait, 20)
            reading.cancel()
        await engine.aclose(grace=0.001)

    with pytest.warns(penstock.UnstoppedWorkWarning, match="left behind"):
        asyncio.run(main())
    (thread,) = (each for each in threading.enumerate() if each.name.startswith("penstock threads"))
    gate.set()
    thread.join(20)
    assert not thread.is_alive()


# What a run makes for itself, it closes


@pytest.fixture
def own(monkeypatch):
    """Let the runs of a test have such an engine for each stage of `engine="thread"`."""
    made = []

    def use(**options):
        def make(places, name):
            assert name == "map(double)"
            made.append(Elsewhere(places or 1, **options))
            return made[-1]

        monkeypatch.setitem(choosing.OWN, "thread", make)
        return made

    return use


@grid
@pytest.mark.parametrize("leave", [False, True])
async def test_a_run_waits_until_its_engine_is_closed(own, leave, clock):
    """P4: nothing is left when control comes back."""
    made = own(closes=3)
    async with penstock.stream(NUMBERS).map(double, engine="thread").open() as items:
        async for item in items:
            if leave and item == 4:
                break
    assert [(engine.closed, engine.abandoned, engine.graces) for engine in made] == [(True, False, [5.0])]
    assert clock.now == (3 if leave else 7) + 3


@grid
async def test_an_engine_that_does_not_close_is_left_behind_and_named(own, clock):
    made = own(closes=100)
    with pytest.warns(penstock.UnstoppedWorkWarning, match=r"left behind: closing of Elsewhere\(1\)"):
        async with penstock.stream([1]).map(double, engine="thread").open(grace=4) as items:
            assert await anext(items) == 2
    assert clock.now == 1 + 4
    assert [(engine.closed, engine.abandoned, engine.graces) for engine in made] == [(False, True, [4.0])]


@grid
async def test_an_engine_that_swallows_its_cancellation_is_left_behind(own, monkeypatch, clock):
    async def stubborn(self, grace):
        for seconds in (100, 20):
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                continue

    made = own()
    monkeypatch.setattr(Elsewhere, "aclose", stubborn)
    with pytest.warns(penstock.UnstoppedWorkWarning, match=r"left behind: closing of Elsewhere\(1\)"):
        async with penstock.stream([1]).map(double, engine="thread").open(grace=4) as items:
            assert await anext(items) == 2
    assert clock.now == 1 + 4
    assert made[0].abandoned
    await asyncio.sleep(30)


@grid
async def test_an_error_of_closing_an_engine_is_raised_from_leaving(own, monkeypatch, clock):
    async def fails(self, grace):
        await asyncio.sleep(1)
        raise OSError("no end")

    own()
    monkeypatch.setattr(Elsewhere, "aclose", fails)
    with pytest.raises(OSError, match="no end") as raised:
        async with penstock.stream([1]).map(double, engine="thread").open() as items:
            assert await anext(items) == 2
    assert any("closing of Elsewhere(1)" in note for note in raised.value.__notes__)


@grid
async def test_a_cancellation_while_an_engine_closes_is_raised_after(own, clock):
    """P4, P8."""
    made = own(closes=3)
    reading = asyncio.create_task(penstock.stream([1]).map(double, engine="thread").to_list())
    await asyncio.sleep(2)
    for _ in range(2):
        reading.cancel()
        await asyncio.sleep(0.5)
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert made[0].closed
    assert clock.now == 4


@grid
async def test_a_late_call_leaves_no_time_for_closing(own, clock):
    """The grace was used up by waiting for the call: the engine is told that there is none left."""
    made = own(takes=1, dies=50)
    with pytest.warns(penstock.UnstoppedWorkWarning, match="stage 'map"):
        async with penstock.stream(range(9)).map(double, engine="thread").open(grace=4) as items:
            await asyncio.sleep(await anext(items) + 0.5)
    assert made[0].graces == [0.0]
    await asyncio.sleep(60)


def test_runs_of_a_loop_that_was_closed_let_go_of_their_engines(own):
    made = own(takes=0)
    loop = asyncio.new_event_loop()
    items = penstock.stream([1]).map(double, engine="thread").open()
    assert loop.run_until_complete(items.__anext__()) == 2
    loop.close()
    with pytest.warns(penstock.UnclosedStreamWarning):
        del items
    assert made[0].abandoned


def test_what_is_read_where_a_call_runs():
    """As many results as are wanted of what has to be read; as it is, what is in memory, or has too many."""
    assert answer(lambda: iter(range(9)), (), 3).value == [0, 1, 2]
    assert answer(lambda: [1, 2], (), 1).value == [1, 2]
    assert answer(lambda: "text", (), 1).value == "text"
    assert answer(lambda: 5, (), 1).value == 5
    assert answer(iter, ([1],), None).value is not None
    assert isinstance(answer(partial(int, "x"), ()).error, ValueError)
