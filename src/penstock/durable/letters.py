"""Dead letters: what failed of a root for good, as texts; they hold neither the item nor the frames of the error.

However much of a root fails, a bounded part of it is kept: the first letters, and the number of the others.
"""

import traceback
from collections.abc import Callable, Iterator
from time import time
from typing import Final, NamedTuple

KEPT: Final = 1_000
"""Letters of one root that are kept, at most."""

_CHARACTERS: Final = 1 << 20
"""Characters of all letters of one root; beyond, no more letters are kept."""

_LONGEST: Final = 64_000
"""Characters of a text in a letter, at most."""


class DeadLetter(NamedTuple):
    """An item that failed for good: where, after how many attempts, why, and what it was."""

    stage: str
    attempts: int
    error: str
    traceback: str
    item: str
    at: float


class Letters:
    """The dead letters of one root, in the order in which they came."""

    __slots__ = ("_characters", "_kept", "_more")

    def __init__(self) -> None:
        self._kept: list[DeadLetter] = []
        self._characters = 0
        self._more = 0

    def add(self, stage: str, attempts: int, error: BaseException, item: object) -> None:
        """Set an item aside; the error and the item may be anything."""
        if len(self._kept) == KEPT or self._characters > _CHARACTERS:
            self._more += 1
            return
        letter = DeadLetter(
            _utf8(stage),
            attempts,
            line_of(error),
            _text(lambda: "".join(traceback.format_exception(error)), "traceback", error),
            _text(lambda: repr(item), "repr", item),
            time(),
        )
        self._kept.append(letter)
        self._characters += len(letter.error) + len(letter.traceback) + len(letter.item)

    @property
    def first(self) -> DeadLetter:
        """The first letter."""
        return self._kept[0]

    @property
    def weight(self) -> int:
        """The memory that they take, in rows of a kilobyte."""
        return len(self._kept) + self._characters // 1_000

    def __iter__(self) -> Iterator[DeadLetter]:
        yield from self._kept
        if self._more:
            error = f"MoreFailures: {self._more:,} more items of this root failed, and are not kept"
            yield DeadLetter(self._kept[-1].stage, 0, error, error, "", self._kept[-1].at)


def line_of(error: BaseException) -> str:
    """Return an error and its type as text that can be stored."""
    return f"{type(error).__name__}: {_text(lambda: str(error), 'str', error)}"


def _text(make: Callable[[], str], what: str, of: object) -> str:
    """Make the text and cut it if it is very long; if code of others fails at that, say so instead."""
    try:
        text = make()
    except Exception as failure:  # noqa: BLE001 -- it must not hide the error that the letter is about
        return f"<{type(of).__name__}, whose {what} raised {type(failure).__name__}>"
    return _utf8(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text) - _LONGEST:,} more)")


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
