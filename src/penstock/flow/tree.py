"""The steps of a run under way: what each waits for, and what comes next.

High-level idea: a run is a tree of nodes that are told things and never wait. A leaf that can be called goes to whoever
calls leaves; when it is settled, its parent is told, and begins what comes next. What nodes tell each other stands on
an agenda, so that ten thousand finished steps are a loop and no recursion.

Every change of a status is a write, in the order of the changes. A node that is finished in the records is done at
once: so a run goes on where it was, whatever it was killed in the middle of.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from time import time
from typing import Any, ClassVar, override

from penstock.core.errors import FatalError
from penstock.flow import codec
from penstock.flow.codes import Codes
from penstock.flow.leaf import Leaf
from penstock.flow.pipeline import Pipeline
from penstock.flow.recorder import Statement
from penstock.flow.results import ErrorCode, PipelineError
from penstock.flow.shapes import gives_of
from penstock.flow.step_journal import OutputOf, StepJournal, Whence
from penstock.flow.steps import Step
from penstock.flow.workspace_tables import StepRecord


class StepTree:
    """The nodes of a run.

    Attributes:
        journal: reads and writes what is recorded of each step.
        rest: called when nothing more is to be done: all is over, or waits.
        live: the nodes that have begun and are not over, by path.
        running: the leaves whose calls are under way.
        settling: the places of composite steps that complete as soon as that is committed: leaves behind them wait for
            what comes next there.
        freed: called when one of them has.
        errors: what failed of its own accord and was not collected, in order of time.
        is_over: whether the last step is done.
    """

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        journal: StepJournal,
        *,
        concurrency: int,
        codes: Codes,
        make: "Callable[[StepTree, Step[Any, Any], str, Node | None, int], Node]",
        start: "Callable[[LeafNode], None]",
        stop: Callable[[], None],
        rest: Callable[[], None],
        freed: Callable[[], None],
    ) -> None:
        self.journal = journal
        self.concurrency = concurrency
        self.codes = codes
        self.make = make
        self.start = start
        self.live: dict[str, Node] = {}
        self.running: set[LeafNode] = set()
        self.settling: set[tuple[int, ...]] = set()
        self.freed = freed
        self.errors: list[PipelineError] = []
        self.is_over: bool = False
        self.stopped: bool = False
        self._stop = stop
        self.rest = rest
        self._agenda: deque[Callable[[], None]] = deque()
        self._at_it = False
        self.root: Node = make(self, pipeline, "", None, 0)

    # What nodes tell each other

    def later(self, what: Callable[[], None]) -> None:
        """Have it done when all before it is done; here and now, if nothing is being done."""
        self._agenda.append(what)
        if self._at_it:
            return
        self._at_it = True
        try:
            while self._agenda:
                if self.stopped:
                    self._agenda.clear()
                    break
                self._agenda.popleft()()
        finally:
            self._at_it = False

    def stop(self) -> None:
        """Begin nothing more."""
        if not self.stopped:
            self.stopped = True
            self._stop()

    # Failing

    def fail(self, node: "Node", code: ErrorCode, message: str, cause: BaseException | None = None) -> None:
        """Record the failure of a node and of those round it; what runs beside it is cancelled, and no more begun."""
        message = message.encode("utf-8", "backslashreplace").decode()  # what SQLite can hold
        error = PipelineError(code, node.path, f"step {node.path!r}: {message}")
        error.__cause__ = cause
        outermost = node.outermost_that_fails(of_all=isinstance(cause, FatalError))
        at = time()
        each: Node | None = node
        while each is not None and each.path and not each.over:
            record, statements = each.record()
            statements.append(
                self.journal.changed(
                    record, status="failed", error=message, finished=at, interrupted=record.interrupted
                )
            )
            self.journal.write(*statements, tells=record)
            each.end()
            each = None if each is outermost else each.parent
        if outermost.path and outermost.parent is not None:
            outermost.fail_alone(error)
            return
        self.errors.append(error)
        self.stop()

    def settled(self, leaf: "LeafNode") -> None:
        """Tell whoever waits until nothing runs below a step that failed."""
        self.running.discard(leaf)
        each: Node | None = leaf
        while each is not None:
            if leaf in each.awaits:
                each.awaits.discard(leaf)
                if not each.awaits:
                    self.later(each.tell_parent)
            each = each.parent

    def cancelled(self, leaf: "LeafNode") -> None:
        """Record that a leaf was stopped."""
        record, statements = leaf.record()
        self.journal.write(*statements, self.journal.changed(record, status="cancelled", finished=time()))
        leaf.end()

    def sweep(self) -> list[Statement]:
        """Make the statements for the end of a run that was stopped: what was under way is so no more."""
        statements: list[Statement] = []
        at = time()
        for node in list(self.live.values()):
            record = self.journal.records.get(node.path)
            if record is not None and record.status == "running":
                statements.append(self.journal.changed(record, status="cancelled", finished=at))
        return statements

    # Answers

    def answered(self, paths: Iterable[str]) -> None:
        """Go on with those that wait and have an answer now."""
        for path in paths:
            node = self.live.get(path)
            if node is None or not node.waits or node.wakes or not node.taken_back.done():
                continue
            record = self.journal.reader.record(self.journal.number, path)
            if record is not None and record.answer is not None:
                self.journal.records[path] = record
                self.later(node.wake)

    def unanswered(self) -> list[str]:
        """Return the paths of the steps that wait."""
        return [path for path, node in self.live.items() if node.waits and isinstance(node, Waiting)]


_WRITTEN: Future[None] = Future()
_WRITTEN.set_result(None)


class Node:
    """A step of a run under way.

    Attributes:
        order: its place in the definition, to begin leaves in that order.
        origin: where its value comes from.
        waits: whether nothing of it goes on before somebody has answered.
        wakes: whether somebody has, and it goes on when there is a place for it.
        over: whether it is completed, or has failed.
        taken_back: done unless an answer was refused and this is not written yet: until then it can still be read.
        awaits: leaves below it that are being stopped, before its parent is told that it failed.
        error: why it failed, where the step round it goes on.
    """

    __slots__ = (
        "awaits", "error", "order", "origin", "over", "parent", "path", "step", "taken_back", "tree", "waits", "wakes",
    )  # fmt: skip
    collects: bool = False

    def __init__(self, tree: StepTree, step: Any, path: str, parent: "Node | None", position: int) -> None:
        self.tree: StepTree = tree
        self.step: Any = step
        self.path: str = path
        self.parent: Node | None = parent
        self.order: tuple[int, ...] = () if parent is None else (*parent.order, position)
        self.origin: Whence = OutputOf("")
        self.waits: bool = False
        self.wakes: bool = False
        self.taken_back: Future[None] | asyncio.Future[None] = _WRITTEN
        self.over: bool = False
        self.awaits: set[LeafNode] = set()
        self.error: PipelineError | None = None

    @property
    def journal(self) -> StepJournal:
        """What is recorded of the steps of the run."""
        return self.tree.journal

    @property
    def position(self) -> int:
        """Its place among its siblings."""
        return self.order[-1]

    def new_record(self) -> StepRecord:
        """Make its first record."""
        assert self.parent is not None
        return StepRecord(
            self.path, self.parent.path, self.position, self.step.name, self.step.kind, gives_of(self.step)
        )

    def record(self) -> tuple[StepRecord, list[Statement]]:
        """Return its record, and the statements that insert it if it is new."""
        journal = self.journal
        record = journal.records.get(self.path)
        if record is not None:
            return record, []
        record = journal.records[self.path] = self.new_record()
        return record, [journal.inserted(record)]

    def child(self, step: Step[Any, Any], position: int, path: str) -> "Node":
        """Make the node of a step in this one."""
        return self.tree.make(self.tree, step, path, self, position)

    def under(self, name: str) -> str:
        """Return the path of a step of that name in this one."""
        return f"{self.path}/{name}" if self.path else name

    # Beginning and ending

    def begin(self, origin: Whence) -> None:
        """Begin, or go on; done at once if it was finished before."""
        self.origin = origin
        record = self.journal.records.get(self.path)
        if record is not None and record.status == "completed":
            self.over = True
            self.tell_parent()
            return
        self.tree.live[self.path] = self
        self.go_on()

    def go_on(self) -> None:
        """Do what comes first."""
        raise NotImplementedError

    def runs(self, *more: StepRecord) -> None:
        """Record that it is running; `more` is put there with it."""
        tree = self.tree
        if not self.path:
            return
        record, statements = self.record()
        if more:
            statements.append(self.journal.inserted(*more))
        self.journal.write(
            *statements,
            self.journal.changed(
                record,
                status="running",
                code=tree.codes.of(self.step),
                started=record.started or time(),
                finished=None,
                error=None,
                same=None,
            ),
        )

    def complete(self, **columns: Any) -> None:
        """Record that it is completed; when that is committed, tell its parent."""
        tree = self.tree
        options = columns.pop("options", {})
        self.end()
        if self.path:
            record, statements = self.record()
            change = self.journal.changed(
                record, status="completed", finished=time(), error=None, interrupted=0, reason=None, **columns
            )
            committed = self.journal.write(*statements, change, tells=record, **options)
            tree.settling.add(self.order)
            committed.add_done_callback(self._tell_if_committed)
        else:
            self.tell_parent()

    def _tell_if_committed(self, committed: asyncio.Future[None]) -> None:
        """Tell the parent: what comes next may read the output."""
        self.tree.settling.discard(self.order)
        if committed.exception() is None:
            self.tell_parent()
        self.tree.freed()

    def end(self) -> None:
        """Be over."""
        self.over = True
        self.waits = False
        self.tree.live.pop(self.path, None)

    def tell_parent(self) -> None:
        """Tell the parent that it is over."""
        parent = self.parent
        if parent is None:
            self.tree.is_over = True
            self.tree.rest()
        elif not parent.over:
            self.tree.later(lambda: parent.child_is_over(self))

    def child_is_over(self, child: "Node") -> None:
        """Go on behind a step in this one."""
        raise NotImplementedError

    # Waiting for answers

    def wait(self) -> None:
        """Wait, if it does not yet, and let the parent know that its place is free."""
        if self.waits:
            return
        tree = self.tree
        self.waits = True
        self.wakes = False
        record = self.journal.records.get(self.path)
        if record is not None and record.status != "waiting":
            self.journal.write(self.journal.changed(record, status="waiting"))
        if (parent := self.parent) is None:
            tree.rest()
        else:
            tree.later(lambda: parent.child_waits(self))

    def child_waits(self, child: "Node") -> None:  # noqa: ARG002 -- for those that ask
        """Hear that a step in this one waits."""
        self.wait()

    def wake(self) -> None:
        """Go on, when there is a place for it; asked for twice, it does so once."""
        if self.over or self.wakes:
            return
        self.wakes = True
        if self.parent is None:
            self.woken()
        else:
            self.parent.wake_child(self)

    def wake_child(self, child: "Node") -> None:
        """Let a step in this one go on, when there is a place for this one."""
        raise NotImplementedError

    def woken(self) -> None:
        """Go on now: there is a place."""
        raise NotImplementedError

    def goes_on(self) -> None:
        """Record that it goes on, after it has waited."""
        self.waits = self.wakes = False
        record = self.journal.records.get(self.path)
        if record is not None:
            self.journal.write(self.journal.changed(record, status="running"))

    # Failing

    def outermost_that_fails(self, *, of_all: bool = False) -> "Node":
        """Return the outermost step that fails with this one: the run, or a step that a map can spare."""
        each = self
        while each.parent is not None and (of_all or not each.parent.collects):
            each = each.parent
        return each

    def fail_alone(self, error: PipelineError) -> None:
        """Stop what runs below it; when nothing does, tell the parent, which goes on without it."""
        if self.error is not None:
            return
        self.error = error
        tree = self.tree
        at = time()
        self.awaits = {leaf for leaf in tree.running if leaf.is_below(self)}
        for leaf in list(self.awaits):
            if not leaf.over:
                leaf.cancel("sibling failed")
        for node in [node for node in tree.live.values() if node.is_below(self) and node not in self.awaits]:
            record = self.journal.records.get(node.path)
            if record is not None and record.status in {"running", "waiting"}:
                self.journal.write(self.journal.changed(record, status="cancelled", finished=at))
            node.end()
        if not self.awaits:
            self.tell_parent()

    def is_below(self, other: "Node") -> bool:
        """Whether this is a step in `other`, however deep."""
        each = self.parent
        while each is not None:
            if each is other:
                return True
            each = each.parent
        return False


class Waiting(Node):
    """A step that may wait for an answer."""

    __slots__ = ()
    reason: ClassVar[str]

    def ask(self) -> None:
        """Wait for an answer; what waits is recorded."""
        tree = self.tree
        record, statements = self.record()
        columns, options = self.journal.columns_of(self.path, self.origin)
        self.journal.write(
            *statements,
            self.journal.changed(
                record,
                status="waiting",
                reason=self.reason,
                code=tree.codes.of(self.step),
                finished=None,
                error=None,
                **columns,
            ),
            **options,
        )
        self.wait()

    @override
    def woken(self) -> None:
        self.waits = self.wakes = False
        self.act(self.journal.records[self.path])

    def act(self, record: StepRecord) -> None:
        """Do what the answer says."""
        raise NotImplementedError

    def reject(self, record: StepRecord) -> None:
        """Fail for the reason that was given."""
        self.tree.fail(self, "REVIEW_REJECTED", f"was rejected: {record.note}")

    def take(self) -> None:
        """Complete with the value that was given."""
        content = codec.packed(self.journal.answered(self.path))
        columns, options = self.journal.stored(self.path, content)
        self.complete(options=options, answer=None, answered=None, **columns)


class LeafNode(Waiting):
    """A step that is called.

    Attributes:
        cancel: stops its call; set while there is one.
        dropped: whether it is not to begin any more.
    """

    __slots__ = ("cancel",)
    reason = "interrupted"
    step: Leaf[Any, Any]

    def __init__(self, tree: StepTree, step: Any, path: str, parent: Node | None, position: int) -> None:
        super().__init__(tree, step, path, parent, position)
        self.cancel: Callable[[str], None] = _nobody

    @override
    def go_on(self) -> None:
        record = self.journal.records.get(self.path)
        if record is not None and record.interrupted and self.step.options.on_interrupted == "ask":
            if record.answer is None:
                self.ask()
            else:
                self.act(record)
            return
        self.tree.start(self)

    @override
    def act(self, record: StepRecord) -> None:
        tree = self.tree
        if record.answer == "reject":
            self.reject(record)
        elif record.answer == "value":
            self.take()
        else:
            self.journal.write(self.journal.changed(record, status="pending", answer=None, reason=None, interrupted=0))
            tree.start(self)


def _nobody(_: str) -> None:
    """Stop nothing."""


def new_records(tree: StepTree, nodes: Iterable[Node]) -> list[StepRecord]:
    """Make the records of those that have none."""
    found: list[StepRecord] = []
    for node in nodes:
        if node.path not in tree.journal.records:
            tree.journal.records[node.path] = record = node.new_record()
            found.append(record)
    return found
