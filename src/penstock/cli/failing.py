"""Errors as a reader of a terminal wants them: one line, and an exit code."""

import os
import signal
import sys
from collections.abc import Callable

from penstock.cli.text import shown
from penstock.core.errors import PenstockError

DONE, SOME_FAILED, BAD_USAGE = 0, 1, 2


def ended_by(number: signal.Signals) -> int:
    """What a shell says of a command that this signal has ended."""
    return 128 + number


def complain(message: object) -> None:
    """One line to stderr."""
    print(f"penstock: {shown(str(message))}", file=sys.stderr)  # noqa: T201 -- this is what it is for


def guarded(command: Callable[[], int]) -> int:
    """The command's exit code; what it raises becomes one line and the code for bad usage."""
    try:
        return command()
    except ModuleNotFoundError as error:
        if "pip install" not in str(error):
            raise
        complain(error)
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed goes there
        return ended_by(signal.SIGPIPE)
    except (PenstockError, OSError) as error:
        complain(error)
    except KeyboardInterrupt:
        complain("interrupted")
        return ended_by(signal.SIGINT)
    return BAD_USAGE
