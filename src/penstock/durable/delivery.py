"""Delivers a stream into a sink, root by root."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter, methodcaller
from time import perf_counter
from typing import Any, Final

from penstock.core import open_runs
from penstock.core.errors import PenstockError
from penstock.core.log import LOG
from penstock.core.outcome import Failed
from penstock.core.scope import KEPT_FAILURES, outlast
from penstock.core.stage import Stage
from penstock.durable.causes import Causes
from penstock.durable.done import DoneRoots
from penstock.durable.job import Job
from penstock.durable.ledger import Ledger
from penstock.durable.memo import Memo
from penstock.durable.note import RunNote
from penstock.durable.opening import Opening
from penstock.durable.refusing import Refusals
from penstock.durable.report import RunReport
from penstock.durable.resume import Resume
from penstock.durable.roots import Bundle, Key, Root, RootId, Tracked
from penstock.durable.sink import keeps_order, place_of
from penstock.durable.store import Journal
from penstock.durable.store_errors import RowError, StoreError
from penstock.durable.transact import transact
from penstock.durable.tried import DIED_ALONE, Counts, Tried
from penstock.durable.weights import weight
from penstock.durable.writer import Writer
from penstock.run import Run, last_stage

HELD: Final = 10_000
"""Rows of unfinished roots that memory holds, by weight; more of them wait in the store."""


_AT_ONCE: Final = 64
"""Items that are taken at once, if they are there, between two looks at the loop."""

_MANY: Final = 8
"""Rows from which accepting them together costs less than accepting each."""


type AcceptAll = Callable[[list[Any]], list[Any] | None]
"""Turns rows into what the store keeps of them; None if the store has to be asked for each, as it may hold it."""


def _weight(value: Any) -> int:
    """Return the weight of what no sink has accepted yet: of what cannot be weighed, that of a large row."""
    try:
        return weight(value)
    except Exception:  # noqa: BLE001 -- a value of others; the sink says what is wrong with its row
        return HELD


def itself(row: Any) -> Any:
    """Return the row, for a store that takes rows as they come."""
    return row


class Deliverer:
    """Delivers one opening of a durable run.

    Attributes:
        items: the run of the stream: its statistics and failures, and how to stop it.
        memo: results of stages that are kept.
        note: what a workflow notes of the run.
        delivered, dead: roots that were committed: done, or set aside.
        rows: rows that were stored.
        first_row_s: seconds from its opening to the commit of the first root that was delivered; None before.
    """

    def __init__(
        self, job: Job, opening: Opening, found: Tried, *, began: float, only: frozenset[Key] | None = None
    ) -> None:
        """Prepare to deliver what is to be done, or `only` the roots of those keys.

        `found` is what workers have done.
        """
        options, store, opened = job.options, opening.store, opening.run
        title = f"run {opened.name!r} into {place_of(job.sink)}"
        self.items: Run[Tracked] = Run(
            lambda scope: job.source.open(scope, self._ledger, "", keeps_order(job.sink)),
            options.grace,
            timing=False,
            progress=options.progress and only is None,
            describe=lambda: title,
            title=f"durable run {opened.name}",
            room=64,  # what comes is put in line for the sink at once: a thread may read so many for a hop
        )
        self.first_row_s: float | None = None
        self._began = began
        self._ended: float | None = None
        self._job = job
        self._store = store
        self._opened = opened
        self._found = found
        self._only = only
        self._accept: Callable[[Any], Any] = getattr(store, "accept", itself)
        self._accept_all: AcceptAll | None = getattr(store, "accept_all", None)
        self._reader = store.reader()
        self.memo: Memo = Memo(self._reader, self._remember)
        limit = None
        if options.limit is not None and only is None:  # those that ran alone count, too
            limit = max(options.limit - found.counts.get("delivered", 0) - len(found.dead), 0)
        notes_progress = job.finds_killers and not opened.notes
        self._ledger = Ledger(
            DoneRoots(self._reader, opened.id),
            opened,
            self._finished,
            memo=self.memo,
            dispatch=self._dispatch if opened.notes else None,
            is_full=lambda: self._writer.is_full,
            enough=lambda: self._writer.loop.call_soon(self.items.stop),
            limit=limit,
            only=only,
            set_aside=found.dead,
            reach=store.reach(opened.id, opened.times) if notes_progress else None,
            drops_duplicates=options.on_duplicate == "first",
            retries_dead=job.source.retries_dead,
        )
        self._progress = asyncio.Event()
        self._tolerance = job.tolerance if only is None else None  # what fails alone runs among the others once more
        self._refusals = Refusals(type(job.sink).__name__, self._tolerance)
        self._writer = Writer(
            store,
            opened,
            asyncio.get_running_loop(),
            self._committed,
            refuse=self._refusals.refuse,
            keeps_rows_of_dead=opened.keeps_rows_of_dead,
        )
        self.note: RunNote = RunNote(self._reader, self._writer.note, opened.id)
        self._causes = Causes()
        for key in found.dead:
            self._causes.add(DIED_ALONE, "process", key)
        self._held = self._begun = 0
        self._missing = self._removed = 0
        self.delivered: int = found.counts.get("delivered", 0)
        self.dead: int = len(found.dead)
        self.rows: int = found.counts.get("rows", 0)
        self._complete = False
        self._aborted = False

    def start(self) -> None:
        """Start the writer."""
        self._writer.start()

    async def run(self) -> None:
        """Read the stream to its end, or until it is stopped or aborted."""
        await self._read()
        await self._written()
        if not self._aborted:
            await self._end()

    async def _end(self) -> None:
        """Finish after the end of the stream: if that was the end of the source, note it in the journal."""
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
            transact(self._store, lambda: self._store.journal.close_run(self._opened.id))
            self._complete = True

    async def _read(self) -> None:
        """Give the writer what the stream gives, to its end."""
        writer = self._writer
        async with self.items as items:
            async for item in items:
                self._take_with_others(item)
                if writer.is_full:
                    await self._committing(lambda: not writer.is_full)
                if writer.failure is not None:
                    break

    def _take_with_others(self, item: Tracked) -> None:
        """Take an item and those that need no waiting, together where the store can accept many rows at once."""
        stage, writer = last_stage(self.items), self._writer
        if self._accept_all is None or stage is None:
            self._take(item)
            for each in stage.ready_items(_AT_ONCE) if stage is not None and not writer.is_full else ():
                self._take(each)
                if writer.is_full:
                    break
        elif isinstance(stage, Resume):
            self._take(item)
            while not writer.is_full and (taken := stage.together(_AT_ONCE)):
                for each in self._take_bundle(taken) if isinstance(taken, Bundle) else taken:
                    self._take(each)
        else:
            self._take_results(item, stage)

    def _take_results(self, item: Tracked, stage: Stage[Tracked]) -> None:
        """Take an item and those that wait behind it, up to the first that is larger than a kilobyte.

        New roots of one row each need no look at each row: 5 us an item less than `_take`, with the commit.
        """
        items, size = [item], _weight(item.value)
        if size == 1:
            for item in stage.ready_items(_AT_ONCE):  # noqa: PLR1704 -- the next one
                items.append(item)
                size += (last := _weight(item.value))
                if last > 1:
                    break
        roots = [item.root for item in items]
        if len(items) < _MANY or not all(root.is_one_row for root in roots):
            rows = None
        else:
            rows = self._accepted([item.value for item in items])
        if rows is None:
            for item in items:
                self._take(item)
            return
        self._refusals.taken += len(rows)
        self._writer.add(Bundle.of(roots, rows, size))

    def _accepted(self, values: list[Any]) -> list[Any] | None:
        """Return the rows of all values; None if each has to be looked at."""
        assert self._accept_all is not None
        with suppress(Exception):  # it comes again, for its row
            return self._accept_all(values)
        return None

    def _take_bundle(self, bundle: Bundle) -> Sequence[Tracked]:
        """Have new roots committed together; else return their items, each of which has to be looked at."""
        rows = self._accepted(bundle.items)
        if rows is None:
            return self._ledger.unbundled(bundle)
        bundle.items = rows
        self._refusals.taken += len(rows)
        self._writer.add(bundle)
        return ()

    def _take(self, item: Tracked) -> None:
        """Add an item, which is a row now, to the rows of its root."""
        root = item.root
        self._refusals.taken += 1
        try:
            row = self._accept(item.value)
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

    async def _settle_within_limit(self) -> None:
        """Commit the roots that wait for others within the limit; raise for those that wait for roots beyond it."""
        self._writer.settle_put_off(is_last=False)
        await self._written()
        if waiting := self._writer.put_off:
            LOG.warning(
                "run %r: %s with the keys of rows that roots beyond the limit have, root %r among them, are not done: "
                "a run with a higher limit does them with those",
                self._opened.name,
                "1 root" if len(waiting) == 1 else f"{len(waiting):,} roots",
                waiting[0].key,
            )

    def _refuse(self, root: Root, error: Exception, item: object) -> None:
        """Set aside a row that the sink cannot hold, or raise its error; in a worker, leave its root to the parent."""
        if self._only is not None:
            root.failed = True
            return
        if isinstance(error, RowError) and self._tolerance is None:
            error = RowError(f"row {root.staged + len(root.rows)} of {root.key!r}: {error}").with_traceback(None)
        self._refusals.refuse(root, error, item, self._refusals.taken - 1)

    @property
    def failures(self) -> tuple[Failed, ...]:
        """The newest items that failed and did not end the run: of the stages, then those that the sink refused."""
        return (*self.items.failures, *self._refusals.failures)[-KEPT_FAILURES:]

    @property
    def _was_stopped(self) -> bool:
        """Whether to begin nothing more, even if the stream is over."""
        return (
            self.items.was_stopped
            or self._aborted
            or self._ledger.has_enough
            or open_runs.is_draining(self._writer.loop)
        )

    def _refuse_unfinished(self) -> None:
        """Raise if the stream has ended and a root has not: the run must not pass for a complete one."""
        if lost := self._ledger.unfinished():
            raise PenstockError(
                f"the stream has ended, but {len(lost)} of its roots have not, the first of them {lost[0].key!r}: "
                "a defect of penstock; they count as not done"
            )

    def abort(self) -> None:
        """Cancel what is in flight; what is finished is committed."""
        self._aborted = True
        self.items.abort()

    async def close(self, driven: "asyncio.Future[None] | None" = None) -> None:
        """Commit what is finished, whatever happened; abort a sink that has not taken it after the grace.

        `driven` is done when nobody is in `run` any more; if it is not given, what is in flight is stopped first.
        """
        timer = self._writer.loop.call_later(self._job.options.grace, self._store.abort)
        try:
            if driven is not None and not driven.done():
                self._aborted = True
                await self.items.aclose()
                await outlast(driven)
        finally:
            await self._close(timer)

    async def _close(self, timer: asyncio.TimerHandle) -> None:
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
        """Note that nothing of the run is under way any more; suspects of earlier deaths stay suspect."""
        if self._only is not None or self._complete:
            return
        with suppress(StoreError), self._store.transaction():  # what it is for has worse to say then
            self._store.journal.leave_run(self._opened.id)

    def counts(self) -> Counts:
        """Return what was delivered, by the names of the report."""
        before = self._found.counts.get
        return {
            "delivered": self.delivered,
            "redone": self._ledger.changed + before("redone", 0),
            "rows": self.rows,
            "commits": self._writer.commits + before("commits", 0),
            "recalled": self.memo.recalled + before("recalled", 0),
        }

    @property
    def already_done(self) -> int:
        """Roots that were done before, without those that workers have done and that were passed over after that."""
        return max(sum(self._ledger.passed.values()) - self._found.counts.get("delivered", 0), 0)

    def report(self) -> RunReport:
        """Return what was done, so far or at the end."""
        ledger, found = self._ledger, self._found
        return RunReport(
            **self.counts(),
            run=self._opened.name,
            path=place_of(self._job.sink),
            guarantee=self._job.sink.delivery,
            already_done=self.already_done,
            dead=self.dead,
            dead_before=max(ledger.dead_before - len(found.dead), 0),
            missing=self._missing,
            removed=self._removed,
            unread=ledger.unread,
            causes=self._causes.commonest(),
            duplicates=ledger.duplicates,
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
            f"run {self._opened.name!r} into {place_of(self._job.sink)}: {self._job.sink.delivery}, "
            f"durability {self._job.options.durability}{times}{before}"
        )

    def _finished(self, root: Root) -> None:
        self._held -= root.weight
        if self._only is None or not root.failed:
            self._writer.add(root)

    def _remember(self, stage: bytes, item: bytes, value: bytes) -> None:
        self._writer.note(lambda journal: journal.remember(stage, item, value), weight=weight(value))

    def _dispatch(self, root: Root) -> Awaitable[None]:
        """Note that a root is under way; if that fails, abort the run, and raise for who waits."""
        committed = self._writer.loop.create_future()
        root.dispatched = True
        self._begun += 1
        run, times = self._opened.id, self._opened.times
        self._writer.note(lambda journal: journal.deaths.dispatch(run, times, root), partial(_tell, committed))
        if self._only is not None and self._begun == len(self._only):
            self._writer.loop.call_soon(self.items.stop)
        return committed

    def _stage(self) -> None:
        """Move the rows of the largest unfinished roots to the store, until half of all rows in memory are there."""
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
        ledger = self._ledger
        for root in self._writer.take_committed():
            ledger.committed(root)
            if isinstance(root, Bundle):
                self._delivered(len(root), len(root))
            elif root.letters:
                self.dead += 1
                letter = root.letters.first
                self._causes.add(letter.error, letter.stage, root.key)
            else:
                self._delivered(1, root.staged + len(root.rows))
        self._ledger.tell()
        self._progress.set()

    def _delivered(self, roots: int, rows: int) -> None:
        if self.first_row_s is None:
            self.first_row_s = perf_counter() - self._began
        self.delivered += roots
        self.rows += rows

    async def _committing(self, enough: Callable[[], bool]) -> None:
        while not enough():
            self._progress.clear()
            await self._progress.wait()

    async def _written(self) -> None:
        """Wait until all that the writer was given is committed; raise why it is not."""
        await self._committing(lambda: self._writer.is_idle)
        if self._writer.failure is not None:
            raise self._writer.failure

    async def _look_for_missing(self) -> None:
        if self._was_stopped:
            return
        deletes = self._job.options.on_missing != "keep"
        silent = self._ledger.silent() if self._job.options.on_missing == "delete" else []
        for page in self._ledger.missing():
            await asyncio.sleep(0)
            if self._was_stopped:
                return
            gone = [RootId(*root) for root in self._without(silent, page) if self._job.source.is_missing(root[1])]
            self._missing += len(gone)
            while gone and deletes and not self._was_stopped:
                before = len(gone)
                await self._write(partial(self._remove, gone))
                self._removed += before - len(gone)

    def _without(self, silent: list[str], page: list[tuple[int, Key]]) -> list[tuple[int, Key]]:
        """Return the roots of a page, without those of sources that gave nothing: a truncated file looks like that."""
        for prefix in [each for each in silent if any(str(key).startswith(each) for _, key in page)]:
            silent.remove(prefix)
            self._ledger.note_unread(prefix)
            LOG.warning(
                'run %r: its source%s gave nothing at all, so its rows are kept; on_missing="delete_all" removes them',
                self._opened.name,
                f" {prefix.removesuffix(':')}" if prefix else "",
            )
            return self._without(silent, [each for each in page if not str(each[1]).startswith(prefix)])
        return page

    def _remove(self, gone: list[RootId], journal: Journal) -> None:
        """Remove roots and their rows, as many as one commit may hold; runs in the thread that writes."""
        rows = 0
        while gone and rows < self._store.largest:
            root = gone.pop()
            self._store.replace(root, ())
            rows += 1 + journal.forget(root.number)

    async def _drop_memos(self) -> None:
        """Drop kept results of stages that are part of no run any more."""
        while not self._was_stopped and (stage := self._reader.unused_memo()) is not None:
            await self._write(methodcaller("drop_memo", stage))

    async def _write(self, write: Callable[[Journal], object]) -> None:
        """Have the writer's thread do that in a transaction of its own, so that the loop stays free."""
        self._writer.note(write)
        await self._written()


def _tell(committed: asyncio.Future[None]) -> None:
    if not committed.done():
        committed.set_result(None)
