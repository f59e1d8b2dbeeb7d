"""What became of the roots that were tried in worker processes, before the others are delivered."""

from dataclasses import dataclass, field
from typing import Final

from penstock.durable.roots import Key

DIED_ALONE: Final = "ProcessDied: the process that worked on it alone died"

type Counts = dict[str, int]
"""What was done, by the names of the report."""


@dataclass(slots=True)
class Tried:
    """The result of trying the suspects.

    Attributes:
        counts: what workers delivered, by the names of the report.
        dead: the keys of the roots that were set aside.
        interrupted: whether there was no time for all of them.
    """

    counts: Counts = field(default_factory=dict[str, int])
    dead: set[Key] = field(default_factory=set[Key])
    interrupted: bool = False

    def add(self, counts: Counts) -> None:
        """Add to the counts."""
        for name, count in counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
