"""Runs the job of a command under a display, says how it ended, and gives the exit code."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from penstock.cli.failing import DONE, NOT_DONE, SOME_FAILED, code_of, complain, ended_by
from penstock.cli.watching import Shown, Watched, watched
from penstock.core.errors import PenstockError


class Reported(Protocol):
    """What a job has done until now."""

    @property
    def target(self) -> str:
        """Where its results are."""
        ...

    @property
    def interrupted(self) -> bool:
        """Whether it ended before all was done."""
        ...


class Reporting[R: Reported](Protocol):
    """A job that can be asked for what it has done."""

    @property
    def opened(self) -> bool:
        """Whether it has begun to store anything."""
        ...

    def report(self) -> R:
        """Return what it has done until now."""
        ...


def run_watched[R: Reported](  # noqa: PLR0917 -- the job, how it is run and shown, and what is said of it
    job: Reporting[R],
    watch: Watched,
    display: Shown,
    show: Callable[[R], None],
    nothing: Callable[[R], str],
    some_failed: Callable[[R], bool],
    *,
    is_of_an_item: Callable[[PenstockError], bool] = lambda _: False,
) -> int:
    """Run a job under a display, print how it ended, and return the exit code.

    `watch` runs it; `show` prints the report; `nothing` says that there was nothing to do, or returns ""; `some_failed`
    says whether items have failed, `is_of_an_item` whether the failure that ended it is one item's.
    """
    failure, stopped_by = asyncio.run(watched(watch, display))
    if failure is not None:
        complain(failure)
        if not job.opened:
            return code_of(failure)
    report, said = job.report(), ""
    show(report)
    if not job.opened:
        complain("ended early, before anything was stored")
    elif failure is not None or report.interrupted:
        complain(f"ended early; what was stored is in {report.target}, and the same command goes on from there")
    elif said := nothing(report):
        complain(said)
    if stopped_by is not None:
        return ended_by(stopped_by)
    if failure is not None and not is_of_an_item(failure):
        return NOT_DONE
    return SOME_FAILED if failure is not None or some_failed(report) or said else DONE
