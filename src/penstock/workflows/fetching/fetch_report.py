"""What a run of `fetch` did, so far or at its end."""

from dataclasses import dataclass
from typing import Final

from penstock.core.stats import StageStats

LISTED: Final = 1_000
"""Failures that are kept by key; the rest are counted."""


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """A key of which an endpoint, or every endpoint, could not be fetched, and why."""

    key: str | int
    reason: str


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What a run did.

    Attributes:
        target: the database.
        records: stored by this run.
        unchanged: of those, records of which no endpoint had anything new.
        incomplete: of those, records with an endpoint that failed.
        already_done: keys that an earlier run had done, which this one went on with.
        failed: keys that were set aside, as nothing of them could be fetched; a former record stays.
        failures: the keys that failed, whole or in part: the newest 1,000.
        missing: keys in the database that are not in the source any more.
        removed: of those, keys whose records were removed (`prune`).
        requests: that were sent, tries counted each.
        not_modified: endpoints that had nothing new, as their servers said.
        seconds: since the database was opened.
        first_row_seconds: until the first record was committed; None if none was.
        interrupted: whether it was stopped; the same call goes on.
        stages: the counters of reading, requests and storing.
    """

    target: str
    records: int
    unchanged: int
    incomplete: int
    already_done: int
    failed: int
    failures: tuple[FetchFailure, ...]
    missing: int
    removed: int
    requests: int
    not_modified: int
    seconds: float
    first_row_seconds: float | None
    interrupted: bool
    stages: tuple[StageStats, ...]
