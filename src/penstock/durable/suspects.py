"""Which root kills the process: those that were under way when it died run alone, each in a child process.

The opening after a kill notes in the journal which roots it has under way. If it is killed as well, those are suspects.
The next one runs each of them in a child process of its own, before all others. Only a root whose child dies is set
aside; one that was merely under way, however often, comes to its end there, or runs among the others once more.
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
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, NoReturn

from penstock.core import open_runs
from penstock.core.errors import PenstockError, said
from penstock.core.log import LOG
from penstock.durable import lock
from penstock.durable.journal import Journal, Opened, Suspect
from penstock.durable.roots import DeadLetter, Key, Root
from penstock.durable.sink import Store

_LOOK: Final = 0.01
"""Seconds between two looks whether a child has ended."""

_EVERY: Final = 5.0
"""Seconds between two lines of progress."""

_PIPE: Final = 1 << 16

type Counts = dict[str, int]
type DeliverAlone = Callable[[Key], Coroutine[Any, Any, Counts]]
"""Delivers the root of that key in the process that it is called in; what was done, by the names of the report."""


class ProcessDied(PenstockError):
    """The process that worked on one root alone died of it."""


@dataclass(slots=True)
class Alone:
    """What came of the suspects.

    Attributes:
        counts: what was delivered by children, by the names of the report.
        dead: the keys of the roots that were set aside.
        interrupted: whether there was no time for all of them.
    """

    counts: Counts
    dead: set[Key] = field(default_factory=set[Key])
    interrupted: bool = False


async def run_alone(
    suspects: Sequence[Suspect],
    opened: Opened,
    open_store: Callable[[], Store],
    deliver: DeliverAlone,
    *,
    keeps_rows_of_dead: bool = False,
    progress: bool = False,
) -> Alone:
    """Run each of the suspects in a child process; the store is closed, so that children can open it."""
    alone = Alone({})
    shown = -_EVERY
    for number, suspect in enumerate(suspects, 1):
        if open_runs.is_draining(asyncio.get_running_loop()):
            alone.interrupted = True
            break
        so_far = f"{number:,} of {len(suspects):,}"
        LOG.warning("root %r was under way when two processes died: it runs alone (%s)", suspect.key, so_far)
        if progress and monotonic() - shown >= _EVERY:
            shown = monotonic()
            _show(f"{so_far} roots that were under way when two processes died, each alone")
        status, report = await _in_child(deliver, suspect.key)
        if report is None:
            if _set_aside(suspect, opened, open_store, _died_of(status), keeps_rows=keeps_rows_of_dead):
                alone.dead.add(suspect.key)
        elif "failed" in report:
            LOG.info("root %r has failed alone, and runs among the others: %s", suspect.key, report["failed"])
        else:
            for name, count in report.items():
                alone.counts[name] = alone.counts.get(name, 0) + count
    return alone


def _set_aside(before: Suspect, opened: Opened, open_store: Callable[[], Store], how: str, *, keeps_rows: bool) -> bool:
    """Make the root a dead letter, if its work had begun in the child that died."""
    store = open_store()
    try:
        with store.transaction():
            found = [each for each in store.journal.suspects(opened.id) if each.key == before.key]
            if not found or found[0].attempts == before.attempts:
                LOG.warning("the process that was to work on root %r alone %s before it did", before.key, how)
                return False
            (suspect,) = found
            root = _root(suspect)
            root.dispatched = True
            error = ProcessDied(f"the process that worked on it alone {how}")
            root.letters.append(DeadLetter("process", suspect.attempts, error, suspect.key))
            number = store.journal.settle(opened, root)
            if not keeps_rows:
                store.replace(number, ())
        LOG.warning("root %r is set aside: %s", before.key, error)
        return True
    finally:
        store.close()


def suspect_again(journal: Journal, opened: Opened, waiting: Sequence[Suspect]) -> None:
    """Note those again that have not run alone yet, as often as they were under way."""
    for suspect in waiting:
        for _ in range(suspect.attempts):
            journal.dispatch(opened.id, _root(suspect))


def _root(suspect: Suspect) -> Root:
    return Root(suspect.key, suspect.version, suspect.position, lambda _: None)


async def _in_child(deliver: DeliverAlone, key: Key) -> tuple[int, dict[str, Any] | None]:
    """How the child ended, and what it has reported: nothing if it died."""
    report, report_end = os.pipe()
    lifeline_end, lifeline = os.pipe()  # at its end the parent is dead
    parent = lock.owner()
    _flush()  # what waits in a buffer would be printed by both
    with warnings.catch_warnings():  # of threads that others run: the child has none of them, and starts its own
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        os.close(report)
        os.close(lifeline)
        lock.write_for(parent)
        _be_child(deliver, key, report_end, lifeline_end)
    os.close(report_end)
    os.close(lifeline_end)
    status = None
    try:
        while status is None:
            await asyncio.sleep(_LOOK)
            ended, code = os.waitpid(child, os.WNOHANG)  # noqa: ASYNC222 -- it does not block
            status = code if ended else None
        os.set_blocking(report, False)  # a process that the child has left behind may hold the other end
        try:
            told = os.read(report, _PIPE)
        except BlockingIOError:
            told = b""
        return status, json.loads(told) if told else None
    finally:
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)  # noqa: ASYNC222 -- what is killed is gone in a moment
        os.close(report)
        os.close(lifeline)


def _be_child(deliver: DeliverAlone, key: Key, report: int, lifeline: int) -> NoReturn:
    """Deliver the root on a loop in a thread of its own: this one seems to have the loop of the parent still."""
    try:
        signal.set_wakeup_fd(-1)
        for each in (signal.SIGINT, signal.SIGTERM):  # the parent decides, and this process ends with it
            signal.signal(each, _ignore)
        LOG.addFilter(_less_important)
        threading.Thread(target=_die_with, args=(lifeline,), daemon=True).start()
        run = contextvars.copy_context().run
        worker = threading.Thread(target=run, args=(_deliver_and_report, deliver, key, report), daemon=True)
        worker.start()
        worker.join()
        _flush()
    finally:
        os._exit(0)


def _deliver_and_report(deliver: DeliverAlone, key: Key, report: int) -> None:
    told: dict[str, Any]
    try:
        told = dict(asyncio.run(deliver(key)))
    except BaseException as error:  # noqa: BLE001 -- it has survived: the run raises it when the root runs there
        told = {"failed": said(error)[:1000]}
    with suppress(BrokenPipeError):  # the parent is dead, and this process in a moment
        os.write(report, json.dumps(told).encode())


def _die_with(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _less_important(record: logging.LogRecord) -> bool:
    """Make of what a whole run tells at INFO what its part tells at DEBUG."""
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
    """Do nothing, and be forgotten by what is executed: an ignored signal would stay so there."""


def _died_of(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"
