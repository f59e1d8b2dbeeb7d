"""The steps of a run under way: what each waits for, and what comes next.

High-level idea: a run is a tree of nodes that are told things and never wait. A leaf that can be called goes to whoever
calls leaves; when it is settled, its parent is told, and begins what comes next. What nodes tell each other stands on
an agenda, so that ten thousand finished steps are a loop and no recursion.

Every change of a status is a write, in the order of the changes. A node that is finished in the records is done at
once: so a run goes on where it was, whatever it was killed in the middle of.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from time import time
from types import GenericAlias
from typing import Any, ClassVar, Final, override

from penstock.core.errors import FatalError, as_failure, said
from penstock.core.outcome import Failed, Ok
from penstock.flow import codec
from penstock.flow.codec import ClassGone
from penstock.flow.codes import Codes
from penstock.flow.leaf import Leaf
from penstock.flow.pipeline import Pipeline
from penstock.flow.recorder import Recorder, Statement
from penstock.flow.results import ErrorCode, OutputRefused, PipelineError
from penstock.flow.shapes import Branch, Map, Parallel, Review, Rounds, listed, plain_result
from penstock.flow.steps import Step
from penstock.flow.workspace import StepRecord, WorkspaceReader

INSERT_STEP: Final = (
    "INSERT INTO flow_steps(run, path, parent, position, name, kind, gives, status, attempts, interrupted, requests, "
    "seconds, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, '') ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class OutputOf:
    """The output of the step at a path; "" is the value of the run."""

    path: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A value as bytes."""

    content: bytes


type Whence = OutputOf | Packed
"""Where a step has its value from; each who asks is given a copy."""


class StepTree:
    """The nodes of a run.

    Attributes:
        records: what is recorded of each step.
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
        *,
        number: int,
        records: dict[str, StepRecord],
        reader: WorkspaceReader,
        recorder: Recorder,
        run: str,
        concurrency: int,
        codes: Codes,
        start: "Callable[[LeafNode], None]",
        stop: Callable[[], None],
        rest: Callable[[], None],
        freed: Callable[[], None],
        told: Callable[[StepRecord], None],
    ) -> None:
        self.number = number
        self.records: dict[str, StepRecord] = records
        self.reader = reader
        self.recorder = recorder
        self.run = run
        self.concurrency = concurrency
        self.codes = codes
        self.start = start
        self.told = told
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
        self.root: Node = SequenceNode(self, pipeline, "", None, 0)

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

    # Values

    def load(self, origin: Whence, step: Step[Any, Any] | None = None) -> Any:
        """Load a copy of the value; where a class of it is gone, that of the annotations of `step` is taken."""
        try:
            return self._loaded(origin, None)
        except ClassGone:
            hints = [*_hints(step), *_hints(self.root.step)]
            return self._loaded(origin, GenericAlias(tuple, tuple(hints)))

    def _loaded(self, origin: Whence, hint: Any) -> Any:
        if isinstance(origin, Packed):
            return codec.unpacked(origin.content, hint)
        if not origin.path:
            return self.reader.value(self.number, hint)
        return self.reader.output(self.number, origin.path, hint)

    # Writing

    def record(self, node: "Node") -> tuple[StepRecord, list[Statement]]:
        """Return the record of a node, and the statements that insert it if it is new."""
        record = self.records.get(node.path)
        if record is not None:
            return record, []
        record = self.records[node.path] = node.new_record()
        return record, [self.inserted(record)]

    def inserted(self, *records: StepRecord) -> Statement:
        """Make the statements that insert records, with nothing but their places and statuses."""
        rows = tuple(
            (self.number, each.path, each.parent, each.position, each.name, each.kind, each.gives, each.status)
            for each in records
        )
        return INSERT_STEP, rows

    def changed(self, record: StepRecord, /, **columns: Any) -> Statement:
        """Make the statement that writes these columns, and change those that the record has."""
        for name, value in columns.items():
            if name in StepRecord.__slots__:
                setattr(record, name, value)
        names = ", ".join(f"{name} = ?" for name in columns)
        return (
            f"UPDATE flow_steps SET {names} WHERE run = ? AND path = ?",  # noqa: S608 -- names of ours
            (*columns.values(), self.number, record.path),
        )

    def write(self, *statements: Statement, tells: StepRecord | None = None, **options: Any) -> asyncio.Future[None]:
        """Have it committed; then who wants to know is told of the record."""
        committed = self.recorder.write(*statements, **options)
        if tells is not None:
            committed.add_done_callback(lambda _: self._tell(committed, tells))
        return committed

    def _tell(self, committed: asyncio.Future[None], record: StepRecord) -> None:
        if committed.exception() is None:
            self.told(record)

    def stored(self, path: str, content: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the columns of an output of its own, and the file that has to be there before."""
        stored = self.reader.workspace.stored(self.run, path, content)
        columns = {"same": None, "output": stored.output, "file": stored.file, "digest": stored.digest}
        return columns, {} if stored.place is None else {"file": (stored.place, content)}

    def columns_of(self, path: str, origin: Whence) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the columns that say where a value is, for a step that has it or waits with it."""
        if isinstance(origin, Packed):
            return self.stored(path, origin.content)
        return {"same": origin.path}, {}

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
            record, statements = self.record(each)
            statements.append(
                self.changed(record, status="failed", error=message, finished=at, interrupted=record.interrupted)
            )
            self.write(*statements, tells=record)
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
        record, statements = self.record(leaf)
        self.write(*statements, self.changed(record, status="cancelled", finished=time()))
        leaf.end()

    def sweep(self) -> list[Statement]:
        """Make the statements for the end of a run that was stopped: what was under way is so no more."""
        statements: list[Statement] = []
        at = time()
        for node in list(self.live.values()):
            record = self.records.get(node.path)
            if record is not None and record.status == "running":
                statements.append(self.changed(record, status="cancelled", finished=at))
        return statements

    # Answers

    def answered(self, paths: Iterable[str]) -> None:
        """Go on with those that wait and have an answer now."""
        for path in paths:
            node = self.live.get(path)
            if node is None or not node.waits or node.wakes or not node.taken_back.done():
                continue
            record = self.reader.record(self.number, path)
            if record is not None and record.answer is not None:
                self.records[path] = record
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
    def position(self) -> int:
        """Its place among its siblings."""
        return self.order[-1]

    def new_record(self) -> StepRecord:
        """Make its first record."""
        assert self.parent is not None
        return StepRecord(
            self.path, self.parent.path, self.position, self.step.name, self.step.kind, gives_of(self.step)
        )

    def child(self, step: Step[Any, Any], position: int, path: str) -> "Node":
        """Make the node of a step in this one."""
        return _KINDS.get(step.kind, LeafNode)(self.tree, step, path, self, position)

    def under(self, name: str) -> str:
        """Return the path of a step of that name in this one."""
        return f"{self.path}/{name}" if self.path else name

    # Beginning and ending

    def begin(self, origin: Whence) -> None:
        """Begin, or go on; done at once if it was finished before."""
        self.origin = origin
        record = self.tree.records.get(self.path)
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
        record, statements = tree.record(self)
        if more:
            statements.append(tree.inserted(*more))
        tree.write(
            *statements,
            tree.changed(
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
            record, statements = tree.record(self)
            change = tree.changed(
                record, status="completed", finished=time(), error=None, interrupted=0, reason=None, **columns
            )
            committed = tree.write(*statements, change, tells=record, **options)
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
        record = tree.records.get(self.path)
        if record is not None and record.status != "waiting":
            tree.write(tree.changed(record, status="waiting"))
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
            record = tree.records.get(node.path)
            if record is not None and record.status in {"running", "waiting"}:
                tree.write(tree.changed(record, status="cancelled", finished=at))
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


class OneAtATime(Node):
    """A step that has at most one of its steps under way."""

    __slots__ = ("_sleeper",)

    @override
    def wake_child(self, child: Node) -> None:
        if not self.waits:
            child.woken()
            return
        self._sleeper = child
        self.wake()

    @override
    def woken(self) -> None:
        _go_on(self)
        self._sleeper.woken()


class SequenceNode(OneAtATime):
    """A pipeline: one step after the other."""

    __slots__ = ()
    step: Pipeline[Any, Any]

    @override
    def go_on(self) -> None:
        self.runs()
        self._begin(0, self.origin)

    def _begin(self, place: int, origin: Whence) -> None:
        steps = self.step.steps
        if place < len(steps):
            child = self.child(steps[place], place, self.under(steps[place].name))
            self.tree.later(lambda: child.begin(origin))
            return
        columns, options = self.tree.columns_of(self.path, origin)
        self.complete(options=options, **columns)

    @override
    def child_is_over(self, child: Node) -> None:
        self._begin(child.position + 1, OutputOf(child.path))


def _go_on(node: Node) -> None:
    """Record that a step that has waited goes on."""
    node.waits = node.wakes = False
    record = node.tree.records.get(node.path)
    if record is not None:
        node.tree.write(node.tree.changed(record, status="running"))


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
                record = tree.records.get(self.path_of(place))
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
        _go_on(self)
        self.fill()


class ParallelNode(Together):
    """Steps that each get a copy of the value."""

    __slots__ = ("_children",)
    step: Parallel

    @override
    def go_on(self) -> None:
        self._children = [self.child(each, place, self.under(each.name)) for place, each in enumerate(self.step.steps)]
        self._left = len(self._children)
        self.runs(*_new(self.tree, self._children))
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
            given = tree.load(self.origin)
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
            if path not in tree.records:
                tree.records[path] = record = StepRecord(path, self.path, number, body.name, body.kind, gives)
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
        tree = self.tree
        results: list[Any] = []
        for number, item in enumerate(self._items):
            path = self.path_of(number)
            error = self._failures.get(number)
            if error is None:
                results.append(Ok(tree.load(OutputOf(path)), number))
            else:
                attempts = max(tree.records[path].attempts, 1)
                results.append(Failed(error, number, codec.unpacked(item or b""), path, attempts))
        columns, options = tree.stored(self.path, codec.packed(results))
        self.complete(options=options, **columns)


class BranchNode(OneAtATime):
    """The one of its steps that is chosen."""

    __slots__ = ()
    step: Branch

    @override
    def go_on(self) -> None:
        tree = self.tree
        steps = list(self.step.children().values())
        records = [tree.records.get(self.under(each.name)) for each in steps]
        place = next(
            (number for number, each in enumerate(records) if each is not None and each.status != "skipped"), None
        )
        if place is None:
            chosen = self._chosen()
            if chosen is None:
                return
            place = steps.index(chosen)
            new = _new(tree, [self.child(each, number, self.under(each.name)) for number, each in enumerate(steps)])
            for each in new:
                each.status = "pending" if each.position == place else "skipped"
            self.runs(*new)
            if (again := records[place]) is not None:  # the case that was chosen before is gone
                tree.write(tree.changed(again, status="pending"))
        else:
            self.runs()
        child = self.child(steps[place], place, self.under(steps[place].name))
        tree.later(lambda: child.begin(self.origin))

    def _chosen(self) -> Step[Any, Any] | None:
        """Return the step that is chosen; None if it failed."""
        tree, step = self.tree, self.step
        value = tree.load(self.origin)
        try:
            key = plain_result("choose", step.choose(value))
            found = step.cases.get(key, step.otherwise)
        except Exception as error:  # noqa: BLE001 -- of the user's function
            tree.fail(self, "STEP_FAILED", said(error), as_failure(error, "choose"))
            return None
        if found is None:
            tree.fail(self, "STEP_FAILED", step.no_case(key))
        return found

    @override
    def child_is_over(self, child: Node) -> None:
        self.complete(same=child.path)


class RoundsNode(OneAtATime):
    """Its body, on what that gave, until it is good enough."""

    __slots__ = ()
    step: Rounds

    @override
    def go_on(self) -> None:
        self.runs()
        self._begin(0, self.origin)

    def _begin(self, number: int, origin: Whence) -> None:
        child = self.child(self.step.body, number, self._path_of(number))
        self.tree.later(lambda: child.begin(origin))

    def _path_of(self, number: int) -> str:
        return f"{self.path}[{number}]"

    @override
    def child_is_over(self, child: Node) -> None:
        tree, step, number = self.tree, self.step, child.position + 1
        if self._path_of(number) in tree.records:
            self._begin(number, OutputOf(child.path))
            return
        value = tree.load(OutputOf(child.path))
        try:
            is_done = bool(plain_result("until", step.until(value)))
        except Exception as error:  # noqa: BLE001 -- of the user's function
            tree.fail(self, "STEP_FAILED", said(error), as_failure(error, "until"))
            return
        if is_done:
            self.complete(same=child.path)
        elif number < step.max_rounds:
            self._begin(number, OutputOf(child.path))
        else:
            tree.fail(self, "STEP_FAILED", step.not_done)


class Waiting(Node):
    """A step that may wait for an answer."""

    __slots__ = ()
    reason: ClassVar[str]

    def ask(self) -> None:
        """Wait for an answer; what waits is recorded."""
        tree = self.tree
        record, statements = tree.record(self)
        columns, options = tree.columns_of(self.path, self.origin)
        tree.write(
            *statements,
            tree.changed(
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
        self.act(self.tree.records[self.path])

    def act(self, record: StepRecord) -> None:
        """Do what the answer says."""
        raise NotImplementedError

    def reject(self, record: StepRecord) -> None:
        """Fail for the reason that was given."""
        self.tree.fail(self, "REVIEW_REJECTED", f"was rejected: {record.note}")

    def take(self) -> None:
        """Complete with the value that was given."""
        content = codec.packed(self.tree.reader.answered(self.tree.number, self.path))
        columns, options = self.tree.stored(self.path, content)
        self.complete(options=options, answer=None, answered=None, **columns)


class ReviewNode(Waiting):
    """Waits for somebody to let the value go on."""

    __slots__ = ()
    reason = "review"
    step: Review

    @override
    def go_on(self) -> None:
        record = self.tree.records.get(self.path)
        if record is None or record.answer is None:
            self.ask()
        else:
            self.act(record)

    @override
    def act(self, record: StepRecord) -> None:
        tree = self.tree
        if record.answer == "reject":
            self.reject(record)
            return
        edited = record.answer == "value"
        if self.step.check is not None:
            value = tree.reader.answered(tree.number, self.path) if edited else tree.load(self.origin)
            try:
                plain_result("check", self.step.check(value))
            except Exception as error:  # noqa: BLE001 -- it refuses the value
                refused = said(error)
                self.taken_back: Future[None] | asyncio.Future[None] = tree.write(
                    tree.changed(
                        record, answer=None, answered=None, by=None, note="", refused=refused, status="running"
                    )
                )
                self.ask()
                return
        if edited:
            self.take()
        else:
            columns, options = tree.columns_of(self.path, self.origin)
            self.complete(options=options, answer=None, **columns)


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
        record = self.tree.records.get(self.path)
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
            tree.write(tree.changed(record, status="pending", answer=None, reason=None, interrupted=0))
            tree.start(self)


def _hints(step: Step[Any, Any] | None) -> Iterator[Any]:
    """Give the types that the functions of a step are annotated with."""
    if isinstance(step, Leaf):
        yield from step.annotations().values()
    for each in () if step is None else step.children().values():
        yield from _hints(each)


def _nobody(_: str) -> None:
    """Stop nothing."""


_KINDS: Final[Mapping[str, type[Node]]] = {
    "pipeline": SequenceNode,
    "parallel": ParallelNode,
    "map": MapNode,
    "branch": BranchNode,
    "loop": RoundsNode,
    "review": ReviewNode,
}


def gives_of(step: Step[Any, Any]) -> str:
    """Return what the output of a step is made of, if it is made of those of its children."""
    if isinstance(step, Parallel):
        return step.gives.__name__
    return "list" if isinstance(step, Map) else ""


def type_of(value: object) -> str:
    """Return the name of the type of a value."""
    return type(value).__name__


def _new(tree: StepTree, nodes: Iterable[Node]) -> list[StepRecord]:
    """Records of those that have none."""
    found: list[StepRecord] = []
    for node in nodes:
        if node.path not in tree.records:
            tree.records[node.path] = record = node.new_record()
            found.append(record)
    return found
