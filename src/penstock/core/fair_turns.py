"""Fair turns of the inputs of an unordered `flat_map`: in each round, each that has an output gives one.

Between two rounds, the loop passes while an input makes an output. Without this, an input that always has one would
starve those that need the loop for theirs. See `docs/decisions.md`, "Fairness takes two passes of the loop".
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from penstock.core.open_input import Outputs
from penstock.core.scope import Scope

PASSES: Final = 2
"""Passes of the loop between two rounds while an input has no output: one wakes it, one lets it give an output."""


class FairTurns[T, U]:
    """Inputs that have an output, in the order of their turns; `go_on` is called when the next round may begin."""

    __slots__ = ("_available", "_given", "_go_on", "_passes_due", "_scope")

    def __init__(self, scope: Scope, go_on: Callable[[], None]) -> None:
        self._scope = scope
        self._go_on = go_on
        self._available: OrderedDict[int, Outputs[T, U]] = OrderedDict()
        self._given = 0
        self._passes_due = 0

    def first(self) -> Outputs[T, U] | None:
        """Return the input whose turn it is."""
        return next(iter(self._available.values()), None)

    def is_over(self) -> bool:
        """Whether each input that has an output has given one."""
        return 0 < self._given >= len(self._available)

    def may_go_on(self) -> bool:
        """Whether the loop has passed as often as it must before the next round."""
        return not self._passes_due

    def has_output(self, outputs: Outputs[T, U]) -> None:
        """Give an input its turns from now on."""
        self._available.setdefault(outputs.index, outputs)

    def gave(self, outputs: Outputs[T, U]) -> None:
        """Count an output of an input that was handed on; let the others go first."""
        self._given += 1
        if outputs.index not in self._available:  # it was closed
            return
        if outputs.has_output():
            self._available.move_to_end(outputs.index)
        else:
            del self._available[outputs.index]

    def leave(self, outputs: Outputs[T, U]) -> None:
        """Give an input no more turns."""
        self._available.pop(outputs.index, None)

    def begin(self) -> None:
        """Begin the next round at once."""
        self._given = 0

    def let_pass(self) -> None:
        """Let the loop pass before the next round."""
        self._passes_due = PASSES
        self._scope.call_soon(self._passed)

    def _passed(self) -> None:
        if self._passes_due:
            self._passes_due -= 1
            if self._passes_due:
                self._scope.call_soon(self._passed)
            else:
                self._given = 0
                self._go_on()

    def close(self) -> None:
        """Wait for no passes any more, and let go of the window."""
        self._passes_due = 0
        del self._go_on, self._scope
