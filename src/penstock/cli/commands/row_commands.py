"""The commands `map`, `prompt` and `export`."""

from typing import Annotated

from click.exceptions import Exit

from penstock.cli.parameters import Argument, Option
from penstock.cli.shared_options import (
    DuplicateRows,
    FilesOfRows,
    KeyColumn,
    Query,
    ReportAsJSON,
    Rows,
    RowsThisTime,
    TableOfRows,
    Timeout,
    given,
)


def map_rows(
    function: Annotated[str, Argument(metavar="MODULE:FUNCTION", help="What is called for each row.")],
    *,
    over: Rows,
    to: Annotated[str, Option(metavar="OUT", help="A .db or .jsonl file, or postgresql://...; made if there is none.")],
    key: KeyColumn = None,
    query: Query = None,
    glob: FilesOfRows = None,
    table: TableOfRows = None,
    keep: Annotated[bool, Option("--keep", help="Keep the columns of the row beside those of the result.")] = False,
    run_name: Annotated[
        str | None, Option("--run", metavar="NAME", help="The name of the run. [default: MODULE:FUNCTION]")
    ] = None,
    concurrency: Annotated[int | None, Option(metavar="N", help="Calls at once. [default: 8]")] = None,
    retry: Annotated[int | None, Option(metavar="N", help="Attempts in all. [default: 1]")] = None,
    timeout: Timeout = None,
    rate: Annotated[
        str | None, Option(metavar="N/UNIT", help="Calls that begin in a time: 10/s, 500/min, 1000/h.")
    ] = None,
    on_error: Annotated[
        str | None,
        Option(
            metavar="collect|skip|raise",
            help="Set a row that fails aside, drop it, or end with it. [default: collect]",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        Option(metavar="inline|thread|process|ray|dask", help="Where a plain function runs. [default: thread]"),
    ] = None,
    on_duplicate: DuplicateRows = None,
    limit: RowsThisTime = None,
    memo: Annotated[
        bool, Option("--memo", help="Keep results by what the row holds, so that none is paid for twice.")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Print the first three rows and call nothing.")] = False,
    json: ReportAsJSON = False,
) -> None:
    """Run `penstock map`."""
    options = given(**locals())
    from penstock.cli.map_rows import run  # noqa: PLC0415 -- help must be quick

    raise Exit(run(options, dry_run=options.pop("dry_run"), as_json=options.pop("json")))


def prompt_rows(
    prompt: Annotated[str, Argument(metavar="PROMPT", help="A text with columns in braces: 'Classify: {text}'.")],
    *,
    over: Rows,
    model: Annotated[str, Option(metavar="openai:NAME|anthropic:NAME", help="Who is asked.")],
    to: Annotated[
        str | None,
        Option(metavar="OUT", help="A .db or .jsonl file, or postgresql://...; made if there is none."),
    ] = None,
    schema: Annotated[
        str | None, Option(metavar="FILE", help="A JSON schema: answers have to fit it. [default: any text]")
    ] = None,
    system: Annotated[str | None, Option(metavar="TEXT", help="What the model is told before.")] = None,
    base_url: Annotated[
        str | None, Option(metavar="URL", help="The server, up to /v1. [default: that of the service]")
    ] = None,
    key: KeyColumn = None,
    query: Query = None,
    glob: FilesOfRows = None,
    table: TableOfRows = None,
    keep: Annotated[bool, Option("--keep", help="Keep the columns of the row beside the answer.")] = False,
    run_name: Annotated[
        str | None, Option("--run", metavar="NAME", help="The name of the run. [default: prompt]")
    ] = None,
    concurrency: Annotated[
        int | None, Option(metavar="N", help="Requests at once. [default: as many as the service takes]")
    ] = None,
    retry: Annotated[
        int | None, Option(metavar="N", help="Attempts in all, of what may do better. [default: 6]")
    ] = None,
    asks: Annotated[
        int | None,
        Option(metavar="N", help="How often in all, until an answer fits the schema. [default: 3]"),
    ] = None,
    timeout: Timeout = None,
    rate: Annotated[
        str | None, Option(metavar="N/UNIT", help="Requests that begin in a time: 10/s, 500/min, 1000/h.")
    ] = None,
    tokens: Annotated[
        str | None, Option(metavar="N/UNIT", help="Tokens in a time, of requests and answers: 90000/min.")
    ] = None,
    on_error: Annotated[
        str | None,
        Option(
            metavar="collect|skip|raise",
            help="Set a row without an answer aside, drop it, or end with it. [default: collect]",
        ),
    ] = None,
    on_duplicate: DuplicateRows = None,
    limit: RowsThisTime = None,
    memo: Annotated[
        bool, Option("--memo", help="Keep answers by the text of the prompt: none is paid for twice.")
    ] = False,
    max_answer: Annotated[
        int | None, Option(metavar="N", help="Tokens of an answer; a longer one fails. [default: 4096]")
    ] = None,
    price: Annotated[
        str | None, Option(metavar="IN/OUT[/CACHED]", help="Of a million tokens, in any currency: 0.15/0.60.")
    ] = None,
    max_cost: Annotated[
        float | None, Option(metavar="AMOUNT", help="End in order when so much is paid, over all runs.")
    ] = None,
    max_tokens: Annotated[
        int | None, Option(metavar="N", help="End in order when so many tokens are used, over all runs.")
    ] = None,
    deadline: Annotated[str | None, Option(metavar="TIME", help="End in order after so long: 90s, 30min, 2h.")] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print three prompts and what all would cost; ask nothing.")
    ] = False,
    json: ReportAsJSON = False,
) -> None:
    """Run `penstock prompt`."""
    options = given(**locals())
    from penstock.cli.prompting import run  # noqa: PLC0415 -- help must be quick

    raise Exit(run(options, options.pop("to", None), dry_run=options.pop("dry_run"), as_json=options.pop("json")))


def export(
    database: Annotated[str, Argument(metavar="DB", help="An SQLite database, or postgresql://...")],
    *,
    to: Annotated[str, Option(metavar="FILE", help="A .parquet, .csv or .jsonl file.")],
    table: Annotated[str, Option(metavar="NAME", help="The table.")] = "rows",
) -> None:
    """Run `penstock export`."""
    from penstock.cli.exporting_rows import run as run_export  # noqa: PLC0415 -- help must be quick

    raise Exit(run_export(database, to, table))
