"""The command line: its name, and the table of its commands.

Their options are in `commands/`, one file a subject. Bodies are imported when they run: `--help` must be quick.
"""

from typing import override

import click

from penstock.cli import manual
from penstock.cli.commands import (
    document_commands,
    fetch_command,
    pipeline_commands,
    row_commands,
    run_commands,
    thumbnails_command,
)
from penstock.cli.parameters import NAMES_OF_HELP, command


def _version(context: click.Context, _param: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 -- click calls it so
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 -- only here

        click.echo(f"penstock {version('penstock')}")
        context.exit()


class _InThisOrder(click.Group):
    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


app: click.Group = _InThisOrder(
    "penstock",
    help=manual.PENSTOCK,
    no_args_is_help=True,
    context_settings=NAMES_OF_HELP,
    params=[
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version."
        )
    ],
)

for _name, _body, _told in (
    ("embed", document_commands.embed, manual.EMBED),
    ("fetch", fetch_command.fetch, manual.FETCH),
    ("thumbnails", thumbnails_command.thumbnails, manual.THUMBNAILS),
    ("search", document_commands.search, manual.SEARCH),
    ("map", row_commands.map_rows, manual.MAP),
    ("prompt", row_commands.prompt_rows, manual.PROMPT),
    ("export", row_commands.export, manual.EXPORT),
    ("runs", run_commands.runs, manual.RUNS),
    ("status", run_commands.status, manual.STATUS),
    ("dead", run_commands.dead, manual.DEAD),
    ("redo", run_commands.redo, manual.REDO),
    ("forget", run_commands.forget, manual.FORGET),
    ("run", pipeline_commands.run, manual.RUN),
    ("resume", pipeline_commands.resume, manual.RESUME),
    ("approve", pipeline_commands.approve, manual.APPROVE),
    ("reject", pipeline_commands.reject, manual.REJECT),
    ("cancel", pipeline_commands.cancel, manual.CANCEL),
    ("fork", pipeline_commands.fork, manual.FORK),
):
    app.add_command(command(_name, _body, _told))
