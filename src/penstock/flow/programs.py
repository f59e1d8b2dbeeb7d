"""Runs programs: without a shell, in bounded memory, each with its group ended whatever happens to the engine.

A `Keeper` is the process that starts them (`penstock.flow.keeper` says why it is one of its own). It is started with
the first program and ends with `close`; a run has one for all its commands (`keeping_programs`). Everything else is
callbacks of the loop: no task and no thread. `run_program` is the only thing that waits.
"""

import asyncio
import errno
import fcntl
import marshal
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from penstock.core.errors import PenstockError
from penstock.core.scope import Scope
from penstock.core.text import one_line
from penstock.flow import keeper
from penstock.flow.added import CannotBegin
from penstock.flow.masking import Mask
from penstock.flow.secrets import EnvSecret

MAX_OUTPUT: Final = 20_000_000
"""Bytes of stdout that are kept by default."""

GRACE: Final = 5.0
"""Seconds from SIGTERM to SIGKILL by default."""

_LOOK: Final = 0.01
"""Seconds between looks whether a program that somebody else has left is gone."""

_PIECE: Final = 1 << 16
_LEFT: Final = 1 << 20
"""Bytes that are read after the end of a program: what pipes can hold. Somebody who has left its group may write on."""

_TAIL: Final = 1 << 14
"""Bytes of the end of stderr that are kept."""

_LAST_LINES: Final = 5
_LINE: Final = 1 << 13
"""Bytes of a line in the log; a longer one is cut in several."""


class CommandError(PenstockError):
    """A program ended with an exit code that is no success, or could not be run to its end.

    Attributes:
        returncode: the exit code; -N if signal N ended the program.
        stderr: the end of what it wrote there, secrets masked.
    """

    def __init__(self, message: str, *, returncode: int, stderr: str) -> None:
        super().__init__(message)
        self.returncode = returncode
        self.stderr = stderr


class NoSuchProgram(CannotBegin):
    """There is no program of that name, or it cannot be executed."""


class Keeper:
    """The process that starts programs for this one, and sees to their end if this one is killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def send(self, fds: Sequence[int]) -> None:
        """Have it start a program: its channel, stdin, stdout and stderr."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self.start()
        assert self._socket is not None
        socket.send_fds(self._socket, [b"P"], fds)

    def close(self) -> None:
        """End it. Programs that run are stopped by whoever runs them, so there are none any more."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.wait()  # it does nothing but wait for our end of the socket
        self._socket = self._process = None

    def start(self) -> None:
        """Start it, if it has not been."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 -- of our own file
                    [sys.executable, "-I", "-S", keeper.__file__, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._socket = ours


_KEEPER: ContextVar[Keeper] = ContextVar("_KEEPER")


@contextmanager
def keeping_programs() -> Generator[Keeper]:
    """Have all programs of this block share a keeper, which is started with the first of them and ends with the block.

    Tasks that are made in the block share it as well. Without such a block each program has a keeper of its own, which
    takes the time to start a Python.
    """
    own = Keeper()
    token = _KEEPER.set(own)
    try:
        yield own
    finally:
        _KEEPER.reset(token)
        own.close()


def keep_programs(scope: Scope) -> None:
    """Have all programs of a run of a stream share a keeper, unless they share one already."""
    if _KEEPER not in scope.context:
        own = Keeper()
        scope.context.run(_KEEPER.set, own)
        scope.on_closed.append(own.close)


def found(name: str, cwd: Path, path: str | None) -> str:
    """Return the file to execute for `name`, as `execvp` finds it in `path`: below `cwd`, where that is relative.

    Raises:
        NoSuchProgram: there is none.
    """
    if "/" in name:
        return name
    directories = (os.defpath if path is None else path).split(os.pathsep)
    for directory in directories:
        candidate = cwd / directory / name
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    raise NoSuchProgram(f"there is no program {name!r} in PATH")


def environment(more: Mapping[str, str | EnvSecret]) -> tuple[dict[str, str], Mask]:
    """Return the environment of this process with `more`, and a mask of the secrets in that."""
    secrets = {name: value.reveal() for name, value in more.items() if isinstance(value, EnvSecret)}
    plain = {name: value for name, value in more.items() if not isinstance(value, EnvSecret)}
    return {**os.environ, **plain, **secrets}, Mask(secrets.values())


async def run_program(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str | EnvSecret] | None = None,
    stdin: str | bytes | None = None,
    ok: Collection[int] = (0,),
    grace: float = GRACE,
    max_output: int = MAX_OUTPUT,
    on_line: Callable[[str], object] | None = None,
    lock: Path | None = None,
) -> str:
    """Run a program to its end and return what it wrote to stdout, as UTF-8, secrets masked.

    Cancelled, it sends SIGTERM to the group of the program, after `grace` seconds SIGKILL, and waits for their end.

    Args:
        argv: the program and its arguments.
        cwd: the directory that it runs in.
        env: variables beside those of this process; the values of secrets are masked in all that is captured.
        stdin: what it reads; None: nothing.
        ok: exit codes of success.
        grace: seconds.
        max_output: bytes of stdout; more is an error.
        on_line: told each line of stdout and stderr, masked, as they come.
        lock: a directory that is locked until the program and its group are no more, also where this process was
            killed; the program waits until no other has it.

    Raises:
        NoSuchProgram: it cannot be executed.
        CommandError: it failed.
        CannotBegin: there is no such secret.
    """
    variables, mask = environment(env or {})
    program = _Program(argv, found(argv[0], cwd, variables.get("PATH")), mask, max_output, on_line)
    with _the_keeper() as by, ExitStack() as held:
        locks = [] if lock is None else [await _locked(lock, held)]
        try:
            program.start(by, variables, cwd, stdin, locks)
            await program.ended(grace)
        finally:
            program.close()
    return program.output(ok)


async def _locked(directory: Path, held: ExitStack) -> int:
    """Return a descriptor that holds the lock of a directory; it is closed with `held`.

    A guard has a copy of it: so the lock lasts as long as what it was taken for, whatever became of us.
    """
    fd = os.open(directory, os.O_RDONLY)
    held.callback(os.close, fd)
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        await asyncio.sleep(_LOOK)


@contextmanager
def _the_keeper() -> Generator[Keeper]:
    if (shared := _KEEPER.get(None)) is not None:
        yield shared
        return
    with closing(Keeper()) as own:
        yield own


class _Program:
    """One program that runs, and what it says."""

    def __init__(
        self,
        argv: Sequence[str],
        executable: str,
        mask: Mask,
        max_output: int,
        on_line: Callable[[str], object] | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._name = argv[0]
        self._argv = argv
        self._executable = executable
        self._mask = mask
        self._max_output = max_output
        self._stdout = _Captured(mask, max_output, on_line)
        self._stderr = _Captured(mask, None, on_line)
        self._channel: socket.socket | None = None
        self._fds: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, memoryview] = {}
        self._said = b""
        self._pid: int | None = None
        self._status: int | None = None
        self._failure: str | None = None
        self._stopping = False
        self._grace = GRACE
        self._killing: asyncio.TimerHandle | None = None

    def start(
        self, by: Keeper, env: Mapping[str, str], cwd: Path, stdin: str | bytes | None, locks: Sequence[int]
    ) -> None:
        """Have it started; what comes of that is told by `ended`."""
        spec = marshal.dumps(
            (
                os.fsencode(self._executable),
                [os.fsencode(word) for word in self._argv],
                {os.fsencode(name): os.fsencode(value) for name, value in env.items()},
                os.fsencode(cwd),
            )
        )
        theirs: list[int] = []
        try:
            self._channel, channel = socket.socketpair()
            theirs.append(channel.detach())
            if stdin is None:
                theirs.append(os.open(os.devnull, os.O_RDONLY))
            else:
                read, write = os.pipe()
                theirs.append(read)
                self._write(write, stdin.encode() if isinstance(stdin, str) else stdin)
            for captured in (self._stdout, self._stderr):
                read, write = os.pipe()
                theirs.append(write)
                self._read(read, captured)
            self._channel.setblocking(False)
            fd = self._channel.fileno()
            self._loop.add_reader(fd, self._hear)
            self._fds[fd] = lambda: None
            self._send(fd, len(spec).to_bytes(keeper.LENGTH, "big") + spec)
            by.send([*theirs, *locks])
        finally:
            for fd in theirs:
                os.close(fd)

    async def ended(self, grace: float) -> None:
        """Wait until the program and its group are no more; on a cancellation stop them."""
        self._grace = grace
        cancelled: asyncio.CancelledError | None = None
        while not self._over.done():
            try:
                await asyncio.wait([self._over])
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                self.stop()
        if cancelled is not None:
            raise cancelled

    def stop(self) -> None:
        """End the group: SIGTERM, and SIGKILL after the grace."""
        if not self._stopping:
            self._stopping = True
            self._ask(keeper.TERM)
            self._killing = self._loop.call_later(self._grace, self._ask, keeper.KILL)

    def close(self) -> None:
        """Let go of everything; a program that runs is killed by its guard."""
        if self._killing is not None:
            self._killing.cancel()
        for fd in [*self._fds]:
            self._drop(fd)
        if self._channel is not None:
            self._channel.close()

    def output(self, ok: Collection[int]) -> str:
        """Return what it wrote to stdout, if it succeeded."""
        if self._failure is not None:
            raise NoSuchProgram(self._failure)
        stderr = self._stderr.text()
        if self._status is None:
            raise self._error("was lost: the process that kept it has ended", -signal.SIGKILL, stderr)
        code = os.waitstatus_to_exitcode(self._status)
        if self._stdout.too_much:
            raise self._error(f"wrote more than max_output={self._max_output} bytes to stdout", code, stderr)
        if code not in ok:
            raise self._error(_ending(code), code, stderr)
        return self._stdout.text()

    def _error(self, what: str, code: int, stderr: str) -> CommandError:
        last = [one_line(line, 300) for line in stderr.splitlines() if line.strip()][-_LAST_LINES:]
        said = f": {'\n'.join(last)}" if last else ""
        return CommandError(
            f"{one_line(self._mask.text(self._name), 200)} {what}{said}", returncode=code, stderr=stderr
        )

    # The channel

    def _ask(self, what: bytes) -> None:
        channel = self._channel
        if channel is None or self._over.done():
            return
        pending = self._writers.get(channel.fileno())
        if pending is not None:  # the spec is on its way: what it starts is stopped at once
            self._writers[channel.fileno()] = memoryview(bytes(pending) + what)
            return
        with suppress(OSError):
            channel.send(what)

    def _hear(self) -> None:
        assert self._channel is not None
        try:
            data = self._channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._said += data
        *messages, self._said = self._said.split(b"\n")
        for message in messages:
            self._heed(message[:1], message[1:])
        if not data or self._status is not None or self._failure is not None:
            self._finish()

    def _heed(self, kind: bytes, words: bytes) -> None:
        if kind == keeper.FORKED:
            self._pid = int(words)
        elif kind == keeper.ENDED:
            self._status = int(words)
        elif kind == keeper.FAILED:
            number, _, at = words.partition(b" ")
            why = os.strerror(int(number))
            if at == b"cwd":
                self._failure = f"cwd is no directory that a program can run in: {why}"
            elif int(number) == errno.ENOENT:
                self._failure = f"there is no program {self._name!r}, or what its first line names"
            else:
                self._failure = f"the program {self._name!r} cannot be executed: {why}"

    def _finish(self) -> None:
        if self._status is None and self._failure is None and self._pid is not None:  # somebody has killed the guard
            for kill in (os.killpg, os.kill):  # it may not have its session yet
                with suppress(OSError):
                    kill(self._pid, signal.SIGKILL)
        for captured in (self._stdout, self._stderr):
            captured.finish()
        for fd in [*self._fds]:
            self._drop(fd)
        if self._killing is not None:
            self._killing.cancel()
        if not self._over.done():
            self._over.set_result(None)

    # The pipes

    def _read(self, fd: int, captured: "_Captured") -> None:
        os.set_blocking(fd, False)
        captured.fd = fd
        self._fds[fd] = lambda: os.close(fd)
        self._loop.add_reader(fd, self._readable, fd, captured)

    def _readable(self, fd: int, captured: "_Captured") -> None:
        if not captured.read():
            self._drop(fd)
            captured.fd = None
        if captured.too_much:
            self.stop()

    def _write(self, fd: int, data: bytes) -> None:
        os.set_blocking(fd, False)
        self._fds[fd] = lambda: os.close(fd)
        self._send(fd, data)

    def _send(self, fd: int, data: bytes) -> None:
        self._writers[fd] = memoryview(data)
        self._loop.add_writer(fd, self._writable, fd)

    def _writable(self, fd: int) -> None:
        rest = self._writers[fd]
        try:
            rest = rest[os.write(fd, rest[:_PIECE]) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # it reads no more
            rest = rest[:0]
        self._writers[fd] = rest
        if not rest:
            self._loop.remove_writer(fd)
            del self._writers[fd]
            if self._channel is None or fd != self._channel.fileno():
                self._drop(fd)

    def _drop(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        if self._writers.pop(fd, None) is not None:
            self._loop.remove_writer(fd)
        self._fds.pop(fd)()


class _Captured:
    """What a program writes to stdout (the beginning is kept) or stderr (the end), and lines of it for the log."""

    def __init__(self, mask: Mask, most: int | None, on_line: Callable[[str], object] | None) -> None:
        self.fd: int | None = None
        self.too_much = False
        self._masked = mask.stream()
        self._most = most
        self._count = 0
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._on_line = on_line
        self._line = b""

    def read(self) -> bool:
        """Take a piece of what is there; whether more may come."""
        assert self.fd is not None
        try:
            data = os.read(self.fd, _PIECE)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        self._count += len(data)
        self.too_much = self._most is not None and self._count > self._most
        if not self.too_much:
            self._take(self._masked.feed(data))
        return bool(data)

    def finish(self) -> None:
        """Take what is left in the pipe."""
        left = _LEFT
        while self.fd is not None and left > 0:
            before = self._count
            if not self.read() or self._count == before:
                break
            left -= self._count - before
        self._take(self._masked.end())
        if self._line:
            self._tell(self._line)
            self._line = b""

    def text(self) -> str:
        """Return what was kept."""
        kept = b"".join(self._parts)
        return (kept if self._most is not None else kept[-_TAIL:]).decode(errors="replace")

    def _take(self, data: bytes) -> None:
        if not data:
            return
        self._parts.append(data)
        self._size += len(data)
        while self._most is None and self._size - len(self._parts[0]) >= _TAIL:
            self._size -= len(self._parts.popleft())
        if self._on_line is not None:
            *lines, rest = (self._line + data).split(b"\n")
            for line in lines:
                self._tell(line)
            while len(rest) >= _LINE:
                self._tell(rest[:_LINE])
                rest = rest[_LINE:]
            self._line = rest

    def _tell(self, line: bytes) -> None:
        assert self._on_line is not None
        self._on_line(line.removesuffix(b"\r").decode(errors="replace"))


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
