"""A file of JSON lines as a sink."""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from hashlib import blake2b
from io import BufferedReader
from typing import Any, Final, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.core.log import LOG
from penstock.durable.roots import RootId
from penstock.durable.sink import Delivery, Durability
from penstock.durable.sqlite.connection import Connection, connect_reader, transaction
from penstock.durable.sqlite.schema import refuse_other_tables
from penstock.durable.sqlite.tables import require
from penstock.durable.store_errors import RowError, StoreError
from penstock.sinks.cells import as_json, shown
from penstock.sinks.outside import OutsideStore, named_by_system, sync_directory
from penstock.sinks.sqlite_store import LONGEST, check_name, counted, database, lost_of

_TABLES: Final = """
CREATE TABLE line_file (
    id INTEGER PRIMARY KEY, size INTEGER NOT NULL, tail BLOB NOT NULL, size_before INTEGER NOT NULL,
    tail_before BLOB NOT NULL, is_replaced INTEGER NOT NULL);
CREATE TABLE lines (
    root INTEGER PRIMARY KEY, place INTEGER NOT NULL, bytes INTEGER NOT NULL, number INTEGER NOT NULL);
CREATE TABLE due (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""

_TAIL: Final = 1 << 16
"""Bytes before the end that have to be those that were written."""

_PART: Final = 1 << 20
"""Bytes that are written at once, and looked at."""

_PUT: Final = "INSERT INTO lines VALUES (?, ?, ?, ?)"
_PLACES: Final = "SELECT place, bytes FROM lines ORDER BY place"

_MOVE: Final = """
UPDATE lines SET place = moved.place FROM (
    SELECT root, sum(bytes) OVER (ORDER BY place) - bytes AS place FROM lines
) AS moved WHERE moved.root = lines.root
"""


class JsonLines:
    """Writes rows to a file as lines of JSON, exactly once: a line is there if its root is noted as done.

    A row is whatever JSON has, or what `SqliteTable` holds as JSON: a mapping, a list, anything with named fields, also
    with dates, `Decimal`, enums and the like in it; a NaN is null. A row that cannot be written is the failure of its
    root: see `on_error` of `to`.

    The lines of finished roots are committed to a journal beside the file, together with the note that the roots are
    done, and then appended. A run that was killed in between is completed by the next one. So the file only has what is
    committed; the lines of a root stand together. Whoever follows the file sees each line once, unless roots change.

    A changed root has its new lines appended. When the run ends, or the next one, the file is written anew without the
    lines that they replace, and put in place at a stroke; so it is if roots are gone (`on_missing="delete"`).

    A file that others have written to is refused and stays as it is: one that is shorter than the journal says, whose
    last 64 kB are not those that were written, or that has lines behind them. Half a line at its end is cut off.

    Args:
        path: the file, made if there is none; one that no run has written must be empty.
        journal: the database that knows which roots are done; default: `path` and `.journal`.

    Attributes:
        file: the file.
        path: the journal.

    Example:
        report = await users.map(enrich).to(penstock.JsonLines("enriched.jsonl"), run="users")

    Raises:
        OptionError: an argument breaks its rule.
    """

    delivery: Delivery = "exactly once"
    keeps_order: bool = True  # lines show in which order roots came

    def __init__(self, path: str | os.PathLike[str], *, journal: str | os.PathLike[str] | None = None) -> None:
        self.file: str = validate.path("path", path)
        check_name("path", self.file)
        self.path: str = database("journal", f"{self.file}.journal" if journal is None else journal)
        if os.path.realpath(self.path) == os.path.realpath(self.file):
            raise OptionError(f"journal must be another file than path, got {self.path!r}")

    @property
    def identity(self) -> str:
        """The file, from where the journal is: both may move together."""
        return f"lines {os.path.relpath(self.file, os.path.dirname(self.path) or os.curdir)}"  # noqa: PTH120 -- strings

    def open(self, durability: Durability) -> "LineStore":
        """Open it for writing; see `penstock.durable.sink`."""
        return LineStore(self, durability)

    def rows(self) -> Iterator[Any]:
        """Give the rows, in the order of the file, without those that a changed root has replaced.

        Raises:
            StoreError: no run has been there, or the file is not as its last run has left it.
        """
        with closing(connect_reader(self.path)) as connection:
            connection.bound(LONGEST)
            require(self.path, connection)
            refuse_other_tables(connection, _TABLES)
            with named_by_system(self.file), open(self.file, "rb") as file:  # noqa: PTH123 -- strings
                connection.execute("BEGIN")  # the file was opened before: whichever is newer, it shows
                is_replaced = bool(list(connection.execute("SELECT 1 FROM line_file WHERE is_replaced")))
                if is_replaced or not os.path.samestat(os.fstat(file.fileno()), os.stat(self.file)):  # noqa: PTH116 -- as above
                    raise StoreError(f"{self.file}: is being written anew, or was when its run was killed")
                for place, size in connection.select(_PLACES, (), int, int):
                    yield from map(json.loads, self._lines(file, place, size))

    def _lines(self, file: BufferedReader, place: int, size: int) -> Iterator[bytes]:
        file.seek(place)
        while size > 0:
            line = file.readline()
            size -= len(line)
            if not line.endswith(b"\n") or size < 0:
                raise StoreError(
                    f"{self.file}: is not as its journal has it: the next run completes it, or says why not"
                )
            yield line


class LineStore(OutsideStore):
    """The file, opened for writing by one run."""

    tables: str = _TABLES

    def __init__(self, sink: JsonLines, durability: Durability) -> None:
        self._sink = sink
        self._file = -1
        self._begin = 0  # of what was committed last
        self._size = self._committed = 0  # of the file with what the open transaction adds, and without
        self._tail = self._tail_committed = b""  # the last bytes of each
        self._parts: list[bytes] = []
        self._in_parts = 0
        self.check()
        super().__init__(sink.path, durability)
        try:
            self._open()
        except BaseException:
            super().close()
            self._let_go()
            raise

    @override
    def check(self) -> None:
        """Refuse what is no file of its own; reads only."""
        path = self._sink.file
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            if not os.path.isdir(os.path.dirname(path) or os.curdir):  # noqa: PTH112, PTH120 -- strings
                raise StoreError(f"{path}: its directory does not exist") from None
            return
        except OSError as error:
            raise StoreError(f"{path}: {(error.strerror or str(error)).lower()}") from error
        if not stat.S_ISREG(found.st_mode):
            what = "a symbolic link: give the file itself" if stat.S_ISLNK(found.st_mode) else "not a regular file"
            raise StoreError(f"{path}: {what}")
        if found.st_nlink > 1:
            raise StoreError(f"{path}: has {found.st_nlink} names (hard links): it must have one")

    def _open(self) -> None:
        """Open the file, and bring it to what is committed; refuse it if others have written to it."""
        path = self._sink.file
        known = list(self.connection.select("SELECT * FROM line_file", (), int, int, bytes, int, bytes, int))
        _, size, tail, size_before, tail_before, is_replaced = known[0] if known else (1, 0, _digest(b""), 0, b"", 0)
        if is_replaced:
            self._take_place()
        with named_by_system(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            if self.syncs:
                sync_directory(os.path.dirname(path) or os.curdir)  # noqa: PTH120 -- strings
        if not known and os.fstat(self._file).st_size:
            raise StoreError(f"{path}: holds what no run has written: give the name of a new file, or of an empty one")
        if not known or is_replaced:
            with transaction(self.connection):
                self._note(size, tail, size, tail)
        self._begin, self._size = (size_before, size) if self._is_due else (size, size)
        self._refuse_if_not_ours(tail_before if self._is_due else tail)
        self._committed = self._size
        self.catch_up()
        self._cut_half_a_line()
        self._tail = self._tail_committed = self._read(max(0, self._size - _TAIL), _TAIL)

    def _refuse_if_not_ours(self, tail: bytes) -> None:
        there = os.fstat(self._file).st_size
        if there < self._begin:
            raise self._of_others(f"it lacks {self._begin - there:,} of its {self._begin:,} bytes")
        if _digest(self._read(max(0, self._begin - _TAIL), min(_TAIL, self._begin))) != tail:
            raise self._of_others("its last lines are not those that were written")

    def _of_others(self, what: str) -> StoreError:
        return StoreError(
            f"{self._sink.file}: others have changed it: {what}; "
            f"put it back, or remove it and {self.path} to begin anew"
        )

    def _cut_half_a_line(self) -> None:
        """Cut off what is behind the last line, if it is half of one: nobody can have meant to leave that."""
        behind = self._read(self._size, _PART)
        if not behind:
            return
        if b"\n" in behind or len(behind) == _PART or _is_json(behind):
            raise self._of_others(f"there are lines behind the {self._size:,} bytes that were written")
        LOG.warning("%s: cut off half a line at its end, %s bytes", self._sink.file, len(behind))
        with named_by_system(self._sink.file):
            os.ftruncate(self._file, self._size)

    def _read(self, place: int, size: int) -> bytes:
        with named_by_system(self._sink.file):
            return os.pread(self._file, size, place)

    @override
    def accept(self, row: Any) -> bytes:
        """Return the row as a line; raise `RowError` if it cannot be one."""
        try:
            return f"{as_json([row])[1:-1]}\n".encode()
        except RowError:
            raise
        except Exception as error:  # of the code of others, too, in what a row holds
            raise RowError(f"a row must be what JSON can hold, got {shown(row)}") from error

    @override
    def replace(self, root: RootId, rows: Iterable[bytes]) -> None:
        """Append the rows of the root, in place of those that it has."""
        self.connection.execute("DELETE FROM lines WHERE root = ?", (root.number,))
        begin, number = self._size, 0
        for number, line in enumerate(rows, 1):  # noqa: B007 -- counted
            self._put(line)
        if number:
            self.connection.execute(_PUT, (root.number, begin, self._size - begin, number))

    def accept_all(self, rows: Sequence[Any]) -> Sequence[bytes] | None:
        """Return what `accept` gives for each of the rows; None if each has to be looked at."""
        try:
            return [self.accept(row) for row in rows]
        except RowError:
            return None

    def add(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """Append rows of roots that have none, each with the number of its root."""
        places = dict[int, list[int]]()
        for root, line in rows:
            of_root = places.setdefault(root, [root, self._size, 0, 0])
            of_root[2] += len(line)
            of_root[3] += 1
            self._put(line)
        self.connection.insert(_PUT, places.values())

    @override
    def lost(self, run: int) -> Sequence[tuple[int, int]]:
        there = self.connection.one("SELECT total(number), total(number * root) FROM lines", (), float, float)
        if there == counted(self.connection, self._sink.identity):
            return ()
        return lost_of(self.connection, run, "SELECT root, number FROM lines")

    def _put(self, line: bytes) -> None:
        self._parts.append(line)
        self._size += len(line)
        self._in_parts += len(line)
        if self._in_parts >= _PART:
            self._put_parts()

    def _put_parts(self) -> None:
        data = b"".join(self._parts)
        self._parts, self._in_parts = [], 0
        for begin in range(0, len(data), _PART):  # also where a line is larger than SQLite may hold in one piece
            self.connection.execute("INSERT INTO due (data) VALUES (?)", (data[begin : begin + _PART],))
        self._tail = (self._tail + data)[-_TAIL:]

    @override
    def note_due(self) -> bool:
        if self._parts:
            self._put_parts()
        if self._size == self._committed:
            return False
        self._note(self._size, _digest(self._tail), self._committed, _digest(self._tail_committed))
        return True

    def _note(self, size: int, tail: bytes, size_before: int, tail_before: bytes, *, is_replaced: bool = False) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO line_file VALUES (1, ?, ?, ?, ?, ?)",
            (size, tail, size_before, tail_before, is_replaced),
        )

    @override
    def keep(self) -> None:
        self._begin = self._committed
        self._committed, self._tail_committed = self._size, self._tail

    @override
    def take_back(self) -> None:
        self._size, self._tail = self._committed, self._tail_committed
        self._parts, self._in_parts = [], 0

    @override
    def carry_out(self) -> None:
        """Append what is committed; what is there of it is the same, or zeros: blocks that a power failure lost."""
        place = self._begin
        with named_by_system(self._sink.file):
            for (data,) in self.connection.select("SELECT data FROM due ORDER BY id", (), bytes):
                there = os.pread(self._file, len(data), place)
                if there != data:
                    if not _is_begun(there, data):
                        raise self._of_others(f"there is something else behind the first {place:,} bytes")
                    _write(self._file, data, place)
                place += len(data)
            if self.syncs:
                os.fdatasync(self._file)

    @override
    def is_there(self) -> bool:
        """Whether the file and its journal are where they were opened."""
        try:
            return os.path.samestat(os.lstat(self._sink.file), os.fstat(self._file)) and super().is_there()
        except OSError:
            return False

    @override
    def close(self) -> None:
        try:
            if self._file >= 0 and not self._is_due:
                self._close_gaps()
        except StoreError as error:
            LOG.warning("lines that were replaced are still there; the next run removes them: %s", error)
        finally:
            super().close()
            self._let_go()

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _close_gaps(self) -> None:
        """Write the file anew without the lines that were replaced, and put it in place of the one that is there.

        The commit comes between: from then on the new file counts, and who finds it puts it in place.
        """
        (used,) = self.connection.one("SELECT total(bytes) FROM lines", (), float)
        if used == self._size:
            return
        with named_by_system(self._sink.file):
            size, tail = self._copied()
        with transaction(self.connection):
            self.connection.execute("DELETE FROM due")
            self.connection.execute(_MOVE)
            self._note(size, tail, size, tail, is_replaced=True)
        self._is_carried_out = False
        self._take_place()
        with transaction(self.connection):
            self._note(size, tail, size, tail)

    def _copied(self) -> tuple[int, bytes]:
        """Copy what is not replaced to a new file; return its size, and the digest of its tail."""
        with suppress(FileNotFoundError):
            os.unlink(self._new)  # noqa: PTH108 -- strings
        new = os.open(self._new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            size = 0
            for place, length in _runs(self.connection):
                for begin in range(place, place + length, _PART):
                    data = os.pread(self._file, min(_PART, place + length - begin), begin)
                    _write(new, data, size)
                    size += len(data)
            os.fchmod(new, stat.S_IMODE(os.fstat(self._file).st_mode))
            os.fsync(new)
            return size, _digest(os.pread(new, _TAIL, max(0, size - _TAIL)))
        finally:
            os.close(new)

    @property
    def _new(self) -> str:
        return f"{self.path}-new"

    def _take_place(self) -> None:
        path = self._sink.file
        with named_by_system(path):
            with suppress(FileNotFoundError):  # it has taken its place before
                os.replace(self._new, path)  # noqa: PTH105 -- strings
            sync_directory(os.path.dirname(path) or os.curdir)  # noqa: PTH120 -- strings


def _runs(connection: Connection) -> Iterator[tuple[int, int]]:
    """Give the parts of the file that count, in order: where each begins, and its size."""
    begin = end = 0
    for place, size in connection.select(_PLACES, (), int, int):
        if place != end:
            yield begin, end - begin
            begin = place
        end = place + size
    yield begin, end - begin


def _is_begun(there: bytes, data: bytes) -> bool:
    """Whether `there` is the beginning of `data`, or zeros where it is not."""
    return data.startswith(there) or all(found in {0, wanted} for found, wanted in zip(there, data, strict=False))


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _write(file: int, data: bytes, place: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(file, left, place)
        left, place = left[written:], place + written


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
