"""Turns errors into one line for the terminal, and an exit code."""

import os
import re
import signal
import sys
from collections.abc import Callable

from penstock.core.errors import OptionError, PenstockError
from penstock.core.text import one_line

DONE, SOME_FAILED, BAD_USAGE, NOT_DONE, AT_A_BUDGET = 0, 1, 2, 3, 4


def ended_by(number: signal.Signals) -> int:
    """Return the exit code that shells give to a command that this signal has ended."""
    return 128 + number


_OPTIONS = {
    "target": "--to",
    "to": "--to",
    "run_name": "--run",
    "function": "MODULE:FUNCTION",
    "prompt": "PROMPT",
    "attempts": "--retry",
    "k": "-k",
    "paths": "PATH",
    "path": "URLS",
    "headers": "--header",
    "sizes": "--size",
    "index": "INDEX",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            "glob",
            "exclude",
            "concurrency",
            "engine",
            "on_error",
            "on_duplicate",
            "key",
            "max_file_size",
            "embedder",
            "model",
            "base_url",
            "per_host",
            "rate",
            "retry",
            "timeout",
            "max_bytes",
            "max_redirects",
            "max_pixels",
            "over",
            "query",
            "table",
            "limit",
            "memo",
            "schema",
            "asks",
            "tokens",
            "max_answer",
            "price",
            "max_cost",
            "max_tokens",
            "deadline",
        )
    },
}
_OPTION = re.compile(rf"(?:^|(?<=the option ))({'|'.join(_OPTIONS)})(?= |,)")
_GIVEN = re.compile(rf'\b({"|".join(_OPTIONS)})="(\w+)"')
_QUOTED = re.compile(rf"`({'|'.join(_OPTIONS)})`")


def spelled(error: PenstockError, **others: str) -> str:
    """Write the error with the options as they are on the command line; `others` are spelled as this command does."""
    names = _OPTIONS | others
    rule, got, value = str(error).partition(", got ")
    rule = _GIVEN.sub(lambda found: f"{names[found[1]]} {found[2]}", rule)
    rule = _QUOTED.sub(lambda found: names[found[1]], rule)
    return _OPTION.sub(lambda found: names[found[1]], rule) + got + value


def complain(message: object) -> None:
    """Print one line to stderr."""
    print(f"penstock: {one_line(str(message))}", file=sys.stderr)  # noqa: T201 -- this is what it is for


def code_of(error: BaseException) -> int:
    """Return the exit code: ask for something else, or for the same again when the server, disk or process allows it.

    Behind an error of the store is what SQLite or the system has refused. If nothing is, the wrong place was named, or
    what is there is damaged.
    """
    if isinstance(error, OptionError):
        return BAD_USAGE
    from apsw import NotADBError  # noqa: PLC0415 -- an extra, which a command has by now

    from penstock.durable.store_errors import DamageError, StoreError  # noqa: PLC0415 -- as above
    from penstock.sources.walking import PathError  # noqa: PLC0415 -- only for errors

    refused = isinstance(error, DamageError) or not isinstance(error.__cause__, NotADBError | NotADirectoryError | None)
    return BAD_USAGE if isinstance(error, PathError) or (isinstance(error, StoreError) and not refused) else NOT_DONE


def guarded(command: Callable[[], int], **others: str) -> int:
    """Run the command and return its exit code; an error becomes one line and a code that says whose fault it is.

    `others` are options that this command spells in its own way.
    """
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
        complain(spelled(error, **others) if isinstance(error, OptionError) else error)
        return code_of(error)
    except KeyboardInterrupt:
        complain("interrupted")
        return ended_by(signal.SIGINT)
    return BAD_USAGE
