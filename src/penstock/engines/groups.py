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
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from math import ceil, inf
from typing import Any, Final, override

from penstock.core.clock import clock_of
from penstock.core.errands import Errand, Errands
from penstock.core.errors import WorkerLost, WrongLoopError
from penstock.core.text import name_of, one_line
from penstock.engines.engine import Answer, Call, Engine, Progress

WINDOW: Final = 64
"""Places a slot of a stage that does not say how many."""

PATIENCE: Final = 4
"""Targets after which a group is looked at; after the next look, twice as many, and so on."""

LARGEST: Final = 256
"""Calls of a group: their answers arrive in one pass of the loop, which others need as well (P9)."""

SPARING: Final = 128
"""Calls of groups that are so large that they may be smaller for the sake of one that waits here.

Without it a worker waits until what it has returned is read, and its places are refilled.
"""

MEASURED: Final = 1024
"""Calls of a function that its mean is made of, about: the older, the less they count."""

REFILL: Final = 3
"""Passes of the loop in which what a group came to reaches its reader, and what is taken in its places the queue."""

FRUITLESS: Final = 16
"""Groups in a row whose worker died before it began a call: from then on, workers cannot be had."""

_CLOSE: Final = 1e-6
"""Seconds by which a timer may be early, and a sum of times may be wrong."""

_SHOWN: Final = 80
"""Characters of an argument in an error."""


class Cost:
    """What calls of one function take, in seconds: the mean of all, later of about the last MEASURED.

    Attributes:
        most: calls of it that a group may have, so that its stage has some for every group that may be under way.
        mean: infinite while nothing is known.
    """

    __slots__ = ("_count", "mean", "most")

    def __init__(self, most: int) -> None:
        self.most: int = most
        self.mean: float = inf
        self._count = 0

    def note(self, seconds: float, calls: int) -> None:
        """Note what some calls have taken together."""
        before = self._count
        self._count = count = min(MEASURED, before + calls)
        mean = seconds / calls
        self.mean = mean if not before else self.mean + (mean - self.mean) * min(calls, count) / count


class Request(Call):
    """A call on its way: it waits in the queue, is in a group, or is over. What waits for its answer is a subclass.

    Attributes:
        cost: what calls of its function take.
        seconds: what it may take, from when it begins.
        group: the group that it is in.
        over: where nobody waits for its answer any more, done when it does not run any more.
        outcome: what it came to, when it is over.
        alone: whether it must not be with others.
        lost: whether a worker has died in it.
        took: seconds from its beginning to its end.
    """

    seconds: float = inf
    group: "Group | None" = None
    over: asyncio.Future[None] | None = None
    outcome: Answer | None = None
    alone: bool = False
    lost: bool = False
    took: float = 0.0
    cost: Cost

    @override
    def __reduce__(self) -> tuple[object, ...]:
        """Be the call alone, where an engine pickles it."""
        return Call, (self.fn, self.arguments, self.most)

    @property
    def function(self) -> object:
        """The user's function."""
        raise NotImplementedError

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for what it comes to: it was cancelled, or is late."""
        raise NotImplementedError

    def take(self, outcome: Answer | None, /) -> None:
        """Take the answer, if it is waited for; None: it came to nothing, or is late."""
        raise NotImplementedError


class AwaitedRequest(Request):
    """A call for which a task waits, in `answer`."""

    def __init__(self, function: object, call: Call, cost: Cost, seconds: float | None) -> None:
        super().__init__(call.fn, call.arguments, call.most)
        self.cost: Cost = cost
        self._function = function
        self.seconds: float = inf if seconds is None else seconds
        self.answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

    @property
    @override
    def function(self) -> object:
        return self._function

    @property
    @override
    def unwanted(self) -> bool:
        return self.over is not None or self.answer.cancelled()

    @override
    def take(self, outcome: Answer | None, /) -> None:
        if not self.answer.done():
            self.answer.set_result(outcome)


class Group:
    """Calls that are under way together.

    Attributes:
        requests: those calls, in order.
        answers: the future that the engine has given for them.
        weight: what it takes of the engine's capacity, which is `depth` for each slot.
        sent: when it was handed to the engine.
        handed: how many of its answers are settled.
        look: when to look whether something slow holds up the rest.
        timer: the next look, whatever it is for.
        soon: whether that is in the next pass of the loop.
        recalled, stopped: whether the engine was asked for that.
    """

    __slots__ = ("answers", "handed", "look", "recalled", "requests", "sent", "soon", "stopped", "timer", "weight")

    def __init__(
        self, requests: Sequence[Request], answers: asyncio.Future[list[Answer]], weight: int, sent: float, look: float
    ) -> None:
        self.requests: Sequence[Request] = requests
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
    def left(self) -> Sequence[Request]:
        """The calls whose answers are not known."""
        return self.requests[self.handed :]


class Groups:
    """The queue of one engine, on one loop, and its groups under way."""

    def __init__(self, engine: Engine) -> None:
        assert engine.group_seconds is not None
        self.slots: int = engine.slots()
        self._engine = engine
        self._target: float = engine.group_seconds
        self._depth = engine.depth
        self._capacity = self.slots * self._depth
        self._used = 0
        self._under_way = 0
        self._queue: OrderedDict[Request, None] = OrderedDict()  # any may leave in O(1)
        self._scheduled = False
        self._refill = 0
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

    def cost(self, places: int) -> Cost:
        """What calls of a function take whose stage has so many places: nothing is known yet."""
        share = places // (self._capacity + 1)  # one waits here, ready when a worker is free
        if share < SPARING:
            share = places // self._capacity
        return Cost(max(1, min(share, LARGEST)))

    # For a call

    def put(self, request: Request) -> None:
        """Have a call made."""
        self._queue[request] = None
        if not self._scheduled:
            self._send_soon()

    def leave(self, request: Request) -> asyncio.Future[None] | None:
        """Have a call stopped for whose answer nobody waits any more: a future of its end, None if it does not run."""
        if request.group is None:
            self._queue.pop(request, None)
        elif request.over is None:
            request.over = self._loop.create_future()
            self._look_soon(request.group)
        return request.over

    # Groups

    def _send_soon(self) -> None:
        if not self._scheduled and self._queue and self._used < self._capacity:
            self._scheduled = True
            self._loop.call_soon(self._send, context=self._context)

    def _send(self) -> None:
        """Send what waits to the workers that are free. While places are refilled, a part of a group stays a part."""
        self._scheduled = False
        if self._refill:
            self._refill -= 1
            if self._queue and not self._is_full(len(self._queue), next(iter(self._queue)).cost):
                self._send_soon()
                return
        while requests := self._next():
            self._submit(requests)

    def _next(self) -> list[Request]:
        """Take the next group out of the queue, if there is a worker for it."""
        queue = self._queue
        requests: list[Request] = []
        unwanted: list[Request] = []
        seconds, room = 0.0, 1
        cost: Cost | None = None
        for request in queue:
            if request.unwanted:
                unwanted.append(request)
                continue
            if cost is None:
                room = self._room(request)
            elif request.alone:
                break
            if request.cost is not cost:
                cost = request.cost
                room = min(room, cost.most - len(requests))
            seconds += request.cost.mean
            if room <= 0 or (requests and seconds > self._target + _CLOSE):
                break
            requests.append(request)
            room -= 1
        for request in chain(unwanted, requests):
            del queue[request]
        return requests

    def _room(self, request: Request) -> int:
        """How many calls a group may have that begins with `request`; 0: there is no worker for it."""
        idle = self.slots - self._under_way
        free = self._used + self._weight(request) <= self._capacity
        if not free or (idle <= 0 and not self._is_full(len(self._queue), request.cost)):
            return 0
        if request.alone:
            return 1
        return ceil(len(self._queue) / idle) if idle > 0 else LARGEST

    def _is_full(self, count: int, cost: Cost) -> bool:
        """Whether so many calls are a whole group: fewer wait here, and not behind another group, for more of them."""
        return count >= cost.most or count * cost.mean >= self._target

    def _weight(self, request: Request) -> int:
        """What a group that begins with `request` takes of the capacity: a slow call and a suspect have a slot each."""
        return 1 if request.cost.mean < self._target and not request.alone else self._depth

    def _submit(self, requests: list[Request]) -> None:
        try:
            answers = self._engine.submit(requests)
        except BaseException as error:  # noqa: BLE001 -- it is raised where the call was asked for
            for request in requests:
                self._settle(request, Answer(error=error))
            return
        now = self._loop.time()
        group = Group(requests, answers, self._weight(requests[0]), now, now + PATIENCE * self._target)
        for request in requests:
            request.group = group
        self._used += group.weight
        self._under_way += 1
        answers.add_done_callback(partial(self._over, group), context=self._context)
        self._look_at(group, group.look if len(requests) > 1 or self._depth > 1 else inf, now + _least(requests))

    def _over(self, group: Group, answers: asyncio.Future[list[Answer]]) -> None:
        if group.timer is not None:
            group.timer.cancel()
        self._used -= group.weight
        self._under_way -= 1
        self._target = self._engine.group_seconds or self._target
        results = answers.result()
        self._fruitless = 0 if results or group.recalled or group.stopped else self._fruitless + 1
        self._hand_on(group, results)
        if self._fruitless > FRUITLESS:
            what = self._engine.describe()
            for request in group.left:
                error = WorkerLost(f"{self._fruitless} workers in a row of {what} died before they began a call")
                self._settle(request, Answer(error=error))
        else:
            self._return(group.left)
        self._refill = REFILL
        self._send_soon()  # not now: others may be over in this pass as well, and have their share of what waits

    def _return(self, requests: Sequence[Request]) -> None:
        """Put calls that were not begun, or are to run again, in front of all that wait."""
        for request in reversed(requests):
            if request.unwanted:
                self._settle(request, None)
            else:
                request.group = None
                self._queue[request] = None
                self._queue.move_to_end(request, last=False)

    # Answers

    def _hand_on(self, group: Group, answers: Sequence[Answer]) -> None:
        """Settle the calls whose answers are new."""
        again: list[Request] = []
        times: defaultdict[Cost, list[float]] = defaultdict(list)
        new = answers[group.handed :]
        for request, answer in zip(group.left, new, strict=False):
            error, took = answer.error, answer.seconds
            request.took = took = (self._loop.time() - group.sent) / len(new) if took is None else took
            if error is not None:
                if self._is_to_run_again(request, error, group):
                    again.append(request)
                    continue
                if isinstance(error, WorkerLost):
                    self._settle(request, None if request.unwanted else Answer(error=_blamed(request, error)))
                    continue
            times[request.cost].append(took)
            if took > request.seconds and not request.unwanted and _is_known(answer, group):
                self._late(request)
            self._settle(request, answer)
        group.handed = min(len(group.requests), group.handed + len(new))
        for cost, seconds in times.items():
            cost.note(sum(seconds), len(seconds))
        self._return(again)

    def _is_to_run_again(self, request: Request, error: BaseException, group: Group) -> bool:
        """Whether a call that came to this error runs again: a worker died in it, or not this one was to be stopped."""
        if request.unwanted:
            return False
        if isinstance(error, WorkerLost) and not request.lost:
            request.lost = request.alone = True
            return True
        return group.stopped and isinstance(error, asyncio.CancelledError)

    def _settle(self, request: Request, outcome: Answer | None) -> None:
        """Say that a call is over; None: it came to nothing, and nobody waits for it."""
        request.group = None
        request.outcome = outcome
        request.take(outcome)
        if request.over is not None:
            request.over.set_result(None)

    def _late(self, request: Request) -> None:
        """Say that a call has taken too long, and is over later."""
        request.over = self._loop.create_future()
        request.take(None)

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
        if known is None and len(group.requests) == 1:
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
        overdue, unwanted = now >= group.look, any(request.unwanted for request in waiting)
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
            taken = group.requests[kept:]
            group.requests = group.requests[:kept]
            self._return(taken)
            self._send_soon()

    def _judge(self, group: Group, since: float | None, now: float) -> float | None:
        """When the next call may be late of a group of which a call runs since then; None: it is to be stopped."""
        if since is None:
            return now + _least(group.left)
        running = group.left[0]
        if now >= group.sent + PATIENCE * self._target and group.weight < self._depth:
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
        if all(request.unwanted for request in group.left):
            return None
        patience = group.sent + PATIENCE * self._target
        ends = max(patience, group.sent + _least(group.left))
        if now >= ends or (now >= patience and any(request.unwanted for request in group.left)):
            for request in group.left:
                request.alone = True
            return None
        return ends


def _is_known(answer: Answer, group: Group) -> bool:
    """Whether it is known what this call has taken."""
    return answer.seconds is not None or len(group.requests) == 1


class GroupErrands(Errands):
    """The errands of a window whose calls travel in groups."""

    def __init__(
        self,
        groups: Groups,
        fn: object,
        prepared: object,
        cost: Cost,
        _: contextvars.Context,
        came: Callable[[Sequence[Errand]], None],
    ) -> None:
        super().__init__(asyncio.get_running_loop(), came)
        self._call_soon = self.loop.call_soon
        self.groups: Groups = groups
        self.clock: Callable[[], float] = clock_of(self.loop)
        self.fn: object = fn
        self.prepared: object = prepared
        self.cost: Cost = cost

    @override
    def begin(self, index: int, item: Any, began: float | None) -> Errand:
        errand = GroupErrand(index, item, began, self)
        self.groups.put(errand)
        return errand


class GroupErrand(Errand, Request):
    """A call that travels in a group, and who waits for its answer."""

    began: float | None
    value: Any
    # a property would cost a call each time
    unwanted: bool = Errand.stopped  # type: ignore[misc] # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, index: int, item: Any, began: float | None, errands: GroupErrands) -> None:
        super().__init__(index, item, began)
        self.fn: Any = errands.prepared
        self.arguments: tuple[Any, ...] = (item,)
        self.cost: Cost = errands.cost
        self._errands: GroupErrands = errands

    @property
    @override
    def function(self) -> object:
        return self._errands.fn

    @override
    def cancel(self, _reason: object = None) -> None:
        if self.stopped:
            return
        self.stopped = True
        if self.outcome is None:
            end = self._errands.groups.leave(self)
            if end is None:
                self._errands.bring(self)
            else:
                end.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Future[None]) -> None:
        outcome = self.outcome
        if outcome is not None and not isinstance(outcome.error, asyncio.CancelledError):
            self.value, self.error = outcome.value, outcome.error
            outcome.value = outcome.error = None
        self._errands.bring(self)

    @override
    def take(self, outcome: Answer | None, /) -> None:
        if self.stopped:
            return
        if outcome is not None:
            self.value, self.error = outcome.value, outcome.error
            outcome.value = outcome.error = None
        errands = self._errands
        if self.began is not None:  # no time in which it waited for a worker
            self.began = errands.clock() - self.took
        errands.bring(self)


def _least(requests: Sequence[Request]) -> float:
    """The shortest of their time limits."""
    return min([request.seconds for request in requests], default=inf)


def _blamed(request: Request, error: WorkerLost) -> WorkerLost:
    """The failure of a call that has cost two workers, by its name."""
    arguments = ", ".join(map(_shown, request.arguments))
    lost = WorkerLost(f"{name_of(request.function)}({arguments}) ran twice, and its worker died both times: {error}")
    lost.__cause__ = error
    return lost


def _shown(argument: Any) -> str:
    try:
        return one_line(repr(argument), _SHOWN)
    except Exception as failure:  # noqa: BLE001 -- it must not hide the error that is to name it
        return f"<{type(argument).__name__}, whose repr raised {type(failure).__name__}>"
