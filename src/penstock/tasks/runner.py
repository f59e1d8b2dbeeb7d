"""Runs tasks that can be stopped before their end, and knows the outcome of each."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from penstock.core import validate
from penstock.core.at_hand import length_of
from penstock.core.errors import WorkRaised
from penstock.core.outcome import Cancelled, Failed, NotStarted, Outcome, Reason
from penstock.core.plan import AsyncFn
from penstock.core.retry import Retry, Seconds
from penstock.engines.choosing import EngineOption
from penstock.run import Run
from penstock.tasks.calls import Calls, Given, open_tasks
from penstock.tasks.tokens import CancelToken, in_loop


class Runner[T]:
    """One run of tasks; `cancel`, if signalled, stops it.

    Tasks that are stopped find the `token` signalled, and are cancelled `answer` seconds later.

    Attributes:
        token: signalled when the run is stopped.
        aborted: whether `cancel` was signalled before all tasks had ended.
        first_failure_in_time: the index of the task that failed first, or None.
    """

    def __init__(self, name: str, cancel: CancelToken | None, answer: float = 0.0) -> None:
        if cancel is not None:
            validate.instance("cancel", cancel, CancelToken, "a CancelToken")
        self._name = name
        self._cancel = cancel
        self._answer = answer
        self.token: CancelToken = CancelToken()
        self._outcomes: dict[int, Outcome[T]] = {}
        self._run: Run[Any] | None = None
        self._stopped_for: Reason | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.aborted: bool = False
        self.first_failure_in_time: int | None = None

    async def run(
        self,
        tasks: Iterable[Any],
        *arguments: object,
        concurrency: int,
        timeout: Seconds | None = None,
        retry: Retry | None = None,
        engine: EngineOption | None = None,
        watched: Callable[[Calls], AsyncFn[Any, Any]] | None = None,
        grace: Seconds,
    ) -> None:
        """Run the tasks to their end, or until they are stopped."""
        run = self._run = open_tasks(
            self._name,
            tasks,
            *arguments,
            concurrency=concurrency,
            ordered=False,
            timeout=timeout,
            retry=retry,
            engine=engine,
            on_error="return",
            watched=watched,
            grace=grace,
        )
        forget = _nothing
        try:
            if self._cancel is not None:
                if self._cancel.cancelled:
                    self.aborted = True
                    return
                loop = asyncio.get_running_loop()
                forget = self._cancel.on_cancel(lambda: in_loop(loop, self._caller_cancels))
            async with run as results:
                await self._read(results)
        except Exception as error:
            if all(failed.error is not error for failed in run.failures):
                raise
        finally:
            forget()
            if self._timer is not None:
                self._timer.cancel()
            self._finish(tasks)

    async def _read(self, results: Run[Any]) -> None:
        try:
            async for outcome in results:
                self._note(outcome)
        except asyncio.CancelledError:  # the caller's: tasks hear of it before leaving the run cancels them
            self.stop("caller cancelled")
            raise

    def stop(self, reason: Reason) -> None:
        """Start nothing more, signal the token, and cancel tasks that have not answered in time.

        The first reason counts.
        """
        if self._stopped_for is None and self._run is not None:
            self._stopped_for = reason
            self._run.stop()
            self._timer = asyncio.get_running_loop().call_later(self._answer, self._run.abort, reason)
            self.token.cancel(reason)

    def outcomes(self) -> list[Outcome[T]]:
        """Return the outcome of each task, in the order of the input."""
        return [self._outcomes[index] for index in range(len(self._outcomes))]

    def _note(self, outcome: Outcome[T]) -> None:
        if isinstance(outcome, Failed):
            was_asked_for = self.first_failure_in_time is not None or self._stopped_for == "caller cancelled"
            if self._stopped_for is not None and was_asked_for and _is_cancellation(outcome.error):
                outcome = Cancelled(outcome.index, self._stopped_for)  # what a token may be answered with
            elif self.first_failure_in_time is None:
                self.first_failure_in_time = outcome.index
        self._outcomes[outcome.index] = outcome

    def _caller_cancels(self) -> None:
        self.aborted = True
        self.stop("caller cancelled")

    def _finish(self, tasks: Iterable[Any]) -> None:
        """Add the outcomes of tasks that gave none."""
        run, reason = self._run, self._stopped_for or "caller cancelled"
        assert run is not None
        self._stopped_for = reason
        stats = list(run.stats())
        taken = stats[0].taken if stats else 0
        if not stats:
            Given(tasks).close()
        for failed in run.failures:  # while they were being stopped
            if failed.index not in self._outcomes:
                self._note(failed)
        for index in range(taken):
            self._outcomes.setdefault(index, Cancelled(index, reason))
        for index in range(taken, length_of(tasks) or 0):
            self._outcomes.setdefault(index, NotStarted(index))


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, WorkRaised) and isinstance(error.__cause__, asyncio.CancelledError)


def _nothing() -> None: ...
