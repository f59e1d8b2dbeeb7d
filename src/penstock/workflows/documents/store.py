"""The writer of an index: one connection, one transaction for a document."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from penstock.durable.lock import exclusive
from penstock.durable.sqlite import Connection, StoreError, connect_reader, connect_writer, named_errors, transaction
from penstock.workflows.documents import schema
from penstock.workflows.documents.embedders import Embedder, Vectors
from penstock.workflows.documents.reading import Document

_KNOWN = "SELECT name, size, mtime_ns FROM files WHERE directory = ?"
_ID = "SELECT id FROM files WHERE directory = ? AND name = ?"
_PLACE = "SELECT directory, name FROM files WHERE id = ?"
_FILE = "INSERT INTO files (directory, name, size, mtime_ns) VALUES (?, ?, ?, ?)"
_DELETE = (
    "DELETE FROM words WHERE rowid IN (SELECT id FROM chunks WHERE file = ?)",
    "DELETE FROM vectors WHERE chunk IN (SELECT id FROM chunks WHERE file = ?)",
    "DELETE FROM chunks WHERE file = ?",
    "DELETE FROM files WHERE id = ?",
)


class Store:
    """An index opened for writing, by one process at a time; a document's rows are replaced all at once.

    `replace` may be called from any thread. A process killed at any instant leaves whole documents only: SQLite in WAL
    mode with `synchronous=NORMAL`, which a power failure may take back to an earlier commit, never to half of one.
    """

    def __init__(self, path: str, embedder: Embedder) -> None:
        """Open or make the index at `path`; `StoreError` or `HeldError` says why it cannot be written to."""
        self.path = path
        self.place: str = str(Path(path).resolve())
        self._writing = Lock()
        schema.check_place(path)
        _refuse_strangers(path, embedder)  # before the lock, which would leave its file beside them
        with ExitStack() as opened:
            try:
                opened.enter_context(exclusive(path))
            except OSError as error:
                raise StoreError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
            _refuse_strangers(path, embedder)  # again: who held the lock may have made it
            self._writer = connect_writer(path)
            opened.callback(self._writer.close)
            self._prepare(embedder)
            self._reader = connect_reader(path)
            opened.callback(self._reader.close)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the index; where nobody reads it just now, as a single file that needs no other beside it."""
        with self._writing, self._opened:
            self._reader.close()
            _fold(self._writer)

    def known(self, directory: str) -> dict[str, tuple[int, int]]:
        """The version, (size, mtime in ns), of every file of `directory` in the index."""
        with named_errors(self.path):
            rows = self._reader.execute(_KNOWN, (schema.stored(directory),))
            return {schema.loaded(name): (size, mtime) for name, size, mtime in rows}

    def directories(self, root: str) -> Iterator[str]:
        """The directories in the index that are `root` or lie below it."""
        below = f"{root.rstrip('/')}/"
        with named_errors(self.path):
            for (value,) in self._reader.execute("SELECT DISTINCT directory FROM files"):
                directory = schema.loaded(value)
                if directory == root or directory.startswith(below):
                    yield directory

    def replace(self, document: Document, vectors: Vectors) -> None:
        """Put the document in the place of its former rows, in one transaction."""
        with self._writing, named_errors(self.path), transaction(self._writer):
            file = document.file
            key = (schema.stored(file.directory), schema.stored(file.name))
            for (former,) in self._writer.execute(_ID, key):
                self._delete(former)
            self._writer.execute(_FILE, (*key, *file.version))
            self._insert_chunks(self._writer.last_insert_rowid(), document, vectors)

    def ids(self, directory: str, names: Iterable[str]) -> Iterator[int]:
        """The numbers by which the index knows files of a directory."""
        with named_errors(self.path):
            for name in names:
                for (file,) in self._reader.execute(_ID, (schema.stored(directory), schema.stored(name))):
                    yield file

    def remove(self, files: Iterable[int]) -> int:
        """Remove, in one transaction, those of the files (`ids`) that are not there just now; how many."""
        removed = 0
        with self._writing, named_errors(self.path), transaction(self._writer):
            for file in files:
                for directory, name in self._writer.execute(_PLACE, (file,)):
                    if not os.path.lexists(os.path.join(schema.loaded(directory), schema.loaded(name))):  # noqa: PTH118 -- as in penstock.sources.files
                        self._delete(file)
                        removed += 1
        return removed

    def _delete(self, file: int) -> None:
        for statement in _DELETE:
            self._writer.execute(statement, (file,))

    def _insert_chunks(self, file: int, document: Document, vectors: Vectors) -> None:
        (least,) = next(self._writer.execute("SELECT coalesce(max(id), 0) + 1 FROM chunks"))
        chunks = list(enumerate(document.chunks))
        self._writer.executemany(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((least + n, file, n, c.first_line, c.last_line, c.heading, c.text) for n, c in chunks),
        )
        self._writer.executemany(
            "INSERT INTO vectors VALUES (?, ?)", ((least + n, vectors[n].tobytes()) for n, _ in chunks)
        )
        self._writer.executemany(
            "INSERT INTO words(rowid, title, text) VALUES (?, ?, ?)",
            ((least + n, document.title(c), c.text) for n, c in chunks),
        )

    def _prepare(self, embedder: Embedder) -> None:
        with named_errors(self.path):
            if not self._writer.pragma("page_count"):
                if embedder.dimensions is None:
                    raise StoreError(f"{self.path}: the dimensions of the embedder {embedder.name} are not known yet")
                schema.create(self._writer, embedder.name, embedder.dimensions)
            self._writer.pragma("journal_mode", "wal")
            self._writer.pragma("synchronous", "normal")
            self._writer.pragma("schema_version")  # opens the -wal; else `_fold` would see none and leave it behind


def _refuse_strangers(path: str, embedder: Embedder) -> None:
    """Look at what is there without writing anything: a database that is not ours stays as it is."""
    if not Path(path).exists() or not Path(path).stat().st_size:
        return
    with closing(connect_reader(path)) as connection:
        made = schema.check(path, connection)
    schema.check_embedder(path, made, embedder.name, embedder.dimensions)


def _fold(connection: Connection) -> None:
    """Leave WAL mode, so that the file can be read in a directory that cannot be written.

    It waits for nobody: while someone reads, or when the disk is full, the rows stay where they are committed, in the
    `-wal` beside it, and the next run folds them in.
    """
    with suppress(StoreError), named_errors(""):
        connection.pragma("journal_mode", "delete")
