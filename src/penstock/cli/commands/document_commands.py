"""The commands `embed` and `search`."""

from typing import Annotated

from click.exceptions import Exit

from penstock.cli import embedder_options
from penstock.cli.parameters import Argument, Option
from penstock.cli.shared_options import Exclude, ReportAsJSON, given


def embed(
    paths: Annotated[list[str], Argument(metavar="PATH", help="Directories and files.")],
    *,
    to: Annotated[str, Option("--to", metavar="INDEX", help="The index, one SQLite file; made if there is none.")],
    glob: Annotated[
        list[str] | None,
        Option(
            metavar="PATTERN",
            help="Files to take in directories; may be repeated. [default: *.md *.txt *.rst *.py *.html]",
        ),
    ] = None,
    exclude: Exclude = None,
    concurrency: Annotated[int | None, Option(metavar="N", help="Files that are read at once. [default: 4]")] = None,
    engine: Annotated[
        str | None,
        Option(
            metavar="inline|thread|process|ray|dask",
            help="Where they are read: one by one, in threads, processes, or on a cluster. [default: by the embedder]",
        ),
    ] = None,
    on_error: Annotated[
        str | None,
        Option(metavar="collect|raise", help="Go on after a file that fails, or end with it. [default: collect]"),
    ] = None,
    max_file_size: Annotated[
        int | None, Option(metavar="BYTES", help="A larger file fails. [default: 2000000]")
    ] = None,
    prune: Annotated[bool, Option("--prune", help="Remove from the index the files that are gone from PATH.")] = False,
    memo: Annotated[
        bool,
        Option("--memo", help="Keep vectors by their texts, so that none is paid for twice. The index gets larger."),
    ] = False,
    follow_links: Annotated[
        bool, Option("--follow-links", help="Also read files outside PATH that links lead to.")
    ] = False,
    embedder: embedder_options.Name = "hash",
    model: embedder_options.Model = None,
    base_url: embedder_options.BaseURL = None,
    api_key: embedder_options.Key = None,
    json: ReportAsJSON = False,
) -> None:
    """Run `penstock embed`."""
    options = given(**locals())
    from penstock.cli.embed import run  # noqa: PLC0415 -- help must be quick

    asked = embedder_options.asked_for(options)
    raise Exit(run(options.pop("paths"), options.pop("to"), options, asked, as_json=options.pop("json")))


def search(
    index: Annotated[str, Argument(metavar="INDEX", help="An index that `penstock embed` made.")],
    question: Annotated[list[str], Argument(metavar="QUESTION", help="Any text, in one argument or several.")],
    *,
    k: Annotated[int, Option("-k", metavar="N", help="Hits to print.")] = 5,
    embedder: embedder_options.NameOrIndex = None,
    model: embedder_options.Model = None,
    base_url: embedder_options.BaseURL = None,
    api_key: embedder_options.Key = None,
    json: Annotated[bool, Option("--json", help="Print the hits as JSON.")] = False,
) -> None:
    """Run `penstock search`."""
    from penstock.cli.searching import run  # noqa: PLC0415 -- help must be quick

    asked = embedder_options.Asked(embedder, model, base_url, api_key)
    raise Exit(run(index, " ".join(question), k, asked, as_json=json))
