"""Which open inputs of `flat_map` may make an output: those that an async iterable gives need a permit each (P1).

There are `buffer` permits for all inputs together; besides, the head may make one output when it has none (unordered:
each input may). An input without a permit waits for one. See `docs/decisions.md`, "`flat_map` counts inputs, and a
buffer of outputs".
"""

from collections.abc import Iterator

from penstock.core.open_input import AT_WORK, MAKING, Outputs


class Permits[T, U]:
    """The open inputs, which of them is the head, and what they hold.

    Attributes:
        inputs: every open input by its index, whether or not its call still runs.
        head: the index of the input whose outputs are next, in order.
        waiting: inputs that wait for a permit, by index.
        making: how many inputs make an output.
    """

    __slots__ = ("_buffer", "_due", "_held", "_holding", "_ordered", "head", "inputs", "making", "waiting")

    def __init__(self, buffer: int, *, ordered: bool) -> None:
        self._buffer = buffer
        self._ordered = ordered
        self._held = 0  # outputs that wait or are in the making
        self._holding = 0  # inputs that hold some
        self._due: list[Outputs[T, U]] = []  # those that may have become able to make an output
        self.inputs: dict[int, Outputs[T, U]] = {}
        self.head: int = 0
        self.waiting: dict[int, Outputs[T, U]] = {}
        self.making: int = 0

    def first(self) -> Outputs[T, U] | None:
        """Return the head, if it is open."""
        return self.inputs.get(self.head)

    def may_make(self, outputs: Outputs[T, U]) -> bool:
        """Whether an input may make another output now."""
        if not outputs.held and (not self._ordered or outputs.index == self.head):
            return True
        return self.has_room()

    def has_room(self) -> bool:
        """Whether the buffer has room: all outputs take some but one of the head, or, unordered, of each input."""
        if not self._ordered:
            return self._held - self._holding < self._buffer
        head = self.inputs.get(self.head)
        return self._held - (head is not None and head.held > 0) < self._buffer

    def give(self, outputs: Outputs[T, U]) -> None:
        """Let an input make an output."""
        self._makes(outputs, making=True)
        self.count(outputs, 1)

    def give_back(self, outputs: Outputs[T, U]) -> None:
        """Take back the permit of an output that was not made, if the input has one."""
        if outputs.phase is MAKING:
            self._makes(outputs, making=False)
            self.count(outputs, -1)

    def made(self, outputs: Outputs[T, U]) -> None:
        """Note that the output of a permit was made: it is held now."""
        self._makes(outputs, making=False)

    def _makes(self, outputs: Outputs[T, U], *, making: bool) -> None:
        if making is not (outputs.phase is MAKING):
            self.making += 1 if making else -1
            outputs.phase = MAKING if making else AT_WORK

    def count(self, outputs: Outputs[T, U], change: int) -> None:
        """Count so many more outputs of an input as held."""
        had = outputs.held
        outputs.held = had + change
        self._held += change
        if not had or not outputs.held:
            self._holding += (outputs.held > 0) - (had > 0)

    def let_go(self, outputs: Outputs[T, U]) -> None:
        """Count no output of an input as held but one that it is making."""
        self.count(outputs, outputs.making - outputs.held)

    def forget(self, index: int, taken: int) -> None:
        """Close an input; the head is the next one that is open, of so many that were taken."""
        inputs, head = self.inputs, self.head
        inputs.pop(index, None)
        while head < taken and head not in inputs:
            head += 1
        self.head = head

    def due(self, outputs: Outputs[T, U] | None) -> bool:
        """Note that an input may have become able to make an output; return whether any that waits may be."""
        if outputs is not None and outputs.index in self.waiting:
            if self._ordered:
                return True
            self._due.append(outputs)
        return bool(self._due) or self.has_room()

    def next_ones(self) -> Iterator[Outputs[T, U]]:
        """Take out, one by one, those that waited and may make an output now: the head, or those due, before others."""
        if self._ordered:
            while (head := self.inputs.get(self.head)) is not None and head.index in self.waiting and not head.held:
                yield self.waiting.pop(head.index)
        while self._due:
            outputs = self._due.pop()
            if outputs.index in self.waiting and self.may_make(outputs):
                yield self.waiting.pop(outputs.index)
        while self.waiting and self.has_room():
            yield self.waiting.pop(next(iter(self.waiting)))

    def close(self) -> None:
        """Let go of the inputs that are due."""
        self._due.clear()
