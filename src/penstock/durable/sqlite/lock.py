"""One writer at a time: a lock that the kernel releases when its holder dies."""

import fcntl
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from time import sleep
from typing import Final

from penstock.durable.owner import owner
from penstock.durable.store_errors import HeldError, StoreError

_TRIES: Final = 10
_BETWEEN_S: Final = 0.005
"""Seconds between two attempts to get the lock: `holder` takes it for a moment to see whether it is free."""

_OURS: Final = re.compile(rb"(process \d+ on [^\n]*, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n?(reached( \d+)+\n)?)?\Z")
"""The content of a lock: who holds it, or held it last; nothing if its maker was killed before it could write.

A second line says how far a run had come when it was last noted: see `Reached`.
"""

_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LENGTH: Final = 1024

_held: set[int] = set()
"""The descriptors of the locks that this process holds."""

_places: dict[str, tuple[int, int]] = {}
"""For each file whose lock is held: the descriptor of the lock, and where its second line begins."""


@contextmanager
def exclusive(target: str, lock: str | None = None) -> Generator[str]:
    """Hold `target`'s lock, the file `target.lock` beside it; it stays there, as removing it would let two hold it.

    Gives the file that `target` leads to. Another file can be its `lock`.

    Raises:
        HeldError: another process holds it, or this one does already.
        StoreError: the file cannot be written; or it is no lock, but a link or somebody else's file, and is left alone.
    """
    real = os.path.realpath(target)
    with _named(target):
        descriptor = _opened(target, lock or f"{real}.lock", os.O_RDWR | os.O_CREAT)
    _held.add(descriptor)
    try:
        if not _taken(descriptor, fcntl.LOCK_EX, _TRIES):
            who, _, since = _written(descriptor).partition(", ")
            raise HeldError(f"{target}: {who} is writing to it{since and f', {since}'}")
        said = f"{owner()}, since {datetime.now():%Y-%m-%d %H:%M:%S}\n".encode()  # noqa: DTZ005 -- for people, who live in local time
        with _named(target):
            _, _, reached = os.pread(descriptor, _LENGTH, 0).partition(b"\n")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, said + reached, 0)
        _places[real] = descriptor, len(said)
        yield real
    finally:
        if _places.get(real, (None,))[0] == descriptor:
            del _places[real]
        if descriptor in _held:  # in a forked child it is closed already
            _held.discard(descriptor)
            os.close(descriptor)


def holder(target: str, lock: str | None = None) -> str | None:
    """Return who holds `target`'s lock, and since when; None if nobody does, or it cannot be seen."""
    try:
        descriptor = _opened(target, lock or _lock_of(target), os.O_RDONLY)
    except (OSError, StoreError):
        return None
    try:
        return None if _taken(descriptor, fcntl.LOCK_SH, 1) else _written(descriptor)
    finally:
        os.close(descriptor)


class Reached:
    """How far a run has come in its sources, noted in the lock of its database, where that costs next to nothing.

    What is written to a file outlives its process, also `kill -9`; in a transaction it would cost a commit for each
    root.
    """

    def __init__(self, target: str, run: int, opening: int) -> None:
        self._descriptor, self._place = _places.get(os.path.realpath(target), (-1, 0))
        self._reached: list[int] = []
        self._is_first = True
        self._begin = f"reached {run} {opening}"

    def reach(self, source: int, position: int) -> int:
        """Note that the items of a source before `position`, or some more, are begun; return how many are noted."""
        self._reached += [0] * (source + 1 - len(self._reached))
        number = self._reached[source] = position + 1 + position // 256
        if self._descriptor >= 0 and source < _SOURCES:
            text = " ".join([self._begin, *(f"{each:015}" for each in self._reached[:_SOURCES])])
            try:
                if self._is_first:  # what the run before has said may be longer
                    os.ftruncate(self._descriptor, self._place)
                    self._is_first = False
                os.pwrite(self._descriptor, f"{text}\n".encode(), self._place)
            except OSError:  # it is not known then
                self._descriptor = -1
        return number


_SOURCES: Final = 30


def reached(target: str) -> list[int]:
    """Return what the held lock says of its last holder: the run, its opening, and how many items of each source."""
    descriptor, place = _places.get(os.path.realpath(target), (-1, 0))
    if descriptor < 0:
        return []
    return [int(number) for number in os.pread(descriptor, _LENGTH, place).split()[1:]]


def _lock_of(target: str) -> str:
    """Return the file beside the one that `target` leads to: one lock, whatever links lead there."""
    return f"{os.path.realpath(target)}.lock"


def _opened(target: str, lock: str, flags: int) -> int:
    """Open the lock. Before it is known to be a lock, nothing is written to it, nor read from a pipe or a device."""
    with suppress(FileNotFoundError):
        _refuse_what_is_none(target, lock, os.lstat(lock))
    descriptor = os.open(lock, flags | _FLAGS, 0o666)
    try:
        _refuse_what_is_none(target, lock, os.fstat(descriptor), os.pread(descriptor, _LENGTH + 1, 0))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _refuse_what_is_none(target: str, lock: str, found: os.stat_result, content: bytes = b"") -> None:
    is_regular = stat.S_ISREG(found.st_mode)
    if stat.S_ISLNK(found.st_mode) or (is_regular and found.st_nlink > 1):
        what = "a link"
    elif not is_regular:
        what = "not a regular file"
    elif not _OURS.match(content):
        what = "the file of somebody else"
    else:
        return
    raise StoreError(f"{target}: {lock} would be its lock, but is {what}: choose another name")


@contextmanager
def _named(target: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {(error.strerror or str(error)).lower()}") from error


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
    said, _, _ = os.pread(descriptor, _LENGTH, 0).decode("utf-8", "replace").partition("\n")
    return said.strip() or "another process"


def _let_go() -> None:
    """Close the descriptors of locks: a forked child shares `flock`, and would hold it after its parent."""
    _places.clear()
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)
