"""The first signal drains, the second aborts."""

import asyncio
import signal
from types import TracebackType
from typing import Any, Self

from penstock.core import open_runs
from penstock.core.log import LOG


def drain_on_signals() -> "DrainOnSignals":
    """Have the first SIGINT or SIGTERM drain the runs of the running loop, and the second abort them.

    Draining is `Run.stop`: nothing more is taken from the sources, what is in flight finishes and is delivered, and the
    runs end; one that is opened later takes nothing. A second signal raises `KeyboardInterrupt` (SIGINT) or
    `SystemExit` with 128 + the signal's number out of the loop: work is then cancelled and awaited, as whenever a run
    is left (P4). Works where the program was started with SIGINT ignored, as shells do with background jobs.

    It is in force from the call on, until the loop is closed; as a context manager, until its block is left.

    Example:
        async def main():
            with penstock.drain_on_signals() as signals:
                async with pages.open() as items:
                    async for page in items:
                        await store(page)
            if signals.received:
                print("stopped early")

    Raises:
        RuntimeError: no loop is running, or it runs in another than the main thread, where signals do not arrive.
    """
    return DrainOnSignals(asyncio.get_running_loop())


class DrainOnSignals:
    """Handlers of signals on a loop, made by `drain_on_signals`.

    Attributes:
        received: the signal that made the runs drain, or None.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.received: signal.Signals | None = None
        self._loop = loop
        self._before: dict[signal.Signals, Any] = {}
        try:
            for each in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(each)
                loop.add_signal_handler(each, self._receive, each)
                self._before[each] = before
        except (ValueError, RuntimeError) as error:
            self.close()
            raise RuntimeError("drain_on_signals() works on a loop in the main thread only") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Put back the handlers that were there before; may be called twice."""
        for each, before in self._before.items():
            self._loop.remove_signal_handler(each)
            if before is not None:  # one that Python has not set cannot be put back
                signal.signal(each, before)
        self._before.clear()
        open_runs.end_draining(self._loop)

    def _receive(self, number: signal.Signals) -> None:
        if self.received is None:
            self.received = number
            LOG.warning("%s: what is in flight is finished; once more aborts", number.name)
            open_runs.drain(self._loop)
            return
        LOG.warning("%s: aborted", number.name)
        raise KeyboardInterrupt if number is signal.SIGINT else SystemExit(128 + number)
