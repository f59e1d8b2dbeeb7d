"""Starting a worker: a new interpreter in a session of its own, with three descriptors and the paths of the driver."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple, cast

from penstock.core.errors import MisuseError, OptionError
from penstock.engines.process.page import SIZE

_PROGRAM: Final = "penstock.engines.process.worker"

_IN_SOCKET: Final = 1 << 20
"""Bytes that a socket may hold, if the system allows it: large arrays then take fewer turns of the loop."""

NO_GUARD: Final = (
    "a worker process was started, and as it imported the main module, that asked for workers again: "
    'put what starts the work under `if __name__ == "__main__":`'
)


class Started(NamedTuple):
    """A worker that was started.

    Attributes:
        process: it.
        socket: the driver's end, which does not block.
        leash: a pipe that nobody reads: when it is closed, the kernel kills the worker (Linux).
        page: the descriptor of its page.
        pidfd: becomes readable when it is dead; None where there is no such thing.
    """

    process: "subprocess.Popen[bytes]"
    socket: socket.socket
    leash: int
    page: int
    pidfd: int | None


def refuse_in_import() -> None:
    """Refuse to start workers inside of a worker that imports the main module.

    Raises:
        MisuseError: that is what happens here.
    """
    program = sys.modules.get(_PROGRAM)
    if program is not None and program.importing:
        raise MisuseError(NO_GUARD)


def start() -> Started:
    """Start a worker.

    Raises:
        OSError: the system has no more processes, descriptors or memory.
        OptionError: there are no workers on this system.
    """
    if not hasattr(os, "register_at_fork") or not sys.executable:
        raise OptionError("engine must be another one than processes here: they need POSIX and sys.executable")
    fds: list[int] = []
    try:
        ours, other = socket.socketpair()
        for end in (ours, other):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _IN_SOCKET)
        theirs = other.detach()
        fds.append(theirs)
        hold, leash = os.pipe()
        fds += (hold, leash)
        page = _page_file()
        fds.append(page)
        code = (
            f"import sys; sys.path[:] = {[str(path) for path in sys.path]!a}; "
            f"from {_PROGRAM} import main; main({theirs}, {hold}, {page})"
        )
        flags = cast("list[str]", cast("Any", subprocess)._args_from_interpreter_flags())  # noqa: SLF001 -- as in multiprocessing
        process = subprocess.Popen(  # noqa: S603 -- this interpreter
            [sys.executable, *flags, "-c", code],
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs, hold, page),
            start_new_session=True,
        )
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    os.close(theirs)
    os.close(hold)
    ours.setblocking(False)
    return Started(process, ours, leash, page, _pidfd(process.pid))


def _page_file() -> int:
    """Return a descriptor of memory for a page: of no file, or of one without a name."""
    create: Callable[[str], int] | None = getattr(os, "memfd_create", None) if sys.platform == "linux" else None
    if create is not None:
        fd = create("penstock")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, SIZE)
    return fd


def _pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a worker and what it has started in its group, unless it was reaped: then the number may be another's."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()


def main_of_workers() -> tuple[str, str] | None:
    """Return how workers import `__main__` (`"name"`, `"path"`) and what; None if they cannot (a notebook, `-c`)."""
    main: ModuleType | None = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name = str(spec.name)
        return None if name.rpartition(".")[2] == "__main__" else ("name", name)
    path = getattr(main, "__file__", None)
    if not isinstance(path, str) or Path(path).stem == "ipython" or not Path(path).is_file():
        return None
    return "path", str(Path(path).absolute())
