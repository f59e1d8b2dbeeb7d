"""The body of `penstock embed`."""

import asyncio
import json
import os
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from penstock.cli.failing import BAD_USAGE, DONE, INTERRUPTED, SOME_FAILED, complain, guarded
from penstock.cli.progress import Display, display
from penstock.cli.text import summary
from penstock.core.errors import PenstockError

if TYPE_CHECKING:
    from penstock.workflows import EmbedJob, EmbedReport


def run(paths: list[str], target: str, options: dict[str, Any], *, as_json: bool) -> int:
    """Embed, print, and return the exit code."""

    def command() -> int:
        from penstock.workflows import EmbedJob  # noqa: PLC0415 -- its libraries are an extra

        job = EmbedJob(paths, target, **options)
        failure = asyncio.run(_watched(job))
        if failure is not None:
            complain(failure)
            if not job.opened:
                return BAD_USAGE
        report = job.report()
        _print(report, as_json=as_json)
        if report.interrupted:
            complain(f"stopped; what was stored is in {report.target}, and the same command goes on from here")
            return INTERRUPTED
        return SOME_FAILED if failure is not None or report.failed else DONE

    return guarded(command)


async def _watched(job: "EmbedJob") -> PenstockError | None:
    """Run the job under a display; the error that ended it, if one did."""
    with display(job.report) as shown:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _interrupter(job, shown))
        try:
            await job.run()
        except PenstockError as error:
            return error
    return None


def _interrupter(job: "EmbedJob", shown: Display) -> "Any":
    presses = 0

    def interrupt() -> None:
        """Stop cleanly at the first Ctrl-C; leave at once at the second, as a kill would, which loses nothing."""
        nonlocal presses
        presses += 1
        if presses == 1:
            job.stop()
            shown.say("stopping: what is in flight is finished and stored; Ctrl-C again aborts")
            return
        shown.close()
        complain("aborted; what was stored stays, and the same command goes on from there")
        os._exit(INTERRUPTED)

    return interrupt


def _print(report: "EmbedReport", *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(report), "files_per_second": report.files_per_second}))
        return
    for line in summary(report):
        typer.echo(line)
