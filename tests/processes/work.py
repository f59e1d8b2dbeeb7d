"""Functions that run in workers, and what tests of workers share."""

import asyncio
import atexit
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path

from penstock.engines import Call, processes


def double(number):
    return 2 * number


def give(value):
    return value


def pid(_=None):
    return os.getpid()


def hang(begun=None):
    """For an hour; a file of the name `begun` says that the call has begun, where `since` may be a little early."""
    if begun:
        Path(begun).touch()
    time.sleep(3600)


def hang_in_c(_=None):
    """With the lock of the interpreter held."""
    ctypes.PyDLL(None).sleep(3600)


def wait_for(path):
    """Until there is a file of that name, which says what to return; one with `.begun` says that the call has begun."""
    Path(f"{path}.begun").touch()
    while not Path(path).exists():
        time.sleep(0.002)
    return Path(path).name


def killed(_=None):
    os.kill(os.getpid(), signal.SIGKILL)


def exited(_=None):
    os._exit(3)


def crashed(_=None):
    ctypes.string_at(0)


def aborted(_=None):
    os.abort()


def raises(error):
    raise error


def raises_kind(kind):
    raise kind("mine")


def numbered(count):
    yield from range(count)


def start_sleeper(_=None):
    """The number of a process that was started, and goes on."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid


def printed(text):
    print(text)  # noqa: T201 -- that is the test


STATE = []


def load():
    STATE.append(f"loaded in {os.getpid()}")


def state(_=None):
    return list(STATE)


def fail_to_load():
    raise ValueError("no model")


class Awkward(Exception):
    """Its `__init__` takes other arguments than it passes on."""

    def __init__(self, code, place):
        super().__init__(f"code {code} at {place}")
        self.code = code
        self.place = place


class Changed(Exception):
    """It can be made again, and is another one then."""

    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code


class Locked(Exception):
    """It cannot be pickled."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class Unloadable:
    """It can be pickled, not loaded."""

    def __reduce__(self):
        return (explode, ())


def explode():
    raise ValueError("not here")


def make_unloadable(_=None):
    return OnlyThere(os.getpid())


class OnlyThere:
    """It can be loaded in the process that made it."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return (only_there, (self.number,))


def only_there(number):
    if number != os.getpid():
        raise LookupError("made elsewhere")
    return OnlyThere(number)


def lock(_=None):
    return threading.Lock()


def raise_awkward(_=None):
    raise Awkward(7, "home")


def raise_changed(_=None):
    raise Changed(7)


def raise_locked(_=None):
    raise Locked("mine")


def raise_with_cause(_=None):
    try:
        raise KeyError("first")  # noqa: TRY301 -- as users do
    except KeyError as error:
        wrong = ValueError("second")
        wrong.add_note("a note")
        raise wrong from error


def raise_in_context(_=None):
    try:
        raise KeyError("first")  # noqa: TRY301 -- as users do
    except KeyError:
        raise ValueError("second")  # noqa: B904 -- the context is wanted


def raise_hidden_context(_=None):
    try:
        raise KeyError("first")  # noqa: TRY301 -- as users do
    except KeyError:
        raise ValueError("second") from None


def fork_and_return(path):
    """Both the worker and its child come back."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    return path


def cannot_write(array):
    array[0] = 7
    return array


@asynccontextmanager
async def calling(workers=1, initializer=None):
    """An engine, and a function by which one makes calls of it: a group, each a function and its argument."""
    async with processes(workers, initializer) as engine:
        prepared = {}

        def submit(*calls):
            found = []
            for fn, *arguments in calls:
                if fn not in prepared:
                    prepared[fn] = engine.prepare(fn)
                found.append(Call(prepared[fn], tuple(arguments)))
            return engine.submit(found)

        yield engine, submit


async def until(condition):
    """Wait until it holds, at most as long as a test may take on a machine that has much to do."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 -- it is another process that it waits for
            await asyncio.sleep(0.002)


def alive(number):
    """Whether there is a process of that number that is not just a zombie of somebody else's."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def exited_at_start():
    os._exit(3)


def sleep_at_exit():
    atexit.register(time.sleep, 3600)


def close_all(_=None):
    os.closerange(3, 100)


def mark(call):
    """Write that a call has begun; it takes so many microseconds, and gives so many bytes."""
    path, number, microseconds, size = call
    if not mark.opened:
        mark.opened.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    os.write(mark.opened[0], b"%d\n" % number)
    end = time.perf_counter() + microseconds * 1e-6
    while time.perf_counter() < end:
        pass
    return number, b"x" * size


mark.opened = []


def is_odd(number):
    return number % 2


def twice(number):
    yield number
    yield number


def twice_each(numbers):
    for number in numbers:
        yield 2 * number


def fail_at_three(number):
    if number == 3:
        raise ValueError("three")
    return number


def hang_at_three(number):
    if number == 3:
        time.sleep(3600)
    return number


def exit_at_three(number):
    if number == 3:
        os._exit(1)
    return number


def kill_at_three_once(call):
    number, path = call
    if number == 3 and not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail_first(path):
    with Path(path).open("a") as file:
        file.write("x")
    if Path(path).stat().st_size == 1:
        raise ConnectionError(path)
    return Path(path).stat().st_size


def row(item):
    return {"n": exit_at_three(item["n"]), "square": item["n"] ** 2}


def links(_=None):
    """What the descriptors of this process lead to, but for the standard ones."""
    found = (Path(f"/proc/self/fd/{fd}") for fd in range(3, 100))
    return [str(link.readlink()) for link in found if link.is_symlink()]


_KEPT = []


def keep_every_third(array):
    """Give the array; keep a part of each third one in the worker."""
    if array[0] % 3 == 0:
        _KEPT.append(array[5:].reshape(-1, 5)[1])
    return array


def kept_by_worker():
    """What values those have that are kept."""
    return [sorted(set(array.tolist())) for array in _KEPT]


def alone_by_name(item):
    """Give the name of the item; fails if another of that name is under way. `a` ends when `b` has begun."""
    directory, name = item
    own = directory / name
    own.mkdir()
    while name == "a" and not (directory / "b").exists():
        time.sleep(0.001)
    if name == "a":
        own.rmdir()
    return name
