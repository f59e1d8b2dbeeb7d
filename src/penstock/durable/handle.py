"""The user's handle on a durable run."""

import asyncio
from time import perf_counter
from types import TracebackType
from typing import Self, override

from penstock.core.errors import ConcurrentReadError, note
from penstock.core.log import LOG
from penstock.core.outcome import Failed
from penstock.core.stats import Stats
from penstock.durable.delivery import Deliverer
from penstock.durable.job import Job
from penstock.durable.memo import Memo
from penstock.durable.note import RunNote
from penstock.durable.opening import Opening, open_run
from penstock.durable.report import GO_ON, RunReport
from penstock.durable.sink import place_of
from penstock.durable.tried import Tried


class DurableRun:
    """One opening of a durable run, to be watched and ended while it goes on (P4, P10, P11).

    Made by `Stream.deliver()`. Entering its block opens the sink and the run; `finish` reads the stream to its end.
    Leaving the block by any road stops and awaits what is in flight, commits what is finished and lets go of the sink;
    the next run goes on from there.

    Example:
        async with stream.deliver(sink, run="docs") as run:
            loop.call_later(3600, run.stop)
            await run.finish()
        print(run.report())
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._entered = False
        self._over = False
        self._opening: Opening | None = None
        self._delivery: Deliverer | None = None
        self._driven: asyncio.Future[None] | None = None
        self._stopped = False
        self._aborted = False

    @override
    def __repr__(self) -> str:
        if self._delivery is None:
            state = "not begun"
        else:
            state = f"{'over' if self._over else 'going on'}, {self.delivered:,} delivered, {self.dead:,} dead"
        return f"<DurableRun {self._job.options.run!r} into {place_of(self._job.sink)}: {state}>"

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this run was opened already: a second `async with` needs a deliver() of its own")
        self._entered = True
        began = perf_counter()
        opening, found = await self._open()
        try:
            delivery = Deliverer(self._job, opening, found, began=began)
            LOG.info("%s", delivery)
            try:
                delivery.start()
            except BaseException:
                await delivery.close()
                raise
        except BaseException:
            opening.store.close()
            raise
        self._opening, self._delivery = opening, delivery
        if self._aborted:
            delivery.abort()
        elif self._stopped:
            delivery.items.stop()
        return self

    async def _open(self) -> tuple[Opening, Tried]:
        opening = await open_run(self._job)
        if self._job.finds_killers:
            from penstock.durable.suspects import try_suspects  # noqa: PLC0415 -- brings the process engine

            return await try_suspects(self._job, opening)
        try:
            with opening.store.transaction():
                opening.store.journal.deaths.forget(opening.run.id)
        except BaseException:
            opening.store.close()
            raise
        return opening, Tried()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._opening is not None
        assert self._delivery is not None
        if self._driven is None and error is None and not self._stopped:
            LOG.warning("run %r was left before it began: `await run.finish()` does it", self._job.options.run)
        try:
            await self._delivery.close(self._driven)
            LOG.info("%s", self.report())
        finally:
            self._over = True
            self._opening.store.close()

    async def finish(self) -> RunReport:
        """Read the stream to its end, or until the run is stopped, aborted or fails; return the report.

        A call that is cancelled cancels what is in flight. Once the run has ended, a second call returns the same
        report.

        Raises:
            RuntimeError: the block was not entered, or is left.
            ConcurrentReadError: another call is in progress.
            Exception: the first failure of the stream or the sink.
        """
        if self._driven is not None:
            if not self._driven.done():
                raise ConcurrentReadError("two finish() calls at once on one durable run")
            return self.report()
        delivery = self._delivery
        if self._opening is None or delivery is None or self._over:
            raise RuntimeError("finish() is called inside `async with stream.deliver(...) as run`")
        self._driven = asyncio.get_running_loop().create_future()
        try:
            await delivery.run()
        except Exception as error:
            if self._opening.store.is_there():  # or what was finished is gone with it
                note(error, f"run {self._job.options.run!r} into {place_of(self._job.sink)} has failed: {GO_ON}")
            raise
        finally:
            self._driven.set_result(None)
        return self.report()

    def stop(self) -> None:
        """Take nothing more from the source; what is in flight is finished and committed, then the run ends."""
        self._stopped = True
        if self._delivery is not None:
            self._delivery.items.stop()

    def abort(self) -> None:
        """Cancel what is in flight and take nothing more; what is finished is committed, then the run ends."""
        self._stopped = self._aborted = True
        if self._delivery is not None:
            self._delivery.abort()

    @property
    def delivered(self) -> int:
        """Roots that are done and committed until now."""
        return 0 if self._delivery is None else self._delivery.delivered

    @property
    def already_done(self) -> int:
        """Roots that were done before and were passed over until now."""
        return 0 if self._delivery is None else self._delivery.already_done

    @property
    def dead(self) -> int:
        """Roots that were set aside until now."""
        return 0 if self._delivery is None else self._delivery.dead

    @property
    def rows(self) -> int:
        """Rows that are stored until now."""
        return 0 if self._delivery is None else self._delivery.rows

    @property
    def first_row_s(self) -> float | None:
        """Seconds from entering the block to the commit of the first root; None before."""
        return None if self._delivery is None else self._delivery.first_row_s

    @property
    def failures(self) -> tuple[Failed, ...]:
        """The items that failed and did not end the run: of the stages, then those that the sink refused.

        The newest 1,000 are kept; `report()` counts the roots that are dead.
        """
        return () if self._delivery is None else self._delivery.failures

    def stats(self) -> Stats:
        """Return what every stage counts and measures until now, as `Run.stats` does."""
        return Stats() if self._delivery is None else self._delivery.items.stats()

    def report(self) -> RunReport:
        """Return what was done, so far or at the end.

        Raises:
            RuntimeError: the run was not opened.
        """
        return self._begun().report()

    @property
    def memo(self) -> Memo:
        """The results that stages keep; for workflows, not for users."""
        return self._begun().memo

    @property
    def note(self) -> RunNote:
        """What is noted of the run; for workflows, not for users."""
        return self._begun().note

    def _begun(self) -> Deliverer:
        if self._delivery is None:
            raise RuntimeError("the run was not opened: use `async with stream.deliver(...) as run`")
        return self._delivery
