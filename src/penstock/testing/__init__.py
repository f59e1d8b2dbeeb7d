"""Tests of concurrent code that are exact, fast and leave nothing behind.

`run` runs a coroutine in virtual time, on asyncio's loop or on uvloop, and fails on whatever the coroutine leaves
behind; `run_shuffled` does so in an order of callbacks drawn from a seed, and `run_interrupted` once for each step that
it can be interrupted at. `Gauge` counts calls in progress, `Scripted` is a source that keeps books, `FakeClient` a
service that does, `Leftovers` finds tasks, timers, generators, threads and processes. Nothing here needs penstock's
streams or a test framework.

    from penstock.testing import Clock, Gauge, run

    async def main(clock: Clock) -> None:
        gauge = Gauge()
        work = gauge.wrap(asyncio.sleep)
        await asyncio.gather(*(work(60) for _ in range(5)))
        assert gauge.peak == 5
        assert clock.now == 60.0

    clock = Clock()
    run(main(clock), clock=clock, loop="uvloop", tasks="eager")
"""

from penstock.testing.client import FakeClient, FakeFailure
from penstock.testing.gauge import Gauge
from penstock.testing.leftovers import Leftovers
from penstock.testing.loops import LOOPS, TASK_FACTORIES, LoopName, TaskStart, new_loop, new_real_loop
from penstock.testing.running import run, run_in_real_time
from penstock.testing.scripted import Scripted
from penstock.testing.stepping import Interrupt, run_interrupted, run_shuffled
from penstock.testing.virtual import Clock, Deadlock, Livelock, VirtualLoop

__all__ = [
    "LOOPS",
    "TASK_FACTORIES",
    "Clock",
    "Deadlock",
    "FakeClient",
    "FakeFailure",
    "Gauge",
    "Interrupt",
    "Leftovers",
    "Livelock",
    "LoopName",
    "Scripted",
    "TaskStart",
    "VirtualLoop",
    "new_loop",
    "new_real_loop",
    "run",
    "run_in_real_time",
    "run_interrupted",
    "run_shuffled",
]
