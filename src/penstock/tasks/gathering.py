"""Finite work at once: all results, all outcomes, the first to finish or succeed, and failed tasks once more."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple, overload

from penstock.core import validate
from penstock.core.errors import OptionError, said
from penstock.core.log import LOG
from penstock.core.outcome import Cancelled, Failed, NotStarted, Ok, Outcome, Result
from penstock.core.retry import Retry, Seconds
from penstock.core.scope import NOTED_FAILURES
from penstock.engines.choosing import EngineOption
from penstock.tasks.calls import AsyncTask, Task, open_tasks, options_of, refuse_coroutine
from penstock.tasks.runner import Runner
from penstock.tasks.tokens import CancelToken


@overload
async def gather[T](
    tasks: Iterable[AsyncTask[T]],
    *,
    concurrency: int,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
    engine: EngineOption | None = None,
    grace: Seconds = 5.0,
) -> list[T]: ...
@overload
async def gather[T](
    tasks: Iterable[Task[T]],
    *,
    concurrency: int,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
    engine: EngineOption | None = None,
    grace: Seconds = 5.0,
) -> list[T]: ...
async def gather(
    tasks: Iterable[Any],
    *,
    concurrency: int,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
    engine: EngineOption | None = None,
    grace: Seconds = 5.0,
) -> list[Any]:
    """Return all results, in the order of the tasks; the first failure stops the others, then it is raised (P4, P5).

    Tasks are pulled from the iterable as places free up, so a million of them need not exist at once.

    Args:
        tasks: functions without arguments, sync or async, or coroutine objects; coroutine objects that are never
            started are closed. Plain `def` functions run in threads where more than one task may run at once.
        concurrency: tasks that run at once, an int >= 1.
        timeout: seconds that one attempt may take, > 0; default no limit.
        retry: when to call a failed task again; not for coroutine objects, which run once.
        engine: where plain `def` functions run (and `partial` objects of them), as for operators; lambdas and what is
            async run on the loop. Default: threads, where more than one task may run at once.
        grace: seconds that work which ignores its cancellation gets, >= 0; then a warning names it.

    Example:
        user, orders = await gather([lambda: fetch(user_url), lambda: fetch(orders_url)], concurrency=2)

    Raises:
        Exception: the first failure in time, as the task raised it. What failed beside it stands in its notes and, as
            an `ExceptionGroup`, at the end of its chain of `__context__`.
        OptionError: an option breaks its rule.
    """
    run = open_tasks("gather", tasks, concurrency=concurrency, timeout=timeout, retry=retry, engine=engine, grace=grace)
    try:
        async with run as results:
            return [result async for result in results]
    except BaseException as error:
        _show_others(error, [failed.error for failed in run.failures])
        raise


def _show_others(error: BaseException, failures: list[BaseException]) -> None:
    """Put the other failures at the end of the chain that a traceback shows."""
    others = [other for other in failures if other is not error]
    if not others:
        return
    last, seen = error, {id(error)}
    while (before := last.__context__) is not None and id(before) not in seen:
        last = before
        seen.add(id(last))
    group = BaseExceptionGroup("other tasks failed as well", others[:NOTED_FAILURES])
    BaseException.__setattr__(last, "__context__", group)  # as Python does: the class may forbid it


@overload
async def settle[T](
    tasks: Iterable[AsyncTask[T]],
    *,
    concurrency: int,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
    engine: EngineOption | None = None,
    cancel: CancelToken | None = None,
    grace: Seconds = 5.0,
) -> list[Outcome[T]]: ...
@overload
async def settle[T](
    tasks: Iterable[Task[T]],
    *,
    concurrency: int,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
    engine: EngineOption | None = None,
    cancel: CancelToken | None = None,
    grace: Seconds = 5.0,
) -> list[Outcome[T]]: ...
async def settle(
    tasks: Iterable[Any],
    *,
    concurrency: int,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
    engine: EngineOption | None = None,
    cancel: CancelToken | None = None,
    grace: Seconds = 5.0,
) -> list[Outcome[Any]]:
    """Return the outcome of each task, in their order; a failure stops nothing and is not raised (P4, P5).

    Each outcome is `Ok(value, index)` or `Failed(error, index, item, stage, attempts)`. When `cancel` is signalled,
    running tasks are cancelled, `Cancelled(index, reason)`, and the others never start, `NotStarted(index)`; of an
    iterable without a length, tasks that were never pulled are not in the list.

    Args:
        tasks: functions without arguments, sync or async, or coroutine objects, as for `gather`.
        concurrency: tasks that run at once, an int >= 1.
        timeout: seconds that one attempt may take, > 0; default no limit.
        retry: when to call a failed task again; not for coroutine objects, which run once.
        engine: as for `gather`.
        cancel: a token; when it is signalled, it stops what runs and what is still to come.
        grace: seconds that work which ignores its cancellation gets, >= 0; then a warning names it.

    Example:
        done, failed, *_ = partition(await settle(checks, concurrency=10))

    Raises:
        OptionError: an option breaks its rule; or a task can never run: it is neither callable nor a coroutine object,
            or it is a coroutine object that was awaited before, or one that `retry` would call again. This stops the
            others, as the first failure does in `gather`.
    """
    with options_of(tasks):
        runner: Runner[Any] = Runner("settle", cancel)
    await runner.run(tasks, concurrency=concurrency, timeout=timeout, retry=retry, engine=engine, grace=grace)
    return runner.outcomes()


@overload
async def race[T](tasks: Iterable[AsyncTask[T]], *, grace: Seconds = 5.0) -> T: ...
@overload
async def race[T](tasks: Iterable[Task[T]], *, grace: Seconds = 5.0) -> T: ...
async def race(tasks: Iterable[Any], *, grace: Seconds = 5.0) -> Any:
    """Return the result of the first task to finish, or raise its exception; the others are stopped and awaited (P4).

    All tasks start at once. Errors of the other tasks, while they are being stopped, are logged.

    Example:
        answer = await race([lambda: ask(one), lambda: ask(other)])

    Raises:
        Exception: the first task to finish has failed.
        OptionError: there are no tasks, or one can never run, as for `settle`.
    """
    outcomes = await _contest("race", tasks, lambda _: True, grace)
    try:
        return outcomes[-1].unwrap()
    finally:
        outcomes.clear()  # the traceback of a failure holds this frame


@overload
async def first_success[T](tasks: Iterable[AsyncTask[T]], *, grace: Seconds = 5.0) -> T: ...
@overload
async def first_success[T](tasks: Iterable[Task[T]], *, grace: Seconds = 5.0) -> T: ...
async def first_success(tasks: Iterable[Any], *, grace: Seconds = 5.0) -> Any:
    """Return the result of the first task that succeeds; the others are stopped and awaited (P4).

    All tasks start at once. Errors of the other tasks, while they are being stopped, are logged.

    Example:
        page = await first_success([partial(fetch, mirror) for mirror in mirrors])

    Raises:
        ExceptionGroup: all have failed; their errors, in the order of the tasks.
        OptionError: there are no tasks, or one can never run, as for `settle`.
    """
    outcomes = await _contest("first_success", tasks, lambda outcome: isinstance(outcome, Ok), grace)
    if isinstance(outcomes[-1], Ok):
        return outcomes[-1].value
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    outcomes.clear()
    errors = [failed.error for failed in sorted(failures, key=lambda failed: failed.index)]
    failures.clear()
    try:
        raise BaseExceptionGroup("no task has succeeded", errors)
    finally:
        errors.clear()  # the traceback holds this frame


async def _contest(
    name: str, tasks: Iterable[Any], wins: Callable[[Result[Any]], bool], grace: Seconds
) -> list[Result[Any]]:
    """Return the outcomes of tasks as they end, up to the first that wins; the others are stopped."""
    with options_of(tasks):
        chosen = list(tasks)
    if not chosen:
        raise OptionError(f"{name} needs at least one task, got none")
    run = open_tasks(name, chosen, concurrency=len(chosen), ordered=False, on_error="return", grace=grace)
    outcomes: list[Result[Any]] = []
    async with run as results:
        async for outcome in results:
            outcomes.append(outcome)
            if wins(outcome):
                break
    for failed in run.failures:
        LOG.warning("%s: a task that had lost failed while it was being stopped: %s", name, said(failed.error))
    return outcomes


@overload
async def retry_failed[T](
    tasks: Iterable[Callable[[], Awaitable[T]]],
    *,
    rounds: int,
    concurrency: int,
    timeout: Seconds | None = None,
    engine: EngineOption | None = None,
    grace: Seconds = 5.0,
) -> list[Result[T]]: ...
@overload
async def retry_failed[T](
    tasks: Iterable[Callable[[], T | Awaitable[T]]],
    *,
    rounds: int,
    concurrency: int,
    timeout: Seconds | None = None,
    engine: EngineOption | None = None,
    grace: Seconds = 5.0,
) -> list[Result[T]]: ...
async def retry_failed(
    tasks: Iterable[Callable[[], Any]],
    *,
    rounds: int,
    concurrency: int,
    timeout: Seconds | None = None,
    engine: EngineOption | None = None,
    grace: Seconds = 5.0,
) -> list[Result[Any]]:
    """Return the outcome of each task, in their order, after failed tasks were called again, up to `rounds` times.

    A round begins when the one before has ended, and calls only the tasks that failed in it; results take the places of
    their tasks. `attempts` of a `Failed` counts the calls. To retry each task as it fails, with growing waits, see
    `Retry`.

    Args:
        tasks: functions without arguments, sync or async.
        rounds: how many times failed tasks are called again at most, an int >= 0.
        concurrency: tasks that run at once, an int >= 1.
        timeout: seconds that one call may take, > 0; default no limit.
        engine: as for `gather`.
        grace: as for `gather`.

    Raises:
        OptionError: an option breaks its rule, or a task is a coroutine object, which runs only once.
    """
    with options_of(tasks):
        chosen = list(tasks)
    with options_of(chosen):
        rounds = validate.whole("rounds", rounds, least=0)
        for task in chosen:
            refuse_coroutine(task, "retry_failed")
    results: list[Result[Any]] = []
    again = list(range(len(chosen)))
    for attempts in range(1, rounds + 2):
        run = open_tasks(
            "retry_failed",
            [chosen[index] for index in again],
            concurrency=concurrency,
            timeout=timeout,
            engine=engine,
            on_error="return",
            grace=grace,
        )
        async with run as outcomes:
            settled = [outcome async for outcome in outcomes]
        for index, outcome in zip(again, settled, strict=True):
            placed = replace(outcome, index=index)
            if isinstance(placed, Failed):
                placed = replace(placed, attempts=attempts)
            results[index : index + 1] = [placed]
        again = [index for index in again if isinstance(results[index], Failed)]
        if not again:
            break
    return results


class Partition[T](NamedTuple):
    """Outcomes by kind, each list in the order of the input."""

    ok: list[Ok[T]]
    failed: list[Failed]
    cancelled: list[Cancelled]
    not_started: list[NotStarted]

    @property
    def values(self) -> list[T]:
        """The values of the tasks that succeeded."""
        return [outcome.value for outcome in self.ok]


def partition[T](outcomes: Iterable[Outcome[T]]) -> Partition[T]:
    """Sort outcomes by kind.

    Example:
        parted = partition(await settle(tasks, concurrency=10))
        print(len(parted.ok), "succeeded,", len(parted.failed), "failed")
    """
    parted: Partition[T] = Partition([], [], [], [])
    for outcome in outcomes:
        match outcome:
            case Ok():
                parted.ok.append(outcome)
            case Failed():
                parted.failed.append(outcome)
            case Cancelled():
                parted.cancelled.append(outcome)
            case NotStarted():
                parted.not_started.append(outcome)
    return parted
