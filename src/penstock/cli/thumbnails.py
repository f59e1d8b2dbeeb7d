"""The body of `penstock thumbnails`."""

import asyncio
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

import typer

from penstock.cli.failing import DONE, NOT_DONE, SOME_FAILED, code_of, complain, ended_by, guarded
from penstock.cli.printing import made_small
from penstock.cli.watching import Shown, watched
from penstock.core import validate
from penstock.core.stats import Stats

if TYPE_CHECKING:
    from penstock.workflows import ThumbnailJob, ThumbnailReport

_COUNTS: Final = {"resize": "resize pictures", "store": "store pictures"}


def run(source: str, target: str, options: dict[str, Any], *, as_json: bool) -> int:
    """Make them, print, and return the exit code."""

    def command() -> int:
        from penstock.workflows import ThumbnailJob  # noqa: PLC0415 -- its libraries are an extra

        if "engine" in options:
            validate.one_of("engine", options["engine"], ("inline", "thread", "process"))
        job = ThumbnailJob(source, target, **options)
        failure, stopped_by = asyncio.run(watched(job, _shown(job)))
        if failure is not None:
            complain(failure)
            if not job.opened:
                return code_of(failure)
        report, nothing = job.report(), False
        _print(report, as_json=as_json)
        if not job.opened:
            complain("ended early, before anything was stored")
        elif failure is not None or report.interrupted:
            complain(f"ended early; what was stored is in {report.target}, and the same command goes on from there")
        elif nothing := not (report.pictures or report.unchanged or report.failed or report.removed):
            complain(f"there are no pictures below {source}")
        if stopped_by is not None:
            return ended_by(stopped_by)
        if failure is not None:
            return NOT_DONE
        return SOME_FAILED if report.failed or report.unread or nothing else DONE

    return guarded(command)


def _shown(job: "ThumbnailJob") -> Shown:
    return Shown(lambda: _stats_of(job), lambda: _note_of(job), "picture", lambda: job.report().first_row_seconds)


def _stats_of(job: "ThumbnailJob") -> Stats:
    """Return the stages of the job, each named with what it counts."""
    report = job.report()
    return Stats(tuple(replace(stage, name=_COUNTS[stage.name]) for stage in report.stages), report.seconds)


def _note_of(job: "ThumbnailJob") -> str:
    return f"{job.report().unchanged:,} pictures unchanged"


def _print(report: "ThumbnailReport", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(report), "pictures_per_second": report.pictures_per_second}))
        return
    for line in made_small(report):
        typer.echo(line)
