"""A table of runs, and instants, for people."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import click

from penstock.core.text import one_line

_CELL: Final = 300
"""Characters of a cell of a table, at most."""


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on a terminal, and elsewhere lines of aligned columns. Numbers are aligned to the right."""
    table = [headings, *rows]
    lines = [[f"{cell:,}" if isinstance(cell, int) else one_line(str(cell), _CELL) for cell in row] for row in table]
    numbers = {place for place, column in enumerate(zip(*table[1:], strict=True)) if isinstance(column[0], int)}
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 -- only a terminal needs it
        from rich.table import Table  # noqa: PLC0415 -- only a terminal needs it
        from rich.text import Text  # noqa: PLC0415 -- only a terminal needs it

        drawn = Table(box=None)
        for place, heading in enumerate(headings):
            drawn.add_column(heading, justify="right" if place in numbers else "left", overflow="fold")
        for line in lines[1:]:
            drawn.add_row(*map(Text, line))
        Console().print(drawn)
        return
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        aligned = (f"{cell:{'>' if place in numbers else '<'}{width}}" for place, (cell, width) in enumerate(cells))
        click.echo("  ".join(aligned).rstrip())


def local_time(seconds: float) -> str:
    """Show an instant as people read it where they are; what is none as it stands, for a database may hold anything."""
    try:
        return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"  # noqa: DTZ006 -- as said
    except (OverflowError, ValueError, OSError):
        return str(seconds)
