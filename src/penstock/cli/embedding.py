"""The body of `penstock embed`."""

import asyncio
import json
import os
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from penstock.cli.choosing import Asked, embedder
from penstock.cli.failing import BAD_USAGE, DONE, INTERRUPTED, SOME_FAILED, complain, guarded
from penstock.cli.progress import Display, display
from penstock.cli.text import summary
from penstock.core.errors import PenstockError

if TYPE_CHECKING:
    from penstock.workflows import EmbedJob, EmbedReport


def run(paths: list[str], target: str, options: dict[str, Any], asked: Asked, *, as_json: bool) -> int:
    """Embed, print, and return the exit code."""

    def command() -> int:
        from penstock.workflows import EmbedJob  # noqa: PLC0415 -- its libraries are an extra

        job = EmbedJob(paths, target, **options, embedder=embedder(asked))
        failure = asyncio.run(_watched(job))
        if failure is not None:
            complain(failure)
            if not job.opened:
                return BAD_USAGE
        report = job.report()
        _print(report, pruned=options["prune"], as_json=as_json)
        if failure is not None or report.interrupted:
            complain(f"ended early; what was stored is in {report.target}, and the same command goes on from there")
        if report.interrupted:
            return INTERRUPTED
        return SOME_FAILED if failure is not None or report.failed else DONE

    return guarded(command)


async def _watched(job: "EmbedJob") -> PenstockError | None:
    """Run the job under a display; the error that ended it, if one did."""
    interrupts = _Interrupts(job)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupts)
    with display(job.report) as interrupts.shown:
        try:
            await job.run()
        except PenstockError as error:
            return error
    return None


class _Interrupts:
    """Stops the job cleanly at the first Ctrl-C; leaves at once at the second, as a kill would, which loses nothing."""

    def __init__(self, job: "EmbedJob") -> None:
        self.shown: Display | None = None
        self._job = job
        self._pressed = False

    def __call__(self) -> None:
        if self._pressed:
            self._abort()
        self._pressed = True
        self._job.stop()
        if self.shown is not None:
            self.shown.say("stopping: what is in flight is finished and stored; Ctrl-C again aborts")

    def _abort(self) -> NoReturn:
        if self.shown is not None:
            self.shown.close()
        complain("aborted; what was stored stays, and the same command goes on from there")
        os._exit(INTERRUPTED)


def _print(report: "EmbedReport", *, pruned: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(report), "files_per_second": report.files_per_second}))
        return
    for line in summary(report, pruned=pruned):
        typer.echo(line)
