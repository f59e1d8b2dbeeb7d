"""The commands and their options. Bodies are imported when they run: `--help` must be quick."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli import embedder_options, manual
from penstock.workflows.secret import Secret

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


@app.command(help=manual.EMBED)
def embed(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Directories and files.")],
    *,
    to: Annotated[
        str, typer.Option("--to", metavar="INDEX", help="The index, one SQLite file; made if there is none.")
    ],
    glob: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Files to take in directories; may be repeated. [default: *.md *.txt *.rst *.py *.html]",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Files and directories to skip; may be repeated.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="Files that are read at once. [default: 4]")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="inline|thread|process|ray|dask",
            help="Where they are read: one by one, in threads, in processes, or on a cluster. [default: thread]",
        ),
    ] = None,
    on_error: Annotated[
        str | None,
        typer.Option(metavar="collect|raise", help="Go on after a file that fails, or end with it. [default: collect]"),
    ] = None,
    max_file_size: Annotated[
        int | None, typer.Option(metavar="BYTES", help="A larger file fails. [default: 2000000]")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove from the index the files that are gone from PATH.")
    ] = False,
    memo: Annotated[
        bool,
        typer.Option(
            "--memo", help="Keep vectors by their texts, so that none is paid for twice. The index gets larger."
        ),
    ] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Also read files outside PATH that links lead to.")
    ] = False,
    embedder: embedder_options.Name = "hash",
    model: embedder_options.Model = None,
    base_url: embedder_options.BaseURL = None,
    api_key: embedder_options.Key = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON to stdout, and nothing else.")] = False,
) -> None:
    """Run `penstock embed`."""
    from penstock.cli.embed import run  # noqa: PLC0415 -- see above

    options = {
        "glob": glob,
        "exclude": exclude,
        "concurrency": concurrency,
        "engine": engine,
        "on_error": on_error,
        "max_file_size": max_file_size,
        "prune": prune,
        "memo": memo,
        "follow_links": follow_links,
    }
    given = {name: value for name, value in options.items() if value is not None}
    asked = embedder_options.Asked(embedder, model, base_url, api_key)
    raise typer.Exit(run(paths, to, given, asked, as_json=json))


@app.command(help=manual.FETCH)
def fetch(
    urls: Annotated[str, typer.Argument(metavar="URLS", help="A file of CSV or lines of JSON; - is stdin.")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="DB", help="The SQLite database; made if there is none.")],
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column of the keys. [default: the first]")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Requests at once. [default: 16]")] = None,
    per_host: Annotated[
        int | None, typer.Option(metavar="N", help="Requests at once to one host. [default: 4]")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="N/UNIT", help="Requests that begin at one host in a time: 10/s, 500/min, 1000/h."),
    ] = None,
    retry: Annotated[
        int | None, typer.Option(metavar="N", help="Attempts in all of a request that may do better. [default: 4]")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="For one try in whole, redirects and body included. [default: 30]"),
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(metavar="BYTES", help="A larger body fails. [default: 10000000]")
    ] = None,
    max_redirects: Annotated[
        int | None, typer.Option(metavar="N", help="Redirects of a request. [default: 10]")
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Also connect to hosts that are not of the public Internet.")
    ] = False,
    header: Annotated[
        list[Secret] | None,
        typer.Option(
            metavar="'NAME: VALUE'|@FILE", parser=Secret, help="Sent with requests; @ reads a file; may be repeated."
        ),
    ] = None,
    refresh: Annotated[
        bool,
        typer.Option("--refresh/--no-refresh", help="Ask again for what a complete run has fetched, if it is new."),
    ] = True,
    prune: Annotated[bool, typer.Option("--prune", help="Remove records of keys that are gone from URLS.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON to stdout, and nothing else.")] = False,
) -> None:
    """Run `penstock fetch`."""
    from penstock.cli.fetch import run  # noqa: PLC0415 -- see above

    options = {
        "key": key,
        "concurrency": concurrency,
        "per_host": per_host,
        "rate": rate,
        "retry": retry,
        "timeout": timeout,
        "max_bytes": max_bytes,
        "max_redirects": max_redirects,
        "allow_private": allow_private,
        "refresh": refresh,
        "prune": prune,
    }
    given = {name: value for name, value in options.items() if value is not None}
    raise typer.Exit(run(urls, to, given, header or (), as_json=json))


@app.command(help=manual.THUMBNAILS)
def thumbnails(
    source: Annotated[str, typer.Argument(metavar="DIR", help="The directory with the pictures.")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="OUT", help="Where they go; made if it is not there.")],
    size: Annotated[
        list[int] | None,
        typer.Option(metavar="PIXELS", help="Of the longer side; may be repeated. [default: 64 256 1024]"),
    ] = None,
    glob: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Files to take; may be repeated. [default: *.jpg *.png *.gif and so on]"),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Files and directories to skip; may be repeated.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="Pictures at once. [default: 4 for each processor]")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="inline|thread|process", help="Where they are made small. [default: process]"),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="A picture that takes longer fails. [default: 60]")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(metavar="N", help="A picture with more fails. [default: 100000000]")
    ] = None,
    max_file_size: Annotated[
        int | None, typer.Option(metavar="BYTES", help="A larger file fails. [default: 100000000]")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove the thumbnails of pictures that are gone from DIR.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON to stdout, and nothing else.")] = False,
) -> None:
    """Run `penstock thumbnails`."""
    from penstock.cli.thumbnails import run  # noqa: PLC0415 -- see above

    options = {
        "sizes": size,
        "glob": glob,
        "exclude": exclude,
        "concurrency": concurrency,
        "engine": engine,
        "timeout": timeout,
        "max_pixels": max_pixels,
        "max_file_size": max_file_size,
        "prune": prune,
    }
    given = {name: value for name, value in options.items() if value is not None}
    raise typer.Exit(run(source, to, given, as_json=json))


@app.command(help=manual.SEARCH)
def search(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="An index that `penstock embed` made.")],
    question: Annotated[list[str], typer.Argument(metavar="QUESTION", help="Any text, in one argument or several.")],
    *,
    k: Annotated[int, typer.Option("-k", metavar="N", help="Hits to print.")] = 5,
    embedder: embedder_options.NameOrIndex = None,
    model: embedder_options.Model = None,
    base_url: embedder_options.BaseURL = None,
    api_key: embedder_options.Key = None,
    json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON.")] = False,
) -> None:
    """Run `penstock search`."""
    from penstock.cli.searching import run  # noqa: PLC0415 -- see above

    asked = embedder_options.Asked(embedder, model, base_url, api_key)
    raise typer.Exit(run(index, " ".join(question), k, asked, as_json=json))


def _journal(place: str) -> str:
    """Return the journal of a directory of `Files` or of a file of `JsonLines`; another place as it is."""
    for journal in (Path(place, ".penstock", "journal.db"), Path(f"{place}.journal")):
        with suppress(OSError):  # it cannot be looked into: who opens it says why
            if "\0" not in place and journal.is_file():
                return str(journal)
    return place


@app.command(name="map", help=manual.MAP)
def map_rows(
    function: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="What is called for each row.")],
    *,
    over: Annotated[
        str,
        typer.Option(metavar="ROWS", help="A .jsonl, .csv, .tsv or .parquet file, a directory, a database, or -."),
    ],
    to: Annotated[
        str, typer.Option(metavar="OUT", help="A .db or .jsonl file, or postgresql://...; made if there is none.")
    ],
    key: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="By what a row is known from run to run. [default: its place]"),
    ] = None,
    query: Annotated[str | None, typer.Option(metavar="SQL", help="The rows of a database; needs --key.")] = None,
    glob: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Files to take in a directory. [default: **/*]")
    ] = None,
    table: Annotated[str | None, typer.Option(metavar="NAME", help="The table of OUT. [default: rows]")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the columns of the row beside those of the result.")
    ] = False,
    run: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name of the run. [default: MODULE:FUNCTION]")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(metavar="N", help="Calls at once. [default: 8]")] = None,
    retry: Annotated[int | None, typer.Option(metavar="N", help="Attempts in all. [default: 1]")] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="What an attempt may take. [default: no limit]")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="N/UNIT", help="Calls that begin in a time: 10/s, 500/min, 1000/h.")
    ] = None,
    on_error: Annotated[
        str | None,
        typer.Option(
            metavar="collect|skip|raise",
            help="Set a row that fails aside, drop it, or end with it. [default: collect]",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="inline|thread|process|ray|dask", help="Where a plain function runs. [default: thread]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Rows to do this time.")] = None,
    memo: Annotated[
        bool, typer.Option("--memo", help="Keep results by what the row holds, so that none is paid for twice.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the first three rows and call nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON to stdout, and nothing else.")] = False,
) -> None:
    """Run `penstock map`."""
    from penstock.cli.map_rows import run as run_map  # noqa: PLC0415 -- see above

    options = {
        "function": function,
        "over": over,
        "to": to,
        "key": key,
        "query": query,
        "glob": glob,
        "table": table,
        "run_name": run,
        "concurrency": concurrency,
        "retry": retry,
        "timeout": timeout,
        "rate": rate,
        "on_error": on_error,
        "engine": engine,
        "limit": limit,
    }
    given = {name: value for name, value in options.items() if value is not None}
    raise typer.Exit(run_map({**given, "keep": keep, "memo": memo}, dry_run=dry_run, as_json=json))


@app.command(help=manual.PROMPT)
def prompt(
    text: Annotated[str, typer.Argument(metavar="PROMPT", help="A text with columns in braces: 'Classify: {text}'.")],
    *,
    over: Annotated[
        str,
        typer.Option(metavar="ROWS", help="A .jsonl, .csv, .tsv or .parquet file, a directory, a database, or -."),
    ],
    model: Annotated[str, typer.Option(metavar="openai:NAME|anthropic:NAME", help="Who is asked.")],
    to: Annotated[
        str | None,
        typer.Option(metavar="OUT", help="A .db or .jsonl file, or postgresql://...; made if there is none."),
    ] = None,
    schema: Annotated[
        str | None, typer.Option(metavar="FILE", help="A JSON schema: answers have to fit it. [default: any text]")
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="What the model is told before.")] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The server, up to /v1. [default: that of the service]")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="By what a row is known from run to run. [default: its place]"),
    ] = None,
    query: Annotated[str | None, typer.Option(metavar="SQL", help="The rows of a database; needs --key.")] = None,
    glob: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Files to take in a directory. [default: **/*]")
    ] = None,
    table: Annotated[str | None, typer.Option(metavar="NAME", help="The table of OUT. [default: rows]")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the columns of the row beside the answer.")] = False,
    run: Annotated[str | None, typer.Option(metavar="NAME", help="The name of the run. [default: prompt]")] = None,
    concurrency: Annotated[
        int | None, typer.Option(metavar="N", help="Requests at once. [default: as many as the service takes]")
    ] = None,
    retry: Annotated[
        int | None, typer.Option(metavar="N", help="Attempts in all, of what may do better. [default: 6]")
    ] = None,
    asks: Annotated[
        int | None,
        typer.Option(metavar="N", help="How often in all, until an answer fits the schema. [default: 3]"),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="What an attempt may take. [default: no limit]")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="N/UNIT", help="Requests that begin in a time: 10/s, 500/min, 1000/h.")
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="N/UNIT", help="Tokens in a time, of requests and answers: 90000/min.")
    ] = None,
    on_error: Annotated[
        str | None,
        typer.Option(
            metavar="collect|skip|raise",
            help="Set a row without an answer aside, drop it, or end with it. [default: collect]",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", help="Rows to do this time.")] = None,
    memo: Annotated[
        bool, typer.Option("--memo", help="Keep answers by what the row holds, so that none is paid for twice.")
    ] = False,
    max_answer: Annotated[
        int | None, typer.Option(metavar="N", help="Tokens of an answer; a longer one fails. [default: 4096]")
    ] = None,
    price: Annotated[
        str | None, typer.Option(metavar="IN/OUT[/CACHED]", help="Of a million tokens, in any currency: 0.15/0.60.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(metavar="AMOUNT", help="End in order when so much is paid, over all runs.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="End in order when so many tokens are used, over all runs.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="TIME", help="End in order after so long: 90s, 30min, 2h.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print three prompts and what all would cost; ask nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON to stdout, and nothing else.")] = False,
) -> None:
    """Run `penstock prompt`."""
    from penstock.cli.prompting import run as run_prompt  # noqa: PLC0415 -- see above

    options = {
        "prompt": text,
        "over": over,
        "model": model,
        "schema": schema,
        "system": system,
        "base_url": base_url,
        "key": key,
        "query": query,
        "glob": glob,
        "table": table,
        "run_name": run,
        "concurrency": concurrency,
        "retry": retry,
        "asks": asks,
        "timeout": timeout,
        "rate": rate,
        "tokens": tokens,
        "on_error": on_error,
        "limit": limit,
        "max_answer": max_answer,
        "price": price,
        "max_cost": max_cost,
        "max_tokens": max_tokens,
        "deadline": deadline,
    }
    given = {name: value for name, value in options.items() if value is not None}
    raise typer.Exit(run_prompt({**given, "keep": keep, "memo": memo}, to, dry_run=dry_run, as_json=json))


@app.command(help=manual.EXPORT)
def export(
    database: Annotated[str, typer.Argument(metavar="DB", help="An SQLite database, or postgresql://...")],
    *,
    to: Annotated[str, typer.Option(metavar="FILE", help="A .parquet, .csv or .jsonl file.")],
    table: Annotated[str, typer.Option(metavar="NAME", help="The table.")] = "rows",
) -> None:
    """Run `penstock export`."""
    from penstock.cli.exporting_rows import run as run_export  # noqa: PLC0415 -- see above

    raise typer.Exit(run_export(database, to, table))


Database = Annotated[
    str,
    typer.Argument(
        metavar="DB",
        help="The database of a run, the journal beside a Callback, the file or directory of JsonLines or Files, or "
        "the directory of a workspace.",
        callback=_journal,
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _is_workspace(place: str) -> bool:
    """Whether it is a directory in which pipelines have been run."""
    try:
        return Path(place, "workspace.db").is_file()
    except OSError:  # it cannot be looked into: the engine says why
        return Path(place).is_dir()


@app.command(help=manual.RUNS)
def runs(database: Database, *, json: AsJSON = False) -> None:
    """Run `penstock runs`."""
    if _is_workspace(database):
        from penstock.cli.pipeline_runs import list_pipeline_runs  # noqa: PLC0415 -- see above

        raise typer.Exit(list_pipeline_runs(database, as_json=json))
    from penstock.cli.runs import list_runs  # noqa: PLC0415 -- see above

    raise typer.Exit(list_runs(database, as_json=json))


@app.command(help=manual.STATUS)
def status(
    database: Database,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="The name of a run. [default: all]")] = None,
    *,
    json: AsJSON = False,
) -> None:
    """Run `penstock status`."""
    if _is_workspace(database):
        from penstock.cli.pipeline_runs import show_pipeline_run  # noqa: PLC0415 -- see above

        raise typer.Exit(show_pipeline_run(database, run, as_json=json))
    from penstock.cli.runs import show_status  # noqa: PLC0415 -- see above

    raise typer.Exit(show_status(database, run, as_json=json))


@app.command(help=manual.DEAD)
def dead(
    database: Database,
    action: Annotated[
        str,
        typer.Argument(
            metavar="ACTION", show_default=False, help="list, show, retry, discard or export. [default: list]"
        ),
    ] = "list",
    *,
    run: Annotated[str | None, typer.Option("--run", metavar="NAME", help="Only those of this run.")] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", metavar="KEY", help="Only the root of this key; may be repeated.")
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="With list: a line for each thing that failed.")] = False,
    json: AsJSON = False,
) -> None:
    """Run `penstock dead`."""
    from penstock.cli.runs import dead as run_dead  # noqa: PLC0415 -- see above

    raise typer.Exit(run_dead(database, action, run, key or (), each=each, as_json=json))


@app.command(help=manual.REDO)
def redo(
    database: Database,
    key: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="The keys of the roots.")] = None,
    *,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="The run. [default: the only one]", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every root of the run.")] = False,
    dead: Annotated[bool, typer.Option("--dead", help="Every dead root of the run.")] = False,
    made_by_other_code: Annotated[
        bool, typer.Option("--made-by-other-code", help="Those that other code made than the code of the last run.")
    ] = False,
    missing_rows: Annotated[
        bool, typer.Option("--missing-rows", help="Those whose rows somebody has removed from the table.")
    ] = False,
    json: AsJSON = False,
) -> None:
    """Run `penstock redo`."""
    from penstock.cli.redo import WHICH  # noqa: PLC0415 -- see above
    from penstock.cli.redo import redo as run_redo  # noqa: PLC0415 -- see above

    flags = zip(WHICH, (every, dead, made_by_other_code, missing_rows), strict=True)
    chosen = [name for name, wanted in flags if wanted]
    raise typer.Exit(run_redo(database, run, key or (), chosen, as_json=json))


@app.command(help=manual.FORGET)
def forget(
    database: Database,
    *,
    run: Annotated[str, typer.Option("--run", metavar="NAME", help="The run.")],
    rows: Annotated[
        str, typer.Option("--rows", metavar="keep|remove", help="Keep the rows of the run, or remove them.")
    ] = "keep",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    json: AsJSON = False,
) -> None:
    """Run `penstock forget`."""
    from penstock.cli.redo import forget as run_forget  # noqa: PLC0415 -- see above

    raise typer.Exit(run_forget(database, run, rows, yes=yes, as_json=json))


WorkspaceDirectory = Annotated[str, typer.Argument(metavar="WORKSPACE", help="The directory of the workspace.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of the run.")]
StepPath = Annotated[
    str | None,
    typer.Argument(metavar="STEP", show_default=False, help="The path of the step. [default: the only one that waits]"),
]
Places = Annotated[int, typer.Option("--concurrency", metavar="N", help="Steps that are in progress at once.")]
OnOtherCode = Annotated[
    str,
    typer.Option(
        "--on-change",
        metavar="continue|refuse|restart",
        help="What becomes of finished steps whose code is another now.",
    ),
]
By = Annotated[
    str | None, typer.Option("--by", metavar="NAME", show_default=False, help="Who it is. [default: the login name]")
]


@app.command(help=manual.RUN)
def run(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="A file *.yaml or *.yml, or module:name.")],
    *,
    workspace: Annotated[
        str, typer.Option("--workspace", "-w", metavar="DIR", help="Where runs are recorded; made if it is not there.")
    ] = ".penstock",
    given: Annotated[
        str, typer.Option("--input", "-i", metavar="JSON", help="The value that the first step gets; - reads stdin.")
    ] = "null",
    run_id: Annotated[
        str | None,
        typer.Option("--run-id", metavar="ID", show_default=False, help="The run to begin or to go on with."),
    ] = None,
    concurrency: Places = 3,
    on_change: OnOtherCode = "continue",
    json: AsJSON = False,
    check: Annotated[bool, typer.Option("--check", help="Only look for mistakes; nothing is run or made.")] = False,
) -> None:
    """Run `penstock run`."""
    from penstock.cli.pipeline_runs import run as run_pipeline  # noqa: PLC0415 -- see above

    raise typer.Exit(
        run_pipeline(
            pipeline,
            workspace=workspace,
            given=given,
            run_id=run_id,
            concurrency=concurrency,
            on_change=on_change,
            as_json=json,
            check=check,
        )
    )


@app.command(help=manual.RESUME)
def resume(
    workspace: WorkspaceDirectory,
    run_id: RunId,
    *,
    pipeline: Annotated[
        str | None,
        typer.Option("--pipeline", metavar="PIPELINE", show_default=False, help="For a run that was begun in Python."),
    ] = None,
    concurrency: Places = 3,
    on_change: OnOtherCode = "continue",
    json: AsJSON = False,
) -> None:
    """Run `penstock resume`."""
    from penstock.cli.pipeline_runs import resume as go_on  # noqa: PLC0415 -- see above

    raise typer.Exit(go_on(workspace, run_id, pipeline, concurrency=concurrency, on_change=on_change, as_json=json))


@app.command(help=manual.APPROVE)
def approve(
    workspace: WorkspaceDirectory,
    run_id: RunId,
    step: StepPath = None,
    *,
    value: Annotated[
        str | None,
        typer.Option("--value", metavar="JSON", show_default=False, help="What is to go on, in place of what waits."),
    ] = None,
    by: By = None,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why.")] = "",
) -> None:
    """Run `penstock approve`."""
    from penstock.cli.pipeline_runs import approve as answer  # noqa: PLC0415 -- see above

    raise typer.Exit(answer(workspace, run_id, step, value=value, by=by, note=note))


@app.command(help=manual.REJECT)
def reject(
    workspace: WorkspaceDirectory,
    run_id: RunId,
    step: StepPath = None,
    *,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why.")],
    by: By = None,
) -> None:
    """Run `penstock reject`."""
    from penstock.cli.pipeline_runs import reject as answer  # noqa: PLC0415 -- see above

    raise typer.Exit(answer(workspace, run_id, step, reason, by))


@app.command(help=manual.CANCEL)
def cancel(workspace: WorkspaceDirectory, run_id: RunId) -> None:
    """Run `penstock cancel`."""
    from penstock.cli.pipeline_runs import cancel as ask  # noqa: PLC0415 -- see above

    raise typer.Exit(ask(workspace, run_id))


@app.command(help=manual.FORK)
def fork(
    workspace: WorkspaceDirectory,
    run_id: RunId,
    *,
    at: Annotated[str, typer.Option("--at", metavar="STEP", help="The step that is to be done again.")],
    output: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="STEP=JSON", help="Another output of a step that is kept; may be repeated."),
    ] = None,
) -> None:
    """Run `penstock fork`."""
    from penstock.cli.pipeline_runs import fork as make_fork  # noqa: PLC0415 -- see above

    raise typer.Exit(make_fork(workspace, run_id, at, output or ()))
