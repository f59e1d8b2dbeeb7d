"""Virtual time: seconds that pass only when nothing can run."""

import asyncio
import threading
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.testing.virtual import VirtualLoop


class Clock:
    """The time of a virtual loop.

    When nothing on the loop can run, time jumps to the next timer. It stands still while jobs in executors work, until
    their results are on the loop, and inside `held()`. A clock serves one loop at a time; on the next one, time goes on
    from where it was.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._holders = 0
        self._lock = threading.Lock()
        self._loop: VirtualLoop | None = None

    def __repr__(self) -> str:
        return f"<Clock {self._now:g} s{', held' if self.is_held else ''}>"

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._now

    @property
    def is_held(self) -> bool:
        """Whether anybody is inside `held()`."""
        return self._holders > 0

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep time still inside the block: for real I/O, and for threads that the loop did not start.

        Works in any thread. While the clock is held, a loop that has nothing to run waits for the world outside, as a
        real one does.
        """
        self.hold()
        try:
            yield
        finally:
            self.release()

    def sleep(self, seconds: float) -> None:
        """Block this thread for `seconds` of virtual time: `time.sleep` for plain functions under test.

        For jobs of `run_in_executor` and `to_thread`, and for threads inside `held()`; time does not wait for them
        while they sleep.

        Raises:
            RuntimeError: called on the loop's own thread, or on one for which time does not wait.
        """
        loop = self._loop
        if loop is None or _is_running_here(loop):
            raise RuntimeError("clock.sleep() is for threads beside a running loop")
        awake: Future[None] = Future()
        loop.call_soon_threadsafe(loop.put_to_sleep, threading.current_thread(), seconds, awake)
        awake.result()

    def hold(self) -> None:
        """Keep time still until a `release()`; `held()` does both."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Undo one `hold()`, in any thread."""
        with self._lock:
            self._holders -= 1
        if self._loop is not None:
            self._loop.look_again()

    def attach(self, loop: "VirtualLoop") -> None:
        """Serve `loop`."""
        self._loop = loop

    def require_free(self) -> None:
        """Raise RuntimeError if the clock serves a loop that is not closed."""
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError(f"a clock serves one loop at a time, and {self!r} serves {self._loop!r}")

    def jump(self, when: float) -> None:
        """Let time pass until `when`; it never goes back."""
        self._now = max(self._now, when)


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
