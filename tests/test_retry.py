"""Retries: when, how often, how long in between."""

import asyncio
import itertools
from datetime import timedelta

import pytest

import penstock
from penstock import OptionError, Retry, RetryBudget
from penstock.testing import Gauge

grid = pytest.mark.grid


def failing(times, error=ConnectionError, clock=None, log=None):
    """An async function that fails `times` times, then returns its item."""
    calls = itertools.count()

    async def work(item):
        if log is not None:
            log.append(clock.now)
        if next(calls) < times:
            raise error
        return item

    return work


@grid
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_call_is_tried_again_until_it_succeeds(ordered, concurrency):
    retry = Retry(on=ConnectionError, attempts=4)
    stream = penstock.stream(["item"]).map(failing(3), retry=retry, concurrency=concurrency, ordered=ordered)
    async with stream.open() as items:
        assert [item async for item in items] == ["item"]
    stage = items.stats()["map(work)"]
    assert (stage.taken, stage.delivered, stage.failed, stage.retried) == (1, 1, 0, 3)


@grid
async def test_attempts_are_total_tries():
    """The last failure is raised, the user's own object, and says how often it was tried."""
    errors = [ConnectionError(number) for number in range(9)]
    calls = iter(errors)

    async def work(_):
        raise next(calls)

    with pytest.raises(ConnectionError) as raised:
        await penstock.stream([1]).map(work, retry=Retry(on=ConnectionError, attempts=3)).to_list()
    assert raised.value is errors[2]
    assert raised.value.__notes__ == ["penstock: stage 'map(work)', item 0, attempt 3"]
    assert next(calls) is errors[3]


@grid
@pytest.mark.parametrize("operator", ["map", "map_batches"])
@pytest.mark.parametrize("option", ["on", "wait"])
async def test_the_attempts_before_a_callback_that_raised_are_counted(option, operator):
    """P5: what `on` or `wait` raises is the failure of the item, after as many attempts as there were."""
    calls = itertools.count(1)

    def breaks(error):
        if str(error) == "3":
            raise KeyError("mine")
        return 1 if option == "wait" else True

    async def work(_):
        raise ConnectionError(next(calls))

    retry = Retry(**{"on": ConnectionError, "attempts": 5, option: breaks})
    stream = penstock.stream([1])
    tried = stream.map(work, retry=retry) if operator == "map" else stream.map_batches(work, 1, retry=retry)
    with pytest.raises(KeyError, match="mine") as raised:
        await tried.to_list()
    assert isinstance(raised.value.__context__, ConnectionError)
    assert raised.value.__notes__ == [f"penstock: stage '{operator}(work)', item 0, attempt 3"]


@grid
async def test_attempts_of_one_is_no_retry(clock):
    with pytest.raises(ConnectionError):
        await penstock.stream([1]).map(failing(1), retry=Retry(on=ConnectionError, attempts=1)).to_list()
    assert clock.now == 0.0


@grid
async def test_attempts_stand_in_failures():
    retry = Retry(on=ConnectionError, attempts=3, initial=0)

    async def work(number):
        raise (ConnectionError if number else KeyError)(number)

    async with penstock.stream([0, 1]).map(work, retry=retry, on_error="collect").open() as items:
        assert [item async for item in items] == []
    assert [(failed.index, failed.attempts) for failed in items.failures] == [(0, 1), (1, 3)]
    assert [str(failed.error) for failed in items.failures] == ["0", "1"]


@pytest.mark.parametrize(
    ("on", "error", "retried"),
    [
        (ConnectionError, ConnectionResetError, True),
        (ConnectionError, KeyError, False),
        ((KeyError, ConnectionError), KeyError, True),
        ((KeyError, ConnectionError), ValueError, False),
        (Exception, KeyError, True),
        (lambda error: "odd" in str(error), KeyError("odd"), True),
        (lambda error: "odd" in str(error), KeyError("even"), False),
    ],
)
async def test_on_says_what_is_retried(on, error, retried):
    gauge = Gauge()
    work = gauge.wrap(failing(9, error))
    with pytest.raises(error if isinstance(error, type) else type(error)):
        await penstock.stream([1]).map(work, retry=Retry(on=on, attempts=2)).to_list()
    assert gauge.started == (2 if retried else 1)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_exits_and_cancellations_are_never_retried(error):
    """P8: whatever `on` says."""
    gauge = Gauge()
    work = gauge.wrap(failing(9, error))
    with pytest.raises((error, penstock.WorkRaised)):
        await penstock.stream([1]).map(work, retry=Retry(on=BaseException)).to_list()
    assert gauge.started == 1


async def test_waits_grow_by_the_factor(clock):
    log = []
    retry = Retry(on=ConnectionError, attempts=5, initial=0.5, factor=3, jitter=0)
    assert await penstock.stream([1]).map(failing(4, clock=clock, log=log), retry=retry).to_list() == [1]
    assert log == [0.0, 0.5, 2.0, 6.5, 20.0]


async def test_no_wait_is_longer_than_max(clock):
    retry = Retry(on=ConnectionError, attempts=4, initial=100, max=timedelta(seconds=7), jitter=1)
    await penstock.stream([1]).map(failing(3), retry=retry).to_list()
    assert clock.now <= 21.0


def test_jitter_stays_in_its_range():
    retry = Retry(on=ConnectionError, initial=10, jitter=0.5)
    waits = [retry.backoff(2) for _ in range(500)]
    assert 10.0 <= min(waits) < 12.0
    assert 28.0 < max(waits) <= 30.0


@pytest.mark.parametrize(
    ("options", "failures", "expected"),
    [
        ({"initial": 1}, 1, 1.0),
        ({"initial": 1}, 5, 16.0),
        ({"initial": 1}, 6, 30.0),
        ({"initial": 1, "factor": 1}, 9, 1.0),
        ({"initial": timedelta(seconds=2), "max": timedelta(minutes=5)}, 3, 8.0),
        ({"initial": 1}, 100_000, 30.0),
        ({"initial": 0}, 3, 0.0),
        ({"initial": 0, "factor": 10}, 1000, 0.0),
        ({"initial": 5, "max": 0}, 1, 0.0),
    ],
)
def test_backoff(options, failures, expected):
    assert Retry(on=ConnectionError, jitter=0, **options).backoff(failures) == expected


async def test_wait_overrides_the_backoff(clock):
    """A Retry-After header says how long; where there is none, the backoff does."""

    class Limited(Exception):
        def __init__(self, retry_after):
            super().__init__(retry_after)
            self.retry_after = retry_after

    answers = iter([7, None, timedelta(seconds=60), 0])
    log = []

    async def work(_):
        log.append(clock.now)
        for answer in answers:
            raise Limited(answer)

    retry = Retry(on=Limited, attempts=5, initial=1, jitter=0, max=30, wait=lambda error: error.retry_after)
    await penstock.stream([1]).map(work, retry=retry).to_list()
    assert log == [0.0, 7.0, 9.0, 69.0, 69.0]


@pytest.mark.parametrize(("deadline", "tries"), [(None, 6), (100, 6), (7, 4), (6.9, 3), (0.5, 1)])
async def test_no_try_begins_after_the_deadline(clock, deadline, tries):
    """The wait that would end after the deadline is not even begun."""
    log = []
    work = failing(99, clock=clock, log=log)
    retry = Retry(on=ConnectionError, attempts=6, initial=1, jitter=0, deadline=deadline)
    with pytest.raises(ConnectionError) as raised:
        await penstock.stream([1]).map(work, retry=retry).to_list()
    assert log == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0][:tries]
    assert clock.now == log[-1]
    if tries > 1:
        assert f"attempt {tries}" in raised.value.__notes__[0]


async def test_the_deadline_counts_for_each_item(clock):
    retry = Retry(on=ConnectionError, attempts=2, initial=5, jitter=0, deadline=5)
    failed = set()

    async def fails_once(number):
        if number not in failed:
            failed.add(number)
            raise ConnectionError
        return number

    assert await penstock.stream(range(3)).map(fails_once, retry=retry).to_list() == [0, 1, 2]
    assert clock.now == 15.0


@grid
async def test_a_timeout_is_per_attempt(clock):
    """The attempt is cancelled and has ended before the next one begins."""
    gauge = Gauge()

    async def work(_):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(1)

    retry = Retry(on=TimeoutError, attempts=3, initial=2, factor=1, jitter=0)
    with pytest.raises(penstock.AttemptTimeout) as raised:
        await penstock.stream([1]).map(gauge.wrap(work), concurrency=2, timeout=10, retry=retry).to_list()
    assert (gauge.peak, gauge.started) == (1, 3)
    assert clock.now == 3 * 11 + 2 * 2
    assert raised.value.__notes__ == ["penstock: stage 'map(work)', item 0, attempt 3"]


@grid
async def test_a_waiting_retry_keeps_its_place(clock):
    """P1: the place of an item that waits for its next attempt is taken."""
    gauge = Gauge()

    async def work(number):
        if number == 0 and gauge.started == 1:
            raise ConnectionError
        await asyncio.sleep(1)
        return number

    retry = Retry(on=ConnectionError, initial=10, jitter=0)
    results = penstock.stream(range(4)).map(gauge.wrap(work), retry=retry)
    assert [(clock.now, item) async for item in results] == [(11.0, 0), (12.0, 1), (13.0, 2), (14.0, 3)]


@grid
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_plain_functions_are_retried(concurrency):
    calls = itertools.count()

    def plain(item):
        if next(calls) < 2:
            raise ConnectionError
        return item

    retry = Retry(on=ConnectionError)
    assert await penstock.stream(["item"]).map(plain, retry=retry, concurrency=concurrency).to_list() == ["item"]


@grid
@pytest.mark.parametrize("operator", ["filter", "tap"])
async def test_predicates_and_taps_are_retried(operator):
    results = getattr(penstock.stream([1]), operator)(failing(2), retry=Retry(on=ConnectionError))
    assert await results.to_list() == [1]


async def test_context_of_the_error_is_the_users():
    """The attempts before do not stand in the last one's context: it looks as if raised without a retry."""

    async def work(_):
        try:
            return {}["inner"]
        except KeyError as error:
            raise ConnectionError("outer") from error

    with pytest.raises(ConnectionError) as raised:
        await penstock.stream([1]).map(work, retry=Retry(on=ConnectionError)).to_list()
    assert isinstance(raised.value.__cause__, KeyError)
    assert raised.value.__cause__.__context__ is None


@pytest.mark.parametrize(
    "on",
    [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, (ConnectionError, asyncio.CancelledError)],
)
def test_an_exception_type_that_is_never_retried_is_refused(on):
    """P8: as an Exception is all that is retried, it would never match."""
    kind = on[-1] if isinstance(on, tuple) else on
    with pytest.raises(OptionError, match=f"^on must name subclasses of Exception, .*{kind.__name__}"):
        Retry(on=on)


@pytest.mark.parametrize("on", [BaseException, BaseExceptionGroup, (BaseException, KeyError)])
def test_an_exception_type_that_has_exceptions_among_others_is_taken(on):
    assert Retry(on=on).on == on


def test_a_retry_is_a_value():
    assert Retry(on=ValueError) == Retry(on=ValueError)
    assert hash(Retry(on=ValueError)) == hash(Retry(on=ValueError))
    with pytest.raises(AttributeError):
        Retry(on=ValueError).attempts = 5


@grid
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("kind", ["function", "async generator", "generator"])
async def test_an_input_is_tried_again_before_its_first_output(kind, concurrency):
    tries = []

    async def function(number):
        tries.append(number)
        if len(tries) < 3:
            raise ConnectionError
        return [number, number]

    async def async_generator(number):
        for item in await function(number):
            yield item

    def generator(number):
        tries.append(number)
        if len(tries) < 3:
            raise ConnectionError
        yield from (number, number)

    fn = {"function": function, "async generator": async_generator, "generator": generator}[kind]
    retry = Retry(on=ConnectionError)
    async with penstock.stream([7]).flat_map(fn, retry=retry, concurrency=concurrency).open() as items:
        assert [item async for item in items] == [7, 7]
    assert items.stats()[-1].retried == 2


@grid
async def test_an_input_is_not_tried_again_once_an_output_was_handed_on():
    tries = []

    async def pages(number):
        tries.append(number)
        yield number
        await asyncio.sleep(1)
        raise ConnectionError

    retry = Retry(on=ConnectionError)
    async with penstock.stream([7]).flat_map(pages, retry=retry, on_error="collect").open() as items:
        assert [item async for item in items] == [7]
    assert tries == [7]
    assert items.failures[0].attempts == 1


@grid
async def test_a_second_attempt_forgets_what_the_first_has_made(clock):
    """No output is handed on twice: those that waited when their attempt failed are dropped."""
    tries = []

    async def pages(number):
        if number == 0:
            await asyncio.sleep(100)
            yield "head"
            return
        tries.append(number)
        yield "first", len(tries)
        await asyncio.sleep(1)
        if len(tries) < 3:
            raise ConnectionError
        yield "second", len(tries)

    retry = Retry(on=ConnectionError)
    stream = penstock.stream([0, 1]).flat_map(pages, retry=retry, concurrency=2, buffer=5)
    assert await stream.to_list() == ["head", ("first", 3), ("second", 3)]
    assert clock.now == 100.0


@grid
@pytest.mark.parametrize("engine", [None, "thread"])
async def test_nothing_is_tried_again_once_the_run_is_left(engine, clock):
    """P4: nothing starts after, also when work answers its cancellation with an error of its own."""
    tries = []

    async def on_loop(number):
        tries.append(number)
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            raise ValueError(number) from None

    def in_thread(number):
        tries.append(number)
        clock.sleep(1)
        raise ValueError(number)

    retry = penstock.Retry(on=ValueError, initial=0)
    fn = in_thread if engine else on_loop
    async with penstock.stream([7]).map(fn, engine=engine, retry=retry).open() as results:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 0.5)
        with pytest.raises(ValueError, match="7"):
            await results.aclose()
    assert tries == [7]


async def test_the_fault_of_the_function_is_not_retried():
    tries = []

    def work(number):
        tries.append(number)
        return number  # is no iterable

    with pytest.raises(penstock.OptionError, match="must return an iterable, got 7"):
        await penstock.stream([7]).flat_map(work, retry=penstock.Retry(on=Exception, initial=0)).to_list()
    assert tries == [7]


# Budgets


async def always(item):
    raise ConnectionError(item)


@grid
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("operator", ["map", "flat_map", "map_batches", "filter"])
async def test_a_budget_bounds_the_retries_of_all_that_share_it(operator, ordered):
    """However many fail at once: a tenth of the calls, and the five that are always there."""
    retry = Retry(on=ConnectionError, attempts=4, initial=0, budget=RetryBudget(0.1, least=5))
    tried = Gauge()
    for _ in range(2):
        stream = penstock.stream(range(100))
        more = {"map_batches": (1,)}.get(operator, ())
        options = {"concurrency": 7, "retry": retry, "on_error": "skip", "ordered": ordered}
        await getattr(stream, operator)(tried.wrap(always), *more, **options).drain()
    assert tried.started == 200 + 5 + 20


@grid
async def test_a_failure_beyond_the_budget_says_so():
    retry = Retry(on=ConnectionError, attempts=3, initial=0, budget=RetryBudget(0, least=1))
    with pytest.raises(ConnectionError) as raised:
        await penstock.stream([1]).map(always, retry=retry).drain()
    said = "1 retries beside 1 calls in the last 60 s, and RetryBudget(0, least=1, per=60.0)"
    assert raised.value.__notes__ == [
        f"penstock: not tried again, as the retry budget is used up: {said}",
        "penstock: stage 'map(always)', item 0, attempt 2",
    ]


@grid
async def test_a_budget_fills_up_again_when_its_time_is_over(clock):
    """A run of failures long ago is no reason to give up now; nor are the calls of then one to go on."""
    budget = RetryBudget(0, least=2, per=30)
    retry = Retry(on=ConnectionError, attempts=9, initial=0, budget=budget)
    tried = Gauge()
    for _ in range(3):
        await penstock.stream([1]).map(tried.wrap(always), retry=retry, on_error="skip").drain()
        await asyncio.sleep(29)
    assert tried.started == 3 + 1 + 3
    many = RetryBudget(0.1, least=0, per=30)
    for _ in range(100):
        many.called()
    assert many.allows_retry_after(KeyError())
    await asyncio.sleep(31)
    assert not many.allows_retry_after(KeyError())


async def test_tasks_share_a_budget_too():
    budget = RetryBudget(0, least=3)
    retry = Retry(on=ConnectionError, attempts=9, initial=0, budget=budget)
    await penstock.tasks.settle([lambda: always(1)] * 5, concurrency=2, retry=retry)
    assert budget.said().startswith("3 retries beside 5 calls")


def test_a_budget_belongs_to_one_loop(run):
    retry = Retry(on=ConnectionError, initial=0, budget=RetryBudget())
    stream = penstock.stream([1]).map(always, retry=retry, on_error="skip")
    run(stream.drain())
    with pytest.raises(penstock.WrongLoopError):
        run(stream.drain())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RetryBudget(-1), "share must be a finite number >= 0, got -1"),
        (lambda: RetryBudget(least=1.5), "least must be an int >= 0"),
        (lambda: RetryBudget(per=0), "per must be a finite number of seconds > 0"),
        (lambda: Retry(on=KeyError, budget=0.1), "budget must be a RetryBudget, got 0.1"),
    ],
)
def test_bad_budgets_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


# What is of no use to try


@grid
@pytest.mark.parametrize("on_error", ["raise", "skip", "collect", "return"])
@pytest.mark.parametrize("operator", ["map", "map_batches", "flat_map"])
async def test_a_fatal_error_ends_the_run_at_once(operator, on_error):
    """Whatever `on_error` and `retry` say, and undivided: no other item would do better."""
    tried = Gauge()

    async def work(item):
        raise KeyIsGone(item)

    more = {"map_batches": (8,)}.get(operator, ())
    options = {"concurrency": 2, "on_error": on_error, "retry": Retry(on=Exception, attempts=5)}
    stream = getattr(penstock.stream(range(64)), operator)(tried.wrap(work), *more, **options)
    with pytest.raises(KeyIsGone):
        await stream.drain()
    assert tried.started <= 2


class KeyIsGone(penstock.FatalError):
    pass
