"""Finds the root that kills the process: roots that were under way at two deaths run first, in worker processes.

A run that was killed notes from then on which roots it has under way. A root that is under way when the run is killed
again, and was so at the death before, is a suspect. The next opening runs all suspects side by side in one worker of
the process engine. If the worker dies, half of those that it had begun run in the next one, and so on, until one stands
alone: a root that kills a worker of its own is set aside. A root that is finished in a worker is done; one that was
merely under way, however often, is innocent. One killer among n is found with log2(n) + 3 workers at most: roots that
the search leaves aside run together after it (adaptive group testing by binary splitting, Hwang 1972). See
`docs/decisions.md`, "Suspects are tried in a worker process, by halves".
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import Final

from penstock.core import open_runs
from penstock.core.errors import PenstockError, WorkerLost, said
from penstock.core.log import LOG
from penstock.durable import deaths
from penstock.durable.delivery import Deliverer
from penstock.durable.job import Job
from penstock.durable.opening import Opening, open_again
from penstock.durable.owner import owner, write_for
from penstock.durable.roots import DONE, Key, Root, RootId
from penstock.durable.store import Opened, Store, Suspect
from penstock.durable.tried import Counts, Tried
from penstock.engines.engine import Answer, Call
from penstock.engines.process import worker
from penstock.engines.process.crossing import Crossing, loads, why
from penstock.engines.process.processes_engine import Processes

_LOOK: Final = 0.02
"""Seconds between two looks at whether the run drains."""

_EVERY: Final = 5.0
"""Seconds between two lines of progress."""


class ProcessDied(PenstockError):
    """The process died that worked on one root alone."""


class _CannotTry(Exception):
    """No worker process can do a part of the run; says why."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a worker died, which of its roots it had under way, and which it had not begun."""

    how: str
    under_way: list[Suspect]
    not_begun: list[Suspect]


@dataclass(slots=True)
class _Survived:
    """What a worker has done that survived.

    Attributes:
        counts: what it delivered, by the names of the report.
        error: what ended its part of the run; it is raised where the roots run among the others.
        stopped: whether it was told to take nothing more.
    """

    counts: Counts = field(default_factory=dict[str, int])
    error: str = ""
    stopped: bool = False


async def try_suspects(job: Job, opening: Opening) -> tuple[Opening, Tried]:
    """Try the roots that may have killed the process, if there are any, and then open the run once more."""
    opened, store, found = opening.run, opening.store, Tried()
    try:
        with store.transaction():
            suspects = deaths.suspects(store.journal.deaths, opened.id)
        if suspects and (work := _packed(job, opened)) is not None:
            LOG.warning("%s", announced(opened.name, suspects))
            store.close()  # the worker writes
            await _Search(job, opened, work, found).run(suspects)
            again = await open_again(job)
            store, opened = again.store, replace(again.run, changed=opened.changed)
        with store.transaction():
            for suspect in () if found.interrupted else suspects:
                store.journal.deaths.acquit(opened.id, suspect.key)
            opened = replace(opened, notes=store.journal.deaths.enter(opened.id, opened.times))
    except BaseException:
        store.close()
        raise
    return Opening(store, opened), found


def _packed(job: Job, opened: Opened) -> bytes | None:
    """Pickle the run for workers, with what the main module has by value; None, and a warning, if that cannot be."""
    if job.source.one_shot:
        _among_the_others(opened.name, "its source cannot be read twice")
        return None
    crossing = Crossing(main_is_there=False)
    try:
        return crossing.dumps((job, opened))
    except Exception as error:  # noqa: BLE001 -- methods of the user's run here
        what = "the run"
        for operator in job.source.operators:
            if operator.code is not None:
                try:
                    crossing.dumps(operator.code.fn)
                except Exception:  # noqa: BLE001 -- as above
                    what = f"the function of {operator.code.title}"
                    break
        _among_the_others(opened.name, f"{what} cannot be pickled for a worker process: {why(error)}")
        return None


def _among_the_others(run: str, reason: str) -> None:
    LOG.warning("run %r: a root may have killed the process, but it runs among the others: %s", run, reason)


async def _deliver_some(job: Job, opened: Opened, keys: frozenset[Key]) -> Counts:
    """Deliver those roots and nothing else, as far as nothing of them fails."""
    store = job.sink.open(job.options.durability)
    try:
        delivery = Deliverer(job, Opening(store, replace(opened, notes=True)), Tried(), began=monotonic(), only=keys)
        try:
            delivery.start()
            await delivery.run()
        finally:
            await delivery.close()
        return delivery.counts()
    finally:
        store.close()


class _Search:
    """The search for killers among the suspects; the store is closed meanwhile, so that workers can open it."""

    def __init__(self, job: Job, opened: Opened, work: bytes, found: Tried) -> None:
        """Prepare to search with the run as it was pickled; what comes of it is added to `found`."""
        self._job = job
        self._opened = opened
        self._work = work
        self._found = found
        self._workers = 0

    async def run(self, suspects: Sequence[Suspect]) -> None:
        """Run them in groups until each is done, set aside or acquitted, or until there is no time or no worker."""
        try:
            await self._search(suspects)
        except _CannotTry as error:
            _among_the_others(self._opened.name, str(error))

    async def _search(self, suspects: Sequence[Suspect]) -> None:
        group, partner, rest = list(suspects), list[Suspect](), list[Suspect]()
        while group:
            if open_runs.is_draining(asyncio.get_running_loop()):
                self._found.interrupted = True
                break
            death = await self._try(group)
            if self._found.interrupted:
                break
            if death is None:  # then it is its partner that has the killer
                group, partner = _halves(partner)
            elif not death.under_way:
                LOG.warning("the process that was to work on %s %s before it did", _named(group), death.how)
                group, partner = _halves(partner)
            elif len(group) == 1:
                self._set_aside(death.under_way[0], death.how)
                group, partner, rest = [], [], rest + partner
            else:
                LOG.warning("the process that worked on %s %s", _named(group), death.how)
                rest += partner + death.not_begun
                group, partner = _halves(death.under_way)
            if not group:
                group, rest = rest, []

    async def _try(self, group: Sequence[Suspect]) -> _Ending | None:
        """Run them in a worker; return how it died, or None if it survived them."""
        with self._store() as store:
            store.journal.deaths.begin_anew(self._opened.id, self._opened.times)
        answer = await _in_worker(self._work, frozenset(each.key for each in group), self._tell(group))
        if isinstance(answer.error, WorkerLost):
            return self._died(group, answer.error.how)
        if answer.error is not None:
            raise _CannotTry(said(answer.error))
        report: _Survived = answer.value
        if report.error:
            LOG.info("%s failed in a worker process, and run among the others: %s", _named(group), report.error)
        self._found.add(report.counts)
        self._found.interrupted = report.stopped
        return None

    def _died(self, group: Sequence[Suspect], how: str) -> _Ending:
        run, times = self._opened.id, self._opened.times
        with self._store() as store:
            journal = store.journal
            left = {each.key for each in deaths.suspects(journal.deaths, run)}
            begun = [each for each in journal.deaths.begun(run, times) if each.key in left]
            settled = [journal.known(run, each.key) for each in group if each.key not in left]
            done = [known[0] for known in settled if known is not None and known[2:4] == (DONE, times)]
            self._found.add({"delivered": len(done), "rows": sum(map(journal.rows_of, done))})
        keys = {each.key for each in begun}
        return _Ending(how, begun, [each for each in group if each.key in left - keys])

    def _set_aside(self, suspect: Suspect, how: str) -> None:
        """Make the root a dead letter."""
        root = Root(suspect.key, suspect.version, suspect.position, lambda _: None)
        root.dispatched = True
        error = ProcessDied(f"the process that worked on it alone {how}")
        root.set_aside("process", suspect.attempts, error, suspect.key)
        with self._store() as store:
            number = store.journal.settle(self._opened, root)
            if not self._opened.keeps_rows_of_dead:
                store.replace(RootId(number, suspect.key), ())
        LOG.warning("root %r is set aside: %s", suspect.key, error)
        self._found.dead.add(suspect.key)

    @contextmanager
    def _store(self) -> Generator[Store]:
        """Open the store for one transaction, while no worker has it."""
        store = self._job.sink.open(self._job.options.durability)
        try:
            with store.transaction():
                yield store
        finally:
            store.close()

    def _tell(self, group: Sequence[Suspect]) -> Callable[[float], None]:
        """Return what shows how the search goes, given the seconds that it has taken."""
        self._workers += 1
        number = self._workers

        def tell(seconds: float) -> None:
            line = f"worker process {number}: {_named(group)}, for {seconds:,.0f} s so far"
            if self._job.options.progress:
                _show(line)
            LOG.info("%s", line)

        return tell


def announced(run: str, suspects: Sequence[Suspect]) -> str:
    """Say what is going to happen, and how long it takes, in one line."""
    were = "was" if len(suspects) == 1 else "were"
    long = "it takes" if len(suspects) == 1 else "they take side by side"
    if len(suspects) > 1:
        long += f", and up to {_most_workers(len(suspects))} times that if one does"
    return (
        f"run {run!r}: {_named(suspects)} {were} under way at both of the last two kills of the process; first a "
        f"worker process tries whether one of them kills it, for about as long as {long} (find_killers=False leaves "
        "this out)"
    )


def _most_workers(suspects: int) -> int:
    """Return how many workers it takes to find one killer: all suspects, each halving, and the rest."""
    return (suspects - 1).bit_length() + 2


def _named(group: Sequence[Suspect]) -> str:
    if len(group) == 1:
        return f"root {group[0].key!r}"
    return f"{len(group):,} roots from {group[0].key!r} to {group[-1].key!r}"


def _halves(group: Sequence[Suspect]) -> tuple[list[Suspect], list[Suspect]]:
    middle = (len(group) + 1) // 2
    return list(group[:middle]), list(group[middle:])


async def _in_worker(work: bytes, keys: frozenset[Key], tell: Callable[[float], None]) -> Answer:
    """Return what a worker of its own says when it has delivered the roots of those keys.

    A worker that hangs is waited for, as a run waits for work that hangs: `timeout` of a stage works there, too. A
    signal that drains is passed on. A cancellation kills the worker, and nothing is concluded.
    """
    loop = asyncio.get_running_loop()
    engine = Processes(1, partial(_be_a_part, owner()), imports_main=False)
    began = told = monotonic()
    grace = 0.0
    try:
        answers = engine.submit([Call(engine.prepare(_deliver_there), (work, keys))])
        while not answers.done():
            await asyncio.wait([answers], timeout=_LOOK)
            if open_runs.is_draining(loop):
                engine.recall(answers)
            if monotonic() - told >= _EVERY:
                told = monotonic()
                tell(told - began)
        grace = 1.0
        return answers.result()[0]
    finally:
        await engine.aclose(grace)


def _be_a_part(parent: str) -> None:
    """Begin a worker that does a part of the run of `parent`, which decides about signals: it ends with that."""
    write_for(parent)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _ignore)


def _deliver_there(work: bytes, keys: frozenset[Key]) -> _Survived:
    """Deliver those roots, in a worker, until the driver says that it wants no more."""
    job, opened = loads(work)
    report = _Survived()
    try:
        asyncio.run(_deliver_until_recalled(job, opened, keys, report))
    except BaseException as failure:  # noqa: BLE001 -- it has survived: the run raises it when the roots run there
        report.error = said(failure)[:1000]
    return report


async def _deliver_until_recalled(job: Job, opened: Opened, keys: frozenset[Key], report: _Survived) -> None:
    loop = asyncio.get_running_loop()

    def look() -> None:
        if worker.is_recalled():
            report.stopped = True
            open_runs.drain(loop)
        else:
            loop.call_later(_LOOK, look)

    look()
    report.counts = await _deliver_some(job, opened, keys)


def _show(line: str) -> None:
    if sys.stderr is not None:  # as it is in a program without a console
        with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            print(line, file=sys.stderr, flush=True)  # noqa: T201 -- its purpose


def _ignore(_signal: int, _frame: object) -> None:
    """Do nothing. Unlike an ignored signal, a program that is executed does not inherit this."""
