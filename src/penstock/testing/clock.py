"""Virtual time: seconds that pass only when nothing can run."""

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager


class Clock:
    """The time of a virtual loop.

    When nothing on the loop can run, time jumps to the next timer, unless the clock is *held*: by a job in an executor,
    from its submission until its result is on the loop, or by `held()`. A clock serves one loop at a time; on the next
    one, time goes on from where it was.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._holders = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_release: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Clock {self._now:g} s{', held' if self.is_held else ''}>"

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._now

    @property
    def is_held(self) -> bool:
        """Whether time stands still even if nothing on the loop can run."""
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

        For jobs of `run_in_executor` and `to_thread`, and for threads inside `held()`. What they hold is let go until
        they wake.

        Raises:
            RuntimeError: called on the loop's own thread, or while nothing holds the clock.
        """
        loop = self._loop
        if loop is None or not self.is_held or _is_running_here(loop):
            raise RuntimeError("clock.sleep() is for threads that hold the clock: executor jobs and blocks of held()")
        awake = threading.Event()

        def doze() -> None:
            loop.call_later(seconds, wake)
            self.release()

        def wake() -> None:
            self.hold()
            awake.set()

        loop.call_soon_threadsafe(doze)
        awake.wait()

    def hold(self) -> None:
        """Keep time still until a `release()`; `held()` does both."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Undo one `hold()`, in any thread."""
        with self._lock:
            self._holders -= 1
        if self._on_release is not None:
            self._on_release()

    def attach(self, loop: asyncio.AbstractEventLoop, on_release: Callable[[], None]) -> None:
        """Serve `loop`, which wants `on_release` called after every release."""
        self._loop, self._on_release = loop, on_release

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
