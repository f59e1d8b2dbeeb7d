"""The body of `penstock embed`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.embedder_options import Asked, embedder
from penstock.cli.endings import run_watched
from penstock.cli.engine_option import OnEngine, engine_named
from penstock.cli.failing import guarded
from penstock.cli.printing import summary
from penstock.cli.watching import Shown, shown
from penstock.core.errors import PenstockError

if TYPE_CHECKING:
    from penstock.workflows import EmbedJob, EmbedReport

_COUNTS: Final = {"read": "read files", "embed": "embed chunks", "store": "store files"}


def run(paths: list[str], target: str, options: dict[str, Any], asked: Asked, *, as_json: bool) -> int:
    """Embed, print, and return the exit code."""

    def command() -> int:
        from penstock.workflows import EmbedJob  # noqa: PLC0415 -- its libraries are an extra

        if "engine" in options:
            options["engine"] = engine_named(options["engine"])
        job = EmbedJob(paths, target, **options, embedder=embedder(asked, target))
        return run_watched(
            job,
            OnEngine(job, options.get("engine")),
            shown_of(job),
            lambda report: _print(report, pruned=options["prune"], as_json=as_json),
            lambda report: "" if _has_any(report) else _nothing_matches(paths, options),
            lambda report: report.failed > 0,
            is_of_an_item=_is_of_a_file,
        )

    return guarded(command, key="--api-key")


def _has_any(report: "EmbedReport") -> bool:
    return bool(report.files or report.unchanged or report.failed or report.removed)


def _nothing_matches(paths: list[str], options: dict[str, Any]) -> str:
    from penstock.workflows.documents.embed_job import GLOB  # noqa: PLC0415 -- as above

    left = " and is not left out (--exclude)" if options.get("exclude") else ""
    return f"no file under {' '.join(paths)} matches {' '.join(options.get('glob', GLOB))} (--glob){left}"


def _is_of_a_file(failure: PenstockError) -> bool:
    from penstock.workflows import DocumentError, EmbedderUnavailableError, EmbedError  # noqa: PLC0415 -- as above

    return isinstance(failure, DocumentError | EmbedError) and not isinstance(failure, EmbedderUnavailableError)


def shown_of(job: "EmbedJob") -> Shown:
    """Return what a display shows of the job."""
    return shown(job.report, _COUNTS, lambda: f"{job.report().unchanged:,} files unchanged", "document")


def _print(report: "EmbedReport", *, pruned: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**asdict(report), "files_per_second": report.files_per_second}))
        return
    for line in summary(report, pruned=pruned):
        click.echo(line)
