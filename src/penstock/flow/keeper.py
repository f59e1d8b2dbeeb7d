"""A small process beside the engine that starts programs and ends them, also when the engine is killed.

It is run as a script of its own (`python -I -S keeper.py FD`), so it imports nothing but built-in modules of Python,
those behind `os`, `signal` and `socket`: they cost a third of the time to start.

The keeper waits on a socket for commands. Each comes as descriptors: a channel, the standard streams of the program,
and what is to stay open until the program and its group are no more, such as a lock. It forks a *guard* for each, which
starts the program in a session of its own and is its parent. The engine has the other end of the channel. Its end means
that the engine has died, so the guard kills the group of the program. A guard is no member of that group, holds nothing
that the program could close, and reaps the program only when the group has been told: so no signal goes to a stranger.

On the channel, from the engine: a marshalled `Spec` behind its length; then TERM, KILL. To the engine: FORKED with the
process id; then FAILED with an errno and what failed; then ENDED with the wait status.
"""

import _socket
import marshal
import posix
import select
import sys

TYPE_CHECKING = False  # without the module `typing`
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

TERM, KILL = b"T", b"K"
FORKED, FAILED, ENDED = b"S", b"F", b"E"
LENGTH = 8
"""Bytes of the length of a spec."""

type Spec = tuple[bytes, list[bytes], dict[bytes, bytes], bytes]
"""Program, argv, environment and directory."""

_STREAMS, _MOST = 3, 8
_LOOKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""Seconds between looks whether a group is gone; nothing tells the end of processes that are no children."""

_LONGEST = 100
"""Looks after SIGKILL: a process that the kernel cannot end is left to it."""


def keep(listening: int) -> None:
    """Fork a guard for each command, until the engine closes its end or dies."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # guards need no reaping
    channel = _socket.socket(fileno=listening)
    posix.set_inheritable(listening, False)
    room = _socket.CMSG_SPACE(_MOST * 4)
    while True:
        data, messages, _, _ = channel.recvmsg(1, room)
        if not data:
            return
        packed = messages[0][2]
        fds = [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)]
        if posix.fork() == 0:
            channel.close()
            code = 1
            try:
                for fd in fds:
                    posix.set_inheritable(fd, False)
                Guard(fds[0]).serve(fds[1 : 1 + _STREAMS])
                code = 0
            finally:
                posix._exit(code)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] -- it is `os._exit`
        for fd in fds:
            posix.close(fd)


class Guard:
    """The parent of one program."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._pid = 0
        self._told = False  # to stop
        self._killed = False
        self._engine_lives = True

    def serve(self, streams: list[int]) -> None:
        """Run the program that the channel tells of, to its end."""
        spec = self._received()
        if spec is None:
            return
        wake, woken = posix.pipe()
        posix.set_blocking(woken, False)
        _signal.signal(_signal.SIGCHLD, _nothing)
        _signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        if not self._start(spec, streams):
            return
        for fd in streams:
            posix.close(fd)
        status = self._ended(wake)
        self._tell(ENDED + b"%d" % status)

    def _received(self) -> Spec | None:
        """Return what is to be run; None if the engine has gone."""
        length = self._exactly(LENGTH)
        whole = None if length is None else self._exactly(int.from_bytes(length, "big"))
        return None if whole is None else marshal.loads(whole)  # noqa: S302 -- of our own engine

    def _exactly(self, count: int) -> bytes | None:
        parts: list[bytes] = []
        while count:
            part = posix.read(self._channel, min(count, 1 << 20))
            if not part:
                return None
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _start(self, spec: Spec, streams: list[int]) -> bool:
        """Tell the id of the program, and start it, or tell why it cannot be started."""
        said, saying = posix.pipe()  # closed by a successful exec
        self._pid = posix.fork()
        if self._pid == 0:
            try:
                _become(spec, streams, saying)
            finally:
                posix._exit(127)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] -- as above
        posix.close(saying)
        self._tell(FORKED + b"%d" % self._pid)
        failure = posix.read(said, 4096)
        posix.close(said)
        if failure:
            posix.waitpid(self._pid, 0)
            self._tell(FAILED + failure)
            return False
        return True

    def _ended(self, wake: int) -> int:
        """Wait for the program and its group, stopping them when that is asked for; the wait status of the program."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        while posix.waitid(posix.P_PID, self._pid, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT) is None:
            self._heed(poll, wake, None)
        if not self._told:
            self._signal(_signal.SIGKILL)  # what it has left behind
        _, status = posix.waitpid(self._pid, 0)
        looks = 0
        while self._is_there() and looks < _LONGEST:
            looks += self._killed
            self._heed(poll, wake, _LOOKS[min(looks, len(_LOOKS) - 1)])
        return status

    def _heed(self, poll: "select.poll", wake: int, seconds: float | None) -> None:
        """Do what the engine asks for; kill the group if the engine is no more."""
        for fd, _ in poll.poll(None if seconds is None else seconds * 1000):
            if fd == wake:
                posix.read(wake, 4096)
                continue
            try:
                asked = posix.read(self._channel, 4096)
            except OSError:
                asked = b""
            if not asked:
                poll.unregister(self._channel)
            if not asked or KILL in asked:
                self._told = True
                self._signal(_signal.SIGKILL)
            elif TERM in asked:
                self._told = True
                self._signal(_signal.SIGTERM)
                self._signal(_signal.SIGCONT)  # what is stopped does not see the other one

    def _signal(self, number: int) -> None:
        self._killed |= number == _signal.SIGKILL
        try:
            posix.killpg(self._pid, number)
        except OSError:  # nobody is left, or somebody whom we may not signal
            return

    def _is_there(self) -> bool:
        """Whether somebody of the group lives. What nobody reaps (in a container without an init) is dead."""
        try:
            posix.killpg(self._pid, 0)
        except OSError:
            return False
        try:
            there = [name for name in posix.listdir("/proc") if name.isdigit()]
        except OSError:
            return True
        return not there or any(_lives_in(self._pid, name) for name in there)

    def _tell(self, message: bytes) -> None:
        try:
            posix.write(self._channel, message + b"\n")
        except OSError:  # the engine has gone
            return


def _become(spec: Spec, streams: list[int], saying: int) -> None:
    """Be the program; what fails is written to `saying`."""
    program, argv, env, directory = spec
    at = b"cwd"
    try:
        posix.setsid()
        _signal.set_wakeup_fd(-1)
        for number in (_signal.SIGPIPE, getattr(_signal, "SIGXFSZ", None)):  # which Python ignores
            if number is not None:
                _signal.signal(number, _signal.SIG_DFL)
        above = [posix.dup2(fd, 100 + index, inheritable=False) for index, fd in enumerate(streams)]
        for index, fd in enumerate(above):
            posix.dup2(fd, index)
        posix.chdir(directory)
        at = b"program"
        posix.execve(program, argv, env)
    except OSError as error:
        posix.write(saying, b"%d %b" % (error.errno or 0, at))


def _lives_in(group: int, pid: str) -> bool:
    try:
        fd = posix.open(f"/proc/{pid}/stat", posix.O_RDONLY)
    except OSError:
        return False
    try:
        fields = posix.read(fd, 4096).rpartition(b")")[2].split()
    except OSError:
        return False
    finally:
        posix.close(fd)
    return int(fields[2]) == group and fields[0] not in {b"Z", b"X"}


def _nothing(*_: object) -> None:
    """Be there: a signal that nobody handles wakes nobody."""


if __name__ == "__main__":
    keep(int(sys.argv[1]))
    posix._exit(0)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] -- somebody waits: there is nothing to tidy up
