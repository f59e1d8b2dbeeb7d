"""A worker as the driver sees it: its groups of calls, what comes of them, and its end."""

import asyncio
import os
import signal
import subprocess
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import suppress
from socket import SHUT_WR
from time import monotonic
from typing import Final

from penstock.core.errors import MisuseError, PicklingFailed, RemoteError, WorkerLost
from penstock.core.log import LOG
from penstock.engines.engine import Answer, Progress
from penstock.engines.process import messages
from penstock.engines.process import page as pages
from penstock.engines.process.crossing import loads, why
from penstock.engines.process.messages import WireCall
from penstock.engines.process.remote_errors import unpacked
from penstock.engines.process.starting import Started, kill

DEPTH: Final = 2
"""Groups that a worker can have: it has so many areas on its page."""

MOST_BYTES: Final = 1 << 20
"""Bytes of the arguments from which on a group takes no more calls, and waits here, not behind another group.

What is on its way cannot be taken back. Large groups that were recalled as they had not begun in time, and sent again,
filled the sockets for good.
"""

SLOW_START: Final = 10.0
"""Seconds after which a worker that is not ready is warned of, and again after twice as long."""

_AT_ONCE: Final = 64
"""Reads in one turn of the loop."""


_MAIN: Final = b"__main__"


class Function:
    """A function that has been pickled for workers."""

    def __init__(self, number: int, data: bytes, name: str) -> None:
        self.number = number
        self.data = data
        self.name = name


class SentGroup:
    """Calls that were submitted together.

    Attributes:
        answers: the future of what they come to.
        functions: what is called, one for each.
        entries: the calls as a worker reads them; see `messages.WireCall`.
        buffers: what goes beside.
        size: bytes of their arguments.
        unsent: the errors of those that cannot be sent.
        child: the worker that has it.
        number: its number there.
        stopped: the call that runs is to end.
    """

    def __init__(self, answers: asyncio.Future[list[Answer]]) -> None:
        self.answers = answers
        self.functions: list[Function] = []
        self.entries: list[WireCall] = []
        self.buffers: list[memoryview] = []
        self.size = 0
        self.unsent: dict[int, BaseException] = {}
        self.child: WorkerProcess | None = None
        self.number = 0
        self.stopped = False
        self.timer: asyncio.TimerHandle | None = None
        self.known: list[Answer] = []
        self.parts: dict[int, tuple[int, memoryview, list[bytes | bytearray]]] = {}

    def end(self) -> None:
        """Set the answers of calls that are over."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.child = None
        self.entries, self.buffers, self.functions = [], [], []
        if not self.answers.done() and not self.answers.get_loop().is_closed():
            self.answers.set_result(self.known)

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Answer all calls with an error."""
        self.known = [Answer(error=error()) for _ in self.entries]
        self.end()

    def take(self, outcomes: messages.Outcomes) -> None:
        """Take the answers of all calls, which have come together."""
        self.known = [Answer(value, None, seconds) for seconds, value in zip(*outcomes, strict=True)]

    def collect(self, area: pages.Area) -> None:
        """Read the answers of calls that are over from the page."""
        known = self.known
        finished = area.words[pages.FINISHED]
        while len(known) < finished:
            index = len(known)
            seconds, kind, data = area.next()
            buffers: list[bytes | bytearray] = []
            if kind == pages.PLAIN:
                known.append(Answer(messages.unpacked(data), None, seconds))
                continue
            if kind == pages.BY_PIPE:
                if index not in self.parts:  # it is on its way
                    area.put_back()
                    return
                kind, data, buffers = self.parts.pop(index)
            known.append(self._answer(index, seconds, kind, data, buffers))

    def _value(self, index: int, seconds: float, data: memoryview, buffers: list[bytes | bytearray]) -> Answer:
        try:
            return Answer(loads(data, buffers), None, seconds)
        except BaseException as error:  # noqa: BLE001 -- classes of the user's are made here
            name = self.functions[index].name
            failed = PicklingFailed(f"the result of {name} cannot be loaded in this process: {why(error)}")
            return Answer(None, failed, seconds)

    def _answer(
        self, index: int, seconds: float, kind: int, data: memoryview, buffers: list[bytes | bytearray]
    ) -> Answer:
        if kind == pages.VALUE:
            return self._value(index, seconds, data, buffers)
        if kind == pages.ERROR:
            return Answer(None, unpacked(data, RemoteError), seconds)
        if kind == pages.UNSENT:
            return Answer(None, self.unsent[index], seconds)
        name = self.functions[index].name
        what, _, reason = bytes(data).decode(errors="replace").partition("\n")
        if kind == pages.UNPICKLABLE:
            failed: BaseException = PicklingFailed(f"the result of {name}, of type {what}, cannot be pickled: {reason}")
        elif what == "fn":
            guarded = "; what stands under the main guard is not there" if _MAIN in self.functions[index].data else ""
            failed = MisuseError(f"{name} cannot be loaded in a worker process: {reason}{guarded}")
        else:
            failed = PicklingFailed(f"an argument of {name} cannot be loaded in a worker process: {reason}")
        return Answer(None, failed, seconds)


class WorkerProcess:
    """A worker process.

    `tell` is asked to look after it when it is ready, has less to do, or is dead.
    """

    def __init__(
        self,
        started: Started,
        hello: bytes,
        loop: asyncio.AbstractEventLoop,
        tell: "Tell",
        spare: messages.Spare,
    ) -> None:
        self._started = started
        self._slow = loop.call_later(SLOW_START, self._warn, SLOW_START)
        self._loop = loop
        self._fd = started.socket.fileno()
        self._tell = tell
        self._fds = [fd for fd in (started.leash, started.pidfd) if fd is not None]
        self._areas = pages.SharedPage(started.page).areas
        os.close(started.page)
        self._inbox = messages.Inbox(spare)
        self._outbox = messages.Outbox()
        self._writing = False
        self._closed = False
        self._dying = False
        self._sent = 0
        self.functions: set[int] = set()
        self.dropped: list[int] = []
        self.groups: dict[int, SentGroup | None] = {}
        """Those that it has not answered, by number; None: what is left of one that was taken back."""
        self.was_ready: bool = False
        self.ending: bool = False
        self.failed: tuple[str, BaseException] | None = None
        """Why it could not start: what failed there, and how."""
        self.gone: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._fd, self._readable)
        if started.pidfd is not None:
            loop.add_reader(started.pidfd, self._dead)
        self._write(messages.message(messages.HELLO, 0, hello))

    @property
    def starting(self) -> bool:
        """Tell whether it will be ready soon."""
        return not (self.was_ready or self._dying or self._closed)

    def _warn(self, seconds: float) -> None:
        """Say that it is not ready."""
        what = self._tell.starts
        LOG.warning("worker process %d is not ready after %g s: it %s; calls wait for it", self.pid, seconds, what)
        self._slow = self._loop.call_later(seconds, self._warn, 2 * seconds)

    @property
    def usable(self) -> bool:
        """Tell whether it takes calls."""
        return self.was_ready and not (self._dying or self._closed)

    @property
    def busy(self) -> bool:
        """Tell whether it has calls to make."""
        return any(group is not None for group in self.groups.values())

    @property
    def second(self) -> SentGroup | None:
        """Return the group that waits behind another one there, if there is one."""
        if len(self.groups) < DEPTH:
            return None
        *_, last = self.groups.values()
        return last

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._started.process.pid

    # What it is given

    def give(self, group: SentGroup) -> None:
        """Send it a group of calls."""
        self._sent = number = self._sent + 1
        area = self._areas[number % 2]
        area.reset()
        if group.size >= MOST_BYTES:  # it is read for long, and what is read cannot be taken back
            area.words[pages.BEGUN] = 1
            area.times[pages.SINCE] = monotonic()
        group.child, group.number = self, number
        self.groups[number] = group
        new: list[tuple[int, bytes]] = []
        for function in dict.fromkeys(group.functions):
            if function.number not in self.functions:
                self.functions.add(function.number)
                new.append((function.number, function.data))
        dropped, self.dropped = self.dropped, []
        self.functions.difference_update(dropped)
        envelope = messages.packed((new, dropped, group.entries))
        self._write(messages.message(messages.RUN, number, envelope, group.buffers))

    def keep(self, group: SentGroup) -> int:
        """Return how many calls of a group that was halted have begun: they go on."""
        return self._areas[group.number % 2].keep()

    def halt(self, group: SentGroup) -> bool:
        """Let no other call of the group begin; return whether one has. If none has, the group is free again."""
        if self._areas[group.number % 2].stop():
            return True
        self.groups[group.number] = None
        group.child = None
        return False

    def progress(self, group: SentGroup) -> Progress:
        """Return what its page says of the group."""
        area = self._areas[group.number % 2]
        begun, since = area.words[pages.BEGUN], area.times[pages.SINCE]
        group.collect(area)
        runs = begun > len(group.known)
        return Progress(list(group.known), self._loop.time() - (monotonic() - since) if runs else None)

    def end(self) -> None:
        """Let it leave when it has answered."""
        self.ending = True
        with suppress(OSError):
            self._started.socket.shutdown(SHUT_WR)

    def kill(self) -> None:
        """End it now."""
        self._dying = True
        kill(self._started.process)

    # What comes from it

    def _write(self, pieces: Sequence[messages.Buffer]) -> None:
        self._outbox.put(pieces)
        if not self._writing:
            self._flush()

    def _flush(self) -> None:
        try:
            done = self._outbox.flush(self._fd)
        except OSError:  # it is dying, and that is told by others
            done, self._outbox = True, messages.Outbox()
        if done and self._writing:
            self._loop.remove_writer(self._fd)
        elif not done and not self._writing:
            self._loop.add_writer(self._fd, self._flush)
        self._writing = not done

    def _readable(self) -> None:
        if not self._read(_AT_ONCE):
            self._loop.remove_reader(self._fd)
            if not self.ending:
                self.kill()
            if self._started.pidfd is None:
                self._dead()

    def _read(self, most: int) -> bool:
        """Take what has come; return False if there will be no more."""
        inbox = self._inbox
        more = there = True
        while more and most:
            most -= 1
            try:
                more = inbox.read(self._fd)
            except EOFError:
                there = more = False
            while (message := inbox.take()) is not None:
                self._take(message)
        return there

    def _take(self, message: messages.Message) -> None:
        kind, number, envelope, buffers = message
        if kind == messages.DONE:
            group = self.groups.pop(number)
            if group is not None:
                if envelope and not group.known:
                    group.take(messages.unpacked(envelope))
                else:
                    group.collect(self._areas[number % 2])
                group.end()
            self._tell.has_less(self)
        elif kind == messages.PART:
            group = self.groups[number]
            if group is not None:
                index, outcome = messages.PLACE.unpack(envelope)
                group.parts[index] = outcome, memoryview(buffers.pop()), buffers
        elif kind == messages.READY:
            self.was_ready = True
            self._slow.cancel()
            self._tell.is_ready(self)
        else:
            what, _, data = bytes(envelope).partition(b"\n")
            self.failed = what.decode(), unpacked(data, RemoteError)

    # Its end

    def _dead(self) -> None:
        """Reap it, once it is dead, and answer its calls."""
        if self._closed:
            return
        process = self._started.process
        kill(process)  # what it has started, too
        if process.poll() is None:
            self._loop.call_later(0.005, self._dead)
            return
        self._read(_AT_ONCE)
        self._let_go()
        if not self.gone.done():
            self.gone.set_result(None)
        self._tell.is_gone(self)

    def kill_and_wait(self) -> None:
        """Kill it and wait for its end without the loop, which may be gone."""
        self.ending = True
        self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._started.process.wait(5)
        self._read(_AT_ONCE)
        self._let_go()

    def _let_go(self) -> None:
        """Answer its calls, and close its descriptors."""
        self._closed = True
        self._slow.cancel()
        started = self._started
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            if started.pidfd is not None:
                self._loop.remove_reader(started.pidfd)
        self._close_descriptors()
        groups, self.groups = self.groups, {}
        for number, group in groups.items():
            if group is not None:
                area = self._areas[number % 2]
                group.collect(area)
                if area.words[pages.BEGUN] > len(group.known):
                    group.known.append(Answer(error=self._lost(group)))
                group.end()

    def how(self) -> str:
        """Say how it ended."""
        status = self._started.process.returncode
        if status is None or status >= 0:
            return f"exited with status {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"

    def _lost(self, group: SentGroup) -> BaseException:
        if group.stopped:
            return CancelledError()
        if self.ending:
            return MisuseError("the engine of processes was closed while this call ran")
        name = group.functions[len(group.known)].name
        lost = WorkerLost(f"worker process {self.pid} {self.how()} while it ran {name}")
        lost.how = self.how()
        return lost

    def disown(self) -> None:
        """Close its descriptors in a child that was forked: worker and loop are the parent's."""
        self._started.process.returncode = 0
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        self._started.socket.close()
        fds, self._fds = self._fds, []
        for fd in fds:
            with suppress(OSError):
                os.close(fd)


class Tell:
    """What a worker tells its pool, and asks it.

    Attributes:
        starts: what a worker does until it is ready, for a warning.
    """

    starts: str

    def is_ready(self, child: WorkerProcess) -> None:
        """Tell that it has started."""
        raise NotImplementedError

    def has_less(self, child: WorkerProcess) -> None:
        """Tell that a group is over."""
        raise NotImplementedError

    def is_gone(self, child: WorkerProcess) -> None:
        """Tell that it is dead, and its groups have been answered."""
        raise NotImplementedError
