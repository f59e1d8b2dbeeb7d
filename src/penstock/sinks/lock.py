"""One writer at a time: a lock that the kernel releases when its holder dies."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager

from penstock.core.errors import PenstockError


class HeldError(PenstockError):
    """Another process holds the lock; the message says which."""


@contextmanager
def exclusive(target: str) -> Generator[None]:
    """Hold `target`'s lock, the file `target.lock` beside it, which stays there: removing it would let two hold it."""
    descriptor = os.open(f"{target}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise HeldError(f"{target}: process {holder} is writing to it") from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
