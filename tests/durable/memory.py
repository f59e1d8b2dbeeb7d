"""A store of durable runs in memory: the contract of `penstock.durable.store`, kept without SQLite.

What is committed is one object. A transaction changes a copy of it and puts that in its place. It stands for what
outlives a process: `Memory.restart()` is `kill -9` of whoever writes to it.
"""

from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from time import time
from typing import NamedTuple

from penstock.durable.letters import DeadLetter
from penstock.durable.note import note_key
from penstock.durable.owner import owner
from penstock.durable.roots import DEAD, DONE, Key, RootId
from penstock.durable.store import DeadRecord, Death, KnownRoots, RootCount, RunRecord, Suspect
from penstock.durable.store_errors import HeldError, RowError, StoreError


class Settled(NamedTuple):
    """A root."""

    number: int
    version: str
    state: int
    times: int
    position: int
    rows: int = 0
    letters: tuple[DeadLetter, ...] = ()


@dataclass
class Content:
    """All that is committed; nothing in these tables is changed in place."""

    runs: dict[int, RunRecord] = field(default_factory=dict)
    stages: dict[int, list] = field(default_factory=dict)
    roots: dict[tuple[int, Key], Settled] = field(default_factory=dict)
    deaths: dict[tuple[int, int], bool] = field(default_factory=dict)  # by run and opening: whether it noted
    reached: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    begun: dict[tuple[int, int, Key], Suspect] = field(default_factory=dict)
    memo: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)
    staged: dict[int, tuple[bytes, ...]] = field(default_factory=dict)
    rows: dict[int, tuple] = field(default_factory=dict)  # by the number of the root
    last: int = 0

    def copy(self):
        tables = {each.name: dict(getattr(self, each.name)) for each in fields(self) if each.name != "last"}
        return Content(**tables, last=self.last)


class Memory:
    """Where a journal is kept, and rows; what a `JournalPlace` is."""

    place = "memory"

    def __init__(self):
        self.content = Content()
        self.reached = {}  # outlives its process, outside of every transaction
        self.writing = None  # the store that is open
        self.commits_left = None  # at the last of so many the process is killed

    def read(self):
        if not self.content.runs:
            raise StoreError("memory: no durable run has written to it")
        return closing(MemoryReader(self))

    @contextmanager
    def write(self):
        with self.read(), closing(MemoryStore(self)) as store:
            yield store

    def commit(self, store):
        if self.commits_left is not None:
            self.commits_left -= 1
        if self.commits_left == 0:
            self.restart()
        if self.writing is not store:
            raise StoreError("memory: the process that wrote to it was killed")
        self.content = store.changed

    def restart(self):
        self.writing = None


class MemorySink:
    """Any rows but those of `refused`."""

    delivery = "exactly once"
    identity = "memory"

    def __init__(self, memory=None, *, refused=()):
        self.journal = memory or Memory()
        self.refused = refused

    def open(self, durability):
        return MemoryStore(self.journal, self.refused)

    def rows(self):
        return [row for _, rows in sorted(self.journal.content.rows.items()) for row in rows]


class MemoryReader:
    """What is committed."""

    def __init__(self, memory):
        self._memory = memory
        self.place = memory.place

    @property
    def _now(self):
        return self._memory.content

    def writer(self):
        return "" if self._memory.writing is None else self._memory.writing.owner

    def run(self, name):
        return next((run for run in self._now.runs.values() if run.name == name), None)

    def runs(self):
        return sorted(self._now.runs.values(), key=lambda run: (run.began, run.number), reverse=True)

    def stages(self, run):
        return self._now.stages.get(run, [])

    def counts(self):
        roots, rows = Counter(), Counter()
        for (run, _), root in self._now.roots.items():
            roots[run, root.state, root.times] += 1
            rows[run, root.state, root.times] += root.rows
        return [RootCount(*alike, number, rows[alike]) for alike, number in roots.items()]

    def known(self, run, key):
        root = self._now.roots.get((run, key))
        return None if root is None else root[:5]

    def _keys(self, run):
        return sorted((key for of, key in self._now.roots if of == run), key=rank)

    def known_from(self, run, key, most):
        found = [each for each in self._keys(run) if rank(each) >= rank(key)][:most]
        columns = zip(*((each, *self.known(run, each)) for each in found), strict=True)
        return KnownRoots(*map(list, columns))

    def settled(self, run, after, most):
        found = [key for key in self._keys(run) if after is None or rank(key) > rank(after)][:most]
        return [(root.number, key, root.times) for key in found for root in [self._now.roots[run, key]]]

    def count_settled(self, run, after, most, *, but):
        found = self.settled(run, after, most)
        return sum(times != but for _, _, times in found), found[-1][1] if len(found) == most else None

    def _place(self, number):
        return next(place for place, root in self._now.roots.items() if root.number == number)

    def rows_of(self, root):
        return self._now.roots[self._place(root)].rows

    def keys_near(self, run, key, most):
        keys = self._keys(run)
        before = [each for each in keys if rank(each) < rank(key)]
        return keys[len(before) :][:most] + before[-most:]

    def dead(self):
        roots = sorted(self._now.roots.items(), key=lambda item: item[1].number)
        return [
            DeadRecord(root.number, self._now.runs[run].name, key, root.version, letter)
            for (run, key), root in roots
            for letter in root.letters
        ]

    def recall(self, stage, item):
        return self._now.memo.get((stage, item))

    def unused_memo(self):
        used = {stage.fingerprint for stages in self._now.stages.values() for stage in stages}
        used |= set(map(note_key, self._now.runs))
        return next((stage for stage, _ in self._now.memo if stage not in used), None)

    def close(self):
        pass


class MemoryJournal(MemoryReader):
    """What the open transaction of a store makes of it."""

    def __init__(self, memory, store):
        super().__init__(memory)
        self._store = store
        self.deaths = MemoryDeaths(self)

    @property
    def _now(self):
        assert self._store.changed is not None, "asked outside a transaction"
        return self._store.changed

    def begin(self, name, source, sink, owner, stages, codes):
        before = self.run(name)
        number, times = (max(self._now.runs, default=0) + 1, 0) if before is None else (before.number, before.times)
        self._now.runs[number] = RunRecord(number, name, source, sink, owner, times + 1, False, time(), None, codes)
        self._now.stages[number] = list(stages)
        return number

    def _change(self, run, **changed):
        self._now.runs[run] = replace(self._now.runs[run], **changed)

    def put_codes(self, run, codes):
        self._change(run, codes=codes)

    def leave_run(self, run):
        self._change(run, clean=True)
        opening = self._now.runs[run].times
        self._now.deaths.pop((run, opening), None)
        self.deaths.begin_anew(run, opening)

    def close_run(self, run):
        self.leave_run(run)
        self.deaths.forget(run)
        self._change(run, ended=time())

    def settle(self, opened, root):
        place = opened.id, root.key
        before = self._now.roots.get(place)
        rows = 0 if root.letters else len(root.rows) + root.staged
        if before is None:
            self._now.last += 1
        elif root.letters and opened.keeps_rows_of_dead:
            rows = before.rows
        number = self._now.last if before is None else before.number
        state, letters = (DEAD, tuple(root.letters)) if root.letters else (DONE, ())
        self._now.roots[place] = Settled(number, root.version, state, opened.times, root.position, rows, letters)
        self.deaths.acquit(*place)
        return number

    def settle_new(self, opened, number, *, keys, versions, positions, rows):
        numbers = range(self._now.last + 1, self._now.last + 1 + number)
        self._now.last += number
        for key, *what in zip(keys, numbers, versions, positions, rows, strict=True):
            number, version, position, stored = what
            assert (opened.id, key) not in self._now.roots
            self._now.roots[opened.id, key] = Settled(number, version, DONE, opened.times, position, stored)
        return numbers

    def _redo(self, place, **changed):
        self._now.roots[place] = self._now.roots[place]._replace(letters=(), **changed)

    def redo(self, run, *, dead=False, openings=None):
        since, before = openings or (0, None)
        found = {
            place: root.rows
            for place, root in self._now.roots.items()
            if place[0] == run
            and (not dead or root.state == DEAD)
            and (openings is None or root.times > 0)
            and since <= root.times
            and (before is None or root.times < before)
        }
        for place in found:
            self._redo(place, times=0)
        return len(found), sum(found.values())

    def retry(self, root, rows=None):
        self._redo(self._place(root), times=0, **({} if rows is None else {"rows": rows}))

    def discard(self, root):
        self._redo(self._place(root), state=DONE)

    def forget(self, root):
        return self._now.roots.pop(self._place(root)).rows

    def some_roots(self, run, most):
        found = [RootId(root.number, key) for (of, key), root in self._now.roots.items() if of == run]
        return found[:most]

    def roots_with_rows(self, run):
        return sum(of == run and root.times > 0 and root.rows > 0 for (of, _), root in self._now.roots.items())

    def forget_run(self, run):
        rows = [self.forget(root.number) for root in self.some_roots(run, None)]
        self.deaths.forget(run)
        del self._now.runs[run], self._now.stages[run]
        return len(rows), sum(rows)

    def remember(self, stage, item, value):
        self._now.memo[stage, item] = value

    def drop_memo(self, stage):
        self._now.memo = {place: value for place, value in self._now.memo.items() if place[0] != stage}

    def stage(self, number, part):
        self._now.staged[number] = (*self._now.staged.get(number, ()), part)

    def staged(self, number):
        return iter(self._now.staged.get(number, ()))

    def unstage(self, number):
        self._now.staged.pop(number, None)


class MemoryDeaths:
    """Of the open transaction, too."""

    def __init__(self, journal):
        self._journal = journal

    @property
    def _now(self):
        return self._journal._now

    def enter(self, run, opening):
        last = self.last(run)
        self._keep(run, {opening, *(death.opening for death in last)})
        self._now.deaths[run, opening] = bool(last)
        return bool(last)

    def _keep(self, run, openings):
        now = self._now
        now.deaths = {place: noted for place, noted in now.deaths.items() if place[0] != run or place[1] in openings}
        now.begun = {place: each for place, each in now.begun.items() if place[0] != run or place[1] in openings}

    def last(self, run):
        died = sorted(
            ((opening, noted) for (of, opening), noted in self._now.deaths.items() if of == run), reverse=True
        )
        return [
            Death(opening, noted, self._journal._memory.reached.get((run, opening), [])) for opening, noted in died[:2]
        ]

    def dispatch(self, run, opening, root):
        self._now.begun[run, opening, root.key] = Suspect(root.key, root.version, root.position, 1, root.source)

    def begun(self, run, opening):
        times = Counter(key for of, _, key in self._now.begun if of == run)
        found = [each for place, each in self._now.begun.items() if place[:2] == (run, opening)]
        return [replace(each, attempts=times[each.key]) for each in sorted(found, key=lambda each: each.position)]

    def begin_anew(self, run, opening):
        self._now.begun = {place: each for place, each in self._now.begun.items() if place[:2] != (run, opening)}

    def acquit(self, run, key):
        self._now.begun = {place: each for place, each in self._now.begun.items() if place[::2] != (run, key)}

    def forget(self, run):
        self._keep(run, set())


class Unstorable(Exception):
    """What this database raises for a row that it cannot hold."""


class MemoryStore:
    """The one that writes."""

    largest = 3

    def __init__(self, memory, refused=()):
        if memory.writing is not None:
            raise HeldError(f"memory: {memory.writing.owner} is writing to it")
        self.owner = owner()
        self.changed = None
        self.journal = MemoryJournal(memory, self)
        self._memory = memory
        self._refused = refused
        memory.writing = self
        memory.content.staged.clear()

    @contextmanager
    def transaction(self):
        self.changed = self._memory.content.copy()
        try:
            yield
            self._memory.commit(self)
        finally:
            self.changed = None

    def reader(self):
        return MemoryReader(self._memory)

    def reach(self, run, opening):
        def reach(source, position):
            reached = self._memory.reached.setdefault((run, opening), [])
            reached += [0] * (source + 1 - len(reached))
            reached[source] = position + 1
            return position + 1

        return reach

    def send(self, run, roots):
        pass

    def replace(self, root, rows):
        rows = tuple(rows)
        if refused := [row for row in rows if row in self._refused]:
            raise Unstorable(refused[0])
        self.changed.rows.pop(root.number, None)
        if rows:
            self.changed.rows[root.number] = rows

    def add(self, rows):
        """Put rows of new roots."""
        for number, row in rows:
            self.replace(RootId(number, None), (*self.changed.rows.get(number, ()), row))

    def accept(self, row):
        return row

    def accept_all(self, rows):
        return list(rows)

    def refusal(self, error):
        return RowError(f"memory cannot hold {error}") if isinstance(error, Unstorable) else None

    def lost(self, run):
        there = {number: len(rows) for number, rows in self.changed.rows.items()}
        roots = [root for (of, _), root in self.changed.roots.items() if of == run and root.times]
        return [(root.number, there.get(root.number, 0)) for root in roots if root.rows > there.get(root.number, 0)]

    def is_there(self):
        return True

    def abort(self):
        pass

    def close(self):
        if self._memory.writing is self:
            self._memory.writing = None


def rank(key):
    """The order of keys: numbers before text."""
    return isinstance(key, str), key
