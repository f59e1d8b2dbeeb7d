"""What all jobs over rows have in common: one durable run, watched and ended early."""

from dataclasses import replace
from typing import Any, ClassVar, Final

from penstock.core.errors import PenstockError, said
from penstock.core.stats import Stats
from penstock.durable.handle import DurableRun
from penstock.durable.options import OnDuplicate
from penstock.durable.report import RunReport
from penstock.streams import Stream

ON_ERROR: Final = ("collect", "raise", "skip")
"""What can become of a row that fails."""


class RowFailedError(PenstockError):
    """The function failed for a row, or there was no answer to its prompt; this ended the run."""


class RowJob:
    """A job over rows, to be watched with `report()` while `run()` runs, and ended early with `stop()`.

    Attributes:
        name: what is called for each row.
        on_error: what becomes of a row that fails.
        run_name: the name of the run; None: that name.
        limit: rows to do in this run.
        on_duplicate: what becomes of a row with the key of an earlier one; None: it ends the run.
        rows: the rows.
        stream: what comes of them.
        sink: where that goes.
        calls: the place of the stage that calls among all stages.
    """

    name: str
    on_error: Any
    run_name: str | None
    limit: int | None
    on_duplicate: OnDuplicate | None
    rows: Stream[Any]
    stream: Stream[Any]
    sink: Any
    calls: ClassVar[int] = -1
    _run: DurableRun | None = None
    _stopped: bool = False

    async def first(self, number: int) -> list[Any]:
        """Return the first rows, and call nothing."""
        return await self.rows.take(number).to_list()

    async def run(self) -> RunReport:
        """Do it; return the report.

        Raises:
            RowFailedError: a row failed, and `on_error` is "raise".
            PenstockError: what else ended it.
        """
        async with self.stream.deliver(self.sink, run=self.run_name or self.name, **self._options()) as run:
            self._run = run
            self._begin(run)
            if self._stopped:
                run.stop()
            try:
                return await run.finish()
            except Exception as error:
                if not self._is_of_a_row(error):
                    raise
                where = (
                    f" ({error.__notes__[0].removeprefix('penstock: ')})" if getattr(error, "__notes__", None) else ""
                )
                raise RowFailedError(f"{self.name} raised {said(error)}{where}") from error

    def _options(self) -> dict[str, Any]:
        chosen = {} if self.on_duplicate is None else {"on_duplicate": self.on_duplicate}
        return {"limit": self.limit, **chosen}

    def _begin(self, run: DurableRun) -> None:
        """Prepare what a kind of job needs while it runs."""

    def _is_of_a_row(self, error: Exception) -> bool:
        """Whether it is what the work on a row has raised."""
        return not isinstance(error, PenstockError)

    def stop(self) -> None:
        """Finish what is in flight and take nothing more."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()

    @property
    def opened(self) -> bool:
        """Whether the run has begun."""
        return self._run is not None

    def report(self) -> RunReport:
        """Return what is done until now."""
        assert self._run is not None
        return self._run.report()

    def stats(self) -> Stats:
        """Return the statistics of reading and of calling."""
        stats = Stats() if self._run is None else self._run.stats()
        if not stats.stages:  # it was stopped before it began
            return stats
        read = replace(stats.stages[0], name="read rows")
        return Stats((read, stats.stages[self.calls]), stats.seconds)
