"""How the runs of a journal stand; read without a lock, also while they run."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from penstock.core.text import named
from penstock.durable.journals import At, journal_at
from penstock.durable.made_by import is_by_other_code
from penstock.durable.roots import DEAD, DONE
from penstock.durable.store import JournalReader, RunRecord
from penstock.durable.store_errors import StoreError

type RunState = Literal["running", "complete", "stopped", "killed"]

_NAMED: Final = 20
"""Runs that an error names."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands.

    Attributes:
        name: its name.
        source: its source.
        sink: where its rows go; empty if a journal of the first format does not say.
        state: "running"; "complete", its source came to its end; "stopped" before that, in order or by an error; or
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


def runs(sink: At) -> list[RunStatus]:
    """Return the runs of a sink, or of the journal at a path: a database, or what stands beside a `Callback`.

    The one begun last comes first.

    Raises:
        OptionError: it is neither a sink nor a path.
        StoreError: there is no such journal, or it cannot be read.
    """
    with journal_at(sink).read() as journal:
        writer = journal.writer()
        found = {run.number: run for run in journal.runs()}
        counts = defaultdict[int, Counter[str]](Counter)
        for run, state, times, roots, rows in journal.counts():
            counts[run]["rows"] += rows
            counts[run]["retried" if not times else "dead" if state == DEAD else "done"] += roots
            if times and state == DONE and run in found and is_by_other_code(found[run].codes, times):
                counts[run]["by_other_code"] += roots
        return [
            RunStatus(
                name=run.name,
                source=run.source,
                sink=run.sink,
                state=_state(run, writer),
                owner=run.owner,
                times=run.times,
                began=run.began,
                ended=run.ended,
                done=counts[number]["done"],
                dead=counts[number]["dead"],
                retried=counts[number]["retried"],
                by_other_code=counts[number]["by_other_code"],
                rows=counts[number]["rows"],
            )
            for number, run in found.items()
        ]


def _state(run: RunRecord, writer: str) -> RunState:
    if run.ended is not None:
        return "complete"
    if run.clean:
        return "stopped"
    return "running" if run.owner == writer else "killed"


def find_run(place: str, journal: JournalReader, name: str) -> RunRecord:
    """Return the run of that name; raise `StoreError` if there is none."""
    found = journal.run(name)
    if found is None:
        raise no_run(place, name, [run.name for run in journal.runs()])
    return found


def no_run(place: str, name: str, there: Sequence[str]) -> StoreError:
    """Make the error for a run that is not there."""
    more = f" and {len(there) - _NAMED:,} more" if len(there) > _NAMED else ""
    return StoreError(
        f"{place}: no run {named(name)}, there are {', '.join(map(named, there[:_NAMED])) or 'none'}{more}"
    )
