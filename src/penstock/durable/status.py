"""How the runs of a journal stand; read without a lock, while they run, too. And who changes it while they do not."""

import os
from collections import Counter, defaultdict
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock.durable.errors import DamageError, StoreError
from penstock.durable.roots import DEAD, DONE
from penstock.durable.sink import Sink, path_of
from penstock.durable.sqlite import lock
from penstock.durable.sqlite.connection import Connection, connect_reader, connect_writer, shown
from penstock.durable.sqlite.journal import Journal, check_format, has_journal, is_by_other_code

type RunState = Literal["running", "complete", "stopped", "killed"]

_RUNS = (
    "SELECT id, name, source, sink, times, clean, owner, began, ended FROM penstock_runs ORDER BY began DESC, id DESC"
)
_COUNTS = "SELECT run, state, times, count(*), sum(rows) FROM penstock_roots GROUP BY 1, 2, 3"
_CODES = "SELECT run, since, code FROM penstock_codes ORDER BY run, since"

_LONGEST = 16 << 20
"""Bytes of a value, at most."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands.

    Attributes:
        name: its name.
        source: what it is over.
        sink: what its rows go to; empty where a journal of the first format does not say.
        state: "running"; "complete", its source came to its end; "stopped" before that, in order, or by an error; or
            "killed".
        owner: who runs it, or ran it last.
        times: how often it was begun.
        began: when it was begun last, in seconds since 1970.
        ended: when it came to its end, or None.
        done: roots that are done.
        dead: roots that are set aside, with what failed of them.
        retried: roots that the next run does again, because that was asked for (`retry`, `redo`).
        by_other_code: roots that are done and were made by other code than that of the last opening.
        rows: rows that are stored.
    """

    name: str
    source: str
    sink: str
    state: RunState
    owner: str
    times: int
    began: float
    ended: float | None
    done: int
    dead: int
    retried: int
    by_other_code: int
    rows: int


def runs(sink: Sink | str | os.PathLike[str]) -> list[RunStatus]:
    """The runs of a sink, or of the journal at a path: a database, or what stands beside a `Callback`.

    The one begun last comes first.

    Raises:
        OptionError: it is neither a sink nor a path.
        StoreError: there is no such journal, or it cannot be read.
    """
    path = path_of(sink)
    with reading(path) as connection:
        held_by = lock.holder(path) or ""
        codes = defaultdict[int, list[tuple[int, bytes]]](list)
        for run, since, code in connection.select(_CODES, (), int, int, bytes):
            codes[run].append((since, code))
        counts = defaultdict[int, Counter[str]](Counter)
        for run, state, times, roots, rows in connection.select(_COUNTS, (), int, int, int, int, int):
            counts[run]["rows"] += rows
            counts[run]["retried" if not times else "dead" if state == DEAD else "done"] += roots
            if times and state == DONE and is_by_other_code(codes[run], times):
                counts[run]["by_other_code"] += roots
        found: dict[str, RunStatus] = {}
        kinds = (int, str, str, str, int, int, str, int | float, int | float | None)
        for run, name, source, into, times, clean, owner, began, ended in connection.select(_RUNS, (), *kinds):
            if name in found:
                raise DamageError(f"{path}: the database is damaged: it has the run {shown(name)} twice")
            found[name] = RunStatus(
                name=name,
                source=source,
                sink=into,
                state=_state(owner, held_by, clean=bool(clean), ended=ended is not None),
                owner=owner,
                times=times,
                began=began,
                ended=ended,
                done=counts[run]["done"],
                dead=counts[run]["dead"],
                retried=counts[run]["retried"],
                by_other_code=counts[run]["by_other_code"],
                rows=counts[run]["rows"],
            )
        return list(found.values())


def _state(owner: str, held_by: str, *, clean: bool, ended: bool) -> RunState:
    if ended:
        return "complete"
    if clean:
        return "stopped"
    return "running" if held_by.startswith(f"{owner},") else "killed"


@contextmanager
def reading(path: str) -> Generator[Connection]:
    """A connection to a journal that only reads."""
    if not path:
        raise StoreError("'': no such database")
    if Path(path).is_dir():
        raise StoreError(f"{path}: a directory, not a database")
    if not Path(path).exists():
        raise StoreError(f"{path}: no such database")
    if not Path(path).is_file():
        raise StoreError(f"{path}: not a regular file")
    with closing(connect_reader(path)) as connection:
        connection.bound(_LONGEST)
        require_journal(path, connection)
        yield connection


@contextmanager
def writing(path: str) -> Generator[tuple[Connection, Journal]]:
    """A connection to a journal that writes, while no run does.

    Raises:
        HeldError: a process is writing to it.
        StoreError: there is no such journal, or it cannot be written.
    """
    with reading(path):  # nothing is made or locked where there is no journal
        pass
    with lock.exclusive(path), closing(connect_writer(path)) as connection:
        require_journal(path, connection)
        journal = Journal(path, connection)
        journal.prepare()
        yield connection, journal


def require_journal(path: str, connection: Connection) -> None:
    """`StoreError` if the database has no journal, or one of another format."""
    if not has_journal(connection):
        raise StoreError(f"{path}: no durable run has written to it")
    check_format(path, connection)
