"""The job behind `fetch`: rows of URLs stream through requests into a table, one record a key."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.retry import Seconds
from penstock.core.stats import StageStats
from penstock.durable.again import redo
from penstock.durable.handle import DurableRun
from penstock.durable.report import RunReport
from penstock.durable.status import runs
from penstock.durable.store_errors import StoreError
from penstock.sinks.sqlite_store import database
from penstock.sinks.table import SqliteTable
from penstock.workflows.fetching.fetch_report import LISTED, FetchFailure, FetchReport
from penstock.workflows.fetching.fetcher import Fetcher
from penstock.workflows.fetching.former import FormerRecords
from penstock.workflows.fetching.url_file import UrlFile, rows_of
from penstock.workflows.secret import Secret
from penstock.workflows.stoppable_job import GRACE, StoppableJob

RUN: Final = "fetch"
"""The name of the run: one for a database, whatever file the URLs come from."""

TABLE: Final = "records"


class FetchOptions(TypedDict, total=False):
    """Options of `fetch`.

    Attributes:
        key: the column of the keys; default the first one. It has to be named if the rows come from stdin or a pipe.
        refresh: whether to ask again for what a complete run has fetched, with conditional requests; default True.
            False fetches only keys that are new, whose URLs have changed, or that were set aside.
        prune: whether to remove records of keys that are not in the file any more; default False.
        concurrency: requests at once, an int >= 1; default 16.
        per_host: requests at once to one host, an int >= 1; default 4.
        rate: requests that start in a time at one host, as "10/s" or "500/min"; default None, any number.
        retry: attempts in all of a request that may do better, an int >= 1; default 4.
        timeout: seconds for one try in whole, redirects and body included, > 0; default 30.
        max_bytes: bytes of a body, decompressed, an int >= 1; default 10,000,000.
        max_redirects: an int >= 0; default 10.
        allow_private: whether hosts may be asked that are not of the public Internet; default False.
        headers: sent to every host that the file names, so trust the file if a header is secret. A redirect to another
            host gets none of them but Accept, Accept-Language and User-Agent.
    """

    key: str | None
    refresh: bool
    prune: bool
    concurrency: int
    per_host: int
    rate: str | None
    retry: int
    timeout: Seconds
    max_bytes: int
    max_redirects: int
    allow_private: bool
    headers: Mapping[str, str | Secret]


async def fetch(
    urls: str | os.PathLike[str], target: str | os.PathLike[str], **options: Unpack[FetchOptions]
) -> FetchReport:
    """Fetch the URLs of a file into the table `records` of the SQLite database `target`, one record a key.

    `urls` is CSV with a header, or lines of JSON; `-` is stdin. One column is the key; each other column that holds a
    URL is an endpoint, of which the record has `NAME_status`, `NAME_body` (JSON and other text as text, else bytes) and
    `NAME_error`. An endpoint that fails keeps the body that it had, and its error says why. A key of which nothing can
    be fetched is set aside.

    The record of a key is stored in one transaction: killed at any instant and called again, this goes on where it was
    (P10, P11). Called again after that, it asks only for what is new (ETag, Last-Modified).

    Raises:
        OptionError: an option breaks its rule.
        SourceError: something in the file cannot be read; the message has the line.
        DuplicateKeyError: a key is there twice.
        StoreError: `target` cannot be written.
        HeldError: another process is writing to `target`.
    """
    return await FetchJob(urls, target, **options).run()


class FetchJob(StoppableJob):
    """One call of `fetch`, which can be watched with `report` and ended early with `stop`."""

    def __init__(
        self, urls: str | os.PathLike[str], target: str | os.PathLike[str], **options: Unpack[FetchOptions]
    ) -> None:
        """Check the options; nothing is written before `run`.

        Raises:
            OptionError: an option breaks its rule.
        """
        super().__init__()
        given: dict[str, Any] = dict(options)
        if unknown := sorted(given.keys() - FetchOptions.__optional_keys__):
            there = ", ".join(sorted(FetchOptions.__optional_keys__))
            raise OptionError(f"fetch has no option {unknown[0]!r}: there are {there}")
        self._target = database("target", target)
        self._file = UrlFile(urls, given.pop("key", None))
        self._refresh = validate.flag("refresh", given.pop("refresh", True))
        self._prune = validate.flag("prune", given.pop("prune", False))
        self._fetcher = Fetcher(**given)

    async def run(self) -> FetchReport:
        """Do it, once; `fetch` says what it raises."""
        if not self._stopped:
            async with self._fetcher:
                await self._fetch()
        return self.report()

    @override
    def _give_up(self, durable: DurableRun) -> None:
        """Cancel requests; from then on, what a thread raises is no failure."""
        super()._give_up(durable)
        self._file.leave()

    def report(self) -> FetchReport:
        """Return what was done so far; may be called at any time, from any thread."""
        durable, counts = self._durable, self._fetcher.counts
        done = None if durable is None else durable.report()
        return FetchReport(
            target=self._target,
            records=done.delivered if done else 0,
            unchanged=counts.unchanged,
            incomplete=counts.incomplete,
            already_done=done.already_done if done else 0,
            failed=done.dead if done else 0,
            failures=self._failures(),
            missing=done.missing if done else 0,
            removed=done.removed if done else 0,
            requests=counts.requests,
            not_modified=counts.not_modified,
            seconds=done.seconds if done else 0.0,
            first_row_seconds=durable.first_row_s if durable else None,
            interrupted=self._stopped,
            stages=_stages(done) if done else (),
        )

    def _failures(self) -> tuple[FetchFailure, ...]:
        """Return the keys that failed: those with a record, then those that were set aside."""
        failures = () if self._durable is None else self._durable.failures
        aside = (FetchFailure(each.root, str(each.error)) for each in failures if each.root is not None)
        return (*self._fetcher.counts.failures, *aside)[-LISTED:]

    async def _fetch(self) -> None:
        column = self._file.column()
        self._begin_again()
        sink = SqliteTable(self._target, TABLE, key=column)
        former = FormerRecords(self._target, TABLE, column)
        records = self._fetcher.records(rows_of(self._file), former)
        run = records.deliver(
            sink,
            run=RUN,
            on_missing="delete" if self._prune else "keep",
            on_error="collect",
            find_killers=False,  # no code of others runs here
            grace=GRACE,
        )
        await self._finish(run, former)

    def _begin_again(self) -> None:
        """Have the run do again what there is to ask anew: all of a complete run, or what was set aside."""
        if not Path(self._target).exists():
            return
        try:
            found = next((each for each in runs(self._target) if each.name == RUN), None)
        except StoreError:  # no database with a run: what there is, opening it says
            return
        if found is None:
            return
        if found.state == "complete" and self._refresh:
            redo(self._target, run=RUN, which="all")
        elif found.dead:
            redo(self._target, run=RUN, which="dead")


def _stages(done: RunReport) -> tuple[StageStats, ...]:
    """Return the stages for a reader: endpoints that are asked, records that are stored."""
    if not done.stats.stages:
        return ()
    ends = StageStats("store", done.delivered + done.dead, done.delivered, 0, done.dead, 0, 0)
    return (done.stats["request"], ends)
