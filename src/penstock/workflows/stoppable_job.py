"""What jobs over one durable run have in common: they can be ended early, in order."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from penstock.durable.handle import DurableRun

GRACE: Final = 3.0
"""Seconds for what is in flight when a job is stopped."""


class StoppableJob:
    """A job over one durable run, which is there once the sink was opened."""

    def __init__(self) -> None:
        self._durable: DurableRun | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._stopped: bool = False

    @property
    def opened(self) -> bool:
        """Whether the sink was opened: then there is something to report, also after an error."""
        return self._durable is not None

    def stop(self, grace: float = GRACE) -> None:
        """Finish and store what is in flight, take nothing more; then `run` returns. Call it on the loop of the run.

        What takes more than `grace` seconds is given up; the next run does it again.
        """
        self._stopped = True
        if self._durable is not None and self._giving_up is None:
            self._durable.stop()
            self._giving_up = asyncio.get_running_loop().call_later(grace, self._give_up, self._durable)

    def _give_up(self, durable: DurableRun) -> None:
        """Cancel what is in flight."""
        durable.abort()

    async def _finish(self, run: DurableRun, within: AbstractContextManager[object] | None = None) -> None:
        """Open the durable run and bring it to its end."""
        try:
            async with run as self._durable:
                if self._stopped:
                    run.stop()
                with within or nullcontext():
                    await run.finish()
        finally:
            if self._giving_up is not None:
                self._giving_up.cancel()
