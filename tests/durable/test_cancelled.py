"""P8, P10, P11: what was cut short in a durable run is done by the next one, whatever its work made of that."""

import asyncio
import sys
from contextlib import suppress

import pytest

from penstock import SqliteTable, keyed
from penstock.testing import run_in_real_time

ROOTS = 8
WHOLE = 3
"""The roots whose work is done when the run is cut short."""


def deliver(database, add_stage, *, passes=None):
    """Run into `database`; cancel after so many passes of the loop, if that is told. The report, or None."""

    async def main():
        stream = add_stage(keyed(range(ROOTS), key=lambda number: number)).map(lambda number: {"n": number}, name="row")
        running = asyncio.ensure_future(stream.to(SqliteTable(database, "rows"), run="run"))
        if passes is not None:
            for _ in range(passes):
                await asyncio.sleep(0)
            running.cancel()
        with suppress(asyncio.CancelledError):
            return await running

    return run_in_real_time(main())


def numbers(database):
    return [row["n"] for row in SqliteTable(database, "rows").rows()]


def cut_short(answer):
    """Work that waits for ever from the root WHOLE on, and then does as `answer()` does."""

    async def work(number):
        if number >= WHOLE:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return answer()
        return number

    return work


def fails():
    raise ConnectionError("closed while it waited")


@pytest.mark.parametrize("on_error", ["skip", "collect"])
def test_an_error_that_work_makes_of_its_cancellation_is_not_its_failure(tmp_path, on_error):
    database = tmp_path / "run.db"
    options = {"concurrency": ROOTS, "on_error": on_error, "name": "work"}
    assert deliver(database, lambda stream: stream.map(cut_short(fails), **options), passes=9) is None
    assert numbers(database) == [*range(WHOLE)]
    report = deliver(database, lambda stream: stream.map(lambda number: number, **options))
    assert (report.delivered, report.already_done, report.dead_before) == (ROOTS - WHOLE, WHOLE, 0)
    assert numbers(database) == [*range(ROOTS)]


def test_what_a_filter_says_of_a_cancelled_item_drops_nothing(tmp_path):
    database = tmp_path / "run.db"

    def kept(answer):
        async def keep(number):
            return await cut_short(answer)(number) is not None

        return lambda stream: stream.filter(keep, concurrency=ROOTS, name="keep")

    assert deliver(database, kept(lambda: None), passes=9) is None
    report = deliver(database, lambda stream: stream.filter(lambda number: True, concurrency=ROOTS, name="keep"))
    assert (report.delivered, report.already_done) == (ROOTS - WHOLE, WHOLE)
    assert numbers(database) == [*range(ROOTS)]


@pytest.mark.parametrize("ordered", [True, False])
def test_outputs_that_a_cancellation_has_cut_off_are_made_again(tmp_path, ordered):
    """A generator that returns early when it is cancelled: half the rows of a root are no root."""
    database = tmp_path / "run.db"
    options = {"concurrency": ROOTS, "ordered": ordered, "buffer": ROOTS, "name": "parts"}

    async def interrupted(number):
        yield number * 10
        with suppress(asyncio.CancelledError):
            if number >= WHOLE:
                await asyncio.Event().wait()
        if number < WHOLE:
            yield number * 10 + 1

    assert deliver(database, lambda stream: stream.flat_map(interrupted, **options), passes=20) is None
    report = deliver(database, lambda stream: stream.flat_map(lambda n: [n * 10, n * 10 + 1], **options))
    assert (report.delivered, report.already_done) == (ROOTS - WHOLE, WHOLE)
    assert sorted(numbers(database)) == sorted(number * 10 + part for number in range(ROOTS) for part in (0, 1))


@pytest.mark.parametrize("on_error", ["skip", "collect"])
def test_the_failure_that_is_one_too_many_is_not_passed_over(tmp_path, on_error):
    """P5: `max_failures` is there to stop at an outage, not to eat a root of every attempt."""
    database = tmp_path / "run.db"
    options = {"on_error": on_error, "max_failures": 0, "name": "work"}

    def down(number):
        raise OSError("the server is down")

    for _ in range(3):
        with pytest.raises(OSError, match="the server is down"):
            deliver(database, lambda stream: stream.map(down, **options))
    report = deliver(database, lambda stream: stream.map(lambda number: number, **options))
    assert (report.delivered, report.already_done, report.dead_before) == (ROOTS, 0, 0)
    assert numbers(database) == [*range(ROOTS)]


def test_what_a_cancelled_call_gives_is_not_kept(tmp_path, monkeypatch):
    """A result that work has cut short must not be recalled in the place of the whole one."""
    database = tmp_path / "run.db"
    work = cut_short(int)
    assert deliver(database, lambda stream: stream.map(work, concurrency=ROOTS, memo=True), passes=9) is None
    monkeypatch.setattr(sys.modules[__name__], "WHOLE", ROOTS)
    report = deliver(database, lambda stream: stream.map(work, concurrency=ROOTS, memo=True))
    assert (report.delivered, report.recalled, report.changed) == (ROOTS - 3, 0, ())
    assert numbers(database) == [*range(ROOTS)]
