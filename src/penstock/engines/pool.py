"""Threads that do not keep the interpreter from exiting: a call that nobody waits for any more may never return.

See `docs/decisions.md`, "Threads are daemons of a pool of our own".
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, override

type _Submission = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads(Executor):
    """Up to `most` daemon threads, each started when there is a call for it.

    The pool of `concurrent.futures` joins its threads when the interpreter exits; this one does not.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: SimpleQueue[_Submission | None] = SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._unfinished = 0
        self._over = False
        self._at_work: set[threading.Thread] = set()
        self._when_idle: Callable[[], object] | None = None

    @override
    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            if self._over:
                raise RuntimeError("the threads have been let go")
            if self._unfinished >= len(self._threads) < self._most:
                thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
                thread.start()
                self._threads.add(thread)
            self._unfinished += 1
        self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def _work(self) -> None:
        thread = threading.current_thread()
        while (job := self._jobs.get()) is not None:
            future, call = job
            with self._lock:
                if self._over:
                    future.cancel()
                else:
                    self._at_work.add(thread)
            result, error = None, None
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as raised:  # noqa: BLE001 -- it is the caller's
                    error = raised
            with self._lock:
                self._unfinished -= 1
                self._at_work.discard(thread)
                told = self._when_idle if not self._at_work else None
            if told is not None:
                told()
            if error is not None:
                future.set_exception(error)
            elif not future.cancelled():
                future.set_result(result)
            del job, future, call, result, error, told

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
            free = self._threads - self._at_work
        for _ in self._threads:
            self._jobs.put(None)
        if wait:
            for thread in free:
                thread.join()
