"""Runs a job over rows and says how it ended, for the commands that have one."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.failing import AT_A_BUDGET, DONE, SOME_FAILED, code_of, complain, ended_by, spelled
from penstock.cli.printing import counted
from penstock.cli.watching import Shown, Watched, watched
from penstock.core.errors import DuplicateKeyError, OptionError
from penstock.core.stats import Stats
from penstock.core.text import escaped as shown
from penstock.durable.journals import SCHEMES

if TYPE_CHECKING:
    from penstock.durable.report import RunReport
    from penstock.workflows.rows.row_job import RowJob

TRIED = 3
"""Rows that `--dry-run` shows."""


def place(text: str) -> str:
    """Show a place, without the password that a connection string may have in several places."""
    if not text.startswith(SCHEMES):
        return shown(text)
    from penstock.durable.postgres.postgres_connection import Address  # noqa: PLC0415 -- its library is an extra

    return shown(Address("place", text).place)


def run_job[R: RunReport](
    job: "RowJob",
    to: str,
    lines: Callable[[R], list[str]],
    more: Callable[[R], dict[str, Any]] = lambda _: {},
    *,
    watch: Watched | None = None,
    as_json: bool,
) -> int:
    """Run the job under a display, print its summary, and return the exit code.

    `lines` are what this command says beside what all say, `more` what its JSON has beside; `watch` runs the job.
    """
    from penstock.workflows.rows.row_job import RowFailedError  # noqa: PLC0415 -- its libraries are an extra

    failure, stopped_by = asyncio.run(watched(watch or job, Shown(job.stats, lambda: _note(job), "row", lambda: None)))
    if failure is not None:
        complain(spelled(failure) if isinstance(failure, OptionError | DuplicateKeyError) else failure)
    if not job.opened:
        return DONE if failure is None else code_of(failure)
    report: Any = job.report()
    if as_json:
        click.echo(json.dumps(_as_json(report) | more(report)))
    else:
        for line in summary(job, to, report, lines(report)):
            click.echo(line)
    if stopped_by is not None:
        return ended_by(stopped_by)
    if failure is not None:
        return SOME_FAILED if isinstance(failure, RowFailedError) else code_of(failure)
    if getattr(report, "ended_by", None) is not None:
        return AT_A_BUDGET
    return SOME_FAILED if report.dead or report.dead_before else DONE


def _note(job: "RowJob") -> str:
    return f"{job.report().already_done:,} rows done before" if job.opened else ""


def summary(job: "RowJob", to: str, report: "RunReport", lines: list[str]) -> list[str]:
    """Tell in lines what a run did."""
    rate = f" ({report.delivered / report.seconds:,.0f} a second)" if report.delivered and report.seconds else ""
    to = place(to)
    said = [f"{to}: {counted(report.delivered, 'row')} done in {report.seconds:.1f} s{rate}, {report.rows:,} stored"]
    if job.on_error == "skip" and (skipped := job.stats().stages[-1].failed):
        said.append(f"  {counted(skipped, 'row')} of these failed and left nothing (--on-error skip)")
    if report.already_done:
        said.append(f"  {counted(report.already_done, 'row')} done before, passed over")
    if report.by_other_code:
        said.append(
            f"  {counted(report.by_other_code, 'row')} of these by other code: penstock redo {to} "
            f"--run {shown(quote(report.run))} --made-by-other-code"
        )
    if report.duplicates:
        said.append(f"  {counted(report.duplicates, 'row')} with the key of an earlier one dropped")
    if report.recalled:
        said.append(f"  {counted(report.recalled, 'result')} known from before, not paid for again")
    if report.dead_before:
        said.append(f"  {counted(report.dead_before, 'row')} failed before, passed over: penstock dead {to} retry")
    if report.dead:
        said.append(f"  {counted(report.dead, 'row')} failed: penstock dead {to} list")
        said += [f"    {shown(str(cause))}" for cause in report.causes]
    said += lines
    if report.limited:
        said.append("  ended by --limit; the same command goes on")
    elif not report.complete and getattr(report, "ended_by", None) is None:
        said.append("  ended early; what was finished is stored, and the same command goes on from there")
    return said


def _as_json(report: "RunReport") -> dict[str, Any]:
    told = asdict(replace(report, failures=(), stats=Stats()))  # exceptions of others cannot always be copied
    return {name: value for name, value in told.items() if name not in {"stats", "failures"}}
