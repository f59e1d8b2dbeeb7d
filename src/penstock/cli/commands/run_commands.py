"""The commands that show and change durable runs: `runs`, `status`, `dead`, `redo`, `forget`."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from click.exceptions import Exit

from penstock.cli.parameters import Argument, Option


def _journal(place: str) -> str:
    """Return the journal of a directory of `Files` or of a file of `JsonLines`; another place as it is."""
    for journal in (Path(place, ".penstock", "journal.db"), Path(f"{place}.journal")):
        with suppress(OSError):  # it cannot be looked into: who opens it says why
            if "\0" not in place and journal.is_file():
                return str(journal)
    return place


Database = Annotated[
    str,
    Argument(
        metavar="DB",
        help="The database of a run, the journal beside a Callback, the file or directory of JsonLines or Files, or "
        "the directory of a workspace.",
        parser=_journal,
    ),
]
AsJSON = Annotated[bool, Option("--json", help="Print JSON.")]


def _is_workspace(place: str) -> bool:
    """Whether it is a directory in which pipelines have been run."""
    try:
        return Path(place, "workspace.db").is_file()
    except OSError:  # it cannot be looked into: the engine says why
        return Path(place).is_dir()


def runs(database: Database, *, json: AsJSON = False) -> None:
    """Run `penstock runs`."""
    if _is_workspace(database):
        from penstock.cli.pipeline_runs import list_pipeline_runs  # noqa: PLC0415 -- help must be quick

        raise Exit(list_pipeline_runs(database, as_json=json))
    from penstock.cli.runs import list_runs  # noqa: PLC0415 -- help must be quick

    raise Exit(list_runs(database, as_json=json))


def status(
    database: Database,
    run: Annotated[str | None, Argument(metavar="RUN", help="The name of a run. [default: all]")] = None,
    *,
    json: AsJSON = False,
) -> None:
    """Run `penstock status`."""
    if _is_workspace(database):
        from penstock.cli.pipeline_runs import show_pipeline_run  # noqa: PLC0415 -- help must be quick

        raise Exit(show_pipeline_run(database, run, as_json=json))
    from penstock.cli.runs import show_status  # noqa: PLC0415 -- help must be quick

    raise Exit(show_status(database, run, as_json=json))


def dead(
    database: Database,
    action: Annotated[
        str,
        Argument(metavar="ACTION", show_default=False, help="list, show, retry, discard or export. [default: list]"),
    ] = "list",
    *,
    run: Annotated[str | None, Option("--run", metavar="NAME", help="Only those of this run.")] = None,
    key: Annotated[
        list[str] | None, Option("--key", metavar="KEY", help="Only the root of this key; may be repeated.")
    ] = None,
    each: Annotated[bool, Option("--each", help="With list: a line for each thing that failed.")] = False,
    json: AsJSON = False,
) -> None:
    """Run `penstock dead`."""
    from penstock.cli.runs import dead as run_dead  # noqa: PLC0415 -- help must be quick

    raise Exit(run_dead(database, action, run, key or (), each=each, as_json=json))


def redo(
    database: Database,
    key: Annotated[list[str] | None, Argument(metavar="KEY", help="The keys of the roots.")] = None,
    *,
    run: Annotated[
        str | None, Option("--run", metavar="NAME", help="The run. [default: the only one]", show_default=False)
    ] = None,
    every: Annotated[bool, Option("--all", help="Every root of the run.")] = False,
    dead: Annotated[bool, Option("--dead", help="Every dead root of the run.")] = False,
    made_by_other_code: Annotated[
        bool, Option("--made-by-other-code", help="Those that other code made than the code of the last run.")
    ] = False,
    missing_rows: Annotated[
        bool, Option("--missing-rows", help="Those whose rows somebody has removed from the table.")
    ] = False,
    json: AsJSON = False,
) -> None:
    """Run `penstock redo`."""
    from penstock.cli.redo import WHICH  # noqa: PLC0415 -- help must be quick
    from penstock.cli.redo import redo as run_redo  # noqa: PLC0415 -- help must be quick

    flags = zip(WHICH, (every, dead, made_by_other_code, missing_rows), strict=True)
    chosen = [name for name, wanted in flags if wanted]
    raise Exit(run_redo(database, run, key or (), chosen, as_json=json))


def forget(
    database: Database,
    *,
    run: Annotated[str, Option("--run", metavar="NAME", help="The run.")],
    rows: Annotated[
        str, Option("--rows", metavar="keep|remove", help="Keep the rows of the run, or remove them.")
    ] = "keep",
    yes: Annotated[bool, Option("--yes", "-y", help="Do not ask first.")] = False,
    json: AsJSON = False,
) -> None:
    """Run `penstock forget`."""
    from penstock.cli.redo import forget as run_forget  # noqa: PLC0415 -- help must be quick

    raise Exit(run_forget(database, run, rows, yes=yes, as_json=json))
