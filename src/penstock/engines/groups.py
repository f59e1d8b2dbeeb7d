"""The dispatcher: calls that wait for a worker, and the groups in which they travel, for engines where a hop is dear.

High-level idea: the calls of all stages and runs that share an engine wait in one queue. When a worker is free, as many
leave together as take the engine's `group_seconds`, by what calls of their function took until now; what is there goes,
and nothing waits for company. The run sees none of it: each call has its own answer, time limit and cancellation.

A group that is not over after PATIENCE times its target has a slow call in it. Then what is finished is handed on (P2),
and what is not begun is taken back, and goes to another worker.

A call during which a worker dies is a suspect: it runs once more, alone. If a worker dies then, too, it was the call.
"""

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from math import ceil, inf
from typing import Any, Final

from penstock.core.errors import WorkerLost, WrongLoopError
from penstock.core.text import one_line
from penstock.engines.engine import Answer, Call, Engine, Progress

WINDOW: Final = 64
"""Places a slot of a stage that does not say how many."""

PATIENCE: Final = 4
"""Targets after which a group is looked at; after the next look, twice as many, and so on."""

LARGEST: Final = 256
"""Calls of a group: their answers arrive in one pass of the loop, which others need as well (P9)."""

MEASURED: Final = 1024
"""Calls of a function that its mean is made of, about: the older, the less they count."""

FRUITLESS: Final = 16
"""Groups in a row whose worker died before it began a call: from then on, workers cannot be had."""

_CLOSE: Final = 1e-6
"""Seconds by which a timer may be early."""

_SHOWN: Final = 80
"""Characters of an argument in an error."""


class Cost:
    """What calls of one function take, in seconds: the mean of all, later of about the last MEASURED.

    Attributes:
        name: what the function is called.
        most: calls of it that a group may have, so that its stage has some for every slot.
        mean: infinite while nothing is known.
    """

    __slots__ = ("_count", "mean", "most", "name")

    def __init__(self, name: str, most: int) -> None:
        self.name: str = name
        self.most: int = most
        self.mean: float = inf
        self._count = 0

    def note(self, seconds: float) -> None:
        """Note what a call has taken."""
        count = self._count = min(self._count + 1, MEASURED)
        self.mean = seconds if count == 1 else self.mean + (seconds - self.mean) / count


class Job:
    """A call on its way: it waits in the queue, is in a group, or is over.

    Attributes:
        call, cost: what is called, and what that takes.
        seconds: what it may take, from when it begins.
        answer: what it came to, once that is known; None says that it is late.
        group: the group that it is in.
        over: where nobody waits for its answer any more, done when it does not run any more.
        outcome: what it came to, when it is over.
        alone: whether it must not be with others.
        lost: whether a worker has died in it.
        took: seconds from its beginning to its end.
    """

    __slots__ = ("alone", "answer", "call", "cost", "group", "lost", "outcome", "over", "seconds", "took")

    def __init__(self, call: Call, cost: Cost, seconds: float, answer: asyncio.Future[Answer | None]) -> None:
        self.call: Call = call
        self.cost: Cost = cost
        self.seconds: float = seconds
        self.answer: asyncio.Future[Answer | None] = answer
        self.group: Group | None = None
        self.over: asyncio.Future[None] | None = None
        self.outcome: Answer | None = None
        self.alone: bool = False
        self.lost: bool = False
        self.took: float = 0.0

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for what it comes to: it was cancelled, or is late."""
        return self.over is not None or self.answer.cancelled()


class Group:
    """Calls that are under way together.

    Attributes:
        jobs: those calls, in order.
        answers: the future that the engine has given for them.
        weight: what it takes of the engine's capacity, which is `depth` for each slot.
        sent: when it was handed to the engine.
        handed: how many of its answers are settled.
        look: when to look whether something slow holds up the rest.
        timer: the next look, whatever it is for.
        soon: whether that is in the next pass of the loop.
        recalled, stopped: whether the engine was asked for that.
    """

    __slots__ = ("answers", "handed", "jobs", "look", "recalled", "sent", "soon", "stopped", "timer", "weight")

    def __init__(
        self, jobs: Sequence[Job], answers: asyncio.Future[list[Answer]], weight: int, sent: float, look: float
    ) -> None:
        self.jobs: Sequence[Job] = jobs
        self.answers: asyncio.Future[list[Answer]] = answers
        self.weight: int = weight
        self.sent: float = sent
        self.look: float = look
        self.handed: int = 0
        self.timer: asyncio.Handle | None = None
        self.soon: bool = False
        self.recalled: bool = False
        self.stopped: bool = False

    @property
    def left(self) -> Sequence[Job]:
        """The calls whose answers are not known."""
        return self.jobs[self.handed :]


class Groups:
    """The queue of one engine, on one loop, and its groups under way."""

    def __init__(self, engine: Engine) -> None:
        assert engine.group_seconds is not None
        self.slots: int = engine.slots()
        self._engine = engine
        self._target = engine.group_seconds
        self._patience = PATIENCE * self._target
        self._depth = engine.depth
        self._capacity = self.slots * self._depth
        self._used = 0
        self._queue: OrderedDict[Job, None] = OrderedDict()  # any may leave in O(1)
        self._scheduled = False
        self._fruitless = 0
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.Context()  # callbacks must not hold that of a run

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse to be used on another loop than before.

        Raises:
            WrongLoopError: it belongs to another.
        """
        if self._loop is not loop:
            what = self._engine.describe()
            raise WrongLoopError(f"{what} belongs to the event loop of its first use and cannot be used on another")

    def cost(self, name: str, places: int) -> Cost:
        """What calls of a function take whose stage has so many places: nothing is known yet."""
        return Cost(name, max(1, min(places // self.slots, LARGEST)))

    # For a call

    def put(self, call: Call, cost: Cost, seconds: float | None) -> Job:
        """Have a call made, which may take so many seconds from when it begins."""
        job = Job(call, cost, inf if seconds is None else seconds, self._loop.create_future())
        self._queue[job] = None
        self._send_soon()
        return job

    def leave(self, job: Job) -> asyncio.Future[None] | None:
        """Have a call stopped for whose answer nobody waits any more: a future of its end, None if it does not run."""
        if job.group is None:
            self._queue.pop(job, None)
        elif job.over is None:
            job.over = self._loop.create_future()
            self._look_soon(job.group)
        return job.over

    # Groups

    def _send_soon(self) -> None:
        if not self._scheduled and self._queue and self._used < self._capacity:
            self._scheduled = True
            self._loop.call_soon(self._send, context=self._context)

    def _send(self) -> None:
        self._scheduled = False
        while jobs := self._next():
            self._submit(jobs)

    def _next(self) -> list[Job]:
        """Take the next group out of the queue, if there is a worker for it."""
        queue = self._queue
        jobs: list[Job] = []
        seconds, most = 0.0, 1
        while queue:
            job = next(iter(queue))
            if job.answer.cancelled():
                del queue[job]
                continue
            if not jobs:
                free = max(0, self._capacity - self._used) // self._weight(job)
                if not free:
                    break
                most = ceil(len(queue) / free)
            seconds += job.cost.mean
            if jobs and (job.alone or seconds > self._target or len(jobs) >= min(most, job.cost.most)):
                break
            jobs.append(job)
            del queue[job]
            if job.alone:
                break
        return jobs

    def _weight(self, job: Job) -> int:
        """What a group that begins with `job` takes of the capacity: a slow call and a suspect have a slot each."""
        return 1 if job.cost.mean < self._target and not job.alone else self._depth

    def _submit(self, jobs: list[Job]) -> None:
        try:
            answers = self._engine.submit([job.call for job in jobs])
        except BaseException as error:  # noqa: BLE001 -- it is raised where the call was asked for
            for job in jobs:
                self._settle(job, Answer(error=error))
            return
        now = self._loop.time()
        group = Group(jobs, answers, self._weight(jobs[0]), now, now + self._patience)
        for job in jobs:
            job.group = group
        self._used += group.weight
        answers.add_done_callback(partial(self._over, group), context=self._context)
        self._look_at(group, group.look if len(jobs) > 1 or self._depth > 1 else inf, now + _least(jobs))

    def _over(self, group: Group, answers: asyncio.Future[list[Answer]]) -> None:
        if group.timer is not None:
            group.timer.cancel()
        self._used -= group.weight
        results = answers.result()
        self._fruitless = 0 if results or group.recalled or group.stopped else self._fruitless + 1
        self._hand_on(group, results)
        if self._fruitless > FRUITLESS:
            what = self._engine.describe()
            for job in group.left:
                error = WorkerLost(f"{self._fruitless} workers in a row of {what} died before they began a call")
                self._settle(job, Answer(error=error))
        else:
            self._return(group.left)
        self._send_soon()  # not now: others may be over in this pass as well, and have their share of what waits

    def _return(self, jobs: Sequence[Job]) -> None:
        """Put calls that were not begun, or are to run again, in front of all that wait."""
        for job in reversed(jobs):
            if job.unwanted:
                self._settle(job, None)
            else:
                job.group = None
                self._queue[job] = None
                self._queue.move_to_end(job, last=False)

    # Answers

    def _hand_on(self, group: Group, answers: Sequence[Answer]) -> None:
        """Settle the calls whose answers are new."""
        again: list[Job] = []
        new = answers[group.handed :]
        for job, answer in zip(group.left, new, strict=False):
            job.took = (self._loop.time() - group.sent) / len(new) if answer.seconds is None else answer.seconds
            if isinstance(answer.error, WorkerLost):
                if job.lost or job.unwanted:
                    self._settle(job, Answer(error=_blamed(job, answer.error)))
                else:
                    job.lost = job.alone = True
                    again.append(job)
            elif isinstance(answer.error, asyncio.CancelledError) and group.stopped and not job.unwanted:
                again.append(job)  # not this one was to be stopped
            else:
                job.cost.note(job.took)
                if job.took > job.seconds and not job.unwanted and (answer.seconds is not None or len(group.jobs) == 1):
                    self._late(job)
                self._settle(job, answer)
        group.handed = min(len(group.jobs), group.handed + len(new))
        self._return(again)

    def _settle(self, job: Job, outcome: Answer | None) -> None:
        """Say that a call is over; None: it was not begun, and nobody waits for it."""
        job.group = None
        job.outcome = outcome
        if not job.answer.done():
            job.answer.set_result(outcome)
        if job.over is not None:
            job.over.set_result(None)

    def _late(self, job: Job) -> None:
        """Say that a call has taken too long, and is over later."""
        job.over = self._loop.create_future()
        job.answer.set_result(None)

    # Looks

    def _look_soon(self, group: Group) -> None:
        """Look at a group when all is known that is cancelled in this pass of the loop."""
        if not group.soon and not group.stopped:
            group.soon = True
            if group.timer is not None:
                group.timer.cancel()
            group.timer = self._loop.call_soon(self._look, group, context=self._context)

    def _look_at(self, group: Group, *times: float) -> None:
        """Look at a group at the first of these times, if it comes."""
        if (when := min(times)) < inf:
            group.timer = self._loop.call_at(when, self._look, group, context=self._context)

    def _look(self, group: Group) -> None:
        """See how far a group is: hand on what is finished, stop what is unwanted or late, take back what waits."""
        group.timer = None
        group.soon = False
        if group.answers.done() or group.stopped:
            return
        now = self._loop.time() + _CLOSE
        known = self._engine.peek(group.answers)
        if known is None and len(group.jobs) == 1:
            known = Progress([], group.sent)
        if known is not None:
            self._hand_on(group, known.answers)
        if not group.left:
            return
        waiting = group.left if known is None or known.since is None else group.left[1:]
        ends = self._judge_blindly(group, now) if known is None else self._judge(group, known.since, now)
        if ends is None:
            if waiting:
                self._recall(group)
            if not group.answers.done():
                group.stopped = True
                self._engine.stop(group.answers)
            return
        overdue, unwanted = now >= group.look, any(job.unwanted for job in waiting)
        if overdue:
            group.look = group.sent + 2 * (group.look - group.sent)
        if waiting and (overdue or unwanted):
            self._recall(group)
        self._look_at(group, ends, group.look if waiting else inf, now + self._target if unwanted else inf)

    def _recall(self, group: Group) -> None:
        """Take back what is not begun: where it is known what that is, it need not wait for the call that runs."""
        if group.recalled:
            return
        group.recalled = True
        if (kept := self._engine.recall(group.answers)) is not None:
            taken = group.jobs[kept:]
            group.jobs = group.jobs[:kept]
            self._return(taken)
            self._send_soon()

    def _judge(self, group: Group, since: float | None, now: float) -> float | None:
        """When the next call may be late of a group of which a call runs since then; None: it is to be stopped."""
        if since is None:
            return now + _least(group.left)
        running = group.left[0]
        if now >= group.sent + self._patience and group.weight < self._depth:
            self._used += self._depth - group.weight  # its slot is as full as with a call that is known to be slow
            group.weight = self._depth
        if now >= since + running.seconds and not running.unwanted:
            self._late(running)
        if running.unwanted:
            return None
        return min(since + running.seconds, now + _least(group.left[1:]))

    def _judge_blindly(self, group: Group, now: float) -> float | None:
        """The same of a group of which nothing is known: it is let go on for a while if anybody waits for it.

        What has a time limit and did not come back in time runs again, alone: then it is known since when.
        """
        if all(job.unwanted for job in group.left):
            return None
        patience = group.sent + self._patience
        ends = max(patience, group.sent + _least(group.left))
        if now >= ends or (now >= patience and any(job.unwanted for job in group.left)):
            for job in group.left:
                job.alone = True
            return None
        return ends


def _least(jobs: Sequence[Job]) -> float:
    """The shortest of their time limits."""
    return min((job.seconds for job in jobs), default=inf)


def _blamed(job: Job, error: WorkerLost) -> WorkerLost:
    """The failure of a call that has cost two workers, by its name."""
    arguments = ", ".join(map(_shown, job.call.arguments))
    lost = WorkerLost(f"{one_line(job.cost.name)}({arguments}) ran twice, and its worker died both times: {error}")
    lost.__cause__ = error
    return lost


def _shown(argument: Any) -> str:
    try:
        return one_line(repr(argument), _SHOWN)
    except Exception as failure:  # noqa: BLE001 -- it must not hide the error that is to name it
        return f"<{type(argument).__name__}, whose repr raised {type(failure).__name__}>"
