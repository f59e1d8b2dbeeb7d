"""What a durable run has done."""

from dataclasses import dataclass, field
from typing import Final

from penstock.core.outcome import Failed
from penstock.core.stats import Stats
from penstock.durable.causes import Cause
from penstock.durable.sink import Delivery

_SAID: Final = 3
"""Causes that the line of a report names."""

GO_ON: Final = "what was finished is stored; run it again to go on"
"""What to tell a user who has stopped a run, or whose run has failed."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """What one opening of a durable run has done; `str()` of it is a line.

    Attributes:
        run: the name of the run.
        path: where its journal is: the database in which tables and indexes have their rows, too.
        guarantee: what the sink promises over any number of kills.
        delivered: roots that were done and committed.
        already_done: roots that were done before, in this version, and were passed over.
        redone: roots that were settled before and begun again: in another version, or because that was asked for
            (`on_change="restart"`, `penstock.durable.redo` and `retry`). They count again by their outcome this time:
            delivered, or dead.
        by_other_code: of those already done, roots that other code than the present one has made: see
            `to(on_change="restart")` and `penstock.durable.redo`.
        dead: roots that were set aside, with what failed of them: see `penstock.durable.dead_roots`.
        causes: why they died, the commonest errors first, at most 10: each with a count and one key.
        dead_before: roots that were set aside before, in this version, and were passed over.
        missing: roots that were done before and are not in the source any more.
        removed: of those missing, roots whose rows were removed.
        unread: places of the source that could not be read and were passed over; what they hold is not missing.
        lost: roots that are done, but have lost rows to others, as seen at the beginning. Only the number of rows of
            all roots together is checked: rows that were changed in place are not seen.
        rows: rows that were stored.
        seconds: how long it took.
        commits: transactions.
        recalled: results that were known from before (`memo=True`), and not paid for again.
        changed: the stages whose code has changed since the run was begun last.
        duplicates: items that were dropped because another one had their key (`on_duplicate="first"`).
        limited: whether it ended because it had done as many roots as `limit` says.
        complete: whether the source came to its end and all of it is settled; what was `unread` does not count.
        stats: what every stage has counted and measured, as `Run.stats`.
        failures: items that failed and did not end the run, as `Run.failures`: the newest 1,000.
    """

    run: str
    path: str
    guarantee: Delivery
    delivered: int
    already_done: int
    redone: int
    dead: int
    dead_before: int
    missing: int
    removed: int
    rows: int
    seconds: float
    commits: int
    complete: bool
    stats: Stats = field(repr=False)
    failures: tuple[Failed, ...] = field(repr=False)
    recalled: int = 0
    changed: tuple[str, ...] = ()
    unread: int = 0
    causes: tuple[Cause, ...] = ()
    duplicates: int = 0
    limited: bool = False
    by_other_code: int = 0
    lost: int = 0

    def __str__(self) -> str:
        parts = [
            f"{self.delivered:,} delivered",
            *([f"{self.redone:,} begun again (changed or retried)"] if self.redone else []),
            f"{self.already_done:,} already done"
            + (f" ({self.by_other_code:,} by other code)" if self.by_other_code else ""),
            f"{self.dead:,} dead" + (f" ({self.dead_before:,} from before)" if self.dead_before else ""),
        ]
        if self.duplicates:
            parts.append(f"{_counted(self.duplicates, 'duplicate')} dropped")
        if self.recalled:
            parts.append(f"{_counted(self.recalled, 'result')} recalled")
        if self.changed:
            parts.append(f"code changed: {', '.join(self.changed)}")
        if self.missing:
            parts.append(f"{self.missing:,} missing" + (f", {self.removed:,} removed" if self.removed else ", kept"))
        if self.lost:
            parts.append(f"rows of {_counted(self.lost, 'root')} removed by others")
        if self.unread:
            parts.append(f"{_counted(self.unread, 'place')} of the source not read")
        parts.append(
            f"{_counted(self.rows, 'row')}, {_counted(self.commits, 'commit')}, {self.seconds:.1f} s, {self.guarantee}"
        )
        if self.complete:
            end = ""
        elif self.limited:
            end = " (ended by its limit: run it again to go on)"
        else:
            end = f" (stopped before its end: {GO_ON})"
        return f"run {self.run!r} into {self.path}: {'; '.join(parts)}{end}{self._died_of}"

    @property
    def _died_of(self) -> str:
        more = f"; and {len(self.causes) - _SAID} other errors" if len(self.causes) > _SAID else ""
        return f"; died of: {'; '.join(map(str, self.causes[:_SAID]))}{more}" if self.causes else ""


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
