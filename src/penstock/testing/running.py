"""Runs a coroutine to its end, and fails if it leaves anything behind."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

from penstock.testing.leftovers import Leftovers
from penstock.testing.loops import LoopName, TaskStart, new_loop, new_real_loop
from penstock.testing.virtual import Clock


def run[T](
    main: Coroutine[Any, Any, T],
    *,
    loop: LoopName = "asyncio",
    tasks: TaskStart = "default",
    clock: Clock | None = None,
) -> T:
    """Run `main` in virtual time, return its result, and fail if it leaves anything behind.

    Time starts at 0 and passes only when nothing can run. So a run of an hour takes milliseconds, every event has its
    exact second, and a run that would hang raises instead. Jobs of `run_in_executor` and `to_thread` run in real
    threads while the clock stands still; `Clock.sleep` is their `time.sleep`, and `Clock.held` covers real I/O.

        async def main() -> float:
            await asyncio.sleep(3600)
            return asyncio.get_running_loop().time()

        assert run(main()) == 3600.0

    Args:
        main: the coroutine.
        loop: one of `LOOPS`.
        tasks: one of `TASK_FACTORIES`: how tasks start.
        clock: the clock to use, if you want to read it, or to go on with one.

    Raises:
        AssertionError: something was left behind: see `Leftovers`.
        Deadlock: nothing can run and no timer waits.
        Livelock: the loop has been busy for 200,000 passes in which no time went by.
        ValueError: `loop` or `tasks` is unknown.
        ModuleNotFoundError: uvloop is asked for and is not installed.
    """
    return _run(main, lambda: new_loop(loop, tasks=tasks, clock=clock))


def run_in_real_time[T](main: Coroutine[Any, Any, T], *, loop: LoopName = "asyncio", tasks: TaskStart = "default") -> T:
    """Run `main` as `asyncio.run` does, return its result, and fail if it leaves anything behind.

    For code that talks to processes and sockets. On uvloop it does not see timers that are left behind.
    """
    return _run(main, lambda: new_real_loop(loop, tasks=tasks))


def _run[T](main: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> T:
    with closing(main), Leftovers(), asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.get_loop()  # raises for a wrong name before anything is wrapped round `main`
        return runner.run(_leaving_nothing(main))


async def _leaving_nothing[T](main: Coroutine[Any, Any, T]) -> T:
    with Leftovers():
        return await main
