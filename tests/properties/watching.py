"""Holds a run to its promises at every step: after each callback of the loop, and whenever a call begins.

A `Boundary` lies between two stages and keeps what is handed on there. It is no stage: it changes no schedule.
"""

import itertools
import sys
from contextlib import contextmanager

import penstock.streams  # noqa: F401 -- what looks at the clock is there before `turns` replaces it
from penstock import Failed
from penstock.core import clock as clocks
from penstock.core.stage import END, PENDING
from penstock.ops.operator import passing

from .list_code import follows, plain
from .schedules import ONE_FOR_ONE, STOPPING, WORKING

OUTCOMES = ("_delivered", "_dropped", "_failed", "_cancelled", "_discarded")
COUNTS = (
    "taken", "delivered", "dropped", "failed", "cancelled", "discarded", "in_flight", "started", "succeeded",
    "retried", "running", "buffered", "upstream_wait_s", "consumer_wait_s", "blocked_by_head_s",
)  # fmt: skip
HELD = {
    "batch": lambda size: size,
    "batch_within": lambda size: size,
    "batch_weight": lambda size: size,
    "prefetch": lambda size: size,
    "flatten": lambda size: 2 * size,
    "merge": lambda _: 2,
    "zip": lambda _: 2,
    "chain": lambda _: 0,
    "take": lambda _: 0,
    "enumerate": lambda _: 0,
}
"""Items that a step without work may hold (P1)."""


class Boundary:
    """What one stage hands on to the next, in order."""

    def __init__(self, witness, *, step=None, work=None, inputs=(), script=None, source=None):
        self.witness, self.step, self.work, self.inputs = witness, step, work, inputs
        self.script, self.source = script, source
        self.given = []
        self.items_out = 0
        self.failed_in_band = 0
        self.stage = None
        self.counts = (0,) * 6

    def attach(self, stream):
        return stream._with(passing("boundary", self._open))

    def _open(self, _, stage):
        self.stage = stage
        pull, ready_items, ready_list = stage.pull, stage.ready_items, stage.ready_list

        def watched_pull(room):
            item = pull(room)
            if item is not PENDING and item is not END:
                self._hand_on(item)
            return item

        def watched_items(room):
            for item in ready_items(room):
                self._hand_on(item)
                yield item

        def watched_list(room):
            before = len(self.given)
            items = ready_list(room)
            for item in items[len(self.given) - before :]:  # unless `watched_items` gave them
                self._hand_on(item)
            return items

        watched = {
            "__slots__": (),
            "pull": lambda _, room: watched_pull(room),
            "ready_items": lambda _, room: watched_items(room),
            "ready_list": lambda _, room: watched_list(room),
        }
        stage.__class__ = type("Watched", (type(stage),), watched)
        return stage

    def _hand_on(self, item):
        self.given.append(item)
        kind = self.step and self.step.kind
        self.items_out += len(item) if kind in {"batch", "batch_within", "batch_weight"} else 1 + (kind == "zip")
        self.failed_in_band += type(item) is Failed

    @property
    def taken(self):
        """Items that have left the stage, or have been read from the source."""
        return len(self.given) if self.source is None else self.source.taken

    def held(self):
        """Items that are in the stage, as far as can be seen from outside."""
        taken = sum(before.taken for before in self.inputs)
        return taken - self.items_out - (self.work.settled if self.work else 0)

    def room(self):
        """How many items the stage may hold, None if that cannot be said from outside (P1)."""
        step = self.step
        if step.kind in ONE_FOR_ONE:
            return step.concurrency + step.buffer
        if step.kind in {"batches", "batches_thread"}:
            return (step.concurrency + step.buffer + 1) * step.size
        hold = HELD.get(step.kind)
        return hold and hold(step.size)

    def faults(self, *, lazy):
        """Lines on what is wrong at this moment."""
        stage, step = self.stage, self.step
        counts = (stage._taken, *(getattr(stage, name) for name in OUTCOMES))
        before, self.counts = self.counts, counts
        in_flight = counts[0] - sum(counts[1:])
        if in_flight < 0 or any(new < old for new, old in zip(counts, before, strict=True)):
            yield f"counts {before} became {counts}"
        if step is None:
            return
        room = self.room()
        if room is not None and self.held() > room + self._on_the_way():
            yield f"{self.held()} items held, more than {room}"
        if step.kind in WORKING:
            yield from self._window_faults(in_flight, counts, lazy=lazy)

    def _on_the_way(self):
        """Items that sources read for a step that holds nothing itself; a window's wait in its own free places."""
        if self.step.kind in ONE_FOR_ONE:
            return 0
        return sum(before.taken - len(before.given) for before in self.inputs)

    def _window_faults(self, in_flight, counts, *, lazy):
        stage, step, work = self.stage, self.step, self.work
        running = sum(index >= 0 for index in stage.running)
        if len(stage.running) > step.concurrency:
            yield f"{len(stage.running)} places taken by calls"
        if work.running > len(stage.running):
            yield f"{work.running} calls of the function, {len(stage.running)} in the books"
        if step.kind.startswith("flat"):
            if in_flight > step.concurrency:
                yield f"{in_flight} inputs open"
        elif counts[1] != len(self.given) - self.failed_in_band * (step.on_error == "return"):
            yield f"{counts[1]} delivered in the books, {len(self.given)} in fact"
        if step.kind in ONE_FOR_ONE:
            if counts[0] != len(self.inputs[0].given):
                yield f"{counts[0]} taken in the books, {len(self.inputs[0].given)} in fact"
            if in_flight != running + len(stage.finished):
                yield f"{in_flight} in flight, {running} running, {len(stage.finished)} finished"
            if step.kind != "thread" and step.attempts == 1 and not lazy and work.running != running:
                yield f"{work.running} calls of the function, {running} running"


class Witness:
    """Sees all boundaries of one run. What is wrong is written down, as an error would be taken for one of the work."""

    def __init__(self, clock, *, lazy):
        self.clock, self.lazy = clock, lazy
        self.sources, self.steps = [], []
        self.over = False
        self.violations = []
        self.run = None
        self.looks = itertools.count(1)

    def watch_source(self, script, source):
        self.sources.append(Boundary(self, script=script, source=source))
        return self.sources[-1]

    def watch_step(self, step, work, inputs):
        self.steps.append(Boundary(self, step=step, work=work, inputs=inputs))
        return self.steps[-1]

    @property
    def last(self):
        return self.steps[-1] if self.steps else self.sources[0]

    @property
    def works(self):
        return [boundary.work for boundary in self.steps if boundary.work]

    def complain(self, text):
        if len(self.violations) < 5:
            self.violations.append(f"at {self.clock.now:g} s: {text}")

    def on_start(self, work):
        """A call begins."""
        if self.over:
            self.complain(f"{work.name}: a call began after the end")
        if work.running > work.step.concurrency:
            self.complain(f"{work.name}: {work.running} calls run")
        boundary = next(each for each in self.steps if each.work is work)
        if work.step.kind in ONE_FOR_ONE and boundary.held() > boundary.room():
            self.complain(f"{work.name}: {boundary.held()} items held when a call begins")

    def look(self):
        """A callback of the loop has run; books of a run that is over are closed, also if it left work behind."""
        if self.over:
            return
        for boundary in (*self.sources, *self.steps):
            if boundary.stage is not None:
                for fault in boundary.faults(lazy=self.lazy):
                    self.complain(f"{boundary.stage.name}: {fault}")
        if next(self.looks) % 8 == 0 and self.run is not None:
            for fault in public_faults(self.run):
                self.complain(fault)

    def laws(self, *, complete):
        """Hold what every step gave against list code over what it took; `complete`: the last of it has come."""
        for place, boundary in enumerate(self.steps):
            below = {lower.step.kind for lower in self.steps[place + 1 :]}
            finished = complete and not below & set(STOPPING)
            inputs = [list(map(plain, before.given)) for before in boundary.inputs]
            given = list(map(plain, boundary.given))
            wanted = follows(boundary.step, given, inputs, complete=finished)
            assert wanted is None, (boundary.step, {"given": given, "list code": wanted, "inputs": inputs})


def public_faults(run):
    """What contradicts itself in the statistics that a user sees."""
    for stage in run.stats():
        if min(getattr(stage, name) for name in COUNTS) < 0:
            yield f"a count is negative: {stage}"
        if stage.concurrency is None:
            continue
        if stage.running > min(stage.peak_running, stage.concurrency) or stage.buffered > stage.peak_buffered:
            yield f"more than the peak: {stage}"
        if not stage.succeeded + stage.failed <= stage.started <= stage.taken:
            yield f"begun and returned: {stage}"


def look_after_each_callback(loop, look):
    """Have `look()` called whenever a callback of `loop` has run."""
    call_soon = loop.call_soon

    def watched_call_soon(callback, *args, context=None):
        def watched():
            try:
                callback(*args)
            finally:
                look()

        return call_soon(watched, context=context)

    loop.call_soon = watched_call_soon


@contextmanager
def turns(step):
    """Have each look at the clock by which runs give others their turn take `step` seconds, and nothing else any."""
    real, time = clocks.now, 0.0

    def now():
        nonlocal time
        time += step
        return time

    _replace_clock(real, now)
    try:
        yield
    finally:
        _replace_clock(now, real)  # also where a module was imported meanwhile


def _replace_clock(old, new):
    for name, module in list(sys.modules.items()):
        if name.startswith("penstock.") and getattr(module, "now", None) is old:
            module.now = new
