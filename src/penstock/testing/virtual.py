"""Virtual time: seconds that pass only when nothing can run, on a loop of asyncio or of uvloop.

A mixin of the loop's class keeps the timers, and a *ticker*: a callback with one turn in every pass of the loop. If
nothing was scheduled between two of its turns, nothing is left to run, and time jumps to the next timer.
"""

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast, override

from penstock.testing.describe import describe_task
from penstock.testing.jobs import ExecutorJob, Jobs, Pool
from penstock.testing.timers import Timer, Timers

PATIENCE = 200_000
"""Passes of the loop without any time going by, after which a run counts as stuck."""


class Deadlock(RuntimeError):
    """Nothing can run, no timer waits and nothing holds the clock, but the run is not done."""


class Livelock(RuntimeError):
    """Something is always ready to run, so time never passes."""


class Clock:
    """The time of a virtual loop.

    When nothing on the loop can run, time jumps to the next timer. It stands still while jobs in executors work, until
    their results are on the loop, and inside `held()`. A clock serves one loop at a time; on the next one, time goes on
    from where it was.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._holders = 0
        self._lock = threading.Lock()
        self._loop: VirtualLoop | None = None

    def __repr__(self) -> str:
        return f"<Clock {self._now:g} s{', held' if self.is_held else ''}>"

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._now

    @property
    def is_held(self) -> bool:
        """Whether anybody is inside `held()`."""
        return self._holders > 0

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep time still inside the block: for real I/O, and for threads that the loop did not start.

        Works in any thread. While the clock is held, a loop that has nothing to run waits for the world outside, as a
        real loop does.
        """
        self.hold()
        try:
            yield
        finally:
            self.release()

    def sleep(self, seconds: float) -> None:
        """Block this thread for `seconds` of virtual time: `time.sleep` for plain functions under test.

        For jobs of `run_in_executor` and `to_thread`, and for threads inside `held()`; time does not wait for them
        while they sleep.

        Raises:
            RuntimeError: called on the loop's own thread, or on one for which time does not wait.
        """
        loop = self._loop
        if loop is None or _is_running_here(loop):
            raise RuntimeError("clock.sleep() is for threads beside a running loop")
        awake: Future[None] = Future()
        loop.call_soon_threadsafe(loop.put_to_sleep, threading.current_thread(), seconds, awake)
        awake.result()

    def hold(self) -> None:
        """Keep time still until a `release()`; `held()` does both."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Undo one `hold()`, in any thread."""
        with self._lock:
            self._holders -= 1
        if self._loop is not None:
            self._loop.look_again()

    def attach(self, loop: "VirtualLoop") -> None:
        """Serve `loop`."""
        self._loop = loop

    def require_free(self) -> None:
        """Raise RuntimeError if the clock serves a loop that is not closed."""
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError(f"a clock serves one loop at a time, and {self!r} serves {self._loop!r}")

    def jump(self, when: float) -> None:
        """Let time pass until `when`; it never goes back."""
        self._now = max(self._now, when)


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


if TYPE_CHECKING:
    from asyncio import SelectorEventLoop as _RealLoop
else:
    _RealLoop = object


class VirtualLoop(_RealLoop):
    """A loop in virtual time; `new_loop` puts it in front of a real loop class.

    Sockets, pipes, subprocesses and signals stay with the real loop, and time does not wait for them unless it is held.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self.clock: Clock = Clock() if clock is None else clock
        self.clock.attach(self)
        self.timers: Timers = Timers()
        self.slow_callback_duration: float = math.inf  # or debug mode blames the ticker for the time that it lets pass
        self._ticking = False
        self._ticker_context = contextvars.Context()
        self._anything_scheduled = False
        self._passes = 0
        self._stuck: Exception | None = None
        self._is_stopping = False
        self._workers: Executor | None = None
        self.jobs: Jobs = Jobs()
        self._no_jobs = asyncio.Event()
        self._no_jobs.set()

    @override
    def time(self) -> float:
        return self.clock.now

    @override
    def call_later[*Ts](
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Timer:
        return self.call_at(self.clock.now + delay, callback, *args, context=context)

    @override
    def call_at[*Ts](
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> Timer:
        timer = Timer(when, callback, args, self, context)
        self.timers.add(timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        assert isinstance(handle, Timer)
        self.timers.forget(handle)

    @override
    def call_soon[*Ts](
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        self._anything_scheduled = True
        if not self._ticking:
            self._start_ticking()
        return super().call_soon(callback, *args, context=context)

    @override
    def call_soon_threadsafe[*Ts](
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = super().call_soon_threadsafe(callback, *args, context=context)
        self._anything_scheduled = True  # only now: a turn of the ticker in between must not forget the callback
        return handle

    @override
    def stop(self) -> None:
        self._is_stopping = True  # uvloop stops in a pass of its own, or later
        super().stop()

    @override
    def run_forever(self) -> None:
        try:
            super().run_forever()
        finally:
            self._is_stopping = False
        stuck, self._stuck = self._stuck, None
        if stuck is not None:
            raise stuck

    def _start_ticking(self) -> None:
        if not self._ticking:
            self._ticking = True
            super().call_soon(self._tick, context=self._ticker_context)

    def _tick(self) -> None:
        self._ticking = False
        if self._anything_scheduled:
            self._anything_scheduled = False
            self._count_pass()
        elif not self._let_time_pass():
            return  # the next `call_soon`, job that is back or release of the clock starts the ticker again
        for timer in self.timers.take_due(self.clock.now):
            self.call_soon(timer.fire)
        self._start_ticking()

    def _let_time_pass(self) -> bool:
        if self._time_stands_still or self._is_stopping:
            return False
        when = self.timers.next_time()
        if when is None or math.isinf(when):
            self._give_up(Deadlock, "nothing can run and no timer waits")
            return False
        self.clock.jump(when)
        self._passes = 0
        return True

    def _count_pass(self) -> None:
        self._passes += 1
        if self._passes > PATIENCE and not self._time_stands_still:
            self._give_up(Livelock, f"something is always ready to run: {PATIENCE:,} passes and no time went by")

    def _give_up(self, error: type[Exception], reason: str) -> None:
        tasks = sorted(describe_task(task) for task in asyncio.all_tasks(self))
        self._stuck = error(f"at {self.clock.now:g} s {reason}; not done: {', '.join(tasks) or 'no task'}")
        self._passes = 0
        self.stop()

    @property
    def _time_stands_still(self) -> bool:
        return self.clock.is_held or self.jobs.hold_time

    def look_again(self) -> None:
        """Let time pass if it can now; callable from any thread."""
        with suppress(RuntimeError):  # of a loop that is closed
            self.call_soon_threadsafe(self._start_ticking)

    def put_to_sleep(self, thread: threading.Thread, seconds: float, awake: Future[None]) -> None:
        """Give `awake` its result after `seconds`, and do not wait for `thread` until then."""
        holder = self.jobs.pool_of(thread) or (self.clock if self.clock.is_held else None)
        if holder is None:
            awake.set_exception(RuntimeError("clock.sleep() is for executor jobs and for threads inside clock.held()"))
            return
        self.call_later(seconds, self._wake_thread, thread, holder, awake)
        holder.release()
        self._start_ticking()

    def _wake_thread(self, _: threading.Thread, holder: Pool | Clock, awake: Future[None]) -> None:
        holder.hold()
        awake.set_result(None)

    @override
    def set_default_executor(self, executor: Executor) -> None:
        super().set_default_executor(cast("ThreadPoolExecutor", executor))
        self._workers = executor

    @override
    def run_in_executor[*Ts, T](
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run `func` in a real thread or process; time stands still until its result is on the loop."""
        executor = executor or self._default_workers()
        job = executor.submit(func, *args)
        self.jobs.add(executor, job, func)
        self._no_jobs.clear()
        result = asyncio.wrap_future(job, loop=self)
        job.add_done_callback(lambda _: self._on_job_done(executor, job))  # after that which delivers the result
        return result

    def job_begins(self, executor: Executor, job: ExecutorJob, fn: Callable[..., Any]) -> None:
        """Note that `executor` makes a call without `run_in_executor`; time stands still until `job_ends`."""
        self.jobs.add(executor, job, fn)
        self._no_jobs.clear()

    def job_ends(self, executor: Executor, job: ExecutorJob) -> None:
        """Note that what such a call came to is on the loop."""
        self._remove_job(executor, job)

    def _default_workers(self) -> Executor:
        if self._workers is None:
            workers = ThreadPoolExecutor(thread_name_prefix="virtual")
            self.set_default_executor(workers)
            return workers
        return self._workers

    def _on_job_done(self, executor: Executor, job: Future[Any]) -> None:
        with suppress(RuntimeError):  # of a loop that is closed
            self.call_soon_threadsafe(self._remove_job, executor, job)

    def _remove_job(self, executor: Executor, job: ExecutorJob) -> None:
        self.jobs.remove(executor, job)
        if not self.jobs:
            self._no_jobs.set()
        self._start_ticking()

    @override
    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the jobs, which may sleep in virtual time, then for the threads, whatever `timeout` is."""
        await self._no_jobs.wait()
        with self.clock.held():
            await super().shutdown_default_executor()
