"""The body of `penstock thumbnails`."""

import asyncio
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final

import typer

from penstock.cli.endings import told
from penstock.cli.failing import guarded
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
        return told(
            job,
            failure,
            stopped_by,
            lambda report: _print(report, as_json=as_json),
            lambda report: "" if _has_any(report) else f"there are no pictures below {source}",
            lambda report: bool(report.failed or report.unread),
        )

    return guarded(command)


def _has_any(report: "ThumbnailReport") -> bool:
    return bool(report.pictures or report.unchanged or report.failed or report.removed)


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
