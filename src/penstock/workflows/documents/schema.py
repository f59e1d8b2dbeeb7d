"""The format of an index: one SQLite file with files, their chunks, the vectors, and the words for full text."""

import os
from pathlib import Path

from penstock.durable.sqlite import Connection, StoreError, named_errors, transaction

APPLICATION = 0x70_65_6E_73  # "pens", in the header of the file
FORMAT = 1

_OPTIONS = {
    "hash-1": "--embedder hash",
    "openai": "--embedder {}",
    "sentence-transformers": "--embedder sentence-transformers:PATH with the model of that digest",
}
"""How an index's embedder is asked for, by the first part of its name."""

_TABLES = """
CREATE TABLE embedder (name TEXT NOT NULL, dimensions INTEGER NOT NULL);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, directory NOT NULL, name NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    UNIQUE (directory, name));
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES files, position INTEGER NOT NULL,
    first_line INTEGER NOT NULL, last_line INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL,
    UNIQUE (file, position));
CREATE TABLE vectors (chunk INTEGER PRIMARY KEY REFERENCES chunks, vector BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(
    title, text, content='', contentless_delete=1, tokenize="porter unicode61 remove_diacritics 2");
"""


def create(connection: Connection, embedder: str, dimensions: int) -> None:
    """Make the tables; the marks in the header come with them or not at all."""
    with transaction(connection):
        connection.execute(_TABLES)
        connection.execute("INSERT INTO embedder VALUES (?, ?)", (embedder, dimensions))
        connection.pragma("application_id", APPLICATION)
        connection.pragma("user_version", FORMAT)


def check(path: str, connection: Connection) -> tuple[str, int]:
    """The name and dimensions of the index's embedder; `StoreError` if this is no index or one of another format."""
    with named_errors(path):
        application, version = connection.pragma("application_id"), connection.pragma("user_version")
        if application != APPLICATION:
            raise StoreError(f"{path}: not an index of penstock")
        if version != FORMAT:
            raise StoreError(f"{path}: an index of format {version}; this penstock reads format {FORMAT}")
        name, dimensions = next(connection.execute("SELECT name, dimensions FROM embedder"))
        return name, dimensions


def check_embedder(path: str, made: tuple[str, int], name: str, dimensions: int | None) -> None:
    """`StoreError` if the vectors of an index `made` with one embedder are not those of the one that is wanted now.

    Dimensions that are not known yet are not compared.
    """
    if made != (name, made[1] if dimensions is None else dimensions):
        known = "" if dimensions is None else f" ({dimensions})"
        option = _OPTIONS.get(made[0].partition(":")[0], "")
        advice = f"use {option.format(made[0])}" if option else "use that one"
        raise StoreError(
            f"{path}: made with the embedder {made[0]} ({made[1]} dimensions), not {name}{known}; "
            f"{advice}, or name another index"
        )


def check_place(path: str) -> None:
    """`StoreError` if no database can be at `path`."""
    if Path(path).is_dir():
        raise StoreError(f"{path}: a directory, not an index")
    if not Path(path).parent.is_dir():
        raise StoreError(f"{path}: its directory does not exist")


def stored(name: str) -> str | bytes:
    """A file name as SQLite keeps it: text, or the bytes of one that is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def loaded(value: str | bytes) -> str:
    """The file name that `stored` made the value of."""
    return os.fsdecode(value) if isinstance(value, bytes) else value
