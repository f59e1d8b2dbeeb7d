"""How the runs of a journal stand; read without a lock, while they run, too."""

from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penstock.durable import lock
from penstock.durable.journal import check_format, has_journal
from penstock.durable.roots import DEAD, DONE
from penstock.durable.sqlite import Connection, DamageError, StoreError, connect_reader, shown

type State = Literal["running", "complete", "stopped", "killed"]

_RUNS = "SELECT id, name, source, times, clean, owner, began, ended FROM penstock_runs ORDER BY began DESC, id DESC"
_COUNTS = "SELECT run, state, times = 0, count(*), sum(rows) FROM penstock_roots GROUP BY 1, 2, 3"

_LONGEST = 16 << 20
"""Bytes of a value, at most."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands.

    Attributes:
        name: its name.
        source: what it is over.
        state: "running"; "complete", its source came to its end; "stopped" before that, in order, or by an error; or
            "killed".
        owner: who runs it, or ran it last.
        times: how often it was begun.
        began: when it was begun last, in seconds since 1970.
        ended: when it came to its end, or None.
        done: roots that are done.
        dead: roots that are set aside, with what failed of them.
        retried: roots that were set aside and are done again by the next run.
        rows: rows that are stored.
    """

    name: str
    source: str
    state: State
    owner: str
    times: int
    began: float
    ended: float | None
    done: int
    dead: int
    retried: int
    rows: int


def runs(path: str) -> list[RunStatus]:
    """The runs of a journal: that in the database of a sink, or beside a `Callback`; the one begun last comes first.

    Raises:
        StoreError: there is no such journal, or it cannot be read.
    """
    with reading(path) as connection:
        held_by = lock.holder(path) or ""
        counts = {
            (run, state, again): (number, rows)
            for run, state, again, number, rows in connection.select(_COUNTS, (), int, int, int, int, int)
        }
        found: list[RunStatus] = []
        kinds = (int, str, str, int, int, str, int | float, int | float | None)
        names = set[str]()
        for run, name, source, times, clean, owner, began, ended in connection.select(_RUNS, (), *kinds):
            if name in names:
                raise DamageError(f"{path}: the database is damaged: it has the run {shown(name)} twice")
            names.add(name)
            states = [(state, again) for state in (DONE, DEAD) for again in (0, 1)]
            of = {each: counts.get((run, *each), (0, 0)) for each in states}
            found.append(
                RunStatus(
                    name=name,
                    source=source,
                    state=_state(owner, held_by, clean=bool(clean), ended=ended is not None),
                    owner=owner,
                    times=times,
                    began=began,
                    ended=ended,
                    done=of[DONE, 0][0],
                    dead=of[DEAD, 0][0],
                    retried=of[DONE, 1][0] + of[DEAD, 1][0],
                    rows=sum(rows for _, rows in of.values()),
                )
            )
        return found


def _state(owner: str, held_by: str, *, clean: bool, ended: bool) -> State:
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


def require_journal(path: str, connection: Connection) -> None:
    """`StoreError` if the database has no journal, or one of another format."""
    if not has_journal(connection):
        raise StoreError(f"{path}: no durable run has written to it")
    check_format(path, connection)
