"""The jobs that executors run for a loop, and which of their threads sleep in virtual time."""

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol


class ExecutorJob(Protocol):
    """A call that an executor makes: a future, say."""

    def done(self) -> bool:
        """Whether it is over."""
        ...


@dataclass(slots=True)
class Pool:
    """An executor with jobs. Each job holds the clock, unless its thread sleeps.

    A job that has no thread yet holds the clock too, as it will have one in a moment: unless all threads sleep.
    """

    threads: Collection[threading.Thread] | None
    jobs: dict[ExecutorJob, Callable[..., Any]] = field(default_factory=dict[ExecutorJob, Callable[..., Any]])
    asleep: int = 0

    @property
    def holds(self) -> bool:
        """Whether time must wait for one of the jobs."""
        return len(self.jobs) > self.asleep and (self.threads is None or len(self.threads) > self.asleep)

    def hold(self) -> None:
        """Note that a sleeping thread has woken."""
        self.asleep -= 1

    def release(self) -> None:
        """Note that a thread has gone to sleep."""
        self.asleep += 1


class Jobs:
    """The executors that have jobs."""

    def __init__(self) -> None:
        self._pools: dict[Executor, Pool] = {}

    def __bool__(self) -> bool:
        return bool(self._pools)

    @property
    def hold_time(self) -> bool:
        """Whether time must wait for any job."""
        return any(pool.holds for pool in self._pools.values())

    @property
    def at_work(self) -> Mapping[ExecutorJob, Callable[..., Any]]:
        """The jobs that have no outcome yet, with their functions."""
        return {job: fn for pool in self._pools.values() for job, fn in pool.jobs.items() if not job.done()}

    def add(self, executor: Executor, job: ExecutorJob, fn: Callable[..., Any]) -> None:
        """Note that `executor` has taken `job`, a call of `fn`."""
        if executor not in self._pools:
            self._pools[executor] = Pool(getattr(executor, "_threads", None))  # what a ThreadPoolExecutor calls them
        self._pools[executor].jobs[job] = fn

    def remove(self, executor: Executor, job: ExecutorJob) -> None:
        """Note that the outcome of `job` is on the loop."""
        jobs = self._pools[executor].jobs
        del jobs[job]
        if not jobs:
            del self._pools[executor]

    def pool_of(self, thread: threading.Thread) -> Pool | None:
        """Return the pool to which `thread` belongs."""
        return next((pool for pool in self._pools.values() if thread in (pool.threads or ())), None)
