"""Options that several commands have, and what was given of a command's."""

from typing import Annotated, Any

from penstock.cli.parameters import Option

ReportAsJSON = Annotated[
    bool,
    Option("--json", help="Print the report as JSON to stdout, and nothing else; no report after a second Ctrl-C."),
]
Rows = Annotated[
    str,
    Option(metavar="ROWS", help="A .jsonl, .csv, .tsv or .parquet file, a directory, a database, or -."),
]
KeyColumn = Annotated[
    str | None,
    Option(metavar="COLUMN", help="By what a row is known from run to run. [default: its place]"),
]
Query = Annotated[str | None, Option(metavar="SQL", help="The rows of a database; needs --key.")]
FilesOfRows = Annotated[str | None, Option(metavar="PATTERN", help="Files to take in a directory. [default: **/*]")]
TableOfRows = Annotated[str | None, Option(metavar="NAME", help="The table of OUT. [default: rows]")]
Timeout = Annotated[float | None, Option(metavar="SECONDS", help="What an attempt may take. [default: no limit]")]
DuplicateRows = Annotated[
    str | None,
    Option(metavar="refuse|first", help="End at a row with the key of an earlier one, or drop it. [default: refuse]"),
]
RowsThisTime = Annotated[int | None, Option(metavar="N", help="Rows to do this time.")]
Exclude = Annotated[list[str] | None, Option(metavar="PATTERN", help="Files and directories to skip; may be repeated.")]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that somebody gave: the others have the defaults of what is called.

    A command calls it first of all, with its `locals()`: so each option is written once, in the signature.
    """
    return {name: value for name, value in options.items() if value is not None}
