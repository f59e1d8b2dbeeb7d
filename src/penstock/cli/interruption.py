"""Ends a command at signals: in order at the first, at once at the second."""

import os
import signal
import warnings
from collections.abc import Callable
from typing import Protocol

from penstock.cli.failing import complain, ended_by
from penstock.core.errors import UnstoppedWorkWarning


class SaysAndCloses(Protocol):
    """What shows how a command goes."""

    def say(self, text: str, /) -> None:
        """Print a line."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Interruption:
    """Ends the work at the first signal; exits at the second, as a kill would, which loses nothing.

    Args:
        end: ends the work in order; called on the loop.
        meanwhile: what becomes of it then, and of the second signal: "what runs is cancelled; {} again ends at once".
        at_once: what to say at the second.
    """

    def __init__(self, end: Callable[[], None], meanwhile: str, at_once: str) -> None:
        self.display: SaysAndCloses | None = None
        self.received: signal.Signals | None = None
        self._end = end
        self._meanwhile = meanwhile
        self._at_once = at_once

    def __call__(self, number: signal.Signals) -> None:
        """Receive a signal."""
        if self.received is not None:
            if self.display is not None:
                self.display.close()
            complain(self._at_once)
            os._exit(ended_by(number))
        self.received = number
        warnings.simplefilter("ignore", UnstoppedWorkWarning)  # what is left behind ends with the process
        self._end()
        if self.display is not None:
            again = "Ctrl-C" if number is signal.SIGINT else number.name
            self.display.say(f"stopping: {self._meanwhile.format(again)}")
