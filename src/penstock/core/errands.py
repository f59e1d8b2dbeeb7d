"""Calls that are made elsewhere, in a thread or a worker, without a task of their own.

High-level idea: a task that awaits a future which waits for that of a thread is three wake-ups and many frames an item.
A window that asks for nothing beside the call (no limit, no retry, no timeout) hands its item over as an errand, and
goes on. One callback of the loop brings all that have come back meanwhile. See "Errands" in `docs/decisions.md`.
"""

import asyncio
import contextvars
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


class Errand:
    """A call for the item at `index`.

    Attributes:
        began: when it began, by the clock of the run; None: it is not timed.
        stopped: whether nobody wants what it returns.
        value, error: what it came to, once it is back.
    """

    __slots__ = ("began", "error", "index", "item", "stopped", "value")

    def __init__(self, index: int, item: Any, began: float | None) -> None:
        self.index: int = index
        self.item: Any = item
        self.began: float | None = began
        self.stopped: bool = False
        self.value: Any = None
        self.error: BaseException | None = None

    def cancel(self, _reason: object = None) -> None:
        """Stop the call as far as that is possible; it comes back later in any case."""
        self.stopped = True


class Errands:
    """The errands of one window. `came` is told on the loop of those that are back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, came: Callable[[Sequence[Errand]], None]) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self._tell = came
        self._call_soon: Callable[..., object] = loop.call_soon_threadsafe
        self._back: deque[Errand] = deque()
        self._told = False
        self._context = contextvars.Context()  # or a thread would give its own

    @abstractmethod
    def begin(self, index: int, item: Any, began: float | None) -> Errand:
        """Have the call made for an item."""
        raise NotImplementedError

    def bring(self, errand: Errand) -> None:
        """Bring back an errand; callable from any thread.

        `_told` is reset before they are fetched: a race costs a second callback, never an errand.
        """
        self._back.append(errand)
        if not self._told:
            self._told = True
            with suppress(RuntimeError):  # the loop is closed: a thread comes back after its time
                self._call_soon(self._arrive, context=self._context)

    def _arrive(self) -> None:
        self._told = False
        fetch = self._back.popleft
        self._tell([fetch() for _ in range(len(self._back))])


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """How a window has calls made without tasks.

    Attributes:
        open: makes the errands of a window, which are made in copies of a context.
        given: turns an item and what its call returned into a result, or a `Later`.
    """

    open: Callable[[contextvars.Context, Callable[[Sequence[Errand]], None]], Errands]
    given: Callable[[Any, Any], Any]
