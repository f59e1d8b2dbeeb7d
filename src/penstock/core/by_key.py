"""One part of a limit for each key in use: those that are idle are forgotten."""

from collections.abc import Callable, Collection, Hashable
from typing import Final, Protocol

_FEW: Final = 64
"""Parts of a limit that are kept without a look at which are idle."""


class Part(Protocol):
    """What a limit knows of one key, or of all if it has no keys."""

    def is_idle(self) -> bool:
        """Whether a new part would be the same."""
        ...

    def forget_tasks(self) -> None:
        """Forget who holds it and who waits."""

    def pause(self, seconds: float, /) -> None:
        """Let nobody in for so many seconds, then begin slowly."""

    def pause_left(self) -> float:
        """Return the seconds until the pause is over; 0 if there is none."""
        ...


class ByKey[P: Part]:
    """The part of a limit for each key in use.

    A line is forgotten when it becomes idle. Schedules become idle by the clock, so they are forgotten when there are
    twice as many as at the last look: this is O(1) for each new key, and there are never more than twice as many as are
    in use, plus `_FEW`.
    """

    __slots__ = ("_by_key", "_look_at", "_make")

    def __init__(self, make: Callable[[], P]) -> None:
        self._make = make
        self._by_key: dict[Hashable, P] = {}
        self._look_at = _FEW

    def __len__(self) -> int:
        return len(self._by_key)

    def of(self, key: Hashable) -> P:
        """Return the part for `key`; use it at once, so that it is not idle."""
        part = self._by_key.get(key)
        if part is None:
            if len(self._by_key) >= self._look_at:
                self._by_key = {known: part for known, part in self._by_key.items() if not part.is_idle()}
                self._look_at = max(_FEW, 2 * len(self._by_key))
            part = self._by_key[key] = self._make()
        return part

    def forget(self, key: Hashable) -> None:
        """Forget the part for `key`, which has become idle."""
        self._by_key.pop(key, None)

    def all(self) -> Collection[P]:
        """Return all parts."""
        return self._by_key.values()
