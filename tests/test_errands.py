"""Calls without a task of their own, in threads: what comes back together is settled one after the other."""

import asyncio
import threading

import pytest

import penstock
from penstock.core.errands import Errands

grid = pytest.mark.grid


@pytest.fixture
def together(monkeypatch):
    """Give a source of numbers whose end blocks the loop until the calls for all of them are back."""
    brought, bring = threading.Semaphore(0), Errands.bring
    arrivals, arrive = [], Errands._arrive

    def bring_and_count(self, errand):
        bring(self, errand)
        brought.release()

    def arrive_and_note(self):
        arrivals.append(len(self._back))
        arrive(self)

    monkeypatch.setattr(Errands, "bring", bring_and_count)
    monkeypatch.setattr(Errands, "_arrive", arrive_and_note)

    def numbers(count):
        yield from range(count)
        for _ in range(count):
            brought.acquire()

    numbers.arrivals = arrivals
    return numbers


def odd_fails(number):
    if number == 1:
        raise ValueError(number)
    return number


@grid
async def test_one_wake_up_brings_all_that_have_come_meanwhile(together):
    assert await penstock.stream(together(8)).map(str, engine="thread", concurrency=9).to_list() == list("01234567")
    assert [number for number in together.arrivals if number] == [8]


@grid
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_failure_among_those_that_come_together_ends_the_run(together, ordered):
    """P5: what was before it is handed on, each has one outcome."""
    first = threading.Event()

    def fails(number):
        if number:
            first.wait()
        else:
            first.set()
        return odd_fails(number)

    seen = []
    async with penstock.stream(together(4)).map(fails, concurrency=5, ordered=ordered).open() as items:
        with pytest.raises(ValueError, match="1"):
            async for item in items:
                seen.append(item)  # noqa: PERF401 -- the loop raises
    (stage,) = [stage for stage in items.stats().stages if stage.name.startswith("map")]
    assert seen == [0] if ordered else set(seen) <= {0, 2, 3}
    assert (stage.taken, stage.failed, stage.delivered) == (4, 1, len(seen))
    assert stage.cancelled + stage.discarded == 3 - len(seen)


@grid
@pytest.mark.parametrize(("on_error", "expected"), [("skip", 3), ("collect", 3), ("return", 4)])
async def test_the_others_of_those_that_come_together_go_on(together, on_error, expected):
    results = penstock.stream(together(4)).map(odd_fails, concurrency=5, on_error=on_error)
    assert len(await results.to_list()) == expected


@grid
async def test_the_last_of_those_that_come_together_may_return_an_awaitable(together):
    """What was settled before it is handed on at once (P2)."""
    gate = asyncio.Event()

    async def later(number):
        await gate.wait()
        return number

    def work(number):
        return later(number) if number == 3 else number

    results = penstock.stream(together(4)).map(work, engine="thread", concurrency=5, ordered=False)
    async with results.open() as items:
        first = [await anext(items) for _ in range(3)]
        gate.set()
        assert sorted([*first, await anext(items)]) == [0, 1, 2, 3]


@grid
@pytest.mark.parametrize("operator", ["filter", "tap"])
async def test_what_an_operator_makes_of_a_result(together, operator):
    results = getattr(penstock.stream(together(4)), operator)(bool, engine="thread", concurrency=5)
    assert await results.to_list() == ([1, 2, 3] if operator == "filter" else [0, 1, 2, 3])


class Undecided:
    def __bool__(self):
        raise ValueError("neither")


@grid
async def test_a_result_that_cannot_be_asked_is_a_failure_of_its_item():
    async with penstock.stream([1]).filter(lambda _: Undecided(), engine="thread", on_error="collect").open() as items:
        assert [item async for item in items] == []
    assert str(items.failures[0].error) == "neither"


@grid
async def test_a_coroutine_of_a_call_that_was_stopped_is_closed():
    """P4: it is never awaited, and nobody is warned of that."""
    begun, gate = threading.Event(), threading.Event()

    async def later(number):
        return number

    def work(number):
        if number:
            begun.set()
            gate.wait()
        return later(number)

    async with penstock.stream([0, 1]).map(work, concurrency=2).open() as items:
        assert await anext(items) == 0
        begun.wait()
        asyncio.get_running_loop().call_soon(gate.set)
    assert items.stats().stages[-1].cancelled == 1
