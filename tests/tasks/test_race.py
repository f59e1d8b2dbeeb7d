"""`race` and `first_success`: the first counts, the others are stopped."""

import asyncio
import gc
import logging
import weakref
from contextlib import suppress
from functools import partial

import pytest

from penstock import OptionError
from penstock.tasks import first_success, race
from penstock.testing import Gauge

from .executing import after, failing

pytestmark = pytest.mark.grid


@pytest.mark.parametrize("contest", [race, first_success])
async def test_the_first_result_wins_and_the_others_are_stopped(contest, clock):
    """P4: cancelled and awaited."""
    gauge = Gauge()
    work = gauge.wrap(after)
    assert await contest([partial(work, 5, "slow"), partial(work, 2, "fast"), partial(work, 9, "slower")]) == "fast"
    assert (gauge.started, gauge.finished, gauge.cancelled, gauge.now) == (3, 1, 2, 0)
    assert clock.now == 2


@pytest.mark.parametrize("contest", [race, first_success])
async def test_all_start_at_once(contest):
    gauge = Gauge()
    await contest(partial(gauge.wrap(after), 1 + each, each) for each in range(100))
    assert gauge.peak == 100


@pytest.mark.parametrize("contest", [race, first_success])
@pytest.mark.parametrize("value", [None, False, 0])
async def test_any_value_wins(contest, value):
    """P6."""
    assert await contest([partial(after, 1, value), partial(after, 5, 1)]) is value


async def test_in_a_race_a_failure_wins_too(clock):
    error = ValueError("first")
    gauge = Gauge()
    with pytest.raises(ValueError, match="first") as raised:
        await race([partial(gauge.wrap(after), 5, 1), partial(failing, 1, error)])
    assert raised.value is error
    assert (gauge.cancelled, clock.now) == (1, 1)


async def test_first_success_passes_over_failures(clock):
    tasks = [partial(failing, 1, ValueError), partial(after, 3, "there"), partial(failing, 2, KeyError)]
    assert await first_success(tasks) == "there"
    assert clock.now == 3


async def test_when_all_fail_all_errors_are_raised_in_the_order_of_the_tasks():
    errors = [ValueError("a"), KeyError("b"), OSError("c")]
    with pytest.raises(ExceptionGroup, match="no task has succeeded") as raised:
        await first_success([partial(failing, 3 - number, error) for number, error in enumerate(errors)])
    assert list(raised.value.exceptions) == errors


@pytest.mark.parametrize("contest", [race, first_success])
async def test_without_tasks_there_is_nobody_to_win(contest):
    with pytest.raises(OptionError, match=f"{contest.__name__} needs at least one task, got none"):
        await contest([])
    with pytest.raises(OptionError, match="tasks must be an iterable"):
        await contest(None)


@pytest.mark.parametrize("contest", [race, first_success])
async def test_what_goes_wrong_in_a_loser_is_logged(contest, caplog):
    async def fails_when_stopped():
        try:
            await asyncio.sleep(9)
        finally:
            raise KeyError("cleanup")

    with caplog.at_level(logging.WARNING, "penstock"):
        assert await contest([fails_when_stopped, partial(after, 1, "won")]) == "won"
    assert "a task that had lost failed while it was being stopped: KeyError('cleanup')" in caplog.text


@pytest.mark.parametrize("contest", [race, first_success])
async def test_cancelling_it_cancels_all(contest):
    """P4, P8."""
    gauge = Gauge()
    caller = asyncio.create_task(contest([partial(gauge.wrap(after), 9, 1)] * 3))
    await asyncio.sleep(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (gauge.started, gauge.cancelled) == (3, 3)


@pytest.mark.parametrize("contest", [race, first_success])
async def test_a_failure_leaves_no_cycle(contest):
    """The error and what its frames hold die with the last reference, without the garbage collector."""

    class Held:
        pass

    held = Held()
    seen = weakref.ref(held)

    async def fail(held):
        await asyncio.sleep(1)
        raise ValueError(held)

    gc.disable()
    try:
        with suppress(ValueError, ExceptionGroup):
            await contest([partial(fail, held)])
        del held
        await asyncio.sleep(1)
        assert seen() is None
    finally:
        gc.enable()
