"""The body of `penstock search`."""

import json
import os
from dataclasses import asdict

import click

from penstock.cli import retries
from penstock.cli.embedder_options import Asked, embedder
from penstock.cli.failing import BAD_USAGE, DONE, complain, guarded
from penstock.cli.printing import hits


def run(index: str, question: str, k: int, asked: Asked, *, as_json: bool) -> int:
    """Search, print, and return the exit code."""

    def command() -> int:
        if not question.strip():
            complain("the question is empty: nothing was asked")
            return BAD_USAGE
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's would take 0.12 s of processor time to begin
        from penstock.workflows import search  # noqa: PLC0415 -- its libraries are an extra

        with retries.told():
            found = search(index, question, k=k, embedder=embedder(asked, index))
        if as_json:
            click.echo(json.dumps([asdict(hit) for hit in found]))
        elif not found:
            complain("nothing found")
        for line in () if as_json else hits(found):
            click.echo(line)
        return DONE

    return guarded(command, key="--api-key")
