"""The outcomes of items and of tasks."""

from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from penstock.core.errors import NoResultError, said
from penstock.core.text import named


@dataclass(frozen=True, slots=True)
class Ok[T]:
    """An item whose work returned `value`; `index` is its position in the stage's input, from 0."""

    value: T
    index: int

    def unwrap(self) -> T:
        """Return the value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Failed:
    """An item whose work failed for good.

    `index` is the item's position in the failing stage's input, from 0; `attempts` counts total tries, from 1.
    For a source that failed, `index` is the number of items it gave and `item` is None. In a durable run, `root` is the
    key of the root that the item came from.
    """

    error: BaseException
    index: int
    item: Any
    stage: str
    attempts: int = 1
    root: str | int | None = None

    def unwrap(self) -> NoReturn:
        """Raise the error."""
        try:
            raise self.error
        finally:
            del self  # the traceback holds this frame, and this frame would hold the error

    def __str__(self) -> str:
        return f"{self.place}: {said(self.error)}"

    @property
    def place(self) -> str:
        """Where it failed: stage, item, attempts."""
        tries = f", attempt {self.attempts}" if self.attempts > 1 else ""
        root = f", root {named(self.root)}" if self.root is not None else ""
        return f"stage {self.stage!r}, item {self.index}{tries}{root}"


type Reason = Literal["sibling failed", "consumer left", "deadline", "caller cancelled"]
"""Why work was cancelled: an item of its run failed, nobody wants its result, time was up, or who waited was cancelled.

Work finds it in the message of its `CancelledError`.
"""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A task that was stopped while it ran; `index` is its position in the input, from 0."""

    index: int
    reason: Reason

    def unwrap(self) -> NoReturn:
        """Raise `NoResultError`."""
        raise NoResultError(f"task {self.index} was cancelled: {self.reason}")


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A task that never started; `index` is its position in the input, from 0."""

    index: int

    def unwrap(self) -> NoReturn:
        """Raise `NoResultError`."""
        raise NoResultError(f"task {self.index} was not started")


type Result[T] = Ok[T] | Failed
"""The outcome of an item whose work has ended."""

type Outcome[T] = Ok[T] | Failed | Cancelled | NotStarted
"""The outcome of a task."""
