"""Which clock a run measures by, and what it counts when tasks never begin."""

import asyncio
from time import monotonic

import pytest

import penstock
from penstock import testing
from penstock.core.clock import clock_of


@pytest.mark.parametrize("name", testing.LOOPS, ids=["of-python", "of-libuv"])
def test_a_real_loop_is_measured_by_the_clock_of_the_machine(name):
    """The time of a loop of uvloop has a resolution of a millisecond."""
    if name == "uvloop":
        pytest.importorskip("uvloop")
    loop = testing.new_real_loop(name)
    try:
        assert clock_of(loop) is monotonic
    finally:
        loop.close()


async def test_a_virtual_loop_is_measured_by_its_own_clock(clock):
    await asyncio.sleep(17)
    assert clock_of(asyncio.get_running_loop())() == clock.now == 17


@pytest.mark.parametrize("concurrency", [2, 3, 5])
@pytest.mark.parametrize("tasks", testing.TASK_FACTORIES)
def test_what_never_began_was_not_started(tasks, concurrency):
    """P5: a task that is cancelled before its first step was taken and is cancelled, and its work was not started."""
    began = []

    async def work(number):
        began.append(number)
        raise ValueError(number)

    async def main():
        async with penstock.stream(range(9)).map(work, concurrency=concurrency, name="work").open() as items:
            with pytest.raises(ValueError, match="0"):
                await anext(items)
        return items.stats()["work"]

    stage = testing.run(main(), tasks=tasks)
    assert began == [0]
    assert (stage.started, stage.failed, stage.succeeded) == (1, 1, 0)
    assert stage.cancelled == (concurrency - 1 if tasks == "lazy" else 0)
