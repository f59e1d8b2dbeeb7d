"""Threads that do not keep the interpreter from exiting: a call that nobody waits for any more may never return.

See `docs/decisions.md`, "Threads are daemons of a pool of our own".
"""

import threading
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, override


class PooledCall:
    """Something that is done in a thread; one of `make` and `drop` is called, then `tell`."""

    __slots__ = ()

    @abstractmethod
    def make(self) -> None:
        """Make the call, and keep what it came to; never raises."""
        raise NotImplementedError

    @abstractmethod
    def drop(self) -> None:
        """Note that the call is not made: the threads were let go before it began."""
        raise NotImplementedError

    @abstractmethod
    def tell(self) -> None:
        """Hand on what it came to; by now the thread counts as free."""
        raise NotImplementedError


class _Submitted(PooledCall):
    """A call that was submitted for a future."""

    __slots__ = ("_call", "_error", "_result", "future")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None

    @override
    def make(self) -> None:
        if self.future.set_running_or_notify_cancel():
            try:
                self._result = self._call()
            except BaseException as error:  # noqa: BLE001 -- it is the caller's
                self._error = error

    @override
    def drop(self) -> None:
        self.future.cancel()
        self.future.set_running_or_notify_cancel()

    @override
    def tell(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            self.future.set_exception(error)
        elif not self.future.cancelled():
            self.future.set_result(self._result)
        del error


class DaemonThreads(Executor):
    """Up to `most` daemon threads, each started when there is a call for it.

    The pool of `concurrent.futures` joins its threads when the interpreter exits; this one does not. A thread that is
    back takes the next call at once. Only one that is idle is woken at a time, and wakes the next one before it makes
    its call if there are more: so quick calls cost few changes of threads, and slow ones hold up no other.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: deque[PooledCall] = deque()
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._at_work: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._one_is_woken = False
        self._over = False
        self._when_idle: Callable[[], object] | None = None

    @override
    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        job = _Submitted(lambda: fn(*args, **kwargs))
        self.put(job)
        return job.future

    def put(self, job: PooledCall) -> None:
        """Have a job done.

        Raises:
            RuntimeError: the threads have been let go, or there is none and none can be started.
        """
        with self._lock:
            if self._over:
                raise RuntimeError("the threads have been let go")
            if not self._one_is_woken:
                self._wake()
            self._jobs.append(job)

    def _wake(self) -> None:
        """Wake an idle thread, or start one. If all are at work, the first that is back looks."""
        if len(self._threads) == len(self._at_work):
            if len(self._threads) == self._most:
                return
            thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # those that are there go on alone
                if not self._threads:
                    raise
                return
            self._threads.add(thread)
        self._one_is_woken = True
        self._wakes.put(True)

    def _work(self) -> None:
        thread = threading.current_thread()
        while self._wakes.get():
            job = self._first(thread)
            while job is not None:
                job.make()
                done, job = job, self._next(thread)
                done.tell()
                del done

    def _first(self, thread: threading.Thread) -> PooledCall | None:
        """Take a job, if there is one; if there are more, wake another thread."""
        with self._lock:
            self._one_is_woken = False
            if not self._jobs:
                return None
            self._at_work.add(thread)
            job = self._jobs.popleft()
            if self._jobs:
                self._wake()
            return job

    def _next(self, thread: threading.Thread) -> PooledCall | None:
        """Take the next job after another one; if there is none, the thread is free."""
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._at_work.discard(thread)
            told = self._when_idle if not self._at_work else None
        if told is not None:
            told()
        return None

    @property
    def idle(self) -> bool:
        """Whether no thread is in a call."""
        return not self._at_work

    def when_idle(self, tell: Callable[[], object]) -> None:
        """Call `tell()` when the last call is over, in its thread; call it now if no call runs."""
        with self._lock:
            self._when_idle = tell
            idle = not self._at_work
        if idle:
            tell()

    @override
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads go and cancel the calls that have not begun.

        With `wait`, join the threads that are in no call.
        """
        with self._lock:
            self._over = True
            jobs = list(self._jobs)
            self._jobs.clear()
            free = self._threads - self._at_work
        for _ in self._threads:
            self._wakes.put(False)
        for job in jobs:
            job.drop()
            job.tell()
        if wait:
            for thread in free:
                thread.join()
