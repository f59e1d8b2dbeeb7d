"""The page that a worker shares with the driver: what it runs, since when, and what the calls before came to.

High-level idea: a worker that dies or hangs can send nothing any more, its page still tells. It has two halves, each
for every other group of calls, as one may run while the next one is on its way. Small outcomes travel in it alone.

Each side writes a word and then looks at one of the other: `STOP` after `BEGUN`, `BEGUN` after `STOP`. With a `fence`
between, one of them sees the other (Dekker): what the driver has stopped and does not see begun will never begin.
"""

import mmap
from _thread import allocate_lock
from collections.abc import Callable
from struct import Struct
from typing import Final

BEGUN: Final = 0
"""A word: calls that have begun; more than are finished: one runs."""
FINISHED: Final = 1
"""A word: calls that are over, with their records."""
STOP: Final = 2
"""A word, the driver's: 0, or one more than the calls of the group that may begin."""
SINCE: Final = 3
"""When the call that runs began, by `time.monotonic`."""

AREA: Final = 1 << 17
"""Bytes of a half."""
SIZE: Final = 2 * AREA
"""Bytes of a page."""

MOST_CALLS: Final = 1 << 11
"""Calls that a group can have: each has room for a record without data."""
_FIRST: Final = 64
_RECORD: Final = Struct("<dII")
_RECORD_SIZE: Final = _RECORD.size
_pack = _RECORD.pack
_DATA_ENDS: Final = AREA - MOST_CALLS * _RECORD.size

_SHORT: Final = 1 << 14
"""Bytes of records that are worth sending again, together."""

VALUE: Final = 0
ERROR: Final = 1
UNPICKLABLE: Final = 2
UNREADABLE: Final = 3
UNSENT: Final = 4
BY_PIPE: Final = 5
PLAIN: Final = 6
"""What a record is: see `worker`."""

_LOCK: Final = allocate_lock()


def fence(acquire: Callable[[], object] = _LOCK.acquire, release: Callable[[], None] = _LOCK.release) -> None:
    """Order memory: others see what was written before this call before anything after it is read."""
    acquire()
    release()


class Area:
    """One half of a page."""

    def __init__(self, view: memoryview) -> None:
        self.bytes: memoryview = view
        self.words: memoryview[int] = view.cast("Q")
        self.times: memoryview[float] = view.cast("d")
        self._end = _FIRST

    def rewind(self) -> None:
        """Start again at the first record, for another group."""
        self._end = _FIRST

    def reset(self) -> None:
        """Forget the last group. The driver does so before it sends the next one."""
        self.rewind()
        self.words[BEGUN] = self.words[FINISHED] = self.words[STOP] = 0

    def put(self, seconds: float, kind: int, data: bytes = b"") -> bool:
        """Record the outcome of the next call. The worker does so. Return False if there is no room for the data."""
        start, length = self._end, len(data)
        end = start + _RECORD_SIZE + length
        if end > _DATA_ENDS and length:
            return False
        self.bytes[start:end] = _pack(seconds, kind, length) + data
        self._end = end
        self.words[FINISHED] += 1
        return True

    def is_short_with(self, records: int) -> bool:
        """Return whether so many records are all that there are, and small."""
        return self.words[FINISHED] == records and self._end <= _SHORT

    def next(self) -> tuple[float, int, memoryview]:
        """Return seconds, kind and data of the next unread record, once `FINISHED` says that there is one."""
        start = self._end + _RECORD.size
        seconds, kind, length = _RECORD.unpack_from(self.bytes, self._end)
        self._end = start + length
        return seconds, kind, self.bytes[start : start + length]

    def put_back(self) -> None:
        """Make the last record, which has no data, the next one again."""
        self._end -= _RECORD.size

    def stop(self) -> bool:
        """Let no other call begin; return whether one has begun."""
        self.words[STOP] = 1
        fence()
        return self.words[BEGUN] > 0

    def keep(self) -> int:
        """Let the call that has begun go on, though it may still be on its way; return how many have begun."""
        begun = self.words[BEGUN]
        self.words[STOP] = begun + 1
        return begun


class SharedPage:
    """Both halves: group `n` has the half `n % 2`."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, SIZE)
        whole = memoryview(self._map)
        self.areas: tuple[Area, Area] = Area(whole[:AREA]), Area(whole[AREA:])
