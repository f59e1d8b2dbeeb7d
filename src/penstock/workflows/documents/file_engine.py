"""The engine of `embed` where it is left to choose: the first files in a thread, what is more than a few in processes.

High-level idea: a worker process takes as long to start as 1.5 MB of files take here. So a small job starts none, and a
large one starts them while a thread does the first files; each next one goes there as soon as a worker has answered.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, override

from penstock.core.errors import MisuseError
from penstock.core.log import LOG
from penstock.engines.engine import Answer, Call, Engine, Progress
from penstock.engines.process.processes_engine import Processes
from penstock.engines.threads import Threads

FEW: Final = 500_000
"""Bytes of files from which on workers are started: a tenth of a second of work."""


class FileEngine(Engine):
    """Runs functions of a `FoundFile`. If no worker can be had, all of them run in the thread, and the log says why."""

    group_seconds: float | None = Processes.group_seconds
    depth: int = Processes.depth

    def __init__(self, workers: int) -> None:
        """Start nothing yet; `workers` processes at most, an int >= 1."""
        self._thread = Threads(1, name="read")
        self._processes = Processes(workers, imports_main=False)
        self._here: set[asyncio.Future[list[Answer]]] = set()
        self._there: dict[asyncio.Future[list[Answer]], asyncio.Future[list[Answer]]] = {}
        self._taken = 0
        self._has_workers: bool | None = None
        """Whether a worker has answered; False: none can be had."""

    @override
    def prepare(self, fn: Callable[..., Any], /) -> Any:
        return fn, self._processes.prepare(fn)

    @override
    def submit(self, calls: Sequence[Call], /) -> asyncio.Future[list[Answer]]:
        is_few = self._taken < FEW or not self._here  # the thread goes on while workers start
        if self._has_workers is False or (is_few and self._has_workers is None):
            return self._in_thread(calls[0])
        inner = self._processes.submit([Call(call.fn[1], call.arguments, call.most) for call in calls])
        answers = asyncio.get_running_loop().create_future()
        self._there[answers] = inner
        inner.add_done_callback(partial(self._answered, answers))
        return answers

    def _in_thread(self, call: Call) -> asyncio.Future[list[Answer]]:
        self._taken += call.arguments[0].size
        answers = self._thread.submit([Call(call.fn[0], call.arguments, call.most)])
        self._here.add(answers)
        answers.add_done_callback(self._here.discard)
        return answers

    def _answered(self, answers: asyncio.Future[list[Answer]], inner: asyncio.Future[list[Answer]]) -> None:
        del self._there[answers]
        given = inner.result()
        if self._has_workers is None and given:
            error = given[0].error
            self._has_workers = not isinstance(error, MisuseError)
            if not self._has_workers:
                LOG.info("files are read in a thread: %s", error)
        answers.set_result([] if self._has_workers is False else given)  # what has no answer is submitted again

    @override
    def peek(self, answers: asyncio.Future[list[Answer]], /) -> Progress | None:
        inner = self._there.get(answers)
        return None if inner is None else self._processes.peek(inner)

    @override
    def recall(self, answers: asyncio.Future[list[Answer]], /) -> int | None:
        inner = self._there.get(answers)
        return None if inner is None else self._processes.recall(inner)

    @override
    def stop(self, answers: asyncio.Future[list[Answer]], /) -> None:
        if (inner := self._there.get(answers)) is not None:
            self._processes.stop(inner)

    @override
    def slots(self) -> int:
        return self._processes.slots()

    @override
    def describe(self) -> str:
        return f"a thread and {self._processes.describe()}"

    @override
    async def aclose(self, grace: float = 5.0) -> None:
        try:
            await self._processes.aclose(grace)
        finally:
            await self._thread.aclose(grace)

    @override
    def abandon(self) -> None:
        self._processes.abandon()
        self._thread.abandon()
