"""The body of `penstock export`."""

import click

from penstock.cli.failing import DONE, guarded
from penstock.cli.printing import counted
from penstock.core.text import escaped as shown


def run(database: str, to: str, table: str) -> int:
    """Write the file, say so, and return the exit code."""

    def command() -> int:
        from penstock.workflows.rows.exporting import export  # noqa: PLC0415 -- its libraries are an extra

        number = export(database, to, table=table)
        click.echo(f"{shown(to)}: {counted(number, 'row')}")
        return DONE

    return guarded(command)
