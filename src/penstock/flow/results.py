"""What became of runs and their steps, as users see it."""

from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, override

from penstock.core.errors import AttemptTimeout, PenstockError, said
from penstock.flow.context import State
from penstock.flow.usage import Usage

type Status = Literal["pending", "running", "paused", "completed", "failed", "cancelled", "killed"]
"""Of a run. Pending: recorded, not begun. Paused: something waits for an answer. Killed: its process died."""

type StepStatus = Literal["pending", "running", "waiting", "completed", "failed", "cancelled", "skipped", "killed"]
"""Of a step. Waiting: for an answer, with the steps round it. Killed: it was under way when the process died."""

type ErrorCode = Literal[
    "STEP_FAILED",
    "TASK_CREATION_FAILED",
    "OUTPUT_REFUSED",
    "REVIEW_REJECTED",
    "NO_STEPS",
    "WORKSPACE_ERROR",
    "DEFINITION_CHANGED",
    "ABORTED",
    "ALREADY_RUNNING",
    "PAUSED",
]
"""Why a run did not come to its end: the table stands in `docs/pipelines.md`."""

ENDED: Final = frozenset({"completed", "failed", "cancelled"})
"""Statuses of a run that has ended."""


class PipelineError(PenstockError):
    """A run failed, was cancelled, or cannot go on.

    Its cause is what the step raised; there is none if it was read from the workspace.

    Attributes:
        code: why.
        step: the path of the step, or None.
    """

    def __init__(self, code: ErrorCode, step: str | None, message: str) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.step: str | None = step


class OutputRefused(PenstockError):
    """A value cannot be stored; the message says the place in it and the type."""


def failure_text(error: BaseException) -> str:
    """Return what a step raised, as text: its type and what it says."""
    return str(error) if isinstance(error, AttemptTimeout) else said(error)


class Unread:
    """Stands for a value that is read when it is asked for."""

    __slots__ = ("load",)

    def __init__(self, load: Callable[[], Any]) -> None:
        self.load: Callable[[], Any] = load


def _fields(result: Any) -> tuple[Field[Any], ...]:
    return fields(result)


class _Reads:
    """A dataclass with a field whose value, where it was given an `Unread`, is read when it is first asked for."""

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, Unread):
                object.__delattr__(self, name)
                object.__setattr__(self, f"_{name}_unread", value)

    @override
    def __repr__(self) -> str:
        """Show its fields; what was not read yet is not read for this."""
        shown = (
            f"{each.name}={repr(vars(self)[each.name]) if each.name in vars(self) else '...'}" for each in _fields(self)
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    if not TYPE_CHECKING:  # to type checkers there are the fields alone

        def __getattr__(self, name: str) -> Any:
            unread = self.__dict__.get(f"_{name}_unread")
            if unread is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            value = unread.load()
            object.__setattr__(self, name, value)
            return value


@dataclass(frozen=True, repr=False)
class StepResult(_Reads):
    """What became of a step.

    Attributes:
        path: of the step.
        name: its own.
        status: what became of it.
        usage: what its requests cost, of all attempts.
        attempts: calls in all, over resumes; 0: the output was known by memo.
        output: what it gave, read when it is asked for; of a waiting step what waits; else None.
        error: what it raised, as text.
        started_at: when it was first called, aware, in UTC.
        finished_at: when it ended, aware, in UTC.
        by: who answered it.
        note: the note or the reason of the answer.
    """

    path: str
    name: str
    status: StepStatus
    usage: Usage
    attempts: int
    output: Any
    error: str | None
    started_at: datetime | None
    finished_at: datetime | None
    by: str | None
    note: str


@dataclass(frozen=True, repr=False)
class PipelineResult[O](_Reads):
    """What became of a run.

    Attributes:
        run_id: its id.
        pipeline: the name of its pipeline.
        status: what became of it.
        usage: what all requests cost, of all attempts of all steps.
        output: of the last step; None unless `completed`.
        outputs: of all finished steps, by path.
        steps: all that are recorded, in the order of the definition, a step before its children.
        error: why it failed or was cancelled.
        errors: all that failed of their own accord and were not collected, in order of time; and the `ABORTED`.
        changed: the paths of finished steps whose code is another now.
    """

    run_id: str
    pipeline: str
    status: Status
    usage: Usage
    output: O
    outputs: State
    steps: tuple[StepResult, ...]
    error: PipelineError | None
    errors: tuple[PipelineError, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True)
class RunInfo:
    """A run, in a line.

    Attributes:
        run_id: its id.
        pipeline: the name of its pipeline.
        status: what became of it.
        error: why it failed or was cancelled, as text.
        forked_from: the id of the run that it was forked from.
        began: when it was recorded, in seconds since 1970.
        ended: when it completed, failed or was cancelled, in seconds since 1970.
    """

    run_id: str
    pipeline: str
    status: Status
    error: str | None
    forked_from: str | None
    began: float
    ended: float | None


@dataclass(frozen=True, repr=False)
class Pending(_Reads):
    """A step that waits for an answer.

    Attributes:
        step: its path.
        value: what waits; of an interrupted step what the call was given. Read when it is asked for.
        reason: "review", or "interrupted": a call neither returned nor raised, and is not to be repeated unasked.
        refused: why the answer before was taken back.
    """

    step: str
    value: Any
    reason: Literal["review", "interrupted"]
    refused: str | None
