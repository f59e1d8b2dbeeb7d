"""Messages between two processes over a socket: a few numbers, an envelope, and large buffers that nothing copies.

Both ends read and write by file descriptor, with `readv` and `writev`: the worker need not import `socket`.
"""

import marshal
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from struct import Struct
from sys import getrefcount
from typing import Any, Final, NamedTuple

HELLO: Final = 1
READY: Final = 2
FAILED: Final = 3
RUN: Final = 4
PART: Final = 5
DONE: Final = 6

PLACE: Final = Struct("<II")
"""The envelope of a part: which call it is of, and what it is. Its last buffer is the outcome itself."""

_HEAD: Final = Struct("<BxxxIQQ")
_READ_ONLY: Final = 1 << 63
_SMALL: Final = 1 << 14
_SCRATCH: Final = 1 << 16
_WRITES: Final = 32
_WORTH_KEEPING: Final = 1 << 20
_ONLY_HERE: Final = 2
"""References to a buffer that only a list has, as it is asked for them."""
_AT_ONCE: Final = 64
"""Buffers for one system call; it takes 1,024 at most."""

type Buffer = bytes | bytearray | memoryview

type WireCall = tuple[int, int | None, bytes | tuple[Any, ...] | None, int]
"""A call: the number of its function, `Call.most`, its arguments and how many buffers it has.

The arguments are pickled, alone: what two calls refer to is two there. Plain ones are as they are; None: a buffer.
"""

type WireGroup = tuple[list[tuple[int, bytes]], list[int], list[WireCall]]
"""The envelope of a group: functions that come with it, numbers of those that nobody needs any more, its calls."""

type Outcomes = tuple[list[float], list[Any]]
"""The envelope of the end of a group, if all outcomes are plain values: seconds and values. They are on the page, too,
each since its call was over; one by one they take five times as long to read."""

type Hello = tuple[list[str], tuple[str, str] | None, bytes | None]
"""The first envelope: `sys.argv`, where the main module comes from, the initializer."""


WITHOUT_INTERNING: Final = 2
"""A format of `marshal`: with later ones a process would keep strings that another has interned, on 3.12 for ever."""


def packed(value: Any) -> bytes:
    """Return the bytes of plain values, or of lists of these: in a quarter of the time of a pickle."""
    return marshal.dumps(value, WITHOUT_INTERNING)


def unpacked(data: Buffer) -> Any:
    """Return them again."""
    return marshal.loads(data)  # noqa: S302 -- of a process of ours


class Message(NamedTuple):
    """A message that has come in.

    Attributes:
        kind: one of the numbers above.
        number: of the group of calls that it is about.
        envelope: what the kind says.
        buffers: large ones, in the order in which they were sent: `bytes` if they were read-only, else `bytearray`.
    """

    kind: int
    number: int
    envelope: bytes | bytearray
    buffers: list[bytes | bytearray]


def message(kind: int, number: int = 0, envelope: bytes = b"", buffers: Iterable[memoryview] = ()) -> list[Buffer]:
    """Return the bytes of a message, in pieces, without a copy of what is large."""
    views = list(buffers)
    sizes = b"".join((view.nbytes | (_READ_ONLY if view.readonly else 0)).to_bytes(8, "little") for view in views)
    head = _HEAD.pack(kind, len(views), number, len(envelope)) + sizes
    pieces: list[Buffer] = [head + envelope] if len(envelope) < _SMALL else [head, envelope]
    return [*pieces, *(view for view in views if view.nbytes)]


class Outbox:
    """Pieces that are to be written, and what of them is not yet."""

    def __init__(self) -> None:
        self._pieces: deque[Buffer] = deque()

    def put(self, pieces: Iterable[Buffer]) -> None:
        """Write these after all others."""
        self._pieces.extend(pieces)

    def flush(self, fd: int) -> bool:
        """Write what the socket takes, at most `_WRITES` times (P9); return whether all is written.

        Raises:
            OSError: nobody is at the other end.
        """
        pieces = self._pieces
        for _ in range(_WRITES):
            if not pieces:
                return True
            some: Sequence[Buffer] = [pieces[n] for n in range(min(len(pieces), _AT_ONCE))]
            try:
                written = os.writev(fd, some)
            except BlockingIOError:
                return False
            for piece in some:
                if written < len(piece):
                    pieces[0] = memoryview(piece)[written:]
                    break
                written -= len(piece)
                pieces.popleft()
        return not pieces


class Spare:
    """Large buffers that were filled before: memory that is new has to be cleared, which takes as long as to fill it.

    It keeps up to `most` bytes. A buffer to which nobody else refers is free again: whoever sees its memory has it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """Return a buffer of that size."""
        kept = self._kept
        for n in range(len(kept)):
            if len(kept[n]) == size and getrefcount(kept[n]) == _ONLY_HERE:
                return kept[n]
        buffer = bytearray(size)
        if _WORTH_KEEPING <= size <= self._most:
            kept.append(buffer)
            while sum(map(len, kept)) > self._most:
                del kept[0]
        return buffer


class Inbox:
    """Puts messages together as their bytes come in; large buffers are read straight to where they stay.

    `on_head(kind, number)` is called when the head of a message is taken, which may be long before the rest is there.
    """

    def __init__(self, spare: Spare, on_head: Callable[[int, int], object] | None = None) -> None:
        self._spare = spare
        self._on_head = on_head
        self._scratch = bytearray(_SCRATCH)
        self._start = self._end = 0
        self._head: tuple[int, int] | None = None
        self._parts: list[bytearray | BytesIO] = []
        self._unfilled: deque[memoryview] = deque()

    def read(self, fd: int) -> bool:
        """Read once, after `take` has returned None; return whether there may be more at once.

        Raises:
            EOFError: nobody is at the other end.
        """
        unfilled = self._unfilled
        wanted = [unfilled[n] for n in range(min(len(unfilled), _AT_ONCE))]
        if len(wanted) == len(unfilled):
            wanted.append(memoryview(self._scratch)[self._end :])
        try:
            count = os.readv(fd, wanted)
        except BlockingIOError:
            return False
        except OSError as error:
            raise EOFError from error
        if not count:
            raise EOFError
        full = count == sum(map(len, wanted))
        while unfilled and count >= len(unfilled[0]):
            count -= len(unfilled.popleft())
        if unfilled:
            unfilled[0] = unfilled[0][count:]
        else:
            self._end += count
        return full

    def take(self) -> Message | None:
        """Return the next message, or None until all of it is there."""
        if self._head is None and not self._begin():
            return None
        unfilled = self._unfilled
        while unfilled and self._start < self._end:
            target = unfilled[0]
            count = min(len(target), self._end - self._start)
            target[:count] = memoryview(self._scratch)[self._start : self._start + count]
            self._start += count
            if count == len(target):
                unfilled.popleft()
            else:
                unfilled[0] = target[count:]
        if unfilled:
            self._start = self._end = 0
            return None
        assert self._head is not None
        envelope, *buffers = (part.getvalue() if isinstance(part, BytesIO) else part for part in self._parts)
        found = Message(*self._head, envelope, buffers)
        self._head, self._parts = None, []
        return found

    def _begin(self) -> bool:
        """Take the head of the next message; return False until all of it is there."""
        there = self._end - self._start
        if there < _HEAD.size:
            return self._wait(_HEAD.size)
        kind, count, number, size = _HEAD.unpack_from(self._scratch, self._start)
        whole = _HEAD.size + 8 * count
        if there < whole:
            return self._wait(whole)
        sizes = memoryview(self._scratch)[self._start + _HEAD.size : self._start + whole]
        self._parts = [bytearray(size)]
        for n in range(count):
            length = int.from_bytes(sizes[8 * n : 8 * n + 8], "little")
            self._parts.append(BytesIO(bytes(length ^ _READ_ONLY)) if length & _READ_ONLY else self._spare.take(length))
        views = (part.getbuffer() if isinstance(part, BytesIO) else memoryview(part) for part in self._parts)
        self._unfilled.extend(view for view in views if len(view))
        self._start += whole
        self._head = kind, number
        if self._on_head is not None:
            self._on_head(kind, number)
        return True

    def _wait(self, size: int) -> bool:
        """Make room for a head of that size."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + size > len(self._scratch):
            rest = self._scratch[self._start : self._end]
            self._scratch = bytearray(max(_SCRATCH, size))
            self._scratch[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return False
