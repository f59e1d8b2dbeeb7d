"""Why roots died: the commonest errors, with counts and a key each."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from penstock.durable.roots import Key

SHOWN: Final = 10
"""Causes that a report has, at most."""

_KEPT: Final = 1_000
"""Causes that a run tells apart; beyond, all errors of one type are one cause."""

_LONGEST: Final = 300
"""Characters of the error of a cause, at most."""

_VARIES: Final = re.compile(r"""'[^']*'|"[^"]*"|[a-z]+://[^\s'"]+|(?<!\w)(?!\d{3}(?!\w))[\w.+-]*\d[\w.+-]*""")
"""What differs from item to item: quoted text, addresses, words with digits.

But not three digits, which a status has.
"""


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of death of roots.

    Attributes:
        error: what the first of them died of, in a line.
        stage: where.
        count: how many roots died of such an error. Errors are alike if they differ in numbers, quoted text and
            addresses.
        key: of the first of them.
    """

    error: str
    stage: str
    count: int
    key: Key

    def __str__(self) -> str:
        return f"{self.count:,} x {self.error} (stage {self.stage!r}, as in {self.key!r})"


class Causes:
    """Counts causes, in bounded memory."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Cause] = {}

    def add(self, error: str, stage: str, key: Key) -> None:
        """Count one dead root."""
        line = error.split("\n", 1)[0][:_LONGEST]
        alike = stage, _VARIES.sub("…", line)
        if alike not in self._found and len(self._found) >= _KEPT:
            alike = stage, line.split(":", 1)[0]
        found = self._found.get(alike)
        self._found[alike] = Cause(line, stage, 1, key) if found is None else replace(found, count=found.count + 1)

    def commonest(self, most: int = SHOWN) -> tuple[Cause, ...]:
        """Return the causes of most roots, the most frequent first."""
        return tuple(sorted(self._found.values(), key=lambda cause: -cause.count)[:most])


def causes(letters: Iterable[tuple[str, str, Key]]) -> tuple[Cause, ...]:
    """Return all causes, from error, stage and key of each root, the commonest first."""
    found = Causes()
    for letter in letters:
        found.add(*letter)
    return found.commonest(_KEPT)
