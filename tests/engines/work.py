"""Functions for threads and workers of any kind: what holds a call up is a file that is not there."""

import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path


def wait_for(path):
    while not path.exists():
        time.sleep(0.002)  # in a worker, whose only sign from outside is a file


def wait_for_profiles():
    """Wait for the threads of a Dask scheduler that is over: they look every 20 ms whether it is."""
    for thread in threading.enumerate():
        if thread.name == "Profile":
            thread.join()


def work(folder, held, item):
    """Give the item; say that it has begun, and wait for the file of a held one."""
    (Path(folder) / f"began-{item}").touch()
    if item in held:
        wait_for(Path(folder) / f"go-{item}")
    return item


def same(item):
    return item


def value_of(index):
    return VALUES[index]


VALUES = [None, False, 0, "", [], ValueError("as a value"), b"", {"key": None}]


def fail(item):
    if item % 5 == 3:
        raise ValueError(item)
    return item


def fail_of(kind, item):
    if item == 3:
        raise kind("mine")
    return item


def fail_once(folder, item):
    tried = Path(folder) / f"tried-{item}"
    if not tried.exists():
        tried.touch()
        raise OSError("once")
    return item


def kill(item):
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def fan(item):
    yield from [item] * (item % 3)


def doubled(items):
    return [2 * item for item in items]


def is_odd(item):
    return item % 2 == 1


def is_odd_or_fail(item):
    return is_odd(fail(item))


def fan_or_fail(item):
    yield from [fail(item)] * (item % 4)


def fail_in_one(items):
    return list(map(fail, items))


def knows_penstock(_):
    return any(name.split(".")[0] == "penstock" for name in sys.modules)


class Refused(Exception):
    """Its `__init__` passes on fewer arguments than it takes, and it has an attribute."""

    def __init__(self, text, code):
        super().__init__(text)
        self.code = code


def fail_with(item):
    raise Refused("refused", item)


def process(_):
    return os.getpid()


def fork_and_return(item):
    """How a child has ended that returned."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Dask has threads
        child = os.fork()
    return item if not child else os.waitpid(child, 0)[1]


def kill_once(folder, item):
    killed = Path(folder) / "killed"
    if item == 30 and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": item}
