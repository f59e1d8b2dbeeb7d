"""Break src/penstock/core in one place at a time, and see whether a test fails.

All tests are collected once. For each mutant a child is forked, in which the function's code is exchanged, and those
tests run that come by the changed lines, the quickest first, until one fails. What stands outside of functions takes a
process of its own. mutmut's own runner will not do: it leaves every decorated function alone, all of `@override`, and
its trampolines are frames that our tests of tracebacks, warnings and costs see.

Mutants are run in an order that is random, but always the same: whenever the time is up, those that have run are a
sample of all. Results are kept in `.mutate`; the next run goes on, and tries survivors again if the tests have changed.
A survivor that no test can kill is explained in explained.toml, and not tried again.
"""

# ruff: noqa: T201 -- a program that prints

import argparse
import contextlib
import gc
import hashlib
import importlib.abc
import importlib.util
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import types
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from mutants import Mutant, code_of, mutants_of  # noqa: E402 -- beside this file

CORE = ROOT / "src/penstock/core"
STATE = ROOT / ".mutate"
FAST = ("guarantees", "adversarial", "properties", "sources", "tasks")
"""The folders of tests that say much about the core in little time, beside the files in `tests` itself."""

APART = {"test_testing_conftest.py", "test_house.py", "test_readme.py", "test_docs.py", "test_examples.py"}
"""Files whose tests run other processes, where there is no mutant."""

SLOWEST = 5
"""Seconds; a test that takes longer is left out."""

TESTS = sorted(
    [path for folder in ("", *FAST) for path in (ROOT / "tests" / folder).glob("test_*.py") if path.name not in APART]
    + [ROOT / "tests/durable/test_memo.py"]  # whose results stand at the gate of a window
)
FIRST_PLACE, SECOND_PLACE = "asyncio-default", "asyncio-lazy"
SELECTION = f"{FIRST_PLACE} or {SECOND_PLACE} or not asyncio and not uvloop"
OPTIONS = [
    "-q",
    "-s",
    "--no-header",
    "--no-summary",
    "--tb=no",
    "--hypothesis-seed=0",
    "-k",
    SELECTION,
    *map(str, TESTS),
]
MEMORY = 2 << 30
SURVIVED, KILLED, NEEDS_A_PROCESS = 0, 1, 3


def main() -> int:
    options = arguments()
    os.chdir(ROOT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored, and tests send it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    if options.one:
        return run_one(json.loads(options.one.read_text()))
    mutants = kept("mutants", [*CORE.glob("*.py"), *HERE.glob("*.py"), HERE / "requirements.txt"], all_mutants)
    explained = explanations()
    stale = sorted(set(explained) - {mutant.key for mutant in mutants})
    for key in stale:
        print(f"explained, but there is no such mutant: {key}")
    if options.list or stale:
        print(*(mutant.key for mutant in mutants if options.list), sep="\n")
        return bool(stale)
    ledger = Ledger(fresh=options.fresh)
    wanted = [mutant for mutant in mutants if not options.only or mutant.module.rpartition(".")[2] in options.only]
    run = Run(wanted, explained, ledger, time.monotonic() + options.minutes * 60, options.jobs)
    if pytest.main(OPTIONS, plugins=[run]) not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        return 2
    return report(wanted, explained, ledger, sources={mutant.module: source_of(mutant) for mutant in wanted})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/mutate", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="the time to spend (%(default)g)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at a time (%(default)s)")
    parser.add_argument("--only", nargs="*", default=[], metavar="MODULE", help="modules of core, as `window order`")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--list", action="store_true", help="list the mutants by the keys that explained.toml uses")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def all_mutants() -> list[Mutant]:
    return [mutant for path in sorted(CORE.glob("*.py")) for mutant in mutants_of(path, f"penstock.core.{path.stem}")]


def kept(name: str, files, make):
    """What `make` makes, kept from an earlier run for as long as none of the files has changed."""
    place = STATE / f"{name}.pickle"
    digest = digest_of(files)
    with contextlib.suppress(FileNotFoundError, EOFError, ValueError):
        known, value = pickle.loads(place.read_bytes())
        if known == digest:
            return value
    value = make()
    STATE.mkdir(exist_ok=True)
    place.write_bytes(pickle.dumps((digest, value)))
    return value


def digest_of(files) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:16]


def explanations() -> dict[str, str]:
    groups = tomllib.loads((HERE / "explained.toml").read_text()).get("explained", [])
    return {key: group["why"] for group in groups for key in group["mutants"]}


def source_of(mutant: Mutant) -> str:
    return (CORE / f"{mutant.module.rpartition('.')[2]}.py").read_text()


class Ledger:
    """The results of this run and of earlier ones: a line of JSON for each, the last of a mutant counts."""

    def __init__(self, *, fresh: bool) -> None:
        STATE.mkdir(exist_ok=True)
        self._path = STATE / "results.jsonl"
        if fresh:
            self._path.unlink(missing_ok=True)
        self._tests = digest_of(TESTS)
        self._results = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                result = json.loads(line)
                self._results[result["key"], result["body"]] = result

    def add(self, mutant: Mutant, outcome: str, by: str) -> None:
        result = {"key": mutant.key, "body": mutant.body, "outcome": outcome, "by": by, "tests": self._tests}
        self._results[mutant.key, mutant.body] = result
        with self._path.open("a") as file:
            file.write(json.dumps(result) + "\n")

    def of(self, mutant: Mutant) -> dict[str, str] | None:
        return self._results.get((mutant.key, mutant.body))

    def is_open(self, mutant: Mutant, *, is_explained: bool) -> bool:
        result = self.of(mutant)
        if result is None:
            return True
        return result["outcome"] == "survived" and result["tests"] != self._tests and not is_explained


class Loop:
    """Takes the place of pytest's loop over the tests."""

    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings  # noqa: PLC0415 -- pytest must be the first to import it

        settings.register_profile("mutate", phases=[Phase.explicit, Phase.generate], database=None, deadline=None)
        settings.load_profile("mutate")


class Run(Loop):
    """Runs the tests on every mutant, as long as there is time."""

    def __init__(
        self, mutants: list[Mutant], explained: dict[str, str], ledger: Ledger, ends: float, jobs: int
    ) -> None:
        self._explained, self._ledger, self._ends, self._jobs = explained, ledger, ends, jobs
        pending = [mutant for mutant in mutants if ledger.is_open(mutant, is_explained=mutant.key in explained)]
        self._todo = deque(sorted(pending, key=lambda mutant: hashlib.sha256(mutant.key.encode()).digest()))
        self._sources = {mutant.module: source_of(mutant) for mutant in mutants}
        self._killers: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._fresh: set[str] = set()  # those that must be there from the import on

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session) -> bool:
        print(f"{len(self._todo)} mutants to run, {len(session.items)} tests; without a mutant first ...", flush=True)
        self._items = {item.nodeid: item for item in session.items}
        self._times, self._lines = baseline(session)
        running = {}
        try:
            self._run(running)
        finally:
            for child in running.values():
                child.end()
        return True

    def _run(self, running: "dict[int, Child]") -> None:
        while running or (self._todo and time.monotonic() < self._ends):
            while self._todo and len(running) < self._jobs and time.monotonic() < self._ends:
                child = self._start(self._todo.popleft())
                if child is not None:
                    running[child.pid] = child
            if running:
                pid, status = os.wait()
                if pid in running:
                    self._ended(running.pop(pid), status)

    def _start(self, mutant: Mutant) -> "Child | None":
        tests = self._tests_of(mutant)
        if not tests:
            self._note(mutant, "survived", "no test comes by")
            return None
        if mutant.key in self._fresh or not mutant.function:
            return Child(mutant, lambda place: run_in_a_process(mutant, tests, self._times, place))
        items = [self._items[test] for test in tests]
        return Child(mutant, lambda place: run_here(mutant, items, self._times, place))

    def _tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that come by the lines of the mutant, those first that have seen most, then the quickest."""
        lines = range(mutant.first, mutant.last + 1) if mutant.function else list(self._lines[mutant.module])
        found = {test for line in lines for test in self._lines[mutant.module].get(line, ())}
        found = {test for test in found if SECOND_PLACE not in test} or found
        return sorted(found, key=lambda test: (-min(self._killers[test], 3), self._times[test]))

    def _ended(self, child: "Child", status: int) -> None:
        by = child.end()
        code = os.waitstatus_to_exitcode(status)
        if code == NEEDS_A_PROCESS:
            self._todo.appendleft(child.mutant)
            self._fresh.add(child.mutant.key)
            return
        if code == SURVIVED:
            self._note(child.mutant, "survived", "")
            return
        self._killers[by] += 1
        self._note(child.mutant, "killed", by if code == KILLED else f"{by} (signal {-code})" if code < 0 else "?")

    def _note(self, mutant: Mutant, outcome: str, by: str) -> None:
        self._ledger.add(mutant, outcome, by)
        self._counts[outcome] += 1
        if outcome == "survived" and mutant.key not in self._explained:
            print(f"\nsurvived {by}\n{mutant.diff(self._sources[mutant.module])}", flush=True)
        done = self._counts.total()
        if done % 50 == 0:
            print(f"{done} run, {self._counts['killed']} killed, {len(self._todo)} to go", flush=True)


class Child:
    """A process of its own group, which is gone, with all that it has started and written, when `end` returns."""

    def __init__(self, mutant: Mutant, run) -> None:
        self.mutant = mutant
        self._place = Path(tempfile.mkdtemp(prefix="mutate-"))
        self.pid = os.fork()
        if self.pid:
            return
        code = NEEDS_A_PROCESS
        try:
            os.setpgid(0, 0)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            os.environ["PYTEST_DEBUG_TEMPROOT"] = str(self._place)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            code = run(self._place)
        except BaseException:  # noqa: BLE001 -- whatever gets out is the doing of the mutant
            code = KILLED
        finally:
            os._exit(code)

    def end(self) -> str:
        """The test that ran last."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        test = self._place / "test"
        name = test.read_text() if test.exists() else ""
        shutil.rmtree(self._place, ignore_errors=True)
        return name


def baseline(session):
    """How long each test takes, and which tests come by each line of core; without those that fail anyway."""
    seen = kept("baseline", [*TESTS, *(ROOT / "src").rglob("*.py")], lambda: watched_in_a_child(session.items))
    times, lines = {}, defaultdict(lambda: defaultdict(set))
    for test, (passed, seconds, came_by) in seen.items():
        if not passed:
            print(f"fails without a mutant, left out: {test}", flush=True)
            continue
        if seconds > SLOWEST:
            print(f"takes {seconds:.0f} s, left out: {test}", flush=True)
            continue
        times[test] = seconds
        for module, line in came_by:
            lines[module][line].add(test)
    return times, lines


def watched_in_a_child(items):
    found = STATE / "watched.json"
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        found.write_text(json.dumps(watched(items)))
        os._exit(0)
    os.waitpid(pid, 0)
    return json.loads(found.read_text())


def watched(items):
    """For each test whether it passes, its seconds, and the lines of core that it comes by."""
    monitoring, tool = sys.monitoring, sys.monitoring.COVERAGE_ID
    came_by = set()
    names = {str(path): f"penstock.core.{path.stem}" for path in CORE.glob("*.py")}

    def line(code, number):
        came_by.add((code.co_filename, number))  # and no DISABLE: to undo that for each test costs far more

    monitoring.use_tool_id(tool, "mutate")
    monitoring.register_callback(tool, monitoring.events.LINE, line)
    for code in codes():
        if code.co_filename in names:
            monitoring.set_local_events(tool, code, monitoring.events.LINE)
    seen = {}
    for item in items:
        came_by.clear()
        began = time.monotonic()
        passed = passes(item)
        seen[item.nodeid] = passed, time.monotonic() - began, [(names[file], line) for file, line in came_by]
    return seen


def codes():
    """The code of every function that there is, and of those inside it."""
    todo = [each.__code__ for each in gc.get_objects() if isinstance(each, types.FunctionType)]
    while todo:
        code = todo.pop()
        yield code
        todo += [const for const in code.co_consts if isinstance(const, types.CodeType)]


def passes(item) -> bool:
    failed = item.session.testsfailed
    item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
    return item.session.testsfailed == failed


def run_here(mutant: Mutant, items, times, place: Path) -> int:
    """Exchange the code of the function and run the tests, in this process."""
    function = sys.modules[mutant.module]
    for name in mutant.function.split("."):
        function = vars(function)[name]
    function = getattr(function, "fget", None) or getattr(function, "__func__", function)
    code = code_of(mutant, function.__code__.co_filename)
    if code is None or len(code.co_freevars) != len(function.__code__.co_freevars):
        return NEEDS_A_PROCESS
    function.__code__ = code
    return run_tests(items, times, place)


def run_tests(items, times, place: Path) -> int:
    for item in items:
        (place / "test").write_text(item.nodeid)
        signal.setitimer(signal.ITIMER_REAL, 10 + 10 * times[item.nodeid])  # a test that hangs: the signal ends us
        if not passes(item):
            return KILLED
    return SURVIVED


def run_in_a_process(mutant: Mutant, tests, times, place: Path) -> NoReturn:
    order = place / "order"
    order.write_text(json.dumps([mutant.module, mutant.source, [(test, times[test]) for test in tests], str(place)]))
    os.execv(sys.executable, [sys.executable, __file__, "--one", str(order)])


def run_one(order) -> int:
    """Run the tests with a mutant from the import on."""
    module, source, tests, place = order
    sys.meta_path.insert(0, Mutated(module, source))
    one = One(dict(tests), Path(place))
    signal.setitimer(signal.ITIMER_REAL, 300)  # for the import and the collection
    if pytest.main(OPTIONS, plugins=[one]) == pytest.ExitCode.INTERNAL_ERROR:
        return KILLED
    return one.outcome


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the mutant in the place of its module."""

    def __init__(self, module: str, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self, origin=self._module) if name == self._module else None

    def get_source(self, fullname):
        return self._source


class One(Loop):
    """Runs the tests on one mutant that was there from the import on; one that cannot be imported is killed."""

    def __init__(self, tests, place: Path) -> None:
        self._tests, self._place = tests, place
        self.outcome = KILLED

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session) -> bool:
        items = {item.nodeid: item for item in session.items}
        self.outcome = run_tests([items[test] for test in self._tests if test in items], self._tests, self._place)
        return True


def report(mutants, explained, ledger, sources) -> int:
    rows, unexplained, wrong = {}, [], []
    for mutant in mutants:
        row = rows.setdefault(mutant.module, Counter())
        row["made"] += 1
        result = ledger.of(mutant)
        if result is None:
            continue
        row["run"] += 1
        row[result["outcome"]] += 1
        if result["outcome"] == "survived":
            row["explained"] += mutant.key in explained
            if mutant.key not in explained:
                unexplained.append(mutant)
        elif mutant.key in explained:
            wrong.append(f"explained as one that no test can kill, but killed by {result['by']}: {mutant.key}")
    columns = ("made", "run", "killed", "survived", "explained")
    print("\nsurvivors without an explanation:" if unexplained else "")
    for mutant in unexplained:
        print(f"\n{mutant.diff(sources[mutant.module])}\n{mutant.key}")
    print(*wrong, sep="\n")
    rows["all"] = sum(rows.values(), Counter())
    print(f"{'':24}", *(f"{column:>10}" for column in columns), "    score")
    for name, row in rows.items():
        score = f"{(row['killed'] + row['explained']) / row['run']:>8.1%}" if row["run"] else ""
        print(f"{name:24}", *(f"{row[column]:>10,}" for column in columns), score)
    return int(bool(unexplained or wrong))


if __name__ == "__main__":
    sys.exit(main())
