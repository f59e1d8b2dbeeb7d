"""What became of an item."""

from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from penstock.core.errors import said


@dataclass(frozen=True, slots=True)
class Ok[T]:
    """An item whose work returned `value`; `index` is its position in the stage's input, from 0."""

    value: T
    index: int

    def unwrap(self) -> T:
        """The value."""
        return self.value


@dataclass(frozen=True, slots=True)
class Failed:
    """An item whose work failed for good.

    `index` is the item's position in the failing stage's input, from 0; `attempts` counts total tries, from 1.
    For a source that failed, `index` is the number of items it gave and `item` is None.
    """

    error: BaseException
    index: int
    item: Any
    stage: str
    attempts: int = 1

    def unwrap(self) -> NoReturn:
        """Raise the error."""
        raise self.error

    def __str__(self) -> str:
        return f"{self.place}: {said(self.error)}"

    @property
    def place(self) -> str:
        """Where it failed: stage, item, attempts."""
        tries = f", attempt {self.attempts}" if self.attempts > 1 else ""
        return f"stage {self.stage!r}, item {self.index}{tries}"


type Reason = Literal["sibling failed", "consumer left", "deadline", "caller cancelled"]
"""Why work was cancelled: an item of its run failed, nobody wants its result, time was up, whoever waits was cancelled.

Work finds it in the message of its `CancelledError`.
"""

type Result[T] = Ok[T] | Failed
