"""The command `thumbnails`."""

from typing import Annotated

from click.exceptions import Exit

from penstock.cli.parameters import Argument, Option
from penstock.cli.shared_options import Exclude, ReportAsJSON, given


def thumbnails(
    source: Annotated[str, Argument(metavar="DIR", help="The directory with the pictures.")],
    *,
    to: Annotated[str, Option("--to", metavar="OUT", help="Where they go; made if it is not there.")],
    sizes: Annotated[
        list[int] | None,
        Option("--size", metavar="PIXELS", help="Of the longer side; may be repeated. [default: 64 256 1024]"),
    ] = None,
    glob: Annotated[
        list[str] | None,
        Option(metavar="PATTERN", help="Files to take; may be repeated. [default: *.jpg *.png *.gif and so on]"),
    ] = None,
    exclude: Exclude = None,
    concurrency: Annotated[
        int | None, Option(metavar="N", help="Pictures at once. [default: 4 for each processor]")
    ] = None,
    engine: Annotated[
        str | None,
        Option(metavar="inline|thread|process", help="Where they are made small. [default: process]"),
    ] = None,
    timeout: Annotated[
        float | None, Option(metavar="SECONDS", help="A picture that takes longer fails. [default: 60]")
    ] = None,
    max_pixels: Annotated[
        int | None, Option(metavar="N", help="A picture with more fails. [default: 100000000]")
    ] = None,
    max_file_size: Annotated[
        int | None, Option(metavar="BYTES", help="A larger file fails. [default: 100000000]")
    ] = None,
    prune: Annotated[bool, Option("--prune", help="Remove the thumbnails of pictures that are gone from DIR.")] = False,
    json: ReportAsJSON = False,
) -> None:
    """Run `penstock thumbnails`."""
    options = given(**locals())
    from penstock.cli.thumbnails import run  # noqa: PLC0415 -- help must be quick

    as_json = options.pop("json")
    raise Exit(run(options.pop("source"), options.pop("to"), options, as_json=as_json))
