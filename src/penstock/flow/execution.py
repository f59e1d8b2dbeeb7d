"""A run under way: its leaves are called on one window, whose places are the engine's `concurrency`.

Of a leaf there is recorded, in this order: `running`, the number of the attempt and the code, before each call; what
requests cost, as it is known; the output and `completed`, before anything that depends on it. What is stopped is
recorded as it stops, or at the end, when nothing runs any more.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from time import time
from typing import Any, Final, cast

from penstock.core.errors import AttemptTimeout, OptionError, PenstockError, as_failure, said
from penstock.core.log import LOG
from penstock.core.outcome import Reason
from penstock.core.plan import Plan
from penstock.core.retry import Exhausted, retrying, thread_back
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.stage_limits import Hold, Limits, limited
from penstock.core.traces import TRACER, block
from penstock.core.window import Window
from penstock.durable.store_errors import StoreError
from penstock.durable.values import UnpackError
from penstock.flow import codec
from penstock.flow.added import NUMBER, CannotBegin, logger_of, step_name
from penstock.flow.codec import ClassGone
from penstock.flow.codes import Codes
from penstock.flow.context import State, StepContext
from penstock.flow.function import FunctionStep
from penstock.flow.leaf import Leaf
from penstock.flow.leaf_calls import LeafCalls
from penstock.flow.leaf_feed import LeafFeed
from penstock.flow.one_at_a_time import SequenceNode
from penstock.flow.pipeline import Pipeline
from penstock.flow.programs import keeping_programs
from penstock.flow.recorder import Noticed, Recorder, settled
from penstock.flow.results import OutputRefused, PipelineError, failure_text
from penstock.flow.step_journal import OutputOf, StepJournal
from penstock.flow.step_nodes import node_of
from penstock.flow.step_recording import StepRecording
from penstock.flow.tree import LeafNode, Node, StepTree
from penstock.flow.workspace_errors import as_workspace_error
from penstock.flow.workspace_reader import WorkspaceReader
from penstock.flow.workspace_tables import RunRow, StepRecord
from penstock.run import Run
from penstock.tasks.calls import one_stage
from penstock.tasks.tokens import CancelToken

_UNUSABLE: Final = (StoreError, OSError, UnpackError, ClassGone)


class Execution:
    """One attempt to bring a run to its end.

    Attributes:
        tree: its steps.
        is_cancelled: whether it is to be cancelled.
        failure: why nothing of it can be recorded any more, or None.
    """

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        run: RunRow,
        records: dict[str, StepRecord],
        *,
        reader: WorkspaceReader,
        recorder: Recorder,
        codes: Codes,
        concurrency: int,
        grace: float,
        told: Callable[[StepRecord], None],
    ) -> None:
        self._pipeline = pipeline
        self._run_row = run
        self._reader = reader
        self._recorder = recorder
        self._codes = codes
        self._concurrency = concurrency
        self._grace = grace
        self._loop = asyncio.get_running_loop()
        self.is_cancelled: bool = False
        self._is_ending = False
        self.failure: PipelineError | None = None
        self._feed: LeafFeed | None = None
        self._run: Run[None] | None = None
        self._scope: Scope | None = None
        self._window: Window[LeafNode, None] | None = None
        self._calls: LeafCalls | None = None
        self._tokens: dict[LeafNode, CancelToken] = {}
        self._journal: StepJournal = StepJournal(
            pipeline,
            number=run.number,
            run=run.run,
            records=records,
            reader=reader,
            recorder=recorder,
            told=told,
        )
        self.tree: StepTree = StepTree(
            pipeline,
            self._journal,
            concurrency=concurrency,
            codes=codes,
            make=node_of,
            start=self._start,
            stop=self._stop,
            rest=self._rest,
            freed=self._freed,
        )

    async def go(self) -> None:
        """Go on until all that can be done is done, or it is stopped; then nothing of it runs any more (P4)."""
        with keeping_programs():
            self._run = one_stage(self._open).open(grace=self._grace)
            tracer = TRACER.get()
            token = TRACER.set(None)  # its steps have spans, not the window that they run on
            async with self._run as results:
                TRACER.reset(token)
                if self._scope is not None:
                    self._scope.context.run(TRACER.set, tracer)
                self._guarded(lambda: self.tree.root.begin(OutputOf("")))
                try:
                    async for _ in results:
                        pass
                except BaseException:
                    self.cancel()
                    raise

    def cancel(self) -> None:
        """Stop it, as somebody wants it to be cancelled."""
        if not self.tree.is_over:
            self.is_cancelled = True
            self.tree.stop()

    def notice(self, noticed: Noticed) -> None:
        """Act upon what others have written."""
        if noticed.cancel:
            self.cancel()
        elif not (self.tree.stopped or self._is_ending):  # else the answer is seen where it ends
            self._guarded(lambda: self.tree.answered(noticed.answered))

    def unusable(self, error: BaseException) -> None:
        """Stop it, as nothing can be recorded."""
        if self.failure is None:
            workspace = self._reader.workspace.database
            self.failure = as_workspace_error(
                error if isinstance(error, Exception) else StoreError(said(error)), workspace
            )
            self.failure.__cause__ = error
        self.tree.stop()

    # What the tree asks for

    def _start(self, node: LeafNode) -> None:
        assert self._feed is not None
        self._feed.put(node)

    def _freed(self) -> None:
        if self._feed is not None:
            self._feed.tell()

    def _stop(self) -> None:
        if self._run is None:
            return
        reason: Reason = "caller cancelled" if self.is_cancelled else "sibling failed"
        graces = [node.step.own_grace for node in self.tree.running]
        if self._scope is not None:
            self._scope.grace = self._grace + max(graces, default=0.0)
        for token in list(self._tokens.values()):
            token.cancel(reason)
        self._run.abort(reason)

    def _rest(self) -> None:
        """Nothing more is to be done, unless somebody has answered meanwhile."""
        if not self.tree.is_over and (waiting := self.tree.unanswered()):
            self._loop.call_soon(self._guarded, lambda: self._rest_unless_answered(waiting))
            return
        self._end()

    def _rest_unless_answered(self, waiting: Collection[str]) -> None:
        if self.tree.stopped or not self.tree.root.waits:
            return
        self.tree.answered(waiting)
        self.tree.later(self._end_if_all_waits)

    def _end_if_all_waits(self) -> None:
        if self.tree.root.waits:
            self._end()

    def _end(self) -> None:
        self._is_ending = True
        if self._feed is not None:
            self._feed.end()

    def _guarded(self, what: Callable[[], None]) -> None:
        """Do it in the tree; where the workspace cannot be used, that ends the run."""
        try:
            self.tree.later(what)
        except _UNUSABLE as error:
            self.unusable(error)

    # The window

    def _open(self, scope: Scope, _in_order: bool) -> Stage[None]:  # noqa: FBT001 -- as all
        self._scope = scope
        self._calls = LeafCalls(scope, self._concurrency)
        self._feed = LeafFeed(scope, self.tree.settling)
        plan: Plan[LeafNode, None] = Plan(
            name=f"steps of {self._run_row.run}",
            work=self._work,
            concurrency=self._concurrency,
            ordered=False,
            buffer=sys.maxsize // 2,
        )
        self._window = Window(scope, self._feed, plan)
        return self._window

    async def _work(self, node: LeafNode) -> None:
        """Call a leaf, as often as its options say; what becomes of it is recorded, and the tree told."""
        task = asyncio.current_task()
        assert task is not None
        if node.over or self.tree.stopped:  # a task factory may begin it late
            return
        token = self._tokens[node] = CancelToken()
        node.cancel = partial(_cancel, task, token)
        self.tree.running.add(node)
        back: Callable[[], Awaitable[None]] | None = None
        try:
            columns, options = await self._outcome(node)
            await self._completed(node, columns, options)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            back = thread_back(error)
            is_stopped = isinstance(error, asyncio.CancelledError) and task.cancelling() > 0
            self._not_completed(node, error, is_stopped=is_stopped)
            if is_stopped and self.tree.stopped:
                raise
        finally:
            del self._tokens[node]
            node.cancel = _nothing
            self.tree.settled(node)
        if back is not None:
            await back()

    async def _completed(self, node: LeafNode, columns: dict[str, Any], options: dict[str, Any]) -> None:
        """Record the output, wait until it is, whatever cancellation comes, and go on behind it."""
        record, statements = node.record()
        change = self._journal.changed(
            record, status="completed", finished=time(), error=None, interrupted=0, reason=None, answer=None, **columns
        )
        node.end()
        committed = self._journal.write(*statements, change, tells=record, **options)
        goes_on = self._is_before_a_plain_leaf(node)
        if goes_on:
            self._guarded(node.tell_parent)
        try:
            await settled(committed)
        finally:
            if not goes_on and node.error is None and self._recorder.failure is None:
                self._guarded(node.tell_parent)

    def _is_before_a_plain_leaf(self, node: LeafNode) -> bool:
        """Whether what comes next is a call that reads nothing before its own `running` is committed.

        Then it need not wait for this output: both are one commit, or this is the one before.
        """
        parent, place = node.parent, node.position + 1
        if node.error is not None or not isinstance(parent, SequenceNode) or place >= len(parent.step.steps):
            return False
        step = parent.step.steps[place]
        if not isinstance(step, FunctionStep) or parent.under(step.name) in self._journal.records:
            return False
        options = step.options
        return not options.memo and options.limit is None and options.engine is None

    def _not_completed(self, node: LeafNode, error: BaseException, *, is_stopped: bool) -> None:
        tree = self.tree
        if isinstance(error, Exhausted):
            error = error.error
        if is_stopped or node.over:
            if not node.over or is_stopped:
                self._record_cancelled(node)
            return
        if isinstance(error, OutputRefused):
            tree.fail(node, "OUTPUT_REFUSED", str(error), error)
        elif isinstance(error, CannotBegin):
            tree.fail(node, "TASK_CREATION_FAILED", str(error), error)
        elif isinstance(error, Unusable):
            self.unusable(error.error)
        else:
            failure = as_failure(error, f"step {node.path!r}")
            tree.fail(node, "STEP_FAILED", failure_text(failure), failure)

    def _record_cancelled(self, node: LeafNode) -> None:
        record = self._journal.records.get(node.path)
        if record is not None and record.status == "running":
            self.tree.cancelled(node)
        node.end()

    # A leaf

    async def _outcome(self, node: LeafNode) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the columns of the output of a leaf, and the file that has to be there before."""
        step = node.step
        calls = self._calls
        assert calls is not None
        code = self._codes.of(step)
        item = b""
        limits = calls.limits(step)
        value: Any = None
        if step.options.memo or limits is not None or _checks(step):
            value = self._loaded(node)
        if step.options.memo:
            item = _digest(step, value)
            with _usable():
                known = self._reader.memo(code, item)
            if known is not None:
                return self._journal.stored(node.path, known)
        await step.prepare()
        step.check(value)
        retry = step.options.retry
        caller = calls.caller(step)
        call = partial(self._attempt, node, code, caller)
        attempt: Callable[[LeafNode], Awaitable[Any]] = lambda _: call()  # noqa: E731 -- a name for what is called
        if limits is not None:
            assert self._window is not None
            attempt = limited(attempt, partial(self._hold, limits, node, value))
        if retry is not None:
            attempt = retrying(
                attempt,
                retry,
                _nothing_to_note,
                lambda _: not (self.tree.stopped or node.over),
                stage=node.path,
                seen=lambda _: value,
            )
        content = codec.packed(await attempt(node))
        columns, options = self._journal.stored(node.path, content)
        if step.options.memo:
            self._recorder.write(
                (
                    "INSERT INTO flow_memo VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET output = excluded.output",
                    (code, item, content),
                )
            )
        return columns, options

    async def _attempt(self, node: LeafNode, code: bytes, caller: Callable[[Any, StepContext], Awaitable[Any]]) -> Any:
        """Record that it is called, then call it with a value of its own."""
        record, statements = node.record()
        before = {"attempts": record.attempts, "interrupted": record.interrupted, "started": record.started}
        begun = self._journal.changed(
            record,
            status="running",
            attempts=record.attempts + 1,
            interrupted=1,
            code=code,
            started=record.started or time(),
            finished=None,
            error=None,
            same=None,
        )
        try:
            await settled(self._journal.write(*statements, begun))
        except asyncio.CancelledError:  # it was not called; behind another one it may have been recorded early
            early = isinstance(node.parent, SequenceNode) and node.position > 0
            self._journal.write(
                self._journal.changed(record, **({"status": "pending", **before} if early else {"interrupted": 0}))
            )
            raise
        value = self._loaded(node)
        about = {"penstock.run.id": self._run_row.run, "penstock.step.path": node.path}
        try:
            with block(f"step {step_name(node.path)}", about | {"penstock.step.attempt": record.attempts}):
                result = await caller(value, self._context(node, record.attempts))
        except (asyncio.CancelledError, AttemptTimeout):
            raise
        except BaseException:
            record.interrupted = 0
            raise
        record.interrupted = 0
        return result

    def _loaded(self, node: LeafNode) -> Any:
        with _usable():
            return self._journal.load(node.origin, node.step)

    def _hold(self, limits: Limits, node: LeafNode, value: Any, _: object) -> Hold:
        assert self._window is not None
        return Hold(limits, node.path, self._window.meter, value)

    def _context(self, node: LeafNode, attempt: int) -> StepContext:
        return StepContext(
            step=node.path,
            attempt=attempt,
            state=State(partial(_names_before, node), partial(self._output_before, node)),
            cancel=self._tokens[node],
            log=logger_of(self._pipeline.name, node.path),
            recording=StepRecording(self._journal, self._run_row, node.path),
        )

    def _output_before(self, node: Node, name: str) -> Any:
        first = NUMBER.sub("", name.partition("/")[0])
        for sequence, before in _sequences_round(node):
            if first in before:
                path = sequence.under(name)
                record = self._journal.records.get(path)
                if record is None or record.status != "completed":
                    raise KeyError(name)
                return self._journal.load(OutputOf(path))
        raise KeyError(name)


class Unusable(PenstockError):
    """The workspace cannot be used; `error` says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _usable:  # noqa: N801 -- a block
    """In this block, what makes the workspace unusable is told from failures of the step."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, _UNUSABLE):
            raise Unusable(error) from error


def _checks(step: Leaf[Any, Any]) -> bool:
    """Whether a kind of leaf looks whether something is missing."""
    return "check" in {name for kind in type(step).__mro__[:-1] if kind is not Leaf for name in vars(kind)}


def _cancel(task: asyncio.Task[Any], token: CancelToken, reason: str) -> None:
    """Stop a call: the step hears of it first."""
    token.cancel(cast("Reason", reason))
    task.cancel(reason)


def _nothing(_: str) -> None:
    """Stop nothing."""


def _nothing_to_note() -> None:
    """Count nothing: attempts are recorded."""


def _digest(step: Leaf[Any, Any], value: Any) -> bytes:
    try:
        return codec.digest(value)
    except PenstockError as error:
        raise OptionError(f"memo=True of step {step.name!r} needs values that have a digest: {error}") from None


def _sequences_round(node: Node) -> Iterator[tuple[SequenceNode, list[str]]]:
    """Give the sequences that a step is in, from the innermost, each with the names of the steps before it there."""
    child: Node = node
    while (parent := child.parent) is not None:
        if isinstance(parent, SequenceNode):
            yield parent, [each.name for each in parent.step.steps[: child.position]]
        child = parent


def _names_before(node: Node) -> list[str]:
    found = dict.fromkeys(name for _, before in reversed(list(_sequences_round(node))) for name in before)
    return list(found)


def tell(hook: Callable[[Any], object] | None, what: Any, name: str) -> None:
    """Call a hook; one that raises is logged, and changes nothing."""
    if hook is None:
        return
    try:
        hook(what)
    except Exception as error:  # noqa: BLE001 -- as said
        with suppress(Exception):
            LOG.error("%s raised %s", name, said(error))
