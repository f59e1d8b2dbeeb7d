"""The command `fetch`."""

from typing import Annotated

from click.exceptions import Exit

from penstock.cli.parameters import Argument, Option
from penstock.cli.shared_options import ReportAsJSON, given
from penstock.workflows.secret import Secret


def fetch(
    urls: Annotated[str, Argument(metavar="URLS", help="A file of CSV or lines of JSON; - is stdin.")],
    *,
    to: Annotated[str, Option("--to", metavar="DB", help="The SQLite database; made if there is none.")],
    key: Annotated[str | None, Option(metavar="COLUMN", help="The column of the keys. [default: the first]")] = None,
    concurrency: Annotated[int | None, Option(metavar="N", help="Requests at once. [default: 16]")] = None,
    per_host: Annotated[int | None, Option(metavar="N", help="Requests at once to one host. [default: 4]")] = None,
    rate: Annotated[
        str | None,
        Option(metavar="N/UNIT", help="Requests that begin at one host in a time: 10/s, 500/min, 1000/h."),
    ] = None,
    retry: Annotated[
        int | None, Option(metavar="N", help="Attempts in all of a request that may do better. [default: 4]")
    ] = None,
    timeout: Annotated[
        float | None,
        Option(metavar="SECONDS", help="For one try in whole, redirects and body included. [default: 30]"),
    ] = None,
    max_bytes: Annotated[int | None, Option(metavar="BYTES", help="A larger body fails. [default: 10000000]")] = None,
    max_redirects: Annotated[int | None, Option(metavar="N", help="Redirects of a request. [default: 10]")] = None,
    allow_private: Annotated[
        bool, Option("--allow-private", help="Also connect to hosts that are not of the public Internet.")
    ] = False,
    header: Annotated[
        list[Secret] | None,
        Option(
            metavar="'NAME: VALUE'|@FILE", parser=Secret, help="Sent with requests; @ reads a file; may be repeated."
        ),
    ] = None,
    refresh: Annotated[
        bool,
        Option("--refresh/--no-refresh", help="Ask again for what a complete run has fetched, if it is new."),
    ] = True,
    prune: Annotated[bool, Option("--prune", help="Remove records of keys that are gone from URLS.")] = False,
    json: ReportAsJSON = False,
) -> None:
    """Run `penstock fetch`."""
    options = given(**locals())
    from penstock.cli.fetch import run  # noqa: PLC0415 -- help must be quick

    headers, as_json = options.pop("header", ()), options.pop("json")
    raise Exit(run(options.pop("urls"), options.pop("to"), options, headers, as_json=as_json))
