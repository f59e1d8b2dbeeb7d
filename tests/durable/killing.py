# ruff: noqa: T201 -- a program that prints
"""Kills durable runs and starts them again: at named points of the protocol, at writes, and at random times.

    python -m tests.durable.killing PROGRAM SEED KILLS [TWIN]      prints what came of it, as JSON

One process that has everything imported forks a child for each life of a run, so that a kill costs milliseconds.
"""

import asyncio
import ctypes
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial, wraps
from pathlib import Path
from time import perf_counter

from penstock.durable import delivery
from penstock.durable.ledger import Ledger
from penstock.durable.roots import Bundle
from penstock.durable.sqlite.death_tables import SqliteDeaths
from penstock.durable.sqlite.journal import SqliteJournal
from penstock.durable.staging import Staging
from penstock.durable.writer import Writer
from penstock.sinks.callback import CallbackStore
from penstock.sinks.sqlite_store import SqliteStore
from penstock.sinks.table import TableStore
from penstock.sinks.vectors import VectorStore
from penstock.testing.loops import new_real_loop
from penstock.testing.processes import children

from .looking import copied, look
from .programs import PROGRAMS, Item, Life, into_a_function
from .recording import Recorder, pass_readers_by
from .wrong import TWINS

POINTS = (
    ("migration", SqliteJournal, "prepare"),
    ("opening of the run", SqliteJournal, "begin"),
    ("dispatch of a root", Ledger, "_admit"),
    ("taking of a row", delivery.Deliverer, "_take"),
    ("taking of new roots together", delivery.Deliverer, "_take_bundle"),
    ("end of a root", Writer, "add"),
    ("note that a root is settled", SqliteJournal, "settle"),
    ("note that new roots are settled", SqliteJournal, "settle_new"),
    ("rows of a root", TableStore, "replace"),
    ("rows of new roots", TableStore, "add"),
    ("rows of a root", VectorStore, "replace"),
    ("handing over of rows", CallbackStore, "send"),
    ("note of a dispatch", SqliteDeaths, "dispatch"),
    ("acquittal of a suspect", SqliteDeaths, "acquit"),
    ("staging of rows", Staging, "put"),
    ("end of staging", Staging, "drop"),
    ("acknowledgement", delivery.Deliverer, "_committed"),
    ("removal of a missing root", SqliteJournal, "forget"),
    ("close of the run", SqliteJournal, "close_run"),
    ("close of the store", SqliteStore, "close"),
)
"""Steps of the protocol, by the methods that take them: each is a point before and a point after."""

WRITE, TORN, TIME = "write to a file", "write, half of it", "random time"

PR_SET_CHILD_SUBREAPER = 36

PLACE = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a kill loses nothing of what the system has, on disk or not

LOOPS = ("asyncio", "asyncio", "uvloop") if importlib.util.find_spec("uvloop") else ("asyncio",)

ROOTS = 24
LIMIT = 60.0
"""Seconds after which a life counts as hung."""


@dataclass(frozen=True)
class Death:
    """Where a life ends: the nth time that it comes to a point, or after so many seconds."""

    where: str = ""
    nth: int = 0
    seconds: float = LIMIT


class Points:
    """Counts how often a process comes to each point, and kills it there.

    Where a worker of it comes to the point, in which a root runs alone, it is the run that is killed.
    """

    def __init__(self, death):
        self._death = death
        self._process = os.getpid()
        self.seen = Counter()

    def reached(self, point):
        self.seen[point] += 1
        if point == self._death.where and self.seen[point] == self._death.nth:
            os.kill(self._process, signal.SIGKILL)

    def __getstate__(self):
        return self._death, self._process, self.seen

    def __setstate__(self, state):
        self._death, self._process, self.seen = state

    def watch(self):
        for name, owner, method in POINTS:
            setattr(owner, method, self._around(name, getattr(owner, method)))
        SqliteStore.transaction = self._around_transactions(SqliteStore.transaction)
        self._recorder = Recorder(self._written)
        pass_readers_by()

    def _written(self, op, file, offset, data):
        """Die before a write, or when half of it has been written."""
        self.reached(WRITE)
        if op == "write" and self._death.where == TORN and self.seen[TORN] == self._death.nth - 1:
            descriptor = os.open(file, os.O_WRONLY)
            os.pwrite(descriptor, data[: len(data) // 2], offset)
        self.reached(TORN)

    def _around(self, name, function):
        @wraps(function)
        def watched(*args, **options):
            self.reached(f"before the {name}")
            result = function(*args, **options)
            self.reached(f"after the {name}")
            return result

        return watched

    def _around_transactions(self, transaction):
        @contextmanager
        def watched(store):
            self.reached("before a transaction")
            with transaction(store):
                self.reached("inside a transaction")
                yield
                self.reached("before a commit")
            self.reached("after a commit")

        return watched


# The child


async def run_to_the_end(program, life, items):
    return await program.stream(life, items).to(program.sink(life), run="run", **dict(program.to))


def live(program, items, folder, number, seed, death):
    """Be a life: run to the end, unless death comes first."""
    life = Life(number, folder, seed)
    points = Points(death)
    be_watched(points, program.held, life)
    life.begin = partial(be_watched, points, program.held)
    loop = LOOPS[int(seed * 1000) % len(LOOPS)]
    with asyncio.Runner(loop_factory=partial(new_real_loop, loop)) as runner:
        report = runner.run(run_to_the_end(program, life, items))
    roots = report.delivered + report.already_done + report.dead + report.dead_before
    (folder / "end").write_text(json.dumps({"seen": points.seen, "complete": report.complete, "roots": roots}))


def be_watched(points, held, life):
    """Have this process die at its point, and note what it has committed."""
    points.watch()
    committed = Ledger.committed

    def acknowledged(ledger, root):
        committed(ledger, root)
        for each in root.roots() if isinstance(root, Bundle) else (root,):
            life.note("acknowledged", f"{each.key}.{each.version}")

    Ledger.committed = acknowledged
    if held:
        delivery.HELD = held


def forked(function, seconds):
    """Run a function in a child, killed after so many seconds; how it ended, and how long it took."""
    began = perf_counter()
    pid = os.fork()
    if not pid:
        code = 1
        with suppress(BaseException):
            try:
                function()
                code = 0
            except BaseException:  # noqa: BLE001 -- it is printed, and the process ends
                traceback.print_exc()
        os._exit(code)
    watched = os.pidfd_open(pid)
    try:
        if not select.select([watched], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(watched)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), perf_counter() - began


def adopt():
    """Become the parent of processes whose own has died."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_for_orphans(others):
    """Wait until the processes have ended that a process has left behind, but for `others`; those that have not."""
    ends = perf_counter() + LIMIT
    while left := children() - others():
        for pid in left:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if perf_counter() > ends:
            return left
    return set()


def nobody():
    return set()


# The campaign


@dataclass
class Tally:
    """What came of kills at one point.

    Attributes:
        kills: how many there were.
        open: roots that were dispatched and not settled at the kills.
        redone: of those, roots that the next life called again.
        lost: rows that were not there and should have been.
        duplicated: rows that were there and should not have been.
    """

    kills: int = 0
    open: int = 0
    redone: int = 0
    lost: int = 0
    duplicated: int = 0


@dataclass
class Campaign:
    """Kills one program, in one world after another, until there were so many kills."""

    program: str
    seed: int
    tallies: dict[str, Tally] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    worlds: int = 0
    lives: int = 0

    def __post_init__(self):
        self._random = random.Random(f"{self.program} {self.seed}")
        self._typical = {}  # by how many lives before were killed: how often a whole life came to each point
        self._seconds = 0.0

    @property
    def kills(self):
        return sum(tally.kills for tally in self.tallies.values())

    def run(self, kills):
        """Kill so often, up to six times in a world, and run each world to its end."""
        self._in_a_world(0)
        while self._typical and self.kills < kills and len(self.problems) < 5:
            self._in_a_world(min(self._random.choice((1, 1, 2, 2, 3, 6)), kills - self.kills))

    def choose(self, kills):
        """A death at the point that has seen the fewest, of those that a life comes to after so many kills."""
        typical = self._typical[max(known for known in self._typical if known <= kills)]
        seen = {point: self.tallies.get(point, Tally()).kills for point in [TIME, *sorted(typical)]}
        fewest = min(seen.values())
        point = self._random.choice([point for point, number in seen.items() if number == fewest])
        if point == TIME or self._random.random() < 0.1:
            return TIME, Death(seconds=self._random.uniform(0, 1.1 * self._seconds))
        return point, Death(point, 1 + int(typical[point] * self._random.random() ** 2))

    def _in_a_world(self, kills):
        """Kill so often in a new world, and live to its end."""
        self.worlds += 1
        world = World(PROGRAMS[self.program], Path(tempfile.mkdtemp(prefix="penstock-kills-", dir=PLACE)), self._random)
        killed_at = {}
        try:
            for _ in range(4 * kills):
                point, death = self.choose(world.unclean)
                self._live(world, point, death, killed_at)
                if len(killed_at) == kills or world.problems or (world.is_at_its_end and not world.may_go_on):
                    break
            if not world.problems and not world.is_at_its_end:
                self._live(world, None, Death(), killed_at)
            if not world.problems and not world.is_at_its_end:
                world.problems.append("not at its end after a life without a death")
        finally:
            self.problems += [
                f"{self.program}, seed {self.seed}, world {self.worlds}: {each}" for each in world.problems
            ]
            world.leave()

    def _live(self, world, point, death, killed_at):
        self.lives += 1
        before = world.unclean
        killed = world.live(death)
        if world.ended is not None:
            typical = self._typical.setdefault(before, Counter())
            for name, seen in world.ended["seen"].items():
                typical[name] = max(typical[name], seen)
            self._seconds = max(self._seconds, world.seconds)
        for life, roots in world.redone.items():
            killed_at[life].redone += roots
        if killed:
            tally = killed_at[world.lives] = self.tallies.setdefault(point, Tally())
            tally.kills += 1
            tally.open += world.open
            tally.lost += world.look.lost
            tally.duplicated += world.look.duplicated


class World:
    """A run in a folder of its own, from its first life to its end."""

    def __init__(self, program, folder, chances):
        self.program = program
        self.folder = folder
        self.problems = []
        self.look = look(folder / "none.db", program.expected)
        self.ended = None
        self.seconds = 0.0
        self.open = 0
        self.redone = Counter()  # roots called again, by the life that had called them before
        self.is_at_its_end = False
        self.unclean = 0  # how many lives in a row were killed, 2 at most: then there are suspects
        self._random = chances
        self._items = [Item(f"r{n:03}", 0) for n in range(ROOTS)]
        self._here = self._items
        self._sent = {}  # by root and version: the rows that were handed over, by their names
        self._names = {}
        self._called = {}  # in which life a root was called last, if it is not settled
        self.lives = 0
        self._read = 0

    @property
    def may_go_on(self):
        return bool(self.program.changes or self.program.vanishes)

    def live(self, death):
        """Live until the end or the death; whether it was killed."""
        self._change()
        self.lives += 1
        (self.folder / "end").unlink(missing_ok=True)
        seed = self._random.random()
        life = partial(live, self.program, self._here, self.folder, self.lives, seed, death)
        code, self.seconds = forked(life, death.seconds)
        killed = code == -signal.SIGKILL
        if left := wait_for_orphans(self._grandchildren):
            self.problems.append(f"life {self.lives} has left processes behind: {left}")
        if code not in {0, -signal.SIGKILL} or (killed and self.seconds >= LIMIT):
            self.problems.append(f"life {self.lives} ended with {code} after {self.seconds:.1f} s")
        end = self.folder / "end"
        self.ended = json.loads(end.read_text()) if end.exists() and not killed else None
        self._examine(killed)
        self.unclean = min(self.unclean + 1, 2) if killed else 0
        return killed

    def leave(self):
        """Remove it, and those who live on."""
        for pid in self._grandchildren():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for_orphans(nobody)
        shutil.rmtree(self.folder)

    def _grandchildren(self):
        listing = self.folder / "grandchildren"
        return set(map(int, listing.read_text().split())) if listing.exists() else set()

    def _change(self):
        chances, program = self._random, self.program
        if self.lives:
            self._items = [Item(item.key, item.version + (chances.random() < program.changes)) for item in self._items]
            self._here = [item for item in self._items if chances.random() >= program.vanishes]

    def _examine(self, killed):
        """Look at a copy, as a reader would who came now, and compare with what was called and acknowledged."""
        before = self.look.settled
        called, acknowledged = self._notes()
        sent = self._sent if self.program.sink is into_a_function else None
        copy = copied(self.folder / "run.db", self.folder / "looks")
        self.look = now = look(copy, self.program.expected, sent, keeps=self.program.keeps)
        self.problems += [f"life {self.lives}: {problem}" for problem in now.problems]
        if now.lost or now.duplicated:
            self.problems.append(f"life {self.lives}: {now.lost} rows lost, {now.duplicated} duplicated")
        here = self.program.keyed(self._here)
        names = {item.text: (key, str(item.version)) for key, item in here.items()}
        called = {names[".".join(text.split(".")[:2])] for text in called}
        done = {(key, version) for key, (version, _) in before.items()}
        if again := called & done:
            self.problems.append(f"life {self.lives}: called again although settled: {sorted(again)}")
        settled = {(key, version) for key, (version, _) in now.settled.items()}
        if unknown := acknowledged - {f"{key}.{version}" for key, version in settled}:
            self.problems.append(f"life {self.lives}: acknowledged and not there: {sorted(unknown)}")
        self.redone = Counter(self._called[root] for root in called if root in self._called)
        self.open = len(called - settled)
        self._called.update(dict.fromkeys(called, self.lives))
        for root in settled & self._called.keys():
            del self._called[root]
        self.is_at_its_end = not killed and now.clean and bool(self.ended and self.ended["complete"])
        if self.is_at_its_end:
            self._examine_end(here)

    def _examine_end(self, here):
        now = self.look
        if missing := [key for key, item in here.items() if now.settled.get(key, ("",))[0] != str(item.version)]:
            self.problems.append(f"at the end, not settled in their versions: {missing}")
        if self.ended["roots"] != len(here):
            self.problems.append(f"at the end, the report speaks of {self.ended['roots']} roots, there are {len(here)}")
        over = now.settled.keys() - here.keys()
        if over and dict(self.program.to).get("on_missing") == "delete":
            self.problems.append(f"at the end, settled and not there any more: {sorted(over)}")

    def _note_sent(self, key, version, index, name, text):
        """A row may be handed over more than once, but it is the same row then, under the same name."""
        self._sent.setdefault((key, version), {})[name] = text
        if self._names.setdefault((key, version, index), name) != name:
            self.problems.append(f"row {index} of {key} in version {version} was handed over under two names")

    def _notes(self):
        """Read what this life has noted: the texts that were called, the roots that were acknowledged."""
        called, acknowledged = [], set()
        path = self.folder / "calls"
        if path.exists():
            with path.open() as file:
                file.seek(self._read)
                notes = file.read()
                self._read = file.tell()
            for line in notes.splitlines():
                kind, life, text = line.split(" ", 2)
                if int(life) != self.lives:
                    self.problems.append(f"life {self.lives}: {line!r} is of another life")
                if kind == "called":
                    called.append(text)
                elif kind == "acknowledged":
                    acknowledged.add(text)
                else:
                    self._note_sent(*text.split(" "))
        return called, acknowledged


def campaign(program, seed, kills):
    """Run a campaign in this process, which must have one thread and no connection open."""
    made = Campaign(program, seed)
    made.run(kills)
    return made


def main():
    program, seed, kills, twin, *_ = (*sys.argv[1:], "")
    if twin:
        TWINS[twin]()
    adopt()
    made = campaign(program, int(seed), int(kills))
    print(json.dumps(asdict(made)))


if __name__ == "__main__":
    main()
