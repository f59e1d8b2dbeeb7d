"""Finds the child processes of this one."""

import multiprocessing
import sys
from contextlib import suppress
from pathlib import Path

_THREADS = Path("/proc/self/task")
"""Where Linux lists the children of each thread. Elsewhere only children of `multiprocessing` are known."""


def children() -> set[int]:
    """Return their process ids, without the two helpers that `multiprocessing` keeps until the interpreter ends."""
    if not _THREADS.is_dir():
        return {child.pid for child in multiprocessing.active_children() if child.pid is not None}
    pids: set[int] = set()
    for listing in _THREADS.glob("*/children"):
        with suppress(OSError):  # of a thread that has just ended
            pids.update(map(int, listing.read_text().split()))
    return pids - _housekeepers()


def describe_process(pid: int) -> str:
    """Return the number of a process and, if it can be found out, its command."""
    with suppress(OSError):
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    return f"process {pid}"


def _housekeepers() -> set[int | None]:
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    server = sys.modules.get("multiprocessing.forkserver")
    return {
        getattr(getattr(tracker, "_resource_tracker", None), "_pid", None),
        getattr(getattr(server, "_forkserver", None), "_forkserver_pid", None),
    }
