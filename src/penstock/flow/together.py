"""Steps that have several of their steps under way at once: parallel steps, and a step for each item."""

from collections import deque
from typing import Any, override

from penstock.core.outcome import Failed, Ok
from penstock.flow import codec
from penstock.flow.results import OutputRefused, PipelineError
from penstock.flow.shapes import Map, Parallel, gives_of, listed
from penstock.flow.step_journal import OutputOf, Packed
from penstock.flow.tree import Node, StepTree, new_records
from penstock.flow.workspace_tables import StepRecord


class Together(Node):
    """Steps that run at once, at most so many under way; one that waits for an answer frees its place."""

    __slots__ = ("_left", "_next", "_under_way", "_waking")

    def __init__(self, tree: StepTree, step: Any, path: str, parent: Node | None, position: int) -> None:
        super().__init__(tree, step, path, parent, position)
        self._next = 0
        self._left = 0
        self._under_way = 0
        self._waking: deque[Node] = deque()

    def count(self) -> int:
        """Return how many steps there are."""
        raise NotImplementedError

    def begin_child(self, place: int) -> None:
        """Begin the step at a place."""
        raise NotImplementedError

    def path_of(self, place: int) -> str:
        """Return the path of the step at a place."""
        raise NotImplementedError

    def finish(self) -> None:
        """Complete: all of them are over."""
        self.complete()

    def fill(self) -> None:
        """Begin as many as there is room for."""
        tree = self.tree
        limit = self.step.concurrency or tree.concurrency
        while self._under_way < limit and not self.over:
            if self._waking:
                self._under_way += 1
                self._waking.popleft().woken()
            elif self._next < self.count():
                place = self._next
                self._next += 1
                record = self.journal.records.get(self.path_of(place))
                if record is not None and record.status == "completed":
                    self._left -= 1
                    continue
                self._under_way += 1
                self.begin_child(place)
            else:
                break
        if self._left == 0 and not self.over:
            self.finish()
        elif not self._under_way and not self.over:
            self.wait()

    @override
    def child_is_over(self, child: Node) -> None:
        self._under_way -= 1
        self._left -= 1
        self.fill()

    @override
    def child_waits(self, child: Node) -> None:
        self._under_way -= 1
        self.fill()

    @override
    def wake_child(self, child: Node) -> None:
        self._waking.append(child)
        if self.waits:
            self.wake()
        else:
            self.fill()

    @override
    def woken(self) -> None:
        self.goes_on()
        self.fill()


class ParallelNode(Together):
    """Steps that each get a copy of the value."""

    __slots__ = ("_children",)
    step: Parallel

    @override
    def go_on(self) -> None:
        self._children = [self.child(each, place, self.under(each.name)) for place, each in enumerate(self.step.steps)]
        self._left = len(self._children)
        self.runs(*new_records(self.tree, self._children))
        self.fill()

    @override
    def count(self) -> int:
        return len(self._children)

    @override
    def path_of(self, place: int) -> str:
        return self._children[place].path

    @override
    def begin_child(self, place: int) -> None:
        child = self._children[place]
        self.tree.later(lambda: child.begin(self.origin))


class MapNode(Together):
    """A step for each item."""

    __slots__ = ("_failures", "_items")
    step: Map

    @property
    def collects(self) -> bool:  # type: ignore[override] # pyright: ignore[reportIncompatibleVariableOverride] -- as its step says
        """Whether it goes on without items that fail."""
        return self.step.on_error != "raise"

    @override
    def go_on(self) -> None:
        tree = self.tree
        try:
            given = self.journal.load(self.origin)
            self._items: list[bytes | None] = [codec.packed(item) for item in listed(given)]
        except (TypeError, OutputRefused) as error:
            tree.fail(self, "TASK_CREATION_FAILED", str(error), error)
            return
        self._failures: dict[int, PipelineError] = {}
        self._left = len(self._items)
        body = self.step.body
        gives = gives_of(body)
        new: list[StepRecord] = []
        for number in range(len(self._items)):
            path = self.path_of(number)
            if path not in self.journal.records:
                self.journal.records[path] = record = StepRecord(path, self.path, number, body.name, body.kind, gives)
                new.append(record)
        self.runs(*new)
        self.fill()

    @override
    def count(self) -> int:
        return len(self._items)

    @override
    def path_of(self, place: int) -> str:
        return f"{self.path}[{place}]"

    @override
    def begin_child(self, place: int) -> None:
        content = self._items[place]
        assert content is not None
        if self.step.on_error != "return":
            self._items[place] = None
        child = self.child(self.step.body, place, self.path_of(place))
        self.tree.later(lambda: child.begin(Packed(content)))

    @override
    def child_is_over(self, child: Node) -> None:
        if child.error is not None:
            self._failures[child.position] = child.error
        super().child_is_over(child)

    @override
    def finish(self) -> None:
        if self.step.on_error != "return":
            self.complete()
            return
        results: list[Any] = []
        for number, item in enumerate(self._items):
            path = self.path_of(number)
            error = self._failures.get(number)
            if error is None:
                results.append(Ok(self.journal.load(OutputOf(path)), number))
            else:
                attempts = max(self.journal.records[path].attempts, 1)
                results.append(Failed(error, number, codec.unpacked(item or b""), path, attempts))
        columns, options = self.journal.stored(self.path, codec.packed(results))
        self.complete(options=options, **columns)
