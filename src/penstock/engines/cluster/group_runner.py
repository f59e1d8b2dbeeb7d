"""Makes the calls of groups in a worker of a cluster; crosses by value, since penstock need not be installed there.

High-level idea: a worker is asked one thing at a time. Calls run in a thread; what asks for a group comes back when all
are over, or after a while with those that are. From then on no further call is begun, and the one that runs is asked
for by `rest`. So the driver knows which call is slow, and a slow one holds up no other (P2).
"""

import marshal
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pickle import PickleBuffer, dumps
from queue import SimpleQueue
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Final, cast

from penstock.engines.process.crossing import LARGE, Crossing, are_plain, is_plain, loads, type_name, why
from penstock.engines.process.remote_errors import packed
from penstock.engines.read_results import read

VALUE: Final = 0
ERROR: Final = 1
NOT_LOADED: Final = 2
NOT_PICKLED: Final = 3

type Parts = tuple[Any, list[tuple[Any, bool]] | None]
"""A pickle, and its large buffers, each with whether it is read-only; what is large goes beside it.

None: no pickle, but the value; it is plain, or a tuple of what is.
"""

type RemoteCall = tuple[int, int | None, Parts]
"""A call: the number of its function, `Call.most`, its arguments."""

type RemoteAnswer = tuple[float, int, Parts]
"""What a call has taken, what its outcome is, and that."""

type Sealed = bytes | tuple[bytes, Sequence[Any]]
"""Something of ours in a pickle, and the large buffers in it."""

type Report = tuple[list[RemoteAnswer], bool, float]
"""New answers, whether the group is over, and seconds since the call that runs began."""


def parts(crossing: Crossing, value: Any) -> Parts:
    """The value, pickled.

    Raises:
        Exception: it cannot be pickled.
    """
    if is_plain(value) or (type(value) is tuple and are_plain(cast("tuple[Any, ...]", value))):
        return value, None  # pyright: ignore[reportUnknownVariableType] -- a cast would cost a call
    views: list[memoryview] = []
    return beside(crossing.dumps(value, views), views)


def beside(data: bytes, views: Sequence[memoryview] = ()) -> Parts:
    """A pickle and its buffers, none of which is copied by who sends them."""
    large = PickleBuffer(data) if len(data) >= LARGE else data
    return large, [(PickleBuffer(view), view.readonly) for view in views]


def whole(sent: Parts) -> Any:
    """The value again, with buffers of its own: those that were sent may be in memory that is shared.

    Raises:
        Exception: it cannot be loaded here.
    """
    data, buffers = sent
    if buffers is None:
        return data
    return loads(data, [bytes(view) if fixed else bytearray(view) for view, fixed in buffers])


def sealed(value: Any) -> Sealed:
    """A value of ours in one piece, but for large buffers: a library would look at each of its parts."""
    buffers: list[PickleBuffer] = []
    data = dumps(value, 5, buffer_callback=buffers.append)
    return (data, buffers) if buffers else data


def sealed_plainly(value: Any) -> bytes:
    """The same of a value that has plain ones only: in a quarter of the time."""
    return marshal.dumps(value, _WITHOUT_INTERNING)


def opened(sent: Sealed) -> Any:
    """The value again."""
    if not isinstance(sent, bytes):
        return loads(*sent)
    return loads(sent) if sent[:1] == _PICKLED else marshal.loads(sent)  # noqa: S302 -- of a process of ours


_PICKLED: Final = b"\x80"
"""How a pickle begins; what `marshal` writes does not."""

_WITHOUT_INTERNING: Final = 2
"""A format of `marshal`: with later ones a process would keep strings that another has interned, on 3.12 for ever."""


class GroupRunner:
    """What runs in a worker. `path` is where the driver finds modules."""

    def __init__(self, path: Iterable[str]) -> None:
        sys.path.extend(place for place in path if place not in sys.path and os.path.isdir(place))  # noqa: PTH112 -- by value, the less the better
        self._crossing = Crossing(main_is_there=False)
        self._functions: dict[int, Any] = {}
        self._groups: SimpleQueue[Sequence[RemoteCall] | None] = SimpleQueue()
        self._lock = Lock()
        self._over = Event()
        self._answers: list[RemoteAnswer] = []
        self._told = self._end = 0
        self._since = 0.0
        self._is_fork = False
        os.register_at_fork(after_in_child=self._note_fork)
        Thread(target=self._work, daemon=True, name="penstock calls").start()

    def ready(self) -> int:
        """Say that it is there: its process."""
        return os.getpid()

    def run(self, sent: Sealed) -> Sealed:
        """Make calls, one after the other, and wait so many seconds for them.

        New functions come with them, and numbers of those that come no more.
        """
        new: Sequence[tuple[int, bytes]]
        dropped: Sequence[int]
        calls: Sequence[RemoteCall]
        patience: float
        new, dropped, calls, patience = opened(sent)
        for number in dropped:
            self._functions.pop(number, None)
        for number, pickled in new:
            self._functions[number] = pickled
        self._answers = []
        self._told, self._end = 0, len(calls)
        self._since = monotonic()
        self._over.clear()
        self._groups.put(calls)
        self._over.wait(patience)
        return self._report()

    def rest(self) -> Sealed:
        """Wait for the call that runs."""
        self._over.wait()
        return self._report()

    def busy(self) -> bool:
        """Whether a call runs, or is about to."""
        return self._end > 0 and not self._over.is_set()

    def end(self) -> None:
        """End its thread, when the call that runs is over."""
        self._groups.put(None)

    def _report(self) -> Sealed:
        with self._lock:
            over = self._over.is_set()
            if not over:
                self._end = min(self._end, len(self._answers) + 1)
            new = self._answers[self._told :]
            self._told += len(new)
            report: Report = new, over, monotonic() - self._since
        return sealed_plainly(report) if all(parts[1] is None for _, _, parts in new) else sealed(report)

    def _work(self) -> None:
        while (calls := self._groups.get()) is not None:
            for index, call in enumerate(calls):
                with self._lock:
                    if index >= self._end:
                        break
                    self._since = began = monotonic()
                kind, outcome = self._call(*call)
                with self._lock:
                    self._answers.append((monotonic() - began, kind, outcome))
                del call, outcome
            del calls
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            self._over.set()

    def _call(self, number: int, most: int | None, sent: Parts) -> tuple[int, Parts]:
        fn: Any = self._functions.get(number)
        if isinstance(fn, bytes):
            try:
                fn = self._functions[number] = loads(fn)
            except BaseException as error:  # noqa: BLE001 -- modules of the user's are imported here
                return NOT_LOADED, beside(f"fn\n{why(error)}".encode(errors="replace"))
        try:
            arguments = whole(sent)
        except BaseException as error:  # noqa: BLE001 -- classes of the user's are made here
            return NOT_LOADED, beside(f"argument\n{why(error)}".encode(errors="replace"))
        try:
            value = fn(*arguments)
            if most is not None:
                value = read(value, most)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            if self._is_fork:
                os._exit(1)
            return ERROR, beside(packed(error, self._crossing))
        if self._is_fork:  # a child that a call has forked and that has returned from it is no worker
            os._exit(0)
        try:
            return VALUE, parts(self._crossing, value)
        except BaseException as error:  # noqa: BLE001 -- methods of the user's run here
            return NOT_PICKLED, beside(f"{type_name(value)}\n{why(error)}".encode(errors="replace"))

    def _note_fork(self) -> None:
        self._is_fork = True
