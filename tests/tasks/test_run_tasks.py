"""`run_tasks`: the first failure asks the others to end, and every task has an outcome."""

import asyncio
import gc
import threading
from functools import partial

import pytest

from penstock import Cancelled, Failed, NotStarted, Ok, OptionError, ResultFailed, UnstoppedWorkWarning, WorkRaised
from penstock.tasks import CancelToken, run_tasks
from penstock.testing import Gauge

pytestmark = pytest.mark.grid


def after(seconds, value):
    async def task(_):
        await asyncio.sleep(seconds)
        return value

    return task


def failing(seconds, error):
    async def task(_):
        await asyncio.sleep(seconds)
        raise error

    return task


async def answering(token):
    """Comes to an end when it is asked to, with a result of its own."""
    await token.wait()
    return f"so far: {token.reason}"


async def test_results_stand_in_the_order_of_the_input():
    run = await run_tasks([after(3, "a"), after(1, "b"), after(2, "c")])
    assert run.results == ["a", "b", "c"]
    assert run.outcomes == [Ok("a", 0), Ok("b", 1), Ok("c", 2)]
    assert (run.failures, run.first_failure_index, run.first_failure_in_time, run.aborted) == ({}, None, None, False)


@pytest.mark.parametrize(("concurrency", "peak"), [({}, 3), ({"concurrency": 1}, 1), ({"concurrency": 50}, 8)])
async def test_at_most_so_many_at_once(concurrency, peak):
    """P1: three by default."""
    gauge = Gauge()
    await run_tasks([gauge.wrap(after(1, each)) for each in range(8)], **concurrency)
    assert gauge.peak == peak


async def test_one_at_a_time_is_strictly_one_after_the_other():
    log = []

    def task(number):
        async def run(_):
            log.append(("begin", number))
            await asyncio.sleep(3 - number)
            log.append(("end", number))

        return run

    await run_tasks([task(number) for number in range(3)], concurrency=1)
    assert log == [(what, number) for number in range(3) for what in ("begin", "end")]


async def test_no_tasks():
    run = await run_tasks([])
    assert (run.outcomes, run.results, run.first_failure_index, run.aborted) == ([], [], None, False)


async def test_the_first_failure_asks_the_others_to_end(clock):
    """A task answers its token with a result of its own; nothing starts any more."""
    error = ValueError("bad")
    tasks = [answering, failing(2, error), answering, after(1, "never")]
    run = await run_tasks(tasks)
    assert run.outcomes == [
        Ok("so far: sibling failed", 0),
        Failed(error, 1, tasks[1], "run_tasks"),
        Ok("so far: sibling failed", 2),
        NotStarted(3),
    ]
    assert run.results == ["so far: sibling failed"] * 2
    assert clock.now == 2


async def test_a_task_that_does_not_look_at_its_token_is_cancelled_after_the_grace(clock):
    run = await run_tasks([after(99, 1), failing(1, ValueError("bad"))], grace=4)
    assert run.outcomes[0] == Cancelled(0, "sibling failed")
    assert run.failures.keys() == {1}
    assert clock.now == 5


async def test_a_task_that_ignores_both_is_named_and_left_behind(clock):
    """P4: a named warning."""
    ends = asyncio.Event()

    async def stubborn(_):
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue

    with pytest.warns(UnstoppedWorkWarning, match="stage 'run_tasks', item 0"):
        run = await run_tasks([stubborn, failing(1, ValueError("bad"))], grace=2)
    assert run.outcomes[0] == Cancelled(0, "sibling failed")
    assert clock.now == 5
    ends.set()
    await asyncio.sleep(1)


async def test_results_that_is_failed_calls_failures():
    """The result is kept: all results of a parallel step are wanted, the failed one too."""
    run = await run_tasks(
        [after(1, "ok"), after(2, "bad"), after(9, "late")], is_failed=lambda result: result == "bad", grace=0
    )
    assert run.results == ["ok", "bad"]
    assert run.first_failure_index == 1
    failed = run.failures[1]
    assert isinstance(failed.error, ResultFailed)
    assert failed.error.result == "bad"
    assert str(failed.error) == "is_failed called the result 'bad' a failure"
    assert run.outcomes[2] == Cancelled(2, "sibling failed")


async def test_is_failed_that_raises_is_that_tasks_failure():
    """It neither hangs nor disappears."""

    def is_failed(result):
        raise LookupError(result)

    run = await run_tasks([after(1, "x"), answering], is_failed=is_failed)
    assert isinstance(run.failures[0].error, LookupError)
    assert run.first_failure_in_time == 0


async def test_a_task_that_raises_synchronously():
    def broken(token):
        raise LookupError("at once")

    async def sound(token):
        return 1

    for concurrency in (1, 2):
        run = await run_tasks([broken, sound], concurrency=concurrency)
        assert isinstance(run.failures[0].error, LookupError)


@pytest.mark.parametrize("value", [None, False, 0, "", []])
async def test_none_and_falsy_results_are_results(value):
    """P6: tasks that return nothing do not vanish."""
    run = await run_tasks([after(1, value), after(2, value)])
    assert run.results == [value, value]


async def test_the_earliest_failing_input_and_the_first_in_time():
    """Not the wrong, successful task is blamed."""
    run = await run_tasks(
        [after(0, "fine"), failing(2, ValueError("early in the input")), failing(1, ValueError("early in time"))],
        grace=5,
    )
    assert run.first_failure_index == 1
    assert run.first_failure_in_time == 2
    assert list(run.failures) == [1, 2]
    assert run.outcomes[0] == Ok("fine", 0)


async def test_the_callers_token_ends_the_run():
    token = CancelToken()
    asyncio.get_running_loop().call_later(1, token.cancel)
    run = await run_tasks([answering, after(99, 1), after(99, 2), after(1, 3)], cancel=token, grace=1)
    assert run.aborted
    assert run.outcomes == [
        Ok("so far: caller cancelled", 0),
        Cancelled(1, "caller cancelled"),
        Cancelled(2, "caller cancelled"),
        NotStarted(3),
    ]
    assert run.first_failure_index is None


async def test_a_token_that_was_signalled_before_starts_nothing():
    token = CancelToken()
    token.cancel()
    gauge = Gauge()
    run = await run_tasks([gauge.wrap(after(1, 1))] * 2, cancel=token)
    assert run.aborted
    assert run.outcomes == [NotStarted(0), NotStarted(1)]
    assert gauge.started == 0


@pytest.mark.parametrize("first", ["failure", "cancel"])
async def test_a_failure_and_a_callers_cancel_are_both_told(first):
    token = CancelToken()
    fails, cancels = (1, 2) if first == "failure" else (2, 1)
    asyncio.get_running_loop().call_later(cancels, token.cancel)
    run = await run_tasks([failing(fails, ValueError("bad")), after(99, 1)], cancel=token, grace=3)
    assert run.aborted
    assert run.first_failure_index == 0
    assert run.outcomes[1] == Cancelled(1, "sibling failed" if first == "failure" else "caller cancelled")


async def test_a_failure_is_no_abort():
    run = await run_tasks([failing(1, ValueError("bad"))], cancel=CancelToken())
    assert not run.aborted


async def test_a_token_that_is_signalled_after_the_end_is_no_abort():
    token = CancelToken()
    run = await run_tasks([after(1, 1)], cancel=token)
    token.cancel()
    assert not run.aborted


async def test_a_token_may_be_answered_with_a_cancellation():
    async def obeys(token):
        await token.wait()
        token.raise_if_cancelled()

    run = await run_tasks([obeys, failing(1, ValueError("bad"))])
    assert run.outcomes[0] == Cancelled(0, "sibling failed")
    assert list(run.failures) == [1]


async def test_a_cancellation_of_its_own_accord_is_a_failure():
    """P8."""

    async def cancels(_):
        await asyncio.sleep(1)
        raise asyncio.CancelledError

    run = await run_tasks([cancels, answering])
    assert isinstance(run.failures[0].error, WorkRaised)
    assert run.outcomes[1] == Ok("so far: sibling failed", 1)


async def test_a_failure_of_what_is_being_stopped_is_told():
    """P5: several failures, an error of cleanup among them."""

    async def fails_when_stopped(_):
        try:
            await asyncio.sleep(99)
        finally:
            raise KeyError("cleanup")

    run = await run_tasks([fails_when_stopped, failing(1, ValueError("bad"))], grace=0)
    assert isinstance(run.failures[0].error, KeyError)
    assert (run.first_failure_index, run.first_failure_in_time) == (0, 1)


async def test_nothing_starts_between_a_failure_and_the_signal():
    started = []

    def counted(number):
        async def task(_):
            started.append(number)

        return task

    async def fails(_):
        raise ValueError("bad")

    run = await run_tasks([fails, *(counted(number) for number in range(5))], concurrency=1)
    assert started == []
    assert run.outcomes[1:] == [NotStarted(index) for index in range(1, 6)]


async def test_cancelling_it_stops_and_awaits_all_and_is_raised():
    """P4, P8."""
    gauge = Gauge()
    token = CancelToken()
    caller = asyncio.create_task(run_tasks([gauge.wrap(after(99, 1))] * 5, cancel=token))
    await asyncio.sleep(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (gauge.started, gauge.cancelled, gauge.now) == (3, 3, 0)
    assert not token._callbacks


async def test_cancelling_it_tells_the_tasks_before_they_are_cancelled():
    """P8: the token says that the caller was cancelled, not that a task failed, and says it first."""
    log = []

    async def task(token):
        token.on_cancel(lambda: log.append(f"token: {token.reason}"))
        try:
            await asyncio.sleep(99)
        except asyncio.CancelledError as cancelled:
            log.append(f"task: {cancelled}")
            raise

    caller = asyncio.create_task(run_tasks([task, task]))
    await asyncio.sleep(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert log == ["token: caller cancelled"] * 2 + ["task: caller cancelled"] * 2


async def test_cancelling_it_after_a_failure_cuts_the_answers_short(clock):
    """P4: who waits for it waits no longer for the tasks to answer."""
    caller = asyncio.create_task(run_tasks([failing(1, ValueError), after(99, 1)], grace=50))
    await asyncio.sleep(2)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert clock.now == 2


async def test_an_iterable_is_pulled_as_places_free_up():
    """P2, P7."""
    pulled = []

    def tasks():
        for number in range(1_000):
            pulled.append(number)
            yield failing(1, ValueError) if number == 5 else after(1, number)

    run = await run_tasks(tasks(), concurrency=2)
    assert run.results == [0, 1, 2, 3, 4]
    assert len(pulled) <= 7
    assert len(run.outcomes) == len(pulled)


async def test_nothing_is_left_on_a_long_lived_token():
    """P7: after 1,000 calls."""
    token = CancelToken()
    for _ in range(1_000):
        await run_tasks([lambda _: 1], cancel=token)
    assert not token._callbacks


async def test_a_long_lived_token_keeps_no_run_alive():
    token = CancelToken()

    class Held:
        pass

    held = Held()
    await run_tasks([lambda _: held], cancel=token)
    gc.collect()
    assert [each for each in gc.get_referrers(held) if isinstance(each, Ok)] == []


async def test_tasks_in_threads_see_their_token():
    seen = threading.Event()

    def blocking(token):
        while not token.cancelled:
            if seen.wait(0.001):
                break
        return token.reason

    def fails(token):
        raise ValueError("bad")

    run = await run_tasks([blocking, fails])
    assert run.outcomes[0] == Ok("sibling failed", 0)


async def test_a_token_signalled_from_a_thread_ends_the_run():
    token, running = CancelToken(), threading.Event()

    def signals(_):
        assert running.wait(60)
        token.cancel()
        return "signalled"

    async def answers(token):
        running.set()
        return await answering(token)

    run = await run_tasks([signals, answers], cancel=token)
    assert run.aborted
    assert run.results == ["signalled", "so far: caller cancelled"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency must be an int >= 1, got 0"),
        ({"concurrency": float("nan")}, "concurrency must be an int >= 1, got nan"),
        ({"concurrency": True}, "concurrency must be an int >= 1, got True"),
        ({"grace": -1}, "grace must be"),
        ({"timeout": 0}, "timeout must be"),
        ({"is_failed": 3}, "is_failed must be callable, got 3"),
        ({"is_failed": asyncio.sleep}, "is_failed must be a plain function"),
        ({"cancel": asyncio.Event()}, "cancel must be a CancelToken"),
    ],
)
async def test_wrong_options_are_named(options, message):
    with pytest.raises(OptionError, match=message):
        await run_tasks([after(1, 1)], **options)


async def test_a_timeout_is_that_tasks_failure():
    gauge = Gauge()
    run = await run_tasks([gauge.wrap(after(9, 1))], timeout=2)
    assert isinstance(run.failures[0].error, TimeoutError)
    assert gauge.cancelled == 1


async def test_run_tasks_inside_a_task():
    async def nested(token):
        inner = await run_tasks([answering, after(99, 1)], cancel=token, grace=1)
        return inner.results

    run = await run_tasks([nested, failing(1, ValueError("bad"))], grace=5)
    assert run.results == [["so far: caller cancelled"]]


async def test_partials_and_methods_are_tasks():
    class Site:
        async def crawl(self, token, page=0):
            return page

    assert (await run_tasks([Site().crawl, partial(Site().crawl, page=2)])).results == [0, 2]
