"""How tests run: coroutine tests in virtual time, on the whole grid of loops and task factories where it matters.

A test fails on anything that it leaves behind: tasks, timers, async generators, threads, processes, exceptions that
nobody retrieved, warnings. It may take `clock`, its virtual clock, and `run`, which runs a coroutine at the test's
place on the grid. Under `@given` a coroutine test gets a new loop and a new clock for each example.
"""

import functools
import gc
import importlib
import importlib.util
import inspect
import runpy
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock import testing
from penstock.core import clock as clocks

MEMORY = Path("/dev/shm")

GRID_FOLDERS = {"guarantees", "adversarial", "oracles"}

MARKERS = (
    "grid: run on every loop with every task factory, as all tests in GRID_FOLDERS do",
    "real_time: run in real time, for work with processes and sockets",
    "slow: left out by --quick",
    "quick: not left out by --quick, though its module is slow",
)


@dataclass(frozen=True)
class Place:
    """A loop, and how tasks start on it."""

    loop: testing.LoopName = "asyncio"
    tasks: testing.TaskStart = "default"


NO_UVLOOP = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")

GRID = [
    pytest.param(Place(loop, tasks), id=f"{loop}-{tasks}", marks=[NO_UVLOOP] if loop == "uvloop" else [])
    for loop in testing.LOOPS
    for tasks in testing.TASK_FACTORIES
]


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="one place of the grid, and no test that is marked as slow")
    parser.addoption("--places", help="the places of the grid, as asyncio-default,uvloop-eager; all of them by default")
    parser.addoption("--failed-to", type=Path, help="the file to which the names of tests that fail are written")


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as under nohup: programs that tests start would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("failed_to") is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailedTests(config.getoption("failed_to")))
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_sessionfinish():
    gc.unfreeze()


class FailedTests:
    """Writes the names of tests that fail to a file, a line each: `pytest @FILE` runs them again."""

    def __init__(self, path):
        self.path = path
        path.write_text("")

    def pytest_runtest_logreport(self, report):
        if report.failed:
            with self.path.open("a") as file:
                print(report.nodeid, file=file)


def pytest_generate_tests(metafunc):
    folders = Path(metafunc.module.__file__).relative_to(Path(__file__).parent).parts[:-1]
    wanted = metafunc.definition.get_closest_marker("grid") or GRID_FOLDERS.intersection(folders)
    if wanted and (coroutine_of(metafunc.function) or "run" in metafunc.fixturenames):
        metafunc.parametrize("place", places_of(metafunc.config), indirect=True)


def places_of(config):
    """The places of the grid that are wanted."""
    named = config.getoption("places")
    if named is None:
        return GRID[:1] if config.getoption("quick") else GRID
    known = {place.id: place for place in GRID}
    if unknown := set(named.split(",")) - known.keys():
        raise pytest.UsageError(f"--places: there are {', '.join(known)}, got {', '.join(unknown)}")
    return [known[name] for name in named.split(",")]


def pytest_collection_modifyitems(config, items):
    if config.getoption("quick"):
        slow = {item for item in items if item.get_closest_marker("slow") and not item.get_closest_marker("quick")}
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    coroutine = coroutine_of(pyfuncitem.obj)
    if coroutine is None:
        return None
    arguments = pyfuncitem.funcargs
    run = runner(pyfuncitem, arguments["place"])
    if coroutine is not pyfuncitem.obj:
        pyfuncitem.obj.hypothesis.inner_test = in_own_run(run, coroutine)
        return None
    if "clock" in arguments:
        run = functools.partial(run, clock=arguments["clock"])
    run(coroutine(**{name: arguments[name] for name in inspect.signature(coroutine).parameters}))
    return True


@pytest.fixture(autouse=True)
def leftovers():
    """Fails a test for what it leaves behind, and has what it did not close warn now, not in a later test."""
    gc.freeze()  # what is older than the test costs its collections nothing
    with testing.Leftovers():
        yield
        gc.collect()


@pytest.fixture
def memory(tmp_path):
    """A folder in memory, if there is one: for tests that write many files, where waiting for a disk proves nothing."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="penstock-") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def place(request):
    return getattr(request, "param", Place())


@pytest.fixture
def clock():
    return testing.Clock()


TURNING = ("streams", "engines.thread_source")
"""What imports all modules that look at the clock of turns."""


class TurnClock:
    """Stands in for `penstock.core.clock.now`; `step()` gives the seconds that a look at it takes."""

    def __init__(self):
        self.now = 0.0
        self.step = lambda: 1e-7  # turns end, by the number of looks

    def __call__(self):
        self.now += self.step()
        return self.now


@pytest.fixture(autouse=True)
def turn_clock(request, monkeypatch):
    """The clock by which a run gives others their turns: looks move it on, so that a busy machine changes no order."""
    for name in TURNING:
        importlib.import_module(f"penstock.{name}")  # first imported in a test, it would keep the clock of that
    real, fake = clocks.now, TurnClock()
    if request.node.get_closest_marker("real_time"):
        return None
    for name, module in list(sys.modules.items()):
        if name.startswith("penstock.") and getattr(module, "now", None) is real:
            monkeypatch.setattr(module, "now", fake)
    return fake


@pytest.fixture
def run(request, place):
    return runner(request.node, place)


@pytest.fixture
def read_until_error():
    """Read an opened stream; gives the items, and the error that ended them, or None."""

    async def read(items):
        seen = []
        try:
            async with items:
                async for item in items:
                    seen.append(item)  # noqa: PERF401 -- a comprehension would lose them at the error
        except BaseException as error:  # noqa: BLE001 -- it is what the test looks at
            return seen, error
        return seen, None

    return read


def runner(item, place):
    run = testing.run_in_real_time if item.get_closest_marker("real_time") else testing.run
    return functools.partial(run, loop=place.loop, tasks=place.tasks)


def coroutine_of(test):
    """The coroutine function that a test is, or that hypothesis has wrapped in it."""
    given = getattr(test, "hypothesis", None)
    function = test if given is None else inspect.unwrap(given.inner_test)
    return function if inspect.iscoroutinefunction(function) else None


def in_own_run(run, coroutine):
    @functools.wraps(coroutine)
    def example(*args, **kwargs):
        run(coroutine(*args, **kwargs))

    return example


@pytest.fixture
def demo_server():
    """The URL of the server that programs of the documents talk to, here on a port that is free."""
    demo = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "demo_server.py"))
    with demo["serving"]({**demo["SHOP"], "/v1/chat/completions": demo["chat"]()}) as url:
        yield url


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of our own, for all tests of this process."""
    from tests.postgres import server  # noqa: PLC0415 -- its library is an extra

    with server() as started:
        yield started
