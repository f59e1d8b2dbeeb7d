"""The body of `penstock map`."""

import asyncio
import json
from dataclasses import asdict
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from penstock.cli.engine_option import OnEngine, engine_named
from penstock.cli.failing import DONE, SOME_FAILED, code_of, complain, ended_by, guarded, spelled
from penstock.cli.printing import counted
from penstock.cli.watching import Shown, watched
from penstock.core.errors import OptionError
from penstock.core.text import escaped as shown
from penstock.durable.journals import SCHEMES

if TYPE_CHECKING:
    from penstock.durable.report import RunReport
    from penstock.workflows import MapJob

_TRIED = 3
"""Rows that `--dry-run` shows."""


def run(options: dict[str, Any], *, dry_run: bool, as_json: bool) -> int:
    """Call the function for every row, print, and return the exit code."""

    def command() -> int:
        from penstock.workflows import MapJob  # noqa: PLC0415 -- its libraries are an extra

        if "engine" in options:
            options["engine"] = engine_named(options["engine"])
        job = MapJob(**options)
        return _dry(job) if dry_run else _run(job, as_json=as_json)

    return guarded(command)


def _dry(job: "MapJob") -> int:
    found = asyncio.run(job.first(_TRIED))
    for row in found:
        typer.echo(json.dumps(row, ensure_ascii=False, default=str))
    complain(
        f"nothing was called: {job.name} would be called for each row of {_place(job.over)}, into {_place(job.to)}"
    )
    return DONE


def _place(text: str) -> str:
    """Show a place, without the password that a connection string may have in several places."""
    if not text.startswith(SCHEMES):
        return shown(text)
    from penstock.durable.postgres.postgres_connection import Address  # noqa: PLC0415 -- its library is an extra

    return shown(Address("place", text).place)


def _run(job: "MapJob", *, as_json: bool) -> int:
    from penstock.workflows.rows.row_job import RowFailedError  # noqa: PLC0415 -- as above

    failure, stopped_by = asyncio.run(
        watched(OnEngine(job, job.engine), Shown(job.stats, lambda: _note(job), "row", lambda: None))
    )
    if failure is not None:
        complain(spelled(failure) if isinstance(failure, OptionError) else failure)
    if not job.opened:
        return DONE if failure is None else code_of(failure)
    report = job.report()
    if as_json:
        typer.echo(json.dumps(_as_json(report)))
    else:
        for line in summary(job, report):
            typer.echo(line)
    if stopped_by is not None:
        return ended_by(stopped_by)
    if failure is not None:
        return SOME_FAILED if isinstance(failure, RowFailedError) else code_of(failure)
    return SOME_FAILED if report.dead or report.dead_before else DONE


def _note(job: "MapJob") -> str:
    return f"{job.report().already_done:,} rows done before" if job.opened else ""


def summary(job: "MapJob", report: "RunReport") -> list[str]:
    """Tell in lines what a run did."""
    rate = f" ({report.delivered / report.seconds:,.0f} a second)" if report.delivered and report.seconds else ""
    to = _place(job.to)
    lines = [f"{to}: {counted(report.delivered, 'row')} done in {report.seconds:.1f} s{rate}, {report.rows:,} stored"]
    if job.on_error == "skip" and (skipped := job.stats().stages[-1].failed):
        lines.append(f"  {counted(skipped, 'row')} of these failed and left nothing (--on-error skip)")
    if report.already_done:
        lines.append(f"  {counted(report.already_done, 'row')} done before, passed over")
    if report.by_other_code:
        lines.append(
            f"  {counted(report.by_other_code, 'row')} of these by other code: penstock redo {to} "
            f"--run {shown(quote(report.run))} --made-by-other-code"
        )
    if report.recalled:
        lines.append(f"  {counted(report.recalled, 'result')} known from before, not paid for again")
    if report.dead_before:
        lines.append(f"  {counted(report.dead_before, 'row')} failed before, passed over: penstock dead {to} retry")
    if report.dead:
        lines.append(f"  {counted(report.dead, 'row')} failed: penstock dead {to} list")
        lines += [f"    {shown(str(cause))}" for cause in report.causes]
    if report.limited:
        lines.append("  ended by --limit; the same command goes on")
    elif not report.complete:
        lines.append("  ended early; what was finished is stored, and the same command goes on from there")
    return lines


def _as_json(report: "RunReport") -> dict[str, Any]:
    return {name: value for name, value in asdict(report).items() if name not in {"stats", "failures"}}
