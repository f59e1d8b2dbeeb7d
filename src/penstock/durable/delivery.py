"""Runs a stream into a sink, root by root."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import Any, Final

from penstock.core import open_runs, validate
from penstock.core.errors import OptionError, PenstockError, note
from penstock.core.log import LOG
from penstock.core.outcome import Failed
from penstock.core.scope import KEPT_FAILURES
from penstock.durable.causes import Causes
from penstock.durable.done import DoneRoots
from penstock.durable.errors import RowError
from penstock.durable.job import Job
from penstock.durable.journal import Journal, Opened, unused_memo
from penstock.durable.ledger import Ledger
from penstock.durable.lock import HeldError, Progress, owner, reached
from penstock.durable.memo import Memo
from penstock.durable.refusing import Refusals
from penstock.durable.report import GO_ON, RunReport
from penstock.durable.roots import Key, Root, Tracked
from penstock.durable.sink import Store, identity_of, keeps_order
from penstock.durable.sqlite import StoreError
from penstock.durable.suspects import DIED_ALONE, Counts, Found, Search, announced
from penstock.durable.weights import weight
from penstock.durable.writer import Writer
from penstock.run import Run

HELD: Final = 10_000
"""Rows of unfinished roots that are held in memory, by weight; beyond, they wait in the store."""

_WAITS: Final = (0.01, 0.02, 0.05, 0.1)
"""Seconds that one who holds the sink gets: the child of a process that was killed takes a moment to end, too."""


def itself(row: Any) -> Any:
    """The row, for a store that takes rows as they come."""
    return row


async def deliver(job: Job) -> RunReport:
    """Run it to its end, or until it is stopped or fails; what is finished by then is committed."""
    async with delivering(job) as delivery:
        file = _file(job.sink.path)
        try:
            await delivery.run()
        except Exception as error:
            if _file(job.sink.path) == file:  # or what was finished is gone with it
                note(error, f"run {job.name!r} into {job.sink.path} has failed: {GO_ON}")
            raise
    return delivery.report()


def _file(path: str) -> tuple[int, int] | None:
    """What tells a file from another one that takes its place; None if there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@asynccontextmanager
async def delivering(job: Job) -> "AsyncGenerator[Delivery]":
    """One opening of the run, for those who want to watch it or to stop it; it is done by its `run`."""
    for name, text in (("run", job.name), ("the name of the source", job.source)):
        if not validate.is_utf8(text):
            raise OptionError(f"{name} must be a str that can be written as UTF-8, got {text!r}")
    began = perf_counter()
    store, opened, found = await _open(job)
    try:
        delivery = Delivery(job, store, opened, began, found)
        LOG.info("%s", delivery)
        try:
            delivery.start()
            yield delivery
        finally:
            await delivery.close()
            LOG.info("%s", delivery.report())
    finally:
        store.close()


async def _open(job: Job) -> tuple[Store, Opened, Found]:
    """Open the run, and again when those roots have been tried that may have killed the process."""
    store, opened = await _open_once(job)
    found = Found()
    if opened.changed:
        LOG.warning("run %r: the code has changed since it was begun last: %s", job.name, ", ".join(opened.changed))
    if opened.lost:
        lacking = "run %r: %s done roots lack rows, which others have removed; %s has these done again"
        LOG.warning(lacking, job.name, f"{opened.lost:,}", _redo(job))
    try:
        with store.transaction():
            suspects = store.journal.deaths.suspects(opened.id) if job.finds_killers else []
        if suspects and job.one_shot:
            LOG.warning("run %r: a root may have killed the process, but its source cannot be read twice", job.name)
        elif suspects:
            LOG.warning("%s", announced(job.name, suspects))
            store.close()  # a connection must not be taken into a child
            search = Search(
                opened,
                partial(job.sink.open, job.durability),
                partial(_deliver_some, job, replace(opened, notes=True)),
                keeps_rows_of_dead=job.on_dead == "keep",
                progress=job.progress,
            )
            found = await search.run(suspects)
            store, again = await _open_once(job)
            opened = replace(again, changed=opened.changed)
        with store.transaction():
            for suspect in () if found.interrupted else suspects:
                store.journal.deaths.acquit(opened.id, suspect.key)
            if job.finds_killers:
                opened = replace(opened, notes=store.journal.deaths.enter(opened.id, opened.times))
            else:
                store.journal.deaths.forget(opened.id)
    except BaseException:
        store.close()
        raise
    return store, opened, found


async def _open_once(job: Job) -> tuple[Store, Opened]:
    store = None
    for wait in _WAITS:
        with suppress(HeldError):
            store = job.sink.open(job.durability)
            break
        await asyncio.sleep(wait)
    store = store or job.sink.open(job.durability)
    try:
        with store.transaction():
            opened = store.journal.open_run(
                job.name, job.source, identity_of(job.sink), owner(), stages=job.stages, on_change=job.on_change
            )
            lost = store.lost(opened.id)
            _refuse_if_all_are_lost(job, store, opened, lost)
            store.journal.deaths.learn(reached(job.sink.path))
            return store, replace(opened, keeps_rows_of_dead=job.on_dead == "keep", lost=len(lost))
    except BaseException:
        store.close()
        raise


def _refuse_if_all_are_lost(job: Job, store: Store, opened: Opened, lost: Sequence[tuple[int, int]]) -> None:
    """`StoreError` if nothing is left of all that the run had stored: its table was dropped, or emptied."""
    if any(rows for _, rows in lost) or not lost or store.journal.roots_with_rows(opened.id) > len(lost):
        return
    raise StoreError(
        f"{job.sink.path}: the rows of run {job.name!r}, of {len(lost):,} roots, are not there any more: others have "
        f"removed them; {_redo(job)} has them done again, `penstock forget` begins anew"
    )


def _redo(job: Job) -> str:
    return f"`penstock redo {quote(job.sink.path)} --run {quote(job.name)} --missing-rows`"


async def _deliver_some(job: Job, opened: Opened, keys: frozenset[Key]) -> Counts:
    """Deliver those roots and nothing else, as far as nothing of them fails."""
    store = job.sink.open(job.durability)
    try:
        delivery = Delivery(replace(job, progress=False), store, opened, perf_counter(), only=keys)
        try:
            delivery.start()
            await delivery.run()
        finally:
            await delivery.close()
        return delivery.counts()
    finally:
        store.close()


class Delivery:
    """One opening of a durable run.

    Attributes:
        items: the run of the stream: its statistics and failures, and how to stop it.
        first_row_s: seconds from its opening to the commit of the first root that was delivered; None before.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        opened: Opened,
        began: float,
        found: Found | None = None,
        *,
        only: frozenset[Key] | None = None,
    ) -> None:
        self.items: Run[Tracked] = Run(
            lambda scope: job.open_tracked(scope, self._ledger, "", keeps_order(job.sink)),
            job.grace,
            timing=False,
            progress=job.progress,
        )
        self.items.room = 64  # what comes is put in line for the sink at once: a thread may read so many for a hop
        self.first_row_s: float | None = None
        self._began = began
        self._ended: float | None = None
        self._job = job
        self._store = store
        self._opened = opened
        self._reader = store.reader()
        self._done = DoneRoots(self._reader, opened.id)
        self._found = Found() if found is None else found
        self._only = only
        self._ledger = Ledger(self._done, opened, self._finished, retries_dead=job.retries_dead)
        self._ledger.only = only
        if job.finds_killers and not opened.notes:
            self._ledger.progress = Progress(job.sink.path, opened.id, opened.times)
        self._ledger.duplicates = 0 if job.on_duplicate == "first" else None
        if job.limit is not None and only is None:  # those that ran alone count, too
            done_alone = self._found.counts.get("delivered", 0) + len(self._found.dead)
            self._ledger.limit = max(job.limit - done_alone, 0)
            self._ledger.enough = lambda: self._writer.loop.call_soon(self.items.stop)
        self._ledger.set_aside = self._found.dead
        self._ledger.is_full = lambda: self._writer.is_full
        self._memo = self._ledger.memo = Memo(self._reader, self._remember)
        self._ledger.dispatch = self._dispatch if opened.notes else None
        self._progress = asyncio.Event()
        tolerance = job.tolerance if only is None else None  # what fails alone runs among the others once more
        self._refusals = Refusals(type(job.sink).__name__, tolerance)
        self._writer = Writer(
            store,
            opened,
            asyncio.get_running_loop(),
            self._committed,
            refuse=self._refusals.refuse,
            keeps_rows_of_dead=job.on_dead == "keep",
        )
        self._causes = Causes()
        for key in self._found.dead:
            self._causes.add(DIED_ALONE, "process", key)
        self._held = self._begun = 0
        self._delivered = self._dead = self._rows = self._missing = self._removed = 0
        self._complete = False

    def start(self) -> None:
        """Have what is finished written from here on."""
        self._writer.start()

    async def run(self) -> None:
        """Read the stream to its end."""
        accept, refusals = getattr(self._store, "accept", itself), self._refusals
        async with self.items as items:
            async for item in items:
                root = item.root
                refusals.taken += 1
                try:
                    row = accept(item.value)
                except Exception as error:  # noqa: BLE001 -- whatever it is, it is of this row
                    self._refuse(root, error, item.value)
                else:
                    root.rows.append(row)
                    size = weight(item.value)
                    root.weight += size
                    self._held += size
                    if self._held > HELD:
                        self._stage()
                root.settled()
                if self._writer.is_full:
                    await self._committing(lambda: not self._writer.is_full)
                if self._writer.failure is not None:
                    break
        await self._written()
        self._refuse_unfinished()
        if self._ledger.has_enough:
            await self._settle_within_limit()
        whole = self._only is None
        if whole:
            await self._look_for_missing()
            await self._drop_memos()
        if whole and not self._was_stopped:
            self._writer.settle_put_off()
            await self._written()
            with self._store.transaction():
                self._store.journal.close_run(self._opened.id)
            self._complete = True

    async def _settle_within_limit(self) -> None:
        """Have the roots committed that wait for others within the limit; name those that wait for roots beyond it."""
        self._writer.settle_put_off(is_last=False)
        await self._written()
        if waiting := self._writer.put_off:
            LOG.warning(
                "run %r: %s with the keys of rows that roots beyond the limit have, root %r among them, are not done: "
                "a run with a higher limit does them with those",
                self._job.name,
                "1 root" if len(waiting) == 1 else f"{len(waiting):,} roots",
                waiting[0].key,
            )

    def _refuse(self, root: Root, error: Exception, item: object) -> None:
        """Set aside a row that the sink cannot hold, or raise why; in a child, have its root run among the others."""
        if self._only is not None:
            root.failed = True
            return
        if isinstance(error, RowError) and self._job.tolerance is None:
            error = RowError(f"row {root.staged + len(root.rows)} of {root.key!r}: {error}").with_traceback(None)
        self._refusals.refuse(root, error, item, self._refusals.taken - 1)

    @property
    def failures(self) -> tuple[Failed, ...]:
        """The newest items that failed and did not end the run: of the stages, then those that the sink refused."""
        return (*self.items.failures, *self._refusals.failures)[-KEPT_FAILURES:]

    @property
    def _was_stopped(self) -> bool:
        """Whether to begin nothing more, also when the stream is over."""
        return self.items.was_stopped or self._ledger.has_enough or open_runs.is_draining(self._writer.loop)

    def _refuse_unfinished(self) -> None:
        """Raise if the stream has ended and a root has not: it must not pass for a complete run."""
        if lost := self._ledger.unfinished():
            raise PenstockError(
                f"the stream has ended, but {len(lost)} of its roots have not, the first of them {lost[0].key!r}: "
                "a defect of penstock; they count as not done"
            )

    async def close(self) -> None:
        """Commit what is finished, whatever happened; a sink that has not taken it after the grace is aborted."""
        timer = self._writer.loop.call_later(self._job.grace, self._store.abort)
        try:
            await self._writer.close()
        finally:
            timer.cancel()
            self._committed()
            if self._ended is None:
                self._ended = perf_counter()
                self._reader.close()
                self._leave()

    def _leave(self) -> None:
        """Note that nothing of the run is under way any more; what was at earlier deaths stays suspect."""
        if self._only is not None or self._complete:
            return
        with suppress(StoreError), self._store.transaction():  # what it is for has worse to say then
            self._store.journal.leave_run(self._opened.id)

    def counts(self) -> Counts:
        """What was delivered."""
        return {
            "delivered": self._delivered,
            "redone": self._ledger.changed,
            "rows": self._rows,
            "commits": self._writer.commits,
            "recalled": self._memo.recalled,
        }

    def report(self) -> RunReport:
        """What was done, so far or at the end."""
        ledger, found = self._ledger, self._found
        counts = {name: count + found.counts.get(name, 0) for name, count in self.counts().items()}
        return RunReport(
            **counts,
            run=self._job.name,
            path=self._job.sink.path,
            guarantee=self._job.sink.delivery,
            already_done=max(
                sum(ledger.passed.values()) - found.counts.get("delivered", 0), 0
            ),  # they were passed over after that
            dead=self._dead + len(found.dead),
            dead_before=max(ledger.dead_before - len(found.dead), 0),
            missing=self._missing,
            removed=self._removed,
            unread=ledger.unread,
            causes=self._causes.commonest(),
            duplicates=ledger.duplicates or 0,
            limited=ledger.has_enough and not self._complete,
            seconds=(self._ended or perf_counter()) - self._began,
            complete=self._complete,
            changed=self._opened.changed,
            lost=self._opened.lost,
            by_other_code=sum(n for times, n in ledger.passed.items() if self._opened.is_by_other_code(times)),
            stats=self.items.stats(),
            failures=self.failures,
        )

    def __str__(self) -> str:
        times = "" if self._opened.times == 1 else f", begun {self._opened.times} times"
        before = "" if self._opened.clean else ", after one that was killed"
        return (
            f"run {self._job.name!r} into {self._job.sink.path}: {self._job.sink.delivery}, "
            f"durability {self._job.durability}{times}{before}"
        )

    def _finished(self, root: Root) -> None:
        self._held -= root.weight
        if self._only is None or not root.failed:
            self._writer.add(root)

    def _remember(self, stage: bytes, item: bytes, value: bytes) -> None:
        self._writer.note(lambda journal: journal.remember(stage, item, value), weight=weight(value))

    def _dispatch(self, root: Root) -> Awaitable[None]:
        """Note that a root is under way; if that fails, the run is aborted, and so is who waits for it."""
        committed = self._writer.loop.create_future()
        root.dispatched = True
        self._begun += 1
        run, times = self._opened.id, self._opened.times
        self._writer.note(lambda journal: journal.deaths.dispatch(run, times, root), partial(_tell, committed))
        if self._only is not None and self._begun == len(self._only):
            self._writer.loop.call_soon(self.items.stop)
        return committed

    def _stage(self) -> None:
        """Have the rows of the greatest unfinished roots wait in the store, until half of all that are held do."""
        for root in sorted(self._ledger.unfinished(), key=attrgetter("weight"), reverse=True):
            self._held -= root.weight
            if root.letters:
                root.rows.clear()
            else:
                self._writer.stage(root)
            root.weight = 0
            if self._held <= HELD // 2:
                return

    def _committed(self) -> None:
        """Count what was committed since last time; called on the loop."""
        if self._writer.failure is not None:
            self.items.abort()
        for root in self._writer.take_committed():
            self._ledger.committed(root)
            if root.letters:
                self._dead += 1
                letter = root.letters.first
                self._causes.add(letter.error, letter.stage, root.key)
            else:
                self.first_row_s = self.first_row_s or perf_counter() - self._began
                self._delivered += 1
                self._rows += root.staged + len(root.rows)
        self._ledger.tell()
        self._progress.set()

    async def _committing(self, enough: Callable[[], bool]) -> None:
        while not enough():
            self._progress.clear()
            await self._progress.wait()

    async def _written(self) -> None:
        """Wait until all that was given to the writer is committed; raise why it is not."""
        await self._committing(lambda: self._writer.is_idle)
        if self._writer.failure is not None:
            raise self._writer.failure

    async def _look_for_missing(self) -> None:
        if self._was_stopped:
            return
        deletes = self._job.on_missing != "keep"
        silent = self._ledger.silent() if self._job.on_missing == "delete" else []
        for page in self._ledger.missing():
            await asyncio.sleep(0)
            if self._was_stopped:
                return
            gone = [number for number, key in self._without(silent, page) if self._job.is_missing(key)]
            self._missing += len(gone)
            while gone and deletes and not self._was_stopped:
                before = len(gone)
                await self._write(partial(self._remove, gone))
                self._removed += before - len(gone)

    def _without(self, silent: list[str], page: list[tuple[int, Key]]) -> list[tuple[int, Key]]:
        """The roots of a page but for those of sources that gave nothing: so looks a file that was cut off."""
        for prefix in [each for each in silent if any(str(key).startswith(each) for _, key in page)]:
            silent.remove(prefix)
            self._ledger.note_unread(prefix)
            LOG.warning(
                'run %r: its source%s gave nothing at all: what is done of it is kept; on_missing="delete_all" '
                "removes that, too",
                self._job.name,
                f" {prefix.removesuffix(':')}" if prefix else "",
            )
            return self._without(silent, [each for each in page if not str(each[1]).startswith(prefix)])
        return page

    def _remove(self, gone: list[int], journal: Journal) -> None:
        """Remove roots and their rows, as much as one commit may hold; runs in the thread that writes."""
        rows = 0
        while gone and rows < self._store.largest:
            number = gone.pop()
            self._store.replace(number, ())
            rows += 1 + journal.forget(number)

    async def _drop_memos(self) -> None:
        """Drop what is kept for stages that are part of no run any more."""
        while not self._was_stopped and (stage := unused_memo(self._reader)) is not None:
            await self._write(partial(Journal.drop_memo, stage=stage))

    async def _write(self, write: Callable[[Journal], object]) -> None:
        """Have that done in a transaction of its own, by the thread that writes: the loop is free meanwhile."""
        self._writer.note(write)
        await self._written()


def _tell(committed: asyncio.Future[None]) -> None:
    if not committed.done():
        committed.set_result(None)
