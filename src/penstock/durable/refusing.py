"""Rows that the sink cannot hold: they fail like items of a stage, namely the sink."""

import threading
from collections import deque

from penstock.core.errors import note
from penstock.core.outcome import Failed
from penstock.core.plan import Tolerance
from penstock.core.scope import KEPT_FAILURES
from penstock.durable.roots import Root
from penstock.durable.store_errors import RowError


class Refusals:
    """The rows that the sink of a run has refused, on the loop or in the thread that writes.

    Attributes:
        stage: the name of the sink as a stage.
        failures: the newest of them.
        taken: rows that the sink was given so far.
    """

    def __init__(self, stage: str, tolerance: Tolerance | None) -> None:
        """Without `tolerance` the first one ends the run; with it, it is set aside and its root is dead."""
        self.stage: str = stage
        self.failures: deque[Failed] = deque(maxlen=KEPT_FAILURES)
        self.taken: int = 0
        self._tolerance = tolerance
        self._count = 0
        self._counting = threading.Lock()

    def refuse(self, root: Root, error: Exception, item: object = None, index: int | None = None) -> None:
        """Set a row aside, so that its root is dead; raise the error, with notes, if that is too many.

        `index` is the number of the row among all, if it is known.
        """
        if item is None and isinstance(error, RowError):
            item = error.row
        place = self.taken - 1 if index is None else index
        with self._counting:
            self._count += 1
            broken = "" if self._tolerance is None else self._tolerance.exceeded(self._count, self.taken)
            if broken is None:
                self.failures.append(Failed(error, place, item, self.stage, root=root.key))
                root.failed = True
                root.set_aside(self.stage, 1, error, item)
                return
        if broken:
            note(error, f"failures of stage {self.stage!r}: {self._count}, more than {broken} allows")
        note(error, f"stage {self.stage!r}" + ("" if index is None else f", item {index}"))
        note(error, f"root {root.key!r}")
        raise error
