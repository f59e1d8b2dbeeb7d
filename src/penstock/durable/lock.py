"""One writer at a time: a lock that the kernel releases when its holder dies."""

import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from time import sleep
from typing import Final

from penstock.core.errors import PenstockError

_TRIES: Final = 10
_BETWEEN_S: Final = 0.005
"""How often the lock is asked for, since `holder` takes it for a moment to see whether it is free."""

_held: set[int] = set()
"""The descriptors of the locks that this process holds."""

_spoken_for: list[str] = []
"""Whom this process writes for, if not for itself."""


class HeldError(PenstockError):
    """Another process holds the lock; the message says which."""


@contextmanager
def exclusive(target: str) -> Generator[None]:
    """Hold `target`'s lock, the file `target.lock` beside it, which stays there: removing it would let two hold it.

    Raises:
        HeldError: another process holds it, or this one does already.
        OSError: the file cannot be written.
    """
    descriptor = os.open(_lock_of(target), os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        if not _taken(descriptor, fcntl.LOCK_EX, _TRIES):
            who, _, since = _written(descriptor).partition(", ")
            raise HeldError(f"{target}: {who} is writing to it{since and f', {since}'}")
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{owner()}, since {datetime.now():%Y-%m-%d %H:%M:%S}\n".encode(), 0)  # noqa: DTZ005 -- for people, who live in local time
        yield
    finally:
        if descriptor in _held:  # in a forked child it is closed already
            _held.discard(descriptor)
            os.close(descriptor)


def holder(target: str) -> str | None:
    """Who holds `target`'s lock, and since when; None if nobody does, or it cannot be seen."""
    try:
        descriptor = os.open(_lock_of(target), os.O_RDONLY)
    except OSError:
        return None
    try:
        return None if _taken(descriptor, fcntl.LOCK_SH, 1) else _written(descriptor)
    finally:
        os.close(descriptor)


def owner() -> str:
    """Who this is."""
    return _spoken_for[-1] if _spoken_for else f"process {os.getpid()} on {socket.gethostname()}"


def write_for(parent: str) -> None:
    """Be `parent`, its `owner()`, to all who ask: a child that does a part of its run."""
    _spoken_for.append(parent)


def _lock_of(target: str) -> str:
    """The file beside the one that `target` leads to: one lock, whatever links lead there."""
    return f"{os.path.realpath(target)}.lock"


def _taken(descriptor: int, kind: int, tries: int) -> bool:
    for left in reversed(range(tries)):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                sleep(_BETWEEN_S)
        else:
            return True
    return False


def _written(descriptor: int) -> str:
    return os.pread(descriptor, 512, 0).decode("utf-8", "replace").strip() or "another process"


def _let_go() -> None:
    """Close the locks' descriptors: `flock` is shared with a forked child, which would hold it after its parent."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
