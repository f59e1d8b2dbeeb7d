"""The bodies of `penstock redo` and `penstock forget`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from penstock.cli.failing import BAD_USAGE, DONE, complain, guarded
from penstock.cli.printing import counted
from penstock.core.text import escaped as shown
from penstock.core.text import named

if TYPE_CHECKING:
    from penstock.durable import RunStatus
    from penstock.durable.again import Which

_NAMED: Final = 20
"""Runs that an error names."""

ALL: Final = "--all"
WHICH: Final[dict[str, "Which"]] = {
    ALL: "all",
    "--dead": "dead",
    "--made-by-other-code": "other code",
    "--missing-rows": "missing rows",
}
"""The options that select roots, with their names in Python."""


def redo(database: str, name: str | None, keys: Sequence[str], chosen: Sequence[str], *, as_json: bool) -> int:
    """Mark roots to be done again, print how many, and return the exit code."""

    def command() -> int:
        from penstock.durable import redo  # noqa: PLC0415 -- its library is an extra
        from penstock.durable.again import keys_written  # noqa: PLC0415 -- as above
        from penstock.sinks.places import sink_at  # noqa: PLC0415 -- as above

        run = _run(database, name)
        if keys:
            asked = redo(database, run=run.name, keys=keys_written(database, run.name, keys))
        else:
            which = WHICH[chosen[0]]
            place = sink_at(database, run.sink) if which == "missing rows" else database
            asked = redo(place, run=run.name, which=which)
        if as_json:
            click.echo(json.dumps(asdict(asked)))
        else:
            stay = (
                f"; {counted(asked.rows, 'row')} {'stays' if asked.rows == 1 else 'stay'} until then"
                if asked.rows
                else ""
            )
            again = f"the next run of {shown(run.name)} does {counted(asked.roots, 'root')} again{stay}"
            click.echo(again if asked.roots else f"run {shown(run.name)}: there is nothing to do again")
        return DONE

    if bool(keys) + len(chosen) != 1:
        got = ", ".join((*(["KEY"] if keys else []), *chosen)) or "none"
        complain(f"say what is to be done again: either KEYs, or one of {', '.join(WHICH)}; got {got}")
        return BAD_USAGE
    return guarded(command)


def forget(database: str, name: str, rows: str, *, yes: bool, as_json: bool) -> int:
    """Forget a run, print what it was, and return the exit code."""

    def command() -> int:
        from penstock.durable import forget  # noqa: PLC0415 -- its library is an extra
        from penstock.sinks.places import sink_at  # noqa: PLC0415 -- as above

        run = _run(database, name)
        place = sink_at(database, run.sink) if rows == "remove" else database
        what = f"run {shown(run.name)}, {counted(run.done + run.dead + run.retried, 'root')}"
        of_rows = f"its {counted(run.rows, 'row')} {'are removed' if rows == 'remove' else 'stay'}"
        if not yes and _asks() and not click.confirm(f"forget {what}; {of_rows}: go on?", err=True):
            complain("nothing was changed")
            return BAD_USAGE
        gone = forget(place, run=run.name, rows="remove" if rows == "remove" else "keep")
        if as_json:
            click.echo(json.dumps(asdict(gone)))
        else:
            left = "removed" if gone.removed else "left where they are, and belong to no run any more"
            of_rows = f"; {counted(gone.rows, 'row')} {left}" if gone.rows else ""
            click.echo(f"forgot run {shown(run.name)}: {counted(gone.roots, 'root')}{of_rows}")
        return DONE

    if rows not in {"keep", "remove"}:
        complain(f"--rows must be keep or remove, got {rows!r}")
        return BAD_USAGE
    return guarded(command)


def _asks() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr is not None and sys.stderr.isatty()


def _run(database: str, name: str | None) -> "RunStatus":
    """Return the run of that name, or the only one."""
    from penstock.durable import StoreError, runs  # noqa: PLC0415 -- its library is an extra
    from penstock.durable.journals import journal_at  # noqa: PLC0415 -- as above
    from penstock.durable.status import no_run  # noqa: PLC0415 -- as above

    there, place = runs(database), journal_at(database).place
    names = [run.name for run in there]
    if name is None and len(there) != 1:
        raise StoreError(f"{place}: say --run, there are {', '.join(map(named, names[:_NAMED])) or 'none'}")
    for run in there:
        if name in {None, run.name}:
            return run
    raise no_run(place, name or "", names)
