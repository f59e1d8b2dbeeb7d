# ruff: noqa: PTH115 -- strings, and descriptors
"""Opens a file that a walk has found, and checks that it is still a regular file where it was found."""

import os
from collections.abc import Callable
from errno import EINVAL, ELOOP
from io import BufferedReader
from stat import S_ISREG

NOT_REGULAR = "no longer a regular file"
LEADS_OUT = "a link that leads out of its tree, not followed"

type Opener = Callable[[str, int], int]


def open_found(path: str, allows: Callable[[str], bool], opener: Opener = os.open) -> BufferedReader:
    """Open the file at `path` without waiting for a pipe; it may be a link to a place that `allows` accepts.

    The open file is asked where it is, so nobody can put a link there in between.

    Raises:
        OSError: it cannot be opened, is no regular file, or is elsewhere.
    """
    stream = open(path, "rb", opener=lambda name, flags: opener(name, flags | os.O_NONBLOCK | os.O_NOCTTY))  # noqa: SIM115 -- for the caller
    refusal = _refusal(stream.fileno(), path, allows)
    if refusal is None:
        return stream
    stream.close()
    raise refusal


def _refusal(descriptor: int, path: str, allows: Callable[[str], bool]) -> OSError | None:
    if not S_ISREG(os.fstat(descriptor).st_mode):
        return OSError(EINVAL, NOT_REGULAR)
    place = _place(descriptor, path)
    return None if place == path or allows(place) else OSError(ELOOP, LEADS_OUT)


def anywhere(_place: str) -> bool:
    """Accept every place."""
    return True


def _place(descriptor: int, path: str) -> str:
    """Return where an open file is; if the system does not tell, go by its path."""
    try:
        place = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return os.path.realpath(path)
    return place.removesuffix(" (deleted)") if os.fstat(descriptor).st_nlink == 0 else place
