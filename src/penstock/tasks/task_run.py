"""Tasks that are given a cancel token: the first failure signals it, and the others can end themselves."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack, cast, overload

from penstock.core import validate
from penstock.core.errors import ResultFailed
from penstock.core.outcome import Failed, Ok, Outcome
from penstock.core.plan import AsyncFn
from penstock.core.retry import Seconds
from penstock.tasks.calls import Calls, options_of
from penstock.tasks.runner import Runner
from penstock.tasks.tokens import CancelToken


@dataclass(frozen=True, slots=True)
class TaskRun[T]:
    """The result of `run_tasks`.

    Attributes:
        outcomes: the outcome of each task, in the order of the input.
        first_failure_in_time: the index of the task that failed first, or None.
        aborted: whether the caller's token was signalled before all tasks had ended.
    """

    outcomes: list[Outcome[T]]
    first_failure_in_time: int | None
    aborted: bool

    @property
    def results(self) -> list[T]:
        """What tasks returned, in the order of the input, without gaps.

        Also results that `is_failed` calls failures.
        """
        results: list[T] = []
        for outcome in self.outcomes:
            if isinstance(outcome, Ok):
                results.append(outcome.value)
            elif isinstance(outcome, Failed) and isinstance(outcome.error, ResultFailed):
                results.append(cast("T", outcome.error.result))
        return results

    @property
    def failures(self) -> dict[int, Failed]:
        """The failures by the index of their task, in the order of the input."""
        return {outcome.index: outcome for outcome in self.outcomes if isinstance(outcome, Failed)}

    @property
    def first_failure_index(self) -> int | None:
        """The index of the first task in the input that failed, or None."""
        return next((outcome.index for outcome in self.outcomes if isinstance(outcome, Failed)), None)


class _RunTasksOptions[T](TypedDict, total=False):
    concurrency: int
    is_failed: Callable[[T], object] | None
    cancel: CancelToken | None
    timeout: Seconds | None
    grace: Seconds


@overload
async def run_tasks[T](
    tasks: Iterable[Callable[[CancelToken], Awaitable[T]]], **options: Unpack[_RunTasksOptions[T]]
) -> TaskRun[T]: ...
@overload
async def run_tasks[T](
    tasks: Iterable[Callable[[CancelToken], T | Awaitable[T]]], **options: Unpack[_RunTasksOptions[T]]
) -> TaskRun[T]: ...
async def run_tasks(
    tasks: Iterable[Callable[[CancelToken], Any]],
    *,
    concurrency: int = 3,
    is_failed: Callable[[Any], object] | None = None,
    cancel: CancelToken | None = None,
    timeout: Seconds | None = None,
    grace: Seconds = 5.0,
) -> TaskRun[Any]:
    """Run tasks up to the first failure, and let the others end themselves (P1, P4, P5).

    Each task is called with a `CancelToken` of this run. The first failure signals it, and so does the caller's token;
    then nothing more starts, and what runs may still return a result. After `grace` seconds it is cancelled and waited
    for; after as many again a warning names it, and it is left behind. A task that answers with `CancelledError` is
    `Cancelled`. No failure of a task is raised. A cancellation of `run_tasks` itself is raised: the token says "caller
    cancelled", and the tasks are cancelled at once.

    Args:
        tasks: functions of a token, sync or async, pulled as places free up. Plain `def` functions run in threads where
            more than one task may run at once.
        concurrency: tasks that run at once, an int >= 1; with 1, strictly one after the other.
        is_failed: a plain function that tells whether a result is a failure; if it raises, that is a failure, too.
        cancel: the caller's token; its signal ends the run like a failure, and `aborted` says so.
        timeout: seconds that a task may take, > 0; default no limit.
        grace: seconds that tasks get to answer their token, and again to answer their cancellation, >= 0.

    Example:
        run = await run_tasks([partial(crawl, site) for site in sites], concurrency=5, cancel=token)
        if run.first_failure_index is not None:
            print(run.failures[run.first_failure_index])

    Raises:
        OptionError: an option breaks its rule.
    """
    with options_of(tasks):
        if is_failed is not None:
            validate.plain_function("is_failed", is_failed)
        runner = _FailFast("run_tasks", cancel, is_failed, validate.seconds("grace", grace, zero=True))
    await runner.run(tasks, runner.token, concurrency=concurrency, timeout=timeout, watched=runner.watched, grace=grace)
    return TaskRun(runner.outcomes(), runner.first_failure_in_time, runner.aborted)


class _FailFast(Runner[Any]):
    """Stops the run at the first failure, through a token."""

    def __init__(
        self, name: str, cancel: CancelToken | None, is_failed: Callable[[Any], object] | None, answer: float
    ) -> None:
        super().__init__(name, cancel, answer)
        self._is_failed = is_failed

    def watched(self, calls: Calls) -> AsyncFn[Any, Any]:
        """Wrap `calls`: the first failure signals the token before another task can start."""

        async def call(task: Any) -> Any:
            try:
                value = await calls(task)
                if self._is_failed is not None and validate.plain_result("is_failed", self._is_failed(value)):
                    raise ResultFailed(value)  # noqa: TRY301 -- to be treated as what a task raises
            except BaseException:
                self.stop("sibling failed")
                raise
            return value

        return call
