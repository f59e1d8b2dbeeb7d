"""The command line: its name, and the table of its commands.

Their options are in `commands/`, one file a subject. Bodies are imported when they run: `--help` must be quick.
"""

from typing import Annotated

import typer

from penstock.cli import manual
from penstock.cli.commands import documents, durable_runs, fetching, pictures, pipelines, rows

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


app.command("embed", help=manual.EMBED)(documents.embed)
app.command("fetch", help=manual.FETCH)(fetching.fetch)
app.command("thumbnails", help=manual.THUMBNAILS)(pictures.thumbnails)
app.command("search", help=manual.SEARCH)(documents.search)
app.command("map", help=manual.MAP)(rows.map_rows)
app.command("prompt", help=manual.PROMPT)(rows.prompt)
app.command("export", help=manual.EXPORT)(rows.export)
app.command("runs", help=manual.RUNS)(durable_runs.runs)
app.command("status", help=manual.STATUS)(durable_runs.status)
app.command("dead", help=manual.DEAD)(durable_runs.dead)
app.command("redo", help=manual.REDO)(durable_runs.redo)
app.command("forget", help=manual.FORGET)(durable_runs.forget)
app.command("run", help=manual.RUN)(pipelines.run)
app.command("resume", help=manual.RESUME)(pipelines.resume)
app.command("approve", help=manual.APPROVE)(pipelines.approve)
app.command("reject", help=manual.REJECT)(pipelines.reject)
app.command("cancel", help=manual.CANCEL)(pipelines.cancel)
app.command("fork", help=manual.FORK)(pipelines.fork)
