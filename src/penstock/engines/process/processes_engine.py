"""The engine of processes: which worker gets what, and who is started, stopped and replaced."""

import asyncio
import contextvars
import os
import pickle
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final, override

from penstock.core import validate
from penstock.core.errors import MisuseError, OptionError, PicklingFailed, WrongLoopError
from penstock.core.text import name_of
from penstock.engines.engine import Answer, Call, Engine, Progress
from penstock.engines.process.crossing import LARGE, MOST_BUFFERS, Crossing, are_plain, type_name, whole_arguments, why
from penstock.engines.process.messages import Spare, WireCall
from penstock.engines.process.page import MOST_CALLS
from penstock.engines.process.starting import main_of_workers, refuse_in_import, start
from penstock.engines.process.worker_process import DEPTH, MOST_BYTES, Function, SentGroup, Tell, WorkerProcess

PATIENCE: Final = 0.05
"""Seconds that a call has to end by itself when it is stopped; then its worker is killed."""

SPARE: Final = 1 << 26
"""Bytes of memory that an engine keeps for large results."""

MOST_FAILED_STARTS: Final = 5
"""Workers that may fail to start, one after the other."""

_NO_CALL: Final = -1
"""Stands for the function of a call that cannot be sent."""


def processes(workers: int | None = None, initializer: Callable[[], object] | None = None) -> Engine:
    """Return an engine of up to `workers` processes, each started when there is work for it.

    Functions, arguments and results are pickled; functions without a name in a module (lambdas, closures, those of a
    notebook) and what refers to them need cloudpickle (the extra `process`). A call that is stopped, by its timeout or
    by leaving the run, really stops: its worker is killed, if need be, and replaced. A worker that dies fails the call
    that it ran with `WorkerLost`. The module that is run as a program is imported in each worker: what starts the work
    stands there under `if __name__ == "__main__":`.

    Args:
        workers: how many calls can run at once, an int >= 1. None: the processors that this process may use.
        initializer: called once in each worker when it starts, with no arguments: to load a model, say.

    Raises:
        OptionError: an argument breaks its rule, or the initializer cannot be pickled.

    Example:
        async with penstock.engines.processes(4) as engine:
            pages = penstock.stream(paths).map(parse, engine=engine)
    """
    return Processes(workers, initializer)


def processors() -> int:
    """Return how many processors this process may use."""
    usable: Callable[[], int | None] | None = getattr(os, "process_cpu_count", None)
    if usable is not None:
        return usable() or 1
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


class Processes(Engine, Tell):
    """Runs plain functions in processes of its own; see `processes`."""

    group_seconds: float | None = 0.005
    depth = DEPTH

    def __init__(
        self,
        workers: int | None = None,
        initializer: Callable[[], object] | None = None,
        *,
        imports_main: bool = True,
    ) -> None:
        """Start no worker yet. If it does not import the main module, functions of that are pickled by value."""
        self._given = workers, initializer
        self._workers = processors() if workers is None else validate.whole("workers", workers, least=1)
        main = main_of_workers() if imports_main else None
        self._crossing = Crossing(main_is_there=main is not None)
        self._main = main
        self._numbers = count()
        self._initializer_name = ""
        self.starts: str = "imports the main module of the program" if main is not None else "starts"
        initial: bytes | None = None
        if initializer is not None:
            validate.function("initializer", initializer)
            self._initializer_name = name_of(initializer)
            self.starts = f"is in the initializer {self._initializer_name}, or in what is imported before"
            initial = self._pickled(initializer, "initializer")
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])  # as workers call it, and multiprocessing does
        self._hello = pickle.dumps((list(sys.argv), main, initial), 5)
        self._closed = False
        self._empty()
        _pools.add(self)

    def _empty(self) -> None:
        """Start without workers: at first, and in a child that was forked."""
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._children: list[WorkerProcess] = []
        self._waiting: deque[SentGroup] = deque()
        self._groups: dict[asyncio.Future[list[Answer]], SentGroup] = {}
        self._failed_starts = 0
        self._starts_next = False
        self._spare = Spare(SPARE)

    # The contract

    @override
    def prepare(self, fn: Callable[..., Any], /) -> Any:
        refuse_in_import()
        function = Function(next(self._numbers), self._pickled(fn, "engine"), _name_of(fn))
        weakref.finalize(function, _drop, weakref.ref(self), function.number).atexit = False
        return function

    @override
    def submit(self, calls: Sequence[Call], /) -> asyncio.Future[list[Answer]]:
        if self._closed:
            raise MisuseError(f"{self.describe()} was closed: it runs no calls any more")
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._empty()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongLoopError(f"{self!r} belongs to the event loop of its first use and cannot be used on another")
        group = self._group(calls, loop.create_future())
        self._groups[group.answers] = group
        group.answers.add_done_callback(self._groups.pop)
        self._waiting.append(group)
        self._place()
        return group.answers

    @override
    def peek(self, answers: asyncio.Future[list[Answer]], /) -> Progress | None:
        group = self._groups.get(answers)
        if group is None or answers.done():
            return None
        return Progress([], None) if group.child is None else group.child.progress(group)

    @override
    def recall(self, answers: asyncio.Future[list[Answer]], /) -> int | None:
        group = self._halt(answers)
        return 0 if group is None or group.child is None else group.child.keep(group)

    @override
    def stop(self, answers: asyncio.Future[list[Answer]], /) -> None:
        group = self._halt(answers)
        if group is not None and not group.stopped:
            assert self._loop is not None
            group.stopped = True
            group.timer = self._loop.call_later(PATIENCE, _kill, group)

    @override
    def slots(self) -> int:
        return self._workers

    @override
    def describe(self) -> str:
        return f"processes({self._workers})"

    @override
    async def aclose(self, grace: float = 5.0) -> None:
        """End it: workers in no call leave; a call that runs has `grace` seconds, then its worker is killed."""
        self._close()
        try:
            if self._loop is asyncio.get_running_loop():
                await self._end(grace)
        finally:
            self.abandon()

    async def _end(self, grace: float) -> None:
        """Wait until workers have left: when their calls are over, or killed."""
        if self._groups and grace:
            await asyncio.wait(list(self._groups), timeout=grace)
        for child in self._children:
            if child.usable and not child.busy and grace:
                child.end()
            else:
                child.ending = True
                child.kill()
        for patience in (max(grace, 1.0), 1.0):
            if gone := [child.gone for child in self._children]:
                await asyncio.wait(gone, timeout=patience)
            for child in self._children:
                child.kill()

    @override
    def abandon(self) -> None:
        self._close()
        children, self._children = self._children, []
        if self._pid == os.getpid():
            for child in children:
                child.kill()
            for child in children:
                child.kill_and_wait()

    def _close(self) -> None:
        """Take nothing any more, and fail what waits."""
        self._closed = True
        waiting, self._waiting = self._waiting, deque()
        for group in waiting:
            group.fail(lambda: MisuseError(f"{self.describe()} was closed before this call began"))

    @override
    def __reduce__(self) -> tuple[object, ...]:
        """Stand for an engine like this one, with workers of its own, in another process."""
        return processes, self._given

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_children", None) and self._pid == os.getpid():
            warn(f"unclosed engine {self.describe()}: use `async with`", ResourceWarning, source=self, stacklevel=2)
            self.abandon()

    # Functions and calls as bytes

    def _pickled(self, fn: Callable[..., Any], option: str) -> bytes:
        try:
            return self._crossing.dumps(fn)
        except Exception as error:
            module = getattr(fn, "__module__", None)
            raise OptionError(
                f"{option}: {_name_of(fn)} of module {module} cannot be pickled for a worker process: {why(error)}"
            ) from error

    def _group(self, calls: Sequence[Call], answers: asyncio.Future[list[Answer]]) -> SentGroup:
        """Pickle calls for a worker; leave out some at the end if there are too many."""
        group = SentGroup(answers)
        buffers = group.buffers
        for call in calls[:MOST_CALLS]:
            if len(buffers) >= MOST_BUFFERS or group.size >= MOST_BYTES:
                break
            function: Function = call.fn
            arguments = call.arguments
            group.functions.append(function)
            if are_plain(arguments):
                group.entries.append((function.number, call.most, arguments, 0))
                continue
            before = len(buffers)
            try:
                data = self._crossing.dumps(whole_arguments(arguments), buffers)
            except BaseException as error:  # noqa: BLE001 -- methods of the user's run here
                del buffers[before:]
                group.unsent[len(group.entries)] = _not_sent(function, arguments, error)
                entry: WireCall = (_NO_CALL, None, b"", 0)
            else:
                group.size += len(data) + sum(view.nbytes for view in buffers[before:])
                if len(data) >= LARGE:
                    buffers.append(memoryview(data))
                    entry = (function.number, call.most, None, len(buffers) - before)
                else:
                    entry = (function.number, call.most, data, len(buffers) - before)
            group.entries.append(entry)
        return group

    # Workers

    def _place(self) -> None:
        """Give what waits to workers: first to idle ones, then as the second group to busy ones, if it is small.

        Keep one group for each worker that is starting.
        """
        waiting = self._waiting
        if not waiting or self._closed:
            return
        idle = [child for child in self._children if child.usable and not child.groups]
        while waiting and idle:
            idle.pop().give(waiting.popleft())
        if not waiting:
            return
        self._start(len(waiting))
        starting = sum(child.starting for child in self._children)
        for child in self._children:
            if len(waiting) <= starting or waiting[0].size >= MOST_BYTES:
                return
            if child.usable and len(child.groups) < DEPTH:
                child.give(waiting.popleft())

    def _start(self, wanted: int) -> None:
        """Start a worker, if fewer are starting and there may be another one; the next one has its own turn (P9)."""
        assert self._loop is not None
        wanted -= sum(child.starting for child in self._children)
        if self._starts_next or wanted <= 0 or len(self._children) >= self._workers:
            return
        if self._children and self._failed_starts >= MOST_FAILED_STARTS:
            return  # those that are there go on alone
        try:
            started = start()
        except (OSError, OptionError) as error:
            if not self._children:
                self._fail_waiting(f"no worker process can be started: {why(error)}", error)
            return
        context = contextvars.Context()  # the callbacks of a worker must not hold that of a run
        self._children.append(context.run(WorkerProcess, started, self._hello, self._loop, self, self._spare))
        self._starts_next = True
        self._loop.call_soon(self._start_next, context=context)

    def _start_next(self) -> None:
        self._starts_next = False
        self._place()

    @override
    def is_ready(self, child: WorkerProcess) -> None:
        self._failed_starts = 0
        self.has_less(child)

    @override
    def has_less(self, child: WorkerProcess) -> None:
        self._place()
        if not child.groups and not self._closed and child.usable:
            self._take_over(child)

    def _take_over(self, child: WorkerProcess) -> None:
        """Move the group that waits behind a call of another worker to an idle one."""
        for other in self._children:
            group = other.second
            if group is not None and not other.halt(group):
                child.give(group)
                return

    @override
    def is_gone(self, child: WorkerProcess) -> None:
        if child not in self._children:
            return
        self._children.remove(child)
        if self._closed:
            return
        if not child.was_ready:
            self._failed_starts += 1
            if child.failed is not None or self._failed_starts >= MOST_FAILED_STARTS:
                self._could_not_start(child)
        self._place()

    def _could_not_start(self, child: WorkerProcess) -> None:
        """Fail what waits, if no worker is left that will take it."""
        if any(other.usable for other in self._children):
            return
        if child.failed is None:
            self._fail_waiting(
                f"worker processes die as they start: the last of {self._failed_starts} {child.how()}", None
            )
            return
        what, error = child.failed
        if what == "initializer":
            self._fail_waiting(f"the initializer {self._initializer_name} failed in a worker: {why(error)}", error)
        else:
            self._fail_waiting(f"the main module of the program cannot be imported in a worker: {why(error)}", error)

    def _fail_waiting(self, text: str, cause: BaseException | None) -> None:
        def failure() -> BaseException:
            error = MisuseError(text)
            error.__cause__ = cause
            return error

        self._failed_starts = 0
        waiting, self._waiting = self._waiting, deque()
        for group in waiting:
            group.fail(failure)

    def _halt(self, answers: asyncio.Future[list[Answer]]) -> SentGroup | None:
        """Take back what has not begun of a group; return the group if a call of it runs on."""
        group = self._groups.get(answers)
        if group is None or answers.done():
            return None
        if group.child is None:
            self._waiting.remove(group)
        elif group.child.halt(group):
            return group
        group.end()
        return None

    def drop(self, number: int) -> None:
        """Let workers forget a function that nobody can call any more."""
        for child in self._children:
            child.dropped.append(number)

    def forget_in_fork(self) -> None:
        """Close what is the parent's, in a child that was forked."""
        for child in self._children:
            child.disown()
        self._children = []


_pools: "weakref.WeakSet[Processes]" = weakref.WeakSet()


def _in_fork() -> None:
    for pool in list(_pools):
        pool.forget_in_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_fork)


def _drop(pool: "weakref.ref[Processes]", number: int) -> None:
    found = pool()
    if found is not None:
        found.drop(number)


def _kill(group: SentGroup) -> None:
    """Kill the worker of a group whose call has not ended by itself."""
    group.timer = None
    if group.child is not None:
        group.child.kill()


def _name_of(fn: object) -> str:
    name = getattr(fn, "__qualname__", None)
    return name if isinstance(name, str) else type_name(fn)


def _not_sent(function: Function, arguments: tuple[Any, ...], error: BaseException) -> BaseException:
    what = ", ".join(map(type_name, arguments))
    failed = PicklingFailed(f"the argument of {function.name}, of type {what}, cannot be pickled: {why(error)}")
    failed.__cause__ = error
    return failed
