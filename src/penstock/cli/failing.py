"""Errors as a reader of a terminal wants them: one line, and an exit code."""

import sys
from collections.abc import Callable

from penstock.cli.text import shown
from penstock.core.errors import PenstockError

DONE, SOME_FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


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
    except (PenstockError, OSError) as error:
        complain(error)
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    return BAD_USAGE
