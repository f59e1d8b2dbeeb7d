"""The body of `penstock thumbnails`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.endings import run_watched
from penstock.cli.failing import guarded
from penstock.cli.printing import made_small
from penstock.cli.watching import Shown, shown
from penstock.core import validate

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
        return run_watched(
            job,
            job,
            _shown(job),
            lambda report: _print(report, as_json=as_json),
            lambda report: "" if _has_any(report) else f"there are no pictures below {source}",
            lambda report: bool(report.failed or report.unread),
        )

    return guarded(command)


def _has_any(report: "ThumbnailReport") -> bool:
    return bool(report.pictures or report.unchanged or report.failed or report.removed)


def _shown(job: "ThumbnailJob") -> Shown:
    return shown(job.report, _COUNTS, lambda: f"{job.report().unchanged:,} pictures unchanged", "picture")


def _print(report: "ThumbnailReport", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**asdict(report), "pictures_per_second": report.pictures_per_second}))
        return
    for line in made_small(report):
        click.echo(line)
