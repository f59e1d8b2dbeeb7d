"""Rows with vectors in an SQLite database, to be found by nearness, by words, or by both."""

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import batched, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, override

import numpy as np
import sqlite_vec  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs] -- has no types; only used here
from apsw import SQLITE_LIMIT_LENGTH

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.durable.roots import RootId
from penstock.durable.sink import Delivery, Durability
from penstock.durable.sqlite.connection import Connection, ConstraintError, TooLargeError, connect_reader, transaction
from penstock.durable.sqlite.schema import refuse_computed, refuse_other_tables
from penstock.durable.store_errors import RefusedRowError, RowError, StoreError
from penstock.sinks import finding
from penstock.sinks.columns import Columns, declared
from penstock.sinks.declaring import Declared
from penstock.sinks.finding import Found
from penstock.sinks.sqlite_store import ROOT, SqliteStore, database, is_whole, lost_from, lowered
from penstock.sinks.vector_rows import Indexed, VectorLike, VectorRow, unit, vector_of
from penstock.sinks.words import TOKENIZER, asked, indexed

_EXTENSION: str = sqlite_vec.loadable_path()

APPLICATION = 0x70_65_6E_73  # "pens", in the header of the file
FORMAT = 3

_TABLES = f"""
CREATE TABLE made (embedder TEXT, dimensions INTEGER);
INSERT INTO made VALUES (NULL, NULL);
CREATE TABLE vectors (id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE scaled (id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(
    title, text, content='', contentless_delete=1, tokenize="{TOKENIZER}");
"""  # noqa: S608 -- a constant
_FIRST_ID = "SELECT coalesce(max(id), 0) + 1 FROM vectors"
_HAS_ROWS = f"SELECT 1 FROM entries WHERE {ROOT} = ? LIMIT 1"  # noqa: S608 -- a constant
_OF_ROOT = f"(SELECT id FROM entries WHERE {ROOT} = ?)"  # noqa: S608 -- a constant
_WITH_VECTORS = "entries JOIN vectors USING (id)"
_WAIT = 3_000
"""Milliseconds to wait for readers of a closed index, who lock it."""

_FLOAT = 4
"""Bytes of a number of a vector."""
_LONGEST = 64 << 20
"""Bytes of a value, at most: a search may hold as many times that as rows are asked for."""

_AT_ONCE = 1_000
_LARGEST = 2_000
"""Rows of one commit, about: a vector may take as much room as a hundred other values."""

_OWN = {"id": "INTEGER PRIMARY KEY", ROOT: "INTEGER NOT NULL"}


@dataclass(frozen=True, slots=True)
class Made:
    """What the vectors of an index were made with; None is not known yet."""

    embedder: str | None = None
    dimensions: int | None = None


class SqliteVectors:
    """An index that rows with vectors go to, exactly once, and in which they can be found.

    A row is a mapping, or anything with named fields, with a `vector` (a sequence of finite numbers, or an array), a
    `text` (a str) and any other columns, with values as those of `SqliteTable`. The first row decides how long vectors
    are. A column that comes later is added; one that a row lacks is `None` there. If rows have a `title` (a str), its
    words count four times as much as those of the text. A row that cannot be stored is the failure of its root: see
    `on_error` of `to`.

    The index is a database of its own, with the journal of runs in it. The rows of a root and the note that it is done
    are one transaction, so readers see the old rows of a root or the new ones, never a mixture.

    Args:
        path: the database, made if there is none.
        embedder: the name of what makes the vectors, which the index is then held to; default: it is not recorded.
        dimensions: the length of vectors, an int >= 1; default that of the first one.
        columns: the columns that rows may have beside the vector, `text` among them, as for `SqliteTable`. Default:
            whatever columns rows have.

    Example:
        index = penstock.SqliteVectors("index.db", embedder="all-MiniLM-L6-v2")
        await files.flat_map(split).map_batches(embed, 64, concurrency=4).to(index, run="docs")
        for found in index.search(vector_of(question), question, k=5):
            print(found.score, found.key, found.row["text"])

    Raises:
        OptionError: an argument breaks its rule.
    """

    delivery: Delivery = "exactly once"
    identity: str = "vectors"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        embedder: str | None = None,
        dimensions: int | None = None,
        columns: Declared | None = None,
    ) -> None:
        self.path: str = database("path", path)
        self.embedder: str | None = None if embedder is None else validate.text("embedder", embedder)
        self.dimensions: int | None = None if dimensions is None else validate.whole("dimensions", dimensions, least=1)
        self.columns: dict[str, str] | None = declared(columns)
        if self.columns is not None:
            if "text" not in self.columns:
                raise OptionError(f"columns must have 'text', got {', '.join(map(repr, self.columns))}")
            if own := [name for name in self.columns if lowered(name) in {"vector", *_OWN}]:
                raise OptionError(f"columns must not have {own[0]!r}, which the index has itself")

    def open(self, durability: Durability) -> "VectorStore":
        """Open it for writing; see `penstock.durable.sink`.

        Raises:
            HeldError: another process is writing to it.
            StoreError: it cannot be written, is no index, or was made with another embedder.
        """
        return VectorStore(self, durability)

    def made(self) -> Made:
        """Return what its vectors were made with.

        Raises:
            StoreError: there is no index at the path.
        """
        with closing(self._reader()) as connection:
            return look(self.path, connection)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Give the rows, in the order in which they came."""
        with closing(self._reader()) as connection:
            self._look(connection)
            for row, vector in finding.rows(connection):
                yield {**row, "vector": np.frombuffer(vector, np.float32)}

    def nearest(self, vector: VectorLike, *, k: int = 10) -> list[Found]:
        """Return the `k` rows (an int >= 1) whose vectors point most nearly where `vector` does, the best first.

        The score is the cosine of the angle, -1 to 1. Nothing is near to a vector of zeros.

        Raises:
            OptionError: an argument breaks its rule, or `vector` is not as long as those of the index.
            StoreError: there is no index at the path, or it was made with another embedder.
        """
        k = validate.whole("k", k, least=1)
        wanted = unit(vector_of(vector))
        with closing(self._reader()) as connection:
            self._look(connection, len(wanted))
            return finding.found(connection, finding.near(connection, wanted.tobytes(), k))

    def matching(self, text: str, *, k: int = 10) -> list[Found]:
        """Return the `k` rows (an int >= 1) that have words of `text`, any text, the best first.

        What is written as one (`os.path`, `don't`) counts as its words and as a phrase. In scripts without spaces
        (Chinese, Japanese, Korean, Thai, ...) pairs of characters are words; symbols are words, punctuation is none.
        The score is that of Okapi BM25, greater than 0.

        Raises:
            OptionError, StoreError: as for `nearest`.
        """
        k = validate.whole("k", k, least=1)
        with closing(self._reader()) as connection:
            self._look(connection)
            return finding.found(connection, finding.having(connection, asked(connection, text), k))

    def search(self, vector: VectorLike, text: str, *, k: int = 10) -> list[Found]:
        """Return the `k` best of both ways, ranked apart and fused by reciprocal rank; rows with rare words come first.

        The score is the sum of 1 / (60 + rank) over both (Cormack, Clarke and Buettcher, SIGIR 2009), and 0.05 for each
        rare word of `text` that the row has. A rare word is in one root of a hundred, at least in one and at most in
        four, of an index of ten roots or more.

        Raises:
            OptionError, StoreError: as for `nearest`.
        """
        k = validate.whole("k", k, least=1)
        wanted = unit(vector_of(vector))
        with closing(self._reader()) as connection:
            self._look(connection, len(wanted))
            words = asked(connection, text)
            return finding.found(connection, finding.fused(connection, wanted.tobytes(), words, k))

    def _reader(self) -> Connection:
        connection = connect_reader(self.path, extension=_EXTENSION)
        connection.bound(_LONGEST)
        return connection

    def _look(self, connection: Connection, dimensions: int | None = None) -> None:
        """Begin to read; all reads from here on see one moment."""
        connection.execute("BEGIN")
        made = look(self.path, connection)
        self.compare(made)
        if dimensions is not None and made.dimensions not in {None, dimensions}:
            raise OptionError(f"vector has {dimensions} dimensions, those of {self.path} have {made.dimensions}")

    def compare(self, made: Made) -> None:
        """Raise `StoreError` if an index that was `made` so is not this one; what is not known is not compared."""
        dimensions = made.dimensions if self.dimensions is None else self.dimensions
        embedder = made.embedder if self.embedder is None else self.embedder
        if made.dimensions is not None and made != Made(embedder, dimensions):
            own = "" if self.dimensions is None else f" ({self.dimensions})"
            raise StoreError(
                f"{self.path}: made with the embedder {made.embedder or 'of no name'} ({made.dimensions} dimensions), "
                f"not {embedder or 'of no name'}{own}; use that one, or name another index"
            )


class VectorStore(SqliteStore):
    """The index, opened for writing by one run."""

    extension = _EXTENSION

    def __init__(self, sink: SqliteVectors, durability: Durability) -> None:
        self._sink = sink
        self._dimensions: int | None = None
        super().__init__(sink.path, durability)
        self.connection.set_busy_timeout(0)
        self.largest: int = _LARGEST

    @override
    def check(self) -> None:
        if _is_empty(self.path):
            return
        connect_reader(self.path).close()  # which may empty it: whoever made it was killed at once
        if not _is_empty(self.path):
            self._sink.compare(self._sink.made())

    @override
    def prepare(self) -> None:
        connection, sink = self.connection, self._sink
        connection.limit(SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.set_busy_timeout(_WAIT)
        with transaction(connection):
            if not list(connection.execute("PRAGMA table_info(made)")):
                connection.execute(_TABLES)
                connection.pragma("application_id", APPLICATION)
                connection.pragma("user_version", FORMAT)
            connection.execute(
                "UPDATE made SET embedder = ?, dimensions = ? WHERE dimensions IS NULL",
                (sink.embedder, sink.dimensions),
            )
            self._dimensions = look(self.path, connection).dimensions
            self._columns = Columns(
                connection,
                self.path,
                "entries",
                own=_OWN,
                beside=("vector",),
                index=f"entries_{ROOT}",
                fixed=sink.columns,
            )
            self._columns.declare()

    @override
    def accept(self, row: Any) -> Indexed:
        """Return the row as the index holds it; raise `RowError` if it cannot be stored."""
        given, values, vector, scaled = (row if isinstance(row, VectorRow) else VectorRow.of(row)).indexed
        self._check_dimensions(len(vector) // _FLOAT)
        names, _ = self._columns.check(given)
        return names, values, vector, scaled

    def _check_dimensions(self, given: int) -> None:
        if self._dimensions not in {None, given}:
            raise RowError(f"vector has {given} dimensions, those of {self.path} have {self._dimensions}")

    @override
    @contextmanager
    def transaction(self) -> Generator[None]:
        """Open a transaction: all or nothing, also of what is known of the rows."""
        columns, dimensions = self._columns.known, self._dimensions
        try:
            with super().transaction():
                yield
        except BaseException:
            self._columns.back_to(columns)
            self._dimensions = dimensions
            raise

    @override
    def lost(self, run: int) -> Sequence[tuple[int, int]]:
        """Return what `Store.lost` does.

        Vectors and words without an entry are dropped: they would take places of hits.
        """
        with self.connection.bounded():
            return self._lost(run)

    def _lost(self, run: int) -> Sequence[tuple[int, int]]:
        connection, there = self.connection, bool(self._columns.known)
        equal = "SELECT (SELECT count(*) FROM entries) = (SELECT count(*) FROM vectors)"
        if there and is_whole(connection, self._sink.identity, "entries") and connection.one(equal, (), int) == (1,):
            return ()
        alone = f"SELECT id FROM vectors{' WHERE id NOT IN (SELECT id FROM entries)' if there else ''}"  # noqa: S608 -- constants
        connection.execute(f"DELETE FROM words WHERE rowid IN ({alone})")  # noqa: S608 -- a constant
        connection.execute(f"DELETE FROM vectors WHERE id IN ({alone})")  # noqa: S608 -- a constant
        return lost_from(connection, run, _WITH_VECTORS if there else None)

    @override
    def replace(self, root: RootId, rows: Iterable[Indexed]) -> None:
        """Replace the rows of the root by `rows`."""
        if self._columns.known and list(self.connection.execute(_HAS_ROWS, (root.number,))):  # else a delete costs, too
            for table, column in (("words", "rowid"), ("vectors", "id"), ("scaled", "id")):
                self.connection.execute(f"DELETE FROM {table} WHERE {column} IN {_OF_ROOT}", (root.number,))  # noqa: S608 -- constants
            self.connection.execute(f"DELETE FROM entries WHERE {ROOT} = ?", (root.number,))  # noqa: S608 -- a constant
        for some in batched(rows, _AT_ONCE):
            try:
                self._insert(root, some)
            except ConstraintError as error:
                raise RefusedRowError(str(error)) from error
            except TooLargeError as error:
                raise RefusedRowError(f"{self.path}: a row has more bytes than SQLite can store") from error

    def _insert(self, root: RootId, rows: Sequence[Indexed]) -> None:
        least: int
        (least,) = self.connection.one(_FIRST_ID, (), int)
        entries: list[tuple[tuple[str, ...], tuple[Any, ...]]] = []
        vectors: list[tuple[int, bytes]] = []
        scaled: list[tuple[int, bytes]] = []
        words: list[tuple[int, str, str]] = []
        for number, (names, values, vector, unit_vector) in enumerate(rows, least):
            self._take_dimensions(root, number - least, len(vector) // _FLOAT)
            row = dict(zip(names, values, strict=True))
            entries.append((names, (number, root.number, *values)))
            vectors.append((number, vector))
            if unit_vector is not None:
                scaled.append((number, unit_vector))
            words.append((number, indexed(str(row.get("title") or "")), indexed(str(row["text"]))))
        for names, alike in groupby(entries, key=itemgetter(0)):
            self.connection.executemany(self._columns.insert(names), (values for _, values in alike))
        self.connection.executemany("INSERT INTO vectors VALUES (?, ?)", vectors)
        self.connection.executemany("INSERT INTO scaled VALUES (?, ?)", scaled)
        self.connection.executemany("INSERT INTO words(rowid, title, text) VALUES (?, ?, ?)", words)

    def _take_dimensions(self, root: RootId, position: int, given: int) -> None:
        """Hold the vectors of the index to the length of the first one."""
        try:
            self._check_dimensions(given)
        except RowError as error:
            raise RowError(f"row {position} of {root.key!r}: {error}") from None
        if self._dimensions is None:
            self._dimensions = given
            self.connection.execute("UPDATE made SET dimensions = ?", (given,))

    @override
    def close(self) -> None:
        """Close it; if nobody reads just now, leave a single file, which can be read in a place that cannot be written.

        It waits for nobody: while someone reads, or if the disk is full, the rows stay where they are committed, in the
        `-wal` beside it, and the next run folds them in.
        """
        with suppress(StoreError):
            self.connection.pragma("journal_mode", "delete")
        super().close()


def _is_empty(path: str) -> bool:
    return not Path(path).exists() or not Path(path).stat().st_size


def look(path: str, connection: Connection) -> Made:
    """Return what the vectors of an index were made with.

    Raises:
        StoreError: this is no index, or one of another format.
    """
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if not application and connection.pragma("page_count") and not connection.pragma("schema_version"):
        return Made()  # nothing was ever made in it: whoever began was stopped at once
    if application != APPLICATION:
        raise StoreError(f"{path}: not an index of penstock")
    if version != FORMAT:
        advice = "; make another one" if version < FORMAT else ""
        raise StoreError(f"{path}: an index of format {version}; this penstock reads format {FORMAT}{advice}")
    refuse_other_tables(connection, _TABLES)
    refuse_computed(connection, "entries")
    return Made(*connection.one("SELECT embedder, dimensions FROM made", (), str | None, int | None))
