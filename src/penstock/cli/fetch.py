"""The body of `penstock fetch`."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.endings import run_watched
from penstock.cli.failing import guarded
from penstock.cli.printing import fetched
from penstock.cli.watching import Shown, shown
from penstock.core.errors import OptionError
from penstock.workflows.secret import Secret

if TYPE_CHECKING:
    from penstock.workflows import FetchJob, FetchReport

_COUNTS: Final = {"request": "fetch URLs", "store": "store records"}


def run(urls: str, target: str, options: dict[str, Any], headers: Iterable[Secret], *, as_json: bool) -> int:
    """Fetch, print, and return the exit code."""

    def command() -> int:
        from penstock.workflows import FetchJob  # noqa: PLC0415 -- its libraries are an extra

        job = FetchJob(urls, target, **options, headers=_parsed(headers))
        return run_watched(
            job,
            job,
            _shown(job),
            lambda report: _print(report, as_json=as_json),
            lambda report: "" if _has_any(report) else f"there are no rows in {urls}",
            lambda report: bool(report.failed or report.incomplete),
        )

    return guarded(command)


def _has_any(report: "FetchReport") -> bool:
    return bool(report.records or report.already_done or report.failed)


def _shown(job: "FetchJob") -> Shown:
    def note() -> str:
        report = job.report()
        return f"{report.requests:,} requests, {report.not_modified:,} not modified"

    return shown(job.report, _COUNTS, note, "record")


def _parsed(headers: Iterable[Secret]) -> dict[str, Secret]:
    """Read headers as they are given: `Name: value`, or @ and a file with one a line. Messages show no value."""
    parsed = dict[str, Secret]()
    for given in headers:
        for number, line in enumerate(_lines(given), 1):
            name, colon, value = line.partition(":")
            if not colon or not name.strip():
                raise OptionError(f"headers must be written as 'Name: value', got another in line {number}")
            parsed[name.strip()] = Secret(value)
    return parsed


def _lines(given: Secret) -> list[str]:
    if not given.reveal().startswith("@"):
        return [given.reveal()]
    path = given.reveal()[1:]
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise OptionError(f"headers must come from a file that can be read, got {path!r}: {reason}") from None
    return [line for line in text.splitlines() if line.strip()]


def _print(report: "FetchReport", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    for line in fetched(report):
        click.echo(line)
