"""An index of documents: a `penstock.sinks.vectors` whose roots are files, made with one embedder."""

import os
from contextlib import closing
from pathlib import Path

from penstock.durable.sqlite.connection import connect_reader
from penstock.durable.store_errors import StoreError
from penstock.sinks.vectors import Made, SqliteVectors
from penstock.sources.paths import key_of
from penstock.workflows.documents.embedders import Embedder

_OPTIONS = {
    "hash-1": "--embedder hash",
    "openai": "--embedder {}",
    "sentence-transformers": "--embedder sentence-transformers:PATH with the model of that digest",
}
"""The options that ask for an index's embedder, by the first part of its name."""

_BELOW = "SELECT EXISTS (SELECT 1 FROM penstock_roots WHERE key > ? AND key < ?)"


def refuse_other(path: str, embedder: Embedder) -> None:
    """Raise `StoreError` unless `path` is free or is an index that was made with this embedder."""
    if Path(path).is_file() and Path(path).stat().st_size:
        check_embedder(path, SqliteVectors(path).made(), embedder.name, embedder.dimensions)


def check_embedder(path: str, made: Made, name: str, dimensions: int | None) -> None:
    """Raise `StoreError` if an index was `made` with another embedder than the one that is wanted now.

    Dimensions that are not known yet are not compared.
    """
    if made.dimensions is None or made == Made(name, made.dimensions if dimensions is None else dimensions):
        return
    known = "" if dimensions is None else f" ({dimensions})"
    option = _OPTIONS.get((made.embedder or "").partition(":")[0], "")
    advice = f"use {option.format(made.embedder)}" if option else "use that one"
    raise StoreError(
        f"{path}: made with the embedder {made.embedder} ({made.dimensions} dimensions), not {name}{known}; "
        f"{advice}, or name another index"
    )


def has_files_below(path: str, directory: str) -> bool:
    """Whether the index at `path` has files below `directory`."""
    within = key_of(directory.rstrip(os.sep))
    limits = (f"{within}{os.sep}", f"{within}{chr(ord(os.sep) + 1)}")
    with closing(connect_reader(path)) as connection:
        (found,) = connection.one(_BELOW, limits, int)
        return bool(found)
