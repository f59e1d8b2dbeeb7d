"""The body of `penstock map`."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.engine_option import OnEngine, engine_named
from penstock.cli.failing import DONE, complain, guarded
from penstock.cli.row_jobs import TRIED, place, run_job

if TYPE_CHECKING:
    from penstock.workflows import MapJob


def run(options: dict[str, Any], *, dry_run: bool, as_json: bool) -> int:
    """Call the function for every row, print, and return the exit code."""

    def command() -> int:
        from penstock.workflows import MapJob  # noqa: PLC0415 -- its libraries are an extra

        if "engine" in options:
            options["engine"] = engine_named(options["engine"])
        job = MapJob(**options)
        if dry_run:
            return _dry(job)
        return run_job(job, job.to, lambda _: [], watch=OnEngine(job, job.engine), as_json=as_json)

    return guarded(command)


def _dry(job: "MapJob") -> int:
    found = asyncio.run(job.first(TRIED))
    for row in found:
        click.echo(json.dumps(row, ensure_ascii=False, default=str))
    complain(f"nothing was called: {job.name} would be called for each row of {place(job.over)}, into {place(job.to)}")
    return DONE
