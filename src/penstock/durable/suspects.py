"""Finds the root that kills the process: roots that were under way at two deaths run first, in child processes.

A run that was killed notes from then on which roots it has under way. A root that is under way when the run is killed
again, and was so at the death before, is a suspect. The next opening runs all suspects side by side in one child
process. If the child dies, half of those that it had begun run in the next child, and so on, until one stands alone: a
root that kills a child of its own is set aside. A root that is finished in a child is done; one that was merely under
way, however often, is innocent. One killer among n is found with log2(n) + 3 children at most: roots that the search
leaves aside run together after it (adaptive group testing by binary splitting, Hwang 1972). See `docs/decisions.md`,
"Suspects are tried in a child, by halves".
"""

import asyncio
import contextvars
import json
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Any, Final, NoReturn

from penstock.core import forks, open_runs
from penstock.core.errors import PenstockError, said
from penstock.core.log import LOG
from penstock.durable import deaths
from penstock.durable.delivery import Deliverer
from penstock.durable.job import Job
from penstock.durable.opening import Opening, open_again
from penstock.durable.owner import owner, write_for
from penstock.durable.roots import DONE, Key, Root, RootId
from penstock.durable.store import Opened, Store, Suspect
from penstock.durable.tried import Counts, Tried

_LOOK: Final = 0.01
"""Seconds between two looks at whether a child has ended."""

_EVERY: Final = 5.0
"""Seconds between two lines of progress."""

_PIPE: Final = 1 << 16
_DRAIN: Final = b"d"

type DeliverSome = Callable[[frozenset[Key]], Coroutine[Any, Any, Counts]]
"""Delivers the roots of those keys in the process that calls it; returns what was done, by the names of the report."""


class ProcessDied(PenstockError):
    """The process died that worked on one root alone."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a child died, which of its roots it had under way, and which it had not begun."""

    how: str
    under_way: list[Suspect]
    not_begun: list[Suspect]


async def try_suspects(job: Job, opening: Opening) -> tuple[Opening, Tried]:
    """Try the roots that may have killed the process, if there are any, and then open the run once more."""
    opened, store, found = opening.run, opening.store, Tried()
    try:
        with store.transaction():
            suspects = deaths.suspects(store.journal.deaths, opened.id) if job.options.find_killers else ()
        if suspects and job.source.one_shot:
            LOG.warning("run %r: a root may have killed the process, but its source cannot be read twice", opened.name)
        elif suspects:
            LOG.warning("%s", announced(opened.name, suspects))
            store.close()  # a connection must not be taken into a child
            found = await _Search(job, opened).run(suspects)
            again = await open_again(job)
            store, opened = again.store, replace(again.run, changed=opened.changed)
        with store.transaction():
            for suspect in () if found.interrupted else suspects:
                store.journal.deaths.acquit(opened.id, suspect.key)
            if job.options.find_killers:
                opened = replace(opened, notes=store.journal.deaths.enter(opened.id, opened.times))
            else:
                store.journal.deaths.forget(opened.id)
    except BaseException:
        store.close()
        raise
    return Opening(store, opened), found


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
    """The search for killers among the suspects; the store is closed meanwhile, so that children can open it."""

    def __init__(self, job: Job, opened: Opened) -> None:
        self._job = job
        self._opened = opened
        self._deliver = partial(_deliver_some, job, opened)
        self._found = Tried()
        self._children = 0

    async def run(self, suspects: Sequence[Suspect]) -> Tried:
        """Run them in groups until each of them is done, set aside or acquitted, or until there is no more time."""
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
        return self._found

    async def _try(self, group: Sequence[Suspect]) -> _Ending | None:
        """Run them in a child process; return how it died, or None if it survived them."""
        with self._store() as store:
            store.journal.deaths.begin_anew(self._opened.id, self._opened.times)
        how, report = await _in_child(self._deliver, frozenset(each.key for each in group), self._tell(group))
        if report is None:
            return self._died(group, how)
        if report["error"]:
            LOG.info("%s failed in a child process, and run among the others: %s", _named(group), report["error"])
        self._found.add(report["counts"])
        self._found.interrupted = report["stopped"]
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
        """Open the store for one transaction, while no child has it."""
        store = self._job.sink.open(self._job.options.durability)
        try:
            with store.transaction():
                yield store
        finally:
            store.close()

    def _tell(self, group: Sequence[Suspect]) -> Callable[[float], None]:
        """Return what shows how the search goes, given the seconds that it has taken."""
        self._children += 1
        number = self._children

        def tell(seconds: float) -> None:
            line = f"child process {number}: {_named(group)}, for {seconds:,.0f} s so far"
            if self._job.options.progress:
                _show(line)
            LOG.info("%s", line)

        return tell


def announced(run: str, suspects: Sequence[Suspect]) -> str:
    """Say what is going to happen, and how long it takes, in one line."""
    were = "was" if len(suspects) == 1 else "were"
    long = "it takes" if len(suspects) == 1 else "they take side by side"
    if len(suspects) > 1:
        long += f", and up to {_most_children(len(suspects))} times that if one does"
    return (
        f"run {run!r}: {_named(suspects)} {were} under way at both of the last two kills of the process; first a child "
        f"process tries whether one of them kills it, for about as long as {long} (find_killers=False leaves this out)"
    )


def _most_children(suspects: int) -> int:
    """Return how many children it takes to find one killer: all suspects, each halving, and the rest."""
    return (suspects - 1).bit_length() + 2


def _named(group: Sequence[Suspect]) -> str:
    if len(group) == 1:
        return f"root {group[0].key!r}"
    return f"{len(group):,} roots from {group[0].key!r} to {group[-1].key!r}"


def _halves(group: Sequence[Suspect]) -> tuple[list[Suspect], list[Suspect]]:
    middle = (len(group) + 1) // 2
    return list(group[:middle]), list(group[middle:])


class _Child:
    """A child process. How it ended is not known if SIGCHLD is ignored, or if somebody waits for all children."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.how: str | None = None
        try:
            self._handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
        except OSError:  # it is gone already, or the system has no such thing
            self._handle = None

    def has_ended(self) -> bool:
        """Whether it has ended."""
        if self.how is None:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self.how = "died"
            else:
                self.how = _died_of(status) if ended else None
        return self.how is not None

    def kill(self) -> None:
        """End it, if it has not ended; by its handle, as another process may have its number by now."""
        if self.has_ended():
            return
        with suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)  # what is killed is gone in a moment

    def close(self) -> None:
        """Release its handle."""
        if self._handle is not None:
            os.close(self._handle)


async def _in_child(
    deliver: DeliverSome, keys: frozenset[Key], tell: Callable[[float], None]
) -> tuple[str, dict[str, Any] | None]:
    """Return how the child ended, and what it has reported: nothing if it died.

    A child that hangs is waited for, as a run waits for work that hangs: `timeout` of a stage works there, too. A
    signal that drains is passed on. A cancellation kills the child, and nothing is concluded.
    """
    report, report_end = os.pipe()
    lifeline_end, lifeline = os.pipe()  # at its end the parent is dead
    _of_the_parent.update((report, lifeline))
    parent = owner()
    _flush()  # what waits in a buffer would be printed by both
    with warnings.catch_warnings():  # of threads that others run: the child has none of them, and starts its own
        warnings.simplefilter("ignore", DeprecationWarning)
        with forks.to_go_on():
            pid = os.fork()
    if not pid:
        write_for(parent)
        _be_child(deliver, keys, report_end, lifeline_end)
    os.close(report_end)
    os.close(lifeline_end)
    child = _Child(pid)
    began = told = monotonic()
    drains = False
    try:
        while not child.has_ended():
            await asyncio.sleep(_LOOK)
            if not drains and open_runs.is_draining(asyncio.get_running_loop()):
                drains = True
                with suppress(BrokenPipeError):
                    os.write(lifeline, _DRAIN)
            if monotonic() - told >= _EVERY:
                told = monotonic()
                tell(told - began)
        return str(child.how), _read(report)
    finally:
        child.kill()
        child.close()
        _of_the_parent.difference_update((report, lifeline))
        os.close(report)
        os.close(lifeline)


def _read(report: int) -> dict[str, Any] | None:
    os.set_blocking(report, False)  # a process that the child has left behind may hold the other end
    try:
        told = os.read(report, _PIPE)
    except BlockingIOError:
        return None
    return json.loads(told) if told else None


def _be_child(deliver: DeliverSome, keys: frozenset[Key], report: int, lifeline: int) -> NoReturn:
    """Deliver the roots on a loop in a new thread: this thread still seems to run the loop of the parent."""
    try:
        signal.set_wakeup_fd(-1)
        for each in (signal.SIGINT, signal.SIGTERM):  # the parent decides, and this process ends with it
            signal.signal(each, _ignore)
        LOG.addFilter(_less_important)
        loop = _Loop()
        threading.Thread(target=_obey, args=(lifeline, loop), daemon=True).start()
        run = contextvars.copy_context().run
        worker = threading.Thread(target=run, args=(_deliver_and_report, deliver, keys, report, loop), daemon=True)
        worker.start()
        worker.join()
        _flush()
    finally:
        os._exit(0)


class _Loop:
    """The loop of the child, once there is one, and whether it has to drain."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Lock()
        self.drains = False

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note the loop."""
        with self._changed:
            self._loop = loop
            if self.drains:
                open_runs.drain(loop)

    def drain(self) -> None:
        """Make the loop drain; called by another thread."""
        with self._changed:
            self.drains = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(open_runs.drain, self._loop)


def _deliver_and_report(deliver: DeliverSome, keys: frozenset[Key], report: int, loop: _Loop) -> None:
    async def main() -> Counts:
        loop.begin(asyncio.get_running_loop())
        return await deliver(keys)

    counts: Counts = {}
    error = ""
    try:
        counts = asyncio.run(main())
    except BaseException as failure:  # noqa: BLE001 -- it has survived: the run raises it when the roots run there
        error = said(failure)[:1000]
    with suppress(BrokenPipeError):  # the parent is dead, and this process in a moment
        os.write(report, json.dumps({"counts": counts, "error": error, "stopped": loop.drains}).encode())


def _obey(lifeline: int, loop: _Loop) -> None:
    """Drain when the parent says so, and die with it."""
    while os.read(lifeline, 1):
        loop.drain()
    os.kill(os.getpid(), signal.SIGKILL)


def _less_important(record: logging.LogRecord) -> bool:
    """Lower the records that a whole run logs at INFO to DEBUG, for a part of it."""
    if record.levelno == logging.INFO:
        record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
    return LOG.isEnabledFor(record.levelno)


def _show(line: str) -> None:
    if sys.stderr is not None:  # as it is in a program without a console
        with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            print(line, file=sys.stderr, flush=True)  # noqa: T201 -- its purpose


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there may be none, or one that is closed
            stream.flush()


def _ignore(_signal: int, _frame: object) -> None:
    """Do nothing. Unlike an ignored signal, a program that is executed does not inherit this."""


def _died_of(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"


_of_the_parent: set[int] = set()
"""Ends of pipes that only this process may hold: another child with them would keep alive what should die with it."""


def _let_go() -> None:
    while _of_the_parent:
        os.close(_of_the_parent.pop())


os.register_at_fork(after_in_child=_let_go)
