"""What the engines of clusters have in common: workers, each of which makes the calls of one group at a time.

A worker has a `GroupRunner`. How workers are started, asked and killed is the matter of each library; none of them
tries anything again, since the run does.
"""

import asyncio
import weakref
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from io import BytesIO
from itertools import count
from typing import Any, Final, Self, TypeAliasType, override

from penstock.core import at_hand
from penstock.core.errors import MisuseError, OptionError, PicklingFailed, RemoteError, WorkerLost, WrongLoopError
from penstock.core.log import LOG
from penstock.core.text import name_of
from penstock.engines import read_results
from penstock.engines.cluster import group_runner
from penstock.engines.cluster.group_runner import (
    ERROR,
    NOT_LOADED,
    NOT_PICKLED,
    VALUE,
    Parts,
    RemoteCall,
    Report,
    Sealed,
)
from penstock.engines.engine import Answer, Call, Engine, Progress
from penstock.engines.process import crossing, remote_errors
from penstock.engines.process.crossing import Crossing, are_plain, type_name, why
from penstock.engines.process.remote_errors import unpacked

_BY_VALUE: Final = (group_runner, crossing, remote_errors, read_results, at_hand)
"""The modules that a worker needs of penstock."""

ROUND_TRIPS: Final = 20
"""What a group should take, in times that it takes to ask a worker, within these bounds."""

SHORTEST: Final = 0.02
LONGEST: Final = 0.05
"""Seconds that a group should take; a worker says how far it is after twice as long."""

SLOWER: Final = 1.1
"""What a round trip that took longer raises the measured one by: one may be long by chance, or by what else runs."""

PATIENCE: Final = 0.1
"""Seconds that a call has to end by itself when it is stopped; then its worker is killed: a new one takes seconds."""

MOST_FAILED_STARTS: Final = 3
"""Workers that may fail to start, one after the other."""


class _RemoteFunction:
    """A function that workers can be sent."""

    def __init__(self, number: int, pickled: bytes, name: str) -> None:
        self.number = number
        self.pickled = pickled
        self.name = name


class _WorkerGroup:
    """A group of calls, on its way or with a worker.

    Attributes:
        is_plain: whether all arguments are plain values.
        unsent: the errors of calls that cannot be pickled.
        done: the answers that are here.
        began: when the worker was asked; None: it is not ready.
        since: when the call after those began, once that is known; then no other one will begin.
    """

    def __init__(self, calls: Sequence[Call], answers: asyncio.Future[list[Answer]]) -> None:
        self.functions: list[_RemoteFunction] = [call.fn for call in calls]
        self.calls: list[RemoteCall] = []
        self.is_plain = True
        self.unsent: dict[int, BaseException] = {}
        self.answers = answers
        self.done: list[Answer] = []
        self.began: float | None = None
        self.since: float | None = None
        self.stopped = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def left(self) -> int:
        """How many calls have no answer."""
        return len(self.functions) - len(self.done)

    def put_unsent(self) -> None:
        """Answer the next calls if they could not be sent."""
        while (error := self.unsent.get(len(self.done))) is not None:
            self.done.append(Answer(error=error))


SLOW_START: Final = 30.0
"""Seconds after which it is warned of that no worker has started, and again after twice as long."""


class RoundTrip:
    """What it takes to ask a worker beside the calls that it makes: the shortest of late.

    Attributes:
        seconds: that time; 0.0: nobody was asked.
    """

    def __init__(self) -> None:
        self.seconds: float = 0.0

    def note(self, seconds: float) -> None:
        """Note what one has taken."""
        self.seconds = min(seconds, SLOWER * self.seconds) if self.seconds else seconds

    @property
    def group_seconds(self) -> float:
        """What a group should take."""
        return min(max(SHORTEST, ROUND_TRIPS * self.seconds), LONGEST)


class _Slot:
    """Room for a worker, and what it does."""

    def __init__(self) -> None:
        self.worker: Any = None
        self.ready = False
        self.group: _WorkerGroup | None = None
        self.known: weakref.WeakSet[_RemoteFunction] = weakref.WeakSet()
        self.dropped: list[int] = []


class ClusterEngine(Engine):
    """Runs plain functions in workers on a cluster."""

    group_seconds: float | None = SHORTEST

    def __init__(self) -> None:
        self._crossing = Crossing(main_is_there=False)
        self._numbers = count()
        self._slots: list[_Slot] = []
        self._groups: dict[asyncio.Future[list[Answer]], _Slot] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._failed_starts = 0
        self._round_trip = RoundTrip()
        self._slow: asyncio.TimerHandle | None = None

    # What a library does

    @abstractmethod
    def _connect(self) -> int:
        """Connect to the cluster; gives how many workers there may be. Called in a thread, as `_disconnect` is."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Leave the cluster, and end it if it is ours."""

    @abstractmethod
    def _start_worker(self) -> tuple[Any, Future[Any]]:
        """Start a worker; the future is done when it is ready, or fails."""

    @abstractmethod
    def _call(self, worker: Any, method: str, *arguments: Any) -> Future[Any]:
        """Call this method of the worker's runner; the future fails when the worker dies."""

    @abstractmethod
    def _kill(self, worker: Any) -> None:
        """End a worker in the middle of its call; it may be dead."""

    @abstractmethod
    def _release(self, worker: Any) -> None:
        """Let a worker go that is in no call."""

    @abstractmethod
    def _death(self, error: BaseException) -> str | None:
        """What this error says of the death of a worker; None: it is another one."""

    def _watch(self, worker: Any) -> None:
        """See to it that `_gone` is called when this worker dies in no call. Default: the next call tells."""

    # Its life

    @override
    async def __aenter__(self) -> Self:
        if self._closed:
            raise MisuseError(f"{self.describe()} was closed")
        self._loop = asyncio.get_running_loop()
        workers = await asyncio.to_thread(self._connect)
        self._slots = [_Slot() for _ in range(workers)]
        return self

    @override
    async def aclose(self, grace: float = 5.0) -> None:
        """End it: a call that runs has `grace` seconds, then its worker is killed."""
        self._closed = True
        if self._groups and grace:
            await asyncio.wait(list(self._groups), timeout=grace)
        under_way = list(self._groups)
        self.abandon()
        if under_way:
            await asyncio.wait(under_way, timeout=1.0)
        await asyncio.to_thread(self._disconnect)

    @override
    def abandon(self) -> None:
        self._closed = True
        _cancel(self._slow)
        for slot in self._slots:
            group, worker = slot.group, slot.worker
            if group is not None:
                group.stopped = True
                if group.began is None:
                    self._finish(slot, group, [])
            if worker is not None and slot.group is None:
                self._release(worker)
                slot.worker = None
            elif worker is not None:
                self._kill(worker)
                slot.worker = None

    # The contract

    @override
    def prepare(self, fn: Callable[..., Any], /) -> Any:
        try:
            pickled = self._crossing.dumps(fn)
        except Exception as error:
            module = getattr(fn, "__module__", None)
            raise OptionError(
                f"engine: {name_of(fn)} of module {module} cannot be pickled for workers: {why(error)}"
            ) from error
        function = _RemoteFunction(next(self._numbers), pickled, name_of(fn))
        weakref.finalize(function, _drop, weakref.ref(self), function.number).atexit = False
        return function

    @override
    def submit(self, calls: Sequence[Call], /) -> asyncio.Future[list[Answer]]:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise MisuseError(f"{self.describe()} was closed: it runs no calls any more")
        if self._loop is not loop:
            raise WrongLoopError(
                f"{self!r} belongs to the event loop of its `async with` and cannot be used on another"
            )
        group = _WorkerGroup(calls, loop.create_future())
        self._pickle(group, calls)
        if not group.calls:
            group.answers.set_result(group.done)
            return group.answers
        slot = min((each for each in self._slots if each.group is None), key=lambda each: not each.ready)
        slot.group = group
        self._groups[group.answers] = slot
        if slot.ready:
            self._ask(slot, group)
        elif slot.worker is None:
            self._start(slot)
        return group.answers

    @override
    def peek(self, answers: asyncio.Future[list[Answer]], /) -> Progress | None:
        group = self._group_of(answers)
        if group is None:
            return None
        if group.began is None:
            return Progress([], None)
        if group.since is None and group.left == 1:
            return Progress(list(group.done), group.began)
        return None if group.since is None else Progress(list(group.done), group.since)

    @override
    def recall(self, answers: asyncio.Future[list[Answer]], /) -> int | None:
        group = self._group_of(answers)
        if group is None:
            return None
        if group.began is None:
            self._finish(self._groups[answers], group, [])
            return 0
        return None if group.since is None else len(group.done) + 1

    @override
    def stop(self, answers: asyncio.Future[list[Answer]], /) -> None:
        group = self._group_of(answers)
        if group is None or group.stopped:
            return
        if group.began is None:
            self.recall(answers)
            return
        assert self._loop is not None
        group.stopped = True
        group.timer = self._loop.call_later(PATIENCE, self._kill, self._groups[answers].worker)

    @override
    def slots(self) -> int:
        if not self._slots:
            raise MisuseError(f"{self.describe()} is to be entered first: `async with engine:` connects to the cluster")
        return len(self._slots)

    def _group_of(self, answers: asyncio.Future[list[Answer]]) -> _WorkerGroup | None:
        slot = self._groups.get(answers)
        return None if slot is None else slot.group

    # Workers

    def forget(self, number: int) -> None:
        """Have workers forget a function."""
        for slot in self._slots:
            slot.dropped.append(number)

    def _start(self, slot: _Slot) -> None:
        slot.known.clear()
        slot.dropped.clear()
        slot.worker, ready = self._start_worker()
        if self._slow is None and not any(each.ready for each in self._slots):
            assert self._loop is not None
            self._slow = self._loop.call_later(SLOW_START, self._warn, SLOW_START)
        self._await(ready, partial(self._started, slot, slot.worker))

    def _warn(self, seconds: float) -> None:
        """Say that calls wait for a first worker, if any do."""
        self._slow = None
        if any(each.group is not None for each in self._slots):
            assert self._loop is not None
            LOG.warning("no worker of %s is ready after %g s: the cluster has no room, or prepares it", self, seconds)
            self._slow = self._loop.call_later(seconds, self._warn, 2 * seconds)

    def _await(self, future: Future[Any], then: Callable[["asyncio.Future[Any]"], None]) -> None:
        asyncio.wrap_future(future, loop=self._loop).add_done_callback(then)

    def _started(self, slot: _Slot, worker: Any, ready: "asyncio.Future[Any]") -> None:
        error = None if ready.cancelled() else ready.exception()  # or asyncio would say that nobody has asked
        if ready.cancelled() or slot.worker is not worker:
            return
        if error is None:
            _cancel(self._slow)
            self._slow = None
            slot.ready = True
            self._failed_starts = 0
            self._watch(worker)
            if slot.group is not None:
                self._ask(slot, slot.group)
            return
        slot.worker = None
        self._failed_starts += 1
        group = slot.group
        if group is None or self._closed:
            return
        if self._failed_starts < MOST_FAILED_STARTS:
            self._start(slot)
            return
        self._failed_starts = 0
        answers: list[Answer] = []
        for _ in group.functions:
            failed = MisuseError(f"the workers of {self.describe()} cannot be started: {why(error)}")
            failed.__cause__ = error
            answers.append(Answer(error=failed))
        self._finish(slot, group, answers)

    def _ask(self, slot: _Slot, group: _WorkerGroup) -> None:
        assert self._loop is not None
        new = [each for each in dict.fromkeys(group.functions) if each not in slot.known]
        slot.known.update(new)
        dropped, slot.dropped = slot.dropped, []
        group.began = self._loop.time()
        worker = slot.worker
        functions = [(each.number, each.pickled) for each in new]
        seal = group_runner.sealed_plainly if group.is_plain else group_runner.sealed
        said = self._call(worker, "run", seal((functions, dropped, group.calls, 2 * self._round_trip.group_seconds)))
        self._await(said, partial(self._said, slot, group, worker))

    def _said(self, slot: _Slot, group: _WorkerGroup, worker: Any, said: "asyncio.Future[Sealed]") -> None:
        error = None if said.cancelled() else said.exception()
        if said.cancelled() or group.answers.done():
            return
        if error is not None:
            self._died(slot, group, worker, error)
            return
        assert self._loop is not None
        report: Report = group_runner.opened(said.result())
        answers, over, seconds = report
        done, unsent = group.done, group.unsent
        for seconds, kind, sent in answers:
            if kind == VALUE and sent[1] is None:
                done.append(Answer(sent[0], None, seconds))
            else:
                done.append(_answer(group.functions[len(done)], seconds, kind, sent))
            if unsent:
                group.put_unsent()
        if over:
            self._measure(group)
            self._finish(slot, group, group.done)
        else:
            group.since = self._loop.time() - seconds
            self._await(self._call(worker, "rest"), partial(self._said, slot, group, worker))

    def _measure(self, group: _WorkerGroup) -> None:
        """Note what it took to ask for a group that has come back as a whole."""
        if group.since is None and group.is_plain:
            assert self._loop is not None
            assert group.began is not None
            called = sum(answer.seconds or 0.0 for answer in group.done)
            self._round_trip.note(self._loop.time() - group.began - called)
            self.group_seconds = self._round_trip.group_seconds

    def _died(self, slot: _Slot, group: _WorkerGroup, worker: Any, error: BaseException) -> None:
        """Say what the calls of an worker came to with which something is wrong; another one takes its place."""
        self._kill(worker)
        if slot.worker is worker:
            slot.worker = None
            slot.ready = False
        suspects = 1 if group.since is not None else group.left
        if group.stopped:
            stopped = [Answer(error=asyncio.CancelledError())] if suspects == 1 else []
            self._finish(slot, group, group.done + stopped)
            return
        death = self._death(error)
        lost = [Answer(error=error if death is None else WorkerLost(death)) for _ in range(suspects)]
        self._finish(slot, group, group.done + lost)

    def _gone(self, worker: Any, watched: "asyncio.Future[Any]") -> None:
        """Another worker takes the place of one that was found dead."""
        error = None if watched.cancelled() else watched.exception()
        if error is None or self._closed:
            return
        for slot in self._slots:
            if slot.worker is worker:
                if slot.group is not None:
                    self._died(slot, slot.group, worker, error)
                else:
                    slot.worker = None
                    slot.ready = False

    def _finish(self, slot: _Slot, group: _WorkerGroup, answers: list[Answer]) -> None:
        _cancel(group.timer)
        slot.group = None
        del self._groups[group.answers]
        group.answers.set_result(answers)
        if slot.ready and not self._closed:
            self._take_over(slot)

    def _take_over(self, slot: _Slot) -> None:
        """Give to an idle worker a group that waits for one that is not ready: the cluster may have no room for it."""
        for other in self._slots:
            group = other.group
            if group is not None and group.began is None:
                other.group, slot.group = None, group
                self._groups[group.answers] = slot
                self._ask(slot, group)
                return

    # What crosses

    def _pickle(self, group: _WorkerGroup, calls: Sequence[Call]) -> None:
        """Put in the calls as workers read them."""
        put = group.calls.append
        for index, call in enumerate(calls):
            arguments = call.arguments
            if are_plain(arguments):
                put((call.fn.number, call.most, (arguments, None)))
                continue
            try:
                sent = group_runner.parts(self._crossing, arguments)
            except BaseException as error:  # noqa: BLE001 -- methods of the user's run here
                name, kinds = call.fn.name, ", ".join(map(type_name, arguments))
                failed = PicklingFailed(f"the argument of {name}, of type {kinds}, cannot be pickled: {why(error)}")
                failed.__cause__ = error
                group.unsent[index] = failed
            else:
                put((call.fn.number, call.most, sent))
                group.is_plain = False
        group.put_unsent()


def _answer(function: _RemoteFunction, seconds: float, kind: int, sent: Parts) -> Answer:
    data, _ = sent
    if kind == ERROR:
        return Answer(None, unpacked(bytes(data), RemoteError), seconds)
    if kind in {NOT_LOADED, NOT_PICKLED}:
        what, _, reason = bytes(data).decode(errors="replace").partition("\n")
        return Answer(None, _not_crossed(function.name, kind, what, reason), seconds)
    try:
        return Answer(group_runner.whole(sent), None, seconds)
    except BaseException as error:  # noqa: BLE001 -- classes of the user's are made here
        failed = PicklingFailed(f"the result of {function.name} cannot be loaded in this process: {why(error)}")
        return Answer(None, failed, seconds)


def _not_crossed(name: str, kind: int, what: str, reason: str) -> BaseException:
    if kind == NOT_PICKLED:
        return PicklingFailed(f"the result of {name}, of type {what}, cannot be pickled: {reason}")
    if what == "fn":
        return MisuseError(f"{name} cannot be loaded in a worker: {reason}")
    return PicklingFailed(f"an argument of {name} cannot be loaded in a worker: {reason}")


def runner_by_value(cloudpickle: Any) -> bytes:
    """The class of runners, pickled so that penstock is not imported where it is loaded."""

    class ByValuePickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        """Leaves out the aliases of types in annotations, which would go by name."""

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, TypeAliasType):
                return object, ()
            above: Any = super()
            return above.reducer_override(obj)

    file = BytesIO()
    for module in _BY_VALUE:
        cloudpickle.register_pickle_by_value(module)
    try:
        ByValuePickler(file).dump(group_runner.GroupRunner)
    finally:
        for module in _BY_VALUE:
            cloudpickle.unregister_pickle_by_value(module)
    return file.getvalue()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _drop(engine: "weakref.ref[ClusterEngine]", number: int) -> None:
    """Have workers forget a function that nobody calls any more."""
    if (found := engine()) is not None:
        found.forget(number)
