"""The waiting room of a window: calls that wait for their key are put aside, and hold no place meanwhile.

The task of such a call goes on to exist, so order, errors and cancellation are those of every other call. It gives its
place back, and the window may start another item; when it has its key, it takes the next place that is free, before any
new item. What is aside is not settled, so it counts against the bound of the window (P1): `buffer` is the room for it.
See `docs/decisions.md`, "A call that waits for its key is put aside".
"""

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, Protocol


class Places(Protocol):
    """A window, as its waiting room sees it.

    Attributes:
        places: how many tasks may be under way: one for each place, and one for each call that is aside.
    """

    places: int

    def free(self) -> int:
        """Count the free places."""
        ...

    def place_given_back(self) -> None:
        """Use a place that has become free before a call ended."""
        ...

    def place_taken(self) -> None:
        """Note that a call has taken a place that was free."""
        ...


class WaitingRoom:
    """Calls of a window that are aside.

    Attributes:
        count: how many there are.
        peak: the most that there have been at once.
    """

    __slots__ = ("_line", "_window", "count", "peak")

    def __init__(self, window: Places) -> None:
        self._window = window
        self._line: OrderedDict[asyncio.Future[None], None] = OrderedDict()  # those that have their key and no place
        self.count: int = 0
        self.peak: int = 0

    async def aside(self, permit: Coroutine[Any, Any, None]) -> None:
        """Await `permit` without a place; then wait for a place."""
        self._leave()
        place: asyncio.Future[None] | None = None
        try:
            await permit
            if self._line or self._window.free() <= 0:
                place = asyncio.get_running_loop().create_future()
                self._line[place] = None
                await place
        except BaseException:
            if place is None or place.cancelled() or not place.done():  # it has no place, and ends without
                if place is not None:
                    self._line.pop(place, None)
                self._come_back()
            raise
        if place is None:
            self._come_back()

    def admit(self) -> None:
        """Let in those who wait for a place, as far as places are free."""
        while self._line and self._window.free() > 0:
            place, _ = self._line.popitem(last=False)
            if not place.done():  # or it was cancelled, and its task is yet to hear of it
                self._come_back()
                place.set_result(None)

    def close(self) -> None:
        """Let go of the window."""
        del self._window

    def _leave(self) -> None:
        self.count += 1
        self.peak = max(self.peak, self.count)
        self._window.places += 1
        self.admit()
        self._window.place_given_back()

    def _come_back(self) -> None:
        self.count -= 1
        self._window.places -= 1
        self._window.place_taken()
