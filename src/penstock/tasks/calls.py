"""The tasks of a run: where each is called, and how coroutine objects are closed that nobody awaits."""

import inspect
import sys
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, cast, override

from penstock.core import validate
from penstock.core.at_hand import length_of
from penstock.core.closing import close
from penstock.core.errors import MisuseError, OptionError
from penstock.core.meter import WAITED, Meter
from penstock.core.plan import AsyncFn, OnError, Plan
from penstock.core.retry import Retry, Seconds, within
from penstock.core.scope import Scope
from penstock.core.source import IteratorStage
from penstock.core.stage import Stage
from penstock.core.stage_limits import Hold, Limits
from penstock.core.window import Window
from penstock.engines.binding import Binding
from penstock.engines.choosing import EngineOption, Make, bound_to, chosen
from penstock.engines.engine import Engine
from penstock.engines.local import kind_of
from penstock.ops.description import Description, Origin
from penstock.run import Run
from penstock.streams import Stream
from penstock.tasks.feed import AddedTask

type AsyncTask[T] = Callable[[], Awaitable[T]] | Coroutine[Any, Any, T]
"""A function without arguments that returns an awaitable, or a coroutine object."""

type Task[T] = Callable[[], T | Awaitable[T]] | Coroutine[Any, Any, T]
"""A function without arguments, sync or async, or a coroutine object."""


class Given[T](Iterator[T]):
    """The tasks, as they are pulled; closing it closes the coroutine objects that nobody has started."""

    def __init__(self, tasks: Iterable[T]) -> None:
        self._tasks = tasks
        self._iterator = iter(tasks)
        self._waiting: set[Coroutine[Any, Any, Any]] = set()

    @override
    def __next__(self) -> T:
        task = next(self._iterator)
        if inspect.iscoroutine(task):
            self._waiting.add(task)
        return task

    def started(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Forget that coroutine object: it is awaited for the first time."""
        if inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED:
            raise MisuseError(f"cannot reuse already awaited coroutine: {coroutine!r} runs only once")
        self._waiting.discard(coroutine)

    def close(self) -> None:
        """Close the coroutine objects that were not started, also those behind the last task that was pulled."""
        for coroutine in self._waiting:
            coroutine.close()
        self._waiting.clear()
        if isinstance(self._tasks, Collection):
            for task in self._iterator:
                if inspect.iscoroutine(task):
                    task.close()
        else:
            close(self._iterator)


class Calls:
    """Calls the tasks of one run: async ones on the loop, plain `def` functions on the engine.

    `arguments` are given to every task. Lambdas and other callables run on the loop, and without an engine
    all do.
    """

    def __init__(
        self,
        scope: Scope,
        given: Given[Any],
        *,
        name: str,
        places: int,
        timeout: float | None,
        engine: Engine | Make | None,
        arguments: tuple[object, ...] = (),
    ) -> None:
        self._scope = scope
        self._name = name
        self._given = given
        self._timeout = timeout
        self._arguments = arguments
        self._elsewhere: Binding | None = None
        self._slots: Limits | None = None
        if engine is not None:
            plan: Plan[Any, Any] = Plan(name=name, work=self, concurrency=places)
            self._elsewhere, plan = bound_to(engine, scope, plan, counted=True)
            self._slots = plan.limits
        if self._slots is not None:
            self._slots.bind(scope.loop)

    async def __call__(self, task: Any) -> Any:
        """Call `task` and return its result."""
        if inspect.iscoroutine(task):
            self._given.started(task)
            return await self._awaited(task)
        if not callable(task):
            raise MisuseError(f"a task must be callable or a coroutine object, got {task!r}")
        if self._elsewhere is not None and _is_plain(task):
            return await self._called_elsewhere(task, self._elsewhere)
        result: Any = task(*self._arguments)
        if not isinstance(result, Awaitable) or isinstance(result, AddedTask):  # a task may end with adding another
            return cast("object", result)
        return await self._awaited(cast("Awaitable[Any]", result))

    async def _called_elsewhere(self, task: Callable[..., Any], binding: Binding) -> Any:
        if self._slots is None:
            return await binding.call(task, self._arguments, self._timeout)
        scope = self._scope
        asked = scope.clock()

        async def call(task: Callable[..., Any]) -> Any:
            WAITED.set(WAITED.get() + scope.clock() - asked)
            return await binding.call(task, self._arguments, self._timeout)

        meter = Meter(scope.clock, scope.opened, every_call=False)
        return await Hold(self._slots, self._name, meter, task).during(call, task)

    async def _awaited(self, result: Awaitable[Any]) -> Any:
        return await (result if self._timeout is None else within(self._timeout, result))


def _is_plain(task: Callable[..., object]) -> bool:
    if type(task) is FunctionType and (task.__name__ == "<lambda>" or task.__code__.co_flags & inspect.CO_COROUTINE):
        return False  # the usual ones: `kind_of` takes a microsecond
    return kind_of(task) == "plain"


def engine_of(option: EngineOption | None, places: int, timeout: float | None) -> Engine | Make | None:
    """Find the engine for plain functions among tasks: by default threads where they must not keep the loop.

    Raises:
        OptionError: the option breaks its rule.
    """
    return chosen(option, "plain", places if timeout is None else max(2, places))


def open_tasks(
    name: str,
    tasks: Iterable[Any],
    *arguments: object,
    concurrency: int,
    ordered: bool = True,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
    engine: EngineOption | None = None,
    on_error: OnError = "raise",
    watched: Callable[[Calls], AsyncFn[Any, Any]] | None = None,
    grace: Seconds,
) -> Run[Any]:
    """Make a run over the results of `tasks`, which are pulled as places free up; `watched` may wrap the calls.

    Raises:
        OptionError: an option breaks its rule; coroutine objects among the tasks are closed.
    """

    def open_window(scope: Scope, _in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        given = Given(tasks)
        source = IteratorStage(scope, given, "tasks")
        source.total = length_of(tasks)
        calls = Calls(scope, given, name=name, places=places, timeout=seconds, engine=where, arguments=arguments)
        work: AsyncFn[Any, Any] = calls if watched is None else watched(calls)
        plan: Plan[Any, Any] = Plan(
            name=name,
            work=work if retry is None else _repeated(work),
            concurrency=places,
            ordered=ordered,
            buffer=sys.maxsize,  # what is done waits for nobody: all results are wanted
            retry=retry,
            on_error=on_error,
        )
        return Window(scope, source, plan)

    with options_of(tasks):
        places = validate.whole("concurrency", concurrency, least=1)
        seconds = None if timeout is None else validate.seconds("timeout", timeout)
        if retry is not None:
            validate.instance("retry", retry, Retry, "a Retry")
        where = engine_of(engine, places, seconds)
        return one_stage(open_window).open(grace=grace)


def one_stage(open_window: Callable[[Scope, bool], Stage[Any]]) -> Stream[Any]:
    """Make a stream of one stage, which brings its own source."""
    return Stream(Description(Origin(open_window, _as_often_as_asked)))


def _as_often_as_asked() -> None:
    """Allow it to be opened."""


@contextmanager
def options_of(tasks: Iterable[Any]) -> Generator[None]:
    """Check options in this block: a wrong one closes the coroutine objects among `tasks`, which nobody will start."""
    validate.instance("tasks", tasks, Iterable, "an iterable of tasks")
    try:
        yield
    except OptionError:
        Given(tasks).close()
        raise


def _repeated(call: AsyncFn[Any, Any]) -> AsyncFn[Any, Any]:
    """Wrap `call`, for tasks that may be called again."""

    async def repeated(task: Any) -> Any:
        refuse_coroutine(task, "retry")
        return await call(task)

    return repeated


def refuse_coroutine(task: object, option: str) -> None:
    """Raise for a coroutine object where a task may run more than once."""
    if inspect.iscoroutine(task):
        raise MisuseError(f"{option} needs functions that can be called again, got the coroutine object {task!r}")
