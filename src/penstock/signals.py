"""Signals that end runs: the first one drains them, the second aborts them."""

import asyncio
import signal
import threading
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakKeyDictionary

from penstock.core import open_runs
from penstock.core.log import LOG

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def drain_on_signals() -> "DrainOnSignals":
    """Make the first SIGINT or SIGTERM drain the runs of the running loop, and the second abort them.

    Draining is `Run.stop`: nothing more is taken from the sources, what is in flight finishes and is delivered, and the
    runs end; a run that is opened later takes nothing. A second signal raises `KeyboardInterrupt` (SIGINT) or
    `SystemExit` with 128 + the signal's number out of the loop: work is then cancelled and awaited, as whenever a run
    is left (P4). This also works where the program was started with SIGINT ignored, as shells do with background jobs.

    It is in force from the call until the loop is closed; as a context manager, until its block is left. Then the
    handlers that were there before are back. Blocks may be nested, as in a library and the program that calls it: a
    signal is for all of them, and draining goes on until the last of them is left.

    Example:
        async def main():
            with penstock.drain_on_signals() as signals:
                async with pages.open() as items:
                    async for page in items:
                        await store(page)
            if signals.received:
                print("stopped early")

    Raises:
        RuntimeError: no loop is running; or the loop does not run in the main thread, the only one where signals
            arrive; or `loop.add_signal_handler` has set a handler for one of them, as some web servers do, which a loop
            cannot give back. Remove it first; or let it call `Run.stop`, without `drain_on_signals`.
    """
    return DrainOnSignals(asyncio.get_running_loop())


class DrainOnSignals:
    """The handlers of signals that `drain_on_signals` has set on a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handlers = _installed.get(loop) or _Handlers(loop)
        self._handlers.users += 1
        self._closed = False

    @property
    def received(self) -> signal.Signals | None:
        """The signal that drained the runs, or None."""
        return self._handlers.received

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Put back the handlers that were there before, unless other blocks still want these; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._handlers.users -= 1
        if not self._handlers.users:
            self._handlers.remove(self._loop)
            open_runs.end_draining(self._loop)


class _Handlers:
    """The handlers of one loop, for all blocks that want them; does not hold the loop, by which they are found."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("drain_on_signals() works on a loop in the main thread only")
        self.received: signal.Signals | None = None
        self.users = 0
        self._before = {each: _handler_to_put_back(each) for each in _SIGNALS}
        for each in _SIGNALS:
            loop.add_signal_handler(each, self._receive, each)
        _installed[loop] = self

    def remove(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put back the handlers that were there before."""
        del _installed[loop]
        for each, before in self._before.items():
            loop.remove_signal_handler(each)
            if before is not None:  # one that Python has not set cannot be put back
                signal.signal(each, before)

    def _receive(self, number: signal.Signals) -> None:
        if self.received is None:
            self.received = number
            LOG.warning("%s: what is in flight is finished; once more aborts", number.name)
            open_runs.drain(asyncio.get_running_loop())
            return
        LOG.warning("%s: aborted", number.name)
        raise KeyboardInterrupt if number is signal.SIGINT else SystemExit(128 + number)


_installed: "WeakKeyDictionary[asyncio.AbstractEventLoop, _Handlers]" = WeakKeyDictionary()


def _handler_to_put_back(number: signal.Signals) -> Any:
    """Return what Python calls at that signal; if a loop handles it, Python only knows that there is something."""
    handler: Any = signal.getsignal(number)
    owner = getattr(handler, "__self__", None)
    of_uvloop = isinstance(owner, asyncio.AbstractEventLoop) and not owner.is_closed()
    if of_uvloop or getattr(handler, "__module__", None) == "asyncio.unix_events":
        raise RuntimeError(
            f"{number.name} has a handler of loop.add_signal_handler(), which drain_on_signals() could not put back: "
            f"remove it before, by loop.remove_signal_handler({number.name}), or have it call run.stop() instead"
        )
    return handler
