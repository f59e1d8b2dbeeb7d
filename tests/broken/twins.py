"""Wrong implementations, each a small patch of the real one, and the file of tests that must reject it.

A pytest plugin: `PENSTOCK_TWIN=name pytest -p twins ...` runs tests against the twin of that name. What fails is
written to the file `PENSTOCK_TWIN_SEEN`, a line for each failure: by which kind of exception, and in which test.
"""

import asyncio
import inspect
import os
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, replace
from heapq import heapify
from itertools import count
from pathlib import Path

from penstock.core import adaptive, one_place, open_runs, standby
from penstock.core import clock as clocks
from penstock.core import meter as meters
from penstock.core import scope as scopes
from penstock.core import window as windows
from penstock.core.adaptive import Control
from penstock.core.batches import _Bad, _Halving
from penstock.core.breaker import Circuit
from penstock.core.by_key import ByKey
from penstock.core.byte_budget import BudgetedWindow
from penstock.core.calling import composed
from penstock.core.closing import aclose
from penstock.core.deadlines import Deadlines
from penstock.core.errors import WorkerLost, as_failure
from penstock.core.fan_out import FanOut
from penstock.core.meter import Meter, Wait
from penstock.core.one_place import OnePlace
from penstock.core.open_input import Unbegun
from penstock.core.order import InOrder
from penstock.core.outcome import Failed
from penstock.core.permits import Permits
from penstock.core.plan import DROPPED, Tolerance
from penstock.core.pump import Pump
from penstock.core.retry import Retry, RetryBudget
from penstock.core.schedule import Schedule
from penstock.core.scope import Outlet, Scope
from penstock.core.snapshots import Snapshots
from penstock.core.source import AsyncIteratorStage, IteratorStage
from penstock.core.stage import END, PENDING
from penstock.core.stage_limits import Hold
from penstock.core.standby import Standby
from penstock.core.transforming import Transforming
from penstock.core.waiting_line import WaitingLine
from penstock.core.waiting_room import WaitingRoom
from penstock.core.window import Caller, Window
from penstock.durable.roots import Root
from penstock.engines.binding import Binding
from penstock.engines.engine import Answer
from penstock.engines.groups import GroupErrand, Groups
from penstock.flow import run_forks
from penstock.flow.added import StepWindow
from penstock.flow.execution import Execution
from penstock.flow.leaf import Leaf
from penstock.flow.one_at_a_time import BranchNode
from penstock.flow.results import PipelineError
from penstock.flow.reviews import ReviewNode
from penstock.flow.shapes import Parallel
from penstock.flow.step_journal import StepJournal
from penstock.flow.together import Together
from penstock.flow.tree import Node, StepTree
from penstock.flow.workspace_files import WorkspaceFiles
from penstock.flow.workspace_reader import WorkspaceReader
from penstock.ops.checkpoint import _Many
from penstock.ops.combine import Merge
from penstock.ops.group import Batch
from penstock.ops.metadata import Envelope
from penstock.ops.operator import Operator
from penstock.ops.passing import Take
from penstock.ops.tee import BranchSource
from penstock.run import Run
from penstock.sinks import target_tree
from penstock.sinks.directory import FileStore
from penstock.sinks.json_lines import LineStore


@dataclass(frozen=True)
class Twin:
    """A wrong implementation: what it gets wrong, how, which tests see it, and by which exception."""

    wrong: str
    patch: Callable[[], None]
    rejected_by: str
    seen_as: str


TWINS: dict[str, Twin] = {}


def put(owner, name, wrong):
    """Put `wrong` in the place of `owner.name`: called as the real one is, or it would be rejected by a TypeError."""
    real = getattr(owner, name)
    if callable(real) and (asked := parameters_of(real)) != (taken := parameters_of(wrong)):
        raise TypeError(f"{name} takes {asked}, the twin takes {taken}")
    setattr(owner, name, wrong)


def parameters_of(fn):
    return [(each.name, each.kind) for each in inspect.signature(fn).parameters.values()]


def twin(wrong, rejected_by, seen_as="AssertionError"):
    """Register a twin; what rejects it is a test that fails with `seen_as`, not an accident of the patch."""

    def register(patch):
        TWINS[patch.__name__] = Twin(wrong, patch, rejected_by, seen_as)
        return patch

    return register


@twin("starts one call too many (streamable, SPDL: n+1 running)", "guarantees/test_p1_bound.py")
def naive_limiter():
    room = Window._room
    put(Window, "_room", lambda self: room(self) + 1)


@twin(
    "counts what runs, not what is undelivered (mpire, pypeln): the reorder buffer grows", "guarantees/test_p1_bound.py"
)
def unbounded_reorder():
    put(Window, "_room", lambda self: self.concurrency - len(self.running))


KILLED_LINES = "sinks/test_json_lines.py::test_killed_at_any_step_the_file_has_each_line_once[process]"


@twin("appends lines before they are committed, and again after", KILLED_LINES)
def appends_before_the_commit():
    note_due = LineStore.note_due

    def append(self):
        is_due = note_due(self)
        data = b"".join(data for (data,) in self.connection.execute("SELECT data FROM due ORDER BY id"))
        os.write(os.open(self._sink.file, os.O_WRONLY | os.O_APPEND), data if is_due else b"")
        return False

    put(LineStore, "note_due", append)


@twin("forgets at the end of a run that lines were replaced", "sinks/test_json_lines.py")
def replaces_nothing():
    put(LineStore, "_close_gaps", lambda self: None)


@twin("takes whatever is in the file for its own", "sinks/test_json_lines.py", "Failed")
def takes_any_file():
    put(LineStore, "_refuse_if_not_ours", lambda self, tail: None)


KILLED_FILES = "sinks/test_directory.py::test_killed_at_any_step_there_are_no_files_but_those_of_each_root[process]"


@twin("gives files their names before they are committed", KILLED_FILES)
def renames_before_the_commit():
    note_due = FileStore.note_due

    def rename(self):
        is_due = note_due(self)
        self.carry_out()
        return is_due

    put(FileStore, "note_due", rename)


@twin("follows links in its directory", "sinks/test_directory.py")
def follows_links():
    for flags in ("_BELOW", "_FILE"):
        setattr(target_tree, flags, getattr(target_tree, flags) & ~os.O_NOFOLLOW)


@twin("overwrites files of others", "sinks/test_directory.py")
def overwrites():
    put(target_tree.TargetTree, "digest", lambda self, name, may_go: None)


@twin("tells nobody of calls without a task that are back", "test_errands.py", "Deadlock")
def mute_errands():
    def settle(self, errands):
        self._pumping = True
        for errand in errands:
            self._settle_errand(errand)
        self._pumping = False

    put(Window, "_settle_errands", settle)


@twin("lets calls without a task go on after the run was left", "test_groups.py", "UnstoppedWorkWarning")
def unstoppable_errands():
    put(GroupErrand, "cancel", lambda self, _reason=None: None)


@twin("leaves the calls running that were in flight (streamable after break)", "guarantees/test_p4_leaving.py")
def no_cancel():
    def halt(self, index):
        self._stopping = self._exhausted = True
        self._discard_behind(index)
        self.running.clear()
        self.upstream.stop()
        self._tell()

    put(Pump, "_halt", halt)


@twin(
    "holds a finished result until the source gives another item (streamable)",
    "guarantees/test_p2_progress.py",
    "Deadlock",
)
def result_held_for_the_source():
    def tell(self):
        waits = not self._exhausted and self._taken < self.concurrency
        if self._asked and not waits and (self._has_next() or self._is_over()):
            self._asked = False
            self.on_ready()

    put(Pump, "_tell", tell)


@twin("takes None for no result (pypeln)", "guarantees/test_p6_values.py")
def drops_none():
    call, returned = Window._call, Window._returned

    async def call_and_look(self, index, item, work):
        async def looking(item):
            value = await work(item)
            return DROPPED if value is None else value

        await call(self, index, item, looking)

    put(Window, "_call", call_and_look)
    put(
        Window,
        "_returned",
        lambda self, index, item, value: returned(self, index, item, DROPPED if value is None else value),
    )


@twin("forgets a bare call that does not return at once", "test_bare_calls.py")
def forgets_who_waits():
    put(OnePlace, "_waits_bare", lambda self, index, item, task: None)


@twin("settles a bare call twice: when it waits, and when it is over", "test_bare_calls.py")
def settles_twice():
    waits = OnePlace._waits_bare

    def wait_and_settle(self, index, item, task):
        waits(self, index, item, task)
        self._dropped += 1

    put(OnePlace, "_waits_bare", wait_and_settle)


@twin("leaves it to the loop to report what has ended the task of a bare call", "test_bare_calls.py")
def leaves_it_to_the_loop():
    put(OnePlace, "_raised_bare", lambda self, index, item, task, error: self._raised(index, item, error))


@twin("calls what only makes an awaitable outside of the task of its item", "test_bare_calls.py")
def calls_outside_of_the_task():
    put(one_place, "makes_coroutines", lambda work: True)


@twin("swallows the cancellation of whoever waits (aioitertools)", "guarantees/test_p8_cancellation.py")
def swallows_cancel():
    wait = Run._wait

    async def wait_on(self):
        while True:
            try:
                return await wait(self)
            except asyncio.CancelledError:
                continue

    put(Run, "_wait", wait_on)


@twin("backs off linearly and calls it exponential", "test_retry.py")
def linear_backoff():
    put(Retry, "backoff", lambda self, failures: min(self.max, self.initial * failures))


@twin("charges an item's failure to the item before it", "guarantees/test_p5_outcomes.py")
def blames_the_neighbour():
    raised = Caller._raised
    put(Caller, "_raised", lambda self, index, item, error: raised(self, max(index - 1, 0), item, error))


@twin("raises the last failure, not the first (golang #27837)", "guarantees/test_p5_outcomes.py", "Boom")
def masks_the_first_failure():
    def fail(self, failed):
        if self.failure is not None:
            self.keep(self.failure)
        self.failure = failed

    put(Scope, "fail", fail)
    put(Caller, "_fail", lambda self, failed: (self.scope.fail(failed), self._halt(failed.index)))


@twin("reads one item further than asked (ZIO: take pulls n+1)", "guarantees/test_p1_bound.py")
def take_reads_on():
    pull = Take.pull

    def pull_and_look(self, room):
        item = pull(self, room)
        if self._left == 0 and item is not END:
            self.upstream.pull(1)
        return item

    stop = IteratorStage.stop
    put(IteratorStage, "stop", lambda self: None if not self.scope.closing else stop(self))
    put(Take, "pull", pull_and_look)


@twin("always asks the first source first: the others starve (aiostream, 1000 to 0)", "guarantees/test_p3_order.py")
def unfair_merge():
    hand_over = Merge._hand_over

    def first_first(self):
        for source in self._ready:
            source.served = -self.scope.stages[source.stage]
        heapify(self._ready)
        self._given = 0
        return hand_over(self)

    put(Merge, "_hand_over", first_first)


@twin("keeps the loop for as long as calls return at once", "guarantees/test_p9_the_loop.py")
def never_yields():
    put(Scope, "begin_turn", lambda self: setattr(self, "turn_ends", float("inf")))
    init = Scope.__init__

    def begin(self, grace, *, timing=False):
        init(self, grace, timing=timing)
        self.turn_ends = float("inf")

    put(Scope, "__init__", begin)


@twin("retries what was cancelled (tenacity #529)", "guarantees/test_p8_cancellation.py")
def retries_cancellation():
    from penstock.core import calling  # noqa: PLC0415 -- its name is what is patched

    def retrying(work, retry, on_retry, may_retry=None, forget=None, *, stage, seen=None):
        async def attempts(item, tries=None):
            for _ in range(retry.attempts - 1):
                try:
                    return await work(item)
                except BaseException:  # noqa: BLE001 -- what is wrong with it
                    on_retry()
            return await work(item)

        return attempts

    put(calling, "retrying", retrying)


@twin("closes the source from the task that leaves", "guarantees/test_p4_leaving.py")
def closes_in_the_wrong_task():
    end, elsewhere = AsyncIteratorStage._interrupt, set()

    def interrupt_and_close(self):
        end(self)
        if self._iterator is not None:
            elsewhere.add(asyncio.get_running_loop().create_task(aclose(self._iterator)))

    async def leave_open(self):
        if self._iterator is not None:
            await asyncio.sleep(0)

    put(AsyncIteratorStage, "_interrupt", interrupt_and_close)
    put(AsyncIteratorStage, "_close", leave_open)


@twin("forgets what it could not hand on (an item without an outcome)", "guarantees/test_p5_outcomes.py")
def loses_the_books():
    put(InOrder, "discard_behind", lambda self, index: self.waiting.clear() or 0)
    close = Window.close
    put(Window, "close", lambda self: (self.finished.clear(), close(self)))


@twin("counts a sibling's cancellation as the item's failure", "guarantees/test_p8_cancellation.py")
def cancelled_is_failed():
    def raised(self, index, item, error):
        self._failed += 1
        failed = Failed(as_failure(error), index, item, self.name)
        if self._stopping:
            self.scope.keep(failed)
        else:
            self._fail(failed)
        self._settled()

    put(Caller, "_raised", raised)


@twin("keeps a slot for each item behind a stuck head, though it was dropped", "guarantees/test_p7_cost.py")
def slots_pile_up():
    returned, slots = Window._returned, []

    def keep_slot(self, index, item, value):
        slots.append((index, [None] * 8))
        returned(self, index, item, value)

    put(Window, "only_stores", False)
    put(Window, "_returned", keep_slot)


@twin("starts the batch's timer when the batch before it left (Benthos, Pekko)", "test_batch.py")
def timer_from_the_last_batch():
    hand_over = Batch._hand_over

    def hand_over_and_rewind(self):
        items = hand_over(self)
        if self._within is not None:
            self._timer = self.scope.loop.call_later(self._within, self._time_is_up)
        return items

    put(Batch, "_hand_over", hand_over_and_rewind)


@twin("gives up waiting at a second cancellation (20a)", "guarantees/test_p4_leaving.py")
def leaves_at_the_second_cancel():
    import penstock.run as runs  # noqa: PLC0415 -- its name is what is patched

    async def wait(future, abandoned=None):
        await asyncio.shield(future)

    put(scopes, "outlast", wait)
    put(runs, "outlast", wait)


@twin("lets every input of a flat_map run ahead", "guarantees/test_p1_bound.py")
def flat_map_runs_ahead():
    put(Permits, "may_make", lambda self, outputs: True)


@twin("hands to a pull what any input of a flat_map makes", "test_flat_map.py")
def outputs_of_any_input_go_straight():
    put(FanOut, "_goes_straight", lambda self, outputs: True)


@twin("forgets generators of a flat_map that nobody has read yet", "test_flat_map.py")
def unread_generators_are_forgotten():
    def cancel(self, _reason):
        del self._never_read.__self__.running[self._outputs.index]

    put(Unbegun, "cancel", cancel)


@twin("hands an output that has waited to a pull that is over", "test_flat_map.py", "Deadlock")
def outputs_go_to_a_pull_that_is_over():
    put(FanOut, "_let_wait", lambda self, outputs: None)


@twin("asks for no turn where inputs of a flat_map are opened until it ends", "test_flat_map.py", "Deadlock")
def pulls_that_open_inputs_end_with_their_turn():
    real = FanOut._open_heads

    def open_heads(self):
        scheduled, self._scheduled = self._scheduled, True
        try:
            return real(self)
        finally:
            self._scheduled = scheduled

    put(FanOut, "_open_heads", open_heads)


@twin("hands on outputs of a list together and counts none of them", "test_batch.py")
def outputs_together_are_not_counted():
    def take(self, outputs, count):
        return [outputs.ready.popleft() for _ in range(count)]

    put(FanOut, "_take", take)


@twin("gives up a whole list for one bad item", "test_map_batches_failing.py")
def one_bad_item_costs_a_list():
    async def call(self, items):
        try:
            return await self.first(items)
        except Exception as error:  # noqa: BLE001 -- as the real one
            return [_Bad(error, 1)] * len(items)

    put(_Halving, "__call__", call)


@twin("tries again after the run was left", "test_retry.py", "Failed")
def retries_after_leaving():
    def composed_for_ever(self, attempt):
        return composed(self.plan, self.meter, attempt, may_retry=lambda _: True)

    put(Window, "_composed", composed_for_ever)


@twin("reads a source that blocks on the loop", "test_sources_in_threads.py", "RuntimeError")  # of the virtual clock
def blocks_the_loop():
    async def read(self, limit, fn, *args):
        return fn(*args)

    put(Binding, "run", read)


@twin("counts the wait for a slow head as one for the consumer", "test_stats.py")
def blames_the_consumer():
    wait_for = Meter.wait_for
    put(Meter, "wait_for", lambda self, what: wait_for(self, Wait.CONSUMER if what is Wait.HEAD else what))


@twin("lets a deadline stand when its attempt has ended, and hits the next one of its task", "test_deadlines.py")
def deadline_of_the_last_attempt():
    put(Deadlines, "end", lambda self, task: task not in self._due)


@twin("cancels all calls of a stage when the first is late", "test_deadlines.py")
def all_late_at_once():
    time_is_up = Deadlines._time_is_up

    def all_are(self):
        self._watched = float("inf")
        time_is_up(self)

    put(Deadlines, "_time_is_up", all_are)


@twin("times every call, which costs a tenth of a fast one", "test_stats.py")
def always_looks_at_the_clock():
    put(Meter, "samples", lambda self, taken: True)
    put(Meter, "slow", property(lambda self: True, lambda self, value: None))


@twin("drains streams inside the work too, and so cuts items short", "test_signals.py")
def drains_what_is_in_flight():
    opened = open_runs.opened
    put(open_runs, "opened", lambda run: Context().run(opened, run))


@twin("counts as started what was cancelled before its first step", "test_core_clock.py")
def starts_what_never_began():
    raised = Caller._raised

    def never_began(self, index, item):
        del self.running[index]
        raised(self, index, item, asyncio.CancelledError())

    put(Caller, "_never_began", never_began)


@twin("measures by a clock that ticks every millisecond", "test_core_clock.py")
def coarse_clock():
    put(clocks, "clock_of", lambda loop: loop.time)
    put(scopes, "clock_of", lambda loop: loop.time)


@twin("puts up with one failure more than max_failures says", "test_on_error.py")
def one_failure_more():
    exceeded = Tolerance.exceeded
    put(Tolerance, "exceeded", lambda self, failed, settled: exceeded(self, failed - 1, settled))


def pytest_exception_interact(node, call):
    with Path(os.environ["PENSTOCK_TWIN_SEEN"]).open("a") as seen:
        print(call.excinfo.typename, node.nodeid, file=seen)


@twin("begins more before it tells the stage below of what has finished", "guarantees/test_p2_progress.py")
def pumps_before_telling():
    def take_turn(self):
        self._scheduled = False
        self._pump(wanted=False)
        self._tell()

    Pump.take_turn = take_turn


@twin("serves the stages next to the source first, however much has finished below", "guarantees/test_p2_progress.py")
def upstream_first():
    schedule = Scope.schedule

    def schedule_reversed(self, stage):
        self.stages = {each: abs(rank) for each, rank in self.stages.items()}
        schedule(self, stage)

    Scope.schedule = schedule_reversed


@twin("keeps to the order though nobody can see it", "guarantees/test_p3_order.py")
def always_in_order():
    Operator.shows_order = lambda self, in_order: self.ordered is not False


@twin("hands on as finished though the order can be seen", "guarantees/test_p3_order.py")
def forgets_who_sees_the_order():
    Operator.shows_order = lambda self, in_order: in_order


@twin("gives outputs of a flat_map as long as one input has some: the others starve", "test_flat_map.py")
def unfair_flat_map():
    FanOut._must_pass = lambda self, turns: False


@twin("holds finished results until their group is over: a slow neighbour holds them up", "test_groups.py")
def never_looks_at_a_group():
    put(Groups, "_look_at", lambda self, group, *times: None)


@twin("fails all calls of a group whose worker has died (ProcessPoolExecutor)", "test_groups.py")
def blames_the_neighbours():
    over = Groups._over

    def over_for_all(self, group, answers):
        said = answers.result()
        if said and isinstance(said[-1].error, WorkerLost):
            said += [Answer(error=said[-1].error) for _ in group.requests[len(said) :]]
            for each in group.requests:
                each.lost = True
        over(self, group, answers)

    put(Groups, "_over", over_for_all)


@twin("times out all calls of a group with the one that is late", "test_groups.py")
def late_together():
    late = Groups._late

    def all_late(self, request):
        for each in request.group.left:
            late(self, each)

    put(Groups, "_late", all_late)


@twin("commits a root of which something has failed, with the rest of it", "durable/test_together.py")
def root_that_has_failed():
    put(Root, "is_one_row", property(lambda self: self.under_way == 1 and self.is_new and not self.rows))


@twin("sends a group a while later, when there may be more calls for it", "test_groups.py")
def waits_for_company():
    def send_later(self):
        if not self._scheduled and self._queue and self._used < self._capacity:
            self._scheduled = True
            self._loop.call_later(self._target, self._send)

    put(Groups, "_send_soon", send_later)


@twin("keeps cancelled calls in the queue, and so in memory, as long as no worker is free", "test_groups.py")
def leaks_what_was_cancelled():
    leave = Groups.leave
    put(Groups, "leave", lambda self, request: None if request.group is None else leave(self, request))


@twin("counts the wait for a worker as latency", "test_groups.py")
def waiting_is_latency():
    put(meters, "WAITED", type("", (), {"set": lambda self, _: None, "get": lambda self: 0.0})())


@twin("lets what waits go on when a run is resumed", "flow/test_answers.py")
def resume_approves():
    put(ReviewNode, "ask", lambda self: self.complete(same=""))


@twin("blames the step that failed last", "flow/test_running.py")
def blames_the_last():
    fail = StepTree.fail

    def fail_last(self, node, code, message, cause=None):
        fail(self, node, code, message, cause)
        self.errors.reverse()

    put(StepTree, "fail", fail_last)


@twin("hands outputs on in memory: all consumers have one object", "flow/test_running.py")
def outputs_of_memory():
    loaded = {}
    load = StepJournal._loaded

    def load_once(self, origin, hint):
        return loaded.setdefault((self.number, self.run, origin), load(self, origin, hint))

    put(StepJournal, "_loaded", load_once)


@twin("has as many places for each map as the engine has for all", "flow/test_running.py")
def nesting_multiplies():
    open_window = Execution._open

    def open_wider(self, scope, _in_order):
        self._concurrency *= 10
        return open_window(self, scope, _in_order)

    put(Execution, "_open", open_wider)


@twin("calls finished steps again", "flow/test_running.py")
def forgets_what_is_finished():
    def begin(self, origin):
        self.origin = origin
        self.tree.live[self.path] = self
        self.go_on()

    put(Node, "begin", begin)


@twin("tells hooks before the commit", "flow/test_running.py")
def tells_too_early():
    write = StepJournal.write

    def tell_first(self, *statements, tells=None, **options):
        if tells is not None:
            self.told(tells)
        return write(self, *statements, **options)

    put(StepJournal, "write", tell_first)


@twin("fails the run with an item that a map does without", "flow/test_running.py")
def collects_nothing():
    def outermost(self, *, of_all=False):
        return self if self.parent is None else self.parent.outermost_that_fails(of_all=of_all)

    put(Node, "outermost_that_fails", outermost)


@twin("chooses anew when a run goes on", "flow/test_running.py")
def chooses_again():
    go_on = BranchNode.go_on

    def forget_and_go_on(self):
        for each in self.step.children().values():
            self.tree.journal.records.pop(self.under(each.name), None)
        go_on(self)

    put(BranchNode, "go_on", forget_and_go_on)


@twin("keeps the place of a step that waits for an answer", "flow/test_answers.py", "TimeoutError")
def waits_in_its_place():
    put(Together, "child_waits", lambda self, child: None)


@twin("keeps all that is finished in a fork", "flow/test_answers.py")
def forks_keep_all():
    put(run_forks, "_kept", lambda records, at: [path for path, each in records.items() if each.attempts])


@twin("reads a large output without a look at its digest", "flow/test_running.py")
def believes_files():
    put(WorkspaceFiles, "content", lambda self, path, file, digest: self.place(file).read_bytes())


@twin("records a cancelled run as failed", "flow/test_running.py")
def cancelled_run_is_failed():
    def cancel(self):
        if not self.tree.is_over:
            self.failure = PipelineError("STEP_FAILED", None, "it was cancelled")
            self.tree.stop()

    put(Execution, "cancel", cancel)


@twin("counts attempts anew in each resume", "flow/test_running.py")
def counts_anew():
    records = WorkspaceReader.records

    def read(self, number):
        found = records(self, number)
        for each in found.values():
            each.attempts = 0
        return found

    put(WorkspaceReader, "records", read)


@twin("lets a call that waits for its key hold its place", "test_keys.py", "Deadlock")
def waits_for_its_key_in_its_place():
    async def aside(self, permit):
        await permit

    put(WaitingRoom, "aside", aside)


@twin("lets new items in before those that have their key: a key starves", "test_keys.py", "Deadlock")
def new_items_first():
    def admit(self):
        if self._window._exhausted:
            admit_all(self)

    admit_all = WaitingRoom.admit
    put(WaitingRoom, "admit", admit)


@twin("lets in a call that has its key though no place is free", "test_keys.py")
def one_too_many_comes_back():
    async def aside(self, permit):
        self._leave()
        try:
            await permit
        finally:
            self._come_back()

    put(WaitingRoom, "aside", aside)


@twin("notes a key as held only when there is a place too", "test_keys.py", "TimeoutError")
def keeps_a_key_that_was_cancelled():
    async def hold(self, limiter, key, weight):
        await limiter._wait(weight, self._stage, key)

    async def take(self, *, keyed):
        for limiter, key, weight in self._weights:
            if limiter._keyed is keyed:
                if not limiter._take(weight, self._stage, key):
                    await self._waits(self._hold(limiter, key, weight), keyed=keyed)
                self._held.append((limiter, key, weight))

    put(Hold, "_hold", hold)
    put(Hold, "_take", take)


@twin("never forgets a key", "test_keys.py")
def keeps_every_key():
    put(ByKey, "forget", lambda self, key: None)
    put(WaitingLine, "is_idle", lambda self: False)


@twin("forgets a key that owes", "test_keys.py")
def forgets_what_is_owed():
    put(Schedule, "is_idle", lambda self: not (self._promises or self._waiters))


@twin("waits for a key with the turn of a rate that all share", "test_keys.py")
def keys_come_last():
    async def acquire(self):
        for rate, key, cost in self._costs:
            await self._waits(self._turn(rate, key, cost), keyed=rate._keyed)
        await self._take(keyed=False)
        await self._take(keyed=True)

    put(Hold, "_acquire", acquire)


@twin("starts calls while a limit is paused", "test_pauses.py")
def no_pause():
    put(WaitingLine, "pause", lambda self, seconds: None)
    put(Schedule, "pause", lambda self, seconds: None)


@twin("starts as many as ever when a pause is over", "test_pauses.py")
def all_at_once_after_a_pause():
    def begin(self):
        self.limit = self.full

    put(WaitingLine, "_begin_slowly", begin)


@twin("lets a call start in a pause that began while it waited for something else", "test_pauses.py")
def looks_for_pauses_too_early():
    put(Hold, "_pause_left", lambda self: 0.0)


@twin("pauses nothing when a service says how long to stay away", "test_pauses.py")
def waits_alone():
    put(Retry, "paused", lambda self: ())


@twin("sends all that wait to find out whether a service is back", "test_breaker.py")
def everybody_is_the_probe():
    def begin(self):
        self._probing = False
        return self._times

    put(Circuit, "begin", begin)


@twin("looks at a breaker only before it waits for other limits", "test_breaker.py")
def looks_at_breakers_too_early():
    async def wait(self):
        await self._acquire()
        self._times = [breaker._begin(key) for breaker, key in self._breakers]

    put(Hold, "_wait", wait)


@twin("leaves the probe to a call that was cancelled", "test_breaker.py", seen_as="Deadlock")
def a_probe_is_lost():
    def ended(self, error, *, counts):
        if not self._is_open or error is None or counts:
            real(self, error, counts=counts)

    real = Circuit._ended
    put(Circuit, "_ended", ended)


@twin("retries whatever the budget says", "test_retry.py")
def no_retry_budget():
    put(RetryBudget, "allows_retry_after", lambda self, error: True)


@twin("leaves an estimate as it was charged", "test_pauses.py")
def never_settles():
    put(Schedule, "settle", lambda self, more: None)


@twin("tries a number that was refused again at once", "test_adaptive.py")
def overshoots():
    adaptive.QUIET = 0


@twin("takes a latency that rises for none of its business", "test_adaptive.py")
def does_not_see_queues():
    def judge(self, rise, noise):
        judged(self, 1.0, noise)

    judged = Control._judge
    put(Control, "_judge", judge)


@twin("starts calls however many bytes wait", "test_map_options.py")
def no_budget():
    put(BudgetedWindow, "_room", lambda self: Window._room(self))


@twin("reads on though a branch lags", "test_tee.py")
def unbounded_tee():
    BranchSource.lags = property(lambda self: False)


@twin("lets the next item of a key begin while one waits for its next try", "test_map_options.py")
def a_key_for_each_try():
    def composed_with_key(plan, *arguments, **parts):
        if plan.one_by_one is not None:
            plan = plan.replaced(limits=plan.one_by_one, one_by_one=None)
        return composed(plan, *arguments, **parts)

    windows.composed = composed_with_key


@twin("a pipeline in a stream has more than one call of an item in flight", "flow/test_added.py")
def siblings_at_once():
    def bind_inner(self, calls):
        inner = [(each.name, each.bind_inner(calls)) for each in self.steps]

        async def call(value, path):
            return self.gives(await asyncio.gather(*(each(value, f"{path}/{name}") for name, each in inner)))

        return call

    put(Parallel, "bind_inner", bind_inner)


@twin("the retry of a step is stored and never read in a stream", "flow/test_added.py", "OSError")
def step_is_tried_once():
    real = Leaf.within_options

    def within_options(self, calls, attempt, limits):
        once = Leaf(self.name, replace(self.options, retry=None))
        return real(once, calls, attempt, limits)

    put(Leaf, "within_options", within_options)


@twin("cancels a step before its token is signalled", "flow/test_added.py")
def token_comes_late():
    put(StepWindow, "_halt", lambda self, index: Window._halt(self, index))


@twin("a transform is read ahead of what is asked for", "flow/test_added.py")
def transform_reads_on():
    real = Transforming.pull
    put(Transforming, "pull", lambda self, room: real(self, room + 9))


@twin("a transform takes the failure of a stage above for the end", "flow/test_added.py")
def transform_sees_no_failure():
    put(Transforming, "_raise_failure", lambda self: None)


@twin("the state of a run is always empty", "test_checkpoints.py")
def state_is_empty():
    put(Snapshots, "put", lambda self, name, snapshot: None)


@twin("a snapshot is handed out itself, not a copy", "test_checkpoints.py")
def snapshots_are_shared():
    put(_Many, "read", lambda self: self._items)


@twin("an index counts what comes, not the items of the source", "test_metadata.py")
def index_of_what_comes():
    real, numbers = Envelope.record, count()

    def record(self, time):
        return replace(real(self, time), index=next(numbers))

    put(Envelope, "record", record)


@twin("attempts are those of the last call alone", "test_metadata.py")
def last_call_alone():
    def now(self, value):
        return Envelope(value, self.index, self.began, max(self.tries - 1, 0))

    put(Envelope, "now", now)


@twin("begins more work before a consumer that is on its way", "guarantees/test_p2_progress.py")
def consumer_comes_last():
    nobody = Outlet()
    Scope.outlet = property(lambda self: nobody, lambda self, outlet: None)


@twin("wakes a consumer a pass after its result has come", "test_one_place.py")
def consumer_comes_a_pass_late():
    real = Outlet.__init__

    def begin(self):
        real(self)
        self._in_vain = 2**62

    put(Outlet, "__init__", begin)


@twin("begins the next call of one place only when it is asked for", "test_one_place.py")
def next_call_waits_to_be_asked_for():
    real = OnePlace.__init__

    def begin(self, scope, upstream, plan):
        real(self, scope, upstream, plan)
        self._begins_more = False

    put(OnePlace, "__init__", begin)


@twin("begins the next call of one place before a reader of all has the result", "test_one_place.py")
def call_overtakes_a_result():
    real = OnePlace._stored

    def stored(self):
        if (keep := self._keep_result) is None or not self._asked:
            real(self)
            return
        self._asked, result = False, self._result()
        while result is not PENDING and result is not END:
            following = self.pull(1)
            keep(result)
            result = following
        if result is END:
            self.on_ready()

    put(OnePlace, "_stored", stored)


@twin("wakes a reader of all for each item of one place", "test_one_place.py")
def reader_of_all_is_woken():
    put(OnePlace, "_settled", Window._settled)


@twin("gives on what one place has made in a turn that is over long since", "test_one_place.py")
def gives_on_in_an_old_turn():
    put(Scope, "begin_turn", lambda self: None)


@twin("holds what one place has handed on while its reader waits", "test_one_place.py")
def loop_that_rests_holds_it():
    put(OnePlace, "take_turn", Window.take_turn)


@twin("takes the next item of one place though something has begun since it took the last", "test_one_place.py")
def goes_on_blindly():
    put(OnePlace, "_is_idle", lambda self: not self._exhausted)


@twin("has a generator wait for a pass of the loop before each output", "test_flat_map.py")
def outputs_come_a_pass_late():
    real = Standby.resume
    put(Standby, "resume", lambda self: self._loop.call_soon(real, self))


@twin("lets a generator go on in the task of whoever asks", "test_standby.py", "Deadlock")
def generator_of_another_task():
    standby.current_task = lambda loop: None


def pytest_configure(config):
    """Put the twin in the place of the real thing."""
    TWINS[os.environ["PENSTOCK_TWIN"]].patch()
