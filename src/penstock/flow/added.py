"""Steps as stages of a stream: what a call of a step needs of the stage and the run that it is part of.

A leaf is called within its own limits, tries and timeout. A composite step, such as a pipeline, is one call for an
item: within it, its steps are called one after another, so `concurrency` counts calls (P1).
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, override

from penstock.core.errors import PenstockError, as_failure
from penstock.core.meter import WAITED, Meter
from penstock.core.plan import AsyncFn, Plan
from penstock.core.retry import Exhausted, thread_back
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.window import Window
from penstock.engines.binding import Binding
from penstock.engines.choosing import OWN
from penstock.ops.adding import ADD
from penstock.ops.metadata import RETRIES
from penstock.ops.operator import Adapt
from penstock.tasks.tokens import CancelToken

NUMBER: Final = re.compile(r"\[\d+\]")
"""The number of an item or a round in a path."""

type StepCall = Callable[[Any, str], Awaitable[Any]]
"""StepCalls a step with a value, under a path; gives its output."""


class StepWindow(Window[Any, Any]):
    """A window whose calls have cancel tokens: they are signalled before the calls are cancelled."""

    __slots__ = ("tokens",)

    def __init__(self, scope: Scope, upstream: Stage[Any], plan: Plan[Any, Any], *, keyed: bool) -> None:
        """Open a window for calls that wait for the keys of limits if they are `keyed`."""
        super().__init__(scope, upstream, plan)
        if keyed:
            self._open_waiting_room()
        self.tokens: set[CancelToken] = set()

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more is to be tried."""
        return self._stopping

    @override
    def _halt(self, index: int) -> None:
        for token in list(self.tokens):
            token.cancel(self.scope.reason)
        super()._halt(index)

    @override
    def close(self) -> None:
        super().close()
        self.plan: Plan[Any, Any] = self.plan.replaced(work=_over)  # what it calls holds this window


async def _over(_: Any) -> Any:
    """Stand for the calls of a stage that is closed."""
    raise AssertionError


class StepCalls:
    """The calls of a step in one stage of one run.

    Attributes:
        scope: of the run.
        concurrency: how many at once.
        counted: whether the user has said so.
        pipeline: the name of the pipeline that its steps are of, or "".
        keyed: whether one of them has a limit with keys.
        window: the stage; set when it is opened.
    """

    window: StepWindow

    def __init__(self, top: object, scope: Scope, concurrency: int | None, pipeline: str) -> None:
        """Prepare calls of the step `top`."""
        self._top = top
        self.scope: Scope = scope
        self.concurrency: int = concurrency or 1
        self.counted: bool = concurrency is not None
        self.pipeline: str = pipeline
        self.keyed: bool = False
        self._threads: Binding | None = None

    @property
    def meter(self) -> Meter:
        """The measurements of the stage."""
        return self.window.meter

    def is_top(self, step: object) -> bool:
        """Whether the calls of the stage are those of this step, not of one round it."""
        return step is self._top

    def note_retry(self) -> None:
        """Count an attempt that follows a failed one."""
        self.window.meter.note_retry()
        if (counted := RETRIES.get()) is not None:
            counted[0] += 1

    def may_retry(self, _: object) -> bool:
        """Whether another try may be made."""
        return not self.window.is_stopping

    def threads(self) -> Binding:
        """Return the threads of the stage: one for each call."""
        if self._threads is None:
            threads = OWN["thread"](self.concurrency, self.pipeline or "steps")
            self.scope.resources.append(threads)
            self._threads = Binding(threads, self.scope.closed)
        return self._threads

    def log(self, path: str) -> logging.Logger:
        """Return the logger of a step."""
        return logger_of(self.pipeline, path)


def logger_of(pipeline: str, path: str) -> logging.Logger:
    """Return the logger of the step at a path, the same for all items of a map and all rounds of a loop."""
    names = filter(None, (pipeline, step_name(path).replace("/", ".")))
    return logging.getLogger(".".join(("penstock.flow", *names)))


def step_name(path: str) -> str:
    """Return the path of a step without the numbers of items and rounds."""
    return NUMBER.sub("", path)


@dataclass(slots=True, eq=False)
class LeafCall:
    """One call of a leaf, with its tries.

    Attributes:
        value: what it is called with.
        path: of the leaf.
        token: is signalled when the call is cancelled.
        began: by the clock of the run.
        attempts: how many were made.
    """

    value: Any
    path: str
    token: CancelToken
    began: float
    attempts: int = 0


class CannotBegin(PenstockError):
    """Something that a step needs before its first attempt is not there; the message names it."""


class StepFailed(Exception):
    """A step in a composite one failed for good.

    Attributes:
        path: of the step.
        error: what it raised; None if it is a composite step that says why itself.
        attempts: how many were made.
        is_begun: whether anything of it was begun.
        said: why, if there is no error.
    """

    def __init__(
        self, path: str, error: BaseException | None, attempts: int = 1, *, is_begun: bool = True, said: str = ""
    ) -> None:
        super().__init__()
        self.path: str = path
        self.error: BaseException | None = error
        self.attempts: int = attempts
        self.is_begun: bool = is_begun
        self.said: str = said


def located(call: StepCall) -> StepCall:
    """Wrap the call of a leaf in a composite step: what fails says where."""

    async def located_call(value: Any, path: str) -> Any:
        try:
            return await call(value, path)
        except Exhausted as error:
            raise StepFailed(path, as_failure(error.error, f"step {path!r}"), error.attempts) from error.error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise StepFailed(path, as_failure(error, f"step {path!r}")) from error
        except Exception as error:
            raise StepFailed(path, as_failure(error, f"step {path!r}")) from error

    return located_call


async def left_thread(failed: StepFailed) -> None:
    """Wait for the thread that a failed step has left running, if there is one."""
    if failed.error is not None and (back := thread_back(failed.error)) is not None:
        await back()


def note_seconds(call: LeafCall, clock: Callable[[], float]) -> None:
    """Have the latency of the stage count from this attempt on."""
    WAITED.set(clock() - call.began)


class CanBeCalled(Protocol):
    """A step."""

    def bind(self, calls: StepCalls) -> StepCall:
        """Return what calls it in a stage of a run."""
        ...


@dataclass(frozen=True, slots=True)
class Added:
    """A step with the plan of its stage; opens a window per run.

    Attributes:
        step: what is called.
        plan: of the window.
        concurrency: the option.
        pipeline: the name of the pipeline that its steps are of, or "".
        path: of the step.
    """

    step: CanBeCalled
    plan: Plan[Any, Any]
    concurrency: int | None
    pipeline: str
    path: str

    def open(self, scope: Scope, upstream: Stage[Any], adapt: Adapt | None, in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
        """Open the window under `upstream`; `in_order` says whether the order of its output can be seen."""
        calls = StepCalls(self.step, scope, self.concurrency, self.pipeline)
        call = self.step.bind(calls)
        ordered = in_order if self.plan.ordered is None else self.plan.ordered
        plan = self.plan.replaced(work=_of_item(call, self.path), ordered=ordered, concurrency=calls.concurrency)
        if adapt is not None:
            plan = adapt(ADD, plan)
        calls.window = window = StepWindow(scope, upstream, plan, keyed=calls.keyed)
        return window


def _of_item(call: StepCall, path: str) -> AsyncFn[Any, Any]:
    async def work(item: Any) -> Any:
        return await call(item, path)

    return work
