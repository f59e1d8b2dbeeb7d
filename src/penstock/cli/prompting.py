"""The body of `penstock prompt`."""

import asyncio
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from shlex import join
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.failing import BAD_USAGE, DONE, SOME_FAILED, complain, guarded
from penstock.cli.printing import counted
from penstock.cli.row_jobs import TRIED, place, run_job
from penstock.core.stats import duration
from penstock.core.text import escaped as shown

if TYPE_CHECKING:
    from penstock.workflows import AskJob, AskReport
    from penstock.workflows.rows.preview import Preview
    from penstock.workflows.rows.spending import Spending

_SPARE: Final = 1.1
"""How much more than is expected a budget has that is proposed."""
_TINY: Final = 0.001
"""The least amount that four decimals tell well."""


def run(options: dict[str, Any], to: str | None, *, dry_run: bool, as_json: bool) -> int:
    """Ask for every row, print, and return the exit code."""

    def command() -> int:
        from penstock.workflows import AskJob  # noqa: PLC0415 -- its libraries are an extra

        if to is None and not dry_run:
            complain("--to must say where the answers go; --dry-run shows what would be asked")
            return BAD_USAGE
        job = AskJob(options.pop("over"), options.pop("prompt"), to=to, **options)
        if dry_run:
            return _dry(job, as_json=as_json)
        return run_job(job, to or "", lambda report: _lines(report, sys.argv), _more, as_json=as_json)

    return guarded(command)


def _dry(job: "AskJob", *, as_json: bool) -> int:
    found = asyncio.run(job.preview(TRIED))
    for line in [json.dumps(asdict(found))] if as_json else _preview(found):
        click.echo(line)
    if found.unfit:
        complain(f"no prompt can be made of {counted(found.unfit, 'row')}: {found.why}")
    into = "" if job.to is None else f", into {place(job.to)}"
    complain(f"nothing was asked: {_model(job)} would be asked for each row of {place(str(job.over))}{into}")
    return SOME_FAILED if found.unfit else DONE


def _preview(found: "Preview") -> Iterator[str]:
    for number, prompt in enumerate(found.prompts, 1):
        yield f"--- prompt {number}"
        yield from map(shown, prompt.splitlines())
    fitting = found.rows - found.unfit
    cost = ""
    if found.least_cost is not None and found.most_cost is not None:
        cost = f"; costs {money(found.least_cost)}, and with the answers {money(found.most_cost)} at most"
    yield (
        f"--- {counted(fitting, 'prompt')} of about {found.input_tokens:,} tokens, answers of {found.most_output:,} at "
        f"most (--max-answer){cost}"
    )


def _model(job: "AskJob") -> str:
    return shown(str(job.model))


def _lines(report: "AskReport", command: list[str]) -> list[str]:
    """Say what the answers have cost, and how to go on after a budget."""
    spent, before = report.spent, report.spent_before
    lines: list[str] = []
    if spent.requests:
        lines += [f"  {_requests(spent)}; {_tokens(spent)}"]
    if report.cost is not None and report.cost_before is not None:
        earlier = f", {money(report.cost + report.cost_before)} with what was paid before" if before.requests else ""
        unknown = ", of which some is estimated" if (spent + before).estimated_input else ""
        lines.append(f"  cost {money(report.cost)}{earlier}{unknown}")
    if report.latency is not None:
        each = report.latency
        p50, p95, p99 = map(duration, (each.p50, each.p95, each.p99))
        lines.append(f"  answers took {p50} (p50), {p95} (p95), {p99} (p99); {_waited(report)}")
    if report.ended_by is not None:
        lines += _ended(report, command)
    return lines


def _requests(spent: "Spending") -> str:
    failed = f", {spent.failed:,} of them failed or asked again" if spent.failed else ""
    return f"{counted(spent.requests, 'request')}{failed}"


def _tokens(spent: "Spending") -> str:
    if spent.input_tokens is None and spent.output_tokens is None:
        return "tokens unknown: the service does not say them"
    cached = f" ({spent.cached_tokens:,} of them cached)" if spent.cached_tokens else ""
    said = f"tokens: {_known(spent.input_tokens)} of prompts{cached}, {_known(spent.output_tokens)} of answers"
    if spent.failed_tokens:
        said += f", {spent.failed_tokens:,} of these for failed requests"
    if spent.unknown:
        said += f"; unknown for {counted(spent.unknown, 'request')}"
    return said


def _known(tokens: int | None) -> str:
    return "unknown" if tokens is None else f"{tokens:,}"


def _waited(report: "AskReport") -> str:
    return f"{duration(report.limit_wait_s)} waited for limits"


def _ended(report: "AskReport", command: list[str]) -> list[str]:
    """Say what is left, and the command that goes on: with a budget that will do, as far as can be seen."""
    left = "" if report.left is None else f"; {counted(report.left, 'row')} left"
    if report.ended_by == "deadline":
        return [f"  ended at --deadline{left}; the same command goes on"]
    total, done = report.spent + report.spent_before, report.delivered + report.already_done
    if report.ended_by == "max_cost":
        paid = (report.cost or 0.0) + (report.cost_before or 0.0)
        proposed = f"{_more_than(paid, done, report.left, 0.01):.2f}"
        reached = f"{money(paid)} paid"
    else:
        proposed = f"{_more_than(total.tokens, done, report.left, 1):.0f}"
        reached = f"{counted(total.tokens, 'token')} used"
    option = f"--{str(report.ended_by).replace('_', '-')}"
    return [
        f"  ended at {option}, {reached}{left}; goes on with:",
        f"    penstock {shown(join(map(place, _with(command[1:], option, proposed))))}",
    ]


def _more_than(paid: float, done: int, left: int | None, least: float) -> float:
    """Return a budget for what is left, at what was paid until now for a row; twice of it if nothing is known."""
    expected = 2 * paid if left is None or not done else (paid + paid / done * left) * _SPARE
    return max(math.ceil(expected / least) * least, paid + least)


def _with(arguments: list[str], option: str, value: str) -> list[str]:
    """Return arguments with another value of an option."""
    made = list(arguments)
    for number, each in enumerate(made):
        if each == option and number + 1 < len(made):
            made[number + 1] = value
            return made
        if each.startswith(f"{option}="):
            made[number] = f"{option}={value}"
            return made
    return [*made, option, value]


def money(amount: float) -> str:
    """Write an amount of whatever currency the price is in; of a tiny one, two digits that count."""
    if not amount or amount >= 1:
        return f"{amount:,.2f}"
    if amount >= _TINY:
        return f"{amount:.4f}"
    return f"{amount:.{1 - math.floor(math.log10(amount))}f}".rstrip("0")


def _more(report: "AskReport") -> dict[str, Any]:
    """Return what the JSON has of costs."""
    return {"latency": None if report.latency is None else asdict(report.latency)}
