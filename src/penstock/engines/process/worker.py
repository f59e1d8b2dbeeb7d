"""The program of a worker: it reads groups of calls, makes them, and writes what they came to on its page.

It ends when the driver closes the socket. If the driver is killed, the kernel kills the worker and all that it has
started, wherever these are (Linux: the pipe `leash` is closed, and signals its readers); elsewhere the worker ends when
it is back from its call.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from marshal import dumps
from time import monotonic
from typing import Any, Final, NoReturn

from penstock.engines.process import messages
from penstock.engines.process import page as pages
from penstock.engines.process.crossing import Crossing, is_plain, loads, type_name, whole, why
from penstock.engines.process.messages import WITHOUT_INTERNING
from penstock.engines.process.page import (
    BEGUN,
    BY_PIPE,
    ERROR,
    PLAIN,
    SINCE,
    STOP,
    UNPICKLABLE,
    UNREADABLE,
    UNSENT,
    VALUE,
)
from penstock.engines.process.remote_errors import packed

importing: bool = False
"""Whether this is a worker that imports its main module: what starts workers there would do so for ever."""

_F_SETSIG: Final = 10

_SPARE: Final = 1 << 24
"""Bytes of memory that a worker keeps for large arguments."""

_area: pages.Area | None = None
"""The half of the page with the group that runs."""


def is_recalled() -> bool:
    """Tell a call that runs in this worker whether the driver wants no more of its group: a long one may end early."""
    return _area is not None and _area.words[STOP] > 0


class Unloadable:
    """A function that could not be loaded, and why."""

    def __init__(self, text: str) -> None:
        self.text = text


def keep_on_leash(leash: int) -> None:
    """Ask the kernel to kill this group of processes when the other end of the pipe is closed."""
    if sys.platform != "linux":
        return
    import fcntl  # noqa: PLC0415 -- not everywhere

    fcntl.fcntl(leash, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(leash, _F_SETSIG, 9)
    fcntl.fcntl(leash, fcntl.F_SETFL, fcntl.fcntl(leash, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        gone = not os.read(leash, 1)
    except BlockingIOError:
        gone = False
    if gone:  # before there was anything to signal
        os._exit(1)


def main(socket: int, leash: int, page: int) -> None:
    """Serve the driver at the other end of the socket."""
    keep_on_leash(leash)
    _WorkerProgram(socket, page).serve()


class _WorkerProgram:
    def __init__(self, socket: int, page: int) -> None:
        self._socket = socket
        self._areas = pages.SharedPage(page).areas
        os.close(page)
        self._inbox = messages.Inbox(messages.Spare(_SPARE), self._begins)
        self._outbox = messages.Outbox()
        self._functions: dict[int, Any] = {}
        self._crossing = Crossing(main_is_there=True)
        self._forked = False
        os.register_at_fork(after_in_child=self._in_fork)

    def serve(self) -> None:
        """Start, say so, and run what comes until the driver closes the socket."""
        try:
            hello = self._receive()
            if not self._start(loads(hello.envelope)):
                return
            self._send(messages.READY)
            while True:
                self._run(self._receive())
        except (EOFError, OSError, KeyboardInterrupt):
            return  # the driver is gone, a call has closed the socket, or somebody sends signals to this process alone

    # The socket

    def _receive(self) -> messages.Message:
        inbox = self._inbox
        while (message := inbox.take()) is None:
            inbox.read(self._socket)
        return message

    def _send(self, kind: int, number: int = 0, envelope: bytes = b"", buffers: list[memoryview] | None = None) -> None:
        self._outbox.put(messages.message(kind, number, envelope, buffers or ()))
        while not self._outbox.flush(self._socket):
            pass

    def _in_fork(self) -> None:
        """Let go of the socket, in a child that a call has forked: it is the parent's, as is the page."""
        self._forked = True
        os.close(self._socket)

    # Its start

    def _start(self, hello: messages.Hello) -> bool:
        argv, main_module, initializer = hello
        sys.argv[:] = argv
        if main_module is not None:
            global importing  # noqa: PLW0603 -- it is of the process
            importing = True
            try:
                _import_main(*main_module)
            except BaseException as error:  # noqa: BLE001 -- whatever it is, the driver says it
                self._fail("main", error)
                return False
            importing = False
        self._crossing = Crossing(main_is_there=main_module is not None)
        if initializer is not None:
            try:
                loads(initializer)()
            except BaseException as error:  # noqa: BLE001 -- as above
                self._fail("initializer", error)
                return False
        return True

    def _fail(self, what: str, error: BaseException) -> None:
        self._send(messages.FAILED, 0, what.encode() + b"\n" + packed(error, self._crossing))

    # Calls

    def _begins(self, kind: int, number: int) -> None:
        """Say that a group is being read: a worker that dies of that has died of its first call."""
        if kind == messages.RUN:
            area = self._areas[number % 2]
            area.rewind()
            area.times[SINCE] = monotonic()
            area.words[BEGUN] = 1

    def _run(self, message: messages.Message) -> None:
        global _area  # noqa: PLW0603 -- it is of the process
        number = message.number
        _area = area = self._areas[number % 2]
        words, times = area.words, area.times
        fence, call, put = pages.fence, self._call, area.put
        functions = self._functions
        run: messages.WireGroup = messages.unpacked(message.envelope)
        new, dropped, entries = run
        for fid in dropped:
            functions.pop(fid, None)
        for fid, pickled in new:
            functions[fid] = _function(pickled)
        taken = 0
        times_taken: list[float] = []
        plain: list[Any] = []
        buffers = message.buffers
        del message, run, new
        beside: list[memoryview] | None
        for number_of_call, (fid, most, data, count) in enumerate(entries, 1):
            times[SINCE] = began = monotonic()
            words[BEGUN] = number_of_call
            fence()
            if (stop := words[STOP]) and number_of_call >= stop:
                words[BEGUN] = number_of_call - 1
                break
            if fid < 0:
                kind, outcome, beside = UNSENT, b"", None
            elif count:
                end = taken + count
                kind, outcome, beside = call(functions[fid], most, data, buffers[taken:end])
                buffers[taken:end] = [b""] * count
                taken = end
            else:
                kind, outcome, beside = call(functions[fid], most, data, [])
            if self._forked:
                _end_fork(kind)
            seconds = monotonic() - began
            if kind == PLAIN:
                times_taken.append(seconds)
                plain.append(outcome)
                outcome = dumps(outcome, WITHOUT_INTERNING)
            if beside or not put(seconds, kind, outcome):
                self._send(
                    messages.PART,
                    number,
                    messages.PLACE.pack(number_of_call - 1, kind),
                    [*(beside or ()), memoryview(outcome)],
                )
                put(seconds, BY_PIPE)
        done = messages.packed((times_taken, plain)) if area.is_short_with(len(plain)) else b""
        self._send(messages.DONE, number, done)
        _flush()

    def _call(
        self, fn: Any, most: int | None, data: bytes | tuple[Any, ...] | None, buffers: list[bytes | bytearray]
    ) -> tuple[int, Any, list[memoryview] | None]:
        """Make a call; return the kind of its outcome, its bytes (the value, if it is plain), and buffers beside."""
        if type(fn) is Unloadable:
            return UNREADABLE, f"fn\n{fn.text}".encode(errors="replace"), None
        try:
            arguments = data if isinstance(data, tuple) else loads(buffers.pop() if data is None else data, buffers)
        except BaseException as error:  # noqa: BLE001 -- classes of the user's are made here
            return UNREADABLE, f"argument\n{why(error)}".encode(errors="replace"), None
        del buffers
        try:
            value = fn(*arguments)
            if most is not None:
                from penstock.engines.read_results import read  # noqa: PLC0415 -- the start comes first

                value = read(value, most)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            if self._forked:
                _end_fork(ERROR, error)
            return ERROR, packed(error, self._crossing), None
        del arguments
        if is_plain(value):
            return PLAIN, value, None
        beside: list[memoryview] = []
        try:
            outcome = self._crossing.dumps(whole(value), beside)
        except BaseException as error:  # noqa: BLE001 -- methods of the user's run here
            return UNPICKLABLE, f"{type_name(value)}\n{why(error)}".encode(errors="replace"), None
        return VALUE, outcome, beside or None


def _import_main(how: str, where: str) -> None:
    """Import the main module of the driver under another name, as `multiprocessing` does: so its guard is false."""
    import runpy  # noqa: PLC0415 -- as late as may be
    from types import ModuleType  # noqa: PLC0415

    module = ModuleType("__mp_main__")
    if how == "name":
        content = runpy.run_module(where, run_name="__mp_main__", alter_sys=True)
    else:
        content = runpy.run_path(where, run_name="__mp_main__")
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module


def _function(data: bytes) -> Callable[..., Any] | Unloadable:
    try:
        fn: Callable[..., Any] = loads(data)
    except BaseException as error:  # noqa: BLE001 -- modules of the user's are imported here
        return Unloadable(why(error))
    return fn


def _flush() -> None:
    """Flush what calls have printed: a worker may be killed before it would."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # there is none, or nobody reads
            stream.flush()


def _end_fork(kind: int, error: BaseException | None = None) -> NoReturn:
    """End a child that a call has forked and that has returned from it: it is no worker."""
    _flush()
    if isinstance(error, SystemExit):
        os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
    os._exit(0 if kind in {VALUE, PLAIN} else 1)
