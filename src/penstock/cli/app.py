"""The command line: its name, and the table of its commands.

Their options are in `commands/`, one file a subject. Bodies are imported when they run: `--help` must be quick.
"""

from typing import Annotated

import typer

from penstock.cli import manual
from penstock.cli.commands import (
    document_commands,
    fetch_command,
    pipeline_commands,
    row_commands,
    run_commands,
    thumbnails_command,
)

app: typer.Typer = typer.Typer(
    name="penstock",
    help=manual.PENSTOCK,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 -- typer calls it so
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 -- only here

        typer.echo(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def penstock(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Handle the options before a command; a callback has handled `--version`."""
    del version


app.command("embed", help=manual.EMBED)(document_commands.embed)
app.command("fetch", help=manual.FETCH)(fetch_command.fetch)
app.command("thumbnails", help=manual.THUMBNAILS)(thumbnails_command.thumbnails)
app.command("search", help=manual.SEARCH)(document_commands.search)
app.command("map", help=manual.MAP)(row_commands.map_rows)
app.command("prompt", help=manual.PROMPT)(row_commands.prompt)
app.command("export", help=manual.EXPORT)(row_commands.export)
app.command("runs", help=manual.RUNS)(run_commands.runs)
app.command("status", help=manual.STATUS)(run_commands.status)
app.command("dead", help=manual.DEAD)(run_commands.dead)
app.command("redo", help=manual.REDO)(run_commands.redo)
app.command("forget", help=manual.FORGET)(run_commands.forget)
app.command("run", help=manual.RUN)(pipeline_commands.run)
app.command("resume", help=manual.RESUME)(pipeline_commands.resume)
app.command("approve", help=manual.APPROVE)(pipeline_commands.approve)
app.command("reject", help=manual.REJECT)(pipeline_commands.reject)
app.command("cancel", help=manual.CANCEL)(pipeline_commands.cancel)
app.command("fork", help=manual.FORK)(pipeline_commands.fork)
