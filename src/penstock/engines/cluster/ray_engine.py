"""The engine of Ray: actors, each of which makes the calls of one group at a time.

Actors, not tasks: after a cut of the network in silence the reference of a task never comes to anything, the call of an
actor fails after a minute. Ray tries nothing again, since the run does; each reference is awaited once.
"""

import asyncio
import os
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from io import BytesIO
from itertools import count
from logging import ERROR as QUIET
from typing import Any, Final, Self, TypeAliasType, override

from penstock.core import at_hand, validate
from penstock.core.errors import MisuseError, OptionError, PicklingFailed, RemoteError, WorkerLost, WrongLoopError
from penstock.core.text import name_of
from penstock.engines import read_results
from penstock.engines.cluster import group_runner
from penstock.engines.cluster.group_runner import ERROR, NOT_LOADED, NOT_PICKLED, Parts, RemoteCall, Report
from penstock.engines.engine import Answer, Call, Engine, Progress
from penstock.engines.process import crossing, remote_errors
from penstock.engines.process.crossing import Crossing, type_name, why
from penstock.engines.process.remote_errors import unpacked
from penstock.exports import naming_extras

_BY_VALUE: Final = (group_runner, crossing, remote_errors, read_results, at_hand)
"""The modules that an actor needs of penstock."""

GROUP_SECONDS: Final = 0.02
"""About twenty times what a call of an actor costs; it says how far it is after twice as long."""

PATIENCE: Final = 0.1
"""Seconds that a call has to end by itself when it is stopped; then its actor is killed: a new one takes a second."""

MOST_FAILED_STARTS: Final = 3
"""Actors that may fail to start, one after the other."""


def _library() -> Any:
    """The module of Ray; the types that it has do not say what an actor is."""
    with naming_extras("penstock.engines.ray", {"ray": "ray"}):
        return import_module("ray")


def ray(
    workers: int | None = None,
    *,
    num_cpus: float = 1,
    num_gpus: float = 0,
    resources: Mapping[str, float] | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    address: str | None = None,
) -> Engine:
    """An engine of up to `workers` actors on a Ray cluster, each started when there is work for it.

    It is entered with `async with`, which connects to the cluster (a local one takes some seconds to start). Functions,
    arguments and results are pickled; those of `__main__`, lambdas and closures go by value, others are imported where
    they run, with the `sys.path` of this process beside that of the worker. Calls run in a thread of their worker. A
    call that is stopped, by its timeout or by leaving the run, really stops: its actor is killed, and a new one takes a
    second. A worker, or a node, that dies fails the calls that it ran with `WorkerLost`.

    Args:
        workers: how many calls can run at once, an int >= 1. None: as many actors as fit on the cluster when it is
            entered.
        num_cpus: the processors that an actor takes, >= 0.
        num_gpus: the GPUs that it takes, >= 0.
        resources: what it takes of resources of your own.
        runtime_env: the environment of the actors, as Ray has it: packages, files, variables.
        address: the cluster: "auto", "ray://host:port", or "local". None: that to which this process is connected, or
            what RAY_ADDRESS says, or else a local one.

    Raises:
        OptionError: an argument breaks its rule.
        ModuleNotFoundError: Ray is not installed; the extra `ray` brings it.

    Example:
        async with penstock.engines.ray(num_gpus=1, address="auto") as engine:
            vectors = penstock.stream(texts).map(embed, engine=engine)
    """
    library = _library()
    needs = {
        "num_cpus": validate.number("num_cpus", num_cpus, least=0),
        "num_gpus": validate.number("num_gpus", num_gpus, least=0),
    }
    for option, value in (("resources", resources), ("runtime_env", runtime_env)):
        if value is not None:
            validate.instance(option, value, Mapping, "a mapping")
    options: dict[str, Any] = {**needs, "resources": dict(resources or {}) or None, "runtime_env": runtime_env}
    return Ray(
        library,
        None if workers is None else validate.whole("workers", workers, least=1),
        {name: value for name, value in options.items() if value is not None},
        None if address is None else validate.text("address", address),
    )


class _RemoteFunction:
    """A function that actors can be sent."""

    def __init__(self, number: int, pickled: bytes, name: str) -> None:
        self.number = number
        self.pickled = pickled
        self.name = name


class _ActorGroup:
    """A group of calls, on its way or with an actor.

    Attributes:
        unsent: the errors of calls that cannot be pickled.
        done: the answers that are here.
        began: when the actor was asked; None: it is not ready.
        since: when the call after those began, once that is known; then no other one will begin.
    """

    def __init__(self, calls: Sequence[Call], answers: asyncio.Future[list[Answer]]) -> None:
        self.functions: list[_RemoteFunction] = [call.fn for call in calls]
        self.calls: list[RemoteCall] = []
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


class _Slot:
    """Room for an actor, and what it does."""

    def __init__(self) -> None:
        self.actor: Any = None
        self.ready = False
        self.group: _ActorGroup | None = None
        self.known: weakref.WeakSet[_RemoteFunction] = weakref.WeakSet()
        self.dropped: list[int] = []


class Ray(Engine):
    """Runs plain functions in actors of Ray; see `ray`."""

    group_seconds: float | None = GROUP_SECONDS

    def __init__(self, library: Any, workers: int | None, options: Mapping[str, Any], address: str | None) -> None:
        self._ray = library
        self._workers = workers
        self._options = options
        self._address = address
        self._crossing = Crossing(main_is_there=False)
        self._numbers = count()
        self._slots: list[_Slot] = []
        self._groups: dict[asyncio.Future[list[Answer]], _Slot] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._actor_class: Any = None
        self._runner = b""
        self._ours = False
        self._closed = False
        self._failed_starts = 0

    # Its life

    @override
    async def __aenter__(self) -> Self:
        if self._closed:
            raise MisuseError(f"{self.describe()} was closed")
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._connect)  # on the main thread Ray would replace the handler of SIGTERM
        return self

    def _connect(self) -> None:
        if not self._ray.is_initialized():
            address = self._address or os.environ.get("RAY_ADDRESS") or "local"
            more: dict[str, Any] = {}
            if address == "local":
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                more["include_dashboard"] = False
            self._ray.init(address, log_to_driver=False, logging_level=QUIET, **more)
            self._ours = True
        workers = self._fitting() if self._workers is None else self._workers
        self._slots = [_Slot() for _ in range(workers)]
        self._runner = _by_value(group_runner.GroupRunner)
        self._actor_class = self._ray.remote(_worker_class())

    def _fitting(self) -> int:
        """How many actors fit on the cluster."""
        there: dict[str, float] = self._ray.cluster_resources()
        options = self._options
        needs: dict[str, float] = {
            "CPU": options["num_cpus"],
            "GPU": options["num_gpus"],
            **options.get("resources", {}),
        }
        fit = [there.get(name, 0.0) // need for name, need in needs.items() if need]
        found = int(min(fit, default=there.get("CPU", 1.0)))
        if found < 1:
            raise OptionError(f"no worker fits on the cluster: it needs {needs}, and there is {there}")
        return found

    @override
    async def aclose(self, grace: float = 5.0) -> None:
        """End it: actors in no call are killed; a call that runs has `grace` seconds, then its actor is killed."""
        self._closed = True
        if self._groups and grace:
            await asyncio.wait(list(self._groups), timeout=grace)
        under_way = list(self._groups)
        self.abandon()
        if under_way:
            await asyncio.wait(under_way, timeout=1.0)
        if self._ours:
            self._ours = False
            await asyncio.to_thread(self._ray.shutdown)

    @override
    def abandon(self) -> None:
        self._closed = True
        for slot in self._slots:
            if slot.group is not None:
                slot.group.stopped = True
                if slot.group.began is None:
                    self._finish(slot, slot.group, [])
            self._kill(slot.actor)
            slot.actor = None

    # The contract

    @override
    def prepare(self, fn: Callable[..., Any], /) -> Any:
        try:
            pickled = self._crossing.dumps(fn)
        except Exception as error:
            module = getattr(fn, "__module__", None)
            raise OptionError(
                f"engine: {name_of(fn)} of module {module} cannot be pickled for Ray: {why(error)}"
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
        group = _ActorGroup(calls, loop.create_future())
        self._pickle(group, calls)
        if not group.calls:
            group.answers.set_result(group.done)
            return group.answers
        slot = min((each for each in self._slots if each.group is None), key=lambda each: not each.ready)
        slot.group = group
        self._groups[group.answers] = slot
        if slot.ready:
            self._ask(slot, group)
        elif slot.actor is None:
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
        group.timer = self._loop.call_later(PATIENCE, self._kill, self._groups[answers].actor)

    @override
    def slots(self) -> int:
        if not self._slots:
            raise MisuseError(f"{self.describe()} is to be entered first: `async with engine:` connects to the cluster")
        return len(self._slots)

    @override
    def describe(self) -> str:
        return f"ray({'' if self._workers is None else self._workers})"

    def _group_of(self, answers: asyncio.Future[list[Answer]]) -> _ActorGroup | None:
        slot = self._groups.get(answers)
        return None if slot is None else slot.group

    # Actors

    def _kill(self, actor: Any) -> None:
        if actor is not None and self._ray.is_initialized():
            with suppress(Exception):  # it is dead, or its cluster
                self._ray.kill(actor, no_restart=True)

    def forget(self, number: int) -> None:
        """Have actors forget a function."""
        for slot in self._slots:
            slot.dropped.append(number)

    def _start(self, slot: _Slot) -> None:
        assert self._loop is not None
        options = {**self._options, "max_restarts": 0, "max_task_retries": 0}
        slot.known.clear()
        slot.dropped.clear()
        actor = slot.actor = self._actor_class.options(**options).remote(self._runner, sys.path, 2 * GROUP_SECONDS)
        self._await(actor.ready.remote(), partial(self._started, slot, actor))

    def _await(self, reference: Any, then: Callable[["asyncio.Future[Any]"], None]) -> None:
        asyncio.wrap_future(reference.future(), loop=self._loop).add_done_callback(then)

    def _started(self, slot: _Slot, actor: Any, ready: "asyncio.Future[Any]") -> None:
        error = None if ready.cancelled() else ready.exception()  # or asyncio would say that nobody has asked
        if ready.cancelled() or slot.actor is not actor:
            return
        if error is None:
            slot.ready = True
            self._failed_starts = 0
            if slot.group is not None:
                self._ask(slot, slot.group)
            return
        slot.actor = None
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
            failed = MisuseError(f"the actors of {self.describe()} cannot be started: {why(error)}")
            failed.__cause__ = error
            answers.append(Answer(error=failed))
        self._finish(slot, group, answers)

    def _ask(self, slot: _Slot, group: _ActorGroup) -> None:
        assert self._loop is not None
        new = [each for each in dict.fromkeys(group.functions) if each not in slot.known]
        slot.known.update(new)
        dropped, slot.dropped = slot.dropped, []
        group.began = self._loop.time()
        actor = slot.actor
        said = actor.run.remote([(each.number, each.pickled) for each in new], dropped, group.calls)
        self._await(said, partial(self._said, slot, group, actor))

    def _said(self, slot: _Slot, group: _ActorGroup, actor: Any, said: "asyncio.Future[Report]") -> None:
        error = None if said.cancelled() else said.exception()
        if said.cancelled() or group.answers.done():
            return
        if error is not None:
            self._died(slot, group, actor, error)
            return
        assert self._loop is not None
        answers, over, seconds = said.result()
        for answer in answers:
            group.done.append(_answer(group.functions[len(group.done)], *answer))
            group.put_unsent()
        if over:
            self._finish(slot, group, group.done)
        else:
            group.since = self._loop.time() - seconds
            self._await(actor.rest.remote(), partial(self._said, slot, group, actor))

    def _died(self, slot: _Slot, group: _ActorGroup, actor: Any, error: BaseException) -> None:
        """Say what the calls of an actor came to with which something is wrong; another one takes its place."""
        self._kill(actor)
        if slot.actor is actor:
            slot.actor = None
            slot.ready = False
        suspects = 1 if group.since is not None else group.left
        if group.stopped:
            stopped = [Answer(error=asyncio.CancelledError())] if suspects == 1 else []
            self._finish(slot, group, group.done + stopped)
            return
        known = self._ray.exceptions
        deaths = known.RayActorError, known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError
        dead = isinstance(error, deaths)
        lost = [Answer(error=WorkerLost(_first_line(error)) if dead else error) for _ in range(suspects)]
        self._finish(slot, group, group.done + lost)

    def _finish(self, slot: _Slot, group: _ActorGroup, answers: list[Answer]) -> None:
        if group.timer is not None:
            group.timer.cancel()
        slot.group = None
        del self._groups[group.answers]
        group.answers.set_result(answers)
        if slot.ready and not self._closed:
            self._take_over(slot)

    def _take_over(self, slot: _Slot) -> None:
        """Give to an idle actor the group that waits for one that is not ready: the cluster may have no room for it."""
        for other in self._slots:
            group = other.group
            if group is not None and group.began is None:
                other.group, slot.group = None, group
                self._groups[group.answers] = slot
                self._ask(slot, group)
                return

    # What crosses

    def _pickle(self, group: _ActorGroup, calls: Sequence[Call]) -> None:
        """Put in the calls as actors read them."""
        for index, call in enumerate(calls):
            try:
                sent = group_runner.parts(self._crossing, call.arguments)
            except BaseException as error:  # noqa: BLE001 -- methods of the user's run here
                name, kinds = call.fn.name, ", ".join(map(type_name, call.arguments))
                failed = PicklingFailed(f"the argument of {name}, of type {kinds}, cannot be pickled: {why(error)}")
                failed.__cause__ = error
                group.unsent[index] = failed
            else:
                group.calls.append((call.fn.number, call.most, sent))
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


def _by_value(value: object) -> bytes:
    """Pickle what is of `_BY_VALUE` so that penstock is not imported where it is loaded."""
    cloudpickle: Any = import_module("ray.cloudpickle.cloudpickle")

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
        ByValuePickler(file).dump(value)
    finally:
        for module in _BY_VALUE:
            cloudpickle.unregister_pickle_by_value(module)
    return file.getvalue()


def _worker_class() -> type:
    """The class of actors: it has no name in a module, and so goes by value."""

    class Worker:
        """Has a runner."""

        def __init__(self, pickled: bytes, path: Sequence[str], patience: float) -> None:
            from pickle import loads  # noqa: PLC0415 -- where it runs

            self._runner: Any = loads(pickled)(path, patience)  # noqa: S301

        def ready(self) -> Any:
            return self._runner.ready()

        def run(self, *given: Any) -> Any:
            return self._runner.run(*given)

        def rest(self) -> Any:
            return self._runner.rest()

    return Worker


def _first_line(error: BaseException) -> str:
    """What Ray says of a death; further lines are about where it was."""
    return next(iter(str(error).strip().splitlines()), "the actor died")


def _drop(engine: "weakref.ref[Ray]", number: int) -> None:
    """Have actors forget a function that nobody calls any more."""
    if (found := engine()) is not None:
        found.forget(number)
