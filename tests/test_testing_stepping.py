"""Orders drawn from a seed, and interruptions before every step: they are what they say, and find what they are for."""

import asyncio
import functools

import pytest

from penstock.testing import Clock, Interrupt, run_interrupted, run_shuffled

pytestmark = pytest.mark.grid

SEEDS = range(40)


@pytest.fixture
def shuffled(run, place):
    return functools.partial(run_shuffled, loop=place.loop, tasks=place.tasks)


@pytest.fixture
def interrupted(run, place):
    return functools.partial(run_interrupted, loop=place.loop, tasks=place.tasks)


async def order_of_sleepers():
    """Who of three tasks takes a step when, each going on in the pass after."""
    order = []

    async def sleeper(name):
        for _ in range(3):
            await asyncio.sleep(0)
            order.append(name)

    await asyncio.gather(*map(sleeper, "abc"))
    return "".join(order)


def test_a_seed_gives_an_order_and_other_seeds_give_others(shuffled):
    orders = [shuffled(order_of_sleepers(), seed=seed) for seed in SEEDS]
    assert orders == [shuffled(order_of_sleepers(), seed=seed) for seed in SEEDS]
    assert len(set(orders)) > len(SEEDS) / 2
    assert {"".join(sorted(order)) for order in orders} == {"aaabbbccc"}


def test_some_come_later_than_by_a_pass(shuffled):
    """In step, each three letters would be of all three sleepers."""
    orders = [shuffled(order_of_sleepers(), seed=seed) for seed in SEEDS]
    assert any({*order[:3]} != {*order[3:6]} for order in orders)


def test_what_one_step_schedules_comes_in_its_order(shuffled):
    async def main():
        loop, calls = asyncio.get_running_loop(), []
        for number in range(9):
            loop.call_soon(calls.append, number)
        await asyncio.sleep(1)
        return calls

    assert [shuffled(main(), seed=seed) for seed in SEEDS] == [list(range(9))] * len(SEEDS)


def test_timers_come_at_their_times_and_those_of_one_instant_in_any_order(shuffled):
    async def main():
        loop, calls = asyncio.get_running_loop(), []
        for when, name in ((2, "c"), (1, "a"), (1, "b")):
            loop.call_later(when, lambda name=name: calls.append((name, loop.time())))
        await asyncio.sleep(3)
        return calls

    outcomes = [shuffled(main(), seed=seed) for seed in SEEDS]
    early, late = [("a", 1.0), ("b", 1.0)], ("c", 2.0)
    assert {tuple(calls) for calls in outcomes} == {(*early, late), (*early[::-1], late)}


def test_an_error_names_its_seed(shuffled):
    async def fail():
        raise LookupError

    with pytest.raises(LookupError) as raised:
        shuffled(fail(), seed=17)
    assert raised.value.__notes__ == ["in the order of seed 17"]


def test_code_that_rests_on_who_was_woken_first_is_found(shuffled):
    """Two tasks that a third one starts, of which the second expects the first to be a step ahead."""

    async def main():
        async def first():
            for _ in range(2):
                await asyncio.sleep(0)
            ready.set()

        async def second():
            for _ in range(3):
                await asyncio.sleep(0)
            assert ready.is_set()

        ready = asyncio.Event()
        await asyncio.gather(first(), second())

    def seeds_that_fail():
        for seed in SEEDS:
            try:
                shuffled(main(), seed=seed)
            except AssertionError:
                yield seed

    assert list(seeds_that_fail())


def test_a_run_is_shuffled_on_the_clock_that_it_is_given(shuffled):
    clock = Clock()
    shuffled(asyncio.sleep(5), seed=1, clock=clock)
    assert clock.now == 5.0


def test_jobs_in_threads_are_run(shuffled, interrupted):
    async def main(_=None):
        return await asyncio.to_thread(str, 7)

    assert shuffled(main(), seed=3) == "7"


def test_what_a_run_leaves_behind_fails_it(shuffled, interrupted):
    async def main(interrupt=None):
        asyncio.get_running_loop().call_later(60, print)

    for leave in (lambda: shuffled(main(), seed=1), lambda: interrupted(main)):
        with pytest.raises(AssertionError, match="left behind: timer"):
            leave()


def test_a_run_is_interrupted_before_every_step_of_its_block_and_then_not(interrupted):
    steps = []

    async def main(interrupt):
        taken = []

        async def task():
            for number in range(5):
                taken.append(number)
                await asyncio.sleep(0)

        await asyncio.sleep(0)
        with interrupt.by(lambda: steps.append(len(taken))):
            await task()
        assert interrupt.used

    assert interrupted(main) == len(steps) == 5
    assert steps == [1, 2, 3, 4, 5]


def test_a_second_interruption_comes_so_many_steps_after_the_first(interrupted):
    async def main(interrupt):
        seen = []
        with interrupt.by(lambda: seen.append(step) or step):
            for step in range(6):  # noqa: B007 -- the action looks at it
                await asyncio.sleep(0)
        assert interrupt.results == seen
        first = seen[0] if seen else 6
        assert seen[1:] == ([first + 2] if first + 2 < 6 else [])

    assert interrupted(main, again=2) == 6


def test_only_the_points_that_are_asked_for_are_interrupted(interrupted):
    async def main(interrupt):
        with interrupt.by(lambda: seen.append(step)):
            for step in range(10):  # noqa: B007 -- the action looks at it
                await asyncio.sleep(0)

    seen = []
    assert interrupted(main, points=[3, 7]) == 2
    assert seen == [2, 6]
    assert interrupted(main, points=range(4, 1_000, 4)) == 2
    assert seen == [2, 6, 3, 7]


def test_a_point_is_the_same_in_any_order_whether_it_comes_alone_or_after_others(interrupted):
    async def main(interrupt):
        consumer = asyncio.ensure_future(order_of_sleepers())
        with interrupt.by(consumer.cancel):
            await asyncio.wait([consumer])
        ends.append((repr(interrupt).split(" at 0x")[0], consumer.cancelled()))

    def masked(ends):
        return [(note.split("task")[0], cancelled) for note, cancelled in ends]

    ends = []
    number = interrupted(main, seed=5)
    together, ends = ends, []
    for point in range(1, number + 1):
        interrupted(main, seed=5, points=[point])
    assert masked(ends) == masked(together[:number])


def test_an_error_says_where_its_run_was_interrupted(interrupted):
    async def victim():
        await asyncio.sleep(60)

    async def main(interrupt):
        task = asyncio.ensure_future(victim())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with interrupt.by(task.cancel):
            await task

    with pytest.raises(asyncio.CancelledError) as raised:
        interrupted(main)
    note = raised.value.__notes__[0]
    assert note.startswith("<Interrupt before step 1: ")
    with pytest.raises(asyncio.CancelledError) as raised:
        interrupted(main, seed=4, again=1)
    assert raised.value.__notes__[0].endswith(">, in the order of seed 4")


def test_an_item_lost_to_a_cancellation_is_found(interrupted):
    """The classic: between taking an item and handing it on there is a step."""

    async def main(interrupt):
        async def take():
            item = await queue.get()
            await asyncio.sleep(0)
            taken.append(item)

        queue, taken = asyncio.Queue(), []
        queue.put_nowait(1)
        taker = asyncio.ensure_future(take())
        with interrupt.by(taker.cancel):
            await asyncio.wait([taker])
        assert len(taken) + queue.qsize() == 1

    with pytest.raises(AssertionError) as raised:
        interrupted(main)
    assert "task" in raised.value.__notes__[0]


def test_an_action_that_raises_fails_the_run(interrupted):
    async def main(interrupt):
        with interrupt.by({}.popitem):
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="KeyError"):
        interrupted(main, points=[1])


def test_a_main_that_does_not_use_its_interrupt_proves_nothing_and_is_refused(interrupted):
    async def main(interrupt):
        await asyncio.sleep(0)

    with pytest.raises(ValueError, match=r"main must use its interrupt: `with interrupt\.by\(action\):`"):
        interrupted(main)


async def test_an_interrupt_works_on_its_own_loop_only():
    with pytest.raises(RuntimeError, match="the loop that run_interrupted has made"), Interrupt(1).by(print):
        pass


def test_an_interrupt_from_the_keyboard_leaves_the_loop_fit_to_clean_up(shuffled):
    cleaned = []

    async def victim():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def main():
        task = asyncio.ensure_future(victim())
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        loop.call_soon(cleaned.append, "before")
        loop.call_soon(press)
        loop.call_soon(cleaned.append, "after")
        await task

    def press():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shuffled(main(), seed=2)
    assert cleaned == ["before", "after", True]


def test_wrong_names_and_a_clock_in_use_are_refused():
    async def main(interrupt=None):
        pass

    with pytest.raises(ValueError, match="loop must be one of"):
        run_shuffled(main(), seed=1, loop="trio")
    with pytest.raises(ValueError, match="tasks must be one of"):
        run_interrupted(main, tasks="late")

    async def nested(clock):
        run_shuffled(main(), seed=1, clock=clock)

    clock = Clock()
    with pytest.raises(RuntimeError, match="serves one loop at a time"):
        run_shuffled(nested(clock), seed=1, clock=clock)
