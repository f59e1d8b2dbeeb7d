"""The bodies of `penstock runs`, `status` and `dead`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

import click

from penstock.cli.failing import BAD_USAGE, DONE, complain, guarded
from penstock.cli.printing import counted
from penstock.cli.run_table import local_time, print_table
from penstock.core.text import escaped as shown
from penstock.core.text import named

if TYPE_CHECKING:
    from penstock.durable import DeadRoot, RunStatus


_NAMED: Final = 5
"""Keys that an error names in place of one that is not there."""


def list_runs(database: str, *, as_json: bool) -> int:
    """Print a line for each run, and return the exit code."""

    def command() -> int:
        from penstock.durable import runs  # noqa: PLC0415 -- its library is an extra

        found = runs(database)
        if as_json:
            _print_json([asdict(run) for run in found])
        elif not found:
            complain("no runs")
        else:
            print_table(
                ("run", "state", "done", "dead", "rows", "begun", "source"),
                (
                    (run.name, run.state, run.done, run.dead, run.rows, local_time(run.began), run.source)
                    for run in found
                ),
            )
        return DONE

    return guarded(command)


def show_status(database: str, name: str | None, *, as_json: bool) -> int:
    """Print how one run stands, or all of them, and return the exit code."""

    def command() -> int:
        from penstock.durable import runs  # noqa: PLC0415 -- its library is an extra
        from penstock.durable.journals import journal_at  # noqa: PLC0415 -- as above
        from penstock.durable.status import no_run  # noqa: PLC0415 -- as above

        everything = runs(database)
        found = [run for run in everything if name is None or run.name == name]
        if name is not None and not found:
            raise no_run(journal_at(database).place, name, [run.name for run in everything])
        if as_json:
            _print_json(asdict(found[0]) if name is not None else [asdict(run) for run in found])
        else:
            for run in found:
                for line in _status(run, journal_at(database).place):
                    click.echo(line)
        return DONE

    return guarded(command)


def dead(database: str, action: str, run: str | None, keys: Sequence[str], *, each: bool = False, as_json: bool) -> int:
    """Print dead roots, or have them done again or given up, and return the exit code."""

    def command() -> int:
        from penstock.durable import dead_roots, discard, retry  # noqa: PLC0415 -- its library is an extra
        from penstock.durable.journals import journal_at  # noqa: PLC0415 -- as above

        ask = {"retry": retry, "discard": discard}.get(action, dead_roots)
        if keys:
            known = [str(root.key) for root in dead_roots(database, run=run)]
            _require(keys, known, journal_at(database).place, "" if run is None else f" in run {run!r}")
        found = ask(database, run=run, keys=keys)
        if action == "export":
            for root in found:
                click.echo(json.dumps(asdict(root)))
        elif as_json:
            _print_json([asdict(root) for root in found])
        elif not found:
            complain("no dead roots")
        elif action == "list" and (each or keys):
            _list_each(found)
        else:
            ACTIONS[action](found)
        return DONE

    if action not in (*ACTIONS, "export"):
        complain(f"the action must be one of {', '.join(ACTIONS)}, export, got {action!r}")
        return BAD_USAGE
    return guarded(command)


def _require(keys: Sequence[str], known: Sequence[str], database: str, where: str) -> None:
    """Raise for keys that are not there, and name similar ones."""
    from penstock.durable import StoreError  # noqa: PLC0415 -- its library is an extra

    for key in keys:
        if key not in known:
            like = [each for each in known if each.endswith(key)] or get_close_matches(key, known) or known
            names = ", ".join(map(named, like[:_NAMED])) or "none"
            more = f" and {len(known) - _NAMED:,} more" if like is known and len(known) > _NAMED else ""
            raise StoreError(f"{database}: no dead root {named(key)}{where}, there are {names}{more}")


def _list(found: Sequence["DeadRoot"]) -> None:
    """Print a line for each kind of error, with a root that has it."""
    from penstock.durable.causes import causes  # noqa: PLC0415 -- its library is an extra

    rows: list[tuple[object, ...]] = []
    for run in dict.fromkeys(root.run for root in found):
        of_run = [root for root in found if root.run == run and root.letters]
        found_there = causes((root.letters[0].error, root.letters[0].stage, root.key) for root in of_run)
        rows += [(cause.count, run, cause.stage, str(cause.key), cause.error) for cause in found_there]
    print_table(("roots", "run", "stage", "as in key", "error"), rows)


def _list_each(found: Sequence["DeadRoot"]) -> None:
    print_table(("run", "key", "stage", "attempts", "set aside", "error"), _rows(found))


def _show(found: Sequence["DeadRoot"]) -> None:
    for line in _details(found):
        click.echo(line)


def _tell_retried(found: Sequence["DeadRoot"]) -> None:
    click.echo(f"the next run does {counted(len(found), 'dead root')} again")


def _tell_discarded(found: Sequence["DeadRoot"]) -> None:
    click.echo(
        f"gave up {counted(len(found), 'dead root')}, until {'it changes' if len(found) == 1 else 'they change'}"
    )


ACTIONS: Final = {"list": _list, "show": _show, "retry": _tell_retried, "discard": _tell_discarded}


def _status(run: "RunStatus", database: str) -> Iterator[str]:
    yield f"run {shown(run.name)}: {run.state}"
    yield f"  source  {shown(run.source)}"
    times = "once" if run.times == 1 else f"{run.times:,} times"
    yield f"  begun   {local_time(run.began)} by {shown(run.owner)}; {times} in all"
    if run.ended is not None:
        yield f"  ended   {local_time(run.ended)}"
    yield f"  done    {counted(run.done, 'root')}, {counted(run.rows, 'row')}"
    if run.dead:
        yield f"  dead    {run.dead:,}: penstock dead {shown(quote(database))} list --run {shown(quote(run.name))}"
    if run.by_other_code:
        command = f"penstock redo {shown(quote(database))} --run {shown(quote(run.name))} --made-by-other-code"
        yield f"  of these {run.by_other_code:,} by other code: {command}"
    if run.retried:
        yield f"  retried {run.retried:,}, by the next run"


def _rows(roots: Iterable["DeadRoot"]) -> Iterator[tuple[object, ...]]:
    for root in roots:
        for letter in root.letters:
            error = letter.error.split("\n", 1)[0]
            yield root.run, str(root.key), letter.stage, letter.attempts, local_time(letter.at), error


def _details(roots: Iterable["DeadRoot"]) -> Iterator[str]:
    for root in roots:
        version = f", version {shown(root.version)}" if root.version else ""
        yield f"root {shown(str(root.key))} of run {shown(root.run)}{version}"
        for letter in root.letters:
            tries = "one attempt" if letter.attempts == 1 else f"{letter.attempts:,} attempts"
            yield f"  stage {shown(letter.stage)}, {tries}, {local_time(letter.at)}"
            yield f"  item  {shown(letter.item)}"
            for line in letter.traceback.splitlines():
                yield f"    {shown(line)}"


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document))
